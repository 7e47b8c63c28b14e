//! Which form of several siblings a client prefers.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// How several siblings are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// One JSON document, values in base64.
    Json,
    /// `multipart/mixed`, values as they are.
    Multipart,
}

/// Multipart where `Accept` gives it the greater weight, otherwise JSON.
pub(crate) fn preferred(headers: &HeaderMap) -> Form {
    let ranges = ranges(headers);
    let json = weight(&ranges, "application", "json");
    let multipart = weight(&ranges, "multipart", "mixed");
    if multipart > json {
        Form::Multipart
    } else {
        Form::Json
    }
}

/// The media ranges of `Accept`, with their weights.
fn ranges(headers: &HeaderMap) -> Vec<(String, u16)> {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(range)
        .collect()
}

/// Whether `Accept` gives lines of JSON a greater weight than one JSON document.
pub(crate) fn wants_lines(headers: &HeaderMap) -> bool {
    let ranges = ranges(headers);
    weight(&ranges, "application", "x-ndjson") > weight(&ranges, "application", "json")
}

/// One media range and its weight in thousandths. Parameters other than `q` are passed over.
fn range(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next()?.to_ascii_lowercase();
    let mut weight = 1000;
    for parameter in parts {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("q")
        {
            let q: f32 = value.trim().parse().ok()?;
            if !(0.0..=1.0).contains(&q) {
                return None;
            }
            weight = (q * 1000.0).round() as u16;
        }
    }
    Some((range, weight))
}

/// The weight of a type: that of the most specific range that covers it.
fn weight(ranges: &[(String, u16)], kind: &str, subtype: &str) -> u16 {
    [
        format!("{kind}/{subtype}"),
        format!("{kind}/*"),
        "*/*".to_owned(),
    ]
    .iter()
    .find_map(|wanted| ranges.iter().find(|(range, _)| range == wanted))
    .map_or(0, |(_, weight)| *weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_greater_weight_wins_and_json_wins_ties() {
        for (accept, form) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("application/json", Form::Json),
            ("multipart/mixed", Form::Multipart),
            ("Multipart/Mixed; boundary=x", Form::Multipart),
            ("multipart/*, */*;q=0.1", Form::Multipart),
            ("multipart/mixed, application/json", Form::Json),
            (
                "application/json;q=0.5, multipart/mixed;q=0.9",
                Form::Multipart,
            ),
            ("application/json;q=0.5, multipart/mixed;q=0.4", Form::Json),
            ("multipart/mixed, */*", Form::Json),
            ("multipart/mixed;q=0", Form::Json),
            ("multipart/mixed;q=NaN", Form::Json),
            ("multipart/mixed;q=7", Form::Json),
            ("text/html", Form::Json),
            (";;;,,q=", Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(preferred(&headers), form, "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new()), Form::Json);
    }

    #[test]
    fn lines_are_asked_for_by_name() {
        for (accept, wants) in [
            ("", false),
            ("*/*", false),
            ("application/*", false),
            ("application/json", false),
            ("application/x-ndjson", true),
            ("application/x-ndjson, application/json;q=0.9", true),
            ("application/x-ndjson;q=0.1, */*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_lines(&headers), wants, "{accept}");
        }
    }
}
