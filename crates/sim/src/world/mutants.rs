//! Defects put in between the nodes and their world.

use quorate_protocol::{LayoutReply, LayoutRequest};

use super::*;

impl World {
    pub(super) fn mutate_request(&mut self, mut request: Request) -> Request {
        match (self.profile.mutant, &mut request) {
            (Some(Mutant::DropContexts), Request::Put(put)) => put.context = None,
            (Some(Mutant::GreedyContext), Request::Put(put)) => put.options.return_body = true,
            (Some(Mutant::IgnoreConditions), Request::Put(put)) => put.condition = None,
            (Some(Mutant::CountFallbackForPw), Request::Put(put)) => put.options.pw = None,
            (Some(Mutant::CountFallbackForPw), Request::Delete(delete)) => delete.options.pw = None,
            (Some(Mutant::ReadOne), Request::Get(get)) if !self.healing => {
                get.options.r = Some(Quorum::Count(1));
                get.options.pr = None;
            }
            (Some(Mutant::ListOne), Request::List(list)) if !self.healing => {
                list.options.r = Some(Quorum::Count(1));
                list.options.pr = None;
            }
            _ => {}
        }
        request
    }

    pub(super) fn mutate_answer(&self, client: usize, answer: Answer) -> Answer {
        let putting = self.clients[client]
            .busy
            .as_ref()
            .is_some_and(|op| op.kind == Kind::Put);
        match (self.profile.mutant, answer) {
            (Some(Mutant::GreedyContext), Answer::Found { context, .. }) if putting => {
                Answer::Stored { context }
            }
            (_, answer) => answer,
        }
    }

    pub(super) fn mutate_message(
        &mut self,
        from: usize,
        to: usize,
        message: Message,
    ) -> Option<Message> {
        let message = self.mutate_layouts(from, to, message)?;
        let message = self.mutate_upkeep(from, to, message)?;
        let message = match (self.profile.mutant, message) {
            (Some(Mutant::DropUnheard), Message::Replica(id, _, ReplicaRequest::Bucket(_))) => {
                let joined = ReplicaReply::Merged { synced: true };
                self.send(to, from, Message::Reply(id, joined));
                return None;
            }
            (Some(Mutant::DropUnheard), Message::Reply(id, ReplicaReply::Buckets(_)))
                if !self.healing =>
            {
                Message::Reply(id, ReplicaReply::Buckets(None))
            }
            (
                Some(Mutant::ServeTheDropped),
                Message::Reply(id, ReplicaReply::Refused(Refusal::BucketChanged(_))),
            ) => Message::Reply(id, ReplicaReply::Merged { synced: true }),
            (_, message) => message,
        };
        let Message::Replica(id, header, ReplicaRequest::Merge(mut merge)) = message else {
            return Some(message);
        };
        match self.profile.mutant {
            Some(Mutant::LoseEvidence) => {
                if let Ok(record) = Record::decode(&merge.record) {
                    let bare = Record::from_parts(record.live().to_vec(), DotSet::new());
                    merge.record = bare.encode();
                }
            }
            Some(mutant @ (Mutant::ExtendTtl | Mutant::LoseTtl)) => {
                if let Ok(record) = Record::decode(&merge.record) {
                    let mut live = record.live().to_vec();
                    for sibling in &mut live {
                        sibling.expires = sibling
                            .expires
                            .map(|deadline| deadline + 60_000)
                            .filter(|_| mutant == Mutant::ExtendTtl);
                    }
                    merge.record = Record::from_parts(live, record.evidence().clone()).encode();
                }
            }
            // A hint on its way to its owner comes from a node that is no replica, and has all the time in the world.
            Some(Mutant::SkipHintFlush)
                if merge.durable
                    && header.deadline_ms == 0
                    && !self
                        .seats_of_partition(merge.vnode.partition)
                        .contains(&from) =>
            {
                let merged = ReplicaReply::Merged { synced: true };
                self.send(to, from, Message::Reply(id, merged));
                return None;
            }
            Some(Mutant::AckWithoutMerge) => {
                let merged = ReplicaReply::Merged { synced: true };
                self.send(to, from, Message::Reply(id, merged));
                return None;
            }
            _ => {}
        }
        Some(Message::Replica(id, header, ReplicaRequest::Merge(merge)))
    }

    /// Defects of what is done about layouts.
    fn mutate_layouts(&mut self, from: usize, to: usize, message: Message) -> Option<Message> {
        let (Some(mutant), Some(node)) = (self.profile.mutant, &self.slots[to].node) else {
            return Some(message);
        };
        let known = node.layouts();
        let newest = known
            .next
            .as_ref()
            .map_or(&known.current, |c| &c.chosen.layout);
        match (mutant, message) {
            (
                Mutant::TakeOldWrites,
                Message::Replica(id, mut header, request @ ReplicaRequest::Merge(_)),
            ) => {
                header.layout_version = header.layout_version.max(newest.version());
                Some(Message::Replica(id, header, request))
            }
            (
                Mutant::ServeOldReads,
                Message::Replica(
                    id,
                    mut header,
                    request @ (ReplicaRequest::Read(_)
                    | ReplicaRequest::Recall(_)
                    | ReplicaRequest::Scan(_)),
                ),
            ) => {
                header.layout_version = header.layout_version.max(newest.version());
                Some(Message::Replica(id, header, request))
            }
            (
                Mutant::SyncNothing,
                Message::Replica(id, header, ReplicaRequest::Layout(mut asked)),
            ) => {
                if let LayoutRequest::Tell(told) = &mut *asked
                    && let Some(change) = &mut told.next
                {
                    let all = change.chosen.layout.nodes().iter().map(|n| n.id);
                    change.synced.extend(all);
                }
                let request = ReplicaRequest::Layout(asked);
                Some(Message::Replica(id, header, request))
            }
            (Mutant::WriteNewAlone, Message::Replica(id, header, ReplicaRequest::Merge(merge))) => {
                let seats = World::seats_in(newest, merge.vnode.partition);
                if known.next.is_some() && !seats.contains(&to) && merge.hint_for.is_none() {
                    let merged = ReplicaReply::Merged { synced: true };
                    self.send(to, from, Message::Reply(id, merged));
                    return None;
                }
                let request = ReplicaRequest::Merge(merge);
                Some(Message::Replica(id, header, request))
            }
            (
                Mutant::AcceptAnyLayout,
                Message::Replica(id, header, ReplicaRequest::Layout(asked)),
            ) => {
                if let LayoutRequest::Accept(ballot, _) = &*asked {
                    let accepted = LayoutReply::Accepted(*ballot);
                    let reply = ReplicaReply::Layout(Box::new(accepted));
                    self.send(to, from, Message::Reply(id, reply));
                    return None;
                }
                let request = ReplicaRequest::Layout(asked);
                Some(Message::Replica(id, header, request))
            }
            (_, message) => Some(message),
        }
    }

    /// Defects of what replicas do for each other's sake.
    fn mutate_upkeep(&mut self, from: usize, to: usize, message: Message) -> Option<Message> {
        let Some(mutant) = self.profile.mutant else {
            return Some(message);
        };
        match message {
            Message::Replica(id, header, ReplicaRequest::Upkeep(asked)) => {
                let reply = match (mutant, &*asked) {
                    (Mutant::CollectWithoutAsking, Upkeep::Confirm(removals))
                        if self.seats_of_partition(removals.vnode.partition).last()
                            == Some(&to) =>
                    {
                        let keys = removals.keys.iter();
                        UpkeepReply::Confirmed(keys.map(|key| key.dots.clone()).collect())
                    }
                    (Mutant::ExchangeNothing, Upkeep::Reconcile(reconcile)) => {
                        let records = reconcile.records.iter();
                        UpkeepReply::Records(records.map(|r| r.record.clone()).collect())
                    }
                    _ => {
                        let request = ReplicaRequest::Upkeep(asked);
                        return Some(Message::Replica(id, header, request));
                    }
                };
                let reply = ReplicaReply::Upkeep(Box::new(reply));
                self.send(to, from, Message::Reply(id, reply));
                None
            }
            Message::Reply(id, ReplicaReply::Upkeep(mut reply)) => {
                match (mutant, &mut *reply) {
                    (Mutant::LetAllVote, UpkeepReply::Testimony(testimony)) => {
                        for vote in &mut testimony.votes {
                            if matches!(vote, Vote::Abstain | Vote::FilledWithout) {
                                *vote = Vote::Lacks;
                            }
                        }
                    }
                    (Mutant::GiveAllBack, UpkeepReply::Testimony(testimony)) => {
                        for vote in &mut testimony.votes {
                            if matches!(vote, Vote::Lacks | Vote::FilledWithout | Vote::Removed) {
                                *vote = Vote::Abstain;
                            }
                        }
                    }
                    (Mutant::ForgetCommits, UpkeepReply::Known(before)) => *before = 0,
                    (Mutant::AdoptWithoutEvidence, UpkeepReply::Evidence(removals, next)) => {
                        removals.clear();
                        *next = None;
                    }
                    _ => {}
                }
                Some(Message::Reply(id, ReplicaReply::Upkeep(reply)))
            }
            Message::Reply(id, ReplicaReply::Gone(_)) if mutant == Mutant::RecallNothing => {
                Some(Message::Reply(id, ReplicaReply::Gone(Vec::new())))
            }
            message => Some(message),
        }
    }
}
