//! The one thread that writes: it takes all that waits, writes it as one, syncs once, and reports once.
//!
//! A sync costs the same for one batch as for a hundred, and while one runs the next hundred arrive. So there is one
//! committer for a database, and never a sync on the thread that answers the network.
//!
//! The first failure ends the thread. Nothing can be written, synced or reported after it, because nobody is left to
//! do so; that is what makes poisoning proof against retries.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::{io, mem};

use super::Durability;
use crate::{Batch, CommitEvent, Level, Progress, Ticket};

/// How many bytes go into one write. With much more, the first of the batches would wait for the bytes of the last, and
/// one write would overshoot the memory set aside for writes; with much less, concurrent large values would not share a
/// sync. A single batch may be larger.
const WRITE_BYTES_MAX: usize = 8 << 20;

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) ticket: Ticket,
    pub(super) batch: Batch,
    pub(super) level: Level,
}

/// What the committer writes to: the database, or in tests something that fails on command.
pub(super) trait Log: Send + 'static {
    /// Writes all of these in order or none, and with `sync` waits until they and all before them are on the disk.
    fn write(&mut self, batches: &[Queued], sync: bool) -> Result<(), String>;

    /// Waits until all that was written is on the disk.
    fn sync(&mut self) -> Result<(), String>;
}

/// Whom the committer tells. Called on its thread, which commits nothing meanwhile.
pub(super) type OnEvent = Box<dyn Fn(CommitEvent) + Send>;

#[derive(Debug, Default)]
struct Inbox {
    waiting: Vec<Queued>,
    bytes: usize,
    /// Whether the committer sleeps and has to be woken; else a wake-up would cost a system call for nothing.
    idle: bool,
    closing: bool,
    /// Whether the committer has ended: what is committed from here on goes nowhere.
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

impl Shared {
    /// The lock is held only to push, or to take all; no callback and no disk comes under it.
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics under this lock")
    }
}

/// The core's end of the committer.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    /// None once it was joined. The thread returns why it failed, if it did.
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Committer {
    /// Starts the thread.
    #[expect(
        clippy::disallowed_methods,
        reason = "syncs block, and the core's thread must not; joined by `close`"
    )]
    pub(super) fn start(
        log: impl Log,
        durability: Durability,
        on_event: OnEvent,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut run = Run {
            shared: Arc::clone(&shared),
            log,
            durability,
            on_event,
            progress: Progress::default(),
        };
        let thread = Builder::new()
            .name("committer".to_owned())
            .spawn(move || run.run())?;
        Ok(Committer {
            shared,
            thread: Some(thread),
        })
    }

    /// Hands batches over.
    pub(super) fn push(&self, batches: &mut Vec<Queued>) {
        let mut inbox = self.shared.inbox();
        if inbox.ended {
            batches.clear();
            return;
        }
        let bytes = batches.iter().map(|queued| queued.batch.size_bytes());
        inbox.bytes += bytes.sum::<usize>();
        inbox.waiting.append(batches);
        if mem::take(&mut inbox.idle) {
            self.shared.arrived.notify_one();
        }
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.thread.is_none()
    }

    /// How many bytes wait, not counting what is being written.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.shared.inbox().bytes
    }

    /// Waits until all that was handed over is written and synced, and ends the thread. Fails if a write failed, now or
    /// earlier. Once closed, closing again does nothing.
    pub(super) fn close(&mut self) -> Result<(), String> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.shared.inbox().closing = true;
        self.shared.arrived.notify_one();
        match thread.join() {
            Ok(result) => result,
            Err(_) => Err("the committer panicked".to_owned()),
        }
    }
}

/// The thread's end.
struct Run<L> {
    shared: Arc<Shared>,
    log: L,
    durability: Durability,
    on_event: OnEvent,
    progress: Progress,
}

impl<L: Log> Run<L> {
    fn run(&mut self) -> Result<(), String> {
        let result = self.commit_until_closed();
        let mut inbox = self.shared.inbox();
        inbox.ended = true;
        inbox.waiting = Vec::new();
        inbox.bytes = 0;
        drop(inbox);
        if let Err(reason) = &result {
            (self.on_event)(CommitEvent::Poisoned(reason.clone()));
        }
        result
    }

    fn commit_until_closed(&mut self) -> Result<(), String> {
        let mut work = Vec::new();
        while self.take(&mut work) {
            let mut rest = work.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(fitting(rest));
                self.commit(now)?;
                rest = later;
            }
            work.clear();
        }
        if self.progress.synced < self.progress.written {
            self.log.sync()?;
            self.progress.synced = self.progress.written;
            (self.on_event)(CommitEvent::Progress(self.progress));
        }
        Ok(())
    }

    /// Waits for work and swaps it out whole. False if there is none and none will come.
    fn take(&mut self, work: &mut Vec<Queued>) -> bool {
        let mut inbox = self.shared.inbox();
        while inbox.waiting.is_empty() {
            if inbox.closing {
                return false;
            }
            inbox.idle = true;
            inbox = self
                .shared
                .arrived
                .wait(inbox)
                .expect("nothing panics under this lock");
        }
        inbox.idle = false;
        inbox.bytes = 0;
        mem::swap(&mut inbox.waiting, work);
        true
    }

    /// Makes these durable as one, and reports.
    fn commit(&mut self, batches: &[Queued]) -> Result<(), String> {
        let first = batches.first().expect("there is work").ticket;
        let last = batches.last().expect("there is work").ticket;
        assert!(last > self.progress.written, "tickets rise");
        let sync = self.durability == Durability::Fsync
            || batches.iter().any(|queued| queued.level == Level::Synced);
        if batches.iter().any(|queued| !queued.batch.is_empty()) {
            self.log.write(batches, sync)?;
        } else if sync && self.progress.synced.0 + 1 < first.0 {
            // Something before these is not synced, whoever wrote it.
            self.log.sync()?;
        }
        self.progress.written = last;
        if sync {
            self.progress.synced = last;
        }
        (self.on_event)(CommitEvent::Progress(self.progress));
        Ok(())
    }
}

/// How many of these batches, at least one, go into one write.
fn fitting(batches: &[Queued]) -> usize {
    let mut bytes = 0;
    let fits = |queued: &&Queued| {
        bytes += queued.batch.size_bytes();
        bytes <= WRITE_BYTES_MAX
    };
    batches.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::Family;

    /// What reached the log: how many batches with which sync, or a sync alone.
    #[derive(PartialEq, Eq, Debug)]
    enum Call {
        Write(Vec<Ticket>, bool),
        Sync,
    }

    /// A log that waits for permission before each call and answers as it is told.
    struct Puppet {
        calls: Sender<Call>,
        answers: Receiver<Result<(), String>>,
    }

    impl Puppet {
        fn call(&mut self, call: Call) -> Result<(), String> {
            self.calls.send(call).expect("the test listens");
            self.answers.recv().expect("the test answers")
        }
    }

    impl Log for Puppet {
        fn write(&mut self, batches: &[Queued], sync: bool) -> Result<(), String> {
            let tickets = batches.iter().map(|queued| queued.ticket).collect();
            self.call(Call::Write(tickets, sync))
        }

        fn sync(&mut self) -> Result<(), String> {
            self.call(Call::Sync)
        }
    }

    struct Stage {
        committer: Committer,
        last: Ticket,
        calls: Receiver<Call>,
        answers: Sender<Result<(), String>>,
        events: Receiver<CommitEvent>,
    }

    impl Stage {
        fn new(durability: Durability) -> Self {
            let (calls_in, calls) = channel();
            let (answers, answers_out) = channel();
            let (events_in, events) = channel();
            let puppet = Puppet {
                calls: calls_in,
                answers: answers_out,
            };
            let on_event = Box::new(move |event| drop(events_in.send(event)));
            Stage {
                committer: Committer::start(puppet, durability, on_event).unwrap(),
                last: Ticket(0),
                calls,
                answers,
                events,
            }
        }

        fn push(&mut self, value_bytes: usize, level: Level) {
            self.last = self.last.next();
            let mut batch = Batch::new();
            batch.put(Family::Records, "key", vec![0; value_bytes]);
            self.push_batch(batch, level);
        }

        fn push_empty(&mut self, level: Level) {
            self.last = self.last.next();
            self.push_batch(Batch::new(), level);
        }

        fn push_batch(&self, batch: Batch, level: Level) {
            let ticket = self.last;
            self.committer.push(&mut vec![Queued {
                ticket,
                batch,
                level,
            }]);
        }

        fn wrote(&self, from: u64, to: u64, sync: bool) {
            let tickets = (from..=to).map(Ticket).collect();
            assert_eq!(self.calls.recv().unwrap(), Call::Write(tickets, sync));
        }

        fn progress(&self, written: u64, synced: u64) {
            let progress = Progress {
                written: Ticket(written),
                synced: Ticket(synced),
            };
            assert_eq!(self.events.recv().unwrap(), CommitEvent::Progress(progress));
        }
    }

    #[test]
    fn what_arrives_during_a_sync_shares_the_next() {
        let mut stage = Stage::new(Durability::Fsync);
        stage.push(10, Level::Written);
        stage.wrote(1, 1, true);
        for _ in 0..50 {
            stage.push(10, Level::Synced);
        }
        stage.answers.send(Ok(())).unwrap();
        stage.progress(1, 1);
        stage.wrote(2, 51, true);
        stage.answers.send(Ok(())).unwrap();
        stage.progress(51, 51);
        assert_eq!(stage.committer.close(), Ok(()));
    }

    #[test]
    fn one_write_is_bounded_in_bytes() {
        let mut stage = Stage::new(Durability::Os);
        stage.push(10, Level::Written);
        stage.wrote(1, 1, false);
        stage.push(WRITE_BYTES_MAX / 2, Level::Written);
        stage.push(WRITE_BYTES_MAX / 3, Level::Synced);
        stage.push(WRITE_BYTES_MAX / 2, Level::Written);
        stage.push(WRITE_BYTES_MAX * 2, Level::Written);
        for _ in 0..4 {
            stage.answers.send(Ok(())).unwrap();
        }
        stage.wrote(2, 3, true); // the third asked
        stage.wrote(4, 4, false);
        stage.wrote(5, 5, false); // too large, and alone
        stage.progress(1, 0);
        stage.progress(3, 3);
        stage.progress(4, 3);
        stage.progress(5, 3);

        stage.answers.send(Ok(())).unwrap();
        assert_eq!(stage.committer.close(), Ok(()));
        assert_eq!(stage.calls.recv().unwrap(), Call::Sync); // closing leaves nothing behind
        stage.progress(5, 5);
    }

    #[test]
    fn an_empty_batch_can_ask_for_the_sync_of_what_was_before() {
        let mut stage = Stage::new(Durability::Os);
        stage.push_empty(Level::Synced);
        stage.progress(1, 1); // there was nothing to sync
        stage.push(10, Level::Written);
        stage.wrote(2, 2, false);
        stage.answers.send(Ok(())).unwrap();
        stage.progress(2, 1);
        stage.push_empty(Level::Synced);
        assert_eq!(stage.calls.recv().unwrap(), Call::Sync);
        stage.answers.send(Ok(())).unwrap();
        stage.progress(3, 3);
        assert_eq!(stage.committer.close(), Ok(()));
    }

    #[test]
    fn the_first_failure_is_the_last_thing_said() {
        for durability in [Durability::Fsync, Durability::Os] {
            let mut stage = Stage::new(durability);
            let sync = durability == Durability::Fsync;
            stage.push(10, Level::Written);
            stage.wrote(1, 1, sync);
            stage.answers.send(Ok(())).unwrap();
            stage.progress(1, u64::from(sync));

            stage.push(10, Level::Synced);
            stage.wrote(2, 2, true);
            stage.push(10, Level::Synced); // arrives while the sync fails
            stage
                .answers
                .send(Err("input/output error".into()))
                .unwrap();
            let poisoned = CommitEvent::Poisoned("input/output error".into());
            assert_eq!(stage.events.recv(), Ok(poisoned));

            // A retry would succeed, and must not happen.
            let _ = stage.answers.send(Ok(()));
            stage.push(10, Level::Synced);
            stage.push_empty(Level::Synced);
            assert_eq!(stage.committer.waiting_bytes(), 0);
            assert_eq!(stage.committer.close(), Err("input/output error".into()));
            assert!(stage.calls.recv().is_err(), "the log was touched again");
            assert!(stage.events.recv().is_err(), "something was claimed after");
        }
    }

    #[test]
    fn a_failing_sync_at_the_end_is_reported() {
        let mut stage = Stage::new(Durability::Os);
        stage.push(10, Level::Written);
        stage.answers.send(Ok(())).unwrap();
        stage.answers.send(Err("gone".into())).unwrap();
        assert_eq!(stage.committer.close(), Err("gone".into()));
        stage.progress(1, 0);
        assert_eq!(
            stage.events.recv(),
            Ok(CommitEvent::Poisoned("gone".into()))
        );
    }
}
