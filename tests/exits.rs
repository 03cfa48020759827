//! Commands terminate on request even on a machine with too few CPUs, and what killed ones leave behind is removed.
//! `cargo xtask exits` repeats this hundreds of times and reports how long each exit took.
#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Upper limit of the time to exit.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with everything that two processes need, including private sockets.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        let made = rcgen::generate_simple_self_signed(vec!["10.77.0.1".to_owned()]).unwrap();
        std::fs::write(stage.path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(stage.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::create_dir(stage.path("root")).unwrap();
        std::fs::File::create(stage.path("root/large")).unwrap().set_len(8 << 30).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command at a memif socket.
    fn gannet(&self, command: &str, role: &str, addr: &str, socket: &str) -> Command {
        let mut gannet = Command::new(env!("CARGO_BIN_EXE_gannet"));
        gannet.env("XDG_RUNTIME_DIR", self.0.path()).arg(command);
        gannet.args(["--port", "memif", "--set", &format!("role={role}"), "--set", &format!("socket={socket}")]);
        gannet.args(["--addr", addr, "--quiet"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        gannet
    }

    /// A server that is ready.
    fn serve(&self, socket: &str) -> Ended {
        let mut serve = self.gannet("serve", "server", "10.77.0.1/24", socket);
        serve.arg("--listen=4433").arg("--root").arg(self.path("root"));
        let mut child =
            serve.arg("--cert").arg(self.path("cert.pem")).arg("--key").arg(self.path("key.pem")).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child = Ended(child);
        assert!(line.starts_with("ready: hq-interop on 10.77.0.1:4433"), "{line}");
        child
    }

    fn get(&self, socket: &str) -> Ended {
        let mut get = self.gannet("get", "client", "10.77.0.2/24", socket);
        get.args(["--insecure", "--suite", "chacha20", "-o", "/dev/null", "https://10.77.0.1:4433/large"]);
        Ended(get.spawn().unwrap())
    }
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Ended {
    /// Sends a signal and waits for the process; returns exit code and signal.
    fn stop(mut self, signal: Signal) -> (Option<i32>, Option<i32>) {
        use std::os::unix::process::ExitStatusExt;
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return (status.code(), status.signal());
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn commands_end_when_they_are_asked_to() {
    let stage = Stage::new();
    let stop = AtomicBool::new(false);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..2 * cpus {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let played = std::panic::catch_unwind(|| {
            for n in 0..4 {
                let server = stage.serve("s.sock");
                let client = stage.get("s.sock");
                std::thread::sleep(Duration::from_millis(150 * n));
                let end = client.stop(Signal::TERM);
                // Before its handler is installed, a signal ends it like any other process.
                assert!(end == (Some(1), None) || end == (None, Some(15)), "{end:?}");
                assert_eq!(server.stop(Signal::TERM), (Some(0), None));
            }
        });
        stop.store(true, Ordering::Relaxed);
        played.unwrap();
    });
}

/// Before 2026-11-28, the socket of a killed server remained forever, unless another server wanted the same name.
#[test]
fn what_killed_commands_leave_goes() {
    let stage = Stage::new();
    let socket = |name: &str| stage.path("gannet").join(name);
    let killed = ["killed.sock", "fresh.sock"].map(|name| {
        let server = stage.serve(name);
        let pid = server.0.id();
        server.stop(Signal::KILL);
        pid
    });
    assert!(socket("killed.sock").exists());
    // Younger ones may belong to a process that does not listen yet.
    let old = Command::new("touch").args(["-d", "1 hour ago"]).arg(socket("killed.sock")).status().unwrap();
    assert!(old.success());
    let server = stage.serve("next.sock");
    let left = |name: &str| socket(name).exists();
    assert_eq!([left("killed.sock"), left("fresh.sock"), left("next.sock")], [false, true, true]);
    assert_eq!(server.stop(Signal::TERM), (Some(0), None));
    assert!(!left("next.sock"));
    // The same for EAL's folders, which are elsewhere for processes of root.
    for all in [Path::new("/var/run/dpdk"), &stage.path("dpdk")] {
        let left = killed.map(|pid| all.join(format!("gannet-{pid}")).exists());
        assert_eq!(left, [false; 2], "{}", all.display());
    }
}
