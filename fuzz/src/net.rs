//! The network layer with any frames.

use std::time::Duration;

use gannet::base::time::Instant;
use gannet::datapath::{Caps, Checksum, RxFrame, TX_HEADROOM, TxFrame, TxOffload};
use gannet::net::{Net, NetConfig, Received};

use crate::input::Input;

/// A frame for both directions.
#[derive(Clone, Debug)]
struct Frame {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    verdict: Checksum,
}

impl Frame {
    fn empty() -> Self {
        let end = TX_HEADROOM + 2048;
        Self { bytes: vec![0; end], start: TX_HEADROOM, end, verdict: Checksum::Unknown }
    }

    fn received(bytes: &[u8], verdict: Checksum) -> Self {
        Self { bytes: bytes.to_vec(), start: 0, end: bytes.len(), verdict }
    }
}

impl TxFrame for Frame {
    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    fn set_payload_len(&mut self, len: usize) {
        assert!(self.start + len <= self.bytes.len());
        self.end = self.start + len;
    }

    fn prepend(&mut self, n: usize) -> &mut [u8] {
        self.start -= n;
        &mut self.bytes[self.start..self.start + n]
    }

    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn set_offload(&mut self, _: TxOffload) {}
}

impl RxFrame for Frame {
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn ip_checksum(&self) -> Checksum {
        self.verdict
    }

    fn l4_checksum(&self) -> Checksum {
        self.verdict
    }
}

/// Frames to receive, each a byte that says how, and the frame; datagrams are sent and time passes in between.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let addrs = ["10.0.0.1/24", "2001:db8::1/64"].map(|addr| addr.parse().expect("an address"));
    let config = NetConfig { addrs: addrs.to_vec(), announce: input.byte() & 1 != 0, ..NetConfig::default() };
    let caps = Caps { mac: [2, 0, 0, 0, 0, 1], mtu: 1500, tx_ip_checksum: false, tx_udp_checksum: false };
    let mut now = Instant::ZERO;
    let mut net = Net::<Frame>::new(&config, &caps, now).expect("a valid configuration");
    net.open_port(4433);
    let mut received = 0;
    for _ in 0..128 {
        if input.is_empty() {
            break;
        }
        let how = input.byte();
        match how % 4 {
            0 => {
                now += Duration::from_millis(u64::from(input.short()));
            }
            1 => {
                let remote = if how & 0x40 != 0 {
                    ([10, 0, input.byte() & 1, input.byte()], 7).into()
                } else {
                    let last = input.byte();
                    std::net::SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)], 7))
                };
                let local = std::net::SocketAddr::new(if remote.is_ipv4() { addrs[0] } else { addrs[1] }.addr(), 4433);
                let mut frame = Frame::empty();
                frame.set_payload_len(1200);
                drop(net.send(now, local, remote, 0, frame));
            }
            _ => {
                // A device that verified the checksums lets damage through to the parsers behind.
                let verdict = if how & 0x40 != 0 { Checksum::Good } else { Checksum::Unknown };
                let mut frame = Frame::received(input.long_piece(), verdict);
                let len = frame.bytes.len();
                received += 1;
                match net.receive(now, &mut frame) {
                    Received::Udp(udp) => assert!(udp.payload.end <= len && udp.payload.start <= udp.payload.end),
                    Received::PacketTooBig { quote, .. }
                    | Received::PortUnreachable { quote }
                    | Received::HostUnreachable { quote } => assert!(quote.payload.end <= len),
                    Received::Consumed | Received::Dropped(_) => {}
                }
            }
        }
        if net.next_timeout().is_some_and(|at| at <= now) || how & 0x80 != 0 {
            for _ in 0..64 {
                let Some(frame) = net.poll(now, || Some(Frame::empty())) else { break };
                assert!(frame.data().len() <= 14 + 4 + 1500, "frames fit");
            }
        }
        while net.poll_event().is_some() {}
    }
    let stats = net.stats();
    let dropped = stats.drops.received();
    assert_eq!(stats.rx_frames, received);
    assert_eq!(
        stats.rx_udp + stats.rx_too_big + stats.rx_unreachable + stats.rx_handled + dropped,
        received,
        "every frame is counted once"
    );
}
