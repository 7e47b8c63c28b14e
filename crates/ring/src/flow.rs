//! Minimum-cost maximum flow in a small network of whole numbers.
//!
//! The primal-dual method: shortest paths under the costs left over (Dijkstra over reduced costs, after
//! Edmonds and Karp 1972, "Theoretical improvements in algorithmic efficiency for network flow problems"),
//! then a maximum flow along shortest paths only (Dinic 1970), until the sink cannot be reached. Costs here
//! have few distinct values, so that a handful of rounds moves everything; augmenting path by path would
//! take one search for every seat.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A directed network with capacities and costs, built once and run once.
pub(crate) struct Network {
    /// Each arc is followed by its reverse, so that `arc ^ 1` is the other direction.
    arcs: Vec<Arc>,
    /// The arcs that leave each vertex, in the order in which they were added and will be tried.
    leaving: Vec<Vec<usize>>,
}

struct Arc {
    to: usize,
    /// What can still flow. A reverse arc's room is what flows.
    room: u32,
    cost: i64,
}

const UNREACHED: i64 = i64::MAX;

impl Network {
    pub(crate) fn new(vertices: usize) -> Network {
        Network {
            arcs: Vec::new(),
            leaving: vec![Vec::new(); vertices],
        }
    }

    /// Adds an arc and returns its name. `cost` is for each unit and not negative: potentials start at
    /// zero.
    pub(crate) fn arc(&mut self, from: usize, to: usize, capacity: u32, cost: i64) -> usize {
        assert!(cost >= 0, "a negative cost needs other initial potentials");
        let name = self.arcs.len();
        self.arcs.push(Arc {
            to,
            room: capacity,
            cost,
        });
        self.arcs.push(Arc {
            to: from,
            room: 0,
            cost: -cost,
        });
        self.leaving[from].push(name);
        self.leaving[to].push(name + 1);
        name
    }

    /// What flows along an arc.
    pub(crate) fn flow(&self, arc: usize) -> u32 {
        self.arcs[arc ^ 1].room
    }

    /// Sends as much as possible from `source` to `sink`, as cheaply as possible, and returns how much.
    pub(crate) fn run(&mut self, source: usize, sink: usize) -> u64 {
        let mut potential = vec![0; self.leaving.len()];
        let mut sent = 0;
        while self.raise(source, sink, &mut potential) {
            while let Some(level) = self.levels(source, sink, &potential) {
                let mut tried = vec![0; self.leaving.len()];
                loop {
                    let more = self.push(source, sink, u32::MAX, &potential, &level, &mut tried);
                    if more == 0 {
                        break;
                    }
                    sent += u64::from(more);
                }
            }
        }
        sent
    }

    /// The cost of an arc as the potentials leave it: never negative where there is room, and 0 along
    /// shortest paths.
    fn reduced(&self, arc: usize, potential: &[i64]) -> i64 {
        let from = self.arcs[arc ^ 1].to;
        self.arcs[arc].cost + potential[from] - potential[self.arcs[arc].to]
    }

    /// Raises the potentials by the distances from the source; whether the sink can be reached at all.
    fn raise(&self, source: usize, sink: usize, potential: &mut [i64]) -> bool {
        let mut distance = vec![UNREACHED; self.leaving.len()];
        distance[source] = 0;
        let mut queue = BinaryHeap::from([Reverse((0, source))]);
        while let Some(Reverse((so_far, vertex))) = queue.pop() {
            if so_far > distance[vertex] {
                continue;
            }
            for &arc in &self.leaving[vertex] {
                if self.arcs[arc].room == 0 {
                    continue;
                }
                let to = self.arcs[arc].to;
                let through = so_far + self.reduced(arc, potential);
                if through < distance[to] {
                    distance[to] = through;
                    queue.push(Reverse((through, to)));
                }
            }
        }
        let limit = distance[sink];
        if limit == UNREACHED {
            return false;
        }
        // Cut at the sink's distance: vertices beyond it, or out of reach, keep reduced costs that are
        // not negative.
        for (potential, distance) in potential.iter_mut().zip(distance) {
            *potential += distance.min(limit);
        }
        true
    }

    /// The number of arcs from the source along shortest paths, or `None` if none leads to the sink.
    fn levels(&self, source: usize, sink: usize, potential: &[i64]) -> Option<Vec<u32>> {
        let mut level = vec![u32::MAX; self.leaving.len()];
        level[source] = 0;
        let mut queue = VecDeque::from([source]);
        while let Some(vertex) = queue.pop_front() {
            for &arc in &self.leaving[vertex] {
                let to = self.arcs[arc].to;
                if self.arcs[arc].room > 0
                    && level[to] == u32::MAX
                    && self.reduced(arc, potential) == 0
                {
                    level[to] = level[vertex] + 1;
                    queue.push_back(to);
                }
            }
        }
        (level[sink] != u32::MAX).then_some(level)
    }

    /// Pushes one path's worth from `vertex` to the sink. `tried` remembers which arcs led nowhere. The
    /// recursion is as deep as the path is long: each node of the cluster once, a few vertices apart.
    fn push(
        &mut self,
        vertex: usize,
        sink: usize,
        room: u32,
        potential: &[i64],
        level: &[u32],
        tried: &mut [usize],
    ) -> u32 {
        if vertex == sink {
            return room;
        }
        while let Some(&arc) = self.leaving[vertex].get(tried[vertex]) {
            let to = self.arcs[arc].to;
            if self.arcs[arc].room > 0
                && level[to] == level[vertex] + 1
                && self.reduced(arc, potential) == 0
            {
                let room = room.min(self.arcs[arc].room);
                let sent = self.push(to, sink, room, potential, level, tried);
                if sent > 0 {
                    self.arcs[arc].room -= sent;
                    self.arcs[arc ^ 1].room += sent;
                    return sent;
                }
            }
            tried[vertex] += 1;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_of_the_greatest_flows_reroutes_what_was_sent_first() {
        // The cheap path 0-1-2-3 must be taken back in part for the second unit to arrive.
        let mut network = Network::new(4);
        let ab = network.arc(0, 1, 1, 0);
        let ac = network.arc(0, 2, 1, 5);
        let bc = network.arc(1, 2, 1, 0);
        let bd = network.arc(1, 3, 1, 7);
        let cd = network.arc(2, 3, 1, 0);
        assert_eq!(network.run(0, 3), 2);
        let flows: Vec<u32> = [ab, ac, bc, bd, cd]
            .into_iter()
            .map(|arc| network.flow(arc))
            .collect();
        assert_eq!(flows, [1, 1, 0, 1, 1]);
    }

    #[test]
    fn nothing_flows_to_an_unreachable_sink() {
        let mut network = Network::new(3);
        network.arc(0, 1, 4, 0);
        assert_eq!(network.run(0, 2), 0);
    }
}
