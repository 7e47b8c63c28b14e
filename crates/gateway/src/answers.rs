//! Answers to HTTP responses.

use axum::body::Body;
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use quorate_protocol::{Account, Answer, Shown, Value, deadline_text};

use crate::accept;
use crate::headers::{CONTEXT, META_PREFIX, encode_context};
use crate::params::Operation;
use crate::problem::{Kind, Problem};
use crate::siblings::Document;

/// How many siblings a response shows.
const SIBLINGS: HeaderName = HeaderName::from_static("quorate-siblings");
/// When the value ends, if it does: a moment in UTC as RFC 3339 writes it.
const EXPIRES: HeaderName = HeaderName::from_static("quorate-expires");
/// How many entries of metadata cannot be written as headers. Values stored by other ways than HTTP may have such.
const UNSHOWN_META: HeaderName = HeaderName::from_static("quorate-unshown-meta");

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The response to a request on a key. `headers` are the request's: they choose between forms. A document that can carry
/// the account carries it.
pub(crate) fn respond(
    operation: Operation,
    headers: &HeaderMap,
    answer: Answer,
    account: Option<&Account>,
) -> Result<Response, Problem> {
    match (operation, answer) {
        (Operation::Put, Answer::Stored { context }) => Ok(stored(&context)),
        (_, Answer::Found { siblings, context }) if operation != Operation::Delete => {
            found(operation, headers, siblings, &context, account)
        }
        (Operation::Get, Answer::Absent) => Err(absent()),
        // Nothing was there to remove: what was asked for holds.
        (Operation::Delete, Answer::Deleted | Answer::Absent) => Ok(empty(StatusCode::NO_CONTENT)),
        (_, Answer::Refused(refusal)) => Err(refusal.into()),
        (_, Answer::Unmet(unmet)) => Err(unmet.into()),
        (operation, answer) => {
            tracing::error!(
                ?operation,
                answer = answer.name(),
                "an answer that fits no such request"
            );
            Err(Problem::new(
                Kind::Internal,
                "The answer does not fit the request. This is a defect; whether anything was changed is unknown.",
            ))
        }
    }
}

fn absent() -> Problem {
    Problem::new(Kind::Absent, "The key has no value.")
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn stored(context: &[u8]) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    put_context(response.headers_mut(), context);
    response
}

fn put_context(headers: &mut HeaderMap, context: &[u8]) {
    // Base64url is always a valid header value.
    if let Ok(value) = HeaderValue::from_str(&encode_context(context)) {
        headers.insert(CONTEXT, value);
    }
}

fn found(
    operation: Operation,
    headers: &HeaderMap,
    mut siblings: Vec<Shown>,
    context: &Bytes,
    account: Option<&Account>,
) -> Result<Response, Problem> {
    let mut response = match (siblings.pop(), siblings.is_empty()) {
        (None, _) => return Err(absent()),
        (Some(only), true) => one(operation, headers, only),
        (Some(last), false) => {
            siblings.push(last);
            several(operation, headers, siblings, context, account)
        }
    };
    put_context(response.headers_mut(), context);
    Ok(response)
}

/// The bytes of the only value, or 304 where a get's client has them already.
fn one(operation: Operation, headers: &HeaderMap, shown: Shown) -> Response {
    let tag = entity_tag(&shown.dot);
    let is_known = operation == Operation::Get && matches_any(headers, &tag);
    let expires = shown.expires_ms;
    let mut response = if is_known {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(Body::empty());
        let out = response.headers_mut();
        describe_value(&shown.value, out);
        out.insert(CONTENT_LENGTH, shown.value.data.len().into());
        contain(out);
        *response.body_mut() = Body::from(shown.value.data);
        response
    };
    // Made of what a header may hold.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    put_expires(response.headers_mut(), expires);
    response
}

/// Says when a value ends, if it does.
pub(crate) fn put_expires(headers: &mut HeaderMap, expires_ms: Option<u64>) {
    // Made of digits and letters.
    let text = expires_ms.map(|ms| HeaderValue::from_str(&deadline_text(ms)));
    if let Some(Ok(text)) = text {
        headers.insert(EXPIRES, text);
    }
}

/// Several siblings. To a put that asked what the key holds now, they are a success: its value is stored.
fn several(
    operation: Operation,
    headers: &HeaderMap,
    siblings: Vec<Shown>,
    context: &[u8],
    account: Option<&Account>,
) -> Response {
    let count = siblings.len();
    let document = Document::new(accept::preferred(headers), siblings, context, account);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = match operation {
        Operation::Put => StatusCode::OK,
        Operation::Get | Operation::Delete | Operation::List => StatusCode::MULTIPLE_CHOICES,
    };
    let out = response.headers_mut();
    out.insert(SIBLINGS, count.into());
    out.insert(VARY, HeaderValue::from_static("accept"));
    out.insert(CONTENT_TYPE, document.media_type.clone());
    out.insert(CONTENT_LENGTH, document.length().into());
    contain(out);
    *response.body_mut() = document.into_body();
    response
}

/// Content type and metadata as headers. What no header can hold is counted in [`UNSHOWN_META`].
pub(crate) fn describe_value(value: &Value, headers: &mut HeaderMap) {
    let content_type = value.content_type.as_deref().map(HeaderValue::from_str);
    headers.insert(
        CONTENT_TYPE,
        match content_type {
            Some(Ok(given)) => given,
            Some(Err(_)) | None => OCTET_STREAM,
        },
    );
    let mut unshown = 0u64;
    for (name, text) in &value.meta {
        let name = HeaderName::from_bytes(format!("{META_PREFIX}{name}").as_bytes());
        // Only what can also come in: printable ASCII.
        let text = HeaderValue::from_str(text)
            .ok()
            .filter(|text| text.to_str().is_ok());
        match (name, text) {
            (Ok(name), Some(text)) => {
                headers.append(name, text);
            }
            _ => unshown += 1,
        }
    }
    if unshown > 0 {
        headers.insert(UNSHOWN_META, unshown.into());
    }
}

/// Values are anybody's bytes, served from the origin of the node's own pages: a browser that shows one must not run
/// it as part of them.
fn contain(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
}

/// A strong entity tag. A dot names one write and so one sequence of bytes; a key with siblings has no single
/// sequence and gets no tag.
pub(crate) fn entity_tag(dot: &str) -> String {
    let is_plain = !dot.is_empty()
        && dot
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":.@/_-".contains(&byte));
    if is_plain {
        format!("\"{dot}\"")
    } else {
        format!("\"={}\"", URL_SAFE_NO_PAD.encode(dot))
    }
}

/// Whether `If-None-Match` names the tag. Splitting at commas is enough: our tags have none.
fn matches_any(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        assert_eq!(entity_tag("0a1b2c3d:17"), "\"0a1b2c3d:17\"");
        assert_eq!(entity_tag(""), "\"=\"");
        assert_eq!(entity_tag("ü\"\n"), "\"=w7wiCg\"");
    }

    #[test]
    fn if_none_match() {
        for (given, matches) in [
            ("\"a:1\"", true),
            ("*", true),
            ("W/\"a:1\"", true),
            ("\"b:1\", \"a:1\"", true),
            ("\"b:1\"", false),
            ("a:1", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(given));
            assert_eq!(matches_any(&headers, "\"a:1\""), matches, "{given}");
        }
    }
}
