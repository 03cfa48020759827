//! The library's table of functions, and its managers.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::sync::OnceLock;

use ipsec_mb_sys as sys;

use super::{AES128, AES256};

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

/// What we use of the library, as it suits this CPU. The functions are direct ones, which read their arguments only
/// (and set an error number that nobody looks at), so that all threads share them.
pub(super) struct Library {
    name: &'static str,
    pub(super) ghash: Ghash,
    aes128: Kernels,
    aes256: Kernels,
}

impl Library {
    /// The library, if this CPU is one for it.
    fn get() -> Option<&'static Self> {
        static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
        LIBRARY.get_or_init(Self::load).as_ref()
    }

    fn load() -> Option<Self> {
        if !(is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("sse4.2"))
        {
            return None;
        }
        let manager = Manager::new()?;
        // SAFETY: the manager lives until the end of this function and is initialised. What is read from it
        // are numbers and function pointers, which outlive it.
        let m = unsafe { manager.0.as_ref() };
        Some(Self {
            name: match m.used_arch {
                sys::IMB_ARCH_IMB_ARCH_SSE => "ipsec-mb/sse",
                sys::IMB_ARCH_IMB_ARCH_AVX => "ipsec-mb/avx",
                sys::IMB_ARCH_IMB_ARCH_AVX2 => "ipsec-mb/avx2",
                sys::IMB_ARCH_IMB_ARCH_AVX512 => "ipsec-mb/avx512",
                _ => return None,
            },
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
    /// If the machine is none for the library.
    pub(super) fn expect() -> &'static Self {
        Self::get().expect("chosen only where it runs")
    }

    pub(super) fn kernels<const ROUNDS: usize>(&self) -> &Kernels {
        const { assert!(ROUNDS == AES128 || ROUNDS == AES256) };
        if ROUNDS == AES128 { &self.aes128 } else { &self.aes256 }
    }
}

/// What the library's kernels are, if they run on this machine.
pub(in crate::crypto::backend) fn name() -> Option<&'static str> {
    Library::get().map(|library| library.name)
}

/// A manager: the library's state for jobs, for one thread at a time.
pub(super) struct Manager(NonNull<sys::IMB_MGR>);

impl Manager {
    fn new() -> Option<Self> {
        // SAFETY: takes no pointers; what it returns is checked.
        let manager = Self(NonNull::new(unsafe { sys::alloc_mb_mgr(0) })?);
        // SAFETY: the manager was just allocated; the architecture that was picked may go to nowhere.
        unsafe { sys::init_mb_mgr_auto(manager.0.as_ptr(), ptr::null_mut()) };
        // SAFETY: it is allocated and nobody else has it.
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
    pub(super) static MANAGER: Manager = Manager::new().expect("memory for a manager of intel-ipsec-mb");
}
