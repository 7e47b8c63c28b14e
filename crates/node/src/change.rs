//! The conversation of one change of a bucket: proposed to every node, acknowledged once enough of them know it.

use std::collections::BTreeMap;

use quorate_protocol::{Answer, BucketAction, BucketEntry, BucketRequest, Unmet};
use quorate_ring::NodeId;

use crate::tally::{Requirement, Verdict};

/// How often a change is proposed again on top of another's that came between. Each time somebody else's change
/// succeeded, so that many attempts only fail where clients change one bucket all the time.
const ATTEMPTS_MAX: u32 = 8;

/// One change. It owns no timer and sends nothing: it is told, and asked where it stands.
#[derive(Debug)]
pub(crate) struct ChangeConversation {
    pub(crate) bucket: String,
    pub(crate) action: BucketAction,
    pub(crate) proposed: BucketEntry,
    /// For each partition and region: who must know of it.
    needed: Vec<Requirement>,
    /// Who has it on disk, and who never will say so.
    heard: BTreeMap<NodeId, bool>,
    /// Those that refused since they know other layouts, and how often they did.
    turned_away: BTreeMap<NodeId, u32>,
    attempts: u32,
}

impl ChangeConversation {
    pub(crate) fn new(
        request: BucketRequest,
        proposed: BucketEntry,
        needed: Vec<Requirement>,
    ) -> Self {
        ChangeConversation {
            bucket: request.bucket,
            action: request.action,
            proposed,
            needed,
            heard: BTreeMap::new(),
            turned_away: BTreeMap::new(),
            attempts: 1,
        }
    }

    /// Whether this is the last attempt.
    pub(crate) fn is_last(&self) -> bool {
        self.attempts >= ATTEMPTS_MAX
    }

    /// The same change with another proposal, since the last one met a greater entry.
    pub(crate) fn again(
        self,
        proposed: BucketEntry,
        needed: Vec<Requirement>,
    ) -> ChangeConversation {
        ChangeConversation {
            proposed,
            needed,
            heard: BTreeMap::new(),
            attempts: self.attempts + 1,
            ..self
        }
    }

    /// Those who must know of it are others. What was heard stands.
    pub(crate) fn needs(&mut self, needed: Vec<Requirement>) {
        self.needed = needed;
    }

    /// A node knows other layouts. It may take it once both know the same; but not for ever.
    pub(crate) fn turn_away(&mut self, node: NodeId, most: u32) {
        let times = self.turned_away.entry(node).or_default();
        *times += 1;
        if *times > most {
            self.lost(node);
        }
    }

    /// Whether a node is to be asked again.
    pub(crate) fn was_turned_away(&self, node: NodeId) -> bool {
        self.turned_away.contains_key(&node) && !self.heard.contains_key(&node)
    }

    /// A node has the proposal on disk.
    pub(crate) fn joined(&mut self, node: NodeId) {
        self.heard.insert(node, true);
    }

    /// A node refused, or was lost before it answered.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.heard.entry(node).or_insert(false);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        verdict(
            &self.needed,
            |n| self.heard.get(&n) == Some(&true),
            |n| self.heard.get(&n) == Some(&false),
        )
    }

    /// The answer when too few have it: it is in some tables and will spread, so the outcome is unknown for now.
    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        Answer::Unmet(Unmet {
            needed: self
                .needed
                .iter()
                .map(Requirement::needed)
                .max()
                .unwrap_or(0),
            answered: self.heard.values().filter(|h| **h).count() as u32,
            timed_out,
            may_have_written: true,
        })
    }
}

/// How all of these stand together.
fn verdict(
    needed: &[Requirement],
    yes: impl Fn(NodeId) -> bool,
    no: impl Fn(NodeId) -> bool,
) -> Verdict {
    let mut all = Verdict::Met;
    for requirement in needed {
        match requirement.verdict(&yes, &no) {
            Verdict::Impossible => return Verdict::Impossible,
            Verdict::Pending => all = Verdict::Pending,
            Verdict::Met => {}
        }
    }
    all
}
