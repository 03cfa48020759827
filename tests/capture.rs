//! Traffic on the wire, checked by tshark: checksums, decryption with the logged secrets, frames.
#![forbid(unsafe_code)]

mod peers;

use std::fs;
use std::path::{Path, PathBuf};

use peers::files::Sample;
use peers::netns::Wire;
use peers::pki::Pki;
use peers::tshark::{Decoded, Tap};
use peers::{ClientOptions, Peer, ServerOptions};
use tempfile::TempDir;

quinn_peer_entry!();

/// Size of the file transferred in a capture, in bytes.
const LEN: u64 = 2_000_000;

/// A temporary directory with a file to serve and certificates.
struct Scene {
    dir: TempDir,
    pki: Pki,
    sample: Sample,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("root")).expect("a directory");
        let pki = Pki::new(dir.path(), "test");
        let sample = Sample::new(&dir.path().join("root"), "file", LEN, 1);
        Self { dir, pki, sample }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn server(&self, wire: &Wire) -> ServerOptions {
        ServerOptions::new(wire.left.v4, &self.pki, &self.path("root"))
    }

    fn client(&self, wire: &Wire) -> ClientOptions {
        fs::create_dir(self.path("out")).expect("a directory");
        ClientOptions::new(wire.left.v4, &self.pki, &self.path("out"), &["/file"])
    }
}

/// Captures quinn serving aioquic; returns the capture and the server's secrets.
fn capture(scene: &Scene) -> (PathBuf, PathBuf) {
    let wire = Wire::kernels(1500);
    let tap = Tap::start(&wire.right, &scene.path("wire.pcap"));
    let keylog = scene.path("keys.log");
    let options = ServerOptions { keylog: Some(keylog.clone()), ..scene.server(&wire) };
    let _server = Peer::Quinn.serve(&wire.left, options);
    Peer::Aioquic.get(&wire.right, scene.client(&wire)).wait().expect_success();
    scene.sample.assert_same(&scene.path("out/file"));
    (tap.stop(), keylog)
}

/// The end of the longest frame of a capture: its last byte belongs to an authentication tag.
fn end_of_longest(pcap: &[u8]) -> usize {
    let (mut at, mut longest) = (24, 0..0);
    while let Some(record) = pcap.get(at..at + 16) {
        let len = u32::from_le_bytes(record[8..12].try_into().expect("four bytes")) as usize;
        let frame = at + 16..at + 16 + len;
        at = frame.end;
        longest = if frame.len() > longest.len() { frame } else { longest };
    }
    longest.end
}

/// Whether tshark finds faults in a capture.
fn condemned(pcap: &Path, keylog: &Path) -> bool {
    std::panic::catch_unwind(|| Decoded::new(pcap, keylog).assert_sane()).is_err()
}

/// tshark accepts the capture of two implementations that are known to be good, and rejects damaged ones.
#[test]
fn judge_is_just() {
    require_root!();
    let scene = Scene::new();
    let (pcap, keylog) = capture(&scene);
    let decoded = Decoded::new(&pcap, &keylog);
    decoded.assert_sane();
    assert!(decoded.datagrams as u64 > LEN / 1500, "{decoded:?}");
    assert!(decoded.longest <= 1500 - 20, "{decoded:?}");

    let no_keys = scene.path("no-keys.log");
    fs::write(&no_keys, "").expect("an empty file");
    assert!(condemned(&pcap, &no_keys), "acquitted without having seen anything");

    let mut bytes = fs::read(&pcap).expect("the capture");
    let last = end_of_longest(&bytes) - 1;
    bytes[last] ^= 1;
    let damaged = scene.path("damaged.pcap");
    fs::write(&damaged, &bytes).expect("a damaged capture");
    assert!(condemned(&damaged, &keylog), "one wrong bit went unnoticed");
}

#[cfg(feature = "cli")]
mod over_dpdk {
    use super::*;
    use crate::peers::gannet::{Gannet, Trust, url};
    use crate::peers::netns::Stack;

    /// Both the server's own capture and the one at its peer's interface.
    #[test]
    fn gannet_serve_is_sane_on_the_wire() {
        require_root!();
        let scene = Scene::new();
        let wire = Wire::new(Stack::Bypass, Stack::Kernel, 1500);
        let (own, keylog) = (scene.path("own.pcap"), scene.path("keys.log"));
        let tap = Tap::start(&wire.right, &scene.path("wire.pcap"));
        let serve = Gannet::serve(&wire.left, &scene.pki.cert, &scene.pki.key, &scene.path("root"));
        let server = serve.path("--keylog", &keylog).path("--pcap", &own).ready();
        Peer::Quinn.get(&wire.right, scene.client(&wire)).wait().expect_success();
        scene.sample.assert_same(&scene.path("out/file"));
        server.stop("TERM").expect_success();
        Decoded::new(&tap.stop(), &keylog).assert_sane();
        Decoded::new(&own, &keylog).assert_sane();
    }

    #[test]
    fn gannet_get_is_sane_on_the_wire() {
        require_root!();
        let scene = Scene::new();
        let wire = Wire::new(Stack::Kernel, Stack::Bypass, 1500);
        let (out, keylog) = (scene.path("got"), scene.path("keys.log"));
        let tap = Tap::start(&wire.left, &scene.path("wire.pcap"));
        let options = ServerOptions { keylog: Some(keylog.clone()), ..scene.server(&wire) };
        let _server = Peer::Quinn.serve(&wire.left, options);
        let urls = [url(wire.left.v4, "/file")];
        Gannet::get(&wire.right, Trust::Ca(&scene.pki.ca), &out, &urls).run().expect_success();
        scene.sample.assert_same(&out);
        Decoded::new(&tap.stop(), &keylog).assert_sane();
    }
}
