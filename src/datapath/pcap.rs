//! A decorator that writes every frame received and sent to a capture file (pcapng with nanoseconds and directions),
//! readable by Wireshark, tshark and tcpdump.
//!
//! Sent frames are recorded as they are passed to the port. If the device fills in checksums
//! ([`Caps::tx_udp_checksum`]), they are incomplete in the capture, and a reader that verifies them reports errors.
//!
//! Capturing never delays traffic. Frames are collected in a few blocks of memory, which a separate thread writes. If
//! the disk is slower than the network, all blocks are in use and frames are omitted; an error (a full disk) ends the
//! capture. Both are counted ([`PcapCounters::missed`], `port_capture_missed`) and logged once. The last block of a
//! capture contains the number of missing frames.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, bounded};

use super::{BURST, Burst, Caps, Datapath, DatapathStats, RxFrame, TxFrame};
use crate::base::aside::Aside;

/// The size of a block, in bytes.
const BUFFER: usize = 256 << 10;

/// The number of blocks: one is filled while the others are written.
const BLOCKS: usize = 32;

/// How long the end of a capture waits for its last blocks to be written.
const PATIENCE: Duration = Duration::from_secs(2);

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;

/// Counters of a capture, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcapCounters {
    /// Recorded: in the file, or waiting to be written.
    pub recorded: u64,
    /// Not recorded, because writing failed or could not keep up.
    pub missed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Received = 1,
    Sent = 2,
}

/// A datapath with a capture of its frames. Dropping it writes the remaining frames, for at most 2 s.
pub struct Pcap<D> {
    inner: D,
    capture: Capture,
}

impl<D: Datapath> Pcap<D> {
    /// Captures to a new file at `path`, in real time. An existing file is overwritten. If it is a pipe, the capture
    /// starts when it has a reader.
    ///
    /// # Errors
    /// If the file cannot be created, its header cannot be written, or no thread can be started.
    pub fn create(inner: D, path: &Path) -> io::Result<Self> {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = path.display().to_string();
        if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo()) {
            return Self::new(inner, Later(path.into(), None), name, clock);
        }
        let mut file = File::create(path)?;
        file.write_all(&header())?;
        Self::headed(inner, file, name, clock)
    }

    /// Captures to `out`, which is called `name` in warnings. `clock` returns the time since 1970 and is called once
    /// per burst.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn new(
        inner: D,
        out: impl Write + Send + 'static,
        name: impl Into<String>,
        clock: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let mut pcap = Self::headed(inner, out, name.into(), clock)?;
        pcap.capture.buffer.extend(header());
        Ok(pcap)
    }

    /// The same for a file that already has its header.
    fn headed(
        inner: D,
        out: impl Write + Send + 'static,
        name: String,
        clock: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let (give_back, empty) = bounded(BLOCKS);
        // One less: the block being filled.
        (1..BLOCKS).for_each(|_| drop(give_back.try_send(Vec::new())));
        let mut file = CaptureFile { out: Some(out), name: name.clone(), state: Arc::default() };
        let state = file.state.clone();
        let writer = Aside::start("gannet-pcap", BLOCKS, move |Block { mut bytes, frames }| {
            file.write(&bytes, frames);
            bytes.clear();
            let _ = give_back.try_send(bytes);
        })?;
        let capture = Capture {
            name,
            clock: Box::new(clock),
            buffer: Vec::new(),
            buffered: 0,
            offered: 0,
            left_out: 0,
            writer,
            empty,
            state,
        };
        Ok(Self { inner, capture })
    }

    /// The counters.
    pub fn counters(&self) -> PcapCounters {
        self.capture.counters()
    }

    /// The datapath below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The datapath below.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }
}

impl<D: Datapath> Datapath for Pcap<D> {
    type Rx = D::Rx;
    type Tx = D::Tx;

    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn link_up(&mut self) -> bool {
        self.inner.link_up()
    }

    fn link_problem(&self) -> Option<String> {
        self.inner.link_problem()
    }

    fn removed(&self) -> Option<String> {
        self.inner.removed()
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.inner.set_multicast(groups);
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn wake_file(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wake_file()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn wakes(&self, armed: bool, called: bool) -> bool {
        self.inner.wakes(armed, called)
    }

    fn is_needed(&self, ended: bool) -> bool {
        self.inner.is_needed(ended)
    }

    fn passed_on(&mut self, wake: impl FnMut(u8)) -> bool {
        self.inner.passed_on(wake)
    }

    fn rx_burst(&mut self, burst: &mut Burst<D::Rx>) -> usize {
        let before = burst.len();
        let n = self.inner.rx_burst(burst);
        let fresh = &mut burst[before..];
        if self.capture.begin(fresh.len()) {
            let at = (self.capture.clock)();
            for frame in fresh {
                self.capture.record(at, Direction::Received, frame.data_mut());
            }
            self.capture.commit(n);
        }
        n
    }

    fn release(&mut self, burst: &mut Burst<D::Rx>) {
        self.inner.release(burst);
    }

    fn tx_alloc(&mut self) -> Option<D::Tx> {
        self.inner.tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<D::Tx>) -> usize {
        let (offered, start) = (burst.len(), self.capture.buffer.len());
        // Frames are gone once sent, so record all of them first, then undo those that were not sent.
        let mut ends = ArrayVec::<usize, BURST>::new();
        let records = self.capture.begin(offered);
        if records {
            let at = (self.capture.clock)();
            for frame in burst.iter() {
                self.capture.record(at, Direction::Sent, frame.data());
                ends.push(self.capture.buffer.len());
            }
        }
        let n = self.inner.tx_burst(burst);
        debug_assert_eq!(n + burst.len(), offered);
        if records {
            let end = n.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(start);
            self.capture.buffer.truncate(end);
            self.capture.commit(n);
        } else {
            // They were counted as omitted; those not sent will be offered again.
            self.capture.left_out -= burst.len() as u64;
        }
        n
    }

    fn stats(&self) -> DatapathStats {
        let PcapCounters { recorded, missed } = self.counters();
        DatapathStats { captured: recorded, capture_missed: missed, ..self.inner.stats() }
    }
}

/// A unit of writing: whole blocks of the format.
struct Block {
    bytes: Vec<u8>,
    frames: u64,
}

/// State published by the writing thread.
#[derive(Debug, Default)]
struct FileState {
    /// Frames passed to it that are not in the file.
    lost: AtomicU64,
    /// Frames in the file.
    written: AtomicU64,
    /// Nothing is written any more.
    over: AtomicBool,
}

/// The writing thread's view of the file.
struct CaptureFile<W> {
    /// `None` after an error: the file may end within a block.
    out: Option<W>,
    name: String,
    state: Arc<FileState>,
}

impl<W: Write> CaptureFile<W> {
    fn write(&mut self, bytes: &[u8], frames: u64) {
        let written = self.out.as_mut().map(|out| out.write_all(bytes).and_then(|()| out.flush()));
        match written {
            Some(Ok(())) => {
                self.state.written.fetch_add(frames, Ordering::Relaxed);
                return;
            }
            Some(Err(error)) => {
                self.out = None;
                self.state.over.store(true, Ordering::Relaxed);
                let frames = self.state.written.load(Ordering::Relaxed);
                tracing::warn!(file = self.name, frames, %error, "the capture has ended; traffic continues");
            }
            None => {}
        }
        self.state.lost.fetch_add(frames, Ordering::Relaxed);
    }
}

/// A pipe that is opened at the first write, which waits for a reader.
struct Later(Box<Path>, Option<File>);

impl Write for Later {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.is_none() {
            self.1 = Some(File::options().write(true).open(&self.0)?);
        }
        self.1.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The collected frames.
struct Capture {
    name: String,
    clock: Box<dyn FnMut() -> Duration + Send>,
    buffer: Vec<u8>,
    /// Frames in `buffer`.
    buffered: u64,
    /// Frames put into a buffer.
    offered: u64,
    /// Frames for which there was no buffer.
    left_out: u64,
    writer: Aside<Block>,
    /// Blocks that were written and are free.
    empty: Receiver<Vec<u8>>,
    state: Arc<FileState>,
}

impl Capture {
    fn counters(&self) -> PcapCounters {
        let lost = self.state.lost.load(Ordering::Relaxed);
        PcapCounters { recorded: self.offered - lost, missed: self.left_out + lost }
    }

    /// Returns whether there is room to record `frames`; otherwise counts them as omitted.
    fn begin(&mut self, frames: usize) -> bool {
        if frames == 0 {
            return false;
        }
        if self.state.over.load(Ordering::Relaxed) || !self.has_buffer() {
            self.left_out += frames as u64;
            return false;
        }
        true
    }

    fn has_buffer(&mut self) -> bool {
        if self.buffer.len() < BUFFER {
            return true;
        }
        let Ok(empty) = self.empty.try_recv() else {
            if self.left_out == 0 {
                tracing::warn!(file = self.name, "the capture cannot be written fast enough: frames will be missing");
            }
            return false;
        };
        let bytes = std::mem::replace(&mut self.buffer, empty);
        let frames = std::mem::take(&mut self.buffered);
        if self.writer.offer(Block { bytes, frames }).is_err() {
            // The channel has room for all blocks, so the thread has ended.
            self.state.lost.fetch_add(frames, Ordering::Relaxed);
        }
        true
    }

    /// Appends one packet block.
    fn record(&mut self, at: Duration, direction: Direction, frame: &[u8]) {
        let nanos = at.as_nanos() as u64;
        let len = (frame.len() as u32).to_le_bytes();
        block(&mut self.buffer, ENHANCED_PACKET, |body| {
            body.extend([0; 4]); // the first interface
            body.extend(((nanos >> 32) as u32).to_le_bytes());
            body.extend((nanos as u32).to_le_bytes());
            body.extend(len);
            body.extend(len);
            padded(body, frame);
            option(body, 2, &(direction as u32).to_le_bytes());
            option(body, 0, &[]);
        });
    }

    /// Notes that `frames` were recorded. A full buffer is passed on at once if there is another one.
    fn commit(&mut self, frames: usize) {
        self.offered += frames as u64;
        self.buffered += frames as u64;
        if self.buffer.len() >= BUFFER && !self.empty.is_empty() {
            self.has_buffer();
        }
    }

    /// Writes the statistics of recorded and missing frames as the last block.
    fn statistics(&mut self) {
        let nanos = (self.clock)().as_nanos() as u64;
        let PcapCounters { recorded, missed } = self.counters();
        block(&mut self.buffer, STATISTICS, |body| {
            body.extend([0; 4]);
            body.extend(((nanos >> 32) as u32).to_le_bytes());
            body.extend((nanos as u32).to_le_bytes());
            option(body, 4, &(recorded + missed).to_le_bytes());
            option(body, 5, &missed.to_le_bytes());
            option(body, 0, &[]);
        });
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.statistics();
        let (bytes, frames) = (std::mem::take(&mut self.buffer), self.buffered);
        let done = self.writer.offer(Block { bytes, frames }).is_ok() && self.writer.finish(PATIENCE);
        let (written, over) = (self.state.written.load(Ordering::Relaxed), self.state.over.load(Ordering::Relaxed));
        let missing = self.offered + self.left_out - written;
        // Errors were logged when they occurred.
        if !over && (!done || missing > 0) {
            tracing::warn!(file = self.name, frames = written, missing, "the capture is incomplete");
        }
    }
}

/// The section header and the description of the single interface: Ethernet, time in nanoseconds.
fn header() -> Vec<u8> {
    let mut out = Vec::new();
    block(&mut out, SECTION_HEADER, |body| {
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes()); // length of the section: unknown
    });
    block(&mut out, INTERFACE, |body| {
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        body.extend(0u32.to_le_bytes()); // frames are never truncated
        option(body, 9, &[9]);
        option(body, 0, &[]);
    });
    out
}

/// One pcapng block: type, length, body, length.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let len = ((out.len() - start + 4) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&len);
    out.extend(len);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend(std::iter::repeat_n(0, bytes.len().wrapping_neg() % 4));
}

impl<D: fmt::Debug> fmt::Debug for Pcap<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pcap({}, {:?}, {:?})", self.capture.name, self.capture.counters(), self.inner)
    }
}

#[cfg(test)]
mod tests;
