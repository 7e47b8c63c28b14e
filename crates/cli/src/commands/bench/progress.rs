//! How far a benchmark has come: a line on a terminal that replaces itself, and elsewhere nothing.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar with words beside it.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins at nothing of `total` of something.
    pub(super) fn start(what: &str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = format!("{{bar:30}} {{pos}}/{{len}} {what}{{msg}}");
            let style = ProgressStyle::with_template(&template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style)
        });
        Progress { bar }
    }

    /// So much of it is done.
    pub(super) fn at(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// Says something beside it; asked for only where somebody sees it.
    pub(super) fn say(&self, words: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!(", {}", words()));
        }
    }
}

impl Drop for Progress {
    /// The bar goes: what follows is the result.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
