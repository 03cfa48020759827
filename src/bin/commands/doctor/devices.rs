//! Checks of ports and devices.

use gannet::dpdk::{bind_remedy, no_iommu_remedy};

use super::rights::Rights;
use super::{Finding, Status, Tree};

const AREA: &str = "Ports";
/// PCI base class and subclass of Ethernet controllers.
const ETHERNET: &str = "0x0200";
/// Kernel drivers that DPDK works alongside: the device stays bound to them.
const SHARED: [&str; 3] = ["mlx5_core", "mlx4_core", "mana"];
/// Drivers that hand a device to user space.
const USER: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

pub(super) fn check(tree: &Tree, rights: &Rights, nics: &[Nic]) -> Vec<Finding> {
    let mut all = vec![Finding::new(AREA, "memif, vhost", Status::Ok, "always possible")];
    all.push(socket(tree, rights, "af-packet", "PACKET", &[Rights::NET_RAW], "CONFIG_PACKET"));
    let xdp = [Rights::NET_RAW, Rights::NET_ADMIN];
    all.push(socket(tree, rights, "af-xdp", "XDP", &xdp, "CONFIG_XDP_SOCKETS"));
    all.extend(vfio(tree, nics));
    if nics.is_empty() {
        all.push(Finding::new(AREA, "PCI NICs", Status::Note, "none"));
    }
    all.extend(nics.iter().map(|nic| nic.check(tree)));
    all
}

/// `IFF_PROMISC` of `<linux/if.h>`.
const PROMISCUOUS: u32 = 0x100;

/// Checks kernel interfaces that ports could share: addresses of the kernel, which would answer for them, and flags and
/// programs left behind.
pub(super) fn interfaces(tree: &Tree, addresses: &[(String, String)], xdp: &[(String, &'static str)]) -> Vec<Finding> {
    let mut all = Vec::new();
    for name in tree.list("sys/class/net").into_iter().filter(|name| name != "lo") {
        let what = format!("interface {name}");
        let held: Vec<&str> = addresses.iter().filter(|(on, _)| *on == name).map(|(_, addr)| addr.as_str()).collect();
        if !held.is_empty() {
            let found = format!(
                "the kernel has {}; give ports on it another --addr, or, unless you reach this machine by it:",
                held.join(", ")
            );
            let remedy: Vec<String> = held.iter().map(|addr| format!("ip addr del {addr} dev {name}")).collect();
            all.push(Finding::new(AREA, what.clone(), Status::Note, found).remedy(remedy.join("\n")));
        }
        if let Some((_, mode)) = xdp.iter().find(|(on, _)| *on == name) {
            let found = "has an XDP program, of a running af-xdp port or left behind by one that was killed";
            let remedy = format!("ip link set dev {name} {mode} off");
            all.push(Finding::new(AREA, what.clone(), Status::Note, found).remedy(remedy));
        }
        let flags = tree.read(&format!("sys/class/net/{name}/flags")).unwrap_or_default();
        if u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & PROMISCUOUS != 0) {
            let found = "promiscuous: a capture is running, or a program left it in this mode";
            all.push(
                Finding::new(AREA, what, Status::Note, found).remedy(format!("ip link set dev {name} promisc off")),
            );
        }
    }
    all
}

/// Checks whether the kernel and our capabilities allow a socket family. /proc/net/protocols lists the loaded families.
fn socket(tree: &Tree, rights: &Rights, port: &str, family: &str, caps: &[u32], config: &str) -> Finding {
    let known = tree.read("proc/net/protocols").unwrap_or_default();
    let there = known.lines().any(|l| l.split(' ').next() == Some(family));
    match (there, caps.iter().all(|c| rights.has(*c))) {
        (true, true) => Finding::new(AREA, port, Status::Ok, "possible"),
        (true, false) => Finding::new(AREA, port, Status::Note, "not permitted for this user: see Permissions"),
        (false, _) if family == "PACKET" => Finding::new(AREA, port, Status::Warn, "the kernel has no packet sockets")
            .remedy(format!("modprobe af_packet   # or a kernel with {config}=y")),
        (false, _) => Finding::new(AREA, port, Status::Note, format!("not in this kernel ({config} is off)")),
    }
}

/// An Ethernet controller.
pub(super) struct Nic {
    address: String,
    /// `VENDOR:DEVICE`, hexadecimal.
    id: String,
    driver: Option<String>,
    /// Names of its kernel interfaces.
    interfaces: Vec<String>,
}

pub(super) fn nics(tree: &Tree) -> Vec<Nic> {
    let base = "sys/bus/pci/devices";
    let ethernet = |a: &String| tree.read(&format!("{base}/{a}/class")).is_some_and(|c| c.starts_with(ETHERNET));
    let nic = |address: String| {
        let dir = format!("{base}/{address}");
        let hex = |file| tree.read(&format!("{dir}/{file}")).unwrap_or_default().trim_start_matches("0x").to_string();
        let mut interfaces = tree.list(&format!("{dir}/net"));
        // virtio has an intermediate device.
        for child in tree.list(&dir).iter().filter(|c| c.starts_with("virtio")) {
            interfaces.extend(tree.list(&format!("{dir}/{child}/net")));
        }
        let id = format!("{}:{}", hex("vendor"), hex("device"));
        Nic { id, driver: tree.link_name(&format!("{dir}/driver")), interfaces, address }
    };
    tree.list(base).into_iter().filter(ethernet).map(nic).collect()
}

impl Nic {
    /// Its address on the PCI bus.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Its NUMA node; `None` on machines with only one.
    pub(super) fn node(&self, tree: &Tree) -> Option<u32> {
        tree.read(&format!("sys/bus/pci/devices/{}/numa_node", self.address))?.parse().ok()
    }

    /// Returns whether DPDK can use it as it is.
    pub(super) fn is_for_dpdk(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| USER.contains(&driver) || SHARED.contains(&driver))
    }

    fn check(&self, tree: &Tree) -> Finding {
        let what = format!("PCI {}", self.address);
        let named = |i: &String| format!(", {i} ({})", link(tree, i).0);
        let names: String = self.interfaces.iter().map(named).collect();
        let Some(driver) = self.driver.as_deref() else {
            return Finding::new(AREA, what, Status::Warn, format!("{}, no driver", self.id)).remedy(self.bind(tree));
        };
        let found = format!("{}, driver {driver}{names}", self.id);
        if SHARED.contains(&driver) {
            if let Some((down, (_, remedy))) =
                self.interfaces.iter().map(|i| (i, link(tree, i))).find(|(_, (state, _))| *state != LINK_UP)
            {
                let remedy = remedy.replace("IF", down);
                return Finding::new(AREA, what, Status::Warn, format!("{found}; it carries no traffic"))
                    .remedy(remedy);
            }
            return Finding::new(AREA, what, Status::Ok, format!("{found}; DPDK works alongside this driver"));
        }
        if USER.contains(&driver) {
            return self.in_user_space(tree, driver, what, found);
        }
        if let Some(up) = self.interfaces.iter().find(|i| has_default_route(tree, i)) {
            let found =
                format!("{found}; leave it alone: {up} has the default route, you may reach this machine by it");
            return Finding::new(AREA, what, Status::Note, found);
        }
        Finding::new(AREA, what, Status::Note, format!("{found}; in use by the kernel, to give it to DPDK:"))
            .remedy(self.bind(tree))
    }

    /// Checks whether this user can open a device that is bound for user space.
    fn in_user_space(&self, tree: &Tree, driver: &str, what: String, found: String) -> Finding {
        if driver != "vfio-pci" {
            let found = Finding::new(AREA, what, Status::Warn, format!("{found}; no IOMMU protects memory from it"));
            // Without any IOMMU this is the only way.
            let none = tree.list("sys/kernel/iommu_groups").is_empty();
            return if none { found } else { found.remedy(self.bind(tree)) };
        }
        let Some(group) = tree.link_name(&format!("sys/bus/pci/devices/{}/iommu_group", self.address)) else {
            return Finding::new(AREA, what, Status::Fail, format!("{found}, but it is in no IOMMU group"))
                .remedy(no_iommu_remedy(&tree.0.join("sys"), &self.address));
        };
        // Without an IOMMU the file has a different name.
        let files = [format!("dev/vfio/{group}"), format!("dev/vfio/noiommu-{group}")];
        let Some(file) = files.iter().find(|f| tree.exists(f)) else {
            return Finding::new(AREA, what, Status::Fail, format!("{found}, but /{} is missing", files[0]))
                .remedy("modprobe vfio-pci");
        };
        if std::fs::OpenOptions::new().read(true).write(true).open(tree.0.join(file)).is_err_and(refused) {
            return Finding::new(AREA, what, Status::Fail, format!("{found}, but this user may not open /{file}"))
                .remedy(format!("sudo chown $USER /{file}"));
        }
        Finding::new(AREA, what, Status::Ok, format!("{found}, IOMMU group {group}"))
    }

    fn bind(&self, tree: &Tree) -> String {
        bind_remedy(&tree.0.join("sys"), &self.address)
    }
}

const LINK_UP: &str = "link up";

/// The link state of an interface and a remedy, in which `IF` stands for its name.
fn link(tree: &Tree, interface: &str) -> (&'static str, &'static str) {
    // "carrier" cannot be read while the interface is down.
    match tree.read(&format!("sys/class/net/{interface}/carrier")).as_deref() {
        Some("1") => (LINK_UP, ""),
        Some(_) => ("no link", "# is the cable plugged in, and the switch port enabled? ethtool IF"),
        None => ("down", "ip link set dev IF up"),
    }
}

/// Tells denied access from "busy": a device in use by another process is fine.
fn refused(e: std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::PermissionDenied
}

/// Returns whether the IPv4 default route uses `interface`.
fn has_default_route(tree: &Tree, interface: &str) -> bool {
    let routes = tree.read("proc/net/route").unwrap_or_default();
    routes.lines().any(|l| {
        let mut words = l.split_whitespace();
        words.next() == Some(interface) && words.next() == Some("00000000")
    })
}

/// Checks IOMMU and vfio, which matter only with a NIC that could use them.
fn vfio(tree: &Tree, nics: &[Nic]) -> Vec<Finding> {
    let wanted = !nics.is_empty();
    let lack = if wanted { Status::Warn } else { Status::Note };
    let groups = tree.list("sys/kernel/iommu_groups").len();
    let unsafe_mode = tree.read("sys/module/vfio/parameters/enable_unsafe_noiommu_mode").is_some_and(|v| v == "Y");
    let iommu = match (groups, unsafe_mode) {
        (0, false) => {
            // The firmware's tables: DMAR is Intel's, IVRS AMD's.
            let there = ["DMAR", "IVRS"].iter().any(|table| tree.exists(&format!("sys/firmware/acpi/tables/{table}")));
            let is = if there { "present, but off" } else { "absent, or off in the firmware" };
            let f = Finding::new(AREA, "IOMMU", lack, format!("{is}; needed to give a PCI NIC to DPDK"));
            match nics.first() {
                Some(nic) => f.remedy(no_iommu_remedy(&tree.0.join("sys"), &nic.address)),
                None => f,
            }
        }
        (0, true) => Finding::new(AREA, "IOMMU", lack, "none; vfio is in its unprotected mode"),
        (n, _) => Finding::new(AREA, "IOMMU", Status::Ok, format!("{n} groups")),
    };
    let loaded = tree.exists("sys/bus/pci/drivers/vfio-pci") || tree.exists("sys/module/vfio_pci");
    let module = if loaded {
        Finding::new(AREA, "vfio-pci", Status::Ok, "loaded")
    } else if wanted {
        Finding::new(AREA, "vfio-pci", lack, "not loaded; needed to give a PCI NIC to DPDK").remedy("modprobe vfio-pci")
    } else {
        Finding::new(AREA, "vfio-pci", lack, "not loaded")
    };
    vec![iommu, module]
}
