//! A deterministic simulator: two engines, two applications and an unreliable network, driven by one seed.
//!
//! [`run`] plays one seed and checks that every byte of streams arrives once and in place, that every buffer and every
//! piece of sent memory is returned exactly once, that the memory charged to connections is the memory that they hold,
//! and that both sides terminate. A failure names the seed, which reproduces the run.
//!
//! New features have to be added to the plays when they land. Their random draws come last, so that old seeds otherwise
//! produce the same plays.
#![forbid(unsafe_code)]

mod acquaint;
mod app;
mod cores;
mod datagrams;
pub mod forwarder;
mod moves;
mod network;
pub mod paths;
mod plan;
mod traces;
mod verdict;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::mem::BufPool;
use crate::quic::{
    CidConfig, ClientConfig, CloseReason, ConnId, Endpoint, EndpointConfig, EndpointStats, PreferredAddress, RUN,
    RxMeta, ServerConfig, Slots, TooBig, TransportConfig, Undelivered, tls,
};

pub use app::{App, Failure};
use cores::Cores;
pub use moves::Move;
use moves::{Addresses, Ends};
pub use network::{EcnFate, LinkConfig, LinkStats, Network};
pub use plan::{DatagramPlan, Ending, Flow, Plan, Receive, Return, Space, StreamPlan, pattern};
pub use traces::Checker;

/// An Ed25519 certificate for "sim". All Ed25519 signatures have the same length, so that runs are reproducible.
const CERT: &str = include_str!("cert.pem");
const KEY: &str = include_str!("key.pem");

/// The time at which a world begins.
const START: Instant = Instant::from_nanos(1_000_000_000);

/// Origin of datagrams, for answers.
const ORIGIN: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Limit of simulated time per run.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// Number of closes that have to be lost before a peer may learn of the end by a stateless reset: the first, and at
/// least one answer to its probes.
const MIN_CLOSES_LOST: u64 = 2;

/// Number of consecutive datagrams of one side that have to be lost for a connection to time out; otherwise it has
/// stalled.
const MIN_LOST_IN_A_ROW: u64 = 3;

/// Limit of turns per run.
const TURN_LIMIT: u64 = 3_000_000;

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Simulated duration.
    pub time: Duration,
    /// Counters of the network.
    pub network: LinkStats,
    /// The engines' counters: client, server.
    pub stats: [EndpointStats; 2],
    /// Number of datagrams that one core handed over to another: at the client, at the server.
    pub handed: [u64; 2],
    /// Number of stateless resets and ICMP messages that reached another core than the one that heeded them.
    pub relayed: [u64; 2],
    /// Whether the connection was ended by a stateless reset: at the client, at the server.
    pub reset: [bool; 2],
    /// Number of turns: times at which something happened.
    pub turns: u64,
    /// Number of datagrams received, and sent, together with others.
    pub together: [u64; 2],
    /// Hash over sizes and times of all datagrams and kinds of all events: equal for equal runs.
    pub trace: u64,
}

struct Host {
    side: Side,
    addr: SocketAddr,
    cores: Cores,
    /// The core that had the connection before a crash.
    former: Option<u8>,
    app: App,
}

/// Datagrams that are sent together.
struct Out {
    slots: Vec<Vec<u8>>,
    /// Lengths of the datagrams in the first slots.
    lens: Vec<usize>,
}

impl Slots for Out {
    fn next(&mut self) -> Option<&mut [u8]> {
        self.slots.get_mut(self.lens.len()).map(Vec::as_mut_slice)
    }

    fn keep(&mut self, len: usize) {
        self.lens.push(len);
    }

    fn kept(&mut self, i: usize, of: usize) -> &mut [u8] {
        let i = self.lens.len() - of + i;
        &mut self.slots[i][..self.lens[i]]
    }
}

struct World {
    plan: Arc<Plan>,
    now: Instant,
    network: Network,
    hosts: [Host; 2],
    /// The server's settings.
    server: ServerConfig,
    out: Out,
    /// Number of datagrams sent together with others.
    sent_together: u64,
    trace: DefaultHasher,
    turns: u64,
    ended: bool,
    crashed: bool,
    addresses: Addresses,
    /// Number of planned moves that have happened.
    moved: usize,
    /// For attackers.
    side_rng: Rng,
    /// Whether a core has begun to stop, and whether it has stopped.
    stopping: bool,
    stopped: bool,
    /// Datagrams lost or damaged after their sender, client or server, had closed.
    closes_lost: [u64; 2],
    /// Closes of client and server that arrived.
    closes_arrived: [u64; 2],
    /// Datagrams of the client and of the server that were lost or damaged since one of them last arrived.
    lost_in_a_row: [u64; 2],
}

/// The pool that the hosts of all worlds have parts of.
static POOL: LazyLock<BufPool> = LazyLock::new(BufPool::heap);
static SERVER_TLS: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
    let cert = CertificateDer::from_pem_slice(CERT.as_bytes()).expect("built in");
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("built in");
    tls::server_config(vec![cert], key, &options()).expect("built in")
});
/// Clients whose ClientHello takes one Initial packet, and two.
static CLIENT_TLS: LazyLock<[Arc<rustls::ClientConfig>; 2]> = LazyLock::new(|| {
    [vec![tls::Group::X25519], Vec::new()].map(|groups| {
        let options = tls::TlsOptions { groups, ..options() };
        let mut config = (*tls::insecure_client_config(&options).expect("built in")).clone();
        // A resumed handshake would differ; every run has to start afresh.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    })
});

/// The client's TLS settings in a play.
fn client_tls(plan: &Plan) -> Arc<rustls::ClientConfig> {
    CLIENT_TLS[usize::from(plan.hybrid)].clone()
}

fn options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![b"sim".to_vec()], ..tls::TlsOptions::default() }
}

fn addr(side: Side) -> SocketAddr {
    match side {
        Side::Client => SocketAddr::from(([192, 0, 2, 1], 50_000)),
        Side::Server => SocketAddr::from(([192, 0, 2, 2], 443)),
    }
}

fn transport(plan: &Plan, side: Side, app: &App) -> Arc<TransportConfig> {
    let windows = plan.window;
    Arc::new(TransportConfig {
        versions: plan.versions[side as usize].clone(),
        first_version: plan.first_version.filter(|_| side == Side::Client),
        ecn: plan.ecn[side as usize],
        spin: plan.spin[side as usize],
        max_data: plan.max_data,
        stream_window_bidi_local: windows,
        stream_window_bidi_remote: windows,
        stream_window_uni: windows,
        max_streams_bidi: plan.max_streams,
        max_streams_uni: plan.max_streams,
        receive_low_water: 1 + windows / 2,
        max_window: if plan.follows { crate::wire::quic::varint::MAX } else { 0 },
        send_budget: 50_000,
        max_send_budget: if plan.follows { u64::MAX } else { 0 },
        congestion: plan.congestion,
        // In bad networks, the handshake may need many attempts.
        handshake_timeout: Duration::from_secs(200),
        max_idle_timeout: Duration::from_secs(120),
        max_ack_delay: Duration::from_millis(25),
        packets_per_key: plan.packets_per_key,
        keep_alive: plan.keep_alive[usize::from(side == Side::Server)],
        provider: app.provider(),
        ack_requests: plan.acks[side as usize].0,
        min_ack_delay: plan.acks[side as usize].1,
        datagrams: plan.datagrams.map(|datagrams| datagrams.config(side)),
        preferred_address: preferred_address(plan, side),
        ..TransportConfig::default()
    })
}

/// The address that the server prefers.
fn preferred_address(plan: &Plan, side: Side) -> PreferredAddress {
    let v4 = match moves::preferred() {
        SocketAddr::V4(v4) if plan.preferred && side == Side::Server => Some(v4),
        _ => None,
    };
    PreferredAddress { v4, v6: None }
}

/// The engines of all cores of a host.
fn endpoints(plan: &Plan, side: Side, start: Start, server: Option<ServerConfig>) -> Vec<Endpoint> {
    let config = endpoint_config(plan, side, start);
    let cores = match start {
        Start::First => plan.cores,
        Start::AfterCrash => plan.cores_left,
    };
    let cores = cores[side as usize];
    let config = |core| if cores > 1 { config.for_core(core, cores) } else { config.clone() };
    (0..cores).map(|core| Endpoint::new(config(core), server.clone(), POOL.part(plan.pool))).collect()
}

/// How often a host has started. Its secret is kept; its epoch and all other random numbers are not.
#[derive(Clone, Copy)]
enum Start {
    First,
    AfterCrash,
}

fn endpoint_config(plan: &Plan, side: Side, start: Start) -> EndpointConfig {
    let mut rng = Rng::from_u64(plan.seed ^ if side == Side::Client { 0xc11e } else { 0x5e12e2 });
    let [secret, first, second] = [(); 3].map(|()| {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        bytes
    });
    let seed = match start {
        Start::First => first,
        Start::AfterCrash => second,
    };
    let mut config = EndpointConfig::from_secret(&secret.into(), seed);
    acquaint::change_secret(plan, side, &mut config);
    EndpointConfig {
        cores: 1,
        cid: cid_config(plan.cid_lens[side as usize]),
        max_connections: 10 * usize::from(plan.cores[side as usize]),
        max_handshakes: 10 * usize::from(plan.cores[side as usize]),
        reset_rate: 100,
        retry: plan.retry,
        grease: plan.grease[side as usize],
        tracer: plan.tracer.clone(),
        ..config
    }
}

/// IDs longer than 17 bytes have a server ID, which is not encrypted in those of 19 bytes.
fn cid_config(len: usize) -> CidConfig {
    let routed = |key| CidConfig::routed(2, b"host", len - 5, key);
    let config = match len {
        ..=17 => CidConfig::unrouted(len),
        19 => routed(None),
        _ => routed(Some(&[8; 16])),
    };
    config.expect("10 to 20 bytes")
}

impl World {
    fn new(plan: Plan, longest_run: usize) -> Self {
        let plan = Arc::new(plan);
        let mut network = Network::new(plan.link, Rng::from_u64(!plan.seed));
        network.start = START;
        let client = App::new(Side::Client, plan.clone());
        let server = App::new(Side::Server, plan.clone());
        let server_config = acquaint::server_config(&plan, &server);
        let host = |side, app, server| Host {
            side,
            addr: addr(side),
            cores: Cores::new(
                endpoints(&plan, side, Start::First, server),
                plan.first[side as usize],
                plan.scatter,
                Rng::from_u64(plan.seed ^ 0x5ca_77e4 ^ side as u64),
                longest_run,
            ),
            former: None,
            app,
        };
        Self {
            hosts: [host(Side::Client, client, None), host(Side::Server, server, Some(server_config.clone()))],
            server: server_config,
            now: START,
            network,
            out: Out { slots: vec![vec![0; 2048]; longest_run], lens: Vec::new() },
            sent_together: 0,
            trace: DefaultHasher::new(),
            turns: 0,
            ended: false,
            crashed: false,
            addresses: Addresses::new(Rng::from_u64(plan.seed ^ 0xadd_7e55)),
            moved: 0,
            side_rng: Rng::from_u64(plan.seed ^ 0xa77_ac4),
            stopping: false,
            stopped: false,
            closes_lost: [0; 2],
            closes_arrived: [0; 2],
            lost_in_a_row: [0; 2],
            plan,
        }
    }

    fn connect(&mut self) -> Result<(), Failure> {
        let client = &mut self.hosts[0];
        let transport = transport(&self.plan, Side::Client, &client.app);
        let config = match acquaint::client_config(&self.plan, &self.server)? {
            Some(config) => config.with_transport(transport),
            None => ClientConfig::new(client_tls(&self.plan), transport),
        };
        let config = config.map_err(|e| format!("configuration: {e}"))?;
        let endpoint = client.cores.running().nth(usize::from(self.plan.home)).ok_or("no such core")?;
        let connected = endpoint.connect(self.now, &config, "sim", client.addr, addr(Side::Server));
        client.app.conn = Some(connected.map_err(|e| format!("connect: {e}"))?);
        Ok(())
    }

    /// Lets one host do everything that it can do now.
    fn settle(&mut self, index: usize) -> Result<(), Failure> {
        // A client may move so often that its server, whose own packets to it are lost, has no ID of it left.
        let unfollowed = self.stats(1).moves_without_id > 0;
        let host = &mut self.hosts[index];
        host.app.kept.clear();
        host.app.datagrams.kept.clear();
        host.app.whim(host.cores.of(host.app.conn));
        loop {
            let home = host.cores.of(host.app.conn);
            let mut busy = host.app.wake(self.now, home).map_err(|e| format!("{:?}: {e}", host.side))?;
            for endpoint in host.cores.running() {
                if endpoint.next_timeout().is_some_and(|at| at <= self.now) {
                    endpoint.handle_timeout(self.now);
                    while let Some(doubted) = endpoint.poll_doubt() {
                        let known = match host.side {
                            Side::Client => {
                                [addr(Side::Server), moves::preferred()].iter().any(|at| at.ip() == doubted)
                            }
                            Side::Server => self.addresses.is_known(doubted),
                        };
                        if !known {
                            return Err(format!("{doubted} is doubted, with whom there is no connection"));
                        }
                    }
                }
                while let Some((id, event)) = endpoint.poll_event() {
                    (index, std::mem::discriminant(&event)).hash(&mut self.trace);
                    let done = host.app.on_event(self.now, endpoint, id, event);
                    done.map_err(|e| format!("{:?}: {e}", host.side))?;
                    busy = true;
                    let silent = matches!(host.app.closed, Some(CloseReason::IdleTimeout)) && host.app.connected;
                    let excused = self.network.cut
                        || self.ended
                        || unfollowed
                        || self.lost_in_a_row.iter().any(|row| *row >= MIN_LOST_IN_A_ROW);
                    if silent && !excused {
                        let lost = self.lost_in_a_row;
                        let what = host.app.unfinished();
                        return Err(format!("{:?} timed out, and {lost:?} were lost in a row; {what}", host.side));
                    }
                }
                loop {
                    self.out.lens.clear();
                    let Some(transmit) = endpoint.poll_transmit_run(self.now, &mut self.out) else { break };
                    let to = host.side.peer();
                    if transmit.conn.is_none() && endpoint.answer_origin() != Some(ORIGIN) {
                        return Err("an answer has lost where its cause came from".into());
                    }
                    let sent = self.out.lens.len() as u64;
                    self.sent_together += if sent > 1 { sent } else { 0 };
                    for (slot, len) in self.out.slots.iter().zip(&self.out.lens) {
                        (self.now.as_nanos(), index, len).hash(&mut self.trace);
                        let data = &slot[..*len];
                        let cid_len = self.plan.cid_lens[to as usize];
                        let ends = self.addresses.send(host.side, &transmit, data, cid_len)?;
                        // An attacker may be faster than the network, or slower.
                        let copied = self.plan.spoof > 0
                            && to == Side::Server
                            && data[0] & 0x80 == 0
                            && self.side_rng.chance(self.plan.spoof);
                        let copy = ends.filter(|_| copied).map(|ends| {
                            let outside = self.addresses.attacker();
                            Ends { remote: outside, outside, ..ends }
                        });
                        let faster = self.side_rng.chance(500);
                        if copy.is_some() && faster {
                            self.network.send(self.now, to, copy, transmit.ecn, data);
                        }
                        let before = self.network.stats;
                        self.network.send(self.now, to, ends, transmit.ecn, data);
                        let after = self.network.stats;
                        if copy.is_some() && !faster {
                            self.network.send(self.now, to, copy, transmit.ecn, data);
                        }
                        let unread = after.lost - before.lost + after.corrupted - before.corrupted;
                        self.closes_lost[index] += if host.app.closed.is_some() { unread } else { 0 };
                        let close = host.app.closed.is_some() && transmit.conn.is_some();
                        self.closes_arrived[index] += u64::from(close && unread == 0);
                        let row = &mut self.lost_in_a_row[index];
                        *row = if unread > 0 { *row + 1 } else { 0 };
                    }
                    busy = true;
                }
            }
            for claim in self.network.claims.extract_if(.., |claim| claim.to == host.side) {
                let (local, remote) = (host.addr, addr(claim.to.peer()));
                let news = TooBig { local, remote, max: claim.max, len: claim.len, quoted: &claim.quoted };
                host.cores.packet_too_big(self.now, &news);
                let (len, port_closed) = (claim.len, claim.max % 2 == 0);
                let news = Undelivered { local, remote, port_closed, len, quoted: &claim.quoted };
                if host.cores.is_undelivered(&news) && (host.side == Side::Server || host.app.connected) {
                    return Err(format!("{:?} believes that its packets do not arrive", host.side));
                }
                busy = true;
            }
            if !busy {
                return Ok(());
            }
        }
    }

    /// Checks that what is charged to connections is held by their streams or lent to the application.
    fn check_memory(&self) -> Result<(), Failure> {
        for host in &self.hosts {
            for endpoint in host.cores.all() {
                let (charged, held) = (endpoint.memory_charged(), endpoint.memory_held());
                // If a chunk was taken in parts, the rest that is held is less than what is charged.
                if charged < held || (charged > held && !host.app.took) {
                    return Err(format!("{:?}: {charged} bytes are charged, {held} are held", host.side));
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), Failure> {
        while let Some((to, ends, ecn, data)) = self.network.receive(self.now) {
            let meta = RxMeta { local: ends.local, remote: ends.remote, ecn };
            self.addresses.arrive(to, &ends, data.len());
            // The flow decides which core a datagram reaches, unless it is one of the handshake.
            let long = data.first().is_some_and(|first| first & 0x80 != 0);
            let known = [addr(Side::Client), addr(Side::Server)];
            let usual = long || known.contains(&ends.local) && known.contains(&ends.remote);
            let cores = u16::from(self.plan.cores[to as usize]);
            let at = (!usual).then(|| ((ends.local.port() ^ ends.remote.port()) % cores) as u8);
            let host = &mut self.hosts[usize::from(to == Side::Server)];
            host.cores.arrive(self.now, at, meta, data, ORIGIN)?;
        }
        self.hosts.iter_mut().for_each(|host| host.cores.take_over(self.now, ORIGIN));
        Ok(())
    }

    /// Stops a core as planned: closes its connections and, when none is left, removes it.
    fn stop_core(&mut self) {
        let Some((side, core, at)) = self.plan.stop else { return };
        if self.stopped || self.now.saturating_since(START) < at {
            return;
        }
        let host = &mut self.hosts[side as usize];
        if !std::mem::replace(&mut self.stopping, true)
            && let Some(endpoint) = host.cores.running().nth(usize::from(core)).filter(|e| e.connection_count() > 0)
        {
            endpoint.close_all(3, "the end");
            self.ended = true;
        }
        self.stopped = host.cores.stop(core);
    }

    /// Ends the connection as planned.
    fn end(&mut self) {
        let due = |at: Duration, now: Instant| now.saturating_since(START) >= at;
        if self.ended {
            return;
        }
        match self.plan.ending {
            Ending::AllDone | Ending::AtTurn(..) if self.hosts.iter().all(|h| h.app.is_done()) => {
                self.close(Side::Client)
            }
            Ending::Early(side, at) if due(at, self.now) => self.close(side),
            Ending::AtTurn(side, turn) if self.turns >= turn && self.app(side).conn.is_some() => self.close(side),
            Ending::Cut(at) if due(at, self.now) => {
                self.network.cut = true;
                self.ended = true;
            }
            Ending::Crash(side, at) if due(at, self.now) => self.crash(side),
            _ => {}
        }
    }

    /// Changes addresses as planned.
    fn move_addresses(&mut self) {
        while let Some((at, what)) = self.plan.moves.get(self.moved).copied()
            && self.app(Side::Client).connected
            && self.now.saturating_since(START) >= at
        {
            self.moved += 1;
            let side = match what {
                Move::RebindPort | Move::RebindHost => {
                    self.addresses.rebind(what == Move::RebindHost);
                    continue;
                }
                Move::Migrate(_) | Move::Probe(_) => Side::Client,
                Move::Rotate(side) => side,
            };
            let host = &mut self.hosts[usize::from(side == Side::Server)];
            let (conn, over) = (host.app.conn, host.app.closed.is_some());
            let Some(mut conn) = conn.filter(|_| !over).and_then(|id| host.cores.of(conn).conn(id)) else { continue };
            // It may not be possible now.
            match what {
                Move::Migrate(n) => drop(conn.migrate(moves::local(n))),
                Move::Probe(n) => drop(conn.probe(moves::local(n))),
                _ => conn.rotate_ids(),
            }
        }
    }

    fn app(&self, side: Side) -> &App {
        &self.hosts[usize::from(side == Side::Server)].app
    }

    fn close(&mut self, side: Side) {
        let host = &mut self.hosts[usize::from(side == Side::Server)];
        let conn = host.app.conn;
        if let Some(mut conn) = conn.and_then(|id| host.cores.of(conn).conn(id)) {
            conn.close(3, "the end");
        }
        self.ended = true;
    }

    /// The host loses all its state, including the application, but keeps its keys for resets.
    fn crash(&mut self, side: Side) {
        let host = &mut self.hosts[usize::from(side == Side::Server)];
        host.former = host.app.conn.map(ConnId::core);
        host.cores.restart(endpoints(&self.plan, side, Start::AfterCrash, None));
        host.app = App::new(side, self.plan.clone());
        host.app.closed = Some(CloseReason::Shutdown);
        self.ended = true;
        self.crashed = true;
    }

    fn is_over(&self) -> bool {
        self.hosts.iter().all(|h| {
            let never = h.app.conn.is_none() && self.ended;
            (h.app.closed.is_some() || never) && h.cores.connection_count() == 0
        })
    }

    /// Whether the client has given up before the server had a connection, as none of its packets arrived.
    fn is_unheard_of(&self) -> bool {
        let [client, server] = &self.hosts;
        let none_left = self.hosts.iter().all(|host| host.cores.connection_count() == 0);
        client.app.closed.is_some() && server.app.conn.is_none() && none_left
    }

    /// The next time at which something can happen.
    fn next(&self) -> Option<Instant> {
        let timers = self.hosts.iter().filter_map(|h| h.cores.next_timeout());
        let pauses = self.hosts.iter().filter_map(|h| h.app.next_wake());
        let ending = match self.plan.ending {
            _ if self.ended => None,
            Ending::Early(_, at) | Ending::Cut(at) | Ending::Crash(_, at) => Some(at),
            _ => None,
        };
        let stop = self.plan.stop.filter(|_| !self.stopping).map(|(_, _, at)| at);
        let moves = self.plan.moves.get(self.moved).filter(|_| self.app(Side::Client).connected).map(|(at, _)| *at);
        let planned = ending.into_iter().chain(stop).chain(moves).map(|at| START + at);
        let next = timers.chain(pauses).chain(self.network.next_arrival()).chain(planned).min();
        next.map(|at| at.max(self.now))
    }

    fn run(&mut self) -> Result<(), Failure> {
        let start = self.now;
        self.connect()?;
        for turn in 0..TURN_LIMIT {
            self.turns = turn;
            self.settle(0)?;
            self.settle(1)?;
            self.end();
            self.move_addresses();
            self.stop_core();
            self.settle(0)?;
            self.settle(1)?;
            self.check_memory()?;
            if self.is_over() {
                return self.check_end();
            }
            let Some(next) = self.next() else {
                if self.is_unheard_of() {
                    return self.check_end();
                }
                return Err(format!("nothing will ever happen: {}", self.describe()));
            };
            self.now = next;
            if self.now.saturating_since(start) > TIME_LIMIT {
                return Err(format!("still not over after {TIME_LIMIT:?}: {}", self.describe()));
            }
            self.deliver()?;
        }
        Err(format!("still not over after {TURN_LIMIT} turns, at {:?}: {}", self.now, self.describe()))
    }

    /// The counters of the core that has the host's connection.
    fn stats(&self, host: usize) -> &EndpointStats {
        let host = &self.hosts[host];
        host.cores.peek(host.app.conn).stats()
    }

    fn describe(&self) -> String {
        self.hosts
            .iter()
            .map(|h| format!("\n  {:?}: closed {:?}, {}", h.side, h.app.closed, h.app.unfinished()))
            .collect()
    }
}

/// Plays `plan`.
///
/// # Errors
/// Describes the failure, with the seed.
pub fn run_plan(plan: Plan) -> Result<Outcome, Failure> {
    play(plan, RUN)
}

/// Plays `plan`, with runs of up to `longest_run` datagrams.
fn play(plan: Plan, longest_run: usize) -> Result<Outcome, Failure> {
    let seed = plan.seed;
    let mut world = World::new(plan, longest_run);
    let start = world.now;
    world.run().map_err(|e| format!("seed {seed}: {e}\n  plan: {:?}", world.plan))?;
    Ok(Outcome {
        time: world.now.saturating_since(start),
        network: world.network.stats,
        stats: [world.stats(0).clone(), world.stats(1).clone()],
        handed: [0, 1].map(|n| world.hosts[n].cores.handed),
        relayed: [0, 1].map(|n| world.hosts[n].cores.relayed),
        reset: [0, 1].map(|n| world.hosts[n].app.closed == Some(CloseReason::StatelessReset)),
        turns: world.turns,
        together: [world.hosts.iter().map(|host| host.cores.together).sum(), world.sent_together],
        trace: world.trace.finish(),
    })
}

/// Plays the run of `seed`.
///
/// # Errors
/// Describes the failure, with the seed.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    run_plan(Plan::from_seed(seed))
}

/// Plays `plan` with runs of up to `longest_run` datagrams, which must make no difference. 1 means datagram by datagram.
///
/// # Errors
/// Describes the failure, with the seed.
pub fn run_plan_in(plan: Plan, longest_run: usize) -> Result<Outcome, Failure> {
    play(plan, longest_run.clamp(1, RUN))
}
