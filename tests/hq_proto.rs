//! hq-interop over a simulated link: both cores in one thread, real files, no network.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::datapath::sim::{SimConfig, SimLink, SimPort};
use gannet::mem::{BufPool, Hugepages, PoolConfig};
use gannet::net::Cidr;
use gannet::proto::hq::{
    ALPN, Destination, FILE_PATIENCE, FetchError, HqClient, HqClientConfig, HqServer, HqServerConfig, Job, Progress,
};
use gannet::quic::tls::{TlsOptions, insecure_client_config, server_config};
use gannet::quic::{
    ClientConfig, ConnId, Dir, EarlyDataRequest, EndpointConfig, Event, SendData, ServerConfig, StreamId,
    TransportConfig,
};
use gannet::runtime::{App, Context, Core, CoreConfig, Idle};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1)), 4433);

/// No test takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn options() -> TlsOptions {
    TlsOptions { alpn: vec![ALPN.to_vec()], ..TlsOptions::default() }
}

fn client_config(change: impl FnOnce(&mut TransportConfig)) -> ClientConfig {
    let mut transport = TransportConfig::default();
    change(&mut transport);
    ClientConfig::new(insecure_client_config(&options()).unwrap(), transport).unwrap()
}

fn core<A: App>(port: SimPort, host: u8, server: Option<ServerConfig>, pool: BufPool, app: A) -> Core<SimPort, A> {
    let endpoint = EndpointConfig { max_connections: 8, ..EndpointConfig::from_seed([host; 32]) };
    let config = CoreConfig::new(Cidr::new(IpAddr::from([10, 77, 0, host]), 24).unwrap(), endpoint);
    let listen = server.is_some().then_some(REMOTE.port());
    Core::new(port, CoreConfig { listen, server, pool, idle: Idle::Spin, ..config }, app).unwrap()
}

/// A server of `dir/www` that stores uploads in `dir/up`, and `client`.
struct World<C> {
    client: Core<SimPort, C>,
    server: Core<SimPort, HqServer>,
    pool: BufPool,
    started: Instant,
}

impl<C: App> World<C> {
    fn new(dir: &Path, client: C, preload: u64) -> Self {
        Self::on(dir, client, preload, BufPool::heap())
    }

    fn on(dir: &Path, client: C, preload: u64, pool: BufPool) -> Self {
        Self::with(dir, client, preload, pool, |server| server)
    }

    fn with(
        dir: &Path,
        client: C,
        preload: u64,
        pool: BufPool,
        change: impl FnOnce(ServerConfig) -> ServerConfig,
    ) -> Self {
        for name in ["www", "up"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let made = rcgen::generate_simple_self_signed(vec!["hq.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = server_config(vec![made.cert.der().clone()], key, &options()).unwrap();
        let (a, b) = SimLink::pair(SimConfig::default());
        let mut transport = TransportConfig::default();
        HqServer::adapt(&mut transport, &pool);
        let config = HqServerConfig {
            root: dir.join("www"),
            uploads: Some(dir.join("up")),
            preload,
            file_patience: FILE_PATIENCE,
        };
        let app = HqServer::new(&config, &pool).unwrap();
        let server = change(ServerConfig::new(tls, transport).unwrap());
        Self {
            client: core(a, 2, None, BufPool::heap(), client),
            server: core(b, 1, Some(server), pool.clone(), app),
            pool,
            started: Instant::now(),
        }
    }

    fn run(&mut self) {
        while !self.client.app.is_done() {
            assert!(self.started.elapsed() < PATIENCE, "stuck: {:?}", self.server.app.stats);
            self.client.turn();
            self.server.turn();
        }
        let (up, down) = (self.server.endpoint_stats().placement, self.client.endpoint_stats().placement);
        assert_eq!((up.copied, down.copied), (0, 0), "bytes were copied");
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i ^ i >> 9).to_le_bytes()[0]).collect()
}

fn getter(jobs: Vec<Job>) -> HqClient {
    let config = HqClientConfig {
        remote: REMOTE,
        server_name: "hq.test".into(),
        client: client_config(HqClient::adapt),
        jobs,
        migrate_every: None,
        hash: true,
        hold: 0,
        resume: false,
    };
    HqClient::new(config, Arc::new(Progress::default())).unwrap()
}

fn job(path: &str, output: PathBuf) -> Job {
    Job { path: path.into(), output: Destination::File(output) }
}

#[test]
fn files_of_many_sizes_arrive_whole() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 15, 1200, 70_000, 1 << 20, (1 << 20) + 1, 9_000_000];
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    for n in sizes {
        std::fs::write(dir.path().join(format!("www/{n}")), bytes(n)).unwrap();
    }
    for preload in [0, 100 << 20] {
        let out = |n: usize| dir.path().join(format!("got-{preload}-{n}"));
        let jobs = sizes.map(|n| job(&format!("/{n}"), out(n)));
        let mut world = World::new(dir.path(), getter(jobs.to_vec()), preload);
        world.run();
        assert!(world.client.app.errors.is_empty(), "{:?}", world.client.app.errors);
        assert_eq!(world.client.app.fetched.len(), sizes.len());
        for n in sizes {
            assert!(std::fs::read(out(n)).unwrap() == bytes(n), "{n} bytes, preload {preload}");
        }
        assert_eq!(world.server.app.stats.files, sizes.len() as u64);
    }
}

#[test]
fn one_missing_file_does_not_keep_the_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("www/a"), bytes(5000)).unwrap();
    let out = |name: &str| dir.path().join(name);
    let jobs = vec![job("/missing", out("x")), job("/a", out("a")), job("/../up", out("y"))];
    let mut world = World::new(dir.path(), getter(jobs), 0);
    world.run();
    let mut refused: Vec<_> = world
        .client
        .app
        .errors
        .iter()
        .map(|e| match e {
            FetchError::Refused { path, code } => (path.clone(), *code),
            other => panic!("{other}"),
        })
        .collect();
    refused.sort();
    assert_eq!(refused, [("/../up".to_owned(), 403), ("/missing".to_owned(), 404)]);
    assert_eq!(world.client.app.fetched.len(), 1);
    assert!(!out("x").exists() && !out("y").exists());
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("www/a"), bytes(3_000_000)).unwrap();
    let mut world = World::new(dir.path(), getter(vec![job("/a", "/dev/full".into())]), 0);
    world.run();
    let errors: Vec<_> = world.client.app.errors.iter().map(ToString::to_string).collect();
    assert!(errors.len() == 1 && errors[0].contains("/dev/full") && errors[0].contains("space"), "{errors:?}");
}

/// Before 2026-11-28, nothing was requested any more after as many files as are fetched concurrently could not be
/// written.
#[test]
fn files_that_cannot_be_written_do_not_keep_the_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("www/a"), bytes(3_000_000)).unwrap();
    let mut jobs = vec![job("/a", "/dev/full".into()); 5];
    jobs.extend([job("/a", dir.path().join("no/dir")), job("/a", dir.path().join("got"))]);
    let mut world = World::new(dir.path(), getter(jobs), 0);
    world.run();
    assert_eq!((world.client.app.fetched.len(), world.client.app.errors.len()), (1, 6));
    assert!(std::fs::read(dir.path().join("got")).unwrap() == bytes(3_000_000));
}

/// When the connection ends, each missing file is named. Before 2026-11-28, only the connection was.
#[test]
fn what_was_not_fetched_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = ["/a", "/b", "/c"].map(|path| job(path, dir.path().join("x")));
    let mut client = getter(jobs.to_vec());
    client.finish();
    let errors: Vec<_> = client.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["/a was not fetched", "/b was not fetched", "/c was not fetched"]);

    let mut world = World::new(dir.path(), getter(jobs.to_vec()), 0);
    world.client.turn();
    let shut = |core: &mut Core<SimPort, HqClient>| core.run(&std::sync::atomic::AtomicBool::new(true)).unwrap();
    shut(&mut world.client);
    let errors: Vec<_> = world.client.app.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].contains("connection to 10.77.0.1:4433"), "{errors:?}");
    assert_eq!(errors[1..], ["/a was not fetched", "/b was not fetched", "/c was not fetched"]);
}

/// Only what a request would get is preloaded, and nothing from outside the root.
#[test]
fn preloading_does_not_follow_links_out_of_the_root() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("secret"), "x").unwrap();
    std::fs::write(dir.path().join("www/a"), "x").unwrap();
    std::os::unix::fs::symlink("../secret", dir.path().join("www/link")).unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("www/b")).unwrap();
    let jobs = ["/a", "/b", "/link", "/a/"].map(|path| job(path, dir.path().join(path.replace('/', "-"))));
    let mut world = World::new(dir.path(), getter(jobs.to_vec()), 1 << 20);
    world.run();
    let mut refused: Vec<_> = world.client.app.errors.iter().map(ToString::to_string).collect();
    refused.sort();
    assert!(refused.len() == 2 && refused[0].starts_with("/a/: ") && refused[0].contains("404"), "{refused:?}");
    assert!(refused[1].starts_with("/link: ") && refused[1].contains("403"), "{refused:?}");
    assert_eq!(world.server.app.stats.files, 2);
}

/// Sends one `PUT` and waits for the answer.
struct Putter {
    line: &'static str,
    body: Vec<u8>,
    conn: Option<ConnId>,
    stream: Option<StreamId>,
    /// The server's answer: finished, or the code of its reset.
    answer: Option<Result<(), u64>>,
    closed: bool,
}

impl Putter {
    fn new(line: &'static str, body: Vec<u8>) -> Self {
        Self { line, body, conn: None, stream: None, answer: None, closed: false }
    }
}

impl App for Putter {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                let mut conn = cx.conn(id).unwrap();
                let stream = conn.open(Dir::Bidi).unwrap();
                let request = [self.line.as_bytes(), &self.body].concat();
                conn.send(stream, SendData::Bytes(request.into()), true).unwrap();
                self.stream = Some(stream);
            }
            Event::Readable { id: stream, .. } => {
                let done = cx.conn(id).is_some_and(|mut conn| {
                    conn.consume(stream, 0);
                    conn.is_finished(stream)
                });
                if done {
                    self.answer = Some(Ok(()));
                    cx.close(id, 0, "done");
                }
            }
            Event::Reset { code, .. } => {
                self.answer = Some(Err(code));
                cx.close(id, 0, "done");
            }
            Event::Closed { .. } => self.closed = true,
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_none() {
            self.conn = Some(cx.connect(&client_config(|_| {}), "hq.test", REMOTE).unwrap());
        }
    }

    fn is_done(&self) -> bool {
        self.closed
    }
}

#[test]
fn uploads_are_kept_whole_and_placed_directly() {
    for n in [0, 1, 16 << 10, 30_000_000] {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Putter::new("PUT /new\r\n", bytes(n)), 0);
        world.run();
        assert_eq!(world.client.app.answer, Some(Ok(())), "{n} bytes");
        assert!(std::fs::read(dir.path().join("up/new")).unwrap() == bytes(n), "{n} bytes");
        let placement = world.server.endpoint_stats().placement;
        assert_eq!(placement.direct + placement.staged, n as u64 + 10);
        while world.pool.stats().in_use > 0 {
            assert!(world.started.elapsed() < PATIENCE, "memory did not come back");
            world.server.turn();
        }
    }
}

#[test]
fn uploads_elsewhere_and_nonsense_are_refused() {
    for (line, code) in
        [("PUT /../new\r\n", 403), ("PUT /sub/new\r\n", 403), ("POST /new\r\n", 400), ("PUT new\r\n", 400)]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Putter::new(line, bytes(100_000)), 0);
        world.run();
        assert_eq!(world.client.app.answer, Some(Err(code)), "{line:?}");
        assert_eq!(std::fs::read_dir(dir.path().join("up")).unwrap().count(), 0);
        assert_eq!(world.server.app.stats.refused, 1);
    }
}

/// Clients that request much and never read, and one that wants a file.
struct Crowd {
    hoarders: Vec<ConnId>,
    requests: usize,
    getter: Option<HqClient>,
}

/// Number of connections of the crowd, and number of files each requests.
const HOARDERS: usize = 4;
const WISHES: usize = 100;

impl App for Crowd {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        if !self.hoarders.contains(&id) {
            if let Some(getter) = &mut self.getter {
                getter.on_event(cx, id, event);
            }
        } else if let Event::Connected { .. } = event {
            for _ in 0..WISHES {
                let mut conn = cx.conn(id).unwrap();
                let stream = conn.open(Dir::Bidi).unwrap();
                conn.send(stream, SendData::Static(b"GET /big\r\n"), true).unwrap();
                self.requests += 1;
            }
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        while self.hoarders.len() < HOARDERS {
            // Windows that stay closed, as no buffers are provided.
            let closed = client_config(|transport| transport.stream_window_bidi_local = 0);
            self.hoarders.push(cx.connect(&closed, "hq.test", REMOTE).unwrap());
        }
        if let Some(getter) = &mut self.getter {
            getter.on_turn(cx);
        }
    }

    fn is_done(&self) -> bool {
        self.getter.as_ref().is_some_and(App::is_done)
    }
}

fn small_pool(limit_bytes: usize) -> BufPool {
    BufPool::new(PoolConfig { limit_bytes, hugepages: Hugepages::Never, numa_node: None }).unwrap()
}

/// Before 2026-11-26, the hoarders held all of the pool, and later clients got neither data nor an error.
#[test]
fn windows_that_never_open_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    let big = bytes(8_000_000);
    std::fs::write(dir.path().join("www/big"), &big).unwrap();
    let crowd = Crowd { hoarders: Vec::new(), requests: 0, getter: None };
    let mut world = World::on(dir.path(), crowd, 0, small_pool(64 << 20));
    // Until all requests were read, and the memory for that is free again.
    let mut quiet = 0;
    while quiet < 2000 {
        assert!(world.started.elapsed() < PATIENCE, "{} requests", world.client.app.requests);
        world.client.turn();
        world.server.turn();
        let asked = world.client.app.requests == HOARDERS * WISHES;
        quiet = if asked && world.pool.in_use() == 0 { quiet + 1 } else { 0 };
    }
    let out = dir.path().join("got");
    world.client.app.getter = Some(getter(vec![job("/big", out.clone())]));
    world.run();
    let getter = world.client.app.getter.as_ref().unwrap();
    assert!(getter.errors.is_empty(), "{:?}", getter.errors);
    assert!(std::fs::read(out).unwrap() == big);
    assert_eq!((world.server.app.stats.files, world.server.app.stats.refused), (1, 0));
}

/// A server without memory for an answer reports that.
#[test]
fn without_memory_a_request_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("www/big"), bytes(1_000_000)).unwrap();
    let getter = getter(vec![job("/big", dir.path().join("got"))]);
    let mut world = World::on(dir.path(), getter, 0, small_pool(100 << 10));
    world.run();
    let [error @ FetchError::Refused { code: 503, .. }] = &world.client.app.errors[..] else {
        panic!("{:?}", world.client.app.errors)
    };
    assert!(error.to_string().contains("no memory left"), "{error}");
}

/// Requests are answered even if their buffers are used up.
#[test]
fn requests_without_buffers_are_read_from_chunks() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("www/a"), bytes(1000)).unwrap();
    let jobs = (0..50).map(|n| job("/a", dir.path().join(format!("got-{n}")))).collect();
    // A sixteenth of it is less than one buffer.
    let mut world = World::on(dir.path(), getter(jobs), 1000, small_pool(63 << 10));
    world.run();
    assert!(world.client.app.errors.is_empty(), "{:?}", world.client.app.errors);
    assert_eq!(world.server.app.stats.files, 50);
}

/// A second connection resumes the session of the first, and requests files as 0-RTT data, if the server accepts it.
#[test]
fn a_second_visit_resumes_the_first() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("www")).unwrap();
    let sizes = [10, 100_000, 0, 3_000_000, 7, 8];
    for n in sizes {
        std::fs::write(dir.path().join(format!("www/{n}")), bytes(n)).unwrap();
    }
    for (wanted, allowed) in [(false, true), (true, true), (true, false)] {
        let out = |n: usize| dir.path().join(format!("got-{wanted}-{allowed}-{n}"));
        let config = HqClientConfig {
            remote: REMOTE,
            server_name: "hq.test".into(),
            client: client_config(HqClient::adapt).with_sessions(1).with_early_data(wanted),
            jobs: sizes.map(|n| job(&format!("/{n}"), out(n))).to_vec(),
            hash: false,
            hold: 0,
            migrate_every: None,
            resume: true,
        };
        let client = HqClient::new(config, Arc::new(Progress::default())).unwrap();
        let mut world = World::with(dir.path(), client, 0, BufPool::heap(), |server| {
            server.with_early_data(Arc::new(move |_: &EarlyDataRequest<'_>| allowed))
        });
        world.run();
        assert!(world.client.app.errors.is_empty(), "{:?}", world.client.app.errors);
        for n in sizes {
            assert!(std::fs::read(out(n)).unwrap() == bytes(n), "{n} bytes, 0-RTT {wanted}, {allowed}");
        }
        let stats = world.server.endpoint_stats();
        assert_eq!((stats.handshakes, stats.handshakes_resumed), (2, 1));
        assert_eq!(stats.early_data_accepted, u64::from(wanted && allowed));
        assert_eq!(stats.early_data_rejected, u64::from(wanted && !allowed));
    }
}
