//! Hosts with several cores, and clients of them.

use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::datapath::Datapath;
use crate::datapath::exchange::{Mesh, mesh};
use crate::datapath::sim::{SimConfig, SimLink, SimPort, SimQueue, SimRx};
use crate::quic::tls::{self, TlsOptions};
use crate::quic::{ClientConfig, CloseReason, ConnId, Dir, EndpointConfig, Event, ServerConfig, TransportConfig};
use crate::runtime::{App, Context, Core, CoreConfig, Failure, Idle, Notes, Place, Seat, Unreachable};

pub(super) const SERVER: &str = "192.0.2.1";

fn options() -> TlsOptions {
    TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() }
}

pub(super) fn client_config() -> ClientConfig {
    ClientConfig::new(tls::insecure_client_config(&options()).unwrap(), TransportConfig::default()).unwrap()
}

/// A server's settings, with a certificate for `name`.
pub(super) fn server_config(name: &str) -> ServerConfig {
    let identity = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(identity.signing_key.serialize_der().into());
    let tls = tls::server_config(vec![identity.cert.der().clone()], key, &options()).unwrap();
    ServerConfig::new(tls, TransportConfig::default()).unwrap()
}

pub(super) fn endpoint(seed: u8) -> EndpointConfig {
    EndpointConfig::from_seed([seed; 32])
}

/// Echoes each request, and panics on request.
#[derive(Debug, Default)]
pub(super) struct Echo {
    pub(super) core: u8,
    pub(super) answered: usize,
    /// Ends without being stopped.
    pub(super) done: bool,
}

impl App for Echo {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        assert_eq!((conn.core(), cx.core()), (self.core, self.core));
        let (Event::Readable { id, .. }, Some(mut conn)) = (event, cx.conn(conn)) else { return };
        while let Some(chunk) = conn.take(id) {
            assert!(chunk.as_ref() != b"panic", "as asked");
            conn.send(id, chunk.as_ref().to_vec().into(), chunk.is_last()).unwrap();
            self.answered += usize::from(chunk.is_last());
        }
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

/// Connects, and sends a request when it is given one.
#[derive(Debug)]
pub(super) struct Asker {
    config: ClientConfig,
    pub(super) ask: Option<&'static [u8]>,
    pub(super) conn: Option<ConnId>,
    pub(super) connected: bool,
    pub(super) answers: usize,
    pub(super) closed: Option<CloseReason>,
    pub(super) unreachable: Option<Unreachable>,
    pub(super) calls: bool,
}

impl Asker {
    pub(super) fn new(ask: Option<&'static [u8]>) -> Self {
        let (conn, connected, answers, closed, unreachable, calls) = (None, false, 0, None, None, true);
        Self { config: client_config(), ask, conn, connected, answers, closed, unreachable, calls }
    }

    pub(super) fn silent() -> Self {
        Self { calls: false, ..Self::new(None) }
    }
}

impl App for Asker {
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.calls) {
            let server = SocketAddr::new(SERVER.parse().unwrap(), 443);
            self.conn = Some(cx.connect(&self.config, "server.test", server).unwrap());
        }
        if self.connected
            && let Some(ask) = self.ask.take()
            && let Some(mut conn) = self.conn.and_then(|conn| cx.conn(conn))
        {
            let stream = conn.open(Dir::Bidi).unwrap();
            conn.send(stream, ask.into(), true).unwrap();
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.connected = true,
            Event::Readable { id: stream, .. } => {
                let Some(mut conn) = cx.conn(id) else { return };
                while let Some(chunk) = conn.take(stream) {
                    self.answers += usize::from(chunk.is_last());
                }
            }
            Event::Closed { reason } => self.closed = Some(reason),
            _ => {}
        }
    }

    fn on_unreachable(&mut self, _: &mut Context<'_>, _: std::net::IpAddr, why: Unreachable) {
        self.unreachable = Some(why);
    }
}

/// The MAC address of client `n`; the server's is that of 0.
pub(super) fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// Which client a frame comes from, and whether it is ARP.
pub(super) fn origin(frame: &[u8]) -> (usize, bool) {
    (usize::from(frame[11]), frame[12..14] == [8, 6])
}

/// A device with `queues` queues at the server's end, and the links of `clients` clients.
pub(super) fn links(
    clients: u8,
    queues: u8,
    pick: impl FnMut(&[u8]) -> usize + Send + 'static,
) -> (Vec<SimQueue>, Vec<SimPort>) {
    let link = |n| SimLink::pair(SimConfig { macs: [mac(0), mac(n)], ..SimConfig::default() });
    let (ours, theirs) = (1..=clients).map(link).unzip();
    (SimPort::join(ours, queues, pick), theirs)
}

/// The core of client `n`.
pub(super) fn client(n: u8, port: SimPort, app: Asker) -> Core<SimPort, Asker> {
    let addr = format!("192.0.2.{}/24", 100 + n).parse().unwrap();
    let config = CoreConfig { idle: Idle::Yield, ..CoreConfig::new(addr, endpoint(100 + n)) };
    Core::new(port, config, app).unwrap()
}

/// The settings and the application of a server's core.
pub(super) fn server(place: Place, config: &ServerConfig) -> Result<(CoreConfig, Echo), Failure> {
    let core = place.core;
    let settings = CoreConfig { idle: Idle::Yield, ..CoreConfig::new(format!("{SERVER}/24").parse()?, place.endpoint) };
    Ok((settings.serving(443, config.clone()), Echo { core, ..Echo::default() }))
}

pub(super) type Member<A> = Core<SimQueue, A, Mesh<SimRx>>;

/// The cores of a host, which the test drives turn by turn. `config` configures core `n`.
pub(super) fn cores<A: App>(
    queues: Vec<SimQueue>,
    base: &EndpointConfig,
    notes: impl IntoIterator<Item = Option<Notes>>,
    make: impl Fn(Place) -> (CoreConfig, A),
) -> Vec<Member<A>> {
    let count = queues.len() as u8;
    let seats = queues.into_iter().zip(mesh(count, 256)).zip(notes);
    (0..)
        .zip(seats)
        .map(|(core, ((queue, exchange), notes))| {
            let place = Place { core, cores: count, endpoint: base.for_core(core, count) };
            let (mut config, app) = make(place);
            config.net = config.net.for_core(core, count);
            Core::in_group(queue, config, app, Seat { core, cores: count, exchange, notes }).unwrap()
        })
        .collect()
}

/// Calls `turn` for each millisecond, starting one minute after the clocks' origin, until it returns true, for at most
/// a minute. Returns the number of milliseconds that this took.
pub(super) fn play(mut turn: impl FnMut(Instant) -> bool) -> Option<u64> {
    (0..60_000).find(|ms| turn(Instant::from_nanos(60_000_000_000 + ms * 1_000_000)))
}

/// Runs turns of a client on this thread until `end`.
pub(super) fn drive<D: Datapath>(core: &mut Core<D, Asker>, end: impl Fn(&Asker) -> bool) {
    while !end(&core.app) {
        if !core.turn() {
            std::thread::yield_now();
        }
    }
}
