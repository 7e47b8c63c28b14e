//! Values that end while a fallback keeps them: a hint carries the deadline, and an owner that comes back late is brought nothing.

use std::time::Duration;

use quorate_node::Limits;

use crate::cluster::{BUCKET, With, get, put, w};
use crate::hints::{KEY, Stage, a_while, all_hints, back, cut_off, stage_with, stored};
use crate::ttl::{NOON, SKEW, TTL, clock, lasting_ttl, pass, rows};

/// So many nodes that know what time it is.
fn stage(nodes: usize, siblings_max: usize) -> Stage {
    let limits = Limits {
        ttl_skew_max: SKEW,
        siblings_max,
        ..Limits::default()
    };
    let mut s = stage_with(&vec!["here"; nodes], limits);
    for at in 0..nodes {
        clock(&mut s.c, at, NOON);
    }
    s
}

#[test]
fn a_hint_that_is_dead_when_its_owner_returns_stores_nothing() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(4, 3);
    let old = c.ask(p[0], put(KEY, "old").with(w(3)));
    c.settle();
    let seen = c.context_of(old);
    cut_off(&mut c, p[2]);
    let ends = lasting_ttl(put(KEY, "v")).having_seen(&seen).with(w(3));
    assert!(stored(&mut c, p[0], ends));
    assert_eq!(c.hints(f[0]), 1);

    pass(&mut c, TTL + SKEW + Duration::from_secs(1));
    back(&mut c, p[2]);
    a_while(&mut c);
    assert_eq!(
        all_hints(&c),
        0,
        "its owner has seen it, which is all there was to do"
    );
    let late = c.record(p[2], KEY);
    assert!(late.live().is_empty(), "neither it nor what it replaced");
    assert_eq!(rows(&c, p[2]), 0);
    let clock_of = |at: usize| c.nodes[at].clock_of(BUCKET, KEY).expect("a sound disk");
    assert_eq!(clock_of(p[2]), clock_of(p[0]));
}

#[test]
fn an_owner_gets_the_deadline_with_the_hint() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(4, 3);
    cut_off(&mut c, p[2]);
    assert!(stored(&mut c, p[0], lasting_ttl(put(KEY, "v")).with(w(3))));
    assert_eq!(c.hints(f[0]), 1);
    pass(&mut c, TTL / 2);
    back(&mut c, p[2]);
    a_while(&mut c);
    assert_eq!(all_hints(&c), 0);
    let given = NOON + TTL.as_millis() as u64;
    for at in [p[0], p[2]] {
        assert_eq!(c.record(at, KEY).live()[0].expires, Some(given), "n{at}");
        assert_eq!(rows(&c, at), 1, "n{at}");
    }
    pass(&mut c, TTL / 2 + SKEW);
    a_while(&mut c);
    for at in [p[0], p[2]] {
        assert!(c.record(at, KEY).live().is_empty(), "n{at}");
        assert_eq!(rows(&c, at), 0, "n{at}");
    }
}

/// What has expired cannot be seen, so no client could resolve it: a put through a fallback removes it as any put does.
#[test]
fn a_coordinating_fallback_holds_no_more_than_it_may() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(5, 3);
    p.iter().for_each(|node| cut_off(&mut c, *node));
    for i in 0..20 {
        let put = lasting_ttl(put(KEY, "v"));
        assert!(stored(&mut c, f[i % 2], put), "put {i}");
        pass(&mut c, TTL);
        let read = c.ask(f[i % 2], get(KEY));
        c.settle();
        assert_eq!(c.shown(read), Vec::<String>::new(), "after put {i}");
    }
    // The one who coordinated and the one who was asked later to keep it know the same.
    for at in f {
        let kept = c.hinted(at, KEY);
        assert_eq!(kept.live().len(), 1, "n{at}: {kept:?}");
    }

    p.iter().for_each(|node| back(&mut c, *node));
    pass(&mut c, SKEW);
    a_while(&mut c);
    assert_eq!(all_hints(&c), 0);
    for at in p {
        assert!(c.record(at, KEY).live().is_empty(), "n{at}");
    }
}
