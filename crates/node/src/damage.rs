//! Keys whose record was damaged or lost on this replica: absence there is neither a vote nor an answer (rule R18).

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_protocol::{BucketId, VnodeId};
use quorate_ring::{Partition, ReplicaSetId};
use quorate_storage::{Batch, Family, Level, Storage, StorageError};

use crate::api::{Event, Output};
use crate::judge::KeyAt;
use crate::keys;
use crate::node::Node;
use crate::replica::Replica;

/// The damaged keys that are on record.
pub(crate) fn load(
    storage: &impl Storage,
) -> Result<BTreeSet<(VnodeId, BucketId, Bytes)>, StorageError> {
    let end = keys::end_of(keys::DAMAGED);
    let rows = storage.scan(Family::Meta, keys::DAMAGED, end.as_deref(), usize::MAX)?;
    let mut damaged = BTreeSet::new();
    for (row, _) in rows {
        let Some(at) = named(&row[keys::DAMAGED.len()..]) else {
            return Err(StorageError::Corrupt {
                family: Family::Meta,
                key: row,
                reason: "not a row about a damaged key".to_owned(),
            });
        };
        damaged.insert(at);
    }
    Ok(damaged)
}

/// The vnode, the bucket and the key that a row names.
pub(crate) fn named(row: &[u8]) -> Option<KeyAt> {
    let (partition, rest) = row.split_first_chunk()?;
    let (set, _) = rest.split_first_chunk()?;
    let vnode = VnodeId {
        partition: Partition(u16::from_be_bytes(*partition)),
        set: ReplicaSetId(u64::from_be_bytes(*set)),
    };
    let (bucket, key) = keys::of_evidence(row)?;
    Some((vnode, bucket, Bytes::copy_from_slice(key)))
}

impl<S: Storage> Node<S> {
    /// Tells how many keys were found damaged.
    pub(crate) fn tell_damaged(&mut self, out: &mut Vec<Output>) {
        for _ in 0..std::mem::take(&mut self.replica.damage_found) {
            out.push(Output::Event(Event::DamageFound));
        }
    }
}

impl<S: Storage, W> Replica<S, W> {
    /// Whether a key's record is damaged or lost.
    pub(crate) fn is_damaged(&self, vnode: VnodeId, bucket: BucketId, key: &[u8]) -> bool {
        // Mostly there is none, and then nothing need be copied to look.
        !self.damaged.is_empty()
            && self
                .damaged
                .contains(&(vnode, bucket, Bytes::copy_from_slice(key)))
    }

    /// Puts a damaged key on record; returns whether that is news.
    pub(crate) fn mark_damaged(&mut self, vnode: VnodeId, bucket: BucketId, key: &Bytes) -> bool {
        if self.poisoned().is_some() || !self.damaged.insert((vnode, bucket, key.clone())) {
            return false;
        }
        self.damage_found += 1;
        let mut batch = Batch::new();
        let row = keys::damaged(vnode, bucket, key);
        batch.put(Family::Meta, row, Bytes::new());
        self.commit_numbered(batch, Level::Written);
        true
    }

    /// A key's record is made good.
    pub(crate) fn mended(
        &mut self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &Bytes,
        batch: &mut Batch,
    ) {
        if self.damaged.remove(&(vnode, bucket, key.clone())) {
            batch.delete(Family::Meta, keys::damaged(vnode, bucket, key));
        }
    }
}
