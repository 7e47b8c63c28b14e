//! A cluster of nodes in this process, and the two ways to talk to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientConfig};
use quorate_server::{InitReport, NodeConfig, NodePlan, RunningNode, init_at};
use tempfile::TempDir;

/// The longest any condition of a healthy cluster may take to come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a conversation of a client, and ends it if it hangs.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the conversation takes too long")
    })
}

/// Plans for nodes on ports that are free now.
pub(crate) fn plans(count: usize) -> Vec<NodePlan> {
    let udp: Vec<UdpSocket> = (0..count)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let tcp: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    (0..count)
        .map(|at| NodePlan {
            name: format!("node-{}", at + 1),
            region: "eu".into(),
            quic: udp[at].local_addr().unwrap().to_string(),
            http: tcp[at].local_addr().unwrap().to_string(),
        })
        .collect()
}

/// Files of a cluster that does not run.
pub(crate) fn made(count: usize) -> (TempDir, InitReport) {
    let dir = tempfile::tempdir().unwrap();
    let report = init_at(&dir.path().join("cluster"), &plans(count)).unwrap();
    (dir, report)
}

pub(crate) fn load(file: &Path) -> NodeConfig {
    NodeConfig::load(file, [], BTreeMap::new()).unwrap()
}

pub(crate) struct Cluster {
    // Before the directory: nothing is open in it when it is removed.
    nodes: Vec<Option<RunningNode>>,
    pub(crate) report: InitReport,
    _dir: TempDir,
}

/// What HTTP answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) context: Option<String>,
    pub(crate) body: String,
}

impl Cluster {
    /// All running, each in reach of all others.
    pub(crate) fn start(count: usize) -> Self {
        let (dir, report) = made(count);
        let mut cluster = Cluster {
            nodes: (0..count).map(|_| None).collect(),
            report,
            _dir: dir,
        };
        for at in 0..count {
            cluster.start_node(at);
        }
        cluster.settle();
        cluster
    }

    pub(crate) fn start_node(&mut self, at: usize) {
        self.nodes[at] = Some(RunningNode::start(load(self.config(at))).unwrap());
    }

    pub(crate) fn stop_node(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").stop().unwrap();
    }

    pub(crate) fn config(&self, at: usize) -> &Path {
        &self.report.nodes[at].config
    }

    /// Waits until every node that runs reaches every replica of sixteen keys.
    pub(crate) fn settle(&self) {
        for at in (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some()) {
            for key in 0..16 {
                until("a node to reach all replicas", || {
                    let reply = self.http(at, "GET", &format!("settle/keys/{key}?r=all"), &[], "");
                    reply.status == 404
                });
            }
        }
    }

    /// A request to `/v1/buckets/` and `path` of a node.
    pub(crate) fn http(
        &self,
        at: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let url = format!("http://{}/v1/buckets/{path}", self.report.nodes[at].http);
        ask(method, &url, headers, body)
    }

    pub(crate) fn ready(&self, at: usize) -> Reply {
        ask(
            "GET",
            &format!("http://{}/readyz", self.report.nodes[at].http),
            &[],
            "",
        )
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::load(&self.report.client).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.client_config()).await.unwrap()
    }
}

pub(crate) fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    let context = response.headers().get("Quorate-Context");
    Reply {
        status: response.status().as_u16(),
        context: context.map(|c| c.to_str().unwrap().to_owned()),
        body: response.body_mut().read_to_string().unwrap(),
    }
}

/// Changes a file by replacing text that must be there.
pub(crate) fn edit(file: &PathBuf, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", file.display());
    std::fs::write(file, text.replace(from, to)).unwrap();
}
