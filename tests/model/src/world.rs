//! Three replicas, what is on its way between them, and every step that may happen.

use crate::replica::{Account, Dots, Peers, Replica, Vote};
use crate::rules::{Defect, Rules};

/// Replicas, all primaries of the one key.
pub const REPLICAS: usize = 3;
/// Of them, what acknowledges a write and what removes a dot that an intact replica holds.
pub const MAJORITY: usize = 2;
/// Most writes in a run.
pub const MAX_WRITES: usize = 4;

/// What may go wrong, each at most once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// A restart that loses what was not synced: what the replica has not answered for.
    Crash,
    /// A replica is opened with an older state, and notices.
    Rollback,
    /// A copy of any write's message reaches any replica at any later time.
    LateHint,
    /// A replica's record vanishes and nothing tells it.
    RecordLoss,
    /// A replica is opened empty.
    Replacement,
}

impl Fault {
    /// All faults.
    pub const ALL: [Fault; 5] = [
        Fault::Crash,
        Fault::Rollback,
        Fault::LateHint,
        Fault::RecordLoss,
        Fault::Replacement,
    ];

    /// Its bit.
    #[must_use]
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::Rollback => "rollback",
            Fault::LateHint => "hint",
            Fault::RecordLoss => "loss",
            Fault::Replacement => "replacement",
        }
    }

    /// Whether it takes away what was acknowledged.
    #[must_use]
    pub fn takes_away(self) -> bool {
        matches!(
            self,
            Fault::Rollback | Fault::RecordLoss | Fault::Replacement
        )
    }
}

/// How many of the faults were such as take away what was acknowledged.
fn destructive(spent: u8) -> usize {
    Fault::ALL
        .iter()
        .filter(|f| f.takes_away() && spent & f.bit() != 0)
        .count()
}

/// A put or delete that a client has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    /// What it carries to the replicas: its dot (none for a delete) and the dots that it removes.
    pub change: Account,
    /// Replicas that its message has not reached.
    pub pending: Peers,
    /// Who runs it.
    pub coordinator: u8,
    /// The coordinator still counts acknowledgements.
    pub open: bool,
}

/// What the judge demands, by dot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owed {
    /// Put and acknowledged: live in the end, or superseded.
    pub live: Dots,
    /// Removed by an acknowledged write: live nowhere in the end.
    pub gone: Dots,
    /// As `live`, acknowledged by two replicas that were intact: every strict read must see it.
    pub strict_live: Dots,
    /// As `gone`, acknowledged by two replicas that were intact.
    pub strict_gone: Dots,
}

/// The first phase of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Round {
    /// Who collects.
    pub collector: u8,
    /// The removed dots that all who were asked have confirmed.
    pub dots: Dots,
    /// Who has confirmed.
    pub confirmed: Peers,
}

/// An exchange that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Begun {
    /// Who began it.
    pub by: u8,
    /// With whom.
    pub with: u8,
    /// The record of the first, on its way; `None` if their live dots were equal: then
    /// evidence alone travels, to whom adopts.
    pub record: Option<Account>,
    /// What the other had seen.
    pub seen: Dots,
}

/// A hearing about a dot that is live somewhere and missing elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hearing {
    /// Who lacks the dot and asks.
    pub judge: u8,
    /// The dot.
    pub dot: Dots,
    /// What was said, by replica.
    pub told: [Option<Vote>; REPLICAS],
    /// The records that came with it.
    pub records: Account,
    /// The judge heard of a removal since it began (R13).
    pub disturbed: bool,
}

/// Everything there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct World {
    /// The replicas.
    pub replicas: [Replica; REPLICAS],
    /// The writes so far; the first `issued` count.
    pub writes: [Write; MAX_WRITES],
    /// How many writes there were.
    pub issued: u8,
    /// What is owed.
    pub owed: Owed,
    /// Dots that were removed after two faults because nobody intact held them: nothing is owed for them.
    pub given_up: Dots,
    /// Faults that were used.
    pub spent: u8,
    /// How often a replica was moved to another node.
    pub moves: u8,
    /// An older state of a replica, for the rollback to come.
    pub copy: Option<(u8, Replica)>,
    /// The state that a crash of this replica would leave: what it did since is not synced.
    pub synced: Option<(u8, Replica)>,
    /// Collection, first phase.
    pub round: Option<Round>,
    /// Collection, second phase: the dots to forget and who has not been told.
    pub forget: (Dots, Peers),
    /// An exchange under way.
    pub begun: Option<Begun>,
    /// A hearing under way.
    pub hearing: Option<Hearing>,
    /// Which dots each replica has minted, if they may be minted twice.
    pub minters: [Dots; REPLICAS],
    /// A dot that was minted twice, and the number of the write that did.
    pub minted_twice: Option<(Dots, u8)>,
}

/// How a hearing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The dot was removed.
    Remove,
    /// It lives, and whoever lacks it has lost it.
    Keep,
    /// Too few were heard.
    Undecided,
}

/// What the votes of all primaries say; `None` for one that was not heard.
#[must_use]
pub fn verdict(votes: &[Option<Vote>; REPLICAS], rules: Rules) -> Verdict {
    let count = |vote: Option<Vote>| votes.iter().filter(|v| **v == vote).count();
    let (lacks, unheard) = (count(Some(Vote::Lacks)), count(None));
    let needed = if rules.has(Defect::OneVoteRemoves) {
        1
    } else {
        MAJORITY
    };
    if count(Some(Vote::Removed)) > 0 {
        Verdict::Remove
    } else if rules.has(Defect::AlwaysReinstated) {
        Verdict::Keep
    } else if count(Some(Vote::Live)) > 0 {
        match () {
            () if lacks >= needed => Verdict::Remove,
            () if lacks + unheard >= needed && !rules.has(Defect::UnheardHolds) => {
                Verdict::Undecided
            }
            () => Verdict::Keep,
        }
    } else if unheard > 0 {
        Verdict::Undecided
    } else if count(Some(Vote::LiveUnsure)) == 0 && !rules.has(Defect::NobodyHoldsRemoves) {
        // There is nothing to remove, and the write may still be on its way.
        Verdict::Undecided
    } else if lacks > 0 || count(Some(Vote::FilledWithout)) > 0 {
        Verdict::Remove
    } else if count(Some(Vote::LiveUnsure)) > 0 {
        Verdict::Keep
    } else {
        Verdict::Undecided
    }
}

/// The single dots of a set.
pub fn each(dots: Dots) -> impl Iterator<Item = Dots> {
    (0..MAX_WRITES)
        .map(|i| 1 << i)
        .filter(move |d| dots & d != 0)
}

impl World {
    /// What need not be shown where `shown` is: that itself, and whatever was superseded by a delete, or by a put that need not be
    /// shown either. A write that was not acknowledged may count or not, but not in part.
    #[must_use]
    pub fn accounted(&self, shown: Dots) -> Dots {
        let mut all = shown;
        for _ in 0..=MAX_WRITES {
            for (number, write) in self.writes.iter().enumerate() {
                if write.change.live == 0 || write.change.live & all != 0 {
                    // A name that was given again says nothing of what it named before.
                    let renewed = self
                        .minted_twice
                        .filter(|(_, by)| usize::from(*by) >= number);
                    all |= write.change.evidence & !renewed.map_or(0, |(dot, _)| dot);
                }
            }
        }
        all
    }

    /// The dots minted so far.
    #[must_use]
    pub fn minted(&self) -> Dots {
        self.writes.iter().fold(0, |all, w| all | w.change.live)
    }

    /// A client's write at `at`, whose messages are out before anything is synced.
    pub fn write(&mut self, at: usize, put: bool, context: Dots, rules: Rules) {
        let number = usize::from(self.issued);
        let live = if put { self.mint(at, rules) } else { 0 };
        let change = Account {
            live,
            evidence: context,
        };
        let pending = 0b111 & !(1 << at);
        self.writes[number] = Write {
            change,
            pending,
            coordinator: at as u8,
            open: true,
        };
        self.issued += 1;
        self.merge(at, change, rules);
    }

    /// The name of the next write: its number, unless names are given twice.
    fn mint(&mut self, at: usize, rules: Rules) -> Dots {
        let mut dot = 1 << self.issued;
        if !rules.has(Defect::MintsAgain) {
            return dot;
        }
        let forgotten = self.minters[at] & !self.replicas[at].minted;
        if let Some(again) = each(forgotten).next() {
            dot = again;
            self.minted_twice = Some((dot, self.issued));
            // What was acknowledged under that name was another value.
            for owed in [&mut self.owed.live, &mut self.owed.strict_live] {
                *owed &= !dot;
            }
            for owed in [&mut self.owed.gone, &mut self.owed.strict_gone] {
                *owed &= !dot;
            }
        }
        self.minters[at] |= dot;
        self.replicas[at].minted |= dot;
        dot
    }

    /// All merges go through here, so that a hearing is void once its judge heard of a removal.
    fn merge(&mut self, at: usize, incoming: Account, rules: Rules) {
        let before = self.replicas[at].record.evidence;
        self.replicas[at].merge(incoming, rules);
        let heard = match rules.has(Defect::PullVoidByStoredAlone) {
            true => self.replicas[at].record.evidence & !before,
            false => incoming.evidence,
        };
        if let Some(hearing) = &mut self.hearing
            && usize::from(hearing.judge) == at
        {
            hearing.disturbed |= heard != 0;
        }
    }

    /// A replica is told of removals by another; returns whether none was news.
    ///
    /// News are taken with the whole record of the other. Else there would be nothing here in the place of what is removed, and
    /// whoever reads here would be shown neither.
    fn remove(&mut self, at: usize, by: usize, dots: Dots, rules: Rules) -> bool {
        let replica = &self.replicas[at];
        let are_news = dots & (replica.record.live | !replica.ignores(rules)) != 0;
        if !are_news || rules.has(Defect::RemovalComesAlone) {
            // Also where there is nothing to take it makes a hearing void.
            self.merge(
                at,
                Account {
                    live: 0,
                    evidence: dots,
                },
                rules,
            );
            return true;
        }
        let record = self.replicas[by].record;
        self.merge(at, record, rules);
        false
    }

    /// What this replica has done is synced.
    fn sync(&mut self, at: usize) {
        self.synced = self.synced.filter(|(r, _)| usize::from(*r) != at);
    }

    /// A write, or a hint of one, comes to a replica. It is taken wholly or not at all; returns whether it was.
    ///
    /// A value that was seen before and never was here is not: nobody could count on its being here. Nor is what the
    /// other side of a refill has seen: it comes with the exchange, or not at all.
    fn take(&mut self, at: usize, change: Account, rules: Rules) -> bool {
        let replica = &self.replicas[at];
        let refill = self
            .begun
            .filter(|b| usize::from(b.by) == at && !replica.intact());
        let mut kept_out = replica.unexplained(change.live) & !replica.own;
        if let Some(begun) = refill
            && !rules.has(Defect::WritesPassRefill)
        {
            kept_out |= change.live & begun.seen & !replica.record.live;
        }
        if kept_out == 0 || rules.has(Defect::KeptOutIsAcknowledged) {
            self.merge(at, change, rules);
            return true;
        }
        if rules.has(Defect::WritesTakenInPart) {
            self.merge(at, Account { live: 0, ..change }, rules);
        }
        false
    }

    /// A write's message reaches a replica, which syncs and acknowledges. The first acknowledgement and the coordinator's
    /// own sync are two of three: the client is told.
    pub fn deliver(&mut self, number: usize, at: usize, rules: Rules) {
        let write = self.writes[number];
        self.writes[number].pending &= !(1 << at);
        if !self.take(at, write.change, rules) || !write.open {
            return;
        }
        let coordinator = usize::from(write.coordinator);
        self.sync(at);
        self.sync(coordinator);
        let (dot, context) = (write.change.live, write.change.evidence);
        self.owed.live |= dot;
        self.owed.gone |= context;
        if self.replicas[at].intact() && self.replicas[coordinator].intact() {
            self.owed.strict_live |= dot;
            self.owed.strict_gone |= context;
        }
        self.writes[number].open = false;
        self.excuse();
    }

    /// A copy of a write's message that was held aside comes at last.
    pub fn hint(&mut self, number: usize, at: usize, rules: Rules) {
        self.spent |= Fault::LateHint.bit();
        self.take(at, self.writes[number].change, rules);
    }

    /// A replica begins an exchange with another.
    #[must_use]
    pub fn begin(&self, by: usize, with: usize) -> Begun {
        let (mine, theirs) = (&self.replicas[by], &self.replicas[with]);
        let record = (mine.record.live != theirs.record.live).then_some(mine.record);
        Begun {
            by: by as u8,
            with: with as u8,
            record,
            seen: theirs.seen(),
        }
    }

    /// The exchange ends: the other takes the record that was sent, the first takes the other's, and adopts what that had
    /// seen at the beginning.
    pub fn finish(&mut self, begun: Begun, rules: Rules) {
        let (by, with) = (usize::from(begun.by), usize::from(begun.with));
        let at_end = self.replicas[with].seen();
        // What an amnesiac holds and the other keeps out may be of before the loss: it is to be judged first.
        let mut doubtful = false;
        let evidence = self.replicas[with].record.evidence;
        let mut differs = begun.record;
        if differs.is_none() && !rules.has(Defect::EvidenceStaysBehind) {
            let mine = self.replicas[by].record;
            differs = Some(mine).filter(|_| !self.remove(by, with, evidence, rules));
        }
        if let Some(sent) = differs {
            self.merge(with, sent, rules);
            let theirs = self.replicas[with].record;
            self.merge(by, theirs, rules);
            doubtful = sent.live & !theirs.live & !theirs.evidence != 0;
        }
        let amnesiac = !self.replicas[by].intact();
        if amnesiac && doubtful && !rules.has(Defect::DoubtIsComplete) {
            return;
        }
        let seen = if rules.has(Defect::AdoptsAtEnd) {
            at_end
        } else {
            begun.seen
        };
        self.replicas[by].adopt(seen, with, rules);
    }

    /// What may be judged: who lacks a dot unexplained that another holds.
    #[must_use]
    pub fn absences(&self) -> Vec<(usize, Dots)> {
        let live = self.replicas.iter().fold(0, |all, r| all | r.record.live);
        let of = |at: usize| each(self.replicas[at].unexplained(live)).map(move |dot| (at, dot));
        (0..REPLICAS).flat_map(of).collect()
    }

    /// A hearing begins.
    pub fn hear(&mut self, judge: usize, dot: Dots) {
        let told = [None; REPLICAS];
        let records = Account::default();
        self.hearing = Some(Hearing {
            judge: judge as u8,
            dot,
            told,
            records,
            disturbed: false,
        });
    }

    /// A replica testifies.
    pub fn testify(&mut self, at: usize, rules: Rules) {
        if let Some(hearing) = &mut self.hearing {
            let replica = &self.replicas[at];
            hearing.told[at] = Some(replica.testify(hearing.dot, rules));
            hearing.records.live |= replica.record.live;
            hearing.records.evidence |= replica.record.evidence;
        }
    }

    /// The hearing is decided by what was said so far.
    pub fn conclude(&mut self, rules: Rules) {
        let Some(hearing) = self.hearing.take() else {
            return;
        };
        let holds = |vote: &Option<Vote>| matches!(vote, Some(Vote::Live | Vote::LiveUnsure));
        match verdict(&hearing.told, rules) {
            Verdict::Remove => {
                if destructive(self.spent) >= 2 && !hearing.told.contains(&Some(Vote::Live)) {
                    self.given_up |= hearing.dot;
                    self.excuse();
                }
                let told = match rules.has(Defect::RemovalComesAlone) {
                    true => Account::default(),
                    false => hearing.records,
                };
                let evidence = told.evidence | hearing.dot;
                let removal = Account {
                    live: told.live & !evidence,
                    evidence,
                };
                let judge = usize::from(hearing.judge);
                for at in (0..REPLICAS).filter(|r| *r == judge || holds(&hearing.told[*r])) {
                    self.merge(at, removal, rules);
                }
            }
            // It takes a value that was told.
            Verdict::Keep if hearing.told.iter().any(holds) => {
                if !hearing.disturbed || rules.has(Defect::PullNotVoid) {
                    self.replicas[usize::from(hearing.judge)].reinstate(hearing.dot);
                }
            }
            Verdict::Keep | Verdict::Undecided => {}
        }
    }

    /// A collector begins a round with all its evidence.
    pub fn begin_round(&mut self, collector: usize, rules: Rules) {
        let dots = self.replicas[collector].record.evidence;
        if dots == 0 {
            return;
        }
        self.round = Some(Round {
            collector: collector as u8,
            dots,
            confirmed: 0,
        });
        if rules.has(Defect::CollectorConfirmsFirst) {
            self.ask(collector, rules);
        }
    }

    /// Whom the round may ask now: the collector itself comes last.
    #[must_use]
    pub fn to_ask(&self, rules: Rules) -> Vec<usize> {
        let Some(round) = self.round else {
            return Vec::new();
        };
        let collector = usize::from(round.collector);
        let open = |r: &usize| round.confirmed & 1 << r == 0;
        if rules.has(Defect::CollectAtMajority) {
            return (0..REPLICAS).filter(open).collect();
        }
        let others: Vec<usize> = (0..REPLICAS)
            .filter(|r| *r != collector)
            .filter(open)
            .collect();
        match others.is_empty() {
            true => Some(collector).filter(open).into_iter().collect(),
            false => others,
        }
    }

    /// The round asks a replica, which syncs and says which removals are done. One for which some are news confirms nothing:
    /// it is sent the collector's record.
    pub fn ask(&mut self, at: usize, rules: Rules) {
        let Some(mut round) = self.round.take() else {
            return;
        };
        let collector = usize::from(round.collector);
        if !self.replicas[at].intact() && !rules.has(Defect::AmnesiacConfirms) {
            return;
        }
        if !rules.has(Defect::ConfirmsUnapplied) && !self.remove(at, collector, round.dots, rules) {
            return;
        }
        let confirmed = self.replicas[at].confirms(round.dots, rules);
        if !rules.has(Defect::ConfirmBeforeSync) {
            self.sync(at);
        }
        round.dots &= confirmed;
        round.confirmed |= 1 << at;
        self.round = Some(round).filter(|r| r.dots != 0);
        let needed = match rules.has(Defect::CollectAtMajority) {
            true => MAJORITY,
            false => REPLICAS,
        };
        if round.dots != 0 && round.confirmed.count_ones() as usize >= needed {
            self.forget = (round.dots, 0b111);
            self.round = None;
        }
    }

    /// A replica is told to forget.
    pub fn forget(&mut self, at: usize) {
        self.forget.1 &= !(1 << at);
        let replica = &mut self.replicas[at];
        replica.record.evidence &= !(self.forget.0 & replica.seen());
        if self.forget.1 == 0 {
            self.forget.0 = 0;
        }
    }

    /// A restart: what its conversations knew is gone.
    fn restarted(&mut self, at: usize, rules: Rules) {
        for write in &mut self.writes {
            write.open &= usize::from(write.coordinator) != at;
        }
        if !rules.has(Defect::RoundOutlivesCollector) {
            self.round = self.round.filter(|r| usize::from(r.collector) != at);
        }
        self.begun = self.begun.filter(|b| ![b.by, b.with].contains(&(at as u8)));
        self.hearing = self.hearing.filter(|h| usize::from(h.judge) != at);
    }

    /// A replica crashes, and is opened with what was synced.
    pub fn crash(&mut self, at: usize, rules: Rules) {
        self.spent |= Fault::Crash.bit();
        if let Some((of, replica)) = self.synced.take()
            && usize::from(of) == at
        {
            self.replicas[at] = replica;
        }
        self.restarted(at, rules);
        self.excuse();
    }

    /// The replica is opened with an older state, or with none.
    pub fn set_back(&mut self, at: usize, to: Replica, fault: Fault, rules: Rules) {
        self.spent |= fault.bit();
        self.restarted(at, rules);
        self.sync(at);
        self.replicas[at] = to;
        if !rules.has(Defect::ConfirmationOutlivesLoss) {
            self.round = self.round.filter(|r| r.confirmed & 1 << at == 0);
        }
        if !rules.has(Defect::NoAmnesia) {
            self.replicas[at].amnesia = Some(0);
        }
        self.excuse();
    }

    /// A replica is moved to another node, as the layout changes: that is filled by all three, the one that leaves among them, and counts from then
    /// on. Returns whether that can be now: nobody is amnesiac, and nothing is left to be judged first.
    #[must_use]
    pub fn relocate(&mut self, at: usize, rules: Rules) -> bool {
        if self.replicas.iter().any(|r| !r.intact()) {
            return false;
        }
        self.moves += 1;
        self.restarted(at, rules);
        self.sync(at);
        self.copy = self.copy.filter(|(of, _)| usize::from(*of) != at);
        // Rounds are of the replicas of one layout.
        self.round = None;
        self.forget = (0, 0);
        let old = std::mem::take(&mut self.replicas[at]);
        let live = self
            .replicas
            .iter()
            .fold(old.record.live, |all, r| all | r.record.live);
        self.replicas[at].amnesia = Some(0);
        for with in (0..REPLICAS).filter(|r| *r != at) {
            let begun = self.begin(at, with);
            self.finish(begun, rules);
        }
        self.merge(at, old.record, rules);
        self.replicas[at].adopt(old.seen(), at, rules);
        self.replicas[at].intact() && self.replicas[at].unexplained(live) == 0
    }

    /// A replica loses its record and does not know.
    pub fn lose_record(&mut self, at: usize) {
        self.spent |= Fault::RecordLoss.bit();
        self.replicas[at].lose_record();
        if let Some((of, replica)) = &mut self.synced
            && usize::from(*of) == at
        {
            replica.lose_record();
        }
        self.excuse();
    }

    /// One fault takes nothing away that was acknowledged. Where there were more, what no intact replica has on disk any more
    /// is owed no longer; and as both that acknowledged may be those that lost it, strict reads owe nothing.
    fn excuse(&mut self) {
        if destructive(self.spent) < 2 {
            return;
        }
        let (mut held, mut told) = (0, 0);
        for (at, replica) in self.replicas.iter().enumerate().filter(|(_, r)| r.intact()) {
            let on_disk = match &self.synced {
                Some((of, synced)) if usize::from(*of) == at => synced,
                _ => replica,
            };
            held |= replica.record.live & on_disk.record.live;
            told |= replica.told & on_disk.told;
        }
        self.owed.live &= held & !self.given_up;
        self.owed.gone &= told;
        (self.owed.strict_live, self.owed.strict_gone) = (0, 0);
    }

    /// Leaves out what no longer makes a difference, so that equal worlds are equal states.
    pub fn tidy(&mut self) {
        for write in &mut self.writes {
            write.open &= write.pending != 0;
            if !write.open {
                write.coordinator = 0;
            }
        }
        if self.spent & Fault::Crash.bit() != 0 {
            self.synced = None;
        }
        if self.spent & Fault::RecordLoss.bit() != 0 || destructive(self.spent) >= 2 {
            // Strict reads are not judged any more.
            (self.owed.strict_live, self.owed.strict_gone) = (0, 0);
        }
    }

    /// The same for what matters after two faults alone.
    pub fn tidy_told(&mut self) {
        let others = [&mut self.copy, &mut self.synced].into_iter().flatten();
        for replica in self
            .replicas
            .iter_mut()
            .chain(others.map(|(_, replica)| replica))
        {
            replica.told = 0;
        }
    }
}
