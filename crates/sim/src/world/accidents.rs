//! What breaks, and when.

use super::*;
use crate::faults::PAUSE_US_MAX;

impl World {
    pub(super) fn plan_accident(&mut self) {
        if self.faults.accidents.is_empty() {
            return;
        }
        let gap = self.rng.random_range(0..self.faults.accident_gap_us * 2);
        self.plan(gap, Happening::Accident);
    }

    pub(super) fn accident(&mut self) {
        let Some(&accident) = self.faults.accidents.choose(&mut self.rng) else {
            return;
        };
        let nodes = self.slots.len();
        let victim = self.rng.random_range(0..nodes);
        let other = (victim + self.rng.random_range(1..nodes)) % nodes;
        let while_us = self.rng.random_range(10_000..PAUSE_US_MAX);
        let power = !self.faults.os_durability;
        let name = match accident {
            Accident::Crash => {
                if self.slots[victim].node.is_some() {
                    self.crash(victim, power);
                    self.plan(while_us, Happening::Start(victim));
                }
                "crash"
            }
            Accident::PowerLoss => {
                for i in 0..nodes {
                    if self.slots[i].node.is_some() {
                        self.crash(i, power);
                        let delay = self.rng.random_range(10_000..2_000_000);
                        self.plan(delay, Happening::Start(i));
                    }
                }
                "power loss"
            }
            Accident::Pause => {
                if self.slots[victim].node.is_some() && !self.slots[victim].paused {
                    self.slots[victim].paused = true;
                    self.plan(while_us, Happening::Resume(victim));
                }
                "pause"
            }
            Accident::Partition => {
                let side: Vec<bool> = (0..nodes).map(|_| self.rng.random_bool(0.5)).collect();
                self.network.split(&side);
                self.plan(while_us, Happening::Mend);
                "partition"
            }
            Accident::OneWay => {
                self.network.cut(victim, other);
                self.plan(while_us, Happening::Mend);
                "one-way link"
            }
            Accident::FullDisk => {
                if let Some(epoch) = self.alive(victim).filter(|_| !self.slots[victim].paused) {
                    self.fill_disk(victim, true);
                    self.plan(while_us, Happening::Roomy(victim, epoch));
                }
                "full disk"
            }
            Accident::ClockJump => {
                let hour = 3_600_000;
                self.slots[victim].jump_ms = if self.rng.random_bool(0.5) {
                    hour
                } else {
                    -hour
                };
                self.clocks_jumped = true;
                self.pulse(victim);
                self.plan(while_us, Happening::SetClock(victim));
                "clock jump"
            }
            Accident::Reset => {
                if self.alive(victim).is_some()
                    && !self.slots[victim].paused
                    && self.network.reset(victim, other)
                {
                    self.input(victim, Input::Down(NodeId(other as u64)));
                }
                "reset"
            }
        };
        *self.accidents.entry(name).or_default() += 1;
    }

    /// A node learns that its disk is nearly full, or that it has room again.
    pub(super) fn fill_disk(&mut self, i: usize, full: bool) {
        self.note(b"disk full", i, u64::from(full));
        self.slots[i].full = full;
        self.pulse(i);
    }
}
