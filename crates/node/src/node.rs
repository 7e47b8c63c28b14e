//! The state machine of one node: takes inputs, decides, gives outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{Context, Digest, DotSet, Record};
use quorate_protocol::{
    Answer, BucketId, Delete, Description, Get, Header, Merge, Message, Put, Read, Refusal,
    ReplicaReply, ReplicaRequest, Request, RequestId, Shown, Unmet, decode_value, encode_value,
};
use quorate_ring::{Layout, NodeId, ReplicaSet};
use quorate_storage::{Progress, Storage, StorageError};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::accept::{self, Terms};
use crate::config::Config;
use crate::forward::{ForwardConversation, Step};
use crate::placement::Placement;
use crate::read::{Ask, Purpose, ReadConversation};
use crate::replica::{Replica, Write, Written};
use crate::tally::{Requirement, Seat, Verdict};
use crate::target::Target;
use crate::time::Time;
use crate::write::{WriteConversation, WriteTerms};

/// Names a request that came from a client of this node; the driver chooses it and gets it back with the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Caller(pub u64);

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request(Caller, Header, Request),
    /// Another node says something. The transport has verified who it is.
    Message(NodeId, Message),
    /// The disk has come this far.
    Progress(Progress),
    /// A write or sync failed: nothing after it may be acknowledged.
    Poisoned(String),
    /// A node can be reached.
    Up(NodeId),
    /// A node cannot be reached any more; what was sent to it and not answered is lost.
    Down(NodeId),
    /// The time named by [`Node::wake_at`] has come.
    Wake,
    /// Take no more requests from clients; those accepted are finished, and replicas are served.
    Drain,
}

/// What a node wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this to that node, if it is in reach.
    Send(NodeId, Message),
    /// Answer a client of this node.
    Answer(Caller, Answer),
    /// Something worth counting.
    Event(Event),
}

/// Things that happened, for metrics, and for the simulator to see that its rare paths ran.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// A request was passed on to a replica of its key.
    Forwarded,
    /// A passed-on request was tried at another node.
    ForwardedAgain,
    /// Replicas of a key showed different values to one read.
    Disagreement,
    /// A stale replica was sent what it lacked.
    ReadRepair,
    /// A read asked all replicas because those asked first were slow.
    ReadWidened,
    /// A put left more than one value.
    Siblings,
    /// A request came to an end without enough replicas, after something was sent.
    Unmet,
    /// A request was refused because too few replicas were in reach.
    Unavailable,
}

/// Who gets the answer of a conversation.
#[derive(Clone, Copy, Debug)]
enum ReplyTo {
    Client(Caller),
    /// A node that passed its client's request on.
    Node(NodeId, RequestId),
}

/// A request under way.
struct Conversation {
    reply_to: ReplyTo,
    began: Time,
    deadline: Time,
    kind: Kind,
}

enum Kind {
    Write(WriteConversation),
    Read(ReadConversation),
    Forward(ForwardConversation),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// The request's time is up.
    Deadline,
    /// The replicas that were asked first have had their time.
    Patience,
}

/// Whom the replica tells once something is durable.
#[derive(Debug)]
enum Waiter {
    /// A conversation of this node.
    Own(RequestId),
    /// A coordinator elsewhere.
    Peer(NodeId, RequestId),
}

/// Coordinator and replica talk by messages also where both are this node, so that partitions can later be dealt out to
/// threads.
enum Local {
    Ask(RequestId, ReplicaRequest),
    Write(RequestId, Write),
    Reply(RequestId, ReplicaReply),
    Written(RequestId, Box<Written>),
    WriteRefused(RequestId, Refusal),
}

/// One node: a replica for its seats, and a coordinator for whatever requests reach it. No I/O, no clock, no thread, no
/// randomness but the seed: everything comes in through [`Node::handle`], and all that is to be done comes out.
pub struct Node<S> {
    config: Config,
    layout_version: u64,
    layout: Layout,
    placement: Placement,
    replica: Replica<S, Waiter>,
    peers: BTreeMap<NodeId, Peer>,
    conversations: BTreeMap<RequestId, Conversation>,
    /// One table for all timers.
    timers: BTreeSet<(Time, RequestId, Timer)>,
    local: VecDeque<Local>,
    next_id: u64,
    draining: bool,
}

/// What is known of another node.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    /// A moving average of the time it takes to answer, in microseconds. Weighs the newest answer with an eighth.
    latency_us: u64,
}

impl<S: Storage> Node<S> {
    /// A node over this storage. All nodes but itself are down until the driver says otherwise. `seed` must
    /// be a fresh random number at every start: incarnations come from it (rule R1).
    ///
    /// # Errors
    /// A sentence, if `config.me` has no seat in the layout or the bucket defaults make no replica set.
    pub fn new(config: Config, layout: Layout, storage: S, seed: [u8; 32]) -> Result<Self, String> {
        if layout.node(config.me).is_none() {
            return Err(format!(
                "node {} is not in layout version {}",
                config.me,
                layout.version()
            ));
        }
        let set = ReplicaSet::new(config.defaults.n, None).map_err(|e| e.to_string())?;
        let mut rng = ChaCha12Rng::from_seed(seed);
        // Answers to an earlier life of this node must find no conversation of this one.
        let next_id = rng.next_u64() >> 1;
        let mut replica_seed = [0; 32];
        rng.fill_bytes(&mut replica_seed);
        Ok(Node {
            layout_version: layout.version(),
            placement: Placement::new(&layout, &set, config.me),
            peers: layout
                .nodes()
                .iter()
                .filter(|n| n.id != config.me)
                .map(|n| (n.id, Peer::default()))
                .collect(),
            replica: Replica::new(storage, ChaCha12Rng::from_seed(replica_seed)),
            conversations: BTreeMap::new(),
            timers: BTreeSet::new(),
            local: VecDeque::new(),
            next_id,
            draining: false,
            layout,
            config,
        })
    }

    /// Takes one input and appends what follows from it. `now` must not run backwards.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Request(caller, header, request) => {
                self.begin(now, ReplyTo::Client(caller), header, request, out);
            }
            Input::Message(from, message) => self.on_message(now, from, message, out),
            Input::Progress(progress) => {
                let local = &mut self.local;
                self.replica.advance(progress, |waiter, synced| {
                    tell(waiter, ReplicaReply::Merged { synced }, local, out);
                });
            }
            Input::Poisoned(reason) => {
                for waiter in self.replica.poison(reason.clone()) {
                    let refused = ReplicaReply::Refused(Refusal::Poisoned(reason.clone()));
                    tell(waiter, refused, &mut self.local, out);
                }
            }
            Input::Up(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.up = true;
                }
            }
            Input::Down(node) => self.on_down(now, node, out),
            Input::Wake => {}
            Input::Drain => self.draining = true,
        }
        self.on_local(now, out);
        self.on_timers(now, out);
    }

    /// When to call [`Node::handle`] with [`Input::Wake`] if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// How many requests this node coordinates or forwards right now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.conversations.len()
    }

    /// Whether this node can take a request that needs a majority of its cluster; the reason if not.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(reason) = self.replica.poisoned() {
            return Err(format!("the disk failed: {reason}"));
        }
        if self.draining {
            return Err("closing".to_owned());
        }
        let nodes = self.peers.len() + 1;
        let up = self.peers.values().filter(|p| p.up).count() + 1;
        if up < nodes / 2 + 1 {
            return Err(format!(
                "in reach of {up} of {nodes} nodes, itself included"
            ));
        }
        Ok(())
    }

    /// The storage below, for the driver's statistics and for tests.
    #[must_use]
    pub fn storage(&self) -> &S {
        self.replica.storage()
    }

    /// What the vnode of a key has seen. For tests and for the simulator's checks.
    ///
    /// # Errors
    /// If its clock cannot be read.
    pub fn clock_of(&self, bucket: &str, key: &str) -> Result<DotSet, StorageError> {
        self.replica.clock(self.target(bucket, key).vnode)
    }

    /// The record of a key on this replica, encoded, if it has one. For tests and for the simulator's checks.
    #[must_use]
    pub fn stored(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let target = self.target(bucket, key);
        let read = Read {
            key: target.key_bytes(),
            vnode: target.vnode,
            bucket: target.id,
            digest_only: false,
        };
        match self.replica.read(&read) {
            ReplicaReply::Record(record) if !record.is_empty() => Some(record),
            _ => None,
        }
    }

    fn target(&self, bucket: &str, key: &str) -> Target {
        let partition = self.layout.partition_of(bucket, key.as_bytes());
        Target {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            id: BucketId::new(bucket, 0),
            vnode: self.placement.vnode(partition),
        }
    }

    fn fresh_id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    fn is_up(&self, node: NodeId) -> bool {
        if node == self.config.me {
            return self.replica.poisoned().is_none();
        }
        self.peers.get(&node).is_some_and(|p| p.up)
    }

    // ---- Requests of clients ----

    fn begin(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        header: Header,
        request: Request,
        out: &mut Vec<Output>,
    ) {
        if let Err(refusal) = self.accept(now, reply_to, header, request, out) {
            if matches!(refusal, Refusal::Unavailable { .. }) {
                out.push(Output::Event(Event::Unavailable));
            }
            answer(reply_to, Answer::Refused(refusal), out);
        }
    }

    fn accept(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        header: Header,
        request: Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let Some((bucket, key)) = request.target() else {
            let node = self.layout.node(self.config.me).map(|n| n.name.clone());
            let description = Description {
                node: node.unwrap_or_default(),
                layout: self.config.layout_json.clone(),
            };
            answer(reply_to, Answer::Described(description), out);
            return Ok(());
        };
        if self.draining {
            return Err(Refusal::Draining);
        }
        // A client that knows no layout says 0 and is served; a node always knows the one it chose us by.
        if header.layout_version != 0 && header.layout_version != self.layout_version {
            return Err(Refusal::WrongLayout {
                version: self.layout_version,
            });
        }
        accept::names(bucket, key)?;
        if let Request::Put(put) = &request {
            accept::value(&put.value, &self.config.limits)?;
        }
        let deadline = now.after(accept::timeout(&header, &self.config.limits)?);
        if self.conversations.len() >= self.config.limits.requests_max {
            return Err(Refusal::Overloaded);
        }
        let target = self.target(bucket, key);
        let seats = self.placement.primaries(target.vnode.partition).to_vec();
        if seats.iter().any(|s| s.node == self.config.me) {
            self.coordinate(now, reply_to, deadline, target, &seats, request, out)
        } else if header.forwarded {
            // Whoever sent it took us for a replica: it has another layout. Passing it on could go round for ever.
            Err(Refusal::WrongLayout {
                version: self.layout_version,
            })
        } else {
            self.forward(now, reply_to, deadline, header, request, &seats, out)
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        deadline: Time,
        header: Header,
        request: Request,
        seats: &[Seat],
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let candidates = self.by_latency(seats);
        if candidates.is_empty() {
            return Err(Refusal::Unavailable {
                needed: 1,
                answered: 0,
            });
        }
        out.push(Output::Event(Event::Forwarded));
        let header = Header {
            layout_version: self.layout_version,
            forwarded: true,
            ..header
        };
        let conversation = ForwardConversation::new(header, request, candidates);
        let id = self.converse(now, reply_to, deadline, Kind::Forward(conversation));
        self.pass_on(now, id, out);
        Ok(())
    }

    /// Sends a forwarded request to its next candidate.
    fn pass_on(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Kind::Forward(forward) = &mut conversation.kind else {
            return;
        };
        while let Some(node) = forward.next() {
            if self.peers.get(&node).is_some_and(|p| p.up) {
                let header = Header {
                    deadline_ms: remaining_ms(now, conversation.deadline),
                    ..forward.header.clone()
                };
                let message = Message::Request(id, header, forward.request.clone());
                out.push(Output::Send(node, message));
                return;
            }
        }
        let refused = Answer::Refused(Refusal::Unavailable {
            needed: 1,
            answered: 0,
        });
        self.finish(id, refused, out);
    }

    /// Runs a request as one of the replicas of its key.
    #[allow(clippy::too_many_arguments)]
    fn coordinate(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        deadline: Time,
        target: Target,
        seats: &[Seat],
        request: Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let terms = |options| Terms {
            seats,
            placement: &self.placement,
            defaults: &self.config.defaults,
            options,
        };
        match request {
            Request::Get(Get { options, .. }) => {
                let needed = terms(&options).read()?;
                self.read(
                    now,
                    reply_to,
                    deadline,
                    target,
                    seats,
                    needed,
                    Purpose::Answer,
                    out,
                )
            }
            Request::Put(Put {
                value,
                context,
                options,
                ..
            }) => {
                let terms = terms(&options).write()?;
                let context = accept::context(
                    &self.config,
                    &target.bucket,
                    &target.key,
                    context.as_deref(),
                )?;
                let payload = Some(encode_value(&value));
                self.write(
                    now, reply_to, deadline, target, seats, terms, context, payload,
                )
            }
            Request::Delete(Delete {
                context, options, ..
            }) => {
                let write = terms(&options).write()?;
                if context.is_some() {
                    let context = accept::context(
                        &self.config,
                        &target.bucket,
                        &target.key,
                        context.as_deref(),
                    )?;
                    return self
                        .write(now, reply_to, deadline, target, seats, write, context, None);
                }
                let needed = terms(&options).read()?;
                // What could not be removed need not be read.
                self.in_reach(&write.taken, seats)?;
                let purpose = Purpose::Delete(write);
                self.read(now, reply_to, deadline, target, seats, needed, purpose, out)
            }
            Request::Describe => unreachable!("it has no target, so it was answered before"),
        }
    }

    /// Refuses what cannot be met by the nodes in reach, before anything is sent.
    fn in_reach(&self, needed: &Requirement, seats: &[Seat]) -> Result<(), Refusal> {
        if let Some(reason) = self.replica.poisoned() {
            return Err(Refusal::Poisoned(reason.to_owned()));
        }
        if needed.verdict(|n| self.is_up(n), |_| false) == Verdict::Met {
            return Ok(());
        }
        Err(Refusal::Unavailable {
            needed: needed.needed(),
            answered: seats.iter().filter(|s| self.is_up(s.node)).count() as u32,
        })
    }

    fn converse(&mut self, now: Time, reply_to: ReplyTo, deadline: Time, kind: Kind) -> RequestId {
        let id = self.fresh_id();
        self.timers.insert((deadline, id, Timer::Deadline));
        let conversation = Conversation {
            reply_to,
            began: now,
            deadline,
            kind,
        };
        self.conversations.insert(id, conversation);
        id
    }

    #[allow(clippy::too_many_arguments)]
    fn write(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        deadline: Time,
        target: Target,
        seats: &[Seat],
        terms: WriteTerms,
        context: Context,
        payload: Option<Bytes>,
    ) -> Result<(), Refusal> {
        self.in_reach(&terms.taken, seats)?;
        self.in_reach(&terms.synced, seats)?;
        let write = Write {
            vnode: target.vnode,
            bucket: target.id,
            key: target.key_bytes(),
            context,
            durable: terms.durable,
            siblings_max: self.config.limits.siblings_max,
            payload,
        };
        let conversation = WriteConversation::new(target, terms, write.payload.is_some());
        let id = self.converse(now, reply_to, deadline, Kind::Write(conversation));
        self.local.push_back(Local::Write(id, write));
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn read(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        deadline: Time,
        target: Target,
        seats: &[Seat],
        needed: Requirement,
        purpose: Purpose,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if needed.verdict(|n| self.is_up(n) || n == self.config.me, |_| false) != Verdict::Met {
            self.in_reach(&needed, seats)?;
        }
        // This node's own record costs no message.
        let mut candidates = vec![self.config.me];
        candidates.extend(self.by_latency(seats));
        let conversation = ReadConversation::new(target, needed, candidates, purpose);
        let id = self.converse(now, reply_to, deadline, Kind::Read(conversation));
        let patience = now.after(self.config.limits.read_patience);
        if patience < deadline {
            self.timers.insert((patience, id, Timer::Patience));
        }
        self.step_read(now, id, out);
        Ok(())
    }

    /// The nodes of these seats that are up, this one apart, the quickest first.
    fn by_latency(&self, seats: &[Seat]) -> Vec<NodeId> {
        let mut nodes: Vec<(u64, NodeId)> = seats
            .iter()
            .filter_map(|s| self.peers.get(&s.node).map(|p| (s.node, p)))
            .filter(|(_, peer)| peer.up)
            .map(|(node, peer)| (peer.latency_us, node))
            .collect();
        nodes.sort();
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    // ---- Conversations going on ----

    /// Sends what a read wants to ask now, and ends it if it is done.
    fn step_read(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        loop {
            let Some((deadline, read)) = self.reading(id) else {
                return;
            };
            let asks = read.next();
            if asks.is_empty() {
                break;
            }
            let target = read.target.clone();
            self.ask(now, id, deadline, &target, asks, out);
        }
        let Some((_, read)) = self.reading(id) else {
            return;
        };
        match read.verdict() {
            Verdict::Pending => {}
            Verdict::Impossible => {
                let unmet = read.unmet(false);
                self.finish(id, unmet, out);
            }
            Verdict::Met => self.conclude_read(now, id, out),
        }
    }

    fn reading(&mut self, id: RequestId) -> Option<(Time, &mut ReadConversation)> {
        let conversation = self.conversations.get_mut(&id)?;
        match &mut conversation.kind {
            Kind::Read(read) => Some((conversation.deadline, read)),
            _ => None,
        }
    }

    fn ask(
        &mut self,
        now: Time,
        id: RequestId,
        deadline: Time,
        target: &Target,
        asks: Vec<Ask>,
        out: &mut Vec<Output>,
    ) {
        for ask in asks {
            let read = Read {
                vnode: target.vnode,
                bucket: target.id,
                key: target.key_bytes(),
                digest_only: ask.digest_only,
            };
            let request = ReplicaRequest::Read(read);
            if ask.node == self.config.me {
                self.local.push_back(Local::Ask(id, request));
            } else if self.is_up(ask.node) {
                let header = self.header(now, deadline);
                out.push(Output::Send(
                    ask.node,
                    Message::Replica(id, header, request),
                ));
            } else if let Some((_, read)) = self.reading(id) {
                read.lost(ask.node);
            }
        }
    }

    fn header(&self, now: Time, deadline: Time) -> Header {
        Header {
            layout_version: self.layout_version,
            deadline_ms: remaining_ms(now, deadline),
            ..Header::default()
        }
    }

    fn conclude_read(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(conversation) = self.end(id) else {
            return;
        };
        let Kind::Read(read) = conversation.kind else {
            return;
        };
        let outcome = read.outcome();
        if !outcome.repairs.is_empty() {
            out.push(Output::Event(Event::Disagreement));
        }
        for (node, missing) in outcome.repairs {
            self.repair(node, &read.target, &missing, out);
        }
        match read.purpose {
            Purpose::Answer => {
                let shown = self.show(&read.target, &outcome.record);
                answer(conversation.reply_to, shown, out);
            }
            Purpose::Delete(_) if outcome.record.live().is_empty() => {
                answer(conversation.reply_to, Answer::Deleted, out);
            }
            Purpose::Delete(terms) => {
                let seats = self
                    .placement
                    .primaries(read.target.vnode.partition)
                    .to_vec();
                let context = outcome.record.context();
                let (reply_to, deadline) = (conversation.reply_to, conversation.deadline);
                let begun = self.write(
                    now,
                    reply_to,
                    deadline,
                    read.target,
                    &seats,
                    terms,
                    context,
                    None,
                );
                if let Err(refusal) = begun {
                    answer(reply_to, Answer::Refused(refusal), out);
                }
            }
        }
    }

    /// Sends a stale replica what it lacks. Nobody waits for its answer, and none is lost if it is not sent: the
    /// next read finds the same.
    fn repair(&mut self, node: NodeId, target: &Target, missing: &Record, out: &mut Vec<Output>) {
        let id = self.fresh_id();
        let merge = ReplicaRequest::Merge(Merge {
            vnode: target.vnode,
            bucket: target.id,
            key: target.key_bytes(),
            record: missing.encode(),
            durable: false,
        });
        if node == self.config.me {
            self.local.push_back(Local::Ask(id, merge));
        } else if self.is_up(node) {
            let header = Header {
                layout_version: self.layout_version,
                ..Header::default()
            };
            out.push(Output::Send(node, Message::Replica(id, header, merge)));
        } else {
            return;
        }
        out.push(Output::Event(Event::ReadRepair));
    }

    /// A record as an answer: all live values, and the context that names exactly these (rule R8).
    fn show(&self, target: &Target, record: &Record) -> Answer {
        if record.live().is_empty() {
            return Answer::Absent;
        }
        let mut siblings = Vec::with_capacity(record.live().len());
        for sibling in record.live() {
            match decode_value(&sibling.payload) {
                Ok(value) => siblings.push(Shown {
                    dot: sibling.span.dot.to_string(),
                    value,
                }),
                Err(why) => return Answer::Refused(Refusal::Corrupt(why)),
            }
        }
        Answer::Found {
            siblings,
            context: self.seal(target, &record.context()),
        }
    }

    fn seal(&self, target: &Target, context: &Context) -> Bytes {
        self.config
            .secret
            .seal(&target.bucket, target.key.as_bytes(), context)
    }

    /// Looks whether a write has enough acknowledgements, or never will.
    fn step_write(&mut self, id: RequestId, out: &mut Vec<Output>) {
        let Some(Conversation {
            kind: Kind::Write(write),
            ..
        }) = self.conversations.get(&id)
        else {
            return;
        };
        let done = match (write.verdict(), &write.written) {
            (Verdict::Impossible, _) => write.unmet(false),
            (Verdict::Met, Some((own, record))) => {
                if write.terms.return_body {
                    self.show(&write.target, record)
                } else if write.is_put {
                    Answer::Stored {
                        context: self.seal(&write.target, own),
                    }
                } else {
                    Answer::Deleted
                }
            }
            _ => return,
        };
        self.finish(id, done, out);
    }

    /// Takes a conversation off the table.
    fn end(&mut self, id: RequestId) -> Option<Conversation> {
        let conversation = self.conversations.remove(&id)?;
        self.timers
            .remove(&(conversation.deadline, id, Timer::Deadline));
        Some(conversation)
    }

    fn finish(&mut self, id: RequestId, with: Answer, out: &mut Vec<Output>) {
        if let Some(conversation) = self.end(id) {
            if matches!(with, Answer::Unmet(Unmet { .. })) {
                out.push(Output::Event(Event::Unmet));
            }
            answer(conversation.reply_to, with, out);
        }
    }

    // ---- What others say ----

    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Request(id, header, request) => {
                self.begin(now, ReplyTo::Node(from, id), header, request, out);
            }
            Message::Answer(id, answer) => self.on_answer(now, from, id, answer, out),
            Message::Replica(id, header, request) => {
                if header.layout_version != self.layout_version {
                    let refused = ReplicaReply::Refused(Refusal::WrongLayout {
                        version: self.layout_version,
                    });
                    out.push(Output::Send(from, Message::Reply(id, refused)));
                    return;
                }
                self.on_replica_request(Waiter::Peer(from, id), request, out);
            }
            Message::Reply(id, reply) => self.on_reply(now, from, id, reply, out),
        }
    }

    /// This node as a replica.
    fn on_replica_request(
        &mut self,
        waiter: Waiter,
        request: ReplicaRequest,
        out: &mut Vec<Output>,
    ) {
        match request {
            ReplicaRequest::Read(read) => {
                let reply = self.replica.read(&read);
                tell(waiter, reply, &mut self.local, out);
            }
            ReplicaRequest::Merge(merge) => match self.replica.merge(&merge) {
                Ok(due) => {
                    if let Some((waiter, synced)) = self.replica.due(due, waiter) {
                        let merged = ReplicaReply::Merged { synced };
                        tell(waiter, merged, &mut self.local, out);
                    }
                }
                Err(refusal) => {
                    tell(waiter, ReplicaReply::Refused(refusal), &mut self.local, out);
                }
            },
        }
    }

    fn on_local(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(local) = self.local.pop_front() {
            match local {
                Local::Ask(id, request) => {
                    self.on_replica_request(Waiter::Own(id), request, out);
                }
                Local::Write(id, write) => match self.replica.write(write) {
                    Ok((due, written)) => {
                        self.local.push_back(Local::Written(id, Box::new(written)));
                        if let Some((waiter, synced)) = self.replica.due(due, Waiter::Own(id)) {
                            let merged = ReplicaReply::Merged { synced };
                            tell(waiter, merged, &mut self.local, out);
                        }
                    }
                    Err(refusal) => self.local.push_back(Local::WriteRefused(id, refusal)),
                },
                Local::Reply(id, reply) => self.on_reply(now, self.config.me, id, reply, out),
                Local::Written(id, written) => self.on_written(now, id, *written, out),
                // Nothing was sent yet, so nothing happened anywhere.
                Local::WriteRefused(id, refusal) => self.finish(id, Answer::Refused(refusal), out),
            }
        }
    }

    /// This node's own vnode has the write: now the others get it.
    fn on_written(&mut self, now: Time, id: RequestId, written: Written, out: &mut Vec<Output>) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let deadline = conversation.deadline;
        let Kind::Write(write) = &mut conversation.kind else {
            return;
        };
        if write.is_put && written.record.live().len() > 1 {
            out.push(Output::Event(Event::Siblings));
        }
        write.written = Some((written.own, written.record));
        let merge = Merge {
            vnode: write.target.vnode,
            bucket: write.target.id,
            key: write.target.key_bytes(),
            record: written.delta,
            durable: write.terms.durable,
        };
        let seats = self.placement.primaries(merge.vnode.partition);
        for seat in seats.iter().filter(|s| s.node != self.config.me) {
            if self.peers.get(&seat.node).is_some_and(|p| p.up) {
                let header = Header {
                    layout_version: self.layout_version,
                    deadline_ms: remaining_ms(now, deadline),
                    ..Header::default()
                };
                let request = ReplicaRequest::Merge(merge.clone());
                out.push(Output::Send(
                    seat.node,
                    Message::Replica(id, header, request),
                ));
            } else {
                write.lost(seat.node);
            }
        }
        self.step_write(id, out);
    }

    fn on_reply(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        reply: ReplicaReply,
        out: &mut Vec<Output>,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return; // Answered already, or nobody waits for it: a repair.
        };
        if let Some(peer) = self.peers.get_mut(&from) {
            // Of a record asked for after its digest this is the time of both; that errs on the side of whoever agrees.
            let took = now.since(conversation.began).as_micros() as u64;
            peer.latency_us = peer.latency_us - peer.latency_us / 8 + took / 8;
        }
        match &mut conversation.kind {
            Kind::Write(write) => {
                match reply {
                    ReplicaReply::Merged { synced } => write.taken(from, synced),
                    _ => write.lost(from),
                }
                self.step_write(id, out);
            }
            Kind::Read(read) => {
                match reply {
                    ReplicaReply::Digest(digest) => read.digest(from, Digest(digest)),
                    ReplicaReply::Record(bytes) if bytes.is_empty() => {
                        read.record(from, Record::new());
                    }
                    ReplicaReply::Record(bytes) => match Record::decode(&bytes) {
                        Ok(record) => read.record(from, record),
                        Err(_) => read.lost(from),
                    },
                    _ => read.lost(from),
                }
                self.step_read(now, id, out);
            }
            Kind::Forward(_) => {}
        }
    }

    /// The coordinator of a forwarded request has answered.
    fn on_answer(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        given: Answer,
        out: &mut Vec<Output>,
    ) {
        let Some(Conversation {
            kind: Kind::Forward(forward),
            ..
        }) = self.conversations.get_mut(&id)
        else {
            return;
        };
        if forward.at() == Some(from) {
            let step = forward.answered(given);
            self.step_forward(now, id, step, out);
        }
    }

    fn step_forward(&mut self, now: Time, id: RequestId, step: Step, out: &mut Vec<Output>) {
        match step {
            Step::Answer(answer) => self.finish(id, answer, out),
            Step::Again => {
                out.push(Output::Event(Event::ForwardedAgain));
                self.pass_on(now, id, out);
            }
        }
    }

    /// A node is out of reach: nobody waits for it any longer.
    fn on_down(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        match self.peers.get_mut(&node) {
            Some(peer) if peer.up => peer.up = false,
            _ => return,
        }
        let ids: Vec<RequestId> = self.conversations.keys().copied().collect();
        for id in ids {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            match &mut conversation.kind {
                Kind::Write(write) => {
                    write.lost(node);
                    self.step_write(id, out);
                }
                Kind::Read(read) => {
                    if read.awaits(node) {
                        read.lost(node);
                        self.step_read(now, id, out);
                    }
                }
                Kind::Forward(forward) => {
                    if forward.at() == Some(node) {
                        let step = forward.lost();
                        self.step_forward(now, id, step, out);
                    }
                }
            }
        }
    }

    fn on_timers(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(&(at, id, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            match (timer, &mut conversation.kind) {
                (Timer::Deadline, Kind::Write(write)) => {
                    let unmet = write.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Read(read)) => {
                    let unmet = read.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Forward(forward)) => {
                    let unmet = forward.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Patience, Kind::Read(read)) => {
                    let asks = read.widen();
                    if !asks.is_empty() {
                        out.push(Output::Event(Event::ReadWidened));
                    }
                    let (deadline, target) = (conversation.deadline, read.target.clone());
                    self.ask(now, id, deadline, &target, asks, out);
                    self.step_read(now, id, out);
                }
                (Timer::Patience, _) => {}
            }
            self.on_local(now, out);
        }
    }
}

fn remaining_ms(now: Time, deadline: Time) -> u32 {
    // Rounded up, as 0 would stand for the default.
    let left: Duration = deadline.since(now);
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn answer(reply_to: ReplyTo, answer: Answer, out: &mut Vec<Output>) {
    out.push(match reply_to {
        ReplyTo::Client(caller) => Output::Answer(caller, answer),
        ReplyTo::Node(node, id) => Output::Send(node, Message::Answer(id, answer)),
    });
}

/// Gives a replica's answer to whoever asked, here or elsewhere.
fn tell(waiter: Waiter, reply: ReplicaReply, local: &mut VecDeque<Local>, out: &mut Vec<Output>) {
    match waiter {
        Waiter::Own(id) => local.push_back(Local::Reply(id, reply)),
        Waiter::Peer(node, id) => out.push(Output::Send(node, Message::Reply(id, reply))),
    }
}
