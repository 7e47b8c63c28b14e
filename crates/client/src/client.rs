//! The driver: carries requests to nodes as the routing says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::{
    Answer, ApplyLayout, ClusterStatus, Description, Header, KnownLayouts, Pace, Refusal, Repair,
    Repaired, Request, TIMEOUT_DEFAULT, Value,
};
use quorate_ring::{Layout, NodeId, NodeSpec};
use quorate_transport::{Credentials, Endpoint, Expected, Identity, Tuning, resolve};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::{ClientConfig, ConfigError};
use crate::error::Error;
use crate::explain::Explained;
use crate::link::{Link, Open};
use crate::requests::{DeleteRequest, GetRequest, PutRequest};
use crate::routing::{Journey, Outcome, Routes};

/// How long [`Client::connect`] looks for a node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one endpoint may keep silent before the next is dialled too. A node in reach answers in a fraction of it; a
/// dead one would otherwise cost every command the better part of a second.
const HEAD_START: Duration = Duration::from_millis(150);

/// How much longer than the request's own time an answer is awaited: the coordinator answers when that time is up, and
/// its answer says more than our silence.
const SLACK: Duration = Duration::from_millis(500);

/// The largest answer taken. The cluster is trusted to know what its nodes are configured for; memory is taken as bytes
/// arrive, whatever length is announced.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Bytes of requests that may wait for one node: 32 puts of the largest value, so that a bulk load is slowed down by the
/// answers it waits for and not refused.
const QUEUED_BYTES_MAX: usize = 256 << 20;

/// How long a later layout is looked for, whatever time the request has that asks for it, and how soon again after nothing was found.
const REFRESH_WITHIN: Duration = Duration::from_secs(10);
const REFRESH_AGAIN: Duration = Duration::from_secs(1);

/// How often one request is begun anew since the cluster's layout had changed.
const REFRESHED_MAX: u32 = 3;

/// A cluster as seen from outside. Its layout is followed: when nodes refuse a request since it was made by an earlier one, the new one is
/// asked for, and the request begun anew; nothing was done. Cheap to clone, usable from any thread; all clones share one connection a node. It
/// lives on the tokio runtime in which it was connected.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    /// Where nodes were looked for at first.
    endpoints: Vec<String>,
    /// The cluster as it is known now.
    view: Mutex<Arc<View>>,
    /// Held by whoever looks for a later layout, so that many requests look once; and when that last came to nothing.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
}

/// A cluster by one layout.
#[derive(Debug)]
struct View {
    layout: Arc<Layout>,
    routes: Routes,
    links: BTreeMap<NodeId, Arc<Link>>,
}

impl View {
    /// By this layout; connections to nodes that are where they were before stay.
    fn new(layout: Layout, before: Option<&View>) -> Self {
        let link = |spec: &NodeSpec| {
            let known = before.and_then(|view| {
                let same = view
                    .layout
                    .node(spec.id)
                    .is_some_and(|old| old.quic == spec.quic);
                view.links.get(&spec.id).filter(|_| same).cloned()
            });
            known.unwrap_or_else(|| {
                let (name, address) = (spec.name.clone(), spec.quic.clone());
                Arc::new(Link::new(spec.id.0, name, address))
            })
        };
        View {
            links: layout.nodes().iter().map(|n| (n.id, link(n))).collect(),
            routes: Routes::new(layout.clone()),
            layout: Arc::new(layout),
        }
    }
}

/// Who answered, and the layout as it knows it.
#[derive(Clone, Debug)]
pub struct Described {
    /// The answering node's name.
    pub node: String,
    /// The cluster's layout.
    pub layout: Arc<Layout>,
}

impl Client {
    /// Finds the cluster: dials the endpoints, the next whenever one fails or takes long, and learns the layout from
    /// the first that answers. Takes 5 seconds at most.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Credentials`] or [`Error::Socket`] if it cannot even begin; [`Error::Unreachable`],
    /// with what happened at each endpoint.
    pub async fn connect(config: ClientConfig) -> Result<Client, Error> {
        Client::connect_within(config, CONNECT_TIMEOUT).await
    }

    /// The same within a time of the caller's.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn connect_within(config: ClientConfig, within: Duration) -> Result<Client, Error> {
        let deadline = Instant::now() + within;
        let ClientConfig {
            endpoints,
            ca,
            certificate,
            key,
        } = config;
        if endpoints.is_empty() {
            return Err(ConfigError::NoEndpoints.into());
        }
        let credentials = Credentials::load(&ca, &certificate, &key)?;
        let tuning = Tuning {
            max_frame: FRAME_BYTES_MAX,
            max_queued: QUEUED_BYTES_MAX,
            ..Tuning::default()
        };
        let endpoint = Endpoint::dialler(&credentials, tuning)?;
        let (node, open, layout) = find(&endpoint, &endpoints, deadline).await?;
        let view = View::new(layout, None);
        if let Some(link) = view.links.get(&node) {
            link.opened(open);
        }
        let shared = Shared {
            endpoint,
            endpoints,
            view: Mutex::new(Arc::new(view)),
            refreshing: tokio::sync::Mutex::default(),
        };
        Ok(Client {
            shared: Arc::new(shared),
        })
    }

    fn view(&self) -> Arc<View> {
        let view = self.shared.view.lock();
        view.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes by this layout from here on, unless a later one is known.
    fn follow(&self, layout: Layout) {
        let view = self.shared.view.lock();
        let mut view = view.unwrap_or_else(PoisonError::into_inner);
        if layout.version() > view.layout.version() {
            *view = Arc::new(View::new(layout, Some(&view)));
        }
    }

    /// Reads a key.
    pub fn get(&self, bucket: impl Into<String>, key: impl Into<String>) -> GetRequest {
        GetRequest::new(self.clone(), bucket.into(), key.into())
    }

    /// Stores a value.
    pub fn put(
        &self,
        bucket: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<Bytes>,
    ) -> PutRequest {
        PutRequest::new(self.clone(), bucket.into(), key.into(), Value::new(value))
    }

    /// Removes the values of a key.
    pub fn delete(&self, bucket: impl Into<String>, key: impl Into<String>) -> DeleteRequest {
        DeleteRequest::new(self.clone(), bucket.into(), key.into())
    }

    /// Asks a node who it is and for the layout.
    ///
    /// # Errors
    ///
    /// As any request.
    pub async fn describe(&self) -> Result<Described, Error> {
        match self.call(Request::Describe, None).await? {
            Answer::Described(description) => {
                let (node, layout) = parse(description)?;
                let layout = Arc::new(layout);
                Ok(Described { node, layout })
            }
            other => Err(crate::requests::unexpected(&other, false)),
        }
    }

    /// Asks a node how all nodes are. It answers within a second or so, whatever is wrong with the others, and names those
    /// that stay silent.
    ///
    /// # Errors
    ///
    /// As any request.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        match self.call(Request::Status, None).await? {
            Answer::Status(status) => Ok(status),
            other => Err(crate::requests::unexpected(&other, false)),
        }
    }

    /// Has all replicas of a partition compare what they hold and join what differs, and tells what that came to: also where not
    /// everything could be done, or not within `timeout`.
    ///
    /// # Errors
    ///
    /// As any request; refused if there is no such partition.
    pub async fn repair(&self, partition: u16, timeout: Duration) -> Result<Repaired, Error> {
        let request = Request::Repair(Repair { partition });
        match self.call(request, Some(timeout)).await? {
            Answer::Repaired(came_to) => Ok(came_to),
            other => Err(crate::requests::unexpected(&other, false)),
        }
    }

    /// Asks a node what it knows of layouts: which are live, how far a change has come, and which there were.
    ///
    /// # Errors
    ///
    /// As any request.
    pub async fn layouts(&self) -> Result<KnownLayouts, Error> {
        match self.call(Request::Layouts, None).await? {
            Answer::Layouts(known) => Ok(*known),
            other => Err(crate::requests::unexpected(&other, false)),
        }
    }

    /// Has these nodes make the next layout. Returns its version once a majority of the nodes of the layout before has chosen it and
    /// the node that was asked goes by it; data moves from then on.
    ///
    /// # Errors
    ///
    /// Refused if the layout has changed meanwhile or is being changed, or may not be changed so. Where the outcome is
    /// unknown, [`Client::layouts`] tells.
    pub async fn apply_layout(&self, apply: ApplyLayout) -> Result<u64, Error> {
        match self.call(Request::Apply(Box::new(apply)), None).await? {
            Answer::Applied(version) => Ok(version),
            other => Err(crate::requests::unexpected(&other, true)),
        }
    }

    /// Sets how fast nodes are filled while the layout changes, from here on and for all: so many bytes in a second each; 0: not at all until it is
    /// set again; `None`: as each is configured.
    ///
    /// # Errors
    ///
    /// As any request.
    pub async fn pace(&self, bytes_per_second: Option<u64>) -> Result<Pace, Error> {
        match self.call(Request::Pace(bytes_per_second), None).await? {
            Answer::Pace(pace) => Ok(pace),
            other => Err(crate::requests::unexpected(&other, false)),
        }
    }

    /// Whether a node answers where it is said to be reached, also one that is in no layout.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub async fn probe(&self, node: &NodeSpec, within: Duration) -> Result<(), String> {
        let met = meet(self.shared.endpoint.clone(), node.quic.clone());
        match tokio::time::timeout(within, met).await {
            Err(_) => Err(format!("nobody answers at {} within {within:?}", node.quic)),
            Ok(Err(reason)) => Err(reason),
            Ok(Ok((id, ..))) if id != node.id => Err(format!("{} is node {}", node.quic, id.0)),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// The layout by which requests are routed.
    #[must_use]
    pub fn layout(&self) -> Arc<Layout> {
        self.view().layout.clone()
    }

    /// Carries any request; without a `timeout` it has the cluster's default. Returns half a second after the timeout at
    /// the latest. If the request asks for an account, that is left out: see [`Client::call_explained`].
    ///
    /// # Errors
    ///
    /// Refusals and unmet quorums are errors here; see [`Error`].
    pub async fn call(&self, request: Request, timeout: Option<Duration>) -> Result<Answer, Error> {
        self.call_explained(request, timeout).await.result
    }

    /// The same with the account that the request asks for, also of what failed.
    pub async fn call_explained(
        &self,
        request: Request,
        timeout: Option<Duration>,
    ) -> Explained<Answer> {
        let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT);
        let deadline = Instant::now() + timeout;
        let mut refreshed = 0;
        loop {
            let view = self.view();
            let standing = |node: NodeId| view.links[&node].standing();
            let candidates = view.routes.candidates(&request, standing);
            self.warm(&view, &request, candidates.front().copied());
            let mut journey = Journey::new(&request, candidates);
            let travelled = self.travel(&view, request.clone(), (timeout, deadline), &mut journey);
            let result = travelled.await;
            let is_outdated = match &result {
                Err(Error::Refused {
                    refusal: Refusal::WrongLayout { .. },
                    ..
                }) => true,
                // Perhaps all of them have left since.
                Err(Error::Unreachable { .. }) => true,
                Err(Error::TimedOut { .. }) if !journey.was_sent() => true,
                _ => false,
            };
            refreshed += 1;
            if is_outdated && refreshed <= REFRESHED_MAX {
                // It goes on when this request's time is up: the next will find what it found.
                let client = self.clone();
                let known = view.layout.version();
                let looking = tokio::spawn(async move { client.refresh(known).await });
                if let Ok(Ok(true)) = timeout_at(deadline, looking).await {
                    continue;
                }
            }
            return Explained {
                result,
                account: journey.account,
            };
        }
    }

    /// Looks for a layout later than that version: at nodes that are connected first, then wherever any was said to be. Returns whether
    /// one is known then.
    async fn refresh(&self, version: u64) -> bool {
        let is_known = || self.view().layout.version() > version;
        let mut last = self.shared.refreshing.lock().await;
        if is_known() {
            return true;
        }
        if last.is_some_and(|at| at.elapsed() < REFRESH_AGAIN) {
            return false;
        }
        let deadline = Instant::now() + REFRESH_WITHIN;
        let view = self.view();
        let open = view.links.values().filter_map(|link| link.current());
        for open in open.collect::<Vec<_>>() {
            let asked = open.send(Header::default(), Request::Describe);
            if let Ok(mut sent) = asked
                && let Ok(Ok(Answer::Described(told))) =
                    tokio::time::timeout(HEAD_START, sent.answer()).await
                && let Ok((_, layout)) = parse(told)
            {
                self.follow(layout);
                if is_known() {
                    return true;
                }
            }
        }
        let links = view.links.values().map(|link| link.address().to_owned());
        let all = self.shared.endpoints.iter().cloned().chain(links);
        let addresses: Vec<String> = all.collect::<BTreeSet<_>>().into_iter().collect();
        if let Ok((node, open, layout)) = find(&self.shared.endpoint, &addresses, deadline).await {
            self.follow(layout);
            if let Some(link) = self.view().links.get(&node)
                && link.current().is_none()
            {
                link.opened(open);
            }
        }
        *last = (!is_known()).then(Instant::now);
        is_known()
    }

    /// From node to node until one has answered.
    async fn travel(
        &self,
        view: &View,
        request: Request,
        (timeout, deadline): (Duration, Instant),
        journey: &mut Journey,
    ) -> Result<Answer, Error> {
        let shared = &self.shared;
        while let Some(node) = journey.next() {
            let link = &view.links[&node];
            let connected = timeout_at(deadline, link.connect(&shared.endpoint)).await;
            let Ok(connected) = connected else {
                return Err(journey.out_of_time(timeout, false));
            };
            let header = Header {
                layout_version: view.layout.version(),
                deadline_ms: millis(deadline.saturating_duration_since(Instant::now())),
                ..Header::default()
            };
            let sent = connected.and_then(|open| open.send(header, request.clone()));
            let outcome = match sent {
                Err(reason) => Outcome::NotSent(reason),
                Ok(mut sent) => match timeout_at(deadline + SLACK, sent.answer()).await {
                    Err(_) => return Err(journey.out_of_time(timeout, true)),
                    Ok(Ok(answer)) => Outcome::Answered(answer),
                    Ok(Err(reason)) => Outcome::Lost(reason),
                },
            };
            // It knows a later layout, and so will the others: theirs is asked for at once.
            if let Outcome::Answered(Answer::Refused(Refusal::WrongLayout { version })) = outcome
                && version > view.layout.version()
            {
                return Err(Error::Refused {
                    node: link.name.clone(),
                    refusal: Refusal::WrongLayout { version },
                });
            }
            if let Some(result) = journey.happened(&link.name, outcome) {
                return result;
            }
        }
        Err(journey.exhausted())
    }

    /// Where a request goes elsewhere only because that connection is open, opens the one to its home for the next.
    fn warm(&self, view: &View, request: &Request, first: Option<NodeId>) {
        let Some(home) = view.routes.home(request) else {
            return;
        };
        if first == Some(home) || request.target().is_none() {
            return;
        }
        let link = view.links[&home].clone();
        if link.standing() == crate::routing::Standing::Untried && !link.is_being_dialled() {
            let endpoint = self.shared.endpoint.clone();
            tokio::spawn(async move {
                // The link remembers the failure.
                let _ = link.connect(&endpoint).await;
            });
        }
    }
}

/// Whole milliseconds, at least 1: 0 would stand for the default.
fn millis(left: Duration) -> u32 {
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// The first node that answers.
async fn find(
    endpoint: &Endpoint,
    addresses: &[String],
    deadline: Instant,
) -> Result<(NodeId, Arc<Open>, Layout), Error> {
    let mut waiting = addresses.iter();
    let mut dials = JoinSet::new();
    let mut tried = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            dials.spawn(meet(endpoint.clone(), address.clone()));
        }
        let next_dial = match waiting.len() {
            0 => deadline,
            _ => deadline.min(Instant::now() + HEAD_START),
        };
        match timeout_at(next_dial, dials.join_next()).await {
            Ok(Some(Ok(Ok(found)))) => return Ok(found),
            Ok(Some(Ok(Err(reason)))) => tried.push(reason),
            Ok(Some(Err(panic))) => std::panic::resume_unwind(panic.into_panic()),
            Ok(None) if waiting.len() == 0 => return Err(Error::Unreachable { tried }),
            Ok(None) => {}
            Err(_) if Instant::now() >= deadline => {
                tried.push("the others did not answer in time".into());
                return Err(Error::Unreachable { tried });
            }
            Err(_) => {}
        }
    }
}

/// Dials one endpoint and asks it for the layout.
async fn meet(endpoint: Endpoint, name: String) -> Result<(NodeId, Arc<Open>, Layout), String> {
    let mut last = String::new();
    for address in resolve(&name).await.map_err(|error| error.to_string())? {
        let connection = match endpoint.dial(address, Expected::AnyNode).await {
            Ok(connection) => connection,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        let Identity::Node(id) = *connection.peer() else {
            return Err(format!("{address} is no node"));
        };
        let open = Open::new(connection);
        let mut sent = open.send(Header::default(), Request::Describe)?;
        let described = match sent.answer().await? {
            Answer::Described(description) => description,
            Answer::Refused(refusal) => return Err(format!("{address}: {refusal}")),
            _ => return Err(format!("{address} answered something else than the layout")),
        };
        drop(sent);
        let (_, layout) = parse(described).map_err(|error| error.to_string())?;
        return Ok((NodeId(id), open, layout));
    }
    Err(last)
}

fn parse(description: Description) -> Result<(String, Layout), Error> {
    let Description { node, layout } = description;
    match serde_json::from_slice(&layout) {
        Ok(layout) => Ok((node, layout)),
        Err(error) => Err(Error::Unexpected {
            node,
            what: format!("with a layout that is none ({error})"),
            write: false,
        }),
    }
}
