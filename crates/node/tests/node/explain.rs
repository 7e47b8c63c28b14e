//! Requests that explain themselves: what the account says, and that it is not lost when a request fails.

use std::time::Duration;

use quorate_protocol::{Account, Answer, Condition, Options, Refusal, Request};

use crate::cluster::{Cluster, With, delete, foreign, get, holding, put, r, w};

/// What a replica was asked and said, in words.
fn steps(account: &Account, node: usize) -> Vec<&str> {
    let name = format!("n{node}");
    let replica = account.replicas.iter().find(|r| r.node == name);
    let steps = &replica.expect("it is a replica").steps;
    steps.iter().map(|s| s.what.as_str()).collect()
}

#[test]
fn a_read_tells_who_showed_what_and_who_was_repaired() {
    let mut c = Cluster::of(3);
    let (d, e) = (foreign(1), foreign(2));
    c.plant(0, "k", &holding(&[(e, "new")], &[d]));
    c.plant(1, "k", &holding(&[(d, "old")], &[]));
    c.plant(2, "k", &holding(&[(e, "new")], &[d]));
    let read = c.ask(0, get("k").with(r(3)).explained());
    c.pass(Duration::from_millis(7));
    c.settle();
    let (answer, account) = c.explained(read);
    assert!(matches!(answer, Answer::Found { .. }));
    assert_eq!(account.coordinator, "n0");
    assert_eq!(account.layout_version, c.layout.version());
    assert_eq!(account.partition, c.vnode("k").partition.0);
    assert_eq!(account.needed, ["r=3 of 3"]);
    assert_eq!(account.elapsed_us, 7_000);
    assert_eq!(steps(&account, 0), ["asked for the record", "record"]);
    let asked_twice = [
        "asked for a digest",
        "digest",
        "asked for the record",
        "record",
    ];
    let about_the_missing = [
        "asked what became of values that it lacks",
        "none of them was here and is gone",
    ];
    assert_eq!(
        steps(&account, 1),
        [&asked_twice[..], &about_the_missing].concat()
    );
    assert_eq!(steps(&account, 2), asked_twice);
    let of = |node: &str| account.replicas.iter().find(|r| r.node == node).unwrap();
    assert_eq!(of("n0").steps[1].dots, [e.to_string()]);
    assert_eq!(of("n0").steps[1].evidence, 1);
    assert_eq!(of("n0").steps[1].at_us, 0);
    assert_eq!(of("n1").steps[3].dots, [d.to_string()]);
    assert_eq!(of("n1").steps[3].evidence, 0);
    assert_eq!(of("n1").steps[3].at_us, 7_000);
    assert!(account.replicas.iter().all(|r| r.up && r.region == "here"));
    let [repaired] = &account.repaired[..] else {
        panic!("{:?}", account.repaired);
    };
    assert_eq!((repaired.node.as_str(), repaired.evidence), ("n1", 1));
    assert_eq!(repaired.dots, [e.to_string()]);
    assert!(account.siblings.is_empty());
}

#[test]
fn the_replicas_come_in_the_order_of_the_preference_list() {
    let mut c = Cluster::of(5);
    for at in 0..5 {
        let key = format!("key-{at}");
        let read = c.ask(at, get(&key).explained());
        c.settle();
        let (_, account) = c.explained(read);
        let named: Vec<&str> = account.replicas.iter().map(|r| r.node.as_str()).collect();
        let expected: Vec<String> = c.replicas(&key).iter().map(|i| format!("n{i}")).collect();
        assert_eq!(named, expected);
        assert!(
            named.contains(&account.coordinator.as_str()),
            "a replica coordinates"
        );
    }
}

#[test]
fn siblings_are_explained_by_what_the_replicas_show_and_remove() {
    let mut c = Cluster::of(3);
    let (a, b, gone) = (foreign(5), foreign(9), foreign(3));
    c.plant(0, "k", &holding(&[(a, "a")], &[gone]));
    c.plant(1, "k", &holding(&[(b, "b")], &[]));
    let read = c.ask(0, get("k").with(r(3)).explained());
    c.settle();
    let (_, account) = c.explained(read);
    let [of_a, of_b] = &account.siblings[..] else {
        panic!("{:?}", account.siblings);
    };
    assert!(of_a.starts_with(&format!("{a} stands")), "{of_a}");
    assert!(of_a.contains(&format!("not read {b}")), "{of_a}");
    assert!(of_a.contains("n0 showed it, n"), "{of_a}");
    assert!(of_a.contains("actor 3 of this key are removed"), "{of_a}");
    assert!(of_b.contains("n1 showed it"), "{of_b}");

    // Where digests agree, they speak for every value.
    let read = c.ask(2, get("k").with(r(3)).explained());
    c.settle();
    let (_, account) = c.explained(read);
    assert_eq!(account.siblings.len(), 2);
    for sentence in &account.siblings {
        assert!(!sentence.contains("did not"), "{sentence}");
        for node in ["n0", "n1", "n2"] {
            assert!(sentence.contains(node), "{sentence}");
        }
    }
}

#[test]
fn a_put_tells_why_it_stands_beside_others() {
    let mut c = Cluster::of(3);
    let first = c.ask(0, put("k", "first"));
    c.settle();
    let seen = c.context_of(first);
    let blind = c.ask(0, put("k", "blind").with(w(3)).explained());
    c.settle();
    let (answer, account) = c.explained(blind);
    assert!(matches!(answer, Answer::Stored { .. }));
    assert_eq!(account.needed, ["w=3 of 3"]);
    let written = ["sent the write", "taken and synced"];
    assert!((0..3).all(|at| steps(&account, at) == written));
    let text = account.siblings.join("\n");
    assert_eq!(account.siblings.len(), 2);
    assert!(
        text.contains("is this put: it came without a context"),
        "{text}"
    );
    assert!(
        text.contains("and this one came without a context"),
        "{text}"
    );

    let half = c.ask(0, put("k", "half").having_seen(&seen).explained());
    c.settle();
    let (_, account) = c.explained(half);
    let text = account.siblings.join("\n");
    assert!(text.contains("replaces what it had read, "), "{text}");
    assert!(
        text.contains("not among what this write had read"),
        "{text}"
    );
}

#[test]
fn a_delete_and_a_condition_tell_of_the_read_and_of_the_write() {
    let mut c = Cluster::of(3);
    c.ask(0, put("k", "v").with(w(3)));
    c.settle();
    let failed = put("k", "w").on_condition(Condition::Absent).explained();
    let failed = c.ask(0, failed);
    c.settle();
    let (answer, account) = c.explained(failed);
    assert!(matches!(
        answer,
        Answer::Refused(Refusal::ConditionFailed(_))
    ));
    assert_eq!(account.needed, ["r=2 of 3", "w=2 of 3"]);
    assert_eq!(steps(&account, 0), ["asked for the record", "record"]);

    let removed = c.ask(0, delete("k").with(w(3)).explained());
    c.settle();
    let (answer, account) = c.explained(removed);
    assert_eq!(answer, Answer::Deleted);
    assert_eq!(account.needed, ["r=2 of 3", "w=3 of 3"]);
    let both = [
        "asked for the record",
        "record",
        "sent the write",
        "taken and synced",
    ];
    assert_eq!(steps(&account, 0), both);
    let sent = &account
        .replicas
        .iter()
        .find(|r| r.node == "n0")
        .unwrap()
        .steps[2];
    assert_eq!((sent.dots.len(), sent.evidence), (0, 1));
}

#[test]
fn what_failed_is_explained() {
    let mut c = Cluster::of(3);
    // Not met: one was lost on the way, of the other nothing is heard.
    let unmet = c.ask(0, put("k", "v").with(w(3)).explained());
    c.sync(0);
    c.deliver(0, 1);
    c.sync(1);
    c.deliver(1, 0);
    c.down(0, 2);
    let (answer, account) = c.explained(unmet);
    assert!(matches!(answer, Answer::Unmet(_)));
    assert_eq!(steps(&account, 1), ["sent the write", "taken and synced"]);
    assert_eq!(steps(&account, 2), ["sent the write", "lost"]);
    let down: Vec<bool> = account.replicas.iter().map(|r| !r.up).collect();
    assert_eq!(down.iter().filter(|down| **down).count(), 1);

    // Refused before anything was sent: who is down is what there is to tell.
    let refused = c.ask(0, put("k", "v").with(w(3)).explained());
    let (answer, account) = c.explained(refused);
    assert!(matches!(
        answer,
        Answer::Refused(Refusal::Unavailable { .. })
    ));
    assert_eq!(account.needed, ["w=3 of 3"]);
    assert!((0..3).all(|at| steps(&account, at).is_empty()));

    // By the deadline.
    let late = c.ask_within(0, 50, get("other").explained());
    c.lose(0, 1);
    c.pass(Duration::from_millis(50));
    let (answer, account) = c.explained(late);
    assert!(matches!(answer, Answer::Unmet(unmet) if unmet.timed_out));
    assert_eq!(account.elapsed_us, 50_000);
    c.settle();
    // What was refused before it was looked at has no account.
    let nameless = c.ask(0, get("").explained());
    assert!(matches!(
        c.answer_to(nameless),
        Some(Answer::Refused(Refusal::Malformed(_)))
    ));
}

#[test]
fn a_forwarded_request_is_explained_by_its_coordinator_or_by_whoever_lost_it() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(0);
    let read = c.ask(0, get(&key).explained());
    c.settle();
    let (answer, account) = c.explained(read);
    assert_eq!(answer, Answer::Absent);
    let replicas: Vec<String> = c.replicas(&key).iter().map(|i| format!("n{i}")).collect();
    assert!(replicas.contains(&account.coordinator));

    let write = c.ask(0, put(&key, "v").explained());
    let at = c.wire[0].to;
    c.down(0, at);
    let (answer, account) = c.explained(write);
    assert!(matches!(answer, Answer::Unmet(unmet) if unmet.may_have_written));
    assert_eq!(account.coordinator, "n0");
    assert_eq!(steps(&account, at), ["passed on", "lost"]);
    c.settle();
}

#[test]
fn a_forwarder_tries_elsewhere_also_what_was_refused_with_an_account() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(0);
    let strict = Options {
        sloppy: Some(false),
        ..r(2)
    };
    let read: Request = get(&key).with(strict).explained();
    // The first candidate reaches nobody, which will pass; the second does.
    let first = c.replicas(&key)[..3].iter().copied().min().expect("three");
    for peer in (0..4).filter(|at| *at != first && *at != 0) {
        c.down(first, peer);
    }
    let read = c.ask(0, read);
    assert_eq!(c.wire[0].to, first);
    c.settle();
    let (answer, account) = c.explained(read);
    assert_eq!(answer, Answer::Absent);
    assert_ne!(account.coordinator, format!("n{first}"));
}

#[test]
fn who_does_not_ask_gets_no_account() {
    let mut c = Cluster::of(3);
    for request in [
        put("k", "v"),
        get("k"),
        delete("k"),
        get("k").with(Options::default()),
    ] {
        let caller = c.ask(0, request);
        c.settle();
        let answer = c.answer_to(caller).expect("an answer");
        assert!(!matches!(answer, Answer::Explained(_)));
    }
}
