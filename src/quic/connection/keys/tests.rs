//! Exhausted keys and packet numbers. As no test can send 2^23 packets, the counters are set.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::base::time::Duration;
use crate::mem::BufPool;
use crate::quic::tls::{self, TlsOptions};
use crate::quic::{
    ClientConfig, CloseReason, ConnId, Dir, Endpoint, EndpointConfig, Event, RxMeta, SendData, ServerConfig, StreamId,
    TransportConfig,
};
use crate::wire::quic::TransportError;

/// Two connected engines, client and server.
struct Pair {
    now: Instant,
    ends: [Endpoint; 2],
    conns: [ConnId; 2],
    closed: [Option<CloseReason>; 2],
    stream: Option<StreamId>,
}

impl Pair {
    fn new() -> Self {
        let options = TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() };
        let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()));
        let tls = tls::server_config(vec![identity.cert.der().clone()], key, &options).unwrap();
        let server = ServerConfig::new(tls, TransportConfig::default()).unwrap();
        let tls = tls::insecure_client_config(&options).unwrap();
        let client = ClientConfig::new(tls, Arc::new(TransportConfig::default())).unwrap();
        let endpoint = |n, server| Endpoint::new(EndpointConfig::from_seed([n; 32]), server, BufPool::heap());
        let now = Instant::from_nanos(1_000_000_000);
        let mut ends = [endpoint(1, None), endpoint(2, Some(server))];
        let id = ends[0].connect(now, &client, "server.test", addr(0), addr(1)).unwrap();
        let mut this = Self { now, ends, conns: [id; 2], closed: [None, None], stream: None };
        this.run();
        assert!((0..2).all(|end| this.ends[end].conn(this.conns[end]).unwrap().conn.confirmed));
        this
    }

    /// Advances the time; everything sent arrives at once.
    fn run(&mut self) {
        let mut slot = vec![0; 2048];
        for _ in 0..100 {
            self.now += Duration::from_millis(1);
            for end in 0..2 {
                self.ends[end].handle_timeout(self.now);
                while let Some((id, event)) = self.ends[end].poll_event() {
                    self.conns[end] = id;
                    if let Event::Closed { reason } = event {
                        self.closed[end] = Some(reason);
                    }
                }
                while let Some(sent) = self.ends[end].poll_transmit(self.now, &mut slot) {
                    let meta = RxMeta { local: sent.remote, remote: sent.local, ecn: 0 };
                    self.ends[1 - end].handle_datagram(self.now, &meta, &mut slot[..sent.len]);
                }
            }
        }
    }

    fn with_conn<T>(&mut self, end: usize, work: impl FnOnce(&mut crate::quic::connection::Connection) -> T) -> T {
        work(self.ends[end].conn(self.conns[end]).unwrap().conn)
    }

    fn with_keys<T>(&mut self, end: usize, work: impl FnOnce(&mut OneRtt) -> T) -> T {
        self.with_conn(end, |conn| work(conn.one_rtt.as_mut().unwrap()))
    }

    fn send(&mut self, end: usize) {
        let mut conn = self.ends[end].conn(self.conns[end]).unwrap();
        let id = *self.stream.get_or_insert_with(|| conn.open(Dir::Bidi).unwrap());
        conn.send(id, SendData::Static(b"data"), false).unwrap();
    }

    /// A forged 1-RTT packet, or one of another type, arrives.
    fn forge(&mut self, end: usize, packet: &mut [u8]) {
        let meta = RxMeta { local: addr(end), remote: addr(1 - end), ecn: 0 };
        self.ends[end].handle_datagram(self.now, &meta, packet);
    }
}

fn addr(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + end as u8], 443))
}

fn is_limit(reason: Option<&CloseReason>) -> bool {
    let limit = TransportError::AEAD_LIMIT_REACHED.0;
    matches!(reason, Some(CloseReason::Transport { code, .. } | CloseReason::PeerTransport { code, .. }) if *code == limit)
}

/// "If a key update is not possible or integrity limits are reached, the endpoint MUST stop using the connection" (RFC
/// 9001 §6.6). The connection used to end without informing the peer, which waited for its idle timeout.
#[test]
fn the_peer_is_told_when_keys_are_used_up() {
    for end in 0..2 {
        let mut pair = Pair::new();
        // The last packet that may carry data does, as no packet of the new phase is acknowledged.
        pair.with_keys(end, |keys| {
            keys.confirmed = false;
            keys.sent_from = u64::MAX;
            keys.sent_with_key = keys.limit - LAST_WORDS - 1;
        });
        let still_open = |pair: &Pair| pair.closed == [None, None];
        let packets = (0..20).take_while(|_| {
            // The server has acknowledgements to send, the client has data.
            pair.send(0);
            pair.run();
            still_open(&pair)
        });
        assert_eq!(packets.count(), 1);
        assert!(pair.closed.iter().all(|reason| is_limit(reason.as_ref())), "{:?}", pair.closed);
        assert!(matches!(pair.closed[1 - end], Some(CloseReason::PeerTransport { .. })));
    }
}

/// Closes do not exceed the limit either.
#[test]
fn closes_keep_the_limit_too() {
    let mut pair = Pair::new();
    pair.with_keys(0, |keys| keys.sent_with_key = keys.limit);
    pair.ends[0].conn(pair.conns[0]).unwrap().close(1, "too late");
    pair.run();
    assert_eq!(pair.closed, [Some(CloseReason::Local { code: 1 }), None]);
    let mut pair = Pair::new();
    pair.with_keys(0, |keys| keys.sent_with_key = keys.limit - 1);
    pair.ends[0].conn(pair.conns[0]).unwrap().close(1, "just in time");
    pair.run();
    assert_eq!(pair.closed[1], Some(CloseReason::Application { code: 1, reason: "just in time".into() }));
}

/// At half of the limit, the keys are updated, and the connection continues.
#[test]
fn keys_are_updated_long_before_the_limit() {
    let mut pair = Pair::new();
    pair.send(0);
    pair.run();
    pair.with_keys(0, |keys| keys.sent_with_key = keys.limit / 2);
    pair.send(0);
    pair.run();
    assert_eq!(pair.with_keys(0, |keys| (keys.phase, keys.sent_with_key > 1000)), (true, false));
    assert!(pair.with_keys(1, |keys| keys.phase));
    assert_eq!(pair.closed, [None, None]);
}

/// Failures count over all keys of the connection, including those of Initial and Handshake packets (RFC 9001 §6.6).
#[test]
fn the_peer_is_told_when_too_many_packets_were_forged() {
    for end in 0..2 {
        let mut pair = Pair::new();
        let limit = pair.with_keys(end, |keys| keys.any_remote().integrity_limit());
        pair.with_conn(end, |conn| conn.forged = limit - 2);
        let cid = pair.with_conn(1 - end, |conn| *conn.remote_cids.current());
        let mut packet = [0x40; 60];
        packet[1..=cid.len()].copy_from_slice(&cid);
        pair.forge(end, &mut packet.clone());
        pair.run();
        assert_eq!(pair.closed, [None, None]);
        pair.forge(end, &mut packet.clone());
        pair.run();
        assert!(pair.closed.iter().all(|reason| is_limit(reason.as_ref())), "{:?}", pair.closed);
    }
}

/// "If the packet number for sending reaches 2^62-1, the sender MUST close the connection without sending a
/// CONNECTION_CLOSE frame or any further packets" (RFC 9000 §12.3). Until 2026-11, nothing looked at it.
#[test]
fn a_connection_without_packet_numbers_falls_silent() {
    use crate::quic::connection::packet::LAST_PN;
    use crate::quic::recovery::SpaceId;
    for end in 0..2 {
        for at in [LAST_PN - 9, LAST_PN - 2] {
            let mut pair = Pair::new();
            pair.run();
            let data = SpaceId::Data.index();
            pair.with_conn(end, |conn| (conn.spaces[data].next_pn, conn.skip_at) = (at, LAST_PN));
            let before = pair.ends[end].stats().tx_datagrams;
            for _ in 0..100 {
                if pair.closed[end].is_none() {
                    pair.send(end);
                }
                pair.run();
            }
            let sent = pair.ends[end].stats().tx_datagrams - before;
            assert_eq!(sent, LAST_PN - at, "one with each number, and nothing after that");
            let code = TransportError::INTERNAL_ERROR.0;
            let ended = |reason: &CloseReason| matches!(reason, CloseReason::Transport { code: c, .. } if *c == code);
            assert!(pair.closed[end].as_ref().is_some_and(ended), "{:?}", pair.closed);
            assert!(!matches!(pair.closed[1 - end], Some(CloseReason::PeerTransport { .. })), "{:?}", pair.closed);
        }
    }
}
