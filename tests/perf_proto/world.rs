//! A client core and a server core on the two ends of a simulated link, in one thread.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use gannet::datapath::Datapath;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};
use gannet::mem::BufPool;
use gannet::net::{Cidr, NetConfig};
use gannet::proto::perf::{ALPN, PerfClient, PerfPlan, PerfServer, server_transport};
use gannet::quic::tls::{TlsOptions, insecure_client_config, server_config};
use gannet::quic::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig};
use gannet::runtime::{App, Core, CoreConfig, Idle};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Where the server listens.
pub const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1)), 4433);

/// No test takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

static SERVER_TLS: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| server_tls(ALPN));

pub fn server_tls(alpn: &[u8]) -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["perf.test".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    server_config(vec![made.cert.der().clone()], key, &tls_options(alpn)).expect("key and certificate fit")
}

fn tls_options(alpn: &[u8]) -> TlsOptions {
    TlsOptions { alpn: vec![alpn.to_vec()], ..TlsOptions::default() }
}

/// What a client connects with, before the perf client changes the windows.
pub fn client_config(base: TransportConfig) -> ClientConfig {
    ClientConfig::new(insecure_client_config(&tls_options(ALPN)).expect("suites"), base).expect("settings")
}

/// A plan for the server here.
pub fn plan() -> PerfPlan {
    PerfPlan::new(REMOTE, "perf.test", client_config(TransportConfig::default()))
}

/// A core on `port`, with the address 10.77.0.`host`.
pub fn core<D: Datapath, A: App>(
    port: D,
    host: u8,
    server: Option<ServerConfig>,
    pool: BufPool,
    idle: Idle,
    app: A,
) -> Core<D, A> {
    let addr = Cidr::new(IpAddr::from([10, 77, 0, host]), 24).expect("a prefix");
    let ports = server.is_some().then(|| vec![REMOTE.port()]);
    let config = CoreConfig {
        net: NetConfig { addrs: vec![addr], ports, ..NetConfig::default() },
        endpoint: EndpointConfig { max_connections: 64, ..EndpointConfig::from_seed([host; 32]) },
        listen: server.is_some().then_some(REMOTE.port()),
        server,
        client_ports: vec![50_000],
        pool,
        idle,
        link_patience: None,
    };
    Core::new(port, config, app).expect("the configuration is fine")
}

/// Both cores and their pools.
pub struct World<C> {
    pub client: Core<SimPort, C>,
    pub server: Core<SimPort, PerfServer>,
    pub client_pool: BufPool,
    pub server_pool: BufPool,
    started: Instant,
}

impl World<PerfClient> {
    /// A perf client with `plan` against a perf server.
    pub fn perf(plan: PerfPlan) -> Self {
        let pool = BufPool::heap();
        let client = PerfClient::new(plan, pool.clone()).expect("the plan makes sense");
        Self::new(client, pool, BufPool::heap(), SERVER_TLS.clone(), TransportConfig::default())
    }

    /// The same with a server whose settings are `adapted`.
    pub fn perf_with(plan: PerfPlan, adapted: impl FnOnce(ServerConfig) -> ServerConfig) -> Self {
        let pool = BufPool::heap();
        let client = PerfClient::new(plan, pool.clone()).expect("the plan makes sense");
        let (tls, base) = (SERVER_TLS.clone(), TransportConfig::default());
        Self::adapted(client, pool, BufPool::heap(), &BufPool::heap(), tls, base, adapted)
    }

    /// Lets both work until the client is done.
    pub fn run(&mut self) {
        self.until(|world| world.client.app.is_done());
        self.settle();
    }

    /// Lets the last packets arrive, and checks that all memory is back.
    pub fn settle(&mut self) {
        self.until(|world| world.client_pool.stats().in_use == 0 && world.server_pool.stats().in_use == 0);
        let (up, down) = (self.server.endpoint_stats().placement, self.client.endpoint_stats().placement);
        assert_eq!((up.copied, down.copied), (0, 0), "bytes were copied");
    }
}

impl<C: App> World<C> {
    /// `client` against a perf server whose transport is made from `base`.
    pub fn new(
        client: C,
        client_pool: BufPool,
        server_pool: BufPool,
        tls: Arc<rustls::ServerConfig>,
        base: TransportConfig,
    ) -> Self {
        let provider = server_pool.clone();
        Self::with_provider(client, client_pool, server_pool, &provider, tls, base)
    }

    /// The same with buffers for new streams from a pool of their own.
    pub fn with_provider(
        client: C,
        client_pool: BufPool,
        server_pool: BufPool,
        provider: &BufPool,
        tls: Arc<rustls::ServerConfig>,
        base: TransportConfig,
    ) -> Self {
        Self::adapted(client, client_pool, server_pool, provider, tls, base, |server| server)
    }

    fn adapted(
        client: C,
        client_pool: BufPool,
        server_pool: BufPool,
        provider: &BufPool,
        tls: Arc<rustls::ServerConfig>,
        base: TransportConfig,
        adapted: impl FnOnce(ServerConfig) -> ServerConfig,
    ) -> Self {
        let (a, b) = SimLink::pair(SimConfig::default());
        let server = adapted(ServerConfig::new(tls, server_transport(base, provider)).expect("settings"));
        Self {
            client: core(a, 2, None, client_pool.clone(), Idle::Spin, client),
            server: core(b, 1, Some(server), server_pool.clone(), Idle::Spin, PerfServer::new(server_pool.clone())),
            client_pool,
            server_pool,
            started: Instant::now(),
        }
    }

    /// Turns both cores until `done`.
    pub fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            assert!(self.started.elapsed() < PATIENCE, "stuck: {:?}", self.server.app.stats());
            self.client.turn();
            self.server.turn();
        }
    }

    /// Turns only the client until `done`: the server is dead.
    pub fn client_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            assert!(self.started.elapsed() < PATIENCE, "stuck");
            self.client.turn();
        }
    }
}

/// Server TLS for "perf" with a certificate made for the tests.
pub fn shared_tls() -> Arc<rustls::ServerConfig> {
    SERVER_TLS.clone()
}
