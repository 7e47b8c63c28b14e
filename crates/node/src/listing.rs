//! How a listing goes on at its coordinator, and what a node does about a scan that it is asked for.

use bytes::Bytes;
use quorate_protocol::{
    Answer, BucketRequest, Header, List, Message, Refusal, ReplicaReply, ReplicaRequest, RequestId,
    Scan, VnodeId,
};
use quorate_ring::Partition;
use quorate_storage::Storage;

use crate::accept::{self, Terms};
use crate::api::{Event, Output};
use crate::jobs::{Job, refused};
use crate::list::{AskScan, Asked, ListConversation, ScanConversation};
use crate::node::{Accepted, Conversation, Kind, Local, Node, Timer, Waiter, tell};
use crate::ranking::Errand;
use crate::read::{Purpose, ReadTerms};
use crate::scan::{self, ScanJob};
use crate::tally::Verdict;
use crate::time::Time;

impl<S: Storage> Node<S> {
    // ---- The coordinator ----

    /// Begins a listing. Whoever is asked coordinates it: there is no node that has all of a bucket.
    pub(crate) fn begin_list(
        &mut self,
        accepted: Accepted,
        list: List,
        change: Option<(BucketRequest, u32)>,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        accept::list(&list)?;
        let now = accepted.now;
        let (bucket, policy) = self.buckets.resolve(&list.bucket);
        let mut parts = Vec::with_capacity(usize::from(self.layouts.partitions()));
        for partition in (0..self.layouts.partitions()).map(Partition) {
            let seats = policy.placement.readers(partition);
            let terms = Terms {
                placement: &policy.placement,
                partition,
                defaults: &policy.defaults,
                options: &list.options,
            };
            let needed = terms.strict_read()?;
            if needed.verdict(|n| self.is_up(n) || n == self.config.me, |_| false) != Verdict::Met {
                self.in_reach(&needed)?;
            }
            let mut candidates = vec![self.config.me];
            candidates.extend(self.ranked(seats, Errand::Read));
            parts.push((partition, needed, candidates));
        }
        let asked = Asked {
            id: bucket,
            set: policy.placement.set(),
            bucket: list.bucket,
            prefix: list.prefix.into(),
            after: list.after.map_or_else(Bytes::new, Bytes::from),
            limit: list.limit,
            options: list.options,
        };
        let mut conversation = ListConversation::new(asked, parts.into_iter());
        conversation.change = change;
        let deadline = accepted.deadline;
        let id = self.converse(accepted, Kind::List(Box::new(conversation)));
        let patience = now.after(self.config.limits.list_patience);
        if patience < deadline {
            self.timers.insert((patience, id, Timer::Patience));
        }
        self.step_list(now, id, out);
        Ok(())
    }

    pub(crate) fn listing(&mut self, id: RequestId) -> Option<(Accepted, &mut ListConversation)> {
        let conversation = self.conversations.get_mut(&id)?;
        let accepted = Accepted {
            reply_to: conversation.reply_to,
            now: conversation.began,
            deadline: conversation.deadline,
            log: None,
            trace: conversation.kept.trace,
        };
        match &mut conversation.kind {
            Kind::List(list) => Some((accepted, list)),
            _ => None,
        }
    }

    /// Sends what a listing wants to ask now, and goes on to the page once enough was told.
    pub(crate) fn step_list(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        loop {
            let Some((accepted, list)) = self.listing(id) else {
                return;
            };
            if list.is_deciding() {
                return; // What comes late is not needed any more.
            }
            let asks = list.next();
            if asks.is_empty() {
                break;
            }
            self.ask_scans(now, id, accepted, asks, out);
        }
        let Some((_, list)) = self.listing(id) else {
            return;
        };
        match list.verdict() {
            Verdict::Pending => {}
            Verdict::Impossible => {
                let unmet = list.unmet(false);
                self.finish(id, unmet, out);
            }
            Verdict::Met => {
                let layouts = &self.layouts;
                let Some(Conversation {
                    kind: Kind::List(list),
                    ..
                }) = self.conversations.get_mut(&id)
                else {
                    return;
                };
                let bucket = list.asked.bucket.clone();
                let doubts = list.put_together(|key| layouts.partition_of(&bucket, key.as_bytes()));
                for scan in list.children() {
                    self.end(scan);
                }
                for _ in 0..doubts {
                    out.push(Output::Event(Event::ListDisagreement));
                }
                self.decide(now, id, out);
            }
        }
    }

    /// The replicas asked first are slow: everybody is asked for what they have not told.
    pub(crate) fn widen_list(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        let Some((accepted, list)) = self.listing(id) else {
            return;
        };
        let asks = list.widen();
        if !asks.is_empty() {
            out.push(Output::Event(Event::ListWidened));
        }
        self.ask_scans(now, id, accepted, asks, out);
        self.step_list(now, id, out);
    }

    fn ask_scans(
        &mut self,
        now: Time,
        id: RequestId,
        accepted: Accepted,
        asks: Vec<AskScan>,
        out: &mut Vec<Output>,
    ) {
        let (me, all) = (self.config.me, self.layouts.partitions());
        for AskScan { node, parts } in asks {
            let Some((_, list)) = self.listing(id) else {
                return;
            };
            let asked = Scan {
                set: list.asked.set,
                bucket: list.asked.id,
                partitions: scan::bits(list.partitions(&parts), all),
                prefix: list.asked.prefix.clone(),
                after: list.asked.after.clone(),
                limit: list.asked.limit,
            };
            let conversation = ScanConversation {
                list: id,
                node,
                parts,
            };
            let deadline = accepted.deadline;
            let scan = Accepted {
                reply_to: accepted.reply_to,
                now,
                deadline,
                log: None,
                trace: accepted.trace,
            };
            let scan_id = self.converse(scan, Kind::Scan(conversation));
            if let Some((_, list)) = self.listing(id) {
                list.scanning(scan_id);
            }
            let request = ReplicaRequest::Scan(asked);
            if node == me {
                self.local.push_back(Local::Ask(scan_id, request));
            } else if self.is_up(node) {
                let header = Header {
                    layout_version: self.layouts.reading().version(),
                    trace: accepted.trace,
                    ..self.header(now, deadline)
                };
                let message = Message::Replica(scan_id, header, request);
                out.push(Output::Send(node, message));
            } else {
                self.scan_ended(scan_id, None);
            }
        }
    }

    /// A scan has come to its end, with what the node told or, if it was lost, with nothing. Returns the listing it belongs
    /// to.
    fn scan_ended(&mut self, scan: RequestId, reply: Option<ReplicaReply>) -> Option<RequestId> {
        let Kind::Scan(of) = self.end(scan)?.kind else {
            return None;
        };
        let (_, list) = self.listing(of.list)?;
        match reply {
            Some(ReplicaReply::Scanned(scanned)) => list.scanned(scan, &of, scanned),
            other => {
                match other {
                    Some(ReplicaReply::Refused(Refusal::Overloaded)) => list.overloaded(),
                    Some(ReplicaReply::Refused(Refusal::BucketChanged(entry))) => {
                        list.is_over(entry);
                    }
                    _ => {}
                }
                list.lost(scan, &of);
            }
        }
        Some(of.list)
    }

    /// What came of a scan.
    pub(crate) fn on_scanned(
        &mut self,
        now: Time,
        scan: RequestId,
        reply: Option<ReplicaReply>,
        out: &mut Vec<Output>,
    ) {
        let is_lost = !matches!(reply, Some(ReplicaReply::Scanned(_)));
        if let Some(list) = self.scan_ended(scan, reply) {
            if is_lost {
                out.push(Output::Event(Event::ListReplicaLost));
            }
            self.step_list(now, list, out);
        }
    }

    /// Reads the keys that are in doubt, and answers once none is.
    fn decide(&mut self, now: Time, id: RequestId, out: &mut Vec<Output>) {
        loop {
            let Some((accepted, list)) = self.listing(id) else {
                return;
            };
            if let Some(answer) = list.answer() {
                return self.finish(id, answer, out);
            }
            let Some(key) = list.next_read() else {
                return;
            };
            let (bucket, options) = (list.asked.bucket.clone(), list.asked.options);
            let target = self.target(&bucket, &key);
            let policy = target.policy.clone();
            let terms = Terms {
                placement: &policy.placement,
                partition: target.vnode.partition,
                defaults: &policy.defaults,
                options: &options,
            };
            let accepted = Accepted { now, ..accepted };
            let begun = terms.strict_read().and_then(|needed| {
                let needed = ReadTerms::strict(needed, options);
                self.read(accepted, target, needed, Purpose::Listing(id), out)
            });
            // What it finds comes through `local`, and so after this.
            match begun {
                Ok(read) => {
                    if let Some((_, list)) = self.listing(id) {
                        list.reading(read, key);
                    }
                }
                Err(refusal) => return self.finish(id, Answer::Refused(refusal), out),
            }
        }
    }

    /// A key in doubt was read: whether it has a live value, or the answer that the listing gets if that could not be found
    /// out.
    pub(crate) fn on_decided(
        &mut self,
        now: Time,
        id: RequestId,
        read: RequestId,
        found: Result<bool, Answer>,
        out: &mut Vec<Output>,
    ) {
        let Some((_, list)) = self.listing(id) else {
            return;
        };
        match found {
            Ok(is_live) => {
                list.decided(read, is_live);
                self.decide(now, id, out);
            }
            Err(answer) => self.finish(id, answer, out),
        }
    }

    // ---- The replica ----

    /// Takes a scan on; what comes of it is told when it is done.
    pub(crate) fn on_scan(
        &mut self,
        waiter: Waiter,
        deadline: Time,
        scan: &Scan,
        out: &mut Vec<Output>,
    ) {
        let begun = self
            .sound_scan(scan)
            .and_then(|job| self.take_on(Some(waiter), deadline, Job::Scan(job)));
        if let Err(refusal) = begun {
            if let (Waiter::Peer(from, _), Refusal::Malformed(_)) = (waiter, &refusal) {
                // It may know of a bucket that this node has not heard of.
                self.compare(from, out);
            }
            tell(waiter, refused(refusal), &mut self.local, out);
        }
    }

    fn sound_scan(&mut self, scan: &Scan) -> Result<ScanJob, Refusal> {
        if let Some(refusal) = self.buckets.objection(scan.bucket, scan.set) {
            return Err(refusal);
        }
        if scan.partitions.len() != usize::from(self.layouts.partitions()).div_ceil(8) {
            return Err(Refusal::Malformed(
                "a scan of another number of partitions than this layout has".to_owned(),
            ));
        }
        for partition in scan::partitions(&scan.partitions) {
            let vnode = VnodeId {
                partition,
                set: scan.set,
            };
            if !self.is_seat(vnode) {
                return Err(Refusal::Malformed(format!(
                    "this node is no replica of partition {} for that replica set",
                    partition.0
                )));
            }
            self.replica.lists(vnode)?;
        }
        ScanJob::new(scan, self.layouts.partitions())
    }
}
