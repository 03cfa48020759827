//! Frames that arrive in several pieces, and capture files as ports.

use std::fs;

use gannet::datapath::{Burst, Datapath as _, RxFrame as _};
use gannet::dpdk::Queue;

use crate::support::*;

/// A capture file with these frames.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// Receives until nothing has come for a while: the capture file is at its end.
fn all(queue: &mut Queue) -> Vec<Vec<u8>> {
    let (mut frames, mut quiet) = (Vec::new(), 0);
    while quiet < 1000 {
        let mut burst = Burst::new();
        quiet = if queue.rx_burst(&mut burst) == 0 { quiet + 1 } else { 0 };
        frames.extend(burst.iter_mut().map(|f| f.data_mut().to_vec()));
    }
    frames
}

#[test]
fn chained_frames_are_joined_and_giants_dropped() {
    isolated("joined::chained_frames_are_joined_and_giants_dropped", || {
        let dir = scratch();
        let lengths = [64, 512, 513, 1514, 300, 1024, 2048, 2049, 9000, 64];
        let frames: Vec<Vec<u8>> = (0..).zip(lengths).map(|(n, len)| pattern(n, len)).collect();
        let input = path(dir.path(), "in.pcap");
        fs::write(&input, capture(&frames)).unwrap();
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("pcap", &[("devargs.rx_pcap", &input), ("mbuf_size", "512")]));
        let fit: Vec<Vec<u8>> = frames.iter().filter(|f| f.len() <= 2048).cloned().collect();
        assert_eq!(all(&mut queue), fit);
        let stats = queue.stats();
        assert_eq!((stats.rx_frames, stats.rx_oversize), (10, 2));
        assert_eq!(stats.rx_linearized_bytes, 513 + 1514 + 1024 + 2048);
        drop(queue);
        assert_no_leak(&port);
    });
}

#[test]
fn capture_files_in_and_out() {
    isolated("joined::capture_files_in_and_out", || {
        let dir = scratch();
        let frames: Vec<Vec<u8>> = (0..100).map(|n| pattern(n, length(n, 1500))).collect();
        let (input, output) = (path(dir.path(), "in.pcap"), path(dir.path(), "out.pcap"));
        fs::write(&input, capture(&frames)).unwrap();
        let eal = eal();
        let files = [("devargs.rx_pcap", input.as_str()), ("devargs.tx_pcap", output.as_str())];
        let (port, mut queue) = open(&eal, &profile("pcap", &files));
        assert_eq!(all(&mut queue), frames);
        assert_eq!(queue.stats().rx_linearized_bytes, 0);
        let mut burst = Burst::new();
        for n in 0..20 {
            assert!(make(&mut queue, &mut burst, n, length(n, 1500)));
        }
        assert_eq!(queue.tx_burst(&mut burst), 20);
        drop((queue, port));
        let written = fs::read(&output).unwrap();
        let expected = capture(&frames[..20]);
        assert_eq!(written.len(), expected.len());
        assert!(written.ends_with(&frames[19]));
    });
}
