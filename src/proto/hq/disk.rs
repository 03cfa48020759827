//! Files are read and written on threads of their own: a poll loop never waits for a disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::mem::PinnedBuf;

/// Names one file that is being read or written.
pub(super) type JobId = u64;

/// An order to the reading thread.
pub(super) enum Read {
    Open {
        job: JobId,
        path: PathBuf,
    },
    /// Fill `buf` with the bytes at `offset`; its length says how many.
    Fill {
        job: JobId,
        offset: u64,
        buf: PinnedBuf,
    },
    Close {
        job: JobId,
    },
}

/// What the reading thread answers.
pub(super) enum Readout {
    Opened { job: JobId, len: u64 },
    Filled { job: JobId, buf: PinnedBuf },
    Failed { job: JobId, error: io::Error },
}

/// The reading thread.
pub(super) struct Reader {
    pub(super) orders: Option<Sender<Read>>,
    pub(super) answers: Receiver<Readout>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, todo) = unbounded();
        let (done, answers) = unbounded();
        let thread = std::thread::Builder::new().name("gannet-read".into()).spawn(move || read_loop(&todo, &done))?;
        Ok(Self { orders: Some(orders), answers, thread: Some(thread) })
    }

    pub(super) fn order(&self, order: Read) {
        if let Some(orders) = &self.orders {
            // The thread only ends when this end of the channel is gone.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_loop(todo: &Receiver<Read>, done: &Sender<Readout>) {
    let mut files: HashMap<JobId, File> = HashMap::new();
    for order in todo {
        let answer = match order {
            Read::Open { job, path } => match open(&path) {
                Ok((file, len)) => {
                    files.insert(job, file);
                    Readout::Opened { job, len }
                }
                Err(error) => Readout::Failed { job, error },
            },
            Read::Fill { job, offset, mut buf } => {
                let Some(file) = files.get(&job) else { continue };
                match file.read_exact_at(&mut buf, offset) {
                    Ok(()) => Readout::Filled { job, buf },
                    Err(error) => Readout::Failed { job, error },
                }
            }
            Read::Close { job } => {
                files.remove(&job);
                continue;
            }
        };
        if done.send(answer).is_err() {
            return;
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// An order to the writing thread.
pub(super) enum Save {
    /// Start a file; `None` only hashes.
    Open { job: JobId, path: Option<PathBuf>, hash: bool },
    /// Bytes `skip..valid` of `buf` come next.
    Data { job: JobId, buf: PinnedBuf, skip: usize, valid: usize },
    /// Everything is there: give the file its name.
    Finish { job: JobId },
    /// Forget it; nothing is left behind.
    Abort { job: JobId },
}

/// What the writing thread answers.
pub(super) enum Saved {
    /// A buffer is free again.
    Free(PinnedBuf),
    Done {
        job: JobId,
        sha256: Option<String>,
    },
    Failed {
        job: JobId,
        path: PathBuf,
        error: io::Error,
    },
}

/// The writing thread.
pub(super) struct Writer {
    orders: Option<Sender<Save>>,
    pub(super) answers: Receiver<Saved>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, todo) = unbounded();
        let (done, answers) = unbounded();
        let thread = std::thread::Builder::new().name("gannet-write".into()).spawn(move || write_loop(&todo, &done))?;
        Ok(Self { orders: Some(orders), answers, thread: Some(thread) })
    }

    pub(super) fn order(&self, order: Save) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One file on its way.
struct Output {
    path: PathBuf,
    target: Target,
    hash: Option<Sha256>,
}

enum Target {
    /// Beside its final place; renamed when complete, removed when dropped before.
    Temp(NamedTempFile),
    /// Not a regular file (a device, a pipe): written to as it is.
    Direct(File),
    Nowhere,
}

impl Output {
    fn open(path: Option<PathBuf>, hash: bool) -> Result<Self, (PathBuf, io::Error)> {
        let hash = hash.then(Sha256::new);
        let Some(path) = path else { return Ok(Self { path: PathBuf::new(), target: Target::Nowhere, hash }) };
        let special = std::fs::metadata(&path).is_ok_and(|m| !m.is_file());
        let target = if special {
            File::options().write(true).open(&path).map(Target::Direct)
        } else {
            let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            tempfile::Builder::new().prefix(".gannet-").suffix(".part").tempfile_in(dir).map(Target::Temp)
        };
        match target {
            Ok(target) => Ok(Self { path, target, hash }),
            Err(error) => Err((path, error)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        match &mut self.target {
            Target::Temp(file) => file.write_all(bytes),
            Target::Direct(file) => file.write_all(bytes),
            Target::Nowhere => Ok(()),
        }
    }

    fn finish(self) -> Result<Option<String>, (PathBuf, io::Error)> {
        if let Target::Temp(file) = self.target {
            set_usual_mode(file.as_file());
            file.persist(&self.path).map_err(|e| (self.path.clone(), e.error))?;
        }
        Ok(self.hash.map(|h| hex(&h.finalize())))
    }
}

/// Temporary files are private; a finished download is as readable as the user's other files.
fn set_usual_mode(file: &File) {
    use std::os::unix::fs::PermissionsExt;
    // A file system without modes keeps what it has.
    let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn write_loop(todo: &Receiver<Save>, done: &Sender<Saved>) {
    let mut outputs: HashMap<JobId, Output> = HashMap::new();
    for order in todo {
        let answer = match order {
            Save::Open { job, path, hash } => match Output::open(path, hash) {
                Ok(output) => {
                    outputs.insert(job, output);
                    continue;
                }
                Err((path, error)) => Saved::Failed { job, path, error },
            },
            Save::Data { job, buf, skip, valid } => {
                let result = outputs.get_mut(&job).map(|output| output.write(&buf[skip..valid]));
                if done.send(Saved::Free(buf)).is_err() {
                    return;
                }
                match result {
                    Some(Err(error)) => {
                        let path = outputs.remove(&job).map(|o| o.path).unwrap_or_default();
                        Saved::Failed { job, path, error }
                    }
                    _ => continue,
                }
            }
            Save::Finish { job } => match outputs.remove(&job).map(Output::finish) {
                Some(Ok(sha256)) => Saved::Done { job, sha256 },
                Some(Err((path, error))) => Saved::Failed { job, path, error },
                None => continue,
            },
            Save::Abort { job } => {
                outputs.remove(&job);
                continue;
            }
        };
        if done.send(answer).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buf(bytes: &[u8]) -> PinnedBuf {
        let mut buf = PinnedBuf::unpinned(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::start().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        writer.order(Save::Open { job: 1, path: path("a"), hash: true });
        writer.order(Save::Open { job: 2, path: path("b"), hash: false });
        writer.order(Save::Data { job: 1, buf: buf(b"xxabc"), skip: 2, valid: 5 });
        writer.order(Save::Data { job: 2, buf: buf(b"half"), skip: 0, valid: 4 });
        writer.order(Save::Finish { job: 1 });
        writer.order(Save::Abort { job: 2 });
        writer.order(Save::Open { job: 3, path: path("no/such/dir"), hash: false });
        let mut done = 0;
        for answer in writer.answers.iter().take(4) {
            match answer {
                Saved::Free(_) => done += 1,
                Saved::Done { job, sha256 } => {
                    assert_eq!(job, 1);
                    let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
                    assert_eq!(sha256.as_deref(), Some(want));
                }
                Saved::Failed { job, path, .. } => assert!(job == 3 && path.ends_with("no/such/dir")),
            }
        }
        assert_eq!(done, 2);
        drop(writer);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["a"]);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn a_full_disk_is_told() {
        let writer = Writer::start().unwrap();
        writer.order(Save::Open { job: 1, path: Some("/dev/full".into()), hash: false });
        writer.order(Save::Data { job: 1, buf: buf(&[1; 100]), skip: 0, valid: 100 });
        let answers: Vec<_> = writer.answers.iter().take(2).collect();
        assert!(matches!(&answers[0], Saved::Free(_)));
        let Saved::Failed { path, error, .. } = &answers[1] else { panic!() };
        assert_eq!((path.to_str(), error.kind()), (Some("/dev/full"), io::ErrorKind::StorageFull));
    }

    #[test]
    fn reads_pieces_and_reports_what_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let reader = Reader::start().unwrap();
        reader.order(Read::Open { job: 7, path });
        reader.order(Read::Fill { job: 7, offset: 4, buf: PinnedBuf::unpinned(3) });
        reader.order(Read::Fill { job: 7, offset: 9, buf: PinnedBuf::unpinned(3) });
        reader.order(Read::Open { job: 8, path: dir.path().join("none") });
        let answers: Vec<_> = reader.answers.iter().take(4).collect();
        assert!(matches!(answers[0], Readout::Opened { job: 7, len: 10 }));
        assert!(matches!(&answers[1], Readout::Filled { buf, .. } if &buf[..] == b"456"));
        assert!(matches!(&answers[2], Readout::Failed { job: 7, .. }), "the file has become shorter");
        assert!(matches!(&answers[3], Readout::Failed { job: 8, .. }));
    }
}
