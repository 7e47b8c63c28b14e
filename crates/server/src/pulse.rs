//! What a node looks at once a second: the file system of its directory, and the clock.
//!
//! It is not much and need not be exact: fullness is acted on long before the disk is full, and of the
//! clock only deadlines of values depend, for which clocks may be an hour apart.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::DiskReserve;
use crate::event::{Event, Events};

/// Between two looks. In this time a node takes no more than its disk can write, which the reserve has to hold.
const EVERY: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pulse {
    /// Bytes free for this process on the file system; `None` if it does not say.
    pub(crate) free_bytes: Option<u64>,
    /// Bytes that must stay free.
    pub(crate) reserve_bytes: u64,
    /// Milliseconds since the epoch; 0 if the clock is before it.
    pub(crate) clock_ms: u64,
}

/// Looks now.
pub(crate) fn look(dir: &Path, reserve: DiskReserve) -> Pulse {
    let (free_bytes, reserve_bytes) = match rustix::fs::statvfs(dir) {
        Ok(found) => (
            Some(found.f_bavail.saturating_mul(found.f_frsize)),
            reserve.bytes_of(found.f_blocks.saturating_mul(found.f_frsize)),
        ),
        Err(error) => {
            tracing::debug!(dir = %dir.display(), %error, "the file system does not say how full it is");
            (None, 0)
        }
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    Pulse {
        free_bytes,
        reserve_bytes,
        clock_ms: clock.map_or(0, |since| since.as_millis() as u64),
    }
}

/// Looks for ever.
pub(crate) async fn beat(dir: PathBuf, reserve: DiskReserve, events: Events) {
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        events.push(Event::Pulse(look(&dir, reserve)));
    }
}
