//! Loss recovery (RFC 9002): acknowledgement, loss detection and probes.
//!
//! [`Recovery`] tracks sent packets in the three packet number spaces and drives congestion control. It neither reads a
//! clock nor sends: the connection passes the time and acts on the results. What each packet carried (`F`) is returned
//! exactly once: when it is acknowledged, lost or discarded. Only packets that are not ack-eliciting may be forgotten
//! silently, as they carry nothing to retransmit.
#![forbid(unsafe_code)]

mod paths;
mod reordering;
mod rtt;
mod sent;
#[cfg(test)]
mod sim;
mod sizes;
mod space;
#[cfg(test)]
mod tests;
mod timer;

use core::fmt;
use core::ops::RangeInclusive;

use thiserror::Error;

use crate::base::time::{Duration, Instant};
use crate::quic::config::CongestionAlgorithm;
use crate::quic::congestion::{Acked, Congestion};

pub use crate::quic::congestion::Permit;
pub(crate) use paths::Onward;
use paths::Switched;
pub(crate) use reordering::PACKET_THRESHOLD;
use reordering::{Late, Reordering};
pub use rtt::RttEstimator;
pub use sent::SentPacket;
use sent::Whereabouts;
use sizes::SizeWatch;
use space::{Early, Losses, SpaceState};

/// Multiple of the probe timeout over which everything must be lost for persistent congestion (RFC 9002 §7.6.1).
const PERSISTENT_CONGESTION_THRESHOLD: u32 = 3;

/// Multiple of the probe timeout within which a loss may turn out to be reordering.
const PROOF_PTOS: u32 = 2;

/// Multiple of the probe timeout for which losses are remembered, from when the packet was sent.
const MEMORY_PTOS: u32 = 4;

/// Number of skipped packet numbers that are remembered: a peer that acknowledges one has not received what it
/// acknowledges (RFC 9000 §21.4).
const SKIPS: usize = 4;

/// A packet number space (RFC 9000 §12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpaceId {
    /// Initial packets.
    Initial,
    /// Handshake packets.
    Handshake,
    /// 0-RTT and 1-RTT packets.
    Data,
}

impl SpaceId {
    /// All spaces in the order of the handshake.
    pub const ALL: [Self; 3] = [Self::Initial, Self::Handshake, Self::Data];

    /// The spaces that are in use. The others are discarded when the handshake is confirmed (RFC 9001 §4.9).
    #[inline]
    pub const fn in_use(handshake_confirmed: bool) -> &'static [Self] {
        if handshake_confirmed { &[Self::Data] } else { &Self::ALL }
    }

    /// Its index in [`SpaceId::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initial => "Initial",
            Self::Handshake => "Handshake",
            Self::Data => "application data",
        })
    }
}

/// Initial settings of recovery.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryConfig {
    /// Assumed round-trip time before the first sample (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Maximum UDP payload in bytes.
    pub max_datagram: u16,
    /// The congestion control algorithm.
    pub algorithm: CongestionAlgorithm,
    /// Whether to pace packets over the round-trip time.
    pub pacing: bool,
    /// Determines when the algorithm probes, if it does so at random times.
    pub seed: u64,
}

impl RecoveryConfig {
    /// Congestion control of a new path.
    fn congestion(&self, now: Instant) -> Congestion {
        Congestion::new(self.algorithm, self.max_datagram, self.pacing, self.initial_rtt, self.seed, now)
    }
}

/// State of the connection that recovery depends on (RFC 9002 Appendix A).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Whether the handshake is confirmed (RFC 9001 §4.1.2).
    pub handshake_confirmed: bool,
    /// Maximum delay of the peer's acknowledgements, as announced by it.
    pub peer_max_ack_delay: Duration,
    /// Whether there are Handshake keys.
    pub has_handshake_keys: bool,
    /// Whether the peer has validated our address, so that it is not limited by anti-amplification. Always true on
    /// servers.
    pub peer_completed_address_validation: bool,
    /// Whether a server may not send before the client does (RFC 9000 §8.1).
    pub at_amplification_limit: bool,
}

/// The effects of an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// The largest newly acknowledged packet number.
    pub largest_newly_acked: Option<u64>,
    /// When that packet was sent.
    pub sent: Instant,
    /// Whether a round-trip time sample was taken.
    pub rtt_sampled: bool,
    /// Whether the window was reduced to its minimum (RFC 9002 §7.6).
    pub persistent_congestion: bool,
    /// Whether the last reduction of the window was undone, because its losses were reordering.
    pub undone: bool,
}

/// An acknowledgement of a packet that was never sent (RFC 9000 §13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("packet {pn} of the {space} space was acknowledged but never sent")]
pub struct InvalidAck {
    /// The space of the ACK frame.
    pub space: SpaceId,
    /// The packet number.
    pub pn: u64,
}

/// What the caller has to do after a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Nothing beyond handling the reported losses.
    None,
    /// Send `count` ack-eliciting packets in `space`, regardless of congestion control (RFC 9002 §6.2.4).
    Probe {
        /// The packet number space.
        space: SpaceId,
        /// The number of packets.
        count: u8,
    },
}

/// Loss recovery and congestion control of one connection. `F` is the contents of packets. Round-trip time and
/// congestion control are those of the path in use (`change_path`).
#[derive(Clone, Debug)]
pub struct Recovery<F> {
    spaces: [SpaceState<F>; 3],
    rtt: RttEstimator,
    congestion: Congestion,
    /// Packets of the Data space that came late or may still do so.
    reordering: Reordering,
    sizes: SizeWatch,
    /// The latest skipped packet numbers of the Data space, each plus one, latest first; 0 if there are fewer.
    skipped: [u64; SKIPS],
    pto_count: u32,
    /// The probe timeout, without backoff, when the latest series of probe timeouts began.
    calm_pto: Duration,
    /// When that series ended: packets sent until then were sent under that timeout.
    calm_until: Instant,
    /// When the handshake was confirmed, if it is.
    confirmed_at: Option<Instant>,
    /// The latest time seen.
    now: Instant,
    /// When the anti-deadlock timer was last set (RFC 9002 §6.2.2.1).
    timer_set: Instant,
    /// What is known of paths used before, if there are any.
    switched: Option<Box<Switched>>,
}

/// Summary of the packets newly acknowledged by one ACK.
#[derive(Clone, Copy, Debug, Default)]
struct NewlyAcked {
    /// The largest number and when it was sent.
    largest: Option<(u64, Instant)>,
    eliciting: bool,
    /// Whether any of them counts for congestion control.
    counts: bool,
    /// Number of bytes that may grow the window.
    bytes: u64,
    /// Length of the longest packet.
    longest: u16,
    /// Whether any of them was sent on another path than the one in use.
    elsewhere: bool,
    /// The packet that was overtaken by most of those acknowledged before, if any was.
    late: Option<Late>,
}

impl<F> Recovery<F> {
    /// Recovery of a new connection.
    pub fn new(config: &RecoveryConfig, now: Instant) -> Self {
        Self {
            spaces: [SpaceState::new(), SpaceState::new(), SpaceState::new()],
            rtt: RttEstimator::new(config.initial_rtt),
            congestion: config.congestion(now),
            reordering: Reordering::default(),
            sizes: SizeWatch::default(),
            skipped: [0; SKIPS],
            pto_count: 0,
            calm_pto: Duration::ZERO,
            calm_until: Instant::ZERO,
            confirmed_at: None,
            now,
            timer_set: now,
            switched: None,
        }
    }

    /// Prefetches the packets in flight of the Data space.
    pub(crate) fn prefetch_lists(&self) {
        self.spaces[SpaceId::Data.index()].ring.prefetch();
    }

    /// Records a sent packet. Packet numbers of a space must increase (RFC 9002 §A.5). Those skipped in the Data space
    /// must never be acknowledged.
    pub fn on_packet_sent(&mut self, space: SpaceId, pn: u64, packet: SentPacket<F>) {
        self.now = self.now.max(packet.time);
        if packet.in_flight {
            self.congestion.on_sent(packet.time, packet.len);
        }
        if packet.eliciting {
            self.timer_set = self.now;
        }
        self.note_skipped(space, pn);
        self.spaces[space.index()].on_sent(pn, packet);
    }

    /// Like [`Recovery::on_packet_sent`] for consecutive packets from number `pn` on that were sent at `now`, with `len`
    /// bytes each. All of them are ack-eliciting and in flight.
    pub(crate) fn on_packets_sent(
        &mut self,
        now: Instant,
        space: SpaceId,
        pn: u64,
        len: u16,
        packets: impl ExactSizeIterator<Item = SentPacket<F>>,
    ) {
        self.now = self.now.max(now);
        self.timer_set = self.now;
        self.congestion.on_run_sent(now, len, packets.len());
        self.note_skipped(space, pn);
        self.spaces[space.index()].on_run_sent(now, pn, packets);
    }

    /// Remembers `pn` if numbers of the Data space before it were skipped.
    #[inline]
    fn note_skipped(&mut self, space: SpaceId, pn: u64) {
        if pn > self.spaces[space.index()].ring.next() && space == SpaceId::Data {
            self.skipped.rotate_right(1);
            self.skipped[0] = pn;
        }
    }

    /// The number of the packet after the latest skipped number of the Data space; 0 if none was skipped.
    pub(crate) fn latest_skip(&self) -> u64 {
        self.skipped[0]
    }

    /// Records that packets sent at `now` have not left this host yet, and will at some later time.
    pub fn on_held(&mut self, now: Instant) {
        self.rtt.distrust_until(now);
    }

    /// Records that the handshake is confirmed, so that the peer can read all packets from now on. Only the Data space is
    /// used after that; the others have been discarded.
    pub fn on_confirmed(&mut self, now: Instant) {
        self.confirmed_at = Some(now);
    }

    /// Handles an ACK frame (RFC 9002 §A.7). `ranges` must come in descending order. `delay` is the ACK Delay field.
    /// [`Recovery::on_congestion_marks`] follows if the frame reports congestion.
    ///
    /// # Errors
    /// [`InvalidAck`] if it covers a packet that was never sent; the connection must then be closed.
    #[allow(clippy::too_many_arguments)]
    pub fn on_ack(
        &mut self,
        now: Instant,
        space: SpaceId,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        delay: Duration,
        cx: &Context,
        acked: impl FnMut(u64, SentPacket<F>),
        mut lost: impl FnMut(u64, F),
    ) -> Result<AckOutcome, InvalidAck> {
        self.now = self.now.max(now);
        let prior_in_flight = self.congestion.in_flight();
        let (new, ack_largest) = self.take_acked(space, ranges, acked)?;
        if let (Some(late), Some(before)) = (new.late, self.spaces[space.index()].largest_acked) {
            self.reordering.on_late(now, late, before.saturating_sub(late.pn), self.rtt.loss_delay());
        }
        let undone = !self.reordering.is_quiet()
            && self.reordering.take_proof(now, MEMORY_PTOS * self.rtt.pto_base())
            && self.congestion.undo(now, self.rtt.smoothed());
        let Some((largest, sent)) = new.largest else { return Ok(AckOutcome { undone, ..AckOutcome::default() }) };
        self.congestion.on_delivered(now, prior_in_flight);
        let state = &mut self.spaces[space.index()];
        state.largest_acked = state.largest_acked.max(Some(ack_largest));
        // Other paths say nothing about this one's (RFC 9000 §9.4).
        let fit = new.eliciting && largest == ack_largest && !new.elsewhere && self.rtt.trusts(now, sent);
        let sample = fit.then(|| now.saturating_since(sent));
        if let Some(rtt) = sample {
            self.rtt.update(now, rtt, credible_delay(space, delay, cx));
        }
        if self.confirmed_at.is_none() {
            self.end_runs_before(space, sent);
        }
        self.sizes.on_ack(new.longest);
        let persistent_congestion = self.detect_lost(now, space, cx, new.longest, &mut lost);
        if new.counts {
            let srtt = self.rtt.smoothed();
            // After an outage, only the packet that ended it counts, not those from before.
            let bytes = if persistent_congestion { new.bytes.min(new.longest.into()) } else { new.bytes };
            let ack = Acked { now, bytes, sent, prior_in_flight, srtt, sample };
            self.congestion.on_ack(&ack);
            if self.congestion.keeps_record() {
                self.forget_sent();
            }
        }
        if cx.peer_completed_address_validation && self.pto_count > 0 {
            self.pto_count = 0;
            self.calm_until = now;
        }
        self.timer_set = self.now;
        let rtt_sampled = sample.is_some();
        Ok(AckOutcome { largest_newly_acked: Some(largest), sent, rtt_sampled, persistent_congestion, undone })
    }

    /// Removes the packets newly acknowledged by `ranges`; also returns the largest number in the frame.
    fn take_acked(
        &mut self,
        space: SpaceId,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        mut acked: impl FnMut(u64, SentPacket<F>),
    ) -> Result<(NewlyAcked, u64), InvalidAck> {
        let state = &mut self.spaces[space.index()];
        let mut new = NewlyAcked::default();
        let mut ack_largest = 0;
        let before = if space == SpaceId::Data { state.largest_acked.unwrap_or(0) } else { 0 };
        for range in ranges {
            let (low, high) = range.into_inner();
            if high >= state.ring.next() {
                return Err(InvalidAck { space, pn: high });
            }
            if low < self.skipped[0] && space == SpaceId::Data {
                // A peer that has received everything ends its ranges above the latest skipped number.
                let skipped = self.skipped.iter().find(|next| (low + 1..=high + 1).contains(next));
                if let Some(next) = skipped {
                    return Err(InvalidAck { space, pn: next - 1 });
                }
            }
            ack_largest = ack_largest.max(high);
            let base = state.ring.base();
            if low < base && space == SpaceId::Data {
                new.late = self.reordering.on_acked(low..=high.min(base - 1)).or(new.late);
            }
            if high < state.ring.lowest() {
                if self.reordering.lowest().is_some_and(|lowest| lowest < low) {
                    continue;
                }
                // All further ranges are older still.
                break;
            }
            let (congestion, eliciting, lowest) = (&mut self.congestion, &mut state.eliciting, &mut state.lowest_acked);
            let switched = &mut self.switched;
            let late = &mut new.late;
            let taken = state.ring.take(low, high, |pn, packet| {
                if pn < before && late.is_none_or(|late| pn < late.pn) && packet.on == Whereabouts::HERE {
                    *late = Some(Late { pn, sent: packet.time });
                }
                *lowest = pn.min(*lowest);
                new.longest = new.longest.max(packet.len);
                if packet.in_flight {
                    congestion.remove(packet.len);
                    new.counts = true;
                    new.bytes += u64::from(packet.len) * u64::from(!congestion.in_recovery(packet.time));
                } else if packet.on != Whereabouts::HERE {
                    new.elsewhere = true;
                    paths::release(switched, congestion, &packet);
                }
                *eliciting -= usize::from(packet.eliciting);
                new.eliciting |= packet.eliciting;
                if new.largest.is_none_or(|(largest, _)| largest < pn) {
                    new.largest = Some((pn, packet.time));
                }
                acked(pn, packet);
            });
            if taken.map_err(|pn| InvalidAck { space, pn })? {
                state.end_loss_run();
            }
        }
        Ok((new, ack_largest))
    }

    /// Handles an increase of the number of packets that the network has marked (RFC 9002 §7.1, §B.7). `sent` is when the
    /// largest packet was sent that the same ACK frame newly acknowledges. The caller has validated the report.
    pub fn on_congestion_marks(&mut self, now: Instant, sent: Instant) {
        self.reordering.disarm();
        self.congestion.on_marks(now, sent, self.rtt.smoothed());
    }

    /// Lets congestion control forget what is no longer in flight.
    fn forget_sent(&mut self) {
        self.congestion.forget_before(self.oldest_sent().unwrap_or(Instant::MAX));
    }

    /// When the oldest packet that awaits an acknowledgement was sent.
    fn oldest_sent(&self) -> Option<Instant> {
        let fronts = self.spaces.iter().filter_map(|space| space.ring.iter().next());
        fronts.map(|(_, packet)| packet.time).min()
    }

    /// Whether the congestion window was reduced since a packet was sent at `sent`.
    pub(crate) fn in_recovery(&self, sent: Instant) -> bool {
        self.congestion.in_recovery(sent)
    }

    /// Whether packets are in flight that were sent before the last reduction of the window, so that the recovery period is
    /// not over (RFC 9002 §7.3.2).
    pub(crate) fn is_recovering(&self) -> bool {
        self.oldest_sent().is_some_and(|sent| self.congestion.in_recovery(sent))
    }

    /// The lowest number of a packet of `space` that may still be acknowledged for the first time.
    pub(crate) fn lowest_in_flight(&self, space: SpaceId) -> u64 {
        self.spaces[space.index()].ring.lowest()
    }

    /// Detects losses in `space`; true if they amount to persistent congestion (RFC 9002 §A.10, §B.8). `acked` is the
    /// length of the longest packet just acknowledged.
    fn detect_lost(
        &mut self,
        now: Instant,
        space: SpaceId,
        cx: &Context,
        acked: u16,
        lost: &mut impl FnMut(u64, F),
    ) -> bool {
        let (congestion, reordering, sizes) = (&mut self.congestion, &mut self.reordering, &mut self.sizes);
        let switched = &mut self.switched;
        let (usual, first) = (self.rtt.loss_delay(), self.rtt.first_sample());
        // Only the Data space has enough packets to tell of reordering.
        let (threshold, delay) = match space {
            SpaceId::Data => (reordering.packet_threshold(), reordering.loss_delay(usual)),
            _ => (PACKET_THRESHOLD, usual),
        };
        let pto = self.rtt.pto_base();
        let proof_until = now + PROOF_PTOS * pto;
        let early = Early {
            below: self.spaces[space.index()].lowest_acked,
            until: if space != SpaceId::Data || !cx.handshake_confirmed {
                Instant::MAX
            } else {
                self.confirmed_at.unwrap_or_default()
            },
        };
        let mut reduced = false;
        sizes.begin();
        let state = &mut self.spaces[space.index()];
        let losses = state.detect_lost(now, threshold, delay, first, early, |pn, packet, early| {
            if packet.in_flight {
                congestion.remove(packet.len);
                if !early {
                    if !reduced && !congestion.in_recovery(packet.time) {
                        reduced = true;
                        reordering.restart(proof_until);
                    }
                    if space == SpaceId::Data {
                        reordering.insert(pn, packet.time);
                    }
                    congestion.on_lost(now, pn, packet.time, packet.len);
                    sizes.on_lost(packet.len, packet.time, acked, pto);
                }
            } else if packet.on != Whereabouts::HERE {
                paths::release(switched, congestion, &packet);
            }
            lost(pn, packet.frames);
        });
        if reduced && space != SpaceId::Data {
            reordering.disarm();
        }
        self.react(now, cx, &losses)
    }

    /// A packet of `space` that was sent at `sent` has arrived, so losses in other spaces before and after it are not
    /// persistent congestion (RFC 9002 §7.6.2).
    fn end_runs_before(&mut self, space: SpaceId, sent: Instant) {
        for other in SpaceId::ALL.into_iter().filter(|other| *other != space) {
            self.spaces[other.index()].arrived_elsewhere(sent);
        }
    }

    fn react(&mut self, now: Instant, cx: &Context, losses: &Losses) -> bool {
        let srtt = self.rtt.smoothed();
        let Some(sent) = losses.latest else { return false };
        self.congestion.on_congestion_event(now, sent, srtt);
        // Judged by the timeout under which the probes were sent. The first sample after an outage may be as long as
        // the outage itself (for a packet that arrived before it, but whose acknowledgement was lost); with a timeout
        // derived from that, nothing would ever look persistent.
        let pto = self.rtt.pto_base();
        let pto = if sent <= self.calm_until { pto.min(self.calm_pto) } else { pto };
        let limit = PERSISTENT_CONGESTION_THRESHOLD * (pto + cx.peer_max_ack_delay);
        let persistent = losses.span > limit;
        if persistent {
            self.reordering.disarm();
            self.rtt.restart_min();
            self.congestion.on_persistent_congestion(now, sent, srtt);
        }
        persistent
    }

    /// Whether the path drops large packets, judged by the fate of those sent. True once.
    pub fn take_black_hole(&mut self) -> bool {
        self.sizes.take_black_hole()
    }

    /// Whether a packet of up to `len` bytes may be sent at `now`. Probes and packets that do not count as in flight
    /// need no permit.
    pub fn permit(&self, now: Instant, len: u16) -> Permit {
        self.congestion.permit(now, len)
    }

    /// The number of packets of `len` bytes that [`Recovery::permit`] allows in a row, if it is asked before each for
    /// one of `asked` bytes.
    pub(crate) fn permits(&self, now: Instant, asked: u16, len: u16) -> usize {
        self.congestion.permits(now, asked, len)
    }

    /// Discards a space whose keys are discarded (RFC 9002 §6.4); `each` gets the contents of its packets.
    pub fn discard_space(&mut self, space: SpaceId, each: impl FnMut(F)) {
        self.drain(space, each);
        if self.pto_count > 0 {
            self.pto_count = 0;
            self.calm_until = self.now;
        }
    }

    /// Removes all packets of `space` from those in flight, as after a Retry; `each` gets their contents.
    pub fn drain(&mut self, space: SpaceId, mut each: impl FnMut(F)) {
        let (congestion, switched) = (&mut self.congestion, &mut self.switched);
        self.spaces[space.index()].drain(|packet| {
            if packet.in_flight {
                congestion.remove(packet.len);
            } else if packet.on != Whereabouts::HERE {
                paths::release(switched, congestion, &packet);
            }
            each(packet.frames);
        });
        self.timer_set = self.now;
    }

    /// Sets whether the application, not congestion control, limits what is sent (RFC 9002 §7.8).
    pub fn set_app_limited(&mut self, limited: bool) {
        self.congestion.set_app_limited(limited);
    }

    /// Whether the congestion window suffices for datagrams of `size` bytes as it is: it must not grow because the path
    /// turns out to carry them (RFC 8899 §3). The exception is the initial window, which depends on the size (RFC 9002
    /// §7.2).
    pub fn takes_datagrams_of(&self, size: u16) -> bool {
        self.congestion.takes_datagrams_of(size)
    }

    /// Changes the maximum UDP payload to `max_datagram` bytes.
    pub fn set_max_datagram(&mut self, max_datagram: u16) {
        self.congestion.set_max_datagram(self.now, max_datagram, self.rtt.smoothed());
    }

    /// The round-trip time.
    pub fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// The congestion window in bytes.
    pub fn cwnd(&self) -> u64 {
        self.congestion.window()
    }

    /// Number of bytes in flight, neither acknowledged nor lost.
    pub fn bytes_in_flight(&self) -> u64 {
        self.congestion.in_flight()
    }

    /// The number of later packets of `space` acknowledged after which a packet is lost (RFC 9002 §6.1.1).
    pub(crate) fn packet_threshold(&self, space: SpaceId) -> u64 {
        if space == SpaceId::Data { self.reordering.packet_threshold() } else { PACKET_THRESHOLD }
    }

    /// Frees unused memory.
    pub fn trim(&mut self) {
        self.reordering.trim();
        for space in &mut self.spaces {
            space.ring.trim();
        }
    }

    /// The state of congestion control.
    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// The largest acknowledged packet number of `space`.
    pub fn largest_acked(&self, space: SpaceId) -> Option<u64> {
        self.spaces[space.index()].largest_acked
    }

    /// Number and contents of the oldest ack-eliciting packet of `space` in flight whose contents are `wanted`. Probes of
    /// the datagram size, which are not retransmitted, do not count.
    pub fn oldest_unacked(&mut self, space: SpaceId, wanted: impl Fn(&F) -> bool) -> Option<(u64, &mut F)> {
        let mut packets = self.spaces[space.index()].ring.iter_mut();
        let (pn, packet) =
            packets.find(|(_, p)| p.eliciting && (p.in_flight || p.on != Whereabouts::HERE) && wanted(&p.frames))?;
        Some((pn, &mut packet.frames))
    }

    /// Whether an ack-eliciting packet of `space` is in flight.
    pub fn is_eliciting_in_flight(&self, space: SpaceId) -> bool {
        self.spaces[space.index()].eliciting > 0
    }
}

/// The part of the acknowledgement delay that is credible (RFC 9002 §5.3).
fn credible_delay(space: SpaceId, delay: Duration, cx: &Context) -> Duration {
    match space {
        SpaceId::Initial => Duration::ZERO,
        _ if cx.handshake_confirmed => delay.min(cx.peer_max_ack_delay),
        _ => delay,
    }
}
