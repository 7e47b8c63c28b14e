//! `POST /v1/cluster/repair`: has replicas exchange now.
//!
//! With `?partition=P` it answers one JSON document once that partition's replicas have compared what they hold. Without, it goes
//! through all partitions, one after the other, and answers a line of JSON for each as it is done; a client that goes away stops it. A
//! partition of which not everything could be done says so in its `unfinished`, and the others follow all the same.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use quorate_protocol::{Answer, Header, Repair, Repaired, Request, TIMEOUT_MAX};
use serde::Serialize;

use crate::cluster;
use crate::problem::{Kind, Problem};
use crate::{Backend, trace};

const METHODS: &str = "POST";
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a partition's exchanges came to.
#[derive(Serialize)]
struct Line {
    partition: u16,
    #[serde(flatten)]
    came_to: Repaired,
}

/// The response to a request for repairs.
pub(crate) async fn on_repair<B: Backend>(backend: &B, parts: &Parts) -> Result<Response, Problem> {
    if parts.method != Method::POST {
        return Err(Problem::method_not_allowed(parts.method.as_str(), METHODS));
    }
    let header = Header {
        deadline_ms: TIMEOUT_MAX.as_millis() as u32,
        trace: trace::of(parts),
        ..Header::default()
    };
    if let Some(partition) = partition(parts.uri.query())? {
        let came_to = repair(backend, header, partition).await?;
        let line = Line { partition, came_to };
        return Ok(ok(JSON, text(&line)));
    }
    let layout = cluster::layout_of(backend, parts).await?;
    // The first is asked for before anything is answered, so that what is refused is refused with a status.
    let first = repair(backend, header.clone(), 0).await?;
    let state = (backend.clone(), 0, Some(first));
    let lines = stream::unfold(state, move |(backend, partition, came_to)| {
        let header = header.clone();
        let partitions = layout.partitions();
        async move {
            if partition >= partitions {
                return None;
            }
            let came_to = match came_to {
                Some(came_to) => came_to,
                None => match repair(&backend, header, partition).await {
                    Ok(came_to) => came_to,
                    Err(problem) => Repaired {
                        unfinished: vec![problem.detail().to_owned()],
                        ..Repaired::default()
                    },
                },
            };
            let line = Bytes::from(text(&Line { partition, came_to }) + "\n");
            Some((Ok::<_, Infallible>(line), (backend, partition + 1, None)))
        }
    });
    Ok(ok(NDJSON, Body::from_stream(lines)))
}

/// The partition that a query names, if there is a query.
fn partition(query: Option<&str>) -> Result<Option<u16>, Problem> {
    let query = query.unwrap_or_default();
    if query.is_empty() {
        return Ok(None);
    }
    let number = query.strip_prefix("partition=");
    match number.and_then(|number| number.parse().ok()) {
        Some(partition) => Ok(Some(partition)),
        None => Err(Problem::new(
            Kind::BadParameter,
            "The one parameter of this route is partition=P, with a partition's number; leave it out for all partitions.",
        )),
    }
}

async fn repair<B: Backend>(
    backend: &B,
    header: Header,
    partition: u16,
) -> Result<Repaired, Problem> {
    let request = Request::Repair(Repair { partition });
    match backend.call(header, request).await {
        Answer::Repaired(came_to) => Ok(came_to),
        other => Err(cluster::unfit(other)),
    }
}

fn text(line: &Line) -> String {
    // Strings, numbers and lists always serialise.
    serde_json::to_string(line).unwrap_or_default()
}

fn ok(content_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
