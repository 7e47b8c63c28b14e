//! Who holds a key, as one layout has it: looked up on every request, so worked out once.

use std::collections::BTreeSet;

use quorate_protocol::VnodeId;
use quorate_ring::{Layout, NodeId, Partition, ReplicaSet, ReplicaSetId};

use crate::tally::Seat;

/// The replicas of every partition for one replica set.
#[derive(Debug)]
pub(crate) struct Placement {
    set: ReplicaSetId,
    /// By partition, in the order of the preference list.
    seats: Vec<Vec<Seat>>,
    /// The nodes that stand in for them, likewise.
    fallbacks: Vec<Vec<Seat>>,
    /// The number of this node's region.
    region: u16,
}

impl Placement {
    pub(crate) fn new(layout: &Layout, set: &ReplicaSet, me: NodeId) -> Self {
        let mut names: Vec<&str> = layout.nodes().iter().map(|n| n.region.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let region_of = |node: NodeId| {
            let name = layout.node(node).map(|n| n.region.as_str());
            names
                .iter()
                .position(|n| Some(*n) == name)
                .map_or(u16::MAX, |at| at as u16)
        };
        let (seats, fallbacks) = (0..layout.partitions())
            .map(|p| {
                let preference = layout.preference(Partition(p), set);
                let seat = |node: &NodeId| Seat {
                    node: *node,
                    region: region_of(*node),
                };
                let primaries = preference.primaries.iter().map(seat).collect();
                let fallbacks = preference.fallbacks.iter().map(seat).collect();
                (primaries, fallbacks)
            })
            .unzip();
        Placement {
            set: set.id(),
            seats,
            fallbacks,
            region: region_of(me),
        }
    }

    /// The primaries of a partition.
    pub(crate) fn primaries(&self, partition: Partition) -> &[Seat] {
        &self.seats[usize::from(partition.0)]
    }

    /// All other nodes, in the order in which they stand in for a primary.
    pub(crate) fn fallbacks(&self, partition: Partition) -> &[Seat] {
        &self.fallbacks[usize::from(partition.0)]
    }

    pub(crate) fn vnode(&self, partition: Partition) -> VnodeId {
        VnodeId {
            partition,
            set: self.set,
        }
    }

    /// Whether a node holds this vnode's partition. Whatever was asked: a vnode that nobody has is nobody's.
    pub(crate) fn is_seat(&self, vnode: VnodeId, node: NodeId) -> bool {
        let seats = self.seats.get(usize::from(vnode.partition.0));
        vnode.set == self.set && seats.is_some_and(|s| s.iter().any(|s| s.node == node))
    }

    /// The replica set.
    pub(crate) fn set(&self) -> ReplicaSetId {
        self.set
    }

    /// The different groups of nodes that hold partitions, each once, whatever their order.
    pub(crate) fn kinds(&self) -> Vec<&[Seat]> {
        let mut seen = BTreeSet::new();
        let mut kinds = Vec::new();
        for seats in &self.seats {
            let mut nodes: Vec<NodeId> = seats.iter().map(|s| s.node).collect();
            nodes.sort_unstable();
            if seen.insert(nodes) {
                kinds.push(seats.as_slice());
            }
        }
        kinds
    }

    pub(crate) fn region(&self) -> u16 {
        self.region
    }
}
