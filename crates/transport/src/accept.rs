//! Taking connections: every handshake is a task of its own, so that a slow or hostile caller holds up nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn::Incoming;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::complaints::{Complaints, Kind};
use crate::connection::{Connection, Established, canonical, code};
use crate::dial::explain_to_acceptor;
use crate::endpoint::Shared;
use crate::frame;
use crate::identity::PeerName;
use crate::tuning::Tuning;

/// Connections whose handshake is over and that wait for [`Acceptor::accept`]. When as many wait, further
/// handshakes count against the bound on handshakes, and then callers are turned away.
const READY_MAX: usize = 64;

/// Yields the connections that peers open. Dropping it makes the endpoint turn new callers away, at once and with
/// a word, while connections that exist live on: the first step of a shutdown.
pub struct Acceptor {
    ready: mpsc::Receiver<Connection>,
    /// Keeps the endpoint open.
    _shared: Arc<Shared>,
}

impl Acceptor {
    pub(crate) fn new(ready: mpsc::Receiver<Connection>, shared: Arc<Shared>) -> Self {
        Acceptor {
            ready,
            _shared: shared,
        }
    }

    /// The next connection with a verified peer; `None` once the endpoint is closed. Cancelling loses nothing.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.ready.recv().await
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

pub(crate) fn channel() -> (mpsc::Sender<Connection>, mpsc::Receiver<Connection>) {
    mpsc::channel(READY_MAX)
}

/// Takes callers until the endpoint is closed.
pub(crate) async fn run(
    endpoint: quinn::Endpoint,
    ready: mpsc::Sender<Connection>,
    complaints: Arc<Complaints>,
    tuning: Tuning,
) {
    let slots = Arc::new(Semaphore::new(tuning.max_handshakes));
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while handshakes.try_join_next().is_some() {}
        if ready.is_closed() {
            incoming.refuse();
            continue;
        }
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        // Under pressure a caller must prove first that it can receive at its address; that costs it a round
        // trip and us nothing, and forged addresses never get as far as a signature.
        let crowded = slots.available_permits() < tuning.max_handshakes / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let (ready, complaints, tuning) = (ready.clone(), complaints.clone(), tuning.clone());
        handshakes.spawn(async move {
            let address = canonical(incoming.remote_address());
            match handshake(incoming, &tuning).await {
                Ok(established) => {
                    let connection = Connection::start(established, complaints, &tuning);
                    tracing::debug!(%address, peer = %connection.peer(), "a peer connected");
                    // An acceptor that was dropped meanwhile drops the connection too, which closes it.
                    let _ = ready.send(connection).await;
                }
                Err(reason) => complain(&complaints, address, &reason),
            }
            drop(slot);
        });
    }
}

async fn handshake(incoming: Incoming, tuning: &Tuning) -> Result<Established, String> {
    let deadline = tokio::time::Instant::now() + tuning.handshake_timeout;
    let connecting = incoming
        .accept()
        .map_err(|error| explain_to_acceptor(&error))?;
    let quic = tokio::time::timeout_at(deadline, connecting)
        .await
        .map_err(|_| "it did not finish the handshake in time".to_owned())?
        .map_err(|error| explain_to_acceptor(&error))?;
    let greeted = tokio::time::timeout_at(deadline, greet(&quic, tuning))
        .await
        .unwrap_or_else(|_| Err("no preamble came in time".into()));
    match greeted {
        Ok((send, recv, peer, peer_max_frame)) => Ok(Established {
            quic,
            send,
            recv,
            peer,
            peer_max_frame,
        }),
        Err(reason) => {
            quic.close(code::UNUSED.into(), reason.as_bytes());
            Err(reason)
        }
    }
}

async fn greet(
    quic: &quinn::Connection,
    tuning: &Tuning,
) -> Result<(quinn::SendStream, quinn::RecvStream, PeerName, u32), String> {
    let certificates = quic.peer_identity().and_then(|identity| {
        identity
            .downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>()
            .ok()
    });
    let leaf = certificates
        .as_ref()
        .and_then(|chain| chain.first())
        .ok_or("it showed no certificate")?;
    // The handshake has verified this certificate; here it is only read once more.
    let peer = PeerName::from_certificate(leaf).map_err(|error| error.to_string())?;

    let (mut send, mut recv) = quic
        .accept_bi()
        .await
        .map_err(|error| explain_to_acceptor(&error))?;
    let mut preamble = [0; frame::PREAMBLE];
    recv.read_exact(&mut preamble)
        .await
        .map_err(|error| error.to_string())?;
    let peer_max_frame = frame::read_preamble(&preamble).map_err(|error| error.to_string())?;
    send.write_all(&frame::preamble(tuning.max_frame_u32()))
        .await
        .map_err(|error| error.to_string())?;
    Ok((send, recv, peer, peer_max_frame))
}

fn complain(complaints: &Complaints, address: SocketAddr, reason: &str) {
    if let Some(kept_back) = complaints.admit(address.ip(), Kind::Handshake, Instant::now()) {
        tracing::warn!(%address, reason, kept_back, "a peer could not connect");
    }
}
