//! `quorate delete`

use bytes::Bytes;
use quorate_client::Explained;
use quorate_protocol::Options;
use serde_json::json;

use crate::explain;
use crate::failure::Failure;
use crate::options::{
    ClusterArgs, ConditionArgs, ExplainArgs, ReadArgs, SloppyArgs, TimeoutArgs, WriteArgs,
};
use crate::output::{self, Form};
use crate::runtime;

/// Remove a key's values
///
/// With the context of a get, exactly what that get showed; values written meanwhile stay. Without one, what a read quorum sees now.
/// Removing what is absent is no error, unless a condition says so; one that does not hold exits 1, and nothing is changed.
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

impl Delete {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let explained = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let delete = client
                .delete(&self.bucket, &self.key)
                .options(
                    self.write.into_options(
                        self.read
                            .into_options(self.sloppy.into_options(Options::default())),
                    ),
                )
                .timeout(self.timeout.timeout)
                .context(self.context)
                .condition(self.condition.condition());
            Ok(match self.explain.explain {
                true => delete.explain().await,
                false => Explained {
                    result: delete.await,
                    account: None,
                },
            })
        })?;
        let ((), account) = explain::told(explained, form, &self.bucket, &self.key)?;
        if form == Form::Json {
            let deleted = json!({ "bucket": self.bucket, "key": self.key, "deleted": true });
            output::json(&explain::with(deleted, account.as_ref()))?;
        }
        Ok(())
    }
}
