//! QUIC between nodes and clients: identities bound to certificates, framed multiplexed streams.
