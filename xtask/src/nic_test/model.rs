//! The emulated NICs, and how QEMU and `gannet` are told about them.

use std::fmt;

/// A NIC that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// Intel 82540EM
    E1000,
    /// Intel 82574L
    E1000e,
    /// Intel 82576: several queues, RSS
    Igb,
    /// VMware's paravirtual device
    Vmxnet3,
    /// virtio with split virtqueues
    VirtioSplit,
    /// virtio with packed virtqueues
    VirtioPacked,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::E1000, Self::E1000e, Self::Igb, Self::Vmxnet3, Self::VirtioSplit, Self::VirtioPacked];

    /// QEMU's name for the device, with the options that it needs behind an IOMMU.
    pub const fn device(self) -> &'static str {
        match self {
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
            Self::Vmxnet3 => "vmxnet3",
            Self::VirtioSplit => "virtio-net-pci,disable-legacy=on,iommu_platform=on,ats=on",
            Self::VirtioPacked => "virtio-net-pci,disable-legacy=on,iommu_platform=on,ats=on,packed=on",
        }
    }

    /// The profile of its port.
    pub const fn profile(self) -> &'static str {
        match self {
            Self::E1000 | Self::E1000e => "e1000e",
            Self::Igb => "igb",
            Self::Vmxnet3 => "vmxnet3",
            Self::VirtioSplit | Self::VirtioPacked => "virtio-pci",
        }
    }

    /// Whether it is a conventional PCI device, which needs a bridge to be plugged in and unplugged while the machine
    /// runs.
    pub const fn needs_bridge(self) -> bool {
        matches!(self, Self::E1000)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self);
        f.pad(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

/// Which of the two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The machine that listens, including for the other's wires.
    Server,
    /// The machine that connects.
    Client,
}

impl Side {
    /// Its name in messages and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Where the `n`th NIC is plugged in: a slot of the first bus, in hex. igb needs a low one.
pub fn slot(n: usize) -> String {
    format!("{:02x}", n + 1)
}

/// QEMU's name for the `n`th NIC.
pub fn id(n: usize) -> String {
    format!("nic{n}")
}

/// QEMU's name for the wire of the `n`th NIC.
pub fn wire(n: usize) -> String {
    format!("wire{n}")
}

/// QEMU's arguments for the `n`th NIC of one side, on a wire of its own to the other side through `socket`.
pub fn devices(model: Model, n: usize, side: Side, socket: &str) -> Vec<String> {
    let (slot, id, wire) = (slot(n), id(n), wire(n));
    let ends = match side {
        Side::Server => "server=on",
        Side::Client => "server=off,reconnect-ms=200",
    };
    let mac = format!("52:54:00:00:{n:02x}:{:02x}", side as u8 + 1);
    let mut all = Vec::new();
    // A device that is to be unplugged needs a root port of its own.
    let place = if side == Side::Client {
        all.push(format!("-device pcie-root-port,id=port{n},chassis={},addr={slot}", n + 1));
        if model.needs_bridge() {
            all.push(format!("-device pcie-pci-bridge,id=bridge{n},bus=port{n}"));
            format!("bus=bridge{n},addr=01")
        } else {
            format!("bus=port{n}")
        }
    } else {
        format!("addr={slot}")
    };
    all.push(format!("-netdev stream,id={wire},{ends},addr.type=unix,addr.path={socket}"));
    all.push(format!("-device {},id={id},netdev={wire},mac={mac},romfile=,{place}", model.device()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_wire_are_told_apart() {
        let server = devices(Model::E1000, 0, Side::Server, "/w").join(" ");
        let client = devices(Model::E1000, 0, Side::Client, "/w").join(" ");
        assert!(
            server.contains("server=on,addr.type=unix,addr.path=/w -device e1000,id=nic0,netdev=wire0"),
            "{server}"
        );
        assert!(server.contains(":01,romfile=") && client.contains(":02,romfile="), "{client}");
        assert!(client.contains("server=off"), "{client}");
    }

    #[test]
    fn the_clients_devices_can_be_unplugged() {
        for model in Model::ALL {
            let client = devices(model, 9, Side::Client, "/w").join(" ");
            assert!(client.contains("pcie-root-port,id=port9,chassis=10,addr=0a"), "{client}");
            let place = if model == Model::E1000 { "romfile=,bus=bridge9,addr=01" } else { "romfile=,bus=port9" };
            assert!(client.ends_with(place), "{client}");
            let server = devices(model, 9, Side::Server, "/w").join(" ");
            assert!(!server.contains("-port") && server.ends_with("addr=0a"), "{server}");
        }
    }
}
