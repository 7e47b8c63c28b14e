//! `quorate delete`

use bytes::Bytes;
use quorate_protocol::Options;
use serde_json::json;

use crate::failure::Failure;
use crate::options::{ClusterArgs, ReadArgs, TimeoutArgs, WriteArgs};
use crate::output::{self, Form};
use crate::runtime;

/// Remove a key's values
///
/// With the context of a get, exactly what that get showed; values written meanwhile stay. Without one, what a read quorum sees now.
/// Removing what is absent is no error.
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// The bucket
    bucket: String,

    /// The key
    key: String,

    /// The context of an earlier answer for this key: just what was read is removed
    #[arg(long, value_parser = output::parse_context)]
    context: Option<Bytes>,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Delete {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            client
                .delete(&self.bucket, &self.key)
                .options(
                    self.write
                        .into_options(self.read.into_options(Options::default())),
                )
                .timeout(self.timeout.timeout)
                .context(self.context)
                .await
                .map_err(Failure::new)
        })?;
        if form == Form::Json {
            output::json(&json!({ "bucket": self.bucket, "key": self.key, "deleted": true }))?;
        }
        Ok(())
    }
}
