//! `quorate dev`: a whole cluster in one process, as HTTP clients and the CLI see it.

use std::process::Command;
use std::time::{Duration, Instant};

use quorate_tests::{Process, START_MAX, free_base_port, http, quorate, run, wait_until};
use rustix::process::Signal;

#[test]
fn a_cluster_in_one_process_serves_http_and_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    let base = free_base_port(3);
    let port = base + 1;
    let ours = |arguments: &[&str]| {
        let mut command = Command::new(quorate());
        command.args(arguments).env("XDG_STATE_HOME", &state);
        command
            .env_remove("QUORATE_CONFIG")
            .env_remove("QUORATE_ENDPOINT");
        command
    };
    let began = Instant::now();
    let mut dev = Process::start(
        &mut ours(&["dev", "--http-port", &port.to_string()]),
        dir.path(),
        "dev",
    );
    let url =
        |node: u16, key: &str| format!("http://127.0.0.1:{}/v1/buckets/b/keys/{key}", port + node);
    let agent = http();
    let stored = wait_until(START_MAX, || {
        agent
            .put(url(0, "first"))
            .send("1")
            .is_ok_and(|answer| answer.status() == 204)
    });
    assert!(
        stored,
        "no put was answered; dev said:\n{}{}",
        dev.stdout(),
        dev.log()
    );
    eprintln!(
        "from `quorate dev` to the first answered put: {:?}",
        began.elapsed()
    );

    // The first put needed one node's HTTP and a quorum; from here on every node is asked.
    for node in 0..3 {
        let ready = format!("http://127.0.0.1:{}/readyz", port + node);
        assert!(
            wait_until(START_MAX, || {
                let answer = agent.get(&ready).call();
                answer.is_ok_and(|answer| answer.status() == 200)
            }),
            "node {node} does not become ready; dev said:\n{}",
            dev.log()
        );
    }

    // Put, get, through different nodes.
    let context = |answer: &ureq::http::Response<ureq::Body>| {
        let header = answer.headers().get("quorate-context").expect("a context");
        header.to_str().expect("text").to_owned()
    };
    let body = |mut answer: ureq::http::Response<ureq::Body>| {
        answer.body_mut().read_to_string().expect("a body")
    };
    assert_eq!(
        agent.get(url(0, "k")).call().expect("an answer").status(),
        404
    );
    let put = agent
        .put(url(0, "k"))
        .content_type("text/plain")
        .send("milk")
        .expect("an answer");
    assert_eq!(put.status(), 204);
    let got = agent.get(url(1, "k")).call().expect("an answer");
    assert_eq!(got.status(), 200);
    assert_eq!(
        got.headers().get("content-type").expect("a type"),
        "text/plain"
    );
    assert_eq!(body(got), "milk");

    // A second put that had read nothing is a sibling; one with the context of both resolves.
    let _ = agent.put(url(1, "k")).send("eggs").expect("an answer");
    let siblings = agent.get(url(2, "k")).call().expect("an answer");
    assert_eq!(siblings.status(), 300);
    assert_eq!(
        siblings
            .headers()
            .get("quorate-siblings")
            .expect("a number"),
        "2"
    );
    let both = context(&siblings);
    let document: serde_json::Value = serde_json::from_str(&body(siblings)).expect("JSON");
    assert_eq!(
        document["siblings"].as_array().map(Vec::len),
        Some(2),
        "{document}"
    );
    let resolved = agent
        .put(url(0, "k"))
        .header("quorate-context", &both)
        .send("milk, eggs")
        .expect("an answer");
    assert_eq!(resolved.status(), 204);
    let got = agent.get(url(1, "k")).call().expect("an answer");
    assert_eq!(got.status(), 200);
    let read = context(&got);
    assert_eq!(body(got), "milk, eggs");

    // The CLI finds it without being told.
    let found = run(&mut ours(&["get", "b", "k"])).expect(0);
    assert_eq!(found.text(), "milk, eggs");
    let deleted = agent
        .delete(url(2, "k"))
        .header("quorate-context", &read)
        .call()
        .expect("an answer");
    assert_eq!(deleted.status(), 204);
    assert_eq!(
        agent.get(url(0, "k")).call().expect("an answer").status(),
        404
    );
    let _ = run(&mut ours(&["get", "b", "k"])).expect(3);

    // A put with the context that has been deleted since brings nothing back.
    let stale = agent
        .put(url(0, "k"))
        .header("quorate-context", &both)
        .send("again")
        .expect("an answer");
    assert_eq!(stale.status(), 204);
    assert_eq!(run(&mut ours(&["get", "b", "k"])).expect(0).text(), "again");

    dev.signal(Signal::TERM);
    let status = dev.ended(Duration::from_secs(20));
    assert!(status.success(), "{status}; dev said:\n{}", dev.log());
    assert!(dev.stdout().contains("curl"), "{}", dev.stdout());
    let gone = run(&mut ours(&["get", "b", "k"])).expect(2);
    assert!(gone.stderr.contains("quorate dev"), "{gone:?}");
}

#[test]
fn what_a_killed_dev_left_behind_is_no_cluster_and_its_data_stays() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state");
    let data = dir.path().join("data");
    let data = data.to_str().expect("a path in UTF-8");
    let ours = |arguments: &[&str]| {
        let mut command = Command::new(quorate());
        command.args(arguments).env("XDG_STATE_HOME", &state);
        command
            .env_remove("QUORATE_CONFIG")
            .env_remove("QUORATE_ENDPOINT");
        command
    };
    let dev = |name: &str| {
        let port = (free_base_port(3) + 1).to_string();
        Process::start(
            &mut ours(&["dev", "--data-dir", data, "--http-port", &port]),
            dir.path(),
            name,
        )
    };
    let mut first = dev("first");
    let found = wait_until(START_MAX, || {
        run(&mut ours(&["put", "b", "k", "kept"])).code == Some(0)
    });
    assert!(found, "dev said:\n{}", first.log());
    first.kill();
    let gone = run(&mut ours(&["get", "b", "k"])).expect(2);
    assert!(gone.stderr.contains("quorate dev"), "{gone:?}");

    let mut second = dev("second");
    let found = wait_until(START_MAX, || {
        run(&mut ours(&["ready", "--timeout", "1s"])).code == Some(0)
    });
    assert!(found, "dev said:\n{}", second.log());
    assert_eq!(run(&mut ours(&["get", "b", "k"])).expect(0).text(), "kept");
    second.signal(Signal::INT);
    assert!(second.ended(Duration::from_secs(20)).success());
}
