//! Requests that explain themselves.

use quorate_protocol::Account;

use crate::error::Error;

/// What became of a request, and how.
#[derive(Debug)]
pub struct Explained<T> {
    /// What the same request gives that does not explain itself.
    pub result: Result<T, Error>,
    /// Who was asked for what, what each said and when, and why siblings stand: of failures too. `None` where no node
    /// looked at the request, as when none could be reached or its name was refused.
    pub account: Option<Account>,
}

/// A request that explains itself, under construction: await it to send it.
#[must_use = "a request is sent when it is awaited"]
#[derive(Clone, Debug)]
pub struct ExplainRequest<R>(pub(crate) R);
