//! Effects of the acknowledgement and loss of packets on the frames they carried (RFC 9000 §13.3).

use std::ops::Range;

use crate::base::time::Instant;
use crate::quic::connection::sent::SentFrame;
use crate::quic::connection::{Connection, Cx, Scratch, windows};
use crate::quic::event::Event;
use crate::quic::recovery::SpaceId;
use crate::quic::stream::Introduced;
use crate::quic::stream::recv::RecvStream;
use crate::wire::quic::StreamId;

impl Connection {
    /// Applies the acknowledgements collected in `acked` of the scratch, for `space`.
    pub(super) fn apply_acked(&mut self, cx: &mut Cx<'_>, space: SpaceId) {
        if self.traced {
            self.trace_acked(cx, space);
        }
        let Scratch { acked, lists, .. } = cx.scratch;
        // Consecutive bytes of one stream, from several packets, are acknowledged together.
        let mut bytes: Option<(StreamId, Range<u64>)> = None;
        for (pn, frames) in acked.drain(..) {
            if let Some((id, start, len)) = frames.only_stream() {
                let end = start + u64::from(len);
                match &mut bytes {
                    Some((of, range)) if *of == id && range.end == start => range.end = end,
                    _ => {
                        if let Some((of, range)) = bytes.replace((id, start..end)) {
                            self.stream_acked(of, range, false);
                        }
                    }
                }
                continue;
            }
            if let Some((of, range)) = bytes.take() {
                self.stream_acked(of, range, false);
            }
            for frame in frames.iter() {
                self.frame_acked(cx.now, space, pn, frame);
            }
            lists.recycle(frames);
        }
        if let Some((of, range)) = bytes {
            self.stream_acked(of, range, false);
        }
    }

    fn frame_acked(&mut self, now: Instant, space: SpaceId, pn: u64, frame: SentFrame) {
        match frame {
            SentFrame::Stream { len, id, start } => self.stream_acked(id, start..start + u64::from(len), false),
            SentFrame::StreamFin { len, id, start } => self.stream_acked(id, start..start + u64::from(len), true),
            SentFrame::Crypto { start, len } => {
                self.space(space).crypto_tx.on_acked(start..start + u64::from(len));
            }
            SentFrame::Ack { largest } => self.space(space).acks.on_ack_acked(largest),
            SentFrame::Datagram { id, .. } => self.datagram_acked(id),
            SentFrame::ResetStream(id) => {
                if let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut()) {
                    send.reset_acked();
                }
                self.streams.remove_if_done(id);
            }
            SentFrame::ResetStreamAt { id, reliable } => self.reset_at_acked(id, reliable),
            SentFrame::RetireConnectionId(seq) => self.remote_cids.retire_acked(seq),
            SentFrame::AckFrequency(seq) => self.ack_request_acked(seq),
            SentFrame::MtuProbe if self.path.mtu.on_acked(now, pn) => {
                self.recovery.set_max_datagram(self.path.mtu.current());
            }
            _ => {}
        }
    }

    fn stream_acked(&mut self, id: StreamId, range: Range<u64>, fin: bool) {
        let Some(stream) = self.streams.get(id) else { return };
        let repeat = std::mem::replace(&mut stream.introduced, Introduced::Yes) == Introduced::Overtaken;
        if repeat && let Some(recv) = &mut stream.recv {
            recv.tell_again();
        }
        let Some(send) = &mut stream.send else { return };
        let events = &mut self.events;
        send.on_acked(range, fin, |data, acked| events.push_back(Event::SendDone { id, data, acked }));
        if send.wants_writable && send.queued() < send.budget(windows::send_budgets(&self.config, &self.recovery)) {
            send.wants_writable = false;
            events.push_back(Event::Writable { id });
        }
        if send.is_done() {
            if send.is_delivered() {
                events.push_back(Event::SendFinished { id });
            }
            self.streams.remove_if_done(id);
        }
        if repeat {
            self.streams.queue_control(id);
        }
    }

    /// Applies the losses collected in `lost` of the scratch.
    pub(super) fn apply_lost(&mut self, cx: &mut Cx<'_>) {
        if cx.scratch.lost.is_empty() {
            return;
        }
        if self.traced {
            self.trace_lost(cx);
        }
        self.judge_losses(cx);
        let Scratch { lost, lists, .. } = cx.scratch;
        for (space, pn, frames) in lost.drain(..) {
            self.stats.lost_packets += 1;
            cx.stats.lost_packets += 1;
            for frame in frames.iter() {
                self.frame_lost(cx.now, space, pn, frame);
                if let SentFrame::Datagram { id, .. } = frame {
                    self.datagram_lost(cx.stats, pn, id);
                }
                if let SentFrame::Stream { len, id, start } | SentFrame::StreamFin { len, id, start } = frame {
                    let fin = matches!(frame, SentFrame::StreamFin { .. });
                    self.streams.packet_lost(id, &(start..start + u64::from(len)), fin);
                }
            }
            lists.recycle(frames);
        }
        if self.recovery.take_black_hole() && self.path.mtu.on_black_hole(cx.now) {
            self.recovery.set_max_datagram(self.path.mtu.current());
        }
    }

    /// Queues a lost frame again if it still matters.
    pub(super) fn frame_lost(&mut self, now: Instant, space: SpaceId, pn: u64, frame: SentFrame) {
        match frame {
            SentFrame::Stream { len, id, start } | SentFrame::StreamFin { len, id, start } => {
                let Some(stream) = self.streams.get(id) else { return };
                let Some(send) = &mut stream.send else { return };
                let fin = matches!(frame, SentFrame::StreamFin { .. });
                send.on_lost(start..start + u64::from(len), fin);
                // This may have been the frame that introduces the stream to the peer.
                let unknown = stream.introduced != Introduced::Yes;
                if unknown {
                    stream.introduced = Introduced::No;
                    stream.recv.iter_mut().for_each(RecvStream::tell_again);
                }
                self.streams.queue_send(id);
                if unknown {
                    self.streams.queue_control(id);
                }
            }
            SentFrame::Crypto { start, len } => {
                self.space(space).crypto_tx.on_lost(start..start + u64::from(len));
            }
            SentFrame::MaxData => self.recv_credit.update_lost(),
            SentFrame::MaxStreamData(id) => {
                if let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) {
                    recv.credit_lost();
                    self.streams.queue_control(id);
                }
            }
            SentFrame::MaxStreams(dir) => self.streams.max_streams_lost(dir),
            SentFrame::DataBlocked => self.send_credit.blocked_lost(),
            SentFrame::StreamDataBlocked(id) => {
                if let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut()) {
                    send.credit.blocked_lost();
                    self.streams.queue_control(id);
                }
            }
            SentFrame::StreamsBlocked(dir) => self.streams.streams_blocked_lost(dir),
            SentFrame::ResetStream(id) => {
                if let Some(send) = self.streams.get(id).and_then(|s| s.send.as_mut()) {
                    send.reset_lost();
                    self.streams.queue_control(id);
                }
            }
            SentFrame::ResetStreamAt { id, reliable } => self.reset_at_lost(id, reliable),
            SentFrame::StopSending(id) => {
                if let Some(recv) = self.streams.get(id).and_then(|s| s.recv.as_mut()) {
                    recv.stop_lost();
                    self.streams.queue_control(id);
                }
            }
            SentFrame::NewConnectionId(seq) => self.local_cids.announce_lost(seq as u16),
            SentFrame::RetireConnectionId(seq) => self.remote_cids.retire_lost(seq),
            SentFrame::HandshakeDone => self.handshake_done_due = true,
            SentFrame::NewToken => self.new_tokens_due += 1,
            SentFrame::AckFrequency(seq) => self.ack_request_lost(seq),
            SentFrame::MtuProbe if self.path.mtu.on_lost(now, pn) => {
                self.recovery.set_max_datagram(self.path.mtu.current());
            }
            SentFrame::MtuProbe => {}
            // Datagrams are not sent again (RFC 9221 §5.2).
            SentFrame::Ack { .. } | SentFrame::Datagram { .. } => {}
        }
    }
}
