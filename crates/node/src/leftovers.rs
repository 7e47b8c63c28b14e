//! Dropping vnodes that this node holds no more, since the layout changed: a little at a time, resumed after a restart.
//!
//! *Invariant:* a layout by which this node would hold a vnode again is not learnt before what is left of it is gone: its clock would speak of
//! values that went elsewhere meanwhile.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_causal::Record;
use quorate_protocol::VnodeId;
use quorate_ring::ReplicaSetId;
use quorate_storage::{Batch, Family, Storage, StorageError};

use crate::api::{Event, Output};
use crate::jobs::SEEK_UNITS;
use crate::keys;
use crate::layouts::Layouts;
use crate::node::Node;
use crate::placement::Placement;
use crate::scan::cost;

/// What is left of one vnode.
#[derive(Debug)]
pub(crate) struct DropJob {
    vnode: VnodeId,
    /// Where its records go on; `None` once they are gone, and its other rows are to go.
    records: Option<Vec<u8>>,
}

impl DropJob {
    pub(crate) fn new(vnode: VnodeId) -> Self {
        DropJob {
            vnode,
            records: Some(keys::records_in(vnode.partition)),
        }
    }
}

impl<S: Storage> Node<S> {
    /// The vnodes of which there are rows.
    fn stored_vnodes(&self) -> Result<BTreeSet<VnodeId>, StorageError> {
        let mut all = BTreeSet::new();
        for family in [Family::Vnodes, Family::Trees, Family::Evidence] {
            let mut from = Some(Vec::new());
            while let Some(at) = from.take() {
                let mut found = None;
                let storage = self.replica.storage();
                storage.visit(family, &at, None, &mut |row, _| {
                    found = keys::vnode_of(row);
                    ControlFlow::Break(())
                })?;
                if let Some(vnode) = found {
                    all.insert(vnode);
                    from = keys::end_of(&keys::vnode_prefix(vnode));
                }
            }
        }
        Ok(all)
    }

    /// Has what is left of vnodes removed that this node holds no more.
    pub(crate) fn clear_leftovers(&mut self) {
        let Ok(stored) = self.stored_vnodes() else {
            return; // It is tried again after the next start.
        };
        for vnode in stored {
            // Of a replica set that no bucket has any more nothing is known. And what no node at all would hold stays where it is.
            let placement = self.buckets.placement(vnode.set);
            let is_elsewhere = placement.is_some_and(|p| !p.primaries(vnode.partition).is_empty());
            if is_elsewhere && !self.is_seat(vnode) && self.filling.leftovers.insert(vnode) {
                self.jobs.clear(DropJob::new(vnode));
            }
        }
    }

    /// Whether a layout would have this node hold a vnode of which something is left from before.
    pub(crate) fn is_clearing_for(&self, layouts: &Layouts) -> bool {
        let me = self.config.me;
        let leftovers = &self.filling.leftovers;
        let sets: BTreeSet<ReplicaSetId> = leftovers.iter().map(|vnode| vnode.set).collect();
        sets.into_iter().any(|set| {
            let placement = self.buckets.placement(set);
            let placement = placement.map(|p| p.under(layouts, me));
            let mut of_set = leftovers.iter().filter(|vnode| vnode.set == set);
            placement.is_some_and(|p: Placement| of_set.any(|vnode| p.is_seat(*vnode, me)))
        })
    }

    /// Removes some of what is left of a vnode. Returns whether there is more.
    pub(crate) fn drop_slice(
        &mut self,
        job: &mut DropJob,
        units: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let vnode = job.vnode;
        let mut batch = Batch::new();
        let mut units = units.max(SEEK_UNITS + 1);
        let is_at_rows = job.records.is_none();
        let more = match job.records.take() {
            Some(from) => {
                let next = self.drop_records(vnode, &from, &mut units, &mut batch);
                next.map(|next| {
                    job.records = next;
                    true
                })
            }
            None => self.drop_rows(vnode, &mut units, &mut batch),
        };
        self.replica.forget_vnode(vnode);
        // What cannot be read or removed now is tried again after the next start.
        let Ok(more) = more else {
            return false;
        };
        if self.replica.commit(batch).is_err() {
            return false;
        }
        if is_at_rows && !more {
            self.filling.leftovers.remove(&vnode);
            out.push(Output::Event(Event::VnodeDropped));
            if let Some(told) = self.filling.postponed.take() {
                self.take_layouts(&told, out);
            }
        }
        more
    }

    /// Its records, but not those of other replica sets. Returns where to go on.
    fn drop_records(
        &self,
        vnode: VnodeId,
        from: &[u8],
        units: &mut usize,
        batch: &mut Batch,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let to = keys::end_of(&keys::records_in(vnode.partition));
        let mut last = None;
        let buckets = &self.buckets;
        let storage = self.replica.storage();
        let is_of_it = |key: &[u8]| {
            let bucket = keys::of_record(key).map(|(_, bucket, _)| bucket);
            bucket.and_then(|b| buckets.set_of(b)) == Some(vnode.set)
        };
        let visited = storage.visit(Family::Records, from, to.as_deref(), &mut |key, record| {
            if is_of_it(key) {
                batch.delete(Family::Records, Bytes::copy_from_slice(key));
                for deadline in Record::deadlines_of(record).unwrap_or_default() {
                    batch.delete(Family::Deadlines, keys::deadline(deadline, key));
                }
            }
            *units = units.saturating_sub(cost(record));
            if *units > 0 {
                return ControlFlow::Continue(());
            }
            last = Some([key, &[0]].concat());
            ControlFlow::Break(())
        });
        match visited {
            // Nobody needs it any more, readable or not.
            Err(StorageError::Corrupt { key, .. }) if key >= from => {
                last = Some([&key[..], &[0]].concat());
                if is_of_it(&key) {
                    batch.delete(Family::Records, key);
                }
            }
            visited => visited?,
        }
        Ok(last)
    }

    /// Its tree, its marks of evidence, and at last its clock. Returns whether there is more.
    fn drop_rows(
        &self,
        vnode: VnodeId,
        units: &mut usize,
        batch: &mut Batch,
    ) -> Result<bool, StorageError> {
        let prefix = keys::vnode_prefix(vnode);
        let in_meta = |name: &[u8]| [name, &prefix].concat();
        let ranges = [
            (Family::Trees, prefix.clone()),
            (Family::Evidence, prefix.clone()),
            (Family::Meta, in_meta(keys::DAMAGED)),
            (Family::Meta, in_meta(keys::RESIDUE)),
            (Family::Vnodes, prefix.clone()),
        ];
        let storage = self.replica.storage();
        for (family, from) in ranges {
            let to = keys::end_of(&from);
            let mut more = false;
            storage.visit(family, &from, to.as_deref(), &mut |row, _| {
                if *units == 0 {
                    more = true;
                    return ControlFlow::Break(());
                }
                *units -= 1;
                batch.delete(family, Bytes::copy_from_slice(row));
                ControlFlow::Continue(())
            })?;
            if more {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
