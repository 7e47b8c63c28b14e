//! Collecting evidence in two phases (rules R5, R15): every replica confirms that it durably has a removal, then every replica
//! forgets it. Many keys at a time, and no time says that anything is safe.
//!
//! The first primary of a partition collects soon, the others much later, should some evidence be theirs alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_causal::DotSet;
use quorate_protocol::{
    Merge, Message, Removal, Removals, ReplicaRequest, Upkeep, UpkeepReply, VnodeId,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::node::Node;
use crate::time::Time;
use crate::upkeep::Purpose;

/// The most keys of one round.
const KEYS_AT_ONCE: usize = 32;
/// How much more slowly evidence is collected while requests come: keys that are overwritten all the time would else be collected about
/// as often, which costs a fifth of what the overwrites do.
const SLOWER: u64 = 8;
/// How much longer the others wait than the first.
const LATER: u32 = 20;

/// A round under way.
#[derive(Debug)]
struct Round {
    vnode: VnodeId,
    removals: Vec<Removal>,
    /// Where the next round goes on.
    next: Option<Vec<u8>>,
    awaited: BTreeSet<NodeId>,
    /// What everybody who has answered confirms, by key; `None` before anybody has.
    confirmed: Option<Vec<DotSet>>,
    /// Whether this node was asked itself: last, so that nothing that it lacked is given back to it by others that had not
    /// confirmed yet.
    own: bool,
    forgetting: bool,
}

/// What is under way and what comes next.
#[derive(Debug, Default)]
pub(crate) struct Collecting {
    round: Option<Round>,
    /// When each vnode with evidence has its turn, and where it goes on.
    turns: BTreeMap<VnodeId, (Time, Option<Vec<u8>>)>,
    /// When the budget allows the next round.
    next: Time,
    /// Whether requests came since the last round.
    requested: bool,
}

impl Collecting {
    /// A request came: the next round waits longer.
    pub(crate) fn yield_to_requests(&mut self) {
        self.requested = true;
    }
}

impl<S: Storage> Node<S> {
    pub(crate) fn collect_at(&self) -> Option<Time> {
        let collecting = &self.upkeep.collecting;
        if collecting.round.is_some() {
            return None;
        }
        let is_new = |vnode: &&VnodeId| !collecting.turns.contains_key(vnode);
        if self.replica.pending.iter().any(|vnode| is_new(&vnode)) {
            return Some(Time::default());
        }
        let first = collecting.turns.values().map(|(at, _)| *at).min();
        first.map(|at| at.max(collecting.next))
    }

    /// How long a vnode's evidence waits for its turn.
    fn collect_pause(&self, vnode: VnodeId) -> Duration {
        let is_first = self.primaries(vnode).first() == Some(&self.config.me);
        self.config.limits.collect_after * if is_first { 1 } else { LATER }
    }

    /// Begins the next round, if it is time.
    pub(crate) fn on_collect(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.upkeep.collecting.round.is_some() {
            return;
        }
        let pending = self.replica.pending.iter().copied();
        let new: Vec<VnodeId> = pending
            .filter(|vnode| !self.upkeep.collecting.turns.contains_key(vnode))
            .collect();
        for vnode in new {
            let at = now.after(self.collect_pause(vnode));
            self.upkeep.collecting.turns.insert(vnode, (at, None));
        }
        if now < self.upkeep.collecting.next {
            return;
        }
        let buckets = &self.buckets;
        self.replica
            .trim_residue(|(vnode, bucket, _)| buckets.objection(*bucket, vnode.set).is_some());
        let turns = self.upkeep.collecting.turns.iter();
        let due = turns
            .filter(|(_, (at, _))| *at <= now)
            .map(|(v, (at, _))| (*at, *v));
        let Some((_, vnode)) = due.min() else {
            return;
        };
        let again = now.after(self.collect_pause(vnode));
        let primaries = self.primaries(vnode);
        let (_, from) = self.upkeep.collecting.turns[&vnode].clone();
        let turn = |at| (at, from.clone());
        if !self.is_seat(vnode) || !primaries.iter().all(|n| self.is_up(*n)) {
            self.upkeep.collecting.turns.insert(vnode, turn(again));
            return;
        }
        let began_anew = from.is_none();
        let Ok((removals, next)) = self.replica.evidence_of(vnode, from.clone(), KEYS_AT_ONCE)
        else {
            self.upkeep.collecting.turns.insert(vnode, turn(again));
            return;
        };
        if removals.is_empty() && next.is_none() {
            if began_anew {
                self.replica.pending.remove(&vnode);
                self.upkeep.collecting.turns.remove(&vnode);
            } else {
                self.upkeep.collecting.turns.insert(vnode, (again, None));
            }
            return;
        }
        let (set, all) = (vnode.set, removals);
        let mut removals = Vec::with_capacity(all.len());
        for removal in all {
            if matches!(self.may_touch(removal.bucket, set), Ok(true)) {
                removals.push(removal);
            }
        }
        let asked = Removals {
            vnode,
            keys: removals.clone(),
        };
        self.upkeep.collecting.round = Some(Round {
            vnode,
            removals,
            next,
            awaited: primaries
                .iter()
                .copied()
                .filter(|n| *n != self.config.me)
                .collect(),
            confirmed: None,
            own: false,
            forgetting: false,
        });
        let others: Vec<NodeId> = primaries
            .iter()
            .copied()
            .filter(|n| *n != self.config.me)
            .collect();
        if others.is_empty() {
            return self.confirm_own(now, out);
        }
        for node in others {
            let asked = Upkeep::Confirm(asked.clone());
            self.ask_upkeep(now, node, asked, Purpose::Collect, out);
        }
    }

    /// Sends this node's record of a key to one that could confirm nothing: it still shows what is removed, and takes the removal together with
    /// what stands in its place.
    fn send_record(
        &mut self,
        vnode: VnodeId,
        removal: &Removal,
        to: NodeId,
        out: &mut Vec<Output>,
    ) {
        let Ok(record) = self.replica.load(vnode, removal.bucket, &removal.key) else {
            return;
        };
        if record.is_empty() {
            return;
        }
        let merge = ReplicaRequest::Merge(Merge {
            vnode,
            bucket: removal.bucket,
            key: removal.key.clone(),
            record: record.encode(),
            durable: false,
            hint_for: None,
        });
        let id = self.fresh_id();
        let message = Message::Replica(id, self.upkeep_header(), merge);
        out.push(Output::Send(to, message));
    }

    /// The others have confirmed: now this node.
    fn confirm_own(&mut self, now: Time, out: &mut Vec<Output>) {
        let me = self.config.me;
        let Some(round) = &mut self.upkeep.collecting.round else {
            return;
        };
        round.own = true;
        round.awaited.insert(me);
        let asked = Removals {
            vnode: round.vnode,
            keys: round.removals.clone(),
        };
        self.ask_upkeep(now, me, Upkeep::Confirm(asked), Purpose::Collect, out);
    }

    /// A replica has confirmed, or forgotten, or will not.
    pub(crate) fn on_collected(
        &mut self,
        now: Time,
        from: NodeId,
        reply: Option<UpkeepReply>,
        out: &mut Vec<Output>,
    ) {
        let Some(mut round) = self.upkeep.collecting.round.take() else {
            return;
        };
        round.awaited.remove(&from);
        match reply {
            Some(UpkeepReply::Confirmed(sets))
                if !round.forgetting && sets.len() == round.removals.len() =>
            {
                let sets: Result<Vec<DotSet>, _> =
                    sets.iter().map(|set| DotSet::decode(set)).collect();
                let Ok(sets) = sets else {
                    return self.end_round(now, &round, false, out);
                };
                for (removal, set) in round.removals.iter().zip(&sets) {
                    if set.is_empty() && from != self.config.me {
                        self.send_record(round.vnode, removal, from, out);
                    }
                }
                round.confirmed = Some(match round.confirmed.take() {
                    None => sets,
                    Some(before) => {
                        let both = before.iter().zip(&sets);
                        both.map(|(a, b)| a.intersection(b)).collect()
                    }
                });
            }
            Some(UpkeepReply::Forgotten) if round.forgetting => {}
            // Whoever does not forget now is told again when it is collected anew: it has confirmed, and so has everybody.
            _ if round.forgetting => {}
            _ => return self.end_round(now, &round, false, out),
        }
        if !round.awaited.is_empty() {
            self.upkeep.collecting.round = Some(round);
            return;
        }
        if round.forgetting {
            return self.end_round(now, &round, true, out);
        }
        if !round.own {
            self.upkeep.collecting.round = Some(round);
            return self.confirm_own(now, out);
        }
        let confirmed = round.confirmed.take().unwrap_or_default();
        let keys: Vec<Removal> = round
            .removals
            .iter()
            .zip(confirmed)
            .filter(|(_, dots)| !dots.is_empty())
            .map(|(removal, dots)| Removal {
                dots: dots.encode(),
                ..removal.clone()
            })
            .collect();
        if keys.is_empty() {
            return self.end_round(now, &round, false, out);
        }
        out.push(Output::Event(Event::Collected));
        let asked = Removals {
            vnode: round.vnode,
            keys,
        };
        let primaries = self.primaries(round.vnode);
        round.awaited = primaries.iter().copied().collect();
        round.forgetting = true;
        self.upkeep.collecting.round = Some(round);
        for node in primaries {
            let asked = Upkeep::Forget(asked.clone());
            self.ask_upkeep(now, node, asked, Purpose::Collect, out);
        }
    }

    /// The layouts are others: a round under way has not asked all that it has to (rule R5).
    pub(crate) fn collect_anew(&mut self) {
        self.forget_asked(&Purpose::Collect);
        self.upkeep.collecting.round = None;
    }

    fn end_round(&mut self, now: Time, round: &Round, done: bool, out: &mut Vec<Output>) {
        self.forget_asked(&Purpose::Collect);
        if !done {
            out.push(Output::Event(Event::CollectBroken));
        }
        let rate = self.config.limits.collect_keys_per_second.max(1);
        let slower = match std::mem::take(&mut self.upkeep.collecting.requested) {
            true => SLOWER,
            false => 1,
        };
        let took = Duration::from_micros(round.removals.len() as u64 * slower * 1_000_000 / rate);
        self.upkeep.collecting.next = now.after(took);
        let again = match (&round.next, done) {
            (Some(_), true) => now,
            _ => now.after(self.collect_pause(round.vnode)),
        };
        let turn = (again, round.next.clone());
        self.upkeep.collecting.turns.insert(round.vnode, turn);
    }
}
