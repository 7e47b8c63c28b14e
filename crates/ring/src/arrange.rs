//! In which order: the list of each partition of one region.
//!
//! A bucket with fewer copies than the lists have uses a prefix of each, so order is placement too. Two
//! things are wanted of it. *Zones in turn*: a zone's second node comes after every zone's first, so
//! that a prefix uses as many zones as it has nodes, while there are zones. And *balance*: of its
//! seats a node has the same part among the first m places of the lists as every other, for each m, as
//! nearly as can be.
//!
//! Who kept a seat keeps its place in the list, for moving up or down moves data of the smaller
//! buckets. That leaves, beside the places of newcomers, one more freedom: where a node gave up seats
//! in some partitions, it could as well have given them up in others. It is used for balance, and
//! before that to spread the changes, so that no partition changes two of its replicas while another
//! changes none.
//!
//! So in a first layout the first places are within a few seats of proportion. After changes a node
//! leads, in the median of random histories, 3 to 4 % more lists than its part, and at worst some 70 %:
//! the price of not moving data, paid only by buckets with fewer copies than the lists.
//!
//! The method is a plain descent by exchanges, each of which leaves the seats of every node and the
//! number of moves as they are. It ends at a local optimum, or when its budget of trials is spent.

use crate::shares::{Member, ZoneBounds};

/// A place in a partition's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    member: usize,
    /// The member had this seat already and keeps its place.
    kept: bool,
    /// Who of the members had the seat before, if it was taken over.
    from: Option<usize>,
}

impl Seat {
    /// A seat that its node had and keeps.
    pub(crate) fn kept(member: usize) -> Seat {
        Seat {
            member,
            kept: true,
            from: None,
        }
    }

    /// A seat taken over, from another member or from a node that has left.
    pub(crate) fn taken(member: usize, from: Option<usize>) -> Seat {
        Seat {
            member,
            kept: false,
            from,
        }
    }

    /// A seat that is new.
    pub(crate) fn free(member: usize) -> Seat {
        Seat::taken(member, None)
    }
}

/// Trials for each partition, which bounds the time of a change: with the default 256 partitions to a
/// million trials, some ten milliseconds. Without a bound the passes grow with the square of the
/// partitions.
const TRIALS_PER_PARTITION: usize = 4096;

/// Orders the lists and returns their members.
pub(crate) fn arrange(
    members: &[Member],
    bounds: &ZoneBounds,
    lists: Vec<Vec<Seat>>,
) -> Vec<Vec<usize>> {
    let mut arrangement = Arrangement::new(members, bounds, lists);
    let mut trials = TRIALS_PER_PARTITION * arrangement.lists.len();
    if arrangement.lists.iter().flatten().any(|seat| seat.kept) {
        while arrangement.reorder() | arrangement.trade(&mut trials) {}
    } else {
        // Every order within the lists is open, which is all it takes.
        while arrangement.reorder() {}
    }
    arrangement
        .lists
        .into_iter()
        .map(|list| list.into_iter().map(|seat| seat.member).collect())
        .collect()
}

struct Arrangement<'a> {
    members: &'a [Member],
    bounds: &'a ZoneBounds,
    lists: Vec<Vec<Seat>>,
    copies: usize,
    /// Seats of each member in all lists.
    total: Vec<i64>,
    /// For each member and prefix length less one, short of the whole list: its seats within the prefix.
    within: Vec<i64>,
    /// Seats of each list that are not kept.
    changed: Vec<i64>,
}

impl<'a> Arrangement<'a> {
    fn new(members: &'a [Member], bounds: &'a ZoneBounds, lists: Vec<Vec<Seat>>) -> Self {
        let copies = lists.first().map_or(0, Vec::len);
        let mut arrangement = Arrangement {
            members,
            bounds,
            copies,
            total: vec![0; members.len()],
            within: vec![0; members.len() * copies],
            changed: Vec::with_capacity(lists.len()),
            lists: Vec::with_capacity(lists.len()),
        };
        for list in &lists {
            assert_eq!(list.len(), copies, "every partition has as many copies");
            for seat in list {
                arrangement.total[seat.member] += 1;
            }
        }
        for list in lists {
            let list = arrangement.in_turn(list);
            for (place, seat) in list.iter().enumerate() {
                arrangement.count(seat.member, place, copies, 1);
            }
            let changed = list.iter().filter(|seat| !seat.kept).count();
            arrangement.changed.push(changed as i64);
            arrangement.lists.push(list);
        }
        arrangement
    }

    fn zone(&self, seat: Seat) -> usize {
        self.members[seat.member].zone
    }

    /// The list with its zones in turn, otherwise in its order; a list with nothing kept has no order yet,
    /// and takes for each place whoever is furthest behind there.
    fn in_turn(&self, mut list: Vec<Seat>) -> Vec<Seat> {
        let fresh = list.iter().all(|seat| !seat.kept);
        let mut ordered: Vec<Seat> = Vec::with_capacity(list.len());
        while !list.is_empty() {
            let place = ordered.len();
            let turn = |seat: &Seat| {
                let zone = self.zone(*seat);
                ordered.iter().filter(|s| self.zone(**s) == zone).count()
            };
            let next = (0..list.len())
                .min_by(|&a, &b| {
                    let by_turn = turn(&list[a]).cmp(&turn(&list[b]));
                    by_turn.then_with(|| {
                        if !fresh {
                            return a.cmp(&b);
                        }
                        // Seats already within this prefix, relative to all the member's seats.
                        let (a, b) = (list[a].member, list[b].member);
                        let (x, y) = (self.prefix(a, place), self.prefix(b, place));
                        (x * self.total[b]).cmp(&(y * self.total[a]))
                    })
                })
                .expect("the list is not empty");
            ordered.push(list.remove(next));
        }
        ordered
    }

    fn prefix(&self, member: usize, place: usize) -> i64 {
        self.within[member * self.copies + place]
    }

    /// Adds `by` to the member's counts in every prefix that ends at places `from..to`.
    fn count(&mut self, member: usize, from: usize, to: usize, by: i64) {
        for place in from..to {
            self.within[member * self.copies + place] += by;
        }
    }

    /// By how much the sum of squared deviations changes if the member's counts change by `by`, one or
    /// minus one. A deviation is scaled by the copies, to stay whole.
    fn worth(&self, member: usize, from: usize, to: usize, by: i64) -> i64 {
        let copies = self.copies as i64;
        (from..to)
            .map(|place| {
                let due = self.total[member] * (place as i64 + 1);
                let deviation = copies * self.prefix(member, place) - due;
                2 * by * copies * deviation + copies * copies
            })
            .sum()
    }

    /// The change of deviation if the member at place `i` of some list and that at place `j` of the same
    /// or another change places.
    fn swap_worth(&self, (a, i): (usize, usize), (b, j): (usize, usize)) -> i64 {
        if i < j {
            self.worth(b, i, j, 1) + self.worth(a, i, j, -1)
        } else {
            self.worth(a, j, i, 1) + self.worth(b, j, i, -1)
        }
    }

    fn swap_counts(&mut self, (a, i): (usize, usize), (b, j): (usize, usize)) {
        if i < j {
            self.count(b, i, j, 1);
            self.count(a, i, j, -1);
        } else {
            self.count(a, j, i, 1);
            self.count(b, j, i, -1);
        }
    }

    /// Whether the list obeys the zone rule, with its zones in turn.
    fn lawful(&self, list: &[Seat]) -> bool {
        let turn = |place: usize| {
            let zone = self.zone(list[place]);
            list[..place]
                .iter()
                .filter(|s| self.zone(**s) == zone)
                .count()
        };
        let in_turn = (1..list.len()).all(|place| turn(place - 1) <= turn(place));
        let spread = (0..self.bounds.most.len()).all(|zone| {
            let held = list.iter().filter(|s| self.zone(**s) == zone).count();
            (self.bounds.least[zone]..=self.bounds.most[zone]).contains(&held)
        });
        in_turn && spread
    }

    /// Whether the list remains lawful with another member in one place.
    fn lawful_with(&mut self, p: usize, place: usize, member: usize) -> bool {
        let seat = self.lists[p][place];
        if self.members[member].zone == self.zone(seat) {
            return true;
        }
        let mut list = std::mem::take(&mut self.lists[p]);
        list[place].member = member;
        let lawful = self.lawful(&list);
        list[place] = seat;
        self.lists[p] = list;
        lawful
    }

    /// Swaps seats within one list where both are new, if that improves the balance. Whether it did.
    fn reorder(&mut self) -> bool {
        let mut improved = false;
        for p in 0..self.lists.len() {
            for i in 0..self.copies {
                for j in i + 1..self.copies {
                    let (x, y) = (self.lists[p][i], self.lists[p][j]);
                    if x.kept || y.kept || self.swap_worth((x.member, i), (y.member, j)) >= 0 {
                        continue;
                    }
                    let mut list = self.lists[p].clone();
                    (list[i].member, list[j].member) = (y.member, x.member);
                    // Who had the seat before says where a member may return to, and a member returns to
                    // its own place only: so it stays with the place, not with who took it.
                    if self.lawful(&list) {
                        self.swap_counts((x.member, i), (y.member, j));
                        self.lists[p] = list;
                        improved = true;
                    }
                }
            }
        }
        improved
    }

    /// Trades between two lists, if that spreads the changes or, at equal spread, improves the balance.
    /// Whether any did.
    fn trade(&mut self, trials: &mut usize) -> bool {
        let mut improved = false;
        for p in 0..self.lists.len() {
            for i in 0..self.copies {
                if self.lists[p][i].kept {
                    continue;
                }
                for q in 0..self.lists.len() {
                    for j in 0..self.copies {
                        if *trials == 0 {
                            return false;
                        }
                        *trials -= 1;
                        if q == p || self.lists[p][i].kept {
                            continue;
                        }
                        improved |= self.give_back((p, i), (q, j)) || self.exchange((p, i), (q, j));
                    }
                }
            }
        }
        improved
    }

    /// The taker of the seat at `(p, i)` gives it back and takes the same node's seat at `(q, j)` instead.
    fn give_back(&mut self, (p, i): (usize, usize), (q, j): (usize, usize)) -> bool {
        let (taken, other) = (self.lists[p][i], self.lists[q][j]);
        if !other.kept || taken.from != Some(other.member) || self.holds(q, taken.member) {
            return false;
        }
        let owner = other.member;
        let spread = self.changed[q] + 1 - self.changed[p];
        let worth = self.swap_worth((taken.member, i), (owner, j));
        if (spread, worth) >= (0, 0)
            || !self.lawful_with(p, i, owner)
            || !self.lawful_with(q, j, taken.member)
        {
            return false;
        }
        self.swap_counts((taken.member, i), (owner, j));
        self.lists[p][i] = Seat::kept(owner);
        self.lists[q][j] = Seat::taken(taken.member, Some(owner));
        self.changed[p] -= 1;
        self.changed[q] += 1;
        true
    }

    /// Two newcomers in different lists change places.
    fn exchange(&mut self, (p, i): (usize, usize), (q, j): (usize, usize)) -> bool {
        let (x, y) = (self.lists[p][i], self.lists[q][j]);
        if y.kept
            || i == j
            || x.member == y.member
            || self.swap_worth((x.member, i), (y.member, j)) >= 0
            || self.holds(p, y.member)
            || self.holds(q, x.member)
            || !self.lawful_with(p, i, y.member)
            || !self.lawful_with(q, j, x.member)
        {
            return false;
        }
        self.swap_counts((x.member, i), (y.member, j));
        self.lists[p][i].member = y.member;
        self.lists[q][j].member = x.member;
        true
    }

    fn holds(&self, p: usize, member: usize) -> bool {
        self.lists[p].iter().any(|seat| seat.member == member)
    }
}
