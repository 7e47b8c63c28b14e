//! What moves between two layouts.

use crate::error::LayoutError;
use crate::ids::{NodeId, Partition};
use crate::layout::Layout;
use std::collections::BTreeSet;

/// The seats that differ between two layouts of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The partitions whose seats differ, in ring order.
    pub moves: Vec<PartitionMove>,
}

/// Who gains and who loses a seat in one partition, over all regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMove {
    /// The partition.
    pub partition: Partition,
    /// The nodes that must be filled with it, sorted by id.
    pub gains: Vec<NodeId>,
    /// The nodes that may drop it once the change is complete, sorted by id. They may be fewer or more
    /// than those who gain, where a region's number of copies changes.
    pub losses: Vec<NodeId>,
}

impl Diff {
    /// How many copies of a partition are to be made: what a change costs.
    pub fn seats_moved(&self) -> usize {
        self.moves.iter().map(|change| change.gains.len()).sum()
    }
}

/// Compares the seats of two layouts, for buckets with the layouts' number of copies everywhere. The order
/// within a list is not compared.
///
/// # Errors
///
/// [`LayoutError::Unrelated`] if the two are of different clusters or cut the ring differently.
pub fn diff(old: &Layout, new: &Layout) -> Result<Diff, LayoutError> {
    if old.cluster() != new.cluster() || old.partitions() != new.partitions() {
        return Err(LayoutError::Unrelated {
            old: old.cluster(),
            old_partitions: old.partitions(),
            new: new.cluster(),
            new_partitions: new.partitions(),
        });
    }
    let seats = |layout: &Layout, partition: Partition| -> BTreeSet<NodeId> {
        let regions = layout.regions();
        regions
            .flat_map(|region| layout.seats(partition, region).collect::<Vec<_>>())
            .collect()
    };
    let mut moves = Vec::new();
    for partition in (0..old.partitions()).map(Partition) {
        let (before, after) = (seats(old, partition), seats(new, partition));
        if before != after {
            moves.push(PartitionMove {
                partition,
                gains: after.difference(&before).copied().collect(),
                losses: before.difference(&after).copied().collect(),
            });
        }
    }
    Ok(Diff { moves })
}
