//! Memory of the application that a device may read and write.

use std::ffi::c_void;
use std::mem::zeroed;
use std::sync::Arc;

use super::{Port, PortInner};
use crate::dpdk::error::{PortError, text};
use crate::dpdk::log::Capture;
use crate::mem::{Backing, BufPool, KeptRegions, RegionInfo};

/// Memory that is registered with DPDK, and mapped for a port's device, until this is dropped.
pub struct MemoryGuard {
    addr: *mut c_void,
    len: usize,
    /// This guard registered it, rather than found it registered for another port.
    registered: bool,
    mapped: bool,
    port: Arc<PortInner>,
}

// SAFETY: the address is only handed to DPDK, whose registry is locked.
unsafe impl Send for MemoryGuard {}

impl Port {
    /// Makes `len` bytes at `addr`, in pages of `page` bytes, known to DPDK and reachable for this port's device.
    ///
    /// For several ports call it on each, and drop the guards in reverse order.
    ///
    /// # Errors
    /// An address or length that is not made of whole pages; a device that refuses the mapping.
    ///
    /// # Safety
    /// The memory stays mapped, and is not given to anything else, until the guard is dropped.
    pub unsafe fn register_memory(&self, addr: *mut u8, len: usize, page: usize) -> Result<MemoryGuard, PortError> {
        if !page.is_power_of_two() || len == 0 || !len.is_multiple_of(page) || !(addr as usize).is_multiple_of(page) {
            return Err(PortError::Alignment { addr: addr as usize, len, page });
        }
        let capture = Capture::start();
        let fail = |code: i32| PortError::Step {
            port: self.inner.name.clone(),
            step: "registering memory",
            reason: text(code),
            detail: capture.summary(),
        };
        let addr = addr.cast::<c_void>();
        // SAFETY: whole pages that stay mapped (the caller's promise). With virtual addresses no table is needed; with
        // physical ones no device is told of this memory: frames are in memory of DPDK's.
        let code = unsafe { dpdk_sys::rte_extmem_register(addr, len, std::ptr::null_mut(), 0, page) };
        // SAFETY: reads a thread-local integer.
        let errno = if code == 0 { 0 } else { unsafe { dpdk_sys::gannet_rte_errno() } };
        if errno != 0 && errno != libc::EEXIST {
            return Err(fail(errno));
        }
        let registered = errno == 0;
        let mut guard = MemoryGuard { addr, len, registered, mapped: false, port: self.inner.clone() };
        match guard.map() {
            0 => guard.mapped = true,
            // Virtual devices reach all memory of the process.
            code if -code == libc::ENOTSUP => {}
            code => return Err(fail(code)),
        }
        Ok(guard)
    }
}

/// Hugepage regions as (address, length, page size), neighbours joined: DPDK has room for few.
fn ranges(regions: &[RegionInfo]) -> Vec<(usize, usize, usize)> {
    let mut joined: Vec<(usize, usize, usize)> = Vec::new();
    for r in regions.iter().filter(|r| matches!(r.backing, Backing::Huge1G | Backing::Huge2M)) {
        match joined.last_mut() {
            Some((addr, len, page)) if *addr + *len == r.addr && *page == r.page_size => *len += r.len,
            _ => joined.push((r.addr, r.len, r.page_size)),
        }
    }
    joined
}

/// A pool's memory, registered with DPDK and a port until this is dropped.
pub struct PoolGuard {
    // In this order: nothing is unmapped before it is unregistered.
    guards: Vec<MemoryGuard>,
    _kept: KeptRegions,
}

impl PoolGuard {
    /// How many regions are registered.
    pub fn regions(&self) -> usize {
        self.guards.len()
    }
}

impl Port {
    /// Makes the hugepages that `pool` has mapped by now known to DPDK and reachable for this port's device.
    /// They stay mapped until the guard is dropped. Ordinary pages are left out: devices cannot rely on them.
    ///
    /// # Errors
    /// A device that refuses the mapping.
    pub fn register_pool(&self, pool: &BufPool) -> Result<PoolGuard, PortError> {
        let kept = pool.keep_regions();
        let guards: Result<Vec<_>, _> = ranges(kept.regions())
            .into_iter()
            .map(|(addr, len, page)| {
                // SAFETY: `kept` keeps the regions mapped, and goes after the guards.
                unsafe { self.register_memory(addr as *mut u8, len, page) }
            })
            .collect();
        Ok(PoolGuard { guards: guards?, _kept: kept })
    }
}

impl MemoryGuard {
    fn device(&self) -> *mut dpdk_sys::rte_device {
        // SAFETY: plain data, for which zero is valid; the port exists.
        unsafe {
            let mut info: dpdk_sys::rte_eth_dev_info = zeroed();
            dpdk_sys::rte_eth_dev_info_get(self.port.id, &mut info);
            info.device
        }
    }

    /// 0 or a negative error code.
    fn map(&self) -> i32 {
        let device = self.device();
        if device.is_null() {
            return -libc::ENOTSUP;
        }
        // SAFETY: the device exists for as long as the port; the memory was registered before.
        unsafe {
            match dpdk_sys::rte_dev_dma_map(device, self.addr, self.addr as u64, self.len) {
                0 => 0,
                _ => -dpdk_sys::gannet_rte_errno(),
            }
        }
    }
}

impl Drop for MemoryGuard {
    fn drop(&mut self) {
        // SAFETY: undoes what the constructor did, in reverse order, while port and EAL are still there.
        unsafe {
            if self.mapped {
                dpdk_sys::rte_dev_dma_unmap(self.device(), self.addr, self.addr as u64, self.len);
            }
            if self.registered {
                dpdk_sys::rte_extmem_unregister(self.addr, self.len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_ordinary_pages_left_out() {
        let region = |addr, len, backing| RegionInfo { addr, len, page_size: 2 << 20, backing };
        let huge = Backing::Huge2M;
        let regions = [
            region(0x20_0000, 0x20_0000, huge),
            region(0x40_0000, 0x40_0000, huge),
            region(0x80_0000, 0x20_0000, Backing::Locked),
            region(0xa0_0000, 0x20_0000, huge),
        ];
        assert_eq!(ranges(&regions), [(0x20_0000, 0x60_0000, 2 << 20), (0xa0_0000, 0x20_0000, 2 << 20)]);
    }
}
