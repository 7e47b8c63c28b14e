//! `quorate get`

use std::fs;
use std::path::PathBuf;

use quorate_client::{Account, Explained, Fetched, Sibling};
use quorate_protocol::{Options, deadline_text};
use serde::Serialize;

use crate::explain;
use crate::failure::Failure;
use crate::options::{ClusterArgs, ExplainArgs, ReadArgs, SloppyArgs, TimeoutArgs};
use crate::output::{self, Form};
use crate::runtime;

/// Read a key
///
/// A single value is printed as it is, byte for byte. Siblings are printed as a table with their context, and values in short; -o json
/// shows everything, of a single value too. Exits 3 if the key is absent.
#[derive(clap::Args)]
pub(crate) struct Get {
    /// The bucket
    bucket: String,

    /// The key
    key: String,

    /// Write a single value to this file; siblings are refused
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    explain: ExplainArgs,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    sloppy: SloppyArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A key's live values, as JSON shows them.
#[derive(Serialize)]
struct Shown<'a> {
    bucket: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    siblings: Vec<ShownSibling<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<&'a Account>,
}

#[derive(Serialize)]
struct ShownSibling<'a> {
    dot: &'a str,
    /// Only where the bytes are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    value_base64: String,
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// As an object: a program looks a name up.
    meta: serde_json::Map<String, serde_json::Value>,
}

impl Get {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let explained = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let get = client
                .get(&self.bucket, &self.key)
                .options(
                    self.read
                        .into_options(self.sloppy.into_options(Options::default())),
                )
                .timeout(self.timeout.timeout);
            Ok(match self.explain.explain {
                true => get.explain().await,
                false => Explained {
                    result: get.await,
                    account: None,
                },
            })
        })?;
        // A value that goes to a file leaves no document for the account to be a member of.
        let told_as = match self.file {
            Some(_) => Form::Table,
            None => form,
        };
        let (fetched, account) = explain::told(explained, told_as, &self.bucket, &self.key)?;
        if form == Form::Json && self.file.is_none() {
            output::json(&self.shown(fetched.as_ref(), account.as_ref()))?;
        }
        let Some(fetched) = fetched else {
            return Err(Failure::NotFound(format!(
                "'{}' is not in '{}'",
                self.key, self.bucket
            )));
        };
        match (&fetched.siblings[..], &self.file) {
            ([single], Some(file)) => {
                let written = fs::write(file, &single.value.data);
                written.map_err(|error| Failure::io(format!("write {}", file.display()), &error))
            }
            (siblings, Some(_)) => Err(Failure::new(format!(
                "the key has {} siblings, and a file holds one value: -o json shows all",
                siblings.len()
            ))),
            (_, None) if form == Form::Json => Ok(()),
            ([single], None) => output::bytes(&single.value.data),
            (siblings, None) => {
                self.print_siblings(siblings, &output::context_text(&fetched.context))
            }
        }
    }

    fn shown<'a>(
        &'a self,
        fetched: Option<&'a Fetched>,
        explain: Option<&'a Account>,
    ) -> Shown<'a> {
        let siblings = fetched.map_or(&[][..], |fetched| &fetched.siblings);
        Shown {
            bucket: &self.bucket,
            key: &self.key,
            context: fetched.map(|fetched| output::context_text(&fetched.context)),
            siblings: siblings.iter().map(ShownSibling::of).collect(),
            explain,
        }
    }

    fn print_siblings(&self, siblings: &[Sibling], context: &str) -> Result<(), Failure> {
        let mut table = output::table(&["DOT", "BYTES", "CONTENT-TYPE", "VALUE"]);
        for sibling in siblings {
            let value = &sibling.value;
            table.add_row([
                sibling.dot.clone(),
                value.data.len().to_string(),
                value.content_type.clone().unwrap_or_else(|| "-".to_owned()),
                excerpt(&value.data),
            ]);
        }
        output::line(&table.trim_fmt())?;
        output::line(&format!("context {context}"))?;
        output::remark(&format!(
            "{} siblings: written without knowledge of each other. To put one value in their place:\n\
             \x20 quorate put '{}' '{}' VALUE --context {context}",
            siblings.len(),
            self.bucket,
            self.key
        ));
        Ok(())
    }
}

impl<'a> ShownSibling<'a> {
    fn of(sibling: &'a Sibling) -> Self {
        let value = &sibling.value;
        ShownSibling {
            dot: &sibling.dot,
            value: std::str::from_utf8(&value.data).ok(),
            value_base64: output::value_base64(&value.data),
            content_type: value.content_type.as_deref(),
            expires: sibling.expires_ms.map(deadline_text),
            meta: value
                .meta
                .iter()
                .map(|(name, text)| (name.clone(), text.clone().into()))
                .collect(),
        }
    }
}

/// The beginning of a value for a table: one line of printable text, or that there is none.
fn excerpt(data: &[u8]) -> String {
    const CHARS_MAX: usize = 40;
    let Ok(text) = std::str::from_utf8(data) else {
        return "(not text)".to_owned();
    };
    let mut shown: String = text
        .chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::excerpt;

    #[test]
    fn an_excerpt_is_one_line_that_cannot_steer_a_terminal() {
        assert_eq!(excerpt(b"a\nb\x1b[2J"), "a b [2J");
        assert_eq!(excerpt(b"\xff\x00"), "(not text)");
        assert_eq!(
            excerpt("ä".repeat(41).as_bytes()),
            format!("{}…", "ä".repeat(40))
        );
    }
}
