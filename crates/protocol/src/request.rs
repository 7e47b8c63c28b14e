//! What a client asks, of whichever node, and what it is told.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Account, ApplyLayout, BucketAction, BucketDescription, BucketEntry, BucketRequest,
    ClusterStatus, KnownLayouts, Lifetime, List, Listing, Pace, Repair, Repaired,
};

/// The longest bucket name, in bytes.
pub const BUCKET_BYTES_MAX: usize = 128;
/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// The largest value unless configured otherwise, in bytes. A larger one would want chunking to keep a slow link from
/// holding many of them in memory.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most siblings a put may leave unless configured otherwise.
pub const SIBLINGS_MAX: usize = 64;
/// The most bytes that the siblings of one key may have together when a put adds one, as a multiple of the largest
/// value. Whole records travel between replicas, and a frame must hold the largest.
pub const SIBLINGS_BYTES_FACTOR: usize = 4;
/// The most bytes of content type and metadata together that one value carries.
pub const META_BYTES_MAX: usize = 16 * 1024;
/// The time a request has unless it says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The longest time a request may ask for.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A value with what is kept beside it. Also the payload of a sibling in a register's record.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Value {
    /// The bytes, as they came.
    pub data: Bytes,
    /// The media type they came with, if any.
    pub content_type: Option<String>,
    /// The writer's own names and values (`Quorate-Meta-*` over HTTP), in the order given.
    pub meta: Vec<(String, String)>,
}

impl Value {
    /// A value of bytes alone.
    #[must_use]
    pub fn new(data: impl Into<Bytes>) -> Self {
        Value {
            data: data.into(),
            content_type: None,
            meta: Vec::new(),
        }
    }
}

/// How many replicas have to take part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Quorum {
    /// This many, wherever they are.
    Count(u8),
    /// More than half of all replicas.
    Majority,
    /// Every replica.
    All,
    /// More than half of the replicas in the coordinator's region.
    Local,
    /// More than half of the replicas in each region.
    Each,
}

/// The greatest number that [`Quorum::Count`] carries.
pub const QUORUM_COUNT_MAX: u8 = 200;

impl Quorum {
    const MAJORITY: u8 = 250;
    const ALL: u8 = 251;
    const LOCAL: u8 = 252;
    const EACH: u8 = 253;
}

impl From<Quorum> for u8 {
    fn from(quorum: Quorum) -> u8 {
        match quorum {
            Quorum::Count(count) => count.min(QUORUM_COUNT_MAX),
            Quorum::Majority => Quorum::MAJORITY,
            Quorum::All => Quorum::ALL,
            Quorum::Local => Quorum::LOCAL,
            Quorum::Each => Quorum::EACH,
        }
    }
}

impl TryFrom<u8> for Quorum {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Ok(match code {
            0..=QUORUM_COUNT_MAX => Quorum::Count(code),
            Quorum::MAJORITY => Quorum::Majority,
            Quorum::ALL => Quorum::All,
            Quorum::LOCAL => Quorum::Local,
            Quorum::EACH => Quorum::Each,
            _ => return Err(format!("{code} names no quorum")),
        })
    }
}

impl std::str::FromStr for Quorum {
    type Err = String;

    /// Reads what users write: a number, `one`, `quorum`, `all`, `local_quorum` or `each_quorum`.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "one" => Quorum::Count(1),
            "quorum" => Quorum::Majority,
            "all" => Quorum::All,
            "local_quorum" => Quorum::Local,
            "each_quorum" => Quorum::Each,
            _ => match text.parse::<u8>() {
                Ok(count) if count <= QUORUM_COUNT_MAX => Quorum::Count(count),
                _ => {
                    return Err(format!(
                        "'{text}' is not a quorum: give a number up to {QUORUM_COUNT_MAX}, or one of \
                         one, quorum, all, local_quorum, each_quorum"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quorum::Count(count) => write!(f, "{count}"),
            Quorum::Majority => f.write_str("quorum"),
            Quorum::All => f.write_str("all"),
            Quorum::Local => f.write_str("local_quorum"),
            Quorum::Each => f.write_str("each_quorum"),
        }
    }
}

impl Serialize for Quorum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8((*self).into())
    }
}

impl<'de> Deserialize<'de> for Quorum {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Quorum::try_from(u8::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a request may set for itself; what is `None` is the bucket's or the cluster's default. A get uses `r` and
/// `pr`, a put and a delete `w`, `pw` and `dw`; a delete without a context, and whatever has a condition, reads first and
/// uses all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Options {
    /// Replicas that must answer a read.
    pub r: Option<Quorum>,
    /// Replicas that must take a write.
    pub w: Option<Quorum>,
    /// Of those that answer a read, how many must be primaries.
    pub pr: Option<Quorum>,
    /// Of those that take a write, how many must be primaries.
    pub pw: Option<Quorum>,
    /// Of those that take a write, how many must have it on disk, synced.
    pub dw: Option<Quorum>,
    /// Whether other nodes may stand in for primaries out of reach; the bucket's own setting where `None`.
    pub sloppy: Option<bool>,
    /// Whether a put's answer shows what the key holds afterwards.
    pub return_body: bool,
    /// Whether the answer comes with an account of how it came about.
    pub explain: bool,
}

/// What must be so for a write to happen. A quorum is read first; between that read and the write others may write, so
/// on a bucket that takes concurrent writes a condition is best effort: it stops those who know nothing of each other's
/// finished work, and turns a race into siblings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Condition {
    /// The key has no value.
    Absent,
    /// The key has exactly one value, and its dot is one of these, as answers show it. The write replaces it.
    Dots(Vec<String>),
    /// The key has at least one value. The write replaces what the read saw.
    Present,
}

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Store a value.
    Put(Put),
    /// Read a key.
    Get(Get),
    /// Remove what was read, or what a read quorum sees.
    Delete(Delete),
    /// Tell the layout and who is answering.
    Describe,
    /// List keys.
    List(List),
    /// Show, create, change or drop a bucket.
    Bucket(BucketRequest),
    /// Tell the buckets that were created, by name.
    Buckets,
    /// Tell how the nodes are.
    Status,
    /// Have a partition's replicas exchange now.
    Repair(Repair),
    /// Have these nodes make the next layout.
    Apply(Box<ApplyLayout>),
    /// Tell what you know of layouts.
    Layouts,
    /// Fill nodes so fast from here on, as [`Pace`](crate::Pace) has it.
    Pace(Option<u64>),
}

/// Stores a value: removes the dots in the context and adds one of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Put {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// What to store.
    pub value: Value,
    /// The context of an earlier answer for this key, unchanged; none makes a sibling of whatever is there.
    pub context: Option<Bytes>,
    /// What must be so; a context is then not needed.
    pub condition: Option<Condition>,
    /// How many replicas, and so on.
    pub options: Options,
    /// How long the value is to live; `None` for as long as its bucket says.
    pub lifetime: Option<Lifetime>,
}

/// Reads a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Get {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// How many replicas, and so on.
    pub options: Options,
}

/// Removes values of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delete {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The context of an earlier answer: just these values are removed. With none, what a read quorum sees (rule R17).
    pub context: Option<Bytes>,
    /// What must be so.
    pub condition: Option<Condition>,
    /// How many replicas, and so on.
    pub options: Options,
}

impl Request {
    /// Whether it is a write that reads a quorum first: a delete without a context, or one with a condition.
    #[must_use]
    pub fn reads_first(&self) -> bool {
        match self {
            Request::Put(put) => put.condition.is_some(),
            Request::Delete(delete) => delete.condition.is_some() || delete.context.is_none(),
            _ => false,
        }
    }

    /// The bucket and key it is about, if it is about one.
    #[must_use]
    pub fn target(&self) -> Option<(&str, &str)> {
        match self {
            Request::Put(put) => Some((&put.bucket, &put.key)),
            Request::Get(get) => Some((&get.bucket, &get.key)),
            Request::Delete(delete) => Some((&delete.bucket, &delete.key)),
            Request::Describe
            | Request::List(_)
            | Request::Bucket(_)
            | Request::Buckets
            | Request::Status
            | Request::Repair(_)
            | Request::Layouts
            | Request::Pace(_)
            | Request::Apply(_) => None,
        }
    }

    /// Whether carrying it out twice may do more than carrying it out once.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Request::Put(_) | Request::Delete(_) | Request::Apply(_) => true,
            Request::Bucket(request) => !matches!(request.action, BucketAction::Show),
            Request::Get(_)
            | Request::Describe
            | Request::Layouts
            | Request::Pace(_)
            | Request::List(_)
            | Request::Buckets
            | Request::Status
            | Request::Repair(_) => false,
        }
    }

    /// Whether an account of it is asked for.
    #[must_use]
    pub fn explains(&self) -> bool {
        match self {
            Request::Put(put) => put.options.explain,
            Request::Get(get) => get.options.explain,
            Request::Delete(delete) => delete.options.explain,
            _ => false,
        }
    }
}

/// One live value in an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The dot of the write that brought it, for display.
    pub dot: String,
    /// The value.
    pub value: Value,
    /// When it ends, in milliseconds since the Unix epoch, if it has an end.
    pub expires_ms: Option<u64>,
}

/// What a client is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The put is stored as asked. The context names just this write (rule R8).
    Stored {
        /// What removes this value and no other.
        context: Bytes,
    },
    /// The key's live values: one, or several that are concurrent.
    Found {
        /// At least one, ascending by dot.
        siblings: Vec<Shown>,
        /// What removes exactly these.
        context: Bytes,
    },
    /// No live value.
    Absent,
    /// Removed as asked.
    Deleted,
    /// The layout, encoded as JSON, and the answering node.
    Described(Description),
    /// A page of keys.
    Listed(Listing),
    /// A bucket as it is now. After a drop: its next life.
    Bucket(Box<BucketDescription>),
    /// All buckets that were created, by name.
    Buckets(Vec<BucketDescription>),
    /// How the nodes are.
    Status(ClusterStatus),
    /// What the exchanges that were asked for came to.
    Repaired(Repaired),
    /// The layout was chosen; this is its version.
    Applied(u64),
    /// What the answering node knows of layouts.
    Layouts(Box<KnownLayouts>),
    /// Nodes are being told to go by this.
    Pace(Pace),
    /// Any other answer, with the account that was asked for.
    Explained(Box<Explained>),
    /// Nothing was changed, and nothing will be.
    Refused(Refusal),
    /// Too few replicas answered in time. A read says no more than that; a write may or may not have happened.
    Unmet(Unmet),
}

/// An answer with an account of how it came about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The answer, encoded. In bytes, so that no message nests: a decoder that follows whatever depth a peer sends can be
    /// made to run out of stack.
    answer: Bytes,
    /// What happened.
    pub account: Account,
}

impl Explained {
    /// An answer with its account.
    #[must_use]
    pub fn new(answer: &Answer, account: Account) -> Box<Self> {
        let answer = rmp_serde::to_vec(answer).expect("an answer serialises");
        Box::new(Explained {
            answer: answer.into(),
            account,
        })
    }

    /// The two apart.
    ///
    /// # Errors
    /// A sentence, if the bytes are no answer, or one that is explained itself.
    pub fn open(self) -> Result<(Answer, Account), String> {
        self.answer().map(|answer| (answer, self.account))
    }

    /// The answer alone.
    ///
    /// # Errors
    /// As [`Explained::open`].
    pub fn answer(&self) -> Result<Answer, String> {
        match rmp_serde::from_slice(&self.answer) {
            Ok(Answer::Explained(_)) => Err("an explained answer inside another".to_owned()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(format!("an explained answer that is none: {error}")),
        }
    }
}

impl Answer {
    /// Whether it is a refusal, explained or not, after which the same request may well succeed at another node.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Answer::Refused(refusal) => refusal.is_passing(),
            Answer::Explained(explained) => {
                matches!(explained.answer(), Ok(Answer::Refused(refusal)) if refusal.is_passing())
            }
            _ => false,
        }
    }

    /// What kind of answer it is, for logs and for messages about answers that fit no question.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Answer::Stored { .. } => "Stored",
            Answer::Found { .. } => "Found",
            Answer::Absent => "Absent",
            Answer::Deleted => "Deleted",
            Answer::Described(_) => "Described",
            Answer::Listed(_) => "Listed",
            Answer::Bucket(_) => "Bucket",
            Answer::Buckets(_) => "Buckets",
            Answer::Status(_) => "Status",
            Answer::Repaired(_) => "Repaired",
            Answer::Applied(_) => "Applied",
            Answer::Layouts(_) => "Layouts",
            Answer::Pace(_) => "Pace",
            Answer::Explained(_) => "Explained",
            Answer::Refused(_) => "Refused",
            Answer::Unmet(_) => "Unmet",
        }
    }
}

/// Who answers, and the layout as it knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The answering node's name.
    pub node: String,
    /// The layout as JSON.
    pub layout: Bytes,
}

/// Why nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The request makes no sense as written.
    Malformed(String),
    /// The context was altered, truncated, foreign or of another key.
    BadContext(String),
    /// The value, or its metadata, is larger than allowed.
    TooLarge {
        /// What it is, in bytes.
        size: u64,
        /// What it may be, in bytes.
        limit: u64,
    },
    /// Well-formed, but it can never succeed, as w > n.
    Impossible(String),
    /// One sibling more than allowed would stand.
    TooManySiblings {
        /// How many there would be.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The siblings that would stand are larger together than allowed.
    SiblingsTooLarge {
        /// What they would be, in bytes.
        size: u64,
        /// What they may be, in bytes.
        limit: u64,
    },
    /// Too few replicas are in reach; nothing was sent to any.
    Unavailable {
        /// How many were needed.
        needed: u32,
        /// How many are in reach.
        answered: u32,
    },
    /// This node has more work than it will queue.
    Overloaded,
    /// This node is closing.
    Draining,
    /// This node's disk failed: it acknowledges nothing until it is restarted on a sound one.
    Poisoned(String),
    /// Asked under a layout that is not this node's.
    WrongLayout {
        /// The version this node has.
        version: u64,
    },
    /// A record could not be read: it is corrupt on this replica.
    Corrupt(String),
    /// The asker's certificate does not allow this.
    NotAllowed(String),
    /// The request's condition does not hold.
    ConditionFailed(String),
    /// What is asked for contradicts what is there, as creating a bucket that exists.
    Conflict(String),
    /// There is no such thing, as a bucket to update that was not created.
    NotFound(String),
    /// The bucket was dropped or created meanwhile; here is its entry. A coordinator takes note of it; its client may
    /// ask again at once.
    BucketChanged(Box<BucketEntry>),
    /// The disk is so full that writes are refused, so that reads, deletes and repair go on.
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free for a write.
        needed: u64,
    },
    /// This node holds as many hints for a primary out of reach as it may.
    HintsFull {
        /// Bytes that it holds for that node.
        held: u64,
        /// Bytes that it may hold for one node.
        limit: u64,
    },
}

impl Refusal {
    /// Whether the same request may well succeed at another node, or later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Refusal::Unavailable { .. }
                | Refusal::Overloaded
                | Refusal::Draining
                | Refusal::Poisoned(_)
                | Refusal::WrongLayout { .. }
                | Refusal::Corrupt(_)
                | Refusal::BucketChanged(_)
                | Refusal::DiskFull { .. }
                | Refusal::HintsFull { .. }
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(why) | Refusal::BadContext(why) | Refusal::Impossible(why) => {
                f.write_str(why)
            }
            Refusal::TooLarge { size, limit } => {
                write!(f, "{size} bytes are more than the limit of {limit}")
            }
            Refusal::TooManySiblings { count, limit } => write!(
                f,
                "the key would have {count} siblings, and the limit is {limit}: read it and put with the context of \
                 that answer"
            ),
            Refusal::SiblingsTooLarge { size, limit } => write!(
                f,
                "the key's siblings would have {size} bytes together, and the limit is {limit}: read it and put with the \
                 context of that answer"
            ),
            Refusal::Unavailable { needed, answered } => write!(
                f,
                "{needed} replicas are needed and {answered} are in reach; nothing was sent: try again, or ask for fewer"
            ),
            Refusal::Overloaded => {
                f.write_str("this node has more requests than it will queue: try again shortly")
            }
            Refusal::Draining => f.write_str("this node is closing: ask another"),
            Refusal::Poisoned(why) => write!(
                f,
                "this node's disk failed and it takes no writes until it is restarted: {why}"
            ),
            Refusal::WrongLayout { version } => {
                write!(
                    f,
                    "asked under another layout; this node has version {version}"
                )
            }
            Refusal::Corrupt(what) => write!(f, "a record is corrupt on this replica: {what}"),
            Refusal::NotAllowed(why)
            | Refusal::ConditionFailed(why)
            | Refusal::Conflict(why)
            | Refusal::NotFound(why) => f.write_str(why),
            Refusal::BucketChanged(entry) => write!(
                f,
                "bucket '{}' was dropped or created a moment ago, and nothing was done: ask again",
                entry.name
            ),
            Refusal::DiskFull { free, needed } => write!(
                f,
                "the disk is nearly full ({free} bytes are free, and writes need {needed}): delete something, make room, \
                 or add nodes"
            ),
            Refusal::HintsFull { held, limit } => write!(
                f,
                "this node holds {held} bytes of hints for a node that is out of reach, and may hold {limit}: bring that node \
                 back, or raise hint_bytes_max"
            ),
        }
    }
}

/// Too few replicas answered before the deadline, or too many of them were lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unmet {
    /// How many were needed.
    pub needed: u32,
    /// How many answered as needed.
    pub answered: u32,
    /// Whether the deadline passed; if not, the replicas that could still have answered were lost.
    pub timed_out: bool,
    /// Whether something may have been written.
    pub may_have_written: bool,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.timed_out {
            "in time"
        } else {
            "before the others were lost"
        };
        let outcome = if self.may_have_written {
            "the outcome is unknown: the write may or may not have happened"
        } else {
            "nothing was changed"
        };
        write!(
            f,
            "{needed} replicas were needed and {answered} answered {why}; {outcome}",
            needed = self.needed,
            answered = self.answered
        )
    }
}
