//! Whom reads ask, when they ask one more, and what they mend: ranking, hedges, probes and bounds on repairs.

use std::time::Duration;

use quorate_node::{BucketDefaults, Input, Limits, Time};
use quorate_protocol::{Answer, Condition, Message, Options, Quorum, ReplicaRequest};

use crate::cluster::{Cluster, With, foreign, get, holding, put, r, w};

const MS: Duration = Duration::from_millis(1);

/// Three nodes that hold a key, the coordinator being n0, which has seen n1 answer reads at once, and prefers it to n2.
fn stocked(limits: Limits) -> Cluster {
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    c.quietly(|c| {
        c.ask(0, put("k", "v").with(w(3)));
        c.settle();
        for _ in 0..3 {
            c.ask(0, get("k"));
            c.settle();
        }
    });
    c
}

/// How often something was counted.
fn counted(c: &Cluster, event: &str) -> usize {
    let line = format!("counts {event}");
    c.log.lines().filter(|l| l.trim().ends_with(&line)).count()
}

/// Who is being asked by n0 to read, in the order of the messages on the wire.
fn being_read(c: &Cluster) -> Vec<usize> {
    let reads = c.wire.iter().filter(|e| {
        e.from == 0 && matches!(e.message, Message::Replica(_, _, ReplicaRequest::Read(_)))
    });
    reads.map(|e| e.to).collect()
}

/// One read, in which n1 says nothing. Returns whether it had to wait.
fn read_without_n1(c: &mut Cluster) -> bool {
    let read = c.ask(0, get("k"));
    c.lose(0, 1);
    c.settle();
    let waits = c.answer_to(read).is_none();
    if waits {
        c.pass(5 * MS);
        c.settle();
    }
    assert_eq!(c.shown(read), ["v"]);
    waits
}

#[test]
fn a_slow_replica_is_hedged() {
    let mut c = stocked(Limits::default());
    let read = c.ask(0, get("k"));
    assert_eq!(being_read(&c), [1]);
    c.pass(4 * MS);
    assert_eq!(being_read(&c), [1], "it is not overdue yet");
    c.pass(MS);
    assert_eq!(being_read(&c), [1, 2]);
    assert_eq!(counted(&c, "HedgeSent"), 1);
    c.deliver(0, 2);
    c.deliver(2, 0);
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(counted(&c, "HedgeWon"), 1);
    // The slow one's answer comes late, and finds nobody waiting.
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    c.pass(Duration::from_secs(1));
    assert_eq!(counted(&c, "ReadWidened"), 0);
    assert!(c.nodes.iter().all(quorate_node::Node::is_idle));
}

#[test]
fn the_slow_replica_may_still_be_the_first() {
    let mut c = stocked(Limits::default());
    let read = c.ask(0, get("k"));
    c.pass(5 * MS);
    assert_eq!(being_read(&c), [1, 2]);
    c.deliver(0, 1);
    c.deliver(1, 0);
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(counted(&c, "HedgeSent"), 1);
    assert_eq!(counted(&c, "HedgeWon"), 0);
    c.settle();
}

#[test]
fn a_read_is_hedged_once_and_then_asks_all_when_its_patience_ends() {
    let mut c = Cluster::with(
        &["here"; 5],
        BucketDefaults {
            n: 5,
            ..BucketDefaults::default()
        },
        Limits::default(),
    );
    c.quietly(|c| {
        for _ in 0..3 {
            c.ask(0, get("k").with(r(5)));
            c.settle();
        }
    });
    let read = c.ask(0, get("k"));
    assert_eq!(being_read(&c), [1, 2]);
    for _ in 0..9 {
        c.pass(10 * MS);
    }
    assert_eq!(being_read(&c), [1, 2, 3]);
    c.pass(10 * MS);
    assert_eq!(being_read(&c), [1, 2, 3, 4]);
    assert_eq!(counted(&c, "ReadWidened"), 1);
    assert_eq!(counted(&c, "HedgeSent"), 1);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
}

#[test]
fn hedges_end_with_their_budget() {
    let mut c = stocked(Limits {
        hedge_burst: 3,
        ..Limits::default()
    });
    // All are sent before anything could be known of n1's silence.
    let reads: Vec<_> = (0..8).map(|_| c.ask(0, get("k"))).collect();
    c.lose(0, 1);
    c.pass(5 * MS);
    assert_eq!(counted(&c, "HedgeSent"), 3);
    assert_eq!(counted(&c, "HedgeRefused"), 5);
    c.settle();
    let answered = |c: &Cluster| reads.iter().filter(|r| c.answer_to(**r).is_some()).count();
    assert_eq!(answered(&c), 3);
    // The others wait for as long as they would have without hedges.
    c.pass(95 * MS);
    c.settle();
    assert_eq!(counted(&c, "ReadWidened"), 5);
    assert_eq!(answered(&c), 8);
    // Ten reads pay for one more hedge.
    for _ in 0..10 {
        c.ask(0, get("k"));
        c.settle();
    }
    c.ask(0, get("k"));
    assert_eq!(being_read(&c), [2], "n1 is silent");
    c.pass(5 * MS);
    assert_eq!(counted(&c, "HedgeSent"), 3, "a silent one is no help");
    c.settle();
    c.down(0, 1);
    c.up(0, 1);
    c.ask(0, get("k"));
    c.lose(0, 1);
    c.pass(5 * MS);
    c.settle();
    assert_eq!(counted(&c, "HedgeSent"), 4);
}

#[test]
fn without_a_share_of_reads_nothing_is_hedged() {
    let mut c = stocked(Limits {
        hedge_percent: 0,
        ..Limits::default()
    });
    let read = c.ask(0, get("k"));
    c.pass(50 * MS);
    assert_eq!(being_read(&c), [1]);
    c.pass(50 * MS);
    assert_eq!(being_read(&c), [1, 2]);
    assert_eq!(counted(&c, "HedgeSent"), 0);
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
}

#[test]
fn a_silent_node_is_ranked_down_at_once_and_probed_back() {
    let mut c = stocked(Limits::default());
    assert!(read_without_n1(&mut c), "the first finds out");
    for _ in 0..20 {
        assert!(!read_without_n1(&mut c));
    }
    assert_eq!(counted(&c, "Probed"), 0, "not before a second has passed");
    c.pass(Duration::from_secs(1));
    for _ in 0..100 {
        assert!(!read_without_n1(&mut c));
    }
    assert_eq!(counted(&c, "Probed"), 1, "once a second");
    c.pass(2 * Duration::from_secs(1));
    let mut reads = 0;
    while being_read(&c).is_empty() {
        let read = c.ask(0, get("k"));
        assert!(being_read(&c).contains(&2));
        c.deliver(0, 2);
        c.deliver(2, 0);
        assert_eq!(c.shown(read), ["v"], "it does not wait for the probe");
        reads += 1;
    }
    assert!(reads <= 32, "{reads}");
    // This time it answers.
    assert_eq!(being_read(&c), [1]);
    c.settle();
    let read = c.ask(0, get("k"));
    assert_eq!(being_read(&c), [1]);
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(counted(&c, "HedgeSent"), 1);
}

#[test]
fn a_node_that_says_it_is_broken_is_ranked_down_at_once() {
    let mut c = stocked(Limits::default());
    c.input(1, Input::Poisoned("the disk failed".to_owned()));
    c.ask(0, put("k2", "v"));
    c.settle();
    let read = c.ask(0, get("k"));
    assert_eq!(being_read(&c), [2]);
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
}

#[test]
fn a_node_that_takes_no_writes_is_not_read_from_first() {
    let mut c = stocked(Limits::default());
    c.ask(0, put("k2", "v"));
    c.lose(0, 1);
    c.settle();
    c.pass(5 * MS);
    let read = c.ask(0, get("k"));
    assert_eq!(being_read(&c), [2]);
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
}

#[test]
fn a_slow_answer_counts_though_nobody_waited_for_it() {
    let mut c = stocked(Limits::default());
    c.ask(0, get("k"));
    c.pass(5 * MS);
    c.deliver(0, 2);
    c.deliver(2, 0);
    c.pass(60 * MS);
    c.settle();
    // It is no longer silent, and known to be slow.
    c.ask(0, get("k"));
    assert_eq!(being_read(&c), [2]);
    c.settle();
}

#[test]
fn strict_reads_hedge_among_primaries_alone() {
    let mut c = Cluster::of(5);
    c.quietly(|c| {
        c.ask(0, get("k").with(r(3)));
        c.settle();
    });
    let replicas = c.replicas("k");
    assert!(replicas.contains(&0), "{replicas:?}");
    let pr = |count| Options {
        r: Some(Quorum::Count(count)),
        pr: Some(Quorum::Count(count)),
        ..Options::default()
    };
    let read = c.ask(0, get("k").with(pr(2)));
    c.pass(5 * MS);
    assert_eq!(counted(&c, "HedgeSent"), 1);
    let asked = being_read(&c);
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|node| replicas.contains(node)));
    let hedge = asked[1];
    c.deliver(0, hedge);
    c.deliver(hedge, 0);
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    c.settle();
    // Where all primaries are needed there is nobody to ask besides, and no fallback counts.
    let read = c.ask(0, get("k").with(pr(3)));
    let asked = being_read(&c);
    c.pass(100 * MS);
    assert_eq!(being_read(&c), asked);
    assert_eq!(counted(&c, "HedgeSent"), 1);
    assert_eq!(counted(&c, "HedgeRefused"), 0, "nothing is spent on it");
    assert_eq!(counted(&c, "FallbackRead"), 0);
    assert_eq!(c.answer_to(read), None);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
}

#[test]
fn no_hedge_goes_where_it_could_not_help() {
    let mut c = Cluster::in_regions(&["east", "east", "east", "west", "west", "west"]);
    let options = Options {
        r: Some(Quorum::Count(3)),
        pr: Some(Quorum::Local),
        ..Options::default()
    };
    c.quietly(|c| {
        c.ask(0, get("k").with(r(6)));
        c.settle();
        c.down(0, 2);
    });
    // The only other of its region is late: nobody in the west could take its place.
    let read = c.ask(0, get("k").with(options));
    assert_eq!(being_read(&c), [1, 3]);
    c.deliver(0, 3);
    c.deliver(3, 0);
    c.pass(5 * MS);
    assert_eq!(being_read(&c), [1]);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    assert_eq!(counted(&c, "HedgeSent") + counted(&c, "HedgeRefused"), 0);
    // The one in the west is late: another one there will do.
    let read = c.ask(0, get("k").with(options));
    c.deliver(0, 1);
    c.deliver(1, 0);
    c.pass(5 * MS);
    assert_eq!(being_read(&c), [3, 4]);
    c.deliver(0, 4);
    c.deliver(4, 0);
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
    c.settle();
}

#[test]
fn the_own_region_comes_before_quickness_unless_it_is_slow() {
    let mut c = Cluster::in_regions(&["east", "east", "west", "west", "west", "west"]);
    // Of the own region there is one besides; it takes 2 ms, those in the west none at all.
    let season = |c: &mut Cluster, took: Duration| {
        c.quietly(|c| {
            for _ in 0..40 {
                c.ask(0, get("k").with(r(5)));
                for to in 2..6 {
                    if c.wire.iter().any(|e| e.to == to) {
                        c.deliver(0, to);
                        c.deliver(to, 0);
                    }
                }
                c.pass(took);
                c.settle();
            }
        });
    };
    season(&mut c, 2 * MS);
    c.ask(0, get("k").with(r(2)));
    assert_eq!(being_read(&c), [1]);
    c.settle();
    season(&mut c, 4 * MS);
    c.ask(0, get("k").with(r(2)));
    assert_eq!(being_read(&c).len(), 1);
    assert_ne!(being_read(&c), [1]);
    c.settle();
}

#[test]
fn answers_that_are_known_to_take_long_are_waited_for() {
    let mut c = Cluster::of(3);
    c.quietly(|c| {
        // Both are far away: 150 ms.
        for _ in 0..20 {
            c.ask(0, get("k").with(r(3)));
            c.pass(150 * MS);
            c.settle();
        }
    });
    let read = c.ask(0, get("k"));
    assert_eq!(being_read(&c), [1]);
    c.pass(100 * MS);
    c.pass(40 * MS);
    assert_eq!(being_read(&c), [1], "it is not late");
    c.pass(60 * MS);
    assert_eq!(being_read(&c), [1, 2]);
    c.settle();
    assert_eq!(c.answer_to(read), Some(&Answer::Absent));
}

#[test]
fn a_write_that_reads_first_hedges_for_the_record() {
    let mut c = stocked(Limits::default());
    let write = c.ask(0, put("k", "w").on_condition(Condition::Present));
    c.pass(5 * MS);
    let asked = c.log.lines().rfind(|line| line.contains("n0 -> n2: #"));
    let asked = asked.expect("n2 is asked");
    assert!(asked.ends_with("your record?"), "{asked}");
    c.deliver(0, 2);
    c.deliver(2, 0);
    assert_eq!(counted(&c, "HedgeWon"), 1);
    c.settle();
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
}

#[test]
fn a_hedge_that_disagrees_is_read_and_merged() {
    let mut c = stocked(Limits::default());
    let newer = holding(&[(foreign(1), "newer")], &[]);
    c.plant(2, "k", &newer);
    let read = c.ask(0, get("k"));
    c.pass(5 * MS);
    c.lose(0, 1);
    c.settle();
    let mut shown = c.shown(read);
    shown.sort();
    assert_eq!(shown, ["newer", "v"]);
    assert_eq!(counted(&c, "HedgeWon"), 1);
}

#[test]
fn a_read_that_is_passed_on_is_hedged_and_a_write_is_not() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    let replicas = c.replicas(&key);
    c.quietly(|c| {
        c.ask(0, put(&key, "v").with(w(3)));
        c.settle();
        c.ask(3, get(&key));
        c.settle();
    });
    let passed = |c: &Cluster| -> Vec<usize> {
        let requests = c.wire.iter().filter(|e| e.from == 3);
        let requests = requests.filter(|e| matches!(e.message, Message::Request(..)));
        requests.map(|e| e.to).collect()
    };
    let read = c.ask(3, get(&key));
    let first = passed(&c);
    assert_eq!(first.len(), 1);
    c.pass(5 * MS);
    let both = passed(&c);
    assert_eq!(both.len(), 2);
    assert!(both.iter().all(|node| replicas.contains(node)));
    let held: Vec<_> = c.wire.extract_if(.., |e| e.to == first[0]).collect();
    c.settle();
    assert_eq!(c.shown(read), ["v"]);
    assert_eq!(counted(&c, "HedgeWon"), 1);
    c.wire.extend(held);
    c.settle();

    // One that is refused elsewhere, or lost, leaves the other.
    c.pass(Duration::from_secs(1));
    let read = c.ask(3, get(&key));
    let first = passed(&c)[0];
    c.pass(100 * MS);
    let second = passed(&c)[1];
    c.wire.clear();
    c.down(3, second);
    assert_eq!(c.answer_to(read), None);
    c.down(3, first);
    c.settle();
    assert_eq!(c.shown(read), ["v"], "the third has it then");
    c.up(3, first);
    c.up(3, second);

    let write = c.ask(3, put(&key, "w"));
    assert_eq!(passed(&c).len(), 1);
    c.pass(500 * MS);
    assert_eq!(passed(&c).len(), 1, "it would be made twice");
    c.settle();
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
}

#[test]
fn a_coordinator_that_is_silent_gets_no_more_requests() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    c.quietly(|c| {
        c.ask(3, put(&key, "v"));
        c.settle();
    });
    let to = |c: &Cluster| c.wire.iter().find(|e| e.from == 3).map(|e| e.to);
    c.ask(3, put(&key, "w"));
    let silent = to(&c).expect("it is passed on");
    c.wire.clear();
    c.pass(5 * MS);
    let write = c.ask(3, put(&key, "x"));
    assert_ne!(to(&c), Some(silent));
    c.settle();
    assert!(matches!(c.answer_to(write), Some(Answer::Stored { .. })));
}

// ---- Repairs ----

/// n0 and n2 hold the keys, n1 has none of them, and n0 asks n1 first.
fn stale_n1(limits: Limits, keys: &[&str]) -> Cluster {
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    let record = holding(&[(foreign(1), "v")], &[]);
    for key in keys {
        c.plant(0, key, &record);
        c.plant(2, key, &record);
    }
    c
}

/// Reads a key at n0 and lets n1 answer, but not to a repair. Says what is shown.
fn read_and_find_stale(c: &mut Cluster, key: &str) -> Vec<String> {
    let read = c.ask(0, get(key));
    // The digest, and then the record.
    for _ in 0..2 {
        let at = c.wire.iter().position(|e| {
            let is_read = matches!(e.message, Message::Replica(_, _, ReplicaRequest::Read(_)));
            is_read && e.to == 1
        });
        let Some(at) = at else {
            break;
        };
        c.deliver_nth(at);
        c.deliver(1, 0);
    }
    c.shown(read)
}

fn repairs(c: &Cluster) -> usize {
    let merges = c.wire.iter().filter(|e| {
        e.to == 1 && matches!(e.message, Message::Replica(_, _, ReplicaRequest::Merge(_)))
    });
    merges.count()
}

#[test]
fn repairs_beyond_the_bound_are_dropped_and_counted() {
    let limits = Limits {
        repairs_max: 2,
        ..Limits::default()
    };
    let keys = ["a", "b", "c", "d"];
    let mut c = stale_n1(limits, &keys);
    for key in keys {
        assert_eq!(read_and_find_stale(&mut c, key), ["v"], "none waits for it");
    }
    assert_eq!(repairs(&c), 2);
    assert_eq!(counted(&c, "ReadRepair"), 2);
    assert_eq!(counted(&c, "RepairDropped"), 2);
    // Once these are made there is room again, and the next read finds what was left out.
    c.settle();
    assert_eq!(read_and_find_stale(&mut c, "c"), ["v"]);
    assert_eq!(read_and_find_stale(&mut c, "a"), ["v"]);
    c.settle();
    assert_eq!(counted(&c, "ReadRepair"), 3);
    assert_eq!(c.record(1, "c"), c.record(0, "c"));
    assert_eq!(c.record(1, "a"), c.record(0, "a"));
}

#[test]
fn repairs_to_a_node_that_was_lost_do_not_count() {
    let limits = Limits {
        repairs_max: 1,
        ..Limits::default()
    };
    let mut c = stale_n1(limits, &["a", "b"]);
    read_and_find_stale(&mut c, "a");
    c.lose(0, 1);
    c.down(0, 1);
    c.up(0, 1);
    read_and_find_stale(&mut c, "b");
    assert_eq!(counted(&c, "RepairDropped"), 0);
    c.settle();
    assert_eq!(c.record(1, "b"), c.record(0, "b"));
}

#[test]
fn repairs_keep_to_their_bytes_a_second() {
    let limits = Limits {
        repair_bytes_per_second: 100,
        ..Limits::default()
    };
    let keys: Vec<String> = (0..40).map(|i| format!("key-{i}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut c = stale_n1(limits, &keys);
    let began: Time = c.now;
    let mut bytes = 0;
    for key in &keys {
        assert_eq!(read_and_find_stale(&mut c, key), ["v"]);
        if repairs(&c) > 0 {
            bytes += c.record(0, key).encode().len();
            c.settle();
        }
        c.pass(100 * MS);
    }
    let seconds = c.now.since(began).as_secs() as usize;
    assert!(counted(&c, "RepairDropped") > 0, "{}", c.log);
    let record = c.record(0, keys[0]).encode().len();
    // What one second may have beforehand, and the last that began.
    let most = 100 * (seconds + 1) + record;
    assert!(bytes <= most, "{bytes} bytes in {seconds} s");
    assert!(bytes >= 100 * seconds, "{bytes} bytes in {seconds} s");
}
