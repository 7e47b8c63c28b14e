//! From a partition to the nodes that serve it, in order.

use crate::ids::{NodeId, Partition};
use crate::layout::{Layout, Ring};
use crate::replica_set::ReplicaSet;

/// The nodes for the keys of a partition and a replica set. Together the two lists hold nodes of the
/// layout, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The nodes that own the data: for each region of the set, in the order of their names, the lesser of `n` and
    /// the region's nodes.
    pub primaries: Vec<NodeId>,
    /// All other nodes, in the order in which they stand in for a primary that is down: first
    /// the nodes of the set's regions, then the others, each part clockwise from the partition.
    pub fallbacks: Vec<NodeId>,
}

impl Layout {
    /// The preference list of a partition for buckets with this replica set.
    ///
    /// With `n` up to the layout's replicas, the primaries of a region are the first `n` of the partition's
    /// list. With more, the list goes on with the nodes met first on the lists of the following partitions,
    /// clockwise, and at last with nodes that have no seat, by id; that extension is distinct, but
    /// neither spread over zones nor balanced. A region that the layout lacks gives nothing, so that
    /// the primaries can be none at all.
    ///
    /// # Panics
    ///
    /// If the layout does not have that partition.
    pub fn preference(&self, partition: Partition, set: &ReplicaSet) -> Preference {
        let start = self.index(partition);
        let mut met = Met(vec![false; self.nodes().len()]);
        let (inside, outside): (Vec<&Ring>, Vec<&Ring>) = self
            .rings()
            .iter()
            .partition(|ring| set.covers(&ring.region));

        let mut primaries = Vec::new();
        for ring in &inside {
            let n = usize::from(set.n);
            self.walk(start, &[ring], n, &mut met, &mut primaries);
        }
        let mut fallbacks = Vec::with_capacity(self.nodes().len() - primaries.len());
        for rings in [inside, outside] {
            self.walk(start, &rings, usize::MAX, &mut met, &mut fallbacks);
        }
        Preference {
            primaries,
            fallbacks,
        }
    }

    /// Collects up to `limit` nodes of the rings that were not met before: clockwise from `start`, the
    /// rings side by side, then those without a seat.
    fn walk(
        &self,
        start: usize,
        rings: &[&Ring],
        limit: usize,
        met: &mut Met,
        found: &mut Vec<NodeId>,
    ) {
        let partitions = usize::from(self.partitions());
        // Usually all nodes with a seat are met within some partitions, and the walk need not go round.
        let mut seated: usize = rings.iter().map(|ring| ring.seated).sum();
        for ring in rings {
            seated -= met.seated_of(self, ring);
        }
        let mut left = limit;
        'ring: for step in 0..partitions {
            for ring in rings {
                for &at in ring.list((start + step) % partitions) {
                    if left == 0 || seated == 0 {
                        break 'ring;
                    }
                    if met.first(at) {
                        found.push(self.nodes()[at].id);
                        left -= 1;
                        seated -= 1;
                    }
                }
            }
        }
        for at in rings.iter().flat_map(|ring| &ring.unseated) {
            if left == 0 {
                break;
            }
            if met.first(*at) {
                found.push(self.nodes()[*at].id);
                left -= 1;
            }
        }
    }
}

/// The nodes already on a list, by position.
struct Met(Vec<bool>);

impl Met {
    fn first(&mut self, at: usize) -> bool {
        !std::mem::replace(&mut self.0[at], true)
    }

    /// How many of the ring's nodes that have a seat were met.
    fn seated_of(&self, layout: &Layout, ring: &Ring) -> usize {
        let of_ring = |at: &usize| self.0[*at] && layout.nodes()[*at].region == ring.region;
        let met = (0..self.0.len()).filter(of_ring).count();
        met - ring.unseated.iter().filter(|at| self.0[**at]).count()
    }
}
