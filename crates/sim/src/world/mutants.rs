//! Defects put in between the nodes and their world.

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
}
