//! Requests and answers: the applications of a client that visits its connections in turn, and of its server.

use std::sync::Arc;

use gannet::mem::{BufPool, PinnedBuf};
use gannet::quic::{BufferProvider, ClientConfig, ConnId, Dir, Event, SendData, StreamId, TransportConfig};
use gannet::runtime::{App, Context};

use super::world::{self, NAME, REMOTE};

/// The number of handshakes in flight.
const HANDSHAKES: usize = 64;

/// The size of a buffer for a request, in bytes.
const BUFFER: usize = 4096;

/// Buffers for requests.
struct Buffers(BufPool);

impl BufferProvider for Buffers {
    fn initial_window(&self) -> u64 {
        BUFFER as u64
    }

    fn provide(&self, _: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
        self.0.alloc(BUFFER).into_iter().for_each(give);
    }
}

/// Answers each request.
#[derive(Debug)]
pub struct Answerer {
    /// The number of connections so far.
    pub connected: usize,
    answer: &'static [u8],
}

impl Answerer {
    /// A server that answers each request with `answer`.
    pub fn new(answer: &'static [u8]) -> Self {
        Self { connected: 0, answer }
    }

    /// Transport settings for requests of up to 4 KiB, which are received in buffers from `pool`.
    pub fn transport(pool: &BufPool) -> TransportConfig {
        TransportConfig {
            stream_window_bidi_remote: BUFFER as u64,
            receive_low_water: 0,
            provider: Some(Arc::new(Buffers(pool.clone()))),
            ..world::transport()
        }
    }
}

impl App for Answerer {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.connected += 1,
            Event::Finished { id, .. } => {
                if let Some(mut conn) = cx.conn(conn) {
                    // Fails if the connection is ending.
                    let _ = conn.send(id, SendData::Static(self.answer), true);
                }
            }
            _ => {}
        }
    }
}

/// Opens connections, and makes requests on them in turn.
#[derive(Debug)]
pub struct Visitor {
    config: ClientConfig,
    request: &'static [u8],
    /// The number of connections to have.
    pub wanted: usize,
    handshaking: usize,
    /// The connections that are established.
    pub conns: Vec<ConnId>,
    /// The index of the connection for the next request.
    pub next: usize,
    /// The number of requests to start in the next turn.
    pub visits: usize,
    /// The number of requests started.
    pub begun: usize,
    /// The number of requests answered.
    pub answered: usize,
    /// The number of connections that have ended.
    pub lost: usize,
}

impl Visitor {
    /// A client whose requests are `request`.
    pub fn new(config: ClientConfig, request: &'static [u8]) -> Self {
        Self {
            config,
            request,
            wanted: 0,
            handshaking: 0,
            conns: Vec::new(),
            next: 0,
            visits: 0,
            begun: 0,
            answered: 0,
            lost: 0,
        }
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.begun - self.answered
    }

    fn visit(&mut self, cx: &mut Context<'_>) {
        let id = self.conns[self.next];
        self.next = (self.next + 1) % self.conns.len();
        let Some(mut conn) = cx.conn(id) else { return };
        let Ok(stream) = conn.open(Dir::Bidi) else { return };
        if conn.send(stream, SendData::Static(self.request), true).is_ok() {
            self.visits -= 1;
            self.begun += 1;
        }
    }
}

impl App for Visitor {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                self.handshaking -= 1;
                self.conns.push(conn);
            }
            Event::Readable { id, .. } => {
                let Some(mut conn) = cx.conn(conn) else { return };
                while let Some(n) = conn.peek(id).map(<[u8]>::len).filter(|n| *n > 0) {
                    conn.consume(id, n);
                }
                self.answered += usize::from(conn.is_finished(id));
            }
            Event::Closed { .. } => self.lost += 1,
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        while self.handshaking < HANDSHAKES
            && self.conns.len() + self.handshaking < self.wanted
            && cx.connect(&self.config, NAME, REMOTE).is_ok()
        {
            self.handshaking += 1;
        }
        let visits = self.visits;
        for _ in 0..visits {
            self.visit(cx);
        }
    }
}
