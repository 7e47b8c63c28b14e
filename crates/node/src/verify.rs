//! Comparing trees with the records they are of, a little at a time: what is lost without a word is found here (rule R18).
//!
//! Where a record is gone or unreadable whose entry is there, the key is put on record as damaged, and made good from the
//! others. An entry that is not the record's is put right. In the end the tree is read anew from its entries.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_protocol::{BucketId, Refusal, VnodeId};
use quorate_storage::{Family, Storage};

use crate::api::{Event, Output};
use crate::keys;
use crate::node::Node;
use crate::trees::Shape;

/// How far the comparison of one vnode has come.
#[derive(Debug)]
pub(crate) struct VerifyJob {
    vnode: VnodeId,
    from: Vec<u8>,
}

impl VerifyJob {
    pub(crate) fn vnode(&self) -> VnodeId {
        self.vnode
    }

    pub(crate) fn new(vnode: VnodeId) -> Self {
        VerifyJob {
            vnode,
            from: keys::vnode_prefix(vnode),
        }
    }
}

impl<S: Storage> Node<S> {
    /// Goes on for about so many keys; returns whether there are more.
    pub(crate) fn verify_slice(
        &mut self,
        job: &mut VerifyJob,
        units: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let vnode = job.vnode;
        let end = keys::end_of(&keys::vnode_prefix(vnode));
        let mut found: Vec<(BucketId, Bytes)> = Vec::new();
        let mut last = None;
        // A record costs more than an entry.
        let most = (units / 4).max(1);
        let visited =
            self.replica
                .storage
                .visit(Family::Trees, &job.from, end.as_deref(), &mut |row, _| {
                    if found.len() >= most {
                        last = Some(row.to_vec());
                        return ControlFlow::Break(());
                    }
                    if let Some((_, bucket, key)) = keys::of_leaf(row) {
                        found.push((bucket, Bytes::copy_from_slice(key)));
                    }
                    ControlFlow::Continue(())
                });
        for (bucket, key) in found {
            if self.replica.is_damaged(vnode, bucket, &key) {
                continue;
            }
            match self.replica.load(vnode, bucket, &key) {
                // An entry says that there are live values.
                Ok(record) if Shape::of(&record).digest().is_none() => {
                    self.replica.mark_damaged(vnode, bucket, &key);
                }
                Ok(record) => {
                    let _ = self.replica.right_leaf(vnode, bucket, &key, &record);
                }
                // It is on record now.
                Err(Refusal::Corrupt(_)) => {}
                Err(_) => return false,
            }
        }
        match (visited, last) {
            (Ok(()), Some(last)) => {
                job.from = last;
                true
            }
            _ => {
                self.replica.trees.remove(&vnode);
                out.push(Output::Event(Event::TreeVerified));
                false
            }
        }
    }
}
