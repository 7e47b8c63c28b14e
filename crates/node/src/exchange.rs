//! Exchanges: two replicas of a vnode compare their trees, and join the records that differ.
//!
//! One at a time, begun by this node: it asks itself and the other for the same, so that both sides are read in one way. First the
//! sums of everything; then, as long as they differ, the sums of their parts; then the records of the keys that differ, in
//! both directions.
//!
//! Where this node has lost state, it then also learns what is removed there, and adopts what the other had seen when the exchange
//! began: all of that which was live there is here now, or was kept out for a reason. Nobody else adopts (rule R3): a replica that
//! lost a value without a word would pass on that it has seen it, and no copy of it would be taken any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::DotSet;
use quorate_merkle::Range;
use quorate_protocol::{
    BucketId, EvidenceAsked, KeyRecord, Part, PartsAsked, Reconcile, Removal, Repaired, RootAsked,
    UPKEEP_KEYS_MAX, Upkeep, UpkeepReply, VnodeId,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;
use rand::Rng;

use crate::api::{Event, Output};
use crate::demand::Demand;
use crate::node::Node;
use crate::time::Time;
use crate::trees::Differing;
use crate::upkeep::{Purpose, encoded};

/// How many ranges are asked about at a time: the answer has at most as many times 256 sums, some 300 KB at the worst.
const RANGES_AT_ONCE: usize = 16;
/// The most bytes of records in one message, but for one that is larger by itself.
const BYTES_AT_ONCE: usize = 256 * 1024;
/// The pause before one of the exchanges is made again that could not be finished.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) vnode: VnodeId,
    peer: NodeId,
    /// How often this node had lost state when it began.
    pub(crate) loss: u64,
    /// The latest layout when it began.
    layout: u64,
    pub(crate) step: Step,
    /// What each side has answered in this step.
    answers: BTreeMap<NodeId, UpkeepReply>,
    /// What the other had seen when it began, if this node adopts it.
    seen: Option<DotSet>,
    ranges: Vec<Range>,
    keys: BTreeSet<(BucketId, Bytes)>,
    /// Whether evidence was asked for, and where to go on with that.
    evidence_asked: bool,
    evidence_from: Option<Bytes>,
    /// What is removed of keys whose whole records are to be joined first.
    pub(crate) removed: BTreeMap<(BucketId, Bytes), DotSet>,
    /// Whether this side has values that the other keeps out, having lost state itself: they may be of before the loss.
    pub(crate) doubtful: bool,
    /// Whether somebody asked for it.
    demanded: bool,
}

#[derive(Debug)]
pub(crate) enum Step {
    Root,
    Parts(Vec<Range>),
    Reconcile(Vec<KeyRecord>),
    /// What was sent of each key and what came back, to be joined.
    Join(VecDeque<(KeyRecord, Bytes)>),
    /// What is removed there and not collected yet: whoever adopts what the other has seen has to know it too.
    Evidence,
}

/// What is under way and what comes next.
#[derive(Debug, Default)]
pub(crate) struct Exchanging {
    pub(crate) current: Option<Exchange>,
    /// To be done as soon as possible, before any that come by turn.
    urgent: BTreeSet<(VnodeId, NodeId)>,
    /// Those that were broken off: one of them is made again every [`AFTER_FAILURE`], beside all others. What breaks one off may last, as
    /// a full disk does, and must not hold up the rest.
    again: BTreeSet<(VnodeId, NodeId)>,
    last_again: Option<(VnodeId, NodeId)>,
    again_at: Time,
    /// The last that came by turn.
    last: Option<(VnodeId, NodeId)>,
    pub(crate) next: Time,
    /// What somebody asks for: before all others.
    pub(crate) demands: VecDeque<Demand>,
    /// When each pair was found or made equal last.
    pub(crate) equal: BTreeMap<(VnodeId, NodeId), Time>,
    /// What the exchange under way has cost so far.
    pub(crate) cost: Repaired,
    /// Whether it has brought anything that this node had not.
    pub(crate) learnt: bool,
    /// What all have come to.
    pub(crate) totals: Repaired,
}

impl Exchanging {
    /// The other side is asked something.
    pub(crate) fn asks(&mut self, what: &Upkeep) {
        self.cost.rounds += 1;
        self.cost.bytes += what.bytes();
    }
}

impl<S: Storage> Node<S> {
    pub(crate) fn exchange_at(&self) -> Option<Time> {
        let exchanging = &self.upkeep.exchanging;
        let again = (!exchanging.again.is_empty()).then_some(exchanging.again_at);
        let next = again.map_or(exchanging.next, |at| at.min(exchanging.next));
        exchanging.current.is_none().then_some(next)
    }

    /// Every vnode of this node with each of its other replicas.
    pub(crate) fn pairs(&self) -> Vec<(VnodeId, NodeId)> {
        let mut pairs = Vec::new();
        for vnode in self.own_vnodes() {
            let others = self.primaries(vnode);
            let others = others.into_iter().filter(|n| *n != self.config.me);
            pairs.extend(others.map(|node| (vnode, node)));
        }
        pairs
    }

    /// Where no other replica is, there is nobody to be refilled from.
    fn refill_alone(&mut self, out: &mut Vec<Output>) {
        let losses = self.replica.lineage.losses();
        if losses == 0 {
            return;
        }
        let me = self.config.me;
        for vnode in self.own_vnodes() {
            let alone = self.primaries(vnode).len() <= 1;
            if alone
                && matches!(
                    self.replica.exchanged(vnode, me, None, losses, |_| true),
                    Ok(true)
                )
            {
                out.push(Output::Event(Event::Refilled));
            }
        }
    }

    /// The layouts are others: what is under way asks and counts by those before.
    pub(crate) fn exchange_anew(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some(exchange) = self.upkeep.exchanging.current.take() {
            self.break_off(now, &exchange, out);
        }
        let pairs: BTreeSet<_> = self.pairs().into_iter().collect();
        let exchanging = &mut self.upkeep.exchanging;
        exchanging.urgent.retain(|pair| pairs.contains(pair));
        exchanging.again.retain(|pair| pairs.contains(pair));
        exchanging.equal.retain(|pair, _| pairs.contains(pair));
    }

    /// Has these exchanges made as soon as possible.
    pub(crate) fn exchange_soon(&mut self, which: impl Fn(VnodeId, NodeId) -> bool) {
        let pairs = self.pairs();
        let wanted = pairs
            .into_iter()
            .filter(|(vnode, peer)| which(*vnode, *peer));
        self.upkeep.exchanging.urgent.extend(wanted);
        self.upkeep.exchanging.next = self.now;
    }

    /// Begins the next exchange, if it is time.
    pub(crate) fn on_exchange(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.exchange_at().is_none_or(|at| at > now) {
            return;
        }
        self.refill_alone(out);
        let due = self.upkeep.exchanging.next <= now;
        let demanded = if due { self.demanded(out) } else { None };
        let urgent = self.upkeep.exchanging.urgent.iter().copied();
        let mut urgent = urgent.filter(|_| due);
        let may = |(vnode, peer): &(VnodeId, NodeId)| self.is_up(*peer) && !self.is_paused(*vnode);
        let urgent = urgent.find(may);
        let soon = demanded.or(urgent);
        let next = soon
            .or_else(|| self.broken_off(now))
            .or_else(|| due.then(|| self.by_turn(now)).flatten());
        let Some((vnode, peer)) = next else {
            return;
        };
        let exchanging = &mut self.upkeep.exchanging;
        exchanging.urgent.remove(&(vnode, peer));
        exchanging.again.remove(&(vnode, peer));
        if soon.is_some() {
            exchanging.next = now;
        }
        self.upkeep.exchanging.cost = Repaired::default();
        self.upkeep.exchanging.learnt = false;
        let whole = self.replica.vnode(vnode).map(|_| ());
        let whole = whole.and_then(|()| self.replica.is_whole(vnode));
        let Ok(is_whole) = whole else {
            let broken = Repaired {
                broken: 1,
                ..Repaired::default()
            };
            self.exchange_ended((vnode, peer), demanded.is_some(), broken, out);
            return;
        };
        let seen = !is_whole;
        self.upkeep.exchanging.current = Some(Exchange {
            vnode,
            peer,
            loss: self.replica.lineage.losses(),
            layout: self.layouts.version(),
            step: Step::Root,
            answers: BTreeMap::new(),
            seen: None,
            ranges: Vec::new(),
            keys: BTreeSet::new(),
            evidence_asked: false,
            evidence_from: None,
            removed: BTreeMap::new(),
            doubtful: false,
            demanded: demanded.is_some(),
        });
        for node in [self.config.me, peer] {
            let asked = Upkeep::Root(RootAsked { vnode, seen });
            self.ask_upkeep(now, node, asked, Purpose::Exchange, out);
        }
    }

    /// The next that comes by turn.
    fn by_turn(&mut self, now: Time) -> Option<(VnodeId, NodeId)> {
        let pairs = self.pairs();
        self.pause(now, pairs.len());
        // In order: the replicas of a vnode are named in that of its preference list.
        let may = |(vnode, peer): &(VnodeId, NodeId)| self.is_up(*peer) && !self.is_paused(*vnode);
        let up: BTreeSet<_> = pairs.into_iter().filter(may).collect();
        let next = after(&up, self.upkeep.exchanging.last);
        self.upkeep.exchanging.last = next.or(self.upkeep.exchanging.last);
        next
    }

    /// One that was broken off, if it is time. Those with nodes out of reach are forgotten: all are made when these are back.
    fn broken_off(&mut self, now: Time) -> Option<(VnodeId, NodeId)> {
        let exchanging = &self.upkeep.exchanging;
        if exchanging.again.is_empty() || exchanging.again_at > now {
            return None;
        }
        let again = exchanging.again.iter().copied();
        let again: BTreeSet<_> = again.filter(|(_, peer)| self.is_up(*peer)).collect();
        let may = again
            .iter()
            .copied()
            .filter(|(vnode, _)| !self.is_paused(*vnode));
        let next = after(&may.collect(), exchanging.last_again);
        let exchanging = &mut self.upkeep.exchanging;
        exchanging.again = again;
        exchanging.again_at = now.after(AFTER_FAILURE);
        exchanging.last_again = next;
        next
    }

    /// Sets when the next begins that comes by turn: each pair once in a cycle, with a random share, so that nodes do not fall into step.
    fn pause(&mut self, now: Time, pairs: usize) {
        let cycle = self.config.limits.exchange_cycle;
        let share = cycle.as_micros() as u64 / pairs.max(1) as u64;
        let random = self.upkeep.rng.random_range(0..=share);
        let pause = Duration::from_micros(share / 2 + random);
        self.upkeep.exchanging.next = now.after(pause);
    }

    /// One side has answered.
    pub(crate) fn on_exchanged(
        &mut self,
        now: Time,
        from: NodeId,
        reply: Option<UpkeepReply>,
        out: &mut Vec<Output>,
    ) {
        let Some(mut exchange) = self.upkeep.exchanging.current.take() else {
            return;
        };
        let Some(reply) = reply else {
            return self.break_off(now, &exchange, out);
        };
        if from != self.config.me {
            self.upkeep.exchanging.cost.bytes += reply.bytes();
        }
        exchange.answers.insert(from, reply);
        let needed = match exchange.step {
            Step::Reconcile(_) | Step::Join(_) | Step::Evidence => 1,
            _ => 2,
        };
        if exchange.answers.len() < needed {
            self.upkeep.exchanging.current = Some(exchange);
            return;
        }
        let mut answers = std::mem::take(&mut exchange.answers);
        let (mine, theirs) = (
            answers.remove(&self.config.me),
            answers.remove(&exchange.peer),
        );
        let step = std::mem::replace(&mut exchange.step, Step::Root);
        let goes_on = match (step, mine, theirs) {
            (
                Step::Root,
                Some(UpkeepReply::Root(mine, _)),
                Some(UpkeepReply::Root(theirs, seen)),
            ) => match seen.map(|seen| DotSet::decode(&seen)) {
                Some(Err(_)) => false,
                seen => {
                    exchange.seen = seen.and_then(Result::ok);
                    let seen = exchange.seen.clone();
                    self.replica.filter = seen.map(|seen| (exchange.vnode, seen));
                    if mine != theirs {
                        exchange.ranges.push(Range::ALL);
                    }
                    true
                }
            },
            (
                Step::Parts(ranges),
                Some(UpkeepReply::Parts(mine)),
                Some(UpkeepReply::Parts(theirs)),
            ) => compare(&mut exchange, &ranges, &mine, &theirs),
            (Step::Reconcile(sent), _, Some(UpkeepReply::Records(records))) => {
                if records.len() == sent.len() {
                    return self.join_soon(now, exchange, sent.into_iter().zip(records), out);
                }
                false
            }
            (Step::Evidence, _, Some(UpkeepReply::Evidence(removals, next))) => {
                if !self.take_evidence(&mut exchange, removals) {
                    return self.break_off(now, &exchange, out);
                }
                exchange.evidence_from = next.clone();
                if !exchange.keys.is_empty() {
                    return self.go_on(now, exchange, out);
                }
                match next {
                    Some(next) => self.ask_evidence(now, exchange, Some(next), out),
                    None => self.complete(now, &exchange, out),
                }
                return;
            }
            _ => false,
        };
        if !goes_on {
            return self.break_off(now, &exchange, out);
        }
        self.go_on(now, exchange, out);
    }

    /// Takes the next step, or ends.
    pub(crate) fn go_on(&mut self, now: Time, mut exchange: Exchange, out: &mut Vec<Output>) {
        let (me, vnode, peer) = (self.config.me, exchange.vnode, exchange.peer);
        let enough = exchange.keys.len() >= UPKEEP_KEYS_MAX;
        if !exchange.ranges.is_empty() && !enough {
            let at = exchange.ranges.len().saturating_sub(RANGES_AT_ONCE);
            let ranges = exchange.ranges.split_off(at);
            let asked = PartsAsked {
                vnode,
                ranges: ranges.iter().map(|r| (r.first(), r.depth())).collect(),
            };
            exchange.step = Step::Parts(ranges);
            self.upkeep.exchanging.current = Some(exchange);
            for node in [me, peer] {
                let asked = Upkeep::Parts(asked.clone());
                self.ask_upkeep(now, node, asked, Purpose::Exchange, out);
            }
            return;
        }
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some((bucket, key)) = exchange.keys.pop_first() {
            if !matches!(self.may_touch(bucket, vnode.set), Ok(true)) {
                continue;
            }
            let Ok(record) = self.replica.load(vnode, bucket, &key) else {
                // It is put on record as damaged, and made good.
                exchange.doubtful = true;
                continue;
            };
            let record = encoded(&record);
            bytes += record.len() + key.len();
            records.push(KeyRecord {
                bucket,
                key,
                record,
            });
            if records.len() >= UPKEEP_KEYS_MAX || bytes >= BYTES_AT_ONCE {
                break;
            }
        }
        if !records.is_empty() {
            let asked = Upkeep::Reconcile(Reconcile {
                vnode,
                records: records.clone(),
            });
            exchange.step = Step::Reconcile(records);
            self.upkeep.exchanging.current = Some(exchange);
            self.ask_upkeep(now, peer, asked, Purpose::Exchange, out);
            return;
        }
        if !exchange.ranges.is_empty() {
            return self.go_on(now, exchange, out);
        }
        if exchange.evidence_asked {
            return match exchange.evidence_from.take() {
                Some(from) => self.ask_evidence(now, exchange, Some(from), out),
                None => self.complete(now, &exchange, out),
            };
        }
        // Who keeps a vnode learns what is removed from those who leave it, too: or nobody would know, and nobody vote for it.
        if exchange.seen.is_none() && !self.is_to_be_filled_from(vnode, peer) {
            return self.complete(now, &exchange, out);
        }
        self.ask_evidence(now, exchange, None, out);
    }

    fn ask_evidence(
        &mut self,
        now: Time,
        mut exchange: Exchange,
        from: Option<Bytes>,
        out: &mut Vec<Output>,
    ) {
        let (vnode, peer) = (exchange.vnode, exchange.peer);
        exchange.step = Step::Evidence;
        exchange.evidence_asked = true;
        self.upkeep.exchanging.current = Some(exchange);
        let asked = Upkeep::Evidence(EvidenceAsked { vnode, from });
        self.ask_upkeep(now, peer, asked, Purpose::Exchange, out);
    }

    /// Notes what is removed there. Where that would change what this replica answers, the whole record is joined first, so that what
    /// stands in its place comes before the removal. Returns false if it cannot be understood.
    fn take_evidence(&mut self, exchange: &mut Exchange, removals: Vec<Removal>) -> bool {
        let vnode = exchange.vnode;
        for removal in removals {
            let (bucket, key) = (removal.bucket, removal.key);
            let (Ok(removed), Ok(record)) = (
                DotSet::decode(&removal.dots),
                self.replica.load(vnode, bucket, &key),
            ) else {
                return false;
            };
            let news = self.replica.is_news(vnode, bucket, &key, &record, &removed);
            match news {
                Ok(false) => {}
                Ok(true) => {
                    exchange.keys.insert((bucket, key.clone()));
                    exchange.removed.insert((bucket, key), removed);
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Everything that differed is joined.
    fn complete(&mut self, now: Time, exchange: &Exchange, out: &mut Vec<Output>) {
        let Exchange { vnode, peer, .. } = *exchange;
        self.replica.filter = None;
        let is_same = exchange.loss == self.replica.lineage.losses()
            && exchange.layout == self.layouts.version();
        if exchange.doubtful || !is_same {
            return self.break_off(now, exchange, out);
        }
        let is_whole = self.replica.is_whole(vnode).unwrap_or(true);
        let adopted = exchange.seen.as_ref().filter(|_| !is_whole);
        let placement = self.buckets.placement(vnode.set).cloned();
        let me = self.config.me;
        let enough = |heard: &BTreeSet<NodeId>| {
            placement
                .as_ref()
                .is_some_and(|p| p.covers(vnode.partition, me, heard))
        };
        let loss = exchange.loss;
        let counted = self.replica.exchanged(vnode, peer, adopted, loss, enough);
        match counted.and_then(|refilled| self.filled_from(vnode, peer).map(|()| refilled)) {
            Ok(refilled) => {
                out.push(Output::Event(Event::Exchanged));
                if refilled {
                    out.push(Output::Event(Event::Refilled));
                }
                let cost = std::mem::take(&mut self.upkeep.exchanging.cost);
                if self.layouts.change().is_some() {
                    let rate = self.fill_rate();
                    let took = Duration::from_micros(cost.bytes * 1_000_000 / rate);
                    self.upkeep.exchanging.next = self.upkeep.exchanging.next.max(now.after(took));
                }
                let cost = Repaired {
                    exchanges: 1,
                    ..cost
                };
                self.exchange_ended((vnode, peer), exchange.demanded, cost, out);
            }
            Err(_) => self.break_off(now, exchange, out),
        }
    }

    /// It cannot be finished: again later.
    pub(crate) fn break_off(&mut self, now: Time, exchange: &Exchange, out: &mut Vec<Output>) {
        self.forget_asked(&Purpose::Exchange);
        self.replica.filter = None;
        out.push(Output::Event(Event::ExchangeBroken));
        let exchanging = &mut self.upkeep.exchanging;
        if exchanging.again.is_empty() {
            exchanging.again_at = now.after(AFTER_FAILURE);
        }
        exchanging.again.insert((exchange.vnode, exchange.peer));
        if exchange.demanded {
            // It is tried again a few times, and not all at once.
            exchanging.next = exchanging.next.max(now.after(AFTER_FAILURE));
        }
        let cost = Repaired {
            broken: 1,
            ..std::mem::take(&mut exchanging.cost)
        };
        let pair = (exchange.vnode, exchange.peer);
        self.exchange_ended(pair, exchange.demanded, cost, out);
    }

    /// How many vnodes of this node are being refilled after a loss.
    #[must_use]
    pub fn refilling(&mut self) -> usize {
        if self.replica.lineage.losses() == 0 && self.replica.newcomers.is_empty() {
            return 0;
        }
        let own = self.own_vnodes();
        let is_refilling = |id: &VnodeId| !self.replica.is_whole(*id).unwrap_or(false);
        own.into_iter().filter(is_refilling).count()
    }
}

/// The first pair behind the last, or the first of all.
fn after(
    pairs: &BTreeSet<(VnodeId, NodeId)>,
    last: Option<(VnodeId, NodeId)>,
) -> Option<(VnodeId, NodeId)> {
    let behind = last.and_then(|last| {
        pairs
            .range((Bound::Excluded(last), Bound::Unbounded))
            .next()
    });
    behind.or(pairs.first()).copied()
}

fn compare(exchange: &mut Exchange, ranges: &[Range], mine: &[Part], theirs: &[Part]) -> bool {
    if mine.len() != ranges.len() || theirs.len() != ranges.len() {
        return false;
    }
    let mut differing = Differing::default();
    for (range, (mine, theirs)) in ranges.iter().zip(mine.iter().zip(theirs)) {
        differing.note(*range, mine, theirs);
    }
    exchange.ranges.extend(differing.ranges);
    exchange.keys.extend(differing.keys);
    true
}
