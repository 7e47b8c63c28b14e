//! What clients did and saw, in the order in which it happened.

use std::fmt::Write as _;

/// What a client knows about the fate of its operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was acknowledged, or answered.
    Ok,
    /// Nothing happened, and nothing will.
    Fail,
    /// It may have happened, now or later.
    Unknown,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A put of the value that has this operation's number.
    Put,
    /// A delete.
    Delete,
    /// A get, and the values it showed.
    Get(Vec<u64>),
    /// A drop of the bucket: of all its keys. Its own key is empty.
    Drop,
    /// A listing of the whole bucket, page by page to its end, and the keys it showed.
    List(Vec<String>),
}

impl Kind {
    /// Whether it asks for a change.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Kind::Put | Kind::Delete | Kind::Drop)
    }
}

/// What a write was made on condition of. Values are numbers of puts, as everywhere here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// That the key has no value.
    Absent,
    /// That it has any.
    Present,
    /// That it has exactly one, and that it is one of these.
    One(Vec<u64>),
}

/// One operation of one client. Values are the numbers of the puts that wrote them, so that each is written once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Its number, from 0.
    pub id: u64,
    /// Which client. A client does one thing at a time.
    pub process: usize,
    /// Which key; empty for a listing.
    pub key: String,
    /// What it asked.
    pub kind: Kind,
    /// The values its client had seen, as its context says; `None` without a context.
    pub seen: Option<Vec<u64>>,
    /// What must be so for it to happen, if anything must.
    pub condition: Option<Condition>,
    /// Whether it was refused because its condition did not hold.
    pub condition_failed: bool,
    /// How long its value is to live, in microseconds, if it is to end.
    pub ttl_us: Option<u64>,
    /// From when on its value may be gone since its time was up, and from when on nobody may show it: in microseconds. `None`
    /// if it does not end as long as the run goes on.
    pub ends: Option<(u64, u64)>,
    /// How many replicas its client asked for: `w` of a put, `r` of a get; both of a write that reads first.
    pub quorum: (usize, usize),
    /// How many primaries are sure to have taken part in the write, and in the read, if it was acknowledged or answered.
    pub strict: (usize, usize),
    /// When it began, in microseconds.
    pub start: u64,
    /// When its outcome was known.
    pub end: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The node that was asked.
    pub node: usize,
}

impl Operation {
    /// Whether it is a write that read what there was and then removed it: one on a condition, or a delete without a
    /// context.
    #[must_use]
    pub fn reads_first(&self) -> bool {
        match self.kind {
            Kind::Get(_) | Kind::List(_) | Kind::Drop => false,
            Kind::Put => self.condition.is_some(),
            Kind::Delete => self.condition.is_some() || self.seen.is_none(),
        }
    }

    /// Whether it may have changed anything.
    #[must_use]
    pub fn may_have_written(&self) -> bool {
        self.kind.is_write() && self.outcome != Outcome::Fail
    }

    /// Whether it was a write and was acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> bool {
        self.kind.is_write() && self.outcome == Outcome::Ok
    }

    /// One line of JSON: the format that histories of real processes have too.
    #[must_use]
    pub fn to_json(&self) -> String {
        let op = match self.kind {
            Kind::Put => "put",
            Kind::Delete => "delete",
            Kind::Get(_) => "get",
            Kind::Drop => "drop",
            Kind::List(_) => "list",
        };
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Unknown => "unknown",
        };
        let mut line = format!(
            "{{\"process\":{},\"session\":{},\"op\":\"{op}\",\"key\":\"{}\",\"id\":{},\"w\":{},\"r\":{},\"strict_w\":{},\"strict_r\":{}",
            self.process,
            self.process,
            self.key,
            self.id,
            self.quorum.0,
            self.quorum.1,
            self.strict.0,
            self.strict.1
        );
        if let Some(seen) = &self.seen {
            let _ = write!(line, ",\"context\":{seen:?}");
        }
        match &self.condition {
            None => {}
            Some(Condition::Absent) => line.push_str(",\"if\":\"absent\""),
            Some(Condition::Present) => line.push_str(",\"if\":\"present\""),
            Some(Condition::One(values)) => {
                let _ = write!(line, ",\"if\":{values:?}");
            }
        }
        if let Some(ttl) = self.ttl_us {
            let _ = write!(line, ",\"ttl\":{ttl}");
        }
        if self.condition_failed {
            line.push_str(",\"condition_failed\":true");
        }
        if let Kind::Get(shown) = &self.kind {
            let _ = write!(line, ",\"values\":{shown:?}");
        }
        // Simulated keys need no escaping.
        if let Kind::List(keys) = &self.kind {
            let _ = write!(line, ",\"keys\":{keys:?}");
        }
        let _ = write!(
            line,
            ",\"outcome\":\"{outcome}\",\"start\":{},\"end\":{},\"node\":{}}}",
            self.start, self.end, self.node
        );
        line
    }
}
