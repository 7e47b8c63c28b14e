//! One node as a process: sockets, threads, clocks and files around the node state machine.
//!
//! [`init()`] makes a cluster's files, [`NodeConfig`] reads those of one node, [`RunningNode`] runs it, and
//! [`DevCluster`] does all three for a whole cluster in one process.
//!
//! A running node is one thread. It owns the core (`quorate-node`), the QUIC endpoint and the HTTP listener; only the
//! storage's committer is another. Whatever happens (frames, HTTP requests, commits, connections coming and going)
//! enters one queue; `driver` takes everything that waits there, hands it to the core, and then does what the core
//! says. It decides nothing itself: the simulator never sees this code, so it is kept dull.
//!
//! ```text
//!   links: dial, accept, read ----+                      +--> senders of connections (a write for many frames)
//!   gateway: HTTP requests -------+--> queue --> driver --+--> waiting HTTP requests
//!   storage: committer thread ----+              core    +--> storage
//! ```

mod admit;
mod backend;
pub mod config;
mod dev;
mod driver;
mod event;
mod identity;
mod init;
mod links;
mod metrics;
mod open_files;
mod opened;
mod pulse;
mod running;
mod slow;
mod steps;

pub use admit::{AdmitOptions, Admitted, admit, is_loopback};
pub use config::{Checked, ConfigError, DiskReserve, Durability, LogFormat, NodeConfig};
pub use dev::{DevCluster, DevError, DevNode, DevOptions};
pub use init::{InitError, InitNode, InitOptions, InitReport, NodePlan, init, init_at};
pub use running::{NodeFailure, RunningNode, StartError};
