//! `If-Match` and `If-None-Match` on a put or a delete (RFC 9110, section 13).

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quorate_protocol::Condition;

use crate::problem::{Kind, Problem};

/// What must be so for a write to happen, if its headers say so.
///
/// `If-None-Match: *` asks for absence, `If-Match: *` for any value, and `If-Match` with entity tags for one of these values
/// and no other. A weak tag never matches here: the comparison is the strong one, as the standard has it.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    let (matching, none) = (
        Tags::read(headers, &IF_MATCH)?,
        Tags::read(headers, &IF_NONE_MATCH)?,
    );
    match (matching, none) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::new(
            Kind::Impossible,
            "'if-match' asks for a value and 'if-none-match' for none: both can never hold. Send one of them.",
        )),
        (Some(Tags::Any), None) => Ok(Some(Condition::Present)),
        (Some(Tags::These(tags)), None) => {
            let strong = tags.into_iter().filter(|tag| !tag.weak);
            Ok(Some(Condition::Dots(
                strong.map(|tag| dot(&tag.text)).collect(),
            )))
        }
        (None, Some(Tags::Any)) => Ok(Some(Condition::Absent)),
        (None, Some(Tags::These(_))) => Err(Problem::new(
            Kind::NotYet,
            "'if-none-match' with entity tags is evaluated for GET and HEAD alone. A write takes 'if-none-match: *' for a \
             key that is absent, and 'if-match' with the ETag of the value that it is to replace.",
        )),
    }
}

/// The dot that an entity tag stands for: the tag itself, or what it carries in base64url after an equals sign. A tag that was
/// never given out names no dot, and so matches none.
fn dot(tag: &str) -> String {
    let coded = tag.strip_prefix('=');
    let decoded = coded.and_then(|coded| URL_SAFE_NO_PAD.decode(coded).ok());
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| tag.to_owned())
}

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// What stands between the quotes.
    text: String,
}

impl Tags {
    /// The header's tags, over all its lines.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
        let mut lines = headers.get_all(name).iter().peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let malformed = |why: &str| {
            Problem::new(
                Kind::Malformed,
                format!(
                    "The header '{name}' cannot be read: {why}. Send '*', or the ETag of an answer unchanged, with its \
                     quotation marks; several with commas between."
                ),
            )
        };
        let (mut any, mut tags) = (false, Vec::new());
        for line in lines {
            let text = line
                .to_str()
                .map_err(|_| malformed("it has bytes that are not printable ASCII"))?;
            let mut rest = text;
            loop {
                rest = rest.trim_start_matches([' ', '\t', ',']);
                if rest.is_empty() {
                    break;
                }
                if let Some(after) = rest.strip_prefix('*') {
                    any = true;
                    rest = after;
                } else {
                    let (tag, after) = Tag::read(rest)
                        .ok_or_else(|| malformed("an entity tag stands in quotation marks"))?;
                    tags.push(tag);
                    rest = after;
                }
                if !rest.is_empty() && !rest.starts_with([' ', '\t', ',']) {
                    return Err(malformed("a comma is missing between entity tags"));
                }
            }
        }
        match (any, tags.is_empty()) {
            (true, true) => Ok(Some(Tags::Any)),
            (true, false) => Err(malformed("'*' stands alone")),
            (false, true) => Err(malformed("it is empty")),
            (false, false) => Ok(Some(Tags::These(tags))),
        }
    }
}

impl Tag {
    /// The tag that `text` begins with, and what follows it. There is no way to write a quotation mark inside.
    fn read(text: &str) -> Option<(Tag, &str)> {
        let (weak, quoted) = match text.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let (inside, after) = quoted.strip_prefix('"')?.split_once('"')?;
        let allowed = inside.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        allowed.then(|| {
            let text = inside.to_owned();
            (Tag { weak, text }, after)
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::answers::entity_tag;

    fn headers(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn dots(dots: &[&str]) -> Condition {
        Condition::Dots(dots.iter().map(|d| (*d).to_owned()).collect())
    }

    #[test]
    fn what_is_well_formed() {
        for (pairs, condition) in [
            (&[][..], None),
            (&[("if-none-match", &b"*"[..])], Some(Condition::Absent)),
            (&[("if-match", b" * ")], Some(Condition::Present)),
            (&[("if-match", b"\"a:1\"")], Some(dots(&["a:1"]))),
            (
                &[("if-match", b"\"a,b\",\t\"c\" ,, \"\"")],
                Some(dots(&["a,b", "c", ""])),
            ),
            (
                &[("if-match", b"\"a\""), ("if-match", b"\"b\"")],
                Some(dots(&["a", "b"])),
            ),
            // A weak tag is well-formed and matches nothing.
            (&[("if-match", b"W/\"a:1\"")], Some(dots(&[]))),
            (&[("if-match", b"W/\"a:1\", \"b:2\"")], Some(dots(&["b:2"]))),
            // Encoded by this gateway, or by nobody.
            (&[("if-match", b"\"=w7wiCg\"")], Some(dots(&["\u{fc}\"\n"]))),
            (&[("if-match", b"\"=!\"")], Some(dots(&["=!"]))),
            (&[("if-match", b"\"=_w\"")], Some(dots(&["=_w"]))),
        ] {
            assert_eq!(of(&headers(pairs)), Ok(condition), "{pairs:?}");
        }
    }

    #[test]
    fn what_is_not() {
        for (pairs, kind) in [
            (&[("if-match", &b""[..])][..], Kind::Malformed),
            (&[("if-match", b",")], Kind::Malformed),
            (&[("if-match", b"a:1")], Kind::Malformed),
            (&[("if-match", b"\"a:1")], Kind::Malformed),
            (&[("if-match", b"\"a\"\"b\"")], Kind::Malformed),
            (&[("if-match", b"\"a\" b")], Kind::Malformed),
            (&[("if-match", b"\"a b\"")], Kind::Malformed),
            (&[("if-match", b"w/\"a\"")], Kind::Malformed),
            (&[("if-match", b"*, \"a\"")], Kind::Malformed),
            (&[("if-match", b"**")], Kind::Malformed),
            (&[("if-match", b"\"\xff\"")], Kind::Malformed),
            (&[("if-none-match", b"nothing")], Kind::Malformed),
            (&[("if-none-match", b"\"a:1\"")], Kind::NotYet),
            (
                &[("if-none-match", b"*"), ("if-match", b"\"a\"")],
                Kind::Impossible,
            ),
        ] {
            let problem = of(&headers(pairs)).unwrap_err();
            assert_eq!(problem.kind(), kind, "{pairs:?}: {problem:?}");
        }
    }

    #[test]
    fn every_tag_that_is_given_out_names_its_dot() {
        for shown in ["0a1b2c3d:17", "", "=", "\u{fc}\"\n", "a b", "a,b", "*"] {
            let tag = entity_tag(shown);
            let value = HeaderValue::from_str(&tag).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, value);
            assert_eq!(of(&headers), Ok(Some(dots(&[shown]))), "{tag}");
        }
    }
}
