//! Configuration of endpoints and connections.

mod acks;
mod budget;
mod check;
mod cores;
mod datagrams;

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::base::rng::Rng;
use crate::base::time::Duration;
use crate::mem::PinnedBuf;
use crate::quic::cid::{CidCodec, CidConfig, IdMaker};
use crate::quic::config_error::ConfigError;
use crate::quic::early::{EarlyDataPolicy, Strikes};
use crate::quic::secret::Secret;
use crate::quic::token::{NewTokens, RetryPolicy, TokenStore};
use crate::quic::trace::Tracer;
use crate::quic::{SessionTickets, StreamId, tls};
use crate::wire::quic::{Version, Versions, varint};

pub use acks::AckRequests;
pub use datagrams::{DatagramConfig, DatagramOrder, DropPolicy};

/// Congestion control algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionAlgorithm {
    /// NewReno (RFC 9002 §7), leaving slow start by HyStart++ (RFC 9406).
    NewReno,
    /// CUBIC (RFC 9438), leaving slow start by HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// BBRv3 (draft-ietf-ccwg-bbr-06), which models the path: neither random loss nor shallow queues slow it down.
    Bbr,
}

impl CongestionAlgorithm {
    /// A seed for an algorithm that probes at random times. Others take nothing from `rng`.
    pub(crate) fn seed(self, rng: &mut Rng) -> u64 {
        match self {
            Self::NewReno | Self::Cubic => 0,
            Self::Bbr => rng.next_u64(),
        }
    }
}

/// Provides receive buffers for streams that the peer opens.
///
/// Here, each stream gets one buffer from a pool, and nothing else is allocated:
/// ```
/// use gannet::api::{BufPool, BufferProvider, PinnedBuf, StreamId};
///
/// struct OneEach(BufPool);
///
/// impl BufferProvider for OneEach {
///     fn initial_window(&self) -> u64 {
///         64 << 10
///     }
///
///     fn provide(&self, _: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
///         self.0.alloc(64 << 10).into_iter().for_each(give);
///     }
/// }
/// ```
pub trait BufferProvider: Send + Sync {
    /// Initial window of these streams, announced in the transport parameters, in bytes. [`BufferProvider::provide`]
    /// must give at least as many bytes.
    fn initial_window(&self) -> u64;
    /// Calls `give` with each buffer for a stream that the peer has just opened, in the order in which they are to be
    /// filled. If no buffer is given, the stream uses pooled chunks. Buffers that are empty or would end beyond 2^62-1
    /// are dropped.
    fn provide(&self, stream: StreamId, give: &mut dyn FnMut(PinnedBuf));
}

impl fmt::Debug for dyn BufferProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferProvider").field("initial_window", &self.initial_window()).finish()
    }
}

/// Addresses that a server prefers to be reached at, by IP version (RFC 9000 §9.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreferredAddress {
    /// For clients that use IPv4.
    pub v4: Option<SocketAddrV4>,
    /// For clients that use IPv6.
    pub v6: Option<SocketAddrV6>,
}

impl PreferredAddress {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `addr` is one of them.
    pub fn contains(&self, addr: SocketAddr) -> bool {
        self.for_version_of(addr) == Some(addr)
    }

    /// The one with the IP version of `addr`.
    pub fn for_version_of(&self, addr: SocketAddr) -> Option<SocketAddr> {
        if addr.is_ipv4() { self.v4.map(SocketAddr::from) } else { self.v6.map(SocketAddr::from) }
    }
}

/// Transport settings of connections. They are usually shared by many connections.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Versions of QUIC in order of preference. A server accepts all of them, and a client offers all of them; a server
    /// chooses its most preferred one of those that the client offers (RFC 9368 §2.3).
    pub versions: Versions,
    /// Version of a client's first packets; `None` is the oldest in `versions`, which most servers understand. Servers
    /// that prefer another one change to it without a round trip, so this need not be the preferred one (RFC 9368 §2.5).
    pub first_version: Option<Version>,
    /// Idle timeout announced to the peer, in whole milliseconds; zero disables it (RFC 9000 §10.1).
    pub max_idle_timeout: Duration,
    /// Time limit for the handshake, at least 1 ms.
    pub handshake_timeout: Duration,
    /// Initial flow-control window of the connection, in bytes. It moves with the bytes that the application consumes or
    /// provides, and grows ([`max_window`](Self::max_window)).
    pub max_data: u64,
    /// Maximum size of receive windows of the connection and of its pooled streams, in bytes. They begin with their initial
    /// sizes and follow the path: they become several times what arrives and is consumed within a round trip, as far as
    /// the pool has memory ([`MemoryConfig`]), which is the only limit by default. With 0, they keep their initial sizes.
    pub max_window: u64,
    /// Initial window of bidirectional streams that we open, in bytes. With 0, the window grows with the buffers that
    /// are provided.
    pub stream_window_bidi_local: u64,
    /// Initial window of bidirectional streams that the peer opens, in bytes. Those of pooled streams move and grow like the
    /// connection's.
    pub stream_window_bidi_remote: u64,
    /// Initial window of unidirectional streams that the peer opens, in bytes.
    pub stream_window_uni: u64,
    /// Maximum number of bidirectional streams that the peer may have open at a time.
    pub max_streams_bidi: u64,
    /// Maximum number of unidirectional streams that the peer may have open at a time.
    pub max_streams_uni: u64,
    /// Raise `ReceiveBufferLow` when fewer than this many provided bytes, and less than half of all provided bytes, are
    /// unfilled. It is thus never raised for a buffer that was just provided, however small. On paths that need more
    /// space, it is raised earlier, and asks for more ([`max_window`](Self::max_window)), unless this is 0.
    pub receive_low_water: u64,
    /// Bytes that may be queued for sending on one stream before `send` returns `Blocked`. More are accepted if two
    /// congestion windows are more than this, and the peer's window for the stream is as well.
    pub send_budget: u64,
    /// Maximum of the bytes that may be queued on one stream because of the congestion window. With 0,
    /// [`send_budget`](Self::send_budget) is the only limit.
    pub max_send_budget: u64,
    /// Congestion control algorithm.
    pub congestion: CongestionAlgorithm,
    /// Whether to pace packets over the round-trip time.
    pub pacing: bool,
    /// Assumed round-trip time before the first sample (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Maximum time by which an acknowledgement is delayed, less than 2^14 ms.
    pub max_ack_delay: Duration,
    /// Number of ack-eliciting packets after which an acknowledgement is sent at once, at least 1.
    pub ack_frequency: u32,
    /// Maximum UDP payload in bytes, at least 1200: used once path MTU discovery has confirmed it, and announced to the
    /// peer as the maximum that we accept.
    pub max_udp_payload: u16,
    /// `max_udp_payload` over IPv6, whose header is 20 bytes longer; `None` uses the value for IPv4.
    pub max_udp_payload_v6: Option<u16>,
    /// Number of packets sealed with one key before it is updated. Ciphers with a lower limit are updated earlier:
    /// AES-GCM after 2^22 packets (RFC 9001 §6.6).
    pub packets_per_key: u64,
    /// Keep [`Conn::tls_info`](crate::quic::Conn::tls_info), which includes the peer's certificates, for as long as the
    /// connection lasts, and not only until the application has handled `Connected`.
    pub keep_tls_info: bool,
    /// Send a PING when nothing was received for this long. If the peer is gone, this is detected one idle timeout
    /// later.
    ///
    /// This is not needed for slow applications: both the side that waits for credit and the side that has yet to grant
    /// it keep the connection alive. It is for connections that wait for something else, such as an answer that takes
    /// long to compute.
    pub keep_alive: Option<Duration>,
    /// Whether to mark packets for explicit congestion notification, so that routers can report congestion without
    /// dropping packets (RFC 9000 §13.4), on paths where it works. Marks on received packets are reported in any case.
    pub ecn: bool,
    /// Whether the network may measure round-trip times by the spin bit (RFC 9000 §17.4). Even then, one in 16 paths does
    /// not spin.
    pub spin: bool,
    /// Whether a server's clients may move to another address on purpose (RFC 9000 §9). If not, they are asked not to;
    /// changes by a NAT are followed all the same.
    pub migration: bool,
    /// Other addresses of a server, to which clients are asked to move once they are connected (RFC 9000 §9.6).
    /// Datagrams to them have to reach the endpoint.
    pub preferred_address: PreferredAddress,
    /// Whether a client follows a server's request to move to another address of the server.
    pub follow_preferred_address: bool,
    /// Provides receive buffers for streams that the peer opens.
    pub provider: Option<Arc<dyn BufferProvider>>,
    /// Minimum delay that peers may request for our acknowledgements (draft-ietf-quic-ack-frequency-14), at most
    /// `max_ack_delay`; announced to the peer. `None` does not let them request anything.
    pub min_ack_delay: Option<Duration>,
    /// What we ask the peer's acknowledgements for, if it supports that.
    pub ack_requests: AckRequests,
    /// Whether peers may reset streams and still have their first bytes delivered
    /// ([`Conn::reset_at`](crate::quic::Conn::reset_at)). Announced to the peer.
    pub reset_stream_at: bool,
    /// Unreliable datagrams (RFC 9221); `None`, the default, neither accepts nor sends any.
    pub datagrams: Option<DatagramConfig>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            versions: Versions::default(),
            first_version: None,
            max_idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_data: 64 << 20,
            max_window: varint::MAX,
            stream_window_bidi_local: 1 << 20,
            stream_window_bidi_remote: 1 << 20,
            stream_window_uni: 1 << 20,
            max_streams_bidi: 100,
            max_streams_uni: 100,
            receive_low_water: 1 << 20,
            send_budget: 16 << 20,
            max_send_budget: 1 << 30,
            congestion: CongestionAlgorithm::default(),
            pacing: true,
            initial_rtt: Duration::from_millis(333),
            max_ack_delay: Duration::from_millis(25),
            ack_frequency: 2,
            max_udp_payload: 1472,
            max_udp_payload_v6: None,
            packets_per_key: u64::MAX,
            keep_tls_info: false,
            keep_alive: None,
            ecn: true,
            spin: false,
            migration: true,
            preferred_address: PreferredAddress::default(),
            follow_preferred_address: true,
            provider: None,
            min_ack_delay: Some(Duration::from_millis(1)),
            ack_requests: AckRequests::Never,
            reset_stream_at: true,
            datagrams: None,
        }
    }
}

impl TransportConfig {
    /// Version of a client's first packets.
    pub(crate) fn first_version(&self) -> Version {
        self.first_version.unwrap_or_else(|| self.versions.oldest())
    }
}

/// What all cores of a server share for 0-RTT.
#[derive(Clone, Debug)]
pub(crate) struct EarlyDataServer {
    pub(crate) policy: Arc<dyn EarlyDataPolicy>,
    pub(crate) strikes: Arc<Strikes>,
}

/// Configuration of a server. Settings that cannot work are refused when it is made.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) transport: Arc<TransportConfig>,
    pub(crate) tickets: SessionTickets,
    pub(crate) early_data: Option<EarlyDataServer>,
}

impl ServerConfig {
    /// Combines TLS settings, made by [`tls::server_config`] or with [`tls::crypto_provider`], with transport settings.
    ///
    /// # Errors
    /// [`ConfigError`] if connections could not be accepted with these settings, or peers would refuse them.
    pub fn new(
        tls: Arc<rustls::ServerConfig>,
        transport: impl Into<Arc<TransportConfig>>,
    ) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        tls::check_server(&tls)?;
        Ok(Self { tls, transport, tickets: SessionTickets::default(), early_data: None })
    }

    /// Sets the number and the lifetime of session tickets. They are sealed with a key that follows from the secret, so
    /// that all cores, and later processes with the same secret, resume the sessions. `send_tls13_tickets` of the TLS
    /// settings limits their number as well; settings with a ticketer of their own are used as they are. Servers that ask
    /// clients for certificates give and take no tickets, so that what has been revoked since is noticed.
    ///
    /// # Errors
    /// [`ConfigError`] if the lifetime is longer than seven days or shorter than a second.
    pub fn with_tickets(self, tickets: SessionTickets) -> Result<Self, ConfigError> {
        let (min, max) = (Duration::from_secs(1), SessionTickets::MAX_LIFETIME);
        if !(min..=max).contains(&tickets.lifetime) {
            return Err(ConfigError::Time { name: "lifetime of session tickets", value: tickets.lifetime, min, max });
        }
        Ok(Self { tickets, ..self })
    }

    /// Replaces the transport settings, as cores may have different ones.
    ///
    /// # Errors
    /// [`ConfigError`] if they cannot work.
    pub fn with_transport(self, transport: impl Into<Arc<TransportConfig>>) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        Ok(Self { transport, ..self })
    }

    /// Accepts 0-RTT data of clients that `policy` chooses (RFC 9001 §4.6). By default, none is accepted.
    ///
    /// It is accepted once for each ticket, by all cores with clones of these settings together. Copies of a client's
    /// packets can still be processed by other processes with the same secret, so `policy` and the application must only
    /// allow requests that may be repeated.
    #[must_use]
    pub fn with_early_data(self, policy: Arc<dyn EarlyDataPolicy>) -> Self {
        Self { early_data: Some(EarlyDataServer { policy, strikes: Arc::default() }), ..self }
    }

    /// The TLS settings.
    pub fn tls(&self) -> &Arc<rustls::ServerConfig> {
        &self.tls
    }

    /// The transport settings.
    pub fn transport(&self) -> &Arc<TransportConfig> {
        &self.transport
    }
}

/// Configuration of a client. Settings that cannot work are refused when it is made.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) transport: Arc<TransportConfig>,
    pub(crate) tokens: Option<Arc<dyn TokenStore>>,
    by_version: ClientTls,
}

/// A client's TLS settings for each version, whose sessions must not be mixed up (RFC 9369 §5).
#[derive(Clone, Debug)]
pub(crate) struct ClientTls {
    v1: Arc<rustls::ClientConfig>,
    v2: Arc<rustls::ClientConfig>,
}

impl ClientTls {
    /// Those for connections that begin with `version`.
    pub(crate) fn of(&self, version: Version) -> &Arc<rustls::ClientConfig> {
        match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        }
    }

    fn map(&self, change: impl Fn(&mut rustls::ClientConfig)) -> Self {
        let [v1, v2] = [&self.v1, &self.v2].map(|tls| {
            let mut config = (**tls).clone();
            change(&mut config);
            Arc::new(config)
        });
        Self { v1, v2 }
    }
}

impl ClientConfig {
    /// Combines TLS settings, made by [`tls::client_config`] or with [`tls::crypto_provider`], with transport settings.
    ///
    /// # Errors
    /// [`ConfigError`] if no connection could be established with these settings.
    pub fn new(
        tls: Arc<rustls::ClientConfig>,
        transport: impl Into<Arc<TransportConfig>>,
    ) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        tls::check_client(&tls)?;
        let mut second = (*tls).clone();
        second.resumption = rustls::client::Resumption::disabled();
        let by_version = ClientTls { v1: tls.clone(), v2: Arc::new(second) };
        Ok(Self { tls, transport, tokens: None, by_version })
    }

    /// The TLS settings for each version.
    pub(crate) fn client_tls(&self) -> &ClientTls {
        &self.by_version
    }

    /// Keeps sessions of up to `servers` servers in memory, and resumes each in one later connection, of the same QUIC
    /// version (RFC 8446 §2.2, RFC 9369 §5). Clones share them. 0: none are kept. Without this call, the TLS settings
    /// decide, and sessions of version 2 are not resumed.
    #[must_use]
    pub fn with_sessions(self, servers: usize) -> Self {
        let by_version = self.by_version.map(|tls| tls.resumption = sessions(servers));
        Self { tls: by_version.v1.clone(), by_version, ..self }
    }

    /// Whether to send data before the handshake is complete, in 0-RTT packets, if a resumed session allows it (RFC 9001
    /// §4.6). The application is told by [`Event::EarlyData`](crate::quic::Event::EarlyData); it must then send only what
    /// may be processed twice, as anybody can repeat these packets.
    #[must_use]
    pub fn with_early_data(self, allowed: bool) -> Self {
        let by_version = self.by_version.map(|tls| tls.enable_early_data = allowed);
        Self { tls: by_version.v1.clone(), by_version, ..self }
    }

    /// Keeps the address tokens of servers in `store`, and uses each for one later connection (RFC 9000 §8.1.3). By
    /// default, none are kept.
    #[must_use]
    pub fn with_tokens(self, store: Arc<dyn TokenStore>) -> Self {
        Self { tokens: Some(store), ..self }
    }

    /// Replaces the transport settings.
    ///
    /// # Errors
    /// [`ConfigError`] if they cannot work.
    pub fn with_transport(self, transport: impl Into<Arc<TransportConfig>>) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        Ok(Self { transport, ..self })
    }

    /// The TLS settings.
    pub fn tls(&self) -> &Arc<rustls::ClientConfig> {
        &self.tls
    }

    /// The transport settings.
    pub fn transport(&self) -> &Arc<TransportConfig> {
        &self.transport
    }
}

/// A store for sessions with so many servers.
fn sessions(servers: usize) -> rustls::client::Resumption {
    match servers {
        0 => rustls::client::Resumption::disabled(),
        _ => rustls::client::Resumption::in_memory_sessions(servers),
    }
}

/// Limits on the pool memory that connections with pooled streams may hold, in bytes. `None` selects the default, a
/// fraction of the pool's limit. Buffers that applications take from the pool only count as memory in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Maximum for one connection; a quarter of the pool by default.
    pub connection: Option<usize>,
    /// Maximum for all connections of one peer address (of one /64 prefix in IPv6); half of the pool by default.
    pub address: Option<usize>,
    /// Reserve for connections that hold almost nothing; a sixteenth of the pool by default.
    pub reserve: Option<usize>,
}

impl MemoryConfig {
    /// Maximum for one connection, in a pool of `limit` bytes.
    pub(crate) fn connection(&self, limit: usize) -> usize {
        self.connection.unwrap_or(limit / 4)
    }

    /// Maximum for the connections of one address.
    pub(crate) fn address(&self, limit: usize) -> usize {
        self.address.unwrap_or(limit / 2)
    }

    /// The reserve for newcomers.
    pub(crate) fn reserve(&self, limit: usize) -> usize {
        self.reserve.unwrap_or(limit / 16)
    }
}

/// Settings of an endpoint, the engine of one core.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Seed of the random number generator. The same seed and the same input give the same output.
    pub seed: [u8; 32],
    /// Key of stateless reset tokens (RFC 9000 §10.3.2).
    pub reset_key: Zeroizing<[u8; 32]>,
    /// Key that encrypts the contents of our connection IDs. Load balancers do not need it ([`CidConfig::routed`]).
    pub cid_key: Zeroizing<[u8; 16]>,
    /// Key that seals address tokens (RFC 9000 §8.1.3).
    pub address_key: Zeroizing<[u8; 32]>,
    /// Key that seals session tickets (RFC 8446 §4.6.1).
    pub ticket_key: Zeroizing<[u8; 32]>,
    /// Random bytes shared by all cores of a process, so that processes with the same secret make different connection
    /// IDs (see [`super::CidCodec`]).
    pub epoch: [u8; 16],
    /// The form of connection IDs.
    pub cid: CidConfig,
    /// This core's number, contained in its connection IDs: unique within a process ([`EndpointConfig::for_core`]), and
    /// below 255.
    pub core: u8,
    /// The number of cores of the process, or 0, the default, if it is not known here. Datagrams whose connection ID names
    /// another core below this number have to be handed over to that core ([`Lead::Core`]). IDs of cores that do not
    /// exist were made by an earlier process with the same secret; if the number is known, the core that receives them
    /// answers with stateless resets. [`EndpointConfig::for_core`] sets it.
    ///
    /// [`Lead::Core`]: super::Lead::Core
    pub cores: u8,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of concurrent server handshakes.
    pub max_handshakes: usize,
    /// Maximum number of stateless resets sent per second. The same limit holds for closes in answer to invalid address
    /// tokens, and for Version Negotiation packets.
    pub reset_rate: u32,
    /// When clients have to prove their address before any state is kept for them.
    pub retry: RetryPolicy,
    /// Tokens that clients get for later connections.
    pub new_tokens: NewTokens,
    /// The engine's [`Instant::ZERO`] on a clock shared by all endpoints with the same `address_key`, such as
    /// wall-clock time since 1970. Lifetimes of tokens are counted on that clock. Cores of [`runtime`](crate::runtime)
    /// set this themselves.
    ///
    /// [`Instant::ZERO`]: crate::base::time::Instant::ZERO
    pub time_base: Duration,
    /// How the pool is shared among connections.
    pub memory: MemoryConfig,
    /// Whether to send values that peers have to ignore, so that they and the network between do not come to rely on their
    /// absence: reserved versions (RFC 9000 §6.3) and transport parameters (§18.1), and both values of the fixed bit to
    /// peers that accept them (RFC 9287). True by default. If it is false, packets with a fixed bit of 0 are dropped.
    pub grease: bool,
    /// Who is told what happens to connections, for logs in detail. Nobody by default.
    pub tracer: Option<Arc<dyn Tracer>>,
}

impl EndpointConfig {
    /// Settings of core 0 with all keys derived from `seed`, so that anyone who knows the seed knows the secret.
    /// Otherwise like [`EndpointConfig::from_secret`].
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let (mut secret, mut rest) = ([0; Secret::LEN], [0; 32]);
        rng.fill(&mut secret);
        rng.fill(&mut rest);
        Self::from_secret(&secret.into(), rest)
    }

    /// Settings of core 0 with keys derived from `secret`. `seed` must be random and different in each process.
    /// Connection IDs have 10 bytes; there may be up to 2^20 connections, 10,000 concurrent handshakes and 1,000
    /// stateless resets per second; Retry is used from 1,000 concurrent handshakes on.
    pub fn from_secret(secret: &Secret, seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut config = Self {
            seed: [0; 32],
            reset_key: secret.key("stateless reset"),
            cid_key: secret.key("connection id"),
            address_key: secret.key("address token"),
            ticket_key: secret.key("session ticket"),
            epoch: [0; 16],
            cid: CidConfig::default(),
            core: 0,
            cores: 0,
            max_connections: 1 << 20,
            max_handshakes: 10_000,
            reset_rate: 1000,
            memory: MemoryConfig::default(),
            grease: true,
            tracer: None,
            retry: RetryPolicy::default(),
            new_tokens: NewTokens::default(),
            time_base: Duration::ZERO,
        };
        // The engine's generator needs another seed than the keys, as its output is visible in packets.
        rng.fill(&mut config.seed);
        rng.fill(&mut config.epoch);
        config
    }
}

impl EndpointConfig {
    /// A codec that reads the connection IDs of this endpoint and of all endpoints whose settings differ in the core
    /// only. It is for code that dispatches packets to cores.
    pub fn cid_codec(&self) -> CidCodec {
        CidCodec::new(&self.cid, &self.cid_key, &self.epoch).with_greased_bit(self.grease)
    }

    /// The maker of the endpoint's connection IDs.
    pub(crate) fn id_maker(&self) -> IdMaker {
        IdMaker::new(self.cid_codec(), &self.reset_key, self.core)
    }
}

impl fmt::Debug for EndpointConfig {
    /// Omits keys and seeds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig")
            .field("cid", &self.cid)
            .field("core", &self.core)
            .field("max_connections", &self.max_connections)
            .field("max_handshakes", &self.max_handshakes)
            .field("reset_rate", &self.reset_rate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_follow_from_the_seed_and_not_from_each_other() {
        let secrets = |seed| {
            let EndpointConfig { seed, reset_key, cid_key, address_key, epoch, .. } = EndpointConfig::from_seed(seed);
            let long = [&seed, &*reset_key, &*address_key].map(|key| [&key[..16], &key[16..]]);
            let all = [&long.concat()[..], &[&*cid_key, &epoch]].concat();
            all.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(secrets([7; 32]), secrets([7; 32]));
        let mut all = [secrets([7; 32]), secrets([8; 32])].concat();
        let mut engine = Rng::from_seed(EndpointConfig::from_seed([7; 32]).seed);
        all.extend((0..5).map(|_| {
            let mut shown = vec![0; 16];
            engine.fill(&mut shown);
            shown
        }));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 21);
    }

    #[test]
    fn a_secret_that_outlives_the_process_brings_its_keys_back_and_nothing_else() {
        let [one, two] = [1, 2].map(|seed| EndpointConfig::from_secret(&[7; 32].into(), [seed; 32]));
        assert_eq!((&one.reset_key, &one.cid_key, &one.address_key), (&two.reset_key, &two.cid_key, &two.address_key));
        assert!(one.epoch != two.epoch && one.seed != two.seed);
        let text = format!("{one:?}");
        assert!(!text.contains("key") && !text.contains("seed"), "{text}");
    }
}
