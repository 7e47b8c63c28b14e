//! One seat of this node: what it has seen, and what it mints.

use quorate_causal::{Actor, Change, Dot, DotSet, Record, Runs};
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
        })
    }

    /// The next dot of this vnode.
    pub(crate) fn mint(&mut self, rng: &mut impl RngCore) -> Dot {
        let actor = *self.incarnation.get_or_insert_with(|| {
            Actor((u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64()))
        });
        self.minted += 1;
        Dot {
            actor,
            counter: self.minted,
        }
    }

    /// Marks as seen what a merge brought, and puts the rows that changed into the merge's batch.
    pub(crate) fn saw(&mut self, incoming: &Record, change: &Change, batch: &mut Batch) {
        let mut touched: Vec<Actor> = Vec::new();
        let mut note = |clock: &mut DotSet, dot: Dot| {
            if clock.insert(dot) && !touched.contains(&dot.actor) {
                touched.push(dot.actor);
            }
        };
        for dot in &change.added {
            note(&mut self.clock, *dot);
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
