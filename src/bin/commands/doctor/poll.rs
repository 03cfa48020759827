//! Checks of the cores for poll loops.

use std::collections::BTreeSet;

use gannet::report::machine::runnable;

use super::devices::Nic;
use super::{Finding, Status, Tree, Wishes};

const AREA: &str = "Poll loop";

/// Interrupts that occurred fewer times since boot are ignored.
const RARE: u64 = 100;

/// C-states with a longer exit latency matter to a core that sleeps, in microseconds.
const DEEP: u32 = 20;

/// The cores of a machine, and the choice for poll loops.
pub(super) struct Cores {
    /// All cores.
    all: Vec<usize>,
    isolated: Vec<usize>,
    /// The cores for poll loops: those asked for, or the chosen one.
    polling: Vec<usize>,
}

impl Cores {
    pub(super) fn read(tree: &Tree, wishes: &Wishes, nics: &[Nic]) -> Self {
        let cpuinfo = tree.read("proc/cpuinfo").unwrap_or_default();
        let number = |line: &str| line.strip_prefix("processor")?.trim_start().strip_prefix(':')?.trim().parse().ok();
        let all: Vec<usize> = cpuinfo.lines().filter_map(number).collect();
        let isolated = cpu_list(&tree.read("sys/devices/system/cpu/isolated").unwrap_or_default());
        let mut polling = wishes.cores.clone();
        if polling.is_empty() {
            polling.extend(choose(tree, &all, &isolated, nics));
        }
        Self { all, isolated, polling }
    }

    /// The polling cores and their hardware siblings, which should be idle.
    fn quiet(&self, tree: &Tree) -> Vec<usize> {
        let siblings = |core: &usize| {
            let file = format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
            cpu_list(&tree.read(&file).unwrap_or_default())
        };
        let all: BTreeSet<usize> = self.polling.iter().copied().chain(self.polling.iter().flat_map(siblings)).collect();
        all.into_iter().collect()
    }

    /// A core for everything else.
    fn housekeeper(&self, tree: &Tree) -> usize {
        let quiet = self.quiet(tree);
        self.all.iter().copied().find(|core| !quiet.contains(core)).unwrap_or(0)
    }
}

/// Chooses the core for a command's poll loop: an isolated one near the NIC if there is one, otherwise the last, since
/// the first does most of the system's work.
fn choose(tree: &Tree, all: &[usize], isolated: &[usize], nics: &[Nic]) -> Option<usize> {
    let near = nics.iter().find_map(|nic| nic.is_for_dpdk().then(|| nic.node(tree)).flatten());
    let is_near = |core: &usize| near.is_none() || node_of(tree, *core) == near;
    if !isolated.is_empty() {
        return isolated.iter().copied().find(is_near).or(isolated.first().copied());
    }
    let others = || all.iter().rev().copied().filter(|&core| core != 0);
    others().find(is_near).or(others().next())
}

/// The NUMA node of a core, if known.
fn node_of(tree: &Tree, core: usize) -> Option<u32> {
    let names = tree.list(&format!("sys/devices/system/cpu/cpu{core}"));
    names.iter().find_map(|name| name.strip_prefix("node")?.parse().ok())
}

/// Parses a CPU list such as `1-3,8`.
pub(super) fn cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // A bound: the file could contain any number.
        (last < 1 << 16).then_some(first..=last)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Formats a CPU list for the kernel, such as `1-3,8`.
fn as_list(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

pub(super) fn check(tree: &Tree, cores: &Cores, nics: &[Nic]) -> Vec<Finding> {
    let missing: Vec<_> = cores.polling.iter().filter(|core| !cores.all.contains(core)).collect();
    if let Some(core) = missing.first().filter(|_| !cores.all.is_empty()) {
        let found = format!("no such CPU; this machine has {}", as_list(&cores.all));
        return vec![Finding::new(AREA, format!("core {core}"), Status::Fail, found)];
    }
    let mut all = isolation(tree, cores);
    for &core in &cores.polling {
        all.extend(node(tree, cores, core, nics));
        all.extend(interrupts(tree, cores, core));
        all.extend(c_states(tree, core));
    }
    all.extend(groups(tree, cores, nics));
    all.extend(load(tree, cores));
    all
}

/// How servers with several cores can share this machine: for each NIC, CPUs on its node (isolated ones if there are
/// any), one per physical core, and no CPU for two NICs.
fn groups(tree: &Tree, cores: &Cores, nics: &[Nic]) -> Vec<Finding> {
    let free = if cores.isolated.is_empty() { &cores.all } else { &cores.isolated };
    let first = |core: &usize| {
        let siblings = tree.read(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"));
        cpu_list(&siblings.unwrap_or_default()).into_iter().find(|sibling| free.contains(sibling)).unwrap_or(*core)
    };
    // CPU 0 does most of the system's work.
    let usable: Vec<usize> = free
        .iter()
        .copied()
        .filter(|core| first(core) == *core && (!cores.isolated.is_empty() || *core != 0))
        .collect();
    let nics: Vec<(&Nic, Option<u32>)> =
        nics.iter().filter(|nic| nic.is_for_dpdk()).map(|nic| (nic, nic.node(tree))).collect();
    let of_nic = |(i, (nic, node)): (usize, &(&Nic, Option<u32>))| {
        let near = |core: &usize| node.is_none() || node_of(tree, *core) == *node;
        let near: Vec<usize> = usable.iter().copied().filter(near).collect();
        let (before, sharing) =
            (nics[..i].iter().filter(|n| n.1 == *node).count(), nics.iter().filter(|n| n.1 == *node));
        let each = near.len() / sharing.count();
        let part = as_list(&near[before * each..(before + 1) * each]);
        let what = format!("cores for {}", nic.address());
        (each > 1).then(|| {
            // Not a remedy: nothing is wrong.
            let found = format!("on its node, one of each physical core: gannet serve --cores {part} ...");
            Finding::new(AREA, what, Status::Note, found)
        })
    };
    nics.iter().enumerate().filter_map(of_nic).collect()
}

fn isolation(tree: &Tree, cores: &Cores) -> Vec<Finding> {
    let quiet = as_list(&cores.quiet(tree));
    let polling = as_list(&cores.polling);
    let boot = |words: String| format!("# add to the kernel's command line, then reboot: {words}");
    let run = format!("{} {polling}", if cores.polling.len() == 1 { "--core" } else { "--cores" });
    if cores.polling.is_empty() {
        return vec![Finding::new(AREA, "isolated cores", Status::Note, "none to spare")];
    }
    let outside: Vec<usize> = cores.polling.iter().copied().filter(|core| !cores.isolated.contains(core)).collect();
    if cores.isolated.is_empty() || !outside.is_empty() {
        let found = match as_list(&cores.isolated) {
            none if none.is_empty() => "none".to_owned(),
            some => format!("{some}, but not {}", as_list(&outside)),
        };
        let found = format!("{found}: other programs run on the poll loop's core and raise tail latency");
        let words = boot(format!("isolcpus={quiet} nohz_full={quiet} rcu_nocbs={quiet}"));
        let remedy = format!("{words}\n# then run with {run}, or, on a shared machine, with --idle sleep");
        return vec![Finding::new(AREA, "isolated cores", Status::Warn, found).remedy(remedy)];
    }
    let isolated = Finding::new(AREA, "isolated cores", Status::Ok, as_list(&cores.isolated));
    let tickless = tree.read("sys/devices/system/cpu/nohz_full").unwrap_or_default();
    let ticks: Vec<usize> = cores.polling.iter().copied().filter(|c| !cpu_list(&tickless).contains(c)).collect();
    let ticks = if ticks.is_empty() {
        Finding::new(AREA, "tickless cores", Status::Ok, tickless)
    } else {
        let found = format!("not {polling}: the timer tick interrupts the poll loop");
        let all = as_list(&cores.isolated);
        Finding::new(AREA, "tickless cores", Status::Warn, found)
            .remedy(boot(format!("nohz_full={all} rcu_nocbs={all}")))
    };
    vec![isolated, ticks]
}

/// Checks NUMA nodes: on another node than the NIC's, each packet crosses between nodes.
fn node(tree: &Tree, cores: &Cores, core: usize, nics: &[Nic]) -> Vec<Finding> {
    let Some(own) = node_of(tree, core) else { return Vec::new() };
    let there = |nic: &&Nic| nic.is_for_dpdk() && nic.node(tree).is_some();
    let check = |nic: &Nic| {
        let (what, far) = (format!("core {core}, node"), nic.node(tree).unwrap_or(own));
        if far == own {
            return Finding::new(AREA, what, Status::Ok, format!("{own}, as {}", nic.address()));
        }
        let found = format!("{own}, but {} is on node {far}: each packet crosses between them", nic.address());
        let better = cores.all.iter().rev().copied().find(|&other| other != 0 && node_of(tree, other) == Some(far));
        let f = Finding::new(AREA, what, Status::Warn, found);
        match better {
            Some(other) => f.remedy(format!("# run with --core {other}")),
            None => f,
        }
    };
    nics.iter().filter(there).map(check).collect()
}

/// One line of `/proc/interrupts`.
struct Interrupt {
    number: u32,
    name: String,
    /// How many this core handled.
    count: u64,
}

/// Device interrupts that `core` has handled and still may, the most frequent first.
fn interrupts_on(tree: &Tree, core: usize) -> Vec<Interrupt> {
    let text = tree.read("proc/interrupts").unwrap_or_default();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let Some(column) = head.iter().position(|cpu| *cpu == format!("CPU{core}")) else { return Vec::new() };
    let mut found = Vec::new();
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let Ok(number) = number.trim().parse() else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let count: u64 = words.get(column).and_then(|n| n.parse().ok()).unwrap_or(0);
        let file = |name| tree.read(&format!("proc/irq/{number}/{name}")).filter(|list| !list.is_empty());
        let allowed = file("effective_affinity_list").or_else(|| file("smp_affinity_list")).unwrap_or_default();
        if count >= RARE && cpu_list(&allowed).contains(&core) {
            found.push(Interrupt { number, name: words.last().copied().unwrap_or_default().to_owned(), count });
        }
    }
    found.sort_by_key(|interrupt| std::cmp::Reverse(interrupt.count));
    found
}

fn interrupts(tree: &Tree, cores: &Cores, core: usize) -> Option<Finding> {
    tree.read("proc/interrupts")?;
    let what = format!("core {core}, interrupts");
    let found = interrupts_on(tree, core);
    if found.is_empty() {
        return Some(Finding::new(AREA, what, Status::Ok, "none from devices"));
    }
    let names: Vec<String> = found.iter().take(4).map(|i| format!("{} ({})", i.number, i.name)).collect();
    let more = if found.len() > 4 { format!(" and {} more", found.len() - 4) } else { String::new() };
    let list = as_list(&cores.quiet(tree));
    let other = cores.housekeeper(tree);
    let mut remedy: Vec<String> =
        found.iter().take(4).map(|i| format!("echo {other} > /proc/irq/{}/smp_affinity_list", i.number)).collect();
    remedy.push(format!("# irqbalance would undo this: IRQBALANCE_BANNED_CPULIST={list} in /etc/default/irqbalance"));
    let text = format!("{}{more}: each interrupts the poll loop for microseconds", names.join(", "));
    Some(Finding::new(AREA, what, Status::Warn, text).remedy(remedy.join("\n")))
}

/// Checks for sleep states with a long exit latency, which a core that polls never enters.
fn c_states(tree: &Tree, core: usize) -> Option<Finding> {
    let dir = format!("sys/devices/system/cpu/cpu{core}/cpuidle");
    let what = format!("core {core}, C-states");
    let states = tree.list(&dir);
    if states.is_empty() {
        return Some(Finding::new(
            AREA,
            what,
            Status::Note,
            "not controlled by this system (a virtual machine, or firmware)",
        ));
    }
    // A binary number that programs in need of low latency keep set.
    let limit = tree.bytes("dev/cpu_dma_latency").and_then(|b| Some(u32::from_ne_bytes(b.get(..4)?.try_into().ok()?)));
    let deep: Vec<(String, String, u32)> = states
        .into_iter()
        .filter(|state| tree.read(&format!("{dir}/{state}/disable")).is_none_or(|off| off == "0"))
        .filter_map(|state| {
            let latency = tree.read(&format!("{dir}/{state}/latency"))?.parse().ok()?;
            let name = tree.read(&format!("{dir}/{state}/name")).unwrap_or_default();
            (latency > DEEP && limit.is_none_or(|limit| latency <= limit)).then_some((state, name, latency))
        })
        .collect();
    let Some((_, name, latency)) = deep.iter().max_by_key(|(_, _, latency)| *latency) else {
        return Some(Finding::new(AREA, what, Status::Ok, format!("all are exited within {DEEP} µs")));
    };
    let found =
        format!("{name} takes {latency} µs to exit: with --idle sleep, the first packet after a pause waits for that");
    let off = deep.iter().map(|(state, ..)| format!("echo 1 > /{dir}/{state}/disable")).collect::<Vec<_>>();
    Some(Finding::new(AREA, what, Status::Note, found).remedy(off.join("\n")))
}

/// Checks how many other tasks are runnable.
fn load(tree: &Tree, cores: &Cores) -> Option<Finding> {
    let running = runnable(&tree.0)?;
    if running < cores.all.len() {
        return Some(Finding::new(AREA, "load", Status::Ok, format!("{running} of {} CPUs in use", cores.all.len())));
    }
    let found = format!(
        "{running} tasks compete for {} CPUs: a poll loop that never sleeps loses its CPU for milliseconds at a time",
        cores.all.len()
    );
    Some(
        Finding::new(AREA, "load", Status::Warn, found).remedy("# run with --idle sleep, or with fewer other programs"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("1-3,8\n"), [1, 2, 3, 8]);
        assert_eq!(cpu_list(""), [0usize; 0]);
        assert_eq!(cpu_list("0-99999999999"), [0usize; 0]);
        assert_eq!(as_list(&[1, 2, 3, 8]), "1-3,8");
        assert_eq!(as_list(&[]), "");
    }
}
