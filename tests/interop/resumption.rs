//! Clients that come back: session resumption and 0-RTT (RFC 9001 §4.5, §4.6).

use std::fs;
use std::path::Path;

use crate::peers::gannet::{Gannet, url};
use crate::peers::{ClientOptions, Peer, ServerOptions};
use crate::require_root;
use crate::scene::Scene;

const PATHS: [&str; 3] = ["/one", "/two", "/three"];

/// Full handshakes and resumed ones, 0-RTT accepted and rejected.
fn counts(path: &Path) -> [u64; 4] {
    let stats: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let names = ["quic_handshakes", "quic_handshakes_resumed", "quic_early_data_accepted", "quic_early_data_rejected"];
    let [all, rest @ ..] = names.map(|name| stats[name].as_u64().unwrap_or_else(|| panic!("{name} in {stats}")));
    [all - rest[0], rest[0], rest[1], rest[2]]
}

/// `gannet get` with `arg` from a peer that accepts 0-RTT or not.
fn gannet_returns(peer: Peer, arg: &str, accepts: bool) -> [u64; 4] {
    let scene = Scene::gannet_gets(1500);
    let samples = [5000, 200_000, 3].iter().zip(PATHS).map(|(len, path)| scene.sample(&path[1..], *len));
    let samples: Vec<_> = samples.collect();
    let ip = scene.server().ip(false);
    let options = ServerOptions { early_data: accepts, ..scene.serving(ip) };
    let server = peer.serve(scene.server(), options);
    let stats = scene.dir.path().join("stats.json");
    let get = scene.gannet_get(&scene.out(), &PATHS.map(|path| url(ip, path))).args([arg]);
    get.path("--stats", &stats).run().expect_success();
    for (sample, path) in samples.iter().zip(PATHS) {
        sample.assert_same(&scene.out().join(&path[1..]));
    }
    assert_eq!(server.lines("connection ").len(), 2);
    counts(&stats)
}

#[test]
fn get_resumes_and_sends_early_data() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        assert_eq!(gannet_returns(peer, "--early-data", true), [1, 1, 1, 0], "{peer:?}");
        assert_eq!(gannet_returns(peer, "--resume", true), [1, 1, 0, 0], "{peer:?}");
    }
    // Its tickets allow no 0-RTT.
    assert_eq!(gannet_returns(Peer::Quinn, "--early-data", false), [1, 1, 0, 0]);
}

/// A peer that comes back to `gannet serve --early-data`, which begins again in between with the secret `again`, if any.
/// Returns what the last server has counted, and whether the peer's 0-RTT data was accepted.
fn peer_returns(peer: Peer, again: Option<&str>) -> ([u64; 4], bool) {
    let scene = Scene::gannet_serves(1500);
    let samples = [5000, 200_000, 3].iter().zip(PATHS).map(|(len, path)| scene.sample(&path[1..], *len));
    let samples: Vec<_> = samples.collect();
    let stats = scene.dir.path().join("stats.json");
    let serve = |secret: &str| {
        let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
        let server = server.args(["--early-data"]).path("--secret", &scene.dir.path().join(secret));
        server.path("--stats", &stats).ready()
    };
    let mut server = serve("secret");
    let go = scene.dir.path().join("go");
    let options = ClientOptions { returns: Some(go.clone()), ..scene.getting(scene.server().ip(false), &PATHS) };
    let client = peer.get(scene.client(), options);
    client.wait_line("returns");
    if let Some(secret) = again {
        server.stop("TERM").expect_success();
        server = serve(secret);
    }
    fs::write(&go, "").unwrap();
    let done = client.wait().expect_success();
    for (sample, path) in samples.iter().zip(PATHS) {
        sample.assert_same(&scene.out().join(&path[1..]));
    }
    server.stop("TERM").expect_success();
    let early = done.lines("early ");
    assert!(early == ["early true"] || early == ["early false"], "{}", done.transcript());
    (counts(&stats), early == ["early true"])
}

#[test]
fn serve_resumes_and_reads_early_data() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        assert_eq!(peer_returns(peer, None), ([1, 1, 1, 0], true), "{peer:?}");
    }
    // A later server knows the tickets of the same secret, but not which of them were used.
    assert_eq!(peer_returns(Peer::Quinn, Some("secret")), ([0, 1, 0, 1], false));
    assert_eq!(peer_returns(Peer::Quinn, Some("other")), ([1, 0, 0, 1], false));
}
