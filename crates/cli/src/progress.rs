//! How far a run over many files has come: a bar on a terminal, and elsewhere a line now and then.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::output::{human_bytes, remark};

/// Between two lines where there is no terminal: often enough to see that it lives, rarely enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Progress in files and bytes.
pub(crate) struct Progress {
    files_total: u64,
    bytes_total: u64,
    files: u64,
    bytes: u64,
    /// On a terminal.
    bar: Option<ProgressBar>,
    lines: Interval,
}

impl Progress {
    /// Begins at nothing of this much.
    pub(crate) fn start(files_total: u64, bytes_total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{bar:30} {pos}/{len} files, {msg}, {eta} left");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(files_total).with_style(style)
        });
        let mut lines = interval_at(Instant::now() + LINE_EVERY, LINE_EVERY);
        lines.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Progress {
            files_total,
            bytes_total,
            files: 0,
            bytes: 0,
            bar,
            lines,
        }
    }

    /// One more file of this size is done.
    pub(crate) fn advance(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
        if let Some(bar) = &self.bar {
            bar.set_message(format!(
                "{} of {}",
                human_bytes(self.bytes),
                human_bytes(self.bytes_total)
            ));
            bar.set_position(self.files);
        }
    }

    /// Waits until a line is due.
    pub(crate) async fn due(&mut self) {
        self.lines.tick().await;
    }

    /// Says how far it has come, where no bar shows it.
    pub(crate) fn tell(&self) {
        if self.bar.is_none() {
            remark(&format!(
                "    {} of {} files, {} of {}",
                self.files,
                self.files_total,
                human_bytes(self.bytes),
                human_bytes(self.bytes_total)
            ));
        }
    }

    /// The bar goes: what follows is the result.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
