//! Clusters whose nodes do their upkeep. It is begun on wakes alone, so that time has to pass for anything to happen, and each
//! kind of it comes as seldom or as often as the test says.

use std::time::Duration;

use quorate_causal::Record;
use quorate_node::Limits;
use quorate_protocol::{Message, ReplicaReply, ReplicaRequest, Upkeep, UpkeepReply, VnodeId};

use crate::cluster::{BUCKET, Cluster, Envelope};

/// How much time passes from one wake to the next.
const STEP: Duration = Duration::from_millis(5);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Nothing happens by turn: exchanges when nodes meet, and neither collecting nor comparing trees with records.
pub(crate) fn calm() -> Limits {
    Limits {
        exchange_cycle: NEVER,
        verify_cycle: NEVER,
        collect_after: NEVER,
        ..Limits::default()
    }
}

/// The same, but evidence is collected soon.
pub(crate) fn collecting() -> Limits {
    Limits {
        collect_after: SECOND / 2,
        ..calm()
    }
}

impl Cluster {
    /// So many nodes that have met, with nothing under way.
    pub(crate) fn at_rest(nodes: usize, limits: Limits) -> Self {
        let mut c = Cluster::tended(nodes, limits);
        c.quietly(|c| c.tend(2 * SECOND));
        c
    }

    /// Time passes for whoever has something to do.
    pub(crate) fn tend(&mut self, time: Duration) {
        self.tend_but(time, |_| false);
    }

    /// The same, while some messages stay on the wire.
    pub(crate) fn tend_but(&mut self, time: Duration, mut stays: impl FnMut(&Envelope) -> bool) {
        let until = self.now.after(time);
        while self.now < until {
            self.settle_but(&mut stays);
            let logged = self.log.len();
            self.pass(STEP);
            if self.log[logged..].lines().count() == 1 {
                // Nothing but that time passed.
                self.log.truncate(logged);
            }
        }
        self.settle_but(&mut stays);
    }

    /// As [`Cluster::settle`], but some messages stay on the wire.
    pub(crate) fn settle_but(&mut self, stays: &mut impl FnMut(&Envelope) -> bool) {
        loop {
            while let Some(at) = self.wire.iter().position(|e| !stays(e)) {
                self.deliver_nth(at);
            }
            let disks = (0..self.disks.len()).filter(|at| {
                let pending = self.disks[*at].pending();
                pending.progress.synced < pending.last
            });
            let behind: Vec<usize> = disks.collect();
            if behind.is_empty() {
                return;
            }
            for at in behind {
                self.sync(at);
            }
        }
    }

    /// Nobody reaches this node any more, nor it anybody.
    pub(crate) fn leave(&mut self, node: usize) {
        self.away.insert(node);
        self.wire.retain(|e| e.from != node && e.to != node);
        for other in (0..self.nodes.len()).filter(|n| *n != node) {
            self.down(other, node);
            self.down(node, other);
        }
    }

    /// It is back, for all that are not away themselves.
    pub(crate) fn come_back(&mut self, node: usize) {
        self.away.remove(&node);
        for other in (0..self.nodes.len()).filter(|n| *n != node) {
            if !self.away.contains(&other) {
                self.up(other, node);
                self.up(node, other);
            }
        }
    }

    /// One node finds another in reach and compares with it what both hold. That one does not begin to.
    pub(crate) fn meet(&mut self, at: usize, who: usize) {
        self.down(at, who);
        self.up(at, who);
    }

    /// Power is lost at a node, which starts again and is in reach again. All it had written survives.
    pub(crate) fn reboot(&mut self, at: usize) {
        self.leave(at);
        self.restart(at, usize::MAX);
        self.come_back(at);
    }

    /// How often a node counted something.
    pub(crate) fn counted(&self, at: usize, event: &str) -> usize {
        let line = format!("    n{at} counts {event}");
        self.log.lines().filter(|l| **l == line).count()
    }

    /// The values that a replica has of a key.
    pub(crate) fn live(&self, at: usize, key: &str) -> Vec<String> {
        let record = self.record(at, key);
        let values = record.live().iter().map(|s| {
            let value = quorate_protocol::decode_value(&s.payload).expect("a sound value");
            String::from_utf8_lossy(&value.data).into_owned()
        });
        values.collect()
    }

    /// Whether a replica has nothing whatever of a key: no value and no evidence.
    pub(crate) fn has_nothing(&self, at: usize, key: &str) -> bool {
        self.nodes[at].stored(BUCKET, key).is_none()
    }

    /// Whether these replicas have the same of a key.
    pub(crate) fn all_have(&self, nodes: &[usize], key: &str, record: &Record) -> bool {
        nodes.iter().all(|at| self.record(*at, key) == *record)
    }
}

/// Whether a message is part of an exchange.
pub(crate) fn is_exchange(e: &Envelope) -> bool {
    match &e.message {
        Message::Replica(_, _, ReplicaRequest::Upkeep(asked)) => matches!(
            **asked,
            Upkeep::Root(_) | Upkeep::Parts(_) | Upkeep::Evidence(_) | Upkeep::Reconcile(_)
        ),
        Message::Reply(_, ReplicaReply::Upkeep(reply)) => matches!(
            **reply,
            UpkeepReply::Root(..)
                | UpkeepReply::Parts(_)
                | UpkeepReply::Evidence(..)
                | UpkeepReply::Records(_)
        ),
        _ => false,
    }
}

/// Whether a message asks what is removed at another replica.
pub(crate) fn asks_for_evidence(e: &Envelope) -> bool {
    match &e.message {
        Message::Replica(_, _, ReplicaRequest::Upkeep(asked)) => {
            matches!(**asked, Upkeep::Evidence(_))
        }
        _ => false,
    }
}

/// Whether a message asks what ranges of a vnode hold.
pub(crate) fn asks_for_parts(e: &Envelope, vnode: VnodeId) -> bool {
    match &e.message {
        Message::Replica(_, _, ReplicaRequest::Upkeep(asked)) => match &**asked {
            Upkeep::Parts(asked) => asked.vnode == vnode,
            _ => false,
        },
        _ => false,
    }
}

/// Whether a message says what a replica knows of values that another lacks.
pub(crate) fn testifies(e: &Envelope) -> bool {
    match &e.message {
        Message::Reply(_, ReplicaReply::Upkeep(reply)) => {
            matches!(**reply, UpkeepReply::Testimony(_))
        }
        _ => false,
    }
}
