//! Arguments that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quorate_protocol::{Condition, Options, Quorum, TIMEOUT_MAX};

/// Which cluster a command speaks to.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// The cluster's client.toml, which `quorate init` writes [default: that of the running `quorate dev`]
    #[arg(long, value_name = "FILE", env = "QUORATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// A node's QUIC address, instead of those in client.toml; may be repeated, or several given with commas
    #[arg(
        long = "endpoint",
        alias = "endpoints",
        value_name = "HOST:PORT",
        env = "QUORATE_ENDPOINT",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Vec<String>,
}

/// How many replicas a read asks for.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Quorums: a number, one, quorum, all, local_quorum or each_quorum")]
pub(crate) struct ReadArgs {
    /// Replicas that must answer
    #[arg(long, value_name = "QUORUM")]
    pub(crate) r: Option<Quorum>,

    /// Of these, how many must be primaries
    #[arg(long, value_name = "QUORUM")]
    pub(crate) pr: Option<Quorum>,
}

/// How many replicas a write asks for.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Quorums: a number, one, quorum, all, local_quorum or each_quorum")]
pub(crate) struct WriteArgs {
    /// Replicas that must take the write
    #[arg(long, value_name = "QUORUM")]
    pub(crate) w: Option<Quorum>,

    /// Of these, how many must be primaries
    #[arg(long, value_name = "QUORUM")]
    pub(crate) pw: Option<Quorum>,

    /// Of these, how many must have it on disk
    #[arg(long, value_name = "QUORUM")]
    pub(crate) dw: Option<Quorum>,
}

/// Whether other nodes may stand in for a key's primaries.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct SloppyArgs {
    /// Whether other nodes may stand in for primaries that are out of reach: true or false [default: the bucket's, true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) sloppy: Option<bool>,
}

impl SloppyArgs {
    /// This, in a request's options.
    pub(crate) fn into_options(self, options: Options) -> Options {
        Options {
            sloppy: self.sloppy,
            ..options
        }
    }
}

/// What must be so for a write to happen.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Conditions: a quorum is read first, and if it says otherwise nothing is changed"
)]
#[group(multiple = false)]
pub(crate) struct ConditionArgs {
    /// Only if the key has no value
    #[arg(long)]
    if_absent: bool,

    /// Only if the key has a value; siblings are all replaced
    #[arg(long)]
    if_present: bool,

    /// Only if the key has one value and this is its dot, as `get -o json` shows it; several may be given with commas
    #[arg(long, value_name = "DOT", value_delimiter = ',')]
    if_match: Vec<String>,
}

impl ConditionArgs {
    /// The condition, if there is one.
    pub(crate) fn condition(self) -> Option<Condition> {
        if self.if_absent {
            Some(Condition::Absent)
        } else if self.if_present {
            Some(Condition::Present)
        } else if self.if_match.is_empty() {
            None
        } else {
            Some(Condition::Dots(self.if_match))
        }
    }
}

/// Whether a command tells how its answer came about.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct ExplainArgs {
    /// Tell which replicas were asked, what each said and when, and why siblings stand: on standard error, or with -o json as the
    /// member `explain`
    #[arg(long)]
    pub(crate) explain: bool,
}

impl ReadArgs {
    /// Whether any is given.
    pub(crate) fn any(self) -> bool {
        self.r.is_some() || self.pr.is_some()
    }

    /// These, in a request's options.
    pub(crate) fn into_options(self, options: Options) -> Options {
        Options {
            r: self.r,
            pr: self.pr,
            ..options
        }
    }
}

impl WriteArgs {
    /// These, in a request's options.
    pub(crate) fn into_options(self, options: Options) -> Options {
        Options {
            w: self.w,
            pw: self.pw,
            dw: self.dw,
            ..options
        }
    }
}

/// How long one request may take.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct TimeoutArgs {
    /// How long the request may take [default: the bucket's, 5s]
    #[arg(long, value_name = "DURATION", value_parser = request_timeout)]
    pub(crate) timeout: Option<Duration>,
}

/// Reads a duration: `250ms`, `2s`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}: write it as 250ms, 2s or 1h30m"))
}

/// Reads a duration that a request can have.
fn request_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err(format!(
            "a request may take more than nothing and at most {}",
            humantime::format_duration(TIMEOUT_MAX)
        ));
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written_everywhere() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("5").unwrap_err().contains("250ms"));
        assert!(request_timeout("0s").is_err());
        assert!(request_timeout("6m").is_err());
    }
}
