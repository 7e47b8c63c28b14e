//! Layouts that change: who is asked before one is chosen, what goes on meanwhile, and what is refused.

use std::collections::BTreeSet;

use quorate_node::{Caller, Node};
use quorate_protocol::{
    Answer, ApplyLayout, BucketAction, BucketRequest, Message, Options, PropertyChanges, Quorum,
    Refusal, Request,
};
use quorate_ring::NodeId;
use quorate_storage::memory::MemoryDisk;

use crate::cluster::{Cluster, With, delete, get, node_spec, put, r, w};
use crate::tended::{SECOND, calm, collecting};

const KEY: &str = "k";

/// Five nodes in a layout, and some besides.
fn stage(spares: usize) -> Cluster {
    let regions = vec!["here"; 5 + spares];
    let mut c = Cluster::with_spares(&regions, 5, calm());
    c.compares = true;
    c.quietly(|c| c.tend(2 * SECOND));
    c
}

/// A request for a layout of these nodes, all of one region, in which those are declared dead.
fn layout_of(nodes: impl IntoIterator<Item = usize>, dead: &[usize]) -> Request {
    Request::Apply(Box::new(ApplyLayout {
        version: 2,
        nodes: nodes.into_iter().map(|i| node_spec(i, "here")).collect(),
        dead: dead.iter().map(|i| NodeId(*i as u64)).collect(),
    }))
}

fn version(c: &Cluster, at: usize) -> (u64, Option<u64>) {
    let known = c.nodes[at].layouts();
    let next = known
        .next
        .as_ref()
        .map(|change| change.chosen.layout.version());
    (known.current.version(), next)
}

fn refused(c: &Cluster, caller: Caller) -> String {
    match c.answer_to(caller) {
        Some(Answer::Refused(Refusal::Impossible(why))) => why.clone(),
        other => panic!("client {} was told {other:?}", caller.0),
    }
}

fn stored(c: &mut Cluster, at: usize, request: Request) {
    let caller = c.ask(at, request);
    c.settle();
    let answer = c.answer_to(caller);
    assert!(matches!(answer, Some(Answer::Stored { .. })), "{answer:?}");
}

/// Whoever has just joined knows nothing of what was before: to have heard of it from half of them too would take reads away.
#[test]
fn nodes_that_join_do_not_make_strangers_of_those_that_are_there() {
    let mut c = stage(6);
    stored(&mut c, 0, put(KEY, "v").with(w(2)));
    let caller = c.ask(0, layout_of(0..11, &[]));
    c.settle();
    assert_eq!(c.answer_to(caller), Some(&Answer::Applied(2)));
    assert_eq!(version(&c, 0), (1, Some(2)), "{}", c.log);
    for at in 0..5 {
        let strict = c.ask(at, get(KEY).with(r(2)));
        c.settle();
        assert_eq!(c.shown(strict), ["v"]);
        assert_eq!(c.nodes[at].ready(), Ok(()));
    }
    c.tend(20 * SECOND);
    assert!((0..11).all(|at| version(&c, at) == (2, None)), "{}", c.log);
}

/// Who proposed is not the only one to know what was chosen, and says that it is so once it would say so after a restart.
#[test]
fn whoever_asked_is_told_once_it_is_on_disk_and_known_to_others() {
    let mut c = stage(1);
    let caller = c.ask(0, layout_of(0..6, &[]));
    // The disk of the one who was asked does not come to anything; the others are enough to choose.
    loop {
        while !c.wire.is_empty() {
            c.deliver_nth(0);
        }
        let behind = (1..6).find(|at| {
            let pending = c.disks[*at].pending();
            pending.progress.synced < pending.last
        });
        match behind {
            Some(at) => c.sync(at),
            None => break,
        }
    }
    assert_eq!(c.answer_to(caller), None);
    assert_eq!(version(&c, 0), (1, None));
    assert!((1..5).all(|at| version(&c, at) == (1, Some(2))));
    c.settle();
    assert_eq!(c.answer_to(caller), Some(&Answer::Applied(2)));
}

/// What a bucket holds in certain regions would be nowhere, and dropped where it is.
#[test]
fn a_layout_must_have_replicas_for_every_bucket() {
    let regions = ["here", "here", "here", "there", "there"];
    let mut c = Cluster::with_spares(&regions, 5, calm());
    c.compares = true;
    c.quietly(|c| c.tend(2 * SECOND));
    let there = BucketRequest {
        bucket: "far".to_owned(),
        action: BucketAction::Create(PropertyChanges {
            regions: Some(vec!["there".to_owned()]),
            ..PropertyChanges::default()
        }),
    };
    let caller = c.ask(0, Request::Bucket(there));
    c.tend(SECOND);
    let answer = c.answer_to(caller);
    assert!(matches!(answer, Some(Answer::Bucket(_))), "{answer:?}");

    let caller = c.ask(1, layout_of(0..3, &[]));
    c.settle();
    let why = refused(&c, caller);
    assert!(why.contains("'far'") && why.contains("region"), "{why}");
    assert!((0..5).all(|at| version(&c, at) == (1, None)));
}

#[test]
fn those_who_alone_may_have_a_write_are_not_to_be_declared_dead() {
    let mut c = stage(2);
    let of = |key: &str| c.replicas(key);
    let (a, b) = (of(KEY)[0], of(KEY)[1]);
    let asked = (0..5).find(|n| ![a, b].contains(n)).expect("one is left");
    let rest = (0..7).filter(|n| ![a, b].contains(n));
    let caller = c.ask(asked, layout_of(rest, &[a, b]));
    c.settle();
    let why = refused(&c, caller);
    assert!(why.contains("2 of 3 replicas"), "{why}");

    // Of four replicas in two regions, the two of one may be a local quorum.
    let regions = ["here", "here", "there", "there", "there", "here"];
    let mut c = Cluster::with_spares(&regions, 5, calm());
    c.compares = true;
    c.quietly(|c| c.tend(2 * SECOND));
    let apply = |nodes: &[usize], dead: &[u64]| {
        Request::Apply(Box::new(ApplyLayout {
            version: 2,
            nodes: nodes.iter().map(|i| node_spec(*i, regions[*i])).collect(),
            dead: dead.iter().map(|n| NodeId(*n)).collect::<BTreeSet<_>>(),
        }))
    };
    let caller = c.ask(2, apply(&[5, 2, 3, 4], &[0, 1]));
    c.settle();
    let why = refused(&c, caller);
    assert!(why.contains("2 of 2 replicas"), "{why}");
    let caller = c.ask(2, apply(&[0, 5, 2, 3, 4], &[1]));
    c.settle();
    assert_eq!(c.answer_to(caller), Some(&Answer::Applied(2)));
}

/// Those that come after an owner that leaves may have asked it for what it has before it gets the hint.
#[test]
fn what_is_kept_for_one_that_leaves_goes_to_those_that_stay() {
    let mut c = stage(1);
    let owner = c.replicas(KEY)[2];
    let at = c.replicas(KEY)[0];
    c.leave(owner);
    stored(&mut c, at, put(KEY, "v").with(w(3)));
    let keeper = (0..5).find(|n| c.hints(*n) > 0).expect("a hint is kept");
    let rest = (0..6).filter(|n| *n != owner);
    let caller = c.ask(at, layout_of(rest, &[]));
    c.settle();
    assert_eq!(c.answer_to(caller), Some(&Answer::Applied(2)));
    // The owner is still out of reach, and the hint goes all the same.
    c.tend(3 * SECOND);
    assert_eq!(c.hints(keeper), 0, "{}", c.log);
    assert_eq!(c.counted(keeper, "HintReaddressed"), 1);
    c.come_back(owner);
    c.tend(20 * SECOND);
    assert!((0..6).all(|at| version(&c, at) == (2, None)), "{}", c.log);
    let strict = c.ask(at, get(KEY).with(r(2)));
    c.settle();
    assert_eq!(c.shown(strict), ["v"]);
}

/// A node that is in no layout any more goes on with what it was passed.
#[test]
fn what_was_passed_on_to_one_that_leaves_is_not_given_up() {
    let mut c = stage(1);
    let at = (0..5).find(|n| !c.replicas(KEY).contains(n)).expect("one");
    let caller = c.ask_within(at, 30_000, put(KEY, "v").with(w(2)));
    let passed = c.wire.iter().find(|e| e.from == at);
    let coordinator = passed.expect("it was passed on").to;
    let is_answer = move |e: &crate::cluster::Envelope| {
        e.from == coordinator && e.to == at && matches!(e.message, Message::Answer(..))
    };
    c.settle_but(&mut is_answer.clone());
    let rest = (0..6).filter(|n| *n != coordinator);
    c.ask(at, layout_of(rest, &[]));
    c.tend_but(20 * SECOND, is_answer);
    assert_eq!(version(&c, at), (2, None), "{}", c.log);
    assert_eq!(c.answer_to(caller), None);
    c.settle();
    let answer = c.answer_to(caller);
    assert!(matches!(answer, Some(Answer::Stored { .. })), "{answer:?}");
}

/// Those that are gone for good count for what a quorum is, and are not waited for.
#[test]
fn a_write_that_can_not_be_met_without_the_dead_says_so_at_once() {
    let mut c = stage(1);
    let [at, other, dead] = c.replicas(KEY)[..] else {
        panic!("three replicas");
    };
    c.leave(dead);
    let rest = (0..6).filter(|n| *n != dead);
    let caller = c.ask(at, layout_of(rest, &[dead]));
    c.settle();
    assert_eq!(c.answer_to(caller), Some(&Answer::Applied(2)));
    let options = Options {
        pw: Some(Quorum::Count(2)),
        ..Options::default()
    };
    let caller = c.ask(at, put(KEY, "v").with(options));
    c.sync(at);
    c.lose(at, other);
    c.down(at, other);
    assert!(
        matches!(c.answer_to(caller), Some(Answer::Unmet(unmet)) if !unmet.timed_out),
        "{}",
        c.log
    );
}

/// By a later layout that names it, a node with nothing on its disk would believe to have been filled.
#[test]
fn an_empty_node_is_started_with_no_later_layout_that_it_is_in() {
    let c = stage(1);
    let nodes = |n: usize| (0..n).map(|i| node_spec(i, "here")).collect();
    let later = c.layout.next(nodes(6)).expect("a sound layout");
    let start = |i: usize, layout: &quorate_ring::Layout| {
        let storage = MemoryDisk::new().open();
        Node::new(c.config(i, false), layout.clone(), storage, [1; 32]).map(|_| ())
    };
    let why = start(5, &later).expect_err("refused");
    assert!(why.contains("data directory is empty"), "{why}");
    assert_eq!(start(5, &c.layout), Ok(()));
    assert_eq!(start(0, &c.layout), Ok(()));
}

/// All who had seen a removal may have left before the last one is put back to where it still had the value: those that came after them know of it
/// by having been filled alone.
#[test]
fn what_those_that_left_had_removed_does_not_come_back() {
    let mut c = Cluster::with_spares(&["here"; 5], 3, collecting());
    c.compares = true;
    c.quietly(|c| c.tend(2 * SECOND));
    stored(&mut c, 0, put(KEY, "v").with(w(3)));
    let copy = c.disks[0].copy();
    let seen = c.ask(0, get(KEY).with(r(3)));
    c.settle();
    let seen = c.context_of(seen);
    let deleted = c.ask(1, delete(KEY).having_seen(&seen).with(w(3)));
    c.settle();
    assert_eq!(c.answer_to(deleted), Some(&Answer::Deleted));
    c.quietly(|c| c.tend(10 * SECOND));
    assert!(
        (0..3).all(|at| c.record(at, KEY).is_empty()),
        "it is collected"
    );
    for (version, nodes) in [(2, [0, 1, 3]), (3, [0, 3, 4])] {
        let nodes = nodes.map(|i| node_spec(i, "here")).to_vec();
        let apply = ApplyLayout {
            version,
            nodes,
            dead: BTreeSet::new(),
        };
        c.ask(0, Request::Apply(Box::new(apply)));
        c.quietly(|c| c.tend(30 * SECOND));
        assert_eq!(self::version(&c, 0), (version, None));
    }
    c.leave(0);
    c.disks[0].crash(0);
    c.disks[0] = copy;
    c.start(0);
    assert_eq!(c.record(0, KEY).live().len(), 1);
    c.come_back(0);
    c.quietly(|c| c.tend(30 * SECOND));
    assert_eq!(self::version(&c, 0), (3, None));
    for at in [0, 3, 4] {
        let strict = c.ask(at, get(KEY).with(r(2)));
        c.settle();
        assert_eq!(c.shown(strict), [""; 0], "at {at}");
        assert_eq!(c.nodes[at].refilling(), 0);
    }
}
