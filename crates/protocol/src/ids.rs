//! Names of what messages speak about.

use std::fmt;

use quorate_ring::{Partition, ReplicaSetId};
use serde::{Deserialize, Serialize};

/// One life of a bucket. Part of every record's key, so that a name used again after a drop never shows what stood
/// under it before (rule R11): a drop raises the bucket's generation, and with it the id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId(#[serde(with = "sixteen_bytes")] pub [u8; 16]);

impl BucketId {
    /// The id of a bucket's `generation`-th life, from 0: 12 bytes of a hash of the name, then the generation, so that
    /// whoever knows another life of the bucket can tell which is the later. Made from the name, so that a bucket that
    /// nobody created has the same id everywhere. Two names of one hash would share their keys: with a million buckets the
    /// odds are one in 10¹⁷.
    #[must_use]
    pub fn new(name: &str, generation: u32) -> Self {
        let mut id = [0; 16];
        id[..12].copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..12]);
        BucketId(id).life(generation)
    }

    /// Another life of the same bucket.
    #[must_use]
    pub fn life(mut self, generation: u32) -> Self {
        self.0[12..].copy_from_slice(&generation.to_be_bytes());
        self
    }

    /// Which life this is.
    #[must_use]
    pub fn generation(&self) -> u32 {
        let last = self.0.last_chunk().expect("an id has sixteen bytes");
        u32::from_be_bytes(*last)
    }
}

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A seat that has a clock, a mint counter and incarnations of its own: a partition for one replica set (rule R6).
/// Buckets of different `n` share a partition but not replicas; one clock for both would be full of holes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VnodeId {
    /// The arc of the ring.
    pub partition: Partition,
    /// How many copies in which regions.
    pub set: ReplicaSetId,
}

/// Tells the answers on one connection apart. Chosen by whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Sixteen bytes as one byte string. MessagePack would write a bare array as sixteen numbers, which doubles the time to
/// encode a replica's write.
pub(crate) mod sixteen_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &[u8; 16],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u128(u128::from_be_bytes(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 16], D::Error> {
        u128::deserialize(deserializer).map(u128::to_be_bytes)
    }
}
