//! The network path of a connection: validation, the anti-amplification limit, its MTU, ECN and the spin bit.

mod ecn;
mod mtu;
mod spin;

use std::net::SocketAddr;

use arrayvec::ArrayVec;

pub(crate) use ecn::{Ecn, Report};
pub(crate) use mtu::{MIN_MTU, Mtu};
pub(crate) use spin::Spin;

/// Maximum number of PATH_RESPONSEs waiting to be sent; more challenges are a flood.
const MAX_RESPONSES: usize = 4;

/// The path of a connection.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    validated: bool,
    received: u64,
    sent: u64,
    pub(crate) mtu: Mtu,
    pub(crate) ecn: Ecn,
    pub(crate) spin: Spin,
    responses: ArrayVec<[u8; 8], MAX_RESPONSES>,
}

impl Path {
    pub(crate) fn new(
        local: SocketAddr,
        remote: SocketAddr,
        validated: bool,
        max_udp_payload: u16,
        ecn: Ecn,
        spin: Spin,
    ) -> Self {
        Self {
            local,
            remote,
            validated,
            received: 0,
            sent: 0,
            mtu: Mtu::new(max_udp_payload),
            ecn,
            spin,
            responses: ArrayVec::new(),
        }
    }

    /// Whether the peer's address is validated.
    pub(crate) fn is_validated(&self) -> bool {
        self.validated
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

    /// Number of bytes that may be sent: three times the bytes received, until validated (RFC 9000 §8.1).
    pub(crate) fn budget(&self) -> u64 {
        if self.validated { u64::MAX } else { (3 * self.received).saturating_sub(self.sent) }
    }

    /// Handles PATH_CHALLENGE: queues the response.
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

    #[test]
    fn three_times_rule() {
        let addr = "[::1]:1".parse().unwrap();
        let spin = Spin::new(crate::base::Side::Server, false, &mut crate::base::rng::Rng::from_u64(1));
        let mut path = Path::new(addr, addr, false, 1472, Ecn::new(false), spin);
        assert_eq!(path.budget(), 0);
        path.on_received(1200);
        path.on_sent(3000);
        assert_eq!(path.budget(), 600);
        path.validate();
        assert_eq!(path.budget(), u64::MAX);
    }
}
