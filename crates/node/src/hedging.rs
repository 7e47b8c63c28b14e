//! Hedged reads: one more replica is asked where one that was asked is overdue.
//!
//! A replica is overdue once it has taken longer than is expected of it (`ranking`): the slow tail of its own answers, or a sudden silence.
//! The read then asks the best of the replicas that can take its place, and goes on with whichever answers first; see Dean and
//! Barroso, "The tail at scale" (2013). A read is hedged once. What is slow because there is too much to do must not be given more: hedges are paid from a
//! budget, into which every read pays a share of one, and which holds a small burst. Where it is empty, a read waits for its patience, after which it
//! asks all.
//!
//! A replica that is not among the best is asked no more, so nobody would learn that it is quick again. Therefore a small share of reads also *probe* one:
//! it is asked for the digest of the same key, and nobody waits for it. A probe has a number of its own and is no part of the read, so
//! that no read is slower, or shows anything else, for having probed.

use std::time::Duration;

use quorate_protocol::{Header, Message, Read, ReplicaRequest, RequestId};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::config::Limits;
use crate::node::{Kind, Node, Timer, remaining_ms};
use crate::ranking::{Errand, Tier};
use crate::target::Target;
use crate::time::Time;

/// What a hedge costs, in what a read pays times its percents.
const PRICE: u64 = 100;
/// How long a node is not asked until it is probed. A second is the time that a node which has just come back stands idle at the most, and a
/// probe a second is nothing to any node.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// One read of so many probes, at the most: with few reads there is little to be gained by a good order.
const PROBE_SHARE: u32 = 32;

/// What may be spent on extra asks.
#[derive(Debug)]
pub(crate) struct Hedging {
    budget: u64,
    /// Reads since the last probe.
    unprobed: u32,
}

impl Hedging {
    pub(crate) fn new(limits: &Limits) -> Self {
        Hedging {
            budget: Hedging::burst(limits),
            unprobed: 0,
        }
    }

    fn burst(limits: &Limits) -> u64 {
        match limits.hedge_percent {
            0 => 0,
            _ => u64::from(limits.hedge_burst) * PRICE,
        }
    }

    /// A read pays its share.
    pub(crate) fn pay_in(&mut self, limits: &Limits) {
        let paid = self.budget.saturating_add(limits.hedge_percent.into());
        self.budget = paid.min(Hedging::burst(limits));
    }

    /// Takes the price of one hedge, if it is there.
    fn pay(&mut self) -> bool {
        let left = self.budget.checked_sub(PRICE);
        self.budget = left.unwrap_or(self.budget);
        left.is_some()
    }
}

impl<S: Storage> Node<S> {
    /// A read has asked those it needs: sets the first of its timers, and probes one that it did not ask, if it is time.
    pub(crate) fn watch_read(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        self.hedging.pay_in(&self.config.limits);
        self.hedging.unprobed = self.hedging.unprobed.saturating_add(1);
        let Some(Kind::Read(read)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        if self.hedging.unprobed >= PROBE_SHARE
            && let Some(node) = self.to_probe(now, read.others())
        {
            let target = read.target.clone();
            self.probe(now, node, &target, out);
        }
        self.set_read_timer(now, id);
    }

    /// Sets the timer of a read: for when somebody it asked is overdue, or for the end of its patience, whichever comes first. Patience never ends
    /// before somebody is overdue.
    fn set_read_timer(&mut self, now: Time, id: RequestId) {
        let Some(Kind::Read(read)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let overdue = self.overdue_at(read.awaited());
        let conversation = &self.conversations[&id];
        let patience = conversation.began.after(self.config.limits.read_patience);
        let may_hedge = !read.is_hedged() && !read.others().is_empty();
        let timer = match overdue {
            Some(at) if may_hedge && at < patience => (at, Timer::Hedge),
            Some(at) => (at.max(patience), Timer::Patience),
            None => (patience, Timer::Patience),
        };
        // One that is in the past would be due in this same moment again.
        let timer = (timer.0.max(now), timer.1);
        if timer.0 >= conversation.deadline {
            return;
        }
        if let Some(Kind::Read(read)) = self.conversations.get_mut(&id).map(|c| &mut c.kind) {
            self.timers.insert((timer.0, id, timer.1));
            read.timer = Some(timer);
        }
    }

    /// When the first of these is overdue.
    fn overdue_at(&self, awaited: impl Iterator<Item = (NodeId, Time)>) -> Option<Time> {
        let due = awaited.map(|(node, at)| at.after(self.expected(node, Errand::Read)));
        due.min()
    }

    /// Whether the patience of a read has not ended yet, since nobody it waits for is overdue: answers from another region, or of nodes
    /// that are known to be slow, take longer than the patience with which reads begin. It is then set anew.
    pub(crate) fn is_patient(&mut self, now: Time, id: RequestId) -> bool {
        let Some(Kind::Read(read)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return false;
        };
        let waits = self
            .overdue_at(read.awaited())
            .is_some_and(|overdue| overdue > now);
        if waits {
            self.set_read_timer(now, id);
        }
        waits
    }

    /// Somebody may be overdue.
    pub(crate) fn on_hedge(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        self.hedge_read(now, id, out);
        self.set_read_timer(now, id);
    }

    fn hedge_read(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Kind::Read(read)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let overdue: Vec<NodeId> = read
            .awaited()
            .filter(|(node, at)| at.after(self.expected(*node, Errand::Read)) <= now)
            .map(|(node, _)| node)
            .collect();
        if overdue.is_empty() {
            return;
        }
        let others = self.ranked_nodes(read.others().iter().copied(), Errand::Read);
        // One that is silent itself is no help.
        let mut others = others.into_iter().filter(|(tier, _)| *tier != Tier::Silent);
        let other = others.find(|(_, node)| read.can_replace(*node, &overdue));
        let affordable = other.is_none() || self.hedging.pay();
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Kind::Read(read) = &mut conversation.kind else {
            return;
        };
        let Some((_, node)) = other.filter(|_| affordable) else {
            read.give_up_hedging();
            if !affordable {
                out.push(Output::Event(Event::HedgeRefused));
            }
            return;
        };
        let asks = vec![read.hedge(now, node)];
        out.push(Output::Event(Event::HedgeSent));
        if let Some(log) = &mut conversation.log {
            log.asked(now, &asks);
        }
        let (deadline, target) = (conversation.deadline, read.target.clone());
        self.ask(now, id, deadline, &target, asks, out);
    }

    /// Sets the timer for when the coordinator of a read that was passed on is overdue.
    pub(crate) fn set_forward_timer(&mut self, now: Time, id: RequestId) {
        let Some(Kind::Forward(forward)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let (Some(at), false) = (forward.at(), forward.others().is_empty()) else {
            return;
        };
        let overdue = forward.sent_at.after(self.expected(at, forward.errand()));
        let timer = (overdue.max(now), Timer::Hedge);
        let old = forward.timer;
        if let Some(Kind::Forward(forward)) = self.conversations.get_mut(&id).map(|c| &mut c.kind) {
            forward.timer = Some(timer);
            if let Some((at, timer)) = old {
                self.timers.remove(&(at, id, timer));
            }
            self.timers.insert((timer.0, id, timer.1));
        }
    }

    /// The coordinator of a read that was passed on may be overdue: another is asked too.
    pub(crate) fn hedge_forward(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Kind::Forward(forward)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let errand = forward.errand();
        let Some(at) = forward.at().filter(|_| !forward.others().is_empty()) else {
            return;
        };
        if forward.sent_at.after(self.expected(at, errand)) > now {
            return self.set_forward_timer(now, id);
        }
        let others = self.ranked_nodes(forward.others().iter().copied(), errand);
        let best = others.first().filter(|(tier, _)| *tier != Tier::Silent);
        let best = best.map(|(_, node)| *node);
        let affordable = best.is_none() || self.hedging.pay();
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Kind::Forward(forward) = &mut conversation.kind else {
            return;
        };
        forward.hedge(best.filter(|_| affordable));
        let Some(node) = best.filter(|_| affordable) else {
            if !affordable {
                out.push(Output::Event(Event::HedgeRefused));
            }
            return;
        };
        let header = Header {
            deadline_ms: remaining_ms(now, conversation.deadline),
            ..forward.header.clone()
        };
        let message = Message::Request(id, header, forward.request.clone());
        if let Some(log) = &mut conversation.log {
            log.passed_on(now, node);
        }
        self.note_asked(node, id, errand);
        out.push(Output::Send(node, message));
        out.push(Output::Event(Event::HedgeSent));
    }

    /// Which of these has not been asked for long.
    fn to_probe(&self, now: Time, others: &[NodeId]) -> Option<NodeId> {
        let is_due = |node: &&NodeId| {
            let peer = self.peers.get(node).filter(|peer| peer.up);
            let read_at = peer.map(|peer| peer.standing.read_at());
            read_at.is_some_and(|at| at.is_none_or(|at| now.since(at) >= PROBE_EVERY))
        };
        others.iter().find(is_due).copied()
    }

    fn probe(&mut self, now: Time, node: NodeId, target: &Target, out: &mut Vec<Output>) {
        self.hedging.unprobed = 0;
        let id = self.fresh_id();
        let read = Read {
            vnode: target.vnode,
            bucket: target.id,
            key: target.key_bytes(),
            digest_only: true,
            hinted: false,
        };
        self.note_asked(node, id, Errand::Read);
        let header = self.header(now, now.after(self.config.limits.timeout));
        let message = Message::Replica(id, header, ReplicaRequest::Read(read));
        out.push(Output::Send(node, message));
        out.push(Output::Event(Event::Probed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_of_reads_and_a_small_burst() {
        let limits = Limits {
            hedge_percent: 10,
            hedge_burst: 3,
            ..Limits::default()
        };
        let mut hedging = Hedging::new(&limits);
        let spend = |hedging: &mut Hedging| (0..1_000).take_while(|_| hedging.pay()).count();
        assert_eq!(spend(&mut hedging), 3);
        for _ in 0..9 {
            hedging.pay_in(&limits);
        }
        assert_eq!(spend(&mut hedging), 0);
        hedging.pay_in(&limits);
        assert_eq!(spend(&mut hedging), 1);
        // What is not spent is not saved up for long.
        for _ in 0..10_000 {
            hedging.pay_in(&limits);
        }
        assert_eq!(spend(&mut hedging), 3);
    }

    #[test]
    fn no_share_buys_nothing() {
        let limits = Limits {
            hedge_percent: 0,
            ..Limits::default()
        };
        let mut hedging = Hedging::new(&limits);
        hedging.pay_in(&limits);
        assert!(!hedging.pay());
    }
}
