//! The client against nodes over real sockets, from a runtime of many threads.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::{Client, ClientConfig, Error, Quorum};
use quorate_server::{DevCluster, DevOptions};

/// The longest any condition of a healthy cluster may take to come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn cluster(nodes: u16) -> DevCluster {
    let options = DevOptions {
        nodes,
        http_port: 0,
        ..DevOptions::default()
    };
    DevCluster::start(options).unwrap()
}

fn config(cluster: &DevCluster) -> ClientConfig {
    ClientConfig::load(cluster.client_config()).unwrap()
}

/// A client of a cluster whose nodes all reach each other.
async fn settled(cluster: &DevCluster) -> Client {
    let client = Client::connect(config(cluster)).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    for key in 0..16 {
        let key = format!("settle-{key}");
        while let Err(error) = client.put("settle", key.clone(), "x").w(Quorum::All).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    client
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("it takes too long")
    })
}

#[test]
fn many_tasks_share_one_client() {
    let cluster = cluster(3);
    run(async {
        let client = settled(&cluster).await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16 {
            let client = client.clone();
            tasks.spawn(async move {
                for key in 0..25 {
                    let key = format!("{task}-{key}");
                    let context = client.put("b", key.clone(), key.clone()).await.unwrap();
                    let read = client.get("b", key.clone()).await.unwrap().unwrap();
                    assert_eq!(read.siblings[0].value.data, key.as_bytes());
                    client
                        .put("b", key.clone(), "next")
                        .context(context)
                        .await
                        .unwrap();
                    let read = client.get("b", key).await.unwrap().unwrap();
                    assert_eq!(read.siblings.len(), 1);
                }
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn everything_said_of_a_value_is_kept() {
    let cluster = cluster(1);
    run(async {
        let client = settled(&cluster).await;
        client
            .put("b", "k", "{}")
            .content_type("application/json")
            .meta("origin", "a test")
            .dw(Quorum::Count(1))
            .await
            .unwrap();
        let read = client.get("b", "k").await.unwrap().unwrap();
        let value = &read.siblings[0].value;
        assert_eq!(value.content_type.as_deref(), Some("application/json"));
        assert_eq!(value.meta, [("origin".to_owned(), "a test".to_owned())]);
        assert!(!read.siblings[0].dot.is_empty());

        let described = client.describe().await.unwrap();
        assert_eq!(described.node, "node-1");
        assert_eq!(described.layout, client.layout());

        client.delete("b", "k").await.unwrap();
        client.delete("b", "k").await.unwrap(); // what is gone may be deleted again
        assert_eq!(client.get("b", "k").await.unwrap(), None);
    });
}

#[test]
fn one_endpoint_that_answers_is_enough_and_found_soon() {
    let cluster = cluster(3);
    run(async {
        // A socket that never answers stands for a host that is down.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = config(&cluster);
        config.endpoints.truncate(1);
        config
            .endpoints
            .insert(0, silent.local_addr().unwrap().to_string());
        config.endpoints.insert(0, "not an address".into());
        let began = Instant::now();
        let client = Client::connect(config.clone()).await.unwrap();
        assert_eq!(client.layout().nodes().len(), 3, "the others are learned");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );

        config.endpoints.truncate(2);
        let error = Client::connect(config.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        let words = error.to_string();
        assert!(
            words.contains("not an address") && words.contains("did not answer"),
            "{words}"
        );
        assert!(!error.may_have_happened());

        config.endpoints.clear();
        let error = Client::connect(config).await.unwrap_err();
        assert!(error.to_string().contains("no endpoint"), "{error}");
    });
}

#[test]
fn reads_go_on_when_nodes_are_lost_and_waits_are_bounded() {
    let mut cluster = cluster(3);
    run(async {
        let client = settled(&cluster).await;
        client.put("b", "k", "x").w(Quorum::All).await.unwrap();

        // Both hold connections of this client.
        cluster.stop_node("node-1").unwrap();
        let read = client.get("b", "k").await.unwrap().unwrap();
        assert_eq!(read.siblings[0].value.data, "x");

        cluster.stop_node("node-2").unwrap();
        let read = client.get("b", "k").r(Quorum::Count(1)).await.unwrap();
        assert!(read.is_some());
        let began = Instant::now();
        let short = Duration::from_millis(700);
        let error = client.put("b", "k", "y").timeout(short).await.unwrap_err();
        assert!(!error.may_have_happened(), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );

        cluster.stop_node("node-3").unwrap();
        let error = client.get("b", "k").await.unwrap_err();
        assert!(
            matches!(error, Error::Unreachable { .. } | Error::Lost { .. }),
            "{error}"
        );
        assert!(!error.may_have_happened());
    });
}

#[test]
fn a_context_that_was_altered_is_refused() {
    let cluster = cluster(1);
    run(async {
        let client = settled(&cluster).await;
        let context = client.put("b", "k", "x").await.unwrap();
        let mut altered = context.to_vec();
        *altered.last_mut().unwrap() ^= 1;
        let error = client
            .put("b", "k", "y")
            .context(Bytes::from(altered))
            .await
            .unwrap_err();
        assert!(
            error.refusal().is_some() && !error.may_have_happened(),
            "{error}"
        );
        let error = client
            .put("b", "other", "y")
            .context(context)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("another key"), "{error}");
    });
}
