//! Contexts as clients carry them: exactly what was sealed comes back, and nothing else is accepted.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_causal::{Actor, CONTEXT_DOTS_MAX, Context, ContextError, ContextKey, Dot, Span};

fn cluster() -> ContextKey {
    ContextKey::new(&[7; 32])
}

fn span(actor: u128, after: u64, counter: u64) -> Span {
    Span {
        dot: Dot {
            actor: Actor(actor),
            counter,
        },
        after,
    }
}

fn some_context() -> Context {
    Context::new([
        span(u128::MAX, 0, u64::MAX),
        span(3, 3, 300),
        span(3, 300, 301),
    ])
}

fn many(count: usize) -> Context {
    (1..=count as u64)
        .map(|counter| Dot {
            actor: Actor(1),
            counter,
        })
        .collect()
}

fn any_context() -> impl Strategy<Value = Context> {
    let counter = prop_oneof![1..200u64, 1..=u64::MAX];
    let span = (0..4u128, counter.clone(), counter)
        .prop_map(|(actor, a, b)| span(actor, a.min(b) - 1, a.max(b)));
    prop::collection::vec(span, 0..12).prop_map(Context::new)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_context_comes_back_as_it_was_sealed(
        context in any_context(),
        bucket in ".{0,8}",
        key in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let sealed = cluster().seal(&bucket, &key, &context);
        prop_assert_eq!(cluster().open(&bucket, &key, &sealed).unwrap(), context);
    }

    #[test]
    fn dots_are_in_order_and_named_once(context in any_context()) {
        let dots: Vec<Dot> = context.spans().iter().map(|s| s.dot).collect();
        prop_assert!(dots.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(context.is_empty(), dots.is_empty());
        prop_assert_eq!(Context::new(context.spans().iter().rev().copied()), context);
    }

    #[test]
    fn no_other_bytes_are_a_context(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(cluster().open("b", b"k", &bytes).is_err());
    }

    #[test]
    fn no_other_body_passes_under_a_right_beginning(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut forged = cluster().seal("b", b"k", &Context::default())[..5].to_vec();
        forged.extend(bytes);
        prop_assert!(cluster().open("b", b"k", &forged).is_err());
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for context in [Context::default(), some_context()] {
        let sealed = cluster().seal("bucket", b"key", &context);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.to_vec();
                altered[at] ^= 1 << bit;
                let expected = match at {
                    0 => ContextError::Malformed,
                    1..=4 => ContextError::Foreign,
                    _ => ContextError::Forged,
                };
                assert_eq!(
                    cluster().open("bucket", b"key", &altered),
                    Err(expected),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for context in [Context::default(), some_context()] {
        let sealed = cluster().seal("bucket", b"key", &context);
        for len in 0..sealed.len() {
            let refused = cluster()
                .open("bucket", b"key", &sealed[..len])
                .unwrap_err();
            assert!(
                matches!(refused, ContextError::Malformed | ContextError::Forged),
                "{len}: {refused:?}"
            );
            // Bytes missing at the front.
            assert!(
                cluster()
                    .open("bucket", b"key", &sealed[sealed.len() - len..])
                    .is_err()
            );
        }
        for more in 1..40 {
            for byte in [0, 1, 0xff] {
                let mut longer = sealed.to_vec();
                longer.resize(sealed.len() + more, byte);
                assert_eq!(
                    cluster().open("bucket", b"key", &longer),
                    Err(ContextError::Forged)
                );
            }
        }
    }
}

#[test]
fn a_context_is_good_for_its_own_key_in_its_own_cluster() {
    let sealed = cluster().seal("bucket", b"key", &some_context());
    for (bucket, key) in [
        ("bucket", &b"kez"[..]),
        ("bucket", b"other"),
        ("bucket", b""),
        ("buckeu", b"key"),
        ("other", b"key"),
    ] {
        assert_eq!(
            cluster().open(bucket, key, &sealed),
            Err(ContextError::Forged)
        );
    }
    let foreign = ContextKey::new(&[8; 32]);
    assert_eq!(
        foreign.open("bucket", b"key", &sealed),
        Err(ContextError::Foreign)
    );
}

#[test]
fn bucket_and_key_cannot_be_cut_elsewhere() {
    let sealed = cluster().seal("ab", b"c", &some_context());
    assert_eq!(
        cluster().open("a", b"bc", &sealed),
        Err(ContextError::Forged)
    );
    assert_eq!(
        cluster().open("abc", b"", &sealed),
        Err(ContextError::Forged)
    );
    assert_eq!(
        cluster().open("", b"abc", &sealed),
        Err(ContextError::Forged)
    );
}

#[test]
fn a_key_cannot_swallow_the_body_of_its_context() {
    // The hash runs over the key and then the body, so a key that ends as a body begins must not shift the border.
    let sealed = cluster().seal("b", b"k", &some_context());
    for cut in 1..sealed.len() - 22 {
        let mut key = b"k".to_vec();
        key.extend(&sealed[..cut]);
        assert!(cluster().open("b", &key, &sealed[cut..]).is_err());
    }
}

#[test]
fn a_context_of_too_many_dots_is_refused() {
    let most = cluster().seal("b", b"k", &many(CONTEXT_DOTS_MAX));
    assert_eq!(
        cluster().open("b", b"k", &most).unwrap(),
        many(CONTEXT_DOTS_MAX)
    );
    let more = cluster().seal("b", b"k", &many(CONTEXT_DOTS_MAX + 1));
    assert_eq!(
        cluster().open("b", b"k", &more),
        Err(ContextError::TooLarge)
    );
}

#[test]
fn a_dot_told_twice_keeps_its_longer_stretch() {
    let context = Context::new([span(1, 8, 9), span(1, 4, 9), span(1, 7, 9)]);
    assert_eq!(context.spans(), [span(1, 4, 9)]);
}

#[test]
fn a_secret_is_not_printed() {
    let printed = format!("{:?}", ContextKey::new(&[0x5a; 32]));
    assert!(printed.starts_with("ContextKey(["), "{printed}");
    assert!(printed.len() < 32, "the id alone: {printed}");
}

#[test]
fn refusals_say_what_to_do() {
    for refusal in [
        ContextError::Malformed,
        ContextError::Foreign,
        ContextError::Forged,
        ContextError::TooLarge,
    ] {
        assert!(refusal.to_string().contains("context"), "{refusal}");
    }
}

#[test]
fn the_bytes_of_a_sealed_context_stay() {
    // A client may keep a context across an upgrade of the cluster, so these bytes must open in every later version.
    let golden = concat!(
        "01",       // format
        "a6aeddc0", // which secret
        "03",       // dots
        "00000000000000000000000000000003",
        "ac02", // actor 3, counter 300,
        "a802", // 296 counters before it its own
        "00000000000000000000000000000003",
        "ad02",
        "00",
        "ffffffffffffffffffffffffffffffff",
        "ffffffffffffffffff01",
        "feffffffffffffffff01",
        "7d5251dd6e271f52f681bfa3f0a036d2", // keyed hash
    );
    let sealed = cluster().seal("bucket", b"key", &some_context());
    assert_eq!(hex(&sealed), golden);
    assert_eq!(
        cluster().open("bucket", b"key", &bytes(golden)).unwrap(),
        some_context()
    );
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
