//! The account of a request that was asked to explain itself, and of nodes that were asked how they are.

use crate::UpkeepStatus;
use serde::{Deserialize, Serialize};

/// What happened to one request, told by its coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// The coordinator's name.
    pub coordinator: String,
    /// The layout it used.
    pub layout_version: u64,
    /// The key's partition.
    pub partition: u16,
    /// How often the bucket was dropped before.
    pub generation: u32,
    /// What was needed, in words.
    pub needed: Vec<String>,
    /// The key's primaries in the order of the preference list, and then whoever stood in for one; and what each had to do with
    /// it.
    pub replicas: Vec<ReplicaAccount>,
    /// Which of them were sent what they lacked.
    pub repaired: Vec<RepairAccount>,
    /// Why more than one value stands, a sentence for each; empty where one or none does.
    pub siblings: Vec<String>,
    /// Microseconds from acceptance to the answer.
    pub elapsed_us: u64,
}

/// One replica's part in a request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaAccount {
    /// The node's name.
    pub node: String,
    /// Its region.
    pub region: String,
    /// The primary that it stood in for, by name; `None` of a primary.
    pub stands_in_for: Option<String>,
    /// Whether it was in reach when the account was made.
    pub up: bool,
    /// Everything it was asked and said, in order.
    pub steps: Vec<StepAccount>,
}

/// One question or answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StepAccount {
    /// Microseconds since the request was accepted.
    pub at_us: u64,
    /// What happened: `asked for the record`, `asked for a digest`, `record`, `digest`, `sent the write`, `taken`,
    /// `taken and synced`, of a fallback `asked for what it keeps` and `sent the write to keep`, `lost`, `refused: ` and why, `passed on` (to coordinate it).
    pub what: String,
    /// The live dots it showed.
    pub dots: Vec<String>,
    /// How many runs of removed dots it showed.
    pub evidence: u32,
}

/// A replica that was behind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairAccount {
    /// The node's name.
    pub node: String,
    /// The values it was sent, by dot.
    pub dots: Vec<String>,
    /// How many runs of removed dots it was sent.
    pub evidence: u32,
}

/// How a node is, as told by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id in the layout.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The release it runs.
    pub release: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Whether it can serve; the reason if not.
    pub not_ready: Option<String>,
    /// The layout it knows.
    pub layout_version: u64,
    /// Records it holds, approximately: those overwritten and removed are counted until they are compacted.
    pub records: u64,
    /// Bytes on its disk.
    pub disk_bytes: u64,
    /// Bytes free on the file system of its directory; 0 if unknown.
    pub disk_free_bytes: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// The nodes that it cannot reach, by name.
    pub unreachable: Vec<String>,
    /// Seconds since the epoch by its clock, for a look at how far clocks are apart; 0 if unknown.
    pub clock_s: u64,
    /// The hints it holds for others, by whom they are for; empty if it holds none.
    pub hints: Vec<PendingHints>,
    /// What it does for the sake of what it and others hold.
    pub upkeep: UpkeepStatus,
}

/// What a node holds for another until that one has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PendingHints {
    /// The other's name.
    pub node: String,
    /// How many hints: one for each key.
    pub count: u64,
    /// Their bytes, keys and records together.
    pub bytes: u64,
}

/// A cluster as one of its nodes sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The answering node's name.
    pub node: String,
    /// What each node of the layout said; those that could not be asked are missing.
    pub nodes: Vec<NodeStatus>,
    /// The nodes that could not be asked or did not answer, by name.
    pub silent: Vec<String>,
}
