//! What goes into a node and what comes out of it.

use quorate_protocol::{Answer, Header, Message, Request};
use quorate_ring::NodeId;
use quorate_storage::Progress;

use crate::telling::{Slow, Step};
use crate::vitals::Vitals;

/// Names a request that came from a client of this node; the driver chooses it and gets it back with the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Caller(pub u64);

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request(Caller, Header, Request),
    /// Another node says something. The transport has verified who it is.
    Message(NodeId, Message),
    /// The disk has come this far.
    Progress(Progress),
    /// A write or sync failed: nothing after it may be acknowledged.
    Poisoned(String),
    /// A node can be reached.
    Up(NodeId),
    /// A node cannot be reached any more; what was sent to it and not answered is lost.
    Down(NodeId),
    /// How the driver finds this node to be: its disk, its clock. Until the first of these, nothing is known of them, and
    /// nothing is refused for their sake, but for values that are to end; nor has anything expired. So this comes before
    /// the first request.
    Vitals(Box<Vitals>),
    /// The time named by [`Node::wake_at`] has come.
    Wake,
    /// Take no more requests from clients; those accepted are finished, and replicas are served.
    Drain,
}

/// What a node wants done.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "outputs live for a moment, and a box for each send costs more"
)]
pub enum Output {
    /// Send this to that node, if it is in reach.
    Send(NodeId, Message),
    /// Answer a client of this node.
    Answer(Caller, Answer),
    /// Something worth counting.
    Event(Event),
    /// A step of a traced request. Only if it was asked for, with [`crate::Node::tell_of`].
    Step(Step),
    /// A request that took long. Only if it was asked for, with [`crate::Node::tell_of`].
    Slow(Box<Slow>),
}

/// Things that happened, for metrics, and for the simulator to see that its rare paths ran.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// A request was passed on to a replica of its key.
    Forwarded,
    /// A passed-on request was tried at another node.
    ForwardedAgain,
    /// Replicas of a key showed different values to one read.
    Disagreement,
    /// A stale replica was sent what it lacked.
    ReadRepair,
    /// A stale replica was not sent what it lacked, as too much was on its way already.
    RepairDropped,
    /// A read asked all replicas because those asked first were slow.
    ReadWidened,
    /// A read or a forwarder asked one more replica, as one that it had asked was overdue.
    HedgeSent,
    /// That one answered before the other.
    HedgeWon,
    /// A read was not hedged, as hedges had used up their budget.
    HedgeRefused,
    /// A replica that no read had asked for a while was asked for its own sake.
    Probed,
    /// A read or a forwarder went on with a node that was lost and came back.
    AskedAfterReturn,
    /// A key's replicas told a listing different things, and it was read.
    ListDisagreement,
    /// A node that was asked to list keys refused or was lost, and its partitions were asked of others.
    ListReplicaLost,
    /// A listing asked all replicas because those asked first were slow.
    ListWidened,
    /// A put left more than one value.
    Siblings,
    /// A request came to an end without enough replicas, after something was sent.
    Unmet,
    /// A request was refused because too few replicas were in reach.
    Unavailable,
    /// A change of a bucket met another's and was proposed again on top of it.
    ChangeAgain,
    /// Another node's table told of a bucket's change that this node had missed.
    BucketLearnt,
    /// Everything that a dropped bucket left on this node is removed.
    Reclaimed,
    /// A request met a replica that knew a later life of its bucket.
    BucketChanged,
    /// The condition of a write held.
    ConditionHeld,
    /// The condition of a write did not hold, and nothing was done.
    ConditionFailed,
    /// An answer went out with an account of how it came about.
    Explained,
    /// A read hid a value whose time was up.
    ExpiredHidden,
    /// A value was dropped for good, as its time had been up for longer than clocks may differ.
    ExpiredDropped,
    /// A write asked a fallback to keep a hint for a primary that did not take it.
    HintAsked,
    /// It asked for none, since this node's requests wait for too many hints already.
    HintNotAsked,
    /// This node keeps a hint.
    HintKept,
    /// A fallback that was asked for a hint has as many for that node as it may.
    HintRefused,
    /// A hint was handed over, and its owner has it on disk.
    HandedOff,
    /// A hint was handed over, and had changed meanwhile: it is sent again.
    HandoffAgain,
    /// An owner refused a hint, which is sent again later.
    HandoffRefused,
    /// A hint was dropped, as its bucket's life is over.
    HintDropped,
    /// A node that is no replica of a key coordinated a request on it, as none of its primaries was in reach.
    FallbackCoordinated,
    /// A read asked a fallback for what it keeps.
    FallbackRead,
    /// An exchange with another replica came to its end.
    Exchanged,
    /// An exchange was broken off, and is made again later.
    ExchangeBroken,
    /// An exchange joined two different records of a key.
    KeyReconciled,
    /// This node found that it has lost state that it had acknowledged.
    LossFound,
    /// A vnode that had lost state has got all of it back from the others.
    Refilled,
    /// A value that was seen here, is gone, and came again: the primaries are heard about it.
    AbsenceJudged,
    /// It was found to be removed.
    AbsenceUpheld,
    /// It was found to be alive, and given back.
    Reinstated,
    /// Not enough primaries were heard.
    AbsenceUndecided,
    /// A record was found damaged or missing.
    DamageFound,
    /// Such a record was made good.
    DamageMended,
    /// A tree was compared with its records.
    TreeVerified,
    /// All replicas confirmed removals of some keys, and are told to forget them.
    Collected,
    /// A round of collecting was broken off, or nothing could be confirmed.
    CollectBroken,
    /// The evidence of a key was forgotten.
    Forgotten,
    /// A read asked a replica what became of values that another shows and it lacks.
    AskedAgain,
    /// This node learnt of a new layout.
    LayoutBegun,
    /// This node knows that all nodes of the new layout have synced.
    LayoutComplete,
    /// The layout before is not live any more.
    LayoutRetired,
    /// What a node told of layouts cannot be true together with what is known here.
    LayoutsUnsound,
    /// A node refused what was asked of it, as the two know different layouts.
    TurnedAway,
    /// A read began anew with the replicas of another layout.
    ReadMoved,
    /// What was left of a vnode that this node holds no more is gone.
    VnodeDropped,
    /// A hint was handed over to another than the one it was kept for, who is no replica of it any more.
    HintReaddressed,
    /// A value was refused because this node's disk is nearly full: a put of a client, or a copy from another coordinator.
    DiskFull,
}
