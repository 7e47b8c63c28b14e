//! TLS as this project uses it: version 1.3, both sides with certificates, the *ring* provider, no resumption.
//!
//! Sessions are not resumed because a resumed session skips the certificate checks, and connections live long
//! enough that the saved milliseconds do not count.

mod credentials;
mod verify;

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite;
use rustls::sign::SingleCertAndKey;

pub use credentials::{Credentials, CredentialsError};

use crate::identity::{Identity, PeerName};

/// What both sides must offer for a connection to come about: the protocol and its version.
pub const ALPN: &[u8] = b"quorate/1";

/// Whom a dialler means to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// That node and no other.
    Node(u64),
    /// Any node of the dialler's own cluster: for seed addresses, whose node id is not known yet.
    AnyNode,
}

impl Expected {
    /// The name asked for in the handshake. "Any node" has a name of its own that no certificate carries, because
    /// TLS wants one.
    fn server_name(self, cluster: u128) -> String {
        match self {
            Expected::Node(id) => PeerName {
                cluster,
                identity: Identity::Node(id),
            }
            .to_dns()
            .expect("every node id has a name"),
            Expected::AnyNode => format!("any.{cluster:032x}.quorate"),
        }
    }

    /// Whether that party of our cluster is the one meant.
    pub(crate) fn admits(self, identity: &Identity) -> bool {
        match (self, identity) {
            (Expected::Node(id), Identity::Node(found)) => id == *found,
            (Expected::AnyNode, Identity::Node(_)) => true,
            (_, Identity::Client(_)) => false,
        }
    }
}

/// What one dial needs, and what it learned.
pub(crate) struct DialTls {
    pub(crate) config: quinn::ClientConfig,
    pub(crate) server_name: String,
    /// Whom the peer's certificate named, once it was found to be issued by our CA. It tells a wrong node from
    /// a wrong certificate when the handshake fails.
    pub(crate) presented: Arc<OnceLock<PeerName>>,
}

/// *ring*, named explicitly so that no process-wide default matters, with AES-128 first: a quarter cheaper per
/// byte than AES-256 with hardware AES, and not the weakest link of anything here.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// The accepting side: a client certificate of our CA and our cluster is mandatory.
pub(crate) fn node_config(credentials: &Credentials) -> quinn::ServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(Arc::new(verify::AcceptVerifier::new(credentials)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.pair())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let config = QuicServerConfig::try_from(config).expect("AES-128 is among the suites");
    quinn::ServerConfig::with_crypto(Arc::new(config))
}

/// The dialling side, for one dial.
pub(crate) fn dial_config(credentials: &Credentials, expected: Expected) -> DialTls {
    let verifier = verify::DialVerifier::new(credentials, expected);
    let presented = verifier.presented();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous() // The verifier is ours; it leaves the chain to webpki and adds checks, it drops none.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.pair())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let config = QuicClientConfig::try_from(config).expect("AES-128 is among the suites");
    DialTls {
        config: quinn::ClientConfig::new(Arc::new(config)),
        server_name: expected.server_name(credentials.name().cluster),
        presented,
    }
}
