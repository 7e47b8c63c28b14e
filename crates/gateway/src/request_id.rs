//! A name for every request, so that it can be found in the logs of every node that had to do with it.
//!
//! What travels between nodes is a trace (W3C Trace Context). So the name is the id of the client's trace, or of one that
//! begins here; only a client that brings a name of its own and no trace gets that name back, and the gateway's log says
//! which trace it belongs to.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use quorate_protocol::Trace;

use crate::trace;

/// The header that carries a request's id, in every response and, if the client has one, in the request. A client's
/// id has 1 to 64 letters, digits, dots, underscores and hyphens; any other is replaced.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("quorate-request-id");

const LENGTH_MAX: usize = 64;

/// The client's own id where it is fit for logs, or its trace's, or a new one; and the trace it belongs to.
pub(crate) fn of(headers: &HeaderMap) -> (HeaderValue, Trace) {
    let given = headers.get(REQUEST_ID);
    let given = given.filter(|id| is_sane(id.as_bytes()));
    let trace = trace::given(headers).unwrap_or_else(|| Trace {
        trace_id: given.and_then(as_trace_id).unwrap_or_else(fresh),
        // Not 0, which would make the trace no trace.
        span_id: random() | 1,
        flags: 0,
    });
    let id = match given {
        Some(given) => given.clone(),
        // Hexadecimal digits are always a valid header value.
        None => HeaderValue::from_str(&format!("{:032x}", trace.trace_id))
            .unwrap_or(HeaderValue::from_static("unknown")),
    };
    (id, trace)
}

/// An id that could be a trace's is one.
fn as_trace_id(id: &HeaderValue) -> Option<u128> {
    let text = id.to_str().ok().filter(|text| text.len() == 32)?;
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let id = text.bytes().all(lower_hex).then_some(text)?;
    u128::from_str_radix(id, 16).ok().filter(|id| *id != 0)
}

fn is_sane(id: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// 64 random bits drawn when the process first needs them, and 64 that differ with every call.
fn fresh() -> u128 {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(random);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    (u128::from(*process | 1) << 64) | u128::from(scattered(counter))
}

/// Another number for each number (the finaliser of splitmix64, Steele et al., 2014): tracers sample by the last bits of an
/// id, which a mere counter would not fill.
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
        of(&headers).0
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
        let (id, trace) = of(&HeaderMap::new());
        assert!(is_sane(id.as_bytes()));
        assert_eq!(id, format!("{:032x}", trace.trace_id));
        assert!(trace.trace_id != 0 && trace.span_id != 0);
    }

    #[test]
    fn id_and_trace_are_one_where_they_can_be() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static(trace));
        let (id, traced) = of(&headers);
        assert_eq!(id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(Some(traced), trace::given(&headers));
        // A name of the client's own stays, and so does its trace.
        headers.insert(REQUEST_ID, HeaderValue::from_static("job-7"));
        assert_eq!(of(&headers), (HeaderValue::from_static("job-7"), traced));
        // A name that could be a trace's begins that trace.
        headers.remove("traceparent");
        headers.insert(
            REQUEST_ID,
            HeaderValue::from_static("4bf92f3577b34da6a3ce929d0e0e4736"),
        );
        assert_eq!(of(&headers).1.trace_id, traced.trace_id);
        headers.insert(REQUEST_ID, HeaderValue::from_static("job-7"));
        assert_ne!(of(&headers).1.trace_id, traced.trace_id);
    }
}
