//! What is left of removals whose evidence was forgotten: the counters in them that this replica has not seen.
//!
//! Evidence comes in runs, and which counters of a run are dots of its key is not known, but for the last. A counter that never
//! came here may be a dot of another key that is still on its way, or was lost with the disk of its maker; or one of
//! this key's that a fallback has yet to hand over. What is seen keeps copies out by itself. So where a replica forgets
//! evidence it notes the rest here, for itself alone: should such a dot come for this very key, it is removed.
//!
//! *Invariant (R15):* of a removal that is forgotten, each replica has seen every counter, or has it here.

use std::collections::BTreeMap;

use quorate_causal::{DotSet, Record};
use quorate_protocol::{BucketId, Removal, VnodeId};
use quorate_storage::{Batch, Family, Level, Storage, StorageError};

use bytes::Bytes;

use crate::damage::named;
use crate::judge::KeyAt;
use crate::keys;
use crate::replica::Replica;

/// How many keys are looked at in one go, to see whether what was not seen was seen since.
const TRIM_AT_ONCE: usize = 256;

/// What is on record.
pub(crate) fn load(storage: &impl Storage) -> Result<BTreeMap<KeyAt, DotSet>, StorageError> {
    let end = keys::end_of(keys::RESIDUE);
    let rows = storage.scan(Family::Meta, keys::RESIDUE, end.as_deref(), usize::MAX)?;
    let mut residue = BTreeMap::new();
    for (row, dots) in rows {
        let (Some(at), Ok(dots)) = (named(&row[keys::RESIDUE.len()..]), DotSet::decode(&dots))
        else {
            return Err(StorageError::Corrupt {
                family: Family::Meta,
                key: row,
                reason: "not a row about what is left of removals".to_owned(),
            });
        };
        residue.insert(at, dots);
    }
    Ok(residue)
}

impl<S: Storage, W> Replica<S, W> {
    /// What is left of removals of this key.
    pub(crate) fn residue_of(
        &self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &[u8],
    ) -> Option<&DotSet> {
        // Mostly there is none, and then nothing need be copied to look.
        match self.residue.is_empty() {
            true => None,
            false => self
                .residue
                .get(&(vnode, bucket, Bytes::copy_from_slice(key))),
        }
    }

    /// The values of `incoming` that were removed here and never seen: their removal, to be joined first.
    pub(crate) fn recalled(
        &self,
        vnode: VnodeId,
        bucket: BucketId,
        key: &[u8],
        incoming: &Record,
    ) -> Option<DotSet> {
        let residue = self.residue_of(vnode, bucket, key)?;
        let live = incoming.live().iter().map(|s| s.span.dot);
        let removed: DotSet = live.filter(|dot| residue.contains(*dot)).collect();
        (!removed.is_empty()).then_some(removed)
    }

    /// Notes what is left of a removal that is being forgotten.
    pub(crate) fn leave(&mut self, at: KeyAt, rest: &DotSet, batch: &mut Batch) {
        if rest.is_empty() {
            return;
        }
        let row = keys::residue(at.0, at.1, &at.2);
        let residue = self.residue.entry(at).or_default();
        if residue.join(rest) {
            batch.put(Family::Meta, row, residue.encode());
        }
    }

    /// Lets go of what was seen since, and of what `is_over`. A little at a time.
    pub(crate) fn trim_residue(&mut self, is_over: impl Fn(&KeyAt) -> bool) {
        let from = self.trimmed.take();
        let after = |at: &KeyAt| from.as_ref().is_none_or(|from| at > from);
        let keys = self.residue.keys().filter(|at| after(at));
        let keys: Vec<KeyAt> = keys.take(TRIM_AT_ONCE).cloned().collect();
        let mut batch = Batch::new();
        for at in &keys {
            let Ok(vnode) = self.vnode(at.0) else { return };
            let seen = vnode.seen().clone();
            let Some(residue) = self.residue.get_mut(at) else {
                continue;
            };
            let row = keys::residue(at.0, at.1, &at.2);
            if is_over(at) {
                *residue = DotSet::new();
            } else if !residue.subtract(&seen) {
                continue;
            }
            match residue.is_empty() {
                true => {
                    self.residue.remove(at);
                    batch.delete(Family::Meta, row);
                }
                false => batch.put(Family::Meta, row, residue.encode()),
            }
        }
        if !batch.is_empty() {
            self.commit_numbered(batch, Level::Written);
        }
        self.trimmed = keys.last().filter(|_| keys.len() == TRIM_AT_ONCE).cloned();
    }

    /// What is left of removals in a vnode, for one that adopts what this one has seen: there it has to stay removed too.
    pub(crate) fn residue_in(&self, vnode: VnodeId) -> impl Iterator<Item = Removal> + '_ {
        let first = (vnode, BucketId([0; 16]), Bytes::new());
        let of = self.residue.range(first..);
        of.take_while(move |(at, _)| at.0 == vnode)
            .map(|((_, bucket, key), dots)| Removal {
                bucket: *bucket,
                key: key.clone(),
                dots: dots.encode(),
            })
    }
}
