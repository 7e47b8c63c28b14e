//! How far a run over many things has come: a bar on a terminal, and elsewhere a line now and then.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::output::{human_bytes, remark};

/// Between two lines where there is no terminal: often enough to see that it lives, rarely enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Progress in things, such as files, and in bytes.
pub(crate) struct Progress {
    /// What the things are called.
    noun: &'static str,
    total: Option<u64>,
    bytes_total: Option<u64>,
    done: u64,
    bytes: u64,
    began: Instant,
    /// On a terminal.
    bar: Option<ProgressBar>,
    lines: Interval,
}

impl Progress {
    /// Begins at nothing of this much, as far as that is known.
    pub(crate) fn start(
        noun: &'static str,
        total: Option<u64>,
        bytes_total: Option<u64>,
    ) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            // The bar shows whichever end is known.
            let (template, length) = match (total, bytes_total) {
                (Some(total), _) => ("{bar:30} {msg}, {eta} left", Some(total)),
                (None, Some(bytes)) => ("{bar:30} {msg}, {eta} left", Some(bytes)),
                (None, None) => ("{spinner} {msg}", None),
            };
            let style = ProgressStyle::with_template(template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            match length {
                Some(length) => ProgressBar::new(length).with_style(style),
                None => ProgressBar::new_spinner().with_style(style),
            }
        });
        let mut lines = interval_at(Instant::now() + LINE_EVERY, LINE_EVERY);
        lines.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Progress {
            noun,
            total,
            bytes_total,
            done: 0,
            bytes: 0,
            began: Instant::now(),
            bar,
            lines,
        }
    }

    /// One more thing of this size is done.
    pub(crate) fn advance(&mut self, size: u64) {
        self.done += 1;
        self.bytes += size;
        if let Some(bar) = &self.bar {
            // Words for every thing would cost more than many a thing.
            if self.done.is_multiple_of(64) || self.total.is_some_and(|t| t < 10_000) {
                bar.set_message(self.words());
            }
            bar.set_position(match self.total {
                Some(_) => self.done,
                None => self.bytes,
            });
        }
    }

    /// Waits until a line is due.
    pub(crate) async fn due(&mut self) {
        self.lines.tick().await;
    }

    /// Says how far it has come, where no bar shows it.
    pub(crate) fn tell(&self) {
        if self.bar.is_none() {
            remark(&format!("    {}", self.words()));
        }
    }

    fn words(&self) -> String {
        let of = |total: Option<String>| total.map_or_else(String::new, |t| format!(" of {t}"));
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        format!(
            "{}{} {}, {}{}, {:.0} a second",
            self.done,
            of(self.total.map(|t| t.to_string())),
            self.noun,
            human_bytes(self.bytes),
            of(self.bytes_total.map(human_bytes)),
            self.done as f64 / seconds
        )
    }

    /// The bar goes: what follows is the result.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
