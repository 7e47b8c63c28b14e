//! A store in memory to put behind the gateway, and short ways to ask it over HTTP.
// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use bytes::Bytes;
use quorate_gateway::{Backend, Limits, router};
use quorate_protocol::{
    Account, Answer, Condition, Description, Explained, Header, Listing, Refusal, Repair, Repaired,
    ReplicaAccount, Request, Shown, Value,
};
use serde_json::Value as Json;
use tower::ServiceExt as _;

/// One replica's worth of the real thing: dots, exact contexts bound to their key, siblings.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    keys: BTreeMap<(String, String), Vec<(u64, Value)>>,
    last_dot: u64,
    calls: Vec<(Header, Request)>,
    scripted: Option<Answer>,
    /// Answers everything so once it was asked so often.
    scripted_after: Option<(usize, Answer)>,
    unready: Option<String>,
    /// What it tells of the cluster, in JSON.
    layout: Option<Bytes>,
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Everything asked so far.
    pub(crate) fn calls(&self) -> Vec<(Header, Request)> {
        self.state().calls.clone()
    }

    /// The last thing asked.
    pub(crate) fn last_call(&self) -> (Header, Request) {
        self.state()
            .calls
            .last()
            .cloned()
            .expect("nothing was asked")
    }

    /// How many keys have a value.
    pub(crate) fn len(&self) -> usize {
        self.state().keys.values().filter(|v| !v.is_empty()).count()
    }

    /// The values of a key, without going through HTTP.
    pub(crate) fn values(&self, bucket: &str, key: &str) -> Vec<Value> {
        let at = (bucket.to_owned(), key.to_owned());
        let state = self.state();
        let values = state.keys.get(&at).into_iter().flatten();
        values.map(|(_, value)| value.clone()).collect()
    }

    /// Answers everything with this from now on.
    pub(crate) fn script(&self, answer: Answer) {
        self.state().scripted = Some(answer);
    }

    /// Answers everything with this once it was asked so many times in all.
    pub(crate) fn script_after(&self, calls: usize, answer: Answer) {
        self.state().scripted_after = Some((calls, answer));
    }

    /// Has this layout from now on.
    pub(crate) fn lay_out(&self, layout: Vec<u8>) {
        self.state().layout = Some(layout.into());
    }

    /// Not ready from now on.
    pub(crate) fn unready(&self, why: &str) {
        self.state().unready = Some(why.to_owned());
    }
}

fn context_of(bucket: &str, key: &str, dots: &[u64]) -> Bytes {
    serde_json::to_vec(&(bucket, key, dots)).unwrap().into()
}

fn dots_of(bucket: &str, key: &str, context: Option<&Bytes>) -> Result<Vec<u64>, Refusal> {
    let Some(context) = context else {
        return Ok(Vec::new());
    };
    let bad = |why: &str| Refusal::BadContext(why.to_owned());
    let (b, k, dots): (String, String, Vec<u64>) =
        serde_json::from_slice(context).map_err(|_| bad("the context was altered"))?;
    if (b.as_str(), k.as_str()) != (bucket, key) {
        return Err(bad("the context is of another key"));
    }
    Ok(dots)
}

fn show(bucket: &str, key: &str, values: &[(u64, Value)]) -> Answer {
    if values.is_empty() {
        return Answer::Absent;
    }
    let dots: Vec<u64> = values.iter().map(|(dot, _)| *dot).collect();
    Answer::Found {
        siblings: values
            .iter()
            .map(|(dot, value)| Shown {
                dot: format!("00000001:{dot}"),
                value: value.clone(),
                expires_ms: None,
            })
            .collect(),
        context: context_of(bucket, key, &dots),
    }
}

/// Whether a condition holds; siblings match no dot.
fn check(condition: Option<&Condition>, values: &[(u64, Value)]) -> Result<(), Refusal> {
    let live: Vec<String> = values
        .iter()
        .map(|(dot, _)| format!("00000001:{dot}"))
        .collect();
    let holds = match (condition, &live[..]) {
        (None, _) => true,
        (Some(Condition::Absent), live) => live.is_empty(),
        (Some(Condition::Present), live) => !live.is_empty(),
        (Some(Condition::Dots(dots)), [only]) => dots.contains(only),
        (Some(Condition::Dots(_)), _) => false,
    };
    match holds {
        true => Ok(()),
        false => Err(Refusal::ConditionFailed(format!("the key holds {live:?}"))),
    }
}

/// The partition that cannot be repaired.
pub(crate) const BUSY: u16 = 5;

/// An account as a coordinator would give it.
pub(crate) fn account() -> Account {
    Account {
        coordinator: "node-1".to_owned(),
        needed: vec!["r=2 of 3".to_owned()],
        replicas: vec![ReplicaAccount {
            node: "node-1".to_owned(),
            region: "\u{e9}t\u{e9}".to_owned(),
            up: true,
            ..ReplicaAccount::default()
        }],
        ..Account::default()
    }
}

impl State {
    fn answer(&mut self, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Put(put) => {
                let seen = dots_of(&put.bucket, &put.key, put.context.as_ref())?;
                let at = (put.bucket.clone(), put.key.clone());
                let values = self.keys.entry(at).or_default();
                check(put.condition.as_ref(), values)?;
                self.last_dot += 1;
                let dot = self.last_dot;
                values.retain(|(dot, _)| put.condition.is_none() && !seen.contains(dot));
                values.push((dot, put.value));
                Ok(if put.options.return_body {
                    show(&put.bucket, &put.key, values)
                } else {
                    let context = context_of(&put.bucket, &put.key, &[dot]);
                    Answer::Stored { context }
                })
            }
            Request::Get(get) => {
                let at = (get.bucket.clone(), get.key.clone());
                let values = self.keys.get(&at).map_or(&[][..], Vec::as_slice);
                Ok(show(&get.bucket, &get.key, values))
            }
            Request::Delete(delete) => {
                let seen = dots_of(&delete.bucket, &delete.key, delete.context.as_ref())?;
                let at = (delete.bucket, delete.key);
                let values = self.keys.entry(at).or_default();
                check(delete.condition.as_ref(), values)?;
                values.retain(|(dot, _)| delete.context.is_some() && !seen.contains(dot));
                Ok(Answer::Deleted)
            }
            Request::List(list) => {
                let after = list.after.unwrap_or_default();
                let mut keys = self.keys.iter().filter(|((bucket, key), values)| {
                    *bucket == list.bucket
                        && key.starts_with(&list.prefix)
                        && *key > after
                        && !values.is_empty()
                });
                let most = list.limit as usize;
                let found: Vec<String> = keys
                    .by_ref()
                    .take(most)
                    .map(|((_, key), _)| key.clone())
                    .collect();
                let next = keys.next().and_then(|_| found.last().cloned());
                Ok(Answer::Listed(Listing { keys: found, next }))
            }
            // As many keys differ in a partition as its number says; of one it has too much to do.
            Request::Repair(Repair { partition: BUSY }) => Err(Refusal::Overloaded),
            Request::Repair(repair) => Ok(Answer::Repaired(Repaired {
                exchanges: 2,
                keys: repair.partition.into(),
                ..Repaired::default()
            })),
            Request::Describe if self.layout.is_some() => Ok(Answer::Described(Description {
                node: "node-1".to_owned(),
                layout: self.layout.clone().unwrap_or_default(),
            })),
            Request::Bucket(_)
            | Request::Buckets
            | Request::Status
            | Request::Describe
            | Request::Layouts
            | Request::Pace(_)
            | Request::Apply(_) => Err(Refusal::Malformed("not over HTTP".to_owned())),
        }
    }
}

impl Backend for Store {
    async fn call(&self, header: Header, request: Request) -> Answer {
        // A real backend answers later: the handler must not depend on being resumed at once.
        tokio::task::yield_now().await;
        let mut state = self.state();
        state.calls.push((header, request.clone()));
        let late = state.scripted_after.clone();
        let late = late.filter(|(calls, _)| state.calls.len() > *calls);
        match late.map(|(_, answer)| answer).or(state.scripted.clone()) {
            Some(answer) => answer,
            None => {
                let explains = request.explains();
                let answer = state.answer(request).unwrap_or_else(Answer::Refused);
                match explains {
                    true => Answer::Explained(Explained::new(&answer, account())),
                    false => answer,
                }
            }
        }
    }

    fn ready(&self) -> Result<(), String> {
        match &self.state().unready {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}

/// A gateway with small limits in front of a store.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) store: Store,
    pub(crate) router: Router,
}

pub(crate) const VALUE_BYTES_MAX: usize = 1000;

impl Http {
    pub(crate) fn new() -> Self {
        let store = Store::default();
        let limits = Limits {
            value_bytes_max: VALUE_BYTES_MAX,
            ..Limits::default()
        };
        let router = router(store.clone(), limits);
        Http { store, router }
    }

    pub(crate) async fn send(&self, request: HttpRequest<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        assert!(parts.headers.contains_key("quorate-request-id"));
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Reply {
        self.ask("PUT", path, &[], body).await
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
            .to_str()
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A problem of this status and type; the whole document.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Json {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(
            json["type"],
            format!("urn:quorate:problem:{slug}"),
            "{json}"
        );
        assert_eq!(json["status"], status);
        assert!(json["title"].as_str().is_some_and(|t| !t.is_empty()));
        assert!(json["detail"].as_str().is_some_and(|t| !t.is_empty()));
        json
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}
