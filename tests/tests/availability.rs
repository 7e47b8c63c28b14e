//! One node of three is killed, or falls silent: the others go on, and nobody waits for it.

use std::time::{Duration, Instant};

use quorate_tests::{Cluster, http};
use rustix::process::Signal;

/// The longest that a request may take while one node is silent. A silent node is left out within a second; the
/// rest is for a machine that is busy.
const SILENCE_MAX: Duration = Duration::from_secs(2);

#[test]
fn reads_and_writes_go_on_while_one_node_is_dead() {
    let mut cluster = Cluster::start(3);
    let agent = http();
    for number in 0..30 {
        let url = cluster.url(number % 3 + 1, "b", &format!("before-{number}"));
        assert_eq!(
            agent.put(&url).send("before").expect("an answer").status(),
            204
        );
    }
    cluster.kill_node(2);
    for number in 0..30 {
        let through = if number % 2 == 0 { 1 } else { 3 };
        let url = cluster.url(through, "b", &format!("before-{number}?r=2"));
        let mut answer = agent.get(&url).call().expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        assert_eq!(
            answer.body_mut().read_to_string().expect("a body"),
            "before"
        );
        let url = cluster.url(through, "b", &format!("after-{number}"));
        assert_eq!(
            agent.put(&url).send("after").expect("an answer").status(),
            204
        );
        // The client knows node 2's address and has to find out by itself that nobody is there.
        let key = format!("before-{number}");
        assert_eq!(
            cluster
                .cli(&["get", "b", &key, "--r", "2"])
                .expect(0)
                .text(),
            "before"
        );
    }
    // All three are asked for and two are there: refused, or unknown; but not answered.
    let answer = agent
        .get(cluster.url(1, "b", "before-0?r=3&timeout=2s"))
        .call()
        .expect("an answer");
    assert!([503, 504].contains(&answer.status().as_u16()), "{answer:?}");

    cluster.start_node(2);
    cluster.await_all();
    for number in 0..30 {
        let url = cluster.url(2, "b", &format!("after-{number}"));
        let mut answer = agent.get(&url).call().expect("an answer");
        assert_eq!(
            answer.body_mut().read_to_string().expect("a body"),
            "after",
            "{url}"
        );
    }
}

#[test]
fn nobody_waits_long_for_a_node_that_is_silent() {
    let mut cluster = Cluster::start(3);
    let agent = http();
    let mut slowest = Duration::ZERO;
    let mut ask = |cluster: &Cluster, round: &str, number: u16| {
        let url = cluster.url(
            [1, 3][usize::from(number % 2)],
            "b",
            &format!("{round}-{number}"),
        );
        let began = Instant::now();
        let put = agent.put(&url).send(round).expect("an answer").status();
        let took = began.elapsed();
        assert!(
            put == 204 && took <= SILENCE_MAX,
            "put {url}: {put} after {took:?}"
        );
        let mut answer = agent.get(&url).call().expect("an answer");
        let took = began.elapsed() - took;
        let status = answer.status();
        assert!(
            status == 200 && took <= SILENCE_MAX,
            "get {url}: {status} after {took:?}"
        );
        assert_eq!(answer.body_mut().read_to_string().expect("a body"), round);
        slowest = slowest.max(took);
    };
    for number in 0..20 {
        ask(&cluster, "before", number);
    }
    // Its sockets stay open and its kernel goes on acknowledging: nothing says that it is gone.
    cluster.node(2).signal(Signal::STOP);
    let stopped = Instant::now();
    let mut number = 0;
    while stopped.elapsed() < Duration::from_secs(6) {
        ask(&cluster, "silent", number);
        number += 1;
    }
    cluster.node(2).signal(Signal::CONT);
    cluster.await_all();
    for number in 0..20 {
        ask(&cluster, "after", number);
        let key = format!("silent-{}", number % 10);
        // It may find out only now that the others have given up its connections, and refuse until it has new ones.
        let url = cluster.url(2, "b", &key);
        let asked = Instant::now();
        let status = loop {
            let status = agent.get(&url).call().expect("an answer").status();
            if status != 503 || asked.elapsed() > SILENCE_MAX {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status, 200);
    }
    eprintln!("{number} puts and gets while one node was silent; the slowest get took {slowest:?}");
}
