//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below it a node does not start: a database of any size has hundreds of files, and every client is a socket.
const NEEDED: u64 = 1024;
/// Below it a node says so: many HTTP clients would be turned away.
const WISHED_FOR: u64 = 4096;

/// Raises the limit as far as it goes without privileges.
///
/// # Errors
///
/// The limit, if that is too few.
pub(crate) fn raise() -> Result<(), u64> {
    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let now = now.unwrap_or(u64::MAX);
    if now < NEEDED {
        return Err(now);
    }
    if now < WISHED_FOR {
        tracing::warn!(
            limit = now,
            "few open files are allowed: with many HTTP clients some will be turned away; raise it with `ulimit -n` or \
             LimitNOFILE="
        );
    }
    Ok(())
}
