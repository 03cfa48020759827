//! Handshakes with X25519MLKEM768, whose ClientHello takes two Initial packets: in any order, with losses, with Retry.

use std::sync::Arc;

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::BufPool;
use gannet::quic::tls::{self, Group, TlsOptions};
use gannet::quic::{ClientConfig, Endpoint, EndpointConfig, Event, RetryPolicy, ServerConfig, TransportConfig};
use gannet::wire::quic::header;

use super::pair::Pair;
use super::world::{Host, certificate, endpoint_config};

fn options(groups: &[Group]) -> TlsOptions {
    TlsOptions { alpn: vec![b"hybrid".to_vec()], groups: groups.to_vec(), ..TlsOptions::default() }
}

/// A client that has started to connect, and a server; they prefer these groups.
fn pair_with(client: &[Group], server: &[Group], retry: RetryPolicy) -> Pair {
    let (chain, key) = certificate();
    let tls = tls::server_config(chain, key, &options(server)).unwrap();
    let server = ServerConfig::new(tls, TransportConfig::default()).unwrap();
    let config = EndpointConfig { retry, ..endpoint_config(Side::Server) };
    let server = Host::new(Side::Server, Endpoint::new(config, Some(server), BufPool::heap()));
    let tls = tls::insecure_client_config(&options(client)).unwrap();
    let mut tls = (*tls).clone();
    tls.resumption = rustls::client::Resumption::disabled();
    let mut client = Host::idle_client();
    client.connect_with(ClientConfig::new(Arc::new(tls), TransportConfig::default()).unwrap());
    Pair { client, server }
}

fn pair(retry: RetryPolicy) -> Pair {
    pair_with(&[], &[], retry)
}

/// The group that both have agreed on, once both are connected.
fn agreed(pair: &Pair) -> Option<Group> {
    let group = |host: &Host| {
        host.events.iter().find_map(|(_, event)| match event {
            Event::Connected { tls, .. } => tls.group(),
            _ => None,
        })
    };
    let (client, server) = (group(&pair.client)?, group(&pair.server)?);
    assert_eq!(client, server);
    Some(client)
}

/// The datagrams with the ClientHello.
fn hello(pair: &mut Pair) -> Vec<Vec<u8>> {
    pair.client.run().into_iter().map(|(_, datagram)| datagram).collect()
}

/// Lets both talk, for as long as probes need.
fn finish(pair: &mut Pair) {
    pair.wait(Duration::from_secs(3));
    assert_eq!(agreed(pair), Some(Group::X25519MlKem768), "{:?} {:?}", pair.client.events, pair.server.events);
    assert_eq!(pair.server.endpoint.stats().connections_opened, 1);
}

#[test]
fn a_client_hello_takes_two_datagrams() {
    let mut pair = pair(RetryPolicy::Never);
    let hello = hello(&mut pair);
    assert_eq!(hello.iter().map(Vec::len).collect::<Vec<_>>(), [1200, 1200]);
    hello.into_iter().for_each(|datagram| pair.server.receive(datagram));
    // Without a delay: nothing waits for a timer.
    pair.talk();
    assert_eq!(agreed(&pair), Some(Group::X25519MlKem768));
}

/// The server begins with whichever arrives first.
#[test]
fn its_datagrams_may_arrive_in_any_order_and_twice() {
    for order in [&[1, 0][..], &[0, 0, 1], &[1, 1, 0, 0], &[1, 0, 1]] {
        let mut pair = pair(RetryPolicy::Never);
        let hello = hello(&mut pair);
        order.iter().for_each(|n| pair.server.receive(hello[*n].clone()));
        pair.talk();
        assert_eq!(agreed(&pair), Some(Group::X25519MlKem768), "{order:?}");
        assert_eq!(pair.server.endpoint.stats().connections_opened, 1, "{order:?}");
    }
}

/// Either may be lost; the client's probes bring what is missing. The server does not send more than three times what
/// it has received meanwhile (RFC 9000 §8.1).
#[test]
fn either_of_its_datagrams_may_be_lost() {
    for lost in 0..2 {
        let mut pair = pair(RetryPolicy::Never);
        let hello = hello(&mut pair);
        pair.server.receive(hello[1 - lost].clone());
        let said: usize = pair.server.wait(Duration::from_millis(500)).iter().map(|(_, datagram)| datagram.len()).sum();
        assert!(said <= 3 * 1200, "{said} bytes for one datagram");
        pair.client.now = pair.server.now;
        finish(&mut pair);
    }
}

/// What the server says to the first half must not keep the client from sending the second half again.
#[test]
fn an_acknowledged_half_does_not_hide_the_lost_one() {
    for lost in 0..2 {
        let mut pair = pair(RetryPolicy::Never);
        let hello = hello(&mut pair);
        pair.server.receive(hello[1 - lost].clone());
        let acks = pair.server.run();
        assert!(!acks.is_empty(), "the half is acknowledged");
        acks.into_iter().for_each(|(_, datagram)| pair.client.receive(datagram));
        finish(&mut pair);
    }
}

/// A Retry is the answer to one of the halves, or to both; the client then sends both again.
#[test]
fn clients_follow_a_retry() {
    for order in [&[0, 1][..], &[1, 0], &[0], &[1]] {
        let mut pair = pair(RetryPolicy::Always);
        let hello = hello(&mut pair);
        order.iter().for_each(|n| pair.server.receive(hello[*n].clone()));
        let retries = pair.server.run();
        assert_eq!(retries.len(), order.len(), "{order:?}");
        retries.into_iter().for_each(|(_, datagram)| pair.client.receive(datagram));
        let again = pair.client.run();
        assert_eq!(again.len(), 2, "{order:?}");
        for (_, datagram) in &again {
            assert!(!header::parse(datagram, 8).unwrap().token.is_empty());
        }
        again.into_iter().rev().for_each(|(_, datagram)| pair.server.receive(datagram));
        finish(&mut pair);
        assert_eq!(pair.server.endpoint.stats().tokens_accepted, 1);
    }
}

/// A server without the group asks for another one, for which the client has sent a share already, or has to send a
/// second ClientHello (HelloRetryRequest, RFC 8446 §4.1.4).
#[test]
fn groups_in_common_are_found() {
    use Group::{Secp256r1, Secp384r1, X25519, X25519MlKem768};
    for (client, server, wanted) in [
        (&[][..], &[X25519][..], Some(X25519)),
        (&[], &[Secp384r1], Some(Secp384r1)),
        (&[X25519], &[], Some(X25519)),
        (&[X25519, X25519MlKem768], &[X25519MlKem768], Some(X25519MlKem768)),
        // Another group would cost a round trip.
        (&[Secp256r1, X25519], &[X25519, Secp256r1], Some(Secp256r1)),
        (&[Secp256r1], &[X25519], None),
    ] {
        let mut pair = pair_with(client, server, RetryPolicy::Never);
        pair.wait(Duration::from_secs(1));
        assert_eq!(agreed(&pair), wanted, "{client:?} {server:?}");
        assert_eq!(pair.server.error().map(|error| error.0), wanted.is_none().then_some(0x100 + 40));
    }
}
