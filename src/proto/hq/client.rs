//! The client: fetches files over one connection, straight into pinned buffers.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::base::time::{Duration, Instant};
use crate::mem::{BufPool, PinnedBuf};
use crate::proto::hq::files::{Answer, Delay, Files, Order};
use crate::proto::hq::space::{LOW_WATER, Space};
use crate::proto::hq::{FetchError, Fetched, HqClientConfig, Job, PathError, Progress, status};
use crate::quic::{CloseReason, ConnId, Dir, EarlyData, Event, OpenError, SendData, StreamId, TransportConfig};
use crate::runtime::{App, Context, Unreachable, Waker};

/// The number of files fetched at a time.
const PARALLEL: usize = 4;

/// The connection's window. Data is received into buffers that were provided, so this is not to limit anything.
const MAX_DATA: u64 = 128 << 20;

/// The maximum number of bytes that wait for the disk, in addition to those held back, unless an eighth of the memory is
/// less. Beyond it the server is throttled.
pub(super) const WRITE_AHEAD: u64 = 64 << 20;

/// The size of the blocks that a client's memory is prepared in, in bytes, and the number of them for what it does not
/// hold back.
const BLOCK: usize = 2 << 20;
const BLOCKS: usize = 4;

/// The memory of a client that holds back `hold` bytes, to be prepared: (bytes of a block, number of blocks). It takes
/// more from its pool if the path needs it.
pub fn receive_buffers(hold: u64) -> (usize, usize) {
    (BLOCK, usize::try_from(hold.div_ceil(BLOCK as u64)).unwrap_or(usize::MAX).saturating_add(BLOCKS))
}

/// A file in transit.
struct Fetch {
    job: usize,
    started: Instant,
    contiguous: u64,
    space: Space,
    /// Filled buffers that wait to be written, oldest first.
    held: VecDeque<(PinnedBuf, usize)>,
}

/// The state of a job.
enum Outcome {
    Waiting,
    /// The whole file has arrived, but is not yet on disk.
    Arrived {
        bytes: u64,
        time: Duration,
    },
    Ended,
}

/// Which of the jobs of all cores a client has: each `step`th from the `first` on.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) first: usize,
    pub(super) step: usize,
    /// There is no other job, so messages need not name it.
    pub(super) only: bool,
}

/// The application of `gannet get`.
pub struct HqClient {
    config: HqClientConfig,
    share: Share,
    files: Files,
    conn: Option<ConnId>,
    connected: bool,
    /// A router reported that it has no route to the server.
    no_path: bool,
    closed: bool,
    /// When the connection moves to another source port.
    move_at: Option<Instant>,
    /// The connection is only for the first file.
    first_visit: bool,
    next: usize,
    fetches: HashMap<StreamId, Fetch>,
    outcomes: Vec<Outcome>,
    held_bytes: u64,
    /// Bytes not yet written to disk.
    writing: u64,
    /// Downloads that wait for memory, and what they want, in bytes.
    starved: VecDeque<(StreamId, u64)>,
    progress: Arc<Progress>,
    /// From the first packet to the end of the handshake.
    pub handshake: Option<Duration>,
    /// Files fetched so far.
    pub fetched: Vec<Fetched>,
    /// Errors so far.
    pub errors: Vec<FetchError>,
    /// The position of each error among those of all cores.
    pub(super) order: Vec<u64>,
}

impl HqClient {
    /// Creates a client.
    ///
    /// # Errors
    /// If no file thread can be started.
    pub fn new(config: HqClientConfig, progress: Arc<Progress>) -> io::Result<Self> {
        Self::with_disk(config, progress, None)
    }

    /// Like `new`, with every disk access delayed by `delay`.
    pub(super) fn with_disk(config: HqClientConfig, progress: Arc<Progress>, delay: Option<Delay>) -> io::Result<Self> {
        let share = Share { first: 0, step: 1, only: config.jobs.len() == 1 };
        Ok(Self::with(config, share, progress, Self::file_threads(1, delay)?.remove(0)))
    }

    /// The file threads of the clients of `loops` poll loops, of which there may be none.
    pub(super) fn file_threads(loops: usize, delay: Option<Delay>) -> io::Result<Vec<Files>> {
        // No timeout: users can wait for a slow disk, or interrupt.
        Files::start_for(loops.max(1), None, delay)
    }

    pub(super) fn with(config: HqClientConfig, share: Share, progress: Arc<Progress>, files: Files) -> Self {
        let outcomes = config.jobs.iter().map(|_| Outcome::Waiting).collect();
        Self {
            first_visit: config.resume && config.jobs.len() > 1,
            config,
            share,
            files,
            conn: None,
            connected: false,
            no_path: false,
            closed: false,
            move_at: None,
            next: 0,
            fetches: HashMap::new(),
            outcomes,
            held_bytes: 0,
            writing: 0,
            starved: VecDeque::new(),
            progress,
            handshake: None,
            fetched: Vec::new(),
            errors: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Adapts transport settings to this client.
    pub fn adapt(transport: &mut TransportConfig) {
        // Buffers are provided before a request is sent, and the window follows them.
        transport.stream_window_bidi_local = 0;
        transport.receive_low_water = LOW_WATER as u64;
        transport.max_data = MAX_DATA;
        transport.max_streams_bidi = 0;
        transport.max_streams_uni = 0;
    }

    /// Reports the files that did not arrive. To be called when the core has stopped.
    pub fn finish(&mut self) {
        for job in 0..self.outcomes.len() {
            if !matches!(self.outcomes[job], Outcome::Ended) {
                self.end(job);
                self.fail(FetchError::NotFetched(self.config.jobs[job].path.clone()));
            }
        }
    }

    pub(super) fn fail(&mut self, error: FetchError) {
        self.order.push(self.progress.failures.fetch_add(1, Ordering::Relaxed));
        self.errors.push(error);
    }

    /// Fails all files that are still waited for.
    fn fail_all(&mut self, error: FetchError) {
        self.closed |= self.conn.is_none();
        // Files that have arrived whole no longer need the connection.
        let waiting = |outcome: &Outcome| matches!(outcome, Outcome::Waiting);
        let jobs: Vec<usize> = (0..self.outcomes.len()).filter(|job| waiting(&self.outcomes[*job])).collect();
        if jobs.is_empty() {
            return;
        }
        self.fail(error);
        for job in jobs {
            self.end(job);
            // With a single file there is no need to name it.
            if !self.share.only {
                self.fail(FetchError::NotFetched(self.config.jobs[job].path.clone()));
            }
        }
    }

    fn end(&mut self, job: usize) {
        if !matches!(self.outcomes[job], Outcome::Ended) {
            self.outcomes[job] = Outcome::Ended;
            self.files.close(job as u64);
        }
    }

    #[cfg(test)]
    pub(super) fn jobs(&self) -> &[Job] {
        &self.config.jobs
    }

    #[cfg(test)]
    pub(super) fn hold(&self) -> u64 {
        self.config.hold
    }

    /// Bytes received in order.
    #[cfg(test)]
    pub(super) fn received(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    fn all_ended(&self) -> bool {
        self.outcomes.iter().all(|o| matches!(o, Outcome::Ended))
    }

    /// Requests files while streams can be opened and memory is available.
    fn request(&mut self, cx: &mut Context<'_>) {
        let Some(id) = self.conn.filter(|_| self.connected) else { return };
        let most = if self.first_visit { 1 } else { self.config.jobs.len() };
        while self.next < most && self.fetches.len() < PARALLEL {
            let now = cx.now();
            let Some(mut conn) = cx.conn(id) else { return };
            let stream = match conn.open(Dir::Bidi) {
                Ok(stream) => stream,
                Err(OpenError::StreamsExhausted | OpenError::Closed) => return,
            };
            let (index, job) = (self.next, &self.config.jobs[self.next]);
            self.next += 1;
            let create = Order::Create { sink: job.output.sink(), hash: self.config.hash };
            self.files.order(now, index as u64, create);
            let line = Bytes::from(format!("GET {}\r\n", job.path));
            // The request fits the budget of a new stream.
            let _ = conn.send(stream, SendData::Bytes(line), true);
            let fetch =
                Fetch { job: index, started: now, contiguous: 0, space: Space::default(), held: VecDeque::new() };
            self.fetches.insert(stream, fetch);
            self.supply(cx, stream, Space::FIRST as u64);
        }
    }

    /// Provides `wanted` bytes for a download, as far as there is memory; it waits for what is missing.
    fn supply(&mut self, cx: &mut Context<'_>, stream: StreamId, wanted: u64) {
        let memory = self.working_memory(cx.pool());
        // Half of it is for space, in equal parts.
        let most = memory / 2 / self.fetches.len().max(1);
        let Some(fetch) = self.fetches.get_mut(&stream) else { return };
        let buffers = fetch.space.more(wanted, most);
        if buffers.count == 0 {
            return self.starved.push_back((stream, wanted));
        }
        let mut bufs = Vec::with_capacity(buffers.count);
        if self.writing < WRITE_AHEAD.min(memory as u64 / 8) {
            bufs.extend((0..buffers.count).map_while(|_| cx.pool().alloc(buffers.size).ok()));
        }
        if bufs.is_empty() {
            // Write what is held back, so that its memory comes back.
            self.starved.push_back((stream, wanted));
            self.write_held(cx.now(), 0);
        } else if let Some(mut conn) = self.conn.and_then(|id| cx.conn(id)) {
            let bytes = bufs.iter().map(|buf| buf.capacity()).sum();
            // On an error, the end of the stream is already known, and `Readable` tells of it.
            if conn.provide_receive_buffers(stream, bufs).is_ok() {
                fetch.space.gave(bytes);
            }
        }
    }

    /// Supplies the download that has waited longest, of those that have not ended meanwhile.
    fn supply_starved(&mut self, cx: &mut Context<'_>) {
        while let Some((stream, wanted)) = self.starved.pop_front() {
            if self.fetches.contains_key(&stream) {
                return self.supply(cx, stream, wanted);
            }
        }
    }

    /// The memory for what is not held back, in bytes.
    fn working_memory(&self, pool: &BufPool) -> usize {
        pool.limit().saturating_sub(usize::try_from(self.config.hold).unwrap_or(usize::MAX))
    }

    /// Writes the oldest held buffers until at most `keep` bytes are held.
    fn write_held(&mut self, now: Instant, keep: u64) {
        for fetch in self.fetches.values_mut() {
            while self.held_bytes > keep
                && let Some((buf, valid)) = fetch.held.pop_front()
            {
                self.held_bytes -= valid as u64;
                write(&mut self.files, &mut self.writing, now, fetch.job, (buf, valid));
            }
        }
    }

    fn on_progress(&mut self, stream: StreamId, contiguous: u64) {
        if let Some(fetch) = self.fetches.get_mut(&stream) {
            self.progress.bytes.fetch_add(contiguous - fetch.contiguous, Ordering::Relaxed);
            fetch.contiguous = contiguous;
        }
    }

    fn on_buffer(&mut self, cx: &mut Context<'_>, stream: StreamId, buf: PinnedBuf, valid: usize) {
        let Some(fetch) = self.fetches.get_mut(&stream) else { return self.on_free(cx, buf) };
        fetch.space.got_back(buf.capacity());
        if valid == 0 {
            return self.on_free(cx, buf);
        }
        fetch.held.push_back((buf, valid));
        self.held_bytes += valid as u64;
        self.write_held(cx.now(), self.config.hold);
        // If it had all that it may have, it may have more now.
        self.supply_starved(cx);
    }

    fn on_low(&mut self, cx: &mut Context<'_>, stream: StreamId, wanted: u64) {
        let now = cx.now();
        if let Some(fetch) = self.fetches.get_mut(&stream) {
            fetch.space.asked(now);
            self.supply(cx, stream, wanted);
        }
    }

    /// A download that has had no buffers yet has something to read. As its window is empty, that can only be the end of
    /// an empty file.
    fn on_readable(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        let Some(mut conn) = self.conn.and_then(|id| cx.conn(id)) else { return };
        if conn.take(stream).is_some_and(|chunk| chunk.is_last()) {
            self.on_finished(cx, stream, 0);
        }
    }

    fn on_finished(&mut self, cx: &mut Context<'_>, stream: StreamId, bytes: u64) {
        let Some(mut fetch) = self.fetches.remove(&stream) else { return };
        let (job, now) = (fetch.job, cx.now());
        for (buf, valid) in fetch.held.drain(..) {
            self.held_bytes -= valid as u64;
            write(&mut self.files, &mut self.writing, now, job, (buf, valid));
        }
        self.files.order(now, job as u64, Order::Finish);
        let time = cx.now().saturating_since(fetch.started);
        if matches!(self.outcomes[job], Outcome::Waiting) {
            self.outcomes[job] = Outcome::Arrived { bytes, time };
        }
        self.request(cx);
    }

    fn on_reset(&mut self, cx: &mut Context<'_>, stream: StreamId, code: u64) {
        let Some(job) = self.drop_fetch(cx, stream) else { return };
        self.end(job);
        self.fail(FetchError::Refused { path: self.config.jobs[job].path.clone(), code });
        self.request(cx);
    }

    /// Drops a file in transit, with the buffers that it holds back.
    fn drop_fetch(&mut self, cx: &mut Context<'_>, stream: StreamId) -> Option<usize> {
        let fetch = self.fetches.remove(&stream)?;
        for (buf, valid) in fetch.held {
            self.held_bytes -= valid as u64;
            self.on_free(cx, buf);
        }
        Some(fetch.job)
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, answer: Answer) {
        match answer {
            Answer::Written { buf, valid, .. } => self.on_written(cx, buf, valid),
            Answer::Saved { job, sha256 } => {
                let job = job as usize;
                if let Outcome::Arrived { bytes, time } = self.outcomes[job] {
                    let Job { path, output } = self.config.jobs[job].clone();
                    let Share { first, step, .. } = self.share;
                    self.fetched.push(Fetched { job: first + job * step, path, output, bytes, time, sha256 });
                    self.outcomes[job] = Outcome::Ended;
                    self.progress.files.fetch_add(1, Ordering::Relaxed);
                }
            }
            Answer::Failed { job, path, error, buf } => {
                let job = job as usize;
                if !matches!(self.outcomes[job], Outcome::Ended) {
                    self.end(job);
                    let error = match error {
                        PathError::Io(error) => error,
                        other => io::Error::other(other),
                    };
                    self.fail(FetchError::Write { path, error });
                    self.give_up(cx, job);
                }
                buf.into_iter().for_each(|(buf, valid)| self.on_written(cx, buf, valid));
            }
            Answer::Created { .. } | Answer::Opened { .. } | Answer::Filled { .. } => {}
        }
    }

    fn on_written(&mut self, cx: &mut Context<'_>, buf: PinnedBuf, valid: usize) {
        self.writing = self.writing.saturating_sub(valid as u64);
        self.on_free(cx, buf);
    }

    /// Returns the memory of a buffer to the pool, for whoever waits for some.
    fn on_free(&mut self, cx: &mut Context<'_>, buf: PinnedBuf) {
        drop(buf);
        self.supply_starved(cx);
    }

    /// Asks the server to stop sending a file that cannot be stored, and continues with the next.
    fn give_up(&mut self, cx: &mut Context<'_>, job: usize) {
        if let Some(stream) = self.fetches.iter().find(|(_, fetch)| fetch.job == job).map(|(id, _)| *id) {
            self.drop_fetch(cx, stream);
            if let Some(mut conn) = self.conn.and_then(|id| cx.conn(id)) {
                let _ = conn.stop_sending(stream, status::INTERNAL);
            }
        }
        self.request(cx);
    }
}

/// Orders the next `valid` bytes of a file to be written, and counts them in `writing`.
fn write(files: &mut Files, writing: &mut u64, now: Instant, job: usize, (buf, valid): (PinnedBuf, usize)) {
    *writing += valid as u64;
    files.order(now, job as u64, Order::Data { buf, skip: 0, valid });
}

impl App for HqClient {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        if self.conn != Some(conn) {
            // The connection of the first file, whose memory has come back.
            return;
        }
        match event {
            Event::Connected { .. } => {
                self.connected = true;
                self.move_at = self.config.migrate_every.map(|every| cx.now() + every);
                self.handshake = self.conn.and_then(|id| cx.conn(id)).and_then(|conn| conn.stats().handshake_time);
                self.request(cx);
            }
            Event::StreamsAvailable { .. } => self.request(cx),
            Event::Progress { id, contiguous } => self.on_progress(id, contiguous),
            Event::Buffer { id, buf, valid, .. } => self.on_buffer(cx, id, buf, valid),
            Event::Finished { id, size, .. } => self.on_finished(cx, id, size),
            Event::Readable { id } => self.on_readable(cx, id),
            Event::Reset { id, code, .. } => self.on_reset(cx, id, code),
            Event::ReceiveBufferLow { id, wanted, .. } => self.on_low(cx, id, wanted),
            Event::Closed { reason } => {
                self.closed = true;
                if !self.all_ended() && !self.outcomes.iter().all(|o| !matches!(o, Outcome::Waiting)) {
                    let remote = self.config.remote;
                    self.fail_all(match reason {
                        CloseReason::HandshakeTimeout if self.no_path => {
                            FetchError::Unreachable { remote, why: Unreachable::NoPath }
                        }
                        reason => FetchError::Closed { remote, reason },
                    });
                }
            }
            Event::EarlyData { state } => {
                if state == EarlyData::Possible {
                    self.connected = true;
                    self.request(cx);
                }
            }
            Event::EarlyBytes { .. }
            | Event::StreamOpened { .. }
            | Event::OutOfSpace { .. }
            | Event::Stopped { .. }
            | Event::Writable { .. }
            | Event::SendDone { .. }
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
        if self.first_visit
            && self.next == 1
            && self.fetches.is_empty()
            && let Some(id) = self.conn.take()
        {
            (self.first_visit, self.connected) = (false, false);
            cx.close(id, 0, "done");
        }
        if self.conn.is_none() && !self.closed {
            match cx.connect(&self.config.client, &self.config.server_name, self.config.remote) {
                Ok(id) => self.conn = Some(id),
                Err(error) => self.fail_all(error.into()),
            }
        }
        let now = cx.now();
        while let Some(answer) = self.files.answer(now) {
            self.on_answer(cx, answer);
        }
        self.files.tend(now);
        if self.move_at.is_some_and(|at| at <= now) && !self.closed {
            self.move_at = self.config.migrate_every.map(|every| now + every);
            if let Some(Err(why)) = self.conn.map(|id| cx.migrate(id, None)) {
                tracing::debug!("the connection cannot move: {why}");
            }
        }
        if self.all_ended()
            && !self.closed
            && let Some(id) = self.conn
        {
            cx.close(id, 0, "done");
        }
    }

    fn on_unreachable(&mut self, cx: &mut Context<'_>, remote: std::net::IpAddr, why: Unreachable) {
        if why == Unreachable::NoPath {
            self.no_path |= remote == self.config.remote.ip();
            return;
        }
        if !self.connected && (remote == self.config.remote.ip() || why == Unreachable::NoAnswer) {
            self.fail_all(FetchError::Unreachable { remote: self.config.remote, why });
            if let Some(id) = self.conn {
                cx.close(id, 0, "unreachable");
            }
        }
    }

    fn waker(&self) -> Option<Waker> {
        Some(self.files.waker())
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.move_at.filter(|_| !self.closed)
    }

    fn is_done(&self) -> bool {
        self.closed && self.all_ended()
    }
}
