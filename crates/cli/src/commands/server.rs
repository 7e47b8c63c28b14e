//! `quorate server`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use quorate_server::config::KEYS;
use quorate_server::{NodeConfig, RunningNode};
use tracing::info;

use crate::failure::Failure;
use crate::logging;
use crate::output::{self, Form};
use crate::runtime;

/// Run one node
///
/// Reads the file, then QUORATE_… variables of the environment, then the flags; what is read later wins. On SIGTERM and SIGINT the
/// node takes no more requests, answers those it has, closes its files and ends; a second signal ends it at once, which loses nothing
/// that was acknowledged.
#[derive(clap::Args)]
pub(crate) struct Server {
    /// The node's configuration, which `quorate init` writes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Say whether the node could start with this configuration, and what it amounts to, and do not start it
    #[arg(long)]
    check_config: bool,

    #[command(flatten)]
    keys: KeyFlags,
}

/// A flag for each key of the configuration, by the server's own table.
struct KeyFlags(BTreeMap<String, String>);

impl clap::Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        let flags = KEYS.iter().map(|key| {
            let help = match key.default {
                Some(default) => format!(
                    "{} [default: {default}] [env: {}]",
                    key.meaning, key.variable
                ),
                None => format!("{} [env: {}]", key.meaning, key.variable),
            };
            clap::Arg::new(key.name)
                .long(key.name.replace('_', "-"))
                .value_name("VALUE")
                .help(help)
                .help_heading("Keys of the configuration")
        });
        command.args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = KEYS.iter().filter_map(|key| {
            let value = matches.get_one::<String>(key.name)?;
            Some((key.name.to_owned(), value.clone()))
        });
        Ok(KeyFlags(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl Server {
    pub(crate) fn run(self, form: Form, log: &str) -> Result<(), Failure> {
        // What is not UTF-8 cannot be a value of ours.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let config =
            NodeConfig::load(&self.config, environment, self.keys.0).map_err(Failure::new)?;
        if self.check_config {
            let checked = config.check().map_err(Failure::new)?;
            return match form {
                Form::Json => output::json(
                    &serde_json::json!({ "valid": true, "explained": checked.to_string() }),
                ),
                Form::Table => output::line(checked.to_string().trim_end()),
            };
        }
        logging::start(log, config.log_format)?;
        runtime::block_on(async move {
            let stop = runtime::stop_signal()?;
            let mut node = RunningNode::start(config).map_err(Failure::new)?;
            let signal = tokio::select! {
                ended = node.wait() => return ended.map_err(Failure::new),
                signal = stop => signal,
            };
            info!(signal, "closing");
            let again = runtime::stop_signal()?;
            node.request_stop();
            tokio::select! {
                ended = node.wait() => ended.map_err(Failure::new),
                signal = again => {
                    // Not by leaving this function: dropping the node waits for it.
                    output::remark(&format!("error: {signal} before everything was closed"));
                    std::process::exit(1);
                }
            }
        })
    }
}
