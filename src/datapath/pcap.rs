//! A decorator that writes every frame received and sent to a capture file (pcapng, nanoseconds, with directions),
//! readable by Wireshark, tshark and tcpdump.
//!
//! Sent frames are recorded as they are handed to the port. Where the device fills in checksums
//! ([`Caps::tx_udp_checksum`]), the capture shows them unfinished, and a reader that verifies checksums calls
//! them wrong.
//!
//! Capturing never disturbs traffic: an error (a full disk) ends the capture with one warning, and frames go on.
//! Writing is buffered but synchronous, so a slow disk slows the core down: a tool for debugging.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use arrayvec::ArrayVec;

use super::{BURST, Burst, Caps, Datapath, DatapathStats, RxFrame, TxFrame};

/// Bytes gathered before they are written.
const BUFFER: usize = 256 << 10;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;

/// What a capture holds, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcapCounters {
    /// Recorded.
    pub recorded: u64,
    /// Not recorded, or lost again, because writing failed.
    pub missed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Received = 1,
    Sent = 2,
}

/// A datapath whose frames are written to a capture. Buffered: [`Pcap::flush`] or dropping it writes the rest.
pub struct Pcap<D> {
    inner: D,
    capture: Capture,
}

impl<D: Datapath> Pcap<D> {
    /// Captures to a new file at `path`, in real time. A file that is there already is overwritten.
    ///
    /// # Errors
    /// When the file cannot be created or its header not be written.
    pub fn create(inner: D, path: &Path) -> io::Result<Self> {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut pcap = Self::new(inner, File::create(path)?, path.display().to_string(), clock);
        pcap.capture.write()?;
        Ok(pcap)
    }

    /// Captures to `out`, called `name` in warnings. `clock` gives the time since 1970 and is asked once a burst.
    pub fn new(
        inner: D,
        out: impl Write + Send + 'static,
        name: impl Into<String>,
        clock: impl FnMut() -> Duration + Send + 'static,
    ) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER + BURST * 2048);
        header(&mut buffer);
        let capture = Capture {
            out: Some(Box::new(out)),
            name: name.into(),
            clock: Box::new(clock),
            buffer,
            buffered: 0,
            counters: PcapCounters::default(),
        };
        Self { inner, capture }
    }

    /// What the capture holds.
    pub fn counters(&self) -> PcapCounters {
        self.capture.counters
    }

    /// Writes what is buffered. A failure ends the capture with a warning.
    pub fn flush(&mut self) {
        self.capture.flush();
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

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.inner.set_multicast(groups);
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
            self.capture.commit();
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
        // The frames are gone once sent: record all, then take back those that were left behind.
        let mut ends = ArrayVec::<usize, BURST>::new();
        if !burst.is_empty() && self.capture.out.is_some() {
            let at = (self.capture.clock)();
            for frame in burst.iter() {
                self.capture.record(at, Direction::Sent, frame.data());
                ends.push(self.capture.buffer.len());
            }
        }
        let n = self.inner.tx_burst(burst);
        debug_assert_eq!(n + burst.len(), offered);
        let end = n.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(start);
        self.capture.buffer.truncate(end);
        if self.capture.begin(n) {
            self.capture.commit();
        }
        n
    }

    fn stats(&self) -> DatapathStats {
        self.inner.stats()
    }
}

/// The file and what is not yet in it.
struct Capture {
    out: Option<Box<dyn Write + Send>>,
    name: String,
    clock: Box<dyn FnMut() -> Duration + Send>,
    buffer: Vec<u8>,
    /// Frames in `buffer`.
    buffered: u64,
    counters: PcapCounters,
}

impl Capture {
    /// Counts `frames` and tells whether there is anything to record them with.
    fn begin(&mut self, frames: usize) -> bool {
        let frames = frames as u64;
        match self.out {
            Some(_) => {
                self.counters.recorded += frames;
                self.buffered += frames;
            }
            None => self.counters.missed += frames,
        }
        frames > 0 && self.out.is_some()
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

    fn commit(&mut self) {
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// Writes the buffer; after an error nothing is written any more, as the file may end within a block.
    fn write(&mut self) -> io::Result<()> {
        let Some(mut out) = self.out.take() else { return Ok(()) };
        out.write_all(&self.buffer)?;
        out.flush()?;
        self.out = Some(out);
        self.buffer.clear();
        self.buffered = 0;
        Ok(())
    }

    fn flush(&mut self) {
        if let Err(error) = self.write() {
            eprintln!(
                "gannet: warning: capture {} stopped after about {} frames: {error}; traffic goes on",
                self.name,
                self.counters.recorded - self.buffered
            );
            self.counters.recorded -= self.buffered;
            self.counters.missed += self.buffered;
            self.buffered = 0;
            self.buffer = Vec::new();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The section header, and the one interface: Ethernet, time in nanoseconds.
fn header(out: &mut Vec<u8>) {
    block(out, SECTION_HEADER, |body| {
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes()); // length of the section: not known
    });
    block(out, INTERFACE, |body| {
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        body.extend(0u32.to_le_bytes()); // frames are never cut
        option(body, 9, &[9]);
        option(body, 0, &[]);
    });
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
        write!(f, "Pcap({}, {:?}, {:?})", self.capture.name, self.capture.counters, self.inner)
    }
}

#[cfg(test)]
mod tests;
