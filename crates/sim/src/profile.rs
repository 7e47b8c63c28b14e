//! What a seed may draw from.

use std::str::FromStr;

/// Which faults a campaign allows, and how much work a seed does. Each seed draws a subset of the faults for itself
/// (swarm testing: Groce et al., 2012), since a run with every fault at once hides what a run with one shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The name it is asked for by.
    pub name: &'static str,
    /// Whether faults happen at all.
    pub faults: bool,
    /// Whether disks lose something in every seed, rather than in one of two.
    pub losses: bool,
    /// Whether operators change the layout.
    pub changes: bool,
    /// The fewest and the most operations of a seed.
    pub operations: (u32, u32),
    /// What is broken on purpose, to see that it is caught.
    pub mutant: Option<Mutant>,
}

impl Profile {
    /// All faults, some hundred operations: a minute or so of virtual time.
    pub const SHORT: Profile = Profile {
        name: "short",
        faults: true,
        losses: false,
        changes: false,
        operations: (60, 300),
        mutant: None,
    };
    /// All faults, some thousand operations.
    pub const LONG: Profile = Profile {
        name: "long",
        operations: (1_000, 4_000),
        ..Profile::SHORT
    };
    /// All faults, and a disk loses something in every seed: what is rare in the others is looked for here.
    pub const LOSSES: Profile = Profile {
        name: "losses",
        losses: true,
        ..Profile::SHORT
    };
    /// All faults, and operators change the layout all the time: nodes join, leave, take the place of others, and get other weights.
    pub const CHANGES: Profile = Profile {
        name: "changes",
        changes: true,
        ..Profile::SHORT
    };
    /// Changes of the layout, and no faults but delay.
    pub const MOVES: Profile = Profile {
        name: "moves",
        faults: false,
        ..Profile::CHANGES
    };
    /// No faults but delay: what fails here fails always.
    pub const CALM: Profile = Profile {
        name: "calm",
        faults: false,
        ..Profile::SHORT
    };

    /// Every profile that can be asked for.
    pub const ALL: [Profile; 6] = [
        Profile::SHORT,
        Profile::LONG,
        Profile::LOSSES,
        Profile::CHANGES,
        Profile::MOVES,
        Profile::CALM,
    ];

    /// The same profile with something broken.
    #[must_use]
    pub fn with(self, mutant: Mutant) -> Profile {
        Profile {
            mutant: Some(mutant),
            ..self
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = |p: &Profile| p.name == name;
        Profile::ALL.into_iter().find(known).ok_or_else(|| {
            let names: Vec<&str> = Profile::ALL.iter().map(|p| p.name).collect();
            format!(
                "there is no profile '{name}': choose one of {}",
                names.join(", ")
            )
        })
    }
}

/// A defect put in between the nodes and their world. The nodes themselves stay as they are, so that nothing of this is in
/// the product; what the nodes are told is what a defective node would have told itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Contexts of puts are ignored, as if no client had ever read.
    DropContexts,
    /// A restarted vnode goes by its former incarnation and counts from one again (against rule R1).
    ReuseCounter,
    /// Commits are reported synced at once, before the disk has them.
    AckBeforeSync,
    /// Records travel without their evidence.
    LoseEvidence,
    /// Replicas acknowledge a merge and do nothing.
    AckWithoutMerge,
    /// A read is answered by whichever replica comes first, whatever `r` says.
    ReadOne,
    /// The context of a put's answer names all that is live, not just the put (against rule R8).
    GreedyContext,
    /// Nodes say that they have noted a drop, and do not hear of it until everything is healed (against rule R11).
    DropUnheard,
    /// A replica that knows of a drop acknowledges writes to what was dropped (against rule R11).
    ServeTheDropped,
    /// Puts are made whether their conditions hold or not.
    IgnoreConditions,
    /// A listing asks one replica of each partition, whatever `r` says.
    ListOne,
    /// Copies have later deadlines than what they are copies of (against rule R16).
    ExtendTtl,
    /// Copies have no deadline, so that what has expired is shown (against rule R16).
    LoseTtl,
    /// A hint goes although its owner does not have it.
    SkipHintFlush,
    /// What a fallback keeps counts for `pw`.
    CountFallbackForPw,
    /// Evidence is forgotten although the last replica was not asked (against rule R5).
    CollectWithoutAsking,
    /// Who never had a value, or has lost state, votes as who had it and lacks it (against rule R3).
    LetAllVote,
    /// Nobody votes for a removal, so that every copy that comes late is given back (against rule R3).
    GiveAllBack,
    /// Nobody remembers how far another's store was (against rule R2).
    ForgetCommits,
    /// What is removed and not collected is no part of an exchange (against rule R14).
    AdoptWithoutEvidence,
    /// A replica of a read never says that a value it lacks was there.
    RecallNothing,
    /// Exchanges say that they have joined what differs, and do nothing.
    ExchangeNothing,
    /// Who knows a new layout takes writes that name the old one alone (against rule R4).
    TakeOldWrites,
    /// Who knows that a change is complete is read by the old layout (against rule R4).
    ServeOldReads,
    /// Nodes say that all have synced as soon as there is a new layout (against rule R4).
    SyncNothing,
    /// While the layout changes, whoever leaves a partition says that it takes writes, and does not.
    WriteNewAlone,
    /// Whoever is asked to accept a layout says so, and forgets it.
    AcceptAnyLayout,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Mutant; 27] = [
        Mutant::DropContexts,
        Mutant::ReuseCounter,
        Mutant::AckBeforeSync,
        Mutant::LoseEvidence,
        Mutant::AckWithoutMerge,
        Mutant::ReadOne,
        Mutant::GreedyContext,
        Mutant::DropUnheard,
        Mutant::ServeTheDropped,
        Mutant::IgnoreConditions,
        Mutant::ListOne,
        Mutant::ExtendTtl,
        Mutant::LoseTtl,
        Mutant::SkipHintFlush,
        Mutant::CountFallbackForPw,
        Mutant::CollectWithoutAsking,
        Mutant::LetAllVote,
        Mutant::GiveAllBack,
        Mutant::ForgetCommits,
        Mutant::AdoptWithoutEvidence,
        Mutant::RecallNothing,
        Mutant::ExchangeNothing,
        Mutant::TakeOldWrites,
        Mutant::ServeOldReads,
        Mutant::SyncNothing,
        Mutant::WriteNewAlone,
        Mutant::AcceptAnyLayout,
    ];

    /// Whether only a change of the layout shows it.
    #[must_use]
    pub fn is_of_changes(self) -> bool {
        use Mutant::{AcceptAnyLayout, ServeOldReads, SyncNothing, TakeOldWrites, WriteNewAlone};
        matches!(
            self,
            TakeOldWrites | ServeOldReads | SyncNothing | WriteNewAlone | AcceptAnyLayout
        )
    }
}
