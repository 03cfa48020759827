//! Gannet's engine as an end.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use gannet::base::time::Instant;
use gannet::mem::{BufPool, PinnedBuf, PoolConfig};
use gannet::proto::hq::{HqClient, HqServer, Space};
use gannet::quic::tls::{TlsOptions, insecure_client_config, server_config};
use gannet::quic::{
    ClientConfig, CongestionAlgorithm, ConnId, Datagram, Dir, Endpoint, EndpointConfig, Event, Leads, RUN, RetryPolicy,
    RxMeta, SendData, ServerConfig, Slots, StreamId, TransportConfig,
};

use super::end::{End, Memory, Packet, Spares, View};
use super::settings::{Acks, WIDE, Windows};
use super::tls::{ALPN, NAME, identity};
use crate::Failure;

/// The block that is sent again and again.
static BLOCK: LazyLock<&'static [u8]> = LazyLock::new(|| Vec::leak(vec![0x5a; 1 << 20]));

/// The number of bytes that the application queues at a time.
const PIECE: u64 = 64 << 10;

/// The pieces of a file that `gannet serve` reads at a time are as large as the congestion window, within these limits.
const FILE_PIECE: (u64, u64) = (64 << 10, 1 << 20);

/// The size of the buffers that an application provides, and how many it begins with.
const BUFFER: (usize, usize) = (256 << 10, 4);

/// The memory of `gannet get` for what is on its way.
const GET_MEMORY: usize = 512 << 20;

/// What one end is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its seed.
    pub seed: u64,
    /// The congestion control algorithm.
    pub algorithm: CongestionAlgorithm,
    /// The windows and the memory.
    pub windows: Windows,
    /// How often the receiver acknowledges, if not as usual.
    pub acks: Option<Acks>,
    /// Its address.
    pub local: SocketAddr,
    /// The other end's.
    pub remote: SocketAddr,
    /// The number of bytes to send.
    pub bytes: u64,
}

/// What the application does.
#[derive(Debug)]
enum Task {
    /// The server: sends this many bytes more on the stream that the client opens.
    Send { left: u64, stream: Option<StreamId>, pieces: (u64, u64) },
    /// The client: receives them.
    Receive { into: Store, received: u64, finished: bool },
}

/// What a client receives into.
#[derive(Debug)]
enum Store {
    /// Chunks of the pool.
    Chunks,
    /// Buffers that it provides and uses again.
    Buffers(Vec<PinnedBuf>),
    /// The buffers of `gannet get`, which are written at once.
    Space(Space),
}

/// An engine with its application.
pub struct GannetEnd {
    endpoint: Endpoint,
    client: Option<ClientConfig>,
    conn: Option<ConnId>,
    task: Task,
    local: SocketAddr,
    remote: SocketAddr,
    /// The time of the last call.
    now: Instant,
    ended: Option<String>,
}

/// Transport settings of both sides, except for windows.
fn transport(settings: &Settings) -> TransportConfig {
    let usual = TransportConfig { congestion: settings.algorithm, ..TransportConfig::default() };
    match settings.acks {
        Some(Acks { every, delay }) => TransportConfig {
            ack_frequency: every,
            max_ack_delay: delay,
            // Peers cannot ask for more.
            min_ack_delay: None,
            ..usual
        },
        None => usual,
    }
}

fn wide(usual: TransportConfig) -> TransportConfig {
    let window = WIDE;
    TransportConfig { stream_window_bidi_local: window, max_data: window, send_budget: window, ..usual }
}

/// The memory that a pool has by default, of ordinary pages; where windows do not matter, memory does not either. Only
/// what is used exists.
fn pool(windows: Windows) -> BufPool {
    let usual = PoolConfig::default().limit_bytes;
    BufPool::heap().part(match windows {
        Windows::Wide => 64 * usual,
        Windows::Memory(bytes) => bytes as usize,
        Windows::Default | Windows::Provided | Windows::Serve => usual,
    })
}

fn options() -> TlsOptions {
    TlsOptions { alpn: vec![ALPN.to_vec()], ..TlsOptions::default() }
}

fn endpoint(settings: &Settings, server: Option<ServerConfig>, pool: BufPool) -> Endpoint {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&settings.seed.to_le_bytes());
    let config = EndpointConfig { retry: RetryPolicy::Never, ..EndpointConfig::from_seed(seed) };
    Endpoint::new(config, server, pool)
}

impl GannetEnd {
    /// The server, which sends.
    ///
    /// # Errors
    /// If the settings are rejected.
    pub fn server(settings: &Settings) -> Result<Self, Failure> {
        let (certs, key) = identity()?;
        let pool = pool(settings.windows);
        let mut transport = transport(settings);
        match settings.windows {
            Windows::Wide => transport = wide(transport),
            Windows::Serve => HqServer::adapt(&mut transport, &pool),
            Windows::Memory(bytes) => transport = transport.with_memory(bytes),
            Windows::Default | Windows::Provided => {}
        }
        let config = ServerConfig::new(server_config(certs, key, &options())?, transport)?;
        let pieces = if settings.windows == Windows::Serve { FILE_PIECE } else { (PIECE, PIECE) };
        let task = Task::Send { left: settings.bytes, stream: None, pieces };
        Ok(Self::new(settings, endpoint(settings, Some(config), pool), None, task))
    }

    /// The client, which receives.
    ///
    /// # Errors
    /// If the settings are rejected.
    pub fn client(settings: &Settings) -> Result<Self, Failure> {
        let mut transport = transport(settings);
        match settings.windows {
            Windows::Wide => transport = wide(transport),
            Windows::Serve => HqClient::adapt(&mut transport),
            Windows::Provided => transport.stream_window_bidi_local = 0,
            Windows::Memory(bytes) => transport = transport.with_memory(bytes),
            Windows::Default => {}
        }
        let (mut pool, mut into) = (pool(settings.windows), Store::Chunks);
        match settings.windows {
            Windows::Serve => (pool, into) = (pool.part(GET_MEMORY), Store::Space(Space::default())),
            Windows::Provided => into = Store::Buffers(Vec::new()),
            Windows::Wide | Windows::Default | Windows::Memory(_) => {}
        }
        let mut tls = (*insecure_client_config(&options())?).clone();
        tls.resumption = rustls::client::Resumption::disabled();
        let client = ClientConfig::new(Arc::new(tls), transport)?;
        let task = Task::Receive { into, received: 0, finished: false };
        Ok(Self::new(settings, endpoint(settings, None, pool), Some(client), task))
    }

    fn new(settings: &Settings, endpoint: Endpoint, client: Option<ClientConfig>, task: Task) -> Self {
        let Settings { local, remote, .. } = *settings;
        Self { endpoint, client, conn: None, task, local, remote, now: Instant::ZERO, ended: None }
    }

    fn handle_events(&mut self) {
        while let Some((conn, event)) = self.endpoint.poll_event() {
            self.conn = Some(conn);
            match event {
                Event::Connected { .. } => self.open(conn),
                Event::StreamOpened { id } => {
                    if let Task::Send { stream, .. } = &mut self.task {
                        *stream = Some(id);
                        self.pump(conn);
                    }
                }
                Event::Writable { .. } => self.pump(conn),
                Event::Readable { id, .. } => self.take(conn, id),
                Event::Progress { contiguous, .. } => {
                    if let Task::Receive { received, .. } = &mut self.task {
                        *received = contiguous;
                    }
                }
                Event::Buffer { mut buf, .. } => match &mut self.task {
                    Task::Receive { into: Store::Buffers(free), .. } => {
                        buf.set_len(buf.capacity());
                        free.push(buf);
                    }
                    Task::Receive { into: Store::Space(space), .. } => space.got_back(buf.capacity()),
                    _ => {}
                },
                Event::ReceiveBufferLow { id, wanted, .. } => {
                    if let Task::Receive { into: Store::Space(space), .. } = &mut self.task {
                        space.asked(self.now);
                    }
                    self.provide(conn, id, wanted);
                }
                Event::Finished { size, .. } => {
                    if let Task::Receive { received, finished, .. } = &mut self.task {
                        (*received, *finished) = (size, true);
                    }
                }
                Event::Closed { reason } => self.ended = Some(format!("{reason:?}")),
                _ => {}
            }
        }
    }

    fn open(&mut self, conn: ConnId) {
        let first = match &self.task {
            Task::Receive { into: Store::Chunks, .. } => 0,
            Task::Receive { into: Store::Buffers(_), .. } => BUFFER.0 * BUFFER.1,
            Task::Receive { into: Store::Space(_), .. } => Space::FIRST,
            Task::Send { .. } => return,
        };
        let Some(mut access) = self.endpoint.conn(conn) else { return };
        let Ok(id) = access.open(Dir::Bidi) else { return };
        self.provide(conn, id, first as u64);
        if let Some(mut access) = self.endpoint.conn(conn) {
            access.send(id, SendData::Static(b"go"), true).expect("a new stream takes data");
        }
    }

    fn provide(&mut self, conn: ConnId, id: StreamId, wanted: u64) {
        let Task::Receive { into, .. } = &mut self.task else { return };
        let pool = self.endpoint.pool().clone();
        let bufs: Vec<_> = match into {
            Store::Chunks => return,
            Store::Buffers(free) => {
                let count = (wanted as usize).div_ceil(BUFFER.0);
                (0..count).map_while(|_| free.pop().or_else(|| pool.alloc(BUFFER.0).ok())).collect()
            }
            Store::Space(space) => {
                let buffers = space.more(wanted, pool.limit() / 2);
                (0..buffers.count).map_while(|_| pool.alloc(buffers.size).ok()).collect()
            }
        };
        let bytes = bufs.iter().map(|buf| buf.capacity()).sum();
        let Some(mut conn) = self.endpoint.conn(conn) else { return };
        match (conn.provide_receive_buffers(id, bufs), into) {
            (Ok(()), Store::Space(space)) => space.gave(bytes),
            (Err(error), Store::Buffers(free)) => free.extend(error.bufs),
            _ => {}
        }
    }

    fn take(&mut self, conn: ConnId, id: StreamId) {
        let Task::Receive { received, finished, .. } = &mut self.task else { return };
        let Some(mut conn) = self.endpoint.conn(conn) else { return };
        while let Some(chunk) = conn.take(id) {
            *received += chunk.len() as u64;
        }
        *finished = conn.is_finished(id);
    }

    fn pump(&mut self, conn: ConnId) {
        let Task::Send { left, stream: Some(id), pieces: (least, most) } = &mut self.task else { return };
        let Some(mut conn) = self.endpoint.conn(conn) else { return };
        let piece = conn.stats().cwnd.clamp(*least, *most);
        while *left > 0 {
            let len = piece.min(*left);
            if conn.send(*id, SendData::Static(&BLOCK[..len as usize]), len == *left).is_err() {
                return;
            }
            *left -= len;
        }
    }
}

impl End for GannetEnd {
    fn begin(&mut self, now: Instant) -> Result<(), Failure> {
        let client = self.client.as_ref().ok_or("only clients begin")?;
        self.conn = Some(self.endpoint.connect(now, client, NAME, self.local, self.remote)?);
        Ok(())
    }

    fn receive(&mut self, now: Instant, packets: &mut Vec<Packet>, spares: &mut Spares) {
        self.now = now;
        for chunk in packets.chunks_mut(RUN) {
            let metas: Vec<_> =
                chunk.iter().map(|p| RxMeta { local: self.local, remote: self.remote, ecn: p.ecn }).collect();
            let mut leads = Leads::new();
            chunk.iter_mut().for_each(|packet| self.endpoint.lead(&mut leads, packet.data()));
            self.endpoint.route(&mut leads);
            let leads: Vec<_> = leads.take().collect();
            let parts = chunk.iter_mut().zip(&metas).zip(leads);
            let mut run: Vec<_> = parts.map(|((p, meta), lead)| Datagram::new(meta, p.data(), lead)).collect();
            self.endpoint.handle_run(now, &mut run);
        }
        packets.drain(..).for_each(|packet| spares.give(packet));
        self.handle_events();
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        self.endpoint.next_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.endpoint.handle_timeout(now);
        self.handle_events();
    }

    fn transmit(&mut self, now: Instant, most: usize, out: &mut Vec<Packet>, spares: &mut Spares) {
        let begin = out.len();
        loop {
            let first = out.len();
            let most = (most - (first - begin)).min(RUN);
            let mut slots = Out { out, spares, first, most, next: None };
            let transmit = self.endpoint.poll_transmit_run(now, &mut slots);
            if let Some(memory) = slots.next.take() {
                spares.give(Packet { ecn: 0, len: 0, memory });
            }
            let Some(transmit) = transmit else { break };
            out[first..].iter_mut().for_each(|packet| packet.ecn = transmit.ecn);
        }
        // Sending may complete what the application waits for.
        self.handle_events();
    }

    fn received(&self) -> u64 {
        match self.task {
            Task::Receive { received, .. } => received,
            Task::Send { .. } => 0,
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.task, Task::Receive { finished: true, .. })
    }

    fn resent(&mut self) -> u64 {
        self.endpoint.stats().bytes_resent
    }

    fn held(&self) -> u64 {
        self.endpoint.pool().in_use() as u64
    }

    fn view(&mut self) -> View {
        let conn = self.conn.and_then(|id| self.endpoint.conn(id));
        let stats = conn.map(|conn| conn.stats()).unwrap_or_default();
        View { window: stats.cwnd, rtt: stats.srtt }
    }

    fn ended(&self) -> Option<String> {
        self.ended.clone()
    }
}

/// Room for packets that are sent together.
struct Out<'a> {
    out: &'a mut Vec<Packet>,
    spares: &'a mut Spares,
    /// The place of the first of them.
    first: usize,
    most: usize,
    next: Option<Memory>,
}

impl Slots for Out<'_> {
    fn next(&mut self) -> Option<&mut [u8]> {
        if self.out.len() - self.first >= self.most {
            return None;
        }
        Some(&mut self.next.get_or_insert_with(|| self.spares.take())[..])
    }

    fn keep(&mut self, len: usize) {
        let memory = self.next.take().expect("a slot was taken");
        self.out.push(Packet { ecn: 0, len, memory });
    }

    fn kept(&mut self, i: usize, of: usize) -> &mut [u8] {
        let place = self.out.len() - of + i;
        self.out[place].data()
    }
}
