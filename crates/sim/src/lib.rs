//! A whole cluster of production nodes from one seed, with faults, judged by an oracle.
