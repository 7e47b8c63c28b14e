//! Which layout follows: chosen once for each version, by a majority of the nodes of the layout before (single-decree Paxos, Lamport 1998).
//!
//! Who wants a layout prepares a round at all of them, proposes in it what was accepted in the highest round before, or else what it wants,
//! and has it accepted. So two operators cannot both have theirs: one of them is told that another layout was applied.

use std::collections::BTreeSet;

use quorate_protocol::{
    Answer, ApplyLayout, Ballot, LayoutReply, LayoutRequest, Message, Promise, ProposedLayout,
    Refusal, ReplicaRequest, RequestId, Unmet,
};
use quorate_ring::{NodeId, Partition};
use quorate_storage::{Batch, Family, Storage};
use rand::RngCore;

use crate::api::Output;
use crate::keys;
use crate::layouts::{Layouts, follows};
use crate::node::{Accepted, Conversation, Kind, Local, Node};
use crate::tally::Seat;
use crate::time::Time;

/// How many rounds one proposer goes through.
const ROUNDS_MAX: u32 = 16;
/// No round is greater: proposers count from the greatest that they have met, so that one absurd number would leave no room.
const ROUND_MAX: u64 = 1 << 48;

/// One proposer's attempt.
#[derive(Debug)]
pub(crate) struct ChooseConversation {
    wanted: ProposedLayout,
    /// Who chooses: the nodes of the layout before.
    voters: BTreeSet<NodeId>,
    ballot: Ballot,
    rounds: u32,
    /// What is to be accepted, once a majority has promised.
    proposed: Option<ProposedLayout>,
    /// Who has promised, or accepted.
    agreed: BTreeSet<NodeId>,
    /// Who will not.
    lost: BTreeSet<NodeId>,
    /// What was accepted before in the highest round.
    before: Option<(Ballot, ProposedLayout)>,
    /// Once one is chosen, whether it is what was wanted. Whoever asked is told when this node goes by it.
    chosen: Option<bool>,
}

/// What a proposer does next.
enum Next {
    Wait,
    /// Have it accepted.
    Propose,
    /// It is chosen.
    Chosen,
    /// Too few are left.
    Fail,
}

impl ChooseConversation {
    fn has_majority(&self) -> bool {
        self.agreed.len() > self.voters.len() / 2
    }

    fn next(&self) -> Next {
        if self.chosen.is_some() {
            return Next::Wait;
        }
        if self.has_majority() {
            return match self.proposed {
                None => Next::Propose,
                Some(_) => Next::Chosen,
            };
        }
        let left = self.voters.len() - self.lost.len();
        match left > self.voters.len() / 2 {
            true => Next::Wait,
            false => Next::Fail,
        }
    }

    /// A node is out of reach.
    pub(crate) fn lost(&mut self, node: NodeId) {
        if self.voters.contains(&node) && !self.agreed.contains(&node) {
            self.lost.insert(node);
        }
    }

    pub(crate) fn unmet(&self, timed_out: bool) -> Answer {
        Answer::Unmet(Unmet {
            needed: self.voters.len() as u32 / 2 + 1,
            answered: self.agreed.len() as u32,
            timed_out,
            may_have_written: true,
        })
    }
}

impl<S: Storage> Node<S> {
    // ---- As one of those who choose ----

    /// What this node has promised of the layout that follows the one that it knows.
    fn promised_for(&self, version: u64) -> Option<&Promise> {
        self.promised.as_ref().filter(|p| p.version == version)
    }

    /// Whether this node may vote on a layout of this version: it knows the one before, and of no other.
    fn votes_on(&self, version: u64) -> bool {
        self.filling.coming.is_none()
            && self.layouts.change().is_none()
            && self.layouts.current().version() + 1 == version
            && self.layouts.current().node(self.config.me).is_some()
    }

    pub(crate) fn promise(&mut self, version: u64, ballot: Ballot) -> LayoutReply {
        if !self.votes_on(version) || ballot.round > ROUND_MAX {
            return LayoutReply::Told(Box::new(self.latest_layouts().known().clone()));
        }
        let known = self.promised_for(version);
        if let Some(known) = known.filter(|p| p.promised > ballot) {
            return LayoutReply::Outdone(known.promised);
        }
        let accepted = known.and_then(|p| p.accepted.clone());
        let promise = Promise {
            version,
            promised: ballot,
            accepted: accepted.clone(),
        };
        match self.keep_promise(promise) {
            Ok(()) => LayoutReply::Promised(ballot, accepted),
            Err(()) => LayoutReply::Told(Box::new(self.latest_layouts().known().clone())),
        }
    }

    pub(crate) fn accept_layout(
        &mut self,
        ballot: Ballot,
        proposed: ProposedLayout,
    ) -> LayoutReply {
        let version = proposed.layout.version();
        let is_sound = follows(self.layouts.current(), &proposed).is_ok();
        if !self.votes_on(version) || !is_sound {
            return LayoutReply::Told(Box::new(self.latest_layouts().known().clone()));
        }
        if let Some(known) = self.promised_for(version).filter(|p| p.promised > ballot) {
            return LayoutReply::Outdone(known.promised);
        }
        let promise = Promise {
            version,
            promised: ballot,
            accepted: Some((ballot, Box::new(proposed))),
        };
        match self.keep_promise(promise) {
            Ok(()) => LayoutReply::Accepted(ballot),
            Err(()) => LayoutReply::Told(Box::new(self.latest_layouts().known().clone())),
        }
    }

    /// Puts a promise on disk. Whoever is told of it is so once it is there.
    fn keep_promise(&mut self, promise: Promise) -> Result<(), ()> {
        let mut batch = Batch::new();
        batch.put(Family::Meta, keys::PROMISE, promise.encode());
        self.replica.commit_synced(batch).map_err(|_| ())?;
        self.promised = Some(promise);
        Ok(())
    }

    /// What this node knows, what is not on disk yet among it.
    fn latest_layouts(&self) -> &Layouts {
        let coming = self.filling.coming.as_ref();
        coming.map_or(&self.layouts, |(_, coming)| coming)
    }

    // ---- As the one who wants a layout ----

    /// Has a layout of these nodes chosen.
    pub(crate) fn begin_apply(
        &mut self,
        accepted: Accepted,
        apply: &ApplyLayout,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let known = self.latest_layouts();
        let current = known.current();
        if let Some(change) = known.change() {
            let version = change.chosen.layout.version();
            return Err(Refusal::Conflict(format!(
                "the change to layout version {version} is under way: wait until it is done"
            )));
        }
        let version = current.version();
        if apply.version != version + 1 {
            return Err(Refusal::Conflict(format!(
                "the layout has version {version}, so that the next has {}, and not {}: look at it again",
                version + 1,
                apply.version
            )));
        }
        let layout = current
            .next(apply.nodes.clone())
            .map_err(|error| Refusal::Impossible(error.to_string()))?;
        let dead = apply.dead.clone();
        if let Some(node) = dead.iter().find(|n| current.node(**n).is_none()) {
            return Err(Refusal::Impossible(format!(
                "node {node} is not in the layout, so it cannot be declared dead"
            )));
        }
        if let Some(node) = dead.iter().find(|n| layout.node(**n).is_some()) {
            return Err(Refusal::Impossible(format!(
                "node {node} cannot be dead and in the new layout"
            )));
        }
        self.survives(&dead)?;
        let wanted = ProposedLayout { layout, dead };
        self.is_home_to_all(&wanted)?;
        let voters = current.nodes().iter().map(|n| n.id).collect();
        let conversation = ChooseConversation {
            wanted,
            voters,
            ballot: Ballot {
                round: 0,
                attempt: self.upkeep.rng.next_u64(),
            },
            rounds: 0,
            proposed: None,
            agreed: BTreeSet::new(),
            lost: BTreeSet::new(),
            before: None,
            chosen: None,
        };
        let now = accepted.now;
        let round = self.promised.as_ref().map_or(0, |p| p.promised.round);
        let round = round.saturating_add(1).min(ROUND_MAX);
        let id = self.converse(accepted, Kind::Choose(Box::new(conversation)));
        self.prepare(now, id, round, out);
        Ok(())
    }

    /// Whether of every partition enough replicas survive these, so that one of them has each acknowledged write: of a majority that took
    /// part, not all may be gone. Nor of a majority within a region, where there is such: that is a local quorum.
    fn survives(&self, dead: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        let current = self.layouts.current();
        for placement in self.buckets.placements() {
            for partition in (0..current.partitions()).map(Partition) {
                let Some(seats) = placement.writers(partition).next() else {
                    continue;
                };
                let gone = |seats: &[Seat]| seats.iter().filter(|s| dead.contains(&s.node)).count();
                let regions: BTreeSet<u16> = seats.iter().map(|s| s.region).collect();
                let of = |region: u16| -> Vec<Seat> {
                    let seats = seats.iter().filter(|s| s.region == region);
                    seats.copied().collect()
                };
                let n = seats.len();
                let mut lost = (gone(seats) > n - (n / 2 + 1)).then(|| (gone(seats), n));
                for seats in regions.into_iter().map(of).filter(|s| s.len() > 1) {
                    let n = seats.len();
                    let gone = gone(&seats);
                    lost = lost.or((gone > n / 2).then_some((gone, n)));
                }
                if let Some((gone, n)) = lost {
                    return Err(Refusal::Impossible(format!(
                        "{gone} of {n} replicas of partition {} would be gone, and with them writes that were acknowledged: bring one of \
                         them back first",
                        partition.0
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether a layout has replicas for every partition of every bucket, and this node may go by it at once.
    fn is_home_to_all(&self, wanted: &ProposedLayout) -> Result<(), Refusal> {
        let then = Layouts::only(wanted.layout.clone());
        for placement in self.buckets.placements() {
            let under = placement.under(&then, self.config.me);
            let homeless = (0..then.partitions()).map(Partition);
            let mut homeless = homeless.filter(|p| under.primaries(*p).is_empty());
            if homeless.next().is_some() {
                let names = self.buckets.named(placement.set()).join(", ");
                return Err(Refusal::Impossible(format!(
                    "no node of this layout may hold the data of {names}, whose regions it does not have: keep a node in one of \
                     these regions, or drop what is there first"
                )));
            }
        }
        if self.is_clearing_for(&then) {
            return Err(Refusal::Conflict(
                "this node still removes what an earlier change moved elsewhere, some of which it would hold again: try again in a \
                 moment"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Begins a round.
    fn prepare(&mut self, now: Time, id: RequestId, round: u64, out: &mut Vec<Output>) {
        let Some(choose) = self.choosing(id) else {
            return;
        };
        choose.ballot.round = round;
        choose.rounds += 1;
        choose.proposed = None;
        choose.agreed.clear();
        choose.lost.clear();
        choose.before = None;
        let asked = LayoutRequest::Prepare(choose.wanted.layout.version(), choose.ballot);
        self.ask_voters(now, id, asked, out);
    }

    fn ask_voters(
        &mut self,
        now: Time,
        id: RequestId,
        asked: LayoutRequest,
        out: &mut Vec<Output>,
    ) {
        let Some(deadline) = self.conversations.get(&id).map(|c| c.deadline) else {
            return;
        };
        let Some(voters) = self.choosing(id).map(|c| c.voters.clone()) else {
            return;
        };
        let header = self.header(now, deadline);
        for node in voters {
            let request = ReplicaRequest::Layout(Box::new(asked.clone()));
            if node == self.config.me {
                self.local.push_back(Local::Ask(id, request));
            } else if self.is_up(node) {
                out.push(Output::Send(
                    node,
                    Message::Replica(id, header.clone(), request),
                ));
            } else if let Some(choose) = self.choosing(id) {
                choose.lost(node);
            }
        }
        self.step_choose(now, id, out);
    }

    fn choosing(&mut self, id: RequestId) -> Option<&mut ChooseConversation> {
        match self.conversations.get_mut(&id).map(|c| &mut c.kind) {
            Some(Kind::Choose(choose)) => Some(choose),
            _ => None,
        }
    }

    /// A node has answered about layouts: to a proposer, or for being told.
    pub(crate) fn on_layout_reply(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        reply: LayoutReply,
        out: &mut Vec<Output>,
    ) {
        if let LayoutReply::Told(told) = &reply {
            self.on_told(now, from, told, out);
        }
        let Some(choose) = self.choosing(id) else {
            return;
        };
        if !choose.voters.contains(&from) {
            return;
        }
        match reply {
            LayoutReply::Promised(ballot, accepted)
                if choose.proposed.is_none() && ballot == choose.ballot =>
            {
                let accepted = accepted.map(|(ballot, proposed)| (ballot, *proposed));
                if let Some((ballot, proposed)) = accepted
                    && choose.before.as_ref().is_none_or(|(b, _)| ballot > *b)
                {
                    choose.before = Some((ballot, proposed));
                }
                choose.agreed.insert(from);
            }
            LayoutReply::Accepted(ballot)
                if choose.proposed.is_some() && ballot == choose.ballot =>
            {
                choose.agreed.insert(from);
            }
            LayoutReply::Outdone(by) if by > choose.ballot => {
                if choose.rounds >= ROUNDS_MAX {
                    let unmet = choose.unmet(false);
                    return self.finish(id, unmet, out);
                }
                let round = by.round.saturating_add(1).min(ROUND_MAX);
                return self.prepare(now, id, round, out);
            }
            LayoutReply::Told(told) => {
                let version = choose.wanted.layout.version();
                let next = told.next.as_ref().map(|c| &c.chosen.layout);
                let newest = next.unwrap_or(&told.current);
                if newest.version() >= version && choose.chosen.is_none() {
                    // Another had it chosen, which may be the very same: that was proposed before, and taken up.
                    choose.chosen = Some(*newest == choose.wanted.layout);
                    return self.tell_chosen(out);
                }
                choose.lost(from);
            }
            _ => {}
        }
        self.step_choose(now, id, out);
    }

    /// A node will not answer a proposer.
    pub(crate) fn on_layout_lost(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        out: &mut Vec<Output>,
    ) {
        if let Some(choose) = self.choosing(id) {
            choose.lost(from);
            self.step_choose(now, id, out);
        }
    }

    pub(crate) fn step_choose(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(choose) = self.choosing(id) else {
            return;
        };
        match choose.next() {
            Next::Wait => {}
            Next::Fail => {
                let unmet = choose.unmet(false);
                self.finish(id, unmet, out);
            }
            Next::Propose => {
                let before = choose.before.take().map(|(_, proposed)| proposed);
                let proposed = before.unwrap_or_else(|| choose.wanted.clone());
                choose.proposed = Some(proposed.clone());
                choose.agreed.clear();
                let asked = LayoutRequest::Accept(choose.ballot, Box::new(proposed));
                self.ask_voters(now, id, asked, out);
            }
            Next::Chosen => {
                let Some(chosen) = choose.proposed.take() else {
                    return;
                };
                choose.chosen = Some(chosen == choose.wanted);
                let version = chosen.layout.version();
                if self.layouts.current().version() + 1 == version {
                    // Whoever voted for it is told at once: it is known to several then, whatever becomes of this node.
                    let known = self.layouts.with_next(chosen);
                    for node in self.up_peers() {
                        self.send_layouts(node, &known, out);
                    }
                    self.take_layouts(&known, out);
                }
                self.tell_chosen(out);
            }
        }
    }

    /// Whoever asked for a layout is told what was chosen, once this node goes by it: then it is on disk here, and stays.
    pub(crate) fn tell_chosen(&mut self, out: &mut Vec<Output>) {
        let known = self.layouts.version();
        let done: Vec<(RequestId, Answer)> = self
            .conversations
            .iter()
            .filter_map(|(id, conversation)| {
                let Kind::Choose(choose) = &conversation.kind else {
                    return None;
                };
                let version = choose.wanted.layout.version();
                let is_mine = choose.chosen.filter(|_| version <= known)?;
                let answer = match is_mine {
                    true => Answer::Applied(version),
                    false => overtaken(version),
                };
                Some((*id, answer))
            })
            .collect();
        for (id, answer) in done {
            self.finish(id, answer, out);
        }
    }

    /// A conversation about the next layout lost a node.
    pub(crate) fn choose_without(
        &mut self,
        now: Time,
        id: RequestId,
        node: NodeId,
        out: &mut Vec<Output>,
    ) {
        if let Some(Conversation {
            kind: Kind::Choose(choose),
            ..
        }) = self.conversations.get_mut(&id)
        {
            choose.lost(node);
            self.step_choose(now, id, out);
        }
    }
}

/// Another layout was chosen.
fn overtaken(version: u64) -> Answer {
    Answer::Refused(Refusal::Conflict(format!(
        "another layout of version {version} was applied meanwhile: look at it, and apply again on top of it"
    )))
}

/// What is on disk of what was promised.
pub(crate) fn load(storage: &impl Storage) -> Result<Option<Promise>, String> {
    let row = storage.get(Family::Meta, keys::PROMISE);
    let row = row.map_err(|e| e.to_string())?;
    row.map(|row| Promise::decode(&row)).transpose()
}
