//! The rules of layout changes (R4, R12) in small: how the next layout is chosen, and how replicas move to it without a strict read
//! that misses an acknowledged write.
//!
//! - [`agreement`]: which layout is the next, with two operators who each want another.
//! - [`transition`]: from the old layout to the new, with a few writes under way, in every order of steps.
//!
//! Both are monotone: nothing that was learnt is forgotten, so that a crash is a pause. What they take for given stands in
//! `docs/decisions/0020-changing-the-layout.md`.

pub mod agreement;
pub mod transition;

use std::time::Instant;

use stateright::{Checker, Model};

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// The different states.
    pub states: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// The steps to a state that breaks what must hold, and that state; `None` if there is none.
    pub found: Option<(Vec<String>, String)>,
}

/// Visits every state; the fewest steps first, so that what it finds is short.
pub fn explore<M>(model: M) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Clone + PartialEq + Send + Sync,
    M::Action: std::fmt::Debug + Clone + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().spawn_bfs().join();
    let found = checker.discovery("judged").map(|path| {
        let end = format!("{:?}", path.last_state());
        let steps = path.into_actions().into_iter();
        (steps.map(|step| format!("{step:?}")).collect(), end)
    });
    Explored {
        states: checker.unique_state_count(),
        seconds: began.elapsed().as_secs_f64(),
        found,
    }
}
