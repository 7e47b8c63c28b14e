//! Exchanges: two replicas of a vnode compare their trees, and join the records that differ.
//!
//! One at a time, begun by this node: it asks itself and the other for the same, so that both sides are read in one way. First the
//! sums of everything; then, as long as they differ, the sums of their parts; then the records of the keys that differ, in
//! both directions. When all that differed is joined, this node adopts what the other had seen when the exchange began: all of
//! that which was live there is here now, or was kept out for a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{DotSet, Record};
use quorate_merkle::Range;
use quorate_protocol::{
    BucketId, EvidenceAsked, KeyRecord, Part, PartsAsked, Reconcile, Removal, RootAsked,
    UPKEEP_KEYS_MAX, Upkeep, UpkeepReply, VnodeId,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;
use rand::Rng;

use crate::api::{Event, Output};
use crate::node::Node;
use crate::replica::decode;
use crate::time::Time;
use crate::trees::Differing;
use crate::upkeep::{Purpose, encoded};

/// How many ranges are asked about at a time: the answer has at most as many times 256 sums, some 300 KB at the worst.
const RANGES_AT_ONCE: usize = 16;
/// The most bytes of records in one message, but for one that is larger by itself.
const BYTES_AT_ONCE: usize = 256 * 1024;
/// The pause after an exchange that could not be finished.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// An exchange under way.
#[derive(Debug)]
struct Exchange {
    vnode: VnodeId,
    peer: NodeId,
    /// How often this node had lost state when it began.
    loss: u64,
    step: Step,
    /// What each side has answered in this step.
    answers: BTreeMap<NodeId, UpkeepReply>,
    /// What the other had seen when it began; `None` if the same as this node.
    seen: Option<DotSet>,
    ranges: Vec<Range>,
    keys: BTreeSet<(BucketId, Bytes)>,
    /// Whether evidence was asked for, and where to go on with that.
    evidence_asked: bool,
    evidence_from: Option<Bytes>,
    /// Whether this side has values that the other keeps out, having lost state itself: they may be of before the loss.
    doubtful: bool,
}

#[derive(Debug)]
enum Step {
    Root,
    Parts(Vec<Range>),
    Reconcile(Vec<KeyRecord>),
    /// What is removed there and not collected yet: whoever adopts what the other has seen has to know it too.
    Evidence,
}

/// What is under way and what comes next.
#[derive(Debug, Default)]
pub(crate) struct Exchanging {
    current: Option<Exchange>,
    /// To be done as soon as possible, before any that come by turn.
    urgent: BTreeSet<(VnodeId, NodeId)>,
    /// The last of these that was begun.
    urged: Option<(VnodeId, NodeId)>,
    /// The last that came by turn, and when the next does.
    last: Option<(VnodeId, NodeId)>,
    turn_at: Time,
    /// When the next begins, of either kind.
    next: Time,
}

impl<S: Storage> Node<S> {
    pub(crate) fn exchange_at(&self) -> Option<Time> {
        let exchanging = &self.upkeep.exchanging;
        exchanging.current.is_none().then_some(exchanging.next)
    }

    /// Every vnode of this node with each of its other replicas.
    fn pairs(&self) -> Vec<(VnodeId, NodeId)> {
        let mut pairs = Vec::new();
        for vnode in self.own_vnodes() {
            let others = self.primaries(vnode);
            let others = others.into_iter().filter(|n| *n != self.config.me);
            pairs.extend(others.map(|node| (vnode, node)));
        }
        pairs
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
        let pairs = self.pairs();
        let exchanging = &self.upkeep.exchanging;
        let urgent = exchanging.urgent.iter().copied();
        let mut urgent = urgent.filter(|(_, peer)| self.is_up(*peer));
        // One that is broken off again and again must not keep the others from their turn, be they urgent or not.
        let behind = |pair: &(VnodeId, NodeId)| exchanging.urged.is_none_or(|last| *pair > last);
        let first = urgent.clone().next();
        let urgent = urgent.find(behind).or(first);
        let next = if exchanging.turn_at <= now {
            let last = exchanging.last;
            let up = || pairs.iter().copied().filter(|(_, peer)| self.is_up(*peer));
            let after = up().find(|pair| last.is_none_or(|last| *pair > last));
            let next = after.or_else(|| up().next());
            self.pause(now, pairs.len());
            self.upkeep.exchanging.last = next.or(last);
            next
        } else {
            self.upkeep.exchanging.urged = urgent.or(exchanging.urged);
            urgent
        };
        self.upkeep.exchanging.next = match urgent {
            Some(_) => now,
            None => self.upkeep.exchanging.turn_at,
        };
        let Some((vnode, peer)) = next else {
            return;
        };
        self.upkeep.exchanging.urgent.remove(&(vnode, peer));
        let Ok(state) = self.replica.vnode(vnode) else {
            return;
        };
        let clock = digest(state.seen());
        self.upkeep.exchanging.current = Some(Exchange {
            vnode,
            peer,
            loss: self.replica.lineage.losses(),
            step: Step::Root,
            answers: BTreeMap::new(),
            seen: None,
            ranges: Vec::new(),
            keys: BTreeSet::new(),
            evidence_asked: false,
            evidence_from: None,
            doubtful: false,
        });
        for node in [self.config.me, peer] {
            let asked = Upkeep::Root(RootAsked { vnode, clock });
            self.ask_upkeep(now, node, asked, Purpose::Exchange, out);
        }
    }

    /// Sets when the next begins that comes by turn: each pair once in a cycle, with a random share, so that nodes do not fall into step.
    fn pause(&mut self, now: Time, pairs: usize) {
        let cycle = self.config.limits.exchange_cycle;
        let share = cycle.as_micros() as u64 / pairs.max(1) as u64;
        let random = self.upkeep.rng.random_range(0..=share);
        let pause = Duration::from_micros(share / 2 + random);
        self.upkeep.exchanging.turn_at = now.after(pause);
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
        exchange.answers.insert(from, reply);
        let needed = match exchange.step {
            Step::Reconcile(_) | Step::Evidence => 1,
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
                    let state = self.replica.vnode(exchange.vnode);
                    let refilling = state.is_ok_and(|v| !v.is_refilled(exchange.loss));
                    let seen = exchange.seen.clone().filter(|_| refilling);
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
                self.join_all(&mut exchange, &sent, records, out)
            }
            (Step::Evidence, _, Some(UpkeepReply::Evidence(removals, next))) => {
                let Some(keys) = self.take_evidence(exchange.vnode, removals) else {
                    return self.break_off(now, &exchange, out);
                };
                exchange.keys.extend(keys);
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
    fn go_on(&mut self, now: Time, mut exchange: Exchange, out: &mut Vec<Output>) {
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
        let refilled = self.replica.vnode(vnode);
        if exchange.seen.is_none() && refilled.is_ok_and(|v| v.is_refilled(exchange.loss)) {
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

    /// Joins what is removed there. Returns the keys of which something was removed there that is live here, or never came: whose whole
    /// records are to be joined, so that what stands in its place comes with the removal.
    fn take_evidence(
        &mut self,
        vnode: VnodeId,
        removals: Vec<Removal>,
    ) -> Option<Vec<(BucketId, Bytes)>> {
        let mut keys = Vec::new();
        for removal in removals {
            let removed = DotSet::decode(&removal.dots).ok()?;
            let record = self
                .replica
                .load(vnode, removal.bucket, &removal.key)
                .ok()?;
            let (bucket, key) = (removal.bucket, &removal.key);
            if self
                .replica
                .is_news(vnode, bucket, key, &record, &removed)
                .ok()?
            {
                keys.push((removal.bucket, removal.key));
                continue;
            }
            let theirs = KeyRecord {
                bucket: removal.bucket,
                key: removal.key,
                record: Record::from_parts(Vec::new(), removed).encode(),
            };
            self.reconcile(vnode, &theirs).ok()?;
        }
        Some(keys)
    }

    /// Joins what the other side has told of what it was sent.
    fn join_all(
        &mut self,
        exchange: &mut Exchange,
        sent: &[KeyRecord],
        records: Vec<Bytes>,
        out: &mut Vec<Output>,
    ) -> bool {
        if records.len() != sent.len() {
            return false;
        }
        let refilled = self.replica.vnode(exchange.vnode);
        let refilled = refilled.is_ok_and(|v| v.is_refilled(exchange.loss));
        for (sent, record) in sent.iter().zip(records) {
            if !refilled && let (Ok(mine), Ok(theirs)) = (decode(&sent.record), decode(&record)) {
                let kept_out = kept_out(&mine, &theirs);
                exchange.doubtful |= !kept_out.is_empty();
                self.replica
                    .note_late(exchange.vnode, sent.bucket, &sent.key, &kept_out);
            }
            let theirs = KeyRecord {
                record: record.clone(),
                ..sent.clone()
            };
            // What it tells as live itself is not what it has removed.
            let filter = self.replica.filter.take();
            let joined = self.reconcile(exchange.vnode, &theirs);
            self.replica.filter = filter;
            match joined {
                Ok((_, changed)) => {
                    if changed || sent.record != record {
                        out.push(Output::Event(Event::KeyReconciled));
                    }
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
        if exchange.doubtful || exchange.loss != self.replica.lineage.losses() {
            return self.break_off(now, exchange, out);
        }
        let n = self.primaries(vnode).len();
        // So many that whoever took part in a write by a majority is among them, or is this node.
        let needed = (n - n / 2).min(n.saturating_sub(1));
        let counted = (exchange.loss, needed);
        match self
            .replica
            .exchanged(vnode, peer, exchange.seen.as_ref(), counted)
        {
            Ok(refilled) => {
                out.push(Output::Event(Event::Exchanged));
                if refilled {
                    out.push(Output::Event(Event::Refilled));
                }
            }
            Err(_) => self.break_off(now, exchange, out),
        }
    }

    /// It cannot be finished: again later.
    fn break_off(&mut self, now: Time, exchange: &Exchange, out: &mut Vec<Output>) {
        self.forget_asked(&Purpose::Exchange);
        self.replica.filter = None;
        out.push(Output::Event(Event::ExchangeBroken));
        let exchanging = &mut self.upkeep.exchanging;
        exchanging.urgent.insert((exchange.vnode, exchange.peer));
        exchanging.next = exchanging.next.max(now.after(AFTER_FAILURE));
    }

    /// How many vnodes of this node are being refilled after a loss.
    #[must_use]
    pub fn refilling(&mut self) -> usize {
        let losses = self.replica.lineage.losses();
        if losses == 0 {
            return 0;
        }
        let own = self.own_vnodes();
        let is_refilling = |id: &VnodeId| {
            let vnode = self.replica.vnode_unchecked(*id);
            !vnode.is_ok_and(|v| v.is_refilled(losses))
        };
        own.into_iter().filter(is_refilling).count()
    }
}

/// What is live here and was not taken there.
fn kept_out(mine: &Record, theirs: &Record) -> Vec<quorate_causal::Dot> {
    let mine = mine.live().iter().map(|s| s.span.dot);
    let is_known = |dot: &quorate_causal::Dot| {
        theirs.evidence().contains(*dot) || theirs.live().iter().any(|s| s.span.dot == *dot)
    };
    mine.filter(|dot| !is_known(dot)).collect()
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

/// Names what was seen.
pub(crate) fn digest(seen: &DotSet) -> u128 {
    let hash = blake3::hash(&seen.encode());
    u128::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}
