//! What a read says and does about replicas that are overdue.

use quorate_ring::NodeId;

use super::{Ask, Heard, Purpose, ReadConversation};
use crate::tally::Verdict;
use crate::time::Time;

/// How a read stands with its hedge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hedge {
    /// Whether it has asked one more, or may not.
    done: bool,
    /// Whom.
    node: Option<NodeId>,
}

impl ReadConversation {
    /// Who was asked and owes an answer, and when each was asked first.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = (NodeId, Time)> {
        let asked = self.asked.iter().map(|(node, asked)| (*node, asked.at));
        asked.filter(|(node, _)| self.awaits(*node))
    }

    /// The primaries that were not asked.
    pub(crate) fn others(&self) -> &[NodeId] {
        &self.candidates
    }

    /// Whether it has been hedged, or is not to be any more.
    pub(crate) fn is_hedged(&self) -> bool {
        self.hedge.done
    }

    /// It was to be hedged, and could not be.
    pub(crate) fn give_up_hedging(&mut self) {
        self.hedge.done = true;
    }

    /// Whether the read would be met if this node answered and one of those that are overdue never did. So a primary of the right region is chosen where
    /// regions count, and nobody where nobody can help.
    pub(crate) fn can_replace(&self, node: NodeId, overdue: &[NodeId]) -> bool {
        let lost = |n: NodeId| matches!(self.heard.get(&n), Some(Heard::Lost));
        let without = |out: NodeId| {
            let hoped =
                |n: NodeId| n == node || (n != out && self.asked.contains_key(&n) && !lost(n));
            let met = self.stand_ins.verdict(&self.needed.r, hoped, lost);
            met.and(self.needed.pr.verdict(hoped, lost)) == Verdict::Met
        };
        overdue.iter().any(|out| without(*out))
    }

    /// Asks this one besides. For a digest only where there is a record for it to agree with.
    pub(crate) fn hedge(&mut self, now: Time, node: NodeId) -> Ask {
        self.hedge = Hedge {
            done: true,
            node: Some(node),
        };
        self.candidates.retain(|candidate| *candidate != node);
        let is_write = matches!(self.purpose, Purpose::Write(_));
        let in_doubt = self.heard.values().any(|h| matches!(h, Heard::Lost)) || !self.agreed();
        self.ask(now, node, !is_write && !in_doubt)
    }

    /// Whether the hedge has answered before one that was asked before it.
    pub(crate) fn hedge_won(&self) -> bool {
        let answered = |node: &NodeId| {
            matches!(
                self.heard.get(node),
                Some(Heard::Digest(_) | Heard::Record(_))
            )
        };
        let Some(hedge) = self.hedge.node.filter(answered) else {
            return false;
        };
        let Some(hedged_at) = self.asked.get(&hedge).map(|asked| asked.at) else {
            return false;
        };
        self.awaited().any(|(_, at)| at < hedged_at)
    }
}
