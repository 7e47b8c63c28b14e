//! What is asked next: kinds by their parts, keys by their distribution, values at random, and never a write that would
//! leave a sibling behind.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Zipf};

use super::args::{Distribution, Mix};
use super::target::{Ask, Kind, Success};

/// How much more random text there is than a value has: values are slices of it that begin anywhere. With less, they
/// would repeat within reach of the store's compression.
const SPARE_BYTES: usize = 1 << 22;

/// Odd, so that multiplication by it is a bijection of the 64-bit numbers: consecutive numbers become distinct names far
/// apart in the order of keys, as keys of the world are, where a rising sequence would flatter a sorted store.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Draws keys of the key space, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chooser {
    keys: u64,
    zipf: Option<Zipf<f64>>,
}

impl Chooser {
    /// A chooser among this many keys, at least one.
    pub(super) fn new(keys: u64, distribution: Distribution) -> Result<Chooser, String> {
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(theta) => {
                Some(Zipf::new(keys as f64, theta).map_err(|error| error.to_string())?)
            }
        };
        Ok(Chooser { keys, zipf })
    }

    /// A key's number, below the number of keys. Under zipf, 0 is the hottest: names are scattered, so that the hot keys lie
    /// anywhere.
    fn draw(&self, rng: &mut ChaCha8Rng) -> u64 {
        match &self.zipf {
            None => rng.random_range(0..self.keys),
            // From 1 on, and a rounding error may reach beyond the last.
            Some(zipf) => (zipf.sample(rng) as u64).clamp(1, self.keys) - 1,
        }
    }
}

/// Which key a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum About {
    /// One of the key space.
    Space(u64),
    /// One that nobody but this run writes.
    Fresh(u64),
}

/// A request, and what has to be known about it when it is done.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) ask: Ask,
    /// The key has to be read first for its context. That read is no part of the measurement.
    pub(super) learn: bool,
    about: About,
}

/// What stands at a key that puts replace.
#[derive(Clone, Debug)]
enum Stand {
    /// This, or nothing.
    Known(Option<Bytes>),
    /// A write of unknown outcome may stand there.
    Unsure,
    /// A write is under way.
    Busy,
}

/// The stream of requests.
pub(super) struct Workload {
    mix: Mix,
    chooser: Chooser,
    rng: ChaCha8Rng,
    random: Bytes,
    size: usize,
    /// In the names of fresh keys; another one each run.
    run: u32,
    fresh: u64,
    /// Of each key of the key space, where puts replace them.
    stands: Option<Vec<Stand>>,
    /// Fresh keys that were put and may be deleted. Empty where nothing is deleted.
    deletable: VecDeque<(u64, Option<Bytes>)>,
}

impl Workload {
    /// A stream that is the same for the same seed, but for the names of fresh keys, which `run` sets apart.
    pub(super) fn new(mix: Mix, chooser: Chooser, size: usize, seed: u64, run: u32) -> Workload {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut random = vec![0; size + SPARE_BYTES];
        rng.fill_bytes(&mut random);
        Workload {
            mix,
            chooser,
            rng,
            random: random.into(),
            size,
            run,
            fresh: 0,
            stands: None,
            deletable: VecDeque::new(),
        }
    }

    /// Puts replace keys of the key space from now on. What stands there is not known yet: [`Workload::learned`] tells.
    pub(super) fn overwrite(&mut self) {
        let keys = self.chooser.keys as usize;
        self.stands = Some(vec![Stand::Unsure; keys]);
    }

    /// How many keys the key space has.
    pub(super) fn keys(&self) -> u64 {
        self.chooser.keys
    }

    /// Bytes of a value.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The name of a key of the key space.
    pub(super) fn name(number: u64) -> String {
        format!("key-{:016x}", number.wrapping_mul(SCATTER))
    }

    fn name_of(&self, about: About) -> String {
        match about {
            About::Space(number) => Workload::name(number),
            About::Fresh(number) => {
                format!("put-{:08x}-{:016x}", self.run, number.wrapping_mul(SCATTER))
            }
        }
    }

    /// A value.
    pub(super) fn value(&mut self) -> Bytes {
        let at = self.rng.random_range(0..=SPARE_BYTES);
        self.random.slice(at..at + self.size)
    }

    /// What is asked next.
    pub(super) fn next(&mut self) -> Step {
        let Mix { put, get, delete } = self.mix;
        let part = self.rng.random_range(0..put + get + delete);
        if part < get {
            let number = self.chooser.draw(&mut self.rng);
            self.step(Kind::Get, About::Space(number), None)
        } else if part < get + delete {
            self.delete()
        } else {
            self.put()
        }
    }

    fn step(&self, kind: Kind, about: About, context: Option<Bytes>) -> Step {
        let ask = Ask {
            kind,
            key: self.name_of(about),
            value: Bytes::new(),
            context,
        };
        Step {
            ask,
            learn: false,
            about,
        }
    }

    fn put(&mut self) -> Step {
        let mut step = match self.take_stand(Kind::Put) {
            Some(step) => step,
            None => {
                let about = About::Fresh(self.fresh);
                self.fresh += 1;
                self.step(Kind::Put, about, None)
            }
        };
        step.ask.value = self.value();
        step
    }

    /// A delete; while there is nothing to delete yet, a put in its stead.
    fn delete(&mut self) -> Step {
        if let Some(step) = self.take_stand(Kind::Delete) {
            return step;
        }
        match self.deletable.pop_front() {
            Some((number, context)) => self.step(Kind::Delete, About::Fresh(number), context),
            None => self.put(),
        }
    }

    /// A write to the key space, if that is what writes do. Two writes under way on one key would be concurrent and leave
    /// siblings that no context of ours names: the next key that is free is taken instead.
    fn take_stand(&mut self, kind: Kind) -> Option<Step> {
        let stands = self.stands.as_mut()?;
        let keys = stands.len() as u64;
        let drawn = self.chooser.draw(&mut self.rng);
        let number = (0..keys)
            .map(|further| (drawn + further) % keys)
            .find(|number| !matches!(stands[*number as usize], Stand::Busy))?;
        let stand = std::mem::replace(&mut stands[number as usize], Stand::Busy);
        let (learn, context) = match stand {
            Stand::Known(context) => (false, context),
            Stand::Unsure | Stand::Busy => (true, None),
        };
        let mut step = self.step(kind, About::Space(number), context);
        step.learn = learn;
        Some(step)
    }

    /// What a read before the measurement has shown of a key of the key space.
    pub(super) fn learned(&mut self, number: u64, context: Option<Bytes>) {
        if let Some(stand) = self
            .stands
            .as_mut()
            .and_then(|stands| stands.get_mut(number as usize))
        {
            *stand = Stand::Known(context);
        }
    }

    /// How a request ended; `None` if it failed.
    pub(super) fn done(&mut self, step: Done, success: Option<&Success>) {
        let context = || success.and_then(|success| success.context.clone());
        match step.about {
            _ if step.kind == Kind::Get => {}
            About::Space(number) => {
                if let Some(stands) = &mut self.stands {
                    stands[number as usize] = match success {
                        Some(_) => Stand::Known(context()),
                        None => Stand::Unsure,
                    };
                }
            }
            About::Fresh(number) => {
                if step.kind == Kind::Put && self.mix.delete > 0 && success.is_some() {
                    self.deletable.push_back((number, context()));
                }
            }
        }
    }
}

/// What is kept of a step while it is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) kind: Kind,
    about: About,
}

impl Step {
    /// What [`Workload::done`] wants back.
    pub(super) fn done(&self) -> Done {
        Done {
            kind: self.ask.kind,
            about: self.about,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn workload(mix: &str, keys: u64, distribution: Distribution) -> Workload {
        let chooser = Chooser::new(keys, distribution).unwrap();
        Workload::new(mix.parse().unwrap(), chooser, 10, 7, 1)
    }

    #[test]
    fn draws_stay_within_the_key_space_and_reach_all_of_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for keys in [1, 2, 10] {
            let distributions = [0.2, 0.99, 1.0, 3.0].map(Distribution::Zipf);
            for distribution in distributions.into_iter().chain([Distribution::Uniform]) {
                let chooser = Chooser::new(keys, distribution).unwrap();
                let drawn: BTreeSet<u64> = (0..20_000).map(|_| chooser.draw(&mut rng)).collect();
                assert_eq!(drawn, (0..keys).collect(), "{distribution:?}");
            }
        }
    }

    #[test]
    fn zipf_draws_by_rank() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let chooser = Chooser::new(1000, Distribution::Zipf(1.0)).unwrap();
        let mut counts = [0_u32; 1000];
        for _ in 0..100_000 {
            counts[chooser.draw(&mut rng) as usize] += 1;
        }
        // The sum of 1/k up to 1000 is 7.485.
        for (rank, expected) in [(0, 13_360), (1, 6_680), (9, 1_336)] {
            let ratio = f64::from(counts[rank]) / f64::from(expected);
            assert!((0.9..1.1).contains(&ratio), "{rank}: {}", counts[rank]);
        }
    }

    #[test]
    fn kinds_come_in_their_parts_and_puts_are_to_fresh_keys() {
        let mut workload = workload("2:7:1", 100, Distribution::Uniform);
        let mut names = BTreeSet::new();
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let step = workload.next();
            counts[step.ask.kind as usize] += 1;
            if step.ask.kind == Kind::Put {
                assert_eq!(step.ask.value.len(), 10);
                assert!(names.insert(step.ask.key.clone()), "written twice");
            }
            if step.ask.kind == Kind::Delete {
                assert!(names.remove(&step.ask.key), "deleted before it was put");
                assert_eq!(step.ask.context.as_deref(), Some(&b"c"[..]));
            }
            let success = Success {
                context: Some(Bytes::from_static(b"c")),
                ..Success::default()
            };
            workload.done(step.done(), Some(&success));
        }
        for (count, expected) in counts.into_iter().zip([2000, 7000, 1000]) {
            assert!(
                (expected - 200..expected + 200).contains(&count),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn an_overwriting_put_has_its_key_for_itself_and_the_context_of_the_last() {
        let mut workload = workload("put", 2, Distribution::Zipf(5.0));
        workload.overwrite();
        workload.learned(0, None);
        workload.learned(1, Some(Bytes::from_static(b"old")));
        let (one, other) = (workload.next(), workload.next());
        assert_ne!(one.ask.key, other.ask.key);
        assert!(!one.learn && !other.learn);
        let contexts = [&one, &other].map(|step| step.ask.context.clone());
        assert!(contexts.contains(&None) && contexts.contains(&Some("old".into())));

        let success = Success {
            context: Some(Bytes::from_static(b"new")),
            ..Success::default()
        };
        workload.done(one.done(), Some(&success));
        let again = workload.next();
        assert_eq!(again.ask.key, one.ask.key, "the other is under way");
        assert_eq!(again.ask.context, Some("new".into()));
        // Of unknown outcome: it is read before it is written again.
        workload.done(again.done(), None);
        assert!(workload.next().learn);
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let stream = || {
            let mut workload = workload("1:1", 50, Distribution::Zipf(0.99));
            (0..100)
                .map(|_| workload.next().ask.key)
                .collect::<Vec<_>>()
        };
        assert_eq!(stream(), stream());
    }
}
