//! The conversation of one put or delete with the replicas of its key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_causal::{Context, DotSet, Record, Sibling};
use quorate_protocol::{Answer, Options, Unmet};
use quorate_ring::NodeId;

use crate::sloppy::StandIns;
use crate::tally::{Requirement, Verdict};
use crate::target::Target;

/// What a write asks of its replicas.
#[derive(Clone, Debug)]
pub(crate) struct WriteTerms {
    /// How many must have taken it: `w`.
    pub(crate) taken: Requirement,
    /// How many primaries must have taken it: `pw`.
    pub(crate) primary: Requirement,
    /// Whether fallbacks may stand in for primaries, but for `primary`.
    pub(crate) sloppy: bool,
    /// How many must have it synced: `dw`.
    pub(crate) synced: Requirement,
    /// Whether acknowledgements must wait for a sync.
    pub(crate) durable: bool,
    /// Whether the answer shows what the key holds.
    pub(crate) return_body: bool,
    /// What its client asked for, from which all this follows under the layouts that are live.
    pub(crate) options: Options,
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
    /// What it removes; known when `written` is.
    removed: DotSet,
    /// When what it puts ends.
    expires: Option<u64>,
    /// Who keeps it for primaries that did not take it.
    pub(crate) stand_ins: StandIns,
    /// Whether this node keeps it, as a replica or for one.
    pub(crate) keeps: bool,
    /// What each replica has said: whether it is synced, or `None` if it never will.
    heard: BTreeMap<NodeId, Option<bool>>,
    /// Who was asked to take it as a replica, and how often.
    asked: BTreeMap<NodeId, u32>,
    /// Those of them that refused since they know other layouts, and may take it yet.
    turned_away: BTreeSet<NodeId>,
    /// Those that stood in for one and are replicas by now.
    promoted: BTreeSet<NodeId>,
}

impl WriteConversation {
    /// A put of `payload`, or a delete.
    pub(crate) fn new(
        target: Target,
        terms: WriteTerms,
        payload: Option<Bytes>,
        expires: Option<u64>,
    ) -> Self {
        WriteConversation {
            target,
            terms,
            payload,
            removed: DotSet::new(),
            expires,
            written: None,
            stand_ins: StandIns::default(),
            keeps: true,
            heard: BTreeMap::new(),
            asked: BTreeMap::new(),
            turned_away: BTreeSet::new(),
            promoted: BTreeSet::new(),
        }
    }

    /// A replica is asked to take it.
    pub(crate) fn asks(&mut self, node: NodeId) {
        *self.asked.entry(node).or_default() += 1;
        self.turned_away.remove(&node);
    }

    /// Whether a replica was asked and has not refused for its layouts.
    pub(crate) fn was_asked(&self, node: NodeId) -> bool {
        self.asked.contains_key(&node) && !self.turned_away.contains(&node)
    }

    /// A replica knows other layouts. It may take it once both know the same.
    pub(crate) fn turn_away(&mut self, node: NodeId) {
        if self.asked.contains_key(&node) && !self.heard.contains_key(&node) {
            self.turned_away.insert(node);
        }
    }

    /// Whether it is to be asked again.
    pub(crate) fn was_turned_away(&self, node: NodeId) -> bool {
        self.turned_away.contains(&node)
    }

    /// Whether a replica was asked so often that it is not asked again.
    pub(crate) fn is_offered_too_often(&self, node: NodeId, most: u32) -> bool {
        self.asked.get(&node).is_some_and(|times| *times >= most)
    }

    /// These are the replicas now. One of them that stood in for another is asked as a replica, for what it keeps as a hint is none of its own;
    /// but as nobody could tell which of the two it acknowledges, it does not count.
    pub(crate) fn promote(&mut self, seats: &[NodeId]) {
        for node in seats {
            if self.stand_ins.remove(*node) {
                self.promoted.insert(*node);
                self.heard.insert(*node, None);
                self.asked.remove(node);
            }
        }
    }

    /// Whether a node may stand in for a replica: not if it was asked as one, as then nobody could tell what it acknowledges.
    pub(crate) fn may_stand_in(&self, node: NodeId) -> bool {
        !self.stand_ins.has(node)
            && !self.asked.contains_key(&node)
            && !self.promoted.contains(&node)
    }

    /// This node's own vnode has written: the dot of a put, what the key held then, and what the change removes.
    pub(crate) fn made(&mut self, own: Context, record: Record, removed: DotSet) {
        self.written = Some((own, record));
        self.removed = removed;
    }

    /// The change as it was made, encoded, for whoever is asked later. Made anew, as hardly anybody is, and a second copy of
    /// every value under way costs memory. `None` before it was made.
    pub(crate) fn delta(&self) -> Option<Bytes> {
        let (own, _) = self.written.as_ref()?;
        let put = self.payload.as_ref().zip(own.spans().first());
        let put = put.map(|(payload, span)| Sibling {
            span: *span,
            payload: payload.clone(),
            expires: self.expires,
        });
        let live = put.into_iter().collect();
        Some(Record::from_parts(live, self.removed.clone()).encode())
    }

    /// A replica has it.
    pub(crate) fn taken(&mut self, node: NodeId, synced: bool) {
        if self.promoted.contains(&node) {
            return;
        }
        let entry = self.heard.entry(node).or_insert(Some(synced));
        *entry = Some(synced || *entry == Some(true));
    }

    /// A replica refused, or was lost before it answered. An answer that came before stands.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.heard.entry(node).or_insert(None);
    }

    /// Those replicas that are gone for good are asked nothing, and count as lost.
    pub(crate) fn lose_the_dead(&mut self, target: &Target) {
        let placement = &target.policy.placement;
        for node in placement.dead(target.vnode.partition) {
            self.lost(node);
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let lost = |n: NodeId| self.heard.get(&n) == Some(&None);
        let has = |n: NodeId| self.has_taken(n);
        let taken = self.stand_ins.verdict(&self.terms.taken, has, lost);
        let primary = self.terms.primary.verdict(has, lost);
        // A replica that took it without a sync will not report again.
        let synced = self.stand_ins.verdict(
            &self.terms.synced,
            |n| self.heard.get(&n) == Some(&Some(true)),
            |n| matches!(self.heard.get(&n), Some(None | Some(false))),
        );
        taken.and(primary).and(synced)
    }

    /// Whether somebody stands in for a primary who has it or may yet take it.
    pub(crate) fn is_stood_in_for(&self, primary: NodeId) -> bool {
        let mut all = self.stand_ins.of(primary, false);
        all.any(|n| self.heard.get(&n) != Some(&None))
    }

    /// How many fallbacks were asked to keep it and have not answered.
    pub(crate) fn hints_outstanding(&self) -> usize {
        let asked = self.stand_ins.nodes();
        asked.filter(|n| !self.heard.contains_key(n)).count()
    }

    /// Whether `node` has it as durable as asked.
    pub(crate) fn has_taken(&self, node: NodeId) -> bool {
        matches!(self.heard.get(&node), Some(Some(_)))
    }

    /// The answer when too few took it: never "failed", since those that did will keep it. Where it was taken often enough,
    /// and too seldom by primaries or with a sync, the numbers speak of these.
    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        let taken = self.heard.values().filter(|h| h.is_some()).count() as u32;
        let synced = self.heard.values().filter(|h| **h == Some(true)).count() as u32;
        let primaries = self.heard.iter();
        let primaries = primaries.filter(|(n, h)| h.is_some() && !self.stand_ins.has(**n));
        let primaries = primaries.count() as u32;
        let (w, pw) = (self.terms.taken.needed(), self.terms.primary.needed());
        let (needed, answered) = if taken >= w && primaries < pw {
            (pw, primaries)
        } else if taken >= w && self.terms.durable {
            (self.terms.synced.needed(), synced)
        } else {
            (w, taken)
        };
        Answer::Unmet(Unmet {
            needed,
            answered,
            timed_out,
            may_have_written: true,
        })
    }
}
