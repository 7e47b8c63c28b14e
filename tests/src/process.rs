//! A process that ends with the test that started it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

/// Between two looks at a condition: what is waited for takes tenths of a second, and a look costs little.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; says whether it came to hold within `bound`.
pub fn wait_until(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + bound;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A running process with its output in files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its standard output goes to `NAME.out` in `dir`, its standard error is appended to `NAME.log`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command, dir: &Path, name: &str) -> Process {
        let stdout = dir.join(format!("{name}.out"));
        let log = dir.join(format!("{name}.log"));
        let appended = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a file for the output"))
            .stderr(appended)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, stdout, log }
    }

    /// What it has said on standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it, and its predecessors of the same name, have said on standard error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {pid:?}: {error}"));
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Bounds the size of the files that it may write, from now on and for itself alone. A write beyond fails, as on a full disk; and
    /// the process is sent SIGXFSZ, which ends it unless it was started to ignore that.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub fn limit_files(&self, bytes: u64) {
        let limit = Rlimit {
            current: Some(bytes),
            // Its own, which it has from here: to raise that would take a privilege.
            maximum: getrlimit(Resource::Fsize).maximum,
        };
        let pid = Pid::from_child(&self.child);
        prlimit(Some(pid), Resource::Fsize, limit)
            .unwrap_or_else(|error| panic!("a file size limit for {pid:?}: {error}"));
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within `bound`.
    pub fn ended(&mut self, bound: Duration) -> ExitStatus {
        let mut status = None;
        wait_until(bound, || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status
            .unwrap_or_else(|| panic!("it does not end within {bound:?}; it said:\n{}", self.log()))
    }

    /// Ends it with SIGKILL and waits for that.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended(Duration::from_secs(10));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(30)..];
            eprintln!(
                "--- the end of {}:\n{}",
                self.log.display(),
                tail.join("\n")
            );
        }
    }
}
