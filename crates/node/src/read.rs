//! The conversation of one read with the replicas of its key.

mod hedge;

use std::collections::{BTreeMap, BTreeSet};

use quorate_causal::{Digest, Dot, DotSet, Record};
use quorate_protocol::{Answer, Options, RequestId, Unmet};
use quorate_ring::NodeId;

use crate::condition::ReadFirst;
use crate::node::Timer;
use crate::sloppy::{StandIns, choose};
use crate::tally::{Requirement, Seat, Verdict};
use crate::target::Target;
use crate::time::Time;

/// What a replica has said.
#[derive(Debug)]
enum Heard {
    Digest(Digest),
    Record(Record),
    /// It refused, or was lost.
    Lost,
}

/// A replica that was asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// For the whole record, at the last.
    whole: bool,
    /// When, for that: a record that is asked for after a digest has its own time.
    at: Time,
    /// During which input of the node, at the last.
    input: u64,
}

/// What a read asks of its replicas.
#[derive(Clone, Debug)]
pub(crate) struct ReadTerms {
    /// How many must answer.
    pub(crate) r: Requirement,
    /// Of these, how many primaries.
    pub(crate) pr: Requirement,
    /// Whether fallbacks may stand in for primaries, but for `pr`.
    pub(crate) sloppy: bool,
    /// What its client asked for, from which all this follows under the layouts that are live.
    pub(crate) options: Options,
    /// Whether primaries alone are to meet both.
    pub(crate) primaries_only: bool,
}

impl ReadTerms {
    /// What primaries alone are to meet.
    pub(crate) fn strict(needed: Requirement, options: Options) -> Self {
        ReadTerms {
            r: needed,
            pr: Requirement::default(),
            sloppy: false,
            options,
            primaries_only: true,
        }
    }

    /// Whether the reader counts on more than one answer.
    pub(crate) fn is_strict(&self) -> bool {
        self.r.needed() > 1 || self.pr.needed() > 0
    }
}

/// What becomes of the record once read.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// It is the answer.
    Answer,
    /// A write goes on from it. It asks for no digests: it must also learn which removals its replicas know of, as it
    /// acknowledges those too.
    Write(Box<ReadFirst>),
    /// A listing wants to know whether the key has a live value: its replicas told different things.
    Listing(RequestId),
}

/// One read. It owns no timer and sends nothing: it is told, says whom to ask next, and says where it stands.
#[derive(Debug)]
pub(crate) struct ReadConversation {
    pub(crate) target: Target,
    pub(crate) purpose: Purpose,
    pub(crate) needed: ReadTerms,
    /// The bucket's name, if a replica said that its life is over.
    pub(crate) over: Option<String>,
    /// Replicas not asked yet, the best to ask first.
    candidates: Vec<NodeId>,
    /// All primaries, and the fallbacks that are in reach, in the order of the preference list.
    primaries: Vec<Seat>,
    fallbacks: Vec<Seat>,
    /// The fallbacks that were asked.
    stand_ins: StandIns,
    asked: BTreeMap<NodeId, Asked>,
    heard: BTreeMap<NodeId, Heard>,
    /// During which input each told the values that it shows.
    heard_at: BTreeMap<NodeId, u64>,
    /// What replicas were asked about values that they lack.
    recalled: BTreeMap<(NodeId, Dot), Recalled>,
    /// What those showed that are asked again.
    earlier: BTreeMap<NodeId, Record>,
    /// The primaries that were asked again since they had what a fallback shows, and have it no more.
    outdated: BTreeSet<NodeId>,
    /// The input that the node handles.
    pub(crate) input: u64,
    /// The primaries lost because the connection to them ended. They may come back, and then can be asked again: a read changes
    /// nothing.
    gone: BTreeSet<NodeId>,
    hedge: hedge::Hedge,
    /// The timer that it has set, for its hedge or for the end of its patience.
    pub(crate) timer: Option<(Time, Timer)>,
    /// Until when it waits for one of them, once it cannot go on without.
    pub(crate) gives_up_at: Option<Time>,
}

/// Whom to ask next, for what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) node: NodeId,
    pub(crate) digest_only: bool,
    /// Of a fallback: the primary in whose place it is asked for what it keeps.
    pub(crate) in_place_of: Option<NodeId>,
    /// Where it is asked just what became of values that it lacks: which.
    pub(crate) about: Vec<Dot>,
    /// Whether it has answered this read before. It is asked under a number of its own then, so that what it said before, and comes
    /// twice, is not taken for what it says now.
    pub(crate) again: bool,
}

/// What a replica has told of a value that it lacks, and during which input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Recalled {
    /// Nothing yet.
    Asked,
    /// It never came there, or has come by now, or is known to be removed.
    Never(u64),
    /// It was there, and nothing is known of a removal.
    Gone(u64),
}

fn shows(record: &Record, dot: Dot) -> bool {
    record.live().iter().any(|s| s.span.dot == dot)
}

/// A read that is done: what the answering replicas know together, and what some of them lack of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) record: Record,
    pub(crate) repairs: Vec<(NodeId, Record)>,
}

impl ReadConversation {
    /// A read of these replicas, the best to ask first.
    pub(crate) fn new(
        target: Target,
        needed: ReadTerms,
        mut candidates: Vec<NodeId>,
        purpose: Purpose,
    ) -> Self {
        // A local quorum asks nobody in another region, and waits for nobody there.
        candidates.retain(|node| needed.r.counts(*node) || needed.pr.counts(*node));
        ReadConversation {
            target,
            purpose,
            needed,
            over: None,
            candidates,
            primaries: Vec::new(),
            fallbacks: Vec::new(),
            stand_ins: StandIns::default(),
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
            heard_at: BTreeMap::new(),
            recalled: BTreeMap::new(),
            earlier: BTreeMap::new(),
            outdated: BTreeSet::new(),
            input: 0,
            gone: BTreeSet::new(),
            hedge: hedge::Hedge::default(),
            timer: None,
            gives_up_at: None,
        }
    }

    /// Lets these fallbacks, all in reach, stand in for primaries that do not answer.
    pub(crate) fn with_fallbacks(mut self, primaries: &[Seat], fallbacks: Vec<Seat>) -> Self {
        self.primaries = primaries.to_vec();
        self.fallbacks = fallbacks;
        self
    }

    /// The bytes of the value that waits for it.
    pub(crate) fn bytes(&self) -> usize {
        match &self.purpose {
            Purpose::Write(first) => first.payload.as_ref().map_or(0, bytes::Bytes::len),
            Purpose::Answer | Purpose::Listing(_) => 0,
        }
    }

    /// A replica told the digest of what it has.
    pub(crate) fn digest(&mut self, node: NodeId, digest: Digest) {
        if self.asked.contains_key(&node) {
            self.heard.entry(node).or_insert(Heard::Digest(digest));
        }
    }

    /// A replica told all it has: when it was asked first, or `again`.
    pub(crate) fn record(&mut self, node: NodeId, record: Record, again: bool) {
        if !self.asked.contains_key(&node) || self.earlier.contains_key(&node) != again {
            return;
        }
        let record = match self.earlier.remove(&node) {
            Some(earlier) => {
                let mut evidence = earlier.evidence().clone();
                evidence.join(record.evidence());
                if record.live() != earlier.live() {
                    self.heard_at.insert(node, self.input);
                }
                Record::from_parts(record.live().to_vec(), evidence)
            }
            None => {
                self.heard_at.insert(node, self.input);
                record
            }
        };
        self.heard.insert(node, Heard::Record(record));
    }

    /// The connection to a replica that was asked ended.
    pub(crate) fn gone(&mut self, node: NodeId) {
        self.lost(node);
        if self.is_lost(node) && !self.stand_ins.has(node) {
            self.gone.insert(node);
        }
    }

    /// A node is in reach again. It can be asked, unless it was and stands by what it said.
    pub(crate) fn back(&mut self, node: NodeId) {
        if self.gone.remove(&node) && self.is_lost(node) {
            self.heard.remove(&node);
            self.asked.remove(&node);
            self.earlier.remove(&node);
        }
        let is_new = !self.asked.contains_key(&node) && !self.candidates.contains(&node);
        if is_new && (self.needed.r.counts(node) || self.needed.pr.counts(node)) {
            self.candidates.push(node);
        }
    }

    /// Whether it would be met if those came back whose connections ended.
    pub(crate) fn may_yet(&self) -> bool {
        let refused = |n: NodeId| self.is_lost(n) && !self.gone.contains(&n);
        let met = self.stand_ins.verdict(&self.needed.r, |_| false, refused);
        let met = met.and(self.needed.pr.verdict(|_| false, refused));
        !self.gone.is_empty() && met != Verdict::Impossible
    }

    fn is_lost(&self, node: NodeId) -> bool {
        matches!(self.heard.get(&node), Some(Heard::Lost))
    }

    /// A replica refused, or was lost. A whole record that came before stands; a digest does not, as it
    /// cannot be asked for what it stands for.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.recalls_nothing(node);
        let entry = self.heard.entry(node).or_insert(Heard::Lost);
        let whole = self.asked.get(&node).is_some_and(|a| a.whole);
        if matches!(entry, Heard::Digest(_)) && whole {
            *entry = Heard::Lost;
        }
    }

    /// Asks for no digests any more, and asks everybody: some of those asked are slow.
    pub(crate) fn widen(&mut self, now: Time) -> Vec<Ask> {
        let rest = std::mem::take(&mut self.candidates);
        let asks = rest.into_iter().map(|node| self.ask(now, node, false));
        asks.collect()
    }

    /// Whom to ask now. Call after every change, before [`ReadConversation::verdict`].
    pub(crate) fn next(&mut self, now: Time) -> Vec<Ask> {
        let mut asks = Vec::new();
        if !self.agreed() && self.disagreement() {
            // Where digests differ, *every* replica that sent just a digest is asked for its record, also those whose
            // digest equals a record's: it may hold evidence that removes what a third one still shows.
            let digests: Vec<NodeId> = self
                .heard
                .iter()
                .filter(|(node, heard)| {
                    matches!(heard, Heard::Digest(_))
                        && self.asked.get(node).is_some_and(|a| !a.whole)
                })
                .map(|(node, _)| *node)
                .collect();
            for node in digests {
                asks.push(self.ask(now, node, false));
            }
        }
        asks.extend(self.resolve_doubts(now));
        // Enough must be on their way, or have answered, for the requirement to be met.
        while self.hoped() != Verdict::Met {
            if self.candidates.is_empty() {
                match self.ask_fallback(now) {
                    Some(ask) => asks.push(ask),
                    None => break,
                }
                continue;
            }
            let node = self.candidates.remove(0);
            let first = self.asked.is_empty();
            let in_doubt =
                self.heard.values().any(|h| matches!(h, Heard::Lost)) || self.disagreement();
            let digest_will_do = matches!(self.purpose, Purpose::Answer | Purpose::Listing(_));
            asks.push(self.ask(now, node, digest_will_do && !first && !in_doubt));
        }
        asks
    }

    /// The records that primaries and fallbacks told.
    fn records(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.heard.iter().filter_map(|(node, heard)| match heard {
            Heard::Record(record) => Some((*node, record)),
            _ => None,
        })
    }

    /// Whom to ask about values that one replica has shown and another, that was heard after the first was asked, lacks without
    /// evidence.
    ///
    /// Mostly such a value just never came there. But it may have been removed, and the removal forgotten everywhere, since the
    /// first told of it. So whoever lacks it is asked whether it had it; and if so whoever has shown it is asked
    /// again: all that was forgotten is removed there too, while what is still shown was not removed, but lost by the other.
    fn resolve_doubts(&mut self, now: Time) -> Vec<Ask> {
        let doubts: Vec<(NodeId, NodeId, Dot)> = {
            let primaries = || self.records().filter(|(n, _)| !self.stand_ins.has(*n));
            let mut doubts = Vec::new();
            for (holder, held) in self.records() {
                let asked = self.asked.get(&holder).map_or(0, |a| a.input);
                // Nobody waits for a fallback before a removal is forgotten.
                let always = self.stand_ins.has(holder);
                let later =
                    |n: NodeId| always || self.heard_at.get(&n).is_some_and(|at| asked < *at);
                for dot in held.live().iter().map(|s| s.span.dot) {
                    if self.records().any(|(_, r)| r.evidence().contains(dot)) {
                        continue;
                    }
                    let lacking = primaries().filter(|(n, r)| later(*n) && !shows(r, dot));
                    doubts.extend(lacking.map(|(lacker, _)| (holder, lacker, dot)));
                }
            }
            doubts
        };
        let (mut again, mut about) = (BTreeSet::new(), BTreeMap::<NodeId, Vec<Dot>>::new());
        for (holder, lacker, dot) in doubts {
            let since = self.heard_at.get(&lacker).copied().unwrap_or_default();
            let asked = self.asked.get(&holder).map_or(0, |a| a.input);
            match self.recalled.get(&(lacker, dot)) {
                Some(Recalled::Asked) => {}
                Some(Recalled::Never(at)) if *at >= since => {}
                // What a fallback keeps may be old: what became of it since is the primaries' to say. What this one said before may be
                // older still: of before it had that value. Without what came in its place, readers would see neither that nor what it
                // had replaced.
                Some(Recalled::Gone(_)) if self.stand_ins.has(holder) => {
                    if self.outdated.insert(lacker) {
                        again.insert(lacker);
                    }
                }
                Some(Recalled::Gone(at)) if *at >= since => {
                    if asked < *at {
                        again.insert(holder);
                    }
                }
                _ => {
                    self.recalled.insert((lacker, dot), Recalled::Asked);
                    about.entry(lacker).or_default().push(dot);
                }
            }
        }
        let mut asks = Vec::new();
        for (node, about) in about {
            asks.push(Ask {
                node,
                digest_only: false,
                in_place_of: None,
                about,
                again: true,
            });
        }
        for node in again {
            if let Some(Heard::Record(record)) = self.heard.remove(&node) {
                self.earlier.insert(node, record);
            }
            asks.push(Ask {
                again: true,
                ..self.ask(now, node, false)
            });
        }
        asks
    }

    /// A replica that was asked about these values has told which of them it had and has no more.
    pub(crate) fn recalled(&mut self, node: NodeId, about: &[Dot], gone: &[Dot]) {
        let input = self.input;
        for dot in about {
            if let Some(recalled) = self.recalled.get_mut(&(node, *dot))
                && *recalled == Recalled::Asked
            {
                *recalled = match gone.contains(dot) {
                    true => Recalled::Gone(input),
                    false => Recalled::Never(input),
                };
            }
        }
    }

    /// A replica will not tell what became of values that it lacks: they may be gone.
    fn recalls_nothing(&mut self, node: NodeId) {
        let input = self.input;
        for ((of, _), recalled) in &mut self.recalled {
            if *of == node && *recalled == Recalled::Asked {
                *recalled = Recalled::Gone(input);
            }
        }
    }

    /// Values that fallbacks alone show, and that a primary had and has no more: they were removed, or that one has lost them. Then
    /// they are not gone, and come back when they are handed over; but to show removed values in every read of this kind
    /// would be worse. A primary that counts no more says nothing of them either.
    fn outlived(&self) -> DotSet {
        let counts = |node: NodeId| matches!(self.heard.get(&node), Some(Heard::Record(_)));
        let gone = self.recalled.iter();
        let gone = gone
            .filter(|((node, _), recalled)| matches!(recalled, Recalled::Gone(_)) && counts(*node));
        let primaries = || self.records().filter(|(n, _)| !self.stand_ins.has(*n));
        gone.map(|((_, dot), _)| *dot)
            .filter(|dot| !primaries().any(|(_, record)| shows(record, *dot)))
            .collect()
    }

    fn ask(&mut self, now: Time, node: NodeId, digest_only: bool) -> Ask {
        let (whole, at, input) = (!digest_only, now, self.input);
        self.asked.insert(node, Asked { whole, at, input });
        Ask {
            node,
            digest_only,
            in_place_of: None,
            about: Vec::new(),
            again: false,
        }
    }

    /// The next fallback to ask, if the primaries alone are too few for `r`. For all it keeps: its digest would agree with
    /// none, as it keeps what was written while a primary was away, and nothing from before.
    fn ask_fallback(&mut self, now: Time) -> Option<Ask> {
        if self.hoped_with_fallbacks() == Verdict::Met {
            return None;
        }
        let lost = |n: NodeId| matches!(self.heard.get(&n), Some(Heard::Lost));
        let hoped = |n: NodeId| self.asked.contains_key(&n) && !lost(n);
        let place = self.primaries.iter().find_map(|primary| {
            let is_open = self.needed.r.counts(primary.node)
                && !hoped(primary.node)
                && !self.stand_ins.of(primary.node, false).any(hoped);
            let fallback = choose(&self.fallbacks, *primary, |n| !self.stand_ins.has(n));
            fallback.filter(|_| is_open).map(|f| (f, *primary))
        });
        let (fallback, primary) = place?;
        self.stand_ins.add(fallback, primary);
        Some(Ask {
            in_place_of: Some(primary.node),
            ..self.ask(now, fallback.node, false)
        })
    }

    /// Whether enough have answered, in a way that allows an answer.
    pub(crate) fn verdict(&self) -> Verdict {
        let agreed = self.agreed();
        let has = |n: NodeId| match self.heard.get(&n) {
            Some(Heard::Record(_)) => true,
            Some(Heard::Digest(_)) => agreed,
            _ => false,
        };
        let lost = |n: NodeId| matches!(self.heard.get(&n), Some(Heard::Lost));
        let met = self.stand_ins.verdict(&self.needed.r, has, lost);
        match met.and(self.needed.pr.verdict(has, lost)) {
            Verdict::Met if self.recalled.values().any(|r| *r == Recalled::Asked) => {
                Verdict::Pending
            }
            Verdict::Pending if self.hoped() != Verdict::Met && self.candidates.is_empty() => {
                Verdict::Impossible
            }
            verdict => verdict,
        }
    }

    /// How it would stand if everybody who was asked answered well.
    fn hoped(&self) -> Verdict {
        let lost = |n: NodeId| matches!(self.heard.get(&n), Some(Heard::Lost));
        let hoped = |n: NodeId| self.asked.contains_key(&n) && !lost(n);
        self.hoped_with_fallbacks()
            .and(self.needed.pr.verdict(hoped, lost))
    }

    /// The same of `r` alone, which counts fallbacks.
    fn hoped_with_fallbacks(&self) -> Verdict {
        let lost = |n: NodeId| matches!(self.heard.get(&n), Some(Heard::Lost));
        let hoped = |n: NodeId| self.asked.contains_key(&n) && !lost(n);
        self.stand_ins.verdict(&self.needed.r, hoped, lost)
    }

    /// Whether all that were heard show the same values, and one of them showed the values themselves.
    fn agreed(&self) -> bool {
        self.has_record() && self.digests().len() == 1
    }

    /// Whether what was heard cannot be answered from as it stands. A read whose only record is still on its way is
    /// not in disagreement.
    fn disagreement(&self) -> bool {
        let outstanding_record = self
            .asked
            .iter()
            .any(|(node, asked)| asked.whole && !self.heard.contains_key(node));
        self.digests().len() > 1
            || (!self.has_record() && !outstanding_record && !self.heard.is_empty())
    }

    /// Whether there is a record to answer from. A fallback that keeps nothing says nothing about the key.
    fn has_record(&self) -> bool {
        let heard = self.heard.iter();
        let mut records = heard.filter_map(|(node, heard)| match heard {
            Heard::Record(record) => Some((node, record)),
            _ => None,
        });
        records.any(|(node, record)| !record.is_empty() || !self.stand_ins.has(*node))
    }

    fn digests(&self) -> BTreeSet<Digest> {
        let heard = self.heard.iter();
        heard
            .filter_map(|(node, heard)| match heard {
                Heard::Digest(digest) => Some(*digest),
                Heard::Record(record) if record.is_empty() && self.stand_ins.has(*node) => None,
                Heard::Record(record) => Some(record.digest()),
                Heard::Lost => None,
            })
            .collect()
    }

    /// Whether `node` was asked and still owes an answer.
    pub(crate) fn awaits(&self, node: NodeId) -> bool {
        matches!(
            (self.asked.get(&node), self.heard.get(&node)),
            (Some(_), None) | (Some(Asked { whole: true, .. }), Some(Heard::Digest(_)))
        ) || self
            .recalled
            .iter()
            .any(|((of, _), r)| *of == node && *r == Recalled::Asked)
    }

    /// What the replicas know together. To be called once the verdict is `Met`.
    pub(crate) fn outcome(&self) -> Outcome {
        let mut merged = Record::new();
        let outlived = self.outlived();
        for (node, record) in self.records() {
            if !self.stand_ins.has(node) {
                merged.merge(record);
                continue;
            }
            let all = record.live().iter();
            let shown = all.filter(|s| !outlived.contains(s.span.dot)).cloned();
            let shown: Vec<_> = shown.collect();
            // Where some of it is not shown, nothing that it removed is taken away: which of its values took whose place cannot be told, and
            // readers would see neither the one nor the other.
            let evidence = match shown.len() == record.live().len() {
                true => record.evidence().clone(),
                false => DotSet::new(),
            };
            merged.merge(&Record::from_parts(shown, evidence));
        }
        let mut repairs = Vec::new();
        // Replicas that show the same values are left alone, whatever their evidence: reads of a healthy key write nothing.
        if self.digests().len() > 1 {
            for (node, heard) in &self.heard {
                // What fallbacks keep is none of theirs.
                if let Heard::Record(record) = heard
                    && !self.stand_ins.has(*node)
                {
                    let missing = merged.missing_in(record);
                    if !missing.is_empty() {
                        repairs.push((*node, missing));
                    }
                }
            }
        }
        Outcome {
            record: merged,
            repairs,
        }
    }

    /// The answer when too few have answered. A read, or a write that got no further than reading, changed nothing.
    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        let heard = self.heard.iter();
        let heard = heard.filter(|(_, h)| !matches!(h, Heard::Lost));
        let heard: Vec<NodeId> = heard.map(|(node, _)| *node).collect();
        let primaries = heard.iter().filter(|n| !self.stand_ins.has(**n)).count() as u32;
        let (r, pr) = (self.needed.r.needed(), self.needed.pr.needed());
        let (needed, answered) = match primaries < pr && heard.len() as u32 >= r {
            true => (pr, primaries),
            false => (r, heard.len() as u32),
        };
        Answer::Unmet(Unmet {
            needed,
            answered,
            timed_out,
            may_have_written: false,
        })
    }
}
