//! Exchanges that cannot be finished do not keep others from theirs.

use std::time::Duration;

use quorate_node::{Input, Limits, Vitals};

use crate::cluster::{BUCKET, Cluster, foreign, holding};

/// Passes so much time, in which everything that is sent arrives.
fn drive(c: &mut Cluster, time: Duration) {
    for _ in 0..time.as_millis() {
        c.pass(Duration::from_millis(1));
        c.settle();
    }
}

/// A key of every vnode, in their order.
fn keys(c: &Cluster) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for key in (0..).map(|i| format!("k{i}")) {
        if keys.iter().all(|known| c.vnode(known) != c.vnode(&key)) {
            keys.push(key);
        }
        if keys.len() == 8 {
            break;
        }
    }
    keys.sort_by_key(|key| c.vnode(key));
    keys
}

/// The disk of one node is full. It refuses whatever an exchange would bring it, for as long as that lasts; the other two agree on
/// everything meanwhile, also on what they come to differ in later, and it catches up when there is room.
#[test]
fn a_full_disk_holds_up_no_exchange_of_others() {
    let limits = Limits {
        exchange_cycle: Duration::from_secs(4),
        ..Limits::default()
    };
    let mut c = Cluster::tended(3, limits);
    c.quietly(|c| drive(c, Duration::from_secs(1)));
    let full = |free| Vitals {
        disk_free_bytes: Some(free),
        disk_reserve_bytes: 1_000,
        ..Vitals::default()
    };
    c.input(1, Input::Vitals(Box::new(full(1))));
    let keys = keys(&c);
    c.quietly(|c| {
        c.plant(0, &keys[0], &holding(&[(foreign(1), "early")], &[]));
        drive(c, Duration::from_secs(10));
        for (key, counter) in keys.iter().zip(2..).skip(1) {
            c.plant(0, key, &holding(&[(foreign(counter), "late")], &[]));
        }
        drive(c, Duration::from_secs(20));
    });
    let lack = |c: &Cluster, at: usize| -> Vec<String> {
        let lacks = |key: &&String| c.nodes[at].stored(BUCKET, key).is_none();
        keys.iter().filter(lacks).cloned().collect()
    };
    assert_eq!(lack(&c, 2), Vec::<String>::new(), "n2 lacks these");
    assert_eq!(lack(&c, 1), keys, "n1 has no room");
    c.input(1, Input::Vitals(Box::new(full(1_000_000))));
    c.quietly(|c| drive(c, Duration::from_secs(20)));
    assert_eq!(lack(&c, 1), Vec::<String>::new(), "n1 lacks these");
}

/// Each node exchanges once in a cycle with each other replica of each of its vnodes, in whichever order the preference list names them.
#[test]
fn every_pair_has_its_turn() {
    let cycle = Duration::from_secs(2);
    let limits = Limits {
        exchange_cycle: cycle,
        ..Limits::default()
    };
    let mut c = Cluster::tended(4, limits);
    c.quietly(|c| drive(c, Duration::from_secs(1)));
    for at in 0..4 {
        let oldest = c.nodes[at].upkeep_status().oldest;
        assert!(oldest.is_some_and(|o| !o.never), "they have met");
    }
    // Half as much again, as there is a random share.
    c.quietly(|c| drive(c, 5 * cycle));
    for at in 0..4 {
        let oldest = c.nodes[at].upkeep_status().oldest.expect("it has peers");
        assert!(oldest.seconds <= 3, "n{at}: {oldest:?}");
    }
}
