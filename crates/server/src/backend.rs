//! The gateway's way to the node in this process.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use quorate_gateway::Backend;
use quorate_protocol::{Answer, Header, Refusal, Request, Unmet};
use tokio::sync::oneshot;

use crate::event::{Event, Events, HttpRequest};
use crate::metrics::Metrics;

/// Whether the node can serve, as the driver last found. Shared with the gateway's tasks.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(Arc<Mutex<Result<(), String>>>);

impl Readiness {
    pub(crate) fn new() -> Self {
        Readiness(Arc::new(Mutex::new(Err("starting".to_owned()))))
    }

    pub(crate) fn set(&self, ready: Result<(), String>) {
        *self.0.lock().expect("no panic under this lock") = ready;
    }

    fn get(&self) -> Result<(), String> {
        self.0.lock().expect("no panic under this lock").clone()
    }
}

/// Hands the gateway's requests to the driver.
#[derive(Clone, Debug)]
pub(crate) struct LocalNode {
    pub(crate) events: Events,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
}

impl Backend for LocalNode {
    async fn call(&self, header: Header, request: Request) -> Answer {
        let Some(place) = self.events.http_place() else {
            return Answer::Refused(Refusal::Overloaded);
        };
        let read_only = !request.is_write();
        let (asker, answer) = oneshot::channel();
        let http = HttpRequest {
            since: Instant::now(),
            header,
            request,
            asker,
            _place: place,
        };
        if !self.events.push(Event::Http(Box::new(http))) {
            return Answer::Refused(Refusal::Draining);
        }
        // The node closed before the answer was known.
        let unknown = Unmet {
            needed: 1,
            answered: 0,
            timed_out: false,
            may_have_written: !read_only,
        };
        answer.await.unwrap_or(Answer::Unmet(unknown))
    }

    fn ready(&self) -> Result<(), String> {
        self.readiness.get()
    }

    fn metrics(&self) -> Option<String> {
        Some(self.metrics.text())
    }

    fn responded(&self, status: u16) {
        self.metrics.responded(status);
    }
}
