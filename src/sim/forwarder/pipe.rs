//! The bottleneck of a link: it sends one packet after another, at rates that are known in advance.

use crate::base::time::{Duration, Instant};

/// Nanoseconds per second, times bits per byte.
const BYTE_NANOS: u128 = 8_000_000_000;

/// A transmitter with a queue. When the last bit of a packet is sent is known as soon as the packet is queued.
#[derive(Debug)]
pub struct Pipe {
    /// Rates in bit/s, with the time from which each holds; those that do not hold any more are removed.
    rates: Vec<(Instant, u64)>,
    /// When the last bit of the queue has been sent.
    free_at: Instant,
}

impl Pipe {
    /// A transmitter of `rate` bit/s, and of other rates from the times of `steps` on, which are counted from `start`.
    pub fn new(rate: u64, steps: &[(Duration, u64)], start: Instant) -> Self {
        let later = steps.iter().map(|(since, rate)| (start + *since, *rate));
        let mut rates: Vec<_> = std::iter::once((Instant::ZERO, rate)).chain(later).collect();
        rates.sort_by_key(|(from, _)| *from);
        rates.iter_mut().for_each(|(_, rate)| *rate = (*rate).max(1));
        Self { rates, free_at: start }
    }

    /// When the last bit of the queue has been sent.
    pub fn free_at(&self) -> Instant {
        self.free_at
    }

    /// Bytes that have not been sent at `now`.
    pub fn backlog(&self, now: Instant) -> u64 {
        let bits = self.periods(now).fold(0, |bits, (from, until, rate)| {
            let time = until.min(self.free_at).saturating_since(from.max(now));
            bits + time.as_nanos() * u128::from(rate)
        });
        u64::try_from(bits / BYTE_NANOS).unwrap_or(u64::MAX)
    }

    /// Queues a packet of `len` bytes. Returns when its last bit is sent.
    pub fn send(&mut self, now: Instant, len: usize) -> Instant {
        self.forget(now);
        let mut at = self.free_at.max(now);
        let mut left = len as u128 * BYTE_NANOS;
        for (_, until, rate) in self.periods(at) {
            let within = until.saturating_since(at).as_nanos() * u128::from(rate);
            if left <= within {
                at += Duration::from_nanos((left / u128::from(rate)) as u64);
                break;
            }
            left -= within;
            at = until;
        }
        self.free_at = at;
        at
    }

    /// The rates from `at` on: when each begins and ends.
    fn periods(&self, at: Instant) -> impl Iterator<Item = (Instant, Instant, u64)> {
        let ends = self.rates[1..].iter().map(|(from, _)| *from).chain([Instant::MAX]);
        let all = self.rates.iter().zip(ends).map(|((from, rate), until)| (*from, until, *rate));
        all.skip_while(move |(_, until, _)| *until <= at)
    }

    /// Removes rates that ended before `now`.
    fn forget(&mut self, now: Instant) {
        while self.rates.get(1).is_some_and(|(from, _)| *from <= now) {
            self.rates.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_until_they_are_sent_at_any_rate() {
        let ms = |ms| Instant::ZERO + Duration::from_millis(ms);
        let steps = [(Duration::from_millis(20), 80_000), (Duration::from_millis(10), 800_000)];
        let mut pipe = Pipe::new(8_000_000, &steps, ms(0));
        assert_eq!(pipe.backlog(ms(0)), 0);
        // 10 ms at 1000 bytes/ms, 10 ms at 100, and the rest at 10.
        assert_eq!(pipe.send(ms(0), 10_000), ms(10));
        assert_eq!(pipe.send(ms(0), 1000), ms(20));
        assert_eq!(pipe.send(ms(0), 100), ms(30));
        assert_eq!(
            [0, 5, 10, 15, 20, 25, 30, 40].map(|at| pipe.backlog(ms(at))),
            [11_100, 6100, 1100, 600, 100, 50, 0, 0]
        );
        assert_eq!(pipe.send(ms(100), 10), ms(101));
    }

    #[test]
    fn a_link_that_stops_never_sends() {
        let mut pipe = Pipe::new(8_000_000, &[(Duration::from_millis(1), 0)], Instant::ZERO);
        assert_eq!(pipe.send(Instant::ZERO, 1000), Instant::ZERO + Duration::from_millis(1));
        assert!(pipe.send(Instant::ZERO, 1000) >= Instant::ZERO + Duration::from_secs(8000));
    }
}
