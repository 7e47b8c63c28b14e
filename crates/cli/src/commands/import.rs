//! `quorate import`

use std::path::PathBuf;
use std::time::Instant;

use quorate_client::{Client, Error};
use quorate_protocol::{Options, Refusal, VALUE_BYTES_MAX};
use serde_json::json;

use crate::cluster::Patience;
use crate::commands::import_lines::{self, Lines};
use crate::content_type;
use crate::failure::Failure;
use crate::feed::{self, Item};
use crate::options::{ClusterArgs, TimeoutArgs, WriteArgs};
use crate::output::{self, Form, human_bytes};
use crate::runtime;
use crate::tally::Tally;
use crate::tree::{Root, Skip};

/// Store what an export wrote, or every file of a directory
///
/// Lines of JSON, from FILE or standard input, as `quorate export` writes them: each has "bucket", "key", and "value" or "value_base64" with
/// "content_type", "meta" and "expires", or "siblings" with several such; what has expired is passed over and counted. Each key is read before it is written: one that holds just what its line
/// says is left alone, any other comes to hold just that. So importing again takes an interrupted import up where it ended; --resume skips
/// what is known to be stored. With --dir every file of a directory becomes a key of BUCKET: keys are paths relative to the directory, with '/' between
/// their parts. Left out and reported are then symbolic links, names that are not UTF-8, and what is larger or longer than a value or key may be.
#[derive(clap::Args)]
pub(crate) struct Import {
    /// With --dir the bucket; otherwise a file of lines, or - for standard input, which is the default
    #[arg(value_name = "FILE|BUCKET")]
    from: Option<String>,

    /// A directory; with NAME=PATH the keys begin with NAME/. May be repeated. A path that contains '=' is written from / or ./ on
    #[arg(long = "dir", value_name = "[NAME=]PATH", requires = "from", conflicts_with_all = ["bucket", "resume", "skip_bad"])]
    dirs: Vec<Root>,

    /// The largest file that --dir takes, in bytes: the nodes' value_bytes_max
    #[arg(long, value_name = "BYTES", default_value_t = VALUE_BYTES_MAX as u64)]
    value_bytes_max: u64,

    #[command(flatten)]
    lines: Lines,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What came of one file.
enum Outcome {
    Stored(u64),
    Unchanged(u64),
    TooLarge(std::path::PathBuf),
    Failed(String, Error),
}

/// What a run did, counted.
#[derive(Default)]
struct Counts {
    stored: u64,
    unchanged: u64,
    bytes: u64,
}

impl Import {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        if self.dirs.is_empty() {
            let file = self.from.filter(|from| from != "-").map(PathBuf::from);
            let options = self.write.into_options(Options::default());
            return import_lines::run(file, self.lines, options, self.timeout, &self.cluster, form);
        }
        // The parser has seen to it that it is there.
        let bucket = self.from.unwrap_or_default();
        let began = Instant::now();
        let mut tally = Tally::default();
        let mut counts = Counts::default();
        let options = self.write.into_options(Options::default());
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let work = |item| store(client.clone(), bucket.clone(), item, options, self.timeout);
            let done = |tally: &mut Tally, outcome| match outcome {
                Outcome::Stored(bytes) => {
                    counts.stored += 1;
                    counts.bytes += bytes;
                }
                Outcome::Unchanged(bytes) => {
                    counts.unchanged += 1;
                    counts.bytes += bytes;
                }
                Outcome::TooLarge(path) => tally.skip(&path, Skip::ValueTooLarge),
                Outcome::Failed(key, error) => tally.fail(&key, &error.to_string()),
            };
            feed::drive(self.dirs, self.value_bytes_max, &mut tally, work, done).await
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let Counts {
            stored,
            unchanged,
            bytes,
        } = counts;
        match form {
            Form::Json => output::json(&json!({
                "bucket": bucket,
                "files": stored + unchanged,
                "bytes": bytes,
                "stored": stored,
                "unchanged": unchanged,
                "seconds": seconds,
                "exceptions": tally.to_json(),
            }))?,
            Form::Table => {
                tally.tell();
                output::line(&format!(
                    "{} files, {} in {seconds:.1} s: {stored} stored, {unchanged} unchanged, {} skipped, {} failed",
                    stored + unchanged,
                    human_bytes(bytes),
                    tally.skipped(),
                    tally.failed(),
                ))?;
            }
        }
        if tally.failed() > 0 {
            Err(Failure::Told)
        } else {
            Ok(())
        }
    }
}

/// Stores one file with patience. A put of unknown outcome may be tried again, since the key is read before: if it happened after all,
/// it is found, unless the replicas that are asked are others than those that have it. Then the same content becomes a sibling of itself:
/// harmless, and resolved by the next import, as any siblings.
async fn store(
    client: Client,
    bucket: String,
    item: Item,
    options: Options,
    timeout: TimeoutArgs,
) -> Outcome {
    let size = item.data.len() as u64;
    let mut patience = Patience::new();
    loop {
        match store_once(&client, &bucket, &item, options, timeout).await {
            Ok(true) => return Outcome::Stored(size),
            Ok(false) => return Outcome::Unchanged(size),
            Err(error) => {
                if let Some(Refusal::TooLarge { .. }) = error.refusal() {
                    return Outcome::TooLarge(item.path);
                }
                if !patience.allows(&error).await {
                    return Outcome::Failed(item.key, error);
                }
            }
        }
    }
}

/// Whether it had to be stored: a key that holds just this already is left alone. Siblings are replaced by one value, even if each is this.
async fn store_once(
    client: &Client,
    bucket: &str,
    item: &Item,
    options: Options,
    TimeoutArgs { timeout }: TimeoutArgs,
) -> Result<bool, Error> {
    let content_type = content_type::guess(&item.key);
    let held = client.get(bucket, &item.key).timeout(timeout).await?;
    let is_this = held.as_ref().is_some_and(|held| match &held.siblings[..] {
        [only] => {
            only.value.data == item.data && only.value.content_type.as_deref() == content_type
        }
        _ => false,
    });
    if is_this {
        return Ok(false);
    }
    let mut put = client
        .put(bucket, &item.key, item.data.clone())
        .options(options)
        .timeout(timeout)
        .context(held.map(|held| held.context));
    if let Some(content_type) = content_type {
        put = put.content_type(content_type);
    }
    put.await?;
    Ok(true)
}
