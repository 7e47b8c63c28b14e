//! A disk in memory that does nothing by itself: the engine of the simulator.
//!
//! A [`MemoryDisk`] is the medium and outlives the process that uses it; a [`MemoryStorage`] is one open of it. Nothing
//! becomes durable until the simulator says so, and each step answers with the [`CommitEvent`] that the driver is then to
//! deliver, sooner or later. What has been committed moves through three places, always in order:
//!
//! ```text
//!   committed  --write_up_to-->  written  --sync_up_to-->  synced
//!   lost by kill and crash       lost by crash             lost by nothing
//! ```
//!
//! A power loss may also leave part of what it could take: [`MemoryDisk::crash`] keeps as many batches as it is told,
//! each whole, as a log with checksums does. Everything is ordered and single-threaded; no clock, no randomness.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;

use crate::{Batch, CommitEvent, Family, Level, Progress, Storage, StorageError, Ticket, Visitor};

/// What one entry holds.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Cell {
    Sound(Bytes),
    Damaged,
}

/// The entries of each family.
#[derive(Clone, Debug, Default)]
struct Image([BTreeMap<Bytes, Cell>; Family::ALL.len()]);

impl Image {
    fn family(&self, family: Family) -> &BTreeMap<Bytes, Cell> {
        &self.0[family as usize]
    }

    fn family_mut(&mut self, family: Family) -> &mut BTreeMap<Bytes, Cell> {
        &mut self.0[family as usize]
    }

    fn apply(&mut self, batch: &Batch) {
        for op in batch.ops() {
            let entries = self.family_mut(op.family);
            match &op.value {
                Some(value) => entries.insert(op.key.clone(), Cell::Sound(value.clone())),
                None => entries.remove(&op.key),
            };
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Every batch that is synced. The only thing a power loss cannot touch.
    synced: Image,
    /// `synced` and the whole tail on top: what reads see.
    seen: Image,
    /// The batches that are not synced, from `progress.synced.next()` to `last` without a gap.
    tail: VecDeque<Batch>,
    /// Invariant: `progress.synced <= progress.written <= last`, and `tail.len() == last - progress.synced`.
    progress: Progress,
    last: Ticket,
    /// The last commit that asked for a sync.
    sync_asked: Ticket,
    poisoned: Option<String>,
    /// How often it was opened, killed or crashed. A storage of another incarnation belongs to a process that is dead.
    incarnation: u64,
    open: bool,
    full: bool,
    fail_next_sync: bool,
}

impl State {
    fn check(&self) {
        assert!(self.progress.synced <= self.progress.written);
        assert!(self.progress.written <= self.last);
        assert_eq!(self.tail.len() as u64, self.last.0 - self.progress.synced.0);
    }

    /// Moves the first `count` batches of the tail to what is synced.
    fn settle(&mut self, count: usize) {
        for batch in self.tail.drain(..count) {
            self.synced.apply(&batch);
        }
        self.progress.synced.0 += count as u64;
        self.progress.written = self.progress.written.max(self.progress.synced);
    }

    /// Ends the process: only the first `keep` batches of the tail are left.
    fn end_process(&mut self, keep: usize) {
        self.tail.truncate(keep);
        self.seen = self.synced.clone();
        for batch in &self.tail {
            self.seen.apply(batch);
        }
        self.last = Ticket(self.progress.synced.0 + self.tail.len() as u64);
        self.progress.written = self.last;
        self.sync_asked = self.sync_asked.min(self.last);
        self.poisoned = None;
        self.open = false;
        self.incarnation += 1;
        self.check();
    }

    fn poison(&mut self, reason: &str) -> CommitEvent {
        let reason = self.poisoned.get_or_insert_with(|| reason.to_owned());
        CommitEvent::Poisoned(reason.clone())
    }
}

/// What a disk has been given and has not finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The last commit.
    pub last: Ticket,
    /// The last commit with [`Level::Synced`]. A driver that leaves syncing to the operating system syncs up to here.
    pub sync_asked: Ticket,
    /// How far the disk has come, whether or not anybody has been told.
    pub progress: Progress,
}

/// A disk that survives the processes that open it. Clones are handles of the same disk.
///
/// ```
/// use quorate_storage::memory::MemoryDisk;
/// use quorate_storage::{Batch, Family, Level, Storage};
///
/// let disk = MemoryDisk::new();
/// let mut storage = disk.open();
/// for day in ["mon", "tue", "wed"] {
///     let mut batch = Batch::new();
///     batch.put(Family::Records, day, "open");
///     let ticket = storage.commit(batch, Level::Synced);
///     if day == "mon" {
///         disk.sync_up_to(ticket);
///     }
/// }
/// disk.crash(1); // power is lost; of the two batches that were under way the first made it
///
/// let storage = disk.open();
/// assert!(storage.get(Family::Records, b"mon")?.is_some());
/// assert!(storage.get(Family::Records, b"tue")?.is_some());
/// assert!(storage.get(Family::Records, b"wed")?.is_none());
/// # Ok::<(), quorate_storage::StorageError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Rc<RefCell<State>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        MemoryDisk::default()
    }

    /// Opens what the last process left. What is found is synced by that, and tickets begin at 1 again.
    ///
    /// # Panics
    ///
    /// If it is open: first say by [`MemoryStorage::close`], [`MemoryDisk::kill`] or [`MemoryDisk::crash`] how the last
    /// process ended.
    pub fn open(&self) -> MemoryStorage {
        let mut state = self.state.borrow_mut();
        assert!(!state.open, "the disk is open: close, kill or crash first");
        // As RocksDB does: what recovery reads from the log goes to synced files before the open returns. Without it
        // a replica would answer from what a power loss still takes, and believe it durable.
        let found = state.tail.len();
        state.settle(found);
        state.progress = Progress::default();
        state.last = Ticket(0);
        state.sync_asked = Ticket(0);
        state.open = true;
        state.incarnation += 1;
        state.check();
        MemoryStorage {
            state: Rc::clone(&self.state),
            incarnation: state.incarnation,
        }
    }

    /// What it has been given and how far it is.
    pub fn pending(&self) -> Pending {
        let state = self.state.borrow();
        Pending {
            last: state.last,
            sync_asked: state.sync_asked,
            progress: state.progress,
        }
    }

    /// Writes every batch up to `ticket`, or up to the last there is. Returns what the driver is to be told.
    /// Once poisoned, every step says so again and does nothing.
    pub fn write_up_to(&self, ticket: Ticket) -> CommitEvent {
        let mut state = self.state.borrow_mut();
        if let Some(reason) = &state.poisoned {
            return CommitEvent::Poisoned(reason.clone());
        }
        let target = ticket.min(state.last);
        if target > state.progress.written {
            if state.full {
                return state.poison("no space left on device");
            }
            state.progress.written = target;
        }
        CommitEvent::Progress(state.progress)
    }

    /// Writes and syncs every batch up to `ticket`, or up to the last there is. Returns what the driver is to be told.
    pub fn sync_up_to(&self, ticket: Ticket) -> CommitEvent {
        if let event @ CommitEvent::Poisoned(_) = self.write_up_to(ticket) {
            return event;
        }
        let mut state = self.state.borrow_mut();
        let target = ticket.min(state.last);
        if target > state.progress.synced {
            if std::mem::take(&mut state.fail_next_sync) {
                return state.poison("the sync failed: input/output error");
            }
            let count = target.0 - state.progress.synced.0;
            state.settle(count as usize);
        }
        state.check();
        CommitEvent::Progress(state.progress)
    }

    /// The power goes: what is synced stays, and of the rest the first `keep` batches, as many as there are, written or
    /// just being written. Returns how many batches were lost. Whatever has been open is dead.
    pub fn crash(&self, keep: usize) -> usize {
        let mut state = self.state.borrow_mut();
        let there = state.tail.len();
        state.end_process(keep);
        let kept = state.tail.len();
        state.settle(kept);
        there - kept
    }

    /// The process is killed: what is written stays with the operating system, what is not is lost. Returns how many
    /// batches were lost. Until the next open a [`MemoryDisk::crash`] may still take what is not synced.
    pub fn kill(&self) -> usize {
        let mut state = self.state.borrow_mut();
        let there = state.tail.len();
        let written = state.progress.written.0 - state.progress.synced.0;
        state.end_process(written as usize);
        there - state.tail.len()
    }

    /// The next sync that has something to do fails, and poisons. What it was to sync stays written: whether it
    /// survives is for [`MemoryDisk::crash`] to say.
    pub fn fail_next_sync(&self) {
        self.state.borrow_mut().fail_next_sync = true;
    }

    /// Whether there is no space: while there is none, the next write fails, and poisons. What is on disk stays readable.
    pub fn set_full(&self, full: bool) {
        self.state.borrow_mut().full = full;
    }

    /// Damages a synced entry: reading it, or a range with it, is [`StorageError::Corrupt`] until it is written again.
    /// An entry that is being rewritten by a batch not yet synced reads well as long as that batch is there. Returns
    /// whether there was such an entry.
    pub fn corrupt(&self, family: Family, key: &[u8]) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(cell) = state.synced.family_mut(family).get_mut(key) else {
            return false;
        };
        *cell = Cell::Damaged;
        let rewritten = |batch: &Batch| batch.ops().any(|op| op.family == family && op.key == key);
        if !state.tail.iter().any(rewritten) {
            let seen = state.seen.family_mut(family).get_mut(key);
            *seen.expect("nothing unsynced removed it") = Cell::Damaged;
        }
        true
    }

    /// Takes a synced entry away without a trace: reading finds nothing there. An entry that is being rewritten by a batch not yet
    /// synced is seen as long as that batch is there. Returns whether there was such an entry.
    pub fn lose(&self, family: Family, key: &[u8]) -> bool {
        let mut state = self.state.borrow_mut();
        if state.synced.family_mut(family).remove(key).is_none() {
            return false;
        }
        let rewritten = |batch: &Batch| batch.ops().any(|op| op.family == family && op.key == key);
        if !state.tail.iter().any(rewritten) {
            state.seen.family_mut(family).remove(key);
        }
        true
    }

    /// The keys of the synced entries of a family, in order: what can be damaged.
    pub fn keys(&self, family: Family) -> Vec<Bytes> {
        let state = self.state.borrow();
        state.synced.family(family).keys().cloned().collect()
    }

    /// A disk of its own with what is synced here now: an old copy to restore from. It looks cleanly closed.
    pub fn copy(&self) -> MemoryDisk {
        let synced = self.state.borrow().synced.clone();
        let state = State {
            seen: synced.clone(),
            synced,
            ..State::default()
        };
        MemoryDisk {
            state: Rc::new(RefCell::new(state)),
        }
    }
}

/// One open of a [`MemoryDisk`], by one process. Dead after a kill or a crash of the disk: using it then is a mistake in
/// the simulator and panics. Dropping it says nothing to the disk.
#[derive(Debug)]
pub struct MemoryStorage {
    state: Rc<RefCell<State>>,
    incarnation: u64,
}

impl MemoryStorage {
    fn state(&self) -> RefMut<'_, State> {
        let state = self.state.borrow_mut();
        assert_eq!(state.incarnation, self.incarnation, "this process is dead");
        state
    }

    /// Ends the process cleanly: writes and syncs everything.
    ///
    /// # Errors
    ///
    /// [`StorageError::Poisoned`] if a write failed, now or earlier. It is closed all the same, as if killed.
    pub fn close(self) -> Result<(), StorageError> {
        let disk = MemoryDisk {
            state: Rc::clone(&self.state),
        };
        let last = self.state().last;
        let event = disk.sync_up_to(last);
        disk.kill();
        match event {
            CommitEvent::Progress(_) => Ok(()),
            CommitEvent::Poisoned(reason) => Err(StorageError::Poisoned { reason }),
        }
    }
}

fn read(family: Family, key: &Bytes, cell: &Cell) -> Result<Bytes, StorageError> {
    match cell {
        Cell::Sound(value) => Ok(value.clone()),
        Cell::Damaged => Err(StorageError::Corrupt {
            family,
            key: key.clone(),
            reason: "checksum mismatch".to_owned(),
        }),
    }
}

impl Storage for MemoryStorage {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let state = self.state();
        let entry = state.seen.family(family).get_key_value(key);
        entry.map(|(key, cell)| read(family, key, cell)).transpose()
    }

    fn visit(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let range = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let state = self.state();
        for (key, cell) in state.seen.family(family).range::<[u8], _>(range) {
            if visitor(key, &read(family, key, cell)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch, level: Level) -> Ticket {
        let mut state = self.state();
        state.last = state.last.next();
        if level == Level::Synced {
            state.sync_asked = state.last;
        }
        state.seen.apply(&batch);
        state.tail.push_back(batch);
        state.last
    }

    fn advance(&mut self, progress: Progress) {
        // Reads see `seen` whole, so nothing is kept aside; but progress nobody made is a mistake in the driver.
        let state = self.state();
        assert!(
            progress.written <= state.progress.written && progress.synced <= state.progress.synced,
            "told of progress that the disk has not made"
        );
    }
}
