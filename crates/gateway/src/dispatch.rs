//! From one HTTP request to one response.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use quorate_protocol::{Answer, Condition, Delete, Get, Header, Put, Request, Value};
use tracing::Instrument as _;

use crate::buckets::{self, BucketPath};
use crate::key_path::{self, KeyPath, Target};
use crate::params::{self, Operation, Params};
use crate::problem::{Kind, Problem};
use crate::request_id::{self, REQUEST_ID};
use crate::{
    Backend, Limits, answers, body, cluster, conditions, explain, headers, listing, trace,
};

const KEY_METHODS: &str = "GET, HEAD, PUT, DELETE";
const PROBE_METHODS: &str = "GET, HEAD";

struct Gateway<B> {
    backend: B,
    limits: Limits,
    in_flight: body::InFlight,
}

/// The routes of a node, answered by `backend`.
///
/// All of them hang on the router's fallback, which sees paths as they were sent; routes added to the returned router
/// take precedence over it. It needs a tokio runtime with its timer enabled.
pub fn router<B: Backend>(backend: B, limits: Limits) -> Router {
    let gateway = Gateway {
        backend,
        limits,
        in_flight: body::InFlight::default(),
    };
    Router::new()
        .fallback(dispatch::<B>)
        .with_state(Arc::new(gateway))
}

async fn dispatch<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: axum::extract::Request,
) -> Response {
    let began = Instant::now();
    let (mut parts, body) = request.into_parts();
    let (id, trace) = request_id::of(&parts.headers);
    parts.extensions.insert(trace);
    let span = tracing::debug_span!(
        "http",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = format_args!("{:032x}", trace.trace_id),
    );
    let mut response = handle(&gateway, &parts, body)
        .instrument(span.clone())
        .await
        .unwrap_or_else(IntoResponse::into_response);

    let out = response.headers_mut();
    out.insert(REQUEST_ID, id);
    // What was true of a key when it was asked for may be kept, but is to be asked for again.
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if parts.method == Method::HEAD {
        take_body(&mut response);
    }
    gateway.backend.responded(response.status().as_u16());
    tracing::debug!(
        parent: &span,
        method = %parts.method,
        status = response.status().as_u16(),
        elapsed_us = began.elapsed().as_micros() as u64,
        "answered"
    );
    response
}

/// Leaves the headers as they would be with the body.
fn take_body(response: &mut Response) {
    let body = std::mem::take(response.body_mut());
    if let Some(length) = body.size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
}

async fn handle<B: Backend>(
    gateway: &Gateway<B>,
    parts: &Parts,
    body: Body,
) -> Result<Response, Problem> {
    let path = parts.uri.path();
    if let Some(path) = KeyPath::split(path) {
        return on_key(gateway, parts, path, body).await;
    }
    if let Some(bucket) = key_path::bucket_of_keys(path) {
        return listing::on_keys(&gateway.backend, parts, bucket).await;
    }
    if let Some(path) = BucketPath::split(path) {
        let document = || async {
            let limits = Limits {
                value_bytes_max: buckets::DOCUMENT_BYTES_MAX,
                ..gateway.limits.clone()
            };
            let mut body = body;
            let read = body::read(&mut body, &limits, &gateway.in_flight).await;
            read.map(|(document, _share)| document)
        };
        return buckets::serve(&gateway.backend, parts, path, document).await;
    }
    if let Some(response) = cluster::respond(&gateway.backend, parts).await {
        return response;
    }
    match path {
        "/healthz" => probe(&parts.method, || Ok("alive\n")),
        "/readyz" => probe(&parts.method, || match gateway.backend.ready() {
            Ok(()) => Ok("ready\n"),
            Err(why) => Err(Problem::new(Kind::NotReady, why)),
        }),
        _ => Err(Problem::new(
            Kind::NoSuchRoute,
            "There is no such route. Keys are at /v1/buckets/BUCKET/keys/KEY, and listed at /v1/buckets/BUCKET/keys.",
        )),
    }
}

fn probe(
    method: &Method,
    check: impl FnOnce() -> Result<&'static str, Problem>,
) -> Result<Response, Problem> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Problem::method_not_allowed(method.as_str(), PROBE_METHODS));
    }
    let mut response = Response::new(Body::from(check()?));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    Ok(response)
}

async fn on_key<B: Backend>(
    gateway: &Gateway<B>,
    parts: &Parts,
    path: KeyPath<'_>,
    mut body: Body,
) -> Result<Response, Problem> {
    let asked = Asked::of(parts, path);
    let Asked {
        operation,
        target: Target { bucket, key },
        params,
        described,
        context,
        condition,
    } = match asked {
        Ok(asked) => asked,
        Err(problem) => {
            discard(&parts.headers, body);
            return Err(problem);
        }
    };

    // Held until the answer is there: so long the value is in memory.
    let mut _share = None;
    let options = params.options;
    let request = match operation {
        Operation::Get | Operation::List => Request::Get(Get {
            bucket,
            key,
            options,
        }),
        Operation::Delete => Request::Delete(Delete {
            bucket,
            key,
            context,
            condition,
            options,
        }),
        Operation::Put => {
            let read = body::read(&mut body, &gateway.limits, &gateway.in_flight).await;
            let data = match read {
                Ok((data, share)) => {
                    _share = Some(share);
                    data
                }
                Err(problem) => {
                    discard(&parts.headers, body);
                    return Err(problem);
                }
            };
            Request::Put(Put {
                bucket,
                key,
                value: Value {
                    data,
                    content_type: described.content_type,
                    meta: described.meta,
                },
                context,
                condition,
                options,
                lifetime: params.lifetime,
            })
        }
    };
    let header = Header {
        deadline_ms: params.timeout_ms,
        trace: trace::of(parts),
        ..Header::default()
    };
    let answer = gateway.backend.call(header, request).await;
    let (answer, account) = match answer {
        Answer::Explained(explained) => match explained.open() {
            Ok((answer, account)) => (answer, Some(account)),
            Err(why) => {
                tracing::error!(why, "an explained answer that cannot be opened");
                return Err(Problem::new(
                    Kind::Internal,
                    "The answer cannot be read. This is a defect; whether anything was changed is unknown.",
                ));
            }
        },
        answer => (answer, None),
    };
    let response = answers::respond(operation, &parts.headers, answer, account.as_ref());
    let Some(account) = account else {
        return response;
    };
    // What went wrong is explained too; then most of all.
    let mut response = response.unwrap_or_else(|problem| {
        let problem = problem.with("explain", explain::member(&account));
        problem.into_response()
    });
    let header = explain::header(&account);
    response.headers_mut().insert(explain::EXPLAIN, header);
    Ok(response)
}

/// A client that waits for leave to send its body has not sent it: there is nothing to throw away, and reading would
/// be that leave.
fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(EXPECT) {
        body::linger(body);
    }
}

/// All of a request on a key but its body.
struct Asked {
    operation: Operation,
    target: Target,
    params: Params,
    described: headers::Described,
    context: Option<bytes::Bytes>,
    condition: Option<Condition>,
}

impl Asked {
    fn of(parts: &Parts, path: KeyPath<'_>) -> Result<Self, Problem> {
        let operation = match parts.method {
            Method::GET | Method::HEAD => Operation::Get,
            Method::PUT => Operation::Put,
            Method::DELETE => Operation::Delete,
            _ => {
                return Err(Problem::method_not_allowed(
                    parts.method.as_str(),
                    KEY_METHODS,
                ));
            }
        };
        let target = path.decode()?;
        let params = params::parse(operation, parts.uri.query())?;
        headers::refuse_unsupported(operation, &parts.headers)?;
        let (described, context) = match operation {
            Operation::Get | Operation::List => Default::default(),
            Operation::Put => (
                headers::described(&parts.headers)?,
                headers::context(&parts.headers)?,
            ),
            Operation::Delete => (
                headers::Described::default(),
                headers::context(&parts.headers)?,
            ),
        };
        let condition = match operation {
            Operation::Get | Operation::List => None,
            Operation::Put | Operation::Delete => conditions::of(&parts.headers)?,
        };
        if operation == Operation::Put && condition.is_none() {
            params.refuse_reading()?;
        }
        Ok(Asked {
            operation,
            target,
            params,
            described,
            context,
            condition,
        })
    }
}
