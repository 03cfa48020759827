//! CRYPTO frames in pieces: what strangers can make the engine do and store before their address is validated.

use std::net::SocketAddr;

use gannet::quic::TransportConfig;
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::Frame;

use super::memory::{allocations, held};
use super::peer::{DATA, INITIAL, Peer, frames};
use super::world::{Host, against_server, client_addr, exchange};

fn stranger(n: u64) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 1000 + n as u16))
}

/// The first flight of a client that sends its hello in pieces of `size` bytes.
fn hello(peer: &mut Peer, size: usize) -> Vec<Vec<u8>> {
    let said = peer.said[INITIAL].clone();
    let pieces: Vec<_> = (0..).step_by(size).zip(said.chunks(size)).collect();
    // At most four bytes of header each.
    let flight = pieces.chunks(1100 / (4 + size).min(1100));
    let flight = flight.map(|part| {
        let list: Vec<_> = part.iter().map(|(offset, data)| Frame::Crypto { offset: *offset, data }).collect();
        peer.packet(INITIAL, &frames(&list))
    });
    flight.collect()
}

/// TLS used to be called for each frame: seven allocations and a pass over all data each, 135 us for a packet of
/// one-byte frames.
#[test]
fn a_hello_in_single_bytes_costs_what_it_costs_in_one() {
    let count = |size| {
        let mut host = Host::server(TransportConfig::default());
        // The first connection makes what all share.
        for n in 0..2 {
            let mut peer = Peer::client(stranger(n), n + 1, |params| params.to_bytes());
            let flight = hello(&mut peer, size);
            let before = allocations();
            flight.into_iter().for_each(|mut datagram| host.receive_from(stranger(n), &mut datagram));
            let after = allocations();
            let answer: usize = host.run().iter().map(|(_, datagram)| datagram.len()).sum();
            assert!(answer > 1000, "its whole flight: {answer} bytes");
            if n == 1 {
                return (after - before, peer.said[INITIAL].len());
            }
        }
        unreachable!()
    };
    let (whole, _) = count(1000);
    let (pieces, bytes) = count(1);
    assert!(pieces < whole + 30, "{pieces} allocations for {bytes} bytes one by one, {whole} for all at once");

    let mut host = Host::server(TransportConfig::default());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    peer.out = hello(&mut peer, 1);
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && peer.handshake_done);
}

/// Six bytes used to take 64 KiB.
#[test]
fn bytes_far_ahead_take_little_memory() {
    let strangers = |frame: Frame<'_>| {
        let mut host = Host::server(TransportConfig::default());
        let mut before = 0;
        for n in 0..21 {
            let mut peer = Peer::client(stranger(n), n + 1, |params| params.to_bytes());
            let mut datagram = peer.packet(INITIAL, &frames(std::slice::from_ref(&frame)));
            if n == 1 {
                before = held();
            }
            host.receive_from(stranger(n), &mut datagram);
        }
        let grown = (held() - before) / 20;
        host.run();
        (grown, host.error())
    };
    let (plain, none) = strangers(Frame::Ping);
    let (far, fine) = strangers(Frame::Crypto { offset: 8191, data: b"x" });
    assert_eq!((none, fine), (None, None));
    // For 1200 bytes that each of them sent.
    assert!(far - plain < 9000, "{far} bytes rather than {plain}");
    let (_, error) = strangers(Frame::Crypto { offset: 8192, data: b"x" });
    assert_eq!(error, Some(TransportError::CRYPTO_BUFFER_EXCEEDED));
}

#[test]
fn a_server_holds_no_crypto_bytes_once_the_handshake_is_over() {
    let (mut host, mut peer) = against_server(TransportConfig::default());
    let datagram = peer.packet(DATA, &frames(&[Frame::Crypto { offset: 5, data: b"x" }]));
    host.receive(datagram);
    host.run();
    // unexpected_message: nothing is expected from a client, so data after a gap is as wrong as data in order.
    assert_eq!(host.error(), Some(TransportError::crypto(10)));
}

/// "A server SHOULD treat the receipt of a TLS ClientHello with a non-empty legacy_session_id field as a connection error
/// of type PROTOCOL_VIOLATION" (RFC 9001 §8.4).
#[test]
fn a_hello_in_compatibility_mode_is_refused() {
    let mut host = Host::server(TransportConfig::default());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    // Type, length in three bytes, version, random number: then the session ID.
    let mut hello = peer.said[INITIAL].clone();
    assert_eq!((hello[0], hello[38]), (1, 0));
    hello[38] = 32;
    hello.splice(39..39, [7; 32]);
    let len = (hello.len() - 4) as u32;
    hello[1..4].copy_from_slice(&len.to_be_bytes()[1..]);
    let datagram = peer.packet(INITIAL, &frames(&[Frame::Crypto { offset: 0, data: &hello }]));
    host.receive(datagram);
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
    assert_eq!(peer.close.map(|close| close.code), Some(TransportError::PROTOCOL_VIOLATION));
}
