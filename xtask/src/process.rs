//! Runs other programs so that none outlives this one.
//!
//! Each program gets its own process group: ending it also ends what it has started, and Ctrl-C reaches only this
//! program, which decides the order in which others end.

mod running;
mod tail;
mod tee;

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};
use crate::interrupt;

pub use running::{Running, Stderr};
pub use tee::run_with_tail;

/// The polling interval of waits.
const POLL: Duration = Duration::from_millis(10);

/// The time between asking a program to end and killing it.
const GRACE: Duration = Duration::from_secs(5);

/// The command line as it would be typed.
pub fn line(command: &Command) -> String {
    let environment =
        command.get_envs().filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), quote(value?))));
    let program = std::iter::once(quote(command.get_program()));
    environment.chain(program).chain(command.get_args().map(quote)).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Prints `command`, runs it with our stdout and stderr, and waits for it.
///
/// # Errors
/// If it cannot be started, exits with a code other than 0, or a signal arrives (it is then ended).
pub fn run(name: &str, command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    let status = wait(&mut start(command.stdin(Stdio::null()))?, command)?;
    succeeded(name, command, status, String::new)
}

/// Waits for the end of `child`, or ends it if a signal arrives.
fn wait(child: &mut Child, command: &Command) -> Result<ExitStatus> {
    loop {
        if let Err(error) = interrupt::check() {
            end(child, GRACE);
            return Err(error);
        }
        if let Some(status) = poll(child, command)? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
}

fn succeeded(name: &str, command: &Command, status: ExitStatus, tail: impl FnOnce() -> String) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { name: name.into(), command: line(command), status, tail: tail() })
}

/// Returns the stdout of `command`. For programs that end soon.
///
/// # Errors
/// If it cannot be started, or exits with a code other than 0.
pub fn output(name: &str, command: &mut Command) -> Result<String> {
    let out =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Start { command: line(command), source })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let tail = format_tail(said.lines());
    Err(Error::Failed { name: name.into(), command: line(command), status: out.status, tail })
}

/// Returns whether `command` can be started and exits with 0. Its output is discarded.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn start(command: &mut Command) -> Result<Child> {
    command.process_group(0).spawn().map_err(|source| Error::Start { command: line(command), source })
}

fn poll(child: &mut Child, command: &Command) -> Result<Option<ExitStatus>> {
    child.try_wait().map_err(|source| Error::Io { what: format!("cannot wait for `{}`", line(command)), source })
}

/// Asks the child's group to end, and kills it after `grace`. Returns the child's exit status, if known.
fn end(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    signal_group(child, Signal::TERM);
    let until = Instant::now() + grace;
    let mut status = None;
    while status.is_none() && Instant::now() < until {
        status = child.try_wait().ok().flatten();
        if status.is_none() {
            std::thread::sleep(POLL);
        }
    }
    // Also kill what the child has left in its group.
    signal_group(child, Signal::KILL);
    status.or_else(|| child.wait().ok())
}

fn signal_group(child: &Child, signal: Signal) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The group may be gone already.
        let _ = kill_process_group(group, signal);
    }
}

/// The last lines of a program, for [`Error::Failed`] and others.
pub fn format_tail<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).map(|line| format!("\n    {line}")).collect();
    if lines.is_empty() { String::new() } else { format!("\n  its last lines:{}", lines.concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_shown_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["test", "a b", "it's", ""]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(line(&command), r"RUSTDOCFLAGS='-D warnings' cargo test 'a b' 'it'\''s' ''");
    }

    #[test]
    fn a_failing_program_is_named_with_its_words() {
        let error = output("the probe", Command::new("sh").args(["-c", "echo wrong >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the probe ended with exit status: 3"), "{text}");
        assert!(text.contains("\n    wrong"), "{text}");
        assert!(matches!(run("x", &mut Command::new("false")), Err(Error::Failed { .. })));
        assert!(matches!(run("x", &mut Command::new("/no/such/program")), Err(Error::Start { .. })));
        assert!(!succeeds(&mut Command::new("/no/such/program")));
    }
}
