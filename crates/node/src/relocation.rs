//! What this node does when it learns of layouts: puts that on disk, acts by it from then on, tells others, and goes on with requests under way
//! by what is so now.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_protocol::{
    Header, KnownLayouts, LayoutReply, LayoutRequest, List, LiveLayouts, Merge, Message,
    PastLayout, Refusal, ReplicaReply, ReplicaRequest, RequestId,
};
use quorate_ring::{Layout, NodeId};
use quorate_storage::{Batch, Family, Storage};

use crate::accept::Terms;
use crate::api::{Event, Output};
use crate::keys;
use crate::layouts::Layouts;
use crate::node::{Accepted, Conversation, Kind, Local, Node, Peer, Waiter, remaining_ms};
use crate::ranking::{Distance, Errand};
use crate::read::{Purpose, ReadTerms};
use crate::target::Target;
use crate::time::Time;

/// How often one request is sent to one node that has other layouts.
pub(crate) const ATTEMPTS_MAX: u32 = 8;
/// How many layouts a node remembers.
const HISTORY_MAX: u64 = 100;
/// After so long a word about layouts that was not answered is taken for lost.
const TELL_AGAIN: Duration = Duration::from_millis(300);

impl<S: Storage> Node<S> {
    // ---- Telling and being told ----

    /// Tells a node what is known here; it tells what it knows.
    pub(crate) fn tell_layouts(&mut self, node: NodeId, out: &mut Vec<Output>) {
        self.filling.telling.insert(node, self.now);
        let known = self.layouts.known().clone();
        self.send_layouts(node, &known, out);
    }

    /// Tells a node of layouts.
    pub(crate) fn send_layouts(
        &mut self,
        node: NodeId,
        known: &LiveLayouts,
        out: &mut Vec<Output>,
    ) {
        let id = self.fresh_id();
        let told = LayoutRequest::Tell(Box::new(known.clone()));
        let request = ReplicaRequest::Layout(Box::new(told));
        let message = Message::Replica(id, self.upkeep_header(), request);
        out.push(Output::Send(node, message));
    }

    /// A node asks something about layouts.
    pub(crate) fn on_layout_asked(
        &mut self,
        waiter: Waiter,
        request: LayoutRequest,
        out: &mut Vec<Output>,
    ) {
        match request {
            LayoutRequest::Tell(told) => {
                if let Waiter::Peer(from, _) = waiter {
                    self.on_layouts(from, &told, out);
                }
                // What is told now takes effect here before the answer goes: who asks may send again what it was refused.
                let known = match &self.filling.coming {
                    Some((_, coming)) => coming.known().clone(),
                    None => self.layouts.known().clone(),
                };
                self.reply_synced(waiter, LayoutReply::Told(Box::new(known)), out);
            }
            LayoutRequest::Prepare(version, ballot) => {
                let reply = self.promise(version, ballot);
                self.reply_synced(waiter, reply, out);
            }
            LayoutRequest::Accept(ballot, proposed) => {
                let reply = self.accept_layout(ballot, *proposed);
                self.reply_synced(waiter, reply, out);
            }
        }
    }

    /// Tells a reply once all that it may follow from is on disk.
    fn reply_synced(&mut self, waiter: Waiter, reply: LayoutReply, out: &mut Vec<Output>) {
        let reply = ReplicaReply::Layout(Box::new(reply));
        if let Some((waiter, reply)) = self.replica.once_synced(reply, waiter) {
            crate::node::tell(waiter, reply, &mut self.local, out);
        }
    }

    /// A node has told what it knows.
    pub(crate) fn on_layouts(&mut self, from: NodeId, told: &LiveLayouts, out: &mut Vec<Output>) {
        self.take_layouts(told, out);
        let theirs = told
            .next
            .as_ref()
            .map_or(&told.current, |c| &c.chosen.layout);
        if theirs.version() >= self.layouts.version() {
            self.is_sealed(from, out);
        }
    }

    /// Joins what is told; it takes effect once it is on disk.
    pub(crate) fn take_layouts(&mut self, told: &LiveLayouts, out: &mut Vec<Output>) {
        let coming = self.filling.coming.as_ref();
        let known = coming.map_or(&self.layouts, |(_, coming)| coming);
        if told == known.known() {
            return;
        }
        let joined = match known.joined(told) {
            Ok(joined) if joined == *known => return,
            Ok(joined) => joined,
            Err(_) => return out.push(Output::Event(Event::LayoutsUnsound)),
        };
        if self.is_clearing_for(&joined) {
            self.filling.postponed = Some(told.clone());
            return;
        }
        let mut batch = Batch::new();
        batch.put(Family::Meta, keys::LAYOUTS, joined.known().encode());
        if let Ok(ticket) = self.replica.commit_synced(batch) {
            self.filling.coming = Some((ticket, joined));
        }
    }

    /// What was learnt takes effect, if it is on disk.
    pub(crate) fn settle_layouts(&mut self, now: Time, out: &mut Vec<Output>) {
        let synced = self.replica.progress.synced;
        if let Some((_, layouts)) = self.filling.coming.take_if(|(at, _)| *at <= synced) {
            self.relocate(now, layouts, out);
        }
    }

    // ---- What follows ----

    fn relocate(&mut self, now: Time, layouts: Layouts, out: &mut Vec<Output>) {
        let before = std::mem::replace(&mut self.layouts, layouts);
        let (was, is) = (&before, &self.layouts);
        let has_begun = is.version() > was.version();
        let has_ended = is.current().version() > was.current().version();
        let reads_move = is.reading().version() > was.reading().version();
        let is_paced = is.pace() != was.pace();
        // One that goes from a layout to the next but one has not been there when data moved in between.
        let has_missed = is.current().version() > was.version();
        let has_news = std::mem::take(&mut self.filling.has_news);
        if reads_move {
            out.push(Output::Event(Event::LayoutComplete));
        }
        if has_ended {
            out.push(Output::Event(Event::LayoutRetired));
        }
        if !has_begun && !has_ended && !reads_move {
            // Only what is this node's own: what others have to say they tell, and who missed it says so in its hello.
            if has_news {
                self.tell_all_layouts(out);
            }
            if is_paced {
                self.upkeep.exchanging.next = now;
            }
            return;
        }
        if has_begun {
            out.push(Output::Event(Event::LayoutBegun));
            let mut batch = Batch::new();
            batch.delete(Family::Meta, keys::PROMISE);
            self.remember(&before, &mut batch);
            let _ = self.replica.commit(batch);
            self.promised = None;
        }
        self.described = crate::layouts::describe(&self.layouts);
        self.buckets.relocate(&self.layouts);
        self.meet_peers();
        if has_missed {
            self.replica.lost_some();
            self.replica.lost();
        }
        self.collect_anew();
        self.exchange_anew(now, out);
        if has_begun || has_ended {
            self.begin_filling();
            self.exchange_soon(|_, _| true);
        }
        let (buckets, me) = (&self.buckets, self.config.me);
        self.jobs.keep_those_of(|vnode| {
            let placement = buckets.placement(vnode.set);
            placement.is_some_and(|p| p.is_seat(vnode, me))
        });
        self.clear_leftovers();
        self.hand_over_anew();
        self.tell_all_layouts(out);
        self.go_on_elsewhere(now, reads_move, out);
        self.part_from_peers(now, out);
        self.tell_chosen(out);
        self.on_local(now, out);
    }

    /// Puts on record that there is a newer layout, and since when; and which one was the first, where nothing says so yet.
    fn remember(&self, before: &Layouts, batch: &mut Batch) {
        let since_s = self.vitals.clock_ms / 1_000;
        let mut put = |layout: &Layout, since_s: u64, dead: BTreeSet<NodeId>| {
            let past = PastLayout {
                version: layout.version(),
                since_s,
                nodes: layout.nodes().to_vec(),
                dead,
            };
            batch.put(Family::Meta, keys::history(past.version), past.encode());
        };
        let first = before.newest();
        let row = self
            .replica
            .storage()
            .get(Family::Meta, &keys::history(first.version()));
        if matches!(row, Ok(None)) {
            put(first, 0, BTreeSet::new());
        }
        let dead = self.layouts.change().map(|c| c.chosen.dead.clone());
        let newest = self.layouts.newest();
        put(newest, since_s, dead.unwrap_or_default());
        if let Some(old) = newest.version().checked_sub(HISTORY_MAX) {
            batch.delete(Family::Meta, keys::history(old));
        }
    }

    /// What this node knows of layouts, for operators.
    pub(crate) fn known_layouts(&self) -> Result<KnownLayouts, Refusal> {
        let mut history = Vec::new();
        let storage = self.replica.storage();
        crate::buckets::rows(storage, keys::HISTORY, |_, row| {
            history.extend(PastLayout::decode(row));
        })
        .map_err(|e| crate::replica::unreadable(&e))?;
        if history.is_empty() {
            let first = self.layouts.newest();
            history.push(PastLayout {
                version: first.version(),
                since_s: 0,
                nodes: first.nodes().to_vec(),
                dead: BTreeSet::new(),
            });
        }
        Ok(KnownLayouts {
            node: self.name_of(self.config.me),
            live: self.layouts.known().clone(),
            history,
        })
    }

    pub(crate) fn tell_all_layouts(&mut self, out: &mut Vec<Output>) {
        for node in self.reachable.clone() {
            self.tell_layouts(node, out);
        }
    }

    /// The other nodes are those of the layouts that are live now.
    fn meet_peers(&mut self) {
        let me = self.config.me;
        for node in self.layouts.nodes().into_iter().filter(|n| *n != me) {
            let distance = Distance::between(&self.layouts, me, node);
            let up = self.reachable.contains(&node);
            self.peers.entry(node).or_insert_with(|| Peer {
                up,
                ..Peer::new(distance)
            });
        }
        if self.config.upkeep {
            self.replica.ask_others(witnesses(&self.layouts, me));
        }
    }

    /// Those that are in no layout any more are no replicas of anything. What they are asked to coordinate goes on.
    fn part_from_peers(&mut self, now: Time, out: &mut Vec<Output>) {
        let all: BTreeSet<NodeId> = self.layouts.nodes().into_iter().collect();
        let gone: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in gone.into_iter().filter(|n| !all.contains(n)) {
            self.lose_peer(now, node, out);
            self.peers.remove(&node);
        }
    }

    /// Requests under way go on by the layouts of now.
    fn go_on_elsewhere(&mut self, now: Time, reads_move: bool, out: &mut Vec<Output>) {
        let ids: Vec<RequestId> = self.conversations.keys().copied().collect();
        for id in ids {
            match self.conversations.get(&id).map(|c| &c.kind) {
                Some(Kind::Write(_)) => self.write_elsewhere(now, id, out),
                Some(Kind::Read(_)) => self.read_elsewhere(now, id, reads_move, out),
                Some(Kind::Forward(_)) => self.pass_on_anew(now, id, out),
                Some(Kind::Change(_)) => self.change_elsewhere(now, id, out),
                Some(Kind::List(list)) if reads_move && !list.is_deciding() => {
                    self.list_elsewhere(now, id, out);
                }
                _ => {}
            }
        }
    }

    /// The target of a request as it is placed now; `None` if its bucket has other replicas by now.
    fn replaced(&self, target: &Target) -> Option<Target> {
        let policy = self.buckets.resolve(&target.bucket).1;
        (policy.placement.set() == target.vnode.set).then(|| Target {
            policy,
            ..target.clone()
        })
    }

    /// A write is to be taken by the replicas of now: those that were not asked are, and the quorums are theirs.
    fn write_elsewhere(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Kind::Write(write)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let Some(target) = self.replaced(&write.target) else {
            return;
        };
        let terms = Terms {
            placement: &target.policy.placement,
            partition: target.vnode.partition,
            defaults: &target.policy.defaults,
            options: &write.terms.options,
        };
        // What can never be met under these layouts has been sent, and is unknown.
        let Ok(terms) = terms.write() else {
            let unmet = write.unmet(false);
            return self.finish(id, unmet, out);
        };
        let seats = target.policy.placement.primaries(target.vnode.partition);
        let seats: Vec<NodeId> = seats.iter().map(|seat| seat.node).collect();
        let Some(Kind::Write(write)) = self.conversations.get_mut(&id).map(|c| &mut c.kind) else {
            return;
        };
        write.lose_the_dead(&target);
        write.target = target;
        write.terms = terms;
        if write.written.is_none() {
            return; // It goes to all of them in a moment.
        }
        let before = write.hints_outstanding();
        write.promote(&seats);
        self.hint_writes -= before - write.hints_outstanding();
        let asked: Vec<NodeId> = seats.into_iter().filter(|n| !write.was_asked(*n)).collect();
        for node in asked {
            self.offer(now, id, node, out);
        }
        self.step_write(id, out);
    }

    /// Sends a write that was made to one more replica, or once more.
    fn offer(&mut self, now: Time, id: RequestId, node: NodeId, out: &mut Vec<Output>) {
        let (me, version) = (self.config.me, self.layouts.version());
        let is_up = self.is_up(node);
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let (deadline, trace) = (conversation.deadline, conversation.kept.trace);
        let Kind::Write(write) = &mut conversation.kind else {
            return;
        };
        let Some(record) = write.delta() else {
            return;
        };
        let is_too_often = write.is_offered_too_often(node, ATTEMPTS_MAX);
        write.asks(node);
        if !is_up || is_too_often {
            self.lose_writer(id, node);
            return self.stand_in(now, id, node, out);
        }
        let request = ReplicaRequest::Merge(Merge {
            vnode: write.target.vnode,
            bucket: write.target.id,
            key: write.target.key_bytes(),
            record,
            durable: write.terms.durable,
            hint_for: None,
        });
        if node == me {
            return self.local.push_back(Local::Ask(id, request));
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.standing.asked(now, id, Errand::Write);
        }
        let header = Header {
            layout_version: version,
            deadline_ms: remaining_ms(now, deadline),
            trace,
            ..Header::default()
        };
        out.push(Output::Send(node, Message::Replica(id, header, request)));
    }

    /// A read begins anew with the replicas of now, if these are others. What it had heard was of those before.
    fn read_elsewhere(
        &mut self,
        now: Time,
        id: RequestId,
        reads_move: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(Kind::Read(read)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        let Some(target) = self.replaced(&read.target) else {
            return;
        };
        if !reads_move {
            // The same replicas; but what it writes then is of now.
            let written = match &read.purpose {
                Purpose::Write(first) => {
                    let terms = Terms {
                        placement: &target.policy.placement,
                        partition: target.vnode.partition,
                        defaults: &target.policy.defaults,
                        options: &first.terms.options,
                    };
                    terms.write().ok()
                }
                _ => None,
            };
            let Some((_, read)) = self.reading(id) else {
                return;
            };
            read.target = target;
            if let (Purpose::Write(first), Some(terms)) = (&mut read.purpose, written) {
                first.terms = terms;
            }
            return;
        }
        let needed = read.needed.clone();
        let Some(Conversation {
            kind: Kind::Read(read),
            reply_to,
            deadline,
            log,
            kept,
            ..
        }) = self.end(id)
        else {
            return;
        };
        let list = match read.purpose {
            Purpose::Listing(list) => Some((list, read.target.key.clone())),
            _ => None,
        };
        let terms = Terms {
            placement: &target.policy.placement,
            partition: target.vnode.partition,
            defaults: &target.policy.defaults,
            options: &needed.options,
        };
        let mut purpose = read.purpose;
        let written = match &mut purpose {
            Purpose::Write(first) => {
                let of_first = Terms {
                    options: &first.terms.options.clone(),
                    ..terms
                };
                of_first.write().map(|terms| first.terms = terms)
            }
            _ => Ok(()),
        };
        let read_terms = match needed.primaries_only {
            true => terms
                .strict_read()
                .map(|strict| ReadTerms::strict(strict, needed.options)),
            false => terms.read(),
        };
        let accepted = Accepted {
            reply_to,
            now,
            deadline,
            log: log.clone(),
            trace: kept.trace,
        };
        out.push(Output::Event(Event::ReadMoved));
        let begun = written
            .and(read_terms)
            .and_then(|needed| self.read(accepted, target.clone(), needed, purpose, out));
        match (begun, list) {
            (Ok(read), Some((list, key))) => {
                if let Some((_, list)) = self.listing(list) {
                    list.moved(id, read, key);
                }
            }
            (Ok(_), None) => {}
            (Err(refusal), Some((list, _))) => {
                let refused = quorate_protocol::Answer::Refused(refusal);
                self.finish(list, refused, out);
            }
            (Err(refusal), None) => {
                let refused = quorate_protocol::Answer::Refused(refusal);
                self.give(reply_to, log, refused, out);
            }
        }
    }

    /// A page begins anew.
    fn list_elsewhere(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Conversation {
            kind: Kind::List(list),
            reply_to,
            deadline,
            log,
            kept,
            ..
        }) = self.end(id)
        else {
            return;
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let asked = List {
            bucket: list.asked.bucket.clone(),
            prefix: text(&list.asked.prefix),
            after: (!list.asked.after.is_empty()).then(|| text(&list.asked.after)),
            limit: list.asked.limit,
            options: list.asked.options,
        };
        let accepted = Accepted {
            reply_to,
            now,
            deadline,
            log: log.clone(),
            trace: kept.trace,
        };
        let change = list.change.clone();
        if let Err(refusal) = self.begin_list(accepted, asked, change.clone(), out) {
            let refused = quorate_protocol::Answer::Refused(refusal);
            match change {
                Some(change) => {
                    let accepted = Accepted {
                        reply_to,
                        now,
                        deadline,
                        log,
                        trace: kept.trace,
                    };
                    let looked = Local::Looked(Box::new(accepted), change, refused);
                    self.local.push_back(looked);
                }
                None => self.give(reply_to, log, refused, out),
            }
        }
    }

    // ---- Whoever was turned away ----

    /// A node refused something since it knows other layouts, or no such seat: both tell each other what they know. Then it is asked
    /// again, see [`Node::on_told`].
    pub(crate) fn on_turned_away(&mut self, from: NodeId, out: &mut Vec<Output>) {
        if from == self.config.me {
            return; // It goes by what it knows already.
        }
        out.push(Output::Event(Event::TurnedAway));
        // One word for all that are turned away by it in one moment.
        let since = self.filling.telling.get(&from);
        if since.is_none_or(|at| self.now.since(*at) >= TELL_AGAIN) {
            self.tell_layouts(from, out);
        }
    }

    /// A node that was told what is known here has told what it knows, and has that on disk: it is asked again for what it refused.
    pub(crate) fn on_told(
        &mut self,
        now: Time,
        from: NodeId,
        told: &LiveLayouts,
        out: &mut Vec<Output>,
    ) {
        self.filling.telling.remove(&from);
        self.on_layouts(from, told, out);
        let coming = self.filling.coming.is_some();
        let ids: Vec<RequestId> = self.conversations.keys().copied().collect();
        for id in ids {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            match &mut conversation.kind {
                // With what is coming, all go on by that.
                _ if coming => {}
                Kind::Write(write) if write.was_turned_away(from) => {
                    self.offer(now, id, from, out);
                    self.step_write(id, out);
                }
                Kind::Forward(forward) if forward.turned_away && forward.at().is_none() => {
                    self.pass_on_anew(now, id, out);
                }
                Kind::Change(change) if change.was_turned_away(from) => {
                    self.propose_to(now, id, from, out);
                }
                _ => {}
            }
        }
    }

    /// A request that nobody would coordinate is passed on once more, to whoever could by the layouts of now.
    fn pass_on_anew(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(Kind::Forward(forward)) = self.conversations.get(&id).map(|c| &c.kind) else {
            return;
        };
        if !forward.turned_away || forward.at().is_some() {
            return;
        }
        let errand = forward.errand();
        let Some((bucket, key)) = forward.request.target() else {
            return;
        };
        let target = self.target(bucket, key);
        let seats = target.policy.placement.primaries(target.vnode.partition);
        let candidates = self.ranked(seats, errand);
        let Some(Kind::Forward(forward)) = self.conversations.get_mut(&id).map(|c| &mut c.kind)
        else {
            return;
        };
        match forward.again(candidates, ATTEMPTS_MAX) {
            true => {
                out.push(Output::Event(Event::ForwardedAgain));
                self.pass_on(now, id, out);
            }
            false => {
                let refused = Refusal::WrongLayout {
                    version: self.layouts.version(),
                };
                self.finish(id, quorate_protocol::Answer::Refused(refused), out);
            }
        }
    }

    /// Whoever asks for something that is none of this node's business by the layouts that it knows is told these.
    pub(crate) fn turn_away(&mut self, from: NodeId, id: RequestId, out: &mut Vec<Output>) {
        let version = self.layouts.version();
        let refused = ReplicaReply::Refused(Refusal::WrongLayout { version });
        out.push(Output::Send(from, Message::Reply(id, refused)));
    }

    /// Whether what is asked fits the layouts that are known here; see decision 20.
    pub(crate) fn fits(&self, header: &Header, request: &ReplicaRequest) -> bool {
        let (asked, mine) = (header.layout_version, self.layouts.version());
        match request {
            ReplicaRequest::Status | ReplicaRequest::Layout(_) | ReplicaRequest::Buckets(_) => true,
            ReplicaRequest::Upkeep(upkeep) => match **upkeep {
                quorate_protocol::Upkeep::Hello(_) => true,
                _ => asked == mine,
            },
            ReplicaRequest::Read(_) | ReplicaRequest::Recall(_) | ReplicaRequest::Scan(_) => {
                self.layouts.may_read(asked)
            }
            // Who knows more than this node may ask for more, and this one need not know why.
            ReplicaRequest::Merge(_) | ReplicaRequest::Bucket(_) => asked >= mine,
        }
    }

    /// What this node knows of layouts, as the newest and the one that reads go by. For tests and for the simulator's checks.
    #[must_use]
    pub fn layouts(&self) -> &LiveLayouts {
        self.layouts.known()
    }
}

/// Who is asked what it remembers of this node: those of the layout that has no live predecessor. Others may never have heard of it.
pub(crate) fn witnesses(layouts: &Layouts, me: NodeId) -> BTreeSet<NodeId> {
    let nodes = layouts.current().nodes().iter().map(|n| n.id);
    nodes.filter(|n| *n != me).collect()
}
