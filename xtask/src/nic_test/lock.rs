//! One run at a time: two would unpack into the same directory, and take each other's CPUs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::interrupt::pause;

/// How often a process that waits tries again.
const AGAIN: Duration = Duration::from_millis(100);

/// The right to use a directory, until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the right to use `dir`, and says so if another process has it.
    ///
    /// # Errors
    /// If there is no such directory, or a signal arrives.
    pub fn take(dir: &Path) -> Result<Self> {
        let mut told = false;
        loop {
            match Self::attempt(dir)? {
                Ok(lock) => return Ok(lock),
                Err(holder) if !told => {
                    println!("nic-test: waiting for {holder}, which uses {}", dir.display());
                    told = true;
                }
                Err(_) => {}
            }
            pause(AGAIN)?;
        }
    }

    /// The lock, or who has it.
    fn attempt(dir: &Path) -> Result<std::result::Result<Self, String>> {
        let path = dir.join("lock");
        let failed = || Error::path("lock", &path);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What another process is writing at this moment may be unreadable.
                let _ = file.read_to_string(&mut holder);
                return Ok(Err(if holder.is_empty() { "another process".into() } else { holder }));
            }
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
        let holder = format!("process {}", std::process::id());
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(failed())?;
        Ok(Ok(Self { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let holder = Lock::attempt(dir.path()).unwrap().unwrap_err();
        assert_eq!(holder, format!("process {}", std::process::id()));
        let waiting = dir.path().to_owned();
        let second = std::thread::spawn(move || Lock::take(&waiting).map(drop));
        drop(first);
        second.join().unwrap().unwrap();
        // The lock of a process that has ended holds nobody up.
        assert!(dir.path().join("lock").exists());
        Lock::attempt(dir.path()).unwrap().unwrap();
        assert!(Lock::take(&dir.path().join("absent")).is_err());
    }
}
