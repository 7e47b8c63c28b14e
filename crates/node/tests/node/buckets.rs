//! Buckets created, changed and dropped, with nodes that miss it.

use std::time::Duration;

use quorate_node::{BucketDefaults, Input, Limits};
use quorate_protocol::{
    Answer, BucketAction, BucketDescription, BucketRequest, PropertyChanges, Quorum, Refusal,
    Request,
};
use quorate_ring::NodeId;
use quorate_storage::{Family, Storage as _};

use crate::cluster::{BUCKET, Cluster, With, delete, get, put, r, refusal, w};

fn of(action: BucketAction) -> Request {
    Request::Bucket(BucketRequest {
        bucket: BUCKET.to_owned(),
        action,
    })
}

fn create(changes: PropertyChanges) -> Request {
    of(BucketAction::Create(changes))
}

fn with_r(count: u8) -> PropertyChanges {
    PropertyChanges {
        r: Some(Quorum::Count(count)),
        ..PropertyChanges::default()
    }
}

/// A cluster whose nodes compare their tables.
fn cluster(nodes: usize) -> Cluster {
    let mut c = Cluster::of(nodes);
    c.compares = true;
    c
}

fn done(c: &mut Cluster, at: usize, request: Request) -> Answer {
    let caller = c.ask(at, request);
    c.settle();
    // What is looked for in slices takes its time.
    for _ in 0..50 {
        if c.answer_to(caller).is_none() {
            c.pass(Duration::from_millis(1));
            c.settle();
        }
    }
    c.answer_to(caller).expect("an answer").clone()
}

fn described(answer: &Answer) -> &BucketDescription {
    match answer {
        Answer::Bucket(bucket) => bucket,
        other => panic!("not a bucket: {other:?}"),
    }
}

/// Cuts a node off from all others, both ways. What is on its way is lost.
fn isolate(c: &mut Cluster, who: usize) {
    c.wire.retain(|e| e.from != who && e.to != who);
    for other in (0..c.nodes.len()).filter(|o| *o != who) {
        c.down(other, who);
        c.down(who, other);
    }
}

fn rejoin(c: &mut Cluster, who: usize) {
    for other in (0..c.nodes.len()).filter(|o| *o != who) {
        c.up(other, who);
        c.up(who, other);
    }
}

#[test]
fn a_bucket_nobody_created_has_the_defaults() {
    let mut c = cluster(3);
    let shown = done(&mut c, 1, of(BucketAction::Show));
    let bucket = described(&shown);
    assert!(!bucket.created);
    assert_eq!(
        (bucket.n, bucket.r, bucket.generation),
        (3, Quorum::Majority, 0)
    );
    assert_eq!(done(&mut c, 0, Request::Buckets), Answer::Buckets(vec![]));
}

#[test]
fn what_is_created_here_holds_everywhere() {
    let mut c = cluster(3);
    let created = done(&mut c, 0, create(with_r(1)));
    assert!(described(&created).created);
    for at in 0..3 {
        let shown = done(&mut c, at, of(BucketAction::Show));
        assert_eq!(described(&shown), described(&created), "n{at}");
    }
    // A get now asks one replica, as the bucket says; and a request's own wish still goes first.
    done(&mut c, 0, put("k", "v"));
    isolate(&mut c, 1);
    isolate(&mut c, 2);
    let one = c.ask(0, get("k"));
    assert_eq!(c.shown(one), ["v"]);
    let two = c.ask(0, get("k").with(r(2)));
    assert!(matches!(
        refusal(c.answer_to(two)),
        Refusal::Unavailable { .. }
    ));
}

#[test]
fn what_contradicts_a_bucket_is_refused_and_changes_nothing() {
    let mut c = cluster(3);
    let update = |changes| of(BucketAction::Update(changes));
    let not_there = done(&mut c, 0, update(with_r(1)));
    assert!(matches!(refusal(Some(&not_there)), Refusal::NotFound(_)));
    let created = done(&mut c, 0, create(with_r(1)));
    let again = done(&mut c, 1, create(with_r(1)));
    assert!(matches!(refusal(Some(&again)), Refusal::Conflict(_)));
    for (changes, says) in [
        (
            PropertyChanges {
                n: Some(2),
                ..PropertyChanges::default()
            },
            "n for life",
        ),
        (
            PropertyChanges {
                w: Some(Quorum::Count(4)),
                ..PropertyChanges::default()
            },
            "w=4",
        ),
        (with_r(0), "r=0"),
        (
            PropertyChanges {
                max_siblings: Some(0),
                ..PropertyChanges::default()
            },
            "max_siblings=0",
        ),
        (
            PropertyChanges {
                regions: Some(vec!["mars".to_owned()]),
                ..PropertyChanges::default()
            },
            "regions for life",
        ),
    ] {
        let refused = done(&mut c, 2, update(changes));
        let Refusal::Impossible(why) = refusal(Some(&refused)) else {
            panic!("{refused:?}");
        };
        assert!(why.contains(says), "{why}");
    }
    let elsewhere = PropertyChanges {
        regions: Some(vec!["mars".to_owned()]),
        ..PropertyChanges::default()
    };
    let wide = PropertyChanges {
        n: Some(4),
        ..PropertyChanges::default()
    };
    for (changes, says) in [(elsewhere, "no region 'mars'"), (wide, "n=4")] {
        let request = Request::Bucket(BucketRequest {
            bucket: "other".to_owned(),
            action: BucketAction::Create(changes),
        });
        let refused = done(&mut c, 0, request);
        let Refusal::Impossible(why) = refusal(Some(&refused)) else {
            panic!("{refused:?}");
        };
        assert!(why.contains(says), "{why}");
    }
    for at in 0..3 {
        let shown = done(&mut c, at, of(BucketAction::Show));
        assert_eq!(described(&shown), described(&created));
    }
}

#[test]
fn a_dropped_name_used_again_shows_nothing_old_also_from_a_node_that_was_away() {
    for asked_first in 0..3 {
        let mut c = cluster(3);
        done(&mut c, 0, put("k", "old").with(w(3)));
        isolate(&mut c, 2);
        let dropped = done(&mut c, 0, of(BucketAction::Drop));
        assert_eq!(described(&dropped).generation, 1);
        done(&mut c, 1, put("other", "new"));
        // It comes back, and is asked before it has heard of anything.
        rejoin(&mut c, 2);
        c.wire.clear();
        for at in [asked_first, 2] {
            let got = c.ask(at, get("k"));
            c.settle();
            assert_eq!(c.answer_to(got), Some(&Answer::Absent), "n{at}");
        }
        // Also alone, once it has heard.
        isolate(&mut c, 2);
        let alone = c.ask(2, get("k").with(r(1)));
        assert_eq!(c.answer_to(alone), Some(&Answer::Absent));
    }
}

#[test]
fn a_put_by_a_node_that_missed_the_drop_is_unknown_and_gone_and_the_next_one_counts() {
    let mut c = cluster(3);
    done(&mut c, 0, put("k", "old").with(w(3)));
    isolate(&mut c, 2);
    done(&mut c, 0, of(BucketAction::Drop));
    rejoin(&mut c, 2);
    c.wire.clear();
    let Answer::Unmet(unmet) = done(&mut c, 2, put("k", "lost")) else {
        panic!("it was acknowledged to a quorum that knows of the drop");
    };
    assert!(unmet.may_have_written);
    let stored = done(&mut c, 2, put("k", "new"));
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    for at in 0..3 {
        let got = c.ask(at, get("k").with(r(3)));
        c.settle();
        assert_eq!(c.shown(got), ["new"], "n{at}");
    }
}

#[test]
fn a_second_drop_begins_a_life_of_its_own_whoever_heard_of_the_first() {
    let mut c = cluster(3);
    // The first drop reaches nobody but its coordinator, which goes on to write in the life that it began.
    let first = c.ask(0, of(BucketAction::Drop));
    c.wire.clear();
    done(&mut c, 0, put("k", "between").with(w(3)));
    c.compares = false;
    c.wire.clear();
    // The second operator's node has not heard of it, but of the write.
    let second = done(&mut c, 1, of(BucketAction::Drop));
    assert_eq!(described(&second).generation, 2);
    for at in 0..3 {
        let got = c.ask(at, get("k"));
        c.settle();
        assert_eq!(c.answer_to(got), Some(&Answer::Absent), "n{at}");
    }
    assert!(!matches!(c.answer_to(first), Some(Answer::Bucket(_))));
}

#[test]
fn what_was_dropped_is_removed_from_the_disks_also_after_a_restart() {
    let limits = Limits {
        slice_units: 30,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    for i in 0..300 {
        done(&mut c, 0, put(&format!("k{i}"), "v").with(w(3)));
    }
    done(&mut c, 0, of(BucketAction::Drop));
    done(&mut c, 0, put("k1", "new").with(w(3)));
    c.restart(2, 0);
    let records = |c: &Cluster, at: usize| {
        let all = c.nodes[at].storage();
        all.scan(Family::Records, b"", None, usize::MAX)
            .unwrap()
            .len()
    };
    assert!(records(&c, 1) > 200);
    for _ in 0..200 {
        c.pass(Duration::from_millis(1));
        c.settle();
    }
    for at in 0..3 {
        assert_eq!(records(&c, at), 1, "n{at}");
        let rows = c.nodes[at]
            .storage()
            .scan(Family::Meta, b"reclaim/", Some(b"reclaim0"), 9);
        assert_eq!(rows.unwrap().len(), 0, "n{at}");
    }
}

#[test]
fn a_delete_that_was_reading_while_its_bucket_was_dropped_is_refused() {
    let mut c = cluster(3);
    done(&mut c, 0, put("k", "old").with(w(3)));
    let deleting = c.ask(0, delete("k"));
    // n1's record is on its way when the drop comes through n2.
    c.deliver(0, 1);
    let dropping = c.ask(2, of(BucketAction::Drop));
    c.deliver(2, 0);
    c.settle();
    assert!(matches!(
        refusal(c.answer_to(deleting)),
        Refusal::BucketChanged(_)
    ));
    assert_eq!(described(c.answer_to(dropping).unwrap()).generation, 1);
}

#[test]
fn contexts_of_the_old_life_are_refused_in_the_new_one() {
    let mut c = cluster(3);
    done(&mut c, 0, put("k", "old"));
    let read = c.ask(0, get("k"));
    c.settle();
    let context = c.context_of(read);
    done(&mut c, 0, of(BucketAction::Drop));
    let refused = done(&mut c, 0, put("k", "new").having_seen(&context));
    assert!(matches!(refusal(Some(&refused)), Refusal::BadContext(_)));
}

#[test]
fn a_drop_needs_a_majority_of_each_partition() {
    let mut c = cluster(3);
    done(&mut c, 0, put("k", "v"));
    isolate(&mut c, 0);
    let alone = c.ask(0, of(BucketAction::Drop));
    assert!(matches!(
        refusal(c.answer_to(alone)),
        Refusal::Unavailable { .. }
    ));
    // Nothing was changed by it.
    rejoin(&mut c, 0);
    c.settle();
    let got = c.ask(0, get("k"));
    c.settle();
    assert_eq!(c.shown(got), ["v"]);
}

#[test]
fn a_drop_that_reached_too_few_is_unknown_and_spreads() {
    let mut c = cluster(3);
    done(&mut c, 0, put("k", "v").with(w(3)));
    let dropping = c.ask(0, of(BucketAction::Drop));
    isolate(&mut c, 0);
    let Some(Answer::Unmet(unmet)) = c.answer_to(dropping) else {
        panic!("{:?}", c.answer_to(dropping));
    };
    assert!(unmet.may_have_written);
    rejoin(&mut c, 0);
    c.settle();
    for at in 0..3 {
        let shown = done(&mut c, at, of(BucketAction::Show));
        assert_eq!(described(&shown).generation, 1, "n{at}");
    }
}

#[test]
fn two_operators_at_once_end_with_one_table() {
    let mut c = cluster(3);
    done(&mut c, 0, create(PropertyChanges::default()));
    let update = |changes| of(BucketAction::Update(changes));
    let one = c.ask(0, update(with_r(1)));
    let two = c.ask(1, update(with_r(3)));
    let three = c.ask(2, of(BucketAction::Drop));
    c.settle();
    let first = described(&done(&mut c, 0, of(BucketAction::Show))).clone();
    assert_eq!(first.generation, 1);
    for at in 1..3 {
        let shown = done(&mut c, at, of(BucketAction::Show));
        assert_eq!(described(&shown), &first, "n{at}");
    }
    for caller in [one, two] {
        // Done before the drop, or refused because there is nothing to update any more.
        match c.answer_to(caller) {
            Some(Answer::Bucket(_) | Answer::Refused(Refusal::NotFound(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(c.answer_to(three), Some(Answer::Bucket(_))));
}

#[test]
fn updates_at_once_both_count() {
    let mut c = cluster(3);
    done(&mut c, 0, create(PropertyChanges::default()));
    let one = c.ask(0, of(BucketAction::Update(with_r(1))));
    let other = PropertyChanges {
        max_siblings: Some(5),
        ..PropertyChanges::default()
    };
    let two = c.ask(1, of(BucketAction::Update(other)));
    c.settle();
    assert!(matches!(c.answer_to(one), Some(Answer::Bucket(_))));
    assert!(matches!(c.answer_to(two), Some(Answer::Bucket(_))));
    let shown = done(&mut c, 2, of(BucketAction::Show));
    let bucket = described(&shown);
    // One of them was proposed again on top of the other.
    assert_eq!((bucket.max_siblings, bucket.r), (5, Quorum::Count(1)));
}

#[test]
fn the_table_survives_a_restart() {
    let mut c = cluster(3);
    done(&mut c, 0, put("k", "old").with(w(3)));
    done(&mut c, 0, of(BucketAction::Drop));
    done(&mut c, 0, create(with_r(1)));
    for at in 0..3 {
        c.restart(at, 0);
        let shown = done(&mut c, at, of(BucketAction::Show));
        let bucket = described(&shown);
        assert_eq!(
            (bucket.generation, bucket.created, bucket.r),
            (1, true, Quorum::Count(1))
        );
        let got = c.ask(at, get("k"));
        assert_eq!(c.answer_to(got), Some(&Answer::Absent));
    }
}

#[test]
fn tables_are_compared_from_time_to_time() {
    let mut c = cluster(3);
    let dropping = c.ask(0, of(BucketAction::Drop));
    // The word to n2 is lost without anybody noticing.
    c.lose(0, 2);
    c.settle();
    assert!(matches!(c.answer_to(dropping), Some(Answer::Bucket(_))));
    let shown = done(&mut c, 2, of(BucketAction::Show));
    assert_eq!(described(&shown).generation, 0);
    for _ in 0..3 {
        c.pass(Duration::from_secs(10));
        c.settle();
    }
    let shown = done(&mut c, 2, of(BucketAction::Show));
    assert_eq!(described(&shown).generation, 1);
}

#[test]
fn another_replica_set_begins_another_life_and_needs_an_empty_bucket() {
    let mut c = cluster(5);
    let two = PropertyChanges {
        n: Some(2),
        ..PropertyChanges::default()
    };
    let created = done(&mut c, 0, create(two.clone()));
    let bucket = described(&created);
    assert_eq!((bucket.n, bucket.generation), (2, 1));
    done(&mut c, 0, put("k", "v"));
    let holders = (0..5)
        .filter(|at| c.nodes[*at].stored(BUCKET, "k").is_some())
        .count();
    assert_eq!(holders, 2);
    for at in 0..5 {
        let got = c.ask(at, get("k"));
        c.settle();
        assert_eq!(c.shown(got), ["v"], "n{at}");
    }
    let full = Request::Bucket(BucketRequest {
        bucket: "full".to_owned(),
        action: BucketAction::Create(two),
    });
    // One key is enough, wherever it is: this one is not on the node that is asked.
    let key = c.key_not_on(3);
    let mut put = put(&key, "v");
    if let Request::Put(put) = &mut put {
        put.bucket = "full".to_owned();
    }
    done(&mut c, 0, put);
    let refused = done(&mut c, 3, full);
    assert!(
        matches!(refusal(Some(&refused)), Refusal::Conflict(_)),
        "{refused:?}"
    );
}

#[test]
fn a_failed_disk_takes_no_change() {
    let mut c = cluster(3);
    c.input(1, Input::Poisoned("why".to_owned()));
    let created = done(&mut c, 0, create(with_r(1)));
    assert!(matches!(created, Answer::Bucket(_)));
    let refused = done(&mut c, 1, create(with_r(1)));
    assert!(matches!(
        refusal(Some(&refused)),
        Refusal::Poisoned(_) | Refusal::Conflict(_) | Refusal::Unavailable { .. }
    ));
    c.input(0, Input::Down(NodeId(1)));
}

#[test]
fn an_acknowledged_change_is_not_overwritten_by_one_of_the_same_version() {
    let mut c = cluster(3);
    done(&mut c, 0, create(PropertyChanges::default()));
    // n0 proposes r=1 and its words are slow; n1's change is acknowledged by n1 and n2 meanwhile.
    let slow = c.ask(0, of(BucketAction::Update(with_r(1))));
    let held = std::mem::take(&mut c.wire);
    let other = PropertyChanges {
        max_siblings: Some(5),
        ..PropertyChanges::default()
    };
    let quick = c.ask(1, of(BucketAction::Update(other)));
    c.lose(1, 0);
    c.settle();
    assert!(matches!(c.answer_to(quick), Some(Answer::Bucket(_))));
    c.wire = held;
    c.settle();
    assert!(matches!(c.answer_to(slow), Some(Answer::Bucket(_))));
    for at in 0..3 {
        let shown = done(&mut c, at, of(BucketAction::Show));
        let bucket = described(&shown);
        assert_eq!(
            (bucket.max_siblings, bucket.r),
            (5, Quorum::Count(1)),
            "n{at}"
        );
    }
}

#[test]
fn a_change_that_meets_a_later_life_does_not_end_it_unasked() {
    let mut c = cluster(5);
    let five = PropertyChanges {
        n: Some(5),
        ..PropertyChanges::default()
    };
    done(&mut c, 0, create(five.clone()));
    isolate(&mut c, 4);
    let dropped = done(&mut c, 0, of(BucketAction::Drop));
    assert_eq!(described(&dropped).generation, 2);
    done(&mut c, 0, put("k", "v"));
    rejoin(&mut c, 4);
    c.wire.clear();
    // To n4 the bucket still has five copies, so that this changes just r.
    let changes = PropertyChanges {
        r: Some(Quorum::Count(1)),
        ..five
    };
    let changed = done(&mut c, 4, of(BucketAction::Set(changes)));
    assert!(matches!(changed, Answer::Unmet(_)), "{changed:?}");
    for at in 0..5 {
        let got = c.ask(at, get("k"));
        c.settle();
        assert_eq!(c.shown(got), ["v"], "n{at}");
    }
}

#[test]
fn of_two_that_create_a_bucket_at_once_one_is_told_that_it_is_unknown_and_all_nodes_agree() {
    let mut c = cluster(3);
    let one = c.ask(0, create(with_r(1)));
    let held = std::mem::take(&mut c.wire);
    let two = c.ask(1, create(with_r(3)));
    c.lose(1, 0);
    c.settle();
    assert!(matches!(c.answer_to(two), Some(Answer::Bucket(_))));
    c.wire = held;
    c.settle();
    assert!(
        matches!(c.answer_to(one), Some(Answer::Unmet(u)) if u.may_have_written),
        "{:?}",
        c.answer_to(one)
    );
    for _ in 0..6 {
        c.pass(Duration::from_secs(10));
        c.settle();
    }
    let first = described(&done(&mut c, 0, of(BucketAction::Show))).clone();
    for at in 1..3 {
        let shown = done(&mut c, at, of(BucketAction::Show));
        assert_eq!(described(&shown), &first, "n{at}");
    }
}
