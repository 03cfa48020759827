//! Checksums that are left to the device, between vhost and virtio-user.

use gannet::datapath::{Burst, Checksum, Datapath as _, RxFrame as _, TxFrame as _, TxOffload};
use gannet::dpdk::Queue;

use crate::shared_memory::{pair_of, side};
use crate::support::*;

const FRAMES: usize = 64;

/// The ones' complement sum of `data`, not inverted.
fn sum(data: &[u8]) -> u16 {
    let words = data.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(udp: &[u8]) -> [u8; 12] {
    let len = (udp.len() as u16).to_be_bytes();
    [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, len[0], len[1]]
}

/// A UDP datagram over IPv4; its checksum field holds the pseudo-header sum for a device, or the checksum.
fn datagram(n: usize, by_device: bool) -> Vec<u8> {
    let payload = pattern(n as u32, 64 + n * 20);
    let mut udp =
        [&[0x11, 0x51, 0x11, 0x51][..], &((payload.len() + 8) as u16).to_be_bytes(), &[0, 0], &payload].concat();
    let pseudo = pseudo_header(&udp);
    let field = if by_device { sum(&pseudo) } else { !sum(&[&pseudo[..], &udp].concat()) };
    udp[6..8].copy_from_slice(&field.to_be_bytes());
    let total = ((udp.len() + 20) as u16).to_be_bytes();
    let mut ip = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let field = !sum(&ip);
    ip[10..12].copy_from_slice(&field.to_be_bytes());
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip, &udp].concat()
}

/// Whether the frame may be believed: by the device's verdict, or by its own checksum.
fn sound(frame: &mut gannet::dpdk::RxMbuf) -> bool {
    let verdict = frame.l4_checksum();
    let udp = &frame.data_mut()[34..];
    let correct = sum(&[&pseudo_header(udp)[..], udp].concat()) == 0xffff;
    match verdict {
        Checksum::Good => true,
        Checksum::Unknown => correct,
        Checksum::Bad => false,
    }
}

fn send(queue: &mut Queue) {
    let by_device = queue.caps().tx_udp_checksum;
    let mut burst = Burst::new();
    let mut next = 0;
    eventually("sending all frames", || {
        while next < FRAMES && !burst.is_full() {
            let bytes = datagram(next, by_device);
            let Some(mut frame) = filled(queue, &bytes) else { break };
            if by_device {
                frame.set_offload(TxOffload { l2_len: 14, l3_len: 20, udp_checksum: true, ..TxOffload::default() });
            }
            burst.push(frame);
            next += 1;
        }
        queue.tx_burst(&mut burst);
        next == FRAMES && burst.is_empty()
    });
}

fn receive(queue: &mut Queue) {
    let mut seen = 0;
    eventually("the arrival of all frames", || {
        let mut burst = Burst::new();
        queue.rx_burst(&mut burst);
        for frame in &mut burst {
            if frame.data_mut()[12..14] != [8, 0] {
                continue;
            }
            assert_eq!(frame.data_mut().len(), datagram(seen, false).len());
            assert!(sound(frame), "datagram {seen}: {:?}", frame.l4_checksum());
            seen += 1;
        }
        seen == FRAMES
    });
}

fn both_ways(test: &str, offloads: &'static str, expected: bool) {
    let sides = |socket: &str| {
        (
            side("vhost", 1500, &[("devargs.iface", socket), ("offloads", offloads)]),
            side("virtio-user", 1500, &[("devargs.path", socket), ("offloads", offloads)]),
        )
    };
    let host = |queue: &mut Queue| {
        assert_eq!(queue.caps().tx_udp_checksum, expected);
        receive(queue);
        send(queue);
    };
    let guest = |queue: &mut Queue| {
        assert_eq!(queue.caps().tx_udp_checksum, expected);
        send(queue);
        receive(queue);
    };
    pair_of(test, sides, host, guest);
}

#[test]
fn checksums_by_the_device() {
    both_ways("checksums::checksums_by_the_device", "auto", true);
}

#[test]
fn checksums_by_software() {
    both_ways("checksums::checksums_by_software", "off", false);
}
