//! The UDP socket below an endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Once;

use socket2::{Domain, Protocol, Socket, Type};

/// A bound, non-blocking UDP socket with buffers of that size where the kernel allows it.
pub(crate) fn bind(addr: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // `[::]` then serves IPv4 too. Where the system forbids it, IPv6 alone is still worth having.
        let _ = socket.set_only_v6(false);
    }
    // A bigger buffer is a matter of speed, never of correctness: QUIC sends again what was lost.
    let _ = socket.set_recv_buffer_size(buffer);
    let _ = socket.set_send_buffer_size(buffer);
    let (receive, send) = (socket.recv_buffer_size()?, socket.send_buffer_size()?);
    if receive.min(send) < buffer {
        static CLAMPED: Once = Once::new();
        CLAMPED.call_once(|| {
            tracing::debug!(
                wanted = buffer,
                receive,
                send,
                "the kernel allows smaller UDP buffers than wanted; net.core.rmem_max and net.core.wmem_max raise them"
            );
        });
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
