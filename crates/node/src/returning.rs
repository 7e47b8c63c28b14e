//! Reads whose replicas were lost, waiting for them to come back.
//!
//! A connection that ends says that whatever was asked on it will not be answered. It does not say that the node is gone: one that
//! was stopped for a while (a debugger, a frozen container, a virtual machine that moves) loses all its connections when
//! it wakes, the peers having given it up long ago, and has them again some 50 ms later. A read that it took in between would
//! otherwise fail for no reason that a client could see. So a read, which has changed nothing and may be asked again,
//! waits a little; a write that was sent is unknown, and says so at once.

use quorate_protocol::{Answer, RequestId};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::node::{Kind, Node, Timer};
use crate::tally::Verdict;
use crate::time::Time;

impl Kind {
    /// Until when it waits for somebody to come back, if it does.
    pub(crate) fn gives_up_at(&self) -> Option<Time> {
        match self {
            Kind::Read(read) => read.gives_up_at,
            Kind::Forward(forward) => forward.gives_up_at,
            _ => None,
        }
    }
}

impl<S: Storage> Node<S> {
    /// Whether a conversation that cannot go on may wait for one whose connection ended. The time for it begins when it
    /// is first needed, and is granted once.
    pub(crate) fn awaits_return(&mut self, now: Time, id: RequestId) -> bool {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return false;
        };
        let (may_yet, gives_up_at) = match &mut conversation.kind {
            Kind::Read(read) => (read.may_yet(), &mut read.gives_up_at),
            Kind::Forward(forward) => (forward.may_yet(), &mut forward.gives_up_at),
            _ => return false,
        };
        let at = *gives_up_at.get_or_insert(now.after(self.config.limits.return_patience));
        let waits = may_yet && at > now;
        if waits {
            // Later than the deadline it does no harm: the conversation ends before, and takes it off the table.
            self.timers.insert((at, id, Timer::Return));
        }
        waits
    }

    /// Nobody came back in time. What can still be met without is left to go on.
    pub(crate) fn give_up(&mut self, id: RequestId, unmet: Answer, out: &mut Vec<Output>) {
        let waits = match self.conversations.get(&id).map(|c| &c.kind) {
            Some(Kind::Read(read)) => read.verdict() == Verdict::Impossible,
            Some(Kind::Forward(forward)) => forward.at().is_none(),
            _ => false,
        };
        if waits {
            self.finish(id, unmet, out);
        }
    }

    /// A node is in reach again: reads that miss somebody may ask it.
    pub(crate) fn on_return(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let waits = |kind: &Kind| matches!(kind, Kind::Read(_) | Kind::Forward(_));
        let waiting = self.conversations.iter().filter(|(_, c)| waits(&c.kind));
        let ids: Vec<RequestId> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            match self.conversations.get_mut(&id).map(|c| &mut c.kind) {
                Some(Kind::Read(read)) => {
                    let waited = read.verdict() == Verdict::Impossible;
                    read.back(node);
                    if waited {
                        out.push(Output::Event(Event::AskedAfterReturn));
                    }
                    self.step_read(now, id, out);
                }
                Some(Kind::Forward(forward)) => {
                    let waited = forward.back(node);
                    if waited {
                        out.push(Output::Event(Event::AskedAfterReturn));
                        self.pass_on(now, id, out);
                    }
                }
                _ => {}
            }
        }
    }
}
