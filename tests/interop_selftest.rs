//! The test harness without Gannet: quinn and aioquic serve each other over kernel sockets in two namespaces.
#![forbid(unsafe_code)]

mod peers;

use std::io::Read as _;

use peers::files::{self, Sample};
use peers::netns::{self, Wire};
use peers::pki::Pki;
use peers::{ClientOptions, How, Misbehave, Peer, ServerOptions};
use tempfile::TempDir;

quinn_peer_entry!();

/// Size of a file that is large compared with every initial window, but fast to transfer, in bytes.
const MEDIUM: u64 = 5_000_000;

/// A directory with `root` (served) and `out` (downloaded to).
fn directories() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["root", "out"] {
        std::fs::create_dir(dir.path().join(name)).expect("a directory");
    }
    dir
}

/// Downloads several files, a large one among them, over one connection.
fn exchange(server: Peer, client: Peer, mtu: u16, v6: bool) {
    let wire = Wire::kernels(mtu);
    let dir = directories();
    let (root, out) = (dir.path().join("root"), dir.path().join("out"));
    let pki = Pki::new(dir.path(), "test");
    let samples = [("large", MEDIUM), ("small", 1000), ("empty", 0)].map(|(n, len)| Sample::new(&root, n, len, len));
    let ip = wire.left.ip(v6);

    let server = server.serve(&wire.left, ServerOptions { mtu, ..ServerOptions::new(ip, &pki, &root) });
    let paths = ["/large", "/small", "/empty"];
    let client = client.get(&wire.right, ClientOptions { mtu, ..ClientOptions::new(ip, &pki, &out, &paths) });
    let done = client.wait().expect_success();

    assert_eq!(done.lines("ok ").len(), samples.len(), "{}", done.transcript());
    for sample in &samples {
        sample.assert_same(&out.join(sample.name()));
        assert!(done.lines("ok ").iter().any(|l| l.ends_with(&sample.sha256)), "{}", done.transcript());
    }
    assert_eq!(server.lines("connection "), ["connection 1"]);
    assert_eq!(server.lines("request ").len(), paths.len());
    let (bytes, frames) = wire.left.sent();
    assert_eq!(bytes / frames > 2000, mtu == 9000, "{bytes} bytes in {frames} frames");
}

#[test]
fn quinn_serves_aioquic() {
    require_root!();
    exchange(Peer::Quinn, Peer::Aioquic, 1500, false);
}

#[test]
fn aioquic_serves_quinn() {
    require_root!();
    exchange(Peer::Aioquic, Peer::Quinn, 1500, false);
}

#[test]
fn quinn_serves_quinn_over_ipv6_and_jumbo_frames() {
    require_root!();
    exchange(Peer::Quinn, Peer::Quinn, 9000, true);
}

#[test]
fn aioquic_serves_aioquic_over_ipv6() {
    require_root!();
    exchange(Peer::Aioquic, Peer::Aioquic, 1500, true);
}

/// A client that receives wrong bytes must not report success.
#[test]
fn missing_files_are_reported() {
    require_root!();
    for (server, client) in [(Peer::Quinn, Peer::Aioquic), (Peer::Aioquic, Peer::Quinn)] {
        let wire = Wire::kernels(1500);
        let dir = directories();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        let pki = Pki::new(dir.path(), "test");
        let there = Sample::new(&root, "there", 100, 1);
        Sample::new(dir.path(), "secret", 100, 2);
        let _server = server.serve(&wire.left, ServerOptions::new(wire.left.v4, &pki, &root));
        let paths = ["/missing", "/../secret", "/there"];
        let done = client.get(&wire.right, ClientOptions::new(wire.left.v4, &pki, &out, &paths)).wait();
        assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
        assert_eq!(done.lines("failed ").len(), 2, "{}", done.transcript());
        there.assert_same(&out.join("there"));
        assert_eq!(std::fs::metadata(out.join("secret")).map(|m| m.len()).unwrap_or(0), 0);
    }
}

/// Certificates are verified, and protocols negotiated.
#[test]
fn strangers_get_no_connection() {
    require_root!();
    let wire = Wire::kernels(1500);
    let dir = directories();
    let (root, out) = (dir.path().join("root"), dir.path().join("out"));
    let (pki, other) = (Pki::new(dir.path(), "test"), Pki::new(dir.path(), "other"));
    for server in [Peer::Quinn, Peer::Aioquic] {
        let server = server.serve(&wire.left, ServerOptions::new(wire.left.v4, &pki, &root));
        for client in [Peer::Quinn, Peer::Aioquic] {
            let options = ClientOptions::new(wire.left.v4, &pki, &out, &["/file"]);
            let wrong_ca = ClientOptions { ca: other.ca.clone(), ..options.clone() };
            let wrong_alpn = ClientOptions { alpn: "other".into(), ..options };
            for options in [wrong_ca, wrong_alpn] {
                let done = client.get(&wire.right, options).wait();
                assert_eq!(done.status.code(), Some(2), "{}", done.transcript());
                assert!(done.lines("connected").is_empty());
            }
        }
        assert!(server.lines("request ").is_empty());
    }
}

/// Each kind of misbehaviour makes the client fail after some bytes, not before and not never.
#[test]
fn misbehaviour_is_seen() {
    require_root!();
    let wire = Wire::kernels(1500);
    let dir = directories();
    let (root, out) = (dir.path().join("root"), dir.path().join("out"));
    let pki = Pki::new(dir.path(), "test");
    Sample::new(&root, "file", MEDIUM, 1);
    for how in [How::Stall, How::Close, How::Reset] {
        let options = ServerOptions {
            misbehave: Some(Misbehave { after: MEDIUM / 2, how }),
            ..ServerOptions::new(wire.left.v4, &pki, &root)
        };
        let server = Peer::Quinn.serve(&wire.left, options);
        let options = ClientOptions { idle_secs: 2, ..ClientOptions::new(wire.left.v4, &pki, &out, &["/file"]) };
        let client = Peer::Quinn.get(&wire.right, options);
        server.wait_line_beside("misbehaved /file", &client);
        if how == How::Stall {
            server.stop("KILL");
        }
        let done = client.wait();
        assert_eq!(done.status.code(), Some(1), "{how:?}: {}", done.transcript());
        let got = std::fs::metadata(out.join("file")).expect("a partial file").len();
        assert!(got > 0 && got <= MEDIUM / 2, "{how:?}: {got} bytes");
    }
    assert_eq!(files::names(&out), ["file"]);
}

/// Namespaces do not outlive their test, even if it panics.
#[test]
fn namespaces_go_away() {
    require_root!();
    let names = std::panic::catch_unwind(|| {
        let wire = Wire::kernels(1500);
        let names = [wire.left.ns.clone(), wire.right.ns.clone()];
        assert!(names.iter().all(|n| files::names("/run/netns".as_ref()).contains(n)));
        std::panic::resume_unwind(Box::new(names));
    });
    let names = names.expect_err("it panicked").downcast::<[String; 2]>().expect("the names");
    let left = files::names("/run/netns".as_ref());
    assert!(names.iter().all(|n| !left.contains(n)), "{names:?} are still there");
}

/// Namespaces of a killed run are removed when the next one starts; those in use stay.
#[test]
fn leftovers_go_away() {
    require_root!();
    let mut gone = std::process::Command::new("true").spawn().expect("a process");
    let pid = gone.id();
    gone.wait().expect("its end");
    let (stale, alive) = (format!("{}{pid}-0-left", netns::PREFIX), format!("{}1-0-left", netns::PREFIX));
    for name in [&stale, &alive] {
        netns::tool("ip", ["netns", "add", name]);
    }
    let mut inside = std::process::Command::new("ip");
    inside.args(["netns", "exec", &stale, "sh", "-c", "echo; exec sleep 1000"]).stdout(std::process::Stdio::piped());
    let mut sleeper = inside.spawn().expect("a process");
    // Wait until it runs there, as later processes are not found.
    let mut line = [0];
    sleeper.stdout.take().expect("piped").read_exact(&mut line).expect("it is inside");
    netns::remove_stale();
    let left = files::names("/run/netns".as_ref());
    netns::tool("ip", ["netns", "del", &alive]);
    assert!(!left.contains(&stale), "{stale} is still there");
    assert!(left.contains(&alive), "{alive} was taken from a living process");
    let ended = sleeper.wait().expect("its end");
    assert!(!ended.success(), "what ran in a stale namespace is ended: {ended}");
}
