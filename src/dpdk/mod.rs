//! Layer `dpdk`: the environment, ports and their queues, packet buffers. The only layer above `dpdk-sys` that calls
//! DPDK.
//!
//! # Ownership
//! - [`Eal`] is started once per process. Ports, queues, pools and thread guards hold references to it, so it is
//!   cleaned up after the last of them, whatever the order of dropping.
//! - A [`Port`] owns its device, its mempools and, until they are taken, its [`Queue`]s. Queues share the port: it
//!   stays open while one of them lives, and closing it stops the device and removes it and its sockets.
//! - A [`Queue`] is one RX/TX queue pair and belongs to one thread at a time (`Send`, but neither `Sync` nor `Clone`),
//!   as DPDK requires.
//! - A frame ([`RxMbuf`], [`TxMbuf`]) owns its buffer. Receiving creates one; dropping it returns the buffer; sending
//!   hands it to the device, and frames that the device does not accept stay in the sender's burst. A frame that
//!   outlives its port keeps its pool's memory mapped for the rest of the process, so it never dangles.
//! - A frame may be dropped on any thread. Its buffer goes to that thread's cache of the pool; pools have room for that if
//!   the profile knows the number of cores. Between cores, frames move by [`mesh`].
//!
//! # Many cores
//! A port has a queue pair for each core ([`PortProfile::for_cores`]), over which its device spreads received frames. A
//! port with a single queue pair can serve many cores too: one of them polls it and spreads what it receives
//! ([`PortProfile::spread_over`], [`Port::take_spread`]). [`Port::steering`] computes at which core a packet arrives, so
//! that clients can choose source ports whose answers come to the core that sends. Frames that arrive at the wrong core
//! are handed over by pointer ([`RingExchange`]). Pools are large enough for the frames that all cores together can hold
//! back.
//!
//! All queues notice when a device is unplugged or an interface deleted
//! ([`Datapath::removed`](crate::datapath::Datapath::removed)).
//!
//! # Peers
//! Some ports talk to another process over a socket (memif, vhost-user). DPDK's drivers are guarded against its
//! messages. Where it can write to our packet buffers ([`PortProfile::memory`]), frames are copied to private memory
//! unless the profile trusts it ([`PortProfile::copies_frames`]). `SECURITY.md` has the details.
//!
//! Polling threads should hold a [`ThreadGuard`] from [`Eal::register_thread`], for their mempool caches.

mod drivers;
mod eal;
mod error;
mod exchange;
mod guard;
mod host;
mod hugepages;
mod interrupts;
mod iova;
mod log;
mod mbuf;
mod numa;
mod pool;
mod port;
mod profile;
mod room;
mod sockets;
mod wakeups;
mod xdp;

pub use drivers::{
    BUILT_AGAINST, DriverInfo, absent_drivers, available_drivers, debian_package, drivers_at_build, plugin_dir,
};
pub use eal::{Eal, EalConfig, LogLevel, ThreadGuard};
pub use error::{EalError, KernelAddress, PortError, ProfileError};
pub use exchange::{Frame, RingExchange, mesh};
pub use host::{Claim, kernel_addresses};
pub use hugepages::{Hugepages, free_bytes as free_hugepage_bytes, mounted as hugetlbfs_mounted};
pub use iova::{Iova, bind_remedy, no_iommu_remedy};
pub use mbuf::{Mbuf, RxMbuf, TxMbuf};
pub use numa::{far_cpus, node_of_cpu};
pub use port::{MemoryGuard, PoolGuard, Port, PortStats, Queue, SpreadQueue, StockQueue};
pub use profile::{Bus, Memory, Offloads, PortProfile};
pub use room::MAX_CORES;
pub use sockets::{runtime_dir, runtime_dir_problem};
pub use xdp::{XdpProgram, xdp_programs};
