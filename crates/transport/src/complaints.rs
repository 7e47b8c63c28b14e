//! Complaints about peers, said once a minute for each address and kind, so that a peer that tries again ten
//! times a second fills nobody's disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the same complaint about the same address is kept to ourselves.
const QUIET: Duration = Duration::from_secs(60);

/// Addresses remembered at once. Beyond it complaints are dropped until one is a minute old: a flood from forged
/// addresses must cost neither memory nor log.
const REMEMBERED: usize = 256;

/// What a complaint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A handshake that failed.
    Handshake,
    /// An established peer that broke the framing rules.
    Violation,
}

/// What was complained about lately. Shared by all connections of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    recent: Mutex<HashMap<(IpAddr, Kind), Recent>>,
}

#[derive(Debug)]
struct Recent {
    said: Instant,
    kept_back: u64,
}

impl Complaints {
    /// Whether to say it: `Some(n)` if so, where `n` of its like were kept back since the last time.
    /// The port is ignored, for a dialler has a new one every time.
    pub(crate) fn admit(&self, from: IpAddr, kind: Kind, now: Instant) -> Option<u64> {
        let mut recent = self.recent.lock().expect("no panic under this lock");
        if let Some(last) = recent.get_mut(&(from, kind)) {
            if now.duration_since(last.said) < QUIET {
                last.kept_back += 1;
                return None;
            }
            last.said = now;
            return Some(std::mem::take(&mut last.kept_back));
        }
        if recent.len() >= REMEMBERED {
            recent.retain(|_, last| now.duration_since(last.said) < QUIET);
        }
        if recent.len() >= REMEMBERED {
            return None;
        }
        recent.insert(
            (from, kind),
            Recent {
                said: now,
                kept_back: 0,
            },
        );
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn each_address_and_kind_is_heard_once_a_minute() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(
            complaints.admit(address(1), Kind::Handshake, start),
            Some(0)
        );
        assert_eq!(complaints.admit(address(1), Kind::Handshake, start), None);
        assert_eq!(
            complaints.admit(address(1), Kind::Violation, start),
            Some(0)
        );
        assert_eq!(
            complaints.admit(address(2), Kind::Handshake, start),
            Some(0)
        );
        assert_eq!(
            complaints.admit(address(1), Kind::Handshake, start + QUIET),
            Some(1)
        );
        assert_eq!(
            complaints.admit(address(1), Kind::Handshake, start + QUIET),
            None
        );
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let said = (0..10_000).filter(|n| {
            complaints
                .admit(address(*n), Kind::Handshake, start)
                .is_some()
        });
        assert_eq!(said.count(), REMEMBERED);
        assert_eq!(
            complaints.admit(address(99_999), Kind::Handshake, start + QUIET),
            Some(0)
        );
        assert_eq!(complaints.recent.lock().unwrap().len(), 1);
    }
}
