//! Which memory is near which CPU.

use std::fs;
use std::path::Path;

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
}
