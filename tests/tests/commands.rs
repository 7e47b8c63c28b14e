//! The contract of the command line: exit codes, what is printed, and what is refused.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_tests::{Cluster, Done, Process, free_base_port, quorate, run};
use rustix::process::Signal;

fn bare(arguments: &[&str]) -> Done {
    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(quorate());
    command
        .args(arguments)
        .env("XDG_STATE_HOME", nowhere.path());
    command
        .env_remove("QUORATE_CONFIG")
        .env_remove("QUORATE_ENDPOINT");
    run(&mut command)
}

#[test]
fn a_key_is_put_read_resolved_and_deleted() {
    let cluster = Cluster::start(3);
    let cli = |arguments: &[&str]| cluster.cli(arguments);

    assert!(cli(&["get", "b", "k"]).expect(3).stdout.is_empty());
    assert_eq!(
        cli(&["get", "b", "k", "-o", "json"]).expect(3).json()["siblings"],
        serde_json::json!([])
    );
    assert!(cli(&["put", "b", "k", "first"]).expect(0).stdout.is_empty());
    assert_eq!(cli(&["get", "b", "k"]).expect(0).stdout, b"first");

    // Without a context: a sibling.
    let _ = cli(&[
        "put",
        "b",
        "k",
        "second",
        "--w",
        "all",
        "--content-type",
        "text/plain",
        "--meta",
        "by=me",
    ])
    .expect(0);
    let table = cli(&["get", "b", "k"]).expect(0);
    assert!(
        table.text().contains("first") && table.text().contains("second"),
        "{table:?}"
    );
    assert!(table.stderr.contains("--context"), "{table:?}");
    let shown = cli(&["get", "b", "k", "-o", "json"]).expect(0).json();
    let siblings = shown["siblings"].as_array().expect("a list");
    assert_eq!(siblings.len(), 2, "{shown}");
    let second = siblings
        .iter()
        .find(|s| s["value"] == "second")
        .expect("the second is there");
    assert_eq!(second["value_base64"], "c2Vjb25k");
    assert_eq!(second["content_type"], "text/plain");
    assert_eq!(second["meta"]["by"], "me");
    let _ = cli(&["get", "b", "k", "--file", "/dev/null"]).expect(1);

    // With the context of both: neither is left.
    let context = shown["context"].as_str().expect("a context");
    let stored = cli(&["put", "b", "k", "both", "--context", context, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(cli(&["get", "b", "k"]).expect(0).stdout, b"both");
    let stale = cli(&["delete", "b", "k", "--context", context]).expect(0);
    assert!(stale.stdout.is_empty());
    assert_eq!(
        cli(&["get", "b", "k"]).expect(0).stdout,
        b"both",
        "a delete removes what its context names"
    );
    let context = stored["context"].as_str().expect("a context");
    let deleted = cli(&["delete", "b", "k", "--context", context, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(deleted["deleted"], true);
    let _ = cli(&["get", "b", "k"]).expect(3);

    // Bytes that are not text, from a file and from standard input.
    let bytes: Vec<u8> = (0..=255).collect();
    let file = cluster.dir().join("bytes");
    fs::write(&file, &bytes).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    let _ = cli(&["put", "b", "file", "--file", file]).expect(0);
    assert_eq!(cli(&["get", "b", "file"]).expect(0).stdout, bytes);
    let copy = cluster.dir().join("copy");
    let _ = cli(&[
        "get",
        "b",
        "file",
        "--file",
        copy.to_str().expect("a path in UTF-8"),
    ])
    .expect(0);
    assert_eq!(fs::read(&copy).expect("it was written"), bytes);
    let mut put = cluster
        .command(&["put", "b", "stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    put.stdin
        .take()
        .expect("a pipe")
        .write_all(&bytes)
        .expect("it reads");
    assert!(put.wait().expect("it ends").success());
    assert_eq!(cli(&["get", "b", "stdin"]).expect(0).stdout, bytes);
    let _ = cli(&["put", "b", "empty", ""]).expect(0);
    assert_eq!(cli(&["get", "b", "empty"]).expect(0).stdout, b"");

    // Refused by the cluster: 1. Not understood: 2.
    let refused = cli(&["put", "b", "k", "v", "--w", "4"]).expect(1);
    assert!(refused.stderr.starts_with("error: "), "{refused:?}");
    let _ = cli(&["put", "b", "k", "v", "--context", "AAAA"]).expect(1);
    let _ = cli(&["put", "b", "k", "v", "--context", "no base64!"]).expect(2);
    let _ = cli(&["put", "b", "k", "v", "--w", "most"]).expect(2);
    let _ = cli(&["get", "b", "k", "--timeout", "5"]).expect(2);
    let _ = cli(&["get", "b", &"k".repeat(1025)]).expect(1);

    // Over HTTP it is the same store.
    let mut answer = quorate_tests::http()
        .get(cluster.url(2, "b", "file"))
        .call()
        .expect("an answer");
    assert_eq!(answer.body_mut().read_to_vec().expect("a body"), bytes);
    let ready = cli(&["ready", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&ready["nodes"], &ready["layout_version"]),
        (&3.into(), &1.into())
    );
}

#[test]
fn directories_are_imported_once_and_verified() {
    let cluster = Cluster::start(3);
    let tree = cluster.dir().join("tree");
    fs::create_dir_all(tree.join("a/b")).expect("a directory");
    fs::write(tree.join("a/b/lib.rs"), "fn main() {}").expect("a file");
    fs::write(tree.join("a/empty"), "").expect("a file");
    fs::write(tree.join("million"), vec![7u8; 1_000_000]).expect("a file");
    fs::write(tree.join("huge"), vec![7u8; 8 * 1024 * 1024 + 1]).expect("a file");
    symlink("a", tree.join("link")).expect("a link");
    let tree = tree.to_str().expect("a path in UTF-8");
    let named = format!("copy={tree}/a");
    let json = |arguments: &[&str], code| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        cluster.cli(&arguments).expect(code).json()
    };

    let import = ["import", "--dir", tree, "--dir", &named, "files"];
    let first = json(&import, 0);
    assert_eq!(
        (&first["stored"], &first["unchanged"]),
        (&5.into(), &0.into()),
        "{first}"
    );
    let skipped = &first["exceptions"]["skipped"];
    assert_eq!(
        (&skipped["value_too_large"], &skipped["symlink"]),
        (&1.into(), &1.into()),
        "{first}"
    );
    let again = json(&import, 0);
    assert_eq!(
        (&again["stored"], &again["unchanged"]),
        (&0.into(), &5.into()),
        "{again}"
    );
    assert_eq!(
        cluster
            .cli(&["get", "files", "copy/b/lib.rs"])
            .expect(0)
            .stdout,
        b"fn main() {}"
    );
    assert_eq!(
        cluster.cli(&["get", "files", "a/empty"]).expect(0).stdout,
        b""
    );
    let shown = json(&["get", "files", "a/b/lib.rs"], 0);
    assert_eq!(
        shown["siblings"].as_array().map(Vec::len),
        Some(1),
        "{shown}"
    );
    assert_eq!(shown["siblings"][0]["content_type"], "text/plain");

    let verify = [
        "verify", "--dir", tree, "--dir", &named, "files", "--r", "2",
    ];
    assert_eq!(json(&verify, 0)["intact"], 5);
    fs::write(Path::new(tree).join("a/empty"), "no longer").expect("a file");
    let wrong = json(&verify, 1);
    assert_eq!(
        (&wrong["intact"], &wrong["exceptions"]["failed"]),
        (&3.into(), &2.into()),
        "{wrong}"
    );
    // What has changed replaces what was there.
    assert_eq!(json(&import, 0)["stored"], 2);
    assert_eq!(json(&verify, 0)["intact"], 5);

    let _ = cluster
        .cli(&["import", "--dir", "/nonexistent", "files"])
        .expect(1);
    let _ = cluster.cli(&["import", "--dir", tree]).expect(2);
}

#[test]
fn wrong_usage_exits_2_and_help_is_everywhere() {
    for command in [
        "dev",
        "init",
        "server",
        "ready",
        "status",
        "get",
        "put",
        "delete",
        "list",
        "import",
        "export",
        "verify",
        "sim",
        "completions",
        "man",
    ] {
        let help = bare(&[command, "--help"]).expect(0);
        assert!(help.text().contains("Usage: quorate"), "{help:?}");
        let _ = bare(&[command, "--no-such-flag"]).expect(2);
    }
    let version = bare(&["--version"]).expect(0);
    assert!(version.text().starts_with("quorate "), "{version:?}");
    let _ = bare(&[]).expect(2);
    let _ = bare(&["frobnicate"]).expect(2);

    let none = bare(&["get", "b", "k"]).expect(2);
    assert!(
        none.stderr.contains("quorate dev") && none.stderr.contains("QUORATE_CONFIG"),
        "{none:?}"
    );
    let missing = bare(&["get", "b", "k", "--config", "/nonexistent/client.toml"]).expect(1);
    assert!(
        missing.stderr.contains("/nonexistent/client.toml"),
        "{missing:?}"
    );
    let _ = bare(&["ready", "--timeout", "200ms"]).expect(2);
}

#[test]
fn a_cluster_is_made_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().join("c");
    let dir = dir.to_str().expect("a path in UTF-8");
    let base = free_base_port(3);
    let base_text = base.to_string();
    let made = bare(&["init", dir, "--base-port", &base_text, "-o", "json"])
        .expect(0)
        .json();
    let nodes = made["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for (number, node) in (1u16..).zip(nodes) {
        let address = format!("127.0.0.1:{}", base + number);
        assert_eq!(
            (&node["quic"], &node["http"]),
            (&address.as_str().into(), &address.as_str().into())
        );
        assert!(Path::new(node["config"].as_str().expect("a path")).is_file());
        assert!(node["data_dir"].is_string() && node["id"].is_string());
    }
    let before = fs::read(Path::new(dir).join("layout.json")).expect("a layout");
    let again = bare(&["init", dir, "--base-port", &base_text]).expect(1);
    assert!(again.stderr.contains(dir), "{again:?}");
    assert_eq!(
        fs::read(Path::new(dir).join("layout.json")).expect("a layout"),
        before,
        "nothing was changed"
    );
    let _ = bare(&["init", &format!("{dir}-2"), "--nodes", "0"]).expect(1);
}

#[test]
fn a_node_that_cannot_run_says_why() {
    let mut cluster = Cluster::init(1);
    let config = cluster.node_config(1);

    let checked = run(cluster.server(1).arg("--check-config")).expect(0);
    assert!(checked.text().contains("node-1"), "{checked:?}");
    let wrong = run(cluster.server(1).args(["--durability", "maybe"])).expect(1);
    assert!(
        wrong.stderr.contains("durability") && wrong.stderr.contains("maybe"),
        "{wrong:?}"
    );
    let wrong = run(cluster
        .server(1)
        .arg("--check-config")
        .env("QUORATE_SIBLINGS_MAX", "0"))
    .expect(1);
    assert!(wrong.stderr.contains("QUORATE_SIBLINGS_MAX"), "{wrong:?}");

    let sound = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, format!("durabilty = \"os\"\n{sound}")).expect("a configuration");
    let typo = run(&mut cluster.server(1)).expect(1);
    assert!(
        typo.stderr.contains("durabilty") && typo.stderr.contains("durability"),
        "{typo:?}"
    );
    fs::write(&config, &sound).expect("a configuration");

    // Somebody else is on its port.
    let occupied = TcpListener::bind(cluster.address(1)).expect("the port is free");
    let port = run(&mut cluster.server(1)).expect(1);
    assert!(port.stderr.contains(&cluster.address(1)), "{port:?}");
    drop(occupied);

    cluster.start_node(1);
    cluster.await_all();
    // A second process on the same directory, and on ports of its own.
    let base = free_base_port(2);
    let (quic, http) = (
        format!("127.0.0.1:{}", base + 1),
        format!("127.0.0.1:{}", base + 2),
    );
    let second = run(cluster
        .server(1)
        .args(["--quic-listen", &quic, "--http-listen", &http]))
    .expect(1);
    assert!(second.stderr.contains("data"), "{second:?}");
    assert_eq!(
        cluster
            .cli(&["put", "b", "k", "v", "--w", "1"])
            .expect(0)
            .code,
        Some(0),
        "the first one goes on"
    );

    cluster.node(1).signal(Signal::TERM);
    let status = cluster.node(1).ended(Duration::from_secs(20));
    assert!(status.success(), "{status}");
    cluster.start_node(1);
    cluster.await_all();
    assert_eq!(cluster.cli(&["get", "b", "k"]).expect(0).stdout, b"v");
}

#[test]
fn a_node_ends_on_either_signal_also_while_it_waits_for_others() {
    for signal in [Signal::TERM, Signal::INT] {
        let cluster = Cluster::init(3);
        let mut alone = Process::start(&mut cluster.server(2), cluster.dir(), "alone");
        let address = cluster.address(2);
        let _ = cluster
            .cli(&["ready", "--endpoint", &address, "--timeout", "60s"])
            .expect(0);
        alone.signal(signal);
        let status = alone.ended(Duration::from_secs(20));
        assert!(status.success(), "{signal:?}: {status}");
    }
}
