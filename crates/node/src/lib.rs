//! Every decision of a replica and a coordinator; no I/O, no clock, no global random numbers.
//!
//! A [`Node`] is a state machine: [`Node::handle`] takes one [`Input`] at a [`Time`] and appends [`Output`]s. The driver
//! (sockets and threads, or the simulator) does what they say and tells what came of it. Storage alone is reached
//! directly: reads are synchronous, commits are handed over, and that they are durable comes back as
//! [`Input::Progress`].
//!
//! One conversation a file: `write`, `read`, `forward`, `status` hold what a request under way has heard; `replica` is the
//! other side of them; `tally` says when enough have answered. `condition` is what a write does that reads first, `explain`
//! the account of a request that asked for one, `expiry` how values end that have a deadline; `ranking` and `hedging` say whom to
//! ask first, and when one more, `repairs` how much reads may mend. `node` holds the state, `requests`, `steps` and `messages`
//! what it does for its clients, with its conversations, and about what others say.

mod accept;
mod administer;
mod api;
mod buckets;
mod change;
mod choose;
mod collect;
mod condition;
mod config;
mod damage;
mod demand;
mod exchange;
mod expiry;
mod explain;
mod filling;
mod forward;
mod handoff;
mod healing;
mod hedging;
mod jobs;
mod judge;
mod keys;
mod layouts;
mod leftovers;
mod lineage;
mod list;
mod listing;
mod messages;
mod node;
mod placement;
mod ranking;
mod read;
mod reclaim;
mod reconcile;
mod relocation;
mod repairs;
mod replica;
mod requests;
mod residue;
mod returning;
mod scan;
mod sloppy;
mod status;
mod steps;
mod tally;
mod target;
mod telling;
mod time;
mod trees;
mod upkeep;
mod verify;
mod vitals;
mod vnode;
mod write;

pub use api::{Caller, Event, Input, Output};
pub use config::{BucketDefaults, Config, Limits};
pub use node::Node;
pub use telling::{Slow, Step, Telling};
pub use time::Time;
pub use vitals::Vitals;
