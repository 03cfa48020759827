//! Two cores in one thread over a simulated link that can lose and reorder frames without allocating.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gannet::base::rng::Rng;
use gannet::base::time::Instant;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};
use gannet::datapath::{Burst, Caps, Datapath, DatapathStats};
use gannet::mem::BufPool;
use gannet::net::{Cidr, NetConfig};
use gannet::quic::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig, tls};
use gannet::runtime::{App, Core, CoreConfig, Idle};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::counting::{counted, trace};

/// Where the server listens.
pub const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), 4433);

/// Time per turn of both cores.
const TURN: Duration = Duration::from_micros(20);

static TLS: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
    let cert = CertificateDer::from_pem_slice(include_bytes!("../../src/sim/cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../src/sim/key.pem")).unwrap();
    tls::server_config(vec![cert], key, &options()).unwrap()
});

fn options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![b"steady".to_vec()], ..tls::TlsOptions::default() }
}

/// A client's configuration.
pub fn client_config(transport: TransportConfig) -> ClientConfig {
    ClientConfig::new(tls::insecure_client_config(&options()).unwrap(), transport).unwrap()
}

/// A port that loses and reorders some of every thousand frames received.
pub struct Rough {
    port: SimPort,
    lost: u64,
    swapped: u64,
    rng: Rng,
}

impl Datapath for Rough {
    type Rx = <SimPort as Datapath>::Rx;
    type Tx = <SimPort as Datapath>::Tx;

    fn caps(&self) -> Caps {
        self.port.caps()
    }

    fn link_up(&mut self) -> bool {
        self.port.link_up()
    }

    fn rx_burst(&mut self, burst: &mut Burst<Self::Rx>) -> usize {
        let before = burst.len();
        self.port.rx_burst(burst);
        let mut i = before;
        while i < burst.len() {
            if self.rng.chance(self.lost) {
                drop(burst.remove(i));
                continue;
            }
            // Four places further back, which suffices to be taken for a loss.
            if self.rng.chance(self.swapped) {
                let to = (i + 4).min(burst.len() - 1);
                burst[i..=to].rotate_left(1);
            }
            i += 1;
        }
        burst.len() - before
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

/// The link of a world. Probabilities are per mille, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub mtu: u16,
    pub lost: u64,
    pub swapped: u64,
}

impl Link {
    /// One that loses nothing.
    pub fn smooth(mtu: u16) -> Self {
        Self { mtu, lost: 0, swapped: 0 }
    }

    /// One that loses one frame of a hundred and swaps another.
    pub fn rough(mtu: u16) -> Self {
        Self { mtu, lost: 10, swapped: 10 }
    }
}

/// Both cores.
pub struct World<C: App, S: App> {
    pub client: Core<Rough, C>,
    pub server: Core<Rough, S>,
    now: Instant,
}

fn core<A: App>(port: Rough, host: u8, server: Option<ServerConfig>, app: A) -> Core<Rough, A> {
    let config = CoreConfig {
        net: NetConfig {
            addrs: vec![Cidr::new(IpAddr::from([10, 9, 0, host]), 24).unwrap()],
            // Refreshing a neighbour would disturb the steady state; the ARP table has its own tests.
            neighbor_ttl: Duration::from_secs(3600),
            ..NetConfig::default()
        },
        endpoint: EndpointConfig { core: host, max_connections: 8, ..EndpointConfig::from_seed([host; 32]) },
        listen: server.is_some().then_some(REMOTE.port()),
        server,
        client_ports: vec![40_000],
        pool: BufPool::heap(),
        idle: Idle::Spin,
        link_patience: None,
    };
    Core::new(port, config, app).unwrap()
}

impl<C: App, S: App> World<C, S> {
    /// The server uses `transport`; the client's application connects with its own settings.
    pub fn new(link: Link, transport: TransportConfig, client: C, server: S) -> Self {
        let (a, b) = SimLink::pair(SimConfig { mtu: link.mtu, ..SimConfig::default() });
        let rough = |port, seed| Rough { port, lost: link.lost, swapped: link.swapped, rng: Rng::from_u64(seed) };
        let tls = ServerConfig::new(TLS.clone(), transport).unwrap();
        Self {
            client: core(rough(a, 5), 1, None, client),
            server: core(rough(b, 6), 2, Some(tls), server),
            now: Instant::from_nanos(1_000_000_000),
        }
    }

    /// One turn of each core; returns their allocations: client, server.
    pub fn turn(&mut self) -> [u64; 2] {
        self.now += TURN;
        let now = self.now;
        let (_, client) = counted(|| self.client.turn_at(now));
        let (_, server) = counted(|| self.server.turn_at(now));
        [client, server]
    }

    /// One turn of each core after `time`; returns their allocations.
    pub fn skip(&mut self, time: Duration) -> [u64; 2] {
        self.now += time;
        self.turn()
    }

    /// Number of packets that both engines have authenticated.
    pub fn packets(&self) -> u64 {
        self.client.endpoint_stats().rx_packets + self.server.endpoint_stats().rx_packets
    }

    /// Turns until `packets` more were received; returns the allocations: client, server.
    pub fn run(&mut self, packets: u64) -> [u64; 2] {
        let goal = self.packets() + packets;
        let mut allocated = [0; 2];
        let mut turns = 0;
        while self.packets() < goal {
            let now = self.turn();
            (0..2).for_each(|i| allocated[i] += now[i]);
            turns += 1;
            assert!(turns < 50 * packets, "stuck at {} of {goal} packets", self.packets());
        }
        allocated
    }

    /// Rounds of `packets` until one allocates nothing, at most `rounds`; returns the allocations of the last one.
    pub fn steady(&mut self, rounds: usize, packets: u64) -> [u64; 2] {
        let mut allocated = [0; 2];
        for round in 1..=rounds {
            if round == rounds {
                trace();
            }
            allocated = self.run(packets);
            if allocated == [0; 2] {
                break;
            }
            // Tables that double, and streams that accumulate behind a rare loss, but nothing per packet.
            assert!(allocated.iter().sum::<u64>() < packets / 100, "{allocated:?} in round {round}");
        }
        allocated
    }
}
