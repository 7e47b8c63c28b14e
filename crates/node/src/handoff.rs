//! Handing hints over to their owners.
//!
//! While an owner is in reach, what is held for it goes to it as ordinary merges that must be synced, a few at a time and
//! no faster than so many bytes a second, on wakes alone, so that requests go first. A hint goes only once its owner says
//! that it is on disk there, and only if it has not changed since it was read: else it is sent again. Where that has got to is
//! kept nowhere: what is still here is still to be handed over, and a restart of either side begins again with that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::{Header, Merge, Message, Refusal, ReplicaReply, ReplicaRequest, RequestId};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::jobs::SLICE_EVERY;
use crate::node::{Local, Node};
use crate::replica::{Hint, HintKey};
use crate::time::Time;

/// The most hints of one slice, and of how many bytes: some milliseconds of the thread at the most, for one large record.
const SLICE_COUNT: usize = 32;
const SLICE_BYTES: usize = 128 * 1024;
/// The most hints that may wait for their owners' disks, and of how many bytes. Enough to fill a batch of the owner's
/// committer, and little enough that it does not stand in front of its requests.
const IN_FLIGHT_COUNT: usize = 128;
const IN_FLIGHT_BYTES: usize = 1024 * 1024;
/// After so long an answer is taken for lost and the hint is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The pause before all that is left is gone through once more.
const PASS_EVERY: Duration = Duration::from_millis(200);
/// The pause after an owner refused; doubled each time up to the greatest.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(4);

/// A hint on its way.
#[derive(Debug)]
struct Sent {
    owner: NodeId,
    /// Who gets it: its owner, or a replica in the place of one who is none any more.
    to: NodeId,
    hint: Hint,
    until: Time,
}

/// How it goes with one owner.
#[derive(Debug, Default)]
struct Progress {
    /// The row to go on from; from the first where `None`.
    from: Option<Vec<u8>>,
    not_before: Time,
    /// The last pause after a refusal; zero after none.
    backoff: Duration,
    /// Whether one was sent to another than its owner since the first row.
    readdressed: bool,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    sent: BTreeMap<RequestId, Sent>,
    /// The rows of these.
    rows: BTreeMap<Bytes, RequestId>,
    bytes: usize,
    owners: BTreeMap<NodeId, Progress>,
    /// Those out of reach of whose hints some may be for others, since the layouts changed; gone through until none is.
    moved: BTreeSet<NodeId>,
    /// Who had the last slice.
    last: Option<NodeId>,
    /// When the budget allows the next.
    next: Time,
}

impl Handoff {
    fn take(&mut self, id: RequestId) -> Option<Sent> {
        let sent = self.sent.remove(&id)?;
        self.rows.remove(&sent.hint.row);
        self.bytes -= sent.hint.record.len();
        Some(sent)
    }

    fn is_full(&self) -> bool {
        self.sent.len() >= IN_FLIGHT_COUNT || self.bytes >= IN_FLIGHT_BYTES
    }

    /// An owner is out of reach, or is so no longer: what was on its way is lost, and the next attempt begins afresh.
    pub(crate) fn forget(&mut self, owner: NodeId) {
        let lost = self.sent.iter();
        let lost = lost.filter(|(_, sent)| sent.owner == owner || sent.to == owner);
        let lost: Vec<RequestId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.take(id);
        }
        self.owners.remove(&owner);
    }
}

impl<S: Storage> Node<S> {
    /// When there is something to hand over, or to give up waiting for.
    pub(crate) fn handoff_at(&self) -> Option<Time> {
        let expiry = self.handoff.sent.values().map(|sent| sent.until).min();
        if self.handoff.is_full() || self.replica.poisoned().is_some() {
            return expiry;
        }
        let owners = self.replica.held().keys();
        let owners = owners.filter(|o| self.may_hand_over_for(**o));
        let next = owners.map(|owner| {
            let progress = self.handoff.owners.get(owner);
            progress
                .map_or(Time::default(), |p| p.not_before)
                .max(self.handoff.next)
        });
        next.chain(expiry).min()
    }

    /// Sends some hints, if it is time.
    pub(crate) fn on_handoff(&mut self, now: Time, out: &mut Vec<Output>) {
        let late = self.handoff.sent.iter().filter(|(_, s)| s.until <= now);
        let late: Vec<RequestId> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.handoff.take(id);
        }
        if self.handoff.is_full() || now < self.handoff.next || self.replica.poisoned().is_some() {
            return;
        }
        let Some(owner) = self.next_owner(now) else {
            return;
        };
        self.handoff.last = Some(owner);
        let mut progress = self.handoff.owners.remove(&owner).unwrap_or_default();
        let from = progress.from.take();
        let hints = self
            .replica
            .hints_for(owner, from.as_deref(), SLICE_COUNT, SLICE_BYTES);
        let mut bytes = 0;
        match hints {
            Ok((hints, more)) => {
                if let Some(last) = hints.last().filter(|_| more) {
                    progress.from = Some([&last.row[..], &[0]].concat());
                } else {
                    progress.not_before = progress.not_before.max(now.after(PASS_EVERY));
                }
                for hint in hints {
                    bytes += hint.record.len();
                    progress.readdressed |= self.hand_over(now, owner, hint, out);
                }
                if progress.from.is_none() && !std::mem::take(&mut progress.readdressed) {
                    self.handoff.moved.remove(&owner);
                }
            }
            // What cannot be read stays, and is tried again.
            Err(_) => progress.not_before = now.after(BACKOFF_MAX),
        }
        self.handoff.owners.insert(owner, progress);
        let rate = self.config.limits.handoff_bytes_per_second.max(1);
        let took = Duration::from_micros(bytes as u64 * 1_000_000 / rate);
        self.handoff.next = now.after(took.max(SLICE_EVERY));
    }

    /// The owner whose turn it is.
    fn next_owner(&self, now: Time) -> Option<NodeId> {
        let ready = |owner: &NodeId| {
            let progress = self.handoff.owners.get(owner);
            self.may_hand_over_for(*owner) && progress.is_none_or(|p| p.not_before <= now)
        };
        let ready = || self.replica.held().keys().copied().filter(ready);
        let after = ready().find(|owner| self.handoff.last.is_none_or(|last| *owner > last));
        after.or_else(|| ready().next())
    }

    /// Whether hints of a node can be handed over: it is in reach, or does not come back, or is no replica of all of them any more.
    fn may_hand_over_for(&self, owner: NodeId) -> bool {
        self.is_up(owner)
            || self.handoff.moved.contains(&owner)
            || (owner != self.config.me && !self.peers.contains_key(&owner))
    }

    /// The layouts are others: what is kept for nodes out of reach may be for others to have.
    pub(crate) fn hand_over_anew(&mut self) {
        self.handoff.moved = self.replica.held().keys().copied().collect();
    }

    /// Who is to have a hint: its owner, if that is to hold the key from here on; else one who is, if possible one by whom reads are answered
    /// already, from which all get it. An owner that leaves has been asked for what it has by those that come after it, perhaps before this
    /// reached it. `None` while none is in reach.
    fn heir(&self, key: &HintKey) -> Option<NodeId> {
        if self.is_to_hold(key) {
            return Some(key.owner).filter(|n| self.is_up(*n));
        }
        let placement = self.buckets.placement(key.vnode.set)?;
        let partition = key.vnode.partition;
        let newest = placement.newest(partition);
        let is_to_hold = |node: NodeId| newest.iter().any(|seat| seat.node == node);
        let seats = placement.readers(partition).iter().chain(newest);
        let mut seats = seats.map(|s| s.node).filter(|n| is_to_hold(*n));
        seats.find(|n| self.is_up(*n))
    }

    /// Whether a hint's owner is to hold its key by the latest layout.
    fn is_to_hold(&self, key: &HintKey) -> bool {
        let placement = self.buckets.placement(key.vnode.set);
        let newest = placement.map(|p| p.newest(key.vnode.partition));
        newest.is_some_and(|seats| seats.iter().any(|s| s.node == key.owner))
    }

    /// Sends a hint to whoever is to have it, unless that is out of reach. Says whether that is another than its owner.
    fn hand_over(&mut self, now: Time, owner: NodeId, hint: Hint, out: &mut Vec<Output>) -> bool {
        let Some(key) = HintKey::parse(&hint.row) else {
            return false;
        };
        if self.is_over(&key) {
            self.let_go(&hint.row, out);
            return false;
        }
        let Some(to) = self.heir(&key) else {
            return !self.is_to_hold(&key);
        };
        if self.handoff.rows.contains_key(&hint.row) {
            return to != owner;
        }
        if to != owner {
            out.push(Output::Event(Event::HintReaddressed));
        }
        let id = self.fresh_id();
        let merge = Merge {
            vnode: key.vnode,
            bucket: key.bucket,
            key: key.key,
            record: hint.record.clone(),
            durable: true,
            hint_for: None,
        };
        let header = Header {
            layout_version: self.layouts.version(),
            ..Header::default()
        };
        let request = ReplicaRequest::Merge(merge);
        if to == self.config.me {
            self.local.push_back(Local::Ask(id, request));
        } else {
            out.push(Output::Send(to, Message::Replica(id, header, request)));
        }
        self.handoff.rows.insert(hint.row.clone(), id);
        self.handoff.bytes += hint.record.len();
        let until = now.after(ANSWER_WITHIN);
        let sent = Sent {
            owner,
            to,
            hint,
            until,
        };
        self.handoff.sent.insert(id, sent);
        to != owner
    }

    /// Whether the life of the hint's bucket is over.
    fn is_over(&self, key: &HintKey) -> bool {
        let objection = self.buckets.objection(key.bucket, key.vnode.set);
        matches!(objection, Some(Refusal::BucketChanged(_)))
    }

    fn let_go(&mut self, row: &Bytes, out: &mut Vec<Output>) {
        if let Ok(true) = self.replica.drop_hint(row, None) {
            out.push(Output::Event(Event::HintDropped));
        }
    }

    /// An owner has answered to a hint. Returns whether it was to one.
    pub(crate) fn on_handed_over(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        reply: &ReplicaReply,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.handoff.sent.get(&id).is_none_or(|s| s.to != from) {
            return false;
        }
        let Some(Sent { owner, hint, .. }) = self.handoff.take(id) else {
            return false;
        };
        match reply {
            ReplicaReply::Merged { synced: true } => {
                if let Some(progress) = self.handoff.owners.get_mut(&owner) {
                    progress.backoff = Duration::ZERO;
                }
                match self.replica.drop_hint(&hint.row, Some(&hint.record)) {
                    Ok(true) => out.push(Output::Event(Event::HandedOff)),
                    // It came to hold more meanwhile.
                    Ok(false) => out.push(Output::Event(Event::HandoffAgain)),
                    Err(_) => {}
                }
            }
            ReplicaReply::Refused(Refusal::BucketChanged(_))
                if HintKey::parse(&hint.row).is_some_and(|key| self.is_over(&key)) =>
            {
                self.let_go(&hint.row, out);
            }
            _ => {
                out.push(Output::Event(Event::HandoffRefused));
                let progress = self.handoff.owners.entry(owner).or_default();
                if progress.not_before <= now.after(PASS_EVERY) {
                    progress.backoff = (progress.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                    progress.not_before = now.after(progress.backoff);
                }
            }
        }
        true
    }
}
