//! Messages come back from their bytes, and bytes that are no message do no harm.

mod common;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_protocol::*;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_message_comes_back_from_its_bytes(message in common::message()) {
        prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }

    #[test]
    fn a_value_comes_back_from_its_payload(value in common::value()) {
        prop_assert_eq!(decode_value(&encode_value(&value)).unwrap(), value);
    }

    #[test]
    fn bytes_behind_a_message_are_refused(
        message in common::message(),
        more in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let mut frame = message.encode().to_vec();
        frame.extend(more);
        prop_assert!(Message::decode(&frame).is_err());
    }

    #[test]
    fn a_cut_message_is_refused(message in common::message(), at in any::<prop::sample::Index>()) {
        let frame = message.encode();
        prop_assert!(Message::decode(&frame[..at.index(frame.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_harmless(frame in prop::collection::vec(any::<u8>(), 0..120)) {
        is_harmless(&frame);
        let _ = decode_value(&frame);
    }

    #[test]
    fn any_bytes_after_a_known_kind_are_harmless(
        kind in prop::sample::select(&KINDS[..]),
        rest in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut frame = vec![kind];
        frame.extend(rest);
        is_harmless(&frame);
    }

    #[test]
    fn a_damaged_message_is_harmless(
        message in common::message(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut frame = message.encode().to_vec();
        for (at, byte, what) in damages {
            let at = at.index(frame.len());
            match what {
                0 => frame[at] = byte,
                1 => frame.insert(at, byte),
                _ if frame.len() > 1 => drop(frame.remove(at)),
                _ => {}
            }
        }
        is_harmless(&frame);
    }
}

/// What is read can be written and read again, whatever it was read from.
fn is_harmless(frame: &[u8]) {
    if let Ok(message) = Message::decode(frame) {
        assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }
}

#[test]
fn every_single_byte_behind_a_message_is_refused() {
    // A nil, the marker of an array that does not come, the reserved c1: some readers would take one of these for the end.
    for (name, message) in common::specimens() {
        for byte in 0..=u8::MAX {
            let mut frame = message.encode().to_vec();
            frame.push(byte);
            match Message::decode(&frame) {
                Err(DecodeError::Body { kind, why }) => {
                    assert_eq!(
                        (kind, &why[..]),
                        (frame[0], "bytes are left over"),
                        "{name}"
                    );
                }
                other => panic!("{name} and {byte:02x}: {other:?}"),
            }
        }
    }
    let payload = encode_value(&Value::new("v"));
    for byte in 0..=u8::MAX {
        let longer = [&payload[..], &[byte]].concat();
        assert!(
            decode_value(&longer)
                .unwrap_err()
                .contains("bytes are left over"),
            "{byte:02x}"
        );
    }
}

#[test]
fn every_truncation_of_a_message_is_refused() {
    for (name, message) in common::specimens() {
        let frame = message.encode();
        for len in 0..frame.len() {
            assert!(
                Message::decode(&frame[..len]).is_err(),
                "the first {len} bytes of {name}"
            );
        }
    }
}

const KINDS: [u8; 23] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 31,
];

#[test]
fn explained_answers_do_not_nest() {
    let inner = Explained::new(&Answer::Absent, Account::default());
    assert_eq!(inner.clone().open().unwrap().0, Answer::Absent);
    let nested = Explained::new(&Answer::Explained(inner), Account::default());
    assert!(nested.open().is_err());
}

#[test]
fn unknown_kinds_are_refused() {
    assert!(matches!(Message::decode(&[]), Err(DecodeError::Empty)));
    for kind in 0..=u8::MAX {
        let refused = Message::decode(&[kind, 0xc0]).unwrap_err();
        if KINDS.contains(&kind) {
            assert!(
                matches!(refused, DecodeError::Body { kind: k, .. } if k == kind),
                "{refused}"
            );
        } else {
            assert!(
                matches!(refused, DecodeError::Kind(k) if k == kind),
                "{refused}"
            );
        }
    }
}

#[test]
fn deep_nesting_is_refused_with_little_stack() {
    // Arrays in arrays, maps in maps, and options of enums, a hundred thousand deep: none of our types recurses.
    for kind in KINDS {
        for nested in [
            &[0x91][..],
            &[0x92, 0x00],
            &[0x81],
            &[0x81, 0xa1, b'x'],
            &[0x93, 0x07, 0x96],
        ] {
            let frame = [&[kind][..], &nested.repeat(100_000)].concat();
            assert!(Message::decode(&frame).is_err());
        }
        // The same behind a whole message.
        let (_, message) = common::specimens().swap_remove(usize::from(kind) % 4);
        let frame = [&message.encode()[..], &[0x91].repeat(100_000)].concat();
        assert!(Message::decode(&frame).is_err());
    }
}

#[test]
fn values_of_every_length_class_survive() {
    for len in [0, 1, 255, 256, 65_535, 65_536, 1 << 20] {
        let value = Value::new(vec![0xa5; len]);
        let payload = encode_value(&value);
        assert_eq!(decode_value(&payload).unwrap(), value);
        assert!(
            payload.len() <= len + 8,
            "{len} bytes became {}",
            payload.len()
        );
        let answer = Answer::Found {
            siblings: vec![Shown {
                dot: "d".to_owned(),
                value,
                expires_ms: None,
            }],
            context: Bytes::new(),
        };
        let message = Message::Answer(RequestId(u64::MAX), answer);
        assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }
}

#[test]
fn numbers_of_128_bits_survive() {
    for number in [0, 1, u128::from(u64::MAX), 1 << 64, 1 << 127, u128::MAX] {
        let header = Header {
            trace: Some(Trace {
                trace_id: number,
                span_id: u64::MAX,
                flags: 0xff,
            }),
            op_id: Some(number),
            ..Header::default()
        };
        let message = Message::Request(RequestId(0), header, Request::Describe);
        assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }
}

#[test]
fn sixteen_bytes_travel_as_bytes() {
    // As an array of numbers they would take up to 35 bytes and twice the time.
    let message = Message::Reply(RequestId(0), ReplicaReply::Digest([0xff; 16]));
    let with_digest = message.encode();
    assert!(
        with_digest
            .windows(18)
            .any(|w| w[..2] == [0xc4, 16] && w[2..] == [0xff; 16])
    );
}
