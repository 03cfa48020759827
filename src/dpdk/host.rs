//! Kernel interfaces that ports share with the kernel.
//!
//! No setting that a port makes on an interface may outlive the process, however it ends. Interface flags and MAC
//! addresses (`SIOCSIFFLAGS`, `SIOCSIFHWADDR`, as used by DPDK's drivers) persist after `kill -9`. Memberships of a
//! packet socket (packet(7)) have the same effect on the device and end with the socket, and so with the process.

use std::ffi::{CStr, c_int};
use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use super::error::{KernelAddress, PortError};

/// From `<linux/if_packet.h>`; the `libc` crate does not define it.
const PACKET_MR_UNICAST: c_int = 3;

/// A kernel interface in use by a port, with the socket that holds its memberships and receives nothing.
pub(super) struct Interface {
    name: String,
    index: c_int,
    socket: OwnedFd,
    groups: Mutex<Vec<[u8; 6]>>,
}

impl Interface {
    /// Opens the interface `name` in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error: no such interface, or no permission for packet sockets.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        // SAFETY: no pointers; we own the returned descriptor. Protocol 0 receives no packets.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let request = ask(&socket, libc::SIOCGIFINDEX, name)?;
        // SAFETY: the kernel filled in this member.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(Self { name: name.to_owned(), index, socket, groups: Mutex::default() })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its index.
    pub(super) fn index(&self) -> i32 {
        self.index
    }

    /// Its own MAC address.
    pub(super) fn mac(&self) -> io::Result<[u8; 6]> {
        let request = ask(&self.socket, libc::SIOCGIFHWADDR, &self.name)?;
        // SAFETY: the kernel filled in this member.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(std::array::from_fn(|i| data[i] as u8))
    }

    fn flags(&self) -> io::Result<c_int> {
        let request = ask(&self.socket, libc::SIOCGIFFLAGS, &self.name)?;
        // SAFETY: the kernel filled in this member.
        Ok(c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Returns whether the interface is up and has a carrier.
    pub(super) fn link(&self) -> bool {
        let both = libc::IFF_UP | libc::IFF_RUNNING;
        self.flags().is_ok_and(|flags| flags & both == both)
    }

    /// Returns whether the interface was deleted. One that is made later with the same name is another.
    pub(super) fn is_gone(&self) -> bool {
        // SAFETY: plain data, for which zero is valid.
        let mut request: libc::ifreq = unsafe { zeroed() };
        request.ifr_ifru.ifru_ifindex = self.index;
        // SAFETY: an open socket, and a request that names an index.
        let code = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFNAME as _, &raw mut request) };
        code != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENODEV)
    }

    /// The problem with the link, and a remedy.
    pub(super) fn link_problem(&self) -> String {
        let name = &self.name;
        match self.flags() {
            Err(e) => format!("interface {name} is gone ({e})"),
            Ok(flags) if flags & libc::IFF_UP == 0 => format!("interface {name} is down: `ip link set dev {name} up`"),
            Ok(_) => format!("interface {name} has no carrier: is the other end of the cable or of the veth pair up?"),
        }
    }

    /// Receives frames for `mac` too.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn add_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        self.member(libc::PACKET_ADD_MEMBERSHIP, PACKET_MR_UNICAST, mac)
    }

    /// Receives frames for any address.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn promiscuous(&self) -> io::Result<()> {
        self.member(libc::PACKET_ADD_MEMBERSHIP, libc::PACKET_MR_PROMISC, [0; 6])
    }

    /// Receives frames for these groups, in place of the previous ones.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn set_groups(&self, groups: &[[u8; 6]]) -> io::Result<()> {
        let mut held = self.groups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for gone in held.extract_if(.., |group| !groups.contains(group)) {
            self.member(libc::PACKET_DROP_MEMBERSHIP, libc::PACKET_MR_MULTICAST, gone)?;
        }
        for &group in groups {
            if !held.contains(&group) {
                self.member(libc::PACKET_ADD_MEMBERSHIP, libc::PACKET_MR_MULTICAST, group)?;
                held.push(group);
            }
        }
        Ok(())
    }

    fn member(&self, what: c_int, kind: c_int, mac: [u8; 6]) -> io::Result<()> {
        // SAFETY: plain data, for which zero is valid.
        let mut wish: libc::packet_mreq = unsafe { zeroed() };
        wish.mr_ifindex = self.index;
        wish.mr_type = kind as u16;
        wish.mr_alen = mac.len() as u16;
        wish.mr_address[..mac.len()].copy_from_slice(&mac);
        let len = size_of::<libc::packet_mreq>() as libc::socklen_t;
        // SAFETY: an open socket, and a value of the type that the option has.
        let code =
            unsafe { libc::setsockopt(self.socket.as_raw_fd(), libc::SOL_PACKET, what, (&raw const wish).cast(), len) };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// An empty request for the interface `name`, if that is a valid name.
fn request(name: &str) -> Option<libc::ifreq> {
    // SAFETY: plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // There must be room for the terminating NUL.
    if name.len() >= request.ifr_name.len() || name.as_bytes().contains(&0) {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    Some(request)
}

/// Makes the request `what` about the interface `name`.
fn ask(socket: &impl AsRawFd, what: u64, name: &str) -> io::Result<libc::ifreq> {
    let mut request = request(name).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: an open socket, and a request with a NUL-terminated name that the kernel fills in.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw mut request) };
    if code == 0 { Ok(request) } else { Err(io::Error::last_os_error()) }
}

/// The MTU in bytes of the interface `name` in this thread's network namespace, which `/sys` need not show.
pub(super) fn mtu(name: &str) -> Option<u32> {
    let request = ask(&UnixDatagram::unbound().ok()?, libc::SIOCGIFMTU, name).ok()?;
    // SAFETY: the kernel filled in this member.
    u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok()
}

/// What [`SIOCETHTOOL`] is asked for with [`ETHTOOL_GCHANNELS`] (`struct ethtool_channels`).
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// From `<linux/sockios.h>` and `<linux/ethtool.h>`; the `libc` crate does not define them.
const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The number of receive queues of the interface `name` that XDP sockets can take, as the driver of DPDK counts them: those
/// that `ethtool -L` calls combined, and one where there are no such. `None` if there is no such interface.
pub(super) fn channels(name: &str) -> Option<u32> {
    mtu(name)?;
    let socket = UnixDatagram::unbound().ok()?;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: an open socket, and a request with a NUL-terminated name and a structure that the kernel fills in.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    Some(if code != 0 || channels.max_combined == 0 { 1 } else { channels.combined })
}

/// All addresses of the kernel in this thread's network namespace; empty if they cannot be read.
pub fn kernel_addresses() -> Vec<KernelAddress> {
    let mut found = Vec::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call makes a list, whose members are read before it is freed, once.
    unsafe {
        if libc::getifaddrs(&raw mut list) != 0 {
            return found;
        }
        let mut at = list;
        while let Some(entry) = at.as_ref() {
            at = entry.ifa_next;
            let (Some(addr), mask) = (ip_of(entry.ifa_addr), ip_of(entry.ifa_netmask)) else { continue };
            let prefix = mask.map_or(0, |mask| match mask {
                IpAddr::V4(mask) => mask.to_bits().count_ones(),
                IpAddr::V6(mask) => mask.to_bits().count_ones(),
            });
            let interface = CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned();
            found.push(KernelAddress { interface, addr, prefix: prefix as u8 });
        }
        libc::freeifaddrs(list);
    }
    found
}

/// # Safety
/// `address` is null, or a socket address as long as its family requires.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller says.
    unsafe {
        match c_int::from(address.as_ref()?.sa_family) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// Frames that the kernel dropped on the way to the reader of the tap interface `name`, from `/proc/net/dev`.
pub(super) fn dropped_on_the_way_out(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    tx_drops(&text, name).unwrap_or(0)
}

/// The name is followed by eight columns for received and eight for sent frames: bytes, packets, errors, drops, and so
/// on.
fn tx_drops(text: &str, name: &str) -> Option<u64> {
    let (_, counts) = text.lines().filter_map(|line| line.split_once(':')).find(|(iface, _)| iface.trim() == name)?;
    counts.split_whitespace().nth(8 + 3)?.parse().ok()
}

/// A claim on addresses or queues of an interface among all processes of this program, until dropped.
///
/// Two stacks with the same address on an interface both answer every packet, one of them wrongly; of two sockets on
/// one receive queue, one gets nothing. So each address or queue is claimed by the name of an abstract socket
/// (unix(7)), which is unique in a network namespace and which the kernel releases with the process.
pub struct Claim(Vec<OwnedFd>);

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Claim").field(&self.0.len()).finish()
    }
}

/// The process that holds a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pid: i32,
    name: String,
}

/// Claims `addrs` on `interface`. If `alone`, also checks that the kernel does not have them. Without an interface,
/// nobody else sees what arrives.
///
/// # Errors
/// [`PortError::KernelHasAddress`] and [`PortError::AddressInUse`].
pub(super) fn claim(interface: Option<&str>, alone: bool, addrs: &[IpAddr]) -> Result<Claim, PortError> {
    let Some(interface) = interface else { return Ok(Claim(Vec::new())) };
    if alone {
        let taken = kernel_addresses().into_iter().find(|kernel| addrs.contains(&kernel.addr));
        if let Some(kernel) = taken {
            return Err(PortError::KernelHasAddress { port: interface.to_owned(), kernel });
        }
    }
    hold(interface, "address", addrs.iter().copied(), |addr, Holder { pid, name }| PortError::AddressInUse {
        interface: interface.to_owned(),
        addr,
        pid,
        name,
    })
}

/// Claims `count` receive queues of `interface`, starting at `first`.
///
/// # Errors
/// [`PortError::QueueInUse`].
pub(super) fn claim_queues(interface: &str, first: u32, count: u16) -> Result<Claim, PortError> {
    let queues = first..first.saturating_add(count.into());
    hold(interface, "queue", queues, |queue, Holder { pid, name }| PortError::QueueInUse {
        interface: interface.to_owned(),
        queue,
        pid,
        name,
    })
}

/// Claims `items` of kind `what` on an interface.
fn hold<T: Copy + std::fmt::Display>(
    interface: &str,
    what: &str,
    items: impl Iterator<Item = T>,
    taken: impl Fn(T, Holder) -> PortError,
) -> Result<Claim, PortError> {
    let Ok(at) = Interface::open(interface) else { return Ok(Claim(Vec::new())) };
    let mut held = Vec::new();
    for item in items {
        let socket = take(&format!("gannet/{what}/{}/{item}", at.index())).map_err(|holder| taken(item, holder))?;
        held.extend(socket);
    }
    Ok(Claim(held))
}

/// Creates the abstract socket `name`, unless a process of our user or root has it. If no socket can be created, or
/// another user has it, who must not be able to keep us from starting, continues without one.
fn take(name: &str) -> Result<Option<OwnedFd>, Holder> {
    // SAFETY: plain data, for which zero is valid.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // The first byte stays NUL, which makes it abstract.
    for (to, from) in address.sun_path[1..].iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    let len = (std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len()) as libc::socklen_t;
    // SAFETY: an address of ours, of `len` bytes; descriptors that are ours.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        if fd < 0 {
            return Ok(None);
        }
        let socket = OwnedFd::from_raw_fd(fd);
        if libc::bind(fd, (&raw const address).cast(), len) == 0 {
            libc::listen(fd, 8);
            return Ok(Some(socket));
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EADDRINUSE)
            || libc::connect(fd, (&raw const address).cast(), len) != 0
        {
            return Ok(None);
        }
        let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let code = libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &raw mut len);
        if code != 0 || (who.uid != 0 && who.uid != libc::geteuid()) {
            return Ok(None);
        }
        let name = std::fs::read_to_string(format!("/proc/{}/comm", who.pid)).unwrap_or_default();
        Err(Holder { pid: who.pid, name: name.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces() {
        assert!(mtu("lo").is_some_and(|m| m >= 1280));
        assert_eq!(mtu("gannet-none"), None);
        assert_eq!(mtu("a-name-much-longer-than-sixteen"), None);
        assert!(Interface::open("gannet-none").is_err());
    }

    #[test]
    fn the_kernels_addresses() {
        let all = kernel_addresses();
        let lo = KernelAddress { interface: "lo".into(), addr: Ipv4Addr::LOCALHOST.into(), prefix: 8 };
        // If loopback is down in the namespace, it has no address.
        assert!(all.contains(&lo) || all.is_empty(), "{all:?}");
    }

    #[test]
    fn columns_of_proc_net_dev() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n    \
                    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\ngannet0: 100 2 0 0 0 0 0 0 100 7 0 42 0 0 0 0\n";
        assert_eq!(
            (tx_drops(text, "gannet0"), tx_drops(text, "lo"), tx_drops(text, "gan")),
            (Some(42), Some(12), None)
        );
    }

    #[test]
    fn a_name_is_taken_once_and_given_back() {
        let name = format!("gannet/test/{}", std::process::id());
        let first = take(&name).unwrap().expect("a socket");
        let holder = take(&name).unwrap_err();
        assert_eq!(holder.pid, std::process::id() as i32);
        assert!(!holder.name.is_empty());
        drop(first);
        assert!(take(&name).unwrap().is_some());
    }
}
