//! The leaves of this replica's trees: kept with every commit, read in slices.
//!
//! For each record that has a live value there is a small entry, by the position of its key, with the digest of its live dots; it is
//! written in one batch with the record. The upper sums are in memory and made from these entries when they are first needed.
//! That loads some dozens of bytes a key, whatever its value has. Evidence is no part of it (rule R14).

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_causal::{Digest, Record};
use quorate_merkle::{Adder, Range, Sum, Tree, leaf, position};
use quorate_protocol::{
    BucketId, KeyDigest, Part, PartsAsked, RANGE_KEYS_MAX, RANGES_MAX, Refusal, ReplicaReply,
    RootAsked, UpkeepReply, VnodeId,
};
use quorate_storage::{Batch, Family, Storage, StorageError};

use crate::expiry::deadlines;
use crate::jobs::{SEEK_UNITS, refused};
use crate::keys;
use crate::replica::{Replica, unreadable};

/// A vnode's tree, or as much of it as was read.
#[derive(Debug, Default)]
pub(crate) struct LoadingTree {
    tree: Tree,
    /// Where reading goes on; `None` once all is read. What is written before that is in the tree, what is written behind it
    /// is still to be read.
    rest: Option<Vec<u8>>,
}

/// What the entries beside a record depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// The digest of its live dots, if it has any.
    digest: Option<Digest>,
    evidence: bool,
    /// When its values end. Mostly none, which costs nothing.
    deadlines: Vec<u64>,
}

impl Shape {
    pub(crate) fn of(record: &Record) -> Shape {
        Shape {
            digest: (!record.live().is_empty()).then(|| record.digest()),
            evidence: !record.evidence().is_empty(),
            deadlines: deadlines(record),
        }
    }

    /// Of a record that cannot be read: it may have had any entry, so that all are written anew.
    pub(crate) fn unknown() -> Shape {
        Shape {
            digest: None,
            evidence: true,
            // Rows of values that are gone go when their time has come.
            deadlines: Vec::new(),
        }
    }

    pub(crate) fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl<S: Storage, W> Replica<S, W> {
    /// Puts a record into a batch with the entries that go with it, or takes them away. `before` is what it was.
    pub(crate) fn put_record(
        &mut self,
        id: VnodeId,
        bucket: BucketId,
        key: &[u8],
        before: &Shape,
        record: &Record,
        batch: &mut Batch,
    ) {
        let at = keys::record(id, bucket, key);
        let after = Shape::of(record);
        for gone in before
            .deadlines
            .iter()
            .filter(|d| !after.deadlines.contains(d))
        {
            batch.delete(Family::Deadlines, keys::deadline(*gone, &at));
        }
        for new in after
            .deadlines
            .iter()
            .filter(|d| !before.deadlines.contains(d))
        {
            let set = id.set.0.to_be_bytes().to_vec();
            batch.put(Family::Deadlines, keys::deadline(*new, &at), set);
        }
        self.sweep.noticed(&after.deadlines);
        if record.is_empty() {
            batch.delete(Family::Records, at);
        } else {
            batch.put(Family::Records, at, record.encode());
        }
        if before.digest != after.digest {
            self.put_leaf(id, bucket, key, before.digest, after.digest, batch);
        }
        if after.evidence {
            self.pending.insert(id);
        }
        if before.evidence != after.evidence {
            let row = keys::evidence(id, bucket, key);
            match after.evidence {
                true => batch.put(Family::Evidence, row, Bytes::new()),
                false => batch.delete(Family::Evidence, row),
            }
        }
    }

    /// The entry of a key, if it has one.
    pub(crate) fn leaf_of(
        &self,
        id: VnodeId,
        bucket: BucketId,
        key: &[u8],
    ) -> Result<Option<Digest>, Refusal> {
        let row = keys::leaf(id, position(&bucket.0, key), bucket, key);
        let stored = self.storage.get(Family::Trees, &row);
        let stored = stored.map_err(|e| unreadable(&e))?;
        Ok(stored.and_then(|digest| Some(Digest(digest[..].try_into().ok()?))))
    }

    /// Replaces the leaf of a key.
    pub(crate) fn put_leaf(
        &mut self,
        id: VnodeId,
        bucket: BucketId,
        key: &[u8],
        before: Option<Digest>,
        after: Option<Digest>,
        batch: &mut Batch,
    ) {
        let at = position(&bucket.0, key);
        let row = keys::leaf(id, at, bucket, key);
        if let Some(loading) = self.trees.get_mut(&id)
            && loading.rest.as_ref().is_none_or(|rest| row < *rest)
        {
            if let Some(Digest(digest)) = before {
                loading.tree.remove(at, leaf(at, &digest));
            }
            if let Some(Digest(digest)) = after {
                loading.tree.add(at, leaf(at, &digest));
            }
        }
        match after {
            Some(Digest(digest)) => batch.put(Family::Trees, row, digest.to_vec()),
            None => batch.delete(Family::Trees, row),
        }
    }

    /// Loads a tree a little further; returns its sum once it is whole.
    pub(crate) fn load_tree(
        &mut self,
        id: VnodeId,
        units: usize,
    ) -> Result<Option<Sum>, StorageError> {
        let loading = self.trees.entry(id).or_insert_with(|| LoadingTree {
            tree: Tree::new(),
            rest: Some(keys::vnode_prefix(id)),
        });
        let Some(from) = loading.rest.take() else {
            return Ok(Some(loading.tree.root()));
        };
        let end = keys::end_of(&keys::vnode_prefix(id));
        let mut units = units.max(1);
        let mut rest = None;
        let visited =
            self.storage
                .visit(Family::Trees, &from, end.as_deref(), &mut |row, digest| {
                    if units == 0 {
                        rest = Some(row.to_vec());
                        return ControlFlow::Break(());
                    }
                    units -= 1;
                    if let (Some((at, _, _)), Ok(digest)) = (keys::of_leaf(row), digest.try_into())
                    {
                        loading.tree.add(at, leaf(at, digest));
                    }
                    ControlFlow::Continue(())
                });
        if let Err(error) = visited {
            // What was added cannot be told apart: from the beginning, the next time.
            self.trees.remove(&id);
            return Err(error);
        }
        loading.rest = rest;
        Ok(loading.rest.is_none().then(|| loading.tree.root()))
    }

    /// Tells the sum over a vnode, once its tree is loaded, and what it has seen at that moment unless the asker has seen the same.
    pub(crate) fn root(&mut self, asked: &RootAsked, units: usize) -> Option<ReplicaReply> {
        let sum = match self.load_tree(asked.vnode, units) {
            Ok(None) => return None,
            Ok(Some(sum)) => sum,
            Err(error) => return Some(refused(unreadable(&error))),
        };
        let seen = match self.vnode(asked.vnode) {
            Ok(vnode) => vnode.seen(),
            Err(refusal) => return Some(refused(refusal)),
        };
        let root = UpkeepReply::Root(sum.0, asked.seen.then(|| seen.encode()));
        Some(ReplicaReply::Upkeep(Box::new(root)))
    }

    /// The sums of the parts of everything, if the tree is in memory.
    fn top(&self, id: VnodeId) -> Option<Vec<(u8, u128)>> {
        let loading = self.trees.get(&id).filter(|l| l.rest.is_none())?;
        (loading.tree.count() > RANGE_KEYS_MAX as u64).then(|| told(loading.tree.children()))
    }
}

fn told(sums: Vec<(u8, Sum)>) -> Vec<(u8, u128)> {
    sums.into_iter().map(|(part, sum)| (part, sum.0)).collect()
}

/// Tells what ranges hold.
#[derive(Debug)]
pub(crate) struct PartsJob {
    vnode: VnodeId,
    /// The ranges to read yet, the next one last.
    rest: Vec<Range>,
    /// Where that one goes on, and what was found of it.
    from: Option<Vec<u8>>,
    found: Found,
    done: Vec<Part>,
}

#[derive(Debug)]
enum Found {
    Keys(Vec<KeyDigest>),
    Sums(Adder),
}

impl PartsJob {
    pub(crate) fn vnode(&self) -> VnodeId {
        self.vnode
    }

    /// # Errors
    /// A refusal, if no replica of ours would ask so.
    pub(crate) fn new(asked: &PartsAsked) -> Result<Self, Refusal> {
        let ranges = asked.ranges.iter();
        let ranges: Option<Vec<Range>> = ranges
            .map(|(first, depth)| Range::new(*first, *depth))
            .rev()
            .collect();
        match ranges.filter(|r| r.len() <= RANGES_MAX) {
            Some(rest) => Ok(PartsJob {
                vnode: asked.vnode,
                rest,
                from: None,
                found: Found::Keys(Vec::new()),
                done: Vec::new(),
            }),
            None => Err(Refusal::Malformed(
                "ranges that are none, or more than one message asks for".to_owned(),
            )),
        }
    }

    /// Goes on for about so many entries; returns the reply once it is done.
    pub(crate) fn slice<S: Storage, W>(
        &mut self,
        replica: &Replica<S, W>,
        units: usize,
    ) -> Option<ReplicaReply> {
        let mut units = units.max(SEEK_UNITS + 1);
        while units > SEEK_UNITS {
            let Some(range) = self.rest.last().copied() else {
                let parts = UpkeepReply::Parts(std::mem::take(&mut self.done));
                return Some(ReplicaReply::Upkeep(Box::new(parts)));
            };
            if range == Range::ALL
                && let Some(sums) = replica.top(self.vnode)
            {
                self.finish(Part::Sums(sums));
                continue;
            }
            units -= SEEK_UNITS;
            let from = self.from.take();
            let from = from.unwrap_or_else(|| keys::leaves_from(self.vnode, range.first()));
            let to = match range.last().checked_add(1) {
                Some(next) => Some(keys::leaves_from(self.vnode, next)),
                None => keys::end_of(&keys::vnode_prefix(self.vnode)),
            };
            let (found, mut rest) = (&mut self.found, None);
            let visited =
                replica
                    .storage
                    .visit(Family::Trees, &from, to.as_deref(), &mut |row, digest| {
                        if units == 0 {
                            rest = Some(row.to_vec());
                            return ControlFlow::Break(());
                        }
                        units -= 1;
                        found.take(range, row, digest);
                        ControlFlow::Continue(())
                    });
            if let Err(error) = visited {
                return Some(refused(unreadable(&error)));
            }
            if rest.is_some() {
                self.from = rest;
                return None;
            }
            let part = match std::mem::replace(&mut self.found, Found::Keys(Vec::new())) {
                Found::Keys(keys) => Part::Keys(keys),
                Found::Sums(adder) => Part::Sums(told(adder.finish())),
            };
            self.finish(part);
        }
        None
    }

    fn finish(&mut self, part: Part) {
        self.done.push(part);
        self.rest.pop();
    }
}

impl Found {
    fn take(&mut self, range: Range, row: &[u8], digest: &[u8]) {
        let (Some((at, bucket, key)), Ok(digest)) = (keys::of_leaf(row), digest.try_into()) else {
            return;
        };
        match self {
            Found::Sums(adder) => adder.add(at, leaf(at, &digest)),
            Found::Keys(keys) => {
                keys.push(KeyDigest {
                    bucket,
                    key: Bytes::copy_from_slice(key),
                    digest,
                });
                if keys.len() > RANGE_KEYS_MAX && range.first() < range.last() {
                    *self = Found::Sums(sums(range, keys));
                }
            }
        }
    }
}

/// The sums of a range's parts from all its keys, in ascending order of positions.
fn sums(range: Range, keys: &[KeyDigest]) -> Adder {
    let mut adder = Adder::new(range);
    for key in keys {
        let at = position(&key.bucket.0, &key.key);
        adder.add(at, leaf(at, &key.digest));
    }
    adder
}

/// What differs in a range between what two replicas told of it.
#[derive(Debug, Default)]
pub(crate) struct Differing {
    /// Parts to look at.
    pub(crate) ranges: Vec<Range>,
    /// Keys.
    pub(crate) keys: Vec<(BucketId, Bytes)>,
}

impl Differing {
    /// Compares.
    pub(crate) fn note(&mut self, range: Range, mine: &Part, theirs: &Part) {
        if let (Part::Keys(mine), Part::Keys(theirs)) = (mine, theirs) {
            let (mine, theirs) = (sorted(mine), sorted(theirs));
            let lacking = |of: &[&KeyDigest], among: &[&KeyDigest]| {
                let lacks = |k: &&&KeyDigest| among.binary_search(k).is_err();
                let keys = of.iter().filter(lacks);
                keys.map(|k| (k.bucket, k.key.clone())).collect::<Vec<_>>()
            };
            let mut keys = lacking(&mine, &theirs);
            keys.extend(lacking(&theirs, &mine));
            keys.sort();
            keys.dedup();
            self.keys.extend(keys);
            return;
        }
        if range.first() == range.last() {
            // Nobody has so many keys at one position.
            return;
        }
        let (mine, theirs) = (sums_of(range, mine), sums_of(range, theirs));
        self.ranges.extend(range.differing(&mine, &theirs));
    }
}

fn sorted(keys: &[KeyDigest]) -> Vec<&KeyDigest> {
    let mut keys: Vec<&KeyDigest> = keys.iter().collect();
    keys.sort();
    keys
}

fn sums_of(range: Range, part: &Part) -> Vec<(u8, Sum)> {
    match part {
        Part::Sums(sums) => sums.iter().map(|(part, sum)| (*part, Sum(*sum))).collect(),
        Part::Keys(keys) => {
            let mut keys = keys.clone();
            keys.retain(|k| range.contains(position(&k.bucket.0, &k.key)));
            keys.sort_by_key(|k| position(&k.bucket.0, &k.key));
            sums(range, &keys).finish()
        }
    }
}
