//! How a run ends: each key is read from all replicas, and then they are compared.

use super::*;

impl World {
    /// The last: each key is read from all replicas, which repairs them, and then they are compared.
    pub(crate) fn at_rest(&mut self) -> Vec<(String, Vec<u64>)> {
        let mut shown = Vec::new();
        // Before any read has repaired what listings have to decide.
        let mut listed = self.list_all(Quorum::All);
        self.run_for(SETTLE_US);
        if listed.is_none() {
            // What a listing repairs is written, and a sync that was yet to fail does: that disk is replaced by now.
            listed = self.list_all(Quorum::All);
        }
        self.check_hints_are_gone();
        self.run_for(CONVERGE_US);
        if listed.is_none() {
            // Who has lost state lists nothing until it is refilled.
            listed = self.list_all(Quorum::All);
        }
        // Before any read has repaired anything.
        for key in self.workload.keys.clone() {
            self.compare_replicas(&key);
        }
        self.check_nothing_is_left();
        for key in self.workload.keys.clone() {
            self.read_all(&key);
            self.run_for(SETTLE_US);
            match self.read_all(&key) {
                Some(values) => shown.push((key.clone(), values)),
                None => self.violations.push(format!(
                    "key {key}: the healed cluster does not answer a read of all replicas"
                )),
            }
            self.compare_replicas(&key);
        }
        let live = shown.iter().filter(|(_, values)| !values.is_empty());
        let live: Vec<String> = live.map(|(key, _)| key.clone()).collect();
        let again = self.list_all(Quorum::Majority);
        for listed in [listed, again] {
            if listed.as_ref() != Some(&live) {
                self.violations.push(format!(
                    "at rest a listing shows {listed:?}, and the keys with values are {live:?}"
                ));
            }
        }
        self.run_for(SETTLE_US);
        self.check_status_answered();
        self.check_all_fall_idle();
        // One that is in no layout hears of changes, and nobody asks it for what it has heard.
        let members = self.layout.nodes().iter().map(|n| n.id.0 as usize);
        let tables: Vec<_> = members
            .filter_map(|i| self.slots[i].node.as_ref())
            .map(|node| node.buckets())
            .collect();
        if tables.windows(2).any(|pair| pair[0] != pair[1]) {
            self.violations
                .push(format!("at rest the tables of buckets differ: {tables:?}"));
        }
        shown
    }

    /// Each node has nothing under way some time. Not all at once: an exchange or a round of upkeep may be, at any one of them.
    fn check_all_fall_idle(&mut self) {
        for i in 0..self.slots.len() {
            let is_idle = |world: &World| {
                let node = world.slots[i].node.as_ref();
                node.is_none_or(Node::is_idle)
            };
            let until = self.now + SETTLE_US;
            while self.now < until && !is_idle(self) {
                self.run_for(LOOK_US);
            }
            if let Some(node) = self.slots[i].node.as_ref().filter(|_| !is_idle(self)) {
                self.violations.push(format!(
                    "node {i} is at rest with {} requests under way, or waits for something",
                    node.in_flight()
                ));
            }
        }
    }

    /// Exchanges have made replicas equal, and evidence is collected.
    fn check_nothing_is_left(&mut self) {
        let mut seen = BTreeMap::new();
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let Some(node) = &mut slot.node else {
                continue;
            };
            let left = node.upkeep_left();
            if !left.is_empty() {
                seen.insert(i, left);
            }
        }
        for (i, left) in seen {
            self.violations
                .push(format!("node {i} is at rest and {left}"));
        }
    }

    /// All owners are back, so that nothing is kept for anybody any more.
    fn check_hints_are_gone(&mut self) {
        for (i, slot) in self.slots.iter().enumerate() {
            let Some(node) = &slot.node else {
                continue;
            };
            let counted = node.pending_hints();
            let rows = node.storage().scan(Family::Hints, &[], None, usize::MAX);
            let rows = rows.map_or(usize::MAX, |rows| rows.len());
            if !counted.is_empty() || rows > 0 {
                self.violations.push(format!(
                    "node {i} is at rest with {rows} hints, and counts {counted:?}"
                ));
            }
        }
    }

    /// The whole bucket, in pages of two keys, each from another node; `None` if a page was refused or never came.
    fn list_all(&mut self, r: Quorum) -> Option<Vec<String>> {
        let mut keys = Vec::new();
        let mut after = None;
        loop {
            let request = Request::List(List {
                bucket: BUCKET.to_owned(),
                prefix: String::new(),
                after,
                limit: 2,
                options: Options {
                    r: Some(r),
                    ..Options::default()
                },
            });
            let Answer::Listed(listing) = self.own(request)? else {
                return None;
            };
            keys.extend(listing.keys);
            match listing.next {
                Some(next) => after = Some(next),
                None => return Some(keys),
            }
        }
    }

    /// Asks some node, and lets the world go on until it answers.
    fn own(&mut self, request: Request) -> Option<Answer> {
        let caller = OWN_CALLERS + self.sequence;
        let node = self.rng.random_range(0..self.slots.len());
        let ask = Happening::Ask {
            node,
            epoch: self.slots[node].epoch,
            caller: Caller(caller),
            header: Header::default(),
            request: Box::new(request),
        };
        self.plan(0, ask);
        let until = self.now + SETTLE_US;
        while self.now < until && !self.own_answers.contains_key(&caller) {
            self.run_for(LOOK_US);
        }
        self.own_answers.remove(&caller)
    }

    pub(super) fn read_all(&mut self, key: &str) -> Option<Vec<u64>> {
        let caller = OWN_CALLERS + self.sequence;
        let request = Request::Get(Get {
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            options: Options {
                r: Some(Quorum::All),
                ..Options::default()
            },
        });
        let node = self.rng.random_range(0..self.slots.len());
        let epoch = self.slots[node].epoch;
        let ask = Happening::Ask {
            node,
            epoch,
            caller: Caller(caller),
            header: Header::default(),
            request: Box::new(request),
        };
        self.plan(0, ask);
        self.run_for(SETTLE_US);
        match self.own_answers.remove(&caller)? {
            Answer::Found { siblings, .. } => Some(
                siblings
                    .iter()
                    .filter_map(|s| std::str::from_utf8(&s.value.data).ok()?.parse().ok())
                    .collect(),
            ),
            Answer::Absent => Some(Vec::new()),
            other => {
                self.violations.push(format!(
                    "key {key}: at rest, a read of all replicas gave {other:?}"
                ));
                None
            }
        }
    }

    pub(super) fn compare_replicas(&mut self, key: &str) {
        let mut first: Option<(usize, Vec<Dot>)> = None;
        for seat in self.seats_of(key) {
            let Some(node) = &self.slots[seat].node else {
                continue;
            };
            let record = match node.stored(BUCKET, key).map(|b| Record::decode(&b)) {
                None => Record::new(),
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    self.violations.push(format!(
                        "key {key}: node {seat} holds a record that is {error}"
                    ));
                    continue;
                }
            };
            let dots: Vec<Dot> = record.live().iter().map(|s| s.span.dot).collect();
            let dead_ms = self.clock_ms(seat) - (SKEW_US + SWEEP_US) / 1_000;
            for span in record.expired(dead_ms) {
                self.violations.push(format!(
                    "key {key}: at rest node {seat} keeps {} that is dead",
                    span.dot
                ));
            }
            let clock = node.clock_of(BUCKET, key).unwrap_or_default();
            for dot in dots.iter().filter(|d| !clock.contains(**d)) {
                self.violations.push(format!(
                    "key {key}: node {seat} holds {dot} and its clock does not"
                ));
            }
            match &first {
                None => first = Some((seat, dots)),
                Some((other, theirs)) if *theirs != dots => self.violations.push(format!(
                    "key {key}: at rest node {other} holds {theirs:?} and node {seat} {dots:?}"
                )),
                Some(_) => {}
            }
        }
    }

    pub(super) fn seats_of(&self, key: &str) -> Vec<usize> {
        self.seats_of_partition(self.layout.partition_of(BUCKET, key.as_bytes()))
    }

    pub(super) fn seats_of_partition(&self, partition: quorate_ring::Partition) -> Vec<usize> {
        // Those of every layout that any node goes by.
        let mut seats = Vec::new();
        for layout in self.layouts().iter().rev() {
            for seat in World::seats_in(layout, partition) {
                if !seats.contains(&seat) {
                    seats.push(seat);
                }
            }
        }
        seats
    }
}
