//! A name for every request, so that a response can be found in the logs.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries a request's id, in every response and, if the client has one, in the request. A client's
/// id has 1 to 64 letters, digits, dots, underscores and hyphens; any other is replaced.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("quorate-request-id");

const LENGTH_MAX: usize = 64;

/// The client's own id where it is fit for logs, or a new one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(REQUEST_ID) {
        Some(given) if is_sane(given.as_bytes()) => given.clone(),
        _ => fresh(),
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// 64 random bits drawn when the process first needs them, and a counter.
fn fresh() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(random);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Hexadecimal digits and a hyphen are always a valid header value.
    HeaderValue::from_str(&format!("{process:016x}-{counter:x}"))
        .unwrap_or(HeaderValue::from_static("unknown"))
}

/// 64 bits that nobody outside can guess. The standard library seeds its hash tables from the system's randomness;
/// ids and boundaries need no better source.
pub(crate) fn random() -> u64 {
    static DRAWS: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(DRAWS.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &'static [u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
        of(&headers)
    }

    #[test]
    fn a_sane_id_is_kept() {
        assert_eq!(given(b"job-7.retry_2"), "job-7.retry_2");
    }

    #[test]
    fn any_other_is_replaced() {
        assert_ne!(given(b"two words"), "two words");
        assert_ne!(given(b""), "");
        assert_ne!(given("ü".as_bytes()).as_bytes(), "ü".as_bytes());
        let long: &'static [u8] = &[b'a'; 65];
        assert_ne!(given(long).as_bytes(), long);
    }

    #[test]
    fn new_ones_differ() {
        assert_ne!(fresh(), fresh());
        assert!(is_sane(fresh().as_bytes()));
    }
}
