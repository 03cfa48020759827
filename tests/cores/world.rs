//! Two hosts with several cores each, over a simulated link: a hub distributes the frames of each port to the cores.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use gannet::base::rng::Rng;
use gannet::base::time::Instant;
use gannet::datapath::exchange::{Mesh, mesh};
use gannet::datapath::faults::{FaultConfig, FaultRx, Faults};
use gannet::datapath::sim::{SimConfig, SimLink, SimPort, SimRx, SimTx};
use gannet::datapath::{Burst, Caps, Datapath, DatapathStats, RxFrame};
use gannet::mem::BufPool;
use gannet::quic::{EndpointConfig, ServerConfig};
use gannet::runtime::{Core, CoreConfig, Notes, Seat, mailboxes};

use super::peer::{Peer, server_config};

/// Time per turn of all cores.
const TURN: Duration = Duration::from_micros(50);

/// Where a hub sends frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// To a core chosen by a hash of addresses and ports, like RSS.
    Flows,
    /// Each frame to a random core.
    Random,
}

/// The ports that clients send from.
const CLIENT_PORTS: std::ops::Range<u16> = 50_000..50_100;

/// A received frame.
pub type Frame = FaultRx<SimRx>;

/// A port and the queues of the cores.
pub struct Hub {
    port: Faults<SimPort>,
    queues: Vec<VecDeque<Frame>>,
    spread: Spread,
    rng: Rng,
    /// A NAT gives the peer other source ports, which differ by this much.
    pub nat: u16,
    /// On the peer's side of it: destination ports that differ by this much from a client's are those of its current
    /// binding, and all others lead nowhere.
    pub inside: Option<u16>,
}

impl Hub {
    fn pull(&mut self) {
        let mut burst = Burst::new();
        self.port.rx_burst(&mut burst);
        for mut frame in burst {
            let bytes = frame.data_mut();
            let udp = bytes[12..14] == [8, 0] && bytes[23] == 17;
            if udp && self.nat > 0 {
                let port = u16::from_be_bytes([bytes[34], bytes[35]]) + self.nat;
                bytes[34..36].copy_from_slice(&port.to_be_bytes());
                // No checksum (RFC 768).
                bytes[40..42].fill(0);
            }
            if udp && let Some(nat) = self.inside {
                let Some(port) = u16::from_be_bytes([bytes[36], bytes[37]]).checked_sub(nat) else { continue };
                if !CLIENT_PORTS.contains(&port) {
                    continue;
                }
                bytes[36..38].copy_from_slice(&port.to_be_bytes());
                bytes[40..42].fill(0);
            }
            let core = match self.spread {
                Spread::Flows if udp => {
                    let mut hasher = DefaultHasher::new();
                    bytes[26..38].hash(&mut hasher);
                    hasher.finish() % self.queues.len() as u64
                }
                // Other frames, such as neighbours' answers, reach a random core.
                _ => self.rng.below(self.queues.len() as u64),
            };
            self.queues[core as usize].push_back(frame);
        }
    }
}

/// One core's queue of a hub.
pub struct Queue {
    hub: Rc<RefCell<Hub>>,
    core: usize,
    stats: DatapathStats,
}

impl Datapath for Queue {
    type Rx = Frame;
    type Tx = SimTx;

    fn caps(&self) -> Caps {
        self.hub.borrow().port.caps()
    }

    fn link_up(&mut self) -> bool {
        true
    }

    fn rx_burst(&mut self, burst: &mut Burst<Frame>) -> usize {
        let mut hub = self.hub.borrow_mut();
        hub.pull();
        let n = hub.queues[self.core].len().min(burst.remaining_capacity());
        burst.extend(hub.queues[self.core].drain(..n));
        self.stats.rx_frames += n as u64;
        n
    }

    fn tx_alloc(&mut self) -> Option<SimTx> {
        self.hub.borrow_mut().port.tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<SimTx>) -> usize {
        self.hub.borrow_mut().port.tx_burst(burst)
    }

    fn stats(&self) -> DatapathStats {
        self.stats
    }
}

/// A core of a host.
pub type HostCore = Core<Queue, Peer, Mesh<Frame>>;

/// The properties of a host.
#[derive(Clone, Copy)]
pub struct Host {
    pub cores: u8,
    pub spread: Spread,
    /// The capacity of the queue between two cores, in frames.
    pub capacity: usize,
    pub faults: FaultConfig,
}

impl Host {
    /// A host whose network is perfect and distributes frames by flow.
    pub fn new(cores: u8) -> Self {
        Self { cores, spread: Spread::Flows, capacity: 256, faults: FaultConfig::default() }
    }
}

/// Two hosts: the client's and the server's.
pub struct World {
    pub clients: Vec<Option<HostCore>>,
    pub servers: Vec<Option<HostCore>>,
    pub hubs: [Rc<RefCell<Hub>>; 2],
    now: Instant,
}

fn cores(
    hub: &Rc<RefCell<Hub>>,
    host: Host,
    at: u8,
    make: impl Fn(u8) -> (Option<ServerConfig>, Peer),
) -> Vec<Option<HostCore>> {
    let base = EndpointConfig::from_seed([at; 32]);
    let core = |(core, (exchange, notes)): (u8, (Mesh<Frame>, Notes))| {
        let (server, peer) = make(core);
        let config = CoreConfig::new(format!("192.0.2.{at}/24").parse().unwrap(), base.for_core(core, host.cores));
        let config = CoreConfig {
            net: config.net.for_core(core, host.cores),
            listen: server.as_ref().map(|_| 443),
            server,
            client_ports: vec![CLIENT_PORTS.start + u16::from(core)],
            pool: BufPool::heap(),
            ..config
        };
        let queue = Queue { hub: hub.clone(), core: usize::from(core), stats: DatapathStats::default() };
        let seat = Seat { core, cores: host.cores, exchange, notes: Some(notes) };
        Some(Core::in_group(queue, config, peer, seat).unwrap())
    };
    let seats = mesh(host.cores, host.capacity).into_iter().zip(mailboxes(host.cores, at.into()));
    (0..).zip(seats).map(core).collect()
}

impl World {
    /// Each core of the client opens `connections`, each of which sends `bytes` and gets them back.
    pub fn new(client: Host, server: Host, connections: usize, bytes: usize) -> Self {
        let (client_port, server_port) = SimLink::pair(SimConfig { frames: 4096, ..SimConfig::default() });
        let hub = |port, host: Host, seed| {
            let (port, rng) = (Faults::new(port, host.faults, Rng::from_u64(seed)), Rng::from_u64(!seed));
            let queues = (0..host.cores).map(|_| VecDeque::new()).collect();
            Rc::new(RefCell::new(Hub { port, queues, spread: host.spread, rng, nat: 0, inside: None }))
        };
        let hubs = [hub(client_port, client, 1), hub(server_port, server, 2)];
        Self {
            clients: cores(&hubs[0], client, 1, |_| (None, Peer::client(connections, bytes))),
            servers: cores(&hubs[1], server, 2, |_| (Some(server_config()), Peer::server())),
            hubs,
            now: Instant::ZERO + Duration::from_millis(1),
        }
    }

    /// The NAT between both hosts rebinds: clients have source ports that differ by `by` from their own.
    pub fn rebind(&mut self, by: u16) {
        self.hubs[1].borrow_mut().nat = by;
        self.hubs[0].borrow_mut().inside = Some(by);
    }

    /// Runs turns until `over`, which must return true within this many.
    pub fn run(&mut self, turns: usize, mut over: impl FnMut(&mut Self) -> bool) {
        for _ in 0..turns {
            for core in self.clients.iter_mut().chain(&mut self.servers).flatten() {
                core.turn_at(self.now);
            }
            self.now += TURN;
            if over(self) {
                return;
            }
        }
        let done: Vec<_> = self.clients.iter().flatten().map(|core| (core.app.done, &core.app.closed)).collect();
        panic!("not over after {turns} turns: {done:?}");
    }

    /// Runs until the clients have got everything back. No connection may end.
    pub fn finish(&mut self, turns: usize) {
        self.run(turns, |world| world.clients.iter().flatten().all(|core| core.app.is_complete()));
        for core in self.clients.iter().flatten() {
            assert!(core.app.closed.is_empty(), "{:?}", core.app.closed);
        }
    }

    /// Sum of a counter over a host's cores.
    pub fn sum(cores: &[Option<HostCore>], of: impl Fn(&HostCore) -> u64) -> u64 {
        cores.iter().flatten().map(of).sum()
    }

    /// Checks what holds for all hosts: only one core counts a frame, frames handed over have been taken over or are on
    /// their way, and no core has sent a stateless reset.
    pub fn check(&self) {
        for cores in [&self.clients, &self.servers] {
            let of_net = Self::sum(cores, |core| core.net_stats().rx_frames);
            let of_port = Self::sum(cores, |core| core.datapath_stats().rx_frames);
            assert_eq!(of_net, of_port);
            let handed = Self::sum(cores, |core| core.stats().handed_over);
            let taken = Self::sum(cores, |core| core.stats().taken_over);
            assert!(taken <= handed && taken + 4096 > handed, "{taken} of {handed}");
            assert_eq!(Self::sum(cores, |core| core.endpoint_stats().resets_sent), 0);
        }
    }

    /// Ends all cores and checks that every frame is returned to its port.
    pub fn end(self) {
        let Self { clients, servers, hubs, .. } = self;
        drop((clients, servers));
        for hub in &hubs {
            let mut hub = hub.borrow_mut();
            hub.queues.iter_mut().for_each(VecDeque::clear);
            hub.port.set_config(FaultConfig::default());
            let mut burst = Burst::new();
            while hub.port.rx_burst(&mut burst) > 0 || hub.port.held() > 0 {
                burst.clear();
            }
        }
        for hub in &hubs {
            assert_eq!(hub.borrow().port.inner().free_frames(), 4096);
        }
    }
}
