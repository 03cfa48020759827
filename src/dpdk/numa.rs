//! Which memory is near which CPU.

use std::fs;
use std::path::Path;

use super::error::PortError;
use super::hugepages::{self, Hugepages};

/// The size of the hugepages that are recommended.
const HUGE: u64 = 2 << 20;

/// The NUMA node of a CPU of this machine. `None` if the kernel does not say.
pub fn node_of_cpu(cpu: usize) -> Option<u16> {
    node_of(Path::new("/sys"), cpu)
}

/// The same for the machine whose `/sys` is at `sys`.
fn node_of(sys: &Path, cpu: usize) -> Option<u16> {
    let entries = fs::read_dir(sys.join(format!("devices/system/cpu/cpu{cpu}"))).ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
}

/// The NUMA node of the device behind a kernel interface. `None` for virtual ones, and on machines with one node.
pub(super) fn node_of_interface(sys: &Path, name: &str) -> Option<u16> {
    // The file contains -1 if there is none.
    fs::read_to_string(sys.join(format!("class/net/{name}/device/numa_node"))).ok()?.trim().parse().ok()
}

/// A message for the operator if some of `cpus` are on another NUMA node than a port on `node`: each packet then crosses
/// from one node to the other. `None` if all are near, or the kernel does not say.
pub fn far_cpus(node: Option<u16>, cpus: impl IntoIterator<Item = usize>) -> Option<String> {
    far(Path::new("/sys"), node?, cpus)
}

fn far(sys: &Path, node: u16, cpus: impl IntoIterator<Item = usize>) -> Option<String> {
    let elsewhere = |cpu: &usize| node_of(sys, *cpu).is_some_and(|other| other != node);
    let far: Vec<String> = cpus.into_iter().filter(elsewhere).map(|cpu| cpu.to_string()).collect();
    let (s, are) = if far.len() == 1 { ("", "is") } else { ("s", "are") };
    let list = far.join(", ");
    (!far.is_empty()).then(|| {
        format!(
            "CPU{s} {list} {are} not on NUMA node {node}, where the port is: memory access is slower; CPUs of that node \
             are in /sys/devices/system/node/node{node}/cpulist"
        )
    })
}

/// Where a port's packet buffers are allocated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// On the device's node.
    Near,
    /// Wherever there are hugepages, which the operator should know.
    Anywhere(String),
}

/// Decides where `need` bytes of hugepages for a device on `node` come from. `wish` is what the profile says about
/// hugepages.
///
/// # Errors
/// [`PortError::NodeMemory`] if the node does not have that much and the profile requires hugepages.
pub(super) fn home(sys: &Path, node: u16, need: u64, wish: Hugepages) -> Result<Home, PortError> {
    let dir = sys.join(format!("devices/system/node/node{node}/hugepages"));
    // Kernels without NUMA have no such directory.
    let free = if dir.exists() { hugepages::free_bytes_in(&dir) } else { u64::MAX };
    if free >= need {
        return Ok(Home::Near);
    }
    let file = dir.join(format!("hugepages-{}kB/nr_hugepages", HUGE >> 10));
    let pages = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let lack = PortError::NodeMemory {
        node,
        need_mb: need.div_ceil(1 << 20),
        free_mb: free >> 20,
        pages: pages + (need - free).div_ceil(HUGE),
    };
    match wish {
        Hugepages::Require => Err(lack),
        Hugepages::Auto | Hugepages::Never => Ok(Home::Anywhere(lack.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_cpus_and_interfaces() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        for path in ["cpu3/node1", "cpu3/cache", "cpu4/power"] {
            fs::create_dir_all(sys.join("devices/system/cpu").join(path)).unwrap();
        }
        for (name, node) in [("eth0", "1\n"), ("eth1", "-1\n")] {
            let device = sys.join("class/net").join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("numa_node"), node).unwrap();
        }
        assert_eq!([3, 4, 5].map(|cpu| node_of(sys, cpu)), [Some(1), None, None]);
        assert_eq!(["eth0", "eth1", "veth"].map(|name| node_of_interface(sys, name)), [Some(1), None, None]);
    }

    /// A machine with two nodes, and CPUs 0 and 1 on the first, 2 and 3 on the second.
    fn two_nodes() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for cpu in 0..4 {
            let node = format!("devices/system/cpu/cpu{cpu}/node{}", cpu / 2);
            fs::create_dir_all(dir.path().join(node)).unwrap();
        }
        // Of 2 MiB and 1 GiB, in this order.
        for (node, pages) in [(0, [(600, 500), (0, 0)]), (1, [(30, 10), (0, 0)])] {
            for ((nr, free), kb) in pages.into_iter().zip([2048, 1 << 20]) {
                let sub = dir.path().join(format!("devices/system/node/node{node}/hugepages/hugepages-{kb}kB"));
                fs::create_dir_all(&sub).unwrap();
                fs::write(sub.join("nr_hugepages"), format!("{nr}\n")).unwrap();
                fs::write(sub.join("free_hugepages"), format!("{free}\n")).unwrap();
            }
        }
        dir
    }

    /// There used to be a line for each such CPU.
    #[test]
    fn far_cpus_are_told_in_one_line() {
        let machine = two_nodes();
        let sys = machine.path();
        assert_eq!(far(sys, 0, [0, 1]), None);
        assert_eq!(far(sys, 0, [0, 1, 9]), None, "the kernel says nothing about CPU 9");
        let said = far(sys, 1, [0, 2, 1]).unwrap();
        assert!(said.starts_with("CPUs 0, 1 are not on NUMA node 1,") && said.contains("node1/cpulist"), "{said}");
        assert!(far(sys, 0, [3]).unwrap().starts_with("CPU 3 is not on NUMA node 0,"));
        assert_eq!(far_cpus(None, [0]), None);
    }

    /// A node without hugepages used to be reported as "Cannot allocate memory", with a command that did not help.
    #[test]
    fn a_node_without_hugepages_is_named_or_another_one_is_used() {
        let machine = two_nodes();
        let sys = machine.path();
        const MIB: u64 = 1 << 20;
        for wish in [Hugepages::Auto, Hugepages::Require] {
            assert!(matches!(home(sys, 0, 1000 * MIB, wish), Ok(Home::Near)));
            assert!(matches!(home(sys, 1, 20 * MIB, wish), Ok(Home::Near)));
            assert!(matches!(home(sys, 7, 1000 * MIB, wish), Ok(Home::Near)), "the kernel knows no such node");
        }
        let parts = [
            "NUMA node 1",
            "only 20 MB of the 300 MB",
            // 30 that there are, 10 of them free, and 140 that lack.
            "echo 170 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
        ];
        let error = home(sys, 1, 300 * MIB, Hugepages::Require).unwrap_err().to_string();
        let Ok(Home::Anywhere(warning)) = home(sys, 1, 300 * MIB, Hugepages::Auto) else { panic!() };
        for part in parts {
            assert!(error.contains(part) && warning.contains(part), "{part} is not in: {error}; {warning}");
        }
    }
}
