//! What replicas say to each other without being asked by any client: who knows how far whom, what differs, what may be
//! forgotten.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BucketId, Repaired, VnodeId};

/// The most ranges that one message asks about: each may be answered with 256 sums, or with some dozens of keys.
pub const RANGES_MAX: usize = 64;
/// The most keys of a range that are named one by one; of a range with more, sums are told.
pub const RANGE_KEYS_MAX: usize = 64;
/// The most keys that one message is about.
pub const UPKEEP_KEYS_MAX: usize = 256;

/// What one replica asks of another for the sake of what both hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Upkeep {
    /// How far the sender's store is; remember it, and tell what you had remembered (rule R2).
    Hello(Hello),
    /// Tell the sum over a vnode, and what it has seen if the sender is being refilled.
    Root(RootAsked),
    /// Tell what is in these ranges of a vnode.
    Parts(PartsAsked),
    /// Tell what evidence you have of a vnode, from a place on.
    Evidence(EvidenceAsked),
    /// Join these records, and tell yours.
    Reconcile(Reconcile),
    /// Tell what you know of these dots (rule R3).
    Testify(Testify),
    /// Join these removals, and say which of them you have durably and are ready to forget.
    Confirm(Removals),
    /// Every replica has these removals: forget them.
    Forget(Removals),
    /// Exchange with every other replica of this seat now, for somebody who asks for it.
    Repair(VnodeId),
}

impl Upkeep {
    /// What is asked, in a word or two, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Upkeep::Hello(_) => "say hello",
            Upkeep::Root(_) => "tell the sum",
            Upkeep::Parts(_) => "tell the sums of parts",
            Upkeep::Evidence(_) => "tell what is removed",
            Upkeep::Reconcile(_) => "reconcile records",
            Upkeep::Testify(_) => "testify",
            Upkeep::Confirm(_) => "confirm removals",
            Upkeep::Forget(_) => "forget removals",
            Upkeep::Repair(_) => "exchange now",
        }
    }

    /// How many bytes it takes on the wire, but for what every message has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        size(self)
    }
}

impl UpkeepReply {
    /// How many bytes it takes on the wire, but for what every message has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        size(self)
    }
}

/// Counts what is written.
struct Count(u64);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn size<T: Serialize>(value: &T) -> u64 {
    let mut count = Count(0);
    // Counting cannot fail, and our types serialise by construction.
    rmp_serde::encode::write(&mut count, value).expect("a message serialises");
    count.0
}

/// How far the sender's store has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// A random number for this open of the store.
    pub open: u128,
    /// The number of the last commit that this open found.
    pub base: u64,
    /// The number of the last commit that is as durable as an acknowledgement.
    pub number: u64,
    /// Names what the sender knows of layouts: equal for equal knowledge.
    pub layouts: u64,
}

/// Asks for a vnode's sum.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RootAsked {
    /// Which seat.
    pub vnode: VnodeId,
    /// Whether to tell what the vnode has seen: the sender has lost state and adopts it.
    pub seen: bool,
}

/// Asks what ranges hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartsAsked {
    /// Which seat.
    pub vnode: VnodeId,
    /// The first position of each, and how many bytes its positions share. At most [`RANGES_MAX`].
    pub ranges: Vec<(u64, u8)>,
}

/// Asks for evidence that waits to be collected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceAsked {
    /// Which seat.
    pub vnode: VnodeId,
    /// Where to go on, as the last reply said; `None` for the beginning.
    pub from: Option<Bytes>,
}

/// Brings records and asks for the other's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reconcile {
    /// Which seat.
    pub vnode: VnodeId,
    /// At most [`UPKEEP_KEYS_MAX`].
    pub records: Vec<KeyRecord>,
}

/// A record and its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The record, encoded; empty bytes where there is none.
    pub record: Bytes,
}

/// Asks about dots of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Testify {
    /// Which seat.
    pub vnode: VnodeId,
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// Actor and counter of each.
    pub dots: Vec<(u128, u64)>,
}

/// Removed dots of some keys of one vnode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removals {
    /// Which seat.
    pub vnode: VnodeId,
    /// At most [`UPKEEP_KEYS_MAX`].
    pub keys: Vec<Removal>,
}

/// Removed dots of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removal {
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The set of dots, encoded.
    pub dots: Bytes,
}

/// What the other replica says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum UpkeepReply {
    /// The greatest number of a commit that was ever heard of from an earlier open of the asker's store; 0 if none.
    Known(u64),
    /// The sum over the vnode, and what it has seen if that was asked for.
    Root(u128, Option<Bytes>),
    /// What each range holds, in the order asked.
    Parts(Vec<Part>),
    /// Evidence, and where to go on if there is more.
    Evidence(Vec<Removal>, Option<Bytes>),
    /// The records, encoded, in the order of the keys: after joining.
    Records(Vec<Bytes>),
    /// What is known of the dots.
    Testimony(Testimony),
    /// Of each key, the dots whose removal is durable here and that may be forgotten; encoded.
    Confirmed(Vec<Bytes>),
    /// Done.
    Forgotten,
    /// What the exchanges came to.
    Repaired(Repaired),
}

/// What a range holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Part {
    /// More than [`RANGE_KEYS_MAX`] keys: the sums of its 256 parts, but for those that are empty.
    Sums(Vec<(u8, u128)>),
    /// All its keys.
    Keys(Vec<KeyDigest>),
}

/// A key and the digest of its live dots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KeyDigest {
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The digest.
    #[serde(with = "crate::ids::sixteen_bytes")]
    pub digest: [u8; 16],
}

/// What a replica knows of some dots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Testimony {
    /// Of each, in the order asked.
    pub votes: Vec<Vote>,
    /// The record, encoded: also what came in the place of what was removed.
    pub record: Bytes,
}

/// What a replica knows of one dot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Vote {
    /// Its value is live here, and this replica's state is whole.
    Live,
    /// Its value is live here, and this replica has lost some of what it knew.
    LiveUnsure,
    /// It is known to be removed.
    Removed,
    /// It was here, and is not any more.
    Lacks,
    /// It was never here, or this replica cannot say.
    Abstain,
    /// It never was here, and those from which this replica was filled had seen it and did not have it any more.
    FilledWithout,
}
