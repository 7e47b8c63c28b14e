//! Runs the model checker, and tells what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::explore::{Bounds, Step};
use crate::judge::Breach;
use crate::replica::Replica;
use crate::world::World;

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// The different states, worlds that differ only in how replicas are called counted once.
    pub states: usize,
    /// Steps of the longest way that was followed; in [`Order::Breadth`], the most that any state needs.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether every state within the bounds was visited; not so if a breach was found or the time was up.
    pub is_complete: bool,
    /// What was broken, and a way there.
    pub found: Option<Counterexample>,
}

/// A way to a state that breaks what must hold.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// What is broken.
    pub breach: Breach,
    /// The steps, each with the world before it.
    pub steps: Vec<(World, Step)>,
    /// The world at the end.
    pub end: World,
}

/// In which order states are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Those first that take the fewest steps: counter-examples are short.
    Breadth,
    /// Each way to its end: takes a tenth of the memory.
    Depth,
}

/// Explores everything within the bounds on so many threads, until something is broken or the time is up.
#[must_use]
pub fn explore(bounds: &Bounds, order: Order, threads: usize, limit: Duration) -> Explored {
    let started = Instant::now();
    let builder = bounds.clone().checker().threads(threads).timeout(limit);
    match order {
        Order::Breadth => told(bounds, builder.spawn_bfs().join(), started, limit),
        Order::Depth => told(bounds, builder.spawn_dfs().join(), started, limit),
    }
}

fn told(
    bounds: &Bounds,
    checker: impl Checker<Bounds>,
    started: Instant,
    limit: Duration,
) -> Explored {
    let took = started.elapsed();
    let found = checker.discovery("judged").map(|path| {
        let end = path.last_state().clone();
        let breach = bounds
            .judge(&end)
            .expect_err("the checker has found a breach");
        let steps = path.into_vec().into_iter();
        let steps = steps
            .filter_map(|(world, step)| step.map(|step| (world, step)))
            .collect();
        Counterexample { breach, steps, end }
    });
    Explored {
        states: checker.unique_state_count(),
        // The checker counts states on the way, the first among them.
        depth: checker.max_depth().saturating_sub(1),
        is_complete: found.is_none() && took < limit,
        took,
        found,
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} steps deep, in {:.1} s",
            self.states,
            self.depth,
            self.took.as_secs_f64()
        )?;
        match &self.found {
            Some(found) => write!(f, ": {:?} after {} steps", found.breach, found.steps.len()),
            None if self.is_complete => write!(f, ", all within the bounds: nothing broken"),
            None => write!(f, ", not all within the bounds: nothing broken so far"),
        }
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (world, step) in &self.steps {
            writeln!(f, "{}\n  {step:?}", line(world))?;
        }
        write!(
            f,
            "{}\n  {:?}; owed {:?}",
            line(&self.end),
            self.breach,
            self.end.owed
        )
    }
}

/// The replicas in a line; sets of dots in binary digits, the first write's the last digit.
fn line(world: &World) -> String {
    let replica = |r: &Replica| {
        let amnesiac = if r.intact() { "" } else { ", amnesiac" };
        format!(
            "[live {:b}, evidence {:b}, own {:b}, adopted {:b}{amnesiac}]",
            r.record.live, r.record.evidence, r.own, r.adopted
        )
    };
    world.replicas.each_ref().map(replica).join(" ")
}
