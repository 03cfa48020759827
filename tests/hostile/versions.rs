//! Version Negotiation on the client side (RFC 9000 §6.2, RFC 8999 §6).

use gannet::quic::CloseReason;
use gannet::wire::quic::header;

use super::world::{Host, exchange, small, waiting_client};

/// A server's answer to `first` that lists `versions`.
fn negotiation(first: &[u8], versions: &[u32]) -> Vec<u8> {
    let first = header::parse(first, 8).unwrap();
    let mut out = vec![0; 100];
    let len = header::encode_version_negotiation(&mut out, 0, &first.scid, &first.dcid, versions).unwrap();
    out.truncate(len);
    out
}

/// Whether a client gives up when its first packet is answered by `answer`.
fn gives_up(answer: impl FnOnce(&[u8]) -> Vec<u8>) -> bool {
    let mut host = Host::client(small());
    let first = host.run();
    host.receive(answer(&first[0].1));
    host.run();
    match host.closed() {
        None => false,
        Some(reason) => {
            assert_eq!(*reason, CloseReason::VersionMismatch);
            true
        }
    }
}

/// Until 2026-11, a packet that lists no version at all ended the attempt, although anyone who sees the client's first
/// packet could send it ("An endpoint MUST ignore a packet that contains no Supported Version fields or contains a
/// truncated Supported Version value").
#[test]
fn only_a_list_without_our_version_ends_the_attempt() {
    assert!(gives_up(|first| negotiation(first, &[2, 0x0a0a_0a0a])));
    assert!(!gives_up(|first| negotiation(first, &[2, 1])));
    assert!(!gives_up(|first| negotiation(first, &[])));
    for cut in 1..4 {
        assert!(!gives_up(|first| {
            let mut answer = negotiation(first, &[2, 3]);
            answer.truncate(answer.len() - cut);
            answer
        }));
    }
    assert!(
        !gives_up(|first| {
            let mut other = first.to_vec();
            other[6] ^= 1;
            negotiation(&other, &[2])
        }),
        "another connection's"
    );
}

#[test]
fn once_a_server_was_heard_the_version_is_settled() {
    let (mut host, mut peer) = waiting_client(small());
    let (local, remote) = (peer.remote_cid, peer.original_dcid);
    host.receive(peer.out.remove(0));
    let mut late = vec![0; 100];
    let len = header::encode_version_negotiation(&mut late, 0, &local, &remote, &[2]).unwrap();
    late.truncate(len);
    host.receive(late);
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
}
