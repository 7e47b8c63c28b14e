//! A node as a thread: from a configuration to sockets that listen, and back to a closed database.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_causal::ContextKey;
use quorate_node::{Config, Limits, Node};
use quorate_protocol::{Answer, Refusal, SIBLINGS_BYTES_FACTOR};
use quorate_ring::Layout;
use quorate_storage::rocks::{self, OpenError, Rocks, RocksOptions};
use quorate_storage::{CommitEvent, Storage, StorageError};
use quorate_transport::{Acceptor, BindError, Endpoint, Tuning};
use rand::RngCore;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::backend::{LocalNode, Readiness};
use crate::config::{Checked, ConfigError, Durability, NodeConfig};
use crate::driver::{Driver, Surroundings};
use crate::event::{Event, Events};
use crate::identity::{self, Mismatch, Recognised};
use crate::links::{self, Knocks, Reader};
use crate::metrics::{Metrics, Who};
use crate::open_files;
use crate::opened::{Lost, Opened};
use crate::pulse;

/// How long peers and HTTP clients may take to hear the last answers once all requests are done.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a node did not start. Nothing runs then, and nothing is held.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process may open too few files.
    #[error(
        "this process may have {limit} files open, and a node needs 1024: raise the limit with `ulimit -n` or LimitNOFILE="
    )]
    OpenFiles {
        /// The limit.
        limit: u64,
    },
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The data directory is not this node's. Nothing in it was changed.
    #[error("data directory {}: {reason}", .dir.display())]
    NotThisNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is, and what to do.
        reason: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The QUIC port cannot be had.
    #[error(transparent)]
    Quic(#[from] BindError),
    /// The HTTP port cannot be had.
    #[error("{}", http_words(.address, .source))]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system gave no thread or no event queue, or something in the node is broken.
    #[error("the node could not be started: {0}")]
    Internal(String),
}

fn http_words(address: &SocketAddr, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "TCP {address} is in use already: stop the process that holds it (`ss -tlpn` names it), or configure \
             another http_listen"
        ),
        _ => format!("cannot listen on TCP {address}: {source}"),
    }
}

/// A node that ended for another reason than being asked to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeFailure(pub String);

/// A node that runs on a thread of its own. Dropping it stops it and waits for that.
#[derive(Debug)]
pub struct RunningNode {
    name: String,
    quic: SocketAddr,
    http: SocketAddr,
    events: Events,
    thread: Option<JoinHandle<()>>,
    ended: watch::Receiver<Option<Result<(), NodeFailure>>>,
}

impl RunningNode {
    /// Starts a node: checks the configuration, opens the data directory and both ports, and serves. All that is done
    /// when it returns; that a majority of the cluster is in reach is not (`/readyz` and `quorate ready` tell).
    ///
    /// Raises the process's limit of open files as far as it may.
    ///
    /// # Errors
    ///
    /// Any [`StartError`].
    pub fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
        let checked = config.check()?;
        open_files::raise().map_err(|limit| StartError::OpenFiles { limit })?;
        let name = config.name;
        let (events, queue) = Events::new(tuning(&checked.config).max_frame);
        let (report, started) = sync_channel(1);
        let (end, ended) = watch::channel(None);
        let own_events = events.clone();
        let body = move || {
            let run = AssertUnwindSafe(|| run(checked, own_events, queue, &report));
            let result = match catch_unwind(run) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => {
                    // Nobody listens for a start any more if it was reported already.
                    let words = error.to_string();
                    let _ = report.try_send(Err(error));
                    Err(NodeFailure(words))
                }
                Err(panic) => {
                    let words = format!("a bug ended the node: {}", words_of(&*panic));
                    tracing::error!("{words}");
                    let _ = report.try_send(Err(StartError::Internal(words.clone())));
                    Err(NodeFailure(words))
                }
            };
            end.send_replace(Some(result));
        };
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(body)
            .map_err(|error| StartError::Internal(error.to_string()))?;
        let reported = started.recv();
        let reported =
            reported.unwrap_or_else(|_| Err(StartError::Internal("it ended at once".into())));
        let (quic, http) = match reported {
            Ok(addresses) => addresses,
            Err(error) => {
                // It has said its last word; what it held is free once it has ended.
                let _ = thread.join();
                return Err(error);
            }
        };
        Ok(RunningNode {
            name,
            quic,
            http,
            events,
            thread: Some(thread),
            ended,
        })
    }

    /// Its name in the layout.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where HTTP is listened to.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where QUIC is listened to.
    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        self.quic
    }

    /// Asks the node to take no more requests, to finish those it has, and to end; does not wait for it.
    pub fn request_stop(&self) {
        self.events.push(Event::Stop);
    }

    /// Asks it to stop and blocks until it has ended: as long as requests under way take, 7 seconds at most, and what
    /// the disk takes.
    ///
    /// # Errors
    ///
    /// [`NodeFailure`] if it had ended before for another reason.
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        self.end();
        self.ended.borrow().clone().unwrap_or(Ok(()))
    }

    /// Waits until the node has ended, whether asked to or not. Cancelling loses nothing, and it can be called again.
    ///
    /// # Errors
    ///
    /// [`NodeFailure`] if it ended for another reason than being asked to.
    pub async fn wait(&mut self) -> Result<(), NodeFailure> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err(NodeFailure("the node's thread is gone".into())),
        }
    }

    fn end(&mut self) {
        self.request_stop();
        if let Some(thread) = self.thread.take() {
            // Its panics were caught and told.
            let _ = thread.join();
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.end();
    }
}

type Report = SyncSender<Result<(SocketAddr, SocketAddr), StartError>>;

/// The thread's body.
fn run(
    checked: Checked,
    events: Events,
    mut queue: UnboundedReceiver<Event>,
    report: &Report,
) -> Result<(), StartError> {
    let internal = |error: &dyn std::fmt::Display| StartError::Internal(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| internal(&error))?;
    let (storage, opened, first) = open_storage(&checked, &events, &mut queue)?;
    let unclean = tell_of_loss(&checked, &opened);
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let node = Node::new(core_config(&checked, unclean), first, storage, seed)
        .map_err(|error| internal(&error))?;
    runtime.block_on(async {
        let config = &checked.config;
        let (endpoint, acceptor) =
            Endpoint::bind(config.quic_listen, &checked.credentials, tuning(config))?;
        let address = config.http_listen;
        let http = TcpListener::bind(address).await;
        let http = http.map_err(|source| StartError::Http { address, source })?;
        let addresses = (
            endpoint.local_addr(),
            http.local_addr().map_err(|e| internal(&e))?,
        );
        announce(&checked, addresses);
        let _ = report.send(Ok(addresses));
        let sockets = Sockets {
            endpoint,
            acceptor,
            http,
        };
        serve(&checked, (node, opened), sockets, events, queue).await;
        Ok(())
    })
}

/// Opens the data directory, and makes sure that it is this node's.
fn open_storage(
    checked: &Checked,
    events: &Events,
    queue: &mut UnboundedReceiver<Event>,
) -> Result<(Rocks, Opened, Layout), StartError> {
    let config = &checked.config;
    let options = RocksOptions {
        durability: match config.durability {
            Durability::Fsync => rocks::Durability::Fsync,
            Durability::Os => rocks::Durability::Os,
        },
        block_cache_bytes: config.block_cache_bytes,
        ..RocksOptions::default()
    };
    let committed = events.clone();
    let on_event = Box::new(move |event| {
        committed.push(Event::Commit(event));
    });
    let mut storage = Rocks::open(&config.data_dir, options, on_event)?;
    let Recognised { first, made } =
        identity::recognise(&mut storage, checked).map_err(|error| match error {
            Mismatch::Storage(error) => StartError::Storage(error),
            Mismatch::Refused(reason) => StartError::NotThisNode {
                dir: config.data_dir.clone(),
                reason,
            },
        })?;
    // Before anything is written that could be lost.
    let opened = Opened::look(&config.data_dir, config.durability, made.is_some());
    let opened = opened.map_err(|error| {
        StartError::Internal(format!(
            "data directory {}: how it was used last cannot be read or written: {error}",
            config.data_dir.display()
        ))
    })?;
    // Before the runtime runs, nothing but the committer can speak.
    while let Some(ticket) = made {
        match queue.blocking_recv() {
            Some(Event::Commit(CommitEvent::Progress(progress))) => {
                storage.advance(progress);
                if progress.synced >= ticket {
                    break;
                }
            }
            Some(Event::Commit(CommitEvent::Poisoned(reason))) => {
                return Err(StorageError::Poisoned { reason }.into());
            }
            other => unreachable!("before the node runs came {other:?}"),
        }
    }
    Ok((storage, opened, first))
}

/// Whether what this node acknowledged last may be lost; says so to whoever reads its log.
fn tell_of_loss(checked: &Checked, opened: &Opened) -> bool {
    let node = &checked.config.name;
    match opened.lost() {
        None => return false,
        Some(Lost::Unsynced) => tracing::warn!(
            node,
            "the machine went down while this node ran with durability \"os\": what it acknowledged last may be lost, \
             so it answers reads only of what the other replicas have told it anew"
        ),
        Some(Lost::Restored) => tracing::warn!(
            node,
            "its directory was restored from a copy, as RESTORED says: it answers reads only of what the other replicas \
             have told it anew"
        ),
    }
    true
}

fn core_config(checked: &Checked, unclean: bool) -> Config {
    let config = &checked.config;
    Config {
        me: checked.id,
        secret: ContextKey::new(&checked.secret),
        defaults: Default::default(),
        limits: Limits {
            value_bytes_max: config.value_bytes_max,
            siblings_max: config.siblings_max,
            siblings_bytes_max: SIBLINGS_BYTES_FACTOR * config.value_bytes_max,
            requests_max: config.requests_max,
            hint_bytes_max: config.hint_bytes_max as u64,
            handoff_bytes_per_second: config.handoff_bytes_per_second as u64,
            hedge_percent: config.hedge_percent as u32,
            repair_bytes_per_second: config.repair_bytes_per_second as u64,
            exchange_cycle: config.exchange_cycle,
            verify_cycle: config.verify_cycle,
            collect_after: config.collect_after,
            collect_keys_per_second: config.collect_keys_per_second as u64,
            fill_bytes_per_second: config.fill_bytes_per_second as u64,
            ..Limits::default()
        },
        upkeep: true,
        unclean,
    }
}

/// Frames hold whole records: what one put may leave, from each of a few coordinators that could not hear each other.
fn tuning(config: &NodeConfig) -> Tuning {
    let default = Tuning::default();
    let max_frame = default
        .max_frame
        .max(4 * SIBLINGS_BYTES_FACTOR * config.value_bytes_max);
    Tuning {
        max_frame,
        max_queued: default.max_queued.max(2 * max_frame),
        ..default
    }
}

fn announce(checked: &Checked, (quic, http): (SocketAddr, SocketAddr)) {
    let Checked { config, layout, .. } = checked;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.name,
        %quic,
        %http,
        data_dir = %config.data_dir.display(),
        durability = ?config.durability,
        cluster = %layout.cluster(),
        layout = layout.version(),
        "started"
    );
}

struct Sockets {
    endpoint: Endpoint,
    acceptor: Acceptor,
    http: TcpListener,
}

/// Runs everything that the node is made of until it is told to stop, and takes it down in good order.
async fn serve(
    checked: &Checked,
    (node, opened): (Node<Rocks>, Opened),
    sockets: Sockets,
    events: Events,
    mut queue: UnboundedReceiver<Event>,
) {
    let Sockets {
        endpoint,
        acceptor,
        http,
    } = sockets;
    let readiness = Readiness::new();
    let own = &checked.own;
    let who = Who {
        id: own.id.0,
        name: own.name.clone(),
        region: own.region.clone(),
        zone: own.zone.clone(),
    };
    let metrics = Arc::new(Metrics::new(who, node.storage().counters()));
    let knocks = Knocks::default();
    let (roster, rosters) = watch::channel(Vec::new());

    // None of these ends by itself; one that panics takes the node with it.
    let mut tasks = JoinSet::new();
    let (readers, mut new_readers) = unbounded_channel();
    let accept = links::accept(acceptor, events.clone(), knocks.clone(), readers);
    let accepting = tasks.spawn(accept);
    // Apart from the others: they hold their connections open, until those have heard the last answers.
    let mut reading = JoinSet::new();
    let dialling = links::keep_all_dialled(endpoint.clone(), events.clone(), knocks, rosters);
    tasks.spawn(dialling);
    let config = &checked.config;
    let (dir, reserve) = (config.data_dir.clone(), config.disk_reserve);
    // The first look comes before the first request: a full disk is not written to meanwhile, and what has expired is not
    // shown.
    events.push(Event::Pulse(pulse::look(&dir, reserve)));
    tasks.spawn(pulse::beat(dir, reserve, events.clone()));
    let backend = LocalNode {
        metrics: metrics.clone(),
        events,
        readiness: readiness.clone(),
    };
    let limits = quorate_gateway::Limits {
        value_bytes_max: checked.config.value_bytes_max,
        ..Default::default()
    };
    let router = quorate_gateway::router(backend, limits);
    let (close_http, http_closes) = oneshot::channel::<()>();
    let mut gateway = tokio::spawn(quorate_gateway::serve(http, router, async {
        let _ = http_closes.await;
    }));

    let surroundings = Surroundings {
        name: checked.config.name.clone(),
        id: checked.id,
        roster,
        slow_request: config.slow_request,
        silence_max: tuning(config).max_idle + tuning(config).keep_alive,
        opened,
    };
    let mut driver = Driver::new(node, surroundings, readiness, metrics, Rocks::stats);
    let run = driver.run(&mut queue, || {
        // New callers are turned away with a word; whoever is connected is served to the end.
        accepting.abort();
        let _ = close_http.send(());
    });
    tokio::select! {
        () = run => {}
        () = until_a_panic(&mut tasks) => unreachable!("it ends only by a panic"),
        () = supervise(&mut new_readers, &mut reading) => unreachable!("it ends only by a panic"),
    }
    tokio::select! {
        _ = tokio::time::timeout(FAREWELL, &mut gateway) => {}
        () = refuse(&mut queue) => unreachable!("the links hold the other end"),
    }
    tasks.abort_all();
    driver.finish(FAREWELL).await;
    endpoint.close("the node is closing");
    endpoint.wait_idle(FAREWELL).await;
    let node = &checked.config.name;
    let (storage, opened) = driver.into_storage();
    match storage.close_with(|| opened.closed()) {
        Ok(Ok(())) => tracing::info!(node, "closed"),
        Ok(Err(error)) => {
            tracing::warn!(node, %error, "closed, and it could not be written down that it was");
        }
        Err(error) => tracing::error!(node, %error, "not everything that was written is on disk"),
    }
}

/// Answers the HTTP requests that the driver did not come to see: nothing was done for them.
async fn refuse(queue: &mut UnboundedReceiver<Event>) {
    while let Some(event) = queue.recv().await {
        if let Event::Http(http) = event {
            let _ = http.asker.send(Answer::Refused(Refusal::Draining));
        }
    }
}

/// Passes on the panic of a task; those that end otherwise are over by intent.
async fn until_a_panic(tasks: &mut JoinSet<()>) {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Runs these and passes on the panic of one.
async fn supervise(new: &mut UnboundedReceiver<Reader>, running: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            Some(reader) = new.recv() => {
                running.spawn(reader);
            }
            () = until_a_panic(running) => {}
        }
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => (*words).to_owned(),
        (_, Some(words)) => words.clone(),
        _ => "a panic without words".to_owned(),
    }
}
