//! Guards the drivers of kernel interfaces: AF_PACKET and AF_XDP.
//!
//! Neither driver exposes its sockets or the kernel's counters of them; the AF_PACKET driver (before DPDK 25) reads no
//! such counters at all. Both can block the polling core: the AF_PACKET driver without a limit if its send ring is
//! full, the AF_XDP driver for up to a second if nothing has arrived and the kernel wants to be woken.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use libc::{nfds_t, pollfd, sockaddr, socklen_t};

use super::plt;

thread_local! {
    /// Packet sockets that the driver has bound on this thread and that no port has claimed yet.
    static BOUND: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// The packet sockets that the AF_PACKET driver has bound on this thread since the last call, in the order of queues.
/// They are open until the device is stopped.
pub(in crate::dpdk) fn packet_sockets() -> Vec<RawFd> {
    BOUND.take()
}

thread_local! {
    /// XDP sockets whose counters the driver has read on this thread.
    static ASKED: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// The XDP sockets of a started AF_XDP port, in the order of queues. They are open until the device is stopped. A
/// library below the driver creates them, but the driver itself reads their counters.
pub(in crate::dpdk) fn xdp_sockets(port: u16) -> Vec<RawFd> {
    ASKED.take();
    // SAFETY: plain data, for which zero is valid, filled in by the call.
    unsafe {
        let mut stats: dpdk_sys::rte_eth_stats = std::mem::zeroed();
        dpdk_sys::rte_eth_stats_get(port, &raw mut stats);
    }
    ASKED.take()
}

/// Replaces the AF_PACKET driver's `bind`: records the socket.
unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the driver's own arguments.
    let code = unsafe { libc::bind(fd, address, len) };
    if code == 0 {
        BOUND.with_borrow_mut(|bound| bound.push(fd));
    }
    code
}

/// Replaces the `poll` of both drivers: it wakes the kernel but does not wait. The AF_PACKET driver then checks its
/// ring once more, and leaves the frames with their owner if there is no room.
unsafe extern "C" fn poll(files: *mut pollfd, count: nfds_t, _: c_int) -> c_int {
    // SAFETY: the driver's own arguments.
    unsafe { libc::poll(files, count, 0) }
}

/// From `<linux/if_xdp.h>`; the `libc` crate does not have it for all targets.
const SOL_XDP: c_int = 283;
const XDP_STATISTICS: c_int = 7;

/// `struct xdp_statistics` of Linux 5.9 and later; older kernels fill in the first three fields.
#[repr(C)]
struct XdpStatistics {
    rx_dropped: u64,
    rx_invalid_descs: u64,
    tx_invalid_descs: u64,
    rx_ring_full: u64,
}

/// Replaces the AF_XDP driver's `getsockopt`. The driver reports only `rx_dropped` as missed, but frames for which its
/// ring had no room are counted in `rx_ring_full`.
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: the driver's own arguments.
    unsafe {
        let code = libc::getsockopt(fd, level, option, value, len);
        let whole = code == 0 && level == SOL_XDP && option == XDP_STATISTICS;
        if whole {
            ASKED.with_borrow_mut(|asked| {
                asked.retain(|&other| other != fd);
                asked.push(fd);
            });
        }
        if whole && *len as usize >= size_of::<XdpStatistics>() {
            let mut counts = value.cast::<XdpStatistics>().read_unaligned();
            counts.rx_dropped += counts.rx_ring_full;
            value.cast::<XdpStatistics>().write_unaligned(counts);
        }
        code
    }
}

/// Frames that the kernel dropped since the last call because a packet socket's ring was full.
pub(in crate::dpdk) fn packet_drops(fd: RawFd) -> u64 {
    let mut counts = [0u32; 2];
    let mut len = size_of_val(&counts) as socklen_t;
    // SAFETY: `struct tpacket_stats`, two integers: packets and drops. The call resets both to 0.
    let code = unsafe {
        libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, counts.as_mut_ptr().cast(), &raw mut len)
    };
    if code == 0 { u64::from(counts[1]) } else { 0 }
}

pub(super) fn install_packet() -> bool {
    let calls = [(c"bind", bind as *const ()), (c"poll", poll as *const ())];
    // SAFETY: both have the types of what they replace, and can be called from any thread.
    unsafe { plt::replace("librte_net_af_packet.so", &calls) == Some(calls.len()) }
}

pub(super) fn install_xdp() -> bool {
    let calls = [(c"getsockopt", getsockopt as *const ()), (c"poll", poll as *const ())];
    // SAFETY: as above.
    unsafe { plt::replace("librte_net_af_xdp.so", &calls) == Some(calls.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_are_found_and_their_calls_are_replaced() {
        let drivers = crate::dpdk::available_drivers();
        for (name, install) in [("net_af_packet", install_packet as fn() -> bool), ("net_af_xdp", install_xdp)] {
            if drivers.iter().any(|d| d.name == name && d.problem.is_none()) {
                assert!(install(), "{name}");
            }
        }
    }

    #[test]
    fn a_full_ring_is_not_waited_for() {
        let mut pipe = [0; 2];
        // SAFETY: descriptors that are made and closed here.
        unsafe {
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
            // Nothing ever arrives here: with the driver's own timeout, infinite, this would not return.
            let mut file = pollfd { fd: pipe[0], events: libc::POLLIN, revents: 0 };
            assert_eq!(poll(&raw mut file, 1, -1), 0);
            libc::close(pipe[0]);
            libc::close(pipe[1]);
        }
    }
}
