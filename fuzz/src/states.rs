//! Engines in every state, each with the peer that brought it there.

use std::time::Duration;

use gannet::quic::TransportConfig;

use crate::peer::{DATA, HANDSHAKE, INITIAL, Peer};
use crate::world::{Host, against_client, against_server, client_addr, greeted, small, waiting_client};

/// Number of states.
const STATES: u8 = 7;

/// Settings with low limits, under which a silent connection soon ends.
pub fn transport() -> TransportConfig {
    TransportConfig { max_idle_timeout: Duration::from_secs(20), ..small() }
}

/// An engine in a state chosen by `n`, and its peer.
pub fn world(n: u8) -> (Host, Peer) {
    match n % STATES {
        // A server without a connection, and a client that is about to start one.
        0 => (Host::server(transport()), Peer::client(client_addr(), 1, |params| params.to_bytes())),
        // A server that waits for the client's Handshake packets.
        1 => greeted(transport()),
        2 => waiting_client(transport()),
        3 => against_server(transport()),
        4 => against_client(transport()),
        // Closing.
        5 => {
            let (mut host, peer) = against_server(transport());
            let id = host.conn.expect("connected");
            host.endpoint.conn(id).expect("connected").close(1, "fuzz");
            (host, peer)
        }
        // Draining.
        _ => {
            let (mut host, mut peer) = against_server(transport());
            let datagram = peer.packet(DATA, &[0x1d, 0, 0]);
            host.receive(datagram);
            (host, peer)
        }
    }
}

/// The packet number space wanted by `n`, or the last before it that the peer has keys for.
pub fn space(peer: &Peer, n: u8) -> usize {
    match n % 3 {
        2 if peer.is_connected() => DATA,
        1 | 2 if peer.has_handshake_keys() => HANDSHAKE,
        _ => INITIAL,
    }
}
