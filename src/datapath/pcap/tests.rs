//! Captures, read back by a separate reader and by tshark.

use std::process::Command;
use std::sync::Mutex;

use super::*;
use crate::datapath::sim::tests::{poll, send};
use crate::datapath::sim::{SimConfig, SimLink, SimPort};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Direction, time in nanoseconds and bytes of each packet block.
fn read(mut file: &[u8]) -> Vec<(u32, u64, Vec<u8>)> {
    let word = |bytes: &[u8], i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap());
    let mut packets = Vec::new();
    let mut kinds = Vec::new();
    while !file.is_empty() {
        let len = word(file, 4) as usize;
        assert!(len.is_multiple_of(4));
        assert_eq!(word(file, len - 4) as usize, len);
        let (block, rest) = file.split_at(len);
        kinds.push(word(block, 0));
        if word(block, 0) == ENHANCED_PACKET {
            let n = word(block, 20) as usize;
            assert_eq!((word(block, 24) as usize, word(block, 8)), (n, 0));
            let options = 28 + n.next_multiple_of(4);
            assert_eq!((word(block, options), word(block, options + 8), len), (0x4_0002, 0, options + 16));
            let time = u64::from(word(block, 12)) << 32 | u64::from(word(block, 16));
            packets.push((word(block, options + 4), time, block[28..28 + n].to_vec()));
        }
        file = rest;
    }
    assert_eq!(kinds[..2], [SECTION_HEADER, INTERFACE]);
    packets
}

#[test]
fn both_directions_are_recorded_with_their_times() {
    let (mut a, b) = SimLink::pair(SimConfig::default());
    let file = Shared::default();
    let mut now = Duration::from_nanos(5_000_000_000_000_000_001);
    let mut b = Pcap::new(b, file.clone(), "test", move || {
        now += Duration::from_nanos(1);
        now
    })
    .unwrap();
    for i in 0..5 {
        assert!(send(&mut a, &[i; 7][..i as usize]));
    }
    assert_eq!(poll(&mut b).len(), 5);
    assert!(poll(&mut b).is_empty());
    assert!(send(&mut b, b"out"));
    assert_eq!(poll(&mut a), [b"out"]);
    assert_eq!(b.counters(), PcapCounters { recorded: 6, missed: 0 });
    assert!(file.0.lock().unwrap().is_empty(), "buffered");
    drop(b);
    let packets = read(&file.0.lock().unwrap());
    let brief: Vec<_> = packets.iter().map(|(d, t, f)| (*d, *t - 5_000_000_000_000_000_000, f.len())).collect();
    assert_eq!(brief, [(1, 2, 14), (1, 2, 15), (1, 2, 16), (1, 2, 17), (1, 2, 18), (2, 3, 17)]);
    assert_eq!(packets[3].2[14..], [3; 3]);
}

#[test]
fn frames_left_behind_are_recorded_when_they_go() {
    let (a, mut b) = SimLink::pair(SimConfig { ring_size: 2, ..SimConfig::default() });
    let file = Shared::default();
    let mut a = Pcap::new(a, file.clone(), "test", Duration::default).unwrap();
    let mut burst = Burst::new();
    for i in 0..5 {
        let mut tx = a.tx_alloc().unwrap();
        tx.payload_mut()[0] = i;
        tx.set_payload_len(1);
        burst.push(tx);
    }
    for (left, drain) in [(3, false), (3, true), (1, true), (0, false)] {
        a.tx_burst(&mut burst);
        assert_eq!(burst.len(), left);
        if drain {
            b.rx_burst(&mut Burst::new());
        }
    }
    assert_eq!(a.counters(), PcapCounters { recorded: 5, missed: 0 });
    drop(a);
    let sent: Vec<_> = read(&file.0.lock().unwrap()).into_iter().map(|(_, _, f)| f[0]).collect();
    assert_eq!(sent, [0, 1, 2, 3, 4]);
}

/// Sends frames of 1000 bytes through `b` and back until `blocks` are filled; returns their number.
fn fill(a: &mut SimPort, b: &mut Pcap<SimPort>, blocks: usize) -> u64 {
    let frames = (blocks * BUFFER / 1000) as u64 + 50;
    for i in 0..frames {
        assert!(send(a, &[i as u8; 1000]));
        assert_eq!(poll(b), [[i as u8; 1000]]);
        assert!(send(b, b"pong"));
        assert_eq!(poll(a), [b"pong"]);
    }
    2 * frames
}

#[test]
fn a_full_disk_stops_the_capture_and_nothing_else() {
    let (mut a, b) = SimLink::pair(SimConfig::default());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut b = Pcap::new(b, full, "/dev/full", Duration::default).unwrap();
    let frames = fill(&mut a, &mut b, 1);
    // The writing thread notices in its own time; nothing was in the file by then.
    let state = b.capture.state.clone();
    while !state.over.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    let more = fill(&mut a, &mut b, 0);
    let PcapCounters { recorded, missed } = b.counters();
    assert_eq!(recorded + missed, frames + more);
    assert!(missed >= more, "{missed}");
    drop(b);
    assert_eq!(state.written.load(Ordering::Relaxed), 0);
}

/// A disk that blocks until released.
struct Stuck(Receiver<()>, Shared);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The poll loop used to write itself: this test never got to its second block.
#[test]
fn a_stuck_disk_holds_nobody_up_and_what_is_missing_is_counted() {
    let (mut a, b) = SimLink::pair(SimConfig::default());
    let (go, stuck) = bounded(0);
    let file = Shared::default();
    let mut b = Pcap::new(b, Stuck(stuck, file.clone()), "stuck", Duration::default).unwrap();
    let frames = fill(&mut a, &mut b, 2 * BLOCKS);
    let PcapCounters { recorded, missed } = b.counters();
    assert_eq!(recorded + missed, frames);
    assert!(missed > 0 && recorded > frames / 4, "{recorded} recorded, {missed} missed");
    assert_eq!((b.stats().captured, b.stats().capture_missed), (recorded, missed));
    drop(go);
    drop(b);
    let written = file.0.lock().unwrap();
    assert_eq!(read(&written).len() as u64, recorded, "what was recorded is there");
    // The statistics at the end report the missing ones: option 5, isb_ifdrop.
    let last = &written[written.len() - 52..];
    assert_eq!(last[20..24], [4, 0, 8, 0]);
    assert_eq!(last[32..44], [&[5, 0, 8, 0][..], &missed.to_le_bytes()].concat());
}

/// Opening a pipe waits for a reader, but does not block the poll loop, or the end for long.
#[test]
fn a_pipe_without_a_reader_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (mut a, b) = SimLink::pair(SimConfig::default());
    let mut b = Pcap::create(b, &path).unwrap();
    let frames = fill(&mut a, &mut b, 2);
    assert_eq!(b.counters(), PcapCounters { recorded: frames, missed: 0 });
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_at_once() {
    let port = || SimLink::pair(SimConfig::default()).0;
    assert!(Pcap::create(port(), Path::new("/nonexistent/x.pcapng")).is_err());
    assert!(Pcap::create(port(), Path::new("/dev/full")).is_err());
}

#[test]
fn tshark_reads_it() {
    if Command::new("tshark").arg("--version").output().is_err() {
        // Not installed.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sim.pcapng");
    let (mut a, b) = SimLink::pair(SimConfig::default());
    let mut b = Pcap::create(b, &path).unwrap();
    for i in 0..40u8 {
        assert!(send(&mut a, &vec![i; usize::from(i) + 1]));
    }
    poll(&mut b);
    poll(&mut b);
    assert!(send(&mut b, &[1; 200]));
    drop(b);
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path).args(["-T", "fields", "-e", "frame.len", "-e", "frame.encap_type"]);
    let output = tshark.args(["-e", "frame.packet_flags_direction"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    let field = |line: &Vec<&str>, i: usize| {
        let text = line[i].trim_start_matches("0x");
        text.parse::<usize>().unwrap_or_else(|_| panic!("{text:?}"))
    };
    let seen: Vec<_> = lines.iter().map(|l| [field(l, 0), field(l, 1), field(l, 2)]).collect();
    let mut expected: Vec<_> = (0..40).map(|i| [15 + i, 1, 1]).collect();
    expected.push([214, 1, 2]);
    assert_eq!(seen, expected);
}
