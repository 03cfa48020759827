//! Checks of the cores for poll loops.

use super::*;

/// A machine with 32 CPUs, two per physical core, on two nodes: 0 to 15 and 16 to 31. The NIC is on node 1.
fn large() -> Machine {
    let m = ready();
    let flags = "aes pclmulqdq avx2 avx512f vaes vpclmulqdq sse4_2 constant_tsc nonstop_tsc";
    let cpu = |n| format!("processor\t: {n}\nmodel name\t: Fast CPU\nflags\t\t: fpu {flags}\n\n");
    m.put("proc/cpuinfo", &(0..32).map(cpu).collect::<String>());
    for core in 0..32 {
        m.put(&format!("{CPU}/cpu{core}/node{}/x", core / 16), "");
        let first = core / 2 * 2;
        m.put(&format!("{CPU}/cpu{core}/topology/thread_siblings_list"), &format!("{first}-{}\n", first + 1));
    }
    for file in ["isolated", "nohz_full"] {
        m.put(&format!("{CPU}/{file}"), "\n");
    }
    m.put(&format!("{NIC}/numa_node"), "1\n");
    m
}

fn find(all: &[Finding], what: &str) -> Finding {
    all.iter().find(|f| f.what == what).unwrap_or_else(|| panic!("no {what} in {all:#?}")).clone()
}

/// The doctor used to advise `isolcpus=1-31` for a single poll loop.
#[test]
fn as_many_cores_are_set_aside_as_poll() {
    let m = large();
    let f = m.find("isolated cores");
    let remedy = f.remedy.unwrap();
    // The hardware sibling has to be idle too.
    assert!(remedy.contains("isolcpus=30-31 nohz_full=30-31 rcu_nocbs=30-31"), "{remedy}");
    assert!(remedy.contains("run with --core 31"), "{remedy}");
    let remedy = find(&m.findings_for(&[4, 9]), "isolated cores").remedy.unwrap();
    assert!(remedy.contains("isolcpus=4-5,8-9 ") && remedy.contains("--cores 4,9"), "{remedy}");
    m.put(&format!("{CPU}/isolated"), "20-21\n");
    m.put(&format!("{CPU}/nohz_full"), "20-21\n");
    m.expect("isolated cores", Status::Ok, "20-21", "");
    m.expect("tickless cores", Status::Ok, "20-21", "");
    let other = find(&m.findings_for(&[31]), "isolated cores");
    assert!(other.status == Status::Warn && other.found.starts_with("20-21, but not 31"), "{other:?}");
}

#[test]
fn a_core_that_is_not_there_is_said_so() {
    let m = ready();
    let f = find(&m.findings_for(&[7]), "core 7");
    assert!(f.status == Status::Fail && f.found.contains("this machine has 0-3"), "{f:?}");
}

#[test]
fn core_and_nic_are_on_one_node() {
    let m = large();
    m.expect("core 31, node", Status::Ok, "1, as 0000:03:00.0", "");
    let f = find(&m.findings_for(&[8]), "core 8, node");
    assert!(f.status == Status::Warn && f.found.contains("0000:03:00.0 is on node 1"), "{f:?}");
    assert_eq!(f.remedy.unwrap(), "# run with --core 31");
    // One node, or a virtual machine.
    m.put(&format!("{NIC}/numa_node"), "-1\n");
    assert!(m.findings().iter().all(|f| !f.what.ends_with("node")));
}

#[test]
fn nics_share_the_cores_of_their_node() {
    let m = large();
    let all = "gannet serve --cores 16,18,20,22,24,26,28,30 ...";
    m.expect("cores for 0000:03:00.0", Status::Note, all, "");
    let other = "sys/bus/pci/devices/0000:04:00.0";
    for (file, text) in [("class", "0x020000\n"), ("vendor", "0x8086\n"), ("device", "0x1592\n"), ("numa_node", "1\n")]
    {
        m.put(&format!("{other}/{file}"), text);
    }
    m.link(&format!("{other}/driver"), "../../../bus/pci/drivers/vfio-pci");
    m.expect("cores for 0000:03:00.0", Status::Note, "--cores 16,18,20,22 ...", "");
    m.expect("cores for 0000:04:00.0", Status::Note, "--cores 24,26,28,30 ...", "");
    m.put(&format!("{other}/numa_node"), "0\n");
    m.expect("cores for 0000:03:00.0", Status::Note, all, "");
    m.expect("cores for 0000:04:00.0", Status::Note, "--cores 2,4,6,8,10,12,14 ...", "");
    // Isolated cores have nothing else to do.
    m.put(&format!("{CPU}/isolated"), "0-3,20-21\n");
    m.expect("cores for 0000:04:00.0", Status::Note, "--cores 0,2 ...", "");
    assert!(m.findings().iter().all(|f| f.what != "cores for 0000:03:00.0"), "one core is no group");
}

#[test]
fn interrupts_that_stop_the_loop_are_named() {
    let m = ready();
    let table = "            CPU0       CPU1       CPU2       CPU3       \n\
                   24:        500        900          0          0  PCI-MSI 524288-edge      eth0-rx-0\n\
                   25:          0        700          0          0  PCI-MSI 524289-edge      nvme0q1\n\
                   26:          0          0          0          0  PCI-MSI 524290-edge      nvme0q2\n\
                  NMI:          0          3          0          0   Non-maskable interrupts\n";
    m.put("proc/interrupts", table);
    m.put("proc/irq/24/effective_affinity_list", "1\n");
    // It was handled here once, and may not be any more.
    m.put("proc/irq/25/smp_affinity_list", "0\n");
    m.put("proc/irq/26/smp_affinity_list", "0-3\n");
    let f = m.find("core 1, interrupts");
    assert!(f.status == Status::Warn && f.found.starts_with("24 (eth0-rx-0): "), "{f:?}");
    let remedy = f.remedy.unwrap();
    assert!(remedy.contains("echo 0 > /proc/irq/24/smp_affinity_list"), "{remedy}");
    assert!(remedy.contains("IRQBALANCE_BANNED_CPULIST=1 "), "{remedy}");
    m.put("proc/irq/24/effective_affinity_list", "0\n");
    m.expect("core 1, interrupts", Status::Ok, "none", "");
}

#[test]
fn deep_sleep_of_the_core_matters_to_a_loop_that_sleeps() {
    let m = ready();
    m.expect("core 1, C-states", Status::Note, "not controlled by this system", "");
    for (state, name, latency) in [(0, "POLL", 0), (1, "C1", 2), (3, "C6", 133)] {
        let dir = format!("{CPU}/cpu1/cpuidle/state{state}");
        m.put(&format!("{dir}/name"), name);
        m.put(&format!("{dir}/latency"), &latency.to_string());
        m.put(&format!("{dir}/disable"), "0");
    }
    let off = "echo 1 > /sys/devices/system/cpu/cpu1/cpuidle/state3/disable";
    m.expect("core 1, C-states", Status::Note, "C6 takes 133 µs", off);
    m.put(&format!("{CPU}/cpu1/cpuidle/state3/disable"), "1");
    m.expect("core 1, C-states", Status::Ok, "within 20 µs", "");
    m.put(&format!("{CPU}/cpu1/cpuidle/state3/disable"), "0");
    // Another program limits exit latencies.
    std::fs::write(m.0.path().join("dev/cpu_dma_latency"), 50i32.to_ne_bytes()).unwrap();
    m.expect("core 1, C-states", Status::Ok, "within 20 µs", "");
    std::fs::write(m.0.path().join("dev/cpu_dma_latency"), 2_000_000_000i32.to_ne_bytes()).unwrap();
    m.expect("core 1, C-states", Status::Note, "C6", off);
}

#[test]
fn more_tasks_than_cpus_want_a_loop_that_sleeps() {
    let m = ready();
    m.put("proc/loadavg", "0.50 0.40 0.30 2/300 4711\n");
    m.expect("load", Status::Ok, "1 of 4", "");
    m.put("proc/loadavg", "6.50 5.40 4.30 7/300 4711\n");
    m.expect("load", Status::Warn, "6 tasks compete for 4 CPUs", "--idle sleep");
}

#[test]
fn a_link_that_is_down_is_told() {
    let m = ready();
    kernel_nic(&m, "mlx5_core");
    m.expect("PCI 0000:03:00.0", Status::Ok, "eth9 (link up)", "");
    m.put("sys/class/net/eth9/carrier", "0");
    m.expect("PCI 0000:03:00.0", Status::Warn, "eth9 (no link)", "ethtool eth9");
    std::fs::remove_file(m.0.path().join("sys/class/net/eth9/carrier")).unwrap();
    m.expect("PCI 0000:03:00.0", Status::Warn, "eth9 (down)", "ip link set dev eth9 up");
}

#[test]
fn drivers_that_are_missing_say_what_to_type() {
    let absent = vec![("net_ice".to_owned(), "apt-get install librte-net-ice23".to_owned())];
    let all = software(&Build { absent, ..Build::default() });
    let f = find(&all, "missing drivers");
    assert!(f.status == Status::Note && f.found.starts_with("net_ice: "), "{f:?}");
    assert_eq!(f.remedy.unwrap(), "apt-get install librte-net-ice23");
}
