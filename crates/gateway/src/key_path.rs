//! Bucket and key from the raw path of a URL.

use quorate_protocol::{BUCKET_BYTES_MAX, KEY_BYTES_MAX};

use crate::percent::{self, PercentError};
use crate::problem::{Kind, Problem};

const BUCKETS: &str = "/v1/buckets/";
const KEYS: &str = "keys/";

/// A path of the form `/v1/buckets/B/keys/K`, its parts still as they were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyPath<'a> {
    bucket: &'a str,
    key: &'a str,
}

/// Which bucket and key a request is about: both within their bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

impl<'a> KeyPath<'a> {
    /// Splits a raw path, or `None` if it has another form. The bucket ends at the first slash; everything behind
    /// `/keys/` is the key, with any slashes, dots and empty segments.
    pub(crate) fn split(path: &'a str) -> Option<Self> {
        let (bucket, rest) = path.strip_prefix(BUCKETS)?.split_once('/')?;
        let key = rest.strip_prefix(KEYS)?;
        Some(KeyPath { bucket, key })
    }

    /// Decodes both parts and checks their lengths.
    pub(crate) fn decode(self) -> Result<Target, Problem> {
        let bucket = bounded("bucket name", self.bucket, BUCKET_BYTES_MAX)?;
        let key = bounded("key", self.key, KEY_BYTES_MAX)?;
        Ok(Target { bucket, key })
    }
}

/// Decodes a part of a path and checks its length.
pub(crate) fn bounded(what: &str, sent: &str, limit: usize) -> Result<String, Problem> {
    let text = percent::decode(sent).map_err(|e| undecodable(what, e))?;
    check_length(what, &text, limit)?;
    Ok(text)
}

/// The bucket of a path of the form `/v1/buckets/B/keys`, still as it was sent.
pub(crate) fn bucket_of_keys(path: &str) -> Option<&str> {
    let (bucket, rest) = path.strip_prefix(BUCKETS)?.split_once('/')?;
    (rest == "keys").then_some(bucket)
}

fn undecodable(what: &str, error: PercentError) -> Problem {
    Problem::new(
        Kind::Malformed,
        format!(
            "The {what} cannot be read from the path: {error}. It is UTF-8, percent-encoded once."
        ),
    )
}

fn check_length(what: &str, text: &str, limit: usize) -> Result<(), Problem> {
    let size = text.len();
    if (1..=limit).contains(&size) {
        return Ok(());
    }
    let found = if size == 0 {
        "empty".to_owned()
    } else {
        format!("{size} bytes long")
    };
    Err(Problem::new(
        Kind::Impossible,
        format!("The {what} is {found}; it has 1 to {limit} bytes of UTF-8 once percent-decoded."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> (String, String) {
        let target = KeyPath::split(path).unwrap().decode().unwrap();
        (target.bucket, target.key)
    }

    #[test]
    fn takes_everything_behind_keys() {
        for (path, bucket, key) in [
            ("/v1/buckets/b/keys/k", "b", "k"),
            ("/v1/buckets/b/keys/a//b/", "b", "a//b/"),
            ("/v1/buckets/b/keys//", "b", "/"),
            ("/v1/buckets/b/keys/..", "b", ".."),
            ("/v1/buckets/b/keys/%2e%2e/x", "b", "../x"),
            ("/v1/buckets/b/keys/a%2Fb", "b", "a/b"),
            ("/v1/buckets/b/keys/a%252Fb", "b", "a%2Fb"),
            ("/v1/buckets/a%2Fb/keys/x", "a/b", "x"),
            ("/v1/buckets/b/keys/keys/x", "b", "keys/x"),
            ("/v1/buckets/b/keys/a+b", "b", "a+b"),
        ] {
            assert_eq!(target(path), (bucket.to_owned(), key.to_owned()), "{path}");
        }
    }

    #[test]
    fn other_paths_are_none_of_ours() {
        for path in [
            "",
            "/",
            "/v1/buckets",
            "/v1/buckets/",
            "/v1/buckets/b",
            "/v1/buckets/b/",
            "/v1/buckets/b/keys",
            "/v1/buckets/b/key/x",
            "/v1/buckets/b//keys/x",
            "/V1/buckets/b/keys/x",
            "//v1/buckets/b/keys/x",
            "/v1/%62uckets/b/keys/x",
        ] {
            assert_eq!(KeyPath::split(path), None, "{path}");
        }
    }

    #[test]
    fn lengths_count_decoded_bytes() {
        let long = format!("/v1/buckets/b/keys/{}", "%C3%BC".repeat(512));
        assert_eq!(target(&long).1.len(), 1024);
        let longer = format!("{long}x");
        let refused = KeyPath::split(&longer).unwrap().decode().unwrap_err();
        assert_eq!(refused.kind(), Kind::Impossible);
        for path in ["/v1/buckets//keys/x", "/v1/buckets/b/keys/"] {
            let refused = KeyPath::split(path).unwrap().decode().unwrap_err();
            assert_eq!(refused.kind(), Kind::Impossible, "{path}");
        }
    }
}
