//! Records and sets of dots as bytes: laid out by hand, since every read and write passes here.
//!
//! A record is: format (1 byte), number of siblings, for each its span and payload length, the evidence, then all
//! payloads in the same order. Dots stand in front, so that a digest is made from the head alone. Numbers are
//! unsigned LEB128. There is one encoding for a record: what is out of order or doubled is refused, so that equal
//! records are equal bytes.
//!
//! Where a value has a deadline, the format is another, in which each payload length is followed by the deadline: 0 for
//! none. So deadlines cost nothing where there are none.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::{Actor, Digest, Dot, DotSet, Record, Runs, Sibling, Span};

/// Bytes that are no record or set of dots: torn, of a newer format, or not made by us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// The bytes end before what they announce.
    #[error("truncated")]
    Truncated,
    /// A format this build does not know.
    #[error("format {0} is not known to this build (it knows {PLAIN} and {WITH_DEADLINES})")]
    Format(u8),
    /// Something that the encoder never writes.
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
}

/// A record of values that have no deadline.
const PLAIN: u8 = 1;
/// A record of values of which at least one has a deadline.
const WITH_DEADLINES: u8 = 2;

impl Record {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let payloads: usize = self.live().iter().map(|s| s.payload.len()).sum();
        let mut out = BytesMut::with_capacity(
            payloads + 2 + self.live().len() * 32 + self.evidence().actors() * 32,
        );
        let has_deadlines = self.live().iter().any(|s| s.expires.is_some());
        out.put_u8(if has_deadlines { WITH_DEADLINES } else { PLAIN });
        put_varint(&mut out, self.live().len() as u64);
        for sibling in self.live() {
            put_span(&mut out, &sibling.span);
            put_varint(&mut out, sibling.payload.len() as u64);
            if has_deadlines {
                put_varint(&mut out, sibling.expires.unwrap_or(0));
            }
        }
        put_dots(&mut out, self.evidence());
        for sibling in self.live() {
            out.put_slice(&sibling.payload);
        }
        out.freeze()
    }

    /// Reads a record; its payloads are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// Whatever [`Record::encode`] would not have written.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let heads = reader.heads()?;
        let evidence = reader.dots()?;
        let mut at = bytes.len() - reader.remaining();
        let mut live = Vec::with_capacity(heads.len());
        for Head { span, len, expires } in heads {
            if evidence.contains(span.dot) {
                return Err(DecodeError::NotCanonical("a live dot is among the removed"));
            }
            let end = usize::try_from(len)
                .ok()
                .and_then(|len| at.checked_add(len))
                .filter(|end| *end <= bytes.len())
                .ok_or(DecodeError::Truncated)?;
            live.push(Sibling {
                span,
                payload: bytes.slice(at..end),
                expires,
            });
            at = end;
        }
        if at != bytes.len() {
            return Err(DecodeError::NotCanonical("bytes are left over"));
        }
        Ok(Record::from_parts(live, evidence))
    }

    /// The digest of an encoded record, from its head alone, without the values whose deadline had come at that time of
    /// day; at 0 of all its values.
    ///
    /// # Errors
    /// As [`Record::decode`], as far as the head tells.
    pub fn digest_of(bytes: &[u8], at_ms: u64) -> Result<Digest, DecodeError> {
        let heads = Reader::new(bytes).heads()?;
        let shown = heads.iter().filter(|h| h.expires.is_none_or(|e| e > at_ms));
        Ok(Digest::of(shown.map(|h| h.span.dot)))
    }

    /// The deadlines of an encoded record's values, from its head alone; in no order. Costs a look at one byte where
    /// there are none.
    ///
    /// # Errors
    /// As [`Record::decode`], as far as the head tells.
    pub fn deadlines_of(bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
        if bytes.first() != Some(&WITH_DEADLINES) {
            return Ok(Vec::new());
        }
        let heads = Reader::new(bytes).heads()?;
        Ok(heads.iter().filter_map(|h| h.expires).collect())
    }
}

/// What stands of a value at the head of its record.
struct Head {
    span: Span,
    len: u64,
    expires: Option<u64>,
}

impl Runs {
    /// The runs' bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(4 + self.len() * 6);
        put_runs(&mut out, self);
        out.freeze()
    }

    /// Reads runs.
    ///
    /// # Errors
    /// Whatever [`Runs::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let runs = reader.runs()?;
        if !reader.is_empty() {
            return Err(DecodeError::NotCanonical("bytes are left over"));
        }
        Ok(runs)
    }
}

pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(crate) fn put_actor(out: &mut BytesMut, actor: Actor) {
    out.put_u128(actor.0);
}

fn put_span(out: &mut BytesMut, span: &Span) {
    put_actor(out, span.dot.actor);
    put_varint(out, span.dot.counter);
    put_varint(out, span.dot.counter - span.after - 1);
}

fn put_runs(out: &mut BytesMut, runs: &Runs) {
    put_varint(out, runs.len() as u64);
    let mut previous = 0;
    for (first, last) in runs.iter() {
        put_varint(out, first - previous);
        put_varint(out, last - first);
        previous = last;
    }
}

fn put_dots(out: &mut BytesMut, dots: &DotSet) {
    put_varint(out, dots.actors() as u64);
    for (actor, runs) in dots.iter() {
        put_actor(out, actor);
        put_runs(out, runs);
    }
}

/// Reads what the functions above wrote. Allocates no more than a small multiple of the bytes it was given,
/// whatever lengths these announce.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::NotCanonical("a number above 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::NotCanonical("a number with leading zeros"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::NotCanonical("a number above 64 bits"))
    }

    fn actor(&mut self) -> Result<Actor, DecodeError> {
        let (actor, rest) = self
            .rest
            .split_first_chunk::<16>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(Actor(u128::from_be_bytes(*actor)))
    }

    pub(crate) fn span(&mut self) -> Result<Span, DecodeError> {
        let actor = self.actor()?;
        let counter = self.varint()?;
        let before = self.varint()?;
        let after = counter
            .checked_sub(1)
            .and_then(|c| c.checked_sub(before))
            .ok_or(DecodeError::NotCanonical(
                "a dot's stretch begins below one",
            ))?;
        Ok(Span {
            dot: Dot { actor, counter },
            after,
        })
    }

    fn heads(&mut self) -> Result<Vec<Head>, DecodeError> {
        let has_deadlines = match self.byte()? {
            PLAIN => false,
            WITH_DEADLINES => true,
            format => return Err(DecodeError::Format(format)),
        };
        let count = self.count(19)?;
        let mut heads: Vec<Head> = Vec::with_capacity(count);
        for _ in 0..count {
            let span = self.span()?;
            if heads.last().is_some_and(|last| last.span.dot >= span.dot) {
                return Err(DecodeError::NotCanonical("dots out of order"));
            }
            let len = self.varint()?;
            let expires = match has_deadlines {
                true => Some(self.varint()?).filter(|deadline| *deadline > 0),
                false => None,
            };
            heads.push(Head { span, len, expires });
        }
        if has_deadlines && heads.iter().all(|h| h.expires.is_none()) {
            return Err(DecodeError::NotCanonical(
                "a record with deadlines in which no value has one",
            ));
        }
        Ok(heads)
    }

    /// A number of things of at least `each` bytes, so never more than the bytes left can hold.
    fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        if count > (self.rest.len() / each) as u64 {
            return Err(DecodeError::Truncated);
        }
        Ok(count as usize)
    }

    fn runs(&mut self) -> Result<Runs, DecodeError> {
        let count = self.count(2)?;
        let mut runs = Runs::default();
        let mut previous = 0u64;
        for i in 0..count {
            let gap = self.varint()?;
            if gap < if i == 0 { 1 } else { 2 } {
                return Err(DecodeError::NotCanonical("runs that touch"));
            }
            let first = previous.checked_add(gap);
            let length = self.varint()?;
            let last = first.and_then(|f| f.checked_add(length));
            let (Some(first), Some(last)) = (first, last) else {
                return Err(DecodeError::NotCanonical("a counter above 64 bits"));
            };
            runs.insert(first, last);
            previous = last;
        }
        Ok(runs)
    }

    fn dots(&mut self) -> Result<DotSet, DecodeError> {
        let count = self.count(19)?;
        let mut dots = DotSet::new();
        let mut last = None;
        for _ in 0..count {
            let actor = self.actor()?;
            if last.is_some_and(|last| last >= actor) {
                return Err(DecodeError::NotCanonical("actors out of order"));
            }
            last = Some(actor);
            let runs = self.runs()?;
            if runs.is_empty() {
                return Err(DecodeError::NotCanonical("an actor without dots"));
            }
            dots.set_runs(actor, runs);
        }
        Ok(dots)
    }
}
