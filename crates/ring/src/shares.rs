//! How many seats each node of a region gets.
//!
//! # The zone rule
//!
//! A partition's copies are spread over the region's zones as evenly as the number of nodes in each
//! zone allows, weights notwithstanding: with `c` the least number for which `sum of min(c, nodes in
//! zone)` reaches the copies, every zone holds at least `min(c - 1, nodes in zone)` and at most `min(c,
//! nodes in zone)` of them. So three copies in three or more zones never share one; in two zones they
//! stand 2 and 1; four in two zones stand 2 and 2, and never 3 and 1, which one zone's loss would leave
//! with a single copy. A zone that is small in weight therefore bears more than its share: safety
//! first, balance within it.
//!
//! # Shares
//!
//! Under that rule, and with no node twice in a partition, the highest number of seats per weight is
//! made as small as possible, then the next highest, and so on (lexicographic min-max). The peak alone
//! would not do: where one small zone sets it, nothing would make the other zones share evenly.
//!
//! No search over placements is needed for the counts. If every partition were dealt the same fraction of
//! every node, any counts within the bounds below would be met; and a flow with whole capacities that has a
//! fractional solution has a whole one. So counts can be realised exactly when
//!
//! * no node has more seats than there are partitions,
//! * every zone's sum lies between its two bounds times the partitions, and
//! * the sum over all is the copies times the partitions.
//!
//! Such bounds, nested in one another, form a polymatroid, and on those the greedy method is optimal
//! (Federgruen and Groenevelt 1986, "The greedy procedure for resource allocation problems"): give seat
//! after seat to the node that has the least seats per weight after it.

/// One node, as far as dealing seats is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The node's id: it breaks ties, so that a layout does not depend on any order of the nodes.
    pub(crate) id: u64,
    /// At least 1.
    pub(crate) weight: u32,
    /// Its zone, counted from 0 within the region.
    pub(crate) zone: usize,
}

/// How many copies of one partition each zone holds at least and at most (see the zone rule).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneBounds {
    pub(crate) least: Vec<usize>,
    pub(crate) most: Vec<usize>,
}

impl ZoneBounds {
    /// The most even spread of `copies` over zones of these many nodes, at most as many copies as nodes.
    pub(crate) fn of(members: &[Member], copies: usize) -> ZoneBounds {
        assert!(copies <= members.len(), "more copies than nodes");
        let zones = members.iter().map(|member| member.zone + 1).max();
        let mut nodes = vec![0; zones.unwrap_or(0)];
        for member in members {
            nodes[member.zone] += 1;
        }
        let held = |c: usize| nodes.iter().map(|&n| c.min(n)).collect::<Vec<_>>();
        let c = (1..=copies)
            .find(|&c| held(c).iter().sum::<usize>() >= copies)
            .expect("one copy a node suffices");
        ZoneBounds {
            least: held(c - 1),
            most: held(c),
        }
    }
}

/// A node may be off its fair number by one part in so many, or by one seat, if only moves would
/// correct it. Without slack a change of one weight would move seats to and fro for mere rounding; 5 %
/// is what the balance of a layout is allowed to cost anywhere, and most of it stays unused.
const SLACK: u32 = 20;

/// The seats of each node of a region, by its position among the members.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    /// The fairest whole numbers.
    pub(crate) fair: Vec<u32>,
    /// The least a node may be left with: its fair number less the slack.
    pub(crate) least: Vec<u32>,
    /// The most a node may be left with: its fair number and the slack, but never more seats per weight
    /// than the fair dealing's peak. So the region's peak is the optimum, always.
    pub(crate) most: Vec<u32>,
}

impl Shares {
    pub(crate) fn of(
        members: &[Member],
        bounds: &ZoneBounds,
        partitions: usize,
        copies: usize,
    ) -> Shares {
        let mut deal = Deal {
            members,
            partitions,
            seats: vec![0; members.len()],
            in_zone: vec![0; bounds.most.len()],
            dealt: 0,
        };
        // What each zone must hold comes first, whatever its load; then the rest, to whoever is least
        // loaded and may have more.
        let floors: Vec<usize> = bounds.least.iter().map(|n| n * partitions).collect();
        let ceilings: Vec<usize> = bounds.most.iter().map(|n| n * partitions).collect();
        while let Some(member) = deal.least_loaded(&floors) {
            deal.give(member);
        }
        while deal.dealt < partitions * copies {
            let member = deal
                .least_loaded(&ceilings)
                .expect("the zones' ceilings hold every copy");
            deal.give(member);
        }

        let fair = deal.seats;
        let peak = fair
            .iter()
            .zip(members)
            .map(|(&seats, member)| Ratio(seats, member.weight))
            .reduce(|a, b| if a.less(b) { b } else { a })
            .expect("a region has nodes");
        let slack = |seats: u32| (seats / SLACK).max(1);
        let least = fair
            .iter()
            .map(|&seats| seats.saturating_sub(slack(seats)))
            .collect();
        let most = fair
            .iter()
            .zip(members)
            .map(|(&seats, member)| {
                let within_peak = peak.of(member.weight).min(partitions as u64);
                u64::from(seats + slack(seats)).min(within_peak) as u32
            })
            .collect();
        Shares { fair, least, most }
    }
}

/// Seats per weight, compared without rounding.
#[derive(Clone, Copy)]
struct Ratio(u32, u32);

impl Ratio {
    fn less(self, other: Ratio) -> bool {
        u64::from(self.0) * u64::from(other.1) < u64::from(other.0) * u64::from(self.1)
    }

    /// The most seats that a node of this weight may have without exceeding the ratio.
    fn of(self, weight: u32) -> u64 {
        u64::from(self.0) * u64::from(weight) / u64::from(self.1)
    }
}

/// Seats while they are dealt.
struct Deal<'a> {
    members: &'a [Member],
    partitions: usize,
    seats: Vec<u32>,
    in_zone: Vec<usize>,
    dealt: usize,
}

impl Deal<'_> {
    /// The node with the least seats per weight after one more, among those that may have one more while
    /// their zone stays within `limits`. The first of equals, that is the one with the lowest id.
    fn least_loaded(&self, limits: &[usize]) -> Option<usize> {
        let mut best: Option<(Ratio, usize)> = None;
        for (at, member) in self.members.iter().enumerate() {
            if self.in_zone[member.zone] >= limits[member.zone]
                || self.seats[at] as usize >= self.partitions
            {
                continue;
            }
            let after = Ratio(self.seats[at] + 1, member.weight);
            if best.is_none_or(|(least, _)| after.less(least)) {
                best = Some((after, at));
            }
        }
        best.map(|(_, at)| at)
    }

    fn give(&mut self, member: usize) {
        self.seats[member] += 1;
        self.in_zone[self.members[member].zone] += 1;
        self.dealt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(nodes: &[(u32, usize)]) -> Vec<Member> {
        nodes
            .iter()
            .enumerate()
            .map(|(id, &(weight, zone))| Member {
                id: id as u64,
                weight,
                zone,
            })
            .collect()
    }

    fn bounds(nodes_in_zones: &[usize], copies: usize) -> (Vec<usize>, Vec<usize>) {
        let nodes: Vec<(u32, usize)> = nodes_in_zones
            .iter()
            .enumerate()
            .flat_map(|(zone, &nodes)| vec![(1, zone); nodes])
            .collect();
        let bounds = ZoneBounds::of(&members(&nodes), copies);
        (bounds.least, bounds.most)
    }

    #[test]
    fn copies_spread_as_evenly_as_the_zones_nodes_allow() {
        assert_eq!(bounds(&[3], 3), (vec![2], vec![3]));
        assert_eq!(bounds(&[3, 3], 3), (vec![1, 1], vec![2, 2]));
        assert_eq!(bounds(&[1, 5], 3), (vec![1, 1], vec![1, 2]));
        assert_eq!(bounds(&[4, 4], 4), (vec![1, 1], vec![2, 2]));
        assert_eq!(bounds(&[2, 2, 2, 2], 3), (vec![0; 4], vec![1; 4]));
        assert_eq!(bounds(&[1, 1, 9], 5), (vec![1, 1, 2], vec![1, 1, 3]));
        assert_eq!(bounds(&[2, 2, 2, 2], 5), (vec![1; 4], vec![2; 4]));
    }

    fn fair(nodes: &[(u32, usize)], partitions: usize, copies: usize) -> Vec<u32> {
        let members = members(nodes);
        let bounds = ZoneBounds::of(&members, copies);
        Shares::of(&members, &bounds, partitions, copies).fair
    }

    #[test]
    fn shares_follow_weights_within_the_zone_rule() {
        assert_eq!(
            fair(&[(1, 0), (2, 0), (3, 0), (6, 0)], 64, 1),
            [5, 11, 16, 32]
        );
        // No node holds a partition twice: weights 1, 1, 2 with three copies are equal shares.
        assert_eq!(fair(&[(1, 0), (1, 0), (2, 0)], 64, 3), [64, 64, 64]);
        // The first zone has one small node and must bear a third; the others share the rest by weight.
        assert_eq!(
            fair(&[(1, 0), (10, 1), (30, 1), (20, 2), (20, 2)], 64, 3),
            [64, 16, 48, 32, 32]
        );
        // More zones than copies: the heavy zone stops at one copy of every partition.
        assert_eq!(
            fair(&[(90, 0), (90, 0), (10, 1), (10, 2), (10, 3)], 60, 2),
            [30, 30, 20, 20, 20]
        );
    }

    #[test]
    fn bounds_enclose_the_fair_numbers() {
        let members = members(&[(7, 0), (5, 0), (3, 1), (9, 1), (100, 2)]);
        let bounds = ZoneBounds::of(&members, 3);
        let shares = Shares::of(&members, &bounds, 256, 3);
        for at in 0..members.len() {
            assert!(shares.least[at] <= shares.fair[at] && shares.fair[at] <= shares.most[at]);
        }
    }
}
