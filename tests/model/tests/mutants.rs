//! Every rule that can be taken out is missed: within the bounds named here the model checker finds what breaks without it, by how few
//! steps. Four rules stand in for each other in pairs, and are missed only where both are out.
//!
//! Each line of the table prints the states visited until then:
//! `cargo test -p quorate-model --test mutants -- --nocapture`. `docs/decisions/0011-model-of-deletes.md` tells the
//! counter-examples in words; `examples/explore.rs` prints them step by step.

use std::time::Duration;

use quorate_model::explore::{Apart, Bounds};
use quorate_model::judge::Breach;
use quorate_model::rules::{Defect, Rules};
use quorate_model::run::{Explored, Order, explore};
use quorate_model::world::Fault::{self, Crash, RecordLoss, Replacement, Rollback};

/// Far above what any of these takes: only a run that is cut short by mistake meets it.
const LIMIT: Duration = Duration::from_secs(600);

const AT_ONCE: Apart = Apart {
    exchanges: false,
    hearings: false,
    rounds: false,
};
const EXCHANGES: Apart = Apart {
    exchanges: true,
    ..AT_ONCE
};
const HEARINGS: Apart = Apart {
    hearings: true,
    ..AT_ONCE
};
const ROUNDS: Apart = Apart {
    rounds: true,
    ..AT_ONCE
};
const EXCHANGES_AND_ROUNDS: Apart = Apart {
    hearings: false,
    ..ALL_APART
};
const ALL_APART: Apart = Apart {
    exchanges: true,
    hearings: true,
    rounds: true,
};

/// Where a rule is missed: most writes and puts, the faults (each once, and all of them in one run if need be), what takes several steps, and how
/// often a replica may move.
struct Within(usize, u32, &'static [Fault], Apart, u8);

impl Within {
    fn explored(&self, defects: &[Defect]) -> Explored {
        let Within(writes, puts, faults, apart, moves) = *self;
        let bounds = Bounds {
            writes,
            puts,
            faults: faults.to_vec(),
            faults_max: faults.len() as u32,
            moves,
            apart,
            rules: Rules::without(defects),
            ..Bounds::small()
        };
        let explored = explore(&bounds, Order::Breadth, 1, LIMIT);
        println!("without {defects:?}: {explored}");
        explored
    }
}

/// What breaks without this rule, after how many steps, and within which bounds; `None` if another rule stands in for it.
fn missed(defect: Defect) -> Option<(Within, Breach, usize)> {
    use Breach::{Lost, Returned, StrictRead};
    // The dot of the first write is 1.
    let (lost, returned) = (Lost(1), Returned(1));
    Some(match defect {
        Defect::NoFilter => (Within(2, 1, &[], AT_ONCE, 0), StrictRead, 8),
        Defect::CollectAtMajority => (Within(2, 1, &[], AT_ONCE, 0), StrictRead, 5),
        Defect::ConfirmBeforeSync => (Within(2, 1, &[Crash], AT_ONCE, 0), StrictRead, 8),
        Defect::CollectorConfirmsFirst => {
            let faults = &[RecordLoss, Replacement];
            (Within(2, 1, faults, ROUNDS, 0), returned, 11)
        }
        Defect::AdoptedRemovalIgnored => (Within(2, 1, &[RecordLoss], AT_ONCE, 0), returned, 5),
        Defect::KeptOutIsAcknowledged => (Within(2, 1, &[RecordLoss], AT_ONCE, 0), lost, 4),
        Defect::EvidenceStaysBehind => (Within(2, 1, &[Replacement], AT_ONCE, 0), StrictRead, 6),
        Defect::AdoptedVotes => (Within(2, 1, &[RecordLoss], AT_ONCE, 0), lost, 3),
        Defect::AdoptedIsMute => (Within(2, 1, &[Rollback], AT_ONCE, 2), returned, 12),
        Defect::AmnesiacVotes => (
            Within(2, 1, &[RecordLoss, Replacement], AT_ONCE, 0),
            lost,
            4,
        ),
        Defect::AmnesiacHolds => (
            Within(2, 1, &[Rollback, Replacement], AT_ONCE, 0),
            returned,
            9,
        ),
        Defect::NoAmnesia => (Within(2, 1, &[Replacement], AT_ONCE, 0), StrictRead, 3),
        Defect::DoubtIsComplete => (Within(2, 1, &[Replacement], AT_ONCE, 0), StrictRead, 11),
        Defect::OneExchangeRefills => (Within(2, 1, &[Replacement], AT_ONCE, 0), StrictRead, 4),
        Defect::NeverSeenVotes => (Within(2, 1, &[RecordLoss], AT_ONCE, 0), lost, 3),
        Defect::OneVoteRemoves => (Within(2, 1, &[RecordLoss], AT_ONCE, 0), lost, 3),
        Defect::AlwaysReinstated => (Within(2, 1, &[Replacement], AT_ONCE, 0), returned, 9),
        Defect::PullNotVoid | Defect::PullVoidByStoredAlone => {
            let faults = &[RecordLoss, Replacement];
            (Within(2, 1, faults, HEARINGS, 0), returned, 12)
        }
        Defect::AdoptsAtEnd => (Within(2, 1, &[Replacement], EXCHANGES, 0), StrictRead, 9),
        Defect::RemovalComesAlone => (Within(2, 2, &[RecordLoss], AT_ONCE, 0), StrictRead, 4),
        Defect::WritesTakenInPart => (Within(2, 2, &[RecordLoss], AT_ONCE, 0), lost, 6),
        Defect::MintsAgain => (Within(2, 2, &[Replacement], AT_ONCE, 0), lost, 5),
        Defect::ConfirmsUnapplied => (Within(2, 1, &[RecordLoss], AT_ONCE, 0), StrictRead, 5),
        Defect::UnheardHolds => (Within(2, 1, &[RecordLoss], ROUNDS, 0), returned, 13),
        Defect::NobodyHoldsRemoves => (Within(1, 1, &[RecordLoss, Crash], HEARINGS, 0), lost, 12),
        Defect::RoundOutlivesCollector
        | Defect::AmnesiacConfirms
        | Defect::WritesPassRefill
        | Defect::ConfirmationOutlivesLoss => return None,
    })
}

#[track_caller]
fn is_caught(within: &Within, defects: &[Defect], breach: Breach, steps: usize) {
    let explored = within.explored(defects);
    let found = explored.found.expect("a rule that is out is missed");
    assert_eq!(
        (found.breach, found.steps.len()),
        (breach, steps),
        "{defects:?}:\n{found}"
    );
}

#[test]
fn rules_are_missed_one_by_one() {
    for defect in Defect::ALL {
        if let Some((within, breach, steps)) = missed(defect) {
            is_caught(&within, &[defect], breach, steps);
        }
    }
}

/// A collector that loses its disk is told the removals anew before it confirms them, unless it may confirm as an amnesiac;
/// and an amnesiac that confirms does no harm unless it is the collector, whose evidence is gone.
#[test]
fn a_round_ends_with_its_collector_or_amnesiacs_do_not_confirm() {
    let within = Within(2, 1, &[RecordLoss, Replacement], ROUNDS, 0);
    let both = [Defect::RoundOutlivesCollector, Defect::AmnesiacConfirms];
    is_caught(&within, &both, Breach::Returned(1), 14);
    for alone in both {
        assert!(within.explored(&[alone]).is_complete, "{alone:?}");
    }
}

/// A replica that lost its disk after it had confirmed may take the old put in the middle of its refill.
#[test]
fn confirmations_end_with_a_disk_or_refills_filter_writes() {
    let within = Within(2, 1, &[Replacement], EXCHANGES_AND_ROUNDS, 0);
    let both = [Defect::ConfirmationOutlivesLoss, Defect::WritesPassRefill];
    is_caught(&within, &both, Breach::StrictRead, 15);
}
