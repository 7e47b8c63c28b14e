//! Certificate checks of both sides. The chain (issuer, signature, dates, purpose) is webpki's; what is added is
//! that the certificate must name a party of *our* cluster, and for a dialler the node it meant.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Credentials, Expected, provider};
use crate::identity::PeerName;

/// Our own reason against a certificate. The text travels to the peer in the close reason, so that its log says
/// the same as ours.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn refuse(reason: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refusal(
        reason,
    )))))
}

fn name_of(certificate: &CertificateDer<'_>) -> Result<PeerName, Error> {
    PeerName::from_certificate(certificate).map_err(|error| refuse(error.to_string()))
}

/// What a dialler holds against the certificate of whoever answers.
#[derive(Debug)]
pub(super) struct DialVerifier {
    chain: Arc<WebPkiServerVerifier>,
    cluster: u128,
    expected: Expected,
    presented: Arc<OnceLock<PeerName>>,
}

impl DialVerifier {
    pub(super) fn new(credentials: &Credentials, expected: Expected) -> Self {
        let chain = WebPkiServerVerifier::builder_with_provider(credentials.roots(), provider())
            .build()
            .expect("credentials hold at least one CA");
        DialVerifier {
            chain,
            cluster: credentials.name().cluster,
            expected,
            presented: Arc::default(),
        }
    }

    pub(super) fn presented(&self) -> Arc<OnceLock<PeerName>> {
        self.presented.clone()
    }
}

impl ServerCertVerifier for DialVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The chain is verified for the name that the certificate itself claims; whether that is the name we
        // wanted is our own comparison below, because "any node" is not a name.
        let name = name_of(end_entity)?;
        let dns = name.to_dns().map_err(|error| refuse(error.to_string()))?;
        let own_name = ServerName::try_from(dns).map_err(|error| refuse(error.to_string()))?;
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            &own_name,
            ocsp_response,
            now,
        )?;

        let admitted = name.cluster == self.cluster && self.expected.admits(&name.identity);
        let found = self.presented.get_or_init(|| name);
        if admitted {
            return Ok(verified);
        }
        let wanted = match self.expected {
            Expected::Node(id) => format!("node {id}"),
            Expected::AnyNode => "any node".into(),
        };
        Err(refuse(format!(
            "the certificate names {found}, where {wanted} of cluster {:032x} was expected",
            self.cluster
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// What an acceptor holds against the certificate of whoever dials.
#[derive(Debug)]
pub(super) struct AcceptVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: u128,
}

impl AcceptVerifier {
    pub(super) fn new(credentials: &Credentials) -> Self {
        AcceptVerifier {
            chain: client_chain(credentials.roots()),
            cluster: credentials.name().cluster,
        }
    }
}

/// webpki's check of a certificate that its holder dials with.
pub(super) fn client_chain(roots: Arc<rustls::RootCertStore>) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .expect("credentials hold at least one CA")
}

impl ClientCertVerifier for AcceptVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let name = name_of(end_entity)?;
        if name.cluster != self.cluster {
            let ours = self.cluster;
            return Err(refuse(format!(
                "the certificate names {name}, and this is cluster {ours:032x}"
            )));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
