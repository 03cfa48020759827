//! Key updates, valid and invalid (RFC 9001 §6).

use std::time::Duration;

use gannet::base::Side;
use gannet::quic::{CloseReason, Dir, DropReason, SendData};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::Frame;

use super::peer::{Close, DATA, Peer, Shape, frames};
use super::world::{Host, against_client, against_server, small, waiting_client};

const PING: [u8; 1] = [0x01];

fn worlds() -> [(Host, Peer); 2] {
    [against_server(small()), against_client(small())]
}

/// Lets the host work for `millis`, and the peer read what it sends.
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

/// Updates the host's keys; returns what it sends at once because of that.
fn update(host: &mut Host) -> Vec<Vec<u8>> {
    let id = host.conn.unwrap();
    assert!(host.endpoint.conn(id).unwrap().update_keys());
    assert!(!host.endpoint.conn(id).unwrap().update_keys(), "one at a time");
    host.run().into_iter().map(|(_, datagram)| datagram).collect()
}

/// Acknowledges the host's 1-RTT packets, without which it may not update.
fn confirm(host: &mut Host, peer: &mut Peer) {
    if host.side == Side::Client {
        host.receive(peer.packet(DATA, &frames(&[Frame::HandshakeDone])));
        wait(host, peer, 0);
    }
    let ack = peer.ack(DATA);
    host.receive(peer.packet(DATA, &ack));
    wait(host, peer, 0);
}

fn read(host: &Host) -> u64 {
    host.endpoint.stats().rx_packets
}

/// "An endpoint MUST retain old keys until it has successfully unprotected a packet sent using the new keys" (§6.1).
/// They used to be dropped three probe timeouts after the update had begun, and with them everything from a peer that
/// did not know of it.
#[test]
fn a_peer_that_has_not_heard_of_an_update_is_still_read() {
    for (mut host, mut peer) in worlds() {
        confirm(&mut host, &mut peer);
        // What it sends in the meantime is lost.
        let lost = update(&mut host);
        assert!(!lost.is_empty());
        for millis in [10, 500, 2500, 5000, 10_000] {
            host.wait(Duration::from_millis(millis));
            let before = read(&host);
            host.receive(peer.packet(DATA, &PING));
            assert_eq!(read(&host), before + 1, "{millis} ms later");
        }
        assert_eq!(host.closed(), None);
        // Now the peer learns of it, and answers with the new keys.
        peer.update_keys();
        let said: Vec<_> = host.wait(Duration::from_millis(100));
        assert!(!said.is_empty());
        said.iter().for_each(|(_, datagram)| peer.receive(datagram));
        let ack = peer.ack(DATA);
        let late = peer.shaped(DATA, &PING, Shape { old_key: true, ..Shape::default() });
        let later = peer.shaped(DATA, &PING, Shape { old_key: true, ..Shape::default() });
        host.receive(peer.packet(DATA, &ack));
        let before = read(&host);
        host.receive(late);
        assert_eq!(read(&host), before + 1, "late packets can be read for a while");
        host.wait(Duration::from_millis(1000));
        let before = read(&host);
        host.receive(later);
        assert_eq!(read(&host), before, "but not for ever (§6.5)");
        assert!(!update(&mut host).is_empty(), "the next update");
    }
}

/// An update that the peer does not learn of can never be confirmed, so a quiet connection has to send something.
#[test]
fn an_update_of_a_quiet_connection_is_told_at_once() {
    for (mut host, mut peer) in worlds() {
        confirm(&mut host, &mut peer);
        for updates in 1..5 {
            wait(&mut host, &mut peer, 2000);
            let said = update(&mut host);
            peer.update_keys();
            let before = peer.packets;
            said.iter().for_each(|datagram| peer.receive(datagram));
            assert_eq!(peer.packets, before + 1);
            let ack = peer.ack(DATA);
            host.receive(peer.packet(DATA, &ack));
            let id = host.conn.unwrap();
            assert_eq!(host.endpoint.conn(id).unwrap().stats().key_updates, updates);
            assert_eq!(host.closed(), None);
        }
    }
}

/// That packet is retransmitted until it has arrived. A probe without anything to repeat used to be omitted.
#[test]
fn the_news_of_an_update_are_repeated() {
    for (mut host, mut peer) in worlds() {
        confirm(&mut host, &mut peer);
        let lost = update(&mut host);
        let again = host.wait(Duration::from_millis(500));
        assert!(!lost.is_empty() && again.len() >= 3, "{} {}", lost.len(), again.len());
        peer.update_keys();
        again.iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
}

/// A peer that has received a packet of the new phase has to use its keys for the acknowledgement (§6.1, §6.2).
#[test]
fn an_acknowledgement_of_new_keys_with_old_ones_ends_the_connection() {
    for (mut host, mut peer) in worlds() {
        confirm(&mut host, &mut peer);
        let said = update(&mut host);
        peer.update_keys();
        said.iter().for_each(|datagram| peer.receive(datagram));
        let ack = peer.ack(DATA);
        host.receive(peer.shaped(DATA, &ack, Shape { old_key: true, ..Shape::default() }));
        host.run();
        assert_eq!(host.error(), Some(TransportError::KEY_UPDATE_ERROR));
    }
}

/// "Packets with higher packet numbers MUST be protected with either the same or newer packet protection keys than
/// packets with lower packet numbers" (§6.4). The first packet of a phase shows whether its predecessors kept to that.
#[test]
fn older_keys_for_a_larger_number_end_the_connection() {
    for updates_itself in [false, true] {
        for (mut host, mut peer) in worlds() {
            confirm(&mut host, &mut peer);
            if updates_itself {
                update(&mut host);
            }
            let first = peer.pn[DATA];
            // Later numbers with old keys are fine as long as no newer keys were used before.
            host.receive(peer.shaped(DATA, &PING, Shape { pn: Some(first + 5), ..Shape::default() }));
            host.receive(peer.shaped(DATA, &PING, Shape { pn: Some(first + 3), ..Shape::default() }));
            assert_eq!(host.closed(), None);
            peer.update_keys();
            host.receive(peer.shaped(DATA, &PING, Shape { pn: Some(first + 4), ..Shape::default() }));
            host.run();
            assert_eq!(host.error(), Some(TransportError::KEY_UPDATE_ERROR), "{:?} {updates_itself}", host.side);
        }
    }
}

/// Packets of the old phase that are late, and packets of the new phase in any order, are read.
#[test]
fn packets_around_an_update_may_come_in_any_order() {
    for updates_itself in [false, true] {
        for (mut host, mut peer) in worlds() {
            confirm(&mut host, &mut peer);
            if updates_itself {
                update(&mut host);
            }
            let first = peer.pn[DATA];
            let old: Vec<_> = (0..4).map(|_| peer.packet(DATA, &PING)).collect();
            peer.update_keys();
            let new: Vec<_> = (0..4).map(|_| peer.packet(DATA, &PING)).collect();
            assert_eq!(peer.pn[DATA], first + 8);
            let before = read(&host);
            for datagram in [&old[1], &new[2], &old[3], &new[0], &old[0], &new[3], &old[2], &new[1]] {
                host.receive(datagram.clone());
            }
            assert_eq!(read(&host), before + 8, "{:?} {updates_itself}", host.side);
            assert_eq!(host.closed(), None);
        }
    }
}

/// A packet with the other phase bit that cannot be authenticated changes nothing (§6.3, RFC 9001 §5.5).
#[test]
fn a_damaged_packet_updates_no_keys() {
    for (mut host, mut peer) in worlds() {
        confirm(&mut host, &mut peer);
        let before = read(&host);
        for _ in 0..3 {
            // The wrong keys for this bit, which header protection hides from others only.
            let forged = peer.shaped(DATA, &PING, Shape { first: 0x04, ..Shape::default() });
            host.receive(forged);
        }
        let id = host.conn.unwrap();
        assert_eq!((read(&host), host.endpoint.conn(id).unwrap().stats().key_updates), (before, 0));
        host.receive(peer.packet(DATA, &PING));
        assert_eq!((read(&host), host.closed()), (before + 1, None));
    }
}

/// Keys are updated automatically after the configured number of packets, but only as fast as updates are confirmed.
#[test]
fn keys_are_updated_after_so_many_packets() {
    let transport = || gannet::quic::TransportConfig { packets_per_key: 20, ..small() };
    for (mut host, mut peer) in [against_server(transport()), against_client(transport())] {
        let id = host.conn.unwrap();
        let stream = host.endpoint.conn(id).unwrap().open(Dir::Uni).unwrap();
        let updates = |host: &mut Host| host.endpoint.conn(id).unwrap().stats().key_updates;
        // The peer follows when it learns of a new phase.
        let hear = |host: &mut Host, peer: &mut Peer, millis: u64| {
            let before = updates(host);
            let said = host.wait(Duration::from_millis(millis));
            if updates(host) > before {
                peer.update_keys();
            }
            said.iter().for_each(|(_, datagram)| peer.receive(datagram));
        };
        let send = |host: &mut Host, peer: &mut Peer, packets: u32| {
            for _ in 0..packets {
                host.endpoint.conn(id).unwrap().send(stream, SendData::Static(b"x"), false).unwrap();
                hear(host, peer, 0);
            }
        };
        send(&mut host, &mut peer, 100);
        assert_eq!(updates(&mut host), 0, "nothing was acknowledged");
        if host.side == Side::Client {
            host.receive(peer.packet(DATA, &frames(&[Frame::HandshakeDone])));
        }
        for round in 1..4 {
            let ack = peer.ack(DATA);
            host.receive(peer.packet(DATA, &ack));
            hear(&mut host, &mut peer, 500);
            send(&mut host, &mut peer, 40);
            assert_eq!(updates(&mut host), round);
        }
        assert_eq!(host.closed(), None);
    }
}

/// RFC 9001 §5.5, §6.3: a packet that seems to come with new keys and cannot be opened is discarded; nothing is updated.
/// After an update, no packet with a higher number is opened with the old keys.
#[test]
fn packets_that_only_seem_to_update_keys_are_discarded() {
    for (mut host, mut peer) in worlds() {
        confirm(&mut host, &mut peer);
        let id = host.conn.unwrap();
        let updates = |host: &mut Host| host.endpoint.conn(id).unwrap().stats().key_updates;
        for n in 1..4 {
            // The bit of the next phase, sealed with the keys of this one.
            host.receive(peer.shaped(DATA, &[0x1e; 4], Shape { first: 0x04, ..Shape::default() }));
            wait(&mut host, &mut peer, 50);
            assert_eq!((host.drops(DropReason::Authentication), updates(&mut host)), (n, 0));
        }
        host.receive(peer.packet(DATA, &PING));
        wait(&mut host, &mut peer, 50);
        assert_eq!(peer.acked, Some(peer.pn[DATA] - 1), "read with the keys of before");

        let before = peer.packet(DATA, &PING);
        peer.update_keys();
        host.receive(peer.packet(DATA, &PING));
        wait(&mut host, &mut peer, 10);
        assert_eq!(updates(&mut host), 1);
        let read = host.endpoint.stats().rx_packets;
        host.receive(peer.shaped(DATA, &PING, Shape { old_key: true, ..Shape::default() }));
        assert_eq!(host.endpoint.stats().rx_packets, read, "a higher number with the old keys");
        host.receive(before);
        assert_eq!(host.endpoint.stats().rx_packets, read + 1, "a lower number with the old keys");
        assert!(host.closed().is_none());
    }
}

/// RFC 9001 §5.4.2: "An endpoint MUST discard packets that are not long enough to contain a complete sample."
#[test]
fn packets_without_a_complete_sample_are_discarded() {
    let (mut host, peer) = against_client(small());
    let id = peer.remote_cid;
    for len in 1 + id.len()..1 + id.len() + 4 + 16 {
        let before = host.drops(DropReason::Malformed);
        let mut datagram = vec![0x41; len];
        datagram[1..=id.len()].copy_from_slice(&id);
        host.receive(datagram);
        assert!(host.run().is_empty() && host.closed().is_none());
        assert_eq!(host.drops(DropReason::Malformed), before + 1, "{len} bytes");
    }
    let (mut host, peer) = waiting_client(small());
    for len in 1..20u8 {
        let mut datagram = vec![0xc3, 0, 0, 0, 1, peer.remote_cid.len() as u8];
        datagram.extend_from_slice(&peer.remote_cid);
        datagram.extend_from_slice(&[8, 1, 2, 3, 4, 5, 6, 7, 8, 0, len]);
        datagram.resize(datagram.len() + usize::from(len), 7);
        let before = host.drops(DropReason::Malformed);
        host.receive(datagram);
        assert!(host.run().is_empty() && host.closed().is_none());
        assert_eq!(host.drops(DropReason::Malformed), before + 1, "{len} bytes from the packet number on");
    }
}
