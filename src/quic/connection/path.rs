//! Reports from the network about a connection's path.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use crate::base::Side;
use crate::base::time::Instant;
use crate::quic::cid::ResetToken;
use crate::quic::config::TransportConfig;
use crate::quic::connection::Connection;
use crate::quic::path::MIN_MTU;
use crate::quic::recovery::RecoveryConfig;
use crate::wire::quic::{ConnectionId, header};

/// Identifies the packets of a connection in reports from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) key: u64,
    pub(crate) cid_len: u8,
}

/// A reset token of the peer, if it has given one, and its address.
pub(crate) type Registered = (Option<ResetToken>, SocketAddr);

/// A router's report that it could not forward a datagram of ours (RFC 1191 §4, RFC 4443 §3.2).
#[derive(Clone, Copy, Debug)]
pub struct TooBig<'a> {
    /// The local address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Maximum UDP payload that the router would have forwarded, in bytes.
    pub max: u16,
    /// UDP payload of the datagram, in bytes.
    pub len: u16,
    /// The first bytes of that payload, as far as the router quotes them.
    pub quoted: &'a [u8],
}

/// A report by a host or router that a datagram of ours was not delivered.
#[derive(Clone, Copy, Debug)]
pub struct Undelivered<'a> {
    /// The local address that it was sent from.
    pub local: SocketAddr,
    /// The address that it was sent to.
    pub remote: SocketAddr,
    /// Whether the port is closed; otherwise, the host cannot be reached.
    pub port_closed: bool,
    /// Length of the UDP payload in bytes.
    pub len: u16,
    /// The first bytes of that payload, as far as they are quoted.
    pub quoted: &'a [u8],
}

/// Whether `packet`, a packet or its first bytes, is for the peer's connection ID `cid`, in a long or a short header
/// (RFC 9000 §17).
fn is_for(packet: &[u8], cid: &ConnectionId) -> bool {
    match packet {
        [] => false,
        [first, rest @ ..] if first & 0x80 == 0 => rest.starts_with(cid),
        _ => header::raw_dcid(packet).is_some_and(|id| *id == cid[..]),
    }
}

/// Settings of loss recovery on a path of which nothing is known. `seed` is that of congestion control.
pub(super) fn recovery_config(config: &TransportConfig, seed: u64) -> RecoveryConfig {
    RecoveryConfig {
        initial_rtt: config.initial_rtt,
        max_datagram: MIN_MTU,
        algorithm: config.congestion,
        pacing: config.pacing,
        seed,
    }
}

impl Connection {
    /// Whether the connection runs between these addresses.
    pub(crate) fn is_on_path(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.path.is_between(local, remote)
    }

    /// Whether a datagram that a router reports can be one of ours, by its addresses, connection ID and size.
    pub(crate) fn can_have_sent(&self, news: &TooBig<'_>) -> bool {
        self.is_active()
            && self.is_on_path(news.local, news.remote)
            && is_for(news.quoted, self.remote_cids.current())
            && (news.max.saturating_add(1)..=self.path.mtu.largest_sent()).contains(&news.len)
    }

    /// Whether a datagram reported as undelivered can belong to our handshake. True once for each kind of report.
    ///
    /// Established connections have received packets from their peer and rely on those instead (RFC 1122 §4.2.3.9, RFC
    /// 5927 §5.2). If the peer has no connection ID, a forger would only have to guess the addresses.
    pub(crate) fn is_undelivered(&mut self, news: &Undelivered<'_>) -> bool {
        let cid = self.remote_cids.current();
        let kind = if news.port_closed { 1 } else { 2 };
        let credible = self.is_active()
            && self.is_handshaking()
            && self.is_on_path(news.local, news.remote)
            && !cid.is_empty()
            && is_for(news.quoted, cid)
            && (1..=self.path.mtu.largest_sent()).contains(&news.len)
            && self.undelivered & kind == 0;
        self.undelivered |= if credible { kind } else { 0 };
        credible
    }

    /// Handles a router's claim that it does not forward UDP payloads above `max` bytes.
    pub(crate) fn on_too_big(&mut self, now: Instant, max: u16) {
        self.path.mtu.on_claim(now, max);
    }

    /// Tells the reset tokens of the IDs in use, each with the peer's address that may send it, if any of them may have
    /// changed (RFC 9000 §10.3.1). `replace` gets an old one and the new one in its place.
    pub(crate) fn tell_tokens(&mut self, mut replace: impl FnMut(Registered, Registered)) -> bool {
        let Some(new) = self.remote_cids.take_changed_token() else { return false };
        let (old, from, to) =
            (std::mem::replace(&mut self.reset_token, new), self.announced_remote(), self.path.remote);
        let mut others = ArrayVec::new();
        if let Some(paths) = &mut self.paths {
            others = paths.tokens(|cid| self.remote_cids.token(cid));
            for (token, at) in std::mem::replace(&mut paths.told, others.clone()) {
                replace((Some(token), at), (None, at));
            }
            paths.announced = to;
        }
        replace((old, from), (new, to));
        // Two paths may share an ID, and two IDs an address.
        others.into_iter().for_each(|(token, at)| replace((None, at), (Some(token), at)));
        true
    }

    /// The reset tokens that are registered with the endpoint.
    pub(crate) fn told_tokens(&self) -> impl Iterator<Item = Registered> {
        let others = self.paths.iter().flat_map(|paths| paths.told.iter().map(|(token, at)| (Some(*token), *at)));
        others.chain([(self.reset_token, self.announced_remote())])
    }

    /// The peer's address for which the reset token of the ID in use is registered with the endpoint.
    fn announced_remote(&self) -> SocketAddr {
        self.paths.as_ref().map_or(self.path.remote, |paths| paths.announced)
    }

    /// The peer's address when the connection began, as long as it handshakes.
    pub(crate) fn first_remote(&self) -> SocketAddr {
        self.paths.as_ref().map_or(self.path.remote, |paths| paths.first)
    }

    pub(crate) fn route(&self) -> Option<Route> {
        self.route
    }

    /// Registers the route of packets whose delivery failures can be reported. `replace` gets the previously registered
    /// route, the peer's connection ID, our address and the peer's.
    pub(crate) fn update_route(
        &mut self,
        replace: impl FnOnce(Option<Route>, &ConnectionId, SocketAddr, SocketAddr) -> Route,
    ) {
        // A client learns from "port unreachable" that there is no server.
        if self.confirmed || self.side == Side::Client {
            let (local, remote) = (self.path.local, self.path.remote);
            self.route = Some(replace(self.route, self.remote_cids.current(), local, remote));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;
    use crate::base::time::Duration;
    use crate::mem::BufPool;
    use crate::quic::tls::{self, TlsOptions};
    use crate::quic::{ClientConfig, Endpoint, EndpointConfig, RxMeta, ServerConfig, TransportConfig};

    /// Until 2026-11, both versions shared one size: an IPv6 address beside the IPv4 address took 20 bytes from IPv4
    /// packets.
    #[test]
    fn datagrams_are_as_large_as_their_ip_version_allows() {
        let options = TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() };
        let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()));
        let tls = tls::server_config(vec![identity.cert.der().clone()], key, &options).unwrap();
        let transport =
            || TransportConfig { max_udp_payload: 1472, max_udp_payload_v6: Some(1452), ..TransportConfig::default() };
        let server = ServerConfig::new(tls, transport()).unwrap();
        let client = ClientConfig::new(tls::insecure_client_config(&options).unwrap(), Arc::new(transport())).unwrap();
        let endpoint = |n, server| Endpoint::new(EndpointConfig::from_seed([n; 32]), server, BufPool::heap());
        let mut ends = [endpoint(1, None), endpoint(2, Some(server))];
        let mut now = Instant::from_nanos(1_000_000_000);
        let v4 = |n: u8| SocketAddr::from(([192, 0, 2, n], 443));
        let v6 = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 443));
        let conns = [(v4(1), v4(2)), (v6(1), v6(2))]
            .map(|(local, remote)| ends[0].connect(now, &client, "server.test", local, remote).unwrap());
        let mut largest = [0; 2];
        let mut slot = vec![0; 2048];
        for _ in 0..200 {
            now += Duration::from_millis(1);
            for end in 0..2 {
                ends[end].handle_timeout(now);
                while ends[end].poll_event().is_some() {}
                while let Some(sent) = ends[end].poll_transmit(now, &mut slot) {
                    let most = &mut largest[usize::from(sent.remote.is_ipv6())];
                    *most = sent.len.max(*most);
                    let meta = RxMeta { local: sent.remote, remote: sent.local, ecn: 0 };
                    ends[1 - end].handle_datagram(now, &meta, &mut slot[..sent.len]);
                }
            }
        }
        assert_eq!(largest, [1472, 1452]);
        assert_eq!(conns.map(|id| ends[0].conn(id).unwrap().stats().mtu), [1472, 1452]);
    }
}
