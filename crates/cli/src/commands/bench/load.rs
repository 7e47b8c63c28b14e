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
            while next <= now && self.recorder.borrow().takes(next) {
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

#[cfg(test)]
mod tests {
    use super::super::args::{Arrivals, Distribution, Rate};
    use super::super::measure::Tally;
    use super::super::target::{Success, Trouble};
    use super::super::workload::Chooser;
    use super::*;

    /// Answers after a millisecond, but for a stall, during which nothing is answered.
    struct Stalling {
        from: Instant,
        until: Instant,
        asked: Cell<u64>,
    }

    impl Target for Stalling {
        async fn perform(&self, _: Ask) -> Result<Success, Trouble> {
            self.asked.set(self.asked.get() + 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
            if (self.from..self.until).contains(&Instant::now()) {
                sleep_until(self.until.into()).await;
            }
            Ok(Success::default())
        }
    }

    /// Cannot be reached.
    struct Away(Cell<u64>);

    impl Target for Away {
        async fn perform(&self, _: Ask) -> Result<Success, Trouble> {
            self.0.set(self.0.get() + 1);
            Err(Trouble::new("unreachable", "nobody is there"))
        }
    }

    #[derive(Default)]
    struct Nobody {
        begun: u32,
        ended: u32,
    }

    impl Watch for Nobody {
        fn begins(&mut self) {
            self.begun += 1;
        }
        fn second(&mut self, _: &Recorder) {}
        fn ends(&mut self) {
            self.ended += 1;
        }
    }

    /// What was counted, how many were dropped, and the seconds measured: more than one where the machine is busy.
    fn run<T: Target>(target: &T, pacing: Pacing, requests: Option<u64>) -> (Tally, u64, f64) {
        let chooser = Chooser::new(10, Distribution::Uniform).unwrap();
        let workload = Workload::new("get".parse().unwrap(), chooser, 1, 1, 1);
        let workload = RefCell::new(workload);
        let load = Load {
            target,
            workload: &workload,
            recorder: RefCell::new(Recorder::new(requests)),
        };
        let course = Course {
            warmup: Duration::from_millis(20),
            window: Duration::from_secs(1),
        };
        let mut watch = Nobody::default();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(load.run(pacing, course, &mut watch, std::future::pending()));
        assert_eq!((watch.begun, watch.ended), (1, 1));
        let recorder = load.recorder.into_inner();
        let seconds = recorder.measured().as_secs_f64();
        (recorder.total(), recorder.dropped, seconds)
    }

    /// Stalls for 400 ms in the middle of the window.
    fn stalling() -> Stalling {
        let from = Instant::now() + Duration::from_millis(320);
        Stalling {
            from,
            until: from + Duration::from_millis(400),
            asked: Cell::new(0),
        }
    }

    fn open(rate: f64, in_flight: usize, backlog: usize) -> Pacing {
        Pacing::Open {
            schedule: Schedule::new(Rate(rate), Arrivals::Fixed, 1),
            in_flight,
            backlog,
        }
    }

    /// Of 500 a second.
    fn assert_due(count: u64, seconds: f64) {
        let expected = 500.0 * seconds;
        assert!(
            (expected - 1.5..expected + 1.5).contains(&(count as f64)),
            "{count} in {seconds} s"
        );
    }

    fn ms_at(tally: &Tally, quantile: f64) -> u64 {
        tally.latency.value_at_quantile(quantile) / 1_000_000
    }

    /// Coordinated omission: four tenths of all that should have come met the stall. A closed loop asks one of them, an open loop all,
    /// also where it could not send them.
    #[test]
    fn an_open_loop_feels_a_stall_for_everyone_who_would_have_come() {
        let (closed, ..) = run(&stalling(), Pacing::Closed { in_flight: 1 }, None);
        assert!(ms_at(&closed, 0.9) < 100, "{}", ms_at(&closed, 0.9));
        assert!(ms_at(&closed, 1.0) >= 380);

        for in_flight in [8, 1000] {
            let (open, dropped, seconds) = run(&stalling(), open(500.0, in_flight, 1000), None);
            assert_eq!(dropped, 0);
            // All that were due, answered or not when the window closed.
            assert_due(open.succeeded(), seconds);
            assert!(ms_at(&open, 0.7) >= 80, "{}", ms_at(&open, 0.7));
            assert!(ms_at(&open, 0.9) >= 250, "{}", ms_at(&open, 0.9));
        }
    }

    #[test]
    fn what_the_backlog_cannot_hold_is_dropped_and_told() {
        let (open, dropped, seconds) = run(&stalling(), open(500.0, 8, 20), None);
        assert!(dropped > 100, "{dropped}");
        let all = open.succeeded() + dropped;
        assert_due(all, seconds);
    }

    #[test]
    fn a_bound_on_requests_ends_the_run() {
        let target = stalling();
        let (closed, ..) = run(&target, Pacing::Closed { in_flight: 4 }, Some(10));
        assert_eq!(closed.succeeded(), 10);
        assert!(target.asked.get() < 200, "those of the warm-up are more");
        // However late this thread is, none of them is left out.
        let (open, ..) = run(&stalling(), open(500.0, 8, 1_000), Some(10));
        assert_eq!(open.succeeded(), 10);
    }

    #[test]
    fn failing_at_once_does_not_spin() {
        let away = Away(Cell::new(0));
        let (closed, ..) = run(&away, Pacing::Closed { in_flight: 4 }, None);
        assert_eq!(closed.succeeded(), 0);
        assert!(closed.failures() > 0);
        // Four askers, each at most once in 10 ms.
        assert!(away.0.get() <= 4 * 103, "{}", away.0.get());
        assert_eq!(closed.failed["unreachable"].1, "nobody is there");
    }
}
