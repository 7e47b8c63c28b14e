//! What operators look at and what befalls them: status, traces, slow requests, full disks.

use std::time::Duration;

use quorate_causal::Record;
use quorate_node::{Input, Telling, Vitals};
use quorate_protocol::{
    Answer, ClusterStatus, Header, Message, Refusal, ReplicaReply, ReplicaRequest, Request,
    RequestId, Trace,
};
use quorate_ring::NodeId;

use crate::cluster::{
    Cluster, With, delete, foreign, get, holding, nothing_happened, put, r, refusal, w,
};

fn status(c: &Cluster, caller: quorate_node::Caller) -> ClusterStatus {
    match c.answer_to(caller) {
        Some(Answer::Status(status)) => status.clone(),
        other => panic!("asked for the status it said {other:?}"),
    }
}

fn told(status: &ClusterStatus) -> Vec<&str> {
    status.nodes.iter().map(|n| n.name.as_str()).collect()
}

// ---- Status ----

#[test]
fn everybody_tells_how_it_is() {
    let mut c = Cluster::of(3);
    let vitals = Vitals {
        release: "1.2.3".into(),
        uptime_s: 60,
        records: 7,
        disk_bytes: 1000,
        disk_free_bytes: Some(5000),
        disk_reserve_bytes: 10,
        clock_ms: 1_800_000_000_000,
    };
    c.input(1, Input::Vitals(Box::new(vitals)));
    c.down(2, 0);
    let asked = c.ask(0, Request::Status);
    c.settle();
    let status = status(&c, asked);
    assert_eq!((status.node.as_str(), status.silent.len()), ("n0", 0));
    assert_eq!(told(&status), ["n0", "n1", "n2"]);
    let n1 = &status.nodes[1];
    assert_eq!(
        (n1.id, n1.release.as_str(), n1.uptime_s, n1.records),
        (1, "1.2.3", 60, 7)
    );
    assert_eq!(
        (n1.disk_bytes, n1.disk_free_bytes, n1.clock_s),
        (1000, 5000, 1_800_000_000)
    );
    assert_eq!(n1.not_ready, None);
    assert_eq!(n1.layout_version, c.layout.version());
    // That one of them does not see another shows, though the one that was asked sees both.
    assert!(status.nodes[0].unreachable.is_empty());
    assert_eq!(status.nodes[2].unreachable, ["n0"]);
}

#[test]
fn the_silent_are_named_and_hold_nobody_up_for_long() {
    let mut c = Cluster::of(5);
    for other in [2, 3, 4] {
        c.down(0, other);
    }
    let asked = c.ask(0, Request::Status);
    c.lose(0, 1);
    c.pass(Duration::from_millis(900));
    assert_eq!(c.answer_to(asked), None, "there is time left");
    c.pass(Duration::from_millis(200));
    let alone = status(&c, asked);
    assert_eq!(told(&alone), ["n0"]);
    assert_eq!(alone.silent, ["n1", "n2", "n3", "n4"]);
    let why = alone.nodes[0].not_ready.as_deref().expect("a minority");
    assert!(why.contains("2 of 5"), "{why}");
    assert_eq!(c.nodes[0].in_flight(), 0);

    // Who goes down while it is awaited is not awaited longer.
    let asked = c.ask(0, Request::Status);
    c.down(0, 1);
    assert_eq!(status(&c, asked).silent.len(), 4);
}

#[test]
fn a_node_that_drains_and_one_of_another_layout_still_tell() {
    let mut c = Cluster::of(3);
    c.input(0, Input::Drain);
    let refused = c.ask(0, get("k"));
    assert_eq!(refusal(c.answer_to(refused)), &Refusal::Draining);
    let asked = c.ask(0, Request::Status);
    c.settle();
    let status = status(&c, asked);
    assert_eq!(told(&status).len(), 3);
    assert_eq!(status.nodes[0].not_ready.as_deref(), Some("closing"));

    let header = Header {
        layout_version: c.layout.version() + 7,
        ..Header::default()
    };
    let question = Message::Replica(RequestId(99), header, ReplicaRequest::Status);
    let before = c.wire.len();
    c.input(1, Input::Message(NodeId(2), question));
    let reply = &c.wire[before].message;
    assert!(
        matches!(reply, Message::Reply(RequestId(99), ReplicaReply::Status(s)) if s.name == "n1"),
        "{reply:?}"
    );
}

#[test]
fn a_status_that_nobody_asked_for_or_of_somebody_else_counts_for_nobody() {
    let mut c = Cluster::of(3);
    let asked = c.ask(0, Request::Status);
    let Message::Replica(id, ..) = c.wire[0].message else {
        panic!("n1 is asked first: {:?}", c.wire[0]);
    };
    c.wire.clear();
    let mut lie = quorate_protocol::NodeStatus {
        id: 0,
        name: "n1".into(),
        ..Default::default()
    };
    let says = |c: &mut Cluster, from: u64, lie: &quorate_protocol::NodeStatus| {
        let reply = ReplicaReply::Status(Box::new(lie.clone()));
        c.input(0, Input::Message(NodeId(from), Message::Reply(id, reply)));
    };
    says(&mut c, 1, &lie);
    lie.records = 1;
    says(&mut c, 1, &lie);
    says(&mut c, 7, &lie);
    assert_eq!(c.answer_to(asked), None, "n2 is awaited still");
    let refused = ReplicaReply::Refused(Refusal::Overloaded);
    c.input(0, Input::Message(NodeId(2), Message::Reply(id, refused)));
    let status = status(&c, asked);
    let seen: Vec<(u64, u64)> = status.nodes.iter().map(|n| (n.id, n.records)).collect();
    assert_eq!(
        seen,
        [(0, 0), (1, 0)],
        "the first word stands, under the id of who said it"
    );
    assert_eq!(status.silent, ["n2"]);
}

#[test]
fn status_is_answered_under_overload_and_bounded() {
    let limits = quorate_node::Limits {
        requests_max: 1,
        ..Default::default()
    };
    let mut c = Cluster::with(&["here"; 3], Default::default(), limits);
    c.ask(0, put("k", "v").with(w(3)));
    let refused = c.ask(0, get("k"));
    assert_eq!(refusal(c.answer_to(refused)), &Refusal::Overloaded);
    let mut overloaded = 0;
    for _ in 0..100 {
        let asked = c.ask(0, Request::Status);
        overloaded += usize::from(c.answer_to(asked).is_some());
    }
    assert!((80..90).contains(&overloaded), "{overloaded} were refused");
    c.settle();
    assert_eq!(c.nodes[0].in_flight(), 0);
}

// ---- Full disks ----

#[test]
fn a_full_disk_takes_no_values_and_all_else_goes_on() {
    let mut c = Cluster::of(3);
    let first = c.ask(0, put("k", "old").with(w(3)));
    c.settle();
    let context = c.context_of(first);
    c.free_bytes(0, 99);

    let before = c.wire.len();
    let refused = c.ask(0, put("k", "new").having_seen(&context));
    let full = Refusal::DiskFull {
        free: 99,
        needed: 100,
    };
    assert_eq!(refusal(c.answer_to(refused)), &full);
    assert!(nothing_happened(c.answer_to(refused).expect("an answer")));
    assert_eq!(c.wire.len(), before, "nothing was sent");
    assert!(full.is_passing(), "another node may take it");

    let read = c.ask(0, get("k").with(r(3)));
    c.settle();
    assert_eq!(c.shown(read), ["old"]);
    let removed = c.ask(0, delete("k").having_seen(&context).with(w(3)));
    c.settle();
    assert_eq!(c.answer_to(removed), Some(&Answer::Deleted));
    let removed = c.ask(0, delete("k").with(w(3)));
    c.settle();
    assert_eq!(c.answer_to(removed), Some(&Answer::Deleted));

    // There is room again, just as much as is needed.
    c.free_bytes(0, 100);
    let taken = c.ask(0, put("k", "newest"));
    c.settle();
    assert!(matches!(c.answer_to(taken), Some(Answer::Stored { .. })));
}

#[test]
fn a_replica_with_a_full_disk_is_as_good_as_lost_for_values() {
    let mut c = Cluster::of(3);
    c.free_bytes(2, 0);
    let two = c.ask(0, put("k", "v").with(w(2)));
    let three = c.ask(0, put("l", "v").with(w(3)));
    c.settle();
    assert!(matches!(c.answer_to(two), Some(Answer::Stored { .. })));
    let Some(Answer::Unmet(unmet)) = c.answer_to(three) else {
        panic!("{:?}", c.answer_to(three));
    };
    assert!(unmet.needed == 3 && unmet.answered < 3, "{unmet:?}");
    assert!(unmet.may_have_written && !unmet.timed_out);
    assert!(c.record(2, "k").live().is_empty() && c.record(2, "l").live().is_empty());

    // A removal is taken, though what it removes was not: it must not come back once there is room.
    let removed = c.ask(0, delete("k").with(w(3)));
    c.settle();
    assert_eq!(c.answer_to(removed), Some(&Answer::Deleted));
    // Read repair is refused as well, and harms nobody.
    let read = c.ask(0, get("l").with(r(3)));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert!(c.record(2, "l").live().is_empty());

    c.free_bytes(2, 1000);
    let read = c.ask(0, get("l").with(r(3)));
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(
        c.record(2, "l").live().len(),
        1,
        "repaired once there is room"
    );
    let read = c.ask(2, get("k").with(r(3)));
    c.settle();
    assert_eq!(c.shown(read), Vec::<String>::new());
}

#[test]
fn a_full_disk_refuses_a_value_with_what_it_removes_and_acknowledges_what_it_has() {
    let mut c = Cluster::of(3);
    let (old, new) = (foreign(1), foreign(2));
    c.plant(1, "k", &holding(&[(old, "old")], &[]));
    c.free_bytes(1, 0);
    let refused = |c: &mut Cluster, record: &Record| {
        let before = c.wire.len();
        let message = c.merge(5, "k", record);
        c.input(1, Input::Message(NodeId(0), message));
        c.sync(1);
        let sent = c.wire.split_off(before);
        let [envelope] = &sent[..] else {
            panic!("{sent:?}");
        };
        matches!(
            envelope.message,
            Message::Reply(_, ReplicaReply::Refused(Refusal::DiskFull { .. }))
        )
    };
    // Were the removal taken alone, this replica would show nothing at all.
    assert!(refused(&mut c, &holding(&[(new, "new")], &[old])));
    assert_eq!(c.record(1, "k"), holding(&[(old, "old")], &[]));
    // It has that: nothing is to be stored.
    assert!(!refused(&mut c, &holding(&[(old, "old")], &[])));
    assert!(!refused(&mut c, &holding(&[], &[old])));
    // And this is known to be removed: it is not stored either.
    assert!(!refused(&mut c, &holding(&[(old, "old")], &[])));
    assert!(c.record(1, "k").live().is_empty());
}

#[test]
fn what_is_not_known_of_a_disk_refuses_nothing() {
    let mut c = Cluster::of(1);
    let vitals = Vitals {
        disk_free_bytes: None,
        disk_reserve_bytes: 100,
        ..Vitals::default()
    };
    c.input(0, Input::Vitals(Box::new(vitals)));
    let taken = c.ask(0, put("k", "v"));
    c.settle();
    assert!(matches!(c.answer_to(taken), Some(Answer::Stored { .. })));
}

#[test]
fn a_node_with_a_full_disk_says_so_and_is_ready_for_the_rest() {
    let mut c = Cluster::of(3);
    c.free_bytes(0, 1);
    let asked = c.ask(1, Request::Status);
    c.settle();
    let why = status(&c, asked).nodes[0].not_ready.clone();
    assert!(why.expect("a reason").contains("nearly full"));
    assert_eq!(c.nodes[0].ready(), Ok(()));
}

// ---- Traces and slow requests ----

const TRACE: Trace = Trace {
    trace_id: 0xabcd,
    span_id: 7,
    flags: 1,
};

fn traced(c: &mut Cluster, at: usize, request: Request) {
    let header = Header {
        trace: Some(TRACE),
        ..Header::default()
    };
    let caller = quorate_node::Caller(1000 + c.answers.len() as u64);
    c.input(at, Input::Request(caller, header, request));
}

#[test]
fn a_trace_goes_wherever_its_request_goes() {
    let mut c = Cluster::of(5);
    let far = c.key_not_on(0);
    let near = c.replicas(&far)[0];
    traced(&mut c, 0, put(&far, "v"));
    let mut kinds = Vec::new();
    for request in [
        None,
        Some(get(&far).with(r(3))),
        Some(delete(&far)),
        Some(Request::Status),
    ] {
        if let Some(request) = request {
            traced(&mut c, near, request);
        }
        while !c.wire.is_empty() {
            let trace = match &c.wire[0].message {
                Message::Request(_, header, _) => Some(("request", header.trace)),
                Message::Replica(_, header, ReplicaRequest::Merge(_)) => {
                    Some(("merge", header.trace))
                }
                Message::Replica(_, header, ReplicaRequest::Read(_)) => {
                    Some(("read", header.trace))
                }
                Message::Replica(_, header, ReplicaRequest::Status) => {
                    Some(("status", header.trace))
                }
                _ => None,
            };
            if let Some((kind, trace)) = trace {
                assert_eq!(trace, Some(TRACE), "{kind}");
                kinds.push(kind);
            }
            c.deliver_nth(0);
        }
        c.settle();
    }
    for kind in ["request", "merge", "read", "status"] {
        assert!(kinds.contains(&kind), "no {kind} among {kinds:?}");
    }
    // And a request without one has none.
    c.ask(near, get(&far).with(r(3)));
    let headers = c.wire.iter().map(|e| &e.message);
    for message in headers {
        assert!(matches!(message, Message::Replica(_, header, _) if header.trace.is_none()));
    }
}

#[test]
fn a_repair_belongs_to_the_trace_of_its_read() {
    let mut c = Cluster::of(3);
    c.plant(0, "k", &holding(&[(foreign(1), "v")], &[]));
    traced(&mut c, 0, get("k").with(r(3)));
    let mut repairs = 0;
    while !c.wire.is_empty() {
        if let Message::Replica(_, header, ReplicaRequest::Merge(_)) = &c.wire[0].message {
            assert_eq!(header.trace, Some(TRACE));
            repairs += 1;
        }
        c.deliver_nth(0);
    }
    assert_eq!(repairs, 2);
}

#[test]
fn steps_are_told_of_traced_requests_if_asked_for() {
    let mut c = Cluster::of(3);
    traced(&mut c, 0, put("k", "v").with(w(3)));
    c.settle();
    assert!(c.steps.is_empty(), "nobody asked for them");
    let telling = Telling {
        steps: true,
        slower_than: None,
    };
    c.nodes[0].tell_of(telling);
    c.ask(0, get("k"));
    c.settle();
    assert!(c.steps.is_empty(), "it belongs to no trace");
    traced(&mut c, 0, put("k", "v").with(w(3)));
    c.settle();
    let told: Vec<_> = c
        .steps
        .iter()
        .map(|(at, step)| (*at, step.trace_id, step.node.map(|n| n.0), step.what))
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        told.iter()
            .all(|step| (step.0, step.1) == (0, TRACE.trace_id))
    );
    assert_eq!(told[3], (0, TRACE.trace_id, None, "Stored"));
    let mut who: Vec<_> = told[..3].iter().map(|step| (step.2, step.3)).collect();
    who.sort_unstable();
    assert_eq!(who, [0, 1, 2].map(|n| (Some(n), "taken and synced")));
}

#[test]
fn a_request_that_took_long_is_told_with_who_answered_when() {
    let mut c = Cluster::of(5);
    let far = c.key_not_on(0);
    let near = c.replicas(&far)[0];
    let telling = Telling {
        steps: false,
        slower_than: Some(Duration::from_millis(50)),
    };
    for node in &mut c.nodes {
        node.tell_of(telling);
    }
    c.ask(near, put(&far, "v"));
    c.settle();
    assert!(c.slow.is_empty(), "{:?}", c.slow);

    traced(&mut c, 0, put(&far, "v").with(w(3)));
    let near = c.wire[0].to;
    c.deliver(0, near);
    c.pass(Duration::from_millis(40));
    c.sync(near);
    c.pass(Duration::from_millis(40));
    c.settle();
    let (at, slow) = &c.slow[0];
    assert_eq!((*at, slow.forwarded, slow.operation), (near, false, "put"));
    assert_eq!((slow.bucket.as_str(), &slow.key), ("b", &far));
    assert_eq!(slow.partition, c.vnode(&far).partition);
    assert_eq!(
        (slow.outcome, slow.trace_id),
        ("Stored", Some(TRACE.trace_id))
    );
    assert_eq!(slow.took, Duration::from_millis(80));
    let own = (NodeId(near as u64), Duration::from_millis(40));
    assert_eq!(slow.replicas[0], own);
    assert_eq!(slow.replicas.len(), 3);
    assert_eq!(slow.replicas[2].1, Duration::from_millis(80));
    // Whoever passed it on waited as long.
    let (at, slow) = &c.slow[1];
    assert_eq!((*at, slow.forwarded, slow.operation), (0, true, "put"));
    assert_eq!(
        slow.replicas,
        [(NodeId(near as u64), Duration::from_millis(80))]
    );

    // One that came to nothing is told as well.
    c.slow.clear();
    c.ask(near, get(&far).with(r(3)));
    c.wire.clear();
    c.pass(Duration::from_secs(6));
    assert_eq!(c.slow[0].1.outcome, "Unmet");
}
