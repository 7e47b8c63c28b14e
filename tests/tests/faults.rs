//! Real processes, real faults, and the simulator's judge.
//!
//! Clients work on a cluster while its processes are killed, paused, run out of disk and find an older copy of their directory, and its
//! network is cut, slow and lossy. Then everything is mended, every key is read from all of its replicas, and the history is judged: nothing acknowledged is lost, nothing
//! removed is back, strict reads were regular; and every node shows the same.
//!
//! Which faults come, and when, is drawn from a seed, which is printed. What processes do with them is not: a seed that fails
//! may pass the next time. Therefore what is needed to understand a failure is kept: the history, a line of JSON for each operation,
//! and the nodes' logs. For hours instead of seconds:
//!
//! ```text
//! QUORATE_FAULTS_SECONDS=600 QUORATE_FAULTS_SEED=7 cargo test -p quorate-cli -p quorate-tests --test faults -- --nocapture
//! ```

use std::env;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use quorate_sim::history::{Operation, Outcome};
use quorate_sim::losses::{Loss, excuse};
use quorate_tests::clients::{Client, Quorums, REPLICAS, Recorder};
use quorate_tests::judgement::{BOUND, Ends, Keeps, at_rest, count, judge};
use quorate_tests::nemesis::{Fault, Nemesis};
use quorate_tests::network::Network;
use quorate_tests::{Cluster, http, wait_until};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How long faults last in a run that nobody asked to be longer: enough for each kind to come once or twice.
const SECONDS: u64 = 20;
/// Nodes, where nobody asks for more. With three, every node is a primary of every key; with more, fallbacks take part.
const NODES: u16 = 3;
const CLIENTS: usize = 6;
/// How long a client thinks at most. Some hundred operations a second meet every moment of a fault, and leave the machine room for others.
const THINK_MAX: Duration = Duration::from_millis(30);

fn from_environment<T: FromStr>(name: &str, otherwise: T) -> T {
    match env::var(name) {
        Ok(text) => match text.parse() {
            Ok(value) => value,
            Err(_) => panic!("{name}={text} is no number"),
        },
        Err(_) => otherwise,
    }
}

/// A seed that no run before had.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn all_of(nodes: u16) -> Vec<usize> {
    (1..=usize::from(nodes)).collect()
}

/// How many hints all nodes hold.
fn hints(cluster: &Cluster, nodes: u16) -> Option<u64> {
    let mut sum = 0;
    for number in 1..=nodes {
        let url = format!("http://{}/metrics", cluster.address(number));
        let mut answer = http().get(url).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        for line in text
            .lines()
            .filter(|line| line.starts_with("quorate_hints_pending{"))
        {
            sum += line.rsplit(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some(sum)
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_nothing_removed_comes_back() {
    let seed = from_environment("QUORATE_FAULTS_SEED", fresh());
    let seconds = from_environment("QUORATE_FAULTS_SECONDS", SECONDS);
    let nodes = from_environment("QUORATE_FAULTS_NODES", NODES);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let durability = if rng.random_bool(0.5) { "fsync" } else { "os" };
    eprintln!(
        "QUORATE_FAULTS_SEED={seed} QUORATE_FAULTS_SECONDS={seconds} QUORATE_FAULTS_NODES={nodes}: durability = \"{durability}\""
    );
    let mut cluster = Cluster::init(nodes);
    let network = Network::between(&cluster, nodes, seed);
    let recorder = Recorder::default();
    let _keeps = Keeps {
        logs: cluster.dir().to_owned(),
        to: Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}")),
        recorder: &recorder,
    };
    let mut clients: Vec<Client<'_>> = (0..CLIENTS)
        .map(|process| Client::new(&cluster, nodes, process, &recorder))
        .collect();
    let mut last = Client::new(&cluster, nodes, CLIENTS, &recorder);
    let rng_of_nemesis = ChaCha8Rng::from_rng(&mut rng);
    let mut nemesis = Nemesis::new(&mut cluster, &network, nodes, durability, rng_of_nemesis);

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = Ends(&ended);
        for client in &mut clients {
            let mut rng = ChaCha8Rng::from_rng(&mut rng);
            let ended = &ended;
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    client.act(&mut rng);
                    thread::sleep(THINK_MAX.mul_f64(rng.random()));
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            thread::sleep(nemesis.strike());
            thread::sleep(nemesis.mend());
        }
    });

    // Everything is mended: the cluster has to work again.
    let counts = nemesis.counts().clone();
    let losses = nemesis.losses().iter();
    let losses = losses.map(|moment| Loss {
        at: recorder.at(*moment),
        key: None,
    });
    let losses: Vec<Loss> = losses.collect();
    let cluster = nemesis.cluster();
    cluster.await_all();
    let all = Quorums::of_primaries(REPLICAS, REPLICAS);
    let mut put = 0;
    let after = "after";
    for node in 1..=usize::from(nodes) {
        assert!(
            wait_until(BOUND, || match last.create(node, after, all) {
                Some(number) => {
                    put = number;
                    true
                }
                None => false,
            }),
            "{BOUND:?} after the mending, node {node} does not take a put of all replicas"
        );
    }
    assert!(
        wait_until(BOUND, || hints(cluster, nodes) == Some(0)),
        "{BOUND:?} after the mending, there are {:?} hints",
        hints(cluster, nodes)
    );
    let mut keys: Vec<String> = recorder.history().into_iter().map(|op| op.key).collect();
    keys.sort();
    keys.dedup();
    let mut shown = at_rest(&mut last, &all_of(nodes), &keys);

    let mut history = recorder.history();
    excuse(&mut history, &losses, false);
    let found = judge(&history, &shown);
    let with = |outcome| count(&history, |op| op.outcome == outcome);
    let (passed, lost) = network.counts();
    let faults: Vec<String> = Fault::ALL
        .iter()
        .map(|fault| format!("{fault:?} {}", counts.get(fault).unwrap_or(&0)))
        .collect();
    eprintln!(
        "faults: {}; {} operations on {} keys: {} ok, {} failed, {} unknown; {} acknowledged puts and deletes, {} keys with values at \
         rest; {passed} packets passed, {lost} lost",
        faults.join(", "),
        history.len(),
        keys.len(),
        with(Outcome::Ok),
        with(Outcome::Fail),
        with(Outcome::Unknown),
        count(&history, Operation::acknowledged),
        shown.values().filter(|values| !values.is_empty()).count(),
    );
    assert!(found.is_empty(), "seed {seed}: {found:#?}");

    // The same history, had the cluster lost a put of it: the judge is awake.
    let values = shown.get_mut(after).expect("it was read");
    values.retain(|value| *value != put);
    let found = judge(&history, &shown);
    let lost = format!("key {after}: put {put} was acknowledged and is lost");
    assert!(
        found.len() == 1 && found[0].starts_with(&lost),
        "{found:#?}"
    );
}

#[test]
fn a_cluster_that_loses_what_it_acknowledged_is_found_out() {
    let mut cluster = Cluster::start(NODES);
    let recorder = Recorder::default();
    let mut client = Client::new(&cluster, NODES, 0, &recorder);
    let all = Quorums::of_primaries(REPLICAS, REPLICAS);
    let keys: Vec<String> = (0..8).map(|number| format!("key-{number}")).collect();
    let mut put = Vec::new();
    for key in &keys {
        let mut number = None;
        assert!(wait_until(BOUND, || {
            number = client.create(1, key, all);
            number.is_some()
        }));
        put.extend(number);
    }
    let rest = at_rest(&mut client, &all_of(NODES), &keys);
    assert_eq!(judge(&recorder.history(), &rest), Vec::<String>::new());

    // All of them, since what one has lost the others give back.
    for number in 1..=NODES {
        cluster.kill_node(number);
        let data = cluster.dir().join(format!("cluster/node-{number}/data"));
        fs::remove_dir_all(data).expect("a node has data");
        cluster.start_node(number);
    }
    cluster.await_all();
    let rest = at_rest(&mut client, &all_of(NODES), &keys);
    let found = judge(&recorder.history(), &rest);
    for (key, number) in keys.iter().zip(put) {
        let lost = format!("key {key}: put {number} was acknowledged and is lost");
        assert!(
            found.iter().any(|violation| violation.starts_with(&lost)),
            "{lost}: {found:#?}"
        );
    }
}
