//! Work that takes longer than one input may: done a slice at a time, with requests served in between.
//!
//! The node has one thread and decides everything on it, so a scan of many thousand records at one go would hold up every
//! request that comes meanwhile. A slice does a bounded number of units of work, and the next may come
//! [`SLICE_EVERY`] later at the earliest. Jobs take turns, so that a short one does not wait for a long one to end.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_protocol::{Refusal, ReplicaReply, RequestId, RootAsked, VnodeId};
use quorate_ring::{NodeId, ReplicaSetId};
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::leftovers::DropJob;
use crate::node::{Node, Waiter, tell};
use crate::reclaim::{ReclaimJob, Slice};
use crate::reconcile::ReconcileJob;
use crate::scan::ScanJob;
use crate::time::Time;
use crate::trees::PartsJob;
use crate::verify::VerifyJob;

/// The least time from the beginning of one slice to the next. With slices of half a millisecond, jobs take at most about half
/// of the thread while requests are waiting, and a request waits half a millisecond more at the worst.
pub(crate) const SLICE_EVERY: Duration = Duration::from_micros(500);

/// The same for upkeep while requests come: it then takes about a fifth of the thread.
const UPKEEP_SLICE_EVERY: Duration = Duration::from_millis(2);

/// The most jobs that a node takes on; more are refused, so that those under way end in time. Each holds some megabytes
/// at the worst.
pub(crate) const JOBS_MAX: usize = 32;

/// What a seek costs, in units of one record looked at.
pub(crate) const SEEK_UNITS: usize = 8;

/// A kind of work, and how far it has come.
#[derive(Debug)]
pub(crate) enum Job {
    /// Lists keys of partitions for a coordinator.
    Scan(ScanJob),
    /// Removes what a dropped bucket has left.
    Reclaim(ReclaimJob),
    /// Tells the sum over a vnode, loading its tree.
    Root(RootAsked),
    /// Tells what ranges of a vnode hold.
    Parts(PartsJob),
    /// Joins records that another replica has sent.
    Reconcile(ReconcileJob),
    /// Joins what came back of the records that the exchange under way has sent.
    Join,
    /// Compares a vnode's tree with its records.
    Verify(VerifyJob),
    /// Removes what is left of a vnode.
    Drop(DropJob),
}

impl Job {
    /// Whether no client waits for it.
    fn is_upkeep(&self) -> bool {
        !matches!(self, Job::Scan(_))
    }
}

/// For whom a job is done, and until when that makes sense.
#[derive(Debug)]
struct Turn {
    /// None where nobody waits: what a node does for its own sake.
    waiter: Option<Waiter>,
    deadline: Time,
    job: Job,
}

/// The jobs of a node.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// The next to have a turn first.
    turns: VecDeque<Turn>,
    /// What is to be reclaimed when the present one is done: all together get the turn of one job.
    reclaims: VecDeque<ReclaimJob>,
    /// When the next slice may begin, and when one of upkeep may.
    next_slice: Time,
    next_upkeep: Time,
    /// Whether requests came since upkeep had a slice.
    requested: bool,
}

impl Jobs {
    /// When there is something to do.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        if self.turns.is_empty() {
            return None;
        }
        let waits = self.turns.iter().all(|turn| turn.job.is_upkeep());
        Some(match waits {
            true => self.next_slice.max(self.next_upkeep),
            false => self.next_slice,
        })
    }

    /// A request came: upkeep takes less of the thread.
    pub(crate) fn yield_to_requests(&mut self) {
        self.requested = true;
    }

    /// Takes out whose turn it is, if anybody's.
    fn take_turn(&mut self, now: Time) -> Option<Turn> {
        if now < self.next_slice {
            return None;
        }
        // The askers of the others have given up by now.
        self.turns.retain(|turn| turn.deadline > now);
        let may = now >= self.next_upkeep;
        let mut turns = self.turns.iter();
        let at = turns.position(|turn| may || !turn.job.is_upkeep())?;
        let turn = self.turns.remove(at)?;
        self.next_slice = now.after(SLICE_EVERY);
        if turn.job.is_upkeep() {
            self.next_upkeep = now.after(match std::mem::take(&mut self.requested) {
                true => UPKEEP_SLICE_EVERY,
                false => SLICE_EVERY,
            });
        }
        Some(turn)
    }

    /// Gives up what would change or tell of vnodes that this node holds no more. Whoever waits for it hears nothing, and asks elsewhere.
    pub(crate) fn keep_those_of(&mut self, is_held: impl Fn(VnodeId) -> bool) {
        self.turns.retain(|turn| match &turn.job {
            Job::Root(asked) => is_held(asked.vnode),
            Job::Parts(parts) => is_held(parts.vnode()),
            Job::Reconcile(reconcile) => is_held(reconcile.vnode()),
            Job::Verify(verify) => is_held(verify.vnode()),
            // What is under way of an exchange is broken off with it.
            Job::Scan(_) | Job::Reclaim(_) | Job::Join | Job::Drop(_) => true,
        });
    }

    /// Takes on what is left of a vnode to be removed.
    pub(crate) fn clear(&mut self, job: DropJob) {
        self.turns.push_back(Turn {
            waiter: None,
            deadline: Time(u64::MAX),
            job: Job::Drop(job),
        });
    }

    /// Takes on what the node does for its own sake.
    pub(crate) fn reclaim(&mut self, job: ReclaimJob) {
        self.reclaims.push_back(job);
        let is_busy = |turn: &Turn| matches!(turn.job, Job::Reclaim(_));
        if !self.turns.iter().any(is_busy) {
            self.next_reclaim();
        }
    }

    fn next_reclaim(&mut self) {
        let next = self.reclaims.pop_front().map(|job| Turn {
            waiter: None,
            deadline: Time(u64::MAX),
            job: Job::Reclaim(job),
        });
        self.turns.extend(next);
    }

    /// Nobody waits any longer for what these nodes or conversations asked.
    pub(crate) fn forget(&mut self, gone: impl Fn(&Waiter) -> bool) {
        self.turns
            .retain(|turn| !turn.waiter.as_ref().is_some_and(&gone));
    }
}

impl<S: Storage> Node<S> {
    /// Takes a job on. Its reply goes to `waiter`, if it is done before the deadline.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`], if there are too many already.
    pub(crate) fn take_on(
        &mut self,
        waiter: Option<Waiter>,
        deadline: Time,
        job: Job,
    ) -> Result<(), Refusal> {
        let asked = self.jobs.turns.iter().filter(|t| t.waiter.is_some());
        if asked.count() >= JOBS_MAX {
            return Err(Refusal::Overloaded);
        }
        self.jobs.turns.push_back(Turn {
            waiter,
            deadline,
            job,
        });
        Ok(())
    }

    /// Does a slice of work, if one is due.
    pub(crate) fn on_jobs(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(mut turn) = self.jobs.take_turn(now) else {
            return;
        };
        let units = self.config.limits.slice_units;
        let wall_ms = self.replica.moment.wall_ms;
        let reply = match &mut turn.job {
            Job::Scan(scan) => scan.slice(self.replica.storage(), units, wall_ms),
            Job::Root(asked) => self.replica.root(asked, units),
            Job::Parts(parts) => parts.slice(&self.replica, units),
            Job::Reconcile(reconcile) => self.reconcile_slice(reconcile, units),
            Job::Join => {
                if self.join_slice(now, units, out) {
                    self.jobs.turns.push_back(turn);
                }
                return;
            }
            Job::Verify(verify) => {
                if self.verify_slice(verify, units, out) {
                    self.jobs.turns.push_back(turn);
                }
                return;
            }
            Job::Drop(job) => {
                if self.drop_slice(job, units, out) {
                    self.jobs.turns.push_back(turn);
                }
                return;
            }
            Job::Reclaim(reclaim) => {
                let sets: Vec<ReplicaSetId> = self.buckets.placements().map(|p| p.set()).collect();
                // What cannot be read or removed now is tried again after the next start.
                let (mut batch, hints, more) =
                    match reclaim.slice(self.replica.storage(), &sets, units) {
                        Ok(Slice::More(batch, hints)) => (batch, hints, true),
                        Ok(Slice::Last(batch, hints)) => {
                            out.push(Output::Event(Event::Reclaimed));
                            (batch, hints, false)
                        }
                        Err(_) => return self.jobs.next_reclaim(),
                    };
                for (row, record) in &hints {
                    out.push(Output::Event(Event::HintDropped));
                    self.replica.uncount_hint(row, *record, &mut batch);
                }
                // Their entries in trees that are in memory are gone.
                self.replica.trees.clear();
                if self.replica.commit(batch).is_ok() && more {
                    self.jobs.turns.push_back(turn);
                } else {
                    self.jobs.next_reclaim();
                }
                return;
            }
        };
        match reply {
            None => self.jobs.turns.push_back(turn),
            Some(reply) => {
                // What is told must be as durable as what a read shows.
                if let Some(waiter) = turn.waiter
                    && let Some((waiter, reply)) = self.replica.once_written(reply, waiter)
                {
                    tell(waiter, reply, &mut self.local, out);
                }
            }
        }
    }

    /// The node is out of reach, so its jobs are done for nobody.
    pub(crate) fn forget_jobs_of(&mut self, node: NodeId) {
        self.jobs
            .forget(|waiter| matches!(waiter, Waiter::Peer(of, _) if *of == node));
    }

    /// The conversation is over.
    pub(crate) fn forget_own_job(&mut self, id: RequestId) {
        self.jobs
            .forget(|waiter| matches!(waiter, Waiter::Own(of) if *of == id));
    }
}

/// A refusal in place of a job's result.
pub(crate) fn refused(refusal: Refusal) -> ReplicaReply {
    ReplicaReply::Refused(refusal)
}
