//! Within these bounds the protocol holds in every order of steps. They are chosen so that all of them together take half a minute of CPU;
//! `examples/explore.rs` goes further by hand.
//!
//! Each prints the states it counted: `cargo test -p quorate-model --test holds -- --nocapture`.

use std::time::Duration;

use quorate_model::explore::{Apart, Bounds, Contexts};
use quorate_model::run::{Order, explore};
use quorate_model::world::Fault;

/// Far above what any of these takes: only a run that is cut short by mistake meets it.
const LIMIT: Duration = Duration::from_secs(600);

/// Explores all of it, and expects no breach, and as many states as this is known to have.
#[track_caller]
fn holds(what: &str, bounds: Bounds, states: usize) {
    let explored = explore(&bounds, Order::Breadth, 1, LIMIT);
    println!("{what}: {explored}");
    if let Some(found) = &explored.found {
        panic!("{what}:\n{found}");
    }
    assert!(explored.is_complete, "{what}: cut short");
    // Were a step no longer taken, everything might hold for that reason alone.
    assert_eq!(explored.states, states, "{what}: other states than before");
}

/// One fault at most, and conversations at once.
fn bounds(writes: usize, puts: u32, faults: &[Fault]) -> Bounds {
    Bounds {
        writes,
        puts,
        faults: faults.to_vec(),
        ..Bounds::small()
    }
}

const AT_ONCE: Apart = Apart {
    exchanges: false,
    hearings: false,
    rounds: false,
};

#[test]
fn writes_alone() {
    holds("four writes, one a put", bounds(4, 1, &[]), 13_322);
    let any = Bounds {
        contexts: Contexts::Any,
        ..bounds(3, 2, &[])
    };
    holds("three writes with contexts of any age", any, 86_435);
}

#[test]
fn any_one_fault() {
    let any = Bounds {
        contexts: Contexts::Any,
        ..bounds(2, 2, &Fault::ALL)
    };
    holds("two writes with contexts of any age", any, 1_602_712);
}

#[test]
fn more_writes_and_one_fault() {
    holds(
        "a hint, three writes",
        bounds(3, 2, &[Fault::LateHint]),
        118_137,
    );
    let losses = [Fault::RecordLoss, Fault::Replacement];
    holds(
        "a loss, four writes, one a put",
        bounds(4, 1, &losses),
        894_288,
    );
    holds(
        "a crash, four writes, one a put",
        bounds(4, 1, &[Fault::Crash]),
        178_325,
    );
}

#[test]
fn conversations_apart() {
    let apart = |apart, faults: &[Fault]| Bounds {
        apart,
        ..bounds(2, 1, faults)
    };
    let all = Apart {
        exchanges: true,
        hearings: true,
        rounds: true,
    };
    holds("all conversations apart", apart(all, &[]), 72_418);
    let exchanges = Apart {
        exchanges: true,
        ..AT_ONCE
    };
    let faults = [Fault::Crash, Fault::Replacement];
    holds("exchanges apart", apart(exchanges, &faults), 548_358);
    let hearings = Apart {
        hearings: true,
        ..AT_ONCE
    };
    let faults = [Fault::LateHint, Fault::RecordLoss];
    holds("hearings apart", apart(hearings, &faults), 62_908);
    let rounds = Apart {
        rounds: true,
        ..AT_ONCE
    };
    let faults = [Fault::Crash, Fault::Rollback];
    holds("rounds apart", apart(rounds, &faults), 640_543);
}

#[test]
fn two_faults() {
    let pair = |faults: &[Fault]| Bounds {
        faults_max: 2,
        ..bounds(2, 1, faults)
    };
    let losses = [Fault::Rollback, Fault::Replacement];
    holds("a rollback and a replacement", pair(&losses), 373_881);
    let losses = [Fault::RecordLoss, Fault::Replacement];
    holds("a loss and a replacement", pair(&losses), 50_241);
}

#[test]
fn replicas_that_move() {
    let moving = |moves, bounds| Bounds { moves, ..bounds };
    let rollback = bounds(2, 1, &[Fault::Rollback]);
    holds("two moves and a rollback", moving(2, rollback), 112_578);
    let loss = bounds(2, 1, &[Fault::RecordLoss, Fault::LateHint]);
    let loss = Bounds {
        faults_max: 2,
        ..loss
    };
    holds("two moves, a loss and a hint", moving(2, loss), 18_489);
    let pair = Bounds {
        faults_max: 2,
        ..bounds(2, 1, &[Fault::Rollback, Fault::RecordLoss])
    };
    holds("a move, a rollback and a loss", moving(1, pair), 276_853);
}
