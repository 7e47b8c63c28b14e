//! The network between the nodes of a cluster, as something that can be cut, slowed and made to lose packets.
//!
//! It is a shaper in user space, so that it needs no privileges and no support by the kernel, and concerns nobody else on the machine.
//! Every node advertises a port of the shaper instead of its own. What another node sends there is passed on to the node from a
//! socket that stands for this pair alone, and what the node answers to that socket goes back the same way:
//!
//! ```text
//!   node 1 --> [front of 2] ==> [back of 1 at 2] --> node 2
//!   node 1 <-- [front of 2] <== [back of 1 at 2] <-- node 2
//! ```
//!
//! So for each ordered pair of nodes it is known which packets go from the one to the other, whoever dialled, and each direction is a
//! [`Link`] of its own. HTTP goes past it, and so do clients that ask a node at its own address. Clients that learn the layout are led
//! to the fronts, which know nodes alone: they reach none there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;
use socket2::SockRef;

use crate::cluster::Cluster;

/// How long a socket is listened to before its thread looks whether it should end.
const LISTEN: Duration = Duration::from_millis(50);
/// As the nodes' own: a burst that fits into theirs must not be lost here.
const SOCKET_BUFFER: usize = 4 << 20;
/// The packets that one socket holds back at most. Those beyond are lost, as in a router whose queue is full.
const HELD_MAX: usize = 20_000;

/// What happens to packets from one node to another.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Link {
    /// Whether all of them are lost.
    pub cut: bool,
    /// The chance that one is lost, from 0 to 1.
    pub loss: f64,
    /// How long each is held back.
    pub delay: Duration,
    /// How much longer than that, at most: one that is held back longer than its successor arrives after it.
    pub jitter: Duration,
}

/// Sender and receiver, by their numbers.
type Pair = (u16, u16);

#[derive(Debug, Default)]
struct Shared {
    /// The links that are not perfect.
    links: Mutex<BTreeMap<Pair, Link>>,
    ended: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn link(&self, pair: Pair) -> Link {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&pair).copied().unwrap_or_default()
    }
}

/// The shaper. It ends when it is dropped, and with it all that goes between the nodes.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Network {
    /// Puts itself between the nodes of a cluster that was made and not started yet, by editing the layout that each of them reads.
    /// `seed` decides which packets are lost.
    ///
    /// # Panics
    /// If there are no sockets to be had, or the layouts are not as `quorate init` writes them.
    #[must_use]
    pub fn between(cluster: &Cluster, nodes: u16, seed: u64) -> Network {
        let own = |number: u16| -> SocketAddr {
            let address = cluster.address(number);
            address.parse().expect("a node's address is numeric")
        };
        let fronts: BTreeMap<u16, Arc<UdpSocket>> =
            (1..=nodes).map(|number| (number, socket())).collect();
        for number in 1..=nodes {
            advertise(cluster, number, &fronts);
        }
        let shared = Arc::new(Shared::default());
        let mut entries = Vec::new();
        for (to, front) in &fronts {
            let mut ways = BTreeMap::new();
            for from in (1..=nodes).filter(|from| from != to) {
                let back = socket();
                let there = Way {
                    pair: (from, *to),
                    exit: Arc::clone(&back),
                    to: own(*to),
                };
                let again = Way {
                    pair: (*to, from),
                    exit: Arc::clone(front),
                    to: own(from),
                };
                ways.insert(own(from), there);
                entries.push((back, BTreeMap::from([(own(*to), again)])));
            }
            entries.push((Arc::clone(front), ways));
        }
        let threads = entries.into_iter().enumerate().map(|(at, (entry, ways))| {
            let shared = Arc::clone(&shared);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(at as u64);
            thread::spawn(move || pass_on(&shared, &entry, &ways, &mut rng))
        });
        Network {
            threads: threads.collect(),
            shared,
        }
    }

    /// Sets what happens to packets from one node to another.
    pub fn set(&self, from: u16, to: u16, link: Link) {
        let mut links = self.links();
        links.insert((from, to), link);
    }

    /// Makes every link perfect. What was held back still arrives.
    pub fn mend(&self) {
        self.links().clear();
    }

    /// How many packets were passed on, and how many were lost on purpose.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.shared.passed), count(&self.shared.lost))
    }

    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<Pair, Link>> {
        let links = self.shared.links.lock();
        links.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn socket() -> Arc<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free UDP port");
    // Where the system allows less, it takes what it allows.
    let _ = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
    let _ = SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER);
    Arc::new(socket)
}

/// Writes the fronts into the layout of one node. Each reads the same.
fn advertise(cluster: &Cluster, number: u16, fronts: &BTreeMap<u16, Arc<UdpSocket>>) {
    let path = cluster
        .dir()
        .join(format!("cluster/node-{number}/layout.json"));
    let text = fs::read_to_string(&path).expect("init wrote a layout for each node");
    let mut layout: Json = serde_json::from_str(&text).expect("a layout is JSON");
    for node in layout["nodes"].as_array_mut().expect("a layout has nodes") {
        let id = node["id"].as_str().expect("a node has an id");
        let id = u16::from_str_radix(id, 16).expect("nodes are numbered from 1");
        let front = fronts[&id].local_addr().expect("it is bound");
        node["quic"] = front.to_string().into();
    }
    fs::write(&path, layout.to_string()).expect("the layout is ours");
}

/// Where the packets of one sender go.
#[derive(Debug)]
struct Way {
    pair: Pair,
    exit: Arc<UdpSocket>,
    to: SocketAddr,
}

/// A packet that is held back: until when, the how manieth it is, whose, and its bytes.
type Held = (Instant, u64, SocketAddr, Vec<u8>);

/// Takes what comes to one socket and passes it on, until the network ends.
fn pass_on(
    shared: &Shared,
    entry: &UdpSocket,
    ways: &BTreeMap<SocketAddr, Way>,
    rng: &mut ChaCha8Rng,
) {
    let mut buffer = vec![0; 1 << 16];
    // The one that is due first is on top; of two, that which came first.
    let mut held: BinaryHeap<Reverse<Held>> = BinaryHeap::new();
    let mut count = 0;
    while !shared.ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        while let Some(Reverse((due, _, _, _))) = held.peek()
            && *due <= now
        {
            let Reverse((_, _, from, packet)) = held.pop().expect("there is one");
            send(&ways[&from], &packet);
        }
        let patience = held.peek().map_or(LISTEN, |Reverse((due, ..))| {
            // None at all would mean to wait for ever.
            (*due - now).clamp(Duration::from_millis(1), LISTEN)
        });
        entry
            .set_read_timeout(Some(patience))
            .expect("a time-out above zero");
        // Errors are the time-out's, or of packets sent before to a node that was not there.
        let Ok((length, from)) = entry.recv_from(&mut buffer) else {
            continue;
        };
        let Some(way) = ways.get(&from) else {
            continue;
        };
        let link = shared.link(way.pair);
        if link.cut || rng.random_bool(link.loss) || held.len() >= HELD_MAX {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        shared.passed.fetch_add(1, Ordering::Relaxed);
        let longer = link.delay + link.jitter.mul_f64(rng.random());
        if longer.is_zero() {
            send(way, &buffer[..length]);
        } else {
            count += 1;
            let due = Instant::now() + longer;
            held.push(Reverse((due, count, from, buffer[..length].to_vec())));
        }
    }
}

fn send(way: &Way, packet: &[u8]) {
    // A packet that cannot be sent is lost, as packets are.
    let _ = way.exit.send_to(packet, way.to);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends numbered packets until one arrives; the number of what arrived.
    fn arrives(from: &UdpSocket, to: SocketAddr, at: &UdpSocket, text: &str) -> bool {
        at.set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut buffer = [0; 64];
        (0..10).any(|_| {
            from.send_to(text.as_bytes(), to).unwrap();
            matches!(at.recv_from(&mut buffer), Ok((length, _)) if &buffer[..length] == text.as_bytes())
        })
    }

    #[test]
    fn each_direction_is_a_link_of_its_own() {
        let [one, two] = [socket(), socket()];
        let address = |socket: &UdpSocket| socket.local_addr().unwrap();
        let [front, back] = [socket(), socket()];
        let way = |pair, exit: &Arc<UdpSocket>, to| Way {
            pair,
            exit: Arc::clone(exit),
            to,
        };
        let there = BTreeMap::from([(address(&one), way((1, 2), &back, address(&two)))]);
        let again = BTreeMap::from([(address(&two), way((2, 1), &front, address(&one)))]);
        let shared = Arc::new(Shared::default());
        let threads =
            [(Arc::clone(&front), there), (Arc::clone(&back), again)].map(|(entry, ways)| {
                let shared = Arc::clone(&shared);
                let mut rng = ChaCha8Rng::seed_from_u64(1);
                thread::spawn(move || pass_on(&shared, &entry, &ways, &mut rng))
            });
        let network = Network {
            shared,
            threads: threads.into(),
        };
        assert!(arrives(&one, address(&front), &two, "there"));
        assert!(arrives(&two, address(&back), &one, "back"));
        let cut = Link {
            cut: true,
            ..Link::default()
        };
        network.set(1, 2, cut);
        assert!(!arrives(&one, address(&front), &two, "cut"));
        assert!(arrives(&two, address(&back), &one, "back again"));
        network.set(
            1,
            2,
            Link {
                delay: Duration::from_millis(20),
                jitter: Duration::from_millis(20),
                ..Link::default()
            },
        );
        assert!(arrives(&one, address(&front), &two, "slow"));
        network.mend();
        assert!(arrives(&one, address(&front), &two, "mended"));
        assert!(network.counts().1 >= 10, "{:?}", network.counts());
    }
}
