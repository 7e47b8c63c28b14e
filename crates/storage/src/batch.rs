//! What is to become durable together.

use bytes::Bytes;

use crate::Family;

/// What an operation costs beside its bytes, approximately: its header in the log and its node in the memtable.
const OP_OVERHEAD_BYTES: usize = 64;

/// One change of one entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// Where.
    pub family: Family,
    /// Of which entry.
    pub key: Bytes,
    /// Its new value, or `None` if the entry goes.
    pub value: Option<Bytes>,
}

/// Operations that become durable whole or not at all. Applied in order, so that the last one to a key counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
    size: usize,
}

impl Batch {
    /// Without operations.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Sets an entry, whether or not it is there.
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Op {
            family,
            key: key.into(),
            value: Some(value.into()),
        });
    }

    /// Takes an entry away, if it is there.
    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.push(Op {
            family,
            key: key.into(),
            value: None,
        });
    }

    fn push(&mut self, op: Op) {
        self.size += OP_OVERHEAD_BYTES + op.key.len() + op.value.as_ref().map_or(0, Bytes::len);
        self.ops.push(op);
    }

    /// Whether it has no operations.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The operations, in order.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = &Op> {
        self.ops.iter()
    }

    /// Approximately what it takes in a log, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.size
    }
}

impl IntoIterator for Batch {
    type Item = Op;
    type IntoIter = std::vec::IntoIter<Op>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_holds() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        assert_eq!(batch.size_bytes(), 0);
        batch.put(Family::Records, vec![1, 2], vec![0; 1000]);
        batch.delete(Family::Meta, &b"gone"[..]);
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.size_bytes(), 2 * OP_OVERHEAD_BYTES + 1006);
        let ops: Vec<&Op> = batch.ops().collect();
        assert_eq!(ops[0].value.as_deref(), Some(&[0; 1000][..]));
        assert_eq!((ops[1].family, &ops[1].value), (Family::Meta, &None));
    }
}
