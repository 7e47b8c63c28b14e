//! A UDP port with an identity: connections are dialled from it and, on a node, accepted at it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use tokio::task::AbortHandle;

use crate::accept::{self, Acceptor};
use crate::complaints::Complaints;
use crate::connection::{Connection, canonical, code};
use crate::dial::{self, DialError};
use crate::identity::Identity;
use crate::socket;
use crate::tls::{self, Credentials, Expected};
use crate::tuning::{End, Tuning};

/// Callers that may wait to be looked at. Each is one datagram, and they are looked at as soon as they come.
const INCOMING_MAX: usize = 256;

/// Bytes that may wait for one such caller, and for all of them. A handshake's first flight is a few datagrams.
const INCOMING_BYTES: u64 = 64 * 1024;

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "UDP {0} is in use already: stop the process that holds it (`ss -ulpn` names it), or configure another port"
    )]
    InUse(SocketAddr),
    /// The operating system refused for another reason.
    #[error("cannot bind UDP {address}: {source}")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Only nodes accept connections.
    #[error(
        "connections cannot be accepted with a certificate of {0}: a node's certificate is needed"
    )]
    NotANode(Identity),
}

/// What the endpoint's handles share. When the last one goes nothing is accepted or dialled any more, while
/// connections live on until they are closed or dropped.
pub(crate) struct Shared {
    quic: quinn::Endpoint,
    credentials: Credentials,
    tuning: Tuning,
    complaints: Arc<Complaints>,
    accepting: Option<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The accepting task holds the QUIC endpoint open and would never end by itself.
        if let Some(task) = &self.accepting {
            task.abort();
        }
    }
}

/// A handle to an open endpoint; cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

impl Endpoint {
    /// Opens a node's endpoint, which accepts and dials. Port 0 lets the system choose
    /// ([`Endpoint::local_addr`] tells); `[::]` serves IPv4 too where the system allows it.
    ///
    /// Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        tuning: Tuning,
    ) -> Result<(Self, Acceptor), BindError> {
        if let client @ Identity::Client(_) = &credentials.name().identity {
            return Err(BindError::NotANode(client.clone()));
        }
        let mut server = tls::node_config(credentials);
        server
            .transport_config(tuning.transport(End::Acceptor))
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES * 64);
        let quic = open(address, Some(server), &tuning)?;

        let complaints = Arc::new(Complaints::default());
        let (ready_tx, ready) = accept::channel();
        let task = tokio::spawn(accept::run(
            quic.clone(),
            ready_tx,
            complaints.clone(),
            tuning.clone(),
        ));
        let accepting = Some(task.abort_handle());
        let credentials = credentials.clone();
        let shared = Arc::new(Shared {
            quic,
            credentials,
            tuning,
            complaints,
            accepting,
        });
        Ok((
            Endpoint {
                shared: shared.clone(),
            },
            Acceptor::new(ready, shared),
        ))
    }

    /// Opens an endpoint that only dials, on a port of the system's choice, towards IPv4 and IPv6 alike.
    ///
    /// Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn dialler(credentials: &Credentials, tuning: Tuning) -> Result<Self, BindError> {
        // A system without IPv6 refuses the first; then IPv4 alone it is.
        let quic = open((Ipv6Addr::UNSPECIFIED, 0).into(), None, &tuning)
            .or_else(|_| open((Ipv4Addr::UNSPECIFIED, 0).into(), None, &tuning))?;
        let shared = Shared {
            quic,
            credentials: credentials.clone(),
            tuning,
            complaints: Arc::default(),
            accepting: None,
        };
        Ok(Endpoint {
            shared: Arc::new(shared),
        })
    }

    /// The address the endpoint is bound to.
    ///
    /// # Panics
    ///
    /// If the operating system does not know its own socket.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        canonical(
            self.shared
                .quic
                .local_addr()
                .expect("a bound socket has an address"),
        )
    }

    /// Whom this endpoint speaks for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.credentials.name().identity
    }

    /// Opens a connection to a node. It is established when this returns: both certificates were checked on both
    /// sides. Takes one round trip more than the QUIC handshake, at most [`Tuning::handshake_timeout`], and
    /// [`Tuning::max_idle`] where nobody answers.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn dial(
        &self,
        address: SocketAddr,
        expected: Expected,
    ) -> Result<Connection, DialError> {
        let Shared {
            quic,
            credentials,
            tuning,
            complaints,
            ..
        } = &*self.shared;
        dial::dial(
            quic,
            credentials,
            tuning,
            complaints.clone(),
            address,
            expected,
        )
        .await
    }

    /// Closes all connections at once, telling the peers why, and the endpoint for good: `accept` then yields
    /// `None` and `dial` fails. What was queued is not sent; see [`Sender::finish`](crate::Sender::finish).
    pub fn close(&self, reason: &str) {
        self.shared
            .quic
            .close(VarInt::from_u32(code::DONE), reason.as_bytes());
    }

    /// Waits until peers have been told of everything that was closed, `within` at most. Without it a process
    /// that ends right after [`Endpoint::close`] leaves its peers to find out by its silence.
    pub async fn wait_idle(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.shared.quic.wait_idle()).await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint")
            .field(self.identity())
            .field(&self.local_addr())
            .finish()
    }
}

fn open(
    address: SocketAddr,
    server: Option<quinn::ServerConfig>,
    tuning: &Tuning,
) -> Result<quinn::Endpoint, BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::Io { address, source },
    };
    let socket = socket::bind(address, tuning.socket_buffer).map_err(failed)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).map_err(failed)
}
