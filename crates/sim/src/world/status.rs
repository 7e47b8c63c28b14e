//! An operator who looks at the cluster all the time: whatever breaks, a node that runs says how things are.

use super::*;

/// How many questions there are to one repair. Few, since what is exchanged at once hides what goes wrong before.
const REPAIR_ONE_IN: u64 = 16;

impl World {
    /// Asks some node how the cluster is, or now and then to have a partition exchanged.
    pub(super) fn ask_status(&mut self) {
        if self.healing {
            return;
        }
        self.plan(STATUS_US, Happening::AskStatus);
        let node = self.rng.random_range(0..self.slots.len());
        let Some(epoch) = self.alive(node).filter(|_| !self.slots[node].paused) else {
            return;
        };
        let caller = OWN_CALLERS + self.sequence;
        self.status_asked.insert(caller, (node, epoch, self.now));
        self.note(b"status", node, caller);
        let partition = (caller / REPAIR_ONE_IN % u64::from(self.layout.partitions())) as u16;
        let request = match caller % REPAIR_ONE_IN {
            1 => Request::Repair(Repair { partition }),
            _ => Request::Status,
        };
        let header = Header::default();
        self.input(node, Input::Request(Caller(caller), header, request));
    }

    /// Every node is either among those that told or among the silent, never both; the one that was asked has told.
    pub(super) fn check_status(&mut self, i: usize, caller: u64, answer: &Answer) {
        let Some((asked, ..)) = self.status_asked.remove(&caller) else {
            return;
        };
        // A repair is answered with what could be done, or refused by a node that is closing or has too much to do.
        if caller % REPAIR_ONE_IN == 1
            && let Answer::Repaired(_) | Answer::Refused(_) = answer
        {
            return;
        }
        let Answer::Status(status) = answer else {
            self.violations.push(format!(
                "node {i} was asked for its status or for a repair and said {answer:?}"
            ));
            return;
        };
        let told = status.nodes.iter().map(|node| node.name.clone());
        let mut all: Vec<String> = told.chain(status.silent.iter().cloned()).collect();
        all.sort();
        let layout = self.layout.nodes().iter();
        let mut expected: Vec<String> = layout.map(|node| node.name.clone()).collect();
        expected.sort();
        let own = status.nodes.iter().any(|node| node.id == asked as u64);
        // While it changes, nodes may go by different layouts; and one that is in none speaks for itself too.
        let differs = all != expected && !self.profile.changes;
        if differs || !own {
            self.violations.push(format!(
                "node {i} told of other nodes than there are: {status:?}"
            ));
        }
    }

    /// At rest: every node that was not stopped since it was asked has answered.
    pub(super) fn check_status_answered(&mut self) {
        for (node, epoch, at) in self.status_asked.values() {
            let slot = &self.slots[*node];
            if slot.epoch == *epoch && slot.node.is_some() {
                self.violations.push(format!(
                    "node {node} was asked for its status or for a repair at {at} and has not answered"
                ));
            }
        }
    }
}
