//! What a history of real processes is judged by, and kept as.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_sim::history::{Kind, Operation};
use quorate_sim::oracle;

use crate::clients::{Client, Quorums, REPLICAS, Recorder};
use crate::process::wait_until;

/// How long a cluster that was mended may take to do what it must. It takes a second; a busy machine takes longer.
pub const BOUND: Duration = Duration::from_secs(60);

/// Tells clients to end, also when who made them has panicked and waits for them.
#[derive(Debug)]
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What each key shows once everything is quiet: to reads of all replicas, and at each node.
///
/// # Panics
/// If these nodes do not come to show the same.
pub fn at_rest(
    client: &mut Client<'_>,
    nodes: &[usize],
    keys: &[String],
) -> BTreeMap<String, Vec<u64>> {
    let all = Quorums::of_primaries(REPLICAS, REPLICAS);
    let own = Quorums::of_primaries(REPLICAS, 1);
    let mut shown = BTreeMap::new();
    for (number, key) in keys.iter().enumerate() {
        let mut seen = Vec::new();
        let equal = wait_until(BOUND, || {
            // The first read repairs, in the background, what it finds to differ; the second shows what came of it.
            let first = client.read(nodes[number % nodes.len()], key, all);
            let second = client.read(nodes[(number + 1) % nodes.len()], key, all);
            // And each node shows what it has itself.
            let each = nodes.iter().map(|node| client.read(*node, key, own));
            seen = [first, second].into_iter().chain(each).collect();
            seen.iter()
                .all(|values| values.is_some() && *values == seen[0])
        });
        assert!(
            equal,
            "key {key}: {BOUND:?} after the mending, two reads of all replicas and one of each node show {seen:?}"
        );
        let values = seen[0].take().expect("it was answered");
        shown.insert(key.clone(), values);
    }
    shown
}

/// All that is wrong with a history.
///
/// # Panics
/// If a key of it was not read at rest.
#[must_use]
pub fn judge(history: &[Operation], at_rest: &BTreeMap<String, Vec<u64>>) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for op in history {
        by_key.entry(&op.key).or_default().push(op.clone());
    }
    let mut found = Vec::new();
    for (key, operations) in &by_key {
        let values = at_rest.get(*key).expect("each key was read");
        found.extend(oracle::judge(key, REPLICAS, operations, values));
    }
    for op in history {
        if let Kind::Get(shown) = &op.kind {
            let mut values = shown.clone();
            values.sort_unstable();
            values.dedup();
            if values.len() < shown.len() {
                found.push(format!(
                    "key {}: get {} shows a value twice: {shown:?}",
                    op.key, op.id
                ));
            }
        }
    }
    found
}

/// Keeps what is needed to understand a failure, if there was one.
#[derive(Debug)]
pub struct Keeps<'a> {
    /// Where the nodes' logs are.
    pub logs: PathBuf,
    /// Where they are kept.
    pub to: PathBuf,
    /// What clients did.
    pub recorder: &'a Recorder,
}

impl Drop for Keeps<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let dir = &self.to;
        // A second panic would end the process, and leave its children behind.
        let _ = fs::create_dir_all(dir);
        let lines: Vec<String> = self
            .recorder
            .history()
            .iter()
            .map(Operation::to_json)
            .collect();
        let _ = fs::write(dir.join("history.jsonl"), lines.join("\n"));
        for entry in fs::read_dir(&self.logs).into_iter().flatten().flatten() {
            if entry.path().extension() == Some(OsStr::new("log")) {
                let _ = fs::copy(entry.path(), dir.join(entry.file_name()));
            }
        }
        eprintln!("--- history and logs are in {}", dir.display());
    }
}

/// How many operations are so.
#[must_use]
pub fn count(history: &[Operation], of: impl Fn(&Operation) -> bool) -> usize {
    history.iter().filter(|op| of(op)).count()
}
