//! Retry between Gannet and others, both roles (RFC 9000 §8.1.2): each side reads the other's tokens and IDs.

use crate::peers::gannet::{Gannet, url};
use crate::peers::{Peer, ServerOptions};
use crate::require_root;
use crate::scene::Scene;

/// Size of the transferred file in bytes.
const LEN: u64 = 1_000_000;

/// `gannet get` from a peer that requires a token.
fn gannet_comes_again(peer: Peer, v6: bool) {
    let scene = Scene::gannet_gets(1500);
    let sample = scene.sample("file", LEN);
    let ip = scene.server().ip(v6);
    let server = peer.serve(scene.server(), ServerOptions { retry: true, ..scene.serving(ip) });
    let got = scene.out().join("got");
    scene.gannet_get(&got, &[url(ip, "/file")]).run().expect_success();
    sample.assert_same(&got);
    assert_eq!(server.lines("connection ").len(), 1);
    // aioquic does not report it, but always requires one.
    assert_eq!(server.lines("retry").len(), usize::from(peer == Peer::Quinn));
}

/// `gannet serve --retry WHEN` with a peer that downloads. Returns whether it needed a token.
fn gannet_asks(peer: Peer, v6: bool, when: &str) -> bool {
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", LEN);
    let stats = scene.dir.path().join("stats.json");
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let server = server.args(["--retry", when]).path("--stats", &stats).ready();
    let options = scene.getting(scene.server().ip(v6), &["/file"]);
    peer.get(scene.client(), options).wait().expect_success();
    sample.assert_same(&scene.out().join("file"));
    server.stop("TERM").expect_success();
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    let count = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("{name} in {stats}"));
    assert_eq!((count("quic_handshakes"), count("quic_bad_token")), (1, 0));
    assert_eq!(count("quic_retries_sent") > 0, count("quic_tokens_accepted") == 1);
    count("quic_tokens_accepted") == 1
}

#[test]
fn get_from_quinn_that_asks_for_a_token() {
    require_root!();
    gannet_comes_again(Peer::Quinn, false);
    gannet_comes_again(Peer::Quinn, true);
}

#[test]
fn get_from_aioquic_that_asks_for_a_token() {
    require_root!();
    gannet_comes_again(Peer::Aioquic, false);
}

#[test]
fn serve_quinn_that_has_to_come_again() {
    require_root!();
    assert!(gannet_asks(Peer::Quinn, false, "always"));
    assert!(gannet_asks(Peer::Quinn, true, "always"));
    assert!(!gannet_asks(Peer::Quinn, false, "auto"));
}

#[test]
fn serve_aioquic_that_has_to_come_again() {
    require_root!();
    assert!(gannet_asks(Peer::Aioquic, false, "always"));
    assert!(!gannet_asks(Peer::Aioquic, false, "never"));
}
