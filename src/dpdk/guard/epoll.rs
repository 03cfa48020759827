//! Keeps EAL's interrupt thread running, whatever happens to the files that it waits for.
//!
//! Whenever its list of files changes, the thread creates a new epoll instance and adds all files to it. It panics if
//! either fails (`eal_intr_thread_main`). But a file may have been closed by then, and a process that is out of
//! descriptors has none for a new instance, since the old one has just been closed.

use std::ffi::c_int;
use std::time::Duration;

use super::super::log;
use super::peers::{Spare, errno};
use super::plt;

static SPARE: Spare = Spare::new();

/// Replaces EAL's `epoll_ctl`: adding a file that is closed or already present is not an error. The interrupt thread's
/// own additions differ from others (`rte_epoll_ctl`) by their data, the descriptor itself.
unsafe extern "C" fn control(instance: c_int, operation: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int {
    // SAFETY: the caller's own arguments.
    let code = unsafe { libc::epoll_ctl(instance, operation, fd, event) };
    if code == 0 || operation != libc::EPOLL_CTL_ADD || event.is_null() {
        return code;
    }
    // SAFETY: the caller's event; not null. The type is packed, so its fields are copied.
    let mine = unsafe { (*event).u64 } as u32 == fd as u32;
    let error = errno();
    if !mine || !matches!(error, libc::EBADF | libc::EEXIST | libc::EPERM | libc::ENOENT | libc::ENOSPC | libc::ENOMEM)
    {
        return code;
    }
    log::tell(&format!("EAL no longer waits for file {fd} ({})", std::io::Error::from_raw_os_error(error)));
    0
}

/// Replaces EAL's `epoll_create`: waits until it succeeds.
unsafe extern "C" fn create(_: c_int) -> c_int {
    loop {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd >= 0 {
            SPARE.fill();
            return fd;
        }
        if !SPARE.spend() {
            log::tell(&format!(
                "EAL's interrupt thread is waiting for a file descriptor ({})",
                std::io::Error::last_os_error()
            ));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns `false` if EAL is linked in another way.
pub(super) fn install() -> bool {
    SPARE.fill();
    let calls = [(c"epoll_ctl", control as *const ()), (c"epoll_create", create as *const ())];
    // SAFETY: both have the types of what they replace, and can be called from any thread.
    unsafe { plt::replace("librte_eal.so", &calls) == Some(calls.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EAL's own `epoll_ctl` fails here, and `rte_panic` follows.
    #[test]
    fn files_that_are_gone_are_passed_over() {
        // SAFETY: descriptors that are made and closed here, and events of our own.
        unsafe {
            let instance = create(1);
            assert!(instance >= 0);
            let mut pipe = [0; 2];
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
            let event = |fd: c_int| libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
            assert_eq!(control(instance, libc::EPOLL_CTL_ADD, pipe[0], &mut event(pipe[0])), 0);
            // A file added twice, a file that cannot be waited for, and a closed one.
            assert_eq!(control(instance, libc::EPOLL_CTL_ADD, pipe[0], &mut event(pipe[0])), 0);
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            assert_eq!(control(instance, libc::EPOLL_CTL_ADD, null, &mut event(null)), 0);
            assert_eq!(control(instance, libc::EPOLL_CTL_ADD, 1_000_000, &mut event(1_000_000)), 0);
            // Other callers get their errors.
            assert_eq!(control(instance, libc::EPOLL_CTL_ADD, 1_000_000, &mut event(7)), -1);
            assert_eq!(control(instance, libc::EPOLL_CTL_DEL, null, &mut event(null)), -1);
            for fd in [instance, pipe[0], pipe[1], null] {
                libc::close(fd);
            }
        }
    }

    #[test]
    fn eal_is_found() {
        assert!(install());
    }
}
