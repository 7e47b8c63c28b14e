//! `quorate list`

use std::io;

use quorate_protocol::{LIST_KEYS_MAX, Options};
use serde_json::json;

use crate::failure::Failure;
use crate::lines::Writer;
use crate::options::{ClusterArgs, ReadArgs, TimeoutArgs};
use crate::output::Form;
use crate::runtime;

/// Keys asked for at one time: few enough to be there at once, and enough that the work of a page, which reads a little of
/// every partition, is spread over many keys.
pub(crate) const PAGE_KEYS: u32 = 4_000;

/// List the keys of a bucket
///
/// Prints each key that has a value on a line of its own, in the order of their bytes, as they come. With -o json each line is
/// {"key":"..."}: keys that contain a line break stay one line so. The listing is complete while r replicas of every part of the bucket can be
/// reached; if it breaks off the exit code is 1, and what was printed is right as far as it goes.
#[derive(clap::Args)]
pub(crate) struct List {
    /// The bucket
    bucket: String,

    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,

    /// Only keys after this one, which need not exist
    #[arg(long, value_name = "KEY")]
    after: Option<String>,

    /// At most so many keys
    #[arg(long, value_name = "KEYS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Bytes of lines that are written at once.
const CHUNK_BYTES: usize = 64 * 1024;

impl List {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let mut left = self.limit.unwrap_or(u64::MAX);
            let page = left.min(u64::from(PAGE_KEYS.min(LIST_KEYS_MAX))) as u32;
            let mut keys = client
                .list(&self.bucket)
                .prefix(&self.prefix)
                .after(self.after)
                .page_size(page)
                .options(self.read.into_options(Options::default()))
                .timeout(self.timeout.timeout)
                .keys();
            let writer = Writer::start(Box::new(io::stdout()));
            let mut chunk = Vec::new();
            let mut last = None;
            let ended = loop {
                if left == 0 {
                    break Ok(());
                }
                let key = match keys.next().await {
                    Ok(Some(key)) => key,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                left -= 1;
                match form {
                    Form::Table => chunk.extend_from_slice(key.as_bytes()),
                    Form::Json => {
                        chunk.extend_from_slice(json!({ "key": key }).to_string().as_bytes())
                    }
                }
                chunk.push(b'\n');
                last = Some(key);
                let is_due = chunk.len() >= CHUNK_BYTES || keys.is_page_end();
                if is_due && writer.write(std::mem::take(&mut chunk)).await.is_err() {
                    break Ok(());
                }
            };
            let _ = writer.write(chunk).await;
            writer
                .finish()
                .map_err(|error| Failure::io("write to standard output", &error))?;
            ended.map_err(|error| match last {
                Some(last) => Failure::new(format!(
                    "{error}\nto go on where it broke off: --after '{last}'"
                )),
                None => Failure::new(error),
            })
        })
    }
}
