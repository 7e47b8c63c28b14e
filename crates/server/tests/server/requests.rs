//! Putting, getting and deleting through both doors.

use quorate_client::{Client, Quorum};

use crate::common::{Cluster, run};

#[test]
fn what_is_put_is_read_through_every_node() {
    let cluster = Cluster::start(3);
    let put = cluster.http(
        0,
        "PUT",
        "b/keys/k",
        &[("Content-Type", "text/plain")],
        "milk",
    );
    assert_eq!((put.status, put.context.is_some()), (204, true), "{put:?}");
    for at in 0..3 {
        let got = cluster.http(at, "GET", "b/keys/k", &[], "");
        assert_eq!((got.status, got.body.as_str()), (200, "milk"));
    }
    run(async {
        let client = cluster.client().await;
        let read = client.get("b", "k").r(Quorum::All).await.unwrap().unwrap();
        assert_eq!(read.siblings.len(), 1);
        assert_eq!(read.siblings[0].value.data, "milk");
        assert_eq!(
            read.siblings[0].value.content_type.as_deref(),
            Some("text/plain")
        );
        client.delete("b", "k").context(read.context).await.unwrap();
        assert_eq!(client.get("b", "k").await.unwrap(), None);
    });
    assert_eq!(cluster.http(2, "GET", "b/keys/k", &[], "").status, 404);
}

#[test]
fn two_puts_without_context_are_siblings_until_one_has_read_both() {
    let cluster = Cluster::start(3);
    for (at, body) in [(0, "one"), (1, "two")] {
        assert_eq!(cluster.http(at, "PUT", "b/keys/k", &[], body).status, 204);
    }
    let both = cluster.http(2, "GET", "b/keys/k", &[], "");
    assert_eq!(both.status, 300, "{both:?}");
    run(async {
        let client = cluster.client().await;
        let read = client.get("b", "k").await.unwrap().unwrap();
        let mut values: Vec<_> = read.siblings.iter().map(|s| s.value.data.clone()).collect();
        values.sort();
        assert_eq!(values, ["one", "two"]);
        let own = client
            .put("b", "k", "both")
            .context(read.context)
            .w(Quorum::All)
            .await
            .unwrap();
        // The put's own context names just that write.
        client.put("b", "k", "later").context(own).await.unwrap();
    });
    let one = cluster.http(0, "GET", "b/keys/k", &[], "");
    assert_eq!((one.status, one.body.as_str()), (200, "later"));
    let headers = [("Quorate-Context", one.context.as_deref().unwrap())];
    assert_eq!(
        cluster.http(1, "DELETE", "b/keys/k", &headers, "").status,
        204
    );
    assert_eq!(cluster.http(2, "GET", "b/keys/k", &[], "").status, 404);
}

#[test]
fn a_node_that_is_no_replica_passes_requests_on() {
    let cluster = Cluster::start(5);
    run(async {
        let client = cluster.client().await;
        // Every node has keys of which it is no replica among these.
        for key in 0..40 {
            client
                .put("b", format!("k{key}"), format!("v{key}"))
                .await
                .unwrap();
        }
    });
    for at in 0..5 {
        for key in 0..40 {
            let path = format!("b/keys/k{key}");
            let got = cluster.http(at, "GET", &path, &[], "");
            assert_eq!(
                (got.status, got.body),
                (200, format!("v{key}")),
                "k{key} through node {at}"
            );
        }
        let path = format!("b/keys/through-{at}");
        assert_eq!(cluster.http(at, "PUT", &path, &[], "x").status, 204);
    }
}

#[test]
fn large_and_empty_values_come_back_whole() {
    let cluster = Cluster::start(3);
    let large: Vec<u8> = (0..8 << 20).map(|i: usize| (i % 251) as u8).collect();
    run(async {
        let client = cluster.client().await;
        client.put("b", "empty", "").await.unwrap();
        client
            .put("b", "large", large.clone())
            .w(Quorum::All)
            .await
            .unwrap();
        let read = client
            .get("b", "large")
            .r(Quorum::All)
            .await
            .unwrap()
            .unwrap();
        assert!(
            read.siblings[0].value.data == large,
            "the value was changed"
        );
        let read = client.get("b", "empty").await.unwrap().unwrap();
        assert!(read.siblings[0].value.data.is_empty());

        let error = client
            .put("b", "over", vec![0; (8 << 20) + 1])
            .await
            .unwrap_err();
        assert!(
            !error.may_have_happened() && error.to_string().contains("limit"),
            "{error}"
        );
    });
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let cluster = Cluster::start(3);
    assert_eq!(cluster.http(0, "PUT", "b/keys/k?w=4", &[], "x").status, 422);
    assert_eq!(
        cluster.http(0, "PUT", "b/keys/k?w=many", &[], "x").status,
        400
    );
    run(async {
        let client: Client = cluster.client().await;
        let error = client
            .put("b", "k", "x")
            .w(Quorum::Count(4))
            .await
            .unwrap_err();
        assert!(!error.may_have_happened(), "{error}");
        let error = client
            .put("b", "k", "x")
            .context(bytes::Bytes::from("?"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("context"), "{error}");
        assert_eq!(client.get("b", "k").await.unwrap(), None);
    });
}

#[test]
fn contexts_that_were_altered_or_are_of_something_else_change_nothing() {
    let ours = Cluster::start(1);
    let theirs = Cluster::start(1);
    let context = |cluster: &Cluster, path: &str| {
        let stored = cluster.http(0, "PUT", path, &[], "x");
        stored.context.expect("a put is answered with a context")
    };
    let good = context(&ours, "b/keys/k");
    // Another letter in the middle, where every one stands for something.
    let (head, tail) = good.split_at(20);
    let altered = match tail.strip_prefix('A') {
        Some(rest) => format!("{head}B{rest}"),
        None => format!("{head}A{}", &tail[1..]),
    };
    let bad = [
        ("altered", altered),
        ("truncated", good[..good.len() - 4].to_owned()),
        ("of another key", context(&ours, "b/keys/other")),
        ("of another bucket", context(&ours, "c/keys/k")),
        ("of another cluster", context(&theirs, "b/keys/k")),
        ("made up", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
    ];
    for (what, context) in &bad {
        for method in ["PUT", "DELETE"] {
            let refused = ours.http(0, method, "b/keys/k", &[("Quorate-Context", context)], "y");
            assert_eq!(refused.status, 400, "{method} with one {what}: {refused:?}");
            assert!(
                refused.body.contains("urn:quorate:problem:bad-context"),
                "{refused:?}"
            );
            assert!(refused.body.contains("unchanged"), "{refused:?}");
        }
        let read = ours.http(0, "GET", "b/keys/k", &[], "");
        assert_eq!(
            (read.status, read.body.as_str()),
            (200, "x"),
            "after one {what}"
        );
    }
    let good = ours.http(0, "DELETE", "b/keys/k", &[("Quorate-Context", &good)], "");
    assert_eq!(good.status, 204, "{good:?}");
}
