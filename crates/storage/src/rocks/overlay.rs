//! What has been committed and is not yet known to be written: kept beside the database so that the core reads its own
//! writes. It belongs to the core's thread alone, so that a read takes no lock.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::{Batch, Family, Ticket};

/// The newest operation on each key that is in flight.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// The last ticket that touched the key, and the value it left; none if it deleted.
    entries: [BTreeMap<Bytes, (Ticket, Option<Bytes>)>; Family::ALL.len()],
    /// Every operation in flight in the order of tickets, so that forgetting costs what was committed and not what is
    /// kept. Invariant: each entry is named here with its ticket.
    order: VecDeque<(Ticket, Family, Bytes)>,
}

impl Overlay {
    /// Lays a batch on top. Tickets come in ascending order.
    pub(super) fn note(&mut self, ticket: Ticket, batch: &Batch) {
        for op in batch.ops() {
            self.entries[op.family as usize].insert(op.key.clone(), (ticket, op.value.clone()));
            self.order.push_back((ticket, op.family, op.key.clone()));
        }
    }

    /// What is in flight for a key: its new value, or that it is deleted. `None` if nothing is.
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Option<&Option<Bytes>> {
        let (_, value) = self.entries[family as usize].get(key)?;
        Some(value)
    }

    /// What is in flight for the keys with `from <= key < to`, in order. `from` must be below `to`.
    pub(super) fn range<'a>(
        &'a self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> {
        let range = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let entries = self.entries[family as usize].range::<[u8], _>(range);
        entries.map(|(key, (_, value))| (key, value))
    }

    /// Drops what the database has up to this ticket.
    pub(super) fn forget_up_to(&mut self, ticket: Ticket) {
        while self.order.front().is_some_and(|(t, ..)| *t <= ticket) {
            let (t, family, key) = self.order.pop_front().expect("it was just seen");
            let entries = &mut self.entries[family as usize];
            // A later batch may have written the key again; then that one's entry stays.
            if entries.get(&key).is_some_and(|(last, _)| *last <= t) {
                entries.remove(&key);
            }
        }
    }

    /// Whether nothing is in flight.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.entries.iter().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stays_until_it_is_written() {
        let mut overlay = Overlay::default();
        let mut batch = Batch::new();
        batch.put(Family::Records, "a", "1");
        batch.put(Family::Records, "b", "1");
        batch.put(Family::Records, "b", "1 again");
        overlay.note(Ticket(1), &batch);
        let mut batch = Batch::new();
        batch.delete(Family::Records, "a");
        overlay.note(Ticket(2), &batch);

        assert_eq!(overlay.get(Family::Records, b"a"), Some(&None));
        assert_eq!(overlay.get(Family::Meta, b"a"), None);
        overlay.forget_up_to(Ticket(1));
        assert_eq!(overlay.get(Family::Records, b"a"), Some(&None));
        assert_eq!(overlay.get(Family::Records, b"b"), None);
        overlay.forget_up_to(Ticket(2));
        assert!(overlay.is_empty());
    }
}
