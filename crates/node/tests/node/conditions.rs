//! Writes that read first and happen on a condition: what holds, what is refused, and what a race leaves.

use std::time::Duration;

use bytes::Bytes;
use quorate_node::Input;
use quorate_protocol::{
    Answer, BucketAction, BucketRequest, Condition, Options, Quorum, Refusal, Request,
};
use quorate_ring::NodeId;

use crate::cluster::{
    BUCKET, Cluster, With, delete, foreign, get, holding, nothing_happened, put, r, refusal, w,
};

fn if_absent(request: Request) -> Request {
    request.on_condition(Condition::Absent)
}

fn if_present(request: Request) -> Request {
    request.on_condition(Condition::Present)
}

fn if_dots(request: Request, dots: &[String]) -> Request {
    request.on_condition(Condition::Dots(dots.to_vec()))
}

/// Why a write was refused for its condition.
fn failed(answer: Option<&Answer>) -> &str {
    match refusal(answer) {
        Refusal::ConditionFailed(why) => why,
        other => panic!("{other:?}"),
    }
}

/// What all replicas together show, once everything has arrived.
fn stands(c: &mut Cluster) -> Vec<String> {
    c.settle();
    let read = c.ask(0, get("k").with(r(3)));
    c.settle();
    c.shown(read)
}

#[test]
fn if_absent_creates_once() {
    for coordinator in 0..3 {
        let mut c = Cluster::of(3);
        let first = c.ask(coordinator, if_absent(put("k", "first")));
        c.settle();
        assert!(matches!(c.answer_to(first), Some(Answer::Stored { .. })));
        let second = c.ask((coordinator + 1) % 3, if_absent(put("k", "second")));
        c.settle();
        let why = failed(c.answer_to(second));
        assert!(why.contains("not absent") && why.contains(":1"), "{why}");
        assert_eq!(stands(&mut c), ["first"]);
        // Deleted, it is absent again.
        c.ask(0, delete("k"));
        c.settle();
        let third = c.ask(1, if_absent(put("k", "third")));
        c.settle();
        assert!(matches!(c.answer_to(third), Some(Answer::Stored { .. })));
        assert_eq!(stands(&mut c), ["third"]);
    }
}

#[test]
fn two_racing_creators_leave_siblings_and_lose_nothing() {
    let mut c = Cluster::of(3);
    let one = c.ask(0, if_absent(put("k", "one")));
    let two = c.ask(1, if_absent(put("k", "two")));
    c.settle();
    for put in [one, two] {
        assert!(matches!(c.answer_to(put), Some(Answer::Stored { .. })));
    }
    assert_eq!(stands(&mut c).len(), 2);
}

#[test]
fn if_present_replaces_all_that_stands_and_creates_nothing() {
    let mut c = Cluster::of(3);
    let nothing = c.ask(0, if_present(put("k", "v")));
    c.settle();
    assert!(failed(c.answer_to(nothing)).contains("has no value"));
    for value in ["one", "two"] {
        c.ask(0, put("k", value));
        c.settle();
    }
    let replacing = c.ask(1, if_present(put("k", "all")));
    c.settle();
    assert!(matches!(
        c.answer_to(replacing),
        Some(Answer::Stored { .. })
    ));
    assert_eq!(stands(&mut c), ["all"]);
    let removing = c.ask(2, if_present(delete("k")));
    c.settle();
    assert_eq!(c.answer_to(removing), Some(&Answer::Deleted));
    let again = c.ask(2, if_present(delete("k")));
    c.settle();
    assert!(failed(c.answer_to(again)).contains("has no value"));
}

#[test]
fn a_dot_replaces_just_the_value_that_it_names() {
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "first"));
    c.settle();
    let read = c.ask(1, get("k"));
    c.settle();
    let first = c.dots(read);
    let next = c.ask(2, if_dots(put("k", "second"), &first));
    c.settle();
    assert!(matches!(c.answer_to(next), Some(Answer::Stored { .. })));
    assert_eq!(stands(&mut c), ["second"]);

    // Once replaced, it matches no more, for a put as for a delete.
    for stale in [put("k", "third"), delete("k")] {
        let stale = c.ask(0, if_dots(stale, &first));
        c.settle();
        let why = failed(c.answer_to(stale));
        assert!(why.contains("does not name"), "{why}");
    }
    assert_eq!(stands(&mut c), ["second"]);

    // Siblings never match, even if every one of them is named.
    c.ask(0, put("k", "sibling"));
    c.settle();
    let read = c.ask(1, get("k").with(r(3)));
    c.settle();
    let both = c.dots(read);
    assert_eq!(both.len(), 2);
    let write = c.ask(0, if_dots(put("k", "third"), &both));
    c.settle();
    let why = failed(c.answer_to(write));
    assert!(why.contains("2 values") && why.contains(&both[1]), "{why}");

    // Nor does what is gone.
    c.ask(0, delete("k"));
    c.settle();
    let gone = c.ask(0, if_dots(delete("k"), &both));
    c.settle();
    assert!(failed(c.answer_to(gone)).contains("no value any more"));
    assert!(stands(&mut c).is_empty());
}

#[test]
fn a_stale_replica_does_not_make_a_condition_hold() {
    // n0 has missed the put, as any coordinator may. It must not believe itself.
    for coordinator in 0..3 {
        let mut c = Cluster::of(3);
        let d = foreign(1);
        c.plant((coordinator + 1) % 3, "k", &holding(&[(d, "v")], &[]));
        c.plant((coordinator + 2) % 3, "k", &holding(&[(d, "v")], &[]));
        let create = c.ask(coordinator, if_absent(put("k", "mine")));
        c.settle();
        assert!(failed(c.answer_to(create)).contains("not absent"));
        let replace = c.ask(coordinator, if_dots(put("k", "mine"), &[d.to_string()]));
        c.settle();
        assert!(matches!(c.answer_to(replace), Some(Answer::Stored { .. })));
        assert_eq!(stands(&mut c), ["mine"]);
    }
}

#[test]
fn what_was_absent_does_not_come_back_beside_what_took_its_place() {
    // n1 alone knows that the value was removed, and has that on no disk. A creator finds the key absent; then n1 loses
    // power. Had the put not carried the removal, the old value would stand beside the new one.
    for coordinator in [0, 1] {
        let mut c = Cluster::of(3);
        let d = foreign(1);
        for at in 0..3 {
            c.plant(at, "k", &holding(&[(d, "old")], &[]));
        }
        let removal = c.merge(1, "k", &holding(&[], &[d]));
        c.input(1, Input::Message(NodeId(2), removal));
        let create = c.ask(coordinator, if_absent(put("k", "new")));
        let other = 1 - coordinator;
        while c.answer_to(create).is_none() {
            c.wire.retain(|e| e.from != 2 && e.to != 2);
            if c.wire.is_empty() {
                c.sync(coordinator);
                c.sync(other);
            }
            if !c.wire.is_empty() {
                c.deliver_nth(0);
            }
        }
        assert!(matches!(c.answer_to(create), Some(Answer::Stored { .. })));
        c.restart(1, 0);
        for (at, peer) in [(1, 0), (1, 2), (0, 1)] {
            c.up(at, peer);
        }
        c.wire.clear();
        assert_eq!(stands(&mut c), ["new"]);
    }
}

#[test]
fn a_context_given_beside_a_condition_is_removed_as_well() {
    let mut c = Cluster::of(3);
    let old = c.ask(0, put("k", "old"));
    c.settle();
    let seen = c.context_of(old);
    // It stands on n2 alone, which the write does not ask.
    for at in [0, 1] {
        let gone = holding(&[], &[c.opened("k", &seen).spans()[0].dot]);
        c.plant(at, "k", &gone);
    }
    let create = c.ask(0, if_absent(put("k", "new").having_seen(&seen)).with(r(1)));
    c.settle();
    assert!(matches!(c.answer_to(create), Some(Answer::Stored { .. })));
    assert_eq!(stands(&mut c), ["new"]);

    // A context of another key is refused before anything is read, whatever the condition.
    let forged = if_present(put("other", "v").having_seen(&seen));
    let forged = c.ask(0, forged);
    assert!(matches!(
        refusal(c.answer_to(forged)),
        Refusal::BadContext(_)
    ));
    assert!(c.wire.is_empty());
}

#[test]
fn what_could_not_be_written_is_not_read() {
    let mut c = Cluster::of(3);
    c.down(0, 1);
    c.down(0, 2);
    for request in [if_absent(put("k", "v")), if_present(delete("k"))] {
        let refused = c.ask(0, request.with(r(1)));
        assert!(matches!(
            refusal(c.answer_to(refused)),
            Refusal::Unavailable { needed: 2, .. }
        ));
    }
    let synced = Options {
        r: Some(Quorum::Count(1)),
        w: Some(Quorum::Count(1)),
        dw: Some(Quorum::Count(2)),
        ..Options::default()
    };
    let refused = c.ask(0, if_absent(put("k", "v")).with(synced));
    assert!(nothing_happened(c.answer_to(refused).expect("an answer")));
    let impossible = c.ask(0, if_absent(put("k", "v")).with(r(4)));
    assert!(matches!(
        refusal(c.answer_to(impossible)),
        Refusal::Impossible(_)
    ));
    assert!(c.wire.is_empty());
}

#[test]
fn what_became_of_a_write_that_only_read_is_known() {
    let mut c = Cluster::of(3);
    let create = c.ask(0, if_absent(put("k", "v")));
    c.lose(0, 1);
    c.down(0, 2);
    c.down(0, 1);
    c.pass(Duration::from_millis(700));
    let unmet = c.answer_to(create).expect("an answer");
    assert!(nothing_happened(unmet), "{unmet:?}");
    c.settle();
    assert!((0..3).all(|at| c.record(at, "k").is_empty()));
}

#[test]
fn a_value_that_waits_for_its_condition_is_counted_against_the_memory_for_values() {
    let limits = quorate_node::Limits {
        requests_bytes_max: 100,
        ..quorate_node::Limits::default()
    };
    let defaults = quorate_node::BucketDefaults::default();
    let mut c = Cluster::with(&["here"; 3], defaults, limits);
    let large = "x".repeat(200);
    let waiting = c.ask(0, if_absent(put("k", &large)));
    let refused = c.ask(0, put("other", "v"));
    assert_eq!(refusal(c.answer_to(refused)), &Refusal::Overloaded);
    c.settle();
    assert!(matches!(c.answer_to(waiting), Some(Answer::Stored { .. })));
    let next = c.ask(0, put("other", "v"));
    c.settle();
    assert!(matches!(c.answer_to(next), Some(Answer::Stored { .. })));
}

#[test]
fn a_node_that_is_no_replica_passes_a_condition_on_and_tries_no_other_when_it_fails() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(0);
    c.ask(0, put(&key, "there").with(w(3)));
    c.settle();
    let create = c.ask(0, if_absent(put(&key, "mine")));
    c.settle();
    assert!(failed(c.answer_to(create)).contains("not absent"));
    let read = c.ask(0, get(&key));
    c.settle();
    let replace = if_dots(put(&key, "mine"), &c.dots(read));
    let replace = c.ask(0, replace);
    c.settle();
    assert!(matches!(c.answer_to(replace), Some(Answer::Stored { .. })));
}

#[test]
fn a_conditional_put_shows_what_the_key_holds_if_asked() {
    let mut c = Cluster::of(3);
    let options = Options {
        return_body: true,
        ..Options::default()
    };
    let create = c.ask(0, if_absent(put("k", "v")).with(options));
    c.settle();
    assert_eq!(c.shown(create), ["v"]);
    let context: Bytes = c.context_of(create);
    assert_eq!(c.opened("k", &context).spans().len(), 1);
}

#[test]
fn a_condition_is_looked_at_again_in_the_next_life_of_its_bucket() {
    // n0 has not heard of a drop that n1 and n2 know. What stood in the old life stands no more: a write on condition of it
    // must not create it in the new one.
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "old").with(w(3)));
    c.settle();
    let read = c.ask(0, get("k"));
    c.settle();
    let old = c.dots(read);
    c.down(1, 0);
    let drop = Request::Bucket(BucketRequest {
        bucket: BUCKET.to_owned(),
        action: BucketAction::Drop,
    });
    c.ask(1, drop);
    c.settle();
    c.up(1, 0);
    c.wire.clear();
    let replace = c.ask(0, if_dots(put("k", "new"), &old).explained());
    c.settle();
    let (answer, account) = c.explained(replace);
    assert!(
        matches!(&answer, Answer::Refused(Refusal::ConditionFailed(_))),
        "{answer:?}"
    );
    assert!(account.replicas.iter().any(|r| !r.steps.is_empty()));
    assert!(stands(&mut c).is_empty());
    let create = c.ask(0, if_absent(put("k", "new")));
    c.settle();
    assert!(matches!(c.answer_to(create), Some(Answer::Stored { .. })));
    assert_eq!(stands(&mut c), ["new"]);
}

#[test]
fn a_write_whose_condition_held_in_a_life_that_is_over_is_not_made_in_the_next() {
    // The drop comes between the read and the write.
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "old").with(w(3)));
    c.settle();
    let replace = c.ask(0, if_present(put("k", "new")));
    c.deliver(0, 1);
    c.deliver(1, 0);
    // It is written at n0 and on its way to the others.
    c.down(1, 0);
    let drop = Request::Bucket(BucketRequest {
        bucket: BUCKET.to_owned(),
        action: BucketAction::Drop,
    });
    c.ask(1, drop);
    while let Some(at) = c.wire.iter().position(|e| e.from != 0 && e.to != 0) {
        c.deliver_nth(at);
        c.sync(1);
        c.sync(2);
    }
    c.settle();
    let answer = c.answer_to(replace).expect("an answer");
    assert!(
        matches!(answer, Answer::Unmet(unmet) if unmet.may_have_written),
        "{answer:?}"
    );
    c.up(1, 0);
    assert!(stands(&mut c).is_empty());
}
