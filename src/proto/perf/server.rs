//! The server: reads requests of any size into pinned buffers and answers each one at its end.

mod answer;
mod request;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::id_map::IdMap;
use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::proto::perf::datagrams;
use crate::proto::perf::live::{LiveCounts, PerfLive};
use crate::proto::perf::transport::INITIAL_WINDOW;
use crate::quic::{Conn, ConnId, Dir, Event, StreamId};
use crate::runtime::{App, Context};

use answer::{Answer, Pumped};
use request::Request;

/// The maximum number of bytes provided ahead of an upload.
const MAX_AHEAD: u64 = 4 << 20;

/// The maximum number of answers of a connection that wait for the client to allow another unidirectional stream.
const MAX_WAITING: usize = 4096;

/// The application error code for clients that exceed [`MAX_WAITING`].
const TOO_MANY_WAITING: u64 = 1;

/// The number of turns after which a stream without memory is retried even if no buffer came back.
const RETRY_TURNS: u32 = 256;

/// Counters of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerfServerStats {
    /// Connections that completed their handshake.
    pub connections: u64,
    /// Requests received completely.
    pub requests: u64,
    /// Streams that ended before the size of the answer was received.
    pub ignored: u64,
    /// Answers that the client stopped.
    pub stopped: u64,
    /// Bytes received in requests, including the size fields.
    pub bytes_received: u64,
    /// Bytes of answers that were acknowledged.
    pub bytes_acked: u64,
    /// Streams for which there was no buffer, and which were read from pooled chunks.
    pub pooled_streams: u64,
    /// Times that an upload had to wait for memory.
    pub starved: u64,
}

/// The state of a stream. A request ends before its answer starts.
#[derive(Debug)]
enum Exchange {
    Receiving(Request),
    Answering(Answer),
}

/// One client.
#[derive(Debug, Default)]
struct Client {
    streams: IdMap<StreamId, Exchange>,
    /// Sizes of answers that wait for a unidirectional stream.
    waiting: VecDeque<u64>,
}

/// The perf server of one core. Its endpoint's transport settings come from
/// [`server_transport`](super::server_transport) with the same pool.
#[derive(Debug)]
pub struct PerfServer {
    pool: BufPool,
    clients: IdMap<ConnId, Client>,
    /// Uploads that wait for memory.
    hungry: VecDeque<(ConnId, StreamId)>,
    /// A buffer has returned to the pool since hungry streams were last retried.
    freed: bool,
    waited: u32,
    stats: PerfServerStats,
    /// The number of exchanges of all clients.
    in_flight: u64,
    live: Arc<PerfLive>,
    /// Counters have changed since they were last published.
    changed: bool,
}

impl PerfServer {
    /// Creates a server that takes its receive buffers from `pool`.
    pub fn new(pool: BufPool) -> Self {
        Self {
            pool,
            clients: IdMap::default(),
            hungry: VecDeque::new(),
            freed: false,
            waited: 0,
            stats: PerfServerStats::default(),
            in_flight: 0,
            live: Arc::default(),
            changed: true,
        }
    }

    /// Counters for other threads to read.
    pub fn live(&self) -> Arc<PerfLive> {
        self.live.clone()
    }

    /// Counters since start.
    pub fn stats(&self) -> PerfServerStats {
        self.stats
    }

    fn remove(&mut self, conn: ConnId, id: StreamId) -> Option<Exchange> {
        let old = self.clients.get_mut(&conn)?.streams.remove(&id);
        self.in_flight -= u64::from(old.is_some());
        old
    }

    /// The request on a stream, created if needed; `None` if it is already being answered.
    fn request(&mut self, conn: ConnId, id: StreamId) -> Option<&mut Request> {
        let in_flight = &mut self.in_flight;
        let exchange = self.clients.entry(conn).or_default().streams.entry(id).or_insert_with(|| {
            *in_flight += 1;
            Exchange::Receiving(Request::new())
        });
        match exchange {
            Exchange::Receiving(request) => Some(request),
            Exchange::Answering(_) => None,
        }
    }

    /// Provides more buffers for a request if needed. `left` is the unfilled space that the engine reports.
    fn top_up(&mut self, cx: &mut Context<'_>, conn_id: ConnId, id: StreamId, left: Option<u64>) {
        let pool = self.pool.clone();
        let Some(request) = self.request(conn_id, id) else { return };
        let left = left.unwrap_or(request.provided.saturating_sub(request.received));
        let bufs = request.more_buffers(&pool, left, MAX_AHEAD);
        if bufs.is_empty() {
            if request.wants_more(left, MAX_AHEAD) && !std::mem::replace(&mut request.hungry, true) {
                self.stats.starved += 1;
                self.hungry.push_back((conn_id, id));
            }
            return;
        }
        let added: u64 = bufs.iter().map(|b| b.len() as u64).sum();
        // Fails if the request's end is already known: the buffers return to the pool.
        if cx.conn(conn_id).is_some_and(|mut conn| conn.provide_receive_buffers(id, bufs).is_ok()) {
            request.provided += added;
        }
    }

    /// Retries one upload that waits for memory.
    fn feed_hungry(&mut self, cx: &mut Context<'_>) {
        if self.hungry.is_empty() {
            return;
        }
        self.waited += 1;
        if !std::mem::take(&mut self.freed) && self.waited < RETRY_TURNS {
            return;
        }
        self.waited = 0;
        // Skip streams that have ended.
        while let Some((conn, id)) = self.hungry.pop_front() {
            let exchange = self.clients.get_mut(&conn).and_then(|client| client.streams.get_mut(&id));
            if let Some(Exchange::Receiving(request)) = exchange {
                request.hungry = false;
                return self.top_up(cx, conn, id, None);
            }
        }
    }

    /// Reads a request that got no buffer from the engine's chunks.
    fn read_pooled(&mut self, cx: &mut Context<'_>, conn_id: ConnId, id: StreamId) {
        let Some(mut conn) = cx.conn(conn_id) else { return };
        let Some(request) = self.request(conn_id, id) else { return };
        let before = request.received;
        while let Some(bytes) = conn.peek(id).filter(|bytes| !bytes.is_empty()) {
            let n = bytes.len();
            request.take_size(request.received, bytes);
            request.received += n as u64;
            conn.consume(id, n);
        }
        let read = request.received - before;
        // The end may arrive separately, after all data.
        conn.consume(id, 0);
        let ended = conn.is_finished(id);
        self.stats.pooled_streams += u64::from(before == 0);
        self.stats.bytes_received += read;
        if ended {
            self.on_request(cx, conn_id, id);
        }
    }

    /// Handles a complete request.
    fn on_request(&mut self, cx: &mut Context<'_>, conn_id: ConnId, id: StreamId) {
        let wanted = match self.remove(conn_id, id) {
            Some(Exchange::Receiving(request)) => request.wanted(),
            _ => None,
        };
        match wanted {
            Some(_) => self.stats.requests += 1,
            None => self.stats.ignored += 1,
        }
        let Some(mut conn) = cx.conn(conn_id) else { return };
        match (wanted, id.dir()) {
            (None | Some(0), Dir::Uni) => {}
            (None | Some(0), Dir::Bidi) => {
                // Fails if the client has already stopped the answer.
                let _ = conn.finish(id);
            }
            (Some(len), Dir::Bidi) => self.answer(&mut conn, conn_id, id, len),
            (Some(len), Dir::Uni) => {
                let waiting = &mut self.clients.entry(conn_id).or_default().waiting;
                waiting.push_back(len);
                if waiting.len() > MAX_WAITING {
                    cx.close(conn_id, TOO_MANY_WAITING, "too many answers wait for unidirectional streams");
                    return;
                }
                self.answer_waiting(&mut conn, conn_id);
            }
        }
    }

    /// Stops an answer that the client no longer wants. A request that is still arriving is read to its end.
    fn on_stopped(&mut self, conn_id: ConnId, id: StreamId) {
        self.stats.stopped += 1;
        let exchange = self.clients.get(&conn_id).and_then(|client| client.streams.get(&id));
        if matches!(exchange, Some(Exchange::Answering(_))) {
            self.remove(conn_id, id);
        }
    }

    /// Starts an answer on an open stream.
    fn answer(&mut self, conn: &mut Conn<'_>, conn_id: ConnId, id: StreamId, len: u64) {
        let mut answer = Answer::new(len);
        if answer.pump(conn, id) == Pumped::Blocked {
            let client = self.clients.entry(conn_id).or_default();
            self.in_flight += u64::from(client.streams.insert(id, Exchange::Answering(answer)).is_none());
        }
    }

    /// Starts answers that wait for streams of our own.
    fn answer_waiting(&mut self, conn: &mut Conn<'_>, conn_id: ConnId) {
        while let Some(len) = self.clients.get(&conn_id).and_then(|client| client.waiting.front().copied()) {
            let Ok(id) = conn.open(Dir::Uni) else { return };
            if let Some(client) = self.clients.get_mut(&conn_id) {
                client.waiting.pop_front();
            }
            self.answer(conn, conn_id, id, len);
        }
    }

    /// Continues an answer that was blocked.
    fn resume(&mut self, cx: &mut Context<'_>, conn_id: ConnId, id: StreamId) {
        let Some(mut conn) = cx.conn(conn_id) else { return };
        let exchange = self.clients.get_mut(&conn_id).and_then(|client| client.streams.get_mut(&id));
        if let Some(Exchange::Answering(answer)) = exchange
            && answer.pump(&mut conn, id) != Pumped::Blocked
        {
            self.remove(conn_id, id);
        }
    }

    /// Handles the reset of a request, and ends its answer too.
    fn on_reset(&mut self, cx: &mut Context<'_>, conn_id: ConnId, id: StreamId) {
        self.remove(conn_id, id);
        self.stats.ignored += 1;
        if id.dir() == Dir::Bidi
            && let Some(mut conn) = cx.conn(conn_id)
        {
            let _ = conn.finish(id);
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.remove(&conn) {
            self.in_flight -= client.streams.len() as u64;
        }
    }

    fn counts(&self) -> LiveCounts {
        LiveCounts {
            requests: self.stats.requests,
            errors: self.stats.ignored,
            bytes_up: self.stats.bytes_received,
            bytes_down: self.stats.bytes_acked,
            handshakes: self.stats.connections,
            connections: self.clients.len() as u64,
            in_flight: self.in_flight,
            waiting: self.hungry.len() as u64,
        }
    }
}

impl App for PerfServer {
    fn on_event(&mut self, cx: &mut Context<'_>, conn_id: ConnId, event: Event) {
        self.changed = true;
        match event {
            Event::EarlyData { .. } => {
                self.clients.entry(conn_id).or_default();
            }
            Event::Connected { .. } => {
                self.stats.connections += 1;
                self.clients.entry(conn_id).or_default();
            }
            Event::Buffer { id, buf, offset, valid } => {
                self.stats.bytes_received += valid as u64;
                if offset == 0
                    && valid > 0
                    && let Some(request) = self.request(conn_id, id)
                {
                    request.take_size(0, &buf[..valid]);
                }
                self.freed = true;
            }
            Event::Finished { id, .. } => self.on_request(cx, conn_id, id),
            // Most requests fit in half of the first buffer.
            Event::Progress { id, contiguous } if contiguous > INITIAL_WINDOW / 2 => {
                if let Some(request) = self.request(conn_id, id) {
                    request.received = contiguous;
                    self.top_up(cx, conn_id, id, None);
                }
            }
            Event::ReceiveBufferLow { id, provided_left, .. } => self.top_up(cx, conn_id, id, Some(provided_left)),
            Event::Readable { id } => self.read_pooled(cx, conn_id, id),
            Event::Writable { id } => self.resume(cx, conn_id, id),
            Event::SendDone { acked, .. } => self.stats.bytes_acked += acked as u64,
            Event::Stopped { id, .. } => self.on_stopped(conn_id, id),
            Event::Reset { id, .. } => self.on_reset(cx, conn_id, id),
            Event::StreamsAvailable { dir: Dir::Uni } => {
                if let Some(mut conn) = cx.conn(conn_id) {
                    self.answer_waiting(&mut conn, conn_id);
                }
            }
            Event::DatagramsReadable => datagrams::echo(cx, conn_id),
            Event::Closed { .. } => self.on_closed(conn_id),
            Event::Progress { .. }
            | Event::EarlyBytes { .. }
            | Event::StreamOpened { .. }
            | Event::StreamsAvailable { .. }
            | Event::OutOfSpace { .. }
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

    /// Waiting streams are retried after a number of turns, so turns must keep coming.
    fn next_timeout(&self) -> Option<Instant> {
        (!self.hungry.is_empty()).then_some(Instant::ZERO)
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        self.feed_hungry(cx);
        if std::mem::take(&mut self.changed) {
            self.live.publish(&self.counts());
        }
    }
}
