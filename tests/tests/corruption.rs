//! Blocks of a node's files that have changed on the disk, as bad sectors do: nothing of them is served, nothing of them is
//! taken for absence, and the other replicas make them good.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_tests::{Cluster, http, wait_until};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

const KEYS: usize = 600;
/// As many as a cluster has that asks for no other number.
const PARTITIONS: i64 = 256;
/// Enough that the records fill many blocks of 4 to 16 KiB.
const VALUE_BYTES: usize = 2_000;
/// For what takes some seconds on a quiet machine.
const SOON: Duration = Duration::from_secs(120);
const CLOSE_MAX: Duration = Duration::from_secs(30);

/// Text that does not compress, else all of it would be in one block.
fn value(number: usize) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
    let letters = (0..VALUE_BYTES).map(|_| char::from(rng.random_range(b'!'..=b'~')));
    letters.collect()
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
    let mut spoilt = 0;
    // The second start turns the log into files with blocks; the third finds them spoilt.
    for _ in 0..2 {
        cluster.node(2).signal(Signal::TERM);
        assert!(cluster.node(2).ended(CLOSE_MAX).success());
        cluster.forget_node(2);
        let data = cluster.dir().join("cluster/node-2/data");
        let tables = files(&data).into_iter();
        let tables = tables.filter(|path| path.extension().is_some_and(|e| e == "sst"));
        spoilt = tables.map(|path| spoil(&path)).sum();
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
    let metric = |cluster: &Cluster, name| cluster.metric(2, name);
    let told = |cluster: &Cluster| {
        [
            "quorate_partitions_verified_total",
            "quorate_damaged_records_found_total",
            "quorate_damaged_records",
        ]
        .map(|name| metric(cluster, name))
    };
    // All of it has been read once.
    let verified = wait_until(SOON, || match told(&cluster) {
        [verified, found, left] => {
            verified >= Some(PARTITIONS) && found >= Some(spoilt as i64) && left == Some(0)
        }
    });
    let told = told(&cluster);
    assert!(verified, "verified, found and left: {told:?}");
    eprintln!("verified, found and left: {told:?}");

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
