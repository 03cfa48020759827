//! The link as a whole, and helpers for tests of decorators.

use super::*;

/// Sends one frame with `payload` after a 14-byte header of `0xee`.
pub(crate) fn send<D: Datapath>(port: &mut D, payload: &[u8]) -> bool {
    let mut tx = port.tx_alloc().expect("a free frame");
    tx.payload_mut()[..payload.len()].copy_from_slice(payload);
    tx.set_payload_len(payload.len());
    tx.prepend(14).fill(0xee);
    let mut burst = Burst::new();
    burst.push(tx);
    port.tx_burst(&mut burst) == 1
}

/// The payloads of the frames received by one poll.
pub(crate) fn poll<D: Datapath>(port: &mut D) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    let n = port.rx_burst(&mut burst);
    assert_eq!(n, burst.len());
    burst.iter_mut().map(|frame| frame.data_mut()[14..].to_vec()).collect()
}

#[test]
fn frames_cross_in_order_and_both_ways() {
    let (mut a, mut b) = SimLink::pair(SimConfig::default());
    assert_eq!((a.caps().mac[5], b.caps().mac[5], a.caps().mtu), (1, 2, 1500));
    for i in 0..3 {
        assert!(send(&mut a, &[i; 5]));
    }
    assert!(send(&mut b, b"back"));
    assert_eq!(poll(&mut b), [[0; 5], [1; 5], [2; 5]]);
    assert_eq!(poll(&mut a), [b"back"]);
    assert!(poll(&mut a).is_empty());
    let stats = a.stats();
    assert_eq!((stats.tx_frames, stats.tx_bytes, stats.rx_frames, stats.rx_bytes), (3, 57, 1, 18));
}

#[test]
fn a_full_ring_leaves_frames_in_the_burst() {
    let (mut a, mut b) = SimLink::pair(SimConfig { ring_size: 2, frames: 4, ..SimConfig::default() });
    let mut burst = Burst::new();
    for i in 0..4 {
        let mut tx = a.tx_alloc().unwrap();
        tx.payload_mut()[0] = i;
        tx.set_payload_len(1);
        tx.prepend(14);
        burst.push(tx);
    }
    assert!(a.tx_alloc().is_none());
    assert_eq!((a.tx_burst(&mut burst), burst.len()), (2, 2));
    // Each frame is counted once, however often it is retried.
    for _ in 0..10 {
        assert_eq!((a.tx_burst(&mut burst), a.stats().tx_full, a.stats().tx_no_frame), (0, 2, 1));
    }
    assert_eq!(poll(&mut b), [[0], [1]]);
    assert_eq!((a.tx_burst(&mut burst), burst.len()), (2, 0));
    assert_eq!(poll(&mut b), [[2], [3]]);
    assert_eq!(a.free_frames(), 4, "every frame came back");
}

#[test]
fn a_recycled_frame_is_whole_again() {
    let (mut a, mut b) = SimLink::pair(SimConfig { frames: 1, ..SimConfig::default() });
    for _ in 0..3 {
        assert!(send(&mut a, &[1; 100]));
        assert_eq!(poll(&mut b), [[1; 100]]);
    }
    let mut tx = a.tx_alloc().unwrap();
    assert_eq!(tx.payload_mut().len(), 1518);
    tx.set_payload_len(3);
    assert_eq!(tx.prepend(TX_HEADROOM).len(), TX_HEADROOM);
    assert_eq!(tx.data().len(), TX_HEADROOM + 3);
}

#[test]
#[should_panic(expected = "1 bytes prepended with 0 bytes of headroom left")]
fn headroom_is_finite() {
    let mut tx = SimLink::pair(SimConfig::default()).0.tx_alloc().unwrap();
    tx.prepend(TX_HEADROOM);
    tx.prepend(1);
}

#[test]
fn the_path_mtu_swallows_larger_packets() {
    let (mut a, mut b) = SimLink::pair(SimConfig { path_mtu: 1280, ..SimConfig::default() });
    assert!(send(&mut a, &[0; 1281]));
    assert!(send(&mut a, &[0; 1280]));
    assert_eq!((poll(&mut b).len(), a.vanished(), a.free_frames()), (1, 1, 1024));
}

#[test]
fn a_link_that_is_down_takes_nothing() {
    let (mut a, mut b) = SimLink::pair(SimConfig::default());
    b.set_link(false);
    assert!(!a.link_up() && !send(&mut a, b"x"));
    a.set_link(true);
    assert!(b.link_up() && send(&mut a, b"y"));
    assert_eq!(poll(&mut b), [b"y"]);
    drop(b);
    assert!(!a.link_up());
}

#[test]
fn checksums_are_filled_in_as_a_device_would() {
    // The IPv4 header known from RFC 1071 tutorials: its checksum is b861.
    let mut frame = vec![0; 14];
    frame.extend([0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7]);
    let pseudo: u16 = ones_sum(&[0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7, 0, 17, 0, 11]);
    frame.extend([0, 1, 0, 2, 0, 11]);
    frame.extend(pseudo.to_be_bytes());
    frame.extend([9, 8, 7]);
    frame.extend([0xff; 9]); // padding
    let ask = TxOffload { l2_len: 14, l3_len: 20, ipv6: false, ip_checksum: true, udp_checksum: true };
    fill_checksums(&mut frame, ask);
    assert_eq!(frame[24..26], [0xb8, 0x61]);
    assert_eq!(ones_sum(&frame[14..34]), 0xffff);
    let udp: u32 = [1u32, 2, 11, 0x0908, 0x0700, 0xc0a8, 1, 0xc0a8, 0xc7, 17, 11].iter().sum();
    let udp = !(((udp & 0xffff) + (udp >> 16)) as u16);
    assert_eq!(frame[40..42], udp.to_be_bytes());
    for short in [0, 13, 20, 36] {
        fill_checksums(&mut vec![0; short], ask);
    }
}

#[test]
fn ports_work_on_two_threads() {
    const FRAMES: u32 = 2000;
    let (mut a, mut b) = SimLink::pair(SimConfig { ring_size: 8, frames: 16, ..SimConfig::default() });
    let sender = std::thread::spawn(move || {
        let mut burst = Burst::new();
        let mut next: u32 = 0;
        while next < FRAMES || !burst.is_empty() {
            if next < FRAMES
                && !burst.is_full()
                && let Some(mut tx) = a.tx_alloc()
            {
                tx.payload_mut()[..4].copy_from_slice(&next.to_be_bytes());
                tx.set_payload_len(4);
                tx.prepend(14);
                burst.push(tx);
                next += 1;
            }
            if a.tx_burst(&mut burst) == 0 {
                std::thread::yield_now();
            }
        }
        a
    });
    let mut expected = 0u32;
    while expected < FRAMES {
        for payload in poll(&mut b) {
            assert_eq!(payload, expected.to_be_bytes());
            expected += 1;
        }
        std::thread::yield_now();
    }
    assert_eq!(sender.join().unwrap().free_frames(), 16);
}
