//! Files being written.

use std::fs::{File, FileType, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::base::hex;
use crate::proto::hq::PathError;

/// The destination of bytes.
#[derive(Clone, Debug)]
pub(in crate::proto::hq) enum Sink {
    /// Nowhere: they are only counted and hashed.
    Nowhere,
    /// Standard output.
    Stdout,
    /// A path chosen by the user. An existing device or pipe is written to directly.
    Path(PathBuf),
    /// A regular file only.
    Regular(PathBuf),
}

impl Sink {
    /// The name in messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Nowhere => Path::new(""),
            Self::Stdout => Path::new("standard output"),
            Self::Path(path) | Self::Regular(path) => path,
        }
    }
}

/// A file being written.
pub(super) struct Output {
    path: PathBuf,
    target: Target,
    hash: Option<Sha256>,
}

enum Target {
    /// A temporary file next to the final path; renamed when complete, removed if dropped before.
    Temp(NamedTempFile, PathBuf),
    /// Written to directly, in pieces of at most this size, which do not block once it is ready.
    Direct(File, usize),
    Nowhere,
}

impl Output {
    pub(super) fn open(sink: Sink, hash: bool, closed: &AtomicBool) -> Result<Self, PathError> {
        let hash = hash.then(Sha256::new);
        let path = sink.path().to_owned();
        let target = match sink {
            Sink::Nowhere => Target::Nowhere,
            Sink::Stdout => stdout()?,
            Sink::Path(path) => choose(path, closed)?,
            Sink::Regular(path) => {
                // Do not follow links: uploads must not be written through them.
                match std::fs::symlink_metadata(&path) {
                    Ok(meta) if !meta.is_file() => return Err(PathError::Outside),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
                temp(path)?
            }
        };
        Ok(Self { path, target, hash })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes`. Stops if the job is `closed` while it waits for a pipe's reader.
    pub(super) fn write(&mut self, bytes: &[u8], closed: &AtomicBool) -> io::Result<()> {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        match &mut self.target {
            Target::Temp(file, _) => file.write_all(bytes),
            Target::Direct(file, most) => write_direct(file, *most, bytes, closed),
            Target::Nowhere => Ok(()),
        }
    }

    /// Gives the file its name. Returns the SHA-256 of its contents in hexadecimal, if requested.
    pub(super) fn finish(self) -> io::Result<Option<String>> {
        if let Target::Temp(file, path) = self.target {
            file.persist(path).map_err(|e| e.error)?;
        }
        Ok(self.hash.map(|h| hex::encode(&h.finalize())))
    }
}

/// Opens a path chosen by the user. A symbolic link is followed, and the file it points to is replaced.
fn choose(path: PathBuf, closed: &AtomicBool) -> io::Result<Target> {
    let real = match std::fs::canonicalize(&path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return temp(path),
        Err(error) => return Err(error),
    };
    let kind = std::fs::metadata(&path)?.file_type();
    if kind.is_file() {
        temp(real)
    } else {
        open_direct(&path, kind, closed).map(|file| Target::Direct(file, usize::MAX))
    }
}

/// Creates a temporary file next to `path`, with permissions according to the umask.
fn temp(path: PathBuf) -> io::Result<Target> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().prefix(".gannet-").suffix(".part").permissions(mode).tempfile_in(dir)?;
    Ok(Target::Temp(file, path))
}

/// The number of bytes that a pipe accepts without blocking once it is ready (POSIX: PIPE_BUF), as does a terminal.
const PIPE_BUF: usize = 4096;

/// Standard output. It may be shared with other processes, so it must not be made non-blocking.
fn stdout() -> io::Result<Target> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let most = if file.metadata()?.is_file() { usize::MAX } else { PIPE_BUF };
    Ok(Target::Direct(file, most))
}

/// How long a thread waits for the other end of a pipe before it checks whether the job is closed.
const PIPE_WAIT: Duration = Duration::from_millis(20);

/// How often to try to open a pipe that has no reader: for 10 s.
const PIPE_TRIES: u32 = 500;

/// Opens a device or a pipe so that writing never blocks. Waits for a pipe's reader, with a limit.
fn open_direct(path: &Path, kind: FileType, closed: &AtomicBool) -> io::Result<File> {
    for _ in 0..PIPE_TRIES {
        match File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
            Err(error) if kind.is_fifo() && error.raw_os_error() == Some(libc::ENXIO) => {
                if closed.load(Ordering::Relaxed) {
                    return Err(error);
                }
                std::thread::sleep(PIPE_WAIT);
            }
            done => return done,
        }
    }
    let waited = PIPE_WAIT * PIPE_TRIES;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("nobody has opened the pipe for reading within {waited:?}")))
}

/// Writes all of `bytes` at the reader's pace, at most `most` at a time, unless the job is closed.
fn write_direct(file: &mut File, most: usize, mut bytes: &[u8], closed: &AtomicBool) -> io::Result<()> {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(PIPE_WAIT.subsec_nanos()) };
    while !bytes.is_empty() {
        match poll(&mut [PollFd::new(&*file, PollFlags::OUT)], Some(&wait)) {
            Ok(0) | Err(Errno::INTR) => {
                if closed.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                continue;
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match file.write(&bytes[..bytes.len().min(most)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                if closed.load(Ordering::Relaxed) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
