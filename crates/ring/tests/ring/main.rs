//! The crate from outside: placement judged against an independent flow, preference lists, stored forms.

mod clusters;
mod figures;
mod forms;
mod judge;
mod placement;
mod preferences;
