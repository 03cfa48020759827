//! Application memory that a device may access.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Port, PortInner};
use crate::dpdk::error::{PortError, text};
use crate::dpdk::log::Capture;
use crate::mem::{Backing, BufPool, KeptRegions, RegionInfo};

/// Memory that is registered with DPDK and mapped for a port's device until this is dropped.
pub struct MemoryGuard {
    addr: *mut c_void,
    len: usize,
    /// This guard registered it, rather than another port's.
    registered: bool,
    mapped: bool,
    port: Arc<PortInner>,
}

// SAFETY: the address is only handed to DPDK, whose registry is locked.
unsafe impl Send for MemoryGuard {}

impl Port {
    /// Registers `len` bytes at `addr`, in pages of `page` bytes, with DPDK and maps them for this port's device.
    ///
    /// For several ports, call it on each, and drop the guards in reverse order.
    ///
    /// # Errors
    /// If address or length are not multiples of the page size, or the device refuses the mapping.
    ///
    /// # Safety
    /// The memory must stay mapped, and not be reused for anything else, until the guard is dropped.
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
        // SAFETY: whole pages that stay mapped (the caller's promise). No address table is needed: with virtual
        // addresses none is used, and with physical ones no device accesses this memory, as frames are in DPDK's
        // memory.
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
            // Virtual devices can access all memory of the process.
            code if -code == libc::ENOTSUP => {}
            code => return Err(fail(code)),
        }
        Ok(guard)
    }
}

/// Hugepage regions as (address, length, page size), with adjacent ones joined: DPDK has room for few.
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
    // Field order matters: memory is unregistered before it is unmapped.
    guards: Vec<MemoryGuard>,
    _kept: KeptRegions,
}

impl PoolGuard {
    /// The number of registered regions.
    pub fn regions(&self) -> usize {
        self.guards.len()
    }
}

impl Port {
    /// Registers the hugepages that `pool` has mapped so far with DPDK and maps them for this port's device. They stay
    /// mapped until the guard is dropped. Ordinary pages are skipped, as devices cannot rely on them.
    ///
    /// # Errors
    /// If the device refuses the mapping.
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
        self.port.device.info().0.device
    }

    /// Maps the memory; returns 0 or a negative error code.
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
