//! What other nodes say, and what this node says as a replica, to them and to itself.

use quorate_causal::{Actor, Digest, Dot, Record};
use quorate_protocol::{
    Answer, Header, Merge, Message, Read, Recall, Refusal, ReplicaReply, ReplicaRequest, RequestId,
    VnodeId,
};
use quorate_ring::NodeId;
use quorate_storage::{Batch, Storage};

use crate::accept;
use crate::api::{Event, Output};
use crate::forward::Step;
use crate::keys;
use crate::node::{Conversation, Kind, Local, Node, ReplyTo, Waiter, remaining_ms, tell};
use crate::ranking::Errand;
use crate::replica::{Due, Write, Written};
use crate::telling::words_of;
use crate::time::Time;

impl<S: Storage> Node<S> {
    pub(crate) fn on_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        match message {
            Message::Request(id, header, request) => {
                self.begin(now, ReplyTo::Node(from, id), header, request, out);
            }
            Message::Answer(id, answer) => self.on_answer(now, from, id, answer, out),
            // Whatever layout anybody has: that they differ is one of the things to be told.
            Message::Replica(id, _, ReplicaRequest::Status) => {
                let status = ReplicaReply::Status(Box::new(self.own_status()));
                out.push(Output::Send(from, Message::Reply(id, status)));
            }
            Message::Replica(id, header, request) => {
                let is_rightly_asked = self.is_rightly_asked(&request);
                let is_current = header.layout_version == self.layouts.version();
                if !self.fits(&header, &request) || (!is_rightly_asked && !is_current) {
                    return self.turn_away(from, id, out);
                }
                // What were stored here nobody would ever find.
                if !is_rightly_asked {
                    // It may know of a bucket that this node has not heard of.
                    self.compare(from, out);
                    // One who does not know yet that the layout before is retired asks by it rightly.
                    if self.layouts.current().version() > 1 {
                        return self.turn_away(from, id, out);
                    }
                    let refused = ReplicaReply::Refused(Refusal::Malformed(
                        "this node is no replica of that partition for that replica set, or is one where it is asked what \
                         it keeps for them"
                            .to_owned(),
                    ));
                    out.push(Output::Send(from, Message::Reply(id, refused)));
                    return;
                }
                if let ReplicaRequest::Scan(scan) = &request {
                    let deadline = match accept::timeout(&header, &self.config.limits) {
                        Ok(timeout) => now.after(timeout),
                        Err(refusal) => {
                            let refused = Message::Reply(id, ReplicaReply::Refused(refusal));
                            out.push(Output::Send(from, refused));
                            return;
                        }
                    };
                    return self.on_scan(Waiter::Peer(from, id), deadline, scan, out);
                }
                self.on_replica_request(Waiter::Peer(from, id), request, out);
            }
            Message::Reply(id, reply) => self.on_reply(now, from, id, reply, out),
        }
    }

    /// This node as a replica.
    pub(crate) fn on_replica_request(
        &mut self,
        waiter: Waiter,
        request: ReplicaRequest,
        out: &mut Vec<Output>,
    ) {
        if let ReplicaRequest::Merge(Merge { vnode, bucket, .. })
        | ReplicaRequest::Read(Read { vnode, bucket, .. })
        | ReplicaRequest::Recall(Recall { vnode, bucket, .. }) = &request
            && let Some(refusal) = self.buckets.objection(*bucket, vnode.set)
        {
            tell(waiter, ReplicaReply::Refused(refusal), &mut self.local, out);
            return;
        }
        if let ReplicaRequest::Merge(Merge { bucket, .. })
        | ReplicaRequest::Read(Read { bucket, .. }) = &request
            && self.buckets.is_news(*bucket)
        {
            // Before the record, so that whoever is told that it is here can rely on the life being known here. Nor may one who
            // was told that nothing is here in this life be contradicted by what stood in the one before.
            let mut batch = Batch::new();
            self.buckets.heard(*bucket, &mut batch);
            if let Err(refusal) = self.replica.commit(batch) {
                tell(waiter, ReplicaReply::Refused(refusal), &mut self.local, out);
                return;
            }
            if let ReplicaRequest::Read(read) = &request {
                let at = keys::record(read.vnode, read.bucket, &read.key);
                self.replica.note_unwritten(at.into());
            }
            if let Waiter::Peer(from, _) = waiter {
                self.compare(from, out);
            }
        }
        if matches!(request, ReplicaRequest::Merge(_) | ReplicaRequest::Read(_)) {
            self.yield_to_requests();
        }
        match request {
            ReplicaRequest::Read(read) if read.hinted => {
                let owners = self.replica.owners();
                if let Some((waiter, reply)) = self.replica.show_hinted(&read, &owners, waiter) {
                    tell(waiter, reply, &mut self.local, out);
                }
            }
            ReplicaRequest::Read(read) => {
                if let Some((waiter, reply)) = self.replica.show(&read, waiter) {
                    tell(waiter, reply, &mut self.local, out);
                }
            }
            ReplicaRequest::Recall(recall) => {
                let reply = self.replica.recall(&recall);
                // What is told must be as durable as what a read shows; and where the disk has failed, as much is told.
                let at = keys::record(recall.vnode, recall.bucket, &recall.key);
                if let Some((waiter, reply)) = self.replica.once_kept(&at, reply, waiter) {
                    tell(waiter, reply, &mut self.local, out);
                }
            }
            ReplicaRequest::Bucket(entry) => {
                if let Some((waiter, reply)) = self.on_entry(waiter, *entry) {
                    tell(waiter, reply, &mut self.local, out);
                }
            }
            ReplicaRequest::Buckets(asked) => {
                let table = self.table(&asked);
                // One that is in no layout is asked by nobody else for what it has heard.
                if let Waiter::Peer(from, _) = waiter
                    && !self.peers.contains_key(&from)
                    && asked.digest != self.buckets.digest()
                {
                    self.compare(from, out);
                }
                tell(waiter, table, &mut self.local, out);
            }
            ReplicaRequest::Upkeep(asked) => self.on_upkeep_asked(waiter, *asked, out),
            ReplicaRequest::Layout(asked) => self.on_layout_asked(waiter, *asked, out),
            // A scan is taken on before, with the time that it has.
            ReplicaRequest::Scan(_) => {
                let refused = ReplicaReply::Refused(Refusal::Malformed("not yet".to_owned()));
                tell(waiter, refused, &mut self.local, out);
            }
            ReplicaRequest::Status => {
                let status = ReplicaReply::Status(Box::new(self.own_status()));
                tell(waiter, status, &mut self.local, out);
            }
            ReplicaRequest::Merge(merge) => match self.take(&merge) {
                Ok(due) => {
                    if merge.hint_for.is_some() {
                        out.push(Output::Event(Event::HintKept));
                    }
                    if let Some((waiter, synced)) = self.replica.due(due, waiter) {
                        let merged = ReplicaReply::Merged { synced };
                        tell(waiter, merged, &mut self.local, out);
                    }
                }
                Err(refusal) => {
                    if let Refusal::DiskFull { .. } = refusal {
                        out.push(Output::Event(Event::DiskFull));
                    }
                    tell(waiter, ReplicaReply::Refused(refusal), &mut self.local, out);
                }
            },
        }
    }

    /// Takes what is to be merged: as a replica, or to keep it for one.
    fn take(&mut self, merge: &Merge) -> Result<Due, Refusal> {
        let limit = self.config.limits.hint_bytes_max;
        match merge.hint_for {
            None => self.replica.merge(merge),
            Some(owner) => self.replica.keep_hint(owner, merge, limit),
        }
    }

    /// Whether this node is who should be asked this: a replica of the seat for its own record, any other node for what it
    /// keeps for one.
    fn is_rightly_asked(&self, request: &ReplicaRequest) -> bool {
        let (vnode, owner) = match request {
            ReplicaRequest::Merge(merge) => (merge.vnode, merge.hint_for.map(Some)),
            ReplicaRequest::Read(read) => (read.vnode, read.hinted.then_some(None)),
            ReplicaRequest::Recall(recall) => (recall.vnode, None),
            ReplicaRequest::Upkeep(asked) => return self.is_upkeep_rightly_asked(asked),
            _ => return true,
        };
        let Some(owner) = owner else {
            return self.is_seat(vnode);
        };
        let placement = self.buckets.placement(vnode.set);
        placement.is_some_and(|p| {
            vnode.partition.0 < self.layouts.partitions()
                && !p.is_seat(vnode, self.config.me)
                && owner.is_none_or(|owner| p.is_seat(vnode, owner))
        })
    }

    /// Makes a client's write, as the replica that coordinates it or in the place of one.
    fn make(&mut self, mut write: Write) -> Result<(Option<Due>, Written), Refusal> {
        let Some(owners) = write.owners.take() else {
            return self.replica.write(write).map(|(due, w)| (Some(due), w));
        };
        let limit = self.config.limits.hint_bytes_max;
        let all = self.replica.owners();
        if self.buckets.is_news(write.bucket) {
            let mut batch = Batch::new();
            self.buckets.heard(write.bucket, &mut batch);
            self.replica.commit(batch)?;
        }
        self.replica.write_for(write, &owners, &all, limit)
    }

    pub(crate) fn on_local(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(local) = self.local.pop_front() {
            match local {
                Local::Ask(id, ReplicaRequest::Scan(scan)) => {
                    if let Some(deadline) = self.conversations.get(&id).map(|c| c.deadline) {
                        self.on_scan(Waiter::Own(id), deadline, &scan, out);
                    }
                }
                // Nothing is done with what went elsewhere, whoever of this node asks for it.
                Local::Ask(id, request) if !self.is_rightly_asked(&request) => {
                    let version = self.layouts.version();
                    let refused = ReplicaReply::Refused(Refusal::WrongLayout { version });
                    self.local.push_back(Local::Reply(id, refused));
                }
                Local::Ask(id, request) => {
                    self.on_replica_request(Waiter::Own(id), request, out);
                }
                Local::Write(id, write) => match self.make(write) {
                    Ok((due, written)) => {
                        self.local.push_back(Local::Written(id, Box::new(written)));
                        if let Some((waiter, synced)) =
                            due.and_then(|due| self.replica.due(due, Waiter::Own(id)))
                        {
                            let merged = ReplicaReply::Merged { synced };
                            tell(waiter, merged, &mut self.local, out);
                        }
                    }
                    Err(refusal) => self.local.push_back(Local::WriteRefused(id, refusal)),
                },
                Local::Reply(id, reply) => self.on_reply(now, self.config.me, id, reply, out),
                Local::Written(id, written) => self.on_written(now, id, *written, out),
                // Nothing was sent yet, so nothing happened anywhere.
                Local::WriteRefused(id, refusal) => self.finish(id, Answer::Refused(refusal), out),
                Local::Looked(accepted, request, found) => {
                    self.on_looked(now, *accepted, request, found, out);
                }
                Local::Decided { list, read, found } => {
                    self.on_decided(now, list, read, found.map_err(|answer| *answer), out);
                }
            }
        }
    }

    /// This node's own vnode has the write: now the others get it.
    pub(crate) fn on_written(
        &mut self,
        now: Time,
        id: RequestId,
        written: Written,
        out: &mut Vec<Output>,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let (deadline, trace) = (conversation.deadline, conversation.kept.trace);
        let Kind::Write(write) = &mut conversation.kind else {
            return;
        };
        // For the account, where one is asked for.
        let log = &mut conversation.log;
        let delta = log
            .as_ref()
            .and_then(|_| Record::decode(&written.delta).ok());
        let mut log = log.as_mut().zip(delta.as_ref());
        if let Some((log, delta)) = &mut log {
            log.sent(now, self.config.me, delta);
            log.left(&written.record, delta);
        }
        if write.payload.is_some() && written.record.live().len() > 1 {
            out.push(Output::Event(Event::Siblings));
        }
        write.made(written.own, written.record, written.removed);
        let merge = Merge {
            vnode: write.target.vnode,
            bucket: write.target.id,
            key: write.target.key_bytes(),
            record: written.delta,
            durable: write.terms.durable,
            hint_for: None,
        };
        let policy = write.target.policy.clone();
        let seats = policy.placement.primaries(merge.vnode.partition);
        let mut out_of_reach = Vec::new();
        write.asks(self.config.me);
        for seat in seats.iter().filter(|s| s.node != self.config.me) {
            write.asks(seat.node);
            let peer = self.peers.get_mut(&seat.node);
            if let Some(peer) = peer.filter(|peer| peer.up) {
                peer.standing.asked(now, id, Errand::Write);
                let header = Header {
                    layout_version: self.layouts.version(),
                    deadline_ms: remaining_ms(now, deadline),
                    trace,
                    ..Header::default()
                };
                let request = ReplicaRequest::Merge(merge.clone());
                out.push(Output::Send(
                    seat.node,
                    Message::Replica(id, header, request),
                ));
                if let Some((log, delta)) = &mut log {
                    log.sent(now, seat.node, delta);
                }
            } else {
                write.lost(seat.node);
                out_of_reach.push(seat.node);
                if let Some((log, _)) = &mut log {
                    log.out_of_reach(now, seat.node);
                }
            }
        }
        let target = write.target.clone();
        write.lose_the_dead(&target);
        for node in out_of_reach {
            self.stand_in(now, id, node, out);
        }
        self.step_write(id, out);
    }

    pub(crate) fn on_reply(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        mut reply: ReplicaReply,
        out: &mut Vec<Output>,
    ) {
        if let ReplicaReply::Buckets(entries) = reply {
            self.on_table(entries.unwrap_or_default(), out);
            return self.on_compared(from, id);
        }
        if let ReplicaReply::Layout(reply) = reply {
            return self.on_layout_reply(now, from, id, *reply, out);
        }
        let asked_as = id;
        let (id, again) = match self.again.remove(&id) {
            Some((of, about)) => (of, Some(about)),
            None => (id, None),
        };
        if let ReplicaReply::Refused(Refusal::BucketChanged(entry)) = &reply {
            self.on_bucket_changed(id, entry, out);
        }
        if self.on_handed_over(now, from, id, &reply, out)
            || self.on_upkeep_reply(now, from, id, &mut reply, out)
        {
            return;
        }
        if self.repairs.answered(id, from) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.standing.replied(now, asked_as, &reply);
        }
        self.note_reply(id, from, words_of(&reply), out);
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return; // Answered already, or nobody waits for it: a probe.
        };
        if let Some(log) = &mut conversation.log {
            log.replied(now, from, &reply);
        }
        match &mut conversation.kind {
            Kind::Write(write) => {
                match reply {
                    ReplicaReply::Merged { synced } => {
                        let before = write.hints_outstanding();
                        write.taken(from, synced);
                        self.hint_writes -= before - write.hints_outstanding();
                    }
                    ReplicaReply::Refused(Refusal::WrongLayout { .. })
                        if !write.stand_ins.has(from) =>
                    {
                        write.turn_away(from);
                        self.on_turned_away(from, out);
                    }
                    ReplicaReply::Refused(refusal) => {
                        self.on_write_refused(now, id, from, Some(&refusal), out);
                    }
                    _ => self.on_write_refused(now, id, from, None, out),
                }
                self.step_write(id, out);
            }
            Kind::Read(read) => {
                read.input = self.inputs;
                match reply {
                    ReplicaReply::Digest(digest) => read.digest(from, Digest(digest)),
                    ReplicaReply::Record(bytes) if bytes.is_empty() => {
                        read.record(from, Record::new(), again.is_some());
                    }
                    ReplicaReply::Gone(gone) => {
                        let gone = gone.into_iter().map(|(actor, counter)| Dot {
                            actor: Actor(actor),
                            counter,
                        });
                        let about = again.unwrap_or_default();
                        read.recalled(from, &about, &gone.collect::<Vec<_>>());
                    }
                    ReplicaReply::Record(bytes) => match Record::decode(&bytes) {
                        Ok(record) => read.record(from, record, again.is_some()),
                        Err(_) => read.lost(from),
                    },
                    // It begins anew once this node knows what that one does.
                    ReplicaReply::Refused(Refusal::WrongLayout { .. }) => {
                        read.gone(from);
                        self.on_turned_away(from, out);
                    }
                    _ => read.lost(from),
                }
                self.step_read(now, id, out);
            }
            Kind::Change(_) => self.on_change_reply(now, from, id, reply, out),
            Kind::Scan(_) => self.on_scanned(now, id, Some(reply), out),
            Kind::Status(status) => {
                match reply {
                    ReplicaReply::Status(told) => status.told(from, *told),
                    _ => status.lost(from),
                }
                self.step_status(id, out);
            }
            Kind::Choose(_) => self.on_layout_lost(now, from, id, out),
            Kind::Forward(_) | Kind::List(_) | Kind::Repair(_) => {}
        }
    }

    pub(crate) fn is_seat(&self, vnode: VnodeId) -> bool {
        let placement = self.buckets.placement(vnode.set);
        placement.is_some_and(|p| p.is_seat(vnode, self.config.me))
    }

    /// The coordinator of a forwarded request has answered.
    pub(crate) fn on_answer(
        &mut self,
        now: Time,
        from: NodeId,
        id: RequestId,
        given: Answer,
        out: &mut Vec<Output>,
    ) {
        if let Some(peer) = self.peers.get_mut(&from) {
            let inner = match &given {
                Answer::Explained(explained) => explained.answer().ok(),
                _ => None,
            };
            let refusal = match inner.as_ref().unwrap_or(&given) {
                Answer::Refused(refusal) => Some(refusal),
                _ => None,
            };
            peer.standing.answered(now, id, refusal);
        }
        let Some(Conversation {
            kind: Kind::Forward(forward),
            ..
        }) = self.conversations.get_mut(&id)
        else {
            return;
        };
        if forward.is_at(from) {
            let won = forward.is_won_by(from);
            let step = forward.answered(from, given);
            if won && matches!(step, Step::Answer(_)) {
                out.push(Output::Event(Event::HedgeWon));
            }
            self.note_reply(id, from, "answer", out);
            let turned_away = matches!(self.conversations.get(&id).map(|c| &c.kind),
                Some(Kind::Forward(forward)) if forward.turned_away);
            self.step_forward(now, id, step, out);
            if turned_away {
                self.on_turned_away(from, out);
            }
        }
    }

    pub(crate) fn step_forward(
        &mut self,
        now: Time,
        id: RequestId,
        step: Step,
        out: &mut Vec<Output>,
    ) {
        match step {
            Step::Answer(answer) => self.finish(id, answer, out),
            Step::Nothing => {}
            Step::Again => {
                out.push(Output::Event(Event::ForwardedAgain));
                self.pass_on(now, id, out);
            }
            Step::Wait => {
                if !self.awaits_return(now, id)
                    && let Some(Conversation {
                        kind: Kind::Forward(forward),
                        ..
                    }) = self.conversations.get(&id)
                {
                    let unmet = forward.unmet(false);
                    self.finish(id, unmet, out);
                }
            }
        }
    }

    /// A node is out of reach: nobody waits for it any longer.
    pub(crate) fn on_down(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        self.lose_peer(now, node, out);
        let ids: Vec<RequestId> = self.conversations.keys().copied().collect();
        for id in ids {
            if let Some(Kind::Forward(forward)) =
                self.conversations.get_mut(&id).map(|c| &mut c.kind)
                && forward.is_at(node)
            {
                let step = forward.lost(node);
                self.step_forward(now, id, step, out);
            }
        }
    }

    /// A node is none that replicates for now: it is out of reach, or in no layout any more. What was passed on to it is left there.
    pub(crate) fn lose_peer(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        match self.peers.get_mut(&node) {
            Some(peer) if peer.up => {
                peer.up = false;
                peer.standing.reconnected();
            }
            _ => return,
        }
        self.forget_jobs_of(node);
        self.handoff.forget(node);
        self.upkeep_down(now, node, out);
        self.repairs.forget(node);
        let ids: Vec<RequestId> = self.conversations.keys().copied().collect();
        for id in ids {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            if let Some(log) = &mut conversation.log {
                log.lost(now, node);
            }
            match &mut conversation.kind {
                Kind::Write(write) => {
                    let took_part = !write.has_taken(node);
                    self.lose_writer(id, node);
                    if took_part {
                        self.stand_in(now, id, node, out);
                    }
                    self.step_write(id, out);
                }
                Kind::Read(read) => {
                    if read.awaits(node) {
                        read.gone(node);
                        self.step_read(now, id, out);
                    }
                }
                Kind::Change(change) => {
                    change.lost(node);
                    self.step_change(id, out);
                }
                Kind::Scan(scan) => {
                    if scan.node == node {
                        self.on_scanned(now, id, None, out);
                    }
                }
                // Of a repair, whoever asked for upkeep is told.
                Kind::List(_) | Kind::Repair(_) => {}
                Kind::Choose(_) => self.choose_without(now, id, node, out),
                Kind::Status(status) => {
                    status.lost(node);
                    self.step_status(id, out);
                }
                Kind::Forward(_) => {}
            }
        }
    }
}
