//! Balance, movement and order, over random clusters and random sequences of changes.

use crate::clusters::{self, Change, changed, first, histories, node, nodes};
use crate::judge::Judge;
use proptest::prelude::*;
use quorate_ring::{Layout, NodeId, NodeSpec, Partition, diff};
use std::collections::BTreeMap;

/// The fair seats of each node: a first layout has exactly these.
fn fair(layout: &Layout) -> BTreeMap<NodeId, u64> {
    let fresh = first(
        layout.partitions(),
        layout.replicas(),
        layout.nodes().to_vec(),
    );
    let load = fresh.load();
    load.into_iter()
        .map(|(id, load)| (id, load.seats.into()))
        .collect()
}

/// The least and the most a node may be left with, the peak aside, as `Layout::next` documents them.
pub(crate) fn band(layout: &Layout) -> BTreeMap<NodeId, (u64, u64)> {
    let slack = |seats: u64| (seats / 20).max(1);
    let fair = fair(layout).into_iter();
    fair.map(|(id, seats)| {
        (
            id,
            (seats.saturating_sub(slack(seats)), seats + slack(seats)),
        )
    })
    .collect()
}

/// Asserts everything that holds for any layout, however it came about.
fn assert_sound(layout: &Layout) {
    let judge = Judge::new(layout.nodes(), layout.partitions(), layout.replicas());
    judge.assert_lists(layout);
    let (peak, bound) = (judge.peak(layout), judge.peak_bound());
    assert_eq!(
        peak.seats * bound.weight,
        bound.seats * peak.weight,
        "peak {peak:?}, bound {bound:?}"
    );
    let load = layout.load();
    for (id, (least, most)) in band(layout) {
        let seats = u64::from(load[&id].seats);
        assert!((least..=most).contains(&seats), "node {id}: {seats} seats");
    }
}

/// Follows a history, with `check` for each step.
pub(crate) fn follow(
    mut layout: Layout,
    changes: &[Change],
    mut check: impl FnMut(&Layout, &Layout),
) -> Layout {
    for (fresh, change) in (100..).zip(changes) {
        if let Some(nodes) = changed(layout.nodes(), change, fresh) {
            let next = layout.next(nodes).expect("a valid change");
            check(&layout, &next);
            layout = next;
        }
    }
    layout
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_layout_is_sound_and_moves_the_least(
        (list, changes) in histories(4),
        replicas in prop_oneof![4 => Just(3_u8), 1 => 1_u8..=5],
    ) {
        let layout = first(32, replicas, nodes(&list));
        assert_sound(&layout);
        follow(layout, &changes, |old, new| {
            assert_sound(new);
            let judge = Judge::new(new.nodes(), new.partitions(), new.replicas());
            let needed = judge.least_moves(old, judge.peak(new), &band(new));
            let moved = diff(old, new).unwrap().seats_moved() as u64;
            assert_eq!(moved, needed);
        });
    }

    #[test]
    fn a_first_layout_is_as_fair_as_can_be((_, list) in clusters::clusters()) {
        // Lexicographic fairness under nested bounds is local: no seat could pass from one node to
        // another that would then still be less loaded than the first was.
        let layout = first(64, 3, nodes(&list));
        let load = layout.load();
        let in_zone = |zone: &str| {
            let of_zone = layout.nodes().iter().filter(|node| node.zone == zone);
            of_zone.map(|node| load[&node.id].seats).sum::<u32>()
        };
        for from in layout.nodes() {
            for to in layout.nodes() {
                let (has, gets) = (load[&from.id].seats, load[&to.id].seats);
                let worth = u64::from(gets + 1) * u64::from(from.weight)
                    < u64::from(has) * u64::from(to.weight);
                // Between zones a seat passes only where no bound of either stands in the way; with three
                // copies in one to three zones that means two zones of which neither is at a bound.
                let (a, b) = (in_zone(&from.zone), in_zone(&to.zone));
                let pass = from.zone == to.zone || (a % 64 != 0 && b % 64 != 0);
                prop_assert!(!(worth && pass && gets < 64), "{} to {}", from.name, to.name);
            }
        }
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(
        (list, changes) in histories(2),
        turn in any::<usize>(),
    ) {
        let turned = |mut nodes: Vec<NodeSpec>| {
            let by = turn % nodes.len();
            nodes.rotate_left(by);
            nodes.reverse();
            nodes
        };
        let layout = first(64, 3, nodes(&list));
        prop_assert_eq!(layout.digest(), first(64, 3, turned(nodes(&list))).digest());
        follow(layout, &changes, |old, new| {
            let again = old.next(turned(new.nodes().to_vec())).unwrap();
            assert_eq!(&again, new);
            assert_eq!(again.digest(), new.digest());
        });
    }

    #[test]
    fn who_stays_keeps_the_order(
        weights in prop::collection::vec(1_u32..20, 3..=12),
        changes in clusters::changes(1, 4),
    ) {
        let list: Vec<(u32, u8)> = weights.into_iter().map(|weight| (weight, 0)).collect();
        follow(first(64, 3, nodes(&list)), &changes, |old, new| {
            for p in (0..64).map(Partition) {
                let after: Vec<NodeId> = new.seats(p, "eu").collect();
                let before: Vec<NodeId> = old.seats(p, "eu").collect();
                let stay = |list: &[NodeId], other: &[NodeId]| -> Vec<NodeId> {
                    list.iter().copied().filter(|id| other.contains(id)).collect()
                };
                assert_eq!(stay(&before, &after), stay(&after, &before));
            }
        });
    }
}

#[test]
fn nothing_moves_if_nothing_changes() {
    let layout = first(
        256,
        3,
        nodes(&[(3, 0), (1, 0), (4, 1), (1, 1), (5, 2), (9, 2)]),
    );
    let next = layout.next(layout.nodes().to_vec()).unwrap();
    assert_eq!(next.version(), 2);
    assert_eq!(diff(&layout, &next).unwrap().seats_moved(), 0);
    for p in (0..256).map(Partition) {
        assert!(layout.seats(p, "eu").eq(next.seats(p, "eu")));
    }
}

#[test]
fn a_newcomer_takes_its_share_of_every_place_and_partition() {
    let four = nodes(&[(1, 0); 4]);
    let layout = first(256, 3, four.clone());
    let mut five = four;
    five.push(node(9, 1, "eu", "eu-0"));
    let next = layout.next(five).unwrap();

    // 768 seats over five nodes are 153.6 each.
    let moved = diff(&layout, &next).unwrap();
    assert!(
        (152..=154).contains(&moved.seats_moved()),
        "{}",
        moved.seats_moved()
    );
    assert!(moved.moves.iter().all(|change| change.gains == [NodeId(9)]));
    let load = next.load();
    for node in next.nodes() {
        let load = load[&node.id];
        assert!((48..=55).contains(&load.firsts), "{}: {load:?}", node.name);
    }
}

#[test]
fn a_replacement_of_equal_weight_takes_the_seats_of_whom_it_replaces() {
    let layout = first(
        256,
        3,
        nodes(&[(2, 0), (1, 0), (1, 1), (2, 1), (2, 2), (1, 2)]),
    );
    let mut changed = layout.nodes().to_vec();
    changed[3].id = NodeId(77);
    changed[3].name = "fresh".into();
    let next = layout.next(changed).unwrap();
    for p in (0..256).map(Partition) {
        let renamed = |id| if id == NodeId(4) { NodeId(77) } else { id };
        assert!(layout.seats(p, "eu").map(renamed).eq(next.seats(p, "eu")));
    }
}

#[test]
fn regions_are_dealt_independently() {
    let eu = nodes(&[(1, 0), (2, 1), (3, 2), (1, 2)]);
    let alone = first(128, 3, eu.clone());
    let us = |id, weight| node(id, weight, "us", "us-a");
    let both: Vec<NodeSpec> = eu.into_iter().chain([us(50, 3), us(51, 1)]).collect();
    let layout = first(128, 3, both.clone());
    for p in (0..128).map(Partition) {
        assert!(layout.seats(p, "eu").eq(alone.seats(p, "eu")));
        assert_eq!(layout.seats(p, "us").count(), 2);
        assert_eq!(layout.seats(p, "ap").count(), 0);
    }

    // A third node in one region completes its lists and leaves the other region alone.
    let next = layout
        .next(both.into_iter().chain([us(52, 9)]).collect())
        .unwrap();
    let moved = diff(&layout, &next).unwrap();
    assert_eq!(moved.moves.len(), 128);
    for change in moved.moves {
        assert_eq!((change.gains, change.losses), (vec![NodeId(52)], vec![]));
    }
}

#[test]
fn layouts_of_different_clusters_are_not_compared() {
    let layout = first(64, 3, nodes(&[(1, 0); 3]));
    let other = first(32, 3, nodes(&[(1, 0); 3]));
    let refused = diff(&layout, &other).unwrap_err().to_string();
    assert!(refused.contains("(64 partitions)"), "{refused}");
}

#[test]
fn the_greatest_weights_and_the_least_cluster_are_dealt() {
    let layout = first(1, 32, nodes(&[(u32::MAX, 0), (1, 1)]));
    assert_eq!(layout.partition_of("b", b"k"), Partition(0));
    assert_eq!(layout.seats(Partition(0), "eu").count(), 2);
    let layout = first(4096, 2, nodes(&[(u32::MAX, 0), (u32::MAX, 0), (1, 0)]));
    assert_eq!(layout.load()[&NodeId(3)].seats, 0);
}
