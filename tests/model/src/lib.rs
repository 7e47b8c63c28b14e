//! The rules of deletes (R2, R3, R5, R12 to R15) in small: three replicas, one key, at most four writes, each fault at most once, and
//! every order in which that may happen.
//!
//! - [`replica`]: the merge path, the filter, the votes. What a vnode does with a record, in bits.
//! - [`world`]: three of them, the conversations between them, and what goes wrong.
//! - [`explore`]: which steps may be taken, for the model checker, and what makes two worlds the same.
//! - [`judge`]: what must hold of every world that is reached.
//! - [`rules`]: the rules that can be taken out. Each such mutant has to be caught.
//! - [`run`]: the model checker, and what it found.
//! - [`layouts`]: another model, of how a layout is chosen and changed (R4, R12).
//!
//! It is a model, not the code: it knows nothing of batches, trees or runs of dots. What it takes for given stands in
//! `docs/decisions/0011-model-of-deletes.md`.

pub mod explore;
pub mod judge;
pub mod layouts;
pub mod replica;
pub mod rules;
pub mod run;
pub mod world;
