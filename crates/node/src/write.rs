//! The conversation of one put or delete with the replicas of its key.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_causal::{Context, Record};
use quorate_protocol::{Answer, Unmet};
use quorate_ring::NodeId;

use crate::tally::{Requirement, Verdict};
use crate::target::Target;

/// What a write asks of its replicas.
#[derive(Clone, Debug)]
pub(crate) struct WriteTerms {
    /// How many must have taken it: `w` and `pw`. The same nodes here, as only primaries are asked.
    pub(crate) taken: Requirement,
    /// How many must have it synced: `dw`.
    pub(crate) synced: Requirement,
    /// Whether acknowledgements must wait for a sync.
    pub(crate) durable: bool,
    /// Whether the answer shows what the key holds.
    pub(crate) return_body: bool,
}

/// One put or delete after it was accepted. It owns no timer and sends nothing: it is told, and asked where it stands.
#[derive(Debug)]
pub(crate) struct WriteConversation {
    pub(crate) target: Target,
    pub(crate) terms: WriteTerms,
    /// What it puts; `None` for a delete.
    pub(crate) payload: Option<Bytes>,
    /// The dot it minted, and what the key held then; known once this node's own vnode has written.
    pub(crate) written: Option<(Context, Record)>,
    /// What each replica has said: whether it is synced, or `None` if it never will.
    heard: BTreeMap<NodeId, Option<bool>>,
}

impl WriteConversation {
    /// A put of `payload`, or a delete.
    pub(crate) fn new(target: Target, terms: WriteTerms, payload: Option<Bytes>) -> Self {
        WriteConversation {
            target,
            terms,
            payload,
            written: None,
            heard: BTreeMap::new(),
        }
    }

    /// A replica has it.
    pub(crate) fn taken(&mut self, node: NodeId, synced: bool) {
        let entry = self.heard.entry(node).or_insert(Some(synced));
        *entry = Some(synced || *entry == Some(true));
    }

    /// A replica refused, or was lost before it answered. An answer that came before stands.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.heard.entry(node).or_insert(None);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let lost = |n: NodeId| self.heard.get(&n) == Some(&None);
        let taken = self
            .terms
            .taken
            .verdict(|n| matches!(self.heard.get(&n), Some(Some(_))), lost);
        // A replica that took it without a sync will not report again.
        let synced = self.terms.synced.verdict(
            |n| self.heard.get(&n) == Some(&Some(true)),
            |n| matches!(self.heard.get(&n), Some(None | Some(false))),
        );
        match (taken, synced) {
            (Verdict::Met, Verdict::Met) => Verdict::Met,
            (Verdict::Impossible, _) | (_, Verdict::Impossible) => Verdict::Impossible,
            _ => Verdict::Pending,
        }
    }

    /// Whether `node` has it as durable as asked.
    pub(crate) fn has_taken(&self, node: NodeId) -> bool {
        matches!(self.heard.get(&node), Some(Some(_)))
    }

    /// The answer when too few took it: never "failed", since those that did will keep it. Where it was synced too
    /// seldom, and else taken often enough, the numbers speak of syncs.
    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        let taken = self.heard.values().filter(|h| h.is_some()).count() as u32;
        let synced = self.heard.values().filter(|h| **h == Some(true)).count() as u32;
        let (needed, answered) = if taken >= self.terms.taken.needed() && self.terms.durable {
            (self.terms.synced.needed(), synced)
        } else {
            (self.terms.taken.needed(), taken)
        };
        Answer::Unmet(Unmet {
            needed,
            answered,
            timed_out,
            may_have_written: true,
        })
    }
}
