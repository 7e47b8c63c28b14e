//! Seeds, and the mutants that must not survive them.

use quorate_sim::history::Kind;
use quorate_sim::{Mutant, Profile, check_seed, run_seed};

#[test]
fn seeds_without_faults_hold() {
    for seed in 0..20 {
        let report = check_seed(seed, &Profile::CALM);
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:#?}",
            report.violations
        );
        // After a drop, contexts from before it are refused.
        let drops = report.history.iter().any(|op| op.kind == Kind::Drop);
        assert!(
            drops || report.succeeded * 10 > report.operations * 9,
            "seed {seed}: {} of {}",
            report.succeeded,
            report.operations
        );
    }
}

#[test]
fn seeds_with_faults_hold() {
    for seed in 0..60 {
        let report = check_seed(seed, &Profile::SHORT);
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:#?}",
            report.violations
        );
    }
}

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        let profile = Profile::SHORT.with(mutant);
        // A node that finds its own invariants broken panics: that is being caught too.
        let survives = |seed: &u64| {
            std::panic::catch_unwind(|| run_seed(*seed, &profile))
                .is_ok_and(|report| report.violations.is_empty())
        };
        let caught = (0..100).find(|seed| !survives(seed));
        println!("{mutant:?} is caught by seed {caught:?}");
        assert!(caught.is_some(), "{mutant:?} survives 100 seeds");
    }
}
