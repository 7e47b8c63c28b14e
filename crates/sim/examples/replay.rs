//! Replays one seed and prints its history as JSON lines, then what was wrong.
//!
//! `cargo run -p quorate-sim --example replay -- SEED [PROFILE] [KEY]`

use quorate_sim::{Profile, run_seed};

fn main() {
    let mut args = std::env::args().skip(1);
    let seed = args.next().and_then(|a| a.parse().ok()).unwrap_or(0);
    let profile = args.next().map_or(Ok(Profile::SHORT), |name| name.parse());
    let profile = profile.unwrap_or_else(|why: String| panic!("{why}"));
    let key = args.next();
    let report = run_seed(seed, &profile);
    for op in report
        .history
        .iter()
        .filter(|op| key.as_ref().is_none_or(|k| *k == op.key))
    {
        println!("{}", op.to_json());
    }
    eprintln!("{:?} in {:?}", report.counts, report.elapsed);
    for violation in &report.violations {
        eprintln!("{violation}");
    }
}
