//! Results on standard output, as a table for people or as JSON for programs.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// Prints a result as one line of JSON.
pub(crate) fn json(result: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(result).map_err(Failure::new)?;
    line.push(b'\n');
    bytes(&line)
}

/// Writes bytes to standard output as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| Failure::io("write to standard output", &error))
}

/// Writes a line to standard output.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    bytes(format!("{line}\n").as_bytes())
}

/// How many columns the terminal has that results go to; `None` if they go elsewhere.
pub(crate) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Says something beside the result, on standard error. If nobody listens there, nothing is lost.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A table with these headings: columns apart by space alone, so that the usual tools can take it apart too.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A context as it is written everywhere outside of the protocol: base64url without padding.
pub(crate) fn context_text(context: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(context)
}

/// Reads a context as [`context_text`] writes it.
pub(crate) fn parse_context(text: &str) -> Result<bytes::Bytes, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| {
        format!("{error}: give the context of an earlier answer, unchanged, in base64url without padding")
    })?;
    Ok(bytes.into())
}

/// Bytes of a value in JSON, where they need not be text.
pub(crate) fn value_base64(value: &[u8]) -> String {
    STANDARD.encode(value)
}

/// Bytes in a person's units: `812 B`, `3.4 KiB`, `154.3 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_survive_their_text() {
        let bytes = [0u8, 0xff, 0xfe, 62, 63];
        let text = context_text(&bytes);
        assert_eq!(parse_context(&text).unwrap().as_ref(), bytes);
        assert!(parse_context("not base64!").is_err());
        assert!(parse_context("AA==").is_err(), "padding is not ours");
    }
}
