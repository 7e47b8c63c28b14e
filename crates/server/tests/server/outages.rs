//! Nodes that are away, and nodes that come back.

use std::time::{Duration, Instant};

use std::future::IntoFuture as _;

use quorate_client::{Client, Quorum};

use crate::common::{Cluster, ask, run, until};

#[test]
fn one_node_away_is_not_noticed_and_two_are_told_apart() {
    let mut cluster = Cluster::start(3);
    run(async {
        let client = cluster.client().await;
        client.put("b", "k", "before").w(Quorum::All).await.unwrap();
    });

    cluster.stop_node(2);
    for at in [0, 1] {
        until("a node to serve with one away", || {
            cluster
                .http(at, "PUT", &format!("b/keys/via-{at}"), &[], "x")
                .status
                == 204
        });
        assert_eq!(cluster.http(at, "GET", "b/keys/k", &[], "").body, "before");
        assert_eq!(cluster.ready(at).status, 200);
    }
    let all = cluster.http(0, "PUT", "b/keys/k?w=all", &[], "x");
    assert_eq!(all.status, 503, "{all:?}");

    cluster.stop_node(1);
    until("the last node to know that it is alone", || {
        cluster.ready(0).status == 503
    });
    for (method, body) in [("PUT", "x"), ("GET", ""), ("DELETE", "")] {
        let alone = cluster.http(0, method, "b/keys/k", &[], body);
        assert_eq!(alone.status, 503, "{method}: {alone:?}");
    }
    // One replica is enough where it is said to be.
    assert_eq!(
        cluster.http(0, "GET", "b/keys/k?r=1", &[], "").body,
        "before"
    );
    run(async {
        let began = Instant::now();
        let client = cluster.client().await;
        let error = client.put("b", "k", "x").await.unwrap_err();
        assert!(!error.may_have_happened(), "{error}");
        assert!(error.to_string().contains("nothing was sent"), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    });

    cluster.start_node(1);
    until("the cluster to serve again", || {
        cluster.http(0, "PUT", "b/keys/again", &[], "x").status == 204
    });
}

#[test]
fn everything_is_there_after_a_restart_of_all() {
    let mut cluster = Cluster::start(3);
    run(async {
        let client = cluster.client().await;
        for key in 0..50 {
            client
                .put("b", format!("k{key}"), format!("v{key}"))
                .await
                .unwrap();
        }
        client.delete("b", "k7").await.unwrap();
    });
    for at in 0..3 {
        cluster.stop_node(at);
    }
    for at in 0..3 {
        cluster.start_node(at);
    }
    cluster.settle();
    run(async {
        let client = cluster.client().await;
        for key in 0..50 {
            let read = client.get("b", format!("k{key}")).await.unwrap();
            let value = read.map(|r| r.siblings[0].value.data.clone());
            let expected = (key != 7).then(|| format!("v{key}").into());
            assert_eq!(value, expected, "k{key}");
        }
    });
}

#[test]
fn a_client_outlives_its_nodes_one_after_the_other() {
    let mut cluster = Cluster::start(3);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client: Client = runtime.block_on(cluster.client());
    for away in 0..3 {
        cluster.stop_node(away);
        // A write is never sent twice, so one whose connection breaks is an error that says so; the next one finds
        // its way.
        let key = format!("while-{away}-was-away");
        until("a put to find its way", || {
            runtime
                .block_on(client.put("b", key.clone(), "x").into_future())
                .is_ok()
        });
        let read = runtime.block_on(client.get("b", key.clone()).into_future());
        assert!(read.unwrap().is_some());
        cluster.start_node(away);
        cluster.settle();
    }
}

#[test]
fn requests_under_way_are_answered_when_a_node_is_stopped() {
    let mut cluster = Cluster::start(3);
    let url = format!("http://{}/v1/buckets/b/keys/", cluster.report.nodes[0].http);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut statuses = Vec::new();
            for key in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let answer = ureq::put(format!("{url}{key}")).send("x");
                match answer {
                    Ok(answer) => statuses.push(answer.status().as_u16()),
                    Err(ureq::Error::StatusCode(status)) => statuses.push(status),
                    // Refused at the door: nothing was begun.
                    Err(_) => break,
                }
            }
            statuses
        }
    });
    let began = Instant::now();
    cluster.stop_node(0);
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let statuses = load.join().unwrap();
    assert!(
        statuses.iter().all(|s| matches!(s, 204 | 503)),
        "{statuses:?}"
    );
}

#[test]
fn what_others_kept_for_a_node_is_handed_over_when_it_is_back() {
    let mut cluster = Cluster::start(4);
    // Of so many nodes, once all of them tell.
    let pending = |cluster: &Cluster, telling: usize| -> Option<u64> {
        let url = format!("http://{}/v1/cluster", cluster.report.nodes[0].http);
        let overview: serde_json::Value =
            serde_json::from_str(&ask("GET", &url, &[], "").body).unwrap();
        let nodes = overview["nodes"].as_array().unwrap().iter();
        let hints: Vec<u64> = nodes
            .filter_map(|node| node["hints"].as_array())
            .map(|hints| hints.iter().map(|of| of["count"].as_u64().unwrap()).sum())
            .collect();
        (hints.len() == telling).then(|| hints.iter().sum())
    };
    cluster.stop_node(3);
    for key in 0..20 {
        until("a write of three copies with a replica away", || {
            let path = format!("b/keys/{key}?w=3");
            cluster.http(0, "PUT", &path, &[], "x").status == 204
        });
    }
    until("three nodes to tell what they keep", || {
        pending(&cluster, 3) > Some(0)
    });
    // Nobody may stand in where that is not wanted.
    let strict = (0..20)
        .map(|key| format!("b/keys/{key}?w=3&sloppy=false"))
        .filter(|path| cluster.http(0, "PUT", path, &[], "x").status == 503);
    assert!(strict.count() > 0);

    // One that keeps some is away itself for a while.
    cluster.stop_node(2);
    cluster.start_node(2);
    cluster.start_node(3);
    until("all hints to be handed over", || {
        pending(&cluster, 4) == Some(0)
    });
    for key in 0..20 {
        until("the node that was away to answer", || {
            let path = format!("b/keys/{key}?r=1");
            cluster.http(3, "GET", &path, &[], "").status < 400
        });
    }
    let url = format!("http://{}/metrics", cluster.report.nodes[3].http);
    let told = ask("GET", &url, &[], "").body;
    let peers = told.matches("quorate_hints_pending{").count();
    assert_eq!(peers, 3, "{told}");
}
