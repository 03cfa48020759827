//! The drivers that profiles can name, and the keys of each.

/// The bus of a driver's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Created by this process, with device arguments.
    Vdev,
    /// Found on the PCI bus by address.
    Pci,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A path in the file system.
    Path,
    /// The name of a kernel network interface.
    Iface,
    /// Any text without a comma, up to this many bytes.
    Text(usize),
    /// A whole number within bounds.
    Int(u64, u64),
    /// A power of two within bounds.
    Power(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`, with the driver's notation of each.
    Flag(&'static str, &'static str),
    /// `true` or `false`; the driver only checks whether the key is present.
    Present,
}

/// One key of `[devargs]`, named as in DPDK's manual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// It names a socket with a process at the other end.
    pub(crate) socket: bool,
    pub(crate) doc: &'static str,
}

/// A driver.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Its name in profiles, and in DPDK for devices on the vdev bus.
    pub(crate) name: &'static str,
    /// The plugin that contains it, without `librte_` and `.so`.
    pub(crate) library: &'static str,
    pub(crate) bus: Bus,
    /// The devargs key for the number of queues.
    pub(crate) queues_key: Option<&'static str>,
    /// Whether it accepts `mac=` as a device argument.
    pub(crate) mac_key: bool,
    /// The device has no MAC address of its own that is unique on the link.
    pub(crate) soft_mac: bool,
    /// It carries frames of any size that its buffers hold, whatever limit it reports.
    pub(crate) any_mtu: bool,
    /// The capability that a process without root needs.
    pub(crate) capability: Option<&'static str>,
    /// Both ends can be Gannet, and can agree to omit checksums (`offloads = "none"`). A kernel, a file or a network at
    /// the other end would drop such frames.
    pub(crate) agrees: bool,
    /// Keys outside `[devargs]` that the driver ignores, each with what takes effect instead.
    pub(crate) ignores: &'static [(&'static str, &'static str)],
    pub(crate) keys: &'static [Key],
}

const fn need(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: true, socket: false, doc }
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, socket: false, doc }
}

const fn socket(name: &'static str, doc: &'static str) -> Key {
    Key { socket: true, ..need(name, Kind::Path, doc) }
}

const YES: Kind = Kind::Flag("yes", "no");
const ONE: Kind = Kind::Flag("1", "0");
const U32: Kind = Kind::Int(0, u32::MAX as u64);

const VDEV: Driver = Driver {
    name: "",
    library: "",
    bus: Bus::Vdev,
    queues_key: None,
    mac_key: false,
    soft_mac: false,
    any_mtu: false,
    capability: None,
    agrees: false,
    ignores: &[],
    keys: &[],
};

/// Reasons why a driver ignores a key.
const NO_KERNEL: &str = "the kernel does not see its frames";
const NO_PEER: &str = "no process is at the other end of a socket";
const MEMIF_RINGS: &str = "the client's devargs.rsize is the size of both rings";
const GUEST_RINGS: &str = "the guest sets the size of the virtqueues";
const NO_RINGS: &str = "it has no rings";

const PCI: Driver = Driver {
    bus: Bus::Pci,
    ignores: &[("peer", NO_PEER), ("peer_uid", NO_PEER), ("kernel_address", NO_KERNEL)],
    ..VDEV
};

/// Every driver that a profile may name.
pub(crate) static DRIVERS: [Driver; 17] = [
    Driver {
        name: "net_memif",
        library: "net_memif",
        mac_key: true,
        any_mtu: true,
        agrees: true,
        ignores: &[("rx_desc", MEMIF_RINGS), ("tx_desc", MEMIF_RINGS), ("kernel_address", NO_KERNEL)],
        keys: &[
            need("role", Kind::Word(&["server", "client"]), "which side listens on the socket"),
            socket("socket", "the control socket"),
            key("id", U32, "distinguishes several interfaces on one socket"),
            key("bsize", Kind::Int(64, 65535), "bytes of one packet buffer"),
            key("rsize", Kind::Int(5, 14), "client only: log2 of the ring size"),
            key("zero-copy", YES, "client only: packet buffers in the shared memory"),
            key("socket-abstract", YES, "a socket name that is not in the file system"),
            key("secret", Kind::Text(24), "at most 24 characters, the same on both sides"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_virtio_user",
        library: "net_virtio",
        queues_key: Some("queues"),
        mac_key: true,
        agrees: true,
        ignores: &[("kernel_address", NO_KERNEL)],
        keys: &[
            socket("path", "the vhost-user socket, or /dev/vhost-net"),
            key("queue_size", Kind::Power(64, 32768), "descriptors of a virtqueue"),
            key("server", ONE, "listen on the socket rather than connect to it"),
            key("packed_vq", ONE, "packed rather than split virtqueues"),
            key("mrg_rxbuf", ONE, "frames may span several receive buffers"),
            key("in_order", ONE, "buffers are used in order"),
            key("vectorized", ONE, "vector instructions"),
            key("iface", Kind::Text(15), "the tap interface behind /dev/vhost-net"),
            key("speed", U32, "the link speed to report, in Mbit/s"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_vhost",
        library: "net_vhost",
        queues_key: Some("queues"),
        soft_mac: true,
        any_mtu: true,
        agrees: true,
        ignores: &[("rx_desc", GUEST_RINGS), ("tx_desc", GUEST_RINGS), ("kernel_address", NO_KERNEL)],
        keys: &[
            socket("iface", "the vhost-user socket"),
            key("client", ONE, "connect to the socket rather than listen on it"),
            key("iommu-support", ONE, "virtio IOMMU platform feature"),
            key("postcopy-support", ONE, "post-copy live migration"),
            key("tso", ONE, "offer segmentation to the guest"),
            key("linear-buffer", ONE, "never chain received buffers"),
            key("ext-buffer", ONE, "external buffers for large packets"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_af_packet",
        library: "net_af_packet",
        queues_key: Some("qpairs"),
        any_mtu: true,
        capability: Some("cap_net_raw"),
        ignores: &[
            ("rx_desc", "devargs.framecnt is the size of both rings"),
            ("tx_desc", "devargs.framecnt is the size of both rings"),
            ("peer", NO_PEER),
            ("peer_uid", NO_PEER),
        ],
        keys: &[
            need("iface", Kind::Iface, "the kernel interface to share"),
            key("framesz", Kind::Int(256, 65536), "bytes of a ring slot, a multiple of 16"),
            key("blocksz", Kind::Int(4096, 1 << 22), "bytes of a ring block, a multiple of the page and slot size"),
            key("framecnt", Kind::Int(32, 65536), "slots of each ring"),
            key("qdisc_bypass", ONE, "send past the kernel's queueing discipline"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_af_xdp",
        library: "net_af_xdp",
        queues_key: Some("queue_count"),
        capability: Some("cap_net_admin,cap_net_raw,cap_bpf"),
        ignores: &[("tx_desc", "rx_desc is the size of both rings"), ("peer", NO_PEER), ("peer_uid", NO_PEER)],
        keys: &[
            need("iface", Kind::Iface, "the kernel interface to take over"),
            key("start_queue", Kind::Int(0, 1023), "the interface's first queue to use"),
            key("shared_umem", ONE, "one buffer area for all queues"),
            key("force_copy", ONE, "copy mode even where the driver has zero-copy"),
            key("busy_budget", Kind::Int(0, 65535), "packets of one busy poll, 0 for none"),
            key("xdp_prog", Kind::Path, "an XDP program of your own"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_ring",
        library: "net_ring",
        soft_mac: true,
        any_mtu: true,
        agrees: true,
        ignores: &[
            ("rx_desc", "tx_desc is the size of its rings"),
            ("peer", NO_PEER),
            ("peer_uid", NO_PEER),
            ("kernel_address", NO_KERNEL),
        ],
        ..VDEV
    },
    Driver {
        name: "net_null",
        library: "net_null",
        soft_mac: true,
        any_mtu: true,
        ignores: &[("rx_desc", NO_RINGS), ("tx_desc", NO_RINGS), ("peer", NO_PEER), ("peer_uid", NO_PEER)],
        keys: &[
            key("size", Kind::Int(1, 65535), "bytes of each generated frame"),
            key("copy", ONE, "touch the bytes"),
            key("no-rx", ONE, "receive nothing"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_pcap",
        library: "net_pcap",
        soft_mac: true,
        any_mtu: true,
        ignores: &[("rx_desc", NO_RINGS), ("tx_desc", NO_RINGS), ("peer", NO_PEER), ("peer_uid", NO_PEER)],
        keys: &[
            key("rx_pcap", Kind::Path, "a capture file to receive from"),
            key("tx_pcap", Kind::Path, "a capture file to send to"),
            key("rx_iface", Kind::Iface, "an interface to receive from"),
            key("tx_iface", Kind::Iface, "an interface to send to"),
            key("iface", Kind::Iface, "an interface for both"),
            key("phy_mac", ONE, "the interface's MAC address"),
            key("infinite_rx", ONE, "replay the capture file endlessly"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_tap",
        library: "net_tap",
        soft_mac: true,
        capability: Some("cap_net_admin"),
        ignores: &[("tx_desc", "the length of the kernel's queue is fixed"), ("peer", NO_PEER), ("peer_uid", NO_PEER)],
        // Not `remote`: it changes the MTU, MAC address, flags and traffic control of another interface of the host,
        // permanently if the process is killed.
        keys: &[
            key("iface", Kind::Text(15), "the tap interface to create"),
            key("persist", Kind::Present, "keep the interface afterwards"),
        ],
        ..VDEV
    },
    Driver {
        name: "net_mlx5",
        library: "net_mlx5",
        keys: &[
            key("rxq_cqe_comp_en", Kind::Int(0, 4), "receive completion compression"),
            key("mprq_en", ONE, "multi-packet receive queues"),
            key("mprq_log_stride_num", Kind::Int(0, 31), "log2 of the strides of such a queue's buffer"),
            key("rxqs_min_mprq", U32, "the number of queues from which multi-packet queues are used"),
            key("rx_vec_en", ONE, "vector receive"),
            key("tx_vec_en", ONE, "vector transmit"),
            key("txq_inline_min", U32, "bytes to put inline at least"),
            key("txq_inline_max", U32, "bytes to put inline at most"),
            key("txq_inline_mpw", U32, "the same for multi-packet writes"),
            key("txqs_min_inline", U32, "the number of queues from which data goes inline"),
            key("txq_mpw_en", ONE, "multi-packet writes"),
            key("tx_db_nc", Kind::Int(0, 2), "how doorbells are mapped"),
            key("dv_flow_en", Kind::Int(0, 2), "flow engine"),
            key("vf_nl_en", ONE, "MAC addresses through Netlink on VFs"),
            key("mr_ext_memseg_en", ONE, "register whole memory segments"),
            key("representor", Kind::Text(64), "representors to open"),
        ],
        ..PCI
    },
    Driver {
        name: "net_ice",
        library: "net_ice",
        keys: &[
            key("safe-mode-support", ONE, "run without the DDP package, on one queue"),
            key("proto_xtr", Kind::Text(64), "protocol fields to extract"),
            key("pps_out", Kind::Text(64), "pulse-per-second output"),
            key("rx_low_latency", ONE, "lower interrupt moderation"),
        ],
        ..PCI
    },
    Driver {
        name: "net_i40e",
        library: "net_i40e",
        keys: &[
            key("support-multi-driver", ONE, "leave global registers alone"),
            key("queue-num-per-vf", Kind::Int(1, 16), "queues of each VF"),
            key("enable_floating_veb", ONE, "floating VEB for VFs"),
        ],
        ..PCI
    },
    Driver { name: "net_ixgbe", library: "net_ixgbe", ..PCI },
    Driver { name: "net_e1000_em", library: "net_e1000", ..PCI },
    Driver { name: "net_e1000_igb", library: "net_e1000", ..PCI },
    Driver {
        name: "net_virtio",
        library: "net_virtio",
        keys: &[
            key("vectorized", ONE, "vector instructions"),
            key("speed", U32, "the link speed to report, in Mbit/s"),
        ],
        ..PCI
    },
    Driver { name: "net_vmxnet3", library: "net_vmxnet3", ..PCI },
];

impl Driver {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        DRIVERS.iter().find(|d| d.name == name)
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }
}

impl Kind {
    /// Returns the value in the driver's notation, or else what is valid.
    pub(crate) fn check(self, value: &str) -> Result<String, String> {
        let plain = |what: &str| {
            let bad = value.is_empty() || value.contains([',', '\0', '[', ']']);
            if bad { Err(format!("{what} without commas and brackets")) } else { Ok(value.to_owned()) }
        };
        match self {
            Self::Path if value.len() >= 108 => Err("a path of at most 107 bytes".to_owned()),
            Self::Path => plain("a path"),
            Self::Text(max) if value.len() > max => Err(format!("at most {max} characters")),
            Self::Text(_) => plain("a text"),
            Self::Iface if value.len() > 15 || value.contains(['/', ' ']) => {
                Err("an interface name of at most 15 characters".to_owned())
            }
            Self::Iface => plain("an interface name"),
            Self::Int(min, max) => match value.parse::<u64>() {
                Ok(n) if (min..=max).contains(&n) => Ok(n.to_string()),
                _ => Err(format!("a number from {min} to {max}")),
            },
            Self::Power(min, max) => match value.parse::<u64>() {
                Ok(n) if (min..=max).contains(&n) && n.is_power_of_two() => Ok(n.to_string()),
                _ => Err(format!("a power of two from {min} to {max}")),
            },
            Self::Word(words) if words.contains(&value) => Ok(value.to_owned()),
            Self::Word(words) => Err(words.join(" or ")),
            Self::Flag(yes, no) => Ok(if flag(value)? { yes } else { no }.to_owned()),
            Self::Present => Ok(if flag(value)? { PRESENT } else { ABSENT }.to_owned()),
        }
    }
}

/// Values of [`Kind::Present`].
pub(crate) const PRESENT: &str = "";
pub(crate) const ABSENT: &str = "absent";

pub(super) fn flag(value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_and_keys_are_unique() {
        for (i, driver) in DRIVERS.iter().enumerate() {
            assert!(DRIVERS[..i].iter().all(|d| d.name != driver.name), "{}", driver.name);
            for (k, key) in driver.keys.iter().enumerate() {
                assert!(driver.keys[..k].iter().all(|o| o.name != key.name), "{}.{}", driver.name, key.name);
                assert!(driver.queues_key != Some(key.name), "queues are a key of their own");
            }
        }
    }

    #[test]
    fn values() {
        assert_eq!(Kind::Int(1, 3).check("2"), Ok("2".into()));
        assert!(Kind::Int(1, 3).check("4").is_err_and(|e| e.contains("1 to 3")));
        assert!(Kind::Int(1, 3).check("banana").is_err());
        assert_eq!(Kind::Power(64, 1024).check("256"), Ok("256".into()));
        assert!(Kind::Power(64, 1024).check("100").is_err_and(|e| e.contains("power of two")));
        assert_eq!(YES.check("true"), Ok("yes".into()));
        assert_eq!(ONE.check("no"), Ok("0".into()));
        assert!(ONE.check("maybe").is_err());
        assert!(Kind::Path.check("/tmp/a,b").is_err());
        assert!(Kind::Path.check(&"x".repeat(108)).is_err());
        assert!(Kind::Word(&["server", "client"]).check("both").is_err_and(|e| e == "server or client"));
        assert!(Kind::Iface.check("a-name-that-is-too-long").is_err());
    }
}
