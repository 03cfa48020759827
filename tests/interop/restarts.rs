//! What clients are told when their server is killed and restarted.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::peers::gannet::Gannet;
use crate::peers::process::Finished;
use crate::require_root;
use crate::scene::Scene;

/// The message of a client that is told.
const HEARD: &str = "stateless reset";

/// Kills a server while a client sends requests, and starts another one with the secret of that name. Returns how the
/// client ended, and the counters of the second server.
fn kill_and_start_again(second: &str) -> (Finished, serde_json::Value) {
    let scene = Scene::gannet_alone();
    let stats = scene.dir.path().join("stats");
    let server = |secret: &str| {
        Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key)
            .path("--secret", &scene.dir.path().join(secret))
            .path("--stats", &stats)
            .ready()
    };
    let first = server("secret");
    let made = fs::metadata(scene.dir.path().join("secret")).expect("the secret was made");
    assert_eq!((made.len(), made.permissions().mode() & 0o7777), (32, 0o600));
    let load = ["--upload", "100", "--download", "100", "--rate", "20", "--duration", "6s"];
    let client = Gannet::perf_client(scene.client(), scene.server().v4).args(load).spawn();
    // One line per second; the first one reports requests.
    client.wait_stderr("requests/s");
    let crashed = first.stop("KILL");
    assert_eq!(crashed.status.code(), None, "{}", crashed.transcript());
    let server = server(second);
    let done = client.wait();
    server.stop("TERM").expect_success();
    let counters = fs::read_to_string(&stats).expect("counters");
    (done, serde_json::from_str(&counters).expect("JSON"))
}

/// Within one round trip of its next packet: the second server receives hardly more than one.
#[test]
fn a_client_hears_of_a_crash_from_the_next_server_with_the_secret() {
    require_root!();
    let (done, counters) = kill_and_start_again("secret");
    done.clone().expect_failure().expect_message(&[HEARD]);
    let unknown = counters["quic_unknown_connection"].as_u64();
    assert!(unknown.is_some_and(|n| (1..=8).contains(&n)), "{counters:#}");
}

#[test]
fn a_server_with_another_secret_is_not_believed() {
    require_root!();
    let (done, counters) = kill_and_start_again("other");
    // It still waits when its time is over.
    let transcript = done.expect_success().transcript();
    assert!(!transcript.contains(HEARD), "{transcript}");
    let heard: u64 =
        ["quic_unknown_connection", "quic_foreign_id"].map(|name| counters[name].as_u64().unwrap()).iter().sum();
    assert!(heard > 0, "the client has not asked again: {counters:#}");
}

/// No port is opened with an invalid secret.
#[test]
fn a_secret_that_others_know_is_refused() {
    require_root!();
    let scene = Scene::gannet_alone();
    let secret = scene.dir.path().join("secret");
    for (bytes, mode, why) in [(32, 0o644, "chmod 600"), (31, 0o600, "31 bytes")] {
        fs::write(&secret, vec![7; bytes]).expect("a file");
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("its mode");
        let server =
            Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key).path("--secret", &secret).run();
        server.expect_failure().expect_message(&[why]);
        assert_eq!(fs::read(&secret).expect("a file"), vec![7; bytes]);
        fs::remove_file(&secret).expect("a file");
    }
    let root = scene.root();
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &root).path("--secret", &root).run();
    server.expect_failure().expect_message(&["not a regular file"]);
}
