//! What a load is put on: something that takes one request at a time from many askers and says what came of each.

use std::borrow::Cow;
use std::future::Future;

use bytes::Bytes;

/// The kinds of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Put,
    Get,
    Delete,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Put, Kind::Get, Kind::Delete];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::Delete => "delete",
        }
    }
}

/// One request, in the words of no protocol.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) key: String,
    /// Of a put.
    pub(super) value: Bytes,
    /// Of a put or delete that replaces what was read or written before, as the target gave it.
    pub(super) context: Option<Bytes>,
}

/// A request that succeeded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Success {
    /// A get of a key that is not there.
    pub(super) absent: bool,
    /// How many values a get showed.
    pub(super) values: usize,
    /// Bytes of them.
    pub(super) bytes: usize,
    /// What names what was written or read; only meant for the target that gave it.
    pub(super) context: Option<Bytes>,
}

/// A request that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trouble {
    /// What it is counted as.
    pub(super) kind: Cow<'static, str>,
    /// All that is known about this one.
    pub(super) message: String,
}

impl Trouble {
    pub(super) fn new(kind: impl Into<Cow<'static, str>>, message: impl ToString) -> Trouble {
        Trouble {
            kind: kind.into(),
            message: message.to_string(),
        }
    }
}

/// Takes requests.
pub(super) trait Target {
    /// Carries one request to its end. Ends in bounded time.
    fn perform(&self, ask: Ask) -> impl Future<Output = Result<Success, Trouble>>;
}
