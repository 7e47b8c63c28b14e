//! Nodes talking to each other over a wire that the tests hold in their hands.
//!
//! `golden` has whole conversations as text, to be read; `scenarios` what must come out of situations that have a name, of writes with conditions in `conditions`, of requests that explain
//! themselves in `explain`;
//! `interleavings` what must hold whatever happens in whatever order.

mod buckets;
mod cluster;
mod conditions;
mod explain;
mod golden;
mod interleavings;
mod scenarios;
