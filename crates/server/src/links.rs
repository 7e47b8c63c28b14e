//! Connections: one dialled to every other node of the live layouts and kept, and whatever others dial.
//!
//! Requests travel on the connection of whoever asks, answers come back on the same one; so between two nodes there are
//! two connections, and neither side has to agree with the other which of them to keep.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_ring::{NodeId, NodeSpec};
use quorate_transport::{
    Acceptor, Connection, DialError, Endpoint, Expected, Identity, Receiver, ResolveError, Sender,
    resolve,
};
use rand::Rng;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::event::{ConnectionId, End, Event, Events};

/// Between attempts to dial: doubled from one to the other. More often than the former, and a dead node costs its peers
/// a core; more seldom than the latter, and a node that came back is missed for seconds.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A node that could not be reached for this long is worth a word: when a cluster starts, all nodes are away at first.
const WORTH_A_WORD: Duration = Duration::from_secs(2);

/// A knock for each node that is dialled: whoever dialled us is there, so that it need not be waited for.
#[derive(Clone, Default)]
pub(crate) struct Knocks(Arc<Mutex<BTreeMap<NodeId, Arc<Notify>>>>);

impl Knocks {
    fn of(&self, node: NodeId) -> Arc<Notify> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(node).or_default().clone()
    }

    fn knock(&self, node: NodeId) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(knock) = all.get(&node) {
            knock.notify_waiters();
        }
    }
}

/// Keeps a connection open to each node that it is told, as long as it is told. Ends by a panic alone.
pub(crate) async fn keep_all_dialled(
    endpoint: Endpoint,
    events: Events,
    knocks: Knocks,
    mut roster: watch::Receiver<Vec<NodeSpec>>,
) {
    let mut dials = JoinSet::new();
    let mut running: BTreeMap<NodeId, (NodeSpec, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = roster.borrow_and_update().clone();
        running.retain(|id, (spec, task)| {
            // Where it is reached is all that matters here.
            let stays = wanted.iter().any(|w| w.id == *id && w.quic == spec.quic);
            if !stays {
                task.abort();
            }
            stays
        });
        for spec in wanted {
            running.entry(spec.id).or_insert_with(|| {
                let dial = keep_dialled(
                    endpoint.clone(),
                    events.clone(),
                    spec.clone(),
                    knocks.clone(),
                );
                (spec, dials.spawn(dial))
            });
        }
        loop {
            tokio::select! {
                changed = roster.changed() => match changed {
                    Ok(()) => break,
                    // The driver has ended, and so will this.
                    Err(_) => std::future::pending().await,
                },
                Some(ended) = dials.join_next() => {
                    if let Err(error) = ended
                        && error.is_panic()
                    {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
            }
        }
    }
}

/// Keeps a connection to that node open, until it is aborted.
async fn keep_dialled(endpoint: Endpoint, events: Events, peer: NodeSpec, knocks: Knocks) {
    let knock = &*knocks.of(peer.id);
    let mut pause = PAUSE_MIN;
    let mut away_since = Instant::now();
    let mut told = None;
    loop {
        let attempt = tokio::select! {
            attempt = dial(&endpoint, &peer) => attempt,
            // Its first packets went to nobody, and the next may be a second away: begin again.
            () = knock_at_a_late_dial(knock) => continue,
        };
        match attempt {
            Ok(connection) => {
                let began = Instant::now();
                told = None;
                let id = events.connection();
                let (sender, receiver) = connection.split();
                events.push(Event::Opened(id, End::Dialled(peer.id), sender.clone()));
                read(&events, id, sender, receiver).await;
                away_since = Instant::now();
                // One that breaks at once is no better than none.
                if began.elapsed() > PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
            }
            Err(reason) => {
                let reason = reason.to_string();
                tracing::debug!(node = peer.name, reason, "a dial failed");
                if away_since.elapsed() > WORTH_A_WORD && told.as_ref() != Some(&reason) {
                    tracing::warn!(
                        node = peer.name,
                        reason,
                        "a node cannot be reached; it is tried on"
                    );
                    told = Some(reason);
                }
            }
        }
        // Spread, so that nodes that lost each other at one moment do not dial in step.
        let spread = rand::rng().random_range(0.5..=1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(spread)) => {}
            () = knock.notified() => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Two nodes that dial each other at one moment would otherwise interrupt each other for ever.
async fn knock_at_a_late_dial(knock: &Notify) {
    tokio::time::sleep(PAUSE_MIN * 2).await;
    knock.notified().await;
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Tries the addresses of a node in turn. Resolved anew each time, for names may come to mean another address.
async fn dial(endpoint: &Endpoint, peer: &NodeSpec) -> Result<Connection, Failure> {
    let mut addresses = resolve(&peer.quic).await?.into_iter();
    let mut last = addresses.next().expect("what is resolved has an address");
    loop {
        match (
            endpoint.dial(last, Expected::Node(peer.id.0)).await,
            addresses.next(),
        ) {
            (Ok(connection), _) => return Ok(connection),
            (Err(error), None) => return Err(error.into()),
            (Err(_), Some(next)) => last = next,
        }
    }
}

/// What reads one accepted connection to its end.
pub(crate) type Reader = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes connections until the endpoint is closed. Their readers are passed on, for they outlive this.
pub(crate) async fn accept(
    mut acceptor: Acceptor,
    events: Events,
    knocks: Knocks,
    readers: UnboundedSender<Reader>,
) {
    while let Some(connection) = acceptor.accept().await {
        let id = events.connection();
        let (sender, receiver) = connection.split();
        if let Identity::Node(peer) = sender.peer() {
            knocks.knock(NodeId(*peer));
        }
        let end = End::Accepted(sender.peer().clone());
        events.push(Event::Opened(id, end, sender.clone()));
        let events = events.clone();
        let reader = Box::pin(async move { read(&events, id, sender, receiver).await });
        if readers.send(reader).is_err() {
            return;
        }
    }
}

/// Hands frames over until the connection ends, and tells how it did.
async fn read(events: &Events, id: ConnectionId, sender: Sender, mut receiver: Receiver) {
    while let Some(frames) = receiver.recv().await {
        if !events.push_frames(id, frames).await {
            return;
        }
    }
    let reason = sender.closed().await;
    events.push(Event::Closed(id, reason));
}
