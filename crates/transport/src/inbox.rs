//! The receiving half of large frames: every stream the peer opens is read by a task of its own, and complete
//! frames wait in a channel for the receiver.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::RecvStream;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::connection::Link;
use crate::frame::{self, HEADER, Violation};
use crate::tuning::Tuning;

/// The first memory taken for a large frame; it doubles as bytes arrive. Whoever announces 9 MiB and sends
/// nothing has cost this much.
const FIRST: usize = 64 * 1024;

/// A large frame and its share of the connection's budget, given back when the receiver takes the frame.
pub(crate) struct Large {
    pub(crate) body: Bytes,
    _share: OwnedSemaphorePermit,
}

enum Failure {
    Violation(Violation),
    /// The connection is gone, for a reason known elsewhere.
    Lost,
}

/// Reads large frames until the connection is gone. At its end the outbox is closed too: this task is the one
/// that always notices.
pub(crate) async fn read(link: Arc<Link>, frames: mpsc::Sender<Large>, tuning: Tuning) {
    let budget = tuning
        .max_unread
        .max(tuning.max_frame)
        .min(Semaphore::MAX_PERMITS);
    let budget = Arc::new(Semaphore::new(budget));
    let max = tuning.max_frame_u32();
    let mut readers = JoinSet::new();
    while let Ok(stream) = link.quic.accept_uni().await {
        while readers.try_join_next().is_some() {}
        let (link, frames, budget) = (link.clone(), frames.clone(), budget.clone());
        readers.spawn(async move {
            match read_one(stream, max, budget).await {
                // A failure to hand over means that the receiver was dropped, and the connection with it.
                Ok(large) => drop(frames.send(large).await),
                Err(Failure::Violation(violation)) => link.violated(violation),
                Err(Failure::Lost) => {}
            }
        });
    }
    link.outbox.close();
    // Frames that were complete before the end are still delivered; half ones fail at once.
    while readers.join_next().await.is_some() {}
}

async fn read_one(
    mut stream: RecvStream,
    max: u32,
    budget: Arc<Semaphore>,
) -> Result<Large, Failure> {
    let mut header = [0; HEADER];
    stream
        .read_exact(&mut header)
        .await
        .map_err(|error| match error {
            quinn::ReadExactError::FinishedEarly(_) => Failure::Violation(Violation::Truncated),
            quinn::ReadExactError::ReadError(error) => failed(&error),
        })?;
    let announced = u32::from_be_bytes(header);
    let length = frame::check_length(announced, max).map_err(Failure::Violation)?;
    let share = budget
        .acquire_many_owned(announced)
        .await
        .map_err(|_| Failure::Lost)?;

    let mut body = BytesMut::with_capacity(length.min(FIRST));
    while body.len() < length {
        if body.len() == body.capacity() {
            body.reserve(body.len().min(length - body.len()));
        }
        let room = (length - body.len()).min(body.capacity() - body.len());
        match stream.read_buf(&mut (&mut body).limit(room)).await {
            Ok(0) => return Err(Failure::Violation(Violation::Truncated)),
            Ok(_) => {}
            Err(error) => return Err(broken(&error)),
        }
    }
    match stream.read(&mut [0]).await {
        Ok(None) => Ok(Large {
            body: body.freeze(),
            _share: share,
        }),
        Ok(Some(_)) => Err(Failure::Violation(Violation::Trailing)),
        Err(error) => Err(failed(&error)),
    }
}

fn failed(error: &quinn::ReadError) -> Failure {
    match error {
        quinn::ReadError::Reset(_) => Failure::Violation(Violation::Truncated),
        _ => Failure::Lost,
    }
}

/// The same through `std::io`, as which quinn's stream reports a reset as `ConnectionReset`.
fn broken(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset => Failure::Violation(Violation::Truncated),
        _ => Failure::Lost,
    }
}
