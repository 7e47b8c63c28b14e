//! The bytes of records and runs: golden, one for each value, and no danger whatever they are.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_causal::{Actor, DecodeError, Dot, DotSet, Record, Runs, Sibling, Span};

fn dot(actor: u128, counter: u64) -> Dot {
    Dot {
        actor: Actor(actor),
        counter,
    }
}

/// Two siblings with stretches, an empty payload, and evidence of two actors.
fn some_record() -> Record {
    let mut evidence = DotSet::new();
    evidence.insert_run(Actor(1), 1, 6);
    evidence.insert_run(Actor(1), 300, 300);
    evidence.insert_run(Actor(0xffff), 2, 2);
    let live = vec![
        Sibling {
            span: Span {
                dot: dot(1, 299),
                after: 6,
            },
            payload: Bytes::from_static(b"milk"),
            expires: None,
        },
        Sibling {
            span: Span::lone(dot(0x0123_4567_89ab_cdef << 64, 1)),
            payload: Bytes::new(),
            expires: None,
        },
    ];
    Record::from_parts(live, evidence)
}

#[test]
fn the_bytes_of_record_format_1_stay() {
    let golden = concat!(
        "01", // format
        "02", // siblings
        "00000000000000000000000000000001",
        "ab02", // actor 1, counter 299,
        "a402",
        "04", // 292 counters before it its own; 4 bytes of payload
        "0123456789abcdef0000000000000000",
        "01", // another actor, counter 1,
        "00",
        "00", // none before it; no payload
        "02", // evidence: actors
        "00000000000000000000000000000001",
        "02", // actor 1, two runs:
        "01",
        "05",
        "a602",
        "00", // from 1, five more; 294 further on, none more
        "0000000000000000000000000000ffff",
        "01", // actor ffff, one run:
        "02",
        "00",       // from 2, none more
        "6d696c6b", // payload
    );
    assert_eq!(hex(&some_record().encode()), golden);
    assert_eq!(Record::decode(&bytes(golden)).unwrap(), some_record());
    assert_eq!(
        hex(&some_record().digest().0),
        "807da444a442d3808aa6d7b847913ef5"
    );
}

#[test]
fn the_bytes_of_an_empty_record_stay() {
    assert_eq!(hex(&Record::new().encode()), "010000");
    assert_eq!(Record::decode(&bytes("010000")).unwrap(), Record::new());
}

#[test]
fn the_bytes_of_runs_stay() {
    let mut runs = Runs::default();
    assert_eq!(hex(&runs.encode()), "00");
    for (first, last) in [(1, 1), (3, 130), (1000, u64::MAX)] {
        runs.insert(first, last);
    }
    // Three runs: 1, none more; 2 further on, 127 more; 870 further on, 2^64 - 1001 more.
    let golden = "03".to_owned() + "0100" + "027f" + "e606" + "97f8ffffffffffffff01";
    assert_eq!(hex(&runs.encode()), golden);
    assert_eq!(Runs::decode(&bytes(&golden)).unwrap(), runs);
}

#[test]
fn what_the_encoder_never_writes_is_refused() {
    let one = "00000000000000000000000000000001";
    let two = "00000000000000000000000000000002";
    let refused = |hex: &str| Record::decode(&bytes(hex)).unwrap_err();
    let not_canonical = |hex: &str| match refused(hex) {
        DecodeError::NotCanonical(why) => why,
        other => panic!("{hex}: {other:?}"),
    };
    assert_eq!(refused(""), DecodeError::Truncated);
    assert_eq!(refused("03"), DecodeError::Format(3));
    assert_eq!(refused("0100"), DecodeError::Truncated);
    assert_eq!(not_canonical("01000000"), "bytes are left over");
    assert_eq!(not_canonical("018000"), "a number with leading zeros");
    assert_eq!(
        not_canonical("01ffffffffffffffffff02"),
        "a number above 64 bits"
    );
    assert_eq!(
        not_canonical("01ffffffffffffffffff8100"),
        "a number above 64 bits"
    );
    let sibling = |actor: &str, counter_and_before: &str| format!("{actor}{counter_and_before}00");
    let record = |siblings: &[String], evidence: &str| {
        format!("01{:02x}{}{evidence}", siblings.len(), siblings.concat())
    };
    let stretch = "a dot's stretch begins below one";
    assert_eq!(
        not_canonical(&record(&[sibling(one, "0000")], "00")),
        stretch
    );
    assert_eq!(
        not_canonical(&record(&[sibling(one, "0303")], "00")),
        stretch
    );
    let order = "dots out of order";
    assert_eq!(
        not_canonical(&record(&[sibling(two, "0100"), sibling(one, "0100")], "00")),
        order
    );
    assert_eq!(
        not_canonical(&record(&[sibling(one, "0200"), sibling(one, "0100")], "00")),
        order
    );
    assert_eq!(
        not_canonical(&record(&[sibling(one, "0100"), sibling(one, "0100")], "00")),
        order
    );
    let evidence = |actors: &[String]| format!("0100{:02x}{}", actors.len(), actors.concat());
    let runs = |actor: &str, runs: &str| format!("{actor}{runs}");
    assert_eq!(
        not_canonical(&evidence(&[runs(two, "010100"), runs(one, "010100")])),
        "actors out of order"
    );
    assert_eq!(
        not_canonical(&(evidence(&[runs(one, "00")]) + "0000")),
        "an actor without dots"
    );
    assert_eq!(
        not_canonical(&evidence(&[runs(one, "010000")])),
        "runs that touch"
    );
    assert_eq!(
        not_canonical(&evidence(&[runs(one, "0201000100")])),
        "runs that touch"
    );
    assert_eq!(
        not_canonical(&evidence(&[runs(one, "0102ffffffffffffffffff01")])),
        "a counter above 64 bits"
    );
    let removed = record(&[sibling(one, "0500")], &format!("01{one}010109"));
    assert_eq!(not_canonical(&removed), "a live dot is among the removed");
}

#[test]
fn a_digest_needs_the_head_alone() {
    let record = some_record();
    let bytes = record.encode();
    let head = 2 + (16 + 2 + 2 + 1) + (16 + 1 + 1 + 1);
    assert_eq!(
        Record::digest_of(&bytes[..head], 0).unwrap(),
        record.digest()
    );
    assert_eq!(
        Record::digest_of(&bytes[..head - 1], 0),
        Err(DecodeError::Truncated)
    );
}

#[test]
fn every_truncation_is_refused() {
    let record = some_record().encode();
    for len in 0..record.len() {
        assert!(
            Record::decode(&record.slice(..len)).is_err(),
            "the first {len} bytes"
        );
    }
    let mut runs = Runs::default();
    for first in [1, 500, 70_000] {
        runs.insert(first, first + 300);
    }
    let runs = runs.encode();
    for len in 0..runs.len() {
        assert_eq!(Runs::decode(&runs[..len]), Err(DecodeError::Truncated));
    }
}

#[test]
fn the_bytes_of_record_format_2_stay() {
    let live = vec![
        Sibling {
            span: Span::lone(dot(1, 1)),
            payload: Bytes::from_static(b"milk"),
            expires: Some(300),
        },
        Sibling {
            span: Span::lone(dot(1, 2)),
            payload: Bytes::new(),
            expires: None,
        },
    ];
    let record = Record::from_parts(live, DotSet::new());
    let golden = concat!(
        "02", // format: with deadlines
        "02", // siblings
        "00000000000000000000000000000001",
        "01", // actor 1, counter 1,
        "00",
        "04",   // none before it; 4 bytes of payload,
        "ac02", // until 300
        "00000000000000000000000000000001",
        "02", // actor 1, counter 2,
        "00",
        "00",       // none before it; no payload,
        "00",       // without end
        "00",       // no evidence
        "6d696c6b", // payload
    );
    assert_eq!(hex(&record.encode()), golden);
    assert_eq!(Record::decode(&bytes(golden)).unwrap(), record);
    let none_has_one = golden.replace("ac02", "00");
    assert!(matches!(
        Record::decode(&bytes(&none_has_one)),
        Err(DecodeError::NotCanonical(why)) if why.contains("deadlines")
    ));
}

#[test]
fn payloads_are_not_copied() {
    let bytes = some_record().encode();
    let decoded = Record::decode(&bytes).unwrap();
    let within = bytes.as_ptr_range();
    assert!(within.contains(&decoded.live()[0].payload.as_ptr()));
}

fn any_record() -> impl Strategy<Value = Record> {
    let counter = || prop_oneof![8 => 1..40u64, 1 => 1..=u64::MAX];
    let actor = || prop_oneof![0..3u128, any::<u128>()];
    let payload = prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from);
    let expires = prop_oneof![3 => Just(None), 1 => (1..=u64::MAX).prop_map(Some)];
    let sibling = (actor(), counter(), counter(), payload, expires).prop_map(
        |(actor, a, b, payload, expires)| Sibling {
            span: Span {
                dot: dot(actor, a.max(b)),
                after: a.min(b) - 1,
            },
            payload,
            expires,
        },
    );
    let run = (actor(), counter(), 0..3u64);
    (
        prop::collection::vec(sibling, 0..6),
        prop::collection::vec(run, 0..10),
    )
        .prop_map(|(live, runs)| {
            let mut evidence = DotSet::new();
            for (actor, first, more) in runs {
                evidence.insert_run(Actor(actor), first, first.saturating_add(more));
            }
            Record::from_parts(live, evidence)
        })
}

/// What bytes suffer on a bad disk or a bad link.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bits: u8 },
    Cut { at: usize },
    Insert { at: usize, byte: u8 },
    Remove { at: usize },
    Double { at: usize, len: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        4 => (at(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip { at, bits }),
        1 => at().prop_map(|at| Damage::Cut { at }),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert { at, byte }),
        2 => at().prop_map(|at| Damage::Remove { at }),
        1 => (at(), 1..40usize).prop_map(|(at, len)| Damage::Double { at, len }),
    ]
}

fn inflict(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match *damage {
        Damage::Flip { at, bits } => bytes[at % len] ^= bits,
        Damage::Cut { at } => bytes.truncate(at % len),
        Damage::Insert { at, byte } => bytes.insert(at % len, byte),
        Damage::Remove { at } => drop(bytes.remove(at % len)),
        Damage::Double { at, len: more } => {
            let from = at % len;
            let piece = bytes[from..len.min(from + more)].to_vec();
            bytes.splice(from..from, piece);
        }
    }
}

/// Whatever the bytes are, reading them does no harm; and if they are a record, they are its one encoding.
fn is_harmless(bytes: Vec<u8>) {
    if let Ok(runs) = Runs::decode(&bytes) {
        assert_eq!(runs.encode(), bytes);
    }
    let digest = Record::digest_of(&bytes, 0);
    let bytes = Bytes::from(bytes);
    if let Ok(record) = Record::decode(&bytes) {
        assert_eq!(record.encode(), bytes);
        assert_eq!(digest, Ok(record.digest()));
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        is_harmless(bytes);
    }

    #[test]
    fn small_numbers_are_harmless(mut bytes in prop::collection::vec(0..4u8, 0..80)) {
        // Mostly zeros and ones: these get past the counts and into the structure.
        if let Some(format) = bytes.first_mut() {
            *format = 1 + *format % 2;
        }
        is_harmless(bytes);
    }

    #[test]
    fn damaged_records_are_harmless(
        record in any_record(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let mut bytes = record.encode().to_vec();
        damages.iter().for_each(|damage| inflict(&mut bytes, damage));
        is_harmless(bytes);
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_record_comes_back_from_its_bytes(record in any_record()) {
        let bytes = record.encode();
        prop_assert_eq!(&Record::decode(&bytes).unwrap(), &record);
        prop_assert_eq!(Record::digest_of(&bytes, 0).unwrap(), record.digest());
    }

    #[test]
    fn what_has_expired_shows_at_the_head(record in any_record(), at in any::<u64>()) {
        let bytes = record.encode();
        let mut shown = record.clone();
        let mut dropped = shown.drop_expired(at);
        prop_assert_eq!(Record::digest_of(&bytes, at).unwrap(), shown.digest());
        prop_assert!(record.expired(at).map(|s| s.dot).eq(dropped.drain(..)));
        let deadlines: Vec<u64> = record.live().iter().filter_map(|s| s.expires).collect();
        prop_assert_eq!(Record::deadlines_of(&bytes).unwrap(), deadlines);
    }

    #[test]
    fn equal_records_are_equal_bytes(a in any_record(), b in any_record()) {
        prop_assert_eq!(a == b, a.encode() == b.encode());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Bytes {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}
