//! Load through the client library, over QUIC.

use std::cell::Cell;
use std::time::Duration;

use quorate_client::{Client, Error};
use quorate_protocol::{Options, Refusal};

use super::target::{Ask, Kind, Success, Target, Trouble};

/// Some clients, each with connections of its own, that take turns.
pub(super) struct Native {
    pub(super) clients: Vec<Client>,
    pub(super) bucket: String,
    pub(super) options: Options,
    pub(super) timeout: Option<Duration>,
    pub(super) turn: Cell<usize>,
}

impl Target for Native {
    async fn perform(&self, ask: Ask) -> Result<Success, Trouble> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let client = &self.clients[turn % self.clients.len()];
        let result = match ask.kind {
            Kind::Put => {
                let put = client
                    .put(self.bucket.as_str(), ask.key, ask.value)
                    .context(ask.context)
                    .options(self.options)
                    .timeout(self.timeout);
                put.await.map(|context| Success {
                    context: Some(context),
                    ..Success::default()
                })
            }
            Kind::Get => {
                let get = client
                    .get(self.bucket.as_str(), ask.key)
                    .options(self.options)
                    .timeout(self.timeout);
                get.await.map(|fetched| match fetched {
                    None => Success {
                        absent: true,
                        ..Success::default()
                    },
                    Some(fetched) => Success {
                        absent: false,
                        values: fetched.siblings.len(),
                        bytes: fetched.siblings.iter().map(|s| s.value.data.len()).sum(),
                        context: Some(fetched.context),
                    },
                })
            }
            Kind::Delete => {
                let delete = client
                    .delete(self.bucket.as_str(), ask.key)
                    .context(ask.context)
                    .options(self.options)
                    .timeout(self.timeout);
                delete.await.map(|()| Success::default())
            }
        };
        result.map_err(|error| trouble(&error))
    }
}

/// Errors by what they mean to whoever asked. The names of refusals are those of HTTP's problem types.
fn trouble(error: &Error) -> Trouble {
    let kind = match error {
        Error::Refused { refusal, .. } => refused(refusal),
        Error::Unmet { .. } if error.may_have_happened() => "unmet, outcome unknown",
        Error::Unmet { .. } => "unmet",
        Error::TimedOut { .. } => "timed out",
        Error::Lost { .. } => "connection lost",
        Error::Unreachable { .. } => "unreachable",
        Error::Unexpected { .. } => "unexpected answer",
        _ => "other",
    };
    Trouble::new(kind, error)
}

fn refused(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => "refused: malformed",
        Refusal::BadContext(_) => "refused: bad-context",
        Refusal::TooLarge { .. } => "refused: too-large",
        Refusal::Impossible(_) => "refused: impossible",
        Refusal::TooManySiblings { .. } | Refusal::SiblingsTooLarge { .. } => {
            "refused: too-many-siblings"
        }
        Refusal::Unavailable { .. } => "refused: unavailable",
        Refusal::Overloaded => "refused: overloaded",
        Refusal::Draining => "refused: draining",
        Refusal::Poisoned(_) => "refused: disk-failed",
        Refusal::WrongLayout { .. } => "refused: wrong-layout",
        Refusal::Corrupt(_) => "refused: corrupt",
        Refusal::NotAllowed(_) => "refused: not-allowed",
        Refusal::ConditionFailed(_) => "refused: condition-failed",
        Refusal::Conflict(_) => "refused: conflict",
        Refusal::NotFound(_) => "refused: not-found",
        Refusal::BucketChanged(_) => "refused: bucket-changed",
        Refusal::DiskFull { .. } => "refused: disk-full",
        Refusal::HintsFull { .. } => "refused: hints-full",
    }
}
