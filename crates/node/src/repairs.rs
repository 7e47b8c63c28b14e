//! Bounds on read repair.
//!
//! After a node was away, every read of what it missed finds it stale. Mending all of that as it is found would be most of what its disk then
//! does, just when it has to catch up. So the repairs on their way to one replica are bounded in number, which holds back those to a replica
//! that is slow or says nothing, and those of this node in bytes a second. What exceeds either is dropped: no answer waits for a repair, and
//! what was not mended is found again.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_protocol::RequestId;
use quorate_ring::NodeId;

use crate::config::Limits;
use crate::time::Time;

/// After so long a repair that was not answered is no longer counted: the answer was lost, or the replica has more to do than it can.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// What was not used of the bytes for so long may be sent at once.
const BURST: Duration = Duration::from_secs(1);

/// The repairs on their way.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    /// By replica: each, and until when it counts. In the order in which they were sent.
    sent: BTreeMap<NodeId, BTreeMap<RequestId, Time>>,
    /// When all bytes sent so far will have had their time.
    paid_at: Time,
}

impl Repairs {
    /// Whether a repair of so many bytes may be sent now; it is then on its way.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        id: RequestId,
        to: NodeId,
        bytes: usize,
        limits: &Limits,
    ) -> bool {
        let sent = self.sent.entry(to).or_default();
        while let Some(first) = sent.first_entry().filter(|sent| *sent.get() <= now) {
            first.remove();
        }
        if sent.len() >= limits.repairs_max || self.paid_at > now.after(BURST) {
            return false;
        }
        sent.insert(id, now.after(ANSWER_WITHIN));
        let rate = limits.repair_bytes_per_second.max(1);
        let takes = Duration::from_micros(bytes as u64 * 1_000_000 / rate);
        self.paid_at = self.paid_at.max(now).after(takes);
        true
    }

    /// A replica has answered. Says whether to a repair.
    pub(crate) fn answered(&mut self, id: RequestId, from: NodeId) -> bool {
        let sent = self.sent.get_mut(&from);
        sent.is_some_and(|sent| sent.remove(&id).is_some())
    }

    /// A replica is out of reach: what was on its way is lost.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.sent.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(repairs_max: usize, repair_bytes_per_second: u64) -> Limits {
        Limits {
            repairs_max,
            repair_bytes_per_second,
            ..Limits::default()
        }
    }

    #[test]
    fn each_replica_has_so_many_on_their_way() {
        let (mut repairs, limits, now) = (Repairs::default(), limits(2, 1 << 30), Time(0));
        let begin = |repairs: &mut Repairs, now, id, to| {
            repairs.begin(now, RequestId(id), NodeId(to), 1, &limits)
        };
        assert!(begin(&mut repairs, now, 1, 1));
        assert!(begin(&mut repairs, now, 2, 1));
        assert!(!begin(&mut repairs, now, 3, 1));
        assert!(begin(&mut repairs, now, 4, 2), "another replica");
        assert!(!repairs.answered(RequestId(1), NodeId(2)), "not its own");
        assert!(repairs.answered(RequestId(1), NodeId(1)));
        assert!(!repairs.answered(RequestId(1), NodeId(1)));
        assert!(begin(&mut repairs, now, 5, 1));
        assert!(!begin(&mut repairs, now, 6, 1));
        // Unanswered ones do not stand in the way for ever, nor those to a node that went.
        let later = now.after(ANSWER_WITHIN);
        assert!(begin(&mut repairs, later, 7, 1));
        assert!(begin(&mut repairs, later, 8, 1));
        assert!(!begin(&mut repairs, later, 9, 1));
        repairs.forget(NodeId(1));
        assert!(begin(&mut repairs, later, 10, 1));
    }

    #[test]
    fn all_together_have_so_many_bytes_a_second() {
        let (mut repairs, limits) = (Repairs::default(), limits(usize::MAX, 1_000));
        let mut sent = 0;
        for ms in 0..10_000 {
            let id = RequestId(ms);
            if repairs.begin(Time(ms * 1_000), id, NodeId(ms % 3), 100, &limits) {
                sent += 100;
            }
        }
        // Ten seconds' worth, and the burst.
        assert!((10_000..=11_200).contains(&sent), "{sent}");
    }
}
