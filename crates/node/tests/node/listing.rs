//! Listings: what a page must show whatever some replicas lack, and that pages put together are the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_node::{BucketDefaults, Caller, Input, Limits};
use quorate_protocol::{
    Answer, BucketId, LIST_KEYS_MAX, List, Listing, Message, Options, Quorum, Refusal,
    ReplicaReply, ReplicaRequest, Request, RequestId, Scan, Scanned,
};
use quorate_ring::NodeId;

use crate::cluster::{BUCKET, Cluster, Envelope, With, delete, foreign, holding, put, r, refusal};

fn list(prefix: &str, after: Option<&str>, limit: u32) -> Request {
    Request::List(List {
        bucket: BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        after: after.map(str::to_owned),
        limit,
        options: Options::default(),
    })
}

fn all() -> Request {
    list("", None, 1_000)
}

/// Lets everything happen until this listing is answered: messages, disks, and the time that scans take.
fn finish(c: &mut Cluster, caller: Caller) -> Answer {
    for _ in 0..2_000 {
        c.settle();
        if let Some(answer) = c.answer_to(caller) {
            return answer.clone();
        }
        c.pass(Duration::from_millis(1));
    }
    panic!("client {} is told nothing", caller.0);
}

fn page(c: &mut Cluster, at: usize, request: Request) -> Listing {
    let caller = c.ask(at, request);
    match finish(c, caller) {
        Answer::Listed(listing) => listing,
        other => panic!("not a page: {other:?}"),
    }
}

fn keys(c: &mut Cluster, at: usize, request: Request) -> Vec<String> {
    let listing = page(c, at, request);
    assert_eq!(listing.next, None);
    listing.keys
}

fn write(c: &mut Cluster, at: usize, request: Request) {
    let caller = c.ask(at, request);
    c.settle();
    let answer = c.answer_to(caller);
    assert!(
        matches!(answer, Some(Answer::Stored { .. } | Answer::Deleted)),
        "{answer:?}"
    );
}

#[test]
fn lists_what_has_a_value_in_order_whoever_is_asked() {
    let mut c = Cluster::of(5);
    for key in ["b/2", "a", "b/10", "ü", "c"] {
        write(&mut c, 0, put(key, "v"));
    }
    write(&mut c, 0, delete("c"));
    for at in 0..5 {
        assert_eq!(keys(&mut c, at, all()), ["a", "b/10", "b/2", "ü"]);
        assert_eq!(keys(&mut c, at, list("b/", None, 10)), ["b/10", "b/2"]);
        assert_eq!(keys(&mut c, at, list("b/", Some("b/10"), 10)), ["b/2"]);
        assert_eq!(keys(&mut c, at, list("b/", Some("a"), 10)), ["b/10", "b/2"]);
        assert_eq!(keys(&mut c, at, list("b/", Some("c"), 10)), [""; 0]);
        assert_eq!(keys(&mut c, at, list("d", None, 10)), [""; 0]);
    }
    assert!(c.nodes.iter().all(|n| n.is_idle()));
}

#[test]
fn a_page_ends_at_its_limit_and_says_where_to_go_on() {
    let mut c = Cluster::of(3);
    for key in ["a", "b", "c"] {
        write(&mut c, 0, put(key, "v"));
    }
    let first = page(&mut c, 1, list("", None, 2));
    assert_eq!(first.keys, ["a", "b"]);
    let rest = page(&mut c, 1, list("", first.next.as_deref(), 2));
    assert_eq!((rest.keys, rest.next), (vec!["c".to_owned()], None));
}

#[test]
fn is_complete_while_a_node_is_down() {
    let mut c = Cluster::of(3);
    for i in 0..20 {
        write(&mut c, i % 3, put(&format!("key-{i:02}"), "v"));
    }
    c.down(0, 2);
    c.down(1, 2);
    assert_eq!(keys(&mut c, 0, all()).len(), 20);
    let caller = c.ask(0, all().with(r(3)));
    assert!(matches!(
        refusal(c.answer_to(caller)),
        Refusal::Unavailable {
            needed: 3,
            answered: 2
        }
    ));
}

#[test]
fn goes_on_with_others_when_a_node_is_lost_in_mid_listing() {
    let mut c = Cluster::of(3);
    for i in 0..20 {
        write(&mut c, i % 3, put(&format!("key-{i:02}"), "v"));
    }
    let caller = c.ask(0, all());
    let asked: Vec<usize> = c.wire.iter().map(|e| e.to).collect();
    assert_eq!(
        asked.len(),
        1,
        "a majority of three is this node and one other"
    );
    c.lose(0, asked[0]);
    c.down(0, asked[0]);
    assert!(c.log.contains("counts ListReplicaLost"), "{}", c.log);
    match finish(&mut c, caller) {
        Answer::Listed(listing) => assert_eq!(listing.keys.len(), 20),
        other => panic!("{other:?}"),
    }

    // And if there is nobody else, it says so at once.
    c.pass(Duration::from_millis(1));
    let caller = c.ask(0, all());
    c.pass(Duration::from_millis(1));
    let left = c.wire[0].to;
    c.lose(0, left);
    c.down(0, left);
    let answer = c.answer_to(caller).expect("told at once");
    assert!(
        matches!(answer, Answer::Unmet(u) if (u.needed, u.answered, u.timed_out) == (2, 1, false)),
        "{answer:?}"
    );
    assert!(c.nodes[0].is_idle());
}

#[test]
fn asks_the_others_when_those_asked_are_slow() {
    let mut c = Cluster::of(3);
    write(&mut c, 0, put("a", "v"));
    let caller = c.ask(0, all());
    let slow = c.wire[0].to;
    c.lose(0, slow);
    c.pass(Duration::from_secs(1));
    assert!(c.log.contains("counts ListWidened"), "{}", c.log);
    let answer = finish(&mut c, caller);
    assert!(matches!(answer, Answer::Listed(l) if l.keys == ["a"]));
}

#[test]
fn a_key_that_one_replica_lacks_is_listed_and_repaired() {
    for stale in 0..3 {
        let mut c = Cluster::of(3);
        let v = holding(&[(foreign(1), "v")], &[]);
        for at in (0..3).filter(|at| *at != stale) {
            c.plant(at, "k", &v);
        }
        assert_eq!(keys(&mut c, 0, all().with(r(3))), ["k"]);
        assert!(c.log.contains("counts ListDisagreement"), "{}", c.log);
        c.settle();
        assert_eq!(c.record(stale, "k").live().len(), 1, "repaired");
    }
}

#[test]
fn a_deleted_key_whose_third_replica_missed_the_delete_is_not_listed() {
    for missed in 0..3 {
        let mut c = Cluster::of(3);
        let d = foreign(1);
        for at in 0..3 {
            c.plant(at, "k", &holding(&[(d, "v")], &[]));
            if at != missed {
                c.plant(at, "k", &holding(&[], &[d]));
            }
        }
        for at in 0..3 {
            assert_eq!(keys(&mut c, at, all()), [""; 0]);
        }
    }
}

#[test]
fn two_deletes_that_crossed_leave_nothing_to_list() {
    // Two siblings; each replica knows of the removal of another one. Both show one live value, and together none.
    let mut c = Cluster::of(3);
    let (d, e) = (foreign(1), foreign(2));
    c.plant(0, "k", &holding(&[(d, "v")], &[e]));
    c.plant(1, "k", &holding(&[(e, "w")], &[d]));
    c.plant(2, "k", &holding(&[(d, "v"), (e, "w")], &[]));
    c.down(0, 2);
    assert_eq!(keys(&mut c, 0, all()), [""; 0]);
}

#[test]
fn shows_only_what_is_as_durable_as_what_a_read_shows() {
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "v"));
    // On its way to the disk of n0, and nowhere else.
    c.lose(0, 1);
    c.lose(0, 2);
    let caller = c.ask(0, all().with(r(1)));
    c.pass(Duration::from_millis(10));
    assert_eq!(c.answer_to(caller), None);
    c.sync(0);
    let answer = c.answer_to(caller).expect("an answer");
    assert!(matches!(answer, Answer::Listed(l) if l.keys == ["k"]));
}

#[test]
fn a_damaged_record_is_never_passed_over() {
    let mut c = Cluster::of(3);
    for key in ["a", "b"] {
        write(&mut c, 0, put(key, "v"));
    }
    let at = c.disks[0].keys(quorate_storage::Family::Records);
    for key in at {
        c.disks[0].corrupt(quorate_storage::Family::Records, &key);
    }
    assert_eq!(keys(&mut c, 0, all()), ["a", "b"], "the others have it");
    let caller = c.ask(0, all().with(r(3)));
    let answer = finish(&mut c, caller);
    assert!(
        matches!(&answer, Answer::Unmet(u) if !u.may_have_written),
        "{answer:?}"
    );
}

#[test]
fn a_long_scan_is_done_in_slices_with_requests_in_between() {
    let limits = Limits {
        slice_units: 20,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    for i in 0..100 {
        write(&mut c, 0, put(&format!("{i:03}"), "v"));
    }
    let listing = c.ask(0, all());
    c.settle();
    assert_eq!(c.answer_to(listing), None, "not in one go");
    let read = c.ask(0, crate::cluster::get("007"));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(c.answer_to(listing), None);
    let answer = finish(&mut c, listing);
    assert!(matches!(answer, Answer::Listed(l) if l.keys.len() == 100));
}

#[test]
fn nobody_scans_for_an_asker_who_has_given_up() {
    let limits = Limits {
        slice_units: 9,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    for i in 0..30 {
        write(&mut c, 0, put(&format!("{i:03}"), "v"));
    }
    c.ask_within(0, 5, all());
    let other = c.wire[0].to;
    c.deliver(0, other);
    assert!(!c.nodes[other].is_idle());
    c.pass(Duration::from_millis(6));
    assert!(c.nodes[0].is_idle());
    assert!(c.nodes[other].is_idle());

    c.ask(0, all());
    c.deliver(0, other);
    assert!(!c.nodes[other].is_idle());
    c.down(other, 0);
    assert!(c.nodes[other].is_idle());
}

#[test]
fn too_many_scans_are_refused_and_said_to_be() {
    let limits = Limits {
        slice_units: 9,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    write(&mut c, 0, put("k", "v"));
    let callers: Vec<Caller> = (0..40).map(|_| c.ask(0, all().with(r(1)))).collect();
    // Where this node has too much to do, others are asked, and there all is done.
    c.settle();
    for caller in callers {
        let answer = finish(&mut c, caller);
        assert!(matches!(answer, Answer::Listed(_)), "{answer:?}");
    }
    c.down(0, 1);
    c.down(0, 2);
    let callers: Vec<Caller> = (0..40).map(|_| c.ask(0, all().with(r(1)))).collect();
    let last = c.answer_to(*callers.last().expect("there are some"));
    assert_eq!(refusal(last), &Refusal::Overloaded);
}

#[test]
fn what_can_never_be_listed_is_refused() {
    let mut c = Cluster::of(3);
    let long = "x".repeat(1025);
    for (request, word) in [
        (list("", None, 0), "limit=0"),
        (list("", None, LIST_KEYS_MAX + 1), "limit=10001"),
        (list(&long, None, 1), "prefix"),
        (list("", Some(&long), 1), "after"),
        (all().with(r(4)), "r=4"),
        (all().with(r(0)), "r=0"),
    ] {
        let caller = c.ask(0, request);
        let Refusal::Impossible(why) = refusal(c.answer_to(caller)) else {
            panic!("{:?}", c.answer_to(caller));
        };
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn a_local_quorum_lists_from_one_region_alone() {
    let regions = ["eu", "eu", "eu", "us", "us", "us"];
    let mut c = Cluster::in_regions(&regions);
    write(&mut c, 0, put("k", "v"));
    let local = Options {
        r: Some(Quorum::Local),
        ..Options::default()
    };
    let caller = c.ask(4, all().with(local));
    assert!(c.wire.iter().all(|e| e.to >= 3), "{:?}", c.wire);
    assert!(matches!(finish(&mut c, caller), Answer::Listed(l) if l.keys == ["k"]));
}

#[test]
fn a_scan_of_what_a_node_does_not_hold_is_refused() {
    let mut c = Cluster::of(5);
    let scan = Scan {
        set: c.vnode("k").set,
        bucket: BucketId::new(BUCKET, 0),
        partitions: Bytes::from_static(&[0xff]),
        prefix: Bytes::new(),
        after: Bytes::new(),
        limit: 10,
    };
    let message = Message::Replica(RequestId(1), c.header(), ReplicaRequest::Scan(scan));
    c.input(0, Input::Message(NodeId(1), message));
    let Some(Envelope {
        message: Message::Reply(_, ReplicaReply::Refused(Refusal::Malformed(why))),
        ..
    }) = c.wire.pop()
    else {
        panic!("not refused");
    };
    assert!(why.contains("no replica of partition"), "{why}");
}

#[test]
fn an_answer_that_makes_no_sense_is_taken_for_none() {
    let mut c = Cluster::of(3);
    write(&mut c, 0, put("k", "v"));
    let entry = |key: &'static [u8]| quorate_protocol::ScanEntry {
        key: Bytes::from_static(key),
        digest: 1,
    };
    for (entries, upto) in [
        (vec![entry(b"z"), entry(b"a")], None),
        (vec![entry(b"a"), entry(b"a")], None),
        (vec![entry(b"\xff")], None),
        (vec![], Some(&b"\xff"[..])),
        (vec![], Some(&b""[..])),
        (vec![entry(b"b")], Some(&b"a"[..])),
    ] {
        let caller = c.ask(0, all());
        let other = c.wire[0].to;
        let Message::Replica(id, ..) = c.wire.remove(0).message else {
            panic!("a scan was asked for");
        };
        let scanned = Scanned {
            entries,
            upto: upto.map(Bytes::from_static),
        };
        let reply = Message::Reply(id, ReplicaReply::Scanned(scanned));
        c.input(0, Input::Message(NodeId(other as u64), reply));
        let answer = finish(&mut c, caller);
        assert!(matches!(answer, Answer::Listed(l) if l.keys == ["k"]));
    }
}

/// What one replica has of a key.
#[derive(Clone, Copy, Debug)]
enum Copy {
    Nothing,
    Live,
    Removed,
}

fn copies() -> impl Strategy<Value = [Copy; 3]> {
    let copy = prop_oneof![
        1 => Just(Copy::Nothing),
        3 => Just(Copy::Live),
        1 => Just(Copy::Removed)
    ];
    prop_oneof![
        4 => Just([Copy::Live; 3]),
        2 => Just([Copy::Removed; 3]),
        2 => proptest::array::uniform3(copy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Pages of whatever size, put together, are the keys that a read of all replicas would find, in order and once, and
    /// nothing else; whatever each replica lacks and however small the slices.
    #[test]
    fn pages_put_together_are_the_whole(
        bucket in proptest::collection::btree_map("[ab]{1,6}", copies(), 0..120),
        prefix in "[ab]{0,2}",
        limit in 1..60_u32,
        slice_units in 9..200_usize,
        at in 0..3_usize,
    ) {
        let limits = Limits { slice_units, ..Limits::default() };
        let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
        let mut expected: BTreeMap<&str, bool> = BTreeMap::new();
        for (counter, (key, copies)) in bucket.iter().enumerate() {
            let dot = foreign(counter as u64 + 1);
            for (node, copy) in copies.iter().enumerate() {
                match copy {
                    Copy::Nothing => {}
                    Copy::Live => c.plant(node, key, &holding(&[(dot, "v")], &[])),
                    Copy::Removed => c.plant(node, key, &holding(&[], &[dot])),
                }
            }
            let is_live = copies.iter().any(|c| matches!(c, Copy::Live))
                && !copies.iter().any(|c| matches!(c, Copy::Removed));
            expected.insert(key, is_live && key.starts_with(&prefix));
        }
        let expected: Vec<&str> = expected.into_iter().filter(|(_, is)| *is).map(|(k, _)| k).collect();

        let mut listed: Vec<String> = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..300 {
            let listing = page(&mut c, at, list(&prefix, after.as_deref(), limit).with(r(3)));
            prop_assert!(listing.keys.len() <= limit as usize);
            prop_assert!(listing.next.is_none() || listing.next > after, "no progress");
            listed.extend(listing.keys);
            after = listing.next;
            if after.is_none() {
                break;
            }
        }
        prop_assert_eq!(after, None, "the listing does not end");
        prop_assert_eq!(listed, expected);
        for node in &c.nodes {
            prop_assert!(node.is_idle());
        }
    }
}
