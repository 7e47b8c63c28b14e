//! The conversation of a request that this node passes on, being no replica of its key.

use quorate_protocol::{Answer, Header, Request, Unmet};
use quorate_ring::NodeId;

/// One request at another node.
#[derive(Debug)]
pub(crate) struct ForwardConversation {
    pub(crate) header: Header,
    pub(crate) request: Request,
    /// Who may coordinate it and was not asked yet, the best first.
    candidates: Vec<NodeId>,
    at: Option<NodeId>,
}

/// What to do after a change.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send it to the next candidate.
    Again,
    /// Give this answer.
    Answer(Answer),
}

impl ForwardConversation {
    /// A request that any of these nodes could coordinate, and its first step.
    pub(crate) fn new(header: Header, request: Request, candidates: Vec<NodeId>) -> Self {
        ForwardConversation {
            header,
            request,
            candidates,
            at: None,
        }
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

    /// The coordinator has answered. What it refused without doing anything is tried elsewhere.
    pub(crate) fn answered(&mut self, answer: Answer) -> Step {
        if answer.is_passing() && !self.candidates.is_empty() {
            Step::Again
        } else {
            Step::Answer(answer)
        }
    }

    /// The coordinator was lost. A read is tried elsewhere; a write may have happened.
    pub(crate) fn lost(&mut self) -> Step {
        let repeatable = !self.request.is_write();
        if repeatable && !self.candidates.is_empty() {
            Step::Again
        } else {
            Step::Answer(self.unmet(false))
        }
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
