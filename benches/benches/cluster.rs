//! What a request costs a whole cluster: three processes on this machine, loaded by `quorate bench`, with both durabilities side by side.
//!
//! ```text
//! cargo build --release && cargo bench -p quorate-benches --bench cluster
//! ```
//!
//! It measures the release binary as it lies there, and builds it only where there is none: hence the build before. Each load runs
//! for `BENCH_SECONDS` (5) after a second of warm-up, all in all about two and a half minutes. Data lies in a temporary directory:
//! `TMPDIR` says on which disk, which is what `fsync` measures. Nodes listen on the loopback interface alone, and are ended by their
//! process ids, also where something fails.
//!
//! CPU time is that of the processes, whatever else the machine does; latency and throughput suffer from whatever else it does, and
//! from the client and all three nodes sharing its cores.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use quorate_tests::{Cluster, Process, START_MAX, quorate, wait_until};
use serde_json::Value as Json;

const NODES: u16 = 3;
const DURABILITIES: [&str; 2] = ["os", "fsync"];
const IN_FLIGHT: &str = "1,16,64,256";
/// HTTP costs the same each time: one number shows it.
const IN_FLIGHT_HTTP: &str = "64";
const KINDS: [&str; 2] = ["put", "get"];
const SECONDS: u64 = 5;
const WARMUP: u64 = 1;
/// Beyond its own time, for starting, writing the keys that are read, and ending.
const SLACK: Duration = Duration::from_secs(60);

/// A node, ended when it is dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one load cost under one durability.
#[derive(Clone)]
struct Figures {
    load: String,
    servers_us: f64,
    client_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_second: f64,
    failed: u64,
}

fn main() {
    // Whoever compiles or lists all targets does not mean to run this one for minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with: cargo bench -p quorate-benches --bench cluster");
        return;
    }
    let seconds = match std::env::var("BENCH_SECONDS") {
        Err(_) => SECONDS,
        Ok(text) => text
            .parse()
            .expect("BENCH_SECONDS is a whole number of seconds"),
    };
    println!(
        "{}, {} cores, data in {}, {seconds} s a load",
        quorate().display(),
        std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        std::env::temp_dir().display()
    );
    let measured = DURABILITIES.map(|durability| measure(durability, seconds));
    print_table(&measured);
}

/// All loads on a cluster of its own.
fn measure(durability: &str, seconds: u64) -> Vec<Figures> {
    let cluster = Cluster::init(NODES);
    let nodes: Vec<Node> = (1..=NODES)
        .map(|number| start(&cluster, number, durability))
        .collect();
    for number in 1..=NODES {
        let timeout = format!("{}s", START_MAX.as_secs());
        let address = cluster.address(number);
        let ready = ["ready", "--endpoint", &address, "--timeout", &timeout];
        let done = cluster.cli(&ready);
        let log = fs::read_to_string(log(&cluster, number)).unwrap_or_default();
        assert_eq!(done.code, Some(0), "{}{log}", done.stderr);
    }
    let pids: Vec<String> = nodes.iter().map(|node| node.0.id().to_string()).collect();
    let urls: Vec<String> = (1..=NODES)
        .map(|number| format!("http://{}", cluster.address(number)))
        .collect();
    let mut figures = Vec::new();
    for (protocol, in_flight) in [("quic", IN_FLIGHT), ("http", IN_FLIGHT_HTTP)] {
        for kind in KINDS {
            eprintln!("{durability}: {kind} over {protocol}, {in_flight} in flight");
            let seconds_text = seconds.to_string();
            let warmup = WARMUP.to_string();
            let (pids, urls) = (pids.join(","), urls.join(","));
            let mut arguments = vec!["bench", "--mix", kind, "--in-flight", in_flight];
            arguments.extend(["--seconds", &seconds_text, "--warmup", &warmup]);
            arguments.extend(["--pids", &pids, "-o", "json"]);
            if protocol == "http" {
                arguments.extend(["--http", &urls]);
            }
            let runs = in_flight.split(',').count() as u64;
            let bound = Duration::from_secs(runs * (seconds + WARMUP)) + SLACK;
            let report = bench(&cluster, &arguments, bound);
            for run in report["runs"].as_array().expect("runs") {
                figures.push(Figures::of(protocol, kind, run));
            }
        }
    }
    figures
}

fn log(cluster: &Cluster, number: u16) -> PathBuf {
    cluster.dir().join(format!("node-{number}.log"))
}

/// Starts a node with a durability, and does not wait for it.
fn start(cluster: &Cluster, number: u16, durability: &str) -> Node {
    let log = log(cluster, number);
    let child = cluster
        .server(number)
        .env("QUORATE_DURABILITY", durability)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).expect("a log"))
        .spawn();
    Node(child.expect("the binary runs"))
}

/// Runs `quorate bench` to its end, within a bound.
fn bench(cluster: &Cluster, arguments: &[&str], bound: Duration) -> Json {
    let mut process = Process::start(&mut cluster.command(arguments), cluster.dir(), "bench");
    let status = process.ended(bound);
    assert!(status.success(), "{arguments:?}: {}", process.log());
    // The output is in a file, which is whole once the process is gone.
    let mut report = None;
    wait_until(Duration::from_secs(1), || {
        report = serde_json::from_str(&process.stdout()).ok();
        report.is_some()
    });
    report.expect("a report in JSON")
}

impl Figures {
    fn of(protocol: &str, kind: &str, run: &Json) -> Figures {
        let number = |pointer: &str| run.pointer(pointer).and_then(Json::as_f64);
        let expected = |pointer: &str| {
            number(pointer).unwrap_or_else(|| panic!("the report has no {pointer}: {run}"))
        };
        Figures {
            load: format!(
                "{kind:<4} {protocol} {:>4}",
                run["in_flight"].as_u64().unwrap_or(0)
            ),
            servers_us: expected("/cpu/servers_us_per_request"),
            client_us: expected("/cpu/client_us_per_request"),
            p50_ms: expected("/total/latency_ms/p50"),
            p99_ms: expected("/total/latency_ms/p99"),
            per_second: expected("/total/per_second"),
            failed: run["total"]["failed"].as_u64().unwrap_or(0),
        }
    }

    fn cells(&self) -> String {
        format!(
            "{:>9.1} {:>8.1} {:>8.2} {:>8.2} {:>8.0}",
            self.servers_us, self.client_us, self.p50_ms, self.p99_ms, self.per_second
        )
    }
}

fn print_table(measured: &[Vec<Figures>; 2]) {
    println!("\nµs of CPU a request, and latency in ms; 1 KiB values, 3 nodes, n=3\n");
    let heading = format!(
        "{:>9} {:>8} {:>8} {:>8} {:>8}",
        "servers", "client", "p50", "p99", "per s"
    );
    let width = heading.len();
    let [one, other] = DURABILITIES.map(|name| format!("{name:-^width$}"));
    println!("{:14} | {one} | {other}", "");
    println!("{:14} | {heading} | {heading}", "op, in flight");
    let [one, other] = measured;
    for (one, other) in one.iter().zip(other) {
        assert_eq!(
            one.load, other.load,
            "both durabilities have the same loads"
        );
        println!("{} | {} | {}", one.load, one.cells(), other.cells());
    }
    for (durability, figures) in DURABILITIES.iter().zip(measured) {
        for figure in figures.iter().filter(|figure| figure.failed > 0) {
            println!("{durability}, {}: {} failed", figure.load, figure.failed);
        }
    }
}
