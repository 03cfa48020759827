//! Servers on several cores.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::peers::gannet::Gannet;
use crate::peers::{ClientOptions, Peer};
use crate::require_root;
use crate::scene::Scene;

/// The number of flows in a test: enough for each of four queues to get some.
const FLOWS: u32 = 64;

pub fn stats(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the counters")).expect("JSON")
}

/// The counter `name` of each core. They add up to the counter without a core.
#[track_caller]
pub fn each(stats: &Value, name: &str) -> Vec<u64> {
    let cores = stats["cores"].as_array().expect("cores").iter();
    let each: Vec<u64> = cores.map(|core| core[name].as_u64().unwrap_or_else(|| panic!("{name}: {core}"))).collect();
    assert_eq!(stats[name].as_u64(), Some(each.iter().sum()), "{name}: {each:?}");
    each
}

/// Runs `gannet serve` with `args`, downloads a file over [`FLOWS`] connections of quinn, each from another port, and
/// returns the server's counters. If it is `capturing`, each core has a capture file.
fn serve_flows(args: &[&str], capturing: bool) -> Value {
    let scene = Scene::gannet_serves(1500);
    let (small, file) = (scene.sample("small", 1000), scene.dir.path().join("stats.json"));
    let capture = scene.dir.path().join("frames.pcap");
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let server = server.args(args).path("--stats", &file);
    let server = if capturing { server.path("--pcap", &capture) } else { server }.ready();
    let options = ClientOptions { flows: FLOWS, ..scene.getting(scene.server().v4, &["/small"]) };
    let done = Peer::Quinn.get(scene.client(), options).wait().expect_success();
    assert_eq!(done.lines("ok ").len(), FLOWS as usize, "{}", done.transcript());
    small.assert_same(&scene.out().join("small"));
    server.stop("TERM").expect_success();
    if capturing {
        for core in 0..4 {
            let path = scene.dir.path().join(format!("frames.{core}.pcap"));
            assert!(fs::metadata(&path).is_ok_and(|file| file.len() > 1000), "{path:?}");
        }
    }
    stats(&file)
}

/// Each of four cores has connections, on a machine with any number of CPUs, and each counts its own.
#[test]
fn four_cores_serve_all_flows_of_four_queues() {
    require_root!();
    let stats = serve_flows(&["--cores", "any:4", "--preload", "1M"], true);
    let handshakes = each(&stats, "quic_handshakes");
    assert_eq!((handshakes.len(), handshakes.iter().sum::<u64>()), (4, FLOWS.into()), "{handshakes:?}");
    assert!(handshakes.iter().all(|n| *n > 0), "a core without connections: {handshakes:?}");
    assert_eq!(each(&stats, "core_exchange_full"), [0; 4]);
    let cores: Vec<_> = (0..4).map(|n| (stats["cores"][n]["core"].clone(), stats["cores"][n]["cpu"].clone())).collect();
    assert_eq!(cores, [0, 1, 2, 3].map(|n| (n.into(), Value::Null)));
}

/// The same on a port with one queue.
#[test]
fn four_cores_share_one_queue() {
    require_root!();
    let handshakes = each(&serve_flows(&["--cores", "any:4", "--spread"], false), "quic_handshakes");
    assert_eq!((handshakes.len(), handshakes.iter().sum::<u64>()), (4, FLOWS.into()), "{handshakes:?}");
    assert!(handshakes.iter().all(|n| *n > 0), "a core without connections: {handshakes:?}");
}

#[test]
fn cores_that_cannot_be_had_are_refused_by_name() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    for (args, parts) in [
        (&["--cores", "1023"][..], ["--cores 1023", "may run on CPU"]),
        (&["--cores", "any:17"], ["at most 16", "--spread"]),
        (&["--cores", "any:4", "--set", "queues=2"], ["queues = 2", "--set queues=4"]),
        (&["--cores", "any:4", "--spread", "--set", "queues=4"], ["queues = 4", "--set queues=1"]),
    ] {
        let server = Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key);
        let done = server.args(args).run().expect_failure();
        assert_eq!(done.status.code(), Some(2), "{args:?}: {}", done.transcript());
        for part in parts {
            done.expect_message(&[part]);
        }
    }
}

/// Each core used to have four threads for files, and more when they were stuck.
#[test]
fn four_cores_share_the_threads_that_read_files() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let file = scene.sample("file", 2_000_000);
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let server = server.args(["--cores", "any:4"]).ready();
    server.wait_until("four threads", || server.threads("gannet-file") == 4);
    let options = ClientOptions { flows: 16, ..scene.getting(scene.server().v4, &["/file"]) };
    let done = Peer::Quinn.get(scene.client(), options).wait().expect_success();
    let line = format!("ok /file 2000000 {}", file.sha256);
    assert_eq!(done.lines(&line).len(), 16, "{}", done.transcript());
    server.stop("TERM").expect_success();
}
