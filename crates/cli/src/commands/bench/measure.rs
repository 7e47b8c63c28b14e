//! What is counted while a load runs.
//!
//! A request belongs to the measurement if it began, or in an open loop was due, within the window: whatever becomes of it later is
//! counted then. Throughput is another question: how many were answered within the window, whenever they began.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::target::{Kind, Success, Trouble};

/// Latencies are kept in nanoseconds, to three digits; below a microsecond nothing crosses a socket.
const LATENCY_NS_MIN: u64 = 1_000;
/// Above the longest timeout that a request may have. What is longer all the same, the wait in a backlog, counts as this.
const LATENCY_NS_MAX: u64 = 1_000_000_000_000;
const DIGITS: u8 = 3;

/// What became of the requests of one kind.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Of those that succeeded, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Of the succeeded, gets of absent keys.
    pub(super) absent: u64,
    /// Of the succeeded, gets that showed more than one value.
    pub(super) with_siblings: u64,
    /// By kind: how many, and one of them.
    pub(super) failed: BTreeMap<String, (u64, String)>,
    /// Answered within the window.
    pub(super) answered_in_window: u64,
}

/// A histogram for latencies.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, DIGITS)
        .expect("the bounds are in order and three digits are allowed")
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            latency: histogram(),
            absent: 0,
            with_siblings: 0,
            failed: BTreeMap::new(),
            answered_in_window: 0,
        }
    }

    /// How many succeeded.
    pub(super) fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// How many failed.
    pub(super) fn failures(&self) -> u64 {
        self.failed.values().map(|(count, _)| count).sum()
    }

    /// Adds another's.
    pub(super) fn add(&mut self, other: &Tally) {
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
        self.absent += other.absent;
        self.with_siblings += other.with_siblings;
        self.answered_in_window += other.answered_in_window;
        for (kind, (count, sample)) in &other.failed {
            let failed = self.failed.entry(kind.clone());
            failed.or_insert_with(|| (0, sample.clone())).0 += count;
        }
    }
}

/// When the measurement is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Window {
    Before,
    Open(Instant),
    Closed(Instant, Instant),
}

/// Counts what a load tells it.
#[derive(Debug)]
pub(super) struct Recorder {
    window: Window,
    tallies: [Tally; 3],
    /// How many were answered in each second of the window.
    timeline: Vec<u64>,
    /// All requests that were answered within the window, failed ones too.
    answered: u64,
    /// How long after they were due requests of an open loop were started, in nanoseconds.
    pub(super) lateness: Histogram<u64>,
    /// Due within the window, and never started.
    pub(super) dropped: u64,
    /// How many more may be started, where that is bounded.
    left: Option<u64>,
}

impl Recorder {
    /// Measures at most `requests`.
    pub(super) fn new(requests: Option<u64>) -> Recorder {
        Recorder {
            window: Window::Before,
            tallies: [Tally::new(), Tally::new(), Tally::new()],
            timeline: Vec::new(),
            answered: 0,
            lateness: histogram(),
            dropped: 0,
            left: requests,
        }
    }

    /// The measurement begins.
    pub(super) fn open(&mut self, now: Instant) {
        self.window = Window::Open(now);
    }

    /// The measurement ends. What belongs to it and is under way is still counted when it ends.
    pub(super) fn close(&mut self, now: Instant) {
        if let Window::Open(from) = self.window {
            self.window = Window::Closed(from, now);
        }
    }

    /// Whether there is nothing more to start.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.window, Window::Closed(..)) || self.left == Some(0)
    }

    /// Whether a request that is due at this moment is to be asked. Also when the measurement is over, for one that was due
    /// before: where this process was kept from running just then, it would else be forgotten.
    pub(super) fn takes(&self, due: Instant) -> bool {
        let within = match self.window {
            Window::Closed(_, until) => due < until,
            Window::Before | Window::Open(_) => true,
        };
        within && self.left != Some(0)
    }

    /// How long the measurement has lasted or lasts.
    pub(super) fn measured(&self) -> Duration {
        match self.window {
            Window::Before => Duration::ZERO,
            Window::Open(from) => from.elapsed(),
            Window::Closed(from, until) => until - from,
        }
    }

    fn counts(&self, began: Instant) -> bool {
        match self.window {
            Window::Before => false,
            Window::Open(from) => from <= began,
            Window::Closed(from, until) => from <= began && began < until,
        }
    }

    /// A request is started, or due where a timetable says so.
    pub(super) fn started(&mut self) {
        if let (Window::Open(_), Some(left)) = (self.window, &mut self.left) {
            *left = left.saturating_sub(1);
        }
    }

    /// A request of an open loop is started at `now` that was due before.
    pub(super) fn started_late(&mut self, due: Instant, now: Instant) {
        if self.counts(due) {
            self.lateness.saturating_record(nanos(now - due));
        }
    }

    /// A request that was due is not started, because too many wait.
    pub(super) fn dropped(&mut self, due: Instant) {
        if self.counts(due) {
            self.dropped += 1;
        }
    }

    /// A request has ended. It `began` when it was asked, or in an open loop when it was due.
    pub(super) fn ended(
        &mut self,
        kind: Kind,
        began: Instant,
        now: Instant,
        result: Result<Success, Trouble>,
    ) {
        let counts = self.counts(began);
        let tally = &mut self.tallies[kind as usize];
        if let Window::Open(from) = self.window {
            self.answered += 1;
            if result.is_ok() {
                tally.answered_in_window += 1;
                let second = (now - from).as_secs() as usize;
                if self.timeline.len() <= second {
                    self.timeline.resize(second + 1, 0);
                }
                self.timeline[second] += 1;
            }
        }
        if !counts {
            return;
        }
        match result {
            Ok(success) => {
                tally.latency.saturating_record(nanos(now - began));
                tally.absent += u64::from(success.absent);
                tally.with_siblings += u64::from(success.values > 1);
            }
            Err(Trouble { kind, message }) => match tally.failed.get_mut(&*kind) {
                Some((count, _)) => *count += 1,
                None => {
                    tally.failed.insert(kind.into_owned(), (1, message));
                }
            },
        }
    }

    /// Of one kind.
    pub(super) fn tally(&self, kind: Kind) -> &Tally {
        &self.tallies[kind as usize]
    }

    /// Of all kinds.
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::new();
        for tally in &self.tallies {
            total.add(tally);
        }
        total
    }

    /// How many were answered within the window, in any way.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// How many succeeded in each whole second of the window.
    pub(super) fn timeline(&self) -> Vec<u64> {
        let mut timeline = self.timeline.clone();
        // Shorter where nothing came at the end, longer by the part of a second that began.
        timeline.resize(self.measured().as_secs() as usize, 0);
        timeline
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_in_the_window_counts_whenever_it_ends() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let good = || Ok(Success::default());
        let mut recorder = Recorder::new(None);
        recorder.ended(Kind::Get, at(0), at(10), good());
        recorder.open(at(100));
        recorder.ended(Kind::Get, at(50), at(120), good());
        recorder.ended(Kind::Get, at(100), at(130), good());
        recorder.ended(
            Kind::Put,
            at(100),
            at(1_500),
            Err(Trouble::new("lost", "x")),
        );
        recorder.dropped(at(150));
        recorder.close(at(2_100));
        recorder.ended(Kind::Get, at(2_000), at(2_200), good());
        recorder.ended(Kind::Get, at(2_100), at(2_200), good());

        let gets = recorder.tally(Kind::Get);
        assert_eq!((gets.succeeded(), gets.answered_in_window), (2, 2));
        assert_eq!(gets.latency.max() / 1_000_000, 200);
        assert_eq!(recorder.tally(Kind::Put).failures(), 1);
        assert_eq!((recorder.answered(), recorder.dropped), (3, 1));
        assert_eq!(recorder.measured(), Duration::from_secs(2));
        assert_eq!(recorder.timeline(), [2, 0]);
        assert!(recorder.is_over());
        assert!(recorder.takes(at(2_099)) && !recorder.takes(at(2_100)));
    }
}
