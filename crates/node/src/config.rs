//! What a node is told about itself when it starts.

use std::time::Duration;

use quorate_causal::ContextKey;
use quorate_protocol::{
    META_BYTES_MAX, Quorum, SIBLINGS_BYTES_FACTOR, SIBLINGS_MAX, TIMEOUT_DEFAULT, TIMEOUT_MAX,
    TTL_SKEW_MAX, VALUE_BYTES_MAX,
};
use quorate_ring::NodeId;

/// A node's settings. All nodes of a cluster should agree on all but `me`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which node of the layout this is.
    pub me: NodeId,
    /// By which contexts are recognised.
    pub secret: ContextKey,
    /// What a bucket has that nobody created.
    pub defaults: BucketDefaults,
    /// Bounds on what a request may ask.
    pub limits: Limits,
    /// Whether this node does upkeep: tells others how far it is, exchanges with them, collects evidence. Without, it is for tests of other
    /// things.
    pub upkeep: bool,
    /// Whether what this node acknowledged last may be lost: it acknowledges before a sync, and the machine went down.
    pub unclean: bool,
}

/// The properties of a bucket that nobody created.
#[derive(Clone, Debug)]
pub struct BucketDefaults {
    /// Copies in each region.
    pub n: u8,
    /// Replicas that must answer a read.
    pub r: Quorum,
    /// Replicas that must take a write.
    pub w: Quorum,
    /// Of those that answer a read, how many must be primaries.
    pub pr: Quorum,
    /// Of those that take a write, how many must be primaries.
    pub pw: Quorum,
    /// Of those that take a write, how many must have it synced.
    pub dw: Quorum,
    /// Whether other nodes may stand in for primaries out of reach.
    pub sloppy: bool,
}

impl Default for BucketDefaults {
    fn default() -> Self {
        BucketDefaults {
            n: 3,
            r: Quorum::Majority,
            w: Quorum::Majority,
            pr: Quorum::Count(0),
            pw: Quorum::Count(0),
            dw: Quorum::Count(0),
            sloppy: true,
        }
    }
}

/// Bounds on what a request may ask.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest value, in bytes.
    pub value_bytes_max: usize,
    /// The most bytes of content type and metadata of one value.
    pub meta_bytes_max: usize,
    /// The most siblings a put may leave. Merges never drop any, so a key may come to have more.
    pub siblings_max: usize,
    /// The most bytes that all siblings may have when a put adds one: records travel whole. Merges never drop any.
    pub siblings_bytes_max: usize,
    /// The most requests this node coordinates or forwards at one time; more are refused, so that those
    /// accepted still finish in time.
    pub requests_max: usize,
    /// The most bytes of values that the puts under way may hold together: with values of several megabytes, memory runs
    /// out long before `requests_max` is reached.
    pub requests_bytes_max: usize,
    /// The time a request has that does not say.
    pub timeout: Duration,
    /// The most time a request may ask for.
    pub timeout_max: Duration,
    /// How long a read waits for the replicas it asked before it asks the others too; longer only where answers of these are
    /// known to take longer. Well above a healthy answer on a LAN, well below the second after which the transport gives a silent peer up.
    pub read_patience: Duration,
    /// The least and the most time that a replica is given before a read asks one more in its place; between them it is the tail of its own
    /// answers. Timers go by the millisecond, and healthy nodes are held up for a few now and then: with less, hedges would go to waste.
    /// Half the time after which the transport gives a peer up is the most for which hedging makes sense.
    pub hedge_delay_min: Duration,
    /// See `hedge_delay_min`.
    pub hedge_delay_max: Duration,
    /// How many hedges a hundred reads may have, so that a cluster that is slow since it has too much to do is not given more; 0 for none.
    pub hedge_percent: u32,
    /// How many hedges may go out beyond that at once, if there were none for a while: as many as are under way to one node when it
    /// stops, at some thousand reads a second.
    pub hedge_burst: u32,
    /// How many repairs may be on their way to one replica. What exceeds it is dropped, and found again by later reads.
    pub repairs_max: usize,
    /// How many bytes of repairs this node sends in a second, to all replicas together.
    pub repair_bytes_per_second: u64,
    /// The same for a listing, whose replicas have more to do. A peer that is gone is given up by the transport before.
    pub list_patience: Duration,
    /// How long a read that has lost its replicas waits for one of them to come back. A node that was stopped for a while
    /// loses all its connections when it wakes, and has them again some 50 ms later, or some 300 ms with a lost packet;
    /// with more than a second, requests would pile up in front of nodes that are truly gone.
    pub return_patience: Duration,
    /// How many records a job such as a scan looks at before requests have their turn: with 512, about half a
    /// millisecond's worth.
    pub slice_units: usize,
    /// How far the clocks of the cluster may be apart; see [`TTL_SKEW_MAX`]. All nodes must agree on it.
    pub ttl_skew_max: Duration,
    /// The most bytes of hints that this node keeps for one other, keys and records together; more are refused, and the
    /// writes they are of count fewer acknowledgements.
    pub hint_bytes_max: u64,
    /// The most hints that this node's requests may have asked others to keep and wait for; beyond it no more are asked for.
    /// What is slow already is not given more to do.
    pub hint_writes_max: usize,
    /// How many bytes of hints this node hands over in a second, to all their owners together.
    pub handoff_bytes_per_second: u64,
    /// In what time this node exchanges once with every other replica of each of its vnodes.
    pub exchange_cycle: Duration,
    /// While the layout changes: how many bytes of exchanges this node begins in a second, to fill its vnodes.
    pub fill_bytes_per_second: u64,
    /// In what time it compares each of its trees with the records themselves.
    pub verify_cycle: Duration,
    /// How long evidence waits before it is collected: long enough that most writes have come everywhere.
    pub collect_after: Duration,
    /// The evidence of how many keys this node collects in a second.
    pub collect_keys_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            value_bytes_max: VALUE_BYTES_MAX,
            meta_bytes_max: META_BYTES_MAX,
            siblings_max: SIBLINGS_MAX,
            siblings_bytes_max: SIBLINGS_BYTES_FACTOR * VALUE_BYTES_MAX,
            requests_max: 16 * 1024,
            requests_bytes_max: 512 * 1024 * 1024,
            timeout: TIMEOUT_DEFAULT,
            timeout_max: TIMEOUT_MAX,
            read_patience: Duration::from_millis(100),
            hedge_delay_min: Duration::from_millis(5),
            hedge_delay_max: Duration::from_millis(400),
            hedge_percent: 10,
            hedge_burst: 32,
            repairs_max: 64,
            repair_bytes_per_second: 10 * 1024 * 1024,
            list_patience: Duration::from_secs(1),
            return_patience: Duration::from_millis(700),
            slice_units: 512,
            ttl_skew_max: TTL_SKEW_MAX,
            hint_bytes_max: 256 * 1024 * 1024,
            hint_writes_max: 1024,
            handoff_bytes_per_second: 10 * 1024 * 1024,
            exchange_cycle: Duration::from_secs(30),
            fill_bytes_per_second: 20 * 1024 * 1024,
            verify_cycle: Duration::from_secs(6 * 3600),
            collect_after: Duration::from_secs(1),
            collect_keys_per_second: 4096,
        }
    }
}
