//! What a replica does for the sake of others that hold the same: tells and joins records, votes, confirms, forgets.
//!
//! *Invariant (R15):* evidence is forgotten only once every replica has durably seen the removed dot and does not hold it.
//! *Invariant (R3, R13):* a value that was seen and is gone comes back by [`Replica::reinstate`] alone.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_causal::{Actor, Dot, DotSet, Record, Sibling};
use quorate_protocol::{
    BucketId, KeyRecord, Recall, Refusal, Removal, ReplicaReply, Testify, Testimony, VnodeId, Vote,
};
use quorate_ring::NodeId;
use quorate_storage::{Batch, Family, Level, Storage, StorageError};

use crate::keys;
use crate::replica::{Replica, Source, decode, unreadable};
use crate::trees::Shape;

/// The most keys whose absence is remembered until it is judged. Others are found again by the next exchange.
const LATE_MAX: usize = 1024;

/// A key of which this replica was sent values that it had seen and does not hold.
pub(crate) type Late = (VnodeId, BucketId, Bytes, BTreeSet<Dot>);

impl<S: Storage, W> Replica<S, W> {
    /// Refuses where what is stored is no answer: this replica has lost some of what it acknowledged. `strict` for reads that
    /// count on it: then it must also have heard that it lost nothing.
    pub(crate) fn answers_for(
        &mut self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &[u8],
        strict: bool,
    ) -> Result<(), Refusal> {
        if !self.is_whole(vnode)? {
            return lacks(REFILLING);
        }
        if strict && !self.is_verified() {
            return lacks("was just started, and has not heard yet whether it lost state");
        }
        if self.is_damaged(vnode, bucket, key) {
            return lacks("has a damaged record of this key, which is being repaired");
        }
        Ok(())
    }

    /// Refuses where this replica cannot tell which keys there are. A damaged record does not count: whoever else is asked has the key, and
    /// what replicas disagree about is read.
    pub(crate) fn lists(&mut self, vnode: VnodeId) -> Result<(), Refusal> {
        if !self.is_whole(vnode)? {
            return lacks(REFILLING);
        }
        match self.is_verified() {
            true => Ok(()),
            false => lacks("was just started, and has not heard yet whether it lost state"),
        }
    }

    /// Whether what this replica lacks says anything: it is whole, as far as others remember it.
    pub(crate) fn is_intact(&mut self, vnode: VnodeId) -> Result<bool, Refusal> {
        self.vnode(vnode)?;
        Ok(self.is_verified() && self.is_whole(vnode)?)
    }

    /// Whether it has what a replica of it is to have: it is not being filled, for the first time or after a loss.
    pub(crate) fn is_whole(&mut self, vnode: VnodeId) -> Result<bool, Refusal> {
        if self.newcomers.contains(&vnode) {
            return Ok(false);
        }
        let losses = self.lineage.losses();
        Ok(losses == 0 || self.vnode_unchecked(vnode)?.is_refilled(losses))
    }

    /// Joins another replica's record, and returns this one's afterwards. The tree's entry is put right by the way.
    pub(crate) fn reconcile(
        &mut self,
        vnode: VnodeId,
        theirs: &KeyRecord,
    ) -> Result<(Record, bool), Refusal> {
        let record = self.load(vnode, theirs.bucket, &theirs.key)?;
        let incoming = decode(&theirs.record)
            .map_err(|e| Refusal::Malformed(format!("a record to reconcile: {e}")))?;
        let before = record.clone();
        let applied = self.apply(
            vnode,
            theirs.bucket,
            &theirs.key,
            record,
            (&incoming, Source::Replica),
            Level::Written,
        )?;
        self.right_leaf(vnode, theirs.bucket, &theirs.key, &applied.record)?;
        let changed = applied.record != before;
        Ok((applied.record, changed))
    }

    /// Puts a tree's entry right, should it not be the record's.
    pub(crate) fn right_leaf(
        &mut self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &[u8],
        record: &Record,
    ) -> Result<bool, Refusal> {
        let stored = self.leaf_of(vnode, bucket, key)?;
        let is = Shape::of(record).digest();
        if stored == is {
            return Ok(false);
        }
        let mut batch = Batch::new();
        self.put_leaf(vnode, bucket, key, stored, is, &mut batch);
        self.commit_numbered(batch, Level::Written);
        Ok(true)
    }

    /// What this replica knows of some dots (rule R3).
    pub(crate) fn testify(&mut self, asked: &Testify) -> Result<Testimony, Refusal> {
        // It will know in a moment whether it has lost state, and what it holds is as good as another's until then: whoever takes it for
        // one that has lost state may remove what it alone still has.
        if !self.is_verified() {
            return Err(Refusal::Corrupt(
                "this replica has not heard yet whether it has lost state".to_owned(),
            ));
        }
        let intact = self.is_intact(asked.vnode)?;
        let damaged = self.is_damaged(asked.vnode, asked.bucket, &asked.key);
        if damaged {
            return Ok(Testimony {
                votes: vec![Vote::Abstain; asked.dots.len()],
                record: Bytes::new(),
            });
        }
        let record = self.load(asked.vnode, asked.bucket, &asked.key)?;
        let residue = self.residue_of(asked.vnode, asked.bucket, &asked.key);
        let residue = residue.cloned().unwrap_or_default();
        let clocks = self.vnode(asked.vnode)?;
        let (own, seen) = (clocks.clock(), clocks.seen());
        let vote = |(actor, counter): &(u128, u64)| {
            let dot = Dot {
                actor: Actor(*actor),
                counter: *counter,
            };
            if record.live().iter().any(|s| s.span.dot == dot) {
                match intact {
                    true => Vote::Live,
                    false => Vote::LiveUnsure,
                }
            } else if record.evidence().contains(dot) || residue.contains(dot) {
                Vote::Removed
            } else if intact && own.contains(dot) {
                Vote::Lacks
            } else if intact && seen.contains(dot) {
                Vote::FilledWithout
            } else {
                Vote::Abstain
            }
        };
        let votes: Vec<Vote> = asked.dots.iter().map(vote).collect();
        Ok(Testimony {
            votes,
            record: crate::upkeep::encoded(&record),
        })
    }

    /// Which of some values were here, or are known to be removed, and are not live. Also those of which a removal is known by now: the
    /// asker has heard this replica when it was not.
    pub(crate) fn recall(&mut self, asked: &Recall) -> ReplicaReply {
        if let Err(refusal) = self.answers_for(asked.vnode, asked.bucket, &asked.key, false) {
            return ReplicaReply::Refused(refusal);
        }
        let at = keys::record(asked.vnode, asked.bucket, &asked.key);
        let record = match self.stored(&at) {
            Ok(record) => record.unwrap_or_default(),
            Err(refusal) => return ReplicaReply::Refused(refusal),
        };
        let residue = self.residue_of(asked.vnode, asked.bucket, &asked.key);
        let residue = residue.cloned().unwrap_or_default();
        let seen = match self.vnode_unchecked(asked.vnode) {
            Ok(vnode) => vnode.seen(),
            Err(refusal) => return ReplicaReply::Refused(refusal),
        };
        let is_gone = |(actor, counter): &(u128, u64)| {
            let dot = Dot {
                actor: Actor(*actor),
                counter: *counter,
            };
            let is_live = record.live().iter().any(|s| s.span.dot == dot);
            let is_known =
                seen.contains(dot) || record.evidence().contains(dot) || residue.contains(dot);
            is_known && !is_live
        };
        let dots = asked.dots.iter().copied();
        ReplicaReply::Gone(dots.filter(|dot| is_gone(dot)).collect())
    }

    /// Whether a removal would change what this replica answers: it takes something that is live here, or keeps out what has not come
    /// yet. Then it must not be taken without what stands in the place of what it removes. A put that reached one replica may have removed what
    /// only another shows: a third that knew of the removal alone would take from a reader the old value, and have no new one for it.
    pub(crate) fn is_news(
        &mut self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &[u8],
        record: &Record,
        removed: &DotSet,
    ) -> Result<bool, Refusal> {
        if record.live().iter().any(|s| removed.contains(s.span.dot)) {
            return Ok(true);
        }
        let mut unheard = removed.clone();
        unheard.subtract(self.vnode(vnode)?.seen());
        unheard.subtract(record.evidence());
        if let Some(residue) = self.residue_of(vnode, bucket, key) {
            unheard.subtract(residue);
        }
        Ok(!unheard.is_empty())
    }

    /// Dots of this vnode's keys were found to be removed. Each of them is exact, which in a run of evidence only the last is; a copy that
    /// comes again once the evidence is forgotten is then known for what it is, and not looked into for ever.
    pub(crate) fn note_removed(&mut self, vnode: VnodeId, removed: &[Dot]) {
        let mut batch = Batch::new();
        if let Some(vnode) = self.vnodes.get_mut(&vnode) {
            vnode.hold(removed.iter().copied(), &mut batch);
        }
        if !batch.is_empty() {
            self.commit_numbered(batch, Level::Written);
        }
    }

    /// Joins removals and says which of them hold here. To be told once [`Replica::sync`] is due.
    pub(crate) fn confirm(
        &mut self,
        vnode: VnodeId,
        removals: &[Removal],
        over: &[bool],
    ) -> Result<Vec<Bytes>, Refusal> {
        if !self.is_intact(vnode)? {
            return Err(Refusal::Corrupt(
                "this replica has lost state, or has not heard yet whether it did".to_owned(),
            ));
        }
        let mut confirmed = Vec::with_capacity(removals.len());
        for (removal, over) in removals.iter().zip(over) {
            let removed = removed(removal)?;
            if *over {
                // Nobody is shown anything of it any more.
                confirmed.push(removed.encode());
                continue;
            }
            if self.is_damaged(vnode, removal.bucket, &removal.key) {
                confirmed.push(DotSet::new().encode());
                continue;
            }
            let record = self.load(vnode, removal.bucket, &removal.key)?;
            // A removal without what came in the place of what it removes would leave this replica showing neither. Whoever
            // collects sends both, and confirms anew.
            if self.is_news(vnode, removal.bucket, &removal.key, &record, &removed)? {
                confirmed.push(DotSet::new().encode());
                continue;
            }
            let incoming = Record::from_parts(Vec::new(), removed.clone());
            let applied = self.apply(
                vnode,
                removal.bucket,
                &removal.key,
                record,
                (&incoming, Source::Replica),
                Level::Written,
            )?;
            // Each counter is seen, or is in the evidence.
            debug_assert!(
                applied
                    .record
                    .live()
                    .iter()
                    .all(|s| !removed.contains(s.span.dot))
            );
            confirmed.push(removed.encode());
        }
        Ok(confirmed)
    }

    /// Forgets evidence that every replica has confirmed. Returns of how many keys there was any.
    pub(crate) fn forget(
        &mut self,
        vnode: VnodeId,
        removals: &[Removal],
        over: &[bool],
    ) -> Result<u64, Refusal> {
        let (mut batch, mut touched, mut forgotten) = (Batch::new(), Vec::new(), 0);
        let rest = removals.iter().zip(over).filter(|(_, over)| !**over);
        for (removal, _) in rest {
            let removed = removed(removal)?;
            let mut record = self.load(vnode, removal.bucket, &removal.key)?;
            let before = Shape::of(&record);
            let forgot = record.forget(&removed);
            // What it has not seen would come back.
            let mut rest = removed;
            rest.subtract(self.vnode(vnode)?.seen());
            rest.subtract(record.evidence());
            let at = (vnode, removal.bucket, removal.key.clone());
            self.leave(at, &rest, &mut batch);
            if forgot {
                let key = &removal.key;
                self.put_record(vnode, removal.bucket, key, &before, &record, &mut batch);
                touched.push(keys::record(vnode, removal.bucket, key).into());
                forgotten += 1;
            }
        }
        if !batch.is_empty() {
            self.commit_numbered(batch, Level::Written);
            for at in touched {
                self.note_unwritten(at);
            }
        }
        Ok(forgotten)
    }

    /// From here on a removal of anything at this key makes void what is being asked about it (rule R13).
    pub(crate) fn begin_pull(&mut self, vnode: VnodeId, bucket: BucketId, key: &[u8]) {
        self.pulls
            .insert(keys::record(vnode, bucket, key).into(), false);
    }

    /// A removal came for the record at this place.
    pub(crate) fn removal_came(&mut self, at: &Bytes) {
        if let Some(dirty) = self.pulls.get_mut(at) {
            *dirty = true;
        }
    }

    /// It was asked. Says whether no removal came since.
    pub(crate) fn end_pull(&mut self, vnode: VnodeId, bucket: BucketId, key: &[u8]) -> bool {
        let at = keys::record(vnode, bucket, key);
        self.pulls.remove(at.as_slice()) == Some(false)
    }

    /// Gives those of `kept` back that this replica has lost and that were found to be alive, with the record that `held` them: what is removed there may
    /// still be live here, and goes; and what stands there in its place comes, or this replica would show neither. If some of that is to be judged
    /// first, all waits for that. Returns whether anything was given back.
    pub(crate) fn reinstate(
        &mut self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &Bytes,
        held: &Record,
        kept: &DotSet,
    ) -> Result<bool, Refusal> {
        self.has_room()?;
        let mut record = self.load(vnode, bucket, key)?;
        let before = Shape::of(&record);
        let mut seen = self.vnode(vnode)?.seen().clone();
        if let Some(residue) = self.residue_of(vnode, bucket, key) {
            seen.join(residue);
        }
        let is_live = |dot: Dot| record.live().iter().any(|s| s.span.dot == dot);
        let is_late =
            |dot: Dot| seen.contains(dot) && !record.evidence().contains(dot) && !is_live(dot);
        let (values, others): (Vec<&Sibling>, Vec<&Sibling>) =
            held.live().iter().partition(|s| kept.contains(s.span.dot));
        let live = record.live().iter().map(|s| s.span.dot);
        let replaced: DotSet = live.filter(|dot| held.evidence().contains(*dot)).collect();
        // Then the next exchange brings all of it before the judge. Not at once: who cannot be heard now may be away for long.
        if !replaced.is_empty() && others.iter().any(|s| is_late(s.span.dot)) {
            return Ok(false);
        }
        let in_place = others.into_iter().filter(|s| !is_late(s.span.dot));
        let in_place: Vec<Sibling> = in_place.cloned().collect();
        let mut dots: Vec<Dot> = in_place.iter().map(|s| s.span.dot).collect();
        record.merge(&Record::from_parts(in_place, replaced));
        let taken = values.into_iter().filter(|s| record.reinstate(s));
        let taken: Vec<Dot> = taken.map(|s| s.span.dot).collect();
        if taken.is_empty() {
            return Ok(false);
        }
        dots.extend(taken);
        dots.retain(|dot| record.live().iter().any(|s| s.span.dot == *dot));
        let mut batch = Batch::new();
        self.put_record(vnode, bucket, key, &before, &record, &mut batch);
        self.vnode(vnode)?.hold(dots.into_iter(), &mut batch);
        self.commit_numbered(batch, Level::Written);
        self.note_unwritten(keys::record(vnode, bucket, key).into());
        Ok(true)
    }

    /// Replaces a damaged record by what the others hold together.
    pub(crate) fn replace(
        &mut self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &Bytes,
        record: &Record,
    ) -> Result<(), Refusal> {
        self.has_room()?;
        let stored = self.leaf_of(vnode, bucket, key)?;
        let mut batch = Batch::new();
        self.put_record(vnode, bucket, key, &Shape::unknown(), record, &mut batch);
        self.put_leaf(
            vnode,
            bucket,
            key,
            stored,
            Shape::of(record).digest(),
            &mut batch,
        );
        let dots = record.live().iter().map(|s| s.span.dot);
        self.vnode(vnode)?.hold(dots, &mut batch);
        self.mended(vnode, bucket, key, &mut batch);
        self.commit_numbered(batch, Level::Written);
        self.note_unwritten(keys::record(vnode, bucket, key).into());
        Ok(())
    }

    /// Takes note of values that were kept out, for them to be judged.
    pub(crate) fn note_late(&mut self, vnode: VnodeId, bucket: BucketId, key: &[u8], dots: &[Dot]) {
        if dots.is_empty() || self.late.len() >= LATE_MAX {
            return;
        }
        let at = (vnode, bucket, Bytes::copy_from_slice(key));
        self.late.entry(at).or_default().extend(dots);
    }

    /// The next key whose absence is to be judged.
    pub(crate) fn take_late(&mut self) -> Option<Late> {
        let ((vnode, bucket, key), dots) = self.late.pop_first()?;
        Some((vnode, bucket, key, dots))
    }

    /// The vnodes that have evidence to collect: one seek each.
    pub(crate) fn load_pending(&mut self) -> Result<(), StorageError> {
        let mut from = Some(Vec::new());
        while let Some(at) = from.take() {
            let mut found = None;
            self.storage
                .visit(Family::Evidence, &at, None, &mut |row, _| {
                    found = Some(Bytes::copy_from_slice(row));
                    ControlFlow::Break(())
                })?;
            let Some(row) = found else { break };
            let Some(vnode) = keys::vnode_of(&row) else {
                return Err(StorageError::Corrupt {
                    family: Family::Evidence,
                    key: row,
                    reason: "not a mark of evidence".to_owned(),
                });
            };
            self.pending.insert(vnode);
            from = keys::end_of(&keys::vnode_prefix(vnode));
        }
        Ok(())
    }

    /// The next evidence of a vnode from a row on, of at most `count` keys; and where to go on, if there is more.
    pub(crate) fn evidence_of(
        &mut self,
        vnode: VnodeId,
        from: Option<Vec<u8>>,
        count: usize,
    ) -> Result<(Vec<Removal>, Option<Vec<u8>>), Refusal> {
        let prefix = keys::vnode_prefix(vnode);
        let end = keys::end_of(&prefix);
        let from = from.unwrap_or(prefix);
        let rows = self
            .storage
            .scan(Family::Evidence, &from, end.as_deref(), count)
            .map_err(|e| unreadable(&e))?;
        let next = (rows.len() == count)
            .then(|| rows.last().map(|(row, _)| [&row[..], &[0]].concat()))
            .flatten();
        let mut removals = Vec::with_capacity(rows.len());
        for (row, _) in &rows {
            let Some((bucket, key)) = keys::of_evidence(row) else {
                continue;
            };
            if self.is_damaged(vnode, bucket, key) {
                continue;
            }
            let record = self.load(vnode, bucket, key)?;
            if record.evidence().is_empty() {
                // The mark outlived what it marks.
                let mut batch = Batch::new();
                batch.delete(Family::Evidence, row.clone());
                self.commit_numbered(batch, Level::Written);
                continue;
            }
            removals.push(Removal {
                bucket,
                key: Bytes::copy_from_slice(key),
                dots: record.evidence().encode(),
            });
        }
        Ok((removals, next))
    }

    /// Adopts what another replica had seen (see [`crate::vnode::Vnode::adopt`]), and counts the exchange for a refill after the loss of that
    /// number. Returns whether the vnode is refilled by it.
    pub(crate) fn exchanged(
        &mut self,
        vnode: VnodeId,
        with: NodeId,
        theirs: Option<&DotSet>,
        loss: u64,
        enough: impl Fn(&BTreeSet<NodeId>) -> bool,
    ) -> Result<bool, Refusal> {
        let mut batch = Batch::new();
        let state = self.vnode(vnode)?;
        if let Some(theirs) = theirs {
            state.adopt(theirs, &mut batch);
        }
        let refilled = state.refill_from(with, loss, enough, &mut batch);
        if !batch.is_empty() {
            self.commit_numbered(batch, Level::Written);
        }
        Ok(refilled)
    }

    /// Counts an exchange for the layout of this version, if there was one; see [`crate::vnode::Vnode::sync_from`].
    pub(crate) fn synced(
        &mut self,
        vnode: VnodeId,
        with: Option<NodeId>,
        version: u64,
        all: &BTreeSet<NodeId>,
    ) -> Result<(), Refusal> {
        let mut batch = Batch::new();
        if self.vnode(vnode)?.sync_from(with, version, all, &mut batch) {
            self.newcomers.remove(&vnode);
            self.commit_numbered(batch, Level::Written);
        }
        Ok(())
    }

    /// State was lost: nothing that was exchanged before counts.
    pub(crate) fn lost(&mut self) {
        for vnode in self.vnodes.values_mut() {
            vnode.lost();
        }
    }

    /// What was acknowledged last may be lost, whatever others remember.
    pub(crate) fn lost_some(&mut self) {
        let mut batch = Batch::new();
        let number = self.lineage.hello().number;
        self.lineage.lose(number, &mut batch);
        // Synced, so that whoever said that state was lost may stop saying so once this is.
        self.last = self.storage.commit(batch, Level::Synced);
        self.loss_at = Some(self.last);
    }

    /// Whether a loss that was named at the start is on disk, if one was.
    pub(crate) fn is_loss_recorded(&self) -> bool {
        self.loss_at
            .is_none_or(|ticket| self.progress.synced >= ticket)
    }
}

const REFILLING: &str = "has lost state, or is new here, and is being filled from the others";

fn lacks(what: &str) -> Result<(), Refusal> {
    Err(Refusal::Corrupt(format!("this replica {what}")))
}

/// The dots of a removal that was sent.
fn removed(removal: &Removal) -> Result<DotSet, Refusal> {
    DotSet::decode(&removal.dots)
        .map_err(|e| Refusal::Malformed(format!("a removal to confirm or forget: {e}")))
}
