//! What a node refuses to start over or beside.

use std::net::TcpListener;

use quorate_client::{Client, ClientConfig};
use quorate_server::{RunningNode, StartError};

use crate::common::{Cluster, edit, load, made, run};

fn refusal(file: &std::path::Path) -> String {
    RunningNode::start(load(file))
        .expect_err("it must not start")
        .to_string()
}

#[test]
fn a_directory_in_use_is_refused() {
    let (_dir, report) = made(1);
    let node = RunningNode::start(load(&report.nodes[0].config)).unwrap();
    let words = refusal(&report.nodes[0].config);
    assert!(words.contains("is in use by process"), "{words}");
    node.stop().unwrap();
    RunningNode::start(load(&report.nodes[0].config))
        .unwrap()
        .stop()
        .unwrap();
}

#[test]
fn the_data_of_another_node_or_cluster_is_refused() {
    let (_one, ours) = made(2);
    let (_two, theirs) = made(1);
    RunningNode::start(load(&ours.nodes[0].config))
        .unwrap()
        .stop()
        .unwrap();

    let mut config = load(&ours.nodes[1].config);
    config.data_dir = ours.nodes[0].data_dir.clone();
    let error = RunningNode::start(config).unwrap_err();
    assert!(matches!(error, StartError::NotThisNode { .. }), "{error}");
    assert!(
        error.to_string().contains("it holds the data of node-1"),
        "{error}"
    );

    let mut config = load(&theirs.nodes[0].config);
    config.data_dir = ours.nodes[0].data_dir.clone();
    let error = RunningNode::start(config).unwrap_err();
    assert!(error.to_string().contains(&ours.cluster), "{error}");
    assert!(error.to_string().contains(&theirs.cluster), "{error}");

    // And the owner still finds it in order.
    RunningNode::start(load(&ours.nodes[0].config))
        .unwrap()
        .stop()
        .unwrap();
}

#[test]
fn a_layout_that_was_edited_is_refused() {
    let (_dir, report) = made(2);
    let config = load(&report.nodes[0].config);
    let layout = config.layout.clone();
    RunningNode::start(config.clone()).unwrap().stop().unwrap();
    edit(&layout, "\"weight\":1", "\"weight\":2");
    let words = refusal(&report.nodes[0].config);
    assert!(words.contains("edited"), "{words}");
    edit(&layout, "\"weight\":2", "\"weight\":1");
    // Nor is it by another number what the cluster goes by: that is told by the other nodes.
    edit(&layout, "\"version\":1", "\"version\":2");
    let node = RunningNode::start(load(&report.nodes[0].config)).unwrap();
    let url = format!("http://{}/v1/cluster/layout", report.nodes[0].http);
    let mut answer = ureq::get(&url).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    assert!(text.contains("\"version\":1"), "{text}");
    node.stop().unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let (_dir, report) = made(1);
    let taken = TcpListener::bind(&report.nodes[0].http).unwrap();
    let words = refusal(&report.nodes[0].config);
    assert!(
        words.contains(&format!("TCP {} is in use", report.nodes[0].http)),
        "{words}"
    );
    drop(taken);
    let taken = std::net::UdpSocket::bind(&report.nodes[0].quic).unwrap();
    let words = refusal(&report.nodes[0].config);
    assert!(
        words.contains(&format!("UDP {} is in use", report.nodes[0].quic)),
        "{words}"
    );
    drop(taken);
    RunningNode::start(load(&report.nodes[0].config))
        .unwrap()
        .stop()
        .unwrap();
}

#[test]
fn a_client_of_another_cluster_is_turned_away_and_harms_nobody() {
    let cluster = Cluster::start(3);
    let (_dir, other) = made(1);
    run(async {
        let ours = cluster.client_config();
        let theirs = ClientConfig::load(&other.client).unwrap();
        let stranger = ClientConfig {
            endpoints: ours.endpoints.clone(),
            ..theirs
        };
        let error = Client::connect(stranger).await.unwrap_err();
        assert!(!error.may_have_happened());
        assert!(error.to_string().contains("another CA"), "{error}");

        let client = Client::connect(ours).await.unwrap();
        client.put("b", "k", "x").await.unwrap();
    });
}

#[test]
fn a_single_node_is_a_cluster() {
    let cluster = Cluster::start(1);
    assert_eq!(cluster.ready(0).status, 200);
    assert_eq!(cluster.http(0, "PUT", "b/keys/k", &[], "x").status, 204);
    assert_eq!(cluster.http(0, "GET", "b/keys/k", &[], "").body, "x");
}
