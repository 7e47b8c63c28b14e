//! Clients at work: what they ask of which node, and what they are told.

use super::*;
use crate::losses::excuse;

impl World {
    pub(super) fn begin(&mut self, client: usize) {
        if self.healing || self.started >= self.workload.operations {
            return;
        }
        let id = u64::from(self.started);
        self.started += 1;
        let node = self.rng.random_range(0..self.slots.len());
        let replicas = (self.n, self.slots.len() - self.n);
        let (header, request) =
            self.clients[client].begin(id, self.now, node, replicas, &self.workload, &mut self.rng);
        if self.alive(node).is_none() {
            // Nobody listens there: nothing was sent.
            let refused = Answer::Refused(Refusal::Draining);
            self.plan(100, Happening::Told(client, id, Some(refused)));
            return;
        };
        let patience = u64::from(header.deadline_ms) * 1_000 + CLIENT_SLACK_US;
        self.plan(patience, Happening::Told(client, id, None));
        self.ask(client, id, node, header, request);
    }

    /// A client's request is on its way to a node.
    fn ask(&mut self, client: usize, id: u64, node: usize, header: Header, request: Request) {
        let Some(epoch) = self.alive(node) else {
            return;
        };
        let caller = Caller(id * self.clients.len() as u64 + client as u64);
        let delay = self.delay();
        let ask = Happening::Ask {
            node,
            epoch,
            caller,
            header,
            request: Box::new(request),
        };
        self.plan(delay, ask);
    }

    pub(super) fn told(&mut self, client: usize, id: u64, answer: Option<Answer>) {
        if self.clients[client].busy.as_ref().map(|op| op.id) != Some(id) {
            return; // Told already.
        }
        self.note(b"told", client, id);
        if let Some(request) = self.clients[client].turn_page(answer.as_ref()) {
            let node = self.rng.random_range(0..self.slots.len());
            if self.alive(node).is_some() {
                *self.accidents.entry("page turned").or_default() += 1;
                self.ask(client, id, node, Header::default(), request);
                return;
            }
            // Nobody listens there; this one does not try again.
            self.told(client, id, None);
            return;
        }
        if let Some(op) = self.clients[client].end(self.now, answer) {
            self.history.push(op);
        }
        let pause = self.workload.pause_us(&mut self.rng);
        self.plan(pause, Happening::Begin(client));
    }

    /// What is still under way when the clients are stopped has an unknown outcome.
    pub(crate) fn close_history(&mut self) {
        for client in &mut self.clients {
            if let Some(mut op) = client.end(u64::MAX, None) {
                op.end = u64::MAX;
                self.history.push(op);
            }
        }
        self.history.sort_by_key(|op| op.id);
        self.check_lifetimes();
        if self.may_declare_dead && !self.losses.is_empty() {
            // What one primary took was to be on two nodes, and one of them is gone for good: the other kept it for somebody, and hands it over.
            for op in &mut self.history {
                if op.strict.0 < 2 {
                    op.strict.0 = 0;
                }
            }
        }
        let silent = self.faults_drawn.contains(&Accident::RecordLoss);
        excuse(&mut self.history, &self.losses, silent);
    }
}
