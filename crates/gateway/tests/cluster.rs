//! The routes about the cluster and the node.

mod common;

use common::{BUSY, Http};
use quorate_protocol::{
    Answer, ClusterStatus, Description, KnownLayouts, LayoutChange, LiveLayouts, NodeStatus,
    ProposedLayout, Refusal, Repair, Request, Unmet, UpkeepStatus,
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
    for route in ["/v1/cluster", "/v1/cluster/layout", "/v1/cluster/progress"] {
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

fn node(id: u64) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        name: format!("node-{id}"),
        region: "eu".into(),
        zone: format!("z{id}"),
        weight: 1,
        quic: format!("10.0.0.{id}:1"),
        http: format!("10.0.0.{id}:2"),
    }
}

/// Three nodes become node 1, 2 and 4; the third was declared dead. The second does not answer.
#[tokio::test]
async fn how_far_a_change_has_come_is_told() {
    let first = Layout::first(ClusterId(1), LayoutSpec::new((1..=3).map(node).collect())).unwrap();
    let layout = first.next([1, 2, 4].map(node).to_vec()).unwrap();
    let told = |id: u64, filled| NodeStatus {
        id,
        upkeep: UpkeepStatus {
            to_fill: 256,
            filled,
            leftovers: 1,
            ..UpkeepStatus::default()
        },
        ..NodeStatus::default()
    };
    let http = Http::new();
    let mut live = LiveLayouts {
        current: first,
        next: Some(LayoutChange {
            chosen: ProposedLayout {
                layout,
                dead: [NodeId(3)].into(),
            },
            synced: [NodeId(1)].into(),
            complete: Default::default(),
        }),
        pace: Default::default(),
    };
    let script = |live: &LiveLayouts| {
        http.store.script(Answer::Layouts(Box::new(KnownLayouts {
            node: "node-1".into(),
            live: live.clone(),
            history: Vec::new(),
        })));
        let asked = http.store.calls().len();
        let status = Answer::Status(ClusterStatus {
            node: "node-1".into(),
            nodes: vec![told(1, 256), told(4, 56)],
            silent: vec!["node-2".into()],
        });
        http.store.script_after(asked + 1, status);
    };
    script(&live);
    let reply = http.get("/v1/cluster/progress").await;
    assert_eq!(reply.status, 200);
    let json: serde_json::Value = serde_json::from_slice(reply.body.as_ref()).unwrap();
    assert_eq!(json["stage"], "filling");
    assert_eq!(json["version"], 2);
    assert_eq!(
        (&json["filled"], &json["to_fill"]),
        (&312.into(), &512.into())
    );
    let of = |at: usize, what: &str| json["nodes"][at][what].clone();
    let names = (0..4).map(|at| of(at, "name"));
    assert!(names.eq(["node-1", "node-2", "node-4", "node-3"]));
    assert_eq!(
        (of(0, "part"), of(0, "synced")),
        ("stays".into(), true.into())
    );
    assert_eq!(
        (of(1, "filled"), of(1, "synced")),
        (serde_json::Value::Null, false.into())
    );
    assert_eq!(
        (of(2, "part"), of(3, "part")),
        ("joins".into(), "dead".into())
    );

    let change = live.next.as_mut().unwrap();
    change.synced = [1, 2, 4].map(NodeId).into();
    script(&live);
    let text = http.get("/v1/cluster/progress").await.body;
    assert!(String::from_utf8_lossy(text.as_ref()).contains("\"retiring\""));
    live.current = live.next.take().unwrap().chosen.layout;
    script(&live);
    let text = http.get("/v1/cluster/progress").await.body;
    assert!(String::from_utf8_lossy(text.as_ref()).contains("\"dropping\""));
}
