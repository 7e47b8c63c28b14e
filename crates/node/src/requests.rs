//! What clients of this node ask: accepted, refused, forwarded, or run as one of the replicas.

use bytes::Bytes;
use quorate_causal::DotSet;
use quorate_protocol::{
    Account, Answer, Delete, Description, Get, Header, Message, Options, Put, Refusal, Request,
    RequestId, encode_value,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::accept::{self, Terms};
use crate::api::{Event, Output};
use crate::condition::ReadFirst;
use crate::explain::{self, Log};
use crate::forward::{ForwardConversation, Step};
use crate::node::{
    Accepted, Conversation, Kind, Local, Node, ReplyTo, Timer, answer, remaining_ms,
};
use crate::ranking::Errand;
use crate::read::{Purpose, ReadConversation, ReadTerms};
use crate::replica::Write;
use crate::sloppy::explain_stand_in;
use crate::tally::{Requirement, Seat, Verdict};
use crate::target::Target;
use crate::telling::Kept;
use crate::time::Time;
use crate::write::{WriteConversation, WriteTerms};

impl<S: Storage> Node<S> {
    pub(crate) fn begin(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        header: Header,
        request: Request,
        out: &mut Vec<Output>,
    ) {
        if let Err(refusal) = self.accept(now, reply_to, header, request, out) {
            match refusal {
                Refusal::Unavailable { .. } => out.push(Output::Event(Event::Unavailable)),
                Refusal::DiskFull { .. } => out.push(Output::Event(Event::DiskFull)),
                _ => {}
            }
            answer(reply_to, Answer::Refused(refusal), out);
        }
    }

    pub(crate) fn accept(
        &mut self,
        now: Time,
        reply_to: ReplyTo,
        header: Header,
        request: Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if let Request::Describe = request {
            let node = self.layouts.node(self.config.me).map(|n| n.name.clone());
            let description = Description {
                node: node.unwrap_or_default(),
                layout: self.described.clone(),
            };
            answer(reply_to, Answer::Described(description), out);
            return Ok(());
        }
        if let Request::Status = request {
            return self.begin_status(now, reply_to, &header, out);
        }
        if let Request::Layouts = request {
            let told = self.known_layouts()?;
            answer(reply_to, Answer::Layouts(Box::new(told)), out);
            return Ok(());
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        if let Request::Pace(bytes_per_second) = request {
            let pace = self.set_pace(bytes_per_second, out);
            answer(reply_to, Answer::Pace(pace), out);
            return Ok(());
        }
        // A client that knows no layout says 0 and is served; a node always knows the one it chose us by.
        // What another node has sent on, this one can coordinate or not, whatever that node knows.
        let is_known = header.layout_version == 0 || self.layouts.is_live(header.layout_version);
        if !is_known && !header.forwarded {
            return Err(Refusal::WrongLayout {
                version: self.layouts.version(),
            });
        }
        if let Some((bucket, key)) = request.target() {
            accept::names(bucket, key)?;
        }
        if let Request::Put(put) = &request {
            accept::value(&put.value, &self.config.limits)?;
        }
        let accepted = Accepted {
            reply_to,
            now,
            deadline: now.after(accept::timeout(&header, &self.config.limits)?),
            log: None,
            trace: header.trace,
        };
        let limits = &self.config.limits;
        if self.conversations.len() >= limits.requests_max
            || self.bytes_in_flight >= limits.requests_bytes_max
        {
            return Err(Refusal::Overloaded);
        }
        let Some((bucket, key)) = request.target() else {
            return self.serve(accepted, request, out);
        };
        let target = self.target(bucket, key);
        let policy = target.policy.clone();
        let seats = policy.placement.primaries(target.vnode.partition);
        if seats.iter().any(|s| s.node == self.config.me) {
            self.coordinate(accepted, target, request, out)
        } else if !header.forwarded
            && Self::is_sloppy(&request, &policy)
            && !seats.iter().any(|seat| self.is_up(seat.node))
        {
            // Everybody is a primary or a fallback, and no primary can do it.
            out.push(Output::Event(Event::FallbackCoordinated));
            self.coordinate(accepted, target, request, out)
        } else if header.forwarded {
            // Whoever sent it took us for a replica: it knows other layouts. Passing it on could go round for ever.
            Err(Refusal::WrongLayout {
                version: self.layouts.version(),
            })
        } else {
            self.forward(accepted, header, request, seats, out)
        }
    }

    /// Serves a request that is about no key.
    fn serve(
        &mut self,
        accepted: Accepted,
        request: Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        match request {
            Request::Bucket(request) => self.administer(accepted, request, out),
            Request::Buckets => {
                let buckets = Answer::Buckets(self.buckets.created());
                answer(accepted.reply_to, buckets, out);
                Ok(())
            }
            Request::List(list) => self.begin_list(accepted, list, None, out),
            Request::Repair(repair) => self.begin_repair(accepted, repair, out),
            Request::Apply(apply) => self.begin_apply(accepted, &apply, out),
            Request::Status => Err(Refusal::Malformed("not yet".to_owned())),
            Request::Put(_)
            | Request::Get(_)
            | Request::Delete(_)
            | Request::Describe
            | Request::Layouts
            | Request::Pace(_) => {
                unreachable!("it is about a key, or was answered before")
            }
        }
    }

    pub(crate) fn forward(
        &mut self,
        mut accepted: Accepted,
        header: Header,
        request: Request,
        seats: &[Seat],
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if let Some((bucket, key)) = request.target().filter(|_| request.explains()) {
            // For what its coordinator does not live to tell; else the coordinator's own account is the answer's.
            let target = self.target(bucket, key);
            accepted.log = Some(Box::new(self.log(accepted.now, &target, &request)));
        }
        let errand = match request.is_write() {
            true => Errand::PassedWrite,
            false => Errand::PassedRead,
        };
        let candidates = self.ranked(seats, errand);
        if candidates.is_empty() {
            return Err(Refusal::Unavailable {
                needed: 1,
                answered: 0,
            });
        }
        out.push(Output::Event(Event::Forwarded));
        let header = Header {
            layout_version: self.layouts.version(),
            forwarded: true,
            ..header
        };
        let conversation = ForwardConversation::new(header, request, candidates);
        let now = accepted.now;
        let id = self.converse(accepted, Kind::Forward(conversation));
        if errand == Errand::PassedRead {
            self.hedging.pay_in(&self.config.limits);
        }
        self.pass_on(now, id, out);
        Ok(())
    }

    /// Sends a forwarded request to its next candidate.
    pub(crate) fn pass_on(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Kind::Forward(forward) = &mut conversation.kind else {
            return;
        };
        while let Some(node) = forward.next() {
            let peer = self.peers.get_mut(&node);
            if let Some(peer) = peer.filter(|peer| peer.up) {
                forward.sent_at = now;
                peer.standing.asked(now, id, forward.errand());
                let header = Header {
                    deadline_ms: remaining_ms(now, conversation.deadline),
                    ..forward.header.clone()
                };
                let message = Message::Request(id, header, forward.request.clone());
                out.push(Output::Send(node, message));
                if let Some(log) = &mut conversation.log {
                    log.passed_on(now, node);
                }
                self.set_forward_timer(now, id);
                return;
            }
            forward.skipped(node);
        }
        if forward.may_yet() {
            return self.step_forward(now, id, Step::Wait, out);
        }
        let refused = Answer::Refused(Refusal::Unavailable {
            needed: 1,
            answered: 0,
        });
        self.finish(id, refused, out);
    }

    /// Runs a request as one of the replicas of its key, with an account if it asks for one.
    pub(crate) fn coordinate(
        &mut self,
        mut accepted: Accepted,
        target: Target,
        request: Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if !request.explains() {
            return self.carry_out(accepted, target, request, out);
        }
        let log = Box::new(self.log(accepted.now, &target, &request));
        accepted.log = Some(log.clone());
        let reply_to = accepted.reply_to;
        if let Err(refusal) = self.carry_out(accepted, target, request, out) {
            if matches!(refusal, Refusal::Unavailable { .. }) {
                out.push(Output::Event(Event::Unavailable));
            }
            self.give(reply_to, Some(log), Answer::Refused(refusal), out);
        }
        Ok(())
    }

    /// The account of a request before anything is done about it.
    fn log(&self, began: Time, target: &Target, request: &Request) -> Log {
        let partition = target.vnode.partition;
        let seats = target.policy.placement.primaries(partition);
        let name = |node: NodeId| self.layouts.node(node).map_or("", |n| n.name.as_str());
        let region = |node: NodeId| self.layouts.node(node).map_or("", |n| n.region.as_str());
        let options = match request {
            Request::Put(put) => put.options,
            Request::Get(get) => get.options,
            Request::Delete(delete) => delete.options,
            _ => Options::default(),
        };
        let terms = Terms {
            placement: &target.policy.placement,
            partition,
            defaults: &target.policy.defaults,
            options: &options,
        };
        let nodes: Vec<NodeId> = seats.iter().map(|s| s.node).collect();
        let replicas = nodes.iter();
        let account = Account {
            coordinator: name(self.config.me).to_owned(),
            layout_version: self.layouts.version(),
            partition: target.vnode.partition.0,
            generation: request
                .target()
                .map_or(0, |(bucket, _)| self.buckets.entry(bucket).generation),
            needed: terms.words(
                !request.is_write() || request.reads_first(),
                request.is_write(),
            ),
            replicas: replicas
                .map(|&node| explain::replica(name(node), region(node)))
                .collect(),
            ..Account::default()
        };
        Log::new(began, account, &nodes)
    }

    fn carry_out(
        &mut self,
        accepted: Accepted,
        target: Target,
        request: Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let policy = target.policy.clone();
        let reads_first = request.reads_first();
        let partition = target.vnode.partition;
        let terms = |options| Terms {
            placement: &policy.placement,
            partition,
            defaults: &policy.defaults,
            options,
        };
        match request {
            Request::Get(Get { options, .. }) => {
                let needed = terms(&options).read()?;
                self.read(accepted, target, needed, Purpose::Answer, out)
                    .map(drop)
            }
            Request::Put(Put {
                value,
                context,
                condition,
                options,
                lifetime,
                ..
            }) if reads_first => {
                let first = ReadFirst {
                    terms: terms(&options).write()?,
                    condition,
                    seen: accept::context(&self.config, &target, context.as_deref())?.removed(),
                    payload: Some(encode_value(&value)),
                    expires: self.deadline(&target, lifetime)?,
                };
                let needed = terms(&options).read()?;
                self.read_first(accepted, target, needed, first, out)
            }
            Request::Put(Put {
                value,
                context,
                options,
                lifetime,
                ..
            }) => {
                let terms = terms(&options).write()?;
                let context = accept::context(&self.config, &target, context.as_deref())?;
                let payload = Some(encode_value(&value));
                let expires = self.deadline(&target, lifetime)?;
                let removed = context.removed();
                self.write(accepted, target, terms, removed, payload, expires)
            }
            Request::Delete(Delete {
                context,
                condition,
                options,
                ..
            }) => {
                let write = terms(&options).write()?;
                let seen = accept::context(&self.config, &target, context.as_deref())?.removed();
                if !reads_first {
                    return self.write(accepted, target, write, seen, None, None);
                }
                let first = ReadFirst {
                    terms: write,
                    condition,
                    seen,
                    payload: None,
                    expires: None,
                };
                let needed = terms(&options).read()?;
                self.read_first(accepted, target, needed, first, out)
            }
            Request::Describe
            | Request::List(_)
            | Request::Bucket(_)
            | Request::Buckets
            | Request::Status
            | Request::Repair(_)
            | Request::Layouts
            | Request::Pace(_)
            | Request::Apply(_) => {
                unreachable!("it has no target, so it was answered before")
            }
        }
    }

    /// Reads what a write waits for.
    fn read_first(
        &mut self,
        accepted: Accepted,
        target: Target,
        needed: ReadTerms,
        first: ReadFirst,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        // What could not be written need not be read.
        self.writable(&target, &first.terms)?;
        let purpose = Purpose::Write(Box::new(first));
        self.read(accepted, target, needed, purpose, out).map(drop)
    }

    /// Refuses what cannot be met by the nodes in reach, before anything is sent.
    pub(crate) fn in_reach(&self, needed: &Requirement) -> Result<(), Refusal> {
        if let Some(reason) = self.replica.poisoned() {
            return Err(Refusal::Poisoned(reason.to_owned()));
        }
        if needed.verdict(|n| self.is_up(n), |_| false) == Verdict::Met {
            return Ok(());
        }
        Err(Refusal::Unavailable {
            needed: needed.needed(),
            answered: needed.among(|n| self.is_up(n)),
        })
    }

    /// Refuses a write that cannot be met by the nodes in reach.
    fn writable(&self, target: &Target, terms: &WriteTerms) -> Result<(), Refusal> {
        self.in_reach(&terms.primary)?;
        for needed in [&terms.taken, &terms.synced] {
            match terms.sloppy {
                true => self.in_reach_sloppy(target, needed)?,
                false => self.in_reach(needed)?,
            }
        }
        Ok(())
    }

    pub(crate) fn converse(&mut self, accepted: Accepted, kind: Kind) -> RequestId {
        let id = self.fresh_id();
        self.timers.insert((accepted.deadline, id, Timer::Deadline));
        let conversation = Conversation {
            reply_to: accepted.reply_to,
            began: accepted.now,
            deadline: accepted.deadline,
            kept: Kept::new(accepted.trace),
            kind,
            log: accepted.log,
        };
        self.bytes_in_flight += conversation.kind.bytes();
        self.conversations.insert(id, conversation);
        id
    }

    pub(crate) fn write(
        &mut self,
        mut accepted: Accepted,
        target: Target,
        terms: WriteTerms,
        removed: DotSet,
        payload: Option<Bytes>,
        expires: Option<u64>,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.buckets.objection(target.id, target.vnode.set) {
            return Err(refusal);
        }
        self.writable(&target, &terms)?;
        if payload.is_some() {
            self.replica.has_room()?;
        }
        let owners = self.owners_out(&target);
        let write = Write {
            owners: owners
                .as_ref()
                .map(|owners| owners.iter().map(|seat| seat.node).collect()),
            vnode: target.vnode,
            bucket: target.id,
            key: target.key_bytes(),
            removed,
            durable: terms.durable,
            siblings_max: target.policy.siblings_max,
            siblings_bytes_max: self.config.limits.siblings_bytes_max,
            payload,
            expires,
        };
        let placement = target.policy.placement.clone();
        let mut conversation =
            WriteConversation::new(target, terms, write.payload.clone(), expires);
        if let Some(owners) = owners {
            // It keeps the write for all of them, and that counts for one.
            let me = Seat {
                node: self.config.me,
                region: placement.region(),
            };
            let place = owners.iter().min_by_key(|seat| seat.region != me.region);
            conversation.keeps = place.is_some();
            if let Some(place) = place {
                conversation.stand_ins.add(me, *place);
                if let Some(log) = &mut accepted.log {
                    explain_stand_in(&self.layouts, log, me.node, place.node);
                }
                self.hint_writes += 1;
            }
        }
        let id = self.converse(accepted, Kind::Write(conversation));
        self.local.push_back(Local::Write(id, write));
        Ok(())
    }

    pub(crate) fn read(
        &mut self,
        accepted: Accepted,
        target: Target,
        needed: ReadTerms,
        purpose: Purpose,
        out: &mut Vec<Output>,
    ) -> Result<RequestId, Refusal> {
        let placement = target.policy.placement.clone();
        let partition = target.vnode.partition;
        let seats = placement.readers(partition);
        let up = |n: NodeId| self.is_up(n) || n == self.config.me;
        let met = |needed: &Requirement| needed.verdict(up, |_| false) == Verdict::Met;
        if !met(&needed.pr) {
            self.in_reach(&needed.pr)?;
        }
        match needed.sloppy {
            _ if met(&needed.r) => {}
            true => self.in_reach_sloppy(&target, &needed.r)?,
            false => self.in_reach(&needed.r)?,
        }
        // This node's own record costs no message.
        let mut candidates = vec![self.config.me];
        candidates.extend(self.ranked(seats, Errand::Read));
        let sloppy = needed.sloppy;
        let mut conversation = ReadConversation::new(target, needed, candidates, purpose);
        if sloppy {
            let mut fallbacks = placement.fallbacks(partition).to_vec();
            fallbacks.retain(|seat| self.is_up(seat.node));
            // What this node keeps itself costs no message.
            fallbacks.sort_by_key(|seat| seat.node != self.config.me);
            conversation = conversation.with_fallbacks(seats, fallbacks);
        }
        let now = accepted.now;
        let id = self.converse(accepted, Kind::Read(conversation));
        self.step_read(now, id, out);
        self.watch_read(now, id, out);
        Ok(id)
    }
}
