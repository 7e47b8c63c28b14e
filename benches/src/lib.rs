//! Criterion and cluster benchmarks. They are under `benches/`; run all with `cargo bench -p quorate-benches`, one with
//! `cargo bench -p quorate-benches --bench causal`.
