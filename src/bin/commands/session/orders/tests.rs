use std::process::Command;

use signal_hook::low_level::raise;

use super::*;

#[test]
fn the_second_signal_closes_connections_even_if_it_comes_with_the_first() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let ending = || Ending::new(Duration::from_millis(500));
    let mut one = ending();
    assert_eq!(one.step(0, false, at(0)), Step::Wait);
    assert_eq!(one.step(1, false, at(100)), Step::Begin);
    assert_eq!(one.step(0, false, at(599)), Step::Wait);
    assert_eq!(one.step(0, false, at(600)), Step::Stop);
    let mut two = ending();
    assert_eq!([two.step(1, false, at(0)), two.step(1, false, at(1))], [Step::Begin, Step::Stop]);
    assert_eq!(ending().step(2, false, at(0)), Step::Stop);
    // A shell and the kernel both report that the terminal is gone.
    let mut gone = ending();
    assert_eq!([gone.step(0, true, at(0)), gone.step(0, true, at(1))], [Step::Begin, Step::Wait]);
    assert_eq!(gone.step(1, false, at(2)), Step::Stop);
}

/// Runs the test `name` in a process of its own, in which [`in_child`] is true, and returns its exit code.
fn exit_code(name: &str) -> Option<i32> {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let child = child.args(["--exact", &format!("commands::session::orders::tests::{name}")]).env(CHILD, "1");
    child.output().expect("a process").status.code()
}

const CHILD: &str = "GANNET_SIGNALS_CHILD";

fn in_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Signals that arrive between two looks are counted, and do not end the process.
#[test]
fn signals_between_two_looks_are_counted() {
    if in_child() {
        let mut signals = Signals::new().unwrap();
        let mut waiting = signals.redirect().unwrap();
        raise(SIGTERM).unwrap();
        raise(SIGTERM).unwrap();
        raise(SIGINT).unwrap();
        assert_eq!([waiting.pending().count(), waiting.pending().count()], [3, 0]);
        assert!(!signals.stop.load(Ordering::Relaxed));
        return;
    }
    assert_eq!(exit_code("signals_between_two_looks_are_counted"), Some(0));
}

/// Signals used to be ignored between the end of a draining server's run and the end of its process.
#[test]
fn a_signal_after_the_run_ends_the_process() {
    if in_child() {
        let mut signals = Signals::new().unwrap();
        let _waiting = signals.redirect().unwrap();
        assert!(!signals.end_of_run());
        raise(SIGTERM).unwrap();
        return;
    }
    assert_eq!(exit_code("a_signal_after_the_run_ends_the_process"), Some(130));
}

#[test]
fn certificates_are_read_again_only_from_regular_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cert.pem");
    std::fs::write(&file, "").unwrap();
    check_file(&file).unwrap();
    for path in [dir.path(), Path::new("/dev/zero"), &dir.path().join("none")] {
        check_file(path).unwrap_err();
    }
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert!(check_file(&pipe).unwrap_err().to_string().ends_with("pipe is not a regular file"));
}

/// A panic used to disable SIGHUP without a word.
#[test]
fn a_reading_that_panics_does_not_keep_others_from_beginning() {
    let flag = Arc::new(AtomicBool::new(false));
    let reading = Reading::begin(&flag).unwrap();
    assert!(Reading::begin(&flag).is_none());
    let read = std::thread::spawn(move || {
        let _reading = reading;
        panic!("on purpose");
    });
    assert!(read.join().is_err());
    assert!(Reading::begin(&flag).is_some());
}
