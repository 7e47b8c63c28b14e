//! CPU time of this process and of others on this machine.
//!
//! The scheduler keeps it to the nanosecond for each thread (`/proc/PID/task/*/schedstat`), but forgets a thread that ends; the sum
//! over a process's whole life (`/proc/PID/stat`) forgets nothing and comes in ticks of 10 ms. The finer is taken where no thread
//! ended in between.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of the ticks in `/proc/PID/stat`: fixed by the kernel's interface, whatever it counts in itself.
const TICKS_A_SECOND: u64 = 100;

/// What a process had used at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    /// When it was started, in ticks: another process of the same id has another.
    started: u64,
    ticks: u64,
    /// By thread, in nanoseconds; empty where the kernel does not keep it.
    threads: BTreeMap<u64, u64>,
}

/// What this process has used.
pub(super) fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The name of a process.
///
/// # Errors
/// In words, if there is none of this id, or this system does not tell.
pub(super) fn name(pid: u64) -> Result<String, String> {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => Ok(name.trim_end().to_owned()),
        Err(error) => Err(format!(
            "cannot read the CPU time of process {pid}: {error}"
        )),
    }
}

/// What a process has used; `None` if it is gone.
pub(super) fn read(pid: u64) -> Option<Reading> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (ticks, started) = parse_stat(&stat)?;
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end while the list is read.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
        let thread = task.file_name().to_str().and_then(|n| n.parse().ok());
        if let (Some(thread), Some(nanos)) = (thread, nanos) {
            threads.insert(thread, nanos);
        }
    }
    Some(Reading {
        started,
        ticks,
        threads,
    })
}

/// Ticks used and the tick of its start, from `/proc/PID/stat`. The second field is a name that may hold anything, in
/// parentheses; the state is field 3, user and system time are fields 14 and 15, the start is field 22. `None` for a process that has
/// ended and whose parent has not asked for its end yet.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

impl Reading {
    /// What the process has used since an earlier reading; `None` if it is another process.
    pub(super) fn since(&self, earlier: &Reading) -> Option<Duration> {
        if self.started != earlier.started {
            return None;
        }
        let ended = earlier
            .threads
            .keys()
            .any(|thread| !self.threads.contains_key(thread));
        if ended || self.threads.is_empty() {
            let ticks = self.ticks.saturating_sub(earlier.ticks);
            return Some(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND));
        }
        let nanos = self.threads.iter().map(|(thread, nanos)| {
            nanos.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        });
        Some(Duration::from_nanos(nanos.sum()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1 0 999 5 6";
        assert_eq!(parse_stat(stat), Some((42, 999)));
        assert_eq!(parse_stat(&stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_stat("7 (x) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn what_this_process_uses_shows() {
        let pid = u64::from(std::process::id());
        let (own_before, before) = (own(), read(pid).unwrap());
        while own() - own_before < Duration::from_millis(30) {}
        let used = read(pid).unwrap().since(&before).unwrap();
        assert!(used >= Duration::from_millis(20), "{used:?}");
        assert!(name(pid).is_ok());
    }

    #[test]
    fn ended_threads_are_not_forgotten_and_another_process_is_not_the_same() {
        let reading = |started, ticks, threads: &[(u64, u64)]| Reading {
            started,
            ticks,
            threads: threads.iter().copied().collect(),
        };
        let before = reading(5, 100, &[(1, 1_000), (2, 500)]);
        let used = |after: Reading| after.since(&before);
        assert_eq!(
            used(reading(5, 103, &[(1, 1_700), (2, 500), (3, 40)])),
            Some(Duration::from_nanos(740))
        );
        assert_eq!(
            used(reading(5, 103, &[(1, 1_700)])),
            Some(Duration::from_millis(30))
        );
        assert_eq!(used(reading(6, 103, &[(1, 1_700), (2, 600)])), None);
    }
}
