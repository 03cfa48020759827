//! Configuration of endpoints and connections.

mod check;

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::base::rng::Rng;
use crate::base::time::Duration;
use crate::mem::PinnedBuf;
use crate::quic::cid::{CidCodec, CidConfig, IdMaker};
use crate::quic::config_error::ConfigError;
use crate::quic::secret::Secret;
use crate::quic::token::RetryPolicy;
use crate::quic::{StreamId, tls};

/// Which congestion controller a connection runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionAlgorithm {
    /// RFC 9002 §7.
    NewReno,
    /// CUBIC (RFC 8312bis) with HyStart++ slow start exit.
    #[default]
    Cubic,
}

/// Gives receive buffers to streams that the peer opens.
///
/// Here, each stream gets one buffer out of a pool; nothing else is allocated for it:
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
    /// Stream window that the transport parameters announce for such streams, in bytes.
    /// [`BufferProvider::provide`] must then give at least that many bytes.
    fn initial_window(&self) -> u64;
    /// Calls `give` with each buffer for the stream that the peer has just opened, in the order in which they are to be
    /// filled. Without any the stream falls back to pooled chunks. A buffer that is empty, or that would end beyond
    /// 2^62-1, is dropped.
    fn provide(&self, stream: StreamId, give: &mut dyn FnMut(PinnedBuf));
}

impl fmt::Debug for dyn BufferProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferProvider").field("initial_window", &self.initial_window()).finish()
    }
}

/// Per-connection transport settings, shared by many connections.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Idle timeout announced to the peer, in whole milliseconds; zero turns it off (RFC 9000 §10.1).
    pub max_idle_timeout: Duration,
    /// The handshake must finish within this time (at least 1 ms).
    pub handshake_timeout: Duration,
    /// Connection flow-control window, bytes. Grows with what the application consumes or provides.
    pub max_data: u64,
    /// Initial window of bidirectional streams that we open. 0: the window opens with provided buffers.
    pub stream_window_bidi_local: u64,
    /// Initial (and pooled sliding) window of bidirectional streams that the peer opens.
    pub stream_window_bidi_remote: u64,
    /// The same for the peer's unidirectional streams.
    pub stream_window_uni: u64,
    /// Bidirectional streams the peer may have open at a time.
    pub max_streams_bidi: u64,
    /// Unidirectional streams the peer may have open at a time.
    pub max_streams_uni: u64,
    /// Raise `ReceiveBufferLow` when less than this many provided bytes are unfilled, and less than half of all that were
    /// provided: so it is not raised for a buffer that has just been provided, however small.
    pub receive_low_water: u64,
    /// Bytes that may be queued for sending on one stream before `send` answers `Blocked`.
    pub send_budget: u64,
    /// Which congestion controller.
    pub congestion: CongestionAlgorithm,
    /// Spread packets over the round trip.
    pub pacing: bool,
    /// Assumed round-trip time before the first sample (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Longest time an acknowledgement is held back, less than 2^14 ms.
    pub max_ack_delay: Duration,
    /// Acknowledge at least every this many ack-eliciting packets (at least 1).
    pub ack_frequency: u32,
    /// Largest UDP payload to use once the path has been probed to carry it (bytes, at least 1200). It is also what the
    /// peer is told that we take.
    pub max_udp_payload: u16,
    /// The same over IPv6, whose headers take 20 bytes more; `None` means as over IPv4.
    pub max_udp_payload_v6: Option<u16>,
    /// Packets to seal with one key before it is updated, unless its cipher requires an earlier update: AES-GCM after
    /// 2^22 packets (RFC 9001 §6.6).
    pub packets_per_key: u64,
    /// Send a PING when nothing was heard for this long. A peer that is gone is noticed one idle timeout after that.
    ///
    /// A slow application at either end does not need this: whichever side waits for credit, or owes some, keeps the
    /// connection alive. It is for connections that wait for something else, such as an answer that takes long.
    pub keep_alive: Option<Duration>,
    /// Buffers for peer-opened streams.
    pub provider: Option<Arc<dyn BufferProvider>>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            max_idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_data: 64 << 20,
            stream_window_bidi_local: 1 << 20,
            stream_window_bidi_remote: 1 << 20,
            stream_window_uni: 1 << 20,
            max_streams_bidi: 100,
            max_streams_uni: 100,
            receive_low_water: 1 << 20,
            send_budget: 16 << 20,
            congestion: CongestionAlgorithm::default(),
            pacing: true,
            initial_rtt: Duration::from_millis(333),
            max_ack_delay: Duration::from_millis(25),
            ack_frequency: 2,
            max_udp_payload: 1472,
            max_udp_payload_v6: None,
            packets_per_key: u64::MAX,
            keep_alive: None,
            provider: None,
        }
    }
}

/// What a server endpoint accepts connections with. Settings that cannot work are refused when it is made.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) transport: Arc<TransportConfig>,
}

impl ServerConfig {
    /// Settings of TLS, made by [`tls::server_config`] or with [`tls::crypto_provider`], and of the transport.
    ///
    /// # Errors
    /// [`ConfigError`] when connections could not be accepted with them, or peers would refuse them.
    pub fn new(
        tls: Arc<rustls::ServerConfig>,
        transport: impl Into<Arc<TransportConfig>>,
    ) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        tls::check_server(&tls)?;
        Ok(Self { tls, transport })
    }

    /// Settings of TLS.
    pub fn tls(&self) -> &Arc<rustls::ServerConfig> {
        &self.tls
    }

    /// Settings of the transport.
    pub fn transport(&self) -> &Arc<TransportConfig> {
        &self.transport
    }
}

/// What a client connects with. Settings that cannot work are refused when it is made.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) transport: Arc<TransportConfig>,
}

impl ClientConfig {
    /// Settings of TLS, made by [`tls::client_config`] or with [`tls::crypto_provider`], and of the transport.
    ///
    /// # Errors
    /// [`ConfigError`] when nothing could be reached with them.
    pub fn new(
        tls: Arc<rustls::ClientConfig>,
        transport: impl Into<Arc<TransportConfig>>,
    ) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        tls::check_client(&tls)?;
        Ok(Self { tls, transport })
    }

    /// The same with other settings of the transport.
    ///
    /// # Errors
    /// [`ConfigError`] when these cannot work.
    pub fn with_transport(self, transport: impl Into<Arc<TransportConfig>>) -> Result<Self, ConfigError> {
        let transport = transport.into();
        transport.validate()?;
        Ok(Self { transport, ..self })
    }

    /// Settings of TLS.
    pub fn tls(&self) -> &Arc<rustls::ClientConfig> {
        &self.tls
    }

    /// Settings of the transport.
    pub fn transport(&self) -> &Arc<TransportConfig> {
        &self.transport
    }
}

/// How an endpoint's pool is shared among connections whose streams are received into its chunks, in bytes. `None`
/// means the default, a fraction of the pool's limit. Buffers that applications take from the pool only count as memory
/// in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Most that one connection may hold; by default a quarter of the pool.
    pub connection: Option<usize>,
    /// Most that all connections of one address (IPv6: of one /64 prefix) may hold; by default half of the pool.
    pub address: Option<usize>,
    /// Reserved for connections that hold next to nothing; by default a sixteenth of the pool.
    pub reserve: Option<usize>,
}

impl MemoryConfig {
    /// What one connection may hold of a pool of `limit` bytes.
    pub(crate) fn connection(&self, limit: usize) -> usize {
        self.connection.unwrap_or(limit / 4)
    }

    /// What the connections of one address may hold of it.
    pub(crate) fn address(&self, limit: usize) -> usize {
        self.address.unwrap_or(limit / 2)
    }

    /// What is kept for newcomers.
    pub(crate) fn reserve(&self, limit: usize) -> usize {
        self.reserve.unwrap_or(limit / 16)
    }
}

/// Settings of one endpoint, which is one core's engine.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Seeds every random choice; the same seed and the same input give the same output.
    pub seed: [u8; 32],
    /// Key of stateless reset tokens (RFC 9000 §10.3.2).
    pub reset_key: Zeroizing<[u8; 32]>,
    /// Key that encrypts what our connection IDs carry.
    pub cid_key: Zeroizing<[u8; 16]>,
    /// Key that seals address tokens (RFC 9000 §8.1.3).
    pub address_key: Zeroizing<[u8; 32]>,
    /// Random, and the same for all cores of a process: keeps processes with the same secret from making the same
    /// connection IDs (see [`super::CidCodec`]).
    pub epoch: [u8; 16],
    /// The form of connection IDs.
    pub cid: CidConfig,
    /// This core's number, carried in its connection IDs. Two cores of a process must not have the same.
    pub core: u8,
    /// Upper limit of connections.
    pub max_connections: usize,
    /// Upper limit of server handshakes in flight.
    pub max_handshakes: usize,
    /// Most stateless resets to send per second. As many closes are sent for bad address tokens.
    pub reset_rate: u32,
    /// When clients have to prove their address before anything is stored for them.
    pub retry: RetryPolicy,
    /// The engine's [`Instant::ZERO`] on a clock that all endpoints with the same `address_key` share, such as
    /// wall-clock time since 1970. Tokens are valid for 60 seconds of that clock. A core of [`runtime`](crate::runtime)
    /// sets this by itself.
    ///
    /// [`Instant::ZERO`]: crate::base::time::Instant::ZERO
    pub time_base: Duration,
    /// How its pool is shared among connections.
    pub memory: MemoryConfig,
}

impl EndpointConfig {
    /// The settings of core 0 that follow from `seed`, the secret as well: whoever knows the seed knows it. Otherwise
    /// like
    /// [`EndpointConfig::from_secret`].
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let (mut secret, mut rest) = ([0; Secret::LEN], [0; 32]);
        rng.fill(&mut secret);
        rng.fill(&mut rest);
        Self::from_secret(&secret.into(), rest)
    }

    /// The settings of core 0 with the keys that follow from `secret`. `seed` is random, and another in each process.
    /// Connection IDs of 10 bytes, up to 2^20 connections and 10,000 handshakes at a time, 1,000 stateless resets a
    /// second, Retry from 1,000 handshakes in flight on.
    pub fn from_secret(secret: &Secret, seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut config = Self {
            seed: [0; 32],
            reset_key: secret.key("stateless reset"),
            cid_key: secret.key("connection id"),
            address_key: secret.key("address token"),
            epoch: [0; 16],
            cid: CidConfig::default(),
            core: 0,
            max_connections: 1 << 20,
            max_handshakes: 10_000,
            reset_rate: 1000,
            memory: MemoryConfig::default(),
            retry: RetryPolicy::default(),
            time_base: Duration::ZERO,
        };
        // The engine's own numbers must come from another seed: they can be seen in packets.
        rng.fill(&mut config.seed);
        rng.fill(&mut config.epoch);
        config
    }
}

impl EndpointConfig {
    /// A codec that reads the connection IDs of this endpoint, and of all whose settings differ only in the core: for
    /// code that hands packets to the core they belong to.
    pub fn cid_codec(&self) -> CidCodec {
        CidCodec::new(&self.cid, &self.cid_key, &self.epoch)
    }

    /// What makes the IDs of the endpoint's connections.
    pub(crate) fn id_maker(&self) -> IdMaker {
        IdMaker::new(self.cid_codec(), &self.reset_key, self.core)
    }
}

impl fmt::Debug for EndpointConfig {
    /// Leaves keys and seeds out.
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
