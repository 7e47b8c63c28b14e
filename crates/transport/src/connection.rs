//! An established connection: who is at the other end, frames out, frames in, and how it ended.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::complaints::{Complaints, Kind};
use crate::frame::{Decoder, Violation};
use crate::identity::{Identity, PeerName};
use crate::inbox::{self, Large};
use crate::outbox::{self, Outbox, SendError};
use crate::tuning::Tuning;

/// Codes in which one side tells the other why it closed.
pub(crate) mod code {
    /// Closed in good order.
    pub(crate) const DONE: u32 = 0;
    /// The other side broke the framing rules.
    pub(crate) const VIOLATION: u32 = 1;
    /// The connection was not made use of in time: no preamble came.
    pub(crate) const UNUSED: u32 = 2;
}

/// Complete large frames that wait for the receiver. Small, because the budget in bytes is what counts.
const LARGE_WAITING: usize = 4;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// This side closed it, with these words.
    Local(String),
    /// The peer closed it.
    Peer {
        /// 0 in good order, 1 if we broke the framing rules, 2 if no preamble came in time.
        code: u64,
        /// The peer's words.
        reason: String,
    },
    /// Nothing was heard of the peer for [`Tuning::max_idle`]: it died, hangs, or the network is cut.
    Silent,
    /// The peer broke the framing rules, and this side closed.
    Violation(Violation),
    /// The peer's process no longer knows the connection: it was started anew.
    Restarted,
    /// QUIC itself failed.
    Transport(String),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Local(reason) => write!(f, "closed here: {reason}"),
            CloseReason::Peer { code: 0, reason } => write!(f, "closed by the peer: {reason}"),
            CloseReason::Peer { code, reason } => {
                write!(f, "closed by the peer with code {code}: {reason}")
            }
            CloseReason::Silent => f.write_str("the peer fell silent"),
            CloseReason::Violation(violation) => write!(f, "the peer broke the rules: {violation}"),
            CloseReason::Restarted => f.write_str("the peer was restarted"),
            CloseReason::Transport(reason) => write!(f, "the transport failed: {reason}"),
        }
    }
}

/// What the handles and tasks of one connection share.
pub(crate) struct Link {
    pub(crate) quic: quinn::Connection,
    pub(crate) outbox: Outbox,
    peer: PeerName,
    remote: SocketAddr,
    /// Set before this side closes: QUIC only remembers *that* it was this side.
    ended_here: OnceLock<CloseReason>,
    complaints: Arc<Complaints>,
}

impl Link {
    fn close(&self, close_code: u32, why: CloseReason, words: &str) {
        self.outbox.close();
        // Whoever ended it first knows why: closing again would make quinn forget the peer's reason.
        if self.quic.close_reason().is_none() {
            let _ = self.ended_here.set(why);
            self.quic
                .close(VarInt::from_u32(close_code), words.as_bytes());
        }
    }

    /// Ends the connection of a peer that broke the rules.
    pub(crate) fn violated(&self, violation: Violation) {
        if self.quic.close_reason().is_some() {
            return;
        }
        if let Some(kept_back) =
            self.complaints
                .admit(self.remote.ip(), Kind::Violation, Instant::now())
        {
            tracing::warn!(
                address = %self.remote,
                peer = %self.peer.identity,
                reason = %violation,
                kept_back,
                "closed the connection of a peer that broke the framing rules"
            );
        }
        let words = violation.to_string();
        self.close(code::VIOLATION, CloseReason::Violation(violation), &words);
    }

    fn reason(&self, error: ConnectionError) -> CloseReason {
        match error {
            ConnectionError::LocallyClosed => match self.ended_here.get() {
                Some(reason) => reason.clone(),
                None => CloseReason::Local("the endpoint was closed".into()),
            },
            ConnectionError::ApplicationClosed(close) => CloseReason::Peer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::TimedOut => CloseReason::Silent,
            ConnectionError::Reset => CloseReason::Restarted,
            other => CloseReason::Transport(other.to_string()),
        }
    }
}

/// What both sides have once the handshake is over and the preambles were exchanged.
pub(crate) struct Established {
    pub(crate) quic: quinn::Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) peer: PeerName,
    /// The largest frame the peer takes.
    pub(crate) peer_max_frame: u32,
}

/// A connection to a verified peer. Split it to send and receive in different places.
///
/// Dropping it closes it.
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
}

impl Connection {
    /// Starts the two tasks of a connection. They end when it does.
    pub(crate) fn start(
        established: Established,
        complaints: Arc<Complaints>,
        tuning: &Tuning,
    ) -> Self {
        let Established {
            quic,
            send,
            recv,
            peer,
            peer_max_frame,
        } = established;
        let remote = canonical(quic.remote_address());
        let link = Arc::new(Link {
            outbox: Outbox::new(tuning.max_queued, peer_max_frame),
            quic,
            peer,
            remote,
            ended_here: OnceLock::new(),
            complaints,
        });
        let _ = send.set_priority(outbox::SMALL_PRIORITY);
        let (large_tx, large) = mpsc::channel(LARGE_WAITING);
        tokio::spawn(inbox::read(link.clone(), large_tx, tuning.clone()));
        tokio::spawn({
            let (link, tuning) = (link.clone(), tuning.clone());
            async move {
                outbox::write(link.clone(), send, &tuning).await;
                // Reached when the outbox was finished and all is acknowledged, or when the connection is gone.
                link.close(
                    code::DONE,
                    CloseReason::Local("finished".into()),
                    "finished",
                );
            }
        });
        let decoder = Decoder::new(tuning.max_frame_u32());
        Connection {
            sender: Sender { link: link.clone() },
            receiver: Receiver {
                link,
                stream: Some(recv),
                decoder,
                large,
            },
        }
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send(&self, frame: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(frame)
    }

    /// See [`Receiver::recv`].
    pub async fn recv(&mut self) -> Option<Vec<Bytes>> {
        self.receiver.recv().await
    }

    /// A handle to send with. It can be cloned and outlive this value, but does not keep the connection open.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Both halves. The connection lives as long as the [`Receiver`].
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Who is at the other end, by a certificate of our CA and our cluster.
    #[must_use]
    pub fn peer(&self) -> &Identity {
        self.sender.peer()
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.sender.remote_address()
    }

    /// See [`Sender::closed`].
    pub async fn closed(&self) -> CloseReason {
        self.sender.closed().await
    }

    /// See [`Sender::close`].
    pub fn close(&self, reason: &str) {
        self.sender.close(reason);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection")
            .field(self.peer())
            .field(&self.remote_address())
            .finish()
    }
}

/// The sending half: cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Sender {
    link: Arc<Link>,
}

impl Sender {
    /// Queues a frame and returns at once. Frames queued before the runtime next polls the connection's writer
    /// leave together. Frames up to [`INLINE_MAX`](crate::INLINE_MAX) bytes arrive in order among themselves;
    /// larger ones may be overtaken and may overtake.
    ///
    /// `Ok` means queued, not delivered: what was queued when the connection ends is lost or not, and nobody
    /// knows which.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing of the frame was sent then.
    pub fn send(&self, frame: impl Into<Bytes>) -> Result<(), SendError> {
        self.link.outbox.push(frame.into())
    }

    /// Bytes queued that QUIC has not taken yet: a measure of how far the peer is behind.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.link.outbox.waiting()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Identity {
        &self.link.peer.identity
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.link.remote
    }

    /// The smoothed round-trip time as QUIC measured it.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.link.quic.rtt()
    }

    /// Whether the connection has ended; `send` says `Closed` then.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.quic.close_reason().is_some()
    }

    /// Waits for the connection's end and says how it ended. At once if it has ended.
    pub async fn closed(&self) -> CloseReason {
        let error = self.link.quic.closed().await;
        self.link.reason(error)
    }

    /// Closes the connection at once. What waits is not sent; the peer learns the reason.
    pub fn close(&self, reason: &str) {
        self.link
            .close(code::DONE, CloseReason::Local(reason.to_owned()), reason);
    }

    /// Sends what is queued, waits for the peer to acknowledge it, and closes; closes anyway after `within`.
    /// From the call on, `send` says `Closed`. The peer's receiver still gets everything before its end.
    pub async fn finish(&self, within: Duration) -> CloseReason {
        self.link.outbox.finish();
        match tokio::time::timeout(within, self.closed()).await {
            Ok(reason) => reason,
            Err(_) => {
                self.close("not everything could be sent in time");
                self.closed().await
            }
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender")
            .field(self.peer())
            .field(&self.remote_address())
            .finish()
    }
}

/// The receiving half. Dropping it closes the connection: nobody would read what the peer sends.
pub struct Receiver {
    link: Arc<Link>,
    /// The stream of small frames, until its end.
    stream: Option<RecvStream>,
    decoder: Decoder,
    large: mpsc::Receiver<Large>,
}

impl Receiver {
    /// All frames that one read brought, at least one; `None` when no more will come
    /// ([`Sender::closed`] says why). Handle the whole batch before waiting again, so that the answers leave
    /// together. Not calling it slows the peer down, and keeps no others from their work.
    ///
    /// Small frames of a batch share memory of up to 64 KiB or so: copy what is to be kept for long.
    /// Cancelling the future loses nothing.
    pub async fn recv(&mut self) -> Option<Vec<Bytes>> {
        loop {
            let Some(stream) = &mut self.stream else {
                // Large frames may still be complete, or be completed until the peer closes.
                return self.large.recv().await.map(|large| vec![large.body]);
            };
            tokio::select! {
                biased;
                read = stream.read_buf(self.decoder.space()) => match read {
                    // A reset or lost connection ends the stream like an end of file; `closed` tells them apart.
                    Err(_) => self.stream = None,
                    Ok(0) if self.decoder.is_at_boundary() => self.stream = None,
                    Ok(0) => {
                        self.link.violated(Violation::Truncated);
                        self.stream = None;
                    }
                    Ok(_) => {
                        let batch = self.batch();
                        if !batch.is_empty() {
                            return Some(batch);
                        }
                    }
                },
                Some(large) = self.large.recv() => return Some(vec![large.body]),
            }
        }
    }

    /// Everything complete: small frames first, then large ones, so that a steady flow of small frames starves
    /// no large one.
    fn batch(&mut self) -> Vec<Bytes> {
        let mut frames = Vec::new();
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(violation) => {
                    self.link.violated(violation);
                    self.stream = None;
                    break;
                }
            }
        }
        while let Ok(large) = self.large.try_recv() {
            frames.push(large.body);
        }
        frames
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.link.close(
            code::DONE,
            CloseReason::Local("the receiver was dropped".into()),
            "no longer needed",
        );
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver")
            .field(&self.link.peer.identity)
            .field(&self.link.remote)
            .finish()
    }
}

/// A dual-stack socket sees IPv4 peers as `::ffff:a.b.c.d`; people know them as `a.b.c.d`.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
