//! A node as a thread.

use std::net::SocketAddr;

use crate::config::NodeConfig;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
}

/// A node that ended for another reason than being stopped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeFailure(pub String);

/// A running node. Dropping it stops it.
pub struct RunningNode {}

impl RunningNode {
    /// Starts.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: NodeConfig) -> Result<RunningNode, StartError> { todo!() }
    /// Its name in the layout.
    pub fn name(&self) -> &str { todo!() }
    /// Where HTTP is answered.
    pub fn http_addr(&self) -> SocketAddr { todo!() }
    /// Where QUIC is answered.
    pub fn quic_addr(&self) -> SocketAddr { todo!() }
    /// Asks it to stop and does not wait.
    pub fn request_stop(&self) { todo!() }
    /// Blocks until stopped.
    ///
    /// # Errors
    /// [`NodeFailure`].
    pub fn stop(self) -> Result<(), NodeFailure> { todo!() }
    /// Waits until the node has ended, for whatever reason. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`NodeFailure`].
    pub async fn wait(&mut self) -> Result<(), NodeFailure> { todo!() }
}
