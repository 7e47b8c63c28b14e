//! Listing the keys of a bucket: page by page, or one key after the other.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_protocol::{Answer, LIST_KEYS_DEFAULT, List, Listing, Options, Quorum, Request};

use crate::client::Client;
use crate::error::Error;
use crate::requests::unexpected;

/// How often a page is asked for while its failure may pass, and the first pause between; each next is twice as long.
/// Together some seconds: a node that was lost has been noticed by then.
const ATTEMPTS_MAX: u32 = 7;
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// A listing under construction: take a [`ListRequest::page`] of it, or all its [`ListRequest::keys`].
#[must_use = "a listing is asked for by `page` or `keys`"]
#[derive(Clone, Debug)]
pub struct ListRequest {
    client: Client,
    request: List,
    timeout: Option<Duration>,
}

impl Client {
    /// Lists the keys of a bucket that have a value, in the order of their bytes.
    ///
    /// ```no_run
    /// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// let mut keys = client.list("users").prefix("a").keys();
    /// while let Some(key) = keys.next().await? {
    ///     println!("{key}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, bucket: impl Into<String>) -> ListRequest {
        ListRequest {
            client: self.clone(),
            request: List {
                bucket: bucket.into(),
                prefix: String::new(),
                after: None,
                limit: LIST_KEYS_DEFAULT,
                options: Options::default(),
            },
            timeout: None,
        }
    }
}

impl ListRequest {
    /// Only keys that begin so.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Only keys greater than this one, which need not exist.
    pub fn after(mut self, after: impl Into<Option<String>>) -> Self {
        self.request.after = after.into();
        self
    }

    /// The most keys of one page, from 1 to 10,000; 1,000 unless set.
    pub fn page_size(mut self, keys: u32) -> Self {
        self.request.limit = keys;
        self
    }

    /// Replicas of each partition that must answer.
    pub fn r(mut self, quorum: impl Into<Option<Quorum>>) -> Self {
        self.request.options.r = quorum.into();
        self
    }

    /// Of those, how many must be primaries.
    pub fn pr(mut self, quorum: impl Into<Option<Quorum>>) -> Self {
        self.request.options.pr = quorum.into();
        self
    }

    /// All options at once.
    pub fn options(mut self, options: Options) -> Self {
        self.request.options = options;
        self
    }

    /// How long each page may take. The cluster's default is 5 seconds.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// One page. If its `next` is something, there may be more: list on after that.
    ///
    /// # Errors
    ///
    /// As any request; a listing changes nothing.
    pub async fn page(self) -> Result<Listing, Error> {
        self.ask().await
    }

    /// All keys from here on, page by page in bounded memory.
    #[must_use]
    pub fn keys(self) -> Keys {
        Keys {
            request: Some(self),
            page: VecDeque::new(),
        }
    }

    async fn ask(&self) -> Result<Listing, Error> {
        let request = Request::List(self.request.clone());
        match self.client.call(request, self.timeout).await? {
            Answer::Listed(listing) => Ok(listing),
            other => Err(unexpected(&other, false)),
        }
    }

    async fn ask_patiently(&self) -> Result<Listing, Error> {
        let mut pause = PAUSE_FIRST;
        for _ in 1..ATTEMPTS_MAX {
            match self.ask().await {
                Err(error) if may_pass(&error) => tokio::time::sleep(pause).await,
                result => return result,
            }
            pause *= 2;
        }
        self.ask().await
    }
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::Refused { refusal, .. } => refusal.is_passing(),
        Error::Unreachable { .. }
        | Error::Unmet { .. }
        | Error::Lost { .. }
        | Error::TimedOut { .. } => true,
        _ => false,
    }
}

/// The keys of a listing, one after the other. Holds one page; the next is asked for when that is used up. What may pass is
/// tried again for some seconds.
#[derive(Debug)]
pub struct Keys {
    /// What is to be asked next; none at the end.
    request: Option<ListRequest>,
    page: VecDeque<String>,
}

impl Keys {
    /// Whether the next key, if there is one, has to be asked for: a good moment to hand on what has been gathered.
    #[must_use]
    pub fn is_page_end(&self) -> bool {
        self.page.is_empty()
    }

    /// The next key; `None` after the last.
    ///
    /// # Errors
    ///
    /// As any request. Calling again goes on where it failed.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        while self.page.is_empty() {
            let Some(request) = &mut self.request else {
                return Ok(None);
            };
            let listing = request.ask_patiently().await?;
            self.page = listing.keys.into();
            match listing.next {
                Some(next) => request.request.after = Some(next),
                None => self.request = None,
            }
        }
        Ok(self.page.pop_front())
    }
}
