//! Cores that sleep, each on its own thread, on a link that wakes them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use gannet::base::time::Instant;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};
use gannet::datapath::{Burst, Caps, Datapath, DatapathStats};
use gannet::mem::BufPool;
use gannet::proto::perf::{PerfClient, PerfPlan, PerfServer, server_transport};
use gannet::quic::{ConnId, Event, ServerConfig, TransportConfig};
use gannet::runtime::{App, Context, Core, CoreStats, Idle, Waker};
use rustix::event::{EventfdFlags, eventfd};

use crate::world::{self, plan, shared_tls};

/// Wakes one side.
struct Bell {
    armed: AtomicBool,
    file: OwnedFd,
}

impl Bell {
    fn new() -> Arc<Self> {
        let file = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("a file");
        Arc::new(Self { armed: AtomicBool::new(false), file })
    }
}

/// A port that rings the other side's bell, if there is one, as real ones do.
struct Belled {
    port: SimPort,
    mine: Option<Arc<Bell>>,
    other: Option<Arc<Bell>>,
}

impl Datapath for Belled {
    type Rx = <SimPort as Datapath>::Rx;
    type Tx = <SimPort as Datapath>::Tx;

    fn caps(&self) -> Caps {
        self.port.caps()
    }

    fn link_up(&mut self) -> bool {
        self.port.link_up()
    }

    fn arm(&mut self) -> bool {
        let Some(bell) = &self.mine else { return false };
        bell.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        true
    }

    fn wake_file(&self) -> Option<BorrowedFd<'_>> {
        self.mine.as_ref().map(|bell| bell.file.as_fd())
    }

    fn disarm(&mut self) {
        if let Some(bell) = &self.mine {
            bell.armed.store(false, Ordering::Relaxed);
            let _ = rustix::io::read(&bell.file, &mut [0u8; 8]);
        }
    }

    fn rx_burst(&mut self, burst: &mut Burst<Self::Rx>) -> usize {
        self.port.rx_burst(burst)
    }

    fn tx_alloc(&mut self) -> Option<Self::Tx> {
        self.port.tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<Self::Tx>) -> usize {
        let sent = self.port.tx_burst(burst);
        if let Some(bell) = self.other.as_ref().filter(|_| sent > 0) {
            fence(Ordering::SeqCst);
            if bell.armed.swap(false, Ordering::Relaxed) {
                rustix::io::write(&bell.file, &1u64.to_ne_bytes()).expect("an eventfd");
            }
        }
        sent
    }

    fn stats(&self) -> DatapathStats {
        self.port.stats()
    }
}

/// The core of a perf server.
fn serving<D: Datapath>(port: D, idle: Idle) -> Core<D, PerfServer> {
    let pool = BufPool::heap();
    let transport = server_transport(TransportConfig::default(), &pool);
    let server = ServerConfig::new(shared_tls(), transport).expect("settings");
    world::core(port, 1, Some(server), pool.clone(), idle, PerfServer::new(pool))
}

/// Runs a perf client with `plan` against a server, both sleeping when they can; returns the counters of both loops.
fn run(plan: PerfPlan, bells: bool) -> (CoreStats, CoreStats) {
    let (left, right) = SimLink::pair(SimConfig::default());
    let [one, two] = [bells.then(Bell::new), bells.then(Bell::new)];
    let (left, right) =
        (Belled { port: left, mine: one.clone(), other: two.clone() }, Belled { port: right, mine: two, other: one });
    let client_pool = BufPool::heap();
    let mut server = serving(right, Idle::Sleep);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            server.run(&stop).expect("a server");
            *server.stats()
        });
        let app = PerfClient::new(plan, client_pool.clone()).expect("a plan");
        let mut client = world::core(left, 2, None, client_pool, Idle::Sleep, app);
        client.run(&AtomicBool::new(false)).expect("a client");
        let results = client.app.results();
        assert!(results.is_clean(), "{:?}", results.failures);
        let stats = *client.stats();
        stop.store(true, Ordering::Relaxed);
        (stats, server.join().expect("no panic"))
    })
}

/// Requests far enough apart for both ends to fall asleep in between: each is a race between falling asleep and being
/// woken. A lost wake-up costs 10 ms, and is counted.
#[test]
fn no_wake_up_is_lost() {
    const REQUESTS: u64 = 3000;
    for rate in [Some(2000.0), Some(15_000.0)] {
        let plan = PerfPlan { download: 64, requests: Some(REQUESTS), rate, ..plan() };
        for stats in <[CoreStats; 2]>::from(run(plan, true)) {
            assert!(stats.sleeps > 0, "{stats:?}");
            // A frame may arrive exactly when the time is up.
            assert!(stats.late_wakeups <= 2 + stats.sleeps / 1000, "{stats:?}");
        }
    }
}

/// Ten thousand requests in a row, as fast as they are answered.
#[test]
fn ten_thousand_requests_in_a_row() {
    let (client, server) = run(PerfPlan { download: 64, requests: Some(10_000), ..plan() }, true);
    for stats in [client, server] {
        assert!(stats.late_wakeups <= 2 + stats.sleeps / 1000, "{stats:?}");
    }
}

/// Without anything that wakes it, a core checks often enough by itself.
#[test]
fn a_port_that_wakes_nobody_is_looked_at() {
    let (client, server) = run(PerfPlan { download: 64, requests: Some(500), rate: Some(2000.0), ..plan() }, false);
    assert!(client.sleeps > 0 && server.sleeps > 0, "{client:?} {server:?}");
    assert_eq!((client.late_wakeups, server.late_wakeups), (0, 0), "nobody was to be woken up");
}

/// An idle core takes a few hundred turns per second, a polling one millions.
#[test]
fn an_idle_core_hardly_turns() {
    let plan = PerfPlan { download: 64, requests: Some(20), rate: Some(40.0), ..plan() };
    for stats in <[CoreStats; 2]>::from(run(plan, true)) {
        // Half a second: 50 sleeps because there is nothing to do, and a few for each request and its timers. Each
        // comes with about 100 us of polling, at 100 ns a turn or more.
        assert!(stats.turns < 2_000_000, "{stats:?}");
        assert!(stats.sleeps < 1000, "{stats:?}");
    }
}

/// A sender with a full ring used to count as idle: 99.6 % of one that did nothing but wait for its ring.
#[test]
fn a_sender_that_waits_for_its_ring_is_not_idle() {
    let (left, right) = SimLink::pair(SimConfig { ring_size: 4, ..SimConfig::default() });
    let client_pool = BufPool::heap();
    let mut server = serving(right, Idle::Spin);
    let plan = PerfPlan { download: 50_000_000, ..plan() };
    let app = PerfClient::new(plan, client_pool.clone()).expect("a plan");
    let mut client = world::core(left, 2, None, client_pool, Idle::Spin, app);
    while client.datapath_stats().rx_bytes < 5_000_000 {
        client.turn();
        server.turn();
    }
    // Nobody receives what it sends any more.
    let before = *server.stats();
    (0..2000).for_each(|_| {
        server.turn();
    });
    let after = server.stats();
    let (blocked, idle) = (after.blocked_turns - before.blocked_turns, after.idle_turns - before.idle_turns);
    assert!(blocked > 1900 && idle < 50, "{blocked} blocked, {idle} idle");
}

/// A client whose ring nobody empties any more ends by its idle timeout. Its connections used to wait for the ring for
/// ever: their deadlines were looked at only after they had sent.
#[test]
fn a_full_ring_does_not_keep_a_client_from_its_end() {
    let (left, right) = SimLink::pair(SimConfig { ring_size: 4, ..SimConfig::default() });
    let client_pool = BufPool::heap();
    let mut server = serving(right, Idle::Spin);
    let base = TransportConfig { max_idle_timeout: Duration::from_millis(300), ..TransportConfig::default() };
    let client_config = world::client_config(base);
    let plan = PerfPlan { upload: 20_000_000, requests: Some(100), connections: 3, client_config, ..plan() };
    let app = PerfClient::new(plan, client_pool.clone()).expect("a plan");
    let mut client = world::core(left, 2, None, client_pool.clone(), Idle::Spin, app);
    let mut now = Instant::from_nanos(2_000_000_000);
    while client.app.results().bytes_up < 5_000_000 {
        now += Duration::from_micros(20);
        client.turn_at(now);
        server.turn_at(now);
    }
    // The server hangs.
    for _ in 0..20_000 {
        now += Duration::from_millis(1);
        client.turn_at(now);
    }
    assert!(client.app.is_done(), "{:?}", client.stats());
    let results = client.app.results();
    assert_eq!((results.failures.len(), results.connections_lost), (1, 3), "{:?}", results.failures);
    assert!(client.stats().tx_jammed > 0, "{:?}", client.stats());
    client.turn_at(now + Duration::from_secs(1));
    assert!(client.counters().any(|counter| counter == ("quic_connections", 0)));
    assert_eq!(client_pool.stats().in_use, 0);
}

/// An application that another thread has news for.
struct Listener {
    news: Arc<AtomicU64>,
    heard: u64,
    until: u64,
    waker: Waker,
}

impl App for Listener {
    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, _: Event) {}

    fn on_turn(&mut self, _: &mut Context<'_>) {
        self.heard = self.news.load(Ordering::Relaxed);
    }

    fn waker(&self) -> Option<Waker> {
        Some(self.waker.clone())
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_done(&self) -> bool {
        self.heard == self.until
    }
}

/// The application's waker is the core's.
#[test]
fn other_threads_wake_a_core_with_their_news() {
    const NEWS: u64 = 2000;
    let (port, _other) = SimLink::pair(SimConfig::default());
    let (news, waker) = (Arc::new(AtomicU64::new(0)), Waker::new());
    let app = Listener { news: news.clone(), heard: 0, until: NEWS, waker: waker.clone() };
    let port = Belled { port, mine: Some(Bell::new()), other: None };
    let mut core: Core<Belled, Listener> = world::core(port, 2, None, BufPool::heap(), Idle::Sleep, app);
    let sleeps = std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 1..=NEWS {
                // Long enough for the core to fall asleep, sometimes only just.
                std::thread::sleep(Duration::from_micros(n % 150));
                news.store(n, Ordering::Relaxed);
                waker.wake();
            }
        });
        core.run(&AtomicBool::new(false)).expect("a core");
        core.stats().sleeps
    });
    assert!(sleeps > NEWS / 10, "{sleeps}");
}
