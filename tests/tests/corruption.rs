//! Blocks of a node's files that have changed on the disk, as bad sectors do: nothing of them is served, nothing of them is
//! taken for absence, and the other replicas make them good.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_tests::{Cluster, http, wait_until};
use rustix::process::Signal;

const KEYS: usize = 600;
/// Enough that the records fill many blocks of 4 to 16 KiB.
const VALUE_BYTES: usize = 2_000;
/// For what takes some seconds on a quiet machine.
const SOON: Duration = Duration::from_secs(120);
const CLOSE_MAX: Duration = Duration::from_secs(30);

fn value(number: usize) -> String {
    format!("{number:08} ").repeat(VALUE_BYTES / 9)
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => files(&path),
        path => vec![path],
    });
    below.collect()
}

/// Changes a byte in each of a file's 64 KiB but the first and the last, where what describes the rest lies.
fn spoil(path: &Path) -> usize {
    let mut bytes = fs::read(path).expect("a file");
    let last = bytes.len().saturating_sub(64 << 10);
    let spoilt = (64 << 10..last).step_by(64 << 10);
    let count = spoilt.clone().count();
    for at in spoilt {
        bytes[at] ^= 0x40;
    }
    fs::write(path, bytes).expect("written");
    count
}

#[test]
fn blocks_that_changed_on_the_disk_are_made_good_by_the_others() {
    let mut cluster = Cluster::init(3);
    let start = |cluster: &mut Cluster, node| {
        let mut server = cluster.server(node);
        server.env("QUORATE_EXCHANGE_CYCLE", "2s");
        server.env("QUORATE_VERIFY_CYCLE", "2s");
        cluster.start_node_as(node, &mut server);
    };
    for node in 1..=3 {
        start(&mut cluster, node);
    }
    cluster.await_all();
    let agent = http();
    for number in 0..KEYS {
        let url = cluster.url(1, "b", &format!("key-{number}?w=3"));
        let told = agent.put(&url).send(value(number)).expect("an answer");
        assert_eq!(told.status(), 204, "{url}");
    }
    // The second start turns the log into files with blocks; the third finds them spoilt.
    for _ in 0..2 {
        cluster.node(2).signal(Signal::TERM);
        assert!(cluster.node(2).ended(CLOSE_MAX).success());
        cluster.forget_node(2);
        let data = cluster.dir().join("cluster/node-2/data");
        let tables = files(&data).into_iter();
        let tables = tables.filter(|path| path.extension().is_some_and(|e| e == "sst"));
        let spoilt: usize = tables.map(|path| spoil(&path)).sum();
        eprintln!("{spoilt} blocks spoilt");
        start(&mut cluster, 2);
        cluster.await_all();
    }

    // Whatever this replica says by itself, it never says that there is nothing, and never anything else.
    let mut unanswered = 0;
    for number in 0..KEYS {
        let url = cluster.url(2, "b", &format!("key-{number}?r=1&sloppy=false"));
        let mut answer = agent.get(&url).call().expect("an answer");
        match answer.status().as_u16() {
            200 => assert_eq!(
                answer.body_mut().read_to_string().expect("a body"),
                value(number)
            ),
            _ => unanswered += 1,
        }
        assert_ne!(answer.status(), 404, "{url}");
    }
    eprintln!("{unanswered} of {KEYS} without an answer at first");
    let found = |cluster: &Cluster| cluster.metric(2, "quorate_damaged_records_found_total");
    let left = |cluster: &Cluster| cluster.metric(2, "quorate_damaged_records");
    assert!(
        wait_until(SOON, || found(&cluster) > Some(0)
            && left(&cluster) == Some(0)),
        "{:?} found, {:?} left",
        found(&cluster),
        left(&cluster)
    );
    eprintln!("{:?} records found damaged", found(&cluster));

    // It holds all of it again, by itself.
    for other in [1, 3] {
        cluster.node(other).signal(Signal::STOP);
    }
    for number in 0..KEYS {
        let url = cluster.url(2, "b", &format!("key-{number}?r=1&sloppy=false"));
        let mut answer = agent.get(&url).call().expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        assert_eq!(
            answer.body_mut().read_to_string().expect("a body"),
            value(number)
        );
    }
    for other in [1, 3] {
        cluster.node(other).signal(Signal::CONT);
    }
}
