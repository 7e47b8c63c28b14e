//! Fallbacks: who stands in for a primary that is out of reach, and what that counts for.
//!
//! A write asks the next nodes of the preference list to keep a hint for each primary that is down or is lost before it
//! acknowledges. A read that its primaries cannot meet asks them for what they keep. Each fallback fills the place of one
//! primary, and a place counts once, so that acknowledgements are of distinct nodes and never more than there are replicas.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_protocol::{
    Delete, Get, Header, Merge, Message, Put, Refusal, ReplicaRequest, Request, RequestId,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::buckets::Policy;
use crate::explain::Log;
use crate::layouts::Layouts;
use crate::node::{Kind, Local, Node, remaining_ms};
use crate::tally::{Requirement, Seat, Verdict};
use crate::target::Target;
use crate::time::Time;

/// The best of these fallbacks for a primary: the next in the order of the preference list, those of its region first.
pub(crate) fn choose(
    fallbacks: &[Seat],
    primary: Seat,
    usable: impl Fn(NodeId) -> bool,
) -> Option<Seat> {
    let usable = fallbacks.iter().filter(|seat| usable(seat.node));
    usable
        .min_by_key(|seat| seat.region != primary.region)
        .copied()
}

/// Which fallbacks were asked by one request, and in whose place.
#[derive(Clone, Debug, Default)]
pub(crate) struct StandIns {
    /// By fallback: the primary, and whether both sit in one region.
    places: BTreeMap<NodeId, (NodeId, bool)>,
}

impl StandIns {
    pub(crate) fn add(&mut self, fallback: Seat, primary: Seat) {
        let same_region = fallback.region == primary.region;
        self.places
            .insert(fallback.node, (primary.node, same_region));
    }

    /// It stands in for nobody any more. Returns whether it did.
    pub(crate) fn remove(&mut self, fallback: NodeId) -> bool {
        self.places.remove(&fallback).is_some()
    }

    /// Whether this node stands in for anybody.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.places.contains_key(&node)
    }

    /// For whom it does.
    pub(crate) fn primary_of(&self, fallback: NodeId) -> Option<NodeId> {
        self.places.get(&fallback).map(|(primary, _)| *primary)
    }

    /// All of them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.places.keys().copied()
    }

    /// Those that stand in for a primary; only those of its region, where a region's replicas are counted.
    pub(crate) fn of(&self, primary: NodeId, regional: bool) -> impl Iterator<Item = NodeId> {
        let places = self.places.iter();
        places
            .filter(move |(_, (of, same))| *of == primary && (*same || !regional))
            .map(|(fallback, _)| *fallback)
    }

    /// How a requirement stands if the places of primaries may be filled by these.
    pub(crate) fn verdict(
        &self,
        needed: &Requirement,
        yes: impl Fn(NodeId) -> bool,
        no: impl Fn(NodeId) -> bool,
    ) -> Verdict {
        needed.verdict_by_region(
            |node, regional| yes(node) || self.of(node, regional).any(&yes),
            |node, regional| no(node) && self.of(node, regional).all(&no),
        )
    }
}

/// Names a fallback and its primary in the account of a request.
pub(crate) fn explain_stand_in(
    layouts: &Layouts,
    log: &mut Log,
    fallback: NodeId,
    primary: NodeId,
) {
    let name = |node: NodeId| layouts.node(node).map_or("", |n| n.name.as_str());
    let region = layouts.node(fallback).map_or("", |n| n.region.as_str());
    log.stands_in(fallback, name(fallback), region, name(primary));
}

/// Whether a write that a replica refused so may be kept for it by another node. Not for one that has too much to do: that
/// would make more work of too much.
fn calls_for_a_stand_in(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Poisoned(_)
            | Refusal::DiskFull { .. }
            | Refusal::HintsFull { .. }
            | Refusal::Corrupt(_)
    )
}

impl<S: Storage> Node<S> {
    /// Whether fallbacks may take part in a request.
    pub(crate) fn is_sloppy(request: &Request, policy: &Policy) -> bool {
        let (Request::Put(Put { options, .. })
        | Request::Get(Get { options, .. })
        | Request::Delete(Delete { options, .. })) = request
        else {
            return false;
        };
        options.sloppy.unwrap_or(policy.defaults.sloppy)
    }

    /// As [`Node::in_reach`], of a request whose primaries out of reach may be stood in for.
    pub(crate) fn in_reach_sloppy(
        &self,
        target: &Target,
        needed: &Requirement,
    ) -> Result<(), Refusal> {
        let placement = &target.policy.placement;
        let fallbacks = placement.fallbacks(target.vnode.partition);
        let mut stand_ins = StandIns::default();
        for seat in placement.primaries(target.vnode.partition) {
            if !self.is_up(seat.node)
                && let Some(fallback) =
                    choose(fallbacks, *seat, |n| self.is_up(n) && !stand_ins.has(n))
            {
                stand_ins.add(fallback, *seat);
            }
        }
        if stand_ins.verdict(needed, |n| self.is_up(n), |_| false) == Verdict::Met {
            return Ok(());
        }
        let filled = |n: NodeId| self.is_up(n) || stand_ins.of(n, false).next().is_some();
        Err(Refusal::Unavailable {
            needed: needed.needed(),
            answered: needed.among(filled),
        })
    }

    /// A replica answered a write otherwise than that it has it.
    pub(crate) fn on_write_refused(
        &mut self,
        now: Time,
        id: RequestId,
        from: NodeId,
        refusal: Option<&Refusal>,
        out: &mut Vec<Output>,
    ) {
        if let Some(Refusal::HintsFull { .. }) = refusal {
            out.push(Output::Event(Event::HintRefused));
        }
        self.lose_writer(id, from);
        if refusal.is_some_and(calls_for_a_stand_in) {
            self.stand_in(now, id, from, out);
        }
    }

    /// A node out of reach will not take a write.
    pub(crate) fn lose_writer(&mut self, id: RequestId, node: NodeId) {
        if let Some(Kind::Write(write)) = self.conversations.get_mut(&id).map(|c| &mut c.kind) {
            let before = write.hints_outstanding();
            write.lost(node);
            self.hint_writes -= before - write.hints_outstanding();
        }
    }

    /// Asks the next fallback in place of a node that did not take a write: a primary, or a fallback that stood in for one.
    pub(crate) fn stand_in(
        &mut self,
        now: Time,
        id: RequestId,
        lost: NodeId,
        out: &mut Vec<Output>,
    ) {
        let me = self.config.me;
        let (peers, sound) = (&self.peers, self.replica.poisoned().is_none());
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Kind::Write(write) = &mut conversation.kind else {
            return;
        };
        if !write.terms.sloppy {
            return;
        }
        let policy = write.target.policy.clone();
        let partition = write.target.vnode.partition;
        let owner = write.stand_ins.primary_of(lost).unwrap_or(lost);
        let seats = policy.placement.primaries(partition);
        let Some(seat) = seats.iter().find(|seat| seat.node == owner) else {
            return;
        };
        if write.is_stood_in_for(owner) {
            return;
        }
        let usable = |n: NodeId| {
            let up = match n == me {
                true => sound,
                false => peers.get(&n).is_some_and(|p| p.up),
            };
            up && write.may_stand_in(n)
        };
        let Some(fallback) = choose(policy.placement.fallbacks(partition), *seat, usable) else {
            return;
        };
        if self.hint_writes >= self.config.limits.hint_writes_max {
            out.push(Output::Event(Event::HintNotAsked));
            return;
        }
        let Some(delta) = write.delta() else {
            return;
        };
        self.hint_writes += 1;
        write.stand_ins.add(fallback, *seat);
        let request = ReplicaRequest::Merge(Merge {
            vnode: write.target.vnode,
            bucket: write.target.id,
            key: write.target.key_bytes(),
            record: delta,
            durable: write.terms.durable,
            hint_for: Some(owner),
        });
        if let Some(log) = &mut conversation.log {
            explain_stand_in(&self.layouts, log, fallback.node, owner);
            log.sent_hint(now, fallback.node);
        }
        out.push(Output::Event(Event::HintAsked));
        if fallback.node == me {
            self.local.push_back(Local::Ask(id, request));
            return;
        }
        let header = Header {
            layout_version: self.layouts.version(),
            deadline_ms: remaining_ms(now, conversation.deadline),
            trace: conversation.kept.trace,
            ..Header::default()
        };
        let message = Message::Replica(id, header, request);
        out.push(Output::Send(fallback.node, message));
    }

    /// The primaries for which this node keeps what it writes itself, being none of them: those out of reach. `None` if it
    /// is one.
    pub(crate) fn owners_out(&self, target: &Target) -> Option<Vec<Seat>> {
        let seats = target.policy.placement.primaries(target.vnode.partition);
        let is_one = seats.iter().any(|seat| seat.node == self.config.me);
        let out = seats.iter().filter(|seat| !self.is_up(seat.node)).copied();
        (!is_one).then(|| out.collect())
    }

    /// What this node keeps of a key for others, encoded, if it keeps anything. For tests and for the simulator's checks.
    #[must_use]
    pub fn hinted_in(&self, bucket: &str, generation: u32, key: &str) -> Option<Bytes> {
        let target = self.target(bucket, key);
        let owners = self.replica.owners();
        let bucket = quorate_protocol::BucketId::new(bucket, generation);
        let record = self
            .replica
            .hinted_record(target.vnode, bucket, key.as_bytes(), &owners);
        record.ok().filter(|r| !r.is_empty()).map(|r| r.encode())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::Quorum;

    use super::*;

    fn seat(node: u64, region: u16) -> Seat {
        Seat {
            node: NodeId(node),
            region,
        }
    }

    fn needed(quorum: Quorum, seats: &[Seat]) -> Requirement {
        Requirement::new("w", quorum, seats, 1, false).expect("a sound requirement")
    }

    #[test]
    fn the_next_of_the_region_comes_first_and_then_the_next_of_all() {
        let fallbacks = [seat(3, 2), seat(4, 1), seat(5, 1)];
        let chosen =
            |not: &[u64]| choose(&fallbacks, seat(0, 1), |n| !not.contains(&n.0)).map(|s| s.node.0);
        assert_eq!(chosen(&[]), Some(4));
        assert_eq!(chosen(&[4]), Some(5));
        assert_eq!(chosen(&[4, 5]), Some(3));
        assert_eq!(chosen(&[3, 4, 5]), None);
    }

    #[test]
    fn a_place_counts_once_and_in_a_region_only_by_a_node_of_it() {
        let seats = [seat(0, 1), seat(1, 1), seat(2, 1)];
        let mut stand_ins = StandIns::default();
        stand_ins.add(seat(3, 1), seats[0]);
        stand_ins.add(seat(4, 2), seats[1]);
        let verdict = |quorum, yes: &[u64], no: &[u64]| {
            let needed = needed(quorum, &seats);
            stand_ins.verdict(&needed, |n| yes.contains(&n.0), |n| no.contains(&n.0))
        };
        // Both for one place.
        assert_eq!(verdict(Quorum::Majority, &[0, 3], &[]), Verdict::Pending);
        assert_eq!(verdict(Quorum::Majority, &[3, 4], &[]), Verdict::Met);
        assert_eq!(verdict(Quorum::Local, &[3, 4], &[0, 1]), Verdict::Pending);
        assert_eq!(verdict(Quorum::Local, &[3, 2], &[0, 1]), Verdict::Met);
        // A place is lost with its primary and whoever stood in for it.
        assert_eq!(verdict(Quorum::All, &[], &[0]), Verdict::Pending);
        assert_eq!(verdict(Quorum::All, &[], &[0, 3]), Verdict::Impossible);
        assert_eq!(
            verdict(Quorum::Local, &[4], &[1, 0, 3]),
            Verdict::Impossible
        );
    }
}
