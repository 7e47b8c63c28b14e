//! Named scenarios of one key: what clients and replicas do, and what must stand afterwards.

use bytes::Bytes;
use quorate_causal::{Actor, Context, Dot, Record, Sibling, Span};

/// A replica that coordinates: its record of the key, and the counter it mints all its keys' dots from.
struct Seat {
    actor: Actor,
    minted: u64,
    /// The last counter minted on the key, as this incarnation remembers it: in memory, whatever the disk does.
    last: Option<u64>,
    record: Record,
}

impl Seat {
    fn new(actor: u128) -> Self {
        Seat {
            actor: Actor(actor),
            minted: 0,
            last: None,
            record: Record::new(),
        }
    }

    /// Opens its store again: a new name, and nothing remembered (rule R1).
    fn reopen(&mut self, actor: u128) {
        self.actor = Actor(actor);
        self.last = None;
    }

    /// Mints for keys other than the one at hand.
    fn serve_other_keys(&mut self, times: u64) {
        self.minted += times;
    }

    /// Coordinates a put; returns what the other replicas are sent.
    fn put(&mut self, context: &Context, value: impl Into<Bytes>) -> Record {
        self.minted += 1;
        let counter = self.minted;
        let dot = Dot {
            actor: self.actor,
            counter,
        };
        let after = self.last.replace(counter).unwrap_or(counter - 1);
        let written = Sibling {
            span: Span { dot, after },
            payload: value.into(),
            expires: None,
        };
        let delta = Record::of_write(context, Some(written));
        self.record.merge(&delta);
        delta
    }

    fn delete(&mut self, context: &Context) -> Record {
        let delta = Record::of_write(context, None);
        self.record.merge(&delta);
        delta
    }

    fn values(&self) -> Vec<&[u8]> {
        self.record.live().iter().map(|s| &s.payload[..]).collect()
    }
}

/// Debug builds take some thousands of rounds for a million.
const MANY: u64 = if cfg!(debug_assertions) {
    4_000
} else {
    1_000_000
};

#[test]
fn interleaved_stale_writers_leave_one_sibling_each() {
    // Riak's `sibling_explosion`: clients that each write with the context of their own previous answer, in turns. A store
    // that keeps a version vector per key instead of a dot per value doubles its siblings here, or loses some.
    for writers in [2, 3, 10] {
        for coordinators in 1..=3 {
            let mut seats: Vec<Seat> = (1..=coordinators).map(Seat::new).collect();
            let mut contexts = vec![Context::default(); writers];
            for round in 0..100 {
                for (writer, context) in contexts.iter_mut().enumerate() {
                    let at = (round + writer) % seats.len();
                    let delta = seats[at].put(context, format!("{writer} in round {round}"));
                    *context = delta.context();
                    for seat in &mut seats {
                        seat.record.merge(&delta);
                    }
                }
                let mut latest: Vec<String> = (0..writers)
                    .map(|w| format!("{w} in round {round}"))
                    .collect();
                latest.sort();
                for seat in &seats {
                    let mut values = seat.values();
                    values.sort();
                    assert!(
                        values
                            .iter()
                            .copied()
                            .eq(latest.iter().map(String::as_bytes)),
                        "{values:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn writers_with_one_stale_context_leave_as_many_siblings_as_writes() {
    let mut seat = Seat::new(1);
    seat.put(&Context::default(), "old");
    let stale = seat.record.context();
    for writes in 1..=20 {
        seat.put(&stale, format!("{writes}"));
        assert_eq!(seat.record.live().len(), writes);
    }
    assert!(!seat.values().contains(&&b"old"[..]));
}

#[test]
fn a_put_without_context_stands_beside_what_was_there() {
    let mut seat = Seat::new(1);
    seat.put(&Context::default(), "one");
    seat.put(&Context::default(), "two");
    assert_eq!(seat.values(), [b"one", b"two"]);
    assert!(seat.record.evidence().is_empty());
}

#[test]
fn the_context_of_a_put_spares_the_sibling_its_client_never_saw() {
    // Rule R8. Both dots are one actor's and the unseen one is the older: a context that were a version vector, or a
    // stretch that reached too far down, would take it along.
    let mut seat = Seat::new(1);
    seat.put(&Context::default(), "unseen");
    seat.serve_other_keys(5);
    let own = seat.put(&Context::default(), "mine").context();
    seat.serve_other_keys(5);
    seat.put(&own, "mine again");
    assert_eq!(seat.values(), [&b"unseen"[..], b"mine again"]);
}

#[test]
fn many_overwrites_of_one_key_are_one_run_of_evidence() {
    let mut seat = Seat::new(1);
    for i in 0..MANY {
        let read = seat.record.context();
        seat.put(&read, "v");
        seat.serve_other_keys(i % 7);
    }
    assert_eq!(seat.record.live().len(), 1);
    let runs = seat.record.evidence().runs(seat.actor).unwrap();
    assert_eq!(runs.len(), 1);
    assert!(seat.record.encode().len() < 64);
}

#[test]
fn many_overwrites_by_three_coordinators_in_turns_are_three_runs() {
    let mut seats = [Seat::new(1), Seat::new(2), Seat::new(3)];
    // Away the whole time, and told at the end.
    let mut absent = Record::new();
    let mut late: Vec<Record> = Vec::new();
    for i in 0..MANY {
        let at = (i % 3) as usize;
        // The client read at the coordinator before this one, which may know more than the one it writes to.
        let read = seats[(at + 2) % 3].record.context();
        let delta = seats[at].put(&read, "v");
        seats[at].serve_other_keys(i % 5);
        // Replication is a few writes behind.
        late.push(delta);
        if late.len() > (i % 4) as usize {
            for delta in late.drain(..).rev() {
                seats.iter_mut().for_each(|seat| {
                    seat.record.merge(&delta);
                });
            }
        }
    }
    for delta in late.drain(..) {
        seats.iter_mut().for_each(|seat| {
            seat.record.merge(&delta);
        });
    }
    let all = seats[0].record.context();
    seats[0].delete(&all);
    absent.merge(&seats[0].record);
    for seat in &seats {
        assert_eq!(absent.evidence().runs(seat.actor).unwrap().len(), 1);
    }
    assert!(absent.encode().len() < 80);
}

#[test]
fn many_writes_by_writers_in_turns_keep_evidence_small() {
    // Two clients that never read each other: the evidence of each chain skips the live dot of the other.
    let mut seat = Seat::new(1);
    let mut contexts = [Context::default(), Context::default()];
    for i in 0..MANY {
        let context = &mut contexts[(i % 2) as usize];
        *context = seat.put(context, "v").context();
        seat.serve_other_keys(i % 3);
        assert!(
            seat.record
                .evidence()
                .runs(seat.actor)
                .is_none_or(|runs| runs.len() <= 2)
        );
    }
    assert_eq!(seat.record.live().len(), 2);
}

#[test]
fn a_removed_value_does_not_come_back_with_a_late_copy() {
    let (mut a, mut b) = (Seat::new(1), Seat::new(2));
    let late = a.put(&Context::default(), "v");
    let read = a.record.context();
    let delete = a.delete(&read);
    b.record.merge(&delete);
    let change = b.record.merge(&late);
    assert!(change.is_none());
    assert!(b.record.live().is_empty());
}

#[test]
fn a_new_incarnation_claims_nothing_of_the_old_ones_counters() {
    // Rule R1: after every open the actor is new, and its first dot on a key stands alone.
    let mut seat = Seat::new(1);
    seat.put(&Context::default(), "before");
    seat.reopen(99);
    seat.minted = 40;
    let delta = seat.put(&Context::default(), "after");
    assert_eq!(
        delta.live()[0].span,
        Span {
            dot: Dot {
                actor: Actor(99),
                counter: 41
            },
            after: 40
        }
    );
}

#[test]
fn a_seat_that_lost_its_record_claims_nothing_it_forgot() {
    let (mut a, mut b) = (Seat::new(1), Seat::new(2));
    let first = a.put(&Context::default(), "first");
    a.serve_other_keys(5);
    let second = a.put(&first.context(), "second");
    b.record.merge(&first);
    b.record.merge(&second);

    // Its disk loses the record silently, so it keeps its name, and an exchange brings back the evidence of "first" but not
    // yet "second", which its clock takes for an old dot. Were the stretch of the next dot read off the record, it
    // would reach down to "first", across "second". The seat remembers better.
    a.record = Record::from_parts(Vec::new(), b.record.evidence().clone());
    a.serve_other_keys(5);
    let third = a.put(&Context::default(), "third");
    assert_eq!(
        third.live()[0].span.after,
        second.live()[0].span.dot.counter
    );
    b.record.merge(&third);

    // A client that saw just "third" overwrites it.
    let fourth = a.put(&third.context(), "fourth");
    b.record.merge(&fourth);
    assert_eq!(b.values(), [&b"second"[..], b"fourth"]);
}

#[test]
fn a_seat_that_no_longer_remembers_a_key_says_less_and_nothing_wrong() {
    // Memory is bounded: a busy vnode forgets the keys it has not minted on for long.
    let mut seat = Seat::new(1);
    let unseen = seat.put(&Context::default(), "unseen");
    let first = seat.put(&Context::default(), "first");
    seat.serve_other_keys(5);
    seat.last = None;
    let second = seat.put(&first.context(), "second");
    assert_eq!(second.live()[0].span, Span::lone(second.live()[0].span.dot));
    seat.put(&second.context(), "third");
    assert_eq!(seat.values(), [&b"unseen"[..], b"third"]);
    let all = seat.record.context();
    seat.delete(&all);
    assert!(seat.values().is_empty());
    // One run for each time it forgot, and one more.
    assert_eq!(seat.record.evidence().runs(seat.actor).unwrap().len(), 2);
    assert!(seat.record.evidence().contains(unseen.live()[0].span.dot));
}

#[test]
fn two_payloads_under_one_dot_end_equal_whatever_the_order() {
    // A dot minted twice (rule R1 forbids it; a broken peer may not).
    let span = Span::lone(Dot {
        actor: Actor(1),
        counter: 5,
    });
    let of = |payload: &'static [u8], after| {
        let sibling = Sibling {
            span: Span { after, ..span },
            payload: payload.into(),
            expires: None,
        };
        Record::from_parts(vec![sibling], Default::default())
    };
    let (one, other) = (of(b"one", 4), of(b"other", 2));
    let mut forth = one.clone();
    let change = forth.merge(&other);
    let mut back = other.clone();
    back.merge(&one);
    assert_eq!(forth, back);
    assert_eq!(forth.live()[0].payload, "other");
    assert!(change.added.is_empty(), "its dot was there before");
    assert!(
        !change.is_none(),
        "but the record is another one, and has to be stored"
    );
}

#[test]
fn parts_that_contradict_each_other_are_put_right() {
    let dot = |counter| Dot {
        actor: Actor(1),
        counter,
    };
    let sibling = |counter, payload: &'static [u8]| Sibling {
        span: Span::lone(dot(counter)),
        payload: payload.into(),
        expires: None,
    };
    let record = Record::from_parts(
        vec![
            sibling(9, b"nine"),
            sibling(4, b"removed"),
            sibling(2, b"a"),
            sibling(2, b"b"),
        ],
        [dot(4)].into_iter().collect(),
    );
    let live: Vec<_> = record
        .live()
        .iter()
        .map(|s| (s.span.dot.counter, &s.payload[..]))
        .collect();
    assert_eq!(live, [(2, &b"b"[..]), (9, b"nine")]);
}

#[test]
fn a_deadline_belongs_to_its_dot_and_is_never_prolonged() {
    let span = Span::lone(Dot {
        actor: Actor(1),
        counter: 5,
    });
    let of = |expires| {
        let sibling = Sibling {
            span,
            payload: "v".into(),
            expires,
        };
        Record::from_parts(vec![sibling], Default::default())
    };
    // Two under one dot cannot come from sound peers. The earlier stays, whatever the order.
    for (one, other) in [(Some(7), Some(9)), (Some(7), None)] {
        let mut forth = of(one);
        let unchanged = forth.merge(&of(other));
        let mut back = of(other);
        let change = back.merge(&of(one));
        assert_eq!((&forth, forth.live()[0].expires), (&back, Some(7)));
        assert!(unchanged.is_none() && change.altered);
    }

    let mut record = of(Some(7));
    assert_eq!(record.drop_expired(6), []);
    assert_eq!(record.drop_expired(0), []);
    assert_eq!(record.drop_expired(7), [span.dot]);
    assert!(record.is_empty(), "no evidence is left of it");
    let mut endless = of(None);
    assert_eq!(endless.drop_expired(u64::MAX), []);
}
