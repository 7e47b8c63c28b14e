//! A few nodes on disks in memory. Nothing moves but by the hand of the test: messages lie on the wire until they are
//! delivered, disks sync when told, and time stands still. What happens is written down, one line each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{Actor, Context, ContextKey, Digest, Dot, DotSet, Record};
use quorate_node::{
    BucketDefaults, Caller, Config, Input, Limits, Node, Output, Slow, Step, Time, Vitals,
};
use quorate_protocol::{
    Account, Answer, BucketId, Condition, Delete, Get, Header, List, Merge, Message, Options, Put,
    Quorum, Read, Refusal, ReplicaReply, ReplicaRequest, Request, RequestId, Value, VnodeId,
    decode_value,
};
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec, ReplicaSet};
use quorate_storage::CommitEvent;
use quorate_storage::memory::{MemoryDisk, MemoryStorage};

/// The bucket of every key here.
pub(crate) const BUCKET: &str = "b";
const SECRET: [u8; 32] = [7; 32];

/// A message that was sent and has not arrived.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) message: Message,
}

pub(crate) struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) nodes: Vec<Node<MemoryStorage>>,
    pub(crate) disks: Vec<MemoryDisk>,
    pub(crate) now: Time,
    /// In the order in which they were sent.
    pub(crate) wire: Vec<Envelope>,
    /// Every answer a client got: from which node, and for which key it had asked.
    pub(crate) answers: Vec<(usize, Caller, Answer)>,
    /// What each client asked.
    pub(crate) asked: BTreeMap<Caller, (usize, Request)>,
    /// Everything that happened, as text.
    pub(crate) log: String,
    /// Whether nodes compare their tables of buckets.
    pub(crate) compares: bool,
    /// What nodes told of single requests, if they were asked to.
    pub(crate) steps: Vec<(usize, Step)>,
    pub(crate) slow: Vec<(usize, Slow)>,
    defaults: BucketDefaults,
    limits: Limits,
    upkeep: bool,
    lives: Vec<u8>,
    /// Which disks have failed and said so.
    failed: Vec<bool>,
    /// Nodes that nobody reaches, nor they anybody: what is sent is lost.
    pub(crate) away: BTreeSet<usize>,
    names: Names,
}

/// How a node is described in a layout.
pub(crate) fn node_spec(i: usize, region: &str) -> NodeSpec {
    NodeSpec {
        id: NodeId(i as u64),
        name: format!("n{i}"),
        region: region.to_owned(),
        zone: format!("zone-{i}"),
        weight: 1,
        quic: format!("n{i}:1"),
        http: format!("n{i}:2"),
    }
}

/// Short names for long random numbers, in the order in which they turn up.
#[derive(Default)]
struct Names {
    requests: BTreeMap<RequestId, usize>,
    digests: BTreeMap<[u8; 16], usize>,
    actors: BTreeMap<Actor, String>,
}

impl Cluster {
    /// Nodes in one region that all reach each other.
    pub(crate) fn of(nodes: usize) -> Self {
        Cluster::in_regions(&vec!["here"; nodes])
    }

    /// A node for each of these regions.
    pub(crate) fn in_regions(regions: &[&str]) -> Self {
        Cluster::with(regions, BucketDefaults::default(), Limits::default())
    }

    pub(crate) fn with(regions: &[&str], defaults: BucketDefaults, limits: Limits) -> Self {
        Cluster::made(regions, regions.len(), defaults, limits, false)
    }

    /// Nodes that also do upkeep.
    pub(crate) fn tended(nodes: usize, limits: Limits) -> Self {
        Cluster::with_spares(&vec!["here"; nodes], nodes, limits)
    }

    /// The same for each of these regions, of which only the first so many are in the layout.
    pub(crate) fn with_spares(regions: &[&str], members: usize, limits: Limits) -> Self {
        Cluster::made(regions, members, BucketDefaults::default(), limits, true)
    }

    fn made(
        regions: &[&str],
        members: usize,
        defaults: BucketDefaults,
        limits: Limits,
        upkeep: bool,
    ) -> Self {
        let spec = LayoutSpec {
            partitions: 8,
            replicas: 3,
            nodes: (0..members).map(|i| node_spec(i, regions[i])).collect(),
        };
        let mut cluster = Cluster {
            layout: Layout::first(ClusterId(1), spec).expect("a sound layout"),
            nodes: Vec::new(),
            disks: regions.iter().map(|_| MemoryDisk::new()).collect(),
            now: Time(1_000_000),
            wire: Vec::new(),
            answers: Vec::new(),
            asked: BTreeMap::new(),
            log: String::new(),
            compares: false,
            steps: Vec::new(),
            slow: Vec::new(),
            defaults,
            limits,
            upkeep,
            lives: vec![0; regions.len()],
            failed: vec![false; regions.len()],
            away: BTreeSet::new(),
            names: Names {
                actors: BTreeMap::from([(foreign(1).actor, "x".to_owned())]),
                ..Names::default()
            },
        };
        for i in 0..regions.len() {
            let node = cluster.open(i);
            cluster.nodes.push(node);
        }
        for a in 0..regions.len() {
            for b in (0..regions.len()).filter(|b| *b != a) {
                cluster.quietly(|c| c.up(a, b));
            }
        }
        cluster
    }

    /// Starts a node on what is on its disk.
    pub(crate) fn start(&mut self, at: usize) {
        self.failed[at] = false;
        self.nodes[at] = self.open(at);
    }

    fn open(&mut self, i: usize) -> Node<MemoryStorage> {
        self.open_as(i, false)
    }

    fn open_as(&mut self, i: usize, unclean: bool) -> Node<MemoryStorage> {
        self.lives[i] += 1;
        let mut seed = [i as u8; 32];
        seed[1] = self.lives[i];
        self.node_on(&self.disks[i], i, seed, unclean)
    }

    /// How a node is configured.
    pub(crate) fn config(&self, i: usize, unclean: bool) -> Config {
        Config {
            me: NodeId(i as u64),
            secret: ContextKey::new(&SECRET),
            defaults: self.defaults.clone(),
            limits: self.limits.clone(),
            upkeep: self.upkeep,
            unclean,
        }
    }

    fn node_on(
        &self,
        disk: &MemoryDisk,
        i: usize,
        seed: [u8; 32],
        unclean: bool,
    ) -> Node<MemoryStorage> {
        let config = self.config(i, unclean);
        Node::new(config, self.layout.clone(), disk.open(), seed).expect("a sound node")
    }

    /// Does something that the log need not tell.
    pub(crate) fn quietly<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        let log = std::mem::take(&mut self.log);
        let result = what(self);
        self.log = log;
        result
    }

    pub(crate) fn note(&mut self, line: impl AsRef<str>) {
        self.log.push_str(line.as_ref());
        self.log.push('\n');
    }

    // ---- What happens ----

    pub(crate) fn input(&mut self, at: usize, input: Input) {
        let mut out = Vec::new();
        let now = self.now;
        self.nodes[at].handle(now, input, &mut out);
        for output in out {
            match output {
                // Tables of buckets are compared whenever nodes meet; few tests are about that.
                Output::Send(_, Message::Replica(_, _, ReplicaRequest::Buckets(_)))
                    if !self.compares => {}
                Output::Send(to, message) => {
                    let line = self.message(at, &message);
                    self.note(format!("    n{at} -> n{}: {line}", to.0));
                    let (from, to) = (at, to.0 as usize);
                    if !self.away.contains(&from) && !self.away.contains(&to) {
                        self.wire.push(Envelope { from, to, message });
                    }
                }
                Output::Answer(caller, answer) => {
                    let key = self.key_asked(caller);
                    let line = self.answer(&key, &answer);
                    self.note(format!("    n{at} -> client {}: {line}", caller.0));
                    self.answers.push((at, caller, answer));
                }
                Output::Event(event) => self.note(format!("    n{at} counts {event:?}")),
                Output::Step(step) => self.steps.push((at, step)),
                Output::Slow(slow) => self.slow.push((at, *slow)),
            }
        }
    }

    pub(crate) fn up(&mut self, at: usize, who: usize) {
        self.note(format!("n{at} reaches n{who}"));
        self.input(at, Input::Up(NodeId(who as u64)));
    }

    pub(crate) fn down(&mut self, at: usize, who: usize) {
        self.note(format!("n{at} no longer reaches n{who}"));
        self.input(at, Input::Down(NodeId(who as u64)));
    }

    /// So many bytes are free on the node's disk, and a hundred must be.
    pub(crate) fn free_bytes(&mut self, at: usize, free: u64) {
        self.note(format!(
            "n{at}'s disk has {free} bytes free, of which 100 are reserved"
        ));
        let vitals = Vitals {
            disk_free_bytes: Some(free),
            disk_reserve_bytes: 100,
            ..Vitals::default()
        };
        self.input(at, Input::Vitals(Box::new(vitals)));
    }

    /// A client asks, with the default time limit.
    pub(crate) fn ask(&mut self, at: usize, request: Request) -> Caller {
        self.ask_within(at, 0, request)
    }

    pub(crate) fn ask_within(&mut self, at: usize, deadline_ms: u32, request: Request) -> Caller {
        let caller = Caller(self.asked.len() as u64 + 1);
        let line = self.request(&request);
        self.note(format!("client {} -> n{at}: {line}", caller.0));
        self.asked.insert(caller, (at, request.clone()));
        let header = Header {
            deadline_ms,
            ..Header::default()
        };
        self.input(at, Input::Request(caller, header, request));
        caller
    }

    /// The oldest message from one to the other arrives.
    pub(crate) fn deliver(&mut self, from: usize, to: usize) {
        let at = self
            .wire
            .iter()
            .position(|e| e.from == from && e.to == to)
            .unwrap_or_else(|| panic!("nothing is on its way from n{from} to n{to}"));
        self.deliver_nth(at);
    }

    pub(crate) fn deliver_nth(&mut self, at: usize) {
        let envelope = self.wire.remove(at);
        self.arrive(envelope);
    }

    /// A message arrives, through its bytes.
    pub(crate) fn arrive(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        let line = self.message(from, &message);
        self.note(format!("n{to} <- n{from}: {line}"));
        let message = Message::decode(&message.encode()).expect("what was sent can be read");
        self.input(to, Input::Message(NodeId(from as u64), message));
    }

    /// Whatever is on its way from one to the other is lost.
    pub(crate) fn lose(&mut self, from: usize, to: usize) {
        self.note(format!("lost: n{from} -> n{to}"));
        self.wire.retain(|e| e.from != from || e.to != to);
    }

    /// The disk has written all it was given, and tells.
    pub(crate) fn write(&mut self, at: usize) {
        let disk = self.disks[at].clone();
        let event = disk.write_up_to(disk.pending().last);
        self.disk_says(at, "written", event);
    }

    /// The disk has synced all it was given, and tells.
    pub(crate) fn sync(&mut self, at: usize) {
        let disk = self.disks[at].clone();
        let event = disk.sync_up_to(disk.pending().last);
        self.disk_says(at, "synced", event);
    }

    fn disk_says(&mut self, at: usize, how: &str, event: CommitEvent) {
        match event {
            CommitEvent::Progress(progress) => {
                self.note(format!("n{at}'s disk: {how}"));
                self.input(at, Input::Progress(progress));
            }
            CommitEvent::Poisoned(reason) => {
                self.note(format!("n{at}'s disk: {reason}"));
                self.failed[at] = true;
                self.input(at, Input::Poisoned(reason));
            }
        }
    }

    /// Messages arrive in the order they were sent, disks sync, until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            if !self.wire.is_empty() {
                self.deliver_nth(0);
                continue;
            }
            let behind = |i: &usize| {
                let pending = self.disks[*i].pending();
                !self.failed[*i] && pending.progress.synced < pending.last
            };
            match (0..self.nodes.len()).find(behind) {
                Some(at) => self.sync(at),
                None => return,
            }
        }
    }

    /// Time passes everywhere; whoever wanted to be woken is.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.note(format!("{} ms pass", time.as_millis()));
        self.now = self.now.after(time);
        for at in 0..self.nodes.len() {
            if self.nodes[at].wake_at().is_some_and(|t| t <= self.now) {
                self.input(at, Input::Wake);
            }
        }
    }

    /// Power is lost at one node, which starts again and knows nobody: `keep` of its unsynced commits survived.
    pub(crate) fn restart(&mut self, at: usize, keep: usize) {
        self.note(format!("n{at} loses power, and starts again"));
        self.disks[at].crash(keep);
        self.start(at);
    }

    /// The same, and it is told that it may have lost what it acknowledged last.
    pub(crate) fn restart_unclean(&mut self, at: usize) {
        self.note(format!("n{at} loses power, and starts again after a loss"));
        self.disks[at].crash(0);
        self.failed[at] = false;
        self.nodes[at] = self.open_as(at, true);
    }

    // ---- What there is ----

    /// The answer a client got, which must be the only one.
    pub(crate) fn answer_to(&self, caller: Caller) -> Option<&Answer> {
        let mut of = self.answers.iter().filter(|(_, c, _)| *c == caller);
        let first = of.next().map(|(_, _, answer)| answer);
        assert!(of.next().is_none(), "client {} got two answers", caller.0);
        first
    }

    /// The values that an answer shows.
    pub(crate) fn shown(&self, caller: Caller) -> Vec<String> {
        match self.answer_to(caller) {
            Some(Answer::Found { siblings, .. }) => siblings
                .iter()
                .map(|s| String::from_utf8_lossy(&s.value.data).into_owned())
                .collect(),
            Some(Answer::Absent) => Vec::new(),
            other => panic!("client {} was told {other:?}", caller.0),
        }
    }

    /// The dots of the values that an answer shows.
    pub(crate) fn dots(&self, caller: Caller) -> Vec<String> {
        match self.answer_to(caller) {
            Some(Answer::Found { siblings, .. }) => {
                siblings.iter().map(|s| s.dot.clone()).collect()
            }
            other => panic!("client {} was told {other:?}", caller.0),
        }
    }

    /// An answer and the account that came with it.
    pub(crate) fn explained(&self, caller: Caller) -> (Answer, Account) {
        match self.answer_to(caller) {
            Some(Answer::Explained(explained)) => {
                explained.clone().open().expect("it can be opened")
            }
            other => panic!("client {} was told {other:?}", caller.0),
        }
    }

    /// The context that came with an answer.
    pub(crate) fn context_of(&self, caller: Caller) -> Bytes {
        match self.answer_to(caller) {
            Some(Answer::Found { context, .. } | Answer::Stored { context }) => context.clone(),
            other => panic!("client {} was told {other:?}", caller.0),
        }
    }

    pub(crate) fn vnode(&self, key: &str) -> VnodeId {
        VnodeId {
            partition: self.layout.partition_of(BUCKET, key.as_bytes()),
            set: ReplicaSet::new(3, None).expect("a sound replica set").id(),
        }
    }

    /// The replicas of a key.
    pub(crate) fn replicas(&self, key: &str) -> Vec<usize> {
        let set = ReplicaSet::new(3, None).expect("a sound replica set");
        let preference = self.layout.preference(self.vnode(key).partition, &set);
        preference.primaries.iter().map(|n| n.0 as usize).collect()
    }

    /// A key of which a node is no replica.
    pub(crate) fn key_not_on(&self, node: usize) -> String {
        (0..)
            .map(|i| format!("key-{i}"))
            .find(|key| !self.replicas(key).contains(&node))
            .expect("there are more nodes than replicas")
    }

    pub(crate) fn record(&self, at: usize, key: &str) -> Record {
        record_of(&self.nodes[at], key)
    }

    /// What would be left of a key should the power go now.
    pub(crate) fn on_disk(&self, at: usize, key: &str) -> Record {
        let node = self.node_on(&self.disks[at].copy(), at, [0; 32], false);
        record_of(&node, key)
    }

    /// What a node keeps of a key for others.
    pub(crate) fn hinted(&self, at: usize, key: &str) -> Record {
        let hinted = self.nodes[at].hinted_in(BUCKET, 0, key);
        hinted.map_or_else(Record::new, |b| {
            Record::decode(&b).expect("a kept record can be read")
        })
    }

    /// How many hints a node keeps, for all others.
    pub(crate) fn hints(&self, at: usize) -> u64 {
        let pending = self.nodes[at].pending_hints();
        pending.iter().map(|hints| hints.count).sum()
    }

    pub(crate) fn opened(&self, key: &str, context: &Bytes) -> Context {
        ContextKey::new(&SECRET)
            .open(BucketId::new(BUCKET, 0).0, key.as_bytes(), context)
            .expect("a context that was given out for this key")
    }

    /// What a peer sends to have a record merged.
    pub(crate) fn merge(&self, id: u64, key: &str, record: &Record) -> Message {
        self.merge_bytes(id, key, record.encode())
    }

    pub(crate) fn merge_bytes(&self, id: u64, key: &str, record: Bytes) -> Message {
        let merge = Merge {
            vnode: self.vnode(key),
            bucket: BucketId::new(BUCKET, 0),
            key: Bytes::copy_from_slice(key.as_bytes()),
            record,
            durable: false,
            hint_for: None,
        };
        Message::Replica(RequestId(id), self.header(), ReplicaRequest::Merge(merge))
    }

    pub(crate) fn read(&self, id: u64, key: &str, digest_only: bool) -> Message {
        let read = Read {
            vnode: self.vnode(key),
            bucket: BucketId::new(BUCKET, 0),
            key: Bytes::copy_from_slice(key.as_bytes()),
            digest_only,
            strict: false,
            hinted: false,
        };
        Message::Replica(RequestId(id), self.header(), ReplicaRequest::Read(read))
    }

    /// What nodes of this layout put into their requests.
    pub(crate) fn header(&self) -> Header {
        Header {
            layout_version: self.layout.version(),
            ..Header::default()
        }
    }

    /// Makes a replica hold a record, on disk, as if it had come from elsewhere long ago.
    pub(crate) fn plant(&mut self, at: usize, key: &str, record: &Record) {
        let message = self.merge(u64::MAX, key, record);
        let from = NodeId(((at + 1) % self.nodes.len()) as u64);
        let sent = self.wire.len();
        self.quietly(|c| {
            c.input(at, Input::Message(from, message));
            c.sync(at);
        });
        self.wire.truncate(sent);
    }

    // ---- Words ----

    fn key_asked(&self, caller: Caller) -> String {
        let asked = self.asked.get(&caller).map(|(_, request)| request);
        let target = asked.and_then(|r| r.target().map(|(_, key)| key.to_owned()));
        target.unwrap_or_default()
    }

    fn request(&mut self, request: &Request) -> String {
        let with = |c: &mut Self, key: &str, context: &Option<Bytes>| match context {
            Some(sealed) => format!(" having seen {}", c.sealed(key, sealed)),
            None => String::new(),
        };
        match request {
            Request::Put(put) => {
                let seen = with(self, &put.key, &put.context);
                let value = String::from_utf8_lossy(&put.value.data).into_owned();
                let (on, options) = (condition(&put.condition), options(&put.options));
                format!("put {} = {value}{seen}{on}{options}", put.key)
            }
            Request::Get(get) => format!("get {}{}", get.key, options(&get.options)),
            Request::Delete(delete) => {
                let seen = with(self, &delete.key, &delete.context);
                let (on, options) = (condition(&delete.condition), options(&delete.options));
                format!("delete {}{seen}{on}{options}", delete.key)
            }
            Request::Describe => "describe".to_owned(),
            Request::List(list) => {
                let after = list.after.as_deref().unwrap_or("the beginning");
                format!("list {} after {after}", list.prefix)
            }
            Request::Bucket(request) => {
                format!("{:?} of bucket {}", request.action, request.bucket)
            }
            Request::Buckets => "buckets".to_owned(),
            Request::Status => "status".to_owned(),
            Request::Apply(apply) => format!("layout {}", apply.version),
            Request::Layouts => "layouts".to_owned(),
            Request::Pace(pace) => format!("pace {pace:?}"),
            Request::Repair(repair) => format!("repair partition {}", repair.partition),
        }
    }

    fn answer(&mut self, key: &str, answer: &Answer) -> String {
        match answer {
            Answer::Stored { context } => {
                format!("stored, context {}", self.sealed(key, context))
            }
            Answer::Found { siblings, context } => {
                let values: Vec<_> = siblings
                    .iter()
                    .map(|s| String::from_utf8_lossy(&s.value.data).into_owned())
                    .collect();
                let context = self.sealed(key, context);
                format!("found {}, context {context}", values.join(" and "))
            }
            Answer::Absent => "absent".to_owned(),
            Answer::Deleted => "deleted".to_owned(),
            Answer::Described(_) => "described".to_owned(),
            Answer::Listed(listing) => {
                format!("{} then {:?}", listing.keys.join(" "), listing.next)
            }
            Answer::Bucket(bucket) => format!("{bucket:?}"),
            Answer::Layouts(told) => format!("{told:?}"),
            Answer::Pace(pace) => format!("{pace:?}"),
            Answer::Buckets(buckets) => format!("{buckets:?}"),
            Answer::Status(status) => {
                let told: Vec<&str> = status.nodes.iter().map(|n| n.name.as_str()).collect();
                format!(
                    "told by {}; silent: [{}]",
                    told.join(" "),
                    status.silent.join(" ")
                )
            }
            Answer::Repaired(came_to) => format!("{came_to:?}"),
            Answer::Applied(version) => format!("layout {version} is applied"),
            Answer::Explained(explained) => match explained.clone().open() {
                Ok((answer, _)) => format!("{}, explained", self.answer(key, &answer)),
                Err(why) => why,
            },
            Answer::Refused(refusal) => format!("REFUSED: {refusal}"),
            Answer::Unmet(unmet) => format!("UNMET: {unmet}"),
        }
    }

    fn message(&mut self, from: usize, message: &Message) -> String {
        match message {
            Message::Request(id, header, request) => {
                let forwarded = if header.forwarded { "forwarded " } else { "" };
                let line = self.request(request);
                let left = header.deadline_ms;
                format!("{} {forwarded}{line} ({left} ms left)", self.id(*id))
            }
            Message::Answer(id, answer) => {
                // Whatever it was about, it was about the one key of the conversation.
                let key = self.asked.values().last().and_then(|(_, r)| r.target());
                let key = key.map(|(_, key)| key.to_owned()).unwrap_or_default();
                format!("{} {}", self.id(*id), self.answer(&key, answer))
            }
            Message::Replica(id, _, ReplicaRequest::Merge(merge)) => {
                let record = match Record::decode(&merge.record) {
                    Ok(record) => self.record_from(from, &record),
                    Err(error) => format!("bytes that are {error}"),
                };
                let durable = if merge.durable { ", and sync" } else { "" };
                match merge.hint_for {
                    None => format!("{} merge {record}{durable}", self.id(*id)),
                    Some(owner) => {
                        format!("{} keep {record} for n{}{durable}", self.id(*id), owner.0)
                    }
                }
            }
            Message::Replica(id, _, ReplicaRequest::Read(read)) => {
                let what = match (read.hinted, read.digest_only) {
                    (true, _) => "hints",
                    (false, true) => "digest",
                    (false, false) => "record",
                };
                format!("{} your {what}?", self.id(*id))
            }
            Message::Replica(id, _, ReplicaRequest::Recall(recall)) => {
                let dots = self.named_dots(from, &recall.dots);
                format!("{} did you have {dots}?", self.id(*id))
            }
            Message::Replica(id, _, ReplicaRequest::Scan(scan)) => {
                format!("{} scan up to {} keys", self.id(*id), scan.limit)
            }
            Message::Replica(id, _, ReplicaRequest::Bucket(entry)) => {
                format!("{} join {entry:?}", self.id(*id))
            }
            Message::Replica(id, _, ReplicaRequest::Buckets(_)) => {
                format!("{} your buckets?", self.id(*id))
            }
            Message::Replica(id, _, ReplicaRequest::Status) => {
                format!("{} how are you?", self.id(*id))
            }
            Message::Replica(id, _, ReplicaRequest::Upkeep(asked)) => {
                format!("{} upkeep {asked:?}", self.id(*id))
            }
            Message::Replica(id, _, ReplicaRequest::Layout(asked)) => {
                format!("{} {}", self.id(*id), asked.name())
            }
            Message::Reply(id, reply) => {
                let line = match reply {
                    ReplicaReply::Layout(_) => "about layouts".to_owned(),
                    ReplicaReply::Merged { synced: true } => "merged, synced".to_owned(),
                    ReplicaReply::Merged { synced: false } => "merged, not synced".to_owned(),
                    ReplicaReply::Record(bytes) if bytes.is_empty() => "nothing here".to_owned(),
                    ReplicaReply::Record(bytes) => match Record::decode(bytes) {
                        Ok(record) => self.record_from(from, &record),
                        Err(error) => format!("bytes that are {error}"),
                    },
                    ReplicaReply::Digest(digest) if *digest == Digest::of([].into_iter()).0 => {
                        "digest of nothing".to_owned()
                    }
                    ReplicaReply::Digest(digest) => {
                        let known = self.names.digests.len() + 1;
                        let name = self.names.digests.entry(*digest).or_insert(known);
                        format!("digest {name}")
                    }
                    ReplicaReply::Refused(refusal) => format!("REFUSED: {refusal}"),
                    ReplicaReply::Scanned(scanned) => format!("{} keys", scanned.entries.len()),
                    ReplicaReply::Bucket(entry) => format!("now {entry:?}"),
                    ReplicaReply::Buckets(None) => "the same buckets".to_owned(),
                    ReplicaReply::Buckets(Some(entries)) => format!("buckets {entries:?}"),
                    ReplicaReply::Upkeep(reply) => format!("{reply:?}"),
                    ReplicaReply::Gone(dots) if dots.is_empty() => "none of them".to_owned(),
                    ReplicaReply::Gone(dots) => {
                        format!("gone without a trace: {}", self.named_dots(from, dots))
                    }
                    ReplicaReply::Status(status) => match &status.not_ready {
                        None => format!("{} is well", status.name),
                        Some(why) => format!("{}: {why}", status.name),
                    },
                };
                format!("{} {line}", self.id(*id))
            }
        }
    }

    fn id(&mut self, id: RequestId) -> String {
        let known = self.names.requests.len() + 1;
        format!("#{}", self.names.requests.entry(id).or_insert(known))
    }

    /// A dot by the node that minted it. A node's own actor is first heard of from itself.
    fn dot(&mut self, from: Option<usize>, dot: Dot) -> String {
        let life = |from: usize| "'".repeat(usize::from(self.lives[from]) - 1);
        let name = match (self.names.actors.get(&dot.actor), from) {
            (Some(name), _) => name.clone(),
            (None, Some(from)) => {
                let name = format!("n{from}{}", life(from));
                self.names.actors.insert(dot.actor, name.clone());
                name
            }
            (None, None) => format!("{}", dot.actor),
        };
        format!("{name}:{}", dot.counter)
    }

    fn named_dots(&mut self, from: usize, dots: &[(u128, u64)]) -> String {
        let dot = |(actor, counter): &(u128, u64)| Dot {
            actor: Actor(*actor),
            counter: *counter,
        };
        let names: Vec<String> = dots
            .iter()
            .map(|told| self.dot(Some(from), dot(told)))
            .collect();
        names.join(", ")
    }

    fn record_from(&mut self, from: usize, record: &Record) -> String {
        let mut parts = Vec::new();
        for sibling in record.live() {
            let value = decode_value(&sibling.payload).map(|v| v.data);
            let value = value.map(|v| String::from_utf8_lossy(&v).into_owned());
            let dot = self.dot(Some(from), sibling.span.dot);
            parts.push(format!("{dot} = {}", value.unwrap_or_else(|why| why)));
        }
        for (actor, runs) in record.evidence().iter() {
            for (first, last) in runs.iter() {
                let dot = |counter| Dot { actor, counter };
                let mut run = self.dot(Some(from), dot(first));
                if first < last {
                    let _ = write!(run, "-{last}");
                }
                parts.push(format!("{run} removed"));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }

    fn sealed(&mut self, key: &str, sealed: &Bytes) -> String {
        let opened =
            ContextKey::new(&SECRET).open(BucketId::new(BUCKET, 0).0, key.as_bytes(), sealed);
        let Ok(context) = opened else {
            return "(unreadable)".to_owned();
        };
        let dots: Vec<String> = context
            .spans()
            .iter()
            .map(|s| self.dot(None, s.dot))
            .collect();
        format!("{{{}}}", dots.join(", "))
    }
}

/// What a node has of a key, as a replica and for others.
fn record_of(node: &Node<MemoryStorage>, key: &str) -> Record {
    let decode = |b: Bytes| Record::decode(&b).expect("a stored record can be read");
    let stored = node.stored(BUCKET, key).map(decode);
    let mut all = stored.unwrap_or_default();
    if let Some(hinted) = node.hinted_in(BUCKET, 0, key).map(decode) {
        all.merge(&hinted);
    }
    all
}

fn condition(condition: &Option<Condition>) -> String {
    match condition {
        None => String::new(),
        Some(Condition::Absent) => " if absent".to_owned(),
        Some(Condition::Present) => " if present".to_owned(),
        Some(Condition::Dots(dots)) => format!(" if it is {}", dots.join(" or ")),
    }
}

fn options(options: &Options) -> String {
    let mut text = String::new();
    let all = [
        ("r", options.r),
        ("w", options.w),
        ("pr", options.pr),
        ("pw", options.pw),
        ("dw", options.dw),
    ];
    for (name, quorum) in all {
        if let Some(quorum) = quorum {
            let _ = write!(text, " {name}={quorum}");
        }
    }
    if let Some(sloppy) = options.sloppy {
        let _ = write!(text, " sloppy={sloppy}");
    }
    if options.return_body {
        text.push_str(" return_body");
    }
    if options.explain {
        text.push_str(" explain");
    }
    text
}

/// A value as it stands in a record.
pub(crate) fn payload(value: &str) -> Bytes {
    quorate_protocol::encode_value(&Value::new(value.to_owned()))
}

pub(crate) fn put(key: &str, value: &str) -> Request {
    Request::Put(Put {
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        value: Value::new(value.to_owned()),
        context: None,
        condition: None,
        options: Options::default(),
        lifetime: None,
    })
}

pub(crate) fn get(key: &str) -> Request {
    Request::Get(Get {
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        options: Options::default(),
    })
}

pub(crate) fn delete(key: &str) -> Request {
    Request::Delete(Delete {
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        context: None,
        condition: None,
        options: Options::default(),
    })
}

/// A request with more to it.
pub(crate) trait With {
    fn with(self, options: Options) -> Self;
    fn having_seen(self, context: &Bytes) -> Self;
    fn on_condition(self, condition: Condition) -> Self;
    fn explained(self) -> Self;
}

impl With for Request {
    fn with(mut self, with: Options) -> Self {
        match &mut self {
            Request::Put(Put { options, .. })
            | Request::Get(Get { options, .. })
            | Request::Delete(Delete { options, .. })
            | Request::List(List { options, .. }) => *options = with,
            Request::Describe
            | Request::Bucket(_)
            | Request::Buckets
            | Request::Status
            | Request::Repair(_)
            | Request::Layouts
            | Request::Pace(_)
            | Request::Apply(_) => {}
        }
        self
    }

    fn having_seen(mut self, seen: &Bytes) -> Self {
        match &mut self {
            Request::Put(Put { context, .. }) | Request::Delete(Delete { context, .. }) => {
                *context = Some(seen.clone());
            }
            _ => {}
        }
        self
    }

    fn on_condition(mut self, on: Condition) -> Self {
        match &mut self {
            Request::Put(Put { condition, .. }) | Request::Delete(Delete { condition, .. }) => {
                *condition = Some(on);
            }
            other => panic!("{other:?} takes no condition"),
        }
        self
    }

    fn explained(mut self) -> Self {
        match &mut self {
            Request::Put(Put { options, .. })
            | Request::Get(Get { options, .. })
            | Request::Delete(Delete { options, .. }) => options.explain = true,
            other => panic!("{other:?} is not explained"),
        }
        self
    }
}

pub(crate) fn r(count: u8) -> Options {
    Options {
        r: Some(Quorum::Count(count)),
        ..Options::default()
    }
}

pub(crate) fn w(count: u8) -> Options {
    Options {
        w: Some(Quorum::Count(count)),
        ..Options::default()
    }
}

/// A dot of an actor that no node has.
pub(crate) fn foreign(counter: u64) -> Dot {
    Dot {
        actor: Actor(99),
        counter,
    }
}

/// A record with these live values and these dots removed.
pub(crate) fn holding(live: &[(Dot, &str)], removed: &[Dot]) -> Record {
    let live = live.iter().map(|(dot, value)| quorate_causal::Sibling {
        span: quorate_causal::Span::lone(*dot),
        payload: payload(value),
        expires: None,
    });
    let removed: DotSet = removed.iter().copied().collect();
    Record::from_parts(live.collect(), removed)
}

/// Whether this says that nothing happened and nothing will.
pub(crate) fn nothing_happened(answer: &Answer) -> bool {
    match answer {
        Answer::Refused(_) => true,
        Answer::Unmet(unmet) => !unmet.may_have_written,
        _ => false,
    }
}

pub(crate) fn refusal(answer: Option<&Answer>) -> &Refusal {
    match answer {
        Some(Answer::Refused(refusal)) => refusal,
        other => panic!("not refused, but {other:?}"),
    }
}
