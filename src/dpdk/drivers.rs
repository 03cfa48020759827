//! The network drivers of the installed DPDK.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};

use super::profile::{Bus, DRIVERS};

/// A network driver plugin of the installed DPDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInfo {
    /// The file name without `librte_` and `.so`, such as `net_memif`.
    pub name: String,
    /// The path of the file.
    pub path: PathBuf,
    /// Whether a port profile can use it.
    pub profiled: bool,
    /// The reason why it cannot be loaded, usually a missing library.
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

/// Finds every network driver plugin and tries to load it. Takes a second; for diagnosis.
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

/// Drivers that a profile can use but that this machine lacks or cannot load, each with the command that installs it.
/// `available` is the result of [`available_drivers`].
pub fn absent_drivers(available: &[DriverInfo]) -> Vec<(String, String)> {
    let mut absent = Vec::new();
    for driver in &DRIVERS {
        let remedy = match missing_part(plugin_dir(), driver.library, driver.bus) {
            Some((_, package)) => format!("apt-get install {package}"),
            None => {
                let info = available.iter().find(|info| info.name == driver.library);
                let Some(problem) = info.and_then(|info| info.problem.as_deref()) else { continue };
                match missing_library(problem) {
                    Some(library) => package_of_library(&library).replace('`', ""),
                    None => format!("# {problem}"),
                }
            }
        };
        if !absent.iter().any(|(name, _)| name == driver.library) {
            absent.push((driver.library.to_owned(), remedy));
        }
    }
    absent
}

/// The network driver plugins in `dir`, by name.
pub(super) fn installed(dir: &Path) -> Vec<(String, PathBuf)> {
    plugins(dir).into_iter().filter(|(name, _)| name.starts_with("net_")).collect()
}

/// All plugins in `dir`, by name: files that end in `.so`, or, without development packages, in `.so` and the version
/// of DPDK's interface. EAL selects plugins in the same way.
fn plugins(dir: &Path) -> BTreeMap<String, PathBuf> {
    let version = abi(dir);
    let Ok(entries) = fs::read_dir(dir) else { return BTreeMap::new() };
    let plugin = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("librte_")?;
        let name = version.as_ref().and_then(|v| name.strip_suffix(&format!(".{v}"))).unwrap_or(name);
        Some((name.strip_suffix(".so")?.to_owned(), path))
    };
    entries.filter_map(|entry| plugin(entry.ok()?.path())).collect()
}

/// The version of DPDK's interface, for example 23.0 from `pmds-23.0`.
fn abi(dir: &Path) -> Option<String> {
    Some(dir.file_name()?.to_str()?.strip_prefix("pmds-")?.to_owned())
}

/// The Debian or Ubuntu package of the plugin `part`, for example `librte-net-memif23` for `net_memif`.
pub fn debian_package(part: &str) -> String {
    package_in(plugin_dir(), part)
}

fn package_in(dir: &Path, part: &str) -> String {
    let name = part.replace('_', "-");
    let major = abi(dir).and_then(|version| version.split('.').next().map(str::to_owned)).unwrap_or_default();
    let dash = if name.ends_with(|c: char| c.is_ascii_digit()) && !major.is_empty() { "-" } else { "" };
    format!("librte-{name}{dash}{major}")
}

/// The first missing plugin among those that ports of the driver `library` need, with its package. EAL itself only
/// reports that there is no such device, or no memory.
pub(super) fn missing_part(dir: &Path, library: &'static str, bus: Bus) -> Option<(&'static str, String)> {
    let there = plugins(dir);
    let bus = match bus {
        Bus::Vdev => "bus_vdev",
        Bus::Pci => "bus_pci",
    };
    // Without any plugins, drivers may be linked in statically.
    let part =
        [bus, "mempool_ring", library].into_iter().find(|part| !there.is_empty() && !there.contains_key(*part))?;
    Some((part, package_in(dir, part)))
}

/// The library that the loader did not find, if EAL's log reports that.
pub(super) fn missing_library(log: &str) -> Option<String> {
    let (before, _) = log.split_once(": cannot open shared object file")?;
    let library = before.rsplit([' ', ':', ';']).next()?;
    library.contains(".so").then(|| library.to_owned())
}

/// The command that installs a library that drivers need.
pub(super) fn package_of_library(library: &str) -> String {
    let known = [
        ("libxdp.so", "libxdp1"),
        ("libbpf.so.0", "libbpf0"),
        ("libbpf.so", "libbpf1"),
        ("libibverbs.so", "libibverbs1"),
        ("libmlx5.so", "ibverbs-providers"),
        ("libmlx4.so", "ibverbs-providers"),
        ("libpcap.so", "libpcap0.8"),
    ];
    let package = known.iter().find(|(file, _)| library.starts_with(file)).map(|(_, package)| (*package).to_owned());
    let part = library.strip_prefix("librte_").and_then(|name| name.split(".so").next()).map(debian_package);
    match package.or(part) {
        Some(package) => format!("`apt-get install {package}`"),
        None => format!("install the package that contains it (`apt-file search {library}`), or remove that driver's"),
    }
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
        return Err("unknown error".to_owned());
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

    /// Only the development package's links used to be seen: without it, no driver was found.
    #[test]
    fn plugins_without_development_packages_are_found() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("pmds-23.0");
        fs::create_dir(&dir).unwrap();
        for name in ["librte_net_memif.so.23", "librte_net_memif.so.23.0", "librte_bus_vdev.so.23.0"] {
            fs::write(dir.join(name), "").unwrap();
        }
        assert_eq!(installed(&dir), [("net_memif".to_owned(), dir.join("librte_net_memif.so.23.0"))]);
        // Missing plugins are reported with their packages.
        let missing = |library, bus| missing_part(&dir, library, bus);
        assert_eq!(missing("net_memif", Bus::Vdev), Some(("mempool_ring", "librte-mempool-ring23".to_owned())));
        fs::write(dir.join("librte_mempool_ring.so.23.0"), "").unwrap();
        assert_eq!(missing("net_memif", Bus::Vdev), None);
        assert_eq!(missing("net_af_xdp", Bus::Vdev), Some(("net_af_xdp", "librte-net-af-xdp23".to_owned())));
        assert_eq!(missing("net_mlx5", Bus::Pci), Some(("bus_pci", "librte-bus-pci23".to_owned())));
        assert_eq!(package_in(&dir, "net_mlx5"), "librte-net-mlx5-23");
        assert_eq!(missing_part(root.path(), "net_memif", Bus::Vdev), None, "linked in, perhaps");
    }

    #[test]
    fn libraries_that_drivers_miss_are_named_with_their_package() {
        let log =
            "EAL: libxdp.so.1: cannot open shared object file: No such file or directory; EAL: Cannot init plugins";
        let library = missing_library(log).unwrap();
        assert_eq!(
            (library.as_str(), package_of_library(&library).as_str()),
            ("libxdp.so.1", "`apt-get install libxdp1`")
        );
        assert_eq!(missing_library("EAL: no such device"), None);
        assert!(package_of_library("librte_common_mlx5.so.23").contains("librte-common-mlx5"));
        assert!(package_of_library("libodd.so.1").contains("apt-file search libodd.so.1"));
    }

    #[test]
    fn an_unloadable_plugin_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("librte_net_x.so");
        fs::write(&path, "not an object").unwrap();
        assert!(load(&path).unwrap_err().contains("librte_net_x.so"));
    }
}
