//! Limits on pinned memory: it cannot be swapped out, so too much of it ends other programs.

use std::error::Error;
use std::fmt;
use std::path::Path;

use gannet::report::machine::{Hugepages, hugepages};

use crate::args::engine::EngineArgs;
use crate::args::values::LEAST_MEMORY;

/// The minimum that is left to the system, in bytes. It is a sixteenth of the memory if that is more.
const LEAST_REST: u64 = 256 << 20;

/// Memory that an argument asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The argument.
    pub flag: &'static str,
    /// The amount of memory.
    pub bytes: u64,
}

/// An argument asks for more memory than the machine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{flag} needs {} of pinned memory ({} hugepages of 2 MiB), but only {} are available ({} are left to the system): give {flag} at most {}M, \
     or omit it", size(*bytes), bytes.div_ceil(2 << 20), size(*most), size(*rest), most >> 20
)]
pub struct TooMuch {
    flag: &'static str,
    bytes: u64,
    most: u64,
    rest: u64,
}

/// `--memory` gives each core less than it works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--memory: give at least {}M for {cores} cores, {}M for each", (u64::from(*cores) * LEAST_MEMORY) >> 20,
    LEAST_MEMORY >> 20
)]
pub struct TooLittle {
    cores: u8,
}

/// Memory of a machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    total: u64,
    /// Memory available without swapping; less in a container with a limit.
    available: u64,
    hugepages: u64,
}

impl Memory {
    /// The memory of this machine. What cannot be determined is taken as unlimited: the allocation then fails later.
    pub fn of_machine() -> Self {
        Self::of(Path::new("/"))
    }

    /// The memory of the machine under `root`.
    pub fn of(root: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let info = read("proc/meminfo");
        let kib = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1 << 10)
        };
        let number = |file: &str| read(file).trim().parse::<u64>().ok();
        let container = number("sys/fs/cgroup/memory.max")
            .map_or(u64::MAX, |max| max.saturating_sub(number("sys/fs/cgroup/memory.current").unwrap_or(0)));
        Self {
            total: kib("MemTotal").unwrap_or(u64::MAX),
            available: kib("MemAvailable").unwrap_or(u64::MAX).min(container),
            hugepages: free(&hugepages(root)),
        }
    }

    /// The size limit of a pool for `wish` plus `working` bytes, which are allocated on demand.
    ///
    /// # Errors
    /// The wish does not fit into the available memory.
    pub fn for_wish(self, wish: &Wish, working: u64) -> Result<u64, TooMuch> {
        let Wish { flag, bytes } = *wish;
        let rest = if self.total == u64::MAX { 0 } else { LEAST_REST.max(self.total / 16) };
        let most = self.available.saturating_sub(rest).max(self.hugepages);
        // Larger than the address space, so not available on any machine.
        let sum = bytes.checked_add(working).filter(|sum| isize::try_from(*sum).is_ok());
        match sum {
            Some(sum) if bytes == 0 || bytes <= most => Ok(sum),
            _ => Err(TooMuch { flag, bytes, most: most.min(isize::MAX as u64), rest }),
        }
    }
}

/// The free ones of `pages`, in bytes.
fn free(pages: &[Hugepages]) -> u64 {
    let bytes = |pages: &Hugepages| pages.free.saturating_mul(pages.size_kib).saturating_mul(1 << 10);
    pages.iter().map(bytes).fold(0, u64::saturating_add)
}

/// The size of the hugepages that remedies allocate, in KiB.
pub const PAGE_KIB: u64 = 2048;

/// There are fewer free hugepages than some memory needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingPages {
    /// Pages of 2 MiB: needed, free, and allocated. Larger pages count as many.
    needed: u64,
    free: u64,
    allocated: u64,
}

impl MissingPages {
    /// What is missing for `bytes` on the machine under `root`; `None` if there are enough.
    pub fn of(root: &Path, bytes: u64) -> Option<Self> {
        let pages = hugepages(root);
        let allocated = pages.iter().find(|pages| pages.size_kib == PAGE_KIB).map_or(0, |pages| pages.total);
        let (needed, free) = (bytes.div_ceil(PAGE_KIB << 10), free(&pages) / (PAGE_KIB << 10));
        (needed > free).then_some(Self { needed, free, allocated })
    }

    /// The command that allocates the missing pages.
    pub fn remedy(&self) -> String {
        format!("sysctl -w vm.nr_hugepages={}", self.allocated + self.needed - self.free)
    }
}

impl fmt::Display for MissingPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, free, .. } = self;
        write!(f, "needs {needed} hugepages of 2 MiB, of which {free} are free: ordinary memory is used for the rest")
    }
}

/// The minimum memory of each core if nothing else is asked for, in bytes.
const CORE_MEMORY: u64 = 256 << 20;

/// The memory of `cores` cores for what is on its way, in bytes, which is allocated on demand: what `--memory` asks for,
/// or else `usual`, but more if that is too little for each core.
///
/// # Errors
/// If the machine does not have it, or it is too little for each core.
pub fn working_memory(args: &EngineArgs, cores: u8, usual: u64) -> Result<u64, Box<dyn Error + Send + Sync>> {
    working_memory_of(Memory::of_machine(), args, cores, usual)
}

/// The same, and the memory for `wish` in addition. If both are asked for, `both` names them.
///
/// # Errors
/// If the machine does not have it, or not both, or it is too little for each core.
pub fn working_memory_and(
    wish: &Wish,
    both: &'static str,
    args: &EngineArgs,
    cores: u8,
    usual: u64,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let machine = Memory::of_machine();
    let limit = machine.for_wish(wish, working_memory_of(machine, args, cores, usual)?)?;
    if args.memory.is_some() {
        machine.for_wish(&Wish { flag: both, bytes: limit }, 0)?;
    }
    Ok(limit)
}

fn working_memory_of(
    machine: Memory,
    args: &EngineArgs,
    cores: u8,
    usual: u64,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let Some(bytes) = args.memory else { return Ok(usual.max(u64::from(cores) * CORE_MEMORY)) };
    if bytes / u64::from(cores) < LEAST_MEMORY {
        return Err(TooLittle { cores }.into());
    }
    machine.for_wish(&Wish { flag: "--memory", bytes }, 0)?;
    if let Some(missing) = MissingPages::of(Path::new("/"), bytes) {
        tracing::warn!("--memory: {missing}; as root: {}", missing.remedy());
    }
    Ok(bytes)
}

/// `512 MiB`, `100.0 GiB`.
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes < GIB { format!("{} MiB", bytes >> 20) } else { format!("{:.1} GiB", bytes as f64 / GIB as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_wish_must_fit_into_the_machine() {
        let memory = Memory { total: 8 * GIB, available: 6 * GIB, hugepages: 0 };
        let hold = |bytes| memory.for_wish(&Wish { flag: "--hold", bytes }, GIB);
        assert_eq!(hold(0), Ok(GIB));
        assert_eq!(hold(5 * GIB), Ok(6 * GIB));
        let why = hold(100 * GIB).unwrap_err().to_string();
        for part in ["--hold needs 100.0 GiB", "5.5 GiB are available", "512 MiB are left", "--hold at most 5632M"] {
            assert!(why.contains(part), "{part} is not in: {why}");
        }
        assert_eq!(hold(5632 << 20), Ok((5632 << 20) + GIB), "what it advises works");
        for bytes in [6 * GIB, 1 << 62, u64::MAX - GIB, u64::MAX - 1, u64::MAX] {
            assert!(hold(bytes).is_err(), "{bytes}");
        }
        let pages = Memory { hugepages: 100 * GIB, ..memory };
        assert!(pages.for_wish(&Wish { flag: "--hold", bytes: 100 * GIB }, GIB).is_ok());
        let unknown = Memory { total: u64::MAX, available: u64::MAX, hugepages: 0 };
        assert!(unknown.for_wish(&Wish { flag: "--hold", bytes: 100 * GIB }, GIB).is_ok());
        assert!(unknown.for_wish(&Wish { flag: "--hold", bytes: u64::MAX }, GIB).is_err(), "it does not wrap");
    }

    #[test]
    fn a_container_has_what_its_limit_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(Memory::of(dir.path()), Memory { total: u64::MAX, available: u64::MAX, hugepages: 0 });
        put("proc/meminfo", "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:    6000000 kB\n");
        assert_eq!(Memory::of(dir.path()).available, 6_000_000 << 10);
        put("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(Memory::of(dir.path()).available, 6_000_000 << 10);
        put("sys/fs/cgroup/memory.max", "1073741824\n");
        put("sys/fs/cgroup/memory.current", "73741824\n");
        put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "10\n");
        put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4\n");
        let want = Memory { total: 8_000_000 << 10, available: 1_000_000_000, hugepages: 8 << 20 };
        assert_eq!(Memory::of(dir.path()), want);
    }

    #[test]
    fn what_is_too_little_for_all_cores_is_told() {
        let text = TooLittle { cores: 4 }.to_string();
        assert_eq!(text, "--memory: give at least 128M for 4 cores, 32M for each");
    }

    #[test]
    fn missing_hugepages_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let put = |size: u32, total: u32, free: u32| {
            let path = dir.path().join(format!("sys/kernel/mm/hugepages/hugepages-{size}kB"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("nr_hugepages"), total.to_string()).unwrap();
            std::fs::write(path.join("free_hugepages"), free.to_string()).unwrap();
        };
        let missing = |bytes| MissingPages::of(dir.path(), bytes);
        assert_eq!(missing(1).unwrap().remedy(), "sysctl -w vm.nr_hugepages=1");
        put(2048, 1024, 1000);
        assert_eq!(missing(1000 << 21), None);
        let some = missing(4 * GIB).unwrap();
        assert_eq!(some.remedy(), "sysctl -w vm.nr_hugepages=2072");
        assert!(some.to_string().starts_with("needs 2048 hugepages of 2 MiB, of which 1000 are free"), "{some}");
        put(1_048_576, 4, 2);
        assert_eq!(missing(4 * GIB).unwrap().remedy(), "sysctl -w vm.nr_hugepages=1048");
        assert_eq!(missing(3 * GIB), None);
    }

    #[test]
    fn this_machine_has_some() {
        let here = Memory::of_machine();
        assert!(here.total > LEAST_REST && here.total < 1 << 50 && here.available <= here.total, "{here:?}");
    }
}
