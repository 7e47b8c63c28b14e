//! One seat of this node: what it has seen, and what it mints.

use std::collections::{BTreeMap, BTreeSet};

use quorate_causal::{Actor, Change, Dot, DotSet, Record, Runs, Span};
use quorate_protocol::VnodeId;
use quorate_ring::NodeId;
use quorate_storage::{Batch, Family, Storage, StorageError};
use rand::RngCore;

use crate::keys::{self, VnodeRow};

/// How many rows of a clock are read at a time.
const CLOCK_PAGE: usize = 1024;

/// The state of one vnode beside its records.
#[derive(Debug)]
pub(crate) struct Vnode {
    id: VnodeId,
    /// Every dot that was committed here, live or removed. Invariant: for each record of this vnode, its live dots are
    /// in the clock. A dot enters together with its record, in one batch.
    clock: DotSet,
    /// What keeps late copies out: the clock, and whatever is *adopted* from other replicas after a complete exchange with them
    /// (rule R3). What is adopted was never here, so that nothing follows from its not being here.
    seen: DotSet,
    /// Up to which loss of the node's state this vnode is refilled; see `lineage`.
    refilled: u64,
    /// The replicas with which it has exchanged completely since the last loss.
    refilled_from: BTreeSet<NodeId>,
    /// The version of the last layout for which it has all that the layout before had; see `filling`.
    synced: u64,
    /// The replicas of the layout before with which it has exchanged completely for the sake of the layout of this version.
    synced_from: (u64, BTreeSet<NodeId>),
    /// Who mints here. Taken at the first mint after an open, never stored for use and never resumed (rule R1): a
    /// directory restored from a copy would else mint again what the world has already seen.
    incarnation: Option<Actor>,
    /// The last counter minted. Apart from the clock: what was minted and never committed leaves a hole there.
    minted: u64,
    /// The last counter minted on some keys.
    recent: Recent,
}

impl Vnode {
    /// Reads the vnode's clock.
    pub(crate) fn load(storage: &impl Storage, id: VnodeId) -> Result<Self, StorageError> {
        let mut vnode = Vnode {
            id,
            clock: DotSet::new(),
            seen: DotSet::new(),
            refilled: 0,
            refilled_from: BTreeSet::new(),
            synced: 0,
            synced_from: (0, BTreeSet::new()),
            incarnation: None,
            minted: 0,
            recent: Recent::default(),
        };
        let prefix = keys::vnode_prefix(id);
        let end = keys::end_of(&prefix);
        let mut from = prefix;
        loop {
            let page = storage.scan(Family::Vnodes, &from, end.as_deref(), CLOCK_PAGE)?;
            for (key, value) in &page {
                if !vnode.take_row(key, value) {
                    return Err(StorageError::Corrupt {
                        family: Family::Vnodes,
                        key: key.clone(),
                        reason: "not a row of a vnode".to_owned(),
                    });
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == CLOCK_PAGE => {
                    from = last.to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        Ok(vnode)
    }

    fn take_row(&mut self, key: &[u8], value: &[u8]) -> bool {
        match keys::vnode_row(self.id, key) {
            Some(VnodeRow::Clock(actor)) => {
                let Ok(runs) = Runs::decode(value) else {
                    return false;
                };
                self.see(actor, &runs);
                self.clock.set_runs(actor, runs);
                true
            }
            Some(VnodeRow::Adopted(actor)) => {
                let Ok(runs) = Runs::decode(value) else {
                    return false;
                };
                self.see(actor, &runs);
                true
            }
            Some(row @ (VnodeRow::Refilled | VnodeRow::Synced)) => match value.try_into() {
                Ok(bytes) => {
                    let number = u64::from_be_bytes(bytes);
                    match row {
                        VnodeRow::Refilled => self.refilled = number,
                        _ => self.synced = number,
                    }
                    true
                }
                Err(_) => false,
            },
            None => false,
        }
    }

    fn see(&mut self, actor: Actor, runs: &Runs) {
        for (first, last) in runs.iter() {
            self.seen.insert_run(actor, first, last);
        }
    }

    /// The next dot of this vnode, for the record at `key`.
    pub(crate) fn mint(&mut self, key: &[u8], rng: &mut impl RngCore) -> Span {
        let actor = *self.incarnation.get_or_insert_with(|| {
            Actor((u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64()))
        });
        self.minted += 1;
        let counter = self.minted;
        Span {
            dot: Dot { actor, counter },
            after: self.recent.replace(key, counter).unwrap_or(counter - 1),
        }
    }

    /// Whether a record names a dot of this vnode's incarnation that it never minted: whoever sent that is broken.
    pub(crate) fn disowns(&self, record: &Record) -> bool {
        let Some(actor) = self.incarnation else {
            return false;
        };
        let live = record.live().iter().map(|s| s.span.dot);
        let live = live.filter(|d| d.actor == actor).map(|d| d.counter);
        let removed = record.evidence().runs(actor).and_then(Runs::max);
        live.chain(removed).any(|counter| counter > self.minted)
    }

    /// Marks as seen what a merge brought, and puts the rows that changed into the merge's batch.
    pub(crate) fn saw(&mut self, incoming: &Record, change: &Change, batch: &mut Batch) {
        let mut touched: Vec<Actor> = Vec::new();
        let (clock, seen) = (&mut self.clock, &mut self.seen);
        let mut note = |dot: Dot| {
            if clock.insert(dot) {
                seen.insert(dot);
                if !touched.contains(&dot.actor) {
                    touched.push(dot.actor);
                }
            }
        };
        // Also a value that is known to be removed: its dot is exact here, and in evidence perhaps hidden in a run. But not one
        // that was kept out: it may be known by adoption alone.
        for sibling in incoming.live() {
            if !change.late.contains(&sibling.span.dot) {
                note(sibling.span.dot);
            }
        }
        // Of a run of evidence just the last counter is sure to be a dot of this key: those before it may belong to
        // other keys that have not reached this replica yet, and a clock that claimed them would refuse them.
        if change.evidence {
            for (actor, runs) in incoming.evidence().iter() {
                for (_, last) in runs.iter() {
                    note(Dot {
                        actor,
                        counter: last,
                    });
                }
            }
        }
        for actor in touched {
            let runs = self.clock.runs(actor).expect("a dot of it was just added");
            batch.put(
                Family::Vnodes,
                keys::clock_row(self.id, actor),
                runs.encode(),
            );
        }
    }

    /// Values of these dots were given back: they are here now, whatever was known of them.
    pub(crate) fn hold(&mut self, dots: impl Iterator<Item = Dot>, batch: &mut Batch) {
        let mut touched = BTreeSet::new();
        for dot in dots {
            self.seen.insert(dot);
            if self.clock.insert(dot) {
                touched.insert(dot.actor);
            }
        }
        for actor in touched {
            let runs = self.clock.runs(actor).expect("a dot of it was just added");
            let row = keys::clock_row(self.id, actor);
            batch.put(Family::Vnodes, row, runs.encode());
        }
    }

    /// Adopts what another replica had seen when a complete exchange with it began: it keeps late copies out from here on, and
    /// never counts for more.
    pub(crate) fn adopt(&mut self, theirs: &DotSet, batch: &mut Batch) {
        for (actor, runs) in theirs.iter() {
            if self.seen.runs(actor).is_some_and(|mine| mine.covers(runs)) {
                continue;
            }
            self.see(actor, runs);
            let adopted = self.seen.runs(actor).expect("it was just seen");
            batch.put(
                Family::Vnodes,
                keys::adopted_row(self.id, actor),
                adopted.encode(),
            );
        }
    }

    /// Whether it is refilled since the loss of that number.
    pub(crate) fn is_refilled(&self, loss: u64) -> bool {
        self.refilled >= loss
    }

    /// An exchange with another replica, begun after the loss of that number, is complete. Once those with which there was one are
    /// `enough`, the vnode is refilled; returns whether it is now.
    pub(crate) fn refill_from(
        &mut self,
        from: NodeId,
        loss: u64,
        enough: impl Fn(&BTreeSet<NodeId>) -> bool,
        batch: &mut Batch,
    ) -> bool {
        self.refilled_from.insert(from);
        if self.is_refilled(loss) || !enough(&self.refilled_from) {
            return false;
        }
        self.refilled = loss;
        self.refilled_from.clear();
        let row = keys::refilled_row(self.id);
        batch.put(Family::Vnodes, row, loss.to_be_bytes().to_vec());
        true
    }

    /// Whether it has all that the layout before that of this version had.
    pub(crate) fn is_synced(&self, version: u64) -> bool {
        self.synced >= version
    }

    /// An exchange with another replica, begun after both were sealed by the layout of this version, is complete. Once there was one with each
    /// of `all`, the vnode is synced; returns whether it is now.
    pub(crate) fn sync_from(
        &mut self,
        from: Option<NodeId>,
        version: u64,
        all: &BTreeSet<NodeId>,
        batch: &mut Batch,
    ) -> bool {
        if self.synced_from.0 != version {
            self.synced_from = (version, BTreeSet::new());
        }
        self.synced_from.1.extend(from);
        if self.is_synced(version) || !all.is_subset(&self.synced_from.1) {
            return false;
        }
        self.synced = version;
        let row = keys::synced_row(self.id);
        batch.put(Family::Vnodes, row, version.to_be_bytes().to_vec());
        true
    }

    /// State was lost: whatever was exchanged before does not count.
    pub(crate) fn lost(&mut self) {
        self.refilled_from.clear();
        self.synced_from.1.clear();
    }

    /// What keeps late copies out.
    pub(crate) fn seen(&self) -> &DotSet {
        &self.seen
    }

    /// What this vnode has seen.
    pub(crate) fn clock(&self) -> &DotSet {
        &self.clock
    }
}

/// The last counters minted on the keys that were written most recently, in bounded memory.
///
/// Two generations: what is used moves to the young one, and when that is full the old one is dropped. A key that is
/// forgotten costs a run of evidence for each overwrite until it is collected, and nothing else.
#[derive(Debug, Default)]
struct Recent {
    young: BTreeMap<Box<[u8]>, u64>,
    old: BTreeMap<Box<[u8]>, u64>,
}

/// Keys in one generation of one vnode. With 256 partitions on a node and short keys, some 10 MB at the most.
const RECENT_KEYS: usize = 256;

impl Recent {
    /// Sets the last counter of a key; returns the one before, if it is remembered.
    fn replace(&mut self, key: &[u8], counter: u64) -> Option<u64> {
        if let Some(last) = self.young.get_mut(key) {
            return Some(std::mem::replace(last, counter));
        }
        if self.young.len() >= RECENT_KEYS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.into(), counter);
        self.old.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_remembers_the_last_counter_of_busy_keys_in_bounded_memory() {
        let mut recent = Recent::default();
        assert_eq!(recent.replace(b"hot", 1), None);
        for counter in 2..5_000u64 {
            let cold = format!("cold-{counter}");
            assert_eq!(recent.replace(cold.as_bytes(), counter), None);
            if counter % 100 == 0 {
                assert!(recent.replace(b"hot", counter).is_some());
            }
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * RECENT_KEYS);
        assert_eq!(recent.replace(b"cold-2", 5_000), None);
    }
}
