//! What can go wrong below the trait.

use bytes::Bytes;

use crate::Family;

/// Why storage could not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// What is stored is not what was written. Nothing was changed; other entries may be sound. Never to be taken for
    /// an absence.
    #[error("damaged data in {} at key {}: {reason}", family.name(), Shown(key))]
    Corrupt {
        /// Where the damage is.
        family: Family,
        /// The key that was read; for a scan the key at or after which the damage lies.
        key: Bytes,
        /// What was found.
        reason: String,
    },
    /// The disk could not be read. Nothing was changed, and asking again may succeed.
    #[error("cannot read from {}: {reason}", family.name())]
    Io {
        /// What was being read.
        family: Family,
        /// What the operating system or the engine said.
        reason: String,
    },
    /// An earlier write or sync failed. What was reported as durable still is; what was committed after may or may not
    /// be on disk, and nothing more will be until the engine is opened again.
    #[error("storage acknowledges nothing any more, because a write failed: {reason}")]
    Poisoned {
        /// What failed.
        reason: String,
    },
}

/// A key as text: what is printable as it is, the rest as `\xNN`, the middle of a long one left out.
struct Shown<'a>(&'a [u8]);

/// How many bytes of a key an error message shows at most; a key may have kilobytes, a log line should not.
const SHOWN_BYTES: usize = 64;

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.len() <= SHOWN_BYTES {
            return write!(f, "\"{}\"", self.0.escape_ascii());
        }
        let (head, rest) = self.0.split_at(SHOWN_BYTES / 2);
        let tail = &rest[rest.len() - SHOWN_BYTES / 2..];
        let (head, tail) = (head.escape_ascii(), tail.escape_ascii());
        write!(f, "\"{head}...{tail}\" ({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_readably_and_bounded() {
        let error = |key: &[u8]| {
            let error = StorageError::Corrupt {
                family: Family::Records,
                key: Bytes::copy_from_slice(key),
                reason: "checksum mismatch".into(),
            };
            error.to_string()
        };
        assert_eq!(
            error(b"\x00\x07milk"),
            r#"damaged data in records at key "\x00\x07milk": checksum mismatch"#
        );
        let long = error(&[b'k'; 10_000]);
        assert!(long.contains("(10000 bytes)") && long.len() < 200, "{long}");
    }
}
