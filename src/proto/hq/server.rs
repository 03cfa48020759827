//! The server: sends files, and accepts uploads if configured.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing::field::{DisplayValue, display};

use crate::base::limit::Lines;
use crate::base::printable::Printable;
use crate::base::time::Instant;
use crate::mem::{BufPool, PinnedBuf};
use crate::proto::hq::download::{Download, PIECE};
use crate::proto::hq::files::{Answer, Delay, Files, JobId, Order, Sink};
use crate::proto::hq::kept::{KeptFiles, preload};
use crate::proto::hq::request::{MAX_LINE, Method, Request, RequestError};
use crate::proto::hq::setup::{HqServerConfig, RequestProvider, ServeError, ServeStats};
use crate::proto::hq::shares::{self, Denied, MIN_PIECE, Shares};
use crate::proto::hq::{PathError, Root, status};
use crate::quic::{ConnId, Dir, Event, SendData, SendError, SendErrorKind, StreamId, TransportConfig};
use crate::runtime::{App, Context, Waker};

/// The number of pieces of a file that are read or sent at a time.
const PIECES: usize = 4;

/// Shares of the pool in eighths: for pieces of files being sent, and for uploads. The last one is for requests.
const SENDING_PARTS: usize = 4;
const UPLOAD_PARTS: usize = 3;

/// The size of receive buffers of uploads, in bytes.
const UPLOAD_BUF: usize = 1 << 20;

/// The number of turns after which streams without memory are retried even without an event.
const RETRY_TURNS: u32 = 256;

/// The maximum number of bytes provided ahead of an upload; otherwise as many as have been received.
const UPLOAD_AHEAD: usize = 8 << 20;

/// The maximum number of log lines per second about requests, and about problems with files. The next line reports how
/// many were omitted.
const LINES: u32 = 100;
const TROUBLES: u32 = 5;

type Key = (ConnId, StreamId);

/// The state of a request. Requests that need nothing more from the application are removed.
enum State {
    /// The line is incomplete; this part of it came back with the end of the stream's data.
    Line(Vec<u8>),
    Download(Download),
    /// An upload is being received; the first `skip` bytes are the request line.
    Upload {
        job: JobId,
        skip: usize,
    },
}

/// The application of `gannet serve`.
pub struct HqServer {
    root: Root,
    uploads: Option<Root>,
    kept: KeptFiles,
    files: Files,
    requests: HashMap<Key, State>,
    jobs: HashMap<JobId, Key>,
    next_job: JobId,
    /// Memory for downloads, and for uploads.
    sending: Shares,
    receiving: Shares,
    /// Uploads that wait for memory.
    starved: VecDeque<Key>,
    /// Turns since waiting streams were last retried.
    waited: u32,
    /// Limits on log lines about requests and problems with files, of which clients can cause any number.
    lines: Lines,
    troubles: Lines,
    /// Counters.
    pub stats: ServeStats,
}

fn root(path: &Path) -> Result<Root, ServeError> {
    Root::new(path).map_err(|error| ServeError::Root { path: path.into(), error })
}

impl HqServer {
    /// Creates a server. `pool` provides memory for preloaded files and for files in transit.
    ///
    /// # Errors
    /// [`ServeError`] if a directory or file cannot be used.
    pub fn new(config: &HqServerConfig, pool: &BufPool) -> Result<Self, ServeError> {
        Self::with_disk(config, pool, None)
    }

    /// Creates a server for each core, with memory for files in transit from its pool in `pools`. All of them share the
    /// threads that access files. Preloaded files are in memory once, taken from `shared`, and sent by all.
    ///
    /// # Errors
    /// [`ServeError`] if a directory or file cannot be used.
    pub fn for_cores(config: &HqServerConfig, shared: &BufPool, pools: &[BufPool]) -> Result<Vec<Self>, ServeError> {
        Self::for_cores_with_disk(config, shared, pools, None)
    }

    /// Like `for_cores`, with every disk access delayed by `delay`.
    pub(super) fn for_cores_with_disk(
        config: &HqServerConfig,
        shared: &BufPool,
        pools: &[BufPool],
        delay: Option<Delay>,
    ) -> Result<Vec<Self>, ServeError> {
        let dir = root(&config.root)?;
        let kept = preload(&dir, config.preload, shared)?;
        let files = Files::start_for(pools.len(), Some(config.file_patience), delay).map_err(ServeError::Thread)?;
        let uploads = config.uploads.as_deref().map(root).transpose()?;
        let server = |(files, pool)| Self::with(dir.clone(), uploads.clone(), kept.clone(), pool, files);
        Ok(files.into_iter().zip(pools).map(server).collect())
    }

    /// Like `new`, with every disk access delayed by `delay`.
    pub(super) fn with_disk(config: &HqServerConfig, pool: &BufPool, delay: Option<Delay>) -> Result<Self, ServeError> {
        Ok(Self::for_cores_with_disk(config, pool, std::slice::from_ref(pool), delay)?.remove(0))
    }

    fn with(root: Root, uploads: Option<Root>, kept: KeptFiles, pool: &BufPool, files: Files) -> Self {
        Self {
            kept,
            root,
            uploads,
            files,
            requests: HashMap::new(),
            jobs: HashMap::new(),
            next_job: 0,
            sending: Shares::new(pool, SENDING_PARTS),
            receiving: Shares::new(pool, UPLOAD_PARTS),
            starved: VecDeque::new(),
            waited: 0,
            lines: Lines::new(LINES),
            troubles: Lines::new(TROUBLES),
            stats: ServeStats::default(),
        }
    }

    /// Adapts transport settings to this server.
    pub fn adapt(transport: &mut TransportConfig, pool: &BufPool) {
        transport.provider = Some(std::sync::Arc::new(RequestProvider(pool.part(pool.limit() / 16))));
        transport.receive_low_water = (UPLOAD_AHEAD / 2) as u64;
        transport.max_streams_uni = 0;
        transport.send_budget = (PIECE * PIECES) as u64;
    }

    /// The number of threads that access files, for this core and others.
    #[cfg(test)]
    pub(super) fn file_threads(&self) -> usize {
        self.files.threads()
    }

    /// The number of unanswered requests.
    #[cfg(test)]
    pub(super) fn open_requests(&self) -> usize {
        self.requests.len()
    }

    fn new_job(&mut self, key: Key) -> JobId {
        self.next_job += 1;
        self.jobs.insert(self.next_job, key);
        self.next_job
    }

    /// Removes a request and closes its file.
    fn forget(&mut self, key: Key) {
        let gone = self.requests.remove(&key);
        if let Some(State::Download(download)) = &gone {
            self.stats.partial += u64::from(download.sent > 0 && download.len.is_some_and(|len| download.sent < len));
        }
        if let Some(State::Download(Download { job, .. }) | State::Upload { job, .. }) = gone {
            self.jobs.remove(&job);
            self.files.close(job);
        }
    }

    /// Logs a problem for the operator.
    fn trouble(&mut self, now: Instant, what: &std::fmt::Arguments<'_>) {
        if let Some(left_out) = self.troubles.take(now) {
            tracing::warn!(left_out = left_out.count(), "{what}");
        }
    }

    fn refuse(&mut self, cx: &mut Context<'_>, key: Key, code: u64) {
        self.stats.refused += 1;
        if let Some(left_out) = self.lines.take(cx.now()) {
            let (conn, peer, left_out) = (key.0, peer(cx, key.0), left_out.count());
            tracing::info!(%conn, peer, code, left_out, "refused: {}", status::text(code));
        }
        self.forget(key);
        if let Some(mut conn) = cx.conn(key.0) {
            // Either may have ended by itself.
            let _ = conn.reset(key.1, code);
            let _ = conn.stop_sending(key.1, code);
        }
    }

    /// Handles the result of parsing a request line.
    fn on_line(&mut self, cx: &mut Context<'_>, key: Key, parsed: Result<Option<Request>, RequestError>) {
        match parsed {
            Ok(Some(request)) => self.start(cx, key, &request),
            Ok(None) => {}
            Err(error) => {
                let (conn, peer) = (key.0, peer(cx, key.0));
                tracing::debug!(%conn, peer, %error, "bad request");
                self.refuse(cx, key, status::BAD_REQUEST);
            }
        }
    }

    fn start(&mut self, cx: &mut Context<'_>, key: Key, request: &Request) {
        if let Some(left_out) = self.lines.take(cx.now()) {
            let (conn, peer, left_out) = (key.0, peer(cx, key.0), left_out.count());
            tracing::info!(%conn, peer, left_out, "{} {}", request.method, Printable(&request.path));
        }
        let result = match request.method {
            Method::Get => Root::relative(&request.path).map(|path| self.download(cx, key, path)),
            Method::Put => match &self.uploads {
                None => Err(PathError::Outside),
                Some(dir) => dir.upload(&request.path).map(|path| self.upload(cx, key, path, request.len)),
            },
        };
        if let Err(error) = result {
            self.refuse_file(cx, key, Path::new(&request.path), &error);
        }
    }

    /// Refuses a request whose file cannot be used.
    fn refuse_file(&mut self, cx: &mut Context<'_>, key: Key, path: &Path, error: &PathError) {
        let code = match error {
            PathError::Outside => status::FORBIDDEN,
            PathError::Missing => status::NOT_FOUND,
            PathError::Io(error) => {
                self.trouble(cx.now(), &format_args!("cannot use {}: {error}", Printable(path.display())));
                // Out of descriptors or memory, in the process or on the machine.
                let scarce = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
                if scarce { status::UNAVAILABLE } else { status::INTERNAL }
            }
        };
        self.refuse(cx, key, code);
    }

    // Downloads.

    fn download(&mut self, cx: &mut Context<'_>, key: Key, path: PathBuf) {
        if let Some(bytes) = self.kept.get(&path) {
            self.stats.bytes += bytes.len() as u64;
            self.stats.files += 1;
            self.forget(key);
            if let Some(mut conn) = cx.conn(key.0) {
                // A stream that accepts nothing any more was stopped by the client.
                let _ = conn.send(key.1, SendData::Bytes(bytes), true);
            }
            return;
        }
        if self.files.is_full() {
            return self.refuse(cx, key, status::UNAVAILABLE);
        }
        let job = self.new_job(key);
        self.requests.insert(key, State::Download(Download::new(job)));
        self.files.order(cx.now(), job, Order::Open { root: self.root.clone(), path });
    }

    fn on_opened(&mut self, cx: &mut Context<'_>, key: Key, len: u64) {
        let Some(State::Download(download)) = self.requests.get_mut(&key) else { return };
        download.len = Some(len);
        if len == 0 {
            self.pump(cx, key);
        } else {
            self.feed(cx, key);
        }
    }

    /// Orders pieces of a file from the disk, as many as the client's windows and its share of memory allow. A stream
    /// with a closed window holds no memory. If there is none although its connection holds none, the request is
    /// refused.
    fn feed(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(State::Download(download)) = self.requests.get_mut(&key) else { return };
        let Some(len) = download.len else { return };
        let now = cx.now();
        let Some(mut conn) = cx.conn(key.0) else { return };
        // `Writable` is delivered when the window opens.
        let window = conn.send_window(key.1);
        let cwnd = conn.stats().cwnd as usize;
        while download.ordered < len && !download.waiting {
            let ahead = download.ordered - download.sent;
            // As much as is in flight, so that the disk is a round trip ahead of the network.
            if window <= ahead || ahead >= cwnd.max(PIECE * PIECES) as u64 {
                return;
            }
            let most = cwnd.clamp(MIN_PIECE, PIECE) as u64;
            let piece = (window - ahead).clamp(MIN_PIECE as u64, most).min(len - download.ordered);
            match self.sending.take(key.0, piece as usize, shares::used(cwnd)) {
                Ok(buf) => download.order_piece(&mut self.files, now, len, buf),
                // Its own memory will come back.
                Err(_) if ahead > 0 => return,
                Err(Denied::Share) => {
                    download.waiting = true;
                    self.sending.wait(key.0, key.1);
                }
                Err(Denied::Empty) => return self.refuse(cx, key, status::UNAVAILABLE),
            }
        }
    }

    /// Passes pieces that were read to the engine.
    fn pump(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(State::Download(download)) = self.requests.get_mut(&key) else { return };
        let Some(len) = download.len else { return };
        let Some(mut conn) = cx.conn(key.0) else { return };
        while let Some(buf) = download.ready.pop_front() {
            let n = buf.len() as u64;
            let fin = download.sent + n == len;
            match conn.send(key.1, SendData::Pinned(buf, n as usize), fin) {
                Ok(()) => {
                    download.sent += n;
                    self.stats.bytes += n;
                }
                Err(SendError { kind: SendErrorKind::Blocked, data: SendData::Pinned(buf, _) }) => {
                    download.ready.push_front(buf);
                    return;
                }
                Err(_) => return self.forget(key),
            }
        }
        if download.sent == len {
            if len == 0 {
                let _ = conn.finish(key.1);
            }
            self.stats.files += 1;
            self.forget(key);
        } else {
            self.feed(cx, key);
        }
    }

    /// Reuses the memory of a sent piece: streams of its connection that wait come first, then the same file.
    fn on_sent(&mut self, cx: &mut Context<'_>, key: Key, data: SendData) {
        drop(data);
        self.feed_waiting(cx, key.0);
        self.feed(cx, key);
    }

    /// Gives memory to the stream that has waited longest for its connection's share, or, if it no longer needs any, to
    /// the next.
    fn feed_waiting(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        while let Some(id) = self.sending.next_waiting(conn) {
            let key = (conn, id);
            let Some(State::Download(download)) = self.requests.get_mut(&key) else { continue };
            download.waiting = false;
            self.feed(cx, key);
            if let Some(State::Download(download)) = self.requests.get(&key)
                && (download.waiting || download.ordered > download.sent)
            {
                return;
            }
        }
    }

    // Uploads.

    fn upload(&mut self, cx: &mut Context<'_>, key: Key, path: PathBuf, skip: usize) {
        if self.files.is_full() {
            return self.refuse(cx, key, status::UNAVAILABLE);
        }
        let job = self.new_job(key);
        self.files.order(cx.now(), job, Order::Create { sink: Sink::Regular(path), hash: false });
        self.requests.insert(key, State::Upload { job, skip });
        self.provide(cx, key);
    }

    /// Provides more buffers for an upload: as much as it has received so far, so that a client gets no more memory
    /// than it uses. If there is none, it waits in `starved`, or is refused if its connection holds nothing that could
    /// come back.
    fn provide(&mut self, cx: &mut Context<'_>, key: Key) {
        if !matches!(self.requests.get(&key), Some(State::Upload { .. })) {
            return;
        }
        let Some(mut conn) = cx.conn(key.0) else { return };
        let came = conn.stream_stats(key.1).map_or(0, |stats| stats.contiguous);
        let mut wanted = (came as usize).clamp(MIN_PIECE, UPLOAD_AHEAD);
        let mut bufs = Vec::new();
        let denied = loop {
            match self.receiving.take(key.0, wanted.min(UPLOAD_BUF), usize::MAX) {
                Ok(buf) => {
                    wanted = wanted.saturating_sub(buf.len());
                    bufs.push(buf);
                }
                Err(denied) => break Some(denied),
            }
            if wanted < MIN_PIECE {
                break None;
            }
        };
        match denied {
            Some(Denied::Empty) if bufs.is_empty() => self.refuse(cx, key, status::UNAVAILABLE),
            Some(_) if bufs.is_empty() => self.starved.push_back(key),
            // Fails if the end is already known, when no more is needed.
            _ => drop(conn.provide_receive_buffers(key.1, bufs)),
        }
    }

    /// Retries one starved upload, of those that have not ended, after memory of an upload has come back.
    fn feed_starved(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.starved.pop_front() {
            if matches!(self.requests.get(&key), Some(State::Upload { .. })) {
                return self.provide(cx, key);
            }
        }
    }

    fn on_buffer(&mut self, cx: &mut Context<'_>, key: Key, buf: PinnedBuf, offset: u64, valid: usize) {
        if let Some(State::Line(line)) = self.requests.get_mut(&key) {
            let parsed = Request::parse(&buf[..valid], false);
            if parsed == Ok(None) {
                // Only the end or a reset of the stream can follow.
                line.extend_from_slice(&buf[..valid]);
            }
            self.on_line(cx, key, parsed);
        }
        if let Some(State::Upload { job, skip }) = self.requests.get(&key) {
            let skip = if offset == 0 { *skip } else { 0 };
            if valid > skip {
                self.files.order(cx.now(), *job, Order::Data { buf, skip, valid });
                return;
            }
        }
        drop(buf);
        self.feed_starved(cx);
    }

    fn on_finished(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(State::Line(line)) = self.requests.get(&key) {
            let parsed = Request::parse(line, true);
            self.on_line(cx, key, parsed);
        }
        if let Some(State::Upload { job, .. }) = self.requests.get(&key) {
            self.files.order(cx.now(), *job, Order::Finish);
        }
    }

    fn on_progress(&mut self, cx: &mut Context<'_>, key: Key) {
        if !matches!(self.requests.get(&key), Some(State::Line(_))) {
            return;
        }
        let parsed = cx.conn(key.0).and_then(|conn| conn.peek(key.1).map(|bytes| Request::parse(bytes, false)));
        if let Some(parsed) = parsed {
            self.on_line(cx, key, parsed);
        }
    }

    /// Reads a request that got no buffer from the engine's chunks. An upload would need more memory than there is.
    fn on_readable(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(mut conn) = cx.conn(key.0) else { return };
        let Some(State::Line(line)) = self.requests.get_mut(&key) else {
            // Ignore anything after the line.
            while conn.take(key.1).is_some() {}
            return;
        };
        let mut ended = false;
        while line.len() <= MAX_LINE
            && let Some(chunk) = conn.take(key.1)
        {
            line.extend_from_slice(&chunk);
            ended = chunk.is_last();
        }
        match Request::parse(line, ended) {
            Ok(Some(request)) if request.method == Method::Put => self.refuse(cx, key, status::UNAVAILABLE),
            parsed => self.on_line(cx, key, parsed),
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        let keys: Vec<Key> = self.requests.keys().filter(|(c, _)| *c == conn).copied().collect();
        keys.into_iter().for_each(|key| self.forget(key));
        self.sending.forget(conn);
        self.receiving.forget(conn);
    }

    // The threads' answers.

    fn on_answer(&mut self, cx: &mut Context<'_>, answer: Answer) {
        let key = self.jobs.get(&answer.job()).copied();
        match (answer, key) {
            (Answer::Opened { len, .. }, Some(key)) => self.on_opened(cx, key, len),
            (Answer::Filled { buf, .. }, Some(key)) => {
                if let Some(State::Download(download)) = self.requests.get_mut(&key) {
                    download.ready.push_back(buf);
                }
                self.pump(cx, key);
            }
            (Answer::Written { buf, .. }, _) => {
                drop(buf);
                self.feed_starved(cx);
            }
            (Answer::Saved { job, .. }, Some(key)) => {
                self.jobs.remove(&job);
                self.requests.remove(&key);
                self.stats.uploads += 1;
                if let Some(mut conn) = cx.conn(key.0) {
                    let _ = conn.finish(key.1);
                }
            }
            (Answer::Failed { path, error, buf, .. }, key) => {
                if let Some(key) = key {
                    self.refuse_file(cx, key, &path, &error);
                }
                if buf.is_some() {
                    drop(buf);
                    self.feed_starved(cx);
                }
            }
            (Answer::Created { .. } | Answer::Opened { .. } | Answer::Filled { .. } | Answer::Saved { .. }, _) => {}
        }
    }

    /// Refuses requests whose file takes too long.
    fn refuse_overdue(&mut self, cx: &mut Context<'_>) {
        while let Some(job) = self.files.overdue(cx.now()) {
            if let Some(key) = self.jobs.get(&job).copied() {
                self.refuse(cx, key, status::TIMEOUT);
            }
        }
    }
}

/// The client's address, as a field of log lines.
fn peer(cx: &Context<'_>, conn: ConnId) -> Option<DisplayValue<SocketAddr>> {
    cx.peer(conn).map(display)
}

impl App for HqServer {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::StreamOpened { id } if id.dir() == Dir::Bidi => {
                self.requests.insert((conn, id), State::Line(Vec::new()));
            }
            Event::Progress { id, .. } => self.on_progress(cx, (conn, id)),
            Event::Buffer { id, buf, offset, valid } => self.on_buffer(cx, (conn, id), buf, offset, valid),
            Event::Finished { id, .. } => self.on_finished(cx, (conn, id)),
            Event::ReceiveBufferLow { id, .. } => self.provide(cx, (conn, id)),
            Event::Readable { id } => self.on_readable(cx, (conn, id)),
            Event::Reset { id, .. } | Event::Stopped { id, .. } => self.forget((conn, id)),
            Event::Writable { id } => self.pump(cx, (conn, id)),
            Event::SendDone { id, data, .. } => self.on_sent(cx, (conn, id), data),
            Event::Closed { .. } => self.on_closed(conn),
            Event::Connected { .. }
            | Event::EarlyData { .. }
            | Event::StreamOpened { .. }
            | Event::EarlyBytes { .. }
            | Event::StreamsAvailable { .. }
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

    fn waker(&self) -> Option<Waker> {
        Some(self.files.waker())
    }

    /// Waiting streams are retried after a number of turns, so turns must keep coming.
    fn next_timeout(&self) -> Option<Instant> {
        (!self.starved.is_empty() || self.sending.stalled().next().is_some()).then_some(Instant::ZERO)
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        while let Some(answer) = self.files.answer(now) {
            self.on_answer(cx, answer);
        }
        self.refuse_overdue(cx);
        self.files.tend(now);
        self.waited += 1;
        if self.waited >= RETRY_TURNS {
            self.waited = 0;
            let stalled: Vec<ConnId> = self.sending.stalled().collect();
            for conn in stalled {
                self.feed_waiting(cx, conn);
            }
            self.feed_starved(cx);
        }
    }
}
