//! Ports that nobody uses.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the kernel takes no ports from by itself, so that a connection that somebody opens does not land on one.
const FIRST: u32 = 15_000;
const LAST: u32 = 32_000;

/// A base whose `count` following ports are free for TCP and UDP. No two calls of one process give the same, and processes
/// begin at different places.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_base_port(count: u16) -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let stride = u32::from(count) + 1;
    for _ in 0..1_000 {
        let taken = TAKEN.fetch_add(stride, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(97).wrapping_add(taken) % (LAST - FIRST);
        let base = u16::try_from(FIRST + offset).expect("below the last port");
        let free = |port| {
            TcpListener::bind(("127.0.0.1", port)).is_ok()
                && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        };
        if (1..=count).all(|number| free(base + number)) {
            return base;
        }
    }
    panic!("no {count} free ports in a row");
}
