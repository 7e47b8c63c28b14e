//! The account of one request, for a client that asked for one.
//!
//! A conversation carries a [`Log`] only then, in a box: for everybody else it is a pointer that is not there. The
//! conversations themselves know nothing of it. Whoever tells them something tells the log as well.

use quorate_causal::{Digest, Dot, DotSet, Record};
use quorate_protocol::{
    Account, RepairAccount, ReplicaAccount, ReplicaReply, StepAccount, deadline_text,
};
use quorate_ring::NodeId;

use crate::read::Ask;
use crate::time::Time;

/// The most dots that one step, and the most siblings that an account names: the limit of siblings is far below, and merges
/// may exceed it.
const DOTS_MAX: usize = 256;

/// What has happened so far.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    began: Time,
    account: Account,
    /// Beside each replica of the account: which node it is, and what it has shown.
    seen: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    node: NodeId,
    record: Option<Record>,
    digest: Option<Digest>,
}

impl Log {
    /// An account of a request that nothing was done about yet. `account` has what is known beforehand, its replicas those
    /// of `nodes`, in the same order.
    pub(crate) fn new(began: Time, account: Account, nodes: &[NodeId]) -> Self {
        assert_eq!(account.replicas.len(), nodes.len());
        let seen = nodes.iter().map(|&node| Seen {
            node,
            record: None,
            digest: None,
        });
        Log {
            began,
            account,
            seen: seen.collect(),
        }
    }

    /// These replicas were asked to tell what they have.
    pub(crate) fn asked(&mut self, now: Time, asks: &[Ask]) {
        for ask in asks {
            let what = match (ask.in_place_of, ask.digest_only) {
                (Some(_), _) => "asked for what it keeps",
                (None, true) => "asked for a digest",
                (None, false) => "asked for the record",
            };
            self.note(now, ask.node, what);
        }
    }

    /// A replica has answered.
    pub(crate) fn replied(&mut self, now: Time, from: NodeId, reply: &ReplicaReply) {
        match reply {
            ReplicaReply::Merged { synced: true } => self.note(now, from, "taken and synced"),
            ReplicaReply::Merged { synced: false } => self.note(now, from, "taken"),
            ReplicaReply::Digest(digest) => {
                self.note(now, from, "digest");
                if let Some(seen) = self.seen(from) {
                    seen.digest = Some(Digest(*digest));
                }
            }
            ReplicaReply::Record(bytes) => {
                let record = match bytes.is_empty() {
                    true => Some(Record::new()),
                    false => Record::decode(bytes).ok(),
                };
                let Some(record) = record else {
                    return self.note(now, from, "refused: what it sent is no record");
                };
                self.note_record(now, from, "record", &record);
                if let Some(seen) = self.seen(from) {
                    seen.record = Some(record);
                }
            }
            ReplicaReply::Refused(refusal) => {
                self.note(now, from, &format!("refused: {refusal}"));
            }
            _ => {}
        }
    }

    /// A node stands in for a primary from here on.
    pub(crate) fn stands_in(&mut self, node: NodeId, name: &str, region: &str, primary: &str) {
        if self.seen(node).is_none() {
            self.account.replicas.push(ReplicaAccount {
                stands_in_for: Some(primary.to_owned()),
                ..replica(name, region)
            });
            self.seen.push(Seen {
                node,
                record: None,
                digest: None,
            });
        }
    }

    /// A fallback was sent the write, to keep it.
    pub(crate) fn sent_hint(&mut self, now: Time, to: NodeId) {
        self.note(now, to, "sent the write to keep");
    }

    /// The write that a replica was sent, or the coordinator's own vnode has made.
    pub(crate) fn sent(&mut self, now: Time, to: NodeId, delta: &Record) {
        self.note_record(now, to, "sent the write", delta);
    }

    /// The request was passed on to this replica, to coordinate it.
    pub(crate) fn passed_on(&mut self, now: Time, to: NodeId) {
        self.note(now, to, "passed on");
    }

    /// A node is out of reach. Of interest where an answer is still awaited from it.
    pub(crate) fn lost(&mut self, now: Time, node: NodeId) {
        let at = self.seen.iter().position(|s| s.node == node);
        let replica = at.map(|at| &self.account.replicas[at]);
        let last = replica.and_then(|r| r.steps.last());
        if last.is_some_and(|step| is_question(&step.what)) {
            self.note(now, node, "lost");
        }
    }

    /// A node could not even be sent the write.
    pub(crate) fn out_of_reach(&mut self, now: Time, node: NodeId) {
        self.note(now, node, "lost");
    }

    /// A stale replica was sent what it lacked.
    pub(crate) fn repaired(&mut self, node: NodeId, missing: &Record) {
        let Some(at) = self.seen.iter().position(|s| s.node == node) else {
            return;
        };
        self.account.repaired.push(RepairAccount {
            node: self.account.replicas[at].node.clone(),
            dots: dots_of(missing),
            evidence: runs(missing.evidence()),
        });
    }

    /// What a read found, all answers put together: says why each of several values stands, and which are not shown
    /// since their time is up.
    pub(crate) fn found(&mut self, record: &Record, wall_ms: u64) {
        let mut shown = record.clone();
        shown.drop_expired(wall_ms);
        self.account.siblings = match shown.live().len() {
            0 | 1 => Vec::new(),
            _ => self.why(&shown, record.digest()),
        };
        let hidden = record.live().iter().filter(|s| s.is_expired(wall_ms));
        for sibling in hidden.take(DOTS_MAX) {
            let end = deadline_text(sibling.expires.unwrap_or_default());
            let dot = sibling.span.dot;
            self.account.siblings.push(format!(
                "{dot} is not shown: its time was up at {end}; it is dropped when every clock has passed that"
            ));
        }
    }

    /// Why each of several values stands. `digest` is that of all that was found.
    fn why(&self, record: &Record, digest: Digest) -> Vec<String> {
        let showing: Vec<(&str, Option<&Record>)> = self
            .seen
            .iter()
            .zip(&self.account.replicas)
            .filter_map(|(seen, replica)| match &seen.record {
                Some(shown) => Some((replica.node.as_str(), Some(shown))),
                // A digest that agrees stands for every value.
                None if seen.digest == Some(digest) => Some((replica.node.as_str(), None)),
                None => None,
            })
            .collect();
        why_found(record, &showing)
    }

    /// What the key holds where a put was made: says why its value does not stand alone.
    pub(crate) fn left(&mut self, record: &Record, delta: &Record) {
        self.account.siblings = match record.live().len() {
            0 | 1 => Vec::new(),
            _ => why_left(record, delta),
        };
    }

    /// The account of a request that is answered now.
    pub(crate) fn finish(mut self, now: Time, up: impl Fn(NodeId) -> bool) -> Account {
        for (seen, replica) in self.seen.iter().zip(&mut self.account.replicas) {
            replica.up = up(seen.node);
        }
        self.account.elapsed_us = self.micros(now);
        self.account
    }

    fn micros(&self, now: Time) -> u64 {
        now.since(self.began).as_micros() as u64
    }

    fn seen(&mut self, node: NodeId) -> Option<&mut Seen> {
        self.seen.iter_mut().find(|s| s.node == node)
    }

    fn note(&mut self, now: Time, node: NodeId, what: &str) {
        self.step(now, node, what, Vec::new(), 0);
    }

    fn note_record(&mut self, now: Time, node: NodeId, what: &str, record: &Record) {
        self.step(now, node, what, dots_of(record), runs(record.evidence()));
    }

    fn step(&mut self, now: Time, node: NodeId, what: &str, dots: Vec<String>, evidence: u32) {
        let at_us = self.micros(now);
        if let Some(at) = self.seen.iter().position(|s| s.node == node) {
            let step = StepAccount {
                at_us,
                what: what.to_owned(),
                dots,
                evidence,
            };
            self.account.replicas[at].steps.push(step);
        }
    }
}

/// A replica that nothing was asked of yet.
pub(crate) fn replica(node: &str, region: &str) -> ReplicaAccount {
    ReplicaAccount {
        node: node.to_owned(),
        region: region.to_owned(),
        ..ReplicaAccount::default()
    }
}

fn is_question(what: &str) -> bool {
    what.starts_with("asked") || what.starts_with("sent the write") || what == "passed on"
}

fn dots_of(record: &Record) -> Vec<String> {
    let live = record.live().iter().take(DOTS_MAX);
    live.map(|s| s.span.dot.to_string()).collect()
}

fn runs(evidence: &DotSet) -> u32 {
    evidence.iter().map(|(_, runs)| runs.len() as u32).sum()
}

/// For each live value of a key that was read: why it stands, which replicas showed it (`None` stands for one that showed
/// all), and what is known to be removed of its actor's.
fn why_found(record: &Record, showing: &[(&str, Option<&Record>)]) -> Vec<String> {
    let live = || record.live().iter().take(DOTS_MAX).map(|s| s.span.dot);
    let sentence = |dot: Dot| {
        let (with, without): (Vec<_>, Vec<_>) = showing.iter().partition(|(_, shown)| {
            shown.is_none_or(|shown| shown.live().iter().any(|s| s.span.dot == dot))
        });
        let name = |(name, _): &(&str, Option<&Record>)| (*name).to_owned();
        let mut text = format!(
            "{dot} stands: no write that these replicas know of had read it, and it was written by one that had not read {}; \
             {} showed it",
            list(live().filter(|other| *other != dot).map(|d| d.to_string())),
            list(with.into_iter().map(name)),
        );
        if !without.is_empty() {
            text.push_str(&format!(
                ", {} did not",
                list(without.into_iter().map(name))
            ));
        }
        if let Some(runs) = record.evidence().runs(dot.actor) {
            let runs = runs.iter().map(|(first, last)| run(first, last));
            text.push_str(&format!(
                "; of the same actor {} of this key are removed",
                list(runs)
            ));
        }
        text
    };
    live().map(sentence).collect()
}

/// For each value that stands after a put: why.
fn why_left(record: &Record, delta: &Record) -> Vec<String> {
    let own = delta.live().first().map(|s| s.span.dot);
    // Whoever reads anything gets a context that names a dot.
    let blind = delta.evidence().is_empty();
    let sentence = |dot: Dot| match (Some(dot) == own, own.is_some(), blind) {
        (true, _, true) => format!(
            "{dot} is this put: it came without a context, so it had read nothing and replaces nothing"
        ),
        (true, _, false) => {
            let removed = delta.evidence().iter().flat_map(|(actor, runs)| {
                runs.iter()
                    .map(move |(first, last)| format!("{actor}:{}", run(first, last)))
            });
            format!(
                "{dot} is this put: it replaces what it had read, {}, and nothing else",
                list(removed)
            )
        }
        (false, true, true) => format!(
            "{dot} stands: a put removes what its context names, and this one came without a context"
        ),
        (false, _, _) => format!("{dot} stands: it is not among what this write had read"),
    };
    let live = record.live().iter().take(DOTS_MAX).map(|s| s.span.dot);
    live.map(sentence).collect()
}

fn run(first: u64, last: u64) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// `a`, `a and b`, `a, b and c`; of many, the first and how many more.
fn list(items: impl Iterator<Item = String>) -> String {
    const NAMED_MAX: usize = 8;
    let mut named: Vec<String> = Vec::new();
    let mut more = 0;
    for item in items {
        if named.len() < NAMED_MAX {
            named.push(item);
        } else {
            more += 1;
        }
    }
    if more > 0 {
        named.push(format!("{more} more"));
    }
    match named.pop() {
        None => "nothing".to_owned(),
        Some(only) if named.is_empty() => only,
        Some(last) => format!("{} and {last}", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let of = |n: u32| list((0..n).map(|i| i.to_string()));
        assert_eq!(of(0), "nothing");
        assert_eq!(of(1), "0");
        assert_eq!(of(2), "0 and 1");
        assert_eq!(of(3), "0, 1 and 2");
        assert_eq!(of(10), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}
