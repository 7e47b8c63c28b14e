//! How the database is tuned, and why.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, LogLevel, Options,
};

use crate::Family;

/// When a batch counts as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Every write is synced before it is reported: what is written survives a loss of power.
    #[default]
    Fsync,
    /// The operating system syncs when it sees fit, commonly within half a minute: what is written survives the process
    /// and not the power. A [`Level::Synced`](crate::Level::Synced) still forces a sync.
    Os,
}

/// How a database is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RocksOptions {
    /// When a batch counts as written. [`Durability::Fsync`] by default.
    pub durability: Durability,
    /// Memory for what was read, filters and indexes included, in bytes. 64 MiB by default; taken as it fills.
    pub block_cache_bytes: usize,
    /// Memory for what was written and is only in the log, over all families, in bytes. 64 MiB by default; taken as it
    /// fills. Below some 4 MiB the many small files of its flushes cost more than it saves.
    pub write_buffer_bytes: usize,
    /// How many files the database may have open, at least 64. 512 by default: half of the 1024 a process commonly may,
    /// the other half being left for sockets.
    pub open_files_max: u32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions {
            durability: Durability::default(),
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            open_files_max: 512,
        }
    }
}

/// The log is replayed before a node is ready, at some 100 MB a second; and a family that is hardly written to would
/// otherwise keep old logs for ever.
const WAL_BYTES_MAX: u64 = 256 << 20;

/// A key that is not there is the common case of a read before a write. 10 bits a key make 1 in 100 of them reach the disk.
const BLOOM_BITS: f64 = 10.0;

/// The filter of a memtable by the memtable's size. With values of a kilobyte that is some 150 bits a key, with the smallest
/// some 20.
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;

/// A file is compacted once half of so many rows in it that follow each other are deletions, or this share of all.
const DELETIONS_AMONG: usize = 512;
const DELETIONS_SHARE: f64 = 0.5;

/// Settings of the database as a whole.
pub(super) fn database(options: &RocksOptions, create: bool) -> Options {
    let mut db = Options::default();
    // Only a directory known to be new gets a database: see `directory`.
    db.create_if_missing(create);
    db.create_missing_column_families(true);
    // What the log has after the first damage is not taken: the tail of a log torn by a loss of power ends there, and
    // batches are never taken out of order.
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_paranoid_checks(true);
    // Who writes does so alone, and rows that are replaced in place ask for it.
    db.set_allow_concurrent_memtable_write(false);

    db.set_db_write_buffer_size(options.write_buffer_bytes);
    db.set_max_total_wal_size(WAL_BYTES_MAX);
    db.set_max_open_files(i32::try_from(options.open_files_max.max(64)).unwrap_or(i32::MAX));
    // Flushes and compactions share the machine with the core: two threads for them in a process, not one per core.
    db.set_max_background_jobs(2);
    // Written back as they are made, so that a sync of the log does not queue behind a whole flushed file.
    db.set_bytes_per_sync(1 << 20);

    // RocksDB's own log is for its developers. Kept small, and without the periodic statistics.
    db.set_log_level(LogLevel::Warn);
    db.set_max_log_file_size(1 << 20);
    db.set_keep_log_file_num(4);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db
}

/// The families with their settings. The cache is shared by all.
pub(super) fn families(options: &RocksOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let describe = |family: Family| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        table.set_bloom_filter(BLOOM_BITS, false);
        // Counted against the cache, so that memory stays bounded however much is stored.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // In parts: an index or a filter of one piece is a megabyte where a file has a million small keys, which no shard of
        // the cache keeps, so that each read would fetch it from the disk anew, a millisecond.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 << 10);
        table.set_pin_top_level_index_and_filter(true);

        let mut cf = Options::default();
        cf.set_block_based_table_factory(&table);
        cf.set_compression_type(DBCompressionType::Lz4);
        if family == Family::Vnodes {
            // Every write rewrites one of few clock rows, hardly longer than before. Appended, as is usual, the versions of a
            // minute make this memtable as deep as that of the records: some 8 % of a put. Nobody iterates over a row that may be
            // being replaced: a vnode is read once, before its first write.
            cf.set_inplace_update_support(true);
            cf.set_inplace_update_locks(64);
        }
        if family == Family::Records {
            // A filter on what is in memory too: else a key that is not there costs a search of each memtable. Of what
            // is hardly read by its key, it would only cost the writes.
            cf.set_memtable_whole_key_filtering(true);
            cf.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        }
        // What was deleted takes room, and time of whoever scans over it, until it is compacted: soon, where it is much.
        cf.add_compact_on_deletion_collector_factory(
            DELETIONS_AMONG,
            DELETIONS_AMONG / 2,
            DELETIONS_SHARE,
        );
        // One fills while the other is flushed, and a burst beyond both waits for the flush. With a third, 64 MiB became
        // 92 MB under load; smaller ones make more files, and more compactions of them.
        cf.set_write_buffer_size(options.write_buffer_bytes / 2);
        cf.set_max_write_buffer_number(2);
        ColumnFamilyDescriptor::new(family.name(), cf)
    };
    Family::ALL.into_iter().map(describe).collect()
}
