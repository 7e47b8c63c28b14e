//! A node's configuration: one TOML file, where every key may also come from the environment or from a flag.
//!
//! Later sources win: file, environment (`QUORATE_` and the key in capitals), flags. Unknown keys are errors, because a
//! mistyped `durability` that is ignored loses data. Relative paths in the file are relative to the file's directory,
//! others to the current one.

mod check;
mod error;
mod keys;
mod reserve;
mod size;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use check::Checked;
pub use error::{ConfigError, Origin};
pub use keys::{KEYS, Key};
pub use reserve::DiskReserve;

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// When the disk has it.
    Fsync,
    /// When the operating system has it: it survives the process, not the power.
    Os,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON document a line, for programs.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(
                "write \"text\" (for people) or \"json\" (a document a line, for programs)"
                    .to_owned(),
            ),
        }
    }
}

/// One node's configuration, complete and well-formed. [`NodeConfig::check`] says whether it can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// The file it was read from.
    pub file: PathBuf,
    /// Which node of the layout this is.
    pub name: String,
    /// The directory of this node's data, made at the first start.
    pub data_dir: PathBuf,
    /// Where nodes and clients are listened to, UDP.
    pub quic_listen: SocketAddr,
    /// Where HTTP is listened to, TCP.
    pub http_listen: SocketAddr,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// The file of the cluster's first layout, JSON.
    pub layout: PathBuf,
    /// The file that says who this node is, for one that the layout does not name.
    pub node: Option<PathBuf>,
    /// The file of the secret that authenticates contexts.
    pub secret: PathBuf,
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The largest value, in bytes.
    pub value_bytes_max: usize,
    /// The most siblings a put may leave.
    pub siblings_max: usize,
    /// Memory for blocks read from disk, in bytes.
    pub block_cache_bytes: usize,
    /// The most requests this node coordinates at one time.
    pub requests_max: usize,
    /// The most bytes of hints this node keeps for one other.
    pub hint_bytes_max: usize,
    /// How many bytes of hints this node hands over in a second.
    pub handoff_bytes_per_second: usize,
    /// How many of a hundred reads may ask one more node where one is overdue.
    pub hedge_percent: usize,
    /// How many bytes this node sends in a second to replicas that its reads find stale.
    pub repair_bytes_per_second: usize,
    /// In what time this node compares all that it holds with every other replica of it.
    pub exchange_cycle: Duration,
    /// In what time it checks all its records.
    pub verify_cycle: Duration,
    /// How long what is left of removed values waits before it is collected.
    pub collect_after: Duration,
    /// Of how many keys in a second that is collected.
    pub collect_keys_per_second: usize,
    /// While the layout changes: how many bytes it takes and gives in a second to be filled with what it is to hold.
    pub fill_bytes_per_second: usize,
    /// What must stay free on the disk: below it nothing is taken that adds a value.
    pub disk_reserve: DiskReserve,
    /// Requests that take at least so long are logged; `None` logs none.
    pub slow_request: Option<Duration>,
    /// How the log is written. The node does not write it: whoever starts it sets it up.
    pub log_format: LogFormat,
}

impl NodeConfig {
    /// Reads a file, then the environment's `QUORATE_…` variables among `env`, then `overrides` (key to value, as given
    /// by flags).
    ///
    /// # Errors
    ///
    /// Any [`ConfigError`]; it names the source, the key, and how to mend it. A `QUORATE_…` variable that is no key is an
    /// error as well, unless it is one of other commands, or one that Kubernetes sets for a service.
    pub fn load(
        path: &Path,
        env: impl IntoIterator<Item = (String, String)>,
        overrides: BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        keys::load(path, env, overrides)
    }

    /// Reads everything the configuration names and checks it together: the layout or `node` names this node, the certificate is this
    /// node's and of this cluster, the secret is one.
    ///
    /// # Errors
    ///
    /// Any [`ConfigError`]. Nothing is changed either way.
    pub fn check(&self) -> Result<Checked, ConfigError> {
        check::check(self)
    }
}
