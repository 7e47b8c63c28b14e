use crate::error::LayoutError;
use crate::ids::ReplicaSetId;
use crate::spec;
use serde::{Deserialize, Serialize};

/// The most copies a region may hold of one key. A quorum of 32 is already slower and less available
/// than anyone wants; the bound keeps a hostile layout from asking for millions of seats.
pub const MAX_COPIES: u8 = 32;

/// Which nodes of a partition hold a bucket's keys: so many copies in each of these regions.
///
/// Buckets with equal replica sets share their replicas, and so share clocks, trees and evidence; those
/// with different sets share none of them, or one clock would have holes for data it never was sent.
/// The fields are public to be read. They are made, here and by deserialising, by [`ReplicaSet::new`] only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
#[non_exhaustive]
pub struct ReplicaSet {
    /// Copies in each region, from 1 to [`MAX_COPIES`]. A region with fewer nodes holds a copy on each.
    pub n: u8,
    /// The regions, sorted, none twice, at least one; `None` is every region the layout has.
    pub regions: Option<Vec<String>>,
}

/// What is read and written: the same fields, not yet validated.
#[derive(Serialize, Deserialize)]
#[serde(rename = "ReplicaSet", deny_unknown_fields)]
struct Form {
    n: u8,
    regions: Option<Vec<String>>,
}

impl ReplicaSet {
    /// `n` copies in each of `regions`, which may come in any order and repeat themselves.
    ///
    /// A region need not exist: it then holds nothing until a layout has nodes there.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Copies`] if `n` is out of bounds, [`LayoutError::NoRegions`] for an empty list, and
    /// [`LayoutError::Text`] for a region that could not be a node's.
    pub fn new(n: u8, regions: Option<Vec<String>>) -> Result<ReplicaSet, LayoutError> {
        spec::check_copies(n)?;
        let regions = match regions {
            None => None,
            Some(names) if names.is_empty() => return Err(LayoutError::NoRegions),
            Some(mut names) => {
                for name in &names {
                    spec::check_name("region", name)?;
                }
                names.sort_unstable();
                names.dedup();
                Some(names)
            }
        };
        Ok(ReplicaSet { n, regions })
    }

    /// The set's short name: the first 8 bytes, big endian, of the blake3 of its canonical encoding.
    ///
    /// It is part of stored keys and of messages, so it never changes for a given set: `n`, then 0 for
    /// every region, or 1 and each region as its length (one byte) and text.
    pub fn id(&self) -> ReplicaSetId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"quorate replica set 1");
        hasher.update(&[self.n, u8::from(self.regions.is_some())]);
        for region in self.regions.iter().flatten() {
            let length =
                u8::try_from(region.len()).expect("a validated region has at most 63 bytes");
            hasher.update(&[length]);
            hasher.update(region.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        ReplicaSetId(u64::from_be_bytes(first))
    }

    /// Whether the set has copies in this region.
    pub fn covers(&self, region: &str) -> bool {
        match &self.regions {
            None => true,
            Some(names) => names.iter().any(|name| name == region),
        }
    }
}

impl TryFrom<Form> for ReplicaSet {
    type Error = LayoutError;

    fn try_from(form: Form) -> Result<ReplicaSet, LayoutError> {
        ReplicaSet::new(form.n, form.regions)
    }
}

impl From<ReplicaSet> for Form {
    fn from(set: ReplicaSet) -> Form {
        Form {
            n: set.n,
            regions: set.regions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn equal_sets_have_one_form_and_one_id() {
        let set = ReplicaSet::new(3, regions(&["us", "eu", "us"])).unwrap();
        assert_eq!(set.regions, regions(&["eu", "us"]));
        assert_eq!(set, ReplicaSet::new(3, regions(&["eu", "us"])).unwrap());
        assert!(set.covers("us") && !set.covers("ap"));
    }

    #[test]
    fn ids_are_stored_and_never_change() {
        let id = |n, regions| ReplicaSet::new(n, regions).unwrap().id().to_string();
        assert_eq!(id(3, None), "fdfa7073ef4d73c6");
        assert_eq!(id(5, None), "33c8e8042823f9d1");
        assert_eq!(id(3, regions(&["eu", "us"])), "626e3674df0f64f0");
        assert_ne!(id(3, regions(&["eu", "us"])), id(3, regions(&["euus"])));
    }

    #[test]
    fn impossible_sets_are_refused() {
        assert_eq!(ReplicaSet::new(0, None), Err(LayoutError::Copies(0)));
        assert_eq!(ReplicaSet::new(33, None), Err(LayoutError::Copies(33)));
        assert_eq!(
            ReplicaSet::new(1, Some(vec![])),
            Err(LayoutError::NoRegions)
        );
        assert!(matches!(
            ReplicaSet::new(1, regions(&["a b"])),
            Err(LayoutError::Text { what: "region", .. })
        ));
        assert!(serde_json::from_str::<ReplicaSet>(r#"{"n":0,"regions":null}"#).is_err());
        let set: ReplicaSet = serde_json::from_str(r#"{"n":2,"regions":["b","a"]}"#).unwrap();
        assert_eq!(set.regions, regions(&["a", "b"]));
    }
}
