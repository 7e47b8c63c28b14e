//! Values that end: when they do, and how they go (rule R16).
//!
//! A deadline is a time of day, so it takes clocks. They are trusted only so far: all clocks of a cluster are taken to be
//! within [`TTL_SKEW_MAX`](quorate_protocol::TTL_SKEW_MAX) of each other. From its deadline on a coordinator shows a value
//! no more, by its own clock. A replica drops it only when every clock has passed the deadline. From there on no node shows
//! it, so it does not matter which replica still has it; and whoever is sent a copy marks its dot seen and stores nothing.
//! So a value that has expired needs no evidence: its end travels with it.
//!
//! What is stored and has a deadline stands in an index, in the order of deadlines, so that what is to be dropped is found
//! without looking at the rest.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_causal::Record;
use quorate_protocol::{Lifetime, Refusal, TTL_MAX, TTL_MIN, ttl_text};
use quorate_ring::ReplicaSetId;
use quorate_storage::{Batch, Family, Level, Storage};

use crate::api::{Event, Output};
use crate::jobs::SEEK_UNITS;
use crate::keys;
use crate::node::Node;
use crate::replica::Replica;
use crate::target::Target;
use crate::time::Time;

/// The least time between two slices of dropping. With 64 records a slice that is some ten thousand a second, and some
/// tenth of the thread, while anything is left to drop; and nothing otherwise.
const SLICE_EVERY_US: u64 = 5_000;

/// The time of day as it is while one input is handled, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Moment {
    /// Now. 0 while it is not known: then nothing has expired.
    pub(crate) wall_ms: u64,
    /// Deadlines up to here have passed on every clock: what has them is dropped. 0 while that is not known.
    pub(crate) dead_ms: u64,
}

/// The time of day, as the driver told it last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wall {
    told: Option<(Time, u64)>,
}

impl Wall {
    /// The driver told the time: `clock_ms` since the Unix epoch, or 0 if it does not know.
    pub(crate) fn tell(&mut self, now: Time, clock_ms: u64) {
        if clock_ms > 0 {
            self.told = Some((now, clock_ms));
        }
    }

    /// The time of day at `now`: what was told, and what has passed since.
    pub(crate) fn moment(&self, now: Time, skew_max: std::time::Duration) -> Moment {
        let Some((at, clock_ms)) = self.told else {
            return Moment::default();
        };
        let wall_ms = clock_ms.saturating_add(now.since(at).as_millis() as u64);
        Moment {
            wall_ms,
            dead_ms: wall_ms.saturating_sub(skew_max.as_millis() as u64),
        }
    }
}

/// The deadlines of a record's values. Mostly none, which costs nothing.
pub(crate) fn deadlines(record: &Record) -> Vec<u64> {
    record.live().iter().filter_map(|s| s.expires).collect()
}

/// Puts into a batch what a record has become, which is no row where nothing is left of it, and what that changes in the
/// index of deadlines. `before` are the deadlines that it had.
pub(crate) fn rewrite(
    batch: &mut Batch,
    set: ReplicaSetId,
    at: &Bytes,
    before: &[u64],
    record: &Record,
) {
    if record.is_empty() {
        batch.delete(Family::Records, at.clone());
    } else {
        batch.put(Family::Records, at.clone(), record.encode());
    }
    let after = deadlines(record);
    for gone in before.iter().filter(|d| !after.contains(d)) {
        batch.delete(Family::Deadlines, keys::deadline(*gone, at));
    }
    for new in after.iter().filter(|d| !before.contains(d)) {
        let set = set.0.to_be_bytes().to_vec();
        batch.put(Family::Deadlines, keys::deadline(*new, at), set);
    }
}

/// How far the index of deadlines has been gone through.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// No row before this one is left, but for those whose records could not be read. Rows that went are passed over
    /// slowly, so it does not begin at the beginning each time.
    from: Vec<u8>,
    /// Values dropped since that was asked for last.
    pub(crate) dropped: u64,
}

impl Sweep {
    /// A record with such deadlines was stored. By a clock that was set back they may lie where the sweep was already.
    pub(crate) fn noticed(&mut self, deadlines: &[u64]) {
        if let Some(first) = deadlines.iter().min()
            && first.to_be_bytes()[..] < self.from[..]
        {
            self.from = first.to_be_bytes().to_vec();
        }
    }
}

impl<S: Storage, W> Replica<S, W> {
    /// Drops values that are dead, by way of at most so many rows of the index. Whether there may be more.
    pub(crate) fn sweep(&mut self, rows_max: usize) -> bool {
        let dead_ms = self.moment.dead_ms;
        let to = dead_ms.saturating_add(1).to_be_bytes();
        if dead_ms == 0 || self.poisoned().is_some() || self.sweep.from[..] >= to[..] {
            return false;
        }
        let from = &self.sweep.from;
        let found = self
            .storage()
            .scan(Family::Deadlines, from, Some(&to), rows_max);
        // What cannot be read now is tried again at the next occasion.
        let Ok(rows) = found else {
            return false;
        };
        let mut batch = Batch::new();
        let mut dropped = 0;
        let mut seen: BTreeSet<Bytes> = BTreeSet::new();
        for (row, set) in &rows {
            let (Some(at), Ok(set)) = (keys::record_of_deadline(row), set[..].try_into()) else {
                continue;
            };
            let at = row.slice_ref(at);
            // A record with several rows loses all that is dead at the first.
            if !seen.contains(&at) {
                // The row stays: what became of a record that cannot be read is not known.
                let Ok(record) = self.stored(&at) else {
                    continue;
                };
                let mut record = record.unwrap_or_default();
                let before = deadlines(&record);
                let went = record.drop_expired(dead_ms).len() as u64;
                if went > 0 {
                    dropped += went;
                    let set = ReplicaSetId(u64::from_be_bytes(set));
                    rewrite(&mut batch, set, &at, &before, &record);
                }
                seen.insert(at);
            }
            // Also where its value went otherwise.
            batch.delete(Family::Deadlines, row.clone());
        }
        let more = rows.len() >= rows_max;
        self.sweep.from = match rows.last() {
            Some((row, _)) if more => [row, &[0][..]].concat(),
            _ => to.to_vec(),
        };
        self.sweep.dropped += dropped;
        if !batch.is_empty() {
            self.commit_at(batch, Level::Written);
        }
        more
    }
}

impl<S: Storage> Node<S> {
    /// When a put's value is to end, by its own wish or its bucket's.
    pub(crate) fn deadline(
        &self,
        target: &Target,
        lifetime: Option<Lifetime>,
    ) -> Result<Option<u64>, Refusal> {
        let lifetime = lifetime.or(target.policy.ttl_ms.map(Lifetime::Ms));
        let wall_ms = self.replica.moment.wall_ms;
        let most = wall_ms.saturating_add(TTL_MAX.as_millis() as u64);
        let deadline = match lifetime {
            None | Some(Lifetime::Unlimited) => return Ok(None),
            // It began a moment ago, and does not know yet what time it is.
            Some(_) if wall_ms == 0 => return Err(Refusal::Overloaded),
            Some(Lifetime::Ms(ms)) => {
                ttl(ms)?;
                wall_ms.saturating_add(ms)
            }
            Some(Lifetime::Until(at)) => at,
        };
        if deadline <= wall_ms {
            return Err(Refusal::Impossible(
                "the value has expired already: its deadline is past".to_owned(),
            ));
        }
        if deadline > most {
            return Err(Refusal::Impossible(
                "the value's deadline is further off than 10 years: store it without one"
                    .to_owned(),
            ));
        }
        Ok(Some(deadline))
    }

    /// Drops what is dead, a slice at a time. Begun when the time is told, which is once a second.
    pub(crate) fn on_sweep(&mut self, now: Time) {
        let rows = (self.config.limits.slice_units / SEEK_UNITS).max(1);
        let more = self.replica.sweep(rows);
        self.sweep_at = more.then_some(Time(now.0 + SLICE_EVERY_US));
    }

    /// Tells how many values were dropped.
    pub(crate) fn tell_dropped(&mut self, out: &mut Vec<Output>) {
        for _ in 0..std::mem::take(&mut self.replica.sweep.dropped) {
            out.push(Output::Event(Event::ExpiredDropped));
        }
    }
}

/// Refuses a time to live that is out of bounds.
pub(crate) fn ttl(ms: u64) -> Result<(), Refusal> {
    let (least, most) = (TTL_MIN.as_millis() as u64, TTL_MAX.as_millis() as u64);
    if (least..=most).contains(&ms) {
        return Ok(());
    }
    Err(Refusal::Impossible(format!(
        "ttl={} is not possible: a value lives for at least 1s and at most 10 years (3650d)",
        ttl_text(ms)
    )))
}
