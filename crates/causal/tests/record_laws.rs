//! The laws of merging, over records as replicas really come to hold them.
//!
//! A random history of one key is played on a few seats: each mints from one counter that it shares with other keys, clients
//! put and delete with contexts old and new, and what was written travels late, twice, out of order or never. Beside every
//! record stands the plainest model there is, two sets of dots, *written* and *removed*; live is the difference. The
//! record must always say the same, and its runs of evidence must never name a dot of this key that nobody removed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use quorate_causal::{Actor, Context, Dot, Record, Sibling, Span};

const SEATS: usize = 4;

/// One step of a history. The numbers choose among whatever there is at that moment, modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    /// A client puts at a seat, with one of the contexts ever read or with none.
    Put { seat: usize, context: usize },
    /// A client deletes what one of the contexts ever read names.
    Delete { seat: usize, context: usize },
    /// The seat mints so many dots for other keys.
    OtherKeys { seat: usize, count: u64 },
    /// A client reads at a seat, and remembers the dots whose bit is set (all, if it is shown all).
    Read { seat: usize, shown: u8 },
    /// A client joins two contexts, as one that reads at two nodes may.
    JoinContexts { one: usize, other: usize },
    /// A write reaches a seat: one of those ever sent, so perhaps late or for the second time.
    Deliver { write: usize, seat: usize },
    /// A seat sends another all it has.
    SendAll { from: usize, to: usize },
    /// A seat sends another what that lacks.
    SendMissing { from: usize, to: usize },
    /// A seat opens its store again: it has its records, and mints under a new name (rule R1).
    Reopen { seat: usize },
    /// A seat is dropped and made again, or loses its disk: no records, and a new name.
    Lose { seat: usize },
    /// A seat's disk loses the record and says nothing: the seat goes on minting under the name it has.
    LoseRecord { seat: usize },
    /// A seat drops this key from the counters it remembers, which has to be safe at any moment.
    Forget { seat: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let seat = || 0..SEATS;
    let any = || any::<usize>();
    prop_oneof![
        6 => (seat(), any()).prop_map(|(seat, context)| Step::Put { seat, context }),
        2 => (seat(), any()).prop_map(|(seat, context)| Step::Delete { seat, context }),
        3 => (seat(), 1..4u64).prop_map(|(seat, count)| Step::OtherKeys { seat, count }),
        5 => (seat(), prop_oneof![Just(0xffu8), proptest::num::u8::ANY])
            .prop_map(|(seat, shown)| Step::Read { seat, shown }),
        1 => (any(), any()).prop_map(|(one, other)| Step::JoinContexts { one, other }),
        6 => (any(), seat()).prop_map(|(write, seat)| Step::Deliver { write, seat }),
        2 => (seat(), seat()).prop_map(|(from, to)| Step::SendAll { from, to }),
        2 => (seat(), seat()).prop_map(|(from, to)| Step::SendMissing { from, to }),
        1 => seat().prop_map(|seat| Step::Reopen { seat }),
        1 => seat().prop_map(|seat| Step::Lose { seat }),
        1 => seat().prop_map(|seat| Step::LoseRecord { seat }),
        1 => seat().prop_map(|seat| Step::Forget { seat }),
    ]
}

/// A record, and beside it what it ought to say.
#[derive(Clone, Default, Debug)]
struct Account {
    record: Record,
    written: BTreeSet<Dot>,
    removed: BTreeSet<Dot>,
}

impl Account {
    fn live(&self) -> BTreeSet<Dot> {
        &self.written - &self.removed
    }

    /// Merges, and holds what the merge says of itself against the model.
    fn merge(&mut self, incoming: &Account) {
        self.merge_as(incoming, &incoming.record);
    }

    fn merge_as(&mut self, incoming: &Account, record: &Record) {
        let before = self.clone();
        let change = self.record.merge(record);
        self.written.extend(&incoming.written);
        self.removed.extend(&incoming.removed);

        let (was, is) = (before.live(), self.live());
        assert_eq!(
            BTreeSet::from_iter(change.added.iter().copied()),
            &is - &was
        );
        assert_eq!(
            BTreeSet::from_iter(change.removed.iter().copied()),
            &was - &is
        );
        assert_eq!(
            change.evidence,
            before.record.evidence() != self.record.evidence()
        );
        assert_eq!(change.is_none(), before.record == self.record);
    }
}

#[derive(Debug)]
struct Seat {
    actor: Actor,
    minted: u64,
    /// The last counter minted on the key, as this incarnation remembers it: in memory, whatever the disk does.
    last: Option<u64>,
    account: Account,
}

impl Seat {
    fn new(actor: Actor) -> Self {
        Seat {
            actor,
            minted: 0,
            last: None,
            account: Account::default(),
        }
    }

    fn mint(&mut self) -> Span {
        self.minted += 1;
        let counter = self.minted;
        Span {
            dot: Dot {
                actor: self.actor,
                counter,
            },
            after: self.last.replace(counter).unwrap_or(counter - 1),
        }
    }
}

#[derive(Debug)]
struct World {
    seats: Vec<Seat>,
    /// Every context a client ever had, with the dots it names; the first is empty.
    contexts: Vec<(Context, BTreeSet<Dot>)>,
    /// Every write as it was sent to the other replicas.
    writes: Vec<Account>,
    /// Every dot ever written on the key.
    dots: BTreeSet<Dot>,
    actors: u128,
}

impl World {
    fn new() -> Self {
        let mut world = World {
            seats: Vec::new(),
            contexts: vec![(Context::default(), BTreeSet::new())],
            writes: Vec::new(),
            dots: BTreeSet::new(),
            actors: 0,
        };
        for _ in 0..SEATS {
            let actor = world.actor();
            world.seats.push(Seat::new(actor));
        }
        world
    }

    /// A name nobody had before. Spread out, so that the order of names is not the order of their making.
    fn actor(&mut self) -> Actor {
        self.actors += 1;
        Actor(
            self.actors
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        )
    }

    fn write(&mut self, seat: usize, context: usize, puts: bool) {
        let (context, removed) = self.contexts[context % self.contexts.len()].clone();
        let seat = &mut self.seats[seat];
        let put = puts.then(|| {
            let span = seat.mint();
            let payload = value_of(span.dot);
            let expires = deadline_of(span.dot);
            Sibling {
                span,
                payload,
                expires,
            }
        });
        let written: BTreeSet<Dot> = put.iter().map(|s| s.span.dot).collect();
        let delta = Account {
            record: Record::of_write(&context, put),
            written: written.clone(),
            removed,
        };
        seat.account.merge(&delta);
        for dot in &written {
            // The answer to a put is a context of just this write (rule R8).
            self.contexts
                .push((delta.record.context(), BTreeSet::from([*dot])));
        }
        self.dots.extend(&written);
        self.writes.push(delta);
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Put { seat, context } => self.write(seat, context, true),
            Step::Delete { seat, context } => self.write(seat, context, false),
            Step::OtherKeys { seat, count } => self.seats[seat].minted += count,
            Step::Read { seat, shown } => {
                let spans: Vec<Span> = self.seats[seat]
                    .account
                    .record
                    .live()
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| shown & (1 << (i % 8)) != 0)
                    .map(|(_, s)| s.span)
                    .collect();
                let dots = spans.iter().map(|s| s.dot).collect();
                self.contexts.push((Context::new(spans), dots));
            }
            Step::JoinContexts { one, other } => {
                let (one, dots) = self.contexts[one % self.contexts.len()].clone();
                let (other, more) = &self.contexts[other % self.contexts.len()];
                let spans = one.spans().iter().chain(other.spans()).copied();
                self.contexts.push((Context::new(spans), &dots | more));
            }
            Step::Deliver { write, seat } => {
                if !self.writes.is_empty() {
                    let delta = self.writes[write % self.writes.len()].clone();
                    self.seats[seat].account.merge(&delta);
                }
            }
            Step::SendAll { from, to } => {
                let all = self.seats[from].account.clone();
                self.seats[to].account.merge(&all);
            }
            Step::SendMissing { from, to } => {
                let all = self.seats[from].account.clone();
                let to = &mut self.seats[to].account;
                let missing = all.record.missing_in(&to.record);
                to.merge_as(&all, &missing);
            }
            Step::Reopen { seat } => {
                let account = std::mem::take(&mut self.seats[seat].account);
                let actor = self.actor();
                self.seats[seat] = Seat {
                    account,
                    ..Seat::new(actor)
                };
            }
            Step::Lose { seat } => {
                let actor = self.actor();
                self.seats[seat] = Seat::new(actor);
            }
            Step::LoseRecord { seat } => self.seats[seat].account = Account::default(),
            Step::Forget { seat } => self.seats[seat].last = None,
        }
    }

    /// Holds one record against its model.
    fn check(&self, account: &Account) {
        let record = &account.record;
        let live: Vec<Dot> = record.live().iter().map(|s| s.span.dot).collect();
        assert_eq!(
            live,
            Vec::from_iter(account.live()),
            "live is written less removed, in order"
        );
        for sibling in record.live() {
            assert_eq!(sibling.payload, value_of(sibling.span.dot));
            let Span { dot, after } = sibling.span;
            let between = self
                .dots
                .range(
                    Dot {
                        counter: after + 1,
                        ..dot
                    }..dot,
                )
                .next();
            assert_eq!(
                between, None,
                "{:?} claims a dot of its own key",
                sibling.span
            );
        }
        // Of the dots of this key, evidence names exactly the removed. Of its other counters none is this key's.
        let named: BTreeSet<Dot> = self
            .dots
            .iter()
            .copied()
            .filter(|dot| record.evidence().contains(*dot))
            .collect();
        assert_eq!(named, account.removed, "evidence {:?}", record.evidence());
    }

    fn check_all(&self) {
        for account in self.seats.iter().map(|s| &s.account).chain(&self.writes) {
            self.check(account);
        }
    }
}

fn value_of(dot: Dot) -> Bytes {
    Bytes::from(format!("value of {:x}:{}", dot.actor.0, dot.counter))
}

/// Every third value has an end, which its dot names as it names the value.
fn deadline_of(dot: Dot) -> Option<u64> {
    dot.counter.is_multiple_of(3).then_some(1_000 + dot.counter)
}

fn join(a: &Record, b: &Record) -> Record {
    let mut joined = a.clone();
    joined.merge(b);
    joined
}

/// A history that was played and held against the model after each step.
fn played(steps: &[Step]) -> World {
    let mut world = World::new();
    for step in steps {
        world.play(step);
        world
            .seats
            .iter()
            .for_each(|seat| world.check(&seat.account));
    }
    world.check_all();
    world
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_record_says_what_two_plain_sets_say(steps in history()) {
        played(&steps);
    }

    #[test]
    fn merge_commutes_associates_and_is_idempotent(steps in history(), from in any::<usize>()) {
        let world = played(&steps);
        let mut accounts: Vec<&Account> = world.seats.iter().map(|s| &s.account).collect();
        // Writes on their way are records too; three of them, wherever the history ended up.
        accounts.extend(world.writes.iter().cycle().skip(from % 64).take(3));
        for a in &accounts {
            let a = &a.record;
            prop_assert_eq!(&join(a, a), a);
            for b in &accounts {
                let b = &b.record;
                let ab = join(a, b);
                let ba = join(b, a);
                prop_assert_eq!(&ab, &ba);
                prop_assert_eq!(ab.encode(), ba.encode(), "equal records are equal bytes");
                prop_assert_eq!(&join(&ab, b), &ab);
                for c in &accounts {
                    let c = &c.record;
                    prop_assert_eq!(join(&ab, c), join(a, &join(b, c)));
                }
            }
        }
    }

    #[test]
    fn sending_what_is_missing_is_as_good_as_sending_all(steps in history()) {
        let world = played(&steps);
        for a in &world.seats {
            let a = &a.account.record;
            prop_assert!(a.missing_in(a).is_empty());
            for b in &world.seats {
                let b = &b.account.record;
                let missing = a.missing_in(b);
                prop_assert_eq!(join(b, &missing), join(b, a));
                prop_assert!(missing.missing_in(&join(a, b)).is_empty());
            }
        }
    }

    #[test]
    fn digests_are_equal_just_when_live_dots_are(steps in history()) {
        let world = played(&steps);
        let accounts: Vec<&Account> =
            world.seats.iter().map(|s| &s.account).chain(&world.writes).collect();
        let mut dots_of = BTreeMap::new();
        for account in accounts {
            let live = account.live();
            let dots = dots_of.entry(account.record.digest()).or_insert_with(|| live.clone());
            prop_assert_eq!(&*dots, &live, "one digest, two sets of dots");
        }
        let digests = dots_of.len();
        prop_assert_eq!(digests, BTreeSet::from_iter(dots_of.into_values()).len());
    }

    #[test]
    fn records_survive_their_bytes(steps in history()) {
        let world = played(&steps);
        for account in world.seats.iter().map(|s| &s.account).chain(&world.writes) {
            let record = &account.record;
            let bytes = record.encode();
            prop_assert_eq!(&Record::decode(&bytes).unwrap(), record);
            prop_assert_eq!(Record::digest_of(&bytes, 0).unwrap(), record.digest());
        }
    }

    /// Once everything sent has arrived, all replicas are equal, down to their bytes; and once all of it is removed, each
    /// actor's evidence is one run, however its dots were interleaved with those of other keys (rule R15), and one more
    /// for each time it forgot the key.
    #[test]
    fn replicas_converge_and_full_evidence_is_one_run_an_actor(steps in history()) {
        let forgot = steps.iter().filter(|s| matches!(s, Step::Forget { .. })).count();
        let mut world = played(&steps);
        for write in world.writes.clone() {
            world.seats.iter_mut().for_each(|seat| seat.account.merge(&write));
        }
        let first = world.seats[0].account.record.encode();
        for seat in &world.seats {
            prop_assert_eq!(&seat.account.record.encode(), &first);
        }
        let all = world.seats[0].account.record.context();
        let dots = all.spans().iter().map(|s| s.dot).collect();
        world.contexts.push((all, dots));
        world.write(0, world.contexts.len() - 1, false);
        world.check_all();

        let record = &world.seats[0].account.record;
        prop_assert!(record.live().is_empty());
        for (actor, runs) in record.evidence().iter() {
            prop_assert!(runs.len() <= 1 + forgot, "{} has {:?}", actor, runs);
        }
    }
}
