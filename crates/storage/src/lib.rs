//! Ordered bytes made durable: the storage trait, RocksDB with one committer, and a deterministic memory engine for the simulator.
