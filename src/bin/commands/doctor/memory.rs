//! Checks of hugepages and locked memory.

use gannet::report::machine::{hugepages, page_size};

use super::rights::Rights;
use super::{Finding, Status, Tree};
use crate::commands::memory::{Memory, MissingPages, PAGE_KIB, Wish};

const AREA: &str = "Memory";
/// Enough for a port's packet buffers and a large transfer, in KiB.
const ENOUGH_KIB: u64 = 256 << 10;

/// `wanted` is the memory of a command, in bytes.
pub(super) fn check(tree: &Tree, rights: &Rights, wanted: Option<u64>) -> Vec<Finding> {
    let mut all = pages(tree);
    all.extend(wanted.map(|bytes| memory(tree, bytes)));
    all.extend(mount(tree));
    all.push(memlock(tree, rights));
    all
}

/// Reports each page size. As any size will do, only the total can be too small.
fn pages(tree: &Tree) -> Vec<Finding> {
    let sizes = hugepages(&tree.0);
    let (total, free) = sizes.iter().fold((0, 0), |(t, f), h| (t + h.total * h.size_kib, f + h.free * h.size_kib));
    let mut all: Vec<Finding> = sizes
        .iter()
        .map(|h| {
            let status = if h.free > 0 { Status::Ok } else { Status::Note };
            let found = if h.total == 0 { "none".into() } else { format!("{} in total, {} free", h.total, h.free) };
            Finding::new(AREA, format!("{} pages", page_size(h.size_kib)), status, found)
        })
        .collect();
    if sizes.is_empty() {
        let found = "not supported by this kernel: ordinary memory is used, at a higher cost per packet";
        all.push(Finding::new(AREA, "hugepages", Status::Warn, found));
    } else if free < ENOUGH_KIB {
        let found = match (total, free) {
            (0, _) => "none allocated: ordinary memory is used, at a higher cost per packet".into(),
            (_, 0) => "all in use by other programs".into(),
            _ => format!("only {} MiB free", free >> 10),
        };
        let pages = (total / PAGE_KIB).max(512) + 512;
        all.push(
            Finding::new(AREA, "hugepages", Status::Warn, found).remedy(format!("sysctl -w vm.nr_hugepages={pages}")),
        );
    }
    all
}

/// Checks whether there is so much memory at all, and whether there are hugepages for `bytes`. If there is not, more
/// hugepages would take what the system needs.
fn memory(tree: &Tree, bytes: u64) -> Finding {
    let what = format!("--memory {}M", bytes >> 20);
    if let Err(error) = Memory::of(&tree.0).for_wish(&Wish { flag: "--memory", bytes }, 0) {
        return Finding::new(AREA, what, Status::Fail, error.to_string());
    }
    match MissingPages::of(&tree.0, bytes) {
        None => Finding::new(AREA, what, Status::Ok, "there are hugepages for it"),
        Some(missing) => Finding::new(AREA, what, Status::Warn, missing.to_string()).remedy(missing.remedy()),
    }
}

/// Checks where hugetlbfs is mounted, if there are hugepages.
fn mount(tree: &Tree) -> Option<Finding> {
    if hugepages(&tree.0).iter().all(|h| h.total == 0) {
        return None;
    }
    let mounts = tree.read("proc/self/mounts").unwrap_or_default();
    let at: Vec<&str> = mounts
        .lines()
        .filter_map(|l| {
            let mut words = l.split(' ').skip(1);
            words.next().filter(|_| words.next() == Some("hugetlbfs"))
        })
        .collect();
    Some(if at.is_empty() {
        Finding::new(AREA, "hugetlbfs", Status::Warn, "not mounted, so DPDK cannot use the hugepages")
            .remedy("mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /dev/hugepages")
    } else {
        Finding::new(AREA, "hugetlbfs", Status::Ok, at.join(" "))
    })
}

fn memlock(tree: &Tree, rights: &Rights) -> Finding {
    let limits = tree.read("proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|l| l.strip_prefix("Max locked memory")?.split_whitespace().next());
    let what = "locked memory";
    match soft {
        _ if rights.has(Rights::IPC_LOCK) => Finding::new(AREA, what, Status::Ok, "no limit (CAP_IPC_LOCK)"),
        Some("unlimited") => Finding::new(AREA, what, Status::Ok, "no limit"),
        Some(n) => match n.parse::<u64>() {
            Ok(bytes) if bytes >> 10 >= ENOUGH_KIB => {
                Finding::new(AREA, what, Status::Ok, format!("{} MiB", bytes >> 20))
            }
            Ok(bytes) => {
                Finding::new(AREA, what, Status::Warn, format!("only {} KiB: buffers may be swapped out", bytes >> 10))
                    .remedy("ulimit -l unlimited   # in a systemd unit: LimitMEMLOCK=infinity")
            }
            Err(_) => Finding::new(AREA, what, Status::Note, "limit unknown"),
        },
        None => Finding::new(AREA, what, Status::Note, "limit unknown"),
    }
}
