//! Buckets over HTTP: their properties as JSON.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use quorate_protocol::{
    Answer, BUCKET_BYTES_MAX, BucketAction, BucketDocument, BucketRequest, Header, PROPERTIES,
    PropertyChanges, Request,
};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::key_path::bounded;
use crate::problem::{Kind, Problem};
use crate::{Backend, params, trace};

const PREFIX: &str = "/v1/buckets";
/// The most bytes that a document of properties has.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// What a path of these routes names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BucketPath<'a> {
    /// All buckets that were created.
    All,
    /// One of them, as it was sent.
    One(&'a str),
}

impl<'a> BucketPath<'a> {
    /// Recognises a raw path, or `None` if it has another form.
    pub(crate) fn split(path: &'a str) -> Option<Self> {
        match path.strip_prefix(PREFIX)? {
            "" => Some(BucketPath::All),
            rest => match rest.strip_prefix('/')? {
                name if name.contains('/') => None,
                name => Some(BucketPath::One(name)),
            },
        }
    }
}

/// Answers a request on buckets. `document` reads the body, where there has to be one.
pub(crate) async fn serve<B, R>(
    backend: &B,
    parts: &Parts,
    path: BucketPath<'_>,
    document: impl FnOnce() -> R,
) -> Result<Response, Problem>
where
    B: Backend,
    R: Future<Output = Result<bytes::Bytes, Problem>>,
{
    let (request, success) = match (path, &parts.method) {
        (BucketPath::All, &Method::GET | &Method::HEAD) => {
            params::none(parts.uri.query(), &[])?;
            (Request::Buckets, StatusCode::OK)
        }
        (BucketPath::All, method) => {
            return Err(Problem::method_not_allowed(method.as_str(), "GET, HEAD"));
        }
        (BucketPath::One(name), method) => {
            let bucket = bounded("bucket name", name, BUCKET_BYTES_MAX)?;
            let (action, success) = match *method {
                Method::GET | Method::HEAD => {
                    params::none(parts.uri.query(), &[])?;
                    (BucketAction::Show, StatusCode::OK)
                }
                Method::PUT => {
                    params::none(parts.uri.query(), &[])?;
                    let condition = condition(&parts.headers)?;
                    let changes = changes(&document().await?)?;
                    (condition(changes), StatusCode::OK)
                }
                Method::DELETE => {
                    if parts.headers.contains_key(IF_MATCH)
                        || parts.headers.contains_key(IF_NONE_MATCH)
                    {
                        return Err(Problem::new(
                            Kind::NotYet,
                            "A bucket is not dropped on a condition. Leave the header out.",
                        ));
                    }
                    let given = params::none(parts.uri.query(), &["confirm"])?;
                    if given.as_deref() != Some(bucket.as_str()) {
                        return Err(Problem::new(
                            Kind::BadParameter,
                            "Dropping a bucket removes everything in it. Repeat its name to confirm: ?confirm=NAME.",
                        )
                        .with("parameter", "confirm"));
                    }
                    (BucketAction::Drop, StatusCode::NO_CONTENT)
                }
                _ => {
                    return Err(Problem::method_not_allowed(
                        method.as_str(),
                        "GET, HEAD, PUT, DELETE",
                    ));
                }
            };
            (Request::Bucket(BucketRequest { bucket, action }), success)
        }
    };
    let header = Header {
        trace: trace::of(parts),
        ..Header::default()
    };
    match backend.call(header, request).await {
        Answer::Bucket(_) if success == StatusCode::NO_CONTENT => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = success;
            Ok(response)
        }
        Answer::Bucket(bucket) => Ok(document_of(&BucketDocument::from(&*bucket))),
        Answer::Buckets(buckets) => {
            let all: Vec<BucketDocument<'_>> = buckets.iter().map(BucketDocument::from).collect();
            Ok(document_of(&json!({ "buckets": all })))
        }
        Answer::Refused(refusal) => Err(refusal.into()),
        Answer::Unmet(unmet) => Err(unmet.into()),
        other => Err(Problem::new(
            Kind::Internal,
            format!(
                "The answer ({}) does not fit the request. This is a defect.",
                other.name()
            ),
        )),
    }
}

/// `If-None-Match: *` only creates, `If-Match: *` only changes; without either the bucket is created or changed.
fn condition(headers: &HeaderMap) -> Result<fn(PropertyChanges) -> BucketAction, Problem> {
    let given = |name| headers.get(name).map(HeaderValue::as_bytes);
    match (given(IF_NONE_MATCH), given(IF_MATCH)) {
        (None, None) => Ok(BucketAction::Set),
        (Some(b"*"), None) => Ok(BucketAction::Create),
        (None, Some(b"*")) => Ok(BucketAction::Update),
        _ => Err(Problem::new(
            Kind::Malformed,
            "A bucket has no entity tags: it is created only with If-None-Match: *, or changed only with If-Match: *.",
        )),
    }
}

/// Reads a document such as `{"n": 3, "w": "all", "regions": ["eu", "us"]}`.
fn changes(document: &[u8]) -> Result<PropertyChanges, Problem> {
    let bad = |why: String| {
        Problem::new(Kind::BadProperties, format!("{why}.")).with("valid", PROPERTIES.to_vec())
    };
    let fields: Map<String, Json> = if document.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(document)
            .map_err(|e| bad(format!("The body is no JSON object of properties: {e}")))?
    };
    let mut changes = PropertyChanges::default();
    for (name, value) in &fields {
        let text = match value {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            Json::Bool(flag) => flag.to_string(),
            Json::Array(items) if name == "regions" && items.iter().all(Json::is_string) => {
                let names: Vec<&str> = items.iter().filter_map(Json::as_str).collect();
                names.join(",")
            }
            _ => return Err(bad(format!("{name} cannot be {value}"))),
        };
        changes.set(name, &text).map_err(bad)?;
    }
    Ok(changes)
}

fn document_of(document: &impl Serialize) -> Response {
    // Strings and numbers always serialise.
    let mut bytes = serde_json::to_vec(document).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocol::{Lifetime, Quorum};

    #[test]
    fn paths() {
        assert_eq!(BucketPath::split("/v1/buckets"), Some(BucketPath::All));
        assert_eq!(
            BucketPath::split("/v1/buckets/a%2Fb"),
            Some(BucketPath::One("a%2Fb"))
        );
        assert_eq!(BucketPath::split("/v1/buckets/"), Some(BucketPath::One("")));
        for other in [
            "/v1/bucket",
            "/v1/bucketsx",
            "/v1/buckets/b/",
            "/v1/buckets/b/keys",
        ] {
            assert_eq!(BucketPath::split(other), None, "{other}");
        }
    }

    #[test]
    fn documents() {
        let read =
            changes(br#"{"n": 3, "w": "all", "r": 1, "sloppy": false, "regions": ["eu", "us"]}"#)
                .unwrap();
        assert_eq!(
            (read.n, read.w, read.r),
            (Some(3), Some(Quorum::All), Some(Quorum::Count(1)))
        );
        assert_eq!(read.sloppy, Some(false));
        assert_eq!(read.regions, Some(vec!["eu".to_owned(), "us".to_owned()]));
        let ttl = |document: &[u8]| changes(document).unwrap().ttl;
        assert_eq!(ttl(br#"{"ttl": "1h"}"#), Some(Lifetime::Ms(3_600_000)));
        assert_eq!(ttl(br#"{"ttl": "none"}"#), Some(Lifetime::Unlimited));
        assert_eq!(changes(b"").unwrap(), PropertyChanges::default());
        for (bad, kind) in [
            (&b"[]"[..], Kind::BadProperties),
            (b"{", Kind::BadProperties),
            (br#"{"N": 3}"#, Kind::BadProperties),
            (br#"{"n": 0}"#, Kind::BadProperties),
            (br#"{"n": true}"#, Kind::BadProperties),
            (br#"{"w": "most"}"#, Kind::BadProperties),
            (br#"{"sloppy": "maybe"}"#, Kind::BadProperties),
            (br#"{"kind": "set"}"#, Kind::BadProperties),
            (br#"{"ttl": "999ms"}"#, Kind::BadProperties),
            (br#"{"ttl": 60}"#, Kind::BadProperties),
        ] {
            let refused = changes(bad).unwrap_err();
            assert_eq!(refused.kind(), kind, "{}", String::from_utf8_lossy(bad));
        }
    }
}
