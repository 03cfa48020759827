//! Machines made of files.

use std::os::unix::fs::symlink;

use super::*;

#[path = "tests/polling.rs"]
mod polling;

/// A machine under a temporary directory.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let m = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| m.put(path, text));
        m
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        symlink(to, self.0.path().join(path)).unwrap();
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings_for(&[])
    }

    /// The findings with poll loops on these cores.
    fn findings_for(&self, cores: &[usize]) -> Vec<Finding> {
        examine(self.0.path(), &Build::default(), &Wishes { cores: cores.to_vec(), memory: None })
    }

    fn find(&self, what: &str) -> Finding {
        let all = self.findings();
        all.iter().find(|f| f.what == what).unwrap_or_else(|| panic!("no {what} in {all:#?}")).clone()
    }

    fn expect(&self, what: &str, status: Status, found: &str, remedy: &str) {
        let f = self.find(what);
        assert_eq!(f.status, status, "{f:?}");
        assert!(f.found.contains(found), "{f:?}");
        assert!(f.remedy.clone().unwrap_or_default().contains(remedy), "{f:?}");
        assert_eq!(f.remedy.is_some(), !remedy.is_empty(), "{f:?}");
    }
}

const CPU: &str = "sys/devices/system/cpu";
const NIC: &str = "sys/bus/pci/devices/0000:03:00.0";

/// A machine without any problem.
fn ready() -> Machine {
    let flags = "aes pclmulqdq avx2 avx512f vaes vpclmulqdq sse4_2 constant_tsc nonstop_tsc";
    let cpu = |n| format!("processor\t: {n}\nmodel name\t: Fast CPU\nflags\t\t: fpu {flags}\n\n");
    let m = Machine::new(&[
        ("proc/cpuinfo", &(0..4).map(cpu).collect::<String>()),
        ("proc/self/status", "Name:\tgannet\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"),
        (
            "proc/self/limits",
            "Limit  Soft  Hard  Units\nMax locked memory         8388608              8388608              bytes\n",
        ),
        ("proc/self/mounts", "proc /proc proc rw 0 0\nnodev /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n"),
        ("proc/net/protocols", "protocol  size\nPACKET    1600\nXDP       1088\n"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "1024"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1000"),
        ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("sys/kernel/iommu_groups/7/type", "DMA"),
        ("sys/bus/pci/drivers/vfio-pci/new_id", ""),
        ("dev/vfio/7", ""),
    ]);
    for (file, text) in
        [("isolated", "1-3\n"), ("nohz_full", "1-3\n"), ("cpu0/cpufreq/scaling_governor", "performance\n")]
    {
        m.put(&format!("{CPU}/{file}"), text);
    }
    for (file, text) in [("class", "0x020000\n"), ("vendor", "0x8086\n"), ("device", "0x1592\n")] {
        m.put(&format!("{NIC}/{file}"), text);
    }
    m.link(&format!("{NIC}/driver"), "../../../bus/pci/drivers/vfio-pci");
    m.link(&format!("{NIC}/iommu_group"), "../../../kernel/iommu_groups/7");
    m
}

/// Gives the NIC to the kernel's `driver`, as interface `eth9`.
fn kernel_nic(m: &Machine, driver: &str) {
    let link = format!("{NIC}/driver");
    std::fs::remove_file(m.0.path().join(&link)).unwrap();
    m.link(&link, &format!("../../../bus/pci/drivers/{driver}"));
    m.put(&format!("{NIC}/net/eth9/mtu"), "1500");
    if driver == "mlx5_core" {
        m.put("sys/class/net/eth9/carrier", "1");
    }
}

#[test]
fn a_ready_machine_has_no_complaints() {
    let m = ready();
    let all = m.findings();
    let bad: Vec<_> = all.iter().filter(|f| f.status > Status::Note || f.remedy.is_some()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    m.expect("PCI 0000:03:00.0", Status::Ok, "8086:1592, driver vfio-pci, IOMMU group 7", "");
    m.expect("2 MiB pages", Status::Ok, "1024 in total, 1000 free", "");
    m.expect("1 GiB pages", Status::Note, "none", "");
    m.expect("hugetlbfs", Status::Ok, "/dev/hugepages", "");
    m.expect("cores", Status::Ok, "4", "");
}

#[test]
fn memory_that_is_missing_says_what_to_type() {
    let m = ready();
    m.put("proc/self/mounts", "hugetlbfs /hugetlbfs proc rw 0 0\n");
    m.expect("hugetlbfs", Status::Warn, "not mounted", "mount -t hugetlbfs nodev /dev/hugepages");
    m.put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "10");
    let wishes = Wishes { memory: Some(4 << 30), ..Wishes::default() };
    let findings = examine(m.0.path(), &Build::default(), &wishes);
    let memory = findings.iter().find(|finding| finding.what == "--memory 4096M").unwrap();
    assert_eq!((memory.status, memory.remedy.as_deref()), (Status::Warn, Some("sysctl -w vm.nr_hugepages=3062")));
    // More than the machine has: no hugepages can help.
    m.put("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n");
    let findings = examine(m.0.path(), &Build::default(), &wishes);
    let memory = findings.iter().find(|finding| finding.what == "--memory 4096M").unwrap();
    assert_eq!((memory.status, memory.remedy.as_deref()), (Status::Fail, None));
    assert!(memory.found.contains("give --memory at most"), "{memory:?}");
    m.expect("hugepages", Status::Warn, "only 20 MiB free", "sysctl -w vm.nr_hugepages=1536");
    m.put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
    m.put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0");
    m.expect("hugepages", Status::Warn, "none allocated", "sysctl -w vm.nr_hugepages=1024");
    assert!(m.findings().iter().all(|f| f.what != "hugetlbfs"), "no pages, no mount needed");
    // Pages of 1 GiB are just as good.
    m.put("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "1");
    m.put("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "1");
    assert!(m.findings().iter().all(|f| f.what != "hugepages"));
}

#[test]
fn an_ordinary_user_learns_what_is_missing() {
    let m = ready();
    m.put("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n");
    m.expect("user", Status::Note, "1000", "");
    m.expect("locked memory", Status::Warn, "only 8192 KiB", "ulimit -l unlimited");
    m.expect("CAP_NET_RAW", Status::Warn, "af-packet", "");
    m.expect("CAP_IPC_LOCK", Status::Warn, "not held", "setcap cap_net_raw,cap_net_admin,cap_ipc_lock+ep");
    m.expect("af-packet", Status::Note, "see Permissions", "");
    m.put("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000002000\n");
    m.expect("af-packet", Status::Ok, "possible", "");
    m.expect("af-xdp", Status::Note, "see Permissions", "");
    m.expect("CAP_NET_ADMIN", Status::Warn, "not held", "");
    m.put("proc/self/limits", "Max locked memory         unlimited            unlimited            bytes\n");
    m.expect("locked memory", Status::Ok, "no limit", "");
}

#[test]
fn cpus_that_lack_something() {
    let m = ready();
    m.put("proc/cpuinfo", "processor : 0\nmodel name : Old\nflags : fpu sse4_2 aes pclmulqdq avx512f\n");
    m.expect("AES instructions", Status::Warn, "missing: avx2", "-cpu host");
    m.expect("wide AES", Status::Note, "avx512f (not vaes vpclmulqdq)", "");
    m.expect("invariant TSC", Status::Warn, "drift", "+invtsc");
    m.expect("cores", Status::Warn, "only 1", "");
    m.put("proc/cpuinfo", "processor : 0\nflags : fpu\n");
    m.expect("SSE4.2", Status::Fail, "DPDK does not start", "-cpu host");
    m.put("proc/cpuinfo", "processor : 0\nFeatures : fp asimd aes pmull\n");
    m.expect("AES instructions", Status::Ok, "pmull", "");
}

#[test]
fn cores_and_clocks() {
    let m = ready();
    m.put(&format!("{CPU}/nohz_full"), "(null)\n");
    m.expect("tickless cores", Status::Warn, "timer tick", "nohz_full=1-3 rcu_nocbs=1-3");
    m.put(&format!("{CPU}/isolated"), "\n");
    m.expect("isolated cores", Status::Warn, "none", "isolcpus=3 nohz_full=3");
    m.put(&format!("{CPU}/cpu1/cpufreq/scaling_governor"), "powersave");
    m.expect("frequency governor", Status::Warn, "performance powersave", "echo performance");
    let clock = "sys/devices/system/clocksource/clocksource0";
    m.put(&format!("{clock}/current_clocksource"), "hpet");
    m.put(&format!("{clock}/available_clocksource"), "hpet tsc acpi_pm");
    m.expect("clock", Status::Warn, "hpet", "echo tsc >");
}

#[test]
fn nics_of_the_kernel_say_how_to_take_them() {
    let m = ready();
    kernel_nic(&m, "ice");
    let bind = "dpdk-devbind.py -b vfio-pci 0000:03:00.0";
    m.expect("PCI 0000:03:00.0", Status::Note, "driver ice, eth9 (down); in use by the kernel", bind);
    m.put("proc/net/route", "Iface\tDestination\tGateway\neth9\t00000000\t0100000A\n");
    m.expect("PCI 0000:03:00.0", Status::Note, "eth9 has the default route", "");
    kernel_nic(&m, "mlx5_core");
    m.expect("PCI 0000:03:00.0", Status::Ok, "alongside this driver", "");
    kernel_nic(&m, "uio_pci_generic");
    m.expect("PCI 0000:03:00.0", Status::Warn, "no IOMMU protects", bind);
    std::fs::remove_file(m.0.path().join(format!("{NIC}/driver"))).unwrap();
    m.expect("PCI 0000:03:00.0", Status::Warn, "no driver", bind);
    m.put(&format!("{NIC}/class"), "0x010802");
    m.expect("PCI NICs", Status::Note, "none", "");
}

#[test]
fn addresses_of_the_kernel_and_flags_that_stay_are_shown() {
    let m = ready();
    m.put("sys/class/net/lo/flags", "0x9");
    m.put("sys/class/net/eth1/flags", "0x1003");
    let address = |on: &str, addr: &str| (on.to_owned(), addr.to_owned());
    let addresses = vec![address("eth1", "192.0.2.1/24"), address("eth1", "fe80::1/64"), address("lo", "127.0.0.1/8")];
    let build = Build { addresses, xdp: vec![("eth2".into(), "xdpgeneric")], ..Build::default() };
    let of = |m: &Machine| -> Vec<Finding> {
        examine(m.0.path(), &build, &Wishes::default())
            .into_iter()
            .filter(|f| f.what.starts_with("interface "))
            .collect()
    };
    let [found] = &of(&m)[..] else { panic!("{:?}", of(&m)) };
    assert!(found.status == Status::Note && found.found.contains("192.0.2.1/24, fe80::1/64"), "{found:?}");
    let remedy = "ip addr del 192.0.2.1/24 dev eth1\nip addr del fe80::1/64 dev eth1";
    assert_eq!(found.remedy.as_deref(), Some(remedy));
    m.put("sys/class/net/eth1/flags", "0x1103");
    let [_, found] = &of(&m)[..] else { panic!("{:?}", of(&m)) };
    assert_eq!(found.remedy.as_deref(), Some("ip link set dev eth1 promisc off"));
    m.put("sys/class/net/eth2/flags", "0x1003");
    let [_, _, found] = &of(&m)[..] else { panic!("{:?}", of(&m)) };
    assert_eq!(found.remedy.as_deref(), Some("ip link set dev eth2 xdpgeneric off"));
}

/// Debian's kernel has no unsafe mode of vfio, so the advice used to lead nowhere.
#[test]
fn without_an_iommu_the_advice_is_what_the_kernel_can_do() {
    let m = ready();
    std::fs::remove_file(m.0.path().join(format!("{NIC}/iommu_group"))).unwrap();
    m.expect("PCI 0000:03:00.0", Status::Fail, "no IOMMU group", "-b uio_pci_generic 0000:03:00.0");
    m.put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N");
    m.expect("PCI 0000:03:00.0", Status::Fail, "no IOMMU group", "enable_unsafe_noiommu_mode");
    // Users who have followed the advice are not sent back.
    std::fs::remove_dir_all(m.0.path().join("sys/kernel/iommu_groups")).unwrap();
    kernel_nic(&m, "uio_pci_generic");
    m.expect("PCI 0000:03:00.0", Status::Warn, "no IOMMU protects", "");
}

#[test]
fn interfaces_behind_virtio_are_found() {
    let m = ready();
    kernel_nic(&m, "virtio-pci");
    std::fs::remove_dir_all(m.0.path().join(format!("{NIC}/net"))).unwrap();
    m.put(&format!("{NIC}/virtio2/net/eth0/mtu"), "1500");
    assert!(m.find("PCI 0000:03:00.0").found.contains("driver virtio-pci, eth0"));
}

#[test]
fn a_nic_set_aside_that_cannot_be_used_fails() {
    let m = ready();
    std::fs::remove_file(m.0.path().join("dev/vfio/7")).unwrap();
    m.expect("PCI 0000:03:00.0", Status::Fail, "/dev/vfio/7 is missing", "modprobe vfio-pci");
    std::fs::remove_file(m.0.path().join(format!("{NIC}/iommu_group"))).unwrap();
    m.expect("PCI 0000:03:00.0", Status::Fail, "no IOMMU group", "iommu=pt");
    std::fs::remove_dir_all(m.0.path().join("sys/kernel/iommu_groups")).unwrap();
    std::fs::remove_dir_all(m.0.path().join("sys/bus/pci/drivers")).unwrap();
    m.expect("IOMMU", Status::Warn, "absent, or off in the firmware", "intel_iommu=on");
    m.put("sys/firmware/acpi/tables/DMAR", "");
    m.expect("IOMMU", Status::Warn, "present, but off", "intel_iommu=on");
    m.expect("vfio-pci", Status::Warn, "not loaded", "modprobe");
}

#[test]
fn a_machine_without_files_fails_and_does_not_panic() {
    let m = Machine::new(&[]);
    m.expect("/proc", Status::Fail, "cannot be read", "mount -t proc");
    m.expect("hugepages", Status::Warn, "not supported by this kernel", "");
    m.expect("af-packet", Status::Warn, "no packet sockets", "CONFIG_PACKET=y");
}

#[test]
fn texts_are_aligned_and_counted() {
    let all = [
        Finding::new("A", "x", Status::Ok, "fine"),
        Finding::new("A", "longer", Status::Warn, "hm").remedy("do this\n# or that"),
        Finding::new("B", "y", Status::Fail, "no"),
    ];
    let want = "A\n  ok    x       fine\n  warn  longer  hm\n        do this\n        # or that\n\n\
                B\n  FAIL  y       no\n\n1 ok, 1 warning, 1 failure\n";
    assert_eq!(text(&all, false), want);
    assert!(text(&all, true).contains("\x1b[31mFAIL\x1b[0m"));
}

#[test]
fn what_the_program_knows_is_shown() {
    let build = Build {
        dpdk: Some("22.11.11".into()),
        crypto: "ipsec-mb/avx512".into(),
        drivers: vec!["net_memif".into()],
        ..Build::default()
    };
    let all = software(&build);
    assert!(all.iter().all(|f| f.status == Status::Ok), "{all:?}");
    for part in ["22.11.11", "ipsec-mb/avx512", "net_memif"] {
        assert!(all.iter().any(|f| f.found == part), "{part}");
    }
    let all = software(&Build { crypto: "portable".into(), ..Build::default() });
    assert!(all.iter().any(|f| f.what == "DPDK" && f.status == Status::Note));
    assert!(all.iter().any(|f| f.what == "crypto kernels" && f.status == Status::Note));
}

#[test]
fn shared_memory_and_sockets_are_told() {
    let build = |problem: Option<&str>| Build {
        shared: vec!["virtio-user".into()],
        sockets: Some(("/run/gannet".into(), problem.map(String::from))),
        ..Build::default()
    };
    let find = |build: &Build, what: &str| software(build).into_iter().find(|f| f.what == what).unwrap();
    let shared = find(&build(None), "shared memory");
    assert!(shared.status == Status::Note && shared.found.contains("virtio-user") && shared.found.contains("copied"));
    let sockets = find(&build(None), "sockets");
    assert_eq!((sockets.status, sockets.found.as_str()), (Status::Ok, "/run/gannet"));
    let sockets = find(&build(Some("mode 755")), "sockets");
    assert_eq!((sockets.status, sockets.found.as_str()), (Status::Warn, "mode 755"));
}
