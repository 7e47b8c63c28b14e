//! What only shows on real sockets: bodies shorter and longer than announced, chunks, refusals before the body,
//! shutdown.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Http, VALUE_BYTES_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    http: Http,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let http = Http::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = http.router.clone();
        let ended = tokio::spawn(quorate_gateway::serve(listener, router, async {
            let _ = stopped.await;
        }));
        Server {
            http,
            address,
            stop,
            ended,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// Sends these bytes, says that no more will come, and reads until the server closes.
    async fn send_and_end(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut out)).await;
    // A reset after the answer counts as its end.
    let _ = read.expect("the server did not close");
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads until the response so far contains this.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut out = String::new();
    let mut buffer = [0; 4096];
    while !out.contains(wanted) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
        let count = read.expect("no answer").unwrap();
        assert_ne!(count, 0, "closed after {out:?}");
        out.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    out
}

fn put(headers: &str, body: &str) -> Vec<u8> {
    format!("PUT /v1/buckets/b/keys/k HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n{body}").into_bytes()
}

/// A put after which the server closes.
fn last_put(headers: &str, body: &str) -> Vec<u8> {
    put(&format!("connection: close\r\n{headers}"), body)
}

#[tokio::test]
async fn put_and_get_on_one_connection() {
    let server = Server::start().await;
    let mut request = put("content-length: 5", "hello");
    request.extend_from_slice(
        b"GET /v1/buckets/b/keys/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    let answer = server.exchange(&request).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let stored = answer.split("HTTP/1.1 200").next().unwrap();
    assert!(!stored.contains("content-length"), "{stored}");
}

#[tokio::test]
async fn a_body_shorter_than_announced_stores_nothing() {
    let server = Server::start().await;
    let answer = server
        .send_and_end(&put("content-length: 10", "short"))
        .await;
    assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
    // Chunks without the last one, and one shorter than its size.
    for body in ["5\r\nshort\r\n", "a\r\nshort", "zz\r\n"] {
        let answer = server
            .send_and_end(&put("transfer-encoding: chunked", body))
            .await;
        assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
    }
    assert!(server.http.store.calls().is_empty());
}

#[tokio::test]
async fn bytes_behind_the_announced_ones_are_no_part_of_the_value() {
    let server = Server::start().await;
    let answer = server
        .exchange(&put("content-length: 2", "long\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    // They are read as the next request, which they are not: refused, and the connection is closed.
    assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
    let values = server.http.store.values("b", "k");
    assert_eq!(&values[0].data[..], b"lo");
}

#[tokio::test]
async fn chunks_are_one_value() {
    let server = Server::start().await;
    let answer = server
        .exchange(&last_put(
            "transfer-encoding: chunked",
            "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_eq!(&server.http.store.values("b", "k")[0].data[..], b"hello");
}

#[tokio::test]
async fn chunks_beyond_the_limit_store_nothing() {
    let server = Server::start().await;
    let chunk = format!("190\r\n{}\r\n", "x".repeat(0x190));
    let body = chunk.repeat(VALUE_BYTES_MAX / 0x190 + 1) + "0\r\n\r\n";
    let answer = server
        .exchange(&last_put("transfer-encoding: chunked", &body))
        .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("urn:quorate:problem:too-large"), "{answer}");
    assert!(server.http.store.calls().is_empty());
}

#[tokio::test]
async fn too_much_announced_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream
        .write_all(&put("content-length: 1001", ""))
        .await
        .unwrap();
    let answer = read_until(&mut stream, "too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let mut stream = server.connect().await;
    stream
        .write_all(&put("content-length: 1001\r\nexpect: 100-continue", ""))
        .await
        .unwrap();
    let answer = read_until(&mut stream, "too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn who_sends_a_refused_body_anyway_still_reads_why() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let length = 4 * 1024 * 1024;
    stream
        .write_all(&put(&format!("content-length: {length}"), ""))
        .await
        .unwrap();
    // More than the sockets' buffers hold, so somebody has to read it.
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    let answer = read_until(&mut stream, "too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // And the connection can be used again.
    stream
        .write_all(&put("content-length: 1", "y"))
        .await
        .unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

#[tokio::test]
async fn leave_to_send_is_given_only_where_the_body_is_wanted() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream
        .write_all(&put("content-length: 2\r\nexpect: 100-continue", ""))
        .await
        .unwrap();
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"ok").await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");

    let request = "PUT /v1/buckets/b/keys/k?w=0 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "impossible").await;
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    assert_eq!(server.http.store.calls().len(), 1);
}

#[tokio::test]
async fn raw_paths_survive_the_socket() {
    let server = Server::start().await;
    let mut requests = Vec::new();
    for key in ["a//b", "..", "../x", "%2e%2e%2f", "ü", "a%2fb"] {
        let line = format!(
            "PUT /v1/buckets/b/keys/{key} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        );
        requests.extend_from_slice(line.as_bytes());
    }
    requests.extend_from_slice(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = server.exchange(&requests).await;
    assert_eq!(answer.matches("HTTP/1.1 204 ").count(), 6, "{answer}");
    for key in ["a//b", "..", "../x", "../", "ü", "a/b"] {
        assert_eq!(server.http.store.values("b", key).len(), 1, "{key}");
    }
}

#[tokio::test]
async fn head_sends_no_body() {
    let server = Server::start().await;
    server
        .exchange(&last_put("content-length: 5", "hello"))
        .await;
    let answer = server
        .exchange(b"HEAD /v1/buckets/b/keys/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn siblings_are_sent_with_their_length() {
    let server = Server::start().await;
    server.exchange(&last_put("content-length: 3", "one")).await;
    server.exchange(&last_put("content-length: 3", "two")).await;
    for accept in ["application/json", "multipart/mixed"] {
        let get = format!(
            "GET /v1/buckets/b/keys/k HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        );
        let answer = server.exchange(get.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 300 "), "{answer}");
        assert!(!answer.contains("transfer-encoding"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn rubbish_harms_nobody_else() {
    let server = Server::start().await;
    for rubbish in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"PUT /v1/buckets/b/keys/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/buckets/b/keys/k HTTP/9.9\r\n\r\n",
    ] {
        let answer = server.exchange(rubbish).await;
        assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
    }
    let answer = server.exchange(&last_put("content-length: 1", "x")).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_eq!(server.http.store.calls().len(), 1);
}

#[tokio::test]
async fn shutdown_lets_a_request_end_and_takes_no_other() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    // Leave to send the body tells that the request is under way.
    busy.write_all(&put("content-length: 2\r\nexpect: 100-continue", ""))
        .await
        .unwrap();
    read_until(&mut busy, "100 Continue\r\n\r\n").await;
    server.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    busy.write_all(b"ok").await.unwrap();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    tokio::time::timeout(PATIENCE, server.ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
