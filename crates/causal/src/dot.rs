//! Names of writes.

use std::fmt;

/// An incarnation of a vnode: whoever mints dots. A random 128-bit number taken at the first mint after every
/// open of the store, clean or not (rule R1), so that no two of them ever share a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(pub u128);

impl fmt::Display for Actor {
    /// The first 32 bits in hexadecimal: enough to tell a few actors apart in a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", (self.0 >> 96) as u32)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of one write: its actor and that actor's counter, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who minted it.
    pub actor: Actor,
    /// The how-manieth of that actor in its vnode, over all keys; at least 1.
    pub counter: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A dot together with the stretch of its actor's counters in which it is the only one on its key:
/// `(after, dot.counter]`.
///
/// A counter serves all keys of a vnode, so the dots that one actor mints on one key have gaps between them. The minting
/// vnode remembers its previous dot on the key and writes it here as `after`. Evidence of removed dots then consists of
/// stretches that touch each other, and a million overwrites of a key by one actor are a single run of
/// counters (rule R15). Where the previous dot is not remembered, `after` is `counter - 1`: that says less, and nothing
/// wrong.
///
/// What `after` must never be is *less* than the previous dot: whoever then overwrites this dot removes that one too. So it
/// comes from what the incarnation itself remembers in memory, never from a record, which a disk may have
/// lost and evidence half restored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The dot.
    pub dot: Dot,
    /// Every counter above this and below the dot's own belongs to another key. Always less than `dot.counter`.
    pub after: u64,
}

impl Span {
    /// A dot whose predecessor on its key is not known.
    #[must_use]
    pub fn lone(dot: Dot) -> Self {
        Span {
            dot,
            after: dot.counter - 1,
        }
    }

    /// The first counter of the stretch.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.after + 1
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.after + 1 == self.dot.counter {
            write!(f, "{}", self.dot)
        } else {
            write!(f, "{}({}..]", self.dot, self.after)
        }
    }
}
