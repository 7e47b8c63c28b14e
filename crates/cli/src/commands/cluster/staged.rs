//! Changes that are staged: kept in the cluster itself, in a bucket of its own, so that every operator sees the same, wherever he sits.
//!
//! One key for each node, so that two operators who stage changes of different nodes do not meet; of the same node, the later one replaces what
//! he was shown. What is staged does nothing until it is applied.

use std::collections::{BTreeMap, BTreeSet};

use quorate_client::{Client, Fetched};
use quorate_protocol::{ApplyLayout, Quorum};
use quorate_ring::{Layout, NodeId, NodeSpec};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The bucket of what the cluster keeps about itself.
const BUCKET: &str = "quorate.cluster";
const PREFIX: &str = "staged/";

/// What is to become of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub(super) enum Change {
    /// It joins.
    Join {
        /// Who it is.
        node: NodeSpec,
    },
    /// It leaves.
    Leave {
        /// Whether it is gone for good.
        dead: bool,
    },
    /// It gets other values of these, where they are given.
    Set {
        /// Its weight.
        weight: Option<u32>,
        /// Its region.
        region: Option<String>,
        /// Its zone.
        zone: Option<String>,
    },
}

impl Change {
    /// On top of what is staged for the same node: settings add up.
    fn on(self, before: Option<&Change>) -> Change {
        match (self, before) {
            (
                Change::Set {
                    weight,
                    region,
                    zone,
                },
                Some(Change::Set {
                    weight: old_weight,
                    region: old_region,
                    zone: old_zone,
                }),
            ) => Change::Set {
                weight: weight.or(*old_weight),
                region: region.or(old_region.clone()),
                zone: zone.or(old_zone.clone()),
            },
            (change, _) => change,
        }
    }

    /// Whether all that another says is in this one.
    fn has(&self, other: &Change) -> bool {
        other.clone().on(Some(self)) == *self && self.clone().on(Some(other)) == *self
    }

    /// In a few words.
    pub(super) fn words(&self) -> String {
        match self {
            Change::Join { node } => format!(
                "joins as node {} in region {}, zone {}, weight {}",
                node.id.0, node.region, node.zone, node.weight
            ),
            Change::Leave { dead: false } => "leaves".to_owned(),
            Change::Leave { dead: true } => "leaves, and is gone for good".to_owned(),
            Change::Set {
                weight,
                region,
                zone,
            } => {
                let weight = weight.map(|w| format!("weight {w}"));
                let region = region.as_ref().map(|r| format!("region {r}"));
                let zone = zone.as_ref().map(|z| format!("zone {z}"));
                let all: Vec<String> = [weight, region, zone].into_iter().flatten().collect();
                format!("gets {}", all.join(", "))
            }
        }
    }
}

/// Everything that is staged, by the names of the nodes.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) changes: BTreeMap<String, Change>,
    /// By what each is replaced or taken back.
    contexts: BTreeMap<String, bytes::Bytes>,
}

impl Staged {
    /// Reads all of it.
    pub(super) async fn read(client: &Client) -> Result<Staged, Failure> {
        let mut staged = Staged::default();
        let mut keys = client.list(BUCKET).prefix(PREFIX).keys();
        while let Some(key) = keys.next().await.map_err(Failure::new)? {
            let found = client.get(BUCKET, &key).r(Quorum::Majority).await;
            let name = key[PREFIX.len()..].to_owned();
            match found.map_err(Failure::new)? {
                None => {}
                Some(found) => staged.take(name, found)?,
            }
        }
        Ok(staged)
    }

    fn take(&mut self, name: String, found: Fetched) -> Result<(), Failure> {
        let mut changes = Vec::new();
        for sibling in &found.siblings {
            let change: Change = serde_json::from_slice(&sibling.value.data).map_err(|error| {
                Failure::new(format!(
                    "what is staged for {name} is no change ({error}): take it back with `quorate cluster revert {name}`"
                ))
            })?;
            changes.push(change);
        }
        self.contexts.insert(name.clone(), found.context);
        changes.dedup();
        let [change] = &changes[..] else {
            let all: Vec<String> = changes.iter().map(Change::words).collect();
            return Err(Failure::new(format!(
                "two operators have staged different changes of {name} at one time ({}): stage one of them again, or take both back with \
                 `quorate cluster revert {name}`",
                all.join("; ")
            )));
        };
        self.changes.insert(name, change.clone());
        Ok(())
    }

    /// Takes note of changes, if with what is staged already they make a layout. Tells what is staged for these nodes now, and what that
    /// replaces.
    pub(super) async fn stage(
        client: &Client,
        current: &Layout,
        changes: Vec<(String, Change)>,
    ) -> Result<(Vec<(String, Change)>, Vec<String>), Failure> {
        let mut staged = Staged::read(client).await?;
        let mut replaced = Vec::new();
        let mut merged = Vec::new();
        for (name, change) in changes {
            let before = staged.changes.get(&name).cloned();
            let change = change.on(before.as_ref());
            if let Some(before) = before.filter(|before| *before != change && !change.has(before)) {
                replaced.push(format!("instead of: {name} {}", before.words()));
            }
            staged.changes.insert(name.clone(), change.clone());
            merged.push((name, change));
        }
        let apply = staged.on(current)?;
        let next = current.next(apply.nodes);
        next.map_err(|error| {
            Failure::new(format!("it makes no layout: {error}; nothing was staged"))
        })?;
        for (at, (name, change)) in merged.iter().enumerate() {
            let json = serde_json::to_vec(change).map_err(Failure::new)?;
            let put = client
                .put(BUCKET, format!("{PREFIX}{name}"), json)
                .content_type("application/json")
                .w(Quorum::Majority)
                .context(staged.contexts.get(name).cloned());
            put.await.map_err(|error| match at {
                0 => Failure::new(error),
                _ => Failure::new(format!(
                    "{error}. Staged is only: {} {}; stage it again, or take it back with `quorate cluster revert`",
                    merged[0].0,
                    merged[0].1.words()
                )),
            })?;
        }
        Ok((merged, replaced))
    }

    /// Takes back what is staged for a node. Returns whether anything was.
    pub(super) async fn revert(client: &Client, name: &str) -> Result<bool, Failure> {
        let key = format!("{PREFIX}{name}");
        let before = client.get(BUCKET, &key).r(Quorum::Majority).await;
        let Some(found) = before.map_err(Failure::new)? else {
            return Ok(false);
        };
        let delete = client.delete(BUCKET, &key).context(found.context);
        delete.await.map_err(Failure::new)?;
        Ok(true)
    }

    /// The names of the nodes for which something is staged, sound or not.
    pub(super) async fn names(client: &Client) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        let mut keys = client.list(BUCKET).prefix(PREFIX).keys();
        while let Some(key) = keys.next().await.map_err(Failure::new)? {
            names.push(key[PREFIX.len()..].to_owned());
        }
        Ok(names)
    }

    /// Forgets what was applied; what was staged meanwhile stays.
    pub(super) async fn applied(self, client: &Client) -> Result<(), Failure> {
        for (name, context) in self.contexts {
            let key = format!("{PREFIX}{name}");
            let delete = client.delete(BUCKET, &key).context(context);
            delete.await.map_err(Failure::new)?;
        }
        Ok(())
    }

    /// The layout that these changes ask for on top of one.
    pub(super) fn on(&self, current: &Layout) -> Result<ApplyLayout, Failure> {
        let mut nodes: BTreeMap<NodeId, NodeSpec> = BTreeMap::new();
        for spec in current.nodes() {
            nodes.insert(spec.id, spec.clone());
        }
        let mut dead = BTreeSet::new();
        for (name, change) in &self.changes {
            let known = current.node_by_name(name).map(|spec| spec.id);
            match (change, known) {
                // It was applied, and could not be taken off the list.
                (Change::Leave { .. }, None) => {}
                (Change::Join { node }, _) => match nodes.insert(node.id, node.clone()) {
                    Some(other) if other != *node => {
                        let what = format!("node {} of the layout is {}", node.id.0, other.name);
                        return Err(unfit(name, &what));
                    }
                    _ => {}
                },
                (_, None) => return Err(unfit(name, &format!("{name} is not in the layout"))),
                (Change::Leave { dead: is_dead }, Some(id)) => {
                    nodes.remove(&id);
                    if *is_dead {
                        dead.insert(id);
                    }
                }
                (
                    Change::Set {
                        weight,
                        region,
                        zone,
                    },
                    Some(id),
                ) => {
                    if let Some(spec) = nodes.get_mut(&id) {
                        spec.weight = weight.unwrap_or(spec.weight);
                        spec.region = region.clone().unwrap_or(spec.region.clone());
                        spec.zone = zone.clone().unwrap_or(spec.zone.clone());
                    }
                }
            }
        }
        Ok(ApplyLayout {
            version: current.version() + 1,
            nodes: nodes.into_values().collect(),
            dead,
        })
    }
}

fn unfit(name: &str, what: &str) -> Failure {
    Failure::new(format!(
        "what is staged does not fit the layout: {what}. Take it back with `quorate cluster revert {name}`"
    ))
}
