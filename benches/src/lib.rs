//! Criterion and cluster benchmarks.
