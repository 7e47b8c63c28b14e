//! The state machine of one node: takes inputs, decides, gives outputs.
//!
//! What it does for its clients is in `requests`, how conversations go on in `steps`, and what other nodes say
//! in `messages`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{Dot, DotSet};
use quorate_protocol::{
    Answer, BucketEntry, BucketId, BucketRequest, Message, Promise, Refusal, ReplicaReply,
    ReplicaRequest, Request, RequestId, Trace,
};
use quorate_ring::{Layout, NodeId};
use quorate_storage::{CommitEvent, Storage, StorageError};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::administer::COMPARE_EVERY_US;
use crate::api::{Caller, Input, Output};
use crate::buckets::Buckets;
use crate::change::ChangeConversation;
use crate::choose::{self, ChooseConversation};
use crate::config::Config;
use crate::demand::RepairConversation;
use crate::expiry::Wall;
use crate::explain::Log;
use crate::filling::Filling;
use crate::forward::ForwardConversation;
use crate::handoff::Handoff;
use crate::hedging::Hedging;
use crate::jobs::Jobs;
use crate::keys;
use crate::layouts::{self, Layouts};
use crate::list::{ListConversation, ScanConversation};
use crate::ranking::{Distance, Standing};
use crate::read::ReadConversation;
use crate::relocation::witnesses;
use crate::repairs::Repairs;
use crate::replica::{Replica, Write, Written};
use crate::status::StatusConversation;
use crate::target::Target;
use crate::telling::{Kept, Telling};
use crate::time::Time;
use crate::upkeep::Upkeeping;
use crate::vitals::Vitals;
use crate::write::WriteConversation;

/// Who gets the answer of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReplyTo {
    Client(Caller),
    /// A node that passed its client's request on.
    Node(NodeId, RequestId),
}

/// For whom a request was accepted, when, and until when.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) reply_to: ReplyTo,
    pub(crate) now: Time,
    pub(crate) deadline: Time,
    /// The account that its client asked for.
    pub(crate) log: Option<Box<Log>>,
    pub(crate) trace: Option<Trace>,
}

/// A request under way.
pub(crate) struct Conversation {
    pub(crate) reply_to: ReplyTo,
    pub(crate) began: Time,
    pub(crate) deadline: Time,
    pub(crate) kept: Kept,
    pub(crate) kind: Kind,
    /// The account that its client asked for; mostly there is none.
    pub(crate) log: Option<Box<Log>>,
}

pub(crate) enum Kind {
    Write(WriteConversation),
    Read(ReadConversation),
    Forward(ForwardConversation),
    Change(ChangeConversation),
    List(Box<ListConversation>),
    /// A part of a listing.
    Scan(ScanConversation),
    Status(StatusConversation),
    Repair(RepairConversation),
    Choose(Box<ChooseConversation>),
}

impl Kind {
    /// The bytes of values it holds. The same from beginning to end.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Kind::Write(write) => write.payload.as_ref().map_or(0, Bytes::len),
            Kind::Forward(forward) => match &forward.request {
                Request::Put(put) => put.value.data.len(),
                _ => 0,
            },
            Kind::Read(read) => read.bytes(),
            Kind::Change(_)
            | Kind::List(_)
            | Kind::Scan(_)
            | Kind::Status(_)
            | Kind::Repair(_)
            | Kind::Choose(_) => 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// The request's time is up.
    Deadline,
    /// Somebody who was asked first is overdue.
    Hedge,
    /// The replicas that were asked first have had their time.
    Patience,
    /// Those that were lost have had their time to come back.
    Return,
}

/// Whom the replica tells once something is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    /// A conversation of this node.
    Own(RequestId),
    /// A coordinator elsewhere.
    Peer(NodeId, RequestId),
}

/// Coordinator and replica talk by messages also where both are this node, so that partitions can later be dealt out to
/// threads.
pub(crate) enum Local {
    Ask(RequestId, ReplicaRequest),
    Write(RequestId, Write),
    Reply(RequestId, ReplicaReply),
    Written(RequestId, Box<Written>),
    WriteRefused(RequestId, Refusal),
    /// It was looked whether a bucket has keys before it is changed.
    Looked(Box<Accepted>, (BucketRequest, u32), Answer),
    /// Of a listing, by a read: whether its key has a live value, or what the listing is answered if that cannot be told.
    Decided {
        list: RequestId,
        read: RequestId,
        found: Result<bool, Box<Answer>>,
    },
}

/// One node: a replica for its seats, and a coordinator for whatever requests reach it. No I/O, no clock, no thread, no
/// randomness but the seed: everything comes in through [`Node::handle`], and all that is to be done comes out.
pub struct Node<S> {
    /// When the input came that is being handled, or was last.
    pub(crate) now: Time,
    pub(crate) config: Config,
    pub(crate) layouts: Layouts,
    /// The same for clients, as JSON: the one by which reads are answered.
    pub(crate) described: Bytes,
    pub(crate) filling: Filling,
    /// What this node has promised of the layout that follows.
    pub(crate) promised: Option<Promise>,
    /// All nodes in reach, whatever layout they are in.
    pub(crate) reachable: BTreeSet<NodeId>,
    pub(crate) buckets: Buckets,
    /// When to compare tables of buckets next, and with whom that was done last.
    pub(crate) compare_at: Time,
    pub(crate) compared: Option<NodeId>,
    pub(crate) replica: Replica<S, Waiter>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) conversations: BTreeMap<RequestId, Conversation>,
    /// What reads have asked replicas that had answered them already: of which read, and about which values if just about some.
    pub(crate) again: BTreeMap<RequestId, (RequestId, Vec<Dot>)>,
    /// The bytes of values that these hold.
    pub(crate) bytes_in_flight: usize,
    /// One table for all timers.
    pub(crate) timers: BTreeSet<(Time, RequestId, Timer)>,
    pub(crate) local: VecDeque<Local>,
    pub(crate) jobs: Jobs,
    pub(crate) handoff: Handoff,
    pub(crate) upkeep: Upkeeping,
    /// Counts the inputs.
    pub(crate) inputs: u64,
    pub(crate) hedging: Hedging,
    pub(crate) repairs: Repairs,
    /// How many hints that fallbacks were asked to keep are waited for.
    pub(crate) hint_writes: usize,
    pub(crate) next_id: u64,
    pub(crate) draining: bool,
    pub(crate) vitals: Vitals,
    /// The time of day.
    pub(crate) wall: Wall,
    /// When to go on dropping what is dead, if there is more of it.
    pub(crate) sweep_at: Option<Time>,
    pub(crate) telling: Telling,
}

/// What is known of another node.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) up: bool,
    /// How it has been answering.
    pub(crate) standing: Standing,
}

impl Peer {
    pub(crate) fn new(distance: Distance) -> Self {
        Peer {
            up: false,
            standing: Standing::at(distance),
        }
    }
}

impl<S: Storage> Node<S> {
    /// A node over this storage. All nodes but itself are down until the driver says otherwise. `seed` must
    /// be a fresh random number at every start: incarnations come from it (rule R1).
    ///
    /// # Errors
    /// A sentence, if the bucket defaults make no replica set, or what is stored of layouts or buckets cannot be read.
    pub fn new(config: Config, layout: Layout, storage: S, seed: [u8; 32]) -> Result<Self, String> {
        let layouts = layouts::load(&storage, layout, config.me)?;
        let buckets = Buckets::load(&config, &layouts, &storage)?;
        let promised = choose::load(&storage)?;
        let mut rng = ChaCha12Rng::from_seed(seed);
        // Answers to an earlier life of this node must find no conversation of this one.
        let next_id = rng.next_u64() >> 1;
        let mut replica_seed = [0; 32];
        rng.fill_bytes(&mut replica_seed);
        let mut replica = Replica::new(storage, ChaCha12Rng::from_seed(replica_seed))
            .map_err(|e| e.to_string())?;
        if config.upkeep {
            replica.ask_others(witnesses(&layouts, config.me));
        }
        if config.unclean {
            replica.lost_some();
        }
        let mut node = Node {
            now: Time::default(),
            buckets,
            compare_at: Time(COMPARE_EVERY_US),
            compared: None,
            peers: layouts
                .nodes()
                .into_iter()
                .filter(|n| *n != config.me)
                .map(|n| (n, Distance::between(&layouts, config.me, n)))
                .map(|(node, distance)| (node, Peer::new(distance)))
                .collect(),
            replica,
            conversations: BTreeMap::new(),
            again: BTreeMap::new(),
            bytes_in_flight: 0,
            timers: BTreeSet::new(),
            local: VecDeque::new(),
            jobs: Jobs::default(),
            handoff: Handoff::default(),
            upkeep: Upkeeping::new(rng),
            inputs: 0,
            hedging: Hedging::new(&config.limits),
            repairs: Repairs::default(),
            hint_writes: 0,
            next_id,
            draining: false,
            vitals: Vitals::default(),
            wall: Wall::default(),
            sweep_at: None,
            telling: Telling::default(),
            described: layouts::describe(&layouts),
            layouts,
            filling: Filling::default(),
            promised,
            reachable: BTreeSet::new(),
            config,
        };
        node.replica.load_hints().map_err(|e| e.to_string())?;
        node.reclaim_the_rest().map_err(|e| e.to_string())?;
        node.replica.load_pending().map_err(|e| e.to_string())?;
        node.begin_filling();
        node.clear_leftovers();
        node.hand_over_anew();
        Ok(node)
    }

    /// Takes one input and appends what follows from it. `now` must not run backwards.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.now = now;
        self.inputs += 1;
        let skew_max = self.config.limits.ttl_skew_max;
        self.replica.moment = self.wall.moment(now, skew_max);
        let is_wake = matches!(input, Input::Wake);
        match input {
            Input::Request(caller, header, request) => {
                self.yield_to_requests();
                self.begin(now, ReplyTo::Client(caller), header, request, out);
            }
            Input::Message(from, message) => self.on_message(now, from, message, out),
            Input::Progress(progress) => {
                let local = &mut self.local;
                self.replica
                    .advance(progress, |waiter, reply| tell(waiter, reply, local, out));
                self.settle_layouts(now, out);
            }
            Input::Poisoned(reason) => {
                for waiter in self.replica.poison(reason.clone()) {
                    let refused = ReplicaReply::Refused(Refusal::Poisoned(reason.clone()));
                    tell(waiter, refused, &mut self.local, out);
                }
            }
            Input::Up(node) => {
                // Whoever is in a layout is greeted, and so hears if it knows others; and who has seen one change greets all, for he
                // may have missed the next.
                let is_stranger = !self.peers.contains_key(&node);
                let is_old = self.layouts.version() > 1;
                if self.reachable.insert(node) && (is_stranger || is_old) {
                    self.tell_layouts(node, out);
                }
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.up = true;
                    peer.standing.reconnected();
                    self.handoff.forget(node);
                    self.compare(node, out);
                    self.on_return(now, node, out);
                    self.upkeep_up(now, node, out);
                }
            }
            Input::Down(node) => {
                self.reachable.remove(&node);
                self.on_down(now, node, out);
            }
            Input::Vitals(vitals) => {
                self.replica.set_full(vitals.full());
                self.vitals = *vitals;
                self.wall.tell(now, self.vitals.clock_ms);
                self.replica.moment = self.wall.moment(now, skew_max);
                self.on_sweep(now);
            }
            Input::Wake => {}
            Input::Drain => self.draining = true,
        }
        self.on_local(now, out);
        self.on_timers(now, out);
        // Only then, so that neither a stream of inputs nor the progress that a slice makes itself drives the next.
        if is_wake {
            self.on_jobs(now, out);
            self.on_handoff(now, out);
            self.on_upkeep(now, out);
            self.on_local(now, out);
            if self.sweep_at.is_some_and(|at| at <= now) {
                self.on_sweep(now);
            }
        }
        self.tell_dropped(out);
        self.tell_damaged(out);
    }

    /// The table of buckets. For tests and for the simulator's checks.
    #[must_use]
    pub fn buckets(&self) -> Vec<BucketEntry> {
        self.buckets.entries()
    }

    /// Sends what was committed since the last call on its way to the disk. The driver calls it when it has handed over all
    /// that waited, and gives what it returns back as an input; then again, until it returns nothing.
    #[must_use = "it has to come back as an input"]
    pub fn submit(&mut self) -> Option<Input> {
        self.replica.submit().map(|event| match event {
            CommitEvent::Progress(progress) => Input::Progress(progress),
            CommitEvent::Poisoned(reason) => Input::Poisoned(reason),
        })
    }

    /// When to call [`Node::handle`] with [`Input::Wake`] if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _, _)| *at);
        let waited = timer.into_iter().chain(self.jobs.wake_at());
        let waited = waited.chain(self.sweep_at).chain(self.handoff_at());
        let waited = waited.chain(self.upkeep_at());
        Some(waited.fold(self.compare_at, Time::min))
    }

    /// How many requests this node coordinates or forwards right now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.conversations.len()
    }

    /// Whether nothing is under way and nothing is waited for but the next comparison of tables. For tests.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.conversations.is_empty()
            && self.timers.is_empty()
            && self.local.is_empty()
            && self.jobs.wake_at().is_none()
            && self.sweep_at.is_none()
            && self.handoff_at().is_none()
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
        // Of each layout by itself. Those that join do not take away what is there.
        for layout in self.layouts.writing() {
            let nodes = layout.nodes();
            let up = nodes.iter().filter(|n| self.is_up(n.id)).count();
            if up < nodes.len() / 2 + 1 {
                return Err(format!(
                    "in reach of {up} of {} nodes, itself included",
                    nodes.len()
                ));
            }
        }
        Ok(())
    }

    /// Whether enough others have told what they remember of this node: it knows whether its store was put back. For the simulator's checks.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.replica.is_verified()
    }

    /// The storage below, for the driver's statistics and for tests.
    #[must_use]
    pub fn storage(&self) -> &S {
        self.replica.storage()
    }

    /// The storage alone, to be closed. What was committed and not submitted goes with it.
    #[must_use]
    pub fn into_storage(self) -> S {
        self.replica.storage
    }

    /// Whether it is on disk that state was lost, where [`Config::unclean`] said so; from then on this node remembers it by
    /// itself.
    #[must_use]
    pub fn is_loss_recorded(&self) -> bool {
        self.replica.is_loss_recorded()
    }

    /// What the vnode of a key has seen. For tests and for the simulator's checks.
    ///
    /// # Errors
    /// If its clock cannot be read.
    pub fn clock_of(&self, bucket: &str, key: &str) -> Result<DotSet, StorageError> {
        self.replica.clock(self.target(bucket, key).vnode)
    }

    /// The number of the last commit of this store that is as durable as an acknowledgement. For the simulator's checks.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.replica.lineage.hello().number
    }

    /// The greatest number of a commit that this node remembers of another's store. For the simulator's checks.
    #[must_use]
    pub fn commits_known_of(&self, node: NodeId) -> u64 {
        self.replica.lineage.known_of(node)
    }

    /// What keeps late copies from a key, in one life of its bucket. For the simulator's checks.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn seen_of(&self, bucket: &str, life: u32, key: &str) -> Result<DotSet, StorageError> {
        let vnode = self.target(bucket, key).vnode;
        let mut seen = self.replica.seen(vnode)?;
        let id = BucketId::new(bucket, life);
        if let Some(residue) = self.replica.residue_of(vnode, id, key.as_bytes()) {
            seen.join(residue);
        }
        Ok(seen)
    }

    /// The record of a key on this replica, encoded, if it has one. For tests and for the simulator's checks.
    #[must_use]
    pub fn stored(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let generation = self.buckets.entry(bucket).generation;
        self.stored_in(bucket, generation, key)
    }

    /// The same for a certain life of the bucket, with the replica set that it has now.
    #[must_use]
    pub fn stored_in(&self, bucket: &str, generation: u32, key: &str) -> Option<Bytes> {
        let target = self.target(bucket, key);
        let id = BucketId::new(bucket, generation);
        let at = keys::record(target.vnode, id, key.as_bytes());
        let stored = self.replica.stored(&at).ok()??;
        Some(stored.encode())
    }

    pub(crate) fn target(&self, bucket: &str, key: &str) -> Target {
        let partition = self.layouts.partition_of(bucket, key.as_bytes());
        let (id, policy) = self.buckets.resolve(bucket);
        Target {
            bucket: bucket.into(),
            key: key.to_owned(),
            id,
            vnode: policy.placement.vnode(partition),
            policy,
        }
    }

    pub(crate) fn fresh_id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        if node == self.config.me {
            return self.replica.poisoned().is_none();
        }
        self.peers.get(&node).is_some_and(|p| p.up)
    }
}

pub(crate) fn remaining_ms(now: Time, deadline: Time) -> u32 {
    // Never 0, which would stand for the default.
    let left: Duration = deadline.since(now);
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}

pub(crate) fn answer(reply_to: ReplyTo, answer: Answer, out: &mut Vec<Output>) {
    out.push(match reply_to {
        ReplyTo::Client(caller) => Output::Answer(caller, answer),
        ReplyTo::Node(node, id) => Output::Send(node, Message::Answer(id, answer)),
    });
}

/// Gives a replica's answer to whoever asked, here or elsewhere.
pub(crate) fn tell(
    waiter: Waiter,
    reply: ReplicaReply,
    local: &mut VecDeque<Local>,
    out: &mut Vec<Output>,
) {
    match waiter {
        Waiter::Own(id) => local.push_back(Local::Reply(id, reply)),
        Waiter::Peer(node, id) => out.push(Output::Send(node, Message::Reply(id, reply))),
    }
}
