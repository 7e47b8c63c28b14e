//! Removing the records of a bucket's lives that are over, and the hints of such: a little at a time, resumed after a restart.
//!
//! Nobody can see them any more, so nothing but their space hurries. The row that asks for it stays until all are gone.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_causal::Record;
use quorate_protocol::BucketId;
use quorate_ring::Partition;
use quorate_storage::{Batch, Family, Storage, StorageError};

use crate::keys;
use crate::replica::HintKey;
use crate::scan::cost;

/// The records of all lives of one bucket before a certain one.
#[derive(Debug)]
pub(crate) struct ReclaimJob {
    /// The life from which on records stay.
    before: BucketId,
    /// The partitions to go through yet, the next one last.
    rest: Vec<Partition>,
    /// Where that one goes on: what is before it is removed, and need not be passed over again.
    from: Option<Vec<u8>>,
    /// Where the hints go on, which come after all partitions.
    from_hint: Vec<u8>,
}

impl ReclaimJob {
    pub(crate) fn new(before: BucketId, partitions: u16) -> Self {
        ReclaimJob {
            before,
            rest: (0..partitions).rev().map(Partition).collect(),
            from: None,
            from_hint: Vec::new(),
        }
    }

    /// What to remove next: some records, or at the end the row that asked for it. `None` if a partition could not be
    /// read: it is tried again after the next start.
    pub(crate) fn slice(
        &mut self,
        storage: &impl Storage,
        units: usize,
    ) -> Result<Slice, StorageError> {
        let mut batch = Batch::new();
        let mut hints = Vec::new();
        let mut units = units.max(crate::jobs::SEEK_UNITS + 1);
        while let Some(partition) = self.rest.last().copied() {
            if units <= crate::jobs::SEEK_UNITS {
                return Ok(Slice::More(batch, hints));
            }
            units -= crate::jobs::SEEK_UNITS;
            let from = self.from.take();
            let from = from.unwrap_or_else(|| keys::records_of(partition, self.before.life(0)));
            let to = keys::records_of(partition, self.before);
            let mut last = None;
            storage.visit(Family::Records, &from, Some(&to), &mut |key, record| {
                batch.delete(Family::Records, Bytes::copy_from_slice(key));
                // Of a record that makes no sense the rows go when their time has come.
                for deadline in Record::deadlines_of(record).unwrap_or_default() {
                    batch.delete(Family::Deadlines, keys::deadline(deadline, key));
                }
                units = units.saturating_sub(cost(record));
                if units > 0 {
                    return ControlFlow::Continue(());
                }
                last = Some([key, &[0]].concat());
                ControlFlow::Break(())
            })?;
            if last.is_none() {
                self.rest.pop();
            }
            self.from = last;
        }
        if units <= crate::jobs::SEEK_UNITS {
            return Ok(Slice::More(batch, hints));
        }
        // They stand in the order of those they are for, so that all are looked at.
        let (first, before) = (self.before.life(0), self.before);
        let mut last = None;
        storage.visit(Family::Hints, &self.from_hint, None, &mut |row, record| {
            let key = HintKey::parse(row);
            if key.is_some_and(|key| first <= key.bucket && key.bucket < before) {
                hints.push((Bytes::copy_from_slice(row), record.len()));
            }
            units = units.saturating_sub(cost(record));
            if units > 0 {
                return ControlFlow::Continue(());
            }
            last = Some([row, &[0]].concat());
            ControlFlow::Break(())
        })?;
        if let Some(last) = last {
            self.from_hint = last;
            return Ok(Slice::More(batch, hints));
        }
        batch.delete(Family::Meta, keys::reclaim(self.before));
        Ok(Slice::Last(batch, hints))
    }
}

/// What one slice removes, and of which hints: the row of each, and how many bytes its record has.
#[derive(Debug)]
pub(crate) enum Slice {
    /// There is more to do.
    More(Batch, Vec<(Bytes, usize)>),
    /// This was all.
    Last(Batch, Vec<(Bytes, usize)>),
}
