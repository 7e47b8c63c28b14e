//! Listing the keys of a bucket: what a client asks of a node, and what that node asks of the others.

use bytes::Bytes;
use quorate_ring::ReplicaSetId;
use serde::{Deserialize, Serialize};

use crate::{BucketId, Options};

/// The most keys that one answer lists. A client that wants more asks again with `after`.
pub const LIST_KEYS_MAX: u32 = 10_000;
/// How many keys an answer lists unless it is asked for fewer.
pub const LIST_KEYS_DEFAULT: u32 = 1_000;

/// Asks for the keys of a bucket that have a live value, in the order of their bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct List {
    /// The bucket's name.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<String>,
    /// At most this many, from 1 to [`LIST_KEYS_MAX`].
    pub limit: u32,
    /// Of these just `r` and `pr`: how many replicas of each partition must answer.
    pub options: Options,
}

/// A page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// The keys, ascending.
    pub keys: Vec<String>,
    /// Where to go on: the `after` of the next request. `None` if there are no more keys. A page may have fewer keys than
    /// asked for, or none, and still not be the last.
    pub next: Option<String>,
}

/// What a coordinator asks of a node: the keys of these partitions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// The replica set of the vnodes.
    pub set: ReplicaSetId,
    /// Which life of which bucket.
    pub bucket: BucketId,
    /// Which partitions: bit `p % 8` of byte `p / 8` stands for partition `p`.
    pub partitions: Bytes,
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// Only keys greater than this one; empty for all, as no key is empty.
    pub after: Bytes,
    /// About how many keys to tell.
    pub limit: u32,
}

/// What a node has in the partitions it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Scanned {
    /// The keys with a live value, ascending, all those above the request's `after` and not above `upto`.
    pub entries: Vec<ScanEntry>,
    /// How far this goes; `None` if to the end.
    pub upto: Option<Bytes>,
}

/// One key in a scan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanEntry {
    /// The key.
    pub key: Bytes,
    /// The first eight bytes of the digest of its live dots, big-endian: replicas that agree in it show the same values, but for
    /// one pair in 2⁶⁴.
    pub digest: u64,
}
