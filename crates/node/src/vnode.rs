//! One seat of this node: what it has seen, and what it mints.

use std::collections::BTreeMap;

use quorate_causal::{Actor, Change, Dot, DotSet, Record, Runs, Span};
use quorate_protocol::VnodeId;
use quorate_storage::{Batch, Family, Storage, StorageError};
use rand::RngCore;

use crate::keys;

/// How many rows of a clock are read at a time.
const CLOCK_PAGE: usize = 1024;

/// The state of one vnode beside its records.
#[derive(Debug)]
pub(crate) struct Vnode {
    id: VnodeId,
    /// Every dot that was committed here, live or removed. Invariant: for each record of this vnode, its live dots are
    /// in the clock. A dot enters together with its record, in one batch.
    clock: DotSet,
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
        let mut clock = DotSet::new();
        let prefix = keys::clock_prefix(id);
        let end = keys::end_of(&prefix);
        let mut from = prefix;
        loop {
            let page = storage.scan(Family::Vnodes, &from, end.as_deref(), CLOCK_PAGE)?;
            for (key, value) in &page {
                let actor = keys::actor_of(id, key);
                match (actor, Runs::decode(value)) {
                    (Some(actor), Ok(runs)) => clock.set_runs(actor, runs),
                    _ => {
                        return Err(StorageError::Corrupt {
                            family: Family::Vnodes,
                            key: key.clone(),
                            reason: "not a row of a clock".to_owned(),
                        });
                    }
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
        Ok(Vnode {
            id,
            clock,
            incarnation: None,
            minted: 0,
            recent: Recent::default(),
        })
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
        let mut note = |clock: &mut DotSet, dot: Dot| {
            if clock.insert(dot) && !touched.contains(&dot.actor) {
                touched.push(dot.actor);
            }
        };
        // Also a value that comes too late and is known to be removed: its dot is exact here, and in evidence perhaps
        // hidden in a run.
        for sibling in incoming.live() {
            note(&mut self.clock, sibling.span.dot);
        }
        // Of a run of evidence just the last counter is sure to be a dot of this key: those before it may belong to
        // other keys that have not reached this replica yet, and a clock that claimed them would refuse them.
        if change.evidence {
            for (actor, runs) in incoming.evidence().iter() {
                for (_, last) in runs.iter() {
                    note(
                        &mut self.clock,
                        Dot {
                            actor,
                            counter: last,
                        },
                    );
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
