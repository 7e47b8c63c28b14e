//! The sending half: a bounded queue that anybody may append to, and one task that empties it.
//!
//! Small frames are gathered into one buffer. The writer takes the whole buffer and hands it to QUIC as one
//! chunk: at 64 requests in flight a round trip then costs 2 us of CPU, where one at a time costs
//! 60 (`examples/echo.rs`). Large frames wait in a
//! queue of their own and go out on a stream each, at lower priority, some at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use quinn::SendStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::connection::Link;
use crate::frame::{self, HEADER, INLINE_MAX};
use crate::tuning::Tuning;

/// Small frames go before large ones whenever both wait.
pub(crate) const SMALL_PRIORITY: i32 = 1;
const LARGE_PRIORITY: i32 = 0;

/// How much is handed to QUIC before the queue's count goes down. A whole queue at once would count as waiting
/// until its last byte was taken.
const PIECE: usize = 256 * 1024;

/// Why a frame was not queued. Nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many bytes wait already as may; the peer reads too slowly. Try later or elsewhere.
    #[error("{queued} bytes wait for this connection already, and at most {max} may")]
    Backlogged {
        /// Bytes that wait, without this frame.
        queued: usize,
        /// The bound ([`Tuning::max_queued`]).
        max: usize,
    },
    /// The connection is gone, or [`finish`](crate::Sender::finish) was called.
    #[error("the connection is closed")]
    Closed,
    /// The peer does not take frames of this size, and would close the connection.
    #[error("the frame has {length} bytes, and the peer takes at most {max}")]
    TooLarge {
        /// The frame's length in bytes.
        length: usize,
        /// What the peer announced.
        max: usize,
    },
    /// A frame has at least one byte.
    #[error("the frame is empty")]
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing new is taken, what waits is still sent.
    Finishing,
    Closed,
}

struct Queue {
    phase: Phase,
    /// Small frames with their lengths, ready for the wire.
    small: BytesMut,
    large: VecDeque<Bytes>,
    /// Bytes in `small` and `large` and in the writers' hands: everything that QUIC has not taken yet.
    waiting: usize,
}

/// The queue of one connection.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// Each has one waiter, its writer: `notify_one` keeps a permit if the writer is busy, so no wake-up is lost.
    small_ready: Notify,
    large_ready: Notify,
    max_queued: usize,
    /// What the peer announced.
    max_frame: usize,
}

impl Outbox {
    pub(crate) fn new(max_queued: usize, max_frame: u32) -> Self {
        Outbox {
            queue: Mutex::new(Queue {
                phase: Phase::Open,
                small: BytesMut::new(),
                large: VecDeque::new(),
                waiting: 0,
            }),
            small_ready: Notify::new(),
            large_ready: Notify::new(),
            max_queued,
            max_frame: max_frame as usize,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic under this lock")
    }

    pub(crate) fn push(&self, body: Bytes) -> Result<(), SendError> {
        if body.is_empty() {
            return Err(SendError::Empty);
        }
        if body.len() > self.max_frame {
            return Err(SendError::TooLarge {
                length: body.len(),
                max: self.max_frame,
            });
        }
        let mut queue = self.queue();
        if queue.phase != Phase::Open {
            return Err(SendError::Closed);
        }
        let cost = HEADER + body.len();
        if queue.waiting + cost > self.max_queued {
            return Err(SendError::Backlogged {
                queued: queue.waiting,
                max: self.max_queued,
            });
        }
        queue.waiting += cost;
        let (was_empty, ready) = if body.len() <= INLINE_MAX {
            let was_empty = queue.small.is_empty();
            frame::put(&mut queue.small, &body);
            (was_empty, &self.small_ready)
        } else {
            queue.large.push_back(body);
            (queue.large.len() == 1, &self.large_ready)
        };
        drop(queue);
        if was_empty {
            ready.notify_one();
        }
        Ok(())
    }

    /// Bytes that QUIC has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().waiting
    }

    /// Takes nothing new; the writers send what waits and then end.
    pub(crate) fn finish(&self) {
        let mut queue = self.queue();
        if queue.phase == Phase::Open {
            queue.phase = Phase::Finishing;
        }
        drop(queue);
        self.wake();
    }

    /// Takes nothing new and forgets what waits.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.phase = Phase::Closed;
        queue.small = BytesMut::new();
        queue.large = VecDeque::new();
        drop(queue);
        self.wake();
    }

    fn wake(&self) {
        self.small_ready.notify_one();
        self.large_ready.notify_one();
    }

    fn sent(&self, bytes: usize) {
        let mut queue = self.queue();
        queue.waiting -= bytes;
    }

    /// All small frames that wait, once there are any; `None` when there will be none.
    async fn take_small(&self) -> Option<Bytes> {
        loop {
            {
                let mut queue = self.queue();
                if !queue.small.is_empty() {
                    return Some(queue.small.split().freeze());
                }
                if queue.phase != Phase::Open {
                    return None;
                }
            }
            self.small_ready.notified().await;
        }
    }

    /// The next large frame, once there is one; `None` when there will be none.
    async fn take_large(&self) -> Option<Bytes> {
        loop {
            {
                let mut queue = self.queue();
                if let Some(frame) = queue.large.pop_front() {
                    return Some(frame);
                }
                if queue.phase != Phase::Open {
                    return None;
                }
            }
            self.large_ready.notified().await;
        }
    }
}

/// Writes everything until the outbox is finished or the connection is gone. Returns when the peer has
/// acknowledged all of it.
pub(crate) async fn write(link: Arc<Link>, stream: SendStream, tuning: &Tuning) {
    tokio::join!(
        write_small(&link, stream),
        write_large(&link, tuning.large_in_flight())
    );
}

async fn write_small(link: &Arc<Link>, mut stream: SendStream) {
    while let Some(mut batch) = link.outbox.take_small().await {
        while !batch.is_empty() {
            let piece = batch.split_to(batch.len().min(PIECE));
            let length = piece.len();
            if stream.write_chunk(piece).await.is_err() {
                return;
            }
            link.outbox.sent(length);
        }
    }
    if stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
}

async fn write_large(link: &Arc<Link>, in_flight: u32) {
    let budget = Arc::new(Semaphore::new(in_flight as usize));
    let mut under_way = JoinSet::new();
    while let Some(frame) = link.outbox.take_large().await {
        let cost = u32::try_from(frame.len())
            .unwrap_or(u32::MAX)
            .min(in_flight);
        let permit = budget
            .clone()
            .acquire_many_owned(cost)
            .await
            .expect("the budget is never closed");
        let Ok(stream) = link.quic.open_uni().await else {
            return;
        };
        while under_way.try_join_next().is_some() {}
        under_way.spawn(write_one(link.clone(), stream, frame, permit));
    }
    while under_way.join_next().await.is_some() {}
}

/// One large frame. The permit is held until the peer acknowledged the last byte, for until then the frame takes
/// up room in the window that the small frames need too.
async fn write_one(
    link: Arc<Link>,
    mut stream: SendStream,
    body: Bytes,
    permit: OwnedSemaphorePermit,
) {
    let cost = HEADER + body.len();
    let length = u32::try_from(body.len()).expect("checked when it was queued");
    let header = Bytes::copy_from_slice(&length.to_be_bytes());
    let _ = stream.set_priority(LARGE_PRIORITY);
    let written = stream.write_all_chunks(&mut [header, body]).await;
    link.outbox.sent(cost);
    if written.is_ok() && stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
    drop(permit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let outbox = Outbox::new(100, 1_000);
        let body = Bytes::from(vec![7; 46]);
        assert_eq!(outbox.push(body.clone()), Ok(()));
        assert_eq!(outbox.push(body.clone()), Ok(()));
        assert_eq!(
            outbox.push(Bytes::from_static(b"x")),
            Err(SendError::Backlogged {
                queued: 100,
                max: 100
            })
        );
        outbox.sent(50);
        assert_eq!(outbox.push(body), Ok(()));
    }

    #[test]
    fn what_the_peer_would_refuse_is_not_sent() {
        let outbox = Outbox::new(100, 10);
        let long = Bytes::from(vec![7; 11]);
        assert_eq!(
            outbox.push(long),
            Err(SendError::TooLarge {
                length: 11,
                max: 10
            })
        );
        assert_eq!(outbox.push(Bytes::new()), Err(SendError::Empty));
        outbox.finish();
        assert_eq!(
            outbox.push(Bytes::from_static(b"x")),
            Err(SendError::Closed)
        );
        assert_eq!(outbox.waiting(), 0);
    }
}
