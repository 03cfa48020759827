//! What `gannet serve` must refuse and survive.

use std::fs;

use crate::peers::files::{self, Sample};
use crate::peers::pki::Pki;
use crate::peers::{BULK, ClientOptions, Peer};
use crate::require_root;
use crate::scene::Scene;

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
    // quinn reports the reason: TLS alert 120, no_application_protocol (RFC 7301 §3.2).
    let bad = ClientOptions { alpn: "other".into(), ..good.clone() };
    Peer::Quinn.get(scene.client(), bad).wait().expect_message(&["120", "0x78", "no_application_protocol"]);
    // The server still works.
    Peer::Quinn.get(scene.client(), good).wait().expect_success();
    sample.assert_same(&scene.out().join("file"));
    server.stop("TERM").expect_success();
}

/// A client that does not trust the server disconnects; the server survives.
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

/// A client that is killed during a transfer does not affect the server.
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

/// Paths that lead outside the root yield nothing, not even whether the file exists.
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
