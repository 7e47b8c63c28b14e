//! Collecting evidence of removals: when it is forgotten, and that nothing comes back once it is.

use std::time::Duration;

use quorate_causal::{Dot, DotSet, Record};
use quorate_node::Input;
use quorate_protocol::{
    Answer, BucketId, Message, Removal, Removals, ReplicaReply, ReplicaRequest, Request, RequestId,
    Upkeep,
};
use quorate_ring::NodeId;

use crate::cluster::{
    BUCKET, Cluster, Envelope, With, delete, foreign, get, holding, payload, put, r, w,
};
use crate::hints::KEY;
use crate::tended::{SECOND, calm, collecting};

/// By then also those have collected that wait longer, as another is the first to.
const LATER: Duration = Duration::from_secs(15);

/// Four nodes at rest, the primaries of [`KEY`] and the node that stands in for them.
struct Stage {
    c: Cluster,
    primaries: [usize; 3],
    fallback: usize,
}

fn stage(limits: quorate_node::Limits) -> Stage {
    let c = Cluster::at_rest(4, limits);
    let primaries: [usize; 3] = c.replicas(KEY).try_into().expect("three of four");
    let fallback = (0..4).find(|n| !primaries.contains(n)).expect("one more");
    Stage {
        c,
        primaries,
        fallback,
    }
}

fn done(c: &mut Cluster, at: usize, request: Request) {
    let caller = c.ask(at, request);
    c.settle();
    let answer = c.answer_to(caller);
    assert!(
        matches!(answer, Some(Answer::Stored { .. } | Answer::Deleted)),
        "{answer:?}"
    );
}

/// A put that has seen all there is.
fn replace(c: &mut Cluster, at: usize, value: &str) {
    let read = c.ask(at, get(KEY));
    c.settle();
    let seen = c.context_of(read);
    done(c, at, put(KEY, value).having_seen(&seen));
}

fn collected(c: &Cluster, nodes: &[usize]) -> bool {
    nodes.iter().all(|at| c.has_nothing(*at, KEY))
}

fn seen(c: &Cluster, at: usize) -> quorate_causal::DotSet {
    c.nodes[at].seen_of(BUCKET, 0, KEY).expect("a sound disk")
}

fn clock(c: &Cluster, at: usize) -> quorate_causal::DotSet {
    c.nodes[at].clock_of(BUCKET, KEY).expect("a sound disk")
}

/// The dots of the values that a node keeps for others.
fn hinted(c: &Cluster, at: usize) -> Vec<Dot> {
    let hinted = c.hinted(at, KEY);
    hinted.live().iter().map(|s| s.span.dot).collect()
}

#[test]
fn a_removal_is_forgotten_once_all_have_it_and_a_late_hint_stays_out() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(collecting());
    c.leave(p[2]);
    done(&mut c, p[0], put(KEY, "v").with(w(3)));
    assert_eq!(c.hints(fallback), 1);
    // The value comes to its owner by an exchange, and is deleted there and everywhere while the hint waits.
    c.leave(fallback);
    c.come_back(p[2]);
    c.tend(SECOND);
    assert_eq!(c.live(p[2], KEY), ["v"]);
    done(&mut c, p[0], delete(KEY).with(w(3)));
    assert!(p.iter().all(|at| !c.record(*at, KEY).evidence().is_empty()));
    c.tend(2 * SECOND);
    assert!(collected(&c, &p), "{}", c.log);
    assert!(p.iter().all(|at| c.counted(*at, "Forgotten") == 1));

    c.come_back(fallback);
    c.tend(2 * SECOND);
    assert_eq!(c.counted(fallback, "HandedOff"), 1);
    assert_eq!(c.hints(fallback), 0);
    assert!(p.iter().all(|at| c.live(*at, KEY).is_empty()));
    let read = c.ask(p[2], get(KEY).with(r(3)));
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    c.tend(LATER);
    assert!(collected(&c, &p), "{}", c.log);
}

#[test]
fn a_removal_is_kept_while_one_primary_is_down() {
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(collecting());
    done(&mut c, p[0], put(KEY, "v").with(w(3)));
    c.leave(p[2]);
    done(&mut c, p[0], delete(KEY));
    c.tend(30 * SECOND);
    assert_eq!(c.live(p[2], KEY), ["v"]);
    for at in [p[0], p[1]] {
        assert!(!c.record(at, KEY).evidence().is_empty(), "n{at}");
        assert_eq!(c.counted(at, "Forgotten"), 0);
    }
    // It is what tells the one that was away.
    c.come_back(p[2]);
    c.tend(5 * SECOND);
    assert!(collected(&c, &p));
}

/// All confirmed, and one has restarted meanwhile: what it forgets it had on disk.
#[test]
fn what_was_confirmed_survives_a_power_loss() {
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(collecting());
    done(&mut c, p[0], put(KEY, "v").with(w(3)));
    let dot = c.record(p[0], KEY).live()[0].span.dot;
    done(&mut c, p[0], delete(KEY).with(w(3)));
    c.tend(2 * SECOND);
    assert!(collected(&c, &p));
    c.reboot(p[2]);
    c.tend(2 * SECOND);
    let late = holding(&[(dot, "v")], &[]);
    c.plant(p[2], KEY, &late);
    assert!(c.live(p[2], KEY).is_empty());
}

/// Two dots of one run came to an owner by adoption alone, so that it does not know what became of them. It refuses their hint once,
/// hears the others, and knows each of them from there on.
#[test]
fn a_hint_of_what_was_judged_is_not_refused_again() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(collecting());
    c.leave(p[2]);
    done(&mut c, p[0], put(KEY, "a").with(w(3)));
    done(&mut c, p[0], put(KEY, "b").with(w(3)));
    let late = hinted(&c, fallback);
    assert_eq!(late.len(), 2, "{}", c.log);
    c.leave(fallback);
    replace(&mut c, p[0], "c");
    done(&mut c, p[0], delete(KEY));
    c.restart_unclean(p[2]);
    c.come_back(p[2]);
    c.tend(8 * SECOND);
    assert!(collected(&c, &p), "{}", c.log);
    let own = clock(&c, p[2]);
    assert!(late.iter().all(|dot| !own.contains(*dot)), "not its own");
    assert!(late.iter().all(|dot| seen(&c, p[2]).contains(*dot)));

    // The hint comes, is refused, and its holder is gone before it can come again.
    c.come_back(fallback);
    for _ in 0..100 {
        if c.counted(fallback, "HandoffRefused") > 0 {
            break;
        }
        c.tend(SECOND / 100);
    }
    assert_eq!(c.counted(fallback, "HandoffRefused"), 1);
    c.leave(fallback);
    c.tend(LATER);
    assert_eq!(c.counted(p[2], "AbsenceUpheld"), 1);
    assert!(collected(&c, &p), "{}", c.log);
    let own = clock(&c, p[2]);
    assert!(late.iter().all(|dot| own.contains(*dot)), "{own:?}");
    c.come_back(fallback);
    c.tend(SECOND);
    assert_eq!(c.counted(fallback, "HandoffRefused"), 1);
    assert_eq!(c.hints(fallback), 0);
    c.tend(LATER);
    assert!(collected(&c, &p), "{}", c.log);
}

/// A value is deleted, and its removal forgotten everywhere, between the answers of two replicas to one read.
#[test]
fn a_read_finds_a_removal_that_was_collected_meanwhile() {
    let limits = quorate_node::Limits {
        collect_after: SECOND / 20,
        ..calm()
    };
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(limits);
    done(&mut c, p[0], put(KEY, "v").with(w(3)));
    let read = c.ask(p[0], get(KEY).with(r(2)));
    let is_read = |m: &Message| matches!(m, Message::Replica(_, _, ReplicaRequest::Read(_)));
    let slow = |e: &crate::cluster::Envelope| e.from == p[0] && is_read(&e.message);
    let deleted = c.ask(p[1], delete(KEY).with(w(3)));
    c.tend_but(2 * SECOND, slow);
    assert_eq!(c.answer_to(deleted), Some(&Answer::Deleted));
    assert!(collected(&c, &p), "{}", c.log);
    assert_eq!(c.answer_to(read), None);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    c.tend(SECOND);
    assert!(collected(&c, &p), "nor was anybody repaired");
}

/// The same question where nothing was removed: a replica that missed the put changes nothing.
#[test]
fn a_read_shows_what_a_replica_never_had() {
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(calm());
    c.plant(p[0], KEY, &holding(&[(foreign(1), "v")], &[]));
    let read = c.ask(p[0], get(KEY).with(r(3)));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(c.live(p[2], KEY), ["v"]);
}

#[test]
fn what_a_fallback_keeps_and_primaries_have_removed_is_not_shown() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(collecting());
    c.leave(p[2]);
    done(&mut c, p[0], put(KEY, "v").with(w(3)));
    c.leave(fallback);
    c.come_back(p[2]);
    c.tend(SECOND);
    done(&mut c, p[0], delete(KEY).with(w(3)));
    c.tend(2 * SECOND);
    assert!(collected(&c, &p));
    // Now the fallback has to stand in for one of those that know better.
    c.leave(p[1]);
    c.leave(p[2]);
    c.come_back(fallback);
    assert_eq!(hinted(&c, fallback).len(), 1);
    let read = c.ask(p[0], get(KEY).with(r(2)));
    c.tend(SECOND);
    assert_eq!(c.counted(p[0], "FallbackRead"), 1);
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
}

/// The same where no primary in reach ever had it: then it is all there is.
#[test]
fn what_a_fallback_keeps_and_no_primary_had_is_shown() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(collecting());
    c.leave(p[2]);
    c.leave(p[1]);
    done(&mut c, fallback, put(KEY, "v").with(w(2)));
    c.leave(p[0]);
    c.come_back(p[1]);
    let read = c.ask(p[1], get(KEY).with(r(2)));
    c.tend(SECOND);
    assert_eq!(c.shown(read), ["v"]);
}

/// A run of evidence has counters that no replica has seen: of another key, or of this one in the hands of a fallback. Once the run is
/// forgotten, the one is still taken, and the other still kept out.
#[test]
fn what_is_left_of_a_forgotten_run_belongs_to_its_key_alone() {
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(collecting());
    let other = (0..)
        .map(|i| format!("other-{i}"))
        .find(|key| c.vnode(key) == c.vnode(KEY))
        .expect("there are more keys than partitions");
    let removed = holding(&[], &[foreign(1), foreign(2), foreign(3)]);
    for at in p {
        c.plant(at, KEY, &removed);
        let own = clock(&c, at);
        assert!(own.contains(foreign(3)) && !own.contains(foreign(2)));
    }
    c.tend(2 * SECOND);
    assert!(collected(&c, &p), "holes in a run hold nothing up");
    c.reboot(p[1]);
    c.tend(2 * SECOND);
    for at in p {
        c.plant(at, &other, &holding(&[(foreign(2), "another")], &[]));
        assert_eq!(c.live(at, &other), ["another"], "n{at}");
        c.plant(at, KEY, &holding(&[(foreign(1), "late")], &[]));
        assert!(c.live(at, KEY).is_empty(), "n{at}");
    }
    c.tend(2 * SECOND);
    assert!(collected(&c, &p));
    let read = c.ask(p[0], get(KEY).with(r(3)));
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    // It has been seen now, and keeps itself out.
    assert!(p.iter().all(|at| clock(&c, *at).contains(foreign(1))));
}

/// A collection does not take a removal to a replica that has nothing of what stands in its place.
#[test]
fn a_collected_removal_brings_what_stands_in_its_place() {
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(collecting());
    let old = holding(&[(foreign(1), "old")], &[]);
    for at in p {
        c.plant(at, KEY, &old);
    }
    let new = holding(&[(foreign(2), "new")], &[foreign(1)]);
    c.plant(p[0], KEY, &new);
    c.tend(5 * SECOND);
    let kept = Record::from_parts(
        vec![quorate_causal::Sibling {
            span: quorate_causal::Span::lone(foreign(2)),
            payload: payload("new"),
            expires: None,
        }],
        quorate_causal::DotSet::new(),
    );
    assert!(c.all_have(&p, KEY, &kept), "{}", c.log);
}

/// A replica that is asked again, since another has forgotten a removal meanwhile, is not taken at its word of before: that comes twice.
#[test]
fn an_answer_that_comes_twice_is_none_to_the_second_question() {
    let limits = quorate_node::Limits {
        collect_after: SECOND / 20,
        ..calm()
    };
    let Stage {
        mut c,
        primaries: p,
        ..
    } = stage(limits);
    for at in [p[1], p[2]] {
        c.plant(at, KEY, &holding(&[(foreign(1), "v")], &[]));
    }
    let is_read = |m: &Message| matches!(m, Message::Replica(_, _, ReplicaRequest::Read(_)));
    let slow = |e: &Envelope| e.to == p[2] && is_read(&e.message);
    let is_record = |e: &Envelope| {
        e.from == p[1] && matches!(e.message, Message::Reply(_, ReplicaReply::Record(_)))
    };
    let read = c.ask(p[0], get(KEY).with(r(3)));
    c.settle_but(&mut |e| slow(e) || is_record(e));
    let told = c.wire.iter().find(|e| is_record(e));
    let told = told.expect("digests differ").clone();
    c.settle_but(&mut |e| slow(e));
    let deleted = c.ask(p[1], delete(KEY).with(w(3)));
    c.tend_but(2 * SECOND, slow);
    assert_eq!(c.answer_to(deleted), Some(&Answer::Deleted));
    assert!(collected(&c, &p), "{}", c.log);
    // Now it learns that the last has nothing, and what became of it; and the first is asked again.
    let again = |e: &Envelope| e.to == p[1] && is_read(&e.message);
    c.settle_but(&mut |e| again(e));
    assert_eq!(c.wire.iter().filter(|e| again(e)).count(), 1, "{}", c.log);
    c.arrive(told);
    c.settle_but(&mut |e| again(e));
    assert_eq!(c.answer_to(read), None);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
}

/// A replica whose disk has failed still knows that a value never was there.
#[test]
fn what_a_fallback_keeps_is_not_hidden_by_a_replica_whose_disk_has_failed() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(calm());
    for at in p {
        c.leave(at);
    }
    done(&mut c, fallback, put(KEY, "v").with(w(1)));
    c.come_back(p[0]);
    c.come_back(p[1]);
    c.input(p[1], Input::Poisoned("the disk failed".to_owned()));
    let read = c.ask(p[0], get(KEY).with(r(3)));
    c.settle();
    assert_eq!(c.counted(p[0], "FallbackRead"), 1);
    assert_eq!(c.shown(read), ["v"]);
}

/// What is not shown takes nothing away either.
#[test]
fn what_a_fallback_keeps_and_a_primary_has_no_more_removes_nothing_in_a_read() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(calm());
    // The primary took the new value once, and has it no more.
    c.plant(p[0], KEY, &holding(&[(foreign(2), "new")], &[]));
    c.plant(p[0], KEY, &holding(&[], &[foreign(2)]));
    forget(&mut c, p[0], foreign(2));
    c.plant(p[0], KEY, &holding(&[(foreign(1), "old")], &[]));
    let kept = holding(&[(foreign(2), "new")], &[foreign(1)]);
    c.leave(p[1]);
    c.leave(p[2]);
    keep(&mut c, fallback, &p, &kept);
    c.settle();
    assert_eq!(hinted(&c, fallback), [foreign(2)]);
    let read = c.ask(p[0], get(KEY).with(r(2)));
    c.settle();
    assert_eq!(c.counted(p[0], "FallbackRead"), 1);
    assert_eq!(c.shown(read), ["old"]);
}

/// Nor does what stands beside it in the same record: which of the two took a value's place cannot be told.
#[test]
fn what_stands_beside_a_value_that_is_not_shown_removes_nothing_either() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(calm());
    c.plant(p[0], KEY, &holding(&[(foreign(2), "new")], &[]));
    c.plant(p[0], KEY, &holding(&[], &[foreign(2)]));
    forget(&mut c, p[0], foreign(2));
    c.plant(p[0], KEY, &holding(&[(foreign(1), "old")], &[]));
    let shown = [(foreign(2), "new"), (foreign(3), "beside")];
    c.leave(p[1]);
    c.leave(p[2]);
    keep(&mut c, fallback, &p, &holding(&shown, &[foreign(1)]));
    c.settle();
    let read = c.ask(p[0], get(KEY).with(r(2)));
    c.settle();
    assert_eq!(c.counted(p[0], "FallbackRead"), 1);
    assert_eq!(c.shown(read), ["old", "beside"]);
}

/// A primary has told what it had; then it takes what a fallback keeps, and what replaces that.
#[test]
fn what_a_primary_told_before_it_had_what_a_fallback_keeps_is_asked_for_again() {
    let Stage {
        mut c,
        primaries: p,
        fallback,
    } = stage(calm());
    let (old, new, newer, beside) = (foreign(1), foreign(2), foreign(3), foreign(4));
    let before = holding(&[(old, "old"), (beside, "beside")], &[]);
    c.plant(p[0], KEY, &before);
    let kept = holding(&[(new, "new"), (beside, "beside")], &[old]);
    keep(&mut c, fallback, &p, &kept);
    c.sync(fallback);
    let read = c.ask(p[0], get(KEY).with(r(2)));
    c.plant(p[0], KEY, &holding(&[(new, "new")], &[old]));
    c.plant(p[0], KEY, &holding(&[(newer, "newer")], &[new]));
    c.leave(p[1]);
    c.leave(p[2]);
    c.settle();
    c.pass(Duration::from_secs(1));
    c.settle();
    assert_eq!(c.counted(p[0], "FallbackRead"), 1);
    assert_eq!(c.shown(read), ["newer", "beside"]);
}

/// A fallback keeps a record for the second of the primaries, which the first has sent.
fn keep(c: &mut Cluster, fallback: usize, primaries: &[usize], record: &Record) {
    let Message::Replica(id, header, ReplicaRequest::Merge(mut merge)) =
        c.merge(u64::MAX, KEY, record)
    else {
        unreachable!("a merge");
    };
    merge.hint_for = Some(NodeId(primaries[1] as u64));
    let message = Message::Replica(id, header, ReplicaRequest::Merge(merge));
    c.arrive(Envelope {
        from: primaries[0],
        to: fallback,
        message,
    });
}

/// A replica is told that everybody has a removal.
fn forget(c: &mut Cluster, at: usize, dot: Dot) {
    let dots: DotSet = [dot].into_iter().collect();
    let removal = Removal {
        bucket: BucketId::new(BUCKET, 0),
        key: KEY.into(),
        dots: dots.encode(),
    };
    let asked = Upkeep::Forget(Removals {
        vnode: c.vnode(KEY),
        keys: vec![removal],
    });
    let request = ReplicaRequest::Upkeep(Box::new(asked));
    let message = Message::Replica(RequestId(u64::MAX), c.header(), request);
    let from = (at + 1) % 4;
    c.arrive(Envelope {
        from,
        to: at,
        message,
    });
    c.settle();
    assert!(c.has_nothing(at, KEY));
}
