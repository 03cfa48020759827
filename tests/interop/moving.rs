//! Addresses that change in the middle of transfers: NATs that rebind, and clients that move.

use std::fs;

use crate::cores::{each, stats};
use crate::peers::files::Sample;
use crate::peers::gannet::{Gannet, Trust, url};
use crate::peers::netns::{Stack, Wire};
use crate::peers::pki::Pki;
use crate::peers::router::{Balancer, Change, Router};
use crate::peers::{ClientOptions, Peer};
use crate::require_root;
use crate::scene::Scene;

/// Datagrams of the client from one rebinding to the next: several round trips.
const APART: u64 = 60;

/// A NAT that gives the client another source port `rebindings` times while it downloads a file of `len` bytes from a
/// server with four cores and queues: whichever queue its packets reach, they come to the core of its connection.
fn rebind(client: Stack, rebindings: u32, len: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);
    for name in ["root", "out"] {
        fs::create_dir(path(name)).expect("a directory");
    }
    let pki = Pki::new(dir.path(), "test");
    let sample = Sample::new(&path("root"), "file", len, len);
    let clients = Wire::new(Stack::Kernel, client, 1500);
    let servers = [Wire::new(Stack::Bypass, Stack::Kernel, 1500)];
    // There is one server, so it routes nothing by ID.
    let router = Router::start(&clients, &servers, Balancer { configs: Vec::new(), servers: vec![Vec::new()] });
    router.plan((1..=rebindings).map(|n| (APART, Change::Moved(n))));
    let server = Gannet::serve(&servers[0].left, &pki.cert, &pki.key, &path("root"));
    let server = server.args(["--cores", "any:4"]).path("--stats", &path("stats.json")).ready();
    let done = match client {
        Stack::Kernel => {
            let options = ClientOptions::new(clients.left.v4, &pki, &path("out"), &["/file"]);
            Peer::Quinn.get(&clients.right, options)
        }
        Stack::Bypass => {
            let urls = [url(clients.left.v4, "/file")];
            Gannet::get(&clients.right, Trust::Ca(&pki.ca), &path("out"), &urls).spawn()
        }
    };
    done.wait().expect_success();
    sample.assert_same(&path("out/file"));
    assert!(router.is_done(), "the transfer was over before the last rebinding");
    server.stop("TERM").expect_success();
    let stats = stats(&path("stats.json"));
    let sum = |name: &str| each(&stats, name).iter().sum::<u64>();
    assert_eq!(sum("quic_handshakes"), 1);
    // A few are overtaken by the next one.
    let validated = sum("quic_paths_validated");
    assert!(validated >= u64::from(rebindings) * 9 / 10, "{validated} of {rebindings} paths");
    assert_eq!((sum("quic_wrong_path"), sum("quic_resets_sent")), (0, 0));
    let added = sum("quic_path_challenges") + sum("quic_path_responses");
    println!("{rebindings} rebindings: {added} packets for validation, {} lost", sum("quic_lost_packets"));
    assert!(added <= 8 * u64::from(rebindings), "{added} packets for {rebindings} rebindings");
}

/// `GANNET_REBINDINGS=1000` rebinds as often, for some ten minutes.
#[test]
fn quinn_downloads_while_its_nat_rebinds() {
    require_root!();
    let rebindings = std::env::var("GANNET_REBINDINGS").ok().map_or(20, |n| n.parse().expect("a number"));
    // It may acknowledge a batch of packets at once.
    rebind(Stack::Kernel, rebindings, 4_000_000 * u64::from(rebindings));
}

#[test]
fn gannet_downloads_while_its_nat_rebinds() {
    require_root!();
    // It acknowledges rarely.
    rebind(Stack::Bypass, 20, 90_000_000);
}

/// Our client moves from port to port, and a server of other people follows it.
#[test]
fn quinn_follows_a_client_that_moves() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let sample = scene.sample("file", 60_000_000);
    let ip = scene.server().v4;
    let server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    let (got, file) = (scene.out().join("got"), scene.dir.path().join("stats.json"));
    let client = scene.gannet_get(&got, &[url(ip, "/file")]).args(["--migrate-every", "50ms"]).path("--stats", &file);
    client.run().expect_success();
    sample.assert_same(&got);
    let stats = stats(&file);
    let validated = stats["quic_paths_validated"].as_u64();
    assert!(validated.is_some_and(|n| n >= 3), "{stats}");
    assert_eq!(server.lines("connection ").len(), 1);
}
