//! Nodes that join, leave, take the place of others and die, while clients go on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_sim::history::{Operation, Outcome};
use quorate_tests::clients::{Client, Quorums, REPLICAS, Recorder};
use quorate_tests::judgement::{BOUND, Ends, Keeps, at_rest, count, judge};
use quorate_tests::{Cluster, wait_until};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CLIENTS: usize = 6;
const THINK_MAX: Duration = Duration::from_millis(30);
/// So long after a process was killed others may still pass requests on to it: until its silence is noticed.
const UNNOTICED_US: u64 = 1_500_000;
/// What a cluster has before it changes: enough that filling takes a moment.
const KEYS_BEFORE: usize = 400;

/// Applies what is staged, and returns the version.
fn apply(cluster: &Cluster) -> u64 {
    let plan = cluster.cli(&["cluster", "plan", "-o", "json"]).expect(0);
    let version = plan.json()["version"].as_u64().expect("a version");
    let arguments = ["cluster", "apply", "--version", &version.to_string()];
    let _ = cluster.cli(&arguments).expect(0);
    version
}

/// How far the change has come.
fn stage(cluster: &Cluster) -> Option<(u64, String)> {
    let progress = cluster.cli(&["cluster", "progress", "-o", "json"]);
    if progress.code != Some(0) {
        return None;
    }
    let told = progress.json();
    let version = told["version"].as_u64()?;
    Some((version, told["stage"].as_str()?.to_owned()))
}

fn is_done(cluster: &Cluster, version: u64) -> bool {
    stage(cluster).is_some_and(|(v, stage)| v == version && stage == "done")
}

/// When a node was not there, on the history's clock.
struct Outage {
    node: usize,
    from: u64,
    to: u64,
}

/// Three nodes become six, and then the three that came last; one is killed in the middle of either change. No acknowledged write is
/// missed by any strict read, none is lost, and what fails was with the process that was killed.
#[test]
fn a_cluster_grows_and_shrinks_under_load() {
    let mut cluster = Cluster::init_with_room(3, 3);
    let recorder = Recorder::default();
    let _keeps = Keeps {
        logs: cluster.dir().to_owned(),
        to: Path::new(env!("CARGO_TARGET_TMPDIR")).join("membership"),
        recorder: &recorder,
    };
    for number in 1..=3 {
        cluster.start_node(number);
    }
    cluster.await_all();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut last = Client::new(&cluster, 6, CLIENTS, &recorder);
    let usual = Quorums::of_primaries(2, 2);
    for key in 0..KEYS_BEFORE {
        let put = last.create(key % 3 + 1, &format!("before-{key}"), usual);
        assert!(put.is_some(), "key {key} is put");
    }
    let mut outages: Vec<Outage> = (4..=6)
        .map(|node| Outage {
            node,
            from: 0,
            to: u64::MAX,
        })
        .collect();
    let mut clients: Vec<Client<'_>> = (0..CLIENTS)
        .map(|process| Client::new(&cluster, 6, process, &recorder))
        .collect();

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = Ends(&ended);
        for client in &mut clients {
            let mut rng = ChaCha8Rng::from_rng(&mut rng);
            let ended = &ended;
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    client.act_with(&mut rng, usual);
                    thread::sleep(THINK_MAX.mul_f64(rng.random()));
                }
            });
        }
        let mut kill = |cluster: &mut Cluster, node: u16| {
            let from = recorder.at(Instant::now());
            cluster.kill_node(node);
            thread::sleep(Duration::from_millis(700));
            cluster.start_node(node);
            cluster.await_all();
            let to = recorder.at(Instant::now());
            let node = usize::from(node);
            outages.push(Outage { node, from, to });
        };
        thread::sleep(Duration::from_secs(1));
        for number in 4..=6 {
            let file = cluster.admit(number);
            let file = file.to_str().expect("a path in text");
            let _ = cluster.cli(&["cluster", "join", file]).expect(0);
        }
        cluster.await_all();
        let up = recorder.at(Instant::now());
        let version = apply(&cluster);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(stage(&cluster), Some((version, "filling".to_owned())));
        kill(&mut cluster, 2);
        assert!(wait_until(BOUND, || is_done(&cluster, version)), "it ends");
        thread::sleep(Duration::from_secs(1));

        for name in ["node-1", "node-2", "node-3"] {
            let _ = cluster.cli(&["cluster", "leave", name]).expect(0);
        }
        let version = apply(&cluster);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(stage(&cluster), Some((version, "filling".to_owned())));
        kill(&mut cluster, 5);
        assert!(wait_until(BOUND, || is_done(&cluster, version)), "it ends");
        thread::sleep(Duration::from_secs(1));
        outages[..3].iter_mut().for_each(|outage| outage.to = up);
    });

    // Those that left hold nothing any more, and are not needed.
    for number in 1..=3 {
        assert!(
            wait_until(BOUND, || cluster.metric(number, "quorate_records")
                == Some(0)
                || cluster.metric(number, "quorate_partitions_to_drop") == Some(0)),
            "node {number} has dropped what it held"
        );
        cluster.kill_node(number);
    }
    let mut keys: Vec<String> = recorder.history().into_iter().map(|op| op.key).collect();
    keys.sort();
    keys.dedup();
    let shown = at_rest(&mut last, &[4, 5, 6], &keys);
    let history = recorder.history();
    let found = judge(&history, &shown);
    let failed: Vec<&Operation> = history
        .iter()
        .filter(|op| op.outcome != Outcome::Ok && !op.condition_failed)
        .filter(|op| {
            let is_out = |o: &Outage| o.node == op.node && op.start <= o.to && op.end >= o.from;
            !outages.iter().any(is_out)
        })
        .collect();
    eprintln!(
        "{} operations on {} keys: {} ok; {} failed at nodes that were there, of them {} unknown",
        history.len(),
        keys.len(),
        count(&history, |op| op.outcome == Outcome::Ok),
        failed.len(),
        failed
            .iter()
            .filter(|op| op.outcome == Outcome::Unknown)
            .count(),
    );
    assert!(found.is_empty(), "{found:#?}");
    // What was with the killed process failed, also what another passed on to it before that was noticed.
    for op in failed {
        let is_of = |o: &Outage| op.start <= o.from + UNNOTICED_US && op.end >= o.from;
        let kills = &outages[3..];
        assert!(
            kills.iter().any(is_of),
            "{op:?} failed, and nobody was killed"
        );
    }
}

/// A node is gone for good, with its disk. Another takes its place, filled by those that are left; and the old one, should it come back with
/// its data after all, is told that it has left, and answers as the others do.
#[test]
fn a_dead_node_is_replaced_from_the_survivors() {
    let mut cluster = Cluster::init_with_room(3, 1);
    for number in 1..=3 {
        cluster.start_node(number);
    }
    cluster.await_all();
    let recorder = Recorder::default();
    let mut client = Client::new(&cluster, 4, 0, &recorder);
    let usual = Quorums::of_primaries(2, 2);
    let keys: Vec<String> = (0..100).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        assert!(client.create(1, key, usual).is_some());
    }
    cluster.kill_node(2);
    for key in &keys {
        assert!(client.create(3, key, usual).is_some(), "one is down");
    }
    let file = cluster.admit(4);
    let file = file.to_str().expect("a path in text");
    let _ = cluster
        .cli(&["cluster", "replace", "node-2", file])
        .expect(0);
    let plan = cluster.cli(&["cluster", "plan"]).expect(0);
    assert!(
        plan.text().contains("! node-2 does not answer"),
        "{}",
        plan.text()
    );
    let _ = cluster.cli(&["cluster", "revert"]).expect(0);
    let _ = cluster
        .cli(&["cluster", "replace", "node-2", file, "--dead"])
        .expect(0);
    let plan = cluster.cli(&["cluster", "plan"]).expect(0);
    assert!(!plan.text().contains('!'), "{}", plan.text());
    let _ = cluster.cli(&["cluster", "pause"]).expect(0);
    let plan = cluster.cli(&["cluster", "plan"]).expect(0);
    assert!(
        plan.text().contains("! Filling is paused"),
        "{}",
        plan.text()
    );
    let version = apply(&cluster);
    thread::sleep(Duration::from_secs(5));
    let progress = cluster
        .cli(&["cluster", "progress", "-o", "json"])
        .expect(0);
    let told = progress.json();
    assert_eq!(
        (&told["stage"], &told["paused"]),
        (&"filling".into(), &true.into())
    );
    let newcomer = told["nodes"].as_array().expect("nodes").iter();
    let newcomer = newcomer.clone().find(|node| node["name"] == "node-4");
    assert_eq!(newcomer.expect("it joins")["filled"], 0, "{told}");
    let _ = cluster
        .cli(&["cluster", "resume", "--bytes-per-second", "5000000"])
        .expect(0);
    assert!(wait_until(BOUND, || is_done(&cluster, version)), "it ends");
    let history = cluster.cli(&["cluster", "history"]).expect(0);
    let told = "node-4 joined; node-2 was declared dead";
    assert!(history.text().contains(told), "{}", history.text());
    let all = Quorums::of_primaries(REPLICAS, REPLICAS);
    for key in &keys {
        let shown = client.read(4, key, all).expect("all three are there");
        assert_eq!(shown.len(), 2, "{key}");
    }
    let again = cluster.cli(&["cluster", "apply", "--version", "2"]);
    assert_eq!(again.code, Some(1), "nothing is staged any more");

    // It was not as dead as that.
    cluster.start_node(2);
    assert!(
        wait_until(BOUND, || cluster
            .metric(2, "quorate_layout_version")
            .is_some_and(|v| v == version as i64)),
        "it is told"
    );
    for key in &keys {
        let shown = client.read(2, key, all).expect("it asks the others");
        assert_eq!(shown.len(), 2, "{key}");
    }
    assert!(
        wait_until(BOUND, || cluster.metric(2, "quorate_partitions_to_drop")
            == Some(0)),
        "it drops what it held"
    );
}

/// Other weights and other zones are no reason to hang up: requests that need every replica go on.
#[test]
fn weights_and_zones_change_and_nobody_notices() {
    let cluster = Cluster::start(3);
    let recorder = Recorder::default();
    let all = Quorums::of_primaries(REPLICAS, REPLICAS);
    let mut clients: Vec<Client<'_>> = (0..2)
        .map(|process| Client::new(&cluster, 3, process, &recorder))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = Ends(&ended);
        for client in &mut clients {
            let mut rng = ChaCha8Rng::from_rng(&mut rng);
            let ended = &ended;
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    client.act_with(&mut rng, all);
                    thread::sleep(THINK_MAX.mul_f64(rng.random()));
                }
            });
        }
        let staged = |arguments: &[&str]| {
            let done = cluster.cli(&[&["cluster"], arguments].concat()).expect(0);
            done.text().to_owned()
        };
        staged(&["weight", "node-1", "3"]);
        // Settings of one node add up.
        let told = staged(&["place", "node-1", "--zone", "attic"]);
        assert!(told.contains("weight 3, zone attic"), "{told}");
        staged(&["place", "node-2", "--zone", "attic"]);
        let refused = cluster.cli(&["cluster", "join", "/nowhere/node.json"]);
        assert_eq!(refused.code, Some(1));
        let refused = cluster.cli(&["cluster", "leave", "node-9"]);
        assert_eq!(refused.code, Some(3), "there is no such node");
        let refused = cluster.cli(&["cluster", "apply", "--version", "7"]);
        assert_eq!(refused.code, Some(1), "that is not the next");
        let refused = cluster.cli(&["cluster", "apply", "--version", "2", "--plan", "12345678"]);
        assert_eq!(refused.code, Some(1), "nobody has seen such a plan");
        let plan = cluster.cli(&["cluster", "plan"]).expect(0);
        assert!(plan.text().contains("two of them are in one zone"));
        let version = apply(&cluster);
        assert!(wait_until(BOUND, || is_done(&cluster, version)), "it ends");
        let history = staged(&["history"]);
        assert!(
            history.contains("node-1: weight 3, zone attic"),
            "{history}"
        );
        assert!(staged(&["revert"]).contains("Nothing was staged"));
    });
    let history = recorder.history();
    let failed: Vec<&Operation> = history
        .iter()
        .filter(|op| op.outcome != Outcome::Ok && !op.condition_failed)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(history.len() > 100, "{} operations", history.len());
}
