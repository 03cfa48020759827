//! From a datagram to frames: header protection, authentication, and parsing of the payload (RFC 9000 §12.2, RFC 9001
//! §5).
//!
//! A packet is authenticated as a whole before anything is decrypted; `payload` then reads its frames.

use std::net::SocketAddr;

use crate::base::Side;
use crate::base::time::Duration;
use crate::crypto::{DirectionKeys, HeadRoom, Opened, PacketKey};
use crate::quic::ack_frequency::AckRule;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::keys::{Generation, OneRtt};
use crate::quic::connection::{Connection, Cx};
use crate::quic::path::MIN_MTU;
use crate::quic::recovery::SpaceId;
use crate::quic::stats::DropReason;
use crate::wire::quic::header::{self, PacketType, Parsed, ShortHeader};
use crate::wire::quic::{ConnectionId, TransportError};

/// The ECN codepoint "congestion experienced" (RFC 3168 §5).
pub(super) const ECN_CE: u8 = 0b11;

/// What covers a packet's header (RFC 9001 §5.4.1).
pub(super) type Mask = [u8; 5];

/// Source and destination of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMeta {
    /// The local address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// ECN codepoint of the IP header.
    pub ecn: u8,
}

/// What is known of a packet before its frames are read.
pub(super) struct Packet<'a> {
    pub(super) space: SpaceId,
    pub(super) kind: PacketType,
    pub(super) pn: u64,
    pub(super) dcid: &'a [u8],
}

impl Connection {
    /// Handles a datagram; `first` is the header of its first packet. `scratch` must hold the largest payload.
    pub(crate) fn handle_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        first: &Parsed,
        data: &mut [u8],
        scratch: &mut [u8],
    ) {
        if self.takes(meta, data.len()) {
            self.handle_packets(cx, meta, first, data, scratch);
        } else {
            let len = data.len();
            self.come_by_other(cx, meta, &first.dcid, len, |this, cx| {
                this.handle_packets(cx, meta, first, data, scratch);
            });
        }
    }

    /// Handles the packets of a datagram.
    fn handle_packets(&mut self, cx: &mut Cx<'_>, meta: &RxMeta, first: &Parsed, data: &mut [u8], scratch: &mut [u8]) {
        let short = data.len() < usize::from(MIN_MTU);
        let (packet, mut rest) = data.split_at_mut(first.packet_len);
        self.handle_packet(cx, meta, first, short, packet, scratch);
        while !rest.is_empty() {
            let Ok(parsed) = cx.ids.parse(rest) else {
                cx.stats.drop(DropReason::Malformed);
                break;
            };
            let (packet, tail) = rest.split_at_mut(parsed.packet_len);
            // All coalesced packets must be for one connection; others are ignored, one by one (RFC 9000 §12.2).
            if parsed.dcid == first.dcid {
                self.handle_packet(cx, meta, &parsed, short, packet, scratch);
            } else {
                cx.stats.drop(DropReason::Malformed);
            }
            rest = tail;
        }
        if self.waiting.is_some() {
            self.read_waiting(cx, scratch);
        }
    }

    /// Handles a datagram that consists of one packet with a short header, as most do. `mask` is its header protection
    /// mask if it has already been computed.
    pub(super) fn handle_short_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        packet: &mut [u8],
        mask: Option<Mask>,
        scratch: &mut [u8],
    ) {
        if !self.takes(meta, packet.len()) {
            let dcid = packet.get(1..1 + cx.ids.cid_len()).and_then(ConnectionId::new).unwrap_or_default();
            return self.come_by_other(cx, meta, &dcid, packet.len(), |this, cx| {
                this.handle_lone_short(cx, meta, packet, mask, scratch);
            });
        }
        self.handle_lone_short(cx, meta, packet, mask, scratch);
    }

    #[inline]
    fn handle_lone_short(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        packet: &mut [u8],
        mask: Option<Mask>,
        scratch: &mut [u8],
    ) {
        if self.is_closing(cx) {
            if self.is_stateless_reset(packet) {
                self.on_stateless_reset(cx.now);
            }
            return;
        }
        if let Err(fault) = self.handle_short(cx, meta, packet, mask, scratch) {
            self.fail(fault);
        }
    }

    /// Whether a datagram came by the path in use; counts it if so.
    #[inline]
    fn takes(&mut self, meta: &RxMeta, len: usize) -> bool {
        if !self.is_on_path(meta.local, meta.remote) {
            return false;
        }
        self.path.on_received(len);
        self.stats.rx_bytes += len as u64;
        true
    }

    /// Whether a packet arrives too late to be read.
    fn is_closing(&mut self, cx: &mut Cx<'_>) -> bool {
        let closing = !self.is_active();
        if closing {
            self.on_packet_while_closing(cx.now);
            cx.stats.drop(DropReason::Closed);
        }
        closing
    }

    /// Handles a packet. `short` means that it came in a datagram below 1200 bytes, in which a server accepts no
    /// Initial packet (RFC 9000 §14.1).
    pub(super) fn handle_packet(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        parsed: &Parsed,
        short: bool,
        packet: &mut [u8],
        scratch: &mut [u8],
    ) {
        if self.is_closing(cx) {
            return;
        }
        let outcome = match parsed.kind {
            PacketType::Initial if short && self.side == Side::Server => {
                cx.stats.drop(DropReason::ShortInitial);
                Ok(())
            }
            PacketType::Initial => self.handle_long(cx, meta, parsed, packet, scratch, SpaceId::Initial),
            PacketType::Handshake => self.handle_long(cx, meta, parsed, packet, scratch, SpaceId::Handshake),
            PacketType::Short => self.handle_short(cx, meta, packet, None, scratch),
            PacketType::ZeroRtt => self.handle_zero_rtt(cx, meta, parsed, packet, scratch),
            // These are handled by the endpoint.
            PacketType::Retry | PacketType::VersionNegotiation => {
                cx.stats.drop(DropReason::Unexpected);
                Ok(())
            }
        };
        if let Err(fault) = outcome {
            self.fail(fault);
        }
    }

    fn handle_long(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        parsed: &Parsed,
        packet: &mut [u8],
        scratch: &mut [u8],
        space: SpaceId,
    ) -> Result<(), Fault> {
        let Some(version) = parsed.known_version().filter(|version| self.takes_version(*version, space)) else {
            cx.stats.drop(DropReason::Version);
            return Ok(());
        };
        // Only clients send tokens (RFC 9000 §17.2.2).
        if self.is_foreign_scid(&parsed.scid) || (self.side == Side::Client && !parsed.token.is_empty()) {
            cx.stats.drop(DropReason::Unexpected);
            return Ok(());
        }
        let Some(keys) = self.space(space).keys.take() else {
            self.on_no_keys(cx, meta, space, packet);
            return Ok(());
        };
        let other = (version != self.version).then(|| self.borrow_keys(version));
        let outcome = self.open_long(cx, meta, parsed, packet, scratch, other.as_deref().unwrap_or(&keys.remote));
        if !self.space(space).discarded && self.space(space).keys.is_none() {
            self.space(space).keys = Some(keys);
        }
        if let Some(other) = other {
            self.return_keys(other);
        }
        outcome
    }

    /// Opens a packet with a long header with `keys`, and handles it.
    pub(super) fn open_long(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        parsed: &Parsed,
        packet: &mut [u8],
        scratch: &mut [u8],
        keys: &DirectionKeys,
    ) -> Result<(), Fault> {
        let space = match parsed.kind {
            PacketType::Initial => SpaceId::Initial,
            PacketType::Handshake => SpaceId::Handshake,
            _ => SpaceId::Data,
        };
        let largest = self.space(space).acks.largest();
        let Some(plain) = unprotect(packet, parsed.pn_offset, largest, |sample| keys.header.mask(sample)) else {
            cx.stats.drop(DropReason::Malformed);
            return Ok(());
        };
        let (aad, body) = packet.split_at_mut(plain.header_len);
        let Ok(opened) = keys.packet.open(plain.pn, aad, body, head_room(scratch)) else {
            cx.stats.drop(DropReason::Authentication);
            return self.on_forged(&keys.packet);
        };
        let info = Packet { space, kind: parsed.kind, pn: plain.pn, dcid: &parsed.dcid };
        if self.traced {
            self.trace_received(cx, meta, &info, &plain, aad, &opened);
        }
        if parsed.kind == PacketType::ZeroRtt {
            cx.stats.early_packets += 1;
        } else {
            // Set before the frames are read, as TLS compares it with the parameters.
            self.adopt_scid(space, &parsed.scid);
            if let Some(version) = parsed.known_version().filter(|version| *version != self.version) {
                self.on_other_version(version);
            }
        }
        self.handle_opened(cx, meta, &info, plain.first & 0x0c, &opened, scratch)
    }

    /// Takes the server's ID from its first packet.
    fn adopt_scid(&mut self, space: SpaceId, scid: &ConnectionId) {
        if let Some(ids) = &mut self.handshake_ids
            && ids.remote_scid.is_none()
            && space == SpaceId::Initial
        {
            self.remote_cids.replace_first(*scid);
            ids.remote_scid = Some(*scid);
            self.retry_allowed = false;
        }
    }

    fn handle_short(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        packet: &mut [u8],
        mask: Option<Mask>,
        scratch: &mut [u8],
    ) -> Result<(), Fault> {
        let Some(mut keys) = self.one_rtt.take_if(|_| self.complete || self.side == Side::Client) else {
            self.on_no_keys(cx, meta, SpaceId::Data, packet);
            return Ok(());
        };
        let outcome = self.open_short(cx, meta, packet, mask, scratch, &mut keys);
        let outcome = match outcome {
            Opening::Dropped => Ok(()),
            Opening::Forged => self.on_forged(keys.any_remote()),
            Opening::Done(generation, pn, outcome) => self.settle(cx, &mut keys, generation, pn, outcome),
        };
        self.one_rtt = Some(keys);
        outcome
    }

    /// Updates the keys after a packet that was authenticated with the keys of `generation`. `outcome` is the result of
    /// its frames.
    #[inline]
    pub(super) fn settle(
        &mut self,
        cx: &Cx<'_>,
        keys: &mut OneRtt,
        generation: Generation,
        pn: u64,
        outcome: Result<(), Fault>,
    ) -> Result<(), Fault> {
        if generation == Generation::Next {
            self.stats.key_updates += 1;
        }
        let next_pn = self.space(SpaceId::Data).next_pn;
        let acked = self.key_ack.take();
        let acks = &self.spaces[SpaceId::Data.index()].acks;
        let facts = || (cx.now + 3 * self.pto(), acks.largest() > Some(pn));
        let why = if let Err(why) = keys.on_authenticated(generation, pn, next_pn, facts) {
            Some(why)
        } else if acked.is_some_and(|acked| !keys.on_acked(acked, generation)) {
            Some("acknowledgement with older keys than those of the acknowledged packet")
        } else {
            None
        };
        why.map_or(outcome, |why| Err(Fault::new(TransportError::KEY_UPDATE_ERROR, 0, why)))
    }

    /// Counts a packet that failed authentication, over all keys of the connection (RFC 9001 §6.6).
    pub(super) fn on_forged(&mut self, key: &PacketKey) -> Result<(), Fault> {
        self.forged += 1;
        if self.forged < key.integrity_limit() {
            return Ok(());
        }
        Err(Fault::new(TransportError::AEAD_LIMIT_REACHED, 0, "too many packets failed authentication"))
    }

    fn open_short(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        packet: &mut [u8],
        mask: Option<Mask>,
        scratch: &mut [u8],
        keys: &mut OneRtt,
    ) -> Opening {
        let largest = self.space(SpaceId::Data).acks.largest();
        let pn_offset = 1 + cx.ids.cid_len();
        let mask = |sample: &_| mask.unwrap_or_else(|| keys.remote_header.mask(sample));
        let unprotected = unprotect_short(packet, pn_offset, largest, mask);
        let Some((plain, header)) = unprotected else {
            // Resets may be shorter than packets.
            match self.is_stateless_reset(packet) {
                true => self.on_stateless_reset(cx.now),
                false => cx.stats.drop(DropReason::Malformed),
            }
            return Opening::Dropped;
        };
        let generation = keys.select(plain.first & 0x04 != 0, plain.pn);
        let aad = &header[..plain.header_len];
        let opened = keys.remote(generation).and_then(|key| {
            let body = &mut packet[plain.header_len..];
            key.open(plain.pn, aad, body, head_room(scratch)).ok()
        });
        let Some(opened) = opened else {
            if self.is_stateless_reset(packet) {
                self.on_stateless_reset(cx.now);
                return Opening::Dropped;
            }
            cx.stats.drop(DropReason::Authentication);
            return Opening::Forged;
        };
        let info = Packet { space: SpaceId::Data, kind: PacketType::Short, pn: plain.pn, dcid: &header[1..pn_offset] };
        if self.traced {
            self.trace_received(cx, meta, &info, &plain, aad, &opened);
            if generation == Generation::Next {
                self.trace_update(cx);
            }
        }
        let outcome = self.handle_opened(cx, meta, &info, plain.first & 0x18, &opened, scratch);
        self.note_spin(plain.first, plain.pn);
        Opening::Done(generation, plain.pn, outcome)
    }

    /// Handles the spin bit of the packet `pn`, which has been handled, if it has the highest number so far (RFC 9000
    /// §17.4).
    #[inline]
    pub(super) fn note_spin(&mut self, first: u8, pn: u64) {
        if self.path.spin.is_on() && self.spaces[SpaceId::Data.index()].acks.largest() == Some(pn) {
            self.path.spin.on_packet(first);
        }
    }

    /// Whether a packet that cannot be read ends in the peer's reset token (RFC 9000 §10.3.1).
    pub(crate) fn is_stateless_reset(&self, packet: &[u8]) -> bool {
        match packet.last_chunk::<16>() {
            Some(token) if packet.len() >= 21 => self.remote_cids.is_reset_token(token),
            _ => false,
        }
    }

    /// Handles an authenticated packet.
    pub(super) fn handle_opened(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        info: &Packet<'_>,
        reserved: u8,
        opened: &Opened<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Fault> {
        if reserved != 0 {
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, 0, "reserved header bits are set"));
        }
        if self.space(info.space).acks.is_duplicate(info.pn) {
            cx.stats.drop(DropReason::Duplicate);
            return Ok(());
        }
        cx.stats.rx_packets += 1;
        self.stats.rx_packets += 1;
        if self.side == Side::Server && info.space == SpaceId::Handshake {
            // Only the holder of our Handshake keys can have made it (RFC 9000 §8.1, RFC 9001 §4.9.1).
            self.validate_first_path();
            self.discard_space(SpaceId::Initial);
        }
        let read = self.read_frames(cx, info, opened, scratch)?;
        if !self.is_active() {
            return Ok(());
        }
        self.non_probing = read.is_non_probing();
        self.eliciting_since_receive = false;
        self.reset_idle(cx.now);
        if !read.complete {
            // Treated as lost: the peer retransmits its contents and slows down.
            cx.stats.drop(DropReason::NoMemory);
            self.undo_datagrams(cx.stats, info.pn);
            return Ok(());
        }
        let eliciting = read.is_eliciting();
        let mut rule = if info.space == SpaceId::Data { self.ack_rule } else { AckRule::AT_ONCE };
        if meta.ecn == ECN_CE && self.is_news(info.pn) {
            // Congestion is reported to the peer at once (RFC 9000 §13.2.1).
            rule.delay = Duration::ZERO;
        }
        let space = self.space(info.space);
        if !space.discarded {
            if meta.ecn != 0 {
                space.acks.count_ecn(meta.ecn, 1);
                if meta.ecn == ECN_CE {
                    cx.stats.ecn_ce += 1;
                }
            }
            space.acks.on_packet(cx.now, info.pn, eliciting, rule);
        }
        Ok(())
    }
}

/// The part of the scratch into which the first bytes of a packet are decrypted.
pub(super) fn head_room(scratch: &mut [u8]) -> &mut HeadRoom {
    scratch.first_chunk_mut().expect("room for the largest payload")
}

/// The result of opening a 1-RTT packet.
enum Opening {
    Dropped,
    Forged,
    Done(Generation, u64, Result<(), Fault>),
}

/// A packet without header protection.
pub(super) struct Plain {
    pub(super) first: u8,
    pub(super) pn: u64,
    pub(super) header_len: usize,
}

impl Plain {
    /// `None` if a packet of `len` bytes has no room for the tag.
    pub(super) fn new(len: usize, first: u8, header_len: usize, pn: u64) -> Option<Self> {
        (len >= header_len + 16).then_some(Self { first, pn, header_len })
    }
}

/// Removes header protection in place (RFC 9001 §5.4). `None` if the packet is too short for a sample.
fn unprotect(
    packet: &mut [u8],
    pn_offset: usize,
    largest: Option<u64>,
    mask: impl FnOnce(&[u8; 16]) -> Mask,
) -> Option<Plain> {
    let sample: [u8; 16] = *packet.get(pn_offset + 4..)?.first_chunk()?;
    let (first, pn_len, truncated) = header::remove_protection(packet, pn_offset, mask(&sample));
    Plain::new(packet.len(), first, pn_offset + pn_len, header::decode_pn(largest, truncated, pn_len))
}

/// Like `unprotect`, for a short header: the packet is left unchanged, and the header's bytes are returned.
#[inline]
fn unprotect_short(
    packet: &[u8],
    pn_offset: usize,
    largest: Option<u64>,
    mask: impl FnOnce(&[u8; 16]) -> Mask,
) -> Option<(Plain, ShortHeader)> {
    let sample = packet.get(pn_offset + 4..)?.first_chunk()?;
    let (header, first, pn_len, truncated) = header::unprotected_short(packet, pn_offset, mask(sample));
    let pn = header::decode_pn(largest, truncated, pn_len);
    Plain::new(packet.len(), first, pn_offset + pn_len, pn).map(|plain| (plain, header))
}
