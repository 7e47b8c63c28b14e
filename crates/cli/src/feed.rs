//! Files on their way through a command that does something with each of them: read in order by one thread, worked on
//! concurrently, never more than a bounded number of them and of their bytes in memory.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use crate::failure::Failure;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::tree::{Met, Root, Skip, Walk};

/// Files that are worked on at one time. Beyond some dozens, three nodes on one disk gain nothing: the committer's
/// batches are full.
const IN_FLIGHT_MAX: usize = 64;

/// Bytes of files in memory at one time, in KiB: eight of the largest values, or thousands of source files. A single
/// larger file still passes, alone.
const KIB_IN_FLIGHT_MAX: u32 = 64 * 1024;

/// A file that was read.
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) path: PathBuf,
    pub(crate) data: Bytes,
    /// Its share of the memory, given back when it is dropped.
    _share: OwnedSemaphorePermit,
}

/// What the reading thread hands on.
enum Fed {
    Item(Item),
    Skipped(PathBuf, Skip),
    Unreadable(PathBuf, io::Error),
}

/// Puts every file under `roots` through `work`, and what comes of each through `done`. What is left out or cannot be
/// read goes to `tally`.
pub(crate) async fn drive<T, W, F>(
    roots: Vec<Root>,
    value_bytes_max: u64,
    tally: &mut Tally,
    work: W,
    mut done: impl FnMut(&mut Tally, T),
) -> Result<(), Failure>
where
    T: Send + 'static,
    W: Fn(Item) -> F,
    F: Future<Output = T> + Send + 'static,
{
    for root in &roots {
        if !root.path().is_dir() {
            return Err(Failure::new(format!(
                "{} is not a directory",
                root.path().display()
            )));
        }
    }
    let roots = Arc::new(roots);
    let counted = spawn_blocking({
        let roots = roots.clone();
        move || count(&roots, value_bytes_max)
    });
    let (files, bytes) = counted.await.map_err(Failure::new)?;
    let mut progress = Progress::start("files", Some(files), Some(bytes));

    let (sender, mut fed) = mpsc::channel(IN_FLIGHT_MAX);
    let handle = Handle::current();
    let reader = spawn_blocking(move || read_all(&roots, value_bytes_max, &handle, &sender));
    let mut working = JoinSet::new();
    let mut more = true;
    while more || !working.is_empty() {
        tokio::select! {
            next = fed.recv(), if more && working.len() < IN_FLIGHT_MAX => match next {
                Some(Fed::Item(item)) => {
                    let size = item.data.len() as u64;
                    let work = work(item);
                    working.spawn(async move { (size, work.await) });
                }
                Some(Fed::Skipped(path, why)) => tally.skip(&path, why),
                Some(Fed::Unreadable(path, error)) => tally.fail(&path.display().to_string(), &error.to_string()),
                None => more = false,
            },
            Some(finished) = working.join_next() => {
                let (size, outcome) = finished.map_err(Failure::new)?;
                progress.advance(size);
                done(tally, outcome);
            }
            () = progress.due() => progress.tell(),
        }
    }
    reader.await.map_err(Failure::new)?;
    progress.finish();
    Ok(())
}

/// How many files and bytes a walk will bring, for the progress alone.
fn count(roots: &[Root], value_bytes_max: u64) -> (u64, u64) {
    let files = Walk::new(roots, value_bytes_max).filter_map(|met| match met {
        Met::File { size, .. } => Some(size),
        _ => None,
    });
    files.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size))
}

/// Reads file after file, as fast as they are taken, until all are read or nobody takes any more.
fn read_all(roots: &[Root], value_bytes_max: u64, handle: &Handle, fed: &mpsc::Sender<Fed>) {
    let budget = Arc::new(Semaphore::new(KIB_IN_FLIGHT_MAX as usize));
    for met in Walk::new(roots, value_bytes_max) {
        let next = match met {
            Met::Skipped(path, why) => Fed::Skipped(path, why),
            Met::Unreadable(path, error) => Fed::Unreadable(path, error),
            Met::File { key, path, size } => {
                let kib = u32::try_from(size / 1024 + 1)
                    .unwrap_or(u32::MAX)
                    .min(KIB_IN_FLIGHT_MAX);
                let Ok(share) = handle.block_on(budget.clone().acquire_many_owned(kib)) else {
                    return;
                };
                match read(&path, value_bytes_max) {
                    Ok(Some(data)) => Fed::Item(Item {
                        key,
                        path,
                        data,
                        _share: share,
                    }),
                    Ok(None) => Fed::Skipped(path, Skip::ValueTooLarge),
                    Err(error) => Fed::Unreadable(path, error),
                }
            }
        };
        if fed.blocking_send(next).is_err() {
            return;
        }
    }
}

/// The content of a file; `None` if it has grown beyond `max` bytes since it was met.
fn read(path: &Path, max: u64) -> io::Result<Option<Bytes>> {
    let mut data = Vec::new();
    File::open(path)?
        .take(max.saturating_add(1))
        .read_to_end(&mut data)?;
    Ok((data.len() as u64 <= max).then(|| data.into()))
}
