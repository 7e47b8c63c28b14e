//! Explores the model within bounds that are given as words, and prints a counter-example if there is one:
//!
//! ```text
//! cargo run -p quorate-model --example explore -- writes=2 puts=1 faults=rollback,replacement at-most=2 \
//!     contexts=any apart=exchanges,rounds without=WritesPassRefill seconds=60 threads=2
//! ```
//!
//! Each word may be left out; the defaults are `writes=2 puts=2 moves=0 at-most=1 contexts=fresh order=breadth seconds=600 threads=1`, all faults, nothing
//! apart and no rule taken out. `order=depth` takes a tenth of the memory; its counter-examples are not the shortest.

use std::time::Duration;

use quorate_model::explore::{Apart, Bounds, Contexts};
use quorate_model::rules::{Defect, Rules};
use quorate_model::run::{Order, explore};
use quorate_model::world::{Fault, MAX_WRITES};

fn main() {
    match run() {
        Ok(()) => {}
        Err(word) => {
            eprintln!("not understood: {word}; see examples/explore.rs");
            std::process::exit(2);
        }
    }
}

fn run() -> Result<(), String> {
    let mut bounds = Bounds::small();
    let (mut order, mut seconds, mut threads) = (Order::Breadth, 600, 1);
    for word in std::env::args().skip(1) {
        let (name, value) = word.split_once('=').ok_or(&word)?;
        let number = || value.parse::<u32>().map_err(|_| word.clone());
        let list = || value.split(',').filter(|name| !name.is_empty());
        match name {
            "writes" => bounds.writes = (number()? as usize).min(MAX_WRITES),
            "puts" => bounds.puts = number()?,
            "moves" => bounds.moves = number()?.min(9) as u8,
            "at-most" => bounds.faults_max = number()?,
            "seconds" => seconds = number()?,
            "threads" => threads = number()?,
            "order" => {
                order = match value {
                    "breadth" => Order::Breadth,
                    "depth" => Order::Depth,
                    _ => return Err(word),
                }
            }
            "contexts" => {
                bounds.contexts = match value {
                    "fresh" => Contexts::Fresh,
                    "any" => Contexts::Any,
                    _ => return Err(word),
                }
            }
            "faults" => {
                let named = |name| {
                    let found = Fault::ALL.into_iter().find(|f| f.name() == name);
                    found.ok_or(word.clone())
                };
                bounds.faults = list().map(named).collect::<Result<_, _>>()?;
            }
            "apart" => {
                bounds.apart = Apart::default();
                for name in list() {
                    match name {
                        "exchanges" => bounds.apart.exchanges = true,
                        "hearings" => bounds.apart.hearings = true,
                        "rounds" => bounds.apart.rounds = true,
                        _ => return Err(word.clone()),
                    }
                }
            }
            "without" => {
                let named = |name| {
                    let found = Defect::ALL.into_iter().find(|d| format!("{d:?}") == name);
                    found.ok_or(word.clone())
                };
                let defects: Vec<Defect> = list().map(named).collect::<Result<_, _>>()?;
                bounds.rules = Rules::without(&defects);
            }
            _ => return Err(word),
        }
    }
    let explored = explore(
        &bounds,
        order,
        threads as usize,
        Duration::from_secs(seconds.into()),
    );
    if let Some(found) = &explored.found {
        println!("{found}");
    }
    println!("{explored}");
    Ok(())
}
