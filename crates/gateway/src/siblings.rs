//! Several siblings as one document, made piece by piece while it is sent.
//!
//! Sixty-four siblings of eight megabytes are half a gigabyte, and more in base64. A document is therefore a list of
//! pieces that share the answer's bytes; base64 is written when a piece's turn comes. The length is known
//! beforehand, so that `HEAD` tells it and `GET` needs no chunks.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use quorate_protocol::{Account, Shown, Value, deadline_text};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::accept::Form;
use crate::answers::{describe_value, put_expires};
use crate::headers::encode_context;
use crate::request_id::random;

/// How much of a value is turned into base64 at a time. A multiple of three, so that only the last piece is padded.
const BASE64_PIECE: usize = 48 * 1024;

/// A response body in pieces.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its media type.
    pub(crate) media_type: HeaderValue,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    AsIs(Bytes),
    InBase64(Bytes),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Piece::AsIs(bytes) => bytes.len() as u64,
            Piece::InBase64(bytes) => bytes.len().div_ceil(3) as u64 * 4,
        }
    }

    fn bytes(self) -> Bytes {
        match self {
            Piece::AsIs(bytes) => bytes,
            Piece::InBase64(bytes) => STANDARD.encode(bytes).into(),
        }
    }
}

impl Document {
    /// The siblings and what removes them, in the form asked for.
    pub(crate) fn new(
        form: Form,
        siblings: Vec<Shown>,
        context: &[u8],
        account: Option<&Account>,
    ) -> Self {
        match form {
            Form::Json => json(siblings, context, account),
            Form::Multipart => {
                let boundary = format!("quorate-{:016x}{:016x}", random(), random());
                multipart(siblings, &boundary)
            }
        }
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.pieces.iter().map(Piece::length).sum()
    }

    pub(crate) fn into_body(self) -> Body {
        let pieces = self
            .pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(piece.bytes()));
        Body::from_stream(stream::iter(pieces))
    }
}

/// `{"context", "siblings": [{"value_base64", "content_type", "meta", "dot", "expires"}]}`, the last where a value ends: base64url without padding for the
/// context, as in the header; base64 with padding for values. Where an account was asked for, it comes last, as `explain`.
fn json(siblings: Vec<Shown>, context: &[u8], account: Option<&Account>) -> Document {
    let mut pieces = Vec::with_capacity(siblings.len() * 2 + 1);
    let mut text = format!(r#"{{"context":"{}","siblings":["#, encode_context(context));
    for (at, shown) in siblings.into_iter().enumerate() {
        let Shown {
            dot,
            value,
            expires_ms,
        } = shown;
        if at > 0 {
            text.push(',');
        }
        text.push_str(r#"{"value_base64":""#);
        pieces.push(Piece::AsIs(std::mem::take(&mut text).into()));
        let mut rest = value.data.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(BASE64_PIECE));
            pieces.push(Piece::InBase64(piece));
        }
        text.push_str(r#"","content_type":"#);
        text.push_str(&to_json(&value.content_type));
        text.push_str(r#","meta":"#);
        text.push_str(&to_json(&Meta(&value)));
        text.push_str(r#","dot":"#);
        text.push_str(&to_json(&dot));
        if let Some(ms) = expires_ms {
            text.push_str(r#","expires":"#);
            text.push_str(&to_json(&deadline_text(ms)));
        }
        text.push('}');
    }
    text.push(']');
    if let Some(account) = account {
        text.push_str(r#","explain":"#);
        text.push_str(&to_json(account));
    }
    text.push('}');
    pieces.push(Piece::AsIs(text.into()));
    Document {
        media_type: HeaderValue::from_static("application/json"),
        pieces,
    }
}

/// Strings, and maps of strings, always serialise.
fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Metadata as an object, in the order given.
struct Meta<'a>(&'a Value);

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.meta.len()))?;
        for (name, value) in &self.0.meta {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// `multipart/mixed` (RFC 2046): each part has the sibling's content type, metadata and dot as headers. The boundary
/// has 128 random bits, drawn after the values were stored, so nobody can have stored a value that contains it.
fn multipart(siblings: Vec<Shown>, boundary: &str) -> Document {
    let mut pieces = Vec::with_capacity(siblings.len() * 2 + 1);
    let mut before = format!("--{boundary}\r\n");
    for shown in siblings {
        let mut headers = HeaderMap::new();
        describe_value(&shown.value, &mut headers);
        headers.insert("content-length", shown.value.data.len().into());
        if let Ok(dot) = HeaderValue::from_str(&shown.dot) {
            headers.insert("quorate-dot", dot);
        }
        put_expires(&mut headers, shown.expires_ms);
        for (name, value) in &headers {
            // Made from text above, so it is text; what could end the line was refused there.
            if let Ok(value) = value.to_str() {
                before.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        before.push_str("\r\n");
        pieces.push(Piece::AsIs(std::mem::take(&mut before).into()));
        pieces.push(Piece::AsIs(shown.value.data));
        before = format!("\r\n--{boundary}\r\n");
    }
    // The last boundary ends the document instead of beginning a part.
    before.truncate(before.len() - 2);
    before.push_str("--\r\n");
    pieces.push(Piece::AsIs(before.into()));
    Document {
        media_type: HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}"))
            .unwrap_or(HeaderValue::from_static("multipart/mixed")),
        pieces,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(dot: &str, data: impl Into<Bytes>, content_type: Option<&str>) -> Shown {
        Shown {
            dot: dot.to_owned(),
            value: Value {
                data: data.into(),
                content_type: content_type.map(str::to_owned),
                meta: vec![
                    ("b".to_owned(), "2".to_owned()),
                    ("a".to_owned(), "\"1\"".to_owned()),
                ],
            },
            expires_ms: None,
        }
    }

    fn text(document: Document) -> String {
        let length = document.length();
        let all: Vec<u8> = document
            .pieces
            .into_iter()
            .flat_map(|piece| piece.bytes().to_vec())
            .collect();
        assert_eq!(all.len() as u64, length);
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn as_json() {
        let siblings = vec![
            shown("a:1", "one", Some("text/plain")),
            shown("b:2", "", None),
        ];
        assert_eq!(
            text(json(siblings, &[255, 254], None)),
            concat!(
                r#"{"context":"__4","siblings":["#,
                r#"{"value_base64":"b25l","content_type":"text/plain","meta":{"b":"2","a":"\"1\""},"dot":"a:1"},"#,
                r#"{"value_base64":"","content_type":null,"meta":{"b":"2","a":"\"1\""},"dot":"b:2"}]}"#
            )
        );
    }

    #[test]
    fn the_end_of_a_value_is_told() {
        let ending = || Shown {
            expires_ms: Some(1_900_000_000_000),
            ..shown("a:1", "one", None)
        };
        let document = text(json(vec![ending(), shown("b:2", "", None)], b"c", None));
        let parsed: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(parsed["siblings"][0]["expires"], "2030-03-17T17:46:40.000Z");
        assert_eq!(parsed["siblings"][1].get("expires"), None);
        let document = text(multipart(vec![ending()], "xyz"));
        assert!(document.contains("quorate-expires: 2030-03-17T17:46:40.000Z\r\n"));
    }

    #[test]
    fn base64_in_pieces_is_base64_of_the_whole() {
        for length in [
            0,
            1,
            2,
            3,
            BASE64_PIECE - 1,
            BASE64_PIECE,
            BASE64_PIECE + 1,
            3 * BASE64_PIECE + 2,
        ] {
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let document = text(json(vec![shown("a:1", data.clone(), None)], b"c", None));
            let parsed: serde_json::Value = serde_json::from_str(&document).unwrap();
            let value = parsed["siblings"][0]["value_base64"].as_str().unwrap();
            assert_eq!(STANDARD.decode(value).unwrap(), data);
        }
    }

    #[test]
    fn as_multipart() {
        let siblings = vec![
            shown("a:1", "one\r\n", Some("text/plain")),
            shown("b:2", "", None),
        ];
        assert_eq!(
            text(multipart(siblings, "xyz")),
            "--xyz\r\ncontent-type: text/plain\r\nquorate-meta-b: 2\r\nquorate-meta-a: \"1\"\r\ncontent-length: 5\r\n\
             quorate-dot: a:1\r\n\r\none\r\n\r\n--xyz\r\ncontent-type: application/octet-stream\r\n\
             quorate-meta-b: 2\r\nquorate-meta-a: \"1\"\r\ncontent-length: 0\r\nquorate-dot: b:2\r\n\r\n\r\n--xyz--\r\n"
        );
    }

    #[test]
    fn nothing_stored_can_break_out_of_a_part_s_headers() {
        let mut evil = shown("a:1", "x", Some("text/plain\r\nquorate-dot: forged"));
        evil.value.meta = vec![
            ("name\r\nforged".to_owned(), "x".to_owned()),
            ("fine".to_owned(), "x\r\nforged: y".to_owned()),
        ];
        let document = text(multipart(vec![evil], "xyz"));
        assert!(!document.contains("forged"), "{document}");
        assert!(
            document.contains("quorate-unshown-meta: 2\r\n"),
            "{document}"
        );
    }
}
