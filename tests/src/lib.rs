//! Tests that start real processes: nodes on ports of their own, killed, stopped and asked as a user would.
//!
//! This library starts and ends the processes; the tests are under `tests/`. Whatever a test starts ends with it: each
//! process is killed by its id when its [`Process`] is dropped, also when the test panics. Nothing waits without a bound.

mod binary;
pub mod clients;
mod cluster;
pub mod judgement;
pub mod nemesis;
pub mod network;
mod ports;
mod process;

pub use binary::{Done, quorate, run};
pub use cluster::Cluster;
pub use ports::free_base_port;
pub use process::{Process, wait_until};

use std::time::Duration;

/// How long a node may take to start and to be ready. It takes a second or two; a machine that compiles meanwhile takes longer.
pub const START_MAX: Duration = Duration::from_secs(60);

/// An HTTP client that hands over every answer as it is, and gives up on a silent server.
#[must_use]
pub fn http() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // 300 is an answer of ours: siblings, and no place to go to.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build();
    config.into()
}
