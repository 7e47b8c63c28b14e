//! `quorate cluster history`

use std::time::{Duration, UNIX_EPOCH};

use quorate_protocol::PastLayout;
use serde_json::json;

use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form};
use crate::runtime;

/// Show which layouts there were, since when, and what changed with each
///
/// As the node that answers remembers it, up to a hundred. One that joined later does not know what was before.
#[derive(clap::Args)]
pub(crate) struct History {
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl History {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let known = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            client.layouts().await.map_err(Failure::new)
        })?;
        let mut before: Option<&PastLayout> = None;
        let mut rows = Vec::new();
        for past in &known.history {
            rows.push((past, what_changed(before, past)));
            before = Some(past);
        }
        match form {
            Form::Json => {
                let rows = rows.iter().map(|(past, what)| {
                    json!({
                        "version": past.version,
                        "since_s": past.since_s,
                        "nodes": past.nodes,
                        "dead": past.dead,
                        "changes": what,
                    })
                });
                output::json(&json!({
                    "answered_by": known.node,
                    "layouts": rows.collect::<Vec<_>>(),
                }))
            }
            Form::Table => {
                let mut table = output::table(&["VERSION", "SINCE", "NODES", "WHAT CHANGED"]);
                for (past, what) in rows {
                    table.add_row([
                        past.version.to_string(),
                        since(past.since_s),
                        past.nodes.len().to_string(),
                        what.join("; "),
                    ]);
                }
                output::line(&table.trim_fmt())
            }
        }
    }
}

fn since(seconds: u64) -> String {
    match seconds {
        0 => "-".to_owned(),
        seconds => {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            humantime::format_rfc3339_seconds(at).to_string()
        }
    }
}

fn what_changed(before: Option<&PastLayout>, after: &PastLayout) -> Vec<String> {
    let Some(before) = before else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for node in &after.nodes {
        match before.nodes.iter().find(|old| old.id == node.id) {
            None => words.push(format!("{} joined", node.name)),
            Some(old) if old != node => {
                let mut what = Vec::new();
                if old.weight != node.weight {
                    what.push(format!("weight {}", node.weight));
                }
                if old.region != node.region {
                    what.push(format!("region {}", node.region));
                }
                if old.zone != node.zone {
                    what.push(format!("zone {}", node.zone));
                }
                if (&old.quic, &old.http) != (&node.quic, &node.http) {
                    what.push("other addresses".to_owned());
                }
                words.push(format!("{}: {}", node.name, what.join(", ")));
            }
            Some(_) => {}
        }
    }
    for old in &before.nodes {
        if !after.nodes.iter().any(|node| node.id == old.id) {
            words.push(match after.dead.contains(&old.id) {
                true => format!("{} was declared dead", old.name),
                false => format!("{} left", old.name),
            });
        }
    }
    words
}
