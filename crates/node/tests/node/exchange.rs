//! Exchanges: replicas come to have the same with no read to help them, and what they take of removals changes no answer.

use quorate_causal::DotSet;
use quorate_node::Limits;
use quorate_protocol::Answer;

use crate::cluster::{BUCKET, Cluster, With, foreign, get, holding, payload, put, r, w};
use crate::tended::{SECOND, asks_for_evidence, asks_for_parts, calm, is_exchange};
use crate::ttl::{NOON, SKEW, TTL, clock, lasting_ttl, pass, rows};

#[test]
fn replicas_converge_without_a_read() {
    let mut c = Cluster::at_rest(3, calm());
    // So many that no part of a tree is named key by key at once.
    let keys: Vec<String> = (0..1_500).map(|i| format!("key-{i}")).collect();
    for (i, key) in keys.iter().enumerate() {
        let (dot, other) = (foreign(2 * i as u64 + 1), foreign(2 * i as u64 + 2));
        let (old, new) = (
            holding(&[(dot, "old")], &[]),
            holding(&[(other, "new")], &[dot]),
        );
        // Most are the same on both; of some one has nothing, of some each has a value, of some one missed the last put.
        let (mine, theirs) = match i % 100 {
            0 => (Some(old), None),
            1 => (None, Some(new)),
            2 => (Some(old), Some(holding(&[(other, "sibling")], &[]))),
            3 => (Some(old), Some(new)),
            _ => (Some(old.clone()), Some(old)),
        };
        for (at, record) in [(0, mine), (1, theirs)] {
            if let Some(record) = record {
                c.plant(at, key, &record);
            }
        }
    }
    c.meet(0, 1);
    c.tend(2 * SECOND);
    for (i, key) in keys.iter().enumerate() {
        let shown = c.live(0, key);
        assert_eq!(shown, c.live(1, key), "{key}");
        let expected: &[&str] = match i % 100 {
            1 | 3 => &["new"],
            2 => &["old", "sibling"],
            _ => &["old"],
        };
        assert_eq!(shown, expected, "{key}");
    }
    let reconciled = c.counted(0, "KeyReconciled");
    assert!(reconciled >= 60, "{reconciled}");
    let exchanged = c.counted(0, "Exchanged");
    assert!(exchanged >= 8, "one for each partition");
    // Now they are equal.
    c.meet(0, 1);
    c.tend(SECOND);
    assert!(c.counted(0, "Exchanged") >= exchanged + 8);
    assert_eq!(c.counted(0, "KeyReconciled"), reconciled);
}

/// With nothing said by anybody, each pair comes by turn.
#[test]
fn pairs_are_compared_by_turn() {
    let limits = Limits {
        exchange_cycle: 4 * SECOND,
        ..calm()
    };
    let mut c = Cluster::at_rest(3, limits);
    let record = holding(&[(foreign(1), "v")], &[]);
    c.plant(2, "k", &record);
    // A share of the cycle for each pair is drawn at random, up to half as long again.
    c.tend(6 * SECOND);
    assert!(c.all_have(&[0, 1, 2], "k", &record));
}

#[test]
fn an_exchange_between_equals_costs_two_small_messages() {
    let mut c = Cluster::at_rest(3, calm());
    for i in 0..200 {
        c.ask(0, put(&format!("key-{i}"), &"v".repeat(1_000)).with(w(3)));
        c.settle();
    }
    // Both have seen the same once an exchange has said so.
    c.meet(0, 1);
    c.tend(SECOND);
    let before = c.counted(0, "Exchanged");
    let (mut bytes, mut messages) = (0, 0);
    c.meet(0, 1);
    c.tend_but(SECOND, |e| {
        if is_exchange(e) {
            bytes += e.message.encode().len();
            messages += 1;
        }
        false
    });
    let exchanges = c.counted(0, "Exchanged") - before;
    assert!(exchanges >= 8, "one for each partition");
    assert_eq!(messages, 2 * exchanges);
    assert!(bytes <= 200 * exchanges, "{} bytes each", bytes / exchanges);
}

/// Put p reaches one replica, B, and removes d, which A and B had acknowledged. C has missed both, and is told of the removal while it
/// is refilled: it takes none without what stands in the place of d.
#[test]
fn a_pulled_removal_brings_what_stands_in_its_place() {
    let (d, p) = (foreign(10), foreign(11));
    let (mut c, [a, b, third]) = (Cluster::at_rest(3, calm()), [0, 1, 2]);
    c.leave(third);
    c.restart_unclean(third);
    c.leave(a);
    c.come_back(third);
    // The sums have been compared when d and p come.
    c.tend_but(SECOND, asks_for_evidence);
    let waiting = c.wire.iter().filter(|e| asks_for_evidence(e)).count();
    assert_eq!(waiting, 1, "{}", c.log);
    c.come_back(a);
    for at in [a, b] {
        c.plant(at, "k", &holding(&[(d, "d")], &[]));
    }
    c.plant(b, "k", &holding(&[(p, "p")], &[d]));
    c.tend(2 * SECOND);
    assert_eq!(c.live(third, "k"), ["p"]);
    c.leave(b);
    let read = c.ask(a, get("k").with(r(2)));
    c.settle();
    assert_eq!(c.shown(read), ["p"]);
}

/// Evidence is in no tree, and only whoever is refilled asks for it: it adopts what the other has seen, and must know what was removed.
#[test]
fn removals_are_pulled_in_a_refill_where_sums_are_equal() {
    let mut c = Cluster::at_rest(3, calm());
    let removed = holding(&[], &[foreign(1)]);
    c.plant(0, "k", &removed);
    c.meet(2, 0);
    c.tend(SECOND);
    assert!(c.counted(2, "Exchanged") >= 8);
    assert_eq!(c.record(2, "k"), holding(&[], &[]), "nobody tells it yet");
    c.leave(2);
    c.restart_unclean(2);
    c.come_back(2);
    c.tend(2 * SECOND);
    assert_eq!(c.record(2, "k"), removed);
    // So that what comes late there is kept out.
    c.plant(2, "k", &holding(&[(foreign(1), "late")], &[]));
    assert!(c.live(2, "k").is_empty());
}

/// An answer is lost, and so is its asker's patience after a while; then the same exchange is made again, out of turn.
#[test]
fn an_exchange_that_is_broken_off_is_made_again() {
    let mut c = Cluster::at_rest(3, calm());
    let record = holding(&[(foreign(1), "v")], &[]);
    c.plant(1, "k", &record);
    c.meet(0, 1);
    let vnode = c.vnode("k");
    c.tend_but(SECOND, |e| asks_for_parts(e, vnode));
    c.wire.clear();
    c.tend(3 * SECOND);
    assert_eq!(c.counted(0, "ExchangeBroken"), 0);
    assert!(c.has_nothing(0, "k"));
    c.tend(3 * SECOND);
    assert_eq!(c.counted(0, "ExchangeBroken"), 1);
    assert_eq!(c.record(0, "k"), record);
}

#[test]
fn a_value_keeps_its_deadline_through_an_exchange() {
    let limits = Limits {
        ttl_skew_max: SKEW,
        ..calm()
    };
    let mut c = Cluster::at_rest(3, limits);
    let began = NOON + (c.now.0 - 1_000_000) / 1_000;
    for at in 0..3 {
        clock(&mut c, at, began);
    }
    c.leave(2);
    let stored = c.ask(0, lasting_ttl(put("k", "v")));
    c.settle();
    assert!(matches!(c.answer_to(stored), Some(Answer::Stored { .. })));
    let ends = c.record(0, "k").live()[0].expires;
    assert_eq!(ends, Some(began + TTL.as_millis() as u64));
    pass(&mut c, TTL / 2);
    c.come_back(2);
    c.tend(2 * SECOND);
    assert_eq!(c.live(2, "k"), ["v"]);
    assert_eq!(c.record(2, "k").live()[0].expires, ends, "not from now on");
    assert_eq!(rows(&c, 2), 1);
    pass(&mut c, TTL / 2 + SKEW);
    c.tend(2 * SECOND);
    for at in 0..3 {
        assert!(c.live(at, "k").is_empty(), "n{at}");
        assert_eq!(rows(&c, at), 0, "n{at}");
    }
}

/// One replica has dropped what is dead before the other has: the other's copy does not come back to it.
#[test]
fn what_was_dropped_at_its_end_does_not_come_back_by_an_exchange() {
    let limits = Limits {
        ttl_skew_max: SKEW,
        ..calm()
    };
    let mut c = Cluster::at_rest(3, limits);
    let now = NOON + (c.now.0 - 1_000_000) / 1_000;
    clock(&mut c, 0, now);
    let ended = quorate_causal::Sibling {
        span: quorate_causal::Span::lone(foreign(1)),
        payload: payload("v"),
        expires: Some(now + 1_000),
    };
    let record = quorate_causal::Record::from_parts(vec![ended], DotSet::new());
    c.plant(0, "k", &record);
    // n1 does not know what time it is, and keeps it.
    c.plant(1, "k", &record);
    clock(&mut c, 0, now + 1_000 + SKEW.as_millis() as u64 + 1_000);
    c.tend(SECOND);
    assert!(c.live(0, "k").is_empty());
    assert_eq!(c.live(1, "k"), ["v"]);
    c.meet(0, 1);
    c.tend(SECOND);
    assert!(c.counted(0, "Exchanged") > 0);
    assert!(c.live(0, "k").is_empty());
    let seen = c.nodes[0].seen_of(BUCKET, 0, "k").expect("a sound disk");
    assert!(seen.contains(foreign(1)));
}
