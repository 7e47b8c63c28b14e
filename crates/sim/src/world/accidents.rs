//! What breaks, and when.

use super::*;
use crate::faults::PAUSE_US_MAX;

/// How old a copy is at the least that a directory is replaced by.
const COPY_US_MIN: u64 = 300_000;

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
            Accident::Rollback => match self.roll_back(victim) {
                true => "rollback",
                false => "copy of a disk",
            },
            Accident::RecordLoss | Accident::Damage => match self.spoil(victim, accident) {
                true if accident == Accident::Damage => "damaged record",
                true => "lost record",
                false => "nothing to lose",
            },
            Accident::LosePower => {
                if self.alive(victim).is_some() && self.may_lose(victim) {
                    self.crash(victim, true);
                    self.slots[victim].unclean = true;
                    self.lose(victim);
                    self.plan(while_us, Happening::Start(victim));
                }
                "power loss of one under os"
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

    /// Whether a node may lose some of what it has: all others have what they ever had, and know it, and one replica of each key never loses anything.
    /// For of a removal that was forgotten, those alone know that it was one that saw both it and what it removed.
    fn may_lose(&mut self, victim: usize) -> bool {
        let lost = self.lost_disks.iter().filter(|i| **i != victim).count() + 1;
        if lost >= self.n {
            return false;
        }
        let mut slots = self.slots.iter_mut().enumerate();
        slots.all(|(i, slot)| match &mut slot.node {
            Some(node) => i == victim || (node.is_verified() && node.refilling() == 0),
            None => i == victim,
        })
    }

    /// Takes note that a node has lost some of what it had.
    fn lose(&mut self, victim: usize) {
        self.lost_disks.insert(victim);
        let at = self.now;
        self.losses.push(Loss { at, key: None });
    }

    /// Replaces the directory of a node by a copy that was taken before, if there is one, and everybody would know. Else takes
    /// one. Returns whether it was replaced.
    ///
    /// That all others remember a later state of it is part of the fault: an operator who replaces a directory by what it was a
    /// second ago, before the node had told anybody, is not found out, and has to say it.
    fn roll_back(&mut self, victim: usize) -> bool {
        if self.alive(victim).is_none() || self.drops() > 0 {
            return false;
        }
        let Some((at, copy)) = self.slots[victim].copy.take() else {
            self.slots[victim].copy = Some((self.now, self.slots[victim].disk.copy()));
            return false;
        };
        let old = self.peek(victim, &copy).commits();
        let others: Vec<usize> = (0..self.slots.len()).filter(|i| *i != victim).collect();
        let known = others.iter().all(|i| {
            let disk = self.slots[*i].disk.copy();
            self.peek(*i, &disk).commits_known_of(NodeId(victim as u64)) > old
        });
        if self.now < at + COPY_US_MIN || !known || !self.may_lose(victim) {
            self.slots[victim].copy = Some((at, copy));
            return false;
        }
        self.crash(victim, true);
        self.slots[victim].disk = copy;
        self.lose(victim);
        let delay = self.rng.random_range(10_000..PAUSE_US_MAX);
        self.plan(delay, Happening::Start(victim));
        true
    }

    /// A record of a node is lost or damaged on its disk, of a key that this has not befallen before.
    fn spoil(&mut self, victim: usize, accident: Accident) -> bool {
        let disk = self.slots[victim].disk.clone();
        let hit =
            |losses: &[Loss], key: &str| losses.iter().any(|loss| loss.key.as_deref() == Some(key));
        let records = disk.keys(Family::Records).into_iter();
        let records = records.filter_map(|at| {
            let key = String::from_utf8(at.get(18..)?.to_vec()).ok()?;
            Some((at, key)).filter(|(_, key)| !hit(&self.losses, key))
        });
        let records: Vec<(Bytes, String)> = records.collect();
        let Some((at, key)) = records.choose(&mut self.rng).cloned() else {
            return false;
        };
        if accident == Accident::Damage {
            disk.corrupt(Family::Records, &at);
        } else {
            disk.lose(Family::Records, &at);
            // With its entry in the tree, or without.
            let mut entries = disk.keys(Family::Trees).into_iter();
            let entry = entries.find(|row| row.ends_with(&at[2..]));
            if let Some(entry) = entry.filter(|_| self.rng.random_bool(0.5)) {
                disk.lose(Family::Trees, &entry);
            }
        }
        let at = self.now;
        self.losses.push(Loss { at, key: Some(key) });
        true
    }
}
