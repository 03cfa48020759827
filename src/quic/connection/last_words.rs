//! Packets that carry a CONNECTION_CLOSE (RFC 9000 §10.2).

use arrayvec::ArrayVec;

use crate::base::Side;
use crate::quic::connection::closing::Close;
use crate::quic::connection::packet::{LAST_PN, PacketBuilder};
use crate::quic::connection::{Connection, Cx};
use crate::quic::path::MIN_MTU;
use crate::quic::recovery::SpaceId;
use crate::wire::quic::TransportError;
use crate::wire::quic::frame::Frame;

/// Maximum number of ranges in an acknowledgement sent with a close.
const LAST_RANGES: usize = 4;

/// Maximum size of that acknowledgement in bytes: type, largest, delay, count, two numbers per range, ECN counts.
const LAST_ACK: usize = 1 + 8 * (3 + 2 * LAST_RANGES + 3);

impl Connection {
    /// Builds CONNECTION_CLOSE in every space whose keys the peer may have (RFC 9000 §10.2.3).
    pub(super) fn build_close(&mut self, cx: &mut Cx<'_>, slot: &mut [u8]) -> Option<usize> {
        self.start_closing(cx.now);
        let close = self.close_due()?;
        let mtu = usize::from(self.path.mtu.current());
        let budget = self.path.budget().min(self.close_budget());
        let max = slot.len().min(mtu).min(usize::try_from(budget).unwrap_or(usize::MAX));
        let mut pos = 0;
        for space in SpaceId::ALL.into_iter().filter(|space| self.closes_in(*space)).collect::<ArrayVec<_, 3>>() {
            let pad = !self.closes_above(space) && self.side == Side::Client && self.closes_in(SpaceId::Initial);
            let pad_to = if pad { usize::from(MIN_MTU).min(max).saturating_sub(pos) } else { 0 };
            pos += self.close_packet(cx, space, &close, &mut slot[pos..max], pad_to).unwrap_or(0);
        }
        if pos == 0 {
            // The close stays due: the peer's next packet increases the budget.
            return None;
        }
        self.close_sent(pos);
        Some(pos)
    }

    /// Whether the close is sent in `space`: there are keys for it, and the peer may have no later ones.
    fn closes_in(&self, space: SpaceId) -> bool {
        let has_keys = |space: SpaceId| self.spaces[space.index()].keys.is_some();
        match space {
            // A client with Handshake keys has received the server's, so the server has them as well.
            SpaceId::Initial => has_keys(space) && !(self.side == Side::Client && has_keys(SpaceId::Handshake)),
            SpaceId::Handshake => has_keys(space) && !self.confirmed,
            SpaceId::Data => {
                self.one_rtt.as_ref().is_some_and(|keys| keys.may_close())
                    && (self.complete || self.side == Side::Server)
            }
        }
    }

    fn closes_above(&self, space: SpaceId) -> bool {
        SpaceId::ALL.into_iter().any(|above| above > space && self.closes_in(above))
    }

    /// Appends what the server still needs of a client's handshake to the close, so that the server can complete it:
    /// the client considers itself connected and may have sent data. True if the peer can then read 1-RTT packets.
    fn put_last_crypto(&mut self, builder: &mut PacketBuilder<'_>) -> bool {
        let crypto = &self.spaces[SpaceId::Handshake.index()].crypto_tx;
        let range = crypto.unacked();
        let whole = !range.is_empty();
        whole && builder.put(&Frame::Crypto { offset: range.start, data: crypto.bytes(&range) }, None)
    }

    fn close_packet(
        &mut self,
        cx: &mut Cx<'_>,
        space: SpaceId,
        close: &Close,
        slot: &mut [u8],
        pad_to: usize,
    ) -> Option<usize> {
        let pn = Some(self.space(space).next_pn).filter(|pn| *pn < LAST_PN)?;
        let outline = self.start_packet(cx, space, pn, slot)?;
        let mut builder = PacketBuilder::new(slot, outline, &mut cx.scratch.building);
        let completes = space == SpaceId::Handshake && self.side == Side::Client && self.complete;
        // The application's reason is in the 1-RTT packet that follows, which can then be read.
        if !(completes && self.put_last_crypto(&mut builder)) {
            let reason = close.reason.as_bytes();
            let frame = match close.frame_type {
                Some(frame_type) => Frame::ConnectionClose { code: close.code, frame_type, reason },
                None if space == SpaceId::Data => Frame::ApplicationClose { code: close.code, reason },
                // The application's reason must not be revealed to an unauthenticated peer (RFC 9000 §10.2.3).
                None => {
                    Frame::ConnectionClose { code: TransportError::APPLICATION_ERROR.0, frame_type: 0, reason: b"" }
                }
            };
            // An acknowledgement tells the peer what arrived last. It comes first, as the peer stops reading at the
            // close.
            let acks = &self.spaces[space.index()].acks;
            if acks.received().len() <= LAST_RANGES && builder.room() >= LAST_ACK + frame.encoded_len() {
                self.put_ack(cx, space, &mut builder);
            }
            // Without the reason rather than not at all.
            let bare = match frame {
                Frame::ConnectionClose { code, frame_type, .. } => {
                    Frame::ConnectionClose { code, frame_type, reason: b"" }
                }
                _ => Frame::ApplicationClose { code: close.code, reason: b"" },
            };
            if !builder.put(&frame, None) && !builder.put(&bare, None) {
                cx.scratch.building = std::mem::take(&mut builder.frames);
                cx.scratch.building.clear();
                return None;
            }
        }
        builder.pad_to(pad_to.max(cx.ids.least_packet()));
        self.space(space).next_pn += 1;
        if let (SpaceId::Data, Some(keys)) = (space, &mut self.one_rtt) {
            keys.before_close();
        }
        let len = self.seal(cx, space, pn, &mut builder);
        cx.scratch.building.clear();
        Some(len)
    }
}
