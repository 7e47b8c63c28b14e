//! What the pure crates are not allowed to use stays forbidden in each of them.

use std::fs;
use std::path::Path;

/// Crates whose every decision must be the same in two runs of one seed.
const PURE: [&str; 7] = [
    "causal", "merkle", "protocol", "ring", "storage", "node", "sim",
];

/// Iteration order, clocks and threads: none may reach a decision. A clock is forbidden as a type or as its function.
const FORBIDDEN: [&[&str]; 5] = [
    &["std::collections::HashMap"],
    &["std::collections::HashSet"],
    &["std::time::Instant::now"],
    &["std::time::SystemTime", "std::time::SystemTime::now"],
    &["std::thread::spawn"],
];

/// The paths that the lines of a `clippy.toml` disallow; comments do not count.
fn disallowed(toml: &str) -> Vec<&str> {
    toml.lines()
        .filter_map(|line| line.trim().strip_prefix("{ path = \""))
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[test]
fn the_pure_crates_forbid_what_differs_between_two_runs() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in PURE {
        let path = crates.join(name).join("clippy.toml");
        let toml = fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}: a pure crate needs its bans", path.display()));
        let disallowed = disallowed(&toml);
        for spellings in FORBIDDEN {
            assert!(
                spellings.iter().any(|path| disallowed.contains(path)),
                "{} does not forbid {}",
                path.display(),
                spellings[0]
            );
        }
    }
}

#[test]
fn a_ban_in_a_comment_is_none() {
    assert_eq!(
        disallowed("# { path = \"a::B\" },\n    { path = \"c::D\", reason = \"x\" },"),
        ["c::D"]
    );
}
