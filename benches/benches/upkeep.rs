//! What convergence costs and how long it takes: three processes on this machine, one of which misses writes.
//!
//! ```text
//! cargo build --release && cargo bench -p quorate-benches --bench upkeep -- [differences] [return] [deletes] [hot]
//! ```
//!
//! - `differences`: a partition of `BENCH_KEYS` (1,000,000) keys, of which one replica misses none, 1, 100 and 10,000: bytes and questions of
//!   `quorate repair`.
//! - `return`: a node misses a tenth of `BENCH_KEYS` writes: seconds until all have exchanged everything, and what that does to
//!   others' requests.
//! - `deletes`: `BENCH_KEYS` keys are written, deleted and collected: what is left.
//! - `hot`: one key is overwritten a tenth of `BENCH_KEYS` times while a replica is down: what its record comes to.
//!
//! Without a name all of them, which takes about a quarter of an hour. Nodes listen on the loopback interface alone, and are ended by their process ids.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientConfig};
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec, Partition};
use quorate_tests::{Cluster, Process, wait_until};
use rustix::process::Signal;
use serde_json::Value as Json;
use tokio::task::JoinSet;

const NODES: u16 = 3;
const BUCKET: &str = "b";
const KEYS: u64 = 1_000_000;
const DIFFERENCES: [usize; 4] = [1, 100, 10_000, 0];
const IN_FLIGHT: u64 = 64;
/// For anything that is waited for: nothing here takes as long unless it never ends.
const BOUND: Duration = Duration::from_secs(900);

/// Measures something with so many keys.
type Run = fn(u64);

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    // Whoever compiles or lists all targets does not mean to run this one for minutes.
    if !wanted.iter().any(|argument| argument == "--bench") {
        println!("run it with: cargo bench -p quorate-benches --bench upkeep");
        return;
    }
    wanted.retain(|argument| !argument.starts_with('-'));
    let keys = match std::env::var("BENCH_KEYS") {
        Err(_) => KEYS,
        Ok(text) => text.parse().expect("BENCH_KEYS is a whole number"),
    };
    let runs: [(&str, Run); 4] = [
        ("differences", differences),
        ("return", returns),
        ("deletes", deletes),
        ("hot", hot),
    ];
    for (name, run) in runs {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("\n{name}, {keys} keys");
            run(keys);
        }
    }
}

/// Starts all nodes; exchanges go round in `cycle`.
fn cluster(cycle: &str) -> Cluster {
    let mut cluster = Cluster::init(NODES);
    for number in 1..=NODES {
        start(&mut cluster, number, cycle);
    }
    cluster.await_all();
    cluster
}

fn start(cluster: &mut Cluster, number: u16, cycle: &str) {
    let mut server = cluster.server(number);
    server.env("QUORATE_DURABILITY", "os");
    server.env("QUORATE_EXCHANGE_CYCLE", cycle);
    cluster.start_node_as(number, &mut server);
}

fn stop(cluster: &mut Cluster, number: u16) {
    cluster.node(number).signal(Signal::TERM);
    assert!(cluster.node(number).ended(BOUND).success());
    cluster.forget_node(number);
}

/// Stores lines as `quorate import` does.
fn import(cluster: &Cluster, keys: impl Iterator<Item = String>, value: &str) {
    let path = cluster.dir().join("lines.ndjson");
    let mut lines = String::new();
    for key in keys {
        writeln!(
            lines,
            "{{\"bucket\":\"{BUCKET}\",\"key\":\"{key}\",\"value\":\"{value}\"}}"
        )
        .expect("memory");
    }
    fs::write(&path, lines).expect("written");
    let path = path.to_str().expect("a path of letters");
    long(cluster, &["import", path], BOUND);
}

/// A command that takes longer than a test's may.
fn long(cluster: &Cluster, arguments: &[&str], bound: Duration) -> String {
    let mut process = Process::start(&mut cluster.command(arguments), cluster.dir(), "long");
    let status = process.ended(bound);
    assert!(status.success(), "{arguments:?}: {}", process.log());
    process.stdout()
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Json {
    serde_json::from_str(&long(cluster, arguments, BOUND)).expect("JSON")
}

/// Keys that lie in the first partition of a cluster.
fn of_one_partition(partitions: u16) -> impl Iterator<Item = String> {
    let node = NodeSpec {
        id: NodeId(1),
        name: "node-1".to_owned(),
        region: "local".to_owned(),
        zone: "zone".to_owned(),
        weight: 1,
        quic: "127.0.0.1:1".to_owned(),
        http: "127.0.0.1:1".to_owned(),
    };
    let layout = Layout::first(ClusterId(1), LayoutSpec::new(vec![node])).expect("a layout");
    assert_eq!(layout.partitions(), partitions);
    (0u64..)
        .map(|number| format!("{number:x}"))
        .filter(move |key| layout.partition_of(BUCKET, key.as_bytes()) == Partition(0))
}

fn differences(keys: u64) {
    // New keys, not changed ones: what they replace would be collected, which brings them as well.
    let more: usize = DIFFERENCES.iter().sum();
    let all: Vec<String> = of_one_partition(256).take(keys as usize + more).collect();
    // Nobody compares but who is told to.
    let cycle = "1d";
    let mut cluster = cluster(cycle);
    let mut first = keys as usize;
    import(
        &cluster,
        all[..first].iter().cloned(),
        "twenty bytes of text",
    );
    for differing in DIFFERENCES {
        let before;
        if differing > 0 {
            stop(&mut cluster, 3);
            let new = all[first..].iter().take(differing).cloned();
            import(&cluster, new, "written meanwhile...");
            first += differing;
            before = exchanged(&cluster, 2);
            start(&mut cluster, 3, cycle);
            cluster.await_all();
        } else {
            before = exchanged(&cluster, NODES);
        }
        let began = Instant::now();
        // Nodes also compare by themselves once one has come back: whoever does it, it is counted.
        let command = [
            "repair",
            "--partition",
            "0",
            "-o",
            "json",
            "--timeout",
            "10m",
        ];
        let told = json(&cluster, &command);
        let took = began.elapsed();
        let now = exchanged(&cluster, NODES);
        let [exchanges, keys, rounds, bytes] = [0, 1, 2, 3].map(|i| now[i] - before[i]);
        println!(
            "{differing} keys written without node 3: {keys} differed in {exchanges} exchanges of {rounds} questions and {bytes} bytes; \
             told of {} bytes after {took:.1?}",
            told["bytes"]
        );
    }
}

/// Exchanges of the first nodes since they were started, the keys that differed, questions and bytes.
fn exchanged(cluster: &Cluster, nodes: u16) -> [i64; 4] {
    // Metrics are of a second ago.
    std::thread::sleep(Duration::from_secs(3));
    let sum = |name: &str| {
        let of = |node| cluster.metric(node, name).expect("a metric");
        (1..=nodes).map(of).sum()
    };
    [
        "quorate_exchanges_total",
        "quorate_exchange_differing_keys_total",
        "quorate_exchange_rounds_total",
        "quorate_exchange_bytes_total",
    ]
    .map(sum)
}

fn ages(cluster: &Cluster) -> Option<i64> {
    let age = |node| cluster.metric(node, "quorate_exchange_age_max_seconds");
    (1..=NODES)
        .map(age)
        .try_fold(0, |most, age| Some(most.max(age?)))
}

/// Requests at a steady rate through nodes 1 and 2, for some seconds.
fn foreground(cluster: &Cluster, what: &str, seconds: u64) {
    let urls = [1, 2].map(|node| format!("http://{}", cluster.address(node)));
    let seconds = seconds.to_string();
    let told = json(
        cluster,
        &[
            "bench",
            "--http",
            &urls.join(","),
            "--rate",
            "1000",
            "--mix",
            "50:50",
            "--keys",
            "10000",
            "--bucket",
            "foreground",
            "--seconds",
            &seconds,
            "--warmup",
            "0",
            "-o",
            "json",
        ],
    );
    for kind in ["put", "get"] {
        let of = &told["runs"][0]["operations"][kind]["latency_ms"];
        println!(
            "{what}: {kind} p50 {} p99 {} most {}",
            of["p50"], of["p99"], of["max"]
        );
    }
    println!("{what}: {} failed", told["runs"][0]["total"]["failed"]);
}

fn returns(keys: u64) {
    let missed = keys / 10;
    let cycle = "30s";
    let mut cluster = cluster(cycle);
    let all = || (0..missed).map(|number| format!("user/{number:07}"));
    import(&cluster, all(), "a value of some bytes");
    foreground(&cluster, "warm-up", 5);
    foreground(&cluster, "all three there", 20);
    stop(&mut cluster, 3);
    import(&cluster, all(), "another, written while node 3 was away");
    foreground(&cluster, "one away", 10);
    start(&mut cluster, 3, cycle);
    cluster.await_all();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let cluster = &cluster;
        scope.spawn(move || foreground(cluster, "as it comes back", 20));
        // Every pair has compared everything since.
        let converged = wait_until(BOUND, || {
            ages(cluster).is_some_and(|age| Duration::from_secs(age as u64 + 1) < began.elapsed())
        });
        assert!(converged);
        let took = began.elapsed();
        let differing: i64 = (1..=NODES)
            .filter_map(|node| cluster.metric(node, "quorate_exchange_differing_keys_total"))
            .sum();
        println!(
            "{missed} writes missed: all compared after {took:.1?}, {differing} keys differed"
        );
    });
    let left = json(&cluster, &["repair", "-o", "json"]);
    println!("and then: {left}");
    foreground(&cluster, "afterwards", 10);
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn disk(cluster: &Cluster, when: &str) {
    let of = |node| bytes_below(&cluster.dir().join(format!("cluster/node-{node}/data")));
    let bytes: Vec<u64> = (1..=NODES).map(of).collect();
    println!("{when}: bytes on the disks {bytes:?}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn connect(cluster: &Cluster) -> Client {
    let config = ClientConfig::load(&cluster.client_config()).expect("init wrote it");
    Client::connect(config).await.expect("the nodes are ready")
}

fn evidence(cluster: &Cluster) -> u64 {
    let told = json(cluster, &["status", "-o", "json"]);
    let nodes = told["nodes"].as_array().expect("nodes");
    let of = |node: &Json| node["upkeep"]["evidence_keys"].as_u64().unwrap_or(u64::MAX);
    nodes.iter().map(of).max().unwrap_or(u64::MAX)
}

fn deletes(keys: u64) {
    let mut cluster = cluster("30s");
    let key = |number: u64| format!("user/{number:07}");
    import(&cluster, (0..keys).map(key), &"x".repeat(100));
    for node in 1..=NODES {
        stop(&mut cluster, node);
        start(&mut cluster, node, "30s");
        cluster.await_all();
    }
    disk(&cluster, "loaded");
    let began = Instant::now();
    runtime().block_on(async {
        let client = connect(&cluster).await;
        let mut tasks = JoinSet::new();
        for first in 0..IN_FLIGHT {
            let client = client.clone();
            tasks.spawn(async move {
                for number in (first..keys).step_by(IN_FLIGHT as usize) {
                    client.delete(BUCKET, key(number)).await.expect("deleted");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no task panics");
        }
    });
    println!("deleted in {:.1?}", began.elapsed());
    let forgotten = wait_until(BOUND, || evidence(&cluster) == 0);
    println!(
        "evidence forgotten: {forgotten}, after {:.1?}",
        began.elapsed()
    );
    let began = Instant::now();
    let listed = long(&cluster, &["list", BUCKET], BOUND);
    println!(
        "a list of {} bytes in {:.1?}",
        listed.len(),
        began.elapsed()
    );
    for minutes in 0..3 {
        disk(&cluster, &format!("{minutes} minutes later"));
        std::thread::sleep(Duration::from_secs(60));
    }
    for node in 1..=NODES {
        stop(&mut cluster, node);
        start(&mut cluster, node, "30s");
        cluster.await_all();
    }
    disk(&cluster, "after a restart of each");
}

fn hot(keys: u64) {
    let mut cluster = cluster("1d");
    stop(&mut cluster, 3);
    runtime().block_on(async {
        let client = connect(&cluster).await;
        let mut context = None;
        for number in 0..keys / 10 {
            let value = format!("{number:020}");
            let put = client.put(BUCKET, "hot", value).context(context.take());
            context = Some(put.await.expect("stored"));
        }
        println!(
            "a context of {} bytes",
            context.map_or(0, |context| context.len())
        );
    });
    start(&mut cluster, 3, "1d");
    cluster.await_all();
    println!("overwritten {} times, value of 20 bytes", keys / 10);
    for _ in 0..2 {
        println!("{}", json(&cluster, &["repair", "-o", "json"]));
    }
}
