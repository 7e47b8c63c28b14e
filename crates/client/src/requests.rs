//! The words users say: a request is built up and then awaited.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::{
    Answer, Condition, Delete, Get, Lifetime, Options, Put, Quorum, Request, Shown, Value,
};

use crate::client::Client;
use crate::error::Error;
use crate::explain::{ExplainRequest, Explained};

/// The live values of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// At least one; several if they are concurrent.
    pub siblings: Vec<Sibling>,
    /// What was read, for the put or delete that is to replace exactly this.
    pub context: Bytes,
}

/// One live value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The value with what is kept beside it.
    pub value: Value,
    /// The name of the write that brought it, for display.
    pub dot: String,
    /// When it ends, in milliseconds since the Unix epoch, if it does.
    pub expires_ms: Option<u64>,
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A get under construction: await it to send it.
#[must_use = "a request is sent when it is awaited"]
#[derive(Clone, Debug)]
pub struct GetRequest {
    client: Client,
    request: Get,
    timeout: Option<Duration>,
}

/// A put under construction: await it to send it.
#[must_use = "a request is sent when it is awaited"]
#[derive(Clone, Debug)]
pub struct PutRequest {
    client: Client,
    request: Put,
    timeout: Option<Duration>,
}

/// A delete under construction: await it to send it.
#[must_use = "a request is sent when it is awaited"]
#[derive(Clone, Debug)]
pub struct DeleteRequest {
    client: Client,
    request: Delete,
    timeout: Option<Duration>,
}

macro_rules! quorums {
    ($($(#[$doc:meta])* $name:ident),*) => {
        $($(#[$doc])*
        pub fn $name(mut self, quorum: impl Into<Option<Quorum>>) -> Self {
            self.request.options.$name = quorum.into();
            self
        })*

        /// How long it may take. The cluster's default is 5 seconds.
        pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
            self.timeout = timeout.into();
            self
        }

        /// Asks for an account of how the answer comes about.
        pub fn explain(mut self) -> ExplainRequest<Self> {
            self.request.options.explain = true;
            ExplainRequest(self)
        }

        /// All options at once.
        pub fn options(mut self, options: Options) -> Self {
            self.request.options = options;
            self
        }
    };
}

macro_rules! conditions {
    () => {
        /// What must be so for it to happen. A quorum is read first, with `r` and `pr`; if the condition does not hold, nothing
        /// is changed and the answer is a refusal ([`Refusal::ConditionFailed`](quorate_protocol::Refusal)). Best effort: two
        /// that race may both find it to hold, and then both are made.
        pub fn condition(mut self, condition: impl Into<Option<Condition>>) -> Self {
            self.request.condition = condition.into();
            self
        }

        /// Only if the key has no value.
        pub fn if_absent(self) -> Self {
            self.condition(Condition::Absent)
        }

        /// Only if the key has a value, or several; all of them are replaced.
        pub fn if_present(self) -> Self {
            self.condition(Condition::Present)
        }

        /// Only if the key has just one value, and its [`dot`](Sibling::dot) is one of these.
        pub fn if_dots<D: Into<String>>(self, dots: impl IntoIterator<Item = D>) -> Self {
            let dots = dots.into_iter().map(Into::into).collect();
            self.condition(Condition::Dots(dots))
        }
    };
}

/// Sending a request, alone or with its account. `$got` makes of an answer what the request gives.
macro_rules! awaited {
    ($name:ident, $variant:ident, $got:ident -> $given:ty) => {
        impl IntoFuture for $name {
            type Output = Result<$given, Error>;
            type IntoFuture = Pending<Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(async move {
                    let request = Request::$variant(self.request);
                    $got(self.client.call(request, self.timeout).await?)
                })
            }
        }

        impl IntoFuture for ExplainRequest<$name> {
            type Output = Explained<$given>;
            type IntoFuture = Pending<Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                let asked = self.0;
                Box::pin(async move {
                    let request = Request::$variant(asked.request);
                    let explained = asked.client.call_explained(request, asked.timeout).await;
                    Explained {
                        result: explained.result.and_then($got),
                        account: explained.account,
                    }
                })
            }
        }
    };
}

impl GetRequest {
    pub(crate) fn new(client: Client, bucket: String, key: String) -> Self {
        let options = Options::default();
        GetRequest {
            client,
            request: Get {
                bucket,
                key,
                options,
            },
            timeout: None,
        }
    }

    quorums!(
        /// Replicas that must answer.
        r,
        /// Of those, how many must be primaries.
        pr
    );
}

awaited!(GetRequest, Get, fetched -> Option<Fetched>);

fn fetched(answer: Answer) -> Result<Option<Fetched>, Error> {
    match answer {
        Answer::Absent => Ok(None),
        Answer::Found { siblings, context } => Ok(Some(Fetched {
            siblings: siblings.into_iter().map(Sibling::from).collect(),
            context,
        })),
        other => Err(unexpected(&other, false)),
    }
}

impl PutRequest {
    pub(crate) fn new(client: Client, bucket: String, key: String, value: Value) -> Self {
        let request = Put {
            bucket,
            key,
            value,
            context: None,
            condition: None,
            options: Options::default(),
            lifetime: None,
        };
        PutRequest {
            client,
            request,
            timeout: None,
        }
    }

    quorums!(
        /// Replicas that must answer the read that a put with a condition begins with. Without one nothing is read.
        r,
        /// Of those, how many must be primaries.
        pr,
        /// Replicas that must take it.
        w,
        /// Of those, how many must be primaries.
        pw,
        /// Of those, how many must have it synced to disk.
        dw
    );

    conditions!();

    /// The context of an earlier answer for this key: what was read is replaced. Without one, the value becomes a
    /// sibling of whatever is there.
    pub fn context(mut self, context: impl Into<Option<Bytes>>) -> Self {
        self.request.context = context.into();
        self
    }

    /// How long the value is to live, from 1 second to 10 years; without it the bucket says.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.lifetime(Lifetime::Ms(ttl.as_millis() as u64))
    }

    /// How long the value is to live, or until when, or that it has no end whatever the bucket says.
    pub fn lifetime(mut self, lifetime: impl Into<Option<Lifetime>>) -> Self {
        self.request.lifetime = lifetime.into();
        self
    }

    /// The value's media type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.request.value.content_type = Some(content_type.into());
        self
    }

    /// Adds a name and value to what is kept beside the value.
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.value.meta.push((name.into(), value.into()));
        self
    }
}

// It gives the context that names just this write.
awaited!(PutRequest, Put, stored -> Bytes);

fn stored(answer: Answer) -> Result<Bytes, Error> {
    match answer {
        Answer::Stored { context } | Answer::Found { context, .. } => Ok(context),
        other => Err(unexpected(&other, true)),
    }
}

impl DeleteRequest {
    pub(crate) fn new(client: Client, bucket: String, key: String) -> Self {
        let request = Delete {
            bucket,
            key,
            context: None,
            condition: None,
            options: Options::default(),
        };
        DeleteRequest {
            client,
            request,
            timeout: None,
        }
    }

    quorums!(
        /// Replicas that must answer the read that a delete without a context, or with a condition, begins with.
        r,
        /// Of those, how many must be primaries.
        pr,
        /// Replicas that must take it.
        w,
        /// Of those, how many must be primaries.
        pw,
        /// Of those, how many must have it synced to disk.
        dw
    );

    conditions!();

    /// The context of an earlier answer for this key: just what was read is removed. Without one, what a read quorum
    /// sees.
    pub fn context(mut self, context: impl Into<Option<Bytes>>) -> Self {
        self.request.context = context.into();
        self
    }
}

awaited!(DeleteRequest, Delete, deleted -> ());

fn deleted(answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Deleted | Answer::Absent => Ok(()),
        other => Err(unexpected(&other, true)),
    }
}

impl From<Shown> for Sibling {
    fn from(shown: Shown) -> Self {
        Sibling {
            value: shown.value,
            dot: shown.dot,
            expires_ms: shown.expires_ms,
        }
    }
}

pub(crate) fn unexpected(answer: &Answer, write: bool) -> Error {
    Error::Unexpected {
        node: "the node".into(),
        what: format!("{}, which fits no such request", answer.name()),
        write,
    }
}
