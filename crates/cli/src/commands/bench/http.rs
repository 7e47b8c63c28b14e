//! Load over HTTP, on connections that stay open.
//!
//! A bare HTTP/1 connection of hyper's and a pool of this file's own: a general client spends more on choosing a
//! connection than on the request, and would not say how many it opens.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quorate_protocol::{Options, Quorum, TIMEOUT_DEFAULT};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::target::{Ask, Kind, Success, Target, Trouble};

/// How much longer than the request's own time an answer is awaited: the node answers when that time is up, and its
/// answer says more than our silence.
const SLACK: Duration = Duration::from_millis(500);
/// Of problem documents, which are short, no more than this is shown.
const EXAMPLE_CHARS_MAX: usize = 300;

const CONTEXT: &str = "quorate-context";
const SIBLINGS: &str = "quorate-siblings";

/// A node or gateway to be asked over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Base {
    /// As it is dialled.
    address: String,
    /// As it is named in requests.
    host: HeaderValue,
    /// What stands before `/v1`, without a slash at its end.
    path: String,
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}: write a node's URL, as in http://127.0.0.1:8080");
        let uri: Uri = text.parse().map_err(|_| wrong("this is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("nodes speak plain HTTP")),
            _ => return Err(wrong("the http:// is missing")),
        }
        let host = uri.host().ok_or_else(|| wrong("the host is missing"))?;
        if uri.query().is_some() {
            return Err(wrong("a query has no place here"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Ok(Base {
            address: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            host: HeaderValue::from_str(authority).map_err(|_| wrong("this is no host"))?,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Some nodes, and connections to them that take turns.
pub(super) struct Http {
    bases: Vec<Base>,
    /// Between the node's path and the key.
    route: String,
    /// Parameters by kind of request, with their question mark.
    reading: String,
    writing: String,
    deleting: String,
    timeout: Duration,
    /// How many connections may be in use.
    free: RefCell<Rc<Semaphore>>,
    /// Open and not in use, the one that was used last at the end.
    idle: RefCell<VecDeque<Connection>>,
    /// How many were dialled: each next one goes to the next node.
    dialled: Cell<usize>,
}

/// An open connection.
struct Connection {
    base: usize,
    sender: SendRequest<Full<Bytes>>,
}

impl Http {
    /// A target with these nodes, of which there is at least one.
    pub(super) fn new(
        bases: Vec<Base>,
        bucket: &str,
        options: Options,
        timeout: Option<Duration>,
    ) -> Http {
        let bucket = utf8_percent_encode(bucket, NON_ALPHANUMERIC);
        let read = [("r", options.r), ("pr", options.pr)];
        let write = [("w", options.w), ("pw", options.pw), ("dw", options.dw)];
        let both: Vec<_> = read.into_iter().chain(write).collect();
        Http {
            bases,
            route: format!("/v1/buckets/{bucket}/keys/"),
            reading: query(&read, timeout),
            writing: query(&write, timeout),
            deleting: query(&both, timeout),
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT) + SLACK,
            free: RefCell::new(Rc::new(Semaphore::new(1))),
            idle: RefCell::default(),
            dialled: Cell::new(0),
        }
    }

    /// From now on there are at most so many connections, which are dialled when they are needed. Called while no request is
    /// under way. At least one to each node: says how many.
    pub(super) fn limit(&self, conns: usize) -> usize {
        let conns = conns.max(self.bases.len());
        *self.free.borrow_mut() = Rc::new(Semaphore::new(conns));
        self.idle.borrow_mut().clear();
        self.dialled.set(0);
        conns
    }

    /// A connection that is not in use.
    async fn connection(&self) -> Result<Connection, Trouble> {
        loop {
            let idle = self.idle.borrow_mut().pop_front();
            let Some(mut connection) = idle else {
                return self.dial().await;
            };
            // The node may have closed it meanwhile.
            if connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
    }

    async fn dial(&self) -> Result<Connection, Trouble> {
        let dialled = self.dialled.get();
        self.dialled.set(dialled.wrapping_add(1));
        let base = dialled % self.bases.len();
        let address = &self.bases[base].address;
        let unreachable = |error: &dyn std::fmt::Display| {
            Trouble::new("unreachable", format!("{address}: {error}"))
        };
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| unreachable(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(&error))?;
        let (sender, driver) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        // It ends with the connection, and the request that was under way hears of it.
        tokio::spawn(driver);
        Ok(Connection { base, sender })
    }

    fn request(&self, ask: &Ask, base: &Base) -> Result<Request<Full<Bytes>>, Trouble> {
        let (method, query) = match ask.kind {
            Kind::Put => (Method::PUT, &self.writing),
            Kind::Get => (Method::GET, &self.reading),
            Kind::Delete => (Method::DELETE, &self.deleting),
        };
        let mut uri = String::with_capacity(128);
        // Keys of the workload need no encoding.
        for part in [&base.path, &self.route, &ask.key, query] {
            uri.push_str(part);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, base.host.clone());
        if let Some(context) = &ask.context {
            let context = HeaderValue::from_maybe_shared(context.clone());
            let context = context.map_err(|error| Trouble::new("bad context", error))?;
            request = request.header(CONTEXT, context);
        }
        let request = request.body(Full::new(ask.value.clone()));
        request.map_err(|error| Trouble::new("bad request", error))
    }

    async fn exchange(&self, ask: Ask) -> Result<Success, Trouble> {
        let mut connection = self.connection().await?;
        let request = self.request(&ask, &self.bases[connection.base])?;
        let lost = |error: hyper::Error| Trouble::new("connection lost", error);
        let response = connection.sender.send_request(request).await;
        let (head, body) = response.map_err(lost)?.into_parts();
        let answer = read(head.status, &head.headers, ask.kind, body).await;
        if answer.whole {
            self.idle.borrow_mut().push_back(connection);
        }
        answer.result
    }
}

impl Target for Http {
    async fn perform(&self, ask: Ask) -> Result<Success, Trouble> {
        let free = self.free.borrow().clone();
        let exchange = async {
            let _turn = free.acquire().await;
            self.exchange(ask).await
        };
        timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            Err(Trouble::new(
                "timed out",
                format!("no answer within {} ms", self.timeout.as_millis()),
            ))
        })
    }
}

/// An answer, and whether it was read to its end, so that the connection can carry the next.
struct Read {
    result: Result<Success, Trouble>,
    whole: bool,
}

async fn read(status: StatusCode, headers: &HeaderMap, kind: Kind, body: Incoming) -> Read {
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Read {
                result: Err(Trouble::new("connection lost", error)),
                whole: false,
            };
        }
    };
    let values = match status {
        StatusCode::OK => 1,
        StatusCode::MULTIPLE_CHOICES => headers
            .get(SIBLINGS)
            .and_then(|count| count.to_str().ok()?.parse().ok())
            .unwrap_or(2),
        _ => 0,
    };
    let context = headers
        .get(CONTEXT)
        .map(|context| Bytes::copy_from_slice(context.as_bytes()));
    let success = |absent| Success {
        absent,
        values,
        bytes: body.len(),
        context,
    };
    let result = if status.is_success() || status == StatusCode::MULTIPLE_CHOICES {
        Ok(success(false))
    } else {
        match problem(headers, &body).as_deref() {
            Some("absent") => Ok(success(true)),
            slug => Err(failed(status, slug, kind, &body)),
        }
    };
    Read {
        result,
        whole: true,
    }
}

/// The kind of a problem document: what its type ends with.
fn problem(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    if !content_type.starts_with("application/problem+json") {
        return None;
    }
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let kind = document.get("type")?.as_str()?;
    Some(kind.rsplit([':', '/']).next()?.to_owned())
}

fn failed(status: StatusCode, slug: Option<&str>, kind: Kind, body: &[u8]) -> Trouble {
    let name = match slug {
        Some("unmet") if kind == Kind::Get => "unmet".to_owned(),
        Some("unmet") => "unmet, outcome unknown".to_owned(),
        Some(slug) => format!("refused: {slug}"),
        None => format!("status {}", status.as_u16()),
    };
    let text = String::from_utf8_lossy(body);
    let example: String = text.chars().take(EXAMPLE_CHARS_MAX).collect();
    Trouble::new(name, format!("{status}: {example}"))
}

/// Parameters of a request.
fn query(quorums: &[(&str, Option<Quorum>)], timeout: Option<Duration>) -> String {
    let mut query = String::new();
    let mut add = |name: &str, value: &dyn std::fmt::Display| {
        let mark = if query.is_empty() { '?' } else { '&' };
        // A string takes all that is written to it.
        let _ = write!(query, "{mark}{name}={value}");
    };
    for (name, quorum) in quorums {
        if let Some(quorum) = quorum {
            add(name, quorum);
        }
    }
    if let Some(timeout) = timeout {
        add("timeout", &format_args!("{}ms", timeout.as_millis().max(1)));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_plain_http_with_a_host() {
        let base: Base = "http://127.0.0.1:8080/".parse().unwrap();
        assert_eq!(base.address, "127.0.0.1:8080");
        assert_eq!(
            (base.host.as_bytes(), &*base.path),
            (&b"127.0.0.1:8080"[..], "")
        );
        let base: Base = "http://[::1]/gate/".parse().unwrap();
        assert_eq!((&*base.address, &*base.path), ("[::1]:80", "/gate"));
        for wrong in [
            "",
            "127.0.0.1:8080",
            "https://h",
            "http://",
            "http://h/?a=b",
            "h",
        ] {
            let error = wrong.parse::<Base>().unwrap_err();
            assert!(error.contains("http://127.0.0.1:8080"), "{wrong}: {error}");
        }
    }

    #[test]
    fn parameters_are_those_that_were_given() {
        assert_eq!(query(&[("r", None)], None), "");
        let quorums = [
            ("w", Some(Quorum::Count(2))),
            ("pw", None),
            ("dw", Some(Quorum::All)),
        ];
        let timeout = Some(Duration::from_millis(1500));
        assert_eq!(query(&quorums, timeout), "?w=2&dw=all&timeout=1500ms");
    }

    #[test]
    fn problems_are_told_by_the_end_of_their_type() {
        let mut headers = HeaderMap::new();
        let body = br#"{"type": "urn:quorate:problem:overloaded", "title": "x"}"#;
        assert_eq!(problem(&headers, body), None);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        assert_eq!(problem(&headers, body).as_deref(), Some("overloaded"));
        assert_eq!(problem(&headers, b"{"), None);
        let trouble = failed(StatusCode::GATEWAY_TIMEOUT, Some("unmet"), Kind::Put, b"x");
        assert_eq!(trouble.kind, "unmet, outcome unknown");
        let trouble = failed(StatusCode::BAD_GATEWAY, None, Kind::Put, b"x");
        assert_eq!(trouble.kind, "status 502");
    }
}
