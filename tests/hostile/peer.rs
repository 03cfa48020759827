//! A peer that sends whatever a test wants. It has the real keys: they are made and used by rustls, including its own
//! packet protection, so that it shares nothing with the engine under test.

#[path = "peer_tls.rs"]
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use gannet::base::Side;
use gannet::base::range_set::RangeSet;
use gannet::wire::quic::frame::{EcnCounts, Frame, encode_ack};
use gannet::wire::quic::header::{self, PacketType};
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::varint::Writer;
use gannet::wire::quic::{ConnectionId, StreamId, TransportError, Version as QuicVersion};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection, KeyChange, Keys, PacketKey, Secrets, ServerConnection, Version};
use tls::{CLIENT, SERVER, strange_client};

/// Packet number spaces.
pub const INITIAL: usize = 0;
pub const HANDSHAKE: usize = 1;
pub const DATA: usize = 2;

/// Length of the connection IDs of both sides.
const CID_LEN: usize = 8;

/// Properties of a packet other than its frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Bits to set in the first byte before header protection, and bits to clear.
    pub first: u8,
    pub clear: u8,
    /// Destination ID, instead of the usual one.
    pub dcid: Option<ConnectionId>,
    /// Packet number, instead of the next one.
    pub pn: Option<u64>,
    /// Whether a client's Initial packet is not padded.
    pub unpadded: bool,
    /// Token of an Initial packet.
    pub token: &'static [u8],
    /// Source ID, instead of the peer's.
    pub scid: Option<ConnectionId>,
    /// Whether it is sealed with the 1-RTT key from before the last update.
    pub old_key: bool,
    /// Version; the packet number then follows the source ID.
    pub version: Option<u32>,
}

/// A CONNECTION_CLOSE that the peer received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: TransportError,
    pub application: bool,
    pub frame_type: u64,
}

/// One end of a connection that follows no rules except those of the handshake.
pub struct Peer {
    pub side: Side,
    /// The version of the packets that it sends.
    pub version: QuicVersion,
    pub addr: SocketAddr,
    tls: Connection,
    keys: [Option<Keys>; 3],
    /// Keys of Initial packets of the version that the client began with, if it is another one.
    first_keys: Option<Keys>,
    secrets: Option<Secrets>,
    phase: bool,
    /// Opens what the other end sent in the previous phase, and seals what we did.
    previous: Option<Box<dyn PacketKey>>,
    previous_local: Option<Box<dyn PacketKey>>,
    /// The next packet number of each space.
    pub pn: [u64; 3],
    largest: [Option<u64>; 3],
    /// Number of the last packet read.
    latest: u64,
    /// Packet numbers that arrived.
    pub got: [RangeSet; 3],
    crypto_sent: [u64; 3],
    /// Output of TLS in each space.
    pub said: [Vec<u8>; 3],
    crypto_read: [u64; 3],
    pub local_cid: ConnectionId,
    pub remote_cid: ConnectionId,
    pub original_dcid: ConnectionId,
    /// Whether it gave out IDs that it does not remember.
    pub takes_any_id: bool,
    /// Datagrams that the handshake has to send.
    pub out: Vec<Vec<u8>>,
    pub close: Option<Close>,
    pub handshake_done: bool,
    /// Connection IDs issued by the other end: sequence number and ID.
    pub issued: Vec<(u64, ConnectionId)>,
    /// Bytes of STREAM data received, including retransmissions.
    pub stream_bytes: u64,
    /// Number of packets received.
    pub packets: u64,
    /// Largest packet number of the Data space acknowledged to us.
    pub acked: Option<u64>,
    /// Lengths of datagrams that contained a PATH_RESPONSE, and its data.
    pub path_responses: Vec<(usize, [u8; 8])>,
    /// The same for PATH_CHALLENGE.
    pub path_challenges: Vec<(usize, [u8; 8])>,
    /// Sequence numbers in RETIRE_CONNECTION_ID.
    pub retired: Vec<u64>,
    /// Delays in received ACK frames, with their packet number space.
    pub ack_delays: Vec<(usize, u64)>,
    /// ECN counts of the latest ACK frame of each space.
    pub ecn: [Option<EcnCounts>; 3],
    /// Connection IDs received, with their reset tokens.
    pub tokens: Vec<(ConnectionId, [u8; 16])>,
    /// Destination connection ID of each packet received.
    pub dcids: Vec<ConnectionId>,
    /// Size of the datagram of each packet received.
    pub lens: Vec<usize>,
    /// The largest MAX_DATA, and the largest MAX_STREAMS: bidirectional, unidirectional.
    pub max_data: u64,
    pub max_streams: [u64; 2],
    /// Tokens for later connections.
    pub new_tokens: Vec<Vec<u8>>,
    /// Received resets of streams, with the error code.
    pub resets: Vec<(StreamId, u64)>,
    /// Resets that leave the first bytes reliable: stream, code, final size and reliable size.
    pub resets_at: Vec<(StreamId, u64, u64, u64)>,
    /// Contents of ACK_FREQUENCY frames: sequence number, threshold, delay in microseconds, reordering.
    pub ack_requests: Vec<(u64, u64, u64, u64)>,
    /// Number of IMMEDIATE_ACK frames.
    pub immediate_acks: u64,
    /// Data of received datagrams, each with the number of its packet.
    pub datagrams: Vec<(u64, Vec<u8>)>,
    /// Received frames about streams and credit, in order, each with the number of its packet.
    pub told: Vec<(u64, Told)>,
    /// Versions of the Handshake packets received.
    pub handshake_versions: Vec<QuicVersion>,
    /// Number of packets received with a fixed bit of 0, and of 1.
    pub fixed_bits: [u64; 2],
    /// Received CONNECTION_CLOSE frames, each with its packet number space and reason phrase.
    pub closes: Vec<(usize, Close, Vec<u8>)>,
    /// Packet numbers of ours that were acknowledged.
    pub acked_all: [RangeSet; 3],
    /// Final sizes in RESET_STREAM.
    pub final_sizes: Vec<(StreamId, u64)>,
    /// The CRYPTO data received.
    pub heard: [Vec<u8>; 3],
    /// Number of 0-RTT packets received, none of which is read.
    pub early: u64,
}

/// A frame about streams or credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Offset, length, and whether it is the end.
    Stream(StreamId, u64, u64, bool),
    MaxStreamData(StreamId, u64),
    StopSending(StreamId, u64),
    DataBlocked(u64),
    StreamDataBlocked(StreamId, u64),
    StreamsBlocked(bool, u64),
    Ping,
}

/// Seed of a client that offers no application protocol.
pub const NO_ALPN: u64 = 999;

/// Seed of a client that offers a cipher suite that is not supported, before others.
pub const STRANGE_SUITES: u64 = 998;

/// Transport parameters of a peer that grants plenty of everything.
pub fn generous() -> TransportParameters {
    TransportParameters {
        initial_max_data: 1 << 40,
        initial_max_stream_data_bidi_local: 1 << 40,
        initial_max_stream_data_bidi_remote: 1 << 40,
        initial_max_stream_data_uni: 1 << 40,
        initial_max_streams_bidi: 1000,
        initial_max_streams_uni: 1000,
        active_connection_id_limit: 4,
        ..TransportParameters::default()
    }
}

fn tls_version(version: QuicVersion) -> Version {
    if version == QuicVersion::V1 { Version::V1 } else { Version::V2 }
}

fn initial_keys(version: QuicVersion, dcid: &[u8], side: Side) -> Keys {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
    let side = if side == Side::Client { rustls::Side::Client } else { rustls::Side::Server };
    suite.keys(dcid, side, tls_version(version))
}

fn cid(n: u64) -> ConnectionId {
    ConnectionId::new(&n.to_be_bytes()).unwrap()
}

impl Peer {
    /// A client at `addr`. `params` encodes its transport parameters from the usual ones. Its first packets are in
    /// [`Peer::out`].
    pub fn client(addr: SocketAddr, seed: u64, params: impl FnOnce(TransportParameters) -> Vec<u8>) -> Self {
        Self::client_of(QuicVersion::V1, addr, seed, params)
    }

    /// The same of another version.
    pub fn client_of(
        version: QuicVersion,
        addr: SocketAddr,
        seed: u64,
        params: impl FnOnce(TransportParameters) -> Vec<u8>,
    ) -> Self {
        let local = cid(seed ^ 0xc11e_0000_0000_0000);
        let original = cid(seed ^ 0x0d1d_0000_0000_0000);
        let bytes = params(TransportParameters { initial_source_connection_id: Some(local), ..generous() });
        let name = ServerName::try_from("sim").unwrap();
        let mut config = (**CLIENT).clone();
        if seed == NO_ALPN {
            config.alpn_protocols.clear();
        }
        if seed == STRANGE_SUITES {
            config = strange_client();
        }
        let tls = ClientConnection::new(Arc::new(config), tls_version(version), name, bytes).unwrap();
        let mut this = Self::new(Side::Client, version, addr, tls.into(), local, original, original);
        this.speak();
        this
    }

    /// Lets a client send its further Initial packets as if it had chosen the ID `original`.
    pub fn begin_with(&mut self, original: ConnectionId) {
        self.keys[INITIAL] = Some(initial_keys(self.version, &original, Side::Client));
        (self.original_dcid, self.remote_cid) = (original, original);
    }

    /// A client with these TLS settings.
    #[allow(dead_code, reason = "tests/contract includes this file")]
    pub fn client_with(addr: SocketAddr, seed: u64, config: Arc<rustls::ClientConfig>) -> Self {
        let (local, original) = (cid(seed ^ 0xc11e_0000_0000_0000), cid(seed ^ 0x0d1d_0000_0000_0000));
        let bytes = TransportParameters { initial_source_connection_id: Some(local), ..generous() }.to_bytes();
        let name = ServerName::try_from("sim").unwrap();
        let tls = ClientConnection::new(config, Version::V1, name, bytes).unwrap();
        let mut this = Self::new(Side::Client, QuicVersion::V1, addr, tls.into(), local, original, original);
        this.speak();
        this
    }

    /// TLS settings of clients that resume sessions and send 0-RTT.
    #[allow(dead_code, reason = "tests/contract includes this file")]
    pub fn resuming() -> Arc<rustls::ClientConfig> {
        let mut config = (**CLIENT).clone();
        config.resumption = rustls::client::Resumption::in_memory_sessions(8);
        config.enable_early_data = true;
        Arc::new(config)
    }

    /// A 0-RTT packet.
    #[allow(dead_code, reason = "tests/contract includes this file")]
    pub fn early_packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let keys = self.tls.zero_rtt_keys().expect("0-RTT is possible");
        let pn = self.pn[DATA];
        self.pn[DATA] += 1;
        let mut packet = vec![0; 100];
        let (dcid, scid) = (self.remote_cid, self.local_cid);
        let at = header::encode_long(&mut packet, self.version, PacketType::ZeroRtt, &dcid, &scid, &[], pn, 4).unwrap();
        let length = (4 + payload.len() + 16) as u16;
        packet[at.length_offset..at.length_offset + 2].copy_from_slice(&(0x4000 | length).to_be_bytes());
        let start = at.pn_offset + 4;
        packet.truncate(start);
        packet.extend_from_slice(payload);
        let (head, body) = packet.split_at_mut(start);
        let tag = keys.packet.encrypt_in_place(pn, head, body).unwrap();
        packet.extend_from_slice(tag.as_ref());
        let sample: [u8; 16] = packet[start..start + 16].try_into().unwrap();
        let (first, rest) = packet.split_first_mut().unwrap();
        keys.header.encrypt_in_place(&sample, first, &mut rest[at.pn_offset - 1..at.pn_offset + 3]).unwrap();
        packet
    }

    /// TLS settings of servers that resume sessions; `early` says whether they accept 0-RTT.
    #[allow(dead_code, reason = "tests/contract includes this file")]
    pub fn hospitable(early: bool) -> rustls::ServerConfig {
        let mut config = (**SERVER).clone();
        config.send_tls13_tickets = 2;
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
        config.max_early_data_size = if early { u32::MAX } else { 0 };
        config
    }

    /// A server with these TLS settings for the client that sent `first`.
    #[allow(dead_code, reason = "tests/contract includes this file")]
    pub fn server_on(
        config: rustls::ServerConfig,
        first: &[u8],
        params: impl FnOnce(TransportParameters) -> Vec<u8>,
    ) -> Self {
        let odcid = header::parse(first, CID_LEN).unwrap().dcid;
        let local = cid(0x5e12_e200_0000_0001);
        Self::server_of_with(
            &Arc::new(config),
            QuicVersion::V1,
            super::world::server_addr(),
            first,
            local,
            odcid,
            params,
        )
    }

    /// A server at `addr` for the client that sent `first`, which is not read yet.
    pub fn server(addr: SocketAddr, first: &[u8], params: impl FnOnce(TransportParameters) -> Vec<u8>) -> Self {
        let parsed = header::parse(first, CID_LEN).unwrap();
        assert_eq!(parsed.kind, PacketType::Initial);
        Self::server_with(addr, first, cid(0x5e12_e200_0000_0001), parsed.dcid, params)
    }

    pub fn server_with(
        addr: SocketAddr,
        first: &[u8],
        local: ConnectionId,
        odcid: ConnectionId,
        params: impl FnOnce(TransportParameters) -> Vec<u8>,
    ) -> Self {
        let version = header::parse(first, CID_LEN).unwrap().known_version().unwrap();
        Self::server_of(version, addr, first, local, odcid, params)
    }

    /// The same, which answers in `version` whatever that of `first` is.
    pub fn server_of(
        version: QuicVersion,
        addr: SocketAddr,
        first: &[u8],
        local: ConnectionId,
        odcid: ConnectionId,
        params: impl FnOnce(TransportParameters) -> Vec<u8>,
    ) -> Self {
        Self::server_of_with(&SERVER, version, addr, first, local, odcid, params)
    }

    /// The same with these TLS settings.
    fn server_of_with(
        config: &Arc<rustls::ServerConfig>,
        version: QuicVersion,
        addr: SocketAddr,
        first: &[u8],
        local: ConnectionId,
        odcid: ConnectionId,
        params: impl FnOnce(TransportParameters) -> Vec<u8>,
    ) -> Self {
        let parsed = header::parse(first, CID_LEN).unwrap();
        let bytes = params(TransportParameters {
            original_destination_connection_id: Some(odcid),
            initial_source_connection_id: Some(local),
            ..generous()
        });
        let tls = ServerConnection::new(config.clone(), tls_version(version), bytes).unwrap();
        let mut this = Self::new(Side::Server, version, addr, tls.into(), local, parsed.scid, parsed.dcid);
        let first = parsed.known_version().unwrap();
        if first != version {
            this.first_keys = Some(initial_keys(first, &parsed.dcid, Side::Server));
        }
        this
    }

    fn new(
        side: Side,
        version: QuicVersion,
        addr: SocketAddr,
        tls: Connection,
        local: ConnectionId,
        remote: ConnectionId,
        original: ConnectionId,
    ) -> Self {
        Self {
            side,
            version,
            addr,
            tls,
            keys: [Some(initial_keys(version, &original, side)), None, None],
            first_keys: None,
            secrets: None,
            phase: false,
            previous: None,
            previous_local: None,
            pn: [0; 3],
            largest: [None; 3],
            latest: 0,
            got: Default::default(),
            crypto_sent: [0; 3],
            said: Default::default(),
            crypto_read: [0; 3],
            local_cid: local,
            remote_cid: remote,
            original_dcid: original,
            takes_any_id: false,
            out: Vec::new(),
            close: None,
            handshake_done: false,
            issued: Vec::new(),
            stream_bytes: 0,
            packets: 0,
            acked: None,
            path_responses: Vec::new(),
            path_challenges: Vec::new(),
            retired: Vec::new(),
            ack_delays: Vec::new(),
            ecn: [None; 3],
            tokens: Vec::new(),
            dcids: Vec::new(),
            lens: Vec::new(),
            max_data: 0,
            max_streams: [0; 2],
            new_tokens: Vec::new(),
            resets: Vec::new(),
            resets_at: Vec::new(),
            ack_requests: Vec::new(),
            immediate_acks: 0,
            datagrams: Vec::new(),
            told: Vec::new(),
            handshake_versions: Vec::new(),
            fixed_bits: [0; 2],
            closes: Vec::new(),
            acked_all: Default::default(),
            final_sizes: Vec::new(),
            heard: Default::default(),
            early: 0,
        }
    }

    /// The other end's transport parameters.
    pub fn params(&self) -> TransportParameters {
        TransportParameters::decode(self.transport_parameters(), self.side.peer()).expect("valid parameters")
    }

    /// Whether there are 1-RTT keys.
    pub fn is_connected(&self) -> bool {
        self.keys[DATA].is_some() && !self.tls.is_handshaking()
    }

    /// Whether there are Handshake keys.
    pub fn has_handshake_keys(&self) -> bool {
        self.keys[HANDSHAKE].is_some()
    }

    /// Moves the output of TLS into [`Peer::out`], a packet each.
    fn speak(&mut self) {
        loop {
            let level = self.keys.iter().rposition(Option::is_some).unwrap();
            let mut words = Vec::new();
            let change = self.tls.write_hs(&mut words);
            self.said[level].extend_from_slice(&words);
            for chunk in words.chunks(1000) {
                let offset = self.crypto_sent[level];
                self.crypto_sent[level] += chunk.len() as u64;
                let datagram = self.packet(level, &frames(&[Frame::Crypto { offset, data: chunk }]));
                self.out.push(datagram);
            }
            match change {
                Some(KeyChange::Handshake { keys }) => self.keys[HANDSHAKE] = Some(keys),
                Some(KeyChange::OneRtt { keys, next }) => {
                    self.keys[DATA] = Some(keys);
                    self.secrets = Some(next);
                }
                None if words.is_empty() => return,
                None => {}
            }
        }
    }

    /// Moves the packets that we send to the next key phase, whatever the other end thinks of it.
    pub fn update_keys(&mut self) {
        let next = self.secrets.as_mut().unwrap().next_packet_keys();
        let keys = self.keys[DATA].as_mut().unwrap();
        self.previous_local = Some(std::mem::replace(&mut keys.local.packet, next.local));
        self.previous = Some(std::mem::replace(&mut keys.remote.packet, next.remote));
        self.phase = !self.phase;
    }

    /// A datagram with one packet that carries `payload`; a client's Initial packets are padded.
    pub fn packet(&mut self, space: usize, payload: &[u8]) -> Vec<u8> {
        self.shaped(space, payload, Shape::default())
    }

    /// A datagram with one packet of `shape`.
    pub fn shaped(&mut self, space: usize, payload: &[u8], shape: Shape) -> Vec<u8> {
        let mut payload = payload.to_vec();
        if space == INITIAL && self.side == Side::Client && !shape.unpadded {
            payload.resize(payload.len().max(1162), 0);
        }
        let pn = shape.pn.unwrap_or(self.pn[space]);
        self.pn[space] = pn + 1;
        let dcid = shape.dcid.unwrap_or(self.remote_cid);
        let mut packet = vec![0; 100 + payload.len()];
        let pn_offset = match space {
            INITIAL | HANDSHAKE => {
                let kind = if space == INITIAL { PacketType::Initial } else { PacketType::Handshake };
                let scid = shape.scid.unwrap_or(self.local_cid);
                if let Some(version) = shape.version {
                    let mut w = Writer::new(&mut packet);
                    w.u8(0xc3);
                    w.u32(version);
                    w.u8(dcid.len() as u8);
                    w.bytes(&dcid);
                    w.u8(scid.len() as u8);
                    w.bytes(&scid);
                    let at = w.position();
                    w.u32(pn as u32);
                    at
                } else {
                    let at =
                        header::encode_long(&mut packet, self.version, kind, &dcid, &scid, shape.token, pn, 4).unwrap();
                    let length = (4 + payload.len() + 16) as u16;
                    packet[at.length_offset..at.length_offset + 2].copy_from_slice(&(0x4000 | length).to_be_bytes());
                    at.pn_offset
                }
            }
            _ => header::encode_short(&mut packet, 0x40 | header::key_phase(self.phase != shape.old_key), &dcid, pn, 4)
                .unwrap(),
        };
        packet[0] = packet[0] & !shape.clear | shape.first;
        let start = pn_offset + 4;
        packet.truncate(start);
        packet.extend_from_slice(&payload);
        let keys = &self.keys[space].as_ref().expect("keys of that space").local;
        let (head, body) = packet.split_at_mut(start);
        let old = self.previous_local.as_ref().filter(|_| shape.old_key && space == DATA);
        let tag = old.unwrap_or(&keys.packet).encrypt_in_place(pn, head, body).unwrap();
        packet.extend_from_slice(tag.as_ref());
        let sample: [u8; 16] = packet[start..start + 16].try_into().unwrap();
        let (first, rest) = packet.split_first_mut().unwrap();
        keys.header.encrypt_in_place(&sample, first, &mut rest[pn_offset - 1..pn_offset + 3]).unwrap();
        packet
    }

    /// A server's Initial packet in the version that the client began with, which it answers in another one.
    pub fn first_packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let version = if self.version == QuicVersion::V1 { QuicVersion::V2 } else { QuicVersion::V1 };
        let own = std::mem::replace(&mut self.version, version);
        std::mem::swap(&mut self.keys[INITIAL], &mut self.first_keys);
        let packet = self.packet(INITIAL, payload);
        std::mem::swap(&mut self.keys[INITIAL], &mut self.first_keys);
        self.version = own;
        packet
    }

    /// The other end's transport parameters, as encoded by it.
    pub fn transport_parameters(&self) -> &[u8] {
        self.tls.quic_transport_parameters().expect("they have arrived")
    }

    /// Number of packets that arrived in `space`.
    pub fn received(&self, space: usize) -> u64 {
        self.got[space].iter().map(|range| range.end - range.start).sum()
    }

    /// An ACK of everything that arrived.
    pub fn ack(&self, space: usize) -> Vec<u8> {
        self.ack_with(space, None)
    }

    /// The same with ECN counts.
    pub fn ack_with(&self, space: usize, ecn: Option<EcnCounts>) -> Vec<u8> {
        Self::ack_of(&self.got[space], ecn)
    }

    /// An ACK of these packets.
    pub fn ack_of(received: &RangeSet, ecn: Option<EcnCounts>) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        let mut w = Writer::new(&mut bytes);
        assert!(encode_ack(&mut w, received, 0, ecn, 64) > 0, "something arrived");
        let len = w.position();
        bytes.truncate(len);
        bytes
    }

    /// Treats the last packet read, of the Data space, as lost: it is never acknowledged.
    pub fn refuse(&mut self) {
        let pn = self.latest;
        self.got[DATA].remove(pn..pn + 1);
    }

    /// An ACK of everything up to the largest packet number received, whether it was received or not.
    pub fn optimistic_ack(&self, space: usize) -> Vec<u8> {
        let mut bytes = vec![0x02];
        let mut field = [0; 8];
        let mut w = Writer::new(&mut field);
        w.varint(self.largest[space].expect("something arrived"));
        let len = w.position();
        bytes.extend_from_slice(&field[..len]);
        // Delay 0, one range, down to 0.
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&field[..len]);
        bytes
    }

    /// Reads a datagram of the other end. Panics if a correct engine would not send it.
    pub fn receive(&mut self, datagram: &[u8]) {
        let mut rest = datagram.to_vec();
        while !rest.is_empty() {
            let parsed = header::parse_greased(&rest, self.local_cid.len()).expect("a well-formed header");
            self.dcids.push(parsed.dcid);
            self.lens.push(datagram.len());
            self.fixed_bits[usize::from(rest[0] & 0x40 != 0)] += 1;
            self.handshake_versions.extend(parsed.known_version().filter(|_| parsed.kind == PacketType::Handshake));
            let tail = rest.split_off(parsed.packet_len);
            let mut packet = std::mem::replace(&mut rest, tail);
            if parsed.kind == PacketType::ZeroRtt {
                self.early += 1;
                continue;
            }
            let space = match parsed.kind {
                PacketType::Initial => INITIAL,
                PacketType::Handshake => HANDSHAKE,
                PacketType::Short => DATA,
                other => panic!("unexpected {other:?} packet"),
            };
            // The last are those made up by violations.rs: one byte repeated.
            let ours = [self.local_cid, self.original_dcid].contains(&parsed.dcid);
            let made_up = self.takes_any_id || parsed.dcid.iter().all(|b| *b == parsed.dcid[0]);
            assert!(ours || made_up, "to {:?}", parsed.dcid);
            if parsed.kind != PacketType::Short && self.side == Side::Client {
                assert!(parsed.token.is_empty(), "a server sends no token (RFC 9000 §17.2.2)");
                self.remote_cid = parsed.scid;
            }
            let other = parsed.kind != PacketType::Short && parsed.known_version() != Some(self.version);
            let keys =
                if other { self.first_keys.as_ref().filter(|_| space == INITIAL) } else { self.keys[space].as_ref() };
            let Some(keys) = keys else {
                assert!(!other, "a packet of another version");
                continue;
            };
            let at = parsed.pn_offset;
            let sample: [u8; 16] = packet[at + 4..at + 20].try_into().unwrap();
            let (first, body) = packet.split_first_mut().unwrap();
            keys.remote.header.decrypt_in_place(&sample, first, &mut body[at - 1..at + 3]).unwrap();
            let pn_len = usize::from(packet[0] & 3) + 1;
            let truncated = packet[at..at + pn_len].iter().fold(0, |n, b| n << 8 | u64::from(*b));
            let pn = header::decode_pn(self.largest[space], truncated, pn_len);
            self.largest[space] = self.largest[space].max(Some(pn));
            self.got[space].insert(pn..pn + 1);
            self.latest = pn;
            let reserved = if packet[0] & 0x80 != 0 { 0x0c } else { 0x18 };
            assert_eq!(packet[0] & reserved, 0);
            let (head, body) = packet.split_at_mut(at + pn_len);
            let old = space == DATA && (head[0] & 0x04 != 0) != self.phase;
            let key = self.previous.as_ref().filter(|_| old).unwrap_or(&keys.remote.packet);
            let plain = key.decrypt_in_place(pn, head, body).expect("authentic").to_vec();
            self.packets += 1;
            self.read_frames(space, parsed.kind, &plain, datagram.len());
        }
    }

    fn read_frames(&mut self, space: usize, kind: PacketType, mut plain: &[u8], datagram: usize) {
        assert!(!plain.is_empty());
        while !plain.is_empty() {
            let (frame, used) = Frame::decode(plain).expect("a well-formed frame");
            plain = &plain[used..];
            assert!(frame.allowed_in(kind), "{frame:?} in a packet of type {kind:?}");
            match frame {
                Frame::Stream(header) => {
                    let n = header.len.unwrap_or(plain.len() as u64) as usize;
                    self.stream_bytes += n as u64;
                    self.tell(Told::Stream(header.id, header.offset, n as u64, header.fin));
                    plain = &plain[n..];
                }
                Frame::Datagram { len } => {
                    let (data, rest) = plain.split_at(len.unwrap_or(plain.len() as u64) as usize);
                    self.datagrams.push((self.latest, data.to_vec()));
                    plain = rest;
                }
                Frame::Crypto { offset, data } => self.on_crypto(space, offset, data),
                Frame::ConnectionClose { code, frame_type, reason } => {
                    let close = Close { code: TransportError(code), application: false, frame_type };
                    self.closes.push((space, close.clone(), reason.to_vec()));
                    self.close = Some(close);
                }
                Frame::ApplicationClose { code, reason } => {
                    let close = Close { code: TransportError(code), application: true, frame_type: 0 };
                    self.closes.push((space, close.clone(), reason.to_vec()));
                    self.close = Some(close);
                }
                Frame::MaxData(n) => self.max_data = self.max_data.max(n),
                Frame::MaxStreams { bidi, max } => {
                    let m = &mut self.max_streams[usize::from(!bidi)];
                    *m = (*m).max(max);
                }
                Frame::ResetStream { id, code, final_size } => {
                    self.resets.push((id, code));
                    self.final_sizes.push((id, final_size));
                }
                Frame::ResetStreamAt { id, code, final_size, reliable_size } => {
                    self.resets_at.push((id, code, final_size, reliable_size));
                }
                Frame::AckFrequency { seq, threshold, max_delay, reordering } => {
                    self.ack_requests.push((seq, threshold, max_delay, reordering));
                }
                Frame::ImmediateAck => self.immediate_acks += 1,
                Frame::MaxStreamData { id, max } => self.tell(Told::MaxStreamData(id, max)),
                Frame::StopSending { id, code } => self.tell(Told::StopSending(id, code)),
                Frame::DataBlocked(limit) => self.tell(Told::DataBlocked(limit)),
                Frame::StreamDataBlocked { id, limit } => self.tell(Told::StreamDataBlocked(id, limit)),
                Frame::StreamsBlocked { bidi, limit } => self.tell(Told::StreamsBlocked(bidi, limit)),
                Frame::Ping => self.tell(Told::Ping),
                Frame::HandshakeDone => self.handshake_done = true,
                Frame::NewConnectionId { seq, cid, reset_token, .. } => {
                    self.issued.push((seq, cid));
                    self.tokens.push((cid, reset_token));
                }
                Frame::RetireConnectionId { seq } => self.retired.push(seq),
                Frame::Ack(ack) => {
                    self.ack_delays.push((space, ack.delay));
                    self.ecn[space] = ack.ecn;
                    for range in ack.ranges() {
                        self.acked_all[space].insert(*range.start()..range.end() + 1);
                    }
                    if space == DATA {
                        self.acked = self.acked.max(Some(ack.largest));
                    }
                }
                Frame::NewToken { token } => self.new_tokens.push(token.to_vec()),
                Frame::PathResponse(data) => self.path_responses.push((datagram, data)),
                Frame::PathChallenge(data) => self.path_challenges.push((datagram, data)),
                _ => {}
            }
        }
    }

    /// The largest MAX_STREAM_DATA for a stream.
    pub fn stream_limit(&self, id: StreamId) -> u64 {
        let limit = |told: &(u64, Told)| match told.1 {
            Told::MaxStreamData(of, max) if of == id => Some(max),
            _ => None,
        };
        self.told.iter().filter_map(limit).max().unwrap_or(0)
    }

    fn tell(&mut self, told: Told) {
        self.told.push((self.packets, told));
    }

    /// Bytes arrive in order: the network of these tests does not reorder, and retransmissions are skipped.
    fn on_crypto(&mut self, space: usize, offset: u64, data: &[u8]) {
        let read = self.crypto_read[space];
        assert!(offset <= read, "a gap in the handshake");
        let Some(new) = data.get((read - offset) as usize..).filter(|new| !new.is_empty()) else { return };
        self.crypto_read[space] += new.len() as u64;
        self.heard[space].extend_from_slice(new);
        self.tls.read_hs(new).expect("TLS");
        self.speak();
    }
}

/// The encoded frames, one after the other. STREAM frames come without data.
pub fn frames(list: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; list.iter().map(Frame::encoded_len).sum()];
    let mut w = Writer::new(&mut bytes);
    list.iter().for_each(|frame| frame.encode(&mut w));
    bytes
}
