//! Disks that lose data, and replicas that come to hold the same again, without anybody reading a key.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use quorate_tests::nemesis::copy;
use quorate_tests::{Cluster, http, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// For what takes some seconds on a quiet machine.
const SOON: Duration = Duration::from_secs(120);
/// How long a node may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(30);

const KEYS: usize = 60;

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Which keys are deleted in the end: while a node is away, or before.
fn is_deleted(number: usize) -> bool {
    number.is_multiple_of(3)
}

fn put(cluster: &Cluster, node: u16, number: usize, value: &str) {
    let url = cluster.url(node, "b", &key(number));
    let agent = http();
    // Without a context it would be a sibling of what is there.
    let seen = agent.get(&url).call().expect("an answer");
    assert!([200, 404].contains(&seen.status().as_u16()), "{url}");
    let mut request = agent.put(&url);
    if let Some(context) = seen.headers().get("quorate-context") {
        request = request.header("quorate-context", context);
    }
    let status = request.send(value).expect("an answer").status();
    assert!(status == 204, "{url}: {status}");
}

fn delete(cluster: &Cluster, node: u16, number: usize) {
    let url = cluster.url(node, "b", &key(number));
    let status = http().delete(&url).call().expect("an answer").status();
    assert!(status == 204, "{url}: {status}");
}

/// What a node holds by itself: reads that it answers alone, as all others are stopped.
fn held_by(cluster: &Cluster, node: u16) -> Vec<Option<String>> {
    let agent = http();
    (0..KEYS)
        .map(|number| {
            let url = format!("{}?r=1&sloppy=false", cluster.url(node, "b", &key(number)));
            let mut reply = agent.get(&url).call().expect("an answer");
            match reply.status().as_u16() {
                200 => Some(reply.body_mut().read_to_string().expect("text")),
                404 => None,
                status => panic!("{url}: {status}: {:?}", reply.body_mut().read_to_string()),
            }
        })
        .collect()
}

fn status(cluster: &Cluster, node: u16) -> Value {
    let address = cluster.address(node);
    let told = cluster.cli(&["status", "-o", "json", "--endpoint", &address]);
    told.expect(0).json()
}

/// Waits until a node, started anew, has found out that it had lost something and been given it back.
fn await_refilled(cluster: &Cluster, node: u16) {
    let refilled = wait_until(SOON, || {
        // First, as before it knows of the loss it is refilling nothing either.
        cluster.metric(node, "quorate_partitions_refilled_total") > Some(0)
            && cluster.metric(node, "quorate_verified") == Some(1)
            && cluster.metric(node, "quorate_partitions_refilling") == Some(0)
    });
    assert!(refilled, "{:#}", status(cluster, node));
}

fn stop(cluster: &mut Cluster, node: u16) {
    cluster.node(node).signal(Signal::TERM);
    let ended = cluster.node(node).ended(CLOSE_MAX);
    assert!(ended.success(), "{ended:?}");
    // It is known to have ended, so that this only forgets it.
    cluster.forget_node(node);
}

fn data_dir(cluster: &Cluster, node: u16) -> PathBuf {
    cluster.dir().join(format!("cluster/node-{node}/data"))
}

/// Asserts that every node by itself holds what was written last, and nothing that was deleted.
fn assert_all_hold(cluster: &mut Cluster, expected: &[Option<String>]) {
    let repaired = cluster.cli(&["repair", "-o", "json"]).expect(0).json();
    assert_eq!(repaired["unfinished"], serde_json::json!([]), "{repaired}");
    // All nodes are to be asked alone: two are stopped at a time.
    for node in 1..=3u16 {
        for other in (1..=3).filter(|other| *other != node) {
            cluster.node(other).signal(Signal::STOP);
        }
        let url = cluster.url(node, "b", "key-0");
        let alone = wait_until(SOON, || {
            let answer = http().get(format!("{url}?r=2&sloppy=false")).call();
            answer.is_ok_and(|answer| answer.status() == 503)
        });
        let held = held_by(cluster, node);
        for other in (1..=3).filter(|other| *other != node) {
            cluster.node(other).signal(Signal::CONT);
        }
        assert!(alone, "node-{node} still reaches others");
        assert_eq!(held, expected, "at node-{node}");
        cluster.await_all();
    }
}

#[test]
fn a_disk_that_was_put_back_and_one_that_was_emptied_are_filled_and_nothing_deleted_returns() {
    let mut cluster = Cluster::init(3);
    let start = |cluster: &mut Cluster, node| {
        let mut server = cluster.server(node);
        server.env("QUORATE_EXCHANGE_CYCLE", "2s");
        cluster.start_node_as(node, &mut server);
    };
    for node in 1..=3 {
        start(&mut cluster, node);
    }
    cluster.await_all();
    for number in 0..KEYS {
        put(&cluster, 1, number, "first");
    }
    // A copy of node 3 as it is now, of a closed directory.
    stop(&mut cluster, 3);
    let (dir, older) = (data_dir(&cluster, 3), cluster.dir().join("older"));
    copy(&dir, &older);
    start(&mut cluster, 3);
    cluster.await_all();

    // Deleted and changed with node 3 there, so that it acknowledges what it is going to lose.
    for number in 0..KEYS {
        match number {
            _ if is_deleted(number) => delete(&cluster, 1, number),
            _ if number % 3 == 1 => put(&cluster, 2, number, "second"),
            _ => {}
        }
    }
    let expected: Vec<Option<String>> = (0..KEYS)
        .map(|number| match number % 3 {
            0 => None,
            1 => Some("second".to_owned()),
            _ => Some("first".to_owned()),
        })
        .collect();
    // What was deleted is forgotten everywhere: from here on only the clocks know of it.
    let forgotten = wait_until(SOON, || {
        let told = status(&cluster, 1);
        let nodes = told["nodes"].as_array().expect("nodes");
        nodes
            .iter()
            .all(|node| node["upkeep"]["evidence_keys"] == 0)
    });
    assert!(forgotten, "{:#}", status(&cluster, 1));
    let forgot = |node| cluster.metric(node, "quorate_evidence_forgotten_total");
    assert!((1..=3).all(|node| forgot(node) >= Some(KEYS as i64 / 3)));

    // Node 3 is put back to before.
    stop(&mut cluster, 3);
    fs::remove_dir_all(&dir).expect("removed");
    copy(&older, &dir);
    start(&mut cluster, 3);
    cluster.await_all();
    await_refilled(&cluster, 3);
    assert_eq!(cluster.metric(3, "quorate_losses_found_total"), Some(1));
    assert_all_hold(&mut cluster, &expected);

    // Node 2's data is gone as a whole. Whoever asks first, it or a peer, finds the keys that differ.
    let differing = |cluster: &Cluster, node| {
        cluster
            .metric(node, "quorate_exchange_differing_keys_total")
            .unwrap_or(0)
    };
    let before = differing(&cluster, 1) + differing(&cluster, 3);
    stop(&mut cluster, 2);
    fs::remove_dir_all(data_dir(&cluster, 2)).expect("removed");
    start(&mut cluster, 2);
    cluster.await_all();
    await_refilled(&cluster, 2);
    let found: i64 = (1..=3).map(|node| differing(&cluster, node)).sum();
    assert!(found > before, "{found} after {before}");
    assert_all_hold(&mut cluster, &expected);

    // An operator says that node 1 was restored, though nobody could tell.
    stop(&mut cluster, 1);
    let mark = data_dir(&cluster, 1).join("RESTORED");
    fs::write(&mark, "").expect("written");
    start(&mut cluster, 1);
    cluster.await_all();
    assert!(wait_until(SOON, || !mark.exists()), "it is on record");
    await_refilled(&cluster, 1);
    assert_all_hold(&mut cluster, &expected);

    // Nothing differs any more, which costs little to see; and one partition alone is one.
    let told = cluster.cli(&["repair", "-o", "json"]).expect(0).json();
    assert_eq!(told["keys"], 0, "{told}");
    assert!(
        told["exchanges"].as_u64() >= told["partitions"].as_u64(),
        "{told}"
    );
    let one = cluster.cli(&["repair", "--partition", "0"]).expect(0);
    assert!(
        one.text()
            .contains("no key differed: 1 partitions, 2 exchanges"),
        "{one:?}"
    );
    let none = cluster.cli(&["repair", "--partition", "65000"]).expect(1);
    assert!(none.stderr.contains("no partition 65000"), "{none:?}");
    let url = format!("http://{}/v1/cluster/repair", cluster.address(1));
    let mut reply = http()
        .post(format!("{url}?partition=3"))
        .send_empty()
        .expect("an answer");
    let text = reply.body_mut().read_to_string().expect("text");
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((&json["partition"], &json["keys"]), (&3.into(), &0.into()));

    let overview = status(&cluster, 1);
    for node in overview["nodes"].as_array().expect("nodes") {
        let upkeep = &node["upkeep"];
        assert!(upkeep["exchange_bytes"].as_u64() > Some(0), "{node}");
        assert_eq!(upkeep["refilling"], 0, "{node}");
    }

    // With a node away, its part is not done, and that is said.
    stop(&mut cluster, 3);
    let away = cluster.cli(&["repair", "--partition", "0"]).expect(1);
    assert!(away.text().contains("! node-3 has a replica"), "{away:?}");
}
