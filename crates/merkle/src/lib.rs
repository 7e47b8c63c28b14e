//! Sums over the keys of a partition, by which two replicas find what differs without telling each other everything.
//!
//! Every key has a *position*, 64 bits of a hash, and with the digest of its live values a *leaf*, 128 bits of another. The
//! sum of a range of positions is the sum of its leaves: whoever knows how one key changed knows how every sum over it
//! changed, without looking at the other keys. Two replicas compare the sum of everything, then the sums of the 256 parts of
//! whatever differs, and so on down until a range holds few keys, which they name to each other.
//!
//! ```
//! use quorate_merkle::{Range, Tree, leaf, position};
//!
//! let (mut mine, mut theirs) = (Tree::new(), Tree::new());
//! for key in [&b"milk"[..], b"eggs", b"flour"] {
//!     let at = position(&[7; 16], key);
//!     mine.add(at, leaf(at, &[1; 16]));
//!     theirs.add(at, leaf(at, &[1; 16]));
//! }
//! assert_eq!(mine.root(), theirs.root());
//! let at = position(&[7; 16], b"milk");
//! theirs.remove(at, leaf(at, &[1; 16])); // they have lost it
//! theirs.add(at, leaf(at, &[2; 16])); // and got another value
//! assert_ne!(mine.root(), theirs.root());
//! let differing = Range::ALL.differing(&mine.children(), &theirs.children());
//! assert_eq!(differing.len(), 1);
//! assert!(differing[0].contains(at));
//! ```
//!
//! Unlike in the tree that Merkle described, an inner node is not the hash of its children but their sum modulo 2^128. It says as
//! much about equality as long as nobody chooses leaves to make sums meet; keys and dots are hashed by blake3, and
//! whoever writes to a replica can do worse than hide a difference from it.
//!
//! The crate is pure: no clock, no randomness, no input or output.

/// Where a key stands in a partition's order of hashes.
///
/// `bucket` is the id of the bucket's life.
#[must_use]
pub fn position(bucket: &[u8; 16], key: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bucket);
    hasher.update(key);
    let first = hasher.finalize();
    u64::from_be_bytes(*first.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The leaf of a key at a position whose live values have this digest.
#[must_use]
pub fn leaf(position: u64, digest: &[u8; 16]) -> Sum {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&position.to_be_bytes());
    bytes[8..].copy_from_slice(digest);
    let hash = blake3::hash(&bytes);
    Sum(u128::from_be_bytes(
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes"),
    ))
}

/// The sum of some leaves, modulo 2^128. Zero for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Sum(pub u128);

impl Sum {
    /// The sum with another.
    #[must_use]
    pub fn plus(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_add(other.0))
    }

    /// The sum without another that is part of it.
    #[must_use]
    pub fn minus(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_sub(other.0))
    }
}

/// All positions that begin with certain bits: whole bytes of them, from none to all eight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Range {
    /// The least position.
    first: u64,
    /// How many bytes all positions share.
    depth: u8,
}

/// The deepest a range can be: one position.
const DEPTH_MAX: u8 = 8;

impl Range {
    /// Every position.
    pub const ALL: Range = Range { first: 0, depth: 0 };

    /// The positions that share the first `depth` bytes of `first`, if there are such.
    #[must_use]
    pub fn new(first: u64, depth: u8) -> Option<Range> {
        let range = Range { first, depth };
        (depth <= DEPTH_MAX && first & range.span() == 0).then_some(range)
    }

    /// The least position.
    #[must_use]
    pub fn first(self) -> u64 {
        self.first
    }

    /// The greatest position.
    #[must_use]
    pub fn last(self) -> u64 {
        self.first | self.span()
    }

    /// How many bytes all its positions share.
    #[must_use]
    pub fn depth(self) -> u8 {
        self.depth
    }

    /// How far the last position is from the first.
    fn span(self) -> u64 {
        match self.depth {
            0 => u64::MAX,
            8.. => 0,
            depth => u64::MAX >> (8 * depth),
        }
    }

    /// Whether a position is in it.
    #[must_use]
    pub fn contains(self, position: u64) -> bool {
        (self.first..=self.last()).contains(&position)
    }

    /// Which of its 256 parts a position of it is in.
    ///
    /// # Panics
    /// If the range is a single position.
    #[must_use]
    pub fn part(self, position: u64) -> u8 {
        assert!(self.depth < DEPTH_MAX, "a single position has no parts");
        (position >> (56 - 8 * self.depth)) as u8
    }

    /// One of its 256 parts.
    ///
    /// # Panics
    /// If the range is a single position.
    #[must_use]
    pub fn child(self, part: u8) -> Range {
        assert!(self.depth < DEPTH_MAX, "a single position has no parts");
        Range {
            first: self.first | u64::from(part) << (56 - 8 * self.depth),
            depth: self.depth + 1,
        }
    }

    /// The parts whose sums differ, ascending. Parts that are not named have the sum of nothing.
    ///
    /// # Panics
    /// If the range is a single position.
    #[must_use]
    pub fn differing(self, mine: &[(u8, Sum)], theirs: &[(u8, Sum)]) -> Vec<Range> {
        let mut all = [(Sum::default(), Sum::default()); 256];
        for (part, sum) in mine {
            all[usize::from(*part)].0 = *sum;
        }
        for (part, sum) in theirs {
            all[usize::from(*part)].1 = *sum;
        }
        let differ = (0..=255u8).filter(|part| {
            let (mine, theirs) = all[usize::from(*part)];
            mine != theirs
        });
        differ.map(|part| self.child(part)).collect()
    }
}

/// The sums of the 256 parts of everything, and how many keys each has. Deeper sums are made from the keys
/// themselves when they are asked for: this much is 5 KiB for a partition however many keys it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    parts: Vec<(Sum, u32)>,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// Of no keys.
    #[must_use]
    pub fn new() -> Tree {
        Tree {
            parts: vec![(Sum::default(), 0); 256],
        }
    }

    /// A key got this leaf.
    pub fn add(&mut self, position: u64, leaf: Sum) {
        let (sum, count) = &mut self.parts[usize::from(Range::ALL.part(position))];
        *sum = sum.plus(leaf);
        *count = count.saturating_add(1);
    }

    /// A key had this leaf.
    pub fn remove(&mut self, position: u64, leaf: Sum) {
        let (sum, count) = &mut self.parts[usize::from(Range::ALL.part(position))];
        *sum = sum.minus(leaf);
        *count = count.saturating_sub(1);
    }

    /// The sum of everything.
    #[must_use]
    pub fn root(&self) -> Sum {
        let sums = self.parts.iter().map(|(sum, _)| *sum);
        sums.fold(Sum::default(), Sum::plus)
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.parts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The sums of the parts that have keys, ascending.
    #[must_use]
    pub fn children(&self) -> Vec<(u8, Sum)> {
        let all = (0..=255u8).zip(&self.parts);
        all.filter(|(_, (_, count))| *count > 0)
            .map(|(part, (sum, _))| (part, *sum))
            .collect()
    }
}

/// Puts the sums of a range's parts together from its keys, one after the other.
#[derive(Clone, Debug)]
pub struct Adder {
    range: Range,
    parts: Vec<(u8, Sum)>,
}

impl Adder {
    /// For a range of more than one position.
    #[must_use]
    pub fn new(range: Range) -> Adder {
        Adder {
            range,
            parts: Vec::new(),
        }
    }

    /// Adds the next key, in ascending order of positions.
    pub fn add(&mut self, position: u64, leaf: Sum) {
        let part = self.range.part(position);
        match self.parts.last_mut() {
            Some((last, sum)) if *last == part => *sum = sum.plus(leaf),
            _ => self.parts.push((part, leaf)),
        }
    }

    /// The sums of the parts that have keys, ascending.
    #[must_use]
    pub fn finish(self) -> Vec<(u8, Sum)> {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_divide_what_they_are_of() {
        assert_eq!(Range::ALL.last(), u64::MAX);
        let part = Range::ALL.child(0xab).child(0xcd);
        assert_eq!((part.first(), part.depth()), (0xabcd << 48, 2));
        assert_eq!(part.last(), 0xabcd_ffff_ffff_ffff);
        assert_eq!(Range::new(part.first(), 2), Some(part));
        assert_eq!(Range::new(1, 2), None);
        assert_eq!(Range::new(0, 9), None);
        let mut single = part;
        for _ in 0..6 {
            single = single.child(1);
        }
        assert_eq!(single.first(), single.last());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However two sets of keys differ, going down the differing parts finds just the keys that do.
        #[test]
        fn what_differs_is_found(
            shared in prop::collection::btree_map(any::<u64>(), any::<u8>(), 0..50),
            mine in prop::collection::btree_map(any::<u64>(), any::<u8>(), 0..5),
            theirs in prop::collection::btree_map(any::<u64>(), any::<u8>(), 0..5),
        ) {
            let with = |own: &std::collections::BTreeMap<u64, u8>| {
                let mut all = shared.clone();
                all.extend(own.iter().map(|(k, v)| (*k, *v)));
                all
            };
            let (mine, theirs) = (with(&mine), with(&theirs));
            let sums = |of: &std::collections::BTreeMap<u64, u8>, range: Range| {
                let mut adder = Adder::new(range);
                for (at, digest) in of.range(range.first()..=range.last()) {
                    adder.add(*at, leaf(*at, &[*digest; 16]));
                }
                adder.finish()
            };
            let mut found = Vec::new();
            let mut open = vec![Range::ALL];
            while let Some(range) = open.pop() {
                if range.first() == range.last() {
                    found.push(range.first());
                } else {
                    open.extend(range.differing(&sums(&mine, range), &sums(&theirs, range)));
                }
            }
            found.sort_unstable();
            let keys = mine.keys().chain(theirs.keys());
            let mut expected: Vec<u64> = keys.filter(|k| mine.get(k) != theirs.get(k)).copied().collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(found, expected);
            let mut tree = Tree::new();
            for (at, digest) in &mine {
                tree.add(*at, leaf(*at, &[*digest; 16]));
            }
            prop_assert_eq!(tree.children(), sums(&mine, Range::ALL));
            prop_assert_eq!(tree.count(), mine.len() as u64);
            for (at, digest) in &mine {
                tree.remove(*at, leaf(*at, &[*digest; 16]));
            }
            prop_assert_eq!(tree, Tree::new());
        }
    }
}
