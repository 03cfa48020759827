use super::*;

type Pairs = &'static [(&'static str, &'static str)];

fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Settings for which a profile cannot have a default.
fn essentials(name: &str) -> Vec<(String, String)> {
    match PortProfile::parse(name, PortProfile::source(name).unwrap(), &[]) {
        Ok(_) => Vec::new(),
        Err(ProfileError::Missing { key, .. }) if key == "device" => set(&[("device", "01:00.0")]),
        Err(ProfileError::Missing { key, .. }) => set(&[(&key, "veth0")]),
        Err(other) => panic!("{name}: {other}"),
    }
}

#[test]
fn every_embedded_profile_is_valid() {
    for name in PortProfile::names() {
        let profile = PortProfile::load(name, &essentials(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(profile.name, name);
        assert!(profile.memory_bytes() < 512 << 20, "{name} wants {} bytes", profile.memory_bytes());
        assert_eq!(profile.bus() == Bus::Pci, !profile.device.is_empty());
    }
}

#[test]
fn every_file_is_embedded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config");
    let mut files: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .filter_map(|e| Some(e.ok()?.file_name().into_string().ok()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    files.sort();
    assert_eq!(files, PortProfile::names().collect::<Vec<_>>());
}

#[test]
fn sets_override() {
    let sets = set(&[("mtu", "9000"), ("devargs.role", "client"), ("devargs.zero-copy", "true"), ("queues", "2")]);
    let p = PortProfile::load("memif", &sets).unwrap();
    assert_eq!((p.mtu, p.queues, p.devarg("role"), p.devarg("zero-copy")), (9000, 2, Some("client"), Some("yes")));
    assert!(p.vdev_arguments().contains("bsize=10496"), "{}", p.vdev_arguments());
    let p = PortProfile::load("memif", &set(&[("devargs.bsize", "4096"), ("mac", "02:00:00:00:00:0a")])).unwrap();
    assert!(p.vdev_arguments().contains("bsize=4096") && p.vdev_arguments().contains("mac=02:00:00:00:00:0a"));
}

/// With buffers of equal size, DPDK 24.11 copies a frame of any length into a receive buffer.
#[test]
fn memif_buffers_are_larger_than_receive_buffers() {
    for (mtu, mbuf_size) in [("1280", "0"), ("1500", "0"), ("9702", "0"), ("1500", "256"), ("1500", "16384")] {
        let p = PortProfile::load("memif", &set(&[("mtu", mtu), ("mbuf_size", mbuf_size)])).unwrap();
        assert!(p.memif_buffer() > p.rx_buffer() && p.memif_buffer() > p.frame_size(), "{mtu} {mbuf_size}");
        assert!(p.vdev_arguments().contains(&format!("bsize={}", p.memif_buffer())));
    }
    let p = PortProfile::load("memif", &set(&[("bsize", "2048")])).unwrap();
    assert_eq!(p.memif_buffer(), 2048);
}

#[test]
fn ports_say_whether_they_share_their_memory() {
    assert_eq!(PortProfile::shared(), ["memif role=client zero-copy=true", "virtio-user"]);
    let of = |sets: Pairs| PortProfile::load("virtio-user", &set(sets)).unwrap();
    assert!(of(&[]).copies_frames(), "by default nobody is trusted");
    assert!(!of(&[("peer", "trusted")]).copies_frames());
    assert_eq!(of(&[("peer", "trusted")]).memory(), Memory::Shared);
    let memif = |sets: Pairs| PortProfile::load("memif", &set(sets)).unwrap().copies_frames();
    assert!(!memif(&[]) && !memif(&[("role", "client")]));
    assert!(memif(&[("role", "client"), ("zero-copy", "true")]));
    for name in PortProfile::names() {
        assert!(PortProfile::source(name).unwrap().contains("# Packet buffers: "), "{name} says nothing of its memory");
    }
}

#[test]
fn sockets_are_in_the_runtime_folder() {
    let dir = crate::dpdk::runtime_dir();
    for (name, key, file) in
        [("memif", "socket", "memif.sock"), ("vhost", "iface", "vhost.sock"), ("virtio-user", "path", "vhost.sock")]
    {
        let p = PortProfile::load(name, &[]).unwrap();
        assert_eq!(p.devarg(key).map(Path::new), Some(dir.join(file).as_path()), "{name}");
        assert_eq!(PortProfile::load(name, &set(&[(key, "./x")])).unwrap().devarg(key), Some("./x"));
    }
    let sets = set(&[("socket", "x"), ("socket-abstract", "true")]);
    assert_eq!(PortProfile::load("memif", &sets).unwrap().devarg("socket"), Some("x"));
}

#[test]
fn af_packet_slots_follow_the_mtu() {
    let of = |mtu| PortProfile::load("af-packet", &set(&[("devargs.iface", "v0"), ("mtu", mtu)])).unwrap();
    assert!(of("1500").vdev_arguments().contains("framesz=2048,blocksz=4096"));
    assert!(of("9000").vdev_arguments().contains("framesz=10240,blocksz=20480"));
    assert!(of("3000").vdev_arguments().contains("framesz=4096,blocksz=4096"));
}

#[test]
fn mistakes_are_named() {
    let error = |name: &str, sets: Pairs| PortProfile::load(name, &set(sets)).unwrap_err().to_string();
    let cases: [(&str, Pairs, &[&str]); 17] = [
        ("memfi", &[], &["\"memfi\"", "af-xdp", "memif"]),
        ("./none.toml", &[], &["./none.toml", "No such file"]),
        ("memif", &[("mtuu", "1500")], &["\"mtuu\"", "mtu", "devargs.socket"]),
        ("memif", &[("devargs.sockt", "x")], &["\"devargs.sockt\"", "devargs.socket"]),
        ("memif", &[("devargs", "x")], &["\"devargs\""]),
        ("memif", &[("mtu", "500")], &["mtu", "\"500\"", "1280 to 9702"]),
        ("memif", &[("devargs.id", "banana")], &["devargs.id", "banana", "a number"]),
        ("memif", &[("devargs.secret", "0123456789012345678901234")], &["devargs.secret", "24 characters"]),
        ("memif", &[("devargs.role", "peer")], &["server or client"]),
        ("memif", &[("mac", "01:00:00:00:00:01")], &["mac", "unicast"]),
        ("memif", &[("device", "01:00.0")], &["device", "creates its own"]),
        ("memif", &[("driver", "net_foo")], &["net_foo", "net_memif"]),
        ("memif", &[("mbufs", "3")], &["mbufs", "at least 256"]),
        ("memif", &[("peer", "friend")], &["peer", "friend", "trusted or untrusted"]),
        ("memif", &[("peer_uid", "root")], &["peer_uid", "a number"]),
        ("ice", &[], &["device", "is missing", "PCI address"]),
        ("ice", &[("device", "eth0")], &["eth0", "0000:01:00.0"]),
    ];
    for (name, sets, words) in cases {
        let text = error(name, sets);
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
    let syntax = PortProfile::parse("x.toml", "driver = \n", &[]).unwrap_err().to_string();
    assert!(syntax.contains("x.toml"), "{syntax}");
    let list = PortProfile::parse("x.toml", "driver = [1]\n", &[]).unwrap_err().to_string();
    assert!(list.contains("driver"), "{list}");
}

/// Settings that a driver would ignore are rejected, and the message says what takes effect instead.
#[test]
fn settings_that_a_driver_ignores_are_refused() {
    let error = |name: &str, sets: &[(&str, &str)]| {
        let sets = [&essentials(name)[..], &set(sets)].concat();
        PortProfile::load(name, &sets).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
    };
    let cases: [(&str, Pairs, &[&str]); 15] = [
        // A kernel, a file or a network at the other end would drop every frame.
        ("af-packet", &[("offloads", "none")], &["offloads", "Gannet at both ends"]),
        ("af-xdp", &[("offloads", "none")], &["offloads"]),
        ("tap", &[("offloads", "none")], &["offloads"]),
        ("pcap", &[("offloads", "none")], &["offloads"]),
        ("ice", &[("offloads", "none")], &["offloads"]),
        ("af-packet", &[("rx_desc", "2048")], &["net_af_packet ignores rx_desc", "framecnt"]),
        ("memif", &[("tx_desc", "2048")], &["tx_desc", "devargs.rsize"]),
        ("memif", &[("zero-copy", "true")], &["devargs.zero-copy", "by the client"]),
        ("memif", &[("rsize", "12")], &["devargs.rsize", "by the client"]),
        ("vhost", &[("rx_desc", "512")], &["rx_desc", "the guest"]),
        ("af-xdp", &[("tx_desc", "512")], &["tx_desc", "rx_desc is the size of both"]),
        ("virtio-user", &[("rx_desc", "512")], &["rx_desc", "queue_size, 256"]),
        ("tap", &[("remote", "eth0")], &["\"remote\""]),
        ("af-packet", &[("peer_uid", "7")], &["peer_uid", "no process"]),
        ("ice", &[("peer", "trusted")], &["peer", "no process"]),
    ];
    for (name, sets, words) in cases {
        let text = error(name, sets);
        for word in words {
            assert!(text.contains(word), "{name} {sets:?}: {word:?} is not in: {text}");
        }
    }
    for (name, sets) in [
        ("memif", &[("offloads", "none")][..]),
        ("virtio-user", &[("offloads", "none"), ("queue_size", "512"), ("rx_desc", "512")]),
        ("memif", &[("role", "client"), ("zero-copy", "true"), ("rsize", "12")]),
        ("memif", &[("zero-copy", "false")]),
        ("ring", &[("tx_desc", "64")]),
    ] {
        assert_eq!(error(name, sets), "", "{name} {sets:?}");
    }
}

/// The driver only checks whether the key is present: `persist=false` kept the interface.
#[test]
fn a_key_that_counts_by_being_there_is_left_out_when_false() {
    let arguments = |value| PortProfile::load("tap", &set(&[("persist", value)])).unwrap().vdev_arguments();
    assert!(arguments("true").contains("persist") && !arguments("false").contains("persist"));
}

/// `--set queues=4` used to enable RSS although one queue was polled: 46 of 64 clients got no answer.
#[test]
fn queues_that_nobody_polls_are_refused() {
    let of = |queues: &str| PortProfile::load("af-packet", &set(&[("iface", "v0"), ("queues", queues)])).unwrap();
    assert_eq!(of("1").for_cores(1).unwrap().queues, 1);
    assert_eq!(of("2").for_cores(2).unwrap().queues, 2);
    let error = of("4").for_cores(1).unwrap_err();
    assert!(matches!(error, ProfileError::Queues { queues: 4, cores: 1, .. }));
    assert!(error.to_string().contains("queues = 4") && error.to_string().contains("--set queues=1"), "{error}");
    // Cores without a queue are rejected too.
    assert!(of("1").for_cores(2).is_err());
    // Unless one spreads for all, which only works for a single queue.
    assert_eq!(of("1").spread_over(4).unwrap().guests(), 3);
    let error = of("4").spread_over(4).unwrap_err();
    assert!(matches!(error, ProfileError::Spread { queues: 4, .. }), "{error}");
    assert!(error.to_string().contains("--set queues=1"), "{error}");
}

/// A pool has buffers for the caches of all cores and for the rings to all others, so that a core that is stalled holds
/// none that the others need.
#[test]
fn pools_grow_with_the_cores() {
    let of = |queues: u16| {
        let profile = PortProfile::load("memif", &set(&[("queues", &queues.to_string())])).unwrap();
        profile.for_cores(queues).unwrap()
    };
    let size = |queues| of(queues).pool_size();
    assert_eq!(size(2) - size(1), 384 + 512);
    assert_eq!(size(4) - size(1), 3 * (384 + 512));
    assert_eq!(size(64) - size(1), 63 * (384 + 64), "rings get smaller with many cores");
    // A number that was asked for is what one core has for itself.
    let own = |cores| {
        let profile = PortProfile::load("memif", &set(&[("mbufs", "2048")])).unwrap();
        profile.spread_over(cores).unwrap()
    };
    assert_eq!((own(1).pool_size(), own(4).pool_size()), (2048, 2048 + 3 * (384 + 512)));
    let guests = 3 * u64::from(own(4).guest_pool_size()) * (2048 + 128 + 192);
    assert_eq!(own(4).memory_bytes(), u64::from(own(4).pool_size()) * (2048 + 128 + 192) + guests);
}

#[test]
fn pci_devices_are_passed_to_eal() {
    let p = PortProfile::load("mlx5", &set(&[("device", "81:00.1"), ("devargs.mprq_en", "true")])).unwrap();
    assert_eq!(p.pci_argument().as_deref(), Some("0000:81:00.1,mprq_en=1"));
    assert_eq!(PortProfile::load("ring", &[]).unwrap().pci_argument(), None);
}

#[test]
fn addresses() {
    assert_eq!(pci_address("0000:AF:00.1").as_deref(), Some("0000:af:00.1"));
    for bad in ["", "01:00", "1:00.0", "01:00.8", "01:00.00", "0000:01:00:0", "g0:00.0"] {
        assert_eq!(pci_address(bad), None, "{bad}");
    }
    assert_eq!(parse_mac("02:00:00:00:00:ff"), Some([2, 0, 0, 0, 0, 255]));
    for bad in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:1", "00:00:00:00:00:00", "+2:00:00:00:00:00"] {
        assert_eq!(parse_mac(bad), None, "{bad}");
    }
}
