//! The network paths of a connection (RFC 9000 §8.2, §9).
//!
//! [`Path`] is what is known of one path: its addresses, whether the peer's address is validated, the
//! anti-amplification limit, the MTU, ECN and the spin bit. [`Paths`] is everything beyond the path in use: other paths, and validation.

mod ecn;
mod mtu;
mod set;
mod spin;
mod validation;

use std::net::SocketAddr;

pub(crate) use ecn::{Ecn, Report};
pub(crate) use mtu::{MIN_MTU, Mtu};
pub(crate) use set::{Ended, MAX_RESPONSES, Other, Paths, Place, Role};
pub(crate) use spin::Spin;
pub(crate) use validation::{PathData, Proof, Validation};

/// A path of a connection.
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
    /// Sequence number of the ID of ours that the peer is known to have used on it. A peer that comes from elsewhere
    /// with another one has moved on purpose (RFC 9000 §9.5).
    pub(crate) peer_uses: u16,
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
        Self { local, remote, validated, received: 0, sent: 0, mtu: Mtu::new(max_udp_payload), ecn, spin, peer_uses: 0 }
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

    /// Whether it is the path between these addresses.
    #[inline]
    pub(crate) fn is_between(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.local == local && self.remote == remote
    }

    /// Whether its IP addresses are those of `other`, so that at most ports differ.
    pub(crate) fn has_hosts_of(&self, other: &Self) -> bool {
        self.local.ip() == other.local.ip() && self.remote.ip() == other.remote.ip()
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
