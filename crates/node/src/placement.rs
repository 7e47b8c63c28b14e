//! Who holds a key, as the live layouts have it: looked up on every request, so worked out once.

use std::collections::BTreeSet;

use quorate_protocol::VnodeId;
use quorate_ring::{Layout, NodeId, Partition, ReplicaSet, ReplicaSetId};

use crate::layouts::Layouts;
use crate::tally::Seat;

/// The replicas of every partition for one replica set.
#[derive(Debug)]
pub(crate) struct Placement {
    set: ReplicaSet,
    id: ReplicaSetId,
    arcs: Vec<Arc>,
    /// The number of this node's region.
    region: u16,
}

/// The replicas of one partition.
#[derive(Debug)]
struct Arc {
    /// Those of all live layouts but the dead: first those by which reads are answered, in the order of the preference list.
    seats: Vec<Seat>,
    /// How many these are.
    reading: usize,
    /// While the layout changes: those of each layout, the dead among them. Else none: they are the seats.
    writing: Vec<Vec<Seat>>,
    /// Which of these layouts reads go by.
    read: usize,
    /// The nodes that stand in for them, in the order of the preference list.
    fallbacks: Vec<Seat>,
}

impl Placement {
    pub(crate) fn new(layouts: &Layouts, set: &ReplicaSet, me: NodeId) -> Self {
        let regions = layouts.writing().flat_map(Layout::regions);
        let regions: BTreeSet<&str> = regions.collect();
        let region_of = |node: NodeId| {
            let name = layouts.node(node).map(|n| n.region.as_str());
            let at = regions.iter().position(|n| Some(*n) == name);
            at.map_or(u16::MAX, |at| at as u16)
        };
        let seat = |node: &NodeId| Seat {
            node: *node,
            region: region_of(*node),
        };
        let alive = |node: &NodeId| !layouts.is_dead(*node);
        let changes = layouts.change().is_some();
        let arc = |partition| {
            let preferences = layouts.writing().map(|l| l.preference(partition, set));
            let preferences: Vec<_> = preferences.collect();
            let read = layouts.reading().preference(partition, set);
            let mut seats: Vec<NodeId> = read.primaries.into_iter().filter(alive).collect();
            let reading = seats.len();
            for node in preferences.iter().flat_map(|p| &p.primaries) {
                if alive(node) && !seats.contains(node) {
                    seats.push(*node);
                }
            }
            let mut fallbacks = Vec::new();
            let others = preferences.iter().rev();
            let others = others.flat_map(|p| p.fallbacks.iter().chain(&p.primaries));
            for node in read.fallbacks.iter().chain(others) {
                if alive(node) && !seats.contains(node) && !fallbacks.contains(node) {
                    fallbacks.push(*node);
                }
            }
            let writing = preferences.iter().filter(|_| changes);
            let writing = writing.map(|p| p.primaries.iter().map(seat).collect());
            let is_read = |l: &Layout| l.version() == layouts.reading().version();
            Arc {
                reading,
                read: layouts.writing().position(is_read).unwrap_or(0),
                writing: writing.collect(),
                seats: seats.iter().map(seat).collect(),
                fallbacks: fallbacks.iter().map(seat).collect(),
            }
        };
        Placement {
            id: set.id(),
            arcs: (0..layouts.partitions()).map(Partition).map(arc).collect(),
            region: region_of(me),
            set: set.clone(),
        }
    }

    fn arc(&self, partition: Partition) -> &Arc {
        &self.arcs[usize::from(partition.0)]
    }

    /// The primaries of a partition: those of every live layout.
    pub(crate) fn primaries(&self, partition: Partition) -> &[Seat] {
        &self.arc(partition).seats
    }

    /// Those of them by which reads are answered.
    pub(crate) fn readers(&self, partition: Partition) -> &[Seat] {
        let arc = self.arc(partition);
        &arc.seats[..arc.reading]
    }

    /// The same, the dead among them: of these a read must meet its quorum, since those took part in the writes that it is to see.
    pub(crate) fn read_by(&self, partition: Partition) -> &[Seat] {
        let arc = self.arc(partition);
        arc.writing.get(arc.read).unwrap_or(&arc.seats)
    }

    /// The primaries of each live layout by itself: a write must meet its quorum in each. Also those that are gone for good, as they count
    /// for what a quorum is.
    pub(crate) fn writers(&self, partition: Partition) -> impl Iterator<Item = &[Seat]> {
        let arc = self.arc(partition);
        let only = arc.writing.is_empty().then_some(&arc.seats[..]);
        only.into_iter()
            .chain(arc.writing.iter().map(Vec::as_slice))
    }

    /// Those replicas of any live layout that are gone for good.
    pub(crate) fn dead(&self, partition: Partition) -> impl Iterator<Item = NodeId> {
        let arc = self.arc(partition);
        let all = arc.writing.iter().flatten();
        let dead = all.filter(|seat| !arc.seats.iter().any(|s| s.node == seat.node));
        dead.map(|seat| seat.node)
    }

    /// The replicas by the latest layout.
    pub(crate) fn newest(&self, partition: Partition) -> &[Seat] {
        let arc = self.arc(partition);
        arc.writing.last().unwrap_or(&arc.seats)
    }

    /// Whether of whoever took part in a write by a majority, under any live layout, one is among these, or is `me`.
    pub(crate) fn covers(
        &self,
        partition: Partition,
        me: NodeId,
        these: &BTreeSet<NodeId>,
    ) -> bool {
        self.writers(partition).all(|seats| {
            let n = seats.len();
            let others = seats.iter().filter(|s| s.node != me);
            let most = others.clone().count();
            let heard = others.filter(|s| these.contains(&s.node)).count();
            heard >= (n - n / 2).min(most)
        })
    }

    /// All other nodes, in the order in which they stand in for a primary.
    pub(crate) fn fallbacks(&self, partition: Partition) -> &[Seat] {
        &self.arc(partition).fallbacks
    }

    pub(crate) fn vnode(&self, partition: Partition) -> VnodeId {
        VnodeId {
            partition,
            set: self.id,
        }
    }

    /// Whether a node holds this vnode's partition. Whatever was asked: a vnode that nobody has is nobody's.
    pub(crate) fn is_seat(&self, vnode: VnodeId, node: NodeId) -> bool {
        let arc = self.arcs.get(usize::from(vnode.partition.0));
        vnode.set == self.id && arc.is_some_and(|a| a.seats.iter().any(|s| s.node == node))
    }

    /// The name of the replica set.
    pub(crate) fn set(&self) -> ReplicaSetId {
        self.id
    }

    /// The same under other layouts.
    pub(crate) fn under(&self, layouts: &Layouts, me: NodeId) -> Self {
        Placement::new(layouts, &self.set, me)
    }

    /// The different groups of nodes that hold partitions in one layout, each once, whatever their order.
    pub(crate) fn kinds(&self) -> Vec<&[Seat]> {
        let mut seen = BTreeSet::new();
        let mut kinds = Vec::new();
        let partitions = (0..self.arcs.len()).map(|p| Partition(p as u16));
        for seats in partitions.flat_map(|p| self.writers(p)) {
            let mut nodes: Vec<NodeId> = seats.iter().map(|s| s.node).collect();
            nodes.sort_unstable();
            if seen.insert(nodes) {
                kinds.push(seats);
            }
        }
        kinds
    }

    pub(crate) fn region(&self) -> u16 {
        self.region
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{Options, ProposedLayout, Quorum};
    use quorate_ring::{ClusterId, LayoutSpec, NodeSpec};

    use super::*;
    use crate::accept::Terms;
    use crate::config::BucketDefaults;
    use crate::tally::Verdict;

    fn specs(ids: impl IntoIterator<Item = u64>) -> Vec<NodeSpec> {
        let spec = |id: u64| NodeSpec {
            id: NodeId(id),
            name: format!("node-{id}"),
            region: "here".to_owned(),
            zone: format!("zone-{id}"),
            weight: 1,
            quic: format!("node-{id}:1"),
            http: format!("node-{id}:2"),
        };
        ids.into_iter().map(spec).collect()
    }

    /// Five nodes of which two are gone for good, and two others take their places.
    fn changing() -> Layouts {
        let spec = LayoutSpec {
            partitions: 4,
            replicas: 5,
            nodes: specs(0..5),
        };
        let first = Layout::first(ClusterId(1), spec).expect("a sound layout");
        let chosen = ProposedLayout {
            layout: first.next(specs([0, 1, 2, 5, 6])).expect("a sound layout"),
            dead: [NodeId(3), NodeId(4)].into(),
        };
        let old = Layouts::only(first);
        let told = old.with_next(chosen);
        old.joined(&told).expect("it follows")
    }

    /// A write that three of five took may be on one that lives: a read has to hear all three of these.
    #[test]
    fn the_dead_count_for_what_a_quorum_is() {
        let set = ReplicaSet::new(5, None).expect("a sound set");
        let placement = Placement::new(&changing(), &set, NodeId(0));
        let defaults = BucketDefaults {
            n: 5,
            ..BucketDefaults::default()
        };
        let options = Options {
            r: Some(Quorum::Majority),
            ..Options::default()
        };
        let terms = Terms {
            placement: &placement,
            partition: Partition(0),
            defaults: &defaults,
            options: &options,
        };
        let verdict = |needed: &crate::tally::Requirement, yes: &[u64]| {
            needed.verdict(|n| yes.contains(&n.0), |_| false)
        };
        let read = terms.read().expect("possible").r;
        assert_eq!(verdict(&read, &[0, 1]), Verdict::Pending);
        assert_eq!(verdict(&read, &[0, 1, 2]), Verdict::Met);
        // And a write has to be taken by a majority of either five.
        let write = terms.write().expect("possible").taken;
        assert_eq!(verdict(&write, &[0, 1, 2]), Verdict::Met);
        assert_eq!(verdict(&write, &[0, 1, 5, 6]), Verdict::Pending);
        let asked = placement.primaries(Partition(0)).iter().map(|s| s.node.0);
        assert!(asked.clone().all(|n| n != 3 && n != 4));
        assert_eq!(asked.count(), 5);
    }
}
