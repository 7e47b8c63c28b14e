//! What a vnode's clock costs: each write adds a dot to it, and a repaired node joins that of another.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use quorate_causal::{Actor, Dot, DotSet, Runs, Span};

/// The coordinators of a key's three primaries.
const ACTORS: u128 = 3;

/// A clock with so many holes for each actor, as crashes leave them: runs of nine dots, one missing.
fn clock(holes: u64) -> DotSet {
    let mut clock = DotSet::new();
    for actor in 0..ACTORS {
        for hole in 0..=holes {
            clock.insert_run(Actor(actor), hole * 10 + 1, hole * 10 + 9);
        }
    }
    clock
}

fn clocks(c: &mut Criterion) {
    for holes in [0, 10, 1000] {
        let held = clock(holes);
        let last = held
            .runs(Actor(1))
            .and_then(Runs::max)
            .expect("it has dots");
        let dot = |counter| Dot {
            actor: Actor(1),
            counter,
        };
        let mut group = c.benchmark_group(format!("clock/{holes}-holes"));
        // In one clock that grows, so that nothing but the insertion is measured.
        group.bench_function("insert-next", |b| {
            let mut clock = held.clone();
            let mut counter = last;
            b.iter(|| {
                counter += 1;
                clock.insert(black_box(dot(counter)))
            });
        });
        group.bench_function("contains", |b| {
            b.iter(|| black_box(&held).contains(black_box(dot(last / 2))))
        });
        // A row of the store is one actor's.
        let row = held.runs(Actor(1)).expect("it has dots");
        let encoded = row.encode();
        group.bench_function("encode-row", |b| b.iter(|| black_box(row).encode()));
        group.bench_function("decode-row", |b| {
            b.iter(|| Runs::decode(black_box(&encoded)).expect("sound"))
        });
        let mut ahead = held.clone();
        ahead.insert_run(Actor(2), last + 1, last + 100);
        group.bench_function("join-of-one-that-is-ahead", |b| {
            b.iter_batched_ref(
                || held.clone(),
                |clock| clock.join(black_box(&ahead)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("covers", |b| {
            b.iter(|| black_box(&ahead).covers(black_box(&held)))
        });
        group.finish();
    }
}

/// Stretches of one actor on one key, each reaching back to the one before: they melt into one run.
fn stretches(c: &mut Criterion) {
    c.bench_function("clock/stretch-that-melts", |b| {
        let mut evidence = DotSet::new();
        let mut counter = 0;
        b.iter(|| {
            let after = counter;
            counter += 7;
            let dot = Dot {
                actor: Actor(1),
                counter,
            };
            evidence.insert_span(black_box(Span { dot, after }))
        });
    });
}

criterion_group!(benches, clocks, stretches);
criterion_main!(benches);
