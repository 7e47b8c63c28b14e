//! What is not promised any more where disks have lost something.

use crate::history::{Kind, Operation};

/// A disk lost something that it had acknowledged.
#[derive(Clone, Debug)]
pub struct Loss {
    /// When, on the history's clock.
    pub at: u64,
    /// Of which key; `None` if it may have been of any.
    pub key: Option<String>,
}

/// Takes back from a history what is not promised where disks lost something: what had one copy may be gone, and what was being
/// written when one copy was; one answer alone may be of before a loss; and, where records may be `silent`ly missing, one
/// is missing until that is found.
pub fn excuse(history: &mut [Operation], losses: &[Loss], silent: bool) {
    let times = losses.iter().map(|loss| loss.at);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
        return;
    };
    let lost = |key: &str| {
        let mut losses = losses.iter();
        losses
            .find(|loss| loss.key.as_deref() == Some(key))
            .map(|loss| loss.at)
    };
    for op in history {
        let lost = match op.kind {
            // A listing is of all keys.
            Kind::List(_) => Some(first),
            _ => lost(&op.key),
        };
        let copies = if op.acknowledged() { op.quorum.0 } else { 0 };
        // Whoever had a copy may have lost it, and have been given back what the others held before theirs came.
        let was_under_way = lost.is_some_and(|at| op.start <= at && at <= op.end);
        let fragile = copies < 2 && (op.start <= last || lost.is_some());
        op.fragile = op.kind.is_write() && (fragile || was_under_way);
        let misses = silent && lost.is_some_and(|at| op.end >= at);
        if misses || (op.end >= first && op.quorum.1 < 2) {
            op.strict.1 = 0;
        }
    }
}
