//! Names of things as fixed-width numbers.
//!
//! In human-readable formats (JSON, TOML) the identifiers are hexadecimal text: a JSON number of 64 bits
//! loses its last digits in every reader that keeps numbers as floating point. In binary formats they
//! are a number or bytes.

use crate::error::{LayoutError, excerpt};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A physical node, for as long as its data lives. A replaced node has a new id.
///
/// Written as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A cluster, drawn at random when it is made, so that two clusters never take each other's messages.
///
/// Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// A replica set's short name: state belongs to a partition and one of these (see
/// [`ReplicaSet::id`](crate::ReplicaSet::id)).
///
/// Written as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaSetId(pub u64);

/// One of the ring's equal arcs, counted from 0 in ring order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text and serde forms of a hexadecimal identifier; `$bits` is its inner type.
macro_rules! hex_id {
    ($name:ident, $bits:ty, $what:literal) => {
        impl $name {
            const DIGITS: usize = <$bits>::BITS as usize / 4;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:0width$x}", self.0, width = Self::DIGITS)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = LayoutError;

            /// Reads exactly what `Display` writes. Capitals, signs and other lengths are refused, so
            /// that an identifier has one spelling.
            fn from_str(text: &str) -> Result<Self, LayoutError> {
                let one_spelling = text.len() == Self::DIGITS
                    && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                let refused = || LayoutError::Id {
                    what: $what,
                    text: excerpt(text),
                    digits: Self::DIGITS,
                };
                if !one_spelling {
                    return Err(refused());
                }
                <$bits>::from_str_radix(text, 16)
                    .map($name)
                    .map_err(|_| refused())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0.to_be_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Bytes;

                impl<'de> Visitor<'de> for Bytes {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} as {} bytes", $what, $name::DIGITS / 2)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        let bytes = bytes
                            .try_into()
                            .map_err(|_| E::invalid_length(bytes.len(), &self))?;
                        Ok($name(<$bits>::from_be_bytes(bytes)))
                    }

                    // Formats without a byte string of their own hand bytes over one by one.
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        let mut bytes = [0; <$bits>::BITS as usize / 8];
                        for (at, byte) in bytes.iter_mut().enumerate() {
                            *byte = seq
                                .next_element()?
                                .ok_or_else(|| de::Error::invalid_length(at, &self))?;
                        }
                        Ok($name(<$bits>::from_be_bytes(bytes)))
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Bytes)
                } else {
                    deserializer.deserialize_bytes(Bytes)
                }
            }
        }
    };
}

hex_id!(NodeId, u64, "a node id");
hex_id!(ClusterId, u128, "a cluster id");
hex_id!(ReplicaSetId, u64, "a replica set id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_fixed_width_and_has_one_spelling() {
        assert_eq!(NodeId(0xab).to_string(), "00000000000000ab");
        assert_eq!(
            format!("{:?}", ClusterId(0xab)),
            "000000000000000000000000000000ab"
        );
        assert_eq!("00000000000000ab".parse(), Ok(NodeId(0xab)));
        assert_eq!(
            ClusterId(u128::MAX).to_string().parse(),
            Ok(ClusterId(u128::MAX))
        );
        for wrong in [
            "",
            "ab",
            "00000000000000AB",
            "+0000000000000ab",
            "00000000000000abc",
            "éééééééé",
        ] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn json_is_text_and_messagepack_is_bytes() {
        let id = ClusterId(1 << 100);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"00000010000000000000000000000000\"");
        assert_eq!(serde_json::from_str::<ClusterId>(&json).unwrap(), id);

        let node = rmp_serde::to_vec(&NodeId(u64::MAX - 1)).unwrap();
        assert_eq!(node.len(), 10);
        assert_eq!(
            rmp_serde::from_slice::<NodeId>(&node).unwrap(),
            NodeId(u64::MAX - 1)
        );
        let cluster = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(cluster.len(), 18);
        assert_eq!(rmp_serde::from_slice::<ClusterId>(&cluster).unwrap(), id);
        assert!(rmp_serde::from_slice::<NodeId>(&cluster).is_err());
    }
}
