//! Raw bindings to intel-ipsec-mb: the manager, its function table, and the types that they need.
//!
//! Only what Gannet uses is included. Most of the library is called through the function pointers in `IMB_MGR`. Empty
//! on processors other than x86-64, for which the library does not exist.
#![cfg(target_arch = "x86_64")]
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// Fills a manager's table with the kernels of one architecture, and leaves it empty if the CPU lacks an instruction.
/// The caller has to check whether the operating system saves the registers.
pub type Init = unsafe extern "C" fn(*mut IMB_MGR);

/// AVX without AVX2, if the library supports it.
#[cfg(has_avx)]
pub const INIT_AVX: Option<Init> = Some(init_mb_mgr_avx);
/// AVX without AVX2, if the library supports it.
#[cfg(not(has_avx))]
pub const INIT_AVX: Option<Init> = None;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_comes_up_with_its_table_filled() {
        // SAFETY: a manager of our own, freed once; the table is only read.
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
