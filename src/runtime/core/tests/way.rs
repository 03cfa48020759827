//! Reaching peers: routes, neighbours, duplicate addresses.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::datapath::sim::SimRx;
use crate::datapath::{RxFrame, TxFrame};
use crate::net::RouteError;
use crate::runtime::ConnectFailure;
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, EthHeader};
use crate::wire::ipv4::{self, PROTOCOL_UDP};

const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const STRANGER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

/// Creates a core and the other end of its link.
fn core<A: App>(app: A, server: Option<ServerConfig>) -> (Core<SimPort, A>, SimPort) {
    let config = CoreConfig::new(Cidr::new(US.into(), 24).unwrap(), EndpointConfig::from_seed([1; 32]));
    let config = CoreConfig { listen: server.is_some().then_some(443), server, ..config };
    let (port, other) = SimLink::pair(SimConfig::default());
    (Core::new(port, config, app).unwrap(), other)
}

fn put(port: &mut SimPort, dst: Mac, src: Mac, ethertype: u16, bytes: &[u8]) {
    let mut frame = port.tx_alloc().unwrap();
    frame.payload_mut()[..bytes.len()].copy_from_slice(bytes);
    frame.set_payload_len(bytes.len());
    let eth = EthHeader { dst, src, vlan: None, ethertype }.to_bytes();
    frame.prepend(eth.len()).copy_from_slice(&eth);
    let mut burst = Burst::<<SimPort as Datapath>::Tx>::new();
    burst.push(frame);
    assert_eq!(port.tx_burst(&mut burst), 1);
}

fn put_arp(port: &mut SimPort, op: ArpOp, sender_mac: Mac, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) {
    let arp = Arp { op, sender_mac, sender_ip, target_mac: Mac([2, 0, 0, 0, 0, 1]), target_ip };
    put(port, Mac([2, 0, 0, 0, 0, 1]), sender_mac, ETHERTYPE_ARP, &arp.to_bytes());
}

/// Takes the frames that the core has sent.
fn taken(port: &mut SimPort) -> Vec<Vec<u8>> {
    let mut burst = Burst::<SimRx>::new();
    port.rx_burst(&mut burst);
    burst.iter_mut().map(|frame| frame.data_mut().to_vec()).collect()
}

/// The destination MAC addresses of the ARP requests for `target`.
fn asked_about(frames: &[Vec<u8>], target: Ipv4Addr) -> Vec<Mac> {
    let arp = |frame: &&Vec<u8>| frame[12..14] == ETHERTYPE_ARP.to_be_bytes();
    let about = |frame: &&Vec<u8>| Arp::parse(&frame[14..]).is_ok_and(|arp| arp.target_ip == target);
    frames.iter().filter(arp).filter(about).map(|frame| Mac(*frame.first_chunk().unwrap())).collect()
}

/// Connects once and keeps the outcome.
struct Once {
    to: IpAddr,
    failure: Option<ConnectFailure>,
    called: bool,
}

impl App for Once {
    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, _: Event) {}

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.called, true) {
            self.failure = cx.connect(&patient(), "server.test", SocketAddr::new(self.to, 443)).err();
        }
    }
}

fn once(to: &str) -> Once {
    Once { to: to.parse().unwrap(), failure: None, called: false }
}

/// Used to be a timeout after 10 s, with a guess that the server is not running.
#[test]
fn where_no_way_leads_is_an_error_of_connecting() {
    let refused = |to: &str| {
        let (mut core, mut other) = core(once(to), None);
        core.turn_at(Instant::ZERO);
        assert!(asked_about(&taken(&mut other), to.parse().unwrap_or(US)).is_empty());
        match core.app.failure.take() {
            Some(ConnectFailure::NoWay(error)) => Some(error),
            _ => None,
        }
    };
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(refused("198.51.100.1"), Some(RouteError::NoRoute(ip("198.51.100.1"))));
    assert_eq!(refused("192.0.2.255"), Some(RouteError::Edge(ip("192.0.2.255"))));
    assert_eq!(refused("224.0.0.1"), Some(RouteError::NotOneHost(ip("224.0.0.1"))));
    assert_eq!(refused("2001:db8::1"), Some(RouteError::NoAddress(ip("2001:db8::1"))));
    let (mut core, _other) = core(once("192.0.2.1"), None);
    core.turn_at(Instant::ZERO);
    assert!(core.app.called && core.app.failure.is_none());
}

#[test]
fn a_core_ends_when_its_last_address_is_somebody_elses() {
    let (mut core, mut other) = core(once("192.0.2.1"), None);
    put_arp(&mut other, ArpOp::Reply, PEER_MAC, US, US);
    let outcome = core.run(&AtomicBool::new(false));
    assert!(
        matches!(outcome, Err(RunError::AddressTaken { ip, mac }) if ip == IpAddr::V4(US) && mac == PEER_MAC),
        "{outcome:?}"
    );
}

/// The second consecutive probe timeout is a hint to probe the neighbour (RFC 4861 §7.3.1), which used to happen only
/// after a minute.
#[test]
fn probe_timeouts_are_doubts_about_the_neighbour() {
    let (mut core, mut other) = core(once("192.0.2.1"), None);
    let mut asked = Vec::new();
    for ms in (0..8000).step_by(20) {
        core.turn_at(Instant::ZERO + Duration::from_millis(ms));
        for to in asked_about(&taken(&mut other), PEER) {
            asked.push((ms, to));
            if to == PEER_MAC || (to == Mac::BROADCAST && asked.len() == 1) {
                put_arp(&mut other, ArpOp::Reply, PEER_MAC, PEER, US);
            }
        }
    }
    assert_eq!(asked[0].1, Mac::BROADCAST);
    assert_eq!(asked[1].1, PEER_MAC, "{asked:?}");
    assert!((2900..3200).contains(&asked[1].0), "after 1 s and 2 s more: {asked:?}");
    assert!(asked.len() <= 4, "{asked:?}");
    assert_eq!(core.net_stats().neighbor_suspected as usize, asked.len() - 1);
}

/// A frame with a 1200-byte datagram of an unknown version, from a made-up neighbour.
fn unknown_version(n: u8) -> Vec<u8> {
    let mut payload = vec![0u8; 1200];
    payload[..7].copy_from_slice(&[0xc0, 0xba, 0xba, 0xba, 0xba, 8, n]);
    payload[14] = 8;
    let src = Ipv4Addr::new(192, 0, 2, n);
    let len = (8 + payload.len()) as u16;
    let mut udp = Vec::new();
    for word in [7777, 443, len, 0] {
        udp.extend(u16::to_be_bytes(word));
    }
    udp.extend(payload);
    let sum = Sum::new().pseudo_v4(src, US, PROTOCOL_UDP, len).bytes(&udp).checksum();
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&ipv4::header(src, US, PROTOCOL_UDP, 64, 0, udp.len())[..], &udp].concat()
}

#[test]
fn answers_of_a_server_to_strangers_go_where_their_packets_came_from() {
    let (mut core, mut other) = core(once("192.0.2.1"), Some(server(TransportConfig::default())));
    core.app.called = true;
    // The announcements at link-up are not of interest here.
    for _ in 0..3 {
        core.turn_at(Instant::ZERO);
    }
    taken(&mut other);
    for n in 10..60 {
        put(&mut other, Mac([2, 0, 0, 0, 0, 1]), STRANGER_MAC, ETHERTYPE_IPV4, &unknown_version(n));
    }
    let mut answers = 0;
    for ms in 1..20 {
        core.turn_at(Instant::ZERO + Duration::from_millis(ms));
        for frame in taken(&mut other) {
            assert_eq!(frame[..6], STRANGER_MAC.0, "nobody else is bothered");
            assert_eq!(frame[12..14], ETHERTYPE_IPV4.to_be_bytes());
            answers += 1;
        }
    }
    assert_eq!(answers, 50);
    assert_eq!((core.net_stats().neighbor_solicits, core.net_stats().tx_reflected), (0, 50));
}
