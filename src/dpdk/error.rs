//! Errors in opening ports.

use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

/// An address that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelAddress {
    /// The interface that has it.
    pub interface: String,
    /// The address.
    pub addr: IpAddr,
    /// The prefix length of its network, in bits.
    pub prefix: u8,
}

/// The reason why DPDK's environment did not start.
#[derive(Debug, Error)]
pub enum EalError {
    /// EAL was already initialised in this process; DPDK allows that only once, even after a clean-up.
    #[error("DPDK is already initialised in this process; share the `Eal` (it is `Clone`) instead of a second one")]
    AlreadyInitialised,
    /// `hugepages = "require"`, but too few are free.
    #[error(
        "hugepages are required, but only {free_mb} MB of them are free ({need_mb} MB needed); \
         `sysctl vm.nr_hugepages=512`, or set hugepages to \"auto\""
    )]
    NoHugepages {
        /// Free memory in MB.
        free_mb: u64,
        /// Needed memory in MB.
        need_mb: u64,
    },
    /// A device without an IOMMU cannot use ordinary pages.
    #[error(
        "a PCI device without an IOMMU needs hugepages, which do not move; {free_mb} MB of them are free, \
         {need_mb} MB are needed: `sysctl vm.nr_hugepages={}`", need_mb.div_ceil(2)
    )]
    PhysicalWithoutHugepages {
        /// Free memory in MB.
        free_mb: u64,
        /// Needed memory in MB.
        need_mb: u64,
    },
    /// Only root can obtain the physical addresses that such a device needs.
    #[error("a PCI device without an IOMMU needs physical addresses, which only root can obtain: run as root")]
    PhysicalWithoutRoot,
    /// A library that a driver needs is missing. The driver may be one that is not used: EAL loads all that are
    /// installed.
    #[error("DPDK did not start: an installed driver needs {library}, which is not installed; {package}")]
    Library {
        /// The file that was not found.
        library: String,
        /// The command that installs it.
        package: String,
    },
    /// A configuration value contains a NUL byte.
    #[error("EAL argument {0:?} contains a NUL byte")]
    Argument(String),
    /// `rte_eal_init` failed.
    #[error("DPDK did not start: {reason}{}{detail}", separator(detail))]
    Init {
        /// The text of `rte_errno`.
        reason: String,
        /// What EAL logged.
        detail: String,
    },
    /// No lcore slot is left for this thread.
    #[error("cannot register this thread with DPDK: {0}; at most 128 threads can be registered at a time")]
    Thread(String),
}

/// The reason why a port did not open or an operation on it failed.
#[derive(Debug, Error)]
pub enum PortError {
    /// The driver, or a part of DPDK that it needs, is not installed.
    #[error(
        "driver {driver}: librte_{part}.so is not in {dir}; `apt-get install {package}`. Network drivers there: \
         {available}"
    )]
    NoDriver {
        /// DPDK's name of the driver.
        driver: &'static str,
        /// The missing part, as in its file name.
        part: &'static str,
        /// Its package in Debian and Ubuntu.
        package: String,
        /// The directory with the drivers.
        dir: String,
        /// The drivers in that directory.
        available: String,
    },
    /// The network interface does not exist.
    #[error("interface {iface:?} of profile {profile} does not exist; `ip link` lists what there is in this namespace")]
    NoInterface {
        /// The profile's name.
        profile: String,
        /// The interface.
        iface: String,
    },
    /// The interface's MTU is smaller than the profile's.
    #[error("interface {iface:?} has MTU {have}, the profile wants {want}; `ip link set dev {iface} mtu {want}`")]
    InterfaceMtu {
        /// The interface.
        iface: String,
        /// Its MTU in bytes.
        have: u32,
        /// The profile's MTU in bytes.
        want: u16,
    },
    /// The kernel has one of the port's addresses and would answer for it.
    #[error(
        "the kernel has {} on interface {}, and would answer for Gannet there (ICMP \"port unreachable\"); remove it: \
         `ip addr del {}/{} dev {}`, or give {port} another address; if a filter keeps the kernel from answering: `--set \
         kernel_address=shared`", kernel.addr, kernel.interface, kernel.addr, kernel.prefix, kernel.interface
    )]
    KernelHasAddress {
        /// The port.
        port: String,
        /// The address and the interface that has it.
        kernel: KernelAddress,
    },
    /// Another Gannet process uses this address on this interface.
    #[error("{addr} on interface {interface} is in use by process {pid} ({name}); stop it, or choose another address")]
    AddressInUse {
        /// The interface.
        interface: String,
        /// The address.
        addr: IpAddr,
        /// The process that has it.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// Another Gannet process receives from this queue of this interface.
    #[error(
        "receive queue {queue} of interface {interface} is in use by process {pid} ({name}); stop it, or choose another \
         queue with `--set devargs.start_queue=N`"
    )]
    QueueInUse {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The process that has it.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// The process lacks a capability.
    #[error("profile {profile} needs {capability}; run as root or `setcap {capability}+ep` on the executable")]
    Permission {
        /// The profile's name.
        profile: String,
        /// The missing capability.
        capability: &'static str,
    },
    /// Another process listens on the socket.
    #[error("socket {} is in use by another process; stop it or choose another with `--set devargs.{key}=PATH`", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
        /// The devargs key that names it.
        key: &'static str,
    },
    /// Nobody listens on the socket yet.
    #[error("nobody listens on socket {}; start the other side (the server) first", path.display())]
    NoServer {
        /// The socket.
        path: PathBuf,
    },
    /// The other side of the socket already has a peer and hangs up.
    #[error(
        "the other side of socket {} already has another peer; stop that one, or choose another socket with `--set \
         devargs.{key}=PATH`", path.display()
    )]
    SocketTaken {
        /// The socket.
        path: PathBuf,
        /// The devargs key that names it.
        key: &'static str,
    },
    /// The path exists and is not a socket, or its directory is missing or unsafe.
    #[error("socket path {} cannot be used: {reason}", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// An input or output file of a pcap port cannot be used.
    #[error("file {} cannot be used: {reason}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// DPDK did not create the virtual device.
    #[error("{driver} was not created from `{devargs}`: {reason}{}{detail}", separator(detail))]
    Create {
        /// DPDK's name of the driver.
        driver: &'static str,
        /// The arguments it was given.
        devargs: String,
        /// The error code's text.
        reason: String,
        /// What DPDK logged.
        detail: String,
    },
    /// The PCI device is missing, not bound to a suitable driver, or was not passed to EAL at start.
    #[error("PCI device {device} cannot be used by {driver}: {reason}")]
    Pci {
        /// The address.
        device: String,
        /// DPDK's name of the driver.
        driver: &'static str,
        /// The reason and a remedy.
        reason: String,
    },
    /// The device has fewer queues than the profile asks for.
    #[error(
        "{port} has at most {max} queues, the profile asks for {want}; use {max} cores and `--set queues={max}`, or let one \
         core spread what it receives over all (`--spread`, `--set queues=1`)"
    )]
    Queues {
        /// The port.
        port: String,
        /// The number it has.
        max: u16,
        /// The requested value.
        want: u16,
    },
    /// The device's rings are smaller than the profile asks for.
    #[error("{port} has at most {max} descriptors in a ring, the profile asks for {want}; `--set {key}={max}`")]
    Descriptors {
        /// The port.
        port: String,
        /// The profile's key.
        key: &'static str,
        /// The device's limit.
        max: u16,
        /// The requested value.
        want: u16,
    },
    /// The device's rings do not hold a burst.
    #[error("{port} has at most {max} descriptors in a ring, and bursts need {need}: it cannot be used")]
    FewDescriptors {
        /// The port.
        port: String,
        /// The number the device has.
        max: u16,
        /// Frames of a burst.
        need: u16,
    },
    /// A group of no cores, or of too many.
    #[error("{want} cores cannot exchange frames: 1 to {max} can")]
    Cores {
        /// The number of cores.
        want: u16,
        /// The largest number.
        max: u16,
    },
    /// The rings between cores could not be made.
    #[error("no memory for rings of {slots} frames between cores ({reason}); fewer cores need less")]
    Exchange {
        /// The slots of each ring.
        slots: u32,
        /// The text of `rte_errno`.
        reason: String,
    },
    /// The device does not support packets this large.
    #[error("{port} carries packets of at most {max} bytes, the profile's mtu is {want}; `--set mtu={max}`")]
    Mtu {
        /// The port.
        port: String,
        /// Its limit in bytes.
        max: u32,
        /// The requested size in bytes.
        want: u16,
    },
    /// Memif buffers must be larger than receive buffers.
    #[error(
        "memif buffers of {size} bytes are not safe with receive buffers of {room}: they have to be larger; omit \
         devargs.bsize, or `--set devargs.bsize={}`", room + 256
    )]
    MemifBuffer {
        /// `bsize`, in bytes.
        size: u32,
        /// Data bytes of a receive buffer.
        room: u32,
    },
    /// A mempool could not be allocated.
    #[error(
        "no memory for {mbufs} buffers of {size} bytes{} ({reason}); lower mbufs or rx_desc/tx_desc, or give more: \
         `{}`, or EalConfig::memory_mb without hugepages", on_node(*node), more_hugepages(*node)
    )]
    Memory {
        /// The number of buffers.
        mbufs: u32,
        /// The size of each in bytes.
        size: u32,
        /// The NUMA node of the device, on which they have to be.
        node: Option<u16>,
        /// The text of `rte_errno`.
        reason: String,
    },
    /// The device's NUMA node has too few free hugepages.
    #[error(
        "the device is on NUMA node {node}, where only {free_mb} MB of the {need_mb} MB of hugepages needed are free: \
         `echo {pages} > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages` gives enough"
    )]
    NodeMemory {
        /// The node.
        node: u16,
        /// What the port needs, in MB.
        need_mb: u64,
        /// What is free there, in MB.
        free_mb: u64,
        /// The number of hugepages of 2 MiB that the node should have.
        pages: u64,
    },
    /// A step in configuring the port failed.
    #[error("{port}: {step} failed: {reason}{}{detail}", separator(detail))]
    Step {
        /// The port.
        port: String,
        /// The step.
        step: &'static str,
        /// The error code's text.
        reason: String,
        /// What DPDK logged.
        detail: String,
    },
    /// Memory to be registered does not consist of whole pages.
    #[error("memory at {addr:#x}, {len} bytes, does not consist of whole pages of {page} bytes")]
    Alignment {
        /// Its address.
        addr: usize,
        /// Its length in bytes.
        len: usize,
        /// The page size in bytes.
        page: usize,
    },
}

/// The reason why a port profile cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// There is no such profile.
    #[error("unknown port profile {name:?}; profiles: {known}. A path to a file contains a '/' or ends in .toml")]
    Unknown {
        /// The requested value.
        name: String,
        /// The valid names.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read port profile {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        reason: String,
    },
    /// The text is not TOML, or uses features of TOML that profiles do not support.
    #[error("port profile {profile}, line {line}: {reason}")]
    Syntax {
        /// The profile.
        profile: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The key does not exist.
    #[error("port profile {profile}: unknown key {key:?}; keys: {known}")]
    UnknownKey {
        /// The profile.
        profile: String,
        /// The key.
        key: String,
        /// The valid names.
        known: String,
    },
    /// The value is not valid.
    #[error("port profile {profile}: {key} = {value:?} is not valid; expected {expected}")]
    BadValue {
        /// The profile.
        profile: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is valid.
        expected: String,
    },
    /// The driver ignores this key.
    #[error("port profile {profile}: {driver} ignores {key}: {instead}; omit {key}")]
    Ignored {
        /// The profile.
        profile: String,
        /// The key.
        key: String,
        /// DPDK's name of the driver.
        driver: &'static str,
        /// What takes effect instead.
        instead: &'static str,
    },
    /// The number of queues differs from the number of cores that poll them.
    #[error(
        "port profile {profile}: queues = {queues}, but one core polls one queue, and {cores} core(s) will: what arrives \
         at the others would be lost; `--set queues={cores}`"
    )]
    Queues {
        /// The profile.
        profile: String,
        /// The number of queues in the profile.
        queues: u16,
        /// The number of cores that poll.
        cores: u16,
    },
    /// A queue that one core polls for all, and others beside it.
    #[error(
        "port profile {profile}: queues = {queues}, but only one queue can be spread over cores by one of them; `--set \
         queues=1`, or one core for each queue and no `--spread`"
    )]
    Spread {
        /// The profile.
        profile: String,
        /// The number of queues in the profile.
        queues: u16,
    },
    /// A required key is missing.
    #[error("port profile {profile}: {key} is missing ({doc}); `--set {key}=VALUE`")]
    Missing {
        /// The profile.
        profile: String,
        /// The key.
        key: String,
        /// The meaning of the key.
        doc: &'static str,
    },
}

fn on_node(node: Option<u16>) -> String {
    node.map(|node| format!(" on NUMA node {node}")).unwrap_or_default()
}

/// What gives more hugepages, to one node if it matters.
fn more_hugepages(node: Option<u16>) -> String {
    match node {
        None | Some(0) => "sysctl vm.nr_hugepages=N".to_owned(),
        Some(node) => {
            format!("echo N > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages")
        }
    }
}

fn separator(detail: &str) -> &'static str {
    if detail.is_empty() { "" } else { ": " }
}

/// The text of a DPDK error code, positive or negative.
pub(super) fn text(code: i32) -> String {
    // SAFETY: returns a pointer to a static or thread-local NUL-terminated text.
    let text = unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_strerror(code.abs())) };
    text.to_string_lossy().into_owned()
}

/// The text of this thread's `rte_errno`.
pub(super) fn last() -> String {
    // SAFETY: reads a thread-local integer.
    text(unsafe { dpdk_sys::gannet_rte_errno() })
}
