//! Reports by hosts, routers and strangers that datagrams were not delivered.

use std::net::SocketAddr;

use gannet::quic::{Dir, SendData, TransportConfig, Undelivered};

use super::retry::{cid, retry};
use super::world::{Host, against_client, against_server, client_addr, server_addr};

fn told(host: &mut Host, port_closed: bool, len: usize, quoted: &[u8]) -> bool {
    let (local, remote) = (client_addr(), server_addr());
    let len = len as u16;
    host.endpoint.is_undelivered(&Undelivered { local, remote, port_closed, len, quoted })
}

fn first(host: &mut Host) -> Vec<u8> {
    host.run().swap_remove(0).1
}

/// Until 2026-11, any "port unreachable" ended handshakes with that address, whatever it quoted (ports 1 to 9, for
/// instance).
#[test]
fn a_handshake_in_flight_is_told_once_for_each_kind() {
    let mut host = Host::client(TransportConfig::default());
    let datagram = first(&mut host);
    assert_eq!(datagram.len(), 1200);
    assert!(told(&mut host, true, 1200, &datagram[..30]));
    assert!(!told(&mut host, true, 1200, &datagram[..30]), "said already");
    assert!(told(&mut host, false, 1200, &datagram));
    assert!(!told(&mut host, false, 1200, &datagram));
    assert_eq!(host.endpoint.stats().undelivered_ignored, 2);
    assert!(host.closed().is_none(), "the reaction is up to the application");
}

/// RFC 8085 §5.2: everything quoted has to match.
#[test]
fn strangers_guess_in_vain() {
    let mut host = Host::client(TransportConfig::default());
    let datagram = first(&mut host);
    let mut ignored = 0;
    let mut refused = |host: &mut Host, news: Undelivered<'_>| {
        ignored += 1;
        assert!(!host.endpoint.is_undelivered(&news), "{news:?}");
    };
    let news =
        Undelivered { local: client_addr(), remote: server_addr(), port_closed: true, len: 1200, quoted: &datagram };
    let other = SocketAddr::from(([192, 0, 2, 9], 9));
    refused(&mut host, Undelivered { local: other, ..news });
    refused(&mut host, Undelivered { remote: other, ..news });
    refused(&mut host, Undelivered { local: other, remote: other, ..news });
    for len in [0, 1201, 1472] {
        refused(&mut host, Undelivered { len, ..news });
    }
    // The ID is at 6..14: too short a quote, a changed bit, its length, another form.
    for cut in 0..14 {
        refused(&mut host, Undelivered { quoted: &datagram[..cut], ..news });
    }
    for at in 5..14 {
        let mut changed = datagram.clone();
        changed[at] ^= 1;
        refused(&mut host, Undelivered { quoted: &changed, ..news });
    }
    let short = [&[0x40][..], &datagram[5..]].concat();
    refused(&mut host, Undelivered { quoted: &short, ..news });
    assert_eq!(host.endpoint.stats().undelivered_ignored, ignored);
    assert!(host.endpoint.is_undelivered(&Undelivered { quoted: &datagram[..14], ..news }), "as much as it takes");
}

/// RFC 1122 §4.2.3.9, RFC 5927 §5.2.
#[test]
fn connections_that_stand_do_not_listen() {
    let (mut host, _) = against_client(TransportConfig::default());
    let datagram = sent(&mut host);
    assert!(!told(&mut host, true, datagram.len(), &datagram));
    assert!(!told(&mut host, false, datagram.len(), &datagram));
    let (mut host, _) = against_server(TransportConfig::default());
    let datagram = sent(&mut host);
    let (local, remote) = (server_addr(), client_addr());
    let len = datagram.len() as u16;
    assert!(!host.endpoint.is_undelivered(&Undelivered { local, remote, port_closed: true, len, quoted: &datagram }));
}

/// The ID in use counts, which the server may change.
#[test]
fn a_handshake_is_known_by_the_id_in_use() {
    let mut host = Host::client(TransportConfig::default());
    let before = first(&mut host);
    host.receive(retry(&before, cid(9), b"token"));
    let after = first(&mut host);
    assert!(!told(&mut host, true, 1200, &before));
    assert!(told(&mut host, true, 1200, &after));
}

/// A datagram that the host sends now on its connection.
fn sent(host: &mut Host) -> Vec<u8> {
    let id = host.conn.unwrap();
    let mut conn = host.endpoint.conn(id).unwrap();
    let stream = conn.open(Dir::Uni).unwrap();
    conn.send(stream, SendData::Static(b"a stream's data, whatever"), false).unwrap();
    first(host)
}
