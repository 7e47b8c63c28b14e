//! Clients that put, get and delete over HTTP whatever happens to the nodes, and write down what they did and saw.
//!
//! The history is the simulator's, and so is its judge: every value is the number of the put that wrote it. What a client was not told
//! is *unknown*; what it is told that nothing happened, it believes, and the judge finds out if that was a lie.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_sim::history::{Condition, Kind, Operation, Outcome};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use crate::cluster::Cluster;

/// The bucket that all of them use.
pub const BUCKET: &str = "faults";
/// Replicas of every key: the default of buckets.
pub const REPLICAS: usize = 3;

/// How long a node may try. Shorter than most faults, so that clients are told of them.
const TIMEOUT: &str = "1500ms";
/// How long a client waits for a node that does not even say that it could not.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How many contexts a client remembers of one key: some that it goes by are old.
const CONTEXTS_KEPT: usize = 4;
/// Keys that are in use at a time.
const KEYS: u64 = 24;
/// How long these are. What is judged grows by the square of the operations on one key, so a long run takes more keys.
const ERA_US: u64 = 10_000_000;

/// What all clients of a run have done.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    next: AtomicU64,
    done: Mutex<Vec<Operation>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder {
            began: Instant::now(),
            next: AtomicU64::new(0),
            done: Mutex::default(),
        }
    }
}

impl Recorder {
    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// A moment since it was made, on the history's clock.
    #[must_use]
    pub fn at(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).expect("no run takes that long")
    }

    fn done(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far, by numbers.
    #[must_use]
    pub fn history(&self) -> Vec<Operation> {
        let mut history = self.done().clone();
        history.sort_by_key(|op| op.id);
        history
    }
}

/// What an answer showed: a context, and the values that it stands for.
#[derive(Clone, Debug)]
struct Seen {
    context: String,
    values: Vec<u64>,
}

/// What is asked besides the key.
#[derive(Clone, Copy, Debug)]
pub struct Quorums {
    /// Replicas of a write, and of a read; both of a write that reads first.
    pub all: (usize, usize),
    /// How many of them must be primaries.
    pub primaries: (usize, usize),
    /// Whether fallbacks may stand in.
    pub sloppy: bool,
}

impl Quorums {
    /// As many replicas as said, of whom none may be another's fallback.
    #[must_use]
    pub fn of_primaries(w: usize, r: usize) -> Quorums {
        Quorums {
            all: (w, r),
            primaries: (0, 0),
            sloppy: false,
        }
    }

    fn draw(rng: &mut ChaCha8Rng) -> Quorums {
        let all = match rng.random_range(0..10) {
            0 => (1, 3),
            1 => (3, 1),
            2 => (1, 1),
            _ => (2, 2),
        };
        let (primaries, sloppy) = match rng.random_range(0..3) {
            0 => (all, true),
            1 => ((0, 0), true),
            _ => ((0, 0), false),
        };
        Quorums {
            all,
            primaries,
            sloppy,
        }
    }

    /// How many primaries are sure to have taken part.
    fn strict(self, nodes: u16) -> (usize, usize) {
        let fallbacks = match self.sloppy {
            true => usize::from(nodes).saturating_sub(REPLICAS),
            false => 0,
        };
        let sure = |all: usize, primaries: usize| primaries.max(all.saturating_sub(fallbacks));
        let ((w, r), (pw, pr)) = (self.all, self.primaries);
        (sure(w, pw), sure(r, pr))
    }

    fn query(self, reads: bool, writes: bool) -> String {
        let mut query = format!("?timeout={TIMEOUT}&sloppy={}", self.sloppy);
        let ((w, r), (pw, pr)) = (self.all, self.primaries);
        for (name, count, wanted) in [
            ("w", w, writes),
            ("pw", pw, writes && pw > 0),
            ("r", r, reads),
            ("pr", pr, reads && pr > 0),
        ] {
            if wanted {
                query.push_str(&format!("&{name}={count}"));
            }
        }
        query
    }
}

/// One client. It does one thing at a time.
#[derive(Debug)]
pub struct Client<'a> {
    recorder: &'a Recorder,
    /// `http://ADDRESS` of each node.
    nodes: Vec<String>,
    agent: Agent,
    process: usize,
    contexts: BTreeMap<String, Vec<Seen>>,
}

impl<'a> Client<'a> {
    /// A client of the first `nodes` nodes. No two have the same `process`.
    #[must_use]
    pub fn new(cluster: &Cluster, nodes: u16, process: usize, recorder: &'a Recorder) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Where each request has a connection of its own, one that is refused was never sent.
            .max_idle_connections(0)
            .timeout_global(Some(PATIENCE))
            .build();
        Client {
            recorder,
            nodes: (1..=nodes)
                .map(|number| format!("http://{}", cluster.address(number)))
                .collect(),
            agent: config.into(),
            process,
            contexts: BTreeMap::new(),
        }
    }

    /// Does something to some key at some node, with quorums that are drawn.
    pub fn act(&mut self, rng: &mut ChaCha8Rng) {
        let quorums = Quorums::draw(rng);
        self.act_with(rng, quorums);
    }

    /// The same with these quorums.
    pub fn act_with(&mut self, rng: &mut ChaCha8Rng, quorums: Quorums) {
        let era = self.recorder.now() / ERA_US;
        // What was left alone for long is looked at again, too.
        let era = match rng.random_bool(0.1) {
            true => rng.random_range(0..=era),
            false => era,
        };
        let number = rng.random_range(0..KEYS);
        let key = format!("{era}-{number}");
        let node = rng.random_range(1..=self.nodes.len());
        if rng.random_bool(0.3) {
            self.get(node, &key, quorums);
            return;
        }
        // Most read what they are about to replace, as clients should; some go by what they remember, and some by nothing.
        let seen = match rng.random_range(0..10) {
            0 => None,
            1..=3 => self.recall(&key, rng),
            _ => {
                self.get(node, &key, quorums);
                self.recall(&key, rng)
            }
        };
        // A delete without a context excuses the loss of all that came before, and one of unknown outcome that of anything:
        // most keys see none.
        let deletes = rng.random_bool(0.4) && (seen.is_some() || number.is_multiple_of(4));
        if deletes {
            self.delete(node, &key, seen, quorums);
            return;
        }
        let creates = seen.is_none() && rng.random_bool(0.2);
        let condition = creates.then_some(Condition::Absent);
        self.put(node, &key, seen, condition, quorums);
    }

    /// Puts a value without a context; its number, if that was acknowledged.
    pub fn create(&mut self, node: usize, key: &str, quorums: Quorums) -> Option<u64> {
        let op = self.put(node, key, None, None, quorums);
        (op.outcome == Outcome::Ok).then_some(op.id)
    }

    /// Reads a key; the values, in order, if it was answered.
    pub fn read(&mut self, node: usize, key: &str, quorums: Quorums) -> Option<Vec<u64>> {
        let op = self.get(node, key, quorums);
        match op.kind {
            Kind::Get(mut shown) if op.outcome == Outcome::Ok => {
                shown.sort_unstable();
                Some(shown)
            }
            _ => None,
        }
    }

    fn recall(&self, key: &str, rng: &mut ChaCha8Rng) -> Option<Seen> {
        let known = self.contexts.get(key)?;
        match rng.random_bool(0.2) {
            true => known.choose(rng).cloned(),
            false => known.last().cloned(),
        }
    }

    fn remember(&mut self, key: &str, seen: Seen) {
        let known = self.contexts.entry(key.to_owned()).or_default();
        known.push(seen);
        if known.len() > CONTEXTS_KEPT {
            known.remove(0);
        }
    }

    fn get(&mut self, node: usize, key: &str, quorums: Quorums) -> Operation {
        let mut op = self.begin(node, key, Kind::Get(Vec::new()), quorums);
        let url = self.url(node, key, &quorums.query(true, false));
        let answer = self.agent.get(&url).call();
        // A get that came to nothing says nothing about any value.
        op.outcome = Outcome::Fail;
        if let Ok(answer) = answer
            && let Some(seen) = shown(answer)
        {
            op.outcome = Outcome::Ok;
            op.kind = Kind::Get(seen.values.clone());
            if !seen.values.is_empty() {
                self.remember(key, seen);
            }
        }
        self.end(op)
    }

    fn put(
        &mut self,
        node: usize,
        key: &str,
        seen: Option<Seen>,
        condition: Option<Condition>,
        quorums: Quorums,
    ) -> Operation {
        let mut op = self.begin(node, key, Kind::Put, quorums);
        let url = self.url(node, key, &quorums.query(condition.is_some(), true));
        let mut request = self.agent.put(&url);
        if let Some(seen) = &seen {
            request = request.header("Quorate-Context", &seen.context);
        }
        if condition.is_some() {
            request = request.header("If-None-Match", "*");
        }
        op.seen = seen.map(|seen| seen.values);
        op.condition = condition;
        let answer = request.send(op.id.to_string());
        if let Ok(answer) = &answer
            && answer.status() == StatusCode::NO_CONTENT
        {
            let own = Seen {
                context: context(answer).expect("the answer to a put has a context"),
                values: vec![op.id],
            };
            self.remember(key, own);
        }
        self.told(&mut op, answer);
        self.end(op)
    }

    fn delete(
        &mut self,
        node: usize,
        key: &str,
        seen: Option<Seen>,
        quorums: Quorums,
    ) -> Operation {
        let mut op = self.begin(node, key, Kind::Delete, quorums);
        let url = self.url(node, key, &quorums.query(seen.is_none(), true));
        let mut request = self.agent.delete(&url);
        if let Some(seen) = &seen {
            request = request.header("Quorate-Context", &seen.context);
        }
        op.seen = seen.map(|seen| seen.values);
        let answer = request.call();
        self.told(&mut op, answer);
        self.end(op)
    }

    fn url(&self, node: usize, key: &str, query: &str) -> String {
        format!(
            "{}/v1/buckets/{BUCKET}/keys/{key}{query}",
            self.nodes[node - 1]
        )
    }

    fn begin(&self, node: usize, key: &str, kind: Kind, quorums: Quorums) -> Operation {
        let start = self.recorder.now();
        Operation {
            ttl_us: None,
            ends: None,
            id: self.recorder.next.fetch_add(1, Ordering::Relaxed),
            process: self.process,
            key: key.to_owned(),
            kind,
            seen: None,
            condition: None,
            condition_failed: false,
            quorum: quorums.all,
            strict: quorums.strict(self.nodes.len() as u16),
            start,
            end: start,
            outcome: Outcome::Unknown,
            fragile: false,
            node,
        }
    }

    /// What the answer to a write says about its outcome.
    fn told(&self, op: &mut Operation, answer: Result<Response<Body>, ureq::Error>) {
        op.outcome = match answer {
            Ok(mut answer) => match answer.status().as_u16() {
                204 => Outcome::Ok,
                412 => {
                    op.condition_failed = true;
                    Outcome::Fail
                }
                // 408: the body did not come within the node's patience, which also passes while it is stopped.
                408 | 409 | 503 | 507 => Outcome::Fail,
                504 => match problem(&mut answer)["may_have_written"].as_bool() {
                    Some(false) => Outcome::Fail,
                    _ => Outcome::Unknown,
                },
                status => panic!(
                    "{op:?}: status {status}, which none of these should be told: {}",
                    problem(&mut answer)
                ),
            },
            Err(ureq::Error::ConnectionFailed) => Outcome::Fail,
            Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Outcome::Fail
            }
            Err(_) => Outcome::Unknown,
        };
    }

    fn end(&self, mut op: Operation) -> Operation {
        op.end = self.recorder.now();
        self.recorder.done().push(op.clone());
        op
    }
}

fn context<B>(answer: &Response<B>) -> Option<String> {
    let header = answer.headers().get("quorate-context")?;
    Some(header.to_str().ok()?.to_owned())
}

/// A problem document; `null` if it did not come whole.
fn problem(answer: &mut Response<Body>) -> Json {
    let body = answer.body_mut().read_to_string().unwrap_or_default();
    serde_json::from_str(&body).unwrap_or_default()
}

/// What a get was answered; `None` if it was not, or broke off.
fn shown(mut answer: Response<Body>) -> Option<Seen> {
    let number = |text: &str| -> u64 {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("{text:?} is a value that nobody wrote"))
    };
    match answer.status().as_u16() {
        200 => {
            let body = answer.body_mut().read_to_string().ok()?;
            Some(Seen {
                context: context(&answer).expect("a value comes with a context"),
                values: vec![number(&body)],
            })
        }
        300 => {
            let body = answer.body_mut().read_to_string().ok()?;
            let document: Json = serde_json::from_str(&body).expect("siblings are JSON");
            let siblings = document["siblings"].as_array().expect("a list of siblings");
            let value = |sibling: &Json| {
                let text = sibling["value_base64"].as_str().expect("a value as text");
                let bytes = STANDARD.decode(text).expect("base64");
                number(&String::from_utf8(bytes).expect("values are numbers"))
            };
            Some(Seen {
                context: document["context"].as_str().expect("a context").to_owned(),
                values: siblings.iter().map(value).collect(),
            })
        }
        404 => Some(Seen {
            context: String::new(),
            values: Vec::new(),
        }),
        503 | 504 => None,
        status => panic!("a get is answered with status {status}"),
    }
}
