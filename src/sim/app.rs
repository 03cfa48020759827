//! A simulated application: it follows the plan and checks all events of the engine.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::mem::PinnedBuf;
use crate::quic::{
    BufferProvider, Chunk, CloseReason, Conn, ConnId, Dir, EarlyData, Endpoint, Event, Notify, OutOfSpace,
    PlacementStats, Priority, SendData, SendErrorKind, StreamError, StreamId,
};
pub use crate::sim::datagrams::Failure;
use crate::sim::datagrams::{Datagrams, ensure};
use crate::sim::plan::{Flow, Plan, Receive, Space, pattern};

/// Initial contents of provided memory.
const POISON: u8 = 0xa5;

/// Maximum number of key updates that an application starts on a whim: each causes packets, which cause more.
const WHIMS: u32 = 200;

/// Memory owned by the engine, by address.
#[derive(Debug, Default)]
pub struct Ledger {
    posted: HashMap<usize, (StreamId, usize)>,
    made: u64,
}

impl Ledger {
    fn post(&mut self, id: StreamId, len: usize) -> PinnedBuf {
        let mut buf = PinnedBuf::unpinned(len);
        buf.fill(POISON);
        self.made += 1;
        self.posted.insert(buf.as_ptr() as usize, (id, len));
        buf
    }

    fn take_back(&mut self, id: StreamId, buf: &PinnedBuf) -> Result<(), Failure> {
        let known = self.posted.remove(&(buf.as_ptr() as usize));
        ensure!(known == Some((id, buf.len())), "stream {id}: a buffer came back that was not out: {known:?}");
        Ok(())
    }
}

/// The total space of a stream that does not grow.
fn space(flow: &Flow, window: u64) -> Option<u64> {
    match flow.space {
        Space::Growing => None,
        Space::Exact => Some(flow.len.max(window).max(1)),
        Space::NoMoreThan(space) => Some(space.max(window)),
    }
}

/// Provides buffers for streams that the peer opens, according to the plan.
struct Provider {
    plan: Arc<Plan>,
    side: Side,
    ledger: Arc<Mutex<Ledger>>,
}

impl BufferProvider for Provider {
    fn initial_window(&self) -> u64 {
        self.plan.window
    }

    fn provide(&self, id: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
        let Some(flow) = self.plan.flow(id, self.side.peer()) else { return };
        let Receive::Provided { size, count } = flow.receive else { return };
        let mut ledger = self.ledger.lock().expect("single thread");
        let (mut given, mut total) = (0, 0);
        let space = space(&flow, self.plan.window);
        while space.map_or(given < count || total < self.plan.window, |space| total < space) {
            let rest = (self.plan.window.saturating_sub(total) as usize).div_ceil(50);
            let len = size.max(rest).min(space.map_or(usize::MAX, |space| (space - total) as usize));
            give(ledger.post(id, len));
            given += 1;
            total += len as u64;
        }
    }
}

#[derive(Debug)]
struct Outgoing {
    flow: Flow,
    queued: u64,
    finished: bool,
    /// Reset by us, stopped by the peer, or delivered.
    over: bool,
    /// Number of pieces of memory owned by the engine.
    out: usize,
}

#[derive(Debug)]
struct Incoming {
    flow: Flow,
    /// Number of bytes verified from the start.
    verified: u64,
    progress: u64,
    over: bool,
    provided: u64,
    /// Until when the application does nothing on this stream.
    paused: Option<Instant>,
    /// Work put off until then: reading, and providing this many bytes.
    put_off: (bool, Option<u64>),
}

impl Incoming {
    /// Pauses if it is time to.
    fn pause(&mut self, now: Instant, received: u64) {
        if let Some((_, time)) = self.flow.pause.take_if(|(at, _)| received >= *at) {
            self.paused = Some(now + time);
        }
    }
}

/// The application of one side.
pub struct App {
    side: Side,
    plan: Arc<Plan>,
    ledger: Arc<Mutex<Ledger>>,
    outgoing: BTreeMap<StreamId, Outgoing>,
    incoming: BTreeMap<StreamId, Incoming>,
    opened: [usize; 2],
    rng: Rng,
    /// Number of key updates that were started on a whim.
    whims: u32,
    /// Chunks that are kept until its next turn.
    pub kept: Vec<Chunk>,
    /// Its datagrams.
    pub datagrams: Datagrams,
    /// Whether it ever kept any.
    pub took: bool,
    /// The connection, if there is one.
    pub conn: Option<ConnId>,
    /// How it was closed.
    pub closed: Option<CloseReason>,
    /// Whether the handshake is complete.
    pub connected: bool,
}

impl App {
    /// The application of `side`.
    pub fn new(side: Side, plan: Arc<Plan>) -> Self {
        let rng = Rng::from_u64(plan.seed ^ 0xca_9c1ce ^ side as u64);
        Self {
            side,
            datagrams: Datagrams::new(side, plan.datagrams),
            plan,
            rng,
            whims: 0,
            ledger: Arc::default(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            opened: [0; 2],
            kept: Vec::new(),
            took: false,
            conn: None,
            closed: None,
            connected: false,
        }
    }

    /// The provider for streams that the peer opens, if the plan has one.
    pub fn provider(&self) -> Option<Arc<dyn BufferProvider>> {
        let provider = Provider { plan: self.plan.clone(), side: self.side, ledger: self.ledger.clone() };
        self.plan.provider.then(|| Arc::new(provider) as Arc<dyn BufferProvider>)
    }

    /// Whether everything that this side sends and receives is finished.
    pub fn is_done(&self) -> bool {
        let flows = self.plan.flows();
        self.connected
            && self.datagrams.is_done()
            && flows.iter().all(|(id, from)| {
                if *from == self.side {
                    self.outgoing.get(id).is_some_and(|o| o.over)
                } else {
                    self.incoming.get(id).is_some_and(|i| i.over)
                }
            })
    }

    /// Number of receive buffers and sends that were not returned.
    pub fn held(&self) -> (usize, usize) {
        let sends: usize = self.outgoing.values().map(|o| o.out).sum();
        let (buffers, datagrams) = self.datagrams.held();
        (self.ledger.lock().expect("single thread").posted.len() + buffers, sends + datagrams)
    }

    /// Unfinished streams, for messages.
    pub fn unfinished(&self) -> String {
        let out: Vec<_> = self.outgoing.iter().filter(|(_, o)| !o.over).collect();
        let inc: Vec<_> = self.incoming.iter().filter(|(_, i)| !i.over).collect();
        let datagrams = if self.datagrams.is_done() { String::new() } else { format!(", {:?}", self.datagrams) };
        format!("opened {:?}, outgoing {out:?}, incoming {inc:?}{datagrams}", self.opened)
    }

    /// When the next pause ends.
    pub fn next_wake(&self) -> Option<Instant> {
        if self.closed.is_some() { None } else { self.incoming.values().filter_map(|i| i.paused).min() }
    }

    /// Continues streams whose pause has ended. False if there are none.
    pub fn wake(&mut self, now: Instant, endpoint: &mut Endpoint) -> Result<bool, Failure> {
        if self.next_wake().is_none_or(|at| at > now) {
            return Ok(false);
        }
        let Some(mut conn) = self.conn.and_then(|id| endpoint.conn(id)) else { return Ok(false) };
        let ids: Vec<_> = self.incoming.keys().copied().collect();
        for id in ids {
            let incoming = self.incoming.get_mut(&id).expect("listed");
            if incoming.paused.is_none_or(|at| at > now) {
                continue;
            }
            incoming.paused = None;
            let (read, wanted) = std::mem::take(&mut incoming.put_off);
            if read {
                self.read(now, &mut conn, id)?;
            }
            if let Some(wanted) = wanted {
                self.provide(&mut conn, id, wanted)?;
            }
        }
        Ok(true)
    }

    /// Updates the keys, perhaps: in the handshake, while data is under way, at rest, while closing.
    pub fn whim(&mut self, endpoint: &mut Endpoint) {
        let chance = self.plan.key_whims[self.side as usize];
        if chance > 0 && self.whims < WHIMS && self.rng.chance(chance) {
            let updated = self.conn.and_then(|id| endpoint.conn(id)).is_some_and(|mut conn| conn.update_keys());
            self.whims += u32::from(updated);
        }
    }

    /// Handles one event.
    pub fn on_event(&mut self, now: Instant, endpoint: &mut Endpoint, id: ConnId, event: Event) -> Result<(), Failure> {
        self.whim(endpoint);
        if self.closed.is_some() && self.conn != Some(id) {
            return self.on_stranger(endpoint, id, &event);
        }
        ensure!(self.closed.is_none(), "event after Closed ({:?}): {event:?}", self.closed);
        let known = *self.conn.get_or_insert(id);
        if known != id && self.is_left_behind(&event) {
            return Ok(());
        }
        ensure!(known == id, "event of another connection: {known:?}, {id:?}: {event:?}, connected {}", self.connected);
        if let Event::Closed { reason } = event {
            self.closed = Some(reason);
            return Ok(());
        }
        let gone = endpoint.conn(id).is_none();
        ensure!(!gone, "event of a connection that does not exist: {event:?}");
        let mut conn = endpoint.conn(id).expect("checked");
        match event {
            Event::Connected { alpn, .. } => {
                ensure!(alpn == b"sim", "ALPN {alpn:?}");
                let (version, expected) = (conn.version(), self.plan.version());
                ensure!(Some(version) == expected, "version {version}, and not {expected:?}");
                self.connected = true;
                self.datagrams.start(now, &mut conn)?;
                self.open(&mut conn)
            }
            Event::StreamsAvailable { .. } => self.open(&mut conn),
            Event::EarlyData { state: EarlyData::Possible } => self.open(&mut conn),
            Event::EarlyData { .. } | Event::EarlyBytes { .. } => Ok(()),
            Event::StreamOpened { id } => self.on_opened(&mut conn, id),
            Event::Readable { id } => self.read(now, &mut conn, id),
            Event::Progress { id, contiguous } => self.on_progress(now, &mut conn, id, contiguous),
            Event::Buffer { id, buf, offset, valid } => self.on_buffer(now, id, &buf, offset, valid),
            Event::Finished { id, size, placement } => self.on_finished(id, size, &placement),
            Event::Reset { id, code, size } => self.on_reset(id, code, size),
            Event::ReceiveBufferLow { id, wanted, .. } => {
                ensure!(wanted > 0, "stream {id}: low with nothing wanted");
                self.provide(&mut conn, id, wanted)
            }
            Event::OutOfSpace { id, provided } => {
                let incoming = self.incoming.get_mut(&id).ok_or("out of space where we receive nothing")?;
                let short = matches!(incoming.flow.space, Space::NoMoreThan(_)) && provided < incoming.flow.len;
                ensure!(short && !incoming.over, "stream {id}: out of space with {provided} bytes: {incoming:?}");
                incoming.over = true;
                Ok(())
            }
            Event::Stopped { id, code } => {
                ensure!(code == 7, "stream {id}: stopped with {code}");
                self.outgoing.get_mut(&id).ok_or("stopped a stream that we do not send on")?.over = true;
                Ok(())
            }
            Event::Writable { id } => self.write(&mut conn, id),
            Event::SendDone { id, data, acked } => self.on_send_done(&mut conn, id, &data, acked),
            Event::SendFinished { id } => {
                let out = self.outgoing.get_mut(&id).ok_or("finished a stream that we do not send on")?;
                ensure!(out.finished && out.out == 0, "stream {id}: finished with {out:?}");
                out.over = true;
                Ok(())
            }
            Event::DatagramsReadable
            | Event::DatagramBuffer { .. }
            | Event::DatagramSpaceLow { .. }
            | Event::DatagramDone { .. }
            | Event::DatagramAcked { .. }
            | Event::DatagramLost { .. }
            | Event::DatagramsWritable => {
                let done = self.datagrams.on_event(now, &mut conn, event);
                self.took |= !self.datagrams.kept.is_empty();
                done
            }
            Event::PathValidated { .. }
            | Event::PathFailed { .. }
            | Event::Migrated { .. }
            | Event::PeerMigrated { .. } => Ok(()),
            Event::Closed { .. } => unreachable!("handled above"),
        }
    }

    /// Whether an event ends a connection that its client has left for another: its first packet came twice, once damaged
    /// so that the server asked for another token.
    fn is_left_behind(&self, event: &Event) -> bool {
        matches!(event, Event::Closed { .. }) && self.side == Side::Server && self.plan.link.corrupt > 0
    }

    /// Handles a client that does not know of the end and tries again: it is refused.
    fn on_stranger(&mut self, endpoint: &mut Endpoint, id: ConnId, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Connected { .. } => {
                self.datagrams.astray = true;
                if let Some(mut conn) = endpoint.conn(id) {
                    conn.close(3, "the end");
                }
                Ok(())
            }
            Event::Buffer { id, buf, .. } => self.ledger.lock().expect("single thread").take_back(*id, buf),
            _ => Ok(()),
        }
    }

    fn open(&mut self, conn: &mut Conn<'_>) -> Result<(), Failure> {
        for (slot, dir) in [Dir::Bidi, Dir::Uni].into_iter().enumerate() {
            while self.opened[slot] < self.plan.count(self.side, dir) {
                let Ok(id) = conn.open(dir) else { break };
                ensure!(id.index() == self.opened[slot] as u64, "stream {id} out of order");
                self.opened[slot] += 1;
                self.start(conn, id)?;
            }
        }
        Ok(())
    }

    fn on_opened(&mut self, conn: &mut Conn<'_>, id: StreamId) -> Result<(), Failure> {
        ensure!(id.initiator() != self.side, "our own stream {id} was opened by the peer");
        ensure!(!self.incoming.contains_key(&id), "stream {id} opened twice");
        self.start(conn, id)
    }

    /// Sets up sending and receiving on a new stream.
    fn start(&mut self, conn: &mut Conn<'_>, id: StreamId) -> Result<(), Failure> {
        if let Some(flow) = self.plan.flow(id, self.side.peer()) {
            let start = Incoming {
                flow,
                verified: 0,
                progress: 0,
                over: false,
                provided: 0,
                paused: None,
                put_off: Default::default(),
            };
            self.incoming.insert(id, start);
            let by_provider = self.plan.provider && id.initiator() != self.side;
            if matches!(flow.receive, Receive::Provided { .. }) && !by_provider {
                self.provide(conn, id, 0)?;
            }
            if let Space::NoMoreThan(_) = flow.space {
                // Refused if the end arrived along with the stream.
                let _ = conn.set_out_of_space(id, OutOfSpace::Stop(7));
            }
            // After a reset that arrived along with the stream, its data is not reported. If the connection has ended
            // since, data of the stream is reported as by default, as no call came in time.
            if flow.whole && conn.set_notify(id, Notify::WhenComplete) == Err(StreamError::Closed) {
                self.incoming.get_mut(&id).expect("just inserted").flow.whole = false;
            }
        }
        if let Some(flow) = self.plan.flow(id, self.side) {
            self.outgoing.insert(id, Outgoing { flow, queued: 0, finished: false, over: false, out: 0 });
            // The default needs no call.
            if flow.priority != Priority::default() {
                let done = conn.set_priority(id, flow.priority);
                ensure!(matches!(done, Ok(()) | Err(StreamError::Closed)), "stream {id}: set_priority: {done:?}");
            }
            self.write(conn, id)?;
        }
        Ok(())
    }

    fn provide(&mut self, conn: &mut Conn<'_>, id: StreamId, wanted: u64) -> Result<(), Failure> {
        let window = self.plan.window;
        let Some(incoming) = self.incoming.get_mut(&id).filter(|i| !i.over) else { return Ok(()) };
        let Receive::Provided { size, count } = incoming.flow.receive else {
            return Err(format!("stream {id}: low space on a pooled stream"));
        };
        if incoming.paused.is_some() {
            incoming.put_off.1 = Some(wanted);
            return Ok(());
        }
        let space = space(&incoming.flow, window);
        let by_provider = self.plan.provider && id.initiator() != self.side;
        if space.is_some() && (incoming.provided > 0 || by_provider) {
            return Ok(());
        }
        let mut ledger = self.ledger.lock().expect("single thread");
        let mut bufs = Vec::new();
        let mut total = 0u64;
        // The first buffers have to hold what the peer was promised.
        let first = if incoming.provided == 0 { window } else { 0 };
        // Some provide what is wanted; others less, which is allowed too.
        let least = first.max(if count % 2 == 0 { wanted } else { 0 });
        while space.map_or(bufs.len() < count || total < least, |space| total < space) {
            let len = size.max((least.saturating_sub(total) as usize).div_ceil(50));
            let len = len.min(space.map_or(usize::MAX, |space| (space - total) as usize));
            bufs.push(ledger.post(id, len));
            total += len as u64;
        }
        match conn.provide_receive_buffers(id, bufs) {
            Ok(()) => incoming.provided += total,
            Err(error) => {
                for buf in &error.bufs {
                    ledger.take_back(id, buf)?;
                }
                use crate::quic::ProvideErrorKind::{Closed, Finished, NoStream};
                ensure!(matches!(error.kind, Closed | Finished | NoStream), "stream {id}: provide: {error}");
            }
        }
        Ok(())
    }

    fn write(&mut self, conn: &mut Conn<'_>, id: StreamId) -> Result<(), Failure> {
        let Some(out) = self.outgoing.get_mut(&id).filter(|o| !o.over && !o.finished) else { return Ok(()) };
        loop {
            if out.flow.reset_at.is_some_and(|at| out.queued >= at) {
                // A stream that arrived along with the peer's close is reported although the connection is closed.
                let done = match out.flow.reliable {
                    None => conn.reset(id, 9),
                    Some((reliable, again)) => conn.reset_at(id, 9, reliable).and_then(|()| match again {
                        // It may have had no bytes left to deliver.
                        Some(less) => conn.reset_at(id, 10, less).or_else(|why| match why {
                            StreamError::NoStream if reliable == 0 => Ok(()),
                            why => Err(why),
                        }),
                        None => Ok(()),
                    }),
                };
                ensure!(matches!(done, Ok(()) | Err(StreamError::Closed)), "stream {id}: reset: {done:?}");
                out.over = true;
                return Ok(());
            }
            let n = (out.flow.len - out.queued).min(out.flow.piece as u64);
            let fin = out.queued + n == out.flow.len;
            let mut bytes = Bytes::from_iter((out.queued..out.queued + n).map(|at| pattern(id, self.side, at)));
            // As one piece, or up to three at once.
            let mut pieces = Vec::new();
            if out.queued % 2 == 1 {
                pieces.push(SendData::Bytes(bytes.split_to(n as usize / 3)));
                pieces.push(SendData::Bytes(bytes.split_to(n as usize / 3)));
            }
            pieces.push(SendData::Bytes(bytes));
            let (len, count) = (pieces.len(), pieces.iter().filter(|p| !p.is_empty()).count());
            let sent = match pieces.len() {
                1 => conn.send(id, pieces.remove(0), fin).map_err(|e| (e.kind, vec![e.data])),
                _ => conn.send_vectored(id, pieces, fin).map_err(|e| (e.kind, e.data)),
            };
            match sent {
                Ok(()) => {
                    out.queued += n;
                    out.out += count;
                    out.finished = fin;
                }
                Err((kind, back)) => {
                    let bytes: usize = back.iter().map(SendData::len).sum();
                    ensure!(back.len() == len && bytes as u64 == n, "stream {id}: the data did not come back");
                    use SendErrorKind::{Blocked, Closed, NoStream};
                    ensure!(matches!(kind, Blocked | Closed | NoStream), "stream {id}: send: {kind}");
                    return Ok(());
                }
            }
            if fin {
                return Ok(());
            }
        }
    }

    fn read(&mut self, now: Instant, conn: &mut Conn<'_>, id: StreamId) -> Result<(), Failure> {
        let incoming = self.incoming.get_mut(&id).ok_or("readable, but we receive nothing there")?;
        let step = match incoming.flow.receive {
            Receive::Pooled(step) => step,
            // It ended before buffers could be provided.
            Receive::Provided { .. } if incoming.flow.len == 0 => 1,
            Receive::Provided { .. } => return Err(format!("stream {id}: readable, but buffers were provided")),
        };
        loop {
            incoming.pause(now, incoming.verified);
            if incoming.paused.is_some() {
                incoming.put_off.0 = true;
                return Ok(());
            }
            // Some take everything and keep it for a while; others read in place.
            let n = if step % 3 == 0
                && let Some(chunk) = conn.take(id)
            {
                check(id, self.side.peer(), chunk.offset(), &chunk)?;
                ensure!(chunk.offset() == incoming.verified, "stream {id}: {chunk:?}, verified {}", incoming.verified);
                let n = chunk.len();
                self.kept.push(chunk);
                self.took = true;
                n
            } else {
                let bytes = conn.peek(id).unwrap_or_default();
                let n = bytes.len().min(step);
                check(id, self.side.peer(), incoming.verified, &bytes[..n])?;
                conn.consume(id, n);
                n
            };
            incoming.verified += n as u64;
            if !incoming.over && incoming.flow.stop_at.is_some_and(|at| incoming.verified >= at) {
                incoming.over = true;
                let _ = conn.stop_sending(id, 7);
                return Ok(());
            }
            if n == 0 {
                break;
            }
        }
        if conn.is_finished(id) && !incoming.over {
            ensure!(incoming.verified == incoming.flow.len, "stream {id}: ended early: {incoming:?}");
            incoming.over = true;
        }
        Ok(())
    }

    fn on_progress(&mut self, now: Instant, conn: &mut Conn<'_>, id: StreamId, contiguous: u64) -> Result<(), Failure> {
        let incoming = self.incoming.get_mut(&id).ok_or("progress, but we receive nothing there")?;
        ensure!(!incoming.flow.whole, "stream {id}: progress although it was to be told at the end");
        ensure!(contiguous > incoming.progress, "stream {id}: no progress at {contiguous}: {incoming:?}");
        ensure!(contiguous <= incoming.flow.len, "stream {id}: too much: {contiguous}");
        incoming.progress = contiguous;
        incoming.pause(now, contiguous);
        if !incoming.over && incoming.flow.stop_at.is_some_and(|at| contiguous >= at) {
            incoming.over = true;
            let _ = conn.stop_sending(id, 7);
        }
        if self.plan.key_updates && self.side == Side::Client {
            conn.update_keys();
        }
        Ok(())
    }

    fn on_buffer(
        &mut self,
        now: Instant,
        id: StreamId,
        buf: &PinnedBuf,
        offset: u64,
        valid: usize,
    ) -> Result<(), Failure> {
        self.ledger.lock().expect("single thread").take_back(id, buf)?;
        let incoming = self.incoming.get_mut(&id).ok_or("a buffer of a stream that we receive nothing on")?;
        let from = self.side.peer();
        check(id, from, offset, &buf[..valid])?;
        if valid > 0 {
            ensure!(incoming.verified == offset, "stream {id}: buffer at {offset}, verified {}", incoming.verified);
            incoming.verified += valid as u64;
            incoming.pause(now, incoming.verified);
        }
        let stray = buf.iter().enumerate().skip(valid).find(|(i, b)| {
            let at = offset + *i as u64;
            **b != POISON && **b != pattern(id, from, at)
        });
        ensure!(stray.is_none(), "stream {id}: foreign byte behind the valid ones: {stray:?} in buffer at {offset}");
        Ok(())
    }

    fn on_finished(&mut self, id: StreamId, size: u64, placed: &PlacementStats) -> Result<(), Failure> {
        let incoming = self.incoming.get_mut(&id).ok_or("finished, but we receive nothing there")?;
        ensure!(
            size == incoming.flow.len && incoming.verified == size,
            "stream {id}: finished at {size}: {incoming:?}"
        );
        ensure!(placed.direct + placed.staged == size && placed.copied == 0, "stream {id}: {placed:?} of {size}");
        incoming.over = true;
        Ok(())
    }

    fn on_reset(&mut self, id: StreamId, code: u64, size: u64) -> Result<(), Failure> {
        let incoming = self.incoming.get_mut(&id).ok_or("reset, but we receive nothing there")?;
        ensure!(size <= incoming.flow.len, "stream {id}: reset at {size}");
        // 9 is the sender's own reset, 7 its answer to our STOP_SENDING.
        ensure!(code == 9 && incoming.flow.reset_at.is_some(), "stream {id}: reset with code {code}");
        let reliable = incoming.flow.reliable.map_or(0, |(first, again)| again.unwrap_or(first));
        ensure!(incoming.verified >= reliable, "stream {id}: reset before {reliable} bytes came: {incoming:?}");
        incoming.over = true;
        Ok(())
    }

    fn on_send_done(
        &mut self,
        conn: &mut Conn<'_>,
        id: StreamId,
        data: &SendData,
        acked: usize,
    ) -> Result<(), Failure> {
        let out = self.outgoing.get_mut(&id).ok_or("memory of a stream that we do not send on")?;
        ensure!(out.out > 0, "stream {id}: memory came back twice");
        ensure!(acked <= data.len(), "stream {id}: {acked} of {} acknowledged", data.len());
        out.out -= 1;
        self.write(conn, id)
    }
}

fn check(id: StreamId, from: Side, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
    let wrong = bytes.iter().enumerate().find(|(i, b)| **b != pattern(id, from, offset + *i as u64));
    match wrong {
        Some((i, b)) => Err(format!("stream {id}: wrong byte 0x{b:02x} at {}", offset + i as u64)),
        None => Ok(()),
    }
}
