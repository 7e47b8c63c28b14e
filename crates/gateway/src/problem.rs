//! What went wrong, as `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quorate_protocol::{Refusal, Unmet};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value as Json, json};

/// The kinds of problems. Slug and status are a contract: programs outside rely on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Malformed,
    BadParameter,
    BadContext,
    BadBody,
    UnsupportedEncoding,
    NotAllowed,
    Absent,
    NoSuchRoute,
    MethodNotAllowed,
    BodyStalled,
    TooManySiblings,
    TooLarge,
    Impossible,
    NotYet,
    Internal,
    Unavailable,
    Overloaded,
    Draining,
    DiskFailed,
    WrongLayout,
    Corrupt,
    NotReady,
    BadProperties,
    ConditionFailed,
    Conflict,
    NotFound,
    BucketChanged,
    DiskFull,
    HintsFull,
    Unmet,
}

impl Kind {
    /// Status, the end of the type's URN, and title.
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Kind::Malformed => (S::BAD_REQUEST, "malformed", "Malformed request"),
            Kind::BadParameter => (S::BAD_REQUEST, "bad-parameter", "Bad query parameter"),
            Kind::BadContext => (S::BAD_REQUEST, "bad-context", "Bad context"),
            Kind::BadBody => (S::BAD_REQUEST, "bad-body", "The body did not arrive whole"),
            Kind::UnsupportedEncoding => (
                S::BAD_REQUEST,
                "unsupported-encoding",
                "Content encoding not supported",
            ),
            Kind::NotAllowed => (S::FORBIDDEN, "not-allowed", "Not allowed"),
            Kind::Absent => (S::NOT_FOUND, "absent", "No value"),
            Kind::NoSuchRoute => (S::NOT_FOUND, "no-such-route", "No such route"),
            Kind::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Kind::BodyStalled => (S::REQUEST_TIMEOUT, "body-stalled", "The body stalled"),
            Kind::TooManySiblings => (S::CONFLICT, "too-many-siblings", "Too many siblings"),
            Kind::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "Value too large"),
            Kind::Impossible => (S::UNPROCESSABLE_ENTITY, "impossible", "Impossible request"),
            Kind::NotYet => (S::UNPROCESSABLE_ENTITY, "not-yet", "Not supported yet"),
            Kind::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Kind::Unavailable => (
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "Too few replicas in reach",
            ),
            Kind::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Kind::Draining => (S::SERVICE_UNAVAILABLE, "draining", "The node is closing"),
            Kind::DiskFailed => (
                S::SERVICE_UNAVAILABLE,
                "disk-failed",
                "The node's disk failed",
            ),
            Kind::WrongLayout => (S::SERVICE_UNAVAILABLE, "wrong-layout", "Layouts differ"),
            Kind::Corrupt => (S::SERVICE_UNAVAILABLE, "corrupt", "A record is corrupt"),
            Kind::NotReady => (S::SERVICE_UNAVAILABLE, "not-ready", "Not ready"),
            Kind::BadProperties => (S::BAD_REQUEST, "bad-properties", "Bad properties"),
            Kind::ConditionFailed => (
                S::PRECONDITION_FAILED,
                "condition-failed",
                "The condition does not hold",
            ),
            Kind::Conflict => (S::CONFLICT, "conflict", "Conflict"),
            Kind::NotFound => (S::NOT_FOUND, "not-found", "Not found"),
            Kind::BucketChanged => (
                S::SERVICE_UNAVAILABLE,
                "bucket-changed",
                "The bucket has just changed",
            ),
            Kind::DiskFull => (
                S::INSUFFICIENT_STORAGE,
                "disk-full",
                "The disk is nearly full",
            ),
            Kind::HintsFull => (
                S::SERVICE_UNAVAILABLE,
                "hints-full",
                "Too much is kept for a node that is out of reach",
            ),
            Kind::Unmet => (
                S::GATEWAY_TIMEOUT,
                "unmet",
                "Too few replicas answered in time",
            ),
        }
    }

    /// Seconds after which it is worth trying again, where it is.
    fn retry_after_s(self) -> Option<u32> {
        match self {
            // A poisoned node stays so until somebody restarts it.
            Kind::DiskFailed | Kind::DiskFull | Kind::HintsFull => Some(30),
            Kind::Unavailable
            | Kind::BucketChanged
            | Kind::Overloaded
            | Kind::Draining
            | Kind::WrongLayout
            | Kind::Corrupt
            | Kind::NotReady
            | Kind::Unmet => Some(1),
            _ => None,
        }
    }
}

/// One problem: its kind, what happened and what to do, and further members.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    members: Vec<(&'static str, Json)>,
    allow: Option<&'static str>,
}

impl Problem {
    /// A problem; `detail` is one or more whole sentences.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Problem {
            kind,
            detail: detail.into(),
            members: Vec::new(),
            allow: None,
        }
    }

    /// With one more member.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Json>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// The route is known, and these are its methods.
    pub(crate) fn method_not_allowed(method: &str, allow: &'static str) -> Self {
        let mut problem = Problem::new(
            Kind::MethodNotAllowed,
            format!("{method} is not a method of this route; it has {allow}."),
        );
        problem.allow = Some(allow);
        problem
    }

    /// Whether the same request may well succeed in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        self.kind.retry_after_s().is_some()
    }

    /// What happened, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, slug, title) = self.kind.describe();
        let mut map = serializer.serialize_map(Some(4 + self.members.len()))?;
        map.serialize_entry("type", &format_args!("urn:quorate:problem:{slug}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("detail", &self.detail)?;
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings, numbers and maps with string keys always serialise.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.kind.describe().0;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.kind.retry_after_s() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = sentence(&refusal.to_string());
        let problem = |kind| Problem::new(kind, detail.clone());
        match refusal {
            Refusal::Malformed(_) => problem(Kind::Malformed),
            Refusal::BadContext(_) => Problem::new(
                Kind::BadContext,
                format!(
                    "{detail} Read the key again and send the context of that answer unchanged."
                ),
            ),
            Refusal::TooLarge { size, limit } => problem(Kind::TooLarge)
                .with("size", size)
                .with("limit", limit),
            Refusal::Impossible(_) => problem(Kind::Impossible),
            Refusal::TooManySiblings { count, limit } => problem(Kind::TooManySiblings)
                .with("count", count)
                .with("limit", limit),
            Refusal::SiblingsTooLarge { size, limit } => problem(Kind::TooManySiblings)
                .with("size", size)
                .with("limit", limit),
            Refusal::Unavailable { needed, answered } => problem(Kind::Unavailable)
                .with("needed", needed)
                .with("answered", answered),
            Refusal::Overloaded => problem(Kind::Overloaded),
            Refusal::Draining => problem(Kind::Draining),
            Refusal::Poisoned(_) => {
                Problem::new(Kind::DiskFailed, format!("{detail} Ask another node."))
            }
            Refusal::WrongLayout { version } => Problem::new(
                Kind::WrongLayout,
                format!("{detail} Nothing was changed: try again."),
            )
            .with("layout_version", version),
            Refusal::Corrupt(_) => Problem::new(
                Kind::Corrupt,
                format!("{detail} Nothing was changed: try again, or ask another node."),
            ),
            Refusal::NotAllowed(_) => problem(Kind::NotAllowed),
            Refusal::ConditionFailed(_) => problem(Kind::ConditionFailed),
            Refusal::Conflict(_) => problem(Kind::Conflict),
            Refusal::NotFound(_) => problem(Kind::NotFound),
            Refusal::BucketChanged(_) => problem(Kind::BucketChanged),
            Refusal::DiskFull { .. } => problem(Kind::DiskFull),
            Refusal::HintsFull { .. } => problem(Kind::HintsFull),
        }
    }
}

impl From<Unmet> for Problem {
    fn from(unmet: Unmet) -> Self {
        let advice = if unmet.may_have_written {
            "Read the key to see. A put may be repeated with the same context: nothing is lost by it, though the first may \
             remain as a sibling."
        } else {
            "Try again, allow more time with timeout=, or ask for fewer replicas."
        };
        Problem::new(
            Kind::Unmet,
            format!("{} {advice}", sentence(&unmet.to_string())),
        )
        .with("needed", unmet.needed)
        .with("answered", unmet.answered)
        .with("timed_out", unmet.timed_out)
        .with("may_have_written", json!(unmet.may_have_written))
    }
}

/// The same words, ended. They are not capitalised: they may begin with the name of a parameter.
fn sentence(text: &str) -> String {
    match text.trim_end() {
        "" => "No reason was given.".to_owned(),
        text if text.ends_with(['.', '!', '?']) => text.to_owned(),
        text => format!("{text}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_a_reader_s_order() {
        let problem = Problem::new(Kind::Absent, "Nothing here.").with("count", 3);
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:quorate:problem:absent","title":"No value","status":404,"detail":"Nothing here.","count":3}"#
        );
    }

    #[test]
    fn sentences() {
        assert_eq!(sentence("w is more than n"), "w is more than n.");
        assert_eq!(sentence("Done."), "Done.");
        assert_eq!(sentence(""), "No reason was given.");
    }
}
