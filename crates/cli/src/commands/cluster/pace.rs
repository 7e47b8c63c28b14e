//! `quorate cluster pause` and `resume`: how fast nodes are filled.

use std::time::Duration;

use quorate_protocol::Pace;
use serde_json::json;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form, human_bytes};
use crate::runtime;

/// How long all nodes may take to hear of it. They tell each other at once, and what was lost on the way within seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stop moving data while the layout changes, until `resume`
///
/// Both layouts stay live, so that nothing is lost by it but time. It also holds for a change that is applied later.
#[derive(clap::Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Go on moving data, or go on at another pace
#[derive(clap::Args)]
pub(crate) struct Resume {
    /// By so many bytes in a second each node is filled, such as 5000000 [default: fill_bytes_per_second of each node]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_second: Option<u64>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Pause {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        set(&self.cluster, Some(0), form)
    }
}

impl Resume {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        set(&self.cluster, self.bytes_per_second, form)
    }
}

fn set(cluster: &ClusterArgs, bytes: Option<u64>, form: Form) -> Result<(), Failure> {
    let pace = runtime::block_on(async {
        let client = cluster.connect().await?;
        let mut pace = client.pace(bytes).await.map_err(Failure::new)?;
        let began = Instant::now();
        loop {
            let known = client.layouts().await.map_err(Failure::new)?.live.pace;
            if known == pace {
                return Ok(known);
            }
            // The node that was asked had missed what was set before: it is set again on top of that.
            if known > pace {
                pace = client.pace(bytes).await.map_err(Failure::new)?;
            }
            if began.elapsed() > PATIENCE {
                return Err(Failure::new(
                    "it was set, and other nodes do not go by it yet: look again with quorate cluster progress",
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })?;
    match form {
        Form::Json => output::json(&json!({
            "paused": pace.is_paused(),
            "bytes_per_second": pace.bytes_per_second.filter(|bytes| *bytes > 0),
        })),
        Form::Table => output::line(&words(pace)),
    }
}

fn words(pace: Pace) -> String {
    match pace.bytes_per_second {
        Some(0) => "Paused: nodes wait to be filled until quorate cluster resume.".to_owned(),
        Some(bytes) => format!("Each node is filled by {} a second.", human_bytes(bytes)),
        None => "Each node is filled by what it is configured to.".to_owned(),
    }
}
