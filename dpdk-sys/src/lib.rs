//! Bindings to DPDK: the part that Gannet calls, static inline functions wrapped.
//!
//! Everything here is unsafe, and documented only in DPDK's manual; `gannet::dpdk` is the safe interface.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, missing_docs)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

mod bindings {
    #![allow(dead_code, unused_imports, improper_ctypes)]
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
pub use bindings::*;

/// The DPDK release that this crate was built against.
pub const VERSION: &str = env!("GANNET_DPDK_VERSION");
/// The driver directory of that release.
pub const PLUGIN_DIR: &str = env!("GANNET_DPDK_PLUGIN_DIR");

/// The part of `rte_mbuf` that Rust code accesses without a call.
///
/// Defined here rather than by bindgen because later releases group the same fields in anonymous unions. The vector
/// receive paths of the drivers rely on these offsets, so they do not change; the shim asserts each of them against the
/// headers, so a build against a DPDK with other offsets fails.
#[repr(C, align(64))]
pub struct mbuf_head {
    pub buf_addr: *mut core::ffi::c_void,
    /// `buf_iova`, or `next` in builds without physical addresses.
    pub iova_or_next: u64,
    pub data_off: u16,
    pub refcnt: u16,
    pub nb_segs: u16,
    pub port: u16,
    pub ol_flags: u64,
    pub packet_type: u32,
    pub pkt_len: u32,
    pub data_len: u16,
    pub vlan_tci: u16,
    pub hash_rss: u32,
    pub hash_hi: u32,
    pub vlan_tci_outer: u16,
    pub buf_len: u16,
    pub pool: *mut rte_mempool,
    /// `next`, or free space in builds without physical addresses.
    pub next_or_dynfield: u64,
    /// `l2_len` in bits 0 to 6, `l3_len` in bits 7 to 15.
    pub tx_offload: u64,
    rest: [u64; 6],
}

/// The bit at which `l3_len` starts in [`mbuf_head::tx_offload`].
pub const TX_OFFLOAD_L3_SHIFT: u32 = 7;

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<mbuf_head>() == GANNET_SIZEOF_MBUF as usize);
    assert!(offset_of!(mbuf_head, buf_addr) == 0);
    assert!(offset_of!(mbuf_head, data_off) == 16);
    assert!(offset_of!(mbuf_head, refcnt) == 18);
    assert!(offset_of!(mbuf_head, nb_segs) == 20);
    assert!(offset_of!(mbuf_head, port) == 22);
    assert!(offset_of!(mbuf_head, ol_flags) == 24);
    assert!(offset_of!(mbuf_head, packet_type) == 32);
    assert!(offset_of!(mbuf_head, pkt_len) == 36);
    assert!(offset_of!(mbuf_head, data_len) == 40);
    assert!(offset_of!(mbuf_head, vlan_tci) == 42);
    assert!(offset_of!(mbuf_head, hash_rss) == 44);
    assert!(offset_of!(mbuf_head, vlan_tci_outer) == 52);
    assert!(offset_of!(mbuf_head, buf_len) == 54);
    assert!(offset_of!(mbuf_head, pool) == 56);
    assert!(offset_of!(mbuf_head, tx_offload) == 72);
};
