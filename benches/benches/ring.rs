//! What finding a key's replicas costs, on each request, and what making a layout costs, once in its life.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec, ReplicaSet};

fn nodes(count: u64) -> Vec<NodeSpec> {
    let node = |id: u64| NodeSpec {
        id: NodeId(id),
        name: format!("node-{id}"),
        region: "local".to_owned(),
        zone: format!("zone-{}", id % 3),
        weight: 1 + (id % 3) as u32,
        quic: format!("127.0.0.1:{}", 7400 + id),
        http: format!("127.0.0.1:{}", 7400 + id),
    };
    (1..=count).map(node).collect()
}

fn lookups(c: &mut Criterion) {
    let set = ReplicaSet::new(3, None).expect("a replica set");
    for count in [3, 12, 100] {
        let layout = Layout::first(ClusterId(1), LayoutSpec::new(nodes(count))).expect("a layout");
        let mut group = c.benchmark_group(format!("ring/{count}-nodes"));
        group.bench_function("partition-of", |b| {
            b.iter(|| {
                layout.partition_of(black_box("bucket"), black_box(b"a key of usual length"))
            });
        });
        let partition = layout.partition_of("bucket", b"a key of usual length");
        group.bench_function("preference", |b| {
            b.iter(|| layout.preference(black_box(partition), &set))
        });
        group.finish();
    }
}

fn layouts(c: &mut Criterion) {
    let mut group = c.benchmark_group("layout/12-nodes");
    group.sample_size(20);
    let first = || Layout::first(ClusterId(1), LayoutSpec::new(nodes(12))).expect("a layout");
    group.bench_function("first", |b| b.iter(first));
    let layout = first();
    group.bench_function("a-node-joins", |b| {
        b.iter(|| layout.next(nodes(13)).expect("a layout"))
    });
    group.finish();
}

criterion_group!(benches, lookups, layouts);
criterion_main!(benches);
