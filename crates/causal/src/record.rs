//! What a replica holds for one key, and how two such accounts merge.

use bytes::Bytes;

use crate::{Context, Dot, DotSet, Span};

/// One live value of a key and the dot of the write that brought it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write's dot, with its stretch.
    pub span: Span,
    /// The value as the layer above encoded it. This crate never looks inside.
    pub payload: Bytes,
    /// When it ends, in milliseconds since the Unix epoch; `None` if it has no end. Part of what its dot names, so never
    /// changed by any merge (rule R16). Never 0.
    pub expires: Option<u64>,
}

impl Sibling {
    /// Whether its deadline has come at that time of day, in milliseconds since the Unix epoch. At 0, for a time that is
    /// not known, nothing has expired.
    #[must_use]
    pub fn is_expired(&self, at_ms: u64) -> bool {
        self.expires.is_some_and(|deadline| deadline <= at_ms)
    }
}

/// Everything a replica knows about one key: the live values, and *evidence*, the dots known to be removed.
///
/// As a set this is `live = written - removed` with both sides only growing, so merging is the union of both:
/// commutative, associative, idempotent. Every path by which data reaches a replica ends in [`Record::merge`], which
/// never mints a dot.
///
/// The idea is that of dotted version vectors (Preguiça et al., 2010) with *exact* contexts: a put removes just
/// the dots its client had read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Record {
    /// Ascending by dot, no dot twice. Invariant: none of them is in `evidence`.
    live: Vec<Sibling>,
    evidence: DotSet,
}

/// What a merge did to a record.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// Dots live now that were unknown before.
    pub added: Vec<Dot>,
    /// Dots live before and removed now.
    pub removed: Vec<Dot>,
    /// Whether evidence grew.
    pub evidence: bool,
    /// Whether a sibling that was live before is told differently now: two payloads under one dot, or a stretch more
    /// exact. Never between sound replicas.
    pub altered: bool,
}

impl Change {
    /// Whether the record is as it was before.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && !self.evidence && !self.altered
    }
}

impl Record {
    /// A record of nothing: never written, as far as this replica knows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a record together from its parts; siblings that `evidence` removes are dropped, and of equal dots the
    /// greater payload stays.
    #[must_use]
    pub fn from_parts(live: Vec<Sibling>, evidence: DotSet) -> Self {
        let mut record = Record {
            live: Vec::with_capacity(live.len()),
            evidence,
        };
        for sibling in live {
            record.take(sibling, &mut Change::default());
        }
        record
    }

    /// The live values, ascending by dot.
    #[must_use]
    pub fn live(&self) -> &[Sibling] {
        &self.live
    }

    /// The removed dots that some replica may not know of yet.
    #[must_use]
    pub fn evidence(&self) -> &DotSet {
        &self.evidence
    }

    /// Whether this replica knows nothing of the key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.evidence.is_empty()
    }

    /// The context of an answer that shows all live values (rule R8).
    #[must_use]
    pub fn context(&self) -> Context {
        Context::new(self.live.iter().map(|s| s.span))
    }

    /// A name for the set of live dots: replicas that show the same values give the same digest. Values need not be
    /// hashed, as a dot names its value; evidence is left out, as trees leave it out (rule R14).
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.live.iter().map(|s| s.span.dot))
    }

    /// The change that a write makes, as a record of its own to merge here and to send to the other replicas: the
    /// dots of `context` removed and, for a put, the new value under its dot.
    #[must_use]
    pub fn of_write(context: &Context, put: Option<Sibling>) -> Record {
        Record {
            live: put.into_iter().collect(),
            evidence: context.removed(),
        }
    }

    /// Joins what another replica knows into this record.
    ///
    /// Should two payloads stand under one dot (a dot minted twice: rule R1 makes that impossible, a broken peer does
    /// not), the greater one stays everywhere, so that replicas still agree; and of two deadlines the earlier, so that no
    /// merge ever prolongs a value.
    pub fn merge(&mut self, incoming: &Record) -> Change {
        let mut change = Change {
            evidence: self.evidence.join(&incoming.evidence),
            ..Change::default()
        };
        if change.evidence {
            let evidence = &self.evidence;
            self.live.retain(|s| {
                let removed = evidence.contains(s.span.dot);
                if removed {
                    change.removed.push(s.span.dot);
                }
                !removed
            });
        }
        for sibling in &incoming.live {
            self.take(sibling.clone(), &mut change);
        }
        change
    }

    /// Joins one live sibling, and notes what that changed.
    fn take(&mut self, sibling: Sibling, change: &mut Change) {
        let dot = sibling.span.dot;
        if self.evidence.contains(dot) {
            return;
        }
        match self.live.binary_search_by_key(&dot, |s| s.span.dot) {
            Ok(at) => {
                let mine = &mut self.live[at];
                // A span may be told more or less exactly; the longer stretch is as true and says more.
                if sibling.span.after < mine.span.after {
                    mine.span.after = sibling.span.after;
                    change.altered = true;
                }
                if sibling.payload > mine.payload {
                    mine.payload = sibling.payload;
                    change.altered = true;
                }
                let end = |expires: Option<u64>| expires.unwrap_or(u64::MAX);
                if end(sibling.expires) < end(mine.expires) {
                    mine.expires = sibling.expires;
                    change.altered = true;
                }
            }
            Err(at) => {
                self.live.insert(at, sibling);
                change.added.push(dot);
            }
        }
    }

    /// Takes out the values whose deadline had come at that time of day, in milliseconds since the Unix epoch, and returns
    /// their dots. No evidence is left: their end was told with them, so that nobody need be told of it, and whoever has
    /// one still drops it alike.
    pub fn drop_expired(&mut self, at_ms: u64) -> Vec<Dot> {
        let mut dropped = Vec::new();
        self.live.retain(|s| {
            let expired = s.is_expired(at_ms);
            if expired {
                dropped.push(s.span.dot);
            }
            !expired
        });
        dropped
    }

    /// The dots and stretches of the values whose deadline had come at that time of day.
    pub fn expired(&self, at_ms: u64) -> impl Iterator<Item = Span> + '_ {
        let expired = self.live.iter().filter(move |s| s.is_expired(at_ms));
        expired.map(|s| s.span)
    }

    /// What `other` would learn from this record: the siblings and evidence it lacks.
    #[must_use]
    pub fn missing_in(&self, other: &Record) -> Record {
        let live = self
            .live
            .iter()
            .filter(|s| !other.evidence.contains(s.span.dot))
            .filter(|s| {
                other
                    .live
                    .binary_search_by_key(&s.span.dot, |o| o.span.dot)
                    .is_err()
            })
            .cloned()
            .collect();
        let mut evidence = DotSet::new();
        for (actor, runs) in self.evidence.iter() {
            for (first, last) in runs.iter() {
                let mut run = crate::Runs::default();
                run.insert(first, last);
                let known = other
                    .evidence
                    .runs(actor)
                    .is_some_and(|theirs| theirs.covers(&run));
                if !known {
                    evidence.insert_run(actor, first, last);
                }
            }
        }
        Record { live, evidence }
    }
}

/// Names a set of live dots: 128 bits of blake3 over them in ascending order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of dots given in ascending order.
    #[must_use]
    pub fn of(dots: impl Iterator<Item = Dot>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for dot in dots {
            hasher.update(&dot.actor.0.to_be_bytes());
            hasher.update(&dot.counter.to_be_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Digest(digest)
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
