//! Three network namespaces in a row: the client, the forwarder, the server.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{About, Result};
use crate::process::tool;

/// First part of the name of every namespace; the pid of its maker follows.
const PREFIX: &str = "gannet-io-";

/// The UDP port of all servers.
pub const PORT: u16 = 4433;

/// The server's addresses.
pub const SERVER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 9, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

/// Another IPv4 address of servers, which they may prefer (RFC 9000 §9.6).
pub const PREFERRED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 4);

/// The client's addresses.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 9, 0, 2), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

/// Who speaks IP at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// The kernel: the interface has its addresses.
    Kernel,
    /// Gannet, over DPDK: the interface has no address, and the kernel stays quiet.
    Bypass,
}

/// The client's or the server's end.
#[derive(Clone, Debug)]
pub struct End {
    /// The namespace.
    pub ns: String,
    /// The interface in it.
    pub iface: String,
    /// IPv4 address, in a /24.
    pub v4: Ipv4Addr,
    /// IPv6 address, in a /64.
    pub v6: Ipv6Addr,
}

/// The namespaces. They are removed, with all that runs in them, when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The client's end.
    pub client: End,
    /// The server's end.
    pub server: End,
    /// The forwarder's namespace. Its interfaces are `to-client` and `to-server`.
    pub middle: String,
    /// MTU of both links in bytes.
    pub mtu: u16,
}

impl Lab {
    /// Makes the namespaces, their interfaces and addresses.
    ///
    /// # Errors
    /// If `ip` or `ethtool` fail.
    pub fn new(client: Stack, server: Stack, mtu: u16) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let end = |side: &str, (v4, v6)| End { ns: format!("{name}-{side}"), iface: format!("eth-{side}"), v4, v6 };
        // Made first, so that a failure removes what is there by then.
        let lab =
            Self { client: end("client", CLIENT), server: end("server", SERVER), middle: format!("{name}-mid"), mtu };
        for ns in lab.namespaces() {
            tool("ip", ["netns", "add", ns])?;
        }
        for (end, stack, near) in [(&lab.client, client, "to-client"), (&lab.server, server, "to-server")] {
            let veth = ["link", "add", near, "netns", &lab.middle, "type", "veth", "peer", "name", &end.iface];
            tool("ip", veth.iter().chain(&["netns", &end.ns]))?;
            configure(&lab.middle, near, mtu)?;
            configure(&end.ns, &end.iface, mtu)?;
            set_ipv6(&lab.middle, near, "disable_ipv6", 1)?;
            match stack {
                Stack::Kernel => {
                    set_ipv6(&end.ns, &end.iface, "accept_dad", 0)?;
                    set_ipv6(&end.ns, &end.iface, "accept_ra", 0)?;
                    tool("ip", ["-n", &end.ns, "addr", "add", &format!("{}/24", end.v4), "dev", &end.iface])?;
                    if end.v4 == SERVER.0 {
                        tool("ip", ["-n", &end.ns, "addr", "add", &format!("{PREFERRED}/24"), "dev", &end.iface])?;
                    }
                    let v6 = format!("{}/64", end.v6);
                    tool("ip", ["-n", &end.ns, "addr", "add", &v6, "dev", &end.iface, "nodad"])?;
                }
                // Otherwise, the kernel would answer neighbour solicitations from its own link-local address.
                Stack::Bypass => set_ipv6(&end.ns, &end.iface, "disable_ipv6", 1)?,
            }
            tool("ip", ["-n", &end.ns, "link", "set", &end.iface, "up"])?;
            tool("ip", ["-n", &lab.middle, "link", "set", near, "up"])?;
        }
        Ok(lab)
    }

    fn namespaces(&self) -> [&str; 3] {
        [&self.client.ns, &self.middle, &self.server.ns]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.namespaces().into_iter().for_each(remove);
    }
}

/// Offloads are off: with them, frames have partial checksums or are super-packets far above the MTU.
fn configure(ns: &str, iface: &str, mtu: u16) -> Result<()> {
    tool("ip", ["-n", ns, "link", "set", "lo", "up"])?;
    tool("ip", ["-n", ns, "link", "set", iface, "mtu", &mtu.to_string()])?;
    let off = ["tx", "rx", "gso", "gro", "tso", "tx-udp-segmentation"].map(|o| [o, "off"]);
    tool("ip", ["netns", "exec", ns, "ethtool", "-K", iface].iter().chain(off.as_flattened()))?;
    Ok(())
}

fn set_ipv6(ns: &str, iface: &str, key: &str, value: u32) -> Result<()> {
    let script = format!("echo {value} > /proc/sys/net/ipv6/conf/{iface}/{key}");
    tool("ip", ["netns", "exec", ns, "sh", "-c", &script])?;
    Ok(())
}

impl End {
    /// A command that runs `program` in this namespace, and that the kernel kills when this thread ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns, "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// The address of one IP version.
    pub fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }
}

/// Moves this thread into a namespace.
///
/// # Errors
/// If it does not exist, or this process lacks the right.
pub fn enter(ns: &str) -> Result<()> {
    let file = File::open(Path::new("/run/netns").join(ns)).about(|| format!("the namespace {ns}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).about(|| format!("to enter {ns}"))
}

/// Removes a namespace and ends what still runs in it. Its interfaces go with it.
fn remove(ns: &str) {
    if !Path::new("/run/netns").join(ns).exists() {
        return;
    }
    for pid in tool("ip", ["netns", "pids", ns]).unwrap_or_default().split_whitespace() {
        // It may have ended meanwhile.
        let _ = pid.parse().ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::KILL));
    }
    if let Err(error) = tool("ip", ["netns", "del", ns]) {
        eprintln!("warning: {error}");
    }
}

/// Removes namespaces whose maker is gone: its run was killed before it could clean up.
pub fn remove_stale() {
    let Ok(dir) = std::fs::read_dir("/run/netns") else { return };
    for name in dir.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            eprintln!("removing the namespace {name} of a run that was killed");
            remove(&name);
        }
    }
}
