//! Datagrams (RFC 9221) with other implementations, in both roles.

use serde_json::Value;

use crate::peers::gannet::Gannet;
use crate::peers::{ClientOptions, Peer, ServerOptions};
use crate::require_root;
use crate::scene::Scene;

/// Sends 1,000 datagrams per second to `peer`, which returns them.
fn send_to(peer: Peer) {
    let scene = Scene::gannet_gets(1500);
    let options = ServerOptions { alpn: "perf".into(), ..scene.serving(scene.server().v4) };
    let _server = peer.serve(scene.server(), options);
    let json = scene.dir.path().join("results.json");
    let client = Gannet::perf_client(scene.client(), scene.server().v4);
    let done = client.args(["--datagrams", "1k/1000", "--duration", "1s"]).path("--json", &json).run().expect_success();
    let results: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let count = |name: &str| results[name].as_u64().unwrap();
    assert_eq!(count("datagrams_due"), 1000, "{}", done.transcript());
    // A machine that is busy with other things may lose some.
    assert!(count("datagrams_sent") > 500, "{}", done.transcript());
    assert!(count("datagrams_returned") > count("datagrams_sent") / 2, "{}", done.transcript());
    assert_eq!(count("bytes_copied"), 0);
}

#[test]
fn quinn_and_aioquic_return_datagrams() {
    require_root!();
    send_to(Peer::Quinn);
    send_to(Peer::Aioquic);
}

#[test]
fn datagrams_of_quinn_are_returned() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let server = Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key).ready();
    let options = scene.getting(scene.server().v4, &[]);
    let options = ClientOptions { alpn: "perf".into(), datagrams: 500, ..options };
    let done = Peer::Quinn.get(scene.client(), options).wait().expect_success();
    let returned: u32 = done.lines("returned ")[0].trim_start_matches("returned ").parse().unwrap();
    assert!((251..=500).contains(&returned), "{}", done.transcript());
    server.stop("TERM").expect_success();
}
