//! A log that cannot be written must not stop the server, and written logs are complete.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::peers::Peer;
use crate::peers::gannet::Gannet;
use crate::require_root;
use crate::scene::Scene;

/// A device that is always full.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("a device").into()
}

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A full FIFO that nobody reads. Its other end stays open as long as the returned file.
fn stuck(dir: &Path) -> (Stdio, File) {
    let path = dir.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).expect("a FIFO");
    let mut other = open(libc::O_NONBLOCK);
    while !matches!(other.write(&[b'x'; 4096]), Err(e) if e.kind() == ErrorKind::WouldBlock) {}
    (open(0).into(), other)
}

/// The first two used to end the server at the first request (`eprintln!` panics), and the third stopped it forever,
/// despite SIGTERM.
#[test]
fn serve_outlives_whatever_its_log_goes_to() {
    require_root!();
    for (name, loses) in [("full", true), ("closed", true), ("stuck", false)] {
        let scene = Scene::gannet_serves(1500);
        let sample = scene.sample("file", 100_000);
        let stats = scene.dir.path().join("stats.json");
        let (stderr, _other) = match name {
            "full" => (full(), None),
            "closed" => (closed(), None),
            _ => {
                let (stderr, other) = stuck(scene.dir.path());
                (stderr, Some(other))
            }
        };
        let gannet = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
        let gannet = gannet.args(["-vv", "--keylog", "/dev/full"]).path("--stats", &stats);
        let server = gannet.spawn_with(stderr);
        server.wait_line("ready");
        for _ in 0..5 {
            let done = Peer::Quinn.get(scene.client(), scene.getting(scene.server().v4, &["/missing", "/file"])).wait();
            sample.assert_same(&scene.out().join("file"));
            assert_eq!(done.lines("failed ").len(), 1, "{name}: {}", done.transcript());
        }
        server.stop("TERM").expect_success();
        let stats: Value = serde_json::from_slice(&fs::read(&stats).expect("counters")).expect("JSON");
        let count = |what: &str| stats[what].as_u64().unwrap_or_else(|| panic!("{name}: {what} in {stats}"));
        assert!(!loses || count("log_lines_lost") > 10, "{name}: {stats}");
        assert!(count("keylog_lines_lost") > 0, "{name}: {stats}");
    }
}

#[test]
fn requests_are_told_with_connection_and_peer() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    scene.sample("file", 1000);
    for format in ["json", "text"] {
        let gannet = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
        let server = gannet.args(["--log-format", format]).ready();
        let bad = "/a\u{1b}[2J";
        Peer::Quinn.get(scene.client(), scene.getting(scene.server().v4, &["/file", bad])).wait();
        let done = server.stop("TERM").expect_success();
        assert!(!done.transcript().contains('\u{1b}'), "{}", done.transcript());
        let peer = scene.client().v4.to_string();
        if format == "json" {
            let events = done.stderr.iter().map(|line| serde_json::from_str::<Value>(line).expect(line));
            let requests: Vec<_> =
                events.filter(|event| event["message"].as_str().is_some_and(|m| m.starts_with("GET /file"))).collect();
            let [request] = &requests[..] else { panic!("{}", done.transcript()) };
            assert_eq!((&request["level"], &request["target"]), (&"INFO".into(), &"gannet::proto::hq::server".into()));
            assert!(request["timestamp"].is_string() && request["conn"] == "0.0", "{request}");
            assert!(request["peer"].as_str().is_some_and(|p| p.starts_with(&peer)), "{request}");
        } else {
            let told = |line: &&String| line.contains(" INFO ") && line.contains("GET /file conn=0.0 peer=");
            assert_eq!(done.stderr.iter().filter(told).count(), 1, "{}", done.transcript());
        }
    }
}

#[test]
fn levels_decide_what_is_told() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    scene.sample("file", 1000);
    for (args, request, over) in [
        (["--log-level", "warn"], false, false),
        (["--log-level", "off,quic=debug"], false, true),
        (["-v", "-v"], true, true),
    ] {
        let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root()).args(args).ready();
        Peer::Quinn.get(scene.client(), scene.getting(scene.server().v4, &["/file"])).wait().expect_success();
        let done = server.stop("TERM").expect_success();
        let told = |what: &str| done.stderr.iter().any(|line| line.contains(what));
        assert_eq!((told("GET /file"), told("connection closed")), (request, over), "{args:?}: {}", done.transcript());
    }
}
