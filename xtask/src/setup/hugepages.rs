//! Huge pages. Everything also runs without them, more slowly, so nothing here is an error.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::is_root;
use crate::process;

/// The number of 2 MiB pages that the demo's server and client use together.
const WANTED: u64 = 1700;

/// The size of a page in KiB.
const PAGE_KIB: u64 = 2048;

const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
const MOUNT: &str = "/dev/hugepages";

/// Returns whether there are enough pages and a mounted hugetlbfs.
pub fn is_ready() -> bool {
    read_number(FREE).is_some_and(|free| free >= wanted(memory_kib())) && is_mounted()
}

/// Reserves pages and mounts hugetlbfs if needed and possible; otherwise prints a warning.
pub fn prepare() {
    if is_ready() {
        return;
    }
    if let Err(reason) = reserve().and_then(|()| mount()) {
        println!("warning: huge pages: {reason}; continuing with ordinary memory, which is slower");
    }
}

fn reserve() -> Result<(), String> {
    let wanted = wanted(memory_kib());
    let count =
        read_number(COUNT).ok_or_else(|| format!("this kernel does not support 2 MiB pages ({COUNT} is missing)"))?;
    let free = read_number(FREE).unwrap_or(0);
    if free >= wanted {
        return Ok(());
    }
    let total = target(count, free, wanted, memory_kib());
    if total <= count {
        return Err(format!(
            "only {free} of {count} are free, and a quarter of the memory is reserved for them already"
        ));
    }
    if !is_root() {
        return Err(format!(
            "{free} are free, {wanted} wanted, and only root can reserve more: `sudo sysctl vm.nr_hugepages={total}`"
        ));
    }
    println!("setup: reserving {total} huge pages of 2 MiB (undo with `sysctl vm.nr_hugepages={count}`)");
    fs::write(COUNT, total.to_string()).map_err(|error| format!("cannot write {COUNT}: {error}"))?;
    match read_number(FREE).unwrap_or(0) {
        got if got < wanted => {
            Err(format!("the kernel found memory for only {got} of {wanted}; a fresh boot has less fragmented memory"))
        }
        _ => Ok(()),
    }
}

fn mount() -> Result<(), String> {
    if is_mounted() {
        return Ok(());
    }
    if !is_root() {
        return Err(format!(
            "no hugetlbfs is mounted, and only root can: `sudo mount -t hugetlbfs -o pagesize=2M hugetlbfs {MOUNT}`"
        ));
    }
    match fs::create_dir(MOUNT) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot create {MOUNT}: {error}"));
        }
        _ => {}
    }
    let mut command = Command::new("mount");
    command.args(["-t", "hugetlbfs", "-o", "pagesize=2M", "hugetlbfs", MOUNT]);
    process::run("mount", &mut command).map_err(|error| error.to_string())
}

/// The number of pages that should be free: those of the demo, but at most a quarter of the memory.
const fn wanted(memory_kib: u64) -> u64 {
    let quarter = memory_kib / 4 / PAGE_KIB;
    if quarter < WANTED { quarter } else { WANTED }
}

/// The total number of pages so that `wanted` are free, within a quarter of the memory.
fn target(count: u64, free: u64, wanted: u64, memory_kib: u64) -> u64 {
    (count + wanted.saturating_sub(free)).min(memory_kib / 4 / PAGE_KIB)
}

fn memory_kib() -> u64 {
    total_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn total_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn is_mounted() -> bool {
    has_hugetlbfs(&fs::read_to_string("/proc/mounts").unwrap_or_default())
}

/// Returns whether a hugetlbfs of 2 MiB pages is in `mounts`.
fn has_hugetlbfs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        let kind = fields.next();
        let options = fields.next().unwrap_or_default();
        let other_size = options.split(',').any(|option| option.starts_with("pagesize=") && option != "pagesize=2M");
        kind == Some("hugetlbfs") && !other_size
    })
}

fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB_KIB: u64 = 1 << 20;

    #[test]
    fn at_most_a_quarter_of_the_memory() {
        assert_eq!(wanted(24 * GIB_KIB), 1700);
        assert_eq!(wanted(4 * GIB_KIB), 512);
        assert_eq!(target(0, 0, 1100, 24 * GIB_KIB), 1100);
        // Pages in use by others are added.
        assert_eq!(target(500, 100, 1100, 24 * GIB_KIB), 1500);
        assert_eq!(target(500, 0, 512, 4 * GIB_KIB), 512);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(total_memory("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), 24_684_092);
        assert_eq!(total_memory(""), 0);
    }

    #[test]
    fn only_2_mib_mounts_count() {
        assert!(has_hugetlbfs("hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0"));
        assert!(has_hugetlbfs("none /mnt/huge hugetlbfs rw 0 0"));
        assert!(!has_hugetlbfs("none /mnt/huge1g hugetlbfs rw,pagesize=1024M 0 0"));
        assert!(!has_hugetlbfs("tmpfs /dev/hugepages tmpfs rw 0 0"));
    }
}
