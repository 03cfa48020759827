//! The vhost-user library and its peers.
//!
//! The library reads what a header announces without asking whether it has come, on the one thread that serves all
//! sockets and that closing a port waits for; and a second connection to a socket takes the port from the first. So
//! reads and writes give up after a while, and a connection is only let in when there is no other.

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use libc::{sockaddr, socklen_t};

use super::super::log;
use super::{peers, plt};

/// How long the library may wait for the rest of a message, or for room for an answer.
static WAIT: libc::timeval = libc::timeval { tv_sec: 0, tv_usec: 200_000 };

/// Connections that the library holds, and the sockets they came by.
static OPEN: LazyLock<Mutex<HashMap<RawFd, PathBuf>>> = LazyLock::new(Mutex::default);

fn open() -> MutexGuard<'static, HashMap<RawFd, PathBuf>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `accept` as the library sees it.
unsafe extern "C" fn accept(listener: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { peers::accept(listener, address, len, admit) }
}

fn admit(fd: RawFd, path: &Path) -> bool {
    let mut open = open();
    if open.iter().any(|(&other, at)| at == path && alive(other)) {
        log::tell(&format!("{}: another peer is connected; a second one is refused", path.display()));
        return false;
    }
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let len = size_of::<libc::timeval>() as socklen_t;
        // SAFETY: a value of the type that the option has. Without it the library waits for longer.
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const WAIT).cast(), len) };
    }
    open.insert(fd, path.to_owned());
    true
}

/// Whether the other end has not hung up yet.
fn alive(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, which is ours.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
}

/// `close` as the library sees it.
unsafe extern "C" fn close(fd: c_int) -> c_int {
    open().remove(&fd);
    // SAFETY: the caller's own request.
    unsafe { libc::close(fd) }
}

/// `accept` as virtio-user sees it, when it listens: only who it is matters.
unsafe extern "C" fn accept_host(listener: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { peers::accept(listener, address, len, |_, _| true) }
}

pub(super) fn install() -> bool {
    peers::prepare();
    let calls =
        [(c"accept", accept as *const ()), (c"close", close as *const ()), (c"connect", peers::connect as *const ())];
    // SAFETY: all have the types of what they replace, and can be called from any thread.
    unsafe { plt::replace("librte_vhost.so", &calls) == Some(calls.len()) }
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
        // What was announced and does not come ends a read.
        // SAFETY: a buffer of ours.
        let got = unsafe { libc::recv(one, [0u8; 1].as_mut_ptr().cast(), 1, 0) };
        assert_eq!((got, peers::errno()), (-1, libc::EAGAIN));
        // Who hangs up makes room at once, before the library has noticed.
        drop(first);
        let _third = UnixStream::connect(&path).unwrap();
        let two = take();
        assert!(two >= 0);
        for fd in [one, two] {
            // SAFETY: ours.
            assert_eq!(unsafe { close(fd) }, 0);
        }
        assert!(!open().contains_key(&two));
    }
}
