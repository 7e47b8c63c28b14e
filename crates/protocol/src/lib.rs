//! What is said between nodes and clients, in which bytes.
//!
//! [`Request`] and [`Answer`] are what a client says and hears, whether over QUIC or through the HTTP gateway.
//! [`ReplicaRequest`] and [`ReplicaReply`] are between a coordinator and its replicas. [`Message`] is any of them with
//! its request id, and knows its bytes.

mod account;
mod bucket;
mod ids;
mod layouts;
mod lifetime;
mod listing;
mod message;
mod overview;
mod progress;
mod repair;
mod request;
mod upkeep;

pub use account::{
    Account, ClusterStatus, NodeStatus, PendingHints, RepairAccount, ReplicaAccount, StepAccount,
};
pub use bucket::{
    BUCKETS_MAX, BucketAction, BucketDescription, BucketDocument, BucketEntry, BucketKind,
    BucketRequest, PROPERTIES, Properties, PropertyChanges, REGIONS_MAX, SIBLINGS_SETTING_MAX,
};
pub use ids::{BucketId, RequestId, VnodeId};
pub use layouts::{
    ApplyLayout, Ballot, KnownLayouts, LayoutChange, LayoutReply, LayoutRequest, LiveLayouts, Pace,
    PastLayout, Promise, ProposedLayout,
};
pub use lifetime::{
    Lifetime, TTL_MAX, TTL_MIN, TTL_SKEW_MAX, TtlError, deadline_text, parse_deadline, ttl_text,
};
pub use listing::{LIST_KEYS_DEFAULT, LIST_KEYS_MAX, List, Listing, Scan, ScanEntry, Scanned};
pub use message::{
    BucketsAsked, DecodeError, Header, Merge, Message, PROTOCOL_VERSION, Read, Recall,
    ReplicaReply, ReplicaRequest, Trace, decode_value, encode_value,
};
pub use overview::{NodeOverview, NodeState, Overview};
pub use progress::{LayoutProgress, NodeProgress, Part as LayoutPart, Stage as LayoutStage};
pub use repair::{EVIDENCE_COUNTED_MAX, OldestExchange, Repair, Repaired, UpkeepStatus};
pub use request::{
    Answer, BUCKET_BYTES_MAX, Condition, Delete, Description, Explained, Get, KEY_BYTES_MAX,
    META_BYTES_MAX, Options, Put, QUORUM_COUNT_MAX, Quorum, Refusal, Request,
    SIBLINGS_BYTES_FACTOR, SIBLINGS_MAX, Shown, TIMEOUT_DEFAULT, TIMEOUT_MAX, Unmet,
    VALUE_BYTES_MAX, Value,
};
pub use upkeep::{
    EvidenceAsked, Hello, KeyDigest, KeyRecord, Part, PartsAsked, RANGE_KEYS_MAX, RANGES_MAX,
    Reconcile, Removal, Removals, RootAsked, Testify, Testimony, UPKEEP_KEYS_MAX, Upkeep,
    UpkeepReply, Vote,
};
