//! Which seats: the partitions of each node of one region.
//!
//! A flow from a source through partitions, through the zones of each partition, to nodes, to a sink. A
//! partition's zones receive their least copies directly and share the rest; a node passes on at most
//! its share. Whole flows of full strength are exactly the placements that obey the zone rule and the
//! shares. A seat that a node has today costs nothing and a new one costs one, so the cheapest full
//! flow moves the fewest seats: not nearly the fewest, but the minimum for these shares.
//!
//! The very first placement is the same computation, following a draft dealt by turns instead of an
//! older layout. The draft breaks ties by a hash, so that nodes meet in many combinations: when one
//! is lost, its load falls on all others and not on the same two everywhere.

use crate::arrange::{self, Seat};
use crate::flow::Network;
use crate::shares::{Member, Shares, ZoneBounds};

/// One region's seats to be dealt.
pub(crate) struct Region {
    pub(crate) partitions: usize,
    /// Seats of each partition, at most as many as there are members.
    pub(crate) copies: usize,
    /// Sorted by id.
    pub(crate) members: Vec<Member>,
    /// Each partition's list in the layout to follow, by position among the members; `None` is a seat
    /// of a node that has left. Empty if there is none to follow.
    pub(crate) previous: Vec<Vec<Option<usize>>>,
}

impl Region {
    /// The ordered list of each partition, by position among the members.
    pub(crate) fn assign(&self) -> Vec<Vec<usize>> {
        let bounds = ZoneBounds::of(&self.members, self.copies);
        let mut shares = Shares::of(&self.members, &bounds, self.partitions, self.copies);
        let lists = if self.previous.is_empty() {
            // Nothing stands yet that could be spared a move, so there is no reason to be less than fair.
            shares.least.clone_from(&shares.fair);
            shares.most.clone_from(&shares.fair);
            let draft = self.draft(&bounds, &shares.fair);
            let sets = self.follow(&bounds, &shares, &draft);
            let deal = |set: Vec<usize>| {
                let free = |member| Seat::free(member);
                set.into_iter().map(free).collect()
            };
            sets.into_iter().map(deal).collect()
        } else {
            let kept: Vec<Vec<usize>> = self
                .previous
                .iter()
                .map(|list| list.iter().copied().flatten().collect())
                .collect();
            let sets = self.follow(&bounds, &shares, &kept);
            self.reseat(sets)
        };
        arrange::arrange(&self.members, &bounds, lists)
    }

    /// A first placement that obeys the zone rule and nearly the shares: partition by partition, whoever
    /// is furthest behind the number of seats due by then.
    fn draft(&self, bounds: &ZoneBounds, fair: &[u32]) -> Vec<Vec<usize>> {
        let mut dealt = vec![0_i64; self.members.len()];
        let mut draft = Vec::with_capacity(self.partitions);
        for partition in 0..self.partitions {
            let mut by_need: Vec<usize> = (0..self.members.len()).collect();
            by_need.sort_by_cached_key(|&v| {
                let due = i64::from(fair[v]) * (partition as i64 + 1);
                let behind = due - dealt[v] * self.partitions as i64;
                (-behind, mix(partition, self.members[v].id))
            });
            let mut list = Vec::with_capacity(self.copies);
            let mut in_zone = vec![0; bounds.most.len()];
            for limits in [&bounds.least, &bounds.most] {
                for &v in &by_need {
                    let zone = self.members[v].zone;
                    if list.len() < self.copies
                        && in_zone[zone] < limits[zone]
                        && !list.contains(&v)
                    {
                        in_zone[zone] += 1;
                        dealt[v] += 1;
                        list.push(v);
                    }
                }
            }
            draft.push(list);
        }
        draft
    }

    /// The sets of nodes that obey the zone rule and the shares, with the fewest seats that are not in
    /// `kept`.
    fn follow(&self, bounds: &ZoneBounds, shares: &Shares, kept: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let zones = bounds.most.len();
        let nodes = self.members.len();
        let total = self.partitions * self.copies;
        // A node's least seats come before any thought of moves: one more short costs more than moving
        // every seat of the region.
        let shortfall = total as i64 + 1;

        const SOURCE: usize = 0;
        const SINK: usize = 1;
        let node = |v: usize| 2 + v;
        let partition = |p: usize| 2 + nodes + p * (zones + 1);
        let zone_of = |p: usize, z: usize| partition(p) + 1 + z;
        let mut network = Network::new(partition(self.partitions));

        for v in 0..nodes {
            network.arc(node(v), SINK, shares.least[v], 0);
            network.arc(node(v), SINK, shares.most[v] - shares.least[v], shortfall);
        }
        let any_zone = self.copies - bounds.least.iter().sum::<usize>();
        let mut seats = Vec::with_capacity(self.partitions * nodes);
        for (p, kept) in kept.iter().enumerate() {
            network.arc(SOURCE, partition(p), any_zone as u32, 0);
            for z in 0..zones {
                let (least, most) = (bounds.least[z], bounds.most[z]);
                network.arc(SOURCE, zone_of(p, z), least as u32, 0);
                network.arc(partition(p), zone_of(p, z), (most - least) as u32, 0);
            }
            let mut order: Vec<usize> = (0..nodes).collect();
            order.sort_by_cached_key(|&v| mix(p, self.members[v].id));
            for v in order {
                let cost = i64::from(!kept.contains(&v));
                let arc = network.arc(zone_of(p, self.members[v].zone), node(v), 1, cost);
                seats.push((p, v, arc));
            }
        }

        let sent = network.run(SOURCE, SINK);
        assert_eq!(sent, total as u64, "shares that a placement exists for");
        let mut sets = vec![Vec::with_capacity(self.copies); self.partitions];
        for (p, v, arc) in seats {
            if network.flow(arc) == 1 {
                sets[p].push(v);
            }
        }
        sets
    }

    /// Puts the sets in the order of the lists they follow: those who stay keep their seats, newcomers
    /// take the seats that became free.
    fn reseat(&self, sets: Vec<Vec<usize>>) -> Vec<Vec<Seat>> {
        let mut lists = Vec::with_capacity(sets.len());
        for (set, previous) in sets.into_iter().zip(&self.previous) {
            let mut new: Vec<usize> = set
                .iter()
                .copied()
                .filter(|&v| !previous.contains(&Some(v)))
                .collect();
            // Where lists become shorter more seats are left than are taken: the last stay empty.
            let mut list = Vec::with_capacity(self.copies);
            for &was in previous {
                match was {
                    Some(v) if set.contains(&v) => list.push(Seat::kept(v)),
                    _ if new.is_empty() => {}
                    _ => {
                        // The same zone if possible, so that the list's zones stay in turn.
                        let zone = was.map(|v| self.members[v].zone);
                        let at = new
                            .iter()
                            .position(|&v| Some(self.members[v].zone) == zone)
                            .unwrap_or(0);
                        list.push(Seat::taken(new.remove(at), was));
                    }
                }
            }
            list.extend(new.into_iter().map(Seat::free));
            lists.push(list);
        }
        lists
    }
}

/// A number that looks random and depends on its two inputs alone (the finaliser of SplitMix64, Steele, Lea
/// and Flood 2014). It only breaks ties, so a cryptographic hash would buy nothing.
fn mix(partition: usize, id: u64) -> u64 {
    let mut x = id ^ (partition as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}
