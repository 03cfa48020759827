//! A program that runs in parallel.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::tail::Tail;
use super::{GRACE, POLL, end, line, start};
use crate::error::{Error, Result};
use crate::interrupt;

/// The number of last lines of stderr to keep.
const TAIL_LINES: usize = 15;

/// How long the pipes of an ended program may stay open because something it started holds them.
const DRAIN: Duration = Duration::from_secs(2);

/// The handling of a program's stderr.
#[derive(Debug)]
pub enum Stderr {
    /// Shared with ours, for programs that draw on the terminal.
    Inherit,
    /// Printed, and the last lines kept.
    Show,
    /// Written to a file, and the last lines kept.
    Log(File),
}

/// A program that runs in parallel. Dropping it ends it and everything in its process group.
#[derive(Debug)]
pub struct Running {
    name: String,
    command: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<()>>,
    tail: Tail,
}

impl Running {
    /// Starts `command`. `name` is its purpose in messages, such as `the server`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: Command, stderr: Stderr) -> Result<Self> {
        println!("$ {}", line(&command));
        Self::start_silently(name, command, stderr)
    }

    /// [`Running::start`] without showing the command line, for those that are longer than a screen.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_silently(name: &str, mut command: Command, stderr: Stderr) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if matches!(stderr, Stderr::Inherit) { Stdio::inherit() } else { Stdio::piped() });
        let mut child = start(&mut command)?;
        let (sender, stdout) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            // Ends with the pipe; the receiver may be dropped earlier.
            std::thread::spawn(move || for_each_line(pipe, |line| drop(sender.send(line.to_owned()))));
        }
        let tail = Tail::new(TAIL_LINES);
        let stderr = child.stderr.take().map(|pipe| {
            let tail = tail.clone();
            std::thread::spawn(move || copy_stderr(pipe, stderr, &tail))
        });
        Ok(Self { name: name.into(), command: line(&command), child, ended: None, stdout, stderr, tail })
    }

    /// Waits until the program writes a line on stdout that starts with `prefix`.
    ///
    /// # Errors
    /// If it ends first, does not do so within `limit`, or a signal arrives.
    pub fn wait_for_line(&mut self, prefix: &str, limit: Duration) -> Result<String> {
        let until = Instant::now() + limit;
        loop {
            interrupt::check()?;
            match self.stdout.recv_timeout(POLL) {
                Ok(line) if line.starts_with(prefix) => return Ok(line),
                Ok(_) => continue,
                Err(RecvTimeoutError::Timeout) => {}
                // stdout may close before the program ends, or without its ending.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
            }
            self.must_run()?;
            if Instant::now() >= until {
                return Err(self.timeout(&format!("say `{prefix}`"), limit));
            }
        }
    }

    /// Checks that the program is still running.
    ///
    /// # Errors
    /// If [`Error::EndedEarly`] if it has ended, with whatever status.
    pub fn must_run(&mut self) -> Result<()> {
        match self.poll()? {
            None => Ok(()),
            Some(status) => {
                let tail = self.tail();
                Err(Error::EndedEarly { name: self.name.clone(), command: self.command.clone(), status, tail })
            }
        }
    }

    /// Waits for the program to end and returns its stdout. `beside` must keep running meanwhile.
    ///
    /// # Errors
    /// If it exits with a code other than 0, takes longer than `limit`, `beside` ends, or a signal arrives.
    pub fn finish(mut self, mut beside: Option<&mut Self>, limit: Duration) -> Result<Vec<String>> {
        let until = Instant::now() + limit;
        let mut lines = Vec::new();
        let status = loop {
            interrupt::check()?;
            lines.extend(self.stdout.try_iter());
            if let Some(status) = self.poll()? {
                break status;
            }
            if let Some(beside) = &mut beside {
                beside.must_run()?;
            }
            if Instant::now() >= until {
                return Err(self.timeout("finish", limit));
            }
            std::thread::sleep(POLL);
        };
        if status.success() {
            self.drain(&mut lines);
            return Ok(lines);
        }
        if let Some(beside) = &mut beside {
            // If both fail, the one that the other depends on is the cause.
            std::thread::sleep(10 * POLL);
            beside.must_run()?;
        }
        Err(self.failed(status))
    }

    /// Asks the program to end and waits for it.
    ///
    /// # Errors
    /// If it had already ended, or does not end in time with code 0.
    pub fn stop(mut self) -> Result<()> {
        self.must_run()?;
        match self.end() {
            Some(status) if !status.success() => Err(self.failed(status)),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, status: ExitStatus) -> Error {
        let tail = self.tail();
        Error::Failed { name: self.name.clone(), command: self.command.clone(), status, tail }
    }

    fn timeout(&mut self, what: &str, limit: Duration) -> Error {
        self.end();
        let tail = self.tail();
        Error::Timeout { name: self.name.clone(), what: what.into(), command: self.command.clone(), limit, tail }
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let what = || format!("cannot wait for `{}`", self.command);
            self.ended = self.child.try_wait().map_err(|source| Error::Io { what: what(), source })?;
        }
        Ok(self.ended)
    }

    /// Ends the program if it still runs, and everything else in its group.
    fn end(&mut self) -> Option<ExitStatus> {
        let status = end(&mut self.child, if self.ended.is_some() { Duration::ZERO } else { GRACE });
        self.ended = self.ended.or(status);
        self.ended
    }

    /// Reads the rest of stdout after the program's end.
    fn drain(&self, lines: &mut Vec<String>) {
        let until = Instant::now() + DRAIN;
        while let Ok(line) = self.stdout.recv_timeout(until.saturating_duration_since(Instant::now())) {
            lines.push(line);
        }
    }

    fn tail(&mut self) -> String {
        if let Some(reader) = self.stderr.take() {
            drain(&reader);
        }
        self.tail.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn copy_stderr(pipe: impl Read, mut to: Stderr, tail: &Tail) {
    for_each_line(pipe, |line| {
        // A full disk or a closed stderr must not stop the program's pipe from being read.
        let _ = match &mut to {
            Stderr::Inherit => Ok(()),
            Stderr::Show => writeln!(io::stderr(), "{line}"),
            Stderr::Log(file) => writeln!(file, "{line}"),
        };
        tail.push(line.to_owned());
    });
}

/// Waits until `reader` has come to the end of its pipe, or for [`DRAIN`].
pub(super) fn drain(reader: &JoinHandle<()>) {
    let until = Instant::now() + DRAIN;
    while !reader.is_finished() && Instant::now() < until {
        std::thread::sleep(POLL);
    }
}

pub(super) fn for_each_line(pipe: impl Read, mut each: impl FnMut(&str)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        each(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start("the child", command, Stderr::Show).unwrap()
    }

    fn exists(pid: &str) -> bool {
        // A zombie that has not been reaped yet counts as gone.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn lines_are_waited_for_and_collected() {
        let mut child = shell("echo starting; echo 'ready: 1'; echo a; echo b");
        assert_eq!(child.wait_for_line("ready", LONG).unwrap(), "ready: 1");
        assert_eq!(child.finish(None, LONG).unwrap(), ["a", "b"]);
    }

    #[test]
    fn an_early_end_is_told_with_the_last_words() {
        let error = shell("echo no port >&2; exit 7").wait_for_line("ready", LONG).unwrap_err().to_string();
        assert!(error.starts_with("the child ended early with exit status: 7"), "{error}");
        assert!(error.ends_with("no port"), "{error}");
        let error = shell("seq 100 >&2; exit 1").finish(None, LONG).unwrap_err().to_string();
        assert!(error.contains("\n    86\n") && !error.contains("\n    85\n"), "{error}");
    }

    #[test]
    fn what_ends_beside_is_the_cause() {
        let mut beside = shell("exit 0");
        let error = shell("exec sleep 60").finish(Some(&mut beside), LONG).unwrap_err();
        assert!(matches!(error, Error::EndedEarly { .. }), "{error}");
    }

    #[test]
    fn too_slow_is_ended_and_told() {
        let error = shell("exec sleep 60").finish(None, Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[test]
    fn stopping_wants_a_clean_end() {
        let mut clean = shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done");
        clean.wait_for_line("up", LONG).unwrap();
        clean.stop().unwrap();
        let mut rude = shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done");
        rude.wait_for_line("up", LONG).unwrap();
        assert!(matches!(rude.stop(), Err(Error::Failed { .. })));
    }

    #[test]
    fn dropping_ends_grandchildren_too() {
        let mut child = shell("sleep 600 & echo pid $!; trap '' TERM; exit 0");
        let pid = child.wait_for_line("pid ", LONG).unwrap()[4..].to_owned();
        drop(child);
        let gone = (0..1000).any(|_| {
            std::thread::sleep(POLL);
            !exists(&pid)
        });
        assert!(gone, "process {pid} outlived its group");
    }
}
