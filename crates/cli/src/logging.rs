//! The log, to standard error.

use std::io::IsTerminal;

use quorate_server::LogFormat;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// Starts logging what `filter` lets through.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Failure::Usage(format!(
            "'{filter}' is no filter for the log ({error}): give a level, as in 'debug', or directives, as in \
             'info,quorate_node=debug'"
        ))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        // What is said stands beside when and where, so that a search needs no path.
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
    Ok(())
}
