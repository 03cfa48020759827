//! quinn's engine, quinn-proto, as an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gannet::base::time::Instant;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, EndpointConfig, Event,
    MtuDiscoveryConfig, ServerConfig, StreamEvent, StreamId, Transmit, TransportConfig, VarInt, WriteError,
};

use super::end::{End, Packet, Spares, View};
use super::settings::{MAX_PAYLOAD, WIDE, Windows};
use super::tls::{ALPN, NAME, identity};
use crate::Failure;
use crate::peers::tls;

/// quinn's congestion control algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// CUBIC, its default.
    Cubic,
    /// An early form of BBR.
    Bbr,
    /// NewReno.
    NewReno,
}

impl Algorithm {
    fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
            Self::NewReno => Arc::new(NewRenoConfig::default()),
        }
    }
}

/// The number of datagrams that are sent together, as with segmentation offload in the kernel.
const SEGMENTS: usize = 10;

/// The block that is sent again and again.
const BLOCK: Bytes = Bytes::from_static(&[0x5a; 64 << 10]);

/// What one end is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its seed.
    pub seed: u64,
    /// The congestion control algorithm.
    pub algorithm: Algorithm,
    /// The windows.
    pub windows: Windows,
    /// The other end's address.
    pub remote: SocketAddr,
    /// The number of bytes to send.
    pub bytes: u64,
}

/// Time in quinn's form. The world's first moment is an arbitrary one of the machine's clock: only differences count.
#[derive(Clone, Copy, Debug)]
struct Clock(std::time::Instant);

impl Clock {
    fn at(self, now: Instant) -> std::time::Instant {
        self.0 + Duration::from_nanos(now.as_nanos())
    }

    fn from(self, at: std::time::Instant) -> Instant {
        Instant::ZERO + at.saturating_duration_since(self.0)
    }
}

/// An engine with its application.
pub struct QuinnEnd {
    clock: Clock,
    endpoint: Endpoint,
    client: Option<ClientConfig>,
    conn: Option<(ConnectionHandle, Connection)>,
    remote: SocketAddr,
    /// Answers of the endpoint without a connection.
    answers: Vec<Vec<u8>>,
    /// Packets that were made together and have not been sent yet.
    made: std::collections::VecDeque<Packet>,
    buffer: Vec<u8>,
    stream: Option<StreamId>,
    left: u64,
    received: u64,
    finished: bool,
    ended: Option<String>,
}

fn transport(settings: &Settings) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_PAYLOAD);
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(Some(mtu)).congestion_controller_factory(settings.algorithm.factory());
    if settings.windows == Windows::Wide {
        let window = VarInt::from_u64(WIDE).expect("it fits");
        transport.stream_receive_window(window).receive_window(window).send_window(WIDE);
    }
    Arc::new(transport)
}

fn endpoint(settings: &Settings, server: Option<ServerConfig>) -> Endpoint {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&settings.seed.to_le_bytes());
    let mut config = EndpointConfig::default();
    config.rng_seed(Some(seed));
    Endpoint::new(Arc::new(config), server.map(Arc::new), true, None)
}

impl QuinnEnd {
    /// The server, which sends.
    ///
    /// # Errors
    /// If the settings are rejected.
    pub fn server(settings: &Settings) -> Result<Self, Failure> {
        let (certs, key) = identity()?;
        let mut tls = tls::server_with(certs, key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport(settings));
        Ok(Self::new(settings, endpoint(settings, Some(config)), None))
    }

    /// The client, which receives.
    ///
    /// # Errors
    /// If the settings are rejected.
    pub fn client(settings: &Settings) -> Result<Self, Failure> {
        let mut tls = tls::client()?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(transport(settings));
        Ok(Self::new(settings, endpoint(settings, None), Some(config)))
    }

    fn new(settings: &Settings, endpoint: Endpoint, client: Option<ClientConfig>) -> Self {
        Self {
            clock: Clock(std::time::Instant::now()),
            endpoint,
            client,
            conn: None,
            remote: settings.remote,
            answers: Vec::new(),
            made: std::collections::VecDeque::new(),
            buffer: Vec::new(),
            stream: None,
            left: settings.bytes,
            received: 0,
            finished: false,
            ended: None,
        }
    }

    /// Handles everything that the connection reports.
    fn settle(&mut self) {
        let Some((handle, conn)) = &mut self.conn else { return };
        loop {
            while let Some(event) = conn.poll_endpoint_events() {
                if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                    conn.handle_event(answer);
                }
            }
            let Some(event) = conn.poll() else { return };
            match event {
                Event::Connected if self.client.is_some() => {
                    self.stream = conn.streams().open(Dir::Bi);
                    let Some(id) = self.stream else { continue };
                    let mut stream = conn.send_stream(id);
                    let asked = stream.write(b"go").is_ok() && stream.finish().is_ok();
                    assert!(asked, "a new stream takes data");
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    self.stream = conn.streams().accept(Dir::Bi);
                    pump(conn, self.stream, &mut self.left);
                }
                Event::Stream(StreamEvent::Writable { .. }) => pump(conn, self.stream, &mut self.left),
                Event::Stream(StreamEvent::Readable { id }) if self.client.is_some() => {
                    let mut stream = conn.recv_stream(id);
                    let Ok(mut chunks) = stream.read(true) else { continue };
                    loop {
                        match chunks.next(usize::MAX) {
                            Ok(Some(chunk)) => self.received += chunk.bytes.len() as u64,
                            Ok(None) => {
                                self.finished = true;
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let _ = chunks.finalize();
                }
                Event::ConnectionLost { reason } => self.ended = Some(reason.to_string()),
                _ => {}
            }
        }
    }

    /// Sends what has already been made. Returns whether there is room for more.
    fn flush(&mut self, end: usize, out: &mut Vec<Packet>) -> bool {
        while out.len() < end {
            let Some(packet) = self.made.pop_front() else { return true };
            out.push(packet);
        }
        false
    }
}

fn pump(conn: &mut Connection, stream: Option<StreamId>, left: &mut u64) {
    let Some(id) = stream else { return };
    let mut stream = conn.send_stream(id);
    while *left > 0 {
        let len = (*left).min(BLOCK.len() as u64) as usize;
        match stream.write_chunks(&mut [BLOCK.slice(..len)]) {
            Ok(written) => *left -= written.bytes as u64,
            Err(WriteError::Blocked) => return,
            Err(_) => *left = 0,
        }
        if *left == 0 {
            // It fails if the peer has stopped the stream.
            let _ = stream.finish();
        }
    }
}

fn packet(data: &[u8], ecn: u8, spares: &mut Spares) -> Packet {
    let mut memory = spares.take();
    memory[..data.len()].copy_from_slice(data);
    Packet { ecn, len: data.len(), memory }
}

impl End for QuinnEnd {
    fn begin(&mut self, now: Instant) -> Result<(), Failure> {
        let client = self.client.clone().ok_or("only clients begin")?;
        self.conn = Some(self.endpoint.connect(self.clock.at(now), client, self.remote, NAME)?);
        Ok(())
    }

    fn receive(&mut self, now: Instant, packets: &mut Vec<Packet>, spares: &mut Spares) {
        let at = self.clock.at(now);
        for mut packet in packets.drain(..) {
            let ecn = EcnCodepoint::from_bits(packet.ecn);
            let data = BytesMut::from(&*packet.data());
            let mut buffer = Vec::new();
            match self.endpoint.handle(at, self.remote, None, ecn, data, &mut buffer) {
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    if let Some((_, conn)) = &mut self.conn {
                        conn.handle_event(event);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    match self.endpoint.accept(incoming, at, &mut buffer, None) {
                        Ok(accepted) => self.conn = Some(accepted),
                        Err(error) => self.ended = Some(error.cause.to_string()),
                    }
                }
                Some(DatagramEvent::Response(transmit)) => {
                    buffer.truncate(transmit.size);
                    self.answers.push(buffer);
                }
                None => {}
            }
            spares.give(packet);
        }
        self.settle();
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        let at = self.conn.as_mut()?.1.poll_timeout()?;
        Some(self.clock.from(at))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let at = self.clock.at(now);
        if let Some((_, conn)) = &mut self.conn {
            conn.handle_timeout(at);
        }
        self.settle();
    }

    fn transmit(&mut self, now: Instant, most: usize, out: &mut Vec<Packet>, spares: &mut Spares) {
        let end = out.len().saturating_add(most);
        self.made.extend(self.answers.drain(..).map(|answer| packet(&answer, 0, spares)));
        while self.flush(end, out) {
            let Some((_, conn)) = &mut self.conn else { return };
            self.buffer.clear();
            let Some(transmit) = conn.poll_transmit(self.clock.at(now), SEGMENTS, &mut self.buffer) else { break };
            let Transmit { ecn, size, segment_size, .. } = transmit;
            let ecn = ecn.map_or(0, |ecn| ecn as u8);
            let pieces = self.buffer[..size].chunks(segment_size.unwrap_or(size).max(1));
            self.made.extend(pieces.map(|piece| packet(piece, ecn, spares)));
        }
        self.settle();
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn is_finished(&self) -> bool {
        self.finished
    }

    fn resent(&mut self) -> u64 {
        self.conn.as_ref().map_or(0, |(_, conn)| conn.stats().path.lost_bytes)
    }

    fn view(&mut self) -> View {
        let path = self.conn.as_ref().map(|(_, conn)| conn.stats().path).unwrap_or_default();
        View { window: path.cwnd, rtt: path.rtt }
    }

    fn ended(&self) -> Option<String> {
        self.ended.clone()
    }
}
