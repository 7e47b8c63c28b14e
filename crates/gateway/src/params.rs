//! Query parameters, read strictly.
//!
//! A parameter that is not understood is refused, never skipped: `?W=3` taken for no parameter at all would
//! acknowledge a write with fewer copies than its writer asked for.

use std::time::Duration;

use quorate_protocol::{
    KEY_BYTES_MAX, Lifetime, Options, QUORUM_COUNT_MAX, Quorum, TIMEOUT_MAX, TtlError,
};
use thiserror::Error;

use crate::percent::{self, PercentError};
use crate::problem::{Kind, Problem};

/// What a request on a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// `GET` and `HEAD`.
    Get,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
    /// `GET` and `HEAD` of a bucket's keys.
    List,
}

impl Operation {
    fn method(self) -> &'static str {
        match self {
            Operation::Get => "GET",
            Operation::Put => "PUT",
            Operation::Delete => "DELETE",
            Operation::List => "GET of keys",
        }
    }
}

/// What the query of a request says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Params {
    /// Quorums and `return_body`.
    pub(crate) options: Options,
    /// Milliseconds, at least 1 where given; 0 for the default.
    pub(crate) timeout_ms: u32,
    /// How long the value of a put is to live, where that is not for its bucket to say.
    pub(crate) lifetime: Option<Lifetime>,
    /// What the keys of a listing begin with.
    pub(crate) prefix: String,
    /// The key after which a listing begins.
    pub(crate) after: Option<String>,
    /// How many keys a listing is to have, at least 1 where given.
    pub(crate) limit: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    R,
    W,
    Pr,
    Pw,
    Dw,
    Timeout,
    Sloppy,
    ReturnBody,
    Explain,
    Ttl,
    Prefix,
    After,
    Limit,
}

struct Parameter {
    name: Name,
    text: &'static str,
    of: &'static [Operation],
}

const fn parameter(name: Name, text: &'static str, of: &'static [Operation]) -> Parameter {
    Parameter { name, text, of }
}

const ANY: &[Operation] = &[
    Operation::Get,
    Operation::Put,
    Operation::Delete,
    Operation::List,
];
const ON_KEYS: &[Operation] = &[Operation::Get, Operation::Put, Operation::Delete];
// A delete without a context, and any write with a condition, reads first, so it takes the quorums of both.
const WRITING: &[Operation] = &[Operation::Put, Operation::Delete];
const PUTTING: &[Operation] = &[Operation::Put];
const LISTING: &[Operation] = &[Operation::List];

const PARAMETERS: [Parameter; 13] = [
    parameter(Name::R, "r", ANY),
    parameter(Name::W, "w", WRITING),
    parameter(Name::Pr, "pr", ANY),
    parameter(Name::Pw, "pw", WRITING),
    parameter(Name::Dw, "dw", WRITING),
    parameter(Name::Timeout, "timeout", ANY),
    parameter(Name::Sloppy, "sloppy", ANY),
    parameter(Name::ReturnBody, "return_body", PUTTING),
    parameter(Name::Explain, "explain", ON_KEYS),
    parameter(Name::Ttl, "ttl", PUTTING),
    parameter(Name::Prefix, "prefix", LISTING),
    parameter(Name::After, "after", LISTING),
    parameter(Name::Limit, "limit", LISTING),
];

/// Why a query is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(crate) enum ParamError {
    #[error("The query cannot be decoded: {0}.")]
    Undecodable(PercentError),
    #[error("There is no parameter '{name}'{}. {method} has {}.", hint(*nearest), list(valid))]
    Unknown {
        name: String,
        nearest: Option<&'static str>,
        method: &'static str,
        valid: Vec<&'static str>,
    },
    #[error(
        "The parameter '{name}' does not apply to {method}, which has {}.",
        list(valid)
    )]
    NotHere {
        name: &'static str,
        method: &'static str,
        valid: Vec<&'static str>,
    },
    #[error(
        "The parameter '{name}' would do nothing: a PUT without a condition reads nothing. Leave it out, or send the \
         condition ('if-match' or 'if-none-match')."
    )]
    ReadsNothing { name: &'static str },
    #[error("The parameter '{name}' is given more than once; give it once.")]
    Repeated { name: &'static str },
    #[error("The parameter '{name}' cannot be read: '{value}' is not {expected}.")]
    Malformed {
        name: &'static str,
        value: String,
        expected: String,
    },
    #[error("{name}={value} can never succeed: {why}.")]
    Impossible {
        name: &'static str,
        value: String,
        why: String,
    },
}

/// What a message repeats of the client's own words: a long value would bury the rest.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn hint(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean '{name}'?)"))
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

impl From<ParamError> for Problem {
    fn from(error: ParamError) -> Self {
        let kind = match &error {
            ParamError::Impossible { .. } => Kind::Impossible,
            _ => Kind::BadParameter,
        };
        let problem = Problem::new(kind, error.to_string());
        match error {
            ParamError::Undecodable(_) => problem,
            ParamError::Unknown {
                name,
                nearest,
                valid,
                ..
            } => {
                let problem = problem.with("parameter", name).with("valid", valid);
                match nearest {
                    Some(nearest) => problem.with("nearest", nearest),
                    None => problem,
                }
            }
            ParamError::NotHere { name, valid, .. } => {
                problem.with("parameter", name).with("valid", valid)
            }
            ParamError::Repeated { name }
            | ParamError::ReadsNothing { name }
            | ParamError::Malformed { name, .. }
            | ParamError::Impossible { name, .. } => problem.with("parameter", name),
        }
    }
}

/// Reads the query of a request. Names and values are form-encoded: percent-encoded UTF-8, `+` for a space.
pub(crate) fn parse(operation: Operation, query: Option<&str>) -> Result<Params, ParamError> {
    let mut params = Params::default();
    let mut seen = [false; PARAMETERS.len()];
    for pair in query.unwrap_or_default().split('&') {
        // Left by a trailing or doubled '&': it names nothing, so nothing is lost by passing over it.
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (form_decode(name)?, form_decode(value)?);
        let Some(at) = PARAMETERS.iter().position(|p| p.text == name) else {
            return Err(ParamError::Unknown {
                nearest: nearest(&name, operation),
                name: shorten(&name),
                method: operation.method(),
                valid: valid(operation),
            });
        };
        let parameter = &PARAMETERS[at];
        if !parameter.of.contains(&operation) {
            return Err(ParamError::NotHere {
                name: parameter.text,
                method: operation.method(),
                valid: valid(operation),
            });
        }
        if std::mem::replace(&mut seen[at], true) {
            return Err(ParamError::Repeated {
                name: parameter.text,
            });
        }
        apply(&mut params, parameter, &value)?;
    }
    Ok(params)
}

/// Reads the query of a request that has at most one of these parameters; returns its value. For routes that are not
/// about a key.
pub(crate) fn none(query: Option<&str>, known: &[&'static str]) -> Result<Option<String>, Problem> {
    let mut found = None;
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (form_decode(name)?, form_decode(value)?);
        if !known.contains(&name.as_str()) {
            let valid = match known {
                [] => "This route has none".to_owned(),
                known => format!("This route has {}", known.join(", ")),
            };
            let name = shorten(&name);
            let problem = format!("There is no parameter '{name}' here. {valid}.");
            return Err(Problem::new(Kind::BadParameter, problem).with("parameter", name));
        }
        if found.replace(value).is_some() {
            return Err(Problem::new(
                Kind::BadParameter,
                format!("The parameter '{name}' is given more than once; give it once."),
            )
            .with("parameter", name));
        }
    }
    Ok(found)
}

impl Params {
    /// Refuses what would be passed over by a put without a condition, which does not read.
    pub(crate) fn refuse_reading(&self) -> Result<(), ParamError> {
        match (self.options.r, self.options.pr) {
            (Some(_), _) => Err(ParamError::ReadsNothing { name: "r" }),
            (_, Some(_)) => Err(ParamError::ReadsNothing { name: "pr" }),
            (None, None) => Ok(()),
        }
    }
}

fn form_decode(text: &str) -> Result<String, ParamError> {
    percent::decode(&text.replace('+', " ")).map_err(ParamError::Undecodable)
}

fn apply(params: &mut Params, parameter: &Parameter, value: &str) -> Result<(), ParamError> {
    let name = parameter.text;
    let options = &mut params.options;
    match parameter.name {
        // A read of no replica, or a write to none, could only be answered by making something up.
        Name::R => options.r = Some(quorum(name, value, 1)?),
        Name::W => options.w = Some(quorum(name, value, 1)?),
        Name::Pr => options.pr = Some(quorum(name, value, 0)?),
        Name::Pw => options.pw = Some(quorum(name, value, 0)?),
        Name::Dw => options.dw = Some(quorum(name, value, 0)?),
        Name::Prefix => params.prefix = part_of_key(name, value)?,
        Name::After => params.after = Some(part_of_key(name, value)?),
        Name::Limit => params.limit = Some(limit(name, value)?),
        Name::Timeout => params.timeout_ms = timeout_ms(name, value)?,
        Name::ReturnBody => options.return_body = boolean(name, value)?,
        Name::Sloppy => options.sloppy = Some(boolean(name, value)?),
        Name::Explain => options.explain = boolean(name, value)?,
        Name::Ttl => params.lifetime = Some(lifetime(name, value)?),
    }
    Ok(())
}

fn part_of_key(name: &'static str, value: &str) -> Result<String, ParamError> {
    if value.len() > KEY_BYTES_MAX {
        return Err(ParamError::Impossible {
            name,
            value: shorten(value),
            why: format!("no key has more than {KEY_BYTES_MAX} bytes"),
        });
    }
    Ok(value.to_owned())
}

/// How many keys: of a page fewer are allowed, which is checked where that is known.
fn limit(name: &'static str, value: &str) -> Result<u64, ParamError> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(0) => Err(ParamError::Impossible {
            name,
            value: shorten(value),
            why: "a listing of no keys says nothing: it is at least 1".to_owned(),
        }),
        Ok(limit) if is_number => Ok(limit),
        _ => Err(ParamError::Malformed {
            name,
            value: shorten(value),
            expected: "a number of keys".to_owned(),
        }),
    }
}

fn quorum(name: &'static str, value: &str, least: u8) -> Result<Quorum, ParamError> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number && value.starts_with('+') {
        return Err(not_a_quorum(name, value));
    }
    match value.parse::<Quorum>() {
        Ok(Quorum::Count(count)) if count < least => Err(ParamError::Impossible {
            name,
            value: shorten(value),
            why: format!("at least {least} replica has to take part"),
        }),
        Ok(quorum) => Ok(quorum),
        Err(_) if is_number => Err(ParamError::Impossible {
            name,
            value: shorten(value),
            why: format!("no key has more than {QUORUM_COUNT_MAX} replicas"),
        }),
        Err(_) => Err(not_a_quorum(name, value)),
    }
}

fn not_a_quorum(name: &'static str, value: &str) -> ParamError {
    ParamError::Malformed {
        name,
        value: shorten(value),
        expected: format!(
            "a quorum: a number up to {QUORUM_COUNT_MAX}, one, quorum, all, local_quorum or each_quorum"
        ),
    }
}

fn boolean(name: &'static str, value: &str) -> Result<bool, ParamError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ParamError::Malformed {
            name,
            value: shorten(value),
            expected: "true or false".to_owned(),
        }),
    }
}

fn duration(name: &'static str, value: &str) -> Result<Duration, ParamError> {
    humantime::parse_duration(value).map_err(|_| ParamError::Malformed {
        name,
        value: shorten(value),
        expected: "a duration such as 250ms, 2s or 1h30m".to_owned(),
    })
}

fn lifetime(name: &'static str, value: &str) -> Result<Lifetime, ParamError> {
    Lifetime::parse(value).map_err(|error| {
        let (value, text) = (shorten(value), error.to_string());
        match error {
            TtlError::Malformed => ParamError::Malformed {
                name,
                value,
                expected: text,
            },
            TtlError::OutOfBounds => ParamError::Impossible {
                name,
                value,
                why: text,
            },
        }
    })
}

/// Whole milliseconds, rounded up: 0 would stand for the default.
fn timeout_ms(name: &'static str, value: &str) -> Result<u32, ParamError> {
    let timeout = duration(name, value)?;
    let impossible = |why: String| ParamError::Impossible {
        name,
        value: shorten(value),
        why,
    };
    if timeout.is_zero() {
        return Err(impossible("it has to be more than nothing".to_owned()));
    }
    if timeout > TIMEOUT_MAX {
        return Err(impossible(format!(
            "the longest is {}",
            humantime::format_duration(TIMEOUT_MAX)
        )));
    }
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    // At most TIMEOUT_MAX, some hundred thousand milliseconds.
    Ok(u32::try_from(ms).unwrap_or(u32::MAX))
}

fn valid(operation: Operation) -> Vec<&'static str> {
    PARAMETERS
        .iter()
        .filter(|p| p.of.contains(&operation))
        .map(|p| p.text)
        .collect()
}

/// The valid name that was probably meant. Names of one and two letters are near to everything: for them only case
/// is forgiven.
fn nearest(name: &str, operation: Operation) -> Option<&'static str> {
    // A name this long is no typo, and comparing it would cost the square of its length.
    if name.len() > 32 {
        return None;
    }
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let meant = plain(name);
    valid(operation)
        .into_iter()
        .filter_map(|candidate| {
            let target = plain(candidate);
            let distance = strsim::osa_distance(&meant, &target);
            let allowed = if target.len() < 3 {
                0
            } else {
                target.len().div_ceil(3)
            };
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(operation: Operation, query: &str) -> Kind {
        Problem::from(parse(operation, Some(query)).unwrap_err()).kind()
    }

    #[test]
    fn reads_all_of_a_put_s() {
        let query = "w=2&pw=one&dw=all&timeout=1m30s&sloppy=false&return_body=true&explain=false";
        assert_eq!(
            parse(Operation::Put, Some(query)),
            Ok(Params {
                options: Options {
                    w: Some(Quorum::Count(2)),
                    pw: Some(Quorum::Count(1)),
                    dw: Some(Quorum::All),
                    sloppy: Some(false),
                    return_body: true,
                    ..Options::default()
                },
                timeout_ms: 90_000,
                ..Params::default()
            })
        );
    }

    #[test]
    fn nothing_is_nothing() {
        for query in [None, Some(""), Some("&"), Some("&&&")] {
            assert_eq!(parse(Operation::Get, query), Ok(Params::default()));
        }
    }

    #[test]
    fn quorums() {
        let r =
            |value: &str| parse(Operation::Get, Some(&format!("r={value}"))).map(|p| p.options.r);
        assert_eq!(r("quorum"), Ok(Some(Quorum::Majority)));
        assert_eq!(r("local_quorum"), Ok(Some(Quorum::Local)));
        assert_eq!(r("each_quorum"), Ok(Some(Quorum::Each)));
        assert_eq!(r("200"), Ok(Some(Quorum::Count(200))));
        assert_eq!(r("%32"), Ok(Some(Quorum::Count(2))));
        for impossible in ["r=0", "r=00", "r=201", "r=256", "r=99999999999999999999999"] {
            assert_eq!(
                status(Operation::Get, impossible),
                Kind::Impossible,
                "{impossible}"
            );
        }
        for bad in [
            "r=", "r", "r=two", "r=-1", "r=+2", "r=%2B2", "r=1.0", "r=Quorum", "r=2%20", "r=%D9%A3",
        ] {
            assert_eq!(status(Operation::Get, bad), Kind::BadParameter, "{bad}");
        }
        assert_eq!(status(Operation::Put, "w=0"), Kind::Impossible);
        assert!(parse(Operation::Put, Some("pw=0&dw=0")).is_ok());
        assert!(parse(Operation::Get, Some("pr=0")).is_ok());
    }

    #[test]
    fn timeouts() {
        let ms = |value: &str| {
            parse(Operation::Get, Some(&format!("timeout={value}"))).map(|p| p.timeout_ms)
        };
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("2s"), Ok(2_000));
        assert_eq!(ms("1.5s"), Ok(1_500));
        assert_eq!(ms("1us"), Ok(1));
        assert_eq!(ms("5m"), Ok(300_000));
        for impossible in ["0s", "0", "301s", "5m1ns", "1h30m", "1000years"] {
            let query = format!("timeout={impossible}");
            assert_eq!(
                status(Operation::Get, &query),
                Kind::Impossible,
                "{impossible}"
            );
        }
        for bad in [
            "",
            "2",
            "fast",
            "-1s",
            "99999999999999999999s",
            "9999999999999999y",
            "s",
        ] {
            let query = format!("timeout={bad}");
            assert_eq!(status(Operation::Get, &query), Kind::BadParameter, "{bad}");
        }
    }

    #[test]
    fn times_to_live() {
        let ttl =
            |value: &str| parse(Operation::Put, Some(&format!("ttl={value}"))).map(|p| p.lifetime);
        assert_eq!(ttl("1h"), Ok(Some(Lifetime::Ms(3_600_000))));
        assert_eq!(ttl("1s"), Ok(Some(Lifetime::Ms(1_000))));
        assert_eq!(ttl("none"), Ok(Some(Lifetime::Unlimited)));
        for impossible in ["0", "0s", "999ms", "3651d"] {
            let query = format!("ttl={impossible}");
            assert_eq!(status(Operation::Put, &query), Kind::Impossible, "{query}");
        }
        for bad in ["", "1", "soon", "-1s", "None"] {
            let query = format!("ttl={bad}");
            assert_eq!(
                status(Operation::Put, &query),
                Kind::BadParameter,
                "{query}"
            );
        }
    }

    #[test]
    fn each_once_and_only_where_it_applies() {
        assert_eq!(
            parse(Operation::Get, Some("r=1&r=1")),
            Err(ParamError::Repeated { name: "r" })
        );
        assert!(parse(Operation::Delete, Some("r=1&w=1&pr=1&pw=1&dw=1&timeout=1s")).is_ok());
        for (operation, query) in [
            (Operation::Get, "w=1"),
            (Operation::Get, "pw=1"),
            (Operation::Get, "dw=1"),
            (Operation::Get, "return_body=true"),
            (Operation::Get, "ttl=1h"),
            (Operation::Delete, "return_body=true"),
        ] {
            assert!(
                matches!(
                    parse(operation, Some(query)),
                    Err(ParamError::NotHere { .. })
                ),
                "{query}"
            );
        }
    }

    #[test]
    fn a_put_that_reads_nothing_takes_no_quorum_to_read() {
        for (query, named) in [("r=1", "r"), ("pr=0", "pr"), ("pr=1&r=1", "r")] {
            let params = parse(Operation::Put, Some(query)).expect("with a condition it may");
            let error = params.refuse_reading().unwrap_err();
            assert_eq!(error, ParamError::ReadsNothing { name: named });
        }
        let params = parse(Operation::Put, Some("w=1&explain=true")).unwrap();
        assert!(params.options.explain && params.refuse_reading().is_ok());
    }

    #[test]
    fn what_is_neither_true_nor_false_is_refused() {
        for query in [
            "sloppy",
            "sloppy=1",
            "explain=yes",
            "ttl=soon",
            "return_body",
            "return_body=TRUE",
        ] {
            assert_eq!(status(Operation::Put, query), Kind::BadParameter, "{query}");
        }
    }

    #[test]
    fn typos_are_recognised() {
        let suggestion = |name: &str| match parse(Operation::Put, Some(&format!("{name}=1"))) {
            Err(ParamError::Unknown { nearest, .. }) => nearest,
            other => panic!("{name}: {other:?}"),
        };
        for (typo, meant) in [
            ("W", Some("w")),
            ("time_out", Some("timeout")),
            ("tiemout", Some("timeout")),
            ("returnBody", Some("return_body")),
            ("return-body", Some("return_body")),
            ("slopy", Some("sloppy")),
            ("x", None),
            ("q", None),
            ("consistency", None),
            ("", None),
        ] {
            assert_eq!(suggestion(typo), meant, "{typo}");
        }
        assert_eq!(suggestion(&"timeout".repeat(1000)), None);
    }

    #[test]
    fn messages_name_the_parameter_and_the_valid_ones() {
        let text = |query: &str| parse(Operation::Get, Some(query)).unwrap_err().to_string();
        assert_eq!(
            text("timout=1s"),
            "There is no parameter 'timout' (did you mean 'timeout'?). GET has r, pr, timeout, sloppy, explain."
        );
        assert_eq!(
            text("w=1"),
            "The parameter 'w' does not apply to GET, which has r, pr, timeout, sloppy, explain."
        );
        assert_eq!(
            text("r=0"),
            "r=0 can never succeed: at least 1 replica has to take part."
        );
        assert_eq!(
            text("timeout=1h30m"),
            "timeout=1h30m can never succeed: the longest is 5m."
        );
    }

    #[test]
    fn long_values_are_cut_short() {
        let long = "ü".repeat(5000);
        for query in [format!("r={long}"), format!("{long}=1")] {
            let text = parse(Operation::Get, Some(&query)).unwrap_err().to_string();
            assert!(text.len() < 250 && text.contains("ü…"), "{text}");
        }
    }

    #[test]
    fn undecodable_queries() {
        for query in ["r=%", "r=%f", "%ff=1", "r=%ff"] {
            assert_eq!(status(Operation::Get, query), Kind::BadParameter, "{query}");
        }
    }
}
