//! More requests than a node takes at a time: what is beyond its bounds is refused at once with a hint when to come again, and nothing else happens.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use quorate_tests::{Cluster, http, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// How many requests the node that is asked coordinates at one time, and how many clients ask it.
const REQUESTS_MAX: &str = "8";
const CLIENTS: usize = 48;
/// How long they do.
const LOAD: Duration = Duration::from_secs(4);
/// The longest that anybody waits for any answer: less than a request's own time. For a machine that is busy.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// What the process may come to use while it refuses.
const MEMORY_GROWN_MAX: i64 = 256 << 20;

/// What one phase of load came to.
#[derive(Default)]
struct Told {
    /// By status, and for what is refused the kind of problem.
    answers: BTreeMap<String, usize>,
    acknowledged: Vec<String>,
    slowest: Duration,
}

/// Every client puts keys of its own at node 1, as fast as it is answered.
fn load(cluster: &Cluster, phase: &str) -> Told {
    let told = Mutex::new(Told::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (told, cluster) = (&told, cluster);
            scope.spawn(move || {
                let agent = http();
                for number in 0.. {
                    if began.elapsed() >= LOAD {
                        return;
                    }
                    let key = format!("{phase}-{client}-{number}");
                    let asked = Instant::now();
                    let mut answer = agent
                        .put(cluster.url(1, "b", &key))
                        .send(&key)
                        .expect("an answer");
                    let took = asked.elapsed();
                    let status = answer.status().as_u16();
                    let mut what = status.to_string();
                    if status != 204 {
                        let retry = answer.headers().get("retry-after").cloned();
                        let text = answer.body_mut().read_to_string().expect("text");
                        let problem: Value = serde_json::from_str(&text).expect("a problem");
                        let hint = retry.map_or("no hint".to_owned(), |retry| {
                            format!("after {}", retry.to_str().expect("text"))
                        });
                        let kind = problem["type"].as_str().unwrap_or("no type");
                        what = format!("{what} {kind} {hint}");
                    }
                    let mut told = told.lock().expect("no panic under this lock");
                    *told.answers.entry(what).or_default() += 1;
                    told.slowest = told.slowest.max(took);
                    if status == 204 {
                        told.acknowledged.push(key);
                    }
                }
            });
        }
    });
    told.into_inner().expect("no panic under this lock")
}

/// Some were served, some were told to come later, and nobody was told anything else.
fn assert_refused_or_done(phase: &str, told: &Told) {
    println!("{phase}: {:?}, slowest {:?}", told.answers, told.slowest);
    let refused = "503 urn:quorate:problem:overloaded after 1";
    let kinds: Vec<&str> = told.answers.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["204", refused], "{phase}");
    assert!(told.slowest < ANSWER_MAX, "{phase}: {:?}", told.slowest);
}

fn memory(cluster: &Cluster, node: u16) -> i64 {
    let url = format!("http://{}/metrics", cluster.address(node));
    let mut reply = http().get(&url).call().expect("an answer");
    let text = reply.body_mut().read_to_string().expect("text");
    let name = "quorate_process_resident_memory_bytes ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("it tells").parse().expect("a number")
}

#[test]
fn what_is_too_much_is_refused_at_once_and_what_was_acknowledged_stays() {
    let mut cluster = Cluster::init(3);
    for node in 1..=3 {
        let mut server = cluster.server(node);
        if node == 1 {
            server.env("QUORATE_REQUESTS_MAX", REQUESTS_MAX);
        }
        cluster.start_node_as(node, &mut server);
    }
    cluster.await_all();
    let before = memory(&cluster, 1);

    let healthy = load(&cluster, "healthy");
    assert_refused_or_done("healthy", &healthy);
    // The same while a replica does not answer: requests take longer, and their number is bounded all the same.
    cluster.node(3).signal(Signal::STOP);
    let paused = load(&cluster, "paused");
    cluster.node(3).signal(Signal::CONT);
    assert_refused_or_done("paused", &paused);
    let grown = memory(&cluster, 1) - before;
    assert!(grown < MEMORY_GROWN_MAX, "grown by {grown} bytes");

    // With the load gone everything is served at once, and all that was acknowledged is there.
    cluster.await_all();
    let agent = http();
    let url = cluster.url(1, "b", "afterwards");
    assert_eq!(agent.put(&url).send("v").expect("an answer").status(), 204);
    for key in healthy.acknowledged.iter().chain(&paused.acknowledged) {
        let url = format!("{}?r=2", cluster.url(2, "b", key));
        let mut answer = agent.get(&url).call().expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        assert_eq!(answer.body_mut().read_to_string().expect("text"), *key);
    }
    // That a node is busy is no reason to keep anything for it; what was kept for the one that was silent is handed over.
    let handed_over = wait_until(Duration::from_secs(60), || {
        let address = cluster.address(1);
        let told = cluster.cli(&["status", "-o", "json", "--endpoint", &address]);
        let told = told.expect(0).json();
        let mut nodes = told["nodes"].as_array().expect("nodes").iter();
        nodes.all(|node| node["hints"].as_array().is_none_or(Vec::is_empty))
    });
    assert!(handed_over, "hints are left");
}
