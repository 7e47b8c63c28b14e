//! Takes what happened, hands it to the core, and does what the core says. One loop on one thread.
//!
//! *Invariant:* everything that waits is handled before anything is sent, so that frames of many requests leave in one
//! write, and no task is made for a request.
//!
//! *Invariant:* the core hears of a lost connection after everything that came on it, and before anything that comes on
//! the next one to the same node.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_node::{Caller, Input, Node, Output, Slow, Telling, Time, Vitals};
use quorate_protocol::{
    Answer, Header, LayoutReply, LayoutRequest, LiveLayouts, Message, Refusal, ReplicaReply,
    ReplicaRequest, Request, RequestId, Unmet,
};
use quorate_ring::{NodeId, NodeSpec};
use quorate_storage::rocks::Stats;
use quorate_storage::{CommitEvent, Storage};
use quorate_transport::{CloseReason, Identity, SendError, Sender};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tokio::time::{Sleep, sleep_until};

use crate::backend::Readiness;
use crate::event::{ConnectionId, End, Event, HttpRequest};
use crate::metrics::{Found, Metrics, Operation};
use crate::opened::Opened;
use crate::pulse::Pulse;
use crate::slow::{self, Throttle};
use crate::steps::Steps;

/// Events taken before anything is sent. Enough for a burst of every client at once; bounded, so that the first of them
/// does not wait for the last of an endless stream.
const TAKEN_AT_ONCE: usize = 1024;

/// How long requests under way may take once the node is to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A peer that misbehaves is mentioned once in this time.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// In place of an answer that is too large for whoever asked for a write: "refused" would say that nothing happened.
const DONE_OR_NOT: Unmet = Unmet {
    needed: 1,
    answered: 0,
    timed_out: false,
    may_have_written: true,
};

/// A client's request that has waited so long for its turn is refused: this node is so far behind that it would do better with less, and
/// another may do it at once. Much shorter, and one stalled sync or a burst would refuse what could be done in time; much longer, and those who
/// wait are no longer there when they are answered.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// While so many events wait that the batch is full, what a node does for its own upkeep is put off, but not for longer than this: hints and
/// evidence that nobody takes away would grow without end.
const YIELD_MAX: Duration = Duration::from_millis(50);

/// How long connections to nodes are kept that have left the layout: what they were passed on before they finish, and answer. And to nodes that
/// may be about to join.
const FAREWELL: Duration = Duration::from_secs(30);

/// How long news of a layout waits until the nodes that it brings are connected.
const INTRODUCTION: Duration = Duration::from_millis(500);

/// The loop turns at least so often, so that it notices when it was stopped.
const HEARTBEAT: Duration = Duration::from_millis(200);

struct Link {
    end: End,
    sender: Sender,
}

/// A client of this node that waits for an answer.
struct Waiting {
    asker: Asker,
    operation: Operation,
    since: Time,
}

/// Where the answer goes.
enum Asker {
    Http(oneshot::Sender<Answer>),
    Client {
        connection: ConnectionId,
        request: RequestId,
        writes: bool,
    },
}

/// What a peer may be complained about: each once in [`COMPLAINT_EVERY`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Complaint {
    BreaksProtocol,
    TooFarBehind,
}

/// What the driver needs to know of the cluster.
pub(crate) struct Surroundings {
    /// This node's name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: NodeId,
    /// Whom to dial: whoever does hears of it by this.
    pub(crate) roster: watch::Sender<Vec<NodeSpec>>,
    /// Requests that take longer are logged.
    pub(crate) slow_request: Option<Duration>,
    /// After this time without a word from this node every peer has given it up.
    pub(crate) silence_max: Duration,
    /// Its data directory.
    pub(crate) opened: Opened,
}

pub(crate) struct Driver<S> {
    node: Node<S>,
    surroundings: Surroundings,
    readiness: Readiness,
    origin: Instant,
    connections: HashMap<ConnectionId, Link>,
    /// The other nodes by name: those of the live layouts, and who has just left.
    peers: BTreeMap<NodeId, String>,
    /// Nodes in no layout that are dialled all the same, until then: who has just left, or may be about to join.
    besides: BTreeMap<NodeId, (NodeSpec, Instant)>,
    /// News of layouts that the core hears once the nodes that it brings are connected, and at that moment at the latest.
    held: Vec<(BTreeSet<NodeId>, Instant, Input)>,
    /// Whether the layouts are others since the roster was made.
    has_moved: bool,
    /// The connections we dialled, by node: the core believes exactly these nodes to be up.
    dialled: BTreeMap<NodeId, ConnectionId>,
    /// The connection each node last asked on, or dialled if it has not asked yet: answers to its requests go there.
    accepted: BTreeMap<NodeId, ConnectionId>,
    askers: HashMap<Caller, Waiting>,
    next_caller: u64,
    outputs: Vec<Output>,
    /// Inputs that follow from what could not be sent.
    follow: Vec<Input>,
    complaints: BTreeMap<(Complaint, String), Instant>,
    stopping: Option<Instant>,
    metrics: Arc<Metrics>,
    /// How to ask the storage what it holds.
    stats: fn(&S) -> Stats,
    steps: Option<Steps>,
    slow: Throttle,
    /// Whether the disk was nearly full at the last look.
    disk_full: bool,
    /// When the core was woken last.
    woken: Instant,
}

impl<S: Storage> Driver<S> {
    pub(crate) fn new(
        mut node: Node<S>,
        surroundings: Surroundings,
        readiness: Readiness,
        metrics: Arc<Metrics>,
        stats: fn(&S) -> Stats,
    ) -> Self {
        let steps = Steps::if_shown(&surroundings.name, &BTreeMap::new());
        node.tell_of(Telling {
            steps: steps.is_some(),
            slower_than: surroundings.slow_request,
        });
        let mut driver = Driver {
            node,
            surroundings,
            readiness,
            origin: Instant::now(),
            connections: HashMap::new(),
            peers: BTreeMap::new(),
            besides: BTreeMap::new(),
            held: Vec::new(),
            has_moved: false,
            dialled: BTreeMap::new(),
            accepted: BTreeMap::new(),
            askers: HashMap::new(),
            next_caller: 0,
            outputs: Vec::new(),
            follow: Vec::new(),
            complaints: BTreeMap::new(),
            stopping: None,
            metrics,
            stats,
            steps,
            slow: Throttle::new(),
            disk_full: false,
            woken: Instant::now(),
        };
        driver.enrol();
        driver.metrics.hints(driver.peers.values(), &[]);
        driver
    }

    /// Makes the roster of whom to dial: the nodes of the live layouts, and for a while those who have left them.
    fn enrol(&mut self) {
        let now = Instant::now();
        self.has_moved = false;
        let known = self.node.layouts();
        let next = known.next.iter().map(|change| &change.chosen.layout);
        let mut all: BTreeMap<NodeId, NodeSpec> = BTreeMap::new();
        // The latest tells where a node is reached.
        for layout in std::iter::once(&known.current).chain(next) {
            all.extend(layout.nodes().iter().map(|spec| (spec.id, spec.clone())));
        }
        all.remove(&self.surroundings.id);
        for spec in self.surroundings.roster.borrow().iter() {
            if !all.contains_key(&spec.id) && !self.besides.contains_key(&spec.id) {
                self.besides.insert(spec.id, (spec.clone(), now + FAREWELL));
            }
        }
        self.besides
            .retain(|node, (_, until)| *until > now && !all.contains_key(node));
        let besides = self.besides.values().map(|(spec, _)| spec.clone());
        all.extend(besides.map(|spec| (spec.id, spec)));
        let before = self.surroundings.roster.borrow().clone();
        let is_gone = |spec: &&NodeSpec| all.get(&spec.id).is_none_or(|now| now.quic != spec.quic);
        for gone in before.iter().filter(is_gone) {
            if let Some(id) = self.dialled.get(&gone.id).copied()
                && let Some(link) = self.connections.get(&id)
            {
                let why = "this node is in no layout any more, or is reached elsewhere";
                link.sender.close(why);
                self.lost(id, &CloseReason::Local(why.to_owned()));
            }
        }
        self.peers = all
            .values()
            .map(|spec| (spec.id, spec.name.clone()))
            .collect();
        if let Some(steps) = &mut self.steps {
            steps.know(&self.peers);
        }
        let roster: Vec<NodeSpec> = all.into_values().collect();
        if roster != before {
            self.surroundings.roster.send_replace(roster);
        }
        self.readiness.set(self.node.ready());
    }

    /// The version of the latest layout that the core goes by.
    fn layout_version(&self) -> u64 {
        let known = self.node.layouts();
        let next = known.next.as_ref().map(|c| c.chosen.layout.version());
        next.unwrap_or(known.current.version())
    }

    /// Hands news of a layout to the core; but if it brings nodes that are not connected yet, only once they are: from that moment on writes have to
    /// be taken by them, and those under way would fail for want of a connection.
    fn introduce(&mut self, input: Input) {
        let now = Instant::now();
        let mut missing = BTreeSet::new();
        if let Some((version, nodes)) = brings(&input)
            && version > self.layout_version()
        {
            // One that was in the roster before and is not connected is down.
            let is_awaited = |id: &NodeId| self.held.iter().any(|(all, ..)| all.contains(id));
            let strange = |spec: &&NodeSpec| {
                spec.id != self.surroundings.id
                    && !self.dialled.contains_key(&spec.id)
                    && (!self.peers.contains_key(&spec.id) || is_awaited(&spec.id))
            };
            for spec in nodes.iter().filter(strange) {
                missing.insert(spec.id);
                let until = now + FAREWELL;
                self.besides.insert(spec.id, (spec.clone(), until));
                self.has_moved = true;
            }
        }
        match missing.is_empty() {
            true => self.input(input),
            false => self.held.push((missing, now + INTRODUCTION, input)),
        }
    }

    /// Hands over what was held back, if it is time.
    fn let_go(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.held.iter().position(|(missing, until, _)| {
            *until <= now || missing.iter().all(|node| self.dialled.contains_key(node))
        }) {
            let (.., input) = self.held.remove(at);
            self.input(input);
        }
    }

    /// Whom to dial may be others: the layouts are, or somebody who left them has had his time.
    fn keep_roster(&mut self) {
        let now = Instant::now();
        if self.has_moved || self.besides.values().any(|(_, until)| *until <= now) {
            self.enrol();
        }
    }

    /// Runs until it is told to stop. Returns once nothing is under way any more, or [`DRAIN_TIME_MAX`] later;
    /// `on_stop` is called when it begins to drain.
    pub(crate) async fn run(
        &mut self,
        events: &mut UnboundedReceiver<Event>,
        on_stop: impl FnOnce(),
    ) {
        let mut on_stop = Some(on_stop);
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        let mut timer = std::pin::pin!(sleep_until(tokio::time::Instant::now() + HEARTBEAT));
        let mut turned = Instant::now();
        self.readiness.set(self.node.ready());
        while !self.is_done() {
            self.set_timer(timer.as_mut());
            tokio::select! {
                biased;
                count = events.recv_many(&mut taken, TAKEN_AT_ONCE) => {
                    // The gateway and the links hold the other end for as long as this runs.
                    assert!(count > 0, "the queue of events is closed while the node runs");
                }
                () = timer.as_mut() => self.wake(),
            }
            let stopped = turned.elapsed();
            turned += stopped;
            if stopped > self.surroundings.silence_max + HEARTBEAT {
                self.was_stopped(stopped);
            }
            let yields = taken.len() == TAKEN_AT_ONCE && self.woken.elapsed() < YIELD_MAX;
            for event in taken.drain(..) {
                self.take(event);
            }
            // Under load the timer above may never have its turn. What requests wait for rings with any input.
            if !yields && self.node.wake_at().is_some_and(|at| at <= self.now()) {
                self.wake();
            }
            loop {
                while let Some(input) = self.node.submit() {
                    self.committed(input);
                }
                self.keep_roster();
                self.let_go();
                if self.outputs.is_empty() && self.follow.is_empty() {
                    break;
                }
                self.flush();
            }
            self.metrics.in_flight(self.node.in_flight());
            if self.stopping.is_some()
                && let Some(on_stop) = on_stop.take()
            {
                on_stop();
            }
        }
        if !self.askers.is_empty() {
            tracing::warn!(
                requests = self.askers.len(),
                "closing with requests under way"
            );
        }
    }

    /// Tells every peer that this is the end, within that time.
    pub(crate) async fn finish(&mut self, within: Duration) {
        let mut finishing = tokio::task::JoinSet::new();
        for (_, link) in self.connections.drain() {
            finishing.spawn(async move { link.sender.finish(within).await });
        }
        finishing.join_all().await;
    }

    /// The storage, to be closed, and its directory.
    pub(crate) fn into_storage(self) -> (S, Opened) {
        (self.node.into_storage(), self.surroundings.opened)
    }

    fn now(&self) -> Time {
        Time(self.origin.elapsed().as_micros() as u64)
    }

    fn is_done(&self) -> bool {
        self.stopping.is_some_and(|until| {
            (self.askers.is_empty() && self.node.in_flight() == 0) || Instant::now() >= until
        })
    }

    /// Sets the timer to when the core wants to be woken. One that rings too early does no harm, so a later wish leaves
    /// it as it is: most requests end long before their deadline, and would move it each time.
    fn set_timer(&self, timer: std::pin::Pin<&mut Sleep>) {
        let wish = self
            .node
            .wake_at()
            .map(|at| self.origin + Duration::from_micros(at.0));
        let heartbeat = Instant::now() + HEARTBEAT;
        let held = self.held.iter().map(|(_, until, _)| *until).min();
        let wishes = [wish, self.stopping, held].into_iter().flatten();
        let wish = tokio::time::Instant::from_std(wishes.fold(heartbeat, Instant::min));
        if timer.is_elapsed() || wish < timer.deadline() {
            timer.reset(wish);
        }
    }

    /// This process did nothing for so long that its peers have given it up, whatever the connections look like from here:
    /// it was stopped, or starved. They are given up here too, before anything is asked on them, and dialled anew; until
    /// then this node is not ready.
    fn was_stopped(&mut self, stopped: Duration) {
        let node = &self.surroundings.name;
        tracing::warn!(
            node,
            ?stopped,
            "stood still for longer than peers wait: connecting anew"
        );
        let reason = CloseReason::Local("this node stood still".to_owned());
        for id in self.dialled.values().copied().collect::<Vec<_>>() {
            if let Some(link) = self.connections.get(&id) {
                link.sender.close("this node stood still");
            }
            self.lost(id, &reason);
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.node.handle(now, input, &mut self.outputs);
    }

    /// Lets the core do what is due, its upkeep among it.
    fn wake(&mut self) {
        self.woken = Instant::now();
        self.input(Input::Wake);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Frames(id, frames, since, _room) => {
                for frame in &frames {
                    self.frame(id, frame, since);
                }
            }
            Event::Http(http) => {
                let HttpRequest {
                    since,
                    header,
                    request,
                    asker,
                    _place,
                } = *http;
                self.ask(Asker::Http(asker), header, request, since);
            }
            Event::Commit(CommitEvent::Progress(progress)) => {
                self.committed(Input::Progress(progress));
            }
            Event::Commit(CommitEvent::Poisoned(reason)) => self.committed(Input::Poisoned(reason)),
            Event::Pulse(pulse) => self.pulse(&pulse),
            Event::Opened(id, end, sender) => self.opened(id, end, sender),
            Event::Closed(id, reason) => self.lost(id, &reason),
            Event::Stop if self.stopping.is_none() => {
                tracing::info!(
                    node = self.surroundings.name,
                    requests = self.askers.len(),
                    "draining"
                );
                self.stopping = Some(Instant::now() + DRAIN_TIME_MAX);
                self.input(Input::Drain);
                self.readiness.set(self.node.ready());
            }
            Event::Stop => {}
        }
    }

    /// What became of commits.
    fn committed(&mut self, input: Input) {
        let failed = match &input {
            Input::Poisoned(reason) => {
                tracing::error!(
                    reason,
                    "the disk failed: nothing more is acknowledged until this node is restarted on a sound one"
                );
                true
            }
            _ => false,
        };
        self.input(input);
        if failed {
            if let Err(error) = self.surroundings.opened.disk_failed() {
                let node = &self.surroundings.name;
                tracing::warn!(node, %error, "that the disk failed cannot be written down either");
            }
            self.readiness.set(self.node.ready());
        }
    }

    /// A client of this node asks, and has waited `since` for its turn.
    fn ask(&mut self, asker: Asker, mut header: Header, request: Request, since: Instant) {
        self.metrics.asked(&request);
        if let Some(steps) = &self.steps {
            steps.client_asks(&header, &request);
        }
        self.next_caller += 1;
        let caller = Caller(self.next_caller);
        let now = self.now();
        let waiting = Waiting {
            asker,
            operation: Operation::of(&request),
            since: now,
        };
        self.askers.insert(caller, waiting);
        let waited = since.elapsed();
        if waited > WAIT_MAX || !takes_off(&mut header, waited) {
            // Nothing was begun.
            let refused = Answer::Refused(Refusal::Overloaded);
            self.outputs.push(Output::Answer(caller, refused));
            return;
        }
        self.introduce(Input::Request(caller, header, request));
    }

    /// Tells the core, and whoever scrapes, how this node is.
    fn pulse(&mut self, pulse: &Pulse) {
        let stats = (self.stats)(self.node.storage());
        let uptime = self.origin.elapsed();
        let clients = |link: &&Link| matches!(link.end, End::Accepted(Identity::Client(_)));
        let client_connections = self.connections.values().filter(clients).count();
        self.metrics.found(&Found {
            stats,
            free_bytes: pulse.free_bytes,
            reserve_bytes: pulse.reserve_bytes,
            uptime,
            ready: self.node.ready().is_ok(),
            peers: self.peers.len(),
            layout_version: self.layout_version(),
            peers_up: self.dialled.len(),
            node_connections: self.connections.len() - client_connections,
            client_connections,
        });
        let upkeep = self.node.upkeep_status();
        self.metrics
            .upkeep(&upkeep, self.node.vnodes_with_evidence());
        let pending = self.node.pending_hints();
        self.metrics.hints(self.peers.values(), &pending);
        self.input(Input::Vitals(Box::new(Vitals {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: uptime.as_secs(),
            records: stats.records_estimate,
            disk_bytes: stats.disk_bytes,
            disk_free_bytes: pulse.free_bytes,
            disk_reserve_bytes: pulse.reserve_bytes,
            clock_ms: pulse.clock_ms,
        })));
        self.tell_of_the_disk(pulse);
        let opened = &mut self.surroundings.opened;
        if opened.awaits_record()
            && self.node.is_loss_recorded()
            && let Err(error) = opened.recorded()
        {
            let node = &self.surroundings.name;
            tracing::warn!(node, %error, "that state was lost is on record, and cannot be taken out of the directory");
        }
    }

    /// Says once that the disk is nearly full, and once that it is not any more.
    fn tell_of_the_disk(&mut self, pulse: &Pulse) {
        let full = pulse
            .free_bytes
            .is_some_and(|free| free < pulse.reserve_bytes);
        if full == self.disk_full {
            return;
        }
        self.disk_full = full;
        let (node, free, reserved) = (
            &self.surroundings.name,
            pulse.free_bytes,
            pulse.reserve_bytes,
        );
        if full {
            tracing::warn!(
                node,
                free,
                reserved,
                "the disk is nearly full: values are refused until there is room; reads and deletes go on"
            );
        } else {
            tracing::info!(node, free, reserved, "there is room on the disk again");
        }
    }

    fn slow(&mut self, request: &Slow) {
        self.metrics.slow();
        if let Some(suppressed) = self.slow.allows(Instant::now()) {
            slow::log(&self.surroundings.name, &self.peers, request, suppressed);
        }
    }

    // ---- Connections ----

    fn opened(&mut self, id: ConnectionId, end: End, sender: Sender) {
        match &end {
            // It went from the roster while it was being dialled, and nobody listens to it.
            End::Dialled(node) if !self.peers.contains_key(node) => {
                sender.close("this node is in no layout any more");
                return;
            }
            End::Dialled(node) => {
                if let Some(old) = self.dialled.insert(*node, id) {
                    self.connections.remove(&old);
                    self.input(Input::Down(*node));
                }
                tracing::info!(
                    node = self.surroundings.name,
                    peer = self.peers.get(node),
                    address = %sender.remote_address(),
                    "up"
                );
                let node = *node;
                self.connections.insert(id, Link { end, sender });
                self.input(Input::Up(node));
                self.readiness.set(self.node.ready());
                return;
            }
            // Also one that is in no layout: it is of this cluster, by its certificate, and may be about to join, or have left.
            End::Accepted(Identity::Node(node)) => {
                self.accepted.insert(NodeId(*node), id);
            }
            End::Accepted(Identity::Client(_)) => {}
        }
        self.connections.insert(id, Link { end, sender });
    }

    /// A connection is no more, or is treated as such.
    fn lost(&mut self, id: ConnectionId, reason: &dyn std::fmt::Display) {
        let Some(link) = self.connections.remove(&id) else {
            return;
        };
        match link.end {
            End::Dialled(node) => {
                self.dialled.remove(&node);
                tracing::info!(
                    node = self.surroundings.name,
                    peer = self.peers.get(&node),
                    %reason,
                    "down"
                );
                self.input(Input::Down(node));
                self.readiness.set(self.node.ready());
            }
            End::Accepted(Identity::Node(node)) => {
                if self.accepted.get(&NodeId(node)) == Some(&id) {
                    self.accepted.remove(&NodeId(node));
                    // The newest to be taken need not be the one the node went on to use: an abandoned dial may
                    // finish its handshake late.
                    let of_node = |link: &Link| link.end == End::Accepted(Identity::Node(node));
                    let rest = self.connections.iter().filter(|(_, link)| of_node(link));
                    if let Some(newest) = rest.map(|(id, _)| *id).max() {
                        self.accepted.insert(NodeId(node), newest);
                    }
                }
            }
            // Whoever asked is gone. What was begun goes on, and its answer is dropped.
            End::Accepted(Identity::Client(_)) => {
                self.askers
                    .retain(|_, waiting| !matches!(waiting.asker, Asker::Client { connection, .. } if connection == id));
            }
        }
    }

    /// Whether this has not been said of that peer for a while. It counts as said from now on.
    fn is_news(&mut self, complaint: Complaint, peer: &str) -> bool {
        let now = Instant::now();
        let said = self.complaints.entry((complaint, peer.to_owned()));
        match said {
            Entry::Vacant(never) => {
                never.insert(now);
                true
            }
            Entry::Occupied(mut last) if now.duration_since(*last.get()) >= COMPLAINT_EVERY => {
                last.insert(now);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Closes the connection of a peer that breaks the protocol. Nobody else notices.
    fn violated(&mut self, id: ConnectionId, what: &str) {
        let Some(link) = self.connections.get(&id) else {
            return;
        };
        let sender = link.sender.clone();
        let peer = sender.peer().to_string();
        if self.is_news(Complaint::BreaksProtocol, &peer) {
            let address = sender.remote_address();
            tracing::warn!(peer, %address, reason = what, "closed the connection of a peer that breaks the protocol");
        }
        sender.close(what);
        self.lost(id, &CloseReason::Local(what.to_owned()));
    }

    // ---- What comes in ----

    fn frame(&mut self, id: ConnectionId, frame: &Bytes, since: Instant) {
        // Gone, if an earlier frame of the same batch broke the rules.
        let Some(link) = self.connections.get(&id) else {
            return;
        };
        self.metrics.received(frame.len());
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.violated(id, &error.to_string()),
        };
        match (&link.end, message) {
            (End::Dialled(node), message @ (Message::Answer(..) | Message::Reply(..))) => {
                let node = *node;
                self.introduce(Input::Message(node, message));
            }
            (End::Accepted(Identity::Node(node)), Message::Replica(request, mut header, body)) => {
                let node = NodeId(*node);
                self.accepted.insert(node, id);
                self.metrics.replica_asked(&body);
                if !takes_off(&mut header, since.elapsed()) {
                    return self.metrics.overdue();
                }
                let message = Message::Replica(request, header, body);
                self.note_asked(node, &message);
                self.introduce(Input::Message(node, message));
            }
            (End::Accepted(Identity::Node(node)), Message::Request(request, mut header, body))
                if header.forwarded =>
            {
                let node = NodeId(*node);
                self.accepted.insert(node, id);
                if !takes_off(&mut header, since.elapsed()) {
                    return self.metrics.overdue();
                }
                let message = Message::Request(request, header, body);
                self.note_asked(node, &message);
                self.input(Input::Message(node, message));
            }
            (End::Accepted(Identity::Client(_)), Message::Request(request, header, body))
                if !header.forwarded && header.principal.is_none() =>
            {
                let asker = Asker::Client {
                    connection: id,
                    request,
                    writes: body.is_write(),
                };
                self.ask(asker, header, body, since);
            }
            (End::Accepted(Identity::Client(_)), Message::Request(..)) => {
                self.violated(id, "a client may speak for nobody but itself");
            }
            (End::Accepted(_), _) => self.violated(id, "only requests may come this way"),
            (End::Dialled(_), _) => self.violated(id, "only answers may come this way"),
        }
    }

    fn note_asked(&mut self, from: NodeId, message: &Message) {
        if let Some(steps) = &mut self.steps {
            steps.node_asks(from, message);
        }
    }

    // ---- What goes out ----

    /// Does what the core says, until it has nothing more to say.
    fn flush(&mut self) {
        while !self.outputs.is_empty() || !self.follow.is_empty() {
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    Output::Send(node, message) => self.send(node, message),
                    Output::Answer(caller, answer) => self.answer(caller, answer),
                    Output::Event(event) => {
                        self.tell_of_layouts(event);
                        self.metrics.event(event);
                    }
                    Output::Step(step) => {
                        if let Some(steps) = &self.steps {
                            steps.step(&step);
                        }
                    }
                    Output::Slow(request) => self.slow(&request),
                }
            }
            for input in std::mem::take(&mut self.follow) {
                self.input(input);
            }
        }
    }

    /// How a change of the layout goes on belongs in the log.
    fn tell_of_layouts(&mut self, event: quorate_node::Event) {
        use quorate_node::Event as Happened;
        let node = &self.surroundings.name;
        let version = self.layout_version();
        match event {
            Happened::LayoutBegun => {
                tracing::info!(node, version, "the layout changes: a newer one was applied");
            }
            Happened::LayoutComplete => tracing::info!(
                node,
                version,
                "every node of the newer layout has what it is to hold: reads go by it from here on"
            ),
            Happened::LayoutRetired => {
                tracing::info!(node, version, "the change of the layout is done");
            }
            Happened::LayoutsUnsound => {
                tracing::error!(
                    node,
                    version,
                    "another node told of layouts that cannot be true together with what is known here: nothing was taken over"
                );
                return;
            }
            _ => return,
        }
        self.has_moved = true;
    }

    fn send(&mut self, node: NodeId, message: Message) {
        if let Some(steps) = &mut self.steps {
            steps.sends(node, &message);
        }
        let table = match message {
            Message::Request(..) | Message::Replica(..) => &self.dialled,
            Message::Answer(..) | Message::Reply(..) => &self.accepted,
        };
        // Where there is none the peer is down, which it and the core know or are about to hear.
        let Some(&id) = table.get(&node) else {
            return;
        };
        let Err(TooLarge { size, limit }) = self.put(id, message.encode()) else {
            return;
        };
        // Whoever waits must not wait for nothing.
        let refusal = Refusal::TooLarge { size, limit };
        match message {
            Message::Request(request, ..) => {
                let refused = Message::Answer(request, Answer::Refused(refusal));
                self.follow.push(Input::Message(node, refused));
            }
            Message::Replica(request, ..) => {
                let refused = Message::Reply(request, ReplicaReply::Refused(refusal));
                self.follow.push(Input::Message(node, refused));
            }
            Message::Answer(request, _) => {
                // What was asked is not known here. It may have been a write, and one that was done is not refused.
                let unknown = Message::Answer(request, Answer::Unmet(DONE_OR_NOT));
                let _ = self.put(id, unknown.encode());
            }
            Message::Reply(request, _) => {
                let refused = Message::Reply(request, ReplicaReply::Refused(refusal));
                let _ = self.put(id, refused.encode());
            }
        }
    }

    fn answer(&mut self, caller: Caller, answer: Answer) {
        let Some(waiting) = self.askers.remove(&caller) else {
            return;
        };
        let took = self.now().since(waiting.since);
        self.metrics.answered(waiting.operation, took, &answer);
        match waiting.asker {
            // The client may have gone away.
            Asker::Http(asker) => drop(asker.send(answer)),
            Asker::Client {
                connection,
                request,
                writes,
            } => {
                let frame = Message::Answer(request, answer).encode();
                if let Err(TooLarge { size, limit }) = self.put(connection, frame) {
                    let instead = if writes {
                        Answer::Unmet(DONE_OR_NOT)
                    } else {
                        Answer::Refused(Refusal::TooLarge { size, limit })
                    };
                    let _ = self.put(connection, Message::Answer(request, instead).encode());
                }
            }
        }
    }

    fn put(&mut self, id: ConnectionId, frame: Bytes) -> Result<(), TooLarge> {
        let Some(link) = self.connections.get(&id) else {
            return Ok(());
        };
        let bytes = frame.len();
        match link.sender.send(frame) {
            Ok(()) => {
                self.metrics.sent(bytes);
                Ok(())
            }
            // A connection that is closed is about to be reported as such.
            Err(SendError::Closed) => Ok(()),
            Err(SendError::TooLarge { length, max }) => Err(TooLarge {
                size: length as u64,
                limit: max as u64,
            }),
            // It reads too slowly, or not at all: whoever waits for it is better off without.
            Err(error @ (SendError::Backlogged { .. } | SendError::Empty)) => {
                let sender = link.sender.clone();
                let peer = sender.peer().to_string();
                if self.is_news(Complaint::TooFarBehind, &peer) {
                    tracing::warn!(peer, %error, "closed a connection that is too far behind");
                }
                sender.close("too far behind");
                self.lost(id, &error);
                Ok(())
            }
        }
    }
}

/// The layout that an input brings news of, or asks for: its version, and its nodes.
fn brings(input: &Input) -> Option<(u64, &[NodeSpec])> {
    fn latest(live: &LiveLayouts) -> (u64, &[NodeSpec]) {
        let next = live.next.as_ref().map(|change| &change.chosen.layout);
        let layout = next.unwrap_or(&live.current);
        (layout.version(), layout.nodes())
    }
    match input {
        Input::Request(_, _, Request::Apply(apply))
        | Input::Message(_, Message::Request(_, _, Request::Apply(apply))) => {
            Some((apply.version, &apply.nodes))
        }
        Input::Message(_, Message::Replica(_, _, ReplicaRequest::Layout(asked))) => {
            match &**asked {
                LayoutRequest::Tell(live) => Some(latest(live)),
                LayoutRequest::Accept(_, proposed) => {
                    Some((proposed.layout.version(), proposed.layout.nodes()))
                }
                LayoutRequest::Prepare(..) => None,
            }
        }
        Input::Message(_, Message::Reply(_, ReplicaReply::Layout(reply))) => match &**reply {
            LayoutReply::Told(live) => Some(latest(live)),
            _ => None,
        },
        _ => None,
    }
}

/// Takes the time that a request has waited for its turn off the time that it has. False if that is over: whoever asked has given it
/// up.
fn takes_off(header: &mut Header, waited: Duration) -> bool {
    let waited_ms = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX);
    // 0 stands for the default, or for no deadline.
    if header.deadline_ms == 0 || waited_ms == 0 {
        return true;
    }
    header.deadline_ms = header.deadline_ms.saturating_sub(waited_ms);
    header.deadline_ms > 0
}

/// A frame that the peer would not take.
struct TooLarge {
    size: u64,
    limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_uses_up_the_time_that_a_request_has() {
        let of = |deadline_ms: u32, waited_ms: u64| {
            let mut header = Header {
                deadline_ms,
                ..Header::default()
            };
            let goes_on = takes_off(&mut header, Duration::from_millis(waited_ms));
            goes_on.then_some(header.deadline_ms)
        };
        assert_eq!(of(100, 0), Some(100));
        assert_eq!(of(100, 99), Some(1));
        assert_eq!(of(100, 100), None);
        assert_eq!(of(100, u64::MAX / 2), None);
        assert_eq!(of(0, 5_000), Some(0), "no deadline");
    }
}
