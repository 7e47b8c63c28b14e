//! One replica's account of the one key, and the only ways by which data of others enters it.

use crate::rules::{Defect, Rules};

/// A set of dots, a bit for each: bit *i* is the dot of the *i*-th write of the run.
pub type Dots = u8;

/// A set of replicas, a bit for each.
pub type Peers = u8;

/// What an exchange, a write or a hint carries: live dots and removed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Dots whose values are live.
    pub live: Dots,
    /// Dots known to be removed.
    pub evidence: Dots,
}

/// The state of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    /// The record: what is live, and the removed dots that are not collected yet.
    pub record: Account,
    /// The vnode's own clock: dots that were applied here, live or removed. It votes.
    pub own: Dots,
    /// Dots covered only by clocks of others that were adopted. They filter and never vote. Disjoint from `own`.
    pub adopted: Dots,
    /// Set while amnesiac: with whom it has exchanged completely since it was opened.
    pub amnesia: Option<Peers>,
    /// For the judge of the model alone, no replica knows this of itself: dots of whose removal this replica took note and has
    /// not lost the trace.
    pub told: Dots,
    /// The counter it mints from: dots that it minted. Only followed where they may be minted twice.
    pub minted: Dots,
}

/// What a replica testifies about a dot that is live at one and missing at another (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vote {
    /// It has evidence of the removal.
    Removed,
    /// The dot is live there.
    Live,
    /// The dot is live at an amnesiac.
    LiveUnsure,
    /// It is intact, has applied the dot itself, and does not hold it.
    Lacks,
    /// It is intact, does not hold the dot, and was filled by those that had seen it.
    FilledWithout,
    /// It cannot know.
    Abstain,
}

impl Replica {
    /// What was seen: the dots of which an incoming copy is kept out unless it is live here.
    #[must_use]
    pub fn seen(&self) -> Dots {
        self.own | self.adopted
    }

    /// Not amnesiac.
    #[must_use]
    pub fn intact(&self) -> bool {
        self.amnesia.is_none()
    }

    /// Missing here without a reason that this replica could name.
    #[must_use]
    pub fn unexplained(&self, dots: Dots) -> Dots {
        dots & self.seen() & !self.record.live & !self.record.evidence
    }

    /// The dots of which evidence is not stored unless they are live here: it was, and may have been forgotten since (R14).
    #[must_use]
    pub fn ignores(&self, rules: Rules) -> Dots {
        match rules.has(Defect::AdoptedRemovalIgnored) {
            true => self.seen(),
            false => self.own,
        }
    }

    /// The one merge path.
    pub fn merge(&mut self, incoming: Account, rules: Rules) {
        let stored = incoming.evidence & (self.record.live | !self.ignores(rules));
        self.record.live &= !incoming.evidence;
        self.record.evidence |= stored;
        let kept_out = match rules.has(Defect::NoFilter) {
            true => 0,
            false => self.unexplained(incoming.live),
        };
        self.record.live |= incoming.live & !kept_out & !self.record.evidence;
        self.apply(incoming.live & !kept_out | stored);
        self.told |= stored;
    }

    /// Gives back a dot that was lost here: not a merge (R13), it passes the filter.
    pub fn reinstate(&mut self, dots: Dots) {
        let dots = dots & !self.record.evidence;
        self.record.live |= dots;
        self.told &= !dots;
        self.apply(dots);
    }

    fn apply(&mut self, dots: Dots) {
        self.own |= dots;
        self.adopted &= !self.own;
    }

    /// Ends a complete exchange with `peer`, which had seen `seen`.
    pub fn adopt(&mut self, seen: Dots, peer: usize, rules: Rules) {
        self.adopted = (self.adopted | seen) & !self.own;
        let needed = if rules.has(Defect::OneExchangeRefills) {
            1
        } else {
            2
        };
        if let Some(met) = &mut self.amnesia {
            *met |= 1 << peer;
            if met.count_ones() >= needed {
                self.amnesia = None;
            }
        }
    }

    /// What it says about one dot.
    #[must_use]
    pub fn testify(&self, dot: Dots, rules: Rules) -> Vote {
        let voting = if rules.has(Defect::AdoptedVotes) {
            self.seen()
        } else {
            self.own
        };
        let covers = voting & dot != 0 || rules.has(Defect::NeverSeenVotes);
        if self.record.evidence & dot != 0 {
            Vote::Removed
        } else if self.record.live & dot != 0 {
            match self.intact() || rules.has(Defect::AmnesiacHolds) {
                true => Vote::Live,
                false => Vote::LiveUnsure,
            }
        } else if !self.intact() && rules.has(Defect::AmnesiacVotes) || self.intact() && covers {
            Vote::Lacks
        } else if self.intact() && self.adopted & dot != 0 && !rules.has(Defect::AdoptedIsMute) {
            Vote::FilledWithout
        } else {
            Vote::Abstain
        }
    }

    /// Which of these removals are done here.
    #[must_use]
    pub fn confirms(&self, dots: Dots, rules: Rules) -> Dots {
        let live = match rules.has(Defect::ConfirmsUnapplied) {
            true => 0,
            false => self.record.live,
        };
        dots & self.seen() & !live
    }

    /// Its record vanishes and nothing tells it. Removals that had been collected are remembered by the clock alone,
    /// which stays; of others the trace is gone.
    pub fn lose_record(&mut self) {
        self.told &= !self.record.evidence;
        self.record = Account::default();
    }
}
