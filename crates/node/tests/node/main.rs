//! Nodes talking to each other over a wire that the tests hold in their hands.
//!
//! `golden` has whole conversations as text, to be read; `scenarios` what must come out of situations that have a name, and
//! so `buckets`, `conditions`, `explain`, `hints`, `listing`, `reads`, `ttl` and `ttl_hints` for what they are called after; `interleavings` what must hold whatever
//! happens in whatever order.

mod buckets;
mod cluster;
mod conditions;
mod explain;
mod golden;
mod hints;
mod interleavings;
mod listing;
mod operations;
mod reads;
mod scenarios;
mod ttl;
mod ttl_hints;
