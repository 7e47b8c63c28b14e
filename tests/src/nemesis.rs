//! What goes wrong in a cluster, one thing or two at a time, drawn from a seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::network::{Link, Network};

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// SIGKILL, and a new start when it is mended.
    Kill,
    /// The same for all nodes at once: what they tell each other afterwards, each has from its own disk.
    KillAll,
    /// SIGSTOP; its sockets stay open.
    Pause,
    /// No packet between a node and any other.
    Isolate,
    /// No packet between two nodes.
    Split,
    /// No packet from one node to another; those the other way arrive.
    OneWay,
    /// Some packets are lost, everywhere.
    Loss,
    /// What comes from a node and goes to it comes late, and not in order.
    Delay,
    /// Its files may not grow beyond a few bytes more than the largest has: a write is torn, and those after it fail.
    DiskFull,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 9] = [
        Fault::Kill,
        Fault::KillAll,
        Fault::Pause,
        Fault::Isolate,
        Fault::Split,
        Fault::OneWay,
        Fault::Loss,
        Fault::Delay,
        Fault::DiskFull,
    ];

    /// Whether it is of a process, and not of the network.
    fn of_process(self) -> bool {
        matches!(
            self,
            Fault::Kill | Fault::KillAll | Fault::Pause | Fault::DiskFull
        )
    }
}

/// Who makes all this happen.
#[derive(Debug)]
pub struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    network: &'a Network,
    nodes: u16,
    durability: &'static str,
    rng: ChaCha8Rng,
    /// What is yet to come before any kind comes again: so that short runs see all.
    bag: Vec<Fault>,
    /// What is wrong now, and with which node.
    now: Vec<(Fault, u16)>,
    counts: BTreeMap<Fault, u32>,
}

impl<'a> Nemesis<'a> {
    /// Of the nodes 1 to `nodes`, which it starts itself, with `durability`.
    #[must_use]
    pub fn new(
        cluster: &'a mut Cluster,
        network: &'a Network,
        nodes: u16,
        durability: &'static str,
        rng: ChaCha8Rng,
    ) -> Self {
        let mut nemesis = Nemesis {
            cluster,
            network,
            nodes,
            durability,
            rng,
            bag: Vec::new(),
            now: Vec::new(),
            counts: BTreeMap::new(),
        };
        for number in 1..=nodes {
            nemesis.start(number);
        }
        nemesis.cluster.await_all();
        nemesis
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// How often each kind of fault happened.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Fault, u32> {
        &self.counts
    }

    /// Makes one thing go wrong, or two; says for how long.
    pub fn strike(&mut self) -> Duration {
        for _ in 0..self.rng.random_range(1..=2) {
            if self.bag.is_empty() {
                self.bag = Fault::ALL.to_vec();
                self.bag.shuffle(&mut self.rng);
            }
            let fault = self.bag.pop().expect("it was filled");
            self.inject(fault);
        }
        Duration::from_millis(self.rng.random_range(300..2_500))
    }

    /// Mends everything that it broke, and waits for nothing; says how long it stays so.
    ///
    /// # Panics
    /// If a process has ended that was not to.
    pub fn mend(&mut self) -> Duration {
        self.network.mend();
        for (fault, number) in std::mem::take(&mut self.now) {
            match fault {
                Fault::Kill | Fault::KillAll => self.start(number),
                Fault::Pause => self.cluster.node(number).signal(Signal::CONT),
                Fault::DiskFull => {
                    // A node whose disk failed is to be started again, if it still runs.
                    self.cluster.kill_node(number);
                    self.start(number);
                }
                _ => {}
            }
        }
        for number in 1..=self.nodes {
            if let Some(status) = self.cluster.node(number).status() {
                panic!("node {number} has ended by itself: {status}");
            }
        }
        Duration::from_millis(self.rng.random_range(0..1_500))
    }

    fn inject(&mut self, fault: Fault) {
        let one = self.rng.random_range(1..=self.nodes);
        let others: Vec<u16> = (1..=self.nodes).filter(|other| *other != one).collect();
        let other = others[self.rng.random_range(0..others.len())];
        let concerned = match fault {
            Fault::KillAll => (1..=self.nodes).collect(),
            _ => vec![one],
        };
        let occupied = |number| self.now.iter().any(|(_, other)| *other == number);
        if fault.of_process() && concerned.iter().copied().any(occupied) {
            // One thing at a time with a process: it comes next time.
            self.bag.push(fault);
            return;
        }
        let cut = Link {
            cut: true,
            ..Link::default()
        };
        match fault {
            Fault::Kill | Fault::KillAll => self.cluster.kill_nodes(&concerned),
            Fault::Pause => self.cluster.node(one).signal(Signal::STOP),
            Fault::DiskFull => {
                let dir = self.cluster.dir().join(format!("cluster/node-{one}"));
                let room = self.rng.random_range(1..8_192);
                self.cluster.node(one).limit_files(largest(&dir) + room);
            }
            Fault::Isolate => {
                for other in others {
                    self.network.set(one, other, cut);
                    self.network.set(other, one, cut);
                }
            }
            Fault::Split => {
                self.network.set(one, other, cut);
                self.network.set(other, one, cut);
            }
            Fault::OneWay => self.network.set(one, other, cut),
            Fault::Loss => {
                let lossy = Link {
                    loss: self.rng.random_range(0.02..0.4),
                    ..Link::default()
                };
                for one in 1..=self.nodes {
                    for other in (1..=self.nodes).filter(|other| *other != one) {
                        self.network.set(one, other, lossy);
                    }
                }
            }
            Fault::Delay => {
                let most = self.rng.random_range(5..400);
                let slow = Link {
                    delay: Duration::from_millis(most / 2),
                    jitter: Duration::from_millis(most / 2),
                    ..Link::default()
                };
                for other in others {
                    self.network.set(one, other, slow);
                    self.network.set(other, one, slow);
                }
            }
        }
        if fault.of_process() {
            let concerned = concerned.into_iter().map(|number| (fault, number));
            self.now.extend(concerned);
        }
        *self.counts.entry(fault).or_default() += 1;
    }

    fn start(&mut self, number: u16) {
        // The signal that comes with a file that is too large would end the process; ignored, the write fails, as on a full disk. What is
        // ignored stays so through `exec`, and the process keeps its number.
        let server = self.cluster.server(number);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
            .arg(server.get_program())
            .args(server.get_args())
            .env("QUORATE_DURABILITY", self.durability);
        self.cluster.start_node_as(number, &mut command);
    }
}

/// The size of the largest file below a directory.
fn largest(dir: &Path) -> u64 {
    // Files come and go meanwhile.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).max().unwrap_or(0)
}
