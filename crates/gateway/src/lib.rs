//! HTTP to requests and answers to HTTP.
//!
//! [`router`] turns HTTP requests into [`quorate_protocol::Request`]s, hands them to a [`Backend`], and turns its
//! [`quorate_protocol::Answer`]s into HTTP responses. It decides nothing about data: quorums, contexts and siblings
//! are the backend's. What it does decide is what a well-formed request looks like, and it is strict: what it does
//! not understand (a mistyped parameter, a condition that is not evaluated yet, a content encoding) is refused with
//! a problem document (RFC 9457) rather than ignored, because a store that ignores half of a request loses data
//! politely.
//!
//! | request | answers |
//! |---|---|
//! | `PUT /v1/buckets/B/keys/K` | 204, or 200 with `return_body=true`; 412 if a condition does not hold |
//! | `GET`, `HEAD /v1/buckets/B/keys/K` | 200, 300 with siblings, 304, 404 |
//! | `DELETE /v1/buckets/B/keys/K` | 204; 412 if a condition does not hold |
//! | `GET`, `HEAD /v1/buckets/B/keys` | 200 with a page of keys, or a stream of lines |
//! | `GET /v1/buckets` | 200 with every bucket that was created |
//! | `GET`, `HEAD`, `PUT /v1/buckets/B` | 200 with its properties |
//! | `DELETE /v1/buckets/B?confirm=B` | 204: the bucket and everything in it is dropped |
//! | `GET /healthz` | 200 while the process is alive |
//! | `GET /readyz` | 200, or 503 with the reason |
//! | `GET /v1/cluster` | the nodes, how they are, and what is wrong |
//! | `GET /v1/cluster/layout` | the layout |
//! | `GET /v1/cluster/progress` | how far a change of the layout has come |
//! | `GET /metrics` | the node's metrics as OpenMetrics text |
//!
//! *Invariant:* a key is taken from the raw path, everything after `/keys/`, and percent-decoded exactly once. No
//! router sees it first, so nothing merges slashes, resolves `..`, or treats `%2F` apart from `/`.
//!
//! *Invariant:* the backend is asked at most once for each HTTP request, and only after all of the request has been
//! read and found well-formed. Whatever is refused here has changed nothing.
//!
//! ```
//! use quorate_gateway::{Backend, Limits, router};
//! use quorate_protocol::{Answer, Header, Request};
//!
//! /// A store in which nothing is.
//! #[derive(Clone)]
//! struct Empty;
//!
//! impl Backend for Empty {
//!     async fn call(&self, _header: Header, _request: Request) -> Answer {
//!         Answer::Absent
//!     }
//!
//!     fn ready(&self) -> Result<(), String> {
//!         Ok(())
//!     }
//! }
//!
//! let app: axum::Router = router(Empty, Limits::default());
//! ```

mod accept;
mod answers;
mod body;
mod buckets;
mod cluster;
mod conditions;
mod dispatch;
mod explain;
mod headers;
mod key_path;
mod listing;
mod params;
mod percent;
mod problem;
mod repair;
mod request_id;
mod serve;
mod siblings;
mod trace;

use std::future::Future;
use std::time::Duration;

use quorate_protocol::{Answer, Header, Request, VALUE_BYTES_MAX};

pub use dispatch::router;
pub use request_id::REQUEST_ID;
pub use serve::{DRAIN_TIME_MAX, serve};

/// Who answers: a node in this process, or a client of a cluster elsewhere.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Carries the request out and tells what became of it.
    ///
    /// It answers by the deadline in the header (0 stands for the bucket's or cluster's default): the gateway keeps no
    /// timer of its own. An HTTP client that goes away drops the future; what was begun may then go on unobserved.
    fn call(&self, header: Header, request: Request) -> impl Future<Output = Answer> + Send;

    /// Whether requests can be served now.
    ///
    /// # Errors
    /// A sentence saying why not; it is shown to whoever asks `/readyz`.
    fn ready(&self) -> Result<(), String>;

    /// The node's metrics as OpenMetrics text, where there is a node.
    fn metrics(&self) -> Option<String> {
        None
    }

    /// Told the status of every response, for whoever counts them.
    fn responded(&self, _status: u16) {}
}

/// What one gateway takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The largest value, in bytes. A request that announces more is refused before its body is read.
    pub value_bytes_max: usize,
    /// The bytes of unfinished puts held in memory at once, over all connections; beyond it puts are refused with 503
    /// until others end. Never less than one value takes effect. Without it a thousand slow uploads of the largest
    /// value would hold gigabytes.
    pub body_bytes_in_flight_max: usize,
    /// How long a body may make no progress before its request is given up with 408. Shorter cuts off clients on bad
    /// links; longer lets idle uploads hold connections and memory.
    pub body_idle_max: Duration,
}

impl Default for Limits {
    /// Values of up to [`VALUE_BYTES_MAX`] bytes, 256 MiB in flight, 30 seconds without progress.
    fn default() -> Self {
        Limits {
            value_bytes_max: VALUE_BYTES_MAX,
            body_bytes_in_flight_max: 256 * 1024 * 1024,
            body_idle_max: Duration::from_secs(30),
        }
    }
}
