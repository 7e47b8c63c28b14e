//! Conversations going on: whom to ask next, when to answer, when to give up.

use bytes::Bytes;
use quorate_causal::{CONTEXT_DOTS_MAX, Context, Record, Sibling};
use quorate_protocol::{
    Answer, Explained, Header, Merge, Message, Read, Recall, Refusal, ReplicaRequest, RequestId,
    Shown, Trace, Unmet, decode_value,
};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::api::{Event, Output};
use crate::expiry::Moment;
use crate::explain::Log;
use crate::node::{
    Accepted, Conversation, Kind, Local, Node, ReplyTo, Timer, answer, remaining_ms,
};
use crate::ranking::Errand;
use crate::read::{Ask, Purpose, ReadConversation};
use crate::sloppy::explain_stand_in;
use crate::tally::Verdict;
use crate::target::Target;
use crate::time::Time;

impl<S: Storage> Node<S> {
    /// Sends what a read wants to ask now, and ends it if it is done.
    pub(crate) fn step_read(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        loop {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                return;
            };
            let Kind::Read(read) = &mut conversation.kind else {
                return;
            };
            read.input = self.inputs;
            let asks = read.next(now);
            if asks.is_empty() {
                break;
            }
            let fallbacks = asks
                .iter()
                .filter_map(|ask| Some((ask.node, ask.in_place_of?)));
            for (fallback, primary) in fallbacks {
                out.push(Output::Event(Event::FallbackRead));
                if let Some(log) = &mut conversation.log {
                    explain_stand_in(&self.layouts, log, fallback, primary);
                }
            }
            if let Some(log) = &mut conversation.log {
                log.asked(now, &asks);
            }
            let (deadline, target) = (conversation.deadline, read.target.clone());
            self.ask(now, id, deadline, &target, asks, out);
        }
        let Some((_, read)) = self.reading(id) else {
            return;
        };
        match read.verdict() {
            Verdict::Pending => {}
            Verdict::Impossible => {
                let unmet = read.unmet(false);
                if !self.read_again(now, id, out) && !self.awaits_return(now, id) {
                    self.finish(id, unmet, out);
                }
            }
            Verdict::Met => self.conclude_read(now, id, out),
        }
    }

    pub(crate) fn reading(&mut self, id: RequestId) -> Option<(Time, &mut ReadConversation)> {
        let conversation = self.conversations.get_mut(&id)?;
        match &mut conversation.kind {
            Kind::Read(read) => Some((conversation.deadline, read)),
            _ => None,
        }
    }

    pub(crate) fn ask(
        &mut self,
        now: Time,
        id: RequestId,
        deadline: Time,
        target: &Target,
        asks: Vec<Ask>,
        out: &mut Vec<Output>,
    ) {
        let conversation = self.conversations.get(&id);
        let trace = conversation.and_then(|c| c.kept.trace);
        let strict = conversation.is_some_and(|c| match &c.kind {
            Kind::Read(read) => read.needed.is_strict(),
            _ => false,
        });
        for ask in asks {
            let request = match &ask.about[..] {
                [] => ReplicaRequest::Read(Read {
                    vnode: target.vnode,
                    bucket: target.id,
                    key: target.key_bytes(),
                    digest_only: ask.digest_only,
                    strict,
                    hinted: ask.in_place_of.is_some(),
                }),
                about => {
                    out.push(Output::Event(Event::AskedAgain));
                    ReplicaRequest::Recall(Recall {
                        vnode: target.vnode,
                        bucket: target.id,
                        key: target.key_bytes(),
                        dots: about.iter().map(|d| (d.actor.0, d.counter)).collect(),
                    })
                }
            };
            let asked_as = match ask.again {
                true => {
                    let asked_as = self.fresh_id();
                    self.again.insert(asked_as, (id, ask.about));
                    asked_as
                }
                false => id,
            };
            if ask.node == self.config.me {
                self.local.push_back(Local::Ask(asked_as, request));
            } else if self.is_up(ask.node) {
                self.note_asked(ask.node, asked_as, Errand::Read);
                let header = Header {
                    layout_version: self.layouts.reading().version(),
                    trace,
                    ..self.header(now, deadline)
                };
                out.push(Output::Send(
                    ask.node,
                    Message::Replica(asked_as, header, request),
                ));
            } else if let Some(conversation) = self.conversations.get_mut(&id) {
                if let Kind::Read(read) = &mut conversation.kind {
                    read.gone(ask.node);
                }
                if let Some(log) = &mut conversation.log {
                    log.lost(now, ask.node);
                }
            }
        }
    }

    pub(crate) fn header(&self, now: Time, deadline: Time) -> Header {
        Header {
            layout_version: self.layouts.version(),
            deadline_ms: remaining_ms(now, deadline),
            ..Header::default()
        }
    }

    pub(crate) fn conclude_read(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some(conversation) = self.end(id) else {
            return;
        };
        let (ending, trace) = (self.ending(id, &conversation), conversation.kept.trace);
        let Kind::Read(read) = conversation.kind else {
            return;
        };
        let (reply_to, mut log) = (conversation.reply_to, conversation.log);
        if read.hedge_won() {
            out.push(Output::Event(Event::HedgeWon));
        }
        let outcome = read.outcome();
        if !outcome.repairs.is_empty() {
            out.push(Output::Event(Event::Disagreement));
        }
        let Moment { wall_ms, dead_ms } = self.replica.moment;
        for (node, mut missing) in outcome.repairs {
            // It would be marked as seen there, and no more.
            missing.drop_expired(dead_ms);
            if missing.is_empty() {
                continue;
            }
            let sent = self.repair(now, node, &read.target, &missing, trace, out);
            if let Some(log) = log.as_mut().filter(|_| sent) {
                log.repaired(node, &missing);
            }
        }
        if let Some(log) = &mut log {
            log.found(&outcome.record, wall_ms);
        }
        if outcome.record.expired(wall_ms).next().is_some() {
            out.push(Output::Event(Event::ExpiredHidden));
        }
        match read.purpose {
            Purpose::Answer => {
                let shown = self.show(&read.target, &outcome.record);
                ending.with(&shown, out);
                self.give(reply_to, log, shown, out);
            }
            Purpose::Listing(list) => self.local.push_back(Local::Decided {
                list,
                read: id,
                found: Ok(outcome.record.live().iter().any(|s| !s.is_expired(wall_ms))),
            }),
            Purpose::Write(first) => {
                let removed = match first.removed(&outcome.record, wall_ms) {
                    Ok(removed) => removed,
                    Err(refusal) => {
                        out.push(Output::Event(Event::ConditionFailed));
                        let refused = Answer::Refused(refusal);
                        ending.with(&refused, out);
                        return self.give(reply_to, log, refused, out);
                    }
                };
                if first.condition.is_some() {
                    out.push(Output::Event(Event::ConditionHeld));
                }
                // A delete is written also where nothing is live: a removal that a replica knows of may be on that one
                // alone, and not yet on its disk, while another replica still has the value. What is acknowledged as deleted
                // is removed on `w`.
                if removed.is_empty() && first.payload.is_none() {
                    ending.with(&Answer::Deleted, out);
                    return self.give(reply_to, log, Answer::Deleted, out);
                }
                let accepted = Accepted {
                    reply_to,
                    now,
                    deadline: conversation.deadline,
                    log: log.clone(),
                    trace,
                };
                let (terms, payload, expires) = (first.terms, first.payload, first.expires);
                let begun = self.write(accepted, read.target, terms, removed, payload, expires);
                if let Err(refusal) = begun {
                    self.give(reply_to, log, Answer::Refused(refusal), out);
                }
            }
        }
    }

    /// Answers whoever asked, with the account where one was asked for.
    pub(crate) fn give(
        &self,
        reply_to: ReplyTo,
        log: Option<Box<Log>>,
        given: Answer,
        out: &mut Vec<Output>,
    ) {
        let given = match (log, given) {
            (None, given) => given,
            // It comes from the coordinator that did the work, with its own account.
            (Some(_), given @ Answer::Explained(_)) => given,
            (Some(log), given) => {
                out.push(Output::Event(Event::Explained));
                let account = log.finish(self.now, |node| self.is_up(node));
                Answer::Explained(Explained::new(&given, account))
            }
        };
        answer(reply_to, given, out);
    }

    /// Sends a stale replica what it lacks, if it is in reach and not too much is on its way already. Nobody waits for its answer, and
    /// nothing is lost if it is not sent: the next read finds the same.
    pub(crate) fn repair(
        &mut self,
        now: Time,
        node: NodeId,
        target: &Target,
        missing: &Record,
        trace: Option<Trace>,
        out: &mut Vec<Output>,
    ) -> bool {
        if !self.is_up(node) {
            return false;
        }
        let id = self.fresh_id();
        let record = missing.encode();
        let limits = &self.config.limits;
        if !self.repairs.begin(now, id, node, record.len(), limits) {
            out.push(Output::Event(Event::RepairDropped));
            return false;
        }
        let merge = ReplicaRequest::Merge(Merge {
            vnode: target.vnode,
            bucket: target.id,
            key: target.key_bytes(),
            record,
            durable: false,
            hint_for: None,
        });
        if node == self.config.me {
            self.local.push_back(Local::Ask(id, merge));
        } else {
            let header = Header {
                layout_version: self.layouts.version(),
                trace,
                ..Header::default()
            };
            out.push(Output::Send(node, Message::Replica(id, header, merge)));
        }
        out.push(Output::Event(Event::ReadRepair));
        true
    }

    /// A record as an answer: the live values whose time is not up, and the context that names exactly those shown (rule R8). Merges may leave
    /// more than one context can name; what is not shown now is shown once these are resolved.
    pub(crate) fn show(&self, target: &Target, record: &Record) -> Answer {
        let wall_ms = self.replica.moment.wall_ms;
        let live = record.live().iter().filter(|s| !s.is_expired(wall_ms));
        let live: Vec<&Sibling> = live.take(CONTEXT_DOTS_MAX).collect();
        if live.is_empty() {
            return Answer::Absent;
        }
        let mut siblings = Vec::with_capacity(live.len());
        for sibling in &live {
            match decode_value(&sibling.payload) {
                Ok(value) => siblings.push(Shown {
                    dot: sibling.span.dot.to_string(),
                    value,
                    expires_ms: sibling.expires,
                }),
                Err(why) => return Answer::Refused(Refusal::Corrupt(why)),
            }
        }
        let context = Context::new(live.iter().map(|s| s.span));
        Answer::Found {
            siblings,
            context: self.seal(target, &context),
        }
    }

    pub(crate) fn seal(&self, target: &Target, context: &Context) -> Bytes {
        self.config
            .secret
            .seal(target.id.0, target.key.as_bytes(), context)
    }

    /// Looks whether a write has enough acknowledgements, or never will.
    pub(crate) fn step_write(&mut self, id: RequestId, out: &mut Vec<Output>) {
        let Some(Conversation {
            kind: Kind::Write(write),
            ..
        }) = self.conversations.get(&id)
        else {
            return;
        };
        // What is shown must be as durable here as what is acknowledged.
        let to_show = write.terms.return_body && write.keeps && !write.has_taken(self.config.me);
        let done = match (write.verdict(), &write.written) {
            (Verdict::Impossible, _) => {
                let unmet = write.unmet(false);
                return self.finish(id, unmet, out);
            }
            (Verdict::Met, Some((own, record))) if !to_show => {
                let shown = write
                    .terms
                    .return_body
                    .then(|| self.show(&write.target, record));
                match shown {
                    // It is stored, so "refused" would be a lie, and a forwarder would put it once more elsewhere.
                    Some(Answer::Refused(_)) | None if write.payload.is_some() => Answer::Stored {
                        context: self.seal(&write.target, own),
                    },
                    Some(Answer::Refused(_)) | None => Answer::Deleted,
                    Some(shown) => shown,
                }
            }
            _ => return,
        };
        self.finish(id, done, out);
    }

    /// Takes a conversation off the table.
    pub(crate) fn end(&mut self, id: RequestId) -> Option<Conversation> {
        let conversation = self.conversations.remove(&id)?;
        if !self.again.is_empty() {
            self.again.retain(|_, (of, _)| *of != id);
        }
        self.bytes_in_flight -= conversation.kind.bytes();
        if let Kind::Write(write) = &conversation.kind {
            self.hint_writes -= write.hints_outstanding();
        }
        self.timers
            .remove(&(conversation.deadline, id, Timer::Deadline));
        let limits = &self.config.limits;
        let list_patience = conversation.began.after(limits.list_patience);
        let timer = match &conversation.kind {
            Kind::Read(read) => read.timer,
            Kind::Forward(forward) => forward.timer,
            Kind::List(_) => Some((list_patience, Timer::Patience)),
            Kind::Write(_)
            | Kind::Change(_)
            | Kind::Scan(_)
            | Kind::Status(_)
            | Kind::Repair(_)
            | Kind::Choose(_) => None,
        };
        if let Some((at, timer)) = timer {
            self.timers.remove(&(at, id, timer));
        }
        if let Some(at) = conversation.kind.gives_up_at() {
            self.timers.remove(&(at, id, Timer::Return));
        }
        match &conversation.kind {
            Kind::List(list) => {
                for child in list.children() {
                    self.end(child);
                }
            }
            Kind::Scan(scan) if scan.node == self.config.me => self.forget_own_job(id),
            _ => {}
        }
        Some(conversation)
    }

    pub(crate) fn finish(&mut self, id: RequestId, with: Answer, out: &mut Vec<Output>) {
        if let Some(conversation) = self.end(id) {
            if let Kind::Read(read) = &conversation.kind
                && let Purpose::Listing(list) = read.purpose
            {
                self.local.push_back(Local::Decided {
                    list,
                    read: id,
                    found: Err(Box::new(with)),
                });
                return;
            }
            if let Kind::List(list) = &conversation.kind
                && let Some(request) = &list.change
            {
                let accepted = Accepted {
                    reply_to: conversation.reply_to,
                    now: conversation.began,
                    deadline: conversation.deadline,
                    trace: conversation.kept.trace,
                    log: conversation.log,
                };
                let looked = Local::Looked(Box::new(accepted), request.clone(), with);
                self.local.push_back(looked);
                return;
            }
            self.ending(id, &conversation).with(&with, out);
            if matches!(with, Answer::Unmet(Unmet { .. })) {
                out.push(Output::Event(Event::Unmet));
            }
            self.give(conversation.reply_to, conversation.log, with, out);
        }
    }

    pub(crate) fn on_timers(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(&(at, id, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if timer == Timer::Patience && self.is_patient(now, id) {
                continue;
            }
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            match (timer, &mut conversation.kind) {
                (Timer::Deadline, Kind::Write(write)) => {
                    let unmet = write.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Read(read)) => {
                    let unmet = read.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Change(change)) => {
                    let unmet = change.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Status(_)) => self.conclude_status(id, out),
                (Timer::Deadline, Kind::Repair(_)) => self.conclude_repair(id, out),
                (Timer::Deadline, Kind::Choose(choose)) => {
                    let unmet = choose.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Forward(forward)) => {
                    let unmet = forward.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::List(list)) => {
                    let unmet = list.unmet(true);
                    self.finish(id, unmet, out);
                }
                (Timer::Deadline, Kind::Scan(_)) => self.on_scanned(now, id, None, out),
                (Timer::Patience, Kind::List(_)) => self.widen_list(now, id, out),
                (Timer::Patience, Kind::Read(read)) => {
                    read.input = self.inputs;
                    let asks = read.widen(now);
                    if let Some(log) = &mut conversation.log {
                        log.asked(now, &asks);
                    }
                    if !asks.is_empty() {
                        out.push(Output::Event(Event::ReadWidened));
                    }
                    let (deadline, target) = (conversation.deadline, read.target.clone());
                    self.ask(now, id, deadline, &target, asks, out);
                    self.step_read(now, id, out);
                }
                (Timer::Return, Kind::Read(read)) => {
                    let unmet = read.unmet(false);
                    self.give_up(id, unmet, out);
                }
                (Timer::Return, Kind::Forward(forward)) => {
                    let unmet = forward.unmet(false);
                    self.give_up(id, unmet, out);
                }
                (Timer::Hedge, Kind::Read(_)) => self.on_hedge(now, id, out),
                (Timer::Hedge, Kind::Forward(_)) => self.hedge_forward(now, id, out),
                (Timer::Hedge | Timer::Patience | Timer::Return, _) => {}
            }
            self.on_local(now, out);
        }
        self.compare_in_turn(now, out);
    }
}
