//! A line in the debug log for each step of a request that belongs to a trace, on every node that takes part: the same id
//! everywhere. The gateway gives every HTTP request a trace, so that its `Quorate-Request-Id` is found here.
//!
//! Whether debugging is on is looked at once, when the node starts: where it is not, a step costs a comparison.

use std::collections::BTreeMap;
use std::time::Instant;

use quorate_node::Step;
use quorate_protocol::{Header, Message, ReplicaRequest, Request, RequestId};
use quorate_ring::NodeId;

/// Questions of other nodes that are not answered yet are remembered up to so many; those beyond are answered without a line.
const ASKED_MAX: usize = 16 * 1024;

/// Writes the lines of one node.
#[derive(Debug)]
pub(crate) struct Steps {
    node: String,
    peers: BTreeMap<NodeId, String>,
    /// What other nodes have asked and not heard: the trace, and when.
    asked: BTreeMap<(NodeId, RequestId), (u128, Instant)>,
}

impl Steps {
    /// `None` unless the log would show them.
    pub(crate) fn if_shown(node: &str, peers: &BTreeMap<NodeId, String>) -> Option<Self> {
        tracing::enabled!(tracing::Level::DEBUG).then(|| Steps {
            node: node.to_owned(),
            peers: peers.clone(),
            asked: BTreeMap::new(),
        })
    }

    /// The other nodes are these now.
    pub(crate) fn know(&mut self, peers: &BTreeMap<NodeId, String>) {
        self.peers.clone_from(peers);
    }

    fn name(&self, node: NodeId) -> &str {
        self.peers.get(&node).map_or("another node", String::as_str)
    }

    /// A client asks this node.
    pub(crate) fn client_asks(&self, header: &Header, request: &Request) {
        if let Some(trace) = header.trace {
            let request_id = format!("{:032x}", trace.trace_id);
            tracing::debug!(
                node = self.node,
                request_id,
                what = word(request),
                "a client asks"
            );
        }
    }

    /// Another node asks this one.
    pub(crate) fn node_asks(&mut self, from: NodeId, message: &Message) {
        let (id, header, what) = match message {
            Message::Request(id, header, request) => (*id, header, word(request)),
            Message::Replica(id, header, request) => (*id, header, replica_word(request)),
            _ => return,
        };
        let Some(trace) = header.trace else {
            return;
        };
        let request_id = format!("{:032x}", trace.trace_id);
        tracing::debug!(
            node = self.node,
            request_id,
            from = self.name(from),
            number = id.0,
            what,
            "a node asks"
        );
        if self.asked.len() < ASKED_MAX {
            self.asked
                .insert((from, id), (trace.trace_id, Instant::now()));
        }
    }

    /// This node sends something to another.
    pub(crate) fn sends(&mut self, to: NodeId, message: &Message) {
        let (id, header, what) = match message {
            Message::Request(id, header, request) => (*id, header, word(request)),
            Message::Replica(id, header, request) => (*id, header, replica_word(request)),
            Message::Answer(id, _) | Message::Reply(id, _) => {
                let Some((trace, since)) = self.asked.remove(&(to, *id)) else {
                    return;
                };
                let request_id = format!("{trace:032x}");
                let after_us = since.elapsed().as_micros() as u64;
                tracing::debug!(
                    node = self.node,
                    request_id,
                    to = self.name(to),
                    number = id.0,
                    after_us,
                    "answers a node"
                );
                return;
            }
        };
        if let Some(trace) = header.trace {
            let request_id = format!("{:032x}", trace.trace_id);
            tracing::debug!(
                node = self.node,
                request_id,
                to = self.name(to),
                number = id.0,
                what,
                "asks a node"
            );
        }
    }

    /// Something happened to a request that this node runs or has passed on.
    pub(crate) fn step(&self, step: &Step) {
        let request_id = format!("{:032x}", step.trace_id);
        let after_us = step.after.as_micros() as u64;
        let number = step.request.0;
        match step.node {
            Some(replica) => {
                let replica = self.peers.get(&replica).unwrap_or(&self.node);
                tracing::debug!(
                    node = self.node,
                    request_id,
                    number,
                    replica,
                    what = step.what,
                    after_us,
                    "a replica answers"
                );
            }
            None => {
                tracing::debug!(
                    node = self.node,
                    request_id,
                    number,
                    outcome = step.what,
                    after_us,
                    "done"
                );
            }
        }
    }
}

fn word(request: &Request) -> &'static str {
    match request {
        Request::Put(_) => "put",
        Request::Get(_) => "get",
        Request::Delete(_) => "delete",
        Request::Describe => "describe",
        Request::List(_) => "list",
        Request::Bucket(_) => "bucket",
        Request::Buckets => "buckets",
        Request::Status => "status",
        Request::Repair(_) => "repair",
        Request::Apply(_) => "apply",
        Request::Layouts => "layouts",
        Request::Pace(_) => "pace",
    }
}

fn replica_word(request: &ReplicaRequest) -> &'static str {
    match request {
        ReplicaRequest::Merge(_) => "merge",
        ReplicaRequest::Read(read) if read.digest_only => "read the digest",
        ReplicaRequest::Read(_) => "read the record",
        ReplicaRequest::Scan(_) => "list keys",
        ReplicaRequest::Bucket(_) => "join a bucket",
        ReplicaRequest::Buckets(_) => "tell the buckets",
        ReplicaRequest::Status => "tell the status",
        ReplicaRequest::Recall(_) => "recall values",
        ReplicaRequest::Upkeep(upkeep) => upkeep.name(),
        ReplicaRequest::Layout(layout) => layout.name(),
    }
}
