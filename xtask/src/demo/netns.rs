//! Two network namespaces joined by a veth pair.

use std::fmt::Display;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::guards::{PREFIX, is_stale};
use crate::error::Result;
use crate::process;

/// The interface's name, the same in both namespaces.
pub const INTERFACE: &str = "veth0";

/// A network namespace, removed on drop with everything in it.
#[derive(Debug)]
struct Namespace(String);

/// Both namespaces.
#[derive(Debug)]
pub struct Pair {
    server: Namespace,
    client: Namespace,
}

impl Pair {
    /// Creates the namespaces, joined, up and without addresses, and removes those of killed demos.
    ///
    /// # Errors
    /// If `ip` fails: we are not root, or the kernel does not support the devices.
    pub fn new(mtu: u16) -> Result<Self> {
        remove_stale();
        let pair = Self { server: Namespace::new("s")?, client: Namespace::new("c")? };
        let (server, client) = (pair.server(), pair.client());
        // Created inside, so that no name is used outside and no daemon there sees them.
        ip(&["-n", server, "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", client])?;
        for namespace in [server, client] {
            let mtu = mtu.to_string();
            // Without a link-local address the kernel sends nothing of its own.
            ip(&["-n", namespace, "link", "set", INTERFACE, "mtu", &mtu, "addrgenmode", "none"])?;
            turn_offloads_off(namespace);
            ip(&["-n", namespace, "link", "set", INTERFACE, "up"])?;
        }
        Ok(pair)
    }

    /// The server's namespace.
    pub fn server(&self) -> &str {
        &self.server.0
    }

    /// The client's namespace.
    pub fn client(&self) -> &str {
        &self.client.0
    }
}

impl Namespace {
    fn new(side: &str) -> Result<Self> {
        let name = name(std::process::id(), side);
        ip(&["netns", "add", &name])?;
        Ok(Self(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.0]) {
            eprintln!("warning: {error}");
        }
    }
}

fn name(pid: impl Display, side: &str) -> String {
    format!("{PREFIX}{pid}-{side}")
}

fn remove_stale() {
    let list = ip(&["netns", "list"]).unwrap_or_default();
    for name in stale_names(&list) {
        println!("removing {name}, left by a demo that was killed");
        // Processes of the killed demo may still run there.
        for pid in ip(&["netns", "pids", name]).unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                // It may be gone already.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if let Err(error) = ip(&["netns", "delete", name]) {
            eprintln!("warning: {error}");
        }
    }
}

/// The stale names in the output of `ip netns list`: one per line, sometimes followed by an ID.
fn stale_names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| is_stale(name))
}

/// With offloads, frames arrive with partial checksums, or as super-packets far above the MTU.
fn turn_offloads_off(namespace: &str) {
    for feature in ["tx", "rx", "gso", "gro", "tso", "tx-udp-segmentation"] {
        let mut ethtool = Command::new("ip");
        ethtool.args(["netns", "exec", namespace, "ethtool", "-K", INTERFACE, feature, "off"]);
        // Features that a kernel lacks are off.
        if !process::succeeds(&mut ethtool) {
            println!("note: this kernel's veth does not switch `{feature}`");
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    process::output("ip", Command::new("ip").args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup;

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(name(17, "s"), "gannet-demo-17-s");
        let list = "gannet-demo-4194305-s (id: 3)\nother\ngannet-demo-4194305-c\ngannet-demo-1-c\n";
        let stale: Vec<_> = stale_names(list).collect();
        assert_eq!(stale, ["gannet-demo-4194305-s", "gannet-demo-4194305-c"]);
    }

    #[test]
    fn a_pair_is_joined_and_goes_away() {
        if !setup::is_root() {
            println!("skipped: only root can make network namespaces");
            return;
        }
        let pair = Pair::new(9000).unwrap();
        let names = [pair.server(), pair.client()].map(str::to_owned);
        for name in &names {
            let link = ip(&["-n", name, "link", "show", INTERFACE]).unwrap();
            assert!(link.contains("mtu 9000") && link.contains("LOWER_UP"), "{link}");
            assert_eq!(
                ip(&["-n", name, "-brief", "address", "show", INTERFACE]).unwrap().split_whitespace().count(),
                2
            );
        }
        drop(pair);
        let list = ip(&["netns", "list"]).unwrap();
        assert!(names.iter().all(|name| !list.contains(name.as_str())), "{list}");
    }
}
