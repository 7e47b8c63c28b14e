//! `quorate cluster progress`: how far a change of the layout has come.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quorate_client::Client;
use quorate_protocol::{ClusterStatus, KnownLayouts};
use quorate_ring::NodeId;
use serde::Serialize;
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
                true => follow(&client, form).await,
                false => {
                    let come = HowFar::look(&client).await?;
                    match form {
                        Form::Json => output::json(&come),
                        Form::Table => come.show(),
                    }
                }
            }
        })
    }
}

/// How far it has come.
#[derive(Debug, Serialize)]
struct HowFar {
    /// The latest layout.
    version: u64,
    /// `done`; while nodes are being filled `filling`; then `retiring`, until all know that all are; and `dropping`, while nodes still
    /// drop what went elsewhere.
    stage: &'static str,
    to_fill: u64,
    filled: u64,
    /// Partitions that nodes hold no more, and have yet to drop.
    to_drop: u64,
    nodes: Vec<NodeProgress>,
}

#[derive(Debug, Serialize)]
struct NodeProgress {
    id: NodeId,
    name: String,
    /// What it does in this change.
    part: &'static str,
    /// Absent if it does not answer.
    to_fill: Option<u64>,
    filled: Option<u64>,
    to_drop: Option<u64>,
    synced: bool,
    knows_complete: bool,
}

impl HowFar {
    async fn look(client: &Client) -> Result<HowFar, Failure> {
        let known = client.layouts().await.map_err(Failure::new)?;
        let status = client.status().await.map_err(Failure::new)?;
        Ok(HowFar::new(&known, &status))
    }

    fn new(known: &KnownLayouts, status: &ClusterStatus) -> HowFar {
        let live = &known.live;
        let next = live.next.as_ref();
        let newest = next.map_or(&live.current, |c| &c.chosen.layout);
        let mut ids: Vec<NodeId> = newest.nodes().iter().map(|n| n.id).collect();
        let olds = live.current.nodes().iter().map(|n| n.id);
        ids.extend(olds.filter(|id| newest.node(*id).is_none()));
        let nodes: Vec<NodeProgress> = ids
            .into_iter()
            .map(|id| {
                let spec = newest.node(id).or(live.current.node(id));
                let told = status.nodes.iter().find(|told| told.id == id.0);
                let (old, new) = (live.current.node(id), newest.node(id));
                let dead = next.is_some_and(|c| c.chosen.dead.contains(&id));
                NodeProgress {
                    id,
                    name: spec.map_or_else(String::new, |spec| spec.name.clone()),
                    part: match (old, new) {
                        (_, None) if dead => "dead",
                        (_, None) => "leaves",
                        (None, _) => "joins",
                        _ => "stays",
                    },
                    to_fill: told.map(|told| told.upkeep.to_fill),
                    filled: told.map(|told| told.upkeep.filled),
                    to_drop: told.map(|told| told.upkeep.leftovers),
                    synced: next.is_none_or(|c| c.synced.contains(&id)),
                    knows_complete: next.is_none_or(|c| c.complete.contains(&id)),
                }
            })
            .collect();
        let sum = |of: fn(&NodeProgress) -> Option<u64>| nodes.iter().filter_map(of).sum::<u64>();
        let to_drop = sum(|n| n.to_drop);
        let is_complete = next.is_some_and(|c| {
            let mut all = newest.nodes().iter();
            all.all(|n| c.synced.contains(&n.id))
        });
        HowFar {
            version: newest.version(),
            stage: match (next, is_complete, to_drop) {
                (None, _, 0) => "done",
                (None, ..) => "dropping",
                (Some(_), true, _) => "retiring",
                (Some(_), false, _) => "filling",
            },
            to_fill: sum(|n| n.to_fill),
            filled: sum(|n| n.filled),
            to_drop,
            nodes,
        }
    }

    fn words(&self) -> String {
        match self.stage {
            "filling" => {
                let waits: Vec<&str> = self
                    .nodes
                    .iter()
                    .filter(|n| n.to_fill.is_none() && n.part != "dead")
                    .map(|n| n.name.as_str())
                    .collect();
                let waits = match waits.is_empty() {
                    true => String::new(),
                    false => format!("; waiting for {}, which does not answer", waits.join(", ")),
                };
                format!(
                    "filling: {} of {} partitions{waits}",
                    self.filled, self.to_fill
                )
            }
            "retiring" => {
                let all = self.nodes.iter().filter(|n| n.part != "dead");
                let know = all.clone().filter(|n| n.knows_complete).count();
                format!(
                    "all are filled: {know} of {} nodes know it, then the layout before retires",
                    all.count()
                )
            }
            "dropping" => format!(
                "done; nodes still drop {} partitions that went elsewhere",
                self.to_drop
            ),
            _ => "no change is under way".to_owned(),
        }
    }

    fn show(&self) -> Result<(), Failure> {
        output::line(&format!(
            "Layout version {}: {}.\n",
            self.version,
            self.words()
        ))?;
        let mut table = output::table(&["NODE", "PART", "FILLED", "OF", "SYNCED", "TO DROP"]);
        for node in &self.nodes {
            let of = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
            table.add_row([
                node.name.clone(),
                node.part.to_owned(),
                of(node.filled),
                of(node.to_fill),
                if node.synced { "yes" } else { "no" }.to_owned(),
                of(node.to_drop),
            ]);
        }
        output::line(&table.trim_fmt())
    }
}

/// Shows it until it is done.
pub(super) async fn follow(client: &Client, form: Form) -> Result<(), Failure> {
    let began = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {msg}, {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(1).with_style(style)
    });
    let mut told = Instant::now();
    let mut lost_since: Option<Instant> = None;
    loop {
        match HowFar::look(client).await {
            Ok(come) => {
                lost_since = None;
                if come.stage == "done" || come.stage == "dropping" {
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
