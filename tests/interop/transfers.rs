//! Successful transfers: each role, each peer, each IP version, normal and jumbo frames.

use std::fs;

use crate::peers::files::{self, Sample};
use crate::peers::gannet::url;
use crate::peers::{BULK, Peer};
use crate::require_root;
use crate::scene::Scene;

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

/// `gannet serve` of one file to a peer; ended by `signal`.
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

/// Most frames that carry a file over a jumbo link are larger than normal Ethernet frames.
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

/// One server with several consecutive clients of both kinds.
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
