//! A whole cluster in one process, to try and to develop against: the same nodes with the same sockets between them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::Poll;

use quorate_ring::Layout;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::config::{ConfigError, NodeConfig};
use crate::init::{InitError, NodePlan, init_at, region_of};
use crate::running::{NodeFailure, RunningNode, StartError};

/// The file that says that a directory was made here, and how.
const MARK: &str = "dev.json";

/// What cluster to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevOptions {
    /// How many nodes, at least 1.
    pub nodes: u16,
    /// The regions, dealt to the nodes in turn; empty for a single one.
    pub regions: Vec<String>,
    /// Where to keep it; used again if a cluster was made there by this before. `None` is a temporary directory, removed
    /// at the end.
    pub data_dir: Option<PathBuf>,
    /// The first node answers HTTP on this port of 127.0.0.1, the next on the one after; 0 lets the system choose them.
    pub http_port: u16,
}

impl Default for DevOptions {
    /// Three nodes in one region and a temporary directory, HTTP from port 8080.
    fn default() -> Self {
        DevOptions {
            nodes: 3,
            regions: Vec::new(),
            data_dir: None,
            http_port: 8080,
        }
    }
}

/// One node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DevNode {
    /// Its name.
    pub id: String,
    /// Where it answers HTTP, `http://host:port`.
    pub url: String,
    /// Where it is reached over QUIC, `host:port`.
    pub quic: String,
}

/// Why the cluster did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Its files could not be made.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A node's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The options make no cluster, or not the one that is in the directory.
    #[error("{0}")]
    Options(String),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A port for HTTP is not free.
    #[error(
        "{node}: TCP {address} is in use already: stop the process that holds it (`ss -tlpn` names it), or give another \
         with --http-port"
    )]
    HttpPort {
        /// The node's name.
        node: String,
        /// The address.
        address: SocketAddr,
    },
    /// A node did not start.
    #[error("{node}: {source}")]
    Start {
        /// Its name.
        node: String,
        /// Why.
        source: StartError,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevError {
    let path = path.to_owned();
    move |source| DevError::Io {
        action,
        path,
        source,
    }
}

#[derive(PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Mark {
    nodes: u16,
    regions: Vec<String>,
}

/// A running cluster. Dropping it stops it.
#[derive(Debug)]
pub struct DevCluster {
    // Before the directory, so that nothing is open in it when it is removed.
    running: Vec<RunningNode>,
    nodes: Vec<DevNode>,
    client_config: PathBuf,
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl DevCluster {
    /// Starts a cluster, making its files first where there are none. Its nodes are bound to 127.0.0.1 and find each
    /// other within the second.
    ///
    /// # Errors
    ///
    /// Any [`DevError`].
    pub fn start(options: DevOptions) -> Result<DevCluster, DevError> {
        if options.nodes == 0 {
            return Err(DevError::Options(
                "0 nodes: a cluster has at least one".into(),
            ));
        }
        if options.http_port.checked_add(options.nodes - 1).is_none() {
            return Err(DevError::Options(format!(
                "HTTP port {} leaves no room for {} nodes: ports end at 65535",
                options.http_port, options.nodes
            )));
        }
        let (dir, temporary) = match &options.data_dir {
            Some(dir) => (
                std::path::absolute(dir).map_err(io_error("use", dir))?,
                None,
            ),
            None => {
                let made = tempfile::Builder::new().prefix("quorate-dev-").tempdir();
                let made = made.map_err(io_error("make a directory in", &std::env::temp_dir()))?;
                (made.path().to_owned(), Some(made))
            }
        };
        prepare(&dir, &options)?;

        let layout_file = dir.join("layout.json");
        let layout = fs::read_to_string(&layout_file).map_err(io_error("read", &layout_file))?;
        let layout: Layout = serde_json::from_str(&layout).map_err(|error| {
            DevError::Options(format!("{}: not a layout: {error}", layout_file.display()))
        })?;
        let mut configs = Vec::new();
        for (at, spec) in (0..).zip(layout.nodes()) {
            let port = if options.http_port == 0 {
                0
            } else {
                options.http_port + at
            };
            let overrides =
                BTreeMap::from([("http_listen".to_owned(), format!("127.0.0.1:{port}"))]);
            let file = dir.join(format!("{}.toml", spec.name));
            configs.push(NodeConfig::load(&file, [], overrides)?);
        }
        let running = start_all(configs)?;
        let nodes = running
            .iter()
            .map(|node| DevNode {
                id: node.name().to_owned(),
                url: format!("http://{}", node.http_addr()),
                quic: node.quic_addr().to_string(),
            })
            .collect();
        Ok(DevCluster {
            running,
            nodes,
            client_config: dir.join("client.toml"),
            dir,
            _temporary: temporary,
        })
    }

    /// The nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[DevNode] {
        &self.nodes
    }

    /// The configuration for clients.
    #[must_use]
    pub fn client_config(&self) -> &Path {
        &self.client_config
    }

    /// Where everything is kept.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops the node of that name, as its crash would look to the others but in good order. `false` if there is none
    /// that runs.
    ///
    /// # Errors
    ///
    /// [`NodeFailure`] if it had ended before for another reason.
    pub fn stop_node(&mut self, name: &str) -> Result<bool, NodeFailure> {
        match self.running.iter().position(|node| node.name() == name) {
            Some(at) => self.running.remove(at).stop().map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits until a node has ended that was not asked to, and tells which. Cancelling loses nothing.
    pub async fn wait(&mut self) -> (String, Result<(), NodeFailure>) {
        let mut waiting: Vec<_> = self
            .running
            .iter_mut()
            .map(|node| Box::pin(async { (node.name().to_owned(), node.wait().await) }))
            .collect();
        std::future::poll_fn(|context| {
            let polls = waiting.iter_mut().map(|node| node.as_mut().poll(context));
            polls
                .reduce(|first, next| if first.is_ready() { first } else { next })
                .unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Stops all nodes and removes the directory if it was temporary.
    ///
    /// # Errors
    ///
    /// The first [`NodeFailure`] of a node that had ended before for another reason. All are stopped all the same.
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        self.running.iter().for_each(RunningNode::request_stop);
        let ends: Vec<_> = self.running.drain(..).map(RunningNode::stop).collect();
        ends.into_iter().collect()
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // All at once: each would else wait for the next one's answers.
        self.running.iter().for_each(RunningNode::request_stop);
    }
}

/// Side by side, for most of it is waiting for the disk. If one fails the others are stopped.
fn start_all(configs: Vec<NodeConfig>) -> Result<Vec<RunningNode>, DevError> {
    let started: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = configs
            .into_iter()
            .map(|config| {
                scope.spawn(move || {
                    let node = config.name.clone();
                    RunningNode::start(config).map_err(|error| match error {
                        StartError::Http { address, source }
                            if source.kind() == io::ErrorKind::AddrInUse =>
                        {
                            DevError::HttpPort { node, address }
                        }
                        source => DevError::Start { node, source },
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a start reports its failures"))
            .collect()
    });
    started.into_iter().collect()
}

/// Makes the cluster's files, or sees that those there are the ones asked for.
fn prepare(dir: &Path, options: &DevOptions) -> Result<(), DevError> {
    let mark_file = dir.join(MARK);
    let asked = Mark {
        nodes: options.nodes,
        regions: options.regions.clone(),
    };
    match fs::read_to_string(&mark_file) {
        Ok(text) => {
            let found: Mark = serde_json::from_str(&text)
                .map_err(|error| DevError::Options(format!("{}: {error}", mark_file.display())))?;
            if found == asked {
                return Ok(());
            }
            return Err(DevError::Options(format!(
                "{} holds a cluster of {} nodes in regions [{}], and {} in [{}] were asked for: ask for the same, or \
                 name another directory",
                dir.display(),
                found.nodes,
                found.regions.join(", "),
                asked.nodes,
                asked.regions.join(", ")
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("read", &mark_file)(error)),
    }
    let ports = free_udp_ports(options.nodes)?;
    let plan: Vec<NodePlan> = (0..options.nodes)
        .zip(ports)
        .map(|(at, quic)| {
            let http = if options.http_port == 0 {
                quic
            } else {
                options.http_port + at
            };
            NodePlan {
                name: format!("node-{}", at + 1),
                region: region_of(&options.regions, usize::from(at)),
                quic: format!("127.0.0.1:{quic}"),
                http: format!("127.0.0.1:{http}"),
            }
        })
        .collect();
    init_at(dir, &plan)?;
    let text = serde_json::to_string(&asked).expect("a mark serialises");
    fs::write(&mark_file, text).map_err(io_error("write", &mark_file))
}

/// Where the system takes no ports from by itself: what is free now and kept in a file should be free the next time.
const PORTS: std::ops::Range<u16> = 16_000..32_000;

/// Ports that nobody has at this moment, each another.
fn free_udp_ports(count: u16) -> Result<Vec<u16>, DevError> {
    // No two calls of one process try the same ones first, and processes begin at different places.
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(89);
    let room = u32::from(PORTS.end - PORTS.start);
    let mut sockets = Vec::new();
    let mut ports = Vec::new();
    for _ in PORTS {
        if ports.len() == usize::from(count) {
            break;
        }
        let tried = u32::from(TRIED.fetch_add(1, Ordering::Relaxed));
        let offset = (start % room + tried) % room;
        let port = PORTS.start + u16::try_from(offset).expect("less than the room");
        if let Ok(socket) = UdpSocket::bind(("127.0.0.1", port)) {
            sockets.push(socket);
            ports.push(port);
        }
    }
    if ports.len() < usize::from(count) {
        return Err(DevError::Options(format!(
            "{count} free UDP ports from {} to {} are needed, and there are {}",
            PORTS.start,
            PORTS.end - 1,
            ports.len()
        )));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_ends_is_noticed() {
        let options = DevOptions {
            http_port: 0,
            ..DevOptions::default()
        };
        let mut cluster = DevCluster::start(options).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let a_moment = std::time::Duration::from_millis(50);
            let none = tokio::time::timeout(a_moment, cluster.wait()).await;
            assert!(none.is_err(), "all run: {none:?}");
            cluster.running[1].request_stop();
            assert_eq!(cluster.wait().await, ("node-2".to_owned(), Ok(())));
        });
    }
}
