//! What goes wrong in a cluster, one thing or two at a time, drawn from a seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use crate::clients::REPLICAS;
use crate::cluster::Cluster;
use crate::network::{Link, Network};

/// How old a copy is at the least that a directory is replaced by.
const COPY_AGE_MIN: Duration = Duration::from_secs(2);

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
    /// SIGKILL, and its directory replaced by an older copy of itself.
    Rollback,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 10] = [
        Fault::Kill,
        Fault::KillAll,
        Fault::Pause,
        Fault::Isolate,
        Fault::Split,
        Fault::OneWay,
        Fault::Loss,
        Fault::Delay,
        Fault::DiskFull,
        Fault::Rollback,
    ];

    /// Whether it is of a process, and not of the network.
    fn of_process(self) -> bool {
        matches!(
            self,
            Fault::Kill | Fault::KillAll | Fault::Pause | Fault::DiskFull | Fault::Rollback
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
    /// Who may lose what it has: all nodes but one. For what was deleted and forgotten is kept away by those who never lost anything.
    losers: Vec<u16>,
    /// Copies of directories, and when they were taken.
    copies: BTreeMap<u16, (PathBuf, Instant)>,
    losses: Vec<Instant>,
}

impl<'a> Nemesis<'a> {
    /// Of the nodes 1 to `nodes`, which it starts itself, with `durability`.
    #[must_use]
    pub fn new(
        cluster: &'a mut Cluster,
        network: &'a Network,
        nodes: u16,
        durability: &'static str,
        mut rng: ChaCha8Rng,
    ) -> Self {
        let mut losers: Vec<u16> = (1..=nodes).collect();
        losers.shuffle(&mut rng);
        losers.truncate(REPLICAS - 1);
        let mut nemesis = Nemesis {
            cluster,
            network,
            nodes,
            durability,
            rng,
            bag: Vec::new(),
            now: Vec::new(),
            counts: BTreeMap::new(),
            losers,
            copies: BTreeMap::new(),
            losses: Vec::new(),
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

    /// When a directory was replaced by an older copy.
    #[must_use]
    pub fn losses(&self) -> &[Instant] {
        &self.losses
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
                Fault::Kill | Fault::KillAll | Fault::Rollback => self.start(number),
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
        let one = match fault {
            Fault::Rollback => self.losers[self.rng.random_range(0..self.losers.len())],
            _ => self.rng.random_range(1..=self.nodes),
        };
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
        if fault == Fault::Rollback && !self.roll_back(one) {
            // Not now. It comes when all the others have come, and not before.
            if !self.bag.is_empty() {
                self.bag.insert(0, fault);
            }
            return;
        }
        let cut = Link {
            cut: true,
            ..Link::default()
        };
        match fault {
            Fault::Kill | Fault::KillAll => self.cluster.kill_nodes(&concerned),
            Fault::Pause => self.cluster.node(one).signal(Signal::STOP),
            Fault::Rollback => {}
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

    /// Replaces a node's directory by an older copy of itself; without one, kills the node and takes one. Returns whether it did
    /// the former.
    ///
    /// That all others have what they ever had is part of the fault, and that they have heard of the node since the copy was taken.
    fn roll_back(&mut self, number: u16) -> bool {
        let whole =
            self.now.is_empty() && (1..=self.nodes).all(|number| is_whole(self.cluster, number));
        let older = self.cluster.dir().join(format!("older-{number}"));
        let dir = self
            .cluster
            .dir()
            .join(format!("cluster/node-{number}/data"));
        let copied = self.copies.get(&number);
        if !whole || copied.is_some_and(|(_, at)| at.elapsed() < COPY_AGE_MIN) {
            return false;
        }
        self.cluster.kill_node(number);
        let Some((older, _)) = self.copies.remove(&number) else {
            copy(&dir, &older);
            self.copies.insert(number, (older, Instant::now()));
            self.start(number);
            return false;
        };
        fs::remove_dir_all(&dir).expect("removed");
        fs::rename(older, dir).expect("put back");
        self.losses.push(Instant::now());
        true
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

/// Whether a node runs, is heard, and lacks nothing that it ever had.
fn is_whole(cluster: &Cluster, number: u16) -> bool {
    let metric = |name| cluster.metric(number, name);
    metric("quorate_verified") == Some(1) && metric("quorate_partitions_refilling") == Some(0)
}

/// Copies a directory with all that is in it.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("its type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).expect("copied")),
        }
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
