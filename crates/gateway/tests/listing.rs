//! Listings over HTTP: pages, streams of lines, and how a stream that goes wrong differs from one that ends.

mod common;

use common::{Http, Reply};
use quorate_protocol::{Answer, Quorum, Refusal, Request, Unmet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LINES: (&str, &str) = ("accept", "application/x-ndjson");

async fn with_keys(count: usize) -> Http {
    let http = Http::new();
    for i in 0..count {
        let path = format!("/v1/buckets/b/keys/key-{i:05}");
        http.put(&path, "v").await.is(204);
    }
    http
}

fn keys(reply: &Reply) -> Vec<String> {
    let text = std::str::from_utf8(&reply.body).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json.as_object().unwrap().len(), 1, "{line}");
            json["key"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn pages() {
    let http = with_keys(5).await;
    http.put("/v1/buckets/b/keys/%C3%BC%2F%22", "v")
        .await
        .is(204);
    let reply = http.get("/v1/buckets/b/keys?limit=2").await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(
        reply.is(200).json(),
        serde_json::json!({"keys": ["key-00000", "key-00001"], "next": "key-00001"})
    );
    let reply = http
        .get("/v1/buckets/b/keys?after=key-00003&r=one&pr=2&timeout=2s&sloppy=false")
        .await;
    assert_eq!(
        reply.is(200).json(),
        serde_json::json!({"keys": ["key-00004", "ü/\""], "next": null})
    );
    let (header, Request::List(list)) = http.store.last_call() else {
        panic!("no listing");
    };
    assert_eq!(header.deadline_ms, 2_000);
    assert_eq!(list.limit, 1_000);
    assert_eq!(list.options.r, Some(Quorum::Count(1)));
    assert_eq!(list.options.pr, Some(Quorum::Count(2)));

    let reply = http.get("/v1/buckets/b/keys?prefix=%C3%BC/").await;
    assert_eq!(reply.json()["keys"], serde_json::json!(["ü/\""]));
    let reply = http.get("/v1/buckets/none/keys").await;
    assert_eq!(
        reply.is(200).json(),
        serde_json::json!({"keys": [], "next": null})
    );
    let reply = http.ask("HEAD", "/v1/buckets/b/keys", &[], "").await;
    assert!(reply.is(200).body.is_empty());
}

#[tokio::test]
async fn lines_go_on_to_the_end_page_by_page() {
    let http = with_keys(2_500).await;
    let before = http.store.calls().len();
    let reply = http.ask("GET", "/v1/buckets/b/keys", &[LINES], "").await;
    assert_eq!(reply.is(200).header("content-type"), "application/x-ndjson");
    assert!(!reply.headers.contains_key("content-length"));
    let found = keys(&reply);
    assert_eq!(found.len(), 2_500);
    assert!(found.is_sorted());
    assert_eq!(http.store.calls().len() - before, 3);

    let path = "/v1/buckets/b/keys?limit=1200&after=key-00009&prefix=key-";
    let found = keys(&http.ask("GET", path, &[LINES], "").await);
    assert_eq!((found.len(), found[0].as_str()), (1_200, "key-00010"));
    let path = "/v1/buckets/none/keys";
    assert_eq!(keys(&http.ask("GET", path, &[LINES], "").await).len(), 0);
    let reply = http.ask("HEAD", "/v1/buckets/b/keys", &[LINES], "").await;
    assert!(reply.is(200).body.is_empty());
}

#[tokio::test]
async fn what_cannot_be_listed_is_refused() {
    let http = with_keys(1).await;
    let long = "x".repeat(1025);
    for (query, status, slug) in [
        ("limit=0", 422, "impossible"),
        ("limit=10001", 422, "impossible"),
        ("limit=many", 400, "bad-parameter"),
        ("limit=%2B1", 400, "bad-parameter"),
        ("limit=", 400, "bad-parameter"),
        ("limit=99999999999999999999", 400, "bad-parameter"),
        ("limit=1&limit=1", 400, "bad-parameter"),
        ("r=0", 422, "impossible"),
        ("w=1", 400, "bad-parameter"),
        ("explain=true", 400, "bad-parameter"),
        ("prefx=a", 400, "bad-parameter"),
        ("prefix=%FF", 400, "bad-parameter"),
        (&format!("prefix={long}"), 422, "impossible"),
        (&format!("after={long}"), 422, "impossible"),
    ] {
        for headers in [&[][..], &[LINES]] {
            // Of a stream, a limit may be more than a page has.
            if query == "limit=10001" && !headers.is_empty() {
                continue;
            }
            let path = format!("/v1/buckets/b/keys?{query}");
            let before = http.store.calls().len();
            http.ask("GET", &path, headers, "")
                .await
                .problem(status, slug);
            assert_eq!(http.store.calls().len(), before, "{query}");
        }
    }
    let problem = http.get("/v1/buckets/b/keys?prefx=a").await;
    assert_eq!(problem.json()["nearest"], "prefix");
    let reply = http.put("/v1/buckets/b/keys", "v").await;
    reply.problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), "GET, HEAD");
    let name = format!("/v1/buckets/{}/keys", "b".repeat(129));
    http.get(&name).await.problem(422, "impossible");
    // A key that is empty is no listing.
    http.get("/v1/buckets/b/keys/")
        .await
        .problem(422, "impossible");
    // What a key may be asked, and a listing may not.
    let get = http.get("/v1/buckets/b/keys/key-00000?limit=1").await;
    get.problem(400, "bad-parameter");
}

#[tokio::test]
async fn what_goes_wrong_before_the_stream_has_a_status() {
    let http = with_keys(1).await;
    http.store.script(Answer::Refused(Refusal::Unavailable {
        needed: 2,
        answered: 1,
    }));
    for headers in [&[][..], &[LINES]] {
        let reply = http.ask("GET", "/v1/buckets/b/keys", headers, "").await;
        reply.problem(503, "unavailable");
    }
    http.store.script(Answer::Unmet(Unmet {
        needed: 2,
        answered: 1,
        timed_out: true,
        may_have_written: false,
    }));
    let reply = http.get("/v1/buckets/b/keys").await;
    reply.problem(504, "unmet");
    http.store.script(Answer::Deleted);
    http.get("/v1/buckets/b/keys")
        .await
        .problem(500, "internal");
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_why_and_does_not_end() {
    let http = with_keys(1_500).await;
    let fails = Answer::Refused(Refusal::NotAllowed("no more".to_owned()));
    http.store.script_after(1_501, fails);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = http.router.clone();
    tokio::spawn(quorate_gateway::serve(
        listener,
        router,
        std::future::pending(),
    ));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        "GET /v1/buckets/b/keys HTTP/1.1\r\nhost: x\r\naccept: application/x-ndjson\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // Reset or closed: either is no end of a chunked body.
    let _ = stream.read_to_end(&mut all).await;
    let text = String::from_utf8(all).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("{\"key\":\"key-00999\"}"));
    let last = text.lines().rfind(|line| line.starts_with('{')).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["status"], 403, "{last}");
    assert!(!text.ends_with("0\r\n\r\n"), "it looks like an end");
}
