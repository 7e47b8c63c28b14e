//! Writes that read first: what they wait for, and what they make of what was read.

use bytes::Bytes;
use quorate_causal::{DotSet, Record};
use quorate_protocol::{Condition, Refusal};

use crate::write::WriteTerms;

/// A write that waits for a read of its key: a delete without a context (rule R17), or any write with a condition.
///
/// What it finds live it replaces, so that nobody who was told that a condition held finds the old value beside the new
/// one. What it finds *removed* it removes too. A removal that one replica alone remembers may go with that replica: "the
/// key was absent" would be acknowledged, and the value that was absent would stand beside the one that took its place.
///
/// Between the read and the write anybody may write. Two writers that both found a key absent leave two siblings, and
/// neither value is lost; whoever needs one winner alone needs agreement, which this store does not do.
#[derive(Debug)]
pub(crate) struct ReadFirst {
    /// What its replicas must do once it is a write.
    pub(crate) terms: WriteTerms,
    /// What must be so.
    pub(crate) condition: Option<Condition>,
    /// What its client had read before, and so removes as well.
    pub(crate) seen: DotSet,
    /// The payload of a put; none for a delete.
    pub(crate) payload: Option<Bytes>,
    /// When its value is to end.
    pub(crate) expires: Option<u64>,
}

impl ReadFirst {
    /// What it removes, of a key about which the replicas together know this much, at this time of day. A value whose
    /// time is up is not there, as far as conditions go; and it is removed with the rest, so that it is not for a clock
    /// that is behind to say that it stood beside the new one.
    ///
    /// # Errors
    /// The refusal, if the condition does not hold.
    pub(crate) fn removed(&self, record: &Record, wall_ms: u64) -> Result<DotSet, Refusal> {
        if let Some(condition) = &self.condition {
            holds(condition, record, wall_ms).map_err(Refusal::ConditionFailed)?;
        }
        let mut removed = record.context().removed();
        removed.join(record.evidence());
        removed.join(&self.seen);
        Ok(removed)
    }
}

/// Whether a condition holds; if not, what stands there, and what to do about it.
fn holds(condition: &Condition, record: &Record, wall_ms: u64) -> Result<(), String> {
    let live: Vec<String> = record
        .live()
        .iter()
        .filter(|s| !s.is_expired(wall_ms))
        .map(|s| s.span.dot.to_string())
        .collect();
    match (condition, &live[..]) {
        (Condition::Absent, []) | (Condition::Present, [_, ..]) => Ok(()),
        (Condition::Dots(named), [only]) if named.contains(only) => Ok(()),
        (Condition::Absent, stand) => Err(format!(
            "the key is not absent: it has {}; read it again, and write with the context or the ETag of that answer",
            values(stand)
        )),
        (Condition::Present, []) => Err(
            "the key has no value; to create it, write without this condition, or on condition that it is absent"
                .to_owned(),
        ),
        (Condition::Dots(_), []) => Err(
            "the key has no value any more; read it again, and write on condition that it is absent if that is meant"
                .to_owned(),
        ),
        (Condition::Dots(_), [only]) => Err(format!(
            "the key's value is {only} now, which the condition does not name; read it again, and write with the \
             context or the ETag of that answer"
        )),
        (Condition::Dots(_), stand) => Err(format!(
            "the key has {}, and a condition on one value does not hold for siblings; read them again, and write \
             with the context of that answer",
            values(stand)
        )),
    }
}

/// How many values stand there, and the first of them by dot.
fn values(dots: &[String]) -> String {
    const NAMED_MAX: usize = 5;
    let named = dots[..dots.len().min(NAMED_MAX)].join(", ");
    match dots.len() {
        1 => format!("the value {named}"),
        count if count > NAMED_MAX => format!("{count} values ({named}, and others)"),
        count => format!("{count} values ({named})"),
    }
}

#[cfg(test)]
mod tests {
    use quorate_causal::{Actor, Dot, Sibling, Span};

    use super::*;

    fn record(counters: &[u64]) -> Record {
        let live = counters.iter().map(|&counter| Sibling {
            span: Span::lone(Dot {
                actor: Actor(0xa1b2_c3d4 << 96),
                counter,
            }),
            payload: Bytes::new(),
            expires: Some(100 + counter),
        });
        Record::from_parts(live.collect(), DotSet::new())
    }

    #[test]
    fn what_has_expired_is_absent_and_is_removed() {
        let two = record(&[1, 2]);
        assert!(holds(&Condition::Absent, &two, 101).is_err());
        assert_eq!(holds(&Condition::Absent, &two, 102), Ok(()));
        assert!(holds(&Condition::Present, &two, 102).is_err());
        let only = Condition::Dots(vec!["a1b2c3d4:2".to_owned()]);
        assert_eq!(holds(&only, &two, 101), Ok(()));
        assert!(holds(&only, &two, 100).is_err(), "there are two yet");
    }

    #[test]
    fn conditions_hold_or_say_what_stands_there() {
        let dots = |dots: &[&str]| Condition::Dots(dots.iter().map(|d| (*d).to_owned()).collect());
        let one = || dots(&["a1b2c3d4:1"]);
        for (condition, counters, says) in [
            (Condition::Absent, &[][..], None),
            (Condition::Absent, &[1], Some("the value a1b2c3d4:1;")),
            (
                Condition::Absent,
                &[1, 2],
                Some("2 values (a1b2c3d4:1, a1b2c3d4:2);"),
            ),
            (Condition::Absent, &[1, 2, 3, 4, 5, 6], Some("and others")),
            (Condition::Present, &[], Some("no value")),
            (Condition::Present, &[1], None),
            (Condition::Present, &[1, 2], None),
            (one(), &[], Some("no value any more")),
            (one(), &[1], None),
            (one(), &[2], Some("is a1b2c3d4:2 now")),
            (dots(&["x", "a1b2c3d4:2"]), &[2], None),
            // Siblings never match, even where all are named.
            (
                dots(&["a1b2c3d4:1", "a1b2c3d4:2"]),
                &[1, 2],
                Some("siblings"),
            ),
            (dots(&[]), &[1], Some("does not name")),
        ] {
            let held = holds(&condition, &record(counters), 100);
            match says {
                None => assert_eq!(held, Ok(()), "{condition:?} {counters:?}"),
                Some(says) => {
                    let why = held.expect_err("it does not hold");
                    assert!(why.contains(says), "{condition:?} {counters:?}: {why}");
                    assert!(why.contains("read") || why.contains("write"), "{why}");
                }
            }
        }
    }
}
