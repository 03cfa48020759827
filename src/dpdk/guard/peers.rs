//! Checks who is at the other end of a socket.

use std::ffi::{OsString, c_int};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{msghdr, sockaddr, sockaddr_un, socklen_t};

use super::super::log;

/// A socket of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dpdk) struct Interface {
    /// Its path, or the name of an abstract socket.
    pub(in crate::dpdk) path: PathBuf,
    /// The interface ID that a memif peer asks for.
    pub(in crate::dpdk) id: u32,
    /// The number of rings in each direction.
    pub(in crate::dpdk) queues: u16,
    /// A user whose processes may connect, besides our own and root's.
    pub(in crate::dpdk) user: Option<u32>,
}

static INTERFACES: Mutex<Vec<Interface>> = Mutex::new(Vec::new());

fn interfaces() -> MutexGuard<'static, Vec<Interface>> {
    INTERFACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An interface that is registered until this is dropped.
pub(in crate::dpdk) struct Registered(Interface);

impl Registered {
    pub(in crate::dpdk) fn new(interface: Interface) -> Self {
        interfaces().push(interface.clone());
        Self(interface)
    }
}

impl Registered {
    /// The path of its socket.
    pub(in crate::dpdk) fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut all = interfaces();
        if let Some(at) = all.iter().position(|i| *i == self.0) {
            all.swap_remove(at);
        }
    }
}

/// The number of rings of interface `id` on the socket at `path`, in each direction.
pub(super) fn queues(path: &Path, id: u32) -> Option<u16> {
    interfaces().iter().find(|i| i.path == path && i.id == id).map(|i| i.queues)
}

/// The largest number of rings of our interfaces on the socket at `path`.
pub(super) fn most_queues(path: &Path) -> u32 {
    interfaces().iter().filter(|i| i.path == path).map(|i| u32::from(i.queues)).max().unwrap_or(0)
}

/// Returns whether the process at the other end of `fd` is allowed: it must belong to our user, root or the user that
/// the profile names. A socket whose peer is unknown (it is no longer connected) is not allowed.
pub(super) fn may_be(fd: RawFd, path: &Path) -> bool {
    let Some(user) = user_of(fd) else { return false };
    // SAFETY: takes nothing and cannot fail.
    let ours = unsafe { libc::geteuid() };
    let named = interfaces().iter().filter(|i| i.path == path).any(|i| i.user == Some(user));
    let fine = user == ours || user == 0 || named;
    if !fine {
        log::tell(&format!("{}: refusing a process of user {user} (see `peer_uid` in the profile)", path.display()));
    }
    fine
}

/// The user that called `connect` or `listen` at the other end (`SO_PEERCRED`, unix(7)).
fn user_of(fd: RawFd) -> Option<u32> {
    let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as socklen_t;
    // SAFETY: `who` has room for what is asked for, whatever `fd` is.
    let code =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &raw mut len) };
    (code == 0 && who.uid != u32::MAX).then_some(who.uid)
}

/// The path, or the abstract name, of a socket address.
///
/// # Safety
/// `address` is null or has `len` readable bytes.
pub(super) unsafe fn path_of(address: *const sockaddr, len: socklen_t) -> PathBuf {
    let start = std::mem::offset_of!(sockaddr_un, sun_path);
    let Some(room) = (len as usize).checked_sub(start).filter(|_| !address.is_null()) else { return PathBuf::new() };
    // SAFETY: `room` bytes after the family, by the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>().add(start), room) };
    let name = match bytes.first() {
        Some(0) => &bytes[1..],
        _ => bytes,
    };
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    PathBuf::from(OsString::from_vec(name[..end].to_vec()))
}

/// The path of the listening socket `fd`.
pub(super) fn path_of_socket(fd: RawFd) -> PathBuf {
    // SAFETY: plain data, for which zero is valid.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    let at = (&raw mut address).cast::<sockaddr>();
    // SAFETY: `address` has room for `len` bytes, and the call says how many it wrote.
    unsafe {
        if libc::getsockname(fd, at, &raw mut len) != 0 {
            return PathBuf::new();
        }
        path_of(at, len.min(size_of::<sockaddr_un>() as socklen_t))
    }
}

/// A descriptor kept in reserve for when no other is free.
pub(super) struct Spare(Mutex<Option<RawFd>>);

impl Spare {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Reserves a descriptor, unless there is one already.
    pub(super) fn fill(&self) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_none() {
            // SAFETY: a NUL-terminated path.
            let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
            *spare = (fd >= 0).then_some(fd);
        }
    }

    /// Frees the descriptor; returns `false` if there was none.
    pub(super) fn spend(&self) -> bool {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // SAFETY: ours, and forgotten above.
        spare.is_some_and(|fd| unsafe { libc::close(fd) } == 0)
    }
}

static SPARE: Spare = Spare::new();

/// To be called before the first socket is accepted.
pub(super) fn prepare() {
    SPARE.fill();
}

/// `accept` for a driver: the socket is close-on-exec, and peers that are not allowed are disconnected at once. If no
/// descriptor is free, the caller is accepted with the reserved one and disconnected: in the queue, it would keep the
/// listening thread busy for ever.
///
/// # Safety
/// As for `accept(2)`.
pub(super) unsafe fn accept(
    listener: RawFd,
    address: *mut sockaddr,
    len: *mut socklen_t,
    admit: impl FnOnce(RawFd, &Path) -> bool,
) -> c_int {
    SPARE.fill();
    // SAFETY: the caller's own arguments.
    let fd = unsafe { libc::accept4(listener, address, len, libc::SOCK_CLOEXEC) };
    if fd < 0 {
        let full = matches!(errno(), libc::EMFILE | libc::ENFILE);
        if full && SPARE.spend() {
            // SAFETY: takes no pointers; what it returns is ours.
            unsafe {
                let fd = libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC);
                if fd >= 0 {
                    libc::close(fd);
                }
            }
            SPARE.fill();
            set_errno(libc::EMFILE);
        }
        return -1;
    }
    let path = path_of_socket(listener);
    if may_be(fd, &path) && admit(fd, &path) {
        return fd;
    }
    // SAFETY: ours, and nobody else knows of it.
    unsafe { libc::close(fd) };
    set_errno(libc::ECONNABORTED);
    -1
}

/// `connect` for a driver: fails if the listener is not allowed.
///
/// # Safety
/// As for `connect(2)`.
pub(super) unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    let (code, path) = unsafe { (libc::connect(fd, address, len), path_of(address, len)) };
    if code == 0 && !may_be(fd, &path) {
        // SAFETY: takes no pointers.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
        set_errno(libc::EACCES);
        return -1;
    }
    code
}

/// The descriptors that came with a message.
///
/// # Safety
/// `message` was filled in by `recvmsg`, or sent.
pub(super) unsafe fn files_of(message: &msghdr) -> Vec<RawFd> {
    let mut files = Vec::new();
    // SAFETY: the macros of cmsg(3) on a control buffer that the kernel wrote or has read; descriptors may be
    // unaligned.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(at).cast::<RawFd>();
                let count = ((*at).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                files.extend((0..count).map(|i| data.add(i).read_unaligned()));
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    files
}

pub(super) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(super) fn set_errno(value: c_int) {
    // SAFETY: the calling thread's own.
    unsafe { *libc::__errno_location() = value };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn our_own_processes_are_let_in_and_sockets_are_known_by_their_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(path_of_socket(listener.as_raw_fd()), path);
        let client = UnixStream::connect(&path).unwrap();
        assert!(may_be(client.as_raw_fd(), &path));
        let refuse = |_: RawFd, at: &Path| {
            assert_eq!(at, path);
            false
        };
        // SAFETY: no address is asked for.
        let fd = unsafe { accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), refuse) };
        assert_eq!((fd, errno()), (-1, libc::ECONNABORTED));
        assert_eq!(std::io::Read::read(&mut &client, &mut [0]).unwrap(), 0, "sent away");
        assert!(!may_be(-1, &path));
    }

    #[test]
    fn interfaces_are_known_for_as_long_as_they_are_open() {
        let interface = Interface { path: "/x/unit-test".into(), id: 3, queues: 2, user: None };
        let one = Registered::new(interface.clone());
        let two = Registered::new(Interface { id: 4, queues: 1, ..interface });
        assert_eq!((queues(Path::new("/x/unit-test"), 3), queues(Path::new("/x/unit-test"), 4)), (Some(2), Some(1)));
        drop(one);
        assert_eq!((queues(Path::new("/x/unit-test"), 3), queues(Path::new("/x/unit-test"), 4)), (None, Some(1)));
        drop(two);
    }

    #[test]
    fn a_spare_descriptor_is_spent_once() {
        let spare = Spare::new();
        assert!(!spare.spend());
        spare.fill();
        spare.fill();
        assert!(spare.spend());
        assert!(!spare.spend());
    }
}
