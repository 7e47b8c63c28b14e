//! Requests and responses, through the router without sockets.

mod common;

use axum::body::Body;
use axum::http::{HeaderValue, Request as HttpRequest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::{Http, Store, VALUE_BYTES_MAX};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use quorate_protocol::{
    Answer, Condition, Description, Lifetime, Options, Quorum, Refusal, Request, Shown, Trace,
    Unmet, Value,
};
use serde_json::json;

const KEY: &str = "/v1/buckets/b/keys/k";

#[tokio::test]
async fn a_value_comes_back_as_it_went_in() {
    let http = Http::new();
    let given = [
        ("content-type", "text/plain; charset=utf-8"),
        ("Quorate-Meta-Author", "ada"),
        ("quorate-meta-empty", ""),
    ];
    let put = http.ask("PUT", KEY, &given, "hello").await;
    put.is(204);
    assert!(put.body.is_empty());

    let get = http.get(KEY).await;
    get.is(200);
    assert_eq!(&get.body[..], b"hello");
    assert_eq!(get.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(get.header("content-length"), "5");
    assert_eq!(get.header("quorate-meta-author"), "ada");
    assert_eq!(get.header("quorate-meta-empty"), "");
    assert_eq!(get.header("quorate-context"), put.header("quorate-context"));
    assert_eq!(get.header("etag"), "\"00000001:1\"");
    // Stored bytes must not act as a page of the node's own.
    assert_eq!(get.header("x-content-type-options"), "nosniff");
    assert_eq!(get.header("content-security-policy"), "sandbox");
    assert!(!get.headers.contains_key("quorate-siblings"));
}

#[tokio::test]
async fn empty_and_binary_values() {
    let http = Http::new();
    http.put(KEY, "").await.is(204);
    let get = http.get(KEY).await;
    get.is(200);
    assert!(get.body.is_empty());
    assert_eq!(get.header("content-length"), "0");
    assert_eq!(get.header("content-type"), "application/octet-stream");

    let bytes: Vec<u8> = (0..=255).collect();
    let request = HttpRequest::put("/v1/buckets/b/keys/binary").body(Body::from(bytes.clone()));
    http.send(request.unwrap()).await.is(204);
    assert_eq!(http.get("/v1/buckets/b/keys/binary").await.body, bytes);
}

#[tokio::test]
async fn two_puts_without_context_are_siblings_and_one_with_it_resolves_them() {
    let http = Http::new();
    http.ask(
        "PUT",
        KEY,
        &[("content-type", "text/plain"), ("quorate-meta-by", "a")],
        "one",
    )
    .await
    .is(204);
    http.put(KEY, "two").await.is(204);

    let get = http.get(KEY).await;
    get.is(300);
    assert_eq!(get.header("quorate-siblings"), "2");
    assert_eq!(get.header("content-type"), "application/json");
    assert_eq!(get.header("content-length"), get.body.len().to_string());
    assert!(!get.headers.contains_key("etag"));
    let context = get.header("quorate-context");
    assert_eq!(
        get.json(),
        json!({"context": context, "siblings": [
            {"value_base64": STANDARD.encode("one"), "content_type": "text/plain", "meta": {"by": "a"}, "dot": "00000001:1"},
            {"value_base64": STANDARD.encode("two"), "content_type": null, "meta": {}, "dot": "00000001:2"},
        ]})
    );

    http.ask("PUT", KEY, &[("quorate-context", context)], "both")
        .await
        .is(204);
    assert_eq!(&http.get(KEY).await.is(200).body[..], b"both");
}

#[tokio::test]
async fn siblings_as_multipart() {
    let http = Http::new();
    http.ask(
        "PUT",
        KEY,
        &[("content-type", "text/plain"), ("quorate-meta-by", "a")],
        "one",
    )
    .await
    .is(204);
    http.put(KEY, "--\r\ntwo").await.is(204);
    let get = http
        .ask("GET", KEY, &[("accept", "multipart/mixed")], "")
        .await;
    get.is(300);
    assert_eq!(get.header("quorate-siblings"), "2");
    assert_eq!(get.header("vary"), "accept");
    assert_eq!(get.header("content-length"), get.body.len().to_string());
    let boundary = get
        .header("content-type")
        .strip_prefix("multipart/mixed; boundary=")
        .unwrap();
    let expected = format!(
        "--{boundary}\r\ncontent-type: text/plain\r\nquorate-meta-by: a\r\ncontent-length: 3\r\n\
         quorate-dot: 00000001:1\r\n\r\none\r\n--{boundary}\r\ncontent-type: application/octet-stream\r\n\
         content-length: 7\r\nquorate-dot: 00000001:2\r\n\r\n--\r\ntwo\r\n--{boundary}--\r\n"
    );
    assert_eq!(std::str::from_utf8(&get.body).unwrap(), expected);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let http = Http::new();
    let absent = http.ask("HEAD", KEY, &[], "").await;
    absent.is(404);
    assert!(absent.body.is_empty());
    assert_ne!(absent.header("content-length"), "0");

    for (status, value) in [(200, "one"), (300, "two")] {
        http.put(KEY, value).await.is(204);
        let (head, get) = (http.ask("HEAD", KEY, &[], "").await, http.get(KEY).await);
        head.is(status);
        get.is(status);
        assert!(head.body.is_empty());
        let of = |reply: &common::Reply| {
            let mut headers = reply.headers.clone();
            headers.remove("quorate-request-id");
            headers
        };
        assert_eq!(of(&head), of(&get));
        assert_eq!(head.header("content-length"), get.body.len().to_string());
    }
}

#[tokio::test]
async fn return_body_shows_what_the_key_holds_afterwards() {
    let http = Http::new();
    let path = format!("{KEY}?return_body=true");
    let put = http
        .ask("PUT", &path, &[("content-type", "text/plain")], "one")
        .await;
    put.is(200);
    assert_eq!(&put.body[..], b"one");
    assert_eq!(put.header("content-type"), "text/plain");
    assert_eq!(put.header("etag"), "\"00000001:1\"");
    assert!(put.headers.contains_key("quorate-context"));

    // The put succeeded, whatever else is there: no status above 299.
    let put = http.put(&path, "two").await;
    put.is(200);
    assert_eq!(put.header("quorate-siblings"), "2");
    assert_eq!(
        put.json()["siblings"][1]["value_base64"],
        STANDARD.encode("two")
    );

    http.put(&format!("{KEY}?return_body=false"), "three")
        .await
        .is(204);
}

#[tokio::test]
async fn deletes() {
    let http = Http::new();
    http.ask("DELETE", KEY, &[], "").await.is(204);
    let first = http.put(KEY, "one").await;
    http.put(KEY, "two").await;
    let seen = [("quorate-context", first.header("quorate-context"))];
    let delete = http.ask("DELETE", KEY, &seen, "").await;
    delete.is(204);
    assert!(delete.body.is_empty());
    assert_eq!(&http.get(KEY).await.is(200).body[..], b"two");
    http.ask("DELETE", KEY, &[], "").await.is(204);
    http.get(KEY).await.problem(404, "absent");
    http.store.script(Answer::Absent);
    http.ask("DELETE", KEY, &[], "").await.is(204);
}

#[tokio::test]
async fn not_modified() {
    let http = Http::new();
    http.put(KEY, "one").await;
    let get = http.get(KEY).await;
    let tag = get.header("etag").to_owned();
    let again = http.ask("GET", KEY, &[("if-none-match", &tag)], "").await;
    again.is(304);
    assert!(again.body.is_empty());
    assert_eq!(again.header("etag"), tag);
    assert_eq!(
        again.header("quorate-context"),
        get.header("quorate-context")
    );
    http.ask("HEAD", KEY, &[("if-none-match", &tag)], "")
        .await
        .is(304);
    http.ask("GET", KEY, &[("if-none-match", "\"other\"")], "")
        .await
        .is(200);
    // Siblings have no one representation to be the same as.
    http.put(KEY, "two").await;
    http.ask("GET", KEY, &[("if-none-match", "*")], "")
        .await
        .is(300);
}

#[tokio::test]
async fn a_put_s_time_to_live_reaches_the_store() {
    let http = Http::new();
    for (query, lifetime) in [
        ("", None),
        ("?ttl=1h30m", Some(Lifetime::Ms(5_400_000))),
        ("?ttl=none", Some(Lifetime::Unlimited)),
    ] {
        http.put(&format!("{KEY}{query}"), "x").await;
        match http.store.last_call().1 {
            Request::Put(put) => assert_eq!(put.lifetime, lifetime, "{query}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn conditions_that_are_not_evaluated_are_refused() {
    let http = Http::new();
    for (method, name, value) in [
        ("PUT", "if-none-match", "\"a\""),
        ("DELETE", "if-none-match", "\"a\""),
        ("DELETE", "if-unmodified-since", "now"),
        (
            "PUT",
            "if-unmodified-since",
            "Thu, 01 Jan 1970 00:00:00 GMT",
        ),
        ("GET", "if-match", "*"),
    ] {
        http.ask(method, KEY, &[(name, value)], "x")
            .await
            .problem(422, "not-yet");
    }
    assert!(http.store.calls().is_empty());
}

#[tokio::test]
async fn writes_on_a_condition() {
    let http = Http::new();
    let ask = async |method: &str, name: &str, value: &str, body: &str| {
        http.ask(method, KEY, &[(name, value)], body).await
    };
    let absent = ask("PUT", "if-match", "*", "x").await;
    absent.problem(412, "condition-failed");
    let none = ask("DELETE", "if-match", "\"00000001:1\"", "").await;
    none.problem(412, "condition-failed");

    ask("PUT", "if-none-match", "*", "one").await.is(204);
    let again = ask("PUT", "if-none-match", "*", "two").await;
    let problem = again.problem(412, "condition-failed");
    assert!(
        problem["detail"].as_str().unwrap().contains("00000001:1"),
        "{problem}"
    );
    assert!(!again.headers.contains_key("retry-after"));
    let get = http.get(KEY).await;
    assert_eq!(&get.body[..], b"one");

    // The tag of an answer replaces just that, and once. A weak one never does.
    let tag = get.header("etag").to_owned();
    ask("PUT", "if-match", &format!("W/{tag}"), "x")
        .await
        .problem(412, "condition-failed");
    let several = format!("\"other\", {tag}");
    ask("PUT", "if-match", &several, "two").await.is(204);
    ask("PUT", "if-match", &tag, "x")
        .await
        .problem(412, "condition-failed");
    ask("DELETE", "if-match", &tag, "")
        .await
        .problem(412, "condition-failed");
    assert_eq!(&http.get(KEY).await.body[..], b"two");

    // Siblings have no tag that would match; all of them are something.
    http.put(KEY, "three").await.is(204);
    ask("PUT", "if-match", "\"00000001:2\", \"00000001:3\"", "x")
        .await
        .problem(412, "condition-failed");
    ask("PUT", "if-match", "*", "four").await.is(204);
    assert_eq!(&http.get(KEY).await.is(200).body[..], b"four");
    ask("DELETE", "if-none-match", "*", "")
        .await
        .problem(412, "condition-failed");
    ask("DELETE", "if-match", "*", "").await.is(204);
    http.get(KEY).await.problem(404, "absent");
}

#[tokio::test]
async fn a_condition_reads_and_so_takes_the_quorums_of_a_read() {
    let http = Http::new();
    let path = format!("{KEY}?r=all&pr=1&w=1");
    let on = [("if-none-match", "*")];
    http.ask("PUT", &path, &on, "x").await.is(204);
    let (_, Request::Put(put)) = http.store.last_call() else {
        panic!("not a put");
    };
    assert_eq!(put.condition, Some(Condition::Absent));
    assert_eq!(
        (put.options.r, put.options.pr),
        (Some(Quorum::All), Some(Quorum::Count(1)))
    );
    let calls = http.store.calls().len();
    let ignored = http.put(&path, "x").await;
    let problem = ignored.problem(400, "bad-parameter");
    assert_eq!(problem["parameter"], "r");
    for (name, value, status, slug) in [
        ("if-match", "00000001:1", 400, "malformed"),
        ("if-match", "", 400, "malformed"),
        ("if-none-match", "none", 400, "malformed"),
    ] {
        for method in ["PUT", "DELETE"] {
            let reply = http.ask(method, KEY, &[(name, value)], "x").await;
            reply.problem(status, slug);
        }
    }
    let both = [("if-match", "*"), ("if-none-match", "*")];
    http.ask("PUT", KEY, &both, "x")
        .await
        .problem(422, "impossible");
    assert_eq!(http.store.calls().len(), calls);
}

#[tokio::test]
async fn what_is_asked_to_explain_itself_does() {
    let http = Http::new();
    let path = format!("{KEY}?explain=true");
    let told = |reply: &common::Reply| {
        let header = reply.header("quorate-explain");
        let json: serde_json::Value = serde_json::from_str(header).unwrap();
        assert_eq!(json["coordinator"], "node-1");
        assert_eq!(json["needed"][0], "r=2 of 3");
        assert_eq!(json["replicas"][0]["region"], "\u{e9}t\u{e9}");
        assert!(header.is_ascii());
        json
    };
    // Also where nothing is, and in the document that says so.
    let absent = http.get(&path).await;
    let problem = absent.problem(404, "absent");
    assert_eq!(problem["explain"], told(&absent));
    let refused = http.ask("PUT", &path, &[("if-match", "*")], "x").await;
    let problem = refused.problem(412, "condition-failed");
    assert_eq!(problem["explain"], told(&refused));

    let put = http.put(&path, "one").await;
    told(put.is(204));
    let get = http.get(&path).await;
    told(get.is(200));
    assert_eq!(&get.body[..], b"one");
    let head = http.ask("HEAD", &path, &[], "").await;
    told(head.is(200));
    let tag = get.header("etag");
    let known = http.ask("GET", &path, &[("if-none-match", tag)], "").await;
    told(known.is(304));

    http.put(KEY, "two").await.is(204);
    let siblings = http.get(&path).await;
    siblings.is(300);
    assert_eq!(siblings.json()["explain"], told(&siblings));
    assert_eq!(
        siblings.header("content-length"),
        siblings.body.len().to_string()
    );
    let accept = [("accept", "multipart/mixed")];
    let parts = http.ask("GET", &path, &accept, "").await;
    told(parts.is(300));
    let gone = http.ask("DELETE", &path, &[], "").await;
    told(gone.is(204));

    // Who does not ask is not told.
    let get = http.get(KEY).await;
    assert!(!get.headers.contains_key("quorate-explain"));
    assert!(get.json().get("explain").is_none());
}

#[tokio::test]
async fn options_timeout_and_trace_reach_the_backend() {
    let http = Http::new();
    let trace = [(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )];
    let path = format!("{KEY}?w=all&pw=1&dw=one&timeout=250ms&sloppy=false");
    http.ask("PUT", &path, &trace, "x").await.is(204);
    let (header, request) = http.store.last_call();
    assert_eq!(header.deadline_ms, 250);
    assert_eq!(header.layout_version, 0);
    assert!(!header.forwarded);
    assert_eq!(
        header.trace,
        Some(Trace {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            flags: 1
        })
    );
    let Request::Put(put) = request else {
        panic!("{request:?}");
    };
    assert_eq!(
        put.options,
        Options {
            w: Some(Quorum::All),
            pw: Some(Quorum::Count(1)),
            dw: Some(Quorum::Count(1)),
            sloppy: Some(false),
            ..Options::default()
        }
    );
    assert_eq!((put.bucket.as_str(), put.key.as_str()), ("b", "k"));

    http.ask(
        "GET",
        &format!("{KEY}?r=1&pr=quorum"),
        &[("traceparent", "rubbish")],
        "",
    )
    .await
    .is(200);
    let (header, request) = http.store.last_call();
    // A broken one is no trace; the one that is begun in its stead is another each time.
    assert_eq!(header.deadline_ms, 0);
    let begun = header.trace.expect("a trace of the gateway's own");
    assert_ne!(begun.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    let Request::Get(get) = request else {
        panic!("{request:?}");
    };
    assert_eq!(
        (get.options.r, get.options.pr),
        (Some(Quorum::Count(1)), Some(Quorum::Majority))
    );

    http.ask("DELETE", &format!("{KEY}?r=1&w=2"), &[], "")
        .await
        .is(204);
    let (_, Request::Delete(delete)) = http.store.last_call() else {
        panic!("not a delete");
    };
    assert_eq!(
        (delete.options.r, delete.options.w),
        (Some(Quorum::Count(1)), Some(Quorum::Count(2)))
    );
}

#[tokio::test]
async fn every_mistake_in_a_parameter_is_refused_by_name() {
    let http = Http::new();
    for (method, query, status, slug, parameter) in [
        ("GET", "bogus=1", 400, "bad-parameter", "bogus"),
        ("GET", "timout=1s", 400, "bad-parameter", "timout"),
        ("GET", "r=1&r=2", 400, "bad-parameter", "r"),
        ("GET", "r=few", 400, "bad-parameter", "r"),
        ("GET", "r=", 400, "bad-parameter", "r"),
        ("GET", "r", 400, "bad-parameter", "r"),
        ("GET", "w=1", 400, "bad-parameter", "w"),
        (
            "GET",
            "return_body=true",
            400,
            "bad-parameter",
            "return_body",
        ),
        ("PUT", "r=1", 400, "bad-parameter", "r"),
        ("PUT", "return_body=1", 400, "bad-parameter", "return_body"),
        ("PUT", "timeout=5", 400, "bad-parameter", "timeout"),
        ("PUT", "timeout=soon", 400, "bad-parameter", "timeout"),
        ("PUT", "sloppy=maybe", 400, "bad-parameter", "sloppy"),
        ("PUT", "ttl=later", 400, "bad-parameter", "ttl"),
        ("DELETE", "ttl=1h", 400, "bad-parameter", "ttl"),
        ("GET", "r=0", 422, "impossible", "r"),
        ("GET", "r=201", 422, "impossible", "r"),
        ("PUT", "w=0", 422, "impossible", "w"),
        ("PUT", "timeout=0s", 422, "impossible", "timeout"),
        ("PUT", "timeout=1h30m", 422, "impossible", "timeout"),
        ("PUT", "ttl=0", 422, "impossible", "ttl"),
        ("PUT", "ttl=11years", 422, "impossible", "ttl"),
        ("GET", "explain=yes", 400, "bad-parameter", "explain"),
        ("PUT", "pr=0", 400, "bad-parameter", "pr"),
    ] {
        let reply = http.ask(method, &format!("{KEY}?{query}"), &[], "x").await;
        let problem = reply.problem(status, slug);
        assert_eq!(problem["parameter"], parameter, "{query}");
        assert!(
            problem["detail"].as_str().unwrap().contains(parameter),
            "{problem}"
        );
    }
    let typo = http
        .get(&format!("{KEY}?timout=1s"))
        .await
        .problem(400, "bad-parameter");
    assert_eq!(typo["nearest"], "timeout");
    assert_eq!(
        typo["valid"],
        json!(["r", "pr", "timeout", "sloppy", "explain"])
    );
    http.get(&format!("{KEY}?r=%zz"))
        .await
        .problem(400, "bad-parameter");
    assert!(http.store.calls().is_empty());
}

#[tokio::test]
async fn every_mistake_in_a_header_is_refused() {
    let http = Http::new();
    for (name, value, status, slug) in [
        (
            "content-encoding",
            &b"gzip"[..],
            400,
            "unsupported-encoding",
        ),
        ("content-range", b"bytes 0-0/1", 400, "malformed"),
        ("content-type", b"text/\xff", 400, "malformed"),
        ("quorate-meta-a", b"\xc3\xbc", 400, "malformed"),
        ("quorate-meta-a", b"\xff", 400, "malformed"),
        ("quorate-meta-", b"x", 400, "malformed"),
        ("quorate-context", b"", 400, "bad-context"),
        ("quorate-context", b"A", 400, "bad-context"),
        ("quorate-context", b"AA==", 400, "bad-context"),
        ("quorate-context", b"++//", 400, "bad-context"),
        ("quorate-context", b"AAAA", 400, "bad-context"),
        ("quorate-meta-big", &[b'x'; 20_000], 413, "too-large"),
    ] {
        let request = HttpRequest::put(KEY)
            .header(name, HeaderValue::from_bytes(value).unwrap())
            .body(Body::from("x"))
            .unwrap();
        http.send(request).await.problem(status, slug);
    }
    // Only the context that decodes reaches the backend, which refuses it.
    assert_eq!(http.store.calls().len(), 1);
    assert_eq!(http.store.len(), 0);
    http.ask("PUT", KEY, &[("content-encoding", "identity")], "x")
        .await
        .is(204);

    let context = URL_SAFE_NO_PAD.encode(br#"["b","other",[1]]"#);
    let foreign = http
        .ask("PUT", KEY, &[("quorate-context", &context)], "x")
        .await;
    let problem = foreign.problem(400, "bad-context");
    assert!(
        problem["detail"].as_str().unwrap().contains("another key"),
        "{problem}"
    );
}

#[tokio::test]
async fn values_beyond_the_limit() {
    let http = Http::new();
    http.put(KEY, &"x".repeat(VALUE_BYTES_MAX)).await.is(204);
    let problem = http
        .put(KEY, &"x".repeat(VALUE_BYTES_MAX + 1))
        .await
        .problem(413, "too-large");
    assert_eq!(
        (&problem["size"], &problem["limit"]),
        (&json!(1001), &json!(1000))
    );
    assert_eq!(http.store.values("b", "k").len(), 1);
}

#[tokio::test]
async fn keys_are_taken_from_the_raw_path() {
    for (path, key) in [
        ("a//b", "a//b"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("%2e%2e/x", "../x"),
        ("..", ".."),
        (".", "."),
        ("../../../healthz", "../../../healthz"),
        ("/", "/"),
        ("/leading", "/leading"),
        ("trailing/", "trailing/"),
        ("%C3%BC", "ü"),
        ("ü", "ü"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%00", "\0"),
        ("q%3Fr=1", "q?r=1"),
        ("%23", "#"),
        ("{x}", "{x}"),
        ("*", "*"),
        (":id", ":id"),
        ("keys/keys/", "keys/keys/"),
    ] {
        let http = Http::new();
        let path = format!("/v1/buckets/b/keys/{path}");
        http.put(&path, key).await.is(204);
        assert_eq!(http.store.values("b", key).len(), 1, "{path}");
        assert_eq!(&http.get(&path).await.is(200).body[..], key.as_bytes());
    }
    // The two spellings of one key are one key.
    let http = Http::new();
    http.put("/v1/buckets/b/keys/a%2fb", "x").await.is(204);
    http.get("/v1/buckets/b/keys/a/b").await.is(200);
    http.put("/v1/buckets/%C3%BC%2F/keys/k", "x").await.is(204);
    assert_eq!(http.store.values("ü/", "k").len(), 1);
}

#[tokio::test]
async fn keys_and_buckets_that_cannot_be() {
    let http = Http::new();
    for (path, status, slug) in [
        ("/v1/buckets/b/keys/%FF".to_owned(), 400, "malformed"),
        ("/v1/buckets/b/keys/%".to_owned(), 400, "malformed"),
        ("/v1/buckets/b/keys/a%2".to_owned(), 400, "malformed"),
        ("/v1/buckets/b/keys/%zz".to_owned(), 400, "malformed"),
        ("/v1/buckets/%FF/keys/k".to_owned(), 400, "malformed"),
        ("/v1/buckets/b/keys/".to_owned(), 422, "impossible"),
        ("/v1/buckets//keys/k".to_owned(), 422, "impossible"),
        (
            format!("/v1/buckets/b/keys/{}", "x".repeat(1025)),
            422,
            "impossible",
        ),
        (
            format!("/v1/buckets/b/keys/{}x", "%C3%BC".repeat(512)),
            422,
            "impossible",
        ),
        (
            format!("/v1/buckets/{}/keys/k", "x".repeat(129)),
            422,
            "impossible",
        ),
    ] {
        for method in ["PUT", "GET", "DELETE"] {
            http.ask(method, &path, &[], "").await.problem(status, slug);
        }
    }
    assert!(http.store.calls().is_empty());
    http.put(&format!("/v1/buckets/b/keys/{}", "x".repeat(1024)), "")
        .await
        .is(204);
    http.put(&format!("/v1/buckets/b/keys/{}", "%C3%BC".repeat(512)), "")
        .await
        .is(204);
    http.put(&format!("/v1/buckets/{}/keys/k", "x".repeat(128)), "")
        .await
        .is(204);
}

#[tokio::test]
async fn unknown_routes_and_methods() {
    let http = Http::new();
    for path in [
        "/",
        "/v1",
        "/v1/buckets/b/keyz",
        "/healthz/",
        "/HEALTHZ",
        "//healthz",
        "*",
    ] {
        http.get(path).await.problem(404, "no-such-route");
    }
    for method in ["POST", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let reply = http.ask(method, KEY, &[], "x").await;
        reply.problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), "GET, HEAD, PUT, DELETE");
    }
    let reply = http.ask("POST", "/readyz", &[], "").await;
    reply.problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn probes() {
    let http = Http::new();
    http.get("/healthz").await.is(200);
    http.get("/readyz").await.is(200);
    assert!(
        http.ask("HEAD", "/readyz", &[], "")
            .await
            .is(200)
            .body
            .is_empty()
    );
    http.store.unready("the layout is not known yet");
    http.get("/healthz").await.is(200);
    let reply = http.get("/readyz").await;
    let problem = reply.problem(503, "not-ready");
    assert_eq!(problem["detail"], "the layout is not known yet");
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn every_refusal_has_its_status() {
    let why = || "the reason".to_owned();
    for (refusal, status, slug, members) in [
        (Refusal::Malformed(why()), 400, "malformed", json!({})),
        (Refusal::BadContext(why()), 400, "bad-context", json!({})),
        (
            Refusal::TooLarge { size: 9, limit: 8 },
            413,
            "too-large",
            json!({"size": 9, "limit": 8}),
        ),
        (Refusal::Impossible(why()), 422, "impossible", json!({})),
        (
            Refusal::TooManySiblings {
                count: 65,
                limit: 64,
            },
            409,
            "too-many-siblings",
            json!({"count": 65, "limit": 64}),
        ),
        (
            Refusal::SiblingsTooLarge { size: 9, limit: 8 },
            409,
            "too-many-siblings",
            json!({"size": 9, "limit": 8}),
        ),
        (Refusal::NotAllowed(why()), 403, "not-allowed", json!({})),
        (
            Refusal::Unavailable {
                needed: 2,
                answered: 1,
            },
            503,
            "unavailable",
            json!({"needed": 2, "answered": 1}),
        ),
        (Refusal::Overloaded, 503, "overloaded", json!({})),
        (Refusal::Draining, 503, "draining", json!({})),
        (Refusal::Poisoned(why()), 503, "disk-failed", json!({})),
        (
            Refusal::WrongLayout { version: 7 },
            503,
            "wrong-layout",
            json!({"layout_version": 7}),
        ),
        (Refusal::Corrupt(why()), 503, "corrupt", json!({})),
    ] {
        let http = Http::new();
        http.store.script(Answer::Refused(refusal.clone()));
        for method in ["GET", "PUT", "DELETE"] {
            let reply = http.ask(method, KEY, &[], "x").await;
            let problem = reply.problem(status, slug);
            for (name, value) in members.as_object().unwrap() {
                assert_eq!(&problem[name], value, "{refusal:?}");
            }
            assert_eq!(
                reply.headers.contains_key("retry-after"),
                status == 503,
                "{refusal:?}"
            );
            assert_eq!(refusal.is_passing(), status == 503);
        }
        let head = http.ask("HEAD", KEY, &[], "").await;
        head.is(status);
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn an_unmet_quorum_is_unknown_not_failed() {
    let http = Http::new();
    for may_have_written in [true, false] {
        http.store.script(Answer::Unmet(Unmet {
            needed: 2,
            answered: 1,
            timed_out: true,
            may_have_written,
        }));
        let reply = http.put(KEY, "x").await;
        let problem = reply.problem(504, "unmet");
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(
            (&problem["needed"], &problem["answered"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(problem["may_have_written"], may_have_written);
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(detail.contains("unknown"), may_have_written, "{detail}");
    }
}

#[tokio::test]
async fn answers_that_fit_no_request_are_internal_errors() {
    let context = Bytes::from_static(b"c");
    let described = Answer::Described(Description {
        node: "n".to_owned(),
        layout: Bytes::new(),
    });
    for (method, answer) in [
        (
            "GET",
            Answer::Stored {
                context: context.clone(),
            },
        ),
        ("GET", Answer::Deleted),
        ("PUT", Answer::Absent),
        ("PUT", described.clone()),
        ("DELETE", described),
    ] {
        let http = Http::new();
        http.store.script(answer);
        http.ask(method, KEY, &[], "x")
            .await
            .problem(500, "internal");
    }
    let http = Http::new();
    http.store.script(Answer::Found {
        siblings: vec![],
        context,
    });
    http.get(KEY).await.problem(404, "absent");
}

#[tokio::test]
async fn values_stored_by_other_ways_never_break_a_response() {
    let http = Http::new();
    http.store.script(Answer::Found {
        siblings: vec![Shown {
            dot: "odd dot \"\r\n".to_owned(),
            value: Value {
                data: Bytes::from_static(b"x"),
                content_type: Some("text/plain\r\nset-cookie: a=b".to_owned()),
                meta: vec![
                    ("with space".to_owned(), "x".to_owned()),
                    ("name".to_owned(), "ü".to_owned()),
                    ("Fine".to_owned(), "yes".to_owned()),
                ],
            },
            expires_ms: Some(u64::MAX),
        }],
        context: Bytes::from_static(b"c"),
    });
    let get = http.get(KEY).await;
    get.is(200);
    assert_eq!(get.header("content-type"), "application/octet-stream");
    assert_eq!(get.header("quorate-unshown-meta"), "2");
    assert_eq!(get.header("quorate-meta-fine"), "yes");
    assert_eq!(get.header("quorate-expires"), "9999-12-31T23:59:59.999Z");
    let tag = get.header("etag").to_owned();
    http.ask("GET", KEY, &[("if-none-match", &tag)], "")
        .await
        .is(304);
}

#[tokio::test]
async fn request_ids() {
    let http = Http::new();
    let given = http
        .ask("GET", KEY, &[("quorate-request-id", "mine-1")], "")
        .await;
    assert_eq!(given.header("quorate-request-id"), "mine-1");
    let (first, second) = (http.get(KEY).await, http.get("/nowhere").await);
    assert_ne!(
        first.header("quorate-request-id"),
        second.header("quorate-request-id")
    );
}

#[tokio::test]
async fn a_request_s_id_is_that_of_the_trace_it_sends_on() {
    let http = Http::new();
    let reply = http.get(KEY).await;
    let trace = http.store.last_call().0.trace.expect("a trace");
    let id = format!("{:032x}", trace.trace_id);
    assert_eq!(reply.header("quorate-request-id"), id);
}

#[tokio::test]
async fn other_routes_can_stand_beside() {
    let http = Http::new();
    let router = http
        .router
        .clone()
        .route("/metrics", axum::routing::get(|| async { "m" }));
    let http = Http { router, ..http };
    http.put(KEY, "x").await.is(204);
    http.get("/healthz").await.is(200);
    let request = HttpRequest::get("/metrics").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(http.router.clone(), request)
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any key, percent-encoded however much, names itself.
    #[test]
    fn any_key_round_trips(
        key in prop_oneof![
            proptest::collection::vec(any::<char>(), 1..=64).prop_map(String::from_iter),
            "(/|\\.|%|%2F|é|a){1,40}",
        ],
        bucket in "\\PC{1,30}",
    ) {
        let (b, k) = (
            utf8_percent_encode(&bucket, NON_ALPHANUMERIC).to_string(),
            utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string(),
        );
        block_on(async {
            let http = Http::new();
            for k in [k.clone(), k.replace("%2F", "/"), k.replace("%2E", ".").to_lowercase_escapes()] {
                let path = format!("/v1/buckets/{b}/keys/{k}");
                http.ask("DELETE", &path, &[], "").await.is(204);
                http.put(&path, &key).await.is(204);
                assert_eq!(&http.get(&path).await.is(200).body[..], key.as_bytes());
                assert_eq!(http.store.values(&bucket, &key).len(), 1);
            }
        });
    }

    /// No path, query or header panics or reaches the backend half-read.
    #[test]
    fn nothing_panics(
        path in "[!-~]{0,40}",
        query in "(r|w|timeout|sloppy|=|&|%|[!-\"$-~]){0,20}",
        method in "GET|HEAD|PUT|DELETE|POST",
        name in "quorate-context|quorate-meta-[a-z]{0,3}|accept|if-none-match|if-match|traceparent|content-type",
        value in proptest::collection::vec(32u8..=255, 0..60),
    ) {
        let path = path.replace(['?', '#'], "/");
        let uri = format!("/v1/buckets/b/keys/{path}?{query}");
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let Ok(request) = HttpRequest::builder().method(method.as_str()).uri(uri).header(name, value).body(Body::from("x")) else {
            return Ok(());
        };
        block_on(async {
            let http = Http::new();
            let reply = http.send(request).await;
            assert_ne!(reply.status, 500);
            if reply.status.is_client_error() && method != "HEAD" {
                assert_eq!(reply.header("content-type"), "application/problem+json");
            }
        });
    }
}

trait LowercaseEscapes {
    fn to_lowercase_escapes(&self) -> String;
}

impl LowercaseEscapes for String {
    /// `%C3` as `%c3`: hexadecimal digits mean the same in either case.
    fn to_lowercase_escapes(&self) -> String {
        let mut out = String::new();
        let mut rest = 0;
        for c in self.chars() {
            rest = if c == '%' { 3 } else { rest };
            out.push(if rest > 0 { c.to_ascii_lowercase() } else { c });
            rest = if rest > 0 { rest - 1 } else { 0 };
        }
        out
    }
}

#[test]
fn a_store_is_a_backend() {
    fn is_backend<B: quorate_gateway::Backend>() {}
    is_backend::<Store>();
}
