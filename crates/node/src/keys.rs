//! Where things stand in storage.
//!
//! Records: partition, bucket id, key, so that a partition is one range to scan, transfer or drop. Clocks: partition,
//! replica set, actor: one row for each actor, so that a write rewrites the runs of its own actor alone. Leaves of trees and marks of
//! pending evidence begin with partition and replica set as well.

use quorate_causal::Actor;
use quorate_protocol::{BucketId, VnodeId};
use quorate_ring::{NodeId, Partition, ReplicaSetId};

/// The key of a record.
pub(crate) fn record(vnode: VnodeId, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 16 + key.len());
    out.extend_from_slice(&vnode.partition.0.to_be_bytes());
    out.extend_from_slice(&bucket.0);
    out.extend_from_slice(key);
    out
}

/// What the key of a record is about: partition, bucket and key.
pub(crate) fn of_record(record: &[u8]) -> Option<(Partition, BucketId, &[u8])> {
    let (partition, rest) = record.split_first_chunk()?;
    let (bucket, key) = rest.split_first_chunk()?;
    Some((
        Partition(u16::from_be_bytes(*partition)),
        BucketId(*bucket),
        key,
    ))
}

/// The key of the row that holds what a vnode has seen of one actor.
pub(crate) fn clock_row(vnode: VnodeId, actor: Actor) -> Vec<u8> {
    let mut out = vnode_prefix(vnode);
    out.extend_from_slice(&actor.0.to_be_bytes());
    out
}

/// The key of the row that holds what a vnode has seen of one actor, or adopted.
pub(crate) fn adopted_row(vnode: VnodeId, actor: Actor) -> Vec<u8> {
    let mut out = clock_row(vnode, actor);
    out.push(ADOPTED);
    out
}

/// The key of the row that holds up to which loss a vnode is refilled.
pub(crate) fn refilled_row(vnode: VnodeId) -> Vec<u8> {
    let mut out = vnode_prefix(vnode);
    out.push(REFILLED);
    out
}

/// The key of the row that holds for which layout a vnode is synced.
pub(crate) fn synced_row(vnode: VnodeId) -> Vec<u8> {
    let mut out = vnode_prefix(vnode);
    out.push(SYNCED);
    out
}

const ADOPTED: u8 = b'a';
const REFILLED: u8 = b'r';
const SYNCED: u8 = b's';

/// What a row of a vnode is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VnodeRow {
    Clock(Actor),
    Adopted(Actor),
    Refilled,
    Synced,
}

/// What all rows of a vnode begin with: of its own, and of its records' trees and evidence.
pub(crate) fn vnode_prefix(vnode: VnodeId) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 8 + 16);
    out.extend_from_slice(&vnode.partition.0.to_be_bytes());
    out.extend_from_slice(&vnode.set.0.to_be_bytes());
    out
}

/// What a row of `vnode` is about, if it is one.
pub(crate) fn vnode_row(vnode: VnodeId, key: &[u8]) -> Option<VnodeRow> {
    let rest = key.strip_prefix(vnode_prefix(vnode).as_slice())?;
    let actor = |bytes: &[u8]| Some(Actor(u128::from_be_bytes(bytes.try_into().ok()?)));
    match rest {
        [REFILLED] => Some(VnodeRow::Refilled),
        [SYNCED] => Some(VnodeRow::Synced),
        [of @ .., ADOPTED] if of.len() == 16 => Some(VnodeRow::Adopted(actor(of)?)),
        of => Some(VnodeRow::Clock(actor(of)?)),
    }
}

/// The key of a record's leaf: by its position, so that a range of positions is one range to read.
pub(crate) fn leaf(vnode: VnodeId, position: u64, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = leaves_from(vnode, position);
    out.extend_from_slice(&bucket.0);
    out.extend_from_slice(key);
    out
}

/// What is no greater than the keys of the leaves from this position on, and greater than all before.
pub(crate) fn leaves_from(vnode: VnodeId, position: u64) -> Vec<u8> {
    let mut out = vnode_prefix(vnode);
    out.extend_from_slice(&position.to_be_bytes());
    out
}

/// What a leaf's key is about: position, bucket and key.
pub(crate) fn of_leaf(leaf: &[u8]) -> Option<(u64, BucketId, &[u8])> {
    let (position, rest) = leaf.get(VNODE_BYTES..)?.split_first_chunk()?;
    let (bucket, key) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*position), BucketId(*bucket), key))
}

/// The key of the row that says that a record has evidence to collect.
pub(crate) fn evidence(vnode: VnodeId, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = vnode_prefix(vnode);
    out.extend_from_slice(&bucket.0);
    out.extend_from_slice(key);
    out
}

/// What such a row is about: bucket and key.
pub(crate) fn of_evidence(row: &[u8]) -> Option<(BucketId, &[u8])> {
    let (bucket, key) = row.get(VNODE_BYTES..)?.split_first_chunk()?;
    Some((BucketId(*bucket), key))
}

/// How many bytes name a vnode.
const VNODE_BYTES: usize = 2 + 8;

/// The vnode that a row begins with of those that begin with one.
pub(crate) fn vnode_of(row: &[u8]) -> Option<VnodeId> {
    let (partition, rest) = row.split_first_chunk()?;
    let (set, _) = rest.split_first_chunk()?;
    Some(VnodeId {
        partition: Partition(u16::from_be_bytes(*partition)),
        set: ReplicaSetId(u64::from_be_bytes(*set)),
    })
}

/// The row that holds what this node knows of layouts.
pub(crate) const LAYOUTS: &[u8] = b"layouts";

/// The row that holds what it has promised of the next layout.
pub(crate) const PROMISE: &[u8] = b"promise";

/// The rows that hold which layouts this node has gone by.
pub(crate) const HISTORY: &[u8] = b"past-layout/";

/// The row of one of them, in order of versions.
pub(crate) fn history(version: u64) -> Vec<u8> {
    [HISTORY, &version.to_be_bytes()].concat()
}

/// The row that holds the number of the last commit.
pub(crate) const COMMITS: &[u8] = b"commits";

/// The row that holds how often this node found that it had lost state.
pub(crate) const LOSSES: &[u8] = b"losses";

/// What the keys of the rows begin with that say how far other nodes' stores were.
pub(crate) const WITNESS: &[u8] = b"witness/";

/// The key of the row about one node's store.
pub(crate) fn witness(node: NodeId) -> Vec<u8> {
    [WITNESS, &node.0.to_be_bytes()].concat()
}

/// What the keys of the rows begin with that name keys whose record was damaged or lost.
pub(crate) const DAMAGED: &[u8] = b"damaged/";

/// The key of the row about one such key.
pub(crate) fn damaged(vnode: VnodeId, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    [DAMAGED, &evidence(vnode, bucket, key)].concat()
}

/// What the keys of the rows begin with that say what is left of removals that were forgotten.
pub(crate) const RESIDUE: &[u8] = b"residue/";

/// The key of the row about one key.
pub(crate) fn residue(vnode: VnodeId, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    [RESIDUE, &evidence(vnode, bucket, key)].concat()
}

/// The key of a row in the index of deadlines: the deadline, and the key of the record that has a value with it.
pub(crate) fn deadline(expires_ms: u64, record: &[u8]) -> Vec<u8> {
    [&expires_ms.to_be_bytes()[..], record].concat()
}

/// The key of the record that such a row is about.
pub(crate) fn record_of_deadline(row: &[u8]) -> Option<&[u8]> {
    row.get(8..)
}

/// The least key above all that begin with `prefix`; `None` if there is no such key.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// What the keys of the rows of the table of buckets begin with, among what the node knows about itself.
pub(crate) const BUCKETS: &[u8] = b"bucket/";

/// The key of a bucket's row in the table.
pub(crate) fn bucket(name: &str) -> Vec<u8> {
    [BUCKETS, name.as_bytes()].concat()
}

/// What the keys of the rows begin with that name lives of buckets before which records are still to be removed.
pub(crate) const RECLAIM: &[u8] = b"reclaim/";

/// The key of the row of one such life.
pub(crate) fn reclaim(before: BucketId) -> Vec<u8> {
    [RECLAIM, &before.0].concat()
}

/// What the keys of the rows begin with that name lives of buckets of which this replica holds records, and that it has no
/// entry of.
pub(crate) const HEARD: &[u8] = b"heard/";

/// The key of the row of one such life: one row a bucket.
pub(crate) fn heard(id: BucketId) -> Vec<u8> {
    [HEARD, &id.life(0).0].concat()
}

/// What the keys of all hints for a node begin with.
pub(crate) fn hints_of(owner: NodeId) -> Vec<u8> {
    owner.0.to_be_bytes().to_vec()
}

/// The key of a hint: for whom, and of what. Those for one node are one range, in the order of its partitions.
pub(crate) fn hint(owner: NodeId, vnode: VnodeId, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + 2 + 8 + 16 + key.len());
    out.extend_from_slice(&owner.0.to_be_bytes());
    out.extend_from_slice(&vnode.partition.0.to_be_bytes());
    out.extend_from_slice(&vnode.set.0.to_be_bytes());
    out.extend_from_slice(&bucket.0);
    out.extend_from_slice(key);
    out
}

/// What the keys of the rows begin with that tell how many hints there are for a node, and of how many bytes.
pub(crate) const HINTS_HELD: &[u8] = b"hints/";

/// The key of the row of one such node.
pub(crate) fn hints_held(owner: NodeId) -> Vec<u8> {
    [HINTS_HELD, &owner.0.to_be_bytes()].concat()
}

/// What the keys of all records of a partition begin with.
pub(crate) fn records_in(partition: Partition) -> Vec<u8> {
    partition.0.to_be_bytes().to_vec()
}

/// What the keys of all records of one life of a bucket in one partition begin with.
pub(crate) fn records_of(partition: Partition, bucket: BucketId) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 16);
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(&bucket.0);
    out
}
