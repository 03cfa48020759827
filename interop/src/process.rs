//! Processes that write into log files, and do not outlive this one.
//!
//! Each has a process group of its own, which is killed when the [`Process`] is dropped. If this program is killed, the
//! kernel kills them (`setpriv --pdeathsig`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{About, Result};
use crate::interrupt;

/// The polling interval of waits.
const POLL: Duration = Duration::from_millis(5);

/// Number of lines of a program's last words.
const TAIL: usize = 30;

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, whose output goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(log).about(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().about(|| format!("cannot start {name} ({command:?})"))?;
        Ok(Self { name: name.into(), child, log: log.into(), ended: None })
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until a line of its output starts with `prefix`.
    ///
    /// # Errors
    /// If it ends first, `limit` expires, or a signal arrives.
    pub fn wait_line(&mut self, prefix: &str, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            interrupt::check()?;
            let ended = self.poll()?.is_some();
            if self.output().lines().any(|line| line.starts_with(prefix)) {
                return Ok(());
            }
            if ended || Instant::now() >= until {
                let how = self.ended.map_or("has not printed it in time".into(), |s| format!("has ended: {s}"));
                return Err(format!("{} has not printed '{prefix}': it {how}", self.name).into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end. `None` if `limit` expires first.
    ///
    /// # Errors
    /// If a signal arrives.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let until = Instant::now() + limit;
        loop {
            interrupt::check()?;
            if let Some(status) = self.poll()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The group may be gone already.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks it to end, and waits. `None` if it does not within `limit`; it is killed then.
    ///
    /// # Errors
    /// If a signal arrives.
    pub fn stop(mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.signal(Signal::TERM);
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process is not reaped before, so that its number is not used by another.
        if self.ended.is_none() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs a tool to its end and returns its output.
///
/// # Errors
/// As [`output`].
pub fn tool<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    output(Command::new(program).args(args))
}

/// Runs a program to its end and returns its output.
///
/// # Errors
/// If it fails; the text has its last words.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().about(|| format!("cannot run {command:?}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<_> = words.trim().lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Err(format!("{command:?}: {}: {tail}", out.status).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        let mut process = Process::start("a shell", command, &log).unwrap();
        process.wait_line("", Duration::from_secs(10)).unwrap();
        let child = process.output().trim().to_owned();
        let stat = PathBuf::from(format!("/proc/{child}/stat"));
        assert!(stat.exists());
        drop(process);
        let gone = || fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "));
        let until = Instant::now() + Duration::from_secs(10);
        while !gone() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        assert!(gone(), "{child} still runs");
    }

    #[test]
    fn ends_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut process = Process::start("false", Command::new("false"), &log).unwrap();
        assert!(process.wait_line("ready", Duration::from_secs(10)).unwrap_err().to_string().contains("has ended"));
        assert!(!process.wait(Duration::from_secs(10)).unwrap().unwrap().success());
        assert!(tool("sh", ["-c", "echo no >&2; exit 3"]).unwrap_err().to_string().contains("no"));
    }
}
