//! Connections.

use std::future::{Future, IntoFuture as _, pending};
use std::io;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long requests that are under way may still take once a shutdown began. Longer than the default timeout of a
/// request, so that ordinary ones end; bounded, so that a client that never finishes its body holds nothing up.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Accepts connections and serves them until `shutdown` completes; then takes no more, ends idle connections, and
/// waits up to [`DRAIN_TIME_MAX`] for requests under way. Tasks of connections that are open even then end with the
/// runtime.
///
/// `TCP_NODELAY` is set: a small answer would otherwise wait for the acknowledgement of the one before. Errors of
/// `accept` (too many open files) are waited out. It needs a tokio runtime with I/O and timer enabled.
///
/// # Errors
/// None today; the type leaves room for a listener that fails for good.
pub async fn serve<F>(listener: TcpListener, router: Router, shutdown: F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection without TCP_NODELAY");
        }
    });
    let (began, begins) = oneshot::channel();
    let signal = async move {
        shutdown.await;
        let _ = began.send(());
    };
    let overdue = async move {
        match begins.await {
            Ok(()) => tokio::time::sleep(DRAIN_TIME_MAX).await,
            // The server ended by itself: that is the other branch's to report.
            Err(_) => pending().await,
        }
    };
    tokio::select! {
        ended = axum::serve(listener, router).with_graceful_shutdown(signal).into_future() => ended,
        () = overdue => {
            tracing::warn!("requests were still under way {DRAIN_TIME_MAX:?} after the shutdown began");
            Ok(())
        }
    }
}
