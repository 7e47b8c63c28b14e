//! Nodes talking to each other over a wire that the tests hold in their hands.
//!
//! `golden` has whole conversations as text, to be read; `scenarios` what must come out of situations that have a name, and
//! so `amnesia`, `buckets`, `collection`, `conditions`, `demand`, `exchange`, `explain`, `fairness`, `hints`, `listing`, `reads`, `ttl` and
//! `ttl_hints` for what they are called after; `interleavings` what must hold whatever happens in whatever order.

mod amnesia;
mod buckets;
mod cluster;
mod collection;
mod conditions;
mod demand;
mod exchange;
mod explain;
mod fairness;
mod golden;
mod hints;
mod interleavings;
mod layouts;
mod listing;
mod operations;
mod reads;
mod scenarios;
mod tended;
mod ttl;
mod ttl_hints;
