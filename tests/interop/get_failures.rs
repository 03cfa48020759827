//! What `gannet get` must refuse, detect and report.

use std::fs;
use std::net::IpAddr;

use crate::peers::files;
use crate::peers::gannet::{Gannet, Trust, url};
use crate::peers::netns::End;
use crate::peers::pki::Pki;
use crate::peers::process::Finished;
use crate::peers::{BULK, How, Misbehave, Peer, ServerOptions};
use crate::require_root;
use crate::scene::Scene;

/// `gannet get` fails with a message and leaves no file behind.
#[track_caller]
fn assert_failed(scene: &Scene, done: Finished, words: &[&str]) {
    let done = done.expect_failure();
    done.expect_message(words);
    assert_eq!(files::names(&scene.out()), [""; 0], "left behind\n{}", done.transcript());
}

#[test]
fn get_refuses_an_unknown_authority() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", 1000);
    let other = Pki::new(scene.dir.path(), "other");
    let ip = scene.server().v4;
    let server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    let urls = [url(ip, "/file")];
    let get = |trust| Gannet::get(scene.client(), trust, &scene.out().join("got"), &urls).run();
    assert_failed(&scene, get(Trust::Ca(&other.ca)), &["certificate"]);
    assert!(server.lines("request ").is_empty());
    // The same server is accepted without verification.
    get(Trust::Anybody).expect_success();
    assert!(scene.out().join("got").exists());
}

#[test]
fn get_refuses_a_certificate_for_another_host() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", 1000);
    let other = Pki::with_names(scene.dir.path(), "elsewhere", &["10.9.0.77", "elsewhere.test"]);
    let ip = scene.server().v4;
    let options = ServerOptions { cert: other.cert.clone(), key: other.key.clone(), ..scene.serving(ip) };
    let server = Peer::Quinn.serve(scene.server(), options);
    let urls = [url(ip, "/file")];
    let done = Gannet::get(scene.client(), Trust::Ca(&other.ca), &scene.out().join("got"), &urls).run();
    assert_failed(&scene, done, &["certificate"]);
    assert!(server.lines("request ").is_empty());
}

#[test]
fn get_needs_a_common_protocol() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", 1000);
    let ip = scene.server().v4;
    let server = Peer::Quinn.serve(scene.server(), ServerOptions { alpn: "other".into(), ..scene.serving(ip) });
    let done = scene.gannet_get(&scene.out().join("got"), &[url(ip, "/file")]).run();
    assert_failed(&scene, done, &["alpn", "application protocol", "application_protocol"]);
    assert!(server.lines("request ").is_empty());
}

#[test]
fn get_looks_first_where_it_will_write_in_the_end() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    for option in ["--stats", "--stages"] {
        let nowhere = scene.dir.path().join("nowhere").join("file");
        let get = scene.gannet_get(&scene.out().join("got"), &[url(scene.server().v4, "/file")]);
        assert_failed(&scene, get.path(option, &nowhere).run(), &["no such directory"]);
    }
}

/// Both views of a transfer with a peer: they do not disturb it, and their files can be read.
#[test]
fn get_tells_how_long_its_stages_took() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let sample = scene.sample("file", 3_000_000);
    let ip = scene.server().v4;
    let _server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    let (got, stages) = (scene.out().join("got"), scene.dir.path().join("stages.hdr"));
    let get = scene.gannet_get(&got, &[url(ip, "/file")]).args(["--live"]).path("--stages", &stages);
    get.run().expect_success();
    sample.assert_same(&got);
    let log = gannet::report::read_hdr_log(&stages).expect("a histogram log");
    let names: Vec<_> = log.series.iter().map(|series| series.name.as_str()).collect();
    let every = gannet::runtime::Stage::ALL.map(|(_, name)| name);
    assert_eq!(names, every);
    let verified = log.series.iter().find(|series| series.name == "aead_verify").map(|series| series.latency.count());
    assert!(verified >= Some(3_000_000 / 1500), "{verified:?}");
}

#[test]
fn get_reports_a_missing_file() {
    require_root!();
    for peer in [Peer::Quinn, Peer::Aioquic] {
        let scene = Scene::gannet_gets(1500);
        let ip = scene.server().v4;
        let server = peer.serve(scene.server(), scene.serving(ip));
        let done = scene.gannet_get(&scene.out().join("got"), &[url(ip, "/missing")]).run();
        assert_failed(&scene, done, &["/missing"]);
        assert_eq!(server.lines("request "), ["request /missing"]);
    }
}

/// There is no server, and not even an answer to ARP.
#[test]
fn get_gives_up_on_silence() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let nowhere = IpAddr::from([10, 9, 0, 77]);
    let done = scene.gannet_get(&scene.out().join("got"), &[url(nowhere, "/file")]).run();
    assert_failed(&scene, done, &["10.9.0.77"]);
}

/// The server starts to send the file and then misbehaves.
fn get_mid_transfer(how: How) {
    let scene = Scene::gannet_gets(1500);
    scene.sample("file", BULK);
    let ip = scene.server().v4;
    let misbehave = Some(Misbehave { after: BULK / 10, how });
    // The smaller of both idle timeouts counts (RFC 9000 §10.1): this one bounds the test.
    let server = Peer::Quinn.serve(scene.server(), ServerOptions { misbehave, idle_secs: 3, ..scene.serving(ip) });
    let get = scene.gannet_get(&scene.out().join("got"), &[url(ip, "/file")]).spawn();
    server.wait_line_beside("misbehaved /file", &get);
    assert!(!scene.out().join("got").exists(), "a file has its final name before it is complete");
    if how == How::Stall {
        server.stop("KILL");
    }
    let done = get.wait().expect_failure();
    assert!(!done.stderr.is_empty(), "it fails without a word");
    assert_eq!(files::names(&scene.out()), [""; 0], "left behind\n{}", done.transcript());
    assert!(done.lines("sha256:").is_empty(), "{}", done.transcript());
}

#[test]
fn get_notices_that_the_server_is_gone() {
    require_root!();
    get_mid_transfer(How::Stall);
}

#[test]
fn get_notices_a_close_mid_transfer() {
    require_root!();
    get_mid_transfer(How::Close);
}

#[test]
fn get_notices_a_reset_mid_transfer() {
    require_root!();
    get_mid_transfer(How::Reset);
}

/// An existing file is kept if a download fails.
#[test]
fn get_keeps_an_old_file_when_it_fails() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let ip = scene.server().v4;
    let got = scene.out().join("got");
    fs::write(&got, "old").expect("a file");
    let _server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    scene.gannet_get(&got, &[url(ip, "/missing")]).run().expect_failure().expect_message(&["/missing"]);
    assert_eq!(fs::read(&got).expect("the old file"), b"old");
    assert_eq!(files::names(&scene.out()), ["got"]);
}

/// One bad file among good ones: the good ones arrive, and the exit code reports the failure.
#[test]
fn get_reports_one_missing_file_among_others() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let ip = scene.server().v4;
    let sample = scene.sample("there", 100_000);
    let _server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
    let urls = [url(ip, "/missing"), url(ip, "/there")];
    let done = scene.gannet_get(&scene.out(), &urls).run().expect_failure();
    done.expect_message(&["/missing"]);
    sample.assert_same(&scene.out().join("there"));
    assert_eq!(files::names(&scene.out()), ["there"]);
}

/// A missing interface is reported by the commands.
#[test]
fn a_missing_interface_is_named() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let nobody = End { iface: "nowhere0".into(), ..scene.client().clone() };
    let urls = [url(scene.server().v4, "/file")];
    let done = Gannet::get(&nobody, Trust::Anybody, &scene.out().join("got"), &urls).run();
    assert_failed(&scene, done, &["nowhere0"]);
}
