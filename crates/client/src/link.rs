//! One node as the client sees it: at most one open connection, many requests on it, and patience with a node that is
//! away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_protocol::{Answer, Header, Message, Request, RequestId};
use quorate_transport::{Connection, Endpoint, Expected, Receiver, Sender, resolve};
use rand::Rng;
use tokio::sync::oneshot;

use crate::routing::Standing;

/// After a failed dial a node is left alone for this long, doubled with each further failure up to the bound. Shorter,
/// and every request of a busy client would knock at a dead node; longer, and a node that came back would be missed.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Requests that wait for an answer, by id; `None` once the connection is gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Open {
    sender: Sender,
    waiting: Waiting,
    next_id: AtomicU64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.sender.close("the client is done");
    }
}

/// A request that was sent. Dropping it forgets the answer.
#[derive(Debug)]
pub(crate) struct Sent {
    id: u64,
    waiting: Waiting,
    answer: oneshot::Receiver<Answer>,
    sender: Sender,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.waiting.lock().expect("no panic under this lock") {
            waiting.remove(&self.id);
        }
    }
}

impl Sent {
    /// The answer, or how the connection ended.
    pub(crate) async fn answer(&mut self) -> Result<Answer, String> {
        match (&mut self.answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.sender.closed().await.to_string()),
        }
    }
}

impl Open {
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        let (sender, receiver) = connection.split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(read(receiver, sender.clone(), waiting.clone()));
        Arc::new(Open {
            sender,
            waiting,
            next_id: AtomicU64::new(1),
        })
    }

    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub(crate) fn send(&self, header: Header, request: Request) -> Result<Sent, String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        match &mut *self.waiting.lock().expect("no panic under this lock") {
            Some(waiting) => waiting.insert(id, tell),
            None => return Err("the connection is closed".into()),
        };
        // From here on, dropping `sent` takes the entry off the table again.
        let sent = Sent {
            id,
            waiting: self.waiting.clone(),
            answer,
            sender: self.sender.clone(),
        };
        let frame = Message::Request(RequestId(id), header, request).encode();
        self.sender.send(frame).map_err(|error| error.to_string())?;
        Ok(sent)
    }
}

/// Gives answers to whoever waits for them, until the connection ends.
async fn read(mut receiver: Receiver, sender: Sender, waiting: Waiting) {
    while let Some(frames) = receiver.recv().await {
        for frame in frames {
            let Ok(Message::Answer(RequestId(id), answer)) = Message::decode(&frame) else {
                sender.close("a client expects answers only");
                break;
            };
            let mut waiting = waiting.lock().expect("no panic under this lock");
            let asker = waiting.as_mut().and_then(|waiting| waiting.remove(&id));
            drop(waiting);
            if let Some(asker) = asker {
                // It may have gone in this very moment.
                let _ = asker.send(answer);
            }
        }
    }
    // Whoever still waits hears by the drop that no answer will come.
    *waiting.lock().expect("no panic under this lock") = None;
}

#[derive(Debug, Default)]
struct State {
    open: Option<Arc<Open>>,
    failures: u32,
    /// The last failure: when, and until when the node is left alone.
    failed: Option<(Instant, Instant, String)>,
}

/// The way to one node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    id: u64,
    address: String,
    state: Mutex<State>,
    /// Held by whoever dials, so that many requests make one connection.
    dialling: tokio::sync::Mutex<()>,
}

impl Link {
    pub(crate) fn new(id: u64, name: String, address: String) -> Self {
        Link {
            name,
            id,
            address,
            state: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// Where the node is reached, `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    pub(crate) fn opened(&self, open: Arc<Open>) {
        *self.state() = State {
            open: Some(open),
            ..State::default()
        };
    }

    /// The open connection, if there is one.
    pub(crate) fn current(&self) -> Option<Arc<Open>> {
        self.state().open.clone().filter(|open| open.is_open())
    }

    pub(crate) fn standing(&self) -> Standing {
        let state = self.state();
        if state.open.as_ref().is_some_and(|open| open.is_open()) {
            return Standing::Open;
        }
        match &state.failed {
            Some((_, until, _)) if *until > Instant::now() => Standing::Failing,
            _ => Standing::Untried,
        }
    }

    pub(crate) fn is_being_dialled(&self) -> bool {
        self.dialling.try_lock().is_err()
    }

    /// The open connection, dialled if need be.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<Open>, String> {
        if let Some(open) = self.current() {
            return Ok(open);
        }
        let asked = Instant::now();
        let _turn = self.dialling.lock().await;
        if let Some(open) = self.current() {
            return Ok(open);
        }
        // Somebody else tried meanwhile: its failure is ours.
        if let Some((at, _, reason)) = &self.state().failed
            && *at >= asked
        {
            return Err(reason.clone());
        }
        match self.dial(endpoint).await {
            Ok(open) => {
                self.opened(open.clone());
                Ok(open)
            }
            Err(reason) => {
                let now = Instant::now();
                let mut state = self.state();
                let pause = (BACKOFF_MIN * (1 << state.failures.min(5))).min(BACKOFF_MAX);
                let pause = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
                state.failures += 1;
                state.failed = Some((now, now + pause, reason.clone()));
                Err(reason)
            }
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Arc<Open>, String> {
        let addresses = resolve(&self.address)
            .await
            .map_err(|error| error.to_string())?;
        let mut last = String::new();
        for address in addresses {
            match endpoint.dial(address, Expected::Node(self.id)).await {
                Ok(connection) => return Ok(Open::new(connection)),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}
