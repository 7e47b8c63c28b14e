//! `quorate repair`

use std::time::{Duration, Instant};

use quorate_client::Client;
use quorate_protocol::{Repaired, TIMEOUT_MAX};
use serde_json::json;

use crate::failure::Failure;
use crate::options::{ClusterArgs, duration};
use crate::output::{self, Form, human_bytes};
use crate::progress::Progress;
use crate::runtime;

/// Have all replicas compare what they hold now, and join what differs
///
/// Nodes do this by themselves all the time (exchange_cycle); this does it at once, and tells what differed and what it cost.
/// Exits 1 if it could not be done for every replica: one that is out of reach is named.
#[derive(clap::Args)]
pub(crate) struct Repair {
    /// Only this partition, by its number
    #[arg(long, value_name = "P")]
    partition: Option<u16>,

    /// How long one partition may take
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    timeout: Duration,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Repair {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let began = Instant::now();
        let (partitions, came_to) = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let all = 0..client.layout().partitions();
            let partitions = match self.partition {
                Some(one) => one..one.saturating_add(1),
                None => all,
            };
            let count = u64::from(partitions.end - partitions.start);
            let mut progress = Progress::start("partitions", Some(count), None);
            let timeout = self.timeout.min(TIMEOUT_MAX);
            let came_to = repair(&client, partitions, timeout, &mut progress).await;
            progress.finish();
            came_to.map(|came_to| (count, came_to))
        })?;
        let seconds = began.elapsed().as_secs_f64();
        match form {
            Form::Json => output::json(&json!({
                "partitions": partitions,
                "exchanges": came_to.exchanges,
                "broken": came_to.broken,
                "keys": came_to.keys,
                "rounds": came_to.rounds,
                "bytes": came_to.bytes,
                "seconds": seconds,
                "unfinished": came_to.unfinished,
            }))?,
            Form::Table => {
                for what in &came_to.unfinished {
                    output::line(&format!("! {what}"))?;
                }
                let keys = match came_to.keys {
                    0 => "no key differed".to_owned(),
                    1 => "1 key differed and was joined".to_owned(),
                    keys => format!("{keys} keys differed and were joined"),
                };
                output::line(&format!(
                    "{keys}: {partitions} partitions, {} exchanges, {} rounds, {} in {seconds:.1} s",
                    came_to.exchanges,
                    came_to.rounds,
                    human_bytes(came_to.bytes),
                ))?;
            }
        }
        match came_to.unfinished.is_empty() {
            true => Ok(()),
            false => Err(Failure::Told),
        }
    }
}

/// One partition after the other, so that it is seen how far it has come and other work goes on.
async fn repair(
    client: &Client,
    partitions: std::ops::Range<u16>,
    timeout: Duration,
    progress: &mut Progress,
) -> Result<Repaired, Failure> {
    let mut total = Repaired::default();
    for partition in partitions {
        let request = client.repair(partition, timeout);
        tokio::pin!(request);
        let came_to = loop {
            tokio::select! {
                came_to = &mut request => break came_to.map_err(Failure::new)?,
                () = progress.due() => progress.tell(),
            }
        };
        progress.advance(came_to.bytes);
        total.add(came_to);
    }
    Ok(total)
}
