//! `quorate verify`

use std::time::Instant;

use quorate_client::Client;
use quorate_protocol::{Options, VALUE_BYTES_MAX};
use serde_json::json;

use crate::cluster::Patience;
use crate::failure::Failure;
use crate::feed::{self, Item};
use crate::options::{ClusterArgs, ReadArgs, TimeoutArgs};
use crate::output::{self, Form, human_bytes};
use crate::runtime;
use crate::tally::Tally;
use crate::tree::Root;

/// Read every file of an import back and compare it
///
/// Takes the same directories as `quorate import`, reads each file's key and compares the blake3 digests of file and value. Exits 1 if any
/// is absent, differs, has siblings that are not all the file's content, or cannot be read.
#[derive(clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    source: Source,

    /// The bucket
    bucket: String,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Which files.
#[derive(clap::Args)]
struct Source {
    /// A directory; with NAME=PATH the keys begin with NAME/. May be repeated. A path that contains '=' is written from / or ./ on
    #[arg(long = "dir", value_name = "[NAME=]PATH", required = true)]
    dirs: Vec<Root>,

    /// The largest file that is taken, in bytes: the nodes' value_bytes_max
    #[arg(long, value_name = "BYTES", default_value_t = VALUE_BYTES_MAX as u64)]
    value_bytes_max: u64,
}

/// What came of one file.
struct Outcome {
    key: String,
    bytes: u64,
    /// What is wrong, if something is.
    wrong: Option<String>,
}

impl Verify {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let began = Instant::now();
        let mut tally = Tally::default();
        let (mut intact, mut bytes) = (0u64, 0u64);
        let options = self.read.into_options(Options::default());
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let work = |item| {
                compare(
                    client.clone(),
                    self.bucket.clone(),
                    item,
                    options,
                    self.timeout,
                )
            };
            let done = |tally: &mut Tally, outcome: Outcome| match outcome.wrong {
                None => {
                    intact += 1;
                    bytes += outcome.bytes;
                }
                Some(wrong) => tally.fail(&outcome.key, &wrong),
            };
            feed::drive(
                self.source.dirs,
                self.source.value_bytes_max,
                &mut tally,
                work,
                done,
            )
            .await
        })?;
        let seconds = began.elapsed().as_secs_f64();
        match form {
            Form::Json => output::json(&json!({
                "bucket": self.bucket,
                "intact": intact,
                "bytes": bytes,
                "seconds": seconds,
                "exceptions": tally.to_json(),
            }))?,
            Form::Table => {
                tally.tell();
                output::line(&format!(
                    "{intact} values intact, {} in {seconds:.1} s; {} skipped, {} wrong",
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

/// Reads one key with patience and compares.
async fn compare(
    client: Client,
    bucket: String,
    item: Item,
    options: Options,
    TimeoutArgs { timeout }: TimeoutArgs,
) -> Outcome {
    let mut patience = Patience::new();
    let wrong = loop {
        match client
            .get(&bucket, &item.key)
            .options(options)
            .timeout(timeout)
            .await
        {
            Ok(None) => break Some("absent".to_owned()),
            Ok(Some(held)) => {
                break match &held.siblings[..] {
                    [only] => difference(&item.data, &only.value.data),
                    // An import that tried a put again may have left the same twice.
                    siblings if siblings.iter().all(|s| s.value.data == item.data) => None,
                    siblings => Some(format!(
                        "{} siblings, not all of them the file's content",
                        siblings.len()
                    )),
                };
            }
            Err(error) => {
                if !patience.allows(&error).await {
                    break Some(error.to_string());
                }
            }
        }
    };
    Outcome {
        key: item.key,
        bytes: item.data.len() as u64,
        wrong,
    }
}

/// What is wrong with a value that should be this file's content.
fn difference(file: &[u8], value: &[u8]) -> Option<String> {
    let (expected, found) = (blake3::hash(file), blake3::hash(value));
    if expected == found {
        return None;
    }
    Some(format!(
        "the file has {} bytes with blake3 {}, the value {} with {}",
        file.len(),
        expected.to_hex(),
        value.len(),
        found.to_hex()
    ))
}
