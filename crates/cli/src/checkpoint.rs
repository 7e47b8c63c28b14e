//! How far an import of a file has come, in a small file beside it: so that an import of hours that was interrupted need not read
//! again what it has stored.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output;

/// How much of the beginning of a file tells it from another of the same name.
const HEAD_BYTES: u64 = 4096;

/// What is in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    /// Everything before this byte is stored.
    offset: u64,
    /// So many lines.
    lines: u64,
    /// The digest of the beginning of the imported file, as far as `offset` and a bound.
    head: String,
}

/// The progress of one import.
pub(crate) struct Checkpoint {
    path: PathBuf,
    file: PathBuf,
    offset: u64,
    lines: u64,
}

impl Checkpoint {
    /// That of an import of this file, from what was noted if it is to be resumed.
    pub(crate) fn of(path: &Path, file: &mut File, resume: bool) -> Result<Checkpoint, Failure> {
        let mut name = OsString::from(path);
        name.push(".progress");
        let mut checkpoint = Checkpoint {
            path: name.into(),
            file: path.to_owned(),
            offset: 0,
            lines: 0,
        };
        if !resume {
            return Ok(checkpoint);
        }
        let shown = checkpoint.path.display().to_string();
        let noted = match fs::read(&checkpoint.path) {
            Ok(noted) => noted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                output::remark(&format!(
                    "{shown} is not there: beginning anew, which changes nothing of what is stored already"
                ));
                return Ok(checkpoint);
            }
            Err(error) => return Err(Failure::io(format!("read {shown}"), &error)),
        };
        let again = "import without --resume: what is stored already is left alone";
        let noted: Noted = serde_json::from_slice(&noted)
            .map_err(|error| Failure::new(format!("{shown} makes no sense ({error}): {again}")))?;
        let failed = |error: io::Error| Failure::io(format!("read {}", path.display()), &error);
        let is_same = file.metadata().map_err(failed)?.len() >= noted.offset
            && head(file, noted.offset).map_err(failed)? == noted.head;
        if !is_same {
            return Err(Failure::new(format!(
                "{} is not the file that {shown} speaks of: {again}",
                path.display()
            )));
        }
        (checkpoint.offset, checkpoint.lines) = (noted.offset, noted.lines);
        Ok(checkpoint)
    }

    /// The bytes and lines that are stored.
    pub(crate) fn reached(&self) -> (u64, u64) {
        (self.offset, self.lines)
    }

    /// Everything before this is stored.
    pub(crate) fn reach(&mut self, offset: u64, lines: u64) {
        (self.offset, self.lines) = (offset, lines);
    }

    /// Writes it down.
    pub(crate) fn note(&mut self) -> Result<(), Failure> {
        let failed =
            |error: io::Error| Failure::io(format!("write {}", self.path.display()), &error);
        let head = File::open(&self.file).and_then(|mut file| head(&mut file, self.offset));
        let noted = Noted {
            offset: self.offset,
            lines: self.lines,
            head: head.map_err(failed)?,
        };
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let bytes = serde_json::to_vec(&noted).map_err(Failure::new)?;
        // Renamed, so that it is never half there.
        fs::write(&new, bytes).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)
    }

    /// All is stored: nothing is left to resume.
    pub(crate) fn remove(self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(
                format!("remove {}", self.path.display()),
                &error,
            )),
            _ => Ok(()),
        }
    }
}

fn head(file: &mut File, offset: u64) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    file.take(offset.min(HEAD_BYTES)).read_to_end(&mut head)?;
    Ok(blake3::hash(&head).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        fs::write(&path, "one\ntwo\n").unwrap();
        let open = |resume| Checkpoint::of(&path, &mut File::open(&path).unwrap(), resume);
        assert_eq!(open(true).unwrap().reached(), (0, 0), "none was noted");
        let mut checkpoint = open(false).unwrap();
        checkpoint.reach(4, 1);
        checkpoint.note().unwrap();
        assert_eq!(open(true).unwrap().reached(), (4, 1));
        assert_eq!(open(false).unwrap().reached(), (0, 0));
        // More was added: the same file.
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(open(true).unwrap().reached(), (4, 1));
        for other in ["uno\ntwo\n", "one"] {
            fs::write(&path, other).unwrap();
            assert!(open(true).is_err(), "{other}");
        }
        checkpoint.remove().unwrap();
        fs::write(&path, "one\n").unwrap();
        assert_eq!(open(true).unwrap().reached(), (0, 0));
        fs::write(dir.path().join("lines.progress"), "{").unwrap();
        assert!(open(true).is_err());
    }
}
