//! Errors, with messages that name the cause and the remedy.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// The reason why a command of xtask failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, directory or pipe could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// The system's error.
        source: io::Error,
    },
    /// A program failed.
    #[error("{name} ended with {status}: `{command}`{tail}")]
    Failed {
        /// The program's purpose.
        name: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its last lines, formatted; may be empty.
        tail: String,
    },
    /// A program that should keep running ended by itself.
    #[error("{name} ended early with {status}: `{command}`{tail}")]
    EndedEarly {
        /// The program's purpose.
        name: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its last lines, formatted; may be empty.
        tail: String,
    },
    /// A program did not reach some point in time, and was stopped.
    #[error("{name} did not {what} within {} s and was ended: `{command}`{tail}", limit.as_secs())]
    Timeout {
        /// The program's purpose.
        name: String,
        /// The expected action.
        what: String,
        /// The command line.
        command: String,
        /// The time limit.
        limit: Duration,
        /// Its last lines, formatted; may be empty.
        tail: String,
    },
    /// SIGINT, SIGTERM or SIGHUP was received.
    #[error("stopped by signal {0}; all processes were ended and temporary files removed")]
    Interrupted(i32),
    /// A requirement is not met; the text says what, why and what to do.
    #[error("{0}")]
    Unmet(String),
}

impl Error {
    /// Makes an [`Error::Io`] about `path`.
    pub fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("cannot {verb} {}", path.display());
        move |source| Self::Io { what, source }
    }

    /// The exit code that xtask ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
            _ => 1,
        }
    }
}

/// The result type of this program.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_becomes_the_shells_exit_code() {
        assert_eq!(Error::Interrupted(2).exit_code(), 130);
        assert_eq!(Error::Unmet(String::new()).exit_code(), 1);
    }

    #[test]
    fn a_path_error_names_the_path() {
        let error = Error::path("read", Path::new("/no/such"))(io::Error::from(io::ErrorKind::NotFound));
        assert!(error.to_string().starts_with("cannot read /no/such: "), "{error}");
    }
}
