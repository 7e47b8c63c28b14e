//! How much of a disk must stay free.

use std::fmt;

use super::size;

/// With less than this, what a node has taken and not yet written, and what compaction writes before it removes anything,
/// may fill the disk: a write would fail, and poison the node.
const AUTO_MIN: u64 = 1 << 30;
/// With more, a large disk would stand empty: what a second of writes and the compaction of a level need does not grow with
/// the disk.
const AUTO_MAX: u64 = 16 << 30;
const AUTO_PERCENT: u64 = 5;
/// Of a very small file system, so that something can be stored on it at all.
const AUTO_PART_MAX: u64 = 4;

/// How much of the file system of the data directory must stay free for what adds values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskReserve {
    /// 5 %, but from 1 to 16 GiB, and no more than a quarter of it.
    #[default]
    Auto,
    /// This many bytes; 0 takes everything until a write fails.
    Bytes(u64),
    /// This part of the whole, from 0 to 100.
    Percent(u8),
}

impl DiskReserve {
    /// The bytes that must be free where there are `total`.
    #[must_use]
    pub fn bytes_of(self, total: u64) -> u64 {
        match self {
            DiskReserve::Auto => (total / 100 * AUTO_PERCENT)
                .clamp(AUTO_MIN, AUTO_MAX)
                .min(total / AUTO_PART_MAX),
            DiskReserve::Bytes(bytes) => bytes,
            DiskReserve::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }
}

impl fmt::Display for DiskReserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskReserve::Auto => write!(f, "5% of it stays free, from 1 to 16 GiB"),
            DiskReserve::Bytes(bytes) => write!(f, "{bytes} bytes of it stay free"),
            DiskReserve::Percent(percent) => write!(f, "{percent}% of it stays free"),
        }
    }
}

/// Reads `auto`, a size, or a percentage.
pub(super) fn parse(text: &str) -> Result<DiskReserve, String> {
    let mend = "write \"auto\", a size such as \"2 GiB\", a part of the disk such as \"5%\", or 0";
    if text == "auto" {
        return Ok(DiskReserve::Auto);
    }
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.trim().parse::<u8>() {
            Ok(percent) if percent <= 100 => Ok(DiskReserve::Percent(percent)),
            _ => Err(mend.to_owned()),
        };
    }
    let bytes = size::parse(text).map_err(|_| mend.to_owned())?;
    Ok(DiskReserve::Bytes(bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("auto"), Ok(DiskReserve::Auto));
        assert_eq!(parse("2 GiB"), Ok(DiskReserve::Bytes(2 << 30)));
        assert_eq!(parse("0"), Ok(DiskReserve::Bytes(0)));
        assert_eq!(parse("5%"), Ok(DiskReserve::Percent(5)));
        for wrong in ["", "full", "101%", "-1%", "5 percent", "%"] {
            assert!(parse(wrong).unwrap_err().contains("auto"), "{wrong}");
        }
    }

    #[test]
    fn auto_suits_small_and_large_disks() {
        let gib = |count: u64| count << 30;
        let auto = |total| DiskReserve::Auto.bytes_of(total);
        assert_eq!(auto(gib(1) / 8), gib(1) / 32);
        assert_eq!(auto(gib(4)), gib(1));
        assert_eq!(auto(gib(10)), gib(1));
        assert_eq!(auto(gib(100)), gib(100) / 100 * 5);
        assert_eq!(auto(gib(10_000)), gib(16));
        assert_eq!(DiskReserve::Percent(100).bytes_of(u64::MAX), u64::MAX);
    }
}
