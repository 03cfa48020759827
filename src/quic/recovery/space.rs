//! Loss detection in one packet number space (RFC 9002 §6.1).

use crate::base::time::{Duration, Instant};
use crate::quic::recovery::sent::{Front, SentPacket, SentRing};

/// A run of lost packets without an acknowledged one in between (RFC 9002 §7.6.2).
#[derive(Clone, Copy, Debug, Default)]
struct LossRun {
    /// When the oldest of them was sent.
    start: Option<Instant>,
    /// When the latest packet that arrived in another space was sent. It ends the run as well.
    elsewhere: Instant,
}

impl LossRun {
    /// Starts again after a packet of this space that arrived.
    fn end(&mut self) {
        self.start = None;
    }

    /// Adds a lost packet sent at `time`; returns how long the run is then.
    fn add(&mut self, time: Instant) -> Duration {
        if self.start.is_some_and(|start| start <= self.elsewhere) && self.elsewhere <= time {
            self.end();
        }
        time.saturating_since(*self.start.get_or_insert(time))
    }
}

/// The results of a pass of loss detection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// When the latest lost packet that counts was sent.
    pub(super) latest: Option<Instant>,
    /// The longest time that a run of lost packets spans.
    pub(super) span: Duration,
}

/// Packets for which the peer may have had no keys when they arrived. Their loss says nothing about the path unless an
/// earlier packet is known to have arrived (RFC 9002 §7.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    /// They were sent before the earliest acknowledged packet of their space, and ...
    pub(super) below: u64,
    /// ... before this time.
    pub(super) until: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct SpaceState<F> {
    pub(super) ring: SentRing<F>,
    pub(super) largest_acked: Option<u64>,
    /// The earliest acknowledged packet; `u64::MAX` if there is none.
    pub(super) lowest_acked: u64,
    /// When the next packet is lost by time.
    pub(super) loss_time: Option<Instant>,
    /// When the last ack-eliciting packet was sent.
    pub(super) last_eliciting: Instant,
    /// Number of ack-eliciting packets that are neither acknowledged nor lost.
    pub(super) eliciting: usize,
    run: LossRun,
}

impl<F> SpaceState<F> {
    pub(super) fn new() -> Self {
        Self {
            ring: SentRing::new(),
            largest_acked: None,
            lowest_acked: u64::MAX,
            loss_time: None,
            last_eliciting: Instant::ZERO,
            eliciting: 0,
            run: LossRun::default(),
        }
    }

    pub(super) fn on_sent(&mut self, pn: u64, packet: SentPacket<F>) {
        if packet.eliciting {
            self.eliciting += 1;
            self.last_eliciting = packet.time;
        }
        self.ring.push(pn, packet);
    }

    /// The same for consecutive ack-eliciting packets that were sent at `now`.
    pub(super) fn on_run_sent(&mut self, now: Instant, pn: u64, packets: impl ExactSizeIterator<Item = SentPacket<F>>) {
        self.eliciting += packets.len();
        self.last_eliciting = now;
        self.ring.push_run(pn, packets);
    }

    /// Removes the packets that are lost by now, and reports whether each was `early`. A packet is lost once one is
    /// acknowledged that comes `threshold` packets later, or a later one after `delay` (RFC 9002 §6.1). Runs of losses
    /// only count from `first_sample` on.
    ///
    /// The pass goes from the front to the first packet that is not lost; as all later packets are younger, its cost is
    /// proportional to the number of removed packets.
    pub(super) fn detect_lost(
        &mut self,
        now: Instant,
        threshold: u64,
        delay: Duration,
        first_sample: Option<Instant>,
        early: Early,
        mut lost: impl FnMut(u64, SentPacket<F>, bool),
    ) -> Losses {
        self.loss_time = None;
        let mut losses = Losses::default();
        let Some(largest) = self.largest_acked else { return losses };
        self.ring.forget_bare((largest + 1).saturating_sub(threshold));
        while let Some(front) = self.ring.front() {
            let (pn, time) = match front {
                Front::Acked => {
                    self.run.end();
                    self.ring.pop();
                    continue;
                }
                Front::Sent(pn, packet) => (pn, packet.time),
            };
            if pn > largest {
                break;
            }
            if largest - pn < threshold && time + delay > now {
                self.loss_time = Some(time + delay);
                break;
            }
            let Some(packet) = self.ring.pop_packet() else { break };
            self.eliciting -= usize::from(packet.eliciting);
            let early = pn < early.below && packet.time < early.until;
            if !early {
                self.count_loss(&packet, first_sample, &mut losses);
            }
            lost(pn, packet, early);
        }
        losses
    }

    /// Packets older than all that are still unacknowledged were acknowledged.
    pub(super) fn end_loss_run(&mut self) {
        self.run.end();
    }

    /// A packet of another space that was sent at `sent` has arrived.
    pub(super) fn arrived_elsewhere(&mut self, sent: Instant) {
        self.run.elsewhere = self.run.elsewhere.max(sent);
    }

    fn count_loss(&mut self, packet: &SentPacket<F>, first_sample: Option<Instant>, losses: &mut Losses) {
        if !packet.in_flight {
            return;
        }
        losses.latest = Some(packet.time);
        if packet.eliciting && first_sample.is_some_and(|first| packet.time > first) {
            losses.span = losses.span.max(self.run.add(packet.time));
        }
    }

    /// Removes all packets; `each` gets them.
    pub(super) fn drain(&mut self, each: impl FnMut(SentPacket<F>)) {
        self.ring.drain(each);
        self.loss_time = None;
        self.eliciting = 0;
        self.run = LossRun::default();
    }
}
