//! The faults of the memory disk, one by one.

use quorate_storage::memory::{MemoryDisk, MemoryStorage};
use quorate_storage::{Batch, CommitEvent, Family, Level, Progress, Storage, StorageError, Ticket};

fn put(storage: &mut MemoryStorage, key: &'static str, value: &'static str) -> Ticket {
    let mut batch = Batch::new();
    batch.put(Family::Records, key, value);
    storage.commit(batch, Level::Written)
}

fn get(storage: &MemoryStorage, key: &str) -> Option<String> {
    let value = storage.get(Family::Records, key.as_bytes()).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

fn progress(written: u64, synced: u64) -> CommitEvent {
    CommitEvent::Progress(Progress {
        written: Ticket(written),
        synced: Ticket(synced),
    })
}

#[test]
fn nothing_becomes_durable_by_itself() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    for key in ["a", "b", "c"] {
        put(&mut storage, key, "1");
    }
    assert_eq!(disk.write_up_to(Ticket(0)), progress(0, 0));
    assert_eq!(disk.write_up_to(Ticket(2)), progress(2, 0));
    assert_eq!(disk.sync_up_to(Ticket(1)), progress(2, 1));
    assert_eq!(disk.write_up_to(Ticket(1)), progress(2, 1)); // progress never falls
    assert_eq!(disk.sync_up_to(Ticket(99)), progress(3, 3)); // nor passes what there is
}

#[test]
fn a_kill_keeps_the_written_and_a_later_power_loss_the_synced() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    for key in ["synced", "written", "handed over"] {
        put(&mut storage, key, "1");
    }
    disk.sync_up_to(Ticket(1));
    disk.write_up_to(Ticket(2));
    assert_eq!(disk.kill(), 1);
    let storage = disk.copy().open(); // a copy has only what is synced
    assert_eq!(
        (get(&storage, "synced").is_some(), get(&storage, "written")),
        (true, None)
    );
    assert_eq!(disk.crash(0), 1); // before anybody opened it
    let storage = disk.open();
    assert_eq!(
        (get(&storage, "synced").is_some(), get(&storage, "written")),
        (true, None)
    );
}

#[test]
fn tickets_begin_anew_with_each_open() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    put(&mut storage, "b", "1");
    storage.close().unwrap();
    let mut storage = disk.open();
    assert_eq!(put(&mut storage, "c", "1"), Ticket(1));
    assert_eq!(disk.pending().progress, Progress::default());
    assert_eq!(disk.sync_up_to(Ticket(1)), progress(1, 1));
    assert!(get(&storage, "a").is_some());
}

#[test]
fn a_driver_learns_which_sync_was_asked_for() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    storage.commit(Batch::new(), Level::Synced);
    put(&mut storage, "b", "1");
    let pending = disk.pending();
    assert_eq!((pending.sync_asked, pending.last), (Ticket(2), Ticket(3)));
}

#[test]
fn a_failed_sync_poisons_for_good() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    disk.sync_up_to(Ticket(1));
    disk.fail_next_sync();
    assert_eq!(disk.sync_up_to(Ticket(1)), progress(1, 1)); // nothing to sync
    put(&mut storage, "b", "1");
    let poisoned = disk.sync_up_to(Ticket(2));
    assert!(matches!(&poisoned, CommitEvent::Poisoned(reason) if reason.contains("sync failed")));
    put(&mut storage, "c", "1");
    assert_eq!(disk.sync_up_to(Ticket(3)), poisoned); // a retry pretends nothing
    assert_eq!(disk.write_up_to(Ticket(3)), poisoned);
    assert_eq!(get(&storage, "a").as_deref(), Some("1")); // reads still work
    assert!(matches!(
        storage.close(),
        Err(StorageError::Poisoned { .. })
    ));

    // What failed to be synced was written and may be there or not; what came after is not.
    disk.crash(0);
    let storage = disk.open();
    assert_eq!(
        (
            get(&storage, "a").is_some(),
            get(&storage, "b"),
            get(&storage, "c")
        ),
        (true, None, None)
    );
}

#[test]
fn a_full_disk_poisons_and_stays_readable() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    disk.sync_up_to(Ticket(1));
    disk.set_full(true);
    put(&mut storage, "a", "2");
    assert!(matches!(
        disk.write_up_to(Ticket(2)),
        CommitEvent::Poisoned(_)
    ));
    disk.set_full(false);
    assert!(matches!(
        disk.write_up_to(Ticket(2)),
        CommitEvent::Poisoned(_)
    ));
    disk.kill();
    let mut storage = disk.open(); // a restart with space again is sound
    assert_eq!(get(&storage, "a").as_deref(), Some("1"));
    put(&mut storage, "a", "3");
    assert_eq!(disk.sync_up_to(Ticket(1)), progress(1, 1));
}

#[test]
fn damage_is_an_error_until_written_again() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    put(&mut storage, "b", "1");
    assert!(
        !disk.corrupt(Family::Records, b"a"),
        "nothing is on disk yet"
    );
    disk.sync_up_to(Ticket(2));
    assert_eq!(disk.keys(Family::Records), ["a", "b"]);
    assert!(disk.corrupt(Family::Records, b"a"));

    let error = storage.get(Family::Records, b"a").unwrap_err();
    assert!(
        matches!(&error, StorageError::Corrupt { key, .. } if key == "a"),
        "{error}"
    );
    assert_eq!(
        storage.scan(Family::Records, b"", None, 10).unwrap_err(),
        error
    );
    assert_eq!(
        storage.scan(Family::Records, b"b", None, 10).unwrap().len(),
        1
    );

    // A rewrite hides it, and heals it only once it is on disk.
    put(&mut storage, "a", "2");
    assert_eq!(get(&storage, "a").as_deref(), Some("2"));
    disk.crash(0);
    let mut storage = disk.open();
    assert!(storage.get(Family::Records, b"a").is_err());
    put(&mut storage, "a", "2");
    disk.sync_up_to(Ticket(1));
    disk.crash(0);
    assert_eq!(get(&disk.open(), "a").as_deref(), Some("2"));
}

#[test]
fn damage_below_a_rewrite_shows_when_the_rewrite_is_lost() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    disk.sync_up_to(Ticket(1));
    let mut batch = Batch::new();
    batch.delete(Family::Records, "a");
    storage.commit(batch, Level::Written);
    assert!(disk.corrupt(Family::Records, b"a"));
    assert_eq!(get(&storage, "a"), None);
    disk.crash(0);
    assert!(disk.open().get(Family::Records, b"a").is_err());
}

#[test]
fn a_copy_goes_its_own_way() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    put(&mut storage, "a", "1");
    disk.sync_up_to(Ticket(1));
    let copy = disk.copy();
    put(&mut storage, "a", "2");
    disk.sync_up_to(Ticket(2));
    assert_eq!(get(&copy.open(), "a").as_deref(), Some("1"));
    assert_eq!(get(&storage, "a").as_deref(), Some("2"));
}

#[test]
#[should_panic(expected = "this process is dead")]
fn the_dead_do_not_write() {
    let disk = MemoryDisk::new();
    let mut storage = disk.open();
    disk.kill();
    put(&mut storage, "a", "1");
}

#[test]
#[should_panic(expected = "the disk is open")]
fn a_disk_has_one_process() {
    let disk = MemoryDisk::new();
    let _first = disk.open();
    disk.open();
}
