//! The routes about the cluster and the node.

mod common;

use common::{BUSY, Http};
use quorate_protocol::{
    Answer, ClusterStatus, Description, NodeStatus, Refusal, Repair, Request, Unmet,
};
use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec};

const LAYOUT: &str = r#"{"any": "JSON"}"#;

#[tokio::test]
async fn the_layout_is_shown_as_the_node_has_it() {
    let http = Http::new();
    http.store.script(Answer::Described(Description {
        node: "node-1".into(),
        layout: LAYOUT.into(),
    }));
    let reply = http.get("/v1/cluster/layout").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.body, LAYOUT);
    let (header, request) = http.store.last_call();
    assert_eq!(request, Request::Describe);
    assert!(header.trace.is_some());
    let head = http.ask("HEAD", "/v1/cluster/layout", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), LAYOUT.len().to_string());
}

#[tokio::test]
async fn what_goes_wrong_is_a_problem() {
    let http = Http::new();
    for route in ["/v1/cluster", "/v1/cluster/layout"] {
        http.store.script(Answer::Refused(Refusal::Overloaded));
        http.get(route).await.problem(503, "overloaded");
        http.store.script(Answer::Unmet(Unmet {
            needed: 1,
            answered: 0,
            timed_out: true,
            may_have_written: false,
        }));
        http.get(route).await.problem(504, "unmet");
        http.store.script(Answer::Absent);
        http.get(route).await.problem(500, "internal");
        let asked = http.store.calls().len();
        http.ask("POST", route, &[], "")
            .await
            .problem(405, "method-not-allowed");
        let problem = http.get(&format!("{route}?verbose=true")).await;
        problem.problem(400, "bad-parameter");
        assert_eq!(http.store.calls().len(), asked, "nothing was asked");
    }
    // A status where a layout is expected, and a layout that is none.
    http.store.script(Answer::Status(ClusterStatus {
        node: "node-1".into(),
        nodes: vec![NodeStatus::default()],
        silent: Vec::new(),
    }));
    http.get("/v1/cluster").await.problem(500, "internal");
    http.get("/v1/cluster/").await.problem(404, "no-such-route");
}

#[tokio::test]
async fn where_there_is_no_node_there_are_no_metrics() {
    let http = Http::new();
    http.get("/metrics").await.problem(404, "no-such-route");
    http.ask("POST", "/metrics", &[], "")
        .await
        .problem(405, "method-not-allowed");
}

#[tokio::test]
async fn one_partition_is_repaired_or_all_are() {
    let http = Http::new();
    let path = "/v1/cluster/repair";
    let reply = http
        .ask("POST", &format!("{path}?partition=7"), &[], "")
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.json()["partition"], 7);
    assert_eq!(reply.json()["keys"], 7);
    let (header, request) = http.store.last_call();
    assert_eq!(request, Request::Repair(Repair { partition: 7 }));
    assert_eq!(header.deadline_ms, 300_000);

    let node = |id: u64| NodeSpec {
        id: NodeId(id),
        name: format!("node-{id}"),
        region: "eu".into(),
        zone: format!("z{id}"),
        weight: 1,
        quic: format!("10.0.0.{id}:7400"),
        http: format!("10.0.0.{id}:8080"),
    };
    let mut spec = LayoutSpec::new((1..=3).map(node).collect());
    spec.partitions = 8;
    let layout = Layout::first(ClusterId(7), spec).expect("a layout");
    http.store
        .lay_out(serde_json::to_vec(&layout).expect("JSON"));
    let reply = http.ask("POST", path, &[], "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    let lines = text.lines();
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 8);
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["partition"], at);
        // That one cannot be done does not keep the others from it.
        let failed = at == usize::from(BUSY);
        assert_eq!(line["keys"], if failed { 0 } else { at });
        let unfinished = line["unfinished"].as_array().expect("a list");
        assert_eq!(unfinished.len(), usize::from(failed), "{line}");
    }
}

#[tokio::test]
async fn a_repair_that_is_malformed_or_refused_says_so() {
    let http = Http::new();
    let path = "/v1/cluster/repair";
    http.get(path).await.problem(405, "method-not-allowed");
    for query in ["partition=", "partition=x", "partition=65536", "all=1"] {
        http.ask("POST", &format!("{path}?{query}"), &[], "")
            .await
            .problem(400, "bad-parameter");
    }
    http.store
        .script(Answer::Refused(Refusal::Impossible("none".into())));
    http.ask("POST", &format!("{path}?partition=9"), &[], "")
        .await
        .problem(422, "impossible");
}
