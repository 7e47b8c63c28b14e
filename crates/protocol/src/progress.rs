//! How far a change of the layout has come, for people and for programs: the command line and the gateway tell the same.

use quorate_ring::NodeId;
use serde::{Deserialize, Serialize};

use crate::{ClusterStatus, KnownLayouts};

/// Where a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Nodes take what they are to hold from those that held it before.
    Filling,
    /// All have it; the layout before retires once all know that.
    Retiring,
    /// It is done, but for what nodes hold no more and have yet to drop.
    Dropping,
    /// None is under way.
    Done,
}

/// What a node does in a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// It is in both layouts.
    Stays,
    /// It is in the newer one alone.
    Joins,
    /// It is in the older one alone.
    Leaves,
    /// It was declared dead.
    Dead,
}

impl Part {
    /// The same as a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Part::Stays => "stays",
            Part::Joins => "joins",
            Part::Leaves => "leaves",
            Part::Dead => "dead",
        }
    }
}

/// How far it has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutProgress {
    /// The latest layout.
    pub version: u64,
    /// Where it is.
    pub stage: Stage,
    /// Whether filling is paused.
    pub paused: bool,
    /// By how many bytes in a second each node is filled, if that was set for all.
    pub bytes_per_second: Option<u64>,
    /// Partitions that all nodes together are to hold by it, while it is under way.
    pub to_fill: u64,
    /// Those of them that their nodes have from all who held them before.
    pub filled: u64,
    /// Partitions that nodes hold no more, and have yet to drop.
    pub to_drop: u64,
    /// The nodes of both layouts.
    pub nodes: Vec<NodeProgress>,
}

/// How far one node has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeProgress {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it does in this change.
    pub part: Part,
    /// As for all; absent if it does not answer.
    pub to_fill: Option<u64>,
    /// As for all; absent if it does not answer.
    pub filled: Option<u64>,
    /// As for all; absent if it does not answer.
    pub to_drop: Option<u64>,
    /// Whether it has all that it is to hold.
    pub synced: bool,
    /// Whether it knows that all have.
    pub knows_complete: bool,
}

impl LayoutProgress {
    /// Joins what one node knows of layouts with what all said of themselves.
    #[must_use]
    pub fn new(known: &KnownLayouts, status: &ClusterStatus) -> LayoutProgress {
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
                    id: id.0,
                    name: spec.map_or_else(String::new, |spec| spec.name.clone()),
                    part: match (old, new) {
                        (_, None) if dead => Part::Dead,
                        (_, None) => Part::Leaves,
                        (None, _) => Part::Joins,
                        _ => Part::Stays,
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
        LayoutProgress {
            version: newest.version(),
            stage: match (next, is_complete, to_drop) {
                (None, _, 0) => Stage::Done,
                (None, ..) => Stage::Dropping,
                (Some(_), true, _) => Stage::Retiring,
                (Some(_), false, _) => Stage::Filling,
            },
            paused: live.pace.is_paused(),
            bytes_per_second: live.pace.bytes_per_second.filter(|bytes| *bytes > 0),
            to_fill: sum(|n| n.to_fill),
            filled: sum(|n| n.filled),
            to_drop,
            nodes,
        }
    }

    /// The same in a few words.
    #[must_use]
    pub fn words(&self) -> String {
        match self.stage {
            Stage::Filling => {
                let waits: Vec<&str> = self
                    .nodes
                    .iter()
                    .filter(|n| n.to_fill.is_none() && n.part != Part::Dead)
                    .map(|n| n.name.as_str())
                    .collect();
                let waits = match waits.is_empty() {
                    true => String::new(),
                    false => format!("; waiting for {}, which does not answer", waits.join(", ")),
                };
                let what = match self.paused {
                    true => "paused",
                    false => "filling",
                };
                format!(
                    "{what}: {} of {} partitions{waits}",
                    self.filled, self.to_fill
                )
            }
            Stage::Retiring => {
                let all = self.nodes.iter().filter(|n| n.part != Part::Dead);
                let know = all.clone().filter(|n| n.knows_complete).count();
                format!(
                    "all are filled: {know} of {} nodes know it, then the layout before retires",
                    all.count()
                )
            }
            Stage::Dropping => format!(
                "done; nodes still drop {} partitions that went elsewhere",
                self.to_drop
            ),
            Stage::Done => "no change is under way".to_owned(),
        }
    }
}
