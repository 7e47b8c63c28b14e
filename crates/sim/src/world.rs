//! A cluster of production nodes, its network, its disks and its clients, all driven from one seed.

mod accidents;
mod asking;
mod changes;
mod clocks;
mod mutants;
mod rest;
mod status;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{Context, ContextKey, Dot, DotSet, Record};
use quorate_node::{
    BucketDefaults, Caller, Config, Event, Input, Limits, Node, Output, Time, Vitals,
};
use quorate_protocol::{
    Answer, BucketId, Get, Header, List, Message, Options, Quorum, Refusal, Repair, ReplicaReply,
    ReplicaRequest, Request, Upkeep, UpkeepReply, Vote, decode_value,
};
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec};
use quorate_storage::memory::{MemoryDisk, MemoryStorage};
use quorate_storage::{CommitEvent, Family, Progress, Storage, Ticket};
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::clients::{BUCKET, Client, SKEW_US, TTL_MS_MAX, Workload};
use crate::faults::{Accident, Faults};
use crate::history::{Kind, Operation};
use crate::losses::Loss;
use crate::network::{Network, Noticed};
use crate::profile::{Mutant, Profile};

/// How often connections are looked at.
const LOOK_US: u64 = 50_000;
/// How often somebody asks a node how the cluster is.
const STATUS_US: u64 = 700_000;
/// How long a client waits beyond its request's deadline before it gives up on the node.
const CLIENT_SLACK_US: u64 = 500_000;
/// How long the healed cluster has for each step of coming to rest. Everything in flight has arrived or expired by then.
const SETTLE_US: u64 = 6_000_000;
/// How long the healed cluster has to exchange everything twice and to collect evidence, also that which only a later primary has.
const CONVERGE_US: u64 = 45_000_000;
/// How long it takes until every node has compared its table of buckets with every other.
const COMPARE_ALL_US: u64 = 60_000_000;
/// How often nodes are told what time it is.
const PULSE_US: u64 = 1_000_000;
/// How long it takes at the most until a node has dropped what it may.
const SWEEP_US: u64 = 3_000_000;
/// The secret of the cluster's contexts.
const SECRET: [u8; 32] = [7; 32];
/// What no seed reaches: a run that goes on for so long hangs.
const STEPS_MAX: u64 = 5_000_000;

/// What happens next.
#[expect(
    clippy::large_enum_variant,
    reason = "messages are most of what happens, and a box for each costs more"
)]
enum Happening {
    /// A message arrives.
    Deliver {
        from: usize,
        to: usize,
        /// The life of the receiver that it was sent to: a connection does not outlive either end.
        epoch: u64,
        message: Message,
    },
    /// A client's request arrives at a node.
    Ask {
        node: usize,
        epoch: u64,
        caller: Caller,
        header: Header,
        request: Box<Request>,
    },
    /// A client begins its next operation.
    Begin(usize),
    /// A client gets an answer to an operation, or gives up waiting for one.
    Told(usize, u64, Option<Answer>),
    /// A disk has finished what it was given.
    Disk(usize, u64, Ticket),
    /// A node asked to be woken.
    Wake(usize, u64),
    /// Transports look at their connections.
    Look,
    /// Something breaks.
    Accident,
    /// A crashed node starts.
    Start(usize),
    /// An operator replaces the disk of a node that acknowledges nothing any more, and restarts it.
    Repair(usize, u64),
    /// A paused node goes on.
    Resume(usize),
    /// All links work again.
    Mend,
    /// There is room again on the disk of a node, if that is its life still.
    Roomy(usize, u64),
    /// Somebody asks a node how the cluster is.
    AskStatus,
    /// Every node is told what time it is.
    Pulse,
    /// The clock of a node is put right.
    SetClock(usize),
    /// Operators change the layout.
    Change,
}

struct Slot {
    node: Option<Node<MemoryStorage>>,
    disk: MemoryDisk,
    /// Counts the lives of this node.
    epoch: u64,
    paused: bool,
    /// What arrived during the pause.
    missed: Vec<Happening>,
    /// Whether the disk is busy.
    syncing: bool,
    /// Whether the disk has failed in this life of the node.
    poisoned: bool,
    woken_at: Option<u64>,
    /// Whether its disk is nearly full.
    full: bool,
    /// How far its clock is off, in milliseconds: always, and since it jumped.
    offset_ms: i64,
    jump_ms: i64,
    /// For the mutant that starts every life from the same seed.
    seed: [u8; 32],
    /// An older copy of its disk, and when it was taken.
    copy: Option<(u64, MemoryDisk)>,
    /// Whether the next start finds that power was lost, with what was not synced.
    unclean: bool,
}

/// A run in progress.
pub(crate) struct World {
    rng: ChaCha12Rng,
    now: u64,
    sequence: u64,
    /// What is to happen, by time and, within one moment, in the order it was decided.
    /// Boxed, for the map moves its entries about.
    agenda: BTreeMap<(u64, u64), Box<Happening>>,
    slots: Vec<Slot>,
    network: Network,
    faults: Faults,
    /// The accidents of the first phase.
    faults_drawn: Vec<Accident>,
    profile: Profile,
    /// The first; at rest, the last.
    layout: Layout,
    /// What each version was ever seen to be, and the mean time between two changes.
    chosen: BTreeMap<u64, [u8; 32]>,
    change_gap_us: u64,
    fill_bytes_per_second: u64,
    /// Whether operators may say that a node is gone for good.
    may_declare_dead: bool,
    n: usize,
    /// Limits of all nodes.
    hint_bytes_max: u64,
    handoff_bytes_per_second: u64,
    hedge_percent: u32,
    repairs_max: usize,
    pub(crate) workload: Workload,
    clients: Vec<Client>,
    started: u32,
    /// Whether the phase of faults is over.
    healing: bool,
    pub(crate) history: Vec<Operation>,
    /// What each dot names, to see that no dot names two things.
    dots: BTreeMap<Dot, (Bytes, Bytes, Option<u64>)>,
    /// The deadline that was told of each value, the first time it was shown.
    deadlines: BTreeMap<u64, Option<u64>>,
    /// Whether some clock was further off than it may be. Then deadlines mean nothing while it was.
    clocks_jumped: bool,
    losses: Vec<Loss>,
    /// Who has ever lost what was on its disk.
    lost_disks: BTreeSet<usize>,
    pub(crate) violations: Vec<String>,
    pub(crate) events: BTreeMap<Event, u64>,
    pub(crate) accidents: BTreeMap<&'static str, u64>,
    pub(crate) trace: blake3::Hasher,
    steps: u64,
    /// Answers to the requests that the world itself makes at rest.
    own_answers: BTreeMap<u64, Answer>,
    /// Who was asked for the cluster's status and has not answered: by caller, the node, its life, and when.
    status_asked: BTreeMap<u64, (usize, u64, u64)>,
}

/// Callers from here on are the world's own.
const OWN_CALLERS: u64 = 1 << 48;

impl World {
    pub(crate) fn new(seed: u64, profile: &Profile) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let nodes = rng.random_range(3..=5usize);
        let n = nodes.min(3);
        let spec = LayoutSpec {
            partitions: 8,
            replicas: 3,
            nodes: (0..nodes).map(|i| World::spec(i, 1)).collect(),
        };
        let layout = Layout::first(ClusterId(1), spec).expect("a sound layout");
        let faults = Faults::draw(profile, &mut rng);
        let workload = Workload::draw(profile.operations, &mut rng);
        // Sometimes room for a few hints only, and sometimes a trickle.
        let hint_bytes_max = [300, u64::MAX, u64::MAX][rng.random_range(0..3)];
        let handoff_bytes_per_second = [5_000, 10 << 20][rng.random_range(0..2)];
        // Mostly as it is by default, and sometimes a hedge for every read that is late, and room for one repair.
        let hedge_percent = [0, 10, 10, 100][rng.random_range(0..4)];
        let repairs_max = [1, 64][rng.random_range(0..2)];
        let (members, spares) = (nodes, if profile.changes { changes::SPARES } else { 0 });
        let nodes = members + spares;
        // Mostly so slowly that much happens while a layout changes.
        let fill_bytes_per_second = match profile.changes {
            true => [300, 1_000, 5_000, 1 << 30][rng.random_range(0..4)],
            false => 1 << 30,
        };
        let loses = |accident: &Accident| {
            use Accident::{Damage, LosePower, RecordLoss, Rollback};
            matches!(accident, Damage | LosePower | RecordLoss | Rollback)
        };
        let may_declare_dead = profile.changes && !faults.accidents.iter().any(loses);
        let change_gap_us = match profile.changes {
            true => rng.random_range(1_000_000..10_000_000),
            false => 0,
        };
        let mut world = World {
            now: 0,
            sequence: 0,
            agenda: BTreeMap::new(),
            slots: Vec::new(),
            network: Network::new(nodes),
            faults_drawn: faults.accidents.clone(),
            faults,
            profile: profile.clone(),
            layout,
            chosen: BTreeMap::new(),
            change_gap_us,
            fill_bytes_per_second,
            may_declare_dead,
            n,
            hint_bytes_max,
            handoff_bytes_per_second,
            hedge_percent,
            repairs_max,
            clients: (0..workload.clients).map(Client::new).collect(),
            workload,
            started: 0,
            healing: false,
            history: Vec::new(),
            dots: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            clocks_jumped: false,
            losses: Vec::new(),
            lost_disks: BTreeSet::new(),
            violations: Vec::new(),
            events: BTreeMap::new(),
            accidents: BTreeMap::new(),
            trace: blake3::Hasher::new(),
            steps: 0,
            own_answers: BTreeMap::new(),
            status_asked: BTreeMap::new(),
            rng,
        };
        for i in 0..nodes {
            let mut seed = [0; 32];
            world.rng.fill_bytes(&mut seed);
            let most = (SKEW_US / 2_000) as i64;
            let offset_ms = world.rng.random_range(-most..=most);
            world.slots.push(Slot {
                node: None,
                disk: MemoryDisk::new(),
                epoch: 0,
                paused: false,
                missed: Vec::new(),
                syncing: false,
                poisoned: false,
                woken_at: None,
                full: false,
                offset_ms,
                jump_ms: 0,
                seed,
                copy: None,
                unclean: false,
            });
            world.start(i);
        }
        world.plan(LOOK_US, Happening::Look);
        world.plan(STATUS_US, Happening::AskStatus);
        world.plan(PULSE_US, Happening::Pulse);
        for client in 0..world.clients.len() {
            let pause = 400_000 + world.workload.pause_us(&mut world.rng);
            world.plan(pause, Happening::Begin(client));
        }
        world.plan_accident();
        world.plan_change();
        world
    }

    /// The first phase: clients at work, and things breaking.
    pub(crate) fn run_faults(&mut self) {
        while self.history.len() < self.workload.operations as usize && self.step() {}
    }

    /// The second phase: everything works again, and all must come to rest.
    pub(crate) fn run_healing(&mut self) {
        self.healing = true;
        self.faults = Faults {
            os_durability: self.faults.os_durability,
            ..Faults::none()
        };
        self.network.mend();
        for node in 0..self.slots.len() {
            if self.slots[node].paused {
                self.resume(node);
            }
            // A node whose disk failed is restarted on a sound one, as an operator would.
            if self.slots[node].poisoned && self.slots[node].node.is_some() {
                self.crash(node, !self.faults.os_durability);
            }
            if self.slots[node].node.is_none() {
                self.start(node);
            }
            self.slots[node].jump_ms = 0;
            self.fill_disk(node, false);
        }
        if self.profile.changes {
            self.finish_change();
        }
        self.run_for(SETTLE_US);
        if self.workload.ttls > 0.0 {
            self.run_for(TTL_MS_MAX * 1_000 + 2 * SKEW_US + SWEEP_US);
        }
        if self.drops() > 0 {
            // A word of a drop may have been lost on a link that worked, and each node compares tables with one other at a
            // time.
            self.run_for(COMPARE_ALL_US);
        }
    }

    /// How many drops of the bucket were begun.
    fn drops(&self) -> u32 {
        let busy = self.clients.iter().filter_map(|c| c.busy.as_ref());
        let all = self.history.iter().chain(busy);
        all.filter(|op| op.kind == Kind::Drop).count() as u32
    }

    /// How many replicas each key has.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The virtual time so far.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    // ---- The agenda ----

    fn plan(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        let at = self.now.saturating_add(delay);
        self.agenda.insert((at, self.sequence), Box::new(happening));
    }

    fn run_for(&mut self, duration: u64) {
        let until = self.now + duration;
        while self
            .agenda
            .first_key_value()
            .is_some_and(|((at, _), _)| *at <= until)
        {
            if !self.step() {
                return;
            }
        }
        self.now = until;
    }

    fn step(&mut self) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.violations
                .push(format!("the run does not end: {STEPS_MAX} steps"));
            return false;
        }
        let Some(((at, _), happening)) = self.agenda.pop_first() else {
            return false;
        };
        self.now = at;
        self.happen(*happening);
        true
    }

    fn happen(&mut self, happening: Happening) {
        // What concerns a paused node waits until it goes on.
        let concerns = match &happening {
            Happening::Deliver { to, .. } => Some(*to),
            Happening::Ask { node, .. } => Some(*node),
            Happening::Disk(node, ..) | Happening::Wake(node, ..) | Happening::Roomy(node, ..) => {
                Some(*node)
            }
            _ => None,
        };
        if let Some(slot) = concerns.map(|node| &mut self.slots[node])
            && slot.paused
        {
            slot.missed.push(happening);
            return;
        }
        match happening {
            Happening::Deliver {
                from,
                to,
                epoch,
                message,
            } => self.deliver(from, to, epoch, message),
            Happening::Ask {
                node,
                epoch,
                caller,
                header,
                request,
            } => {
                if self.alive(node) == Some(epoch) {
                    let request = self.mutate_request(*request);
                    self.note(b"ask", node, caller.0);
                    self.input(node, Input::Request(caller, header, request));
                }
            }
            Happening::Begin(client) => self.begin(client),
            Happening::Told(client, id, answer) => self.told(client, id, answer),
            Happening::Disk(node, epoch, ticket) => self.disk_done(node, epoch, ticket),
            Happening::Wake(node, epoch) => {
                // One that was planned before an earlier one took its place is over.
                let is_due = self.slots[node].woken_at.is_some_and(|at| at <= self.now);
                if is_due && self.alive(node) == Some(epoch) {
                    self.slots[node].woken_at = None;
                    self.input(node, Input::Wake);
                }
            }
            Happening::Look => self.look(),
            Happening::Accident => {
                if !self.healing {
                    self.accident();
                    self.plan_accident();
                }
            }
            Happening::Change => {
                if !self.healing {
                    self.change();
                }
            }
            Happening::Start(node) => {
                if self.slots[node].node.is_none() {
                    self.start(node);
                }
            }
            Happening::Repair(node, epoch) => {
                if self.alive(node) == Some(epoch) {
                    self.crash(node, !self.faults.os_durability);
                    self.start(node);
                }
            }
            Happening::Resume(node) => self.resume(node),
            Happening::Mend => self.network.mend(),
            Happening::Roomy(node, epoch) => {
                if self.alive(node) == Some(epoch) {
                    self.fill_disk(node, false);
                }
            }
            Happening::AskStatus => self.ask_status(),
            Happening::Pulse => self.pulse_all(),
            Happening::SetClock(node) => {
                self.slots[node].jump_ms = 0;
                self.pulse(node);
            }
        }
    }

    fn note(&mut self, what: &[u8], which: usize, number: u64) {
        self.trace.update(what);
        self.trace.update(&self.now.to_be_bytes());
        self.trace.update(&(which as u64).to_be_bytes());
        self.trace.update(&number.to_be_bytes());
    }

    // ---- Nodes ----

    fn alive(&self, node: usize) -> Option<u64> {
        let slot = &self.slots[node];
        slot.node.as_ref().map(|_| slot.epoch)
    }

    fn start(&mut self, i: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        if self.profile.mutant == Some(Mutant::ReuseCounter) {
            seed = self.slots[i].seed;
        }
        let config = self.config(i);
        let storage = self.slots[i].disk.open();
        let node = Node::new(config, self.layout.clone(), storage, seed).expect("a sound node");
        let slot = &mut self.slots[i];
        slot.node = Some(node);
        slot.unclean = false;
        slot.epoch += 1;
        slot.syncing = false;
        slot.poisoned = false;
        slot.woken_at = None;
        slot.full = false;
        self.network.forget(i);
        self.note(b"start", i, 0);
        self.pulse(i);
    }

    fn config(&self, i: usize) -> Config {
        Config {
            me: NodeId(i as u64),
            secret: ContextKey::new(&SECRET),
            defaults: BucketDefaults::default(),
            // Small, so that what fits into one slice elsewhere takes several here, with other things in between.
            limits: Limits {
                slice_units: 10,
                ttl_skew_max: Duration::from_micros(SKEW_US),
                hint_bytes_max: self.hint_bytes_max,
                hedge_percent: self.hedge_percent,
                repairs_max: self.repairs_max,
                handoff_bytes_per_second: self.handoff_bytes_per_second,
                exchange_cycle: Duration::from_secs(5),
                verify_cycle: Duration::from_secs(10),
                fill_bytes_per_second: self.fill_bytes_per_second,
                ..Limits::default()
            },
            upkeep: true,
            unclean: self.slots[i].unclean,
        }
    }

    /// A node over what is on a disk, to look at it.
    fn peek(&self, i: usize, disk: &MemoryDisk) -> Node<MemoryStorage> {
        let config = Config {
            unclean: false,
            ..self.config(i)
        };
        let storage = disk.copy().open();
        Node::new(config, self.layout.clone(), storage, [0; 32]).expect("a sound node")
    }

    /// Stops a node at once. With `power` gone, what is not synced is lost but for a prefix of it.
    fn crash(&mut self, i: usize, power: bool) {
        let pending = self.slots[i].disk.pending();
        let keep = self
            .rng
            .random_range(0..=pending.last.0 - pending.progress.synced.0);
        let slot = &mut self.slots[i];
        slot.node = None;
        slot.paused = false;
        slot.missed.clear();
        if power {
            slot.disk.crash(keep as usize);
        } else {
            slot.disk.kill();
        }
        self.note(b"crash", i, keep);
    }

    fn resume(&mut self, i: usize) {
        self.slots[i].paused = false;
        for happening in std::mem::take(&mut self.slots[i].missed) {
            self.plan(0, happening);
        }
    }

    fn input(&mut self, i: usize, input: Input) {
        let Some(node) = self.slots[i].node.as_mut() else {
            return;
        };
        let mut out = Vec::new();
        node.handle(Time(self.now), input, &mut out);
        for output in out {
            self.output(i, output);
        }
        self.after_input(i);
    }

    fn after_input(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        let Some(node) = &slot.node else {
            return;
        };
        if let Some(Time(at)) = node.wake_at()
            && slot.woken_at.is_none_or(|planned| at < planned)
        {
            slot.woken_at = Some(at);
            let epoch = slot.epoch;
            let delay = at.saturating_sub(self.now);
            self.plan(delay, Happening::Wake(i, epoch));
        }
        self.plan_sync(i);
    }

    fn output(&mut self, i: usize, output: Output) {
        match output {
            Output::Send(to, message) => self.send(i, to.0 as usize, message),
            Output::Answer(Caller(caller), answer) => {
                // It may have come from the coordinator of a request that was passed on.
                self.check_deadlines(i, &answer, self.faults.late_ms());
                if caller >= OWN_CALLERS {
                    self.check_status(i, caller, &answer);
                    self.own_answers.insert(caller, answer);
                    return;
                }
                let client = (caller % self.clients.len() as u64) as usize;
                let id = caller / self.clients.len() as u64;
                let Some(answer) = self.open_account(client, id, answer) else {
                    return;
                };
                self.check_copies(client, id, &answer);
                let answer = self.mutate_answer(client, answer);
                let delay = self.delay();
                self.plan(delay, Happening::Told(client, id, Some(answer)));
            }
            Output::Event(event) => *self.events.entry(event).or_default() += 1,
            // Not asked for.
            Output::Step(_) | Output::Slow(_) => {}
        }
    }

    // ---- Disks ----

    fn plan_sync(&mut self, i: usize) {
        let (pending, epoch) = (self.slots[i].disk.pending(), self.slots[i].epoch);
        let committed = pending.last;
        let done = if self.faults.os_durability {
            committed == pending.progress.written && pending.sync_asked <= pending.progress.synced
        } else {
            committed == pending.progress.synced
        };
        if self.slots[i].syncing || self.slots[i].poisoned || done {
            return;
        }
        if self.profile.mutant == Some(Mutant::AckBeforeSync) {
            let lie = Progress {
                written: committed,
                synced: committed,
            };
            self.slots[i].syncing = true;
            let delay = self.sync_delay();
            self.plan(delay, Happening::Disk(i, epoch, committed));
            self.input(i, Input::Progress(lie));
            return;
        }
        self.slots[i].syncing = true;
        let delay = self.sync_delay();
        self.plan(delay, Happening::Disk(i, epoch, committed));
    }

    fn sync_delay(&mut self) -> u64 {
        if self.rng.random_bool(self.faults.sync_stall) {
            self.rng.random_range(0..1_000_000)
        } else {
            self.rng.random_range(50..=self.faults.sync_us_max)
        }
    }

    fn disk_done(&mut self, i: usize, epoch: u64, ticket: Ticket) {
        if self.alive(i) != Some(epoch) {
            return;
        }
        self.slots[i].syncing = false;
        let disk = self.slots[i].disk.clone();
        self.note(b"disk", i, ticket.0);
        let mut event = disk.write_up_to(ticket);
        let asked = disk.pending().sync_asked > disk.pending().progress.synced;
        if !self.faults.os_durability || asked || self.rng.random_bool(0.1) {
            // Only here, so that no failure is left over for when everything is healed.
            if self.rng.random_bool(self.faults.sync_failure) {
                disk.fail_next_sync();
            }
            event = disk.sync_up_to(ticket);
        }
        match event {
            CommitEvent::Progress(progress) => {
                if self.profile.mutant == Some(Mutant::AckBeforeSync) {
                    self.plan_sync(i); // Already told.
                } else {
                    self.input(i, Input::Progress(progress));
                }
            }
            CommitEvent::Poisoned(reason) => {
                *self.accidents.entry("failed sync").or_default() += 1;
                self.input(i, Input::Poisoned(reason));
                let delay = self.rng.random_range(500_000..5_000_000);
                self.slots[i].poisoned = true;
                self.plan(delay, Happening::Repair(i, epoch));
            }
        }
    }

    // ---- The network ----

    fn delay(&mut self) -> u64 {
        if self.rng.random_bool(self.faults.straggler) {
            self.rng.random_range(0..2_000_000)
        } else {
            self.rng.random_range(100..=self.faults.delay_us_max)
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.check_dots(&message);
        if let Message::Answer(_, answer) = &message {
            self.check_deadlines(from, answer, 0);
        }
        let Some(epoch) = self.alive(to) else {
            return;
        };
        // A request that is passed on changes things each time it arrives, and rides on a stream that delivers once.
        let once = matches!(message, Message::Request(..));
        let copies = 1 + usize::from(!once && self.rng.random_bool(self.faults.duplication));
        for _ in 0..copies {
            if self.rng.random_bool(self.faults.loss) {
                continue;
            }
            let is_about_layouts = matches!(
                &message,
                Message::Replica(_, _, ReplicaRequest::Layout(_))
                    | Message::Reply(_, ReplicaReply::Layout(_))
            );
            if is_about_layouts && self.rng.random_bool(self.faults.layouts_loss) {
                continue;
            }
            let delay = self.delay();
            let message = message.clone();
            self.plan(
                delay,
                Happening::Deliver {
                    from,
                    to,
                    epoch,
                    message,
                },
            );
        }
    }

    fn deliver(&mut self, from: usize, to: usize, epoch: u64, message: Message) {
        if self.alive(to) != Some(epoch) || !self.network.carries(from, to) {
            return;
        }
        // Through the bytes, as on the wire.
        let bytes = message.encode();
        self.note(b"deliver", to, from as u64);
        self.trace.update(&bytes);
        let message = match Message::decode(&bytes) {
            Ok(message) => message,
            Err(error) => {
                self.violations
                    .push(format!("a message that was sent is {error}"));
                return;
            }
        };
        if let Some(message) = self.mutate_message(from, to, message) {
            self.input(to, Input::Message(NodeId(from as u64), message));
        }
    }

    fn look(&mut self) {
        self.plan(LOOK_US, Happening::Look);
        if self.profile.changes {
            self.check_layouts();
        }
        let lives: Vec<Option<u64>> = (0..self.slots.len())
            .map(|i| self.alive(i).filter(|_| !self.slots[i].paused))
            .collect();
        let noticed = self.network.look(self.now, &mut self.rng, |i| lives[i]);
        for (a, b, what) in noticed {
            let peer = NodeId(b as u64);
            self.note(b"look", a, b as u64);
            match what {
                Noticed::Up => self.input(a, Input::Up(peer)),
                Noticed::Down => self.input(a, Input::Down(peer)),
            }
        }
    }
}
