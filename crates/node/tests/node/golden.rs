//! Conversations as text: what a client asks, what nodes then say to each other, what it is told.
//!
//! `n0 -> n1: #1 merge {n0:1 = milk}` is sent, `n1 <- n0: ...` arrives. `n0:1` is the first dot that n0 minted, `#1` a request's
//! id. The files under `golden/` are rewritten by `QUORATE_UPDATE_GOLDEN=1 cargo test -p quorate-node`; read the difference
//! before committing it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use quorate_node::{BucketDefaults, Limits};
use quorate_protocol::{Condition, Options, Quorum, Request};

use crate::cluster::{Cluster, With, delete, foreign, get, holding, put, r, w};

const UPDATE: &str = "QUORATE_UPDATE_GOLDEN";

/// Compares what was written down with the file of that name.
fn golden(name: &str, cluster: &Cluster) {
    for (i, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(node.in_flight(), 0, "n{i} has not finished");
        assert!(node.is_idle(), "n{i} still waits for something");
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&file, &cluster.log).expect("the golden file can be written");
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    let how = format!("if that is meant: {UPDATE}=1 cargo test -p quorate-node");
    for (line, (golden, written)) in golden.lines().zip(cluster.log.lines()).enumerate() {
        assert_eq!(golden, written, "line {} of {name}.txt; {how}", line + 1);
    }
    let lines = (golden.lines().count(), cluster.log.lines().count());
    assert_eq!(lines.0, lines.1, "lines of {name}.txt; {how}");
}

/// Three nodes, all of them replicas of `milk`, which they hold from long ago.
fn stocked() -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.quietly(|c| {
        c.ask(0, put("milk", "one litre").with(w(3)));
        c.settle();
    });
    cluster
}

#[test]
fn put_at_two_of_three() {
    let mut c = Cluster::of(3);
    c.ask(0, put("milk", "one litre").with(w(2)));
    c.deliver(0, 1);
    c.deliver(0, 2);
    c.sync(1);
    c.deliver(1, 0);
    c.note("-- n1 has it on disk, n0 itself has not: not yet acknowledged");
    c.sync(0);
    c.note("-- the third comes late, and finds nobody waiting");
    c.sync(2);
    c.deliver(2, 0);
    golden("put_at_two_of_three", &c);
}

#[test]
fn put_with_one_replica_down() {
    let mut c = Cluster::of(3);
    c.down(0, 2);
    c.ask(0, put("milk", "one litre").with(w(2)));
    c.settle();
    c.note("-- all three are asked for: refused at once, nothing is sent");
    c.ask(0, put("milk", "two litres").with(w(3)));
    golden("put_with_one_replica_down", &c);
}

#[test]
fn put_whose_replica_goes_down_meanwhile() {
    let mut c = Cluster::of(3);
    c.ask(0, put("milk", "one litre").with(w(3)));
    c.deliver(0, 1);
    c.sync(0);
    c.sync(1);
    c.deliver(1, 0);
    c.note("-- the third can no longer be reached: nobody waits for the deadline");
    c.down(0, 2);
    golden("put_whose_replica_goes_down_meanwhile", &c);
}

#[test]
fn get_with_equal_digests() {
    let mut c = stocked();
    c.ask(1, get("milk"));
    c.settle();
    golden("get_with_equal_digests", &c);
}

#[test]
fn get_with_a_stale_replica() {
    let mut c = stocked();
    c.quietly(|c| {
        let read = c.ask(0, get("milk"));
        c.settle();
        c.down(0, 1);
        let seen = c.context_of(read);
        c.ask(0, put("milk", "two litres").having_seen(&seen));
        c.settle();
        c.up(0, 1);
    });
    c.note("-- n1 missed the last put");
    c.ask(0, get("milk"));
    c.settle();
    c.note("-- once more: n1 was repaired, so that digests agree");
    c.ask(0, get("milk"));
    c.settle();
    golden("get_with_a_stale_replica", &c);
}

#[test]
fn get_from_a_slow_replica() {
    let mut c = stocked();
    c.ask(0, get("milk"));
    c.lose(0, 1);
    c.pass(Duration::from_millis(100));
    c.settle();
    c.note("-- n1 was slow: the next read asks n2 first");
    c.ask(0, get("milk"));
    c.settle();
    golden("get_from_a_slow_replica", &c);
}

#[test]
fn forwarded_put_and_get() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    c.ask(3, put(&key, "one litre"));
    c.settle();
    c.ask(3, get(&key));
    c.settle();
    golden("forwarded_put_and_get", &c);
}

#[test]
fn forwarder_whose_coordinator_goes_down() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    let first = c.replicas(&key).into_iter().min().expect("replicas");
    c.ask(3, put(&key, "one litre"));
    c.note("-- it may have been written: unknown");
    c.down(3, first);
    c.lose(3, first);
    c.quietly(|c| c.up(3, first));
    c.ask(3, get(&key));
    c.note("-- a read is asked again elsewhere");
    c.down(3, first);
    c.lose(3, first);
    c.settle();
    golden("forwarder_whose_coordinator_goes_down", &c);
}

#[test]
fn forwarder_whose_coordinator_refuses() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    let first = c.replicas(&key).into_iter().min().expect("replicas");
    c.quietly(|c| c.input(first, quorate_node::Input::Drain));
    c.note(format!(
        "-- n{first} is closing, and has done nothing: even a put is tried elsewhere"
    ));
    c.ask(3, put(&key, "one litre"));
    c.settle();
    golden("forwarder_whose_coordinator_refuses", &c);
}

#[test]
fn delete_without_a_context() {
    let mut c = stocked();
    c.ask(1, delete("milk"));
    c.settle();
    c.ask(2, get("milk"));
    c.settle();
    c.note("-- a key that nobody ever wrote");
    c.ask(1, delete("beer"));
    c.settle();
    golden("delete_without_a_context", &c);
}

#[test]
fn delete_with_a_context() {
    let mut c = stocked();
    let read = c.quietly(|c| {
        let read = c.ask(0, get("milk"));
        c.settle();
        c.ask(2, put("milk", "unseen").with(w(3)));
        c.settle();
        c.context_of(read)
    });
    c.ask(1, delete("milk").having_seen(&read));
    c.settle();
    c.ask(2, get("milk"));
    c.settle();
    golden("delete_with_a_context", &c);
}

#[test]
fn two_puts_without_context_and_their_resolution() {
    let mut c = Cluster::of(3);
    c.ask(0, put("milk", "one litre"));
    c.settle();
    c.ask(1, put("milk", "two litres"));
    c.settle();
    let read = c.ask(2, get("milk"));
    c.settle();
    let both = c.context_of(read);
    let options = Options {
        return_body: true,
        ..Options::default()
    };
    c.ask(
        0,
        put("milk", "three litres").having_seen(&both).with(options),
    );
    c.settle();
    c.ask(1, get("milk"));
    c.settle();
    golden("two_puts_without_context_and_their_resolution", &c);
}

#[test]
fn too_many_siblings() {
    let limits = Limits {
        siblings_max: 2,
        ..Limits::default()
    };
    let mut c = Cluster::with(&["here"; 3], BucketDefaults::default(), limits);
    c.quietly(|c| {
        c.ask(0, put("milk", "one"));
        c.settle();
        c.ask(0, put("milk", "two"));
        c.settle();
    });
    c.ask(0, put("milk", "three"));
    let read = c.ask(0, get("milk"));
    c.settle();
    let both = c.context_of(read);
    c.ask(0, put("milk", "all of it").having_seen(&both));
    c.settle();
    golden("too_many_siblings", &c);
}

#[test]
fn too_few_replicas_in_reach() {
    let mut c = stocked();
    c.down(0, 1);
    c.down(0, 2);
    c.ask(0, put("milk", "two litres"));
    c.ask(0, get("milk"));
    c.ask(0, delete("milk"));
    c.note("-- one is enough for this one");
    c.ask(0, get("milk").with(r(1)));
    golden("too_few_replicas_in_reach", &c);
}

#[test]
fn get_through_a_node_that_was_stopped() {
    let mut c = stocked();
    c.note("-- n0 has just gone on: it believes the others up, which gave it up long ago");
    c.ask(0, get("milk"));
    c.lose(0, 1);
    c.down(0, 1);
    c.lose(0, 2);
    c.down(0, 2);
    c.note("-- a read waits for them to come back, and asks again");
    c.pass(Duration::from_millis(50));
    c.up(0, 2);
    c.settle();
    c.note("-- where nobody comes back in time, it says so");
    c.ask(0, get("milk"));
    c.lose(0, 2);
    c.down(0, 2);
    c.pass(Duration::from_millis(699));
    c.pass(Duration::from_millis(1));
    c.note("-- and what is known to be out of reach is not waited for at all");
    c.ask(0, get("milk"));
    golden("get_through_a_node_that_was_stopped", &c);
}

#[test]
fn forwarder_that_was_stopped() {
    let mut c = Cluster::of(4);
    let key = c.key_not_on(3);
    let replicas = c.replicas(&key);
    c.ask(3, get(&key));
    c.note("-- all who could coordinate it are lost, and one comes back");
    for replica in &replicas {
        c.down(3, *replica);
        c.lose(3, *replica);
    }
    c.up(3, replicas[2]);
    c.settle();
    golden("forwarder_that_was_stopped", &c);
}

#[test]
fn deadline() {
    let mut c = stocked();
    c.ask_within(0, 300, put("milk", "two litres"));
    c.ask_within(0, 300, get("milk"));
    c.sync(0);
    c.pass(Duration::from_millis(299));
    c.pass(Duration::from_millis(1));
    c.note("-- what comes now finds nobody");
    c.settle();
    golden("deadline", &c);
}

#[test]
fn durable_copies_where_the_disk_is_left_to_the_system() {
    let mut c = Cluster::of(3);
    c.note("-- without dw, written is enough");
    c.ask(0, put("milk", "one litre"));
    c.write(0);
    c.deliver(0, 1);
    c.write(1);
    c.deliver(1, 0);
    c.lose(0, 2);
    c.note("-- with dw=1 every copy is synced before it counts");
    let options = Options {
        w: Some(Quorum::Count(2)),
        dw: Some(Quorum::Count(1)),
        ..Options::default()
    };
    c.ask(0, put("milk", "two litres").with(options));
    c.write(0);
    c.deliver(0, 1);
    c.write(1);
    c.sync(1);
    c.deliver(1, 0);
    c.sync(0);
    c.lose(0, 2);
    golden("durable_copies_where_the_disk_is_left_to_the_system", &c);
}

#[test]
fn evidence_that_agreeing_digests_hide() {
    let mut c = Cluster::of(3);
    let d = foreign(1);
    c.plant(1, "milk", &holding(&[], &[d]));
    c.plant(2, "milk", &holding(&[(d, "removed")], &[]));
    c.note("-- n0 knows nothing, n1 that the value was removed, n2 shows it still");
    c.ask(0, get("milk").with(r(3)));
    c.settle();
    golden("evidence_that_agreeing_digests_hide", &c);
}

#[test]
fn put_on_condition() {
    let mut c = Cluster::of(3);
    c.ask(0, put("milk", "one litre").on_condition(Condition::Absent));
    c.settle();
    c.note("-- it stands now, so that it is not created a second time");
    c.ask(1, put("milk", "two litres").on_condition(Condition::Absent));
    c.settle();
    let read = c.ask(2, get("milk"));
    c.settle();
    c.note("-- a condition on that value holds once");
    let on = Condition::Dots(c.dots(read));
    c.ask(2, put("milk", "two litres").on_condition(on.clone()));
    c.settle();
    c.ask(0, delete("milk").on_condition(on));
    c.settle();
    golden("put_on_condition", &c);
}

#[test]
fn status_with_a_node_that_keeps_silent() {
    let mut c = Cluster::of(3);
    c.free_bytes(1, 40);
    c.ask(0, Request::Status);
    c.deliver(0, 1);
    c.deliver(1, 0);
    c.lose(0, 2);
    c.note("-- the others have a second");
    c.pass(Duration::from_secs(1));
    golden("status_with_a_node_that_keeps_silent", &c);
}

#[test]
fn put_with_a_full_disk() {
    let mut c = Cluster::of(3);
    c.free_bytes(2, 40);
    c.ask(0, put("milk", "one litre").with(w(2)));
    c.deliver(0, 2);
    c.note("-- n2 counts as lost");
    c.deliver(2, 0);
    c.deliver(0, 1);
    c.sync(0);
    c.sync(1);
    c.deliver(1, 0);
    c.note("-- and takes no put of its own clients; what removes goes on");
    c.ask(2, put("milk", "two litres").with(w(2)));
    c.ask(2, delete("milk").with(w(2)));
    c.settle();
    golden("put_with_a_full_disk", &c);
}
