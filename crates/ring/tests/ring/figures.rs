//! The figures of the targets at the default size: 256 partitions, 3 to 12 nodes, 1 to 3 zones.
//!
//! Not run by default, as the judge is slow and times mean nothing unoptimised:
//! `cargo test --release -p quorate-ring --test ring figures -- --ignored --nocapture`

use crate::clusters::{clusters, first, histories, node, nodes};
use crate::judge::Judge;
use crate::placement::{band, follow};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use quorate_ring::{Layout, Partition, diff};
use std::collections::BTreeMap;
use std::time::Duration;

fn samples<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).expect("a sample").current())
        .collect()
}

fn show(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: median {:.3}, p99 {:.3}, max {:.3} ({} samples)",
        at(0.5),
        at(0.99),
        at(1.0),
        values.len()
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time it takes is what is measured"
)]
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = run();
    (result, start.elapsed())
}

/// The greatest part of the first places that a node has beyond its part of all seats, relative to that.
fn lead_excess(layout: &Layout) -> f64 {
    let copies = layout.seats(Partition(0), "eu").count() as f64;
    let loads = layout.load().into_values();
    loads
        .filter(|load| load.seats >= 30)
        .map(|load| f64::from(load.firsts) * copies / f64::from(load.seats))
        .fold(1.0, f64::max)
}

#[test]
#[ignore = "figures, to be run optimised"]
fn balance_and_movement() {
    let (mut peaks, mut moves, mut loose, mut tolerant) = (vec![], vec![], vec![], vec![]);
    let (mut lead_first, mut lead_next, mut twice) = (vec![], vec![], vec![]);
    let (mut moved_all, mut needed_all) = (0, 0);
    for (list, changes) in samples(histories(4), 120) {
        let layout = first(256, 3, nodes(&list));
        let judge = Judge::new(layout.nodes(), 256, 3);
        judge.assert_lists(&layout);
        peaks.push(judge.peak(&layout).value() / judge.peak_bound().value());
        lead_first.push(lead_excess(&layout));
        follow(layout, &changes, |old, new| {
            let judge = Judge::new(new.nodes(), 256, 3);
            judge.assert_lists(new);
            let bound = judge.peak_bound();
            peaks.push(judge.peak(new).value() / bound.value());
            lead_next.push(lead_excess(new));
            let moved = diff(old, new).unwrap();
            let changes = moved.moves.iter().map(|change| change.gains.len());
            twice.push(changes.max().unwrap_or(0) as f64);
            let moved = moved.seats_moved() as u64;
            let ratio = |needed: u64| (moved.max(1) as f64) / (needed.max(1) as f64);
            let needed = judge.least_moves(old, bound, &band(new));
            moved_all += moved;
            needed_all += needed;
            moves.push(ratio(needed));
            // Against what only keeps the peak, at its best and 5 % above it: such a placement may leave
            // a newcomer empty wherever it is not the newcomer that sets the peak.
            let none: BTreeMap<_, _> = new.nodes().iter().map(|n| (n.id, (0, u64::MAX))).collect();
            loose.push(ratio(judge.least_moves(old, bound, &none)));
            let mut above = bound;
            (above.seats, above.weight) = (bound.seats * 105, bound.weight * 100);
            tolerant.push(ratio(judge.least_moves(old, above, &none)));
        });
    }
    show("peak over flow bound", peaks);
    show("moved over least with fair shares", moves);
    println!("moved in all {moved_all}, least {needed_all}");
    show("moved over least for the best peak alone", loose);
    show("moved over least for 1.05 of the best peak alone", tolerant);
    show("most seats changed in one partition", twice);
    show("first places over a node's part, first layouts", lead_first);
    show("first places over a node's part, after changes", lead_next);
}

#[test]
#[ignore = "figures, to be run optimised"]
fn long_histories() {
    let mut lead = vec![];
    for (list, changes) in samples(histories(60), 60) {
        let last = follow(first(256, 3, nodes(&list)), &changes, |_, _| ());
        lead.push(lead_excess(&last));
    }
    show("first places over a node's part, up to 60 changes", lead);
}

#[test]
#[ignore = "figures, to be run optimised"]
fn time() {
    let (mut made, mut followed, mut preferred) = (vec![], vec![], vec![]);
    for (zones, mut list) in samples(clusters(), 200) {
        while list.len() < 12 {
            list.push((1 + list.len() as u32, list.len() as u8 % zones));
        }
        let (layout, took) = timed(|| first(256, 3, nodes(&list)));
        made.push(took.as_secs_f64() * 1e3);
        let mut fewer = layout.nodes().to_vec();
        fewer.remove(list[0].0 as usize % 12);
        let (smaller, took) = timed(|| layout.next(fewer).unwrap());
        followed.push(took.as_secs_f64() * 1e3);
        let (_, took) = timed(|| smaller.next(layout.nodes().to_vec()).unwrap());
        followed.push(took.as_secs_f64() * 1e3);
        let set = quorate_ring::ReplicaSet::new(3, None).unwrap();
        let (_, took) = timed(|| {
            for p in (0..256).map(Partition) {
                std::hint::black_box(layout.preference(p, &set));
            }
        });
        preferred.push(took.as_secs_f64() * 1e6 / 256.0);
    }
    show("first, 12 nodes, milliseconds", made);
    show("next, 12 nodes, milliseconds", followed);
    show("preference, 12 nodes, microseconds", preferred);

    let large = (1..=100).map(|id| node(id, 1 + id as u32 % 7, "eu", &format!("z{}", id % 5)));
    let large: Vec<_> = large.collect();
    let (layout, took) = timed(|| first(4096, 3, large.clone()));
    println!("first, 100 nodes, 4096 partitions: {took:?}");
    let (_, took) = timed(|| layout.next(large[1..].to_vec()).unwrap());
    println!("next, 99 of 100 nodes, 4096 partitions: {took:?}");
}
