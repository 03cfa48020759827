//! DPDK's environment abstraction layer (EAL): initialised once per process, cleaned up when the last user is gone.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::drivers;
use super::error::{EalError, last};
use super::guard;
use super::hugepages::{self, Hugepages};
use super::iova::{self, Iova};
use super::log::{self, Capture};
use super::profile::PortProfile;

/// DPDK's log level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors and warnings.
    #[default]
    Warning,
    /// Also information about what it detects and selects.
    Info,
    /// Everything.
    Debug,
}

/// The prefix of the runtime directories that EAL creates for our processes; the process number follows.
const PREFIX: &str = "gannet-";

/// The configuration of DPDK's environment.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Distinguishes this process's files from those of others.
    pub file_prefix: String,
    /// Whether memory comes from hugepages.
    pub hugepages: Hugepages,
    /// Memory in MB: without hugepages the fixed size, with them the amount that must be free. Untouched pages cost
    /// nothing.
    pub memory_mb: u32,
    /// Create no shared files; other processes then cannot attach as secondaries (dpdk-proc-info).
    pub in_memory: bool,
    /// Serve `dpdk-telemetry.py` on a socket below `/var/run/dpdk`.
    pub telemetry: bool,
    /// Use one file for all hugepages of a size, as vhost-user and zero-copy memif require.
    pub single_file_segments: bool,
    /// PCI devices to use, `0000:01:00.0` or `0000:01:00.0,key=value`. If empty, PCI is not scanned.
    pub pci: Vec<String>,
    /// The kind of addresses that PCI devices use.
    pub iova: Iova,
    /// The lcore number of the thread that calls [`Eal::init`], below 128.
    pub main_lcore: u32,
    /// DPDK's log level.
    pub log: LogLevel,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            file_prefix: format!("{PREFIX}{}", std::process::id()),
            hugepages: Hugepages::Auto,
            memory_mb: 512,
            in_memory: true,
            telemetry: false,
            single_file_segments: true,
            pci: Vec::new(),
            iova: Iova::Virtual,
            main_lcore: 0,
            log: LogLevel::Warning,
        }
    }
}

impl EalConfig {
    /// A configuration that meets the combined needs of these ports on this machine.
    pub fn for_profiles(profiles: &[PortProfile]) -> Self {
        let mut config = Self { iova: iova::of(Path::new("/sys"), profiles), ..Self::default() };
        for profile in profiles {
            config.hugepages = config.hugepages.and(profile.hugepages);
            config.pci.extend(profile.pci_argument());
        }
        let pools: u64 = profiles.iter().map(PortProfile::memory_bytes).sum();
        // Rings, vhost regions and fragmentation on top of the pools.
        config.memory_mb = config.memory_mb.max(u32::try_from((pools >> 20) * 3 / 2 + 128).unwrap_or(u32::MAX));
        config
    }

    /// The argument vector, with or without hugepages.
    fn arguments(&self, huge: bool, cpus: &str) -> Vec<String> {
        let mut args = vec![
            "gannet".to_owned(),
            format!("--file-prefix={}", self.file_prefix),
            format!("--lcores={}@({cpus})", self.main_lcore),
            format!("--main-lcore={}", self.main_lcore),
            match self.iova {
                Iova::Virtual => "--iova-mode=va",
                Iova::Physical => "--iova-mode=pa",
            }
            .to_owned(),
            format!(
                "--log-level={}",
                match self.log {
                    LogLevel::Warning => "warning",
                    LogLevel::Info => "info",
                    LogLevel::Debug => "debug",
                }
            ),
        ];
        if self.in_memory {
            // EAL treats ordinary pages as its legacy mode and refuses --in-memory with it; what remains of that option
            // then is --no-shconf.
            args.push(if huge { "--in-memory" } else { "--no-shconf" }.to_owned());
        }
        if !self.telemetry {
            args.push("--no-telemetry".to_owned());
        }
        if !huge {
            args.extend(["--no-huge".to_owned(), "-m".to_owned(), self.memory_mb.to_string()]);
        }
        // Zero-copy memif needs this with any kind of pages.
        if self.single_file_segments && (huge || joins_ordinary_pages(&Eal::version())) {
            args.push("--single-file-segments".to_owned());
        }
        if self.pci.is_empty() {
            args.push("--no-pci".to_owned());
        }
        for device in &self.pci {
            args.extend(["-a".to_owned(), device.clone()]);
        }
        args
    }

    /// Decides whether to use hugepages, and what to tell the operator if not.
    fn choose_memory(&self, free: u64, usable: bool) -> Result<(bool, Option<String>), EalError> {
        let need_mb = u64::from(self.memory_mb);
        let free_mb = if usable { free >> 20 } else { 0 };
        if self.iova == Iova::Physical && (free_mb < need_mb || self.hugepages == Hugepages::Never) {
            return Err(EalError::PhysicalWithoutHugepages { free_mb, need_mb });
        }
        match self.hugepages {
            Hugepages::Never => Ok((false, None)),
            _ if free_mb >= need_mb => Ok((true, None)),
            Hugepages::Require => Err(EalError::NoHugepages { free_mb, need_mb }),
            Hugepages::Auto => {
                let warning = format!(
                    "only {free_mb} MB of the {need_mb} MB of hugepages needed are free: using ordinary pages, which is \
                     slower; `sysctl vm.nr_hugepages={}` gives enough",
                    need_mb.div_ceil(2)
                );
                Ok((false, Some(warning)))
            }
        }
    }
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The state that every port, queue and thread guard keeps alive.
pub(super) struct EalInner {
    warning: Option<String>,
    huge: bool,
    /// DPDK's memory is still referred to: by a buffer that was not returned, or by a handler on the interrupt thread
    /// that its driver left behind.
    pub(super) in_use: AtomicBool,
}

impl Drop for EalInner {
    fn drop(&mut self) {
        let _quiet = Capture::start();
        let dir = runtime_dir();
        // Unmapping memory that is still in use would leave dangling pointers. Skipping the clean-up leaves nothing
        // that does not end with the process.
        if !self.in_use.load(Ordering::Acquire) {
            // SAFETY: every port, pool and registered thread holds a reference to `self`, so none is left.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
        // EAL creates this directory even if it puts nothing in it. It stays if it is not empty.
        let _ = fs::remove_dir(dir);
    }
}

fn runtime_dir() -> PathBuf {
    // SAFETY: EAL was started, and returns a static NUL-terminated text.
    let dir = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    PathBuf::from(OsStr::from_bytes(dir.to_bytes()))
}

/// Removes the directories with the default prefix that killed processes have left in `all`: those of processes that
/// `proc` does not list. Directories that are not empty stay.
fn remove_dead(all: &Path, proc: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).filter(|pid| pid.parse::<u32>().is_ok());
        if pid.is_some_and(|pid| !proc.join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A handle to the running environment. Clones share it; dropping the last one cleans up, after all ports are gone.
#[derive(Clone)]
pub struct Eal(pub(super) Arc<EalInner>);

impl fmt::Debug for Eal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eal").field("hugepages", &self.0.huge).field("warning", &self.0.warning).finish()
    }
}

impl Eal {
    /// Starts DPDK. The calling thread becomes its main lcore but keeps its CPU affinity.
    ///
    /// # Errors
    /// Fails on a second call in a process, if hugepages are required and too few are free, and if EAL fails.
    pub fn init(config: &EalConfig) -> Result<Self, EalError> {
        let usable = config.in_memory || hugepages::mounted();
        let (huge, warning) = config.choose_memory(hugepages::free_bytes(), usable)?;
        let affinity = Affinity::current();
        let args = config.arguments(huge, &affinity.list());
        let args: Vec<CString> = args
            .into_iter()
            .map(|a| CString::new(a.clone()).map_err(|_| EalError::Argument(a)))
            .collect::<Result<_, _>>()?;
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyInitialised);
        }
        log::take_over();
        guard::install_eal();
        let capture = (config.log == LogLevel::Warning).then(Capture::start);
        // EAL may reorder the vector and keeps pointers into the strings, so they are leaked, once per process.
        let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
        let argc = argv.len() as i32;
        argv.push(std::ptr::null_mut());
        // SAFETY: `argv` holds `argc` NUL-terminated strings that are never freed, and a null behind them.
        let result = unsafe { dpdk_sys::rte_eal_init(argc, argv.leak().as_mut_ptr()) };
        affinity.restore();
        if result < 0 {
            let reason = last();
            let detail = capture.map(|c| c.summary()).unwrap_or_default();
            let _ = fs::remove_dir(runtime_dir());
            if let Some(library) = drivers::missing_library(&detail) {
                return Err(EalError::Library { package: drivers::package_of_library(&library), library });
            }
            if config.iova == Iova::Physical && detail.contains("physical addresses are not available") {
                return Err(EalError::PhysicalWithoutRoot);
            }
            return Err(EalError::Init { reason, detail });
        }
        if let Some(all) = runtime_dir().parent() {
            remove_dead(all, Path::new("/proc"));
        }
        Ok(Self(Arc::new(EalInner { warning, huge, in_use: AtomicBool::new(false) })))
    }

    /// A message for the operator if hugepages are not used.
    pub fn warning(&self) -> Option<&str> {
        self.0.warning.as_deref()
    }

    /// Whether memory comes from hugepages.
    pub fn hugepages(&self) -> bool {
        self.0.huge
    }

    /// Gives the calling thread an lcore number, and with it a cache in every mempool. Without a cache, buffers come
    /// from the shared ring, which is correct but slower. The thread that called [`Eal::init`] already has a number.
    ///
    /// # Errors
    /// If 128 threads are already registered.
    pub fn register_thread(&self) -> Result<ThreadGuard, EalError> {
        // SAFETY: EAL is up for as long as `self` lives.
        let already = unsafe { dpdk_sys::rte_lcore_id() } != u32::MAX;
        // SAFETY: as above; registering is allowed for any thread that has no lcore yet.
        if !already && unsafe { dpdk_sys::rte_thread_register() } != 0 {
            return Err(EalError::Thread(last()));
        }
        Ok(ThreadGuard { mine: !already, _eal: self.clone(), _not_send: PhantomData })
    }

    /// The calling thread's lcore number, if it has one.
    pub fn lcore() -> Option<u32> {
        // SAFETY: reads a thread-local integer.
        let id = unsafe { dpdk_sys::rte_lcore_id() };
        (id != u32::MAX).then_some(id)
    }

    /// The version of the running DPDK, such as `DPDK 22.11.0`.
    pub fn version() -> String {
        // SAFETY: returns a static NUL-terminated text.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
    }
}

/// Whether this release, such as `DPDK 22.11.0`, accepts --single-file-segments with --no-huge. Since 25.11 they cannot
/// be combined, and zero-copy memif needs hugepages.
fn joins_ordinary_pages(release: &str) -> bool {
    let mut numbers = release.trim_start_matches("DPDK ").split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (25, 11)
}

/// The registration of a thread with DPDK, until dropped on that thread.
pub struct ThreadGuard {
    mine: bool,
    _eal: Eal,
    _not_send: PhantomData<*const ()>,
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if self.mine {
            // SAFETY: registered by this guard on this thread (it is not `Send`); EAL is still up.
            unsafe { dpdk_sys::rte_thread_unregister() };
        }
    }
}

/// The CPUs that a thread may run on.
struct Affinity(libc::cpu_set_t);

impl Affinity {
    fn current() -> Self {
        // SAFETY: an all-zero set is valid, and the call writes at most its size.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            Self(set)
        }
    }

    fn restore(&self) {
        // SAFETY: a set that the kernel gave us.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) };
    }

    /// The list in EAL's notation, `0,1,5`; the first CPU if the kernel returned none.
    fn list(&self) -> String {
        // SAFETY: the index is below the size of the set.
        let set = (0..libc::CPU_SETSIZE as usize).filter(|&c| unsafe { libc::CPU_ISSET(c, &self.0) });
        let cpus: Vec<String> = set.map(|c| c.to_string()).collect();
        if cpus.is_empty() { "0".to_owned() } else { cpus.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_configuration() {
        let config = EalConfig { file_prefix: "x".into(), memory_mb: 64, ..EalConfig::default() };
        let small = config.arguments(false, "0,1").join(" ");
        for part in
            ["--file-prefix=x", "--lcores=0@(0,1)", "--no-huge -m 64", "--no-pci", "--no-shconf", "--no-telemetry"]
        {
            assert!(small.contains(part), "{part} is missing in {small}");
        }
        assert!(!small.contains("--in-memory"));
        assert_eq!(small.contains("--single-file-segments"), joins_ordinary_pages(&Eal::version()));
        assert_eq!(
            ["DPDK 22.11.11", "DPDK 24.11.8", "DPDK 25.07.0", "DPDK 25.11.4", "DPDK 26.03.0-rc1"]
                .map(joins_ordinary_pages),
            [true, true, true, false, false]
        );
        assert!(small.contains("--iova-mode=va"));
        let physical = EalConfig { iova: Iova::Physical, ..EalConfig::default() };
        assert!(physical.arguments(true, "0").join(" ").contains("--iova-mode=pa"));
        let config = EalConfig { pci: vec!["0000:01:00.0".into()], telemetry: true, in_memory: false, ..config };
        let large = config.arguments(true, "0").join(" ");
        assert!(large.contains("--single-file-segments") && large.contains("-a 0000:01:00.0"));
        for part in ["--no-huge", "--no-pci", "--in-memory", "--no-shconf", "--no-telemetry"] {
            assert!(!large.contains(part), "{part} is in {large}");
        }
    }

    /// Each killed process used to leave a directory for ever.
    #[test]
    fn folders_of_dead_processes_go() {
        let dir = tempfile::tempdir().unwrap();
        let (all, proc) = (dir.path().join("dpdk"), dir.path().join("proc"));
        for path in
            ["dpdk/gannet-1", "dpdk/gannet-2", "dpdk/gannet-x", "dpdk/other-1", "dpdk/gannet-3/in-use", "proc/2"]
        {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        remove_dead(&all, &proc);
        let mut left: Vec<_> = fs::read_dir(&all).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["gannet-2", "gannet-3", "gannet-x", "other-1"]);
        remove_dead(&dir.path().join("nowhere"), &proc);
    }

    #[test]
    fn memory_choice() {
        let config = |hugepages| EalConfig { hugepages, memory_mb: 100, ..EalConfig::default() };
        let choose = |wish, free: u64| config(wish).choose_memory(free << 20, true);
        assert!(matches!(choose(Hugepages::Auto, 100), Ok((true, None))));
        assert!(matches!(choose(Hugepages::Auto, 99), Ok((false, Some(w))) if w.contains("nr_hugepages=50")));
        assert!(matches!(choose(Hugepages::Never, 1000), Ok((false, None))));
        assert!(matches!(choose(Hugepages::Require, 99), Err(EalError::NoHugepages { free_mb: 99, need_mb: 100 })));
        // Ordinary pages can move, while a device without an IOMMU keeps writing to the old address.
        let physical = EalConfig { iova: Iova::Physical, ..config(Hugepages::Auto) };
        assert!(matches!(physical.choose_memory(100 << 20, true), Ok((true, None))));
        let error = physical.choose_memory(99 << 20, true).unwrap_err();
        assert!(matches!(error, EalError::PhysicalWithoutHugepages { free_mb: 99, need_mb: 100 }));
        let never = EalConfig { hugepages: Hugepages::Never, ..physical };
        assert!(never.choose_memory(1 << 40, true).is_err());
        assert!(matches!(config(Hugepages::Require).choose_memory(1 << 40, false), Err(EalError::NoHugepages { .. })));
    }
}
