//! What a node counts of its upkeep: exchanges, what was lost and made good, what is forgotten.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use quorate_node::Event;
use quorate_protocol::UpkeepStatus;

use super::Maker;

/// The metrics.
pub(super) struct Upkeep {
    exchanges: Counter,
    exchanges_broken: Counter,
    keys_reconciled: Counter,
    rounds: Counter,
    bytes: Counter,
    losses_found: Counter,
    refilled: Counter,
    absences_judged: Counter,
    absences_upheld: Counter,
    absences_undecided: Counter,
    reinstated: Counter,
    damage_found: Counter,
    damage_mended: Counter,
    trees_verified: Counter,
    collected: Counter,
    collections_broken: Counter,
    forgotten: Counter,
    asked_again: Counter,
    refilling: Gauge,
    to_fill: Gauge,
    filled: Gauge,
    leftovers: Gauge,
    verified: Gauge,
    judged: Gauge,
    damaged: Gauge,
    with_evidence: Gauge,
    oldest: Gauge,
}

impl Upkeep {
    pub(super) fn new(make: &mut Maker) -> Self {
        Upkeep {
            exchanges: make.counter(
                "exchanges",
                "Exchanges with another replica that this node began and that ended well",
            ),
            exchanges_broken: make.counter(
                "exchanges_broken",
                "Exchanges that were broken off, and are made again later",
            ),
            keys_reconciled: make.counter(
                "exchange_differing_keys",
                "Keys of which the two sides of an exchange held something different",
            ),
            rounds: make.counter(
                "exchange_rounds",
                "Questions that exchanges asked of other nodes",
            ),
            bytes: make.counter(
                "exchange_bytes",
                "Bytes of the questions of exchanges and of their answers",
            ),
            losses_found: make.counter(
                "losses_found",
                "Times that this node learnt that it had lost state that it had acknowledged",
            ),
            refilled: make.counter(
                "partitions_refilled",
                "Partitions of which the others have given back what this node had lost",
            ),
            absences_judged: make.counter(
                "absences_judged",
                "Times that a value came again that was here before, so that the replicas were asked about it",
            ),
            absences_upheld: make.counter(
                "absences_upheld",
                "Of these values, how many were found to be removed",
            ),
            absences_undecided: make.counter(
                "absences_undecided",
                "Times that too few replicas could say whether such a value was removed",
            ),
            reinstated: make.counter(
                "values_reinstated",
                "Of these values, how many were found to be lost here, and given back",
            ),
            damage_found: make.counter(
                "damaged_records_found",
                "Records that were found damaged or missing on this node's disk",
            ),
            damage_mended: make.counter(
                "damaged_records_mended",
                "Damaged records that other replicas have made good",
            ),
            trees_verified: make.counter(
                "partitions_verified",
                "Times that a partition's records were all read and compared with what was written",
            ),
            collected: make.counter(
                "collections",
                "Rounds in which all replicas confirmed removals, and were told to forget them",
            ),
            collections_broken: make.counter(
                "collections_broken",
                "Such rounds that were broken off, or in which nothing could be confirmed",
            ),
            forgotten: make.counter(
                "evidence_forgotten",
                "Keys of which this node forgot removed values, as all replicas have them removed",
            ),
            asked_again: make.counter(
                "reads_asked_again",
                "Times that a read asked a replica again, as another had lost what it had shown",
            ),
            to_fill: make.gauge(
                "partitions_to_fill",
                "While the layout changes: partitions that this node is to hold by the newer one",
            ),
            filled: make.gauge(
                "partitions_filled",
                "Of these, how many it has from all who held them before",
            ),
            leftovers: make.gauge(
                "partitions_to_drop",
                "Partitions that it holds no more, and whose data it has yet to drop",
            ),
            refilling: make.gauge(
                "partitions_refilling",
                "Partitions that answer no read, until others have given back what was lost",
            ),
            verified: make.gauge(
                "verified",
                "1 once enough other nodes have told whether this one has lost anything; until then it answers no read that counts replicas",
            ),
            judged: make.gauge(
                "keys_judged",
                "Keys of which a value came again that was here before, while replicas are asked about it",
            ),
            damaged: make.gauge(
                "damaged_records",
                "Damaged records that are not made good yet",
            ),
            with_evidence: make.gauge(
                "partitions_with_evidence",
                "Partitions with removed values that wait to be forgotten",
            ),
            oldest: make.gauge(
                "exchange_age_max_seconds",
                "Time since the pair of replicas was found equal that was so longest ago, of this node's; -1 if it has none",
            ),
        }
    }

    /// What counts this event, if it is one of upkeep.
    pub(super) fn counter(&self, event: Event) -> Option<&Counter> {
        Some(match event {
            Event::Exchanged => &self.exchanges,
            Event::ExchangeBroken => &self.exchanges_broken,
            Event::KeyReconciled => &self.keys_reconciled,
            Event::LossFound => &self.losses_found,
            Event::Refilled => &self.refilled,
            Event::AbsenceJudged => &self.absences_judged,
            Event::AbsenceUpheld => &self.absences_upheld,
            Event::AbsenceUndecided => &self.absences_undecided,
            Event::Reinstated => &self.reinstated,
            Event::DamageFound => &self.damage_found,
            Event::DamageMended => &self.damage_mended,
            Event::TreeVerified => &self.trees_verified,
            Event::Collected => &self.collected,
            Event::CollectBroken => &self.collections_broken,
            Event::Forgotten => &self.forgotten,
            Event::AskedAgain => &self.asked_again,
            _ => return None,
        })
    }

    /// What the node says of itself now.
    pub(super) fn found(&self, status: &UpkeepStatus, with_evidence: usize) {
        let store = |counter: &Counter, number: u64| {
            counter.inner().store(number, Ordering::Relaxed);
        };
        store(&self.rounds, status.exchange_rounds);
        store(&self.bytes, status.exchange_bytes);
        let set = |gauge: &Gauge, number: u64| {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        set(&self.refilling, status.refilling);
        set(&self.to_fill, status.to_fill);
        set(&self.filled, status.filled);
        set(&self.leftovers, status.leftovers);
        set(&self.verified, u64::from(!status.unverified));
        set(&self.judged, status.keys_judged);
        set(&self.damaged, status.damaged_keys);
        set(&self.with_evidence, with_evidence as u64);
        match &status.oldest {
            Some(oldest) => set(&self.oldest, oldest.seconds),
            None => {
                self.oldest.set(-1);
            }
        }
    }
}
