//! A load of datagrams (RFC 9221) at a fixed rate, which the server sends back: latency and loss.
//!
//! Each datagram begins with its number and the time at which it was due. The server's echo is decrypted to a buffer of
//! the pool, and the time that has passed since is the latency: a client or server that cannot keep up does not hide it.

use std::net::{IpAddr, SocketAddr};

use crate::base::time::{Duration, Instant};
use crate::mem::{AllocError, BufPool, PinnedBuf};
use crate::proto::perf::failure::PerfFailure;
use crate::quic::{
    ClientConfig, CloseReason, ConnId, DatagramConfig, DatagramOptions, DatagramOutcome, DropPolicy, Event, SendData,
};
use crate::report::Latency;
use crate::runtime::{App, Context, Unreachable};

/// The shortest datagram: number and time.
pub const MIN_DATAGRAM: usize = 16;

/// The number of datagrams that wait to be sent, at either end, and of buffers for received ones.
const QUEUE: usize = 1024;

/// The maximum number of datagrams queued in one turn, so that packets do not wait too long.
const PER_TURN: usize = 256;

/// The time to wait for echoes after the last datagram.
const PATIENCE: Duration = Duration::from_millis(500);

/// The time to wait until the path carries datagrams of the size: the search for the MTU takes a few round trips.
const GROWTH: Duration = Duration::from_secs(3);

/// The settings of both ends.
pub(super) fn config() -> DatagramConfig {
    DatagramConfig {
        receive_queue: QUEUE,
        send_queue: QUEUE,
        send_drop: DropPolicy::Newest,
        low_water: 0,
        report_delivery: false,
        ..DatagramConfig::default()
    }
}

/// What to send.
#[derive(Clone, Debug)]
pub struct DatagramPlan {
    /// The server.
    pub remote: SocketAddr,
    /// The name that its certificate must be valid for.
    pub server_name: String,
    /// TLS and transport settings.
    pub client_config: ClientConfig,
    /// Datagrams per second.
    pub rate: f64,
    /// Length of each in bytes, at least [`MIN_DATAGRAM`].
    pub len: usize,
    /// How long.
    pub duration: Duration,
}

/// The results of a load of datagrams.
#[derive(Clone, Debug, Default)]
pub struct DatagramResults {
    /// Datagrams that were due.
    pub due: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams not sent, as the queue was full.
    pub unsent: u64,
    /// Datagrams that came back.
    pub returned: u64,
    /// Datagrams that the transport considered lost on the way to the server.
    pub lost: u64,
    /// The time from when a datagram was due until its echo came.
    pub latency: Latency,
    /// The time from the first to the last datagram.
    pub elapsed: Duration,
    /// Why the load failed, if it did.
    pub failure: Option<String>,
}

impl DatagramResults {
    /// The part of the datagrams sent that did not come back.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.sent.saturating_sub(self.returned) as f64 / self.sent as f64 }
    }

    /// Adds the results of another core.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.returned += other.returned;
        self.lost += other.lost;
        self.latency.merge(&other.latency);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.failure = self.failure.take().or_else(|| other.failure.clone());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// Connected; the path may not yet carry datagrams of the size.
    Growing(Instant),
    /// Since then.
    Running(Instant),
    /// Echoes may arrive until then.
    Finishing(Instant),
    Closing,
    Done,
}

/// Sends datagrams over one connection, and measures their echoes.
#[derive(Debug)]
pub struct DatagramClient {
    plan: DatagramPlan,
    pool: BufPool,
    buffers: Vec<PinnedBuf>,
    phase: Phase,
    conn: Option<ConnId>,
    results: DatagramResults,
}

impl DatagramClient {
    /// Creates a client for `plan`, with buffers of `pool`.
    ///
    /// # Errors
    /// If the buffers do not fit into the pool.
    pub fn new(mut plan: DatagramPlan, pool: BufPool) -> Result<Self, AllocError> {
        plan.len = plan.len.max(MIN_DATAGRAM);
        let buffers = (0..QUEUE).map(|_| pool.alloc(plan.len)).collect::<Result<_, _>>()?;
        Ok(Self { plan, pool, buffers, phase: Phase::Connecting, conn: None, results: DatagramResults::default() })
    }

    /// What was measured.
    pub fn results(&self) -> &DatagramResults {
        &self.results
    }

    /// The time at which datagram `n` is due.
    fn due(&self, start: Instant, n: u64) -> Instant {
        start + Duration::from_nanos((n as f64 * 1e9 / self.plan.rate) as u64)
    }

    /// Whether the fate of every datagram is known.
    fn has_all(&self) -> bool {
        let results = &self.results;
        results.returned >= results.sent && results.sent + results.unsent >= results.due
    }

    fn fail(&mut self, cx: &mut Context<'_>, why: String) {
        self.results.failure.get_or_insert(why);
        self.end(cx);
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        self.phase = match self.conn {
            Some(conn) => {
                if let Some(c) = cx.conn(conn) {
                    self.results.lost = c.datagram_stats().lost;
                }
                cx.close(conn, 0, "done");
                Phase::Closing
            }
            None => Phase::Done,
        };
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        match cx.connect(&self.plan.client_config, &self.plan.server_name, self.plan.remote) {
            Ok(conn) => self.conn = Some(conn),
            Err(error) => {
                let failure = PerfFailure::Connect { remote: self.plan.remote, reason: error.to_string() };
                self.fail(cx, failure.to_string());
            }
        }
    }

    /// Starts once the path carries datagrams of the size.
    fn grow(&mut self, cx: &mut Context<'_>, conn: ConnId, until: Instant) {
        let Some(mut c) = cx.conn(conn) else { return };
        match c.max_datagram_len() {
            Some(max) if max >= self.plan.len => {
                let bufs = std::mem::take(&mut self.buffers);
                if let Err(refused) = c.provide_datagram_buffers(bufs) {
                    self.fail(cx, refused.to_string());
                    return;
                }
                self.phase = Phase::Running(cx.now());
            }
            None => self.fail(cx, "the server accepts no datagrams".to_owned()),
            Some(max) if cx.now() >= until => {
                let len = self.plan.len;
                self.fail(cx, format!("datagrams of {len} bytes do not fit into packets: the limit is {max}"));
            }
            Some(_) => {}
        }
    }

    /// Sends what is due.
    fn send(&mut self, cx: &mut Context<'_>, conn: ConnId, start: Instant) {
        let now = cx.now();
        let end = start + self.plan.duration;
        for _ in 0..PER_TURN {
            let due = self.due(start, self.results.due);
            if due >= end {
                self.results.elapsed = self.plan.duration;
                self.phase = Phase::Finishing(now + PATIENCE);
                return;
            }
            if due > now {
                return;
            }
            let number = self.results.due;
            self.results.due += 1;
            let Ok(mut buf) = self.pool.alloc(self.plan.len) else {
                self.results.unsent += 1;
                continue;
            };
            buf[..8].copy_from_slice(&number.to_be_bytes());
            buf[8..16].copy_from_slice(&due.as_nanos().to_be_bytes());
            let len = buf.len();
            let Some(mut c) = cx.conn(conn) else { return };
            if c.send_datagram(SendData::Pinned(buf, len), DatagramOptions::default()).is_err() {
                self.results.unsent += 1;
            }
        }
    }

    /// Handles an echo in `buf`.
    fn on_echo(&mut self, cx: &mut Context<'_>, conn: ConnId, buf: PinnedBuf, len: usize) {
        let time = buf[..len].get(8..16).and_then(|time| time.first_chunk()).map(|time| u64::from_be_bytes(*time));
        if let Some(time) = time {
            self.results.returned += 1;
            self.results.latency.record(cx.now().as_nanos().saturating_sub(time));
        }
        if let Some(mut c) = cx.conn(conn) {
            // Refused only if the connection ends.
            let _ = c.provide_datagram_buffer(buf);
        }
    }
}

impl App for DatagramClient {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.phase = Phase::Growing(cx.now() + GROWTH),
            Event::DatagramBuffer { buf, received: Some(len) } => self.on_echo(cx, conn, buf, len),
            Event::DatagramDone { outcome: DatagramOutcome::Sent, .. } => self.results.sent += 1,
            Event::DatagramDone { .. } => self.results.unsent += 1,
            Event::Closed { reason } => {
                self.conn = None;
                self.phase = Phase::Done;
                if !matches!(reason, CloseReason::Local { .. }) {
                    self.results.failure.get_or_insert(reason.to_string());
                }
            }
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        match (self.phase, self.conn) {
            (Phase::Connecting, None) => self.connect(cx),
            (Phase::Growing(until), Some(conn)) => self.grow(cx, conn, until),
            (Phase::Running(start), Some(conn)) => self.send(cx, conn, start),
            (Phase::Finishing(until), _) if cx.now() >= until || self.has_all() => self.end(cx),
            _ => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running(start) => Some(self.due(start, self.results.due).min(start + self.plan.duration)),
            Phase::Growing(until) | Phase::Finishing(until) => Some(until),
            _ => None,
        }
    }

    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        if self.phase == Phase::Connecting && (why == Unreachable::NoAnswer || remote == self.plan.remote.ip()) {
            let failure = PerfFailure::Unreachable { remote: self.plan.remote, why };
            self.fail(cx, failure.to_string());
        }
    }

    fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }
}

/// Sends the datagrams that have come back to their sender. Those for which there is no room are dropped.
pub(super) fn echo(cx: &mut Context<'_>, conn: ConnId) {
    let Some(mut c) = cx.conn(conn) else { return };
    while let Some(datagram) = c.take_datagram() {
        let buf = datagram.into_buf();
        let len = buf.len();
        let _ = c.send_datagram(SendData::Pinned(buf, len), DatagramOptions::default());
    }
}
