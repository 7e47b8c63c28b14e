//! Operators who change the layout while everything else goes on.

use std::collections::BTreeMap;

use quorate_protocol::ApplyLayout;
use quorate_ring::Partition;

use super::*;

/// Nodes that run from the beginning and are in no layout, until they join one.
pub(super) const SPARES: usize = 2;
/// How long the healed cluster has to finish a change that is under way.
const CHANGE_US: u64 = 90_000_000;

impl World {
    pub(super) fn plan_change(&mut self) {
        if self.profile.changes {
            let gap = self.rng.random_range(0..self.change_gap_us * 2);
            self.plan(gap, Happening::Change);
        }
    }

    /// How a node of the simulated cluster is described.
    pub(super) fn spec(i: usize, weight: u32) -> NodeSpec {
        NodeSpec {
            id: NodeId(i as u64),
            name: format!("node-{i}"),
            region: "here".to_owned(),
            zone: format!("zone-{i}"),
            weight,
            quic: format!("node-{i}:1"),
            http: format!("node-{i}:2"),
        }
    }

    /// An operator asks some node for another layout: with one more, one less, another in the place of one, or other weights. Sometimes two do
    /// so at once.
    pub(super) fn change(&mut self) {
        let operators = if self.rng.random_bool(0.3) { 2 } else { 1 };
        for _ in 0..operators {
            let asked = self.rng.random_range(0..self.slots.len());
            let Some(epoch) = self.alive(asked) else {
                continue;
            };
            let Some(node) = &self.slots[asked].node else {
                continue;
            };
            let current = node.layouts().current.clone();
            let mut members: BTreeMap<usize, u32> = BTreeMap::new();
            for spec in current.nodes() {
                members.insert(spec.id.0 as usize, spec.weight);
            }
            let outside: Vec<usize> = (0..self.slots.len())
                .filter(|i| !members.contains_key(i))
                .collect();
            let inside: Vec<usize> = members.keys().copied().collect();
            let leaver = inside.choose(&mut self.rng).copied();
            let joiner = outside.choose(&mut self.rng).copied();
            let what = match (self.rng.random_range(0..6), joiner, leaver) {
                (4 | 5, ..) => {
                    let most = self.slots.len();
                    let many = self.rng.random_range(3..=most);
                    members = (0..most)
                        .collect::<Vec<_>>()
                        .choose_multiple(&mut self.rng, many)
                        .map(|i| (*i, 1))
                        .collect();
                    "many at once"
                }
                (0, Some(joiner), _) => {
                    members.insert(joiner, 1);
                    "join"
                }
                (1, _, Some(leaver)) if members.len() > 3 => {
                    members.remove(&leaver);
                    "leave"
                }
                (2, Some(joiner), Some(leaver)) => {
                    members.remove(&leaver);
                    members.insert(joiner, 1);
                    "replace"
                }
                (_, _, Some(one)) => {
                    let weight = self.rng.random_range(1..4);
                    members.insert(one, weight);
                    "weight"
                }
                _ => continue,
            };
            // A member that is left out may be said to be gone for good, though it may well live on, and hear of nothing for a while. Not where
            // disks lose something too: that would be two copies.
            let mut dead = BTreeSet::new();
            let left_out = inside.iter().find(|i| !members.contains_key(i));
            if let Some(left_out) = left_out.filter(|_| self.may_declare_dead)
                && self.rng.random_bool(0.5)
            {
                dead.insert(NodeId(*left_out as u64));
                let at = self.now;
                self.losses.push(Loss { at, key: None });
                *self.accidents.entry("declared dead").or_default() += 1;
            }
            if self.rng.random_bool(0.25) {
                let pace = [Some(0), Some(2_000), None].choose(&mut self.rng).copied();
                self.set_pace(asked, pace.flatten());
            }
            let nodes = members.iter().map(|(i, weight)| Self::spec(*i, *weight));
            let apply = ApplyLayout {
                version: current.version() + 1,
                nodes: nodes.collect(),
                dead,
            };
            *self.accidents.entry(what).or_default() += 1;
            let caller = OWN_CALLERS + self.sequence;
            let ask = Happening::Ask {
                node: asked,
                epoch,
                caller: Caller(caller),
                header: Header::default(),
                request: Box::new(Request::Apply(Box::new(apply))),
            };
            self.plan(0, ask);
        }
        self.plan_change();
    }

    /// An operator says how fast nodes are to be filled, or that they are to wait.
    fn set_pace(&mut self, node: usize, bytes_per_second: Option<u64>) {
        let Some(epoch) = self.alive(node) else {
            return;
        };
        if bytes_per_second == Some(0) {
            *self.accidents.entry("change paused").or_default() += 1;
        }
        let ask = Happening::Ask {
            node,
            epoch,
            caller: Caller(OWN_CALLERS + self.sequence),
            header: Header::default(),
            request: Box::new(Request::Pace(bytes_per_second)),
        };
        self.plan(0, ask);
    }

    /// The layouts that any running node goes by, each once, the latest last.
    pub(super) fn layouts(&self) -> Vec<Layout> {
        if !self.profile.changes {
            return vec![self.layout.clone()];
        }
        let mut all: BTreeMap<u64, Layout> = BTreeMap::new();
        for node in self.slots.iter().filter_map(|slot| slot.node.as_ref()) {
            let known = node.layouts();
            let next = known.next.iter().map(|change| &change.chosen.layout);
            for layout in std::iter::once(&known.current).chain(next) {
                all.entry(layout.version())
                    .or_insert_with(|| layout.clone());
            }
        }
        match all.is_empty() {
            true => vec![self.layout.clone()],
            false => all.into_values().collect(),
        }
    }

    /// The primaries of a partition in one layout.
    pub(super) fn seats_in(layout: &Layout, partition: Partition) -> Vec<usize> {
        let set = quorate_ring::ReplicaSet::new(3, None).expect("a sound replica set");
        let preference = layout.preference(partition, &set);
        preference
            .primaries
            .iter()
            .map(|id| id.0 as usize)
            .collect()
    }

    /// No two nodes ever go by different layouts of one version.
    pub(super) fn check_layouts(&mut self) {
        let mut split = Vec::new();
        for node in self.slots.iter().filter_map(|slot| slot.node.as_ref()) {
            let known = node.layouts();
            let next = known.next.iter().map(|change| &change.chosen.layout);
            for layout in std::iter::once(&known.current).chain(next) {
                let digest = layout.digest();
                let known = self.chosen.entry(layout.version()).or_insert(digest);
                if *known != digest {
                    split.push(layout.version());
                }
            }
        }
        if self.events.contains_key(&Event::LayoutsUnsound) {
            self.violations
                .push("a node was told of layouts that cannot be true".to_owned());
            self.events.remove(&Event::LayoutsUnsound);
        }
        for version in split {
            self.violations
                .push(format!("there are two layouts of version {version}"));
        }
    }

    /// The healed cluster finishes what was begun: all nodes know the same, and nothing is under way.
    pub(super) fn finish_change(&mut self) {
        let is_done = |world: &World| {
            let mut nodes = world.slots.iter().filter_map(|slot| slot.node.as_ref());
            let latest = world.layouts().pop().map(|l| l.version());
            nodes.all(|node| {
                let known = node.layouts();
                known.next.is_none() && Some(known.current.version()) == latest
            })
        };
        // Whoever is asked has heard by now what was set last.
        self.run_for(LOOK_US);
        for node in 0..self.slots.len() {
            self.set_pace(node, None);
        }
        let until = self.now + CHANGE_US;
        while self.now < until && !is_done(self) {
            self.run_for(LOOK_US);
        }
        if !is_done(self) {
            let nodes = self.slots.iter().filter_map(|slot| slot.node.as_ref());
            let told: Vec<String> = nodes
                .map(|node| {
                    let known = node.layouts();
                    let next = known.next.as_ref();
                    let next = next.map(|c| (c.chosen.layout.version(), &c.synced, &c.complete));
                    format!("{} and {next:?}", known.current.version())
                })
                .collect();
            self.violations
                .push(format!("a change of the layout does not end: {told:?}"));
        }
        if let Some(latest) = self.layouts().pop() {
            self.layout = latest;
        }
    }
}
