//! A cluster in one process.

use std::time::Instant;

use quorate_client::{Client, ClientConfig};
use quorate_server::{DevCluster, DevOptions};

use crate::common::{ask, run, until};

fn options() -> DevOptions {
    DevOptions {
        http_port: 0,
        ..DevOptions::default()
    }
}

#[test]
fn it_serves_soon_and_leaves_nothing_behind() {
    let began = Instant::now();
    let cluster = DevCluster::start(options()).unwrap();
    let url = format!("{}/v1/buckets/b/keys/k", cluster.nodes()[0].url);
    until("the first put", || ask("PUT", &url, &[], "x").status == 204);
    eprintln!(
        "from the start to the first answered put: {:?}",
        began.elapsed()
    );
    let last = format!("{}/v1/buckets/b/keys/k", cluster.nodes()[2].url);
    until("the others", || ask("GET", &last, &[], "").body == "x");
    run(async {
        let config = ClientConfig::load(cluster.client_config()).unwrap();
        let client = Client::connect(config).await.unwrap();
        assert!(client.get("b", "k").await.unwrap().is_some());
    });
    let dir = cluster.dir().to_owned();
    assert!(dir.exists());
    cluster.stop().unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_directory_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let kept = DevOptions {
        data_dir: Some(dir.path().join("dev")),
        ..options()
    };
    let path = "/v1/buckets/b/keys/k";
    let cluster = DevCluster::start(kept.clone()).unwrap();
    let url = format!("{}{path}", cluster.nodes()[1].url);
    until("a put", || ask("PUT", &url, &[], "kept").status == 204);
    cluster.stop().unwrap();

    let error = DevCluster::start(DevOptions {
        nodes: 4,
        ..kept.clone()
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("holds a cluster of 3 nodes"),
        "{error}"
    );

    let mut cluster = DevCluster::start(kept).unwrap();
    let url = format!("{}{path}", cluster.nodes()[2].url);
    until("what was put before", || {
        ask("GET", &url, &[], "").body == "kept"
    });
    assert!(cluster.stop_node("node-1").unwrap());
    assert!(!cluster.stop_node("node-1").unwrap());
    until("the others to serve", || {
        ask("PUT", &url, &[], "later").status == 204
    });
}

#[test]
fn a_taken_http_port_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = DevCluster::start(DevOptions {
        nodes: 1,
        http_port: taken.local_addr().unwrap().port(),
        ..options()
    })
    .unwrap_err();
    let words = error.to_string();
    assert!(words.contains("give another with --http-port"), "{words}");
}

#[test]
fn its_quic_ports_are_none_that_the_system_gives_away() {
    let cluster = DevCluster::start(options()).unwrap();
    for node in cluster.nodes() {
        let address: std::net::SocketAddr = node.quic.parse().unwrap();
        assert!(address.port() < 32_768, "{address}");
    }
}
