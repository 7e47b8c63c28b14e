//! Whole nodes over real sockets and a real disk, in one process.

mod common;
mod configuration;
mod dev;
mod hostile;
mod making;
mod operations;
mod outages;
mod requests;
mod starting;
