//! Listings: a page as one JSON document, or the whole bucket as a stream of lines.
//!
//! `GET /v1/buckets/B/keys` answers `{"keys": [...], "next": "..."}`, `next` being the `after` of the next request, or null at
//! the end. With `Accept: application/x-ndjson` it answers a line `{"key":"..."}` for each key, to the end of the bucket or
//! to `limit`, page by page: the next page is asked for when the client has taken the one before, so that a slow
//! reader costs one page of memory.
//!
//! What goes wrong once the stream has begun cannot become a status any more. It must not look like an end either: the last
//! line is then `{"error":{...}}` with the problem document in it, and the connection is broken off instead of the
//! stream being ended, so that also a client that looks at no line notices.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use quorate_protocol::{
    Answer, BUCKET_BYTES_MAX, Header, LIST_KEYS_DEFAULT, LIST_KEYS_MAX, List, Listing, Request,
};
use serde::Serialize;

use crate::accept;
use crate::headers;
use crate::key_path::bounded;
use crate::params::{self, Operation, ParamError, Params};
use crate::problem::{Kind, Problem};
use crate::{Backend, trace};

const METHODS: &str = "GET, HEAD";
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How often a page of a stream is asked for before the stream breaks off, and the pause before the second time; each next is
/// twice as long. A node that is lost or has too much to do is over it by then, or will not be for a while.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// A listing as it was asked for.
struct Asked {
    header: Header,
    list: List,
    /// How many keys are wanted yet; of a stream also more than a page has.
    left: u64,
}

/// The response to a listing of the bucket that stands in the path.
pub(crate) async fn on_keys<B: Backend>(
    backend: &B,
    parts: &Parts,
    bucket: &str,
) -> Result<Response, Problem> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Problem::method_not_allowed(parts.method.as_str(), METHODS));
    }
    let bucket = bounded("bucket name", bucket, BUCKET_BYTES_MAX)?;
    let params = params::parse(Operation::List, parts.uri.query())?;
    headers::refuse_unsupported(Operation::List, &parts.headers)?;
    let is_stream = accept::wants_lines(&parts.headers);
    let asked = Asked::new(bucket, params, is_stream, parts)?;
    if is_stream {
        lines(backend.clone(), asked).await
    } else {
        page(backend, asked).await
    }
}

impl Asked {
    fn new(
        bucket: String,
        params: Params,
        is_stream: bool,
        parts: &Parts,
    ) -> Result<Self, Problem> {
        let left = match params.limit {
            None if is_stream => u64::MAX,
            None => u64::from(LIST_KEYS_DEFAULT),
            Some(limit) if !is_stream && limit > u64::from(LIST_KEYS_MAX) => {
                return Err(ParamError::Impossible {
                    name: "limit",
                    value: limit.to_string(),
                    why: format!(
                        "a page has at most {LIST_KEYS_MAX} keys; go on with after=, or ask for application/x-ndjson"
                    ),
                }
                .into());
            }
            Some(limit) => limit,
        };
        Ok(Asked {
            header: Header {
                deadline_ms: params.timeout_ms,
                trace: trace::of(parts),
                ..Header::default()
            },
            list: List {
                bucket,
                prefix: params.prefix,
                after: params.after,
                limit: 0,
                options: params.options,
            },
            left,
        })
    }

    /// Asks for the next page, of at most so many keys.
    async fn next<B: Backend>(&mut self, backend: &B, most: u32) -> Result<Listing, Problem> {
        self.list.limit = u32::try_from(self.left).unwrap_or(u32::MAX).min(most);
        let request = Request::List(self.list.clone());
        match backend.call(self.header.clone(), request).await {
            Answer::Listed(listing) => {
                self.left = self.left.saturating_sub(listing.keys.len() as u64);
                self.list.after = listing.next.clone().or(self.list.after.take());
                if listing.next.is_none() {
                    self.left = 0;
                }
                Ok(listing)
            }
            Answer::Refused(refusal) => Err(refusal.into()),
            Answer::Unmet(unmet) => Err(unmet.into()),
            answer => {
                tracing::error!(answer = answer.name(), "an answer that fits no listing");
                Err(Problem::new(
                    Kind::Internal,
                    "The answer does not fit the request. This is a defect; nothing was changed.",
                ))
            }
        }
    }

    /// The same with patience for what passes.
    async fn next_patiently<B: Backend>(&mut self, backend: &B) -> Result<Listing, Problem> {
        let mut pause = PAUSE_FIRST;
        for _ in 1..ATTEMPTS_MAX {
            match self.next(backend, LIST_KEYS_DEFAULT).await {
                Err(problem) if problem.is_passing() => tokio::time::sleep(pause).await,
                result => return result,
            }
            pause *= 2;
        }
        self.next(backend, LIST_KEYS_DEFAULT).await
    }
}

/// One page.
async fn page<B: Backend>(backend: &B, mut asked: Asked) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Page {
        keys: Vec<String>,
        next: Option<String>,
    }
    let Listing { keys, next } = asked.next(backend, LIST_KEYS_MAX).await?;
    // Strings and arrays always serialise.
    let body = serde_json::to_vec(&Page { keys, next }).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, JSON);
    out.insert(VARY, HeaderValue::from_static("accept"));
    out.insert(CONTENT_LENGTH, body.len().into());
    *response.body_mut() = Body::from(body);
    Ok(response)
}

/// Where a stream stands.
enum Stream<B> {
    /// There are lines to send, and then more to ask for.
    Lines(B, Asked, Listing),
    /// There may be more.
    More(B, Asked),
    /// The error was told.
    Failed,
}

/// All pages, one after the other. The first is asked for before anything is answered, so that what is refused is refused
/// with a status.
async fn lines<B: Backend>(backend: B, mut asked: Asked) -> Result<Response, Problem> {
    let first = asked.next(&backend, LIST_KEYS_DEFAULT).await?;
    let pages = stream::unfold(Some(Stream::Lines(backend, asked, first)), async |state| {
        let (backend, mut asked, listing) = match state? {
            Stream::Lines(backend, asked, listing) => (backend, asked, listing),
            Stream::More(_, Asked { left: 0, .. }) => return None,
            Stream::More(backend, mut asked) => match asked.next_patiently(&backend).await {
                Ok(listing) => (backend, asked, listing),
                Err(problem) => {
                    tracing::warn!(bucket = asked.list.bucket, "a listing broke off");
                    return Some((Ok(error_line(&problem)), Some(Stream::Failed)));
                }
            },
            Stream::Failed => {
                // The line goes out while this waits; breaking off at once would take it along.
                tokio::task::yield_now().await;
                let error = io::Error::other("the listing broke off: its last line says why");
                return Some((Err(error), None));
            }
        };
        // A page may be empty and not be the last: the next chunk has to have something in it.
        let mut listing = listing;
        while listing.keys.is_empty() && asked.left > 0 {
            match asked.next_patiently(&backend).await {
                Ok(next) => listing = next,
                Err(problem) => return Some((Ok(error_line(&problem)), Some(Stream::Failed))),
            }
        }
        if listing.keys.is_empty() {
            return None;
        }
        let lines = key_lines(&listing.keys);
        Some((Ok(lines), Some(Stream::More(backend, asked))))
    });
    let mut response = Response::new(Body::from_stream(pages));
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, NDJSON);
    out.insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn key_lines(keys: &[String]) -> Bytes {
    #[derive(Serialize)]
    struct Line<'a> {
        key: &'a str,
    }
    let size = keys.iter().map(|key| key.len() + 12).sum();
    let mut lines = Vec::with_capacity(size);
    for key in keys {
        line(&mut lines, &Line { key });
    }
    lines.into()
}

fn error_line(problem: &Problem) -> Bytes {
    #[derive(Serialize)]
    struct Line<'a> {
        error: &'a Problem,
    }
    let mut lines = Vec::new();
    line(&mut lines, &Line { error: problem });
    lines.into()
}

fn line(lines: &mut Vec<u8>, what: &impl Serialize) {
    // Writing to memory cannot fail, and strings always serialise.
    let _ = serde_json::to_writer(&mut *lines, what);
    lines.push(b'\n');
}
