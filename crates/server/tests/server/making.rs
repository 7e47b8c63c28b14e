//! Making a cluster's files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use quorate_ring::Layout;
use quorate_server::{InitOptions, NodePlan, init, init_at};

use crate::common::load;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nodes_are_numbered_from_one_and_regions_dealt_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("of/mine");
    let options = InitOptions {
        nodes: 5,
        regions: vec!["eu".into(), "us".into()],
        ..InitOptions::default()
    };
    let report = init(&cluster, &options).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["nodes"][1]["id"], "node-2");
    assert_eq!(json["nodes"][1]["quic"], "127.0.0.1:7402");
    assert_eq!(json["nodes"][1]["http"], "127.0.0.1:7402");
    assert_eq!(json["nodes"].as_array().unwrap().len(), 5);
    for node in &report.nodes {
        load(&node.config).check().unwrap();
        assert_eq!(mode(&cluster.join(&node.id).join("node.key")), 0o600);
        assert_eq!(mode(&cluster.join(&node.id).join("secret")), 0o600);
    }
    assert_eq!(mode(&cluster.join("ca/ca.key")), 0o600);
    let layout = std::fs::read_to_string(cluster.join("layout.json")).unwrap();
    let layout: Layout = serde_json::from_str(&layout).unwrap();
    let regions: Vec<&str> = layout.nodes().iter().map(|n| n.region.as_str()).collect();
    assert_eq!(regions, ["eu", "us", "eu", "us", "eu"]);
    quorate_client::ClientConfig::load(&report.client).unwrap();
    let rest: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(rest.len(), 1, "something was left behind: {rest:?}");
}

#[test]
fn a_second_cluster_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    init(dir.path(), &InitOptions::default()).unwrap();
    let before = std::fs::read(dir.path().join("ca/ca.key")).unwrap();
    let error = init(dir.path(), &InitOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("already holds a cluster"),
        "{error}"
    );
    assert_eq!(std::fs::read(dir.path().join("ca/ca.key")).unwrap(), before);

    // A stray file of a name that would be ours is enough.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("node-2.toml"), "mine").unwrap();
    assert!(init(other.path(), &InitOptions::default()).is_err());
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn what_makes_no_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("c");
    let none = InitOptions {
        nodes: 0,
        ..InitOptions::default()
    };
    assert!(init(&cluster, &none).is_err());
    let high = InitOptions {
        base_port: 65533,
        ..InitOptions::default()
    };
    assert!(
        init(&cluster, &high)
            .unwrap_err()
            .to_string()
            .contains("65535")
    );
    let spaced = InitOptions {
        regions: vec!["a b".into()],
        ..InitOptions::default()
    };
    assert!(
        init(&cluster, &spaced)
            .unwrap_err()
            .to_string()
            .contains("region")
    );
    let plan = |name: &str| NodePlan {
        name: name.into(),
        region: "eu".into(),
        quic: "h:1".into(),
        http: "h:1".into(),
    };
    for name in ["../up", "ca", ""] {
        assert!(init_at(&cluster, &[plan(name)]).is_err(), "{name}");
    }
    assert!(init_at(&cluster, &[plan("a"), plan("a")]).is_err());
    assert!(!cluster.exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_node_known_by_a_name_listens_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let options = InitOptions {
        hosts: vec!["db.example.org".into()],
        ..InitOptions::default()
    };
    let report = init(&dir.path().join("c"), &options).unwrap();
    assert_eq!(report.nodes[0].quic, "db.example.org:7401");
    let config = load(&report.nodes[0].config);
    assert_eq!(config.quic_listen.to_string(), "0.0.0.0:7401");
}

#[test]
fn each_node_may_have_a_host_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = |hosts: &[&str]| InitOptions {
        hosts: hosts.iter().map(|host| host.to_string()).collect(),
        ..InitOptions::default()
    };
    let report = init(&dir.path().join("c"), &hosts(&["a.lan", "::1", "10.0.0.3"])).unwrap();
    let addresses: Vec<&str> = report.nodes.iter().map(|n| n.quic.as_str()).collect();
    assert_eq!(addresses, ["a.lan:7401", "[::1]:7402", "10.0.0.3:7403"]);

    for (wrong, says) in [
        (&["a", "b"][..], "2 hosts for 3 nodes"),
        (&[], "0 hosts"),
        (&["a", "b:7000", "c"], "\"b:7000\" is no host"),
        (&["a", "", "c"], "\"\" is no host"),
    ] {
        let error = init(&dir.path().join("d"), &hosts(wrong)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(!dir.path().join("d").exists());
}
