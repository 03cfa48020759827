//! Detects paths that drop large datagrams (RFC 8899 §4.3) from the fate of packets of that size.
//!
//! Congestion and outages drop packets of any size, and the first packet acknowledged afterwards shows that its size
//! gets through. A black hole is different: flight after flight, large packets are lost while smaller ones of the same
//! time arrive. Only this counts here.

use crate::base::time::{Duration, Instant};
use crate::quic::path::MIN_MTU;

/// Number of consecutive flights whose large packets must be lost.
const FLIGHTS: u8 = 3;

/// Maximum number of flights that one pass of loss detection may add: after an outage, many flights are lost at once,
/// all for the same reason.
const FLIGHTS_PER_PASS: u8 = FLIGHTS - 1;

/// Losses of large packets since one of their size was last acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SizeWatch {
    /// Size of the smallest of them, in bytes.
    size: u16,
    /// Number of flights that they belong to.
    flights: u8,
    /// Number of flights added by the current pass of loss detection.
    added: u8,
    /// When the latest counted flight was sent.
    latest: Instant,
}

impl SizeWatch {
    /// Handles the acknowledgement of packets of up to `largest` bytes. Loss detection follows.
    #[inline]
    pub(super) fn on_ack(&mut self, largest: u16) {
        if self.flights > 0 && largest >= self.size {
            *self = Self::default();
        }
    }

    /// Starts a pass of loss detection.
    pub(super) fn begin(&mut self) {
        self.added = 0;
    }

    /// Handles the loss of a packet of `len` bytes sent at `time`; `acked` is the size of the largest packet
    /// acknowledged at that moment. Packets sent less than `apart` from each other belong to one flight.
    pub(super) fn on_lost(&mut self, len: u16, time: Instant, acked: u16, apart: Duration) {
        if len <= MIN_MTU || acked >= len {
            return;
        }
        if self.flights == 0 {
            (self.size, self.latest) = (len, time);
            (self.flights, self.added) = (1, self.added + 1);
            return;
        }
        self.size = self.size.min(len);
        if time >= self.latest + apart && self.added < FLIGHTS_PER_PASS {
            self.latest = time;
            self.flights += 1;
            self.added += 1;
        }
    }

    /// Whether the path drops large packets. True once.
    pub(super) fn take_black_hole(&mut self) -> bool {
        let found = self.flights >= FLIGHTS;
        if found {
            *self = Self::default();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APART: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn three_flights_of_large_packets_lost_among_small_ones() {
        let mut watch = SizeWatch::default();
        for (ms, found) in [(0, false), (10, false), (60, false), (100, false), (120, true), (200, false)] {
            watch.begin();
            watch.on_ack(1200);
            watch.on_lost(1472, at(ms), 1200, APART);
            watch.on_lost(1472, at(ms + 1), 1200, APART);
            assert_eq!(watch.take_black_hole(), found, "{ms}");
        }
    }

    #[test]
    fn a_packet_of_that_size_that_arrives_clears_the_path() {
        let mut watch = SizeWatch::default();
        for ms in [0, 100, 200, 300, 400] {
            watch.begin();
            watch.on_lost(1300, at(ms), 1250, APART);
            watch.on_lost(1472, at(ms), 1250, APART);
            watch.on_lost(1150, at(ms), 0, APART);
            if ms % 200 == 100 {
                watch.on_ack(1299);
                assert_eq!((watch.size, watch.flights), (1300, 2), "a smaller one proves nothing");
                watch.on_ack(1300);
            }
            assert!(!watch.take_black_hole());
        }
    }

    #[test]
    fn an_outage_is_one_thing_however_long_it_was() {
        let mut watch = SizeWatch::default();
        watch.begin();
        for n in 0..10 {
            watch.on_lost(1472, at(n * 100), 1200, APART);
        }
        assert!(!watch.take_black_hole());
        watch.on_ack(1472);
        assert_eq!(watch.flights, 0);
    }
}
