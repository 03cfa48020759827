//! The file to download, and its hash.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::guards::{Removed, remove_file};
use super::results::human_bytes;
use crate::error::{Error, Result};
use crate::interrupt;

/// The file's name on the server.
pub const NAME: &str = "file";

/// The number of bytes generated or hashed at a time.
const CHUNK: usize = 1 << 20;

/// The file, in a directory of its own for the server.
#[derive(Debug)]
pub struct Source {
    /// The directory that the server serves.
    pub root: PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
    what: String,
    _copy: Option<Removed>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.what, human_bytes(self.size))
    }
}

impl Source {
    /// Writes `size` pseudo-random bytes with a fixed seed below `out`, to be kept for the next demo.
    ///
    /// # Errors
    /// If they cannot be written, or a signal arrives.
    pub fn random(out: &Path, size: u64) -> Result<Self> {
        let root = out.join(format!("random-{size}"));
        let path = root.join(NAME);
        if fs::metadata(&path).is_ok_and(|found| found.len() == size) {
            println!("source: reusing {}", path.display());
        } else {
            fs::create_dir_all(&root).map_err(Error::path("make", &root))?;
            println!("source: creating {}", path.display());
            // Under a temporary name until complete.
            let partial = Removed::unless(false, out.join(format!("random-{size}.part")));
            generate(partial.path(), size)?;
            fs::rename(partial.path(), &path).map_err(Error::path("make", &path))?;
        }
        Self::new(root, path.display().to_string(), None)
    }

    /// Links an existing file into a directory below `out`, or copies it if no link is possible, so that the server
    /// serves nothing else.
    ///
    /// # Errors
    /// If it is not a file, or can be neither linked nor copied.
    pub fn existing(file: &Path, out: &Path) -> Result<Self> {
        let size = fs::metadata(file).map_err(Error::path("read", file))?;
        if !size.is_file() {
            return Err(Error::Unmet(format!("{} is not a file", file.display())));
        }
        let file = file.canonicalize().map_err(Error::path("find", file))?;
        let root = out.join("given");
        fs::create_dir_all(&root).map_err(Error::path("make", &root))?;
        if file == root.join(NAME) {
            return Err(Error::Unmet(format!("{} belongs to the demo; give another file", file.display())));
        }
        let copy = Removed::unless(false, root.join(NAME));
        remove_file(copy.path())?;
        if fs::hard_link(&file, copy.path()).is_err() {
            println!("source: copying {}, which cannot be linked to", file.display());
            fs::copy(&file, copy.path()).map_err(Error::path("copy", &file))?;
        }
        Self::new(root, file.display().to_string(), Some(copy))
    }

    fn new(root: PathBuf, what: String, copy: Option<Removed>) -> Result<Self> {
        let path = root.join(NAME);
        let size = fs::metadata(&path).map_err(Error::path("read", &path))?.len();
        let sha256 = sha256(&path)?;
        Ok(Self { root, size, sha256, what, _copy: copy })
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.root.join(NAME)
    }
}

/// The SHA-256 of a file, in lower-case hex.
///
/// # Errors
/// If it cannot be read, or a signal arrives.
pub fn sha256(path: &Path) -> Result<String> {
    let failed = || Error::path("read", path);
    let mut file = File::open(path).map_err(failed())?;
    let bar = progress("hashing", file.metadata().map_or(0, |metadata| metadata.len()));
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        interrupt::check()?;
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => {
                hash.update(&chunk[..read]);
                bar.inc(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    bar.finish_and_clear();
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Describes where two files first differ. Empty if they do not, or cannot be read.
pub fn difference(sent: &Path, received: &Path) -> String {
    let (Ok(left), Ok(right)) = (File::open(sent), File::open(received)) else { return String::new() };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut offset = 0;
    loop {
        a.clear();
        b.clear();
        let limit = CHUNK as u64;
        let read = ((&left).take(limit).read_to_end(&mut a), (&right).take(limit).read_to_end(&mut b));
        if read.0.is_err() || read.1.is_err() || (a.is_empty() && b.is_empty()) {
            return String::new();
        }
        if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
            return format!("; the first difference is at byte {}", offset + at as u64);
        }
        offset += a.len().min(b.len()) as u64;
        if a.len() != b.len() {
            return format!("; only the first {offset} bytes are in both");
        }
    }
}

fn generate(path: &Path, size: u64) -> Result<()> {
    let failed = || Error::path("write", path);
    let mut file = File::create(path).map_err(failed())?;
    let bar = progress("making", size);
    let mut chunk = vec![0; CHUNK];
    let mut state = size;
    let mut left = size;
    while left > 0 {
        interrupt::check()?;
        fill(&mut state, &mut chunk);
        let now = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        file.write_all(&chunk[..now]).map_err(failed())?;
        left -= now as u64;
        bar.inc(now as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// SplitMix64: fast, and neither compressible nor mergeable by the kernel.
fn fill(state: &mut u64, chunk: &mut [u8]) {
    for word in chunk.chunks_exact_mut(8) {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
}

/// A progress bar on a terminal, nothing elsewhere.
fn progress(verb: &'static str, size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>8} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::new(size).with_prefix(verb);
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_seeded_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let size = CHUNK as u64 + 13;
        let first = Source::random(dir.path(), size).unwrap();
        let made = fs::metadata(first.file()).unwrap().modified().unwrap();
        let again = Source::random(dir.path(), size).unwrap();
        assert_eq!(fs::metadata(again.file()).unwrap().modified().unwrap(), made);
        assert_eq!((first.size, &first.sha256), (size, &again.sha256));
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(Source::random(elsewhere.path(), size).unwrap().sha256, first.sha256);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a partial file is left");
    }

    #[test]
    fn a_given_file_is_served_alone_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my file %.txt");
        fs::write(&file, "abc").unwrap();
        let source = Source::existing(&file, dir.path()).unwrap();
        assert_eq!(source.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fs::read_dir(&source.root).unwrap().count(), 1);
        let served = source.file();
        drop(source);
        assert!(file.exists() && !served.exists());
        assert!(Source::existing(dir.path(), dir.path()).unwrap_err().to_string().contains("is not a file"));
        let absent = dir.path().join("absent");
        assert!(Source::existing(&absent, dir.path()).unwrap_err().to_string().contains("absent"));
    }

    #[test]
    fn differences_are_placed() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let mut bytes = vec![0; CHUNK + 10];
        fs::write(&a, &bytes).unwrap();
        fs::write(&b, &bytes).unwrap();
        assert_eq!(difference(&a, &b), "");
        fs::write(&b, &bytes[..CHUNK + 3]).unwrap();
        assert_eq!(difference(&a, &b), format!("; only the first {} bytes are in both", CHUNK + 3));
        bytes[CHUNK + 5] = 1;
        fs::write(&b, &bytes).unwrap();
        assert_eq!(difference(&a, &b), format!("; the first difference is at byte {}", CHUNK + 5));
    }
}
