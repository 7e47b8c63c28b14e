//! What the command line of `quorate bench` may say, and the small languages in it.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use quorate_protocol::VALUE_BYTES_MAX;
use serde::Serialize;

use super::http::Base;
use crate::options::{self, ClusterArgs, ReadArgs, TimeoutArgs, WriteArgs};

/// Put load on a cluster and measure it
///
/// A closed loop (--in-flight) keeps so many requests under way and starts the next when one is answered. Its latency is service time: while
/// the cluster stalls, nothing is asked, so a stall is felt by those under way alone. An open loop (--rate) starts requests by a timetable, whatever
/// becomes of the earlier ones, and measures each from the moment it was due, so a stall is felt by everyone who would have come during it.
///
/// Puts write keys that nobody wrote before, each once, in scattered order: no put leaves siblings behind. With --overwrite they replace keys of
/// the key space, with the context of what stands there; a key with a write under way is passed over for its neighbour. Gets read the key space, which is
/// written before the measurement wherever it is read. Deletes remove what this run has put, the oldest first. What is written is left in the bucket.
///
/// Latencies are those of requests that succeeded, a get of an absent key included; what failed is counted by kind. Exits 1 if no
/// request succeeded, or more failed than --max-errors allows.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Requests under way together; several numbers make a run each [default: 64; with --rate the bound of what is under way, 1024]
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        value_parser = in_flight,
        help_heading = "Load"
    )]
    pub(super) in_flight: Vec<usize>,

    /// Go over HTTP, to these nodes in turn, as in http://127.0.0.1:8080
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        help_heading = "Load"
    )]
    pub(super) http: Vec<Base>,

    /// An open loop: so many requests a second, whatever becomes of them; several numbers make a run each
    #[arg(long, value_name = "R,…", value_delimiter = ',', help_heading = "Load")]
    pub(super) rate: Vec<Rate>,

    /// How the open loop's timetable is spaced
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "rate",
        help_heading = "Load"
    )]
    pub(super) arrivals: Arrivals,

    /// How many requests of the open loop may be due and not started; those beyond are dropped and counted
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        requires = "rate",
        help_heading = "Load"
    )]
    pub(super) backlog: usize,

    /// Connections: clients with one to each node, which carry many requests together [default: 1]; with --http all connections together [default: one
    /// for each request under way, and at least one to each node]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) conns: Option<NonZeroUsize>,

    /// How long to measure, in seconds
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10", help_heading = "Load")]
    pub(super) seconds: Duration,

    /// How long the load runs before it is measured, in seconds
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "2", help_heading = "Load")]
    pub(super) warmup: Duration,

    /// Measure no more than this many requests a run
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) requests: Option<NonZeroU64>,

    /// Parts of puts and gets, and deletes if there is a third: 1:9, 50:50, 2:1:1, or put or get alone
    #[arg(
        long,
        value_name = "PUT:GET",
        default_value = "1:1",
        help_heading = "Data"
    )]
    pub(super) mix: Mix,

    /// Bytes of a value, which are random: 512, 1KiB, 64KiB, 1MiB
    #[arg(long, value_name = "B", value_parser = size, default_value = "1KiB", help_heading = "Data")]
    pub(super) size: usize,

    /// Keys in the key space that gets read
    #[arg(long, value_name = "N", default_value = "10000", help_heading = "Data")]
    pub(super) keys: NonZeroU64,

    /// How keys are drawn from it: uniform, or zipf with an exponent [zipf: zipf:0.99]
    #[arg(
        long,
        value_name = "uniform|zipf[:THETA]",
        default_value = "uniform",
        help_heading = "Data"
    )]
    pub(super) distribution: Distribution,

    /// Puts replace keys of the key space and write no new ones
    #[arg(long, help_heading = "Data")]
    pub(super) overwrite: bool,

    /// Whether to write the key space first, where it is not there yet [auto: if it is read or replaced]
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        num_args = 0..=1,
        default_missing_value = "yes",
        require_equals = true,
        help_heading = "Data"
    )]
    pub(super) preload: Preload,

    /// The bucket
    #[arg(
        long,
        value_name = "BUCKET",
        default_value = "bench",
        help_heading = "Data"
    )]
    pub(super) bucket: String,

    /// What kinds, keys and values are drawn from
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Data")]
    pub(super) seed: u64,

    /// Processes on this machine whose CPU time is charged to the requests: the servers
    #[arg(
        long,
        value_name = "PID,…",
        value_delimiter = ',',
        help_heading = "Report"
    )]
    pub(super) pids: Vec<NonZeroU64>,

    /// Exit 1 if more requests than this fail
    #[arg(long, value_name = "N", help_heading = "Report")]
    pub(super) max_errors: Option<u64>,

    /// Write the report, as -o json prints it, to this file too
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(super) report: Option<PathBuf>,

    /// Draw latency by percentile, and requests a second over time, into this SVG file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(super) plot: Option<PathBuf>,

    #[command(flatten)]
    pub(super) timeout: TimeoutArgs,

    #[command(flatten)]
    pub(super) read: ReadArgs,

    #[command(flatten)]
    pub(super) write: WriteArgs,

    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
}

/// How the moments of an open loop are spaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// All the same time apart
    #[default]
    Fixed,
    /// As independent people come: at random, so many on average
    Poisson,
}

/// Whether the key space is written before the measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preload {
    /// If it is read or replaced
    #[default]
    Auto,
    /// In any case
    Yes,
    /// Never
    No,
}

/// Requests a second, more than none.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Rate(pub(super) f64);

/// Below this nothing would be measured in a day.
const RATE_MIN: f64 = 0.001;
/// Above this the timetable is finer than a microsecond, which no single thread can follow.
const RATE_MAX: f64 = 1e6;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(rate) if (RATE_MIN..=RATE_MAX).contains(&rate) => Ok(Rate(rate)),
            _ => Err(format!(
                "write requests a second, from {RATE_MIN} to {RATE_MAX}, as in 500 or 0.5"
            )),
        }
    }
}

/// What is asked, in parts of the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Mix {
    pub(super) put: u32,
    pub(super) get: u32,
    pub(super) delete: u32,
}

/// The largest number of parts: far above any sensible ratio, far below what could overflow a sum.
const PARTS_MAX: u32 = 1_000_000;

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write parts as PUT:GET or PUT:GET:DELETE, as in 1:9 or 50:40:10, or put or get alone"
                .to_owned()
        };
        let parts: Vec<u32> = match text {
            "put" => vec![1, 0],
            "get" => vec![0, 1],
            _ => text
                .split(':')
                .map(|part| part.parse().ok().filter(|part| *part <= PARTS_MAX))
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
        };
        let (put, get, delete) = match parts[..] {
            [put, get] => (put, get, 0),
            [put, get, delete] => (put, get, delete),
            _ => return Err(wrong()),
        };
        if put + get + delete == 0 {
            return Err("a mix of nothing asks nothing: one part must be more than 0".to_owned());
        }
        if delete > put {
            return Err(
                "deletes remove what the run has put: there must be as many puts as deletes"
                    .to_owned(),
            );
        }
        Ok(Mix { put, get, delete })
    }
}

/// How keys are drawn from the key space.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Distribution {
    /// Each as likely as any other.
    Uniform,
    /// The key of rank k in proportion to 1 / k^theta.
    Zipf(f64),
}

/// The exponent of the usual cloud serving benchmarks.
const ZIPF_THETA: f64 = 0.99;
/// Beyond this nearly every draw is the first key.
const ZIPF_THETA_MAX: f64 = 10.0;

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => return Ok(Distribution::Uniform),
            None if text == "zipf" => return Ok(Distribution::Zipf(ZIPF_THETA)),
            Some(("zipf", theta)) => {
                if let Ok(theta) = theta.parse::<f64>()
                    && theta > 0.0
                    && theta <= ZIPF_THETA_MAX
                {
                    return Ok(Distribution::Zipf(theta));
                }
            }
            _ => {}
        }
        Err(format!(
            "write uniform, zipf, or zipf:THETA with a THETA above 0 and at most {ZIPF_THETA_MAX}"
        ))
    }
}

/// Requests under way: far more than any cluster gains from, far fewer than memory holds.
const IN_FLIGHT_MAX: usize = 65_536;

/// Reads how many requests are under way.
fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=IN_FLIGHT_MAX).contains(&number) => Ok(number),
        _ => Err(format!("write a number from 1 to {IN_FLIGHT_MAX}")),
    }
}

/// The longest part of a run: a week finds whatever a longer one would.
const SECONDS_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads a number of seconds, `10` or `0.5`, or a duration as everywhere, `1m`.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<f64>() {
        Ok(number) => Duration::try_from_secs_f64(number)
            .map_err(|_| "write a number of seconds, as in 10 or 0.5".to_owned())?,
        Err(_) => options::duration(text)?,
    };
    if duration > SECONDS_MAX {
        return Err("a part of a run lasts a week at most".to_owned());
    }
    Ok(duration)
}

/// Reads a number of bytes: `512`, `1KiB`, `1MB`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "KiB" => 1024,
        "kB" | "KB" => 1000,
        "M" | "MiB" => 1024 * 1024,
        "MB" => 1_000_000,
        _ => 0,
    };
    let bytes = digits.parse::<usize>().ok();
    match bytes.and_then(|bytes| bytes.checked_mul(unit)) {
        Some(_) if unit == 0 => Err("write bytes as 512, 1KiB, 64KiB or 1MiB".to_owned()),
        None => Err("write bytes as 512, 1KiB, 64KiB or 1MiB".to_owned()),
        Some(bytes) if bytes > VALUE_BYTES_MAX => {
            Err(format!("a value has at most {VALUE_BYTES_MAX} bytes"))
        }
        Some(bytes) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_as_ratios_and_by_name() {
        let mix = |text: &str| text.parse::<Mix>();
        let is = |put, get, delete| Ok(Mix { put, get, delete });
        assert_eq!(mix("1:9"), is(1, 9, 0));
        assert_eq!(mix("50:40:10"), is(50, 40, 10));
        assert_eq!(mix("put"), is(1, 0, 0));
        assert_eq!(mix("get"), is(0, 1, 0));
        for wrong in [
            "",
            "1",
            "0:0",
            "1:2:3:4",
            "-1:2",
            "a:b",
            "1:1:2",
            "1:9999999999",
        ] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units_and_a_bound() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("1KiB"), Ok(1024));
        assert_eq!(size("64K"), Ok(65536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("8MiB"), Ok(VALUE_BYTES_MAX));
        for wrong in [
            "",
            "KiB",
            "1GiB",
            "9MiB",
            "-1",
            "1.5KiB",
            "99999999999999999999MiB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn distributions_rates_and_seconds_say_what_they_take() {
        let distribution = |text: &str| text.parse::<Distribution>();
        assert_eq!(distribution("uniform"), Ok(Distribution::Uniform));
        assert_eq!(distribution("zipf"), Ok(Distribution::Zipf(0.99)));
        assert_eq!(distribution("zipf:1.2"), Ok(Distribution::Zipf(1.2)));
        for wrong in [
            "",
            "zipf:",
            "zipf:0",
            "zipf:nan",
            "zipf:11",
            "uniform:1",
            "pareto",
        ] {
            assert!(distribution(wrong).is_err(), "{wrong}");
        }
        assert_eq!("500".parse(), Ok(Rate(500.0)));
        for wrong in ["0", "-1", "1e-9", "nan", "inf", "2000000", "x"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("1m"), Ok(Duration::from_secs(60)));
        assert!(seconds("-1").is_err());
        assert!(seconds("nan").is_err());
        assert!(seconds("soon").is_err());
        assert!(seconds("1e15").is_err());
        assert_eq!(in_flight("16"), Ok(16));
        for wrong in ["0", "", "-1", "65537"] {
            assert!(in_flight(wrong).is_err(), "{wrong}");
        }
    }
}
