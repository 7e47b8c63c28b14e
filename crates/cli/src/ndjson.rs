//! Keys and their values as lines of JSON, so that what is exported can be imported as it was.
//!
//! ```text
//! {"bucket":"b","key":"k","value":"text","content_type":"text/plain","meta":{"by":"me"}}
//! {"bucket":"b","key":"k","value_base64":"AP8="}
//! {"bucket":"b","key":"k","siblings":[{"value":"one"},{"value":"two"}]}
//! {"bucket":"b","key":"k","value":"text","expires":"2030-01-31T12:00:00.000Z"}
//! ```
//!
//! One line a key. A value is text where it is printable text, and base64 otherwise. Siblings are all on the key's line, since
//! together they are what the key holds. Metadata is an object; names that stand twice make it a list of pairs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_client::{Sibling, Value};
use quorate_protocol::{
    KEY_BYTES_MAX, SIBLINGS_BYTES_FACTOR, VALUE_BYTES_MAX, deadline_text, parse_deadline,
};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest line that is read: the largest siblings of a key, of which every byte is escaped or in base64, with room for
/// what is kept beside them.
pub(crate) const LINE_BYTES_MAX: usize = 3 * SIBLINGS_BYTES_FACTOR * VALUE_BYTES_MAX;

/// All that a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// At least one.
    pub(crate) values: Vec<Kept>,
}

/// A value and when it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) value: Value,
    /// In milliseconds since the Unix epoch, if it ends.
    pub(crate) expires_ms: Option<u64>,
}

impl Kept {
    fn is(&self, told: &Kept) -> bool {
        self.value == told.value
            && (told.expires_ms.is_none() || self.expires_ms == told.expires_ms)
    }
}

impl From<Sibling> for Kept {
    fn from(sibling: Sibling) -> Self {
        Kept {
            value: sibling.value,
            expires_ms: sibling.expires_ms,
        }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    bucket: &'a str,
    key: &'a str,
    #[serde(flatten)]
    only: Option<WrittenValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    siblings: Option<Vec<WrittenValue<'a>>>,
}

#[derive(Serialize)]
struct WrittenValue<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "WrittenMeta::is_empty")]
    meta: WrittenMeta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

struct WrittenMeta<'a>(&'a [(String, String)]);

impl WrittenMeta<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for WrittenMeta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return self.0.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, text) in self.0 {
            map.serialize_entry(name, text)?;
        }
        map.end()
    }
}

impl<'a> WrittenValue<'a> {
    fn of(Kept { value, expires_ms }: &'a Kept) -> Self {
        // Control characters would grow sixfold, and most tools show them badly.
        let text = std::str::from_utf8(&value.data).ok();
        let text = text.filter(|t| !t.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)));
        WrittenValue {
            value: text,
            value_base64: text.is_none().then(|| STANDARD.encode(&value.data)),
            content_type: value.content_type.as_deref(),
            meta: WrittenMeta(&value.meta),
            expires: expires_ms.map(deadline_text),
        }
    }
}

impl Entry {
    /// The entry as a line, with its end.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let (only, siblings) = match &self.values[..] {
            [only] => (Some(WrittenValue::of(only)), None),
            several => (
                None,
                Some(several.iter().map(WrittenValue::of).collect::<Vec<_>>()),
            ),
        };
        let written = Written {
            bucket: &self.bucket,
            key: &self.key,
            only,
            siblings,
        };
        // Strings and maps with string keys always serialise.
        let mut line = serde_json::to_vec(&written).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads a line; `bucket` stands for the one it names, if given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(line: &[u8], bucket: Option<&str>) -> Result<Entry, String> {
        let read: Read = serde_json::from_slice(line).map_err(|error| {
            // The line is one line to us, so only its column says something.
            let place = format!(" at line {} column {}", error.line(), error.column());
            let what = error.to_string();
            let what = what.strip_suffix(&place).unwrap_or(&what);
            format!("{what} (column {})", error.column())
        })?;
        let Read {
            bucket: named,
            key,
            value,
            value_base64,
            content_type,
            meta,
            expires,
            siblings,
        } = read;
        let bucket = bucket.map(str::to_owned).or(named).ok_or(
            "there is no \"bucket\" in it: add it to the line, or name one for all with --bucket",
        )?;
        if bucket.is_empty() || key.is_empty() {
            return Err("the bucket or the key is empty".to_owned());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(format!(
                "the key has {} bytes, and the limit is {KEY_BYTES_MAX}",
                key.len()
            ));
        }
        let only = ReadValue {
            value,
            value_base64,
            content_type,
            meta,
            expires,
        };
        let values = match siblings {
            None => vec![only.into_kept()?],
            Some(_) if !only.is_nothing() => {
                return Err(
                    "it has \"siblings\" and a value beside them: give one of the two".to_owned(),
                );
            }
            Some(siblings) if siblings.is_empty() => {
                return Err("\"siblings\" is empty: give at least one value".to_owned());
            }
            Some(siblings) => {
                let values = siblings.into_iter().map(ReadValue::into_kept);
                values.collect::<Result<_, _>>()?
            }
        };
        Ok(Entry {
            bucket,
            key,
            values,
        })
    }

    /// Whether a key that holds these holds just what is in here, in whatever order. A value of which no end is told goes by
    /// its bucket, so that it is there whatever end it has.
    pub(crate) fn is_held(&self, held: impl Iterator<Item = Kept>) -> bool {
        let mut held: Vec<Kept> = held.collect();
        for value in &self.values {
            match held.iter().position(|h| h.is(value)) {
                Some(at) => held.swap_remove(at),
                None => return false,
            };
        }
        held.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    bucket: Option<String>,
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    meta: Meta,
    expires: Option<String>,
    siblings: Option<Vec<ReadValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadValue {
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    meta: Meta,
    expires: Option<String>,
}

impl ReadValue {
    fn is_nothing(&self) -> bool {
        self.value.is_none()
            && self.value_base64.is_none()
            && self.content_type.is_none()
            && self.meta.0.is_empty()
            && self.expires.is_none()
    }

    fn into_kept(self) -> Result<Kept, String> {
        let data = match (self.value, self.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => STANDARD
                .decode(base64)
                .map_err(|error| format!("\"value_base64\" is not base64 with padding: {error}"))?,
            (None, None) => {
                return Err("there is no value in it: add \"value\" or \"value_base64\"".to_owned());
            }
            (Some(_), Some(_)) => {
                return Err("it has \"value\" and \"value_base64\": give one of the two".to_owned());
            }
        };
        let expires = self.expires.as_deref().map(parse_deadline);
        Ok(Kept {
            value: Value {
                data: data.into(),
                content_type: self.content_type,
                meta: self.meta.0,
            },
            expires_ms: expires
                .transpose()
                .map_err(|why| format!("\"expires\": {why}"))?,
        })
    }
}

/// Names and texts in the order in which they stand, which a map would not keep.
#[derive(Default)]
struct Meta(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Meta;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts, or a list of pairs of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Meta, A::Error> {
                let mut meta = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    meta.push(entry);
                }
                Ok(Meta(meta))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Meta, A::Error> {
                let mut meta = Vec::new();
                while let Some(pair) = seq.next_element()? {
                    meta.push(pair);
                }
                Ok(Meta(meta))
            }
        }

        deserializer.deserialize_any(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(data: &[u8]) -> Value {
        Value::new(data.to_vec())
    }

    fn kept(value: Value) -> Kept {
        Kept {
            value,
            expires_ms: None,
        }
    }

    fn entry(values: Vec<Value>) -> Entry {
        Entry {
            bucket: "b".to_owned(),
            key: "k/ü\n\"".to_owned(),
            values: values.into_iter().map(kept).collect(),
        }
    }

    fn line(entry: &Entry) -> String {
        String::from_utf8(entry.to_line()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let pairs = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()));
            owned.collect::<Vec<_>>()
        };
        let full = |data: &[u8], meta| Value {
            data: data.to_vec().into(),
            content_type: Some("text/plain".to_owned()),
            meta,
        };
        for values in [
            vec![value(b"text\twith\nlines and \xc3\xbc")],
            vec![value(b"")],
            vec![value(b"\xff\x00")],
            vec![value(b"esc \x1b[0m")],
            vec![full(b"1", pairs(&[("z", "1"), ("a", "2")]))],
            vec![full(b"1", pairs(&[("a", "1"), ("b", "x"), ("a", "2")]))],
            vec![value(b"1"), value(b"1"), full(b"\xfe", pairs(&[("a", "")]))],
            vec![Value {
                content_type: Some(String::new()),
                ..value(b"1")
            }],
        ] {
            let written = entry(values);
            let line = written.to_line();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert_eq!(Entry::parse(&line, None), Ok(written));
        }
        let mut ending = entry(vec![value(b"v"), value(b"w")]);
        ending.values[1].expires_ms = Some(1_900_000_000_000);
        let written = line(&ending);
        assert!(written.contains("{\"value\":\"w\",\"expires\":\"2030-03-17T17:46:40.000Z\"}"));
        assert_eq!(Entry::parse(written.as_bytes(), None), Ok(ending));
        assert_eq!(
            line(&entry(vec![value(b"v")])),
            "{\"bucket\":\"b\",\"key\":\"k/ü\\n\\\"\",\"value\":\"v\"}\n"
        );
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, words) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("[]", "invalid length"),
            ("{\"key\":\"k\",\"value\":\"v\"}", "--bucket"),
            ("{\"bucket\":\"b\",\"value\":\"v\"}", "missing field `key`"),
            ("{\"bucket\":\"b\",\"key\":\"k\"}", "no value"),
            ("{\"bucket\":\"b\",\"key\":\"\",\"value\":\"v\"}", "empty"),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"valeu\":\"v\"}",
                "`valeu`",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\",\"value_base64\":\"\"}",
                "one of the two",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value_base64\":\"?\"}",
                "not base64",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value\":1}",
                "expected a string",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"siblings\":[]}",
                "at least one",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\",\"siblings\":[{\"value\":\"v\"}]}",
                "beside",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\",\"meta\":3}",
                "pairs of texts",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\",\"expires\":\"soon\"}",
                "no moment",
            ),
            (
                "{\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\"} x",
                "trailing",
            ),
        ] {
            let why = Entry::parse(line.as_bytes(), None).unwrap_err();
            assert!(why.contains(words), "{line}: {why}");
        }
        let long = format!(
            "{{\"bucket\":\"b\",\"key\":\"{}\",\"value\":\"v\"}}",
            "k".repeat(1025)
        );
        assert!(
            Entry::parse(long.as_bytes(), None)
                .unwrap_err()
                .contains("1025")
        );
        let parsed = Entry::parse(
            b"{\"bucket\":\"a\",\"key\":\"k\",\"value\":\"v\"}",
            Some("b"),
        );
        assert_eq!(parsed.unwrap().bucket, "b");
    }

    #[test]
    fn held_means_the_same_values_as_often() {
        let (a, b) = (value(b"a"), value(b"b"));
        let both = entry(vec![a.clone(), b.clone()]);
        let held = |entry: &Entry, values: &[&Value]| {
            entry.is_held(values.iter().map(|value| kept((*value).clone())))
        };
        assert!(held(&both, &[&b, &a]));
        assert!(!held(&both, &[&a]));
        assert!(!held(&both, &[&a, &a]));
        assert!(!held(&both, &[&a, &b, &b]));
        let typed = Value {
            content_type: Some("x".to_owned()),
            ..a.clone()
        };
        assert!(!held(&entry(vec![a.clone()]), &[&typed]));
        let mut ending = entry(vec![a.clone()]);
        ending.values[0].expires_ms = Some(1);
        assert!(!held(&ending, &[&a]), "one ends and the other does not");
        let by_bucket = entry(vec![a]);
        assert!(by_bucket.is_held(ending.values.into_iter()));
    }
}
