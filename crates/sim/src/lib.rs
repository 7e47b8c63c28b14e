//! A whole cluster of production nodes from one seed, with faults, judged by an oracle.
//!
//! [`run_seed`] builds a cluster of [`quorate_node::Node`]s on memory disks, lets clients work while messages are lost,
//! delayed, doubled and reordered, links are cut, nodes crash, pause, lose power and unsynced data; then heals
//! everything and judges what clients were told ([`oracle`]) and what the replicas hold. Everything is drawn from the seed,
//! so a seed that fails fails again, with the same trace:
//!
//! ```
//! let report = quorate_sim::run_seed(7, &quorate_sim::Profile::SHORT);
//! assert_eq!(report.violations, Vec::<String>::new());
//! assert_eq!(report.trace, quorate_sim::run_seed(7, &quorate_sim::Profile::SHORT).trace);
//! ```
//!
//! Disks also lose what they had acknowledged: directories are put back to older copies, records disappear or can no longer be read, and under
//! `durability = "os"` one node at a time loses power. What is then not promised is said where it is excused ([`losses`]).
//!
//! Operators change the layout, two at a time now and then, and say of nodes that they are gone for good that live on ([`Profile::CHANGES`]).
//!
//! Not simulated yet, since the product does not have it yet: typed data. Damage is simulated record by record, not of
//! whole blocks.

mod clients;
mod faults;
pub mod history;
pub mod losses;
mod network;
pub mod oracle;
mod profile;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

pub use profile::{Mutant, Profile};
use world::World;

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was wrong; empty if nothing was.
    pub violations: Vec<String>,
    /// How many operations clients made.
    pub operations: u64,
    /// How many of them were acknowledged or answered.
    pub succeeded: u64,
    /// How much time passed in the simulated world.
    pub elapsed: Duration,
    /// A hash over everything that happened, in order. Equal for equal seeds, or something is not deterministic.
    pub trace: [u8; 32],
    /// How often nodes took their rare paths, and accidents happened, by name.
    pub counts: BTreeMap<String, u64>,
    /// Every operation, for replay and for other judges.
    pub history: Vec<history::Operation>,
}

/// Runs one seed from beginning to end.
#[must_use]
pub fn run_seed(seed: u64, profile: &Profile) -> Report {
    let mut world = World::new(seed, profile);
    world.run_faults();
    world.run_healing();
    world.close_history();
    let at_rest = world.at_rest();
    let mut violations = std::mem::take(&mut world.violations);
    for (key, shown) in &at_rest {
        violations.extend(oracle::judge(key, world.n(), &world.history, shown));
        violations.extend(oracle::judge_listings(key, world.n(), &world.history));
    }
    let mut counts = BTreeMap::new();
    for (event, count) in &world.events {
        counts.insert(format!("{event:?}"), *count);
    }
    for (accident, count) in &world.accidents {
        counts.insert((*accident).to_owned(), *count);
    }
    let succeeded = world
        .history
        .iter()
        .filter(|op| op.outcome == history::Outcome::Ok)
        .count() as u64;
    Report {
        seed,
        violations,
        operations: world.history.len() as u64,
        succeeded,
        elapsed: world.elapsed(),
        trace: *world.trace.finalize().as_bytes(),
        counts,
        history: world.history,
    }
}

/// Runs one seed; every tenth is run twice, to see that it goes the same way both times.
#[must_use]
pub fn check_seed(seed: u64, profile: &Profile) -> Report {
    let mut report = run_seed(seed, profile);
    if seed.is_multiple_of(10) && run_seed(seed, profile).trace != report.trace {
        report.violations.push(
            "two runs of this seed went differently: something is not deterministic".to_owned(),
        );
    }
    report
}
