//! The demo's flow against a stand-in for `gannet`: what it starts, what it prints, and that nothing is left behind in
//! any case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const SIZE: &str = "200000";

struct Demo {
    state: TempDir,
    command: Command,
}

impl Demo {
    fn new(fake: &str, arguments: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["demo", "--no-setup", "--out"]).arg(state.path().join("out")).args(arguments);
        for (name, value) in [("--size", SIZE), ("--requests", "10")] {
            let given = |other: &&str| *other == name || (name == "--size" && *other == "--file");
            if !arguments.iter().any(given) {
                command.args([name, value]);
            }
        }
        command.env("FAKE", fake).env("FAKE_STATE", state.path());
        command.env("GANNET_BIN", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-gannet.sh"));
        command.env("TMPDIR", state.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { state, command }
    }

    fn run(&mut self) -> (Output, String) {
        let output = self.command.output().unwrap();
        let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        self.assert_clean(&text);
        (output, text)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.state.path().join("out").join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.state.path().join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Checks that no process, socket directory or received file is left.
    fn assert_clean(&self, text: &str) {
        for pid in self.lines("pids") {
            assert!(!Path::new("/proc").join(&pid).exists(), "process {pid} is left:\n{text}");
        }
        for entry in fs::read_dir(self.state.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("gannet-demo-"), "{name} is left:\n{text}");
        }
        assert!(!self.out("received.bin").exists(), "the received file is left:\n{text}");
    }
}

fn failing(fake: &str, arguments: &[&str]) -> String {
    let (output, text) = Demo::new(fake, arguments).run();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[test]
fn a_good_demo_compares_measures_and_reports() {
    let mut demo = Demo::new("nothing", &["--mtu", "9000"]);
    let (output, text) = demo.run();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("every byte matches: sha256 "), "{text}");
    assert!(
        text.contains("7.25 Gbit/s (0.500 s)") && text.contains("1.500 ms") && text.contains("p50: 12 us"),
        "{text}"
    );
    assert!(demo.out("report.html").exists());
    let calls = demo.lines("calls");
    let names: Vec<_> = calls.iter().map(|call| call.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["serve", "get", "perf-server", "perf-client", "report"]);
    assert!(calls[0].contains("--port memif --set role=server --set socket="), "{calls:?}");
    assert!(calls[0].contains("--set mtu=9000 --addr 10.77.0.1/24 --listen 4433 --cert "), "{calls:?}");
    assert!(calls[1].contains("--set role=client ") && calls[1].ends_with(" https://10.77.0.1:4433/file"), "{calls:?}");
    assert!(calls[3].contains("--connect 10.77.0.1:4433 ") && calls[3].contains("--requests 10 --hdr "), "{calls:?}");
}

#[test]
fn options_reach_the_programs() {
    let mut demo = Demo::new("nothing", &["--wire", "virtio-user", "--requests", "0", "--pcap"]);
    let (output, text) = demo.run();
    assert!(output.status.success(), "{text}");
    let calls = demo.lines("calls");
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls[0].contains("--port vhost --set iface=") && calls[0].contains("server.pcap"), "{calls:?}");
    assert!(calls[1].contains("--port virtio-user --set path=") && calls[1].contains("--keylog"), "{calls:?}");
    assert!(!calls[1].contains("mtu="), "{calls:?}");
}

#[test]
fn a_given_file_is_sent_and_the_received_one_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    fs::write(&file, "some bytes").unwrap();
    let mut demo = Demo::new("nothing", &["--keep", "--file", file.to_str().unwrap()]);
    let output = demo.command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(demo.out("received.bin")).unwrap(), "some bytes");
    assert_eq!(fs::read_to_string(&file).unwrap(), "some bytes");
}

#[test]
fn ring_runs_in_one_process() {
    let mut demo = Demo::new("nothing", &["--wire", "ring"]);
    let (output, text) = demo.run();
    assert!(output.status.success() && text.contains("every byte matches"), "{text}");
    assert_eq!(demo.lines("calls").len(), 2, "ring and report: {text}");
    let text = failing("nothing", &["--wire", "ring", "--pcap"]);
    assert!(text.contains("takes no --pcap") && !text.contains("source:"), "{text}");
}

#[test]
fn different_bytes_fail() {
    let text = failing("corrupts", &[]);
    assert!(text.contains("the bytes differ: ") && text.contains("the first difference is at byte 70000"), "{text}");
    let text = failing("stores-wrong", &[]);
    assert!(text.contains("is not what was sent; only the first 200000 bytes are in both"), "{text}");
}

#[test]
fn a_failing_process_is_named_with_its_words() {
    let text = failing("server-fails", &[]);
    assert!(text.contains("error: the server ended early with exit status: 4"), "{text}");
    assert!(text.contains("port memif: no such thing"), "{text}");
    let text = failing("client-fails", &[]);
    assert!(text.contains("error: the client ended with exit status: 1"), "{text}");
    assert!(text.contains("\n    certificate: not trusted"), "{text}");
}

#[test]
fn a_dying_server_is_the_cause() {
    for fake in ["serve-dies", "perf-server-dies"] {
        let text = failing(fake, &[]);
        assert!(text.contains("error: the server ended early with exit status: 5"), "{text}");
        assert!(text.contains("\n    lost the port"), "{text}");
    }
}

#[test]
fn a_hanging_client_is_given_up() {
    let text = failing("hangs", &["--timeout", "1"]);
    assert!(text.contains("the client did not finish within 1 s"), "{text}");
}

#[test]
fn a_missing_program_or_file_is_named() {
    let mut demo = Demo::new("nothing", &[]);
    demo.command.env("GANNET_BIN", "/no/such/gannet");
    let (output, text) = demo.run();
    assert!(!output.status.success() && text.contains("/no/such/gannet"), "{text}");
}

/// Waits until `get` runs, according to `file`.
fn wait_for_get(demo: &Demo, child: &mut Child) {
    let until = Instant::now() + Duration::from_secs(60);
    while !demo.lines("calls").iter().any(|call| call.starts_with("get ")) {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until, "the client was never started");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn interrupted(signal: Signal, code: i32, arguments: &[&str]) -> Demo {
    let mut demo = Demo::new("hangs", arguments);
    let mut child = demo.command.spawn().unwrap();
    wait_for_get(&demo, &mut child);
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains("stopped by signal"), "{text}");
    demo.assert_clean(&text);
    demo
}

#[test]
fn signals_end_everything() {
    interrupted(Signal::INT, 130, &[]);
    interrupted(Signal::TERM, 143, &[]);
}

#[test]
fn namespaces_are_removed_after_success_failure_and_signals() {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if !is_root {
        let text = failing("nothing", &["--wire", "af-packet"]);
        assert!(text.contains("needs root"), "{text}");
        return;
    }
    let mut demo = Demo::new("nothing", &["--wire", "af-packet"]);
    let (output, text) = demo.run();
    assert!(output.status.success(), "{text}");
    let calls = demo.lines("calls");
    assert!(calls[0].contains("--port af-packet --set iface=veth0 "), "{calls:?}");
    assert!(text.contains("$ ip netns exec gannet-demo-"), "{text}");
    assert_no_namespace(&text);
    let text = failing("client-fails", &["--wire", "af-xdp"]);
    assert_no_namespace(&text);
    interrupted(Signal::INT, 130, &["--wire", "af-packet"]);
}

/// Checks that the namespaces mentioned in `text` are gone.
fn assert_no_namespace(text: &str) {
    let used = text.split_whitespace().filter(|word| word.starts_with("gannet-demo-"));
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap().stdout;
    let list = String::from_utf8_lossy(&list);
    for name in used {
        assert!(!list.contains(name), "{name} is left:\n{list}");
    }
}
