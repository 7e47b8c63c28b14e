//! What must hold, of every state that can be reached.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::replica::{Dots, Replica};
use crate::rules::Rules;
use crate::world::{Fault, REPLICAS, World};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Two intact replicas, between them, show too little or what was removed.
    StrictRead,
    /// Exchanges go on changing things for ever.
    Restless,
    /// An amnesiac never becomes intact.
    AmnesiaStays,
    /// Replicas stay different.
    Diverged,
    /// Evidence stays.
    EvidenceStays,
    /// An acknowledged put is neither live nor superseded.
    Lost(Dots),
    /// What an acknowledged write removed is live.
    Returned(Dots),
}

/// Exchanges of all pairs that are needed at most, with room to spare.
const PATIENCE: usize = 12;

/// Judges a state, and what becomes of it if from now on everybody is in reach, no message under way arrives, and
/// exchanges and collection run until nothing changes. Later messages are judged in the states that they lead to.
///
/// # Errors
/// The first breach found.
pub fn judge(world: &World, rules: Rules) -> Result<(), Breach> {
    if world.spent & Fault::RecordLoss.bit() == 0 {
        strict_reads(world)?;
    }
    let live = what_stays(world, rules)?;
    let lost = world.owed.live & !world.accounted(live);
    if lost != 0 {
        return Err(Breach::Lost(lost));
    }
    let returned = world.owed.gone & live;
    if returned != 0 {
        return Err(Breach::Returned(returned));
    }
    Ok(())
}

/// What is live everywhere in the end.
fn what_stays(world: &World, rules: Rules) -> Result<Dots, Breach> {
    // That depends on the replicas alone, and many worlds have the same.
    type Key = (Rules, [Replica; REPLICAS]);
    thread_local! {
        static KNOWN: RefCell<HashMap<Key, Result<Dots, Breach>>> = RefCell::default();
    }
    let key = (
        rules,
        world.replicas.map(|r| Replica {
            told: 0,
            minted: 0,
            ..r
        }),
    );
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).copied()) {
        return known;
    }
    let stays = settle(world, rules)
        .ok_or(Breach::Restless)
        .and_then(|settled| {
            let live = settled.replicas[0].record.live;
            for replica in &settled.replicas {
                if !replica.intact() {
                    return Err(Breach::AmnesiaStays);
                }
                if replica.record.live != live {
                    return Err(Breach::Diverged);
                }
                if replica.record.evidence != 0 {
                    return Err(Breach::EvidenceStays);
                }
            }
            Ok(live)
        });
    KNOWN.with_borrow_mut(|known| known.insert(key, stays));
    stays
}

/// Any two replicas that answer strict reads show every put that two intact ones acknowledged, and nothing that such
/// a write removed. Not so once a record was lost in silence: no quorum can know.
fn strict_reads(world: &World) -> Result<(), Breach> {
    for x in 0..REPLICAS {
        for y in x + 1..REPLICAS {
            let (x, y) = (&world.replicas[x], &world.replicas[y]);
            if !x.intact() || !y.intact() {
                continue;
            }
            let removed = x.record.evidence | y.record.evidence;
            let shown = (x.record.live | y.record.live) & !removed;
            let missed = world.owed.strict_live & !world.accounted(shown);
            if missed != 0 || shown & world.owed.strict_gone != 0 {
                return Err(Breach::StrictRead);
            }
        }
    }
    Ok(())
}

/// The state in which nothing changes any more, or `None` if there is none.
#[must_use]
pub fn settle(world: &World, rules: Rules) -> Option<World> {
    let mut world = world.clone();
    (world.round, world.begun, world.hearing) = (None, None, None);
    (world.forget, world.synced) = ((0, 0), None);
    for _ in 0..PATIENCE {
        let before = world.clone();
        for by in 0..REPLICAS {
            for with in (0..REPLICAS).filter(|r| *r != by) {
                let begun = world.begin(by, with);
                world.finish(begun, rules);
                for (judge, dot) in world.absences() {
                    world.hear(judge, dot);
                    for at in 0..REPLICAS {
                        world.testify(at, rules);
                    }
                    world.conclude(rules);
                }
            }
        }
        for collector in 0..REPLICAS {
            world.begin_round(collector, rules);
            while let Some(next) = world.to_ask(rules).first() {
                world.ask(*next, rules);
            }
            for at in 0..REPLICAS {
                world.forget(at);
            }
        }
        if world == before {
            return Some(world);
        }
    }
    None
}
