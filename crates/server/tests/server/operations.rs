//! What operators look at: status, layout and metrics of running nodes; and a disk that is nearly full.

use std::collections::{BTreeMap, BTreeSet};

use quorate_server::{DiskReserve, RunningNode};

use crate::common::{Cluster, Reply, ask, load, made, run, until};

fn get(cluster: &Cluster, at: usize, path: &str) -> Reply {
    ask(
        "GET",
        &format!("http://{}{path}", cluster.report.nodes[at].http),
        &[],
        "",
    )
}

fn json(reply: &Reply) -> serde_json::Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).unwrap()
}

// ---- Status ----

#[test]
fn every_node_tells_of_all_and_names_those_that_are_down() {
    let mut cluster = Cluster::start(3);
    cluster.http(0, "PUT", "b/keys/k", &[], "x");
    let told = |overview: &serde_json::Value| {
        let nodes = overview["nodes"].as_array().unwrap().clone();
        nodes
            .into_iter()
            .filter(|node| node["clock_s"].as_u64() > Some(0))
            .count()
    };
    for at in 0..3 {
        // Each has looked at its disk and its clock at the latest a second after its start.
        until("all nodes to tell of themselves", || {
            told(&json(&get(&cluster, at, "/v1/cluster"))) == 3
        });
        let overview = json(&get(&cluster, at, "/v1/cluster"));
        assert_eq!(overview["answered_by"], cluster.report.nodes[at].id);
        assert_eq!(overview["cluster"], cluster.report.cluster);
        let nodes = overview["nodes"].as_array().unwrap();
        for (number, node) in (1u64..).zip(nodes) {
            let made = &cluster.report.nodes[number as usize - 1];
            assert_eq!(node["id"], number);
            assert_eq!(
                (&node["name"], &node["state"]),
                (&made.id.clone().into(), &"up".into())
            );
            assert_eq!(
                (&node["quic"], &node["http"]),
                (&made.quic.clone().into(), &made.http.clone().into())
            );
            assert_eq!(
                (&node["region"], &node["weight"]),
                (&"eu".into(), &1.into())
            );
            assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
            assert!(
                (node["share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9,
                "{node}"
            );
            assert!(node["disk_free_bytes"].as_u64() > Some(0), "{node}");
            assert_eq!(node["unreachable"], serde_json::json!([]));
        }
    }
    let layout = json(&get(&cluster, 0, "/v1/cluster/layout"));
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(load(cluster.config(0)).layout).unwrap())
            .unwrap();
    assert_eq!(layout, file);

    // Also while only a minority is up.
    cluster.stop_node(1);
    cluster.stop_node(2);
    until("the others to be seen as down", || {
        let overview = json(&get(&cluster, 0, "/v1/cluster"));
        overview["nodes"][1]["state"] == "down" && overview["nodes"][2]["state"] == "down"
    });
    let overview = json(&get(&cluster, 0, "/v1/cluster"));
    assert_eq!(overview["nodes"][0]["state"], "not ready");
    let concerns = overview["concerns"].as_array().unwrap();
    assert_eq!(concerns.len(), 3, "{concerns:?}");
    let status = run(async { cluster.client().await.status().await.unwrap() });
    assert_eq!((status.node.as_str(), status.silent.len()), ("node-1", 2));
}

// ---- Full disks ----

#[test]
fn a_nearly_full_disk_refuses_values_and_goes_on_with_the_rest() {
    let (_dir, report) = made(1);
    let mut config = load(&report.nodes[0].config);
    config.disk_reserve = DiskReserve::Bytes(0);
    let node = RunningNode::start(config.clone()).unwrap();
    let url = |key: &str| format!("http://{}/v1/buckets/b/keys/{key}", report.nodes[0].http);
    let stored = ask("PUT", &url("k"), &[], "x");
    assert_eq!(stored.status, 204);
    node.stop().unwrap();

    // Nothing is ever as free as all of it.
    config.disk_reserve = DiskReserve::Percent(100);
    let node = RunningNode::start(config.clone()).unwrap();
    let refused = ask("PUT", &url("k"), &[], "y");
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(
        refused.body.contains("urn:quorate:problem:disk-full"),
        "{refused:?}"
    );
    assert!(refused.body.contains("make room"), "{refused:?}");
    let read = ask("GET", &url("k"), &[], "");
    assert_eq!((read.status, read.body.as_str()), (200, "x"));
    let context = read.context.unwrap();
    let removed = ask("DELETE", &url("k"), &[("Quorate-Context", &context)], "");
    assert_eq!(removed.status, 204, "{removed:?}");
    assert_eq!(ask("GET", &url("k"), &[], "").status, 404);
    let http = &report.nodes[0].http;
    assert_eq!(
        ask("GET", &format!("http://{http}/readyz"), &[], "").status,
        200
    );
    let overview = ask("GET", &format!("http://{http}/v1/cluster"), &[], "");
    assert!(overview.body.contains("nearly full"), "{overview:?}");
    let metrics = ask("GET", &format!("http://{http}/metrics"), &[], "").body;
    assert_eq!(
        Exported::parse(&metrics).value("quorate_disk_full_refusals_total"),
        Some(1.0)
    );
    node.stop().unwrap();

    // With room again, it takes values again.
    config.disk_reserve = DiskReserve::Auto;
    let node = RunningNode::start(config).unwrap();
    assert_eq!(ask("PUT", &url("k"), &[], "y").status, 204);
    node.stop().unwrap();
}

// ---- Metrics ----

/// What a scrape gives, taken apart.
struct Exported {
    /// By the name without suffix: type and help.
    families: BTreeMap<String, (String, String)>,
    /// By name and labels as they are written.
    samples: BTreeMap<String, f64>,
}

impl Exported {
    /// Reads the text format, and fails at whatever is not of it.
    fn parse(text: &str) -> Exported {
        let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut samples = BTreeMap::new();
        assert!(text.ends_with("# EOF\n"), "it ends in good order");
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help has words");
                families.entry(name.to_owned()).or_default().1 = help.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a name");
                families.entry(name.to_owned()).or_default().0 = kind.to_owned();
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(
                    samples.insert(name.to_owned(), value).is_none(),
                    "twice: {line}"
                );
                let base = name.split('{').next().unwrap();
                let of = |family: &&String| base.starts_with(family.as_str());
                assert!(
                    families.keys().any(|family| of(&family)),
                    "of no family: {line}"
                );
            }
        }
        Exported { families, samples }
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    /// Name as its samples have it, and type.
    fn names(&self) -> BTreeSet<(String, String)> {
        let suffix = |kind: &str| match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let named = |(name, (kind, _)): (&String, &(String, String))| {
            (format!("{name}{}", suffix(kind)), kind.clone())
        };
        self.families.iter().map(named).collect()
    }
}

fn scrape(cluster: &Cluster, at: usize) -> Exported {
    let reply = get(cluster, at, "/metrics");
    assert_eq!(reply.status, 200);
    Exported::parse(&reply.body)
}

#[test]
fn what_happens_is_counted() {
    let cluster = Cluster::start(3);
    let before = scrape(&cluster, 0);
    assert_eq!(cluster.http(0, "PUT", "b/keys/k", &[], "12345").status, 204);
    assert_eq!(cluster.http(0, "PUT", "b/keys/k", &[], "67").status, 204);
    assert_eq!(cluster.http(0, "GET", "b/keys/k", &[], "").status, 300);
    assert_eq!(cluster.http(0, "GET", "b/keys/none", &[], "").status, 404);
    assert_eq!(cluster.http(0, "PUT", "b/keys/k?w=4", &[], "x").status, 422);
    run(async {
        let client = cluster.client().await;
        client.get("b", "k").await.unwrap();
    });
    let after = scrape(&cluster, 0);
    let grew = |name: &str| {
        let of = |exported: &Exported| {
            exported
                .value(name)
                .unwrap_or_else(|| panic!("{name} is not exported"))
        };
        of(&after) - of(&before)
    };
    assert_eq!(
        grew("quorate_requests_total{operation=\"put\",outcome=\"ok\"}"),
        2.0
    );
    assert_eq!(
        grew("quorate_requests_total{operation=\"put\",outcome=\"refused\"}"),
        1.0
    );
    assert_eq!(grew("quorate_refused_total{reason=\"impossible\"}"), 1.0);
    assert_eq!(
        grew("quorate_requests_total{operation=\"get\",outcome=\"absent\"}"),
        1.0
    );
    assert_eq!(grew("quorate_sibling_puts_total"), 1.0);
    assert!(grew("quorate_reads_with_siblings_total") >= 1.0);
    assert_eq!(grew("quorate_put_bytes_total"), 8.0);
    assert!(grew("quorate_get_bytes_total") >= 7.0);
    assert_eq!(
        grew("quorate_http_responses_total{class=\"2xx\"}"),
        3.0,
        "two puts and a scrape"
    );
    assert_eq!(grew("quorate_http_responses_total{class=\"3xx\"}"), 1.0);
    assert_eq!(grew("quorate_http_responses_total{class=\"4xx\"}"), 2.0);
    assert_eq!(
        grew("quorate_request_duration_seconds_count{operation=\"put\"}"),
        3.0
    );
    let bucket = "quorate_request_duration_seconds_bucket{le=\"+Inf\",operation=\"put\"}";
    let other = "quorate_request_duration_seconds_bucket{operation=\"put\",le=\"+Inf\"}";
    let in_all = after.value(bucket).or(after.value(other));
    assert_eq!(
        in_all,
        after.value("quorate_request_duration_seconds_count{operation=\"put\"}")
    );
    assert!(grew("quorate_storage_commits_total") >= 2.0);
    assert!(grew("quorate_storage_syncs_total") >= 1.0);
    assert!(grew("quorate_storage_sync_duration_seconds_sum") > 0.0);
    assert!(grew("quorate_quic_sent_bytes_total") > 0.0);
    assert!(grew("quorate_quic_received_bytes_total") > 0.0);
    let replica = scrape(&cluster, 1);
    let merges = replica.value("quorate_replica_requests_total{kind=\"merge\"}");
    assert!(merges >= Some(2.0), "{merges:?}");
    until("the numbers of the last second", || {
        let now = scrape(&cluster, 0);
        now.value("quorate_peers_up") == Some(2.0)
            && now.value("quorate_ready") == Some(1.0)
            && now.value("quorate_node_connections") == Some(4.0)
            && now.value("quorate_disk_free_bytes") > Some(0.0)
            && now.value("quorate_process_resident_memory_bytes") > Some(1e6)
            && now.value("quorate_process_cpu_seconds_total") > Some(0.0)
    });
}

#[test]
fn nodes_of_one_process_count_apart_and_name_themselves() {
    let cluster = Cluster::start(3);
    for at in 0..3 {
        let name = &cluster.report.nodes[at].id;
        let exported = scrape(&cluster, at);
        let own = exported
            .samples
            .keys()
            .filter(|sample| sample.starts_with("quorate_node_info"));
        let own: Vec<_> = own.collect();
        assert_eq!(own.len(), 1);
        assert!(own[0].contains(&format!("name=\"{name}\"")), "{own:?}");
    }
    let settled =
        scrape(&cluster, 1).value("quorate_requests_total{operation=\"put\",outcome=\"ok\"}");
    assert_eq!(cluster.http(0, "PUT", "b/keys/k", &[], "x").status, 204);
    assert_eq!(
        scrape(&cluster, 1).value("quorate_requests_total{operation=\"put\",outcome=\"ok\"}"),
        settled,
        "the client was another node's"
    );
}

/// With `QUORATE_UPDATE_DOCS=1` the table is written anew.
#[test]
fn the_documentation_lists_what_is_exported_and_nothing_else() {
    let cluster = Cluster::start(2);
    let exported = scrape(&cluster, 0);
    for (name, kind) in exported.names() {
        assert!(name.starts_with("quorate_"), "{name}");
        assert!(name.is_ascii() && name.to_lowercase() == name, "{name}");
        let help = &exported.families[name.trim_end_matches("_total").trim_end_matches("_info")].1;
        assert!(
            help.len() > 10,
            "{name} of kind {kind} has no help: {help:?}"
        );
    }
    // What labels are there, and no more: none of them holds anything that a user chose.
    let labels: BTreeSet<&str> = exported
        .samples
        .keys()
        .filter_map(|sample| sample.split_once('{'))
        .filter(|(name, _)| !name.ends_with("_info"))
        .flat_map(|(_, labels)| labels.trim_end_matches('}').split(','))
        .map(|label| label.split('=').next().unwrap())
        .collect();
    assert_eq!(
        labels,
        BTreeSet::from([
            "class",
            "kind",
            "le",
            "operation",
            "outcome",
            "peer",
            "reason"
        ])
    );

    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let mut labels_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sample in exported.samples.keys() {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let name = ["_bucket", "_count", "_sum"]
            .iter()
            .fold(name, |name, suffix| {
                let base = name.trim_end_matches(suffix);
                if exported.families.contains_key(base) {
                    base
                } else {
                    name
                }
            });
        let labels = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !label.is_empty());
        let names = labels.map(|label| label.split('=').next().unwrap().to_owned());
        let names = names.filter(|name| name != "le");
        labels_of.entry(name.to_owned()).or_default().extend(names);
    }
    let rows: Vec<String> = exported
        .names()
        .into_iter()
        .map(|(name, kind)| {
            let base = name.trim_end_matches("_total").trim_end_matches("_info");
            let help = exported.families[base].1.trim_end_matches('.');
            let labels = labels_of.get(&name).into_iter().flatten().cloned();
            let labels = labels
                .map(|label| format!("`{label}`"))
                .collect::<Vec<_>>()
                .join(", ");
            format!("| `{name}` | {kind} | {labels} | {help} |")
        })
        .collect();
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let (head, table) = text
        .split_once("\n| name |")
        .expect("docs/metrics.md has a table");
    if std::env::var_os("QUORATE_UPDATE_DOCS").is_some() {
        let table = format!(
            "| name | type | labels | meaning |\n|---|---|---|---|\n{}\n",
            rows.join("\n")
        );
        std::fs::write(file, format!("{head}\n{table}")).unwrap();
        return;
    }
    let documented: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(
        documented, rows,
        "if that is meant: QUORATE_UPDATE_DOCS=1 cargo test -p quorate-server the_documentation"
    );
}
