//! The timetable of an open loop: when each request is due, whatever has become of those before.

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp};

use super::args::{Arrivals, Rate};

/// Gives one moment after the other, each from the beginning of the run.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Of the gaps.
    spacing: Spacing,
    given: u64,
    /// The moment given last, in seconds.
    at: f64,
}

#[derive(Debug)]
enum Spacing {
    /// By multiplication, so that no rounding adds up.
    Fixed(f64),
    Poisson(Exp<f64>, Box<ChaCha8Rng>),
}

impl Schedule {
    /// So many a second: the bounds of a [`Rate`] keep every moment of a run within what a duration can hold.
    pub(super) fn new(rate: Rate, arrivals: Arrivals, seed: u64) -> Schedule {
        let spacing = match arrivals {
            Arrivals::Fixed => Spacing::Fixed(rate.0),
            Arrivals::Poisson => {
                let gaps = Exp::new(rate.0).expect("a rate is more than 0");
                Spacing::Poisson(gaps, Box::new(ChaCha8Rng::seed_from_u64(seed)))
            }
        };
        Schedule {
            spacing,
            given: 0,
            at: 0.0,
        }
    }

    /// When the next request is due.
    pub(super) fn next(&mut self) -> Duration {
        match &mut self.spacing {
            Spacing::Fixed(rate) => {
                self.at = self.given as f64 / *rate;
                self.given += 1;
            }
            Spacing::Poisson(gaps, rng) => self.at += gaps.sample(&mut **rng),
        }
        Duration::from_secs_f64(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_timetable_does_not_drift() {
        let mut schedule = Schedule::new(Rate(3.0), Arrivals::Fixed, 1);
        let moments: Vec<Duration> = (0..=3_000).map(|_| schedule.next()).collect();
        assert_eq!(moments[0], Duration::ZERO);
        assert_eq!(moments[3_000], Duration::from_secs(1_000));
        assert!(moments.is_sorted());
    }

    #[test]
    fn random_arrivals_have_the_rate_on_average() {
        let mut schedule = Schedule::new(Rate(1_000.0), Arrivals::Poisson, 1);
        let moments: Vec<Duration> = (0..100_000).map(|_| schedule.next()).collect();
        let seconds = moments[99_999].as_secs_f64();
        assert!((98.0..102.0).contains(&seconds), "{seconds}");
        assert!(moments.is_sorted());
        // A gap is longer than the mean with probability 1/e.
        let long = moments
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > Duration::from_millis(1))
            .count();
        assert!((35_700..37_900).contains(&long), "{long}");
    }
}
