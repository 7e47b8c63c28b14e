//! The laws of preference lists.

use crate::clusters::{CLUSTER, clusters, first, node};
use proptest::prelude::*;
use quorate_ring::{Layout, LayoutSpec, NodeId, NodeSpec, Partition, ReplicaSet};
use std::collections::BTreeSet;

fn regional() -> Layout {
    let regions = [("eu", 5), ("us", 2), ("ap", 4)];
    let nodes = regions.iter().flat_map(|&(region, count)| {
        let first = region.bytes().map(u64::from).sum::<u64>() * 10;
        (0..count).map(move |i| node(first + i, 1, region, &format!("{region}-{}", i % 3)))
    });
    first(64, 3, nodes.collect())
}

fn assert_complete(layout: &Layout, partition: Partition, set: &ReplicaSet) {
    let preference = layout.preference(partition, set);
    let expected: usize = layout
        .regions()
        .filter(|region| set.covers(region))
        .map(|region| {
            let nodes = layout.nodes().iter().filter(|node| node.region == region);
            nodes.count().min(set.n.into())
        })
        .sum();
    assert_eq!(preference.primaries.len(), expected);
    let region = |id: &NodeId| &layout.node(*id).expect("a node of the layout").region;
    assert!(preference.primaries.iter().all(|id| set.covers(region(id))));
    assert!(preference.primaries.is_sorted_by_key(region));
    assert!(
        preference
            .fallbacks
            .is_sorted_by_key(|id| !set.covers(region(id)))
    );

    let all = preference.primaries.iter().chain(&preference.fallbacks);
    let distinct: BTreeSet<NodeId> = all.clone().copied().collect();
    assert_eq!(all.count(), layout.nodes().len());
    assert_eq!(distinct.len(), layout.nodes().len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn lists_hold_every_node_once_and_prefixes_agree(
        (_, list) in clusters(),
        n in 1_u8..=14,
        p in (0_u16..64).prop_map(Partition),
    ) {
        let layout = first(64, 3, crate::clusters::nodes(&list));
        let set = |n| ReplicaSet::new(n, None).unwrap();
        assert_complete(&layout, p, &set(n));
        // A bucket with more copies has all the replicas of one with fewer, in the same order.
        let (small, large) = (layout.preference(p, &set(n)), layout.preference(p, &set(n + 1)));
        prop_assert!(large.primaries.starts_with(&small.primaries));
        let seats: Vec<NodeId> = layout.seats(p, "eu").collect();
        prop_assert!(large.primaries.starts_with(&seats) || seats.starts_with(&large.primaries));
    }
}

#[test]
fn every_region_of_the_set_and_no_other_has_primaries() {
    let layout = regional();
    let sets = [
        ReplicaSet::new(3, None),
        ReplicaSet::new(1, None),
        ReplicaSet::new(4, Some(vec!["us".into(), "ap".into()])),
        ReplicaSet::new(2, Some(vec!["eu".into(), "mars".into()])),
    ];
    for set in sets.map(Result::unwrap) {
        for p in (0..64).map(Partition) {
            assert_complete(&layout, p, &set);
        }
    }
    let nowhere = ReplicaSet::new(3, Some(vec!["mars".into()])).unwrap();
    let preference = layout.preference(Partition(0), &nowhere);
    assert!(preference.primaries.is_empty());
    assert_eq!(preference.fallbacks.len(), layout.nodes().len());
}

#[test]
fn fallbacks_walk_the_ring_clockwise() {
    let layout = regional();
    let set = ReplicaSet::new(1, Some(vec!["eu".into()])).unwrap();
    for p in 0..64 {
        let preference = layout.preference(Partition(p), &set);
        let clockwise = |region: &str| {
            let mut walked: Vec<NodeId> = Vec::new();
            for step in 0..64 {
                for id in layout.seats(Partition((p + step) % 64), region) {
                    if !walked.contains(&id) {
                        walked.push(id);
                    }
                }
            }
            walked
        };
        // The other region's nodes follow by turns: four of one, two of the other.
        let (eu, ap, us) = (clockwise("eu"), clockwise("ap"), clockwise("us"));
        assert_eq!(preference.primaries, eu[..1]);
        let turns = [ap[0], us[0], ap[1], us[1], ap[2], ap[3]];
        let walked = [&eu[1..], &turns].concat();
        assert_eq!(preference.fallbacks, walked);
    }
}

#[test]
fn a_node_too_light_for_a_seat_is_the_last_fallback() {
    let mut nodes: Vec<NodeSpec> = (1..=4).map(|id| node(id, 1000, "eu", "eu-a")).collect();
    nodes[0].weight = 1;
    let layout = Layout::first(CLUSTER, LayoutSpec::new(nodes)).unwrap();
    assert_eq!(layout.load()[&NodeId(1)].seats, 0);
    let set = ReplicaSet::new(2, None).unwrap();
    let all = ReplicaSet::new(4, None).unwrap();
    for p in (0..256).map(Partition) {
        assert_eq!(
            layout.preference(p, &set).fallbacks.last(),
            Some(&NodeId(1))
        );
        assert_eq!(
            layout.preference(p, &all).primaries.last(),
            Some(&NodeId(1))
        );
    }
}
