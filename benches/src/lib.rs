//! Criterion and cluster benchmarks. They are under `benches/`; run one with `cargo bench -p quorate-benches --bench causal`.
//!
//! `causal`, `clock`, `codec` and `ring` measure the leaves with criterion, in nanoseconds. `cluster` starts real processes and measures what a
//! request costs all of them; it takes minutes.
