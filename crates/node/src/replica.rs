//! A node as a replica: reads, merges and mints, and acknowledges when the disk has it.
//!
//! It is asked by coordinators, on this node or another, in the same words. What it does for other replicas' sake is in
//! `healing`.

mod hints;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_causal::{Context, Digest, Dot, DotSet, Record, Sibling};
use quorate_protocol::{BucketId, Merge, Read, Refusal, ReplicaReply, VnodeId};
use quorate_ring::NodeId;
use quorate_storage::{Batch, CommitEvent, Family, Level, Progress, Storage, StorageError, Ticket};
use rand_chacha::ChaCha12Rng;

use crate::damage;
use crate::expiry::{Moment, Sweep};
use crate::judge::KeyAt;
use crate::keys;
use crate::lineage::Lineage;
use crate::residue;
use crate::trees::{LoadingTree, Shape};
use crate::vitals::Full;
use crate::vnode::Vnode;

pub(crate) use hints::{Held, Hint, HintKey};

/// A write as the coordinator hands it to its own vnode, which alone can mint.
#[derive(Debug)]
pub(crate) struct Write {
    /// For whom a node keeps it that is no replica of the key: those of its replicas that are out of reach.
    pub(crate) owners: Option<Vec<NodeId>>,
    pub(crate) vnode: VnodeId,
    pub(crate) bucket: BucketId,
    pub(crate) key: Bytes,
    /// What it removes: the values its client had read, and whatever else a delete found removed.
    pub(crate) removed: DotSet,
    /// The payload of a put; none for a delete, which only removes.
    pub(crate) payload: Option<Bytes>,
    /// When its value is to end, in milliseconds since the Unix epoch.
    pub(crate) expires: Option<u64>,
    /// Whether its acknowledgement must wait for a sync.
    pub(crate) durable: bool,
    /// How many siblings it may leave, and of how many bytes together.
    pub(crate) siblings_max: usize,
    pub(crate) siblings_bytes_max: usize,
}

/// What a write did.
#[derive(Debug)]
pub(crate) struct Written {
    /// The change, encoded, for the other replicas.
    pub(crate) delta: Bytes,
    /// The dot of a put, as a context of just this write.
    pub(crate) own: Context,
    /// What the change removes: what was asked for, and what had expired.
    pub(crate) removed: DotSet,
    /// The record afterwards.
    pub(crate) record: Record,
}

/// When a request may be acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    ticket: Ticket,
    level: Level,
}

/// The replica side of a node. `W` says whom to tell once something is durable.
pub(crate) struct Replica<S, W> {
    pub(crate) storage: S,
    pub(crate) vnodes: BTreeMap<VnodeId, Vnode>,
    /// The trees that are in memory, or on their way there.
    pub(crate) trees: BTreeMap<VnodeId, LoadingTree>,
    /// Vnodes that may have evidence to collect.
    pub(crate) pending: BTreeSet<VnodeId>,
    /// Records that are being given back, by their keys in storage; and whether a removal of anything has come since (rule R13).
    pub(crate) pulls: BTreeMap<Bytes, bool>,
    /// Keys whose record was damaged or lost, and is not made good yet (rule R18).
    pub(crate) damaged: BTreeSet<(VnodeId, BucketId, Bytes)>,
    /// How many of them were found and not told yet.
    pub(crate) damage_found: usize,
    /// What is left of removals whose evidence was forgotten, and where trimming it goes on.
    pub(crate) residue: BTreeMap<KeyAt, DotSet>,
    pub(crate) trimmed: Option<KeyAt>,
    /// While a vnode that has lost state exchanges with another replica: what that one had seen when it began. See
    /// [`Replica::filters`].
    pub(crate) filter: Option<(VnodeId, DotSet)>,
    pub(crate) lineage: Lineage,
    /// Vnodes that are here only since the last layout, and not filled yet from the replicas of the one before.
    pub(crate) newcomers: BTreeSet<VnodeId>,
    /// Values that were kept out, to be judged.
    pub(crate) late: BTreeMap<(VnodeId, BucketId, Bytes), BTreeSet<Dot>>,
    rng: ChaCha12Rng,
    /// The last commit, and how far the disk has come.
    pub(crate) last: Ticket,
    pub(crate) progress: Progress,
    /// Who waits for which commit; each in ascending order of tickets.
    for_written: VecDeque<(Ticket, W)>,
    for_synced: VecDeque<(Ticket, W)>,
    /// Records whose last commit is not written yet, and that commit; `commits` has the same in order of tickets.
    unwritten: BTreeMap<Bytes, Ticket>,
    commits: VecDeque<(Ticket, Bytes)>,
    /// Reads of such records, with what they found.
    reads: BTreeMap<Ticket, Vec<(W, ReplicaReply)>>,
    /// Replies that are due once everything up to a commit is synced.
    once_synced: BTreeMap<Ticket, Vec<(W, ReplicaReply)>>,
    /// Why the disk can no longer be trusted. Once set, it acknowledges nothing any more.
    poisoned: Option<String>,
    /// Whether the disk is too full to take values. What removes them goes on, and so do reads.
    full: Option<Full>,
    /// What time of day it is while the present input is handled.
    pub(crate) moment: Moment,
    /// How far what is dead has been dropped.
    pub(crate) sweep: Sweep,
    /// The commit by which a loss that was named at the start is put on record.
    pub(crate) loss_at: Option<Ticket>,
    /// How much is kept for primaries that are out of reach.
    hints: BTreeMap<NodeId, Held>,
}

impl<S: Storage, W> Replica<S, W> {
    /// Over a store that was just opened.
    ///
    /// # Errors
    /// If what the store says about itself cannot be read.
    pub(crate) fn new(storage: S, mut rng: ChaCha12Rng) -> Result<Self, StorageError> {
        let lineage = Lineage::load(&storage, &mut rng)?;
        let damaged = damage::load(&storage)?;
        let residue = residue::load(&storage)?;
        Ok(Replica {
            storage,
            vnodes: BTreeMap::new(),
            trees: BTreeMap::new(),
            pending: BTreeSet::new(),
            pulls: BTreeMap::new(),
            damaged,
            damage_found: 0,
            residue,
            trimmed: None,
            filter: None,
            lineage,
            newcomers: BTreeSet::new(),
            late: BTreeMap::new(),
            rng,
            last: Ticket(0),
            progress: Progress {
                written: Ticket(0),
                synced: Ticket(0),
            },
            for_written: VecDeque::new(),
            for_synced: VecDeque::new(),
            unwritten: BTreeMap::new(),
            commits: VecDeque::new(),
            reads: BTreeMap::new(),
            once_synced: BTreeMap::new(),
            poisoned: None,
            full: None,
            moment: Moment::default(),
            sweep: Sweep::default(),
            loss_at: None,
            hints: BTreeMap::new(),
        })
    }

    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    pub(crate) fn submit(&mut self) -> Option<CommitEvent> {
        self.storage.submit()
    }

    /// Says whether the disk is too full from here on.
    pub(crate) fn set_full(&mut self, full: Option<Full>) {
        self.full = full;
    }

    /// Refuses where a value could not be taken. The disk must not become so full that a write fails: that would poison
    /// the node, and what would free space could not be done either.
    pub(crate) fn has_room(&self) -> Result<(), Refusal> {
        match self.full {
            Some(Full { free, needed }) => Err(Refusal::DiskFull { free, needed }),
            None => Ok(()),
        }
    }

    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    /// What a vnode has seen, from disk if it was not used since the start.
    pub(crate) fn clock(&self, id: VnodeId) -> Result<DotSet, StorageError> {
        match self.vnodes.get(&id) {
            Some(vnode) => Ok(vnode.clock().clone()),
            None => Ok(Vnode::load(&self.storage, id)?.clock().clone()),
        }
    }

    /// What keeps late copies out of a vnode, from disk if it was not used since the start.
    pub(crate) fn seen(&self, id: VnodeId) -> Result<DotSet, StorageError> {
        match self.vnodes.get(&id) {
            Some(vnode) => Ok(vnode.seen().clone()),
            None => Ok(Vnode::load(&self.storage, id)?.seen().clone()),
        }
    }

    /// Answers a read, at once where what it shows is as durable as an acknowledgement would be. Else the answer comes out
    /// of [`Replica::advance`]: a client that has seen a value may remove what it replaced, and a crash must not take
    /// the value and bring that back.
    pub(crate) fn show(&mut self, read: &Read, waiter: W) -> Option<(W, ReplicaReply)> {
        let reply = self.read(read);
        let at = keys::record(read.vnode, read.bucket, &read.key);
        self.once_kept(&at, reply, waiter)
    }

    /// Tells a reply about the record at this place: at once, if that is as durable as an acknowledgement would be. Else it comes out of
    /// [`Replica::advance`].
    pub(crate) fn once_kept(
        &mut self,
        at: &[u8],
        reply: ReplicaReply,
        waiter: W,
    ) -> Option<(W, ReplicaReply)> {
        let Some(ticket) = self.unwritten.get(at) else {
            return Some((waiter, reply));
        };
        if let Some(reason) = &self.poisoned {
            // It never will be.
            return Some((
                waiter,
                ReplicaReply::Refused(Refusal::Poisoned(reason.clone())),
            ));
        }
        self.reads.entry(*ticket).or_default().push((waiter, reply));
        None
    }

    /// Tells a reply that was made from what is stored now: at once if all of that is as durable as an acknowledgement would
    /// be. Else it comes out of [`Replica::advance`], as that of a read.
    pub(crate) fn once_written(
        &mut self,
        reply: ReplicaReply,
        waiter: W,
    ) -> Option<(W, ReplicaReply)> {
        if self.progress.written >= self.last {
            return Some((waiter, reply));
        }
        if let Some(reason) = &self.poisoned {
            let refused = ReplicaReply::Refused(Refusal::Poisoned(reason.clone()));
            return Some((waiter, refused));
        }
        self.reads
            .entry(self.last)
            .or_default()
            .push((waiter, reply));
        None
    }

    /// Tells a reply once everything committed so far is synced: at once if it is.
    pub(crate) fn once_synced(
        &mut self,
        reply: ReplicaReply,
        waiter: W,
    ) -> Option<(W, ReplicaReply)> {
        match self.sync() {
            Ok(due) if self.progress.synced >= due.ticket => Some((waiter, reply)),
            Ok(due) => {
                let replies = self.once_synced.entry(due.ticket).or_default();
                replies.push((waiter, reply));
                None
            }
            Err(refusal) => Some((waiter, ReplicaReply::Refused(refusal))),
        }
    }

    /// These other nodes are asked what they remember of this one.
    pub(crate) fn ask_others(&mut self, witnesses: BTreeSet<NodeId>) {
        self.lineage.ask(witnesses);
    }

    /// Whether enough others have told what they remember of this node.
    pub(crate) fn is_verified(&self) -> bool {
        self.lineage.is_verified()
    }

    /// What is stored under the key of a record, dead or not.
    pub(crate) fn stored(&self, at: &[u8]) -> Result<Option<Record>, Refusal> {
        let stored = self.storage.get(Family::Records, at);
        let stored = stored.map_err(|e| unreadable(&e))?;
        stored.map(|stored| decode(&stored)).transpose()
    }

    /// What this replica has, on disk or on its way there, but for what is dead: that is not there any more, and is dropped
    /// sooner or later.
    pub(crate) fn read(&mut self, read: &Read) -> ReplicaReply {
        if let Err(refusal) = self.answers_for(read.vnode, read.bucket, &read.key, read.strict) {
            return ReplicaReply::Refused(refusal);
        }
        let reply = self.alive(read);
        if let ReplicaReply::Refused(Refusal::Corrupt(_)) = reply {
            self.mark_damaged(read.vnode, read.bucket, &read.key);
        }
        reply
    }

    fn alive(&self, read: &Read) -> ReplicaReply {
        let dead_ms = self.moment.dead_ms;
        let at = keys::record(read.vnode, read.bucket, &read.key);
        let stored = match self.storage.get(Family::Records, &at) {
            Ok(stored) => stored.unwrap_or_default(),
            Err(error) => return ReplicaReply::Refused(unreadable(&error)),
        };
        if !read.digest_only {
            // Decoded here as well, so that a record that makes no sense is this replica's failure and no other's.
            return match decode(&stored) {
                Ok(mut record) => match record.drop_expired(dead_ms).is_empty() {
                    true => ReplicaReply::Record(stored),
                    false if record.is_empty() => ReplicaReply::Record(Bytes::new()),
                    false => ReplicaReply::Record(record.encode()),
                },
                Err(refusal) => ReplicaReply::Refused(refusal),
            };
        }
        if stored.is_empty() {
            return ReplicaReply::Digest(Record::new().digest().0);
        }
        match Record::digest_of(&stored, dead_ms) {
            Ok(Digest(digest)) => ReplicaReply::Digest(digest),
            Err(error) => ReplicaReply::Refused(Refusal::Corrupt(error.to_string())),
        }
    }

    /// Joins a record. The answer is due when [`Replica::due`] says so.
    pub(crate) fn merge(&mut self, merge: &Merge) -> Result<Due, Refusal> {
        let incoming = Record::decode(&merge.record)
            .map_err(|e| Refusal::Malformed(format!("the record to merge is {e}")))?;
        if self
            .vnodes
            .get(&merge.vnode)
            .is_some_and(|v| v.disowns(&incoming))
        {
            return Err(Refusal::Malformed(
                "the record to merge names a write of this replica that it never made".to_owned(),
            ));
        }
        let record = self.load(merge.vnode, merge.bucket, &merge.key)?;
        let level = level_of(merge.durable);
        self.apply(
            merge.vnode,
            merge.bucket,
            &merge.key,
            record,
            (&incoming, Source::Write),
            level,
        )
        .and_then(|applied| match applied.kept_out {
            // Whoever sent it would count on its being here.
            true => Err(Refusal::Corrupt(
                "the value is one that others had seen and did not have any more: its absence is being looked into"
                    .to_owned(),
            )),
            false => Ok(applied.due),
        })
    }

    /// Mints a dot for a put, or removes what a delete's client had read, and joins the result like any other record.
    ///
    /// A put also removes what of its key has expired here: nobody is shown that any more, so nobody could resolve it, and
    /// a key that is put to again and again would come to hold more than it may.
    pub(crate) fn write(&mut self, mut write: Write) -> Result<(Due, Written), Refusal> {
        let Moment { wall_ms, dead_ms } = self.moment;
        let record = self.load(write.vnode, write.bucket, &write.key)?;
        if write.payload.is_some() {
            for sibling in record.live() {
                // What is dead goes without a trace.
                if sibling.is_expired(wall_ms) && !sibling.is_expired(dead_ms) {
                    write.removed.insert_span(sibling.span);
                }
            }
        }
        if let Some(payload) = &write.payload {
            room_for_one_more(&record, dead_ms, &write, payload)?;
            // Before the dot is minted: one that nothing ever carries would leave a hole in every clock for good.
            self.has_room()?;
        }
        let put = write.payload.map(|payload| {
            let at = keys::record(write.vnode, write.bucket, &write.key);
            let vnode = self.vnodes.get_mut(&write.vnode);
            let vnode = vnode.expect("it was just loaded");
            Sibling {
                span: vnode.mint(&at, &mut self.rng),
                payload,
                expires: write.expires,
            }
        });
        let delta = Record::from_parts(put.into_iter().collect(), write.removed);
        let level = level_of(write.durable);
        let delta_of = (&delta, Source::Write);
        let applied = self.apply(
            write.vnode,
            write.bucket,
            &write.key,
            record,
            delta_of,
            level,
        )?;
        Ok((
            applied.due,
            Written {
                own: delta.context(),
                delta: delta.encode(),
                removed: delta.evidence().clone(),
                record: applied.record,
            },
        ))
    }

    /// Whether what is due has happened: `Some(synced)` if so. Else `waiter` comes out of [`Replica::advance`] once it has.
    pub(crate) fn due(&mut self, due: Due, waiter: W) -> Option<(W, bool)> {
        let synced = self.progress.synced >= due.ticket;
        match due.level {
            _ if synced => Some((waiter, true)),
            Level::Written if self.progress.written >= due.ticket => Some((waiter, false)),
            Level::Written => {
                self.for_written.push_back((due.ticket, waiter));
                None
            }
            Level::Synced => {
                self.for_synced.push_back((due.ticket, waiter));
                None
            }
        }
    }

    /// Takes note of how far the disk has come; calls `tell` with each waiter that is served, and its answer.
    pub(crate) fn advance(&mut self, progress: Progress, mut tell: impl FnMut(W, ReplicaReply)) {
        if self.poisoned.is_some() {
            return;
        }
        self.storage.advance(progress);
        self.progress = progress;
        self.lineage.advance(progress.written);
        while let Some((ticket, waiter)) = pop_up_to(&mut self.for_written, progress.written) {
            let synced = ticket <= progress.synced;
            tell(waiter, ReplicaReply::Merged { synced });
        }
        while let Some((_, waiter)) = pop_up_to(&mut self.for_synced, progress.synced) {
            tell(waiter, ReplicaReply::Merged { synced: true });
        }
        while let Some((ticket, at)) = pop_up_to(&mut self.commits, progress.written) {
            if self.unwritten.get(&at) == Some(&ticket) {
                self.unwritten.remove(&at);
            }
        }
        while let Some(reads) = self.reads.first_entry() {
            if *reads.key() > progress.written {
                break;
            }
            for (waiter, reply) in reads.remove() {
                tell(waiter, reply);
            }
        }
        while let Some(replies) = self.once_synced.first_entry() {
            if *replies.key() > progress.synced {
                break;
            }
            for (waiter, reply) in replies.remove() {
                tell(waiter, reply);
            }
        }
    }

    /// The disk failed: nothing is acknowledged from here on. Returns whoever waited in vain.
    pub(crate) fn poison(&mut self, reason: String) -> Vec<W> {
        self.poisoned.get_or_insert(reason);
        let written = self.for_written.drain(..);
        let synced = self.for_synced.drain(..);
        let waiters = written.chain(synced).map(|(_, waiter)| waiter);
        let reads = std::mem::take(&mut self.reads).into_values();
        let replies = reads.chain(std::mem::take(&mut self.once_synced).into_values());
        let replies = replies.flatten().map(|(waiter, _)| waiter);
        waiters.chain(replies).collect()
    }

    /// Commits what belongs to no vnode.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<(), Refusal> {
        if let Some(reason) = &self.poisoned {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        self.last = self.storage.commit(batch, Level::Written);
        Ok(())
    }

    /// A vnode is none of this replica's any more: nothing of it stays in memory.
    pub(crate) fn forget_vnode(&mut self, vnode: VnodeId) {
        self.vnodes.remove(&vnode);
        self.trees.remove(&vnode);
        self.pending.remove(&vnode);
        self.newcomers.remove(&vnode);
        self.damaged.retain(|(of, ..)| *of != vnode);
        self.residue.retain(|(of, ..), _| *of != vnode);
        self.late.retain(|(of, ..), _| *of != vnode);
    }

    /// Commits what belongs to no vnode, to be synced. Returns when it is.
    pub(crate) fn commit_synced(&mut self, batch: Batch) -> Result<Ticket, Refusal> {
        if let Some(reason) = &self.poisoned {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        self.last = self.storage.commit(batch, Level::Synced);
        Ok(self.last)
    }

    /// Commits what changes the data of this replica, and gives the commit its number (rule R2).
    pub(crate) fn commit_numbered(&mut self, mut batch: Batch, level: Level) {
        self.lineage.number(&mut batch);
        self.last = self.storage.commit(batch, level);
        self.lineage.on_its_way(self.last);
    }

    /// When everything committed so far is on disk.
    pub(crate) fn sync(&mut self) -> Result<Due, Refusal> {
        if let Some(reason) = &self.poisoned {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        if self.progress.synced < self.last {
            self.last = self.storage.commit(Batch::new(), Level::Synced);
        }
        Ok(Due {
            ticket: self.last,
            level: Level::Synced,
        })
    }

    /// The record of a key; and its vnode is loaded.
    pub(crate) fn load(
        &mut self,
        id: VnodeId,
        bucket: BucketId,
        key: &[u8],
    ) -> Result<Record, Refusal> {
        self.vnode(id)?;
        let stored = self
            .storage
            .get(Family::Records, &keys::record(id, bucket, key))
            .map_err(|e| unreadable(&e));
        let record = stored.and_then(|stored| decode(&stored.unwrap_or_default()));
        if let Err(Refusal::Corrupt(_)) = record {
            self.mark_damaged(id, bucket, &Bytes::copy_from_slice(key));
        }
        record
    }

    /// A vnode, loaded if it was not used since the start.
    pub(crate) fn vnode(&mut self, id: VnodeId) -> Result<&mut Vnode, Refusal> {
        if let Some(reason) = &self.poisoned {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        self.vnode_unchecked(id)
    }

    /// The same also where the disk acknowledges nothing any more.
    pub(crate) fn vnode_unchecked(&mut self, id: VnodeId) -> Result<&mut Vnode, Refusal> {
        if !self.vnodes.contains_key(&id) {
            let vnode = Vnode::load(&self.storage, id).map_err(|e| unreadable(&e))?;
            self.vnodes.insert(id, vnode);
        }
        Ok(self.vnodes.get_mut(&id).expect("it was just loaded"))
    }

    /// Joins what came into a record that was just loaded, and commits what that changes.
    pub(crate) fn apply(
        &mut self,
        id: VnodeId,
        bucket: BucketId,
        key: &[u8],
        mut record: Record,
        (incoming, source): (&Record, Source),
        level: Level,
    ) -> Result<Applied, Refusal> {
        let at = Bytes::from(keys::record(id, bucket, key));
        if !incoming.evidence().is_empty() {
            self.removal_came(&at);
        }
        let before = Shape::of(&record);
        // What is dead goes as soon as its record is touched, and what comes dead is marked as seen and not stored.
        let dead_ms = self.moment.dead_ms;
        let dropped = record.drop_expired(dead_ms).len();
        let alive = incoming.expired(dead_ms).next().map(|_| {
            let mut alive = incoming.clone();
            alive.drop_expired(dead_ms);
            alive
        });
        let recalled = self.recalled(id, bucket, key, incoming);
        if let Some(removed) = &recalled {
            let mut evidence = record.evidence().clone();
            evidence.join(removed);
            record = Record::from_parts(record.live().to_vec(), evidence);
        }
        let filters = self.filters(id);
        let vnode = self.vnodes.get(&id).expect("it was just loaded");
        let mut alive = Cow::Borrowed(alive.as_ref().unwrap_or(incoming));
        let seen = filters.as_ref().unwrap_or(vnode.seen());
        let late = waits_for_judgement(&record, &alive, seen);
        let waits = !late.is_empty();
        if waits {
            // Nor anything else of it: a value without its removals would be shown beside what it replaced.
            alive = Cow::Owned(Record::from_parts(late, DotSet::new()));
        }
        // Where a value is gone by loss, its removal must be kept like any other. And a value that is new here is passed on from here, to
        // one who may still show what it replaced: so it keeps its removals.
        let nothing = DotSet::new();
        let brings_value = || {
            let mut values = alive.live().iter().map(|s| s.span.dot);
            values.any(|dot| !seen.contains(dot) && !record.evidence().contains(dot))
        };
        let known = match source {
            Source::Replica if !brings_value() => vnode.clock(),
            Source::Write | Source::Replica => &nothing,
        };
        let change = record.admit(&alive, known, seen);
        let kept_out = waits || change.late.iter().any(|dot| !vnode.clock().contains(*dot));
        let changed = dropped > 0 || recalled.is_some() || !change.is_none();
        if !change.added.is_empty() {
            // Wholly or not at all: with the removals taken and the value not, this replica would show neither.
            self.has_room()?;
        }
        let mut batch = Batch::new();
        if changed {
            self.sweep.dropped += dropped as u64;
            self.put_record(id, bucket, key, &before, &record, &mut batch);
        }
        let vnode = self.vnodes.get_mut(&id).expect("it was just loaded");
        vnode.saw(if waits { &alive } else { incoming }, &change, &mut batch);
        // A record that was there already may have come a moment ago and not be on disk yet, so that even then
        // the answer waits for whatever was committed last; and a sync has to be asked for.
        if !batch.is_empty() {
            self.commit_numbered(batch, level);
            if changed {
                self.note_unwritten(at);
            }
        } else if level == Level::Synced && self.progress.synced < self.last {
            self.last = self.storage.commit(batch, level);
        }
        self.note_late(id, bucket, key, &change.late);
        let due = Due {
            ticket: self.last,
            level,
        };
        Ok(Applied {
            due,
            record,
            kept_out,
        })
    }

    /// What keeps late copies out in place of what a vnode has seen: while it is being refilled also what the replica has seen with
    /// which it exchanges. Else what that one has removed and forgotten could come here in the middle, and be shown once all is
    /// adopted.
    fn filters(&self, id: VnodeId) -> Option<DotSet> {
        let (of, theirs) = self.filter.as_ref()?;
        (*of == id).then(|| {
            let mut all = self
                .vnodes
                .get(&id)
                .map_or_else(DotSet::new, |v| v.seen().clone());
            all.join(theirs);
            all
        })
    }

    /// Reads of the record have to wait until its last commit is written.
    pub(crate) fn note_unwritten(&mut self, at: Bytes) {
        self.unwritten.insert(at.clone(), self.last);
        self.commits.push_back((self.last, at));
    }
}

/// Where a record comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A client's write, a copy of one that was late, or the repair of a read: its removals are kept, whatever is known of them here.
    Write,
    /// Another replica in an exchange, or whoever collects: a removal of what was here and is gone is not taken again, or it would
    /// go to and fro between those that have forgotten it and those that have not; unless it comes with a value that is new here.
    Replica,
}

/// What came of joining something into a record.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) due: Due,
    /// The record afterwards.
    pub(crate) record: Record,
    /// Whether a value was kept out that never was here: others have seen it, and what became of it there is not known here. Or a
    /// removal, together with such a value.
    pub(crate) kept_out: bool,
}

/// What of the values that come is to be kept out until it is judged, if with them comes a removal of what is live in this record. Then the removal
/// has to wait for the judgement too: with it alone, this replica would show neither.
fn waits_for_judgement(record: &Record, incoming: &Record, seen: &DotSet) -> Vec<Sibling> {
    let is_live = |dot: Dot| record.live().iter().any(|s| s.span.dot == dot);
    let removes = |s: &Sibling| incoming.evidence().contains(s.span.dot);
    if !record.live().iter().any(removes) {
        return Vec::new();
    }
    let is_late =
        |dot: Dot| seen.contains(dot) && !record.evidence().contains(dot) && !is_live(dot);
    let brings = incoming.live().iter();
    brings.filter(|s| is_late(s.span.dot)).cloned().collect()
}

pub(crate) fn level_of(durable: bool) -> Level {
    match durable {
        true => Level::Synced,
        false => Level::Written,
    }
}

/// Whether a put leaves no more siblings than it may. One that makes things no worse is let through: it may be the
/// one that resolves.
fn room_for_one_more(
    record: &Record,
    dead_ms: u64,
    write: &Write,
    payload: &Bytes,
) -> Result<(), Refusal> {
    let live: Vec<&Sibling> = record
        .live()
        .iter()
        .filter(|s| !s.is_expired(dead_ms))
        .collect();
    let kept = live.iter().filter(|s| !write.removed.contains(s.span.dot));
    let (mut count, mut size) = (1, payload.len());
    for sibling in kept {
        count += 1;
        size += sibling.payload.len();
    }
    if count > write.siblings_max && count > live.len() {
        return Err(Refusal::TooManySiblings {
            count: count as u32,
            limit: write.siblings_max as u32,
        });
    }
    let before: usize = live.iter().map(|s| s.payload.len()).sum();
    if count > 1 && size > write.siblings_bytes_max && size > before {
        return Err(Refusal::SiblingsTooLarge {
            size: size as u64,
            limit: write.siblings_bytes_max as u64,
        });
    }
    Ok(())
}

/// The first of a queue that ascends, if its ticket is no later than `ticket`.
fn pop_up_to<W>(queue: &mut VecDeque<(Ticket, W)>, ticket: Ticket) -> Option<(Ticket, W)> {
    if queue.front()?.0 > ticket {
        return None;
    }
    queue.pop_front()
}

pub(crate) fn decode(stored: &Bytes) -> Result<Record, Refusal> {
    if stored.is_empty() {
        return Ok(Record::new());
    }
    Record::decode(stored).map_err(|e| Refusal::Corrupt(format!("a stored record is {e}")))
}

pub(crate) fn unreadable(error: &StorageError) -> Refusal {
    Refusal::Corrupt(error.to_string())
}
