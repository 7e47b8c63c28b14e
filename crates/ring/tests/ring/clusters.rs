//! Clusters to test with: fixed ones, random ones, and random changes of them.

use proptest::prelude::*;
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec};

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

pub(crate) fn node(id: u64, weight: u32, region: &str, zone: &str) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        name: format!("node-{id}"),
        region: region.to_owned(),
        zone: zone.to_owned(),
        weight,
        quic: format!("10.0.0.{id}:7400"),
        http: format!("10.0.0.{id}:8080"),
    }
}

/// Nodes of one region with ids from 1, each a weight and a zone.
pub(crate) fn nodes(list: &[(u32, u8)]) -> Vec<NodeSpec> {
    (1..)
        .zip(list)
        .map(|(id, &(weight, zone))| node(id, weight, "eu", &format!("eu-{zone}")))
        .collect()
}

pub(crate) fn first(partitions: u16, replicas: u8, nodes: Vec<NodeSpec>) -> Layout {
    let spec = LayoutSpec {
        partitions,
        replicas,
        nodes,
    };
    Layout::first(CLUSTER, spec).expect("a valid cluster")
}

/// What an operator does to a cluster. A node is named by its place among those there are, modulo.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add(u32, u8),
    Remove(usize),
    Reweight(usize, u32),
    Rezone(usize, u8),
}

/// The nodes after a change; `None` if it would leave fewer than three or more than twelve.
pub(crate) fn changed(nodes: &[NodeSpec], change: &Change, fresh: u64) -> Option<Vec<NodeSpec>> {
    let mut nodes = nodes.to_vec();
    let at = |index: usize| index % nodes.len();
    match *change {
        Change::Add(..) if nodes.len() >= 12 => return None,
        Change::Remove(_) if nodes.len() <= 3 => return None,
        Change::Add(weight, zone) => nodes.push(node(fresh, weight, "eu", &format!("eu-{zone}"))),
        Change::Remove(index) => drop(nodes.remove(at(index))),
        Change::Reweight(index, weight) => {
            let at = at(index);
            nodes[at].weight = weight;
        }
        Change::Rezone(index, zone) => {
            let at = at(index);
            nodes[at].zone = format!("eu-{zone}");
        }
    }
    Some(nodes)
}

pub(crate) fn weights() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..=4, 5_u32..=20, 50_u32..=2000, Just(u32::MAX)]
}

/// One to three zones, three to twelve nodes, weights of one order of magnitude in most clusters.
pub(crate) fn clusters() -> impl Strategy<Value = (u8, Vec<(u32, u8)>)> {
    let weight = prop_oneof![6 => Just(1_u32..=4), 6 => Just(5_u32..=20), 1 => Just(1_u32..=2000)];
    (1_u8..=3, weight).prop_flat_map(|(zones, weights)| {
        let nodes = prop::collection::vec((weights, 0..zones), 3..=12);
        (Just(zones), nodes)
    })
}

pub(crate) fn changes(zones: u8, steps: usize) -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => (weights(), 0..zones).prop_map(|(weight, zone)| Change::Add(weight, zone)),
        3 => any::<usize>().prop_map(Change::Remove),
        2 => (any::<usize>(), weights()).prop_map(|(at, weight)| Change::Reweight(at, weight)),
        1 => (any::<usize>(), 0..zones).prop_map(|(at, zone)| Change::Rezone(at, zone)),
    ];
    prop::collection::vec(change, 1..=steps)
}

/// A cluster and what happens to it.
pub(crate) fn histories(steps: usize) -> impl Strategy<Value = (Vec<(u32, u8)>, Vec<Change>)> {
    clusters().prop_flat_map(move |(zones, nodes)| (Just(nodes), changes(zones, steps)))
}
