use crate::ids::{ClusterId, NodeId, Partition};
use thiserror::Error;

/// Why a cluster's description, a layout or an identifier was refused.
///
/// Every message names what is wrong, for it is shown to the operator who wrote the file or typed the
/// change. Nothing was made or changed when one of these is returned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// An identifier is not the hexadecimal number it must be.
    #[error("{text:?} is not {what}: {digits} hexadecimal digits expected")]
    Id {
        /// What was being read, with its article.
        what: &'static str,
        /// What was found, cut to a length fit to print.
        text: String,
        /// How many digits it must have.
        digits: usize,
    },
    /// The number of partitions is not a power of two from 1 to [`MAX_PARTITIONS`](crate::MAX_PARTITIONS).
    #[error("{0} partitions: a power of two from 1 to {max} expected", max = crate::MAX_PARTITIONS)]
    Partitions(u16),
    /// The number of copies is not from 1 to [`MAX_COPIES`](crate::MAX_COPIES).
    #[error("{0} copies: from 1 to {max} expected", max = crate::MAX_COPIES)]
    Copies(u8),
    /// A replica set names regions but none is in its list.
    #[error("a replica set that names its regions must name at least one")]
    NoRegions,
    /// A layout without nodes has nowhere to put anything.
    #[error("a layout needs at least one node")]
    NoNodes,
    /// More nodes than [`MAX_NODES`](crate::MAX_NODES).
    #[error("{0} nodes: at most {max} expected", max = crate::MAX_NODES)]
    TooManyNodes(usize),
    /// Two nodes have one id.
    #[error("two nodes have the id {0}")]
    DuplicateId(NodeId),
    /// Two nodes have one name.
    #[error("two nodes are named {0:?}")]
    DuplicateName(String),
    /// A node's weight is 0, which would be a node that can hold nothing.
    #[error("node {0:?} has weight 0: at least 1 expected")]
    ZeroWeight(String),
    /// A text is empty, too long, or has characters that cannot be typed or printed safely.
    #[error("{what} {text:?}: {reason}")]
    Text {
        /// Which text it is.
        what: &'static str,
        /// What was found, cut to a length fit to print.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The layout's version is 0, or is the last one and has no successor.
    #[error("layout version {0}: versions begin at 1 and end at {max}", max = u64::MAX)]
    Version(u64),
    /// The seats are given for other regions than those that have nodes.
    #[error("seats are given for the regions {found:?}, but the nodes are in {expected:?}")]
    SeatRegions {
        /// The regions that have nodes, sorted.
        expected: Vec<String>,
        /// The regions that have seats, sorted.
        found: Vec<String>,
    },
    /// A region has seats for another number of partitions than the layout has.
    #[error("region {region:?} has seats for {found} partitions: {expected} expected")]
    SeatLists {
        /// The region.
        region: String,
        /// The layout's number of partitions.
        expected: usize,
        /// The number of lists found.
        found: usize,
    },
    /// A partition has too few or too many seats.
    #[error("partition {partition} has {found} seats in region {region:?}: {expected} expected")]
    SeatCount {
        /// The region.
        region: String,
        /// The partition.
        partition: Partition,
        /// The lesser of the layout's replicas and the region's nodes.
        expected: usize,
        /// The number of seats found.
        found: usize,
    },
    /// A seat names a node that the layout does not have.
    #[error("partition {partition} in region {region:?} has a seat on the unknown node {node}")]
    SeatUnknown {
        /// The region.
        region: String,
        /// The partition.
        partition: Partition,
        /// The node that is named.
        node: NodeId,
    },
    /// A seat names a node of another region.
    #[error(
        "partition {partition} in region {region:?} has a seat on node {node} of another region"
    )]
    SeatElsewhere {
        /// The region of the seat.
        region: String,
        /// The partition.
        partition: Partition,
        /// The node that is named.
        node: NodeId,
    },
    /// A partition has two seats on one node, which would be one copy counted twice.
    #[error("partition {partition} in region {region:?} has two seats on node {node}")]
    SeatTwice {
        /// The region.
        region: String,
        /// The partition.
        partition: Partition,
        /// The node that is named.
        node: NodeId,
    },
    /// Two layouts of different clusters, or with different numbers of partitions, cannot be compared.
    #[error(
        "layouts of cluster {old} ({old_partitions} partitions) and {new} ({new_partitions}) cannot be compared"
    )]
    Unrelated {
        /// The cluster of the older layout.
        old: ClusterId,
        /// Its number of partitions.
        old_partitions: u16,
        /// The cluster of the newer layout.
        new: ClusterId,
        /// Its number of partitions.
        new_partitions: u16,
    },
}

/// The beginning of a text that came from outside, short enough for a message or a log line.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}
