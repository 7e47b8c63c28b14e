//! What can become of a request, in words for people, and whether it may have happened.

use std::time::Duration;

use quorate_protocol::{Refusal, Unmet};
use quorate_transport::{BindError, CredentialsError};

use crate::config::ConfigError;

/// Why a request, or the connection to a cluster, came to nothing. [`Error::may_have_happened`] tells an unknown
/// outcome from one where nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate, its key or the CA cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No socket could be opened.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// No node could be reached; nothing was sent.
    #[error("no node could be reached, nothing was sent: {}", tried.join("; "))]
    Unreachable {
        /// Each node or address, and what happened there.
        tried: Vec<String>,
    },
    /// A node refused; nothing was changed.
    #[error("{node} refused: {refusal}")]
    Refused {
        /// The node that refused, by name.
        node: String,
        /// Its reason.
        refusal: Refusal,
    },
    /// Too few replicas answered.
    #[error("{unmet}")]
    Unmet {
        /// The coordinator, by name.
        node: String,
        /// How many answered, and what that means.
        unmet: Unmet,
    },
    /// The connection broke after the request was sent.
    #[error(
        "the connection to {node} broke before it answered ({reason}); {}",
        outcome(*write)
    )]
    Lost {
        /// The node, by name.
        node: String,
        /// How the connection ended.
        reason: String,
        /// Whether it was a put or a delete.
        write: bool,
    },
    /// No answer came in time.
    #[error("no answer within {}; {}", shown(*after), outcome(*write))]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// Whether a put or a delete had been sent.
        write: bool,
    },
    /// A node answered what does not belong to the question.
    #[error("{node} answered {what}: are client and nodes built from compatible releases?")]
    Unexpected {
        /// The node, by name.
        node: String,
        /// What was wrong with it.
        what: String,
        /// Whether it was a put or a delete.
        write: bool,
    },
}

impl Error {
    /// Whether what was asked may have been done all the same. If not, nothing was changed and nothing will be.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Error::Unmet { unmet, .. } => unmet.may_have_written,
            Error::Lost { write, .. }
            | Error::TimedOut { write, .. }
            | Error::Unexpected { write, .. } => *write,
            _ => false,
        }
    }

    /// The node's refusal, if that is what it was.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

fn outcome(write: bool) -> &'static str {
    if write {
        "the outcome is unknown: the write may or may not have happened"
    } else {
        "nothing was changed"
    }
}

fn shown(after: Duration) -> String {
    if after.subsec_millis() == 0 {
        format!("{}s", after.as_secs())
    } else {
        format!("{}ms", after.as_millis())
    }
}
