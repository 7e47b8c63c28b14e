//! Fallbacks that stand in for primaries, and hints that are handed over.

use std::time::Duration;

use quorate_node::{BucketDefaults, Limits};
use quorate_protocol::{
    Answer, BucketAction, BucketRequest, Message, Options, Quorum, Refusal, ReplicaReply,
    ReplicaRequest, Request,
};

use crate::cluster::{Cluster, With, delete, get, put, r, refusal, w};

/// A cluster, a key, and the key's primaries and fallbacks in the order of the preference list.
pub(crate) struct Stage {
    pub(crate) c: Cluster,
    pub(crate) primaries: Vec<usize>,
    pub(crate) fallbacks: Vec<usize>,
}

pub(crate) const KEY: &str = "k";

pub(crate) fn stage_with(regions: &[&str], limits: Limits) -> Stage {
    let c = Cluster::with(regions, BucketDefaults::default(), limits);
    let set = quorate_ring::ReplicaSet::new(3, None).expect("a sound replica set");
    let preference = c.layout.preference(c.vnode(KEY).partition, &set);
    let numbers = |nodes: &[quorate_ring::NodeId]| nodes.iter().map(|n| n.0 as usize).collect();
    Stage {
        primaries: numbers(&preference.primaries),
        fallbacks: numbers(&preference.fallbacks),
        c,
    }
}

fn stage(nodes: usize) -> Stage {
    stage_with(&vec!["here"; nodes], Limits::default())
}

/// Nobody reaches this node any more, nor it anybody; what is on its way to it is lost.
pub(crate) fn cut_off(c: &mut Cluster, node: usize) {
    c.wire.retain(|e| e.from != node && e.to != node);
    for other in (0..c.nodes.len()).filter(|n| *n != node) {
        c.down(other, node);
        c.down(node, other);
    }
}

/// It is back, for all.
pub(crate) fn back(c: &mut Cluster, node: usize) {
    for other in (0..c.nodes.len()).filter(|n| *n != node) {
        c.up(other, node);
        c.up(node, other);
    }
}

pub(crate) fn stored(c: &mut Cluster, at: usize, request: Request) -> bool {
    let caller = c.ask(at, request);
    c.settle();
    matches!(
        c.answer_to(caller),
        Some(Answer::Stored { .. } | Answer::Deleted)
    )
}

/// Lets some seconds go by.
pub(crate) fn a_while(c: &mut Cluster) {
    for _ in 0..60 {
        c.settle();
        c.pass(Duration::from_millis(100));
    }
    c.settle();
}

fn live(c: &Cluster, at: usize) -> usize {
    c.record(at, KEY).live().len()
}

pub(crate) fn all_hints(c: &Cluster) -> u64 {
    (0..c.nodes.len()).map(|at| c.hints(at)).sum()
}

/// The merges on their way from one to another.
fn merges(c: &Cluster, from: usize, to: usize) -> usize {
    let is = |e: &&crate::cluster::Envelope| {
        let merge = matches!(e.message, Message::Replica(_, _, ReplicaRequest::Merge(_)));
        e.from == from && e.to == to && merge
    };
    c.wire.iter().filter(is).count()
}

// ---- Writes ----

#[test]
fn a_hint_holder_that_was_away_itself_hands_over_what_it_kept() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(4);
    cut_off(&mut c, p[2]);
    assert!(stored(&mut c, p[0], put(KEY, "v").with(w(3))));
    assert_eq!(c.hints(f[0]), 1);
    assert_eq!(c.hinted(f[0], KEY).live().len(), 1);
    assert_eq!(c.nodes[f[0]].stored(crate::cluster::BUCKET, KEY), None);

    // Power goes, and the owner is back before the holder is.
    c.restart(f[0], 0);
    assert_eq!(c.hints(f[0]), 1, "it is counted after a restart");
    back(&mut c, p[2]);
    a_while(&mut c);
    back(&mut c, f[0]);
    a_while(&mut c);
    assert_eq!(live(&c, p[2]), 1);
    assert_eq!(all_hints(&c), 0);
    assert!(c.nodes.iter().all(quorate_node::Node::is_idle));
}

#[test]
fn acknowledgements_are_of_distinct_nodes() {
    // Two primaries are out, and one node stands in for one of them.
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[1]);
    cut_off(&mut s.c, s.primaries[2]);
    let sent = s.c.wire.len();
    let three = s.c.ask(s.primaries[0], put(KEY, "v").with(w(3)));
    assert_eq!(
        refusal(s.c.answer_to(three)),
        &Refusal::Unavailable {
            needed: 3,
            answered: 2
        }
    );
    assert_eq!(s.c.wire.len(), sent, "nothing was sent");
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(2))));
    // With one more node there are three.
    let mut s = stage(5);
    cut_off(&mut s.c, s.primaries[1]);
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    assert_eq!(
        (s.c.hints(s.fallbacks[0]), s.c.hints(s.fallbacks[1])),
        (1, 1)
    );
}

#[test]
fn fallbacks_count_for_w_and_dw_and_not_for_pw() {
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    let pw = |count| Options {
        pw: Some(Quorum::Count(count)),
        ..w(3)
    };
    let asked = s.c.ask(s.primaries[0], put(KEY, "v").with(pw(3)));
    assert_eq!(
        refusal(s.c.answer_to(asked)),
        &Refusal::Unavailable {
            needed: 3,
            answered: 2
        }
    );
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(pw(2))));
    let dw = Options {
        dw: Some(Quorum::Count(3)),
        ..w(3)
    };
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(dw)));
    // One of the two goes while it is asked: what the fallback keeps does not make up for that.
    let late = s.c.ask(s.primaries[0], put(KEY, "v").with(pw(2)));
    cut_off(&mut s.c, s.primaries[1]);
    let answer = s.c.answer_to(late).cloned();
    assert!(
        matches!(&answer, Some(Answer::Unmet(unmet)) if unmet.may_have_written),
        "{answer:?}"
    );
}

#[test]
fn a_strict_write_asks_no_fallback() {
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    let strict = |count| Options {
        sloppy: Some(false),
        ..w(count)
    };
    let three = s.c.ask(s.primaries[0], put(KEY, "v").with(strict(3)));
    assert!(matches!(
        refusal(s.c.answer_to(three)),
        Refusal::Unavailable { .. }
    ));
    assert!(stored(
        &mut s.c,
        s.primaries[0],
        put(KEY, "v").with(strict(2))
    ));
    assert_eq!(all_hints(&s.c), 0);
    // And so on a bucket that says so.
    let changes = quorate_protocol::PropertyChanges {
        sloppy: Some(false),
        ..Default::default()
    };
    back(&mut s.c, s.primaries[2]);
    let create = Request::Bucket(BucketRequest {
        bucket: crate::cluster::BUCKET.to_owned(),
        action: BucketAction::Create(changes),
    });
    s.c.ask(s.primaries[0], create);
    s.c.settle();
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v")));
    assert_eq!(all_hints(&s.c), 0);
}

#[test]
fn a_primary_that_is_lost_before_it_acknowledges_is_stood_in_for() {
    let mut s = stage(4);
    let write = s.c.ask(s.primaries[0], put(KEY, "v").with(w(3)));
    cut_off(&mut s.c, s.primaries[1]);
    s.c.settle();
    assert!(matches!(s.c.answer_to(write), Some(Answer::Stored { .. })));
    assert_eq!(s.c.hints(s.fallbacks[0]), 1);
}

#[test]
fn who_has_no_room_is_stood_in_for_and_who_has_too_much_to_do_is_not() {
    let mut s = stage(4);
    s.c.free_bytes(s.primaries[1], 1);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    assert_eq!(s.c.hints(s.fallbacks[0]), 1);
    // It is in reach, and refuses: the hint stays until there is room.
    a_while(&mut s.c);
    assert_eq!(s.c.hints(s.fallbacks[0]), 1);
    s.c.free_bytes(s.primaries[1], 1_000);
    a_while(&mut s.c);
    assert_eq!((all_hints(&s.c), live(&s.c, s.primaries[1])), (0, 1));

    let mut s = stage(4);
    let write = s.c.ask(s.primaries[0], put(KEY, "v").with(w(3)));
    let to = s.primaries[1];
    let at =
        s.c.wire
            .iter()
            .position(|e| e.to == to)
            .expect("it is asked");
    let Message::Replica(id, ..) = s.c.wire.remove(at).message else {
        panic!("not a merge");
    };
    let overloaded = Message::Reply(id, ReplicaReply::Refused(Refusal::Overloaded));
    let from = quorate_ring::NodeId(to as u64);
    s.c.input(
        s.primaries[0],
        quorate_node::Input::Message(from, overloaded),
    );
    assert!(matches!(s.c.answer_to(write), Some(Answer::Unmet(_))));
    s.c.settle();
    assert_eq!(all_hints(&s.c), 0);
}

#[test]
fn a_full_store_of_hints_takes_no_more_and_the_write_counts_fewer() {
    let limits = Limits {
        hint_bytes_max: 200,
        ..Limits::default()
    };
    let mut s = stage_with(&["here"; 4], limits);
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    let long = "x".repeat(200);
    let three = s.c.ask(s.primaries[0], put(KEY, &long).with(w(3)));
    s.c.settle();
    let answer = s.c.answer_to(three).cloned();
    assert!(
        matches!(&answer, Some(Answer::Unmet(unmet)) if unmet.needed == 3 && unmet.may_have_written),
        "{answer:?}"
    );
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, &long).with(w(2))));
    // What was taken is there, and nothing else; once it is handed over there is room again.
    assert_eq!(s.c.hinted(s.fallbacks[0], KEY).live().len(), 1);
    back(&mut s.c, s.primaries[2]);
    a_while(&mut s.c);
    assert_eq!(all_hints(&s.c), 0);
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "w").with(w(3))));
}

#[test]
fn nothing_is_kept_on_a_disk_that_is_nearly_full() {
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    s.c.free_bytes(s.fallbacks[0], 1);
    assert!(!stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    assert_eq!(all_hints(&s.c), 0);
}

#[test]
fn no_more_hints_are_asked_for_than_may_be_waited_for() {
    let limits = Limits {
        hint_writes_max: 1,
        ..Limits::default()
    };
    let mut s = stage_with(&["here"; 4], limits);
    cut_off(&mut s.c, s.primaries[2]);
    let p = s.primaries[0];
    let first = s.c.ask(p, put(KEY, "v").with(w(3)));
    let second = s.c.ask(p, put(KEY, "v").with(w(3)));
    assert_eq!(merges(&s.c, p, s.fallbacks[0]), 1);
    s.c.settle();
    assert!(matches!(s.c.answer_to(first), Some(Answer::Stored { .. })));
    assert!(matches!(s.c.answer_to(second), Some(Answer::Unmet(_))));
    // The first was answered, so another may be asked for.
    assert!(stored(&mut s.c, p, put(KEY, "v").with(w(3))));
}

#[test]
fn a_region_is_stood_in_for_by_its_own_nodes_first_and_by_no_other_in_its_quorum() {
    let regions = ["eu", "eu", "eu", "eu", "us", "us", "us"];
    let mut s = stage_with(&regions, Limits::default());
    let eu = |nodes: &[usize]| -> Vec<usize> { nodes.iter().copied().filter(|n| *n < 4).collect() };
    let (mine, spare) = (eu(&s.primaries), eu(&s.fallbacks));
    assert_eq!((mine.len(), spare.len()), (3, 1));
    let each = Options {
        w: Some(Quorum::Each),
        ..Options::default()
    };
    cut_off(&mut s.c, mine[1]);
    cut_off(&mut s.c, mine[2]);
    // The one left of the region, and its fallback.
    assert!(stored(&mut s.c, mine[0], put(KEY, "v").with(each)));
    assert_eq!(s.c.hints(spare[0]), 1);
    cut_off(&mut s.c, spare[0]);
    let asked = s.c.ask(mine[0], put(KEY, "v").with(each));
    assert!(matches!(
        refusal(s.c.answer_to(asked)),
        Refusal::Unavailable { .. }
    ));
}

// ---- Fallbacks as coordinators, and reads ----

#[test]
fn a_fallback_coordinates_while_all_primaries_are_out() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(5);
    p.iter().for_each(|node| cut_off(&mut c, *node));
    let first = c.ask(f[0], put(KEY, "v"));
    c.settle();
    let seen = c.context_of(first);
    assert_eq!(c.hints(f[0]), 3, "it keeps it for each of them");
    assert_eq!(c.hints(f[1]), 1, "and this one for the second");
    let read = c.ask(f[1], get(KEY));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    // Three copies are too many to ask for, and so are primaries.
    let three = c.ask(f[0], put(KEY, "v").with(w(3)));
    assert!(matches!(
        refusal(c.answer_to(three)),
        Refusal::Unavailable { .. }
    ));
    let strict = Options {
        sloppy: Some(false),
        ..Options::default()
    };
    let strict = c.ask(f[0], get(KEY).with(strict));
    assert!(matches!(
        refusal(c.answer_to(strict)),
        Refusal::Unavailable { .. }
    ));
    let second = c.ask(f[1], put(KEY, "w").having_seen(&seen));
    c.settle();
    assert!(matches!(c.answer_to(second), Some(Answer::Stored { .. })));
    // A delete reads first, and finds what stands.
    let read = c.ask(f[0], get(KEY));
    c.settle();
    assert_eq!(c.shown(read), ["w"]);

    p.iter().for_each(|node| back(&mut c, *node));
    a_while(&mut c);
    assert_eq!(all_hints(&c), 0);
    for node in p {
        let values: Vec<_> = c.record(node, KEY).live().to_vec();
        assert_eq!(values.len(), 1, "n{node}");
    }
    let gone = c.ask(f[0], delete(KEY));
    c.settle();
    assert_eq!(c.answer_to(gone), Some(&Answer::Deleted));
}

#[test]
fn two_incarnations_of_a_fallback_mint_different_dots() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(5);
    p.iter().for_each(|node| cut_off(&mut c, *node));
    assert!(stored(&mut c, f[0], put(KEY, "v")));
    c.restart(f[0], 0);
    c.up(f[0], f[1]);
    assert!(stored(&mut c, f[0], put(KEY, "w")));
    let read = c.ask(f[0], get(KEY));
    c.settle();
    let mut shown = c.shown(read);
    shown.sort();
    assert_eq!(shown, ["v", "w"]);
}

#[test]
fn a_read_asks_fallbacks_only_if_its_primaries_are_too_few() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(5);
    assert!(stored(&mut c, p[0], put(KEY, "old")));
    cut_off(&mut c, p[2]);
    let read = c.ask(p[0], get(KEY));
    assert!(c.wire.iter().all(|e| !f.contains(&e.to)));
    c.settle();
    assert_eq!(c.shown(read), ["old"]);

    // Only a fallback has it, besides one who is out too.
    cut_off(&mut c, p[1]);
    let one = Options {
        w: Some(Quorum::Count(2)),
        ..Options::default()
    };
    let seen = c.context_of(read);
    assert!(stored(
        &mut c,
        p[0],
        put(KEY, "new").having_seen(&seen).with(one)
    ));
    cut_off(&mut c, p[0]);
    for fallback in &f {
        c.up(*fallback, p[1]);
        c.up(p[1], *fallback);
    }
    // Nothing was handed over yet.
    let hinted = f.iter().filter(|n| c.hints(**n) > 0).count();
    assert!(hinted > 0);
    let read = c.ask(p[1], get(KEY).with(r(3)).explained());
    c.settle();
    let (answer, account) = c.explained(read);
    let Answer::Found { siblings, .. } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(siblings.len(), 1, "the fallback's removal counts as well");
    let stood_in: Vec<_> = account
        .replicas
        .iter()
        .filter_map(|r| Some((r.node.clone(), r.stands_in_for.clone()?)))
        .collect();
    assert_eq!(stood_in.len(), 2, "{account:?}");
    let pr = Options {
        pr: Some(Quorum::Count(2)),
        ..r(2)
    };
    let asked = c.ask(p[1], get(KEY).with(pr));
    assert!(matches!(
        refusal(c.answer_to(asked)),
        Refusal::Unavailable { .. }
    ));
    // Nothing was repaired at a fallback.
    for node in f {
        assert_eq!(c.nodes[node].stored(crate::cluster::BUCKET, KEY), None);
    }
}

#[test]
fn a_fallback_that_keeps_nothing_does_not_answer_for_the_key() {
    // The seed that found it: the primary's digest stood alone beside a fallback's nothing, and that became the answer.
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(5);
    assert!(stored(&mut c, p[0], put(KEY, "v").with(w(3))));
    cut_off(&mut c, p[2]);
    for coordinator in [p[0], p[1]] {
        let other = if coordinator == p[0] { p[1] } else { p[0] };
        let read = c.ask(coordinator, get(KEY).with(r(3)));
        // The fallback answers first, and then the other's digest comes.
        while c.wire.iter().any(|e| e.to == f[0] || e.from == f[0]) {
            let at = c.wire.iter().position(|e| e.to == f[0] || e.from == f[0]);
            c.deliver_nth(at.expect("it is there"));
        }
        c.deliver(coordinator, other);
        c.settle();
        assert_eq!(c.shown(read), ["v"]);
    }
}

#[test]
fn an_account_names_who_stood_in_for_whom() {
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    let write =
        s.c.ask(s.primaries[0], put(KEY, "v").with(w(3)).explained());
    s.c.settle();
    let (_, account) = s.c.explained(write);
    let last = account.replicas.last().expect("four");
    assert_eq!(last.node, format!("n{}", s.fallbacks[0]));
    assert_eq!(last.stands_in_for, Some(format!("n{}", s.primaries[2])));
    let steps: Vec<&str> = last.steps.iter().map(|s| s.what.as_str()).collect();
    assert_eq!(steps, ["sent the write to keep", "taken and synced"]);
}

#[test]
fn a_fallback_that_coordinates_is_in_its_account_itself() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = stage(5);
    p.iter().for_each(|node| cut_off(&mut c, *node));
    let write = c.ask(f[0], put(KEY, "v").explained());
    c.settle();
    let (_, account) = c.explained(write);
    let stood_in: Vec<_> = account.replicas[3..]
        .iter()
        .map(|r| (r.node.clone(), r.stands_in_for.clone().expect("a primary")))
        .collect();
    let name = |node: usize| format!("n{node}");
    assert_eq!(
        stood_in,
        [(name(f[0]), name(p[0])), (name(f[1]), name(p[1]))]
    );
    // What others are asked to keep later is what was written at first.
    assert_eq!(c.hinted(f[0], KEY), c.hinted(f[1], KEY));
}

// ---- Handing over ----

/// A hint for the third primary, who is back; what the holder has sent to it is on the wire.
fn being_handed_over() -> Stage {
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    back(&mut s.c, s.primaries[2]);
    s.c.pass(Duration::from_millis(1));
    assert_eq!(merges(&s.c, s.fallbacks[0], s.primaries[2]), 1);
    s
}

#[test]
fn a_hint_goes_only_when_its_owner_has_it_on_disk() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = being_handed_over();
    c.deliver(f[0], p[2]);
    assert_eq!(c.hints(f[0]), 1, "it is not on disk yet");
    c.settle();
    assert_eq!((c.hints(f[0]), live(&c, p[2])), (0, 1));
}

#[test]
fn an_owner_that_restarts_before_it_has_a_hint_on_disk_gets_it_again() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = being_handed_over();
    c.deliver(f[0], p[2]);
    c.restart(p[2], 0);
    assert_eq!(live(&c, p[2]), 0);
    for other in (0..4).filter(|n| *n != p[2]) {
        c.down(other, p[2]);
    }
    back(&mut c, p[2]);
    a_while(&mut c);
    assert_eq!((c.hints(f[0]), live(&c, p[2])), (0, 1));
}

#[test]
fn a_holder_that_restarts_in_between_hands_over_again() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = being_handed_over();
    c.deliver(f[0], p[2]);
    c.sync(p[2]);
    // The answer finds another life of the holder.
    c.restart(f[0], 0);
    c.settle();
    assert_eq!(c.hints(f[0]), 1);
    back(&mut c, f[0]);
    a_while(&mut c);
    assert_eq!((c.hints(f[0]), live(&c, p[2])), (0, 1));
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = being_handed_over();
    c.lose(f[0], p[2]);
    a_while(&mut c);
    assert_eq!((c.hints(f[0]), live(&c, p[2])), (0, 1));
}

#[test]
fn a_hint_that_changes_while_it_is_handed_over_stays() {
    let Stage {
        mut c,
        primaries: p,
        fallbacks: f,
    } = being_handed_over();
    // The coordinator has lost sight of the owner once more, and has the holder keep another value.
    c.down(p[0], p[2]);
    let write = c.ask(p[0], put(KEY, "w").with(w(3)));
    c.deliver(p[0], f[0]);
    c.sync(f[0]);
    c.deliver(f[0], p[2]);
    c.sync(p[2]);
    c.deliver(p[2], f[0]);
    assert_eq!(
        c.hints(f[0]),
        1,
        "the owner has only the first of two values"
    );
    assert_eq!(live(&c, p[2]), 1);
    a_while(&mut c);
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    assert_eq!((c.hints(f[0]), live(&c, p[2])), (0, 2));
}

#[test]
fn hints_of_a_dropped_life_go_with_it() {
    let drop = || {
        Request::Bucket(BucketRequest {
            bucket: crate::cluster::BUCKET.to_owned(),
            action: BucketAction::Drop,
        })
    };
    // The holder hears of the drop while the owner is away.
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    s.c.ask(s.primaries[0], drop());
    a_while(&mut s.c);
    assert_eq!(all_hints(&s.c), 0);
    // The owner hears of it while the holder is away, which learns of it when it hands over.
    let mut s = stage(4);
    cut_off(&mut s.c, s.primaries[2]);
    assert!(stored(&mut s.c, s.primaries[0], put(KEY, "v").with(w(3))));
    cut_off(&mut s.c, s.fallbacks[0]);
    back(&mut s.c, s.primaries[2]);
    cut_off(&mut s.c, s.fallbacks[0]);
    s.c.ask(s.primaries[0], drop());
    a_while(&mut s.c);
    assert_eq!(all_hints(&s.c), 1);
    back(&mut s.c, s.fallbacks[0]);
    a_while(&mut s.c);
    assert_eq!((all_hints(&s.c), live(&s.c, s.primaries[2])), (0, 0));
}

#[test]
fn handing_over_keeps_to_its_budget_and_ends() {
    let limits = Limits {
        handoff_bytes_per_second: 10_000,
        ..Limits::default()
    };
    let mut s = stage_with(&["here"; 4], limits);
    cut_off(&mut s.c, s.primaries[2]);
    let owner = s.primaries[2];
    let value = "x".repeat(1_000);
    for i in 0..200 {
        assert!(stored(
            &mut s.c,
            s.primaries[0],
            put(&format!("k{i}"), &value)
        ));
    }
    // Each of them keeps to it.
    let before = (0..4).map(|at| s.c.hints(at)).max().expect("four nodes");
    assert!(before > 40, "{before}");
    back(&mut s.c, owner);
    let mut took = 0;
    while all_hints(&s.c) > 0 {
        s.c.pass(Duration::from_millis(100));
        s.c.settle();
        took += 1;
        assert!(took < 600, "{} hints are left", all_hints(&s.c));
    }
    // A second for ten of them; the last slice is not waited for.
    let least = (before - 32) as usize;
    assert!(
        took >= least,
        "{before} hints of 1 KB in {took} tenths of a second"
    );
    assert!(s.c.nodes.iter().all(quorate_node::Node::is_idle));
}
