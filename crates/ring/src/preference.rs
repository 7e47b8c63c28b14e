//! From a partition to the nodes that serve it, in order.

use crate::ids::{NodeId, Partition};
use crate::layout::Layout;
use crate::replica_set::ReplicaSet;
use crate::ring::Ring;

/// The nodes for the keys of a partition and a replica set. Together the two lists hold every node of the
/// layout, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The nodes that own the data: for each region of the set, in the order of their names, the lesser of
    /// `n` and the region's nodes.
    pub primaries: Vec<NodeId>,
    /// All other nodes, in the order in which they stand in for a primary that is down: first the nodes of
    /// the set's regions, then those of other regions; each part takes its regions by turns, and each
    /// region's nodes clockwise from the partition.
    pub fallbacks: Vec<NodeId>,
}

impl Layout {
    /// The preference list of a partition for buckets with this replica set.
    ///
    /// With `n` up to the layout's replicas, the primaries of a region are the first `n` of the partition's
    /// list. With more, the list goes on with the nodes met first on the lists of the following partitions,
    /// clockwise, and at last with nodes that have no seat, by id; that extension is distinct, but neither
    /// spread over zones nor balanced. A region that the layout lacks gives nothing, so that there can be
    /// no primaries at all.
    ///
    /// The orders are computed with the layout, so this only copies them.
    ///
    /// # Panics
    ///
    /// If the layout does not have that partition.
    pub fn preference(&self, partition: Partition, set: &ReplicaSet) -> Preference {
        let partition = self.index(partition);
        let (inside, outside): (Vec<&Ring>, Vec<&Ring>) = self
            .rings()
            .iter()
            .partition(|ring| set.covers(&ring.region));

        let id = |at: &u16| self.nodes()[usize::from(*at)].id;
        let mut primaries = Vec::new();
        let mut rest = Vec::with_capacity(inside.len());
        for ring in inside {
            let order = ring.order(partition);
            let (first, others) = order.split_at(order.len().min(set.n.into()));
            primaries.extend(first.iter().map(id));
            rest.push(others);
        }
        let outside = outside.iter().map(|ring| ring.order(partition)).collect();

        let mut fallbacks = Vec::with_capacity(self.nodes().len() - primaries.len());
        for orders in [rest, outside] {
            let longest = orders.iter().map(|order| order.len()).max().unwrap_or(0);
            for turn in 0..longest {
                fallbacks.extend(orders.iter().filter_map(|order| order.get(turn)).map(id));
            }
        }
        Preference {
            primaries,
            fallbacks,
        }
    }
}
