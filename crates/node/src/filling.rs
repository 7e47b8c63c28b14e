//! Filling the vnodes of a new layout from the nodes of the one before (rule R4).
//!
//! A node has *synced* once each vnode that it is to hold has exchanged completely with every replica of the layout before that is not gone for
//! good, and it has compared tables of buckets with every node of that layout: all of it begun after both sides were sealed, by knowing
//! the new one. So whatever was acknowledged by a quorum of the layout before is here, and what comes later names the new one. Those that
//! hold a vnode in both do the same: else one of them alone may hold what a quorum did before.
//!
//! A vnode that its node did not hold before is a *newcomer* until then: it answers nothing, as one that has lost state, and
//! adopts what those have seen from which it is filled.

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::{LiveLayouts, Pace, RequestId, VnodeId};
use quorate_ring::{NodeId, ReplicaSetId};
use quorate_storage::{Storage, Ticket};

use crate::api::Output;
use crate::layouts::Layouts;
use crate::node::Node;
use crate::time::Time;

/// How far this node is with a change.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    /// What takes effect once it is on disk.
    pub(crate) coming: Option<(Ticket, Layouts)>,
    /// What was told, and waits until what is left of earlier changes is gone.
    pub(crate) postponed: Option<LiveLayouts>,
    /// Whether what comes is this node's own contribution, that nobody else knows.
    pub(crate) has_news: bool,
    /// The nodes that are known to know the latest layout.
    sealed: BTreeSet<NodeId>,
    /// What their tables were asked for as.
    comparing: BTreeMap<RequestId, NodeId>,
    /// Those whose tables were compared since.
    compared: BTreeSet<NodeId>,
    /// Whom this node has told of layouts, and waits for what it knows: since when.
    pub(crate) telling: BTreeMap<NodeId, Time>,
    /// Vnodes that this node holds no more, and whose data it has yet to drop.
    pub(crate) leftovers: BTreeSet<VnodeId>,
}

impl Filling {
    /// The layouts are others.
    fn begin(&mut self) {
        self.sealed.clear();
        self.comparing.clear();
        self.compared.clear();
    }
}

impl<S: Storage> Node<S> {
    /// Whether an exchange of this vnode has to wait, since somebody has paused the change: those that are here already go on being compared.
    pub(crate) fn is_paused(&self, vnode: VnodeId) -> bool {
        self.layouts.pace().is_paused() && self.replica.newcomers.contains(&vnode)
    }

    /// By how many bytes of exchanges in a second this node is filled.
    pub(crate) fn fill_rate(&self) -> u64 {
        let configured = self.config.limits.fill_bytes_per_second;
        let pace = self.layouts.pace().bytes_per_second;
        pace.filter(|bytes| *bytes > 0).unwrap_or(configured).max(1)
    }

    /// Sets how fast nodes are filled from here on.
    pub(crate) fn set_pace(
        &mut self,
        bytes_per_second: Option<u64>,
        out: &mut Vec<Output>,
    ) -> Pace {
        let coming = self.filling.coming.as_ref();
        let latest = coming.map_or(&self.layouts, |(_, coming)| coming);
        let known = latest.with_pace(bytes_per_second);
        self.filling.has_news = true;
        self.take_layouts(&known, out);
        known.pace
    }

    /// Whether a vnode of this node has yet to be filled from another for the layout that is to be complete.
    pub(crate) fn is_to_be_filled_from(&mut self, vnode: VnodeId, peer: NodeId) -> bool {
        let sources = self.sources(vnode);
        let version = self.layouts.version();
        sources.is_some_and(|all| all.contains(&peer))
            && matches!(self.replica.vnode(vnode), Ok(v) if !v.is_synced(version))
    }

    /// Whom a vnode of this node is to be filled from, for the layout that is to be complete; `None` if there is no such, or if it has no such
    /// vnode.
    fn sources(&self, vnode: VnodeId) -> Option<BTreeSet<NodeId>> {
        let change = self.layouts.change()?;
        let placement = self.buckets.placement(vnode.set)?;
        let mut writers = placement.writers(vnode.partition);
        let (old, new) = (writers.next()?, writers.next()?);
        let me = self.config.me;
        new.iter().find(|seat| seat.node == me)?;
        let old = old.iter().map(|seat| seat.node);
        Some(
            old.filter(|n| *n != me && !change.chosen.dead.contains(n))
                .collect(),
        )
    }

    /// Whether this node held a vnode in the layout before.
    fn is_newcomer(&self, vnode: VnodeId) -> bool {
        let me = self.config.me;
        let placement = self.buckets.placement(vnode.set);
        let before = placement.and_then(|p| p.writers(vnode.partition).next());
        before.is_none_or(|seats| seats.iter().all(|seat| seat.node != me))
    }

    /// The layouts are others, or were just read from disk: what is to be filled.
    pub(crate) fn begin_filling(&mut self) {
        self.filling.begin();
        self.replica.newcomers.clear();
        self.fill(|_| true);
    }

    /// A replica set is new here, in the middle of a change: as others may have had it from before, its vnodes are filled too; but not if this
    /// node has said that it has all. Then whoever had it made it known to a quorum of the new layout.
    pub(crate) fn fill_set(&mut self, set: ReplicaSetId) {
        let me = self.config.me;
        let has_synced = self.layouts.change().is_none_or(|c| c.synced.contains(&me));
        if !has_synced {
            self.fill(|vnode| vnode.set == set);
            self.exchange_soon(|vnode, _| vnode.set == set);
        }
    }

    fn fill(&mut self, which: impl Fn(VnodeId) -> bool) {
        let version = self.layouts.version();
        for vnode in self.own_vnodes().into_iter().filter(|v| which(*v)) {
            let Some(sources) = self.sources(vnode) else {
                continue;
            };
            let is_newcomer = self.is_newcomer(vnode);
            if let Ok(state) = self.replica.vnode_unchecked(vnode)
                && is_newcomer
                && !state.is_synced(version)
            {
                self.replica.newcomers.insert(vnode);
            }
            // Where there is nobody to be filled from.
            if sources.is_empty() {
                let _ = self.replica.synced(vnode, None, version, &sources);
            }
        }
    }

    /// A vnode has exchanged completely with another replica, both of them sealed.
    pub(crate) fn filled_from(
        &mut self,
        vnode: VnodeId,
        peer: NodeId,
    ) -> Result<(), quorate_protocol::Refusal> {
        match self.sources(vnode) {
            Some(all) => {
                let version = self.layouts.version();
                self.replica.synced(vnode, Some(peer), version, &all)
            }
            None => Ok(()),
        }
    }

    /// A node is known to know the latest layout: its table is compared from here on.
    pub(crate) fn is_sealed(&mut self, node: NodeId, out: &mut Vec<Output>) {
        if self.layouts.change().is_some() && self.filling.sealed.insert(node) {
            let id = self.compare(node, out);
            self.filling.comparing.insert(id, node);
        }
    }

    /// A node has told its table, or that it is the same.
    pub(crate) fn on_compared(&mut self, from: NodeId, id: RequestId) {
        if self.filling.comparing.get(&id) == Some(&from) {
            self.filling.comparing.remove(&id);
            self.filling.compared.insert(from);
        }
    }

    /// How many of the vnodes that this node is to hold by the layout under way it has from all their sources, and of how many.
    pub(crate) fn how_far_filled(&mut self) -> (usize, usize) {
        if self.layouts.change().is_none() {
            return (0, 0);
        }
        let version = self.layouts.version();
        let own = self.own_vnodes().into_iter();
        let to_fill: Vec<VnodeId> = own.filter(|v| self.sources(*v).is_some()).collect();
        let is_filled =
            |v: &&VnodeId| matches!(self.replica.vnode(**v), Ok(v) if v.is_synced(version));
        (to_fill.iter().filter(is_filled).count(), to_fill.len())
    }

    /// Whether this node has all that the layout before had of what it is to hold.
    fn has_synced(&mut self) -> bool {
        let Some(change) = self.layouts.change() else {
            return false;
        };
        let me = self.config.me;
        if change.chosen.layout.node(me).is_none() || change.synced.contains(&me) {
            return false;
        }
        let before = self.layouts.current().nodes().iter().map(|n| n.id);
        let mut before = before.filter(|n| *n != me && !change.chosen.dead.contains(n));
        if !before.all(|n| self.filling.compared.contains(&n)) {
            return false;
        }
        let version = self.layouts.version();
        self.own_vnodes().into_iter().all(|vnode| {
            self.sources(vnode).is_none()
                || matches!(self.replica.vnode(vnode), Ok(v) if v.is_synced(version))
        })
    }

    /// While the layout changes: asks again for what was lost on the way, and says so once this node has synced, or knows that all have.
    pub(crate) fn go_on_filling(&mut self, out: &mut Vec<Output>) {
        if self.layouts.change().is_none() {
            return;
        }
        let missing: Vec<NodeId> = self
            .up_peers()
            .into_iter()
            .filter(|n| !self.filling.compared.contains(n))
            .collect();
        for node in missing {
            match self.filling.sealed.contains(&node) {
                true => {
                    let id = self.compare(node, out);
                    self.filling.comparing.insert(id, node);
                }
                false => self.tell_layouts(node, out),
            }
        }
        let has_synced = self.has_synced();
        if let Some(known) = self.layouts.with_own(self.config.me, has_synced) {
            self.filling.has_news = true;
            self.take_layouts(&known, out);
        }
    }
}
