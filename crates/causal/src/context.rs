//! What a client has read, in a form that it carries but cannot alter.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::encoding::{Reader, put_actor, put_varint};
use crate::{Dot, DotSet, Span};

/// The most dots one context names; far above the limit of siblings, and a bound on what a forged length can cost.
pub const CONTEXT_DOTS_MAX: usize = 1024;

/// The exact dots a client has read of one key. A put or delete removes these and no other.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Context {
    /// Ascending, no dot twice.
    spans: Vec<Span>,
}

impl Context {
    /// A context of these dots.
    #[must_use]
    pub fn new(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut spans: Vec<Span> = spans.into_iter().collect();
        spans.sort();
        spans.dedup_by_key(|s| s.dot);
        Context { spans }
    }

    /// The dots, ascending, each with its stretch.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// What a write with this context removes, as evidence.
    #[must_use]
    pub fn removed(&self) -> DotSet {
        let mut removed = DotSet::new();
        for span in &self.spans {
            removed.insert_span(*span);
        }
        removed
    }

    /// Whether it names no dot: its bearer has read nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// The secret that every node of a cluster shares, by which it recognises the contexts it gave out. Made with the
/// cluster; contexts carry its id, so that a secret can be replaced while old contexts are still about.
#[derive(Clone)]
pub struct ContextKey {
    id: [u8; 4],
    key: [u8; 32],
}

/// Why a context was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ContextError {
    /// Not the bytes of any context.
    #[error(
        "the context is malformed or truncated: send back the Quorate-Context of an answer unchanged, or none"
    )]
    Malformed,
    /// Made under a secret this cluster does not have.
    #[error(
        "the context comes from another cluster: read the key here and use the context of that answer"
    )]
    Foreign,
    /// Altered, or given out for another key.
    #[error(
        "the context was altered, or belongs to another key: read this key and use the context of that answer"
    )]
    Forged,
    /// Names more than [`CONTEXT_DOTS_MAX`] dots.
    #[error(
        "the context names too many dots: read the key again and use the context of that answer"
    )]
    TooLarge,
}

const FORMAT: u8 = 1;
const MAC_LEN: usize = 16;

impl ContextKey {
    /// A key from the cluster's secret.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = blake3::derive_key("quorate 2026 context authentication", secret);
        let named = blake3::derive_key("quorate 2026 context secret id", secret);
        ContextKey {
            id: [named[0], named[1], named[2], named[3]],
            key,
        }
    }

    /// The bytes a client gets: format, secret's id, dots, and a keyed blake3 hash over these and the key's name. `bucket`
    /// is whatever identifies the bucket, the same for [`ContextKey::open`].
    #[must_use]
    pub fn seal(&self, bucket: impl AsRef<[u8]>, key: &[u8], context: &Context) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + context.spans.len() * 22 + MAC_LEN);
        out.put_u8(FORMAT);
        out.put_slice(&self.id);
        put_varint(&mut out, context.spans.len() as u64);
        for span in &context.spans {
            put_actor(&mut out, span.dot.actor);
            put_varint(&mut out, span.dot.counter);
            put_varint(&mut out, span.dot.counter - span.after - 1);
        }
        let mac = self.mac(bucket.as_ref(), key, &out);
        out.put_slice(&mac);
        out.freeze()
    }

    /// Reads a context that a client sent for this key.
    ///
    /// # Errors
    /// Any [`ContextError`]; whoever gets one has changed nothing.
    pub fn open(
        &self,
        bucket: impl AsRef<[u8]>,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Context, ContextError> {
        if sealed.len() < 1 + self.id.len() + 1 + MAC_LEN || sealed[0] != FORMAT {
            return Err(ContextError::Malformed);
        }
        let (body, mac) = sealed.split_at(sealed.len() - MAC_LEN);
        if body[1..5] != self.id {
            return Err(ContextError::Foreign);
        }
        // blake3::Hash compares in constant time; so do we, over the part we keep.
        let expected = self.mac(bucket.as_ref(), key, body);
        let differing = expected.iter().zip(mac).fold(0, |d, (a, b)| d | (a ^ b));
        if differing != 0 {
            return Err(ContextError::Forged);
        }
        let mut reader = Reader::new(&body[5..]);
        let count = reader.varint().map_err(|_| ContextError::Malformed)?;
        if count > CONTEXT_DOTS_MAX as u64 {
            return Err(ContextError::TooLarge);
        }
        let mut spans = Vec::with_capacity(count as usize);
        for _ in 0..count {
            spans.push(reader.span().map_err(|_| ContextError::Malformed)?);
        }
        if !reader.is_empty() {
            return Err(ContextError::Malformed);
        }
        Ok(Context::new(spans))
    }

    fn mac(&self, bucket: &[u8], key: &[u8], body: &[u8]) -> [u8; MAC_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(bucket.len() as u64).to_be_bytes());
        hasher.update(bucket);
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update(body);
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_LEN]);
        mac
    }
}

impl std::fmt::Debug for ContextKey {
    /// The id alone: a secret has no business in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContextKey({:02x?})", self.id)
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        Context::new(dots.into_iter().map(Span::lone))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Not even whoever knows the secret can make `open` panic or believe a length.
        #[test]
        fn a_body_under_a_right_hash_is_still_not_trusted(body in prop::collection::vec(0..6u8, 0..80), count: u64) {
            let keys = ContextKey::new(&[7; 32]);
            for counted in [false, true] {
                let mut sealed = BytesMut::new();
                sealed.put_u8(FORMAT);
                sealed.put_slice(&keys.id);
                if counted {
                    put_varint(&mut sealed, count);
                }
                sealed.put_slice(&body);
                let mac = keys.mac(b"b", b"k", &sealed);
                sealed.put_slice(&mac);
                match keys.open("b", b"k", &sealed) {
                    Ok(context) => prop_assert!(context.spans().len() * 18 < sealed.len()),
                    Err(refusal) => {
                        prop_assert!(matches!(refusal, ContextError::Malformed | ContextError::TooLarge));
                    }
                }
            }
        }
    }
}
