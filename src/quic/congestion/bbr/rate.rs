//! Delivery rate samples (draft-ietf-ccwg-bbr-06 §4.1).
//!
//! Each packet needs a snapshot of what had been delivered when it was sent. Packets sent at the same moment share one,
//! as the draft recommends for bursts (§4.1.3.1), and the moment finds it: it is recorded with every packet in any case.
//! So sent packets need no further room, and connections with other algorithms have nothing of this.

use std::collections::VecDeque;

use crate::base::time::{Duration, Instant};

/// The state when the packets of one moment were sent (§4.1.2.1.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    /// P.send_time.
    sent: Instant,
    /// P.delivered in bytes.
    delivered: u64,
    /// P.delivered_time.
    delivered_time: Instant,
    /// P.first_send_time.
    first_sent: Instant,
    /// P.lost in bytes.
    pub(super) lost: u64,
    /// P.tx_in_flight: the bytes in flight once they were sent.
    pub(super) in_flight: u64,
    /// P.is_app_limited.
    pub(super) app_limited: bool,
}

/// What an acknowledgement says about the path (§4.1.2.1.3), as told by the newest packet that it acknowledges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// RS.delivery_rate in bytes per second; 0 if there is none.
    pub(super) rate: f64,
    /// RS.delivered: the bytes delivered since that packet was sent.
    pub(super) delivered: u64,
    /// RS.prior_delivered: the bytes delivered before that; `None` if the packet is not known.
    pub(super) prior_delivered: Option<u64>,
    /// RS.is_app_limited.
    pub(super) app_limited: bool,
    /// RS.tx_in_flight in bytes.
    pub(super) in_flight: u64,
    /// RS.lost: the bytes declared lost since that packet was sent.
    pub(super) lost: u64,
    /// RS.newly_acked in bytes.
    pub(super) acked: u64,
    /// RS.rtt.
    pub(super) rtt: Option<Duration>,
}

/// State of the connection for delivery rate samples (§4.1.2.1.1).
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// C.delivered in bytes.
    delivered: u64,
    /// C.delivered_time.
    delivered_time: Instant,
    /// C.first_send_time.
    first_sent: Instant,
    /// C.lost in bytes.
    lost: u64,
    /// C.app_limited: what will have been delivered when the gap in the pipe has passed; 0 if there is none.
    app_limited: u64,
    /// C.min_rtt; [`Duration::MAX`] before the first sample.
    min_rtt: Duration,
    /// Bytes acknowledged since the last sample.
    acked: u64,
    /// By ascending time.
    snapshots: VecDeque<Snapshot>,
}

impl Sampler {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_time: now,
            first_sent: now,
            lost: 0,
            app_limited: 0,
            min_rtt: Duration::MAX,
            acked: 0,
            snapshots: VecDeque::new(),
        }
    }

    /// C.delivered: the bytes delivered so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// C.lost: the bytes lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the application, not the window, limited what was sent at some time in the last round trip.
    pub(super) fn is_app_limited(&self) -> bool {
        self.app_limited != 0
    }

    /// Packets were sent at `now`; `before` and `after` are the bytes in flight before and after that (§4.1.2.2).
    pub(super) fn on_sent(&mut self, now: Instant, before: u64, after: u64) {
        if before == 0 {
            (self.first_sent, self.delivered_time) = (now, now);
        }
        if let Some(last) = self.snapshots.back_mut().filter(|last| last.sent >= now) {
            last.in_flight = after;
            return;
        }
        self.snapshots.push_back(Snapshot {
            sent: now,
            delivered: self.delivered,
            delivered_time: self.delivered_time,
            first_sent: self.first_sent,
            lost: self.lost,
            in_flight: after,
            app_limited: self.app_limited != 0,
        });
    }

    /// `bytes` were acknowledged at `now` (§4.1.2.3, UpdateRateSample).
    pub(super) fn on_delivered(&mut self, now: Instant, bytes: u64) {
        self.delivered += bytes;
        self.acked += bytes;
        self.delivered_time = now;
    }

    /// `bytes` were lost.
    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// The snapshot of packets sent at `sent`.
    pub(super) fn at(&self, sent: Instant) -> Option<&Snapshot> {
        self.snapshots.get(self.snapshots.partition_point(|snapshot| snapshot.sent < sent))
    }

    /// The sample of an acknowledgement at `now`, the newest packet of which was sent at `sent` (§4.1.2.3,
    /// GenerateRateSample).
    pub(super) fn sample(&mut self, now: Instant, sent: Instant, rtt: Option<Duration>) -> Sample {
        let acked = std::mem::take(&mut self.acked);
        if self.app_limited != 0 && self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        self.min_rtt = self.min_rtt.min(rtt.unwrap_or(Duration::MAX));
        let mut sample = Sample { acked, rtt, ..Sample::default() };
        let Some(snapshot) = self.at(sent).copied() else { return sample };
        self.first_sent = sent;
        sample.prior_delivered = Some(snapshot.delivered);
        sample.delivered = self.delivered - snapshot.delivered;
        sample.app_limited = snapshot.app_limited;
        sample.in_flight = snapshot.in_flight;
        sample.lost = self.lost - snapshot.lost;
        let sending = sent.saturating_since(snapshot.first_sent);
        let acking = now.saturating_since(snapshot.delivered_time);
        // Nothing is delivered faster than it was sent (§4.1.1.2.4).
        let interval = sending.max(acking);
        if !interval.is_zero() && (interval >= self.min_rtt || self.min_rtt == Duration::MAX) {
            sample.rate = sample.delivered as f64 * 1e9 / interval.as_nanos() as u64 as f64;
        }
        sample
    }

    /// There is nothing to send although the window has room (§4.1.2.4, MarkConnectionAppLimited).
    pub(super) fn mark_app_limited(&mut self, in_flight: u64) {
        self.app_limited = (self.delivered + in_flight).max(1);
    }

    /// Forgets packets sent before `oldest`: none of them is in flight any more.
    pub(super) fn forget_before(&mut self, oldest: Instant) {
        while self.snapshots.front().is_some_and(|snapshot| snapshot.sent < oldest) {
            self.snapshots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(us)
    }

    const RTT: Duration = Duration::from_millis(10);

    /// Packets of 1,000 bytes: two a millisecond are sent, and acknowledged 10 ms later, `per_ack` at a time.
    fn steady(per_ack: u64) -> Vec<f64> {
        let mut s = Sampler::new(at(0));
        let (mut sent, mut in_flight, mut rates) = (Vec::new(), 0, Vec::new());
        for n in 0..200 {
            let now = at(n * 500);
            s.on_sent(now, in_flight, in_flight + 1000);
            in_flight += 1000;
            sent.push(now);
            let Some(due) = n.checked_sub(20) else { continue };
            if due % per_ack == per_ack - 1 {
                s.on_delivered(now, per_ack * 1000);
                in_flight -= per_ack * 1000;
                rates.push(s.sample(now, sent[due as usize], Some(RTT)).rate);
                s.forget_before(sent[due as usize]);
            }
        }
        assert!(s.snapshots.len() < 30, "{} are kept", s.snapshots.len());
        rates
    }

    #[test]
    fn the_rate_is_that_of_the_path_however_often_it_is_acknowledged() {
        for per_ack in [1, 2, 10] {
            let rates = steady(per_ack);
            let last = rates[rates.len() - 1];
            assert!((last / 2e6 - 1.0).abs() < 0.05, "{last} with {per_ack} packets an acknowledgement");
            assert!(rates.iter().all(|rate| *rate <= 2.2e6), "{rates:?}");
        }
    }

    /// §4.1.1.2.2: acknowledgements that arrive all at once do not look like a fast path.
    #[test]
    fn the_send_rate_limits_the_sample() {
        let mut s = Sampler::new(at(0));
        for n in 0..10 {
            s.on_sent(at(n * 1000), n * 1000, (n + 1) * 1000);
        }
        s.on_delivered(at(11_000), 1000);
        s.sample(at(11_000), at(0), Some(RTT));
        s.on_delivered(at(11_001), 9000);
        let sample = s.sample(at(11_001), at(9000), Some(Duration::from_micros(2001)));
        // 10,000 bytes in 11 ms, although 9,000 of them were acknowledged in 1 µs.
        assert!((sample.rate / (10_000.0 / 0.011_001) - 1.0).abs() < 1e-9, "{}", sample.rate);
    }

    #[test]
    fn a_gap_in_the_pipe_marks_the_samples_until_it_has_passed() {
        let mut s = Sampler::new(at(0));
        s.on_sent(at(0), 0, 2000);
        s.mark_app_limited(2000);
        s.on_sent(at(10), 2000, 3000);
        assert!(!s.at(at(0)).unwrap().app_limited && s.at(at(10)).unwrap().app_limited);
        s.on_delivered(at(10_000), 2000);
        assert!(!s.sample(at(10_000), at(0), Some(RTT)).app_limited);
        assert!(s.is_app_limited(), "the gap is behind these 2,000 bytes");
        s.on_delivered(at(10_010), 1000);
        assert!(s.sample(at(10_010), at(10), Some(RTT)).app_limited);
        assert!(!s.is_app_limited());
    }

    #[test]
    fn bursts_share_a_snapshot_and_an_unknown_packet_has_none() {
        let mut s = Sampler::new(at(0));
        for n in 0..32 {
            s.on_sent(at(5), n * 1000, (n + 1) * 1000);
        }
        assert_eq!((s.snapshots.len(), s.at(at(5)).unwrap().in_flight), (1, 32_000));
        assert!(s.at(at(6)).is_none());
        assert_eq!(s.sample(at(7), at(6), None).prior_delivered, None);
        s.on_lost(1000);
        s.on_delivered(at(10), 1000);
        assert_eq!(s.sample(at(10), at(5), None).lost, 1000);
        s.forget_before(at(6));
        assert!(s.at(at(5)).is_none());
    }
}
