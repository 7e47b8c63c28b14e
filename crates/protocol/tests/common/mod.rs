//! Messages for the tests of this crate: one of each shape, and arbitrary ones.
//!
//! The strategies are boxed, as their values would else be trees of enums on the stack, more than a test's thread has.

// Each test binary takes what it needs.
#![allow(dead_code)]

mod layouts;
mod upkeep;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_protocol::*;
use quorate_ring::{NodeId, Partition, ReplicaSetId};

fn request_id() -> impl Strategy<Value = RequestId> {
    any::<u64>().prop_map(RequestId)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    // Lengths around which MessagePack changes its form: 31/32 and 255/256 (and 65,535/65,536 in a test of its own).
    let long = (254..258usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    prop_oneof![8 => vec(any::<u8>(), 0..36), 1 => long].prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => ".{0,12}", 1 => "[a-z]{30,34}"]
}

fn header() -> BoxedStrategy<Header> {
    let trace =
        (any::<u128>(), any::<u64>(), any::<u8>()).prop_map(|(trace_id, span_id, flags)| Trace {
            trace_id,
            span_id,
            flags,
        });
    (
        any::<u64>(),
        any::<u32>(),
        any::<bool>(),
        option::of(trace),
        option::of(text()),
        option::of(any::<u128>()),
    )
        .prop_map(
            |(layout_version, deadline_ms, forwarded, trace, principal, op_id)| Header {
                layout_version,
                deadline_ms,
                forwarded,
                trace,
                principal,
                op_id,
            },
        )
        .boxed()
}

pub(crate) fn quorum() -> impl Strategy<Value = Quorum> {
    prop_oneof![
        (0..=QUORUM_COUNT_MAX).prop_map(Quorum::Count),
        Just(Quorum::Majority),
        Just(Quorum::All),
        Just(Quorum::Local),
        Just(Quorum::Each),
    ]
}

fn options() -> BoxedStrategy<Options> {
    let quorum = || option::of(quorum());
    (
        quorum(),
        quorum(),
        quorum(),
        quorum(),
        quorum(),
        option::of(any::<bool>()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(r, w, pr, pw, dw, sloppy, return_body, explain)| Options {
            r,
            w,
            pr,
            pw,
            dw,
            sloppy,
            return_body,
            explain,
        })
        .boxed()
}

pub(crate) fn value() -> BoxedStrategy<Value> {
    (bytes(), option::of(text()), vec((text(), text()), 0..3))
        .prop_map(|(data, content_type, meta)| Value {
            data,
            content_type,
            meta,
        })
        .boxed()
}

fn condition() -> BoxedStrategy<Condition> {
    prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        vec(text(), 0..3).prop_map(Condition::Dots),
    ]
    .boxed()
}

fn lifetime() -> BoxedStrategy<Lifetime> {
    prop_oneof![
        Just(Lifetime::Unlimited),
        any::<u64>().prop_map(Lifetime::Ms),
        any::<u64>().prop_map(Lifetime::Until),
    ]
    .boxed()
}

fn entry() -> BoxedStrategy<BucketEntry> {
    let properties = (
        option::of(any::<u8>()),
        option::of(vec(text(), 0..3)),
        option::of(quorum()),
        option::of(any::<u32>()),
        option::of(any::<u64>()),
    )
        .prop_map(|(n, regions, r, max_siblings, ttl_ms)| Properties {
            n,
            regions,
            r,
            max_siblings,
            ttl_ms,
            ..Properties::default()
        });
    (text(), any::<u32>(), any::<u64>(), option::of(properties))
        .prop_map(|(name, generation, version, properties)| BucketEntry {
            name,
            generation,
            version,
            properties,
        })
        .boxed()
}

fn changes() -> BoxedStrategy<PropertyChanges> {
    (
        option::of(any::<u8>()),
        option::of(quorum()),
        option::of(quorum()),
        option::of(any::<u32>()),
        option::of(lifetime()),
    )
        .prop_map(|(n, w, pw, max_siblings, ttl)| PropertyChanges {
            n,
            w,
            pw,
            max_siblings,
            ttl,
            ..PropertyChanges::default()
        })
        .boxed()
}

fn description() -> BoxedStrategy<BucketDescription> {
    (
        text(),
        any::<(u32, u64, bool, u8, u32)>(),
        quorum(),
        quorum(),
    )
        .prop_map(
            |(name, (generation, version, created, n, max_siblings), r, w)| BucketDescription {
                name,
                generation,
                version,
                created,
                kind: BucketKind::Register,
                n,
                regions: None,
                r,
                w,
                pr: w,
                pw: r,
                dw: w,
                max_siblings,
                ttl_ms: created.then_some(version),
                sloppy: created,
            },
        )
        .boxed()
}

fn status() -> BoxedStrategy<NodeStatus> {
    (
        text(),
        any::<(u64, u64, u64, u64)>(),
        option::of(text()),
        vec(text(), 0..3),
    )
        .prop_map(
            |(name, (id, records, disk_bytes, in_flight), not_ready, unreachable)| NodeStatus {
                id,
                name,
                records,
                disk_bytes,
                in_flight,
                not_ready,
                hints: unreachable
                    .iter()
                    .map(|node| PendingHints {
                        node: node.clone(),
                        count: records,
                        bytes: disk_bytes,
                    })
                    .collect(),
                unreachable,
                upkeep: UpkeepStatus {
                    exchange_bytes: disk_bytes,
                    refilling: in_flight,
                    ..UpkeepStatus::default()
                },
                ..NodeStatus::default()
            },
        )
        .boxed()
}

fn account() -> BoxedStrategy<Account> {
    (text(), any::<u64>(), vec(text(), 0..3))
        .prop_map(|(node, at_us, dots)| Account {
            coordinator: node.clone(),
            replicas: vec![ReplicaAccount {
                node: node.clone(),
                stands_in_for: Some(node.clone()),
                steps: vec![StepAccount {
                    at_us,
                    dots: dots.clone(),
                    ..StepAccount::default()
                }],
                ..ReplicaAccount::default()
            }],
            repaired: vec![RepairAccount {
                node,
                dots,
                evidence: 1,
            }],
            ..Account::default()
        })
        .boxed()
}

fn request() -> BoxedStrategy<Request> {
    let put = (
        text(),
        text(),
        value(),
        option::of(bytes()),
        option::of(condition()),
        options(),
        option::of(lifetime()),
    )
        .prop_map(
            |(bucket, key, value, context, condition, options, lifetime)| {
                Request::Put(Put {
                    bucket,
                    key,
                    value,
                    context,
                    condition,
                    options,
                    lifetime,
                })
            },
        );
    let get = (text(), text(), options()).prop_map(|(bucket, key, options)| {
        Request::Get(Get {
            bucket,
            key,
            options,
        })
    });
    let delete = (
        text(),
        text(),
        option::of(bytes()),
        option::of(condition()),
        options(),
    )
        .prop_map(|(bucket, key, context, condition, options)| {
            Request::Delete(Delete {
                bucket,
                key,
                context,
                condition,
                options,
            })
        });
    let list = (text(), text(), option::of(text()), any::<u32>(), options()).prop_map(
        |(bucket, prefix, after, limit, options)| {
            Request::List(List {
                bucket,
                prefix,
                after,
                limit,
                options,
            })
        },
    );
    let action = prop_oneof![
        Just(BucketAction::Show),
        changes().prop_map(BucketAction::Create),
        changes().prop_map(BucketAction::Update),
        changes().prop_map(BucketAction::Set),
        Just(BucketAction::Drop),
    ];
    let bucket = (text(), action)
        .prop_map(|(bucket, action)| Request::Bucket(BucketRequest { bucket, action }));
    prop_oneof![
        put,
        get,
        delete,
        list,
        bucket,
        Just(Request::Describe),
        Just(Request::Layouts),
        option::of(any::<u64>()).prop_map(Request::Pace),
        Just(Request::Buckets),
        Just(Request::Status),
        any::<u16>().prop_map(|partition| Request::Repair(Repair { partition })),
        layouts::apply().prop_map(|apply| Request::Apply(Box::new(apply))),
    ]
    .boxed()
}

fn refusal() -> BoxedStrategy<Refusal> {
    prop_oneof![
        text().prop_map(Refusal::Malformed),
        text().prop_map(Refusal::BadContext),
        any::<(u64, u64)>().prop_map(|(size, limit)| Refusal::TooLarge { size, limit }),
        text().prop_map(Refusal::Impossible),
        any::<(u32, u32)>().prop_map(|(count, limit)| Refusal::TooManySiblings { count, limit }),
        any::<(u64, u64)>().prop_map(|(size, limit)| Refusal::SiblingsTooLarge { size, limit }),
        any::<(u32, u32)>()
            .prop_map(|(needed, answered)| Refusal::Unavailable { needed, answered }),
        Just(Refusal::Overloaded),
        Just(Refusal::Draining),
        text().prop_map(Refusal::Poisoned),
        any::<u64>().prop_map(|version| Refusal::WrongLayout { version }),
        text().prop_map(Refusal::Corrupt),
        text().prop_map(Refusal::NotAllowed),
        text().prop_map(Refusal::ConditionFailed),
        text().prop_map(Refusal::Conflict),
        text().prop_map(Refusal::NotFound),
        entry().prop_map(|entry| Refusal::BucketChanged(Box::new(entry))),
        any::<(u64, u64)>().prop_map(|(free, needed)| Refusal::DiskFull { free, needed }),
        any::<(u64, u64)>().prop_map(|(held, limit)| Refusal::HintsFull { held, limit }),
    ]
    .boxed()
}

fn answer() -> BoxedStrategy<Answer> {
    let shown =
        (text(), value(), option::of(any::<u64>())).prop_map(|(dot, value, expires_ms)| Shown {
            dot,
            value,
            expires_ms,
        });
    let unmet = any::<(u32, u32, bool, bool)>().prop_map(
        |(needed, answered, timed_out, may_have_written)| {
            Answer::Unmet(Unmet {
                needed,
                answered,
                timed_out,
                may_have_written,
            })
        },
    );
    prop_oneof![
        bytes().prop_map(|context| Answer::Stored { context }),
        (vec(shown, 0..20), bytes())
            .prop_map(|(siblings, context)| Answer::Found { siblings, context }),
        Just(Answer::Absent),
        Just(Answer::Deleted),
        (text(), bytes())
            .prop_map(|(node, layout)| Answer::Described(Description { node, layout })),
        refusal().prop_map(Answer::Refused),
        unmet,
        (vec(text(), 0..5), option::of(text()))
            .prop_map(|(keys, next)| Answer::Listed(Listing { keys, next })),
        description().prop_map(|bucket| Answer::Bucket(Box::new(bucket))),
        vec(description(), 0..3).prop_map(Answer::Buckets),
        (text(), vec(status(), 0..3), vec(text(), 0..2)).prop_map(|(node, nodes, silent)| {
            Answer::Status(ClusterStatus {
                node,
                nodes,
                silent,
            })
        }),
        upkeep::repaired().prop_map(Answer::Repaired),
        any::<u64>().prop_map(Answer::Applied),
        layouts::pace().prop_map(Answer::Pace),
        layouts::told().prop_map(|told| Answer::Layouts(Box::new(told))),
        (refusal(), account()).prop_map(|(refusal, account)| {
            Answer::Explained(Explained::new(&Answer::Refused(refusal), account))
        }),
    ]
    .boxed()
}

fn replica_request() -> BoxedStrategy<ReplicaRequest> {
    let target = || {
        (any::<(u16, u64)>(), any::<[u8; 16]>(), bytes()).prop_map(
            |((partition, set), bucket, key)| {
                let vnode = VnodeId {
                    partition: Partition(partition),
                    set: ReplicaSetId(set),
                };
                (vnode, BucketId(bucket), key)
            },
        )
    };
    prop_oneof![
        (target(), bytes(), any::<bool>(), option::of(any::<u64>())).prop_map(
            |((vnode, bucket, key), record, durable, owner)| {
                ReplicaRequest::Merge(Merge {
                    vnode,
                    bucket,
                    key,
                    record,
                    durable,
                    hint_for: owner.map(NodeId),
                })
            }
        ),
        (target(), any::<(bool, bool, bool)>()).prop_map(
            |((vnode, bucket, key), (digest_only, strict, hinted))| {
                ReplicaRequest::Read(Read {
                    vnode,
                    bucket,
                    key,
                    digest_only,
                    strict,
                    hinted,
                })
            }
        ),
        (target(), upkeep::dots()).prop_map(|((vnode, bucket, key), dots)| {
            ReplicaRequest::Recall(Recall {
                vnode,
                bucket,
                key,
                dots,
            })
        }),
        (target(), bytes(), bytes(), any::<u32>()).prop_map(
            |((vnode, bucket, partitions), prefix, after, limit)| {
                ReplicaRequest::Scan(Scan {
                    set: vnode.set,
                    bucket,
                    partitions,
                    prefix,
                    after,
                    limit,
                })
            }
        ),
        entry().prop_map(|entry| ReplicaRequest::Bucket(Box::new(entry))),
        any::<u128>().prop_map(|digest| ReplicaRequest::Buckets(BucketsAsked { digest })),
        Just(ReplicaRequest::Status),
        upkeep::request().prop_map(|asked| ReplicaRequest::Upkeep(Box::new(asked))),
        layouts::request().prop_map(|asked| ReplicaRequest::Layout(Box::new(asked))),
    ]
    .boxed()
}

fn reply() -> BoxedStrategy<ReplicaReply> {
    prop_oneof![
        any::<bool>().prop_map(|synced| ReplicaReply::Merged { synced }),
        bytes().prop_map(ReplicaReply::Record),
        any::<[u8; 16]>().prop_map(ReplicaReply::Digest),
        refusal().prop_map(ReplicaReply::Refused),
        (vec((bytes(), any::<u64>()), 0..5), option::of(bytes())).prop_map(|(entries, upto)| {
            let entries = entries.into_iter();
            ReplicaReply::Scanned(Scanned {
                entries: entries
                    .map(|(key, digest)| ScanEntry { key, digest })
                    .collect(),
                upto,
            })
        }),
        entry().prop_map(|entry| ReplicaReply::Bucket(Box::new(entry))),
        option::of(vec(entry(), 0..3)).prop_map(ReplicaReply::Buckets),
        status().prop_map(|status| ReplicaReply::Status(Box::new(status))),
        upkeep::reply().prop_map(|reply| ReplicaReply::Upkeep(Box::new(reply))),
        layouts::reply().prop_map(|reply| ReplicaReply::Layout(Box::new(reply))),
        upkeep::dots().prop_map(ReplicaReply::Gone),
    ]
    .boxed()
}

pub(crate) fn message() -> BoxedStrategy<Message> {
    prop_oneof![
        3 => (request_id(), header(), request()).prop_map(|(id, h, r)| Message::Request(id, h, r)),
        3 => (request_id(), answer()).prop_map(|(id, answer)| Message::Answer(id, answer)),
        2 => (request_id(), header(), replica_request())
            .prop_map(|(id, h, r)| Message::Replica(id, h, r)),
        1 => (request_id(), reply()).prop_map(|(id, reply)| Message::Reply(id, reply)),
    ]
    .boxed()
}

/// A message of every kind and with every variant, each under a name: what the golden bytes are of.
pub(crate) fn specimens() -> Vec<(String, Message)> {
    let id = RequestId(7);
    let options = Options {
        r: Some(Quorum::Count(1)),
        w: Some(Quorum::Majority),
        pr: Some(Quorum::All),
        pw: Some(Quorum::Local),
        dw: Some(Quorum::Each),
        sloppy: Some(false),
        return_body: true,
        explain: true,
    };
    let value = Value {
        data: Bytes::from_static(b"milk"),
        content_type: Some("text/plain".to_owned()),
        meta: vec![("colour".to_owned(), "white".to_owned())],
    };
    let header = Header {
        layout_version: 3,
        deadline_ms: 5_000,
        forwarded: true,
        trace: Some(Trace {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0xb7ad_6b71_6920_3331,
            flags: 1,
        }),
        principal: Some("alice".to_owned()),
        op_id: Some(u128::MAX - 1),
    };
    let text = |text: &str| text.to_owned();
    let context = Bytes::from_static(&[1, 2, 3]);

    let changes = PropertyChanges {
        kind: Some(BucketKind::Register),
        n: Some(3),
        regions: Some(vec![text("eu")]),
        r: Some(Quorum::Count(1)),
        w: Some(Quorum::Majority),
        pr: Some(Quorum::All),
        pw: Some(Quorum::Local),
        dw: Some(Quorum::Each),
        max_siblings: Some(8),
        ttl: Some(Lifetime::Ms(3_600_000)),
        sloppy: Some(true),
    };
    let of_bucket = |action| {
        Request::Bucket(BucketRequest {
            bucket: text("cart"),
            action,
        })
    };
    let entry = BucketEntry {
        generation: 2,
        version: 5,
        properties: Some(Properties {
            kind: BucketKind::Register,
            n: Some(3),
            regions: Some(vec![text("eu")]),
            r: Some(Quorum::Count(1)),
            w: Some(Quorum::Majority),
            pr: Some(Quorum::All),
            pw: Some(Quorum::Local),
            dw: Some(Quorum::Each),
            max_siblings: Some(8),
            ttl_ms: Some(3_600_000),
            sloppy: Some(true),
        }),
        name: text("cart"),
    };
    let described = BucketDescription {
        name: text("cart"),
        generation: 2,
        version: 5,
        created: true,
        kind: BucketKind::Register,
        n: 3,
        regions: Some(vec![text("eu")]),
        r: Quorum::Count(1),
        w: Quorum::Majority,
        pr: Quorum::All,
        pw: Quorum::Local,
        dw: Quorum::Each,
        max_siblings: 64,
        ttl_ms: Some(3_600_000),
        sloppy: true,
    };
    let node_status = NodeStatus {
        id: 1,
        name: text("n1"),
        release: text("0.1.0"),
        uptime_s: 60,
        not_ready: Some(text("why")),
        layout_version: 3,
        records: 1_000,
        disk_bytes: 1 << 20,
        disk_free_bytes: 1 << 30,
        in_flight: 4,
        unreachable: vec![text("n3")],
        clock_s: 1_700_000_000,
        hints: vec![PendingHints {
            node: text("n3"),
            count: 2,
            bytes: 1 << 10,
        }],
        upkeep: UpkeepStatus {
            exchanges: 10,
            exchanges_broken: 1,
            differing_keys: 5,
            exchange_rounds: 30,
            exchange_bytes: 1 << 16,
            evidence_keys: 7,
            keys_judged: 2,
            damaged_keys: 1,
            refilling: 3,
            to_fill: 256,
            filled: 100,
            leftovers: 2,
            unverified: true,
            oldest: Some(OldestExchange {
                partition: 255,
                node: text("n3"),
                seconds: 30,
                never: true,
            }),
        },
    };
    let account = Account {
        coordinator: text("n1"),
        layout_version: 3,
        partition: 255,
        generation: 2,
        needed: vec![text("r=2")],
        replicas: vec![ReplicaAccount {
            node: text("n1"),
            region: text("eu"),
            stands_in_for: Some(text("n3")),
            up: true,
            steps: vec![StepAccount {
                at_us: 12,
                what: text("record"),
                dots: vec![text("0000002a:7")],
                evidence: 1,
            }],
        }],
        repaired: vec![RepairAccount {
            node: text("n2"),
            dots: vec![text("0000002a:7")],
            evidence: 1,
        }],
        siblings: vec![text("why")],
        elapsed_us: 250,
    };
    let requests = [
        (
            "put",
            Request::Put(Put {
                bucket: text("cart"),
                key: text("ann"),
                value: value.clone(),
                context: Some(context.clone()),
                condition: Some(Condition::Dots(vec![text("0000002a:7")])),
                options,
                lifetime: Some(Lifetime::Ms(3_600_000)),
            }),
        ),
        (
            "get",
            Request::Get(Get {
                bucket: text("cart"),
                key: text("ann"),
                options,
            }),
        ),
        (
            "delete",
            Request::Delete(Delete {
                bucket: text("cart"),
                key: text("ann"),
                context: Some(context.clone()),
                condition: Some(Condition::Present),
                options,
            }),
        ),
        ("describe", Request::Describe),
        (
            "put-bare",
            Request::Put(Put {
                bucket: text("b"),
                key: text("k"),
                value: Value::new(Bytes::new()),
                context: None,
                condition: None,
                options: Options::default(),
                lifetime: None,
            }),
        ),
        (
            "delete-bare",
            Request::Delete(Delete {
                bucket: text("b"),
                key: text("k"),
                context: None,
                condition: None,
                options: Options::default(),
            }),
        ),
        (
            "put-if-absent",
            Request::Put(Put {
                bucket: text("b"),
                key: text("k"),
                value: Value::new("v"),
                context: None,
                condition: Some(Condition::Absent),
                options: Options::default(),
                lifetime: Some(Lifetime::Unlimited),
            }),
        ),
        (
            "put-until",
            Request::Put(Put {
                bucket: text("b"),
                key: text("k"),
                value: Value::new("v"),
                context: None,
                condition: None,
                options: Options::default(),
                lifetime: Some(Lifetime::Until(1_900_000_000_000)),
            }),
        ),
        (
            "list",
            Request::List(List {
                bucket: text("cart"),
                prefix: text("a"),
                after: Some(text("ann")),
                limit: 1_000,
                options,
            }),
        ),
        ("bucket-show", of_bucket(BucketAction::Show)),
        (
            "bucket-create",
            of_bucket(BucketAction::Create(changes.clone())),
        ),
        (
            "bucket-update",
            of_bucket(BucketAction::Update(changes.clone())),
        ),
        ("bucket-set", of_bucket(BucketAction::Set(changes))),
        ("bucket-drop", of_bucket(BucketAction::Drop)),
        ("buckets", Request::Buckets),
        ("status", Request::Status),
        ("repair", Request::Repair(Repair { partition: 255 })),
        ("apply", Request::Apply(Box::new(layouts::some_apply()))),
        ("layouts", Request::Layouts),
        ("pace", Request::Pace(Some(1 << 20))),
    ];
    let refusals = [
        ("malformed", Refusal::Malformed(text("why"))),
        ("bad-context", Refusal::BadContext(text("why"))),
        (
            "too-large",
            Refusal::TooLarge {
                size: u64::MAX,
                limit: 8 << 20,
            },
        ),
        ("impossible", Refusal::Impossible(text("why"))),
        (
            "too-many-siblings",
            Refusal::TooManySiblings {
                count: 65,
                limit: 64,
            },
        ),
        (
            "siblings-too-large",
            Refusal::SiblingsTooLarge {
                size: u64::MAX,
                limit: 32 << 20,
            },
        ),
        (
            "unavailable",
            Refusal::Unavailable {
                needed: 2,
                answered: 1,
            },
        ),
        ("overloaded", Refusal::Overloaded),
        ("draining", Refusal::Draining),
        ("poisoned", Refusal::Poisoned(text("why"))),
        ("wrong-layout", Refusal::WrongLayout { version: 4 }),
        ("corrupt", Refusal::Corrupt(text("what"))),
        ("not-allowed", Refusal::NotAllowed(text("why"))),
        ("condition-failed", Refusal::ConditionFailed(text("why"))),
        ("conflict", Refusal::Conflict(text("why"))),
        ("not-found", Refusal::NotFound(text("why"))),
        (
            "bucket-changed",
            Refusal::BucketChanged(Box::new(entry.clone())),
        ),
        (
            "disk-full",
            Refusal::DiskFull {
                free: 1 << 20,
                needed: 1 << 30,
            },
        ),
        (
            "hints-full",
            Refusal::HintsFull {
                held: 1 << 30,
                limit: 1 << 28,
            },
        ),
    ];
    let shown = Shown {
        dot: text("0000002a:7"),
        value,
        expires_ms: Some(1_900_000_000_000),
    };
    let mut answers = vec![
        (
            "stored",
            Answer::Stored {
                context: context.clone(),
            },
        ),
        (
            "found",
            Answer::Found {
                siblings: vec![
                    shown,
                    Shown {
                        dot: text("0000002b:1"),
                        value: Value::new(Bytes::new()),
                        expires_ms: None,
                    },
                ],
                context: context.clone(),
            },
        ),
        ("absent", Answer::Absent),
        ("deleted", Answer::Deleted),
        (
            "described",
            Answer::Described(Description {
                node: text("n1"),
                layout: Bytes::from_static(b"{}"),
            }),
        ),
        (
            "unmet",
            Answer::Unmet(Unmet {
                needed: 2,
                answered: 1,
                timed_out: true,
                may_have_written: false,
            }),
        ),
        (
            "listed",
            Answer::Listed(Listing {
                keys: vec![text("ann"), text("bob")],
                next: Some(text("bob")),
            }),
        ),
        ("bucket", Answer::Bucket(Box::new(described.clone()))),
        ("buckets", Answer::Buckets(vec![described])),
        (
            "status",
            Answer::Status(ClusterStatus {
                node: text("n1"),
                nodes: vec![node_status.clone()],
                silent: vec![text("n3")],
            }),
        ),
        ("repaired", Answer::Repaired(upkeep::some_repaired())),
        ("applied", Answer::Applied(2)),
        ("pace", Answer::Pace(layouts::some_pace())),
        ("layouts", Answer::Layouts(Box::new(layouts::some_told()))),
        (
            "explained",
            Answer::Explained(Explained::new(&Answer::Absent, account)),
        ),
    ];
    let mut replies = vec![
        ("merged", ReplicaReply::Merged { synced: true }),
        (
            "record",
            ReplicaReply::Record(Bytes::from_static(&[1, 0, 0])),
        ),
        ("record-none", ReplicaReply::Record(Bytes::new())),
        ("digest", ReplicaReply::Digest([0xd1; 16])),
        (
            "scanned",
            ReplicaReply::Scanned(Scanned {
                entries: vec![ScanEntry {
                    key: Bytes::from_static(b"ann"),
                    digest: u64::MAX,
                }],
                upto: Some(Bytes::from_static(b"ann")),
            }),
        ),
        ("bucket", ReplicaReply::Bucket(Box::new(entry.clone()))),
        ("buckets", ReplicaReply::Buckets(Some(vec![entry.clone()]))),
        ("buckets-same", ReplicaReply::Buckets(None)),
        ("status", ReplicaReply::Status(Box::new(node_status))),
        ("gone", ReplicaReply::Gone(vec![(0x2a, 7), (u128::MAX, 1)])),
    ];
    let layouts = layouts::replies().into_iter();
    replies.extend(layouts.map(|(name, reply)| (name, ReplicaReply::Layout(Box::new(reply)))));
    let upkeep = upkeep::replies();
    replies.extend(upkeep.map(|(name, reply)| (name, ReplicaReply::Upkeep(Box::new(reply)))));
    let refused: Vec<(String, Refusal)> = refusals
        .map(|(name, refusal)| (format!("refused-{name}"), refusal))
        .into();
    for (name, refusal) in &refused {
        answers.push((name, Answer::Refused(refusal.clone())));
        replies.push((name, ReplicaReply::Refused(refusal.clone())));
    }
    let vnode = VnodeId {
        partition: Partition(255),
        set: ReplicaSetId(0x0123_4567_89ab_cdef),
    };
    let bucket = BucketId([0xb0; 16]);
    let key = Bytes::from_static(b"ann");
    let record = Bytes::from_static(&[1, 0, 0]);
    let mut replica_requests = vec![
        (
            "merge",
            ReplicaRequest::Merge(Merge {
                vnode,
                bucket,
                key: key.clone(),
                record,
                durable: true,
                hint_for: Some(NodeId(9)),
            }),
        ),
        (
            "read",
            ReplicaRequest::Read(Read {
                vnode,
                bucket,
                key: key.clone(),
                digest_only: true,
                strict: false,
                hinted: true,
            }),
        ),
        (
            "recall",
            ReplicaRequest::Recall(Recall {
                vnode,
                bucket,
                key,
                dots: vec![(0x2a, 7), (u128::MAX, 1)],
            }),
        ),
        (
            "scan",
            ReplicaRequest::Scan(Scan {
                set: vnode.set,
                bucket,
                partitions: Bytes::from_static(&[0b101]),
                prefix: Bytes::from_static(b"a"),
                after: Bytes::new(),
                limit: 100,
            }),
        ),
        ("bucket", ReplicaRequest::Bucket(Box::new(entry))),
        (
            "buckets",
            ReplicaRequest::Buckets(BucketsAsked { digest: u128::MAX }),
        ),
        ("status", ReplicaRequest::Status),
    ];
    let layouts = layouts::requests().into_iter();
    replica_requests
        .extend(layouts.map(|(name, asked)| (name, ReplicaRequest::Layout(Box::new(asked)))));
    let upkeep = upkeep::requests().into_iter();
    replica_requests
        .extend(upkeep.map(|(name, asked)| (name, ReplicaRequest::Upkeep(Box::new(asked)))));

    let mut all = Vec::new();
    for (name, request) in requests {
        let bare = name.ends_with("bare");
        let header = if bare {
            Header::default()
        } else {
            header.clone()
        };
        all.push((
            format!("request/{name}"),
            Message::Request(id, header, request),
        ));
    }
    for (name, answer) in answers {
        all.push((format!("answer/{name}"), Message::Answer(id, answer)));
    }
    for (name, request) in replica_requests {
        all.push((
            format!("replica/{name}"),
            Message::Replica(id, header.clone(), request),
        ));
    }
    for (name, reply) in replies {
        all.push((format!("reply/{name}"), Message::Reply(id, reply)));
    }
    all
}
