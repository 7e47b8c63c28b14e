//! Exchanges that somebody asks for, and what exchanges do.

use serde::{Deserialize, Serialize};

/// Asks that all replicas of a partition, of every replica set, compare what they hold now and join what differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Repair {
    /// The partition's number.
    pub partition: u16,
}

/// What exchanges came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Repaired {
    /// How many ended well: each of one replica with one other.
    pub exchanges: u64,
    /// How many were broken off.
    pub broken: u64,
    /// Keys of which the two held something different, summed over exchanges.
    pub keys: u64,
    /// Questions that were asked of other nodes.
    pub rounds: u64,
    /// Bytes of questions and answers between nodes.
    pub bytes: u64,
    /// What could not be done, a sentence each; empty if all was.
    pub unfinished: Vec<String>,
}

impl Repaired {
    /// Adds what others came to.
    pub fn add(&mut self, other: Repaired) {
        self.exchanges += other.exchanges;
        self.broken += other.broken;
        self.keys += other.keys;
        self.rounds += other.rounds;
        self.bytes += other.bytes;
        self.unfinished.extend(other.unfinished);
    }
}

/// What a node says of its upkeep. Counts are since it started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct UpkeepStatus {
    /// Exchanges that this node began and that ended well.
    pub exchanges: u64,
    /// Exchanges that it began and that were broken off.
    pub exchanges_broken: u64,
    /// Keys of which the two sides held something different.
    pub differing_keys: u64,
    /// Questions that these asked of other nodes.
    pub exchange_rounds: u64,
    /// Bytes of questions and answers between nodes.
    pub exchange_bytes: u64,
    /// Keys of which removed values are remembered, waiting to be forgotten everywhere; counted up to
    /// [`EVIDENCE_COUNTED_MAX`].
    pub evidence_keys: u64,
    /// Keys of which a value came again that was here before, while it is asked whether it was removed.
    pub keys_judged: u64,
    /// Keys whose record was found damaged and is not made good yet.
    pub damaged_keys: u64,
    /// Partitions that answer no read, until the others have given back what this node may have lost.
    pub refilling: u64,
    /// Of the layout that is being changed to: the partitions that it is to hold, of all replica sets; 0 while the layout does not change.
    pub to_fill: u64,
    /// Those of them that it has from all who held them before.
    pub filled: u64,
    /// Partitions that it holds no more, and whose data it has yet to drop.
    pub leftovers: u64,
    /// Whether it has not heard yet from enough others whether it has lost anything: it answers no read that counts replicas
    /// until then.
    pub unverified: bool,
    /// Which replicas were found equal longest ago; none where this node shares nothing with others.
    pub oldest: Option<OldestExchange>,
}

/// The most keys with evidence that are counted for a status.
pub const EVIDENCE_COUNTED_MAX: u64 = 10_000;

/// The pair of replicas that exchanged longest ago.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OldestExchange {
    /// The partition.
    pub partition: u16,
    /// The other replica's node, by name.
    pub node: String,
    /// Seconds since they were found or made equal; if never, since this node started.
    pub seconds: u64,
    /// Whether they never were since it started.
    pub never: bool,
}
