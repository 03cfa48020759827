//! Floods: many strangers, and connected peers that try to fill memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use gannet::base::rng::Rng;
use gannet::quic::{DropReason, EndpointConfig, RetryPolicy, TransportConfig};
use gannet::wire::quic::frame::Frame;

use super::memory::held;
use super::peer::{DATA, Peer, frames};
use super::world::{Host, against_server, client_addr, endpoint_config, exchange, own_id, small};
use gannet::base::Side;

pub fn spoofed(n: u64) -> SocketAddr {
    SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 1024 + (n % 60_000) as u16))
}

/// A first Initial packet from somewhere, different each time.
pub fn initial(n: u64) -> Vec<u8> {
    Peer::client(spoofed(n), n + 77, |params| params.to_bytes()).out.remove(0)
}

/// Bytes received from and sent to each address.
#[derive(Default)]
struct Ledger(HashMap<SocketAddr, (usize, usize)>);

impl Ledger {
    fn feed(&mut self, host: &mut Host, from: SocketAddr, data: &mut [u8]) {
        self.0.entry(from).or_default().0 += data.len();
        host.receive_from(from, data);
        let out = host.run();
        self.count(&out);
    }

    fn count(&mut self, out: &[(gannet::quic::Transmit, Vec<u8>)]) {
        for (transmit, datagram) in out {
            let (received, sent) = self.0.entry(transmit.remote).or_default();
            *sent += datagram.len();
            assert!(*sent <= 3 * *received, "{sent} bytes to {} for {received}", transmit.remote);
        }
    }
}

/// A server that requires no tokens.
fn without_retry() -> Host {
    let config = EndpointConfig { retry: RetryPolicy::Never, ..endpoint_config(Side::Server) };
    Host::server_with(config, TransportConfig::default())
}

#[test]
fn spoofed_clients_cost_little_and_go_away() {
    let limit = endpoint_config(Side::Server).max_handshakes;
    let mut host = without_retry();
    let mut ledger = Ledger::default();
    for n in 0..limit as u64 {
        ledger.feed(&mut host, spoofed(n), &mut initial(n));
    }
    assert_eq!(host.endpoint.connection_count(), limit);
    let full = held();
    // Repeating one packet is cheaper for the test than making one each time.
    let again = initial(1 << 20);
    for n in 0..2000 {
        let from = spoofed((1 << 20) + n);
        ledger.feed(&mut host, from, &mut again.clone());
    }
    assert_eq!(host.endpoint.connection_count(), limit);
    assert_eq!(host.drops(DropReason::Overload), 2000);
    let grown = held() - full;
    assert!(grown < 300_000, "2000 more strangers took {grown} bytes");
    // Retransmissions count as well.
    let out = host.wait(Duration::from_secs(60));
    ledger.count(&out);
    assert_eq!(host.endpoint.connection_count(), 0, "handshakes that nobody finishes are given up");
    let left = ledger.0.values().filter(|(_, sent)| *sent > 0).count();
    assert_eq!(left, limit, "each of the first got its answer, nobody else did");

    // Repeatedly, as nothing must be left behind.
    let settled = held();
    for round in 1..4 {
        for n in 0..limit as u64 + 20 {
            ledger.feed(&mut host, spoofed(n), &mut initial(1000 * round + n));
        }
        assert_eq!(host.endpoint.connection_count(), limit);
        host.wait(Duration::from_secs(60));
        host.events.clear();
    }
    let grown = held() - settled;
    assert!(grown < 100_000, "three more floods left {grown} bytes behind");
}

#[test]
fn a_real_client_gets_in_beside_a_flood() {
    let limit = endpoint_config(Side::Server).max_handshakes;
    let mut host = without_retry();
    let mut ledger = Ledger::default();
    for n in 0..limit as u64 - 1 {
        ledger.feed(&mut host, spoofed(n), &mut initial(n));
    }
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && peer.handshake_done);
    // Its place is free for the next handshake.
    let other = SocketAddr::from(([192, 0, 2, 77], 5));
    let mut next = Peer::client(other, 2, |params| params.to_bytes());
    next.out.drain(..).for_each(|mut datagram| host.receive_from(other, &mut datagram));
    assert_eq!(host.endpoint.connection_count(), limit + 1);
    assert!(host.run().iter().any(|(transmit, _)| transmit.remote == other));
}

#[test]
fn a_copy_from_elsewhere_that_comes_first_locks_nobody_out() {
    let mut host = Host::server(TransportConfig::default());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    host.receive_from(spoofed(1), &mut peer.out[0].clone());
    exchange_with(&mut host, &mut peer);
    assert!(peer.is_connected() && peer.handshake_done);
}

/// Like [`exchange`], when others get datagrams as well.
fn exchange_with(host: &mut Host, peer: &mut Peer) {
    for _ in 0..10 {
        peer.out.drain(..).for_each(|datagram| host.receive(datagram));
        let heard = host.run();
        let addr = peer.addr;
        heard.iter().filter(|(t, _)| t.remote == addr).for_each(|(_, datagram)| peer.receive(datagram));
    }
}

#[test]
fn initials_that_do_not_authenticate_leave_nothing() {
    let mut host = Host::server(TransportConfig::default());
    let mut rng = Rng::from_u64(4);
    let real = initial(1);
    host.receive_from(spoofed(1), &mut vec![0; 1200]);
    let before = held();
    for n in 0..3000 {
        let mut forged = real.clone();
        // Another ID, so other keys, or another payload.
        let at = if n % 2 == 0 { 6 + rng.below(8) } else { 40 + rng.below(1100) } as usize;
        forged[at] ^= 1 + rng.below(255) as u8;
        host.receive_from(spoofed(n), &mut forged);
        assert!(host.run().is_empty());
    }
    assert_eq!(host.endpoint.connection_count(), 0);
    assert_eq!(host.drops(DropReason::Authentication), 3000);
    assert!(held() - before < 1000, "{} bytes", held() - before);
}

#[test]
fn answers_to_strangers_are_few_and_small() {
    let mut host = Host::server(TransportConfig::default());
    let mut rng = Rng::from_u64(5);
    let mut ledger = Ledger::default();
    let mut answers = 0;
    let before = held();
    for n in 0..5000u64 {
        let mut data = vec![0; 10 + rng.below(1400) as usize];
        rng.fill(&mut data);
        // Short headers with unknown IDs or those of ended connections, and long headers of unknown versions.
        if n % 3 == 0 {
            data[0] = data[0] & 0x3f | 0x40;
        } else if n % 3 == 1 {
            data[0] = data[0] & 0x3f | 0x40;
            let gone = own_id(&endpoint_config(Side::Server), n as u32, 5, 0);
            data.resize(data.len().max(11), 0);
            data[1..11].copy_from_slice(&gone);
        } else {
            data[0] |= 0xc0;
            data[5] = 8;
        }
        let size = data.len();
        let from = spoofed(n % 7);
        *ledger.0.entry(from).or_default() = (size, 0);
        host.receive_from(from, &mut data);
        for (transmit, datagram) in host.run() {
            assert!(transmit.conn.is_none() && datagram.len() < size, "{} bytes for {size}", datagram.len());
            answers += usize::from(datagram[0] & 0x80 == 0);
        }
    }
    assert!((1..=100).contains(&answers), "{answers} resets in a second");
    assert!(held() - before < 100_000);
}

/// A connected peer sends `count` packets and never acknowledges anything; returns how much memory grew.
fn unacknowledged(count: u64, payload: impl Fn(u64) -> Vec<u8>) -> (Host, Peer, isize) {
    let (mut host, mut peer) = against_server(small());
    let before = held();
    let mut answers = 0;
    for n in 0..count {
        let datagram = peer.packet(DATA, &payload(n));
        host.receive(datagram);
        answers += host.run().len();
        host.now += Duration::from_micros(10);
        host.events.clear();
    }
    assert!(answers > 0);
    let grown = held() - before;
    (host, peer, grown)
}

#[test]
fn a_peer_that_never_acknowledges_fills_no_memory() {
    let (host, _, grown) = unacknowledged(60_000, |_| vec![0x01]);
    assert!(host.closed().is_none());
    assert!(grown < 700_000, "{grown} bytes for 60000 PINGs");
}

#[test]
fn gaps_fill_no_memory() {
    // Every second packet number, then every second byte of CRYPTO and of a stream.
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let before = held();
    for _ in 0..5000 {
        peer.pn[DATA] += 1;
        let datagram = peer.packet(DATA, &[0x01]);
        host.receive(datagram);
        host.run();
    }
    assert!(host.closed().is_none() && held() - before < 700_000, "{} bytes", held() - before);

    let before = held();
    for n in 0..20_000u64 {
        let offset = 1 + 2 * n;
        let datagram = peer.packet(DATA, &frames(&[Frame::Crypto { offset, data: &[7] }]));
        host.receive(datagram);
        host.run();
        if host.closed().is_some() {
            break;
        }
    }
    assert!(held() - before < 700_000, "{} bytes for holes in CRYPTO", held() - before);
}
