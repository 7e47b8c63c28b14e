//! What a run over many files left out, and what went wrong in it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::output;
use crate::tree::Skip;

/// How many of each kind are told one by one. The others are counted: the list is held in memory, and nobody reads
/// the thousandth line.
const LISTED_MAX: usize = 100;

/// The exceptions of a run.
#[derive(Default)]
pub(crate) struct Tally {
    skipped: BTreeMap<Skip, u64>,
    skips: Vec<(String, Skip)>,
    failed: u64,
    failures: Vec<Problem>,
}

/// Something that went wrong with one key or file.
#[derive(Clone, Serialize)]
pub(crate) struct Problem {
    what: String,
    why: String,
}

/// What was left out, as it is written in JSON.
#[derive(Serialize)]
struct Skipped {
    path: String,
    why: &'static str,
}

impl Tally {
    /// Counts something that was left out on purpose.
    pub(crate) fn skip(&mut self, path: &Path, why: Skip) {
        *self.skipped.entry(why).or_default() += 1;
        if self.skips.len() < LISTED_MAX {
            self.skips.push((path.display().to_string(), why));
        }
    }

    /// Counts something that went wrong with a key or file.
    pub(crate) fn fail(&mut self, what: &str, why: &str) {
        self.failed += 1;
        if self.failures.len() < LISTED_MAX {
            self.failures.push(Problem {
                what: what.to_owned(),
                why: why.to_owned(),
            });
        }
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.values().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Says each exception on standard error, as far as they are listed.
    pub(crate) fn tell(&self) {
        for (path, why) in &self.skips {
            output::remark(&format!("skipped {path}: {}", why.words()));
        }
        let unlisted = self.skipped() - self.skips.len() as u64;
        if unlisted > 0 {
            output::remark(&format!("skipped {unlisted} more"));
        }
        for problem in &self.failures {
            output::remark(&format!("failed {}: {}", problem.what, problem.why));
        }
        let unlisted = self.failed - self.failures.len() as u64;
        if unlisted > 0 {
            output::remark(&format!("failed {unlisted} more"));
        }
    }

    /// The same as JSON: `skipped` by reason, and lists of at most [`LISTED_MAX`].
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let by_reason: BTreeMap<&str, u64> = Skip::ALL
            .iter()
            .map(|why| (why.name(), self.skipped.get(why).copied().unwrap_or(0)))
            .collect();
        let skips: Vec<Skipped> = self
            .skips
            .iter()
            .map(|(path, why)| Skipped {
                path: path.clone(),
                why: why.name(),
            })
            .collect();
        serde_json::json!({
            "skipped": by_reason,
            "skipped_paths": skips,
            "failed": self.failed,
            "failures": self.failures,
        })
    }
}
