//! `/v1/cluster` and what is below it, and `/metrics`: how the nodes are.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use quorate_protocol::{Answer, Header, LayoutProgress, Overview, Request};
use quorate_ring::Layout;

use crate::problem::{Kind, Problem};
use crate::{Backend, repair, trace};

const METHODS: &str = "GET, HEAD";

/// What Prometheus knows the format by.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers a path that is about the cluster or the node; `None` for any other.
pub(crate) async fn respond<B: Backend>(
    backend: &B,
    parts: &Parts,
) -> Option<Result<Response, Problem>> {
    Some(match parts.uri.path() {
        "/metrics" => get(parts).and_then(|()| metrics(backend)),
        "/v1/cluster" => match get(parts) {
            Ok(()) => overview(backend, parts).await,
            Err(problem) => Err(problem),
        },
        "/v1/cluster/repair" => repair::on_repair(backend, parts).await,
        "/v1/cluster/layout" => match get(parts) {
            Ok(()) => layout(backend, parts).await.map(|json| ok(JSON, json)),
            Err(problem) => Err(problem),
        },
        "/v1/cluster/progress" => match get(parts) {
            Ok(()) => progress(backend, parts).await,
            Err(problem) => Err(problem),
        },
        _ => return None,
    })
}

fn get(parts: &Parts) -> Result<(), Problem> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Problem::method_not_allowed(parts.method.as_str(), METHODS));
    }
    match parts.uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(Problem::new(
            Kind::BadParameter,
            "This route has no parameters; leave out what stands behind the question mark.",
        )),
    }
}

fn ok(content_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn metrics<B: Backend>(backend: &B) -> Result<Response, Problem> {
    match backend.metrics() {
        Some(text) => Ok(ok(OPEN_METRICS, text)),
        None => Err(Problem::new(
            Kind::NoSuchRoute,
            "There are no metrics here: ask a node.",
        )),
    }
}

async fn overview<B: Backend>(backend: &B, parts: &Parts) -> Result<Response, Problem> {
    let json = layout(backend, parts).await?;
    let status = match backend.call(header(parts), Request::Status).await {
        Answer::Status(status) => status,
        other => return Err(unfit(other)),
    };
    let layout = parse(&json)?;
    let overview = Overview::new(&status, &layout, 0);
    // Strings, numbers and lists always serialise.
    let body = serde_json::to_vec(&overview).unwrap_or_default();
    Ok(ok(JSON, body))
}

/// How far a change of the layout has come.
async fn progress<B: Backend>(backend: &B, parts: &Parts) -> Result<Response, Problem> {
    let known = match backend.call(header(parts), Request::Layouts).await {
        Answer::Layouts(known) => known,
        other => return Err(unfit(other)),
    };
    let status = match backend.call(header(parts), Request::Status).await {
        Answer::Status(status) => status,
        other => return Err(unfit(other)),
    };
    let body = serde_json::to_vec(&LayoutProgress::new(&known, &status)).unwrap_or_default();
    Ok(ok(JSON, body))
}

fn parse(json: &[u8]) -> Result<Layout, Problem> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!(%error, "a layout that cannot be read");
        Problem::new(
            Kind::Internal,
            "The node's layout cannot be read. This is a defect.",
        )
    })
}

/// The layout as the node has it.
pub(crate) async fn layout_of<B: Backend>(backend: &B, parts: &Parts) -> Result<Layout, Problem> {
    parse(&layout(backend, parts).await?)
}

/// The layout as the node has it, in JSON.
async fn layout<B: Backend>(backend: &B, parts: &Parts) -> Result<bytes::Bytes, Problem> {
    match backend.call(header(parts), Request::Describe).await {
        Answer::Described(description) => Ok(description.layout),
        other => Err(unfit(other)),
    }
}

fn header(parts: &Parts) -> Header {
    Header {
        trace: trace::of(parts),
        ..Header::default()
    }
}

/// What to say to an answer that is none to what was asked.
pub(crate) fn unfit(answer: Answer) -> Problem {
    match answer {
        Answer::Refused(refusal) => refusal.into(),
        Answer::Unmet(unmet) => unmet.into(),
        other => {
            tracing::error!(answer = other.name(), "an answer that fits no such request");
            Problem::new(
                Kind::Internal,
                "The answer does not fit the request. This is a defect; nothing was changed.",
            )
        }
    }
}
