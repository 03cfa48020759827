//! How long the commands wait, with real processes at both ends: as long as success is possible, and no longer.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::peers::files;
use crate::peers::gannet::{Gannet, Trust, url};
use crate::peers::pki::Pki;
use crate::peers::process::{Finished, Proc};
use crate::require_root;
use crate::scene::Scene;

/// Idle timeout of both ends.
const IDLE: Duration = Duration::from_secs(2);

/// More than both ends and the pipe can hold; the client holds half a GiB.
const MORE_THAN_FITS: u64 = 700 << 20;

/// Number of bytes that a reader takes before it pauses.
const FIRST: usize = 1_000_000;

fn serve(scene: &Scene) -> Proc {
    Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root()).args(["--idle-timeout", "2s"]).ready()
}

/// Starts a download of `/file` into a named pipe, and reads its first bytes.
fn get_into_pipe(scene: &Scene) -> (Proc, File, Vec<u8>) {
    let pipe: PathBuf = scene.dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let urls = [url(scene.server().v4, "/file")];
    let get = scene.gannet_get(&pipe, &urls).args(["--idle-timeout", "2s"]).spawn();
    let mut reader = File::open(&pipe).expect("a pipe");
    let mut first = vec![0; FIRST];
    reader.read_exact(&mut first).expect("the first bytes");
    (get, reader, first)
}

/// The application reads nothing for several idle timeouts, and neither end gives up.
#[test]
fn a_reader_may_pause_for_longer_than_the_idle_timeout() {
    require_root!();
    let scene = Scene::gannet_alone();
    let sample = scene.sample("file", MORE_THAN_FITS);
    let server = serve(&scene);
    let (get, mut reader, first) = get_into_pipe(&scene);
    thread::sleep(3 * IDLE);
    let mut hash = Sha256::new_with_prefix(&first);
    let mut buf = vec![0; 1 << 20];
    let mut len = first.len() as u64;
    loop {
        match reader.read(&mut buf).expect("the rest") {
            0 => break,
            n => {
                hash.update(&buf[..n]);
                len += n as u64;
            }
        }
    }
    let done = get.wait().expect_success();
    let got: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!((len, got.as_str()), (MORE_THAN_FITS, sample.sha256.as_str()), "{}", done.transcript());
    assert_eq!(done.lines("sha256:"), [format!("sha256: {got}")]);
    server.stop("TERM").expect_success();
}

/// Kills the server `after` the first bytes have arrived; the reader stops reading. The message appears when the idle
/// timeout has passed since the client's last ack-eliciting packet, which follows the server's last packet within a
/// quarter of one (RFC 9000 §10.1), whatever the state of the pipe. The thread that wrote to the pipe used to block the
/// process forever.
fn killed(after: Duration) {
    let scene = Scene::gannet_alone();
    File::create(scene.root().join("file")).and_then(|f| f.set_len(MORE_THAN_FITS)).expect("a file");
    let server = serve(&scene);
    let (get, reader, _) = get_into_pipe(&scene);
    thread::sleep(after);
    server.stop("KILL");
    let start = Instant::now();
    let done = get.wait();
    let took = start.elapsed();
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    for part in [scene.server().v4.to_string().as_str(), "idle timeout"] {
        done.expect_message(&[part]);
    }
    assert!(took < IDLE * 5 / 4 + Duration::from_secs(5), "{took:?}: {}", done.transcript());
    drop(reader);
}

#[test]
fn a_server_killed_in_mid_download_is_missed() {
    require_root!();
    killed(Duration::ZERO);
}

#[test]
fn a_server_killed_while_nothing_moves_is_missed() {
    require_root!();
    killed(2 * IDLE);
}

/// One interrupt suffices to end a download into a pipe that nobody reads.
#[test]
fn an_interrupt_ends_a_download_into_a_full_pipe() {
    require_root!();
    let scene = Scene::gannet_alone();
    File::create(scene.root().join("file")).and_then(|f| f.set_len(MORE_THAN_FITS)).expect("a file");
    let _server = serve(&scene);
    let (get, reader, _) = get_into_pipe(&scene);
    let done = get.stop("INT");
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    done.expect_message(&["interrupted"]);
    drop(reader);
}

/// Runs a client up to three times: at least once, it must take less than three probe timeouts of an unmeasured
/// round-trip time, 3 s (RFC 9002 §6.2.2), which closing used to take.
#[track_caller]
fn ends_promptly(words: &[&str], run: impl Fn() -> Finished) {
    let prompt = (0..3).any(|_| {
        let start = Instant::now();
        let done = run();
        let took = start.elapsed();
        assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
        done.expect_message(words);
        took < Duration::from_secs(3)
    });
    assert!(prompt, "{words:?}: each time it took 3 s or more");
}

#[test]
fn clients_that_are_refused_end_promptly() {
    require_root!();
    let scene = Scene::gannet_alone();
    fs::write(scene.root().join("file"), "content").expect("a file");
    let _server = serve(&scene);
    let out = scene.out().join("got");
    let ip = scene.server().v4;
    let urls = [url(ip, "/file")];
    ends_promptly(&["\"perf\""], || Gannet::perf_client(scene.client(), ip).args(["--requests", "1"]).run());
    let other = Pki::new(scene.dir.path(), "other");
    let get = |ca: &Path, urls: &[String]| Gannet::get(scene.client(), Trust::Ca(ca), &out, urls);
    ends_promptly(&["trusted CA"], || get(&other.ca, &urls).run());
    let named = || get(&scene.pki.ca, &urls).args(["--server-name", "elsewhere.test"]).run();
    ends_promptly(&["elsewhere.test"], named);
    let closed = [format!("https://{ip}:4434/file")];
    ends_promptly(&["nobody listens"], || get(&scene.pki.ca, &closed).run());
    assert_eq!(files::names(&scene.out()), [""; 0]);
}

/// Answers of exactly as many bytes as the client has memory for.
#[test]
fn downloads_into_exactly_enough_memory_end() {
    require_root!();
    let scene = Scene::gannet_alone();
    let server = Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key).ready();
    for size in ["1M", "20M", "64M"] {
        let load = ["--download", size, "--requests", "1", "--idle-timeout", "5s"];
        let done = Gannet::perf_client(scene.client(), scene.server().v4).args(load).run().expect_success();
        assert_eq!(done.lines("requests:"), ["requests: 1"], "{}", done.transcript());
    }
    server.stop("TERM").expect_success();
}
