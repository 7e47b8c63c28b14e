//! A replica's part of a listing: the keys of some of its partitions, in the order of their bytes.
//!
//! Partitions are ranges of a hash, so each has its share of the keys in every stretch of the alphabet, and a page of the
//! bucket is put together from a little of every partition. How much of each is not known before. So of each partition
//! somewhat more than its share is read, and where one has more than that, the scan as a whole goes no further than what was
//! read there: its *horizon*. What lies beyond is thrown away, and later partitions are not read beyond it.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_causal::{Digest, Record};
use quorate_protocol::{
    BucketId, KEY_BYTES_MAX, LIST_KEYS_MAX, Refusal, ReplicaReply, Scan, ScanEntry, Scanned,
    VnodeId,
};
use quorate_ring::{Partition, ReplicaSetId};
use quorate_storage::{Family, Storage, StorageError};

use crate::jobs::{SEEK_UNITS, refused};
use crate::keys;
use crate::replica::unreadable;

/// The most bytes of keys and what belongs to them that a scan holds. If it comes to hold more, it keeps the first half
/// and goes no further: a page of the longest keys is then shorter than was asked for.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What an entry takes beside its key.
const ENTRY_BYTES: usize = 48;

/// A scan under way.
#[derive(Debug)]
pub(crate) struct ScanJob {
    set: ReplicaSetId,
    bucket: BucketId,
    prefix: Bytes,
    /// Where each partition begins: the least key that is asked for.
    from: Vec<u8>,
    limit: usize,
    /// The keys that are read of one partition, and the records that are looked at for them: a partition full of
    /// deleted keys must not take all the time there is.
    share: Share,
    /// The partitions to read yet, the next one last.
    rest: Vec<Partition>,
    /// Where the partition that is being read goes on.
    reading: Option<Cursor>,
    /// What was found. Invariant: nothing beyond the horizon is told, though it may be in here.
    found: Vec<ScanEntry>,
    bytes: usize,
    /// All keys up to here are found; none if nothing was cut off so far.
    horizon: Option<Bytes>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    keys: usize,
    records: usize,
}

#[derive(Debug)]
struct Cursor {
    partition: Partition,
    /// The key in storage to go on from.
    from: Vec<u8>,
    /// What is left of its share.
    left: Share,
}

/// The partitions that a scan's bits stand for, ascending.
pub(crate) fn partitions(bits: &[u8]) -> impl Iterator<Item = Partition> + '_ {
    let all = (0..bits.len() * 8).filter(|p| bits[p / 8] & (1 << (p % 8)) != 0);
    all.map(|p| Partition(p as u16))
}

/// The bits that stand for these partitions.
pub(crate) fn bits(partitions: impl Iterator<Item = Partition>, of: u16) -> Bytes {
    let mut bits = vec![0; usize::from(of).div_ceil(8)];
    for Partition(p) in partitions {
        bits[usize::from(p / 8)] |= 1 << (p % 8);
    }
    bits.into()
}

/// What looking at a record costs, in units: large ones are read and checked whole.
pub(crate) fn cost(record: &[u8]) -> usize {
    1 + record.len() / 4096
}

impl ScanJob {
    /// A scan of a layout with so many partitions.
    ///
    /// # Errors
    /// A refusal, if no coordinator of ours would ask so.
    pub(crate) fn new(scan: &Scan, partitions_all: u16) -> Result<Self, Refusal> {
        if scan.limit == 0
            || scan.limit > LIST_KEYS_MAX
            || scan.prefix.len() > KEY_BYTES_MAX
            || scan.after.len() > KEY_BYTES_MAX
        {
            return Err(Refusal::Malformed(
                "a scan of no keys, or of more than one answer lists, or with names too long"
                    .to_owned(),
            ));
        }
        let limit = scan.limit as usize;
        let mut from = scan.after.to_vec();
        if !from.is_empty() {
            from.push(0);
        }
        if scan.prefix[..] > from[..] {
            from = scan.prefix.to_vec();
        }
        let mut rest: Vec<Partition> = partitions(&scan.partitions).collect();
        rest.reverse();
        // Keys are spread like raindrops: of 256 partitions the poorest has about its share of the page if half as much again,
        // and a few for small pages, is read of each.
        let keys = limit * 3 / (2 * usize::from(partitions_all)) + 4;
        Ok(ScanJob {
            set: scan.set,
            bucket: scan.bucket,
            prefix: scan.prefix.clone(),
            from,
            limit,
            share: Share {
                keys,
                records: 4 * keys + 64,
            },
            rest,
            reading: None,
            found: Vec::new(),
            bytes: 0,
            horizon: None,
        })
    }

    /// Goes on for about so many records, and at least one; returns the reply once it is done. What has expired at this
    /// time of day is passed over.
    pub(crate) fn slice(
        &mut self,
        storage: &impl Storage,
        units: usize,
        wall_ms: u64,
    ) -> Option<ReplicaReply> {
        let mut units = units.max(SEEK_UNITS + 1);
        while units > SEEK_UNITS {
            let Some(mut cursor) = self.next_cursor() else {
                return Some(ReplicaReply::Scanned(self.finish()));
            };
            units -= SEEK_UNITS;
            match self.read(storage, &mut cursor, &mut units, wall_ms) {
                Ok(true) => self.reading = Some(cursor),
                Ok(false) => {}
                // Told, and not passed over: a key that cannot be read is not a key that is not there.
                Err(refusal) => return Some(refused(refusal)),
            }
        }
        None
    }

    fn vnode(&self, partition: Partition) -> VnodeId {
        VnodeId {
            partition,
            set: self.set,
        }
    }

    fn next_cursor(&mut self) -> Option<Cursor> {
        self.reading.take().or_else(|| {
            let partition = self.rest.pop()?;
            Some(Cursor {
                partition,
                from: keys::record(self.vnode(partition), self.bucket, &self.from),
                left: self.share,
            })
        })
    }

    /// Reads on in one partition; returns whether there may be more to read in it.
    fn read(
        &mut self,
        storage: &impl Storage,
        cursor: &mut Cursor,
        units: &mut usize,
        wall_ms: u64,
    ) -> Result<bool, Refusal> {
        let vnode = self.vnode(cursor.partition);
        let skip = keys::record(vnode, self.bucket, &[]).len();
        let to = match &self.horizon {
            Some(horizon) => {
                let mut to = keys::record(vnode, self.bucket, horizon);
                to.push(0);
                Some(to)
            }
            None => keys::end_of(&keys::record(vnode, self.bucket, &self.prefix)),
        };
        let nothing = Digest::of([].into_iter());
        let mut corrupt = None;
        let mut more = false;
        let mut cut = None;
        let (found, bytes) = (&mut self.found, &mut self.bytes);
        let from = std::mem::take(&mut cursor.from);
        let visited = storage.visit(Family::Records, &from, to.as_deref(), &mut |at, record| {
            let digest = match Record::digest_of(record, wall_ms) {
                Ok(digest) => digest,
                Err(error) => {
                    corrupt = Some(StorageError::Corrupt {
                        family: Family::Records,
                        key: Bytes::copy_from_slice(at),
                        reason: format!("the record is {error}"),
                    });
                    return ControlFlow::Break(());
                }
            };
            let key = &at[skip..];
            cursor.left.records -= 1;
            *units = units.saturating_sub(cost(record));
            if digest != nothing {
                cursor.left.keys -= 1;
                *bytes += key.len() + ENTRY_BYTES;
                found.push(ScanEntry {
                    key: Bytes::copy_from_slice(key),
                    digest: first_half(digest),
                });
            }
            if cursor.left.keys == 0 || cursor.left.records == 0 {
                cut = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            if *units == 0 || *bytes > BYTES_MAX {
                more = true;
                cursor.from = at.to_vec();
                cursor.from.push(0);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = corrupt.map_or(visited, Err) {
            return Err(unreadable(&error));
        }
        // Invariant: a scan ends at the horizon there was, so that what cut it off lies no further.
        if cut.is_some() {
            self.horizon = cut;
        }
        if self.bytes > BYTES_MAX {
            self.keep(self.found.len().div_ceil(2));
        }
        Ok(more)
    }

    /// Throws away what lies beyond the horizon, and all but the first `most` of the rest.
    fn keep(&mut self, most: usize) {
        self.found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if let Some(horizon) = &self.horizon {
            let within = self.found.partition_point(|e| e.key <= *horizon);
            self.found.truncate(within);
        }
        if self.found.len() > most {
            self.found.truncate(most);
            self.horizon = self.found.last().map(|e| e.key.clone());
        }
        self.bytes = self.found.iter().map(|e| e.key.len() + ENTRY_BYTES).sum();
    }

    fn finish(&mut self) -> Scanned {
        self.keep(self.limit);
        Scanned {
            entries: std::mem::take(&mut self.found),
            upto: self.horizon.take(),
        }
    }
}

/// What a scan tells of a digest.
fn first_half(Digest(bytes): Digest) -> u64 {
    let (first, _) = bytes.split_first_chunk().expect("a digest has 16 bytes");
    u64::from_be_bytes(*first)
}
