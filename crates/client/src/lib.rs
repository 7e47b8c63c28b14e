//! Asynchronous client library that finds the layout and routes to a replica.
//!
//! A [`Client`] asks any node for the layout and from then on sends every request to a primary of its key, over one
//! multiplexed QUIC connection a node. What a node refuses for a reason that will pass, and what could not be sent, is
//! tried at the next node; a write whose connection broke after it was sent is not, because it may have happened:
//! [`Error::may_have_happened`] says so.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate_client::{Client, ClientConfig};
//!
//! let client = Client::connect(ClientConfig::load("cluster/client.toml".as_ref())?).await?;
//! client.put("users", "ada", "countess").await?;
//! let read = client.get("users", "ada").await?.expect("it was just put");
//! client.put("users", "ada", "analyst").context(read.context).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Where a request goes and what follows from an outcome is decided in `routing`, which does no I/O. `link` keeps one
//! connection a node, `client` drives both, `requests` are the words users say.

mod buckets;
mod client;
mod config;
mod error;
mod explain;
mod link;
mod listing;
mod requests;
mod routing;

pub use client::{Client, Described};
pub use config::{ClientConfig, ConfigError};
pub use error::Error;
pub use explain::{ExplainRequest, Explained};
pub use listing::{Keys, ListRequest};
pub use quorate_protocol::{
    Account, BucketDescription, Condition, Lifetime, Listing, PropertyChanges, Quorum, Value,
};
pub use requests::{DeleteRequest, Fetched, GetRequest, PutRequest, Sibling};
