//! A key log file in the NSS format, for packet analysers.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gannet::base::aside::Aside;
use gannet::base::hex;

/// The maximum number of secrets that wait to be written: those of some 200 handshakes.
const ROOM: usize = 1024;

/// How long shutdown waits for secrets to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Secrets lost because the file could not be written, or not fast enough.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The number of lost secrets.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Appends secrets to a file from a thread of its own, so that the poll loop never waits for it.
#[derive(Debug)]
pub struct KeyLogFile(Aside<String>);

impl KeyLogFile {
    /// Opens `path` for appending.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
        let name = path.display().to_string();
        let mut failed = false;
        Aside::start("gannet-keylog", ROOM, move |line: String| {
            if let Err(error) = file.write_all(line.as_bytes()) {
                LOST.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(file = name, %error, "cannot write to the key log");
                }
            }
        })
        .map(Self)
    }
}

impl Drop for KeyLogFile {
    fn drop(&mut self) {
        if !self.0.finish(PATIENCE) {
            tracing::warn!(missing = self.0.waiting(), "the key log is incomplete");
        }
    }
}

impl rustls::KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex::encode(client_random), hex::encode(secret));
        if self.0.offer(line).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::KeyLog;

    use super::*;

    #[test]
    fn all_is_written_in_the_end_and_a_full_disk_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let log = KeyLogFile::open(&path).unwrap();
        (0..200).for_each(|n| log.log("CLIENT_RANDOM", &[n], &[0xab]));
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.lines().next()), (200, Some("CLIENT_RANDOM 00 ab")));
        let log = KeyLogFile::open(Path::new("/dev/full")).unwrap();
        log.log("CLIENT_RANDOM", &[1], &[2]);
        drop(log);
        assert_eq!(lost(), 1);
    }
}
