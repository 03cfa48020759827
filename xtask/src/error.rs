//! Everything that can go wrong, said in words that name the thing and the remedy.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a command of xtask did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, directory or pipe could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with something other than success.
    #[error("{name} ended with {status}: `{command}`{tail}")]
    Failed {
        /// What the program was there for.
        name: String,
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines, already formatted, or nothing.
        tail: String,
    },
    /// A program that has to run on ended by itself.
    #[error("{name} ended early with {status}: `{command}`{tail}")]
    EndedEarly {
        /// What the program was there for.
        name: String,
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines, already formatted, or nothing.
        tail: String,
    },
    /// A program did not get to some point in time, and was ended.
    #[error("{name} did not {what} within {} s and was ended: `{command}`{tail}", limit.as_secs())]
    Timeout {
        /// What the program was there for.
        name: String,
        /// What it was waited for to do.
        what: String,
        /// The command line.
        command: String,
        /// How long it had.
        limit: Duration,
        /// Its last lines, already formatted, or nothing.
        tail: String,
    },
    /// SIGINT, SIGTERM or SIGHUP came.
    #[error("stopped by signal {0}; everything that was started is ended and removed")]
    Interrupted(i32),
    /// Something needed is missing or wrong; the text says what, why and what to do.
    #[error("{0}")]
    Unmet(String),
}

impl Error {
    /// An [`Error::Io`] about `path`.
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

/// Results of this program.
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
