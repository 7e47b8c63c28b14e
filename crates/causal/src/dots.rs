//! Sets of dots, held as runs of counters for each actor.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Actor, Dot, Span};

/// A set of counters as disjoint runs in ascending order, no two of which touch.
///
/// Runs and not a highest counter, because a dot lost in a crash is a permanent hole (rule R6).
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Runs {
    /// Inclusive `(first, last)` pairs. Invariant: `1 <= first <= last`, and each `first` exceeds the previous `last`
    /// by at least two.
    runs: Vec<(u64, u64)>,
}

impl Runs {
    /// Whether `counter` is in the set.
    #[must_use]
    pub fn contains(&self, counter: u64) -> bool {
        let after = self.runs.partition_point(|&(first, _)| first <= counter);
        after > 0 && self.runs[after - 1].1 >= counter
    }

    /// Adds every counter of `first..=last`; says whether that added any.
    ///
    /// # Panics
    /// If `first` is zero, which is no counter and has no encoding, or above `last`.
    pub fn insert(&mut self, first: u64, last: u64) -> bool {
        assert!(
            0 < first && first <= last,
            "not a run of counters: {first}..={last}"
        );
        // The usual case by far: the next counter of an actor.
        if let Some(tail) = self.runs.last_mut()
            && first >= tail.0
            && first <= tail.1.saturating_add(1)
        {
            let grew = last > tail.1;
            tail.1 = tail.1.max(last);
            return grew;
        }
        // Every run that overlaps or touches first..=last melts into one.
        let from = self
            .runs
            .partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self
            .runs
            .partition_point(|&(start, _)| start <= last.saturating_add(1));
        if from == to {
            self.runs.insert(from, (first, last));
            return true;
        }
        let merged = (first.min(self.runs[from].0), last.max(self.runs[to - 1].1));
        if to == from + 1 && self.runs[from] == merged {
            return false;
        }
        self.runs.splice(from..to, [merged]);
        true
    }

    /// Adds everything in `other`; says whether that added any.
    pub fn join(&mut self, other: &Runs) -> bool {
        let mut grew = false;
        for &(first, last) in &other.runs {
            grew |= self.insert(first, last);
        }
        grew
    }

    /// Whether every counter of `other` is in here too.
    #[must_use]
    pub fn covers(&self, other: &Runs) -> bool {
        let mut runs = other.runs.iter();
        runs.all(|&(first, last)| self.covers_run(first, last))
    }

    /// Whether every counter of `first..=last` is in the set.
    #[must_use]
    pub fn covers_run(&self, first: u64, last: u64) -> bool {
        let after = self.runs.partition_point(|&(start, _)| start <= first);
        after > 0 && self.runs[after - 1].1 >= last
    }

    /// Takes every counter of `first..=last` away; says whether that took any.
    ///
    /// # Panics
    /// If `first` is zero or above `last`.
    pub fn remove(&mut self, first: u64, last: u64) -> bool {
        assert!(
            0 < first && first <= last,
            "not a run of counters: {first}..={last}"
        );
        let from = self.runs.partition_point(|&(_, end)| end < first);
        let to = self.runs.partition_point(|&(start, _)| start <= last);
        if from >= to {
            return false;
        }
        let before = (self.runs[from].0 < first).then(|| (self.runs[from].0, first - 1));
        let after = (self.runs[to - 1].1 > last).then(|| (last + 1, self.runs[to - 1].1));
        self.runs.splice(from..to, before.into_iter().chain(after));
        true
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Runs) -> Runs {
        let (mut mine, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        let mut both = Runs::default();
        while let (Some((a, b)), Some((c, d))) = (mine.peek().copied(), theirs.peek().copied()) {
            if a.max(c) <= b.min(d) {
                both.insert(a.max(c), b.min(d));
            }
            if b <= d {
                mine.next();
            } else {
                theirs.next();
            }
        }
        both
    }

    /// The greatest counter, if any.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.runs.last().map(|&(_, last)| last)
    }

    /// The runs, inclusive, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().copied()
    }

    /// How many runs there are (not how many counters).
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is no counter in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// A set of dots: runs of counters for each actor. The clock of a vnode is one, and so is the evidence of a record.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct DotSet {
    /// Invariant: no actor has empty runs.
    actors: BTreeMap<Actor, Runs>,
}

impl DotSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether `dot` is in the set.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.actors
            .get(&dot.actor)
            .is_some_and(|runs| runs.contains(dot.counter))
    }

    /// Adds one dot; says whether it was new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.insert_run(dot.actor, dot.counter, dot.counter)
    }

    /// Adds a dot and the stretch before it that it has to itself on its key. For evidence alone: a clock must
    /// not claim counters that belong to other keys.
    pub fn insert_span(&mut self, span: Span) -> bool {
        self.insert_run(span.dot.actor, span.first(), span.dot.counter)
    }

    /// Adds the counters `first..=last` of `actor`; says whether that added any.
    ///
    /// # Panics
    /// If `first` is zero or above `last`.
    pub fn insert_run(&mut self, actor: Actor, first: u64, last: u64) -> bool {
        self.actors.entry(actor).or_default().insert(first, last)
    }

    /// Adds everything in `other`; says whether that added any.
    pub fn join(&mut self, other: &DotSet) -> bool {
        let mut grew = false;
        for (actor, runs) in &other.actors {
            grew |= self.actors.entry(*actor).or_default().join(runs);
        }
        grew
    }

    /// Whether every dot of `other` is in here too.
    #[must_use]
    pub fn covers(&self, other: &DotSet) -> bool {
        other
            .actors
            .iter()
            .all(|(actor, runs)| self.actors.get(actor).is_some_and(|mine| mine.covers(runs)))
    }

    /// Whether the counters `first..=last` of `actor` are all in the set.
    #[must_use]
    pub fn covers_run(&self, actor: Actor, first: u64, last: u64) -> bool {
        self.actors
            .get(&actor)
            .is_some_and(|runs| runs.covers_run(first, last))
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &DotSet) -> DotSet {
        let mut both = DotSet::new();
        for (actor, runs) in &self.actors {
            if let Some(theirs) = other.actors.get(actor) {
                both.set_runs(*actor, runs.intersection(theirs));
            }
        }
        both
    }

    /// Takes everything that is in `other` away; says whether that took any.
    pub fn subtract(&mut self, other: &DotSet) -> bool {
        let mut shrank = false;
        for (actor, theirs) in &other.actors {
            let Some(mine) = self.actors.get_mut(actor) else {
                continue;
            };
            for (first, last) in theirs.iter() {
                shrank |= mine.remove(first, last);
            }
            if mine.is_empty() {
                self.actors.remove(actor);
            }
        }
        shrank
    }

    /// The runs of one actor, if it has any.
    #[must_use]
    pub fn runs(&self, actor: Actor) -> Option<&Runs> {
        self.actors.get(&actor)
    }

    /// Replaces the runs of one actor, as when they are read back from disk.
    pub fn set_runs(&mut self, actor: Actor, runs: Runs) {
        if runs.is_empty() {
            self.actors.remove(&actor);
        } else {
            self.actors.insert(actor, runs);
        }
    }

    /// Actors with their runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, &Runs)> + '_ {
        self.actors.iter().map(|(actor, runs)| (*actor, runs))
    }

    /// How many actors have a dot here.
    #[must_use]
    pub fn actors(&self) -> usize {
        self.actors.len()
    }

    /// Whether no dot is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }
}

impl fmt::Debug for DotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromIterator<Dot> for DotSet {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut set = DotSet::new();
        for dot in dots {
            set.insert(dot);
        }
        set
    }
}
