//! Values that end, through the interfaces that people use.

use std::time::Duration;

use quorate_tests::{Cluster, http, wait_until};

/// How long a value of one second may take to go: the second itself, and the rest for a machine that is busy.
const GONE_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_value_ends_at_its_deadline_on_every_node_and_for_every_interface() {
    let cluster = Cluster::start(3);
    let agent = http();
    let put = |url: &str| {
        let answer = agent.put(url).send("soon gone").expect("an answer");
        assert_eq!(answer.status(), 204, "{url}");
    };
    put(&cluster.url(1, "b", "stays?ttl=1h"));
    let answer = agent
        .get(cluster.url(2, "b", "stays"))
        .call()
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let expires = answer.headers().get("quorate-expires");
    let expires = expires.expect("it ends").to_str().expect("text").to_owned();
    assert!(expires.ends_with('Z'), "{expires}");

    let _ = cluster
        .cli(&["bucket", "create", "short", "--ttl", "1s"])
        .expect(0);
    put(&cluster.url(1, "short", "by-bucket"));
    put(&cluster.url(1, "short", "kept?ttl=none"));
    let _ = cluster
        .cli(&["put", "b", "by-put", "--ttl", "1s", "soon gone"])
        .expect(0);
    for (bucket, key) in [("short", "by-bucket"), ("b", "by-put")] {
        for node in 1..=3 {
            let url = cluster.url(node, bucket, key);
            let gone = || agent.get(&url).call().expect("an answer").status() == 404;
            assert!(wait_until(GONE_WITHIN, gone), "{url} is still there");
        }
    }
    let kept = agent
        .get(cluster.url(3, "short", "kept"))
        .call()
        .expect("an answer");
    assert_eq!(kept.status(), 200);
    assert!(kept.headers().get("quorate-expires").is_none());

    // An export carries the deadline, and an import does not extend it.
    let out = cluster.dir().join("out");
    let out = out.to_str().expect("a path of text");
    let _ = cluster.cli(&["export", "b", "--file", out]).expect(0);
    let exported = std::fs::read_to_string(out).expect("it is there");
    assert!(exported.contains(&expires), "{exported}");
    assert!(!exported.contains("by-put"), "{exported}");
    let deleted = agent.delete(cluster.url(1, "b", "stays")).call();
    assert_eq!(deleted.expect("an answer").status(), 204);
    let ended = r#"{"bucket":"b","key":"ended","value":"v","expires":"2001-01-01T00:00:00Z"}"#;
    std::fs::write(out, format!("{exported}{ended}\n")).expect("a file");
    let told = cluster.cli(&["import", out, "-o", "json"]).expect(0).json();
    assert_eq!((&told["stored"], &told["expired"]), (&1.into(), &1.into()));
    let got = cluster.cli(&["get", "b", "stays", "-o", "json"]).expect(0);
    assert!(got.text().contains(&expires), "{got:?}");

    let refused = agent
        .put(cluster.url(1, "b", "never?ttl=11y"))
        .send("x")
        .expect("an answer");
    assert!([400, 422].contains(&refused.status().as_u16()));
    let absent = agent
        .get(cluster.url(1, "b", "never"))
        .call()
        .expect("an answer");
    assert_eq!(absent.status(), 404);
}
