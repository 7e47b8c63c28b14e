//! A whole cluster in one process.

use std::path::{Path, PathBuf};

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// How many nodes.
    pub nodes: u16,
    /// The regions.
    pub regions: Vec<String>,
    /// Where to keep it; `None` is a temporary directory.
    pub data_dir: Option<PathBuf>,
    /// Node i, from 0, answers HTTP on this port + i; 0 lets the system choose.
    pub http_port: u16,
}

/// One node of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DevNode {
    /// The name.
    pub id: String,
    /// `http://host:port`.
    pub url: String,
    /// `host:port`.
    pub quic: String,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Could not be made.
    #[error(transparent)]
    Init(#[from] crate::InitError),
    /// A node did not start.
    #[error("{node}: {source}")]
    Start { /// Which.
        node: String, /// Why.
        source: crate::StartError },
}

/// A running cluster. Dropping it stops it.
pub struct DevCluster {}

impl DevCluster {
    /// Starts.
    ///
    /// # Errors
    /// [`DevError`].
    pub fn start(options: DevOptions) -> Result<DevCluster, DevError> { todo!() }
    /// The nodes in order.
    pub fn nodes(&self) -> &[DevNode] { todo!() }
    /// The client's configuration.
    pub fn client_config(&self) -> &Path { todo!() }
    /// Where the files are.
    pub fn dir(&self) -> &Path { todo!() }
    /// Stops all.
    ///
    /// # Errors
    /// [`crate::NodeFailure`].
    pub fn stop(self) -> Result<(), crate::NodeFailure> { todo!() }
}
