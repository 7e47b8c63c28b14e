//! What replicas say to each other for the sake of what both hold: one of each shape, and arbitrary ones.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_protocol::*;
use quorate_ring::{Partition, ReplicaSetId};

use super::bytes;

fn vnode() -> impl Strategy<Value = VnodeId> {
    any::<(u16, u64)>().prop_map(|(partition, set)| VnodeId {
        partition: Partition(partition),
        set: ReplicaSetId(set),
    })
}

fn bucket() -> impl Strategy<Value = BucketId> {
    any::<[u8; 16]>().prop_map(BucketId)
}

/// Dots, each as actor and counter.
pub(crate) fn dots() -> impl Strategy<Value = Vec<(u128, u64)>> {
    vec(any::<(u128, u64)>(), 0..4)
}

fn removal() -> impl Strategy<Value = Removal> {
    (bucket(), bytes(), bytes()).prop_map(|(bucket, key, dots)| Removal { bucket, key, dots })
}

fn removals() -> impl Strategy<Value = Removals> {
    (vnode(), vec(removal(), 0..3)).prop_map(|(vnode, keys)| Removals { vnode, keys })
}

fn record() -> impl Strategy<Value = KeyRecord> {
    (bucket(), bytes(), bytes()).prop_map(|(bucket, key, record)| KeyRecord {
        bucket,
        key,
        record,
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    prop_oneof![
        Just(Vote::Live),
        Just(Vote::LiveUnsure),
        Just(Vote::Removed),
        Just(Vote::Lacks),
        Just(Vote::Abstain),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let key = (bucket(), bytes(), any::<[u8; 16]>()).prop_map(|(bucket, key, digest)| KeyDigest {
        bucket,
        key,
        digest,
    });
    prop_oneof![
        vec(any::<(u8, u128)>(), 0..4).prop_map(Part::Sums),
        vec(key, 0..3).prop_map(Part::Keys),
    ]
}

/// Anything that exchanges may have come to.
pub(crate) fn repaired() -> BoxedStrategy<Repaired> {
    (any::<(u64, u64, u64, u64, u64)>(), vec("[a-z]{0,8}", 0..3))
        .prop_map(
            |((exchanges, broken, keys, rounds, bytes), unfinished)| Repaired {
                exchanges,
                broken,
                keys,
                rounds,
                bytes,
                unfinished,
            },
        )
        .boxed()
}

/// What some exchanges came to.
pub(crate) fn some_repaired() -> Repaired {
    Repaired {
        exchanges: 2,
        broken: 1,
        keys: 300,
        rounds: 9,
        bytes: 1 << 20,
        unfinished: vec!["why".to_owned()],
    }
}

/// Anything that one replica may ask.
pub(crate) fn request() -> BoxedStrategy<Upkeep> {
    prop_oneof![
        any::<(u128, u64, u64, u64)>().prop_map(|(open, base, number, layouts)| Upkeep::Hello(
            Hello {
                open,
                base,
                number,
                layouts
            }
        )),
        (vnode(), any::<bool>()).prop_map(|(vnode, seen)| Upkeep::Root(RootAsked { vnode, seen })),
        (vnode(), vec(any::<(u64, u8)>(), 0..4))
            .prop_map(|(vnode, ranges)| Upkeep::Parts(PartsAsked { vnode, ranges })),
        (vnode(), option::of(bytes()))
            .prop_map(|(vnode, from)| Upkeep::Evidence(EvidenceAsked { vnode, from })),
        (vnode(), vec(record(), 0..3))
            .prop_map(|(vnode, records)| Upkeep::Reconcile(Reconcile { vnode, records })),
        (vnode(), bucket(), bytes(), dots()).prop_map(|(vnode, bucket, key, dots)| {
            Upkeep::Testify(Testify {
                vnode,
                bucket,
                key,
                dots,
            })
        }),
        removals().prop_map(Upkeep::Confirm),
        removals().prop_map(Upkeep::Forget),
        vnode().prop_map(Upkeep::Repair),
    ]
    .boxed()
}

/// Anything that one replica may say to that.
pub(crate) fn reply() -> BoxedStrategy<UpkeepReply> {
    prop_oneof![
        any::<u64>().prop_map(UpkeepReply::Known),
        (any::<u128>(), option::of(bytes())).prop_map(|(sum, clock)| UpkeepReply::Root(sum, clock)),
        vec(part(), 0..3).prop_map(UpkeepReply::Parts),
        (vec(removal(), 0..3), option::of(bytes()))
            .prop_map(|(removals, from)| UpkeepReply::Evidence(removals, from)),
        vec(bytes(), 0..3).prop_map(UpkeepReply::Records),
        (vec(vote(), 0..5), bytes())
            .prop_map(|(votes, record)| UpkeepReply::Testimony(Testimony { votes, record })),
        vec(bytes(), 0..3).prop_map(UpkeepReply::Confirmed),
        Just(UpkeepReply::Forgotten),
        repaired().prop_map(UpkeepReply::Repaired),
    ]
    .boxed()
}

const VNODE: VnodeId = VnodeId {
    partition: Partition(255),
    set: ReplicaSetId(0x0123_4567_89ab_cdef),
};
const BUCKET: BucketId = BucketId([0xb0; 16]);
const KEY: Bytes = Bytes::from_static(b"ann");

fn some_removal() -> Removal {
    Removal {
        bucket: BUCKET,
        key: KEY,
        dots: Bytes::from_static(&[1, 2, 3]),
    }
}

/// One question of each kind, with a name.
pub(crate) fn requests() -> [(&'static str, Upkeep); 11] {
    let removals = || Removals {
        vnode: VNODE,
        keys: vec![some_removal()],
    };
    let record = |record: &'static [u8]| KeyRecord {
        bucket: BUCKET,
        key: KEY,
        record: Bytes::from_static(record),
    };
    [
        (
            "upkeep-hello",
            Upkeep::Hello(Hello {
                open: u128::MAX - 1,
                base: 1_000,
                number: 1_024,
                layouts: 0x0123_4567_89ab_cdef,
            }),
        ),
        (
            "upkeep-root",
            Upkeep::Root(RootAsked {
                vnode: VNODE,
                seen: true,
            }),
        ),
        (
            "upkeep-parts",
            Upkeep::Parts(PartsAsked {
                vnode: VNODE,
                ranges: vec![(0, 0), (0xab << 56, 1)],
            }),
        ),
        (
            "upkeep-evidence",
            Upkeep::Evidence(EvidenceAsked {
                vnode: VNODE,
                from: None,
            }),
        ),
        (
            "upkeep-evidence-on",
            Upkeep::Evidence(EvidenceAsked {
                vnode: VNODE,
                from: Some(KEY),
            }),
        ),
        (
            "upkeep-reconcile",
            Upkeep::Reconcile(Reconcile {
                vnode: VNODE,
                records: vec![record(&[1, 0, 0]), record(&[])],
            }),
        ),
        (
            "upkeep-testify",
            Upkeep::Testify(Testify {
                vnode: VNODE,
                bucket: BUCKET,
                key: KEY,
                dots: vec![(0x2a, 7)],
            }),
        ),
        ("upkeep-repair", Upkeep::Repair(VNODE)),
        ("upkeep-confirm", Upkeep::Confirm(removals())),
        ("upkeep-forget", Upkeep::Forget(removals())),
        (
            "upkeep-forget-none",
            Upkeep::Forget(Removals {
                vnode: VNODE,
                keys: Vec::new(),
            }),
        ),
    ]
}

/// One reply of each kind, with a name.
pub(crate) fn replies() -> [(&'static str, UpkeepReply); 11] {
    let some = Bytes::from_static(&[1, 0, 0]);
    [
        ("upkeep-known", UpkeepReply::Known(1_024)),
        (
            "upkeep-root",
            UpkeepReply::Root(u128::MAX, Some(some.clone())),
        ),
        ("upkeep-root-same", UpkeepReply::Root(0, None)),
        (
            "upkeep-parts",
            UpkeepReply::Parts(vec![
                Part::Sums(vec![(0xcd, u128::MAX)]),
                Part::Keys(vec![KeyDigest {
                    bucket: BUCKET,
                    key: KEY,
                    digest: [0xd1; 16],
                }]),
            ]),
        ),
        (
            "upkeep-evidence",
            UpkeepReply::Evidence(vec![some_removal()], Some(KEY)),
        ),
        (
            "upkeep-evidence-end",
            UpkeepReply::Evidence(Vec::new(), None),
        ),
        (
            "upkeep-records",
            UpkeepReply::Records(vec![some.clone(), Bytes::new()]),
        ),
        (
            "upkeep-testimony",
            UpkeepReply::Testimony(Testimony {
                votes: vec![
                    Vote::Live,
                    Vote::LiveUnsure,
                    Vote::Removed,
                    Vote::Lacks,
                    Vote::Abstain,
                ],
                record: some.clone(),
            }),
        ),
        ("upkeep-confirmed", UpkeepReply::Confirmed(vec![some])),
        ("upkeep-forgotten", UpkeepReply::Forgotten),
        ("upkeep-repaired", UpkeepReply::Repaired(some_repaired())),
    ]
}
