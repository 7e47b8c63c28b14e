//! What operators do and see: status, logs that belong together, limits of the machine, completions and manual pages.

use std::fs;
use std::process::Command;
use std::time::Duration;

use quorate_tests::{Cluster, Process, http, quorate, run, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// For what takes a moment on a quiet machine.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn status_shows_the_nodes_and_says_what_is_wrong() {
    let mut cluster = Cluster::start(3);
    assert!(wait_until(SOON, || cluster
        .cli(&["status", "--check"])
        .code
        == Some(0)));
    let well = cluster.cli(&["status"]).expect(0);
    for word in [
        "node-1",
        "node-2",
        "node-3",
        "SHARE",
        "33.3%",
        "All is well.",
    ] {
        assert!(well.text().contains(word), "{word}: {well:?}");
    }
    assert!(well.text().contains(&cluster.address(2)), "{well:?}");
    let json = cluster.cli(&["status", "-o", "json"]).expect(0).json();
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(3), "{json}");
    assert_eq!(json["concerns"], serde_json::json!([]));
    let asked = cluster.cli(&["status", "-o", "json", "--endpoint", &cluster.address(3)]);
    assert_eq!(asked.expect(0).json()["answered_by"], "node-3");

    cluster.kill_node(3);
    let one = cluster.address(1);
    assert!(wait_until(SOON, || {
        cluster.cli(&["status", "--endpoint", &one, "--check"]).code == Some(1)
    }));
    let down = cluster.cli(&["status", "--endpoint", &one]).expect(0);
    assert!(
        down.text().contains("! node-3 does not answer node-1"),
        "{down:?}"
    );
    assert!(!down.text().contains("All is well"), "{down:?}");
    // A minority still tells.
    cluster.kill_node(2);
    assert!(wait_until(SOON, || {
        let alone = cluster.cli(&["status", "--endpoint", &one]).expect(0);
        alone.text().contains("! node-1 is not ready")
            && alone.text().contains("! node-2 does not answer")
    }));
    cluster.kill_node(1);
    let nobody = cluster.cli(&["status", "--endpoint", &one]).expect(1);
    assert!(nobody.stderr.contains(&one), "{nobody:?}");
}

/// The lines of a log that are about a request.
fn lines_about(process: &Process, id: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().filter(|line| line.contains(id));
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    lines.map(parse).collect()
}

#[test]
fn one_id_is_in_the_logs_of_every_node_that_had_to_do_with_a_request() {
    let cluster = Cluster::init(3);
    let nodes: Vec<Process> = (1..=3)
        .map(|number| {
            let mut server = cluster.server(number);
            server.args(["--log", "debug", "--slow-request", "1us"]);
            server.env("QUORATE_LOG_FORMAT", "json");
            Process::start(&mut server, cluster.dir(), &format!("node-{number}"))
        })
        .collect();
    let url = format!("{}?w=3", cluster.url(1, "b", "secret-key"));
    let mut id = String::new();
    assert!(wait_until(SOON, || {
        let Ok(reply) = http().put(&url).send("x") else {
            return false;
        };
        let header = reply.headers().get("quorate-request-id");
        id = header
            .expect("every response has it")
            .to_str()
            .expect("text")
            .to_owned();
        reply.status() == 204
    }));
    assert_eq!(id.len(), 32, "{id}");
    let messages = |lines: &[Value]| -> Vec<String> {
        lines
            .iter()
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let has = |process: &Process, expected: &[&str]| {
        let told = messages(&lines_about(process, &id));
        expected
            .iter()
            .all(|message| told.iter().any(|line| line == message))
    };
    let coordinator = [
        "a client asks",
        "asks a node",
        "a replica answers",
        "done",
        "answered",
        "a slow request",
    ];
    assert!(
        wait_until(SOON, || has(&nodes[0], &coordinator)),
        "{:#?}",
        lines_about(&nodes[0], &id)
    );
    for replica in &nodes[1..] {
        assert!(
            wait_until(SOON, || has(replica, &["a node asks", "answers a node"])),
            "{:#?}",
            lines_about(replica, &id)
        );
    }
    let lines = lines_about(&nodes[0], &id);
    let slow = lines
        .iter()
        .find(|line| line["message"] == "a slow request")
        .expect("one");
    assert_eq!(
        (&slow["operation"], &slow["outcome"]),
        (&"put".into(), &"Stored".into())
    );
    assert_eq!(
        (&slow["bucket"], &slow["key_bytes"]),
        (&"b".into(), &10.into())
    );
    assert_eq!(slow["key"], "secret-key", "debugging is on");
    for node in ["node-1", "node-2", "node-3"] {
        let replicas = slow["replicas"].as_str().expect("text");
        assert!(replicas.contains(&format!("{node}=")), "{slow}");
    }
    // Every line of a JSON log is JSON.
    for line in nodes[0].log().lines() {
        let _: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn slow_requests_are_logged_without_their_keys_and_not_without_bound() {
    let mut cluster = Cluster::init(1);
    let mut server = cluster.server(1);
    let node = Process::start(
        server.args(["--slow-request", "1us"]),
        cluster.dir(),
        "slow",
    );
    let address = cluster.address(1);
    let _ = cluster
        .cli(&["ready", "--endpoint", &address, "--timeout", "60s"])
        .expect(0);
    for number in 0..40 {
        let url = cluster.url(1, "b", &format!("secret-{number}"));
        assert_eq!(http().put(&url).send("x").expect("an answer").status(), 204);
    }
    let log = node.log();
    let slow = log
        .lines()
        .filter(|line| line.contains("a slow request"))
        .count();
    assert!((10..=30).contains(&slow), "{slow} lines:\n{log}");
    assert!(log.contains("key_bytes=8"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    drop(node);
    // By default nothing of a healthy node is slow.
    cluster.start_node(1);
    cluster.await_all();
    let _ = cluster.cli(&["put", "b", "k", "v", "--w", "1"]).expect(0);
    cluster.node(1).signal(Signal::TERM);
    assert!(cluster.node(1).ended(Duration::from_secs(20)).success());
}

#[test]
fn how_a_log_is_written_is_checked_like_any_key() {
    let cluster = Cluster::init(1);
    let wrong = run(cluster.server(1).args(["--log-format", "xml"])).expect(1);
    assert!(
        wrong.stderr.contains("log_format = \"xml\"") && wrong.stderr.contains("json"),
        "{wrong:?}"
    );
    let wrong = run(cluster.server(1).env("QUORATE_SLOW_REQUEST", "soon")).expect(1);
    assert!(
        wrong.stderr.contains("QUORATE_SLOW_REQUEST") && wrong.stderr.contains("250ms"),
        "{wrong:?}"
    );
    let wrong = run(cluster.server(1).args(["--disk-reserve", "half"])).expect(1);
    assert!(
        wrong.stderr.contains("disk_reserve") && wrong.stderr.contains("5%"),
        "{wrong:?}"
    );
    let checked = run(cluster
        .server(1)
        .args(["--check-config", "--disk-reserve", "7%"]))
    .expect(0);
    assert!(checked.text().contains("7%"), "{checked:?}");
    let wrong = run(Command::new(quorate()).args(["dev", "--log-format", "xml"])).expect(2);
    assert!(wrong.stderr.contains("json"), "{wrong:?}");
}

#[test]
fn a_dev_cluster_can_log_json_as_well() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut dev = Command::new(quorate());
    dev.args([
        "dev",
        "--http-port",
        "0",
        "--log",
        "info",
        "--log-format",
        "json",
    ]);
    dev.env("XDG_STATE_HOME", dir.path());
    let mut dev = Process::start(&mut dev, dir.path(), "dev");
    assert!(
        wait_until(SOON, || dev.log().matches("\"started\"").count() == 3),
        "{}",
        dev.log()
    );
    for line in dev.log().lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
    dev.signal(Signal::TERM);
    assert!(dev.ended(Duration::from_secs(20)).success());
}

#[test]
fn too_few_open_files_are_refused_with_the_number_that_is_needed() {
    let cluster = Cluster::init(1);
    let server = cluster.server(1);
    let limited = |limits: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limits}; exec \"$@\""), "sh"]);
        shell.arg(server.get_program()).args(server.get_args());
        shell
    };
    let refused = run(&mut limited("ulimit -n 500")).expect(1);
    assert!(
        refused.stderr.contains("500") && refused.stderr.contains("1024"),
        "{refused:?}"
    );
    assert!(
        !cluster.dir().join("cluster/node-1/data").exists(),
        "nothing was made"
    );
    // Where only the soft limit is low, the node raises it.
    let mut node = Process::start(&mut limited("ulimit -S -n 500"), cluster.dir(), "soft");
    let address = cluster.address(1);
    let _ = cluster
        .cli(&["ready", "--endpoint", &address, "--timeout", "60s"])
        .expect(0);
    node.signal(Signal::TERM);
    assert!(node.ended(Duration::from_secs(20)).success());
}

#[test]
fn shells_and_man_are_served() {
    let bare = |arguments: &[&str]| run(Command::new(quorate()).args(arguments));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = bare(&["completions", shell]).expect(0);
        for word in ["status", "--endpoint", "check-config"] {
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(script.text().contains(word), "{shell}: {word}");
        }
    }
    let _ = bare(&["completions", "cmd"]).expect(2);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = dir.path().join("quorate.bash");
    fs::write(&script, bare(&["completions", "bash"]).expect(0).stdout).expect("a file");
    let completed = run(Command::new("bash").arg("-c").arg(format!(
        "set -e; source {}; COMP_WORDS=(quorate stat); COMP_CWORD=1; _quorate quorate stat quorate; echo ${{COMPREPLY[@]}}",
        script.display()
    )))
    .expect(0);
    assert_eq!(completed.text(), "status\n");

    let page = bare(&["man"]).expect(0);
    assert!(page.text().contains(".TH quorate 1"), "{page:?}");
    let pages = dir.path().join("man/man1");
    let text = pages.to_str().expect("UTF-8");
    let written = bare(&["man", "--dir", text, "-o", "json"]).expect(0).json();
    assert!(
        written["pages"].as_array().map_or(0, Vec::len) > 10,
        "{written}"
    );
    for name in ["quorate.1", "quorate-server.1", "quorate-status.1"] {
        let page = fs::read_to_string(pages.join(name)).expect(name);
        assert!(
            page.contains(".TH quorate") && page.contains("Quorate") || page.contains("quorate"),
            "{name}"
        );
    }
    let server = fs::read_to_string(pages.join("quorate-server.1")).expect("a page");
    assert!(
        server.contains("disk") && server.contains("QUORATE_DISK_RESERVE"),
        "keys are in the manual"
    );
}
