//! Buckets as nodes keep and tell them.
//!
//! Every node keeps the whole table of buckets that were ever created or dropped. It is joined entry by entry: the
//! greater generation wins, then the greater version, then the greater properties. So nodes that heard of changes in
//! different orders end with the same table, and a node that was away cannot bring a dropped bucket back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BucketId, Quorum};

/// The most buckets that a cluster has entries for. Every node holds the table in memory and sends it to whoever
/// comes back; ten thousand entries are some two megabytes.
pub const BUCKETS_MAX: usize = 10_000;
/// The most regions that a bucket names.
pub const REGIONS_MAX: usize = 64;

/// What the values of a bucket are. Never changes in one life of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BucketKind {
    /// Bytes; concurrent writes are kept side by side as siblings.
    #[default]
    Register,
}

impl std::str::FromStr for BucketKind {
    type Err = String;

    /// Reads what users write.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "register" => Ok(BucketKind::Register),
            "lww" | "counter" | "set" | "map" => Err(format!(
                "kind {text} does not exist yet: buckets have kind register so far"
            )),
            _ => Err(format!("'{text}' is no kind: give register")),
        }
    }
}

impl std::fmt::Display for BucketKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("register")
    }
}

/// What a bucket may set for itself. What is `None` is the cluster's default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Properties {
    /// What its values are. Set at creation.
    pub kind: BucketKind,
    /// Copies in each region. Set at creation.
    pub n: Option<u8>,
    /// The regions that hold copies, ascending; all of the layout's where `None`. Set at creation.
    pub regions: Option<Vec<String>>,
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
    /// The most siblings that a put may leave.
    pub max_siblings: Option<u32>,
}

/// One bucket in the table of buckets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct BucketEntry {
    /// How often the name was dropped. Joins by maximum, and is part of every record's key (rule R11).
    pub generation: u64,
    /// Counts the changes of this generation's properties.
    pub version: u64,
    /// What was set; `None` if nobody created this life of the bucket: it then has the defaults.
    pub properties: Option<Properties>,
    /// The bucket's name. Last, so that the derived order is the join's: the greater entry wins.
    pub name: String,
}

impl BucketEntry {
    /// A bucket of which nobody has said anything.
    #[must_use]
    pub fn implicit(name: &str) -> Self {
        BucketEntry {
            generation: 0,
            version: 0,
            properties: None,
            name: name.to_owned(),
        }
    }

    /// The id of this life of it.
    #[must_use]
    pub fn id(&self) -> BucketId {
        BucketId::new(&self.name, self.generation)
    }

    /// The entry's bytes, as nodes store them.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec(self).expect("an entry serialises").into()
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// A sentence, if these are not the bytes of an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        rmp_serde::from_slice(bytes)
            .map_err(|e| format!("not an entry of the table of buckets: {e}"))
    }
}

/// A change of a bucket's properties: what is `None` stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PropertyChanges {
    /// What its values are. May be given for a bucket that exists if it is the same.
    pub kind: Option<BucketKind>,
    /// Copies in each region; as `kind`.
    pub n: Option<u8>,
    /// The regions that hold copies; as `kind`.
    pub regions: Option<Vec<String>>,
    /// A new default.
    pub r: Option<Quorum>,
    /// A new default.
    pub w: Option<Quorum>,
    /// A new default.
    pub pr: Option<Quorum>,
    /// A new default.
    pub pw: Option<Quorum>,
    /// A new default.
    pub dw: Option<Quorum>,
    /// A new bound.
    pub max_siblings: Option<u32>,
}

/// What may be done to a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BucketAction {
    /// Tell its properties.
    Show,
    /// Create it with these. Refused if it exists.
    Create(PropertyChanges),
    /// Change these. Refused if it was not created.
    Update(PropertyChanges),
    /// Create it, or change it if it exists.
    Set(PropertyChanges),
    /// Drop it with everything in it: its next life begins empty.
    Drop,
}

/// A request about one bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketRequest {
    /// The bucket's name.
    pub bucket: String,
    /// What to do.
    pub action: BucketAction,
}

/// A bucket as it is told to clients: its properties with the defaults filled in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketDescription {
    /// Its name.
    pub name: String,
    /// How often the name was dropped.
    pub generation: u64,
    /// How often the properties of this generation were changed.
    pub version: u64,
    /// Whether somebody created it. If not, all properties are the defaults.
    pub created: bool,
    /// What its values are.
    pub kind: BucketKind,
    /// Copies in each region.
    pub n: u8,
    /// The regions that hold copies; all where `None`.
    pub regions: Option<Vec<String>>,
    /// Replicas that must answer a read.
    pub r: Quorum,
    /// Replicas that must take a write.
    pub w: Quorum,
    /// Of those that answer a read, how many must be primaries.
    pub pr: Quorum,
    /// Of those that take a write, how many must be primaries.
    pub pw: Quorum,
    /// Of those that take a write, how many must have it synced.
    pub dw: Quorum,
    /// The most siblings that a put may leave.
    pub max_siblings: u32,
}
