//! What nodes say to each other about layouts: which there are, how far the change from one to the next has come, and which is to
//! be the next.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_ring::{Layout, NodeId};
use serde::{Deserialize, Serialize};

use crate::message::whole;

/// The layouts that are live, as far as a node knows. What is told here is true for good, so that two accounts are joined by taking
/// what either has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LiveLayouts {
    /// The latest of which no predecessor is live.
    pub current: Layout,
    /// The one that follows it, if it has been chosen.
    pub next: Option<LayoutChange>,
    /// How fast nodes are filled while the layout changes.
    pub pace: Pace,
}

/// How fast nodes are filled while the layout changes. Of two accounts the greater holds: that which was set later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Pace {
    /// How often it was set.
    pub number: u64,
    /// By so many bytes of exchanges in a second, each node; 0: not at all, for now; `None`: by what each is configured to.
    pub bytes_per_second: Option<u64>,
}

impl Pace {
    /// Whether nodes wait to be filled until somebody lets them go on.
    #[must_use]
    pub fn is_paused(self) -> bool {
        self.bytes_per_second == Some(0)
    }
}

impl LiveLayouts {
    /// Its bytes, as they are stored; equal for equal knowledge.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec(self).expect("layouts serialise").into()
    }

    /// Reads such bytes.
    ///
    /// # Errors
    /// A sentence, if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        whole(bytes).map_err(|why| format!("not an account of layouts: {why}"))
    }
}

/// The change to a layout, under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutChange {
    /// What was chosen.
    pub chosen: ProposedLayout,
    /// The nodes that have, of each vnode that they are to hold, all that the layout before had.
    pub synced: BTreeSet<NodeId>,
    /// The nodes that know that all have.
    pub complete: BTreeSet<NodeId>,
}

/// What may be chosen to follow a layout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProposedLayout {
    /// The layout.
    pub layout: Layout,
    /// Nodes of the layout before that are gone for good: the change does without them.
    pub dead: BTreeSet<NodeId>,
}

/// What a node has promised and accepted of a layout that is to be chosen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promise {
    /// The version that the layout is to have.
    pub version: u64,
    /// The round below which nothing is accepted.
    pub promised: Ballot,
    /// What was accepted, and in which round.
    pub accepted: Option<(Ballot, Box<ProposedLayout>)>,
}

impl Promise {
    /// Its bytes, as they are stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec(self)
            .expect("a promise serialises")
            .into()
    }

    /// Reads such bytes.
    ///
    /// # Errors
    /// A sentence, if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        whole(bytes).map_err(|why| format!("not a promise: {why}"))
    }
}

/// The rounds in which nodes propose, in order: no two proposals are made in one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Ballot {
    /// From 1.
    pub round: u64,
    /// A random number of the attempt: one node may make several at a time, and does not remember them for ever.
    pub attempt: u64,
}

/// What a node asks of another about layouts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LayoutRequest {
    /// Join what I know, and tell what you know.
    Tell(Box<LiveLayouts>),
    /// Promise to accept nothing of an earlier round for this version, and tell what you have accepted.
    Prepare(u64, Ballot),
    /// Accept this, unless you have promised otherwise.
    Accept(Ballot, Box<ProposedLayout>),
}

impl LayoutRequest {
    /// What is asked, in a word or two, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            LayoutRequest::Tell(_) => "tell layouts",
            LayoutRequest::Prepare(..) => "prepare a layout",
            LayoutRequest::Accept(..) => "accept a layout",
        }
    }
}

/// What the other says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LayoutReply {
    /// What it knows. Also where it was asked for a layout of a version that is none of those it could accept.
    Told(Box<LiveLayouts>),
    /// It has promised for this round, durably; and what it had accepted, in which round.
    Promised(Ballot, Option<(Ballot, Box<ProposedLayout>)>),
    /// It has accepted in this round, durably.
    Accepted(Ballot),
    /// It has promised to accept nothing before this round.
    Outdone(Ballot),
}

/// Asks for the next layout to be one of these nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApplyLayout {
    /// The version that it is to have: one more than that of the layout that the asker saw.
    pub version: u64,
    /// All nodes that it is to have.
    pub nodes: Vec<quorate_ring::NodeSpec>,
    /// Those nodes of the layout before that are gone for good.
    pub dead: BTreeSet<NodeId>,
}

/// What a node knows of layouts, for operators.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownLayouts {
    /// The answering node's name.
    pub node: String,
    /// Those that are live.
    pub live: LiveLayouts,
    /// Those that it has gone by, and remembers, the earliest first; the latest is the last.
    pub history: Vec<PastLayout>,
}

/// A layout that a node has gone by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastLayout {
    /// Its number.
    pub version: u64,
    /// When that node learnt of it, in seconds since the epoch by its clock; 0 if unknown.
    pub since_s: u64,
    /// Its nodes.
    pub nodes: Vec<quorate_ring::NodeSpec>,
    /// Those of the layout before that were declared dead with it.
    pub dead: BTreeSet<NodeId>,
}

impl PastLayout {
    /// Its bytes, as they are stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec(self).expect("a layout serialises").into()
    }

    /// Reads such bytes.
    ///
    /// # Errors
    /// A sentence, if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        whole(bytes).map_err(|why| format!("not a layout of the past: {why}"))
    }
}
