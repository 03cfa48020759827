//! Facts about the machine, without which figures mean little.

use std::collections::BTreeMap;
use std::path::Path;

/// Facts about the machine whose /proc and /sys are under `root` (normally `/`). Unknown facts are omitted. `dpdk` is
/// the version of DPDK in use.
pub fn facts(root: &Path, dpdk: Option<&str>) -> Vec<(String, String)> {
    let cpuinfo = read(root, "proc/cpuinfo");
    let mut out = Vec::new();
    let mut add = |key: &str, value: Option<String>| {
        out.extend(value.filter(|v| !v.is_empty()).map(|v| (key.to_string(), v)));
    };
    add("CPU", field(&cpuinfo, "model name").map(String::from));
    let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    add("Cores", (cores > 0).then(|| cores.to_string()));
    add("Hypervisor", has_flag(&cpuinfo, "hypervisor").then(|| "yes, this is a virtual machine".into()));
    let kib = field(&read(root, "proc/meminfo"), "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
    add("Memory", kib.map(|kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20))));
    add("Hugepages", Some(hugepage_text(&hugepages(root))));
    let release = read(root, "proc/sys/kernel/osrelease");
    add("Kernel", Some(format!("{} {}", read(root, "proc/sys/kernel/ostype").trim(), release.trim()).trim().into()));
    add("System", os_name(root));
    add("Governor", Some(read(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").trim().into()));
    add("Isolated cores", Some(read(root, "sys/devices/system/cpu/isolated").trim().into()));
    add("DPDK", dpdk.map(String::from));
    out
}

/// The circumstances of figures: the member `run` of all JSON output.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Origin {
    /// The schema version of this structure and the JSON around it. It is increased when a key is removed or changes
    /// its meaning.
    pub schema: u32,
    /// Gannet's version.
    pub version: &'static str,
    /// The machine ([`facts`]).
    pub host: BTreeMap<String, String>,
    /// How busy the machine is.
    pub load: Load,
}

/// How busy a machine is.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Load {
    /// The load averages: tasks that ran or waited for a CPU or a disk, over 1, 5 and 15 minutes.
    pub average: [f64; 3],
    /// Tasks that are running or waiting for a CPU now, including this one.
    pub runnable: u64,
}

/// The origin of figures, with /proc and /sys under `root`; `dpdk` as for [`facts`].
pub fn origin(root: &Path, dpdk: Option<&str>) -> Origin {
    let host = facts(root, dpdk).into_iter().collect();
    Origin { schema: 1, version: env!("CARGO_PKG_VERSION"), host, load: load(root) }
}

/// How busy the machine with /proc under `root` is.
pub fn load(root: &Path) -> Load {
    // 0.20 0.18 0.12 1/80 11206
    let text = read(root, "proc/loadavg");
    let mut words = text.split_whitespace();
    let mut average = [0.0; 3];
    for place in &mut average {
        *place = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    }
    let runnable = words.next().and_then(|word| word.split_once('/')?.0.parse().ok()).unwrap_or_default();
    Load { average, runnable }
}

/// Tasks that are running or waiting for a CPU now, excluding the caller; `None` if unknown.
pub fn runnable(root: &Path) -> Option<usize> {
    usize::try_from(load(root).runnable).ok()?.checked_sub(1)
}

/// The hugepages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hugepages {
    /// The page size in KiB.
    pub size_kib: u64,
    /// Allocated pages.
    pub total: u64,
    /// Unused pages.
    pub free: u64,
}

/// The hugepages of each size that the kernel under `root` supports, smallest size first.
pub fn hugepages(root: &Path) -> Vec<Hugepages> {
    let base = root.join("sys/kernel/mm/hugepages");
    let number = |dir: &Path, file: &str| read(dir, file).trim().parse().unwrap_or(0);
    let mut all: Vec<Hugepages> = std::fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size_kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let (total, free) = (number(&entry.path(), "nr_hugepages"), number(&entry.path(), "free_hugepages"));
            Some(Hugepages { size_kib, total, free })
        })
        .collect();
    all.sort_by_key(|h| h.size_kib);
    all
}

/// `1024 x 2 MiB`, or `none`.
fn hugepage_text(all: &[Hugepages]) -> String {
    let some: Vec<String> =
        all.iter().filter(|h| h.total > 0).map(|h| format!("{} x {}", h.total, page_size(h.size_kib))).collect();
    if some.is_empty() { "none".into() } else { some.join(", ") }
}

/// `2 MiB`, `1 GiB`.
pub fn page_size(kib: u64) -> String {
    match kib {
        k if k >= 1 << 20 && k.is_multiple_of(1 << 20) => format!("{} GiB", k >> 20),
        k if k >= 1 << 10 && k.is_multiple_of(1 << 10) => format!("{} MiB", k >> 10),
        k => format!("{k} KiB"),
    }
}

/// Returns whether the first CPU has `flag` in `cpuinfo`.
pub fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).is_some_and(|f| f.split(' ').any(|f| f == flag))
}

/// The value of the first `KEY : VALUE` line.
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().filter_map(|l| l.split_once(':')).find(|(k, _)| k.trim() == key).map(|(_, v)| v.trim())
}

fn os_name(root: &Path) -> Option<String> {
    let text = read(root, "etc/os-release");
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').into())
}

/// A file under `root`; empty if it cannot be read.
fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn facts_of_a_known_machine() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let cpu = "model name\t: Fast CPU @ 3 GHz\nflags\t\t: fpu aes hypervisor\n";
        put(root, "proc/cpuinfo", &format!("processor\t: 0\n{cpu}\nprocessor\t: 1\n{cpu}"));
        put(root, "proc/meminfo", "MemTotal:        8123456 kB\nMemFree: 1 kB\n");
        put(root, "proc/sys/kernel/ostype", "Linux\n");
        put(root, "proc/sys/kernel/osrelease", "6.1.0\n");
        put(root, "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "2\n");
        put(root, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
        put(root, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n");
        put(root, "etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n");
        put(root, "proc/loadavg", "0.20 0.18 0.12 3/80 11206\n");
        let origin = origin(root, None);
        assert_eq!(origin.load, Load { average: [0.2, 0.18, 0.12], runnable: 3 });
        assert_eq!((origin.host["Cores"].as_str(), origin.version), ("2", env!("CARGO_PKG_VERSION")));
        let facts = facts(root, Some("22.11.11"));
        let get = |key: &str| facts.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v);
        assert_eq!(get("CPU"), "Fast CPU @ 3 GHz");
        assert_eq!((get("Cores"), get("Memory"), get("Kernel")), ("2", "7.7 GiB", "Linux 6.1.0"));
        assert_eq!((get("Hugepages"), get("System")), ("512 x 2 MiB, 2 x 1 GiB", "Debian 12"));
        assert_eq!(get("DPDK"), "22.11.11");
        assert!(!get("Hypervisor").is_empty() && get("Governor").is_empty());
        assert_eq!(hugepages(root)[0], Hugepages { size_kib: 2048, total: 512, free: 100 });
    }

    #[test]
    fn an_unknown_machine_has_few_facts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(facts(dir.path(), None), [("Hugepages".into(), "none".into())]);
        assert_eq!(origin(dir.path(), None).load, Load::default());
        assert!(!has_flag("flags : aesx", "aes") && has_flag("Features\t: aes pmull", "aes"));
        assert_eq!(
            (page_size(2048), page_size(1 << 20), page_size(64)),
            ("2 MiB".into(), "1 GiB".into(), "64 KiB".into())
        );
    }
}
