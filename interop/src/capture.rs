//! Capture files: pcap with nanoseconds.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::error::{About, Result};

/// Longest frame that is recorded whole.
const SNAP: u32 = 65_535;

/// A capture file.
#[derive(Debug)]
pub struct Capture {
    file: BufWriter<File>,
    start: Duration,
}

impl Capture {
    /// A new capture whose times are counted from now.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path).about(|| path.display().to_string())?);
        let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, SNAP, 1] {
            file.write_all(&u32::to_ne_bytes(word))?;
        }
        Ok(Self { file, start })
    }

    /// Records a frame, `since` the start.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn frame(&mut self, since: Duration, frame: &[u8]) -> io::Result<()> {
        let at = self.start + since;
        let kept = &frame[..frame.len().min(SNAP as usize)];
        for word in [at.as_secs() as u32, at.subsec_nanos(), kept.len() as u32, frame.len() as u32] {
            self.file.write_all(&word.to_ne_bytes())?;
        }
        self.file.write_all(kept)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}
