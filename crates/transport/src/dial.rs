//! One dial: handshake, preamble, and a failure that says who refused whom, and why.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectError, ConnectionError, TransportErrorCode};

use crate::complaints::Complaints;
use crate::connection::{Connection, Established};
use crate::frame;
use crate::identity::PeerName;
use crate::tls::{self, Credentials, Expected};
use crate::tuning::{End, Tuning};

/// Why a dial came to nothing. No frame was sent in any case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time: nothing listens there, the network is cut, or a firewall drops UDP.
    #[error(
        "{address} did not answer within {within:?}: is a node running there, and does UDP get through?"
    )]
    Unreachable {
        /// The address dialled.
        address: SocketAddr,
        /// How long it was waited.
        within: Duration,
    },
    /// The node takes no new connections now: too many handshakes at once, or it is shutting down. Try later.
    #[error("{address} takes no new connections at the moment")]
    Busy {
        /// The address dialled.
        address: SocketAddr,
    },
    /// We refused the certificate of whoever answered.
    #[error("the certificate of {address} was refused here: {reason}")]
    PeerCertificate {
        /// The address dialled.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The other side refused our certificate.
    #[error("{address} refused our certificate: {reason}")]
    OurCertificate {
        /// The address dialled.
        address: SocketAddr,
        /// What the other side said.
        reason: String,
    },
    /// The other side speaks another version of the protocol, or another protocol.
    #[error(
        "{address} does not speak our protocol version ({ours}): are both built from compatible releases?"
    )]
    Version {
        /// The address dialled.
        address: SocketAddr,
        /// What we offered.
        ours: String,
    },
    /// A party with a certificate of our CA answered, but not the one that was meant.
    #[error(
        "{address} is {found}, and not the node that was meant: has the address been given to another node?"
    )]
    WrongIdentity {
        /// The address dialled.
        address: SocketAddr,
        /// Who answered.
        found: PeerName,
    },
    /// What answered broke off in another way, or is not one of ours at all.
    #[error("the handshake with {address} failed: {reason}")]
    Handshake {
        /// The address dialled.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The dial could not even begin.
    #[error("cannot dial {address} from here: {reason}")]
    Local {
        /// The address to be dialled.
        address: SocketAddr,
        /// What stands in the way.
        reason: String,
    },
}

pub(crate) async fn dial(
    endpoint: &quinn::Endpoint,
    credentials: &Credentials,
    tuning: &Tuning,
    complaints: Arc<Complaints>,
    address: SocketAddr,
    expected: Expected,
) -> Result<Connection, DialError> {
    let mut tls = tls::dial_config(credentials, expected);
    tls.config.transport_config(tuning.transport(End::Dialler));
    let connecting = endpoint
        .connect_with(tls.config, address, &tls.server_name)
        .map_err(|error| cannot_begin(address, &error))?;

    let conversation = async {
        let quic = connecting.await?;
        let (mut send, mut recv) = quic.open_bi().await?;
        send.write_all(&frame::preamble(tuning.max_frame_u32()))
            .await
            .map_err(Failure::write)?;
        let mut preamble = [0; frame::PREAMBLE];
        recv.read_exact(&mut preamble)
            .await
            .map_err(Failure::read)?;
        let peer_max_frame =
            frame::read_preamble(&preamble).map_err(|error| Failure::Other(error.to_string()))?;
        let peer = tls
            .presented
            .get()
            .cloned()
            .ok_or(Failure::Other("it showed no certificate".into()))?;
        Ok(Established {
            quic,
            send,
            recv,
            peer,
            peer_max_frame,
        })
    };
    match tokio::time::timeout(tuning.handshake_timeout, conversation).await {
        Ok(Ok(established)) => Ok(Connection::start(established, complaints, tuning)),
        Ok(Err(Failure::Other(reason))) => Err(DialError::Handshake { address, reason }),
        Ok(Err(Failure::Connection(error))) => {
            Err(explain(address, &error, tls.presented.get(), tuning))
        }
        Err(_) => Err(DialError::Unreachable {
            address,
            within: tuning.handshake_timeout,
        }),
    }
}

enum Failure {
    Connection(ConnectionError),
    Other(String),
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Failure::Connection(error)
    }
}

impl Failure {
    fn write(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => Failure::Connection(error),
            other => Failure::Other(other.to_string()),
        }
    }

    fn read(error: quinn::ReadExactError) -> Self {
        match error {
            quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
                Failure::Connection(error)
            }
            other => Failure::Other(other.to_string()),
        }
    }
}

fn cannot_begin(address: SocketAddr, error: &ConnectError) -> DialError {
    let reason = match error {
        ConnectError::EndpointStopping => "the endpoint is closed".into(),
        ConnectError::InvalidRemoteAddress(_) => {
            "the address has port 0, or is of a family (IPv4, IPv6) that this endpoint is not bound to".into()
        }
        other => other.to_string(),
    };
    DialError::Local { address, reason }
}

/// `wrong` is who answered, if its certificate was issued by our CA and names somebody we did not mean.
/// `ConnectionError` cannot carry that, hence the side channel.
fn explain(
    address: SocketAddr,
    error: &ConnectionError,
    wrong: Option<&PeerName>,
    tuning: &Tuning,
) -> DialError {
    let version = || DialError::Version {
        address,
        ours: String::from_utf8_lossy(tls::ALPN).into_owned(),
    };
    match error {
        ConnectionError::TimedOut => DialError::Unreachable {
            address,
            within: tuning.max_idle,
        },
        ConnectionError::VersionMismatch => version(),
        ConnectionError::LocallyClosed => DialError::Local {
            address,
            reason: "the endpoint is closed".into(),
        },
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            DialError::Busy { address }
        }
        ConnectionError::ConnectionClosed(close) => {
            let words = String::from_utf8_lossy(&close.reason);
            match alert(close.error_code) {
                Some(NO_APPLICATION_PROTOCOL) => version(),
                Some(code) if is_about_certificate(code) => DialError::OurCertificate {
                    address,
                    reason: describe(code, &words),
                },
                _ => DialError::Handshake {
                    address,
                    reason: error.to_string(),
                },
            }
        }
        ConnectionError::TransportError(local) => match (alert(local.code), wrong) {
            (Some(NO_APPLICATION_PROTOCOL), _) => version(),
            (Some(_), Some(found)) => DialError::WrongIdentity {
                address,
                found: found.clone(),
            },
            (Some(code), None) if is_about_certificate(code) => DialError::PeerCertificate {
                address,
                reason: describe(code, &local.reason),
            },
            _ => DialError::Handshake {
                address,
                reason: local.reason.clone(),
            },
        },
        other => DialError::Handshake {
            address,
            reason: other.to_string(),
        },
    }
}

/// TLS alert numbers, RFC 8446 section 6.
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The TLS alert within a QUIC error code: they are mapped to 0x100 and up (RFC 9001 section 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200)
        .contains(&code)
        .then_some((code & 0xff) as u8)
}

fn is_about_certificate(alert: u8) -> bool {
    // 42 to 49 are bad_certificate up to access_denied, all about certificates.
    matches!(
        alert,
        42..=46 | UNKNOWN_CA | 49 | DECRYPT_ERROR | CERTIFICATE_REQUIRED
    )
}

/// A TLS alert in words, with the library's detail behind it where it adds something.
fn describe(alert: u8, detail: &str) -> String {
    let detail = detail
        .strip_prefix("invalid peer certificate: ")
        .unwrap_or(detail);
    match alert {
        UNKNOWN_CA => "it was issued by another CA than the cluster's".into(),
        // The library's text counts seconds since 1970.
        CERTIFICATE_EXPIRED => "it has expired or is not valid yet (or a clock is wrong)".into(),
        CERTIFICATE_REQUIRED => "no certificate was shown".into(),
        DECRYPT_ERROR => format!("its signature is wrong: another CA of the same name? ({detail})"),
        NO_APPLICATION_PROTOCOL => "no common protocol version was offered".into(),
        _ if detail.is_empty() => format!("TLS alert {alert}"),
        _ => detail.to_owned(),
    }
}

/// The acceptor's view of a handshake that failed, in words for its log.
pub(crate) fn explain_to_acceptor(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(local) => match alert(local.code) {
            Some(code) if is_about_certificate(code) => {
                format!(
                    "its certificate was refused here: {}",
                    describe(code, &local.reason)
                )
            }
            Some(NO_APPLICATION_PROTOCOL) => format!(
                "it does not speak our protocol version ({})",
                String::from_utf8_lossy(tls::ALPN)
            ),
            _ => local.reason.clone(),
        },
        ConnectionError::ConnectionClosed(close) => {
            let words = String::from_utf8_lossy(&close.reason);
            match alert(close.error_code) {
                Some(code) if is_about_certificate(code) => {
                    format!("it refused our certificate: {}", describe(code, &words))
                }
                Some(code) => format!("it broke off: {}", describe(code, &words)),
                None => format!("it broke off: {error}"),
            }
        }
        ConnectionError::TimedOut => "it fell silent during the handshake".into(),
        ConnectionError::VersionMismatch => "it does not speak our version of QUIC".into(),
        other => other.to_string(),
    }
}
