//! A client core and a server core in simulated time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gannet::base::time::Instant;
use gannet::mem::{BufPool, Hugepages, PoolConfig};
use gannet::net::{Cidr, NetConfig};
use gannet::quic::tls::{TlsOptions, insecure_client_config, server_config};
use gannet::quic::{ClientConfig, EndpointConfig, MemoryConfig, RetryPolicy, ServerConfig, TransportConfig};
use gannet::runtime::{App, Core, CoreConfig, Idle};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::wire::{self, MemPort};
use crate::Failure;
use crate::alloc::{self, Account};
use crate::cpu;

/// The server's address.
pub const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 4433);

/// The name in its certificate.
pub const NAME: &str = "localhost";

/// The ALPN protocol ID.
pub const ALPN: &[u8] = b"perf";

/// The simulated time between cycles, in ns.
pub const CYCLE_NS: u64 = 100_000;

/// The size of IPv4 and UDP headers, in bytes.
const HEADERS: u16 = 28;

/// The maximum number of consecutive busy turns before a core is considered broken.
const MAX_TURNS: usize = 1 << 20;

static IDENTITY: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> = LazyLock::new(|| {
    rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("an ECDSA P-256 key and a certificate for it")
});

/// A self-signed ECDSA P-256 certificate for [`NAME`] and its key, the same for the whole run.
pub fn identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivatePkcs8KeyDer::from(IDENTITY.signing_key.serialize_der());
    (vec![IDENTITY.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
}

/// The same as PEM: certificate and key.
pub fn identity_pem() -> (String, String) {
    (IDENTITY.cert.pem(), IDENTITY.signing_key.serialize_pem())
}

fn options() -> TlsOptions {
    TlsOptions { alpn: vec![ALPN.to_vec()], ..TlsOptions::default() }
}

/// The server's TLS configuration.
///
/// # Errors
/// If rustls rejects the settings.
pub fn server_tls() -> Result<Arc<rustls::ServerConfig>, Failure> {
    let (certs, key) = identity();
    Ok(server_config(certs, key, &options())?)
}

/// The client's TLS configuration.
///
/// # Errors
/// If rustls rejects the settings.
pub fn client_tls() -> Result<Arc<rustls::ClientConfig>, Failure> {
    Ok(insecure_client_config(&options())?)
}

/// Transport settings of both sides. Time stands still within a cycle, so pacing is off.
pub fn transport() -> TransportConfig {
    TransportConfig { pacing: false, max_idle_timeout: Duration::ZERO, ..TransportConfig::default() }
}

/// Creates a pool of up to `bytes`, in hugepages if available.
///
/// # Errors
/// If there is not enough memory.
pub fn pool(bytes: usize) -> Result<BufPool, Failure> {
    Ok(BufPool::new(PoolConfig { limit_bytes: bytes, hugepages: Hugepages::Auto, numa_node: None })?)
}

/// The configuration of a world, except its applications.
#[derive(Debug)]
pub struct Setup {
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Number of frames of each port.
    pub frames: usize,
    /// Transport settings of the server.
    pub server: TransportConfig,
    /// Memory of the server's engine.
    pub server_pool: BufPool,
    /// Memory of the client's engine.
    pub client_pool: BufPool,
    /// The maximum number of connections, and of concurrent handshakes, of each end.
    pub max_connections: usize,
}

/// The resources used by one end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effort {
    /// CPU time of its turns.
    pub time: Duration,
    /// Allocations.
    pub allocations: u64,
}

/// Both cores. The client is [`Account::Left`], the server [`Account::Right`].
pub struct World<C, S> {
    /// The client.
    pub client: Core<MemPort, C>,
    /// The server.
    pub server: Core<MemPort, S>,
    /// The client's use since [`World::reset`].
    pub client_effort: Effort,
    /// The server's use since [`World::reset`].
    pub server_effort: Effort,
    now: Instant,
}

impl<C: App, S: App> World<C, S> {
    /// Creates both cores.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(setup: Setup, client: C, server: S) -> Result<Self, Failure> {
        let frames = setup.frames;
        let frame_bytes = 2 * (frames * (usize::from(setup.mtu) + 256)).next_power_of_two() + (4 << 20);
        let (left, right) = wire::pair(setup.mtu, frames, &pool(frame_bytes)?)?;
        let most = setup.max_connections;
        let accept = accept_config(setup.mtu, setup.server)?;
        Ok(Self {
            client: alloc::on(Account::Left, || core(left, 2, None, setup.client_pool, most, client))?,
            server: alloc::on(Account::Right, || core(right, 1, Some(accept), setup.server_pool, most, server))?,
            client_effort: Effort::default(),
            server_effort: Effort::default(),
            now: Instant::from_nanos(10_000_000_000),
        })
    }

    /// Advances the time by `nanos`.
    pub fn pass(&mut self, nanos: u64) {
        self.now += Duration::from_nanos(nanos);
    }

    /// Runs the server until `enough` frames wait for the client, or it has nothing to do.
    #[inline(never)]
    pub fn run_server(&mut self, enough: usize) {
        let now = self.now;
        let server = &mut self.server;
        spend(&mut self.server_effort, Account::Right, || {
            let mut turns = 0;
            while server.datapath_mut().sent() < enough && turns < MAX_TURNS && server.turn_at(now) {
                turns += 1;
            }
        });
    }

    /// Runs the client until `enough` frames wait for the server, or it has nothing to do.
    #[inline(never)]
    pub fn run_client(&mut self, enough: usize) {
        let now = self.now;
        let client = &mut self.client;
        spend(&mut self.client_effort, Account::Left, || {
            let mut turns = 0;
            while client.datapath_mut().sent() < enough && turns < MAX_TURNS && client.turn_at(now) {
                turns += 1;
            }
        });
    }

    /// Runs one cycle: the server sends up to `batch` frames, the client receives all of them, and time advances.
    pub fn cycle(&mut self, batch: usize) {
        self.run_server(batch);
        self.run_client(usize::MAX);
        self.pass(CYCLE_NS);
    }

    /// Runs cycles until `done`.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn until(&mut self, batch: usize, what: &str, mut done: impl FnMut(&Self) -> bool) -> Result<(), Failure> {
        for _ in 0..MAX_TURNS {
            if done(self) {
                return Ok(());
            }
            self.cycle(batch);
        }
        Err(format!("the in-process pair did not reach {what}").into())
    }

    /// Resets the resources used.
    pub fn reset(&mut self) {
        (self.client_effort, self.server_effort) = (Effort::default(), Effort::default());
    }
}

/// Not inlined, so that a profiler shows it by name.
#[inline(never)]
fn spend(effort: &mut Effort, account: Account, work: impl FnOnce()) {
    let before = alloc::calls(account);
    let outer = alloc::open(account);
    let start = cpu::time();
    work();
    effort.time += cpu::time().saturating_sub(start);
    alloc::open(outer);
    effort.allocations += alloc::calls(account) - before;
}

fn core<A: App>(
    port: MemPort,
    host: u8,
    server: Option<ServerConfig>,
    pool: BufPool,
    most: usize,
    app: A,
) -> Result<Core<MemPort, A>, Failure> {
    Ok(Core::new(port, core_config(host, server, pool, most)?, app)?)
}

/// The configuration of a core at 10.77.0.`host`, with up to `most` connections. It listens if it has a `server`
/// configuration.
///
/// # Errors
/// If the address is not valid.
pub fn core_config(host: u8, server: Option<ServerConfig>, pool: BufPool, most: usize) -> Result<CoreConfig, Failure> {
    let listen = server.is_some().then_some(REMOTE.port());
    Ok(CoreConfig {
        net: NetConfig {
            addrs: vec![Cidr::new(IpAddr::from([10, 77, 0, host]), 24)?],
            ports: listen.map(|port| vec![port]),
            neighbor_ttl: Duration::from_secs(1 << 20),
            ..NetConfig::default()
        },
        endpoint: EndpointConfig {
            max_connections: most,
            max_handshakes: most,
            reset_rate: 1000,
            retry: RetryPolicy::Never,
            // A single peer may have all memory: what it takes is measured.
            memory: MemoryConfig { connection: Some(usize::MAX), address: Some(usize::MAX), reserve: Some(0) },
            ..EndpointConfig::from_seed([host; 32])
        },
        server,
        listen,
        client_ports: vec![50_000],
        pool,
        idle: Idle::Spin,
        link_patience: None,
    })
}

/// A server's configuration with these transport settings, for packets of up to `mtu` bytes.
///
/// # Errors
/// If rustls rejects the settings.
pub fn accept_config(mtu: u16, transport: TransportConfig) -> Result<ServerConfig, Failure> {
    let transport = TransportConfig { max_udp_payload: mtu - HEADERS, ..transport };
    Ok(ServerConfig::new(server_tls()?, transport)?)
}

/// A client's configuration with these transport settings, for packets of up to `mtu` bytes.
///
/// # Errors
/// If rustls rejects the settings.
pub fn client_config(mtu: u16, transport: TransportConfig) -> Result<ClientConfig, Failure> {
    let transport = TransportConfig { max_udp_payload: mtu - HEADERS, ..transport };
    Ok(ClientConfig::new(client_tls()?, transport)?)
}
