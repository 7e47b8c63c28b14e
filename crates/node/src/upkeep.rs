//! What a node does for the sake of what it and others hold, unasked by any client: tells how far its store is, exchanges with
//! the other replicas of its vnodes, judges what is missing without explanation, makes damage good, collects evidence.
//!
//! All of it begins on wakes alone, so that requests go first, and is bounded in what is under way. Nothing here is decided
//! by time: time only says when to try.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use quorate_protocol::{
    BucketId, Header, Hello, KeyRecord, Message, Refusal, Removals, ReplicaReply, ReplicaRequest,
    RequestId, UPKEEP_KEYS_MAX, Upkeep, UpkeepReply, VnodeId,
};
use quorate_ring::{NodeId, Partition, ReplicaSetId};
use quorate_storage::{Batch, Family, Storage};
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::api::{Event, Output};
use crate::collect::Collecting;
use crate::exchange::Exchanging;
use crate::jobs::Job;
use crate::judge::{Judging, KeyAt};
use crate::node::{Local, Node, Waiter, tell};
use crate::reconcile::ReconcileJob;
use crate::time::Time;
use crate::trees::PartsJob;
use crate::verify::VerifyJob;

/// How often a node tells the others how far its store is.
const HELLO_EVERY: Duration = Duration::from_secs(1);
/// After so long an answer is taken for lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What was asked of a replica, this node's own among them, and for what.
#[derive(Debug)]
struct Asked {
    of: NodeId,
    until: Time,
    purpose: Purpose,
}

/// What an answer is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Hello,
    Exchange,
    Judge(KeyAt),
    Mend(KeyAt),
    Collect,
    /// For a client's request, this node's own or another's.
    Repair(RequestId, VnodeId),
}

/// What is under way.
#[derive(Debug)]
pub(crate) struct Upkeeping {
    asked: BTreeMap<RequestId, Asked>,
    hello_at: Time,
    pub(crate) exchanging: Exchanging,
    pub(crate) judging: Judging,
    pub(crate) collecting: Collecting,
    /// When the next tree is compared with its records, and which was the last.
    verify_at: Time,
    verified: Option<VnodeId>,
    pub(crate) rng: ChaCha12Rng,
}

impl Upkeeping {
    pub(crate) fn new(rng: ChaCha12Rng) -> Self {
        Upkeeping {
            asked: BTreeMap::new(),
            hello_at: Time::default(),
            exchanging: Exchanging::default(),
            judging: Judging::default(),
            collecting: Collecting::default(),
            verify_at: Time::default(),
            verified: None,
            rng,
        }
    }
}

impl<S: Storage> Node<S> {
    /// A request came: what nobody waits for takes less of the node.
    pub(crate) fn yield_to_requests(&mut self) {
        self.jobs.yield_to_requests();
        self.upkeep.collecting.yield_to_requests();
    }

    /// When there is something to do, unless this node does no upkeep.
    pub(crate) fn upkeep_at(&self) -> Option<Time> {
        if !self.config.upkeep || self.replica.poisoned().is_some() {
            return None;
        }
        let expiry = self.upkeep.asked.values().map(|asked| asked.until);
        let next = expiry
            .chain([self.upkeep.hello_at, self.upkeep.verify_at])
            .chain(self.exchange_at())
            .chain(self.judge_at())
            .chain(self.collect_at());
        next.min()
    }

    /// Does what is due.
    pub(crate) fn on_upkeep(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.config.upkeep || self.replica.poisoned().is_some() {
            return;
        }
        let late = self.upkeep.asked.iter().filter(|(_, a)| a.until <= now);
        let late: Vec<RequestId> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.answered(now, id, None, out);
        }
        if self.upkeep.hello_at <= now {
            self.upkeep.hello_at = now.after(HELLO_EVERY);
            for node in self.up_peers() {
                self.hello(now, node, out);
            }
            self.go_on_filling(out);
        }
        self.on_verify(now);
        self.on_judge(now, out);
        self.on_exchange(now, out);
        self.on_collect(now, out);
    }

    /// Has the next tree compared with its records, if it is time.
    fn on_verify(&mut self, now: Time) {
        if self.upkeep.verify_at > now {
            return;
        }
        let own = self.own_vnodes();
        let share = self.config.limits.verify_cycle.as_micros() as u64 / own.len().max(1) as u64;
        let random = self.upkeep.rng.random_range(0..=share);
        // None at the start, when there is enough to do.
        let is_first = self.upkeep.verify_at == Time::default();
        self.upkeep.verify_at = now.after(Duration::from_micros(share / 2 + random));
        let after = own
            .iter()
            .find(|v| self.upkeep.verified.is_none_or(|last| **v > last));
        let Some(vnode) = after.or(own.first()).copied().filter(|_| !is_first) else {
            return;
        };
        self.upkeep.verified = Some(vnode);
        let _ = self.take_on(None, Time(u64::MAX), Job::Verify(VerifyJob::new(vnode)));
    }

    /// A node is in reach: it is told how far this store is, and all that both hold is compared.
    pub(crate) fn upkeep_up(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        if self.config.upkeep {
            self.hello(now, node, out);
            self.exchange_soon(|_, peer| peer == node);
        }
    }

    /// A node is out of reach: nothing that was asked of it will be answered.
    pub(crate) fn upkeep_down(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let lost = self.upkeep.asked.iter().filter(|(_, a)| a.of == node);
        let lost: Vec<RequestId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.answered(now, id, None, out);
        }
    }

    fn hello(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let hello = Upkeep::Hello(Hello {
            layouts: self.layouts.digest(),
            ..self.replica.lineage.hello()
        });
        self.ask_upkeep(now, node, hello, Purpose::Hello, out);
    }

    /// Asks a replica, which may be this node's own.
    pub(crate) fn ask_upkeep(
        &mut self,
        now: Time,
        of: NodeId,
        what: Upkeep,
        purpose: Purpose,
        out: &mut Vec<Output>,
    ) {
        let id = self.fresh_id();
        let until = match purpose {
            // Whoever asked for it says how long that may take.
            Purpose::Repair(..) => now.after(self.config.limits.timeout_max),
            _ => now.after(ANSWER_WITHIN),
        };
        if purpose == Purpose::Exchange && of != self.config.me {
            self.upkeep.exchanging.asks(&what);
        }
        self.upkeep.asked.insert(id, Asked { of, until, purpose });
        let request = ReplicaRequest::Upkeep(Box::new(what));
        if of == self.config.me {
            self.local.push_back(Local::Ask(id, request));
            return;
        }
        let header = Header {
            layout_version: self.layouts.version(),
            ..Header::default()
        };
        out.push(Output::Send(of, Message::Replica(id, header, request)));
    }

    /// A replica has answered something. Returns whether that was asked here.
    pub(crate) fn on_upkeep_reply(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        reply: &mut ReplicaReply,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.upkeep.asked.get(&id).is_none_or(|a| a.of != from) {
            return matches!(reply, ReplicaReply::Upkeep(_));
        }
        let reply = match reply {
            ReplicaReply::Upkeep(reply) => {
                Some(std::mem::replace(&mut **reply, UpkeepReply::Forgotten))
            }
            other => {
                // It may be the one that knows more, and not be able to say so: nobody connects to a node that has left.
                if matches!(other, ReplicaReply::Refused(Refusal::WrongLayout { .. })) {
                    self.on_turned_away(from, out);
                }
                None
            }
        };
        self.answered(now, id, reply, out);
        true
    }

    /// What was asked is answered, or will not be.
    fn answered(
        &mut self,
        now: Time,
        id: RequestId,
        reply: Option<UpkeepReply>,
        out: &mut Vec<Output>,
    ) {
        let Some(Asked { of, purpose, .. }) = self.upkeep.asked.remove(&id) else {
            return;
        };
        match purpose {
            Purpose::Hello => {
                if let Some(UpkeepReply::Known(before)) = reply {
                    self.on_remembered(of, before, out);
                }
            }
            Purpose::Exchange => self.on_exchanged(now, of, reply, out),
            Purpose::Judge(key) => self.on_testimony(key, of, reply, out),
            Purpose::Mend(key) => self.on_mend(key, of, reply, out),
            Purpose::Collect => self.on_collected(now, of, reply, out),
            Purpose::Repair(id, vnode) => self.on_repaired(id, vnode, reply, out),
        }
    }

    /// Nobody waits any more for what was asked to this end.
    pub(crate) fn forget_asked(&mut self, purpose: &Purpose) {
        self.upkeep.asked.retain(|_, a| a.purpose != *purpose);
    }

    /// Another node tells how far it remembers this one's store to have been.
    fn on_remembered(&mut self, by: NodeId, before: u64, out: &mut Vec<Output>) {
        let mut batch = Batch::new();
        if self.replica.lineage.remembered(by, before, &mut batch)
            && self.replica.commit(batch).is_ok()
        {
            out.push(Output::Event(Event::LossFound));
            self.replica.lost();
            self.exchange_soon(|_, _| true);
        }
    }

    /// This node as a replica is asked something by another, or by itself.
    pub(crate) fn on_upkeep_asked(&mut self, waiter: Waiter, asked: Upkeep, out: &mut Vec<Output>) {
        let reply = match asked {
            Upkeep::Hello(hello) => {
                let Waiter::Peer(from, _) = waiter else {
                    return;
                };
                if hello.layouts != self.layouts.digest() {
                    self.tell_layouts(from, out);
                }
                let mut batch = Batch::new();
                let known = self.replica.lineage.witness(from, &hello, &mut batch);
                let kept = match batch.is_empty() {
                    true => Ok(()),
                    false => self.replica.commit(batch),
                };
                kept.map(|()| UpkeepReply::Known(known))
            }
            Upkeep::Repair(vnode) => return self.on_demand(waiter, vnode, out),
            Upkeep::Root(asked) => {
                let job = Job::Root(asked);
                return self.take_on_upkeep(waiter, job, out);
            }
            Upkeep::Parts(asked) => match PartsJob::new(&asked) {
                Ok(job) => return self.take_on_upkeep(waiter, Job::Parts(job), out),
                Err(refusal) => Err(refusal),
            },
            Upkeep::Evidence(asked) => {
                let from = asked.from.map(|from| from.to_vec());
                let is_last = |next: &Option<Vec<u8>>| next.is_none();
                let found = self.replica.evidence_of(asked.vnode, from, UPKEEP_KEYS_MAX);
                let found = found.map(|(mut removals, next)| {
                    if is_last(&next) {
                        removals.extend(self.replica.residue_in(asked.vnode));
                    }
                    (removals, next)
                });
                found.map(|(removals, next)| UpkeepReply::Evidence(removals, next.map(Into::into)))
            }
            Upkeep::Reconcile(asked) => {
                let job = Job::Reconcile(ReconcileJob::new(asked));
                return self.take_on_upkeep(waiter, job, out);
            }
            Upkeep::Testify(asked) => {
                let testimony = self.replica.testify(&asked);
                testimony.map(UpkeepReply::Testimony)
            }
            Upkeep::Confirm(asked) => {
                let over = self.are_over(&asked);
                let confirmed = self.replica.confirm(asked.vnode, &asked.keys, &over);
                let reply = match confirmed {
                    Ok(confirmed) => {
                        ReplicaReply::Upkeep(Box::new(UpkeepReply::Confirmed(confirmed)))
                    }
                    Err(refusal) => ReplicaReply::Refused(refusal),
                };
                if let Some((waiter, reply)) = self.replica.once_synced(reply, waiter) {
                    tell(waiter, reply, &mut self.local, out);
                }
                return;
            }
            Upkeep::Forget(asked) => {
                let over = self.are_over(&asked);
                let forgotten = self.replica.forget(asked.vnode, &asked.keys, &over);
                forgotten.map(|keys| {
                    for _ in 0..keys {
                        out.push(Output::Event(Event::Forgotten));
                    }
                    UpkeepReply::Forgotten
                })
            }
        };
        let reply = match reply {
            Ok(reply) => ReplicaReply::Upkeep(Box::new(reply)),
            Err(refusal) => ReplicaReply::Refused(refusal),
        };
        // What is told must be as durable as what a read shows.
        if let Some((waiter, reply)) = self.replica.once_written(reply, waiter) {
            tell(waiter, reply, &mut self.local, out);
        }
    }

    /// Which of these are of lives of buckets that are over here: nothing is written of them any more.
    fn are_over(&mut self, asked: &Removals) -> Vec<bool> {
        let set = asked.vnode.set;
        let keys = asked.keys.iter();
        keys.map(|removal| !matches!(self.may_touch(removal.bucket, set), Ok(true)))
            .collect()
    }

    fn take_on_upkeep(&mut self, waiter: Waiter, job: Job, out: &mut Vec<Output>) {
        let deadline = self.now.after(ANSWER_WITHIN);
        if let Err(refusal) = self.take_on(Some(waiter), deadline, job) {
            tell(waiter, ReplicaReply::Refused(refusal), &mut self.local, out);
        }
    }

    /// Joins another replica's record of a key; returns this one's, encoded, and whether it changed. Of a life of a bucket that is
    /// over nothing is taken and nothing told.
    pub(crate) fn reconcile(
        &mut self,
        vnode: VnodeId,
        theirs: &KeyRecord,
    ) -> Result<(bytes::Bytes, bool), Refusal> {
        if !self.may_touch(theirs.bucket, vnode.set)? {
            return Ok((bytes::Bytes::new(), false));
        }
        let (record, changed) = self.replica.reconcile(vnode, theirs)?;
        Ok((encoded(&record), changed))
    }

    /// Whether records of this life may be touched. A life that this node did not know is known from here on.
    pub(crate) fn may_touch(
        &mut self,
        bucket: BucketId,
        set: ReplicaSetId,
    ) -> Result<bool, Refusal> {
        if self.buckets.objection(bucket, set).is_some() {
            return Ok(false);
        }
        if self.buckets.is_news(bucket) {
            let mut batch = Batch::new();
            self.buckets.heard(bucket, &mut batch);
            self.replica.commit(batch)?;
        }
        Ok(true)
    }

    /// Whether this node is a replica of what upkeep is about.
    pub(crate) fn is_upkeep_rightly_asked(&self, upkeep: &Upkeep) -> bool {
        match upkeep {
            Upkeep::Hello(_) => true,
            Upkeep::Repair(vnode) => self.is_seat(*vnode),
            Upkeep::Root(asked) => self.is_seat(asked.vnode),
            Upkeep::Parts(asked) => self.is_seat(asked.vnode),
            Upkeep::Evidence(asked) => self.is_seat(asked.vnode),
            Upkeep::Reconcile(asked) => self.is_seat(asked.vnode),
            Upkeep::Testify(asked) => self.is_seat(asked.vnode),
            Upkeep::Confirm(asked) | Upkeep::Forget(asked) => self.is_seat(asked.vnode),
        }
    }

    /// What is still to be done that peace would see done, in words; empty if nothing. For the simulator's checks.
    #[must_use]
    pub fn upkeep_left(&mut self) -> String {
        let mut left = Vec::new();
        let evidence = self.evidence_keys();
        if evidence > 0 {
            left.push(format!("has evidence of {evidence} keys"));
        }
        if !self.filling.leftovers.is_empty() {
            left.push(format!("has leftovers of {:?}", self.filling.leftovers));
        }
        if !self.replica.late.is_empty() {
            left.push(format!("has {} keys to judge", self.replica.late.len()));
        }
        if !self.replica.damaged.is_empty() {
            left.push(format!("has {} damaged keys", self.replica.damaged.len()));
        }
        let refilling = self.refilling();
        if refilling > 0 {
            left.push(format!("is refilling {refilling} vnodes"));
        }
        left.join(" and ")
    }

    /// How many keys have evidence to collect.
    fn evidence_keys(&self) -> usize {
        let mut keys = 0;
        let rows = self
            .replica
            .storage()
            .visit(Family::Evidence, &[], None, &mut |_, _| {
                keys += 1;
                ControlFlow::Continue(())
            });
        rows.map_or(usize::MAX, |()| keys)
    }

    /// The primaries of a vnode, in the order of the preference list.
    pub(crate) fn primaries(&self, vnode: VnodeId) -> Vec<NodeId> {
        let placement = self.buckets.placement(vnode.set);
        let seats = placement.map_or(&[][..], |p| p.primaries(vnode.partition));
        seats.iter().map(|seat| seat.node).collect()
    }

    /// The vnodes of this node, ascending.
    pub(crate) fn own_vnodes(&self) -> Vec<VnodeId> {
        let mut all = BTreeSet::new();
        for placement in self.buckets.placements() {
            for partition in (0..self.layouts.partitions()).map(Partition) {
                let vnode = placement.vnode(partition);
                if placement.is_seat(vnode, self.config.me) {
                    all.insert(vnode);
                }
            }
        }
        all.into_iter().collect()
    }
}

/// A record as it travels: empty bytes where there is none.
pub(crate) fn encoded(record: &quorate_causal::Record) -> bytes::Bytes {
    match record.is_empty() {
        true => bytes::Bytes::new(),
        false => record.encode(),
    }
}
