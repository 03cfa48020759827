//! Parsers of bytes and text from strangers. What they accept survives another round of encoding.

use std::net::IpAddr;

use gannet::base::Side;
use gannet::net::Cidr;
use gannet::proto::hq::{Request, Root};
use gannet::wire::arp::Arp;
use gannet::wire::eth::EthHeader;
use gannet::wire::icmp::{Icmp, IcmpVersion, QuotedUdp};
use gannet::wire::ipv4::Ipv4;
use gannet::wire::ipv6::Ipv6;
use gannet::wire::ndp::{ListenerQuery, Ndp};
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::header;
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::varint::Writer;
use gannet::wire::udp::Udp;

/// Transport parameters, of both sides.
pub fn params(data: &[u8]) {
    for side in [Side::Client, Side::Server] {
        let Ok(params) = TransportParameters::decode(data, side) else { continue };
        let again = TransportParameters::decode(&params.to_bytes(), side);
        assert_eq!(again, Ok(params), "what was read can be written");
    }
}

/// The frames of a packet.
pub fn frames(mut data: &[u8]) {
    while let Ok((frame, used)) = Frame::decode(data) {
        if let Frame::Ack(ack) = &frame {
            let mut above = None;
            for range in ack.ranges() {
                assert!(range.start() <= range.end(), "ranges are not empty");
                assert!(above.is_none_or(|low| range.end() + 1 < low), "ranges descend, with gaps");
                above = Some(*range.start());
            }
        }
        let len = frame.encoded_len();
        let mut bytes = vec![0; len];
        let mut w = Writer::new(&mut bytes);
        frame.encode(&mut w);
        assert_eq!(w.finish(), Some(len), "{frame:?} is as long as it says");
        match Frame::decode(&bytes) {
            Ok((again, all)) => assert_eq!((again, all), (frame.clone(), len)),
            Err(error) => panic!("{frame:?} cannot be read again: {error}"),
        }
        if let Some((header, front)) = StreamHeader::decode(data) {
            assert_eq!((Frame::Stream(header), front), (frame.clone(), used), "both ways to read it agree");
        }
        // The data of these follows.
        let follows = match &frame {
            Frame::Stream(header) => header.len,
            Frame::Datagram { len } => *len,
            _ => Some(0),
        };
        let rest = &data[used..];
        let Some(rest) = follows.and_then(|n| usize::try_from(n).ok()).and_then(|n| rest.get(n..)) else { return };
        data = rest;
    }
}

/// The headers of a datagram's packets, with connection IDs of several lengths.
pub fn headers(data: &[u8]) {
    for cid_len in [0, 1, 8, 20] {
        let mut rest = data;
        while let Ok(parsed) = header::parse(rest, cid_len) {
            assert!(parsed.packet_len > 0 && parsed.packet_len <= rest.len());
            if rest[0] & 0x80 != 0 {
                // IDs of unknown versions are cut off (RFC 8999 §5.1 allows 255 bytes).
                assert!(header::raw_dcid(rest).is_some_and(|id| id.starts_with(&parsed.dcid)));
            } else {
                assert_eq!(parsed.dcid.len(), cid_len);
            }
            rest = &rest[parsed.packet_len..];
        }
    }
    let _ = header::raw_cids(data);
    assert!(header::versions(data).count() <= data.len() / 4);
}

/// The headers of other protocols.
pub fn packets(data: &[u8]) {
    if let Ok((_, used)) = EthHeader::parse(data) {
        assert!(used <= data.len());
    }
    if let Ok(arp) = Arp::parse(data) {
        assert_eq!(Arp::parse(&arp.to_bytes()), Ok(arp));
    }
    if let Ok(ip) = Ipv4::parse(data) {
        let _ = ip.checksum_ok(data);
    }
    if let Ok(ip) = Ipv4::parse_quoted(data) {
        let _ = ip.quoted_ports(data);
    }
    let _ = Ipv6::parse(data);
    if let Ok(ip) = Ipv6::parse_quoted(data) {
        let _ = ip.quoted_ports(data);
    }
    let _ = Udp::parse(data);
    let _ = Ndp::parse(data);
    let _ = ListenerQuery::parse(data);
    for version in [IcmpVersion::V4, IcmpVersion::V6] {
        let _ = Icmp::parse(version, data);
        let _ = QuotedUdp::parse(version, data);
    }
}

/// Request lines, paths and addresses.
pub fn text(data: &[u8]) {
    for ended in [false, true] {
        if let Ok(Some(request)) = Request::parse(data, ended) {
            assert!(request.len <= data.len());
            if let Ok(path) = Root::relative(&request.path) {
                let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
                assert!(inside, "{path:?} leaves its folder");
            }
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(cidr) = text.parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse::<Cidr>().as_ref(), Ok(&cidr));
    }
    let _ = text.parse::<IpAddr>();
}
