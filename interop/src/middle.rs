//! The forwarder between the two links of a [`Lab`](crate::lab::Lab), on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use gannet::base::Side;
use gannet::base::rng::Rng;
use gannet::base::time::Instant;
use gannet::sim::forwarder::{Datagram, Forwarder, ForwarderConfig, ForwarderStats};
use gannet::wire::eth::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::capture::Capture;
use crate::error::Result;
use crate::frame::{self, Shell};
use crate::lab;
use crate::sight::Sight;
use crate::socket::PacketSocket;

/// The longest wait, after which it looks whether to end.
const TICK: Duration = Duration::from_millis(20);

/// Frames received in a row from one side.
const BATCH: usize = 64;

/// Datagrams with at least this many bytes of payload have data, unless they belong to a handshake.
const DATA: usize = 1000;

/// Room for the longest frame.
const FRAME: usize = 65_536;

/// Interfaces between which a forwarder stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Their namespace; this thread's if there is none.
    pub ns: Option<String>,
    /// The interface whose other end is the client's.
    pub to_client: String,
    /// The interface whose other end is the server's.
    pub to_server: String,
}

/// What was seen and done.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What was seen on the wire.
    pub sight: Sight,
    /// What the forwarder did.
    pub stats: ForwarderStats,
    /// From the first datagram until the last one with data went to the client.
    pub busy: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Datagrams of the server so far.
    from_server: AtomicU64,
}

/// A forwarder that runs until it is dropped.
#[derive(Debug)]
pub struct Middle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<View>>>,
}

impl Middle {
    /// Starts it. With a directory, it writes `client.pcap` and `server.pcap` there: what crosses either link.
    ///
    /// # Errors
    /// If sockets or captures cannot be opened.
    pub fn start(place: &Place, config: &ForwarderConfig, seed: u64, captures: Option<&Path>) -> Result<Self> {
        // A thread of its own goes to the namespace. The sockets that it makes stay there.
        let open = || Engine::open(place, config, seed, captures);
        let engine = joined(thread::scope(|scope| scope.spawn(open).join()))?;
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || engine.run(&own));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Datagrams that the server has sent so far.
    pub fn server_datagrams(&self) -> u64 {
        self.shared.from_server.load(Ordering::Relaxed)
    }

    /// Ends it. Returns what it saw and did.
    ///
    /// # Errors
    /// If it had failed.
    pub fn finish(mut self) -> Result<View> {
        self.end().unwrap_or_else(|| Err("the forwarder has ended before".into()))
    }

    /// `None` if it has been ended before.
    fn end(&mut self) -> Option<Result<View>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| joined(thread.join()))
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            eprintln!("warning: {error}");
        }
    }
}

fn joined<T>(done: thread::Result<Result<T>>) -> Result<T> {
    done.unwrap_or_else(|_| Err("the forwarder has panicked".into()))
}

struct Engine {
    /// When the captures began.
    start: Clock,
    /// When the first datagram came: what the forwarder's times count from. How long the programs take to start has no
    /// influence then.
    epoch: Option<Clock>,
    /// Towards the client and the server.
    sockets: [PacketSocket; 2],
    captures: Option<[Capture; 2]>,
    forwarder: Forwarder<Shell>,
    client: Option<Mac>,
}

/// The index of a side's socket.
const fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

impl Engine {
    fn open(place: &Place, config: &ForwarderConfig, seed: u64, dir: Option<&Path>) -> Result<Self> {
        if let Some(ns) = &place.ns {
            lab::enter(ns)?;
        }
        let captures = match dir {
            Some(dir) => Some([Capture::create(&dir.join("client.pcap"))?, Capture::create(&dir.join("server.pcap"))?]),
            None => None,
        };
        Ok(Self {
            start: Clock::now(),
            epoch: None,
            sockets: [PacketSocket::open(&place.to_client)?, PacketSocket::open(&place.to_server)?],
            captures,
            forwarder: Forwarder::new(config, Instant::ZERO, &mut Rng::from_u64(seed)),
            client: None,
        })
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.map_or(Duration::ZERO, |epoch| epoch.elapsed())
    }

    fn run(mut self, shared: &Shared) -> Result<View> {
        let (mut view, mut buffer) = (View::default(), vec![0; FRAME]);
        while !shared.stop.load(Ordering::Relaxed) {
            for side in [Side::Client, Side::Server] {
                for _ in 0..BATCH {
                    let Some(frame) = self.sockets[index(side)].receive(&mut buffer)? else { break };
                    self.frame(side, frame, &mut view.sight)?;
                }
            }
            let now = self.now();
            while let Some((to, datagram)) = self.forwarder.receive(now) {
                if to == Side::Server {
                    view.sight.reaches_server(datagram.from, &datagram.payload);
                } else if datagram.payload.len() >= DATA {
                    view.busy = now.saturating_since(Instant::ZERO);
                }
                if let Some(frame) = frame::put(&datagram) {
                    self.send(to, &frame)?;
                }
            }
            shared.from_server.store(view.sight.server.datagrams, Ordering::Relaxed);
            self.wait()?;
        }
        view.stats = self.forwarder.stats();
        for capture in self.captures.into_iter().flatten() {
            capture.finish()?;
        }
        Ok(view)
    }

    /// Takes a frame of `from`.
    fn frame(&mut self, from: Side, frame: &[u8], sight: &mut Sight) -> Result<()> {
        self.record(from, frame)?;
        if from == Side::Client {
            self.client = frame::source(frame);
        }
        let Some(datagram) = frame::take(frame) else { return self.other(from, frame) };
        let Datagram { to, ecn, payload, .. } = &datagram;
        match from {
            Side::Client => sight.client_sent(*ecn, payload),
            Side::Server => sight.server_sent(*to, *ecn, payload),
        }
        self.epoch.get_or_insert_with(Clock::now);
        let now = self.now();
        self.forwarder.send(now, from.peer(), datagram);
        Ok(())
    }

    /// Takes a frame without a datagram. It passes, unless the server asks for an address that the NAT has given to the
    /// client.
    fn other(&mut self, from: Side, frame: &[u8]) -> Result<()> {
        if from == Side::Server
            && let Some(question) = frame::question(frame)
            && self.forwarder.owner_of(question.target).is_some()
            && let Some(answer) = self.client.and_then(|mac| frame::answer(&question, mac))
        {
            return self.send(from, &answer);
        }
        self.send(from.peer(), frame)
    }

    fn send(&mut self, to: Side, frame: &[u8]) -> Result<()> {
        // A frame that the interface does not take is lost, as on any link.
        self.sockets[index(to)].send(frame);
        self.record(to, frame)
    }

    fn record(&mut self, side: Side, frame: &[u8]) -> Result<()> {
        let since = self.start.elapsed();
        if let Some(captures) = &mut self.captures {
            captures[index(side)].frame(since, frame)?;
        }
        Ok(())
    }

    /// Waits for a frame, for the next arrival, or for a while.
    fn wait(&self) -> Result<()> {
        let next = self.forwarder.next_arrival().map_or(TICK, |at| at.saturating_since(self.now()).min(TICK));
        let mut fds = self.sockets.each_ref().map(|socket| PollFd::new(socket, PollFlags::IN));
        let wait = Timespec { tv_sec: next.as_secs() as _, tv_nsec: next.subsec_nanos().into() };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
