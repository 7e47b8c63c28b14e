//! Judges a history.
//!
//! The oracle knows what every client asked and was told, and nothing of what the nodes did inside. Its reasoning:
//!
//! - A put that was acknowledged is *live* or *superseded*. Superseded means: some put or delete whose context held the
//!   value may have happened. A delete without a context may have removed whatever was there, so it supersedes every
//!   put that began before the delete ended; where the delete's outcome is unknown, it supersedes any put.
//! - A drop of the bucket supersedes, on every key, every put that was not acknowledged, and every put that began before the drop ended; where its outcome is
//!   unknown, any put. So it does for a put whose `w` does not meet the majority that knows of the drop. What was
//!   acknowledged before an acknowledged drop began is removed by it, and no get shows it whose quorum meets the majority
//!   that knows of the drop.
//! - A write on a condition read first and removed what it found, so what goes for deletes without a context goes for it
//!   too, but for this: on condition that there was nothing, or just one value that is named, it found nothing live besides.
//!   It supersedes that one value, and no other: whatever else is gone, somebody else has removed. What its read must have
//!   found it is sure to have removed, also where that was only the removal of a value that others still hold; so never
//!   again is such a value seen beside it.
//! - Nor is a condition said to hold that did not. A write on condition of absence that is acknowledged, though a put was
//!   acknowledged before it began that its read quorum must have found and that nothing had removed, has lied; so has one
//!   on condition of one value, if a put is there that leads neither to that value nor to a delete. And a write that is
//!   refused since the key is absent says what a get says that shows nothing.
//! - An operation that failed did nothing. One whose outcome is unknown may have happened at any time after it
//!   began, and may never have.
//! - What a put or delete with a context acknowledged to remove must never be seen again once everything is quiet.
//! - Values shown together are concurrent: none was in the context of another. For a put brings its value and the
//!   removal of its context in one record, so no replica can show the one without hiding the other.
//! - A get whose quorum overlaps that of an acknowledged put (`r + w > n`) that ended before the get began shows the
//!   put's value, or something that superseded it, through however many steps, each of which began before the get
//!   ended. This is *regular*, not atomic: two gets may still disagree about a put that is under way.
//! - What any get has shown is never lost, whatever its put's outcome: it is live or superseded at rest, and what its
//!   writer had seen stays removed. For its reader may have removed it, and must not find what it had replaced.
//! - Nor does such a get show what an acknowledged put or delete had removed before the get began.
//! - A put whose value is to end may be gone from its time on, less what clocks may be apart; it counts as superseded then,
//!   by nobody. From its time on, and what clocks may be apart, nothing shows it. A write that read first need not have
//!   removed it, as it may have found it dropped.
//! - A listing is a get of every key at once that shows no values. One whose quorum overlaps lists a key if a put of it was
//!   acknowledged before the listing began, unless a delete may have removed what the put led to; and it does not list
//!   a key of which all that was ever put had been removed before. No listing shows a key that nobody put. At rest it
//!   shows just the keys that have values (`world` compares).
//!
//! - Where fallbacks may stand in for primaries, `w` and `r` alone make no quorums overlap. What counts then is how many
//!   primaries are sure to have taken part: as many as `pw` and `pr` ask for, or as must have since there are no more
//!   fallbacks. Wherever quorums are said to overlap here, these numbers are meant.
//!
//! Dots do not appear here: `world` checks as nodes speak that no dot ever names two values.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Condition, Kind, Operation, Outcome};

/// Judges everything that one key saw. `n` is its number of replicas; `at_rest` is what a read of all replicas showed once
/// everything was quiet.
#[must_use]
pub fn judge(key: &str, n: usize, history: &[Operation], at_rest: &[u64]) -> Vec<String> {
    let judge = Judge::new(key, n, history);
    let mut found = Vec::new();
    judge.acknowledged_puts_survive(at_rest, &mut found);
    judge.removed_stays_removed(at_rest, &mut found);
    judge.strict_gets_are_regular(&mut found);
    judge.conditions_were_kept(&mut found);
    for op in &judge.operations {
        if let Kind::Get(shown) = &op.kind {
            judge.siblings_are_concurrent(&format!("get {}", op.id), shown, &mut found);
        }
    }
    judge.siblings_are_concurrent("the read at rest", at_rest, &mut found);
    found
}

/// The latest that a write may have read and happened. Unknown to its client, it may still be on its way.
fn latest(op: &Operation) -> u64 {
    match op.outcome {
        Outcome::Unknown => u64::MAX,
        Outcome::Ok | Outcome::Fail => op.end,
    }
}

/// Judges what listings said of one key. `n` is its number of replicas.
#[must_use]
pub fn judge_listings(key: &str, n: usize, history: &[Operation]) -> Vec<String> {
    let judge = Judge::new(key, n, history);
    let mut found = Vec::new();
    for list in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        let Kind::List(keys) = &list.kind else {
            continue;
        };
        if !keys.is_sorted_by(|a, b| a < b) {
            found.push(format!("listing {} is out of order: {keys:?}", list.id));
        }
        let r = list.strict.1;
        if keys.iter().any(|k| k == key) {
            let mut begun = judge
                .puts
                .values()
                .filter(|put| put.start <= list.end && put.outcome != Outcome::Fail);
            let gone = |put: &Operation| {
                if has_ended(put, list.start) {
                    return true;
                }
                let mut removers = judge.removers(put);
                removers.any(|op| op.acknowledged() && op.end < list.start && op.strict.0 + r > n)
            };
            if begun.all(|put| gone(put)) {
                found.push(format!(
                    "key {key}: listing {} (r={r}) shows it, though nothing was there any more when it began",
                    list.id
                ));
            }
            continue;
        }
        for put in judge.puts.values() {
            let must_be_seen = put.acknowledged() && put.end < list.start && put.strict.0 + r > n;
            if must_be_seen && !judge.accounted_for(put.id, &[], list.end) {
                found.push(format!(
                    "key {key}: listing {} (r={r}) lacks it: put {} (w={}) was acknowledged before it began",
                    list.id, put.id, put.strict.0
                ));
            }
        }
    }
    found
}

/// Whether nothing may show a put's value any more at that time, since its own is up.
fn has_ended(put: &Operation, at: u64) -> bool {
    put.ends.is_some_and(|(_, hidden)| hidden < at)
}

struct Judge<'a> {
    key: &'a str,
    n: usize,
    /// Of this key, in the order of their numbers.
    operations: Vec<&'a Operation>,
    puts: BTreeMap<u64, &'a Operation>,
    /// For each value, the writes that may have removed it.
    superseders: BTreeMap<u64, Vec<&'a Operation>>,
    /// Every value that some get showed.
    shown: BTreeSet<u64>,
}

impl<'a> Judge<'a> {
    fn new(key: &'a str, n: usize, history: &'a [Operation]) -> Self {
        let concerns = |op: &&Operation| op.key == key || op.kind == Kind::Drop;
        let operations: Vec<&Operation> = history.iter().filter(concerns).collect();
        let puts: BTreeMap<u64, &Operation> = operations
            .iter()
            .filter(|op| op.kind == Kind::Put)
            .map(|op| (op.id, *op))
            .collect();
        let mut superseders: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
        for op in operations.iter().filter(|op| op.may_have_written()) {
            // What it may have found live besides what its client had seen.
            let found: Vec<u64> = match &op.condition {
                Some(Condition::Absent) => Vec::new(),
                Some(Condition::One(values)) => values.clone(),
                Some(Condition::Present) | None if op.reads_first() => {
                    let puts = puts.values().filter(|put| put.start < latest(op));
                    puts.map(|put| put.id).filter(|id| *id != op.id).collect()
                }
                None if op.kind == Kind::Drop => {
                    // A put to fewer replicas than meet those that know of a drop may be taken by some that do not, and go
                    // with the old life although it began later; and so may one that was never acknowledged, which is on
                    // fewer still, and which a get of few replicas may have shown.
                    let unheard =
                        |put: &Operation| !put.acknowledged() || put.strict.0 + op.strict.0 <= n;
                    let puts = puts.values();
                    puts.filter(|put| put.start < latest(op) || unheard(put))
                        .map(|put| put.id)
                        .collect()
                }
                _ => Vec::new(),
            };
            let seen = op.seen.iter().flatten().copied();
            let may_remove: BTreeSet<u64> = seen.chain(found).collect();
            for value in may_remove {
                superseders.entry(value).or_default().push(op);
            }
        }
        let shown = operations
            .iter()
            .filter_map(|op| match &op.kind {
                Kind::Get(shown) => Some(shown),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        Judge {
            key,
            n,
            operations,
            puts,
            superseders,
            shown,
        }
    }

    fn acknowledged_puts_survive(&self, at_rest: &[u64], found: &mut Vec<String>) {
        for put in self.puts.values() {
            let known = match (put.acknowledged(), self.shown.contains(&put.id)) {
                (true, _) => "acknowledged",
                (_, true) => "shown",
                _ => continue,
            };
            if !self.accounted_for(put.id, at_rest, u64::MAX) {
                found.push(format!(
                    "key {}: put {} was {known} and is lost: at rest there is {at_rest:?}, and nothing superseded it",
                    self.key, put.id
                ));
            }
        }
    }

    fn removed_stays_removed(&self, at_rest: &[u64], found: &mut Vec<String>) {
        for value in at_rest {
            let Some(put) = self.puts.get(value) else {
                found.push(format!(
                    "key {}: at rest there is value {value}, which nobody put there",
                    self.key
                ));
                continue;
            };
            if put.outcome == Outcome::Fail {
                found.push(format!(
                    "key {}: put {value} was refused and is there at rest",
                    self.key
                ));
            }
            if has_ended(put, u64::MAX) {
                found.push(format!(
                    "key {}: value {value} is there at rest, and its time is long up",
                    self.key
                ));
            }
            for op in self.removers(put) {
                found.push(format!(
                    "key {}: value {value} is there at rest, though operation {} removed it",
                    self.key, op.id
                ));
            }
        }
    }

    /// The writes that happened, and are sure to have removed what a put wrote: they were acknowledged, or their value was
    /// shown.
    fn removers(&self, put: &Operation) -> impl Iterator<Item = &'a Operation> {
        let happened = |op: &Operation| op.acknowledged() || self.shown.contains(&op.id);
        self.operations
            .iter()
            .copied()
            .filter(move |op| happened(op) && self.surely_removes(op, put))
    }

    /// Whether a write, if it happened, removed what a put wrote. Of several values that its condition names it found one,
    /// and nobody knows which.
    fn surely_removes(&self, op: &Operation, put: &Operation) -> bool {
        if !op.kind.is_write() || op.id == put.id {
            return false;
        }
        let saw = op.seen.as_ref().is_some_and(|s| s.contains(&put.id));
        let named = op.condition == Some(Condition::One(vec![put.id]));
        // A drop need not see. But a put to fewer replicas than meet those that know of the drop may be taken in a life that
        // few have heard of, and that the drop begins too.
        let dropped = op.kind == Kind::Drop
            && put.acknowledged()
            && put.end < op.start
            && put.strict.0 + op.strict.0 > self.n;
        saw || named || dropped || self.must_have_found(op, put)
    }

    /// Whether the read that an operation began with must have found a put, or that it was removed.
    fn must_have_found(&self, op: &Operation, put: &Operation) -> bool {
        op.reads_first()
            && put.acknowledged()
            && put.end < op.start
            && put.strict.0 + op.strict.1 > self.n
            && put.ends.is_none_or(|(absent, _)| latest(op) < absent)
    }

    fn conditions_were_kept(&self, found: &mut Vec<String>) {
        for op in &self.operations {
            let Some(condition) = &op.condition else {
                continue;
            };
            let stood: &[u64] = match condition {
                Condition::One(values) => values,
                Condition::Absent | Condition::Present => &[],
            };
            let happened = op.acknowledged() || self.shown.contains(&op.id);
            // The values that its answer says were all there were.
            let told = match (condition, happened, op.condition_failed) {
                (Condition::Absent | Condition::One(_), true, _) => Some(stood),
                (Condition::Present, _, true) => Some(&[][..]),
                _ => None,
            };
            for put in self.puts.values() {
                let Some(stood) = told.filter(|_| self.must_have_found(op, put)) else {
                    continue;
                };
                if !self.leads_to(put.id, stood, latest(op), Some(op.id)) {
                    found.push(format!(
                        "key {}: operation {} was told by its condition ({condition:?}) that {stood:?} is all there is: put \
                         {} was acknowledged before it began",
                        self.key, op.id, put.id
                    ));
                }
            }
            let needs_a_value = match condition {
                Condition::Absent => op.condition_failed,
                Condition::Present | Condition::One(_) => happened,
            };
            let may_stand = |put: &&&Operation| {
                put.may_have_written() && put.start < latest(op) && put.id != op.id
            };
            if needs_a_value && self.puts.values().filter(may_stand).count() == 0 {
                found.push(format!(
                    "key {}: operation {} found a value where nobody had put any",
                    self.key, op.id
                ));
            }
        }
    }

    fn strict_gets_are_regular(&self, found: &mut Vec<String>) {
        for get in self
            .operations
            .iter()
            .filter(|op| op.outcome == Outcome::Ok)
        {
            let Kind::Get(shown) = &get.kind else {
                continue;
            };
            for value in shown {
                let known = self.puts.get(value);
                if known.is_none_or(|put| put.start > get.end || put.outcome == Outcome::Fail) {
                    found.push(format!(
                        "key {}: get {} showed value {value}, which was not written",
                        self.key, get.id
                    ));
                }
                if known.is_some_and(|put| has_ended(put, get.start)) {
                    found.push(format!(
                        "key {}: get {} showed value {value}, whose time was up before it began",
                        self.key, get.id
                    ));
                }
                for op in known.into_iter().flat_map(|put| self.removers(put)) {
                    let overlaps = op.strict.0 + get.strict.1 > self.n;
                    if overlaps && op.acknowledged() && op.end < get.start {
                        found.push(format!(
                            "key {}: strict get {} (r={}) showed value {value}: operation {} (w={}) had removed it before",
                            self.key, get.id, get.strict.1, op.id, op.strict.0
                        ));
                    }
                }
            }
            for put in self.puts.values() {
                let overlaps = put.strict.0 + get.strict.1 > self.n;
                if !overlaps || !put.acknowledged() || put.end >= get.start {
                    continue;
                }
                if !self.accounted_for(put.id, shown, get.end) {
                    found.push(format!(
                        "key {}: strict get {} (r={}) showed {shown:?}: put {} (w={}) was acknowledged before it began",
                        self.key, get.id, get.strict.1, put.id, put.strict.0
                    ));
                }
            }
        }
    }

    /// Whether `value` is shown, or was superseded by a delete or by puts that lead to something shown, all begun before
    /// `until`.
    fn accounted_for(&self, value: u64, shown: &[u64], until: u64) -> bool {
        self.leads_to(value, shown, until, None)
    }

    /// The same, where `but` had no part in it.
    fn leads_to(&self, value: u64, shown: &[u64], until: u64, but: Option<u64>) -> bool {
        let mut open = vec![value];
        let mut visited: BTreeSet<u64> = but.into_iter().collect();
        while let Some(value) = open.pop() {
            if shown.contains(&value) {
                return true;
            }
            if !visited.insert(value) {
                continue;
            }
            let ends = self.puts.get(&value).and_then(|put| put.ends);
            if ends.is_some_and(|(absent, _)| absent <= until) {
                return true;
            }
            for op in self.superseders.get(&value).into_iter().flatten() {
                if op.start > until || Some(op.id) == but {
                    continue;
                }
                if matches!(op.kind, Kind::Delete | Kind::Drop) {
                    return true;
                }
                open.push(op.id);
            }
        }
        false
    }

    fn siblings_are_concurrent(&self, whose: &str, shown: &[u64], found: &mut Vec<String>) {
        for value in shown {
            let Some(put) = self.puts.get(value) else {
                continue;
            };
            for older in shown {
                let other = self.puts.get(older);
                if other.is_some_and(|older| self.surely_removes(put, older)) {
                    found.push(format!(
                        "key {}: {whose} showed {older} beside {value}, whose writer had seen it",
                        self.key
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(id: u64, kind: Kind, seen: Option<&[u64]>, times: (u64, u64)) -> Operation {
        Operation {
            id,
            process: 0,
            key: "k".into(),
            kind,
            seen: seen.map(<[u64]>::to_vec),
            condition: None,
            condition_failed: false,
            ttl_us: None,
            ends: None,
            quorum: (2, 2),
            strict: (2, 2),
            start: times.0,
            end: times.1,
            outcome: Outcome::Ok,
            node: 0,
        }
    }

    fn on(condition: Condition, mut op: Operation) -> Operation {
        op.condition = Some(condition);
        op
    }

    fn refused(mut op: Operation) -> Operation {
        op.condition_failed = true;
        op.outcome = Outcome::Fail;
        op
    }

    fn unknown(mut op: Operation) -> Operation {
        op.outcome = Outcome::Unknown;
        op
    }

    fn found(history: &[Operation], at_rest: &[u64]) -> Vec<String> {
        judge("k", 3, history, at_rest)
    }

    #[test]
    fn a_lost_put_is_found() {
        let history = [op(0, Kind::Put, None, (0, 1))];
        assert_eq!(found(&history, &[0]), Vec::<String>::new());
        assert!(found(&history, &[])[0].contains("is lost"));
    }

    #[test]
    fn a_put_may_be_superseded_by_one_of_unknown_outcome_that_is_there() {
        let second = unknown(op(1, Kind::Put, Some(&[0]), (2, 3)));
        let history = [op(0, Kind::Put, None, (0, 1)), second];
        assert_eq!(found(&history, &[1]), Vec::<String>::new());
        assert_eq!(found(&history, &[0]), Vec::<String>::new());
        assert!(found(&history, &[])[0].contains("put 0 was acknowledged and is lost"));
        assert!(found(&history, &[0, 1])[0].contains("beside"));
    }

    #[test]
    fn a_value_may_be_gone_from_its_time_on_and_must_be_a_little_later() {
        let ending = || Operation {
            ends: Some((10, 20)),
            ..op(0, Kind::Put, None, (0, 1))
        };
        let get = |values: &[u64], times| op(9, Kind::Get(values.to_vec()), None, times);
        let rest = |history: &[Operation]| found(history, &[]);
        assert_eq!(rest(&[ending()]), Vec::<String>::new());
        assert!(found(&[ending()], &[0])[0].contains("long up"));
        assert!(rest(&[ending(), get(&[], (8, 9))])[0].contains("acknowledged before"));
        assert_eq!(rest(&[ending(), get(&[], (8, 10))]), Vec::<String>::new());
        assert_eq!(rest(&[ending(), get(&[0], (20, 21))]), Vec::<String>::new());
        assert!(rest(&[ending(), get(&[0], (21, 22))])[0].contains("up before it began"));
        // What it replaced stays replaced.
        let over = Operation {
            seen: Some(vec![1]),
            ..ending()
        };
        let first = || op(1, Kind::Put, None, (0, 0));
        assert_eq!(rest(&[over.clone(), first()]), Vec::<String>::new());
        assert!(!found(&[over, first()], &[1]).is_empty());
        // A create finds it absent, and need not have removed it.
        let create = || on(Condition::Absent, op(2, Kind::Put, None, (11, 12)));
        assert_eq!(found(&[ending(), create()], &[2]), Vec::<String>::new());
        let early = on(Condition::Absent, op(2, Kind::Put, None, (8, 9)));
        assert!(found(&[ending(), early], &[2])[0].contains("is all there is"));
    }

    #[test]
    fn a_listing_must_show_what_was_acknowledged_and_nothing_else() {
        let listing = |keys: &[&str], r| {
            let keys = keys.iter().map(|k| (*k).to_owned()).collect();
            let mut list = op(9, Kind::List(keys), None, (6, 7));
            list.key.clear();
            list.strict.1 = r;
            list
        };
        let found = |history: &[Operation]| judge_listings("k", 3, history);
        let put = || op(0, Kind::Put, None, (0, 1));
        assert_eq!(found(&[put(), listing(&["k"], 2)]), Vec::<String>::new());
        assert!(found(&[put(), listing(&[], 2)])[0].contains("lacks it"));
        assert_eq!(found(&[put(), listing(&[], 1)]), Vec::<String>::new());
        assert!(found(&[listing(&["k"], 1)])[0].contains("nothing was there"));
        let late = op(0, Kind::Put, None, (8, 9));
        assert!(found(&[late, listing(&["k"], 1)])[0].contains("nothing was there"));

        // What replaced it is there, or it is.
        let next = unknown(op(1, Kind::Put, Some(&[0]), (2, 3)));
        assert!(found(&[put(), next, listing(&[], 2)])[0].contains("lacks it"));
        let delete = || op(2, Kind::Delete, Some(&[0]), (4, 5));
        assert_eq!(
            found(&[put(), delete(), listing(&[], 2)]),
            Vec::<String>::new()
        );
        assert!(found(&[put(), delete(), listing(&["k"], 2)])[0].contains("nothing was there"));
        assert_eq!(
            found(&[put(), delete(), listing(&["k"], 1)]),
            Vec::<String>::new()
        );
        assert!(found(&[listing(&["x", "k"], 1)])[0].contains("out of order"));
    }

    #[test]
    fn what_a_get_has_shown_must_not_be_lost() {
        let history = |shown: &[u64]| {
            [
                op(0, Kind::Put, None, (0, 1)),
                unknown(op(1, Kind::Put, Some(&[0]), (2, 3))),
                op(2, Kind::Get(shown.to_vec()), None, (4, 5)),
                op(3, Kind::Delete, Some(&[1]), (6, 7)),
            ]
        };
        assert_eq!(found(&history(&[1]), &[]), Vec::<String>::new());
        assert!(found(&history(&[1]), &[0])[0].contains("operation 1 removed it"));
    }

    #[test]
    fn what_was_removed_must_not_come_back() {
        let history = [
            op(0, Kind::Put, None, (0, 1)),
            op(1, Kind::Delete, Some(&[0]), (2, 3)),
        ];
        assert_eq!(found(&history, &[]), Vec::<String>::new());
        assert!(found(&history, &[0])[0].contains("removed it"));
    }

    #[test]
    fn a_strict_get_must_show_what_was_acknowledged_before() {
        let history = |shown: &[u64], r| {
            let mut get = op(1, Kind::Get(shown.to_vec()), None, (2, 3));
            get.strict.1 = r;
            [op(0, Kind::Put, None, (0, 1)), get]
        };
        assert_eq!(found(&history(&[0], 2), &[0]), Vec::<String>::new());
        assert!(found(&history(&[], 2), &[0])[0].contains("strict get 1"));
        assert_eq!(found(&history(&[], 1), &[0]), Vec::<String>::new());
    }

    #[test]
    fn a_strict_get_must_not_show_what_was_removed_before() {
        let history = |r| {
            let mut get = op(2, Kind::Get(vec![0]), None, (4, 5));
            get.strict.1 = r;
            [
                op(0, Kind::Put, None, (0, 1)),
                op(1, Kind::Delete, Some(&[0]), (2, 3)),
                get,
            ]
        };
        assert!(found(&history(2), &[])[0].contains("had removed it before"));
        assert_eq!(found(&history(1), &[]), Vec::<String>::new());
    }

    #[test]
    fn a_drop_removes_what_was_acknowledged_before_it_and_nothing_after() {
        let mut drop = op(1, Kind::Drop, None, (2, 3));
        drop.key = String::new();
        let get = |shown: &[u64], r| {
            let mut get = op(3, Kind::Get(shown.to_vec()), None, (6, 7));
            get.strict.1 = r;
            get
        };
        let put = |id, times| op(id, Kind::Put, None, times);
        let history =
            |shown: &[u64], r| [put(0, (0, 1)), drop.clone(), put(2, (4, 5)), get(shown, r)];
        assert_eq!(found(&history(&[2], 2), &[2]), Vec::<String>::new());
        assert!(found(&history(&[2], 2), &[0, 2])[0].contains("operation 1 removed it"));
        assert!(found(&history(&[2], 2), &[])[0].contains("put 2 was acknowledged and is lost"));
        assert!(found(&history(&[0, 2], 2), &[2])[0].contains("had removed it before"));
        // One replica may not have heard.
        assert_eq!(found(&history(&[0, 2], 1), &[2]), Vec::<String>::new());
        // What overlaps with the drop may have come before or after it.
        let history = [put(0, (0, 3)), drop.clone()];
        assert_eq!(found(&history, &[0]), Vec::<String>::new());
        assert_eq!(found(&history, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_delete_without_context_removes_what_its_quorum_must_have_seen() {
        let delete = op(1, Kind::Delete, None, (2, 3));
        let history = [op(0, Kind::Put, None, (0, 1)), delete];
        assert_eq!(found(&history, &[]), Vec::<String>::new());
        assert!(found(&history, &[0])[0].contains("removed it"));
    }

    #[test]
    fn a_key_is_not_created_where_a_value_must_have_been_found() {
        let create = |times| on(Condition::Absent, op(1, Kind::Put, None, times));
        let first = || op(0, Kind::Put, None, (0, 1));
        // At the same time both may find nothing.
        assert_eq!(
            found(&[first(), create((0, 3))], &[0, 1]),
            Vec::<String>::new()
        );
        assert!(found(&[first(), create((2, 3))], &[1])[0].contains("is lost"));
        let both = found(&[first(), create((2, 3))], &[0, 1]);
        assert!(
            both.iter().any(|v| v.contains("is all there is")),
            "{both:?}"
        );
        // One that was removed before may well be gone; it must then not stand beside.
        let removed = || unknown(op(2, Kind::Delete, Some(&[0]), (1, 2)));
        let history = [first(), create((4, 5)), removed()];
        assert_eq!(found(&history, &[1]), Vec::<String>::new());
        assert!(found(&history, &[0, 1])[0].contains("removed it"));
        // Who learnt of it only by what it replaced is no excuse.
        let later = op(2, Kind::Put, Some(&[1]), (6, 7));
        assert!(!found(&[first(), create((2, 3)), later], &[2]).is_empty());
        // A quorum that need not meet the put's says nothing.
        let mut alone = create((2, 3));
        alone.strict = (2, 1);
        assert_eq!(found(&[first(), alone], &[0, 1]), Vec::<String>::new());
    }

    #[test]
    fn a_condition_on_one_value_excuses_the_loss_of_that_one_alone() {
        let history = |named: &[u64]| {
            [
                op(0, Kind::Put, None, (0, 1)),
                op(1, Kind::Put, None, (0, 1)),
                on(
                    Condition::One(named.to_vec()),
                    op(2, Kind::Put, None, (0, 3)),
                ),
            ]
        };
        assert_eq!(found(&history(&[0]), &[1, 2]), Vec::<String>::new());
        assert!(found(&history(&[0]), &[2])[0].contains("put 1 was acknowledged and is lost"));
        assert!(found(&history(&[0]), &[0, 1, 2])[0].contains("removed it"));
        // Named both, it may have found either.
        assert_eq!(found(&history(&[0, 1]), &[0, 2]), Vec::<String>::new());
        assert_eq!(found(&history(&[0, 1]), &[1, 2]), Vec::<String>::new());
    }

    #[test]
    fn a_condition_of_presence_removes_whatever_it_found() {
        let replace = |times| on(Condition::Present, op(1, Kind::Put, None, times));
        let first = || op(0, Kind::Put, None, (0, 1));
        assert_eq!(
            found(&[first(), replace((2, 3))], &[1]),
            Vec::<String>::new()
        );
        assert!(!found(&[first(), replace((2, 3))], &[0, 1]).is_empty());
        assert_eq!(
            found(&[first(), replace((0, 3))], &[0, 1]),
            Vec::<String>::new()
        );
        assert!(found(&[replace((0, 3))], &[1])[0].contains("nobody had put any"));
        // One of unknown outcome may have come about after its client had given it up.
        let late = [op(0, Kind::Put, None, (4, 5)), unknown(replace((2, 3)))];
        assert_eq!(found(&late, &[1]), Vec::<String>::new());
    }

    #[test]
    fn a_refusal_must_be_true_as_well() {
        let put = |id, condition| refused(on(condition, op(id, Kind::Put, None, (2, 3))));
        let first = || op(0, Kind::Put, None, (0, 1));
        let absent = found(&[first(), put(1, Condition::Present)], &[0]);
        assert!(absent[0].contains("[] is all there is"), "{absent:?}");
        assert!(found(&[put(1, Condition::Absent)], &[])[0].contains("nobody had put any"));
        assert_eq!(
            found(&[first(), put(1, Condition::Absent)], &[0]),
            Vec::<String>::new()
        );
        assert_eq!(
            found(&[put(1, Condition::Present)], &[]),
            Vec::<String>::new()
        );
    }
}
