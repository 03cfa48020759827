//! Clients on several cores.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::cores::{each, stats};
use crate::peers::files::{self, Sample};
use crate::peers::gannet::{Gannet, url};
use crate::peers::process::Finished;
use crate::peers::{BULK, Peer};
use crate::require_root;
use crate::scene::Scene;

/// Files to fetch, two for each of four cores and one more. No core gets more packets than the rings between cores hold,
/// so none may be lost there, however long a core has to wait for a CPU.
fn samples(scene: &Scene) -> Vec<Sample> {
    (0..9).map(|n| scene.sample(&format!("file-{n}"), 150_000 * (n % 3) + n)).collect()
}

fn urls(scene: &Scene, samples: &[Sample]) -> Vec<String> {
    urls_at(scene.server().ip(false), samples)
}

fn urls_at(ip: IpAddr, samples: &[Sample]) -> Vec<String> {
    samples.iter().map(|sample| url(ip, &format!("/{}", sample.name()))).collect()
}

/// Every file is there, and its hash was printed, in the order of the URLs.
#[track_caller]
fn assert_fetched(scene: &Scene, samples: &[Sample], done: &Finished) {
    samples.iter().for_each(|sample| sample.assert_same(&scene.out().join(sample.name())));
    let hashes: Vec<String> = samples.iter().map(|sample| format!("sha256: {}", sample.sha256)).collect();
    assert_eq!(done.lines("sha256: "), hashes, "{}", done.transcript());
    assert_eq!(files::names(&scene.out()).len(), samples.len(), "{}", done.transcript());
}

/// Nothing was lost on the way from one core to another, and no connection was reset.
#[track_caller]
fn assert_no_loss(stats: &Value) {
    for name in ["core_exchange_full", "quic_resets_sent"] {
        assert_eq!(each(stats, name).iter().sum::<u64>(), 0, "{name}");
    }
    assert_eq!(each(stats, "core_handed_over").iter().sum::<u64>(), each(stats, "core_taken_over").iter().sum::<u64>());
}

/// `gannet get` with `args` of [`samples`] from `gannet serve` with four cores; the counters of both.
fn get_from_gannet(args: &[&str]) -> [Value; 2] {
    let scene = Scene::gannet_alone();
    let samples = samples(&scene);
    let paths = ["server", "client"].map(|name| scene.dir.path().join(name));
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let server = server.args(["--cores", "any:4"]).path("--stats", &paths[0]).ready();
    let get = scene.gannet_get(&scene.out(), &urls(&scene, &samples)).args(args).path("--stats", &paths[1]);
    let done = get.run().expect_success();
    assert_fetched(&scene, &samples, &done);
    server.stop("TERM").expect_success();
    paths.map(|path| stats(&path))
}

#[test]
fn four_cores_get_files_from_four_cores() {
    require_root!();
    let [server, client] = get_from_gannet(&["--cores", "any:4"]);
    // One connection for each core.
    assert_eq!(each(&client, "quic_handshakes"), [1; 4]);
    assert_eq!(each(&server, "quic_handshakes").iter().sum::<u64>(), 4);
    [server, client].iter().for_each(assert_no_loss);
}

/// A client whose cores share one queue: answers arrive at the core that asked, as it knows how its port is shared.
#[test]
fn four_cores_of_a_client_share_one_queue() {
    require_root!();
    let [server, client] = get_from_gannet(&["--cores", "any:4", "--spread"]);
    assert_eq!(each(&client, "quic_handshakes"), [1; 4]);
    assert_eq!(each(&client, "core_handed_over"), [0; 4]);
    assert!(each(&client, "port_rx_frames").iter().all(|frames| *frames > 20), "{client}");
    [server, client].iter().for_each(assert_no_loss);
}

/// A peer that was not written here sees four clients. Its neighbour's answers reach one core, and all hear of them.
#[test]
fn four_cores_get_files_from_quinn() {
    require_root!();
    let (own, spread) = (&["--cores", "any:4"][..], &["--cores", "any:4", "--spread"][..]);
    for (args, v6) in [(own, false), (spread, false), (own, true), (spread, true)] {
        let scene = Scene::gannet_gets(1500);
        let (samples, file) = (samples(&scene), scene.dir.path().join("stats.json"));
        let capture = scene.dir.path().join("frames.pcap");
        let ip = scene.server().ip(v6);
        let server = Peer::Quinn.serve(scene.server(), scene.serving(ip));
        let get = scene.gannet_get(&scene.out(), &urls_at(ip, &samples)).args(args);
        let done = get.path("--stats", &file).path("--pcap", &capture).run().expect_success();
        assert_fetched(&scene, &samples, &done);
        assert_eq!((server.lines("connection ").len(), server.lines("request ").len()), (4, samples.len()));
        let stats = stats(&file);
        assert_eq!(each(&stats, "quic_handshakes"), [1; 4]);
        assert_no_loss(&stats);
        for core in 0..4 {
            let path = scene.dir.path().join(format!("frames.{core}.pcap"));
            assert!(fs::metadata(&path).is_ok_and(|file| file.len() > 1000), "{path:?}");
        }
    }
}

/// 64 connections of four cores, each from a port of its own, so that all cores of the server get some. The figures are
/// those of each core and their sum.
#[test]
fn perf_client_and_server_use_four_cores_each() {
    require_root!();
    let scene = Scene::gannet_alone();
    let at = |name: &str| scene.dir.path().join(name);
    let server = Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key);
    let server = server.args(["--cores", "any:4"]).path("--stats", &at("server")).ready();
    let client = Gannet::perf_client(scene.client(), scene.server().v4)
        .args([
            "--cores",
            "any:4",
            "--connections",
            "64",
            "--requests",
            "642",
            "--upload",
            "5000",
            "--download",
            "20000",
        ])
        .path("--json", &at("json"))
        .path("--stats", &at("client"))
        .path("--hdr", &at("hdr"))
        .path("--stages", &at("stages"));
    let done = client.run().expect_success();
    server.stop("TERM").expect_success();

    let report = stats(&at("json"));
    let requests = each(&report, "requests");
    assert_eq!(requests, [161, 161, 160, 160], "{}", done.transcript());
    assert_eq!((each(&report, "handshakes"), each(&report, "errors")), (vec![16; 4], vec![0; 4]));
    assert_eq!(done.lines("requests: "), ["requests: 642"]);
    assert_eq!(done.stdout.iter().filter(|line| line.trim_start().starts_with(['0', '1', '2', '3'])).count(), 4);
    let hdr = gannet::report::read_hdr_log(&at("hdr")).expect("histograms");
    let counts: Vec<_> = hdr.series.iter().map(|series| (series.name.as_str(), series.latency.count())).collect();
    assert_eq!(counts[..2], [("request", 642), ("handshake", 64)]);
    assert!(counts.contains(&("core 1: request", 161)) && counts.contains(&("core 3: handshake", 16)), "{counts:?}");
    let stages = gannet::report::read_hdr_log(&at("stages")).expect("stages");
    for core in 0..4 {
        let name = format!("core {core}: ");
        assert!(stages.series.iter().any(|series| series.name.starts_with(&name)), "no stage of {name}");
    }
    let (server, client) = (stats(&at("server")), stats(&at("client")));
    assert_eq!(each(&client, "quic_handshakes"), [16; 4]);
    let served = each(&server, "quic_handshakes");
    assert!(served.iter().all(|n| *n > 0) && served.iter().sum::<u64>() == 64, "{served:?}");
    [server, client].iter().for_each(assert_no_loss);
}

/// Fewer files, connections or requests than cores: the others only pass packets on, and the command says so.
#[test]
fn more_cores_than_work_are_told_and_harmless() {
    require_root!();
    let scene = Scene::gannet_alone();
    // Fewer packets than the rings between cores hold, as in `samples`.
    let sample = scene.sample("file", 400_000);
    let (file, out) = (scene.dir.path().join("stats"), scene.out().join("file"));
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let _server = server.args(["--cores", "any:2"]).ready();
    let get = |out: &Path| {
        let get = scene.gannet_get(out, &[url(scene.server().v4, "/file")]);
        get.args(["--cores", "any:3"]).path("--stats", &file)
    };
    let done = get(&out).run().expect_success();
    sample.assert_same(&out);
    done.expect_message(&["only 1 core of 3 can be used, as there are not more files"]);
    assert_eq!(each(&stats(&file), "quic_handshakes"), [1, 0, 0]);
    assert_no_loss(&stats(&file));
    // To a pipe, as with one core.
    let done = get(Path::new("-")).run_in(&format!("\"$@\" | cat > {}", out.display())).expect_success();
    assert!(done.stdout.is_empty());
    sample.assert_same(&out);
}

/// One result, whichever core it comes from: files that cannot be had do not keep the others from being fetched, each is
/// named once, and the exit code is that of a failure.
#[test]
fn failures_of_several_cores_are_one_result() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let samples = samples(&scene);
    let server = Peer::Quinn.serve(scene.server(), scene.serving(scene.server().v4));
    let mut urls = urls(&scene, &samples);
    urls.insert(1, url(scene.server().v4, "/missing-1"));
    urls.insert(6, url(scene.server().v4, "/missing-6"));
    let get = || scene.gannet_get(&scene.out(), &urls).args(["--cores", "any:4"]);
    let done = get().run().expect_failure();
    assert_eq!(done.status.code(), Some(1));
    assert_fetched(&scene, &samples, &done);
    for name in ["/missing-1", "/missing-6"] {
        assert_eq!(done.stderr.iter().filter(|line| line.contains(name)).count(), 1, "{}", done.transcript());
    }
    // The server is gone: this is reported once, not by each core, and each missing file is named once.
    server.stop("KILL");
    files::names(&scene.out()).iter().for_each(|name| fs::remove_file(scene.out().join(name)).expect("a file"));
    let done = get().run().expect_failure();
    let told =
        done.stderr.iter().filter(|line| line.contains("cannot reach") || line.contains("connection to")).count();
    assert_eq!(told, 1, "{}", done.transcript());
    for url in &urls {
        let name = url.rsplit('/').next().expect("a name");
        let named = done.stderr.iter().filter(|line| line.contains(&format!("/{name} was not fetched"))).count();
        assert_eq!(named, 1, "{name}: {}", done.transcript());
    }
    assert_eq!(files::names(&scene.out()), [""; 0]);
}

/// A signal ends all cores. What is complete stays, and nothing else is left behind.
#[test]
fn a_signal_ends_all_cores() {
    require_root!();
    let scene = Scene::gannet_alone();
    let sample = scene.sample("small", 1000);
    for name in ["a", "b", "c"] {
        fs::File::create(scene.root().join(name)).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    }
    let _server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root()).ready();
    let urls: Vec<_> = ["/a", "/small", "/b", "/c"].iter().map(|path| url(scene.server().v4, path)).collect();
    let get = scene.gannet_get(&scene.out(), &urls).args(["--cores", "any:4"]).spawn();
    get.wait_until("the small file", || scene.out().join("small").exists());
    let done = get.stop("INT");
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    done.expect_message(&["interrupted"]);
    assert_eq!(files::names(&scene.out()), ["small"], "{}", done.transcript());
    sample.assert_same(&scene.out().join("small"));
    for name in ["/a", "/b", "/c"] {
        let told = done.stderr.iter().filter(|line| line.contains(&format!("{name} was not fetched"))).count();
        assert_eq!(told, 1, "{name}: {}", done.transcript());
    }
}

#[test]
fn cores_that_a_client_cannot_have_are_refused_by_name() {
    require_root!();
    let scene = Scene::gannet_alone();
    for (args, parts) in [
        (&["--cores", "1023"][..], ["--cores 1023", "may run on CPU"]),
        (&["--cores", "any:17"], ["at most 16", "--spread"]),
        (&["--cores", "any:4", "--set", "queues=2"], ["queues = 2", "--set queues=4"]),
        (&["--cores", "any:4", "--spread", "--set", "queues=4"], ["queues = 4", "--set queues=1"]),
    ] {
        let get = scene.gannet_get(&scene.out().join("got"), &[url(scene.server().v4, "/file")]);
        let client = Gannet::perf_client(scene.client(), scene.server().v4).args(["--connections", "64"]);
        for command in [get, client] {
            let done = command.args(args).run().expect_failure();
            assert_eq!(done.status.code(), Some(2), "{args:?}: {}", done.transcript());
            for part in parts {
                done.expect_message(&[part]);
            }
        }
    }
}

/// More bytes than the memory of all cores holds, kept back until they are whole.
#[test]
fn cores_share_what_is_held_back() {
    require_root!();
    let scene = Scene::gannet_alone();
    let samples: Vec<_> = ["one", "two"].iter().map(|name| scene.sample(name, BULK / 2)).collect();
    let _server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root()).ready();
    let get = scene.gannet_get(&scene.out(), &urls(&scene, &samples)).args(["--cores", "any:4", "--hold", "20M"]);
    assert_fetched(&scene, &samples, &get.run().expect_success());
}
