//! Which steps are taken in which bounds, for the model checker.

use stateright::{Model, Property};

use crate::judge::{Breach, judge};
use crate::replica::{Dots, Peers, Replica};
use crate::rules::Rules;
use crate::world::{Begun, Fault, Hearing, MAX_WRITES, REPLICAS, Round, World};

/// What clients have read when they write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contexts {
    /// What one intact replica shows now.
    Fresh,
    /// Any dots, however old.
    Any,
}

/// Which conversations take several steps, with anything in between. The others happen at once, with whoever is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// Exchanges.
    pub exchanges: bool,
    /// Hearings.
    pub hearings: bool,
    /// First phases of collection. Second ones always do.
    pub rounds: bool,
}

/// One bounded exploration.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Most writes of clients, at most [`MAX_WRITES`].
    pub writes: usize,
    /// Most of them that are puts.
    pub puts: u32,
    /// Faults that may happen.
    pub faults: Vec<Fault>,
    /// At most so many of them in one run.
    pub faults_max: u32,
    /// How often a replica may be moved to another node.
    pub moves: u8,
    /// What clients have read.
    pub contexts: Contexts,
    /// What takes several steps.
    pub apart: Apart,
    /// The protocol.
    pub rules: Rules,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client puts (or deletes) at a replica, having read `context`.
    Write {
        /// The coordinator.
        at: usize,
        /// A put, else a delete.
        put: bool,
        /// What it removes.
        context: Dots,
    },
    /// A write's message arrives.
    Deliver {
        /// The write.
        write: usize,
        /// Where.
        at: usize,
    },
    /// A hint of this write arrives.
    Hint {
        /// The write.
        write: usize,
        /// Where.
        at: usize,
    },
    /// A whole exchange.
    Exchange {
        /// Who begins it.
        by: usize,
        /// With whom.
        with: usize,
    },
    /// The beginning of one.
    Begin {
        /// Who begins it.
        by: usize,
        /// With whom.
        with: usize,
    },
    /// Its end.
    Finish,
    /// A whole hearing.
    Judge {
        /// Who lacks the dot.
        judge: usize,
        /// The dot.
        dot: Dots,
        /// Who testifies.
        heard: Peers,
    },
    /// The beginning of one.
    Hear {
        /// Who lacks the dot.
        judge: usize,
        /// The dot.
        dot: Dots,
    },
    /// Somebody testifies.
    Testify {
        /// Who.
        at: usize,
    },
    /// It is decided.
    Conclude,
    /// A whole first phase of collection.
    Collect {
        /// The collector.
        at: usize,
    },
    /// The beginning of one.
    BeginRound {
        /// The collector.
        at: usize,
    },
    /// It asks a replica.
    Ask {
        /// Whom.
        at: usize,
    },
    /// Second phase: a replica is told to forget.
    Forget {
        /// Who.
        at: usize,
    },
    /// Someone copies a replica's directory.
    Copy {
        /// Whose.
        at: usize,
    },
    /// And puts the copy in place.
    Rollback,
    /// What a replica does from here on is not synced until it answers for it.
    Unsynced {
        /// Which.
        at: usize,
    },
    /// A restart.
    Crash {
        /// Of whom.
        at: usize,
    },
    /// The record vanishes.
    LoseRecord {
        /// Whose.
        at: usize,
    },
    /// It is opened empty.
    Replace {
        /// Who.
        at: usize,
    },
    /// It goes to another node.
    Move {
        /// Which.
        at: usize,
    },
}

/// All pairs, in both orders.
const PAIRS: [(usize, usize); 6] = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];

impl Bounds {
    /// Two writes, any one fault, what clients have read is up to date, and conversations happen at once.
    #[must_use]
    pub fn small() -> Self {
        Bounds {
            writes: 2,
            puts: 2,
            faults: Fault::ALL.to_vec(),
            faults_max: 1,
            moves: 0,
            contexts: Contexts::Fresh,
            apart: Apart::default(),
            rules: Rules::default(),
        }
    }

    /// May this fault still happen?
    fn may(&self, world: &World, fault: Fault) -> bool {
        let is_left = world.spent.count_ones() < self.faults_max;
        is_left && self.faults.contains(&fault) && world.spent & fault.bit() == 0
    }

    fn contexts(&self, world: &World) -> Vec<Dots> {
        let minted = world.minted();
        let shown = |c: &Dots| match self.contexts {
            Contexts::Any => c & !minted == 0,
            Contexts::Fresh => world
                .replicas
                .iter()
                .any(|r| r.intact() && r.record.live == *c),
        };
        (1..1 << MAX_WRITES).filter(shown).collect()
    }

    /// What [`judge`] says of a state.
    ///
    /// # Errors
    /// The breach.
    pub fn judge(&self, world: &World) -> Result<(), Breach> {
        judge(world, self.rules)
    }

    /// Takes a step. Returns false if it cannot be taken.
    #[must_use]
    pub fn take(&self, world: &mut World, step: Step) -> bool {
        let rules = self.rules;
        match step {
            Step::Move { at } => {
                if !world.relocate(at, rules) {
                    return false;
                }
            }
            Step::Write { at, put, context } => world.write(at, put, context, rules),
            Step::Deliver { write, at } => world.deliver(write, at, rules),
            Step::Hint { write, at } => world.hint(write, at, rules),
            Step::Exchange { by, with } => {
                let begun = world.begin(by, with);
                world.finish(begun, rules);
            }
            Step::Begin { by, with } => world.begun = Some(world.begin(by, with)),
            Step::Finish => {
                if let Some(begun) = world.begun.take() {
                    world.finish(begun, rules);
                }
            }
            Step::Judge { judge, dot, heard } => {
                world.hear(judge, dot);
                for at in (0..REPLICAS).filter(|r| heard & 1 << r != 0) {
                    world.testify(at, rules);
                }
                world.conclude(rules);
            }
            Step::Hear { judge, dot } => world.hear(judge, dot),
            Step::Testify { at } => world.testify(at, rules),
            Step::Conclude => world.conclude(rules),
            Step::Collect { at } => {
                world.begin_round(at, rules);
                while let Some(next) = world.to_ask(rules).first() {
                    world.ask(*next, rules);
                }
            }
            Step::BeginRound { at } => world.begin_round(at, rules),
            Step::Ask { at } => world.ask(at, rules),
            Step::Forget { at } => world.forget(at),
            Step::Copy { at } => world.copy = Some((at as u8, world.replicas[at])),
            Step::Rollback => {
                if let Some((at, replica)) = world.copy.take() {
                    world.set_back(usize::from(at), replica, Fault::Rollback, rules);
                }
            }
            Step::Unsynced { at } => world.synced = Some((at as u8, world.replicas[at])),
            Step::Crash { at } => world.crash(at, rules),
            Step::LoseRecord { at } => world.lose_record(at),
            Step::Replace { at } => {
                world.set_back(at, Replica::default(), Fault::Replacement, rules);
            }
        }
        world.tidy();
        if self.faults.iter().filter(|f| f.takes_away()).count() < 2 || self.faults_max < 2 {
            world.tidy_told();
        }
        true
    }

    fn conversations(&self, world: &World, steps: &mut Vec<Step>) {
        match (self.apart.exchanges, world.begun) {
            (true, None) => steps.extend(PAIRS.map(|(by, with)| Step::Begin { by, with })),
            (true, Some(_)) => steps.push(Step::Finish),
            (false, _) => steps.extend(PAIRS.map(|(by, with)| Step::Exchange { by, with })),
        }
        match (self.apart.hearings, world.hearing) {
            (true, None) => {
                let all = world.absences().into_iter();
                steps.extend(all.map(|(judge, dot)| Step::Hear { judge, dot }));
            }
            (true, Some(hearing)) => {
                let silent = (0..REPLICAS).filter(|r| hearing.told[*r].is_none());
                steps.extend(silent.map(|at| Step::Testify { at }));
                steps.push(Step::Conclude);
            }
            (false, _) => {
                for (judge, dot) in world.absences() {
                    let polls = (0..1 << REPLICAS).filter(|heard| heard & 1 << judge != 0);
                    steps.extend(polls.map(|heard| Step::Judge { judge, dot, heard }));
                }
            }
        }
        for at in 0..REPLICAS {
            if world.round.is_none() && world.replicas[at].record.evidence != 0 {
                steps.push(match self.apart.rounds {
                    true => Step::BeginRound { at },
                    false => Step::Collect { at },
                });
            }
            if world.forget.1 & 1 << at != 0 {
                steps.push(Step::Forget { at });
            }
        }
        steps.extend(
            world
                .to_ask(self.rules)
                .into_iter()
                .map(|at| Step::Ask { at }),
        );
    }

    fn faults(&self, world: &World, steps: &mut Vec<Step>) {
        if world.issued == 0 {
            return;
        }
        for at in 0..REPLICAS {
            if self.may(world, Fault::Rollback) && world.copy.is_none() {
                steps.push(Step::Copy { at });
            }
            if self.may(world, Fault::Crash) {
                steps.push(Step::Crash { at });
                if world.synced.is_none() {
                    steps.push(Step::Unsynced { at });
                }
            }
            if self.may(world, Fault::RecordLoss) {
                steps.push(Step::LoseRecord { at });
            }
            if self.may(world, Fault::Replacement) {
                steps.push(Step::Replace { at });
            }
        }
        if world.moves < self.moves {
            steps.extend((0..REPLICAS).map(|at| Step::Move { at }));
        }
        if world.copy.is_some() && self.may(world, Fault::Rollback) {
            steps.push(Step::Rollback);
        }
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if usize::from(world.issued) < self.writes {
            let contexts = self.contexts(world);
            let may_put = world.minted().count_ones() < self.puts;
            for at in 0..REPLICAS {
                if may_put {
                    steps.push(Step::Write {
                        at,
                        put: true,
                        context: 0,
                    });
                }
                for &context in &contexts {
                    if may_put {
                        steps.push(Step::Write {
                            at,
                            put: true,
                            context,
                        });
                    }
                    steps.push(Step::Write {
                        at,
                        put: false,
                        context,
                    });
                }
            }
        }
        for write in 0..usize::from(world.issued) {
            for at in 0..REPLICAS {
                if world.writes[write].pending & 1 << at != 0 {
                    steps.push(Step::Deliver { write, at });
                } else if self.may(world, Fault::LateHint) {
                    steps.push(Step::Hint { write, at });
                }
            }
        }
        self.conversations(world, steps);
        self.faults(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        if !self.take(&mut next, step) {
            return None;
        }
        // Replicas are called anew after each step, so that a trace must be read with the states between its steps.
        Some(representative(&next)).filter(|next| next != world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(
            "judged",
            |bounds: &Bounds, world: &World| bounds.judge(world).is_ok(),
        )]
    }
}

/// One for all worlds that differ only in which replica is called what: the least of those whose replicas ascend.
#[must_use]
pub fn representative(world: &World) -> World {
    const NAMINGS: [[usize; 3]; 6] = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    // What a replica is apart from how it calls the others.
    let key = |r: &Replica| {
        let met = r.amnesia.map(u8::count_ones);
        (r.record, r.own, r.adopted, met, r.told)
    };
    let keys = world.replicas.each_ref().map(key);
    let ascends = |to: &[usize; 3]| {
        (0..REPLICAS).all(|x| (0..REPLICAS).all(|y| to[x] > to[y] || keys[x] <= keys[y]))
    };
    let named = NAMINGS
        .iter()
        .filter(|to| ascends(to))
        .map(|to| renamed(world, *to));
    named.min().unwrap_or_else(|| world.clone())
}

/// The same world with replica *i* called `to[i]`.
fn renamed(world: &World, to: [usize; 3]) -> World {
    let name = |r: u8| to[usize::from(r)] as u8;
    let peers = |set: Peers| {
        let members = (0..REPLICAS).filter(|r| set & 1 << r != 0);
        members.fold(0, |all, r| all | 1 << to[r])
    };
    let replica = |r: &Replica| Replica {
        amnesia: r.amnesia.map(peers),
        ..*r
    };
    let mut next = world.clone();
    for (r, old) in world.replicas.iter().enumerate() {
        next.replicas[to[r]] = replica(old);
    }
    for (r, minted) in world.minters.iter().enumerate() {
        next.minters[to[r]] = *minted;
    }
    for write in &mut next.writes {
        write.pending = peers(write.pending);
        if write.open {
            write.coordinator = name(write.coordinator);
        }
    }
    next.copy = world.copy.map(|(at, old)| (name(at), replica(&old)));
    next.synced = world.synced.map(|(at, old)| (name(at), replica(&old)));
    next.forget.1 = peers(world.forget.1);
    next.round = world.round.map(|round| Round {
        collector: name(round.collector),
        confirmed: peers(round.confirmed),
        ..round
    });
    next.begun = world.begun.map(|begun| Begun {
        by: name(begun.by),
        with: name(begun.with),
        ..begun
    });
    next.hearing = world.hearing.map(|hearing| {
        let mut told = [None; REPLICAS];
        for (r, vote) in hearing.told.iter().enumerate() {
            told[to[r]] = *vote;
        }
        Hearing {
            judge: name(hearing.judge),
            told,
            ..hearing
        }
    });
    next
}
