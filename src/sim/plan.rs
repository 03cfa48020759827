//! What the simulated applications do, drawn from a seed.

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::Duration;
use crate::quic::{CidConfig, CongestionAlgorithm, Dir, Priority, RetryPolicy, StreamId};
use crate::sim::network::LinkConfig;

/// How a receiver takes a stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// From the engine's chunks, at most so many bytes at a time.
    Pooled(usize),
    /// Into buffers of about this size, so many at a time.
    Provided {
        /// Mean buffer size, bytes.
        size: usize,
        /// Buffers that are handed over together.
        count: usize,
    },
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Bytes to be sent.
    pub len: u64,
    /// Bytes per `send` call.
    pub piece: usize,
    /// How the other end receives.
    pub receive: Receive,
    /// The sender's priority for it.
    pub priority: Priority,
    /// The receiver wants to be told only when all is there.
    pub whole: bool,
    /// The sender resets the stream when it has queued so many bytes.
    pub reset_at: Option<u64>,
    /// The receiver asks to stop when so many bytes are there.
    pub stop_at: Option<u64>,
    /// What the receiver does about space.
    pub space: Space,
    /// When so many bytes are there, the receiver does nothing for a while.
    pub pause: Option<(u64, Duration)>,
}

/// How much space a receiver that provides buffers has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// It provides more whenever space runs low.
    #[default]
    Growing,
    /// It provides exactly what the stream has, or what was promised if that is more, and nothing later.
    Exact,
    /// It provides so much and nothing later, and does not want to wait if that is too little.
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

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closes when everything is done.
    AllDone,
    /// One side closes at some point of the transfer.
    Early(Side, Duration),
    /// One side closes in the turn with this number of the world, if it comes to it.
    AtTurn(Side, u64),
    /// The network goes away: both sides time out.
    Cut(Duration),
    /// One host forgets everything (a crash) and answers with stateless resets.
    Crash(Side, Duration),
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The network.
    pub link: LinkConfig,
    /// Streams by opener (client, server) and direction (bidirectional, unidirectional).
    pub streams: [[Vec<StreamPlan>; 2]; 2],
    /// Peer-opened streams get their first buffers from a listener's provider.
    pub provider: bool,
    /// Streams a peer may have open at a time.
    pub max_streams: u64,
    /// Connection window, bytes.
    pub max_data: u64,
    /// Window of pooled streams, bytes.
    pub window: u64,
    /// Congestion controller.
    pub congestion: CongestionAlgorithm,
    /// After so much silence each side pings: client, server. One side does at least, if an application pauses for long.
    pub keep_alive: [Option<Duration>; 2],
    /// The client updates keys when it hears of progress.
    pub key_updates: bool,
    /// Packets that either side seals with a key before it updates it.
    pub packets_per_key: u64,
    /// Lengths of the connection IDs of the client and the server, bytes.
    pub cid_lens: [usize; 2],
    /// The ending.
    pub ending: Ending,
    /// Whether the client has to come again with a token.
    pub retry: RetryPolicy,
    /// Memory for the pooled streams of each host, bytes. Often it is far too little for the windows.
    pub pool: usize,
}

fn size(rng: &mut Rng, max_bits: u64) -> u64 {
    let bits = rng.below(max_bits + 1);
    rng.below(1 << bits)
}

fn flow(rng: &mut Rng, provided: bool, aborts: bool) -> Flow {
    let len = size(rng, 18);
    let receive = if provided {
        // Half of them hold a few bytes only: pieces of frames, and frames over many buffers.
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
    // Nobody could stop it at some byte without being told of bytes.
    let whole = provided && stop_at.is_none() && rng.chance(300);
    Flow { len, piece, receive, priority, whole, reset_at, stop_at, space: Space::default(), pause: None }
}

/// Draws what streams do about space, and applications that pause for longer than any idle timeout.
fn stalls(rng: &mut Rng, plan: &mut Plan) {
    if rng.chance(50) {
        let tiny = |rng: &mut Rng, receive| Flow { len: rng.below(40), receive, ..flow(rng, false, false) };
        // They are read as they come, whatever the windows.
        let receive = if plan.window == 0 { Receive::Provided { size: 60, count: 1 } } else { Receive::Pooled(100) };
        if plan.window == 0 || !plan.provider {
            let list = &mut plan.streams[rng.below(2) as usize][rng.below(2) as usize];
            let many = 20 + rng.below(150);
            list.extend((0..many).map(|_| StreamPlan { forward: tiny(rng, receive), back: tiny(rng, receive) }));
            plan.max_streams = 1 + rng.below(60);
        }
    }
    for flow in plan.streams.iter_mut().flatten().flatten().flat_map(|s| [&mut s.forward, &mut s.back]) {
        // Who is stopped or reset elsewhere does not come to this.
        let undisturbed = flow.reset_at.is_none() && flow.stop_at.is_none();
        if undisturbed && matches!(flow.receive, Receive::Provided { .. }) {
            flow.space = match rng.below(10) {
                0..2 => Space::Exact,
                2 => Space::NoMoreThan(plan.window.max(1 + rng.below(flow.len + 1))),
                _ => Space::Growing,
            };
        }
    }
    // Nobody times out while somebody pings: such a play has to come to its end.
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

/// Half of all hosts have IDs of the usual length, the others up to the longest.
fn cid_lens(seed: u64) -> [usize; 2] {
    // Numbers of its own: what a seed stands for otherwise stays as it was.
    let mut rng = Rng::from_u64(seed ^ 0xc1d0_0000_0000_0000);
    [(); 2].map(|()| if rng.chance(500) { CidConfig::default().len() } else { 10 + rng.below(11) as usize })
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
        // A stream window of 0 makes every stream one that waits for buffers.
        let window = if rng.chance(250) { 0 } else { 2000 + size(rng, 18) };
        let provided = |rng: &mut Rng| window == 0 || rng.chance(500);
        let stream = |rng: &mut Rng| {
            // Bytes may come along with the stream itself: only a provider or a closed window is in time.
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
            window,
            congestion: if rng.chance(500) { CongestionAlgorithm::Cubic } else { CongestionAlgorithm::NewReno },
            keep_alive: [None; 2],
            key_updates: rng.chance(300),
            packets_per_key: u64::MAX,
            cid_lens: cid_lens(seed),
            ending,
            retry: RetryPolicy::default(),
            pool: usize::MAX,
        };
        // Whatever is drawn for later features comes last: the same seed remains the same play but for them.
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
        // From a source of its own: what else a seed stands for stays as it is.
        stalls(&mut Rng::from_u64(seed ^ 0x5ba_11ed), &mut plan);
        plan
    }

    fn list(&self, opener: Side, dir: Dir) -> &[StreamPlan] {
        &self.streams[usize::from(opener == Side::Server)][usize::from(dir == Dir::Uni)]
    }

    /// How many streams `opener` opens in direction `dir`.
    pub fn count(&self, opener: Side, dir: Dir) -> usize {
        self.list(opener, dir).len()
    }

    /// What `from` sends on stream `id`; `None` if it sends nothing there.
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
