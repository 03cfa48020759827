//! Child processes that are killed with the test, with their output at hand when something fails.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long the pipes may stay open once the process is gone.
const PIPES_LINGER: Duration = Duration::from_secs(5);

/// A running child.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// What a child said.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// Pipes at their end.
    ended: u8,
}

/// A child that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What the test calls it.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Lines it printed on stdout.
    pub stdout: Vec<String>,
    /// Lines it printed on stderr.
    pub stderr: Vec<String>,
}

impl Proc {
    /// Starts `command` with both outputs captured.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, command: Command) -> Self {
        Self::spawn_with(name, command, Stdio::piped())
    }

    /// The same with something else as its stderr, which is not captured then.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_with(name: &str, mut command: Command, stderr: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} ({command:?}): {e}"));
        let output = Arc::new(Output::default());
        if let Some(pipe) = child.stdout.take() {
            collect(pipe, Arc::clone(&output), |l| &mut l.stdout);
        }
        if let Some(pipe) = child.stderr.take() {
            collect(pipe, Arc::clone(&output), |l| &mut l.stderr);
        } else {
            output.lines.lock().expect("nobody has panicked").ended += 1;
        }
        Self { name: name.to_owned(), child, output }
    }

    /// Waits until the child has printed a line on stdout that starts with `prefix`, and returns the line.
    ///
    /// # Panics
    /// When the child ends, or [`PATIENCE`] does, before that.
    pub fn wait_line(&self, prefix: &str) -> String {
        let found = |l: &Lines| l.stdout.iter().find(|line| line.starts_with(prefix)).cloned();
        let lines = self.output.wait(PATIENCE, |l| found(l).is_some() || l.ended == 2);
        found(&lines).unwrap_or_else(|| panic!("{} has not printed a line starting with {prefix:?}", self.name))
    }

    /// The same, but only as long as `other` lives: without it the line will never come.
    ///
    /// # Panics
    /// When either child ends, or [`PATIENCE`] does, before that.
    pub fn wait_line_beside(&self, prefix: &str, other: &Self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.lines(prefix).is_empty() {
            assert!(!other.has_ended(), "{} has ended before {} printed {prefix:?}", other.name, self.name);
            assert!(!self.has_ended() && Instant::now() < deadline, "{} has not printed {prefix:?}", self.name);
            thread::sleep(Duration::from_millis(5));
        }
        self.wait_line(prefix)
    }

    /// Whether both of the child's pipes are at their end.
    fn has_ended(&self) -> bool {
        self.output.lines.lock().expect("a reader panicked").ended == 2
    }

    /// Waits until `done`, which is `what` in messages.
    ///
    /// # Panics
    /// When the child ends, or [`PATIENCE`] does, before that.
    pub fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(!self.has_ended() && Instant::now() < deadline, "{}: {what} did not happen", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the child has printed a line on stderr that contains `part`.
    ///
    /// # Panics
    /// When the child ends, or [`PATIENCE`] does, before that.
    pub fn wait_stderr(&self, part: &str) {
        let found = |l: &Lines| l.stderr.iter().any(|line| line.contains(part));
        let lines = self.output.wait(PATIENCE, |l| found(l) || l.ended == 2);
        assert!(found(&lines), "{} has not printed {part:?} on stderr", self.name);
    }

    /// Lines on stdout, so far, that start with `prefix`.
    pub fn lines(&self, prefix: &str) -> Vec<String> {
        let lines = self.output.lines.lock().expect("a reader panicked");
        lines.stdout.iter().filter(|l| l.starts_with(prefix)).cloned().collect()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        kill(&self.child.id().to_string(), signal);
    }

    /// The number of its threads with this name.
    pub fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|comm| comm.trim_end() == name).count()
    }

    /// Waits for the child to end.
    ///
    /// # Panics
    /// When it has not ended within [`PATIENCE`].
    pub fn wait(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                other => panic!("{} does not end: {other:?}", self.name),
            }
        };
        // A grandchild might hold the pipes open: then what has arrived must do.
        let lines = self.output.wait(PIPES_LINGER, |l| l.ended == 2);
        let (stdout, stderr) = (lines.stdout.clone(), lines.stderr.clone());
        drop(lines);
        Finished { name: self.name.clone(), status, stdout, stderr }
    }

    /// Sends a signal and waits for the child to end.
    pub fn stop(self, signal: &str) -> Finished {
        self.signal(signal);
        self.wait()
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.output.wait(PIPES_LINGER, |l| l.ended == 2);
            eprintln!("{}", transcript(&self.name, &lines.stdout, &lines.stderr));
        }
    }
}

impl Output {
    /// Waits until `done` or until the time is up.
    fn wait(&self, limit: Duration, done: impl Fn(&Lines) -> bool) -> std::sync::MutexGuard<'_, Lines> {
        let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(lines, limit, |l| !done(l));
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }
}

impl Finished {
    /// Returns it when the exit code was 0.
    ///
    /// # Panics
    /// Otherwise, with everything it printed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.status.success(), "{}: {}\n{}", self.name, self.status, self.transcript());
        self
    }

    /// Returns it when it ended by itself with an exit code other than 0. Death by a signal, Rust's exit code for
    /// panics, and complaints about the command line are no orderly failures.
    ///
    /// # Panics
    /// Otherwise, with everything it printed.
    #[track_caller]
    pub fn expect_failure(self) -> Self {
        let usage = self.stderr.iter().any(|l| l.to_lowercase().starts_with("usage:"));
        let orderly = matches!(self.status.code(), Some(code) if code != 0 && code != 101) && !usage;
        assert!(orderly, "{}: {}, wanted an orderly failure\n{}", self.name, self.status, self.transcript());
        self
    }

    /// Asserts that its messages on stderr contain one of `words`, in whatever case.
    #[track_caller]
    pub fn expect_message(&self, words: &[&str]) {
        let text = self.stderr.join("\n").to_lowercase();
        let named = words.iter().any(|w| text.contains(&w.to_lowercase()));
        assert!(named, "{} names none of {words:?}\n{}", self.name, self.transcript());
    }

    /// Lines on stdout that start with `prefix`.
    pub fn lines(&self, prefix: &str) -> Vec<&str> {
        self.stdout.iter().map(String::as_str).filter(|l| l.starts_with(prefix)).collect()
    }

    /// Everything it printed, for a message.
    pub fn transcript(&self) -> String {
        transcript(&self.name, &self.stdout, &self.stderr)
    }
}

/// Sends a signal, such as `TERM`, to a process. It may be gone already.
pub fn kill(pid: &str, signal: &str) {
    let script = format!("kill -{signal} {pid}");
    let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
}

/// Moves the lines of `pipe` into `output` until it ends.
fn collect(pipe: impl Read + Send + 'static, output: Arc<Output>, of: fn(&mut Lines) -> &mut Vec<String>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            of(&mut output.lines.lock().expect("a reader panicked")).push(text);
            output.changed.notify_all();
        }
        output.lines.lock().expect("a reader panicked").ended += 1;
        output.changed.notify_all();
    });
}

fn transcript(name: &str, stdout: &[String], stderr: &[String]) -> String {
    format!("--- {name}: stdout\n{}\n--- {name}: stderr\n{}\n---", stdout.join("\n"), stderr.join("\n"))
}
