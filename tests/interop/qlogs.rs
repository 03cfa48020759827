//! Qlog files of connections with other implementations.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::peers::Peer;
use crate::peers::gannet::{Gannet, Trust, url};
use crate::require_root;
use crate::scene::Scene;

/// Size of the file transferred, in bytes.
const LEN: u64 = 3_000_000;

/// The events of the only file in `dir`, whose name ends with `end`.
fn events(dir: &Path, end: &str) -> Vec<Value> {
    let files: Vec<_> = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("a file").path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(file.to_str().is_some_and(|name| name.ends_with(end)), "{file:?}");
    let text = fs::read_to_string(file).expect("UTF-8");
    let records = text.split('\u{1e}').skip(1).map(|record| serde_json::from_str(record).expect(record));
    let all: Vec<Value> = records.collect();
    assert_eq!(all[0]["file_schema"], "urn:ietf:params:qlog:file:sequential");
    all.into_iter().skip(1).collect()
}

/// Number of bytes of the stream 0 that packets of this kind carried, each counted once; and whether every packet came
/// once.
fn stream_bytes(events: &[Value], name: &str) -> u64 {
    let (mut numbers, mut ranges) = (BTreeSet::new(), BTreeSet::new());
    for event in events.iter().filter(|event| event["name"] == name) {
        let header = &event["data"]["header"];
        let id = (header["packet_type"].as_str().map(str::to_owned), header["packet_number"].as_u64());
        assert!(id.1.is_none() || numbers.insert(id), "twice: {event}");
        for frame in event["data"]["frames"].as_array().into_iter().flatten() {
            if frame["frame_type"] == "stream" && frame["stream_id"] == 0 {
                let [from, len] = [&frame["offset"], &frame["raw"]["length"]].map(|n| n.as_u64().expect("a number"));
                ranges.insert((from, from + len));
            }
        }
    }
    let mut reached = 0;
    ranges.into_iter().for_each(|(from, to)| {
        if from <= reached {
            reached = reached.max(to)
        }
    });
    reached
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["name"] == name).count()
}

/// Both roles: every byte of the file is in the frames, whatever path a packet takes through the engine.
#[test]
fn every_packet_is_in_the_file() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", LEN);
    let (dir, stats) = (scene.dir.path().join("made/qlogs"), scene.dir.path().join("stats.json"));
    let serve = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root());
    let server = serve.path("--qlog", &dir).path("--stats", &stats).ready();
    let getting = scene.getting(scene.server().v4, &["/file"]);
    Peer::Quinn.get(scene.client(), getting).wait().expect_success();
    sample.assert_same(&scene.out().join("file"));
    server.stop("TERM").expect_success();
    let told = events(&dir, "_server.sqlog");
    assert_eq!(stream_bytes(&told, "quic:packet_sent"), LEN);
    // How often quinn acknowledges is its own affair.
    assert!(count(&told, "quic:packet_received") > 5 && count(&told, "quic:packets_acked") > 0);
    assert_eq!((count(&told, "quic:connection_started"), count(&told, "quic:connection_closed")), (1, 1));
    let stats: Value = serde_json::from_slice(&fs::read(&stats).expect("counters")).expect("JSON");
    assert_eq!((&stats["qlog_files"], &stats["qlog_events_missing"]), (&Value::from(1), &Value::from(0)), "{stats}");

    let scene = Scene::gannet_gets(1500);
    let sample = scene.sample("file", LEN);
    let (dir, out) = (scene.dir.path().join("qlogs"), scene.dir.path().join("got"));
    let _server = Peer::Quinn.serve(scene.server(), scene.serving(scene.server().v4));
    let urls = [url(scene.server().v4, "/file")];
    Gannet::get(scene.client(), Trust::Ca(&scene.pki.ca), &out, &urls).path("--qlog", &dir).run().expect_success();
    sample.assert_same(&out);
    let told = events(&dir, "_client.sqlog");
    assert_eq!(stream_bytes(&told, "quic:packet_received"), LEN);
}
