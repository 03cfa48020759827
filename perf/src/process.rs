//! Programs that run beside us, and end with us.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::Failure;

/// How long a server may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// How long a program may take to end when asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A running program. It is stopped when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    stdout: Receiver<String>,
}

impl Running {
    /// Starts `command`; its stderr goes to a file in `dir`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self, Failure> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child =
            command.spawn().map_err(|e| format!("cannot start {}: {e}", command.get_program().to_string_lossy()))?;
        let (sender, stdout) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { name: name.into(), child, log, stdout })
    }

    /// Starts a server, and waits for a line that starts with `ready`; returns the rest of that line.
    ///
    /// # Errors
    /// If there is no such line.
    pub fn start_server(name: &str, command: Command, dir: &Path) -> Result<(Self, String), Failure> {
        let server = Self::start(name, command, dir)?;
        let until = Instant::now() + READY;
        loop {
            match server.stdout.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix("ready") {
                        let rest = rest.trim_start_matches([':', ' ']).to_owned();
                        return Ok((server, rest));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err(server.error("was not ready in time")),
                Err(RecvTimeoutError::Disconnected) => return Err(server.error("ended before it was ready")),
            }
        }
    }

    /// Waits for the program to exit, for at most `limit`; returns its output.
    ///
    /// # Errors
    /// If it takes longer, or exits with a code other than 0.
    pub fn finish(mut self, limit: Duration) -> Result<Vec<String>, Failure> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    return Err(self.error(&format!("ended with {status}")));
                }
                // The pipe closes with the program.
                return Ok(self.stdout.iter().collect());
            }
            if Instant::now() >= until {
                return Err(self.error(&format!("did not end within {} s", limit.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn error(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(6).collect();
        let tail: String = lines.iter().rev().map(|line| format!("\n    {line}")).collect();
        format!("{} {what}; see {}{tail}", self.name, self.log.display()).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Try an orderly shutdown first, so that nothing of the program's is left.
        let script = format!("kill {}", self.child.id());
        let asked = Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success());
        let until = Instant::now() + if asked { GRACE } else { Duration::ZERO };
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that runs `program`, inside a network namespace if one is named.
pub fn command(program: &Path, namespace: Option<&str>) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// A number from a program's output, in the form `NAME: VALUE`.
///
/// # Errors
/// If it is missing.
pub fn value(lines: &[String], name: &str) -> Result<f64, Failure> {
    let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    found.ok_or_else(|| format!("the program did not print {name}; its output: {lines:?}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn values_are_read_and_failures_told() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Running::start("one", shell("echo gbps: 12.5; echo other: x"), dir.path()).unwrap();
        let lines = lines.finish(GRACE).unwrap();
        assert_eq!(value(&lines, "gbps").unwrap(), 12.5);
        assert!(value(&lines, "other").is_err() && value(&lines, "gb").is_err());
        let failed = Running::start("two", shell("echo no luck >&2; exit 3"), dir.path()).unwrap();
        let error = failed.finish(GRACE).unwrap_err().to_string();
        assert!(error.contains("two ended with exit status: 3") && error.contains("no luck"), "{error}");
    }

    #[test]
    fn servers_get_ready_and_end_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let command = shell("echo hello; echo ready: 127.0.0.1:7; exec sleep 100");
        let (server, address) = Running::start_server("server", command, dir.path()).unwrap();
        assert_eq!(address, "127.0.0.1:7");
        let pid = server.child.id();
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(Running::start_server("early", shell("exit 0"), dir.path()).is_err());
    }
}
