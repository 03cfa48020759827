//! Two cores of a group, each on a CPU of its own, and a client on the first CPU. DPDK's rings connect them: the ports
//! pass frames by pointer, as the exchange between the cores does.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gannet::datapath::{Burst, Caps, Datapath, DatapathStats};
use gannet::dpdk::{Eal, EalConfig, Port, PortProfile, Queue, RingExchange, RxMbuf, TxMbuf, mesh};
use gannet::mem::cycles;
use gannet::quic::TransportConfig;
use gannet::runtime::{Core, CoreConfig, Seat};

use super::visits::{Answerer, Visitor};
use super::world::{self, accept_config, client_config, core_config};
use crate::Failure;
use crate::cores::pin;
use crate::stop::StopOnDrop;

/// Largest IP packet in bytes.
const MTU: u16 = 1500;

/// The number of cores.
const CORES: u8 = 2;

/// The maximum number of connections of each core.
const MOST: usize = 256;

/// The memory of each core, in bytes.
const MEMORY: usize = 16 << 20;

/// How long an answer may take before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of turns between looks at the clock.
const LOOK: u32 = 1 << 16;

/// Two connected ports with two queue pairs each, and the rings between the cores.
pub struct Ports {
    /// The client's queues. Queue n leads to the server's queue n.
    pub client: [Queue; 2],
    /// The server's queues, one for each core.
    pub server: [Queue; 2],
    /// The exchange, one end for each core.
    pub mesh: [RingExchange<RxMbuf>; 2],
    ports: (Port, Port),
    eal: Eal,
}

impl Ports {
    /// Starts DPDK, which is possible once in a process.
    ///
    /// # Errors
    /// If that fails, or there is no memory.
    pub fn open() -> Result<Self, Failure> {
        let sets = [("queues", "2"), ("offloads", "none")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let profile = PortProfile::load("ring", &sets)?.for_cores(CORES.into())?;
        let eal = Eal::init(&EalConfig::for_profiles(&[profile.clone(), profile.clone()]))?;
        let mut ports = Port::ring_pair(&eal, &profile)?;
        let two = |port: &mut Port| <[Queue; 2]>::try_from(port.take_queues()).map_err(|_| "a port without two queues");
        let mesh = mesh(&eal, CORES, None)?;
        Ok(Self {
            client: two(&mut ports.0)?,
            server: two(&mut ports.1)?,
            mesh: <[_; 2]>::try_from(mesh).map_err(|_| "an exchange without two ends")?,
            ports,
            eal,
        })
    }

    /// Frames with these bytes, as the server's core 0 receives them.
    ///
    /// # Errors
    /// If there are no free buffers.
    pub fn frames(&mut self, contents: &[Vec<u8>]) -> Result<Vec<RxMbuf>, Failure> {
        use gannet::datapath::TxFrame as _;
        let mut frames = Vec::new();
        for bytes in contents {
            let mut frame = self.client[0].tx_alloc().ok_or("no free buffer")?;
            frame.payload_mut()[..bytes.len()].copy_from_slice(bytes);
            frame.set_payload_len(bytes.len());
            let (mut tx, mut rx) = (Burst::new(), Burst::new());
            tx.push(frame);
            self.client[0].tx_burst(&mut tx);
            self.server[0].rx_burst(&mut rx);
            frames.push(rx.pop().ok_or("a frame that did not arrive")?);
        }
        Ok(frames)
    }
}

/// The client's way to both cores: it sends to one of them, which can be changed at any time.
pub struct Fork {
    queues: [Queue; 2],
    to: Rc<Cell<usize>>,
}

impl Datapath for Fork {
    type Rx = RxMbuf;
    type Tx = TxMbuf;

    fn caps(&self) -> Caps {
        self.queues[0].caps()
    }

    fn link_up(&mut self) -> bool {
        true
    }

    fn rx_burst(&mut self, burst: &mut Burst<RxMbuf>) -> usize {
        let [left, right] = &mut self.queues;
        left.rx_burst(burst) + if burst.is_full() { 0 } else { right.rx_burst(burst) }
    }

    fn tx_alloc(&mut self) -> Option<TxMbuf> {
        self.queues[self.to.get()].tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<TxMbuf>) -> usize {
        self.queues[self.to.get()].tx_burst(burst)
    }

    fn stats(&self) -> DatapathStats {
        self.queues[0].stats()
    }
}

/// A core of the group.
type Member = Core<Queue, Answerer, RingExchange<RxMbuf>>;

/// What the thread of core 1 shares with that of core 0.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Cycles of core 1's turns with work.
    spent: AtomicU64,
}

/// The client and core 0. Core 1 runs on a thread of its own.
pub struct Pair<'a> {
    /// The client.
    pub client: Core<Fork, Visitor>,
    near: Member,
    to: Rc<Cell<usize>>,
    /// Cycles of core 0's turns with work.
    spent: u64,
    shared: &'a Shared,
}

impl Pair<'_> {
    /// Runs both cores on these CPUs. Requests and answers are `message`. Calls `work` once they run.
    ///
    /// # Errors
    /// If a core cannot be created, or `work` fails.
    pub fn run<T>(
        ports: Ports,
        cpus: [usize; 2],
        message: &'static [u8],
        work: impl FnOnce(&mut Pair<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Ports { client, server: [near, far], mesh: [near_seat, far_seat], ports: _ports, eal } = ports;
        let shared = Shared::default();
        pin(cpus[0]);
        thread::scope(|scope| {
            let far = scope.spawn(|| -> Result<(), Failure> {
                pin(cpus[1]);
                let _registered = eal.register_thread()?;
                run_far(member(1, far, far_seat, message)?, &shared);
                Ok(())
            });
            let stop = StopOnDrop(&shared.stop);
            let done = Self::create(client, near, near_seat, message, &shared).and_then(|mut pair| work(&mut pair));
            drop(stop);
            far.join().unwrap_or_else(|_| Err("core 1 has panicked".into()))?;
            done
        })
    }

    fn create<'a>(
        client: [Queue; 2],
        near: Queue,
        seat: RingExchange<RxMbuf>,
        message: &'static [u8],
        shared: &'a Shared,
    ) -> Result<Pair<'a>, Failure> {
        let to = Rc::new(Cell::new(0));
        let fork = Fork { queues: client, to: to.clone() };
        let transport = TransportConfig { stream_window_bidi_local: 64 << 10, ..world::transport() };
        let visitor = Visitor::new(client_config(MTU, transport)?, message);
        let config = core_config(2, None, world::pool(MEMORY)?, MOST)?;
        let client = Core::new(fork, config, visitor)?;
        Ok(Pair { client, near: member(0, near, seat, message)?, to, spent: 0, shared })
    }

    /// Opens `count` more connections, which core `owner` accepts.
    ///
    /// # Errors
    /// If they are not established in time.
    pub fn connect(&mut self, owner: usize, count: usize) -> Result<(), Failure> {
        self.to.set(owner);
        let wanted = self.client.app.wanted + count;
        self.client.app.wanted = wanted;
        self.until("a connection", |client| client.conns.len() == wanted)?;
        // For the last acknowledgements, and discovery of the path's MTU.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            self.turn();
        }
        Ok(())
    }

    /// Makes `count` requests at once, on the connections from index `first` on, through the queue of core `to`. Returns
    /// the time until all are answered, in cycles.
    ///
    /// # Errors
    /// If they are not answered in time.
    pub fn ask(&mut self, first: usize, count: usize, to: usize) -> Result<u64, Failure> {
        self.to.set(to);
        let app = &mut self.client.app;
        (app.next, app.visits) = (first, count);
        let wanted = app.answered + count;
        let start = cycles();
        self.until("an answer", |client| client.answered == wanted)?;
        Ok(cycles() - start)
    }

    /// The cycles that each core has spent so far in turns in which it had something to do.
    pub fn spent(&self) -> [u64; 2] {
        // The last answer arrives before the turn that sends it has ended.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        [self.spent, self.shared.spent.load(Ordering::Acquire)]
    }

    /// Frames that core 0 has handed over to core 1 so far.
    pub fn handed_over(&self) -> u64 {
        self.near.stats().handed_over
    }

    /// Frames that core 0 has taken over from core 1 so far.
    pub fn taken_over(&self) -> u64 {
        self.near.stats().taken_over
    }

    fn until(&mut self, what: &str, done: impl Fn(&Visitor) -> bool) -> Result<(), Failure> {
        let mut start = None;
        loop {
            for _ in 0..LOOK {
                if done(&self.client.app) {
                    return Ok(());
                }
                self.turn();
            }
            let start = *start.get_or_insert_with(Instant::now);
            if start.elapsed() > PATIENCE || self.client.app.lost > 0 {
                let lost = self.client.app.lost;
                return Err(format!("waited for {what} in vain; {lost} connections were lost").into());
            }
        }
    }

    fn turn(&mut self) {
        self.client.turn();
        let start = cycles();
        if self.near.turn() {
            self.spent += cycles() - start;
        }
    }
}

/// Core `core` of the group.
fn member(core: u8, queue: Queue, exchange: RingExchange<RxMbuf>, answer: &'static [u8]) -> Result<Member, Failure> {
    let pool = world::pool(MEMORY)?;
    let accept = accept_config(MTU, Answerer::transport(&pool))?;
    let config = core_config(1, Some(accept), pool, MOST * usize::from(CORES))?;
    let config = CoreConfig { endpoint: config.endpoint.for_core(core, CORES), ..config };
    let seat = Seat { core, cores: CORES, exchange, notes: None };
    Ok(Core::in_group(queue, config, Answerer::new(answer), seat)?)
}

/// Runs core 1 until it is to stop.
fn run_far(mut core: Member, shared: &Shared) {
    let mut spent = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let start = cycles();
        if core.turn() {
            spent += cycles() - start;
            shared.spent.store(spent, Ordering::Release);
        }
    }
}
