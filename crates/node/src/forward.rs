//! The conversation of a request that this node passes on, being no replica of its key.

use quorate_protocol::{Answer, Header, Refusal, Request, Unmet};
use quorate_ring::NodeId;

use crate::node::Timer;
use crate::ranking::Errand;
use crate::time::Time;

/// One request at another node.
#[derive(Debug)]
pub(crate) struct ForwardConversation {
    pub(crate) header: Header,
    pub(crate) request: Request,
    /// Who may coordinate it and was not asked yet, the best first.
    candidates: Vec<NodeId>,
    at: Option<NodeId>,
    /// A read's second coordinator, asked besides since the first was overdue.
    hedge: Option<NodeId>,
    /// Whether it was hedged, or may not be any more.
    hedged: bool,
    /// When it was sent to `at`.
    pub(crate) sent_at: Time,
    /// The timer that it has set, for its hedge.
    pub(crate) timer: Option<(Time, Timer)>,
    /// Those whose connections ended. One of them may come back, and then a read is sent to it.
    gone: Vec<NodeId>,
    /// Until when a read waits for one of them, once nobody else is left.
    pub(crate) gives_up_at: Option<Time>,
    /// Whether all who were asked knew other layouts: it is passed on anew once this node knows what they do.
    pub(crate) turned_away: bool,
    /// How often that was done.
    attempts: u32,
}

/// What to do after a change.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send it to the next candidate.
    Again,
    /// Give this answer.
    Answer(Answer),
    /// Wait for one that was lost to come back.
    Wait,
    /// Nothing: another has it still.
    Nothing,
}

impl ForwardConversation {
    /// A request that any of these nodes could coordinate, and its first step.
    pub(crate) fn new(header: Header, request: Request, candidates: Vec<NodeId>) -> Self {
        ForwardConversation {
            header,
            request,
            candidates,
            at: None,
            hedge: None,
            hedged: false,
            sent_at: Time::default(),
            timer: None,
            gone: Vec::new(),
            gives_up_at: None,
            turned_away: false,
            attempts: 0,
        }
    }

    /// These could coordinate it by the layouts of now. Returns whether it may be passed on once more.
    pub(crate) fn again(&mut self, candidates: Vec<NodeId>, most: u32) -> bool {
        self.attempts += 1;
        self.turned_away = false;
        self.hedged = true;
        self.candidates = candidates;
        !self.candidates.is_empty() && self.attempts <= most
    }

    /// The next node, if there is one.
    pub(crate) fn next(&mut self) -> Option<NodeId> {
        self.at = (!self.candidates.is_empty()).then(|| self.candidates.remove(0));
        self.at
    }

    /// Where the request is.
    pub(crate) fn at(&self) -> Option<NodeId> {
        self.at
    }

    /// Whether this node has it.
    pub(crate) fn is_at(&self, node: NodeId) -> bool {
        self.at == Some(node) || self.hedge == Some(node)
    }

    /// What its coordinators are asked for.
    pub(crate) fn errand(&self) -> Errand {
        match self.request.is_write() {
            true => Errand::PassedWrite,
            false => Errand::PassedRead,
        }
    }

    /// Who else could coordinate it, if it may be hedged: a read that is in one place.
    pub(crate) fn others(&self) -> &[NodeId] {
        match self.hedged || self.request.is_write() || self.at.is_none() {
            true => &[],
            false => &self.candidates,
        }
    }

    /// Lets this node coordinate it too; with none, it is not hedged any more.
    pub(crate) fn hedge(&mut self, node: Option<NodeId>) {
        self.hedged = true;
        self.hedge = node;
        self.candidates.retain(|candidate| Some(*candidate) != node);
    }

    /// Whether an answer of this node comes before that of the one that was asked first.
    pub(crate) fn is_won_by(&self, node: NodeId) -> bool {
        self.hedge == Some(node) && self.at.is_some()
    }

    /// This node does not have it any more. Says whether another has.
    fn leave(&mut self, node: NodeId) -> bool {
        self.hedge.take_if(|hedge| *hedge == node);
        if self.at == Some(node) {
            self.at = self.hedge.take();
        }
        self.at.is_some()
    }

    /// A coordinator has answered. What it refused without doing anything is tried elsewhere. So a read is not failed, either, by one
    /// coordinator that could not reach enough replicas, while another is at it.
    pub(crate) fn answered(&mut self, node: NodeId, answer: Answer) -> Step {
        let is_double = self.at.is_some() && self.hedge.is_some();
        let is_to_pass = answer.is_passing() || (is_double && is_cut_off(&answer));
        if !is_to_pass {
            return Step::Answer(answer);
        }
        match (self.leave(node), self.candidates.is_empty()) {
            (true, _) => Step::Nothing,
            (false, false) => Step::Again,
            (false, true) if matches!(answer, Answer::Refused(Refusal::WrongLayout { .. })) => {
                self.turned_away = true;
                Step::Nothing
            }
            (false, true) => Step::Answer(answer),
        }
    }

    /// A coordinator was lost. A read is tried elsewhere, or at that one if it comes back; a write may have happened.
    pub(crate) fn lost(&mut self, node: NodeId) -> Step {
        self.gone.push(node);
        let is_elsewhere = self.leave(node);
        if is_elsewhere {
            Step::Nothing
        } else if self.request.is_write() {
            Step::Answer(self.unmet(false))
        } else if self.candidates.is_empty() {
            Step::Wait
        } else {
            Step::Again
        }
    }

    /// The node that was to be next is out of reach.
    pub(crate) fn skipped(&mut self, node: NodeId) {
        self.at = None;
        self.gone.push(node);
    }

    /// Whether it is a read, and somebody who could coordinate it may come back.
    pub(crate) fn may_yet(&self) -> bool {
        !self.request.is_write() && !self.gone.is_empty()
    }

    /// A node is in reach again. Says whether the request was waiting for it.
    pub(crate) fn back(&mut self, node: NodeId) -> bool {
        let was_gone = self.gone.contains(&node);
        if was_gone {
            self.gone.retain(|n| *n != node);
            self.candidates.push(node);
        }
        was_gone && self.at.is_none()
    }

    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        Answer::Unmet(Unmet {
            needed: 1,
            answered: 0,
            timed_out,
            may_have_written: self.request.is_write(),
        })
    }
}

/// Whether a coordinator says that it lost the replicas it needed. Where its time was up, so is that of any other.
fn is_cut_off(answer: &Answer) -> bool {
    match answer {
        Answer::Unmet(unmet) => !unmet.timed_out,
        Answer::Explained(explained) => explained.answer().is_ok_and(|inner| is_cut_off(&inner)),
        _ => false,
    }
}
