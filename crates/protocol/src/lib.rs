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
    DecodeError, Header, Merge, Message, PROTOCOL_VERSION, Read, ReplicaReply, ReplicaRequest,
    Trace, decode_value, encode_value,
};
pub use request::{
    Answer, BUCKET_BYTES_MAX, Delete, Description, Get, KEY_BYTES_MAX, META_BYTES_MAX, Options,
    Put, QUORUM_COUNT_MAX, Quorum, Refusal, Request, SIBLINGS_BYTES_FACTOR, SIBLINGS_MAX, Shown,
    TIMEOUT_DEFAULT, TIMEOUT_MAX, Unmet, VALUE_BYTES_MAX, Value,
};
