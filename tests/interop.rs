//! Gannet against implementations that were not written here, both roles, over an AF_PACKET port on a veth.
#![cfg(feature = "dpdk")]
#![forbid(unsafe_code)]

mod peers;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use peers::files::{self, Sample};
use peers::gannet::{Gannet, Trust, url};
use peers::netns::{End, Stack, Wire};
use peers::pki::Pki;
use peers::process::{Finished, Proc};
use peers::{BULK, ClientOptions, How, Misbehave, Peer, ServerOptions};
use tempfile::TempDir;

quinn_peer_entry!();

/// A server at the left end of a wire, a client at its right end, and their directories.
struct Scene {
    // Dropped in this order: the processes of a test, declared later, are gone before.
    dir: TempDir,
    pki: Pki,
    wire: Wire,
}

impl Scene {
    fn new(left: Stack, right: Stack, mtu: u16) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["root", "out"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let pki = Pki::new(dir.path(), "test");
        Self { dir, pki, wire: Wire::new(left, right, mtu) }
    }

    /// Gannet is the client.
    fn gannet_gets(mtu: u16) -> Self {
        Self::new(Stack::Kernel, Stack::Bypass, mtu)
    }

    /// Gannet is the server.
    fn gannet_serves(mtu: u16) -> Self {
        Self::new(Stack::Bypass, Stack::Kernel, mtu)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn server(&self) -> &End {
        &self.wire.left
    }

    fn client(&self) -> &End {
        &self.wire.right
    }

    fn sample(&self, name: &str, len: u64) -> Sample {
        Sample::new(&self.root(), name, len, len)
    }

    /// How a peer serves here.
    fn serving(&self, ip: impl Into<IpAddr>) -> ServerOptions {
        ServerOptions { mtu: self.wire.left.mtu, ..ServerOptions::new(ip, &self.pki, &self.root()) }
    }

    /// How a peer downloads here.
    fn getting(&self, ip: impl Into<IpAddr>, paths: &[&str]) -> ClientOptions {
        ClientOptions { mtu: self.wire.left.mtu, ..ClientOptions::new(ip, &self.pki, &self.out(), paths) }
    }

    fn gannet_serve(&self) -> Proc {
        Gannet::serve(self.server(), &self.pki.cert, &self.pki.key, &self.root()).ready()
    }

    fn gannet_get<'a>(&'a self, out: &Path, urls: &[String]) -> Gannet<'a> {
        Gannet::get(self.client(), Trust::Ca(&self.pki.ca), out, urls)
    }
}

/// `gannet get` of one file from a peer.
fn gannet_downloads(peer: Peer, v6: bool, mtu: u16) {
    let scene = Scene::gannet_gets(mtu);
    let sample = scene.sample("file", BULK);
    let ip = scene.server().ip(v6);
    let server = peer.serve(scene.server(), scene.serving(ip));
    let got = scene.out().join("got");
    let done = scene.gannet_get(&got, &[url(ip, "/file")]).run().expect_success();
    sample.assert_same(&got);
    assert_eq!(done.lines("sha256:"), [format!("sha256: {}", sample.sha256)], "{}", done.transcript());
    assert_eq!(server.lines("connection ").len(), 1);
    assert_eq!(server.lines("request "), ["request /file"]);
    if mtu > 1500 {
        assert_jumbo(scene.server().sent());
    }
}

/// `gannet serve` of one file to a peer, ended by `signal`.
fn gannet_uploads(peer: Peer, v6: bool, mtu: u16, signal: &str) {
    let scene = Scene::gannet_serves(mtu);
    let sample = scene.sample("file", BULK);
    let server = scene.gannet_serve();
    let options = scene.getting(scene.server().ip(v6), &["/file"]);
    let done = peer.get(scene.client(), options).wait().expect_success();
    sample.assert_same(&scene.out().join("file"));
    assert_eq!(done.lines("ok "), [format!("ok /file {BULK} {}", sample.sha256)]);
    server.stop(signal).expect_success();
    if mtu > 1500 {
        assert_jumbo(scene.server().sent());
    }
}

/// Frames that carry a file over a jumbo link are mostly larger than Ethernet's usual ones.
#[track_caller]
fn assert_jumbo((bytes, packets): (u64, u64)) {
    assert!(bytes / packets > 1514, "{bytes} bytes in {packets} frames: no jumbo frames");
}

#[test]
fn get_from_quinn() {
    require_root!();
    gannet_downloads(Peer::Quinn, false, 1500);
}

#[test]
fn get_from_aioquic() {
    require_root!();
    gannet_downloads(Peer::Aioquic, false, 1500);
}

#[test]
fn serve_quinn() {
    require_root!();
    gannet_uploads(Peer::Quinn, false, 1500, "INT");
}

#[test]
fn serve_aioquic() {
    require_root!();
    gannet_uploads(Peer::Aioquic, false, 1500, "TERM");
}

#[test]
fn get_from_quinn_over_ipv6() {
    require_root!();
    gannet_downloads(Peer::Quinn, true, 1500);
}

#[test]
fn get_from_aioquic_over_ipv6() {
    require_root!();
    gannet_downloads(Peer::Aioquic, true, 1500);
}

#[test]
fn serve_quinn_over_ipv6() {
    require_root!();
    gannet_uploads(Peer::Quinn, true, 1500, "TERM");
}

#[test]
fn serve_aioquic_over_ipv6() {
    require_root!();
    gannet_uploads(Peer::Aioquic, true, 1500, "INT");
}

#[test]
fn get_from_quinn_in_jumbo_frames() {
    require_root!();
    gannet_downloads(Peer::Quinn, false, 9000);
}

#[test]
fn serve_quinn_in_jumbo_frames() {
    require_root!();
    gannet_uploads(Peer::Quinn, false, 9000, "TERM");
}

/// Files of all sizes, the empty one too, for one connection.
fn several(scene: &Scene) -> Vec<Sample> {
    let sizes = [("large", 5_000_000), ("medium", 70_001), ("small", 1), ("empty", 0), ("last", 1_000_000)];
    sizes.iter().map(|&(name, len)| scene.sample(name, len)).collect()
}

#[test]
fn get_several_files_over_one_connection() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let scene = Scene::gannet_gets(1500);
        let samples = several(&scene);
        let ip = scene.server().v4;
        let server = peer.serve(scene.server(), scene.serving(ip));
        let urls: Vec<_> = samples.iter().map(|s| url(ip, &format!("/{}", s.name()))).collect();
        let done = scene.gannet_get(&scene.out(), &urls).run().expect_success();
        for sample in &samples {
            sample.assert_same(&scene.out().join(sample.name()));
            assert!(done.stdout.iter().any(|l| l.contains(&sample.sha256)), "{}", done.transcript());
        }
        assert_eq!(server.lines("connection ").len(), 1, "{peer:?}");
        assert_eq!(server.lines("request ").len(), samples.len(), "{peer:?}");
        assert_eq!(files::names(&scene.out()).len(), samples.len(), "{peer:?}");
    }
}

#[test]
fn serve_several_files_over_one_connection() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let scene = Scene::gannet_serves(1500);
        let samples = several(&scene);
        let server = scene.gannet_serve();
        let paths: Vec<_> = samples.iter().map(|s| format!("/{}", s.name())).collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        peer.get(scene.client(), scene.getting(scene.server().v4, &paths)).wait().expect_success();
        samples.iter().for_each(|s| s.assert_same(&scene.out().join(s.name())));
        server.stop("TERM").expect_success();
    }
}

/// One server, one client after the other, of both kinds.
#[test]
fn serve_clients_in_turn() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", 100_000);
    let server = scene.gannet_serve();
    for round in 0..4 {
        let peer = [Peer::Quinn, Peer::Aioquic][round % 2];
        let options = scene.getting(scene.server().v4, &["/file"]);
        peer.get(scene.client(), options).wait().expect_success();
        let got = scene.out().join("file");
        sample.assert_same(&got);
        fs::remove_file(got).expect("a file");
    }
    server.stop("INT").expect_success();
}

/// `gannet get` fails in good order and leaves no file behind.
#[track_caller]
fn assert_failed(scene: &Scene, done: Finished, words: &[&str]) {
    let done = done.expect_failure();
    done.expect_message(words);
    assert_eq!(files::names(&scene.out()), [""; 0], "left behind\n{}", done.transcript());
}

#[test]
fn get_refuses_an_unknown_authority() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", 1000);
    let other = Pki::new(scene.dir.path(), "other");
    let ip = scene.server().v4;
    let server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    let urls = [url(ip, "/file")];
    let get = |trust| Gannet::get(scene.client(), trust, &scene.out().join("got"), &urls).run();
    assert_failed(&scene, get(Trust::Ca(&other.ca)), &["certificate"]);
    assert!(server.lines("request ").is_empty());
    // The same server is good enough for those who ask for no proof.
    get(Trust::Anybody).expect_success();
    assert!(scene.out().join("got").exists());
}

#[test]
fn get_refuses_a_certificate_for_another_host() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", 1000);
    let other = Pki::with_names(scene.dir.path(), "elsewhere", &["10.9.0.77", "elsewhere.test"]);
    let ip = scene.server().v4;
    let options = ServerOptions { cert: other.cert.clone(), key: other.key.clone(), ..scene.serving(ip) };
    let server = Peer::Quinn.serve(scene.server(), options);
    let urls = [url(ip, "/file")];
    let done = Gannet::get(scene.client(), Trust::Ca(&other.ca), &scene.out().join("got"), &urls).run();
    assert_failed(&scene, done, &["certificate"]);
    assert!(server.lines("request ").is_empty());
}

#[test]
fn get_needs_a_common_protocol() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", 1000);
    let ip = scene.server().v4;
    let server = Peer::Quinn.serve(scene.server(), ServerOptions { alpn: "other".into(), ..scene.serving(ip) });
    let done = scene.gannet_get(&scene.out().join("got"), &[url(ip, "/file")]).run();
    assert_failed(&scene, done, &["alpn", "application protocol", "application_protocol"]);
    assert!(server.lines("request ").is_empty());
}

#[test]
fn get_reports_a_missing_file() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let scene = Scene::gannet_gets(1500);
        let ip = scene.server().v4;
        let server = peer.serve(scene.server(), scene.serving(ip));
        let done = scene.gannet_get(&scene.out().join("got"), &[url(ip, "/missing")]).run();
        assert_failed(&scene, done, &["/missing"]);
        assert_eq!(server.lines("request "), ["request /missing"]);
    }
}

/// Nobody is there at all: not even an answer to ARP.
#[test]
fn get_gives_up_on_silence() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let nowhere = IpAddr::from([10, 9, 0, 77]);
    let done = scene.gannet_get(&scene.out().join("got"), &[url(nowhere, "/file")]).run();
    assert_failed(&scene, done, &["10.9.0.77"]);
}

/// The server starts to send the file and does not end as it should.
fn get_mid_transfer(how: How) {
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", BULK);
    let ip = scene.server().v4;
    let misbehave = Some(Misbehave { after: BULK / 10, how });
    // The smaller of both idle timeouts counts (RFC 9000 §10.1): this one bounds the test.
    let server = Peer::Quinn.serve(scene.server(), ServerOptions { misbehave, idle_secs: 3, ..scene.serving(ip) });
    let get = scene.gannet_get(&scene.out().join("got"), &[url(ip, "/file")]).spawn();
    server.wait_line_beside("misbehaved /file", &get);
    assert!(!scene.out().join("got").exists(), "a file has its final name before it is complete");
    if how == How::Stall {
        server.stop("KILL");
    }
    let done = get.wait().expect_failure();
    assert!(!done.stderr.is_empty(), "it fails without a word");
    assert_eq!(files::names(&scene.out()), [""; 0], "left behind\n{}", done.transcript());
    assert!(done.lines("sha256:").is_empty(), "{}", done.transcript());
}

#[test]
fn get_notices_that_the_server_is_gone() {
    require_root!();
    get_mid_transfer(How::Stall);
}

#[test]
fn get_notices_a_close_mid_transfer() {
    require_root!();
    get_mid_transfer(How::Close);
}

#[test]
fn get_notices_a_reset_mid_transfer() {
    require_root!();
    get_mid_transfer(How::Reset);
}

/// A file that was there before stays as it was when a download fails.
#[test]
fn get_keeps_an_old_file_when_it_fails() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let ip = scene.server().v4;
    let got = scene.out().join("got");
    fs::write(&got, "old").expect("a file");
    let _server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    scene.gannet_get(&got, &[url(ip, "/missing")]).run().expect_failure().expect_message(&["/missing"]);
    assert_eq!(fs::read(&got).expect("the old file"), b"old");
    assert_eq!(files::names(&scene.out()), ["got"]);
}

/// One bad file among good ones: the good ones arrive, and the exit code says that something is wrong.
#[test]
fn get_reports_one_missing_file_among_others() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let ip = scene.server().v4;
    let sample = scene.sample("there", 100_000);
    let _server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    let urls = [url(ip, "/missing"), url(ip, "/there")];
    let done = scene.gannet_get(&scene.out(), &urls).run().expect_failure();
    done.expect_message(&["/missing"]);
    sample.assert_same(&scene.out().join("there"));
    assert_eq!(files::names(&scene.out()), ["there"]);
}

#[test]
fn serve_needs_a_common_protocol() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", 1000);
    let server = scene.gannet_serve();
    let good = scene.getting(scene.server().v4, &["/file"]);
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let bad = ClientOptions { alpn: "other".into(), ..good.clone() };
        let done = peer.get(scene.client(), bad).wait();
        assert_eq!(done.status.code(), Some(2), "{}", done.transcript());
        assert!(done.lines("connected").is_empty(), "{}", done.transcript());
    }
    // quinn says why: TLS alert 120, no_application_protocol (RFC 7301 §3.2).
    let bad = ClientOptions { alpn: "other".into(), ..good.clone() };
    Peer::Quinn.get(scene.client(), bad).wait().expect_message(&["120", "0x78", "no_application_protocol"]);
    // And the server is as good as before.
    Peer::Quinn.get(scene.client(), good).wait().expect_success();
    sample.assert_same(&scene.out().join("file"));
    server.stop("TERM").expect_success();
}

/// A client that does not trust the server goes away; the server stays.
#[test]
fn serve_outlives_distrust() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", 1000);
    let other = Pki::new(scene.dir.path(), "other");
    let server = scene.gannet_serve();
    let good = scene.getting(scene.server().v4, &["/file"]);
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let done = peer.get(scene.client(), ClientOptions { ca: other.ca.clone(), ..good.clone() }).wait();
        assert_eq!(done.status.code(), Some(2), "{}", done.transcript());
        peer.get(scene.client(), good.clone()).wait().expect_success();
        sample.assert_same(&scene.out().join("file"));
    }
    server.stop("TERM").expect_success();
}

/// A client that is killed mid-transfer costs the server nothing but time.
#[test]
fn serve_outlives_a_killed_client() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let (large, small) = (scene.sample("large", BULK), scene.sample("small", 1000));
    let server = scene.gannet_serve();
    let client = Peer::Aioquic.get(scene.client(), scene.getting(scene.server().v4, &["/large"]));
    client.wait_line("receiving /large");
    client.stop("KILL");
    let paths = ["/small"];
    Peer::Quinn.get(scene.client(), scene.getting(scene.server().v4, &paths)).wait().expect_success();
    small.assert_same(&scene.out().join("small"));
    assert_ne!(files::sha256_of(&scene.out().join("large")), large.sha256, "killed too late to prove anything");
    server.stop("TERM").expect_success();
}

/// Paths that would leave the root get nothing: neither a file nor the news whether it exists.
#[test]
fn serve_keeps_to_its_root() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let secret = Sample::new(scene.dir.path(), "secret", 5000, 7);
    let inside = scene.sample("inside", 1000);
    fs::create_dir(scene.root().join("sub")).expect("a directory");
    let absolute = format!("/{}", secret.path.display());
    let server = scene.gannet_serve();
    let traversals = [
        "/../secret",
        "/sub/../../secret",
        "/sub/../../root/../secret",
        "/./../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/..\\secret",
        "../secret",
        "secret",
        absolute.as_str(),
        "/sub",
        "/",
        "/inside\0",
    ];
    for path in traversals {
        let out = scene.dir.path().join("traversal");
        fs::create_dir(&out).expect("a directory");
        let options = scene.getting(scene.server().v4, &[path]);
        let done = Peer::Quinn.get(scene.client(), ClientOptions { out: out.clone(), ..options }).wait();
        assert_ne!(done.status.code(), Some(2), "{path}: {}", done.transcript());
        for name in files::names(&out) {
            assert_eq!(fs::metadata(out.join(&name)).map_or(0, |m| m.len()), 0, "{path} brought {name}");
        }
        fs::remove_dir_all(out).expect("a directory");
    }
    let good = scene.getting(scene.server().v4, &["/inside"]);
    Peer::Quinn.get(scene.client(), good).wait().expect_success();
    inside.assert_same(&scene.out().join("inside"));
    server.stop("TERM").expect_success();
}

/// A missing file fails alone; its neighbours on the connection arrive.
#[test]
fn serve_reports_a_missing_file() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let scene = Scene::gannet_serves(1500);
        let sample = scene.sample("there", 100_000);
        let server = scene.gannet_serve();
        let options = scene.getting(scene.server().v4, &["/missing", "/there"]);
        let done = peer.get(scene.client(), options).wait();
        sample.assert_same(&scene.out().join("there"));
        assert_eq!(fs::metadata(scene.out().join("missing")).map_or(0, |m| m.len()), 0);
        assert_eq!(done.lines("failed ").len(), 1, "{}", done.transcript());
        server.stop("TERM").expect_success();
    }
}

/// What the kernel would say of an address in use, Gannet's commands must say of an interface that is not there.
#[test]
fn a_missing_interface_is_named() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let nobody = End { iface: "nowhere0".into(), ..scene.client().clone() };
    let urls = [format!("https://{}/file", SocketAddr::from(([10, 9, 0, 1], 4433)))];
    let done = Gannet::get(&nobody, Trust::Anybody, &scene.out().join("got"), &urls).run();
    assert_failed(&scene, done, &["nowhere0"]);
}
