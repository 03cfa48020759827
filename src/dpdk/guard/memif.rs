//! Guards the memif driver against its peers.
//!
//! The driver (`drivers/net/memif/memif_socket.c`, the same from 22.11 to 25.11) leaves handlers on EAL's list. If its
//! first message cannot be sent, because the peer hung up at once, it closes the socket and frees the memory that the
//! handler uses, and the next event ends the process. If a port is closed, its listener stays, with freed memory, and
//! so do connections that have not said yet which interface they want. It accepts any number of connections that say
//! nothing, leaks the files of regions of peers that leave early, and trusts what peers say ([`super::conversation`]).
//!
//! So failures to send are hidden from the driver: it notices the end of a connection where it reads. Handlers are
//! taken off the list before their memory is freed. Connections that make no progress are closed, as are those of
//! closed listeners.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dpdk_sys::rte_intr_handle;
use libc::{msghdr, size_t, sockaddr, socklen_t, ssize_t};

use super::super::log;
use super::conversation::{self, Conversation, File, MESSAGE, Side};
use super::doorbell::{self, Bells};
use super::{bursts, peers, plt};

/// The maximum number of connections of a listener that have not finished their introduction.
const UNFINISHED: usize = 16;
/// How long an introduction may take once another peer is waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection and its socket's path.
struct Connection {
    conversation: Conversation,
    side: Side,
    bells: Bells,
    path: PathBuf,
    since: Instant,
    /// Its messages are no longer passed to the driver.
    over: bool,
    /// Files of its regions. The driver closes those that it has mapped, which it does once the peer has finished its
    /// introduction.
    regions: Vec<RawFd>,
}

impl Connection {
    fn new(side: Side, path: &Path, since: Instant) -> Self {
        Self {
            conversation: Conversation::new(side),
            side,
            bells: Bells::default(),
            path: path.to_owned(),
            since,
            over: false,
            regions: Vec::new(),
        }
    }

    /// Shuts the connection down. To the driver it looks like any other end, and it cleans up.
    fn end(&mut self, fd: RawFd) {
        self.over = true;
        // SAFETY: takes no pointers.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}

static CONNECTIONS: LazyLock<Mutex<HashMap<RawFd, Connection>>> = LazyLock::new(Mutex::default);

/// The last reason why the server at the other end of a socket rejected us.
static LAST_WORDS: LazyLock<Mutex<HashMap<PathBuf, String>>> = LazyLock::new(Mutex::default);

fn words() -> MutexGuard<'static, HashMap<PathBuf, String>> {
    LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reason, in the words of its driver, why the server at the other end of the socket at `path` rejected us; `None`
/// if it has accepted us since. The driver here only logs it and tries again.
pub(in crate::dpdk) fn last_words(path: &Path) -> Option<String> {
    words().get(path).cloned()
}

/// Must not be held while the driver or EAL is called: EAL calls back while it holds a lock of its own.
fn connections() -> MutexGuard<'static, HashMap<RawFd, Connection>> {
    CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn accept(listener: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { peers::accept(listener, address, len, |fd, path| admit(fd, path, Instant::now())) }
}

fn admit(fd: RawFd, path: &Path, now: Instant) -> bool {
    let mut all = connections();
    let unfinished = |c: &Connection| c.path == path && !c.conversation.connected();
    for (&other, c) in all.iter_mut().filter(|(_, c)| unfinished(c) && now.duration_since(c.since) > PATIENCE) {
        c.end(other);
    }
    if all.values().filter(|c| unfinished(c)).count() >= UNFINISHED {
        log::tell(&format!("{}: too many silent peers; refusing another one", path.display()));
        return false;
    }
    all.insert(fd, Connection::new(Side::Server, path, now));
    true
}

unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's own arguments.
    let (code, path) = unsafe { (peers::connect(fd, address, len), peers::path_of(address, len)) };
    if code == 0 {
        connections().insert(fd, Connection::new(Side::Client, &path, Instant::now()));
    }
    code
}

unsafe extern "C" fn close(fd: c_int) -> c_int {
    if let Some(connection) = connections().remove(&fd)
        && !connection.conversation.connected()
    {
        for file in connection.regions {
            // SAFETY: accepted for the driver, which does not close it.
            unsafe { libc::close(file) };
        }
    }
    // SAFETY: the caller's own request.
    unsafe { libc::close(fd) }
}

/// Replaces `sendmsg`: never waits for a peer that does not read, and never fails. On an error it shuts the connection
/// down, so that the driver notices where it reads and cleans up.
unsafe extern "C" fn send(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's own arguments.
    unsafe {
        let sent = libc::sendmsg(fd, message, flags | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        if sent >= 0 {
            note(fd, &*message);
            return sent;
        }
        libc::shutdown(fd, libc::SHUT_RDWR);
        let parts = std::slice::from_raw_parts((*message).msg_iov, (*message).msg_iovlen);
        parts.iter().map(|p| p.iov_len).sum::<usize>() as ssize_t
    }
}

/// Notes what the driver has said about its rings.
///
/// # Safety
/// `message` has been sent successfully.
unsafe fn note(fd: RawFd, message: &msghdr) {
    let mut all = connections();
    let Some(Connection { bells, side: Side::Client, path, .. }) = all.get_mut(&fd) else { return };
    // SAFETY: the parts of a message that was sent.
    unsafe {
        let parts = std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen);
        if let Some(part) = parts.first().filter(|p| p.iov_len >= MESSAGE) {
            bells.note(&*part.iov_base.cast::<[u8; MESSAGE]>(), &peers::files_of(message), Side::Client, path);
        }
    }
}

/// Replaces `recvmsg`: passes only valid messages to the driver. Any other ends the connection.
unsafe extern "C" fn receive(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if connections().get(&fd).is_some_and(|c| c.over) {
        return 0;
    }
    // SAFETY: the caller's own arguments.
    let got = unsafe { libc::recvmsg(fd, message, flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    if got <= 0 {
        return got;
    }
    // SAFETY: the kernel filled it in, and its buffers are the driver's.
    let message = unsafe { &mut *message };
    // SAFETY: as above.
    let files = unsafe { peers::files_of(message) };
    let whole = got as usize == MESSAGE && message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0;
    // SAFETY: the driver's one buffer, which has as many bytes as were received.
    let text = unsafe {
        let one = (message.msg_iovlen == 1).then(|| &*message.msg_iov);
        one.filter(|b| whole && b.iov_len >= MESSAGE).map(|b| &mut *b.iov_base.cast::<[u8; MESSAGE]>())
    };
    let facts: Vec<File> = files.iter().map(|&f| facts(f)).collect();
    let verdict = match (connections().get_mut(&fd), text) {
        (Some(Connection { conversation, path, regions, bells, side, .. }), Some(text)) => {
            let mut heard = conversation.hear(text, &facts, |id| peers::queues(path, id));
            // The driver would connect with fewer rings, and look at one of them for all the others.
            if let Some(most) = conversation::taken_queues(text).filter(|most| *most < peers::most_queues(path)) {
                words().insert(path.clone(), format!("it takes {most} queues: --set queues={most}"));
                heard = Err("fewer queues than we have");
            }
            if heard.is_ok() {
                bells.note(text, &files, *side, path);
            }
            if heard.is_ok() && conversation::is_region(text) {
                regions.extend(&files);
            }
            if heard.is_ok() && conversation.is_client() {
                match conversation::farewell(text) {
                    Some(why) => drop(words().insert(path.clone(), why)),
                    None if conversation.connected() => drop(words().remove(path)),
                    None => {}
                }
            }
            heard.map_err(|why| (why, path.clone()))
        }
        (Some(Connection { path, .. }), None) => Err(("not a message", path.clone())),
        // Accepted or connected without our functions: no socket of the driver is.
        (None, _) => Err(("an unknown socket", PathBuf::new())),
    };
    let Err((why, path)) = verdict else { return got };
    log::tell(&format!("{}: disconnecting a memif peer: {why}", path.display()));
    message.msg_controllen = 0;
    for file in files {
        // SAFETY: the kernel created it for us, and the driver does not see it.
        unsafe { libc::close(file) };
    }
    if let Some(connection) = connections().get_mut(&fd) {
        if let Some(parting) = connection.conversation.parting() {
            // SAFETY: a message of as many bytes; a peer that does not read is not waited for.
            unsafe { libc::send(fd, parting.as_ptr().cast(), MESSAGE, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        }
        connection.end(fd);
    }
    0
}

fn facts(fd: RawFd) -> File {
    // SAFETY: plain data, for which zero is valid, filled in by the call; the other takes no pointers.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let known = libc::fstat(fd, &raw mut stat) == 0;
        let seals = libc::fcntl(fd, libc::F_GET_SEALS);
        let len = if known { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        File { len, sealed: seals >= 0 && seals & libc::F_SEAL_SHRINK != 0 }
    }
}

/// A handler on EAL's list.
struct Handler {
    /// The address of the driver's handle, which is not dereferenced.
    handle: usize,
    callback: dpdk_sys::rte_intr_callback_fn,
    argument: usize,
    /// It waits for connections, so only we close its socket.
    listener: bool,
}

/// Must not be held while EAL is called, as above.
static HANDLERS: Mutex<Vec<Handler>> = Mutex::new(Vec::new());

fn take_handler(handle: *const rte_intr_handle) -> Option<Handler> {
    let mut all = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = all.iter().position(|h| h.handle == handle as usize)?;
    Some(all.swap_remove(at))
}

unsafe extern "C" fn register(
    handle: *const rte_intr_handle,
    callback: dpdk_sys::rte_intr_callback_fn,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the driver's own arguments; its handle is alive. It is recorded first: it may run, and be removed again,
    // before this returns.
    unsafe {
        let fd = dpdk_sys::rte_intr_fd_get(handle);
        let mut all = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Handler { handle: handle as usize, callback, argument: argument as usize, listener: listens(fd) });
        drop(all);
        let code = dpdk_sys::rte_intr_callback_register(handle, callback, argument);
        if code < 0 {
            take_handler(handle);
        }
        code
    }
}

fn listens(fd: RawFd) -> bool {
    let (mut listens, mut len): (c_int, _) = (0, size_of::<c_int>() as socklen_t);
    // SAFETY: room for what is asked for.
    let code = unsafe {
        let value = (&raw mut listens).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, value, &raw mut len)
    };
    code == 0 && listens != 0
}

unsafe extern "C" fn unregister(
    handle: *const rte_intr_handle,
    callback: dpdk_sys::rte_intr_callback_fn,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the driver's own arguments.
    let code = unsafe { dpdk_sys::rte_intr_callback_unregister(handle, callback, argument) };
    if code > 0 {
        take_handler(handle);
    }
    code
}

unsafe extern "C" fn unregister_later(
    handle: *const rte_intr_handle,
    callback: dpdk_sys::rte_intr_callback_fn,
    argument: *mut c_void,
    then: dpdk_sys::rte_intr_unregister_callback_fn,
) -> c_int {
    // SAFETY: the driver's own arguments.
    let code = unsafe { dpdk_sys::rte_intr_callback_unregister_pending(handle, callback, argument, then) };
    if code > 0 {
        // EAL removes it from its list, and the driver frees the handle afterwards while EAL's lock is held.
        take_handler(handle);
    }
    code
}

/// Replaces the function that frees a handle: first removes its handler from EAL's list if it is still there.
unsafe extern "C" fn free_handle(handle: *mut rte_intr_handle) {
    if let Some(Handler { callback, argument, listener, .. }) = take_handler(handle) {
        // SAFETY: the handle is alive until it is freed below; the rest is what it was registered with.
        unsafe {
            let fd = dpdk_sys::rte_intr_fd_get(handle);
            let mut code = -libc::EAGAIN;
            for _ in 0..1000 {
                code = dpdk_sys::rte_intr_callback_unregister(handle, callback, argument as *mut c_void);
                if code != -libc::EAGAIN {
                    break;
                }
                // The handler is running.
                std::thread::sleep(Duration::from_millis(1));
            }
            if code == -libc::EAGAIN {
                // A leak is better than a use after free.
                return;
            }
            if listener {
                let path = peers::path_of_socket(fd);
                close(fd);
                // Connections accepted by it refer to memory that is about to be freed, should they introduce
                // themselves.
                for (&other, c) in connections().iter_mut().filter(|(_, c)| c.path == path) {
                    c.end(other);
                }
            }
        }
    }
    // SAFETY: the driver's own request, and EAL knows nothing of the handle any more.
    unsafe { dpdk_sys::rte_intr_instance_free(handle) };
}

unsafe extern "C" fn unmap(address: *mut c_void, len: size_t) -> c_int {
    // SAFETY: the driver's own request.
    unsafe { bursts::unmap(address, len) }
}

pub(super) fn install() -> bool {
    bursts::prepare();
    peers::prepare();
    let calls = [
        (c"accept", accept as *const ()),
        (c"connect", connect as *const ()),
        (c"close", close as *const ()),
        (c"sendmsg", send as *const ()),
        (c"recvmsg", receive as *const ()),
        (c"munmap", unmap as *const ()),
        (c"read", doorbell::read as *const ()),
        (c"write", doorbell::write as *const ()),
        (c"rte_intr_callback_register", register as *const ()),
        (c"rte_intr_callback_unregister", unregister as *const ()),
        (c"rte_intr_callback_unregister_pending", unregister_later as *const ()),
        (c"rte_intr_instance_free", free_handle as *const ()),
    ];
    // SAFETY: all have the types of what they replace, and can be called from any thread.
    unsafe { plt::replace("librte_net_memif", &calls) == Some(calls.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_found_and_its_calls_are_replaced() {
        let drivers = crate::dpdk::available_drivers();
        assert!(drivers.iter().any(|d| d.name == "net_memif" && d.problem.is_none()), "memif has to be loaded");
        assert!(install());
    }

    #[test]
    fn who_says_nothing_makes_room_for_others() {
        let path = Path::new("/x/unit-test-unfinished");
        let start = Instant::now();
        // Numbers that are not descriptors, so nothing is really shut down.
        let fd = |n: usize| RawFd::MAX - n as RawFd;
        for n in 0..UNFINISHED {
            assert!(admit(fd(n), path, start));
        }
        assert!(!admit(fd(UNFINISHED), path, start));
        assert!(admit(fd(UNFINISHED), Path::new("/x/unit-test-other"), start), "each socket for itself");
        for n in 0..=UNFINISHED {
            connections().remove(&fd(n));
        }
    }

    #[test]
    fn a_send_that_fails_is_heard_of_where_it_is_read() {
        let mut pair = [0; 2];
        let mut text = [0u8; MESSAGE];
        let mut part = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: MESSAGE };
        // SAFETY: sockets, buffers and headers of our own.
        unsafe {
            let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
            assert_eq!(libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()), 0);
            let mut message: msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
            // A peer that does not read causes neither a wait nor an error, but the end of the connection.
            let mut sent = 0;
            while libc::recv(pair[1], [0u8; 1].as_mut_ptr().cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) != 0 {
                assert_eq!(send(pair[0], &message, 0), MESSAGE as ssize_t);
                sent += 1;
                if sent > 100_000 {
                    break;
                }
                let mut poll = libc::pollfd { fd: pair[0], events: libc::POLLRDHUP, revents: 0 };
                if libc::poll(&mut poll, 1, 0) == 1 {
                    break;
                }
            }
            assert!((2..100_000).contains(&sent), "{sent}");
            assert_eq!(libc::recv(pair[0], text.as_mut_ptr().cast(), MESSAGE, libc::MSG_DONTWAIT), 0);
            libc::close(pair[1]);
            assert_eq!(send(pair[0], &message, 0), MESSAGE as ssize_t);
            libc::close(pair[0]);
        }
    }
}
