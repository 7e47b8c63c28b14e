//! What users write and read: quorums by name, refusals as sentences; and the names of buckets.

mod common;

use proptest::prelude::*;
use quorate_protocol::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_quorum_is_read_as_it_is_written(quorum in common::quorum()) {
        prop_assert_eq!(quorum.to_string().parse::<Quorum>().unwrap(), quorum);
        prop_assert_eq!(Quorum::try_from(u8::from(quorum)).unwrap(), quorum);
    }

    #[test]
    fn other_words_are_no_quorum(text in ".{0,12}") {
        if let Ok(quorum) = text.parse::<Quorum>() {
            prop_assert!(quorum.to_string() == text || text == "one" || text.parse::<u8>().is_ok());
        }
    }
}

#[test]
fn quorums_have_the_names_of_the_manual() {
    let names = [
        ("one", Quorum::Count(1)),
        ("1", Quorum::Count(1)),
        ("0", Quorum::Count(0)),
        ("200", Quorum::Count(QUORUM_COUNT_MAX)),
        ("quorum", Quorum::Majority),
        ("all", Quorum::All),
        ("local_quorum", Quorum::Local),
        ("each_quorum", Quorum::Each),
    ];
    for (name, quorum) in names {
        assert_eq!(name.parse::<Quorum>().unwrap(), quorum);
    }
    for wrong in [
        "",
        "201",
        "256",
        "-1",
        "1.5",
        "Quorum",
        "majority",
        " all",
        "99999999999",
    ] {
        let why = wrong.parse::<Quorum>().unwrap_err();
        assert!(
            why.contains(&format!("'{wrong}'")) && why.contains("local_quorum"),
            "{why}"
        );
    }
}

#[test]
fn every_code_is_one_quorum_or_none() {
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|code| Quorum::try_from(*code).is_ok())
        .collect();
    assert_eq!(known, (0..=200).chain(250..=253).collect::<Vec<u8>>());
    for code in known {
        assert_eq!(u8::from(Quorum::try_from(code).unwrap()), code);
    }
    // A count beyond the greatest is the greatest: more replicas than there are, either way.
    assert_eq!(u8::from(Quorum::Count(u8::MAX)), QUORUM_COUNT_MAX);
}

#[test]
fn buckets_have_an_id_for_each_life() {
    let names = ["", "a", "b", "ab", "cart"];
    let mut ids: Vec<BucketId> = Vec::new();
    for name in names {
        for generation in [0, 1, 2, u32::MAX] {
            assert_eq!(
                BucketId::new(name, generation),
                BucketId::new(name, generation)
            );
            ids.push(BucketId::new(name, generation));
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_request_names_its_target() {
    for (name, message) in common::specimens() {
        if let Message::Request(_, _, request) = message {
            let expected = match &name[..] {
                "request/put-bare"
                | "request/delete-bare"
                | "request/put-if-absent"
                | "request/put-until" => Some(("b", "k")),
                "request/put" | "request/get" | "request/delete" => Some(("cart", "ann")),
                _ => None,
            };
            assert_eq!(request.target(), expected, "{name}");
        }
    }
}

#[test]
fn refusals_that_pass_are_told_from_those_that_stay() {
    let passing: Vec<String> = common::specimens()
        .into_iter()
        .filter_map(|(name, message)| match message {
            Message::Answer(_, Answer::Refused(refusal)) if refusal.is_passing() => Some(name),
            _ => None,
        })
        .collect();
    let expected = [
        "unavailable",
        "overloaded",
        "draining",
        "poisoned",
        "wrong-layout",
        "corrupt",
        "bucket-changed",
        "disk-full",
        "hints-full",
    ];
    assert_eq!(
        passing,
        expected.map(|name| format!("answer/refused-{name}"))
    );
}

#[test]
fn an_unmet_write_is_unknown_and_never_failed() {
    let unmet = |timed_out, may_have_written| {
        Unmet {
            needed: 2,
            answered: 1,
            timed_out,
            may_have_written,
        }
        .to_string()
    };
    assert_eq!(
        unmet(true, true),
        "2 replicas were needed and 1 answered in time; the outcome is unknown: the write may or may not have happened"
    );
    assert_eq!(
        unmet(false, false),
        "2 replicas were needed and 1 answered before the others were lost; nothing was changed"
    );
    for timed_out in [false, true] {
        assert!(!unmet(timed_out, true).contains("fail"));
    }
}
