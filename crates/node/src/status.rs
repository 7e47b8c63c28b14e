//! The conversation of one status request: every node in reach is asked how it is, and who stays silent is named.
//!
//! It asks for no quorum and promises nothing: it is what an operator looks at when things are wrong, so it is answered
//! by a node that is closing, under layouts that differ, and while only a minority is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_protocol::{
    Answer, ClusterStatus, Header, Message, NodeStatus, PendingHints, Refusal, ReplicaRequest,
    RequestId, UpkeepStatus,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::accept;
use crate::api::Output;
use crate::node::{Accepted, Kind, Node, ReplyTo, answer};
use crate::time::Time;

/// How long the others have. Much longer than a healthy node takes, and short enough for people who wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many status requests may be under way where ordinary requests would be refused already: an overloaded node can
/// still be asked how it is, and cannot be flooded by that either.
const EXTRA: usize = 16;

/// One status request. It owns no timer and sends nothing: it is told, and asked where it stands.
#[derive(Debug)]
pub(crate) struct StatusConversation {
    told: BTreeMap<NodeId, NodeStatus>,
    awaited: BTreeSet<NodeId>,
}

impl StatusConversation {
    /// This node has told how it is, and these were asked.
    fn new(me: NodeId, own: NodeStatus, asked: impl IntoIterator<Item = NodeId>) -> Self {
        StatusConversation {
            told: BTreeMap::from([(me, own)]),
            awaited: asked.into_iter().collect(),
        }
    }

    /// A node told how it is. Its own idea of its id does not count: it is the one that was asked.
    pub(crate) fn told(&mut self, node: NodeId, mut status: NodeStatus) {
        if self.awaited.remove(&node) {
            status.id = node.0;
            self.told.insert(node, status);
        }
    }

    /// A node refused, or was lost.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.awaited.remove(&node);
    }

    /// Whether nobody is awaited any more.
    pub(crate) fn is_done(&self) -> bool {
        self.awaited.is_empty()
    }
}

impl<S: Storage> Node<S> {
    /// How this node is.
    pub(crate) fn own_status(&mut self) -> NodeStatus {
        let full = self.vitals.full().map(|full| {
            format!(
                "its disk is nearly full: {} bytes are free, and what adds a value needs {}",
                full.free, full.needed
            )
        });
        let upkeep = UpkeepStatus {
            evidence_keys: self.evidence_counted(),
            ..self.upkeep_status()
        };
        let peers = self.peers.iter().filter(|(_, peer)| !peer.up);
        NodeStatus {
            id: self.config.me.0,
            name: self.name_of(self.config.me),
            release: self.vitals.release.clone(),
            uptime_s: self.vitals.uptime_s,
            not_ready: self.ready().err().or(full),
            layout_version: self.layouts.version(),
            records: self.vitals.records,
            disk_bytes: self.vitals.disk_bytes,
            disk_free_bytes: self.vitals.disk_free_bytes.unwrap_or(0),
            in_flight: self.conversations.len() as u64,
            unreachable: peers.map(|(node, _)| self.name_of(*node)).collect(),
            clock_s: self.vitals.clock_ms / 1_000,
            hints: self.pending_hints(),
            upkeep,
        }
    }

    /// What this node keeps for others, by whom it is for.
    #[must_use]
    pub fn pending_hints(&self) -> Vec<PendingHints> {
        let held = self.replica.held().iter();
        held.map(|(owner, held)| PendingHints {
            node: self.name_of(*owner),
            count: held.count,
            bytes: held.bytes,
        })
        .collect()
    }

    pub(crate) fn name_of(&self, node: NodeId) -> String {
        let spec = self.layouts.node(node);
        spec.map_or_else(|| format!("node {node}"), |spec| spec.name.clone())
    }

    /// Asks everybody in reach.
    pub(crate) fn begin_status(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        header: &Header,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let own = self.own_status();
        let limits = &self.config.limits;
        if self.conversations.len() >= limits.requests_max + EXTRA {
            return Err(Refusal::Overloaded);
        }
        let asked: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.up)
            .map(|(node, _)| *node)
            .collect();
        let accepted = Accepted {
            reply_to,
            now,
            deadline: now.after(accept::timeout(header, limits)?.min(PATIENCE)),
            trace: header.trace,
            log: None,
        };
        let (deadline, trace) = (accepted.deadline, accepted.trace);
        let conversation = StatusConversation::new(self.config.me, own, asked.iter().copied());
        let id = self.converse(accepted, Kind::Status(conversation));
        for node in asked {
            let header = Header {
                trace,
                ..self.header(now, deadline)
            };
            let message = Message::Replica(id, header, ReplicaRequest::Status);
            out.push(Output::Send(node, message));
        }
        self.step_status(id, out);
        Ok(())
    }

    /// Ends a status request if nobody is awaited any more.
    pub(crate) fn step_status(&mut self, id: RequestId, out: &mut Vec<Output>) {
        if let Some(conversation) = self.conversations.get(&id)
            && let Kind::Status(status) = &conversation.kind
            && status.is_done()
        {
            self.conclude_status(id, out);
        }
    }

    /// Answers with what has been told so far.
    pub(crate) fn conclude_status(&mut self, id: RequestId, out: &mut Vec<Output>) {
        let Some(conversation) = self.end(id) else {
            return;
        };
        let Kind::Status(status) = conversation.kind else {
            return;
        };
        let silent = self.layouts.nodes().into_iter();
        let silent = silent.filter(|node| !status.told.contains_key(node));
        let silent = silent.map(|node| self.name_of(node)).collect();
        let told = ClusterStatus {
            node: self.name_of(self.config.me),
            nodes: status.told.into_values().collect(),
            silent,
        };
        answer(conversation.reply_to, Answer::Status(told), out);
    }
}
