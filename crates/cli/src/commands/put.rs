//! `quorate put`

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_client::Explained;
use quorate_protocol::{Lifetime, Options, TtlError};
use serde_json::json;

use crate::explain;
use crate::failure::Failure;
use crate::options::{
    ClusterArgs, ConditionArgs, ExplainArgs, ReadArgs, SloppyArgs, TimeoutArgs, WriteArgs,
};
use crate::output::{self, Form};
use crate::runtime;

/// Store a value
///
/// Without --context the value becomes a sibling of whatever the key holds; with the context of a get it replaces what that get showed.
/// With a condition it is stored only if that holds (exit code 1 if not): best effort, as two that race may both find it to hold and
/// become siblings. Prints nothing; -o json prints the context that names this write.
#[derive(clap::Args)]
pub(crate) struct Put {
    /// The bucket
    bucket: String,

    /// The key
    key: String,

    /// The value [default: what standard input brings]
    #[arg(conflicts_with = "file")]
    value: Option<String>,

    /// Read the value from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The context of an earlier answer for this key: what was read is replaced
    #[arg(long, value_parser = output::parse_context)]
    context: Option<Bytes>,

    /// The value's media type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// How long the value lives, from 1s to 10 years, or none for no end [default: the bucket's ttl]
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    ttl: Option<Lifetime>,

    /// A name and a text to keep beside the value; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = named_text)]
    meta: Vec<(String, String)>,

    #[command(flatten)]
    explain: ExplainArgs,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    condition: ConditionArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    sloppy: SloppyArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Put {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let condition = self.condition.condition();
        if self.read.any() && condition.is_none() {
            return Err(Failure::Usage(
                "--r and --pr do nothing in a put without a condition, which reads nothing: leave them out, or give \
                 --if-absent, --if-present or --if-match"
                    .to_owned(),
            ));
        }
        let value = match (self.value, self.file.as_deref()) {
            (Some(text), _) => Bytes::from(text),
            (None, Some(file)) if file != Path::new("-") => {
                let read = fs::read(file);
                read.map_err(|error| Failure::io(format!("read {}", file.display()), &error))?
                    .into()
            }
            (None, _) => standard_input()?,
        };
        let explained = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let mut put = client
                .put(&self.bucket, &self.key, value)
                .options(
                    self.write.into_options(
                        self.read
                            .into_options(self.sloppy.into_options(Options::default())),
                    ),
                )
                .condition(condition)
                .timeout(self.timeout.timeout)
                .context(self.context)
                .lifetime(self.ttl);
            if let Some(content_type) = self.content_type {
                put = put.content_type(content_type);
            }
            for (name, text) in self.meta {
                put = put.meta(name, text);
            }
            Ok(match self.explain.explain {
                true => put.explain().await,
                false => Explained {
                    result: put.await,
                    account: None,
                },
            })
        })?;
        let (context, account) = explain::told(explained, form, &self.bucket, &self.key)?;
        if form == Form::Json {
            let stored = json!({
                "bucket": self.bucket,
                "key": self.key,
                "context": output::context_text(&context),
            });
            output::json(&explain::with(stored, account.as_ref()))?;
        }
        Ok(())
    }
}

fn standard_input() -> Result<Bytes, Failure> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        output::remark("reading the value from the terminal; Ctrl-D ends it");
    }
    let mut value = Vec::new();
    stdin
        .read_to_end(&mut value)
        .map_err(|error| Failure::io("read standard input", &error))?;
    Ok(value.into())
}

fn lifetime(argument: &str) -> Result<Lifetime, String> {
    Lifetime::parse(argument).map_err(|why| match why {
        TtlError::Malformed => format!("write {why}"),
        TtlError::OutOfBounds => why.to_string(),
    })
}

fn named_text(argument: &str) -> Result<(String, String), String> {
    match argument.split_once('=') {
        Some((name, text)) if !name.is_empty() => Ok((name.to_owned(), text.to_owned())),
        _ => Err("write NAME=TEXT".to_owned()),
    }
}
