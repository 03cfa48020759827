//! Packets from forged addresses.

use std::net::SocketAddr;

use super::neighbors::{events, gratuitous};
use super::world::*;
use crate::base::time::{Duration, Instant};
use crate::datapath::{RxFrame, TxFrame};
use crate::net::{Net, NetConfig, NetDrop, NetEvent, Received, Sent, Standing};
use crate::wire::eth::Mac;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const BROADCAST: [u8; 6] = [0xff; 6];

fn made_up(n: u32) -> SocketAddr {
    at(&format!("10.0.{}.{}:9", 4 + n / 250 % 200, 1 + n % 250))
}

/// 1,000 of them, even from beyond the router, used to be reported as 1,000 duplicate addresses.
#[test]
fn our_own_address_in_a_packet_is_no_sign_of_a_duplicate() {
    for (us, mac) in [("10.0.0.1/24", "10.0.0.1"), ("2001:db8::1/64", "2001:db8::1")] {
        let mut a = host(1, &[us]);
        let mut liar = host(9, &[us]);
        let to = SocketAddr::new(ip(mac), 4433);
        let other = if to.is_ipv4() { at("10.0.0.2:7") } else { at("[2001:db8::2]:7") };
        let mut b = host(2, &[&format!("{}/64", other.ip()).replace("10.0.0.2/64", "10.0.0.2/24")]);
        // A packet to somebody else with our source, readdressed to us.
        let mut frame = resolved(&mut liar, &mut b, secs(0), to, other, b"x");
        let bytes = RxFrame::data_mut(&mut frame);
        bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        let (src, dst, len) = if to.is_ipv4() { (26, 30, 4) } else { (22, 38, 16) };
        bytes.copy_within(src..src + len, dst);
        frame.ip = crate::datapath::Checksum::Good;
        frame.l4 = crate::datapath::Checksum::Good;
        for _ in 0..1000 {
            assert_eq!(a.receive(secs(0), &mut frame.clone()), Received::Dropped(NetDrop::BadSource));
        }
        assert_eq!((a.stats().duplicate_address, events(&mut a), poll_all(&mut a, secs(0)).len()), (0, vec![], 0));
    }
    // ARP is evidence, and reported once.
    let mut a = host(1, &["10.0.0.1/24"]);
    for _ in 0..1000 {
        a.receive(secs(0), &mut gratuitous(Mac(ROUTER), [10, 0, 0, 1]));
    }
    assert_eq!(events(&mut a), [NetEvent::Duplicate { ip: ip("10.0.0.1"), mac: Mac(ROUTER) }]);
    assert_eq!(poll_all(&mut a, secs(0)).len(), 1);
}

/// Answers go to where the packet came from: one frame for one, without solicitations or entries in the tables.
#[test]
fn answers_to_strangers_ask_nobody() {
    let mut a = host(1, &["10.0.0.1/16"]);
    let mut b = host(2, &["10.0.0.2/16"]);
    let from = at("10.0.0.1:443");
    resolved(&mut a, &mut b, secs(0), from, at("10.0.0.2:2"), b"");
    let misses = a.stats().tx_template_misses;
    for n in 0..5000 {
        let standing = || Standing::Stranger { via: Some(ROUTER) };
        let sent = a.send_to(secs(0), from, made_up(n), 0, Frame::with_payload(b"answer"), standing);
        assert_eq!(ready(sent).data()[..6], ROUTER);
    }
    assert_eq!((a.neighbor_count(), poll_all(&mut a, secs(0)).len()), (1, 0));
    assert_eq!((a.stats().tx_reflected, a.stats().neighbor_solicits), (5000, 1));
    ready(a.send(secs(0), from, at("10.0.0.2:2"), 0, Frame::with_payload(b"")));
    assert_eq!(a.stats().tx_template_misses, misses + 5000, "the flow to the neighbour has kept its headers");
    // A neighbour whose MAC address is known gets it there, wherever the packet came from.
    let standing = || Standing::Stranger { via: Some(ROUTER) };
    let sent = a.send_to(secs(0), from, at("10.0.0.2:99"), 0, Frame::with_payload(b"x"), standing);
    assert_eq!(ready(sent).data()[5], 2);
    for via in [None, Some([3, 0, 0, 0, 0, 1]), Some([0; 6]), Some(BROADCAST), Some([2, 0, 0, 0, 0, 1])] {
        let sent = a.send_to(secs(0), from, made_up(1), 0, Frame::with_payload(b"x"), || Standing::Stranger { via });
        assert_eq!(sent, Sent::Dropped(NetDrop::StrangerUnknown), "{via:?}");
    }
}

/// A client in the flood.
struct Client {
    net: Net<Frame>,
    addr: SocketAddr,
    mac: u8,
    /// It still has the server's MAC address, as after a restart of the server, and does not ask for it.
    knows_us: bool,
    starts: u32,
    replies: usize,
}

const SERVER: &str = "10.0.0.1:443";
/// Requests of a fetch.
const REQUESTS: usize = 5;

impl Client {
    fn new(n: u8) -> Self {
        let addr = at(&format!("10.0.1.{n}:5000"));
        let mac = 0x20 + n;
        let net = host(mac, &[&format!("{}/16", addr.ip())]);
        Self { net, addr, mac, knows_us: n % 2 == 1, starts: u32::from(n) * 1200, replies: 0 }
    }

    /// The frames it sends at `step`: a request every tenth of a second, until all are answered.
    fn request(&mut self, now: Instant, step: u32) -> Vec<Frame> {
        if step >= self.starts && (step - self.starts).is_multiple_of(500) && self.replies < REQUESTS {
            if self.knows_us {
                self.net.share_neighbor(now, at(SERVER).ip(), Mac([2, 0, 0, 0, 0, 1]));
            }
            if let Sent::Ready(frame) = self.net.send(now, self.addr, at(SERVER), 0, Frame::with_payload(b"request")) {
                return vec![frame];
            }
        }
        poll_all(&mut self.net, now)
    }

    fn hear(&mut self, now: Instant, frame: &Frame) {
        if frame.data()[5] == self.mac || frame.data()[..6] == BROADCAST {
            let heard = deliver(&mut self.net, now, vec![frame.clone()]);
            self.replies += heard.iter().filter(|(_, payload)| payload == b"reply").count();
        }
    }
}

/// Delivers a client's frame to the server; returns the reply, if its next hop is known.
fn arrive(server: &mut Net<Frame>, now: Instant, client: &Client, frame: &mut Frame) -> Option<Frame> {
    let via: [u8; 6] = frame.data()[6..12].try_into().unwrap();
    let Received::Udp(_) = server.receive(now, frame) else { return None };
    let first = client.replies == 0;
    if first {
        server.heard_from(now, client.addr.ip(), via);
    }
    let standing = || if first { Standing::Unproven } else { Standing::Proven { progress: Some(now) } };
    match server.send_to(now, at(SERVER), client.addr, 0, Frame::with_payload(b"reply"), standing) {
        Sent::Ready(frame) => Some(frame),
        _ => None,
    }
}

/// Runs a server for five seconds of a flood. Returns the number of successful fetches and of broadcast solicitations.
fn fetches_under_flood(a: &mut Net<Frame>, begin: Instant) -> (usize, usize) {
    let mut clients: Vec<_> = (1..=18).map(Client::new).collect();
    let mut broadcasts = 0;
    for step in 0..25_000u32 {
        let now = begin + Duration::from_micros(200 * u64::from(step));
        // Every second stranger gets an answer; with the others a connection starts.
        let spoof = made_up(step);
        if step % 2 == 0 {
            let standing = || Standing::Stranger { via: Some(ROUTER) };
            let _ = a.send_to(now, at(SERVER), spoof, 0, Frame::with_payload(b"answer"), standing);
        } else {
            a.heard_from(now, spoof.ip(), ROUTER);
            for _ in 0..3 {
                let _ = a.send_to(now, at(SERVER), spoof, 0, Frame::with_payload(b"hello"), || Standing::Unproven);
            }
        }
        let mut on_the_wire = Vec::new();
        for client in &mut clients {
            for mut frame in client.request(now, step) {
                on_the_wire.extend(arrive(a, now, client, &mut frame));
            }
        }
        on_the_wire.extend(poll_all(a, now));
        for frame in on_the_wire {
            broadcasts += usize::from(frame.data()[..6] == BROADCAST);
            clients.iter_mut().for_each(|client| client.hear(now, &frame));
        }
    }
    (clients.iter().filter(|client| client.replies >= REQUESTS).count(), broadcasts)
}

/// 5,000 packets per second from forged neighbours used to cause as many broadcasts, and 4 of 18 genuine fetches
/// failed.
#[test]
fn genuine_clients_are_served_under_a_flood_of_made_up_neighbours() {
    let config = NetConfig { gateways: vec![ip("10.0.255.254")], ..config(&["10.0.0.1/16"]) };
    let mut a = Net::<Frame>::new(&config, &caps(1), Instant::ZERO).unwrap();
    let mut old = host(2, &["10.0.0.2/16"]);
    resolved(&mut a, &mut old, secs(0), at("10.0.0.1:443"), at("10.0.0.2:2"), b"");
    let (fetched, broadcasts) = fetches_under_flood(&mut a, secs(1));
    assert_eq!(fetched, 18, "{:?}", a.stats());
    // Five seconds, with a quarter of 200 solicitations each for strangers.
    assert!(broadcasts <= 50 * 6, "{broadcasts} broadcasts");
    // The neighbour that was known before still is.
    assert!(matches!(
        a.send(secs(6), at("10.0.0.1:443"), at("10.0.0.2:2"), 0, Frame::with_payload(b"")),
        Sent::Ready(_)
    ));
}

/// Frames for forged neighbours used to wait in order of arrival, and others were refused.
#[test]
fn what_waits_for_strangers_makes_room() {
    let mut a = host(1, &["10.0.0.1/16"]);
    let mut b = host(2, &["10.0.0.2/16"]);
    let from = at("10.0.0.1:443");
    for n in 0..2000 {
        let _ = a.send_to(secs(0), from, made_up(n), 0, Frame::with_payload(b"x"), || Standing::Unproven);
    }
    let given_up = a.stats().drops[NetDrop::NeighborUnreachable];
    for _ in 0..16 {
        assert_eq!(a.send(secs(0), from, at("10.0.0.2:2"), 0, Frame::with_payload(b"mine")), Sent::Pending);
    }
    assert!(a.stats().drops[NetDrop::NeighborUnreachable] >= given_up);
    let [_, seen] = settle(&mut a, &mut b, secs(0));
    assert_eq!(seen.iter().filter(|(_, payload)| payload == b"mine").count(), 16);
    // Our own frames do not make room for those of strangers.
    for n in 0..40 {
        for _ in 0..16 {
            let _ = a.send(secs(0), from, at(&format!("10.0.99.{}:2", 1 + n)), 0, Frame::with_payload(b"mine"));
        }
    }
    let waiting = a.stats().drops[NetDrop::PendingOverflow];
    for n in 0..2000 {
        let sent = a.send_to(secs(0), from, made_up(n), 0, Frame::with_payload(b"x"), || Standing::Unproven);
        assert_eq!(sent, Sent::Dropped(NetDrop::PendingFull));
    }
    assert_eq!(a.stats().drops[NetDrop::PendingOverflow], waiting);
}

/// A packet with a neighbour's source address does not teach us its MAC address.
#[test]
fn packets_teach_nobody_where_a_neighbour_is() {
    let mut a = host(1, &["10.0.0.1/16"]);
    let mut b = host(2, &["10.0.0.2/16"]);
    let from = at("10.0.0.1:443");
    a.heard_from(secs(0), ip("10.0.0.2"), ROUTER);
    let asked = poll_all(&mut a, secs(0));
    assert_eq!((asked.len(), &asked[0].data()[..6]), (1, &ROUTER[..]), "only the liar hears the question");
    assert_eq!(
        a.send_to(secs(0), from, at("10.0.0.2:2"), 0, Frame::with_payload(b"x"), || Standing::Unproven),
        Sent::Pending
    );
    // The neighbour itself is solicited by broadcast a second later, and found.
    let [_, seen] = settle(&mut a, &mut b, secs(1));
    assert!(seen.iter().any(|(_, payload)| payload == b"x"));
    // Hosts beyond a router are not solicited, and known neighbours not again.
    a.heard_from(secs(1), ip("10.0.0.2"), ROUTER);
    a.heard_from(secs(1), ip("8.8.8.8"), ROUTER);
    a.heard_from(secs(1), ip("10.0.0.3"), [2, 0, 0, 0, 0, 1]);
    assert_eq!(poll_all(&mut a, secs(1)).len(), 0);
}
