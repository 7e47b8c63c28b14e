//! Why a command did not succeed, and the exit code that says so.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// What a command ends with when it does not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Refused, failed, or of unknown outcome. Exit code 1.
    Failed(String),
    /// Understood by the parser of the command line and still senseless. Exit code 2, as the parser's own.
    Usage(String),
    /// What was asked for is not there. Exit code 3.
    NotFound(String),
    /// As [`Failure::Failed`], where the result has said it all.
    Told,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(what) | Failure::Usage(what) | Failure::NotFound(what) => {
                f.write_str(what)
            }
            Failure::Told => Ok(()),
        }
    }
}

impl Failure {
    /// A failure in words.
    pub(crate) fn new(what: impl fmt::Display) -> Failure {
        Failure::Failed(what.to_string())
    }

    /// A failure of something the operating system was asked for: `doing` says what, as in "read the file".
    pub(crate) fn io(doing: impl fmt::Display, error: &std::io::Error) -> Failure {
        Failure::Failed(format!("cannot {doing}: {error}"))
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Failed(_) | Failure::Told => 1,
            Failure::Usage(_) => 2,
            Failure::NotFound(_) => 3,
        })
    }

    /// Says it on standard error. If nobody listens there, the exit code has to do.
    pub(crate) fn report(&self) {
        let mut stderr = std::io::stderr().lock();
        let _ = match self {
            Failure::Failed(what) | Failure::Usage(what) => writeln!(stderr, "error: {what}"),
            Failure::NotFound(what) => writeln!(stderr, "{what}"),
            Failure::Told => Ok(()),
        };
    }
}
