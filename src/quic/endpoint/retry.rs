//! Stateless address validation of clients with Retry (RFC 9000 §8.1.2).

use crate::base::Side;
use crate::base::time::Instant;
use crate::crypto::{self, DirectionKeys, STATE_NONCE_LEN, TAG_LEN};
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::answers::RetryDue;
use crate::quic::endpoint::{Answer, Endpoint};
use crate::quic::stats::DropReason;
use crate::wire::quic::frame::Frame;
use crate::wire::quic::header::{self, PacketType, Parsed};
use crate::wire::quic::varint::Writer;
use crate::wire::quic::{ConnectionId, TransportError, Version};

impl Endpoint {
    /// Queues a Retry for the client that sent the first packet `parsed`. No keys are derived for it, and it is smaller
    /// than that packet, which has 1200 bytes.
    pub(super) fn queue_retry(&mut self, meta: &RxMeta, version: Version, parsed: &Parsed) {
        let (local, remote) = (meta.local, meta.remote);
        let retry = RetryDue { local, remote, version, dcid: parsed.dcid, scid: parsed.scid };
        if !self.answers.push_retry(retry) {
            self.stats.drop(DropReason::Overload);
        }
    }

    /// Writes a Retry packet (RFC 9000 §17.2.5) and returns its length; `None` if it does not fit.
    pub(super) fn write_retry(&mut self, now: Instant, retry: &RetryDue, slot: &mut [u8]) -> Option<usize> {
        let (mut random, mut nonce) = ([0; 16], [0; STATE_NONCE_LEN]);
        self.rng.fill(&mut random);
        self.rng.fill(&mut nonce);
        let mut scid = self.ids.retry_id(random);
        if scid == retry.dcid {
            // It must differ from the client's choice (RFC 9000 §17.2.5.1).
            random[7] ^= 1;
            random[15] ^= 1;
            scid = self.ids.retry_id(random);
        }
        let token = self.lists.tokens.seal_retry(now, retry.version, retry.remote, &scid, &retry.dcid, nonce);
        let len = header::encode_retry(slot, retry.version, &retry.scid, &scid, &token)?;
        let tag = crypto::retry_tag(retry.version, &retry.dcid, &slot[..len]);
        slot.get_mut(len..len + TAG_LEN)?.copy_from_slice(&tag);
        self.stats.retries_sent += 1;
        Some(len + TAG_LEN)
    }

    /// Refuses a client with an invalid Retry token. As it will not accept another Retry, it gets a close rather than
    /// having to time out (RFC 9000 §8.1.2). The rate is limited because keys have to be derived.
    pub(super) fn refuse_token(&mut self, now: Instant, meta: &RxMeta, parsed: &Parsed, data: &[u8]) {
        self.stats.drop(DropReason::BadToken);
        self.refuse(now, meta, parsed, data, TransportError::INVALID_TOKEN);
    }

    /// Closes a connection that a client begins, with `code`. Nothing is kept of it.
    pub(super) fn refuse(&mut self, now: Instant, meta: &RxMeta, parsed: &Parsed, data: &[u8], code: TransportError) {
        let Some(version) = parsed.known_version() else { return };
        if !self.answers.has_room() || !self.refusals.take(now) {
            return;
        }
        let theirs = crypto::initial_direction(version, &parsed.dcid, Side::Client);
        if !self.is_authentic(&theirs, parsed, data) {
            return;
        }
        let ours = crypto::initial_direction(version, &parsed.dcid, Side::Server);
        let data = initial_close(&ours, version, &parsed.scid, &parsed.dcid, code);
        self.answers.push_back(Answer { local: meta.local, remote: meta.remote, data });
    }
}

/// An Initial packet with a close, for a connection without state. It is not ack-eliciting, so it needs no padding (RFC
/// 9000 §14.1).
fn initial_close(keys: &DirectionKeys, version: Version, dcid: &[u8], scid: &[u8], code: TransportError) -> Vec<u8> {
    const PN_LEN: usize = 1;
    let frame = Frame::ConnectionClose { code: code.0, frame_type: 0, reason: b"" };
    let mut packet = vec![0; 64 + 2 * ConnectionId::MAX];
    let kind = PacketType::Initial;
    let at = header::encode_long(&mut packet, version, kind, dcid, scid, &[], 0, PN_LEN).expect("room for it");
    let start = at.pn_offset + PN_LEN;
    let mut w = Writer::new(&mut packet[start..]);
    frame.encode(&mut w);
    let len = w.finish().expect("room for it");
    packet.truncate(start + len + TAG_LEN);
    let length = (PN_LEN + len + TAG_LEN) as u16;
    packet[at.length_offset..at.pn_offset].copy_from_slice(&(0x4000 | length).to_be_bytes());
    let mut sealer = keys.packet.seal(0, &mut packet, start);
    sealer.in_place(len);
    let (_, sample) = sealer.finish_and_sample(at.pn_offset + 4);
    header::apply_protection(&mut packet, at.pn_offset, PN_LEN, keys.header.mask(&sample));
    packet
}
