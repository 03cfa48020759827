use std::net::SocketAddr;

use super::*;
use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::quic::stream::Windows;
use crate::quic::{ClientConfig, ConnId, Endpoint, EndpointConfig, TransportConfig, tls};

/// An engine with one connection that has received nothing from its peer yet, but may open a stream.
fn connecting() -> (Endpoint, ConnId) {
    let tls =
        tls::insecure_client_config(&tls::TlsOptions { alpn: vec![b"x".to_vec()], ..Default::default() }).unwrap();
    let transport = TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() };
    let client = ClientConfig::new(tls, transport).unwrap();
    let mut endpoint = Endpoint::new(EndpointConfig::from_seed([1; 32]), None, BufPool::heap());
    let (local, remote) = (SocketAddr::from(([192, 0, 2, 1], 5)), SocketAddr::from(([192, 0, 2, 2], 443)));
    let id = endpoint.connect(Instant::ZERO, &client, "server.test", local, remote).unwrap();
    endpoint.conn(id).unwrap().conn.streams.set_peer(Windows::default(), 1, 0);
    (endpoint, id)
}

/// Offsets end at 2^62-1 (RFC 9000 §4.5, §16): bytes beyond could neither be announced nor be filled.
#[test]
fn buffers_beyond_the_largest_offset_come_back() {
    let (mut endpoint, id) = connecting();
    let mut conn = endpoint.conn(id).unwrap();
    let stream = conn.open(Dir::Bidi).unwrap();
    let recv = conn.conn.streams.get(stream).unwrap().recv.as_mut().unwrap();
    recv.placement = Placement::provided_up_to(varint::MAX - 10);

    let bufs: Vec<_> = [4, 4, 3].map(PinnedBuf::unpinned).into();
    let addrs: Vec<_> = bufs.iter().map(PinnedBuf::addr).collect();
    let refused = conn.provide_receive_buffers(stream, bufs).unwrap_err();
    assert_eq!(refused.kind, ProvideErrorKind::TooMuch);
    assert_eq!(refused.bufs.iter().map(PinnedBuf::addr).collect::<Vec<_>>(), addrs, "all of them, in order");

    let buf = PinnedBuf::unpinned(11);
    let addr = buf.addr();
    let refused = conn.provide_receive_buffer(stream, buf).unwrap_err();
    assert_eq!((refused.kind, refused.bufs.len(), refused.bufs[0].addr()), (ProvideErrorKind::TooMuch, 1, addr));

    conn.provide_receive_buffers(stream, [4, 6].map(PinnedBuf::unpinned).into()).unwrap();
    assert_eq!(
        conn.stream_stats(stream).unwrap().provided,
        varint::MAX,
        "a refusal takes nothing, and the last byte fits"
    );
    let refused = conn.provide_receive_buffer(stream, PinnedBuf::unpinned(1)).unwrap_err();
    assert_eq!(refused.kind, ProvideErrorKind::TooMuch);
}
