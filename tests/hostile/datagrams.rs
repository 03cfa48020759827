//! DATAGRAM frames (RFC 9221): what is not negotiated, what is too large, floods, and what becomes of lost ones.

use gannet::base::time::Duration;
use gannet::quic::{
    DatagramConfig, DatagramError, DatagramErrorKind, DatagramOptions, DatagramOutcome, DropReason, Event, SendData,
    TransportConfig,
};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::Frame;
use gannet::wire::quic::params::TransportParameters;

use super::peer::{DATA, HANDSHAKE, Peer, Told, frames};
use super::world::{Host, against_server, client_addr, exchange, waiting_client};

fn config(datagrams: DatagramConfig) -> TransportConfig {
    TransportConfig { datagrams: Some(datagrams), ..TransportConfig::default() }
}

/// A DATAGRAM frame, with or without its length.
fn frame(data: &[u8], with_len: bool) -> Vec<u8> {
    let header = Frame::Datagram { len: with_len.then_some(data.len() as u64) };
    [&frames(&[header])[..], data].concat()
}

/// A server with datagrams, and a peer that accepts frames of up to `max` bytes.
fn with_peer(server: DatagramConfig, max: u64) -> (Host, Peer) {
    let mut host = Host::server(config(server));
    let params = |params| TransportParameters { max_datagram_frame_size: max, ..params };
    let mut peer = Peer::client(client_addr(), 1, |usual| params(usual).to_bytes());
    exchange(&mut host, &mut peer);
    assert!(peer.handshake_done && host.closed().is_none());
    (host, peer)
}

fn send(host: &mut Host, len: usize) -> Result<(), DatagramErrorKind> {
    let id = host.conn.unwrap();
    let data = SendData::Bytes(vec![len as u8; len].into());
    let sent = host.endpoint.conn(id).unwrap().send_datagram(data, DatagramOptions::default());
    sent.map(|_| ()).map_err(|DatagramError { kind, data }| {
        assert_eq!(data.len(), len, "it comes back");
        kind
    })
}

/// Everything that the server's application can take.
fn taken(host: &mut Host) -> Vec<Vec<u8>> {
    let id = host.conn.unwrap();
    let mut conn = host.endpoint.conn(id).unwrap();
    std::iter::from_fn(|| conn.take_datagram()).map(|datagram| datagram.to_vec()).collect()
}

/// RFC 9221 §3.
#[test]
fn datagrams_that_were_not_negotiated_end_the_connection() {
    for server in [None, Some(DatagramConfig { max_frame_size: 0, ..DatagramConfig::default() })] {
        for with_len in [false, true] {
            let config = TransportConfig { datagrams: server.clone(), ..TransportConfig::default() };
            let (mut host, mut peer) = against_server(config);
            host.receive(peer.packet(DATA, &frame(b"", with_len)));
            host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
            assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
            assert_eq!(peer.close.map(|close| close.frame_type), Some(0x30 | u64::from(with_len)));
        }
    }
}

/// RFC 9221 §3: the limit includes the frame's type and length.
#[test]
fn datagrams_above_the_limit_end_the_connection() {
    let limit = DatagramConfig { max_frame_size: 100, ..DatagramConfig::default() };
    for (len, with_len, allowed) in [(97, true, true), (98, true, false), (99, false, true), (100, false, false)] {
        let (mut host, mut peer) = with_peer(limit.clone(), 0);
        host.receive(peer.packet(DATA, &frame(&[7; 200][..len], with_len)));
        host.run();
        if allowed {
            assert_eq!((host.error(), taken(&mut host)), (None, vec![vec![7; len]]));
        } else {
            assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION), "{len} bytes");
        }
    }
}

#[test]
fn datagrams_longer_than_their_packet_end_the_connection() {
    for len in [3, 1 << 20, (1 << 62) - 1] {
        let (mut host, mut peer) = with_peer(DatagramConfig::default(), 0);
        let payload = [&frames(&[Frame::Datagram { len: Some(len) }])[..], b"ab"].concat();
        host.receive(peer.packet(DATA, &payload));
        host.run();
        assert_eq!(host.error(), Some(TransportError::FRAME_ENCODING_ERROR), "{len}");
    }
}

/// RFC 9221 §5: application data is protected with 1-RTT keys.
#[test]
fn datagrams_in_handshake_packets_end_the_connection() {
    let (mut host, mut peer) = waiting_client(config(DatagramConfig::default()));
    host.receive(peer.packet(HANDSHAKE, &frame(b"early", true)));
    exchange(&mut host, &mut peer);
    assert_eq!(host.error(), Some(TransportError::PROTOCOL_VIOLATION));
}

/// RFC 9221 §4: empty ones are allowed, and one without a length extends to the end of the packet.
#[test]
fn several_come_in_one_packet_also_with_other_frames() {
    let (mut host, mut peer) = with_peer(DatagramConfig::default(), 0);
    let long = vec![3; 900];
    let payload =
        [frame(b"", true), frames(&[Frame::Ping]), frame(b"two", true), frame(&long, true), frame(b"last", false)];
    host.receive(peer.packet(DATA, &payload.concat()));
    host.run();
    assert_eq!(taken(&mut host), [b"".to_vec(), b"two".to_vec(), long, b"last".to_vec()]);
    host.receive(peer.packet(DATA, &frame(b"", false)));
    host.run();
    assert_eq!(taken(&mut host), [b""]);
    let readable = host.events.iter().filter(|(_, event)| matches!(event, Event::DatagramsReadable)).count();
    assert_eq!(readable, 2);
}

/// RFC 9221 §3: nothing is sent to a peer that accepts nothing, nor more than it accepts.
#[test]
fn nothing_is_sent_beyond_what_the_peer_accepts() {
    let (mut host, _) = with_peer(DatagramConfig::default(), 0);
    assert_eq!(send(&mut host, 0), Err(DatagramErrorKind::Unsupported));
    let (mut host, _) = with_peer(DatagramConfig::default(), 1);
    assert_eq!(send(&mut host, 0), Err(DatagramErrorKind::Unsupported), "not even an empty one fits");
    let (mut host, mut peer) = with_peer(DatagramConfig::default(), 100);
    assert_eq!(send(&mut host, 99), Err(DatagramErrorKind::TooLarge { max: 97 }));
    assert_eq!(send(&mut host, 97), Ok(()));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.datagrams.pop().unwrap().1, [97; 97]);
    // Without datagrams in the settings, the peer's announcement changes nothing.
    let mut host = Host::server(TransportConfig::default());
    let params = |params| TransportParameters { max_datagram_frame_size: 65_535, ..params };
    let mut peer = Peer::client(client_addr(), 1, |usual| params(usual).to_bytes());
    exchange(&mut host, &mut peer);
    assert_eq!(send(&mut host, 1), Err(DatagramErrorKind::Unsupported));
}

/// The outcome of each datagram, and whether it was acknowledged or lost, in order.
fn fates(host: &mut Host) -> Vec<(u64, &'static str)> {
    let fate = |event| match event {
        Event::DatagramDone { id, outcome: DatagramOutcome::Sent, .. } => Some((id.0, "sent")),
        Event::DatagramAcked { id } => Some((id.0, "acked")),
        Event::DatagramLost { id } => Some((id.0, "lost")),
        _ => None,
    };
    host.events.drain(..).filter_map(|(_, event)| fate(event)).collect()
}

/// RFC 9221 §5.2: they are not sent again, neither by probes nor after a loss; probes ask for an acknowledgement. One
/// that was thought lost and arrived is reported.
#[test]
fn lost_datagrams_are_reported_and_not_sent_again() {
    let (mut host, mut peer) = with_peer(DatagramConfig::default(), 1000);
    host.wait(Duration::from_millis(100)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    let ack = peer.ack(DATA);
    host.receive(peer.packet(DATA, &ack));
    host.run();
    host.events.clear();
    peer.told.clear();
    for _ in 0..2 {
        assert_eq!(send(&mut host, 10), Ok(()));
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
    assert_eq!(fates(&mut host), [(0, "sent"), (1, "sent")]);
    let pns: Vec<_> = peer.datagrams.iter().map(|(pn, _)| *pn).collect();
    // Until the probe timeout, and the probes.
    host.wait(Duration::from_secs(2)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.datagrams.len(), 2, "not sent again");
    assert!(peer.told.iter().any(|(_, told)| *told == Told::Ping), "{:?}", peer.told);
    // The probes arrived, the datagrams did not.
    let complete = peer.ack(DATA);
    let mut gaps = peer.got[DATA].clone();
    pns.iter().for_each(|pn| gaps.remove(*pn..*pn + 1));
    let ack = Peer::ack_of(&gaps, None);
    host.receive(peer.packet(DATA, &ack));
    host.run();
    assert_eq!(fates(&mut host), [(0, "lost"), (1, "lost")]);
    assert_eq!(host.endpoint.stats().dgram_frames_lost, 2);
    for expected in [vec![(0, "acked"), (1, "acked")], vec![]] {
        host.receive(peer.packet(DATA, &complete));
        host.run();
        assert_eq!(fates(&mut host), expected, "corrected once");
    }
    host.wait(Duration::from_secs(2)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.datagrams.len(), 2, "never sent again");
    let id = host.conn.unwrap();
    let stats = host.endpoint.conn(id).unwrap().datagram_stats();
    assert_eq!((stats.sent, stats.acked, stats.lost), (2, 2, 2));
}

/// RFC 9221 §5.2: packets with datagrams are acknowledged like others, and may be as late.
#[test]
fn datagrams_are_acknowledged_in_time() {
    let (mut host, mut peer) = with_peer(DatagramConfig::default(), 0);
    host.wait(Duration::from_millis(100)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    host.receive(peer.packet(DATA, &frame(b"one", true)));
    assert!(host.run().is_empty(), "delayed");
    let pn = peer.pn[DATA] - 1;
    host.wait(Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.acked, Some(pn));
    for data in [b"two", b"thr"] {
        host.receive(peer.packet(DATA, &frame(data, true)));
    }
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.acked, Some(pn + 2), "every second one is acknowledged at once");
}

/// An application that takes nothing holds no more than its queue; everything else is dropped and counted.
#[test]
fn a_flood_of_tiny_datagrams_is_bounded() {
    let queue = DatagramConfig { receive_queue: 50, ..DatagramConfig::default() };
    let (mut host, mut peer) = with_peer(queue, 0);
    let many: Vec<_> = (0..300).flat_map(|_| frame(b"x", true)).collect();
    for n in 0..100 {
        host.receive(peer.packet(DATA, &many));
        host.run();
        assert!(host.endpoint.memory_charged() <= 50 << 10, "{} bytes", host.endpoint.memory_charged());
        assert!(host.events.len() < 10, "{n}: {:?}", host.events);
    }
    assert_eq!(host.closed(), None);
    assert_eq!(host.drops(DropReason::DatagramOverflow), 100 * 300 - 50);
    assert_eq!(host.endpoint.stats().dgram_frames_received, 100 * 300);
    assert_eq!(taken(&mut host).len(), 50);
    assert_eq!(host.endpoint.memory_charged(), 0);
}
