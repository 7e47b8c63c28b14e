//! Messages about layouts.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use quorate_protocol::{
    ApplyLayout, Ballot, KnownLayouts, LayoutChange, LayoutReply, LayoutRequest, LiveLayouts, Pace,
    PastLayout, ProposedLayout,
};
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec};

fn spec(id: u64) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        name: format!("n{id}"),
        region: "eu".to_owned(),
        zone: format!("z{id}"),
        weight: 1,
        quic: format!("n{id}:1"),
        http: format!("n{id}:2"),
    }
}

fn layout(nodes: u64) -> Layout {
    let spec = LayoutSpec {
        partitions: 2,
        replicas: 1,
        nodes: (1..=nodes).map(spec).collect(),
    };
    Layout::first(ClusterId(7), spec).expect("a sound layout")
}

fn following(nodes: u64) -> Layout {
    let specs = (1..=nodes).map(spec).collect();
    layout(1).next(specs).expect("a sound layout")
}

fn ids() -> BoxedStrategy<BTreeSet<NodeId>> {
    btree_set(any::<u64>().prop_map(NodeId), 0..4).boxed()
}

fn proposed() -> BoxedStrategy<ProposedLayout> {
    (1u64..4, ids())
        .prop_map(|(nodes, dead)| ProposedLayout {
            layout: following(nodes),
            dead,
        })
        .boxed()
}

fn ballot() -> BoxedStrategy<Ballot> {
    any::<(u64, u64)>()
        .prop_map(|(round, attempt)| Ballot { round, attempt })
        .boxed()
}

fn known() -> BoxedStrategy<LiveLayouts> {
    let change = (proposed(), ids(), ids()).prop_map(|(chosen, synced, complete)| LayoutChange {
        chosen,
        synced,
        complete,
    });
    (1u64..4, option::of(change), pace())
        .prop_map(|(nodes, next, pace)| LiveLayouts {
            current: layout(nodes),
            next,
            pace,
        })
        .boxed()
}

/// Anything that a pace may be.
pub(crate) fn pace() -> BoxedStrategy<Pace> {
    (any::<u64>(), option::of(any::<u64>()))
        .prop_map(|(number, bytes_per_second)| Pace {
            number,
            bytes_per_second,
        })
        .boxed()
}

/// One of them.
pub(crate) fn some_pace() -> Pace {
    Pace {
        number: 2,
        bytes_per_second: Some(0),
    }
}

/// Anything that may be told to operators.
pub(crate) fn told() -> BoxedStrategy<KnownLayouts> {
    let past = (any::<u64>(), any::<u64>(), vec(0u64..9, 0..4), ids());
    let past = past.prop_map(|(version, since_s, nodes, dead)| PastLayout {
        version,
        since_s,
        nodes: nodes.into_iter().map(spec).collect(),
        dead,
    });
    (".{0,9}", known(), vec(past, 0..3))
        .prop_map(|(node, live, history)| KnownLayouts {
            node,
            live,
            history,
        })
        .boxed()
}

/// One of them.
pub(crate) fn some_told() -> KnownLayouts {
    KnownLayouts {
        node: "n1".to_owned(),
        live: LiveLayouts {
            current: layout(1),
            next: Some(LayoutChange {
                chosen: ProposedLayout {
                    layout: following(2),
                    dead: [NodeId(3)].into(),
                },
                synced: [NodeId(1)].into(),
                complete: BTreeSet::new(),
            }),
            pace: some_pace(),
        },
        history: vec![PastLayout {
            version: 1,
            since_s: 1_700_000_000,
            nodes: vec![spec(1)],
            dead: BTreeSet::new(),
        }],
    }
}

/// Anything that may be asked to be applied.
pub(crate) fn apply() -> BoxedStrategy<ApplyLayout> {
    (any::<u64>(), vec(0u64..9, 0..4), ids())
        .prop_map(|(version, nodes, dead)| ApplyLayout {
            version,
            nodes: nodes.into_iter().map(spec).collect(),
            dead,
        })
        .boxed()
}

/// Anything that one node may ask.
pub(crate) fn request() -> BoxedStrategy<LayoutRequest> {
    prop_oneof![
        known().prop_map(|known| LayoutRequest::Tell(Box::new(known))),
        (any::<u64>(), ballot())
            .prop_map(|(version, ballot)| LayoutRequest::Prepare(version, ballot)),
        (ballot(), proposed())
            .prop_map(|(ballot, proposed)| LayoutRequest::Accept(ballot, Box::new(proposed))),
    ]
    .boxed()
}

/// Anything that one node may say to that.
pub(crate) fn reply() -> BoxedStrategy<LayoutReply> {
    let accepted = (ballot(), proposed().prop_map(Box::new));
    prop_oneof![
        known().prop_map(|known| LayoutReply::Told(Box::new(known))),
        (ballot(), option::of(accepted))
            .prop_map(|(ballot, accepted)| LayoutReply::Promised(ballot, accepted)),
        ballot().prop_map(LayoutReply::Accepted),
        ballot().prop_map(LayoutReply::Outdone),
    ]
    .boxed()
}

/// One of each.
pub(crate) fn some_apply() -> ApplyLayout {
    ApplyLayout {
        version: 2,
        nodes: vec![spec(1), spec(2)],
        dead: [NodeId(3)].into(),
    }
}

const BALLOT: Ballot = Ballot {
    round: 3,
    attempt: u64::MAX,
};

fn some_proposed() -> ProposedLayout {
    ProposedLayout {
        layout: following(2),
        dead: [NodeId(3)].into(),
    }
}

fn some_known() -> LiveLayouts {
    LiveLayouts {
        current: layout(1),
        next: Some(LayoutChange {
            chosen: some_proposed(),
            synced: [NodeId(1), NodeId(2)].into(),
            complete: [NodeId(2)].into(),
        }),
        pace: Pace::default(),
    }
}

pub(crate) fn requests() -> Vec<(&'static str, LayoutRequest)> {
    vec![
        ("layout-tell", LayoutRequest::Tell(Box::new(some_known()))),
        ("layout-prepare", LayoutRequest::Prepare(2, BALLOT)),
        (
            "layout-accept",
            LayoutRequest::Accept(BALLOT, Box::new(some_proposed())),
        ),
    ]
}

pub(crate) fn replies() -> Vec<(&'static str, LayoutReply)> {
    vec![
        ("layout-told", LayoutReply::Told(Box::new(some_known()))),
        (
            "layout-promised",
            LayoutReply::Promised(BALLOT, Some((BALLOT, Box::new(some_proposed())))),
        ),
        ("layout-promised-anew", LayoutReply::Promised(BALLOT, None)),
        ("layout-accepted", LayoutReply::Accepted(BALLOT)),
        ("layout-outdone", LayoutReply::Outdone(BALLOT)),
    ]
}
