//! Where things stand in storage.
//!
//! Records: partition, bucket id, key, so that a partition is one range to scan, transfer or drop. Clocks: partition,
//! replica set, actor: one row for each actor, so that a write rewrites the runs of its own actor alone.

use quorate_causal::Actor;
use quorate_protocol::{BucketId, VnodeId};
use quorate_ring::{NodeId, Partition};

/// The key of a record.
pub(crate) fn record(vnode: VnodeId, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 16 + key.len());
    out.extend_from_slice(&vnode.partition.0.to_be_bytes());
    out.extend_from_slice(&bucket.0);
    out.extend_from_slice(key);
    out
}

/// The key of the row that holds what a vnode has seen of one actor.
pub(crate) fn clock_row(vnode: VnodeId, actor: Actor) -> Vec<u8> {
    let mut out = clock_prefix(vnode);
    out.extend_from_slice(&actor.0.to_be_bytes());
    out
}

/// What the keys of all clock rows of a vnode begin with.
pub(crate) fn clock_prefix(vnode: VnodeId) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 8 + 16);
    out.extend_from_slice(&vnode.partition.0.to_be_bytes());
    out.extend_from_slice(&vnode.set.0.to_be_bytes());
    out
}

/// The actor of a clock row, if the key is one of `vnode`.
pub(crate) fn actor_of(vnode: VnodeId, key: &[u8]) -> Option<Actor> {
    let rest = key.strip_prefix(clock_prefix(vnode).as_slice())?;
    Some(Actor(u128::from_be_bytes(rest.try_into().ok()?)))
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

/// What the keys of all records of one life of a bucket in one partition begin with.
pub(crate) fn records_of(partition: Partition, bucket: BucketId) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 16);
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(&bucket.0);
    out
}
