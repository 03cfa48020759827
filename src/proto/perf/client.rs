//! The client: opens connections, makes requests in a closed or open loop, and measures.

mod buffers;
mod connect;
mod link;
mod load;
mod request;
mod start;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::id_map::IdMap;
use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::proto::perf::UNLIMITED;
use crate::proto::perf::failure::PerfFailure;
use crate::proto::perf::live::{LiveCounts, PerfLive};
use crate::proto::perf::plan::{PerfPlan, PlanError, ReceiveShape};
use crate::proto::perf::results::PerfResults;
use crate::proto::perf::schedule::Schedule;
use crate::proto::perf::transport::client_transport;
use crate::quic::{CloseReason, ConnId, Dir, Event};
use crate::runtime::{App, Context, Unreachable, Waker};

use buffers::Buffers;
use link::{Link, Stage};
use request::Template;
use start::StartLine;

/// The maximum size of all receive buffers, in bytes of the pool.
const MAX_MEMORY: usize = 1 << 30;

/// Requests and answers longer than this, in bytes, are counted while in progress.
const FOLLOWED: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Connections are being opened.
    Connecting,
    /// The connections of other cores are still being opened.
    Waiting,
    /// Requests (or handshakes) are made.
    Running,
    /// No more are made; those in flight may complete until this time.
    Finishing(Instant),
    /// Connections are being closed.
    Closing,
    Done,
}

/// The perf client of one core.
#[derive(Debug)]
pub struct PerfClient {
    plan: PerfPlan,
    start: Arc<StartLine>,
    /// The client's number among those that start together.
    number: usize,
    shape: ReceiveShape,
    template: Template,
    buffers: Buffers,
    phase: Phase,
    links: IdMap<ConnId, Link>,
    /// Connections that can take another request, each listed once.
    ready: VecDeque<ConnId>,
    /// Set when the load starts.
    schedule: Option<Schedule>,
    /// The number of connections still to be opened.
    to_connect: u32,
    handshaking: u32,
    /// A router reported that it has no route to the server.
    no_path: bool,
    /// Connections to be closed once they have sent more than this many packets, the last of the handshake.
    leaving: VecDeque<(ConnId, u64)>,
    /// The number of requests in progress.
    in_flight: u64,
    last_done: Instant,
    results: PerfResults,
    counts: LiveCounts,
    live: Arc<PerfLive>,
}

impl PerfClient {
    /// Creates a client for `plan`. Its receive buffers are taken from `pool` now.
    ///
    /// # Errors
    /// [`PlanError`] if the plan is invalid or its buffers do not fit into the pool.
    pub fn new(plan: PerfPlan, pool: BufPool) -> Result<Self, PlanError> {
        Self::with_start(plan, pool, Arc::new(StartLine::new(1)), 0)
    }

    /// Creates the clients of several cores, which share the load ([`PerfPlan::share`]) and start it together, when all
    /// of them have opened their connections. The client of each core uses its pool of `pools`; `None` for a core that has
    /// no share. The results of all are added up with [`PerfResults::merge`].
    ///
    /// # Errors
    /// As [`PerfClient::new`].
    pub fn for_cores(plan: &PerfPlan, pools: &[BufPool]) -> Result<Vec<Option<Self>>, PlanError> {
        plan.check()?;
        let cores = pools.len() as u32;
        let shares: Vec<_> = (0..cores).map(|core| plan.share(core, cores)).collect();
        let start = Arc::new(StartLine::new(shares.iter().flatten().count()));
        // The cores with a share come first.
        let client = |(number, (share, pool)): (usize, (Option<PerfPlan>, &BufPool))| {
            share.map(|plan| Self::with_start(plan, pool.clone(), start.clone(), number)).transpose()
        };
        shares.into_iter().zip(pools).enumerate().map(client).collect()
    }

    fn with_start(mut plan: PerfPlan, pool: BufPool, start: Arc<StartLine>, number: usize) -> Result<Self, PlanError> {
        plan.check()?;
        let stats = pool.stats();
        let memory = (stats.limit.saturating_sub(stats.in_use) / 2).min(MAX_MEMORY);
        let answers = plan.in_flight();
        let shape = ReceiveShape::new(plan.download, answers, memory);
        let buffers =
            Buffers::new(pool, shape, answers).map_err(|error| PlanError::Memory { streams: answers, error })?;
        let base = (**plan.client_config.transport()).clone();
        plan.client_config = plan.client_config.with_transport(client_transport(base, &shape, plan.streams))?;
        Ok(Self {
            template: Template::new(plan.upload, plan.download),
            shape,
            buffers,
            phase: Phase::Connecting,
            links: IdMap::default(),
            ready: VecDeque::new(),
            schedule: None,
            to_connect: if plan.handshakes { 0 } else { plan.connections },
            handshaking: 0,
            no_path: false,
            leaving: VecDeque::new(),
            in_flight: 0,
            last_done: Instant::ZERO,
            results: PerfResults::default(),
            counts: LiveCounts::default(),
            live: Arc::default(),
            start,
            number,
            plan,
        })
    }

    /// Counters for other threads to read. They include the warm-up.
    pub fn live(&self) -> Arc<PerfLive> {
        self.live.clone()
    }

    /// The results, complete once the client is done.
    pub fn results(&self) -> &PerfResults {
        &self.results
    }

    /// The plan, with the effective transport settings.
    pub fn plan(&self) -> &PerfPlan {
        &self.plan
    }

    /// All connections are established or have failed: starts the load, once this holds for all cores.
    fn connected_all(&mut self, now: Instant) {
        self.phase = Phase::Waiting;
        self.start.arrive();
        self.await_others(now);
    }

    fn await_others(&mut self, now: Instant) {
        if self.start.is_open() {
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        self.schedule = Some(Schedule::new(&self.plan, now));
        self.last_done = now;
        self.phase = Phase::Running;
        let mut ids: Vec<ConnId> = self.links.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id).filter(|link| link.stage == Stage::Ready) {
                link.listed = true;
                self.ready.push_back(id);
            }
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        if self.plan.handshakes {
            self.close_leaving(cx);
            self.connect_again(cx);
        } else {
            self.feed(cx);
        }
        // The run may have ended already because no connection could be opened.
        let Some(schedule) = self.schedule.filter(|_| self.phase == Phase::Running) else { return };
        if schedule.is_over(now) {
            self.end(cx, now);
        } else if schedule.is_exhausted() && self.in_flight == 0 && self.handshaking == 0 && self.leaving.is_empty() {
            self.end(cx, self.last_done);
        } else if !self.plan.handshakes && self.links.is_empty() {
            self.end(cx, now);
        }
    }

    /// Stops making requests.
    fn end(&mut self, cx: &mut Context<'_>, at: Instant) {
        let now = cx.now();
        self.fix_elapsed(at);
        self.results.unfinished += self.backlog(now);
        if self.plan.download == UNLIMITED {
            self.stop_answers(cx);
        }
        self.phase = Phase::Finishing(if self.plan.handshakes { now } else { now + self.plan.grace });
    }

    /// Sets the end of the measured time.
    fn fix_elapsed(&mut self, at: Instant) {
        self.results.elapsed = self.schedule.map_or_else(Default::default, |schedule| schedule.measured_for(at));
    }

    /// The number of requests that are due and wait for a connection.
    fn backlog(&self, now: Instant) -> u64 {
        self.schedule.as_ref().map_or(0, |schedule| schedule.backlog(now))
    }

    fn finish(&mut self, cx: &mut Context<'_>, until: Instant) {
        let idle = self.in_flight == 0 && !(self.plan.download == UNLIMITED && self.is_stopping(cx));
        if idle || cx.now() >= until {
            self.close_all(cx);
        }
    }

    fn close_all(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Closing;
        let mut links = std::mem::take(&mut self.links);
        for (id, link) in &mut links {
            let dues = self.abandon(link);
            let handshaking = self.plan.handshakes && link.stage == Stage::Handshake;
            // A connection and its only request count once.
            let handshake = (handshaking && dues.is_empty()).then_some(link.due);
            self.results.unfinished += self.measured(dues.into_iter().chain(handshake));
            self.close(cx, *id, link);
        }
        self.links = links;
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, id: ConnId, reason: CloseReason) {
        let Some(mut link) = self.links.remove(&id) else { return };
        if link.stage == Stage::Handshake {
            self.handshaking -= 1;
        }
        let dues = self.abandon(&mut link);
        if reason == CloseReason::Shutdown {
            // The core was stopped.
            if self.phase == Phase::Running {
                self.fix_elapsed(cx.now());
                self.results.unfinished += self.backlog(cx.now());
            }
            self.results.unfinished += self.measured(dues.into_iter());
            self.phase = Phase::Closing;
            return;
        }
        let remote = self.plan.remote;
        let failure = link.failure.take().or_else(|| match reason {
            CloseReason::HandshakeTimeout if self.no_path => {
                Some(PerfFailure::Unreachable { remote, why: Unreachable::NoPath })
            }
            reason => PerfFailure::of_close(reason, remote),
        });
        self.count_errors(&dues);
        if let Some(failure) = failure {
            self.counts.errors += u64::from(dues.is_empty());
            self.results.connections_lost += 1;
            self.results.fail(failure);
            // If no handshake has ever succeeded, do not try thousands of times.
            if self.plan.handshakes && self.counts.handshakes == 0 && self.phase == Phase::Running {
                self.end(cx, cx.now());
            }
        }
    }

    /// Returns whether events at `now` are measured.
    fn is_open(&self, now: Instant) -> bool {
        self.schedule.as_ref().is_some_and(|schedule| schedule.is_open(now))
    }

    fn count_down(&mut self, now: Instant, bytes: u64) {
        self.counts.bytes_down += bytes;
        if self.is_open(now) {
            self.results.bytes_down += bytes;
        }
    }

    fn count_up(&mut self, now: Instant, bytes: u64) {
        self.counts.bytes_up += bytes;
        if self.is_open(now) {
            self.results.bytes_up += bytes;
        }
    }

    fn publish(&mut self, now: Instant) {
        self.counts.connections = self.links.len() as u64;
        let handshakes = if self.plan.handshakes { u64::from(self.handshaking) } else { 0 };
        self.counts.in_flight = self.in_flight.max(handshakes);
        self.counts.waiting = if self.phase == Phase::Running { self.backlog(now) } else { 0 };
        self.live.publish(&self.counts);
    }
}

impl App for PerfClient {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { alpn, .. } => self.on_connected(cx, conn, &alpn),
            Event::StreamsAvailable { dir: Dir::Bidi } => self.start_queued(cx, conn),
            Event::Progress { id, contiguous } if self.plan.download > FOLLOWED => {
                self.on_progress(cx, conn, id, contiguous);
            }
            Event::Buffer { id, buf, offset, valid } => self.on_buffer(cx, conn, id, buf, (offset, valid)),
            Event::Finished { id, size, .. } => self.on_answer(cx, conn, id, size),
            Event::Writable { id } => self.on_writable(cx, conn, id),
            Event::SendDone { id, acked, .. } if self.plan.upload > FOLLOWED => {
                self.on_send_done(cx, conn, id, acked as u64);
            }
            Event::Reset { id, code, .. } => {
                if let Some(mut conn_ref) = cx.conn(conn) {
                    self.fail(&mut conn_ref, conn, id, PerfFailure::Reset { code });
                }
            }
            Event::Stopped { id, code } => {
                if let Some(mut conn_ref) = cx.conn(conn) {
                    self.fail(&mut conn_ref, conn, id, PerfFailure::Stopped { code });
                }
            }
            Event::Closed { reason } => self.on_closed(cx, conn, reason),
            // The server opens no streams here, and space never runs low, as buffers are provided again when they come
            // back.
            Event::EarlyData { .. }
            | Event::EarlyBytes { .. }
            | Event::StreamOpened { .. }
            | Event::StreamsAvailable { .. }
            | Event::Progress { .. }
            | Event::ReceiveBufferLow { .. }
            | Event::Readable { .. }
            | Event::SendDone { .. }
            | Event::OutOfSpace { .. }
            | Event::DatagramsReadable
            | Event::DatagramBuffer { .. }
            | Event::DatagramSpaceLow { .. }
            | Event::DatagramDone { .. }
            | Event::DatagramAcked { .. }
            | Event::DatagramLost { .. }
            | Event::DatagramsWritable
            | Event::SendFinished { .. }
            | Event::PathValidated { .. }
            | Event::PathFailed { .. }
            | Event::Migrated { .. }
            | Event::PeerMigrated { .. } => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Connecting => self.connect_all(cx),
            Phase::Waiting => self.await_others(cx.now()),
            Phase::Running => self.run(cx),
            Phase::Finishing(until) => self.finish(cx, until),
            Phase::Closing if self.links.is_empty() => {
                self.buffers.clear();
                self.phase = Phase::Done;
            }
            Phase::Closing | Phase::Done => {}
        }
        self.publish(cx.now());
    }

    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        // The address without an answer may be that of the router to the server: all packets go there.
        if why != Unreachable::NoAnswer && remote != self.plan.remote.ip() {
            return;
        }
        if why == Unreachable::NoPath {
            // This may be temporary, so handshakes continue.
            self.no_path = true;
            return;
        }
        let failure = PerfFailure::Unreachable { remote: self.plan.remote, why };
        let mut links = std::mem::take(&mut self.links);
        for (id, link) in links.iter_mut().filter(|(_, link)| link.stage == Stage::Handshake) {
            link.failure = Some(failure.clone());
            self.close(cx, *id, link);
        }
        self.links = links;
    }

    fn waker(&self) -> Option<Waker> {
        Some(self.start.waker(self.number).clone())
    }

    fn next_timeout(&self) -> Option<Instant> {
        match (self.phase, &self.schedule) {
            // Due requests already wait for a connection, and events will make room.
            (Phase::Running, Some(schedule)) if self.ready.is_empty() => Some(schedule.deadline()),
            (Phase::Running, Some(schedule)) => Some(schedule.next_due()),
            (Phase::Finishing(until), _) => Some(until),
            // While others connect, the last one to be ready wakes this one.
            _ => None,
        }
    }

    fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::{ClientConfig, TransportConfig, tls};

    /// Each core has a waker of its own, and sleeps while others connect.
    #[test]
    fn clients_that_wait_for_others_sleep() {
        let options = tls::TlsOptions { alpn: vec![crate::proto::perf::ALPN.to_vec()], ..Default::default() };
        let tls = tls::insecure_client_config(&options).unwrap();
        let config = ClientConfig::new(tls, TransportConfig::default()).unwrap();
        let mut plan = PerfPlan::new(([192, 0, 2, 1], 443).into(), "server.test", config);
        (plan.connections, plan.requests) = (2, Some(2));
        let pools = [(); 3].map(|()| BufPool::heap());
        let mut clients: Vec<_> = PerfClient::for_cores(&plan, &pools).unwrap().into_iter().flatten().collect();
        assert_eq!(clients.iter().map(|client| client.number).collect::<Vec<_>>(), [0, 1]);
        clients[0].connected_all(Instant::from_nanos(1));
        assert_eq!((clients[0].phase, clients[0].next_timeout()), (Phase::Waiting, None));
        clients[1].connected_all(Instant::from_nanos(2));
        clients[0].await_others(Instant::from_nanos(3));
        assert!(clients.iter().all(|client| client.phase == Phase::Running));
    }
}
