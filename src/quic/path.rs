//! The network path of a connection: validation, the anti-amplification limit and its MTU.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

/// Every path carries UDP payloads of this size (RFC 9000 §14).
pub(crate) const MIN_MTU: u16 = 1200;

/// PATH_RESPONSEs that wait to be sent; more challenges than that are a flood.
const MAX_RESPONSES: usize = 4;

/// Probes of one size that may be lost before the size is given up.
const MAX_PROBES: u8 = 3;

/// The search ends when the bounds are this close, in bytes.
const SEARCH_GRAIN: u16 = 32;

/// Finds the largest datagram that the path carries (RFC 8899, RFC 9000 §14.3): the goal first,
/// as a path that we are meant for carries it, then by halves.
#[derive(Debug)]
pub(crate) struct Mtu {
    current: u16,
    /// Nothing above is worth a probe.
    ceiling: u16,
    /// The size of the search's next probe.
    next: u16,
    in_flight: Option<(u64, u16)>,
    lost: u8,
    enabled: bool,
}

impl Mtu {
    pub(crate) fn new(max: u16) -> Self {
        let max = max.max(MIN_MTU);
        Self { current: MIN_MTU, ceiling: max, next: max, in_flight: None, lost: 0, enabled: false }
    }

    /// Largest UDP payload to send, in bytes.
    pub(crate) fn current(&self) -> u16 {
        self.current
    }

    /// The peer (its transport parameters) or the network (packet too big) takes no more than `max`.
    pub(crate) fn limit(&mut self, max: u16) {
        self.ceiling = self.ceiling.min(max.max(MIN_MTU));
        self.next = self.next.min(self.ceiling);
        self.current = self.current.min(self.ceiling);
    }

    /// Probing may start: the handshake is confirmed.
    pub(crate) fn enable(&mut self) {
        self.enabled = true;
    }

    /// Size of a probe to be sent now.
    pub(crate) fn probe_due(&self) -> Option<u16> {
        let worth = self.next > self.current
            && (self.next == self.ceiling || self.ceiling.saturating_sub(self.current) >= SEARCH_GRAIN);
        (self.enabled && self.in_flight.is_none() && worth).then_some(self.next)
    }

    /// Whether the search goes on.
    pub(crate) fn is_searching(&self) -> bool {
        self.in_flight.is_some() || self.probe_due().is_some()
    }

    pub(crate) fn probe_sent(&mut self, pn: u64, size: u16) {
        self.in_flight = Some((pn, size));
    }

    /// True if this was the probe in flight: the datagram size has grown.
    pub(crate) fn on_acked(&mut self, pn: u64) -> bool {
        let Some((_, size)) = self.in_flight.take_if(|(probe, _)| *probe == pn) else { return false };
        self.current = size.max(self.current);
        self.lost = 0;
        self.next = self.middle();
        true
    }

    pub(crate) fn on_lost(&mut self, pn: u64) {
        let Some((_, size)) = self.in_flight.take_if(|(probe, _)| *probe == pn) else { return };
        self.lost += 1;
        if self.lost >= MAX_PROBES {
            self.lost = 0;
            self.ceiling = size - 1;
            self.next = self.middle();
        }
    }

    /// Packets of the current size vanish one after the other (RFC 8899 §4.3).
    /// True if the datagram size has shrunk.
    pub(crate) fn on_black_hole(&mut self) -> bool {
        if self.current == MIN_MTU {
            return false;
        }
        self.ceiling = self.current - 1;
        self.current = MIN_MTU;
        self.in_flight = None;
        self.next = self.middle();
        true
    }

    fn middle(&self) -> u16 {
        self.current + (self.ceiling.saturating_sub(self.current)).div_ceil(2)
    }
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    validated: bool,
    received: u64,
    sent: u64,
    pub(crate) mtu: Mtu,
    responses: ArrayVec<[u8; 8], MAX_RESPONSES>,
}

impl Path {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr, validated: bool, max_udp_payload: u16) -> Self {
        Self {
            local,
            remote,
            validated,
            received: 0,
            sent: 0,
            mtu: Mtu::new(max_udp_payload),
            responses: ArrayVec::new(),
        }
    }

    pub(crate) fn validate(&mut self) {
        self.validated = true;
    }

    pub(crate) fn on_received(&mut self, n: usize) {
        self.received += n as u64;
    }

    pub(crate) fn on_sent(&mut self, n: usize) {
        self.sent += n as u64;
    }

    /// Bytes that may be sent: three times what came in, until validated (RFC 9000 §8.1).
    pub(crate) fn budget(&self) -> u64 {
        if self.validated { u64::MAX } else { (3 * self.received).saturating_sub(self.sent) }
    }

    /// PATH_CHALLENGE: remembers the answer that it wants.
    pub(crate) fn on_challenge(&mut self, data: [u8; 8]) {
        let _ = self.responses.try_push(data);
    }

    pub(crate) fn response_due(&self) -> Option<[u8; 8]> {
        self.responses.first().copied()
    }

    pub(crate) fn response_sent(&mut self) {
        self.responses.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mtu: &mut Mtu, path: u16) -> u32 {
        let mut pn = 0;
        while let Some(size) = mtu.probe_due() {
            mtu.probe_sent(pn, size);
            if size <= path {
                assert!(mtu.on_acked(pn))
            } else {
                mtu.on_lost(pn)
            }
            pn += 1;
            assert!(pn < 100, "the search must end");
        }
        pn as u32
    }

    #[test]
    fn a_path_that_carries_the_goal_costs_one_probe() {
        let mut mtu = Mtu::new(8972);
        assert_eq!(mtu.probe_due(), None, "not before the handshake is confirmed");
        mtu.enable();
        assert_eq!(run(&mut mtu, 9000), 1);
        assert_eq!(mtu.current(), 8972);
    }

    #[test]
    fn the_search_ends_close_to_what_the_path_carries() {
        for path in [1200, 1201, 1350, 1452, 4000, 8971] {
            let mut mtu = Mtu::new(8972);
            mtu.enable();
            run(&mut mtu, path);
            assert!(mtu.current() <= path && path - mtu.current() < SEARCH_GRAIN, "{path} {}", mtu.current());
        }
    }

    #[test]
    fn a_black_hole_shrinks_and_searches_again_below() {
        let mut mtu = Mtu::new(1472);
        mtu.enable();
        run(&mut mtu, 1500);
        assert!(mtu.on_black_hole());
        assert_eq!(mtu.current(), MIN_MTU);
        assert!(mtu.probe_due().unwrap() < 1472);
        assert!(!Mtu::new(1472).on_black_hole());
    }

    #[test]
    fn three_times_rule() {
        let addr = "[::1]:1".parse().unwrap();
        let mut path = Path::new(addr, addr, false, 1472);
        assert_eq!(path.budget(), 0);
        path.on_received(1200);
        path.on_sent(3000);
        assert_eq!(path.budget(), 600);
        path.validate();
        assert_eq!(path.budget(), u64::MAX);
    }
}
