//! The acknowledgement frequency that both ends ask of each other (draft-ietf-quic-ack-frequency-14).

use crate::base::time::Duration;
use crate::quic::ack_frequency::{Asked, Facts};
use crate::quic::config::AckRequests;
use crate::quic::connection::Connection;
use crate::quic::connection::packet::PacketBuilder;
use crate::quic::connection::peer::NO_REQUESTS;
use crate::quic::connection::sent::SentFrame;
use crate::quic::recovery::SpaceId;
use crate::wire::quic::TransportError;
use crate::wire::quic::frame::Frame;

/// The largest window, in packets, for which gaps provoke acknowledgements. Receivers acknowledge long before they have
/// received half of a larger one.
const SMALL_WINDOW: u64 = 64;

impl Connection {
    /// The minimum delay that the peer may request, as announced: at most our `max_ack_delay`
    /// (draft-ietf-quic-ack-frequency-14 §3).
    pub(super) fn least_ack_delay(&self) -> Option<Duration> {
        self.config.min_ack_delay.map(|min| min.min(self.config.max_ack_delay))
    }

    /// Handles an ACK_FREQUENCY frame.
    pub(super) fn on_ack_frequency(
        &mut self,
        seq: u64,
        threshold: u64,
        max_delay: u64,
        reordering: u64,
    ) -> Result<(), TransportError> {
        // In whole microseconds, as announced.
        let min = Duration::from_micros(self.least_ack_delay().unwrap_or_default().as_micros() as u64);
        let obeyed = &mut self.ack_frequency.get_or_insert_default().obeyed;
        if let Some(rule) = obeyed.on_frame(seq, threshold, max_delay, reordering, min)? {
            self.ack_rule = rule;
        }
        Ok(())
    }

    /// Whether the mark of packet `pn` by ECN is acknowledged at once.
    #[cold]
    pub(super) fn is_news(&mut self, pn: u64) -> bool {
        let rule = self.ack_rule;
        self.ack_frequency.as_mut().is_none_or(|frequency| frequency.obeyed.is_news(pn, &rule))
    }

    /// Prepares requests to the peer, whose transport parameters have arrived.
    pub(super) fn start_ack_requests(&mut self) {
        let requests = self.config.ack_requests;
        if self.peer.min_ack_delay != NO_REQUESTS && requests != AckRequests::Never {
            let min = Duration::from_micros(self.peer.min_ack_delay.into());
            let asked = Asked::new(requests, min, self.peer_max_ack_delay());
            self.ack_frequency.get_or_insert_default().asked = Some(asked);
        }
    }

    fn asked(&mut self) -> Option<&mut Asked> {
        self.ack_frequency.as_mut()?.asked.as_mut()
    }

    /// Decides, after an acknowledgement, whether to ask the peer for more or fewer of them.
    pub(super) fn consider_ack_requests(&mut self) {
        if !self.confirmed || self.asked().is_none() {
            return;
        }
        let facts = Facts {
            window: self.window_in_packets(),
            srtt: self.recovery.rtt().smoothed(),
            slow_start: self.recovery.congestion().in_slow_start(),
            // The keys are lent to the packet with the acknowledgement, so `has_data` would be wrong.
            busy: self.streams.wants_to_send() || self.datagrams_pending(),
        };
        if let Some(asked) = self.asked() {
            asked.consider(&facts);
        }
    }

    /// Whether an ACK_FREQUENCY frame is to be sent.
    pub(super) fn ack_request_due(&self) -> bool {
        let asked = self.ack_frequency.as_ref().and_then(|frequency| frequency.asked.as_ref());
        asked.is_some_and(|asked| asked.due().is_some())
    }

    /// Appends an ACK_FREQUENCY frame if one is due.
    pub(super) fn put_ack_request(&mut self, builder: &mut PacketBuilder<'_>) {
        let Some((seq, request)) = self.asked().and_then(|asked| asked.due()) else { return };
        let max_delay = request.max_delay.as_micros() as u64;
        let frame =
            Frame::AckFrequency { seq, threshold: request.threshold, max_delay, reordering: request.reordering };
        if builder.put(&frame, Some(SentFrame::AckFrequency(seq)))
            && let Some(asked) = self.asked()
        {
            asked.sent();
            self.expect_ack_delay();
        }
    }

    /// Takes over the delay of acknowledgements to expect, which the probe timeout depends on
    /// (draft-ietf-quic-ack-frequency-14 §7).
    fn expect_ack_delay(&mut self) {
        if let Some(delay) = self.asked().map(|asked| asked.delay()) {
            self.peer.max_ack_delay = delay.as_micros() as u64;
        }
    }

    /// Handles the acknowledgement of an ACK_FREQUENCY frame.
    pub(super) fn ack_request_acked(&mut self, seq: u64) {
        if let Some(asked) = self.asked() {
            asked.on_acked(seq);
            self.expect_ack_delay();
        }
    }

    /// Handles the loss of an ACK_FREQUENCY frame.
    pub(super) fn ack_request_lost(&mut self, seq: u64) {
        if let Some(asked) = self.asked() {
            asked.on_lost(seq);
        }
    }

    /// Asks for an acknowledgement of a probe at once, if the peer supports that (draft-ietf-quic-ack-frequency-14 §7).
    pub(super) fn hurry(&self, space: SpaceId, builder: &mut PacketBuilder<'_>) {
        if space == SpaceId::Data && self.peer.min_ack_delay != NO_REQUESTS {
            builder.put(&Frame::ImmediateAck, None);
        }
    }

    /// Whether the window is so small that the peer, whose acknowledgements are slow, may delay that of a whole window
    /// because it waits for more packets, and that it cannot be asked to do otherwise.
    pub(super) fn starves_for_acks(&self) -> bool {
        self.slow_acks
            && self.confirmed
            && self.recovery.cwnd() < SMALL_WINDOW * u64::from(self.path.mtu.current())
            && self.ack_frequency.as_ref().is_none_or(|frequency| frequency.asked.is_none())
    }

    /// Skips a packet number before the last packet for which the window has room, so that the peer acknowledges it at
    /// once: for all that it knows, a packet is missing (RFC 9000 §13.2.1). Otherwise, a peer that waits for more packets
    /// than there are in a window would make each window take the longest delay of its acknowledgements.
    #[cold]
    pub(super) fn hurry_window(&mut self) {
        let mtu = u64::from(self.path.mtu.current());
        let room = self.recovery.cwnd().saturating_sub(self.recovery.bytes_in_flight());
        let pn = self.spaces[SpaceId::Data.index()].next_pn;
        // A few acknowledgements per window are enough.
        let since = pn.saturating_sub(self.recovery.latest_skip());
        if room < 2 * mtu && since >= (self.window_in_packets() / 4).max(2) && self.data_pending() {
            self.skip_at = pn;
        }
    }

    /// Asks for an acknowledgement of the last packet before a pause at once, if the peer may otherwise wait for more
    /// packets (draft-ietf-quic-ack-frequency-14 §8.1.1).
    pub(super) fn hurry_last(&mut self, space: SpaceId, builder: &mut PacketBuilder<'_>) {
        if self.asked().is_some_and(|asked| asked.is_patient()) {
            self.hurry(space, builder);
        }
    }
}
