//! The behaviour of the simulated applications, drawn from a seed.

use std::sync::Arc;

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::Duration;
use crate::quic::trace::Tracer;
use crate::quic::{
    AckRequests, CidConfig, CongestionAlgorithm, DatagramConfig, DatagramOrder, Dir, DropPolicy, Priority, RetryPolicy,
    StreamId, Version, Versions,
};
use crate::sim::moves::Move;
use crate::sim::network::{EcnFate, LinkConfig};
use crate::sim::traces::Checker;

/// How a receiver takes a stream's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// From the engine's chunks, at most this many bytes at a time.
    Pooled(usize),
    /// Into provided buffers.
    Provided {
        /// Mean size of buffers in bytes.
        size: usize,
        /// Number of buffers provided at a time.
        count: usize,
    },
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Number of bytes to send.
    pub len: u64,
    /// Bytes per `send` call.
    pub piece: usize,
    /// How the other end receives.
    pub receive: Receive,
    /// The sender's priority for it.
    pub priority: Priority,
    /// Whether the receiver wants to be notified only when all data has arrived.
    pub whole: bool,
    /// The sender resets the stream after queueing this many bytes.
    pub reset_at: Option<u64>,
    /// With it, this many of these bytes are still delivered; and how many after a second reset, if there is one.
    pub reliable: Option<(u64, Option<u64>)>,
    /// The receiver stops the stream after receiving this many bytes.
    pub stop_at: Option<u64>,
    /// The space that the receiver provides.
    pub space: Space,
    /// After receiving this many bytes, the receiver does nothing for a while.
    pub pause: Option<(u64, Duration)>,
}

/// How much space a receiver with provided buffers provides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// More whenever space runs low.
    #[default]
    Growing,
    /// Exactly the length of the stream, or what was promised if that is more, and nothing later.
    Exact,
    /// This many bytes and nothing later; the stream is stopped if that is too little.
    NoMoreThan(u64),
}

/// One stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamPlan {
    /// What the opener sends.
    pub forward: Flow,
    /// What the other side sends back (on bidirectional streams).
    pub back: Flow,
}

/// What both sides do with datagrams; arrays are for client and server.
#[derive(Clone, Copy, Debug)]
pub struct DatagramPlan {
    /// Number of datagrams to send.
    pub count: [u32; 2],
    /// Their maximum length. It may be more than fits into a packet.
    pub longest: usize,
    /// The maximum size of frames that are accepted.
    pub accept: [u16; 2],
    /// Number of buffers that are provided for received ones; 0 leaves them in the pool.
    pub buffers: [usize; 2],
    /// Lengths of the queues: received, to be sent.
    pub queues: [usize; 2],
    /// Whether the oldest are dropped: received, to be sent.
    pub oldest: [bool; 2],
    /// Whether streams come first.
    pub after_streams: bool,
    /// Some datagrams have to be sent within this time.
    pub within: Option<Duration>,
}

impl DatagramPlan {
    /// Draws a plan.
    pub fn draw(rng: &mut Rng) -> Self {
        let accept = |rng: &mut Rng| match rng.below(6) {
            0 => 0,
            1 => 2 + rng.below(1500) as u16,
            _ => u16::MAX,
        };
        let longest = if rng.chance(500) { 60 } else { 1600 };
        Self {
            count: [(); 2].map(|()| rng.below(60) as u32),
            longest: 4 + rng.below(longest) as usize,
            accept: [accept(rng), accept(rng)],
            buffers: [(); 2].map(|()| if rng.chance(500) { 1 + rng.below(10) as usize } else { 0 }),
            queues: [(); 2].map(|()| 1 + rng.below(20) as usize),
            oldest: [(); 2].map(|()| rng.chance(500)),
            after_streams: rng.chance(300),
            within: rng.chance(300).then(|| Duration::from_nanos(rng.below(1 << 26))),
        }
    }

    /// The settings of `side`.
    pub fn config(&self, side: Side) -> DatagramConfig {
        let policy = |oldest| if oldest { DropPolicy::Oldest } else { DropPolicy::Newest };
        DatagramConfig {
            max_frame_size: self.accept[side as usize],
            receive_queue: self.queues[0],
            receive_drop: policy(self.oldest[0]),
            send_queue: self.queues[1],
            send_drop: policy(self.oldest[1]),
            order: if self.after_streams { DatagramOrder::AfterStreams } else { DatagramOrder::BeforeStreams },
            ..DatagramConfig::default()
        }
    }

    /// The contents of datagram `n` of `from`: its number, and bytes that follow from it.
    pub fn contents(&self, from: Side, n: u32) -> Vec<u8> {
        let len = Rng::from_u64(u64::from(n) << 1 | from as u64).below(self.longest as u64 + 1) as usize;
        let stream = StreamId(u64::from(n) << 2);
        n.to_be_bytes().into_iter().chain((0..len as u64).map(|at| pattern(stream, from, at))).collect()
    }
}

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closes when all streams are finished.
    AllDone,
    /// One side closes at some point of the transfer.
    Early(Side, Duration),
    /// One side closes in the turn with this number, if it is reached.
    AtTurn(Side, u64),
    /// The network fails, and both sides time out.
    Cut(Duration),
    /// One host loses all its state (a crash) and answers with stateless resets.
    Crash(Side, Duration),
}

/// Everything determined by a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The network.
    pub link: LinkConfig,
    /// Streams by opener (client, server) and direction (bidirectional, unidirectional).
    pub streams: [[Vec<StreamPlan>; 2]; 2],
    /// Whether peer-opened streams get their first buffers from a listener's provider.
    pub provider: bool,
    /// Maximum number of streams that a peer may have open at a time.
    pub max_streams: u64,
    /// Connection window in bytes.
    pub max_data: u64,
    /// Whether windows and budgets follow the path.
    pub follows: bool,
    /// Window of pooled streams in bytes.
    pub window: u64,
    /// Congestion control algorithm.
    pub congestion: CongestionAlgorithm,
    /// Keep-alive intervals of client and server. At least one has one if an application pauses for long.
    pub keep_alive: [Option<Duration>; 2],
    /// Whether the client updates keys on progress.
    pub key_updates: bool,
    /// How often client and server update keys at other times: probability in per mille of each event and each turn.
    pub key_whims: [u64; 2],
    /// Whether the client offers X25519MLKEM768, so that its ClientHello takes two Initial packets.
    pub hybrid: bool,
    /// Number of packets sealed with a key before it is updated.
    pub packets_per_key: u64,
    /// Lengths of the connection IDs of client and server, in bytes.
    pub cid_lens: [usize; 2],
    /// The versions of client and server, in order of preference.
    pub versions: [Versions; 2],
    /// The version that the client begins with.
    pub first_version: Option<Version>,
    /// Whether client and server send values that the other side has to ignore.
    pub grease: [bool; 2],
    /// Whether client and server mark packets for ECN.
    pub ecn: [bool; 2],
    /// Whether they use the spin bit.
    pub spin: [bool; 2],
    /// How the connection ends.
    pub ending: Ending,
    /// Whether the client needs an address token.
    pub retry: RetryPolicy,
    /// Memory for the pooled streams of each host, in bytes. It is often far too little for the windows.
    pub pool: usize,
    /// Number of cores of client and server.
    pub cores: [u8; 2],
    /// The cores of client and server that receive all datagrams.
    pub first: [u8; 2],
    /// The core of the client's connection.
    pub home: u8,
    /// Probability in per mille that a datagram with one of our IDs arrives at a random core instead.
    pub scatter: u64,
    /// A core stops at this time, counted from the start. Its connections are closed.
    pub stop: Option<(Side, u8, Duration)>,
    /// Number of cores of client and server after a crash.
    pub cores_left: [u8; 2],
    /// What client and server ask the other's acknowledgements for, and the minimum delay that they accept.
    pub acks: [(AckRequests, Option<Duration>); 2],
    /// Datagrams, if both sides have any in their settings.
    pub datagrams: Option<DatagramPlan>,
    /// What becomes of the 0-RTT data of a client that has been connected before; `None` if it has not.
    pub early: Option<Return>,
    /// What happens to the addresses, in order, each counted from the start. Nothing happens before the client has
    /// connected.
    pub moves: Vec<(Duration, Move)>,
    /// Probability in per mille that an attacker sends a copy of a datagram to the server with another source address.
    pub spoof: u64,
    /// Whether the server prefers another address.
    pub preferred: bool,
    /// Who is told what happens to all connections.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// What the server does with the 0-RTT data of a client that has been there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// It accepts it.
    Accepts,
    /// Its application does not allow it.
    Refuses,
    /// It has another secret, so that it cannot read the ticket.
    Forgot,
    /// Its limits are lower than before.
    Reduced,
    /// The client resumes its session, but sends no 0-RTT.
    Patient,
}

impl Return {
    /// One of them, or none, by an independent source, so that the rest of a seed's plan does not change.
    pub(super) fn draw(seed: u64) -> Option<Self> {
        let mut rng = Rng::from_u64(seed ^ 0x0e7_0e7);
        let kinds = [Self::Accepts, Self::Accepts, Self::Refuses, Self::Forgot, Self::Reduced, Self::Patient];
        rng.chance(300).then(|| kinds[rng.below(kinds.len() as u64) as usize])
    }
}

fn size(rng: &mut Rng, max_bits: u64) -> u64 {
    let bits = rng.below(max_bits + 1);
    rng.below(1 << bits)
}

fn flow(rng: &mut Rng, provided: bool, aborts: bool) -> Flow {
    let len = size(rng, 18);
    let receive = if provided {
        // Half of them have only a few bytes: pieces of frames, and frames that span many buffers.
        let size = (1 + size(rng, 14)) as usize;
        let count = 1 + rng.below(6) as usize;
        Receive::Provided { size: size.max(len as usize / 2000), count }
    } else {
        Receive::Pooled(1 + size(rng, 16) as usize)
    };
    let abort = |rng: &mut Rng| (aborts && rng.chance(150)).then(|| rng.below(len + 1));
    let piece = 1 + size(rng, 15).max(len / 500) as usize;
    let (reset_at, stop_at) = (abort(rng), abort(rng));
    let priority = if rng.chance(500) {
        Priority { urgency: rng.below(8) as u8, incremental: rng.chance(500) }
    } else {
        Priority::default()
    };
    // A stream cannot be stopped at some byte without being notified of bytes.
    let whole = provided && stop_at.is_none() && rng.chance(300);
    Flow {
        len,
        piece,
        receive,
        priority,
        whole,
        reset_at,
        reliable: None,
        stop_at,
        space: Space::default(),
        pause: None,
    }
}

/// Draws the provided space, and applications that pause for longer than any idle timeout.
fn stalls(rng: &mut Rng, plan: &mut Plan) {
    if rng.chance(50) {
        let tiny = |rng: &mut Rng, receive| Flow { len: rng.below(40), receive, ..flow(rng, false, false) };
        // These are read as data arrives, whatever the windows.
        let receive = if plan.window == 0 { Receive::Provided { size: 60, count: 1 } } else { Receive::Pooled(100) };
        if plan.window == 0 || !plan.provider {
            let list = &mut plan.streams[rng.below(2) as usize][rng.below(2) as usize];
            let many = 20 + rng.below(150);
            list.extend((0..many).map(|_| StreamPlan { forward: tiny(rng, receive), back: tiny(rng, receive) }));
            plan.max_streams = 1 + rng.below(60);
        }
    }
    for flow in plan.streams.iter_mut().flatten().flatten().flat_map(|s| [&mut s.forward, &mut s.back]) {
        // Streams that are stopped or reset elsewhere do not get this far.
        let undisturbed = flow.reset_at.is_none() && flow.stop_at.is_none();
        if undisturbed && matches!(flow.receive, Receive::Provided { .. }) {
            flow.space = match rng.below(10) {
                0..2 => Space::Exact,
                2 => Space::NoMoreThan(plan.window.max(1 + rng.below(flow.len + 1))),
                _ => Space::Growing,
            };
        }
    }
    // Connections do not time out while one side pings, so such a play has to finish.
    if plan.ending == Ending::AllDone && rng.chance(100) {
        let mut all: Vec<_> = plan.streams.iter_mut().flatten().flatten().collect();
        let n = all.len() as u64;
        for _ in 0..n.min(1 + rng.below(2)) {
            let stream = &mut all[rng.below(n) as usize];
            let flow = if rng.chance(500) { &mut stream.forward } else { &mut stream.back };
            flow.pause = Some((rng.below(flow.len + 1), Duration::from_secs(1 + rng.below(400))));
        }
        let every = Some(Duration::from_secs(1 + rng.below(80)));
        plan.keep_alive = [[every, None], [None, every], [every; 2]][rng.below(3) as usize];
    }
}

/// Draws hosts with several cores.
fn cores(rng: &mut Rng, plan: &mut Plan) {
    if !rng.chance(500) {
        return;
    }
    plan.cores = [(); 2].map(|()| 1 + rng.below(5) as u8);
    plan.first = plan.cores.map(|cores| rng.below(cores.into()) as u8);
    // Half of all clients have chosen a source port with which answers arrive at the core of the connection.
    plan.home = if rng.chance(500) { plan.first[0] } else { rng.below(plan.cores[0].into()) as u8 };
    plan.scatter = [0, 1000, rng.below(1001)][rng.below(3) as usize];
    if rng.chance(200) {
        let side = if rng.chance(500) { Side::Client } else { Side::Server };
        let core = rng.below(plan.cores[side as usize].into()) as u8;
        plan.stop = Some((side, core, Duration::from_nanos(size(rng, 30))));
    }
    plan.cores_left = plan.cores.map(|cores| if rng.chance(500) { cores } else { 1 + rng.below(cores.into()) as u8 });
}

/// Draws addresses that change.
fn moves(rng: &mut Rng, plan: &mut Plan) {
    if rng.chance(400) {
        let few = 1 + rng.below(6);
        let many = if rng.chance(100) { 50 } else { few };
        // Times close to each other, and to the transfer.
        let bits = 18 + rng.below(14);
        plan.moves = (0..many)
            .map(|_| {
                let what = match rng.below(10) {
                    0..3 => Move::RebindPort,
                    3..5 => Move::RebindHost,
                    5..8 => Move::Migrate(rng.below(4) as u8),
                    8 => Move::Probe(rng.below(4) as u8),
                    _ => Move::Rotate(if rng.chance(500) { Side::Client } else { Side::Server }),
                };
                (Duration::from_nanos(rng.below(1 << bits)) + 4 * plan.link.delay, what)
            })
            .collect();
        plan.moves.sort_by_key(|(at, _)| *at);
    }
    if rng.chance(150) {
        plan.spoof = 1 + size(rng, 9);
    }
    plan.preferred = rng.chance(150);
}

/// Half of all hosts have IDs of the default length, the others up to the maximum.
fn cid_lens(seed: u64) -> [usize; 2] {
    // From an independent source, so that the rest of a seed's plan does not change.
    let mut rng = Rng::from_u64(seed ^ 0xc1d0_0000_0000_0000);
    [(); 2].map(|()| if rng.chance(500) { CidConfig::default().len() } else { 10 + rng.below(11) as usize })
}

/// A quarter of all plays are traced, which must not make a difference.
fn tracer(seed: u64) -> Option<Arc<dyn Tracer>> {
    // From an independent source, so that the rest of a seed's plan does not change.
    let traced = Rng::from_u64(seed ^ 0x7ace_0000_0000_0000).chance(250);
    traced.then(|| Arc::new(Checker) as _)
}

/// Draws the versions, so that all kinds of negotiation occur, and sometimes nothing is in common.
fn versions(rng: &mut Rng, plan: &mut Plan) {
    let [v1, v2] = Version::ALL;
    let list = |rng: &mut Rng| match rng.below(10) {
        0..3 => Versions::default(),
        3..7 => Versions::new(&[v2, v1]).unwrap_or_default(),
        7..9 => v2.into(),
        _ => v1.into(),
    };
    plan.versions = [(); 2].map(|()| list(rng));
    plan.first_version = rng.chance(500).then(|| plan.versions[0][rng.below(plan.versions[0].len() as u64) as usize]);
    plan.grease = [(); 2].map(|()| rng.chance(700));
}

/// Draws what routers do with marks for ECN, and who uses them and the spin bit.
fn ecn(rng: &mut Rng, plan: &mut Plan) {
    plan.link.ecn = match rng.below(20) {
        0 => EcnFate::Congested,
        1 => EcnFate::Changed,
        2 => EcnFate::Dropped,
        3..6 => EcnFate::Cleared,
        _ => EcnFate::Kept,
    };
    plan.link.congestion = if rng.chance(400) { size(rng, 9) } else { 0 };
    plan.ecn = [(); 2].map(|()| rng.chance(850));
    plan.spin = [(); 2].map(|()| rng.chance(500));
}

impl Plan {
    /// The plan of `seed`.
    pub fn from_seed(seed: u64) -> Self {
        let rng = &mut Rng::from_u64(seed);
        let chance = |rng: &mut Rng, max: u64| if rng.chance(500) { rng.below(max + 1) } else { 0 };
        let delay = Duration::from_nanos(10_000 + size(rng, 26));
        let link = LinkConfig {
            delay,
            rate: if rng.chance(300) { 1_000_000 + size(rng, 32) } else { 0 },
            queue: 20_000 + size(rng, 20),
            loss: chance(rng, 200),
            duplicate: chance(rng, 100),
            reorder: chance(rng, 300),
            corrupt: chance(rng, 50),
            mtu: if rng.chance(300) { 1200 + rng.below(300) as usize } else { 1472 },
            ..LinkConfig::default()
        };
        let provider = rng.chance(400);
        let aborts = rng.chance(400);
        // With a stream window of 0, every stream waits for buffers.
        let window = if rng.chance(250) { 0 } else { 2000 + size(rng, 18) };
        let provided = |rng: &mut Rng| window == 0 || rng.chance(500);
        let stream = |rng: &mut Rng| {
            // Data may arrive along with the stream itself, so only a provider or a closed window is in time.
            let (forward, back) = (window == 0 || provider, provided(rng));
            StreamPlan { forward: flow(rng, forward, aborts), back: flow(rng, back, aborts) }
        };
        let mut streams = <[[Vec<StreamPlan>; 2]; 2]>::default();
        for list in streams.iter_mut().flatten() {
            let n = if rng.chance(600) { 1 + rng.below(6) } else { 0 };
            list.extend((0..n).map(|_| stream(rng)));
        }
        let side = if rng.chance(500) { Side::Client } else { Side::Server };
        let when = Duration::from_nanos(size(rng, 24) + 8 * delay.as_nanos() as u64);
        let ending = match rng.below(20) {
            0..2 => Ending::Early(side, when),
            2 => Ending::Cut(when),
            3 => Ending::Crash(side, when),
            _ => Ending::AllDone,
        };
        let mut plan = Self {
            seed,
            link,
            streams,
            provider,
            max_streams: 1 + rng.below(8),
            max_data: 4000 + size(rng, 22),
            follows: false,
            window,
            congestion: if rng.chance(500) { CongestionAlgorithm::Cubic } else { CongestionAlgorithm::NewReno },
            keep_alive: [None; 2],
            key_updates: rng.chance(300),
            key_whims: [0; 2],
            hybrid: false,
            packets_per_key: u64::MAX,
            cid_lens: cid_lens(seed),
            versions: [(); 2].map(|()| Versions::default()),
            first_version: None,
            grease: [true; 2],
            ecn: [true; 2],
            spin: [false; 2],
            ending,
            retry: RetryPolicy::default(),
            pool: usize::MAX,
            cores: [1; 2],
            first: [0; 2],
            home: 0,
            scatter: 0,
            stop: None,
            cores_left: [1; 2],
            acks: [(AckRequests::Never, None); 2],
            datagrams: None,
            early: Return::draw(seed),
            moves: Vec::new(),
            spoof: 0,
            preferred: false,
            tracer: tracer(seed),
        };
        // Draws for later features come last, so that the same seed otherwise produces the same play.
        if rng.chance(200) {
            plan.packets_per_key = 1 + size(rng, 8);
        }
        plan.retry = match rng.below(4) {
            0 => RetryPolicy::Always,
            1 => RetryPolicy::Never,
            2 => RetryPolicy::Auto { threshold: 0 },
            _ => RetryPolicy::default(),
        };
        if rng.chance(500) {
            plan.pool = (32 << 10) << rng.below(7);
        }
        plan.link.draw_weather(rng);
        // From an independent source, so that the rest of a seed's plan does not change.
        stalls(&mut Rng::from_u64(seed ^ 0x5ba_11ed), &mut plan);
        cores(&mut Rng::from_u64(seed ^ 0xc0_4e5), &mut plan);
        versions(&mut Rng::from_u64(seed ^ 0xfe_4510_4500), &mut plan);
        ecn(&mut Rng::from_u64(seed ^ 0xec_4000), &mut plan);
        let rng = &mut Rng::from_u64(seed ^ 0xb00_57ed);
        if rng.chance(400) {
            plan.link.every = Duration::from_nanos(size(rng, 24));
        }
        let rng = &mut Rng::from_u64(seed ^ 0x71_5000);
        plan.hybrid = rng.chance(300);
        if rng.chance(300) {
            plan.key_whims = [(); 2].map(|()| [0, 5, 100, 1000][rng.below(4) as usize]);
        }
        let rng = &mut Rng::from_u64(seed ^ 0x2e11_ab1e);
        for flow in plan.streams.iter_mut().flatten().flatten().flat_map(|s| [&mut s.forward, &mut s.back]) {
            if let Some(at) = flow.reset_at.filter(|_| rng.chance(600)) {
                let reliable = rng.below(at + 1);
                flow.reliable = Some((reliable, rng.chance(300).then(|| rng.below(reliable + 1))));
            }
        }
        let rng = &mut Rng::from_u64(seed ^ 0x0acf_04e9);
        plan.acks = [(); 2].map(|()| {
            let requests = match rng.below(4) {
                0 => AckRequests::Adaptive,
                1 => AckRequests::Fixed {
                    threshold: size(rng, 8) as u32,
                    max_delay: Duration::from_micros(size(rng, 17)),
                    reordering: rng.below(6) as u32,
                },
                _ => AckRequests::Never,
            };
            (requests, rng.chance(700).then(|| Duration::from_micros(size(rng, 15))))
        });
        let rng = &mut Rng::from_u64(seed ^ 0xda7a_67a0);
        plan.datagrams = rng.chance(300).then(|| DatagramPlan::draw(rng));
        moves(&mut Rng::from_u64(seed ^ 0x30_7e5), &mut plan);
        if Rng::from_u64(seed ^ 0xbb_4300).chance(300) {
            plan.congestion = CongestionAlgorithm::Bbr;
        }
        plan.follows = Rng::from_u64(seed ^ 0xf0_110e5).chance(500);
        plan
    }

    /// The version that client and server negotiate: the server's most preferred one of those that the client speaks,
    /// whatever it begins with. `None` if they have none in common.
    pub fn version(&self) -> Option<Version> {
        let [client, server] = &self.versions;
        server.iter().copied().find(|version| client.contains(version))
    }

    fn list(&self, opener: Side, dir: Dir) -> &[StreamPlan] {
        &self.streams[usize::from(opener == Side::Server)][usize::from(dir == Dir::Uni)]
    }

    /// Number of streams that `opener` opens in direction `dir`.
    pub fn count(&self, opener: Side, dir: Dir) -> usize {
        self.list(opener, dir).len()
    }

    /// What `from` sends on stream `id`; `None` if nothing.
    pub fn flow(&self, id: StreamId, from: Side) -> Option<Flow> {
        let plan = self.list(id.initiator(), id.dir()).get(id.index() as usize)?;
        if id.initiator() == from { Some(plan.forward) } else { (id.dir() == Dir::Bidi).then_some(plan.back) }
    }

    /// Every direction of every stream: (stream, sender).
    pub fn flows(&self) -> Vec<(StreamId, Side)> {
        let mut all = Vec::new();
        for opener in [Side::Client, Side::Server] {
            for dir in [Dir::Bidi, Dir::Uni] {
                for index in 0..self.count(opener, dir) as u64 {
                    let id = StreamId::new(opener, dir, index);
                    all.push((id, opener));
                    if dir == Dir::Bidi {
                        all.push((id, opener.peer()));
                    }
                }
            }
        }
        all
    }
}

/// The byte that `from` sends at `offset` of stream `id`.
pub fn pattern(id: StreamId, from: Side, offset: u64) -> u8 {
    let mixed = (offset ^ offset >> 7 ^ offset >> 13).wrapping_mul(167);
    (mixed as u8).wrapping_add((id.0 as u8).wrapping_mul(29)).wrapping_add(if from == Side::Server { 101 } else { 0 })
}
