//! Whose directory it is, and whether this build may touch it.
//!
//! ```text
//!   DIR/LOCK         held (flock) by the process that uses the directory; holds its id, for the message
//!   DIR/FORMAT       the format everything here is in; its presence says that the directory is complete
//!   DIR/FORMAT.new   the same while the directory is being made
//!   DIR/db/          RocksDB's own
//! ```
//!
//! A directory is refused without a change to it, whatever the reason. One whose making was interrupted is made again:
//! nothing was ever committed to it. But one that has its FORMAT and not its database lost something, and is never
//! silently begun anew: a replica that comes up empty without knowing it has forgotten what it acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The format that this build writes, and the newest it reads. Rises when an older build could not read what a newer one
/// writes, which includes every new column family.
pub(super) const FORMAT: u32 = 1;

const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_DRAFT: &str = "FORMAT.new";
const DATABASE: &str = "db";
/// What the first line of a FORMAT file begins with.
const FORMAT_WORDS: &str = "quorate data directory, format ";
/// A file that is longer is not a FORMAT file of ours.
const FORMAT_BYTES_MAX: u64 = 256;

/// Why a data directory was not opened. Where it says so, nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or this one has already. Nothing was changed.
    #[error(
        "data directory {} is in use by {}; stop that one first, or give this node a directory of its own",
        dir.display(),
        pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that has it, if it said.
        pid: Option<u32>,
    },
    /// It was written by a newer build. Nothing was changed.
    #[error(
        "data directory {} was written by a newer version (format {found}; this build knows up to {known}); \
         start it with that version or a later one",
        dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this build knows.
        known: u32,
    },
    /// It holds something else. Nothing was changed.
    #[error(
        "{} is not a Quorate data directory: it holds {found:?} but no FORMAT file; name a new or an empty directory",
        dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// Something that belongs to it is missing or makes no sense. Nothing was changed.
    #[error(
        "data directory {} is damaged: {what}; restore it from a backup, or move it away and start this node as a \
         replacement, to be filled by its replicas",
        dir.display()
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused. A directory that did not exist or was empty may now be half made, and can be
    /// opened again.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// RocksDB did not open its part. It may have begun to recover.
    #[error("cannot open the database in {}: {reason}", path.display())]
    Database {
        /// The database's directory.
        path: PathBuf,
        /// What RocksDB said.
        reason: String,
    },
}

/// Says what was being done to which file when the operating system refused.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        doing,
        path,
        source,
    }
}

/// What is there before anything is done.
#[derive(PartialEq, Eq, Debug)]
enum Found {
    /// A complete directory in a format that this build knows.
    Ours,
    /// Nothing, or what an interrupted making left.
    Fresh,
}

/// A data directory that this process holds. Released when dropped, so it must outlive the database.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    /// Whether the database is yet to be made.
    fresh: bool,
    /// The lock lasts as long as this is open.
    _lock: File,
}

impl Directory {
    /// Takes the directory for this process; makes it if it does not exist or is empty.
    pub(super) fn claim(dir: &Path) -> Result<Directory, OpenError> {
        // Looked at before it is locked as well as after, because the lock's file would be a change.
        inspect(dir)?;
        make(dir)?;
        let lock = take_lock(dir)?;
        let fresh = inspect(dir)? == Found::Fresh;
        let directory = Directory {
            dir: dir.to_owned(),
            fresh,
            _lock: lock,
        };
        sign_lock(&directory._lock).map_err(failed("write", &dir.join(LOCK_FILE)))?;
        if fresh {
            directory.draft_format()?;
        }
        Ok(directory)
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// Whether the database is yet to be made.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Declares the directory complete, once its database is there.
    pub(super) fn complete(&mut self) -> Result<(), OpenError> {
        let draft = self.dir.join(FORMAT_DRAFT);
        std::fs::rename(&draft, self.dir.join(FORMAT_FILE)).map_err(failed("rename", &draft))?;
        sync_dir(&self.dir)?;
        self.fresh = false;
        Ok(())
    }

    fn draft_format(&self) -> Result<(), OpenError> {
        let draft = self.dir.join(FORMAT_DRAFT);
        let write = || {
            let mut file = File::create(&draft)?;
            writeln!(file, "{FORMAT_WORDS}{FORMAT}")?;
            file.sync_all()
        };
        write().map_err(failed("write", &draft))?;
        sync_dir(&self.dir)
    }
}

/// Reads what is there and changes nothing.
fn inspect(dir: &Path) -> Result<Found, OpenError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Fresh),
        Err(error) => return Err(failed("read", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read", dir))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    let has = |name: &str| names.iter().any(|n| n == name);

    if has(FORMAT_FILE) {
        let found = read_format(dir, FORMAT_FILE)?.ok_or_else(|| OpenError::Damaged {
            dir: dir.to_owned(),
            what: "its FORMAT file makes no sense".to_owned(),
        })?;
        if found > FORMAT {
            return Err(OpenError::Newer {
                dir: dir.to_owned(),
                found,
                known: FORMAT,
            });
        }
        // RocksDB would make an empty database where CURRENT is missing, had it leave to make one.
        if !dir.join(DATABASE).join("CURRENT").exists() {
            return Err(OpenError::Damaged {
                dir: dir.to_owned(),
                what: format!("it has no database in {DATABASE}/"),
            });
        }
        return Ok(Found::Ours);
    }

    // `lost+found` is there when the directory is a file system of its own.
    let mut of_making = vec![LOCK_FILE, FORMAT_DRAFT, "lost+found"];
    if has(FORMAT_DRAFT) && read_format(dir, FORMAT_DRAFT)?.is_some_and(|found| found <= FORMAT) {
        // The draft is on disk before the database is begun.
        of_making.push(DATABASE);
    }
    match names
        .into_iter()
        .find(|name| !of_making.contains(&name.as_str()))
    {
        None => Ok(Found::Fresh),
        Some(found) => Err(OpenError::NotOurs {
            dir: dir.to_owned(),
            found,
        }),
    }
}

/// The format a FORMAT file names, if it is one of ours.
fn read_format(dir: &Path, name: &str) -> Result<Option<u32>, OpenError> {
    let path = dir.join(name);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(FORMAT_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(failed("read", &path))?;
    let text = String::from_utf8_lossy(&bytes);
    let number = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix(FORMAT_WORDS));
    Ok(number
        .and_then(|number| number.parse().ok())
        .filter(|&number| number > 0))
}

/// Makes the directory and those above it if they are not there, and syncs each into the one above.
fn make(dir: &Path) -> Result<(), OpenError> {
    let missing = dir
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    let missing: Vec<&Path> = missing.collect();
    std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
    for made in missing {
        match made.parent() {
            Some(above) if !above.as_os_str().is_empty() => sync_dir(above)?,
            _ => sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}

/// What a directory lists is on disk only once the directory itself is synced.
fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(failed("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            let mut text = String::new();
            // The holder may be about to write it: then its id is not known, and the message does without.
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
            Err(OpenError::InUse {
                dir: dir.to_owned(),
                pid: text.trim().parse().ok(),
            })
        }
        Err(error) => Err(failed("lock", &path)(error.into())),
    }
}

/// Leaves this process's id, for the message of whoever comes next.
fn sign_lock(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file below, with its bytes.
    fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.push((path.clone(), Vec::new()));
                found.extend(tree(&path));
            } else {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
        found.sort();
        found
    }

    /// The refusal, having checked that nothing was changed.
    fn refusal(dir: &Path) -> OpenError {
        let before = tree(dir);
        let error = Directory::claim(dir).expect_err("it must be refused");
        assert_eq!(tree(dir), before, "{error}");
        error
    }

    fn complete(dir: &Path) {
        let mut directory = Directory::claim(dir).unwrap();
        assert!(directory.is_fresh());
        std::fs::create_dir_all(directory.database()).unwrap();
        std::fs::write(directory.database().join("CURRENT"), "").unwrap();
        directory.complete().unwrap();
    }

    #[test]
    fn a_new_directory_is_made_and_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("of/its/own");
        complete(&dir);
        let format = std::fs::read_to_string(dir.join(FORMAT_FILE)).unwrap();
        assert_eq!(format, "quorate data directory, format 1\n");
        assert!(!Directory::claim(&dir).unwrap().is_fresh());
    }

    #[test]
    fn a_directory_in_use_names_its_process() {
        let temp = tempfile::tempdir().unwrap();
        complete(temp.path());
        let held = Directory::claim(temp.path()).unwrap();
        let message = refusal(temp.path()).to_string();
        let dir = temp.path().display();
        let pid = std::process::id();
        assert_eq!(
            message,
            format!(
                "data directory {dir} is in use by process {pid}; stop that one first, or give this node a directory \
                 of its own"
            )
        );
        drop(held);
        Directory::claim(temp.path()).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("LOCK"), "").unwrap();
        std::fs::write(temp.path().join("thesis.tex"), "years").unwrap();
        let error = refusal(temp.path());
        assert!(
            matches!(&error, OpenError::NotOurs { found, .. } if found == "thesis.tex"),
            "{error}"
        );

        // A database without a draft is not something that was being made.
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join(DATABASE)).unwrap();
        assert!(matches!(refusal(temp.path()), OpenError::NotOurs { .. }));
        std::fs::write(temp.path().join(FORMAT_DRAFT), "draft of a letter").unwrap();
        assert!(matches!(refusal(temp.path()), OpenError::NotOurs { .. }));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        complete(temp.path());
        std::fs::write(temp.path().join(FORMAT_FILE), format!("{FORMAT_WORDS}7\n")).unwrap();
        let message = refusal(temp.path()).to_string();
        assert!(
            message.contains("written by a newer version (format 7; this build knows up to 1)"),
            "{message}"
        );
        // Also where the lock's file is missing, as in a copy.
        std::fs::remove_file(temp.path().join(LOCK_FILE)).unwrap();
        assert!(matches!(
            refusal(temp.path()),
            OpenError::Newer { found: 7, .. }
        ));
    }

    #[test]
    fn a_lost_database_is_not_begun_anew() {
        let temp = tempfile::tempdir().unwrap();
        complete(temp.path());
        std::fs::remove_dir_all(temp.path().join(DATABASE)).unwrap();
        let error = refusal(temp.path());
        assert!(
            error.to_string().contains("it has no database in db/"),
            "{error}"
        );
        std::fs::write(temp.path().join(FORMAT_FILE), "").unwrap();
        assert!(matches!(refusal(temp.path()), OpenError::Damaged { .. }));
    }

    #[test]
    fn an_interrupted_making_is_begun_again() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("lost+found")).unwrap();
        let directory = Directory::claim(temp.path()).unwrap();
        drop(directory); // before the database
        let directory = Directory::claim(temp.path()).unwrap();
        assert!(directory.is_fresh());
        std::fs::create_dir_all(directory.database()).unwrap();
        drop(directory); // within the database
        assert!(Directory::claim(temp.path()).unwrap().is_fresh());
        // A torn draft comes before any database.
        std::fs::remove_dir(temp.path().join(DATABASE)).unwrap();
        std::fs::write(temp.path().join(FORMAT_DRAFT), "quor").unwrap();
        assert!(Directory::claim(temp.path()).unwrap().is_fresh());
    }
}
