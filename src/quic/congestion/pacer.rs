//! Pacing (RFC 9002 §7.7) with a token bucket.

use crate::base::time::{Duration, Instant};

/// Fractional bits of the rate.
const SHIFT: u32 = 32;
/// On short paths, a burst of this many datagrams that would be spread over less than [`TICK`] is sent at once.
const WORTHWHILE: u64 = 32;
/// About one tick of the timer wheel.
const TICK: Duration = Duration::from_micros(65);
/// The bucket holds at least this many datagrams.
const BURST_DATAGRAMS: u64 = 10;
/// The bucket holds at least the bytes that the rate allows in this time, to make up for timers that fire late: four
/// ticks.
const BURST_TIME: Duration = Duration::from_micros(260);

/// Windows per round trip (RFC 9002 §7.7).
const GAIN: f64 = 1.25;

/// A token bucket. Its rate follows the congestion window.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Whether pacing is configured.
    enabled: bool,
    /// Bytes per nanosecond << [`SHIFT`]; `None` if there is no limit.
    rate: Option<u64>,
    /// Capacity of the bucket in bytes.
    burst: i64,
    /// Bytes in the bucket at `at`; negative after packets that are not paced (probes).
    credit: i64,
    at: Instant,
}

impl Pacer {
    /// A full bucket without a rate. If not `enabled`, it never gets one.
    pub fn new(enabled: bool, now: Instant) -> Self {
        Self { enabled, rate: None, burst: i64::MAX, credit: i64::MAX, at: now }
    }

    /// Sets the rate to 1.25 windows per round trip, in slow start as well: a window that doubles with each round trip
    /// is then sent evenly. At a higher rate, it would be sent in bursts, which fill queues long before the path is full,
    /// and hide the growth of the delay from HyStart++.
    pub fn set_rate(&mut self, now: Instant, window: u64, srtt: Duration, mtu: u64) {
        if !self.enabled {
            return;
        }
        self.fill(now);
        let per_ns = window as f64 * GAIN / (srtt.as_nanos() as u64).max(1) as f64;
        // The whole window is then no more than the burst that is allowed anyway.
        let short = srtt <= BURST_TIME;
        if short && (WORTHWHILE * mtu) as f64 <= per_ns * TICK.as_nanos() as u64 as f64 {
            self.rate = None;
            return;
        }
        let fresh = self.rate.is_none();
        self.rate = Some((per_ns * (1u64 << SHIFT) as f64).max(1.0) as u64);
        let in_time = per_ns * BURST_TIME.as_nanos() as u64 as f64;
        self.burst = ((BURST_DATAGRAMS * mtu) as i64).max(in_time as i64);
        self.credit = if fresh { self.burst } else { self.credit.min(self.burst) };
    }

    /// Sets the rate to `rate` bytes per second, and the capacity of the bucket to `burst` bytes.
    pub(super) fn set_exactly(&mut self, now: Instant, rate: f64, burst: u64) {
        if !self.enabled {
            return;
        }
        self.fill(now);
        let fresh = self.rate.is_none();
        self.rate = Some((rate / 1e9 * (1u64 << SHIFT) as f64).max(1.0) as u64);
        self.burst = i64::try_from(burst).unwrap_or(i64::MAX);
        self.credit = if fresh { self.burst } else { self.credit.min(self.burst) };
    }

    /// When a packet of `len` bytes may be sent, if not at `now`.
    pub fn next(&self, now: Instant, len: u64) -> Option<Instant> {
        let rate = self.rate?;
        let short = len as i64 - self.credit_at(now, rate);
        if short <= 0 {
            return None;
        }
        let wait = (u128::from(short.unsigned_abs()) << SHIFT).div_ceil(u128::from(rate));
        Some(now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// The number of packets of `len` bytes that may be sent at `now`, if [`Pacer::next`] is asked before each for one
    /// of `asked` bytes.
    pub(crate) fn allows(&self, now: Instant, asked: u64, len: u64) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let spare = self.credit_at(now, rate).saturating_sub(asked as i64);
        u64::try_from(spare).map_or(0, |spare| usize::try_from(spare / len + 1).unwrap_or(usize::MAX))
    }

    /// Records that a packet of `len` bytes was sent.
    pub fn on_sent(&mut self, now: Instant, len: u64) {
        if self.rate.is_some() {
            self.fill(now);
            self.credit = self.credit.saturating_sub(len as i64).max(-self.burst);
        }
    }

    fn fill(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            self.credit = self.credit_at(now, rate);
        }
        self.at = self.at.max(now);
    }

    fn credit_at(&self, now: Instant, rate: u64) -> i64 {
        let elapsed = now.saturating_since(self.at).as_nanos() as u64;
        let earned = (u128::from(elapsed) * u128::from(rate)) >> SHIFT;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.credit.saturating_add(earned).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1200;

    fn pacer(window: u64, srtt: Duration) -> Pacer {
        let mut p = Pacer::new(true, Instant::ZERO);
        p.set_rate(Instant::ZERO, window, srtt, MTU);
        p
    }

    #[test]
    fn a_run_may_go_if_its_packets_may_one_by_one() {
        for (window, rtt, wait) in
            [(20_000, 100, 0), (1_000_000, 100, 3), (80_000, 1, 1), (5_000_000, 20, 7), (1, 50, 9)]
        {
            let mut p = pacer(window, Duration::from_millis(rtt));
            let now = Instant::ZERO + Duration::from_millis(wait);
            for round in 0..5 {
                let len = 900 + 100 * round;
                let allowed = p.allows(now, MTU, len);
                let mut one_by_one = p.clone();
                let mut n = 0;
                while n < 10_000 && one_by_one.next(now, MTU).is_none() {
                    one_by_one.on_sent(now, len);
                    n += 1;
                }
                assert_eq!(allowed.min(10_000), n);
                let some = (n / 2).max(1);
                p.on_sent(now, len * some as u64);
            }
        }
    }

    #[test]
    fn long_run_rate_is_a_window_and_a_quarter_per_round_trip() {
        let (window, srtt) = (1_000_000, Duration::from_millis(100));
        let mut p = pacer(window, srtt);
        let (mut now, mut sent) = (Instant::ZERO, 0);
        let end = Instant::ZERO + 20 * srtt;
        while now < end {
            match p.next(now, MTU) {
                None => {
                    p.on_sent(now, MTU);
                    sent += MTU;
                }
                Some(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        let want = 20 * window * 5 / 4;
        assert!((sent as f64 / want as f64 - 1.0).abs() < 0.01, "{sent} of {want}");
    }

    #[test]
    fn late_timers_cost_no_rate() {
        let (window, srtt) = (2_500_000, Duration::from_millis(20));
        let mut p = pacer(window, srtt);
        let (mut now, mut sent) = (Instant::ZERO, 0);
        while now < Instant::ZERO + Duration::from_secs(1) {
            match p.next(now, MTU) {
                None => {
                    p.on_sent(now, MTU);
                    sent += MTU;
                }
                Some(at) => now = at + Duration::from_micros(131),
            }
        }
        let want = 50 * window * 5 / 4;
        assert!((sent as f64 / want as f64 - 1.0).abs() < 0.01, "{sent} of {want}");
    }

    #[test]
    fn a_burst_of_ten_goes_at_once_and_no_more() {
        let mut p = pacer(12_000, Duration::from_millis(100));
        for _ in 0..10 {
            assert_eq!(p.next(Instant::ZERO, MTU), None);
            p.on_sent(Instant::ZERO, MTU);
        }
        // 1200 bytes at 12 000 × 1.25 / 100 ms are 8 ms.
        let wait = p.next(Instant::ZERO, MTU).unwrap().as_nanos();
        assert!((8_000_000..8_000_010).contains(&wait), "{wait}");
    }

    #[test]
    fn tiny_round_trips_are_not_paced() {
        let mut p = pacer(100_000, Duration::from_micros(10));
        for _ in 0..1000 {
            assert_eq!(p.next(Instant::ZERO, MTU), None);
            p.on_sent(Instant::ZERO, MTU);
        }
        let mut off = Pacer::new(false, Instant::ZERO);
        off.set_rate(Instant::ZERO, 12_000, Duration::from_secs(1), MTU);
        off.on_sent(Instant::ZERO, MTU * 100);
        assert_eq!(off.next(Instant::ZERO, MTU), None, "turned off");
    }

    #[test]
    fn an_exact_rate_is_kept_and_changes_at_once() {
        let mut p = Pacer::new(true, Instant::ZERO);
        let (mut now, mut sent) = (Instant::ZERO, 0);
        for rate in [1e6, 5e6, 2e6] {
            p.set_exactly(now, rate, 2 * MTU);
            let end = now + Duration::from_secs(1);
            while now < end {
                match p.next(now, MTU) {
                    None => {
                        p.on_sent(now, MTU);
                        sent += MTU;
                    }
                    Some(at) => now = at,
                }
            }
        }
        assert!((sent as f64 / 8e6 - 1.0).abs() < 0.01, "{sent} bytes");
    }

    /// RFC 9002 §7.7: a sender either paces or limits its bursts. A window that has grown and was not used for a while
    /// does not leave at once, however fast the path.
    #[test]
    fn bursts_on_long_paths_are_limited_however_fast_they_are() {
        for (window, ms) in [(10_000_000, 10), (100_000_000, 50), (2_000_000, 2)] {
            let srtt = Duration::from_millis(ms);
            let mut p = pacer(window, srtt);
            let now = Instant::ZERO + Duration::from_secs(5);
            let mut burst = 0;
            while burst < window && p.next(now, MTU).is_none() {
                p.on_sent(now, MTU);
                burst += MTU;
            }
            let in_time = window * 5 / 4 / ms;
            assert!(burst <= in_time + MTU && in_time < window, "{burst} of {window} bytes at once");
        }
    }

    #[test]
    fn a_better_round_trip_time_takes_effect_at_once() {
        let mut p = pacer(12_000, Duration::from_millis(333));
        for _ in 0..10 {
            p.on_sent(Instant::ZERO, MTU);
        }
        let now = Instant::ZERO + Duration::from_millis(1);
        p.set_rate(now, 24_000, Duration::from_millis(1), MTU);
        let at = p.next(now, MTU).expect("the bucket is empty");
        assert!(at <= now + Duration::from_micros(40), "{at:?}");
    }
}
