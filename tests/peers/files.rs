//! Files to move about, and their hashes.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file of random-looking bytes.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

impl Sample {
    /// Writes `len` bytes into `dir`/`name`. Same seed, same bytes.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn new(dir: &Path, name: &str, len: u64, seed: u64) -> Self {
        let path = dir.join(name);
        let fill = || -> std::io::Result<String> {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            let (mut hash, mut state, mut left) = (Sha256::new(), seed, len);
            let mut block = [0; 8192];
            while left > 0 {
                block.as_chunks_mut::<8>().0.iter_mut().for_each(|word| *word = split_mix(&mut state).to_le_bytes());
                let part = &block[..left.min(8192) as usize];
                hash.update(part);
                file.write_all(part)?;
                left -= part.len() as u64;
            }
            file.flush()?;
            Ok(hex(&hash.finalize()))
        };
        let sha256 = fill().unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        Self { path, sha256 }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|n| n.to_str()).expect("a name in UTF-8")
    }

    /// Asserts that the file at `path` holds the same bytes.
    #[track_caller]
    pub fn assert_same(&self, path: &Path) {
        assert_eq!(sha256_of(path), self.sha256, "{} differs from {}", path.display(), self.path.display());
    }
}

/// SHA-256 of the file at `path`, hexadecimal.
///
/// # Panics
/// When the file cannot be read.
pub fn sha256_of(path: &Path) -> String {
    let digest = || -> std::io::Result<String> {
        let (mut file, mut hash, mut block) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
        loop {
            match file.read(&mut block)? {
                0 => return Ok(hex(&hash.finalize())),
                n => hash.update(&block[..n]),
            }
        }
    };
    digest().unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Names of the files in `dir`, sorted.
///
/// # Panics
/// When it cannot be read.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot read {}: {e}", dir.display()));
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// One step of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
