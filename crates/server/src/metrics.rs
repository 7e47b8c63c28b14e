//! What a node counts of itself, for `/metrics`: OpenMetrics text, which Prometheus reads.
//!
//! A registry for each node, since several may run in one process. Requests pass here on the node's one thread and are
//! counted by adding to an atomic that was found when the node started: no label is looked up and nothing is locked but while
//! somebody scrapes. Labels have few values that this program chooses; no bucket and no key is one.
//!
//! `docs/metrics.md` lists them all; a test compares it with what is exported.

mod make;
mod upkeep;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use quorate_node::Event;
use quorate_protocol::{Answer, PendingHints, Refusal, ReplicaRequest, Request, UpkeepStatus};
use quorate_storage::rocks::{Counters, Distribution, Stats};

use make::{Label, Maker, Number, Seconds, Sizes};

/// Microseconds. From a read in memory to the longest timeout.
const REQUEST_BOUNDS_US: &[u64] = &[
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 30_000_000,
];

const OPERATIONS: [&str; 12] = [
    "get", "put", "delete", "list", "bucket", "buckets", "status", "describe", "repair", "apply",
    "layouts", "pace",
];
const OUTCOMES: [&str; 4] = ["ok", "absent", "refused", "unmet"];
const REPLICA_REQUESTS: [&str; 9] = [
    "merge", "read", "scan", "bucket", "buckets", "status", "recall", "upkeep", "layout",
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Which operation a client asked for: an index of [`OPERATIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Operation(usize);

impl Operation {
    pub(crate) fn of(request: &Request) -> Self {
        Operation(match request {
            Request::Get(_) => 0,
            Request::Put(_) => 1,
            Request::Delete(_) => 2,
            Request::List(_) => 3,
            Request::Bucket(_) => 4,
            Request::Buckets => 5,
            Request::Status => 6,
            Request::Describe => 7,
            Request::Repair(_) => 8,
            Request::Apply(_) => 9,
            Request::Layouts => 10,
            Request::Pace(_) => 11,
        })
    }
}

fn outcome(answer: &Answer) -> usize {
    match answer {
        Answer::Absent => 1,
        Answer::Refused(_) => 2,
        Answer::Unmet(_) => 3,
        _ => 0,
    }
}

/// The reasons of refusals, in the order of [`reason`].
const REASONS: [&str; 19] = [
    "malformed",
    "bad_context",
    "too_large",
    "impossible",
    "too_many_siblings",
    "siblings_too_large",
    "unavailable",
    "overloaded",
    "draining",
    "disk_failed",
    "wrong_layout",
    "corrupt",
    "not_allowed",
    "condition_failed",
    "conflict",
    "not_found",
    "bucket_changed",
    "disk_full",
    "hints_full",
];

fn reason(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::Malformed(_) => 0,
        Refusal::BadContext(_) => 1,
        Refusal::TooLarge { .. } => 2,
        Refusal::Impossible(_) => 3,
        Refusal::TooManySiblings { .. } => 4,
        Refusal::SiblingsTooLarge { .. } => 5,
        Refusal::Unavailable { .. } => 6,
        Refusal::Overloaded => 7,
        Refusal::Draining => 8,
        Refusal::Poisoned(_) => 9,
        Refusal::WrongLayout { .. } => 10,
        Refusal::Corrupt(_) => 11,
        Refusal::NotAllowed(_) => 12,
        Refusal::ConditionFailed(_) => 13,
        Refusal::Conflict(_) => 14,
        Refusal::NotFound(_) => 15,
        Refusal::BucketChanged(_) => 16,
        Refusal::DiskFull { .. } => 17,
        Refusal::HintsFull { .. } => 18,
    }
}

/// What is told of a node once, as labels.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) zone: String,
}

/// What the driver looks up once a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) stats: Stats,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) reserve_bytes: u64,
    pub(crate) uptime: Duration,
    pub(crate) ready: bool,
    pub(crate) peers: usize,
    pub(crate) peers_up: usize,
    pub(crate) layout_version: u64,
    pub(crate) node_connections: usize,
    pub(crate) client_connections: usize,
}

/// The metrics of one node.
pub(crate) struct Metrics {
    /// Everybody for whom hints were told.
    hints_of: Mutex<BTreeSet<String>>,
    registry: Registry,
    requests: [[Counter; OUTCOMES.len()]; OPERATIONS.len()],
    durations: [Seconds; OPERATIONS.len()],
    refused: [Counter; REASONS.len()],
    replica_requests: [Counter; REPLICA_REQUESTS.len()],
    in_flight: Gauge,
    put_bytes: Counter,
    get_bytes: Counter,
    reads_with_siblings: Counter,
    quic_received: Counter,
    quic_sent: Counter,
    events: Events,
    upkeep: upkeep::Upkeep,
    slow: Counter,
    overdue: Counter,
    http: [Counter; CLASSES.len()],
    gauges: Gauges,
    /// By the name of the node they are for.
    hints: Family<PeerLabel, Gauge>,
    hint_bytes: Family<PeerLabel, Gauge>,
}

struct Events {
    forwarded: Counter,
    forwarded_again: Counter,
    disagreements: Counter,
    read_repairs: Counter,
    repairs_dropped: Counter,
    hedges_sent: Counter,
    hedges_won: Counter,
    hedges_refused: Counter,
    probes: Counter,
    reads_widened: Counter,
    asked_after_return: Counter,
    sibling_puts: Counter,
    unmet: Counter,
    unavailable: Counter,
    disk_full: Counter,
    changes_again: Counter,
    buckets_learnt: Counter,
    buckets_changed: Counter,
    conditions_held: Counter,
    conditions_failed: Counter,
    expired_hidden: Counter,
    expired_dropped: Counter,
    explained: Counter,
    list_disagreements: Counter,
    list_replicas_lost: Counter,
    lists_widened: Counter,
    reclaimed: Counter,
    hints_asked: Counter,
    hints_not_asked: Counter,
    hints_kept: Counter,
    hints_refused: Counter,
    handed_off: Counter,
    handoffs_again: Counter,
    handoffs_refused: Counter,
    hints_dropped: Counter,
    fallback_coordinated: Counter,
    fallback_reads: Counter,
    layouts_begun: Counter,
    layouts_complete: Counter,
    layouts_retired: Counter,
    layouts_unsound: Counter,
    turned_away: Counter,
    reads_moved: Counter,
    vnodes_dropped: Counter,
    hints_readdressed: Counter,
}

struct Gauges {
    ready: Gauge,
    uptime: Gauge,
    peers: Gauge,
    peers_up: Gauge,
    layout_version: Gauge,
    node_connections: Gauge,
    client_connections: Gauge,
    records: Gauge,
    disk: Gauge,
    free: Gauge,
    reserve: Gauge,
    waiting: Gauge,
    write_buffer: Gauge,
    block_cache: Gauge,
}

type PeerLabel = [(&'static str, String); 1];
impl Metrics {
    pub(crate) fn new(who: Who, storage: Arc<Counters>) -> Self {
        let mut make = Maker(Registry::with_prefix("quorate"));
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        make.0.register("build", "The release that runs", info);
        let info = Info::new(vec![
            ("id", who.id.to_string()),
            ("name", who.name),
            ("region", who.region),
            ("zone", who.zone),
        ]);
        make.0.register("node", "Which node this is", info);

        let family = Family::<Label<2>, Counter>::default();
        let help =
            "Requests of this node's own clients that were answered, by operation and outcome";
        make.0.register("requests", help, family.clone());
        let requests = OPERATIONS.map(|operation| {
            OUTCOMES.map(|outcome| {
                family.get_or_create_owned(&[("operation", operation), ("outcome", outcome)])
            })
        });
        let family = Family::<Label<1>, Seconds, fn() -> Seconds>::new_with_constructor(|| {
            Seconds(Arc::new(Distribution::new(REQUEST_BOUNDS_US)))
        });
        let help = "Time from taking a request of an own client to its answer, by operation";
        make.0
            .register("request_duration_seconds", help, family.clone());
        let durations =
            OPERATIONS.map(|operation| family.get_or_create_owned(&[("operation", operation)]));

        let (hints, hint_bytes) = (Family::default(), Family::default());
        let help = "Hints kept for other nodes, by the node they are for";
        make.0.register("hints_pending", help, hints.clone());
        let help = "Bytes of hints kept for other nodes, by the node they are for";
        make.0
            .register("hints_pending_bytes", help, hint_bytes.clone());

        let metrics = Metrics {
            hints_of: Mutex::default(),
            hints,
            hint_bytes,
            requests,
            durations,
            refused: make.counters(
                "refused",
                "Requests of own clients that were refused: nothing was done. By reason",
                "reason",
                REASONS,
            ),
            replica_requests: make.counters(
                "replica_requests",
                "What other nodes asked of this one as a replica, by kind",
                "kind",
                REPLICA_REQUESTS,
            ),
            in_flight: make.gauge(
                "requests_in_flight",
                "Requests that this node coordinates or has passed on, now",
            ),
            put_bytes: make.counter("put_bytes", "Bytes of the values that own clients sent"),
            get_bytes: make.counter("get_bytes", "Bytes of the values that own clients were shown"),
            reads_with_siblings: make.counter(
                "reads_with_siblings",
                "Answers to own clients that showed more than one value",
            ),
            quic_received: make.counter(
                "quic_received_bytes",
                "Bytes of messages that came from nodes and native clients",
            ),
            quic_sent: make.counter(
                "quic_sent_bytes",
                "Bytes of messages that were sent to nodes and native clients",
            ),
            events: Events {
                forwarded: make.counter(
                    "forwarded",
                    "Requests that were passed on to a replica of their key",
                ),
                forwarded_again: make.counter(
                    "forwarded_again",
                    "Times that a request that was passed on was tried at another node",
                ),
                disagreements: make.counter(
                    "disagreements",
                    "Reads to which replicas showed different values",
                ),
                read_repairs: make.counter(
                    "read_repairs",
                    "Times that a stale replica was sent what it lacked after a read",
                ),
                repairs_dropped: make.counter(
                    "read_repairs_dropped",
                    "Repairs that were not sent, as too many or too many bytes were on their way",
                ),
                hedges_sent: make.counter(
                    "hedges_sent",
                    "Reads for which one more node was asked, as one was overdue",
                ),
                hedges_won: make.counter(
                    "hedges_won",
                    "Hedges that were answered before what was overdue",
                ),
                hedges_refused: make.counter(
                    "hedges_refused",
                    "Reads that were not hedged, as hedges had used up their budget",
                ),
                probes: make.counter(
                    "probes",
                    "Times that a replica was asked only to see how it does",
                ),
                reads_widened: make.counter(
                    "reads_widened",
                    "Reads that asked all replicas because those asked first were slow",
                ),
                asked_after_return: make.counter(
                    "asked_after_return",
                    "Reads that had lost their replicas and went on with one that came back",
                ),
                sibling_puts: make.counter("sibling_puts", "Puts that left more than one value"),
                unmet: make.counter(
                    "unmet",
                    "Requests that ended without enough replicas after something was sent: of unknown outcome",
                ),
                unavailable: make.counter(
                    "unavailable",
                    "Requests refused because too few replicas were in reach",
                ),
                disk_full: make.counter(
                    "disk_full_refusals",
                    "Values refused because this node's disk is nearly full",
                ),
                changes_again: make.counter(
                    "bucket_changes_again",
                    "Changes of a bucket that met another's and were proposed again on top of it",
                ),
                buckets_learnt: make.counter(
                    "buckets_learnt",
                    "Changes of buckets that this node had missed and learnt from another's table",
                ),
                buckets_changed: make.counter(
                    "requests_in_changed_buckets",
                    "Requests that met a replica that knew a later life of their bucket",
                ),
                conditions_held: make.counter(
                    "conditions_held",
                    "Writes whose condition held when a quorum was read",
                ),
                conditions_failed: make.counter(
                    "conditions_failed",
                    "Writes whose condition did not hold: nothing was done",
                ),
                expired_hidden: make.counter(
                    "expired_hidden",
                    "Reads that hid a value whose time was up",
                ),
                expired_dropped: make.counter(
                    "expired_dropped",
                    "Values dropped from this node since their time was up on every clock",
                ),
                explained: make.counter(
                    "explained",
                    "Answers with an account of how they came about",
                ),
                list_disagreements: make.counter(
                    "list_disagreements",
                    "Keys on whose being there replicas disagreed in a listing, so that they were read",
                ),
                list_replicas_lost: make.counter(
                    "list_replicas_lost",
                    "Replicas that were lost to a listing while it ran",
                ),
                reclaimed: make.counter(
                    "dropped_lives_reclaimed",
                    "Dropped buckets of which nothing is left on this node any more",
                ),
                hints_asked: make.counter(
                    "hints_asked",
                    "Hints that this node's requests asked fallbacks to keep for primaries out of reach",
                ),
                hints_not_asked: make.counter(
                    "hints_not_asked",
                    "Hints not asked for, since too many were waited for already",
                ),
                hints_kept: make.counter(
                    "hints_kept",
                    "Hints that other requests' coordinators had this node keep",
                ),
                hints_refused: make.counter(
                    "hints_refused",
                    "Hints that a fallback refused to this node's requests, as it keeps as many for that node as it may",
                ),
                handed_off: make.counter(
                    "hints_handed_off",
                    "Hints that their owners have on disk, and that are gone from here",
                ),
                handoffs_again: make.counter(
                    "hints_changed_in_handoff",
                    "Hints that changed while they were handed over, and are sent again",
                ),
                handoffs_refused: make.counter(
                    "hint_handoffs_refused",
                    "Hints that their owners refused for now",
                ),
                hints_dropped: make.counter(
                    "hints_dropped",
                    "Hints that were dropped because their bucket was",
                ),
                fallback_coordinated: make.counter(
                    "fallback_coordinated",
                    "Requests that this node coordinated for primaries none of which was in reach",
                ),
                fallback_reads: make.counter(
                    "fallback_reads",
                    "Times that a read asked a fallback for what it keeps",
                ),
                lists_widened: make.counter(
                    "lists_widened",
                    "Listings that asked more replicas because those asked first were slow",
                ),
                layouts_begun: make.counter(
                    "layout_changes",
                    "Changes of the layout that this node learnt of",
                ),
                layouts_complete: make.counter(
                    "layout_changes_complete",
                    "Changes of which it learnt that every node has what it is to hold, so that reads moved",
                ),
                layouts_retired: make.counter(
                    "layout_changes_done",
                    "Changes of which it learnt that they are done: the layout before is not asked any more",
                ),
                layouts_unsound: make.counter(
                    "layouts_unsound",
                    "Accounts of layouts from other nodes that cannot be true together with this node's; a bug, or another cluster",
                ),
                turned_away: make.counter(
                    "layout_turned_away",
                    "Times that another node refused something of this one's since the two knew different layouts",
                ),
                reads_moved: make.counter(
                    "layout_reads_moved",
                    "Reads that were begun anew since reads moved to another layout",
                ),
                vnodes_dropped: make.counter(
                    "partitions_dropped",
                    "Partitions that this node holds no more, and whose data it has dropped",
                ),
                hints_readdressed: make.counter(
                    "hints_readdressed",
                    "Hints that went to another node than the one they were kept for, which is no replica any more",
                ),
            },
            upkeep: upkeep::Upkeep::new(&mut make),
            slow: make.counter(
                "slow_requests",
                "Requests that took longer than slow_request, logged or not",
            ),
            overdue: make.counter(
                "replica_requests_overdue",
                "What other nodes asked and waited for no more when its turn came: it was not done",
            ),
            http: make.counters(
                "http_responses",
                "HTTP responses, by the class of their status",
                "class",
                CLASSES,
            ),
            gauges: Gauges {
                ready: make.gauge("ready", "1 if a majority of the cluster is in reach and the disk works"),
                uptime: make.gauge("uptime_seconds", "Time since this node started"),
                layout_version: make.gauge("layout_version", "The latest layout that this node knows"),
                peers: make.gauge("peers", "Other nodes in the live layouts"),
                peers_up: make.gauge("peers_up", "Other nodes that this one reaches"),
                node_connections: make.gauge(
                    "node_connections",
                    "Open connections with other nodes, both ways",
                ),
                client_connections: make.gauge(
                    "client_connections",
                    "Open connections of native clients",
                ),
                records: make.gauge(
                    "records",
                    "Records held, approximately: overwritten and removed ones count until they are compacted",
                ),
                disk: make.gauge("disk_bytes", "Bytes that this node's data takes on its disk"),
                free: make.gauge(
                    "disk_free_bytes",
                    "Bytes free on the file system of the data directory; -1 if it does not say",
                ),
                reserve: make.gauge(
                    "disk_reserve_bytes",
                    "Bytes that must stay free: below them values are refused",
                ),
                waiting: make.gauge(
                    "storage_waiting_bytes",
                    "Bytes committed and not yet being written",
                ),
                write_buffer: make.gauge(
                    "storage_write_buffer_bytes",
                    "Memory that holds what is only in the log",
                ),
                block_cache: make.gauge("storage_block_cache_bytes", "Memory that holds what was read"),
            },
            registry: {
                storage_counters(&mut make, &storage);
                process(&mut make);
                make.0
            },
        };
        metrics.gauges.free.set(-1);
        metrics
    }

    /// Everything as text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::with_capacity(32 * 1024);
        text::encode(&mut out, &self.registry).expect("writing to memory succeeds");
        out
    }

    /// An own client asks.
    pub(crate) fn asked(&self, request: &Request) {
        if let Request::Put(put) = request {
            self.put_bytes.inc_by(put.value.data.len() as u64);
        }
    }

    /// An own client is answered.
    pub(crate) fn answered(&self, operation: Operation, took: Duration, answer: &Answer) {
        self.requests[operation.0][outcome(answer)].inc();
        self.durations[operation.0].0.count_us(took);
        match answer {
            Answer::Found { siblings, .. } => {
                let bytes: usize = siblings.iter().map(|s| s.value.data.len()).sum();
                self.get_bytes.inc_by(bytes as u64);
                if siblings.len() > 1 {
                    self.reads_with_siblings.inc();
                }
            }
            Answer::Refused(refusal) => {
                self.refused[reason(refusal)].inc();
            }
            _ => {}
        }
    }

    /// Another node asks this one as a replica.
    pub(crate) fn replica_asked(&self, request: &ReplicaRequest) {
        let at = match request {
            ReplicaRequest::Merge(_) => 0,
            ReplicaRequest::Read(_) => 1,
            ReplicaRequest::Scan(_) => 2,
            ReplicaRequest::Bucket(_) => 3,
            ReplicaRequest::Buckets(_) => 4,
            ReplicaRequest::Status => 5,
            ReplicaRequest::Recall(_) => 6,
            ReplicaRequest::Upkeep(_) => 7,
            ReplicaRequest::Layout(_) => 8,
        };
        self.replica_requests[at].inc();
    }

    pub(crate) fn event(&self, event: Event) {
        let events = &self.events;
        let counter = match event {
            Event::Forwarded => &events.forwarded,
            Event::ForwardedAgain => &events.forwarded_again,
            Event::Disagreement => &events.disagreements,
            Event::ReadRepair => &events.read_repairs,
            Event::RepairDropped => &events.repairs_dropped,
            Event::HedgeSent => &events.hedges_sent,
            Event::HedgeWon => &events.hedges_won,
            Event::HedgeRefused => &events.hedges_refused,
            Event::Probed => &events.probes,
            Event::ReadWidened => &events.reads_widened,
            Event::AskedAfterReturn => &events.asked_after_return,
            Event::Siblings => &events.sibling_puts,
            Event::Unmet => &events.unmet,
            Event::Unavailable => &events.unavailable,
            Event::DiskFull => &events.disk_full,
            Event::ChangeAgain => &events.changes_again,
            Event::BucketLearnt => &events.buckets_learnt,
            Event::BucketChanged => &events.buckets_changed,
            Event::ConditionHeld => &events.conditions_held,
            Event::ConditionFailed => &events.conditions_failed,
            Event::ExpiredHidden => &events.expired_hidden,
            Event::ExpiredDropped => &events.expired_dropped,
            Event::Explained => &events.explained,
            Event::ListDisagreement => &events.list_disagreements,
            Event::ListReplicaLost => &events.list_replicas_lost,
            Event::ListWidened => &events.lists_widened,
            Event::Reclaimed => &events.reclaimed,
            Event::HintAsked => &events.hints_asked,
            Event::HintNotAsked => &events.hints_not_asked,
            Event::HintKept => &events.hints_kept,
            Event::HintRefused => &events.hints_refused,
            Event::HandedOff => &events.handed_off,
            Event::HandoffAgain => &events.handoffs_again,
            Event::HandoffRefused => &events.handoffs_refused,
            Event::HintDropped => &events.hints_dropped,
            Event::FallbackCoordinated => &events.fallback_coordinated,
            Event::FallbackRead => &events.fallback_reads,
            Event::LayoutBegun => &events.layouts_begun,
            Event::LayoutComplete => &events.layouts_complete,
            Event::LayoutRetired => &events.layouts_retired,
            Event::LayoutsUnsound => &events.layouts_unsound,
            Event::TurnedAway => &events.turned_away,
            Event::ReadMoved => &events.reads_moved,
            Event::VnodeDropped => &events.vnodes_dropped,
            Event::HintReaddressed => &events.hints_readdressed,
            Event::Exchanged
            | Event::ExchangeBroken
            | Event::KeyReconciled
            | Event::LossFound
            | Event::Refilled
            | Event::AbsenceJudged
            | Event::AbsenceUpheld
            | Event::AbsenceUndecided
            | Event::Reinstated
            | Event::DamageFound
            | Event::DamageMended
            | Event::TreeVerified
            | Event::Collected
            | Event::CollectBroken
            | Event::Forgotten
            | Event::AskedAgain => match self.upkeep.counter(event) {
                Some(counter) => counter,
                None => return,
            },
        };
        counter.inc();
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.quic_received.inc_by(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.quic_sent.inc_by(bytes as u64);
    }

    pub(crate) fn in_flight(&self, requests: usize) {
        self.in_flight.set(requests as i64);
    }

    pub(crate) fn slow(&self) {
        self.slow.inc();
    }

    pub(crate) fn overdue(&self) {
        self.overdue.inc();
    }

    pub(crate) fn responded(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len());
        self.http[class - 1].inc();
    }

    /// What this node keeps for others now. Every one of `peers` has its number, also where that is 0; and so has whoever was named before.
    pub(crate) fn hints<'a>(
        &self,
        peers: impl IntoIterator<Item = &'a String>,
        pending: &[PendingHints],
    ) {
        let mut named = self.hints_of.lock().unwrap_or_else(PoisonError::into_inner);
        named.extend(peers.into_iter().cloned());
        named.extend(pending.iter().map(|hints| hints.node.clone()));
        for peer in &*named {
            let hints = pending.iter().find(|hints| hints.node == *peer);
            let label = [("peer", peer.clone())];
            let set = |family: &Family<PeerLabel, Gauge>, number: u64| {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                family.get_or_create(&label).set(number);
            };
            set(&self.hints, hints.map_or(0, |h| h.count));
            set(&self.hint_bytes, hints.map_or(0, |h| h.bytes));
        }
    }

    /// What the node says of its upkeep, and in how many partitions there is evidence.
    pub(crate) fn upkeep(&self, status: &UpkeepStatus, with_evidence: usize) {
        self.upkeep.found(status, with_evidence);
    }

    pub(crate) fn found(&self, found: &Found) {
        let gauges = &self.gauges;
        let set = |gauge: &Gauge, number: u64| {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        set(&gauges.ready, u64::from(found.ready));
        set(&gauges.uptime, found.uptime.as_secs());
        set(&gauges.layout_version, found.layout_version);
        set(&gauges.peers, found.peers as u64);
        set(&gauges.peers_up, found.peers_up as u64);
        set(&gauges.node_connections, found.node_connections as u64);
        set(&gauges.client_connections, found.client_connections as u64);
        set(&gauges.records, found.stats.records_estimate);
        set(&gauges.disk, found.stats.disk_bytes);
        set(&gauges.reserve, found.reserve_bytes);
        set(&gauges.waiting, found.stats.waiting_bytes);
        set(&gauges.write_buffer, found.stats.write_buffer_bytes);
        set(&gauges.block_cache, found.stats.block_cache_bytes);
        match found.free_bytes {
            Some(free) => set(&gauges.free, free),
            None => {
                gauges.free.set(-1);
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn storage_counters(make: &mut Maker, storage: &Arc<Counters>) {
    let of = |read: fn(&Counters) -> &AtomicU64| {
        let storage = storage.clone();
        move || Number::Counter(read(&storage).load(Ordering::Relaxed) as f64)
    };
    make.told("storage_commits", "Batches committed", of(|c| &c.commits));
    make.told(
        "storage_commit_bytes",
        "Bytes of keys and values committed",
        of(|c| &c.commit_bytes),
    );
    make.told(
        "storage_syncs",
        "Writes that waited for the disk, and syncs without a write",
        of(|c| &c.syncs),
    );
    make.0.register(
        "storage_batches_per_write",
        "How many batches shared one write",
        Sizes(storage.clone(), |c| &c.batches_per_write, 1.0),
    );
    make.0.register(
        "storage_sync_duration_seconds",
        "Time of a write with its sync, or of a sync alone",
        Sizes(storage.clone(), |c| &c.synced_us, MICRO),
    );
    make.0.register(
        "storage_write_duration_seconds",
        "Time of a write without a sync",
        Sizes(storage.clone(), |c| &c.unsynced_us, MICRO),
    );
}

/// Several nodes of one process, as in `quorate dev`, tell the same here.
fn process(make: &mut Maker) {
    make.told(
        "process_cpu_seconds",
        "CPU time of the whole process, in user and system mode",
        || {
            let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Number::Counter(spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9)
        },
    );
    make.told(
        "process_resident_memory_bytes",
        "Memory of the whole process that is resident; -1 if the system does not say",
        || Number::Gauge(resident_bytes().map_or(-1, |bytes| bytes as i64)),
    );
    make.told(
        "process_open_files",
        "Files and sockets that the process has open; -1 if the system does not say",
        || {
            let open = std::fs::read_dir("/proc/self/fd");
            Number::Gauge(open.map_or(-1, |open| open.count() as i64))
        },
    );
}

/// The second number of `statm` is pages in memory.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

const MICRO: f64 = 1e-6;
