//! Floods: what a byte of an attacker costs, in CPU, packets sent and memory, beside a byte of ordinary data.
//!
//! The attacker has the keys where an attack needs them; making its packets is not measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gannet::base::Side;
use gannet::mem::BufPool;
use gannet::quic::{
    ClientConfig, Dir, EarlyDataRequest, Endpoint, EndpointConfig, RetryPolicy, SendData, ServerConfig, StreamId,
    TransportConfig,
};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::{Frame, StreamHeader};

use crate::Failure;
use crate::alloc::{self, Account};
use crate::cores::pin;
use crate::cpu;
use crate::run::Run;

#[path = "../../../tests/hostile/peer.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the tests")]
mod peer;
#[path = "../../../tests/hostile/world.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the tests")]
mod world;

use peer::{DATA, Peer, frames};
use world::{CLIENT_TLS, Host, SERVER_TLS, addr, against_server, client_addr, endpoint_config, own_id};

/// The largest payload of an attacker's packet, in bytes.
const PAYLOAD: usize = 1160;

/// Makes the datagram with a number, and its source address.
type Next = dyn FnMut(&mut Peer, u64) -> (SocketAddr, Vec<u8>);

/// An attack: its name, and the attacker's datagrams.
type Attack = (&'static str, fn() -> Attacker);

const ATTACKS: [Attack; 13] = [
    ("data", data),
    ("path_challenge", path_challenges),
    ("new_connection_id", new_connection_ids),
    ("rotated_connection_id", rotated_ids),
    ("retire_connection_id", retired_ids),
    ("rapid_reset", rapid_resets),
    ("tiny_stream_frames", tiny_stream_frames),
    ("pings", pings),
    ("initials", initials),
    ("initials_under_retry", initials_under_retry),
    ("token_replay", token_replay),
    ("zero_rtt_replay", zero_rtt_replay),
    ("unknown_versions", unknown_versions),
];

/// An engine under attack.
struct Attacker {
    host: Host,
    peer: Peer,
    next: Box<Next>,
    /// Whether the attacker reads what comes back.
    reads: bool,
}

/// What an attack has cost so far.
#[derive(Default)]
struct Cost {
    time: Duration,
    packets: [u64; 2],
    bytes: [u64; 2],
    /// The most memory in use, above that from before the attack, in bytes.
    memory: i64,
}

/// Measures the part.
///
/// # Errors
/// If an attack closes the connection that it needs.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    pin(run.cores[0]);
    let count = run.scale.pick(50, 5000, 50_000);
    for _ in 0..run.repeats {
        let mut ordinary = None;
        for (name, make) in ATTACKS {
            let cost = attack(make(), count);
            let per_byte = cost.time.as_nanos() as f64 / cost.bytes[0] as f64;
            let key = |what: &str| format!("floods.{name}.{what}");
            run.sheet.add(key("ns_per_byte"), per_byte);
            run.sheet.add(key("vs_data"), per_byte / *ordinary.get_or_insert(per_byte));
            run.sheet.add(key("packets_out_per_in"), cost.packets[1] as f64 / cost.packets[0] as f64);
            run.sheet.add(key("bytes_out_per_in"), cost.bytes[1] as f64 / cost.bytes[0] as f64);
            run.sheet.add(key("memory_kib"), cost.memory as f64 / 1024.0);
        }
        run.sheet.add("floods.reset_loop.packets", reset_loop() as f64);
    }
    Ok(())
}

/// Runs an attack of `count` datagrams.
fn attack(mut attacker: Attacker, count: u64) -> Cost {
    let Attacker { host, peer, next, reads } = &mut attacker;
    let mut cost = Cost::default();
    let before = alloc::bytes(Account::Right);
    for n in 0..count {
        let (from, mut datagram) = next(peer, n);
        cost.packets[0] += 1;
        cost.bytes[0] += datagram.len() as u64;
        // Time passes, so that what has a rate limit is limited; 10,000 datagrams a second.
        host.now += Duration::from_micros(100);
        let start = cpu::time();
        let answers = alloc::on(Account::Right, || {
            host.receive_from(from, &mut datagram);
            let answers = host.run();
            host.events.clear();
            while let Some(chunk) = host.conn.and_then(|id| host.endpoint.conn(id)?.take(StreamId(0))) {
                drop(chunk);
            }
            answers
        });
        cost.time += cpu::time().saturating_sub(start);
        cost.memory = cost.memory.max(alloc::bytes(Account::Right) - before);
        for (_, answer) in &answers {
            cost.packets[1] += 1;
            cost.bytes[1] += answer.len() as u64;
            // Once the attack has ended the connection, answers are stateless resets.
            if *reads && host.endpoint.connection_count() > 0 {
                peer.receive(answer);
            }
        }
        alloc::on(Account::Right, || drop(answers));
    }
    cost
}

/// A client whose connection stays, and that sends the frames of `payload`, each time with an ACK of what it has got.
fn connected(mut payload: impl FnMut(&mut Peer, u64) -> Vec<u8> + 'static) -> Attacker {
    let transport = TransportConfig { max_idle_timeout: Duration::ZERO, ..TransportConfig::default() };
    let (host, mut peer) = against_server(transport);
    peer.takes_any_id = true;
    let next = Box::new(move |peer: &mut Peer, n| {
        let mut bytes = if n % 4 == 3 { peer.ack(DATA) } else { Vec::new() };
        bytes.extend_from_slice(&payload(peer, n));
        (client_addr(), peer.packet(DATA, &bytes))
    });
    Attacker { host, peer, next, reads: true }
}

/// Ordinary data, which the application reads.
fn data() -> Attacker {
    connected(|_, n| stream(0, n * 1000, 1000, false))
}

fn stream(id: u64, offset: u64, len: usize, fin: bool) -> Vec<u8> {
    let mut bytes = frames(&[Frame::Stream(StreamHeader { id: StreamId(id), offset, len: Some(len as u64), fin })]);
    bytes.resize(bytes.len() + len, 0x5a);
    bytes
}

/// As many copies of what `frame` makes as fit.
fn full(mut frame: impl FnMut(u64) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0.. {
        let next = frame(i);
        if bytes.len() + next.len() > PAYLOAD {
            break;
        }
        bytes.extend_from_slice(&next);
    }
    bytes
}

fn path_challenges() -> Attacker {
    connected(|_, n| full(|i| frames(&[Frame::PathChallenge((n << 16 | i).to_be_bytes())])))
}

fn new_connection_ids() -> Attacker {
    let mut seq = 0u64;
    connected(move |_, _| {
        full(|_| {
            seq += 1;
            let cid = ConnectionId::new(&seq.to_be_bytes()).expect("8 bytes");
            frames(&[Frame::NewConnectionId { seq, retire_prior_to: seq, cid, reset_token: [seq as u8; 16] }])
        })
    })
}

/// Replaces its ID with each packet, no faster than is allowed. Issuing many at a time ends the connection.
fn rotated_ids() -> Attacker {
    connected(|_, n| {
        let (seq, reset_token) = (n + 1, (u128::from(n) + 1).to_be_bytes());
        let cid = ConnectionId::new(&seq.to_be_bytes()).expect("8 bytes");
        frames(&[Frame::NewConnectionId { seq, retire_prior_to: seq, cid, reset_token }])
    })
}

/// Retires every ID that it has got.
fn retired_ids() -> Attacker {
    let mut next = 0;
    connected(move |peer, _| {
        let mut bytes = vec![0x01];
        // Except for the one that it uses.
        while let Some((seq, cid)) = peer.issued.get(next).copied() {
            next += 1;
            let used = seq - 1;
            peer.remote_cid = cid;
            bytes.extend_from_slice(&frames(&[Frame::RetireConnectionId { seq: used }]));
        }
        bytes
    })
}

fn rapid_resets() -> Attacker {
    let mut index = 0;
    connected(move |peer, _| {
        let mut bytes = vec![0x01];
        while index < peer.max_streams[0].max(100) && bytes.len() < PAYLOAD {
            let id = StreamId::new(Side::Client, Dir::Bidi, index);
            bytes.extend_from_slice(&stream(id.0, 0, 1, false));
            let reset = Frame::ResetStream { id, code: 1, final_size: 1 };
            bytes.extend_from_slice(&frames(&[reset, Frame::StopSending { id, code: 1 }]));
            index += 1;
        }
        bytes
    })
}

/// Frames of one byte each, with gaps between them.
fn tiny_stream_frames() -> Attacker {
    connected(|_, n| full(|i| stream(0, 1 + (n * 400 + i) * 2 % 200_000, 1, false)))
}

fn pings() -> Attacker {
    connected(|_, _| vec![0x01])
}

/// A server that has no connection with the attacker.
fn unconnected(retry: RetryPolicy, next: impl FnMut(&mut Peer, u64) -> (SocketAddr, Vec<u8>) + 'static) -> Attacker {
    let endpoint = EndpointConfig { retry, ..endpoint_config(Side::Server) };
    let host = Host::server_with(endpoint, TransportConfig::default());
    let peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    Attacker { host, peer, next: Box::new(next), reads: false }
}

/// A source address that nobody has proved to own.
fn forged(n: u64) -> SocketAddr {
    let [.., a, b, c] = n.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 4000))
}

/// The first packet of a client.
fn first_packet(n: u64) -> Vec<u8> {
    Peer::client(forged(n), n, |params| params.to_bytes()).out.remove(0)
}

fn initials() -> Attacker {
    unconnected(RetryPolicy::Never, |_, n| (forged(n), first_packet(n)))
}

fn initials_under_retry() -> Attacker {
    unconnected(RetryPolicy::Always, |_, n| (forged(n), first_packet(n)))
}

/// A client's first packet with the token of a Retry packet, again and again.
fn token_replay() -> Attacker {
    let mut attacker = unconnected(RetryPolicy::Always, |_, n| (forged(n), Vec::new()));
    let mut client = Host::client(TransportConfig::default());
    client.run().into_iter().for_each(|(_, datagram)| attacker.host.receive(datagram));
    attacker.host.run().into_iter().for_each(|(_, retry)| client.receive(retry));
    let (_, again) = client.run().remove(0);
    attacker.next = Box::new(move |_, _| (client_addr(), again.clone()));
    attacker
}

/// Copies of a first flight with 0-RTT data, from everywhere: each of them makes the server begin a handshake, but the data
/// is not processed again.
fn zero_rtt_replay() -> Attacker {
    let mut attacker = unconnected(RetryPolicy::Never, |_, n| (forged(n), Vec::new()));
    let server = ServerConfig::new(SERVER_TLS.clone(), TransportConfig::default()).expect("a valid configuration");
    let server = server.with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true));
    let endpoint = EndpointConfig { retry: RetryPolicy::Never, ..endpoint_config(Side::Server) };
    let mut host = Host::new(Side::Server, Endpoint::new(endpoint, Some(server), BufPool::heap()));
    let config = ClientConfig::new(CLIENT_TLS.clone(), TransportConfig::default()).expect("a valid configuration");
    let config = config.with_sessions(1).with_early_data(true);
    let mut client = Host::idle_client();
    client.connect_with(config.clone());
    for _ in 0..10 {
        client.run().into_iter().for_each(|(_, datagram)| host.receive(datagram));
        host.run().into_iter().for_each(|(_, datagram)| client.receive(datagram));
    }
    client.connect_with(config);
    let mut conn = client.conn.and_then(|id| client.endpoint.conn(id)).expect("it has just begun");
    let stream = conn.open(Dir::Bidi).expect("0-RTT is possible");
    conn.send(stream, SendData::Static(&[7; 3000]), true).expect("it is open");
    let flight: Vec<_> = client.run().into_iter().map(|(_, datagram)| datagram).collect();
    flight.iter().for_each(|datagram| host.receive(datagram.clone()));
    host.run();
    attacker.host = host;
    attacker.next = Box::new(move |_, n| {
        let (copy, part) = (n / flight.len() as u64, n as usize % flight.len());
        (forged(copy), flight[part].clone())
    });
    attacker
}

/// Datagrams of versions that do not exist, for the answers that the owners of their source addresses get.
fn unknown_versions() -> Attacker {
    unconnected(RetryPolicy::Never, |_, n| {
        let mut datagram = first_packet(n);
        datagram[1..5].copy_from_slice(&0x5000_0001u32.to_be_bytes());
        (forged(n), datagram)
    })
}

/// The number of packets that two of our endpoints exchange after one that belongs to no connection (RFC 9000 §10.3.3).
fn reset_loop() -> u64 {
    // As there is one core, almost any ID names one that does not exist, and is answered for.
    let config = |n: u8| EndpointConfig::from_seed([n; 32]).for_core(0, 1);
    let mut ends = [1, 2].map(|n| {
        let server = ServerConfig::new(SERVER_TLS.clone(), TransportConfig::default()).expect("a valid configuration");
        Endpoint::new(config(n), Some(server), BufPool::heap())
    });
    let now = gannet::base::time::Instant::from_nanos(1_000_000_000);
    let gone = own_id(&config(1), 0, 0, 0);
    let (mut datagram, mut count) = ([&[0x40][..], &gone, &[0x5a; 1000]].concat(), 0);
    let mut slot = vec![0; 2048];
    for turn in 0.. {
        count += 1;
        let (from, to) = (addr(Side::Client), addr(Side::Server));
        let meta = gannet::quic::RxMeta { local: to, remote: from, ecn: 0 };
        let end = &mut ends[turn % 2];
        end.handle_datagram(now, &meta, &mut datagram);
        match end.poll_transmit(now, &mut slot) {
            Some(sent) if count < 10_000 => datagram = slot[..sent.len].to_vec(),
            _ => break,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_is_one() {
        for (name, make) in ATTACKS {
            let cost = attack(make(), 40);
            assert!(cost.packets[0] == 40 && cost.bytes[0] > 0, "{name}");
            assert!(cost.time > Duration::ZERO, "{name}");
        }
        assert!((2..100).contains(&reset_loop()), "there are answers, which become shorter");
    }

    #[test]
    fn a_replayed_token_is_a_valid_one() {
        let mut attacker = token_replay();
        let (from, mut datagram) = (attacker.next)(&mut attacker.peer, 0);
        attacker.host.receive_from(from, &mut datagram);
        assert_eq!(attacker.host.endpoint.stats().tokens_accepted, 1);
    }

    #[test]
    fn rotated_ids_are_accepted() {
        let Attacker { mut host, mut peer, mut next, .. } = rotated_ids();
        for n in 0..100 {
            let (from, mut datagram) = next(&mut peer, n);
            host.now += Duration::from_micros(100);
            host.receive_from(from, &mut datagram);
            host.run().iter().for_each(|(_, answer)| peer.receive(answer));
            assert_eq!(host.endpoint.connection_count(), 1, "after {n} packets");
        }
    }

    #[test]
    fn replayed_data_is_not_processed() {
        let mut attacker = zero_rtt_replay();
        assert_eq!(attacker.host.endpoint.stats().early_data_accepted, 1);
        let packets = attacker.host.endpoint.stats().early_packets;
        for n in 0..30 {
            let (from, mut datagram) = (attacker.next)(&mut attacker.peer, n);
            attacker.host.receive_from(from, &mut datagram);
        }
        let stats = attacker.host.endpoint.stats();
        assert!(packets > 0 && stats.early_data_rejected >= 5);
        assert_eq!((stats.early_data_accepted, stats.early_packets), (1, packets));
    }

    #[test]
    fn nobody_gets_more_than_three_bytes_for_one() {
        for (name, make) in ATTACKS {
            let cost = attack(make(), 300);
            assert!(cost.bytes[1] <= 3 * cost.bytes[0], "{name}: {:?}", cost.bytes);
        }
    }
}
