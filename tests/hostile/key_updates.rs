//! Key updates, by the rules and against them (RFC 9001 §6).

use std::time::Duration;

use gannet::quic::CloseReason;
use gannet::wire::quic::TransportError;

use super::peer::{Close, DATA, Peer};
use super::world::{Host, against_client, against_server, small};

const PING: [u8; 1] = [0x01];

fn worlds() -> [(Host, Peer); 2] {
    [against_server(small()), against_client(small())]
}

/// Lets the host do what it does in `millis`, and the peer read it.
fn wait(host: &mut Host, peer: &mut Peer, millis: u64) {
    host.wait(Duration::from_millis(millis)).iter().for_each(|(_, datagram)| peer.receive(datagram));
}

/// "An endpoint MUST NOT initiate a subsequent key update unless it has received an acknowledgment for a packet that
/// was sent protected with keys from the current key phase" (§6.1), and what the other end may do about it (§6.2).
#[test]
fn an_update_before_the_last_one_was_acknowledged_ends_the_connection() {
    for (mut host, mut peer) in worlds() {
        wait(&mut host, &mut peer, 100);
        peer.update_keys();
        host.receive(peer.packet(DATA, &PING));
        assert!(host.closed().is_none(), "the first update is fine: {:?}", host.closed());
        peer.update_keys();
        host.receive(peer.packet(DATA, &PING));
        wait(&mut host, &mut peer, 0);
        let code = TransportError::KEY_UPDATE_ERROR;
        assert!(matches!(host.closed(), Some(CloseReason::Transport { .. })), "{:?}", host.closed());
        assert_eq!(host.error(), Some(code));
        assert_eq!(peer.close, Some(Close { code, application: false, frame_type: 0 }));
    }
}

#[test]
fn updates_that_wait_for_their_acknowledgement_are_taken() {
    for (mut host, mut peer) in worlds() {
        for _ in 0..5 {
            peer.update_keys();
            host.receive(peer.packet(DATA, &PING));
            wait(&mut host, &mut peer, 100);
            assert_eq!(peer.acked, Some(peer.pn[DATA] - 1), "in the new phase");
            assert!(host.closed().is_none() && peer.close.is_none(), "{:?}", host.closed());
        }
        let id = host.conn.unwrap();
        assert_eq!(host.endpoint.conn(id).unwrap().stats().key_updates, 5);
    }
}
