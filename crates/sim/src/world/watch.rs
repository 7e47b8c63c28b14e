//! What is checked while the cluster runs, from outside the nodes.

use quorate_protocol::ReplicaAccount;

use super::*;

impl World {
    /// Every record that travels is looked at: no dot may name two values, nor stand at two keys.
    pub(super) fn check_dots(&mut self, message: &Message) {
        let Message::Replica(_, _, ReplicaRequest::Merge(merge)) = message else {
            return;
        };
        let Ok(record) = Record::decode(&merge.record) else {
            self.violations
                .push("a record that was sent is none".to_owned());
            return;
        };
        for sibling in record.live() {
            let named = (merge.key.clone(), sibling.payload.clone(), sibling.expires);
            let known = self
                .dots
                .entry(sibling.span.dot)
                .or_insert_with(|| named.clone());
            if *known != named {
                let dot = sibling.span.dot;
                self.violations
                    .push(format!("dot {dot} names two writes: it was minted twice"));
            }
        }
    }

    /// The answer without its account, which must be there exactly if the client asked for one and the request was
    /// accepted, and must be of this request. `None` if there is no answer in it.
    pub(super) fn open_account(
        &mut self,
        client: usize,
        id: u64,
        answer: Answer,
    ) -> Option<Answer> {
        let busy = self.clients[client].busy.as_ref().filter(|op| op.id == id);
        let (asked, key) = (self.clients[client].explains, busy.map(|op| op.key.clone()));
        let Answer::Explained(explained) = answer else {
            let done = matches!(
                answer,
                Answer::Stored { .. } | Answer::Found { .. } | Answer::Absent | Answer::Deleted
            );
            if key.is_some() && asked && done {
                self.violations
                    .push(format!("operation {id} asked for an account and got none"));
            }
            return Some(answer);
        };
        let (answer, account) = match explained.open() {
            Ok(opened) => opened,
            Err(why) => {
                self.violations.push(format!("operation {id}: {why}"));
                return None;
            }
        };
        if let Some(key) = key {
            let replicas: Vec<String> = self
                .seats_of(&key)
                .into_iter()
                .map(|seat| format!("node-{seat}"))
                .collect();
            // Whoever stood in for one comes after them all.
            let primaries = account.replicas.iter();
            let primaries = primaries.take_while(|r| r.stands_in_for.is_none());
            let named: Vec<&String> = primaries.map(|r| &r.node).collect();
            let rest = &account.replicas[named.len()..];
            let stands_in = |r: &ReplicaAccount| {
                let is_other = !replicas.contains(&r.node);
                is_other
                    && r.stands_in_for
                        .as_ref()
                        .is_some_and(|p| replicas.contains(p))
            };
            let ascending = |r: &ReplicaAccount| r.steps.is_sorted_by_key(|s| s.at_us);
            // While the layout changes, those of both are named, and their order is not the simulator's to know.
            let knows = self.profile.changes;
            if !asked
                || (knows && replicas.iter().all(|r| !named.contains(&r)))
                || !knows
                    && (named != replicas.iter().collect::<Vec<_>>() || !rest.iter().all(stands_in))
                || !account.replicas.iter().all(ascending)
            {
                self.violations.push(format!(
                    "operation {id} got an account that is not its own: {account:?}"
                ));
            }
        }
        Some(answer)
    }

    /// An acknowledged write is on the disks of as many replicas as its client asked for, now and not a moment later: its
    /// value, or the removal of it, and the removal of what its client had seen. A copy that is counted too early is
    /// mostly there a moment later, so that what clients see would tell only if the power went in between.
    pub(super) fn check_copies(&mut self, client: usize, id: u64, answer: &Answer) {
        let Some(op) = self.clients[client].busy.as_ref().filter(|op| op.id == id) else {
            return;
        };
        let own = match (&op.kind, answer) {
            (Kind::Put, Answer::Stored { context }) => {
                let secret = ContextKey::new(&SECRET);
                let open = |generation| {
                    let bucket = BucketId::new(BUCKET, generation).0;
                    secret.open(bucket, op.key.as_bytes(), context)
                };
                // It stands in some life of the bucket.
                let latest = self.generation();
                match (0..=latest).find_map(|life| Some((life, open(life).ok()?))) {
                    // What stood in a life that is over may be gone from the disks by now.
                    Some((life, _)) if life < latest => return,
                    Some((_, context)) => context,
                    None => {
                        self.violations.push(format!(
                            "put {id} was answered with a context that does not open"
                        ));
                        return;
                    }
                }
            }
            // What else the key holds may have fewer copies.
            (Kind::Put, Answer::Found { .. } | Answer::Absent) => Context::default(),
            (Kind::Delete, Answer::Deleted) => Context::default(),
            _ => return,
        };
        // Under "os" a copy need not be on disk, and what was damaged or lost is not what was written.
        let is_lost = |loss: &Loss| loss.key.as_ref().is_none_or(|key| *key == op.key);
        if self.faults.os_durability || self.losses.iter().any(is_lost) {
            return;
        }
        // Nor is one that has ended by now.
        let may_have_ended = |(absent, _)| absent <= self.now || self.clocks_jumped;
        if op.ends.is_some_and(may_have_ended) {
            return;
        }
        let (key, w, pw) = (op.key.clone(), op.quorum.0, op.strict.0);
        let mut seen = op.seen.clone().unwrap_or_default();
        // What a write that read first must have found is removed, or was already.
        if op.reads_first() {
            let puts = self.history.iter().filter(|put| {
                let must_be_found = put.strict.0 + op.strict.1 > self.n;
                put.kind == Kind::Put
                    && put.key == op.key
                    && put.acknowledged()
                    && put.end < op.start
                    && must_be_found
            });
            seen.extend(puts.map(|put| put.id));
        }
        // What was seen in one life of the bucket need not be removed in the next.
        if self.drops() > 0 {
            seen.clear();
        }
        let mut removed: Vec<(Dot, bool)> = Vec::new();
        for (dot, (at, payload, expires)) in &self.dots {
            let value = decode_value(payload).ok().map(|v| v.data);
            let value = value.and_then(|v| std::str::from_utf8(&v).ok()?.parse::<u64>().ok());
            let was_seen = value.is_some_and(|value| seen.contains(&value));
            if was_seen && at == key.as_bytes() {
                removed.push((*dot, expires.is_some_and(|e| self.may_have_ended(e))));
            }
        }
        let seats = self.seats_of(&key);
        let generation = self.generation();
        let on_disk = |node: usize| self.on_disk(node, generation, &key);
        let on_seats: Vec<_> = seats.iter().map(|seat| on_disk(*seat)).collect();
        let is_live = |record: &Record, dot: Dot| record.live().iter().any(|s| s.span.dot == dot);
        // What was seen and is not live was removed, and its evidence forgotten.
        let is_removed = |(record, seen): &(Record, DotSet), dot: Dot| {
            record.evidence().contains(dot) || (seen.contains(dot) && !is_live(record, dot))
        };
        // What all primaries know to be removed need not be removed by what a fallback keeps.
        let everywhere = |dot: Dot| {
            let mut seats = on_seats.iter();
            seats.all(|seat| seat.as_ref().is_some_and(|on| is_removed(on, dot)))
        };
        let holds = |on: &(Record, DotSet)| {
            let is_removed = |dot: Dot| is_removed(on, dot) || everywhere(dot);
            // What had ended need not have been found, nor be removed: nobody shows it, wherever it still is.
            let gone = |(dot, ended): &(Dot, bool)| *ended || is_removed(*dot);
            let mut written = own.spans().iter().map(|s| s.dot);
            written.all(|dot| is_live(&on.0, dot) || is_removed(dot)) && removed.iter().all(gone)
        };
        let has = |node: &usize| on_disk(*node).is_some_and(|on| holds(&on));
        // Those that fallbacks keep for primaries are copies too.
        let holders: Vec<usize> = (0..self.slots.len()).filter(has).collect();
        let primaries = holders.iter().filter(|node| seats.contains(node)).count();
        let copies = holders.len();
        if copies < w || primaries < pw {
            self.violations.push(format!(
                "key {key}: operation {id} (w={w}, of them {pw} primaries) was acknowledged with {copies} copies on disk, \
                 {primaries} of them on primaries"
            ));
        }
    }

    /// The latest life of the bucket that any node knows of.
    fn generation(&self) -> u32 {
        let nodes = self.slots.iter().filter_map(|slot| slot.node.as_ref());
        let entries = nodes.flat_map(|node| node.buckets());
        entries.map(|entry| entry.generation).max().unwrap_or(0)
    }

    /// What would be left of a key on a node's disk, should the power go now.
    pub(super) fn on_disk(&self, i: usize, generation: u32, key: &str) -> Option<(Record, DotSet)> {
        let node = self.peek(i, &self.slots[i].disk);
        let mut all = Record::new();
        let stored = node.stored_in(BUCKET, generation, key);
        for bytes in stored
            .into_iter()
            .chain(node.hinted_in(BUCKET, generation, key))
        {
            all.merge(&Record::decode(&bytes).ok()?);
        }
        let seen = node.seen_of(BUCKET, generation, key).ok()?;
        Some((all, seen))
    }
}
