//! From one layout to the next: who takes writes, who is asked in reads, and when the old one is done with.
//!
//! Five nodes at most, of which some hold a key in the old layout and some in the new; quorums are majorities. That the new layout is chosen is
//! given; nodes hear of it one by one. What they come to know of each other they may hear at any time once it is so, which is more than
//! any gossip does.

use stateright::{Model, Property};

/// All nodes.
pub const NODES: usize = 5;
/// Nodes, each by its bit.
pub type Nodes = u8;

fn has(nodes: Nodes, node: usize) -> bool {
    nodes & 1 << node != 0
}

/// How many of a layout's replicas a write or a strict read needs.
fn quorum(layout: Nodes) -> u32 {
    layout.count_ones() / 2 + 1
}

fn each(nodes: Nodes) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |node| has(nodes, *node))
}

/// A rule taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A replica that knows the new layout takes writes of those who do not.
    SealedWrites,
    /// An exchange counts though its source does not know the new layout.
    UnsealedSources,
    /// One source is enough.
    OneSource,
    /// Who is in both layouts counts as filled.
    KeptCountsAsSynced,
    /// Reads go to the new layout at once.
    ReadsNewAtOnce,
    /// A write goes by the new layout alone as soon as its coordinator knows it.
    WritesNewAtOnce,
    /// A write goes by the old layout alone until that is done with.
    WritesOldOnly,
    /// The old layout is done with once all are filled, whether or not others know.
    RetiredWhenSynced,
    /// It is once all nodes of the new layout know.
    RetiredWhenNewKnow,
    /// Who knows that all are filled answers reads of the old layout, until it knows that this is done with.
    OldReadsUntilRetired,
}

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The replicas of the old layout and of the new.
    pub layouts: [Nodes; 2],
    /// Nodes that the change declares dead. They may be alive, and hear nothing.
    pub dead: Nodes,
    /// Most writes.
    pub writes: usize,
    /// The rule that is taken out.
    pub without: Option<Defect>,
}

/// What a node knows of the change; each stage holds those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knows {
    /// Nothing.
    #[default]
    Old,
    /// The new layout. From here on it is sealed.
    New,
    /// That all of the new layout's nodes are filled.
    Complete,
    /// That the old layout is done with.
    Retired,
}

/// By which layouts a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The old one, by one who knows no other.
    Old,
    /// Both.
    Both,
    /// The old one, by one who knows better: only without a rule.
    OldKnowingly,
    /// The new one.
    New,
}

/// A write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    by: By,
    /// Who has acknowledged it.
    acks: Nodes,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    knows: [Knows; NODES],
    /// With whom a node of the new layout has exchanged completely.
    sources: [Nodes; NODES],
    writes: Vec<Write>,
    /// Who holds each write.
    holders: Vec<Nodes>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node comes to know more.
    Learn {
        /// Who.
        node: usize,
    },
    /// A node of the new layout exchanges completely with one of the old.
    Sync {
        /// Who is being filled.
        node: usize,
        /// From whom.
        from: usize,
    },
    /// A client writes at a coordinator.
    Write {
        /// The coordinator.
        at: usize,
    },
    /// A write arrives.
    Deliver {
        /// Which.
        write: usize,
        /// Where.
        at: usize,
    },
}

impl Bounds {
    fn has(&self, defect: Defect) -> bool {
        self.without == Some(defect)
    }

    fn old_layout(&self) -> Nodes {
        self.layouts[0]
    }

    fn new_layout(&self) -> Nodes {
        self.layouts[1]
    }

    /// From whom a node has to be filled; itself is no source.
    fn to_sync_from(&self, node: usize) -> Nodes {
        self.old_layout() & !self.dead & !(1 << node)
    }

    fn is_synced(&self, world: &World, node: usize) -> bool {
        if self.has(Defect::KeptCountsAsSynced) && has(self.old_layout(), node) {
            return true;
        }
        let needed = self.to_sync_from(node);
        match self.has(Defect::OneSource) {
            true => world.sources[node] != 0 || needed == 0,
            false => world.sources[node] & needed == needed,
        }
    }

    fn all_know(&self, world: &World, nodes: Nodes, stage: Knows) -> bool {
        each(nodes & !self.dead).all(|node| world.knows[node] >= stage)
    }

    /// What a node may come to know next, if anything.
    fn next(&self, world: &World, node: usize) -> Option<Knows> {
        if has(self.dead, node) {
            return None;
        }
        match world.knows[node] {
            Knows::Old => Some(Knows::New),
            Knows::New => {
                let synced = each(self.new_layout()).all(|node| self.is_synced(world, node));
                synced.then_some(Knows::Complete)
            }
            Knows::Complete => {
                let whom = match self.without {
                    Some(Defect::RetiredWhenSynced) => 0,
                    Some(Defect::RetiredWhenNewKnow) => self.new_layout(),
                    _ => self.old_layout() | self.new_layout(),
                };
                self.all_know(world, whom, Knows::Complete)
                    .then_some(Knows::Retired)
            }
            Knows::Retired => None,
        }
    }

    fn writes_by(&self, knows: Knows) -> By {
        match knows {
            Knows::Old => By::Old,
            Knows::New | Knows::Complete if self.has(Defect::WritesNewAtOnce) => By::New,
            Knows::New | Knows::Complete if self.has(Defect::WritesOldOnly) => By::OldKnowingly,
            Knows::New | Knows::Complete => By::Both,
            Knows::Retired => By::New,
        }
    }

    fn replicas(&self, by: By) -> Nodes {
        match by {
            By::Old | By::OldKnowingly => self.old_layout(),
            By::Both => self.old_layout() | self.new_layout(),
            By::New => self.new_layout(),
        }
    }

    fn is_acknowledged(&self, write: &Write) -> bool {
        let met = |layout: Nodes| (write.acks & layout).count_ones() >= quorum(layout);
        match write.by {
            By::Old | By::OldKnowingly => met(self.old_layout()),
            By::Both => met(self.old_layout()) && met(self.new_layout()),
            By::New => met(self.new_layout()),
        }
    }

    /// Who may answer a strict read of a coordinator that knows so much, and how many have to.
    fn read_by(&self, world: &World, knows: Knows) -> (Nodes, u32) {
        let new =
            knows >= Knows::Complete || (knows >= Knows::New && self.has(Defect::ReadsNewAtOnce));
        if new {
            return (self.new_layout(), quorum(self.new_layout()));
        }
        let refuses_from = match self.has(Defect::OldReadsUntilRetired) {
            true => Knows::Retired,
            false => Knows::Complete,
        };
        let answer = each(self.old_layout()).filter(|node| world.knows[*node] < refuses_from);
        let answer = answer.fold(0, |nodes, node| nodes | 1 << node);
        (answer, quorum(self.old_layout()))
    }

    /// Whether every strict read from here finds every acknowledged write.
    fn judge(&self, world: &World) -> bool {
        let acknowledged = world.writes.iter().zip(&world.holders);
        let mut owed = acknowledged.filter(|(write, _)| self.is_acknowledged(write));
        owed.all(|(_, holders)| {
            let coordinators = each(self.old_layout() | self.new_layout());
            let mut reads = coordinators.map(|at| self.read_by(world, world.knows[at]));
            // It is missed if so many answer who do not hold it.
            reads.all(|(answer, needed)| (answer & !holders).count_ones() < needed)
        })
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            knows: Default::default(),
            sources: Default::default(),
            writes: Vec::new(),
            holders: Vec::new(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let all = self.old_layout() | self.new_layout();
        for node in each(all) {
            if self.next(world, node).is_some() {
                steps.push(Step::Learn { node });
            }
            if has(self.new_layout(), node) && world.knows[node] >= Knows::New {
                for from in each(self.to_sync_from(node) & !world.sources[node]) {
                    if world.knows[from] >= Knows::New || self.has(Defect::UnsealedSources) {
                        steps.push(Step::Sync { node, from });
                    }
                }
            }
            // Who is only in the new layout takes requests once it knows of it.
            let takes = has(self.old_layout(), node) || world.knows[node] >= Knows::New;
            if takes && world.writes.len() < self.writes {
                steps.push(Step::Write { at: node });
            }
        }
        for (at, write) in world.writes.iter().enumerate() {
            for node in each(self.replicas(write.by) & !write.acks) {
                let sealed = world.knows[node] >= Knows::New && !self.has(Defect::SealedWrites);
                if write.by != By::Old || !sealed {
                    steps.push(Step::Deliver {
                        write: at,
                        at: node,
                    });
                }
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        match step {
            Step::Learn { node } => world.knows[node] = self.next(&world, node)?,
            Step::Sync { node, from } => {
                world.sources[node] |= 1 << from;
                let both = 1 << node | 1 << from;
                for holders in &mut world.holders {
                    if *holders & both != 0 {
                        *holders |= both;
                    }
                }
            }
            Step::Write { at } => {
                world.writes.push(Write {
                    by: self.writes_by(world.knows[at]),
                    acks: 0,
                });
                world.holders.push(0);
            }
            Step::Deliver { write, at } => {
                // A newer layout is learnt from whoever names it, but by the dead, which refuse what they do not know.
                if world.writes[write].by != By::Old && world.knows[at] == Knows::Old {
                    if has(self.dead, at) {
                        return None;
                    }
                    world.knows[at] = Knows::New;
                }
                world.writes[write].acks |= 1 << at;
                world.holders[write] |= 1 << at;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("judged", Bounds::judge)]
    }
}
