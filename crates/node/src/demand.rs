//! Exchanges that somebody asks for: one partition, now, and an answer that says what differed and what it cost.
//!
//! The node that is asked has one replica of each vnode of the partition exchange with all its others, itself where it
//! is one. That replica takes such exchanges before any others. Where one of them brings something, those before it are made
//! again, for what their peers lack yet.

use std::collections::{BTreeMap, VecDeque};

use quorate_protocol::{
    Answer, EVIDENCE_COUNTED_MAX, OldestExchange, Refusal, Repair, Repaired, ReplicaReply,
    RequestId, Upkeep, UpkeepReply, UpkeepStatus, VnodeId,
};
use quorate_ring::{NodeId, Partition};
use quorate_storage::{Family, Storage};

use crate::api::Output;
use crate::node::{Accepted, Kind, Node, Waiter, answer, tell};
use crate::time::Time;
use crate::upkeep::Purpose;

/// The most demands that wait at a replica; more are refused.
const DEMANDS_MAX: usize = 64;
/// How often a replica exchanges with one other for one demand: writes go on meanwhile, so that there may be a difference each time.
const ATTEMPTS_MAX: u32 = 3;

/// One request for a partition's exchanges.
#[derive(Debug)]
pub(crate) struct RepairConversation {
    /// Which vnodes are at work, and at whom.
    awaited: BTreeMap<VnodeId, NodeId>,
    came_to: Repaired,
}

/// What a replica was asked for.
#[derive(Debug)]
pub(crate) struct Demand {
    vnode: VnodeId,
    waiter: Waiter,
    /// With whom to exchange, in this order.
    left: VecDeque<NodeId>,
    /// Who has all that this replica had learnt by then.
    done: Vec<NodeId>,
    attempts: BTreeMap<NodeId, u32>,
    came_to: Repaired,
}

impl Demand {
    /// An exchange with the first that is left has ended.
    fn ended(&mut self, cost: Repaired, learnt: bool, peer: &str) {
        let broken = cost.broken > 0;
        self.came_to.add(cost);
        let Some(node) = self.left.front().copied() else {
            return;
        };
        let attempts = self.attempts.entry(node).or_default();
        *attempts += 1;
        if broken {
            if *attempts >= ATTEMPTS_MAX {
                self.left.pop_front();
                self.came_to.unfinished.push(format!(
                    "the exchange of partition {} with {peer} broke off {ATTEMPTS_MAX} times",
                    self.vnode.partition.0
                ));
            }
            return;
        }
        self.left.pop_front();
        if learnt {
            let attempts = &self.attempts;
            let again = self.done.drain(..);
            self.left
                .extend(again.filter(|node| attempts[node] < ATTEMPTS_MAX));
        }
        self.done.push(node);
    }
}

impl<S: Storage> Node<S> {
    // ---- Whoever is asked by a client ----

    /// Has one replica of each vnode of the partition exchange with the others.
    pub(crate) fn begin_repair(
        &mut self,
        accepted: Accepted,
        repair: Repair,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if !self.config.upkeep {
            return Err(Refusal::Impossible(
                "this node makes no exchanges".to_owned(),
            ));
        }
        let partitions = self.layouts.partitions();
        if repair.partition >= partitions {
            return Err(Refusal::Impossible(format!(
                "there is no partition {}: they are numbered from 0 to {}",
                repair.partition,
                partitions - 1
            )));
        }
        let partition = Partition(repair.partition);
        let mut conversation = RepairConversation {
            awaited: BTreeMap::new(),
            came_to: Repaired::default(),
        };
        for placement in self.buckets.placements() {
            let seats = placement.primaries(partition);
            if seats.len() < 2 {
                continue;
            }
            let me = self.config.me;
            let own = seats.iter().any(|s| s.node == me).then_some(me);
            let up = || seats.iter().map(|s| s.node).find(|n| self.is_up(*n));
            match own.or_else(up) {
                Some(node) => {
                    let vnode = placement.vnode(partition);
                    conversation.awaited.insert(vnode, node);
                }
                None => conversation.came_to.unfinished.push(format!(
                    "no replica of partition {} is in reach",
                    partition.0
                )),
            }
        }
        let awaited = conversation.awaited.clone();
        let now = accepted.now;
        let id = self.converse(accepted, Kind::Repair(conversation));
        for (vnode, node) in awaited {
            let purpose = Purpose::Repair(id, vnode);
            self.ask_upkeep(now, node, Upkeep::Repair(vnode), purpose, out);
        }
        self.step_repair(id, out);
        Ok(())
    }

    /// A replica has told what its exchanges came to; `None` if it will not.
    pub(crate) fn on_repaired(
        &mut self,
        id: RequestId,
        vnode: VnodeId,
        reply: Option<UpkeepReply>,
        out: &mut Vec<Output>,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Kind::Repair(repair) = &mut conversation.kind else {
            return;
        };
        let node = repair.awaited.remove(&vnode);
        let lost = match (reply, node) {
            (Some(UpkeepReply::Repaired(came_to)), _) => {
                repair.came_to.add(came_to);
                None
            }
            (_, node) => node,
        };
        if let Some(node) = lost {
            let name = self.name_of(node);
            let words = format!(
                "{name}, which was to exchange partition {}, refused or was lost",
                vnode.partition.0
            );
            if let Some(conversation) = self.conversations.get_mut(&id)
                && let Kind::Repair(repair) = &mut conversation.kind
            {
                repair.came_to.unfinished.push(words);
            }
        }
        self.step_repair(id, out);
    }

    fn step_repair(&mut self, id: RequestId, out: &mut Vec<Output>) {
        if let Some(conversation) = self.conversations.get(&id)
            && let Kind::Repair(repair) = &conversation.kind
            && repair.awaited.is_empty()
        {
            self.conclude_repair(id, out);
        }
    }

    /// Answers with what it has come to so far.
    pub(crate) fn conclude_repair(&mut self, id: RequestId, out: &mut Vec<Output>) {
        let Some(conversation) = self.end(id) else {
            return;
        };
        let Kind::Repair(mut repair) = conversation.kind else {
            return;
        };
        for (vnode, node) in repair.awaited {
            repair.came_to.unfinished.push(format!(
                "{} has not told within the time what its exchanges of partition {} came to; they go on",
                self.name_of(node),
                vnode.partition.0
            ));
        }
        answer(conversation.reply_to, Answer::Repaired(repair.came_to), out);
    }

    // ---- A replica ----

    /// This node is to exchange a vnode of its own with all its other replicas.
    pub(crate) fn on_demand(&mut self, waiter: Waiter, vnode: VnodeId, out: &mut Vec<Output>) {
        let refusal = if !self.config.upkeep {
            Some(Refusal::Impossible(
                "this node makes no exchanges".to_owned(),
            ))
        } else if self.upkeep.exchanging.demands.len() >= DEMANDS_MAX {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            tell(waiter, ReplicaReply::Refused(refusal), &mut self.local, out);
            return;
        }
        let others = self.primaries(vnode).into_iter();
        self.upkeep.exchanging.demands.push_back(Demand {
            vnode,
            waiter,
            left: others.filter(|n| *n != self.config.me).collect(),
            done: Vec::new(),
            attempts: BTreeMap::new(),
            came_to: Repaired::default(),
        });
        self.upkeep.exchanging.next = self.now;
    }

    /// The next exchange that is asked for. Answers demands of which nothing is left.
    pub(crate) fn demanded(&mut self, out: &mut Vec<Output>) -> Option<(VnodeId, NodeId)> {
        while let Some(mut demand) = self.upkeep.exchanging.demands.pop_front() {
            while let Some(node) = demand.left.front().copied() {
                if self.is_up(node) {
                    let pair = (demand.vnode, node);
                    self.upkeep.exchanging.demands.push_front(demand);
                    return Some(pair);
                }
                demand.left.pop_front();
                demand.came_to.unfinished.push(format!(
                    "{} has a replica of partition {} and is out of reach",
                    self.name_of(node),
                    demand.vnode.partition.0
                ));
            }
            let reply = Box::new(UpkeepReply::Repaired(demand.came_to));
            let reply = ReplicaReply::Upkeep(reply);
            tell(demand.waiter, reply, &mut self.local, out);
        }
        None
    }

    /// An exchange has ended, after this cost, which counts it as one that ended well or was broken off.
    pub(crate) fn exchange_ended(
        &mut self,
        (vnode, peer): (VnodeId, NodeId),
        demanded: bool,
        cost: Repaired,
        out: &mut Vec<Output>,
    ) {
        let exchanging = &mut self.upkeep.exchanging;
        if cost.broken == 0 {
            exchanging.equal.insert((vnode, peer), self.now);
        }
        exchanging.totals.add(cost.clone());
        if !demanded {
            return;
        }
        let name = self.name_of(peer);
        let learnt = self.upkeep.exchanging.learnt;
        if let Some(demand) = self.upkeep.exchanging.demands.front_mut()
            && demand.vnode == vnode
            && demand.left.front() == Some(&peer)
        {
            demand.ended(cost, learnt, &name);
        }
        // If nothing is left of it, its answer does not wait for the next exchange.
        let _ = self.demanded(out);
    }

    // ---- Status ----

    /// What this node says of its upkeep, but for the keys with evidence: they are counted only for a status that somebody asks
    /// for, since that reads the disk.
    pub fn upkeep_status(&mut self) -> UpkeepStatus {
        let totals = self.upkeep.exchanging.totals.clone();
        let (filled, to_fill) = self.how_far_filled();
        UpkeepStatus {
            exchanges: totals.exchanges,
            exchanges_broken: totals.broken,
            differing_keys: totals.keys,
            exchange_rounds: totals.rounds,
            exchange_bytes: totals.bytes,
            evidence_keys: 0,
            keys_judged: self.replica.late.len() as u64,
            damaged_keys: self.replica.damaged.len() as u64,
            refilling: self.refilling() as u64,
            to_fill: to_fill as u64,
            filled: filled as u64,
            leftovers: self.filling.leftovers.len() as u64,
            unverified: !self.replica.is_verified(),
            oldest: self.oldest_exchange(),
        }
    }

    /// In how many partitions there is evidence that waits to be collected.
    #[must_use]
    pub fn vnodes_with_evidence(&self) -> usize {
        self.replica.pending.len()
    }

    /// How many keys have evidence, up to [`EVIDENCE_COUNTED_MAX`].
    pub(crate) fn evidence_counted(&self) -> u64 {
        let rows =
            self.replica
                .storage()
                .scan(Family::Evidence, &[], None, EVIDENCE_COUNTED_MAX as usize);
        rows.map_or(0, |rows| rows.len() as u64)
    }

    fn oldest_exchange(&self) -> Option<OldestExchange> {
        if !self.config.upkeep {
            return None;
        }
        let equal = &self.upkeep.exchanging.equal;
        let pairs = self.pairs().into_iter();
        let (at, (vnode, peer)) = pairs.map(|pair| (equal.get(&pair).copied(), pair)).min()?;
        Some(OldestExchange {
            partition: vnode.partition.0,
            node: self.name_of(peer),
            seconds: self.now.since(at.unwrap_or(Time::default())).as_secs(),
            never: at.is_none(),
        })
    }
}
