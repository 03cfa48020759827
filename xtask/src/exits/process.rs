//! A process whose end is timed, and whose threads are examined if it does not end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};
use crate::interrupt;

/// The time limit for an end: ample even with three threads per CPU.
const HUNG: Duration = Duration::from_secs(20);

/// The time limit for a command to start, or to finish its work.
const WORK: Duration = Duration::from_secs(120);

/// The polling interval of waits.
const POLL: Duration = Duration::from_millis(2);

/// How a process ended.
pub struct End {
    /// The time from the signal, or from the start, to the end.
    pub took: Duration,
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard error.
    pub said: String,
}

/// A process that is killed when this is dropped.
pub struct Watched {
    name: String,
    child: Child,
    started: Instant,
    lines: Receiver<String>,
    said: Arc<Mutex<String>>,
}

impl Watched {
    /// Starts `command`.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child =
            command.spawn().map_err(|source| Error::Start { command: crate::process::line(&command), source })?;
        let (sender, lines) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(std::result::Result::ok) {
                    // The receiver may be gone.
                    let _ = sender.send(line);
                }
            });
        }
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(mut pipe) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                let mut buf = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut buf) {
                    said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&buf[..n]));
                }
            });
        }
        Ok(Self { name: name.into(), child, started, lines, said })
    }

    /// Waits for its `ready` line.
    pub fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + WORK;
        while Instant::now() < until {
            interrupt::check()?;
            match self.lines.recv_timeout(POLL) {
                Ok(line) if line.starts_with("ready") => return Ok(()),
                Ok(_) => {}
                Err(_) => {
                    if let Some(end) = self.poll(self.started)? {
                        return Err(Error::Unmet(format!("{} ended before it was ready:\n{}", self.name, end.said)));
                    }
                }
            }
        }
        Err(self.hung("was not ready"))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<End> {
        self.end(self.started, WORK)
    }

    /// Sends SIGTERM, and waits until it ends.
    pub fn terminate(&mut self) -> Result<End> {
        let start = Instant::now();
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        self.end(start, HUNG)
    }

    fn end(&mut self, start: Instant, limit: Duration) -> Result<End> {
        let until = Instant::now() + limit;
        loop {
            interrupt::check()?;
            if let Some(end) = self.poll(start)? {
                return Ok(end);
            }
            if Instant::now() >= until {
                return Err(self.hung("did not end"));
            }
            std::thread::sleep(POLL);
        }
    }

    fn poll(&mut self, start: Instant) -> Result<Option<End>> {
        let what = || format!("cannot wait for {}", self.name);
        let status = self.child.try_wait().map_err(|source| Error::Io { what: what(), source })?;
        Ok(status.map(|status| End {
            took: start.elapsed(),
            code: status.code(),
            signal: status.signal(),
            said: self.said.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }))
    }

    /// Describes what its threads are waiting for.
    fn hung(&self, what: &str) -> Error {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        Error::Unmet(format!(
            "{} {what} in time; its threads:\n{}its output:\n{said}",
            self.name,
            threads(self.child.id())
        ))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name, state and kernel function of every thread of a process.
fn threads(pid: u32) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = read("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or_default();
        let (name, place) = (read("comm"), read("wchan"));
        text.push_str(&format!("  {:<18}{:<16}{place}\n", name.trim_end(), state.trim()));
        for line in read("stack").lines().take(6) {
            text.push_str(&format!("      {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Watched {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Watched::start("a shell", command).unwrap()
    }

    #[test]
    fn ends_are_seen_as_they_are() {
        let mut process = shell("echo ready; sleep 100 & wait");
        process.wait_ready().unwrap();
        let end = process.terminate().unwrap();
        assert_eq!((end.code, end.signal), (None, Some(15)));
        let end = shell("echo words >&2; exit 3").wait().unwrap();
        assert_eq!((end.code, end.signal), (Some(3), None));
        let early = shell("echo no port >&2; sleep 0.2; exit 7").wait_ready().unwrap_err().to_string();
        assert!(early.contains("ended before it was ready") && early.contains("no port"), "{early}");
    }

    #[test]
    fn threads_tell_what_they_wait_for() {
        let said = threads(std::process::id());
        assert!(said.lines().any(|line| line.contains("running")), "{said}");
        assert_eq!(threads(u32::MAX), "");
    }
}
