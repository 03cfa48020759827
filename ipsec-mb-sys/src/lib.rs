//! Raw bindings to intel-ipsec-mb: the manager, its table of functions, and the few types that they take.
//!
//! Only what Gannet calls is here. Most of the library is reached through the function pointers in `IMB_MGR`. Empty on
//! processors other than x86-64, for which the library does not exist.
#![cfg(target_arch = "x86_64")]
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// Fills a manager's table with the kernels of one architecture, and leaves it empty if the CPU lacks an instruction of
/// theirs. Whether the operating system keeps the registers that they use is for the caller to find out.
pub type Init = unsafe extern "C" fn(*mut IMB_MGR);

/// AVX without AVX2, if this version of the library has it.
#[cfg(has_avx)]
pub const INIT_AVX: Option<Init> = Some(init_mb_mgr_avx);
/// AVX without AVX2, if this version of the library has it.
#[cfg(not(has_avx))]
pub const INIT_AVX: Option<Init> = None;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_comes_up_with_its_table_filled() {
        // SAFETY: a manager of our own, freed once; the table is only looked at.
        unsafe {
            let mgr = alloc_mb_mgr(0);
            assert!(!mgr.is_null());
            init_mb_mgr_sse(mgr);
            assert!((*mgr).ghash.is_some() && (*mgr).gcm128_pre.is_some() && (*mgr).gcm256_pre.is_some());
            free_mb_mgr(mgr);
        }
    }

    #[test]
    fn keys_are_aligned_as_the_kernels_want() {
        assert_eq!(align_of::<gcm_key_data>(), 64);
    }
}
