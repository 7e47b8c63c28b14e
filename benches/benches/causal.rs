//! What a record costs: every put and every replica's answer merges, encodes and decodes one.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use quorate_causal::{Actor, Context, ContextKey, Dot, Record, Sibling, Span};

/// The value of the design's figures.
const VALUE_BYTES: usize = 1024;

/// A write of the actor's `counter`-th dot, when its last one on the same key was `after`.
fn written(context: &Context, actor: u128, after: u64, counter: u64) -> Record {
    let dot = Dot {
        actor: Actor(actor),
        counter,
    };
    let payload = Bytes::from(vec![b'x'; VALUE_BYTES]);
    Record::of_write(
        context,
        Some(Sibling {
            span: Span { dot, after },
            payload,
            expires: None,
        }),
    )
}

/// A key after a life of ordinary puts by three coordinators, each with the context of what was there, and at the end
/// `siblings` concurrent ones.
fn record(siblings: u64) -> Record {
    let mut record = Record::new();
    let mut last = [0; 3];
    let mut put = |record: &mut Record, context: &Context, turn: u64| {
        let actor = (turn % 3) as usize;
        // Between two puts of a key its vnode serves others.
        let counter = last[actor] + 7;
        record.merge(&written(context, actor as u128, last[actor], counter));
        last[actor] = counter;
    };
    for turn in 0..30 {
        let read = record.context();
        put(&mut record, &read, turn);
    }
    let read = record.context();
    for sibling in 0..siblings {
        put(&mut record, &read, sibling);
    }
    record
}

fn records(c: &mut Criterion) {
    for siblings in [1, 8] {
        let held = record(siblings);
        let written = written(&held.context(), 9, 0, 1_000_000);
        let encoded = held.encode();
        let mut group = c.benchmark_group(format!("record/{siblings}-siblings"));
        group.bench_function("merge", |b| {
            b.iter_batched_ref(
                || held.clone(),
                |record| record.merge(black_box(&written)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("merge-of-what-is-known", |b| {
            b.iter_batched_ref(
                || held.clone(),
                |record| record.merge(black_box(&held)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("encode", |b| b.iter(|| black_box(&held).encode()));
        group.bench_function("decode", |b| {
            b.iter(|| Record::decode(black_box(&encoded)).expect("sound"))
        });
        group.bench_function("digest-of-encoded", |b| {
            b.iter(|| Record::digest_of(black_box(&encoded), 0).expect("sound"));
        });
        group.finish();
    }
}

fn contexts(c: &mut Criterion) {
    let key = ContextKey::new(&[7; 32]);
    let context = record(3).context();
    let sealed = key.seal("bucket", b"a key of usual length", &context);
    let mut group = c.benchmark_group("context/3-dots");
    group.bench_function("seal", |b| {
        b.iter(|| key.seal("bucket", b"a key of usual length", black_box(&context)))
    });
    group.bench_function("open", |b| {
        b.iter(|| {
            key.open("bucket", b"a key of usual length", black_box(&sealed))
                .expect("sound")
        });
    });
    group.finish();
}

criterion_group!(benches, records, contexts);
criterion_main!(benches);
