//! Frames on a stream: a length, then as many bytes.
//!
//! ```text
//!   small frames, on the shared stream:   "QRTE" max_frame:u32  ( length:u32 body )*
//!   a large frame, on its own stream:                             length:u32 body  end of stream
//! ```
//!
//! All numbers are big-endian. The first eight bytes of the shared stream are the preamble, sent once each way.
//! It is what makes a dial's success mean something: under TLS 1.3 a dialler's handshake ends before the acceptor
//! has looked at its certificate, and only the acceptor's preamble says that it was found good.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest frame, in bytes, that travels on the shared stream; larger ones get a stream each. At 64 KiB a
/// frame delays those behind it by half a millisecond on a 1 Gbit/s link, which is what a stream of its own costs
/// in the worst case too.
pub const INLINE_MAX: usize = 64 * 1024;

/// Bytes of a frame's length.
pub(crate) const HEADER: usize = 4;

/// How much is read from the shared stream at once, at most.
const READ_SIZE: usize = 64 * 1024;

/// Below this much spare room a new buffer is taken. Frames keep the buffer alive that they were cut from, so a
/// fresh one for every read would let a few kept bytes pin 64 KiB each.
const READ_MIN: usize = 4 * 1024;

const MAGIC: [u8; 4] = *b"QRTE";

/// Bytes of the preamble.
pub(crate) const PREAMBLE: usize = 8;

/// How a peer broke the rules. Its connection is closed; nobody else is harmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame of no bytes, which could not even say what it is.
    #[error("a frame of length zero")]
    Empty,
    /// A length over the bound. It was refused before any memory was taken for it.
    #[error("a frame of {announced} bytes was announced, and at most {max} are taken")]
    Oversize {
        /// What the peer announced, in bytes.
        announced: u32,
        /// What is taken, in bytes.
        max: u32,
    },
    /// The stream ended within a frame.
    #[error("a frame was broken off")]
    Truncated,
    /// Bytes behind the one frame of a large frame's stream.
    #[error("bytes behind the end of a large frame")]
    Trailing,
    /// The stream for small frames did not begin with the preamble.
    #[error("the stream does not begin with the preamble")]
    Preamble,
}

/// The first bytes each way: that this is our protocol, and the largest frame the sender of it takes.
pub(crate) fn preamble(max_frame: u32) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..].copy_from_slice(&max_frame.to_be_bytes());
    bytes
}

/// The largest frame the peer takes.
pub(crate) fn read_preamble(bytes: &[u8; PREAMBLE]) -> Result<u32, Violation> {
    match bytes.split_first_chunk::<4>() {
        Some((&MAGIC, rest)) => Ok(u32::from_be_bytes(
            rest.try_into().expect("four of eight bytes are left"),
        )),
        _ => Err(Violation::Preamble),
    }
}

/// A frame's announced length, if it may be taken.
pub(crate) fn check_length(announced: u32, max: u32) -> Result<usize, Violation> {
    match announced {
        0 => Err(Violation::Empty),
        _ if announced > max => Err(Violation::Oversize { announced, max }),
        _ => Ok(announced as usize),
    }
}

/// Appends a frame to a buffer.
pub(crate) fn put(buffer: &mut BytesMut, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("the caller has checked the length");
    buffer.reserve(HEADER + body.len());
    buffer.put_u32(length);
    buffer.put_slice(body);
}

/// Cuts frames out of the bytes of the shared stream.
pub(crate) struct Decoder {
    buffer: BytesMut,
    max: u32,
}

impl Decoder {
    pub(crate) fn new(max: u32) -> Self {
        Decoder {
            buffer: BytesMut::new(),
            max,
        }
    }

    /// Where the next bytes of the stream are to be put. It grows with what arrived, never with what was
    /// announced: at most by half again plus one read.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < READ_MIN {
            self.buffer.reserve(READ_SIZE);
        }
        &mut self.buffer
    }

    /// The next complete frame, without its length.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Violation> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = check_length(u32::from_be_bytes(*header), self.max)?;
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether the stream may end here.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_golden() {
        assert_eq!(preamble(9 * 1024 * 1024), *b"QRTE\x00\x90\x00\x00");
        assert_eq!(read_preamble(b"QRTE\x00\x90\x00\x00"), Ok(9 * 1024 * 1024));
        assert_eq!(read_preamble(b"GET / HT"), Err(Violation::Preamble));
        let mut buffer = BytesMut::new();
        put(&mut buffer, b"hello");
        put(&mut buffer, b"!");
        assert_eq!(&buffer[..], b"\x00\x00\x00\x05hello\x00\x00\x00\x01!");
    }

    #[test]
    fn frames_come_out_however_the_bytes_arrive() {
        let mut wire = BytesMut::new();
        let bodies: Vec<Vec<u8>> = (1..200u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        for body in &bodies {
            put(&mut wire, body);
        }
        for step in [1, 3, 64, 1_000, wire.len()] {
            let mut decoder = Decoder::new(10_000);
            let mut frames = Vec::new();
            for piece in wire.chunks(step) {
                decoder.space().put_slice(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, bodies, "in steps of {step}");
            assert!(decoder.is_at_boundary());
        }
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        let max = 9 * 1024 * 1024;
        let mut decoder = Decoder::new(max);
        decoder.space().put_u32(max);
        assert_eq!(decoder.next(), Ok(None));
        assert!(
            decoder.space().capacity() <= READ_SIZE,
            "memory was taken on a peer's word"
        );
        assert!(!decoder.is_at_boundary());
    }

    #[test]
    fn bad_lengths_are_refused() {
        for (announced, violation) in [
            (0, Violation::Empty),
            (
                1_001,
                Violation::Oversize {
                    announced: 1_001,
                    max: 1_000,
                },
            ),
            (
                u32::MAX,
                Violation::Oversize {
                    announced: u32::MAX,
                    max: 1_000,
                },
            ),
        ] {
            let mut decoder = Decoder::new(1_000);
            decoder.space().put_u32(announced);
            assert_eq!(decoder.next(), Err(violation));
        }
    }
}
