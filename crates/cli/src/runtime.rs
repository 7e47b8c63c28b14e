//! The one thread on which a command's sockets and timers live.

use std::future::Future;

use crate::failure::Failure;

/// Runs a command's asynchronous part to its end. One thread: the work is sockets, and a second thread costs more in
/// waking than it brings.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the runtime", &error))?
        .block_on(work)
}

/// The first of SIGINT and SIGTERM, from the moment this is called.
///
/// The handlers are in place when this returns, so that no signal is lost between here and the first poll.
pub(crate) fn stop_signal() -> Result<impl Future<Output = &'static str>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Failure::io("listen for signals", &error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}
