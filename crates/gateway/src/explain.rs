//! The account of a request as JSON: in a header whatever the answer is, and in the documents that can carry it whole.

use std::fmt::Write as _;
use std::io;

use axum::http::header::{HeaderName, HeaderValue};
use quorate_protocol::Account;
use serde::Serialize;
use serde_json::ser::Formatter;

/// Carries the account.
pub(crate) const EXPLAIN: HeaderName = HeaderName::from_static("quorate-explain");

/// The longest the header may be. Common servers and proxies give all headers of a response together 16 to 64 KiB, and drop
/// a response that has more.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// How many entries of its lists an account may keep, tried one after the other until it is short enough.
const KEPT: [usize; 5] = [64, 16, 4, 1, 0];

/// An account that was cut, and by how much.
#[derive(Serialize)]
struct Cut<'a> {
    #[serde(flatten)]
    account: Option<&'a Account>,
    truncated: String,
}

/// The account as a header, cut if it is too long for one.
pub(crate) fn header(account: &Account) -> HeaderValue {
    let whole = ascii(account);
    let mut text = whole.clone();
    for kept in KEPT {
        if text.len() <= HEADER_BYTES_MAX {
            break;
        }
        text = ascii(&Cut {
            account: Some(&cut(account, kept)),
            truncated: format!(
                "Lists are cut to {kept} entries and texts to {TEXT_CHARS_MAX} characters: the whole account has {} bytes, \
                 and a header carries {HEADER_BYTES_MAX}.",
                whole.len()
            ),
        });
    }
    if text.len() > HEADER_BYTES_MAX {
        text = ascii(&Cut {
            account: None,
            truncated: format!(
                "The account has {} bytes, and a header carries {HEADER_BYTES_MAX}.",
                whole.len()
            ),
        });
    }
    // Printable ASCII, so always a valid value.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("{}"))
}

const TEXT_CHARS_MAX: usize = 200;

/// The account with its lists cut. Which replicas there are, and what was needed, stays as long as may be.
fn cut(account: &Account, kept: usize) -> Account {
    let mut account = account.clone();
    let shorten = |text: &mut String| {
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
            text.truncate(end);
        }
    };
    account.siblings.truncate(kept);
    account.siblings.iter_mut().for_each(shorten);
    account.repaired.truncate(kept.max(1) * 4);
    for repair in &mut account.repaired {
        repair.dots.truncate(kept);
    }
    account.replicas.truncate(kept.max(1) * 16);
    for replica in &mut account.replicas {
        replica.steps.truncate(kept.max(1) * 4);
        for step in &mut replica.steps {
            step.dots.truncate(kept);
            shorten(&mut step.what);
        }
    }
    account
}

/// The account as a member of a document.
pub(crate) fn member(account: &Account) -> serde_json::Value {
    // Strings, numbers and lists always serialise.
    serde_json::to_value(account).unwrap_or_default()
}

/// JSON in printable ASCII: everything else as `\uXXXX`.
fn ascii(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Ascii);
    let written = value.serialize(&mut serializer);
    match written.map(|()| String::from_utf8(out)) {
        Ok(Ok(text)) => text,
        _ => "{}".to_owned(),
    }
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut text = String::with_capacity(fragment.len());
        for c in fragment.chars() {
            if (' '..='~').contains(&c) {
                text.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        writer.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{RepairAccount, ReplicaAccount, StepAccount};

    use super::*;

    fn account(replicas: usize, dots: usize, text: &str) -> Account {
        let dots: Vec<String> = (0..dots).map(|i| format!("0a1b2c3d:{i}")).collect();
        let step = |what: &str| StepAccount {
            at_us: 12,
            what: what.to_owned(),
            dots: dots.clone(),
            evidence: 3,
        };
        let replica = |i: usize| ReplicaAccount {
            node: format!("node-{i}"),
            region: "\u{d6}sterreich".to_owned(),
            stands_in_for: None,
            up: true,
            steps: vec![step("asked for the record"), step(text)],
        };
        Account {
            coordinator: "node-1".to_owned(),
            needed: vec!["r=2 of 3".to_owned()],
            replicas: (0..replicas).map(replica).collect(),
            repaired: vec![RepairAccount {
                node: "node-1".to_owned(),
                dots: dots.clone(),
                evidence: 1,
            }],
            siblings: dots.iter().map(|d| format!("{d} stands: {text}")).collect(),
            ..Account::default()
        }
    }

    fn parsed(account: &Account) -> serde_json::Value {
        let header = header(account);
        assert!(header.len() <= HEADER_BYTES_MAX);
        serde_json::from_str(header.to_str().expect("ASCII")).expect("JSON")
    }

    #[test]
    fn it_comes_whole_and_in_ascii() {
        let account = account(3, 4, "refused: \u{1f98a}\u{7f}\n\"");
        assert_eq!(parsed(&account), member(&account));
        assert!(member(&account).get("truncated").is_none());
    }

    #[test]
    fn a_long_one_is_cut_and_says_so() {
        for (replicas, dots, text) in [
            (3, 256, "record".to_owned()),
            (3, 256, "\u{1f98a}".repeat(500)),
            (200, 256, "refused: ".repeat(1000)),
        ] {
            let account = account(replicas, dots, &text);
            let cut = parsed(&account);
            let said = cut["truncated"].as_str().expect("it says so");
            assert!(said.contains("header carries 16384"), "{said}");
            assert_eq!(cut["coordinator"], "node-1");
            let kept = cut["replicas"].as_array().expect("a list");
            assert_eq!(kept.len(), replicas.min(16), "{cut}");
        }
        // Nobody makes such names; if somebody did, the answer must still go out.
        let mut account = account(1, 1, "");
        account.coordinator = "x".repeat(20_000);
        assert!(parsed(&account)["truncated"].is_string());
    }
}
