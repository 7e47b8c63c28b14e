//! What requests take through two nodes of three while the third is paused, against all three healthy, in one run.
//!
//! ```text
//! cargo build -p quorate-cli && cargo run -p quorate-tests --example pause_latency -- [SECONDS] [PER_SECOND]
//! ```
//!
//! Requests come at a fixed rate, half of them puts and half gets, at nodes 1 and 3 in turn, over HTTP; and each is measured from when it
//! was due. So one that waits is not the reason why others are not asked, which would hide just what is looked for. Node 2 is stopped
//! (SIGSTOP): its sockets stay open, and nothing says that it is gone.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::{Cluster, http};
use rustix::process::Signal;

/// Requests that may be under way at a time: enough that at the usual rate all that are due are asked although each takes a second.
const WORKERS: usize = 300;
/// Keys that are read. Every put has a key of its own, since all go without a context.
const KEYS: u64 = 500;
/// The size of values.
const VALUE_BYTES: usize = 1024;
/// After these there are connections, and caches are warm.
const WARM_UP: Duration = Duration::from_secs(3);
/// What comes at once, apart from what comes then.
const AT_FIRST: Duration = Duration::from_secs(1);

/// One request.
struct Done {
    put: bool,
    due: Duration,
    took: Duration,
    well: bool,
}

/// What all workers share.
struct Load<'a> {
    /// `http://ADDRESS/v1/buckets/B/keys` of the nodes that are asked.
    nodes: &'a [String],
    value: &'a str,
    /// Between two requests.
    every: Duration,
    began: Instant,
    end: Duration,
    next: AtomicU64,
    done: Mutex<Vec<Done>>,
}

impl Load<'_> {
    /// Takes request after request until none is due any more.
    fn work(&self) {
        let agent = http();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.every.mul_f64(number as f64);
            if due >= self.end {
                return;
            }
            thread::sleep(due.saturating_sub(self.began.elapsed()));
            let put = number.is_multiple_of(2);
            let number = number / 2;
            let node = &self.nodes[number as usize % self.nodes.len()];
            let status = match put {
                true => agent.put(format!("{node}/put-{number}")).send(self.value),
                false => agent.get(format!("{node}/get-{}", number % KEYS)).call(),
            };
            // The answer to a get is here when its body is.
            let status = status.and_then(|mut answer| {
                let body = answer.body_mut().read_to_vec()?;
                Ok((answer.status().as_u16(), body.len()))
            });
            let well = match status {
                Ok(answer) if put => answer == (204, 0),
                Ok(answer) => answer == (200, VALUE_BYTES),
                Err(_) => false,
            };
            let took = self.began.elapsed().saturating_sub(due);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push(Done {
                put,
                due,
                took,
                well,
            });
        }
    }
}

fn main() {
    let mut arguments = env::args().skip(1).map(|text| match text.parse::<u64>() {
        Ok(number) => number,
        Err(_) => panic!("{text} is no number"),
    });
    let seconds = Duration::from_secs(arguments.next().unwrap_or(15));
    let rate = arguments.next().unwrap_or(400);
    let paused = WARM_UP + seconds;
    let continued = paused + seconds;
    let end = continued + seconds;

    let mut cluster = Cluster::start(3);
    let value = "x".repeat(VALUE_BYTES);
    let agent = http();
    for number in 0..KEYS {
        let url = cluster.url(1, "b", &format!("get-{number}?w=3"));
        let answer = agent.put(&url).send(&value).expect("an answer");
        assert_eq!(answer.status(), 204, "{url}");
    }
    let nodes =
        [1, 3].map(|number| format!("http://{}/v1/buckets/b/keys", cluster.address(number)));
    let load = Load {
        nodes: &nodes,
        value: &value,
        every: Duration::from_secs_f64(1.0 / rate as f64),
        began: Instant::now(),
        end,
        next: AtomicU64::new(0),
        done: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| load.work());
        }
        thread::sleep(paused.saturating_sub(load.began.elapsed()));
        cluster.node(2).signal(Signal::STOP);
        thread::sleep(continued.saturating_sub(load.began.elapsed()));
        cluster.node(2).signal(Signal::CONT);
    });

    let done = load
        .done
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    println!("{rate} requests a second, milliseconds from when each was due:");
    println!("| | puts | p50 | p99 | most | gets | p50 | p99 | most | not done |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, from, until) in [
        ("all three healthy", WARM_UP, paused),
        ("the first second of the pause", paused, paused + AT_FIRST),
        ("from then on", paused + AT_FIRST, continued),
        ("the first second after it", continued, continued + AT_FIRST),
        ("from then on", continued + AT_FIRST, end),
    ] {
        let of_phase = || done.iter().filter(|one| (from..until).contains(&one.due));
        let bad = of_phase().filter(|one| !one.well).count();
        let puts = describe(of_phase().filter(|one| one.put));
        let gets = describe(of_phase().filter(|one| !one.put));
        println!("| {name} | {puts} | {gets} | {bad} |");
    }
}

/// How many, and their latencies in milliseconds.
fn describe<'a>(requests: impl Iterator<Item = &'a Done>) -> String {
    let mut took: Vec<Duration> = requests.map(|one| one.took).collect();
    took.sort();
    let at = |share: f64| {
        let rank = (share * took.len() as f64).ceil() as usize;
        let took = took.get(rank.saturating_sub(1));
        took.map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    };
    let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
    format!("{} | {p50:.1} | {p99:.1} | {most:.0}", took.len())
}
