//! The commands on several cores, over ports whose other end is not an interface of the kernel's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::kernel::{on_veth, run};
use crate::process::Proc;
use crate::support::*;

/// The connections of a load. If a hash spreads them over four queues, one of these stays empty in one of 25 million
/// runs.
const LOAD: u64 = 64;

/// The number of packets that a server may hand over to another core because of the IDs that its clients choose.
const FEW: u64 = 8;

/// A port as the command line describes it.
type PortArgs<'a> = &'a [&'a str];

/// A directory with all that a server and its clients need.
struct Stage {
    dir: tempfile::TempDir,
    /// The address of the server.
    server: &'static str,
}

/// The hash of a file that is not there is empty.
fn sha256(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else { return String::new() };
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Stage {
    fn new(server: &'static str) -> Self {
        let stage = Self { dir: scratch(), server };
        let made = rcgen::generate_simple_self_signed(vec![server.to_owned()]).unwrap();
        fs::write(stage.path("cert.pem"), made.cert.pem()).unwrap();
        fs::write(stage.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        for dir in ["root", "out"] {
            fs::create_dir(stage.path(dir)).unwrap();
        }
        for n in 0..8u32 {
            let bytes: Vec<u8> =
                (0..150_000 * (n % 3) + n).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            fs::write(stage.path(&format!("root/file-{n}")), bytes).unwrap();
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of `name` in a setting.
    fn setting(&self, key: &str, name: &str) -> String {
        format!("{key}={}", path(self.dir.path(), name))
    }

    fn gannet(&self, command: &str, port: PortArgs<'_>, stats: &str) -> Command {
        let mut gannet = Command::new(env!("CARGO_BIN_EXE_gannet"));
        gannet.args(command.split(' ')).args(port).arg("--stats").arg(self.path(stats)).current_dir(self.dir.path());
        gannet
    }

    /// Starts a server, and waits until it is ready.
    fn server(&self, command: &str, port: PortArgs<'_>, args: &[&str]) -> Proc {
        let mut server = self.gannet(command, port, "server.json");
        server.args(["--listen", "4433", "--cert", "cert.pem", "--key", "key.pem"]).args(args);
        let server = Proc::spawn(command, server);
        server.wait_line("ready");
        server
    }

    fn serve(&self, port: PortArgs<'_>) -> Proc {
        self.server("serve", port, &["--root", "root"])
    }

    fn perf_server(&self, port: PortArgs<'_>) -> Proc {
        self.server("perf server", port, &[])
    }

    /// Fetches all files.
    fn get(&self, port: PortArgs<'_>) -> Command {
        let mut get = self.gannet("get", port, "client.json");
        get.args(["--ca", "cert.pem", "-o", "out/"]);
        get.args((0..8).map(|n| format!("https://{}:4433/file-{n}", self.server)));
        get
    }

    /// A load of [`LOAD`] connections.
    fn load(&self, port: PortArgs<'_>) -> Command {
        let mut client = self.gannet("perf client", port, "client.json");
        client.args(["--insecure", "--connect", &format!("{}:4433", self.server)]);
        client.args(["--connections", &LOAD.to_string(), "--requests", "640"]);
        client.args(["--upload", "3000", "--download", "20000"]);
        client
    }

    /// The counters that a command has written.
    fn stats(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// A server, and a client that fetches all files.
    fn transfers_files(&self, server: PortArgs<'_>, client: PortArgs<'_>) {
        let server = self.serve(server);
        succeed(self.get(client));
        self.assert_fetched();
        stop(server);
    }

    /// A server and a client with two cores each, all of which carry part of the load.
    fn carries_load(&self, server: PortArgs<'_>, client: PortArgs<'_>) {
        let server = self.perf_server(server);
        succeed(self.load(client));
        stop(server);
        for name in ["client.json", "server.json"] {
            assert_all_used(&self.stats(name), 2, LOAD);
        }
    }

    /// The files are those of the server, and there are no others.
    fn assert_fetched(&self) {
        assert_eq!(fs::read_dir(self.path("out")).unwrap().count(), 8);
        for n in 0..8 {
            let [there, here] = ["root", "out"].map(|dir| sha256(&self.path(&format!("{dir}/file-{n}"))));
            assert_eq!(here, there, "file {n}");
        }
    }
}

/// Ends a server with a signal. Its figures are complete then.
fn stop(server: Proc) {
    server.stop("TERM").expect_success();
}

/// Runs a client to its successful end.
fn succeed(client: Command) {
    Proc::spawn("client", client).wait().expect_success();
}

/// The counter `name` of each core.
fn each(stats: &Value, name: &str) -> Vec<u64> {
    stats["cores"].as_array().unwrap().iter().map(|core| core[name].as_u64().unwrap()).collect()
}

/// The client's cores handed nothing over: answers arrive where the requests were sent. Its server may hand over a few
/// packets, as random connection IDs that clients choose (RFC 9000 §7.2) can look like those of another core.
fn assert_answers_come_home(stage: &Stage, cores: usize) {
    assert_eq!(each(&stage.stats("client.json"), "core_handed_over"), vec![0; cores]);
    let server = each(&stage.stats("server.json"), "core_handed_over");
    assert!(server.iter().sum::<u64>() <= FEW, "{server:?}");
}

/// Every core has had connections, and no frame was lost on the way from one to another.
fn assert_all_used(stats: &Value, cores: usize, handshakes: u64) {
    let counts = each(stats, "quic_handshakes");
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (cores, handshakes), "{counts:?}");
    assert!(counts.iter().all(|n| *n > 0), "a core without connections: {counts:?}");
    for name in ["core_exchange_full", "port_spread_full", "quic_resets_sent"] {
        assert_eq!(stats[name].as_u64(), Some(0), "{name}");
    }
    assert_eq!(stats["core_handed_over"], stats["core_taken_over"]);
}

/// What arrives at a queue of a memif was sent from the same queue of the other end: cores form pairs, and nothing is
/// handed over.
#[test]
fn cores_at_both_ends_of_a_memif_form_pairs() {
    let stage = Stage::new("10.77.0.1");
    let socket = stage.setting("socket", "memif.sock");
    let end = |role| ["--port", "memif", "--set", role, "--set", &socket, "--cores", "any:2", "--addr"];
    let server_port = [&end("role=server")[..], &["10.77.0.1/24"]].concat();
    let client_port = [&end("role=client")[..], &["10.77.0.2/24"]].concat();
    stage.transfers_files(&server_port, &client_port);
    for name in ["client.json", "server.json"] {
        assert_all_used(&stage.stats(name), 2, 2);
    }
    assert_answers_come_home(&stage, 2);
    stage.carries_load(&server_port, &client_port);
    assert_answers_come_home(&stage, 2);
}

/// A server with more queues than its client would receive every packet several times. There is no link: the client says
/// which number to set, and nothing is fetched. With that number, everything is.
#[test]
fn ends_of_a_memif_with_unequal_queues_are_told_the_number() {
    let stage = Stage::new("10.77.0.1");
    let socket = stage.setting("socket", "memif.sock");
    let port = |role, addr| ["--port", "memif", "--set", role, "--set", &socket, "--addr", addr];
    let two = ["--cores", "any:2"];
    let server_port = [&port("role=server", "10.77.0.1/24")[..], &two].concat();
    let client_port = port("role=client", "10.77.0.2/24");
    let server = stage.serve(&server_port);
    for cores in [&[][..], &["--cores", "any:3"]] {
        let done = Proc::spawn("get", stage.get(&[&client_port[..], cores].concat())).wait();
        let said = done.stderr.join("\n");
        assert_eq!(done.status.code(), Some(1), "{cores:?}: {said}");
        assert!(said.contains("--cores any:2"), "{cores:?}: {said}");
        assert_eq!(fs::read_dir(stage.path("out")).unwrap().count(), 0, "{cores:?}");
    }
    succeed(stage.get(&[&client_port[..], &two].concat()));
    stage.assert_fetched();
    stop(server);
    let stats = stage.stats("server.json");
    assert_all_used(&stats, 2, 2);
    assert_eq!(stats["quic_duplicate"].as_u64(), Some(0), "packets that arrived twice");
}

/// Several cores of a client at one queue of a memif.
#[test]
fn cores_share_the_queue_of_a_memif() {
    let stage = Stage::new("10.77.0.1");
    let socket = stage.setting("socket", "memif.sock");
    let end = |role| ["--port", "memif", "--set", role, "--set", &socket, "--cores", "any:2", "--spread", "--addr"];
    let server_port = [&end("role=server")[..], &["10.77.0.1/24"]].concat();
    let client_port = [&end("role=client")[..], &["10.77.0.2/24"]].concat();
    stage.transfers_files(&server_port, &client_port);
    stage.carries_load(&server_port, &client_port);
    // The client's ports are such that answers come home; the server keeps flows together.
    assert_answers_come_home(&stage, 2);
}

/// Sets the kernel's side of a tap up as soon as there is one.
fn set_up(iface: &str, addr: &str) {
    eventually("a tap", || Path::new(&format!("/sys/class/net/{iface}")).exists() || exists(iface));
    run(&format!("ip addr add {addr} dev {iface}"));
    run(&format!("ip link set {iface} up"));
}

/// Returns whether there is an interface of this name in this namespace, of which sysfs may show another.
fn exists(iface: &str) -> bool {
    fs::read_to_string("/proc/thread-self/net/dev").is_ok_and(|text| text.contains(&format!("{iface}:")))
}

/// Two taps with four queues each, and the kernel as the router between them.
#[test]
fn four_cores_of_a_client_and_a_server_on_taps() {
    let name = "commands::four_cores_of_a_client_and_a_server_on_taps";
    on_veth(name, 1500, || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let stage = Stage::new("10.8.1.2");
        let end = |iface, addr, router| {
            ["--port", "tap", "--set", iface, "--cores", "any:4", "--addr", addr, "--gateway", router]
        };
        let server_port = end("iface=gan-s", "10.8.1.2/24", "10.8.1.1");
        let client_port = end("iface=gan-c", "10.8.2.2/24", "10.8.2.1");
        let succeed = |command: Command| {
            let client = Proc::spawn("client", command);
            set_up("gan-c", "10.8.2.1/24");
            client.wait().expect_success();
        };
        let server = stage.serve(&server_port);
        set_up("gan-s", "10.8.1.1/24");
        succeed(stage.get(&client_port));
        stage.assert_fetched();
        assert_all_used(&stage.stats("client.json"), 4, 4);
        stop(server);
        let server = stage.perf_server(&server_port);
        set_up("gan-s", "10.8.1.1/24");
        succeed(stage.load(&client_port));
        stop(server);
        for name in ["client.json", "server.json"] {
            assert_all_used(&stage.stats(name), 4, LOAD);
        }
    });
}
