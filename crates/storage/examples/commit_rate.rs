//! What a put costs: processor time, and how many there are in a second, with a number of them in flight.
//!
//! ```text
//! cargo run --release -p quorate-storage --features rocksdb --example commit_rate -- [IN_FLIGHT] [SECONDS] [DIR]
//! ```
//!
//! One thread is the core, as in a node: it commits, hears of progress, and lets each answered put begin the next. Each
//! put is a record of 1 KiB and a row beside it, in one batch.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use quorate_storage::rocks::{Durability, Rocks, RocksOptions};
use quorate_storage::{Batch, CommitEvent, Family, Level, Storage, Ticket};

const VALUE_BYTES: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let in_flight: u64 = args.next().map_or(Ok(64), |arg| arg.parse())?;
    let seconds: u64 = args.next().map_or(Ok(5), |arg| arg.parse())?;
    let temp = tempfile::tempdir()?;
    let dir = args.next().map_or(temp.path().to_owned(), PathBuf::from);
    println!("{in_flight} puts in flight, {VALUE_BYTES} bytes each");
    for (name, durability) in [("fsync", Durability::Fsync), ("os", Durability::Os)] {
        let time = Duration::from_secs(seconds);
        run(name, &dir.join(name), durability, in_flight, time)?;
    }
    Ok(())
}

fn run(
    name: &str,
    dir: &Path,
    durability: Durability,
    in_flight: u64,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let (tell, events) = channel();
    let on_event = Box::new(move |event| drop(tell.send(event)));
    let options = RocksOptions {
        durability,
        ..RocksOptions::default()
    };
    let mut rocks = Rocks::open(dir, options, on_event)?;
    println!("{name:>5}: opened, {} kB resident", resident_kb()?);
    let mut keys = Keys(1);
    let mut put = |rocks: &mut Rocks| {
        let mut batch = Batch::new();
        batch.put(Family::Records, keys.next(), keys.value());
        batch.put(
            Family::Vnodes,
            &b"one row"[..],
            &b"that every put rewrites"[..],
        );
        rocks.commit(batch, Level::Written)
    };

    let (began, processor) = (start_of_clock(), processor_time()?);
    let mut last = Ticket(0);
    let mut answered = 0;
    let mut writes: u64 = 0;
    while began.elapsed() < time {
        while last.0 < answered + in_flight {
            last = put(&mut rocks);
        }
        // All that has arrived is heard at once, as a driver does.
        let first = events.recv()?;
        for event in std::iter::once(first).chain(events.try_iter()) {
            let CommitEvent::Progress(progress) = event else {
                return Err(format!("{event:?}").into());
            };
            rocks.advance(progress);
            answered = progress.written.0;
            writes += 1;
        }
    }
    let (elapsed, processor) = (began.elapsed(), processor_time()? - processor);
    println!(
        "{name:>5}: {:6.1} us of processor a put, {:8.0} puts a second, {:5.1} puts a write, {:?}",
        processor.as_secs_f64() * 1e6 / answered as f64,
        answered as f64 / elapsed.as_secs_f64(),
        answered as f64 / writes as f64,
        rocks.stats(),
    );
    rocks.close()?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
fn start_of_clock() -> Instant {
    Instant::now()
}

/// Processor time of all threads of this process so far.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    // Fields 14 and 15, counted from the process id, in ticks; Linux has 100 of them a second for every program.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no such field")?;
    let ticks = |n: usize| {
        fields
            .split_whitespace()
            .nth(n)
            .unwrap_or("0")
            .parse::<u64>()
    };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// Memory of this process that is in use.
fn resident_kb() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no such field")?.to_owned())
}

/// Keys and values that do not repeat soon, from a small generator.
struct Keys(u64);

impl Keys {
    fn step(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn next(&mut self) -> Vec<u8> {
        self.step().to_be_bytes().to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        let words = (0..VALUE_BYTES / 8).flat_map(|_| self.step().to_le_bytes());
        words.collect()
    }
}
