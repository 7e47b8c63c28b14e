//! [`Runs`] and [`DotSet`] against plain sets.

use std::collections::BTreeSet;

use proptest::prelude::*;
use quorate_causal::{Actor, Dot, DotSet, Runs, Span};

/// Where the counters of a test lie: at the bottom of the range, or at its very top, where one more would overflow.
const UNIVERSE: u64 = 48;
const BASES: [u64; 2] = [0, u64::MAX - UNIVERSE];

fn stretch() -> impl Strategy<Value = (u64, u64)> {
    let at_most = prop_oneof![4 => 0..3u64, 1 => 0..UNIVERSE];
    (1..=UNIVERSE, at_most).prop_map(|(first, more)| (first, UNIVERSE.min(first + more)))
}

fn stretches() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec(stretch(), 0..24)
}

fn both(base: u64, stretches: &[(u64, u64)]) -> (Runs, BTreeSet<u64>) {
    let mut runs = Runs::default();
    let mut plain = BTreeSet::new();
    for &(first, last) in stretches {
        let (first, last) = (base + first, base + last);
        let before = plain.len();
        plain.extend(first..=last);
        assert_eq!(runs.insert(first, last), plain.len() > before);
        check(base, &runs, &plain);
    }
    (runs, plain)
}

fn check(base: u64, runs: &Runs, plain: &BTreeSet<u64>) {
    for counter in base.max(1)..=base + UNIVERSE {
        assert_eq!(
            runs.contains(counter),
            plain.contains(&counter),
            "{counter} in {runs:?}"
        );
    }
    assert_eq!(
        runs.iter().flat_map(|(f, l)| f..=l).collect::<Vec<_>>(),
        Vec::from_iter(plain.clone())
    );
    assert_eq!(runs.max(), plain.last().copied());
    assert_eq!(runs.is_empty(), plain.is_empty());
    // The canonical form: ascending, and never touching.
    let listed: Vec<_> = runs.iter().collect();
    assert_eq!(listed.len(), runs.len());
    assert!(listed.iter().all(|(first, last)| first <= last));
    assert!(
        listed.windows(2).all(|pair| pair[1].0 - pair[0].1 >= 2),
        "{runs:?}"
    );
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn runs_are_a_set_of_counters(base in prop::sample::select(&BASES[..]), a in stretches()) {
        both(base, &a);
    }

    #[test]
    fn equal_sets_are_equal_runs_whatever_the_order(
        base in prop::sample::select(&BASES[..]),
        (a, shuffled) in stretches().prop_flat_map(|a| (Just(a.clone()), Just(a).prop_shuffle())),
    ) {
        let (a, _) = both(base, &a);
        let (b, _) = both(base, &shuffled);
        prop_assert_eq!(&a, &b);
        prop_assert_eq!(a.encode(), b.encode());
        prop_assert_eq!(Runs::decode(&a.encode()).unwrap(), a);
    }

    #[test]
    fn join_is_union_and_covers_is_superset(
        base in prop::sample::select(&BASES[..]),
        a in stretches(),
        b in stretches(),
    ) {
        let (mut runs, plain) = both(base, &a);
        let (other, more) = both(base, &b);
        prop_assert_eq!(runs.covers(&other), plain.is_superset(&more));
        let union = &plain | &more;
        prop_assert_eq!(runs.join(&other), union.len() > plain.len());
        check(base, &runs, &union);
        prop_assert!(runs.covers(&other));
        prop_assert!(!runs.join(&other), "nothing is new the second time");
    }

    #[test]
    fn a_dot_set_is_runs_for_each_actor(
        a in prop::collection::vec((0..3u128, stretch()), 0..16),
        b in prop::collection::vec((0..3u128, stretch()), 0..16),
    ) {
        let of = |stretches: &[(u128, (u64, u64))]| {
            let mut set = DotSet::new();
            let mut plain = BTreeSet::new();
            for &(actor, (first, last)) in stretches {
                let actor = Actor(actor);
                let dots = (first..=last).map(|counter| Dot { actor, counter });
                let before = plain.len();
                plain.extend(dots);
                let dot = Dot { actor, counter: last };
                assert_eq!(set.insert_span(Span { dot, after: first - 1 }), plain.len() > before);
            }
            (set, plain)
        };
        let ((mut set, plain), (other, more)) = (of(&a), of(&b));
        prop_assert_eq!(&set, &plain.iter().copied().collect::<DotSet>());
        prop_assert_eq!(set.covers(&other), plain.is_superset(&more));
        let union = &plain | &more;
        prop_assert_eq!(set.join(&other), union.len() > plain.len());
        prop_assert_eq!(&set, &union.iter().copied().collect::<DotSet>());
        for actor in (0..3).map(Actor) {
            for counter in 1..=UNIVERSE {
                let dot = Dot { actor, counter };
                prop_assert_eq!(set.contains(dot), union.contains(&dot));
            }
        }
        let actors: BTreeSet<Actor> = union.iter().map(|d| d.actor).collect();
        prop_assert_eq!(set.actors(), actors.len());
        prop_assert_eq!(set.iter().map(|(a, _)| a).collect::<Vec<_>>(), Vec::from_iter(actors));
        prop_assert_eq!(set.is_empty(), union.is_empty());
    }
}

#[test]
fn set_runs_replaces_and_empty_runs_leave_no_actor() {
    let mut set: DotSet = [Dot {
        actor: Actor(1),
        counter: 3,
    }]
    .into_iter()
    .collect();
    let mut runs = Runs::default();
    runs.insert(7, 9);
    set.set_runs(Actor(1), runs.clone());
    assert_eq!(set.runs(Actor(1)), Some(&runs));
    set.set_runs(Actor(1), Runs::default());
    assert!(set.is_empty());
    assert_eq!(set.runs(Actor(1)), None);
    assert_eq!(set, DotSet::new());
}

#[test]
fn runs_print_as_people_write_them() {
    let mut runs = Runs::default();
    assert_eq!(format!("{runs:?}"), "");
    for (first, last) in [(9, 9), (1, 3), (12, 20)] {
        runs.insert(first, last);
    }
    assert_eq!(format!("{runs:?}"), "1-3,9,12-20");
}

#[test]
#[should_panic(expected = "not a run of counters: 5..=4")]
fn an_empty_run_is_refused() {
    Runs::default().insert(5, 4);
}

#[test]
#[should_panic(expected = "not a run of counters: 0..=4")]
fn a_counter_of_zero_is_refused() {
    // It has no encoding: counters begin at 1.
    Runs::default().insert(0, 4);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..proptest::prelude::ProptestConfig::default() })]

    #[test]
    fn removing_is_what_sets_do(
        added in proptest::collection::vec((1..60u64, 0..6u64), 0..12),
        removed in proptest::collection::vec((1..60u64, 0..6u64), 0..6),
    ) {
        let mut runs = quorate_causal::Runs::default();
        let mut plain = std::collections::BTreeSet::new();
        for (first, more) in &added {
            runs.insert(*first, first + more);
            plain.extend(*first..=first + more);
        }
        for (first, more) in &removed {
            let before = plain.len();
            plain.retain(|c| !(*first..=first + more).contains(c));
            proptest::prop_assert_eq!(runs.remove(*first, first + more), plain.len() < before);
        }
        let mut again = quorate_causal::Runs::default();
        for counter in &plain {
            again.insert(*counter, *counter);
        }
        proptest::prop_assert_eq!(&runs, &again);
        let mut taken = quorate_causal::Runs::default();
        for (first, more) in &removed {
            taken.insert(*first, first + more);
        }
        proptest::prop_assert!(runs.intersection(&taken).is_empty());
        let mut all = runs.clone();
        all.join(&taken);
        proptest::prop_assert_eq!(all.intersection(&runs), runs.clone());
        for (first, more) in &added {
            let all = (*first..=first + more).all(|c| plain.contains(&c));
            proptest::prop_assert_eq!(runs.covers_run(*first, first + more), all);
        }
    }
}
