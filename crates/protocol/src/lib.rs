//! What is said between nodes and clients, in which bytes.
//!
//! [`Request`] and [`Answer`] are what a client says and hears, whether over QUIC or through the HTTP gateway.
//! [`ReplicaRequest`] and [`ReplicaReply`] are between a coordinator and its replicas. [`Message`] is any of them with
//! its request id, and knows its bytes.

mod ids;
mod message;
mod request;

pub use ids::{BucketId, RequestId, VnodeId};
pub use message::{
    decode_value, encode_value, DecodeError, Header, Merge, Message, Read, ReplicaReply,
    ReplicaRequest, Trace, PROTOCOL_VERSION,
};
pub use request::{
    Answer, Delete, Description, Get, Options, Put, Quorum, Refusal, Request, Shown, Unmet, Value,
    BUCKET_BYTES_MAX, KEY_BYTES_MAX, META_BYTES_MAX, QUORUM_COUNT_MAX, SIBLINGS_MAX,
    TIMEOUT_DEFAULT, TIMEOUT_MAX, VALUE_BYTES_MAX,
};
