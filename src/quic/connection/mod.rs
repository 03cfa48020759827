//! One connection: its parts (spaces, recovery, streams, credit, IDs, path, TLS) and their coordination.
//!
//! The parts never see the connection: each handler takes what it needs from a part and applies the result.

mod ack_frequency;
mod acked;
mod api;
mod armed;
mod burst;
mod challenges;
mod closing;
mod counts;
mod datagrams;
mod early;
mod fill;
mod frames;
mod handshake;
mod handshake_ids;
mod keys;
mod last_words;
mod marks;
mod migrate;
mod notify;
mod packet;
mod path;
mod paths;
mod payload;
mod peer;
mod receive;
mod resets;
mod run;
mod scratch;
mod sent;
mod timers;
mod tokens;
mod tracing;
mod transmit;
mod versions;
mod waiting;
mod windows;
mod zero_rtt;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::crypto::{self, DirectionKeys, Keys};
use crate::quic::ack_frequency::{AckFrequency, AckRule};
use crate::quic::cid::{IdMaker, LocalCids, RemoteCids, ResetToken};
use crate::quic::config::TransportConfig;
use crate::quic::datagram::Datagrams;
use crate::quic::event::{ConnId, Event};
use crate::quic::fixed_bit::FixedBit;
use crate::quic::flow::{RecvCredit, SendCredit};
use crate::quic::memory::{Account, Memory};
use crate::quic::path::{Ecn, Path, Paths, Spin};
use crate::quic::recovery::{Context, Recovery, SpaceId};
use crate::quic::space::Space;
use crate::quic::stats::{ConnStats, EndpointStats};
use crate::quic::stream::{Streams, Windows};
use crate::quic::tls::{TlsInfo, TlsSession};
use crate::quic::window::Intake;
use crate::wire::quic::{ConnectionId, Version, varint};

pub use api::{
    Conn, DatagramError, DatagramErrorKind, OpenError, ProvideError, ProvideErrorKind, SendError, SendErrorKind,
    StreamError,
};
pub(crate) use armed::Armed;
pub(crate) use closing::Fault;
use closing::State;
use handshake_ids::HandshakeIds;
use keys::OneRtt;
pub use migrate::MigrateError;
pub(crate) use path::Route;
pub use path::{TooBig, Undelivered};
use peer::PeerLimits;
pub use receive::RxMeta;
pub(crate) use run::Incoming;
pub(crate) use scratch::Scratch;
use sent::SentFrames;
use tokens::Keeps;
pub use transmit::{Slots, Transmit};
use versions::Opening;
use waiting::Waiting;
use zero_rtt::ZeroRtt;

/// Consecutive probe timeouts that suggest that packets no longer arrive. A single one is often due to a lost packet.
const DOUBTFUL_PTOS: u32 = 2;

/// What is known about the path to a peer, for the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStanding {
    /// Whether the peer's address is validated (RFC 9000 §8.1), or we initiated the connection.
    pub validated: bool,
    /// When it last acknowledged a packet for the first time.
    pub progress: Option<Instant>,
}

/// Parts of the endpoint that a connection borrows while it works.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) memory: &'a mut Memory,
    pub(crate) ids: &'a IdMaker,
    pub(crate) stats: &'a mut EndpointStats,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) rng: &'a mut Rng,
}

/// Parameters of a new connection.
pub(crate) struct Birth {
    pub(crate) id: ConnId,
    pub(crate) side: Side,
    /// Version of the client's first Initial packet.
    pub(crate) version: Version,
    pub(crate) config: Arc<TransportConfig>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The Destination Connection ID of the client's first Initial packet.
    pub(crate) original_dcid: ConnectionId,
    /// On a server: the ID of the Retry that the client followed, which validates its address.
    pub(crate) retry_scid: Option<ConnectionId>,
    /// On a server: whether the client sent a valid token, of a Retry packet or of an earlier connection.
    pub(crate) with_token: bool,
    /// The peer's connection ID (of a client, initially `original_dcid`).
    pub(crate) remote_cid: ConnectionId,
    /// The initial connection window in bytes.
    pub(crate) max_data: u64,
    /// The spin bit of the first path.
    pub(crate) spin: Spin,
    /// The seed of congestion control.
    pub(crate) seed: u64,
}

#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnId,
    side: Side,
    /// The version in use.
    version: Version,
    /// What is needed for the choice of the version, until the handshake is complete.
    opening: Option<Box<Opening>>,
    /// The fixed bit of packets to send.
    fixed_bit: FixedBit,
    config: Arc<TransportConfig>,
    state: State,
    pub(crate) events: VecDeque<Event>,

    /// `None` once no longer needed.
    tls: Option<Box<TlsSession>>,
    /// 0-RTT, if it was possible.
    early: Option<Box<ZeroRtt>>,
    /// The negotiated application protocol.
    alpn: Box<[u8]>,
    /// What TLS negotiated, until the application has seen it.
    tls_info: Option<Arc<TlsInfo>>,
    spaces: [Space; 3],
    one_rtt: Option<Box<OneRtt>>,
    /// Whether there are Handshake keys, even while they are lent to the packet being read.
    has_handshake_keys: bool,
    /// Whether the handshake is complete, so that 1-RTT data may be sent.
    complete: bool,
    /// Whether the handshake is confirmed (RFC 9001 §4.1.2).
    confirmed: bool,
    /// Reports of undelivered handshake packets that a client has received: a bit for each kind of [`Undelivered`].
    undelivered: u8,
    /// Whether memory for the handshake was freed.
    trimmed: bool,
    handshake_done_due: bool,
    /// Number of NEW_TOKEN frames to send.
    new_tokens_due: u8,
    /// On a server: whether the client sent a valid token.
    with_token: bool,
    /// False once a client has received a Retry or a Handshake packet, after which it accepts no (other) Retry.
    retry_allowed: bool,
    /// Until the handshake is over.
    handshake_ids: Option<Box<HandshakeIds>>,
    /// On a client: where tokens for later connections are kept.
    keeps: Option<Box<Keeps>>,
    peer: PeerLimits,

    recovery: Recovery<SentFrames>,
    /// The next packet number of the Data space to skip; 0 until one is chosen.
    skip_at: u64,
    /// The path in use.
    path: Path,
    /// Other paths and their validation, if there are any.
    paths: Option<Box<Paths>>,
    /// Whether a challenge, or an answer to one, may have to be sent.
    path_work: bool,
    /// Whether a challenge was ever sent.
    challenged: bool,
    /// Whether the last packet received contained frames other than probing frames (RFC 9000 §9.1).
    non_probing: bool,
    /// Number of changes of the path.
    moves: u32,
    local_cids: LocalCids,
    remote_cids: RemoteCids,
    /// The peer's reset token as registered with the endpoint.
    reset_token: Option<ResetToken>,
    /// The route of packets as registered with the endpoint.
    route: Option<Route>,
    streams: Streams,
    send_credit: SendCredit,
    recv_credit: RecvCredit,
    /// What is taken in within a round trip, once there is enough of it.
    intake: Option<Box<Intake>>,
    /// The account for pool memory, if any was ever used.
    account: Option<Box<Account>>,
    /// Present once the connection uses them.
    datagrams: Option<Box<Datagrams>>,
    /// When packets of the Data space are acknowledged.
    ack_rule: AckRule,
    /// Present once either side has asked for another frequency, or may.
    ack_frequency: Option<Box<AckFrequency>>,

    born: Instant,
    idle_deadline: Option<Instant>,
    /// When the idle timer was last restarted.
    idle_reset_at: Option<Instant>,
    keep_alive_at: Option<Instant>,
    /// How often a client has asked whether its server still reaches it since the latest data, and how much had come then.
    calls: u8,
    called_at: u32,
    ping_due: bool,
    /// Whether an ack-eliciting packet was sent since the last packet was received (RFC 9000 §10.1).
    eliciting_since_receive: bool,
    pacing_until: Option<Instant>,
    /// Number of consecutive 1-RTT packets sent that are not ack-eliciting.
    bare_packets: u32,
    stats: ConnStats,
    /// Largest 1-RTT packet acknowledged by this datagram, for the keys.
    key_ack: Option<u64>,
    /// Number of packets that failed authentication with any keys.
    forged: u64,
    /// Packets that arrived before their keys, if any.
    waiting: Option<Box<Waiting>>,

    /// When its deadlines were last handled; none may remain at or before that time.
    #[cfg(debug_assertions)]
    pub(crate) timed_out_at: Option<Instant>,
    /// The connection's entries in the endpoint's timer wheel.
    pub(crate) armed: Armed,
    /// Whether the endpoint knows that it is draining.
    pub(crate) drains: bool,
    /// Whether the endpoint knows that it is closing or draining.
    pub(crate) ended: bool,
    /// Whether it is in the endpoint's transmit queue.
    pub(crate) queued: bool,
    /// Whether it is in the endpoint's event queue.
    pub(crate) has_events: bool,
    /// Whether nothing but stream data is to be sent. Any other access through the endpoint's table clears it.
    pub(crate) steady: bool,
    /// Whether it is traced.
    traced: bool,
    /// Whether the peer has delayed acknowledgements by a considerable part of a round trip.
    slow_acks: bool,
}

impl Connection {
    /// `sender` are the keys of the peer's Initial packets, if they are already derived.
    pub(crate) fn new(birth: &Birth, now: Instant, sender: Option<DirectionKeys>) -> Self {
        let config = birth.config.clone();
        let recovery = Recovery::new(&path::recovery_config(&config, birth.seed), now);
        let windows = Windows {
            bidi_local: config.stream_window_bidi_local,
            bidi_remote: config.peer_window(config.stream_window_bidi_remote),
            uni: config.peer_window(config.stream_window_uni),
        };
        let dcid = birth.retry_scid.unwrap_or(birth.original_dcid);
        let initial = match sender {
            Some(remote) => Keys { local: crypto::initial_direction(birth.version, &dcid, birth.side), remote },
            None => crypto::initial_keys(birth.version, &dcid, birth.side),
        };
        let mut spaces = <[Space; 3]>::default();
        spaces[SpaceId::Initial.index()].keys = Some(Box::new(initial));
        Self {
            id: birth.id,
            side: birth.side,
            version: birth.version,
            opening: Some(Box::new(Opening::new(birth.side, birth.version))),
            fixed_bit: FixedBit::default(),
            state: State::Active,
            events: VecDeque::new(),
            tls: None,
            early: None,
            alpn: Box::default(),
            tls_info: None,
            spaces,
            one_rtt: None,
            has_handshake_keys: false,
            complete: false,
            confirmed: false,
            undelivered: 0,
            trimmed: false,
            handshake_done_due: false,
            new_tokens_due: 0,
            with_token: birth.with_token,
            retry_allowed: birth.side == Side::Client,
            handshake_ids: Some(Box::new(HandshakeIds::of(birth))),
            keeps: None,
            peer: PeerLimits::default(),
            recovery,
            skip_at: 0,
            // A server has yet to validate the client's address, unless a token did (RFC 9000 §8.1).
            path: Path::new(
                birth.local,
                birth.remote,
                birth.side == Side::Client || birth.with_token,
                config.max_udp_payload_on(birth.remote),
                Ecn::new(config.ecn),
                birth.spin,
            ),
            paths: None,
            path_work: false,
            challenged: false,
            non_probing: false,
            moves: 0,
            local_cids: LocalCids::new(),
            remote_cids: RemoteCids::new(birth.remote_cid),
            reset_token: None,
            route: None,
            streams: Streams::new(birth.side, windows, config.max_streams_bidi, config.max_streams_uni),
            send_credit: SendCredit::new(0),
            recv_credit: RecvCredit::new(birth.max_data),
            intake: None,
            account: None,
            datagrams: None,
            ack_rule: AckRule::of(&config),
            ack_frequency: None,
            born: now,
            idle_deadline: None,
            idle_reset_at: None,
            keep_alive_at: None,
            calls: 0,
            called_at: 0,
            ping_due: false,
            eliciting_since_receive: false,
            pacing_until: None,
            bare_packets: 0,
            stats: ConnStats::default(),
            key_ack: None,
            forged: 0,
            waiting: None,
            #[cfg(debug_assertions)]
            timed_out_at: None,
            armed: Armed::default(),
            drains: false,
            ended: false,
            queued: false,
            has_events: false,
            steady: false,
            slow_acks: false,
            traced: false,
            config,
        }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.path.remote
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        !self.complete
    }

    /// What is known about the path to the peer.
    pub(crate) fn standing(&self) -> PeerStanding {
        PeerStanding { validated: self.path.is_validated(), progress: self.recovery.rtt().last_sample() }
    }

    /// Whether a probe timeout that has just expired gives reason to doubt the path to the peer: it is not the first in
    /// a row, and the peer was validated or we initiated the connection.
    pub(crate) fn doubts_path(&self, ptos_before: u32) -> bool {
        let ptos = self.recovery.pto_count();
        ptos > ptos_before && ptos >= DOUBTFUL_PTOS && self.path.is_validated()
    }

    /// Notes that packets sent at `now` wait on this host.
    pub(crate) fn on_held(&mut self, now: Instant) {
        self.recovery.on_held(now);
    }

    pub(crate) fn pto_count(&self) -> u32 {
        self.recovery.pto_count()
    }

    /// Whether the client sent a valid token.
    pub(crate) fn came_with_token(&self) -> bool {
        self.with_token
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The version in use.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Whether packets to our ID with this sequence number are accepted.
    #[inline]
    pub(crate) fn accepts_sequence(&self, sequence: u16, now: Instant) -> bool {
        self.local_cids.accepts(sequence, now)
    }

    /// Our connection ID during the handshake.
    fn handshake_cid(&self, ids: &IdMaker) -> ConnectionId {
        ids.cid(self.id, LocalCids::HANDSHAKE)
    }

    /// Bytes of pool memory that its streams and datagrams hold.
    pub(crate) fn held(&self) -> usize {
        self.streams.held() + self.datagrams.as_ref().map_or(0, |datagrams| datagrams.recv.held())
    }

    fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn space(&mut self, id: SpaceId) -> &mut Space {
        &mut self.spaces[id.index()]
    }

    /// State of the connection that loss recovery depends on (RFC 9002 Appendix A).
    fn context(&self) -> Context {
        Context {
            handshake_confirmed: self.confirmed,
            peer_max_ack_delay: self.peer_max_ack_delay(),
            has_handshake_keys: self.has_handshake_keys,
            peer_completed_address_validation: self.side == Side::Server
                || self.confirmed
                || self.recovery.largest_acked(SpaceId::Handshake).is_some(),
            at_amplification_limit: self.at_amplification_limit(),
        }
    }

    /// Whether the client's address must be validated before more is sent to it (RFC 9000 §8.1, §9.3.1). Only whole
    /// datagrams are sent; smaller remainders of the budget are not used.
    fn at_amplification_limit(&self) -> bool {
        self.path.budget() < u64::from(self.path.mtu.current())
    }

    fn peer_max_ack_delay(&self) -> Duration {
        Duration::from_micros(self.peer.max_ack_delay)
    }

    fn pto(&self) -> Duration {
        self.recovery.pto_interval(&self.context(), SpaceId::Data)
    }
}

impl TransportConfig {
    /// Largest UDP payload on a path to `remote`, in bytes.
    fn max_udp_payload_on(&self, remote: SocketAddr) -> u16 {
        self.max_udp_payload_v6.filter(|_| remote.is_ipv6()).unwrap_or(self.max_udp_payload)
    }

    /// Window of streams that the peer opens: the provider's, if there is one.
    fn peer_window(&self, pooled: u64) -> u64 {
        self.provider.as_ref().map_or(pooled, |p| p.initial_window().min(varint::MAX))
    }
}
