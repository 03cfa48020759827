//! Servers and clients with disks that hang, over a simulated link and in simulated time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::client::{WRITE_AHEAD, receive_buffers};
use super::files::tests::StuckDisk;
use super::{ALPN, Destination, FetchError, HqClient, HqClientConfig, HqServer, HqServerConfig, Job, Progress, status};
use crate::base::time::{Duration, Instant};
use crate::datapath::sim::{SimConfig, SimLink, SimPort};
use crate::mem::BufPool;
use crate::net::Cidr;
use crate::quic::{
    ClientConfig, ConnId, Dir, EndpointConfig, Event, SendData, ServerConfig, StreamId, TransportConfig, tls,
};
use crate::runtime::{App, Context, Core, CoreConfig, Idle};

const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), 4433);

/// Simulated time of a turn of both cores.
const TURN: Duration = Duration::from_micros(20);

/// No test waits longer for real threads, even on a slow machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

fn options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![ALPN.to_vec()], ..tls::TlsOptions::default() }
}

pub(super) fn client_config() -> ClientConfig {
    let mut transport = TransportConfig { keep_alive: Some(Duration::from_secs(2)), ..TransportConfig::default() };
    HqClient::adapt(&mut transport);
    ClientConfig::new(tls::insecure_client_config(&options()).unwrap(), transport).unwrap()
}

fn server_config(pool: &BufPool) -> ServerConfig {
    let cert = CertificateDer::from_pem_slice(include_bytes!("../../sim/cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../sim/key.pem")).unwrap();
    let mut transport = TransportConfig::default();
    HqServer::adapt(&mut transport, pool);
    ServerConfig::new(tls::server_config(vec![cert], key, &options()).unwrap(), transport).unwrap()
}

fn core<A: App>(port: SimPort, host: u8, server: Option<ServerConfig>, pool: BufPool, app: A) -> Core<SimPort, A> {
    let endpoint = EndpointConfig { max_connections: 8, ..EndpointConfig::from_seed([host; 32]) };
    let config = CoreConfig::new(Cidr::new(IpAddr::from([10, 9, 0, host]), 24).unwrap(), endpoint);
    let listen = server.is_some().then_some(REMOTE.port());
    Core::new(port, CoreConfig { listen, server, pool, idle: Idle::Spin, ..config }, app).unwrap()
}

/// The configuration of a server of `dir`, which also stores uploads there.
fn serving(dir: &Path, file_patience: Duration) -> HqServerConfig {
    HqServerConfig { root: dir.into(), uploads: Some(dir.into()), preload: 0, file_patience }
}

struct World<C> {
    client: Core<SimPort, C>,
    server: Core<SimPort, HqServer>,
    now: Instant,
    start: std::time::Instant,
}

impl<C: App> World<C> {
    /// Creates a world with `client` and a server of `dir`, which also stores uploads there, on `disk`.
    fn new(dir: &Path, client: C, disk: &Arc<StuckDisk>) -> Self {
        Self::with_patience(dir, client, disk, super::FILE_PATIENCE)
    }

    /// The same with a server that waits for its disk for at most `patience`.
    fn with_patience(dir: &Path, client: C, disk: &Arc<StuckDisk>, patience: Duration) -> Self {
        let pool = BufPool::heap();
        let app = HqServer::with_disk(&serving(dir, patience), &pool, Some(disk.delay())).unwrap();
        Self::of(client, app, pool)
    }

    /// A client and a server with its pool.
    fn of(client: C, app: HqServer, pool: BufPool) -> Self {
        let (a, b) = SimLink::pair(SimConfig::default());
        Self {
            client: core(a, 2, None, BufPool::heap(), client),
            server: core(b, 1, Some(server_config(&pool)), pool, app),
            now: Instant::from_nanos(1_000_000_000),
            start: std::time::Instant::now(),
        }
    }

    /// Runs until `done`. Simulated time is slower than real time, so that real threads can proceed.
    fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        while !done(self) {
            assert!(self.start.elapsed() < PATIENCE, "stuck: {:?}", self.server.app.stats);
            self.now += TURN;
            let busy = [self.client.turn_at(self.now), self.server.turn_at(self.now)];
            if busy == [false; 2] {
                std::thread::sleep(TURN);
            }
        }
    }

    /// Advances the time while nothing else happens.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            for _ in 0..4 {
                self.now += TURN;
                self.client.turn_at(self.now);
                self.server.turn_at(self.now);
            }
        }
    }
}

fn hq_config() -> HqClientConfig {
    HqClientConfig {
        remote: REMOTE,
        server_name: "hq.test".into(),
        client: client_config(),
        jobs: Vec::new(),
        migrate_every: None,
        hash: false,
        hold: 0,
        resume: false,
    }
}

/// Files that go to `dir`, each as `got-` and its name.
fn jobs(dir: &Path, names: &[&str]) -> Vec<Job> {
    let output = |name| Destination::File(dir.join(format!("got-{name}")));
    names.iter().map(|name| Job { path: format!("/{name}"), output: output(name) }).collect()
}

fn getter(dir: &Path, names: &[&str], disk: Option<&Arc<StuckDisk>>) -> HqClient {
    let config = HqClientConfig { jobs: jobs(dir, names), ..hq_config() };
    HqClient::with_disk(config, Arc::new(Progress::default()), disk.map(StuckDisk::delay)).unwrap()
}

/// A client that can be told to leave.
struct Leaver {
    getter: HqClient,
    conn: Option<ConnId>,
    leaves: bool,
}

impl App for Leaver {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        self.conn = Some(conn);
        self.getter.on_event(cx, conn, event);
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        self.getter.on_turn(cx);
        if let Some(conn) = self.conn.filter(|_| self.leaves) {
            cx.close(conn, 0, "goes");
        }
    }
}

/// Files used to be looked up in the poll loop: with one that hung, nobody was served.
#[test]
fn a_stuck_file_holds_up_its_own_request_only_and_is_refused_in_time() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "stuck"] {
        std::fs::write(dir.path().join(name), vec![7; 3_000_000]).unwrap();
    }
    let disk = Arc::new(StuckDisk::default());
    // More of them than the server has permanent threads, on one connection.
    let names = ["stuck", "a", "stuck", "stuck", "stuck", "stuck", "b"];
    let mut world = World::new(dir.path(), getter(dir.path(), &names, None), &disk);
    // As many as are fetched at a time are blocked when the first good file arrives.
    world.run_until(|world| world.client.app.fetched.len() == 1 && disk.stuck.load(Ordering::SeqCst) == 4);
    assert_eq!(world.server.app.stats.refused, 0);
    world.pass(Duration::from_secs(19));
    assert_eq!(world.server.app.stats.refused, 0, "not before its time");
    world.pass(Duration::from_secs(2));
    // The next one, on the same connection.
    world.run_until(|world| world.client.app.fetched.len() == 2 && disk.stuck.load(Ordering::SeqCst) == 5);
    assert_eq!((world.server.app.stats.refused, world.server.app.stats.files), (4, 2));
    world.pass(Duration::from_secs(21));
    world.run_until(|world| world.client.app.is_done());
    let codes = world.client.app.errors.iter().map(|error| match error {
        FetchError::Refused { code, .. } => *code,
        other => panic!("{other}"),
    });
    assert_eq!(codes.collect::<Vec<_>>(), [status::TIMEOUT; 5]);
    // The threads' late results are ignored.
    disk.release();
    world.pass(Duration::from_secs(1));
    assert_eq!((world.server.app.stats.refused, world.server.app.stats.files), (5, 2));
}

/// When a client leaves, its requests end, including blocked ones.
#[test]
fn requests_end_with_their_connection_and_memory_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stuck"), vec![7; 3_000_000]).unwrap();
    let disk = Arc::new(StuckDisk::default());
    let client = Leaver { getter: getter(dir.path(), &["stuck", "stuck"], None), conn: None, leaves: false };
    let mut world = World::new(dir.path(), client, &disk);
    world.run_until(|_| disk.stuck.load(Ordering::SeqCst) == 2);
    assert_eq!(world.server.app.open_requests(), 2);
    world.client.app.leaves = true;
    world.run_until(|world| world.server.app.open_requests() == 0);
    disk.release();
    world.pass(Duration::from_secs(25));
    assert_eq!(world.server.app.stats.refused, 0, "there is nobody to refuse");
}

/// Sends one upload in pieces.
struct Putter {
    conn: Option<ConnId>,
    stream: Option<StreamId>,
    answer: Option<Result<(), u64>>,
}

impl App for Putter {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                let mut conn = cx.conn(id).unwrap();
                let stream = conn.open(Dir::Bidi).unwrap();
                let request = [&b"PUT /stuck\r\n"[..], &[7; 100_000]].concat();
                conn.send(stream, SendData::Bytes(request.into()), true).unwrap();
                self.stream = Some(stream);
            }
            Event::Finished { .. } => self.answer = Some(Ok(())),
            Event::Reset { code, .. } => self.answer = Some(Err(code)),
            Event::Closed { reason } => panic!("{reason}"),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_none() {
            self.conn = Some(cx.connect(&client_config(), "hq.test", REMOTE).unwrap());
        }
    }
}

#[test]
fn an_upload_to_a_stuck_disk_is_refused_and_its_connection_lives() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(StuckDisk::default());
    let putter = Putter { conn: None, stream: None, answer: None };
    let mut world = World::new(dir.path(), putter, &disk);
    world.run_until(|_| disk.stuck.load(Ordering::SeqCst) == 1);
    world.pass(Duration::from_secs(19));
    assert_eq!(world.client.app.answer, None);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.client.app.answer, Some(Err(status::TIMEOUT)));
    assert_eq!(world.server.endpoint_stats().handshakes, 1);
    disk.release();
    drop(world);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

/// A client whose disk hangs throttles the server, and the connection stays open. The whole pool used to be taken by
/// data that waited for the disk, whatever `--hold` said.
#[test]
fn a_stuck_disk_of_the_client_bounds_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let size = 200 << 20;
    std::fs::File::create(dir.path().join("stuck")).unwrap().set_len(size).unwrap();
    let (fast, disk) = (Arc::new(StuckDisk::default()), Arc::new(StuckDisk::default()));
    fast.release();
    let client = getter(dir.path(), &["stuck"], Some(&disk));
    // Time is advanced while real threads read for the server.
    let mut world = World::with_patience(dir.path(), client, &fast, Duration::MAX);
    let received = |world: &World<HqClient>| world.client.app.received();
    world.run_until(|world| received(world) >= WRITE_AHEAD);
    world.pass(Duration::from_secs(60));
    // Buffers already provided, and the one in which the limit was reached.
    let most = WRITE_AHEAD + (17 * receive_buffers(0).0) as u64;
    assert!(received(&world) <= most, "{} bytes wait for the disk", received(&world));
    disk.release();
    world.run_until(|world| world.client.app.is_done());
    assert!(world.client.app.errors.is_empty(), "{:?}", world.client.app.errors);
    assert_eq!(std::fs::metadata(dir.path().join("got-stuck")).unwrap().len(), size);
}

/// An empty file whose answer came while its download waited for memory never ended: without buffers, its end is reported
/// as `Readable`, buffers are then refused as `Finished`, and `get` waited for ever.
#[test]
fn an_empty_file_arrives_while_the_disk_holds_all_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, size| std::fs::File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
    // More than may wait for the disk, but less than has been provided by then.
    file("slow", WRITE_AHEAD + (256 << 10));
    file("stuck", 1);
    file("empty", 0);
    let disk = Arc::new(StuckDisk::default());
    // The client's disk hangs with `slow` only, the server's with `stuck`.
    let slow = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let hangs = slow.clone();
    let delay: super::files::Delay = Arc::new(move |path: &Path| {
        while path.as_os_str().as_encoded_bytes().ends_with(b"slow") && hangs.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    // Those of `stuck` leave room for one more, which is requested when `slow` has arrived.
    let names = ["slow", "stuck", "stuck", "stuck", "empty"];
    let config = HqClientConfig { jobs: jobs(dir.path(), &names), ..hq_config() };
    let client = HqClient::with_disk(config, Arc::new(Progress::default()), Some(delay)).unwrap();
    let mut world = World::with_patience(dir.path(), client, &disk, Duration::MAX);
    world.run_until(|world| world.client.app.received() >= WRITE_AHEAD + (256 << 10));
    world.pass(Duration::from_secs(1));
    slow.store(false, Ordering::SeqCst);
    disk.release();
    world.run_until(|world| world.client.app.is_done());
    assert!(world.client.app.errors.is_empty(), "{:?}", world.client.app.errors);
    assert_eq!(world.client.app.fetched.len(), names.len());
}

/// Requests the same file on as many streams as it can open.
#[derive(Default)]
struct Insistent {
    connected: bool,
    requests: usize,
}

impl App for Insistent {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                let mut conn = cx.conn(id).unwrap();
                while let Ok(stream) = conn.open(Dir::Bidi) {
                    conn.send(stream, SendData::Bytes("GET /stuck\r\n".into()), true).unwrap();
                    self.requests += 1;
                }
            }
            Event::Closed { reason } => panic!("{reason}"),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.connected, true) {
            cx.connect(&client_config(), "hq.test", REMOTE).unwrap();
        }
    }
}

/// Each core used to have file threads of its own.
#[test]
fn cores_share_their_file_threads_and_none_takes_the_part_of_another() {
    const CORES: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "stuck"] {
        std::fs::write(dir.path().join(name), name.repeat(3_000_000)).unwrap();
    }
    let disk = Arc::new(StuckDisk::default());
    let pools: Vec<_> = (0..CORES).map(|_| BufPool::heap()).collect();
    let config = serving(dir.path(), Duration::MAX);
    let servers = HqServer::for_cores_with_disk(&config, &BufPool::heap(), &pools, Some(disk.delay())).unwrap();
    assert_eq!(servers.iter().map(HqServer::file_threads).collect::<Vec<_>>(), [4; CORES], "the same four");
    let mut pairs = servers.into_iter().zip(pools);
    let (server, pool) = pairs.next().unwrap();
    let mut greedy = World::of(Insistent::default(), server, pool);
    // Of 64 threads, 8 are reserved for each of the other cores.
    let most = 64 - 3 * 8;
    while disk.stuck.load(Ordering::SeqCst) < most {
        assert!(greedy.start.elapsed() < PATIENCE);
        greedy.pass(Duration::from_millis(50));
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(greedy.client.app.requests > most + 8, "{} requests", greedy.client.app.requests);
    let mut others = Vec::new();
    for (stuck, (server, pool)) in (most + 1..).zip(pairs) {
        let into = tempfile::tempdir().unwrap();
        let mut world = World::of(getter(into.path(), &["a", "stuck", "b", "c"], None), server, pool);
        world.run_until(|world| world.client.app.fetched.len() == 3);
        world.run_until(|_| disk.stuck.load(Ordering::SeqCst) == stuck);
        for name in ["a", "b", "c"] {
            let got = std::fs::read(into.path().join(format!("got-{name}"))).unwrap();
            assert_eq!(got.len(), 3_000_000);
            assert!(got.iter().all(|byte| [*byte] == name.as_bytes()));
        }
        others.push((world, into));
    }
    assert_eq!((greedy.server.app.stats.refused, greedy.server.app.open_requests()), (0, greedy.client.app.requests));
    disk.release();
    for (world, _into) in &mut others {
        world.run_until(|world| world.client.app.is_done());
        assert_eq!((world.client.app.fetched.len(), world.server.app.stats.files), (4, 4));
    }
}
