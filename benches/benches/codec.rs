//! What the words between nodes and clients cost in bytes: each request is encoded and decoded once on each of its ways.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_protocol::{
    Answer, BucketId, Get, Header, Merge, Message, Options, Put, Read, ReplicaReply,
    ReplicaRequest, Request, RequestId, Shown, Value, VnodeId, decode_value, encode_value,
};
use quorate_ring::{Partition, ReplicaSetId};

/// The value of the design's figures.
const VALUE_BYTES: usize = 1024;
/// Of a context with one dot.
const CONTEXT_BYTES: usize = 60;

fn messages() -> Vec<(&'static str, Message)> {
    let id = RequestId(123_456);
    let header = Header {
        layout_version: 3,
        deadline_ms: 4_987,
        ..Header::default()
    };
    let (bucket, key) = ("carts".to_owned(), "a key of usual length".to_owned());
    let value = Value::new(vec![b'x'; VALUE_BYTES]);
    let context = Bytes::from(vec![7; CONTEXT_BYTES]);
    let vnode = VnodeId {
        partition: Partition(77),
        set: ReplicaSetId(9_876_543_210),
    };
    let put = Put {
        bucket: bucket.clone(),
        key: key.clone(),
        value: value.clone(),
        context: Some(context.clone()),
        condition: None,
        options: Options::default(),
        lifetime: None,
    };
    let get = Get {
        bucket,
        key: key.clone(),
        options: Options::default(),
    };
    let merge = Merge {
        vnode,
        bucket: BucketId::new("carts", 0),
        key: key.clone().into(),
        record: vec![b'r'; VALUE_BYTES + 100].into(),
        durable: false,
        hint_for: None,
    };
    let read = Read {
        vnode,
        bucket: BucketId::new("carts", 0),
        key: key.into(),
        digest_only: true,
        hinted: false,
    };
    let found = Answer::Found {
        siblings: vec![Shown {
            value,
            dot: "0123456789abcdef0123456789abcdef:42".to_owned(),
            expires_ms: None,
        }],
        context: context.clone(),
    };
    let replica = |request| Message::Replica(id, header.clone(), request);
    vec![
        (
            "put",
            Message::Request(id, header.clone(), Request::Put(put)),
        ),
        (
            "get",
            Message::Request(id, header.clone(), Request::Get(get)),
        ),
        ("stored", Message::Answer(id, Answer::Stored { context })),
        ("found", Message::Answer(id, found)),
        ("merge", replica(ReplicaRequest::Merge(merge))),
        (
            "merged",
            Message::Reply(id, ReplicaReply::Merged { synced: true }),
        ),
        ("digest-read", replica(ReplicaRequest::Read(read))),
        ("digest", Message::Reply(id, ReplicaReply::Digest([3; 16]))),
    ]
}

fn codec(c: &mut Criterion) {
    for (name, message) in messages() {
        let encoded = message.encode();
        let mut group = c.benchmark_group(format!("codec/{name}"));
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function("encode", |b| b.iter(|| black_box(&message).encode()));
        group.bench_function("decode", |b| {
            b.iter(|| Message::decode(black_box(&encoded)).expect("sound"))
        });
        group.finish();
    }
}

fn stored_values(c: &mut Criterion) {
    let value = Value::new(vec![b'x'; VALUE_BYTES]);
    let encoded = encode_value(&value);
    let mut group = c.benchmark_group("stored-value");
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function("encode", |b| b.iter(|| encode_value(black_box(&value))));
    group.bench_function("decode", |b| {
        b.iter(|| decode_value(black_box(&encoded)).expect("sound"))
    });
    group.finish();
}

criterion_group!(benches, codec, stored_values);
criterion_main!(benches);
