//! The quorate binary: words in, tables and JSON out.
//!
//! Each command is a file under `commands`. Results go to standard output, in the form that `-o` asks for; whatever
//! is said beside them goes to standard error. The exit code is 0 on success, 1 where something was refused or failed,
//! 2 on wrong usage and 3 where a key is absent.

mod checkpoint;
mod cluster;
mod commands;
mod content_type;
mod explain;
mod failure;
mod feed;
mod lines;
mod local;
mod logging;
mod ndjson;
mod options;
mod output;
mod progress;
mod runtime;
mod tally;
mod tree;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use quorate_server::LogFormat;

use crate::failure::Failure;
use crate::output::Form;

/// A request allocates some dozens of small buffers, on one thread, and frees them within a millisecond.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A leaderless key-value store: nodes, clusters, and what is in them.
#[derive(Parser)]
#[command(
    name = "quorate",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 3 not found. \
                  Durations are written 250ms, 2s, 1h30m."
)]
struct Cli {
    /// How results are printed
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        global = true
    )]
    output: Form,

    /// What is logged to standard error: a level, or directives as `info,quorate_node=debug`
    #[arg(long, value_name = "FILTER", env = "QUORATE_LOG", global = true)]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(commands::dev::Dev),
    Init(commands::init::Init),
    Admit(commands::admit::Admit),
    Server(commands::server::Server),
    Ready(commands::ready::Ready),
    Status(commands::status::Status),
    Cluster(commands::cluster::Cluster),
    Repair(commands::repair::Repair),
    Get(commands::get::Get),
    Put(commands::put::Put),
    Delete(commands::delete::Delete),
    Bucket(commands::bucket::Bucket),
    List(commands::list::List),
    Import(commands::import::Import),
    Export(commands::export::Export),
    Verify(commands::verify::Verify),
    Bench(commands::bench::Bench),
    Sim(commands::sim::Sim),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
}

impl Command {
    /// A node's log is its history; any other command says what it has to say by itself.
    fn default_log(&self) -> &'static str {
        match self {
            Command::Server(_) => "info",
            _ => "warn",
        }
    }

    /// How its log is written; `None` if it begins to log by itself, once it has read what says how.
    fn log_format(&self) -> Option<LogFormat> {
        match self {
            Command::Server(_) => None,
            Command::Dev(dev) => Some(dev.log_format),
            _ => Some(LogFormat::Text),
        }
    }

    fn run(self, form: Form, log: &str) -> Result<(), Failure> {
        match self {
            Command::Dev(dev) => dev.run(form),
            Command::Init(init) => init.run(form),
            Command::Admit(admit) => admit.run(form),
            Command::Server(server) => server.run(form, log),
            Command::Ready(ready) => ready.run(form),
            Command::Status(status) => status.run(form),
            Command::Cluster(cluster) => cluster.run(form),
            Command::Repair(repair) => repair.run(form),
            Command::Get(get) => get.run(form),
            Command::Put(put) => put.run(form),
            Command::Delete(delete) => delete.run(form),
            Command::Bucket(bucket) => bucket.run(form),
            Command::List(list) => list.run(form),
            Command::Import(import) => import.run(form),
            Command::Export(export) => export.run(form),
            Command::Verify(verify) => verify.run(form),
            Command::Bench(bench) => bench.run(form),
            Command::Sim(sim) => sim.run(form),
            Command::Completions(completions) => completions.run(Cli::command()),
            Command::Man(man) => man.run(form, Cli::command()),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = cli.log.as_deref().unwrap_or(cli.command.default_log());
    let started = match cli.command.log_format() {
        Some(format) => logging::start(filter, format),
        None => Ok(()),
    };
    let result = started.and_then(|()| cli.command.run(cli.output, filter));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.code()
        }
    }
}
