//! The key a request is about, with everything that follows from it.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::{BucketId, VnodeId};

use crate::buckets::Policy;

/// One key of one bucket, placed.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The bucket's name.
    pub(crate) bucket: Arc<str>,
    pub(crate) key: String,
    pub(crate) id: BucketId,
    pub(crate) vnode: VnodeId,
    pub(crate) policy: Arc<Policy>,
}

impl Target {
    pub(crate) fn key_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.key.as_bytes())
    }
}
