//! Exchanges that somebody asks for, and what status says of them.

use std::time::Duration;

use quorate_node::{Caller, Input, Limits};
use quorate_protocol::{Answer, Refusal, Repair, Repaired, Request};
use quorate_ring::NodeId;

use crate::cluster::{BUCKET, Cluster, foreign, holding, refusal};

/// Nodes that exchange by themselves once in an hour, and are done with what they do when they meet.
fn calm(nodes: usize) -> Cluster {
    let limits = Limits {
        exchange_cycle: Duration::from_secs(3_600),
        ..Limits::default()
    };
    let mut c = Cluster::tended(nodes, limits);
    c.quietly(|c| drive(c, 600));
    c
}

/// Passes so many milliseconds, in which everything that is sent arrives.
fn drive(c: &mut Cluster, ms: u32) {
    for _ in 0..ms {
        c.pass(Duration::from_millis(1));
        c.settle();
    }
}

fn partition_of(c: &Cluster, key: &str) -> u16 {
    c.vnode(key).partition.0
}

fn repair(c: &mut Cluster, at: usize, partition: u16) -> Caller {
    c.ask(at, Request::Repair(Repair { partition }))
}

fn came_to(c: &Cluster, caller: Caller) -> Repaired {
    match c.answer_to(caller) {
        Some(Answer::Repaired(came_to)) => came_to.clone(),
        other => panic!("no end of a repair: {other:?}"),
    }
}

/// Two keys of one partition.
fn two_keys(c: &Cluster) -> (String, String) {
    let first = "k0".to_owned();
    let same = |key: &String| c.vnode(key) == c.vnode(&first);
    let second = (1..).map(|i| format!("k{i}")).find(same);
    (first, second.expect("there are keys without end"))
}

/// What the last to be asked brings, those before it get as well, though their own exchanges were over.
#[test]
fn a_repair_leaves_every_replica_with_what_any_had() {
    let mut c = calm(4);
    let (first, second) = two_keys(&c);
    let replicas = c.replicas(&first);
    let [_, b, d] = replicas[..] else {
        panic!("three copies");
    };
    c.plant(b, &first, &holding(&[(foreign(1), "of b")], &[]));
    c.plant(d, &second, &holding(&[(foreign(2), "of d")], &[]));
    c.settle();
    let stored = |c: &Cluster| -> Vec<(bool, bool)> {
        let has = |at: usize, key: &str| c.nodes[at].stored(BUCKET, key).is_some();
        let both = |at: &usize| (has(*at, &first), has(*at, &second));
        replicas.iter().map(both).collect()
    };
    assert_eq!(stored(&c), [(false, false), (true, false), (false, true)]);
    // Whoever is asked need not be a replica itself.
    let outsider = (0..4).find(|i| !replicas.contains(i)).expect("one of four");
    let partition = partition_of(&c, &first);
    let asked = repair(&mut c, outsider, partition);
    drive(&mut c, 100);
    let done = came_to(&c, asked);
    assert_eq!(stored(&c), [(true, true); 3]);
    assert_eq!(done.unfinished, Vec::<String>::new());
    assert_eq!((done.exchanges, done.broken), (3, 0), "{done:?}");
    // One key from b, for d as well; one from d, and that again for b.
    assert_eq!(done.keys, 4, "{done:?}");
    assert!(done.rounds >= 9 && done.bytes > 300, "{done:?}");

    // Nothing differs any more: a question for each of the others, and a few bytes.
    let asked = repair(&mut c, outsider, partition);
    drive(&mut c, 100);
    let again = came_to(&c, asked);
    assert_eq!((again.exchanges, again.keys), (2, 0), "{again:?}");
    assert!(again.bytes < done.bytes, "{again:?} after {done:?}");
    assert_eq!(c.nodes[outsider].in_flight(), 0);
}

#[test]
fn a_repair_names_who_is_out_of_reach_and_does_the_rest() {
    let mut c = calm(3);
    let partition = partition_of(&c, "k");
    for at in [0, 1] {
        c.down(at, 2);
    }
    let asked = repair(&mut c, 0, partition);
    drive(&mut c, 100);
    let done = came_to(&c, asked);
    assert_eq!(done.exchanges, 1);
    let [why] = &done.unfinished[..] else {
        panic!("one is out of reach: {done:?}");
    };
    assert!(why.contains("n2") && why.contains("out of reach"), "{why}");

    // One that is lost while it is at it is named too, once that is certain.
    let asked = repair(&mut c, 0, partition);
    c.pass(Duration::from_millis(1));
    c.down(0, 1);
    drive(&mut c, 10);
    let done = came_to(&c, asked);
    assert_eq!((done.exchanges, done.unfinished.len()), (0, 2), "{done:?}");
}

#[test]
fn a_repair_that_takes_too_long_is_answered_with_what_is_done() {
    let mut c = calm(3);
    let partition = partition_of(&c, "k");
    let asked = c.ask_within(0, 500, Request::Repair(Repair { partition }));
    for _ in 0..600 {
        // Whatever is said to n1 is lost.
        c.pass(Duration::from_millis(1));
        c.wire.retain(|envelope| envelope.to != 1);
        c.settle();
    }
    let done = came_to(&c, asked);
    let [why] = &done.unfinished[..] else {
        panic!("one is silent: {done:?}");
    };
    assert!(why.contains("within the time"), "{why}");
    assert_eq!(c.nodes[0].in_flight(), 0);
}

#[test]
fn a_repair_of_no_partition_and_at_nodes_without_upkeep_is_refused() {
    let mut c = calm(3);
    let asked = repair(&mut c, 0, 8);
    assert!(
        matches!(refusal(c.answer_to(asked)), Refusal::Impossible(why) if why.contains("0 to 7")),
        "{:?}",
        c.answer_to(asked)
    );
    let mut c = Cluster::of(3);
    let asked = repair(&mut c, 0, 0);
    assert!(matches!(
        refusal(c.answer_to(asked)),
        Refusal::Impossible(_)
    ));
}

#[test]
fn status_tells_how_long_ago_replicas_were_equal_and_what_is_left_to_do() {
    let mut c = calm(3);
    let asked = c.ask(1, Request::Status);
    c.settle();
    let Some(Answer::Status(status)) = c.answer_to(asked) else {
        panic!("no status");
    };
    for node in &status.nodes {
        let oldest = node.upkeep.oldest.as_ref().expect("it has peers");
        assert!(!oldest.never && oldest.seconds < 2, "{oldest:?}");
        // Each of its 8 partitions with both others.
        assert!(node.upkeep.exchanges >= 16, "{:?}", node.upkeep);
        assert!(node.upkeep.exchange_bytes > 0 && node.upkeep.exchange_rounds >= 16);
        assert!(!node.upkeep.unverified && node.upkeep.refilling == 0);
    }
    // While one is away, its pairs grow old, and evidence waits.
    for at in [0, 1] {
        c.down(at, 2);
        c.input(2, Input::Down(NodeId(at as u64)));
    }
    let removed = holding(&[], &[foreign(1)]);
    c.plant(0, "k", &removed);
    drive(&mut c, 10);
    c.pass(Duration::from_secs(40));
    drive(&mut c, 50);
    let asked = c.ask(0, Request::Status);
    c.settle();
    let Some(Answer::Status(status)) = c.answer_to(asked) else {
        panic!("no status");
    };
    let upkeep = &status.nodes[0].upkeep;
    let oldest = upkeep.oldest.as_ref().expect("it has peers");
    assert_eq!(oldest.node, "n2");
    assert!(oldest.seconds >= 40 && !oldest.never, "{oldest:?}");
    assert_eq!(upkeep.evidence_keys, 1, "{upkeep:?}");

    // After a start nothing is known to be equal, and nobody has said yet whether anything was lost.
    c.restart(2, 0);
    let upkeep = c.nodes[2].upkeep_status();
    assert!(upkeep.unverified && upkeep.oldest.is_some_and(|o| o.never));
}

/// A node that is told that it lost state says so until that is on its disk.
#[test]
fn a_loss_that_is_named_at_the_start_is_on_record_once_it_is_synced() {
    let mut c = calm(3);
    c.restart_unclean(1);
    assert!(!c.nodes[1].is_loss_recorded());
    assert_eq!(c.nodes[1].upkeep_status().refilling, 8);
    c.settle();
    assert!(c.nodes[1].is_loss_recorded());
    // A start that finds nothing wrong has nothing to record, and goes on with the refill.
    c.restart(1, 0);
    assert!(c.nodes[1].is_loss_recorded());
    assert_eq!(c.nodes[1].upkeep_status().refilling, 8);
    for other in [0, 2] {
        c.up(1, other);
        c.up(other, 1);
    }
    drive(&mut c, 600);
    assert_eq!(c.nodes[1].upkeep_status().refilling, 0);
}
