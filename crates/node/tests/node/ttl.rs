//! Values that end: hidden at their deadline, dropped later, and never back (rule R16).

use std::time::Duration;

use quorate_causal::{DotSet, Record, Sibling, Span};
use quorate_node::{BucketDefaults, Input, Limits, Vitals};
use quorate_protocol::{
    Answer, BucketAction, BucketRequest, Condition, Lifetime, List, Options, PropertyChanges,
    Refusal, Request,
};
use quorate_storage::{Family, Storage};

use crate::cluster::{BUCKET, Cluster, With, delete, foreign, get, payload, put, r, refusal, w};

/// What time it is when a test begins, in milliseconds since the Unix epoch.
pub(crate) const NOON: u64 = 1_900_000_000_000;
/// How far clocks may be apart here.
pub(crate) const SKEW: Duration = Duration::from_secs(10);
pub(crate) const TTL: Duration = Duration::from_secs(60);

/// Three nodes that know what time it is.
fn cluster() -> Cluster {
    let limits = Limits {
        ttl_skew_max: SKEW,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    for at in 0..3 {
        clock(&mut c, at, NOON);
    }
    c
}

pub(crate) fn clock(c: &mut Cluster, at: usize, clock_ms: u64) {
    let vitals = Vitals {
        clock_ms,
        ..Vitals::default()
    };
    c.input(at, Input::Vitals(Box::new(vitals)));
}

/// Time passes, and every node is told what time it is. Clocks that were wrong are right then.
pub(crate) fn pass(c: &mut Cluster, time: Duration) {
    c.pass(time);
    let now = NOON + (c.now.0 - 1_000_000) / 1_000;
    for at in 0..c.nodes.len() {
        clock(c, at, now);
    }
}

fn lasting(mut request: Request, lifetime: Lifetime) -> Request {
    match &mut request {
        Request::Put(put) => put.lifetime = Some(lifetime),
        other => panic!("{other:?} stores nothing"),
    }
    request
}

pub(crate) fn lasting_ttl(request: Request) -> Request {
    lasting(request, Lifetime::Ms(TTL.as_millis() as u64))
}

/// A record of one value that ends.
fn ending(counter: u64, value: &str, expires: u64) -> Record {
    let sibling = Sibling {
        span: Span::lone(foreign(counter)),
        payload: payload(value),
        expires: Some(expires),
    };
    Record::from_parts(vec![sibling], DotSet::new())
}

fn ask(c: &mut Cluster, at: usize, request: Request) -> Option<Answer> {
    let caller = c.ask(at, request);
    c.settle();
    c.answer_to(caller).cloned()
}

fn shown(c: &mut Cluster, at: usize, key: &str) -> Vec<String> {
    let caller = c.ask(at, get(key).with(r(3)));
    c.settle();
    c.shown(caller)
}

fn listed(c: &mut Cluster) -> Vec<String> {
    let list = Request::List(List {
        bucket: BUCKET.to_owned(),
        prefix: String::new(),
        after: None,
        limit: 100,
        options: Options::default(),
    });
    let caller = c.ask(0, list);
    for _ in 0..100 {
        c.settle();
        if let Some(Answer::Listed(listing)) = c.answer_to(caller) {
            return listing.keys.clone();
        }
        c.pass(Duration::from_millis(1));
    }
    panic!("no answer to a listing");
}

/// How many rows the index of deadlines has.
pub(crate) fn rows(c: &Cluster, at: usize) -> usize {
    let rows = c.nodes[at].storage().scan(Family::Deadlines, &[], None, 10);
    rows.expect("a sound disk").len()
}

#[test]
fn a_value_is_hidden_at_its_deadline_and_dropped_when_all_clocks_have_passed_it() {
    let mut c = cluster();
    ask(&mut c, 0, lasting_ttl(put("k", "v")));
    pass(&mut c, TTL - Duration::from_secs(1));
    let read = c.ask(1, get("k"));
    c.settle();
    match c.answer_to(read) {
        Some(Answer::Found { siblings, .. }) => {
            assert_eq!(siblings[0].expires_ms, Some(NOON + 60_000));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(listed(&mut c), ["k"]);

    c.pass(Duration::from_secs(1));
    assert_eq!(ask(&mut c, 1, get("k")), Some(Answer::Absent));
    assert_eq!(listed(&mut c), Vec::<String>::new());
    for at in 0..3 {
        assert_eq!(c.record(at, "k").live().len(), 1, "hidden, and there yet");
        assert_eq!(rows(&c, at), 1);
    }

    pass(&mut c, SKEW);
    c.settle();
    assert!(c.log.contains("counts ExpiredHidden"), "{}", c.log);
    assert_eq!(
        c.log.matches("counts ExpiredDropped").count(),
        3,
        "{}",
        c.log
    );
    for at in 0..3 {
        assert!(c.nodes[at].stored(BUCKET, "k").is_none(), "without a trace");
        assert_eq!(rows(&c, at), 0);
    }
}

#[test]
fn late_delivery_stores_nothing_that_is_dead() {
    let mut c = cluster();
    // n2 gets the write when its value is dead.
    let seen = c.ask(0, put("k", "old").with(w(3)));
    c.settle();
    let context = c.context_of(seen);
    c.ask(
        0,
        lasting_ttl(put("k", "v")).having_seen(&context).with(w(2)),
    );
    c.sync(0);
    c.deliver(0, 1);
    c.sync(1);
    pass(&mut c, TTL + SKEW);
    c.deliver(0, 2);
    c.sync(2);
    let late = c.record(2, "k");
    assert!(
        late.live().is_empty(),
        "what it replaced is removed there too"
    );
    assert!(!late.evidence().is_empty());
    let clock = c.nodes[2].clock_of(BUCKET, "k").expect("a sound disk");
    assert_eq!(
        clock,
        c.nodes[0].clock_of(BUCKET, "k").expect("a sound disk")
    );
    assert_eq!(rows(&c, 2), 0);
    c.settle();
    assert_eq!(shown(&mut c, 2, "k"), Vec::<String>::new());
}

#[test]
fn read_repair_does_not_extend_and_brings_nothing_back() {
    let mut c = cluster();
    c.plant(0, "k", &ending(1, "v", NOON + 60_000));
    pass(&mut c, TTL / 2);
    assert_eq!(shown(&mut c, 1, "k"), ["v"]);
    for at in 0..3 {
        let repaired = c.record(at, "k");
        assert_eq!(repaired.live()[0].expires, Some(NOON + 60_000), "n{at}");
    }
    // n1's clock is as far ahead as it may be: it drops the value when the others only begin to hide it. That is no
    // difference worth a repair on its side, and what it is sent by others it does not take.
    pass(&mut c, TTL / 2);
    clock(&mut c, 1, NOON + 70_000);
    assert!(c.record(1, "k").live().is_empty());
    for coordinator in 0..3 {
        assert_eq!(shown(&mut c, coordinator, "k"), Vec::<String>::new());
        assert!(c.record(1, "k").live().is_empty());
    }
    pass(&mut c, SKEW);
    c.settle();
    let before: Vec<_> = c.disks.iter().map(|d| d.pending().last).collect();
    assert_eq!(shown(&mut c, 0, "k"), Vec::<String>::new());
    let after: Vec<_> = c.disks.iter().map(|d| d.pending().last).collect();
    assert_eq!(
        before, after,
        "all is gone everywhere, so a read writes nothing"
    );
}

#[test]
fn a_put_over_an_expired_value_removes_it() {
    for condition in [None, Some(Condition::Absent)] {
        let mut c = cluster();
        ask(&mut c, 0, lasting_ttl(put("k", "first")).with(w(3)));
        let create = || put("k", "second").on_condition(Condition::Absent);
        let refused = ask(&mut c, 1, create());
        assert!(matches!(
            refusal(refused.as_ref()),
            Refusal::ConditionFailed(_)
        ));
        pass(&mut c, TTL);
        let second = match condition {
            None => put("k", "second"),
            Some(_) => create(),
        };
        let stored = ask(&mut c, 1, second.with(w(3)));
        assert!(matches!(stored, Some(Answer::Stored { .. })), "{stored:?}");
        for at in 0..3 {
            let record = c.record(at, "k");
            assert_eq!(record.live().len(), 1, "n{at}: {record:?}");
            assert!(!record.evidence().is_empty());
            assert_eq!(rows(&c, at), 0, "its row went with it");
        }
        // Not even a clock that is behind shows it again.
        clock(&mut c, 2, NOON);
        assert_eq!(shown(&mut c, 2, "k"), ["second"]);
    }
}

#[test]
fn a_restart_across_the_deadline_forgets_nothing_of_it() {
    let mut c = cluster();
    ask(&mut c, 0, lasting_ttl(put("k", "v")).with(w(3)));
    ask(&mut c, 0, put("stays", "v").with(w(3)));
    c.restart(0, 0);
    for other in 1..3 {
        c.up(0, other);
    }
    // It does not know what time it is: nothing has expired, and nothing that ends can be put.
    let unsure = ask(&mut c, 0, lasting_ttl(put("k", "w")));
    assert_eq!(refusal(unsure.as_ref()), &Refusal::Overloaded);
    pass(&mut c, TTL);
    assert_eq!(shown(&mut c, 0, "k"), Vec::<String>::new());
    c.restart(0, 0);
    for other in 1..3 {
        c.up(0, other);
    }
    pass(&mut c, SKEW);
    c.settle();
    for at in 0..3 {
        assert!(c.nodes[at].stored(BUCKET, "k").is_none(), "n{at}");
        assert_eq!(rows(&c, at), 0);
    }
    assert_eq!(shown(&mut c, 0, "stays"), ["v"]);
}

#[test]
fn a_stale_context_of_an_expired_value_removes_no_other() {
    let mut c = cluster();
    let first = c.ask(0, lasting_ttl(put("k", "first")).with(w(3)));
    c.settle();
    let context = c.context_of(first);
    pass(&mut c, TTL + SKEW);
    c.settle();
    ask(&mut c, 1, put("k", "second").with(w(3)));
    // Its writer had read what is dropped by now. It replaces that, and so stands beside what came since.
    ask(
        &mut c,
        2,
        put("k", "third").having_seen(&context).with(w(3)),
    );
    let mut values = shown(&mut c, 0, "k");
    values.sort();
    assert_eq!(values, ["second", "third"]);
    // And a copy of the expired value that comes late finds no way in.
    c.plant(2, "k", &ending(7, "ghost", NOON + 60_000));
    assert_eq!(c.record(2, "k").live().len(), 2);
}

#[test]
fn answers_name_what_they_show_and_hide_the_rest() {
    let mut c = cluster();
    ask(&mut c, 0, put("k", "stays").with(w(3)));
    ask(&mut c, 0, lasting_ttl(put("k", "ends")).with(w(3)));
    assert_eq!(shown(&mut c, 0, "k").len(), 2);
    pass(&mut c, TTL);
    let read = c.ask(1, get("k").explained());
    c.settle();
    let (answer, account) = c.explained(read);
    let Answer::Found { siblings, context } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(siblings.len(), 1);
    assert_eq!(account.siblings.len(), 1, "{account:?}");
    assert!(account.siblings[0].contains("is not shown: its time was up at 2030-03-17T"));
    // The context names the one that was shown (rule R8): a delete with it leaves the other one's dot alone.
    ask(&mut c, 0, delete("k").having_seen(&context).with(w(3)));
    assert_eq!(c.record(0, "k").live().len(), 1);
    assert_eq!(ask(&mut c, 0, get("k")), Some(Answer::Absent));
    // One without a context removes whatever there is.
    ask(&mut c, 0, delete("k").with(w(3)));
    assert!(c.record(0, "k").live().is_empty());
    assert_eq!(rows(&c, 0), 0);
}

#[test]
fn a_bucket_gives_its_ttl_to_puts_that_have_none() {
    let mut c = cluster();
    let set = |ttl| {
        let changes = PropertyChanges {
            ttl: Some(ttl),
            ..PropertyChanges::default()
        };
        Request::Bucket(BucketRequest {
            bucket: BUCKET.to_owned(),
            action: BucketAction::Set(changes),
        })
    };
    let expires = |c: &mut Cluster, key: &str| match ask(c, 1, get(key)) {
        Some(Answer::Found { siblings, .. }) => siblings[0].expires_ms,
        other => panic!("{other:?}"),
    };
    let made = ask(&mut c, 0, set(Lifetime::Ms(30_000)));
    match made {
        Some(Answer::Bucket(bucket)) => assert_eq!(bucket.ttl_ms, Some(30_000)),
        other => panic!("{other:?}"),
    }
    ask(&mut c, 0, put("bucket-s", "v"));
    ask(&mut c, 0, lasting_ttl(put("own", "v")));
    ask(&mut c, 0, lasting(put("none", "v"), Lifetime::Unlimited));
    let until = Lifetime::Until(NOON + 5_000);
    ask(&mut c, 0, lasting(put("until", "v"), until));
    assert_eq!(expires(&mut c, "bucket-s"), Some(NOON + 30_000));
    assert_eq!(expires(&mut c, "own"), Some(NOON + 60_000));
    assert_eq!(expires(&mut c, "none"), None);
    assert_eq!(expires(&mut c, "until"), Some(NOON + 5_000));
    for impossible in [
        Lifetime::Ms(999),
        Lifetime::Ms(u64::MAX),
        Lifetime::Until(NOON),
        Lifetime::Until(u64::MAX),
    ] {
        let refused = ask(&mut c, 0, lasting(put("k", "v"), impossible));
        assert!(
            matches!(refusal(refused.as_ref()), Refusal::Impossible(_)),
            "{impossible:?}"
        );
    }
    for impossible in [Lifetime::Ms(999), Lifetime::Until(NOON + 30_000)] {
        let refused = ask(&mut c, 0, set(impossible));
        assert!(
            matches!(refusal(refused.as_ref()), Refusal::Impossible(_)),
            "{impossible:?}"
        );
    }
    // What is there keeps the end it was given.
    ask(&mut c, 0, set(Lifetime::Unlimited));
    ask(&mut c, 0, put("later", "v"));
    assert_eq!(expires(&mut c, "later"), None);
    assert_eq!(expires(&mut c, "bucket-s"), Some(NOON + 30_000));
}

#[test]
fn many_are_dropped_a_slice_at_a_time_and_after_a_clock_that_was_set_back() {
    let limits = Limits {
        ttl_skew_max: SKEW,
        slice_units: 16,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    clock(&mut c, 0, NOON);
    for i in 0..9u64 {
        // Some keys have two values that end, at different times.
        let key = format!("key-{}", i % 6);
        c.plant(0, &key, &ending(i + 1, "v", NOON + 1_000 + i));
    }
    clock(&mut c, 0, NOON + 30_000);
    c.settle();
    assert_eq!(rows(&c, 0), 5, "two records a slice, of two values each");
    assert!(!c.nodes[0].is_idle());
    for _ in 0..10 {
        c.pass(Duration::from_millis(5));
        c.settle();
    }
    assert!(c.nodes[0].is_idle());
    assert_eq!(rows(&c, 0), 0);
    assert_eq!(c.log.matches("counts ExpiredDropped").count(), 9);

    // What is stored while the clock is an hour behind has a deadline that the sweep has passed already.
    clock(&mut c, 0, NOON - 3_600_000);
    c.plant(0, "early", &ending(20, "v", NOON - 3_500_000));
    assert_eq!(rows(&c, 0), 1);
    clock(&mut c, 0, NOON + 31_000);
    c.settle();
    assert_eq!(rows(&c, 0), 0);
    assert!(c.nodes[0].stored(BUCKET, "early").is_none());
}

#[test]
fn a_dropped_bucket_leaves_no_rows_of_deadlines() {
    let mut c = cluster();
    c.compares = true;
    ask(&mut c, 0, lasting_ttl(put("k", "v")).with(w(3)));
    let drop = Request::Bucket(BucketRequest {
        bucket: BUCKET.to_owned(),
        action: BucketAction::Drop,
    });
    ask(&mut c, 0, drop);
    for _ in 0..100 {
        c.pass(Duration::from_millis(1));
        c.settle();
    }
    for at in 0..3 {
        assert_eq!(rows(&c, at), 0, "n{at}");
    }
}

#[test]
fn keys_that_are_put_to_again_and_again_hold_no_more_than_they_may() {
    let limits = Limits {
        ttl_skew_max: Duration::from_secs(3_600),
        siblings_max: 3,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    for at in 0..3 {
        clock(&mut c, at, NOON);
    }
    // Nobody reads, and each value ends before the next comes.
    for i in 0..20 {
        let stored = ask(&mut c, i % 3, lasting_ttl(put("k", "v")).with(w(3)));
        assert!(matches!(stored, Some(Answer::Stored { .. })), "{stored:?}");
        pass(&mut c, TTL);
    }
    assert_eq!(c.record(0, "k").live().len(), 1);
}
