//! `quorate cluster join`, `leave`, `replace`, `weight`, `place` and `revert`: what is staged.

use std::path::{Path, PathBuf};

use quorate_client::Client;
use quorate_protocol::KnownLayouts;
use quorate_ring::{Layout, NodeSpec};
use serde_json::json;

use super::staged::{Change, Staged};
use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form};
use crate::runtime;

const NEXT: &str = "Nothing has moved yet. See what it means with: quorate cluster plan";

/// Stage that a node joins
///
/// FILE says who the node is: `quorate admit` wrote it as NAME/node.json. The node should run already, so that it can be filled as soon as
/// the change is applied.
#[derive(clap::Args)]
pub(crate) struct Join {
    /// Who the node is
    #[arg(value_name = "FILE")]
    node: PathBuf,

    /// Its capacity relative to the others, instead of what the file says
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    weight: Option<u32>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Join {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let mut node = read(&self.node)?;
        node.weight = self.weight.unwrap_or(node.weight);
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            may_join(&client, &node).await?;
            let name = node.name.clone();
            stage(&client, form, vec![(name, Change::Join { node })]).await
        })
    }
}

/// How long a node that is to join may take to answer.
pub(super) const PROBE: std::time::Duration = std::time::Duration::from_secs(2);

/// Stage that a node leaves
#[derive(clap::Args)]
pub(crate) struct Leave {
    /// Its name
    node: String,

    /// It is gone for good, with what it held: the change does not wait for it. Never say it of a node that may come back with its data;
    /// should it run all the same, it is told that it has left
    #[arg(long)]
    dead: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Leave {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            is_member(&client, &self.node).await?;
            let change = Change::Leave { dead: self.dead };
            stage(&client, form, vec![(self.node, change)]).await
        })
    }
}

/// Stage that a node takes the place of another
#[derive(clap::Args)]
pub(crate) struct Replace {
    /// The name of the node that leaves
    old: String,

    /// Who the new node is, as for `join`
    #[arg(value_name = "FILE")]
    new: PathBuf,

    /// The old one is gone for good, as for `leave`
    #[arg(long)]
    dead: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Replace {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let mut node = read(&self.new)?;
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let old = is_member(&client, &self.old).await?;
            // The same place in the cluster: what it is to hold follows from that.
            (node.region, node.zone, node.weight) = (old.region, old.zone, old.weight);
            if node.name == old.name {
                return Err(Failure::new(format!(
                    "{} is to take its own place: admit the new node under another name",
                    old.name
                )));
            }
            may_join(&client, &node).await?;
            let leave = Change::Leave { dead: self.dead };
            let name = node.name.clone();
            // In this order: should the second not come through, nobody leaves without another in his place.
            let changes = vec![(name, Change::Join { node }), (self.old, leave)];
            stage(&client, form, changes).await
        })
    }
}

/// Stage that a node gets another weight
#[derive(clap::Args)]
pub(crate) struct Weight {
    /// Its name
    node: String,

    /// Its capacity relative to the others, at least 1
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    weight: u32,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Weight {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            is_member(&client, &self.node).await?;
            let change = Change::Set {
                weight: Some(self.weight),
                region: None,
                zone: None,
            };
            stage(&client, form, vec![(self.node, change)]).await
        })
    }
}

/// Stage that a node is in another region or zone
#[derive(clap::Args)]
#[group(required = true, multiple = true, id = "where", args = ["region", "zone"])]
pub(crate) struct Place {
    /// Its name
    node: String,

    /// The region
    #[arg(long)]
    region: Option<String>,

    /// What fails together within the region
    #[arg(long)]
    zone: Option<String>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Place {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async {
            let client = self.cluster.connect().await?;
            is_member(&client, &self.node).await?;
            let change = Change::Set {
                weight: None,
                region: self.region,
                zone: self.zone,
            };
            stage(&client, form, vec![(self.node, change)]).await
        })
    }
}

/// Take back what is staged, all of it or for some nodes
#[derive(clap::Args)]
pub(crate) struct Revert {
    /// The names of the nodes; all if none is given
    nodes: Vec<String>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Revert {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let reverted = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let is_all = self.nodes.is_empty();
            let names = match is_all {
                true => Staged::names(&client).await?,
                false => self.nodes,
            };
            let mut reverted = Vec::new();
            for name in names {
                match Staged::revert(&client, &name).await? {
                    true => reverted.push(name),
                    // Somebody else has taken it back meanwhile, or applied it.
                    false if is_all => {}
                    false => {
                        return Err(Failure::NotFound(format!("nothing is staged for {name}")));
                    }
                }
            }
            Ok(reverted)
        })?;
        match form {
            Form::Json => output::json(&json!({ "reverted": reverted })),
            Form::Table if reverted.is_empty() => output::line("Nothing was staged."),
            Form::Table => output::line(&format!("Taken back: {}.", reverted.join(", "))),
        }
    }
}

fn read(path: &Path) -> Result<NodeSpec, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::io(format!("read {}", path.display()), &error))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!(
            "{} does not say who a node is ({error}): name the node.json that `quorate admit` wrote",
            path.display()
        ))
    })
}

/// Whether a node can join: its id and its name are nobody else's. Says so if it does not answer yet.
async fn may_join(client: &Client, node: &NodeSpec) -> Result<(), Failure> {
    let known = client.layouts().await.map_err(Failure::new)?;
    let newest = newest(&known);
    if let Some(other) = newest.node(node.id) {
        return Err(Failure::new(format!(
            "node {} is in the layout already, as {}",
            node.id.0, other.name
        )));
    }
    if newest.node_by_name(&node.name).is_some() {
        return Err(Failure::new(format!(
            "a node named {} is in the layout already: admit this one under another name",
            node.name
        )));
    }
    let mut past = known.history.iter().flat_map(|past| &past.nodes);
    if let Some(other) = past.find(|old| old.id == node.id && old.name != node.name) {
        return Err(Failure::new(format!(
            "{} was node {} of this cluster, and no id is given twice: admit this node anew",
            other.name, node.id.0
        )));
    }
    if let Err(why) = client.probe(node, PROBE).await {
        output::remark(&format!(
            "{} does not answer yet ({why}): start it before the change is applied",
            node.name
        ));
    }
    Ok(())
}

fn newest(known: &KnownLayouts) -> &Layout {
    let next = known.live.next.as_ref();
    next.map_or(&known.live.current, |change| &change.chosen.layout)
}

async fn is_member(client: &Client, name: &str) -> Result<NodeSpec, Failure> {
    let known = client.layouts().await.map_err(Failure::new)?;
    let newest = newest(&known);
    newest.node_by_name(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = newest.nodes().iter().map(|n| n.name.as_str()).collect();
        Failure::NotFound(format!(
            "there is no node named {name} in the layout: it has {}",
            names.join(", ")
        ))
    })
}

async fn stage(client: &Client, form: Form, changes: Vec<(String, Change)>) -> Result<(), Failure> {
    let known = client.layouts().await.map_err(Failure::new)?;
    let (changes, replaced) = Staged::stage(client, newest(&known), changes).await?;
    match form {
        Form::Json => {
            let staged = changes.iter().map(|(name, change)| {
                let mut told = serde_json::to_value(change).unwrap_or_default();
                told["name"] = json!(name);
                told
            });
            output::json(&json!({ "staged": staged.collect::<Vec<_>>() }))
        }
        Form::Table => {
            for (name, change) in &changes {
                output::line(&format!("Staged: {name} {}.", change.words()))?;
            }
            for words in replaced {
                output::line(&format!("    {words}"))?;
            }
            output::remark(NEXT);
            Ok(())
        }
    }
}
