//! What a process proves itself with: the CA it trusts, its certificate, its private key.
//!
//! Everything that could make every later handshake fail is checked when they are loaded, because a start-up
//! error that names the file is worth more than a thousand refused connections.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{provider, verify};
use crate::identity::{IdentityError, PeerName};

/// Why credentials cannot be used. `file` and its like name a path, or say what was given as text.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file that cannot be read.
    #[error("cannot read {what} {}: {source}. `quorate init` makes these files; correct the path in the configuration if they lie elsewhere", .path.display())]
    Read {
        /// Which of the three files.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("{file} is not usable: {reason}")]
    Unusable {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The private key is not the certificate's.
    #[error(
        "the private key {key} does not belong to the certificate {certificate}: use the pair that was issued together"
    )]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// Another CA issued the certificate, or it may not be used for this.
    #[error(
        "the certificate {certificate} was not issued by the CA in {ca} ({reason}): use the CA certificate of the cluster that admitted this party"
    )]
    NotIssued {
        /// The certificate's file.
        certificate: String,
        /// The CA's file.
        ca: String,
        /// What the check said.
        reason: String,
    },
    /// The certificate's time is over.
    #[error(
        "the certificate {file} expired on {until}: issue a new one from the cluster's CA, or correct this machine's clock"
    )]
    Expired {
        /// The certificate's file.
        file: String,
        /// Its last moment, UTC.
        until: String,
    },
    /// The certificate's time has not come.
    #[error("the certificate {file} is not valid before {from}: correct this machine's clock")]
    NotYetValid {
        /// The certificate's file.
        file: String,
        /// Its first moment, UTC.
        from: String,
    },
    /// The certificate names nobody, or several.
    #[error("the certificate {file} cannot be used: {source}")]
    Identity {
        /// The certificate's file.
        file: String,
        /// What is wrong with its name.
        source: IdentityError,
    },
}

/// A CA, a certificate issued by it, and the certificate's private key: checked, and cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    roots: Arc<RootCertStore>,
    pair: Arc<CertifiedKey>,
    name: PeerName,
    expires: OffsetDateTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// PEM text and what to call it in errors.
struct Source<'a> {
    pem: &'a [u8],
    file: String,
}

impl Credentials {
    /// Loads the three PEM files and checks them against each other and the clock.
    ///
    /// # Errors
    ///
    /// Any [`CredentialsError`], which names the file and how to mend it.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|source| CredentialsError::Read {
                what,
                path: path.to_owned(),
                source,
            })
        };
        let ca_pem = read("the CA certificate", ca)?;
        let certificate_pem = read("the certificate", certificate)?;
        let key_pem = read("the private key", key)?;
        Self::check(
            &Source {
                pem: &ca_pem,
                file: ca.display().to_string(),
            },
            &Source {
                pem: &certificate_pem,
                file: certificate.display().to_string(),
            },
            &Source {
                pem: &key_pem,
                file: key.display().to_string(),
            },
        )
    }

    /// The same from PEM text in memory.
    ///
    /// # Errors
    ///
    /// As [`Credentials::load`], with "(given as text)" in place of file names.
    pub fn from_pem(
        ca: impl AsRef<[u8]>,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, CredentialsError> {
        Self::check(
            &Source {
                pem: ca.as_ref(),
                file: "(the CA, given as text)".into(),
            },
            &Source {
                pem: certificate.as_ref(),
                file: "(given as text)".into(),
            },
            &Source {
                pem: key.as_ref(),
                file: "(given as text)".into(),
            },
        )
    }

    fn check(
        ca: &Source<'_>,
        certificate: &Source<'_>,
        key: &Source<'_>,
    ) -> Result<Self, CredentialsError> {
        let authorities = certificates(ca)?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            check_dates(authority, &ca.file)?;
            roots
                .add(authority.clone())
                .map_err(|error| unusable(ca, error))?;
        }
        let roots = Arc::new(roots);

        let chain = certificates(certificate)?;
        let leaf = chain[0].clone();
        let expires = check_dates(&leaf, &certificate.file)?;
        let private = PrivateKeyDer::from_pem_slice(key.pem)
            .map_err(|error| unusable(key, format!("no PEM private key in it ({error})")))?;
        let pair = match CertifiedKey::from_der(chain.clone(), private, &provider()) {
            Ok(pair) => Arc::new(pair),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let (key, certificate) = (key.file.clone(), certificate.file.clone());
                return Err(CredentialsError::KeyMismatch { key, certificate });
            }
            Err(error) => return Err(unusable(key, error)),
        };

        // The very check that every acceptor will make.
        verify::client_chain(roots.clone())
            .verify_client_cert(&leaf, &chain[1..], UnixTime::now())
            .map_err(|error| CredentialsError::NotIssued {
                certificate: certificate.file.clone(),
                ca: ca.file.clone(),
                reason: match error {
                    rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                        "unknown issuer".into()
                    }
                    // A CA of the same subject with another key: the chain is found, the signature is wrong.
                    rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                        "bad signature".into()
                    }
                    other => other.to_string(),
                },
            })?;
        let name =
            PeerName::from_certificate(&leaf).map_err(|source| CredentialsError::Identity {
                file: certificate.file.clone(),
                source,
            })?;
        Ok(Credentials {
            roots,
            pair,
            name,
            expires,
        })
    }

    /// Whom the certificate speaks for.
    #[must_use]
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// The certificate's last valid moment. A running process keeps its connections beyond it, but can make
    /// none, so warn in time.
    #[must_use]
    pub fn expires(&self) -> std::time::SystemTime {
        self.expires.into()
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    pub(crate) fn pair(&self) -> Arc<CertifiedKey> {
        self.pair.clone()
    }
}

fn unusable(source: &Source<'_>, reason: impl fmt::Display) -> CredentialsError {
    CredentialsError::Unusable {
        file: source.file.clone(),
        reason: reason.to_string(),
    }
}

/// At least one certificate, or an error that names the file.
fn certificates(source: &Source<'_>) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(source.pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(source, format!("broken PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(unusable(source, "no PEM certificate in it"));
    }
    Ok(certificates)
}

/// Refuses a certificate outside its time; gives its last moment otherwise.
fn check_dates(
    certificate: &CertificateDer<'_>,
    file: &str,
) -> Result<OffsetDateTime, CredentialsError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| CredentialsError::Unusable {
            file: file.to_owned(),
            reason: format!("not a readable certificate ({error})"),
        })?;
    let now = OffsetDateTime::now_utc();
    let from = parsed.validity().not_before.to_datetime();
    let until = parsed.validity().not_after.to_datetime();
    if now > until {
        return Err(CredentialsError::Expired {
            file: file.to_owned(),
            until: moment(until),
        });
    }
    if now < from {
        return Err(CredentialsError::NotYetValid {
            file: file.to_owned(),
            from: moment(from),
        });
    }
    Ok(until)
}

fn moment(at: OffsetDateTime) -> String {
    format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute())
}
