//! The library's function table and managers.

use core::cell::OnceCell;
use core::ffi::c_void;
use core::ptr::NonNull;
use std::sync::OnceLock;

use ipsec_mb_sys as sys;

use super::{AES128, AES256};

/// A set of the library's kernels, in ascending order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::crypto) enum Arch {
    Sse,
    Avx,
    Avx2,
    Avx512,
}

/// Instruction sets that the CPU has and the operating system supports: for AVX and AVX-512, it has to save their
/// registers (XGETBV). The library's own detection only queries the CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Features {
    /// AES-NI, PCLMULQDQ and SSE4.2, which all kernels need.
    aes: bool,
    avx: bool,
    /// AVX2 and BMI2.
    avx2: bool,
    /// F, BW, CD, DQ and VL.
    avx512: bool,
}

impl Features {
    fn detected() -> Self {
        Self {
            aes: is_x86_feature_detected!("aes")
                && is_x86_feature_detected!("pclmulqdq")
                && is_x86_feature_detected!("sse4.2"),
            avx: is_x86_feature_detected!("avx"),
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2"),
            avx512: is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl"),
        }
    }

    /// Whether the kernels of `arch` can run. Each level needs everything that the one before it needs.
    fn allow(self, arch: Arch) -> bool {
        let Self { aes, avx, avx2, avx512 } = self;
        match arch {
            Arch::Sse => aes,
            Arch::Avx => aes && avx,
            Arch::Avx2 => aes && avx && avx2,
            Arch::Avx512 => aes && avx && avx2 && avx512,
        }
    }
}

impl Arch {
    const ALL: [Self; 4] = [Self::Sse, Self::Avx, Self::Avx2, Self::Avx512];

    /// The levels whose kernels can run here.
    pub(in crate::crypto::backend) fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|arch| Library::get(*arch).is_some())
    }

    pub(in crate::crypto::backend) fn name(self) -> &'static str {
        match self {
            Self::Sse => "ipsec-mb/sse",
            Self::Avx => "ipsec-mb/avx",
            Self::Avx2 => "ipsec-mb/avx2",
            Self::Avx512 => "ipsec-mb/avx512",
        }
    }

    fn init(self) -> Option<sys::Init> {
        match self {
            Self::Sse => Some(sys::init_mb_mgr_sse),
            Self::Avx => sys::INIT_AVX,
            Self::Avx2 => Some(sys::init_mb_mgr_avx2),
            Self::Avx512 => Some(sys::init_mb_mgr_avx512),
        }
    }
}

type Init = unsafe extern "C" fn(*const sys::gcm_key_data, *mut sys::gcm_context_data, *const u8, u64, *const u8, u64);
type Whole = unsafe extern "C" fn(
    *const sys::gcm_key_data,
    *mut sys::gcm_context_data,
    *mut u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    u64,
    *mut u8,
    u64,
);
type Update = unsafe extern "C" fn(*const sys::gcm_key_data, *mut sys::gcm_context_data, *mut u8, *const u8, u64);
type Finalize = unsafe extern "C" fn(*const sys::gcm_key_data, *mut sys::gcm_context_data, *mut u8, u64);
type Pre = unsafe extern "C" fn(*const c_void, *mut sys::gcm_key_data);
type KeyExp = unsafe extern "C" fn(*const c_void, *mut c_void, *mut c_void);
type Ghash = unsafe extern "C" fn(*const sys::gcm_key_data, *const c_void, u64, *mut c_void, u64);

/// The direct functions for one key length.
pub(super) struct Kernels {
    pub(super) expand: KeyExp,
    pub(super) prepare: Pre,
    pub(super) whole: Whole,
    pub(super) init: Init,
    pub(super) update: Update,
    pub(super) finalize: Finalize,
}

/// The functions of the library that we use, for one architecture. They are direct ones, which only access their
/// arguments (and set an error number that is ignored), so that all threads can share them.
pub(super) struct Library {
    pub(super) arch: Arch,
    pub(super) ghash: Ghash,
    aes128: Kernels,
    aes256: Kernels,
}

impl Library {
    /// The kernels of `arch`, if they can run here.
    fn get(arch: Arch) -> Option<&'static Self> {
        static LIBRARIES: [OnceLock<Option<Library>>; Arch::ALL.len()] = [const { OnceLock::new() }; Arch::ALL.len()];
        LIBRARIES[arch as usize].get_or_init(|| Self::load(arch)).as_ref()
    }

    fn load(arch: Arch) -> Option<Self> {
        let manager = Manager::new(arch)?;
        // SAFETY: the manager is initialised and lives until the end of this function. Only function pointers are read
        // from it, which outlive it.
        let m = unsafe { manager.0.as_ref() };
        Some(Self {
            arch,
            ghash: m.ghash?,
            aes128: Kernels {
                expand: m.keyexp_128?,
                prepare: m.gcm128_pre?,
                whole: m.gcm128_enc?,
                init: m.gcm128_init_var_iv?,
                update: m.gcm128_enc_update?,
                finalize: m.gcm128_enc_finalize?,
            },
            aes256: Kernels {
                expand: m.keyexp_256?,
                prepare: m.gcm256_pre?,
                whole: m.gcm256_enc?,
                init: m.gcm256_init_var_iv?,
                update: m.gcm256_enc_update?,
                finalize: m.gcm256_enc_finalize?,
            },
        })
    }

    /// # Panics
    /// If the machine does not support these kernels.
    pub(super) fn expect(arch: Arch) -> &'static Self {
        Self::get(arch).expect("chosen only where it runs")
    }

    pub(super) fn kernels<const ROUNDS: usize>(&self) -> &Kernels {
        const { assert!(ROUNDS == AES128 || ROUNDS == AES256) };
        if ROUNDS == AES128 { &self.aes128 } else { &self.aes256 }
    }
}

/// A manager: the library's state for jobs, used by one thread at a time.
pub(super) struct Manager(NonNull<sys::IMB_MGR>);

impl Manager {
    fn new(arch: Arch) -> Option<Self> {
        if !Features::detected().allow(arch) {
            return None;
        }
        let init = arch.init()?;
        // SAFETY: takes no pointers; the result is checked.
        let manager = Self(NonNull::new(unsafe { sys::alloc_mb_mgr(0) })?);
        // SAFETY: the manager was just allocated, and CPU and system support the architecture.
        unsafe { init(manager.0.as_ptr()) };
        // SAFETY: it is allocated and not shared.
        unsafe { manager.0.as_ref() }.submit_cipher_burst_nocheck.is_some().then_some(manager)
    }
}

impl Manager {
    pub(super) fn as_ptr(&self) -> *mut sys::IMB_MGR {
        self.0.as_ptr()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: allocated by the library, and freed only here.
        unsafe { sys::free_mb_mgr(self.0.as_ptr()) };
    }
}

thread_local! {
    static MANAGERS: [OnceCell<Manager>; Arch::ALL.len()] = const { [const { OnceCell::new() }; Arch::ALL.len()] };
}

/// Calls `work` with this thread's manager for `arch`, which must be able to run here.
pub(super) fn with_manager<T>(arch: Arch, work: impl FnOnce(&Manager) -> T) -> T {
    MANAGERS.with(|managers| {
        let make = || Manager::new(arch).expect("memory for a manager of intel-ipsec-mb");
        work(managers[arch as usize].get_or_init(make))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose CPU has AVX-512 but whose system does not save its registers, because of a hypervisor's mask or
    /// `clearcpuid`.
    #[test]
    fn the_system_has_a_say_in_which_kernels_run() {
        let best = |features: Features| Arch::ALL.into_iter().rfind(|arch| features.allow(*arch));
        let all = Features { aes: true, avx: true, avx2: true, avx512: true };
        assert_eq!(best(all), Some(Arch::Avx512));
        assert_eq!(best(Features { avx512: false, ..all }), Some(Arch::Avx2));
        assert_eq!(best(Features { avx2: false, ..all }), Some(Arch::Avx), "not with half of what it needs");
        assert_eq!(best(Features { avx: false, ..all }), Some(Arch::Sse));
        assert_eq!(best(Features { aes: false, ..all }), None);
        assert_eq!(best(Features::default()), None);
    }

    #[test]
    fn each_architecture_that_may_run_does() {
        let features = Features::detected();
        for arch in Arch::ALL {
            let there = arch.init().is_some() && features.allow(arch);
            assert_eq!(Arch::available().any(|a| a == arch), there, "{arch:?} with {features:?}");
        }
    }
}
