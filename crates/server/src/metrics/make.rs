//! How metrics are registered, and written out at a scrape.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use quorate_storage::rocks::{Counters, Distribution};

use super::MICRO;

pub(super) type Label<const N: usize> = [(&'static str, &'static str); N];

/// Puts metrics into a registry and gives back what counts them.
pub(super) struct Maker(pub(super) Registry);

impl Maker {
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    /// A counter for each value of one label.
    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: [&'static str; N],
    ) -> [Counter; N] {
        let family = Family::<Label<1>, Counter>::default();
        self.0.register(name, help, family.clone());
        values.map(|value| family.get_or_create_owned(&[(label, value)]))
    }

    /// A number that is looked up at each scrape.
    pub(super) fn told(&mut self, name: &str, help: &str, told: impl Told) {
        self.0.register(name, help, AtScrape(told));
    }
}

/// A number as it is at a scrape.
pub(super) enum Number {
    Counter(f64),
    Gauge(i64),
}

/// What gives a number at each scrape; always of the same sort.
pub(super) trait Told: Fn() -> Number + Send + Sync + 'static {}

impl<F: Fn() -> Number + Send + Sync + 'static> Told for F {}

struct AtScrape<F>(F);

impl<F> fmt::Debug for AtScrape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtScrape")
    }
}

impl<F: Told> EncodeMetric for AtScrape<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match (self.0)() {
            // Whole numbers as such: a counter of bytes is no 1.2e9.
            Number::Counter(number) if number.fract() == 0.0 => {
                encoder.encode_counter::<NoLabelSet, u64, f64>(&(number as u64), None)
            }
            Number::Counter(number) => {
                encoder.encode_counter::<NoLabelSet, f64, f64>(&number, None)
            }
            Number::Gauge(number) => encoder.encode_gauge(&number),
        }
    }

    fn metric_type(&self) -> MetricType {
        match (self.0)() {
            Number::Counter(_) => MetricType::Counter,
            Number::Gauge(_) => MetricType::Gauge,
        }
    }
}

/// A distribution of microseconds, shown in seconds.
#[derive(Clone, Debug)]
pub(super) struct Seconds(pub(super) Arc<Distribution>);

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Seconds {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        encode(&self.0, MICRO, encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A distribution of the storage's, times a factor.
pub(super) struct Sizes(
    pub(super) Arc<Counters>,
    pub(super) fn(&Counters) -> &Distribution,
    pub(super) f64,
);

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sizes")
    }
}

impl EncodeMetric for Sizes {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        encode((self.1)(&self.0), self.2, encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn encode(distribution: &Distribution, factor: f64, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = distribution
        .buckets()
        .map(|(bound, count)| (bound.map_or(f64::MAX, |bound| scaled(bound, factor)), count))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = distribution.sum() as f64 * factor;
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

/// 200 us are 0.0002 s and not 0.00019999999999999998 s.
fn scaled(bound: u64, factor: f64) -> f64 {
    if factor == MICRO {
        bound as f64 / 1e6
    } else {
        bound as f64 * factor
    }
}
