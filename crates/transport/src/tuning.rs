//! Constants of the transport, each with the reason for its value.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Timers, windows and bounds of an endpoint. The defaults suit nodes of one data centre; over longer distances
/// raise `initial_rtt` and `max_idle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// What a round trip is taken for until one was measured. Default 8 ms. QUIC's own 333 ms is meant for the
    /// internet: one lost handshake packet would then hold a LAN connection up for a second.
    pub initial_rtt: Duration,
    /// How long a connection may be quiet before a ping is sent. Default 200 ms, a quarter of `max_idle`, so that
    /// three lost pings in a row do not look like a dead peer. Must be below `max_idle`.
    pub keep_alive: Duration,
    /// How long a peer may be silent before its connection counts as lost. Default 800 ms: quinn starts the
    /// count anew at the first ping into the silence, so a dead peer is noticed after `max_idle` to `max_idle +
    /// keep_alive`, and so within a second. Shorter values drop peers that only wait for a slow disk or scheduler.
    /// The smaller of both sides' values holds.
    pub max_idle: Duration,
    /// How long a dial may take, and how long an acceptor waits for one peer's handshake. Default 3 s. An address
    /// where nobody listens fails earlier, after `max_idle`.
    pub handshake_timeout: Duration,
    /// Handshakes that may be under way at once at an acceptor. Default 64: each costs about half a
    /// millisecond of CPU in signatures and some tens of KiB, so this bounds what strangers can make us spend.
    /// More are turned away at once with "busy"; from half of it on, callers must first prove their address.
    pub max_handshakes: usize,
    /// The largest frame taken from a peer, in bytes. Default 128 MiB: records travel whole, a put adds a sibling up to
    /// 32 MiB of them, and a few coordinators may each have done so while they could not hear each other.
    /// Announced to the peer, whose `send` refuses anything larger. At most `u32::MAX`.
    pub max_frame: usize,
    /// How many bytes may wait for one connection before `send` says [`Backlogged`](crate::SendError::Backlogged).
    /// Default 256 MiB: two of the largest frames, so that a peer that reads at all is not cut off, while a
    /// peer that reads nothing costs bounded memory.
    pub max_queued: usize,
    /// Bytes of large frames that one connection may hold complete or half received before they are handed to
    /// the application. Default 64 MiB. Raised to `max_frame` if smaller.
    pub max_unread: usize,
    /// Flow-control window of one stream in bytes. Default 16 MiB: the largest frame arrives without the sender
    /// waiting for a window update.
    pub stream_window: usize,
    /// Flow-control window of a connection, and of the data sent but not acknowledged, in bytes. Default 64 MiB:
    /// a few large frames under way leave room for the small ones, which share it.
    pub connection_window: usize,
    /// Large frames a peer may have under way towards us at once. Default 32.
    pub max_large_frames: u32,
    /// Kernel buffer of the UDP socket, each direction, in bytes. Default 4 MiB: a burst of 8 MiB frames
    /// overruns the usual 208 KiB while the one thread is busy elsewhere. The kernel may clamp it
    /// (`net.core.rmem_max`, `net.core.wmem_max`).
    pub socket_buffer: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            initial_rtt: Duration::from_millis(8),
            keep_alive: Duration::from_millis(200),
            max_idle: Duration::from_millis(800),
            handshake_timeout: Duration::from_secs(3),
            max_handshakes: 64,
            max_frame: 128 * MIB,
            max_queued: 256 * MIB,
            max_unread: 64 * MIB,
            stream_window: 16 * MIB,
            connection_window: 64 * MIB,
            max_large_frames: 32,
            socket_buffer: 4 * MIB,
        }
    }
}

/// Which end of a connection a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Dialler,
    Acceptor,
}

impl Tuning {
    pub(crate) fn transport(&self, end: End) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        config
            .initial_rtt(self.initial_rtt)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(
                IdleTimeout::try_from(self.max_idle).expect("an idle timeout below 2^62 ms"),
            ))
            .stream_receive_window(window(self.stream_window))
            .receive_window(window(self.connection_window))
            .send_window(self.connection_window as u64)
            .max_concurrent_uni_streams(self.max_large_frames.into())
            // The dialler opens the one stream for small frames; nobody opens another.
            .max_concurrent_bidi_streams(match end {
                End::Acceptor => 1u32.into(),
                End::Dialler => 0u32.into(),
            })
            // One system call for up to 64 datagrams. Without it, sending is most of the CPU.
            .enable_segmentation_offload(true);
        // Fewer acknowledgements (`ack_frequency_config`, one for ten packets) and jumbo datagrams (8,900 bytes) made
        // no difference beyond noise to `examples/echo.rs` on loopback, so quinn's defaults stay.
        // Datagrams stay enabled (quinn's default): membership messages will travel in them.
        Arc::new(config)
    }

    /// Bytes of large frames that may be sent and not yet acknowledged. They share `connection_window` with the
    /// small frames, and a window full of large frames would block the small ones for as long as those take.
    pub(crate) fn large_in_flight(&self) -> u32 {
        u32::try_from(self.connection_window / 2).unwrap_or(u32::MAX)
    }

    /// `max_frame` as it is announced to peers and compared with announced lengths.
    pub(crate) fn max_frame_u32(&self) -> u32 {
        u32::try_from(self.max_frame).unwrap_or(u32::MAX)
    }
}

fn window(bytes: usize) -> VarInt {
    VarInt::try_from(bytes as u64).unwrap_or(VarInt::MAX)
}
