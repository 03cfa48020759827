//! Datagrams of a connection (RFC 9221): what packets carry and bring.

use crate::base::time::Instant;
use crate::crypto::Opened;
use crate::quic::config::DatagramOrder;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::packet::{PacketBuilder, TAG_LEN};
use crate::quic::connection::{Connection, Cx};
use crate::quic::datagram::{Datagrams, longest_in};
use crate::quic::event::{DatagramId, DatagramOutcome, Event, SendData};
use crate::quic::memory::Purse;
use crate::quic::stats::{EndpointStats, PlacementStats};
use crate::wire::quic::frame::{AckFrame, Frame};
use crate::wire::quic::{ConnectionId, TransportError};

impl Connection {
    /// The longest datagram that can be sent at present, in bytes (RFC 9221 §5). `None` if the peer accepts none.
    pub(super) fn max_datagram_len(&self) -> Option<usize> {
        if self.config.datagrams.is_none() || !self.may_send_data() {
            return None;
        }
        // With the longest packet number: a short header, or the long one of a 0-RTT packet.
        let header = if self.one_rtt.is_some() { 1 } else { 1 + 4 + 1 + 1 + ConnectionId::MAX + 2 };
        let overhead = header + self.remote_cids.current().len() + 4 + TAG_LEN;
        let room = usize::from(self.path.mtu.current()).saturating_sub(overhead);
        longest_in(room.min(self.peer.max_datagram.into()))
    }

    /// Whether datagrams are in the queue.
    pub(super) fn datagrams_pending(&self) -> bool {
        self.datagrams.as_ref().is_some_and(|datagrams| datagrams.send.is_pending())
    }

    /// Whether datagrams wait and may be sent.
    pub(super) fn datagrams_wait(&self) -> bool {
        self.datagrams_pending() && self.may_send_data()
    }

    /// Reports that datagrams were dropped before they were sent.
    pub(super) fn datagram_dropped(&mut self, id: DatagramId, data: SendData, outcome: DatagramOutcome) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.stats.unsent += 1;
        }
        self.events.push_back(Event::DatagramDone { id, data, outcome });
    }

    /// Drops datagrams that were not sent before their deadline (RFC 9221 §5.4).
    #[cold]
    pub(super) fn expire_datagrams(&mut self, now: Instant) {
        let Some(Datagrams { send, stats, .. }) = self.datagrams.as_deref_mut() else { return };
        let events = &mut self.events;
        send.expire(now, |id, data| {
            stats.unsent += 1;
            events.push_back(Event::DatagramDone { id, data, outcome: DatagramOutcome::Expired });
        });
        self.datagrams_have_room();
    }

    fn datagrams_have_room(&mut self) {
        let (Some(datagrams), Some(config)) = (&mut self.datagrams, &self.config.datagrams) else { return };
        if datagrams.send.take_room(config) {
            self.events.push_back(Event::DatagramsWritable);
        }
    }

    /// Appends frames with data while datagrams wait: of datagrams and streams, in the order that the settings demand
    /// (RFC 9221 §5.1).
    pub(super) fn put_data(&mut self, cx: &mut Cx<'_>, builder: &mut PacketBuilder<'_>) {
        self.expire_datagrams(cx.now);
        let order = self.config.datagrams.as_ref().map_or_else(DatagramOrder::default, |config| config.order);
        let both = self.streams.wants_to_send();
        let lead = self.datagrams.as_mut().is_none_or(|datagrams| datagrams.send.leads(order, both));
        if lead {
            self.put_datagrams(builder);
        }
        if self.streams.has_turns() && self.streams.held_up() {
            // Data that the peer refuses is sent alone, so that no datagram is lost along with it.
            self.put_stream_alone(cx, builder);
            if builder.eliciting {
                return;
            }
        } else {
            self.put_streams(cx, builder, None);
        }
        self.put_datagrams(builder);
    }

    /// Appends DATAGRAM frames as long as they fit.
    fn put_datagrams(&mut self, builder: &mut PacketBuilder<'_>) {
        let most = self.max_datagram_len();
        while let Some(send) = self.datagrams.as_mut().map(|datagrams| &mut datagrams.send)
            && let Some((id, len)) = send.front()
        {
            if most.is_none_or(|most| len > most) {
                // The path carries less than when it was queued.
                if let Some((id, data)) = send.pop() {
                    self.datagram_dropped(id, data, DatagramOutcome::TooLarge);
                }
            } else if builder.put_datagram(id, len) {
                send.pick();
            } else {
                return;
            }
        }
    }

    /// Returns the memory of the datagrams in the packet that was just sealed.
    pub(super) fn datagrams_sealed(&mut self, cx: &mut Cx<'_>) {
        let Some(Datagrams { send, stats, .. }) = self.datagrams.as_deref_mut() else { return };
        for (id, data) in send.sealed() {
            stats.sent += 1;
            cx.stats.dgram_frames_sent += 1;
            self.events.push_back(Event::DatagramDone { id, data, outcome: DatagramOutcome::Sent });
        }
        self.datagrams_have_room();
    }

    fn reports_delivery(&self) -> bool {
        self.config.datagrams.as_ref().is_some_and(|config| config.report_delivery)
    }

    /// Handles the acknowledgement of a packet with datagram `id`.
    pub(super) fn datagram_acked(&mut self, id: u64) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.stats.acked += 1;
        }
        if self.reports_delivery() {
            self.events.push_back(Event::DatagramAcked { id: DatagramId(id) });
        }
    }

    /// Handles the loss of packet `pn` with datagram `id`.
    pub(super) fn datagram_lost(&mut self, stats: &mut EndpointStats, pn: u64, id: u64) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.send.on_lost(pn, id);
        }
        self.datagram_gone(stats, id);
    }

    /// Counts and reports the loss of datagram `id`.
    pub(super) fn datagram_gone(&mut self, stats: &mut EndpointStats, id: u64) {
        stats.dgram_frames_lost += 1;
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.stats.lost += 1;
        }
        if self.reports_delivery() {
            self.events.push_back(Event::DatagramLost { id: DatagramId(id) });
        }
    }

    /// Handles an acknowledgement: packets that were considered lost may be among those that arrived (RFC 9221 §5.2).
    pub(super) fn datagrams_late(&mut self, ack: &AckFrame<'_>) {
        let reports = self.reports_delivery();
        let Some(Datagrams { send, stats, .. }) = self.datagrams.as_deref_mut() else { return };
        if !send.has_lost() {
            return;
        }
        for range in ack.ranges() {
            send.on_late_ack(&range, |id| {
                stats.acked += 1;
                if reports {
                    self.events.push_back(Event::DatagramAcked { id });
                }
            });
        }
    }

    /// Handles a DATAGRAM frame with a header of `header` bytes, whose data starts at `at` in the payload and has the
    /// length `len`, or extends to the end. Returns the length.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION if we accept no frames of this size, or none at all (RFC 9221 §3).
    #[inline(never)]
    pub(super) fn on_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        pn: u64,
        at: usize,
        header: usize,
        len: Option<u64>,
        opened: &Opened<'_>,
    ) -> Result<usize, Fault> {
        let frame_type = || Frame::Datagram { len }.frame_type();
        let rest = opened.len() - at;
        let whole = len.map_or(Some(rest), |len| usize::try_from(len).ok()).filter(|len| *len <= rest);
        let Some(len) = whole else {
            let why = "DATAGRAM frame is longer than its packet";
            return Err(Fault::new(TransportError::FRAME_ENCODING_ERROR, frame_type(), why));
        };
        let most = self.config.datagrams.as_ref().map_or(0, |config| usize::from(config.max_frame_size));
        let (Some(config), true) = (&self.config.datagrams, header + len <= most) else {
            let why = format!("DATAGRAM frame of {} bytes; {most} are accepted", header + len);
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, frame_type(), why));
        };
        let datagrams = self.datagrams.get_or_insert_default();
        let came = self.stats.rx_bytes;
        let purse = Purse { memory: cx.memory, account: &mut self.account, remote: &self.path.remote, came };
        let mut bytes = PlacementStats::default();
        let placed = datagrams.recv.place(pn, len, config, purse, |memory| {
            bytes.count(opened.way(), at, memory.len());
            opened.decrypt_at(at, memory);
        });
        datagrams.stats.received += 1;
        cx.stats.dgram_frames_received += 1;
        for why in placed.dropped {
            datagrams.stats.dropped += 1;
            cx.stats.drop(why);
        }
        self.add_placement(cx.stats, &bytes);
        Ok(len)
    }

    /// Forgets the datagrams of packet `pn`, which will not be acknowledged.
    #[cold]
    pub(super) fn undo_datagrams(&mut self, stats: &mut EndpointStats, pn: u64) {
        if let Some(datagrams) = &mut self.datagrams {
            let undone = datagrams.recv.undo(pn) as u64;
            datagrams.stats.received -= undone;
            stats.dgram_frames_received -= undone;
        }
    }

    /// Whether received datagrams are to be reported.
    pub(super) fn datagrams_have_news(&self) -> bool {
        self.datagrams.as_ref().is_some_and(|datagrams| datagrams.recv.has_news())
    }

    /// Reports received datagrams.
    pub(super) fn flush_datagrams(&mut self) {
        let (Some(datagrams), Some(config)) = (&mut self.datagrams, &self.config.datagrams) else { return };
        let events = &mut self.events;
        datagrams.recv.flush(config, |event| events.push_back(event));
    }

    /// Returns the memory of datagrams, as the connection is over. If `keep`, those that were not taken are reported once
    /// more.
    pub(super) fn end_datagrams(&mut self, keep: bool) {
        if keep && let Some(datagrams) = &mut self.datagrams {
            datagrams.recv.tell_again();
        }
        self.flush_datagrams();
        let Some(datagrams) = &mut self.datagrams else { return };
        let events = &mut self.events;
        datagrams.recv.release(|event| events.push_back(event));
        for (id, data) in datagrams.send.release() {
            datagrams.stats.unsent += 1;
            events.push_back(Event::DatagramDone { id, data, outcome: DatagramOutcome::Closed });
        }
        if !keep {
            self.datagrams = None;
        }
    }
}
