//! `quorate sim`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use quorate_sim::{Profile, Report};
use serde_json::json;

use crate::failure::Failure;
use crate::output::{self, Form};

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Run clusters in the simulator, a whole one from each seed, and judge them
///
/// Prints a line for each seed that fails and how to replay it, and exits 1 if any did. Every tenth seed runs twice, to see that it goes the same way both
/// times. With a single seed, everything that was wrong is told.
#[derive(clap::Args)]
pub(crate) struct Sim {
    /// Which seeds: A..B without B, A..=B, A alone, or A.. with --hours
    #[arg(long, value_name = "A..B")]
    seeds: Seeds,

    /// Begin no new seed after this many hours (0.5 is half an hour)
    #[arg(long, value_name = "H", value_parser = hours)]
    hours: Option<Duration>,

    /// How much a seed does and which faults it draws from
    #[arg(long, value_name = "NAME", default_value = Profile::SHORT.name)]
    profile: Profile,

    /// How many seeds run at one time [default: one for each CPU]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Write the history of a single seed to this file, a line of JSON an operation
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// A range of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seeds {
    first: u64,
    /// Not itself part of it; `None` goes on.
    end: Option<u64>,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("'{text}' is not a seed: write A..B, as in 0..1000"))
        };
        let after = |seed: u64| {
            seed.checked_add(1)
                .ok_or_else(|| "there is no seed after the last".to_owned())
        };
        let (first, end) = match text.split_once("..") {
            None => (number(text)?, Some(after(number(text)?)?)),
            Some((first, "")) => (number(first)?, None),
            Some((first, last)) => match last.strip_prefix('=') {
                Some(last) => (number(first)?, Some(after(number(last)?)?)),
                None => (number(first)?, Some(number(last)?)),
            },
        };
        if end.is_some_and(|end| end <= first) {
            return Err(format!("{text} holds no seed"));
        }
        Ok(Seeds { first, end })
    }
}

fn hours(text: &str) -> Result<Duration, String> {
    let hours: f64 = text
        .parse()
        .map_err(|_| "write a number of hours, as in 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(hours * 3600.0).map_err(|error| error.to_string())
}

/// A seed that failed.
struct Failed {
    seed: u64,
    violations: Vec<String>,
}

/// What a campaign came to.
#[derive(Default)]
struct Totals {
    seeds: u64,
    operations: u64,
    succeeded: u64,
    virtual_time: Duration,
    failed: Vec<Failed>,
}

impl Sim {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let Seeds { first, end } = self.seeds;
        if end.is_none() && self.hours.is_none() {
            return Err(Failure::Usage(
                "seeds without an end need --hours".to_owned(),
            ));
        }
        let single = end == Some(first + 1);
        if self.history.is_some() && !single {
            return Err(Failure::Usage("--history needs a single seed".to_owned()));
        }
        let began = Instant::now();
        let totals = self.campaign(began, form, single)?;
        let elapsed = began.elapsed();
        let per_seed = elapsed.as_secs_f64() * 1000.0 / totals.seeds.max(1) as f64;
        let virtual_seconds = totals.virtual_time.as_secs_f64();
        match form {
            Form::Json => {
                let failed: Vec<_> = totals
                    .failed
                    .iter()
                    .map(|f| json!({ "seed": f.seed, "violations": f.violations, "replay": self.replay(f.seed) }))
                    .collect();
                output::json(&json!({
                    "profile": self.profile.name,
                    "seeds": totals.seeds,
                    "first": first,
                    "failed": failed,
                    "operations": totals.operations,
                    "succeeded": totals.succeeded,
                    "virtual_seconds": virtual_seconds,
                    "seconds": elapsed.as_secs_f64(),
                    "ms_per_seed": per_seed,
                }))?;
            }
            Form::Table => output::line(&format!(
                "{} seeds from {first}, {} failed; {} operations, {} of them acknowledged or answered; {:.1} virtual hours in \
                 {:.1} s, {per_seed:.1} ms a seed, {:.0} virtual seconds a second",
                totals.seeds,
                totals.failed.len(),
                totals.operations,
                totals.succeeded,
                virtual_seconds / 3600.0,
                elapsed.as_secs_f64(),
                virtual_seconds / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            ))?,
        }
        if totals.failed.is_empty() {
            Ok(())
        } else {
            Err(Failure::Told)
        }
    }

    /// Runs the seeds on as many threads as there are jobs, and tells of each that failed when it does.
    fn campaign(&self, began: Instant, form: Form, single: bool) -> Result<Totals, Failure> {
        let jobs = self
            .jobs
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get);
        let next = AtomicU64::new(self.seeds.first);
        let stop = AtomicBool::new(false);
        let take = || {
            let over = self.hours.is_some_and(|hours| began.elapsed() >= hours);
            if over || stop.load(Ordering::Relaxed) {
                return None;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            self.seeds.end.is_none_or(|end| seed < end).then_some(seed)
        };
        // Bounded, so that reports do not pile up where nobody prints them.
        let (sender, reports) = mpsc::sync_channel::<Report>(jobs);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let (sender, take) = (sender.clone(), &take);
                scope.spawn(move || {
                    while let Some(seed) = take() {
                        if sender
                            .send(quorate_sim::check_seed(seed, &self.profile))
                            .is_err()
                        {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let collected = self.collect(reports, form, single);
            stop.store(true, Ordering::Relaxed);
            collected
        })
    }

    fn collect(
        &self,
        reports: mpsc::Receiver<Report>,
        form: Form,
        single: bool,
    ) -> Result<Totals, Failure> {
        let mut totals = Totals::default();
        let mut told = Instant::now();
        for report in reports {
            totals.seeds += 1;
            totals.operations += report.operations;
            totals.succeeded += report.succeeded;
            totals.virtual_time += report.elapsed;
            if let Some(file) = &self.history {
                let written = write_history(file, &report);
                written
                    .map_err(|error| Failure::io(format!("write {}", file.display()), &error))?;
            }
            if single && form == Form::Table {
                tell_counts(&report);
            }
            if !report.violations.is_empty() {
                if form == Form::Table {
                    self.tell_failure(&report, single)?;
                }
                totals.failed.push(Failed {
                    seed: report.seed,
                    violations: report.violations,
                });
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                output::remark(&format!(
                    "    {} seeds, {} failed",
                    totals.seeds,
                    totals.failed.len()
                ));
            }
        }
        Ok(totals)
    }

    fn tell_failure(&self, report: &Report, single: bool) -> Result<(), Failure> {
        if single {
            return report
                .violations
                .iter()
                .try_for_each(|violation| output::line(violation));
        }
        let (first, others) = (&report.violations[0], report.violations.len() - 1);
        let more = if others > 0 {
            format!(" (and {others} more)")
        } else {
            String::new()
        };
        output::line(&format!(
            "seed {} failed: {first}{more}; replay: {}",
            report.seed,
            self.replay(report.seed)
        ))
    }

    fn replay(&self, seed: u64) -> String {
        format!("quorate sim --seeds {seed} --profile {}", self.profile.name)
    }
}

/// What happened in a single seed, on standard error.
fn tell_counts(report: &Report) {
    for (what, count) in &report.counts {
        output::remark(&format!("{count:>8} {what}"));
    }
    let trace: String = report
        .trace
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    output::remark(&format!("   trace {trace}"));
}

fn write_history(file: &Path, report: &Report) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    for operation in &report.history {
        writeln!(out, "{}", operation.to_json())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range() {
        let seeds = |text: &str| text.parse::<Seeds>().map(|s| (s.first, s.end));
        assert_eq!(seeds("0..1000"), Ok((0, Some(1000))));
        assert_eq!(seeds("7..=7"), Ok((7, Some(8))));
        assert_eq!(seeds("7"), Ok((7, Some(8))));
        assert_eq!(seeds("5.."), Ok((5, None)));
        for wrong in [
            "",
            "..5",
            "5..5",
            "6..5",
            "a..b",
            "-1..3",
            "18446744073709551615",
        ] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hours_may_be_parts() {
        assert_eq!(hours("0.5"), Ok(Duration::from_secs(1800)));
        assert!(hours("-1").is_err());
        assert!(hours("soon").is_err());
    }
}
