//! Percent-decoding that refuses what it cannot read.

use percent_encoding::percent_decode_str;
use thiserror::Error;

/// Why a text does not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum PercentError {
    /// A percent sign without two hexadecimal digits behind it.
    #[error(
        "a percent sign at byte {0} is not followed by two hexadecimal digits; write a percent sign itself as %25"
    )]
    Incomplete(usize),
    /// The decoded bytes are not text.
    #[error("the decoded bytes are not UTF-8 at byte {0}")]
    NotUtf8(usize),
}

/// Decodes once: `%252F` becomes `%2F`, not `/`. Lenient decoders leave a malformed `%` as it is; then two different
/// texts would name the same key, and a mistake would name an unintended one.
pub(crate) fn decode(text: &str) -> Result<String, PercentError> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)) {
            return Err(PercentError::Incomplete(at));
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(error) => Err(PercentError::NotUtf8(error.valid_up_to())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_exactly_once() {
        assert_eq!(decode("a%2Fb%252f"), Ok("a/b%2f".to_owned()));
        assert_eq!(decode("%c3%BC+ü"), Ok("ü+ü".to_owned()));
        assert_eq!(decode(""), Ok(String::new()));
        assert_eq!(decode("%00"), Ok("\0".to_owned()));
    }

    #[test]
    fn refuses_what_is_incomplete() {
        for (text, at) in [
            ("%", 0),
            ("a%", 1),
            ("a%2", 1),
            ("%%41", 0),
            ("%4g", 0),
            ("%+1", 0),
            ("%ü", 0),
        ] {
            assert_eq!(decode(text), Err(PercentError::Incomplete(at)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_text() {
        assert_eq!(decode("ab%FF"), Err(PercentError::NotUtf8(2)));
        // An overlong slash and half of a surrogate pair are not UTF-8 either.
        assert_eq!(decode("%C0%AF"), Err(PercentError::NotUtf8(0)));
        assert_eq!(decode("%ED%A0%80"), Err(PercentError::NotUtf8(0)));
    }
}
