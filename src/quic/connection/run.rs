//! Runs of datagrams for one connection: work that is the same for all of them is done once.
//!
//! Header protection masks are computed for many packets in one call. Packets that continue a stream, each with the
//! next bytes in order and nothing else, form a *streak*: they are decrypted one after another to memory that is looked
//! up once, and what they change (ranges, credit, counters, timers) is changed once, when the streak ends. Any other
//! packet ends it and takes the usual path, so the result of a run is the same as that of its packets one by one.

use arrayvec::ArrayVec;

use crate::crypto::{HEAD_AT, HEAD_LEN, Opened};
use crate::mem::{prefetch_line, prefetch_read, prefetch_write};
use crate::quic::connection::keys::{Generation, OneRtt};
use crate::quic::connection::receive::{ECN_CE, Mask, Packet, Plain, head_room};
use crate::quic::connection::{Connection, Cx, RxMeta};
use crate::quic::recovery::SpaceId;
use crate::quic::stats::PlacementStats;
use crate::wire::quic::frame::StreamHeader;
use crate::wire::quic::header::{self, PacketType, ShortHeader};

/// A received datagram that consists of one packet with a short header.
pub(crate) trait Incoming {
    /// Its UDP payload.
    fn data(&self) -> &[u8];

    /// Where it came from and to, and its UDP payload.
    fn parts(&mut self) -> (&RxMeta, &mut [u8]);
}

/// The maximum number of packets whose masks are computed in one call.
const MASKS: usize = 32;

/// Masks, and the bytes that they are computed from.
type Masks = [[u8; 5]; MASKS];
type Samples = ArrayVec<[u8; 16], MASKS>;

/// A short header without its protection.
///
/// Those of a run are prepared before any of its packets is opened: reading bytes for the tag that were just written
/// would have to wait for all earlier stores, such as those of a packet's data to memory that is not in a cache.
struct Bare {
    bytes: ShortHeader,
    first: u8,
    /// 0: the packet is too short to have one.
    pn_len: u8,
    truncated_pn: u32,
}

type Bares = ArrayVec<Bare, MASKS>;

/// A packet that ends a streak and has already been authenticated.
struct Read<'a> {
    meta: &'a RxMeta,
    plain: Plain,
    header: &'a ShortHeader,
    opened: Opened<'a>,
}

impl Bare {
    /// The header of `packet`, whose packet number begins at `pn_offset`.
    #[inline(always)]
    fn new(packet: &[u8], pn_offset: usize, mask: &[u8; 5]) -> Self {
        if packet.len() < pn_offset + 4 + 16 {
            return Self { bytes: ShortHeader::default(), first: 0, pn_len: 0, truncated_pn: 0 };
        }
        let (bytes, first, pn_len, pn) = header::unprotected_short(packet, pn_offset, *mask);
        Self { bytes, first, pn_len: pn_len as u8, truncated_pn: pn as u32 }
    }

    /// Its fields, in a packet of `len` bytes, when `largest` is the largest packet number so far. `None` if the packet
    /// has no room for a tag.
    #[inline]
    fn plain(&self, len: usize, pn_offset: usize, largest: u64) -> Option<Plain> {
        let pn_len = usize::from(self.pn_len);
        if pn_len == 0 {
            return None;
        }
        let pn = header::decode_pn(Some(largest), self.truncated_pn.into(), pn_len);
        Plain::new(len, self.first, pn_offset + pn_len, pn)
    }
}

impl Connection {
    /// Prefetches what the connection points to. The connection itself is in the cache.
    pub(crate) fn prefetch_near(&self) {
        if let Some(keys) = &self.one_rtt {
            keys.prefetch();
        }
        self.streams.prefetch_lists();
        self.recovery.prefetch_lists();
        prefetch_line(self.events.as_slices().0.as_ptr());
    }

    /// Prefetches what lies behind that.
    pub(crate) fn prefetch_far(&self) {
        self.streams.prefetch_streams();
    }

    /// Handles datagrams that consist of one packet with a short header each, with the same result as
    /// [`Connection::handle_short_datagram`] for one after another.
    pub(crate) fn handle_run<D: Incoming>(&mut self, cx: &mut Cx<'_>, run: &mut [D], scratch: &mut [u8]) {
        if self.is_traced() {
            return self.handle_traced_run(cx, run, scratch);
        }
        for part in run.chunks_mut(MASKS) {
            match part {
                // There is nothing to share.
                [only] => self.handle_alone(cx, only, None, scratch),
                _ => self.handle_part(cx, part, scratch),
            }
        }
    }

    fn handle_alone(&mut self, cx: &mut Cx<'_>, datagram: &mut impl Incoming, mask: Option<Mask>, scratch: &mut [u8]) {
        let (meta, data) = datagram.parts();
        self.handle_short_datagram(cx, meta, data, mask, scratch);
    }

    fn handle_part<D: Incoming>(&mut self, cx: &mut Cx<'_>, part: &mut [D], scratch: &mut [u8]) {
        let mut masks = Masks::default();
        let pn_offset = 1 + cx.ids.cid_len();
        if !self.make_masks(pn_offset, part, &mut masks) {
            for datagram in part {
                self.handle_alone(cx, datagram, None, scratch);
            }
            return;
        }
        let mut bares = Bares::new();
        for (datagram, mask) in part.iter().zip(&masks) {
            bares.push(Bare::new(datagram.data(), pn_offset, mask));
        }
        let mut at = 0;
        while at < part.len() {
            let (taken, more) = self.take_streak(cx, &mut part[at..], &bares[at..], scratch);
            at += taken;
            if more {
                continue;
            }
            if let Some(next) = part.get(at + 1) {
                prefetch_read(next.data());
            }
            if let Some(datagram) = part.get_mut(at) {
                self.handle_alone(cx, datagram, Some(masks[at]), scratch);
                at += 1;
            }
        }
    }

    /// Computes the header protection masks of all packets; the key does not change when packet keys are updated (RFC
    /// 9001 §6). Returns false if there is no key yet.
    fn make_masks<D: Incoming>(&self, pn_offset: usize, part: &[D], masks: &mut Masks) -> bool {
        let Some(keys) = &self.one_rtt else { return false };
        let at = pn_offset + 4;
        // Packets that are too short for a sample need no mask.
        let sample = |datagram: &D| datagram.data().get(at..).and_then(|rest| rest.first_chunk()).copied();
        let samples: Samples = part.iter().map(|datagram| sample(datagram).unwrap_or_default()).collect();
        keys.remote_header.masks(&samples, &mut masks[..part.len()]);
        true
    }

    /// Handles packets as long as they continue the stream that was used last, and the packet after them if it has been
    /// authenticated by then. Returns their number, and whether another streak may follow: otherwise, the next packet
    /// must be handled alone.
    fn take_streak<D: Incoming>(
        &mut self,
        cx: &mut Cx<'_>,
        part: &mut [D],
        bares: &[Bare],
        scratch: &mut [u8],
    ) -> (usize, bool) {
        if !self.is_active() {
            return (0, false);
        }
        let Some(mut keys) = self.one_rtt.take_if(|_| self.complete) else { return (0, false) };
        let (taken, read) = self.read_streak(cx, &keys, part, bares, scratch);
        let Some(Read { meta, plain, header, opened }) = read else {
            self.one_rtt = Some(keys);
            return (taken, false);
        };
        let pn = plain.pn;
        let dcid = &header[1..1 + cx.ids.cid_len()];
        let info = Packet { space: SpaceId::Data, kind: PacketType::Short, pn, dcid };
        let outcome = self.handle_opened(cx, meta, &info, plain.first & 0x18, &opened, scratch);
        self.note_spin(plain.first, pn);
        let outcome = self.settle(cx, &mut keys, Generation::Current, pn, outcome);
        self.one_rtt = Some(keys);
        if let Err(fault) = outcome {
            self.fail(fault);
        }
        (taken + 1, true)
    }

    /// Handles the streak at the front of `part`. Returns its length, and the packet that ends it if that one is
    /// authentic.
    fn read_streak<'a, D: Incoming>(
        &mut self,
        cx: &mut Cx<'_>,
        keys: &'a OneRtt,
        part: &'a mut [D],
        bares: &'a [Bare],
        scratch: &mut [u8],
    ) -> (usize, Option<Read<'a>>) {
        let Self { streams, spaces, path, recv_credit, stats, .. } = self;
        let acks = &mut spaces[SpaceId::Data.index()].acks;
        let (Some(first), Some((key, phase))) = (acks.largest().map(|n| n + 1), keys.settled()) else {
            return (0, None);
        };
        let Some((id, recv)) = streams.latest_receiver() else { return (0, None) };
        let pooled = recv.is_pooled();
        let Some((start, mut memory)) = recv.next_in_order() else { return (0, None) };
        // No more bytes than the peer may send.
        let most = memory.len().min(usize::try_from(recv_credit.left()).unwrap_or(usize::MAX));
        memory = &mut memory[..most];

        let pn_offset = 1 + cx.ids.cid_len();
        let head = head_room(scratch);
        let (mut pn, mut at, mut bytes) = (first, start, 0);
        let mut placed = PlacementStats::default();
        let mut marks = [0; 4];
        let mut seen: Option<&RxMeta> = None;
        let mut read = None;
        let mut rest = part.iter_mut().zip(bares).peekable();
        while let Some((datagram, bare)) = rest.next() {
            let (meta, data) = datagram.parts();
            // It is usually the same one as that of the previous datagram.
            if !seen.is_some_and(|seen| std::ptr::eq(seen, meta)) {
                if meta.local != path.local || meta.remote != path.remote || meta.ecn == ECN_CE {
                    break;
                }
                seen = Some(meta);
            }
            let header = &bare.bytes;
            let Some(plain) = bare.plain(data.len(), pn_offset, pn - 1) else { break };
            if plain.pn != pn || (plain.first & 0x04 != 0) != phase {
                break;
            }
            if let Some((next, _)) = rest.peek() {
                prefetch_read(next.data());
            }
            let len = data.len();
            let (aad, body) = (&header[..plain.header_len], &mut data[plain.header_len..]);
            let Ok(opened) = key.open(pn, aad, body, head) else { break };
            bytes += len;
            let front = opened.len().min(HEAD_LEN);
            let window = &mut head[HEAD_AT..HEAD_AT + front];
            if opened.head_len() < front {
                opened.decrypt_at(0, window);
            }
            let frame = StreamHeader::decode(window)
                .filter(|(frame, _)| plain.first & 0x18 == 0 && frame.id == id && frame.offset == at && !frame.fin)
                .map(|(frame, used)| (frame.len, used, opened.len() - used))
                .filter(|(said, _, n)| said.is_none_or(|said| said == *n as u64) && (1..=memory.len()).contains(n));
            let Some((_, used, n)) = frame else {
                read = Some(Read { meta, plain, header, opened });
                break;
            };
            let (to, behind) = memory.split_at_mut(n);
            memory = behind;
            opened.decrypt_at(used, to);
            let next = n.min(memory.len());
            prefetch_write(&mut memory[..next]);
            placed.count(opened.way(), used, n);
            at += n as u64;
            pn += 1;
            marks[usize::from(meta.ecn & 3)] += 1;
        }

        path.on_received(bytes);
        stats.rx_bytes += bytes as u64;
        let taken = pn - first;
        if taken == 0 {
            return (0, read);
        }
        let new = recv.came_in_order(at);
        debug_assert!(recv_credit.left() >= new);
        let _ = recv_credit.receive(new);
        if !pooled {
            recv_credit.consume(new);
        }
        recv.add_placed(&placed);
        if marks[0] != taken {
            marks.into_iter().zip(0..).for_each(|(n, codepoint)| acks.count_ecn(codepoint, n));
        }
        acks.on_run(cx.now, first..pn, self.ack_rule);
        stats.rx_packets += taken;
        cx.stats.rx_packets += taken;
        streams.mark_dirty(id);
        if let Some(last) = bares.get(taken as usize - 1) {
            self.note_spin(last.bytes[0], pn - 1);
        }
        self.add_placement(cx.stats, &placed);
        self.eliciting_since_receive = false;
        self.reset_idle(cx.now);
        (taken as usize, read)
    }
}
