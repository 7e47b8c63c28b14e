//! What is wrong with a configuration, where, and how to mend it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use quorate_transport::CredentialsError;

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment,
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment => f.write_str("the environment"),
            Origin::Flag => f.write_str("the command line"),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}. {mend}", .path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
        /// What to do.
        mend: String,
    },
    /// The file is not TOML.
    #[error("{}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why, as the parser says.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin}: there is no key '{key}'{}", suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The valid key most like it.
        nearest: Option<String>,
    },
    /// A key that must be given is not.
    #[error("{}: the key '{key}' is missing: {meaning}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it says, so that one knows what to write.
        meaning: &'static str,
    },
    /// A value that cannot be used.
    #[error("{origin}: {key} = {value:?}: {reason}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key, or the variable's name.
        key: String,
        /// What is given.
        value: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// A file that is named and read, but is not what it should be.
    #[error("{} ({key} in {}): {reason}", .path.display(), .config.display())]
    Unusable {
        /// The key that names it.
        key: &'static str,
        /// The configuration file.
        config: PathBuf,
        /// The file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        reason: String,
    },
    /// Certificate, key or CA cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean '{nearest}'?"),
        None => format!(
            "; the keys are {}",
            super::KEYS.map(|key| key.name).join(", ")
        ),
    }
}
