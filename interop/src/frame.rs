//! Ethernet frames: UDP datagrams are taken out and put back, with new addresses and checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gannet::sim::forwarder::Datagram;
use gannet::wire::arp::{Arp, ArpOp};
use gannet::wire::checksum::Sum;
use gannet::wire::eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Mac};
use gannet::wire::ipv4::{self, Ipv4, PROTOCOL_UDP};
use gannet::wire::ipv6::{self, Ipv6, PROTOCOL_ICMPV6};
use gannet::wire::ndp::{self, Ndp};
use gannet::wire::udp::{UDP_LEN, Udp, never_zero};

/// What a datagram's frame has beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shell {
    eth: EthHeader,
    /// Time to live, or hop limit.
    ttl: u8,
}

/// The UDP datagram in a frame. `None` for others, and for fragments.
pub fn take(frame: &[u8]) -> Option<Datagram<Shell>> {
    let (eth, at) = EthHeader::parse(frame).ok()?;
    let packet = frame.get(at..)?;
    let (from, to, ecn, ttl, range): (IpAddr, IpAddr, _, _, _) = match eth.ethertype {
        ETHERTYPE_IPV4 => {
            let ip = Ipv4::parse(packet).ok().filter(|ip| ip.protocol == PROTOCOL_UDP && !ip.fragment)?;
            (ip.src.into(), ip.dst.into(), ip.ecn, ip.ttl, ip.header_len..ip.total_len)
        }
        ETHERTYPE_IPV6 => {
            let ip = Ipv6::parse(packet).ok().filter(|ip| ip.protocol == PROTOCOL_UDP && !ip.fragment)?;
            (ip.src.into(), ip.dst.into(), ip.ecn, ip.hop_limit, ip.header_len..ip.total_len)
        }
        _ => return None,
    };
    let datagram = packet.get(range)?;
    let udp = Udp::parse(datagram).ok()?;
    Some(Datagram {
        from: SocketAddr::new(from, udp.src),
        to: SocketAddr::new(to, udp.dst),
        ecn,
        payload: datagram.get(UDP_LEN..udp.len)?.to_vec(),
        tag: Shell { eth, ttl },
    })
}

/// The frame of a datagram. `None` if its addresses are of different IP versions.
pub fn put(datagram: &Datagram<Shell>) -> Option<Vec<u8>> {
    let (shell, len) = (&datagram.tag, UDP_LEN + datagram.payload.len());
    let mut udp = Udp { src: datagram.from.port(), dst: datagram.to.port(), len, checksum: 0 };
    let mut frame = shell.eth.to_bytes().to_vec();
    let pseudo = match (datagram.from.ip(), datagram.to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend(ipv4::header(src, dst, PROTOCOL_UDP, shell.ttl, datagram.ecn, len));
            Sum::new().pseudo_v4(src, dst, PROTOCOL_UDP, len as u16)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend(ipv6::header(src, dst, PROTOCOL_UDP, shell.ttl, datagram.ecn, 0, len));
            Sum::new().pseudo_v6(src, dst, PROTOCOL_UDP, len as u32)
        }
        _ => return None,
    };
    udp.checksum = never_zero(pseudo.bytes(&udp.to_bytes()).bytes(&datagram.payload).checksum());
    frame.extend(udp.to_bytes());
    frame.extend(&datagram.payload);
    Some(frame)
}

/// A request for the link address of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose address is wanted.
    pub target: IpAddr,
    /// Who asks.
    asker: IpAddr,
    mac: Mac,
}

/// The question in a frame, if it is an ARP request or a neighbour solicitation from an address.
pub fn question(frame: &[u8]) -> Option<Question> {
    let (eth, at) = EthHeader::parse(frame).ok()?;
    let packet = frame.get(at..)?;
    match eth.ethertype {
        ETHERTYPE_ARP => {
            let arp = Arp::parse(packet).ok().filter(|a| a.op == ArpOp::Request && !a.sender_ip.is_unspecified())?;
            Some(Question { target: arp.target_ip.into(), asker: arp.sender_ip.into(), mac: arp.sender_mac })
        }
        ETHERTYPE_IPV6 => {
            let ip =
                Ipv6::parse(packet).ok().filter(|ip| ip.protocol == PROTOCOL_ICMPV6 && !ip.src.is_unspecified())?;
            match Ndp::parse(packet.get(ip.header_len..ip.total_len)?).ok()? {
                Ndp::NeighborSolicit { target, .. } => {
                    Some(Question { target: target.into(), asker: ip.src.into(), mac: eth.src })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The frame that answers a question: the target is at `mac`.
pub fn answer(question: &Question, mac: Mac) -> Option<Vec<u8>> {
    let header = |ethertype| EthHeader { dst: question.mac, src: mac, vlan: None, ethertype }.to_bytes().to_vec();
    match (question.target, question.asker) {
        (IpAddr::V4(target), IpAddr::V4(asker)) => {
            let mut frame = header(ETHERTYPE_ARP);
            frame.extend(reply(target, mac, asker, question.mac).to_bytes());
            Some(frame)
        }
        (IpAddr::V6(target), IpAddr::V6(asker)) => {
            let mut frame = header(ETHERTYPE_IPV6);
            let advert: &[u8] = &advert(target, asker, mac);
            frame.extend(ipv6::header(target, asker, PROTOCOL_ICMPV6, ndp::HOP_LIMIT, 0, 0, advert.len()));
            frame.extend(advert);
            Some(frame)
        }
        _ => None,
    }
}

fn reply(target: Ipv4Addr, mac: Mac, asker: Ipv4Addr, asker_mac: Mac) -> Arp {
    Arp { op: ArpOp::Reply, sender_mac: mac, sender_ip: target, target_mac: asker_mac, target_ip: asker }
}

fn advert(target: Ipv6Addr, asker: Ipv6Addr, mac: Mac) -> [u8; ndp::NEIGHBOR_LEN] {
    ndp::neighbor_advert(target, asker, target, mac, true, true)
}

/// The source of a frame.
pub fn source(frame: &[u8]) -> Option<Mac> {
    EthHeader::parse(frame).ok().map(|(eth, _)| eth.src)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn datagram(from: &str, to: &str, ethertype: u16) -> Datagram<Shell> {
        let eth = EthHeader { dst: B, src: A, vlan: None, ethertype };
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Datagram { from, to, ecn: 2, payload: vec![1, 2, 3], tag: Shell { eth, ttl: 7 } }
    }

    #[test]
    fn datagrams_survive_and_checksums_follow() {
        for (from, to, kind) in
            [("10.9.0.2:7", "10.9.0.1:4433", ETHERTYPE_IPV4), ("[fd00::2]:7", "[fd00::1]:4433", ETHERTYPE_IPV6)]
        {
            let mut one = datagram(from, to, kind);
            assert_eq!(take(&put(&one).unwrap()), Some(one.clone()));
            one.from.set_port(9);
            let frame = put(&one).unwrap();
            let packet = &frame[14..];
            let sum = match (one.from.ip(), one.to.ip()) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    assert!(Ipv4::parse(packet).unwrap().checksum_ok(packet));
                    Sum::new().pseudo_v4(src, dst, PROTOCOL_UDP, 11).bytes(&packet[20..])
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    Sum::new().pseudo_v6(src, dst, PROTOCOL_UDP, 11).bytes(&packet[40..])
                }
                _ => unreachable!(),
            };
            assert!(sum.is_valid());
        }
        assert_eq!(put(&datagram("10.9.0.2:7", "[fd00::1]:4433", ETHERTYPE_IPV4)), None);
    }

    #[test]
    fn garbage_is_not_a_datagram() {
        let frame = put(&datagram("10.9.0.2:7", "10.9.0.1:4433", ETHERTYPE_IPV4)).unwrap();
        (0..frame.len()).for_each(|len| assert_eq!(take(&frame[..len]), None));
        let mut tcp = frame;
        tcp[23] = 6;
        assert_eq!(take(&tcp), None);
    }

    #[test]
    fn neighbours_are_answered() {
        let (ours, theirs): (Ipv4Addr, Ipv4Addr) = ("10.9.0.1".parse().unwrap(), "10.9.0.77".parse().unwrap());
        let ask = Arp { op: ArpOp::Request, sender_mac: A, sender_ip: ours, target_mac: Mac::ZERO, target_ip: theirs };
        let eth = EthHeader { dst: Mac::BROADCAST, src: A, vlan: None, ethertype: ETHERTYPE_ARP };
        let mut frame = eth.to_bytes().to_vec();
        frame.extend(ask.to_bytes());
        let asked = question(&frame).unwrap();
        assert_eq!(asked.target, IpAddr::from(theirs));
        let answer = answer(&asked, B).unwrap();
        assert_eq!(question(&answer), None);
        let arp = Arp::parse(&answer[14..]).unwrap();
        assert_eq!((arp.op, arp.sender_mac, arp.sender_ip, arp.target_ip), (ArpOp::Reply, B, theirs, ours));

        let (ours, theirs): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::77".parse().unwrap());
        let group = ipv6::solicited_node(theirs);
        let solicit = ndp::neighbor_solicit(ours, group, theirs, A);
        let eth = EthHeader { dst: Mac::for_multicast(group), src: A, vlan: None, ethertype: ETHERTYPE_IPV6 };
        let mut frame = eth.to_bytes().to_vec();
        frame.extend(ipv6::header(ours, group, PROTOCOL_ICMPV6, 255, 0, 0, solicit.len()));
        frame.extend(solicit);
        let asked = question(&frame).unwrap();
        let answer = super::answer(&asked, B).unwrap();
        let Ndp::NeighborAdvert { target, .. } = Ndp::parse(&answer[54..]).unwrap() else {
            panic!("not an advertisement")
        };
        assert_eq!(target, theirs);
    }
}
