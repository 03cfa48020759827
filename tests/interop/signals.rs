//! What signals ask of a server: new certificates (SIGHUP), and an end that waits for clients (SIGTERM, `--drain`).

use std::fs;
use std::time::Instant;

use crate::peers::Peer;
use crate::peers::gannet::Gannet;
use crate::peers::pki::Pki;
use crate::peers::process::{Finished, PATIENCE, Proc};
use crate::require_root;
use crate::scene::Scene;

/// `gannet serve` with `args`.
fn serve(scene: &Scene, args: &[&str]) -> Proc {
    Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root()).args(args).ready()
}

/// Replaces the files of the server's certificate by those of `new`, or by rubbish.
fn replace(scene: &Scene, new: Option<&Pki>) {
    let read = |path| fs::read(path).expect("a file");
    let (cert, key) = new.map_or((b"rubbish".to_vec(), b"rubbish".to_vec()), |new| (read(&new.cert), read(&new.key)));
    fs::write(&scene.pki.cert, cert).expect("written");
    fs::write(&scene.pki.key, key).expect("written");
}

/// What becomes of `flows` connections of quinn that trust the authority of `pki`.
fn get(scene: &Scene, pki: &Pki, flows: u32) -> Finished {
    let mut options = scene.getting(scene.server().v4, &["/small"]);
    (options.ca, options.flows) = (pki.ca.clone(), flows);
    Peer::Quinn.get(scene.client(), options).wait()
}

/// A client (quinn) that is stopped in the middle of the file `large`.
fn half_a_download(scene: &Scene) -> Proc {
    let client = Peer::Quinn.get(scene.client(), scene.getting(scene.server().v4, &["/large"]));
    client.wait_line("receiving");
    client.signal("STOP");
    client
}

/// New connections on all cores see the new certificate, existing ones go on, and a bad file changes nothing.
fn certificates_are_replaced(args: &[&str], flows: u32) {
    let scene = Scene::gannet_serves(1500);
    let (_small, large) = (scene.sample("small", 1000), scene.sample("large", 50_000_000));
    let new = Pki::new(scene.dir.path(), "new");
    let server = serve(&scene, args);
    let old = half_a_download(&scene);
    replace(&scene, None);
    server.signal("HUP");
    server.wait_stderr("the certificate was not replaced");
    get(&scene, &scene.pki, 1).expect_success();
    replace(&scene, Some(&new));
    server.signal("HUP");
    server.wait_stderr("were told to use them for new connections");
    // Each core begins with its next turn, for which it may have to wait.
    let deadline = Instant::now() + PATIENCE;
    while !get(&scene, &new, flows).status.success() {
        assert!(Instant::now() < deadline, "some cores have not begun to use the new certificate");
    }
    get(&scene, &scene.pki, 1).expect_failure();
    old.signal("CONT");
    old.wait().expect_success();
    large.assert_same(&scene.out().join("large"));
    let done = server.stop("TERM").expect_success();
    done.expect_message(&["test-cert.pem"]);
}

/// SIGHUP used to end a server.
#[test]
fn a_server_gets_a_new_certificate_while_it_runs() {
    require_root!();
    certificates_are_replaced(&[], 1);
}

#[test]
fn all_cores_get_a_new_certificate() {
    require_root!();
    certificates_are_replaced(&["--cores", "any:4"], 32);
}

/// A download that has begun is finished, and nobody else is served. Without `--drain`, it is closed at once.
fn servers_drain(args: &[&str]) {
    let scene = Scene::gannet_serves(1500);
    let (_small, large) = (scene.sample("small", 1000), scene.sample("large", 50_000_000));
    let server = serve(&scene, &[args, &["--drain", "10m"]].concat());
    let old = half_a_download(&scene);
    server.signal("TERM");
    server.wait_stderr("draining");
    let refused = get(&scene, &scene.pki, 1).expect_failure();
    assert_eq!(refused.status.code(), Some(2), "no connection: {}", refused.transcript());
    old.signal("CONT");
    old.wait().expect_success();
    large.assert_same(&scene.out().join("large"));
    server.wait().expect_success();
    // The second signal closes what is left.
    let server = serve(&scene, &[args, &["--drain", "10m"]].concat());
    let _old = half_a_download(&scene);
    server.signal("TERM");
    server.wait_stderr("draining");
    server.stop("TERM").expect_success();
}

#[test]
fn a_server_that_ends_lets_its_clients_finish() {
    require_root!();
    servers_drain(&[]);
}

#[test]
fn a_server_with_four_cores_lets_its_clients_finish() {
    require_root!();
    servers_drain(&["--cores", "any:4"]);
}

/// The time for it is limited, and without `--drain` there is none.
#[test]
fn no_client_keeps_a_server_from_ending() {
    require_root!();
    for (args, drains) in [(&["--drain", "300ms"][..], true), (&[], false), (&["--cores", "any:4"], false)] {
        let scene = Scene::gannet_serves(1500);
        scene.sample("large", 50_000_000);
        let server = serve(&scene, args);
        let _old = half_a_download(&scene);
        let done = server.stop("TERM").expect_success();
        let drained = done.stderr.iter().any(|line| line.contains("draining"));
        assert_eq!(drained, drains, "{}", done.transcript());
    }
}
