//! The table of buckets: what was created or dropped, how it joins, and what that means for a request.
//!
//! Every node has the whole table. It grows by joining entries (the greater wins, see [`BucketEntry`]), which come from
//! changes made here, from other nodes that made them, and from comparing tables: whenever a node comes in reach and from
//! time to time. A bucket that the table does not name exists all the same, with the defaults.
//!
//! *Invariant:* one life of a bucket has one replica set. A bucket created with another than the default begins a new
//! life, so that no id ever stands for records on two sets of replicas (rule R6).
//!
//! *Invariant (R11):* a replica that knows a later life of a bucket touches no record of an earlier one: it refuses, with
//! the entry. A change is acknowledged once so many replicas of each partition know it that no quorum is without one of
//! them. So a quorum cannot be found for a dropped life any more, whoever asks, however long he was away.
//!
//! *Invariant:* an entry that begins a life is taken, when it is proposed, only by a replica that knew no life as late. Else
//! two drops, one of which few nodes have heard of, could begin the same life, and what was put after the first would be
//! there after the second. As ids tell which life they are of, a replica knows of a life also from the writes to it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_protocol::{
    BUCKETS_MAX, BucketAction, BucketDescription, BucketEntry, BucketId, BucketKind, Lifetime,
    Properties, PropertyChanges, Quorum, REGIONS_MAX, Refusal,
};
use quorate_ring::{NodeId, ReplicaSet, ReplicaSetId};
use quorate_storage::{Batch, Family, Storage, StorageError};

use crate::config::{BucketDefaults, Config};
use crate::expiry;
use crate::keys;
use crate::layouts::Layouts;
use crate::placement::Placement;
use crate::tally::Requirement;

/// How many rows of the table are read at a time.
const PAGE: usize = 1024;

/// What a request on a bucket goes by.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Who holds its keys.
    pub(crate) placement: Arc<Placement>,
    /// Its quorums, where a request says nothing.
    pub(crate) defaults: BucketDefaults,
    /// The most siblings that a put may leave.
    pub(crate) siblings_max: usize,
    /// How long a value lives whose put does not say, in milliseconds.
    pub(crate) ttl_ms: Option<u64>,
}

#[derive(Debug)]
struct Known {
    entry: BucketEntry,
    id: BucketId,
    policy: Arc<Policy>,
}

/// The latest life known of a bucket.
#[derive(Debug)]
struct Life {
    /// Which it is.
    id: BucketId,
    /// Its bucket's name and replica set, if the table has its entry. If not, some coordinator knew it and wrote to it.
    entry: Option<(String, ReplicaSetId)>,
}

/// The table. See the [module](self).
pub(crate) struct Buckets {
    me: NodeId,
    defaults: BucketDefaults,
    siblings_max: usize,
    /// What a bucket has that the table does not name.
    implicit: Arc<Policy>,
    known: BTreeMap<String, Known>,
    /// The latest life known of each bucket that had more than one, or has an entry. By the id of the bucket's first life.
    lives: BTreeMap<BucketId, Life>,
    /// The seats for every replica set in use.
    placements: BTreeMap<ReplicaSetId, Arc<Placement>>,
    digest: u128,
}

impl Buckets {
    /// The table as it is stored.
    ///
    /// # Errors
    /// A sentence, if the defaults make no replica set or the stored table cannot be read.
    pub(crate) fn load(
        config: &Config,
        layouts: &Layouts,
        storage: &impl Storage,
    ) -> Result<Self, String> {
        let set = ReplicaSet::new(config.defaults.n, None).map_err(|e| e.to_string())?;
        let placement = Arc::new(Placement::new(layouts, &set, config.me));
        let mut buckets = Buckets {
            me: config.me,
            defaults: config.defaults.clone(),
            siblings_max: config.limits.siblings_max,
            implicit: Arc::new(Policy {
                placement: placement.clone(),
                defaults: config.defaults.clone(),
                siblings_max: config.limits.siblings_max,
                ttl_ms: None,
            }),
            known: BTreeMap::new(),
            lives: BTreeMap::new(),
            placements: BTreeMap::from([(set.id(), placement)]),
            digest: 0,
        };
        let mut failed = None;
        rows(storage, keys::BUCKETS, |_, row| {
            let set = BucketEntry::decode(row).and_then(|entry| buckets.set(entry, layouts));
            failed = failed.take().or(set.err());
        })
        .map_err(|e| e.to_string())?;
        rows(storage, keys::HEARD, |_, row| match row.try_into() {
            Ok(id) => buckets.hear(BucketId(id)),
            Err(_) => failed = Some("a row about a bucket's life is none".to_owned()),
        })
        .map_err(|e| e.to_string())?;
        if let Some(reason) = failed {
            return Err(reason);
        }
        let entries = buckets.known.values();
        buckets.digest = entries.fold(0, |all, known| all ^ part(&known.entry));
        Ok(buckets)
    }

    /// The id that a bucket's records have now, and what a request on it goes by.
    pub(crate) fn resolve(&self, name: &str) -> (BucketId, Arc<Policy>) {
        match self.known.get(name) {
            Some(known) => (known.id, known.policy.clone()),
            None => (BucketId::new(name, 0), self.implicit.clone()),
        }
    }

    /// What the table has of a bucket, or what it stands for by having nothing.
    pub(crate) fn entry(&self, name: &str) -> BucketEntry {
        match self.known.get(name) {
            Some(known) => known.entry.clone(),
            None => BucketEntry::implicit(name),
        }
    }

    /// Why records of this life may not be touched by way of this replica set, if so: the bucket has a later life, or
    /// another replica set.
    pub(crate) fn objection(&self, id: BucketId, set: ReplicaSetId) -> Option<Refusal> {
        let life = self.lives.get(&id.life(0))?;
        let right = life.entry.as_ref().is_none_or(|(_, right)| *right == set);
        match life.id.cmp(&id) {
            Ordering::Less => None,
            Ordering::Equal if right => None,
            _ => Some(match &life.entry {
                Some((name, _)) => Refusal::BucketChanged(Box::new(self.entry(name))),
                // It was dropped, and this node has yet to hear what it is now.
                None => Refusal::Unavailable {
                    needed: 1,
                    answered: 0,
                },
            }),
        }
    }

    /// Whether this is a later life than this node knew of.
    pub(crate) fn is_news(&self, id: BucketId) -> bool {
        let known = self.lives.get(&id.life(0));
        id.generation() > known.map_or(0, |life| life.id.generation())
    }

    /// Takes note of a life from a write to it.
    pub(crate) fn heard(&mut self, id: BucketId, batch: &mut Batch) {
        self.hear(id);
        batch.put(Family::Meta, keys::heard(id), id.0.to_vec());
    }

    fn hear(&mut self, id: BucketId) {
        if self.is_news(id) {
            self.lives.insert(id.life(0), Life { id, entry: None });
        }
    }

    /// The entry that a proposal has to top, if it does not: it would begin a life of which this node knows, or one before
    /// such a life; or it is not a later version than what is here, which somebody may have been told is so.
    pub(crate) fn too_late(&self, proposed: &BucketEntry) -> Option<BucketEntry> {
        let now = self.entry(&proposed.name);
        if now != *proposed
            && (now.generation, now.version) >= (proposed.generation, proposed.version)
        {
            return Some(now);
        }
        let known = self.lives.get(&proposed.id().life(0));
        let latest = known.map_or(0, |life| life.id.generation());
        (proposed.version == 0 && proposed.generation <= latest).then(|| {
            let mut entry = self.entry(&proposed.name);
            if entry.generation < latest {
                entry = BucketEntry {
                    generation: latest,
                    ..BucketEntry::implicit(&proposed.name)
                };
            }
            entry
        })
    }

    /// The seats for a replica set, if a bucket in the table has it.
    pub(crate) fn placement(&self, set: ReplicaSetId) -> Option<&Arc<Placement>> {
        self.placements.get(&set)
    }

    /// The seats for every replica set in use.
    pub(crate) fn placements(&self) -> impl Iterator<Item = &Arc<Placement>> {
        self.placements.values()
    }

    /// The buckets with this replica set, in quotes.
    pub(crate) fn named(&self, set: ReplicaSetId) -> Vec<String> {
        let known = self.known.values();
        let known = known.filter(|k| k.policy.placement.set() == set);
        known.map(|k| format!("'{}'", k.entry.name)).collect()
    }

    /// The layouts are others from here on.
    pub(crate) fn relocate(&mut self, layouts: &Layouts) {
        let me = self.me;
        for placement in self.placements.values_mut() {
            *placement = Arc::new(placement.under(layouts, me));
        }
        let placements = &self.placements;
        let move_policy = |policy: &mut Arc<Policy>| {
            let placement = placements[&policy.placement.set()].clone();
            let moved = Policy {
                placement,
                ..Policy::clone(policy)
            };
            *policy = Arc::new(moved);
        };
        move_policy(&mut self.implicit);
        for known in self.known.values_mut() {
            move_policy(&mut known.policy);
        }
    }

    /// The replica set of a life's records; `None` if it is not known, or that life is over.
    pub(crate) fn set_of(&self, id: BucketId) -> Option<ReplicaSetId> {
        match self.lives.get(&id.life(0)) {
            None => Some(self.implicit.placement.set()),
            Some(life) if life.id == id => life.entry.as_ref().map(|(_, set)| *set),
            Some(_) => None,
        }
    }

    /// Names the table's content: equal for equal tables.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    /// The whole table.
    pub(crate) fn entries(&self) -> Vec<BucketEntry> {
        self.known.values().map(|k| k.entry.clone()).collect()
    }

    /// The buckets that were created, by name.
    pub(crate) fn created(&self) -> Vec<BucketDescription> {
        let created = self.known.values();
        let created = created.filter(|k| k.entry.properties.is_some());
        created.map(|k| self.describe(&k.entry)).collect()
    }

    /// A bucket as it is told to clients.
    pub(crate) fn describe(&self, entry: &BucketEntry) -> BucketDescription {
        let given = entry.properties.clone().unwrap_or_default();
        let defaults = quorums(&given, &self.defaults);
        BucketDescription {
            name: entry.name.clone(),
            generation: entry.generation,
            version: entry.version,
            created: entry.properties.is_some(),
            kind: given.kind,
            n: defaults.n,
            regions: given.regions,
            r: defaults.r,
            w: defaults.w,
            pr: defaults.pr,
            pw: defaults.pw,
            dw: defaults.dw,
            sloppy: defaults.sloppy,
            max_siblings: given
                .max_siblings
                .unwrap_or(u32::try_from(self.siblings_max).unwrap_or(u32::MAX)),
            ttl_ms: given.ttl_ms,
        }
    }

    /// Joins an entry into the table and puts what changed into `batch`. Returns the life that began by it, if one did;
    /// `None` if the entry brought nothing new.
    ///
    /// # Errors
    /// A sentence, if the entry makes no sense under this layout.
    pub(crate) fn join(
        &mut self,
        entry: BucketEntry,
        layouts: &Layouts,
        batch: &mut Batch,
    ) -> Result<Option<Option<BucketId>>, String> {
        let before = self.entry(&entry.name);
        if entry <= before {
            return Ok(None);
        }
        if !self.known.contains_key(&entry.name) && self.known.len() >= BUCKETS_MAX {
            return Err(format!(
                "the table of buckets is full: it has {BUCKETS_MAX} entries"
            ));
        }
        let began = (entry.generation > before.generation).then(|| entry.id());
        let row = entry.encode();
        let at = keys::bucket(&entry.name);
        let was = self.known.get(&entry.name).map_or(0, |k| part(&k.entry));
        let is = part(&entry);
        self.set(entry, layouts)?;
        batch.put(Family::Meta, at, row);
        self.digest ^= was ^ is;
        Ok(Some(began))
    }

    fn set(&mut self, entry: BucketEntry, layouts: &Layouts) -> Result<(), String> {
        let given = entry.properties.clone().unwrap_or_default();
        let defaults = quorums(&given, &self.defaults);
        let set = ReplicaSet::new(defaults.n, given.regions).map_err(|e| e.to_string())?;
        let me = self.me;
        let placement = self
            .placements
            .entry(set.id())
            .or_insert_with(|| Arc::new(Placement::new(layouts, &set, me)))
            .clone();
        let id = entry.id();
        let life = Life {
            id,
            entry: Some((entry.name.clone(), set.id())),
        };
        match self.lives.get(&id.life(0)) {
            // What it is now, this node has yet to hear.
            Some(known) if known.id > id => {}
            _ => {
                self.lives.insert(id.life(0), life);
            }
        }
        let policy = Policy {
            placement,
            defaults,
            siblings_max: given
                .max_siblings
                .map_or(self.siblings_max, |most| most as usize),
            ttl_ms: given.ttl_ms,
        };
        let known = Known {
            id,
            policy: Arc::new(policy),
            entry,
        };
        self.known.insert(known.entry.name.clone(), known);
        Ok(())
    }

    /// What a change makes of a bucket that is so `now`.
    ///
    /// # Errors
    /// A refusal, if it contradicts what the bucket is, or can never work under this layout.
    pub(crate) fn changed(
        &self,
        now: BucketEntry,
        action: &BucketAction,
        layouts: &Layouts,
    ) -> Result<Proposal, Refusal> {
        let name = now.name.clone();
        let name = name.as_str();
        if !self.known.contains_key(name) && self.known.len() >= BUCKETS_MAX {
            return Err(Refusal::Impossible(format!(
                "a cluster remembers {BUCKETS_MAX} buckets that were created or dropped, and these are there already"
            )));
        }
        let is_created = now.properties.is_some();
        let (mut next, changes) = match action {
            BucketAction::Show => {
                return Ok(Proposal {
                    entry: now,
                    must_be_empty: false,
                });
            }
            BucketAction::Drop => {
                let Some(generation) = now.generation.checked_add(1) else {
                    return Err(Refusal::Impossible(format!(
                        "bucket '{name}' was dropped as often as is possible: use another name"
                    )));
                };
                let entry = BucketEntry {
                    generation,
                    version: 0,
                    properties: None,
                    name: now.name,
                };
                return Ok(Proposal {
                    entry,
                    must_be_empty: false,
                });
            }
            BucketAction::Create(_) if is_created => {
                return Err(Refusal::Conflict(format!(
                    "bucket '{name}' exists already: update it, or drop it first"
                )));
            }
            BucketAction::Update(_) if !is_created => {
                return Err(Refusal::NotFound(format!(
                    "bucket '{name}' was not created: it has the defaults until it is"
                )));
            }
            BucketAction::Create(changes)
            | BucketAction::Update(changes)
            | BucketAction::Set(changes) => (now.properties.clone().unwrap_or_default(), changes),
        };
        let regions = changes.regions.clone().map(|mut regions| {
            regions.sort_unstable();
            regions.dedup();
            regions
        });
        if is_created {
            fixed(name, &next, changes, regions.as_ref(), &self.defaults)?;
        } else {
            next.kind = changes.kind.unwrap_or(BucketKind::Register);
            next.n = changes.n;
            next.regions = regions;
        }
        let set = |to: &mut Option<Quorum>, from: Option<Quorum>| *to = from.or(*to);
        set(&mut next.r, changes.r);
        set(&mut next.w, changes.w);
        set(&mut next.pr, changes.pr);
        set(&mut next.pw, changes.pw);
        set(&mut next.dw, changes.dw);
        next.max_siblings = changes.max_siblings.or(next.max_siblings);
        match changes.ttl {
            None => {}
            Some(Lifetime::Unlimited) => next.ttl_ms = None,
            Some(Lifetime::Ms(ms)) => next.ttl_ms = Some(ms),
            Some(Lifetime::Until(_)) => {
                return Err(Refusal::Impossible(
                    "a bucket's ttl is a duration, and not a moment".to_owned(),
                ));
            }
        }
        next.sloppy = changes.sloppy.or(next.sloppy);
        let placement = self.check(&next, layouts)?;
        let other_set = placement.set() != self.resolve(name).1.placement.set();
        Ok(Proposal {
            entry: BucketEntry {
                generation: now.generation.saturating_add(u32::from(other_set)),
                version: if other_set { 0 } else { now.version + 1 },
                properties: Some(next),
                name: now.name,
            },
            must_be_empty: other_set,
        })
    }

    /// Whether a bucket with these properties can work under this layout.
    fn check(&self, given: &Properties, layouts: &Layouts) -> Result<Placement, Refusal> {
        let impossible = |why: String| Err(Refusal::Impossible(why));
        if let Some(regions) = &given.regions {
            if regions.len() > REGIONS_MAX {
                return impossible(format!("a bucket names at most {REGIONS_MAX} regions"));
            }
            let have: Vec<&str> = layouts.newest().regions().collect();
            if let Some(unknown) = regions.iter().find(|r| !have.contains(&r.as_str())) {
                return impossible(format!(
                    "there is no region '{unknown}': this cluster has {}",
                    have.join(", ")
                ));
            }
        }
        let defaults = quorums(given, &self.defaults);
        let set = ReplicaSet::new(defaults.n, given.regions.clone());
        let set = set.map_err(|e| Refusal::Impossible(e.to_string()))?;
        if given.n.is_some() {
            for region in layouts.newest().regions().filter(|r| set.covers(r)) {
                let nodes = layouts
                    .newest()
                    .nodes()
                    .iter()
                    .filter(|n| n.region == region);
                let count = nodes.count();
                if usize::from(set.n) > count {
                    return impossible(format!(
                        "n={} asks for more copies than region '{region}' has nodes, which are {count}",
                        set.n
                    ));
                }
            }
        }
        if let Some(ms) = given.ttl_ms {
            expiry::ttl(ms)?;
        }
        if given.max_siblings == Some(0) {
            return impossible("max_siblings=0 allows no value: it is at least 1".to_owned());
        }
        // What is given is held against the seats; the defaults ask for as many as there are.
        let placement = Placement::new(layouts, &set, self.me);
        for seats in placement.kinds() {
            for (name, quorum, may_be_zero) in [
                ("r", given.r, false),
                ("w", given.w, false),
                ("pr", given.pr, true),
                ("pw", given.pw, true),
                ("dw", given.dw, true),
            ] {
                if let Some(quorum) = quorum.filter(|q| *q != Quorum::Local) {
                    Requirement::new(name, quorum, seats, placement.region(), may_be_zero)?;
                }
            }
        }
        Ok(placement)
    }

    /// Who must know of a change before it is acknowledged: of each partition so many replicas, in each region, that
    /// every quorum has one of them, under the replica set before the change as well as after it.
    pub(crate) fn informed(
        &self,
        name: &str,
        after: &BucketEntry,
        layouts: &Layouts,
    ) -> Vec<Requirement> {
        let mut kinds = BTreeSet::new();
        let before = self.resolve(name).1.placement.clone();
        let given = after.properties.clone().unwrap_or_default();
        let n = given.n.unwrap_or(self.defaults.n);
        let set = ReplicaSet::new(n, given.regions).expect("it was checked, or is the default");
        let after = Placement::new(layouts, &set, self.me);
        for placement in [&*before, &after] {
            kinds.extend(placement.kinds().into_iter().map(|seats| seats.to_vec()));
        }
        kinds
            .iter()
            .map(|seats| {
                Requirement::new("bucket", Quorum::Each, seats, before.region(), false)
                    .expect("a majority can always be met")
            })
            .collect()
    }
}

/// An entry's part in the digest of the table: that is all of them together, in whatever order, so that a change costs what
/// changes.
fn part(entry: &BucketEntry) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(&entry.encode()).as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// What is to become of a bucket.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// Its entry then.
    pub(crate) entry: BucketEntry,
    /// Whether the life that ends by it must have no keys: it ends for the sake of another replica set, and nobody said
    /// that its records may go.
    pub(crate) must_be_empty: bool,
}

/// Refuses to change what a bucket has for life.
fn fixed(
    name: &str,
    now: &Properties,
    changes: &PropertyChanges,
    regions: Option<&Vec<String>>,
    defaults: &BucketDefaults,
) -> Result<(), Refusal> {
    let refuse = |what: &str| {
        Err(Refusal::Impossible(format!(
            "bucket '{name}' has its {what} for life: create another bucket with it and copy the keys"
        )))
    };
    if changes.kind.is_some_and(|kind| kind != now.kind) {
        return refuse("kind");
    }
    let n = now.n.unwrap_or(defaults.n);
    if changes.n.is_some_and(|asked| asked != n) {
        return refuse("n");
    }
    if regions.is_some() && regions != now.regions.as_ref() {
        return refuse("regions");
    }
    Ok(())
}

/// What holds for a bucket where a request says nothing.
fn quorums(given: &Properties, defaults: &BucketDefaults) -> BucketDefaults {
    BucketDefaults {
        n: given.n.unwrap_or(defaults.n),
        r: given.r.unwrap_or(defaults.r),
        w: given.w.unwrap_or(defaults.w),
        pr: given.pr.unwrap_or(defaults.pr),
        pw: given.pw.unwrap_or(defaults.pw),
        dw: given.dw.unwrap_or(defaults.dw),
        sloppy: given.sloppy.unwrap_or(defaults.sloppy),
    }
}

/// Shows every row whose key begins so.
pub(crate) fn rows(
    storage: &impl Storage,
    prefix: &[u8],
    mut show: impl FnMut(&[u8], &[u8]),
) -> Result<(), StorageError> {
    let end = keys::end_of(prefix);
    let mut from = prefix.to_vec();
    loop {
        let page = storage.scan(Family::Meta, &from, end.as_deref(), PAGE)?;
        for (key, row) in &page {
            show(&key[prefix.len()..], row);
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => {
                from = last.to_vec();
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}
