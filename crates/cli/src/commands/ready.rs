//! `quorate ready`

use std::time::Duration;

use quorate_client::{Client, ClientConfig, Described, Error};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::failure::Failure;
use crate::options::{ClusterArgs, duration};
use crate::output::{self, Form};
use crate::runtime;

/// How long one attempt may take: a node that is starting refuses at once, one that is stopped or behind a firewall is silent.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Between two attempts. A node takes some hundred milliseconds to start; a shorter pause would compete with it for the CPU.
const PAUSE: Duration = Duration::from_millis(100);

/// Wait until a node answers and knows its layout
///
/// Any of the cluster's endpoints will do; name one with --endpoint to ask for that node.
#[derive(clap::Args)]
pub(crate) struct Ready {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

impl Ready {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async move {
            let described = self.wait().await?;
            let version = described.layout.version();
            let nodes = described.layout.nodes().len();
            match form {
                Form::Json => output::json(
                    &json!({ "node": described.node, "layout_version": version, "nodes": nodes }),
                ),
                Form::Table => {
                    output::remark(&format!(
                        "{} is ready: layout {version} of {nodes} nodes",
                        described.node
                    ));
                    Ok(())
                }
            }
        })
    }

    /// Tries until the time is over. The configuration is read anew each time: whoever makes the cluster may not be done yet.
    async fn wait(&self) -> Result<Described, Failure> {
        let until = Instant::now() + self.timeout;
        loop {
            let failure = match self.cluster.load() {
                Ok(config) => match timeout_at(until, attempt(config)).await {
                    Ok(Ok(described)) => return Ok(described),
                    Ok(Err(error)) => Failure::new(error),
                    Err(_) => Failure::new("no node answered"),
                },
                Err(failure) => failure,
            };
            if Instant::now() + PAUSE >= until {
                let within = humantime::format_duration(self.timeout);
                output::remark(&format!("not ready within {within}"));
                return Err(failure);
            }
            sleep(PAUSE).await;
        }
    }
}

async fn attempt(config: ClientConfig) -> Result<Described, Error> {
    let client = Client::connect_within(config, ATTEMPT_MAX).await?;
    client.describe().await
}
