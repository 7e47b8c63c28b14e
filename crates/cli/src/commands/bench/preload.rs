//! Writing the key space before the measurement, where it is not there yet.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::progress::Progress;
use super::target::{Ask, Kind, Success, Target, Trouble};
use super::workload::Workload;

/// Keys that are seen to at one time.
pub(super) const IN_FLIGHT: usize = 64;
/// How often one key is tried: a node that is just starting may refuse for a moment.
const ATTEMPTS: u32 = 3;

/// Sees to it that each key of the key space has one value of the workload's size, and tells the workload what stands there. A
/// key that has one already is left alone, so that a second benchmark begins sooner. Without `write` it only looks.
///
/// # Errors
/// The first key that cannot be read or written, in words. `false` if `stop` came first.
pub(super) async fn preload<T: Target>(
    target: &T,
    workload: &RefCell<Workload>,
    write: bool,
    stop: impl Future<Output = ()>,
) -> Result<bool, String> {
    let mut stop = pin!(stop);
    let keys = workload.borrow().keys();
    let progress = Progress::start("keys ready", keys);
    let mut numbers = 0..keys;
    let mut under_way = FuturesUnordered::new();
    let mut done = 0;
    loop {
        while under_way.len() < IN_FLIGHT
            && let Some(number) = numbers.next()
        {
            under_way.push(see_to(target, workload, write, number));
        }
        tokio::select! {
            next = under_way.next() => match next {
                None => return Ok(true),
                Some(result) => {
                    result?;
                    done += 1;
                    progress.at(done);
                }
            },
            () = &mut stop => return Ok(false),
        }
    }
}

async fn see_to<T: Target>(
    target: &T,
    workload: &RefCell<Workload>,
    write: bool,
    number: u64,
) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        match try_once(target, workload, write, number).await {
            Ok(context) => {
                workload.borrow_mut().learned(number, context);
                return Ok(());
            }
            Err(trouble) if attempt == ATTEMPTS => {
                return Err(format!(
                    "cannot write the keys that are to be read: {}: {}",
                    trouble.kind, trouble.message
                ));
            }
            Err(_) => attempt += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// The context of what stands at a key in the end. The read before makes a second attempt safe.
async fn try_once<T: Target>(
    target: &T,
    workload: &RefCell<Workload>,
    write: bool,
    number: u64,
) -> Result<Option<Bytes>, Trouble> {
    let ask = |kind, value, context| Ask {
        kind,
        key: Workload::name(number),
        value,
        context,
    };
    let read = target.perform(ask(Kind::Get, Bytes::new(), None)).await?;
    let Success {
        absent,
        values,
        bytes,
        context,
    } = read;
    let ready = !absent && values == 1 && bytes == workload.borrow().size();
    if ready || !write {
        return Ok(context);
    }
    let value = workload.borrow_mut().value();
    let put = target.perform(ask(Kind::Put, value, context)).await?;
    Ok(put.context)
}
