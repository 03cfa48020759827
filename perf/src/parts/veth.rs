//! The bulk transfer over a veth pair between two network namespaces: Gannet on raw or XDP sockets, quinn on the
//! kernel's.

use std::process::{Command, Stdio};

use crate::Failure;
use crate::cli::PeerKind;
use crate::parts::pair::{self, Keep, Places, Wire};
use crate::run::Run;

/// The interface's name in both namespaces.
const INTERFACE: &str = "veth0";

/// Two namespaces joined by a veth pair; removed when dropped.
struct Pair {
    names: [String; 2],
}

impl Pair {
    /// Creates the pair, with addresses for the kernel's stack, or without, so that the kernel sends nothing of its
    /// own.
    fn new(addresses: bool, mtu: u16) -> Result<Self, Failure> {
        let names = ["s", "c"].map(|side| format!("gannet-perf-{}-{side}", std::process::id()));
        let pair = Self { names };
        let [server, client] = &pair.names;
        for name in &pair.names {
            ip(&["netns", "add", name])?;
        }
        ip(&["-n", server, "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", client])?;
        for (i, name) in pair.names.iter().enumerate() {
            ip(&["-n", name, "link", "set", INTERFACE, "mtu", &mtu.to_string(), "addrgenmode", "none", "up"])?;
            if addresses {
                ip(&["-n", name, "addr", "add", &format!("10.77.0.{}/24", i + 1), "dev", INTERFACE])?;
            } else {
                offloads_off(name);
            }
        }
        Ok(pair)
    }

    fn places(&self, address: Option<&str>) -> Places {
        Places { namespaces: Some(self.names.clone()), address: address.map(str::to_owned) }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            // It may not exist.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let out = Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|e| format!("cannot run ip: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("`ip {}` failed: {} (network namespaces need root)", args.join(" "), said.trim()).into())
}

/// Disables offloads, which need a kernel at the other end.
fn offloads_off(name: &str) {
    for feature in ["tx", "rx", "gso", "gro", "tso", "tx-udp-segmentation"] {
        let mut ethtool = Command::new("ip");
        ethtool.args(["netns", "exec", name, "ethtool", "-K", INTERFACE, feature, "off"]);
        // A kernel may lack some of them.
        let _ = ethtool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Measures the part for a port profile; its keys start with `key`. quinn gets a pair of the same kind and MTU, with
/// the kernel's offloads on, which is best for it.
///
/// # Errors
/// If we are not root, or a process fails.
pub fn measure(run: &mut Run, profile: &'static str, key: &str, mtu: u16) -> Result<(), Failure> {
    let size = run.scale.pick("8M", "512M", "2G");
    let peer_size: u64 = run.scale.pick(8 << 20, 512 << 20, 2 << 30);
    for _ in 0..run.repeats {
        let pair = Pair::new(false, mtu)?;
        let wire = Wire::Interface(profile, INTERFACE);
        let ours = pair::gannet(run, &pair.places(None), &wire, mtu, &["--download", size], Keep::default())?;
        drop(pair);
        let pair = Pair::new(true, mtu)?;
        let quinn = pair::peer_gbps(run, &pair.places(Some("10.77.0.1")), PeerKind::Quinn, mtu, peer_size)?;
        drop(pair);
        let gbps = ours.get("download_gbps")?;
        run.sheet.add(format!("{key}.gbps"), gbps);
        run.sheet.add(format!("{key}.quinn_gbps"), quinn);
        run.sheet.add(format!("{key}.vs_quinn"), gbps / quinn);
    }
    let unit = format!("Gbit/s, one stream, veth pair, MTU {mtu}");
    run.bar(format!("Gannet, {profile}"), &format!("{key}.gbps"), &unit);
    run.bar(format!("quinn, kernel sockets ({key} run)"), &format!("{key}.quinn_gbps"), &unit);
    Ok(())
}
