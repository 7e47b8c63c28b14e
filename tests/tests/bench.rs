//! The load generator against real processes: it measures what happened, and leaves nothing behind that it should not.

use std::fs;
use std::process::Command;

use quorate_tests::{Cluster, Done, quorate, run};

/// What all loads here have in common: short, and few keys.
const SHORT: [&str; 7] = [
    "bench",
    "--seconds",
    "1",
    "--warmup",
    "0.2",
    "--keys",
    "300",
];

fn bench(cluster: &Cluster, arguments: &[&str]) -> Done {
    let arguments = [&SHORT[..], arguments].concat();
    cluster.cli(&arguments)
}

#[test]
fn loads_of_each_kind_are_measured() {
    let cluster = Cluster::start(3);
    let plot = cluster.dir().join("plot.svg");
    let file = cluster.dir().join("report.json");
    let own = std::process::id().to_string();

    let table = bench(
        &cluster,
        &[
            "--in-flight",
            "1,8",
            "--pids",
            &own,
            "--report",
            file.to_str().expect("a path"),
            "--plot",
            plot.to_str().expect("a path"),
        ],
    )
    .expect(0);
    let rows: Vec<&str> = table.text().lines().collect();
    assert_eq!(rows.len(), 1 + 2 * 3, "{table:?}");
    assert!(rows[1].starts_with("1 in flight"), "{table:?}");
    assert!(
        fs::read_to_string(&plot)
            .expect("a plot")
            .starts_with("<svg")
    );
    let report = fs::read(&file).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    for run in runs {
        for kind in ["put", "get"] {
            let of = &run["operations"][kind];
            assert!(of["count"].as_u64() > Some(0), "{run}");
            assert_eq!(
                (&of["failed"], &of["absent"]),
                (&0.into(), &0.into()),
                "{run}"
            );
            let p50 = of["latency_ms"]["p50"].as_f64().expect("a latency");
            assert!(p50 > 0.0 && p50 <= of["latency_ms"]["max"].as_f64().unwrap_or(0.0));
        }
        assert!(run["cpu"]["client_us_per_request"].as_f64() > Some(0.0));
        assert_eq!(run["cpu"]["servers"].as_array().map(Vec::len), Some(1));
    }

    // An open loop asks what is due and no more.
    let open = bench(
        &cluster,
        &["--rate", "100", "--arrivals", "poisson", "-o", "json"],
    );
    let open = open.expect(0).json();
    let asked = open["runs"][0]["total"]["count"].as_u64().expect("a count");
    assert!((50..160).contains(&asked), "{asked}");
    assert_eq!(open["runs"][0]["latency_from"], "the request was due");
}

#[test]
fn overwriting_leaves_no_siblings_also_over_http() {
    let cluster = Cluster::start(3);
    let urls: Vec<String> = (1..=3)
        .map(|n| format!("http://{}", cluster.address(n)))
        .collect();
    let urls = urls.join(",");
    let overwrite = [
        "--overwrite",
        "--distribution",
        "zipf:1.5",
        "--mix",
        "4:3:1",
        "-o",
        "json",
    ];
    // A bucket of its own for each: what a run has sent last and no longer waits for may arrive after the next has read
    // its contexts, and would stand beside what that puts.
    for (bucket, http) in [("native", &[][..]), ("over-http", &["--http", &urls])] {
        let report = bench(
            &cluster,
            &[&overwrite[..], &["--bucket", bucket], http].concat(),
        );
        let run = report.expect(0).json()["runs"][0].clone();
        let total = &run["total"];
        assert_eq!(
            (&total["failed"], &total["with_siblings"]),
            (&0.into(), &0.into()),
            "{run}"
        );
        for kind in ["put", "get", "delete"] {
            assert!(run["operations"][kind]["count"].as_u64() > Some(0), "{run}");
        }
    }
    // Deletes of what the run itself has put; a bound on requests; the exit code.
    let fresh = [
        "--mix",
        "2:1:1",
        "--requests",
        "200",
        "-o",
        "json",
        "--http",
        &urls,
    ];
    let run = bench(&cluster, &fresh).expect(0).json()["runs"][0].clone();
    assert_eq!(run["total"]["count"], 200, "{run}");
    assert_eq!(run["total"]["failed"], 0, "{run}");
}

#[test]
fn what_fails_is_told_by_kind() {
    let cluster = Cluster::start(3);
    let failing = bench(&cluster, &["--mix", "put", "--w", "9", "-o", "json"]).expect(1);
    let failures = &failing.json()["runs"][0]["total"]["failures"];
    assert_eq!(failures[0]["kind"], "refused: impossible", "{failing:?}");
    assert!(
        failures[0]["example"]
            .as_str()
            .unwrap_or("")
            .contains("w=9"),
        "{failing:?}"
    );
    assert!(
        failing.stderr.contains("no request succeeded"),
        "{failing:?}"
    );

    let url = format!("http://{}", cluster.address(1));
    let failing = ["--mix", "put", "--w", "9", "-o", "json", "--http", &url];
    let failing = bench(&cluster, &failing).expect(1);
    let failures = &failing.json()["runs"][0]["total"]["failures"];
    assert_eq!(failures[0]["kind"], "refused: impossible", "{failing:?}");

    let missing = [
        "--mix",
        "get",
        "--preload=no",
        "--bucket",
        "empty",
        "-o",
        "json",
    ];
    let missing = bench(&cluster, &missing).expect(0);
    let get = &missing.json()["runs"][0]["operations"]["get"];
    assert_eq!(get["absent"], get["count"], "{missing:?}");
    assert!(missing.stderr.contains("--preload"), "{missing:?}");
}

#[test]
fn a_server_that_ends_in_mid_run_is_told() {
    let cluster = Cluster::start(3);
    let sleeper = Command::new("sleep").arg("1").spawn();
    let mut sleeper = sleeper.expect("it starts");
    let pid = sleeper.id().to_string();
    let ended = cluster.cli(&[
        "bench",
        "--mix",
        "put",
        "--seconds",
        "2",
        "--warmup",
        "0",
        "--pids",
        &pid,
    ]);
    let ended = ended.expect(0);
    assert!(
        ended
            .stderr
            .contains(&format!("process {pid} (sleep) has ended")),
        "{ended:?}"
    );
    sleeper.wait().expect("it ends by itself");
}

#[test]
fn senseless_loads_are_wrong_usage() {
    let wrong = |arguments: &[&str]| {
        let done = run(Command::new(quorate()).arg("bench").args(arguments)).expect(2);
        assert!(done.stdout.is_empty(), "{done:?}");
        done.stderr
    };
    assert!(wrong(&["--mix", "0:0"]).contains("one part must be more than 0"));
    assert!(wrong(&["--size", "9MiB"]).contains("at most"));
    assert!(wrong(&["--http", "127.0.0.1:8080"]).contains("http://127.0.0.1:8080"));
    assert!(wrong(&["--rate", "5", "--in-flight", "1,2"]).contains("give one number"));
    assert!(wrong(&["--overwrite", "--keys", "64"]).contains("--keys must be more than"));
    assert!(wrong(&["--distribution", "pareto"]).contains("zipf"));
    assert!(wrong(&["--arrivals", "poisson"]).contains("--rate"));
}
