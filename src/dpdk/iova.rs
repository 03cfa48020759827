//! The addresses that devices use: virtual ones, through an IOMMU, or physical ones.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::profile::PortProfile;

/// The kind of addresses that devices use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Iova {
    /// Virtual addresses: an IOMMU translates them, or there is no device (virtual ports are software).
    #[default]
    Virtual,
    /// Physical addresses. Requires root, to obtain them, and hugepages, which do not move. The device can access any
    /// memory.
    Physical,
}

/// Kernel drivers that give user space a device without an IOMMU.
const UNPROTECTED: [&str; 2] = ["uio_pci_generic", "igb_uio"];

/// The kind that all devices of `profiles` can use, on the machine with its `/sys` at `sys`.
pub(super) fn of(sys: &Path, profiles: &[PortProfile]) -> Iova {
    let physical = profiles.iter().any(|profile| !profile.device.is_empty() && is_physical(sys, &profile.device));
    if physical { Iova::Physical } else { Iova::Virtual }
}

/// Returns whether the PCI device at `address` is used without an IOMMU. Devices that stay with their kernel driver
/// (mlx5) are not: that driver translates.
fn is_physical(sys: &Path, address: &str) -> bool {
    let device = sys.join("bus/pci/devices").join(address);
    let name_of = |link: &str| {
        let target = fs::read_link(device.join(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    match name_of("driver").as_deref() {
        Some("vfio-pci") => {
            let group = name_of("iommu_group").unwrap_or_default();
            let name = fs::read_to_string(sys.join("kernel/iommu_groups").join(group).join("name"));
            name.is_ok_and(|name| name.trim() == "vfio-noiommu")
        }
        Some(driver) => UNPROTECTED.contains(&driver),
        None => false,
    }
}

/// The commands that make the PCI device `address` usable on a machine with no IOMMU or a disabled one, whose `/sys` is
/// at `sys`. One per line.
pub fn no_iommu_remedy(sys: &Path, address: &str) -> String {
    let mut text = String::from(
        "# with an IOMMU: add to the kernel's command line, then reboot: intel_iommu=on iommu=pt   (AMD: iommu=pt)\n\
         # in a virtual machine, the host has to provide it (QEMU: -device intel-iommu,caching-mode=on)\n\
         # without one, unprotected, as root and with hugepages:\n",
    );
    let switch = "module/vfio/parameters/enable_unsafe_noiommu_mode";
    // Kernels built without CONFIG_VFIO_NOIOMMU, such as Debian's, do not have this switch.
    let _ = if sys.join(switch).exists() {
        write!(text, "echo 1 > /sys/{switch} && dpdk-devbind.py -b vfio-pci {address}")
    } else {
        write!(text, "modprobe uio_pci_generic && dpdk-devbind.py -b uio_pci_generic {address}")
    };
    text
}

/// The commands that give DPDK the PCI device `address`, which is bound to a kernel driver or none, on the machine with
/// its `/sys` at `sys`: for vfio-pci, or those of [`no_iommu_remedy`].
pub fn bind_remedy(sys: &Path, address: &str) -> String {
    if fs::read_dir(sys.join("kernel/iommu_groups")).is_ok_and(|mut groups| groups.next().is_some()) {
        return format!("modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {address}");
    }
    no_iommu_remedy(sys, address)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const NIC: &str = "0000:03:00.0";

    fn machine(driver: &str, group: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("bus/pci/devices").join(NIC);
        fs::create_dir_all(&device).unwrap();
        symlink(format!("../../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
        if let Some(name) = group {
            let of_group = dir.path().join("kernel/iommu_groups/7");
            fs::create_dir_all(&of_group).unwrap();
            fs::write(of_group.join("name"), name).unwrap();
            symlink("../../../../kernel/iommu_groups/7", device.join("iommu_group")).unwrap();
        }
        dir
    }

    /// The kind used to be virtual always, and EAL refused every PCI device without an IOMMU.
    #[test]
    fn devices_without_an_iommu_get_physical_addresses() {
        let load = |name, sets: &[(&str, &str)]| {
            let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            PortProfile::load(name, &sets).unwrap()
        };
        let (nic, memif) = (load("e1000e", &[("device", NIC)]), load("memif", &[]));
        for (driver, group, want) in [
            ("vfio-pci", Some("DMA\n"), Iova::Virtual),
            ("vfio-pci", Some("vfio-noiommu\n"), Iova::Physical),
            // Such a device cannot be opened at all; the port reports that.
            ("vfio-pci", None, Iova::Virtual),
            ("uio_pci_generic", None, Iova::Physical),
            ("igb_uio", Some("DMA\n"), Iova::Physical),
            ("mlx5_core", None, Iova::Virtual),
        ] {
            let sys = machine(driver, group);
            assert_eq!(of(sys.path(), std::slice::from_ref(&nic)), want, "{driver} {group:?}");
            assert_eq!(of(sys.path(), &[memif.clone(), nic.clone()]), want, "one of them is enough");
            assert_eq!(of(sys.path(), std::slice::from_ref(&memif)), Iova::Virtual, "no device, no question");
        }
    }

    #[test]
    fn the_remedy_is_what_this_kernel_has() {
        let dir = tempfile::tempdir().unwrap();
        let text = no_iommu_remedy(dir.path(), NIC);
        assert!(text.contains("-b uio_pci_generic 0000:03:00.0") && !text.contains("enable_unsafe"), "{text}");
        assert_eq!(bind_remedy(dir.path(), NIC), text, "vfio-pci would not get it");
        let with = machine("ice", Some("DMA"));
        assert_eq!(bind_remedy(with.path(), NIC), "modprobe vfio-pci && dpdk-devbind.py -b vfio-pci 0000:03:00.0");
        let parameters = dir.path().join("module/vfio/parameters");
        fs::create_dir_all(&parameters).unwrap();
        fs::write(parameters.join("enable_unsafe_noiommu_mode"), "N").unwrap();
        let text = no_iommu_remedy(dir.path(), NIC);
        assert!(text.contains("echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"), "{text}");
    }
}
