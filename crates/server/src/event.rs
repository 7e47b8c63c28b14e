//! Whatever reaches a node: the one queue between everything that waits and the driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use quorate_protocol::{Answer, Header, Request};
use quorate_ring::NodeId;
use quorate_storage::CommitEvent;
use quorate_transport::{CloseReason, Identity, Sender};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::pulse::Pulse;

/// HTTP requests that were received and not yet looked at. The driver empties the queue whenever it runs, so as many
/// wait only if it is far behind; those who come then are told at once to come later.
const HTTP_WAITING_MAX: usize = 4096;

/// Names a connection within one life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ConnectionId(u64);

/// Which end of a connection is ours, and who is at the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// We dialled that node: our requests go out, its answers come in.
    Dialled(NodeId),
    /// They dialled us: their requests come in, our answers go out.
    Accepted(Identity),
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The committer reports.
    Commit(CommitEvent),
    /// The gateway has a request.
    Http(Box<HttpRequest>),
    /// A connection is there.
    Opened(ConnectionId, End, Sender),
    /// A connection brought frames, at that moment. The room is given back when this is dropped.
    Frames(ConnectionId, Vec<Bytes>, Instant, OwnedSemaphorePermit),
    /// A connection is gone.
    Closed(ConnectionId, CloseReason),
    /// The disk and the clock were looked at.
    Pulse(Pulse),
    /// The node is to finish what it has and end.
    Stop,
}

/// A request of the gateway, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct HttpRequest {
    /// When it came.
    pub(crate) since: Instant,
    pub(crate) header: Header,
    pub(crate) request: Request,
    pub(crate) asker: oneshot::Sender<Answer>,
    /// The count falls when this is dropped.
    pub(crate) _place: Counted,
}

/// One of a number of things that wait.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The near end of the queue: cheap to clone, usable from any thread. Unbounded itself, so that the committer never
/// waits; what could flood it is bounded on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: UnboundedSender<Event>,
    /// Bytes of frames that may be received and not yet handled, over all connections. Beyond it nothing more is read,
    /// and QUIC slows the senders down.
    room: Arc<Semaphore>,
    room_max: u32,
    http_waiting: Arc<AtomicUsize>,
    connections: Arc<AtomicU64>,
}

impl Events {
    /// A queue with room for two of the largest frames: with less, one connection could hold up all others.
    pub(crate) fn new(frame_max: usize) -> (Self, UnboundedReceiver<Event>) {
        let (queue, events) = unbounded_channel();
        let room_max = u32::try_from(2 * frame_max).unwrap_or(u32::MAX);
        let near = Events {
            queue,
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            http_waiting: Arc::default(),
            connections: Arc::default(),
        };
        (near, events)
    }

    /// Whether there still is a driver to take it.
    pub(crate) fn push(&self, event: Event) -> bool {
        self.queue.send(event).is_ok()
    }

    /// A name for a new connection.
    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits for room for these frames and queues them.
    pub(crate) async fn push_frames(&self, id: ConnectionId, frames: Vec<Bytes>) -> bool {
        let since = Instant::now();
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        let share = bytes.clamp(1, self.room_max as usize) as u32;
        let room = self.room.clone().acquire_many_owned(share).await;
        let room = room.expect("this semaphore is never closed");
        self.push(Event::Frames(id, frames, since, room))
    }

    /// A place for one more HTTP request, if there is one.
    pub(crate) fn http_place(&self) -> Option<Counted> {
        let place = Counted(self.http_waiting.clone());
        let before = self.http_waiting.fetch_add(1, Ordering::Relaxed);
        (before < HTTP_WAITING_MAX).then_some(place)
    }
}
