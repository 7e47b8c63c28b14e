//! The cluster's certificate authority: made once by the tool, needed again only to admit a node or a client.
//!
//! It is a directory of two files, `ca.pem` and `ca.key`. The certificate goes to every node and client; whoever
//! reads the key can become any node, so it is written with mode 0600 and never overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{Identity, IdentityError, PeerName};

/// The CA certificate's file name in its directory.
pub const CERTIFICATE_FILE: &str = "ca.pem";
/// The CA private key's file name in its directory.
pub const KEY_FILE: &str = "ca.key";

/// Ten years: replacing a CA means touching every node, so it should outlive the hardware.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How far certificates reach into the past. Without it, a node whose clock is behind refuses certificates that were issued
/// just now. A day covers a clock that shows another time zone's hour, which is the commonest of such mistakes.
const BACKDATE: Duration = Duration::from_secs(86_400);

/// The common name of a CA certificate is this and the cluster's id in 32 hex digits; `load` reads it back.
const COMMON_NAME: &str = "quorate cluster ";

/// Why the authority could not be made, loaded, saved, or issue a certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file that would be overwritten. Nothing was written.
    #[error("{} exists already and is not overwritten: choose another directory, or move it away if that CA is no longer needed", .0.display())]
    Exists(PathBuf),
    /// A file that is not there.
    #[error("{} does not exist: name the directory in which `quorate init` made the cluster's CA", .0.display())]
    Missing(PathBuf),
    /// The operating system refused. Files written before this one remain.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted: "read" or "write".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that is there but is not what it should be.
    #[error("{} is not usable: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        reason: String,
    },
    /// A client name that breaks the rules.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// Key generation or signing failed, which points at this machine's random numbers.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A certificate authority of one cluster.
pub struct Authority {
    cluster: u128,
    certificate_pem: String,
    expires: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
pub struct Issued {
    /// The certificate, for anybody to see.
    pub certificate_pem: String,
    /// The private key (PKCS #8). Secret.
    pub key_pem: String,
}

impl Authority {
    /// Makes a new authority for the cluster of that id, valid for ten years. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Generate`] if no key could be generated.
    pub fn create(cluster: u128) -> Result<Self, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let expires = now + CA_VALIDITY;
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATE;
        params.not_after = expires;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{COMMON_NAME}{cluster:032x}"));
        // No intermediate authorities: a node's certificate stands directly below this one.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Authority {
            cluster,
            certificate_pem,
            expires,
            issuer,
        })
    }

    /// Loads the authority that [`Authority::save`] wrote into a directory.
    ///
    /// # Errors
    ///
    /// Each names the file: missing, unreadable, not a CA made by this tool, or a key of another CA.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let certificate_path = dir.join(CERTIFICATE_FILE);
        let key_path = dir.join(KEY_FILE);
        let certificate_pem = read(&certificate_path)?;
        let key_pem = read(&key_path)?;
        let unusable = |path: &Path, reason: String| AuthorityError::Unusable {
            path: path.to_owned(),
            reason,
        };

        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| {
            unusable(
                &certificate_path,
                format!("no PEM certificate in it ({error})"),
            )
        })?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| {
            unusable(
                &certificate_path,
                format!("not a readable certificate ({error})"),
            )
        })?;
        let cluster = cluster_of(&parsed).ok_or_else(|| {
            unusable(
                &certificate_path,
                "not a CA that `quorate init` made (its common name says otherwise)".into(),
            )
        })?;
        let expires = parsed.validity().not_after.to_datetime();

        let key = KeyPair::from_pem(&key_pem)
            .map_err(|error| unusable(&key_path, format!("no PEM private key in it ({error})")))?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            let reason = format!(
                "it is not the key of {}: restore the pair that was made together",
                certificate_path.display()
            );
            return Err(unusable(&key_path, reason));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Authority {
            cluster,
            certificate_pem,
            expires,
            issuer,
        })
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into a directory, which is made if need be (mode 0700).
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Exists`] if either file is there already (nothing is written then), or
    /// [`AuthorityError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), AuthorityError> {
        let certificate_path = dir.join(CERTIFICATE_FILE);
        let key_path = dir.join(KEY_FILE);
        for path in [&certificate_path, &key_path] {
            if path.exists() {
                return Err(AuthorityError::Exists(path.clone()));
            }
        }
        make_private_dir(dir)?;
        write_new(&key_path, &self.issuer.key().serialize_pem(), SECRET)?;
        write_new(&certificate_path, &self.certificate_pem, PUBLIC)
    }

    /// Issues a certificate, valid from an hour ago for `validity` from now, or until the authority itself
    /// expires if that is earlier. Nodes may accept and dial, clients may only dial.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Name`] for a client name that breaks the rules, or [`AuthorityError::Generate`].
    pub fn issue(&self, identity: &Identity, validity: Duration) -> Result<Issued, AuthorityError> {
        let name = PeerName {
            cluster: self.cluster,
            identity: identity.clone(),
        };
        let mut params = CertificateParams::new(vec![name.to_dns()?])?;
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATE;
        params.not_after = now
            .checked_add(validity.try_into().unwrap_or(time::Duration::MAX))
            .unwrap_or(self.expires)
            .min(self.expires);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, name.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity {
            Identity::Node(_) => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            Identity::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;

        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The cluster this authority speaks for.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// The CA certificate, which every node and client needs.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The CA's private key. Secret: whoever holds it can become any node.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not reach a log by accident.
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// Writes the certificate and the key (mode 0600) to these files.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Exists`] if either is there already (nothing is written then), or [`AuthorityError::Io`].
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        for path in [certificate, key] {
            if path.exists() {
                return Err(AuthorityError::Exists(path.to_owned()));
            }
        }
        write_new(key, &self.key_pem, SECRET)?;
        write_new(certificate, &self.certificate_pem, PUBLIC)
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

fn cluster_of(certificate: &X509Certificate<'_>) -> Option<u128> {
    if !certificate.is_ca() {
        return None;
    }
    let common_name = certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?;
    let id = common_name.strip_prefix(COMMON_NAME)?;
    (id.len() == 32).then(|| u128::from_str_radix(id, 16).ok())?
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AuthorityError::Missing(path.to_owned()),
        _ => AuthorityError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        },
    })
}

fn make_private_dir(dir: &Path) -> Result<(), AuthorityError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| AuthorityError::Io {
        action: "make",
        path: dir.to_owned(),
        source,
    })
}

/// Writes a file that must not exist, durably: a CA key that is lost in a power cut cannot be made again.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => AuthorityError::Exists(path.to_owned()),
        _ => AuthorityError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        },
    })
}
