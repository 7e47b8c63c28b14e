//! What a benchmark came to, for programs and for people.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::CellAlignment;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{Arrivals, Distribution, Mix};
use super::measure::{Recorder, Tally};
use super::target::Kind;
use crate::output;

/// How finely the percentiles of a histogram are written out: so many steps each time the distance to 100 % halves.
const STEPS_A_HALF: u32 = 5;

/// All that a benchmark found, and under what conditions.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    pub(super) quorate: &'static str,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) runs: Vec<Run>,
    /// Whether a signal ended it early.
    pub(super) stopped: bool,
}

/// Where the client ran.
#[derive(Serialize, Debug)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) os: &'static str,
    pub(super) arch: &'static str,
}

/// What all runs have in common.
#[derive(Serialize, Debug)]
pub(super) struct Settings {
    pub(super) protocol: &'static str,
    pub(super) bucket: String,
    pub(super) mix: Mix,
    pub(super) size_bytes: usize,
    pub(super) keys: u64,
    pub(super) distribution: Distribution,
    pub(super) overwrite: bool,
    pub(super) preloaded: bool,
    pub(super) quorums: BTreeMap<&'static str, String>,
    pub(super) timeout_ms: Option<u128>,
    pub(super) warmup_s: f64,
    pub(super) seconds: f64,
    pub(super) requests: Option<u64>,
    pub(super) seed: u64,
    pub(super) pids: Vec<u64>,
}

/// One run.
#[derive(Serialize, Debug)]
pub(super) struct Run {
    #[serde(flatten)]
    pub(super) pacing: Paced,
    /// What `latency_ms` begins at.
    pub(super) latency_from: &'static str,
    pub(super) conns: usize,
    /// How long was measured.
    pub(super) seconds: f64,
    /// All kinds together.
    pub(super) total: Operations,
    /// By kind, those of the mix.
    pub(super) operations: BTreeMap<&'static str, Operations>,
    /// Answered in each second.
    pub(super) per_second: Vec<u64>,
    pub(super) cpu: Cpu,
}

/// How requests followed each other.
#[derive(Clone, Serialize, Debug)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub(super) enum Paced {
    Closed {
        in_flight: usize,
    },
    Open {
        rate: f64,
        arrivals: Arrivals,
        in_flight_max: usize,
        backlog_max: usize,
        /// From when requests were due to when they were started.
        lateness: Option<Box<Latency>>,
        /// Due and never started, because too many waited. They are in no other figure.
        dropped: u64,
    },
}

/// What became of requests.
#[derive(Serialize, Debug)]
pub(super) struct Operations {
    /// That began in the measured time and succeeded; the latency is theirs.
    pub(super) count: u64,
    /// Answered within the measured time, a second.
    pub(super) per_second: f64,
    pub(super) absent: u64,
    pub(super) with_siblings: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<Failed>,
    pub(super) latency_ms: Option<Latency>,
}

/// Failures of one kind.
#[derive(Serialize, Debug)]
pub(super) struct Failed {
    pub(super) kind: String,
    pub(super) count: u64,
    /// One of them.
    pub(super) example: String,
}

/// A distribution of times, in milliseconds.
#[derive(Clone, Serialize, Debug)]
pub(super) struct Latency {
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) p99_99: f64,
    pub(super) max: f64,
    /// The whole of it: a fraction of all, the time that so many did not exceed, and how many they are.
    pub(super) percentiles: Vec<(f64, f64, u64)>,
}

/// CPU time, in microseconds a request: all that were answered within the measured time, failed ones too.
#[derive(Serialize, Debug)]
pub(super) struct Cpu {
    pub(super) answered: u64,
    pub(super) client_us_per_request: Option<f64>,
    /// All `--pids` together; none if one of them is gone.
    pub(super) servers_us_per_request: Option<f64>,
    pub(super) servers: Vec<Server>,
}

/// One of the `--pids`.
#[derive(Serialize, Debug)]
pub(super) struct Server {
    pub(super) pid: u64,
    pub(super) name: String,
    /// None if the process has ended.
    pub(super) cpu_s: Option<f64>,
    pub(super) us_per_request: Option<f64>,
}

impl Latency {
    /// Of a histogram in nanoseconds; `None` if nothing is in it.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        if histogram.is_empty() {
            return None;
        }
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        let percentiles = histogram.iter_quantiles(STEPS_A_HALF).map(|step| {
            let upto = step.value_iterated_to().min(histogram.max());
            (step.quantile(), ms(upto), histogram.count_between(0, upto))
        });
        Some(Latency {
            min: ms(histogram.min()),
            mean: histogram.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: ms(histogram.max()),
            percentiles: percentiles.collect(),
        })
    }
}

impl Operations {
    /// What a tally says, in a window of this length.
    pub(super) fn of(tally: &Tally, window: Duration) -> Operations {
        let failures = tally.failed.iter().map(|(kind, (count, example))| Failed {
            kind: kind.clone(),
            count: *count,
            example: example.clone(),
        });
        Operations {
            count: tally.succeeded(),
            per_second: rate(tally.answered_in_window, window),
            absent: tally.absent,
            with_siblings: tally.with_siblings,
            failed: tally.failures(),
            failures: failures.collect(),
            latency_ms: Latency::of(&tally.latency),
        }
    }
}

fn rate(count: u64, window: Duration) -> f64 {
    if window.is_zero() {
        0.0
    } else {
        count as f64 / window.as_secs_f64()
    }
}

impl Run {
    /// What was recorded, by the kinds of a mix.
    pub(super) fn of(
        pacing: Paced,
        conns: usize,
        kinds: &[Kind],
        recorder: &Recorder,
        cpu: Cpu,
    ) -> Run {
        let window = recorder.measured();
        let latency_from = match &pacing {
            Paced::Closed { .. } => "the request was sent",
            Paced::Open { .. } => "the request was due",
        };
        let operations = kinds
            .iter()
            .map(|kind| (kind.name(), Operations::of(recorder.tally(*kind), window)));
        Run {
            pacing,
            latency_from,
            conns,
            seconds: window.as_secs_f64(),
            total: Operations::of(&recorder.total(), window),
            operations: operations.collect(),
            per_second: recorder.timeline(),
            cpu,
        }
    }

    /// What sets this run apart from the others of a benchmark.
    pub(super) fn label(&self) -> String {
        match &self.pacing {
            Paced::Closed { in_flight } => format!("{in_flight} in flight"),
            Paced::Open { rate, .. } => format!("{rate}/s"),
        }
    }
}

impl Report {
    /// How many requests succeeded.
    pub(super) fn succeeded(&self) -> u64 {
        self.runs.iter().map(|run| run.total.count).sum()
    }

    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.runs.iter().map(|run| run.total.failed).sum()
    }

    /// A table of all runs: a row for each kind of request, and where there are several, one for all of them before.
    pub(super) fn table(&self) -> String {
        let servers = self.runs.iter().any(|run| !run.cpu.servers.is_empty());
        let mut headings = vec![
            "LOAD",
            "REQUESTS",
            "COUNT",
            "PER S",
            "P50 MS",
            "P90",
            "P99",
            "P99.9",
            "MAX",
            "ABSENT",
            "FAILED",
            "CLIENT µS/REQ",
        ];
        if servers {
            headings.push("SERVERS µS/REQ");
        }
        let mut table = output::table(&headings);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for run in &self.runs {
            let mut label = run.label();
            let single = run.operations.len() == 1;
            let all = (!single).then_some(("all", &run.total));
            let kinds = run.operations.iter().map(|(name, of)| (*name, of));
            for (name, of) in all.into_iter().chain(kinds) {
                let mut row = vec![std::mem::take(&mut label), name.to_owned()];
                row.extend(of.cells());
                if single || name == "all" {
                    row.push(short(run.cpu.client_us_per_request));
                    if servers {
                        row.push(short(run.cpu.servers_us_per_request));
                    }
                }
                table.add_row(row);
            }
        }
        table.trim_fmt()
    }

    /// What the table has no column for, a line each.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for run in &self.runs {
            let label = run.label();
            for failed in &run.total.failures {
                remarks.push(format!(
                    "{label}: {} failed, {}; one of them: {}",
                    failed.count, failed.kind, failed.example
                ));
            }
            if run.total.with_siblings > 0 {
                remarks.push(format!(
                    "{label}: {} gets showed siblings",
                    run.total.with_siblings
                ));
            }
            if let Some(get) = run.operations.get(Kind::Get.name())
                && get.count > 0
                && get.absent == get.count
            {
                remarks.push(format!(
                    "{label}: every get was of an absent key; --preload writes the keys first"
                ));
            }
            if let Paced::Open {
                lateness, dropped, ..
            } = &run.pacing
            {
                if let Some(late) = lateness {
                    remarks.push(format!(
                        "{label}: started after it was due: p50 {} ms, p99 {} ms, at most {} ms; this is part of the latency",
                        millis(late.p50),
                        millis(late.p99),
                        millis(late.max),
                    ));
                }
                if *dropped > 0 {
                    remarks.push(format!(
                        "{label}: {dropped} requests were due and never started, because too many waited: the cluster, or this client, cannot \
                         follow this rate, and the latency is that of the others alone"
                    ));
                }
            }
            let gone = |server: &&Server| server.us_per_request.is_none();
            for server in run.cpu.servers.iter().filter(gone) {
                remarks.push(format!(
                    "{label}: process {} ({}) has ended, so what the servers used is not known",
                    server.pid, server.name
                ));
            }
            if run.cpu.servers.len() > 1 {
                let each = run
                    .cpu
                    .servers
                    .iter()
                    .map(|server| format!("{} {}", server.pid, short(server.us_per_request)));
                let each: Vec<String> = each.collect();
                remarks.push(format!(
                    "{label}: µs of CPU a request, by process: {}",
                    each.join(", ")
                ));
            }
        }
        remarks
    }
}

impl Operations {
    fn cells(&self) -> Vec<String> {
        let latency = |of: fn(&Latency) -> f64| {
            let latency = self.latency_ms.as_ref();
            latency.map_or("-".to_owned(), |latency| millis(of(latency)))
        };
        vec![
            self.count.to_string(),
            format!("{:.0}", self.per_second),
            latency(|l| l.p50),
            latency(|l| l.p90),
            latency(|l| l.p99),
            latency(|l| l.p99_9),
            latency(|l| l.max),
            self.absent.to_string(),
            self.failed.to_string(),
        ]
    }
}

/// Milliseconds with three digits that mean something.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        _ if ms < 10.0 => format!("{ms:.3}"),
        _ if ms < 100.0 => format!("{ms:.2}"),
        _ if ms < 1000.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

fn short(us: Option<f64>) -> String {
    us.map_or("-".to_owned(), |us| format!("{us:.1}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::target::{Success, Trouble};
    use super::*;

    /// A hundred gets of 1 to 100 ms within two seconds, and a put that failed.
    fn recorder() -> Recorder {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut recorder = Recorder::new(None);
        recorder.open(start);
        for ms in 1..=100 {
            recorder.ended(Kind::Get, at(0), at(ms), Ok(Success::default()));
        }
        let trouble = Trouble::new("refused: overloaded", "node-1 refused");
        recorder.ended(Kind::Put, at(0), at(1), Err(trouble));
        recorder.close(at(2000));
        recorder
    }

    fn report(pacing: Paced) -> Report {
        let cpu = Cpu {
            answered: 101,
            client_us_per_request: Some(12.34),
            servers_us_per_request: None,
            servers: vec![Server {
                pid: 7,
                name: "quorate".to_owned(),
                cpu_s: None,
                us_per_request: None,
            }],
        };
        Report {
            quorate: "1",
            machine: Machine {
                cores: 2,
                os: "linux",
                arch: "x",
            },
            settings: Settings {
                protocol: "quic",
                bucket: "b".to_owned(),
                mix: "1:1".parse().unwrap(),
                size_bytes: 1024,
                keys: 10,
                distribution: Distribution::Zipf(0.99),
                overwrite: false,
                preloaded: true,
                quorums: BTreeMap::from([("r", "2".to_owned())]),
                timeout_ms: None,
                warmup_s: 1.0,
                seconds: 2.0,
                requests: None,
                seed: 1,
                pids: vec![7],
            },
            runs: vec![Run::of(
                pacing,
                1,
                &[Kind::Put, Kind::Get],
                &recorder(),
                cpu,
            )],
            stopped: false,
        }
    }

    #[test]
    fn the_report_says_under_what_conditions_what_was_measured() {
        let closed = report(Paced::Closed { in_flight: 64 });
        let json = serde_json::to_value(&closed).unwrap();
        assert_eq!(json["settings"]["mix"]["put"], 1);
        assert_eq!(json["settings"]["quorums"]["r"], "2");
        let run = &json["runs"][0];
        assert_eq!(
            (&run["loop"], &run["in_flight"]),
            (&"closed".into(), &64.into())
        );
        assert_eq!(run["total"]["count"], 100);
        assert_eq!(run["total"]["per_second"], 50.0);
        assert_eq!(run["per_second"], serde_json::json!([100, 0]));
        let get = &run["operations"]["get"];
        let p99 = get["latency_ms"]["p99"].as_f64().unwrap();
        assert!((98.9..99.2).contains(&p99), "{p99}");
        let last = get["latency_ms"]["percentiles"].as_array().unwrap().last();
        assert_eq!(last.unwrap()[2], 100);
        let put = &run["operations"]["put"];
        assert!(put["latency_ms"].is_null());
        assert_eq!(put["failures"][0]["kind"], "refused: overloaded");
        assert_eq!(put["failures"][0]["example"], "node-1 refused");
        assert!(run["operations"]["delete"].is_null());
        assert_eq!(run["cpu"]["client_us_per_request"], 12.34);
    }

    #[test]
    fn the_table_has_a_row_for_all_and_one_for_each_kind() {
        let report = report(Paced::Closed { in_flight: 64 });
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(
            lines[1].starts_with("64 in flight") && lines[1].contains("12.3"),
            "{table}"
        );
        let remarks = report.remarks().join("\n");
        assert!(
            remarks.contains("process 7 (quorate) has ended"),
            "{remarks}"
        );
        assert!(
            remarks.contains("1 failed, refused: overloaded"),
            "{remarks}"
        );
    }

    #[test]
    fn what_was_dropped_is_told() {
        let report = report(Paced::Open {
            rate: 500.0,
            arrivals: Arrivals::Poisson,
            in_flight_max: 10,
            backlog_max: 10,
            lateness: None,
            dropped: 3,
        });
        assert_eq!(report.runs[0].latency_from, "the request was due");
        let remarks = report.remarks().join("\n");
        assert!(
            remarks.contains("3 requests were due and never started"),
            "{remarks}"
        );
        assert!(
            super::super::plot::svg(&report)
                .unwrap()
                .starts_with("<svg")
        );
    }
}
