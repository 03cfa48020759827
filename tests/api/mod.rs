//! Two cores over a simulated link, each with a handle.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::thread;

use gannet::api::handle::{self, CommandError, CommandErrorKind};
use gannet::api::*;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};

/// Nothing takes that long; the test has failed otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Turns after which something must have happened.
pub const TURNS: usize = 2_000_000;

/// A core with a handle's application.
pub type HandleCore = Core<SimPort, HandleApp>;

static IDENTITY: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> =
    LazyLock::new(|| rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap());

/// TLS settings of both ends.
pub fn tls_options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![b"test".to_vec()], ..tls::TlsOptions::default() }
}

/// A client's configuration.
pub fn client_config(transport: TransportConfig) -> ClientConfig {
    ClientConfig::new(tls::insecure_client_config(&tls_options()).unwrap(), transport).unwrap()
}

/// The server's address.
pub fn remote() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 443))
}

/// The byte that belongs at `at` of every test stream.
pub fn value(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

/// Fills `bytes` with what belongs at `offset`.
pub fn fill(bytes: &mut [u8], offset: u64) {
    (offset..).zip(bytes).for_each(|(at, b)| *b = value(at));
}

/// Whether `bytes` are what belongs at `offset`.
pub fn is_right(bytes: &[u8], offset: u64) -> bool {
    (offset..).zip(bytes).all(|(at, b)| *b == value(at))
}

/// Settings of a world.
pub struct Setup {
    pub server_capacity: usize,
    pub client_capacity: usize,
    pub server: TransportConfig,
    /// How many events may wait in the server, and the code for peers that cause more.
    pub backlog: Option<(usize, u64)>,
}

impl Default for Setup {
    fn default() -> Self {
        let server = TransportConfig::default();
        Self { server_capacity: 64, client_capacity: 64, server, backlog: None }
    }
}

/// Both ends.
pub struct World {
    pub server: Handle,
    pub client: Handle,
    pub server_core: Option<HandleCore>,
    pub client_core: Option<HandleCore>,
    pub server_pool: BufPool,
    pub client_pool: BufPool,
}

/// A core at `port`.
pub fn core<A: App>(
    port: SimPort,
    addr: &str,
    server: Option<ServerConfig>,
    pool: &BufPool,
    app: A,
) -> Core<SimPort, A> {
    let config = CoreConfig::new(addr.parse().unwrap(), endpoint_config().unwrap());
    let listen = server.as_ref().map(|_| 443);
    Core::new(port, CoreConfig { listen, server, pool: pool.clone(), ..config }, app).unwrap()
}

/// A server's configuration.
pub fn server_config(options: &tls::TlsOptions, transport: TransportConfig) -> ServerConfig {
    let key = rustls::pki_types::PrivateKeyDer::try_from(IDENTITY.signing_key.serialize_der()).unwrap();
    let tls = tls::server_config(vec![IDENTITY.cert.der().clone()], key, options).unwrap();
    ServerConfig::new(tls, transport).unwrap()
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let server_config = server_config(&tls_options(), setup.server);
        let (server_port, client_port) = SimLink::pair(SimConfig::default());
        let (server, mut server_app) = handle::channel(setup.server_capacity);
        let (client, client_app) = handle::channel(setup.client_capacity);
        if let Some((events, code)) = setup.backlog {
            server_app = server_app.with_backlog(events, code);
        }
        let (server_pool, client_pool) = (BufPool::heap(), BufPool::heap());
        Self {
            server_core: Some(core(server_port, "192.0.2.1/24", Some(server_config), &server_pool, server_app)),
            client_core: Some(core(client_port, "192.0.2.2/24", None, &client_pool, client_app)),
            server,
            client,
            server_pool,
            client_pool,
        }
    }

    /// One turn of both cores.
    pub fn turn(&mut self) {
        for core in [&mut self.server_core, &mut self.client_core].into_iter().flatten() {
            core.turn();
        }
    }

    /// Turns until `wanted` returns a value for an event of `handle`. Other events are dropped.
    pub fn until<T>(&mut self, client: bool, mut wanted: impl FnMut(HandleEvent) -> Option<T>) -> T {
        for _ in 0..TURNS {
            let handle = if client { &self.client } else { &self.server };
            while let Some(event) = handle.try_next() {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            self.turn();
        }
        panic!("it never happened");
    }

    /// Connects the client to the server: the connection at the client and at the server.
    pub fn connect(&mut self, transport: TransportConfig) -> (ConnId, ConnId) {
        self.client.connect(&client_config(transport), "server.test", remote()).unwrap();
        let client = self.until(true, connected);
        (client, self.until(false, connected))
    }

    /// Runs both cores on threads of their own while `work` uses the handles; then shuts down and waits for them.
    pub fn run<T>(&mut self, work: impl FnOnce(&Handle, &Handle) -> T) -> T {
        let (server, client) = (&self.server, &self.client);
        thread::scope(|scope| {
            // If the test fails, the cores have to end, too.
            let _guard = (Shutdown(server), Shutdown(client));
            for core in [self.server_core.take(), self.client_core.take()] {
                scope.spawn(|| run_core(core.unwrap()));
            }
            work(server, client)
        })
    }
}

/// Runs a core to its end.
pub fn run_core(mut core: HandleCore) {
    let stop = core.app.stop();
    // The peer that ends first takes the link down.
    let _ = core.run(&stop);
}

struct Shutdown<'a>(&'a Handle);

impl Drop for Shutdown<'_> {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// The next event, which must come.
pub fn next(handle: &Handle) -> HandleEvent {
    handle.next_timeout(PATIENCE).expect("something happens")
}

/// The connection that is set up, if `event` reports one.
pub fn connected(event: HandleEvent) -> Option<ConnId> {
    match event {
        HandleEvent::Engine { conn, event: Event::Connected { .. } } => Some(conn),
        HandleEvent::Engine { event: Event::Closed { reason }, .. } => panic!("{reason}"),
        _ => None,
    }
}

/// Repeats a command until the core takes it; `on_event` gets the events that have to be read for that.
pub fn insist<T, R>(
    handle: &Handle,
    mut given: T,
    mut command: impl FnMut(T) -> Result<R, CommandError<T>>,
    mut on_event: impl FnMut(HandleEvent),
) -> R {
    loop {
        match command(given) {
            Ok(done) => return done,
            Err(CommandError { kind: CommandErrorKind::Full, given: back }) => given = back,
            Err(CommandError { kind: CommandErrorKind::Gone, .. }) => panic!("the core is gone"),
        }
        match handle.try_next() {
            Some(event) => on_event(event),
            None => thread::yield_now(),
        }
    }
}
