//! Runs a program whose output is both shown and remembered.

use std::io::{self, IsTerminal, PipeReader, Write};
use std::process::{Command, Stdio};

use super::running::{drain, for_each_line};
use super::tail::Tail;
use super::{line, start, succeeded, wait};
use crate::error::{Error, Result};

/// The number of last lines to keep.
const LINES: usize = 20;

/// The maximum number of characters of a line that is kept.
const WIDTH: usize = 240;

/// Like [`super::run`], but an error contains the last lines of the program, for those who see no more of a long log
/// than its end. On a terminal, programs draw as usual, and nothing is kept.
///
/// # Errors
/// As [`super::run`].
pub fn run_with_tail(name: &str, command: &mut Command) -> Result<()> {
    if io::stdout().is_terminal() { super::run(name, command) } else { tee(name, command) }
}

fn tee(name: &str, command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    let failed = |source| Error::Io { what: "cannot make a pipe".into(), source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let second = writer.try_clone().map_err(failed)?;
    let mut child = start(command.stdin(Stdio::null()).stdout(writer).stderr(second))?;
    // The command would keep the pipe open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let tail = Tail::new(LINES);
    let copy = {
        let tail = tail.clone();
        std::thread::spawn(move || show(reader, &tail))
    };
    let status = wait(&mut child, command)?;
    drain(&copy);
    succeeded(name, command, status, || tail.text())
}

fn show(pipe: PipeReader, tail: &Tail) {
    for_each_line(pipe, |line| {
        // A closed stdout must not stop the pipe from being read.
        let _ = writeln!(io::stdout(), "{line}");
        if !line.trim().is_empty() {
            tail.push(line.chars().take(WIDTH).collect());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_contains_the_last_lines_of_both_streams() {
        let script = "for i in $(seq 30); do echo line $i; done; echo '' >&2; echo wrong >&2; exit 3";
        let text = tee("the step", Command::new("sh").args(["-c", script])).unwrap_err().to_string();
        assert!(text.contains("the step ended with exit status: 3"), "{text}");
        assert!(text.contains("\n    line 30") && text.ends_with("\n    wrong"), "{text}");
        assert!(text.contains("\n    line 12\n") && !text.contains("line 11\n"), "{text}");
        let long = tee("x", Command::new("sh").args(["-c", "printf 'x%.0s' $(seq 1000); false"])).unwrap_err();
        assert!(long.to_string().ends_with(&format!("\n    {}", "x".repeat(WIDTH))), "{long}");
    }

    #[test]
    fn a_program_that_leaves_another_behind_does_not_hold_us_up() {
        tee("x", Command::new("sh").args(["-c", "sleep 30 & true"])).unwrap();
    }
}
