//! What the tests share: a cluster's certificates, and peers that do not keep to the rules.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quorate_transport::{
    Acceptor, Authority, Connection, Credentials, Endpoint, Expected, Identity, Tuning,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use time::OffsetDateTime;

pub const CLUSTER: u128 = 0x00c0_ffee;
pub const DAY: Duration = Duration::from_secs(86_400);

/// Runs a test on one thread, as a node would, and ends it if it hangs.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(within(Duration::from_secs(20), test))
}

pub async fn within<F: Future>(limit: Duration, future: F) -> F::Output {
    tokio::time::timeout(limit, future)
        .await
        .expect("the test takes too long")
}

/// For tests of anything but liveness: on a crowded machine a test's thread may well stand still for a second.
pub fn calm() -> Tuning {
    Tuning {
        max_idle: Duration::from_secs(15),
        handshake_timeout: Duration::from_secs(15),
        ..Tuning::default()
    }
}

pub fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn credentials(authority: &Authority, identity: Identity) -> Credentials {
    let issued = authority.issue(&identity, DAY).unwrap();
    Credentials::from_pem(
        authority.certificate_pem(),
        &issued.certificate_pem,
        &issued.key_pem,
    )
    .unwrap()
}

pub fn client() -> Identity {
    Identity::Client("test".into())
}

/// Node 1 and a client's endpoint.
pub struct Pair {
    pub authority: Authority,
    pub node: Endpoint,
    pub acceptor: Acceptor,
    pub dialler: Endpoint,
}

pub fn pair(tuning: Tuning) -> Pair {
    let authority = Authority::create(CLUSTER).unwrap();
    let node = credentials(&authority, Identity::Node(1));
    let (node, acceptor) = Endpoint::bind(any(), &node, tuning.clone()).unwrap();
    let dialler = Endpoint::dialler(&credentials(&authority, client()), tuning).unwrap();
    Pair {
        authority,
        node,
        acceptor,
        dialler,
    }
}

impl Pair {
    /// The client's end and the node's end of a new connection.
    pub async fn connect(&mut self) -> (Connection, Connection) {
        let address = self.node.local_addr();
        let (dialled, accepted) = tokio::join!(
            self.dialler.dial(address, Expected::Node(1)),
            self.acceptor.accept()
        );
        (dialled.unwrap(), accepted.unwrap())
    }

    /// Whether a bystander's connection still works.
    pub async fn works(near: &mut Connection, far: &mut Connection) {
        near.send("ping").unwrap();
        assert_eq!(far.recv().await.unwrap(), ["ping"]);
        far.send("pong").unwrap();
        assert_eq!(near.recv().await.unwrap(), ["pong"]);
    }
}

/// A certificate with any names and dates, which the authority itself would not issue.
pub struct Forged {
    pub certificate_pem: String,
    pub key_pem: String,
}

pub fn forge(
    authority: &Authority,
    names: &[String],
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Forged {
    let ca_key = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(authority.certificate_pem(), ca_key).unwrap();
    let mut params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
    params.not_before = from;
    params.not_after = until;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Forged {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    }
}

pub fn hours(hours: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::hours(hours)
}

pub fn node_name(id: u64, cluster: u128) -> String {
    format!("n-{id:016x}.{cluster:032x}.quorate")
}

fn der(
    certificate_pem: &str,
    key_pem: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
    (
        vec![certificate],
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap(),
    )
}

/// A QUIC client without manners: it believes every server, and shows what it is given.
pub fn raw_client(shown: Option<(&str, &str)>, alpn: &[u8]) -> quinn::Endpoint {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match shown {
        Some((certificate, key)) => {
            let (chain, key) = der(certificate, key);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let mut endpoint = quinn::Endpoint::client(any()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

pub const ALPN: &[u8] = b"quorate/1";

/// Dials with a raw client, and gives the words with which the node refused.
pub async fn refused(pair: &Pair, shown: Option<(&str, &str)>, alpn: &[u8]) -> String {
    let raw = raw_client(shown, alpn);
    match raw
        .connect(pair.node.local_addr(), "any.quorate")
        .unwrap()
        .await
    {
        // TLS 1.3: the dialler's handshake is over before the acceptor has seen its certificate.
        Ok(connection) => connection.closed().await.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A QUIC server that asks for no certificate and shows this one.
pub fn raw_server(certificate_pem: &str, key_pem: &str, alpn: &[u8]) -> quinn::Endpoint {
    let (chain, key) = der(certificate_pem, key_pem);
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    quinn::Endpoint::server(config, any()).unwrap()
}

/// Lets a raw server answer for as long as the runtime lives.
pub fn serve(server: quinn::Endpoint) -> SocketAddr {
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await?;
                connection.closed().await;
                Ok::<_, quinn::ConnectionError>(())
            });
        }
    });
    address
}

/// A connection of a raw client with a good certificate, beyond the handshake and the preambles.
pub async fn raw_peer(
    pair: &mut Pair,
) -> (
    quinn::Connection,
    quinn::SendStream,
    quinn::RecvStream,
    Connection,
) {
    let issued = pair.authority.issue(&client(), DAY).unwrap();
    let raw = raw_client(
        Some((&issued.certificate_pem, &issued.key_pem)),
        b"quorate/1",
    );
    let address = pair.node.local_addr();
    let dial = async {
        let connection = raw.connect(address, "any.quorate").unwrap().await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(b"QRTE\x08\x00\x00\x00").await.unwrap();
        let mut preamble = [0; 8];
        recv.read_exact(&mut preamble).await.unwrap();
        assert_eq!(preamble, *b"QRTE\x08\x00\x00\x00");
        (connection, send, recv)
    };
    let ((connection, send, recv), accepted) = tokio::join!(dial, pair.acceptor.accept());
    (connection, send, recv, accepted.unwrap())
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
