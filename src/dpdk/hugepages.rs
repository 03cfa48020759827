//! Hugepages for DPDK's memory.

use std::fs;
use std::path::Path;

pub use crate::mem::Hugepages;

impl Hugepages {
    /// The names used in profiles.
    pub const NAMES: [&'static str; 3] = ["auto", "never", "require"];

    /// The value named `name` in profiles.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "never" => Some(Self::Never),
            "require" => Some(Self::Require),
            _ => None,
        }
    }

    /// The stricter of two values: `Require` wins over `Never`, which wins over `Auto`.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Require, _) | (_, Self::Require) => Self::Require,
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            _ => Self::Auto,
        }
    }
}

/// Free hugepages of all sizes, in bytes.
pub fn free_bytes() -> u64 {
    free_bytes_in(Path::new("/sys/kernel/mm/hugepages"))
}

/// The same for the pages in a directory of sysfs, such as those of one NUMA node.
pub(super) fn free_bytes_in(root: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(root) else { return 0 };
    let size = |entry: fs::DirEntry| {
        let kb: u64 = entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count = |name| fs::read_to_string(entry.path().join(name)).ok()?.trim().parse::<u64>().ok();
        let free = count("free_hugepages")?.saturating_sub(count("resv_hugepages").unwrap_or(0));
        kb.checked_mul(1024)?.checked_mul(free)
    };
    entries.filter_map(|e| size(e.ok()?)).sum()
}

/// Returns whether a hugetlbfs is mounted that this process can write to.
pub fn mounted() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mount_points(&mounts).any(|dir| {
        let Ok(path) = std::ffi::CString::new(dir) else { return false };
        // SAFETY: a NUL-terminated path.
        unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
    })
}

fn mount_points(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let dir = fields.nth(1)?;
        (fields.next()? == "hugetlbfs").then_some(dir)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_are_summed_over_sizes() {
        let dir = tempfile::tempdir().unwrap();
        for (size, free, reserved) in [("hugepages-2048kB", "5\n", "2\n"), ("hugepages-1048576kB", "1\n", "0\n")] {
            let sub = dir.path().join(size);
            fs::create_dir(&sub).unwrap();
            fs::write(sub.join("free_hugepages"), free).unwrap();
            fs::write(sub.join("resv_hugepages"), reserved).unwrap();
        }
        fs::create_dir(dir.path().join("other")).unwrap();
        assert_eq!(free_bytes_in(dir.path()), 3 * (2 << 20) + (1 << 30));
        assert_eq!(free_bytes_in(&dir.path().join("absent")), 0);
    }

    #[test]
    fn hugetlbfs_mounts_are_found() {
        let text = "proc /proc proc rw 0 0\nnone /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n";
        assert_eq!(mount_points(text).collect::<Vec<_>>(), ["/dev/hugepages"]);
    }

    #[test]
    fn wishes_combine() {
        use Hugepages::*;
        assert_eq!(Auto.and(Never), Never);
        assert_eq!(Never.and(Require), Require);
        assert_eq!(Auto.and(Auto), Auto);
        for name in Hugepages::NAMES {
            assert!(Hugepages::from_name(name).is_some());
        }
        assert_eq!(Hugepages::from_name("yes"), None);
    }
}
