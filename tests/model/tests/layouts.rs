//! The rules of layout changes hold in every order of steps, and each that is taken out is missed.
//!
//! Each prints the states it counted: `cargo test -p quorate-model --test layouts -- --nocapture`.

use quorate_model::layouts::transition::{Bounds, Defect};
use quorate_model::layouts::{Explored, agreement, explore};

/// The replicas of a key before and after, each node by its bit.
const CHANGES: [(&str, [u8; 2]); 6] = [
    ("two of three move", [0b00111, 0b11001]),
    ("one of three moves", [0b00111, 0b01011]),
    ("nobody moves", [0b00111, 0b00111]),
    ("three become four", [0b00111, 0b01111]),
    ("four become three", [0b01111, 0b00111]),
    ("five become three", FIVE_BECOME_THREE),
];

const FIVE_BECOME_THREE: [u8; 2] = [0b11111, 0b00111];

fn print(what: &str, explored: &Explored) {
    println!(
        "{what}: {} states, {:.1} s",
        explored.states, explored.seconds
    );
    if let Some((steps, end)) = &explored.found {
        println!(
            "  after {} steps: {}\n  {end}",
            steps.len(),
            steps.join(", ")
        );
    }
}

fn change(layouts: [u8; 2], dead: u8, writes: usize) -> Bounds {
    Bounds {
        layouts,
        dead,
        writes,
        without: None,
    }
}

#[test]
fn no_strict_read_misses_an_acknowledged_write() {
    for (name, layouts) in CHANGES {
        for (whom, dead) in [("nobody dead", 0), ("one declared dead", 0b00100)] {
            if layouts[1] & dead != 0 {
                continue;
            }
            let explored = explore(change(layouts, dead, 1));
            print(&format!("{name}, {whom}"), &explored);
            assert!(explored.found.is_none());
        }
    }
}

#[test]
fn each_rule_of_a_change_is_missed_where_it_is_out() {
    let two_move = CHANGES[0].1;
    for (defect, layouts, dead) in [
        (Defect::SealedWrites, two_move, 0),
        (Defect::UnsealedSources, two_move, 0),
        (Defect::OneSource, two_move, 0),
        (Defect::KeptCountsAsSynced, FIVE_BECOME_THREE, 0),
        (Defect::ReadsNewAtOnce, two_move, 0),
        (Defect::WritesNewAtOnce, two_move, 0),
        (Defect::WritesOldOnly, two_move, 0),
        (Defect::RetiredWhenSynced, two_move, 0),
        (Defect::RetiredWhenNewKnow, two_move, 0),
        (Defect::OldReadsUntilRetired, two_move, 0b00100),
    ] {
        let explored = explore(Bounds {
            without: Some(defect),
            ..change(layouts, dead, 1)
        });
        print(&format!("without {defect:?}"), &explored);
        assert!(explored.found.is_some(), "{defect:?} is not missed");
    }
}

#[test]
fn one_layout_is_chosen_and_each_rule_of_choosing_is_missed() {
    let rounds = vec![0, 1, 0];
    let holds = explore(agreement::Bounds {
        rounds: rounds.clone(),
        without: None,
    });
    print("three rounds of two operators", &holds);
    assert!(holds.found.is_none());
    for defect in [
        agreement::Defect::OwnProposal,
        agreement::Defect::AnyAccepted,
        agreement::Defect::PromiseIgnored,
        agreement::Defect::NoMajority,
    ] {
        let explored = explore(agreement::Bounds {
            rounds: match defect {
                agreement::Defect::AnyAccepted => vec![0, 1, 1, 0],
                _ => rounds.clone(),
            },
            without: Some(defect),
        });
        print(&format!("without {defect:?}"), &explored);
        assert!(explored.found.is_some(), "{defect:?} is not missed");
    }
}
