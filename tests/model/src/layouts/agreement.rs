//! Which layout is the next: a register that is written once, agreed by a majority of the current layout's nodes.
//!
//! Two operators each propose a layout of their own, in rounds that they never use again. A round has two phases: a majority promises to
//! take part in no lower round, telling what it has accepted in the highest; then a majority accepts that, or the operator's own if there was
//! none. Messages are lost, late and doubled: a step may be taken at any time, by any node, or never.

use stateright::{Model, Property};

/// Nodes of the current layout.
pub const NODES: usize = 3;
const MAJORITY: u32 = 2;

/// A rule taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// An operator goes on with its own layout whatever others have accepted.
    OwnProposal,
    /// What was accepted in any round is taken up, and not what was in the highest.
    AnyAccepted,
    /// A node accepts in a round below its promise.
    PromiseIgnored,
    /// One node is enough.
    NoMajority,
}

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The rounds, in order of their numbers: who proposes in each, operator 0 or 1.
    pub rounds: Vec<u8>,
    /// The rule that is taken out.
    pub without: Option<Defect>,
}

/// A node's durable state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Acceptor {
    /// The highest round it takes part in; 0 is none.
    promised: u8,
    /// The highest round it accepted in, and what.
    accepted: Option<(u8, u8)>,
}

/// An operator's round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Round {
    /// Who has promised, each by its bit.
    promises: u8,
    /// What of the accepted it goes by.
    highest: Option<(u8, u8)>,
    /// What it asks to accept, once it asks.
    asks: Option<u8>,
    /// Who has accepted.
    accepts: u8,
}

/// All nodes and rounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    nodes: [Acceptor; NODES],
    rounds: Vec<Round>,
}

impl World {
    /// The layouts that a majority has accepted in some round.
    fn chosen(&self, needed: u32) -> Vec<u8> {
        let rounds = self.rounds.iter();
        let chosen = rounds.filter(|round| round.accepts.count_ones() >= needed);
        chosen.filter_map(|round| round.asks).collect()
    }
}

/// A step; rounds are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node promises.
    Promise {
        /// The round.
        round: u8,
        /// The node.
        node: usize,
    },
    /// The operator has heard enough, and asks.
    Ask {
        /// The round.
        round: u8,
    },
    /// A node accepts.
    Accept {
        /// The round.
        round: u8,
        /// The node.
        node: usize,
    },
}

impl Bounds {
    fn has(&self, defect: Defect) -> bool {
        self.without == Some(defect)
    }

    fn majority(&self) -> u32 {
        match self.has(Defect::NoMajority) {
            true => 1,
            false => MAJORITY,
        }
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            nodes: Default::default(),
            rounds: vec![Round::default(); self.rounds.len()],
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (at, round) in world.rounds.iter().enumerate() {
            let number = at as u8 + 1;
            for (node, acceptor) in world.nodes.iter().enumerate() {
                let bit = 1 << node;
                if round.asks.is_none() && round.promises & bit == 0 && acceptor.promised < number {
                    steps.push(Step::Promise {
                        round: number,
                        node,
                    });
                }
                let may = acceptor.promised <= number || self.has(Defect::PromiseIgnored);
                if round.asks.is_some() && round.accepts & bit == 0 && may {
                    steps.push(Step::Accept {
                        round: number,
                        node,
                    });
                }
            }
            if round.asks.is_none() && round.promises.count_ones() >= self.majority() {
                steps.push(Step::Ask { round: number });
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        match step {
            Step::Promise { round, node } => {
                let acceptor = &mut world.nodes[node];
                acceptor.promised = round;
                let known = acceptor.accepted;
                let at = &mut world.rounds[usize::from(round) - 1];
                at.promises |= 1 << node;
                let takes = match (at.highest, known) {
                    (Some((highest, _)), Some((other, _))) => match self.has(Defect::AnyAccepted) {
                        true => other < highest,
                        false => other > highest,
                    },
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                if takes {
                    at.highest = known;
                }
            }
            Step::Ask { round } => {
                let own = self.rounds[usize::from(round) - 1];
                let at = &mut world.rounds[usize::from(round) - 1];
                at.asks = Some(match at.highest {
                    Some((_, value)) if !self.has(Defect::OwnProposal) => value,
                    _ => own,
                });
            }
            Step::Accept { round, node } => {
                let at = &mut world.rounds[usize::from(round) - 1];
                at.accepts |= 1 << node;
                let value = at.asks?;
                let acceptor = &mut world.nodes[node];
                acceptor.promised = acceptor.promised.max(round);
                if acceptor.accepted.is_none_or(|(known, _)| known <= round) {
                    acceptor.accepted = Some((round, value));
                }
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(
            "judged",
            |bounds: &Bounds, world: &World| {
                let chosen = world.chosen(bounds.majority());
                chosen.iter().all(|layout| *layout == chosen[0])
            },
        )]
    }
}
