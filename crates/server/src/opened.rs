//! Whether a data directory may have lost what was acknowledged last.
//!
//! With durability "os" a write is acknowledged when the operating system has it. The end of the process takes nothing of
//! that, the end of the machine may. So a directory says how it was used last: `DIR/LAST_OPEN` has the
//! machine's boot id and the durability, and is replaced by one that says "closed" when the engine is closed. One that was
//! not closed, and was used with "os" under another boot, may have lost something; and so may one whose disk failed.
//!
//! `DIR/RESTORED`, an empty file that an operator makes, says that the directory was put back from a copy. Other nodes would
//! mostly find that out, but not if the copy is so new that none of them had heard of what is missing.
//!
//! *Invariant:* what says that something was lost stays until the database has that on record, on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Durability;

const LAST_OPEN: &str = "LAST_OPEN";
const LAST_OPEN_DRAFT: &str = "LAST_OPEN.new";
const RESTORED: &str = "RESTORED";
/// Names this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How a directory is, or was, used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LastOpen {
    /// None where the system does not tell.
    boot_id: Option<String>,
    /// Whether the operating system's word was enough.
    os: bool,
    closed: bool,
}

/// Why acknowledged writes may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// The machine went down, or may have, while writes were only in its memory.
    Unsynced,
    /// An operator says so.
    Restored,
}

/// A data directory while it is in use.
#[derive(Debug)]
pub(crate) struct Opened {
    dir: PathBuf,
    now: LastOpen,
    lost: Option<Lost>,
    /// Whether that is to be put on record yet.
    awaits_record: bool,
}

impl Opened {
    /// Looks at a directory that was just opened, before anything is written to it. `new` if it was made by this.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn look(dir: &Path, durability: Durability, new: bool) -> io::Result<Opened> {
        let boot_id = fs::read_to_string(BOOT_ID).ok();
        Self::look_as(dir, durability, new, boot_id.map(|id| id.trim().to_owned()))
    }

    fn look_as(
        dir: &Path,
        durability: Durability,
        new: bool,
        boot_id: Option<String>,
    ) -> io::Result<Opened> {
        let os = durability == Durability::Os;
        let lost = if dir.join(RESTORED).try_exists()? {
            Some(Lost::Restored)
        } else {
            let unsynced = match read(dir)? {
                Some(last) => {
                    let same_boot = last.boot_id.is_some() && last.boot_id == boot_id;
                    last.os && !last.closed && !same_boot
                }
                // Used by a release that said nothing, or not at all.
                None => os && !new,
            };
            unsynced.then_some(Lost::Unsynced)
        };
        let opened = Opened {
            dir: dir.to_owned(),
            now: LastOpen {
                boot_id,
                os,
                closed: false,
            },
            lost,
            awaits_record: lost.is_some(),
        };
        if lost.is_none() {
            opened.say()?;
        }
        Ok(opened)
    }

    /// Why something may be missing, if it may.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Whether a loss waits to be put on record.
    pub(crate) fn awaits_record(&self) -> bool {
        self.awaits_record
    }

    /// The database has the loss on record, on disk: nothing else has to say it any more.
    ///
    /// # Errors
    /// If the directory cannot be written. It can be tried again; a loss that is said twice costs one more refill.
    pub(crate) fn recorded(&mut self) -> io::Result<()> {
        self.say()?;
        match fs::remove_file(self.dir.join(RESTORED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(&self.dir)?.sync_all()?;
        self.awaits_record = false;
        Ok(())
    }

    /// A write or sync failed. What the operating system had taken before may never come to the disk, and be gone from its memory: from
    /// here on that is as if the machine had gone down.
    ///
    /// # Errors
    /// If the directory cannot be written either.
    pub(crate) fn disk_failed(&mut self) -> io::Result<()> {
        self.now.boot_id = None;
        match self.awaits_record {
            true => Ok(()),
            false => self.say(),
        }
    }

    /// The engine was closed, with all that was written.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(crate) fn closed(mut self) -> io::Result<()> {
        if !self.awaits_record {
            self.now.closed = true;
            self.say()?;
        }
        Ok(())
    }

    fn say(&self) -> io::Result<()> {
        let draft = self.dir.join(LAST_OPEN_DRAFT);
        let mut file = File::create(&draft)?;
        let text = serde_json::to_vec(&self.now).map_err(io::Error::other)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, self.dir.join(LAST_OPEN))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}

/// How a directory was used last. One that cannot be understood was not closed well.
fn read(dir: &Path) -> io::Result<Option<LastOpen>> {
    match fs::read(dir.join(LAST_OPEN)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or(LastOpen {
            boot_id: None,
            os: true,
            closed: false,
        }))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(dir: &Path, durability: Durability, new: bool, boot: &str) -> Opened {
        Opened::look_as(dir, durability, new, Some(boot.to_owned())).expect("a directory")
    }

    #[test]
    fn only_another_boot_without_a_close_loses_what_the_system_had() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert_eq!(look(dir, Durability::Os, true, "a").lost(), None);
        // Killed on the same boot.
        assert_eq!(look(dir, Durability::Os, false, "a").lost(), None);
        // Closed, and the machine booted.
        look(dir, Durability::Os, false, "a")
            .closed()
            .expect("said");
        assert_eq!(look(dir, Durability::Os, false, "b").lost(), None);
        // The machine went down under it. What counts is how it was used then.
        let mut lost = look(dir, Durability::Fsync, false, "c");
        assert_eq!(lost.lost(), Some(Lost::Unsynced));
        assert!(lost.awaits_record());
        // Killed before that was on record, and tried again: it is not forgotten, even if that time it closes well.
        look(dir, Durability::Fsync, false, "c")
            .closed()
            .expect("left");
        assert_eq!(
            look(dir, Durability::Fsync, false, "c").lost(),
            Some(Lost::Unsynced)
        );
        lost.recorded().expect("said");
        assert!(!lost.awaits_record());
        assert_eq!(look(dir, Durability::Os, false, "d").lost(), None, "fsync");
    }

    #[test]
    fn a_failed_disk_may_have_lost_what_the_system_had_also_on_the_same_boot() {
        for (durability, lost) in [
            (Durability::Os, Some(Lost::Unsynced)),
            (Durability::Fsync, None),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let mut failed = look(dir.path(), durability, true, "a");
            failed.disk_failed().expect("said");
            assert_eq!(look(dir.path(), durability, false, "a").lost(), lost);
        }
    }

    #[test]
    fn a_system_that_names_no_boot_is_taken_to_have_gone_down() {
        let dir = tempfile::tempdir().expect("a directory");
        let look = |new| Opened::look_as(dir.path(), Durability::Os, new, None);
        assert_eq!(look(true).expect("a directory").lost(), None);
        assert_eq!(
            look(false).expect("a directory").lost(),
            Some(Lost::Unsynced)
        );
    }

    #[test]
    fn a_directory_of_which_nothing_is_known_counts_by_its_durability() {
        for (durability, lost) in [
            (Durability::Os, Some(Lost::Unsynced)),
            (Durability::Fsync, None),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            assert_eq!(look(dir.path(), durability, false, "a").lost(), lost);
            fs::write(dir.path().join(LAST_OPEN), "{").expect("written");
            let torn = look(dir.path(), durability, false, "a");
            assert_eq!(torn.lost(), Some(Lost::Unsynced));
        }
    }

    #[test]
    fn what_an_operator_says_stays_until_it_is_on_record() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        look(dir, Durability::Fsync, true, "a")
            .closed()
            .expect("said");
        fs::write(dir.join(RESTORED), "").expect("written");
        for _ in 0..2 {
            let opened = look(dir, Durability::Fsync, false, "a");
            assert_eq!(opened.lost(), Some(Lost::Restored));
            opened.closed().expect("left");
        }
        let mut opened = look(dir, Durability::Fsync, false, "a");
        opened.recorded().expect("removed");
        assert!(!dir.join(RESTORED).exists());
        opened.closed().expect("said");
        assert_eq!(look(dir, Durability::Fsync, false, "a").lost(), None);
    }
}
