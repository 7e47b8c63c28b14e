//! What was seen, is gone without explanation, and is alive elsewhere: removed and its evidence forgotten, or lost? (Rule R3.) And keys
//! whose record is damaged, which are made good from what the others hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_causal::{Dot, DotSet, Record};
use quorate_protocol::{
    BucketId, KeyRecord, Merge, Reconcile, ReplicaRequest, Testify, Testimony, Upkeep, UpkeepReply,
    VnodeId, Vote,
};
use quorate_ring::NodeId;
use quorate_storage::{Batch, Storage};

use crate::api::{Event, Output};
use crate::node::{Local, Node};
use crate::replica::decode;
use crate::time::Time;
use crate::upkeep::Purpose;

/// One key of one vnode.
pub(crate) type KeyAt = (VnodeId, BucketId, Bytes);

/// The most keys that are judged, or made good, at one time.
const AT_ONCE: usize = 32;
/// The pause before what could not be made good is tried again.
const MEND_EVERY: Duration = Duration::from_millis(500);

/// The hearing about one key.
#[derive(Debug)]
struct Hearing {
    dots: Vec<Dot>,
    awaited: BTreeSet<NodeId>,
    told: BTreeMap<NodeId, Testimony>,
}

/// What the others hold of a damaged key.
#[derive(Debug, Default)]
struct Mending {
    awaited: BTreeSet<NodeId>,
    heard: BTreeSet<NodeId>,
    record: Record,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Judging {
    hearings: BTreeMap<KeyAt, Hearing>,
    mending: BTreeMap<KeyAt, Mending>,
    mend_at: Time,
}

/// What becomes of a dot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It was removed.
    Remove,
    /// It lives, and whoever lacks it has lost it.
    Keep,
    /// Not enough were heard.
    Undecided,
}

/// What the votes of all `n` primaries say of a dot; `None` for one that was not heard.
fn verdict(votes: &[Option<Vote>]) -> Verdict {
    let count = |vote: Vote| votes.iter().filter(|v| **v == Some(vote)).count();
    let unheard = votes.iter().filter(|v| v.is_none()).count();
    let (live, unsure, lacks) = (
        count(Vote::Live),
        count(Vote::LiveUnsure),
        count(Vote::Lacks),
    );
    // It may have been filled by one that had lost the value without a word, so it is heard only where nobody sound holds it.
    let filled_without = count(Vote::FilledWithout);
    let majority = votes.len() / 2 + 1;
    if count(Vote::Removed) > 0 {
        Verdict::Remove
    } else if live > 0 {
        match () {
            () if lacks >= majority => Verdict::Remove,
            () if lacks + unheard >= majority => Verdict::Undecided,
            () => Verdict::Keep,
        }
    } else if unheard > 0 {
        Verdict::Undecided
    } else if lacks + filled_without > 0 {
        Verdict::Remove
    } else if unsure > 0 {
        Verdict::Keep
    } else {
        Verdict::Undecided
    }
}

impl<S: Storage> Node<S> {
    pub(crate) fn judge_at(&self) -> Option<Time> {
        let judging = &self.upkeep.judging;
        let late = !self.replica.late.is_empty() && judging.hearings.len() < AT_ONCE;
        let late = late.then_some(Time::default());
        let damaged = self.replica.damaged.len() > judging.mending.len();
        late.into_iter()
            .chain(damaged.then_some(judging.mend_at))
            .min()
    }

    /// Begins hearings.
    pub(crate) fn on_judge(&mut self, now: Time, out: &mut Vec<Output>) {
        while self.upkeep.judging.hearings.len() < AT_ONCE {
            let Some((vnode, bucket, key, dots)) = self.replica.take_late() else {
                break;
            };
            let at = (vnode, bucket, key.clone());
            if !self.is_seat(vnode) || self.upkeep.judging.hearings.contains_key(&at) {
                continue;
            }
            let dots: Vec<Dot> = dots.into_iter().collect();
            self.replica.begin_pull(vnode, bucket, &key);
            let named = dots.iter().map(|dot| (dot.actor.0, dot.counter)).collect();
            let asked = Testify {
                vnode,
                bucket,
                key,
                dots: named,
            };
            let primaries = self.primaries(vnode);
            let awaited = primaries.into_iter().filter(|n| self.is_up(*n)).collect();
            let hearing = Hearing {
                dots,
                awaited,
                told: BTreeMap::new(),
            };
            let nodes = hearing.awaited.clone();
            self.upkeep.judging.hearings.insert(at.clone(), hearing);
            out.push(Output::Event(Event::AbsenceJudged));
            for node in nodes {
                let asked = Upkeep::Testify(asked.clone());
                self.ask_upkeep(now, node, asked, Purpose::Judge(at.clone()), out);
            }
        }
        self.mend_some(now, out);
    }

    /// A primary has testified, or will not.
    pub(crate) fn on_testimony(
        &mut self,
        at: KeyAt,
        from: NodeId,
        reply: Option<UpkeepReply>,
        out: &mut Vec<Output>,
    ) {
        let Some(hearing) = self.upkeep.judging.hearings.get_mut(&at) else {
            return;
        };
        hearing.awaited.remove(&from);
        if let Some(UpkeepReply::Testimony(testimony)) = reply
            && testimony.votes.len() == hearing.dots.len()
        {
            hearing.told.insert(from, testimony);
        }
        if hearing.awaited.is_empty()
            && let Some(hearing) = self.upkeep.judging.hearings.remove(&at)
        {
            self.decide_absence(&at, &hearing, out);
        }
    }

    fn decide_absence(&mut self, at: &KeyAt, hearing: &Hearing, out: &mut Vec<Output>) {
        let (vnode, bucket, key) = at;
        if !self.is_seat(*vnode) {
            self.replica.end_pull(*vnode, *bucket, key);
            return; // It went elsewhere meanwhile.
        }
        let primaries = self.primaries(*vnode);
        let undisturbed = self.replica.end_pull(*vnode, *bucket, key);
        let (mut removed, mut kept) = (Vec::new(), DotSet::new());
        for (i, dot) in hearing.dots.iter().enumerate() {
            let votes: Vec<Option<Vote>> = primaries
                .iter()
                .map(|node| hearing.told.get(node).map(|t| t.votes[i]))
                .collect();
            match verdict(&votes) {
                Verdict::Remove => {
                    removed.push(*dot);
                }
                Verdict::Keep => {
                    kept.insert(*dot);
                }
                Verdict::Undecided => out.push(Output::Event(Event::AbsenceUndecided)),
            }
        }
        if !removed.is_empty() {
            out.push(Output::Event(Event::AbsenceUpheld));
            self.replica.note_removed(*vnode, &removed);
            let mut evidence = DotSet::new();
            for dot in removed {
                evidence.insert(dot);
            }
            // With what stands in its place, or whoever has nothing else would show nothing.
            let mut all = Record::from_parts(Vec::new(), evidence);
            for testimony in hearing.told.values() {
                if let Ok(record) = decode(&testimony.record) {
                    all.merge(&record);
                }
            }
            let evidence = all.encode();
            let holds = |vote: &Vote| matches!(vote, Vote::Live | Vote::LiveUnsure);
            let holders = hearing.told.iter();
            let holders = holders.filter(|(_, t)| t.votes.iter().any(holds));
            let mut holders: BTreeSet<NodeId> = holders.map(|(node, _)| *node).collect();
            // Also here: where it never was, nothing else would tell.
            holders.insert(self.config.me);
            for node in holders {
                let merge = ReplicaRequest::Merge(Merge {
                    vnode: *vnode,
                    bucket: *bucket,
                    key: key.clone(),
                    record: evidence.clone(),
                    durable: false,
                    hint_for: None,
                });
                let id = self.fresh_id();
                if node == self.config.me {
                    self.local.push_back(Local::Ask(id, merge));
                } else {
                    let header = self.upkeep_header();
                    let message = quorate_protocol::Message::Replica(id, header, merge);
                    out.push(Output::Send(node, message));
                }
            }
        }
        if kept.is_empty() || !undisturbed {
            return;
        }
        // The records of those that hold them: what they replaced there may still be live here, and other values stand in its place.
        let mut held = Record::new();
        for testimony in hearing.told.values() {
            let Ok(record) = decode(&testimony.record) else {
                continue;
            };
            if record.live().iter().any(|s| kept.contains(s.span.dot)) {
                held.merge(&record);
            }
        }
        let given_back = self.replica.reinstate(*vnode, *bucket, key, &held, &kept);
        if let Ok(true) = given_back {
            out.push(Output::Event(Event::Reinstated));
        }
    }

    pub(crate) fn upkeep_header(&self) -> quorate_protocol::Header {
        quorate_protocol::Header {
            layout_version: self.layouts.version(),
            ..quorate_protocol::Header::default()
        }
    }

    /// Asks for what others hold of damaged keys.
    fn mend_some(&mut self, now: Time, out: &mut Vec<Output>) {
        let judging = &mut self.upkeep.judging;
        if judging.mend_at > now || self.replica.damaged.len() <= judging.mending.len() {
            return;
        }
        judging.mend_at = now.after(MEND_EVERY);
        let room = AT_ONCE.saturating_sub(judging.mending.len());
        let damaged = self.replica.damaged.iter();
        let damaged = damaged.filter(|at| !judging.mending.contains_key(*at));
        let damaged: Vec<KeyAt> = damaged.take(room).cloned().collect();
        for at in damaged {
            let (vnode, bucket, key) = &at;
            if !matches!(self.may_touch(*bucket, vnode.set), Ok(true)) {
                let mut batch = Batch::new();
                self.replica.mended(*vnode, *bucket, key, &mut batch);
                let _ = self.replica.commit(batch);
                continue;
            }
            let others = self.primaries(*vnode);
            let me = self.config.me;
            let others: BTreeSet<NodeId> = others
                .into_iter()
                .filter(|n| *n != me && self.is_up(*n))
                .collect();
            if !self.covers(*vnode, &others) {
                continue;
            }
            let mending = Mending {
                awaited: others.clone(),
                ..Mending::default()
            };
            self.upkeep.judging.mending.insert(at.clone(), mending);
            for node in others {
                let nothing = KeyRecord {
                    bucket: *bucket,
                    key: key.clone(),
                    record: Bytes::new(),
                };
                let asked = Upkeep::Reconcile(Reconcile {
                    vnode: *vnode,
                    records: vec![nothing],
                });
                self.ask_upkeep(now, node, asked, Purpose::Mend(at.clone()), out);
            }
        }
    }

    /// Whether of those that took part in any write by a majority one is among these, or is this node.
    fn covers(&self, vnode: VnodeId, these: &BTreeSet<NodeId>) -> bool {
        let placement = self.buckets.placement(vnode.set);
        placement.is_some_and(|p| p.covers(vnode.partition, self.config.me, these))
    }

    /// Another replica has told what it holds of a damaged key, or will not.
    pub(crate) fn on_mend(
        &mut self,
        at: KeyAt,
        from: NodeId,
        reply: Option<UpkeepReply>,
        out: &mut Vec<Output>,
    ) {
        let Some(mending) = self.upkeep.judging.mending.get_mut(&at) else {
            return;
        };
        mending.awaited.remove(&from);
        if let Some(UpkeepReply::Records(records)) = reply
            && let [record] = &records[..]
            && let Ok(record) = decode(record)
        {
            mending.record.merge(&record);
            mending.heard.insert(from);
        }
        if !mending.awaited.is_empty() {
            return;
        }
        let Some(mending) = self.upkeep.judging.mending.remove(&at) else {
            return;
        };
        let (vnode, bucket, key) = &at;
        // A life that has ended meanwhile is removed, and what came to it now would stay.
        if self.is_seat(*vnode)
            && matches!(self.may_touch(*bucket, vnode.set), Ok(true))
            && self.covers(*vnode, &mending.heard)
            && self
                .replica
                .replace(*vnode, *bucket, key, &mending.record)
                .is_ok()
        {
            out.push(Output::Event(Event::DamageMended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_judged_by_those_who_would_know() {
        use Vote::{Abstain, FilledWithout, Lacks, Live, LiveUnsure, Removed};
        let judged = |votes: &[Option<Vote>]| verdict(votes);
        // Evidence anywhere.
        assert_eq!(
            judged(&[Some(Live), Some(Live), Some(Removed)]),
            Verdict::Remove
        );
        // One has lost it, or one did not hear of the removal that the others have forgotten.
        assert_eq!(
            judged(&[Some(Live), Some(Live), Some(Lacks)]),
            Verdict::Keep
        );
        assert_eq!(
            judged(&[Some(Live), Some(Lacks), Some(Lacks)]),
            Verdict::Remove
        );
        // A newcomer's not having it says nothing.
        assert_eq!(
            judged(&[Some(Live), Some(Lacks), Some(Abstain)]),
            Verdict::Keep
        );
        assert_eq!(judged(&[Some(Live), Some(Lacks), None]), Verdict::Undecided);
        assert_eq!(judged(&[Some(Live), Some(Abstain), None]), Verdict::Keep);
        // Nobody who holds it is sure.
        assert_eq!(
            judged(&[Some(LiveUnsure), Some(Lacks), Some(Abstain)]),
            Verdict::Remove
        );
        assert_eq!(
            judged(&[Some(LiveUnsure), Some(Lacks), None]),
            Verdict::Undecided
        );
        assert_eq!(
            judged(&[Some(LiveUnsure), Some(Abstain), Some(Abstain)]),
            Verdict::Keep
        );
        // All who had seen its removal have left; those in their places know it from them.
        assert_eq!(
            judged(&[Some(LiveUnsure), Some(FilledWithout), Some(Abstain)]),
            Verdict::Remove
        );
        // But where one that is sound holds it they may have been filled by one that had lost it.
        assert_eq!(
            judged(&[Some(Live), Some(FilledWithout), Some(FilledWithout)]),
            Verdict::Keep
        );
        // Ties keep.
        assert_eq!(judged(&[Some(Live), Some(Lacks)]), Verdict::Keep);
    }
}
