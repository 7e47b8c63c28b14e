//! RocksDB, with one committer: the engine of every node that is not simulated.
//!
//! ```text
//!   core's thread                              committer's thread
//!   get, visit --> overlay, then database
//!   commit     --> overlay, batch
//!   submit     --> queue               ------> one write, one sync, for all that waits
//!   advance    <-- driver <------------------- one event
//! ```
//!
//! Where nothing has to be synced, and the committer has nothing to do, `submit` writes by itself: that is a copy into the
//! system's memory, and cheaper than waking another thread and being woken by it. It never waits there: when RocksDB would
//! hold writers up because flushes or compactions are behind, the committer gets the work after all.
//!
//! The core's half ([`Rocks`]) keeps what it has committed aside in an overlay until it is told that the database has
//! it. *Invariant:* every batch is in the overlay, in the database, or in both; so a read that looks at the overlay first
//! sees all of them.
//!
//! The directory belongs to one process and one format; see [`OpenError`] for what is refused and what to do then.

mod committer;
mod counters;
mod directory;
mod options;
mod overlay;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, ErrorKind, ReadOptions, WriteBatch, WriteOptions};

use crate::{Batch, CommitEvent, Family, Level, Progress, Storage, StorageError, Ticket, Visitor};
use committer::{Committer, Log, Queued};
use directory::Directory;
use overlay::Overlay;

pub use counters::{Counters, Distribution};
pub use directory::OpenError;
pub use options::{Durability, RocksOptions};

/// An open database. See the [module](self).
///
/// ```
/// use std::sync::mpsc::channel;
///
/// use quorate_storage::rocks::{Rocks, RocksOptions};
/// use quorate_storage::{Batch, CommitEvent, Family, Level, Storage};
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let (tell, events) = channel();
/// let on_event = Box::new(move |event| drop(tell.send(event)));
/// let mut rocks = Rocks::open(dir, RocksOptions::default(), on_event)?;
///
/// let mut batch = Batch::new();
/// batch.put(Family::Records, "milk", "2 litres");
/// let ticket = rocks.commit(batch, Level::Synced);
/// assert!(rocks.submit().is_none()); // what comes of it is reported
/// while let CommitEvent::Progress(progress) = events.recv()? {
///     rocks.advance(progress);
///     if progress.synced >= ticket {
///         break; // on the disk
///     }
/// }
/// rocks.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Rocks {
    overlay: Overlay,
    last: Ticket,
    /// What was committed and not submitted yet.
    pending: Vec<Queued>,
    /// The last ticket that went to the committer, and up to which one everything is written. While the first is not above
    /// the second, the committer has nothing to do.
    handed: Ticket,
    written: Ticket,
    synced: Ticket,
    /// For writing without the committer; `None` under [`Durability::Fsync`], and once that has failed.
    own: Option<RocksLog>,
    /// Whether a write failed here. Nothing is written any more.
    failed: bool,
    committer: Committer,
    counters: Arc<Counters>,
    db: Arc<DB>,
    /// Last, so that the lock is released only when the database is closed.
    _directory: Directory,
}

/// What is written without the committer, in bytes at a time. More would hold up the core's thread for some milliseconds.
const OWN_BYTES_MAX: usize = 1 << 20;

/// What a database holds and uses, approximately.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Bytes on disk: the live data files and, by its content, the log.
    pub disk_bytes: u64,
    /// Records, overwritten and deleted ones counted until they are compacted.
    pub records_estimate: u64,
    /// Bytes of memory that hold what is only in the log.
    pub write_buffer_bytes: u64,
    /// Bytes of memory that hold what was read.
    pub block_cache_bytes: u64,
    /// Bytes committed and not yet being written.
    pub waiting_bytes: u64,
}

impl Rocks {
    /// Opens the database in a directory, which is made if it does not exist or is empty, and starts its committer.
    /// What it finds is on the disk when this returns; tickets begin at 1.
    ///
    /// `on_event` is called on the committer's thread, which commits nothing meanwhile: it should hand the event over and
    /// return, and must not panic. After [`CommitEvent::Poisoned`] it is not called again.
    ///
    /// # Errors
    ///
    /// See [`OpenError`], which also says what each leaves.
    pub fn open(
        dir: &Path,
        options: RocksOptions,
        on_event: Box<dyn Fn(CommitEvent) + Send>,
    ) -> Result<Rocks, OpenError> {
        let mut directory = Directory::claim(dir)?;
        let path = directory.database();
        // Recovery flushes what it reads from the log to synced files before it returns (`avoid_flush_during_recovery`
        // is off by default), which is what the promise above rests on.
        let opened = DB::open_cf_descriptors(
            &options::database(&options, directory.is_fresh()),
            &path,
            options::families(&options),
        );
        let db = Arc::new(opened.map_err(|error| OpenError::Database {
            path: path.clone(),
            reason: error.into_string(),
        })?);
        if directory.is_fresh() {
            directory.complete()?;
        }
        let counters = Arc::new(Counters::default());
        let log = RocksLog::new(Arc::clone(&db), Arc::clone(&counters));
        let own = (options.durability == Durability::Os)
            .then(|| RocksLog::new(Arc::clone(&db), Arc::clone(&counters)));
        let committer = Committer::start(log, options.durability, on_event).map_err(|source| {
            OpenError::Io {
                doing: "start the committer of",
                path,
                source,
            }
        })?;
        Ok(Rocks {
            overlay: Overlay::default(),
            last: Ticket(0),
            pending: Vec::new(),
            handed: Ticket(0),
            written: Ticket(0),
            synced: Ticket(0),
            own,
            failed: false,
            committer,
            counters,
            db,
            _directory: directory,
        })
    }

    /// Waits until everything committed is written and synced, and closes. Dropping does the same, and can only log a
    /// failure.
    ///
    /// # Errors
    ///
    /// [`StorageError::Poisoned`] if a write failed, now or earlier. The directory is released all the same.
    pub fn close(self) -> Result<(), StorageError> {
        self.close_with(|| ())
    }

    /// The same, with something done once all is on disk and before anybody else can have the directory.
    ///
    /// # Errors
    ///
    /// As [`Rocks::close`]; then it is not done.
    pub fn close_with<R>(mut self, last: impl FnOnce() -> R) -> Result<R, StorageError> {
        self.finish()
            .map_err(|reason| StorageError::Poisoned { reason })?;
        Ok(last())
    }

    fn finish(&mut self) -> Result<(), String> {
        if self.failed {
            let _ = self.committer.close();
            return Err("an earlier write failed".to_owned());
        }
        // What was written here, the committer does not know of; a sync is a sync of everything.
        if self.handed < self.last && !self.committer.is_closed() {
            self.commit(Batch::new(), Level::Synced);
        }
        self.hand_over();
        self.committer.close()
    }

    fn hand_over(&mut self) {
        if let Some(last) = self.pending.last() {
            self.handed = last.ticket;
            self.committer.push(&mut self.pending);
        }
    }

    /// Writes what is pending without the committer, if that may be. `None` if not.
    fn write_here(&mut self) -> Option<CommitEvent> {
        let own = self.own.as_mut()?;
        let is_first = self.handed <= self.written;
        let needs_sync = |queued: &Queued| queued.level == Level::Synced;
        let bytes: usize = self.pending.iter().map(|q| q.batch.size_bytes()).sum();
        if !is_first || bytes > OWN_BYTES_MAX || self.pending.iter().any(needs_sync) {
            return None;
        }
        match own.write_without_waiting(&self.pending) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(reason) => {
                self.failed = true;
                self.pending.clear();
                return Some(CommitEvent::Poisoned(reason));
            }
        }
        self.written = self.last;
        self.pending.clear();
        Some(CommitEvent::Progress(Progress {
            written: self.written,
            synced: self.synced,
        }))
    }

    /// What it has done so far, and goes on counting.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// What it holds and uses now. Costs no reads from the disk.
    pub fn stats(&self) -> Stats {
        let sum = |property: &str| -> u64 {
            let of = |family| {
                let value = self
                    .db
                    .property_int_value_cf(column(&self.db, family), property);
                value.ok().flatten().unwrap_or(0)
            };
            Family::ALL.into_iter().map(of).sum()
        };
        let number = |family, property: &str| {
            let value = self
                .db
                .property_int_value_cf(column(&self.db, family), property);
            value.ok().flatten().unwrap_or(0)
        };
        Stats {
            disk_bytes: sum("rocksdb.live-sst-files-size")
                + sum("rocksdb.cur-size-active-mem-table"),
            records_estimate: number(Family::Records, "rocksdb.estimate-num-keys"),
            write_buffer_bytes: sum("rocksdb.size-all-mem-tables"),
            // The families share one cache.
            block_cache_bytes: number(Family::Records, "rocksdb.block-cache-usage"),
            waiting_bytes: self.committer.waiting_bytes() as u64,
        }
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        if let Err(reason) = self.finish() {
            tracing::warn!(%reason, "the database was closed after a failed write");
        }
    }
}

/// The column family of a family.
fn column(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name())
        .expect("every family is opened with the database")
}

/// What a failed read means. `key` is the one that was read, or at or after which the scan failed.
fn unreadable(family: Family, key: &[u8], error: rocksdb::Error) -> StorageError {
    match error.kind() {
        ErrorKind::Corruption => StorageError::Corrupt {
            family,
            key: Bytes::copy_from_slice(key),
            reason: error.into_string(),
        },
        _ => StorageError::Io {
            family,
            reason: error.into_string(),
        },
    }
}

impl Storage for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if let Some(value) = self.overlay.get(family, key) {
            return Ok(value.clone());
        }
        // Checksums are verified by default, and absence is returned only if every file that could hold the key was
        // read or excluded by its filter.
        match self.db.get_pinned_cf(column(&self.db, family), key) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(unreadable(family, key, error)),
        }
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
        let mut options = ReadOptions::default();
        // A scan touches each block once; it should not push out of the cache what point reads use again.
        options.fill_cache(false);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut stored = self
            .db
            .raw_iterator_cf_opt(column(&self.db, family), options);
        stored.seek(from);
        let mut fresh = self.overlay.range(family, from, to).peekable();
        // Where the last entry was: a failure lies after it.
        let mut last = from.to_vec();
        while let Some((key, value)) = stored.item() {
            let next = match fresh.next_if(|(fresh_key, _)| fresh_key.as_ref() <= key) {
                None => {
                    last.clear();
                    last.extend_from_slice(key);
                    let next = visitor(key, value);
                    if next.is_continue() {
                        stored.next();
                    }
                    next
                }
                Some((fresh_key, fresh_value)) => {
                    if fresh_key.as_ref() == key {
                        stored.next(); // overlaid
                    }
                    match fresh_value {
                        Some(value) => visitor(fresh_key, value),
                        None => ControlFlow::Continue(()),
                    }
                }
            };
            if next.is_break() {
                return Ok(());
            }
        }
        // The end, or a failure.
        stored
            .status()
            .map_err(|error| unreadable(family, &last, error))?;
        for (key, value) in fresh {
            if let Some(value) = value
                && visitor(key, value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch, level: Level) -> Ticket {
        self.last = self.last.next();
        if self.failed {
            return self.last;
        }
        self.overlay.note(self.last, &batch);
        self.pending.push(Queued {
            ticket: self.last,
            batch,
            level,
        });
        self.last
    }

    fn submit(&mut self) -> Option<CommitEvent> {
        if self.pending.is_empty() {
            return None;
        }
        let event = self.write_here();
        self.hand_over();
        event
    }

    fn advance(&mut self, progress: Progress) {
        assert!(
            progress.written <= self.last,
            "told of progress on what was never committed"
        );
        self.written = self.written.max(progress.written);
        self.synced = self.synced.max(progress.synced);
        self.overlay.forget_up_to(progress.written);
    }
}

/// The database as the committer sees it.
struct RocksLog {
    db: Arc<DB>,
    counters: Arc<Counters>,
    synced: WriteOptions,
    unsynced: WriteOptions,
    /// Unsynced, and refused rather than held up.
    at_once: WriteOptions,
}

impl fmt::Debug for RocksLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RocksLog")
    }
}

impl RocksLog {
    fn new(db: Arc<DB>, counters: Arc<Counters>) -> Self {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let mut at_once = WriteOptions::default();
        at_once.set_no_slowdown(true);
        RocksLog {
            db,
            counters,
            synced,
            unsynced: WriteOptions::default(),
            at_once,
        }
    }

    /// Writes without a sync; false if that would have to wait, and then nothing is written.
    fn write_without_waiting(&mut self, batches: &[Queued]) -> Result<bool, String> {
        let began = stopwatch();
        match self.db.write_opt(self.joined(batches), &self.at_once) {
            Ok(()) => {
                self.counters
                    .wrote(batches.len(), size_of(batches), false, began.elapsed());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(false),
            Err(error) => Err(error.into_string()),
        }
    }

    fn joined(&self, batches: &[Queued]) -> WriteBatch {
        let columns = Family::ALL.map(|family| column(&self.db, family));
        let mut joined = WriteBatch::with_capacity_bytes(size_of(batches));
        for op in batches.iter().flat_map(|queued| queued.batch.ops()) {
            let column = columns[op.family as usize];
            match &op.value {
                Some(value) => joined.put_cf(column, &op.key, value),
                None => joined.delete_cf(column, &op.key),
            }
        }
        joined
    }
}

impl Log for RocksLog {
    fn write(&mut self, batches: &[Queued], sync: bool) -> Result<(), String> {
        let options = if sync { &self.synced } else { &self.unsynced };
        let began = stopwatch();
        self.db
            .write_opt(self.joined(batches), options)
            .map_err(rocksdb::Error::into_string)?;
        self.counters
            .wrote(batches.len(), size_of(batches), sync, began.elapsed());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        let began = stopwatch();
        self.db
            .flush_wal(true)
            .map_err(rocksdb::Error::into_string)?;
        self.counters.synced(began.elapsed());
        Ok(())
    }
}

fn size_of(batches: &[Queued]) -> usize {
    batches.iter().map(|queued| queued.batch.size_bytes()).sum()
}

#[expect(
    clippy::disallowed_methods,
    reason = "for metrics of this engine alone, on the committer's thread: no decision looks at it"
)]
fn stopwatch() -> Instant {
    Instant::now()
}
