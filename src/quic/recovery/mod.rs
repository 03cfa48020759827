//! Loss recovery (RFC 9002): which packets are acknowledged, which are lost, and when to probe.
//!
//! [`Recovery`] tracks what was sent in the three packet number spaces and drives congestion control.
//! It neither reads a clock nor sends: the connection passes time in and acts on what comes back.
//! What each packet carried (`F`) comes back exactly once: acknowledged, lost or discarded.
//! Only packets that nobody has to acknowledge may be forgotten silently: they carry nothing to repeat.
#![forbid(unsafe_code)]

mod rtt;
mod sent;
#[cfg(test)]
mod sim;
mod sizes;
mod space;
mod spurious;
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
pub use rtt::RttEstimator;
pub use sent::SentPacket;
use sizes::SizeWatch;
use space::{Early, Losses, SpaceState};
use spurious::LostNumbers;

/// Times the probe timeout, over which everything must be lost to be persistent congestion (RFC 9002 §7.6.1).
const PERSISTENT_CONGESTION_THRESHOLD: u32 = 3;

/// Times the probe timeout, within which lost packets may turn out to have been overtaken only.
const PROOF_PTOS: u32 = 2;

/// Left-out packet numbers that are remembered: whoever acknowledges one says more than it knows (RFC 9000 §21.4).
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

    /// Its place in [`SpaceId::ALL`].
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

/// What recovery starts from.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryConfig {
    /// Round-trip time that is assumed before the first sample (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Largest UDP payload in bytes.
    pub max_datagram: u16,
    /// The congestion controller.
    pub algorithm: CongestionAlgorithm,
    /// Spread packets over the round trip.
    pub pacing: bool,
}

/// What recovery has to know about the rest of the connection (RFC 9002 Appendix A).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The handshake is confirmed (RFC 9001 §4.1.2).
    pub handshake_confirmed: bool,
    /// Longest time the peer says it holds an acknowledgement back.
    pub peer_max_ack_delay: Duration,
    /// There are keys for Handshake packets.
    pub has_handshake_keys: bool,
    /// The peer needs no more packets of ours to be free of its amplification limit. Always true of servers.
    pub peer_completed_address_validation: bool,
    /// A server may not send before the client does (RFC 9000 §8.1).
    pub at_amplification_limit: bool,
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// The largest packet number that was not acknowledged before.
    pub largest_newly_acked: Option<u64>,
    /// A round-trip time sample was taken.
    pub rtt_sampled: bool,
    /// The window was reduced to its minimum (RFC 9002 §7.6).
    pub persistent_congestion: bool,
    /// The last reduction of the window was undone: its losses were only reordering.
    pub undone: bool,
}

/// An acknowledgement of a packet that was never sent (RFC 9000 §13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("packet {pn} of the {space} space is acknowledged but was never sent: close with PROTOCOL_VIOLATION")]
pub struct InvalidAck {
    /// The space of the ACK frame.
    pub space: SpaceId,
    /// The packet number.
    pub pn: u64,
}

/// What a timeout asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Nothing beyond the losses that were told.
    None,
    /// Send `count` ack-eliciting packets in `space`, whatever congestion control says (RFC 9002 §6.2.4).
    Probe {
        /// Where.
        space: SpaceId,
        /// How many.
        count: u8,
    },
}

/// Loss recovery and congestion control of one connection on one path. `F` is what packets carry.
#[derive(Clone, Debug)]
pub struct Recovery<F> {
    spaces: [SpaceState<F>; 3],
    rtt: RttEstimator,
    congestion: Congestion,
    /// Data packets whose loss reduced the window.
    lost: LostNumbers,
    sizes: SizeWatch,
    /// The latest packet numbers of the Data space that were left out, each plus one; the latest first, 0: none.
    skipped: [u64; SKIPS],
    pto_count: u32,
    /// The probe timeout, without backoff, when the latest series of probe timeouts began.
    calm_pto: Duration,
    /// When that series ended: what was sent until then was sent by that timeout.
    calm_until: Instant,
    /// When the handshake was confirmed.
    confirmed_at: Instant,
    /// The latest time seen.
    now: Instant,
    /// When the anti-deadlock timer was last set (RFC 9002 §6.2.2.1).
    timer_set: Instant,
}

/// What the newly acknowledged packets of one ACK have in common.
#[derive(Clone, Copy, Debug, Default)]
struct NewlyAcked {
    /// The largest number and when it was sent.
    largest: Option<(u64, Instant)>,
    eliciting: bool,
    /// Any of them counts for congestion control.
    counts: bool,
    /// Bytes that may grow the window.
    bytes: u64,
    /// Length of the longest packet.
    longest: u16,
}

impl<F> Recovery<F> {
    /// Recovery of a new connection.
    pub fn new(config: &RecoveryConfig, now: Instant) -> Self {
        Self {
            spaces: [SpaceState::new(), SpaceState::new(), SpaceState::new()],
            rtt: RttEstimator::new(config.initial_rtt),
            congestion: Congestion::new(config.algorithm, config.max_datagram, config.pacing, config.initial_rtt, now),
            lost: LostNumbers::default(),
            sizes: SizeWatch::default(),
            skipped: [0; SKIPS],
            pto_count: 0,
            calm_pto: Duration::ZERO,
            calm_until: Instant::ZERO,
            confirmed_at: Instant::ZERO,
            now,
            timer_set: now,
        }
    }

    /// The packets in flight of the Data space start to come into the cache.
    pub(crate) fn prefetch_lists(&self) {
        self.spaces[SpaceId::Data.index()].ring.prefetch();
    }

    /// A packet was sent. Numbers of a space only go up (RFC 9002 §A.5). One that is left out in the Data space must never
    /// be acknowledged.
    pub fn on_packet_sent(&mut self, space: SpaceId, pn: u64, packet: SentPacket<F>) {
        self.now = self.now.max(packet.time);
        if packet.in_flight {
            self.congestion.on_sent(packet.time, packet.len);
        }
        if packet.eliciting {
            self.timer_set = self.now;
        }
        let state = &mut self.spaces[space.index()];
        if pn > state.ring.next() && space == SpaceId::Data {
            self.skipped.rotate_right(1);
            self.skipped[0] = pn;
        }
        state.on_sent(pn, packet);
    }

    /// The handshake is confirmed: from now on, the peer can read whatever it gets.
    pub fn on_confirmed(&mut self, now: Instant) {
        self.confirmed_at = now;
    }

    /// An ACK frame arrived (RFC 9002 §A.7). `ranges` come largest first. `delay` is the ACK Delay field,
    /// `ce` its count of packets marked by ECN, if it has one.
    ///
    /// # Errors
    /// If it covers a packet that was never sent; the connection has to be closed then.
    #[allow(clippy::too_many_arguments)]
    pub fn on_ack(
        &mut self,
        now: Instant,
        space: SpaceId,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        delay: Duration,
        ce: Option<u64>,
        cx: &Context,
        acked: impl FnMut(u64, SentPacket<F>),
        mut lost: impl FnMut(u64, F),
    ) -> Result<AckOutcome, InvalidAck> {
        self.now = self.now.max(now);
        let prior_in_flight = self.congestion.in_flight();
        let (new, ack_largest) = self.take_acked(space, ranges, acked)?;
        let undone = self.lost.take_proof(now) && self.congestion.undo(now, self.rtt.smoothed());
        let Some((largest, sent)) = new.largest else { return Ok(AckOutcome { undone, ..AckOutcome::default() }) };
        let state = &mut self.spaces[space.index()];
        state.largest_acked = state.largest_acked.max(Some(ack_largest));
        let sample = (new.eliciting && largest == ack_largest).then(|| now.saturating_since(sent));
        if let Some(rtt) = sample {
            self.rtt.update(now, rtt, credible_delay(space, delay, cx));
        }
        self.on_ecn(now, space, ce, sent);
        self.sizes.on_ack(new.longest);
        let persistent_congestion = self.detect_lost(now, space, cx, new.longest, &mut lost);
        if new.counts {
            let srtt = self.rtt.smoothed();
            // After an outage, what counts is the packet that told of its end, not those from before.
            let bytes = if persistent_congestion { new.bytes.min(new.longest.into()) } else { new.bytes };
            let ack = Acked { now, bytes, sent, prior_in_flight, srtt, sample };
            self.congestion.on_ack(&ack);
        }
        if cx.peer_completed_address_validation && self.pto_count > 0 {
            self.pto_count = 0;
            self.calm_until = now;
        }
        self.timer_set = self.now;
        let rtt_sampled = sample.is_some();
        Ok(AckOutcome { largest_newly_acked: Some(largest), rtt_sampled, persistent_congestion, undone })
    }

    /// Takes what `ranges` newly acknowledge out; returns the largest number they name as well.
    fn take_acked(
        &mut self,
        space: SpaceId,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        mut acked: impl FnMut(u64, SentPacket<F>),
    ) -> Result<(NewlyAcked, u64), InvalidAck> {
        let state = &mut self.spaces[space.index()];
        let mut new = NewlyAcked::default();
        let mut ack_largest = 0;
        for range in ranges {
            let (low, high) = range.into_inner();
            if high >= state.ring.next() {
                return Err(InvalidAck { space, pn: high });
            }
            if low < self.skipped[0] && space == SpaceId::Data {
                // Those of a peer that has got them all end behind the latest one.
                let skipped = self.skipped.iter().find(|next| (low + 1..=high + 1).contains(next));
                if let Some(next) = skipped {
                    return Err(InvalidAck { space, pn: next - 1 });
                }
            }
            ack_largest = ack_largest.max(high);
            let base = state.ring.base();
            if low < base && space == SpaceId::Data {
                self.lost.on_acked(low..=high.min(base - 1));
            }
            if high < state.ring.lowest() {
                if self.lost.lowest().is_some_and(|lowest| lowest < low) {
                    continue;
                }
                // All that follows is older still.
                break;
            }
            let (congestion, eliciting, lowest) = (&mut self.congestion, &mut state.eliciting, &mut state.lowest_acked);
            let taken = state.ring.take(low, high, |pn, packet| {
                *lowest = pn.min(*lowest);
                new.longest = new.longest.max(packet.len);
                if packet.in_flight {
                    congestion.remove(packet.len);
                    new.counts = true;
                    new.bytes += u64::from(packet.len) * u64::from(!congestion.in_recovery(packet.time));
                }
                *eliciting -= usize::from(packet.eliciting);
                new.eliciting |= packet.eliciting;
                if new.largest.is_none_or(|(largest, _)| largest < pn) {
                    new.largest = Some((pn, packet.time));
                }
                acked(pn, packet);
            });
            taken.map_err(|pn| InvalidAck { space, pn })?;
        }
        Ok((new, ack_largest))
    }

    /// More marked packets than before are congestion (RFC 9002 §7.1). The caller has validated ECN on the path.
    fn on_ecn(&mut self, now: Instant, space: SpaceId, ce: Option<u64>, sent: Instant) {
        let state = &mut self.spaces[space.index()];
        if let Some(ce) = ce.filter(|ce| *ce > state.ce) {
            state.ce = ce;
            self.lost.disarm();
            self.congestion.on_congestion_event(now, sent, self.rtt.smoothed());
        }
    }

    /// Detects losses in `space`; true if they amount to persistent congestion (RFC 9002 §A.10, §B.8). `acked` is the
    /// length of the longest packet that was acknowledged just now.
    fn detect_lost(
        &mut self,
        now: Instant,
        space: SpaceId,
        cx: &Context,
        acked: u16,
        lost: &mut impl FnMut(u64, F),
    ) -> bool {
        let (congestion, numbers, sizes) = (&mut self.congestion, &mut self.lost, &mut self.sizes);
        let (delay, first) = (self.rtt.loss_delay(), self.rtt.first_sample());
        let pto = self.rtt.pto_base();
        let proof_until = now + PROOF_PTOS * pto;
        let early = Early {
            below: self.spaces[space.index()].lowest_acked,
            until: if space != SpaceId::Data || !cx.handshake_confirmed { Instant::MAX } else { self.confirmed_at },
        };
        let mut reduced = false;
        sizes.begin();
        let losses = self.spaces[space.index()].detect_lost(now, delay, first, early, |pn, packet, early| {
            if packet.in_flight {
                congestion.remove(packet.len);
                if !early {
                    if !reduced && !congestion.in_recovery(packet.time) {
                        reduced = true;
                        numbers.restart(proof_until);
                    }
                    numbers.insert(pn);
                    sizes.on_lost(packet.len, packet.time, acked, pto);
                }
            }
            lost(pn, packet.frames);
        });
        if reduced && space != SpaceId::Data {
            numbers.disarm();
        }
        self.react(now, cx, &losses)
    }

    fn react(&mut self, now: Instant, cx: &Context, losses: &Losses) -> bool {
        let srtt = self.rtt.smoothed();
        let Some(sent) = losses.latest else { return false };
        self.congestion.on_congestion_event(now, sent, srtt);
        // Judged by the timeout that sent the probes. The first sample after an outage may be as long as the outage was
        // (of a packet that arrived before, and whose acknowledgement did not come back): by a timeout that follows from
        // it, nothing would ever look persistent.
        let pto = self.rtt.pto_base();
        let pto = if sent <= self.calm_until { pto.min(self.calm_pto) } else { pto };
        let limit = PERSISTENT_CONGESTION_THRESHOLD * (pto + cx.peer_max_ack_delay);
        let persistent = losses.span > limit;
        if persistent {
            self.lost.disarm();
            self.rtt.restart_min();
            self.congestion.on_persistent_congestion(now, sent, srtt);
        }
        persistent
    }

    /// Whether the path swallows large packets, by what became of those that were sent. Says so once.
    pub fn take_black_hole(&mut self) -> bool {
        self.sizes.take_black_hole()
    }

    /// Whether a packet of up to `len` bytes may be sent at `now`. Probes and packets that are not counted
    /// need no permit.
    pub fn permit(&self, now: Instant, len: u16) -> Permit {
        self.congestion.permit(now, len)
    }

    /// Forgets a space whose keys are discarded (RFC 9002 §6.4); `each` gets what its packets carried.
    pub fn discard_space(&mut self, space: SpaceId, each: impl FnMut(F)) {
        self.drain(space, each);
        if self.pto_count > 0 {
            self.pto_count = 0;
            self.calm_until = self.now;
        }
    }

    /// Takes every packet of `space` out of flight, as after a Retry; `each` gets what they carried.
    pub fn drain(&mut self, space: SpaceId, mut each: impl FnMut(F)) {
        let congestion = &mut self.congestion;
        self.spaces[space.index()].drain(|packet| {
            if packet.in_flight {
                congestion.remove(packet.len);
            }
            each(packet.frames);
        });
        self.timer_set = self.now;
    }

    /// The application, not congestion control, is why nothing more is sent (RFC 9002 §7.8).
    pub fn set_app_limited(&mut self, limited: bool) {
        self.congestion.set_app_limited(limited);
    }

    /// The largest UDP payload is `max_datagram` bytes from now on.
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

    /// Bytes that count and are neither acknowledged nor lost.
    pub fn bytes_in_flight(&self) -> u64 {
        self.congestion.in_flight()
    }

    /// Gives back memory that holds nothing.
    pub fn trim(&mut self) {
        for space in &mut self.spaces {
            space.ring.trim();
        }
    }

    /// Congestion control, to look at.
    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// The largest packet number of `space` that was acknowledged.
    pub fn largest_acked(&self, space: SpaceId) -> Option<u64> {
        self.spaces[space.index()].largest_acked
    }

    /// The oldest packet of `space` that is in flight and has to be acknowledged.
    /// Probes of the datagram size, which nobody repeats, do not count.
    pub fn oldest_unacked(&self, space: SpaceId) -> Option<(u64, &SentPacket<F>)> {
        self.spaces[space.index()].ring.iter().find(|(_, packet)| packet.eliciting && packet.in_flight)
    }
}

/// How much of the acknowledgement delay is taken for true (RFC 9002 §5.3).
fn credible_delay(space: SpaceId, delay: Duration, cx: &Context) -> Duration {
    match space {
        SpaceId::Initial => Duration::ZERO,
        _ if cx.handshake_confirmed => delay.min(cx.peer_max_ack_delay),
        _ => delay,
    }
}
