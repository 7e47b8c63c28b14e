//! Reading a value's bytes: whole or not at all, within bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use quorate_protocol::Refusal;

use crate::Limits;
use crate::problem::{Kind, Problem};

/// What is read and thrown away of a body that nobody wants, so that its sender is still connected when the refusal
/// arrives: closing a socket with unread bytes resets it, and many clients then report the reset instead of the
/// answer. Beyond these the connection is closed.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// The bytes of unfinished puts, over all connections of one gateway.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicUsize);

/// A share of [`InFlight`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    of: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    fn share(&self) -> Share<'_> {
        Share { of: self, bytes: 0 }
    }
}

impl Share<'_> {
    /// Takes more, unless the whole would exceed `max`.
    fn grow(&mut self, bytes: usize, max: usize) -> bool {
        let taken = self
            .of
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                all.checked_add(bytes).filter(|all| *all <= max)
            })
            .is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body to its end. The share is to be held for as long as the bytes are.
///
/// What is announced as too large is refused before anything of it is read. Bytes count as in flight when they
/// arrive, not when they are announced: announcing costs a client nothing.
pub(crate) async fn read<'a>(
    body: &mut Body,
    limits: &Limits,
    in_flight: &'a InFlight,
) -> Result<(Bytes, Share<'a>), Problem> {
    let limit = limits.value_bytes_max;
    let in_flight_max = limits.body_bytes_in_flight_max.max(limit);
    let announced = body.size_hint().exact();
    if let Some(size) = announced.filter(|size| *size > limit as u64) {
        return Err(Refusal::TooLarge {
            size,
            limit: limit as u64,
        }
        .into());
    }

    let mut share = in_flight.share();
    let mut gathered = Gathered::default();
    loop {
        let next = tokio::time::timeout(limits.body_idle_max, next_data(body)).await;
        let data = match next {
            Ok(Some(Ok(data))) => data,
            Ok(Some(Err(error))) => {
                return Err(ended_early(gathered.len(), announced, &error.to_string()));
            }
            Ok(None) => break,
            Err(_) => return Err(stalled(gathered.len(), limits.body_idle_max)),
        };
        if data.len() > limit - gathered.len() {
            return Err(Problem::new(
                Kind::TooLarge,
                format!("The value is larger than the limit of {limit} bytes; nothing was stored."),
            )
            .with("limit", limit));
        }
        if !share.grow(data.len(), in_flight_max) {
            return Err(Refusal::Overloaded.into());
        }
        gathered.push(data);
    }
    if announced.is_some_and(|size| size != gathered.len() as u64) {
        return Err(ended_early(
            gathered.len(),
            announced,
            "it is shorter than announced",
        ));
    }
    Ok((gathered.finish(), share))
}

/// Reads on for a while and throws away what comes, without holding up the answer.
pub(crate) fn linger(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    let discard = async move {
        let mut discarded = 0;
        while let Some(Ok(data)) = next_data(&mut body).await {
            discarded += data.len();
            if discarded > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    tokio::spawn(tokio::time::timeout(LINGER_TIME_MAX, discard));
}

/// The next bytes; trailers are passed over.
async fn next_data(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Bytes in the making. A body that comes in one piece, as small ones do, is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    /// At most one of the two has anything in it.
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.all.extend_from_slice(&first);
        self.all.extend_from_slice(&data);
    }

    fn finish(self) -> Bytes {
        if self.all.is_empty() {
            self.first
        } else {
            self.all.freeze()
        }
    }
}

fn ended_early(read: usize, announced: Option<u64>, why: &str) -> Problem {
    let of = announced.map_or_else(String::new, |size| format!(" of {size}"));
    Problem::new(
        Kind::BadBody,
        format!("The body ended after {read}{of} bytes ({why}); nothing was stored."),
    )
}

fn stalled(read: usize, idle: Duration) -> Problem {
    Problem::new(
        Kind::BodyStalled,
        format!(
            "Nothing came of the body for {} after {read} bytes; nothing was stored.",
            humantime::format_duration(idle)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    const LIMITS: Limits = Limits {
        value_bytes_max: 8,
        body_bytes_in_flight_max: 12,
        body_idle_max: Duration::from_millis(20),
    };

    fn pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())))
            .collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn kind(mut body: Body) -> Kind {
        let in_flight = InFlight::default();
        let problem = read(&mut body, &LIMITS, &in_flight).await.unwrap_err();
        assert_eq!(in_flight.0.load(Ordering::Relaxed), 0);
        problem.kind()
    }

    #[tokio::test]
    async fn pieces_are_joined() {
        let in_flight = InFlight::default();
        for (given, expected) in [
            (&[][..], &b""[..]),
            (&["12345678"], b"12345678"),
            (&["1", "", "23", "45678"], b"12345678"),
            (&["", "1"], b"1"),
        ] {
            let (bytes, share) = read(&mut pieces(given), &LIMITS, &in_flight).await.unwrap();
            assert_eq!(bytes, expected);
            assert_eq!(in_flight.0.load(Ordering::Relaxed), expected.len());
            drop(share);
            assert_eq!(in_flight.0.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn too_large_announced_or_not() {
        assert_eq!(kind(Body::from("123456789")).await, Kind::TooLarge);
        assert_eq!(kind(pieces(&["1234", "56789"])).await, Kind::TooLarge);
        assert_eq!(kind(pieces(&["123456789"])).await, Kind::TooLarge);
    }

    #[tokio::test]
    async fn broken_and_stalled_bodies() {
        let broken = stream::iter([
            Ok(Bytes::from_static(b"12")),
            Err(std::io::Error::other("gone")),
        ]);
        assert_eq!(kind(Body::from_stream(broken)).await, Kind::BadBody);
        let stalled = stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(kind(Body::from_stream(stalled)).await, Kind::BodyStalled);
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded() {
        let in_flight = InFlight::default();
        let (_, share) = read(&mut pieces(&["1234567"]), &LIMITS, &in_flight)
            .await
            .unwrap();
        let refused = read(&mut pieces(&["1234", "56"]), &LIMITS, &in_flight)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        drop(share);
        assert!(
            read(&mut pieces(&["1234", "56"]), &LIMITS, &in_flight)
                .await
                .is_ok()
        );
    }
}
