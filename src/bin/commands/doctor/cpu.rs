//! Checks of the CPU.

use gannet::report::machine::{field, has_flag};

use super::{Finding, Status, Tree};

const AREA: &str = "CPU";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(cpuinfo) = tree.read("proc/cpuinfo") else {
        let f = Finding::new(AREA, "/proc", Status::Fail, "cannot be read, so this machine cannot be checked");
        return vec![f.remedy("mount -t proc proc /proc")];
    };
    let model = field(&cpuinfo, "model name").unwrap_or("unknown model");
    let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    let mut all = vec![Finding::new(AREA, "model", Status::Ok, model), count(cores)];
    // ARM has "Features" where x86 has "flags".
    if field(&cpuinfo, "flags").is_some() {
        all.extend([baseline(&cpuinfo), crypto(&cpuinfo), wide_crypto(&cpuinfo), tsc(&cpuinfo)]);
    } else {
        all.push(arm_crypto(&cpuinfo));
    }
    all.extend(clock(tree));
    all.push(governor(tree));
    all
}

fn count(cores: usize) -> Finding {
    if cores == 1 {
        Finding::new(AREA, "cores", Status::Warn, "only 1: the poll loop shares it with everything else")
    } else {
        Finding::new(AREA, "cores", Status::Ok, cores.to_string())
    }
}

/// The baseline of distributions' DPDK packages.
fn baseline(cpuinfo: &str) -> Finding {
    if has_flag(cpuinfo, "sse4_2") {
        Finding::new(AREA, "SSE4.2", Status::Ok, "present")
    } else {
        Finding::new(AREA, "SSE4.2", Status::Fail, "missing: DPDK does not start on this CPU")
            .remedy("# in a virtual machine: use the host's CPU model, for example -cpu host")
    }
}

fn crypto(cpuinfo: &str) -> Finding {
    let missing: Vec<&str> = ["aes", "pclmulqdq", "avx2"].into_iter().filter(|flag| !has_flag(cpuinfo, flag)).collect();
    if missing.is_empty() {
        Finding::new(AREA, "AES instructions", Status::Ok, "aes pclmulqdq avx2")
    } else {
        Finding::new(
            AREA,
            "AES instructions",
            Status::Warn,
            format!("missing: {}; encryption is slow", missing.join(" ")),
        )
        .remedy("# in a virtual machine: use the host's CPU model, for example -cpu host")
    }
}

fn wide_crypto(cpuinfo: &str) -> Finding {
    let (there, missing): (Vec<&str>, Vec<&str>) =
        ["avx512f", "vaes", "vpclmulqdq"].into_iter().partition(|flag| has_flag(cpuinfo, flag));
    match (there.is_empty(), missing.is_empty()) {
        (_, true) => Finding::new(AREA, "wide AES", Status::Ok, there.join(" ")),
        (true, _) => Finding::new(AREA, "wide AES", Status::Note, "not on this CPU; using the AVX2 kernels"),
        _ => Finding::new(AREA, "wide AES", Status::Note, format!("{} (not {})", there.join(" "), missing.join(" "))),
    }
}

fn arm_crypto(cpuinfo: &str) -> Finding {
    if has_flag(cpuinfo, "aes") && has_flag(cpuinfo, "pmull") {
        Finding::new(AREA, "AES instructions", Status::Ok, "aes pmull")
    } else {
        Finding::new(AREA, "AES instructions", Status::Warn, "missing; encryption is slow")
    }
}

fn tsc(cpuinfo: &str) -> Finding {
    if has_flag(cpuinfo, "constant_tsc") && has_flag(cpuinfo, "nonstop_tsc") {
        Finding::new(AREA, "invariant TSC", Status::Ok, "present")
    } else {
        Finding::new(AREA, "invariant TSC", Status::Warn, "missing: measured latencies drift with the CPU's frequency")
            .remedy("# in a virtual machine: pass it through, for example -cpu host,+invtsc")
    }
}

/// Reading a clock that needs a system call or a device access costs more than a packet.
fn clock(tree: &Tree) -> Option<Finding> {
    let dir = "sys/devices/system/clocksource/clocksource0";
    let now = tree.read(&format!("{dir}/current_clocksource"))?;
    if matches!(now.as_str(), "hpet" | "acpi_pm" | "refined-jiffies" | "jiffies") {
        let known = tree.read(&format!("{dir}/available_clocksource")).unwrap_or_default();
        let f = Finding::new(AREA, "clock", Status::Warn, format!("reading {now} takes a microsecond"));
        let better = known.split(' ').find(|c| matches!(*c, "tsc" | "kvm-clock"));
        return Some(match better {
            Some(c) => f.remedy(format!("echo {c} > /{dir}/current_clocksource")),
            None => f,
        });
    }
    Some(Finding::new(AREA, "clock", Status::Ok, now))
}

fn governor(tree: &Tree) -> Finding {
    let mut all: Vec<String> = tree
        .list("sys/devices/system/cpu")
        .iter()
        .filter_map(|cpu| tree.read(&format!("sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor")))
        .collect();
    all.sort();
    all.dedup();
    if all.is_empty() {
        return Finding::new(
            AREA,
            "frequency governor",
            Status::Note,
            "not controlled by this system (a virtual machine, or firmware)",
        );
    }
    if all == ["performance"] {
        return Finding::new(AREA, "frequency governor", Status::Ok, "performance");
    }
    let found = format!("{}: cores slow down between bursts", all.join(" "));
    Finding::new(AREA, "frequency governor", Status::Warn, found)
        .remedy("echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
}
