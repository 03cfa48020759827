//! The applications of the two ends: one sends endlessly, and one receives in three ways.

use std::collections::VecDeque;
use std::sync::LazyLock;

use gannet::mem::{AllocError, BufPool, PinnedBuf};
use gannet::quic::{Chunk, ClientConfig, ConnId, Dir, Event, SendData, StreamId, TransportConfig};
use gannet::runtime::{App, Context};

use super::world::{NAME, REMOTE};

/// The block that is sent repeatedly.
static BLOCK: LazyLock<&'static [u8]> =
    LazyLock::new(|| Vec::leak((0..1usize << 20).map(|i| (i ^ (i >> 8)) as u8).collect()));

/// The number of bytes queued at a time.
const PIECE: usize = 256 << 10;

/// The size of receive buffers, which is a size class of the pool.
const BUFFER: usize = 2 << 20;

/// The server: sends endlessly on each stream that the client opens.
#[derive(Debug, Default)]
pub struct Source {
    at: usize,
}

impl Source {
    fn pump(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let Some(mut conn) = cx.conn(conn) else { return };
        loop {
            let piece = &BLOCK[self.at..self.at + PIECE];
            if conn.send(id, SendData::Static(piece), false).is_err() {
                return;
            }
            self.at = (self.at + PIECE) % BLOCK.len();
        }
    }
}

impl App for Source {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        if let Event::StreamOpened { id } | Event::Writable { id } = event {
            self.pump(cx, conn, id);
        }
    }
}

/// How the client receives bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The engine decrypts into the application's buffers.
    Direct,
    /// The engine decrypts into chunks of its pool, which are lent to the application.
    Pooled,
    /// Packets are decrypted in place, in one pass with authentication, and the bytes are copied to the application's
    /// buffers, as in other stacks.
    Copied,
}

impl Placement {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Pooled, Self::Copied];

    /// Its name in keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pooled => "pooled",
            Self::Copied => "copy",
        }
    }
}

/// The client: requests the stream, and receives it into `span` bytes of memory, repeatedly.
#[derive(Debug)]
pub struct Sink {
    config: ClientConfig,
    placement: Placement,
    span: usize,
    free: Vec<PinnedBuf>,
    /// Chunks being held, oldest first.
    held: VecDeque<Chunk>,
    held_bytes: usize,
    /// Stream bytes received.
    pub received: u64,
    /// The connection has ended.
    pub closed: bool,
    started: bool,
}

impl Sink {
    /// Creates a client with memory from `pool`.
    ///
    /// # Errors
    /// If the pool does not have enough.
    pub fn new(config: ClientConfig, placement: Placement, span: usize, pool: &BufPool) -> Result<Self, AllocError> {
        let size = BUFFER.min(span / 4);
        let free = match placement {
            Placement::Pooled => Vec::new(),
            _ => (0..span / size).map(|_| pool.alloc(size)).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            config,
            placement,
            span,
            free,
            held: VecDeque::new(),
            held_bytes: 0,
            received: 0,
            closed: false,
            started: false,
        })
    }

    /// The transport settings of the client.
    pub fn transport(placement: Placement) -> TransportConfig {
        let window = if placement == Placement::Pooled { 16 << 20 } else { 0 };
        TransportConfig {
            stream_window_bidi_local: window,
            max_data: 1 << 40,
            receive_low_water: 0,
            ..super::world::transport()
        }
    }

    fn open(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(mut conn) = cx.conn(conn) else { return };
        let Ok(id) = conn.open(Dir::Bidi) else { return };
        if self.placement != Placement::Pooled {
            let bufs = std::mem::take(&mut self.free);
            conn.provide_receive_buffers(id, bufs).expect("a new stream takes buffers");
        }
        conn.send(id, SendData::Static(b"go"), true).expect("a new stream takes data");
    }

    fn refill(&self, cx: &mut Context<'_>, conn: ConnId, id: StreamId, buf: PinnedBuf) {
        if let Some(mut conn) = cx.conn(conn) {
            // Fails when the connection ends; the buffer is then freed.
            let _ = conn.provide_receive_buffer(id, buf);
        }
    }

    fn lend(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let Some(mut conn) = cx.conn(conn) else { return };
        while let Some(chunk) = conn.take(id) {
            self.received += chunk.len() as u64;
            self.held_bytes += chunk.len();
            self.held.push_back(chunk);
        }
        while self.held_bytes > self.span
            && let Some(chunk) = self.held.pop_front()
        {
            self.held_bytes -= chunk.len();
        }
    }
}

impl App for Sink {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.open(cx, conn),
            Event::Progress { contiguous, .. } => self.received = contiguous,
            Event::Buffer { id, buf, .. } => self.refill(cx, conn, id, buf),
            Event::Readable { id, .. } => self.lend(cx, conn, id),
            Event::Closed { .. } => self.closed = true,
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.started, true) {
            cx.connect(&self.config, NAME, REMOTE).expect("the configuration is fine");
        }
    }
}
