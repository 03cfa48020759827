//! Two servers behind a QUIC-LB load balancer, which was written from the draft and knows nothing but the servers' IDs
//! and, if there is one, their key.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::peers::files::Sample;
use crate::peers::gannet::{Gannet, Trust, url};
use crate::peers::netns::{Stack, Wire};
use crate::peers::pki::Pki;
use crate::peers::process::Proc;
use crate::peers::quic_lb::{Config, bytes};
use crate::peers::router::{Balancer, Change, Counts, Router};
use crate::peers::{ClientOptions, Peer};
use crate::require_root;
use crate::scene::Scene;

const KEY: &str = "8f95f09245765f80256934e50c66207f";
const OTHER_KEY: &str = "fdf726a9893ec05c0632d3956680baf0";

/// The server IDs.
const SERVERS: [&str; 2] = ["5e0000a1", "5e0000b2"];

/// Length of a file whose transfer takes thousands of packets, in bytes.
const LARGE: u64 = 8_000_000;

/// Datagrams of a client before its address changes, and from the change to the next one.
const BEFORE: u64 = 40;
const WHILE: u64 = 8;

fn balancer(key: Option<&str>) -> Balancer {
    let key = key.map(|key| bytes(key).try_into().expect("16 bytes"));
    let config = Config { rotation: 2, server_id: 4, nonce: 12, key };
    Balancer { configs: vec![config], servers: SERVERS.map(bytes).to_vec() }
}

/// Clients, a load balancer and two servers, without the processes.
struct Pool {
    dir: TempDir,
    pki: Pki,
    router: Router,
    clients: Wire,
    servers: [Wire; 2],
    keyed: bool,
}

impl Pool {
    fn new(clients: Stack, keyed: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["root", "out"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        fs::write(dir.path().join("lb.key"), format!("{KEY}\n")).expect("a file");
        fs::set_permissions(dir.path().join("lb.key"), fs::Permissions::from_mode(0o600)).expect("its mode");
        let pki = Pki::new(dir.path(), "test");
        let clients = Wire::new(Stack::Kernel, clients, 1500);
        let servers = [(); 2].map(|()| Wire::new(Stack::Bypass, Stack::Kernel, 1500));
        let router = Router::start(&clients, &servers, balancer(keyed.then_some(KEY)));
        Self { dir, pki, router, clients, servers, keyed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sample(&self, name: &str, len: u64) -> Sample {
        Sample::new(&self.path("root"), name, len, len)
    }

    fn option(&self, n: usize) -> String {
        let key = format!(",key={}", self.path("lb.key").display());
        format!("config=2,server-id={}{}", SERVERS[n], if self.keyed { &key } else { "" })
    }

    /// Server `n`.
    fn serve(&self, n: usize, args: &[&str]) -> Proc {
        let (pki, stats) = (&self.pki, self.path(&format!("stats{n}")));
        let server = Gannet::serve(&self.servers[n].left, &pki.cert, &pki.key, &self.path("root"));
        server.args(["--quic-lb", &self.option(n)]).args(args).path("--stats", &stats).ready()
    }

    fn quinn(&self, flows: u32, path: &str) -> Proc {
        let options = ClientOptions::new(self.clients.left.v4, &self.pki, &self.path("out"), &[path]);
        Peer::Quinn.get(&self.clients.right, ClientOptions { flows, ..options })
    }

    fn gannet(&self, path: &str) -> Proc {
        let urls = [url(self.clients.left.v4, path)];
        Gannet::get(&self.clients.right, Trust::Ca(&self.pki.ca), &self.path("out"), &urls).spawn()
    }

    /// The counters of server `n`, which has ended.
    fn stats(&self, n: usize) -> Value {
        let text = fs::read_to_string(self.path(&format!("stats{n}"))).expect("the counters");
        assert!(!text.contains(KEY), "no key is shown");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Ends the servers, and returns their counters.
    fn stop(&self, servers: [Proc; 2]) -> [Value; 2] {
        for server in servers {
            let done = server.stop("TERM").expect_success();
            assert!(!done.transcript().contains(KEY), "no key is shown");
        }
        [0, 1].map(|n| self.stats(n))
    }
}

fn value(stats: &Value, name: &str) -> u64 {
    stats[name].as_u64().unwrap_or_else(|| panic!("{name}: {stats}"))
}

fn both(stats: &[Value; 2], name: &str) -> [u64; 2] {
    [0, 1].map(|n| value(&stats[n], name))
}

/// A client that gets another address in mid-transfer, for which the load balancer's fallback algorithm would choose the
/// other server, and later its old address again: the fallback algorithm keeps to its new choice. The server with the
/// connection follows it.
fn roam(pool: &Pool) {
    pool.router.plan([(BEFORE, Change::Turned(true)), (0, Change::Moved(1)), (WHILE, Change::Moved(0))]);
}

/// All flows of a client arrive, each server has some, and no packet comes to the wrong one, wherever the client is.
fn serve_and_roam(client: Stack, keyed: bool, args: &[&str]) {
    let pool = Pool::new(client, keyed);
    let (small, large) = (pool.sample("small", 1000), pool.sample("large", LARGE));
    let servers = [0, 1].map(|n| pool.serve(n, args));
    let ready = servers[0].lines("ready").concat();
    let how = if keyed { "encrypted in one pass" } else { "not encrypted" };
    let told = format!("QUIC-LB configuration 2 (server ID {}, nonce of 12 bytes, {how})", SERVERS[0]);
    assert!(ready.contains(&told), "{ready}");
    let mut count = 0;
    match client {
        Stack::Kernel => {
            let done = pool.quinn(16, "/small").wait().expect_success();
            assert_eq!(done.lines("ok ").len(), 16, "{}", done.transcript());
            count += 16;
        }
        Stack::Bypass => (0..2).for_each(|_| {
            pool.gannet("/small").wait().expect_success();
            fs::remove_file(pool.path("out/small")).expect("the file");
            count += 1;
        }),
    }
    roam(&pool);
    let done = match client {
        Stack::Kernel => pool.quinn(1, "/large"),
        Stack::Bypass => pool.gannet("/large"),
    };
    done.wait().expect_success();
    count += 1;
    large.assert_same(&pool.path("out/large"));
    if client == Stack::Kernel {
        small.assert_same(&pool.path("out/small"));
    }
    assert!(pool.router.is_done(), "the transfer was over before the client was back");
    let stats = pool.stop(servers);
    let counts = pool.router.counts();
    let connections = both(&stats, "quic_handshakes");
    assert_eq!(connections.iter().sum::<u64>(), count);
    assert!(connections.iter().all(|n| *n > 0), "{connections:?}");
    // The packets from the other address came to the server that has the connection, and no other packet went astray.
    assert!(both(&stats, "quic_paths_seen").iter().sum::<u64>() > 0, "{stats:?}");
    assert_eq!(both(&stats, "quic_wrong_path"), [0, 0]);
    assert_eq!(both(&stats, "quic_foreign_id"), [0, 0]);
    assert_eq!(both(&stats, "quic_unknown_connection"), [0, 0]);
    assert_eq!(both(&stats, "quic_resets_sent"), [0, 0]);
    assert!(Counts::get(&counts.against_fallback) > WHILE, "{counts:?}");
    assert_eq!(Counts::get(&counts.short_by_fallback), 0, "{counts:?}");
    if args.contains(&"always") {
        assert_eq!(both(&stats, "quic_tokens_accepted").iter().sum::<u64>(), count);
    }
    let passes = u8::from(keyed);
    let told =
        serde_json::json!({ "config": 2, "server_id": SERVERS[1], "nonce_bytes": 12, "encryption_passes": passes });
    assert_eq!(stats[1]["quic_lb"], told);
}

/// Each server has two cores, among which the NIC's choice changes with the address, too.
#[test]
fn quinn_finds_its_server_again_from_another_address() {
    require_root!();
    serve_and_roam(Stack::Kernel, true, &["--cores", "any:2"]);
}

#[test]
fn gannet_finds_its_server_again_from_another_address() {
    require_root!();
    serve_and_roam(Stack::Bypass, true, &[]);
}

/// The same with server IDs that everyone can read; clients have to come back from a Retry.
#[test]
fn servers_on_several_cores_are_found_by_ids_that_are_not_encrypted() {
    require_root!();
    serve_and_roam(Stack::Kernel, false, &["--cores", "any:2", "--retry", "always"]);
}

/// While the load balancer has another key, it cannot read IDs: packets go where the fallback algorithm sends them, which
/// is the other server as soon as the client has another address. That server ignores them, even though it has the same
/// secret, and the connection lives on.
#[test]
fn a_load_balancer_without_the_key_ends_no_connection() {
    require_root!();
    let pool = Pool::new(Stack::Kernel, true);
    let large = pool.sample("large", LARGE);
    let secret = pool.path("secret").display().to_string();
    let servers = [0, 1].map(|n| pool.serve(n, &["--secret", &secret]));
    pool.router.plan([
        (0, Change::Balancer(balancer(Some(OTHER_KEY)))),
        (BEFORE, Change::Turned(true)),
        (WHILE, Change::Balancer(balancer(Some(KEY)))),
    ]);
    pool.quinn(1, "/large").wait().expect_success();
    large.assert_same(&pool.path("out/large"));
    assert!(pool.router.is_done(), "the transfer was over before the load balancer had the key");
    let stats = pool.stop(servers);
    assert_eq!(both(&stats, "quic_handshakes"), [1, 0], "{stats:?}");
    let [_, strange] = both(&stats, "quic_foreign_id");
    assert!(strange > 0, "{stats:?}");
    assert_eq!(both(&stats, "quic_resets_sent"), [0, 0]);
    let counts = pool.router.counts();
    assert!(Counts::get(&counts.short_by_fallback) >= WHILE && Counts::get(&counts.against_fallback) > 0, "{counts:?}");
}

/// A server that was killed and started again with its secret and server ID is sent the packets of its clients, and tells
/// them.
#[test]
fn a_client_hears_of_a_crash_through_the_load_balancer() {
    require_root!();
    let pool = Pool::new(Stack::Bypass, true);
    pool.sample("small", 1000);
    let secrets = [0, 1].map(|n| pool.path(&format!("secret{n}")).display().to_string());
    let perf = |n: usize| {
        let server = Gannet::perf_server(&pool.servers[n].left, &pool.pki.cert, &pool.pki.key);
        let server = server.args(["--quic-lb", &pool.option(n), "--secret", &secrets[n]]);
        server.path("--stats", &pool.path(&format!("stats{n}"))).ready()
    };
    let [first, second] = [0, 1].map(perf);
    let load = ["--upload", "100", "--download", "100", "--rate", "20", "--duration", "100s"];
    let client = Gannet::perf_client(&pool.clients.right, pool.clients.left.v4).args(load).spawn();
    client.wait_stderr("requests/s");
    // From now on, only the server ID leads to the first server.
    pool.router.plan([(0, Change::Turned(true))]);
    first.stop("KILL");
    let first = perf(0);
    client.wait().expect_failure().expect_message(&["stateless reset"]);
    let stats = pool.stop([first, second]);
    assert_eq!(both(&stats, "quic_resets_sent")[1], 0);
    assert!(both(&stats, "quic_resets_sent")[0] > 0, "{stats:?}");
    assert_eq!(both(&stats, "quic_foreign_id"), [0, 0]);
}

/// No port is opened with settings that cannot work.
#[test]
fn settings_that_cannot_work_are_refused_before_a_port_is_opened() {
    require_root!();
    let scene = Scene::gannet_alone();
    let file = |name: &str| scene.dir.path().join(name).display().to_string();
    let run = |option: &str| {
        let server = Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key);
        server.args(["--quic-lb", option]).run().expect_failure()
    };
    for (option, part) in [
        ("config=7,server-id=01", "configuration 7 does not exist"),
        ("config=0,server-id=000102030405060708090a", "server ID of 11 bytes"),
        ("config=0,server-id=01,nonce=8", "nonce of 8 bytes"),
        ("config=0,server-id=0", "two hexadecimal digits"),
        ("server-id=01", "config is missing"),
    ] {
        let done = run(option);
        assert_eq!(done.status.code(), Some(2), "{}", done.transcript());
        done.expect_message(&[part]);
    }
    fs::write(file("short"), &KEY[..30]).expect("a file");
    for (name, part) in [
        ("none", "cannot read the QUIC-LB key"),
        ("root", "not a regular file"),
        ("short", "30 hexadecimal digits: it must have 16 bytes, or 32 hexadecimal digits"),
    ] {
        let done = run(&format!("config=0,server-id=01,key={}", file(name)));
        assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
        done.expect_message(&[part]);
        assert!(!done.transcript().contains(&KEY[..30]), "no part of a key is shown");
    }
}

/// It is a warning: configuration agents may have put the file there.
#[test]
fn a_key_that_others_may_read_is_reported() {
    require_root!();
    let scene = Scene::gannet_alone();
    let key = scene.dir.path().join("key");
    fs::write(&key, KEY).expect("a file");
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("its mode");
        let option = format!("config=0,server-id=01,key={}", key.display());
        let server = Gannet::perf_server(scene.server(), &scene.pki.cert, &scene.pki.key);
        let done = server.args(["--quic-lb", &option, "-vv"]).ready().stop("TERM").expect_success();
        let said = done.transcript();
        assert_eq!(said.contains("accessible to other users (mode 0644)"), warned, "{said}");
        assert!(!said.contains(KEY), "{said}");
    }
}
