//! What goes over the wire, and in which bytes.
//!
//! A frame's body is one message: a kind (1 byte), then MessagePack in tuple form. Every request reserves deadline,
//! trace, principal, operation id and layout version from the start, so that later versions need no new
//! shape for them. The protocol's version is agreed in the TLS handshake, not here.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_ring::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Answer, ApplyLayout, BucketEntry, BucketId, BucketRequest, Delete, Get, LayoutReply,
    LayoutRequest, List, NodeStatus, Put, Refusal, Request, RequestId, Scan, Scanned, Upkeep,
    UpkeepReply, VnodeId,
};

/// The version of these messages, agreed at the handshake.
pub const PROTOCOL_VERSION: u16 = 1;

/// A trace as in W3C Trace Context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trace {
    /// The whole request's.
    pub trace_id: u128,
    /// The sender's part of it.
    pub span_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

/// What every request carries beside what it asks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Header {
    /// The layout the sender chose replicas by; 0 from a client that knows none.
    pub layout_version: u64,
    /// Milliseconds left when this was sent; 0 for the receiver's default.
    pub deadline_ms: u32,
    /// Whether a node sent it on for a client. A forwarded request is not forwarded again.
    pub forwarded: bool,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// On whose behalf it is made, where that is not the sender.
    pub principal: Option<String>,
    /// Names the operation through all its retries.
    pub op_id: Option<u128>,
}

/// What a coordinator asks of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaRequest {
    /// Join this record into yours, and say when it is as durable as asked.
    Merge(Merge),
    /// Tell what you have.
    Read(Read),
    /// Tell which of these values you had and have no more.
    Recall(Recall),
    /// List keys of some of your partitions.
    Scan(Scan),
    /// Join this entry into your table of buckets, and say what it is afterwards once that is on disk.
    Bucket(Box<BucketEntry>),
    /// Tell your table of buckets, unless it has this digest.
    Buckets(BucketsAsked),
    /// Tell how you are.
    Status,
    /// What replicas do for each other's sake.
    Upkeep(Box<Upkeep>),
    /// About layouts.
    Layout(Box<LayoutRequest>),
}

/// Asks for the table of buckets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketsAsked {
    /// The digest of the asker's own table.
    pub digest: u128,
}

/// The one way by which data reaches a replica: writes, read repair, handoff, and later exchanges and transfers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Merge {
    /// Which seat.
    pub vnode: VnodeId,
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The record to join, encoded.
    pub record: Bytes,
    /// Whether the answer must wait for a disk sync, whatever the replica's setting.
    pub durable: bool,
    /// The primary, out of reach, for which the receiver is to keep it: the receiver is no replica of this seat.
    pub hint_for: Option<NodeId>,
}

/// Asks for a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Read {
    /// Which seat.
    pub vnode: VnodeId,
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// Whether the digest is enough.
    pub digest_only: bool,
    /// Whether the reader counts on more than one answer, so that a replica answers only once it knows that it has lost nothing.
    pub strict: bool,
    /// Whether to tell what the receiver, no replica of this seat, keeps of the key for primaries out of reach.
    pub hinted: bool,
}

/// Asks what became of values that another replica shows and the asked one lacks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recall {
    /// Which seat.
    pub vnode: VnodeId,
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The values' dots, each as actor and counter.
    pub dots: Vec<(u128, u64)>,
}

/// What a replica says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReplicaReply {
    /// Joined, as durable as asked; `synced` if it is on disk.
    Merged {
        /// Whether a disk sync covers it.
        synced: bool,
    },
    /// The record, encoded; empty bytes where there is none.
    Record(Bytes),
    /// The digest of its live dots.
    Digest(#[serde(with = "crate::ids::sixteen_bytes")] [u8; 16]),
    /// Nothing done.
    Refused(Refusal),
    /// Keys.
    Scanned(Scanned),
    /// The entry as it is now, on disk.
    Bucket(Box<BucketEntry>),
    /// The whole table; `None` if the asker's is the same.
    Buckets(Option<Vec<BucketEntry>>),
    /// How the node is.
    Status(Box<NodeStatus>),
    /// What came of upkeep.
    Upkeep(Box<UpkeepReply>),
    /// Of the values asked about, those that were seen here or elsewhere, are not live here, and of whose removal nothing is known.
    Gone(Vec<(u128, u64)>),
    /// About layouts.
    Layout(Box<LayoutReply>),
}

/// Everything one side may say to the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A client's request, from a client or forwarded by a node.
    Request(RequestId, Header, Request),
    /// The answer to it.
    Answer(RequestId, Answer),
    /// A coordinator's request to a replica. Between nodes only.
    Replica(RequestId, Header, ReplicaRequest),
    /// The answer to it. Between nodes only.
    Reply(RequestId, ReplicaReply),
}

/// Bytes that are no message of this version.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("an empty frame")]
    Empty,
    /// A kind this version does not have.
    #[error("message kind {0} is not known to protocol version {PROTOCOL_VERSION}")]
    Kind(u8),
    /// The kind is known; what follows is not of it.
    #[error("a malformed message of kind {kind}: {why}")]
    Body {
        /// Which kind.
        kind: u8,
        /// What is wrong.
        why: String,
    },
}

mod kind {
    pub(super) const PUT: u8 = 1;
    pub(super) const GET: u8 = 2;
    pub(super) const DELETE: u8 = 3;
    pub(super) const DESCRIBE: u8 = 4;
    pub(super) const LIST: u8 = 5;
    pub(super) const BUCKET: u8 = 6;
    pub(super) const BUCKETS: u8 = 7;
    pub(super) const STATUS: u8 = 8;
    pub(super) const REPAIR: u8 = 9;
    pub(super) const APPLY: u8 = 10;
    pub(super) const LAYOUTS: u8 = 11;
    pub(super) const PACE: u8 = 12;
    pub(super) const ANSWER: u8 = 15;
    pub(super) const MERGE: u8 = 16;
    pub(super) const READ: u8 = 17;
    pub(super) const SCAN: u8 = 18;
    pub(super) const JOIN_BUCKET: u8 = 19;
    pub(super) const JOIN_BUCKETS: u8 = 20;
    pub(super) const NODE_STATUS: u8 = 21;
    pub(super) const UPKEEP: u8 = 22;
    pub(super) const RECALL: u8 = 23;
    pub(super) const LAYOUT: u8 = 24;
    pub(super) const REPLY: u8 = 31;
}

impl Message {
    /// The message's bytes: the body of one frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Message::Request(id, header, request) => match request {
                Request::Put(put) => body(kind::PUT, put.value.data.len(), &(id, header, put)),
                Request::Get(get) => body(kind::GET, 0, &(id, header, get)),
                Request::Delete(delete) => body(kind::DELETE, 0, &(id, header, delete)),
                Request::Describe => body(kind::DESCRIBE, 0, &(id, header)),
                Request::List(list) => body(kind::LIST, 0, &(id, header, list)),
                Request::Bucket(bucket) => body(kind::BUCKET, 0, &(id, header, bucket)),
                Request::Buckets => body(kind::BUCKETS, 0, &(id, header)),
                Request::Status => body(kind::STATUS, 0, &(id, header)),
                Request::Repair(repair) => body(kind::REPAIR, 0, &(id, header, repair)),
                Request::Apply(apply) => body(kind::APPLY, 0, &(id, header, apply)),
                Request::Layouts => body(kind::LAYOUTS, 0, &(id, header)),
                Request::Pace(pace) => body(kind::PACE, 0, &(id, header, pace)),
            },
            Message::Answer(id, answer) => {
                let hint = match answer {
                    Answer::Found { siblings, .. } => {
                        siblings.iter().map(|s| s.value.data.len() + 64).sum()
                    }
                    Answer::Described(description) => description.layout.len(),
                    Answer::Listed(listing) => listing.keys.iter().map(|key| key.len() + 3).sum(),
                    _ => 0,
                };
                body(kind::ANSWER, hint, &(id, answer))
            }
            Message::Replica(id, header, ReplicaRequest::Merge(merge)) => {
                body(kind::MERGE, merge.record.len(), &(id, header, merge))
            }
            Message::Replica(id, header, ReplicaRequest::Read(read)) => {
                body(kind::READ, 0, &(id, header, read))
            }
            Message::Replica(id, header, ReplicaRequest::Recall(recall)) => {
                body(kind::RECALL, 0, &(id, header, recall))
            }
            Message::Replica(id, header, ReplicaRequest::Scan(scan)) => {
                body(kind::SCAN, 0, &(id, header, scan))
            }
            Message::Replica(id, header, ReplicaRequest::Bucket(entry)) => {
                body(kind::JOIN_BUCKET, 0, &(id, header, entry))
            }
            Message::Replica(id, header, ReplicaRequest::Buckets(asked)) => {
                body(kind::JOIN_BUCKETS, 0, &(id, header, asked))
            }
            Message::Replica(id, header, ReplicaRequest::Status) => {
                body(kind::NODE_STATUS, 0, &(id, header))
            }
            Message::Replica(id, header, ReplicaRequest::Upkeep(upkeep)) => {
                let hint = match &**upkeep {
                    Upkeep::Reconcile(reconcile) => {
                        let sizes = reconcile.records.iter();
                        sizes.map(|r| r.key.len() + r.record.len() + 32).sum()
                    }
                    _ => 0,
                };
                body(kind::UPKEEP, hint, &(id, header, upkeep))
            }
            Message::Replica(id, header, ReplicaRequest::Layout(layout)) => {
                body(kind::LAYOUT, 0, &(id, header, layout))
            }
            Message::Reply(id, reply) => {
                let hint = match reply {
                    ReplicaReply::Record(record) => record.len(),
                    ReplicaReply::Scanned(scanned) => {
                        scanned.entries.iter().map(|e| e.key.len() + 16).sum()
                    }
                    _ => 0,
                };
                body(kind::REPLY, hint, &(id, reply))
            }
        }
    }

    /// Reads the body of one frame.
    ///
    /// # Errors
    /// If the bytes are no message of this version, or more than one. The connection they came on should be closed: its
    /// other end speaks something else.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let (&kind, rest) = frame.split_first().ok_or(DecodeError::Empty)?;
        Ok(match kind {
            kind::PUT => {
                let (id, header, put): (_, _, Put) = parse(kind, rest)?;
                Message::Request(id, header, Request::Put(put))
            }
            kind::GET => {
                let (id, header, get): (_, _, Get) = parse(kind, rest)?;
                Message::Request(id, header, Request::Get(get))
            }
            kind::DELETE => {
                let (id, header, delete): (_, _, Delete) = parse(kind, rest)?;
                Message::Request(id, header, Request::Delete(delete))
            }
            kind::DESCRIBE => {
                let (id, header) = parse(kind, rest)?;
                Message::Request(id, header, Request::Describe)
            }
            kind::LIST => {
                let (id, header, list): (_, _, List) = parse(kind, rest)?;
                Message::Request(id, header, Request::List(list))
            }
            kind::BUCKET => {
                let (id, header, bucket): (_, _, BucketRequest) = parse(kind, rest)?;
                Message::Request(id, header, Request::Bucket(bucket))
            }
            kind::BUCKETS => {
                let (id, header) = parse(kind, rest)?;
                Message::Request(id, header, Request::Buckets)
            }
            kind::STATUS => {
                let (id, header) = parse(kind, rest)?;
                Message::Request(id, header, Request::Status)
            }
            kind::REPAIR => {
                let (id, header, repair) = parse(kind, rest)?;
                Message::Request(id, header, Request::Repair(repair))
            }
            kind::APPLY => {
                let (id, header, apply): (_, _, Box<ApplyLayout>) = parse(kind, rest)?;
                Message::Request(id, header, Request::Apply(apply))
            }
            kind::LAYOUTS => {
                let (id, header) = parse(kind, rest)?;
                Message::Request(id, header, Request::Layouts)
            }
            kind::PACE => {
                let (id, header, pace) = parse(kind, rest)?;
                Message::Request(id, header, Request::Pace(pace))
            }
            kind::ANSWER => {
                let (id, answer) = parse(kind, rest)?;
                Message::Answer(id, answer)
            }
            kind::MERGE => {
                let (id, header, merge) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Merge(merge))
            }
            kind::READ => {
                let (id, header, read) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Read(read))
            }
            kind::RECALL => {
                let (id, header, recall) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Recall(recall))
            }
            kind::SCAN => {
                let (id, header, scan) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Scan(scan))
            }
            kind::JOIN_BUCKET => {
                let (id, header, entry) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Bucket(entry))
            }
            kind::JOIN_BUCKETS => {
                let (id, header, asked) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Buckets(asked))
            }
            kind::NODE_STATUS => {
                let (id, header) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Status)
            }
            kind::UPKEEP => {
                let (id, header, upkeep) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Upkeep(upkeep))
            }
            kind::LAYOUT => {
                let (id, header, layout): (_, _, Box<LayoutRequest>) = parse(kind, rest)?;
                Message::Replica(id, header, ReplicaRequest::Layout(layout))
            }
            kind::REPLY => {
                let (id, reply) = parse(kind, rest)?;
                Message::Reply(id, reply)
            }
            _ => return Err(DecodeError::Kind(kind)),
        })
    }
}

/// Kind and MessagePack. `hint` is the size of the large field, so that the buffer is allocated once.
fn body<T: Serialize>(kind: u8, hint: usize, value: &T) -> Bytes {
    let mut out = BytesMut::with_capacity(hint + 192).writer();
    out.get_mut().put_u8(kind);
    // Writing to memory cannot fail, and our types serialise by construction.
    rmp_serde::encode::write(&mut out, value).expect("a message serialises");
    out.into_inner().freeze()
}

fn parse<T: DeserializeOwned>(kind: u8, rest: &[u8]) -> Result<T, DecodeError> {
    whole(rest).map_err(|why| DecodeError::Body { kind, why })
}

/// Reads a value that is all of `bytes`.
pub(crate) fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    let value = T::deserialize(&mut deserializer).map_err(|e| e.to_string())?;
    // The deserializer does not tell how far it came. But a unit is read from its marker alone, so that only at the end
    // of the bytes this one is missing.
    match <()>::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err("bytes are left over".to_owned()),
    }
}

/// A register's value as the payload of a sibling.
#[must_use]
pub fn encode_value(value: &crate::Value) -> Bytes {
    let mut out = BytesMut::with_capacity(value.data.len() + 64).writer();
    rmp_serde::encode::write(&mut out, value).expect("a value serialises");
    out.into_inner().freeze()
}

/// Reads the payload of a register's sibling.
///
/// # Errors
/// A sentence, if these are not the bytes of a value.
pub fn decode_value(payload: &[u8]) -> Result<crate::Value, String> {
    whole(payload).map_err(|e| format!("not a stored value: {e}"))
}
