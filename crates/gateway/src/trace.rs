//! The `traceparent` header of W3C Trace Context (level 1).

use axum::http::HeaderMap;
use axum::http::request::Parts;
use quorate_protocol::Trace;

/// The trace of a request under way: the client's, or the one that was begun for it.
pub(crate) fn of(parts: &Parts) -> Option<Trace> {
    parts.extensions.get::<Trace>().copied()
}

/// The trace a client says its request belongs to. What is not valid is ignored, as the recommendation asks: a broken tracer must not
/// break requests.
pub(crate) fn given(headers: &HeaderMap) -> Option<Trace> {
    let mut all = headers.get_all("traceparent").iter();
    match (all.next(), all.next()) {
        (Some(only), None) => parse(only.to_str().ok()?),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Trace> {
    let mut parts = text.split('-');
    let version = parts.next().filter(|v| is_lower_hex(v, 2) && *v != "ff")?;
    let trace_id = parts.next().filter(|v| is_lower_hex(v, 32))?;
    let span_id = parts.next().filter(|v| is_lower_hex(v, 16))?;
    let flags = parts.next().filter(|v| is_lower_hex(v, 2))?;
    // Later versions may add fields behind these; this one has none.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let trace = Trace {
        trace_id: u128::from_str_radix(trace_id, 16).ok()?,
        span_id: u64::from_str_radix(span_id, 16).ok()?,
        flags: u8::from_str_radix(flags, 16).ok()?,
    };
    (trace.trace_id != 0 && trace.span_id != 0).then_some(trace)
}

fn is_lower_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_the_recommendation_s_example() {
        let trace = Trace {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            flags: 1,
        };
        assert_eq!(parse(GOOD), Some(trace));
        assert_eq!(
            parse(&format!("{}-extra", GOOD.replacen("00", "01", 1))),
            Some(trace)
        );
    }

    #[test]
    fn ignores_the_rest() {
        for bad in [
            "".to_owned(),
            "00".to_owned(),
            "00-0-0-0".to_owned(),
            GOOD.to_uppercase(),
            format!("{GOOD}-extra"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf9", "+bf9"),
            GOOD.replace("-01", "-1"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }
}
