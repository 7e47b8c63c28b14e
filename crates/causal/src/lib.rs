//! Dots, clocks, contexts and records: what a replica knows about the writes of a key, and how two such accounts merge.
//!
//! A *dot* names one write. A [`Record`] is what a replica holds for one key: its live values, each under its dot, and
//! the dots known to be removed. A client reads values and with them a [`Context`], the exact dots it saw; its
//! next put removes these and adds its own. Two clients that read the same and write both leave two values,
//! concurrent, and neither is lost:
//!
//! ```
//! use quorate_causal::{Actor, Context, Dot, Record, Sibling, Span};
//!
//! let vnode = Actor(7);
//! let mut record = Record::new();
//! let mut counter = 0;
//! let mut put = |record: &mut Record, context: &Context, value: &'static str| {
//!     counter += 1;
//!     let span = Span::lone(Dot { actor: vnode, counter });
//!     let written = Sibling { span, payload: value.into(), expires: None };
//!     record.merge(&Record::of_write(context, Some(written)));
//! };
//!
//! put(&mut record, &Context::default(), "milk");
//! let read = record.context(); // both clients read this
//! put(&mut record, &read, "milk, eggs");
//! put(&mut record, &read, "milk, flour");
//! assert_eq!(record.live().len(), 2); // siblings
//!
//! let both = record.context();
//! put(&mut record, &both, "milk, eggs, flour");
//! assert_eq!(record.live().len(), 1); // resolved
//! ```
//!
//! The crate is pure: no clock, no randomness, no input or output.

mod context;
mod dot;
mod dots;
mod encoding;
mod record;

pub use context::{CONTEXT_DOTS_MAX, Context, ContextError, ContextKey};
pub use dot::{Actor, Dot, Span};
pub use dots::{DotSet, Runs};
pub use encoding::DecodeError;
pub use record::{Change, Digest, Record, Sibling};
