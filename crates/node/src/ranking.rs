//! Which replica to ask first: how each other node has been answering, and whether it is answering now.
//!
//! For each node and each kind of errand there is an estimate of how long an answer takes: a smoothed mean and a smoothed mean
//! deviation, as in TCP (Jacobson 1988, RFC 6298), in whole microseconds. A decaying peak, the usual alternative, ranks as well, but says
//! nothing of the tail, and one stalled sync makes a node the last for many seconds. What is expected of a node is its mean and
//! four deviations, within bounds: some 95 to 99 of 100 answers come before.
//!
//! An estimate knows only of answers, and a node that was stopped gives none: it would stay the quickest for as long as it takes
//! until its connection is given up. So it counts at once what it owes: a node that has said nothing for longer than is expected of it,
//! while it owes an answer, is *silent*, and comes after all others. The first answer ends that. At most one ask at a time is timed, as
//! TCP times one segment a round trip: so it costs two comparisons an ask, needs no table of what is under way, and an answer
//! that nobody waits for any more is measured like any other.
//!
//! Only what is asked is measured. A node that is not the first any more is therefore *probed* now and then, see `hedging`. Nobody can be asked to
//! coordinate something for a probe, so what is known of that is forgotten after a while without, and one request tells anew. An answer that is owed is
//! forgotten likewise, whatever it was to: it may have been lost, and then nothing else would end the debt.

use std::time::Duration;

use quorate_protocol::{Refusal, ReplicaReply, RequestId};
use quorate_ring::NodeId;
use quorate_storage::Storage;

use crate::config::Limits;
use crate::layouts::Layouts;
use crate::node::Node;
use crate::tally::Seat;
use crate::time::Time;

/// How much older than a sample the last may be until it weighs as much as everything before. A node that is asked once a second, being
/// probed, would else take half a minute to be known as quick again.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// After so long an ask that is being timed is taken for lost, and another is timed.
const TIMED_AT_MOST: Duration = Duration::from_secs(2);
/// How long after the last ask a debt, or an estimate that no probe renews, counts. A request in so long may have to wait for a slow node, and
/// be it a write, which nobody hedges: that is to be rare. The transport gives up what is stopped long before.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// A node is *slow*, and comes after those that are not, wherever they are, if its mean is so many times the best one's and then some: below
/// that a node of the own zone is still the better one to ask.
const SLOW_FACTOR: u64 = 4;
const SLOW_SLACK_US: u64 = 2_000;

/// What a node is asked for. Each takes its own time: a write waits for a disk, a request that is passed on for other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// To tell what it has.
    Read = 0,
    /// To take a write.
    Write = 1,
    /// To coordinate a read.
    PassedRead = 2,
    /// To coordinate a write.
    PassedWrite = 3,
}

/// How many there are.
const ERRANDS: usize = 4;

/// Where another node is, seen from this one. In order of preference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Distance {
    SameZone,
    SameRegion,
    #[default]
    Elsewhere,
}

impl Distance {
    pub(crate) fn between(layouts: &Layouts, a: NodeId, b: NodeId) -> Distance {
        let (Some(a), Some(b)) = (layouts.node(a), layouts.node(b)) else {
            return Distance::Elsewhere;
        };
        match (a.region == b.region, a.zone == b.zone) {
            (true, true) => Distance::SameZone,
            (true, false) => Distance::SameRegion,
            (false, _) => Distance::Elsewhere,
        }
    }
}

/// How well a node is to be asked, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Tier {
    Well,
    /// Much slower than the best.
    Slow,
    /// It owes an answer for longer than is expected of it, or says that it is in no state to give one.
    Silent,
}

/// How a node does one kind of errand.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    mean_us: u64,
    deviation_us: u64,
    /// When it was measured last, if it was.
    sampled_at: Option<Time>,
    /// Since when it has been owing an answer without giving any.
    owes_since: Option<Time>,
    /// When it was asked last.
    asked_at: Option<Time>,
    /// The latest ask, and the latest that was answered. Ids grow.
    asked: Option<RequestId>,
    answered: Option<RequestId>,
    /// The ask that is being timed.
    timed: Option<(RequestId, Time)>,
}

impl Pace {
    fn asked(&mut self, now: Time, id: RequestId) {
        self.asked = self.asked.max(Some(id));
        self.asked_at = Some(now);
        self.owes_since.get_or_insert(now);
        if self
            .timed
            .is_none_or(|(_, at)| now.since(at) > TIMED_AT_MOST)
        {
            self.timed = Some((id, now));
        }
    }

    fn answered(&mut self, now: Time, id: RequestId) {
        if Some(id) > self.asked {
            return; // It was asked for something else, and said nothing of what it owes of this.
        }
        self.answered = self.answered.max(Some(id));
        // It is alive as of now, whatever it owes besides.
        self.owes_since = (self.asked > self.answered).then_some(now);
        if let Some((_, at)) = self.timed.take_if(|(timed, _)| *timed == id) {
            self.sample(now, now.since(at));
        }
    }

    fn sample(&mut self, now: Time, took: Duration) {
        let took = took.as_micros() as u64;
        let (of_mean, of_deviation) = match self.sampled_at.replace(now) {
            None => {
                (self.mean_us, self.deviation_us) = (took, took / 2);
                return;
            }
            Some(at) if now.since(at) >= STALE_AFTER => (2, 2),
            Some(_) => (8, 4),
        };
        let off = self.mean_us.abs_diff(took);
        self.deviation_us =
            self.deviation_us - self.deviation_us / of_deviation + off / of_deviation;
        self.mean_us = self.mean_us - self.mean_us / of_mean + took / of_mean;
    }

    /// Nothing that was asked will be answered any more.
    fn lost(&mut self) {
        self.owes_since = None;
        self.timed = None;
        self.answered = self.asked;
    }

    /// How long an answer takes at the most, nearly always. Of a node that was never measured, as long as a read waits for
    /// anybody.
    fn expected(&self, limits: &Limits) -> Duration {
        if self.sampled_at.is_none() {
            return limits.read_patience;
        }
        let tail = Duration::from_micros(self.mean_us.saturating_add(4 * self.deviation_us));
        tail.min(limits.hedge_delay_max).max(limits.hedge_delay_min)
    }

    fn is_silent(&self, now: Time, limits: &Limits) -> bool {
        let silence = self.owes_since.map(|since| now.since(since));
        silence.is_some_and(|silence| silence >= self.expected(limits)) && !self.is_forgotten(now)
    }

    /// Whether it was not asked for so long that what it did then says nothing of what it would do now.
    fn is_forgotten(&self, now: Time) -> bool {
        self.asked_at.is_none_or(|at| now.since(at) >= FORGET_AFTER)
    }
}

/// What this node has seen of another's answering.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) distance: Distance,
    paces: [Pace; ERRANDS],
    /// When it said that it is in no state to do anything, if that was the last it said.
    failed_at: Option<Time>,
}

impl Standing {
    pub(crate) fn at(distance: Distance) -> Self {
        Standing {
            distance,
            ..Standing::default()
        }
    }

    /// It is being asked.
    pub(crate) fn asked(&mut self, now: Time, id: RequestId, errand: Errand) {
        self.paces[errand as usize].asked(now, id);
    }

    /// It has answered, if only with a refusal: that is a sign of life, and comes quickly, so it is not measured.
    pub(crate) fn answered(&mut self, now: Time, id: RequestId, refusal: Option<&Refusal>) {
        // What is refused for the sake of the request says nothing about the node.
        let failed = matches!(
            refusal,
            Some(Refusal::Poisoned(_) | Refusal::Overloaded | Refusal::Draining)
        );
        self.failed_at = failed.then_some(now);
        for pace in &mut self.paces {
            if refusal.is_some() {
                pace.timed.take_if(|(timed, _)| *timed == id);
            }
            pace.answered(now, id);
        }
    }

    /// A replica has said something.
    pub(crate) fn replied(&mut self, now: Time, id: RequestId, reply: &ReplicaReply) {
        match reply {
            ReplicaReply::Digest(_)
            | ReplicaReply::Record(_)
            | ReplicaReply::Gone(_)
            | ReplicaReply::Merged { .. } => {
                self.answered(now, id, None);
            }
            ReplicaReply::Refused(refusal) => self.answered(now, id, Some(refusal)),
            _ => {}
        }
    }

    /// The connection to it ended, or there is a new one. What is known of how quick it is stays.
    pub(crate) fn reconnected(&mut self) {
        self.failed_at = None;
        self.paces.iter_mut().for_each(Pace::lost);
    }

    /// When it was asked last to tell what it has.
    pub(crate) fn read_at(&self) -> Option<Time> {
        self.paces[Errand::Read as usize].asked_at
    }

    pub(crate) fn expected(&self, errand: Errand, limits: &Limits) -> Duration {
        self.paces[errand as usize].expected(limits)
    }

    /// Its mean, if it was measured, and lately where no probe does that.
    fn mean_us(&self, now: Time, errand: Errand) -> Option<u64> {
        let pace = &self.paces[errand as usize];
        let is_probed = matches!(errand, Errand::Read);
        let counts = pace.sampled_at.is_some() && (is_probed || !pace.is_forgotten(now));
        counts.then_some(pace.mean_us)
    }

    /// Whether it came to nothing lately, whatever it was asked for: a process that was stopped does nothing at all, and a disk that
    /// stalls holds up reads of what was just written.
    fn is_silent(&self, now: Time, limits: &Limits) -> bool {
        let failed = self
            .failed_at
            .is_some_and(|at| now.since(at) < FORGET_AFTER);
        failed || self.paces.iter().any(|pace| pace.is_silent(now, limits))
    }

    /// How well it is to be asked, where the best of those that might be takes so long.
    fn tier(&self, now: Time, errand: Errand, best_us: u64, limits: &Limits) -> Tier {
        if self.is_silent(now, limits) {
            return Tier::Silent;
        }
        match self.mean_us(now, errand) {
            Some(mean) if mean > SLOW_FACTOR * best_us + SLOW_SLACK_US => Tier::Slow,
            _ => Tier::Well,
        }
    }
}

impl<S: Storage> Node<S> {
    /// The nodes of these seats that are in reach, this one apart, the best to ask first: those that answer as they should before the slow
    /// ones and these before the silent ones; among equals those of the own zone, then of the own region; then the quickest. One that was
    /// never asked, or not for long, counts as quick, so that it gets to be measured.
    pub(crate) fn ranked(&self, seats: &[Seat], errand: Errand) -> Vec<NodeId> {
        let ranked = self.ranked_nodes(seats.iter().map(|seat| seat.node), errand);
        ranked.into_iter().map(|(_, node)| node).collect()
    }

    /// The same of any nodes, with how well each is to be asked.
    pub(crate) fn ranked_nodes(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        errand: Errand,
    ) -> Vec<(Tier, NodeId)> {
        let (now, limits) = (self.now, &self.config.limits);
        let up = nodes.filter_map(|node| {
            let peer = self.peers.get(&node).filter(|peer| peer.up)?;
            Some((node, &peer.standing))
        });
        let up: Vec<(NodeId, &Standing)> = up.collect();
        let sound = up.iter().filter(|(_, s)| !s.is_silent(now, limits));
        let best = sound.filter_map(|(_, s)| s.mean_us(now, errand)).min();
        let rank = |(node, standing): (NodeId, &Standing)| {
            let tier = standing.tier(now, errand, best.unwrap_or(0), limits);
            let mean = standing.mean_us(now, errand).unwrap_or(0);
            (tier, standing.distance, mean, node)
        };
        let mut ranked: Vec<_> = up.into_iter().map(rank).collect();
        ranked.sort_unstable();
        let ranked = ranked.into_iter().map(|(tier, _, _, node)| (tier, node));
        ranked.collect()
    }

    /// Notes that another node is being asked.
    pub(crate) fn note_asked(&mut self, node: NodeId, id: RequestId, errand: Errand) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.standing.asked(now, id, errand);
        }
    }

    /// How long a node has for an answer until it is overdue. This one answers at once but for its disk, whose stalls are no reason
    /// to hurry.
    pub(crate) fn expected(&self, node: NodeId, errand: Errand) -> Duration {
        let limits = &self.config.limits;
        let peer = self.peers.get(&node);
        peer.map_or(limits.read_patience, |peer| {
            peer.standing.expected(errand, limits)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Errand = Errand::Read;

    fn limits() -> Limits {
        Limits {
            hedge_delay_min: Duration::from_millis(5),
            hedge_delay_max: Duration::from_millis(400),
            read_patience: Duration::from_millis(100),
            ..Limits::default()
        }
    }

    /// One that has answered so many asks, one after another, after so many microseconds each; and what time it is then.
    fn seasoned(asks: u64, took_us: u64) -> (Standing, Time) {
        let mut standing = Standing::default();
        let mut now = Time(1_000_000);
        for id in 1..=asks {
            standing.asked(now, RequestId(id), READ);
            now.0 += took_us;
            standing.answered(now, RequestId(id), None);
        }
        (standing, now)
    }

    #[test]
    fn what_is_expected_follows_the_tail_within_bounds() {
        assert_eq!(
            Standing::default().expected(READ, &limits()),
            Duration::from_millis(100)
        );
        let (quick, _) = seasoned(100, 300);
        assert_eq!(quick.expected(READ, &limits()), Duration::from_millis(5));
        let (slow, mut now) = seasoned(100, 20_000);
        let steady = slow.expected(READ, &limits()).as_millis();
        assert!((19..25).contains(&steady), "{steady}");
        // The same mean, and a tail.
        let mut uneven = slow;
        for id in 101..300 {
            uneven.asked(now, RequestId(id), READ);
            now.0 += if id % 2 == 0 { 5_000 } else { 35_000 };
            uneven.answered(now, RequestId(id), None);
        }
        let tail = uneven.expected(READ, &limits()).as_millis();
        assert!((60..100).contains(&tail), "{tail}");
        let (hopeless, _) = seasoned(3, 900_000);
        assert_eq!(
            hopeless.expected(READ, &limits()),
            Duration::from_millis(400)
        );
    }

    #[test]
    fn silence_counts_before_any_answer_and_the_first_ends_it() {
        let (mut standing, mut now) = seasoned(10, 300);
        standing.asked(now, RequestId(11), READ);
        standing.asked(now, RequestId(12), READ);
        now.0 += 4_999;
        assert!(!standing.is_silent(now, &limits()));
        now.0 += 1;
        assert!(standing.is_silent(now, &limits()));
        standing.answered(now, RequestId(11), None);
        assert!(!standing.is_silent(now, &limits()), "it is alive");
        // What is expected has grown by this answer.
        now.0 += 10_000;
        assert!(standing.is_silent(now, &limits()), "it still owes one");
        standing.answered(now, RequestId(12), None);
        now.0 += 1_000_000;
        assert!(!standing.is_silent(now, &limits()), "it owes nothing");
    }

    #[test]
    fn answers_out_of_order_leave_no_debt() {
        let (mut standing, mut now) = seasoned(10, 300);
        standing.asked(now, RequestId(11), READ);
        standing.asked(now, RequestId(12), READ);
        standing.answered(now, RequestId(12), None);
        standing.answered(now, RequestId(11), None);
        // A digest, and then the record, of one request.
        standing.asked(now, RequestId(13), READ);
        standing.answered(now, RequestId(13), None);
        standing.asked(now, RequestId(13), READ);
        standing.answered(now, RequestId(13), None);
        now.0 += 1_000_000;
        assert!(!standing.is_silent(now, &limits()));
    }

    #[test]
    fn an_old_estimate_weighs_no_more_than_a_new_sample() {
        let (mut standing, mut now) = seasoned(20, 100_000);
        let mut probes = 0;
        while standing.mean_us(now, READ) > Some(2_000) {
            now.0 += 1_000_000;
            probes += 1;
            let id = RequestId(100 + probes);
            standing.asked(now, id, READ);
            now.0 += 500;
            standing.answered(now, id, None);
        }
        assert!(probes <= 7, "{probes} probes");
    }

    #[test]
    fn a_refusal_is_no_quick_answer() {
        let (mut standing, mut now) = seasoned(10, 9_000);
        let poisoned = ReplicaReply::Refused(Refusal::Poisoned("sync".to_owned()));
        let wrong = ReplicaReply::Refused(Refusal::WrongLayout { version: 2 });
        let mean = standing.mean_us(now, READ);
        standing.asked(now, RequestId(11), READ);
        now.0 += 10;
        standing.replied(now, RequestId(11), &wrong);
        assert!(!standing.is_silent(now, &limits()));
        standing.asked(now, RequestId(12), READ);
        standing.replied(now, RequestId(12), &poisoned);
        assert!(standing.is_silent(now, &limits()));
        assert_eq!(standing.mean_us(now, READ), mean);
        standing.asked(now, RequestId(13), READ);
        standing.replied(now, RequestId(13), &ReplicaReply::Digest([0; 16]));
        assert!(!standing.is_silent(now, &limits()));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (mut standing, mut now) = seasoned(10, 9_000);
        standing.asked(now, RequestId(11), Errand::PassedWrite);
        now.0 += 500_000;
        standing.answered(now, RequestId(11), None);
        let overloaded = Some(&Refusal::Overloaded);
        standing.answered(now, RequestId(12), overloaded);
        standing.asked(now, RequestId(13), Errand::Write);
        let asked_at = now;
        now = asked_at.after(FORGET_AFTER - Duration::from_secs(1));
        assert!(standing.is_silent(now, &limits()));
        assert!(standing.mean_us(now, Errand::PassedWrite).is_some());
        now = asked_at.after(FORGET_AFTER);
        assert!(!standing.is_silent(now, &limits()));
        assert_eq!(standing.mean_us(now, Errand::PassedWrite), None);
        assert!(standing.mean_us(now, READ).is_some(), "probes renew it");
    }

    #[test]
    fn a_lost_connection_ends_all_debts_and_keeps_the_estimate() {
        let (mut standing, mut now) = seasoned(10, 9_000);
        let mean = standing.mean_us(now, READ);
        standing.asked(now, RequestId(11), READ);
        standing.asked(now, RequestId(12), Errand::Write);
        standing.reconnected();
        now.0 += 10_000_000;
        assert!(!standing.is_silent(now, &limits()));
        assert_eq!(standing.mean_us(now, READ), mean);
    }
}
