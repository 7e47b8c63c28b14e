//! What a client needs to know to find its cluster: `client.toml`, as `quorate init` writes it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the cluster is, and what to prove oneself with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// Some nodes' QUIC addresses (`host:port`), at least one. The others are learned from whichever answers.
    pub endpoints: Vec<String>,
    /// The cluster's CA certificate, PEM.
    pub ca: PathBuf,
    /// This client's certificate, PEM.
    pub certificate: PathBuf,
    /// The certificate's private key, PEM.
    pub key: PathBuf,
}

/// Why a client's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}. `quorate init` writes a client.toml: name it with --config or QUORATE_CONFIG", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No endpoint at all.
    #[error("no endpoint is given: name at least one node's QUIC address, such as 127.0.0.1:7401")]
    NoEndpoints,
}

impl ClientConfig {
    /// Reads a file. Relative paths in it are relative to the directory it lies in.
    ///
    /// # Errors
    ///
    /// Any [`ConfigError`], naming the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let invalid = |reason: String| ConfigError::Invalid {
            path: path.to_owned(),
            reason,
        };
        let mut config: ClientConfig =
            toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if config.endpoints.is_empty() {
            return Err(invalid(
                "endpoints is empty: name at least one node's QUIC address".into(),
            ));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        for file in [&mut config.ca, &mut config.certificate, &mut config.key] {
            *file = base.join(&*file);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_the_file_and_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.toml");
        let error = ClientConfig::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("client.toml") && error.contains("quorate init"),
            "{error}"
        );

        std::fs::write(&path, "endpoint = []\n").unwrap();
        let error = ClientConfig::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("client.toml") && error.contains("`endpoint`"),
            "{error}"
        );

        let rest = "ca = \"ca.pem\"\ncertificate = \"/c.pem\"\nkey = \"k\"\n";
        std::fs::write(&path, format!("endpoints = []\n{rest}")).unwrap();
        let error = ClientConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("endpoints is empty"), "{error}");

        std::fs::write(&path, format!("endpoints = [\"h:1\"]\n{rest}")).unwrap();
        let config = ClientConfig::load(&path).unwrap();
        assert_eq!(config.ca, dir.path().join("ca.pem"));
        assert_eq!(config.certificate, Path::new("/c.pem"));
    }
}
