//! Clients: each does one thing at a time, remembers what it read, and writes down what it did and saw.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_protocol::{
    self as protocol, Answer, BucketAction, BucketRequest, Delete, Get, Header, Lifetime, List,
    Options, Put, Quorum, Refusal, Request, Value,
};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha12Rng;

use crate::history::{Condition, Kind, Operation, Outcome};

/// The bucket of every simulated key.
pub(crate) const BUCKET: &str = "sim";
/// How far clocks may be apart, in microseconds. An hour would let no value be dropped while a seed runs.
pub(crate) const SKEW_US: u64 = 1_500_000;
/// The longest time to live that ends while a seed runs, in milliseconds.
pub(crate) const TTL_MS_MAX: u64 = 30_000;
/// One that does not, even by a clock that is an hour off.
const DAY_MS: u64 = 24 * 3_600_000;

/// What a seed's clients do.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) clients: usize,
    pub(crate) keys: Vec<String>,
    pub(crate) operations: u32,
    /// The mean pause between two operations of a client, in microseconds.
    think_us: u64,
    /// Chance that an operation is a get; that a write is a delete; that a delete goes without a context.
    gets: f64,
    deletes: f64,
    blind_deletes: f64,
    /// Chance that a put goes without a context though its client has one; that it goes with an old one.
    blind_puts: f64,
    stale_contexts: f64,
    /// Chance that an operation is a listing of the whole bucket.
    lists: f64,
    /// Chance that a put wants to see what the key holds.
    bodies: f64,
    /// Chance that a write is made on a condition.
    conditions: f64,
    /// Chance that an operation asks for an account.
    accounts: f64,
    /// Chance that an operation asks for a quorum of its own.
    odd_quorums: f64,
    /// Whether the others write to one replica and read all, and not a majority each: as strict, and replicas differ
    /// more, for longer, so that reads have more to put together.
    lopsided: bool,
    /// Chance that an operation asks for primaries.
    primaries: f64,
    /// Chance that an operation says whether fallbacks may take part, and that it says yes.
    sloppiness: (f64, f64),
    /// Chance that an operation drops the bucket.
    drops: f64,
    /// Chance that a put's value is to end.
    pub(crate) ttls: f64,
}

impl Workload {
    pub(crate) fn draw(operations: (u32, u32), rng: &mut ChaCha12Rng) -> Self {
        let keys = rng.random_range(1..=4);
        Workload {
            clients: rng.random_range(2..=6),
            keys: (0..keys).map(|i| format!("key-{i}")).collect(),
            operations: rng.random_range(operations.0..=operations.1),
            think_us: rng.random_range(1_000..300_000),
            gets: rng.random_range(0.2..0.6),
            deletes: [0.0, 0.1, 0.4][rng.random_range(0..3)],
            blind_deletes: [0.0, 0.2][rng.random_range(0..2)],
            blind_puts: [0.02, 0.2][rng.random_range(0..2)],
            stale_contexts: [0.0, 0.3][rng.random_range(0..2)],
            lists: [0.0, 0.05, 0.2][rng.random_range(0..3)],
            bodies: [0.0, 0.2][rng.random_range(0..2)],
            conditions: [0.0, 0.1, 0.5][rng.random_range(0..3)],
            accounts: [0.0, 0.2][rng.random_range(0..2)],
            odd_quorums: [0.0, 0.3][rng.random_range(0..2)],
            lopsided: rng.random_bool(0.3),
            primaries: [0.0, 0.0, 0.5][rng.random_range(0..3)],
            sloppiness: [(0.0, 0.0), (1.0, 0.0), (0.5, 0.5)][rng.random_range(0..3)],
            drops: [0.0, 0.0, 0.01, 0.05][rng.random_range(0..4)],
            ttls: [0.0, 0.1, 0.5][rng.random_range(0..3)],
        }
    }

    pub(crate) fn pause_us(&self, rng: &mut ChaCha12Rng) -> u64 {
        rng.random_range(0..self.think_us * 2)
    }
}

/// What an answer showed.
#[derive(Clone, Debug)]
struct Seen {
    context: Bytes,
    /// The values that the context stands for.
    values: Vec<u64>,
    /// Their dots, in the same order. Those of a put's own answer are not told.
    dots: Vec<String>,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Which client it is.
    process: usize,
    /// What it has read of each key, oldest first.
    contexts: BTreeMap<String, Vec<Seen>>,
    /// What it is doing now: the operation without its end.
    pub(crate) busy: Option<Operation>,
    /// Whether that asks for an account.
    pub(crate) explains: bool,
    /// Of the listing it is doing, the page it waits for.
    page: Option<List>,
}

/// How many contexts a client remembers of one key.
const CONTEXTS_KEPT: usize = 4;

impl Client {
    pub(crate) fn new(process: usize) -> Self {
        Client {
            process,
            contexts: BTreeMap::new(),
            busy: None,
            explains: false,
            page: None,
        }
    }

    /// Begins operation `id` at `node`. `n` is how many replicas every key has, and `fallbacks` how many nodes there are
    /// besides.
    pub(crate) fn begin(
        &mut self,
        id: u64,
        now: u64,
        node: usize,
        (n, fallbacks): (usize, usize),
        workload: &Workload,
        rng: &mut ChaCha12Rng,
    ) -> (Header, Request) {
        let key = workload.keys.choose(rng).expect("a seed has keys").clone();
        let majority = n / 2 + 1;
        let quorum = if rng.random_bool(workload.odd_quorums) {
            (rng.random_range(1..=n), rng.random_range(1..=n))
        } else if workload.lopsided {
            (1, n)
        } else {
            (majority, majority)
        };
        let count = |count: usize| Some(Quorum::Count(count as u8));
        let primaries = match rng.random_bool(workload.primaries) {
            true => (rng.random_range(0..=n), rng.random_range(0..=n)),
            false => (0, 0),
        };
        let (says, yes) = workload.sloppiness;
        let sloppy = rng.random_bool(says).then(|| rng.random_bool(yes));
        let options = Options {
            r: count(quorum.1),
            w: count(quorum.0),
            pw: count(primaries.0).filter(|_| primaries.0 > 0),
            pr: count(primaries.1).filter(|_| primaries.1 > 0),
            sloppy,
            explain: rng.random_bool(workload.accounts),
            ..Options::default()
        };
        self.explains = options.explain;
        let (bucket, wire_key) = (BUCKET.to_owned(), key.clone());
        self.page = None;
        let mut key = key;
        let mut ttl_ms = None;
        let (kind, seen, condition, request) = if rng.random_bool(workload.drops) {
            let request = Request::Bucket(BucketRequest {
                bucket: BUCKET.to_owned(),
                action: BucketAction::Drop,
            });
            (Kind::Drop, None, None, request)
        } else if rng.random_bool(workload.lists) {
            key.clear();
            let page = List {
                bucket,
                prefix: String::new(),
                after: None,
                limit: rng.random_range(1..=workload.keys.len() as u32 + 1),
                options,
            };
            self.page = Some(page.clone());
            (Kind::List(Vec::new()), None, None, Request::List(page))
        } else if rng.random_bool(workload.gets) {
            let request = Request::Get(Get {
                bucket,
                key: wire_key,
                options,
            });
            (Kind::Get(Vec::new()), None, None, request)
        } else if rng.random_bool(workload.deletes) {
            let seen = match rng.random_bool(workload.blind_deletes) {
                true => None,
                false => self.recall(&key, workload, rng),
            };
            let condition = self.condition(&key, workload, rng);
            // A delete without a context is only made on purpose: else it would excuse every loss.
            if seen.is_none() && condition.is_none() && workload.blind_deletes == 0.0 {
                let request = Request::Get(Get {
                    bucket,
                    key: wire_key,
                    options,
                });
                (Kind::Get(Vec::new()), None, None, request)
            } else {
                let (context, values) = seen.map(|seen| (seen.context, seen.values)).unzip();
                let (condition, asked) = condition.unzip();
                let request = Request::Delete(Delete {
                    bucket,
                    key: wire_key,
                    context,
                    condition: asked,
                    options,
                });
                (Kind::Delete, values, condition, request)
            }
        } else {
            let seen = match rng.random_bool(workload.blind_puts) {
                true => None,
                false => self.recall(&key, workload, rng),
            };
            let (context, values) = seen.map(|seen| (seen.context, seen.values)).unzip();
            let (condition, asked) = self.condition(&key, workload, rng).unzip();
            if rng.random_bool(workload.ttls) {
                ttl_ms = Some(match rng.random_range(0..5) {
                    0 => DAY_MS,
                    1 | 2 => rng.random_range(1_000..5_000),
                    _ => rng.random_range(1_000..=TTL_MS_MAX),
                });
            }
            let request = Request::Put(Put {
                bucket,
                key: wire_key,
                value: Value::new(id.to_string()),
                context,
                condition: asked,
                options: Options {
                    return_body: rng.random_bool(workload.bodies),
                    ..options
                },
                lifetime: ttl_ms.map(Lifetime::Ms),
            });
            (Kind::Put, values, condition, request)
        };
        // Fallbacks take part in no listing and no drop.
        let others = match kind {
            Kind::List(_) | Kind::Drop => 0,
            _ if sloppy == Some(false) => 0,
            _ => fallbacks,
        };
        let sure = |all: usize, primaries: usize| primaries.max(all.saturating_sub(others));
        let (key, quorum, strict) = match kind {
            // Whoever is told of a drop is told that a majority of each partition's replicas know.
            Kind::Drop => (String::new(), (majority, majority), (majority, majority)),
            _ => (
                key,
                quorum,
                (sure(quorum.0, primaries.0), sure(quorum.1, primaries.1)),
            ),
        };
        self.busy = Some(Operation {
            id,
            process: self.process,
            key,
            kind,
            seen,
            condition,
            condition_failed: false,
            ttl_us: ttl_ms.map(|ms| ms * 1_000),
            ends: ttl_ms
                .filter(|ms| *ms < DAY_MS)
                .map(|ms| ((now + ms * 1_000).saturating_sub(SKEW_US), u64::MAX)),
            quorum,
            strict,
            start: now,
            end: now,
            outcome: Outcome::Unknown,
            node,
        });
        let header = Header {
            deadline_ms: rng.random_range(200..3_000),
            ..Header::default()
        };
        (header, request)
    }

    /// A condition, if the next write is to have one: as it is remembered here, and as it is asked.
    fn condition(
        &self,
        key: &str,
        workload: &Workload,
        rng: &mut ChaCha12Rng,
    ) -> Option<(Condition, protocol::Condition)> {
        if !rng.random_bool(workload.conditions) {
            return None;
        }
        let known = self.contexts.get(key).map_or(&[][..], Vec::as_slice);
        let shown: Vec<(u64, String)> = known
            .iter()
            .flat_map(|seen| seen.values.iter().copied().zip(seen.dots.iter().cloned()))
            .collect();
        let named: Vec<(u64, String)> = match rng.random_range(0..5) {
            0 | 1 => Vec::new(),
            2 => shown.iter().rev().take(2).cloned().collect(),
            _ => shown.last().cloned().into_iter().collect(),
        };
        Some(match named.is_empty() {
            true if rng.random_bool(0.3) => (Condition::Present, protocol::Condition::Present),
            true => (Condition::Absent, protocol::Condition::Absent),
            false => {
                let (values, dots) = named.into_iter().unzip();
                (Condition::One(values), protocol::Condition::Dots(dots))
            }
        })
    }

    /// Takes a page of a listing that has more, and says what to ask next.
    pub(crate) fn turn_page(&mut self, answer: Option<&Answer>) -> Option<Request> {
        let Some(Answer::Listed(listing)) = answer else {
            return None;
        };
        let (Some(page), Some(op)) = (&mut self.page, &mut self.busy) else {
            return None;
        };
        let Kind::List(keys) = &mut op.kind else {
            return None;
        };
        keys.extend(listing.keys.iter().cloned());
        page.after = Some(listing.next.clone()?);
        Some(Request::List(page.clone()))
    }

    fn recall(&self, key: &str, workload: &Workload, rng: &mut ChaCha12Rng) -> Option<Seen> {
        let known = self.contexts.get(key)?;
        if rng.random_bool(workload.stale_contexts) {
            known.choose(rng).cloned()
        } else {
            known.last().cloned()
        }
    }

    /// Ends the operation under way with this answer; `None` if none came.
    pub(crate) fn end(&mut self, now: u64, answer: Option<Answer>) -> Option<Operation> {
        let mut op = self.busy.take()?;
        op.end = now;
        let is_get = !op.kind.is_write();
        op.outcome = match answer {
            Some(Answer::Stored { context }) => {
                let seen = Seen {
                    context,
                    values: vec![op.id],
                    dots: Vec::new(),
                };
                self.remember(&op.key, seen);
                Outcome::Ok
            }
            Some(Answer::Found { siblings, context }) => {
                let shown: Vec<u64> = siblings
                    .iter()
                    .filter_map(|s| std::str::from_utf8(&s.value.data).ok()?.parse().ok())
                    .collect();
                let seen = Seen {
                    context,
                    values: shown.clone(),
                    dots: siblings.into_iter().map(|s| s.dot).collect(),
                };
                self.remember(&op.key, seen);
                if let Kind::Get(_) = op.kind {
                    op.kind = Kind::Get(shown);
                }
                Outcome::Ok
            }
            Some(Answer::Absent | Answer::Deleted | Answer::Bucket(_) | Answer::Listed(_)) => {
                Outcome::Ok
            }
            Some(Answer::Refused(refusal)) => {
                op.condition_failed = matches!(refusal, Refusal::ConditionFailed(_));
                // Of a life of the bucket that is over, for example: it reads again.
                if matches!(refusal, Refusal::BadContext(_)) {
                    self.contexts.remove(&op.key);
                }
                Outcome::Fail
            }
            Some(Answer::Unmet(unmet)) if !unmet.may_have_written => Outcome::Fail,
            // A read that came to nothing is of no interest: it says nothing about any value.
            _ if is_get => Outcome::Fail,
            _ => Outcome::Unknown,
        };
        if let (Outcome::Ok, Some(ttl), Some((_, hidden))) = (op.outcome, op.ttl_us, &mut op.ends) {
            *hidden = now + ttl + SKEW_US;
        }
        Some(op)
    }

    fn remember(&mut self, key: &str, seen: Seen) {
        let known = self.contexts.entry(key.to_owned()).or_default();
        known.push(seen);
        if known.len() > CONTEXTS_KEPT {
            known.remove(0);
        }
    }
}
