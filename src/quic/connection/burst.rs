//! Bursts of datagrams that contain only the next bytes of one stream.
//!
//! A connection that is *steady* (only stream data is to be sent) decides once how many datagrams window, pacing,
//! credit, keys and the stream's memory allow. Then it writes them one after another, protects their headers together,
//! and records all of them as sent. The result is the same as that of [`Connection::poll_transmit`] one by one:
//! whatever would make a datagram different ends the burst before it.

use arrayvec::ArrayVec;

use crate::quic::connection::fill::data_room;
use crate::quic::connection::packet::TAG_LEN;
use crate::quic::connection::sent::{SentFrame, SentFrames};
use crate::quic::connection::transmit::{COALESCE_ROOM, Slots};
use crate::quic::connection::{Connection, Cx};
use crate::quic::recovery::{SentPacket, SpaceId};
use crate::quic::stream::Introduced;
use crate::wire::quic::frame::StreamHeader;
use crate::wire::quic::varint::{self, Writer};
use crate::wire::quic::{StreamId, header};

/// The maximum number of datagrams in a burst, whose headers are protected together.
pub(crate) const BURST: usize = 32;

/// The properties that all datagrams of a burst share.
struct Shape {
    id: StreamId,
    /// The first packet number and the first offset.
    pn: u64,
    start: u64,
    /// The number of datagrams.
    count: usize,
    /// The number of stream bytes in each.
    data: usize,
    pn_len: usize,
    /// Length of the STREAM frame's header.
    frame: usize,
    /// Length of each datagram.
    len: usize,
}

impl Connection {
    /// Writes up to `most` further datagrams of a burst to `slots`. Returns their number.
    pub(crate) fn send_burst(&mut self, cx: &mut Cx<'_>, slots: &mut impl Slots, most: usize) -> usize {
        // Each datagram of a traced connection is told by itself.
        if !self.steady || self.is_traced() || !self.is_active() {
            return 0;
        }
        let Some(room) = slots.next().map(|slot| slot.len()) else { return 0 };
        let Some(shape) = self.shape_burst(cx, room, most) else { return 0 };
        let count = self.write_burst(slots, &shape);
        if count > 0 {
            self.note_burst(cx, &shape, count);
        }
        count
    }

    /// The burst that may follow, for slots with `room` bytes each.
    fn shape_burst(&mut self, cx: &Cx<'_>, room: usize, most: usize) -> Option<Shape> {
        let mtu = self.path.mtu.current();
        let max = Some(room.min(usize::from(mtu))).filter(|max| *max >= COALESCE_ROOM)?;
        let id = self.streams.front_alone()?;
        let keys = self.one_rtt.as_ref()?;
        let pn = self.spaces[SpaceId::Data.index()].next_pn;
        let acked = self.recovery.largest_acked(SpaceId::Data);
        let pn_len = header::pn_len(pn, acked);
        let start = 1 + self.remote_cids.current().len() + pn_len;
        let credit = self.send_credit.available();
        let stream = self.streams.get(id).filter(|stream| stream.introduced != Introduced::No)?;
        let send = stream.send.as_ref()?;
        let (offset, left) = send.fresh(credit)?;
        // As large as a frame that is alone in its packet would be.
        let data = data_room(id, send, max - (start + TAG_LEN));
        let frame = StreamHeader { id, offset, len: Some(data as u64), fin: false }.encoded_len();
        let len = start + frame + data + TAG_LEN;
        let skip = self.skip_at.checked_sub(pn).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let mut count = most
            .min(BURST)
            .min(skip)
            .min(keys.sends_left())
            .min((left.min(send.at_hand(offset) as u64) / data as u64) as usize)
            .min(self.recovery.permits(cx.now, mtu, len as u16));
        if count == 0 {
            return None;
        }
        // Numbers whose encoding gets longer are left to the next burst.
        let (last_pn, last) = (pn + count as u64 - 1, offset + ((count - 1) * data) as u64);
        if header::pn_len(last_pn, acked) != pn_len || varint::size(last) != varint::size(offset) || offset == 0 {
            count = 1;
        }
        Some(Shape { id, pn, start: offset, count, data, pn_len, frame, len })
    }

    /// Writes the datagrams, as many as there are slots for.
    fn write_burst(&mut self, slots: &mut impl Slots, shape: &Shape) -> usize {
        let Shape { id, pn, start, count, data, pn_len, frame, len } = *shape;
        let (Some(keys), Some(send)) = (&self.one_rtt, self.streams.get_ref(id).and_then(|s| s.send.as_ref())) else {
            return 0;
        };
        let (dcid, fixed_bit) = (self.remote_cids.current(), self.fixed_bit);
        let phase = self.path.spin.bits() | header::key_phase(keys.phase());
        let pn_offset = 1 + dcid.len();
        let body = pn_offset + pn_len;
        let mut bytes = send.memory_at(start);
        let mut samples = ArrayVec::<[u8; 16], BURST>::new();
        for i in 0..count {
            let Some(packet) = slots.next().and_then(|slot| slot.get_mut(..len)) else { break };
            let pn = pn + i as u64;
            let header = StreamHeader { id, offset: start + (i * data) as u64, len: Some(data as u64), fin: false };
            if header::encode_short(packet, fixed_bit.of(pn) | phase, dcid, pn, pn_len).is_none() {
                break;
            }
            let mut writer = Writer::new(&mut packet[body..]);
            header.encode(&mut writer);
            let (now, behind) = bytes.split_at(data);
            bytes = behind;
            let mut sealer = keys.local.seal(pn, packet, body);
            sealer.in_place(frame);
            sealer.copy_from(now);
            let (_, sample) = sealer.finish_and_sample(pn_offset + 4);
            samples.push(sample);
            slots.keep(len);
        }
        let mut masks = [[0; 5]; BURST];
        let masks = &mut masks[..samples.len()];
        keys.local_header.masks(&samples, masks);
        for (i, mask) in masks.iter().enumerate() {
            header::apply_protection(slots.kept(i, samples.len()), pn_offset, pn_len, *mask);
        }
        samples.len()
    }

    /// Records that `count` datagrams have been written.
    fn note_burst(&mut self, cx: &mut Cx<'_>, shape: &Shape, count: usize) {
        let Shape { id, pn, start, data, len, .. } = *shape;
        let bytes = (count * data) as u64;
        if let Some(keys) = &mut self.one_rtt {
            keys.on_sent(count as u64);
        }
        if let Some(send) = self.streams.get(id).and_then(|stream| stream.send.as_mut()) {
            send.sent_fresh(bytes);
        }
        self.send_credit.consume(bytes);
        self.bare_packets = 0;
        self.spaces[SpaceId::Data.index()].next_pn = pn + count as u64;
        let packet = |i: usize| {
            let frame = SentFrame::Stream { len: data as u32, id, start: start + (i * data) as u64 };
            SentPacket::new(cx.now, len as u16, true, true, SentFrames::one(frame))
        };
        self.recovery.on_packets_sent(cx.now, SpaceId::Data, pn, len as u16, (0..count).map(packet));
        self.stats.tx_packets += count as u64;
        self.stats.tx_bytes += (count * len) as u64;
        self.path.on_sent(count * len);
        self.reset_idle_after_sending(cx.now);
    }
}
