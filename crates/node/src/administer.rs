//! What a node does about buckets: answers for them, changes them, learns what others changed, compares tables.

use bytes::Bytes;
use quorate_causal::DotSet;
use quorate_protocol::{
    Answer, BucketAction, BucketEntry, BucketId, BucketRequest, BucketsAsked, Header, List,
    Listing, Message, Options, Quorum, Refusal, ReplicaReply, ReplicaRequest, RequestId,
};
use quorate_ring::NodeId;
use quorate_storage::{Batch, Family, Storage, StorageError};

use crate::accept;
use crate::api::{Event, Output};
use crate::change::ChangeConversation;
use crate::node::{Accepted, Conversation, Kind, Local, Node, Waiter, answer};
use crate::read::Purpose;
use crate::reclaim::ReclaimJob;
use crate::relocation::ATTEMPTS_MAX;
use crate::tally::Verdict;
use crate::target::Target;
use crate::time::Time;

/// How often a node compares its table with that of another, in turn. Tables are also compared whenever a node comes
/// in reach, so this is for what was lost on the way.
pub(crate) const COMPARE_EVERY_US: u64 = 10_000_000;

impl<S: Storage> Node<S> {
    /// A client's request about a bucket.
    pub(crate) fn administer(
        &mut self,
        accepted: Accepted,
        request: BucketRequest,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        accept::bucket_name(&request.bucket)?;
        if request.action == BucketAction::Show {
            let entry = self.buckets.entry(&request.bucket);
            let shown = self.buckets.describe(&entry);
            answer(accepted.reply_to, Answer::Bucket(Box::new(shown)), out);
            return Ok(());
        }
        let now = self.buckets.entry(&request.bucket);
        let life = now.generation;
        let proposal = self.buckets.changed(now, &request.action, &self.layouts)?;
        if proposal.must_be_empty {
            return self.look(accepted, request, life, None, out);
        }
        self.change(accepted, request, proposal.entry, out)
    }

    fn change(
        &mut self,
        accepted: Accepted,
        request: BucketRequest,
        proposed: BucketEntry,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let needed = self
            .buckets
            .informed(&request.bucket, &proposed, &self.layouts);
        for requirement in &needed {
            self.in_reach(requirement)?;
        }
        let conversation = ChangeConversation::new(request, proposed, needed);
        let now = accepted.now;
        let id = self.converse(accepted, Kind::Change(conversation));
        self.send_change(now, id, out);
        Ok(())
    }

    /// Looks whether a bucket has keys: a change of it would end the life that they belong to.
    fn look(
        &mut self,
        accepted: Accepted,
        request: BucketRequest,
        life: u32,
        after: Option<String>,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let list = List {
            bucket: request.bucket.clone(),
            prefix: String::new(),
            after,
            limit: 1,
            options: Options {
                // So that it meets the writes of a local quorum, wherever that was.
                r: Some(Quorum::Each),
                ..Options::default()
            },
        };
        self.begin_list(accepted, list, Some((request, life)), out)
    }

    /// It was looked whether a bucket has keys. What is put into it from here until the change is known counts as put
    /// before a drop.
    pub(crate) fn on_looked(
        &mut self,
        now: Time,
        accepted: Accepted,
        (request, life): (BucketRequest, u32),
        found: Answer,
        out: &mut Vec<Output>,
    ) {
        let reply_to = accepted.reply_to;
        let current = self.buckets.entry(&request.bucket);
        if current.generation != life {
            // Another life than that which was looked at. Nothing was done.
            let changed = Refusal::BucketChanged(Box::new(current));
            return answer(reply_to, Answer::Refused(changed), out);
        }
        let goes_on = match found {
            Answer::Listed(page) if !page.keys.is_empty() => {
                Err(Answer::Refused(Refusal::Conflict(format!(
                    "bucket '{}' has keys already, so that its n and regions cannot be set any more: drop it first, or use \
                 another name",
                    request.bucket
                ))))
            }
            Answer::Listed(Listing {
                next: next @ Some(_),
                ..
            }) => {
                let accepted = Accepted { now, ..accepted };
                self.look(accepted, request, life, next, out)
                    .map_err(Answer::Refused)
            }
            Answer::Listed(_) => self
                .buckets
                .changed(current, &request.action, &self.layouts)
                .and_then(|proposal| self.change(accepted, request, proposal.entry, out))
                .map_err(Answer::Refused),
            other => Err(other),
        };
        if let Err(refused) = goes_on {
            answer(reply_to, refused, out);
        }
    }

    /// Sends a proposal to every node in reach, this one first.
    fn send_change(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Conversation {
            kind: Kind::Change(change),
            deadline,
            kept,
            ..
        }) = self.conversations.get_mut(&id)
        else {
            return;
        };
        let (entry, deadline, trace) = (change.proposed.clone(), *deadline, kept.trace);
        for (node, peer) in &self.peers {
            if !peer.up {
                change.lost(*node);
            }
        }
        self.local.push_back(Local::Ask(
            id,
            ReplicaRequest::Bucket(Box::new(entry.clone())),
        ));
        let header = Header {
            trace,
            ..self.header(now, deadline)
        };
        for node in self.up_peers() {
            let request = ReplicaRequest::Bucket(Box::new(entry.clone()));
            let message = Message::Replica(id, header.clone(), request);
            out.push(Output::Send(node, message));
        }
    }

    /// Proposes a change once more to a node that knew other layouts.
    pub(crate) fn propose_to(
        &mut self,
        now: Time,
        id: RequestId,
        node: NodeId,
        out: &mut Vec<Output>,
    ) {
        let Some(Conversation {
            kind: Kind::Change(change),
            deadline,
            kept,
            ..
        }) = self.conversations.get(&id)
        else {
            return;
        };
        let header = Header {
            trace: kept.trace,
            ..self.header(now, *deadline)
        };
        let request = ReplicaRequest::Bucket(Box::new(change.proposed.clone()));
        out.push(Output::Send(node, Message::Replica(id, header, request)));
    }

    /// Those who must know of a change are those of the layouts of now.
    pub(crate) fn change_elsewhere(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Kind::Change(change)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let needed = self
            .buckets
            .informed(&change.bucket, &change.proposed, &self.layouts);
        if let Some(Kind::Change(change)) = self.conversations.get_mut(&id).map(|c| &mut c.kind) {
            change.needs(needed);
            self.send_change(now, id, out);
            self.step_change(id, out);
        }
    }

    pub(crate) fn up_peers(&self) -> Vec<NodeId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.up);
        up.map(|(node, _)| *node).collect()
    }

    /// A node has answered a proposal.
    pub(crate) fn on_change_reply(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        reply: ReplicaReply,
        out: &mut Vec<Output>,
    ) {
        // It has a greater entry: take that, and propose the change on top of it.
        if let ReplicaReply::Bucket(entry) = reply {
            // If it cannot be stored here, this node's own word is missing below.
            let _ = self.learn((*entry).clone());
            return self.propose_again(now, id, *entry, out);
        }
        let Some(Conversation {
            kind: Kind::Change(change),
            ..
        }) = self.conversations.get_mut(&id)
        else {
            return;
        };
        match reply {
            ReplicaReply::Merged { synced: true } => change.joined(from),
            ReplicaReply::Refused(Refusal::WrongLayout { .. }) => {
                change.turn_away(from, ATTEMPTS_MAX);
                self.on_turned_away(from, out);
            }
            _ => change.lost(from),
        }
        self.step_change(id, out);
    }

    /// Proposes a change again on top of what a node has told: that may have been acknowledged to somebody. Of what this
    /// node has by itself, of the same version, nobody was told that it is so.
    fn propose_again(
        &mut self,
        now: Time,
        id: RequestId,
        told: BucketEntry,
        out: &mut Vec<Output>,
    ) {
        let Some(Conversation {
            kind: Kind::Change(change),
            ..
        }) = self.conversations.get(&id)
        else {
            return;
        };
        let unmet = change.unmet(false);
        let begins_life = change.proposed.version == 0;
        // Some nodes have taken the first proposal, so the outcome is unknown if there cannot be another. One that began a
        // life for the sake of its replica set met somebody who began one too: what that holds is not ours to drop.
        if change.is_last() || (begins_life && change.action != BucketAction::Drop) {
            return self.finish(id, unmet, out);
        }
        let request = BucketRequest {
            bucket: change.bucket.clone(),
            action: change.action.clone(),
        };
        let own = self.buckets.entry(&request.bucket);
        let on = match (told.generation, told.version) >= (own.generation, own.version) {
            true => told,
            false => own,
        };
        let proposed = match self.buckets.changed(on, &request.action, &self.layouts) {
            // It would end a life that nobody looked into.
            Ok(proposal) if proposal.must_be_empty => return self.finish(id, unmet, out),
            Ok(proposal) if begins_life || proposal.entry > change.proposed => proposal.entry,
            Ok(_) => return, // Told by one that is behind in another way: its table will be compared.
            // Some nodes have taken what was proposed, and where tables are joined it may yet win: "refused" would say that
            // it cannot.
            Err(Refusal::Conflict(_)) => return self.finish(id, unmet, out),
            Err(refusal) => return self.finish(id, Answer::Refused(refusal), out),
        };
        let needed = self
            .buckets
            .informed(&request.bucket, &proposed, &self.layouts);
        // Under a new id, so that nobody's word for the last proposal is taken for this one.
        let Some(Conversation {
            kind: Kind::Change(change),
            reply_to,
            began,
            deadline,
            log,
            kept,
        }) = self.end(id)
        else {
            return;
        };
        out.push(Output::Event(Event::ChangeAgain));
        let accepted = Accepted {
            reply_to,
            now: began,
            deadline,
            log,
            trace: kept.trace,
        };
        let change = change.again(proposed, needed);
        let id = self.converse(accepted, Kind::Change(change));
        self.send_change(now, id, out);
    }

    /// Looks whether enough know of a change.
    pub(crate) fn step_change(&mut self, id: RequestId, out: &mut Vec<Output>) {
        let Some(Conversation {
            kind: Kind::Change(change),
            ..
        }) = self.conversations.get(&id)
        else {
            return;
        };
        let done = match change.verdict() {
            Verdict::Pending => return,
            Verdict::Met => Answer::Bucket(Box::new(self.buckets.describe(&change.proposed))),
            Verdict::Impossible => change.unmet(false),
        };
        self.finish(id, done, out);
    }

    /// As one of the nodes that keep the table: joins an entry. Whoever proposed it hears that it is on disk, or which
    /// greater one is here.
    pub(crate) fn on_entry(
        &mut self,
        waiter: Waiter,
        entry: BucketEntry,
    ) -> Option<(Waiter, ReplicaReply)> {
        if let Some(entry) = self.buckets.too_late(&entry) {
            return Some((waiter, ReplicaReply::Bucket(Box::new(entry))));
        }
        if let Err(refusal) = self.learn(entry.clone()) {
            return Some((waiter, ReplicaReply::Refused(refusal)));
        }
        let now = self.buckets.entry(&entry.name);
        if now != entry {
            return Some((waiter, ReplicaReply::Bucket(Box::new(now))));
        }
        // Also if it was here before: it may not be on disk yet.
        match self.replica.sync() {
            Ok(due) => {
                let (waiter, synced) = self.replica.due(due, waiter)?;
                Some((waiter, ReplicaReply::Merged { synced }))
            }
            Err(refusal) => Some((waiter, ReplicaReply::Refused(refusal))),
        }
    }

    /// Joins an entry that came from somewhere into the table.
    pub(crate) fn learn(&mut self, entry: BucketEntry) -> Result<(), Refusal> {
        let mut batch = Batch::new();
        let (name, sets) = (entry.name.clone(), self.buckets.placements().count());
        let joined = self.buckets.join(entry, &self.layouts, &mut batch);
        let Some(began) = joined.map_err(Refusal::Impossible)? else {
            return Ok(());
        };
        if self.buckets.placements().count() > sets {
            let set = self.buckets.resolve(&name).1.placement.set();
            self.fill_set(set);
        }
        if let Some(id) = began {
            batch.put(Family::Meta, crate::keys::reclaim(id), Bytes::new());
            self.reclaim_before(id);
        }
        self.replica.commit(batch)
    }

    fn reclaim_before(&mut self, id: BucketId) {
        let job = ReclaimJob::new(id, self.layouts.partitions());
        self.jobs.reclaim(job);
    }

    /// Goes on with what was being removed when the node was closed.
    pub(crate) fn reclaim_the_rest(&mut self) -> Result<(), StorageError> {
        let mut found = Vec::new();
        crate::buckets::rows(self.replica.storage(), crate::keys::RECLAIM, |key, _| {
            found.extend(<[u8; 16]>::try_from(key).map(BucketId));
        })?;
        for id in found {
            self.reclaim_before(id);
        }
        Ok(())
    }

    // ---- Requests that meet a later life of their bucket ----

    /// A replica refused a request since it knows a later life of its bucket. It does not count for the request; those
    /// that have not heard may still be enough, and then it came before the drop, whose own quorum is not complete.
    pub(crate) fn on_bucket_changed(
        &mut self,
        id: RequestId,
        entry: &BucketEntry,
        out: &mut Vec<Output>,
    ) {
        // If it cannot be stored, this node goes on as if it had not heard.
        let _ = self.learn(entry.clone());
        match self.conversations.get_mut(&id).map(|c| &mut c.kind) {
            Some(Kind::Read(read)) => read.over = Some(entry.name.clone()),
            // A write is not made once more in the new life: somebody who has not heard of the drop may have seen it in the
            // old one, and removed it.
            Some(Kind::Write(_)) => {}
            _ => return,
        }
        out.push(Output::Event(Event::BucketChanged));
    }

    /// The target of a request in the life of its bucket that this node has learnt of meanwhile, if that has the same
    /// replicas.
    fn in_new_life(&self, over: Option<&str>, target: &Target) -> Option<Target> {
        let (id, policy) = self.buckets.resolve(over?);
        let same_set = policy.placement.set() == target.vnode.set;
        (id != target.id && same_set).then(|| Target {
            id,
            policy,
            ..target.clone()
        })
    }

    /// Reads once more, in the new life of the bucket.
    pub(crate) fn read_again(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) -> bool {
        let Some(Conversation {
            kind: Kind::Read(read),
            ..
        }) = self.conversations.get(&id)
        else {
            return false;
        };
        // A listing begins anew, if its client wants.
        if let Purpose::Listing(_) = read.purpose {
            return false;
        }
        let Some(target) = self.in_new_life(read.over.as_deref(), &read.target) else {
            return false;
        };
        let Some(Conversation {
            kind: Kind::Read(mut read),
            reply_to,
            deadline,
            log,
            kept,
            ..
        }) = self.end(id)
        else {
            return false;
        };
        if let Purpose::Write(first) = &mut read.purpose {
            // What its client had read is of the life that is over.
            first.seen = DotSet::new();
        }
        let accepted = Accepted {
            reply_to,
            now,
            deadline,
            log: log.clone(),
            trace: kept.trace,
        };
        if let Err(refusal) = self.read(accepted, target, read.needed, read.purpose, out) {
            self.give(reply_to, log, Answer::Refused(refusal), out);
        }
        true
    }

    // ---- Comparing tables ----

    /// Asks a node for its table, unless it is the same.
    pub(crate) fn compare(&mut self, node: NodeId, out: &mut Vec<Output>) -> RequestId {
        let id = self.fresh_id();
        let asked = BucketsAsked {
            digest: self.buckets.digest(),
        };
        let header = Header {
            layout_version: self.layouts.version(),
            ..Header::default()
        };
        let message = Message::Replica(id, header, ReplicaRequest::Buckets(asked));
        out.push(Output::Send(node, message));
        id
    }

    /// Compares with the next node in turn, if it is time.
    pub(crate) fn compare_in_turn(&mut self, now: Time, out: &mut Vec<Output>) {
        if now < self.compare_at {
            return;
        }
        self.compare_at = Time(now.0 + COMPARE_EVERY_US);
        let up = self.up_peers();
        let next = up.iter().find(|n| Some(**n) > self.compared).or(up.first());
        if let Some(node) = next.copied() {
            self.compared = Some(node);
            self.compare(node, out);
        }
    }

    /// As the one that is asked.
    pub(crate) fn table(&self, asked: &BucketsAsked) -> ReplicaReply {
        ReplicaReply::Buckets(
            (asked.digest != self.buckets.digest()).then(|| self.buckets.entries()),
        )
    }

    /// A node has told its table.
    pub(crate) fn on_table(&mut self, entries: Vec<BucketEntry>, out: &mut Vec<Output>) {
        for entry in entries {
            if entry > self.buckets.entry(&entry.name) {
                out.push(Output::Event(Event::BucketLearnt));
                // One that makes no sense here, or cannot be stored, must not keep the others from being heard of.
                let _ = self.learn(entry);
            }
        }
    }
}
