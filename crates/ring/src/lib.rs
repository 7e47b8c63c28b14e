//! Placement: keys to partitions, partitions to nodes, versioned as a layout.
//!
//! The ring of hashes is cut into Q equal arcs, the *partitions*. A [`Layout`] says which nodes hold each
//! of them: for every region an ordered list of distinct nodes, spread over the region's zones, with load
//! in proportion to the nodes' weights. From that list and a bucket's [`ReplicaSet`] follows the
//! [`Preference`]: the primaries of a key and, behind them, every other node as a fallback.
//!
//! A layout is a value. It is computed from its inputs alone, the same on every machine and for every
//! order in which the nodes were named; it is numbered, and a changed cluster is a new layout made by
//! [`Layout::next`], which moves as few seats as the balance allows. [`diff`] lists what moved.
//!
//! ```
//! use quorate_ring::{ClusterId, Layout, LayoutSpec, NodeId, NodeSpec, ReplicaSet};
//!
//! let node = |id: u64| NodeSpec {
//!     id: NodeId(id),
//!     name: format!("node-{id}"),
//!     region: "eu".into(),
//!     zone: format!("eu-{id}"),
//!     weight: 1,
//!     quic: format!("10.0.0.{id}:7400"),
//!     http: format!("10.0.0.{id}:8080"),
//! };
//! let layout = Layout::first(ClusterId(7), LayoutSpec::new((1..=4).map(node).collect()))?;
//!
//! let set = ReplicaSet::new(3, None)?;
//! let preference = layout.preference(layout.partition_of("users", b"ada"), &set);
//! assert_eq!(preference.primaries.len(), 3);
//! assert_eq!(preference.fallbacks.len(), 1);
//!
//! let grown = layout.next((1..=5).map(node).collect())?;
//! assert_eq!(grown.version(), 2);
//! let moved = quorate_ring::diff(&layout, &grown)?;
//! assert!(moved.seats_moved() <= 256 * 3 / 5);
//! # Ok::<(), quorate_ring::LayoutError>(())
//! ```
//!
//! # How seats are dealt
//!
//! Three questions, each answered by its own module, one region at a time:
//!
//! 1. `shares`: how many seats does each node get? The zone rule is fixed first, then the peak of
//!    seats per weight is made as small as the rule allows, then the next highest, and so on.
//! 2. `assign`: which seats? A minimum-cost flow keeps as many seats where they are as those shares permit.
//! 3. `arrange`: in which order within a partition's list? Survivors stay in order; newcomers are put
//!    so that each prefix of the lists is balanced too.
//!
//! That placement under distinct nodes and zones is a flow problem, and that an old placement can be
//! followed by minimising a cost, is the approach of Garage's layout computation (Mendes Oliveira
//! Auvolat, "An algorithm for geo-distributed and redundant storage in Garage", 2023). The shares
//! (lexicographic, not the peak alone) and the balanced order are particular to this crate.

mod arrange;
mod assign;
mod diff;
mod error;
mod flow;
mod form;
mod ids;
mod layout;
mod preference;
mod replica_set;
mod ring;
mod shares;
mod spec;

pub use diff::{Diff, PartitionMove, diff};
pub use error::LayoutError;
pub use ids::{ClusterId, NodeId, Partition, ReplicaSetId};
pub use layout::{Layout, Load};
pub use preference::Preference;
pub use replica_set::{MAX_COPIES, ReplicaSet};
pub use spec::{
    DEFAULT_PARTITIONS, DEFAULT_REPLICAS, LayoutSpec, MAX_NODES, MAX_PARTITIONS, NodeSpec,
};
