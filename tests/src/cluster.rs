//! A cluster of `quorate server` processes in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::binary::{Done, quorate, run};
use crate::http;
use crate::ports::free_base_port;
use crate::process::Process;

/// Nodes as processes. Dropping it ends them.
#[derive(Debug)]
pub struct Cluster {
    // Ended before the directory goes.
    nodes: Vec<Option<Process>>,
    base_port: u16,
    dir: TempDir,
}

impl Cluster {
    /// Makes a cluster of `nodes` nodes, starts them, and waits until all are ready.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(nodes: u16) -> Cluster {
        let mut cluster = Cluster::init(nodes);
        for number in 1..=nodes {
            cluster.start_node(number);
        }
        cluster.await_all();
        cluster
    }

    /// Makes a cluster and starts none of its nodes.
    ///
    /// # Panics
    /// If that is refused.
    #[must_use]
    pub fn init(nodes: u16) -> Cluster {
        Cluster::init_with_room(nodes, 0)
    }

    /// The same, with ports for some more nodes that may be admitted.
    ///
    /// # Panics
    /// If that is refused.
    #[must_use]
    pub fn init_with_room(nodes: u16, room: u16) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base_port = free_base_port(nodes + room);
        let cluster = Cluster {
            nodes: (0..nodes + room).map(|_| None).collect(),
            base_port,
            dir,
        };
        let mut init = Command::new(quorate());
        init.arg("init")
            .arg(cluster.path("cluster"))
            .args(["--nodes", &nodes.to_string()]);
        let _ = run(init.args(["--base-port", &base_port.to_string()])).expect(0);
        cluster
    }

    /// The directory that the cluster's own lies in; it goes with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The clients' configuration.
    #[must_use]
    pub fn client_config(&self) -> PathBuf {
        self.path("cluster/client.toml")
    }

    /// A node's configuration; nodes are numbered from 1.
    #[must_use]
    pub fn node_config(&self, number: u16) -> PathBuf {
        self.path(&format!("cluster/node-{number}.toml"))
    }

    /// Admits the next node, which is in no layout yet, and starts it. Returns the file that says who it is.
    ///
    /// # Panics
    /// If that is refused.
    pub fn admit(&mut self, number: u16) -> PathBuf {
        let dir = self.path("cluster");
        let name = format!("node-{number}");
        let mut admit = Command::new(quorate());
        admit.arg("admit").arg(&dir).args(["--name", &name]);
        let _ = run(&mut admit).expect(0);
        self.start_node(number);
        dir.join(name).join("node.json")
    }

    /// Where a node listens, over QUIC and over HTTP.
    #[must_use]
    pub fn address(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + number)
    }

    /// The URL of a key at a node.
    #[must_use]
    pub fn url(&self, number: u16, bucket: &str, key: &str) -> String {
        format!(
            "http://{}/v1/buckets/{bucket}/keys/{key}",
            self.address(number)
        )
    }

    /// The command that runs a node.
    #[must_use]
    pub fn server(&self, number: u16) -> Command {
        let mut server = Command::new(quorate());
        server
            .arg("server")
            .arg("--config")
            .arg(self.node_config(number));
        server
    }

    /// Starts a node and does not wait for it.
    pub fn start_node(&mut self, number: u16) {
        self.start_node_as(number, &mut self.server(number));
    }

    /// Starts a node by a command of one's own, and does not wait for it.
    pub fn start_node_as(&mut self, number: u16, command: &mut Command) {
        let process = Process::start(command, self.dir.path(), &format!("node-{number}"));
        self.nodes[usize::from(number) - 1] = Some(process);
    }

    /// A node's process.
    ///
    /// # Panics
    /// If it is not running.
    pub fn node(&mut self, number: u16) -> &mut Process {
        self.nodes[usize::from(number) - 1]
            .as_mut()
            .expect("the node was started")
    }

    /// Takes note that a node has ended by itself.
    pub fn forget_node(&mut self, number: u16) {
        self.nodes[usize::from(number) - 1] = None;
    }

    /// Ends a node with SIGKILL.
    pub fn kill_node(&mut self, number: u16) {
        self.kill_nodes(&[number]);
    }

    /// Ends nodes with SIGKILL, all before it waits for any.
    pub fn kill_nodes(&mut self, numbers: &[u16]) {
        for number in numbers {
            self.node(*number).signal(Signal::KILL);
        }
        for number in numbers {
            let _ = self.node(*number).ended(Duration::from_secs(10));
            self.nodes[usize::from(*number) - 1] = None;
        }
    }

    /// Waits until each running node is ready.
    ///
    /// # Panics
    /// If one does not become so.
    pub fn await_all(&self) {
        for number in 1..=self.nodes.len() as u16 {
            if self.nodes[usize::from(number) - 1].is_some() {
                let address = self.address(number);
                let timeout = format!("{}s", crate::START_MAX.as_secs());
                let _ = self
                    .cli(&["ready", "--endpoint", &address, "--timeout", &timeout])
                    .expect(0);
            }
        }
    }

    /// A metric of a node that has no labels; `None` where the node does not answer.
    #[must_use]
    pub fn metric(&self, number: u16, name: &str) -> Option<i64> {
        let url = format!("http://{}/metrics", self.address(number));
        let mut answer = http().get(&url).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// A command of the CLI on this cluster.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(quorate());
        command
            .args(arguments)
            .env("QUORATE_CONFIG", self.client_config());
        command
    }

    /// Runs a command of the CLI on this cluster.
    pub fn cli(&self, arguments: &[&str]) -> Done {
        run(&mut self.command(arguments))
    }
}
