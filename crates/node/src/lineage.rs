//! Whether this node's store is the one it had before: rule R2.
//!
//! A directory that is restored from a copy looks cleanly closed. But every commit that changes data has a number, and other nodes
//! remember how far each store has said to be. A store that is opened with fewer commits than somebody remembers has lost
//! some: all its vnodes are *amnesiac* until each is refilled by complete exchanges. A loss is counted, and its number kept with the
//! data, so that an interrupted refill goes on after a restart; numbers go on above whatever is remembered, so that each loss is
//! found once.
//!
//! Stores tell their numbers once a second and whenever nodes meet. After a start a node is *unverified* until half of the others,
//! rounded up, have told what they remember of it: to ask all would keep it out while any node is down, and since all
//! hear of all numbers within a second, one that hears is enough to know of anything older. Those are asked that are in the layout
//! without a live predecessor; and who is verified stays so until the next start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_protocol::Hello;
use quorate_ring::NodeId;
use quorate_storage::{Batch, Family, Storage, StorageError, Ticket};
use rand::RngCore;

use crate::keys;

/// What is remembered of another node's store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Witnessed {
    /// The open that was heard of last.
    open: u128,
    /// The greatest number from any open before.
    before: u64,
    /// The greatest number from this one.
    number: u64,
}

impl Witnessed {
    fn encode(self) -> Vec<u8> {
        let mut out = self.open.to_be_bytes().to_vec();
        out.extend_from_slice(&self.before.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Witnessed> {
        let (open, rest) = bytes.split_first_chunk()?;
        let (before, rest) = rest.split_first_chunk()?;
        Some(Witnessed {
            open: u128::from_be_bytes(*open),
            before: u64::from_be_bytes(*before),
            number: u64::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

/// The numbers of this node's commits, what it remembers of others, and what they remember of it.
#[derive(Debug)]
pub(crate) struct Lineage {
    /// A random number for this open.
    open: u128,
    /// The number of the last commit that this open found, or after a loss was found the one from which it goes on.
    base: u64,
    /// The number of the last commit.
    last: u64,
    /// The number of the last commit that is as durable as an acknowledgement.
    durable: u64,
    /// Commits on their way, ascending.
    on_its_way: VecDeque<(Ticket, u64)>,
    /// How often state was lost.
    losses: u64,
    /// Who is asked; `None` where nobody tells what it remembers.
    witnesses: Option<BTreeSet<NodeId>>,
    /// Who has told what it remembers.
    heard: BTreeSet<NodeId>,
    /// Whether enough of them have. Once so, it stays so: whoever joins later knows nothing of what was before.
    is_verified: bool,
    witnessed: BTreeMap<NodeId, Witnessed>,
}

impl Lineage {
    pub(crate) fn load(
        storage: &impl Storage,
        rng: &mut impl RngCore,
    ) -> Result<Lineage, StorageError> {
        let number = |key: &[u8]| -> Result<u64, StorageError> {
            let Some(row) = storage.get(Family::Meta, key)? else {
                return Ok(0);
            };
            let bytes = row[..].try_into().map_err(|_| not_a_row(key))?;
            Ok(u64::from_be_bytes(bytes))
        };
        let (commits, losses) = (number(keys::COMMITS)?, number(keys::LOSSES)?);
        let mut witnessed = BTreeMap::new();
        let end = keys::end_of(keys::WITNESS);
        let rows = storage.scan(Family::Meta, keys::WITNESS, end.as_deref(), usize::MAX)?;
        for (key, row) in rows {
            let node = key[keys::WITNESS.len()..].try_into().ok();
            let (Some(node), Some(told)) = (node, Witnessed::decode(&row)) else {
                return Err(not_a_row(&key));
            };
            witnessed.insert(NodeId(u64::from_be_bytes(node)), told);
        }
        Ok(Lineage {
            open: (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64()),
            base: commits,
            last: commits,
            durable: commits,
            on_its_way: VecDeque::new(),
            losses,
            witnesses: None,
            heard: BTreeSet::new(),
            is_verified: true,
            witnessed,
        })
    }

    /// Gives the next commit its number.
    pub(crate) fn number(&mut self, batch: &mut Batch) {
        self.last += 1;
        let row = self.last.to_be_bytes().to_vec();
        batch.put(Family::Meta, keys::COMMITS, row);
    }

    /// The commit that was numbered last got this ticket.
    pub(crate) fn on_its_way(&mut self, ticket: Ticket) {
        self.on_its_way.push_back((ticket, self.last));
    }

    /// Everything up to this ticket is as durable as an acknowledgement.
    pub(crate) fn advance(&mut self, written: Ticket) {
        while let Some((ticket, number)) = self.on_its_way.front()
            && *ticket <= written
        {
            self.durable = *number;
            self.on_its_way.pop_front();
        }
    }

    /// How far this store is.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            open: self.open,
            base: self.base,
            number: self.durable,
            layouts: 0,
        }
    }

    /// The greatest number that is remembered of another node.
    pub(crate) fn known_of(&self, node: NodeId) -> u64 {
        let known = self.witnessed.get(&node);
        known.map_or(0, |k| k.before.max(k.number))
    }

    /// How often state was lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// Another node tells how far its store is. Returns what was remembered of its earlier opens; what is to be remembered now goes
    /// into the batch.
    pub(crate) fn witness(&mut self, node: NodeId, hello: &Hello, batch: &mut Batch) -> u64 {
        let known = self.witnessed.entry(node).or_default();
        let was = *known;
        if known.open != hello.open {
            known.before = known.before.max(known.number);
            known.open = hello.open;
            known.number = 0;
        }
        known.number = known.number.max(hello.number);
        if *known != was {
            batch.put(Family::Meta, keys::witness(node), known.encode());
        }
        known.before
    }

    /// Another node tells what it remembers of this one's earlier opens. If that is more than this one found, state was lost:
    /// the batch notes that, and it returns true.
    pub(crate) fn remembered(&mut self, by: NodeId, before: u64, batch: &mut Batch) -> bool {
        self.heard.insert(by);
        self.verify();
        if before <= self.base {
            return false;
        }
        self.lose(before, batch);
        true
    }

    /// State was lost. Numbers go on above `before`.
    pub(crate) fn lose(&mut self, before: u64, batch: &mut Batch) {
        self.losses += 1;
        let losses = self.losses.to_be_bytes().to_vec();
        batch.put(Family::Meta, keys::LOSSES, losses);
        self.last = self.last.max(before);
        self.base = self.last;
        // Else it would be found again after a restart.
        let row = self.last.to_be_bytes().to_vec();
        batch.put(Family::Meta, keys::COMMITS, row);
    }

    /// These are asked what they remember of this node.
    pub(crate) fn ask(&mut self, witnesses: BTreeSet<NodeId>) {
        if self.witnesses.is_none() {
            self.is_verified = false;
        }
        self.witnesses = Some(witnesses);
        self.verify();
    }

    fn verify(&mut self) {
        if let Some(all) = &self.witnesses {
            let heard = all.iter().filter(|node| self.heard.contains(node));
            self.is_verified |= heard.count() >= all.len().div_ceil(2);
        }
    }

    /// Whether half of those that are asked, rounded up, have told what they remember; or nobody is asked.
    pub(crate) fn is_verified(&self) -> bool {
        self.is_verified
    }
}

fn not_a_row(key: &[u8]) -> StorageError {
    StorageError::Corrupt {
        family: Family::Meta,
        key: bytes::Bytes::copy_from_slice(key),
        reason: "not a row of what a node knows about itself".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::memory::MemoryDisk;
    use quorate_storage::{Level, Ticket};
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    use super::*;

    fn open(disk: &MemoryDisk, seed: u64) -> (quorate_storage::memory::MemoryStorage, Lineage) {
        let storage = disk.open();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let lineage = Lineage::load(&storage, &mut rng).expect("readable");
        (storage, lineage)
    }

    fn write(storage: &mut impl Storage, disk: &MemoryDisk, lineage: &mut Lineage) {
        let mut batch = Batch::new();
        lineage.number(&mut batch);
        let ticket = storage.commit(batch, Level::Synced);
        lineage.on_its_way(ticket);
        let _ = disk.sync_up_to(ticket);
        lineage.advance(ticket);
    }

    /// A store that is put back to where it was is told by anybody who remembers more; one that merely restarted is not; and each
    /// loss is found once.
    #[test]
    fn a_store_that_was_put_back_is_recognised_once() {
        let (disk, me, peer) = (MemoryDisk::new(), NodeId(1), NodeId(2));
        let (_, mut witness) = open(&MemoryDisk::new(), 9);
        let mut told = |lineage: &mut Lineage, batch: &mut Batch| {
            let before = witness.witness(me, &lineage.hello(), &mut Batch::new());
            lineage.remembered(peer, before, batch)
        };
        let (mut storage, mut lineage) = open(&disk, 1);
        lineage.ask([peer, NodeId(3)].into());
        assert!(!lineage.is_verified());
        for _ in 0..5 {
            write(&mut storage, &disk, &mut lineage);
        }
        assert!(!told(&mut lineage, &mut Batch::new()));
        assert!(lineage.is_verified());
        // Those that join do not make a stranger of it.
        lineage.ask((2..9).map(NodeId).collect());
        assert!(lineage.is_verified());
        let copy = disk.copy();
        for _ in 0..5 {
            write(&mut storage, &disk, &mut lineage);
        }
        assert!(!told(&mut lineage, &mut Batch::new()));
        storage.close().expect("closed");

        let (_, mut restarted) = open(&disk, 2);
        assert!(!told(&mut restarted, &mut Batch::new()));

        let (mut storage, mut restored) = open(&copy, 3);
        // However much it has written before it hears.
        for _ in 0..20 {
            write(&mut storage, &copy, &mut restored);
        }
        let mut batch = Batch::new();
        assert!(told(&mut restored, &mut batch));
        assert_eq!(restored.losses(), 1);
        let ticket: Ticket = storage.commit(batch, Level::Synced);
        let _ = copy.sync_up_to(ticket);
        write(&mut storage, &copy, &mut restored);
        assert!(!told(&mut restored, &mut Batch::new()));
        storage.close().expect("closed");
        let (_, mut again) = open(&copy, 4);
        assert_eq!(again.losses(), 1);
        assert!(!told(&mut again, &mut Batch::new()));
    }
}
