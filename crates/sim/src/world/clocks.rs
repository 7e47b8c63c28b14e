//! Clocks: what nodes are told of the time of day, and what deadlines must come to.
//!
//! No two clocks are further apart than is allowed, but for those that jump. While one is an hour off, nothing is promised
//! about values that end while the seed runs; about all others everything is, and also that what is dead is gone at rest.

use super::*;

/// The time of day when a run begins, in milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_700_000_000_000;

impl World {
    /// What time it is by a node's clock.
    pub(super) fn clock_ms(&self, i: usize) -> u64 {
        let slot = &self.slots[i];
        (EPOCH_MS + self.now / 1_000).saturating_add_signed(slot.offset_ms + slot.jump_ms)
    }

    /// A node is told how it is, and what time.
    pub(super) fn pulse(&mut self, i: usize) {
        if self.slots[i].paused {
            return;
        }
        let vitals = Vitals {
            disk_free_bytes: Some(u64::from(!self.slots[i].full)),
            disk_reserve_bytes: 1,
            clock_ms: self.clock_ms(i),
            ..Vitals::default()
        };
        self.input(i, Input::Vitals(Box::new(vitals)));
    }

    pub(super) fn pulse_all(&mut self) {
        self.plan(PULSE_US, Happening::Pulse);
        for i in 0..self.slots.len() {
            self.pulse(i);
        }
    }

    /// Whether a deadline has passed on some clock.
    pub(super) fn may_have_ended(&self, expires_ms: u64) -> bool {
        let now_ms = EPOCH_MS + self.now / 1_000;
        self.clocks_jumped || expires_ms <= now_ms + SKEW_US / 1_000
    }

    /// No answer shows a value whose time was up by every clock, and each value is told with the same deadline always.
    /// `late_ms` is how long ago it may have been made.
    pub(super) fn check_deadlines(&mut self, i: usize, answer: &Answer, late_ms: u64) {
        let opened = match answer {
            Answer::Explained(explained) => explained.answer().ok(),
            _ => None,
        };
        let Answer::Found { siblings, .. } = opened.as_ref().unwrap_or(answer) else {
            return;
        };
        let now_ms = EPOCH_MS + self.now / 1_000;
        for shown in siblings {
            let text = std::str::from_utf8(&shown.value.data).unwrap_or_default();
            let Ok(value) = text.parse::<u64>() else {
                continue;
            };
            let first = *self.deadlines.entry(value).or_insert(shown.expires_ms);
            if first != shown.expires_ms {
                self.violations.push(format!(
                    "value {value} was shown with deadline {first:?}, and then with {:?}",
                    shown.expires_ms
                ));
            }
            let late_ms = SKEW_US / 1_000 + late_ms;
            let jumped = self.clocks_jumped && !self.healing;
            if shown.expires_ms.is_some_and(|e| e + late_ms < now_ms) && !jumped {
                self.violations.push(format!(
                    "node {i} showed value {value} at {now_ms}, and its time was up at {:?}",
                    shown.expires_ms
                ));
            }
        }
    }

    /// Deadlines are what clients asked for, as exactly as clocks agree.
    pub(super) fn check_lifetimes(&mut self) {
        for op in &mut self.history {
            let Some(told) = self.deadlines.get(&op.id) else {
                continue;
            };
            let told_us = told.map(|ms| ms.saturating_sub(EPOCH_MS) * 1_000);
            let right = match (told_us, op.ttl_us) {
                (None, None) => true,
                (Some(_), Some(_)) if self.clocks_jumped => true,
                (Some(told), Some(ttl)) => {
                    let latest = match op.outcome {
                        crate::history::Outcome::Ok => op.end,
                        _ => u64::MAX / 2,
                    };
                    op.start + ttl <= told + SKEW_US && told <= latest + ttl + SKEW_US
                }
                _ => false,
            };
            if !right {
                self.violations.push(format!(
                    "put {} was to live for {:?} us from {}, and its deadline is {told_us:?}",
                    op.id, op.ttl_us, op.start
                ));
            }
        }
        if self.clocks_jumped {
            for op in &mut self.history {
                op.ends = op.ends.map(|_| (0, u64::MAX));
            }
        }
    }
}
