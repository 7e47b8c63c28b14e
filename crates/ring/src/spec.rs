//! What an operator says about a cluster, before anything is computed from it.

use crate::error::{LayoutError, excerpt};
use crate::ids::NodeId;
use crate::replica_set::MAX_COPIES;
use serde::{Deserialize, Serialize};

/// Partitions of a cluster that names no number: enough for a dozen nodes to share evenly in weights that
/// differ tenfold, few enough that a node's trees and clocks stay small.
pub const DEFAULT_PARTITIONS: u16 = 256;

/// The most partitions a cluster may have. Every layout lists every partition, so the number is bounded
/// before anything is allocated from it.
pub const MAX_PARTITIONS: u16 = 4096;

/// Copies a region for which lists are balanced, where no number is named.
pub const DEFAULT_REPLICAS: u8 = 3;

/// The most nodes a layout may have: every node talks to every other, and beyond some hundreds that, not
/// placement, is what fails first.
pub const MAX_NODES: usize = 1024;

/// The longest name, region or zone in bytes: that of a DNS label, which names usually are.
const NAME_BYTES_MAX: usize = 63;

/// The longest address in bytes: a DNS name has at most 253, a colon and a port at most 6.
const ADDRESS_BYTES_MAX: usize = 259;

/// A node as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Unique in the layout, and of this node's data for ever.
    pub id: NodeId,
    /// What people call it: unique in the layout, 1 to 63 bytes without spaces or control characters.
    pub name: String,
    /// The region it stands in, in the form of a name. Each region holds copies of its own.
    pub region: String,
    /// What fails together within the region (a rack, a hall), in the form of a name. Equal zones of
    /// different regions are different zones.
    pub zone: String,
    /// Its capacity relative to the others, at least 1. Twice the weight is twice the partitions.
    pub weight: u32,
    /// The `host:port` at which other nodes and clients reach it over QUIC. Not interpreted here, and
    /// bounded to 259 bytes without spaces or control characters.
    pub quic: String,
    /// The `host:port` at which it answers HTTP, in the same bounds.
    pub http: String,
}

/// A cluster as its operator describes it when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutSpec {
    /// A power of two from 1 to [`MAX_PARTITIONS`], fixed for the cluster's life.
    pub partitions: u16,
    /// The copies in each region for which the lists are balanced, from 1 to [`MAX_COPIES`]. Buckets may
    /// have fewer (a prefix of each list, balanced too) or more (the list is then extended along the ring).
    pub replicas: u8,
    /// The nodes, in any order.
    pub nodes: Vec<NodeSpec>,
}

impl LayoutSpec {
    /// These nodes, with [`DEFAULT_PARTITIONS`] and [`DEFAULT_REPLICAS`].
    pub fn new(nodes: Vec<NodeSpec>) -> LayoutSpec {
        LayoutSpec {
            partitions: DEFAULT_PARTITIONS,
            replicas: DEFAULT_REPLICAS,
            nodes,
        }
    }

    /// Checks everything but the nodes, which [`sorted_nodes`] does.
    pub(crate) fn check(&self) -> Result<(), LayoutError> {
        if !self.partitions.is_power_of_two() || self.partitions > MAX_PARTITIONS {
            return Err(LayoutError::Partitions(self.partitions));
        }
        check_copies(self.replicas)
    }
}

/// The nodes sorted by id, or what is wrong with one of them.
pub(crate) fn sorted_nodes(mut nodes: Vec<NodeSpec>) -> Result<Vec<NodeSpec>, LayoutError> {
    if nodes.is_empty() {
        return Err(LayoutError::NoNodes);
    }
    if nodes.len() > MAX_NODES {
        return Err(LayoutError::TooManyNodes(nodes.len()));
    }
    for node in &nodes {
        check_name("node name", &node.name)?;
        check_name("region", &node.region)?;
        check_name("zone", &node.zone)?;
        check_text("QUIC address", &node.quic, ADDRESS_BYTES_MAX)?;
        check_text("HTTP address", &node.http, ADDRESS_BYTES_MAX)?;
        if node.weight == 0 {
            return Err(LayoutError::ZeroWeight(node.name.clone()));
        }
    }
    let mut names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(LayoutError::DuplicateName(pair[0].to_owned()));
    }
    nodes.sort_unstable_by_key(|node| node.id);
    if let Some(pair) = nodes.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(LayoutError::DuplicateId(pair[0].id));
    }
    Ok(nodes)
}

/// Checks a number of copies a region.
pub(crate) fn check_copies(copies: u8) -> Result<(), LayoutError> {
    if copies == 0 || copies > MAX_COPIES {
        return Err(LayoutError::Copies(copies));
    }
    Ok(())
}

/// Checks a name of a node, region or zone.
pub(crate) fn check_name(what: &'static str, text: &str) -> Result<(), LayoutError> {
    check_text(what, text, NAME_BYTES_MAX)
}

fn check_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), LayoutError> {
    let reason = if text.is_empty() {
        "must not be empty"
    } else if text.len() > bytes_max {
        "is too long"
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "must not contain spaces or control characters"
    } else {
        return Ok(());
    };
    Err(LayoutError::Text {
        what,
        text: excerpt(text),
        reason,
    })
}
