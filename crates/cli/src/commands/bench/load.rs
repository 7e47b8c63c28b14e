//! The two loops, and the course of a run: warm-up, measurement, and the wait for what is still under way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::unconstrained;
use tokio::time::sleep_until;

use super::measure::Recorder;
use super::pace::Pacer;
use super::schedule::Schedule;
use super::target::{Ask, Kind, Target};
use super::workload::Workload;

/// What fails faster than this fails without having asked anybody.
const FAST: Duration = Duration::from_millis(1);
/// The pause of one asker after such a failure: without it, a cluster that is away would be measured by how fast this
/// machine can say so.
const PAUSE: Duration = Duration::from_millis(10);

/// How requests follow each other.
#[derive(Debug)]
pub(super) enum Pacing {
    /// So many under way, each followed by the next.
    Closed {
        /// How many.
        in_flight: usize,
    },
    /// By a timetable.
    Open {
        /// When.
        schedule: Schedule,
        /// How many may be under way; what is due beyond waits.
        in_flight: usize,
        /// How many may wait; what is due beyond is dropped.
        backlog: usize,
    },
}

/// How long a run's parts last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) warmup: Duration,
    pub(super) window: Duration,
}

/// What watches a run from outside.
pub(super) trait Watch {
    /// The measurement begins now.
    fn begins(&mut self);
    /// A second of it has gone.
    fn second(&mut self, recorder: &Recorder);
    /// It ends now; some requests are still under way.
    fn ends(&mut self);
}

/// A target under load.
pub(super) struct Load<'a, T> {
    pub(super) target: &'a T,
    pub(super) workload: &'a RefCell<Workload>,
    pub(super) recorder: RefCell<Recorder>,
}

impl<T: Target> Load<'_, T> {
    /// Runs it to its end, or until `stop`, which ends the measurement where it is. Says whether it was stopped.
    pub(super) async fn run(
        &self,
        pacing: Pacing,
        course: Course,
        watch: &mut impl Watch,
        stop: impl Future<Output = ()>,
    ) -> bool {
        let ending = Cell::new(false);
        let mut finished = false;
        let mut stop = pin!(stop);
        // Without tokio's budget: this one task holds every request, and would be put to sleep in the midst of those that are
        // ready. The loops yield by themselves.
        let mut load = pin!(unconstrained(async {
            match pacing {
                Pacing::Closed { in_flight } => self.closed(in_flight, &ending).await,
                Pacing::Open {
                    schedule,
                    in_flight,
                    backlog,
                } => self.open(schedule, in_flight, backlog, &ending).await,
            }
        }));
        let begin = Instant::now() + course.warmup;
        let mut stopped = tokio::select! {
            () = sleep_until(begin.into()) => false,
            () = &mut load => {
                finished = true;
                false
            }
            () = &mut stop => true,
        };
        let begun = Instant::now();
        if !stopped {
            watch.begins();
            self.recorder.borrow_mut().open(begun);
            let mut tick = begun + Duration::from_secs(1);
            loop {
                let end = begun + course.window;
                tokio::select! {
                    () = &mut load, if !finished => {
                        finished = true;
                        break;
                    }
                    () = sleep_until(end.into()) => break,
                    () = sleep_until(tick.into()) => {
                        tick += Duration::from_secs(1);
                        watch.second(&self.recorder.borrow());
                    }
                    () = &mut stop => {
                        stopped = true;
                        break;
                    }
                }
            }
            self.recorder.borrow_mut().close(Instant::now());
            watch.ends();
        }
        ending.set(true);
        if !finished && !stopped {
            // Each request ends in bounded time.
            tokio::select! {
                () = &mut load => {}
                () = &mut stop => stopped = true,
            }
        }
        stopped
    }

    /// One request, and its place in the count.
    async fn perform(&self, due: Option<Instant>) -> Duration {
        let step = self.workload.borrow_mut().next();
        let done = step.done();
        let mut ask = step.ask;
        let mut began = due.unwrap_or_else(Instant::now);
        let mut result = Ok(());
        if step.learn {
            let read = self.target.perform(Ask {
                kind: Kind::Get,
                value: bytes::Bytes::new(),
                context: None,
                key: ask.key.clone(),
            });
            match read.await {
                Ok(success) => ask.context = success.context,
                Err(trouble) => result = Err(trouble),
            }
            began = due.unwrap_or_else(Instant::now);
        }
        let asked = Instant::now();
        let result = match result {
            Ok(()) => self.target.perform(ask).await,
            Err(trouble) => Err(trouble),
        };
        let now = Instant::now();
        self.workload.borrow_mut().done(done, result.as_ref().ok());
        let failed = result.is_err();
        self.recorder
            .borrow_mut()
            .ended(done.kind, began, now, result);
        if failed && now - asked < FAST {
            PAUSE
        } else {
            Duration::ZERO
        }
    }

    fn is_over(&self, ending: &Cell<bool>) -> bool {
        ending.get() || self.recorder.borrow().is_over()
    }

    async fn closed(&self, in_flight: usize, ending: &Cell<bool>) {
        let asker = || async {
            while !self.is_over(ending) {
                self.recorder.borrow_mut().started();
                let pause = self.perform(None).await;
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        };
        let mut askers: FuturesUnordered<_> = (0..in_flight).map(|_| asker()).collect();
        while askers.next().await.is_some() {}
    }

    async fn open(
        &self,
        mut schedule: Schedule,
        in_flight: usize,
        backlog: usize,
        ending: &Cell<bool>,
    ) {
        let start = Instant::now();
        let mut pacer = Pacer::new();
        let mut next = start + schedule.next();
        let mut waiting = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            while next <= now && !self.is_over(ending) {
                self.recorder.borrow_mut().started();
                if waiting.len() < backlog.max(1) {
                    waiting.push_back(next);
                } else {
                    self.recorder.borrow_mut().dropped(next);
                }
                next = start + schedule.next();
            }
            while under_way.len() < in_flight {
                let Some(due) = waiting.pop_front() else {
                    break;
                };
                self.recorder.borrow_mut().started_late(due, now);
                under_way.push(self.perform(Some(due)));
            }
            let over = self.is_over(ending);
            if over && under_way.is_empty() {
                return;
            }
            tokio::select! {
                Some(_) = under_way.next() => {}
                () = pacer.until(next), if !over => {}
            }
        }
    }
}
