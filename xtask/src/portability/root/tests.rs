//! No mount in a root outlives the program there, however it ends.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::setup::is_root;

/// A root with only a shell and `env`, and the four directories that are mounted in it.
struct Tiny {
    dir: tempfile::TempDir,
    root: Root,
}

impl Tiny {
    /// Creates the root; `None` without permission.
    fn new() -> Option<Self> {
        if !is_root() || !process::succeeds(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"])) {
            eprintln!("skipped: only root can enter a root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("system");
        for name in ["rust", "crates", "system/builds"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let root = Root { dir: base.clone(), rust: dir.path().join("rust"), crates: dir.path().join("crates") };
        for name in ["proc", "sys", "dev", "run", "tmp", "etc", "bin", "usr/bin", "usr/local/bin"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        for program in ["/bin/sh", "/usr/bin/env"] {
            copy(program, &root);
            let libraries = process::output("ldd", Command::new("ldd").arg(program)).unwrap();
            for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
                copy(library, &root);
            }
        }
        Some(Self { dir, root })
    }

    /// A shell in the root that prints `ready`, then waits for a line that never comes.
    fn wait(&self) -> Child {
        let mut command = self.root.command(Network::Loopback, &["sh", "-c", "echo ready; read line"]);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    fn assert_nothing_is_left(&self) {
        let inside = self.dir.path().to_str().unwrap();
        // All mount namespaces of the machine, not only ours.
        let seen = || {
            fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
                let mounts = fs::read_to_string(entry.path().join("mounts")).ok()?;
                mounts.lines().find(|line| line.contains(inside)).map(|line| format!("{:?}: {line}", entry.path()))
            })
        };
        let until = Instant::now() + Duration::from_secs(60);
        while let Some(left) = seen() {
            assert!(Instant::now() < until, "{left}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn copy(file: &str, root: &Root) {
    let to = root.path().join(file.trim_start_matches('/'));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(file, to).unwrap();
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let group = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process_group(group, signal).unwrap();
}

#[test]
fn a_program_sees_the_repository_and_cannot_write_it() {
    let Some(tiny) = Tiny::new() else { return };
    let script = "test -e /gannet/Cargo.toml && test -d /gannet-target && echo x >/gannet-target/built && \
                  if (echo x >/gannet/written) 2>/dev/null; then exit 1; fi";
    process::run("sh", &mut tiny.root.command(Network::Loopback, &["sh", "-c", script])).unwrap();
    assert!(tiny.root.builds().join("built").exists());
    assert!(process::run("sh", &mut tiny.root.command(Network::Loopback, &["sh", "-c", "exit 7"])).is_err());
    tiny.assert_nothing_is_left();
}

/// `ip netns exec` fails where it is none: so did 70 tests.
#[test]
fn a_root_is_a_mount_point() {
    let Some(tiny) = Tiny::new() else { return };
    let script = "while read -r what at rest; do if [ \"$at\" = / ]; then exit 0; fi; done </proc/self/mounts; exit 1";
    process::run("sh", &mut tiny.root.command(Network::Loopback, &["sh", "-c", script])).unwrap();
    tiny.assert_nothing_is_left();
}

#[test]
fn mounts_go_with_the_program_whoever_ends_it() {
    let Some(tiny) = Tiny::new() else { return };
    for how in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let mut child = tiny.wait();
        assert!(mount_below(&fs::read_to_string("/proc/self/mounts").unwrap(), tiny.dir.path()).is_none());
        signal(&child, how);
        assert!(!child.wait().unwrap().success());
        tiny.assert_nothing_is_left();
    }
}

#[test]
fn mounts_go_when_one_of_them_fails() {
    let Some(tiny) = Tiny::new() else { return };
    let mut command = tiny.root.command(Network::Loopback, &["sh", "-c", "true"]);
    command.env("GANNET_CRATES", "/no/such/directory");
    assert!(process::run("sh", &mut command).is_err());
    tiny.assert_nothing_is_left();
}

#[test]
fn a_root_with_something_mounted_is_not_removed() {
    let mounts = "proc /proc proc rw 0 0\n/dev/sda /x/my\\040root/system/dev ext4 rw 0 0\n";
    assert_eq!(mount_below(mounts, Path::new("/x/my root/system")).as_deref(), Some("/x/my root/system/dev"));
    assert_eq!(mount_below(mounts, Path::new("/x/my root/system/dev")).as_deref(), Some("/x/my root/system/dev"));
    assert_eq!(mount_below(mounts, Path::new("/x/my")), None);
}
