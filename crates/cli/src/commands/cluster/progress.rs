//! `quorate cluster progress`: how far a change of the layout has come.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quorate_client::Client;
use quorate_protocol::{LayoutProgress, LayoutStage};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form, remark};
use crate::runtime;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Show how far the change of the layout has come
#[derive(clap::Args)]
pub(crate) struct Progress {
    /// Stay until it is done
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Progress {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            match self.follow {
                true => follow(&client, 0, form).await,
                false => {
                    let come = look(&client).await?;
                    match form {
                        Form::Json => output::json(&come),
                        Form::Table => show(&come),
                    }
                }
            }
        })
    }
}

async fn look(client: &Client) -> Result<LayoutProgress, Failure> {
    let known = client.layouts().await.map_err(Failure::new)?;
    let status = client.status().await.map_err(Failure::new)?;
    Ok(LayoutProgress::new(&known, &status))
}

fn show(come: &LayoutProgress) -> Result<(), Failure> {
    output::line(&format!(
        "Layout version {}: {}.\n",
        come.version,
        come.words()
    ))?;
    let mut table = output::table(&["NODE", "PART", "FILLED", "OF", "SYNCED", "TO DROP"]);
    for node in &come.nodes {
        let of = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        table.add_row([
            node.name.clone(),
            node.part.word().to_owned(),
            of(node.filled),
            of(node.to_fill),
            if node.synced { "yes" } else { "no" }.to_owned(),
            of(node.to_drop),
        ]);
    }
    output::line(&table.trim_fmt())
}

/// Shows it until that version, or a later one, is in force.
pub(super) async fn follow(client: &Client, version: u64, form: Form) -> Result<(), Failure> {
    let began = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {msg}, {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(1).with_style(style)
    });
    let mut told = Instant::now();
    let mut lost_since: Option<Instant> = None;
    loop {
        match look(client).await {
            Ok(come) => {
                lost_since = None;
                // The node that answers may not have heard of it yet.
                let is_known = come.version >= version;
                if is_known && matches!(come.stage, LayoutStage::Done | LayoutStage::Dropping) {
                    if let Some(bar) = &bar {
                        bar.finish_and_clear();
                    }
                    return match form {
                        Form::Json => output::json(&come),
                        Form::Table => output::line(&format!(
                            "Layout version {} is in force; it took {:.0} s.",
                            come.version,
                            began.elapsed().as_secs_f64()
                        )),
                    };
                }
                match &bar {
                    Some(bar) => {
                        bar.set_length(come.to_fill.max(1));
                        bar.set_position(come.filled);
                        bar.set_message(come.words());
                    }
                    None if told.elapsed() >= LINE_EVERY => {
                        told = Instant::now();
                        remark(&format!("    {}", come.words()));
                    }
                    None => {}
                }
            }
            // Nodes come and go while the cluster changes; one look that fails says nothing.
            Err(failure) => {
                let since = *lost_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_secs(30) {
                    return Err(failure);
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
