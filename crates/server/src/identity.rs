//! Whose data a directory holds: written at the first start, checked at every later one.
//!
//! A node that starts over another node's data would vote twice for what that node said; one that starts with another first
//! layout than its cluster's would look for its keys in the wrong places. Both are silent, so both are refused.

use quorate_ring::{ClusterId, Layout, NodeId};
use quorate_storage::{Batch, Family, Level, Storage, StorageError, Ticket};
use serde::{Deserialize, Serialize};

use crate::config::Checked;

const IDENTITY: &[u8] = b"identity";
const LAYOUT: &[u8] = b"layout";

#[derive(PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Identity {
    cluster: ClusterId,
    node: NodeId,
    /// For people.
    name: String,
}

/// Why a directory is not this node's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Refused(String),
}

/// What a directory says.
pub(crate) struct Recognised {
    /// The layout with which this node was first started.
    pub(crate) first: Layout,
    /// If it was new and says so only now: when that is on disk.
    pub(crate) made: Option<Ticket>,
}

/// Checks what the directory says, or says it if it is new.
pub(crate) fn recognise<S: Storage>(
    storage: &mut S,
    checked: &Checked,
) -> Result<Recognised, Mismatch> {
    let refused = |what: String| Mismatch::Refused(what);
    let own = Identity {
        cluster: checked.layout.cluster(),
        node: checked.id,
        name: checked.config.name.clone(),
    };
    let Some(found) = storage.get(Family::Meta, IDENTITY)? else {
        let mut batch = Batch::new();
        let json = serde_json::to_vec(&own).expect("an identity serialises");
        batch.put(Family::Meta, IDENTITY, json);
        let json = serde_json::to_vec(&checked.layout).expect("a layout serialises");
        batch.put(Family::Meta, LAYOUT, json);
        let ticket = storage.commit(batch, Level::Synced);
        let reported = storage.submit();
        assert!(reported.is_none(), "a sync is always reported as an event");
        return Ok(Recognised {
            first: checked.layout.clone(),
            made: Some(ticket),
        });
    };
    let found: Identity = serde_json::from_slice(&found).map_err(|error| {
        refused(format!(
            "its identity is unreadable ({error}): it was not written by this program"
        ))
    })?;
    if found.cluster != own.cluster {
        return Err(refused(format!(
            "it holds data of cluster {} ({}), and this is cluster {}: name this node's own directory, or an empty one",
            found.cluster, found.name, own.cluster
        )));
    }
    if found.node != own.node {
        return Err(refused(format!(
            "it holds the data of {} (node {}), and this is {} (node {}): name this node's own directory, or an empty \
             one",
            found.name, found.node.0, own.name, own.node.0
        )));
    }
    let Some(layout) = storage.get(Family::Meta, LAYOUT)? else {
        return Err(refused(
            "it names its node but has no layout: it was not written by this program".into(),
        ));
    };
    let layout: Layout = serde_json::from_slice(&layout)
        .map_err(|error| refused(format!("its layout is unreadable: {error}")))?;
    let (first, given) = (layout.version(), checked.layout.version());
    if first == given && layout.digest() != checked.layout.digest() {
        return Err(refused(format!(
            "it was used under another layout of version {first} than {}, which was edited since: restore the layout the \
             cluster was made with (another node has a copy), and change it with `quorate cluster`",
            checked.config.layout.display()
        )));
    }
    if first != given {
        tracing::warn!(
            node = checked.config.name,
            file = %checked.config.layout.display(),
            given,
            first,
            "the layout in this file is not what this node began with, and is not looked at: it goes by what its cluster tells"
        );
    }
    Ok(Recognised {
        first: layout,
        made: None,
    })
}
