//! The routes about the cluster and the node.

mod common;

use common::Http;
use quorate_protocol::{Answer, ClusterStatus, Description, NodeStatus, Refusal, Request, Unmet};

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
