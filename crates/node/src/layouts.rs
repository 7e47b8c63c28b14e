//! The layouts that are live, and how far this node knows the change from one to the next to have come.
//!
//! All that is known is true for good, so that accounts of two nodes are joined by taking what either has. A node is at one of four
//! stages, which follow from what it knows: the old layout alone; a new one, and it is sealed; that the change is *complete*, every node of
//! the new layout having *synced*; that the old layout is *retired*, everybody of both knowing that it is complete. What requests ask of
//! which layout at which stage, and why, is in decision 20.
//!
//! *Invariant:* a node acts by what it knows, and tells it, once it is on disk. One that forgot that it was sealed would take a write that
//! those who have filled themselves from it miss.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_protocol::{LayoutChange, LiveLayouts, Pace, ProposedLayout};
use quorate_ring::{Layout, NodeId, NodeSpec, Partition};
use quorate_storage::{Family, Storage};

use crate::keys;

/// What is known. See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layouts {
    known: LiveLayouts,
    /// Whether every node of the next layout has synced.
    complete: bool,
    /// Names what is known. Every round of upkeep says it to every node, and encoding a layout is long.
    digest: u64,
}

/// What is wrong with an account of layouts that came from somewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unsound {
    /// It is of another cluster, or of another number of partitions.
    Foreign,
    /// Two layouts of one version: they were not chosen as they should be.
    Split(u64),
    /// A layout that does not follow the one before.
    Gap,
}

impl Layouts {
    pub(crate) fn new(known: LiveLayouts) -> Result<Self, Unsound> {
        let mut layouts = Layouts {
            known,
            complete: false,
            digest: 0,
        };
        if let Some(change) = &layouts.known.next {
            follows(&layouts.known.current, &change.chosen)?;
        }
        layouts.settle();
        Ok(layouts)
    }

    /// One layout, and no change under way.
    pub(crate) fn only(layout: Layout) -> Self {
        let mut layouts = Layouts {
            known: LiveLayouts {
                current: layout,
                next: None,
                pace: Pace::default(),
            },
            complete: false,
            digest: 0,
        };
        layouts.settle();
        layouts
    }

    /// Draws the conclusions from what is known.
    fn settle(&mut self) {
        self.complete = false;
        self.conclude();
        let hash = blake3::hash(&self.known.encode());
        let first = hash.as_bytes().first_chunk();
        self.digest = u64::from_be_bytes(*first.expect("a hash has 32 bytes"));
    }

    fn conclude(&mut self) {
        let Some(change) = &self.known.next else {
            return;
        };
        let is_dead = |n: &NodeId| change.chosen.dead.contains(n);
        let new = || change.chosen.layout.nodes().iter().map(|n| n.id);
        let old = self.known.current.nodes().iter().map(|n| n.id);
        self.complete = new().all(|n| change.synced.contains(&n));
        let mut all = old.chain(new()).filter(|n| !is_dead(n));
        let is_retired = self.complete && all.all(|n| change.complete.contains(&n));
        if is_retired && let Some(change) = self.known.next.take() {
            self.known.current = change.chosen.layout;
            self.complete = false;
        }
    }

    /// What another node knows, joined into this.
    ///
    /// # Errors
    /// If it cannot be true together with this. Nothing is joined then.
    pub(crate) fn joined(&self, told: &LiveLayouts) -> Result<Layouts, Unsound> {
        let mut joined = self.joined_layouts(told)?;
        joined.known.pace = self.known.pace.max(told.pace);
        joined.settle();
        Ok(joined)
    }

    fn joined_layouts(&self, told: &LiveLayouts) -> Result<Layouts, Unsound> {
        let mine = &self.known;
        let sound = Layouts::new(told.clone())?;
        let told = &sound.known;
        if told.current.cluster() != mine.current.cluster()
            || told.current.partitions() != mine.current.partitions()
        {
            return Err(Unsound::Foreign);
        }
        let (ours, theirs) = (mine.current.version(), told.current.version());
        if theirs < ours {
            // It has missed what is known here.
            return Ok(self.clone());
        }
        if theirs > ours {
            let chosen = mine.next.as_ref().map(|c| &c.chosen.layout);
            let same = chosen.filter(|l| l.version() == theirs);
            if same.is_some_and(|layout| *layout != told.current) {
                return Err(Unsound::Split(theirs));
            }
            return Ok(sound);
        }
        if mine.current != told.current {
            return Err(Unsound::Split(ours));
        }
        let mut joined = self.clone();
        match (&mut joined.known.next, &told.next) {
            (_, None) => {}
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (Some(mine), Some(theirs)) => {
                if mine.chosen != theirs.chosen {
                    return Err(Unsound::Split(ours + 1));
                }
                mine.synced.extend(&theirs.synced);
                mine.complete.extend(&theirs.complete);
            }
        }
        Ok(joined)
    }

    /// With the layout that was chosen to follow.
    pub(crate) fn with_next(&self, chosen: ProposedLayout) -> LiveLayouts {
        LiveLayouts {
            current: self.known.current.clone(),
            next: Some(LayoutChange {
                chosen,
                synced: BTreeSet::new(),
                complete: BTreeSet::new(),
            }),
            pace: self.known.pace,
        }
    }

    /// With another pace.
    pub(crate) fn with_pace(&self, bytes_per_second: Option<u64>) -> LiveLayouts {
        let mut known = self.known.clone();
        known.pace = Pace {
            number: known.pace.number.saturating_add(1),
            bytes_per_second,
        };
        known
    }

    /// How fast nodes are filled.
    pub(crate) fn pace(&self) -> Pace {
        self.known.pace
    }

    /// What this node has to add, itself, to what is known: that it has synced, if it has, and that all have.
    pub(crate) fn with_own(&self, me: NodeId, has_synced: bool) -> Option<LiveLayouts> {
        let mut known = self.known.clone();
        let change = known.next.as_mut()?;
        let is_new = change.chosen.layout.node(me).is_some();
        let synced = has_synced && is_new && change.synced.insert(me);
        let complete = self.complete && change.complete.insert(me);
        (synced || complete).then_some(known)
    }

    /// All of it.
    pub(crate) fn known(&self) -> &LiveLayouts {
        &self.known
    }

    /// Names it: equal for equal knowledge.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The layout that has no live predecessor.
    pub(crate) fn current(&self) -> &Layout {
        &self.known.current
    }

    /// The change under way.
    pub(crate) fn change(&self) -> Option<&LayoutChange> {
        self.known.next.as_ref()
    }

    /// The latest layout.
    pub(crate) fn newest(&self) -> &Layout {
        match &self.known.next {
            Some(change) => &change.chosen.layout,
            None => &self.known.current,
        }
    }

    /// Its version: under which writes are made.
    pub(crate) fn version(&self) -> u64 {
        self.newest().version()
    }

    /// The layout by which reads are answered: the latest whose nodes all have what they are to hold.
    pub(crate) fn reading(&self) -> &Layout {
        match &self.known.next {
            Some(change) if self.complete => &change.chosen.layout,
            _ => &self.known.current,
        }
    }

    /// All layouts whose quorums a write must meet.
    pub(crate) fn writing(&self) -> impl Iterator<Item = &Layout> {
        let next = self.known.next.iter().map(|change| &change.chosen.layout);
        std::iter::once(&self.known.current).chain(next)
    }

    /// Whether a request that chose its node by this version may be read from here.
    pub(crate) fn may_read(&self, version: u64) -> bool {
        version == self.reading().version() || version == self.version()
    }

    /// Whether a client that knows this version need not be told of another.
    pub(crate) fn is_live(&self, version: u64) -> bool {
        self.writing().any(|layout| layout.version() == version)
    }

    /// Whether a node is gone for good.
    pub(crate) fn is_dead(&self, node: NodeId) -> bool {
        self.change().is_some_and(|c| c.chosen.dead.contains(&node))
    }

    /// A node of any of the layouts.
    pub(crate) fn node(&self, id: NodeId) -> Option<&NodeSpec> {
        let newest = self.newest().node(id);
        newest.or_else(|| self.known.current.node(id))
    }

    /// Those of all of the layouts, ascending; but not those that are gone for good.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let all = self.writing().flat_map(|layout| layout.nodes());
        let all: BTreeSet<NodeId> = all.map(|node| node.id).collect();
        all.into_iter().filter(|n| !self.is_dead(*n)).collect()
    }

    pub(crate) fn partitions(&self) -> u16 {
        self.known.current.partitions()
    }

    pub(crate) fn partition_of(&self, bucket: &str, key: &[u8]) -> Partition {
        self.known.current.partition_of(bucket, key)
    }
}

/// What is on disk of layouts; at the first start, the layout that the driver was given: the first of all, or a later one that this node is
/// not in. By another it would believe to be filled.
///
/// # Errors
/// A sentence, if it cannot be read, is of another cluster, or may not be believed.
pub(crate) fn load(storage: &impl Storage, given: Layout, me: NodeId) -> Result<Layouts, String> {
    let is_later = given.version() > 1 && given.node(me).is_some();
    let (version, given) = (given.version(), Layouts::only(given));
    let row = storage.get(Family::Meta, keys::LAYOUTS);
    let Some(row) = row.map_err(|e| e.to_string())? else {
        return match is_later {
            false => Ok(given),
            true => Err(format!(
                "the data directory is empty, and by layout version {version}, with which this node is started, it holds data: start it \
                 with the layout that its cluster began with, or with one that it is not in, and it is told what is so now"
            )),
        };
    };
    let unsound = |why: Unsound| format!("the stored layouts make no sense: {why:?}");
    let stored = Layouts::new(LiveLayouts::decode(&row)?).map_err(unsound)?;
    let (ours, theirs) = (stored.current(), given.current());
    if ours.cluster() != theirs.cluster() || ours.partitions() != theirs.partitions() {
        return Err(unsound(Unsound::Foreign));
    }
    Ok(stored)
}

/// The layout by which reads are answered, as JSON.
pub(crate) fn describe(layouts: &Layouts) -> Bytes {
    let json = serde_json::to_vec(layouts.reading());
    json.expect("a layout serialises").into()
}

/// Whether what was proposed may follow a layout.
pub(crate) fn follows(current: &Layout, proposed: &ProposedLayout) -> Result<(), Unsound> {
    let next = &proposed.layout;
    if next.cluster() != current.cluster() || next.partitions() != current.partitions() {
        return Err(Unsound::Foreign);
    }
    let is_next = next.version() == current.version() + 1;
    let are_gone = proposed.dead.iter().all(|n| next.node(*n).is_none());
    match is_next && are_gone {
        true => Ok(()),
        false => Err(Unsound::Gap),
    }
}

#[cfg(test)]
mod tests {
    use quorate_ring::{ClusterId, LayoutSpec};

    use super::*;

    fn specs(ids: impl IntoIterator<Item = u64>) -> Vec<NodeSpec> {
        let spec = |id: u64| NodeSpec {
            id: NodeId(id),
            name: format!("node-{id}"),
            region: "here".to_owned(),
            zone: format!("zone-{id}"),
            weight: 1,
            quic: format!("node-{id}:1"),
            http: format!("node-{id}:2"),
        };
        ids.into_iter().map(spec).collect()
    }

    fn first() -> Layout {
        let spec = LayoutSpec {
            partitions: 8,
            ..LayoutSpec::new(specs(0..3))
        };
        Layout::first(ClusterId(1), spec).expect("a sound layout")
    }

    fn change(dead: &[u64]) -> Layouts {
        let old = Layouts::only(first());
        let ids = (0..4).filter(|n| !dead.contains(n));
        let chosen = ProposedLayout {
            layout: first().next(specs(ids)).expect("a sound layout"),
            dead: dead.iter().map(|n| NodeId(*n)).collect(),
        };
        let told = old.with_next(chosen);
        old.joined(&told).expect("it follows")
    }

    fn told(layouts: &Layouts, synced: &[u64], complete: &[u64]) -> LiveLayouts {
        let mut known = layouts.known().clone();
        let change = known.next.as_mut().expect("a change is under way");
        change.synced.extend(synced.iter().map(|n| NodeId(*n)));
        change.complete.extend(complete.iter().map(|n| NodeId(*n)));
        known
    }

    #[test]
    fn a_change_goes_through_its_stages() {
        let new = change(&[]);
        assert_eq!((new.version(), new.reading().version()), (2, 1));
        assert!(new.may_read(1) && new.may_read(2));
        let some = new.joined(&told(&new, &[0, 1, 3], &[])).expect("true");
        assert_eq!(some.reading().version(), 1);
        // The last to sync tells, and whoever hears knows that it is complete.
        let complete = some.joined(&told(&new, &[2], &[])).expect("true");
        assert_eq!(complete.reading().version(), 2);
        assert!(!complete.may_read(1) && complete.is_live(1));
        let own = complete.with_own(NodeId(0), true).expect("news");
        assert!(own.next.expect("a change").complete.contains(&NodeId(0)));
        let retired = complete.joined(&told(&complete, &[], &[0, 1, 2, 3]));
        let retired = retired.expect("true");
        assert_eq!((retired.current().version(), retired.change()), (2, None));
        assert!(!retired.is_live(1));
        // Whoever is behind learns it at once, and tells nothing new.
        assert_eq!(new.joined(retired.known()), Ok(retired.clone()));
        assert_eq!(retired.joined(new.known()), Ok(retired.clone()));
    }

    /// Whoever is behind in layouts may know a later pace, and the other way round.
    #[test]
    fn the_later_pace_holds_whoever_tells_it() {
        let new = change(&[]);
        let old = Layouts::only(first());
        let paced = old.joined(&old.with_pace(Some(0))).expect("true");
        assert!(paced.pace().is_paused() && !new.pace().is_paused());
        let joined = new.joined(paced.known()).expect("true");
        assert_eq!(joined.version(), 2);
        assert!(joined.pace().is_paused());
        assert_eq!(paced.joined(new.known()), Ok(joined.clone()));
        let resumed = joined.joined(&joined.with_pace(None)).expect("true");
        assert_eq!(resumed.joined(paced.known()), Ok(resumed.clone()));
        assert!(!resumed.pace().is_paused());
    }

    #[test]
    fn a_change_does_without_the_dead() {
        let new = change(&[2]);
        assert_eq!(new.nodes(), [NodeId(0), NodeId(1), NodeId(3)]);
        let done = new.joined(&told(&new, &[0, 1, 3], &[0, 1, 3]));
        assert_eq!(done.expect("true").current().version(), 2);
    }

    #[test]
    fn what_cannot_be_true_together_is_refused() {
        let new = change(&[]);
        let other = change(&[2]);
        assert_eq!(new.joined(other.known()), Err(Unsound::Split(2)));
        let mut known = new.known().clone();
        known.next.as_mut().expect("a change").chosen.dead = [NodeId(1)].into();
        assert_eq!(new.joined(&known), Err(Unsound::Gap));
    }
}
