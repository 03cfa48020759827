//! SIGHUP, which has two meanings: the terminal is gone, or the operator wants files to be read again.

use std::fs::{self, File};
use std::io;
use std::sync::{Mutex, PoisonError};

use signal_hook::consts::SIGHUP;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// Receives SIGHUP.
pub struct HangUps {
    signals: Mutex<SignalsInfo<WithOrigin>>,
    origin: Descent,
}

/// What SIGHUP meant since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Files are to be read again.
    pub reload: bool,
    /// The process is to end, as its terminal is gone.
    pub hung_up: bool,
}

/// How the process was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Descent {
    /// SIGHUP was ignored, as `nohup` does: the process is to outlive its terminal.
    ignored: bool,
    /// The leader of the session, usually the shell; `None` if it is not known.
    leader: Option<i32>,
}

impl HangUps {
    /// From now on, SIGHUP does not end the process by itself.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> io::Result<Self> {
        // Taking the signal ends its being ignored.
        let origin = Descent::of_process();
        Ok(Self { signals: Mutex::new(SignalsInfo::new([SIGHUP])?), origin })
    }

    /// What has been asked for since the last call.
    pub fn look(&self) -> Asked {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.pending().fold(Asked::default(), |asked, Origin { cause, process, .. }| {
            let now = self.origin.meaning(cause, process.map(|process| process.pid), has_terminal);
            Asked { reload: asked.reload || now.reload, hung_up: asked.hung_up || now.hung_up }
        })
    }
}

impl Descent {
    fn of_process() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Self { ignored: ignores_hang_ups(&read("status")), leader: leader(&read("stat")) }
    }

    /// What a signal means that was sent by a process, or by the kernel.
    ///
    /// The kernel sends it when the terminal is gone, to the leader and the foreground processes of the session. A shell
    /// then sends it to its other jobs, but also when the user tells it to: so it counts whether there is a terminal.
    fn meaning(self, cause: Cause, sender: Option<i32>, has_terminal: impl Fn() -> bool) -> Asked {
        let by_kernel = cause == Cause::Kernel;
        let by_shell = sender.is_some() && sender == self.leader && !has_terminal();
        Asked { reload: !by_kernel && !by_shell, hung_up: (by_kernel || by_shell) && !self.ignored }
    }
}

/// Whether the session has a terminal. It can no longer be opened when it has gone.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether SIGHUP is ignored according to `/proc/PID/status`.
fn ignores_hang_ups(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

/// The leader of the session according to `/proc/PID/stat`.
fn leader(stat: &str) -> Option<i32> {
    // The command's name, in parentheses, may contain anything. Its successors are: state, parent, group, session.
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::siginfo::Sent;

    use super::*;

    const RELOAD: Asked = Asked { reload: true, hung_up: false };
    const HUNG_UP: Asked = Asked { reload: false, hung_up: true };

    #[test]
    fn the_sender_tells_a_request_from_a_lost_terminal() {
        let started = Descent { ignored: false, leader: Some(100) };
        let sent = Cause::Sent(Sent::User);
        for (cause, sender, terminal, meaning) in [
            (Cause::Kernel, None, false, HUNG_UP),
            (Cause::Kernel, None, true, HUNG_UP),
            // The operator, in this shell or elsewhere; also when the terminal of the start has been closed.
            (sent, Some(100), true, RELOAD),
            (sent, Some(4711), true, RELOAD),
            (sent, Some(4711), false, RELOAD),
            (sent, Some(100), false, HUNG_UP),
            // From another PID namespace.
            (sent, Some(0), false, RELOAD),
        ] {
            assert_eq!(started.meaning(cause, sender, || terminal), meaning, "{cause:?} {sender:?} {terminal}");
        }
        let nohup = Descent { ignored: true, ..started };
        assert_eq!(nohup.meaning(Cause::Kernel, None, || false), Asked::default());
        assert_eq!(nohup.meaning(sent, Some(100), || false), Asked::default());
        assert_eq!(nohup.meaning(sent, Some(4711), || false), RELOAD);
        let unknown = Descent::default();
        assert_eq!(unknown.meaning(Cause::Unknown, None, || false), RELOAD);
    }

    #[test]
    fn the_system_tells_how_the_process_was_started() {
        let status = |mask: &str| format!("Name:\tgannet\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0\n");
        assert!(ignores_hang_ups(&status("0000000000001001")));
        assert!(!ignores_hang_ups(&status("0000000000001002")) && !ignores_hang_ups(""));
        assert_eq!(leader("77 (a ) 1 2 3 4) S 1 70 66 34816 77 4194304"), Some(66));
        assert_eq!(leader(""), None);
        assert!(Descent::of_process().leader.is_some());
    }

    /// It used to end the process while the port was being opened: a server receives it before that now.
    #[test]
    fn a_signal_waits_until_someone_looks() {
        let signals = HangUps::new().unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!([signals.look(), signals.look()], [RELOAD, Asked::default()]);
    }
}
