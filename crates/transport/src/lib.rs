//! QUIC between nodes and clients: identities bound to certificates, framed multiplexed streams.
//!
//! This crate moves opaque frames between two parties who have proven who they are. It knows nothing about
//! what the frames say: the first bytes of a frame belong to the protocol crate, and so do request ids.
//!
//! # What a connection is
//!
//! ```text
//!   dialler                                                     acceptor
//!      |---- QUIC handshake, mutual TLS, ALPN `quorate/1` ---------->|   both certificates are checked
//!      |==== one bidirectional stream, opened by the dialler ========|
//!      |     preamble, frame, frame, frame ...                  -->  |   requests
//!      |  <--  preamble, frame, frame, frame ...                     |   answers
//!      |---- one unidirectional stream for each frame over 64 KiB -->|   either direction
//!      |  <--- ... ---------------------------------------------     |
//! ```
//!
//! A frame is its length (`u32`, big-endian) and as many bytes. Small frames share one stream, because a stream
//! for each request costs twice the CPU under load; frames over [`INLINE_MAX`] travel on a stream of their own at
//! lower priority, so that an 8 MiB value does not stand in front of a read. Small frames arrive in the order they
//! were sent; a large frame may be overtaken and may overtake.
//!
//! # Who is who
//!
//! A certificate names exactly one [`Identity`] of exactly one cluster ([`identity`]). Both sides insist on the
//! cluster's CA *and* on their own cluster id; a dialler also insists on the node it meant to reach. The
//! [`Authority`] makes the certificates, [`Credentials`] are what a process holds.
//!
//! # Invariants
//!
//! - Nothing is allocated on the word of a peer: an announced length is checked before memory is taken, and memory
//!   grows with the bytes that arrived.
//! - A peer that breaks the rules loses its own connection and nothing else; it is logged once a minute at most.
//! - Every queue is bounded, in bytes. [`Sender::send`] never waits.
//! - Dropping a [`Receiver`] (or an unsplit [`Connection`]) closes the connection and ends its tasks.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use quorate_transport::{Authority, Credentials, Endpoint, Expected, Identity, Tuning};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::create(0x51)?;
//! let day = Duration::from_secs(86_400);
//! let node = authority.issue(&Identity::Node(1), day)?;
//! let node = Credentials::from_pem(authority.certificate_pem(), &node.certificate_pem, &node.key_pem)?;
//! let client = authority.issue(&Identity::Client("cli".into()), day)?;
//! let client = Credentials::from_pem(authority.certificate_pem(), &client.certificate_pem, &client.key_pem)?;
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! runtime.block_on(async {
//!     let (endpoint, mut acceptor) = Endpoint::bind("127.0.0.1:0".parse()?, &node, Tuning::default())?;
//!     let address = endpoint.local_addr();
//!     tokio::spawn(async move {
//!         let mut connection = acceptor.accept().await.expect("the endpoint is open");
//!         while let Some(frames) = connection.recv().await {
//!             for frame in frames {
//!                 connection.send(frame).expect("room for an echo");
//!             }
//!         }
//!     });
//!
//!     let dialler = Endpoint::dialler(&client, Tuning::default())?;
//!     let mut connection = dialler.dial(address, Expected::AnyNode).await?;
//!     assert_eq!(connection.peer(), &Identity::Node(1));
//!     connection.send("hello")?;
//!     assert_eq!(connection.recv().await.expect("an answer")[0], "hello");
//!     Ok(())
//! })
//! # }
//! ```

mod accept;
pub mod authority;
mod complaints;
mod connection;
mod dial;
mod endpoint;
mod frame;
pub mod identity;
mod inbox;
mod outbox;
mod resolve;
mod socket;
pub mod tls;
mod tuning;

pub use accept::Acceptor;
pub use authority::{Authority, AuthorityError, Issued};
pub use connection::{CloseReason, Connection, Receiver, Sender};
pub use dial::DialError;
pub use endpoint::{BindError, Endpoint};
pub use frame::{INLINE_MAX, Violation};
pub use identity::{Identity, IdentityError, PeerName};
pub use outbox::SendError;
pub use resolve::{ResolveError, resolve};
pub use tls::{Credentials, CredentialsError, Expected};
pub use tuning::Tuning;
