//! Situations that have a name, and what must come out of them.

use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{Dot, Record};
use quorate_node::{BucketDefaults, Input, Limits};
use quorate_protocol::{
    Answer, Condition, Header, Message, Options, Quorum, Refusal, ReplicaReply, ReplicaRequest,
    Request, RequestId,
};
use quorate_ring::NodeId;

use crate::cluster::{
    Cluster, Envelope, With, delete, foreign, get, holding, nothing_happened, put, r, refusal, w,
};

/// The reply to a request that a peer makes by hand.
fn replies(c: &mut Cluster, at: usize, from: usize, message: Message) -> Vec<ReplicaReply> {
    let before = c.wire.len();
    c.input(at, Input::Message(NodeId(from as u64), message));
    replies_since(c, before)
}

/// Takes the replies off the wire that were sent since.
fn replies_since(c: &mut Cluster, before: usize) -> Vec<ReplicaReply> {
    let sent = c.wire.split_off(before);
    sent.into_iter()
        .map(|e| match e.message {
            Message::Reply(_, reply) => reply,
            other => panic!("not a reply: {other:?}"),
        })
        .collect()
}

fn reply(from: usize, to: usize, id: RequestId, reply: ReplicaReply) -> Envelope {
    let message = Message::Reply(id, reply);
    Envelope { from, to, message }
}

/// The id under which a node asked another.
fn asked(c: &Cluster, from: usize, to: usize) -> RequestId {
    let of = |e: &&Envelope| e.from == from && e.to == to;
    match c.wire.iter().find(of).map(|e| &e.message) {
        Some(Message::Replica(id, ..) | Message::Request(id, ..)) => *id,
        other => panic!("n{from} asked n{to} nothing: {other:?}"),
    }
}

// ---- Reads ----

#[test]
fn evidence_counts_also_where_the_digest_agrees() {
    // n0 and n1 both show nothing, so their digests are equal; but n1 knows why.
    for coordinator in 0..3 {
        let mut c = Cluster::of(3);
        let d = foreign(1);
        let holds = |i: usize| (coordinator + i) % 3;
        c.plant(holds(1), "k", &holding(&[], &[d]));
        c.plant(holds(2), "k", &holding(&[(d, "removed")], &[]));
        let read = c.ask(coordinator, get("k").with(r(3)));
        c.settle();
        assert_eq!(c.answer_to(read), Some(&Answer::Absent));
        assert!(c.record(holds(2), "k").live().is_empty(), "repaired");
    }
}

#[test]
fn a_healthy_read_writes_nothing() {
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "v"));
    c.settle();
    let before: Vec<_> = c.disks.iter().map(|d| d.pending().last).collect();
    let read = c.ask(1, get("k").with(r(3)));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    let after: Vec<_> = c.disks.iter().map(|d| d.pending().last).collect();
    assert_eq!(before, after);
}

#[test]
fn a_late_record_counts_after_its_node_was_down() {
    let mut c = Cluster::of(3);
    c.plant(1, "k", &holding(&[(foreign(1), "v")], &[]));
    let read = c.ask(0, get("k"));
    c.deliver(0, 1);
    c.deliver(1, 0);
    // Its digest is another, so it is asked for its record; which is on its way when it is given up.
    c.deliver(0, 1);
    c.down(0, 1);
    assert_eq!(c.answer_to(read), None, "n2 is asked now");
    c.deliver(1, 0);
    assert_eq!(c.shown(read), ["v"]);
    c.settle();
}

#[test]
fn a_replica_that_sent_its_digest_and_was_lost_counts_only_while_digests_agree() {
    let mut c = Cluster::of(3);
    c.plant(2, "k", &holding(&[(foreign(1), "v")], &[]));
    let read = c.ask(0, get("k").with(r(2)));
    // n1 shows nothing, as n0 does: enough.
    c.deliver(0, 1);
    c.deliver(1, 0);
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));

    let read = c.ask(0, get("k").with(r(3)));
    c.deliver(0, 1);
    c.deliver(1, 0);
    c.down(0, 1);
    assert_eq!(c.answer_to(read), None);
    c.deliver(0, 2);
    c.deliver(2, 0);
    assert_eq!(c.answer_to(read), None, "n1 may come back");
    c.pass(Duration::from_millis(700));
    let answer = c.answer_to(read).expect("an answer");
    assert!(
        matches!(answer, Answer::Unmet(unmet) if !unmet.may_have_written && !unmet.timed_out),
        "{answer:?}"
    );
    c.settle();
}

#[test]
fn a_damaged_record_is_the_failure_of_its_replica_alone() {
    for digest_first in [false, true] {
        let mut c = Cluster::of(3);
        c.ask(0, put("k", "v").with(w(3)));
        c.settle();
        let damaged = usize::from(digest_first);
        let key = c.disks[damaged].keys(quorate_storage::Family::Records)[0].clone();
        assert!(c.disks[damaged].corrupt(quorate_storage::Family::Records, &key));
        let read = c.ask(0, get("k"));
        c.settle();
        assert_eq!(c.shown(read), ["v"]);
        // And for a write that it should coordinate or take.
        let write = c.ask(damaged, put("k", "w"));
        c.settle();
        assert!(matches!(refusal(c.answer_to(write)), Refusal::Corrupt(_)));
        let all = c.ask(0, get("k").with(r(3)));
        c.settle();
        let unmet = c.answer_to(all).expect("an answer");
        assert!(nothing_happened(unmet), "{unmet:?}");
    }
}

#[test]
fn a_slow_replica_is_not_the_quickest_for_ever() {
    let mut c = Cluster::of(3);
    let mut waited = 0;
    for _ in 0..20 {
        let read = c.ask(0, get("k"));
        // n1 never answers; n2 at once.
        c.lose(0, 1);
        c.settle();
        if c.answer_to(read).is_none() {
            waited += 1;
            c.pass(Duration::from_millis(100));
            c.lose(0, 1);
            c.settle();
        }
        assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    }
    assert_eq!(waited, 1, "the first read finds out");
}

#[test]
fn a_local_quorum_asks_nobody_elsewhere() {
    let regions = ["east", "east", "east", "west", "west", "west"];
    let mut c = Cluster::in_regions(&regions);
    let local = Options {
        r: Some(Quorum::Local),
        w: Some(Quorum::Local),
        ..Options::default()
    };
    let read = c.ask(3, get("k").with(local));
    assert!(c.wire.iter().all(|e| e.to >= 3), "{:?}", c.wire);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));

    // A put goes to all six, and waits for two in its region: three elsewhere are no substitute.
    let write = c.ask(0, put("k", "v").with(local));
    for to in 3..6 {
        c.deliver(0, to);
        c.sync(to);
        c.deliver(to, 0);
    }
    c.sync(0);
    assert_eq!(c.answer_to(write), None);
    c.deliver(0, 2);
    c.sync(2);
    c.deliver(2, 0);
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    c.settle();
}

#[test]
fn an_each_quorum_needs_every_region() {
    let regions = ["east", "east", "east", "west", "west", "west"];
    let mut c = Cluster::in_regions(&regions);
    let each = Options {
        r: Some(Quorum::Each),
        w: Some(Quorum::Each),
        ..Options::default()
    };
    let write = c.ask(0, put("k", "v").with(each));
    for to in [1, 2, 3] {
        c.deliver(0, to);
        c.sync(to);
        c.deliver(to, 0);
    }
    c.sync(0);
    assert_eq!(c.answer_to(write), None, "one of three in the west");
    c.deliver(0, 5);
    c.sync(5);
    c.deliver(5, 0);
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    c.settle();
    c.down(0, 3);
    c.down(0, 4);
    let refused = c.ask(0, get("k").with(each));
    assert!(matches!(
        refusal(c.answer_to(refused)),
        Refusal::Unavailable { .. }
    ));
}

// ---- Writes ----

#[test]
fn a_merge_repeated_before_the_first_copys_sync_is_not_acknowledged_early() {
    let mut c = Cluster::of(3);
    let record = holding(&[(foreign(1), "v")], &[]);
    let (first, again) = (c.merge(1, "k", &record), c.merge(2, "k", &record));
    assert_eq!(replies(&mut c, 0, 1, first), []);
    assert_eq!(
        replies(&mut c, 0, 1, again),
        [],
        "it changes nothing, yet the disk has nothing"
    );
    let before = c.wire.len();
    c.sync(0);
    let merged = ReplicaReply::Merged { synced: true };
    assert_eq!(
        replies_since(&mut c, before),
        [merged.clone(), merged.clone()]
    );
    let third = c.merge(3, "k", &record);
    assert_eq!(replies(&mut c, 0, 1, third), [merged]);
}

#[test]
fn a_durable_merge_of_what_was_only_written_asks_for_a_sync() {
    let mut c = Cluster::of(3);
    let record = holding(&[(foreign(1), "v")], &[]);
    let first = c.merge(1, "k", &record);
    assert_eq!(replies(&mut c, 0, 1, first), []);
    let before = c.wire.len();
    c.write(0);
    let written = ReplicaReply::Merged { synced: false };
    assert_eq!(replies_since(&mut c, before), [written]);
    let Message::Replica(id, header, ReplicaRequest::Merge(mut merge)) = c.merge(2, "k", &record)
    else {
        unreachable!("it is a merge");
    };
    merge.durable = true;
    let message = Message::Replica(id, header, ReplicaRequest::Merge(merge));
    assert_eq!(replies(&mut c, 0, 1, message), []);
    let pending = c.disks[0].pending();
    assert_eq!(pending.sync_asked, pending.last);
    let before = c.wire.len();
    c.sync(0);
    assert_eq!(
        replies_since(&mut c, before),
        [ReplicaReply::Merged { synced: true }]
    );
}

#[test]
fn a_late_merged_counts_after_its_node_was_down() {
    let mut c = Cluster::of(3);
    let write = c.ask(0, put("k", "v"));
    c.sync(0);
    c.deliver(0, 1);
    c.sync(1);
    c.down(0, 1);
    assert_eq!(c.answer_to(write), None, "n2 may still take it");
    c.deliver(1, 0);
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    c.settle();
}

#[test]
fn one_replica_counts_once_however_often_it_answers() {
    let mut c = Cluster::of(3);
    let write = c.ask(0, put("k", "v").with(w(3)));
    let id = asked(&c, 0, 1);
    c.sync(0);
    for _ in 0..5 {
        c.arrive(reply(1, 0, id, ReplicaReply::Merged { synced: true }));
    }
    assert_eq!(c.answer_to(write), None);
    // Nor do those count who hold no copy.
    let mut c = Cluster::of(5);
    let key = c.key_not_on(4);
    let seats = c.replicas(&key);
    let write = c.ask(seats[0], put(&key, "v").with(w(3)));
    let id = asked(&c, seats[0], seats[1]);
    c.sync(seats[0]);
    for stranger in (0..5).filter(|i| !seats.contains(i)) {
        c.arrive(reply(
            stranger,
            seats[0],
            id,
            ReplicaReply::Merged { synced: true },
        ));
    }
    assert_eq!(c.answer_to(write), None);

    let read = c.ask(seats[0], get(&key).with(r(3)));
    let at = c
        .wire
        .iter()
        .rposition(|e| e.to == seats[1])
        .expect("asked");
    let Message::Replica(id, ..) = c.wire[at].message else {
        panic!("not asked");
    };
    for _ in 0..3 {
        let nothing = ReplicaReply::Record(Bytes::new());
        c.arrive(reply(seats[1], seats[0], id, nothing));
    }
    assert_eq!(c.answer_to(read), None);
    c.settle();
}

#[test]
fn no_answer_to_a_former_life_finds_a_conversation() {
    let mut c = Cluster::of(3);
    let lost = c.ask(0, put("k", "v").with(w(3)));
    let former = asked(&c, 0, 1);
    c.restart(0, 0);
    c.up(0, 1);
    c.up(0, 2);
    c.wire.clear();
    let write = c.ask(0, put("k", "w").with(w(3)));
    assert_ne!(asked(&c, 0, 1), former);
    c.sync(0);
    for from in [1, 2] {
        c.arrive(reply(
            from,
            0,
            former,
            ReplicaReply::Merged { synced: true },
        ));
    }
    assert_eq!(c.answer_to(write), None);
    assert_eq!(c.answer_to(lost), None);
    c.settle();
}

#[test]
fn no_two_lives_of_a_node_mint_one_dot() {
    let mut c = Cluster::of(3);
    let mut seen = std::collections::BTreeSet::new();
    for life in 0..5 {
        let write = c.ask(0, put("k", "v").with(w(1)));
        c.sync(0);
        let context = c.context_of(write);
        for span in c.opened("k", &context).spans() {
            assert!(seen.insert(span.dot), "{:?} twice", span.dot);
        }
        // Cleanly, or with a loss; the disk may even be an older copy.
        c.restart(0, life % 2);
    }
}

#[test]
fn a_write_with_nothing_in_reach_is_refused_and_nowhere() {
    let mut c = Cluster::of(3);
    c.down(0, 1);
    c.down(0, 2);
    let write = c.ask(0, put("k", "v"));
    assert!(matches!(
        refusal(c.answer_to(write)),
        Refusal::Unavailable {
            needed: 2,
            answered: 1
        }
    ));
    assert_eq!(c.record(0, "k"), Record::new());
    assert!(c.wire.is_empty());
}

#[test]
fn a_put_that_shows_what_the_key_holds_is_stored_though_that_cannot_be_shown() {
    // A payload that is no value, as a broken peer might send one. "Refused" would say that nothing happened, and whoever
    // forwarded the put would put it once more elsewhere.
    let mut c = Cluster::of(3);
    let mut broken = holding(&[(foreign(1), "")], &[]);
    let mut sibling = broken.live()[0].clone();
    sibling.payload = Bytes::from_static(b"\xc1");
    broken = Record::from_parts(vec![sibling], broken.evidence().clone());
    c.plant(0, "k", &broken);
    let options = Options {
        return_body: true,
        ..Options::default()
    };
    let write = c.ask(0, put("k", "v").with(options));
    c.settle();
    let context = c.context_of(write);
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    assert_eq!(c.opened("k", &context).spans().len(), 1);
    assert_eq!(c.record(1, "k").live().len(), 1);
}

// ---- Deletes without a context ----

#[test]
fn a_blind_delete_acknowledges_no_removal_that_one_replica_alone_remembers() {
    // n1 took a removal that reached nobody else and is not on its disk yet. A blind delete that finds nothing live and
    // leaves it at that would be undone by a power failure.
    for coordinator in [0, 1] {
        let mut c = Cluster::of(3);
        let d = foreign(1);
        let value = holding(&[(d, "v")], &[]);
        for at in 0..3 {
            c.plant(at, "k", &value);
        }
        let removal = c.merge(1, "k", &holding(&[], &[d]));
        c.input(1, Input::Message(NodeId(2), removal));
        let blind = c.ask(coordinator, delete("k"));
        // Messages flow between these two only, and no repair arrives.
        let other = 1 - coordinator;
        while c.answer_to(blind).is_none() {
            c.wire.retain(|e| e.from != 2 && e.to != 2);
            if c.wire.is_empty() {
                c.sync(coordinator);
                c.sync(other);
            }
            if !c.wire.is_empty() {
                c.deliver_nth(0);
            }
        }
        assert_eq!(c.answer_to(blind), Some(&Answer::Deleted));
        let copies = (0..3).filter(|at| c.on_disk(*at, "k").evidence().contains(d));
        assert!(copies.count() >= 2, "acknowledged with w=2");
        c.restart(1, 0);
        for (at, peer) in [(1, 0), (1, 2), (0, 1)] {
            c.up(at, peer);
        }
        c.wire.clear();
        let read = c.ask(2, get("k"));
        c.settle();
        assert_eq!(c.answer_to(read), Some(&Answer::Absent), "it stays deleted");
    }
}

#[test]
fn a_blind_delete_learns_removals_that_an_agreeing_digest_would_hide() {
    // n0 never had the value; n1 removed it and has that on no disk; n2 shows it.
    let mut c = Cluster::of(3);
    let (d, e) = (foreign(1), foreign(2));
    let shared = holding(&[(e, "kept")], &[]);
    c.plant(0, "k", &shared);
    c.plant(1, "k", &holding(&[(e, "kept"), (d, "v")], &[]));
    c.plant(2, "k", &holding(&[(e, "kept"), (d, "v")], &[]));
    let removal = c.merge(1, "k", &holding(&[], &[d]));
    c.input(1, Input::Message(NodeId(2), removal));
    c.down(0, 2);
    let blind = c.ask(0, delete("k"));
    c.settle();
    assert_eq!(c.answer_to(blind), Some(&Answer::Deleted));
    for dot in [d, e] {
        assert!(c.on_disk(0, "k").evidence().contains(dot), "{dot}");
        assert!(c.on_disk(1, "k").evidence().contains(dot), "{dot}");
    }
}

// ---- Disks ----

#[test]
fn a_poisoned_disk_acknowledges_nothing_and_is_read() {
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "v").with(w(3)));
    c.settle();
    let write = c.ask(0, put("other", "w").with(w(3)));
    c.deliver(0, 1);
    c.disks[1].fail_next_sync();
    c.sync(1);
    // The coordinator learns that one of three will never have it.
    c.sync(0);
    c.deliver(1, 0);
    let unmet = c.answer_to(write).expect("an answer");
    assert!(!nothing_happened(unmet), "{unmet:?}");

    let later = c.merge(9, "k", &holding(&[(foreign(1), "x")], &[]));
    let refused = replies(&mut c, 1, 0, later);
    assert!(
        matches!(refused[..], [ReplicaReply::Refused(Refusal::Poisoned(_))]),
        "{refused:?}"
    );
    let before = c.wire.len();
    c.sync(1);
    assert_eq!(replies_since(&mut c, before), []);

    let own = c.ask(1, put("k", "y"));
    assert!(matches!(refusal(c.answer_to(own)), Refusal::Poisoned(_)));
    let blind = c.ask(1, delete("k"));
    assert!(matches!(refusal(c.answer_to(blind)), Refusal::Poisoned(_)));
    let read = c.ask(1, get("k"));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert!(c.nodes[1].ready().is_err());
    assert!(
        c.record(1, "k").live().len() == 1,
        "what came after is not there"
    );
}

#[test]
fn a_coordinator_whose_disk_fails_does_not_count_itself() {
    let mut c = Cluster::of(3);
    let write = c.ask(0, put("k", "v"));
    c.deliver(0, 1);
    c.sync(1);
    c.deliver(1, 0);
    c.disks[0].fail_next_sync();
    c.sync(0);
    assert_eq!(c.answer_to(write), None);
    c.deliver(0, 2);
    c.sync(2);
    c.deliver(2, 0);
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    assert_eq!(c.on_disk(0, "k"), Record::new());
    for at in [1, 2] {
        assert_eq!(c.on_disk(at, "k").live().len(), 1);
    }
}

// ---- Closing, layouts, limits ----

#[test]
fn a_closing_node_finishes_what_it_began_and_serves_replicas() {
    let mut c = Cluster::of(3);
    let begun = c.ask(0, put("k", "v"));
    c.input(0, Input::Drain);
    let refused = c.ask(0, get("k"));
    assert_eq!(refusal(c.answer_to(refused)), &Refusal::Draining);
    assert!(c.nodes[0].ready().is_err());
    let described = c.ask(0, Request::Describe);
    assert!(matches!(c.answer_to(described), Some(Answer::Described(_))));
    c.settle();
    assert!(matches!(c.answer_to(begun), Some(Answer::Stored { .. })));
    let other = c.ask(1, put("k", "w").with(w(3)));
    c.settle();
    assert!(matches!(c.answer_to(other), Some(Answer::Stored { .. })));
}

#[test]
fn whoever_has_another_layout_is_refused() {
    let mut c = Cluster::of(3);
    let version = c.layout.version();
    let record = holding(&[(foreign(1), "v")], &[]);
    // Who knows less might write past a layout that he does not know; who knows more may write, and is read by a layout that is not known here.
    let of_version = |mut message, wrong| {
        if let Message::Replica(_, header, _) = &mut message {
            header.layout_version = wrong;
        }
        message
    };
    let wrong_layout = ReplicaReply::Refused(Refusal::WrongLayout { version });
    let old = of_version(c.merge(1, "k", &record), version - 1);
    assert_eq!(
        replies(&mut c, 0, 1, old),
        std::slice::from_ref(&wrong_layout)
    );
    assert_eq!(c.record(0, "k"), Record::new());
    for wrong in [version - 1, version + 1] {
        let read = of_version(c.read(2, "k", false), wrong);
        let refused = replies(&mut c, 0, 1, read);
        assert_eq!(refused, std::slice::from_ref(&wrong_layout), "{wrong}");
    }
    let new = of_version(c.merge(3, "k", &record), version + 1);
    c.input(0, Input::Message(NodeId(1), new));
    c.settle();
    assert_eq!(c.record(0, "k"), record);
    // What a node has sent on is carried out or not, whatever that node knows; a client is told that it routes by another layout.
    let header = Header {
        layout_version: version + 1,
        ..Header::default()
    };
    let of_client = Message::Request(RequestId(5), header, put("k", "v"));
    c.input(0, Input::Message(NodeId(1), of_client));
    let sent = c.wire.pop().expect("an answer").message;
    let refused = Answer::Refused(Refusal::WrongLayout { version });
    assert_eq!(sent, Message::Answer(RequestId(5), refused));
}

#[test]
fn a_forwarded_request_is_not_forwarded_again() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    let header = Header {
        forwarded: true,
        ..c.header()
    };
    c.input(
        3,
        Input::Message(NodeId(0), Message::Request(RequestId(5), header, get(&key))),
    );
    let sent = c.wire.pop().expect("an answer").message;
    assert!(
        matches!(
            sent,
            Message::Answer(_, Answer::Refused(Refusal::WrongLayout { .. }))
        ),
        "{sent:?}"
    );
}

#[test]
fn nothing_is_kept_for_a_seat_that_the_node_does_not_have() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    let record = holding(&[(foreign(1), "v")], &[]);
    let mut beyond = c.merge(2, &key, &record);
    if let Message::Replica(_, _, ReplicaRequest::Merge(merge)) = &mut beyond {
        merge.vnode.partition.0 = u16::MAX;
    }
    let messages = [
        c.merge(1, &key, &record),
        beyond,
        c.read(3, &key, false),
        c.read(4, &key, true),
    ];
    for message in messages {
        let refused = replies(&mut c, 3, 0, message);
        assert!(
            matches!(refused[..], [ReplicaReply::Refused(Refusal::Malformed(_))]),
            "{refused:?}"
        );
    }
    assert_eq!(c.disks[3].pending().last.0, 0);
}

#[test]
fn a_record_that_names_a_write_this_node_never_made_is_refused() {
    let mut c = Cluster::of(3);
    let write = c.ask(0, put("k", "v"));
    c.settle();
    let context = c.context_of(write);
    let own = c.opened("k", &context).spans()[0].dot;
    let next = Dot {
        counter: own.counter + 1,
        ..own
    };
    for record in [
        holding(&[(next, "never")], &[]),
        holding(&[], &[next]),
        holding(
            &[],
            &[Dot {
                counter: u64::MAX,
                ..own
            }],
        ),
    ] {
        let message = c.merge(1, "k", &record);
        let refused = replies(&mut c, 0, 1, message);
        assert!(
            matches!(refused[..], [ReplicaReply::Refused(Refusal::Malformed(_))]),
            "{refused:?}"
        );
    }
    assert_eq!(c.record(0, "k").live().len(), 1);
    // What it did mint may come back.
    let message = c.merge(2, "k", &holding(&[], &[own]));
    replies(&mut c, 0, 1, message);
    assert!(c.record(0, "k").live().is_empty());
}

#[test]
fn bytes_that_are_no_record_are_refused() {
    let mut c = Cluster::of(3);
    for bytes in [&b""[..], b"\xff", b"\x01\x01", &[1; 100]] {
        let message = c.merge_bytes(1, "k", Bytes::copy_from_slice(bytes));
        let refused = replies(&mut c, 0, 1, message);
        assert!(
            matches!(refused[..], [ReplicaReply::Refused(Refusal::Malformed(_))]),
            "{refused:?}"
        );
    }
    // Nor does a reply of such bytes do more than lose its sender.
    let read = c.ask(0, get("k").with(r(3)));
    let id = asked(&c, 0, 1);
    c.arrive(reply(
        1,
        0,
        id,
        ReplicaReply::Record(Bytes::from_static(b"\xff")),
    ));
    assert!(nothing_happened(c.answer_to(read).expect("an answer")));
}

#[test]
fn a_context_of_another_key_or_bucket_or_cluster_is_refused() {
    let mut c = Cluster::of(3);
    let write = c.ask(0, put("k", "v"));
    c.settle();
    let context = c.context_of(write);
    let mut altered = context.to_vec();
    altered[8] ^= 1;
    let mut other_bucket = put("k", "w").having_seen(&context);
    if let Request::Put(put) = &mut other_bucket {
        put.bucket = "c".to_owned();
    }
    for request in [
        put("l", "w").having_seen(&context),
        delete("l").having_seen(&context),
        other_bucket,
        put("k", "w").having_seen(&Bytes::from(altered)),
        put("k", "w").having_seen(&Bytes::new()),
        put("k", "w").having_seen(&context.slice(..context.len() - 1)),
    ] {
        let sent = c.wire.len();
        let refused = c.ask(0, request);
        assert!(matches!(
            refusal(c.answer_to(refused)),
            Refusal::BadContext(_)
        ));
        assert_eq!(c.wire.len(), sent);
    }
    let right = c.ask(2, put("k", "w").having_seen(&context));
    c.settle();
    assert!(matches!(c.answer_to(right), Some(Answer::Stored { .. })));
}

#[test]
fn what_can_never_be_is_refused_before_anything_is_sent() {
    let limits = Limits {
        value_bytes_max: 10,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    let pr = Options {
        pr: Some(Quorum::Count(4)),
        ..Options::default()
    };
    let dw = Options {
        dw: Some(Quorum::Count(4)),
        ..Options::default()
    };
    for (request, why) in [
        (put("k", "v").with(w(4)), "w=4"),
        (put("k", "v").with(w(0)), "w=0"),
        (get("k").with(r(4)), "r=4"),
        (get("k").with(pr), "pr=4"),
        (put("k", "v").with(dw), "dw=4"),
        (delete("k").with(dw), "dw=4"),
        (delete("k").with(r(4)), "r=4"),
        (put("", "v"), "key is empty"),
        (get(&"k".repeat(1025)), "1025 bytes"),
        (put("k", "eleven byte"), "11 bytes"),
    ] {
        let asked = c.ask(0, request);
        let told = refusal(c.answer_to(asked)).to_string();
        assert!(told.contains(why), "{told}");
    }
    let long = c.ask_within(0, 301_000, get("k"));
    assert!(matches!(refusal(c.answer_to(long)), Refusal::Malformed(_)));
    assert!(c.wire.is_empty());
    assert_eq!(c.nodes[0].in_flight(), 0);
}

#[test]
fn more_requests_than_a_node_takes_are_refused_early() {
    let limits = Limits {
        requests_max: 2,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    let first = c.ask(0, put("k", "v"));
    c.ask(0, get("k").with(r(3)));
    let third = c.ask(0, get("k"));
    assert_eq!(refusal(c.answer_to(third)), &Refusal::Overloaded);
    c.settle();
    assert!(matches!(c.answer_to(first), Some(Answer::Stored { .. })));
    let fourth = c.ask(0, get("k"));
    c.settle();
    assert_eq!(c.shown(fourth), ["v"]);
}

#[test]
fn a_read_waits_for_lost_replicas_no_longer_than_it_has() {
    let mut c = Cluster::of(3);
    let read = c.ask_within(0, 200, get("k"));
    c.down(0, 1);
    c.down(0, 2);
    c.pass(Duration::from_millis(199));
    assert_eq!(c.answer_to(read), None);
    c.pass(Duration::from_millis(1));
    assert!(matches!(c.answer_to(read), Some(Answer::Unmet(unmet)) if unmet.timed_out));
    assert!(c.nodes[0].is_idle());
}

#[test]
fn a_write_that_reads_first_survives_the_loss_of_its_replicas_while_it_reads() {
    let mut c = Cluster::of(3);
    let write = c.ask(0, put("k", "v").on_condition(Condition::Absent));
    for other in [1, 2] {
        c.lose(0, other);
        c.down(0, other);
    }
    assert_eq!(c.answer_to(write), None);
    for other in [1, 2] {
        c.up(0, other);
    }
    c.settle();
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    let read = c.ask(1, get("k"));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
}

#[test]
fn a_read_does_not_wait_where_those_who_refused_are_too_many() {
    let mut c = Cluster::of(3);
    let read = c.ask(0, get("k").with(r(3)));
    c.down(0, 1);
    assert_eq!(c.answer_to(read), None);
    let Message::Replica(id, ..) = c.wire[0].message else {
        panic!("a read is under way");
    };
    let refused = ReplicaReply::Refused(Refusal::Overloaded);
    c.input(0, Input::Message(NodeId(2), Message::Reply(id, refused)));
    assert!(matches!(c.answer_to(read), Some(Answer::Unmet(unmet)) if !unmet.timed_out));
}

#[test]
fn a_cluster_of_two_takes_requests_by_its_defaults() {
    let mut c = Cluster::of(2);
    let write = c.ask(0, put("k", "v"));
    c.settle();
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
    let one = Cluster::of(1);
    let mut c = one;
    let write = c.ask(0, put("k", "v"));
    assert_eq!(c.answer_to(write), None);
    c.settle();
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
}
