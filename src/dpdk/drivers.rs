//! Which network drivers this machine's DPDK has.

use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};

use super::profile::DRIVERS;

/// A network driver plugin of the installed DPDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInfo {
    /// Its name without `librte_` and `.so`, such as `net_memif`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Whether a port profile can name it.
    pub profiled: bool,
    /// Why it cannot be loaded, usually a library that is missing.
    pub problem: Option<String>,
}

/// The DPDK release that this executable was built against, such as `22.11.11`.
pub const BUILT_AGAINST: &str = env!("GANNET_DPDK_VERSION");

/// The network drivers that were installed where this executable was built.
pub fn drivers_at_build() -> impl Iterator<Item = &'static str> {
    env!("GANNET_DPDK_PMDS").split(',').filter(|name| !name.is_empty())
}

/// The directory that DPDK loads its drivers from.
pub fn plugin_dir() -> &'static Path {
    Path::new(dpdk_sys::PLUGIN_DIR)
}

/// Looks at every network driver plugin and tries to load it. Takes a second; for diagnosis.
pub fn available_drivers() -> Vec<DriverInfo> {
    installed(plugin_dir())
        .into_iter()
        .map(|(name, path)| {
            let profiled = DRIVERS.iter().any(|d| d.library == name);
            let problem = load(&path).err();
            DriverInfo { name, path, profiled, problem }
        })
        .collect()
}

/// The network driver plugins in `dir`, by name.
pub(super) fn installed(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.strip_prefix("librte_")?.strip_suffix(".so")?.to_owned();
            name.starts_with("net_").then_some((name, path))
        })
        .collect();
    found.sort();
    found
}

fn load(path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a NUL-terminated path to a DPDK driver. Its constructors only add it to lists, and it stays
    // loaded, just as EAL itself loads it.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: follows a failed `dlopen` on this thread: null or a NUL-terminated text.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return Err("unknown reason".to_owned());
    }
    // SAFETY: as above, and not null.
    Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["librte_net_b.so", "librte_net_a.so", "librte_net_a.so.23", "librte_crypto_x.so", "README"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<String> = installed(dir.path()).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["net_a", "net_b"]);
        assert!(installed(&dir.path().join("absent")).is_empty());
    }

    #[test]
    fn an_unloadable_plugin_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("librte_net_x.so");
        fs::write(&path, "not an object").unwrap();
        assert!(load(&path).unwrap_err().contains("librte_net_x.so"));
    }
}
