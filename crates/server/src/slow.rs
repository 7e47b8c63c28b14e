//! The log of requests that took long: bounded, so that a cluster in trouble does not drown in its own complaints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use quorate_node::Slow;
use quorate_ring::NodeId;

/// At most so many lines in [`WINDOW`].
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Which lines may be written.
#[derive(Debug)]
pub(crate) struct Throttle {
    began: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Throttle {
            began: None,
            written: 0,
            suppressed: 0,
        }
    }

    /// Whether one more line may be written at this moment; if so, how many were not since the last.
    pub(crate) fn allows(&mut self, now: Instant) -> Option<u64> {
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= WINDOW)
        {
            self.began = Some(now);
            self.written = 0;
        }
        if self.written == LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Writes the line. The key shows only where debugging is switched on: it may be private, and logs travel.
pub(crate) fn log(node: &str, peers: &BTreeMap<NodeId, String>, slow: &Slow, suppressed: u64) {
    let mut replicas = String::new();
    for (at, after) in &slow.replicas {
        let name = peers.get(at).map_or(node, String::as_str);
        let gap = if replicas.is_empty() { "" } else { " " };
        let _ = write!(replicas, "{gap}{name}={}us", after.as_micros());
    }
    let key = tracing::enabled!(tracing::Level::DEBUG).then_some(slow.key.as_str());
    tracing::warn!(
        node,
        request_id = slow.trace_id.map(|id| format!("{id:032x}")),
        operation = slow.operation,
        bucket = slow.bucket,
        key,
        key_bytes = slow.key.len(),
        partition = slow.partition.0,
        outcome = slow.outcome,
        duration_us = slow.took.as_micros() as u64,
        forwarded = slow.forwarded,
        replicas,
        suppressed,
        "a slow request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_those_left_out_are_counted() {
        let mut throttle = Throttle::new();
        let start = Instant::now();
        let allowed = (0..25)
            .filter_map(|_| throttle.allows(start))
            .collect::<Vec<_>>();
        assert_eq!(allowed, [0; LINES_MAX as usize]);
        assert_eq!(throttle.allows(start + WINDOW / 2), None);
        assert_eq!(throttle.allows(start + WINDOW), Some(16));
        assert_eq!(throttle.allows(start + WINDOW), Some(0));
    }
}
