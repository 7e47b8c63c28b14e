//! Joining the records that an exchange has found to differ, some at a time: one message brings hundreds, and to join them in one go
//! would hold up every request that comes meanwhile for some milliseconds.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_causal::{Dot, Record};
use quorate_protocol::{KeyRecord, Reconcile, ReplicaReply, UpkeepReply};
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::exchange::{Exchange, Step};
use crate::jobs::{Job, refused};
use crate::node::Node;
use crate::replica::decode;
use crate::time::Time;

/// What a key costs, in units of one record looked at: it is read, joined and written.
const KEY_UNITS: usize = 32;

/// Joins what another replica has sent, and tells what this one has then.
#[derive(Debug)]
pub(crate) struct ReconcileJob {
    asked: Reconcile,
    /// What this replica has of the first of them.
    done: Vec<Bytes>,
}

impl ReconcileJob {
    pub(crate) fn vnode(&self) -> quorate_protocol::VnodeId {
        self.asked.vnode
    }

    pub(crate) fn new(asked: Reconcile) -> Self {
        ReconcileJob {
            asked,
            done: Vec::new(),
        }
    }
}

fn keys_of(units: usize) -> usize {
    (units / KEY_UNITS).max(1)
}

impl<S: Storage> Node<S> {
    /// Goes on for about so many units; returns the reply once it is done.
    pub(crate) fn reconcile_slice(
        &mut self,
        job: &mut ReconcileJob,
        units: usize,
    ) -> Option<ReplicaReply> {
        let next = job.asked.records.iter().skip(job.done.len());
        for theirs in next.take(keys_of(units)) {
            match self.reconcile(job.asked.vnode, theirs) {
                Ok((ours, _)) => job.done.push(ours),
                Err(refusal) => return Some(refused(refusal)),
            }
        }
        if job.done.len() < job.asked.records.len() {
            return None;
        }
        let records = UpkeepReply::Records(std::mem::take(&mut job.done));
        Some(ReplicaReply::Upkeep(Box::new(records)))
    }

    /// Joins what came back of the records that were sent, a slice at a time. `exchange` is the one under way.
    pub(crate) fn join_soon(
        &mut self,
        now: Time,
        mut exchange: Exchange,
        records: impl Iterator<Item = (KeyRecord, Bytes)>,
        out: &mut Vec<Output>,
    ) {
        exchange.step = Step::Join(records.collect());
        // Where there are too many jobs it is put off, as whatever cannot be finished.
        if self.take_on(None, Time(u64::MAX), Job::Join).is_err() {
            return self.break_off(now, &exchange, out);
        }
        self.upkeep.exchanging.current = Some(exchange);
    }

    /// Goes on for about so many units; returns whether there are more. Once there are none, the exchange takes its next step.
    pub(crate) fn join_slice(&mut self, now: Time, units: usize, out: &mut Vec<Output>) -> bool {
        let Some(mut exchange) = self.upkeep.exchanging.current.take() else {
            return false; // Broken off.
        };
        let mut records = match std::mem::replace(&mut exchange.step, Step::Root) {
            Step::Join(records) => records,
            // That one was broken off, and this is another.
            other => {
                exchange.step = other;
                self.upkeep.exchanging.current = Some(exchange);
                return false;
            }
        };
        if !self.join_some(&mut exchange, &mut records, keys_of(units), out) {
            self.break_off(now, &exchange, out);
            return false;
        }
        if records.is_empty() {
            self.go_on(now, exchange, out);
            return false;
        }
        exchange.step = Step::Join(records);
        self.upkeep.exchanging.current = Some(exchange);
        true
    }

    /// Joins some of what the other side has told of what it was sent. Returns false if that cannot be done.
    fn join_some(
        &mut self,
        exchange: &mut Exchange,
        records: &mut VecDeque<(KeyRecord, Bytes)>,
        most: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let vnode = exchange.vnode;
        let is_whole = self.replica.is_whole(vnode).unwrap_or(false);
        let some = most.min(records.len());
        for (sent, record) in records.drain(..some) {
            if !is_whole && let (Ok(mine), Ok(theirs)) = (decode(&sent.record), decode(&record)) {
                let kept_out = kept_out(&mine, &theirs);
                exchange.doubtful |= !kept_out.is_empty();
                self.replica
                    .note_late(vnode, sent.bucket, &sent.key, &kept_out);
            }
            let at = (sent.bucket, sent.key.clone());
            let theirs = KeyRecord { record, ..sent };
            // What it tells as live itself is not what it has removed.
            let filter = self.replica.filter.take();
            let mut joined = self.reconcile(vnode, &theirs);
            self.replica.filter = filter;
            if let Some(removed) = exchange.removed.remove(&at).filter(|_| joined.is_ok()) {
                let removal = KeyRecord {
                    record: Record::from_parts(Vec::new(), removed).encode(),
                    ..theirs
                };
                joined = self.reconcile(vnode, &removal);
            }
            match joined {
                Ok((_, changed)) => {
                    self.upkeep.exchanging.cost.keys += 1;
                    self.upkeep.exchanging.learnt |= changed;
                    out.push(Output::Event(Event::KeyReconciled));
                }
                Err(_) => return false,
            }
        }
        true
    }
}

/// What is live here and was not taken there.
fn kept_out(mine: &Record, theirs: &Record) -> Vec<Dot> {
    let mine = mine.live().iter().map(|s| s.span.dot);
    let is_known = |dot: &Dot| {
        theirs.evidence().contains(*dot) || theirs.live().iter().any(|s| s.span.dot == *dot)
    };
    mine.filter(|dot| !is_known(dot)).collect()
}
