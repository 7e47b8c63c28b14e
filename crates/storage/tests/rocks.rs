//! The RocksDB engine on a real file system: what survives, what is refused, what fails and how.
#![cfg(feature = "rocksdb")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use quorate_storage::rocks::{Durability, OpenError, Rocks, RocksOptions};
use quorate_storage::{Batch, CommitEvent, Family, Level, Storage, StorageError, Ticket};
use tempfile::tempdir;

/// Longer than any write takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn try_open(
    dir: &Path,
    durability: Durability,
) -> Result<(Rocks, Receiver<CommitEvent>), OpenError> {
    // What an earlier database reported is not this one's.
    AT_ONCE.with_borrow_mut(VecDeque::clear);
    let (tell, events) = channel();
    let on_event = Box::new(move |event| drop(tell.send(event)));
    let options = RocksOptions {
        durability,
        ..RocksOptions::default()
    };
    Ok((Rocks::open(dir, options, on_event)?, events))
}

fn open(dir: &Path, durability: Durability) -> (Rocks, Receiver<CommitEvent>) {
    try_open(dir, durability).unwrap()
}

fn put(
    rocks: &mut Rocks,
    key: impl Into<Vec<u8>>,
    value: impl Into<Vec<u8>>,
    level: Level,
) -> Ticket {
    let mut batch = Batch::new();
    batch.put(Family::Records, key.into(), value.into());
    let ticket = rocks.commit(batch, level);
    submit(rocks);
    ticket
}

thread_local! {
    /// What was reported by `submit` itself.
    static AT_ONCE: RefCell<VecDeque<CommitEvent>> = const { RefCell::new(VecDeque::new()) };
}

fn submit(rocks: &mut Rocks) {
    let event = rocks.submit();
    AT_ONCE.with_borrow_mut(|reports| reports.extend(event));
}

/// The next report, from wherever it comes.
fn next_event(events: &Receiver<CommitEvent>) -> CommitEvent {
    let at_once = AT_ONCE.with_borrow_mut(VecDeque::pop_front);
    at_once.unwrap_or_else(|| events.recv_timeout(PATIENCE).expect("the engine reports"))
}

/// Waits for a ticket to be synced, or for the poison.
fn synced(rocks: &mut Rocks, events: &Receiver<CommitEvent>, ticket: Ticket) -> Result<(), String> {
    loop {
        match next_event(events) {
            CommitEvent::Progress(progress) => {
                rocks.advance(progress);
                if progress.synced >= ticket {
                    return Ok(());
                }
            }
            CommitEvent::Poisoned(reason) => return Err(reason),
        }
    }
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}

/// Bytes that do not compress, so that they fill files as expected.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| byte()).collect()
}

#[test]
fn a_handle_can_move_to_the_thread_of_its_core() {
    fn moves<T: Send>() {}
    moves::<Rocks>();
}

#[test]
fn what_was_committed_is_there_after_closing() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = tempdir().unwrap();
        let (mut rocks, _events) = open(dir.path(), durability);
        for i in 0..1000_u32 {
            put(&mut rocks, i.to_be_bytes(), vec![7; 100], Level::Written);
        }
        let mut batch = Batch::new();
        batch.delete(Family::Records, 500_u32.to_be_bytes().to_vec());
        batch.put(Family::Meta, "node", "n1");
        rocks.commit(batch, Level::Written);
        rocks.close().unwrap();

        let (rocks, _events) = open(dir.path(), durability);
        assert_eq!(
            rocks
                .scan(Family::Records, b"", None, usize::MAX)
                .unwrap()
                .len(),
            999
        );
        assert_eq!(
            rocks.get(Family::Records, &500_u32.to_be_bytes()).unwrap(),
            None
        );
        assert_eq!(rocks.get(Family::Meta, b"node").unwrap().unwrap(), "n1");
        let stats = rocks.stats();
        assert!(
            stats.disk_bytes > 0 && stats.waiting_bytes == 0,
            "{stats:?}"
        );
        assert!((900..1200).contains(&stats.records_estimate), "{stats:?}");
    }
}

#[test]
fn dropping_loses_nothing_either() {
    let dir = tempdir().unwrap();
    let (mut rocks, _events) = open(dir.path(), Durability::Os);
    put(&mut rocks, "a", "1", Level::Written);
    drop(rocks);
    let (rocks, _events) = open(dir.path(), Durability::Os);
    assert_eq!(rocks.get(Family::Records, b"a").unwrap().unwrap(), "1");
}

#[test]
fn a_read_sees_what_is_committed_before_and_after_it_is_written() {
    let dir = tempdir().unwrap();
    let (mut rocks, events) = open(dir.path(), Durability::Os);
    let ticket = put(&mut rocks, "a", "1", Level::Synced);
    assert_eq!(rocks.get(Family::Records, b"a").unwrap().unwrap(), "1");
    synced(&mut rocks, &events, ticket).unwrap();
    assert_eq!(rocks.get(Family::Records, b"a").unwrap().unwrap(), "1");
    put(&mut rocks, "a", "2", Level::Written);
    assert_eq!(rocks.get(Family::Records, b"a").unwrap().unwrap(), "2");
}

#[test]
fn under_fsync_what_is_written_is_synced() {
    let dir = tempdir().unwrap();
    let (mut rocks, events) = open(dir.path(), Durability::Fsync);
    for i in 0..100_u32 {
        put(&mut rocks, i.to_be_bytes(), "", Level::Written);
    }
    loop {
        let CommitEvent::Progress(progress) = next_event(&events) else {
            panic!("the disk is sound");
        };
        assert_eq!(progress.written, progress.synced);
        if progress.synced == Ticket(100) {
            break;
        }
    }
}

#[test]
fn under_os_a_sync_comes_when_it_is_asked_for() {
    let dir = tempdir().unwrap();
    let (mut rocks, events) = open(dir.path(), Durability::Os);
    let next = |rocks: &mut Rocks| match next_event(&events) {
        CommitEvent::Progress(progress) => {
            rocks.advance(progress);
            (progress.written.0, progress.synced.0)
        }
        CommitEvent::Poisoned(reason) => panic!("{reason}"),
    };
    put(&mut rocks, "a", "1", Level::Written);
    assert_eq!(next(&mut rocks), (1, 0));
    put(&mut rocks, "b", "1", Level::Written);
    assert_eq!(next(&mut rocks), (2, 0));
    put(&mut rocks, "c", "1", Level::Synced);
    assert_eq!(next(&mut rocks), (3, 3));
    put(&mut rocks, "d", "1", Level::Written);
    assert_eq!(next(&mut rocks), (4, 3));
    rocks.commit(Batch::new(), Level::Synced);
    submit(&mut rocks);
    assert_eq!(next(&mut rocks), (5, 5));
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempdir().unwrap();
    let (mut rocks, events) = open(dir.path(), Durability::Fsync);
    let message = try_open(dir.path(), Durability::Fsync)
        .unwrap_err()
        .to_string();
    let pid = std::process::id();
    assert!(
        message.contains(&format!("is in use by process {pid}; ")),
        "{message}"
    );
    // Whoever has it does not notice.
    let ticket = put(&mut rocks, "a", "1", Level::Written);
    synced(&mut rocks, &events, ticket).unwrap();
    rocks.close().unwrap();
    open(dir.path(), Durability::Fsync);
}

/// Every file below with its content, to see that nothing was changed.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn refusals_change_nothing() {
    // A newer format.
    let dir = tempdir().unwrap();
    let (mut rocks, _events) = open(dir.path(), Durability::Fsync);
    put(&mut rocks, "a", "1", Level::Written);
    rocks.close().unwrap();
    let format = dir.path().join("FORMAT");
    let current = std::fs::read(&format).unwrap();
    std::fs::write(&format, "quorate data directory, format 7\n").unwrap();
    let before = content(dir.path());
    let error = try_open(dir.path(), Durability::Fsync).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 7,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(content(dir.path()), before);
    std::fs::write(&format, current).unwrap();
    let (rocks, _events) = open(dir.path(), Durability::Fsync);
    assert_eq!(rocks.get(Family::Records, b"a").unwrap().unwrap(), "1");

    // Somebody else's directory.
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let error = try_open(dir.path(), Durability::Fsync).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is not a Quorate data directory: it holds \"notes.txt\""),
        "{error}"
    );
    assert_eq!(content(dir.path()).len(), 1);
}

/// A database of a few hundred records in one file.
fn one_file(dir: &Path) -> PathBuf {
    let (mut rocks, _events) = open(dir, Durability::Os);
    for i in 0..300_u32 {
        put(&mut rocks, i.to_be_bytes(), noise(1000), Level::Written);
    }
    rocks.close().unwrap();
    drop(open(dir, Durability::Os)); // recovery moves the log into a file
    let mut found = files(dir, "sst");
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_flipped_bit_is_damage_and_not_absence() {
    let dir = tempdir().unwrap();
    let file = one_file(dir.path());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2; // a data block: they come first, and the rest is small
    bytes[middle] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();

    let (mut rocks, events) = open(dir.path(), Durability::Os);
    let mut damaged = Vec::new();
    for i in 0..300_u32 {
        match rocks.get(Family::Records, &i.to_be_bytes()) {
            Ok(value) => assert_eq!(value.unwrap().len(), 1000),
            Err(StorageError::Corrupt { family, key, .. }) => {
                assert_eq!(
                    (family, key.as_ref()),
                    (Family::Records, &i.to_be_bytes()[..])
                );
                damaged.push(i);
            }
            Err(other) => panic!("{other}"),
        }
    }
    // One block of four kilobytes.
    assert!((1..8).contains(&damaged.len()), "{damaged:?}");

    let error = rocks
        .scan(Family::Records, b"", None, usize::MAX)
        .unwrap_err();
    let StorageError::Corrupt { key, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        key.as_ref() < damaged[0].to_be_bytes().as_slice(),
        "{error}"
    );
    // What is well away from the damage can be read.
    let intact = rocks
        .scan(
            Family::Records,
            b"",
            Some(&(damaged[0] - 1).to_be_bytes()),
            usize::MAX,
        )
        .unwrap();
    assert_eq!(intact.len(), damaged[0] as usize - 1);

    // Written again, the record is sound: that is how a replica mends it.
    let ticket = put(
        &mut rocks,
        damaged[0].to_be_bytes(),
        "mended",
        Level::Synced,
    );
    synced(&mut rocks, &events, ticket).unwrap();
    assert_eq!(
        rocks
            .get(Family::Records, &damaged[0].to_be_bytes())
            .unwrap()
            .unwrap(),
        "mended"
    );
}

#[test]
fn a_lost_file_is_not_an_absence_either() {
    let dir = tempdir().unwrap();
    let file = one_file(dir.path());
    std::fs::remove_file(file).unwrap();
    match try_open(dir.path(), Durability::Os) {
        Err(OpenError::Database { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok((rocks, _)) => assert!(rocks.get(Family::Records, &0_u32.to_be_bytes()).is_err()),
    }
}

#[test]
fn a_torn_log_ends_at_a_whole_batch() {
    let dir = tempdir().unwrap();
    let (mut rocks, events) = open(dir.path(), Durability::Os);
    // Each batch is a record of the log of its own, since the next is committed only when this one is written.
    for i in 0..20_u32 {
        let mut batch = Batch::new();
        batch.put(Family::Records, i.to_be_bytes().to_vec(), noise(1000));
        batch.put(Family::Vnodes, i.to_be_bytes().to_vec(), "seen");
        rocks.commit(batch, Level::Written);
        submit(&mut rocks);
        next_event(&events);
    }
    // As a loss of power leaves it: the log has its first half.
    let torn = tempdir().unwrap();
    for (path, mut bytes) in content(dir.path()) {
        if path.extension().is_some_and(|e| e == "log") {
            let text_end = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            bytes.truncate(text_end / 2);
        }
        let path = torn.path().join(path.strip_prefix(dir.path()).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let (rocks, _events) = open(torn.path(), Durability::Os);
    let count = |family| rocks.scan(family, b"", None, usize::MAX).unwrap().len();
    let left = count(Family::Records);
    assert!((5..15).contains(&left), "{left}");
    assert_eq!(count(Family::Vnodes), left); // each batch whole or not at all
}

/// The name under which the test below runs itself in a process with a limit on the size of files.
const LIMITED: &str = "QUORATE_TEST_LIMITED_DIR";

#[test]
fn a_write_that_fails_poisons() {
    if let Some(dir) = std::env::var_os(LIMITED) {
        return until_it_fails(Path::new(&dir));
    }
    let dir = tempdir().unwrap();
    // The limit's signal is ignored, so that a write beyond it fails, as it does on a full disk. The limit counts blocks
    // of 512 bytes or of 1024, by the shell; either is between what opening needs and what is then written.
    let script =
        "trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact a_write_that_fails_poisons --nocapture";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(LIMITED, dir.path())
        .status()
        .unwrap();
    assert!(status.success());

    // With room again it opens. What was acknowledged is there.
    let acknowledged: u32 = std::fs::read_to_string(dir.path().with_extension("acknowledged"))
        .map(|text| text.parse().unwrap())
        .unwrap();
    std::fs::remove_file(dir.path().with_extension("acknowledged")).unwrap();
    assert!(acknowledged > 0);
    let (rocks, _events) = open(dir.path(), Durability::Fsync);
    for i in 0..acknowledged {
        assert!(
            rocks
                .get(Family::Records, &i.to_be_bytes())
                .unwrap()
                .is_some(),
            "{i} of {acknowledged}"
        );
    }
}

fn until_it_fails(dir: &Path) {
    let (mut rocks, events) = open(dir, Durability::Fsync);
    let mut acknowledged = 0_u32;
    let reason = loop {
        assert!(acknowledged < 10_000, "the limit does not work");
        let ticket = put(
            &mut rocks,
            acknowledged.to_be_bytes(),
            noise(10_000),
            Level::Synced,
        );
        match synced(&mut rocks, &events, ticket) {
            Ok(()) => acknowledged += 1,
            Err(reason) => break reason,
        }
    };
    assert!(reason.contains("IO error"), "{reason}");
    std::fs::write(dir.with_extension("acknowledged"), acknowledged.to_string()).unwrap();

    // Nothing is claimed any more, though this would fit.
    put(&mut rocks, "small", "", Level::Synced);
    rocks.commit(Batch::new(), Level::Synced);
    submit(&mut rocks);
    let silence = events.recv_timeout(PATIENCE);
    assert_eq!(silence, Err(RecvTimeoutError::Disconnected)); // the committer is gone
    // Reads still work, of what is on disk and of what never will be.
    assert!(
        rocks
            .get(Family::Records, &0_u32.to_be_bytes())
            .unwrap()
            .is_some()
    );
    assert!(rocks.get(Family::Records, b"small").unwrap().is_some());
    assert_eq!(rocks.stats().waiting_bytes, 0);
    assert_eq!(rocks.close(), Err(StorageError::Poisoned { reason }));
}

#[test]
fn under_os_what_needs_no_sync_is_written_at_once_and_in_order() {
    let dir = tempdir().unwrap();
    let (mut rocks, events) = open(dir.path(), Durability::Os);
    let commit = |rocks: &mut Rocks, value: &str, level| {
        let mut batch = Batch::new();
        batch.put(Family::Records, "k", value.to_owned());
        rocks.commit(batch, level)
    };
    commit(&mut rocks, "1", Level::Written);
    let second = commit(&mut rocks, "2", Level::Written);
    let Some(CommitEvent::Progress(progress)) = rocks.submit() else {
        panic!("nothing was in the way");
    };
    assert_eq!((progress.written, progress.synced), (second, Ticket(0)));
    rocks.advance(progress);
    assert_eq!(rocks.submit(), None);

    // While the committer has work, later batches queue behind it.
    let third = commit(&mut rocks, "3", Level::Synced);
    assert_eq!(rocks.submit(), None);
    let fourth = commit(&mut rocks, "4", Level::Written);
    assert_eq!(rocks.submit(), None);
    synced(&mut rocks, &events, third).unwrap();
    while let Ok(CommitEvent::Progress(progress)) = events.recv_timeout(Duration::from_millis(1)) {
        rocks.advance(progress);
    }
    let fifth = commit(&mut rocks, "5", Level::Written);
    let at_once = rocks.submit();
    assert!(fourth < fifth);
    assert_eq!(rocks.get(Family::Records, b"k").unwrap().unwrap(), "5");
    drop(at_once);
    rocks.close().unwrap();
    let (rocks, _events) = open(dir.path(), Durability::Os);
    assert_eq!(rocks.get(Family::Records, b"k").unwrap().unwrap(), "5");
}
