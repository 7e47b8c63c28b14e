//! The conversation of one listing with the nodes that hold the bucket's partitions.
//!
//! A page is read from as many replicas of each partition as a get of one of its keys would ask. Each node is asked once for
//! all the partitions it is to answer for. What they agree in is listed; a key of which they tell different things is
//! decided by a read of that key, which also repairs whoever is stale. A page goes no further than the scan that went
//! least far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_protocol::{
    Answer, BucketEntry, BucketId, BucketRequest, Listing, Options, Refusal, RequestId, ScanEntry,
    Scanned, Unmet,
};
use quorate_ring::{NodeId, Partition, ReplicaSetId};

use crate::tally::{Requirement, Verdict};

/// Keys of one page that are read at one time because replicas disagree about them. Enough to fill the network's round trips;
/// few enough that a replica that lost everything does not flood the others with repairs of one page.
pub(crate) const READS_MAX: usize = 16;

/// The most keys of one page that are decided by reads. A page with more ends before the next: a node that comes back empty
/// disagrees about every key, and a page of thousands of reads would not be done in time.
const DECIDED_MAX: usize = 512;

/// One partition of a listing.
#[derive(Debug)]
struct Part {
    partition: Partition,
    needed: Requirement,
    /// Replicas not asked yet, the best to ask first.
    candidates: Vec<NodeId>,
    said: BTreeMap<NodeId, Said>,
}

/// What a replica has said of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Nothing,
    Scanned,
    /// It refused, or was lost.
    Lost,
}

impl Part {
    fn said(&self, node: NodeId, what: Said) -> bool {
        self.said.get(&node) == Some(&what)
    }

    fn verdict(&self) -> Verdict {
        let met = self.needed.verdict(
            |n| self.said(n, Said::Scanned),
            |n| self.said(n, Said::Lost),
        );
        match met {
            Verdict::Pending if self.hoped() != Verdict::Met && self.candidates.is_empty() => {
                Verdict::Impossible
            }
            verdict => verdict,
        }
    }

    /// How it would stand if everybody who was asked answered well.
    fn hoped(&self) -> Verdict {
        self.needed.verdict(
            |n| self.said.get(&n).is_some_and(|said| *said != Said::Lost),
            |n| self.said(n, Said::Lost),
        )
    }
}

/// A node's answer, about some of the parts.
#[derive(Debug)]
struct Told {
    parts: BTreeSet<usize>,
    entries: Vec<ScanEntry>,
    upto: Option<Bytes>,
}

/// What is to be asked of a node: for these parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AskScan {
    pub(crate) node: NodeId,
    pub(crate) parts: Vec<usize>,
}

/// A page while its doubtful keys are being decided.
#[derive(Debug, Default)]
struct Page {
    /// In order. In doubt are those of `open` and `reads`.
    keys: Vec<String>,
    next: Option<String>,
    open: VecDeque<String>,
    reads: BTreeMap<RequestId, String>,
    /// Read, and without a live value.
    absent: BTreeSet<String>,
}

/// One page of a listing. It owns no timer and sends nothing: it is told, says whom to ask next, and says where it stands.
#[derive(Debug)]
pub(crate) struct ListConversation {
    pub(crate) asked: Asked,
    /// The change of the bucket for whose sake it is looked whether there are keys, and in which life.
    pub(crate) change: Option<(BucketRequest, u32)>,
    parts: Vec<Part>,
    told: Vec<Told>,
    /// Scans under way, each a conversation of its own.
    scans: BTreeSet<RequestId>,
    /// Whether some node refused because it had too much to do.
    overloaded: bool,
    /// What the bucket has become, if a node said that its life is over.
    over: Option<Box<BucketEntry>>,
    page: Option<Page>,
}

/// One scan of a listing, at one node.
#[derive(Debug)]
pub(crate) struct ScanConversation {
    /// The listing it belongs to.
    pub(crate) list: RequestId,
    pub(crate) node: NodeId,
    pub(crate) parts: Vec<usize>,
}

/// What is to be listed, and with what.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) bucket: String,
    /// The life of the bucket that is listed, and who has it.
    pub(crate) id: BucketId,
    pub(crate) set: ReplicaSetId,
    pub(crate) prefix: Bytes,
    pub(crate) after: Bytes,
    pub(crate) limit: u32,
    pub(crate) options: Options,
}

impl ListConversation {
    /// A listing over these partitions: of each, what is needed and whom to ask, the best first.
    pub(crate) fn new(
        asked: Asked,
        parts: impl Iterator<Item = (Partition, Requirement, Vec<NodeId>)>,
    ) -> Self {
        let parts = parts.map(|(partition, needed, mut candidates)| {
            candidates.retain(|node| needed.counts(*node));
            Part {
                partition,
                needed,
                candidates,
                said: BTreeMap::new(),
            }
        });
        ListConversation {
            asked,
            change: None,
            parts: parts.collect(),
            told: Vec::new(),
            scans: BTreeSet::new(),
            overloaded: false,
            over: None,
            page: None,
        }
    }

    /// Whom to ask now. Call after every change, before [`ListConversation::verdict`].
    pub(crate) fn next(&mut self) -> Vec<AskScan> {
        self.asks(|part| part.hoped() != Verdict::Met)
    }

    /// Asks everybody for what is not answered yet: some of those asked are slow.
    pub(crate) fn widen(&mut self) -> Vec<AskScan> {
        if self.page.is_some() {
            return Vec::new();
        }
        self.asks(|part| part.verdict() != Verdict::Met)
    }

    /// Asks candidates of each part while it wants more; together what goes to one node.
    fn asks(&mut self, wants: impl Fn(&Part) -> bool) -> Vec<AskScan> {
        let mut asks: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (at, part) in self.parts.iter_mut().enumerate() {
            while !part.candidates.is_empty() && wants(part) {
                let node = part.candidates.remove(0);
                part.said.insert(node, Said::Nothing);
                asks.entry(node).or_default().push(at);
            }
        }
        let asks = asks.into_iter();
        asks.map(|(node, parts)| AskScan { node, parts }).collect()
    }

    /// A scan is on its way.
    pub(crate) fn scanning(&mut self, id: RequestId) {
        self.scans.insert(id);
    }

    /// The partitions of these parts.
    pub(crate) fn partitions<'a>(
        &'a self,
        parts: &'a [usize],
    ) -> impl Iterator<Item = Partition> + 'a {
        parts.iter().map(|at| self.parts[*at].partition)
    }

    /// A node has told what it has.
    pub(crate) fn scanned(&mut self, scan: RequestId, of: &ScanConversation, scanned: Scanned) {
        self.scans.remove(&scan);
        if !self.is_sound(&scanned) {
            return self.lost(scan, of);
        }
        for at in &of.parts {
            self.parts[*at].said.insert(of.node, Said::Scanned);
        }
        self.told.push(Told {
            parts: of.parts.iter().copied().collect(),
            entries: scanned.entries,
            upto: scanned.upto,
        });
    }

    /// Whether an answer is one: its keys ascend, are text, and lie where they should.
    fn is_sound(&self, scanned: &Scanned) -> bool {
        let is_text = |key: &Bytes| std::str::from_utf8(key).is_ok();
        let ascends = scanned.entries.is_sorted_by(|a, b| a.key < b.key);
        let first = scanned
            .entries
            .first()
            .is_none_or(|e| e.key > self.asked.after);
        let last = scanned.entries.last().map(|e| &e.key);
        let within = scanned
            .upto
            .as_ref()
            .is_none_or(|upto| *upto > self.asked.after && last.is_none_or(|last| last <= upto));
        let mut keys = scanned.entries.iter().map(|e| &e.key).chain(&scanned.upto);
        ascends && first && within && keys.all(|k| is_text(k) && k.starts_with(&self.asked.prefix))
    }

    /// A node refused a scan because it has too much to do.
    pub(crate) fn overloaded(&mut self) {
        self.overloaded = true;
    }

    /// A node refused a scan because this life of the bucket is over.
    pub(crate) fn is_over(&mut self, entry: Box<BucketEntry>) {
        self.over = Some(entry);
    }

    /// A node refused a scan, or was lost.
    pub(crate) fn lost(&mut self, scan: RequestId, of: &ScanConversation) {
        self.scans.remove(&scan);
        for at in &of.parts {
            self.parts[*at].said.insert(of.node, Said::Lost);
        }
    }

    /// Whether enough of every partition was told.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::Met;
        for part in &self.parts {
            match part.verdict() {
                Verdict::Met => {}
                Verdict::Pending => verdict = Verdict::Pending,
                Verdict::Impossible => return Verdict::Impossible,
            }
        }
        verdict
    }

    /// Whether the scans are over and the page is being decided.
    pub(crate) fn is_deciding(&self) -> bool {
        self.page.is_some()
    }

    /// Puts the page together from what was told. To be called once the verdict is `Met`. Returns how many keys are in
    /// doubt.
    pub(crate) fn put_together(&mut self, partition_of: impl Fn(&str) -> Partition) -> usize {
        let told = std::mem::take(&mut self.told);
        let horizon = told.iter().filter_map(|t| t.upto.as_ref()).min().cloned();
        let part_at: BTreeMap<Partition, usize> = {
            let parts = self.parts.iter().enumerate();
            parts.map(|(at, part)| (part.partition, at)).collect()
        };
        let mut page = Page::default();
        let mut rests: Vec<std::slice::Iter<'_, ScanEntry>> =
            told.iter().map(|t| t.entries.iter()).collect();
        loop {
            let heads = rests.iter().filter_map(|rest| rest.as_slice().first());
            let Some(key) = heads.map(|e| e.key.clone()).min() else {
                break;
            };
            if horizon.as_ref().is_some_and(|horizon| key > *horizon) {
                break;
            }
            if page.keys.len() >= self.asked.limit as usize || page.open.len() >= DECIDED_MAX {
                page.next = page.keys.last().cloned();
                self.page = Some(page);
                return self.in_doubt();
            }
            let mut digests: Vec<Option<u64>> = Vec::with_capacity(told.len());
            for rest in &mut rests {
                let here = rest.as_slice().first().filter(|e| e.key == key);
                digests.push(here.map(|e| e.digest));
                if here.is_some() {
                    rest.next();
                }
            }
            // Checked when it came.
            let text = String::from_utf8_lossy(&key).into_owned();
            let first = digests.iter().flatten().next().copied();
            // What everybody tells alike need not be looked up.
            let agreed = digests.iter().all(|d| *d == first) || {
                let at = part_at.get(&partition_of(&text)).copied();
                let asked = told.iter().zip(&digests);
                let mut asked = asked.filter(|(t, _)| at.is_some_and(|at| t.parts.contains(&at)));
                asked.all(|(_, digest)| *digest == first)
            };
            if !agreed {
                page.open.push_back(text.clone());
            }
            page.keys.push(text);
        }
        // Checked when it came, as the keys were.
        page.next = horizon.map(|h| String::from_utf8_lossy(&h).into_owned());
        self.page = Some(page);
        self.in_doubt()
    }

    fn in_doubt(&self) -> usize {
        self.page.as_ref().map_or(0, |page| page.open.len())
    }

    /// The next key to read, if one more may be read now.
    pub(crate) fn next_read(&mut self) -> Option<String> {
        let page = self.page.as_mut()?;
        if page.reads.len() >= READS_MAX {
            return None;
        }
        page.open.pop_front()
    }

    /// A key is being read.
    pub(crate) fn reading(&mut self, read: RequestId, key: String) {
        if let Some(page) = &mut self.page {
            page.reads.insert(read, key);
        }
    }

    /// A read goes on as another.
    pub(crate) fn moved(&mut self, from: RequestId, to: RequestId, key: String) {
        if let Some(page) = &mut self.page {
            page.reads.remove(&from);
            page.reads.insert(to, key);
        }
    }

    /// What a read has found: whether the key has a live value.
    pub(crate) fn decided(&mut self, read: RequestId, is_live: bool) {
        if let Some(page) = &mut self.page
            && let Some(key) = page.reads.remove(&read)
            && !is_live
        {
            page.absent.insert(key);
        }
    }

    /// The answer, once nothing is in doubt any more.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let page = self.page.as_mut()?;
        if !page.open.is_empty() || !page.reads.is_empty() {
            return None;
        }
        let mut page = std::mem::take(page);
        page.keys.retain(|key| !page.absent.contains(key));
        Some(Answer::Listed(Listing {
            keys: page.keys,
            next: page.next,
        }))
    }

    /// The conversations that are under way for it.
    pub(crate) fn children(&self) -> Vec<RequestId> {
        let reads = self.page.iter().flat_map(|page| page.reads.keys());
        self.scans.iter().chain(reads).copied().collect()
    }

    /// The answer when too few have told. A listing changes nothing.
    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        if let Some(entry) = &self.over {
            return Answer::Refused(Refusal::BucketChanged(entry.clone()));
        }
        if self.overloaded && !timed_out {
            return Answer::Refused(Refusal::Overloaded);
        }
        let worst = self.parts.iter().map(|part| {
            let scanned = part.said.values().filter(|s| **s == Said::Scanned);
            let met = part.verdict() == Verdict::Met;
            (met, scanned.count() as u32, part.needed.needed())
        });
        let (_, answered, needed) = worst.min().unwrap_or_default();
        Answer::Unmet(Unmet {
            needed,
            answered,
            timed_out,
            may_have_written: false,
        })
    }
}
