//! What every engine promises, asked of each: random operations against a map.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_storage::memory::{MemoryDisk, MemoryStorage};
use quorate_storage::{Batch, CommitEvent, Family, Level, Progress, Storage, StorageError, Ticket};

/// An engine with whatever stands between it and its core.
trait Engine {
    type Storage: Storage;

    fn storage(&mut self) -> &mut Self::Storage;

    /// Lets the disk do as much as it wants, and returns what arrived at the core meanwhile, oldest first.
    fn events(&mut self) -> Vec<CommitEvent>;

    /// Waits until the disk has everything, and returns what arrived.
    fn settled(&mut self, last: Ticket) -> Vec<CommitEvent>;

    /// Closes cleanly and opens again.
    fn reopen(&mut self);
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(Family, Vec<u8>, Option<Vec<u8>>)>, Level),
    Get(Family, Vec<u8>),
    Scan(Family, Vec<u8>, Option<Vec<u8>>, usize),
    /// Visits, and breaks off after so many entries.
    Visit(Family, Vec<u8>, Option<Vec<u8>>, usize),
    Advance,
    Settle,
    Reopen,
}

fn family() -> impl Strategy<Value = Family> {
    proptest::sample::select(Family::ALL.to_vec())
}

/// Few and short, so that steps meet on the same keys, one is often the prefix of another, and some are empty.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(
        prop_oneof![Just(0_u8), Just(1), Just(0x7f), Just(0xff)],
        0..3,
    )
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        2 => vec(any::<u8>(), 0..40).prop_map(Some),
        1 => Just(None),
    ];
    let level = prop_oneof![Just(Level::Written), Just(Level::Synced)];
    let to = || proptest::option::weighted(0.7, key());
    let limit = prop_oneof![0..4_usize, Just(usize::MAX)];
    prop_oneof![
        8 => (vec((family(), key(), value), 0..5), level).prop_map(|(ops, level)| Step::Commit(ops, level)),
        6 => (family(), key()).prop_map(|(family, key)| Step::Get(family, key)),
        6 => (family(), key(), to(), limit).prop_map(|(family, from, to, limit)| Step::Scan(family, from, to, limit)),
        6 => (family(), key(), to(), 1..4_usize).prop_map(|(family, from, to, end)| Step::Visit(family, from, to, end)),
        3 => Just(Step::Advance),
        1 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

fn expected(
    model: &Model,
    family: Family,
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) -> Vec<(Bytes, Bytes)> {
    let of_family = model.iter().filter(|((f, _), _)| *f == family);
    let in_range = of_family
        .filter(|((_, key), _)| key.as_slice() >= from && to.is_none_or(|to| key.as_slice() < to));
    in_range
        .take(limit)
        .map(|((_, key), value)| (key.clone().into(), value.clone().into()))
        .collect()
}

/// Passes events on as a driver does, checking that progress never falls and claims nothing that was not committed.
fn deliver(
    storage: &mut impl Storage,
    events: Vec<CommitEvent>,
    seen: &mut Progress,
    last: Ticket,
) {
    for event in events {
        let CommitEvent::Progress(progress) = event else {
            panic!("a sound disk reported {event:?}");
        };
        assert!(progress.written >= seen.written && progress.synced >= seen.synced);
        assert!(progress.synced <= progress.written && progress.written <= last);
        storage.advance(progress);
        *seen = progress;
    }
}

fn conforms(engine: &mut impl Engine, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    let mut last = Ticket(0);
    let mut seen = Progress::default();
    for step in steps {
        match step {
            Step::Commit(ops, level) => {
                let mut batch = Batch::new();
                for (family, key, value) in ops {
                    match value {
                        Some(value) => {
                            batch.put(family, key.clone(), value.clone());
                            model.insert((family, key), value);
                        }
                        None => {
                            batch.delete(family, key.clone());
                            model.remove(&(family, key));
                        }
                    }
                }
                let ticket = engine.storage().commit(batch, level);
                prop_assert_eq!(ticket, last.next());
                last = ticket;
            }
            Step::Get(family, key) => {
                let got = engine.storage().get(family, &key).unwrap();
                let there = model.get(&(family, key));
                prop_assert_eq!(got.as_deref(), there.map(Vec::as_slice));
            }
            Step::Scan(family, from, to, limit) => {
                let got = engine
                    .storage()
                    .scan(family, &from, to.as_deref(), limit)
                    .unwrap();
                prop_assert_eq!(got, expected(&model, family, &from, to.as_deref(), limit));
            }
            Step::Visit(family, from, to, end) => {
                let mut got = Vec::new();
                let visited =
                    engine
                        .storage()
                        .visit(family, &from, to.as_deref(), &mut |key, value| {
                            let (key, value) = (key.to_vec(), value.to_vec());
                            got.push((Bytes::from(key), Bytes::from(value)));
                            match got.len() < end {
                                true => ControlFlow::Continue(()),
                                false => ControlFlow::Break(()),
                            }
                        });
                visited.unwrap();
                prop_assert_eq!(got, expected(&model, family, &from, to.as_deref(), end));
            }
            Step::Advance => {
                let events = engine.events();
                deliver(engine.storage(), events, &mut seen, last);
            }
            Step::Settle => {
                let events = engine.settled(last);
                deliver(engine.storage(), events, &mut seen, last);
                prop_assert_eq!(seen.written, last);
            }
            Step::Reopen => {
                engine.reopen();
                last = Ticket(0);
                seen = Progress::default();
            }
        }
    }
    for family in Family::ALL {
        let all = engine
            .storage()
            .scan(family, b"", None, usize::MAX)
            .unwrap();
        prop_assert_eq!(all, expected(&model, family, b"", None, usize::MAX));
    }
    Ok(())
}

struct Memory {
    disk: MemoryDisk,
    storage: Option<MemoryStorage>,
}

impl Engine for Memory {
    type Storage = MemoryStorage;

    fn storage(&mut self) -> &mut MemoryStorage {
        self.storage.as_mut().unwrap()
    }

    fn events(&mut self) -> Vec<CommitEvent> {
        let pending = self.disk.pending();
        let next = pending.progress.written.next();
        vec![
            self.disk.write_up_to(next),
            self.disk.sync_up_to(pending.sync_asked),
        ]
    }

    fn settled(&mut self, last: Ticket) -> Vec<CommitEvent> {
        vec![self.disk.sync_up_to(last)]
    }

    fn reopen(&mut self) {
        self.storage.take().unwrap().close().unwrap();
        self.storage = Some(self.disk.open());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn memory_conforms(steps in vec(step(), 0..60)) {
        let disk = MemoryDisk::new();
        let storage = Some(disk.open());
        conforms(&mut Memory { disk, storage }, steps)?;
    }

    /// Whatever is committed, written and synced: a kill keeps what was written, a loss of power a prefix of the
    /// batches that has at least what was synced, and each batch whole.
    #[test]
    fn memory_loses_only_a_tail(
        batches in vec(vec((family(), key(), proptest::option::of(vec(any::<u8>(), 0..4))), 0..4), 0..20),
        written in 0..20_u64,
        synced in 0..20_u64,
        keep in 0..20_usize,
        kill in any::<bool>(),
    ) {
        let disk = MemoryDisk::new();
        let mut storage = disk.open();
        // The state after each number of batches.
        let mut states = vec![Model::new()];
        for ops in batches {
            let mut model = states.last().unwrap().clone();
            let mut batch = Batch::new();
            for (family, key, value) in ops {
                if let Some(value) = value {
                    batch.put(family, key.clone(), value.clone());
                    model.insert((family, key), value);
                } else {
                    batch.delete(family, key.clone());
                    model.remove(&(family, key));
                }
            }
            storage.commit(batch, Level::Written);
            states.push(model);
        }
        disk.write_up_to(Ticket(written));
        let CommitEvent::Progress(progress) = disk.sync_up_to(Ticket(synced)) else { unreachable!() };
        let committed = states.len() - 1;
        let left = if kill {
            prop_assert_eq!(disk.kill(), committed - progress.written.0 as usize);
            progress.written.0 as usize
        } else {
            let lost = disk.crash(keep);
            prop_assert_eq!(committed - lost, committed.min(progress.synced.0 as usize + keep));
            committed - lost
        };
        let storage = disk.open();
        for family in Family::ALL {
            let all = storage.scan(family, b"", None, usize::MAX).unwrap();
            prop_assert_eq!(all, expected(&states[left], family, b"", None, usize::MAX));
        }
        // What was found was synced by the open, so that nothing takes it any more.
        disk.crash(0);
        let storage = disk.open();
        for family in Family::ALL {
            let all = storage.scan(family, b"", None, usize::MAX).unwrap();
            prop_assert_eq!(all, expected(&states[left], family, b"", None, usize::MAX));
        }
    }
}

/// Ranges that hold nothing are no mistake.
fn empty_ranges(storage: &impl Storage) -> Result<(), StorageError> {
    for (from, to) in [(&b"b"[..], &b"a"[..]), (b"b", b"b"), (b"", b"")] {
        assert_eq!(storage.scan(Family::Records, from, Some(to), 10)?, []);
    }
    Ok(())
}

#[test]
fn memory_takes_empty_ranges() {
    empty_ranges(&MemoryDisk::new().open()).unwrap();
}

#[test]
fn bounds_are_half_open() {
    // Guards the model itself: a range of the standard library agrees with `expected`.
    let model: Model = [b"a", b"b", b"c"]
        .map(|k| ((Family::Meta, k.to_vec()), vec![]))
        .into();
    let keys: BTreeMap<Vec<u8>, ()> = model.keys().map(|(_, k)| (k.clone(), ())).collect();
    let range = (Bound::Included(&b"a"[..]), Bound::Excluded(&b"c"[..]));
    assert_eq!(keys.range::<[u8], _>(range).count(), 2);
    assert_eq!(expected(&model, Family::Meta, b"a", Some(b"c"), 9).len(), 2);
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use quorate_storage::rocks::{Durability, Rocks, RocksOptions};
    use tempfile::TempDir;

    use super::*;

    struct OnDisk {
        dir: TempDir,
        durability: Durability,
        open: Option<(Rocks, Receiver<CommitEvent>)>,
        written: Ticket,
    }

    impl OnDisk {
        fn new(durability: Durability) -> Self {
            let mut engine = OnDisk {
                dir: tempfile::tempdir().unwrap(),
                durability,
                open: None,
                written: Ticket(0),
            };
            engine.reopen();
            engine
        }

        fn note(&mut self, events: &[CommitEvent]) {
            if let Some(CommitEvent::Progress(progress)) = events.last() {
                self.written = progress.written;
            }
        }
    }

    impl Engine for OnDisk {
        type Storage = Rocks;

        fn storage(&mut self) -> &mut Rocks {
            &mut self.open.as_mut().unwrap().0
        }

        fn events(&mut self) -> Vec<CommitEvent> {
            let (rocks, reports) = self.open.as_mut().unwrap();
            let mut events: Vec<CommitEvent> = reports.try_iter().collect();
            events.extend(rocks.submit());
            self.note(&events);
            events
        }

        fn settled(&mut self, last: Ticket) -> Vec<CommitEvent> {
            let mut events = self.events();
            while self.written < last {
                let event = self
                    .open
                    .as_ref()
                    .unwrap()
                    .1
                    .recv_timeout(Duration::from_secs(30));
                events.push(event.expect("the committer reports within its time"));
                self.note(&events);
            }
            events
        }

        fn reopen(&mut self) {
            if let Some((rocks, _)) = self.open.take() {
                rocks.close().unwrap();
            }
            let (tell, events) = channel();
            let on_event = Box::new(move |event| drop(tell.send(event)));
            let options = RocksOptions {
                durability: self.durability,
                ..RocksOptions::default()
            };
            let rocks = Rocks::open(self.dir.path(), options, on_event).unwrap();
            self.open = Some((rocks, events));
            self.written = Ticket(0);
        }
    }

    proptest! {
        // An open costs some tens of milliseconds, so these are fewer.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn rocks_conforms(steps in vec(step(), 0..60), fsync in any::<bool>()) {
            let durability = if fsync { Durability::Fsync } else { Durability::Os };
            conforms(&mut OnDisk::new(durability), steps)?;
        }
    }

    #[test]
    fn rocks_takes_empty_ranges() {
        empty_ranges(OnDisk::new(Durability::Os).storage()).unwrap();
    }
}
