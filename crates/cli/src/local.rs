//! How the other commands find the cluster that `quorate dev` runs on this machine.
//!
//! `dev` writes a small file at a place that every command of the same user knows, and holds a lock on it for as long as
//! it runs. The lock is what says that the cluster is there: the system lets go of it when the process ends, in whatever
//! way, so a file that was left behind is recognised without asking whether a process id still means the same process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// What the file says.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whose it is, for people; the lock, not this, says whether it runs.
    pub(crate) pid: u32,
    /// The client.toml of the cluster.
    pub(crate) client_config: PathBuf,
}

/// A notice that stands while this lives.
pub(crate) struct Posted {
    path: PathBuf,
    /// Held for its lock.
    _file: File,
}

/// Where the notice is: `$XDG_STATE_HOME/quorate/dev.json`, or `~/.local/state/quorate/dev.json`; nowhere for a user
/// without a home.
pub(crate) fn path() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("quorate/dev.json"))
}

/// Posts the notice; `None` if another cluster that runs has posted its own.
pub(crate) fn post(path: &Path, notice: &Notice) -> io::Result<Option<Posted>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Not truncated when opened: until the lock is ours, it is another's.
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let text = serde_json::to_vec(notice)?;
    file.set_len(0)?;
    file.write_all(&text)?;
    Ok(Some(Posted {
        path: path.to_owned(),
        _file: file,
    }))
}

impl Drop for Posted {
    /// Emptied and not removed: a lock is on a file and not on a name, and a removed file could be locked by one
    /// process while another makes it anew.
    fn drop(&mut self) {
        let _ = fs::write(&self.path, b"");
    }
}

/// The notice of a cluster that runs now.
pub(crate) fn find(path: &Path) -> Option<Notice> {
    let mut file = File::open(path).ok()?;
    // Whoever gets the lock has found a file that nobody stands behind.
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_stands_as_long_as_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/dev.json");
        assert_eq!(find(&path), None);

        let notice = Notice {
            pid: 7,
            client_config: "/tmp/client.toml".into(),
        };
        let posted = post(&path, &notice).unwrap().expect("nobody else's");
        assert_eq!(find(&path), Some(notice));
        let other = Notice {
            pid: 8,
            client_config: "/tmp/other.toml".into(),
        };
        assert!(
            post(&path, &other).unwrap().is_none(),
            "the first one stays"
        );
        drop(posted);
        assert_eq!(find(&path), None);

        // Left behind, as after SIGKILL: the content is there, the lock is not.
        fs::write(&path, serde_json::to_vec(&other).unwrap()).unwrap();
        assert_eq!(find(&path), None);
        let posted = post(&path, &other).unwrap().expect("taken over");
        assert_eq!(find(&path), Some(other));
        drop(posted);
    }
}
