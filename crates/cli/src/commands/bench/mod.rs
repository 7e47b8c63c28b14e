//! `quorate bench`
//!
//! `workload` says what is asked next, `target` what asks it (`native`, `http`), `load` runs the closed and the open loop (`schedule`, `pace`)
//! and `measure` counts. `cpu` reads what processes have used, `report` says what it all came to.

mod args;
mod cpu;
mod http;
mod load;
mod measure;
mod native;
mod pace;
mod plot;
mod preload;
mod progress;
mod report;
mod schedule;
mod target;
mod workload;

use std::cell::{Cell, RefCell};
use std::fs;
use std::time::Duration;

use quorate_protocol::Options;

pub(crate) use args::Bench;

use self::args::{Mix, Preload, Rate};
use self::http::Http;
use self::load::{Course, Load, Pacing, Watch};
use self::measure::Recorder;
use self::native::Native;
use self::progress::Progress;
use self::report::{Cpu, Latency, Machine, Paced, Report, Run, Server, Settings};
use self::schedule::Schedule;
use self::target::{Kind, Target};
use self::workload::{Chooser, Workload};
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::runtime;

/// Requests under way in a closed loop, if nothing is said: enough that servers can do many things at one stroke, few
/// enough that none waits long.
const IN_FLIGHT: usize = 64;
/// Requests under way in an open loop: so many that only a cluster which has fallen behind gets there.
const IN_FLIGHT_OPEN: usize = 1024;

/// Keys whose contexts are held in memory, some hundred bytes each.
const KEYS_OVERWRITTEN_MAX: u64 = 10_000_000;

impl Mix {
    /// The kinds that come up.
    fn kinds(self) -> Vec<Kind> {
        let parts = [self.put, self.get, self.delete];
        let kinds = Kind::ALL.into_iter().zip(parts);
        kinds
            .filter(|(_, part)| *part > 0)
            .map(|(kind, _)| kind)
            .collect()
    }
}

/// One run to make.
#[derive(Clone, Copy, Debug)]
enum Planned {
    Closed(usize),
    Open(Rate, usize),
}

impl Bench {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let planned = self.planned()?;
        let chooser = Chooser::new(self.keys.get(), self.distribution).map_err(Failure::Usage)?;
        let report = runtime::block_on(async {
            if self.http.is_empty() {
                let target = self.native().await?;
                let conns = target.clients.len();
                self.measure(&target, |_| conns, chooser, &planned).await
            } else {
                let target = self.over_http();
                let conns = |in_flight| target.limit(self.conns.map_or(in_flight, |n| n.get()));
                self.measure(&target, conns, chooser, &planned).await
            }
        })?;
        if let Some(file) = &self.report {
            let mut text = serde_json::to_vec_pretty(&report).map_err(Failure::new)?;
            text.push(b'\n');
            let written = fs::write(file, text);
            written.map_err(|error| Failure::io(format!("write {}", file.display()), &error))?;
        }
        if let Some(file) = &self.plot {
            let written = fs::write(file, plot::svg(&report).map_err(Failure::new)?);
            written.map_err(|error| Failure::io(format!("write {}", file.display()), &error))?;
        }
        match form {
            Form::Json => output::json(&report)?,
            Form::Table => output::line(&report.table())?,
        }
        for remark in report.remarks() {
            output::remark(&remark);
        }
        if report.stopped {
            output::remark("stopped by a signal: the last run is shorter than was asked");
        }
        if report.succeeded() == 0 {
            return Err(Failure::new("no request succeeded"));
        }
        match self.max_errors {
            Some(max) if report.failed() > max => Err(Failure::new(format!(
                "{} requests failed, and --max-errors allows {max}",
                report.failed()
            ))),
            _ => Ok(()),
        }
    }

    /// The runs that were asked for, if they go together.
    fn planned(&self) -> Result<Vec<Planned>, Failure> {
        let planned: Vec<Planned> = match (&self.in_flight[..], &self.rate[..]) {
            ([], []) => vec![Planned::Closed(IN_FLIGHT)],
            (numbers, []) => numbers.iter().copied().map(Planned::Closed).collect(),
            ([], rates) => rates
                .iter()
                .map(|rate| Planned::Open(*rate, IN_FLIGHT_OPEN))
                .collect(),
            ([bound], rates) => rates
                .iter()
                .map(|rate| Planned::Open(*rate, *bound))
                .collect(),
            (_, _) => {
                return Err(Failure::Usage(
                    "with --rate, --in-flight is the bound of what is under way: give one number"
                        .to_owned(),
                ));
            }
        };
        let most = planned.iter().map(|planned| match planned {
            Planned::Closed(in_flight) | Planned::Open(_, in_flight) => *in_flight as u64,
        });
        let most = most.max().unwrap_or(0);
        if self.overwrite && self.keys.get() <= most {
            return Err(Failure::Usage(format!(
                "--overwrite writes a key in one request at a time: --keys must be more than the {most} requests under way"
            )));
        }
        if self.overwrite && self.keys.get() > KEYS_OVERWRITTEN_MAX {
            return Err(Failure::Usage(format!(
                "--overwrite keeps the context of every key in memory: --keys must be at most {KEYS_OVERWRITTEN_MAX}"
            )));
        }
        if self.seconds.is_zero() {
            return Err(Failure::Usage(
                "--seconds 0 measures nothing: give more".to_owned(),
            ));
        }
        Ok(planned)
    }

    /// The options of every request: a read takes its own part of them, a write its.
    fn options(&self) -> Options {
        self.write
            .into_options(self.read.into_options(Options::default()))
    }

    async fn native(&self) -> Result<Native, Failure> {
        let mut clients = Vec::new();
        for _ in 0..self.conns.map_or(1, |conns| conns.get()) {
            clients.push(self.cluster.connect().await?);
        }
        Ok(Native {
            clients,
            bucket: self.bucket.clone(),
            options: self.options(),
            timeout: self.timeout.timeout,
            turn: Cell::new(0),
        })
    }

    fn over_http(&self) -> Http {
        let timeout = self.timeout.timeout;
        Http::new(self.http.clone(), &self.bucket, self.options(), timeout)
    }

    /// Makes the runs, one after the other. `conns` is told how many requests will be under way, and says how many connections
    /// carry them.
    async fn measure<T: Target>(
        &self,
        target: &T,
        conns: impl Fn(usize) -> usize,
        chooser: Chooser,
        planned: &[Planned],
    ) -> Result<Report, Failure> {
        let servers = self.servers()?;
        let workload = Workload::new(self.mix, chooser, self.size, self.seed, rand::random());
        let workload = RefCell::new(workload);
        let writes_space = self.overwrite && self.mix.put + self.mix.delete > 0;
        if writes_space {
            workload.borrow_mut().overwrite();
        }
        let preloaded = match self.preload {
            Preload::Auto => writes_space || self.mix.get > 0,
            Preload::Yes => true,
            Preload::No => false,
        };
        let mut stopped = false;
        if preloaded || writes_space {
            let stop = stop_signal()?;
            conns(preload::IN_FLIGHT);
            let done = preload::preload(target, &workload, preloaded, stop).await;
            stopped = !done.map_err(Failure::Failed)?;
        }
        let mut runs = Vec::new();
        for planned in planned {
            if stopped {
                break;
            }
            let load = Load {
                target,
                workload: &workload,
                recorder: RefCell::new(Recorder::new(self.requests.map(|n| n.get()))),
            };
            let (pacing, in_flight, words) = self.pacing(*planned);
            let conns = conns(in_flight);
            let mut watch = Meter::new(&servers, &words, self.seconds);
            let course = Course {
                warmup: self.warmup,
                window: self.seconds,
            };
            stopped = load.run(pacing, course, &mut watch, stop_signal()?).await;
            let recorder = load.recorder.borrow();
            let cpu = watch.cpu(recorder.answered());
            runs.push(Run::of(
                self.paced(*planned, &recorder),
                conns,
                &self.mix.kinds(),
                &recorder,
                cpu,
            ));
        }
        Ok(Report {
            quorate: env!("CARGO_PKG_VERSION"),
            machine: Machine {
                cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
                os: std::env::consts::OS,
                arch: std::env::consts::ARCH,
            },
            settings: self.settings(preloaded),
            runs,
            stopped,
        })
    }

    fn pacing(&self, planned: Planned) -> (Pacing, usize, String) {
        match planned {
            Planned::Closed(in_flight) => (
                Pacing::Closed { in_flight },
                in_flight,
                format!("{in_flight} in flight"),
            ),
            Planned::Open(rate, in_flight) => {
                let pacing = Pacing::Open {
                    schedule: Schedule::new(rate, self.arrivals, self.seed),
                    in_flight,
                    backlog: self.backlog,
                };
                (pacing, in_flight, format!("{}/s due", rate.0))
            }
        }
    }

    fn paced(&self, planned: Planned, recorder: &Recorder) -> Paced {
        match planned {
            Planned::Closed(in_flight) => Paced::Closed { in_flight },
            Planned::Open(rate, in_flight) => Paced::Open {
                rate: rate.0,
                arrivals: self.arrivals,
                in_flight_max: in_flight,
                backlog_max: self.backlog,
                lateness: Latency::of(&recorder.lateness).map(Box::new),
                dropped: recorder.dropped,
            },
        }
    }

    /// The `--pids` with their names.
    fn servers(&self) -> Result<Vec<(u64, String)>, Failure> {
        let named = self.pids.iter().map(|pid| {
            let pid = pid.get();
            cpu::name(pid).map(|name| (pid, name))
        });
        named
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::Usage(format!("--pids: {error}")))
    }

    fn settings(&self, preloaded: bool) -> Settings {
        let options = self.options();
        let quorums = [
            ("r", options.r),
            ("pr", options.pr),
            ("w", options.w),
            ("pw", options.pw),
            ("dw", options.dw),
        ];
        let quorums = quorums
            .into_iter()
            .filter_map(|(name, quorum)| Some((name, quorum?.to_string())));
        Settings {
            protocol: if self.http.is_empty() { "quic" } else { "http" },
            bucket: self.bucket.clone(),
            mix: self.mix,
            size_bytes: self.size,
            keys: self.keys.get(),
            distribution: self.distribution,
            overwrite: self.overwrite,
            preloaded,
            quorums: quorums.collect(),
            timeout_ms: self.timeout.timeout.map(|timeout| timeout.as_millis()),
            warmup_s: self.warmup.as_secs_f64(),
            seconds: self.seconds.as_secs_f64(),
            requests: self.requests.map(|n| n.get()),
            seed: self.seed,
            pids: self.pids.iter().map(|pid| pid.get()).collect(),
        }
    }
}

/// The first signal to end.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let stop = runtime::stop_signal()?;
    Ok(async {
        let _ = stop.await;
    })
}

/// Reads the CPU time at both ends of a measurement, and shows how far it is.
struct Meter<'a> {
    servers: &'a [(u64, String)],
    before: Option<Readings>,
    after: Option<Readings>,
    progress: Progress,
    seconds: u64,
    answered: u64,
}

struct Readings {
    own: Duration,
    servers: Vec<Option<cpu::Reading>>,
}

impl<'a> Meter<'a> {
    fn new(servers: &'a [(u64, String)], words: &str, window: Duration) -> Meter<'a> {
        Meter {
            servers,
            before: None,
            after: None,
            progress: Progress::start(&format!("s, {words}"), window.as_secs()),
            seconds: 0,
            answered: 0,
        }
    }

    fn read(&self) -> Readings {
        Readings {
            own: cpu::own(),
            servers: self
                .servers
                .iter()
                .map(|(pid, _)| cpu::read(*pid))
                .collect(),
        }
    }

    /// What was used between the two readings, for so many requests.
    fn cpu(&self, answered: u64) -> Cpu {
        let each =
            |used: Duration| (answered > 0).then(|| used.as_secs_f64() * 1e6 / answered as f64);
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            return Cpu {
                answered,
                client_us_per_request: None,
                servers_us_per_request: None,
                servers: Vec::new(),
            };
        };
        let readings = before.servers.iter().zip(&after.servers);
        let used: Vec<Option<Duration>> = readings
            .map(|(before, after)| after.as_ref()?.since(before.as_ref()?))
            .collect();
        let all: Option<Duration> = used.iter().copied().sum();
        Cpu {
            answered,
            client_us_per_request: each(after.own.saturating_sub(before.own)),
            servers_us_per_request: match self.servers {
                [] => None,
                _ => all.and_then(each),
            },
            servers: self
                .servers
                .iter()
                .zip(&used)
                .map(|((pid, name), used)| Server {
                    pid: *pid,
                    name: name.clone(),
                    cpu_s: used.map(|used| used.as_secs_f64()),
                    us_per_request: used.and_then(each),
                })
                .collect(),
        }
    }
}

impl Watch for Meter<'_> {
    fn begins(&mut self) {
        self.before = Some(self.read());
    }

    fn second(&mut self, recorder: &Recorder) {
        self.seconds += 1;
        self.progress.at(self.seconds);
        let answered = recorder.answered();
        let last = answered - self.answered;
        self.answered = answered;
        self.progress.say(|| {
            let total = recorder.total();
            let latency = Latency::of(&total.latency);
            let p99 = latency.map_or("-".to_owned(), |latency| report::millis(latency.p99));
            format!("{last}/s, p99 {p99} ms, {} failed", total.failures())
        });
    }

    fn ends(&mut self) {
        self.after = Some(self.read());
    }
}
