//! Who a certificate speaks for.
//!
//! An identity is carried as a DNS name among the certificate's subject alternative names, because every TLS
//! library can already check those:
//!
//! ```text
//!   n-0000000000000001.0123456789abcdef0123456789abcdef.quorate      node 1 of a cluster
//!   c-importer.0123456789abcdef0123456789abcdef.quorate              the client "importer" of that cluster
//! ```
//!
//! The form is strict: lower case, all digits written, nothing before or behind. A certificate with no such name
//! speaks for nobody, and one with two would let its holder choose: both are refused.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The last label of every name, which is what marks a name as ours.
const SUFFIX: &str = ".quorate";

/// The longest client name in bytes: with `c-` in front it stays below the 63 bytes of a DNS label.
pub const CLIENT_NAME_MAX: usize = 40;

/// A party within a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// A node, by its id in the layout.
    Node(u64),
    /// A client, by a name of 1 to [`CLIENT_NAME_MAX`] bytes out of `a-z`, `0-9` and `-`, not ending in `-`.
    Client(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node(id) => write!(f, "node {id}"),
            Identity::Client(name) => write!(f, "client \"{name}\""),
        }
    }
}

/// Both halves of what a certificate says: which cluster, and who in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerName {
    /// The cluster's id, drawn when the cluster was made.
    pub cluster: u128,
    /// The party within that cluster.
    pub identity: Identity,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster {:032x}", self.identity, self.cluster)
    }
}

/// Why a name or a certificate carries no usable identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text is not of the form described in the module's documentation.
    #[error(
        "\"{0}\" is not a name of the form n-<16 hex>.<32 hex>.quorate or c-<name>.<32 hex>.quorate"
    )]
    Malformed(String),
    /// A client name that is empty, too long, or uses other characters.
    #[error(
        "\"{0}\" is no client name: 1 to {CLIENT_NAME_MAX} of a-z, 0-9 and '-', not ending in '-'"
    )]
    ClientName(String),
    /// The bytes are not an X.509 certificate.
    #[error("not a readable X.509 certificate: {0}")]
    Unreadable(String),
    /// The certificate names nobody of a Quorate cluster.
    #[error("the certificate carries no Quorate name (a DNS name ending in .quorate)")]
    Nobody,
    /// The certificate names more than one party.
    #[error("the certificate carries {0} Quorate names, and must carry exactly one")]
    Several(usize),
}

impl PeerName {
    /// The name as it stands in a certificate.
    ///
    /// # Errors
    ///
    /// [`IdentityError::ClientName`] if the identity is a client whose name breaks the rules.
    pub fn to_dns(&self) -> Result<String, IdentityError> {
        match &self.identity {
            Identity::Node(id) => Ok(format!("n-{id:016x}.{:032x}{SUFFIX}", self.cluster)),
            Identity::Client(name) if is_client_name(name) => {
                Ok(format!("c-{name}.{:032x}{SUFFIX}", self.cluster))
            }
            Identity::Client(name) => Err(IdentityError::ClientName(name.clone())),
        }
    }

    /// Reads the one identity out of a certificate. Nothing about the certificate is verified here: that is the
    /// work of the TLS handshake.
    ///
    /// # Errors
    ///
    /// Any [`IdentityError`]: unreadable, no such name, several, or one that is malformed.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(IdentityError::Unreadable("bytes behind its end".into()));
        }
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let ours: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                // Compared without case, so that `.QUORATE` beside `.quorate` counts as a second name.
                GeneralName::DNSName(dns) if is_ours(dns) => Some(*dns),
                _ => None,
            })
            .collect();
        match ours.as_slice() {
            [] => Err(IdentityError::Nobody),
            [one] => one.parse(),
            several => Err(IdentityError::Several(several.len())),
        }
    }
}

impl FromStr for PeerName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed(text.chars().take(128).collect());
        let name = text.strip_suffix(SUFFIX).ok_or_else(malformed)?;
        let (who, cluster) = name.split_once('.').ok_or_else(malformed)?;
        let cluster = hex(cluster, 32).ok_or_else(malformed)?;
        let identity = match who.split_once('-') {
            Some(("n", id)) => {
                let id = hex(id, 16).ok_or_else(malformed)?;
                Identity::Node(u64::try_from(id).expect("sixteen hex digits are 64 bits"))
            }
            Some(("c", name)) if is_client_name(name) => Identity::Client(name.to_owned()),
            _ => return Err(malformed()),
        };
        Ok(PeerName { cluster, identity })
    }
}

fn is_ours(dns: &str) -> bool {
    let (dns, suffix) = (dns.as_bytes(), SUFFIX.as_bytes());
    dns.len() >= suffix.len() && dns[dns.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_NAME_MAX).contains(&name.len())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Exactly `digits` lower-case hex digits. `from_str_radix` alone would take a sign and upper case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != digits || !plain {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .into()
    }

    #[test]
    fn names_are_golden_and_come_back() {
        let node = PeerName {
            cluster: CLUSTER,
            identity: Identity::Node(0x2a),
        };
        let text = "n-000000000000002a.0123456789abcdef0123456789abcdef.quorate";
        assert_eq!(node.to_dns().unwrap(), text);
        assert_eq!(text.parse(), Ok(node));

        let client = PeerName {
            cluster: 1,
            identity: Identity::Client("ci-7".into()),
        };
        let text = "c-ci-7.00000000000000000000000000000001.quorate";
        assert_eq!(client.to_dns().unwrap(), text);
        assert_eq!(text.parse(), Ok(client));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("c-{}.{CLUSTER:032x}.quorate", "a".repeat(41));
        for text in [
            "",
            ".quorate",
            "n-000000000000002a.quorate",
            "n-2a.0123456789abcdef0123456789abcdef.quorate",
            "n-000000000000002A.0123456789abcdef0123456789abcdef.quorate",
            "n-+00000000000002a.0123456789abcdef0123456789abcdef.quorate",
            "n-000000000000002a.0123456789abcdef.quorate",
            "n-000000000000002a.0123456789abcdef0123456789abcdef.quorate.",
            "n-000000000000002a.x.0123456789abcdef0123456789abcdef.quorate",
            "m-000000000000002a.0123456789abcdef0123456789abcdef.quorate",
            "c-.0123456789abcdef0123456789abcdef.quorate",
            "c-x-.0123456789abcdef0123456789abcdef.quorate",
            "c-X.0123456789abcdef0123456789abcdef.quorate",
            long.as_str(),
        ] {
            assert!(text.parse::<PeerName>().is_err(), "{text:?} was taken");
        }
        let bad = PeerName {
            cluster: 1,
            identity: Identity::Client("a.b".into()),
        };
        assert_eq!(bad.to_dns(), Err(IdentityError::ClientName("a.b".into())));
    }

    #[test]
    fn a_certificate_names_exactly_one() {
        let one = "n-0000000000000001.0123456789abcdef0123456789abcdef.quorate";
        let two = "n-0000000000000002.0123456789abcdef0123456789abcdef.quorate";
        let read = |names: &[&str]| PeerName::from_certificate(&certificate(names));

        let expected = PeerName {
            cluster: CLUSTER,
            identity: Identity::Node(1),
        };
        assert_eq!(read(&[one]), Ok(expected.clone()));
        assert_eq!(read(&[one, "db1.example.org", "10.0.0.1"]), Ok(expected));
        assert_eq!(read(&["db1.example.org"]), Err(IdentityError::Nobody));
        assert_eq!(read(&[]), Err(IdentityError::Nobody));
        assert_eq!(read(&[one, two]), Err(IdentityError::Several(2)));
        assert_eq!(read(&[one, "x.QUORATE"]), Err(IdentityError::Several(2)));
        assert!(matches!(
            read(&["x.quorate"]),
            Err(IdentityError::Malformed(_))
        ));
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert!(matches!(
            PeerName::from_certificate(&garbage),
            Err(IdentityError::Unreadable(_))
        ));
    }
}
