//! What becomes of a server when the terminal is closed from which it was started.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::peers::gannet::Gannet;
use crate::peers::process::{PATIENCE, Proc, kill};
use crate::require_root;
use crate::scene::Scene;

/// A server that a shell has started on a terminal of its own.
struct Started<'a> {
    scene: &'a Scene,
    /// The terminal, until it is closed.
    terminal: Option<Proc>,
    pid: String,
}

impl<'a> Started<'a> {
    /// `start` runs `"$@"`, whose number is that of the shell, or that of its last job.
    fn new(scene: &'a Scene, start: &str) -> Self {
        let script = scene.dir.path().join("script");
        fs::write(&script, format!("cd {}\n{start}\n", scene.dir.path().display())).expect("the script");
        let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
        let terminal = server.args(["--drain", "10m"]).spawn_on_terminal(&script);
        let mut this = Self { scene, terminal: Some(terminal), pid: String::new() };
        this.wait("ready", || this.read("stdout").contains("ready") && this.read("pid").ends_with('\n'));
        this.pid = this.read("pid").trim().to_owned();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "not {what}\n{}\n{}", self.read("stdout"), self.read("stderr"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn lives(&self) -> bool {
        // Nobody may have waited for a process that has ended.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    fn close_terminal(&mut self) {
        self.terminal.take().expect("a terminal").stop("KILL");
    }

    /// The operator asks for a new certificate, and the server goes on until it is told to end.
    fn reloads_and_ends(&self) {
        kill(&self.pid, "HUP");
        self.wait("reloaded", || self.read("stderr").contains("were told to use them for new connections"));
        assert!(self.lives() && !self.read("stderr").contains("draining"), "{}", self.read("stderr"));
        kill(&self.pid, "TERM");
        self.wait("ended", || !self.lives());
        assert!(self.read("stderr").contains("draining"), "{}", self.read("stderr"));
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if self.lives() {
            kill(&self.pid, "KILL");
        }
    }
}

/// `--drain` holds for this end, too.
#[test]
fn a_server_ends_with_its_terminal() {
    require_root!();
    let scene = Scene::gannet_alone();
    let mut server = Started::new(&scene, "echo $$ >pid; exec \"$@\" >stdout 2>stderr </dev/null");
    server.close_terminal();
    server.wait("ended", || !server.lives());
    assert!(server.read("stderr").contains("draining"), "{}", server.read("stderr"));
}

/// The hang-up of the kernel used to end it in spite of `nohup`.
#[test]
fn nohup_keeps_a_server_running_without_its_terminal() {
    require_root!();
    let scene = Scene::gannet_alone();
    let mut server = Started::new(&scene, "trap '' HUP; echo $$ >pid; exec \"$@\" >stdout 2>stderr </dev/null");
    server.close_terminal();
    server.reloads_and_ends();
}

/// A job in the background that the shell does not end. Any SIGHUP without the terminal used to end it.
#[test]
fn a_server_that_has_outlived_its_terminal_gets_new_certificates() {
    require_root!();
    let scene = Scene::gannet_alone();
    let mut server = Started::new(&scene, "set -m; \"$@\" >stdout 2>stderr </dev/null & echo $! >pid; wait");
    server.close_terminal();
    server.reloads_and_ends();
}
