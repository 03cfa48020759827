//! What the network tells of the path that a connection runs on.

use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::quic::connection::Connection;
use crate::wire::quic::ConnectionId;

/// Where a connection's packets go to, as they are found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) key: u64,
    pub(crate) cid_len: u8,
}

/// A router's word that it could not forward a datagram of ours (RFC 1191 §4, RFC 4443 §3.2).
#[derive(Clone, Copy, Debug)]
pub struct TooBig<'a> {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Largest UDP payload that it would have forwarded, in bytes.
    pub max: u16,
    /// UDP payload of the datagram, in bytes.
    pub len: u16,
    /// The first bytes of that payload, as many as the router quotes.
    pub quoted: &'a [u8],
}

impl Connection {
    /// Whether the connection runs between these addresses.
    pub(crate) fn is_on_path(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.path.local == local && self.path.remote == remote
    }

    /// Whether a datagram that a router speaks of can be one of ours: by its addresses, its connection ID, and its size.
    pub(crate) fn can_have_sent(&self, news: &TooBig<'_>) -> bool {
        let cid = self.remote_cids.current();
        self.is_active()
            && self.is_on_path(news.local, news.remote)
            && news.quoted.get(1..=cid.len()).is_some_and(|quoted| quoted == &cid[..])
            && (news.max + 1..=self.path.mtu.largest_sent()).contains(&news.len)
    }

    /// A router does not forward UDP payloads above `max` bytes, or so it says.
    pub(crate) fn on_too_big(&mut self, now: Instant, max: u16) {
        self.path.mtu.on_claim(now, max);
    }

    pub(crate) fn route(&self) -> Option<Route> {
        self.route
    }

    /// Tells where packets go to, for those whose size can be found to be too big: `replace` takes what was told before, the
    /// peer's connection ID, our address, and the peer's.
    pub(crate) fn update_route(
        &mut self,
        replace: impl FnOnce(Option<Route>, &ConnectionId, SocketAddr, SocketAddr) -> Route,
    ) {
        if self.confirmed {
            let (local, remote) = (self.path.local, self.path.remote);
            self.route = Some(replace(self.route, self.remote_cids.current(), local, remote));
        }
    }
}
