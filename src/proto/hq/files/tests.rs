//! The file threads' guarantees, on real files and on simulated slow disks.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Condvar, Mutex};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;

/// No answer takes longer, even on a slow machine.
const LONG: Duration = Duration::from_secs(120);

/// A disk that blocks on paths that end in "stuck" until released.
#[derive(Default)]
pub(in crate::proto::hq) struct StuckDisk {
    free: Mutex<bool>,
    change: Condvar,
    /// The number of accesses that have been blocked.
    pub(in crate::proto::hq) stuck: std::sync::atomic::AtomicUsize,
}

impl StuckDisk {
    /// The delay function of this disk.
    pub(in crate::proto::hq) fn delay(self: &Arc<Self>) -> Delay {
        let disk = self.clone();
        Arc::new(move |path: &Path| {
            if path.as_os_str().as_encoded_bytes().ends_with(b"stuck") {
                disk.stuck.fetch_add(1, Ordering::SeqCst);
                let mut free = disk.free.lock().unwrap();
                while !*free {
                    free = disk.change.wait(free).unwrap();
                }
            }
        })
    }

    /// Releases all accesses.
    pub(in crate::proto::hq) fn release(&self) {
        *self.free.lock().unwrap() = true;
        self.change.notify_all();
    }
}

fn buf(bytes: &[u8]) -> PinnedBuf {
    let mut buf = PinnedBuf::unpinned(bytes.len());
    buf.copy_from_slice(bytes);
    buf
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn files() -> Files {
    Files::start(None, None).unwrap()
}

/// Waits for the next answer.
#[track_caller]
fn next(files: &mut Files) -> Answer {
    let answer = files.answers.recv_timeout(LONG).expect("an answer");
    if let Some(job) = files.jobs.get_mut(&answer.job()) {
        job.open -= 1;
    }
    answer
}

/// Ends the threads, none of which is blocked. On a busy machine that can take longer than [`EXIT_WAIT`].
#[track_caller]
fn end(files: Files) {
    let shared = files.pool.shared.clone();
    drop(files);
    for _ in 0..LONG.as_millis() {
        if shared.threads.load(Ordering::SeqCst) == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("a thread is still waiting");
}

fn create(files: &mut Files, job: JobId, sink: Sink) {
    files.order(at(0), job, Order::Create { sink, hash: true });
}

fn data(files: &mut Files, job: JobId, bytes: &[u8]) {
    files.order(at(0), job, Order::Data { buf: buf(bytes), skip: 0, valid: bytes.len() });
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = files();
    let path = |name: &str| Sink::Path(dir.path().join(name));
    create(&mut files, 1, path("a"));
    create(&mut files, 2, path("b"));
    files.order(at(0), 1, Order::Data { buf: buf(b"xxabc"), skip: 2, valid: 5 });
    data(&mut files, 2, b"half");
    files.order(at(0), 1, Order::Finish);
    create(&mut files, 3, path("no/such/dir"));
    let (mut saved, mut failed) = (0, 0);
    for _ in 0..6 {
        match next(&mut files) {
            Answer::Saved { job, sha256 } => {
                let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
                assert_eq!((job, sha256.as_deref()), (1, Some(want)));
                saved += 1;
            }
            Answer::Failed { job, path, .. } => {
                assert!(job == 3 && path.ends_with("no/such/dir"));
                failed += 1;
            }
            answer => assert!(matches!(answer, Answer::Created { .. } | Answer::Written { .. })),
        }
    }
    assert_eq!((saved, failed), (1, 1));
    end(files);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["a"]);
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"abc");
}

#[test]
fn a_full_disk_is_told_and_the_buffer_comes_back() {
    let mut files = files();
    create(&mut files, 1, Sink::Path("/dev/full".into()));
    data(&mut files, 1, &[1; 100]);
    assert!(matches!(next(&mut files), Answer::Created { job: 1 }));
    let Answer::Failed { path, error: PathError::Io(error), buf: Some((buf, 100)), .. } = next(&mut files) else {
        panic!()
    };
    assert_eq!((path.to_str(), error.kind(), buf.len()), (Some("/dev/full"), io::ErrorKind::StorageFull, 100));
}

/// Every download used to have mode 644, whatever the umask.
#[test]
fn new_files_are_as_readable_as_the_umask_lets_them_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = files();
    for (umask, mode) in [(0o077, 0o600), (0o002, 0o664)] {
        let before = rustix::process::umask(Mode::from_raw_mode(umask));
        let sinks = [Sink::Path(dir.path().join("a")), Sink::Regular(dir.path().join("b"))];
        for (job, sink) in sinks.into_iter().enumerate() {
            create(&mut files, job as u64, sink);
            files.order(at(0), job as u64, Order::Finish);
        }
        (0..4).for_each(|_| drop(next(&mut files)));
        rustix::process::umask(before);
        for name in ["a", "b"] {
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, mode, "{umask:o}");
        }
    }
}

/// Downloads replace the target of a link; uploads follow no links. `-o /dev/stdout > file` used to replace the link in
/// /dev by a file.
#[test]
fn links_stay_links() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut files = files();
    create(&mut files, 1, Sink::Path(link.clone()));
    data(&mut files, 1, b"new");
    files.order(at(0), 1, Order::Finish);
    (0..3).for_each(|_| drop(next(&mut files)));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), b"new");
    create(&mut files, 2, Sink::Regular(link));
    assert!(matches!(next(&mut files), Answer::Failed { job: 2, error: PathError::Outside, .. }));
}

/// A pipe's reader may read nothing, or be absent: shutdown waits for neither.
#[test]
fn a_pipe_that_takes_nothing_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    mkfifoat(CWD, &path, Mode::RWXU).unwrap();
    for reads in [false, true] {
        let _reader = reads.then(|| File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap());
        let mut files = files();
        create(&mut files, 1, Sink::Path(path.clone()));
        data(&mut files, 1, &[1; 4 << 20]);
        // Another job is not delayed.
        create(&mut files, 2, Sink::Path(dir.path().join(format!("other-{reads}"))));
        files.order(at(0), 2, Order::Finish);
        while !matches!(next(&mut files), Answer::Saved { job: 2, .. }) {}
        end(files);
    }
}

/// A pipe in the upload directory must not be written to; it used to be opened.
#[test]
fn uploads_make_regular_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let _reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    let mut files = files();
    for (job, name) in ["pipe", "dir", "socket"].into_iter().enumerate() {
        create(&mut files, job as u64, Sink::Regular(dir.path().join(name)));
        let answer = next(&mut files);
        assert!(matches!(answer, Answer::Failed { error: PathError::Outside, .. }), "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

fn open(files: &mut Files, job: JobId, root: &Root, name: &str) {
    files.order(at(0), job, Order::Open { root: root.clone(), path: name.into() });
}

#[test]
fn reads_pieces_and_reports_what_fails() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), b"0123456789").unwrap();
    let root = Root::new(dir.path()).unwrap();
    let mut files = files();
    open(&mut files, 7, &root, "f");
    files.order(at(0), 7, Order::Fill { offset: 4, buf: PinnedBuf::unpinned(3) });
    files.order(at(0), 7, Order::Fill { offset: 9, buf: PinnedBuf::unpinned(3) });
    let answers: Vec<_> = (0..3).map(|_| next(&mut files)).collect();
    assert!(matches!(answers[0], Answer::Opened { job: 7, len: 10 }));
    assert!(matches!(&answers[1], Answer::Filled { buf, .. } if &buf[..] == b"456"));
    assert!(matches!(&answers[2], Answer::Failed { job: 7, .. }), "the file has become shorter");
    open(&mut files, 8, &root, "none");
    assert!(matches!(next(&mut files), Answer::Failed { job: 8, error: PathError::Missing, .. }));
}

#[test]
fn more_files_are_read_than_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path()).unwrap();
    let mut files = files();
    let count = 3 * worker::MAX_OPEN as u64;
    // Only descriptors of these files: other tests have their own.
    let open_now = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|e| fs::read_link(e.ok()?.path()).ok());
        links.filter(|target| target.starts_with(root.dir())).count()
    };
    for job in 0..count {
        fs::write(dir.path().join(job.to_string()), [job as u8; 10]).unwrap();
        open(&mut files, job, &root, &job.to_string());
        assert!(matches!(next(&mut files), Answer::Opened { len: 10, .. }));
    }
    assert_eq!(open_now(), worker::MAX_OPEN);
    for round in 0..2 {
        for job in 0..count {
            files.order(at(0), job, Order::Fill { offset: 5 * round, buf: PinnedBuf::unpinned(5) });
            assert!(matches!(next(&mut files), Answer::Filled { buf, .. } if buf[..] == [job as u8; 5]));
        }
        assert!(open_now() <= worker::MAX_OPEN + THREADS);
    }
    // A file that was replaced while closed is a different one.
    fs::remove_file(dir.path().join("0")).unwrap();
    fs::write(dir.path().join("0"), [7; 11]).unwrap();
    files.order(at(0), 0, Order::Fill { offset: 0, buf: PinnedBuf::unpinned(5) });
    assert!(matches!(next(&mut files), Answer::Failed { job: 0, .. }));
    end(files);
    assert_eq!(open_now(), 0);
}

/// Blocked files keep their threads, more than there are at first. All others proceed, and the jobs of blocked files
/// are overdue exactly when their time is up.
#[test]
fn stuck_files_hold_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path()).unwrap();
    for name in ["a", "stuck"] {
        fs::write(dir.path().join(name), "content").unwrap();
    }
    let disk = Arc::new(StuckDisk::default());
    let mut files = Files::start(Some(Duration::from_secs(20)), Some(disk.delay())).unwrap();
    let stuck = 2 * THREADS as u64;
    (0..stuck).for_each(|job| open(&mut files, job, &root, "stuck"));
    open(&mut files, 100, &root, "a");
    // With a simulated clock: at each check without progress, another thread is started.
    let mut now = 0;
    let answer = loop {
        now += 60;
        files.tend(at(now));
        if let Some(answer) = files.answer(at(now)) {
            break answer;
        }
        std::thread::yield_now();
        if files.threads() as u64 > stuck {
            break next(&mut files);
        }
    };
    assert!(matches!(answer, Answer::Opened { job: 100, len: 7 }));
    assert_eq!(files.overdue(at(19_999)), None);
    let mut late: Vec<_> = std::iter::from_fn(|| files.overdue(at(20_000))).collect();
    late.sort_unstable();
    assert_eq!(late, (0..stuck).collect::<Vec<_>>());
    // Their answers come too late.
    disk.release();
    files.close(100);
    drop(files);
}

/// A file that makes progress, however slowly, is not overdue.
#[test]
fn the_clock_starts_anew_with_each_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::start(Some(Duration::from_secs(20)), None).unwrap();
    create(&mut files, 1, Sink::Path(dir.path().join("a")));
    data(&mut files, 1, b"x");
    let answer = |files: &mut Files, now| {
        for _ in 0..1_000_000 {
            if let Some(answer) = files.answer(now) {
                return answer;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        panic!("no answer");
    };
    assert!(matches!(answer(&mut files, at(15_000)), Answer::Created { .. }));
    assert_eq!(files.overdue(at(34_999)), None, "it was heard of at 15 s");
    assert!(matches!(answer(&mut files, at(34_999)), Answer::Written { .. }));
    assert_eq!(files.overdue(at(100_000)), None, "nothing is ordered");
    files.order(at(200_000), 1, Order::Finish);
    assert_eq!(files.overdue(at(219_999)), None);
}

/// The number of threads is bounded, and so is the wait for them at the end.
#[test]
fn no_end_waits_for_a_stuck_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path()).unwrap();
    fs::write(dir.path().join("stuck"), "content").unwrap();
    let disk = Arc::new(StuckDisk::default());
    let mut files = Files::start(None, Some(disk.delay())).unwrap();
    let many = 2 * MAX_THREADS as u64;
    (0..many).for_each(|job| open(&mut files, job, &root, "stuck"));
    let shared = files.pool.shared.clone();
    let threads = || shared.threads.load(Ordering::SeqCst);
    let stuck = || disk.stuck.load(Ordering::SeqCst);
    let mut now = 0;
    while stuck() < MAX_THREADS {
        now += 60;
        files.tend(at(now));
        std::thread::sleep(Duration::from_micros(100));
    }
    // Further requests start no more threads.
    for _ in 0..10 {
        now += 60;
        files.tend(at(now));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((threads(), stuck()), (MAX_THREADS, MAX_THREADS));
    drop(files);
    // All are still blocked: nobody has waited for them.
    assert_eq!(stuck(), MAX_THREADS);
    disk.release();
}

/// With as many loops as threads, each loop used to have a single thread and no replacement for it.
#[test]
fn a_stuck_file_delays_no_other_of_any_loop() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path()).unwrap();
    for name in ["a", "stuck"] {
        fs::write(dir.path().join(name), "content").unwrap();
    }
    let disk = Arc::new(StuckDisk::default());
    let mut all = Files::start_for(MAX_THREADS, None, Some(disk.delay())).unwrap();
    open(&mut all[0], 1, &root, "stuck");
    while disk.stuck.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    for files in &mut all {
        open(files, 2, &root, "a");
        assert!(matches!(next(files), Answer::Opened { job: 2, .. }));
    }
    disk.release();
}
