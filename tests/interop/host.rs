//! Reports of `gannet` about misconfigured hosts.

use std::fs;

use crate::peers::gannet::Gannet;
use crate::peers::netns::tool;
use crate::require_root;
use crate::scene::Scene;

/// The kernel used to have the address and answered every packet with "port unreachable", although the server reported
/// "ready".
#[test]
fn serve_refuses_an_address_that_the_kernel_answers_for() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let server = scene.server();
    let serve = || Gannet::serve(server, &scene.pki.cert, &scene.pki.key, &scene.root());
    let done = serve().run().expect_failure();
    let remedy = format!("ip addr del {}/24 dev {}", server.v4, server.iface);
    done.expect_message(&[&remedy]);
    assert!(done.lines("ready").is_empty(), "{}", done.transcript());
    // The message is sufficient: with both addresses removed, it serves.
    for addr in [format!("{}/24", server.v4), format!("{}/64", server.v6)] {
        tool("ip", ["-n", &server.ns, "addr", "del", &addr, "dev", &server.iface]);
    }
    serve().ready().stop("TERM").expect_success();
}

/// Two servers with one address used to report "ready".
#[test]
fn a_second_server_of_an_address_is_refused() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let first = scene.gannet_serve();
    let second = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root()).run().expect_failure();
    second.expect_message(&["is in use by process"]);
    assert!(second.lines("ready").is_empty(), "{}", second.transcript());
    first.stop("KILL");
    // The address of a killed server is free.
    scene.gannet_serve().stop("TERM").expect_success();
}

/// RSS used to be enabled for four queues, of which one was polled.
#[test]
fn serve_refuses_queues_that_it_does_not_poll() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let done = server.args(["--set", "queues=4"]).run().expect_failure();
    done.expect_message(&["--set queues=1"]);
}

/// Counters of the device and of the driver, which used to be missing.
#[test]
fn stats_have_the_counters_of_the_device() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let stats = scene.dir.path().join("stats.json");
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    server.path("--stats", &stats).ready().stop("TERM").expect_success();
    let text = fs::read_to_string(&stats).expect("the counters");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for name in ["device_rx_missed", "device_rx_errors", "device_rx_no_buffer", "device_tx_errors", "port_rx_frames"] {
        assert!(all[name].is_u64(), "{name} is not in {text}");
    }
    assert!(all["driver"].as_object().is_some_and(|driver| driver.contains_key("rx_good_packets")), "{text}");
}
