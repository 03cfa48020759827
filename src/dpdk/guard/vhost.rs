//! Guards the vhost-user library against its peers.
//!
//! The library reads as much as a header announces and blocks until it arrives, on the one thread that serves all
//! sockets and that closing a port waits for; and a second connection to a socket takes the port away from the first.
//! So reads and writes time out, whichever side connected, and a second connection is refused.
//!
//! It also leaks files (22.11 to 25.11): the file of a memory region that it cannot map, and files of a message that it
//! rejects before its handler is called. So all files that a peer sends are recorded, and removed from the record when
//! the library closes them. The rest is closed here once the library has finished with the connection.
//!
//! # Why no other file is closed
//! A descriptor is recorded from before the library sees it until the library closes it or its peer is gone. All that
//! time the file is open, so the kernel does not reuse the number. It is closed here when the library can no longer
//! refer to it: after the connection was closed (22.11 does this before it releases the device's resources, 24.11
//! afterwards), and after the same thread has returned to waiting for events, returned from closing the port, or ended
//! (24.11.6 ends its thread with the last port). At that time both the connection and its device belong to one thread
//! (`busy` in `fd_man.c`). Files that the driver `net_vhost` and EAL close themselves are not affected.
//!
//! As a safeguard, a file with a different device or inode is left open. The inode of a FUSE file is whatever its
//! server says, so a peer that has mounted one can make us leave files open.

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use libc::{msghdr, sockaddr, socklen_t, ssize_t};

use super::super::log;
use super::{peers, plt};

/// How long the library may wait for the rest of a message, or for room for an answer.
static WAIT: libc::timeval = libc::timeval { tv_sec: 0, tv_usec: 200_000 };

/// The maximum number of open files per peer. The library keeps those of eight memory regions, two for each of 256
/// rings (`VHOST_MAX_VRING`), and two more; up to eight come with the message that is being handled.
const FILES: usize = 8 + 2 * 256 + 2 + 8;

/// Identifies a file, to tell it from another one that gets the same descriptor later.
type Identity = (libc::dev_t, libc::ino_t);

/// A connection that the library has open.
struct Peer {
    /// The socket that it was accepted on.
    path: PathBuf,
    /// Files that it has sent and the library has not closed.
    files: HashMap<RawFd, Identity>,
}

#[derive(Default)]
struct State {
    open: HashMap<RawFd, Peer>,
    /// Files of closed connections, with the number of the thread on which they were closed.
    left: Vec<(u64, HashMap<RawFd, Identity>)>,
}

/// A thread on which the library has closed a connection. When the thread ends, the library has finished with the
/// connection.
struct Here(u64);

impl Drop for Here {
    fn drop(&mut self) {
        reap_of(self.0);
    }
}

thread_local!(static HERE: Here = {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Here(NEXT.fetch_add(1, Ordering::Relaxed))
});

/// This thread's number, or an unused one if the thread is ending: what ends then stays open.
fn here() -> u64 {
    HERE.try_with(|here| here.0).unwrap_or(u64::MAX)
}

impl State {
    /// Notes that the library closes `fd`, a connection or a file.
    fn close(&mut self, fd: RawFd) {
        match self.open.remove(&fd) {
            Some(Peer { files, .. }) if !files.is_empty() => self.left.push((here(), files)),
            Some(_) => {}
            None => self.strike_off(fd),
        }
    }

    /// Removes `fd` from the record.
    fn strike_off(&mut self, fd: RawFd) {
        let left = self.left.iter_mut().map(|(_, files)| files);
        for files in self.open.values_mut().map(|peer| &mut peer.files).chain(left) {
            files.remove(&fd);
        }
    }

    /// Records the `files` that have come by `connection`. Returns `false`, and records none, if there are too many or
    /// one cannot be identified.
    fn note(&mut self, connection: RawFd, files: &[RawFd]) -> bool {
        // A descriptor that the kernel has just created belongs to nobody else.
        files.iter().for_each(|&file| self.strike_off(file));
        let Some(peer) = self.open.get_mut(&connection) else { return true };
        let known: HashMap<_, _> = files.iter().filter_map(|&file| Some((file, identity_of(file)?))).collect();
        let fine = known.len() == files.len() && peer.files.len() + known.len() <= FILES;
        if fine {
            peer.files.extend(known);
        }
        fine
    }
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

/// Must not be held while code outside this module is called.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes files that the library has leaked for connections that ended on this thread. Must not be called from within
/// the library's handling of such an end.
pub(super) fn reap() {
    reap_of(here());
}

fn reap_of(thread: u64) {
    let done: Vec<_> = state().left.extract_if(.., |(at, _)| *at == thread).collect();
    for (fd, identity) in done.into_iter().flat_map(|(_, files)| files) {
        if identity_of(fd) == Some(identity) {
            // SAFETY: it came with a message of a peer that is gone, and the library has leaked it (see above).
            unsafe { libc::close(fd) };
        }
    }
}

fn identity_of(fd: RawFd) -> Option<Identity> {
    // SAFETY: plain data, for which zero is valid, filled in by the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat) == 0).then_some((stat.st_dev, stat.st_ino))
    }
}

/// Replaces the library's `recvmsg`: records the files; too many end the connection.
unsafe extern "C" fn receive(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's own arguments.
    let got = unsafe { libc::recvmsg(fd, message, flags | libc::MSG_CMSG_CLOEXEC) };
    if got <= 0 {
        return got;
    }
    // SAFETY: the kernel filled it in, and its buffers are the library's.
    let message = unsafe { &mut *message };
    // SAFETY: as above.
    let files = unsafe { peers::files_of(message) };
    if files.is_empty() {
        return got;
    }
    let path = {
        let mut state = state();
        if state.note(fd, &files) {
            return got;
        }
        state.open.get(&fd).map(|peer| peer.path.clone()).unwrap_or_default()
    };
    log::tell(&format!("{}: disconnecting a vhost-user peer that sends more files than it needs", path.display()));
    message.msg_controllen = 0;
    for file in files {
        // SAFETY: the kernel created it for us, and the library does not see it.
        unsafe { libc::close(file) };
    }
    // SAFETY: takes no pointers. To the library it looks like any other end.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    0
}

/// Replaces the library's `accept`.
unsafe extern "C" fn accept(listener: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { peers::accept(listener, address, len, admit) }
}

fn admit(fd: RawFd, path: &Path) -> bool {
    let taken = {
        let mut state = state();
        let taken = state.open.iter().any(|(&other, peer)| peer.path == path && alive(other));
        if !taken {
            state.open.insert(fd, Peer { path: path.to_owned(), files: HashMap::new() });
        }
        taken
    };
    if taken {
        log::tell(&format!("{}: another peer is connected; refusing a second one", path.display()));
        return false;
    }
    never_blocks(fd);
    true
}

fn never_blocks(fd: RawFd) {
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let len = size_of::<libc::timeval>() as socklen_t;
        // SAFETY: a value of the option's type. If this fails, the library waits longer.
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const WAIT).cast(), len) };
    }
}

/// Replaces the library's `connect`.
unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    let code = unsafe { peers::connect(fd, address, len) };
    if code == 0 {
        never_blocks(fd);
        // SAFETY: as above.
        let path = unsafe { peers::path_of(address, len) };
        state().open.insert(fd, Peer { path, files: HashMap::new() });
    }
    code
}

/// Returns whether the other end is still connected.
fn alive(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, which is ours.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
}

/// Replaces the library's `close`.
unsafe extern "C" fn close(fd: c_int) -> c_int {
    state().close(fd);
    // SAFETY: the caller's own request.
    unsafe { libc::close(fd) }
}

/// Replaces the `poll` of the library's thread (before 24.11), which it calls between all its work.
unsafe extern "C" fn poll(files: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int {
    reap();
    // SAFETY: the caller's own arguments.
    unsafe { libc::poll(files, count, timeout) }
}

/// The same for a library built with the C library's checks: `room` is the size of `files` in bytes.
unsafe extern "C" fn poll_checked(
    files: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
    _room: libc::size_t,
) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { poll(files, count, timeout) }
}

/// Replaces the `epoll_wait` of the library's thread (since 24.11), which it calls between all its work.
unsafe extern "C" fn wait(instance: c_int, events: *mut libc::epoll_event, room: c_int, timeout: c_int) -> c_int {
    reap();
    // SAFETY: the caller's own arguments.
    unsafe { libc::epoll_wait(instance, events, room, timeout) }
}

/// Replaces virtio-user's `accept`, for when it listens: only checks who connects.
unsafe extern "C" fn accept_host(listener: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { peers::accept(listener, address, len, |_, _| true) }
}

pub(super) fn install() -> bool {
    peers::prepare();
    let calls = [
        (c"accept", accept as *const ()),
        (c"close", close as *const ()),
        (c"connect", connect as *const ()),
        (c"recvmsg", receive as *const ()),
    ];
    // The function that the library waits with depends on the release and the build.
    let waits =
        [(c"poll", poll as *const ()), (c"__poll_chk", poll_checked as *const ()), (c"epoll_wait", wait as *const ())];
    // SAFETY: all have the types of what they replace, and can be called from any thread.
    unsafe {
        plt::replace("librte_vhost.so", &calls) == Some(calls.len())
            && plt::replace("librte_vhost.so", &waits).is_some_and(|found| found > 0)
    }
}

pub(super) fn install_guest() -> bool {
    peers::prepare();
    let calls = [(c"accept", accept_host as *const ()), (c"connect", peers::connect as *const ())];
    // SAFETY: as above.
    unsafe { plt::replace("librte_net_virtio.so", &calls) == Some(calls.len()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::ptr::null_mut;

    use super::*;

    #[test]
    fn the_libraries_are_found_and_their_calls_are_replaced() {
        let drivers = crate::dpdk::available_drivers();
        for name in ["net_vhost", "net_virtio"] {
            assert!(drivers.iter().any(|d| d.name == name && d.problem.is_none()), "{name} has to be loaded");
        }
        assert!(install() && install_guest());
    }

    #[test]
    fn one_peer_at_a_time_and_none_that_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: no address is asked for.
        let take = || unsafe { accept(listener.as_raw_fd(), null_mut(), null_mut()) };
        let first = UnixStream::connect(&path).unwrap();
        let one = take();
        assert!(one >= 0);
        let mut second = UnixStream::connect(&path).unwrap();
        assert_eq!(take(), -1);
        assert_eq!(second.read(&mut [0]).unwrap(), 0);
        // A read ends if the announced data does not arrive.
        // SAFETY: the buffer has room for one byte.
        let got = unsafe { libc::recv(one, [0u8; 1].as_mut_ptr().cast(), 1, 0) };
        assert_eq!((got, peers::errno()), (-1, libc::EAGAIN));
        // A peer that hangs up makes room at once, even before the library notices.
        drop(first);
        let _third = UnixStream::connect(&path).unwrap();
        let two = take();
        assert!(two >= 0);
        for fd in [one, two] {
            // SAFETY: ours.
            assert_eq!(unsafe { close(fd) }, 0);
        }
        assert!(!state().open.contains_key(&two));
    }

    /// A separate file, whose descriptor the guard may close.
    fn number_of(file: &std::fs::File) -> (RawFd, Identity) {
        // SAFETY: a duplicate that is ours.
        let fd = unsafe { libc::dup(file.as_raw_fd()) };
        (fd, identity_of(fd).unwrap())
    }

    /// Files that the library closes are removed from the record. Those that it leaks are closed, but not before it has
    /// finished, and not if the descriptor has been reused.
    #[test]
    fn forgotten_files_are_closed_when_the_library_is_through() {
        let (connection, one, two) = (RawFd::MAX - 1, tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let [(closed, first), (forgotten, second), (reused, _)] = [&one, &two, &two].map(number_of);
        let files = HashMap::from([(closed, first), (forgotten, second), (reused, first)]);
        state().open.insert(connection, Peer { path: "/x/unit-test-files".into(), files });
        // SAFETY: a file of ours, and a number that is no file.
        unsafe {
            close(closed);
            close(connection);
        }
        // Another file, which gets the free descriptor.
        let (other, _) = number_of(&one);
        assert!(identity_of(forgotten).is_some(), "too early");
        std::thread::spawn(reap).join().unwrap();
        assert!(identity_of(forgotten).is_some(), "another thread knows nothing of where this one is");
        reap();
        assert_ne!(identity_of(forgotten), Some(second));
        assert_eq!([other, reused].map(identity_of), [Some(first), Some(second)], "{closed} -> {other}");
        for fd in [other, reused] {
            // SAFETY: ours.
            unsafe { libc::close(fd) };
        }
        assert!(!state().open.contains_key(&connection));
    }

    /// 24.11.6 ends its thread with its last port, and a connection that ends just before is not waited for.
    #[test]
    fn a_thread_that_ends_is_through_too() {
        let file = tempfile::tempfile().unwrap();
        let (fd, identity) = number_of(&file);
        std::thread::spawn(move || {
            let files = HashMap::from([(fd, identity)]);
            state().open.insert(RawFd::MAX - 2, Peer { path: "/x/unit-test-end".into(), files });
            // SAFETY: a number that is no file.
            unsafe { close(RawFd::MAX - 2) };
            assert!(identity_of(fd).is_some());
        })
        .join()
        .unwrap();
        assert_ne!(identity_of(fd), Some(identity));
    }

    #[test]
    fn files_that_come_are_few_and_known() {
        let (connection, file) = (RawFd::MAX - 3, tempfile::tempfile().unwrap());
        state().open.insert(connection, Peer { path: "/x/unit-test-few".into(), files: HashMap::new() });
        let mut mine: Vec<RawFd> = (0..FILES).map(|_| number_of(&file).0).collect();
        assert!(state().note(connection, &mine));
        assert!(!state().note(connection, &[file.as_raw_fd()]), "one too many");
        assert!(state().note(RawFd::MAX - 4, &mine[..1]), "a message of no peer is not ours to judge");
        assert_eq!(state().open[&connection].files.len(), FILES - 1, "a number is noted once");
        assert!(!state().note(connection, &[RawFd::MAX]), "no file");
        // SAFETY: ours, and a number that is no file.
        unsafe {
            assert_eq!((close(mine.pop().unwrap()), close(connection)), (0, -1));
        }
        reap();
        let identity = identity_of(file.as_raw_fd());
        assert_eq!([mine[0], mine[1]].map(|fd| identity_of(fd) == identity), [true, false]);
        // SAFETY: ours, struck off above.
        unsafe { libc::close(mine[0]) };
    }
}
