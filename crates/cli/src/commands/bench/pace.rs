//! Waking at a moment, finer than a runtime's timers.
//!
//! Tokio's timers round up to the next millisecond, which would add half of one to every latency that an open loop
//! measures from the moment a request was due. Linux offers a timer as a file that becomes readable at the nanosecond
//! asked for, and waiting for files is what the runtime does anyway.

use std::time::Instant;

use tokio::time::sleep_until;

#[cfg(target_os = "linux")]
pub(super) use linux::Pacer;

/// The runtime's own timer, where there is no finer one.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Pacer;

#[cfg(not(target_os = "linux"))]
impl Pacer {
    pub(super) fn new() -> Pacer {
        Pacer
    }

    /// Waits until a moment.
    pub(super) async fn until(&mut self, at: Instant) {
        sleep_until(at.into()).await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Instant, sleep_until};

    /// A timer of the kernel.
    #[derive(Debug)]
    pub(crate) struct Pacer {
        /// None if the kernel refused one: then the runtime's has to do.
        timer: Option<AsyncFd<OwnedFd>>,
        /// What it is set to: a wait that is given up and taken up again costs no system call.
        set: Option<Instant>,
    }

    impl Pacer {
        /// A timer on the current runtime.
        pub(crate) fn new() -> Pacer {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok();
            // Newer releases of tokio want an `unsafe` promise that the file stays the same for as long as it is watched. An
            // `OwnedFd` that nobody else has keeps it, and nothing here is unsafe for that.
            #[allow(deprecated)]
            let watched = timer.and_then(|timer| AsyncFd::new(timer).ok());
            Pacer {
                timer: watched,
                set: None,
            }
        }

        /// Waits until a moment.
        pub(crate) async fn until(&mut self, at: Instant) {
            let Some(timer) = &self.timer else {
                return sleep_until(at.into()).await;
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if self.set != Some(at) {
                let once = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                let setting = Itimerspec {
                    it_interval: once,
                    it_value: Timespec {
                        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                        tv_nsec: left.subsec_nanos().into(),
                    },
                };
                // Setting it also takes back that it was readable.
                let flags = TimerfdTimerFlags::empty();
                if timerfd_settime(timer.get_ref(), flags, &setting).is_err() {
                    return sleep_until(at.into()).await;
                }
                self.set = Some(at);
            }
            while Instant::now() < at {
                let Ok(mut ready) = timer.readable().await else {
                    return;
                };
                ready.clear_ready();
            }
        }
    }
}
