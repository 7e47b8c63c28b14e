//! Anything in any order: requests, deliveries late, twice or never, links, disks, restarts, time.
//!
//! Whatever happens, no node panics; every request gets one answer, by its deadline; what was refused never happens;
//! what was acknowledged is on as many disks as was asked for; and afterwards nothing is left, no conversation and no timer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_causal::Record;
use quorate_node::{Caller, Input, Time};
use quorate_protocol::{
    Answer, Condition, Message, Options, Quorum, Refusal, ReplicaReply, Request, RequestId,
};
use quorate_ring::NodeId;

use crate::cluster::{
    Cluster, Envelope, With, delete, foreign, get, holding, nothing_happened, payload, put,
};

const NODES: usize = 4;
const KEYS: [&str; 3] = ["milk", "eggs", "flour"];

/// One step. Large numbers choose among whatever there is at that moment, modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Put(Ask),
    Get(Ask),
    Delete(Ask),
    Deliver(usize),
    /// A message arrives, and will once more.
    Double(usize),
    Lose(usize),
    Write(usize),
    Sync(usize),
    FailSync(usize),
    Up(usize, usize),
    Down(usize, usize),
    Pass(u64),
    Restart(usize, usize),
    /// Somebody says something that nobody asked for or that is not true.
    Forge(usize, usize, usize, Forgery),
}

#[derive(Clone, Debug)]
struct Ask {
    at: usize,
    key: usize,
    /// Which of the contexts given out for the key, if any.
    context: Option<usize>,
    /// `r`, `w` and `dw`.
    quorums: (Option<u8>, Option<u8>, Option<u8>),
    deadline_ms: u32,
    return_body: bool,
    /// What a write asks for first.
    condition: Option<Condition>,
    explain: bool,
}

#[derive(Clone, Debug)]
enum Forgery {
    Merged(bool),
    Digest([u8; 16]),
    Record(Vec<u8>),
    SoundRecord,
    Refused,
    Answer,
    Merge(Vec<u8>),
    SoundMerge,
}

fn ask() -> impl Strategy<Value = Ask> {
    let count = || prop::option::weighted(0.5, 1..=3u8);
    let context = prop::option::weighted(0.7, any::<usize>());
    let quorums = (count(), count(), prop::option::weighted(0.2, 0..=3u8));
    let deadline = prop_oneof![1 => Just(0u32), 4 => 1..400u32];
    let condition = prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        Just(Condition::Dots(vec!["00000000:1".to_owned()])),
    ];
    (
        0..NODES,
        0..KEYS.len(),
        context,
        quorums,
        deadline,
        prop::bool::weighted(0.1),
        prop::option::weighted(0.3, condition),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(at, key, context, quorums, deadline_ms, return_body, condition, explain)| Ask {
                at,
                key,
                context,
                quorums,
                deadline_ms,
                return_body,
                condition,
                explain,
            },
        )
}

fn forged() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let forgery = prop_oneof![
        any::<bool>().prop_map(Forgery::Merged),
        any::<[u8; 16]>().prop_map(Forgery::Digest),
        bytes().prop_map(Forgery::Record),
        Just(Forgery::SoundRecord),
        Just(Forgery::Refused),
        Just(Forgery::Answer),
        bytes().prop_map(Forgery::Merge),
        Just(Forgery::SoundMerge),
    ];
    (node(), node(), any::<usize>(), forgery)
        .prop_map(|(from, to, id, what)| Step::Forge(from, to, id, what))
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let which = || any::<usize>();
    prop_oneof![
        6 => ask().prop_map(Step::Put),
        4 => ask().prop_map(Step::Get),
        2 => ask().prop_map(Step::Delete),
        30 => which().prop_map(Step::Deliver),
        3 => which().prop_map(Step::Double),
        2 => which().prop_map(Step::Lose),
        4 => node().prop_map(Step::Write),
        10 => node().prop_map(Step::Sync),
        1 => node().prop_map(Step::FailSync),
        3 => (node(), node()).prop_map(|(a, b)| Step::Up(a, b)),
        2 => (node(), node()).prop_map(|(a, b)| Step::Down(a, b)),
        3 => prop_oneof![1..150u64, 1..2_000u64].prop_map(Step::Pass),
        1 => (node(), which()).prop_map(|(a, keep)| Step::Restart(a, keep)),
    ]
}

struct World {
    c: Cluster,
    /// Until when each request must have its answer; those whose node went down are not waited for.
    open: BTreeMap<Caller, Time>,
    judged: usize,
    contexts: BTreeMap<String, Vec<Bytes>>,
    /// Values of puts of which their clients were told that nothing happened.
    refused: BTreeSet<(String, Bytes)>,
    /// Whether the nodes' disks leave syncing to the system: then only `dw` says what is on disk.
    os: bool,
    honest: bool,
}

impl World {
    fn new(os: bool, honest: bool) -> Self {
        World {
            c: Cluster::of(NODES),
            open: BTreeMap::new(),
            judged: 0,
            contexts: BTreeMap::new(),
            refused: BTreeSet::new(),
            os,
            honest,
        }
    }

    fn ask(&mut self, ask: &Ask, request: fn(&str, &str) -> Request) {
        let key = KEYS[ask.key];
        let value = format!("value {}", self.c.asked.len());
        let known = self.contexts.get(key).map_or(&[][..], Vec::as_slice);
        let mut request = request(key, &value);
        if let Some(which) = ask.context.filter(|_| !known.is_empty()) {
            request = request.having_seen(&known[which % known.len()]);
        }
        let (r, w, dw) = ask.quorums;
        let count = |count: Option<u8>| count.map(Quorum::Count);
        request = request.with(Options {
            r: count(r),
            w: count(w),
            dw: count(dw),
            return_body: ask.return_body,
            explain: ask.explain,
            ..Options::default()
        });
        if let Some(condition) = ask.condition.clone().filter(|_| request.is_write()) {
            request = request.on_condition(condition);
        }
        let ms = match ask.deadline_ms {
            0 => 5_000,
            ms => u64::from(ms),
        };
        let deadline = self.c.now.after(Duration::from_millis(ms));
        let next = Caller(self.c.asked.len() as u64 + 1);
        self.open.insert(next, deadline);
        let caller = self.c.ask_within(ask.at, ask.deadline_ms, request);
        assert_eq!(caller, next);
    }

    fn play(&mut self, step: &Step) {
        let c = &mut self.c;
        let sent = c.wire.len().max(1);
        match step {
            Step::Put(ask) => self.ask(ask, put),
            Step::Get(ask) => self.ask(ask, |key, _| get(key)),
            Step::Delete(ask) => self.ask(ask, |key, _| delete(key)),
            Step::Deliver(which) => {
                if !c.wire.is_empty() {
                    c.deliver_nth(which % sent);
                }
            }
            Step::Double(which) => {
                if let Some(envelope) = c.wire.get(which % sent).cloned() {
                    // Requests that are passed on ride on a stream that delivers once.
                    if !matches!(envelope.message, Message::Request(..)) {
                        c.arrive(envelope);
                    }
                }
            }
            Step::Lose(which) => {
                if !c.wire.is_empty() {
                    c.wire.remove(which % sent);
                }
            }
            Step::Write(at) if self.os => c.write(*at),
            Step::Write(at) | Step::Sync(at) => c.sync(*at),
            Step::FailSync(at) => c.disks[*at].fail_next_sync(),
            Step::Up(a, b) => c.up(*a, *b),
            Step::Down(a, b) => c.down(*a, *b),
            Step::Pass(ms) => c.pass(Duration::from_millis(*ms)),
            Step::Restart(at, keep) => {
                let pending = c.disks[*at].pending();
                let unsynced = (pending.last.0 - pending.progress.synced.0) as usize;
                c.restart(*at, keep % (unsynced + 1));
                let asked = &c.asked;
                self.open.retain(|caller, _| asked[caller].0 != *at);
            }
            Step::Forge(from, to, id, what) => self.forge(*from, *to, *id, what),
        }
        self.judge();
    }

    fn forge(&mut self, from: usize, to: usize, id: usize, what: &Forgery) {
        // An id that is in use, if there is one.
        let of = |e: &Envelope| match e.message {
            Message::Request(id, ..)
            | Message::Answer(id, _)
            | Message::Replica(id, ..)
            | Message::Reply(id, _) => id,
        };
        let c = &mut self.c;
        let id = match c.wire.len() {
            0 => RequestId(id as u64),
            sent => of(&c.wire[id % sent]),
        };
        let record = holding(&[(foreign(1), "forged")], &[foreign(2)]);
        let key = KEYS[id.0 as usize % KEYS.len()];
        let merge = |bytes| c.merge_bytes(id.0, key, bytes);
        let reply = |reply| Message::Reply(id, reply);
        let message = match what {
            Forgery::Merged(synced) => reply(ReplicaReply::Merged { synced: *synced }),
            Forgery::Digest(digest) => reply(ReplicaReply::Digest(*digest)),
            Forgery::Record(bytes) => reply(ReplicaReply::Record(bytes.clone().into())),
            Forgery::SoundRecord => reply(ReplicaReply::Record(record.encode())),
            Forgery::Refused => reply(ReplicaReply::Refused(Refusal::Overloaded)),
            Forgery::Answer => Message::Answer(id, Answer::Deleted),
            Forgery::Merge(bytes) => merge(bytes.clone().into()),
            Forgery::SoundMerge => merge(record.encode()),
        };
        c.input(to, Input::Message(NodeId(from as u64), message));
    }

    /// Looks at the answers that came since.
    fn judge(&mut self) {
        let c = &self.c;
        for (at, caller, answer) in &c.answers[self.judged..] {
            let (asked_at, request) = &c.asked[caller];
            assert_eq!(at, asked_at);
            let waited = self.open.remove(caller);
            assert!(waited.is_some(), "nobody waits for client {}", caller.0);
            let (_, key) = request.target().expect("a key");
            let opened = match answer {
                Answer::Explained(explained) => {
                    assert!(request.explains(), "nobody asked for an account");
                    explained.answer().expect("it can be opened")
                }
                other => other.clone(),
            };
            let answer = &opened;
            if let (true, Request::Put(put)) = (nothing_happened(answer), request) {
                let value = payload(std::str::from_utf8(&put.value.data).expect("text"));
                self.refused.insert((key.to_owned(), value));
            }
            if let Answer::Stored { context } | Answer::Found { context, .. } = answer {
                let known = self.contexts.entry(key.to_owned()).or_default();
                known.push(context.clone());
            }
            if self.honest {
                copies(c, self.os, request, answer);
            }
        }
        self.judged = c.answers.len();
        for (caller, deadline) in &self.open {
            // Time passes in leaps; a node that was woken has answered whatever was due.
            assert!(*deadline > c.now, "client {} waits in vain", caller.0);
        }
    }

    fn end(mut self) {
        // The longest a request may take, and then whatever the answers of that still set off.
        self.c.pass(Duration::from_secs(6));
        self.judge();
        assert_eq!(self.open, BTreeMap::new());
        // Hints are handed over in passes.
        for _ in 0..4 {
            self.c.settle();
            self.c.pass(Duration::from_secs(6));
            self.judge();
        }
        for (i, node) in self.c.nodes.iter().enumerate() {
            assert_eq!(node.in_flight(), 0, "n{i}");
            // What an owner does not take, as its disk has failed, is handed over again and again.
            let hints = node.pending_hints();
            assert!(node.is_idle() || !hints.is_empty(), "n{i}");
            for (key, value) in &self.refused {
                let record = self.c.record(i, key);
                let found = record.live().iter().find(|s| s.payload == *value);
                assert_eq!(found, None, "n{i} has a value that was refused");
            }
        }
    }
}

/// An acknowledged put is on the disks of as many replicas as its client asked for.
fn copies(c: &Cluster, os: bool, request: &Request, answer: &Answer) {
    let (Request::Put(put), Answer::Stored { context }) = (request, answer) else {
        return;
    };
    let asked = |quorum, default| match quorum {
        Some(Quorum::Count(count)) => usize::from(count),
        _ => default,
    };
    let (w, dw) = (asked(put.options.w, 2), asked(put.options.dw, 0));
    let synced = if os { dw } else { w.max(dw) };
    let own = c.opened(&put.key, context).spans()[0].dot;
    let holds = |record: Record| {
        record.live().iter().any(|s| s.span.dot == own) || record.evidence().contains(own)
    };
    // On primaries, or kept for them.
    let found = |on: fn(&Cluster, usize, &str) -> Record| {
        let nodes = 0..c.nodes.len();
        nodes.filter(|at| holds(on(c, *at, &put.key))).count()
    };
    assert!(found(Cluster::on_disk) >= synced, "{}", c.log);
    // A restart may take what was only written.
    if !os {
        assert!(found(Cluster::record) >= w, "{}", c.log);
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn every_request_gets_one_answer_that_holds(
        steps in prop::collection::vec(step(), 1..150),
        os: bool,
    ) {
        let mut world = World::new(os, true);
        steps.iter().for_each(|step| world.play(step));
        world.end();
    }

    #[test]
    fn nor_do_lies_break_a_node(
        steps in prop::collection::vec(prop_oneof![8 => step(), 1 => forged()], 1..150),
        os: bool,
    ) {
        let mut world = World::new(os, false);
        // What a forged acknowledgement makes of the truth is not the node's fault; that it answers once is.
        steps.iter().for_each(|step| world.play(step));
        world.refused.clear();
        world.end();
    }
}
