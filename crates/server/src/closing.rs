//! Whether what a node acknowledged last may be lost.
//!
//! Under `durability = "os"` an acknowledged write is in the system's memory: a process that is killed loses nothing, a machine that goes down may
//! lose the last seconds. So a node leaves a mark in its directory while it is open, which names the durability and the machine's boot:
//!
//! ```text
//!   DIR/OPEN       "os" or "fsync", and the boot's id; there while the node is open
//!   DIR/RESTORED   put there by whoever restores a directory from a copy
//! ```
//!
//! A mark of another boot under `os`, or a `RESTORED`, says that state may be lost. The core then refills every vnode from the others
//! before it counts again (rule R2), and the files go once that is done: a refill that is interrupted begins again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::Durability;

const OPEN: &str = "OPEN";
const RESTORED: &str = "RESTORED";
/// Where Linux tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The marks of one directory.
#[derive(Debug)]
pub(crate) struct Marks {
    dir: PathBuf,
    /// Why state may be lost, for people; `None` if it is whole.
    pub(crate) suspicion: Option<String>,
}

impl Marks {
    /// Looks at the marks of a directory that this process holds, and leaves its own. While there is a suspicion, the mark that raised it
    /// stays: see [`Marks::refilled`].
    pub(crate) fn leave(dir: &Path, durability: Durability) -> io::Result<Marks> {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        Marks::leave_at(dir, durability, boot.trim())
    }

    fn leave_at(dir: &Path, durability: Durability, boot: &str) -> io::Result<Marks> {
        let restored = dir.join(RESTORED).exists();
        let found = match std::fs::read_to_string(dir.join(OPEN)) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let lost = found
            .as_deref()
            .is_some_and(|mark| may_have_lost(mark, boot));
        let suspicion = match (restored, lost) {
            (true, _) => Some(format!("there is a {RESTORED} file in its directory")),
            (false, true) => Some(
                "it was not closed before its machine went down, and it acknowledges writes before they are synced".to_owned(),
            ),
            (false, false) => None,
        };
        let marks = Marks {
            dir: dir.to_owned(),
            suspicion,
        };
        // One that was lost to power keeps its mark until it is refilled.
        if !lost {
            let word = match durability {
                Durability::Fsync => "fsync",
                Durability::Os => "os",
            };
            let mut file = File::create(dir.join(OPEN))?;
            file.write_all(format!("{word} {boot}\n").as_bytes())?;
            file.sync_all()?;
            marks.sync()?;
        }
        Ok(marks)
    }

    /// Every vnode is refilled: what raised the suspicion is settled.
    pub(crate) fn refilled(&mut self, durability: Durability) -> io::Result<()> {
        self.remove(RESTORED)?;
        self.remove(OPEN)?;
        *self = Marks::leave(&self.dir, durability)?;
        Ok(())
    }

    /// The storage is closed, and everything is on disk.
    pub(crate) fn closed(&self) -> io::Result<()> {
        match self.suspicion {
            Some(_) => Ok(()),
            None => self.remove(OPEN),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// Whether a node that left this mark may have lost what it had acknowledged. A mark that makes no sense is one that was torn.
fn may_have_lost(mark: &str, boot: &str) -> bool {
    match mark.trim().split_once(' ') {
        Some(("fsync", _)) => false,
        Some(("os", marked)) => marked != boot || boot.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_boot_under_os_and_a_restored_directory_are_suspicious() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |durability, boot: &str| {
            Marks::leave_at(dir.path(), durability, boot).expect("a directory of ours")
        };
        let (os, fsync) = (Durability::Os, Durability::Fsync);
        assert!(open(os, "a").suspicion.is_none(), "the first start");
        assert!(open(os, "a").suspicion.is_none(), "the process was killed");
        let marks = open(os, "b");
        assert!(
            marks
                .suspicion
                .as_ref()
                .is_some_and(|s| s.contains("machine"))
        );
        marks.closed().expect("closed");
        // A clean close in mid-refill does not settle it.
        let mut marks = open(os, "b");
        assert!(marks.suspicion.is_some());
        marks.refilled(os).expect("refilled");
        assert!(
            open(
                os,
                &std::fs::read_to_string(BOOT_ID)
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            )
            .suspicion
            .is_none()
        );

        open(fsync, "c").closed().expect("closed");
        assert!(open(fsync, "c").suspicion.is_none());
        assert!(open(os, "d").suspicion.is_none(), "all was synced");
        open(os, "d").closed().expect("closed");
        assert!(open(os, "e").suspicion.is_none(), "it was closed");
        File::create(dir.path().join(RESTORED)).expect("made");
        let mut marks = open(os, "e");
        assert!(
            marks
                .suspicion
                .as_ref()
                .is_some_and(|s| s.contains(RESTORED))
        );
        marks.refilled(os).expect("refilled");
        assert!(!dir.path().join(RESTORED).exists());
        std::fs::write(dir.path().join(OPEN), "o").expect("torn");
        assert!(open(os, "e").suspicion.is_some());
    }
}
