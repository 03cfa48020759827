//! 0-RTT packets that overtake their client's first Initial packet (RFC 9000 §5.2.2, RFC 9001 §5.7).

use std::collections::VecDeque;

use crate::base::time::{Duration, Instant};
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::Endpoint;
use crate::quic::stats::DropReason;
use crate::wire::quic::ConnectionId;
use crate::wire::quic::header::Parsed;

/// Maximum number of datagrams that are kept for all clients together.
const MAX_DATAGRAMS: usize = 32;

/// Maximum size of such a datagram in bytes. Before the handshake, nobody knows that the path carries larger ones.
const MAX_LEN: usize = 1500;

/// How long they are kept. The network does not delay one of two packets much longer than the other.
const PATIENCE: Duration = Duration::from_millis(300);

/// A datagram that begins with a 0-RTT packet.
#[derive(Debug)]
struct Forerunner {
    arrived: Instant,
    dcid: ConnectionId,
    meta: RxMeta,
    bytes: Box<[u8]>,
}

/// Datagrams without a connection, oldest first. Anybody can send such packets, so the most recent ones displace others.
#[derive(Debug, Default)]
pub(super) struct Forerunners(VecDeque<Forerunner>);

impl Forerunners {
    /// Keeps a copy of a datagram. Returns the number of datagrams that are dropped for it or because of their age, itself
    /// included.
    fn keep(&mut self, now: Instant, meta: &RxMeta, dcid: ConnectionId, bytes: &[u8]) -> usize {
        let mut dropped = self.expire(now);
        if bytes.len() > MAX_LEN {
            return dropped + 1;
        }
        if self.0.len() == MAX_DATAGRAMS {
            self.0.pop_front();
            dropped += 1;
        }
        self.0.push_back(Forerunner { arrived: now, dcid, meta: *meta, bytes: bytes.into() });
        dropped
    }

    /// Drops those that nobody will ask for any more. Returns their number.
    fn expire(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        while self.0.pop_front_if(|kept| now.saturating_since(kept.arrived) > PATIENCE).is_some() {}
        before - self.0.len()
    }

    /// Takes the oldest one of the client that chose `dcid` and has the addresses of `meta`.
    fn take(&mut self, meta: &RxMeta, dcid: &ConnectionId) -> Option<Forerunner> {
        let same =
            |kept: &Forerunner| kept.dcid == *dcid && (kept.meta.remote, kept.meta.local) == (meta.remote, meta.local);
        self.0.iter().position(same).and_then(|at| self.0.remove(at))
    }
}

impl Endpoint {
    /// Keeps a datagram that begins with a 0-RTT packet without a connection, if 0-RTT is accepted at all.
    #[cold]
    pub(super) fn keep_forerunner(&mut self, now: Instant, meta: &RxMeta, parsed: &Parsed, data: &[u8]) {
        let mut dropped = 1;
        if self.lists.early_data.is_some() && !self.closed {
            dropped = self.forerunners.keep(now, meta, parsed.dcid, data);
            self.stats.packets_kept += 1;
        }
        (0..dropped).for_each(|_| self.stats.drop(DropReason::UnknownConnection));
    }

    /// Reads what came before the Initial packet of the client that chose `dcid`, whose connection exists now.
    #[cold]
    pub(super) fn read_forerunners(&mut self, now: Instant, meta: &RxMeta, dcid: &ConnectionId) {
        let expired = self.forerunners.expire(now);
        (0..expired).for_each(|_| self.stats.drop(DropReason::UnknownConnection));
        while let Some(mut kept) = self.forerunners.take(meta, dcid) {
            let Ok(parsed) = self.ids.parse(&kept.bytes) else { continue };
            match self.find(now, &parsed, meta.remote) {
                Some(id) => self.deliver(now, id, &kept.meta, &parsed, &mut kept.bytes),
                None => self.stats.drop(DropReason::UnknownConnection),
            }
        }
    }

    /// Whether there are any.
    pub(super) fn has_forerunners(&self) -> bool {
        !self.forerunners.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(port: u16) -> RxMeta {
        RxMeta { local: ([192, 0, 2, 1], 443).into(), remote: ([192, 0, 2, 2], port).into(), ecn: 0 }
    }

    fn cid(n: u8) -> ConnectionId {
        ConnectionId::new(&[n; 8]).unwrap()
    }

    #[test]
    fn each_client_gets_its_own_in_order() {
        let mut kept = Forerunners::default();
        let now = Instant::from_nanos(5);
        for (port, id, byte) in [(1, 1, b'a'), (2, 1, b'b'), (1, 2, b'c'), (1, 1, b'd')] {
            assert_eq!(kept.keep(now, &meta(port), cid(id), &[byte]), 0);
        }
        let mut take = |port, id| kept.take(&meta(port), &cid(id)).map(|kept| kept.bytes[0]);
        assert_eq!([take(1, 1), take(1, 1), take(1, 1)], [Some(b'a'), Some(b'd'), None]);
        assert_eq!([take(2, 2), take(2, 1), take(1, 2)], [None, Some(b'b'), Some(b'c')]);
    }

    #[test]
    fn they_are_bounded_in_number_size_and_age() {
        let mut kept = Forerunners::default();
        let now = Instant::from_nanos(5);
        assert_eq!(kept.keep(now, &meta(1), cid(1), &[0; MAX_LEN + 1]), 1);
        assert!(kept.0.is_empty());
        let dropped: usize = (0..100).map(|n| kept.keep(now, &meta(n), cid(1), &[7; MAX_LEN])).sum();
        assert_eq!((dropped, kept.0.len()), (100 - MAX_DATAGRAMS, MAX_DATAGRAMS));
        assert!(kept.take(&meta(0), &cid(1)).is_none() && kept.take(&meta(99), &cid(1)).is_some());
        let later = now + PATIENCE;
        assert_eq!(kept.keep(later, &meta(1), cid(9), &[1]), 0);
        let much_later = later + Duration::from_nanos(1);
        assert_eq!((kept.expire(much_later), kept.0.len()), (MAX_DATAGRAMS - 1, 1));
    }
}
