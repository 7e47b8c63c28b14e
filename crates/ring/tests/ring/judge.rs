//! A second opinion on placement, sharing no code with the crate: plain augmenting paths over the whole
//! network of partitions, zones and nodes. Slow, simple, and for one region.

use quorate_ring::{Layout, NodeId, NodeSpec, Partition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One region's placement problem.
pub(crate) struct Judge<'a> {
    nodes: &'a [NodeSpec],
    zones: Vec<&'a str>,
    partitions: usize,
    copies: usize,
}

/// Seats per weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerWeight {
    pub(crate) seats: u64,
    pub(crate) weight: u64,
}

impl PerWeight {
    pub(crate) fn value(self) -> f64 {
        self.seats as f64 / self.weight as f64
    }
}

struct Edge {
    to: usize,
    room: u64,
    cost: i64,
}

#[derive(Default)]
struct Graph {
    edges: Vec<Edge>,
    out: Vec<Vec<usize>>,
}

impl Graph {
    fn edge(&mut self, from: usize, to: usize, room: u64, cost: i64) {
        let vertices = self.out.len().max(from + 1).max(to + 1);
        self.out.resize_with(vertices, Vec::new);
        self.out[from].push(self.edges.len());
        self.edges.push(Edge { to, room, cost });
        self.out[to].push(self.edges.len());
        self.edges.push(Edge {
            to: from,
            room: 0,
            cost: -cost,
        });
    }

    /// Sends unit after unit along any path (Ford and Fulkerson).
    fn max_flow(&mut self, source: usize, sink: usize) -> u64 {
        let mut sent = 0;
        loop {
            let mut seen = vec![false; self.out.len()];
            if !self.augment(source, sink, &mut seen) {
                return sent;
            }
            sent += 1;
        }
    }

    fn augment(&mut self, at: usize, sink: usize, seen: &mut [bool]) -> bool {
        if at == sink {
            return true;
        }
        seen[at] = true;
        for index in 0..self.out[at].len() {
            let edge = self.out[at][index];
            let to = self.edges[edge].to;
            if self.edges[edge].room > 0 && !seen[to] && self.augment(to, sink, seen) {
                self.edges[edge].room -= 1;
                self.edges[edge ^ 1].room += 1;
                return true;
            }
        }
        false
    }

    /// Sends unit after unit along the cheapest path (Bellman and Ford, by a queue). Flow and cost.
    fn min_cost(&mut self, source: usize, sink: usize) -> (u64, i64) {
        let (mut sent, mut cost) = (0, 0);
        loop {
            let mut best = vec![i64::MAX; self.out.len()];
            let mut by = vec![usize::MAX; self.out.len()];
            let mut queue = VecDeque::from([source]);
            let mut queued = vec![false; self.out.len()];
            best[source] = 0;
            while let Some(at) = queue.pop_front() {
                queued[at] = false;
                for &edge in &self.out[at] {
                    let Edge { to, room, cost } = self.edges[edge];
                    if room > 0 && best[at] + cost < best[to] {
                        best[to] = best[at] + cost;
                        by[to] = edge;
                        if !std::mem::replace(&mut queued[to], true) {
                            queue.push_back(to);
                        }
                    }
                }
            }
            if best[sink] == i64::MAX {
                return (sent, cost);
            }
            let mut at = sink;
            while at != source {
                let edge = by[at];
                self.edges[edge].room -= 1;
                self.edges[edge ^ 1].room += 1;
                at = self.edges[edge ^ 1].to;
            }
            sent += 1;
            cost += best[sink];
        }
    }
}

const SOURCE: usize = 0;
const SINK: usize = 1;

impl<'a> Judge<'a> {
    pub(crate) fn new(nodes: &'a [NodeSpec], partitions: u16, replicas: u8) -> Judge<'a> {
        let zones: BTreeSet<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
        Judge {
            nodes,
            zones: zones.into_iter().collect(),
            partitions: partitions.into(),
            copies: usize::from(replicas).min(nodes.len()),
        }
    }

    fn zone(&self, node: &NodeSpec) -> usize {
        let at = self.zones.iter().position(|zone| *zone == node.zone);
        at.expect("a known zone")
    }

    /// The bounds of a zone's copies in a partition: copies are dealt to the zones one by one, each to
    /// one that has fewest and a node left; the first to get a copy in the last round are no better
    /// than the others.
    fn zone_bounds(&self) -> Vec<(usize, usize)> {
        let room: Vec<usize> = (0..self.zones.len())
            .map(|zone| self.nodes.iter().filter(|n| self.zone(n) == zone).count())
            .collect();
        let mut held = vec![0; room.len()];
        let mut last = 0;
        for _ in 0..self.copies {
            let open = (0..room.len()).filter(|&z| held[z] < room[z]);
            let zone = open.min_by_key(|&z| held[z]).expect("nodes for all copies");
            held[zone] += 1;
            last = held[zone];
        }
        room.iter()
            .map(|&room| (room.min(last - 1), room.min(last)))
            .collect()
    }

    /// The network; `seats` are a node's least and most, and `kept` says which seats cost nothing.
    fn network(
        &self,
        seats: &[(u64, u64)],
        shortfall: i64,
        kept: impl Fn(usize, NodeId) -> bool,
    ) -> Graph {
        let bounds = self.zone_bounds();
        let least: usize = bounds.iter().map(|(least, _)| least).sum();
        let zones = self.zones.len();
        let of_node = |v: usize| 2 + v;
        let of_partition = |p: usize| 2 + self.nodes.len() + p * (zones + 1);
        let mut graph = Graph::default();
        for (v, &(least, most)) in seats.iter().enumerate() {
            graph.edge(of_node(v), SINK, least, 0);
            graph.edge(of_node(v), SINK, most - least, shortfall);
        }
        for p in 0..self.partitions {
            let free = (self.copies - least) as u64;
            graph.edge(SOURCE, of_partition(p), free, 0);
            for (z, &(least, most)) in bounds.iter().enumerate() {
                let zone = of_partition(p) + 1 + z;
                graph.edge(SOURCE, zone, least as u64, 0);
                graph.edge(of_partition(p), zone, (most - least) as u64, 0);
                for (v, node) in self.nodes.iter().enumerate() {
                    if self.zone(node) == z {
                        let cost = i64::from(!kept(p, node.id));
                        graph.edge(zone, of_node(v), 1, cost);
                    }
                }
            }
        }
        graph
    }

    fn caps(&self, peak: PerWeight) -> Vec<u64> {
        self.nodes
            .iter()
            .map(|node| u64::from(node.weight) * peak.seats / peak.weight)
            .map(|cap| cap.min(self.partitions as u64))
            .collect()
    }

    fn feasible(&self, peak: PerWeight) -> bool {
        let seats: Vec<(u64, u64)> = self.caps(peak).into_iter().map(|cap| (0, cap)).collect();
        let mut graph = self.network(&seats, 0, |_, _| true);
        graph.max_flow(SOURCE, SINK) == (self.partitions * self.copies) as u64
    }

    /// The least peak of seats per weight that any placement under the zone rule has: the flow bound.
    pub(crate) fn peak_bound(&self) -> PerWeight {
        let mut candidates: Vec<PerWeight> = self
            .nodes
            .iter()
            .flat_map(|node| {
                (1..=self.partitions as u64).map(|seats| PerWeight {
                    seats,
                    weight: node.weight.into(),
                })
            })
            .collect();
        candidates.sort_by_key(|c| (u128::from(c.seats) << 64) / u128::from(c.weight));
        let feasible = candidates.partition_point(|peak| !self.feasible(*peak));
        candidates[feasible]
    }

    pub(crate) fn peak(&self, layout: &Layout) -> PerWeight {
        let load = layout.load();
        let ratios = self.nodes.iter().map(|node| PerWeight {
            seats: load[&node.id].seats.into(),
            weight: node.weight.into(),
        });
        ratios
            .max_by_key(|c| (u128::from(c.seats) << 64) / u128::from(c.weight))
            .expect("nodes")
    }

    /// The fewest seats that must move from `old` for any placement under the zone rule in which no node
    /// exceeds the peak, and each has seats within its band.
    pub(crate) fn least_moves(
        &self,
        old: &Layout,
        peak: PerWeight,
        band: &BTreeMap<NodeId, (u64, u64)>,
    ) -> u64 {
        let seats: Vec<(u64, u64)> = self
            .caps(peak)
            .into_iter()
            .zip(self.nodes)
            .map(|(cap, node)| {
                let (least, most) = band[&node.id];
                (least.min(cap), most.min(cap))
            })
            .collect();
        let held: Vec<BTreeSet<NodeId>> = (0..old.partitions())
            .map(|p| old.seats(Partition(p), "eu").collect())
            .collect();
        let total = (self.partitions * self.copies) as u64;
        let shortfall = total as i64 + 1;
        let mut graph = self.network(&seats, shortfall, |p, node| held[p].contains(&node));
        let (sent, cost) = graph.min_cost(SOURCE, SINK);
        assert_eq!(sent, total, "a placement exists");
        let beyond = total - seats.iter().map(|(least, _)| least).sum::<u64>();
        let cost = cost - beyond as i64 * shortfall;
        u64::try_from(cost).expect("every node can have its least seats")
    }

    /// Asserts the laws of every list: distinct nodes of the region, zones even and in turn.
    pub(crate) fn assert_lists(&self, layout: &Layout) {
        for p in 0..layout.partitions() {
            let list: Vec<NodeId> = layout.seats(Partition(p), "eu").collect();
            assert_eq!(list.len(), self.copies);
            let distinct: BTreeSet<NodeId> = list.iter().copied().collect();
            assert_eq!(distinct.len(), list.len(), "partition {p}: {list:?}");

            let zone = |id: &NodeId| self.zone(layout.node(*id).expect("a node of the layout"));
            let held = |of: usize| list.iter().filter(|id| zone(id) == of).count();
            for (a, b) in
                (0..self.zones.len()).flat_map(|a| (0..self.zones.len()).map(move |b| (a, b)))
            {
                let room = self
                    .nodes
                    .iter()
                    .filter(|node| self.zone(node) == b)
                    .count();
                assert!(
                    held(a) <= held(b) + 1 || held(b) == room,
                    "partition {p}: zones {a} and {b} are uneven: {list:?}"
                );
            }
            let in_all: BTreeSet<usize> = list.iter().map(zone).collect();
            for prefix in 1..=list.len() {
                let within: BTreeSet<usize> = list[..prefix].iter().map(zone).collect();
                assert_eq!(
                    within.len(),
                    prefix.min(in_all.len()),
                    "partition {p}: {list:?}"
                );
            }
        }
    }
}
