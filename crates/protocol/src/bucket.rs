//! Buckets as nodes keep and tell them.
//!
//! Every node keeps the whole table of buckets that were ever created or dropped. It is joined entry by entry: the
//! greater generation wins, then the greater version, then the greater properties. So nodes that heard of changes in
//! different orders end with the same table, and a node that was away cannot bring a dropped bucket back.

use bytes::Bytes;
use quorate_ring::MAX_COPIES;
use serde::{Deserialize, Serialize};

use crate::{BucketId, Lifetime, Quorum, TtlError, ttl_text};

/// The most buckets that a cluster has entries for. Every node holds the table in memory and sends it to whoever
/// comes back; ten thousand entries are some two megabytes.
pub const BUCKETS_MAX: usize = 10_000;
/// The most regions that a bucket names.
pub const REGIONS_MAX: usize = 64;
/// The most siblings that a bucket may allow. A context names every sibling that an answer shows, and has to fit into a
/// header.
pub const SIBLINGS_SETTING_MAX: u32 = 128;

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
    /// How long a value lives whose put does not say, in milliseconds; `None` for ever.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// Whether other nodes may stand in for primaries out of reach.
    #[serde(default)]
    pub sloppy: Option<bool>,
}

/// One bucket in the table of buckets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct BucketEntry {
    /// Counts the lives of the name from 0; a drop begins another. Joins by maximum, and is part of every record's key
    /// (rule R11).
    pub generation: u32,
    /// Counts the changes of this generation's properties; 0 for an entry that begins a life.
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
    /// A new time to live, for what is put from then on: [`Lifetime::Unlimited`] takes the bucket's away.
    pub ttl: Option<Lifetime>,
    /// A new default.
    pub sloppy: Option<bool>,
}

/// The names of the properties, as users write them.
pub const PROPERTIES: [&str; 11] = [
    "kind",
    "n",
    "regions",
    "r",
    "w",
    "pr",
    "pw",
    "dw",
    "ttl",
    "max_siblings",
    "sloppy",
];

impl PropertyChanges {
    /// Sets a property by its name, from the text that users write: a number, a quorum, regions with commas between, a
    /// duration.
    ///
    /// # Errors
    /// A sentence, if there is no such property or this is no value of it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let number = |least: u32, most: u32| match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name}={text} is no number from {least} to {most}")),
        };
        let quorum = || {
            text.parse::<Quorum>()
                .map_err(|why| format!("{name}: {why}"))
        };
        match name {
            "kind" => self.kind = Some(text.parse()?),
            "n" => self.n = Some(number(1, u32::from(MAX_COPIES))? as u8),
            "regions" => {
                let regions = text.split(',').map(str::trim).map(str::to_owned);
                self.regions = Some(regions.collect());
            }
            "r" => self.r = Some(quorum()?),
            "w" => self.w = Some(quorum()?),
            "pr" => self.pr = Some(quorum()?),
            "pw" => self.pw = Some(quorum()?),
            "dw" => self.dw = Some(quorum()?),
            "max_siblings" => self.max_siblings = Some(number(1, SIBLINGS_SETTING_MAX)?),
            "sloppy" => {
                self.sloppy = Some(match text {
                    "true" => true,
                    "false" => false,
                    _ => return Err(format!("sloppy={text} is neither true nor false")),
                });
            }
            "ttl" => {
                self.ttl = Some(Lifetime::parse(text).map_err(|why| match why {
                    TtlError::Malformed => format!("ttl={text} is not {why}"),
                    TtlError::OutOfBounds => format!("ttl={text} is not possible: {why}"),
                })?);
            }
            _ => {
                return Err(format!(
                    "there is no property '{name}': a bucket has {}",
                    PROPERTIES.join(", ")
                ));
            }
        }
        Ok(())
    }
}

impl BucketDescription {
    /// The properties by name, as [`PropertyChanges::set`] reads them; those that have no value are left out.
    #[must_use]
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("kind", self.kind.to_string()), ("n", self.n.to_string())];
        if let Some(regions) = &self.regions {
            all.push(("regions", regions.join(",")));
        }
        let quorums = [
            ("r", self.r),
            ("w", self.w),
            ("pr", self.pr),
            ("pw", self.pw),
            ("dw", self.dw),
        ];
        all.extend(quorums.map(|(name, quorum)| (name, quorum.to_string())));
        if let Some(ttl) = self.ttl_ms {
            all.push(("ttl", ttl_text(ttl)));
        }
        all.push(("max_siblings", self.max_siblings.to_string()));
        all.push(("sloppy", self.sloppy.to_string()));
        all
    }
}

/// A bucket as a document for programs: quorums that are numbers as numbers, the others as words.
#[derive(Debug, Serialize)]
pub struct BucketDocument<'a> {
    name: &'a str,
    created: bool,
    generation: u32,
    version: u64,
    kind: BucketKind,
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<&'a [String]>,
    r: InWords,
    w: InWords,
    pr: InWords,
    pw: InWords,
    dw: InWords,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    max_siblings: u32,
    sloppy: bool,
}

#[derive(Debug)]
struct InWords(Quorum);

impl Serialize for InWords {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Quorum::Count(count) => serializer.serialize_u8(count),
            words => serializer.collect_str(&words),
        }
    }
}

impl<'a> From<&'a BucketDescription> for BucketDocument<'a> {
    fn from(bucket: &'a BucketDescription) -> Self {
        BucketDocument {
            name: &bucket.name,
            created: bucket.created,
            generation: bucket.generation,
            version: bucket.version,
            kind: bucket.kind,
            n: bucket.n,
            regions: bucket.regions.as_deref(),
            r: InWords(bucket.r),
            w: InWords(bucket.w),
            pr: InWords(bucket.pr),
            pw: InWords(bucket.pw),
            dw: InWords(bucket.dw),
            ttl: bucket.ttl_ms.map(ttl_text),
            max_siblings: bucket.max_siblings,
            sloppy: bucket.sloppy,
        }
    }
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
    /// Counts the lives of the name from 0; a drop begins another.
    pub generation: u32,
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
    /// How long a value lives whose put does not say, in milliseconds; `None` for ever.
    pub ttl_ms: Option<u64>,
    /// Whether other nodes may stand in for primaries out of reach.
    pub sloppy: bool,
}
