//! Which protocol is explored: the one that stands, or one with a rule taken out.

/// A rule taken out. Each must be caught, or the model shows nothing; four are only where another is out too (`tests/mutants.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Defect {
    /// An incoming copy of a dot seen before is taken as new.
    NoFilter,
    /// Evidence is collected once a majority has confirmed.
    CollectAtMajority,
    /// A confirmation is sent before what it says is on disk.
    ConfirmBeforeSync,
    /// The collector confirms when the round begins instead of last.
    CollectorConfirmsFirst,
    /// A collector that was restarted goes on with its round.
    RoundOutlivesCollector,
    /// Evidence of a dot that is covered by an adopted clock alone is not stored.
    AdoptedRemovalIgnored,
    /// A replica acknowledges a value that it kept out.
    KeptOutIsAcknowledged,
    /// An exchange carries records that differ in what is live, and no evidence of others.
    EvidenceStaysBehind,
    /// Adopted clocks vote for removing.
    AdoptedVotes,
    /// Adopted clocks say nothing, even where nobody intact holds the dot.
    AdoptedIsMute,
    /// An amnesiac votes for removing whatever it lacks.
    AmnesiacVotes,
    /// What an amnesiac holds counts as held.
    AmnesiacHolds,
    /// An amnesiac confirms removals.
    AmnesiacConfirms,
    /// A replica that was set back does not become amnesiac.
    NoAmnesia,
    /// An amnesiac counts an exchange although the other side kept some of its dots out.
    DoubtIsComplete,
    /// A write that comes during an amnesiac's exchange is taken though the other side had seen its dot.
    WritesPassRefill,
    /// An amnesiac counts after one exchange.
    OneExchangeRefills,
    /// Whoever never saw a dot votes for removing it.
    NeverSeenVotes,
    /// One vote removes a dot that an intact replica holds.
    OneVoteRemoves,
    /// Votes remove nothing: whatever is missing is given back.
    AlwaysReinstated,
    /// A dot is given back although its removal was heard of since it was asked for.
    PullNotVoid,
    /// The same if that removal left no new evidence.
    PullVoidByStoredAlone,
    /// An exchange adopts the other's clock as it is at the end.
    AdoptsAtEnd,
    /// A removal is told without what stands in the place of what it removes.
    RemovalComesAlone,
    /// Of a write whose value is kept out, the removals are taken.
    WritesTakenInPart,
    /// A replica that was set back names its next write as it named one that it has lost.
    MintsAgain,
    /// A replica confirms what it has seen, and does not look whether it is live.
    ConfirmsUnapplied,
    /// Whoever was not heard is taken not to lack the dot.
    UnheardHolds,
    /// What nobody who was heard holds is removed too.
    NobodyHoldsRemoves,
    /// A round goes on though a replica that has confirmed was set back since.
    ConfirmationOutlivesLoss,
}

impl Defect {
    /// All of them.
    pub const ALL: [Defect; 30] = [
        Defect::NoFilter,
        Defect::CollectAtMajority,
        Defect::ConfirmBeforeSync,
        Defect::CollectorConfirmsFirst,
        Defect::RoundOutlivesCollector,
        Defect::AdoptedRemovalIgnored,
        Defect::KeptOutIsAcknowledged,
        Defect::EvidenceStaysBehind,
        Defect::AdoptedVotes,
        Defect::AdoptedIsMute,
        Defect::AmnesiacVotes,
        Defect::AmnesiacHolds,
        Defect::AmnesiacConfirms,
        Defect::NoAmnesia,
        Defect::DoubtIsComplete,
        Defect::WritesPassRefill,
        Defect::OneExchangeRefills,
        Defect::NeverSeenVotes,
        Defect::OneVoteRemoves,
        Defect::AlwaysReinstated,
        Defect::PullNotVoid,
        Defect::PullVoidByStoredAlone,
        Defect::AdoptsAtEnd,
        Defect::RemovalComesAlone,
        Defect::WritesTakenInPart,
        Defect::MintsAgain,
        Defect::ConfirmsUnapplied,
        Defect::UnheardHolds,
        Defect::NobodyHoldsRemoves,
        Defect::ConfirmationOutlivesLoss,
    ];
}

/// A set of defects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules(u32);

impl Rules {
    /// The protocol with these defects.
    #[must_use]
    pub fn without(defects: &[Defect]) -> Self {
        Rules(defects.iter().fold(0, |set, &d| set | 1 << d as u32))
    }

    /// Whether it has this one.
    #[must_use]
    pub fn has(self, defect: Defect) -> bool {
        self.0 & 1 << defect as u32 != 0
    }
}
