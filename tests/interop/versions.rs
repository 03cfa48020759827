//! Versions with aioquic, which speaks both and negotiates (RFC 9368, RFC 9369), and with quinn, which speaks version 1.

use std::path::Path;

use crate::peers::gannet::{Gannet, url};
use crate::peers::{ClientOptions, Peer, ServerOptions};
use crate::require_root;
use crate::scene::Scene;

/// Size of the transferred file in bytes.
const LEN: u64 = 1_000_000;

const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;

/// The counters `names` in the file that `--stats` has written.
fn counts<const N: usize>(path: &Path, names: [&str; N]) -> [u64; N] {
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    names.map(|name| stats[name].as_u64().unwrap_or_else(|| panic!("{name} in {stats}")))
}

/// `gannet get` with `args` from a peer with these versions. Returns whether version 2 was used, and how often the client
/// began again.
fn gannet_gets(peer: Peer, versions: &[u32], retry: bool, args: &[&str]) -> [u64; 2] {
    let scene = Scene::gannet_gets(1500);
    let sample = scene.sample("file", LEN);
    let ip = scene.server().ip(false);
    let options = ServerOptions { versions: versions.to_vec(), retry, ..scene.serving(ip) };
    let server = peer.serve(scene.server(), options);
    let (got, stats) = (scene.out().join("got"), scene.dir.path().join("stats.json"));
    let get = scene.gannet_get(&got, &[url(ip, "/file")]).args(args).path("--stats", &stats);
    get.run().expect_success();
    sample.assert_same(&got);
    assert_eq!(server.lines("connection ").len(), 1);
    counts(&stats, ["quic_handshakes_v2", "quic_negotiations_followed"])
}

/// `gannet serve` with `args` to a peer that begins with the first of `versions`. Returns whether version 2 was used, and
/// the number of Version Negotiation packets.
fn gannet_serves(peer: Peer, first_version: u32, versions: &[u32], args: &[&str]) -> [u64; 2] {
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", LEN);
    let stats = scene.dir.path().join("stats.json");
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let server = server.args(args).path("--stats", &stats).ready();
    let options = scene.getting(scene.server().ip(false), &["/file"]);
    let options = ClientOptions { versions: versions.to_vec(), first_version, ..options };
    peer.get(scene.client(), options).wait().expect_success();
    sample.assert_same(&scene.out().join("file"));
    server.stop("TERM").expect_success();
    let [handshakes, v2, sent] = counts(&stats, ["quic_handshakes", "quic_handshakes_v2", "quic_negotiations_sent"]);
    assert_eq!(handshakes, 1);
    [v2, sent]
}

#[test]
fn get_from_aioquic_in_version_2() {
    require_root!();
    // Compatible negotiation, also after a Retry, and in the other direction. aioquic follows the client's order.
    assert_eq!(gannet_gets(Peer::Aioquic, &[V1, V2], false, &["--versions", "v2,v1"]), [1, 0]);
    assert_eq!(gannet_gets(Peer::Aioquic, &[V1, V2], true, &["--versions", "v2,v1"]), [1, 0]);
    assert_eq!(gannet_gets(Peer::Aioquic, &[V1, V2], false, &["--first-version", "v2"]), [0, 0]);
    // Incompatible negotiation, in both directions.
    assert_eq!(gannet_gets(Peer::Aioquic, &[V2], false, &[]), [1, 1]);
    assert_eq!(gannet_gets(Peer::Aioquic, &[V1], false, &["--first-version", "v2"]), [0, 1]);
    assert_eq!(gannet_gets(Peer::Aioquic, &[V2], false, &["--versions", "v2"]), [1, 0]);
}

#[test]
fn serve_aioquic_in_version_2() {
    require_root!();
    assert_eq!(gannet_serves(Peer::Aioquic, V1, &[V1, V2], &["--versions", "v2,v1"]), [1, 0]);
    assert_eq!(gannet_serves(Peer::Aioquic, V1, &[V1, V2], &["--versions", "v2,v1", "--retry", "always"]), [1, 0]);
    assert_eq!(gannet_serves(Peer::Aioquic, V2, &[V2, V1], &[]), [0, 0]);
    assert_eq!(gannet_serves(Peer::Aioquic, V1, &[V1, V2], &["--versions", "v2"]), [1, 1]);
}

/// quinn speaks version 1 only; it accepts and sends both values of the fixed bit.
#[test]
fn quinn_keeps_to_version_1() {
    require_root!();
    assert_eq!(gannet_gets(Peer::Quinn, &[], false, &["--versions", "v2,v1"]), [0, 0]);
    assert_eq!(gannet_gets(Peer::Quinn, &[], false, &["--first-version", "v2"]), [0, 1]);
    assert_eq!(gannet_serves(Peer::Quinn, V1, &[], &["--versions", "v2,v1"]), [0, 0]);
}

/// RFC 9000 §13.4: quinn reports and sends marks, and veth does not change them. aioquic reports none.
#[test]
fn ecn_works_with_those_who_report_it() {
    require_root!();
    for (peer, works) in [(Peer::Quinn, 1), (Peer::Aioquic, 0)] {
        let scene = Scene::gannet_serves(1500);
        let sample = scene.sample("file", LEN);
        let stats = scene.dir.path().join("stats.json");
        let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
        let server = server.path("--stats", &stats).ready();
        let options = scene.getting(scene.server().ip(true), &["/file"]);
        peer.get(scene.client(), options).wait().expect_success();
        sample.assert_same(&scene.out().join("file"));
        server.stop("TERM").expect_success();
        let found = counts(&stats, ["quic_ecn_validated", "quic_ecn_failed", "quic_ecn_congestion"]);
        assert_eq!(found, [works, 1 - works, 0], "{peer:?}");
    }
}
