//! How long values live, in the words of users and in numbers.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The shortest time that a value may be given. Deadlines are compared by clocks that differ by milliseconds at the best,
/// so that a much shorter one would say more than it can keep.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest time that a value may be given: ten years of 365 days. What is to live longer is to live until it is
/// deleted.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How far the clocks of a cluster may be apart, so that deadlines mean what they say: each replica keeps a value for so long
/// beyond its deadline before it drops it for good. With an hour a clock that jumps by one, as by a forgotten summer time,
/// drops nothing before its time.
pub const TTL_SKEW_MAX: Duration = Duration::from_secs(3_600);

/// The last moment that is written in four digits of a year, in milliseconds since the Unix epoch.
const TIMES_END_MS: u64 = 253_402_300_799_999;

/// How long a put's value is to live, where it is not to go by its bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lifetime {
    /// Until it is deleted or replaced, whatever its bucket says.
    Unlimited,
    /// So many milliseconds from when the put is taken on, by the clock of its coordinator.
    Ms(u64),
    /// Until this moment, in milliseconds since the Unix epoch: a value with its deadline from elsewhere.
    Until(u64),
}

/// Why a text is no time to live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TtlError {
    /// It is no duration.
    Malformed,
    /// It is one, and shorter than [`TTL_MIN`] or longer than [`TTL_MAX`].
    OutOfBounds,
}

impl fmt::Display for TtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TtlError::Malformed => "a duration such as 90s, 12h or 30d, or none",
            TtlError::OutOfBounds => {
                "a value lives for at least 1s and at most 10 years (3650d); none keeps it until it is deleted"
            }
        })
    }
}

impl Lifetime {
    /// Reads what users write: a duration, or `none`.
    ///
    /// # Errors
    /// [`TtlError`], if it is neither, or out of bounds.
    pub fn parse(text: &str) -> Result<Lifetime, TtlError> {
        if text == "none" {
            return Ok(Lifetime::Unlimited);
        }
        let ttl = humantime::parse_duration(text).map_err(|_| TtlError::Malformed)?;
        if ttl < TTL_MIN || ttl > TTL_MAX {
            return Err(TtlError::OutOfBounds);
        }
        Ok(Lifetime::Ms(ttl.as_millis() as u64))
    }
}

/// A time to live as users write it: `1h30m`.
#[must_use]
pub fn ttl_text(ms: u64) -> String {
    let text = humantime::format_duration(Duration::from_millis(ms)).to_string();
    text.replace(' ', "")
}

/// A deadline as users read it: a moment in UTC as RFC 3339 writes it, with milliseconds. One beyond the year 9999, which
/// no node of ours makes, is shown as its end.
#[must_use]
pub fn deadline_text(expires_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(expires_ms.min(TIMES_END_MS));
    humantime::format_rfc3339_millis(at).to_string()
}

/// Reads a deadline, in milliseconds since the Unix epoch.
///
/// # Errors
/// A sentence, if it is no moment in UTC as RFC 3339 writes it, or none after the epoch.
pub fn parse_deadline(text: &str) -> Result<u64, String> {
    let at = humantime::parse_rfc3339(text).ok();
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    match since.map(|since| since.as_millis() as u64) {
        Some(ms) if ms > 0 => Ok(ms),
        _ => Err(format!(
            "'{text}' is no moment: write it in UTC, as 2030-01-31T12:00:00Z"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_read_as_they_are_written() {
        assert_eq!(Lifetime::parse("none"), Ok(Lifetime::Unlimited));
        for (text, ms) in [
            ("1s", 1_000),
            ("1500ms", 1_500),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("3650d", TTL_MAX.as_millis() as u64),
        ] {
            assert_eq!(Lifetime::parse(text), Ok(Lifetime::Ms(ms)), "{text}");
            assert_eq!(
                Lifetime::parse(&ttl_text(ms)),
                Ok(Lifetime::Ms(ms)),
                "{text}"
            );
        }
        assert_eq!(ttl_text(5_400_000), "1h30m");
        for text in ["0", "0s", "999ms", "3651d", "1000years"] {
            assert_eq!(Lifetime::parse(text), Err(TtlError::OutOfBounds), "{text}");
        }
        for text in ["", "1", "soon", "-1s", "None", "1h,2m"] {
            assert_eq!(Lifetime::parse(text), Err(TtlError::Malformed), "{text}");
        }
    }

    #[test]
    fn deadlines_are_moments_in_utc() {
        assert_eq!(deadline_text(1_900_000_000_123), "2030-03-17T17:46:40.123Z");
        assert_eq!(
            parse_deadline("2030-03-17T17:46:40.123Z"),
            Ok(1_900_000_000_123)
        );
        assert_eq!(
            parse_deadline("2030-03-17T17:46:40Z"),
            Ok(1_900_000_000_000)
        );
        assert_eq!(deadline_text(u64::MAX), "9999-12-31T23:59:59.999Z");
        for text in ["", "tomorrow", "2030-03-17", "1970-01-01T00:00:00Z", "1"] {
            assert!(parse_deadline(text).unwrap_err().contains("UTC"), "{text}");
        }
    }
}
