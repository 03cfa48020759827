//! Keeps peers from crashing the process through DPDK.
//!
//! DPDK trusts the peer at the other end of a port's socket more than a long-running process can afford. So some of the
//! functions of the C library (and, for memif, of EAL) that it calls are replaced, in the relocation tables of a few of
//! its libraries, by functions that do the same after some checks. Calls by other code are not affected, and the only
//! cost per burst is the two stores of a [`Gate`].
//!
//! # How DPDK can end the process, and what prevents it
//! By `rte_panic` (which aborts) and `rte_exit`, in the sources of 22.11, 23.11, 24.11 and 25.11 (all the same except
//! where noted), as far as Gannet uses them:
//!
//! | where | when | guard |
//! | --- | --- | --- |
//! | `eal_interrupts.c`, "Error adding fd" | a file on the interrupt thread's list was closed | [`memif`] takes handlers off the list before their memory is freed, and hides failures to send; [`epoll`] skips closed files |
//! | the same, "Cannot create epoll instance" | no file descriptor is free | [`epoll`] keeps one in reserve, and waits; [`peers`] and [`vhost`] bound connections and their files, [`memif`] keeps no file that the driver would leak |
//! | `eal_dev.c`, in-flight hotplug `rte_exit` | SIGBUS handling of hotplug | never enabled |
//! | `eal.c`, `eal_hugepage_info.c`, `eal_unix_thread.c`, `eal_unix_memory.c` | at start: pipes, threads, `/proc`, the page size | before there are any peers |
//! | `ethdev_private.c`, before 23.11 | no memory at the first port | as above |
//! | `vhost.h`, since 23.11 | the library did not take a lock of its own | does not depend on what peers say |
//! | `mempool.c`, `mbuf.c`: `RTE_VERIFY`, cookies | a pool's header is overwritten | only a peer that shares our memory can do it (`SECURITY.md`) |
//! | `eal_timer.c` | HPET without HPET | never called |
//!
//! By a signal caused by a peer: a memif peer's regions, rings and lengths ([`conversation`], and for every frame
//! `Queue::rx_burst`); regions unmapped during a burst ([`bursts`]); SIGPIPE, which Rust ignores and the replaced
//! `sendmsg` does not raise. By blocking: reads and writes on a peer's socket never block a DPDK thread for long
//! ([`memif`], [`vhost`]).
//!
//! The drivers of kernel interfaces have no peers, but the kernel may have no room: see [`kernel`], also for what these
//! drivers do not count.
//!
//! Memory that is shared with a peer stays writable for the peer: drivers read the descriptors of memif rings and
//! virtqueues without checks. `SECURITY.md` says what that means for who may be at a socket's other end.

mod bursts;
mod conversation;
pub(super) mod doorbell;
mod epoll;
mod kernel;
mod memif;
mod peers;
mod plt;
mod vhost;

use std::sync::OnceLock;

pub(super) use bursts::Gate;
pub(super) use kernel::{packet_drops, packet_sockets, xdp_sockets};
pub(super) use memif::last_words;
pub(super) use peers::{Interface, Registered};

/// Guards EAL's interrupt thread. To be called before EAL is started.
pub(super) fn install_eal() {
    static DONE: OnceLock<bool> = OnceLock::new();
    DONE.get_or_init(epoll::install);
}

/// Guards the driver `driver`, once per process. Returns `false` if some of its calls were not found, as in a driver
/// that is linked in another way.
pub(super) fn install(driver: &str) -> bool {
    static MEMIF: OnceLock<bool> = OnceLock::new();
    static VHOST: OnceLock<bool> = OnceLock::new();
    static VIRTIO: OnceLock<bool> = OnceLock::new();
    static PACKET: OnceLock<bool> = OnceLock::new();
    static XDP: OnceLock<bool> = OnceLock::new();
    match driver {
        "net_memif" => *MEMIF.get_or_init(memif::install),
        "net_vhost" => *VHOST.get_or_init(vhost::install),
        "net_af_packet" => *PACKET.get_or_init(kernel::install_packet),
        "net_af_xdp" => *XDP.get_or_init(kernel::install_xdp),
        "net_virtio_user" => *VIRTIO.get_or_init(vhost::install_guest),
        _ => true,
    }
}

/// To be called after a port of `driver` was closed on this thread.
pub(super) fn closed(driver: &str) {
    if driver == "net_vhost" {
        vhost::reap();
    }
}
