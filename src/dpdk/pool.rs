//! Mempools of packet buffers.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::eal::EalInner;
use super::error::{PortError, last};
use super::room::CACHE;
use crate::mem::{Hugepages, PinnedBuf, PinnedRegion};

/// A unique name for a pool.
fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("gannet_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A pool of buffers with a fixed data room. Every buffer returns to the pool it came from.
pub(super) struct Pool {
    raw: NonNull<dpdk_sys::rte_mempool>,
    size: u32,
    eal: Arc<EalInner>,
    /// The memory of its buffers, if it is not DPDK's.
    memory: Option<PinnedBuf>,
}

// SAFETY: a multi-producer, multi-consumer mempool may be used from any thread at a time; its caches are per lcore.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Creates a pool of `size` buffers with `room` bytes each, headroom included, on NUMA node `socket` (-1: any).
    pub(super) fn new(eal: &Arc<EalInner>, size: u32, room: u16, socket: i32) -> Result<Arc<Self>, PortError> {
        let node = u16::try_from(socket).ok();
        let fail = |reason| PortError::Memory { mbufs: size, size: u32::from(room), node, reason };
        let name = CString::new(name()).map_err(|e| fail(e.to_string()))?;
        // DPDK requires the cache to be below two thirds of the pool.
        let cache = CACHE.min(size / 4);
        // SAFETY: EAL is up (`eal`), and the name is NUL-terminated.
        let raw = unsafe { dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), size, cache, 0, room, socket) };
        let raw = NonNull::new(raw).ok_or_else(|| fail(last()))?;
        Ok(Arc::new(Self { raw, size, eal: eal.clone(), memory: None }))
    }

    /// Creates a pool in memory that no device and no other process can access, whatever DPDK shares with them, preferably
    /// on NUMA node `socket` (-1: any).
    pub(super) fn private(eal: &Arc<EalInner>, size: u32, room: u16, socket: i32) -> Result<Arc<Self>, PortError> {
        let fail = |reason| PortError::Memory { mbufs: size, size: u32::from(room), node: None, reason };
        let node = u32::try_from(socket).ok();
        // SAFETY: plain arithmetic.
        let len = unsafe { dpdk_sys::gannet_private_pool_bytes(size, room) };
        let mut memory = PinnedRegion::map(len, Hugepages::Never, node).map_err(|e| fail(e.to_string()))?.into_buf();
        let name = CString::new(name()).map_err(|e| fail(e.to_string()))?;
        let cache = CACHE.min(size / 4);
        // SAFETY: EAL is up, the name is NUL-terminated, and the memory, which nobody else uses, stays mapped for
        // longer than the pool.
        let raw = unsafe {
            dpdk_sys::gannet_private_pool(name.as_ptr(), size, cache, room, memory.as_mut_ptr().cast(), memory.len())
        };
        let raw = NonNull::new(raw).ok_or_else(|| fail(last()))?;
        Ok(Arc::new(Self { raw, size, eal: eal.clone(), memory: Some(memory) }))
    }

    pub(super) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.raw.as_ptr()
    }

    /// The total number of buffers.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// The number of buffers not in use.
    pub(super) fn available(&self) -> u32 {
        // SAFETY: the pool is alive; the count is racy by nature and only reported.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A buffer may outlive its port, and some drivers lose a few when they close (af_xdp its fill ring). Their pool
        // must then stay mapped. No more buffers can be taken, so the count only grows.
        if self.available() == self.size {
            // SAFETY: all buffers are back and no port uses the pool: ports hold an `Arc` of it.
            unsafe { dpdk_sys::rte_mempool_free(self.as_ptr()) };
        } else {
            self.eal.in_use.store(true, Ordering::Release);
            std::mem::forget(self.memory.take());
        }
    }
}
