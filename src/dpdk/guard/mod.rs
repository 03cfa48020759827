//! Keeps peers from ending the process through DPDK.
//!
//! DPDK trusts whoever is at the other end of a port's socket more than a process that is to be left alone can. What it
//! calls in the C library (and, for memif, in EAL) is therefore replaced in the relocation tables of a few of its
//! libraries, by functions that do the same and look first. Nobody else's calls are touched, and nothing of it is on
//! the path of a packet but the two stores of a [`Gate`].
//!
//! # How DPDK ends a process, and what stands before it
//! By `rte_panic` (which aborts) and `rte_exit`, as found in the sources of 22.11, 23.11, 24.11 and 25.11 (the places are
//! the same but for the two that are said), for what Gannet uses:
//!
//! | where | when | guard |
//! | --- | --- | --- |
//! | `eal_interrupts.c`, "Error adding fd" | a file on the interrupt thread's list was closed | [`memif`] takes handlers off the list before their memory goes, and no send fails visibly; [`epoll`] passes over files that are gone |
//! | the same, "Cannot create epoll instance" | no file descriptor is free | [`epoll`] keeps one in reserve, and waits; [`peers`] and [`vhost`] bound connections and their files, [`memif`] takes in no file that the driver would forget |
//! | `eal_dev.c`, in-flight hotplug `rte_exit` | SIGBUS handling of hotplug | never switched on |
//! | `eal.c`, `eal_hugepage_info.c`, `eal_unix_thread.c`, `eal_unix_memory.c` | at start: pipes, threads, `/proc`, the page size | before anybody is served; no peer is there yet |
//! | `ethdev_private.c`, before 23.11 | no memory at the first port | as above |
//! | `vhost.h`, since 23.11 | the library forgot a lock of its own | nothing that a peer says decides that |
//! | `mempool.c`, `mbuf.c`: `RTE_VERIFY`, cookies | a pool's header is overwritten | only a peer that shares our memory can do it (`SECURITY.md`) |
//! | `eal_timer.c` | HPET without HPET | never called |
//!
//! By a signal, on what a peer says: a memif peer's region, rings and lengths ([`conversation`], and for every frame
//! `Queue::rx_burst`); regions unmapped during a burst ([`bursts`]); SIGPIPE, which Rust ignores and `sendmsg` here does
//! not raise. By standing still: reads and writes on a peer's socket never block a thread of DPDK for long ([`memif`],
//! [`vhost`]).
//!
//! The drivers of kernel interfaces have no peer, but a kernel that may have no room: see [`kernel`], also for what these
//! drivers do not count.
//!
//! What is in memory that is shared with a peer stays the peer's to write: descriptors of memif rings and of virtqueues
//! are read by drivers without doubt. `SECURITY.md` says what that means for who may hold a socket's other end.

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

/// Guards EAL's interrupt thread; before EAL is started.
pub(super) fn install_eal() {
    static DONE: OnceLock<bool> = OnceLock::new();
    DONE.get_or_init(epoll::install);
}

/// Guards the driver called `driver`, once per process. `false` when some of its calls were not found: a driver that is
/// linked in another way.
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

/// After a port of `driver` was closed on this thread.
pub(super) fn closed(driver: &str) {
    if driver == "net_vhost" {
        vhost::reap();
    }
}
