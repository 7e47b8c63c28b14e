use crate::ids::{ClusterId, NodeId};
use crate::spec::NodeSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A layout as it is written to files and messages, not yet validated. Seats name nodes by id, so that a
/// reader needs no other table and no position can be off by one.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Layout", deny_unknown_fields)]
pub(crate) struct Form {
    pub(crate) version: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) partitions: u16,
    pub(crate) replicas: u8,
    pub(crate) nodes: Vec<NodeSpec>,
    /// For each region, for each partition, its list in order.
    pub(crate) seats: BTreeMap<String, Vec<Vec<NodeId>>>,
}
