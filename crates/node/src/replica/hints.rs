//! What a replica keeps for primaries that are out of reach.
//!
//! A hint is a row of its own: for whom, of which seat, bucket and key, and the record to be handed over. Two hints for one
//! key are joined like any two records. How many there are, and of how many bytes, is kept for each owner in a row that is
//! rewritten in the same batch, so that a restart need not go through them all to know.
//!
//! *Invariant:* a hint that was acknowledged goes only when its owner has it on disk, or when its bucket's life is over.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_causal::{Record, Sibling};
use quorate_protocol::{BucketId, Merge, Read, Refusal, ReplicaReply, VnodeId};
use quorate_ring::{NodeId, Partition, ReplicaSetId};
use quorate_storage::{Batch, Family, Level, Storage, StorageError, Ticket};

use super::{Due, Replica, Write, Written, decode, room_for_one_more, unreadable};
use crate::keys;
use crate::vnode::Vnode;

/// What is held for one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    /// How many hints: one a key.
    pub(crate) count: u64,
    /// Their bytes, keys and records together.
    pub(crate) bytes: u64,
}

/// One hint as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hint {
    /// Where it is stored.
    pub(crate) row: Bytes,
    /// The record to be handed over, encoded.
    pub(crate) record: Bytes,
}

/// What the key of a hint's row says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HintKey {
    pub(crate) owner: NodeId,
    pub(crate) vnode: VnodeId,
    pub(crate) bucket: BucketId,
    pub(crate) key: Bytes,
}

impl HintKey {
    /// Reads the key of a row; `None` if it is none.
    pub(crate) fn parse(row: &[u8]) -> Option<Self> {
        let (owner, rest) = row.split_first_chunk::<8>()?;
        let (partition, rest) = rest.split_first_chunk::<2>()?;
        let (set, rest) = rest.split_first_chunk::<8>()?;
        let (bucket, key) = rest.split_first_chunk::<16>()?;
        Some(HintKey {
            owner: NodeId(u64::from_be_bytes(*owner)),
            vnode: VnodeId {
                partition: Partition(u16::from_be_bytes(*partition)),
                set: ReplicaSetId(u64::from_be_bytes(*set)),
            },
            bucket: BucketId(*bucket),
            key: Bytes::copy_from_slice(key),
        })
    }
}

impl<S: Storage, W> Replica<S, W> {
    /// Reads how much is held for whom.
    pub(crate) fn load_hints(&mut self) -> Result<(), StorageError> {
        let (mut held, mut corrupt) = (BTreeMap::new(), None);
        crate::buckets::rows(&self.storage, keys::HINTS_HELD, |owner, row| {
            let number: Result<[u8; 16], _> = row.try_into();
            match (<[u8; 8]>::try_from(owner), number.map(u128::from_be_bytes)) {
                (Ok(owner), Ok(number)) => {
                    let held_for = Held {
                        count: (number >> 64) as u64,
                        bytes: number as u64,
                    };
                    held.insert(NodeId(u64::from_be_bytes(owner)), held_for);
                }
                _ => corrupt = Some([keys::HINTS_HELD, owner].concat()),
            }
        })?;
        self.hints = held;
        match corrupt {
            None => Ok(()),
            Some(key) => Err(StorageError::Corrupt {
                family: Family::Meta,
                key: key.into(),
                reason: "not a count of hints".to_owned(),
            }),
        }
    }

    /// For whom anything is held: also for those that are replicas of nothing any more.
    pub(crate) fn owners(&self) -> Vec<NodeId> {
        self.hints.keys().copied().collect()
    }

    /// What is held, by owner.
    pub(crate) fn held(&self) -> &BTreeMap<NodeId, Held> {
        &self.hints
    }

    /// Keeps a record for `owner`. The answer is due when [`Replica::due`] says so.
    ///
    /// # Errors
    /// A refusal, if there is no room for it or the disk cannot be trusted. Nothing is kept then.
    pub(crate) fn keep_hint(
        &mut self,
        owner: NodeId,
        merge: &Merge,
        limit: u64,
    ) -> Result<Due, Refusal> {
        let incoming = Record::decode(&merge.record)
            .map_err(|e| Refusal::Malformed(format!("the record to keep is {e}")))?;
        let mut batch = Batch::new();
        let row = Bytes::from(keys::hint(owner, merge.vnode, merge.bucket, &merge.key));
        let changed = self.join_hint(owner, row, &incoming, limit, &mut batch)?;
        Ok(self.commit_hints(batch, changed.into_iter().collect(), merge.durable))
    }

    /// Mints a dot for a put that no primary can coordinate, with a vnode of this node's own, and keeps the change for each
    /// of `owners` (rule R9). With no owners nothing is kept here, and nothing is due.
    ///
    /// As [`Replica::write`] does, a put also removes what of its key has expired among the hints.
    ///
    /// # Errors
    /// As [`Replica::keep_hint`], where there is room for none of them.
    pub(crate) fn write_for(
        &mut self,
        mut write: Write,
        owners: &[NodeId],
        all: &[NodeId],
        limit: u64,
    ) -> Result<(Option<Due>, Written), Refusal> {
        let mut record = self.hinted_record(write.vnode, write.bucket, &write.key, all)?;
        if write.payload.is_some() {
            for span in record.expired(self.moment.wall_ms) {
                write.removed.insert_span(span);
            }
        }
        if let Some(payload) = &write.payload {
            room_for_one_more(&record, self.moment.dead_ms, &write, payload)?;
        }
        if !self.vnodes.contains_key(&write.vnode) {
            let vnode = Vnode::load(&self.storage, write.vnode).map_err(|e| unreadable(&e))?;
            self.vnodes.insert(write.vnode, vnode);
        }
        let put = write.payload.map(|payload| {
            let at = keys::record(write.vnode, write.bucket, &write.key);
            let vnode = self
                .vnodes
                .get_mut(&write.vnode)
                .expect("it was just loaded");
            Sibling {
                span: vnode.mint(&at, &mut self.rng),
                payload,
                expires: write.expires,
            }
        });
        let delta = Record::from_parts(put.into_iter().collect(), write.removed);
        let (mut batch, mut rows) = (Batch::new(), Vec::new());
        let (mut kept, mut refused) = (0, None);
        for owner in owners {
            let row = Bytes::from(keys::hint(*owner, write.vnode, write.bucket, &write.key));
            match self.join_hint(*owner, row, &delta, limit, &mut batch) {
                Ok(changed) => {
                    kept += 1;
                    rows.extend(changed);
                }
                Err(refusal) => refused = Some(refusal),
            }
        }
        if let Some(refusal) = refused.filter(|_| kept == 0) {
            return Err(refusal);
        }
        let due = (kept > 0).then(|| self.commit_hints(batch, rows, write.durable));
        record.merge(&delta);
        let written = Written {
            own: delta.context(),
            delta: delta.encode(),
            removed: delta.evidence().clone(),
            record,
        };
        Ok((due, written))
    }

    /// Answers a read of what is kept of a key for any of these, as [`Replica::show`] does one of a record.
    pub(crate) fn show_hinted(
        &mut self,
        read: &Read,
        owners: &[NodeId],
        waiter: W,
    ) -> Option<(W, ReplicaReply)> {
        let reply = match self.hinted_record(read.vnode, read.bucket, &read.key, owners) {
            Ok(record) if record.is_empty() => ReplicaReply::Record(Bytes::new()),
            Ok(record) => ReplicaReply::Record(record.encode()),
            Err(refusal) => ReplicaReply::Refused(refusal),
        };
        let row = |owner: &NodeId| keys::hint(*owner, read.vnode, read.bucket, &read.key);
        let unwritten = owners
            .iter()
            .filter_map(|owner| self.unwritten.get(row(owner).as_slice()));
        let Some(ticket) = unwritten.max().copied() else {
            return Some((waiter, reply));
        };
        if let Some(reason) = &self.poisoned {
            let refused = ReplicaReply::Refused(Refusal::Poisoned(reason.clone()));
            return Some((waiter, refused));
        }
        self.reads.entry(ticket).or_default().push((waiter, reply));
        None
    }

    /// What is kept of a key for any of these, joined.
    pub(crate) fn hinted_record(
        &self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &[u8],
        owners: &[NodeId],
    ) -> Result<Record, Refusal> {
        let mut all = Record::new();
        for owner in owners {
            let row = keys::hint(*owner, vnode, bucket, key);
            let stored = self.storage.get(Family::Hints, &row);
            if let Some(stored) = stored.map_err(|e| unreadable(&e))? {
                all.merge(&decode(&stored)?);
            }
        }
        Ok(all)
    }

    /// The next hints for `owner` from a row on, at most `count` and not many more than `bytes`; and whether there are more.
    pub(crate) fn hints_for(
        &self,
        owner: NodeId,
        from: Option<&[u8]>,
        count: usize,
        bytes: usize,
    ) -> Result<(Vec<Hint>, bool), StorageError> {
        let prefix = keys::hints_of(owner);
        let to = keys::end_of(&prefix);
        let (mut found, mut size, mut more) = (Vec::new(), 0, false);
        let from = from.unwrap_or(&prefix);
        self.storage
            .visit(Family::Hints, from, to.as_deref(), &mut |row, record| {
                if found.len() >= count || size >= bytes {
                    more = true;
                    return ControlFlow::Break(());
                }
                size += row.len() + record.len();
                found.push(Hint {
                    row: Bytes::copy_from_slice(row),
                    record: Bytes::copy_from_slice(record),
                });
                ControlFlow::Continue(())
            })?;
        Ok((found, more))
    }

    /// Lets a hint go: any, or only if it is still what was handed over. Tells whether it went.
    ///
    /// # Errors
    /// A refusal, if the disk cannot be trusted. The hint stays.
    pub(crate) fn drop_hint(&mut self, row: &Bytes, only: Option<&Bytes>) -> Result<bool, Refusal> {
        if let Some(reason) = &self.poisoned {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        let stored = self.storage.get(Family::Hints, row);
        let Some(stored) = stored.map_err(|e| unreadable(&e))? else {
            return Ok(false);
        };
        if only.is_some_and(|only| *only != stored) {
            return Ok(false);
        }
        let mut batch = Batch::new();
        self.uncount_hint(row, stored.len(), &mut batch);
        self.last = self.storage.commit(batch, Level::Written);
        Ok(true)
    }

    /// Puts into `batch` that a hint goes whose record has so many bytes.
    pub(crate) fn uncount_hint(&mut self, row: &Bytes, record: usize, batch: &mut Batch) {
        batch.delete(Family::Hints, row.clone());
        let Some(owner) = HintKey::parse(row).map(|key| key.owner) else {
            return;
        };
        let held = self.hints.entry(owner).or_default();
        let size = (row.len() + record) as u64;
        held.count = held.count.checked_sub(1).expect("every hint is counted");
        held.bytes = held.bytes.checked_sub(size).expect("every hint is counted");
        self.put_held(owner, batch);
    }

    /// Joins a record into a hint's row. Returns the row, if that changed it.
    fn join_hint(
        &mut self,
        owner: NodeId,
        row: Bytes,
        incoming: &Record,
        limit: u64,
        batch: &mut Batch,
    ) -> Result<Option<Bytes>, Refusal> {
        if let Some(reason) = &self.poisoned {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        let stored = self.storage.get(Family::Hints, &row);
        let stored = stored.map_err(|e| unreadable(&e))?;
        let mut record = decode(&stored.clone().unwrap_or_default())?;
        if record.merge(incoming).is_none() {
            return Ok(None);
        }
        self.has_room()?;
        let encoded = record.encode();
        let before = stored.map_or(0, |stored| row.len() + stored.len()) as u64;
        let after = (row.len() + encoded.len()) as u64;
        let held = self.hints.get(&owner).copied().unwrap_or_default();
        let bytes = held.bytes - before + after;
        if bytes > limit && after > before {
            return Err(Refusal::HintsFull {
                held: held.bytes,
                limit,
            });
        }
        let count = held.count + u64::from(before == 0);
        self.hints.insert(owner, Held { count, bytes });
        batch.put(Family::Hints, row.clone(), encoded);
        self.put_held(owner, batch);
        Ok(Some(row))
    }

    fn put_held(&mut self, owner: NodeId, batch: &mut Batch) {
        let at = keys::hints_held(owner);
        match self.hints.get(&owner) {
            Some(held) if held.count > 0 => {
                let number = (u128::from(held.count) << 64) | u128::from(held.bytes);
                batch.put(Family::Meta, at, number.to_be_bytes().to_vec());
            }
            _ => {
                self.hints.remove(&owner);
                batch.delete(Family::Meta, at);
            }
        }
    }

    fn commit_hints(&mut self, batch: Batch, rows: Vec<Bytes>, durable: bool) -> Due {
        let level = if durable {
            Level::Synced
        } else {
            Level::Written
        };
        // As for records: what was there already may have come a moment ago.
        if !batch.is_empty() || (durable && self.progress.synced < self.last) {
            self.commit_numbered(batch, level);
            for row in rows {
                self.unwritten.insert(row.clone(), self.last);
                self.commits.push_back((self.last, row));
            }
        }
        let ticket: Ticket = self.last;
        Due { ticket, level }
    }
}
