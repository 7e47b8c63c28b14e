//! What a node tells of single requests, for its log: the steps of those that belong to a trace, and those that took
//! long. Nothing of it is told unless it is asked for, and nothing of it is ever a reason for a decision.

use std::time::Duration;

use quorate_protocol::{Answer, ReplicaReply, Request, RequestId, Trace};
use quorate_ring::{NodeId, Partition};
use quorate_storage::Storage;

use crate::api::Output;
use crate::node::{Conversation, Kind, Node};
use crate::read::Purpose;
use crate::time::Time;

/// What is told. By default nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Telling {
    /// Whether requests that belong to a trace tell their steps.
    pub steps: bool,
    /// Requests that took at least so long are told.
    pub slower_than: Option<Duration>,
}

/// A step of a request of which this node is the coordinator or the forwarder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The trace it belongs to.
    pub trace_id: u128,
    /// The conversation's number at this node, which is what its messages carry.
    pub request: RequestId,
    /// The replica that did it; `None` for the coordinator.
    pub node: Option<NodeId>,
    /// What happened, in a few words.
    pub what: &'static str,
    /// How long after the request was accepted.
    pub after: Duration,
}

/// A request that took long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slow {
    /// The trace it belongs to, if any.
    pub trace_id: Option<u128>,
    /// `get`, `put`, `delete` or `bucket`.
    pub operation: &'static str,
    /// The bucket's name.
    pub bucket: String,
    /// The key; empty where it is about the bucket. It may be private: a log had better show its length.
    pub key: String,
    /// The key's partition.
    pub partition: Partition,
    /// What it came to: [`Answer::name`].
    pub outcome: &'static str,
    /// How long it took here.
    pub took: Duration,
    /// Whether another node coordinated it.
    pub forwarded: bool,
    /// Which nodes answered, and how long after the request was accepted, in the order in which they did. Who is missing was not asked
    /// or had not answered.
    pub replicas: Vec<(NodeId, Duration)>,
}

/// What a conversation keeps for the telling.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) trace: Option<Trace>,
    /// Who has answered, and when. Empty unless slow requests are told.
    heard: Vec<(NodeId, Time)>,
}

impl Kept {
    pub(crate) fn new(trace: Option<Trace>) -> Self {
        Kept {
            trace,
            heard: Vec::new(),
        }
    }
}

impl<S: Storage> Node<S> {
    /// Says what is to be told from here on.
    pub fn tell_of(&mut self, telling: Telling) {
        self.telling = telling;
    }

    /// A node has answered a conversation.
    pub(crate) fn note_reply(
        &mut self,
        id: RequestId,
        from: NodeId,
        what: &'static str,
        out: &mut Vec<Output>,
    ) {
        let (now, telling) = (self.now, self.telling);
        if telling == Telling::default() {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if telling.slower_than.is_some() {
            conversation.kept.heard.push((from, now));
        }
        if telling.steps
            && let Some(trace) = conversation.kept.trace
        {
            out.push(Output::Step(Step {
                trace_id: trace.trace_id,
                request: id,
                node: Some(from),
                what,
                after: now.since(conversation.began),
            }));
        }
    }

    /// What is to be told of a conversation that ends now, once its answer is known.
    pub(crate) fn ending(&self, id: RequestId, conversation: &Conversation) -> Ending {
        let took = self.now.since(conversation.began);
        let step = |trace: Trace| Step {
            trace_id: trace.trace_id,
            request: id,
            node: None,
            what: "",
            after: took,
        };
        let is_slow = self.telling.slower_than.is_some_and(|least| took >= least);
        let about = about(&conversation.kind).filter(|_| is_slow);
        let slow = about.map(|(operation, bucket, key)| {
            let heard = conversation.kept.heard.iter();
            Box::new(Slow {
                trace_id: conversation.kept.trace.map(|trace| trace.trace_id),
                operation,
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                partition: self.layouts.partition_of(bucket, key.as_bytes()),
                outcome: "",
                took,
                forwarded: matches!(conversation.kind, Kind::Forward(_)),
                replicas: heard
                    .map(|(node, at)| (*node, at.since(conversation.began)))
                    .collect(),
            })
        });
        Ending {
            step: conversation
                .kept
                .trace
                .filter(|_| self.telling.steps)
                .map(step),
            slow,
        }
    }
}

/// What is to be told of a conversation that has ended. Mostly nothing.
pub(crate) struct Ending {
    step: Option<Step>,
    slow: Option<Box<Slow>>,
}

impl Ending {
    /// Tells it.
    pub(crate) fn with(self, answer: &Answer, out: &mut Vec<Output>) {
        let outcome = answer.name();
        if let Some(step) = self.step {
            out.push(Output::Step(Step {
                what: outcome,
                ..step
            }));
        }
        if let Some(mut slow) = self.slow {
            slow.outcome = outcome;
            out.push(Output::Slow(slow));
        }
    }
}

/// What a conversation is about, where that is a key.
fn about(kind: &Kind) -> Option<(&'static str, &str, &str)> {
    match kind {
        Kind::Write(write) => {
            let operation = if write.payload.is_some() {
                "put"
            } else {
                "delete"
            };
            Some((operation, &write.target.bucket, &write.target.key))
        }
        Kind::Read(read) => {
            let operation = match &read.purpose {
                Purpose::Answer => "get",
                Purpose::Write(first) if first.payload.is_some() => "put",
                Purpose::Write(_) => "delete",
                // A part of a request that is slow itself.
                Purpose::Listing(_) => return None,
            };
            Some((operation, &read.target.bucket, &read.target.key))
        }
        Kind::Forward(forward) => {
            let (bucket, key) = forward.request.target()?;
            let operation = match forward.request {
                Request::Put(_) => "put",
                Request::Get(_) => "get",
                Request::Delete(_) => "delete",
                _ => return None,
            };
            Some((operation, bucket, key))
        }
        Kind::Change(change) => Some(("bucket", &change.bucket, "")),
        Kind::Status(_) | Kind::List(_) | Kind::Scan(_) | Kind::Repair(_) | Kind::Choose(_) => None,
    }
}

/// What a replica's reply says, in a word or two.
pub(crate) fn words_of(reply: &ReplicaReply) -> &'static str {
    match reply {
        ReplicaReply::Merged { synced: true } => "taken and synced",
        ReplicaReply::Merged { synced: false } => "taken",
        ReplicaReply::Record(_) => "record",
        ReplicaReply::Digest(_) => "digest",
        ReplicaReply::Refused(_) => "refused",
        ReplicaReply::Scanned(_) => "keys",
        ReplicaReply::Bucket(_) => "bucket",
        ReplicaReply::Buckets(_) => "buckets",
        ReplicaReply::Status(_) => "status",
        ReplicaReply::Upkeep(_) => "upkeep",
        ReplicaReply::Gone(_) => "what became of values",
        ReplicaReply::Layout(_) => "layouts",
    }
}
