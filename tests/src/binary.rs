//! The `quorate` binary under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The binary beside the tests. `cargo test --workspace`, or `cargo test -p quorate-cli -p quorate-tests`, builds both from the same
/// sources; built here is only what is missing, so whoever runs the tests of this package alone tests the binary of the build before.
///
/// # Panics
/// If it does not build.
pub fn quorate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/debug/deps/name-hash
        let test = std::env::current_exe().expect("a test is a file");
        let profile = test
            .ancestors()
            .nth(2)
            .expect("a test lies in its profile's directory");
        let binary = profile.join("quorate");
        if !binary.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--locked", "-p", "quorate-cli", "--target-dir"]);
            build.arg(
                profile
                    .parent()
                    .expect("a profile's directory lies in the target directory"),
            );
            if profile.ends_with("release") {
                build.arg("--release");
            }
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(
                build.status().expect("cargo runs").success(),
                "the binary does not build"
            );
        }
        binary
    })
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it said on standard output.
    pub stdout: Vec<u8>,
    /// What it said on standard error.
    pub stderr: String,
}

impl Done {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is text")
    }

    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The same, if the exit code is this one.
    ///
    /// # Panics
    /// If it is another.
    #[must_use]
    pub fn expect(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// Runs a command to its end, with an empty standard input unless it was given one.
///
/// # Panics
/// If it cannot be started.
pub fn run(command: &mut Command) -> Done {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Done {
        code: status.code(),
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
