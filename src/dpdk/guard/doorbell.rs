//! Wake-ups of memif ports.
//!
//! Each ring has an eventfd, which the sender writes to after every burst unless the receiver has set the flag MASK_INT
//! in the ring's header (VPP's `src/plugins/memif/memif.h`). DPDK's driver exchanges these files and sends wake-ups,
//! but sets the flag permanently, as it does not support receive interrupts. So the files of rings that we receive from
//! are recorded when they pass over the control socket, and while a core sleeps the flag is cleared through a mapping
//! of our own.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{iovec, size_t, ssize_t};

use super::conversation::{ADD_REGION, ADD_RING, CONNECT, CONNECTED, INIT, MESSAGE, Side, u16_at};

/// The offset of a ring's flags, and the flag that disables wake-ups.
const FLAGS: u32 = 4;
const MASK_INT: u16 = 1;

/// The wake-ups of a ring that one of our queues receives from.
pub(in crate::dpdk) struct Doorbell {
    page: NonNull<c_void>,
    len: usize,
    /// The offset of the flags in `page`.
    at: usize,
    file: OwnedFd,
}

// SAFETY: the mapping is this object's own, and only atomic operations are done in it.
unsafe impl Send for Doorbell {}
// SAFETY: as above.
unsafe impl Sync for Doorbell {}

impl Doorbell {
    /// Creates the doorbell of the ring at `offset` in `region`, which is rung by `file`.
    fn new(region: BorrowedFd<'_>, offset: u32, file: OwnedFd) -> Option<Self> {
        // SAFETY: takes no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let flags = (offset + FLAGS) as usize;
        let start = flags & !(page - 1);
        // SAFETY: a new mapping. The conversation has seen that the ring lies in the file, which cannot be made shorter.
        let map = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), page, protection, libc::MAP_SHARED, region.as_raw_fd(), start as i64)
        };
        let map = NonNull::new(map).filter(|_| map != libc::MAP_FAILED)?;
        Some(Self { page: map, len: page, at: flags - start, file })
    }

    fn flags(&self) -> &AtomicU16 {
        // SAFETY: within the mapping, aligned as rings are (to 4 bytes), and never accessed otherwise by this object.
        unsafe { AtomicU16::from_ptr(self.page.as_ptr().byte_add(self.at).cast()) }
    }

    /// Enables wake-ups.
    pub(in crate::dpdk) fn arm(&self) {
        self.flags().fetch_and(!MASK_INT, Ordering::SeqCst);
    }

    /// Disables wake-ups.
    pub(in crate::dpdk) fn disarm(&self) {
        self.flags().fetch_or(MASK_INT, Ordering::SeqCst);
    }

    /// The file that becomes readable when the peer rings. While armed, the driver reads it in bursts.
    pub(in crate::dpdk) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.page.as_ptr(), self.len) };
    }
}

/// What either side of a connection has said about its rings so far: the client says where they are.
#[derive(Default)]
pub(super) struct Bells {
    id: u32,
    region: Option<OwnedFd>,
    rings: Vec<(u16, u32, OwnedFd)>,
    /// Identifies its doorbells in [`HUNG`].
    key: Option<u64>,
}

/// A doorbell of a live connection.
struct Hung {
    key: u64,
    path: PathBuf,
    id: u32,
    queue: u16,
    bell: Arc<Doorbell>,
}

static HUNG: Mutex<Vec<Hung>> = Mutex::new(Vec::new());

fn hung() -> MutexGuard<'static, Vec<Hung>> {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The doorbell of a queue of interface `id` at the socket `path`, if connected.
pub(in crate::dpdk) fn of_queue(path: &Path, id: u32, queue: u16) -> Option<Arc<Doorbell>> {
    // The latest connection is the one in use.
    hung().iter().rev().find(|h| h.queue == queue && h.id == id && h.path == path).map(|h| h.bell.clone())
}

impl Bells {
    /// Notes an accepted message, received or sent. `side` is our side.
    pub(super) fn note(&mut self, message: &[u8; MESSAGE], files: &[RawFd], side: Side, path: &Path) {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| message[at + i]));
        match (u16_at(message, 0), files) {
            (INIT, _) => self.id = u32_at(4),
            (ADD_REGION, &[file]) if u16_at(message, 2) == 0 => self.region = copy(file),
            (ADD_RING, &[file]) => {
                let (to_server, region) = (u16_at(message, 2) & 1 != 0, u16_at(message, 6));
                if region == 0 && to_server == (side == Side::Server) && is_eventfd(file) {
                    let ring = copy(file).map(|file| (u16_at(message, 4), u32_at(8), file));
                    self.rings.extend(ring);
                }
            }
            (CONNECT, _) if side == Side::Server => self.hang(path),
            (CONNECTED, _) if side == Side::Client => self.hang(path),
            _ => {}
        }
    }

    fn hang(&mut self, path: &Path) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Files that are not needed for doorbells are closed here.
        let Some(region) = self.region.take() else { return };
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        self.key = Some(key);
        let bells = std::mem::take(&mut self.rings).into_iter().filter_map(|(queue, offset, file)| {
            let bell = Arc::new(Doorbell::new(region.as_fd(), offset, file)?);
            Some(Hung { key, path: path.to_owned(), id: self.id, queue, bell })
        });
        hung().extend(bells);
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            hung().retain(|h| h.key != key);
        }
    }
}

/// Duplicates a file descriptor.
pub(in crate::dpdk) fn copy(file: RawFd) -> Option<OwnedFd> {
    // SAFETY: takes no pointers; what it returns is ours.
    unsafe {
        let copy = libc::fcntl(file, libc::F_DUPFD_CLOEXEC, 0);
        (copy >= 0).then(|| OwnedFd::from_raw_fd(copy))
    }
}

/// Returns whether the file is an eventfd or another anonymous file. Peers can pass anything.
pub(in crate::dpdk) fn is_eventfd(file: RawFd) -> bool {
    // SAFETY: plain data, for which zero is valid, filled in by the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(file, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == 0
    }
}

/// `read` of an eventfd that never blocks, whatever flags the peer sets on the file.
///
/// # Safety
/// As for read(2).
pub(in crate::dpdk) unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    let part = iovec { iov_base: buffer, iov_len: len };
    // SAFETY: the caller's own buffer.
    unsafe { libc::preadv2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT) }
}

/// `write` to an eventfd that does not block if the counter is full, as it has then been rung.
///
/// # Safety
/// As for write(2).
pub(super) unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    let mut file = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, which is ours, and the caller's own buffer.
    unsafe {
        if libc::poll(&raw mut file, 1, 0) == 1 && file.revents & libc::POLLOUT != 0 {
            return libc::write(fd, buffer, len);
        }
    }
    len as ssize_t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eventfd() -> OwnedFd {
        // SAFETY: takes no pointers; what it returns is ours. Blocking, as a peer could make it.
        unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) }
    }

    fn memory() -> OwnedFd {
        // SAFETY: a name of ours; what it returns is ours.
        unsafe {
            let fd = libc::memfd_create(c"doorbell".as_ptr(), libc::MFD_CLOEXEC);
            libc::ftruncate(fd, 1 << 16);
            OwnedFd::from_raw_fd(fd)
        }
    }

    fn message(kind: u16, rest: &[u8]) -> [u8; MESSAGE] {
        let mut message = [0; MESSAGE];
        message[..2].copy_from_slice(&kind.to_le_bytes());
        message[2..2 + rest.len()].copy_from_slice(rest);
        message
    }

    fn ring(to_server: bool, index: u16, region: u16, offset: u32) -> [u8; MESSAGE] {
        let words: Vec<u8> = [u16::from(to_server), index, region].iter().flat_map(|w| w.to_le_bytes()).collect();
        message(ADD_RING, &[&words[..], &offset.to_le_bytes(), &[10]].concat())
    }

    #[test]
    fn a_connection_has_the_doorbells_of_the_rings_that_its_side_receives_from() {
        let (memory, events) = (memory(), [eventfd(), eventfd()]);
        let path = Path::new("/x/unit-test-doorbell");
        let mut bells = Bells::default();
        let mut note = |message: [u8; MESSAGE], file: Option<&OwnedFd>| {
            let files: Vec<RawFd> = file.iter().map(|f| f.as_raw_fd()).collect();
            bells.note(&message, &files, Side::Server, path);
        };
        note(message(INIT, &[0, 2, 7, 0, 0, 0]), None);
        note(message(ADD_REGION, &[0, 0, 0, 0, 1]), Some(&memory));
        note(ring(true, 0, 0, 0x1100), Some(&events[0]));
        // The other direction, another region, and a file that is not an eventfd.
        note(ring(false, 0, 0, 0x2000), Some(&events[1]));
        note(ring(true, 1, 1, 0x2000), Some(&events[1]));
        note(ring(true, 2, 0, 0x2000), Some(&memory));
        assert!(of_queue(path, 7, 0).is_none());
        note(message(CONNECT, &[]), None);
        let bell = of_queue(path, 7, 0).unwrap();
        for (id, queue) in [(8, 0), (7, 1), (7, 2)] {
            assert!(of_queue(path, id, queue).is_none(), "{id} {queue}");
        }
        let flags = || {
            let mut bytes = [0u8; 2];
            // SAFETY: a buffer of two bytes.
            unsafe { libc::pread(memory.as_raw_fd(), bytes.as_mut_ptr().cast(), 2, 0x1104) };
            u16::from_le_bytes(bytes)
        };
        bell.disarm();
        assert_eq!(flags(), MASK_INT);
        bell.arm();
        assert_eq!(flags(), 0);
        drop(bells);
        assert!(of_queue(path, 7, 0).is_none(), "the connection is gone");
    }

    /// The driver's own `read` and `write` wait for the file's creator, for ever if it wants that.
    #[test]
    fn files_of_peers_are_not_waited_for() {
        let file = eventfd();
        let mut count = u64::MAX - 1;
        // SAFETY: eight bytes each.
        unsafe {
            assert_eq!(read(file.as_raw_fd(), (&raw mut count).cast(), 8), -1);
            assert_eq!(write(file.as_raw_fd(), (&raw const count).cast(), 8), 8);
            assert_eq!(write(file.as_raw_fd(), (&raw const count).cast(), 8), 8);
            count = 0;
            assert_eq!(read(file.as_raw_fd(), (&raw mut count).cast(), 8), 8);
        }
        assert_eq!(count, u64::MAX - 1);
    }
}
