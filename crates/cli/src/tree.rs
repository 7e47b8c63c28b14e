//! Directories as keys: every regular file under a directory, in order, with the key it has in a bucket.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use quorate_protocol::KEY_BYTES_MAX;

/// A directory on the command line: `PATH`, or `NAME=PATH` for keys that begin with `NAME/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// What stands before each key, with its `/`; may be empty.
    prefix: String,
    path: PathBuf,
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for Root {
    type Err = String;

    /// What begins with `/`, `./` or `../` is a path whatever it contains.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start));
        let (name, path) = match text.split_once('=') {
            Some((name, path)) if !plain => (name.trim_end_matches('/'), path),
            _ => ("", text),
        };
        if path.is_empty() {
            return Err("a directory is missing: give PATH, or NAME=PATH".to_owned());
        }
        let prefix = if name.is_empty() {
            String::new()
        } else {
            format!("{name}/")
        };
        Ok(Root {
            prefix,
            path: path.into(),
        })
    }
}

/// What a walk meets.
#[derive(Debug)]
pub(crate) enum Met {
    /// A regular file that can be a value.
    File {
        /// Its key.
        key: String,
        /// Where it is.
        path: PathBuf,
        /// Its size when it was met, in bytes.
        size: u64,
    },
    /// Something that is left out on purpose.
    Skipped(PathBuf, Skip),
    /// Something that should have been read and could not be.
    Unreadable(PathBuf, io::Error),
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Skip {
    /// Its value would be larger than is taken.
    ValueTooLarge,
    /// Its key would be longer than is taken.
    KeyTooLong,
    /// Its name is not UTF-8, which keys are.
    NotUtf8,
    /// Symbolic links are not followed: what they point to is stored where it is, or lies outside.
    Symlink,
    /// A socket, a pipe or a device.
    NotAFile,
}

impl Skip {
    /// Every reason.
    pub(crate) const ALL: [Skip; 5] = [
        Skip::ValueTooLarge,
        Skip::KeyTooLong,
        Skip::NotUtf8,
        Skip::Symlink,
        Skip::NotAFile,
    ];

    /// The reason as a name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Skip::ValueTooLarge => "value_too_large",
            Skip::KeyTooLong => "key_too_long",
            Skip::NotUtf8 => "name_not_utf8",
            Skip::Symlink => "symlink",
            Skip::NotAFile => "not_a_file",
        }
    }

    /// The reason in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Skip::ValueTooLarge => "larger than a value may be",
            Skip::KeyTooLong => "its key would be longer than 1,024 bytes",
            Skip::NotUtf8 => "its name is not UTF-8",
            Skip::Symlink => "a symbolic link",
            Skip::NotAFile => "not a regular file",
        }
    }
}

/// Walks directories depth first, the entries of each by name. Memory is bounded by the entries of the directories that are
/// open, not by the size of the tree.
pub(crate) struct Walk<'a> {
    roots: std::slice::Iter<'a, Root>,
    /// The open directories, the innermost last: the key of what is in it begins with the text, and the entries are yet to be
    /// visited, the next one last.
    open: Vec<(String, Vec<DirEntry>)>,
    value_bytes_max: u64,
}

impl<'a> Walk<'a> {
    /// Every file under `roots`, one after the other.
    pub(crate) fn new(roots: &'a [Root], value_bytes_max: u64) -> Walk<'a> {
        Walk {
            roots: roots.iter(),
            open: Vec::new(),
            value_bytes_max,
        }
    }

    /// Opens a directory; says so if that cannot be done.
    fn enter(&mut self, prefix: String, path: &Path) -> Option<Met> {
        let entries =
            fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        match entries {
            Ok(mut entries) => {
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
                self.open.push((prefix, entries));
                None
            }
            Err(error) => Some(Met::Unreadable(path.to_owned(), error)),
        }
    }

    /// What one entry of a directory is.
    fn visit(&mut self, prefix: &str, entry: &DirEntry) -> Option<Met> {
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Some(Met::Skipped(path, Skip::NotUtf8));
        };
        let key = format!("{prefix}{name}");
        // Of the entry itself and not of what a link points to.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => return Some(Met::Unreadable(path, error)),
        };
        if metadata.is_dir() {
            return self.enter(format!("{key}/"), &path);
        }
        let size = metadata.len();
        Some(if metadata.is_symlink() {
            Met::Skipped(path, Skip::Symlink)
        } else if !metadata.is_file() {
            Met::Skipped(path, Skip::NotAFile)
        } else if key.len() > KEY_BYTES_MAX {
            Met::Skipped(path, Skip::KeyTooLong)
        } else if size > self.value_bytes_max {
            Met::Skipped(path, Skip::ValueTooLarge)
        } else {
            Met::File { key, path, size }
        })
    }
}

impl Iterator for Walk<'_> {
    type Item = Met;

    fn next(&mut self) -> Option<Met> {
        loop {
            let met = match self.open.pop() {
                Some((prefix, mut entries)) => match entries.pop() {
                    Some(entry) => {
                        self.open.push((prefix.clone(), entries));
                        self.visit(&prefix, &entry)
                    }
                    None => None,
                },
                None => {
                    let root = self.roots.next()?;
                    self.enter(root.prefix.clone(), &root.path)
                }
            };
            if met.is_some() {
                return met;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_root_may_name_a_prefix() {
        let root = |text: &str| text.parse::<Root>().map(|r| (r.prefix, r.path));
        let is = |prefix: &str, path: &str| Ok((prefix.to_owned(), PathBuf::from(path)));
        assert_eq!(root("src"), is("", "src"));
        assert_eq!(root("serde-1.0=/x/serde=1"), is("serde-1.0/", "/x/serde=1"));
        assert_eq!(root("a/b/=c"), is("a/b/", "c"));
        assert_eq!(root("/a=b/c"), is("", "/a=b/c"));
        assert_eq!(root("./a=b"), is("", "./a=b"));
        assert!(root("a=").is_err());
        assert!(root("").is_err());
    }

    #[test]
    fn a_walk_is_in_order_and_leaves_out_what_cannot_be_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        for (name, size) in [("z", 0), ("a", 3), ("b/c/d", 10), ("b/large", 11)] {
            fs::write(at(name), vec![b'x'; size]).unwrap();
        }
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("loop")).unwrap();
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"n\xff")), b"").unwrap();

        let roots = ["x", ""].map(|prefix| Root {
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            path: if prefix.is_empty() {
                at("b")
            } else {
                dir.path().to_owned()
            },
        });
        let mut files = Vec::new();
        let mut skips = Vec::new();
        for met in Walk::new(&roots, 10) {
            match met {
                Met::File { key, size, .. } => files.push((key, size)),
                Met::Skipped(_, why) => skips.push(why),
                Met::Unreadable(path, error) => panic!("{}: {error}", path.display()),
            }
        }
        let files: Vec<(&str, u64)> = files.iter().map(|(k, s)| (k.as_str(), *s)).collect();
        assert_eq!(
            files,
            [("x/a", 3), ("x/b/c/d", 10), ("x/z", 0), ("c/d", 10)]
        );
        skips.sort();
        let large = Skip::ValueTooLarge;
        assert_eq!(
            skips,
            [large, large, Skip::NotUtf8, Skip::Symlink, Skip::Symlink]
        );
    }

    #[test]
    fn a_key_that_is_too_long_is_left_out_and_a_missing_root_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join(vec!["n".repeat(200); 5].join("/"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("n".repeat(200)), b"").unwrap();
        let roots = [
            dir.path().to_str().unwrap().parse().unwrap(),
            "/nonexistent/q".parse().unwrap(),
        ];
        let met: Vec<Met> = Walk::new(&roots, 10).collect();
        assert!(
            matches!(
                &met[..],
                [Met::Skipped(_, Skip::KeyTooLong), Met::Unreadable(..)]
            ),
            "{met:?}"
        );
    }
}
