//! `quorate cluster apply`

use serde_json::json;

use super::plan::planned;
use super::progress;
use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form};
use crate::runtime;

/// Have what is staged chosen as the next layout, and begin to move data
///
/// A majority of the nodes of the layout before chooses it. If somebody else had another chosen since the plan was looked at, this one is
/// refused and nothing is changed.
#[derive(clap::Args)]
#[command(disable_version_flag = true)]
pub(crate) struct Apply {
    /// The version that the plan showed
    #[arg(long, value_name = "V")]
    version: u64,

    /// What the plan was called: if what is staged is another by now, nothing is applied
    #[arg(long, value_name = "ID")]
    plan: Option<String>,

    /// Also if it would not come to an end by itself, as the plan says
    #[arg(long)]
    force: bool,

    /// Stay, and show how far it has come, until it is done
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Apply {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let (planned, staged, apply) = planned(&client).await?;
            if planned.is_empty() {
                return Err(Failure::new(
                    "nothing is staged: see quorate cluster --help",
                ));
            }
            if planned.version != self.version {
                return Err(Failure::new(format!(
                    "the next layout has version {}, and not {}: the cluster has changed since, so look at the plan again",
                    planned.version, self.version
                )));
            }
            if self.plan.as_ref().is_some_and(|plan| *plan != planned.plan) {
                return Err(Failure::new(
                    "something else is staged than what that plan showed: look at the plan again",
                ));
            }
            if !self.force && !planned.obstacles.is_empty() {
                return Err(Failure::new(format!(
                    "it would not come to an end: {} Mend that, or say --force",
                    planned.obstacles.join(" ")
                )));
            }
            let version = client.apply_layout(apply).await.map_err(Failure::new)?;
            if form == Form::Table {
                for (name, words) in &planned.staged {
                    output::line(&format!("{name} {words}"))?;
                }
                output::line(&format!("Layout version {version} is chosen."))?;
            }
            if let Err(failure) = staged.applied(&client).await {
                output::remark(&format!(
                    "what was staged is still listed as such ({failure}): take it back with quorate cluster revert"
                ));
            }
            if self.follow {
                return progress::follow(&client, version, form).await;
            }
            match form {
                Form::Json => output::json(&json!({ "version": version })),
                Form::Table => {
                    output::remark("Watch it with: quorate cluster progress --follow");
                    Ok(())
                }
            }
        })
    }
}
