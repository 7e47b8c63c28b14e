//! Ordered bytes made durable: the storage trait, RocksDB with one committer, and a deterministic memory engine.
//!
//! A replica decides on one thread and must never wait there for a disk. So reads are synchronous, and writes are
//! handed over: [`Storage::commit`] takes a [`Batch`], answers at once with a [`Ticket`], and durability arrives later
//! as an event, a [`Progress`] that says up to which ticket everything is on disk. In between, the core already reads
//! its own writes. Whoever waits for a write keeps its ticket and is answered when progress reaches it:
//!
//! ```
//! use quorate_storage::memory::MemoryDisk;
//! use quorate_storage::{Batch, CommitEvent, Family, Level, Storage, Ticket};
//!
//! let disk = MemoryDisk::new();
//! let mut storage = disk.open();
//!
//! let mut batch = Batch::new();
//! batch.put(Family::Records, &b"milk"[..], &b"2 litres"[..]);
//! let ticket = storage.commit(batch, Level::Synced);
//! assert_eq!(ticket, Ticket(1));
//! assert_eq!(storage.submit(), None); // its fate is reported later
//! assert!(storage.get(Family::Records, b"milk")?.is_some()); // read before it is on disk
//!
//! // Here the simulator plays the committer. With RocksDB a thread does, and calls back with the event.
//! disk.write_up_to(ticket);
//! let CommitEvent::Progress(progress) = disk.sync_up_to(ticket) else { unreachable!("the disk is sound") };
//! storage.advance(progress);
//! assert!(progress.synced >= ticket); // now whoever waits for the ticket may be answered
//! # Ok::<(), quorate_storage::StorageError>(())
//! ```
//!
//! # What every engine promises
//!
//! - Batches become durable in the order of their tickets, each whole or not at all. After a crash of the process
//!   everything *written* is there, after a loss of power everything *synced*, and beyond that some prefix of the rest.
//! - What an open finds is synced before the open returns: a replica that answers from it answers from the disk.
//! - After a failed write or sync the engine is *poisoned*: it says so once, claims no progress ever again, and does not
//!   try again. A kernel may drop the pages it failed to write and report success the next time, so that a second sync
//!   would acknowledge what is not there (the PostgreSQL developers' "fsyncgate" of 2018). Reads still work.
//! - What cannot be read is an error, never an absence: absence may be taken for a delete, damage must not be.
//!
//! The engines: [`memory`] for the simulator, and `rocks` (feature `rocksdb`) for everything else. No key means anything
//! here; that keys begin with their partition, so that a partition is one range, is the callers' business.

mod batch;
mod error;
pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;

use std::ops::ControlFlow;

use bytes::Bytes;

pub use batch::{Batch, Op};
pub use error::StorageError;

/// A set of entries of one kind, with an order and tuning of its own (a column family). A batch may span several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// The records of keys: large, read by point and scanned by partition.
    Records,
    /// What vnodes keep beside their records, such as the rows of their clocks: small and rewritten all the time.
    Vnodes,
    /// What the node knows about itself: a few entries.
    Meta,
    /// Writes held for other nodes.
    Hints,
    /// The leaves of the trees that replicas compare: one small entry for each record that has a live value.
    Trees,
    /// Which records have evidence that is still to be collected: one small entry each.
    Evidence,
    /// Which records have a value that ends, in the order of their deadlines: one small entry each.
    Deadlines,
}

impl Family {
    /// Every family, in order.
    pub const ALL: [Family; 7] = [
        Family::Records,
        Family::Vnodes,
        Family::Meta,
        Family::Hints,
        Family::Trees,
        Family::Evidence,
        Family::Deadlines,
    ];

    /// What the family is called on disk and in messages. Never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Records => "records",
            Family::Vnodes => "vnodes",
            Family::Meta => "meta",
            Family::Hints => "hints",
            Family::Trees => "trees",
            Family::Evidence => "evidence",
            Family::Deadlines => "deadlines",
        }
    }
}

/// The number of a commit: from 1 after each open, rising by one. `Ticket(0)` stands before all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The ticket of the next commit.
    pub const fn next(self) -> Ticket {
        Ticket(self.0 + 1)
    }
}

/// What the answer that depends on a commit waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// The operating system has it: it survives the process, not the power.
    Written,
    /// The disk has it: it survives both. The engine syncs for its sake, also where it would not otherwise.
    Synced,
}

/// How far the disk has come: "durable up to here". Never falls while the engine is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Every batch up to this one is with the operating system.
    pub written: Ticket,
    /// Every batch up to this one is on the disk. Never above `written`.
    pub synced: Ticket,
}

/// What an engine reports about the batches handed to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitEvent {
    /// More is durable.
    Progress(Progress),
    /// A write or a sync failed, and why. Comes once and last: what is above the last progress may or may not be on
    /// disk, now and after a restart, and nothing committed from here on will be.
    Poisoned(String),
}

/// Is shown a key and its value, and says whether it wants to see the next.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map of bytes in families, with reads at once and durability later. See the crate's page for the promises.
pub trait Storage {
    /// The value of a key as of every batch committed so far, written or not: a core reads its own writes.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] if what is stored there is damaged, [`StorageError::Io`] if it could not be read.
    /// Neither changes anything, and neither says that the key is absent.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Shows `visitor` the entries with `from <= key < to` in the order of their keys, as of every batch committed so far,
    /// until it breaks off. Without `to` there is no upper end. What is shown is not copied for it, so a visitor that looks
    /// at little of each entry costs little.
    ///
    /// # Errors
    ///
    /// As [`Storage::get`]. What was shown before the damage is no range that is whole: it is to be thrown away, or
    /// taken for what it is.
    fn visit(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError>;

    /// The entries with `from <= key < to` in the order of their keys, at most `limit`, as of every batch committed so
    /// far. Without `to` there is no upper end. To go on, scan from the last key with a zero byte appended.
    ///
    /// # Errors
    ///
    /// As [`Storage::get`]. A range with damage in it yields nothing rather than a part that looks whole.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let mut found = Vec::new();
        if limit > 0 {
            self.visit(family, from, to, &mut |key, value| {
                found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                if found.len() < limit {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        Ok(found)
    }

    /// Takes a batch and returns its ticket; never waits for the disk. [`Storage::submit`] sends it on its way. A batch without operations is in order and
    /// has its ticket like any other: with [`Level::Synced`] it asks that all before it be synced.
    ///
    /// Cannot fail: what becomes of the batch comes as a [`CommitEvent`]. On a poisoned engine nothing becomes of it,
    /// though reads show it until the next open.
    fn commit(&mut self, batch: Batch, level: Level) -> Ticket;

    /// Sends what was committed since the last call on its way to the disk. To be called once whoever commits has done all
    /// that it had to do for now: one call for many batches saves a hand-over for each.
    ///
    /// Returns what would else be reported as an event, where it is known at once: an engine may write by itself what need
    /// not be synced. It is not reported again.
    #[must_use = "what is reported here is not reported elsewhere"]
    fn submit(&mut self) -> Option<CommitEvent> {
        None
    }

    /// Tells the engine that its report of this progress has arrived here: what is written need no longer be kept aside
    /// for reads. Progress that has been passed already changes nothing.
    fn advance(&mut self, progress: Progress);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_index_arrays_in_the_order_of_all() {
        for (i, family) in Family::ALL.into_iter().enumerate() {
            assert_eq!(family as usize, i);
        }
    }
}
