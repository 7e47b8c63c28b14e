//! Finding the cluster that a command speaks to, and speaking to it with patience.

use std::time::Duration;

use quorate_client::{Client, ClientConfig, Error};

use crate::failure::Failure;
use crate::local;
use crate::options::ClusterArgs;

impl ClusterArgs {
    /// What the arguments, the environment or a running `quorate dev` say about the cluster, in this order.
    pub(crate) fn load(&self) -> Result<ClientConfig, Failure> {
        let file = match &self.config {
            Some(file) => file.clone(),
            None => match local::path().and_then(|path| local::find(&path)) {
                Some(notice) => notice.client_config,
                None => return Err(Failure::Usage(self.nowhere())),
            },
        };
        let mut config = ClientConfig::load(&file).map_err(Failure::new)?;
        if !self.endpoints.is_empty() {
            config.endpoints = self.endpoints.clone();
        }
        Ok(config)
    }

    /// Finds the cluster and connects to it.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.load()?).await.map_err(Failure::new)
    }

    fn nowhere(&self) -> String {
        let lacking = if self.endpoints.is_empty() {
            "no cluster is named, and no `quorate dev` of this user is running"
        } else {
            "an endpoint says where a node is, but not with which certificates to speak to it"
        };
        format!(
            "{lacking}: name the client.toml that `quorate init` wrote, with --config or QUORATE_CONFIG, or start \
             `quorate dev` in another terminal"
        )
    }
}

/// How often a request of a long run is tried before the run counts it as failed: with the pauses between, for some ten
/// seconds, which is longer than a node takes to restart.
const ATTEMPTS_MAX: u32 = 9;
/// The first pause; each next one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is left of the patience with one request.
pub(crate) struct Patience {
    attempts_left: u32,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new() -> Patience {
        Patience {
            attempts_left: ATTEMPTS_MAX,
            pause: PAUSE_FIRST,
        }
    }

    /// Whether to try again after this error; if so, it has waited. For requests that may happen twice.
    pub(crate) async fn allows(&mut self, error: &Error) -> bool {
        self.attempts_left -= 1;
        if self.attempts_left == 0 || !passes(error) {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

/// Whether the same request may well succeed a little later.
fn passes(error: &Error) -> bool {
    match error {
        Error::Refused { refusal, .. } => refusal.is_passing(),
        Error::Unreachable { .. }
        | Error::Unmet { .. }
        | Error::Lost { .. }
        | Error::TimedOut { .. } => true,
        _ => false,
    }
}
