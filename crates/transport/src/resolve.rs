//! From `host:port` as people write it to socket addresses.

use std::io;
use std::net::SocketAddr;

/// Why an address could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It is not of the form `host:port`.
    #[error(
        "\"{0}\" is not an address: write host:port, such as 10.0.0.1:7401, [::1]:7401 or db1.example.org:7401"
    )]
    Malformed(String),
    /// The system's resolver failed or knows no such name.
    #[error("cannot resolve the host of \"{address}\": {reason}")]
    Unknown {
        /// What was to be resolved.
        address: String,
        /// What the resolver said.
        reason: String,
    },
}

/// All addresses of `host:port`, in the resolver's order without duplicates, at least one. The host is a name, an
/// IPv4 address, or an IPv6 address in brackets. Addresses are taken as they are without asking anybody.
///
/// # Errors
///
/// See [`ResolveError`].
pub async fn resolve(address: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Ok(plain) = address.parse() {
        return Ok(vec![plain]);
    }
    let malformed = || ResolveError::Malformed(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    // A bracket or colon left over means a broken IPv6 address, of which no resolver can make sense.
    if host.is_empty() || host.contains(['[', ']', ':', '/', ' ']) {
        return Err(malformed());
    }
    let unknown = |reason: String| ResolveError::Unknown {
        address: address.to_owned(),
        reason,
    };
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error: io::Error| unknown(error.to_string()))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(unknown("the name has no address".into()));
    }
    Ok(addresses)
}
