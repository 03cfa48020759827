//! Files are read and written on threads of their own: a poll loop never waits for a disk.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
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

/// Files that the reading thread has open at a time. A request whose client takes its time costs no descriptor then.
const MAX_OPEN: usize = 128;

/// A file that is being read.
struct Input {
    path: PathBuf,
    /// Which version of which file it is; that is read to its end or not at all.
    identity: [u64; 5],
    file: Option<File>,
}

impl Input {
    fn open(path: PathBuf) -> io::Result<(Self, u64)> {
        let file = File::open(&path)?;
        let meta = file.metadata()?;
        Ok((Self { path, identity: identity(&meta), file: Some(file) }, meta.len()))
    }

    /// The file, opened again if need be.
    fn file(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = File::open(&self.path)?;
                if identity(&file.metadata()?) != self.identity {
                    return Err(io::Error::other("the file was replaced while it was read"));
                }
                file
            }
        };
        Ok(self.file.insert(file))
    }
}

fn identity(meta: &std::fs::Metadata) -> [u64; 5] {
    use std::os::unix::fs::MetadataExt;
    [meta.dev(), meta.ino(), meta.len(), meta.mtime() as u64, meta.mtime_nsec() as u64]
}

/// The files that are being read. Not all of them are open: those that were opened first had to make room.
#[derive(Default)]
struct Inputs {
    files: HashMap<JobId, Input>,
    /// Those that are open, the one that was opened first in front.
    recent: VecDeque<JobId>,
}

impl Inputs {
    fn open(&mut self, job: JobId, path: PathBuf) -> io::Result<u64> {
        self.make_room();
        let (input, len) = Input::open(path)?;
        self.files.insert(job, input);
        self.recent.push_back(job);
        Ok(len)
    }

    fn fill(&mut self, job: JobId, offset: u64, buf: &mut PinnedBuf) -> Option<io::Result<()>> {
        let input = self.files.get_mut(&job)?;
        if input.file.is_none() {
            self.make_room();
            self.recent.push_back(job);
        }
        let input = self.files.get_mut(&job)?;
        Some(input.file().and_then(|file| file.read_exact_at(buf, offset)))
    }

    /// Closes files until one more may be open.
    fn make_room(&mut self) {
        while self.recent.len() >= MAX_OPEN
            && let Some(job) = self.recent.pop_front()
        {
            if let Some(input) = self.files.get_mut(&job) {
                input.file = None;
            }
        }
    }

    fn close(&mut self, job: JobId) {
        self.files.remove(&job);
        self.recent.retain(|open| *open != job);
    }
}

fn read_loop(todo: &Receiver<Read>, done: &Sender<Readout>) {
    let mut inputs = Inputs::default();
    for order in todo {
        let answer = match order {
            Read::Open { job, path } => match inputs.open(job, path) {
                Ok(len) => Readout::Opened { job, len },
                Err(error) => Readout::Failed { job, error },
            },
            Read::Fill { job, offset, mut buf } => match inputs.fill(job, offset, &mut buf) {
                Some(Ok(())) => Readout::Filled { job, buf },
                Some(Err(error)) => Readout::Failed { job, error },
                None => continue,
            },
            Read::Close { job } => {
                inputs.close(job);
                continue;
            }
        };
        if done.send(answer).is_err() {
            return;
        }
    }
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

/// The writing thread. Dropping this ends it: what was ordered and is not done is left, also when the other end of a
/// pipe takes nothing.
pub(super) struct Writer {
    orders: Option<Sender<Save>>,
    pub(super) answers: Receiver<Saved>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, todo) = unbounded();
        let (done, answers) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("gannet-write".into())
            .spawn(move || write_loop(&todo, &done, &stopped))?;
        Ok(Self { orders: Some(orders), answers, stop, thread: Some(thread) })
    }

    pub(super) fn order(&self, order: Save) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
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
    /// Not a regular file (a device, a pipe): written to as it is, without blocking.
    Direct(File),
    Nowhere,
}

impl Output {
    fn open(path: Option<PathBuf>, hash: bool, stop: &AtomicBool) -> Result<Self, (PathBuf, io::Error)> {
        let hash = hash.then(Sha256::new);
        let Some(path) = path else { return Ok(Self { path: PathBuf::new(), target: Target::Nowhere, hash }) };
        let special = std::fs::metadata(&path).ok().map(|m| m.file_type()).filter(|kind| !kind.is_file());
        let target = if let Some(kind) = special {
            open_direct(&path, kind.is_fifo(), stop).map(Target::Direct)
        } else {
            let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            tempfile::Builder::new().prefix(".gannet-").suffix(".part").tempfile_in(dir).map(Target::Temp)
        };
        match target {
            Ok(target) => Ok(Self { path, target, hash }),
            Err(error) => Err((path, error)),
        }
    }

    fn write(&mut self, bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        match &mut self.target {
            Target::Temp(file) => file.write_all(bytes),
            Target::Direct(file) => write_direct(file, bytes, stop),
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

/// How long the writing thread waits for the other end of a pipe before it looks whether it is still wanted.
const PIPE_WAIT: Duration = Duration::from_millis(20);

/// Opens a device or a pipe so that writing never blocks. A pipe without a reader is waited for.
fn open_direct(path: &Path, fifo: bool, stop: &AtomicBool) -> io::Result<File> {
    loop {
        match File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Err(error) if fifo && error.raw_os_error() == Some(libc::ENXIO) => {
                if stop.load(Ordering::Relaxed) {
                    return Err(error);
                }
                std::thread::sleep(PIPE_WAIT);
            }
            done => return done,
        }
    }
}

/// Writes all of `bytes` to what never blocks, at the pace of the other end, unless the thread is to stop.
fn write_direct(file: &mut File, mut bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(PIPE_WAIT.subsec_nanos()) };
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock || stop.load(Ordering::Relaxed) => {
                return Err(error);
            }
            Err(_) => match poll(&mut [PollFd::new(&*file, PollFlags::OUT)], Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    Ok(())
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

fn write_loop(todo: &Receiver<Save>, done: &Sender<Saved>, stop: &AtomicBool) {
    let mut outputs: HashMap<JobId, Output> = HashMap::new();
    for order in todo {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let answer = match order {
            Save::Open { job, path, hash } => match Output::open(path, hash, stop) {
                Ok(output) => {
                    outputs.insert(job, output);
                    continue;
                }
                Err((path, error)) => Saved::Failed { job, path, error },
            },
            Save::Data { job, buf, skip, valid } => {
                let result = outputs.get_mut(&job).map(|output| output.write(&buf[skip..valid], stop));
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

    /// The other end of a pipe may be there and read nothing, or not be there at all.
    #[test]
    fn a_pipe_that_takes_nothing_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        for reads in [false, true] {
            let _reader = reads.then(|| File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap());
            let writer = Writer::start().unwrap();
            writer.order(Save::Open { job: 1, path: Some(path.clone()), hash: false });
            writer.order(Save::Data { job: 1, buf: buf(&[1; 4 << 20]), skip: 0, valid: 4 << 20 });
            drop(writer);
        }
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
    #[test]
    fn more_files_are_read_than_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut inputs = Inputs::default();
        let count = 3 * MAX_OPEN as u64;
        for job in 0..count {
            let path = dir.path().join(job.to_string());
            std::fs::write(&path, [job as u8; 10]).unwrap();
            assert_eq!(inputs.open(job, path).unwrap(), 10);
        }
        let open = |inputs: &Inputs| inputs.files.values().filter(|input| input.file.is_some()).count();
        assert_eq!(open(&inputs), MAX_OPEN);
        for round in 0..2 {
            for job in 0..count {
                let mut buf = PinnedBuf::unpinned(5);
                inputs.fill(job, 5 * round, &mut buf).unwrap().unwrap();
                assert_eq!(buf[..], [job as u8; 5]);
                assert!(open(&inputs) <= MAX_OPEN);
            }
        }
        // What was replaced while it was closed is another file.
        std::fs::remove_file(dir.path().join("0")).unwrap();
        std::fs::write(dir.path().join("0"), [7; 11]).unwrap();
        assert!(inputs.fill(0, 0, &mut PinnedBuf::unpinned(5)).unwrap().is_err());
        (0..count).for_each(|job| inputs.close(job));
        assert!(inputs.files.is_empty() && inputs.recent.is_empty());
        assert!(inputs.fill(0, 0, &mut PinnedBuf::unpinned(5)).is_none());
    }
}
