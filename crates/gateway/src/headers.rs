//! What the headers of a request say about its value, and what of them is refused.

use axum::http::HeaderMap;
use axum::http::header::{
    CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use quorate_protocol::{META_BYTES_MAX, Refusal};

use crate::params::Operation;
use crate::problem::{Kind, Problem};

/// Carries contexts both ways, in base64url without padding.
pub(crate) const CONTEXT: HeaderName = HeaderName::from_static("quorate-context");
/// What precedes the names of metadata.
pub(crate) const META_PREFIX: &str = "quorate-meta-";

/// What is kept beside the bytes of a value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Described {
    pub(crate) content_type: Option<String>,
    pub(crate) meta: Vec<(String, String)>,
}

/// Content type and metadata of a put.
pub(crate) fn described(headers: &HeaderMap) -> Result<Described, Problem> {
    let mut described = Described::default();
    if let Some(value) = only(headers, &CONTENT_TYPE)? {
        let text = printable(&CONTENT_TYPE, value)?;
        if !text.is_empty() {
            described.content_type = Some(text.to_owned());
        }
    }
    let mut size = described.content_type.as_ref().map_or(0, String::len);
    for (name, value) in headers {
        // A header's name is lower-case by the time it is here.
        let Some(meta) = name.as_str().strip_prefix(META_PREFIX) else {
            continue;
        };
        if meta.is_empty() {
            return Err(malformed(format!(
                "The header '{name}' names no metadata: a name follows the last hyphen."
            )));
        }
        // An answer shows metadata as an object: a second value under one name would have no place there.
        only(headers, name)?;
        let text = printable(name, value)?;
        size += meta.len() + text.len();
        described.meta.push((meta.to_owned(), text.to_owned()));
    }
    if size > META_BYTES_MAX {
        let refusal = Refusal::TooLarge {
            size: size as u64,
            limit: META_BYTES_MAX as u64,
        };
        return Err(Problem::new(
            Kind::TooLarge,
            format!("Content type and metadata together: {refusal}."),
        )
        .with("size", size)
        .with("limit", META_BYTES_MAX));
    }
    Ok(described)
}

/// The context a client sends back.
pub(crate) fn context(headers: &HeaderMap) -> Result<Option<Bytes>, Problem> {
    let Some(value) = only(headers, &CONTEXT)? else {
        return Ok(None);
    };
    // Taken for no context, an empty one would leave a sibling where its sender meant to replace what was read.
    if value.is_empty() {
        return Err(Problem::new(
            Kind::BadContext,
            "The header 'quorate-context' is empty. Leave it out to write without a context.",
        ));
    }
    match URL_SAFE_NO_PAD.decode(value) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) => Err(Problem::new(
            Kind::BadContext,
            format!(
                "The header 'quorate-context' is not base64url without padding: {error}. Send the context of an \
                 earlier answer unchanged."
            ),
        )),
    }
}

/// A context as it stands in headers and documents.
pub(crate) fn encode_context(context: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(context)
}

/// Refuses what would change the meaning of a request if it were passed over.
pub(crate) fn refuse_unsupported(operation: Operation, headers: &HeaderMap) -> Result<(), Problem> {
    let conditions: &[HeaderName] = match operation {
        // A get evaluates If-None-Match, and a write both.
        Operation::Get => &[IF_MATCH],
        Operation::List => &[IF_MATCH, IF_NONE_MATCH],
        Operation::Put | Operation::Delete => &[IF_UNMODIFIED_SINCE],
    };
    if let Some(condition) = conditions.iter().find(|name| headers.contains_key(*name)) {
        return Err(Problem::new(
            Kind::NotYet,
            format!(
                "The condition '{condition}' is not evaluated for this method yet, and nothing was done without it. \
                 To replace just what was read, send its context as 'quorate-context', or its ETag with a write as \
                 'if-match'."
            ),
        ));
    }
    if operation != Operation::Put {
        return Ok(());
    }
    for value in headers.get_all(CONTENT_ENCODING) {
        let is_identity = value.to_str().is_ok_and(|text| {
            text.split(',')
                .map(str::trim)
                .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
        });
        if !is_identity {
            return Err(Problem::new(
                Kind::UnsupportedEncoding,
                "Only the content encoding 'identity' is taken: it would not be kept, and readers would see coded \
                 bytes. Send the value as it is, or compress it yourself under a content type that says so.",
            ));
        }
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(malformed(
            "A put stores a whole value: 'content-range' is not taken.".to_owned(),
        ));
    }
    Ok(())
}

/// The header's value where it is given once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(malformed(format!(
            "The header '{name}' is given more than once; give it once."
        ))),
        (first, None) => Ok(first),
    }
}

fn printable<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, Problem> {
    value.to_str().map_err(|_| {
        malformed(format!(
            "The header '{name}' has bytes that are not printable ASCII; encode other text, in percent-encoding or \
             base64."
        ))
    })
}

fn malformed(detail: String) -> Problem {
    Problem::new(Kind::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn content_type_and_metadata_are_kept_in_order() {
        let described = described(&headers(&[
            ("content-type", b"text/plain; charset=utf-8"),
            ("Quorate-Meta-Zeta", b"1"),
            ("x-other", b"no"),
            ("quorate-meta-alpha", b""),
        ]))
        .unwrap();
        assert_eq!(
            described,
            Described {
                content_type: Some("text/plain; charset=utf-8".to_owned()),
                meta: vec![
                    ("zeta".to_owned(), "1".to_owned()),
                    ("alpha".to_owned(), String::new())
                ],
            }
        );
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (pairs, kind) in [
            (&[("quorate-meta-", &b"x"[..])][..], Kind::Malformed),
            (&[("quorate-meta-a", "ü".as_bytes())], Kind::Malformed),
            (&[("quorate-meta-a", b"\xff")], Kind::Malformed),
            (
                &[("quorate-meta-a", b"1"), ("quorate-meta-a", b"2")],
                Kind::Malformed,
            ),
            (
                &[("content-type", b"a/b"), ("content-type", b"c/d")],
                Kind::Malformed,
            ),
            (&[("content-type", b"text/\xfc")], Kind::Malformed),
            (
                &[("quorate-meta-a", &[b'x'; META_BYTES_MAX])],
                Kind::TooLarge,
            ),
        ] {
            let problem = described(&headers(pairs)).unwrap_err();
            assert_eq!(problem.kind(), kind, "{problem:?}");
        }
        assert!(described(&headers(&[("quorate-meta-a", &[b'x'; META_BYTES_MAX - 1])])).is_ok());
    }

    #[test]
    fn contexts_round_trip() {
        let bytes = [0u8, 255, 254, 3, 62];
        let text = encode_context(&bytes);
        let read = context(&headers(&[("quorate-context", text.as_bytes())])).unwrap();
        assert_eq!(read.as_deref(), Some(&bytes[..]));
        assert_eq!(context(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn malformed_contexts_are_refused() {
        for bad in [&b""[..], b"AA==", b"a+b/", b"A", b"not base64!", b"\xff"] {
            let problem = context(&headers(&[("quorate-context", bad)])).unwrap_err();
            assert_eq!(problem.kind(), Kind::BadContext, "{bad:?}");
        }
        let twice = headers(&[("quorate-context", b"AA"), ("quorate-context", b"AA")]);
        assert_eq!(context(&twice).unwrap_err().kind(), Kind::Malformed);
    }

    #[test]
    fn unsupported_headers() {
        use Operation::{Delete, Get, Put};
        for (operation, name, value, kind) in [
            (
                Put,
                "content-encoding",
                "gzip",
                Some(Kind::UnsupportedEncoding),
            ),
            (
                Put,
                "content-encoding",
                "identity, br",
                Some(Kind::UnsupportedEncoding),
            ),
            (Put, "content-encoding", "Identity", None),
            (Get, "content-encoding", "gzip", None),
            (Put, "content-range", "bytes 0-1/2", Some(Kind::Malformed)),
            (Put, "if-unmodified-since", "x", Some(Kind::NotYet)),
            (Delete, "if-unmodified-since", "x", Some(Kind::NotYet)),
            (Put, "if-match", "\"a\"", None),
            (Put, "if-none-match", "*", None),
            (Delete, "if-match", "*", None),
            (Get, "if-match", "*", Some(Kind::NotYet)),
            (Get, "if-none-match", "*", None),
        ] {
            let result = refuse_unsupported(operation, &headers(&[(name, value.as_bytes())]));
            assert_eq!(result.err().map(|p| p.kind()), kind, "{name}: {value}");
        }
    }
}
