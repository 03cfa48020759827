//! Links that go away.

mod ends;
mod way;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::datapath::sim::{SimConfig, SimLink, SimPort};
use crate::datapath::{Caps, TxFrame as _};
use crate::mem::BufPool;
use crate::net::{Detect, NetConfig};
use crate::quic::tls::{self, TlsOptions};
use crate::quic::{ClientConfig, CloseReason, ConnId, Event, ServerConfig, TransportConfig};
use crate::runtime::{Context, Idle};

/// A port whose link is up at the first check only.
struct Unplugged {
    port: SimPort,
    looks: u32,
    groups: Vec<[u8; 6]>,
    /// It is gone for good after so many checks.
    gone_after: u32,
    /// The other end of the link, if something arrives at each poll.
    flood: Option<SimPort>,
}

impl Unplugged {
    fn new(port: SimPort) -> Self {
        Self { port, looks: 0, groups: Vec::new(), gone_after: u32::MAX, flood: None }
    }
}

impl Datapath for Unplugged {
    type Rx = <SimPort as Datapath>::Rx;
    type Tx = <SimPort as Datapath>::Tx;

    fn caps(&self) -> Caps {
        self.port.caps()
    }

    fn link_up(&mut self) -> bool {
        self.looks += 1;
        self.looks == 1
    }

    fn removed(&self) -> Option<String> {
        (self.looks > self.gone_after).then(|| "pulled out".to_owned())
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.groups = groups.to_vec();
    }

    fn rx_burst(&mut self, burst: &mut Burst<Self::Rx>) -> usize {
        if let Some(mut frame) = self.flood.as_mut().and_then(Datapath::tx_alloc) {
            frame.set_payload_len(60);
            self.flood.as_mut().unwrap().tx_burst(&mut Burst::from_iter([frame]));
        }
        self.port.rx_burst(burst)
    }

    fn tx_alloc(&mut self) -> Option<Self::Tx> {
        self.port.tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<Self::Tx>) -> usize {
        self.port.tx_burst(burst)
    }

    fn stats(&self) -> DatapathStats {
        self.port.stats()
    }
}

/// Connects to a host that does not exist.
struct Caller {
    config: ClientConfig,
    called: bool,
    ended: Option<CloseReason>,
}

impl App for Caller {
    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, event: Event) {
        if let Event::Closed { reason } = event {
            self.ended = Some(reason);
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.called, true) {
            cx.connect(&self.config, "server.test", SocketAddr::from(([192, 0, 2, 1], 443))).unwrap();
        }
    }

    fn is_done(&self) -> bool {
        self.ended.is_some()
    }
}

fn options() -> TlsOptions {
    TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() }
}

/// A client that waits for its server.
fn patient() -> ClientConfig {
    let transport = TransportConfig { handshake_timeout: Duration::from_secs(20), ..TransportConfig::default() };
    ClientConfig::new(tls::insecure_client_config(&options()).unwrap(), transport).unwrap()
}

fn server(transport: TransportConfig) -> ServerConfig {
    let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(identity.signing_key.serialize_der().into());
    let tls = tls::server_config(vec![identity.cert.der().clone()], key, &options()).unwrap();
    ServerConfig::new(tls, transport).unwrap()
}

/// A configuration with a handshake timeout of 300 ms.
fn client_config() -> ClientConfig {
    let transport = TransportConfig { handshake_timeout: Duration::from_millis(300), ..TransportConfig::default() };
    ClientConfig::new(tls::insecure_client_config(&options()).unwrap(), transport).unwrap()
}

fn core_config() -> CoreConfig {
    CoreConfig::new("192.0.2.2/24".parse().unwrap(), EndpointConfig::from_seed([1; 32]))
}

/// Runs a client that connects while its link is down for good.
fn call(link_patience: Option<Duration>) -> (Result<(), RunError>, Option<CloseReason>) {
    let config = CoreConfig {
        net: NetConfig {
            addrs: ["192.0.2.2/24", "2001:db8::2/64"].map(|addr| addr.parse().unwrap()).to_vec(),
            ..NetConfig::default()
        },
        endpoint: EndpointConfig::from_seed([1; 32]),
        server: None,
        listen: None,
        client_ports: vec![50_000],
        pool: BufPool::heap(),
        idle: Idle::Yield,
        link_patience,
    };
    let (port, _other) = SimLink::pair(SimConfig::default());
    let app = Caller { config: client_config(), called: false, ended: None };
    let mut core = Core::new(Unplugged::new(port), config, app).unwrap();
    // The device joins the groups that neighbour discovery needs (RFC 4861 §7.2.1): all nodes, and ours.
    for group in [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 2]] {
        assert!(core.datapath.groups.contains(&group), "{:?}", core.datapath.groups);
    }
    let outcome = core.run(&AtomicBool::new(false));
    (outcome, core.app.ended.take())
}

/// The core used to end after 5 s without a link, whatever the timeouts of its connections.
#[test]
fn a_core_has_as_much_patience_with_its_link_as_its_connections() {
    let (outcome, ended) = call(None);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(ended, Some(CloseReason::HandshakeTimeout));
}

#[test]
fn or_as_much_as_is_set() {
    let (outcome, ended) = call(Some(Duration::from_millis(5)));
    assert!(matches!(outcome, Err(RunError::LinkDown(down, _)) if down >= Duration::from_millis(5)), "{outcome:?}");
    assert_eq!(ended, Some(CloseReason::Shutdown));
}

/// Opens connections, and remembers where from.
struct Dialler {
    config: ClientConfig,
    from: Vec<u16>,
}

impl App for Dialler {
    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, _: Event) {}

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        // The second call fails, which takes no port.
        for remote in ["192.0.2.1:443", "255.255.255.255:443"] {
            if let Ok(id) = cx.connect(&self.config, "server.test", remote.parse().unwrap()) {
                self.from.extend(cx.conn(id).map(|conn| conn.local().port()));
            }
        }
    }
}

#[test]
fn connections_take_the_source_ports_in_turn() {
    for (client_ports, from) in [(vec![7, 9, 8], [7, 9, 8, 7]), (vec![5], [5; 4]), (vec![], [50_000; 4])] {
        let (port, _other) = SimLink::pair(SimConfig::default());
        let app = Some(Dialler { config: client_config(), from: Vec::new() });
        let mut core = Core::new(port, CoreConfig { client_ports, ..core_config() }, app).unwrap();
        for _ in 0..4 {
            core.turn();
        }
        assert_eq!(core.app.as_ref().unwrap().from, from);
    }
}

#[test]
fn a_missing_application_is_done() {
    let (port, _other) = SimLink::pair(SimConfig::default());
    let mut core = Core::new(port, core_config(), None::<Caller>).unwrap();
    assert!(core.run(&AtomicBool::new(false)).is_ok() && core.app.is_none());
}

/// Duplicate address detection must hear hosts that already have an address, and those that probe for it later.
#[test]
fn groups_are_let_in_before_an_address_is_used() {
    let addrs = vec!["2001:db8::2/64".parse().unwrap()];
    let net = NetConfig { addrs, announce: true, detect: Detect::Strict, ..NetConfig::default() };
    let (port, _other) = SimLink::pair(SimConfig::default());
    let app = Caller { config: client_config(), called: true, ended: None };
    let mut core = Core::new(Unplugged::new(port), CoreConfig { net, ..core_config() }, app).unwrap();
    assert!(core.datapath.groups.contains(&[0x33, 0x33, 0xff, 0, 0, 2]), "{:?}", core.datapath.groups);
    core.add_address("2001:db8::3/64".parse().unwrap()).unwrap();
    assert!(core.datapath.groups.contains(&[0x33, 0x33, 0xff, 0, 0, 3]), "{:?}", core.datapath.groups);
    core.remove_address("2001:db8::3".parse().unwrap());
    assert!(!core.datapath.groups.contains(&[0x33, 0x33, 0xff, 0, 0, 3]), "{:?}", core.datapath.groups);
}

/// A device that was unplugged was noticed by nobody: a server waited for its link for ever, and a client until its
/// timeouts.
#[test]
fn a_port_that_is_gone_ends_servers_and_clients() {
    // Found out at the start, and later; by a core that is idle, and by one that never is.
    let cases =
        [(None, 0, false), (Some(443), 0, false), (None, 5, false), (Some(443), 5, false), (Some(443), 5, true)];
    for (listen, gone_after, busy) in cases {
        let config = CoreConfig { listen, ..core_config() };
        let (port, other) = SimLink::pair(SimConfig::default());
        let app = Caller { config: client_config(), called: false, ended: None };
        let datapath = Unplugged { gone_after, flood: busy.then_some(other), ..Unplugged::new(port) };
        let mut core = Core::new(datapath, config, app).unwrap();
        let error = core.run(&AtomicBool::new(false)).unwrap_err();
        assert!(matches!(&error, RunError::PortGone(why) if why == "pulled out"), "{error}");
    }
}

/// A core whose waker has no file, because too many are open, cannot be woken by others, so it must not rely on that.
#[test]
fn a_core_without_a_wake_file_is_not_called() {
    let core = |notes| {
        let (port, _other) = SimLink::pair(SimConfig::default());
        let app = Caller { config: client_config(), called: false, ended: None };
        let config = CoreConfig { idle: Idle::Sleep, ..core_config() };
        Core::in_group(port, config, app, Seat { notes, ..Seat::alone() }).unwrap()
    };
    let mut member = core(crate::runtime::mailboxes(1, 7).pop());
    assert!(!member.is_called());
    let _precise = member.prepare_rest();
    assert!(member.is_called());
    let mut alone = core(None);
    let _precise = alone.prepare_rest();
    assert!(!alone.is_called());
}
