//! Frames captured from a Linux 6 kernel on the other end of a veth pair.

use super::world::*;
use crate::base::time::Instant;
use crate::datapath::{Caps, TxFrame};
use crate::net::{Net, NetConfig, Quote, Received, Sent};

const NOW: Instant = Instant::ZERO;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn us() -> Net<Frame> {
    let caps = Caps { mac: [2, 0, 0, 0, 0, 0x77], ..caps(0) };
    let config = NetConfig { ports: Some(vec![4433, 9]), ..config(&["10.77.0.2/24", "2001:db8:77::2/64"]) };
    Net::new(&config, &caps, NOW).unwrap()
}

fn take(net: &mut Net<Frame>, hex: &str) -> Received {
    net.receive(NOW, &mut Frame::received(&bytes(hex)))
}

#[test]
fn answers_to_our_questions() {
    for (from, to, answer) in [
        (
            "10.77.0.2:4433",
            "10.77.0.1:7000",
            "020000000077 fe4386316740 0806 0001080006040002 fe4386316740 0a4d0001 020000000077 0a4d0002",
        ),
        (
            "[2001:db8:77::2]:4433",
            "[2001:db8:77::1]:7000",
            "020000000077 fe4386316740 86dd 6000000000203aff 20010db8007700000000000000000001
             20010db8007700000000000000000002 88001f59e0000000 20010db8007700000000000000000001 0201fe4386316740",
        ),
    ] {
        let mut a = us();
        assert_eq!(a.send(NOW, at(from), at(to), 0, Frame::with_payload(b"hello")), Sent::Pending);
        assert_eq!(poll_all(&mut a, NOW).len(), 1);
        assert_eq!(take(&mut a, answer), Received::Consumed);
        let released = poll_all(&mut a, NOW);
        assert_eq!(released[0].data()[..6], [0xfe, 0x43, 0x86, 0x31, 0x67, 0x40]);
        assert_eq!((released.len(), a.stats().neighbor_resolved), (1, 1));
    }
}

#[test]
fn questions_to_us() {
    let mut a = us();
    let request = "ffffffffffff fe4386316740 0806 0001080006040001 fe4386316740 0a4d0001 000000000000 0a4d0002";
    assert_eq!(take(&mut a, request), Received::Consumed);
    let reply = "fe4386316740 020000000077 0806 0001080006040002 020000000077 0a4d0002 fe4386316740 0a4d0001";
    assert!(poll_all(&mut a, NOW)[0].data().starts_with(&bytes(reply)));
    let solicit = "3333ff000002 fe4386316740 86dd 6000000000203aff 20010db8007700000000000000000001
        ff0200000000000000000001ff000002 8700318400000000 20010db8007700000000000000000002 0101fe4386316740";
    assert_eq!(take(&mut a, solicit), Received::Consumed);
    let advert = "fe4386316740 020000000077 86dd 6000000000203aff 20010db8007700000000000000000002
        20010db8007700000000000000000001 8800";
    assert!(poll_all(&mut a, NOW)[0].data().starts_with(&bytes(advert)));
    let solicit = "3333ff000077 fe4386316740 86dd 6000000000203aff fe80000000000000fc4386fffe316740
        ff0200000000000000000001ff000077 8700a84300000000 fe80000000000000000000fffe000077 0101fe4386316740";
    assert_eq!(take(&mut a, solicit), Received::Consumed);
    assert_eq!(a.neighbor_count(), 3);
}

#[test]
fn messages_about_ours() {
    let mut a = us();
    let unreachable = "020000000077 fe4386316740 0800 45c0003dff10000040016653 0a4d0001 0a4d0002 030311b800000000
        45010021000040004011262f 0a4d0002 0a4d0001 11511b59000d7abb 68656c6c6f";
    // The packet that is quoted carried "hello".
    let quote = |local, remote, len, payload| Quote { local: at(local), remote: at(remote), len, payload };
    let want = Received::PortUnreachable { quote: quote("10.77.0.2:4433", "10.77.0.1:7001", 5, 70..75) };
    assert_eq!(take(&mut a, unreachable), want);
    // The kernel quotes the whole packet, whose zeros do not matter to the checksum.
    let mut too_big = bytes(
        "020000000077 fe4386316740 0800 45c00240ff1100004001644f 0a4d0001 0a4d0002 0304122d00000514
         4501059400004000401120a5 0a4d0002 0a630002 11511b5905806fbe 68656c6c6f",
    );
    too_big.resize(14 + 0x240, 0);
    let want = Received::PacketTooBig {
        quote: quote("10.77.0.2:4433", "10.99.0.2:7001", 1400, 70..590),
        max_udp_payload: 1272,
    };
    assert_eq!(a.receive(NOW, &mut Frame::received(&too_big)), want);
    let mut too_big = bytes(
        "020000000077 fe4386316740 86dd 600840b404d83a40 20010db8007700000000000000000001
         20010db8007700000000000000000002 0200290600000514 6019fd2705801140 20010db8007700000000000000000002
         20010db8009900000000000000000002 11511b59058027ec 68656c6c6f",
    );
    too_big.resize(54 + 0x4d8, 0);
    let want = Received::PacketTooBig {
        quote: quote("[2001:db8:77::2]:4433", "[2001:db8:99::2]:7001", 1400, 110..1294),
        max_udp_payload: 1252,
    };
    assert_eq!(a.receive(NOW, &mut Frame::received(&too_big)), want);
}

#[test]
fn datagrams_to_us() {
    let mut a = us();
    for (frame, remote, start) in [
        (
            "020000000077 fe4386316740 0800 4500001dc7bf400040115e74 0a4d0001 0a4d0002 90ea00090009e24b78",
            "10.77.0.1:37098",
            42,
        ),
        (
            "020000000077 fe4386316740 86dd 600dc44d00091140 20010db8007700000000000000000001
             20010db8007700000000000000000002 966000090009950f78",
            "[2001:db8:77::1]:38496",
            62,
        ),
    ] {
        let Received::Udp(udp) = take(&mut a, frame) else { panic!("not taken: {frame}") };
        assert_eq!((udp.remote, udp.local.port(), udp.payload), (at(remote), 9, start..start + 1));
    }
}
