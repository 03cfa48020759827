//! Two network namespaces joined by a veth pair, gone again when the test ends, however it ends.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// First part of the name of every namespace; the pid of its maker follows.
pub const PREFIX: &str = "gannet-it-";

/// Who speaks IP at one end of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// The kernel: the interface has its addresses.
    Kernel,
    /// Gannet, over DPDK: the interface has no address and the kernel stays quiet.
    Bypass,
}

/// One end of a [`Wire`].
#[derive(Clone, Debug)]
pub struct End {
    /// The namespace.
    pub ns: String,
    /// The interface in it.
    pub iface: String,
    /// The end's IPv4 address, in a /24.
    pub v4: Ipv4Addr,
    /// The end's IPv6 address, in a /64.
    pub v6: Ipv6Addr,
    /// MTU of the interface in bytes.
    pub mtu: u16,
}

/// A veth pair between two namespaces. Declare it before whatever runs inside: it must be dropped last.
#[derive(Debug)]
pub struct Wire {
    /// 10.9.0.1 and fd00::1.
    pub left: End,
    /// 10.9.0.2 and fd00::2.
    pub right: End,
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

impl Wire {
    /// Makes the namespaces, the interfaces and the addresses. Offloads are off at both ends: with them, frames
    /// arrive with partial checksums, or as super-packets far above the MTU.
    ///
    /// # Panics
    /// When `ip` or `ethtool` fail; the message has their words.
    pub fn new(left: Stack, right: Stack, mtu: u16) -> Self {
        static STALE: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        STALE.call_once(remove_stale);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let end = |side: &str, host: u8| End {
            ns: format!("{name}-{side}"),
            iface: format!("gan-{side}"),
            v4: Ipv4Addr::new(10, 9, 0, host),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()),
            mtu,
        };
        let wire = Self { left: end("left", 1), right: end("right", 2) };
        for end in [&wire.left, &wire.right] {
            // A run with the same pid may have been killed: `remove_stale` saw a living process there.
            remove(&end.ns);
            tool("ip", ["netns", "add", &end.ns]);
        }
        let (l, r) = (&wire.left, &wire.right);
        let veth = ["link", "add", &l.iface, "netns", &l.ns, "type", "veth", "peer", "name", &r.iface, "netns", &r.ns];
        tool("ip", veth);
        l.configure(left);
        r.configure(right);
        wire
    }

    /// A wire for two kernel stacks.
    pub fn kernels(mtu: u16) -> Self {
        Self::new(Stack::Kernel, Stack::Kernel, mtu)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        remove(&self.left.ns);
        remove(&self.right.ns);
    }
}

impl End {
    fn configure(&self, stack: Stack) {
        let (ns, iface) = (self.ns.as_str(), self.iface.as_str());
        tool("ip", ["-n", ns, "link", "set", "lo", "up"]);
        tool("ip", ["-n", ns, "link", "set", iface, "mtu", &self.mtu.to_string()]);
        let off = ["tx", "rx", "gso", "gro", "tso", "tx-udp-segmentation"].map(|o| [o, "off"]);
        tool("ip", ["netns", "exec", ns, "ethtool", "-K", iface].iter().chain(off.as_flattened()));
        match stack {
            Stack::Kernel => {
                self.sysctl("accept_dad", 0);
                self.sysctl("accept_ra", 0);
                tool("ip", ["-n", ns, "addr", "add", &format!("{}/24", self.v4), "dev", iface]);
                tool("ip", ["-n", ns, "addr", "add", &format!("{}/64", self.v6), "dev", iface, "nodad"]);
            }
            // Else the kernel would answer neighbour solicitations from its own link-local address.
            Stack::Bypass => self.sysctl("disable_ipv6", 1),
        }
        tool("ip", ["-n", ns, "link", "set", iface, "up"]);
    }

    fn sysctl(&self, key: &str, value: u32) {
        let script = format!("echo {value} > /proc/sys/net/ipv6/conf/{}/{key}", self.iface);
        tool("ip", ["netns", "exec", &self.ns, "sh", "-c", &script]);
    }

    /// A command that runs `program` in this namespace. `ip netns exec` turns into the program, so the pid is right.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns]).arg(program);
        command
    }

    /// The address of one IP version.
    pub fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }

    /// Bytes and frames that the interface has sent so far.
    ///
    /// # Panics
    /// When its counters cannot be read.
    pub fn sent(&self) -> (u64, u64) {
        let counter = |name: &str| {
            let path = format!("/sys/class/net/{}/statistics/{name}", self.iface);
            let out = self.command("cat").arg(&path).output().unwrap_or_else(|e| panic!("{path}: {e}"));
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            text.trim().parse().unwrap_or_else(|e| panic!("{path}: {text:?}: {e}"))
        };
        (counter("tx_bytes"), counter("tx_packets"))
    }
}

/// Runs a tool to its end.
///
/// # Panics
/// When it fails.
pub fn tool<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let out = command.output().unwrap_or_else(|e| panic!("cannot run {program} (packages iproute2, ethtool): {e}"));
    assert!(out.status.success(), "{command:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
}

/// Removes a namespace and ends what still runs in it. Its interfaces go with it.
fn remove(ns: &str) {
    if !Path::new("/run/netns").join(ns).exists() {
        return;
    }
    if let Ok(out) = Command::new("ip").args(["netns", "pids", ns]).output() {
        for pid in String::from_utf8_lossy(&out.stdout).split_whitespace() {
            super::process::kill(pid, "KILL");
        }
    }
    let done = Command::new("ip").args(["netns", "del", ns]).output();
    if !done.as_ref().is_ok_and(|o| o.status.success()) {
        eprintln!("cannot remove the network namespace {ns}: {done:?}");
    }
}

/// Removes namespaces whose maker is gone: its run was killed before it could clean up.
pub fn remove_stale() {
    let Ok(dir) = std::fs::read_dir("/run/netns") else { return };
    for name in dir.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        if maker(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            eprintln!("removing the namespace {name} of a run that was killed");
            remove(&name);
        }
    }
}

/// The pid of the process that made a namespace; none when it isn't one of ours.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}
