//! Trees against a naive model: a map from keys to digests, whose parts are summed anew each time they are asked for.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_merkle::{Adder, Range, Sum, Tree, leaf, position};

const BUCKET: [u8; 16] = [7; 16];

/// Few different keys, so that two sets have many in common.
type Model = BTreeMap<u8, u8>;

fn at(key: u8) -> u64 {
    position(&BUCKET, &[key])
}

fn leaf_of(key: u8, value: u8) -> Sum {
    leaf(at(key), &[value; 16])
}

fn tree_of(model: &Model) -> Tree {
    let mut tree = Tree::new();
    for (key, value) in model {
        tree.add(at(*key), leaf_of(*key, *value));
    }
    tree
}

/// The sums of a range's parts: every part by itself, from every key.
fn naive(model: &Model, range: Range) -> Vec<(u8, Sum)> {
    let parts = (0..=255u8).filter_map(|part| {
        let inside = range.child(part);
        let keys = model.iter().filter(|(key, _)| inside.contains(at(**key)));
        let leaves: Vec<Sum> = keys.map(|(key, value)| leaf_of(*key, *value)).collect();
        let sum = leaves
            .iter()
            .fold(Sum::default(), |sum, leaf| sum.plus(*leaf));
        (!leaves.is_empty()).then_some((part, sum))
    });
    parts.collect()
}

/// The same with one pass over the keys in order, as a replica does it.
fn added(model: &Model, range: Range) -> Vec<(u8, Sum)> {
    let mut keys: Vec<(u64, Sum)> = model
        .iter()
        .map(|(key, value)| (at(*key), leaf_of(*key, *value)))
        .filter(|(at, _)| range.contains(*at))
        .collect();
    keys.sort_unstable();
    let mut adder = Adder::new(range);
    for (at, leaf) in keys {
        adder.add(at, leaf);
    }
    adder.finish()
}

/// Goes down wherever sums differ, until ranges hold no more than `few` keys of both together. Returns the keys that differ, and the
/// ranges that were looked at.
fn descend(mine: &Model, theirs: &Model, few: usize) -> (BTreeSet<u8>, Vec<Range>) {
    let (mut found, mut looked) = (BTreeSet::new(), Vec::new());
    let mut open = vec![Range::ALL];
    if tree_of(mine).root() == tree_of(theirs).root() {
        open.clear();
    }
    while let Some(range) = open.pop() {
        looked.push(range);
        let inside = |model: &Model| -> Model {
            let keys = model.iter().filter(|(key, _)| range.contains(at(**key)));
            keys.map(|(key, value)| (*key, *value)).collect()
        };
        let (a, b) = (inside(mine), inside(theirs));
        if a.len() + b.len() <= few || range.first() == range.last() {
            found.extend(differing(&a, &b));
        } else {
            open.extend(range.differing(&added(mine, range), &added(theirs, range)));
        }
    }
    (found, looked)
}

fn differing(mine: &Model, theirs: &Model) -> BTreeSet<u8> {
    let keys = mine.keys().chain(theirs.keys());
    keys.filter(|key| mine.get(key) != theirs.get(key))
        .copied()
        .collect()
}

fn models() -> impl Strategy<Value = Model> {
    // One of few values, so that sets are equal now and then.
    prop::collection::btree_map(any::<u8>(), 0..3u8, 0..80)
}

/// Two sets that differ in a few keys, or in none.
fn pairs() -> impl Strategy<Value = (Model, Model)> {
    let edits = prop::collection::vec((any::<u8>(), prop::option::of(0..3u8)), 0..4);
    (models(), edits).prop_map(|(mine, edits)| {
        let mut theirs = mine.clone();
        for (key, value) in edits {
            match value {
                Some(value) => theirs.insert(key, value),
                None => theirs.remove(&key),
            };
        }
        (mine, theirs)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_equal_where_sets_are((mine, theirs) in pairs(), other in models()) {
        for (a, b) in [(&mine, &theirs), (&mine, &other)] {
            prop_assert_eq!(tree_of(a).root() == tree_of(b).root(), a == b);
        }
    }

    /// Whatever was added, replaced and removed in whatever order: only what is left counts.
    #[test]
    fn a_tree_that_was_kept_is_the_one_made_anew(
        edits in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>())), 0..200)
    ) {
        let (mut model, mut tree) = (Model::new(), Tree::new());
        for (key, value) in edits {
            if let Some(before) = model.remove(&key) {
                tree.remove(at(key), leaf_of(key, before));
            }
            if let Some(value) = value {
                model.insert(key, value);
                tree.add(at(key), leaf_of(key, value));
            }
            prop_assert_eq!(tree.count(), model.len() as u64);
        }
        prop_assert_eq!(&tree, &tree_of(&model));
        prop_assert_eq!(tree.children(), naive(&model, Range::ALL));
    }

    #[test]
    fn a_descent_finds_just_the_keys_that_differ(
        (mine, theirs) in pairs(),
        other in models(),
        few in 0..20usize,
    ) {
        for (a, b) in [(&mine, &theirs), (&mine, &other)] {
            let (found, looked) = descend(a, b, few);
            let expected = differing(a, b);
            prop_assert_eq!(&found, &expected);
            // And looks nowhere else: each range has a key that differs.
            for range in looked {
                prop_assert!(expected.iter().any(|key| range.contains(at(*key))), "{range:?}");
            }
        }
    }

    /// One pass in order sums what the parts hold, at any depth.
    #[test]
    fn parts_are_summed_in_one_pass(model in models(), depth in 0..8u8, key in any::<u8>()) {
        let mut range = Range::ALL;
        for _ in 0..depth {
            range = range.child(range.part(at(key)));
        }
        prop_assert!(range.contains(at(key)));
        prop_assert_eq!(range.depth(), depth);
        prop_assert_eq!(added(&model, range), naive(&model, range));
    }

    /// The parts of a range divide it, without a gap and with none twice.
    #[test]
    fn parts_divide_their_range(at in any::<u64>(), depth in 0..8u8) {
        let mut range = Range::ALL;
        for _ in 0..depth {
            range = range.child(range.part(at));
        }
        let parts: Vec<Range> = (0..=255u8).map(|part| range.child(part)).collect();
        prop_assert_eq!(parts[0].first(), range.first());
        prop_assert_eq!(parts[255].last(), range.last());
        for pair in parts.windows(2) {
            prop_assert_eq!(pair[0].last().checked_add(1), Some(pair[1].first()));
        }
        let inside: Vec<u8> = (0..=255u8).filter(|p| range.child(*p).contains(at)).collect();
        prop_assert_eq!(inside, vec![range.part(at)]);
        for part in parts {
            prop_assert_eq!(Range::new(part.first(), part.depth()), Some(part));
        }
    }
}

/// Positions and leaves are compared between nodes: they do not change from one version to the next.
#[test]
fn positions_and_leaves_stay_what_they_are() {
    let milk = position(&BUCKET, b"milk");
    assert_ne!(milk, position(&[8; 16], b"milk"), "of another bucket");
    assert_ne!(milk, position(&BUCKET, b"mil"));
    let hash = blake3::hash(&[&BUCKET[..], b"milk"].concat());
    assert_eq!(milk.to_be_bytes(), hash.as_bytes()[..8]);
    let mut named = milk.to_be_bytes().to_vec();
    named.extend([1; 16]);
    let hash = blake3::hash(&named);
    assert_eq!(leaf(milk, &[1; 16]).0.to_be_bytes(), hash.as_bytes()[..16]);
}
